//! The load: connections that each send the same request again as soon as the answer is there.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What is sent.
pub(crate) struct Request {
    pub(crate) function: &'static str,
    pub(crate) body: String,
}

/// What came of it.
pub(crate) struct Load {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) requests: u32,
    /// Processor time of the server per request; the load does not know it.
    pub(crate) cpu: Duration,
}

/// Runs the load for a while.
pub(crate) async fn run(
    address: SocketAddr,
    request: &Request,
    connections: usize,
    duration: Duration,
) -> anyhow::Result<Load> {
    let message = format!(
        "POST /{} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json; charset=utf-8\r\n\
         X-Azure-Functions-InvocationId: 1f0c7a52-7c3e-4a8d-9a55-0d6b3f1c2e77\r\nContent-Length: {}\r\n\r\n{}",
        request.function,
        request.body.len(),
        request.body
    );
    let started = Instant::now();
    let latencies = try_join_all(
        (0..connections).map(|_| connection(address, message.as_bytes(), started + duration)),
    );
    let mut latencies = latencies.await?.concat();
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "nothing was answered");
    let quantile = |q: usize| latencies[(latencies.len() - 1) * q / 100];
    Ok(Load {
        per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
        p50: quantile(50),
        p99: quantile(99),
        requests: u32::try_from(latencies.len())?,
        cpu: Duration::ZERO,
    })
}

async fn connection(
    address: SocketAddr,
    message: &[u8],
    until: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let sent = Instant::now();
        stream.write_all(message).await?;
        read_answer(&mut stream, &mut buffer).await?;
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}

/// Reads one whole answer, which must be 200.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    buffer.clear();
    let mut whole = None;
    while whole.is_none_or(|length| buffer.len() < length) {
        ensure!(
            stream.read_buf(buffer).await? > 0,
            "the server closed the connection"
        );
        if whole.is_none()
            && let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let text = std::str::from_utf8(&buffer[..head])?;
            ensure!(text.starts_with("HTTP/1.1 200"), "not 200: {text}");
            let length = text
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .context("no content-length")?;
            whole = Some(head + 4 + length.1.parse::<usize>()?);
        }
    }
    Ok(())
}
