//! The measured processes.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::floor;

/// Which server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Floor,
    Handler,
}

/// Names another executable to measure, such as the one that is deployed.
const EXECUTABLE: &str = "GEO_EVENTS_EXECUTABLE";

/// Longest wait for a server's first answer.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Pause between two looks at a server that starts: short beside the few milliseconds that are measured.
const POLL: Duration = Duration::from_micros(100);

/// Unit of processor time: `USER_HZ` is 100 on every Linux platform that Rust's standard library supports.
const TICK: Duration = Duration::from_millis(10);

/// A server in a process of its own; killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    cold_start: Duration,
}

impl Server {
    /// Starts a server and waits for its first answer.
    pub(crate) fn start(kind: Kind) -> anyhow::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let mut command = match kind {
            Kind::Floor => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(floor::COMMAND);
                command
            }
            Kind::Handler => {
                let built = env!("CARGO_BIN_EXE_geo-events").into();
                let mut command = Command::new(std::env::var_os(EXECUTABLE).unwrap_or(built));
                command.arg("serve");
                command
            }
        };
        command
            .env_clear()
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
            .env("REGION", "West US")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let started = Instant::now();
        let child = command.spawn().context("cannot start the server")?;
        let mut server = Self {
            child,
            address,
            cold_start: Duration::ZERO,
        };
        while !is_ready(address) {
            if started.elapsed() > START_DEADLINE {
                bail!("{kind:?} does not answer");
            }
            std::thread::sleep(POLL);
        }
        server.cold_start = started.elapsed();
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the spawn to the first answer.
    pub(crate) fn cold_start(&self) -> Duration {
        self.cold_start
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("memory can only be measured on Linux")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// Processor time that the process has used so far, in all its threads.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .context("processor time can only be measured on Linux")?;
        // The name in brackets may hold spaces; what follows is the third field and all later ones, see proc(5).
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(TICK * u32::try_from(ticks)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both serve until they are killed; one that has ended by itself was noticed by the load.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
