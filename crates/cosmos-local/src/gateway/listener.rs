//! The sockets of one gateway, which can be closed and opened again on the same port.

use std::{
    convert::Infallible,
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Mutex, Semaphore},
    task::JoinHandle,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{Door, Gateway, reply::ApiError};

/// Largest request body, in bytes: the service's 2 MB for an item, and its envelope.
const MAX_BODY: usize = 2 * 1024 * 1024 + 64 * 1024;

/// Connections of a gateway at the most; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;

/// Streams that one HTTP/2 client may have open.
const MAX_STREAMS: u32 = 1000;

/// How long to wait after a connection could not be accepted. The system has run out of files or memory, as a rule, and
/// says so again until somebody else lets go of some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that wait to be accepted, at the most.
const BACKLOG: u32 = 1024;

struct Serving {
    stop: CancellationToken,
    accepting: JoinHandle<()>,
}

/// What becomes of those who connect.
enum State {
    Serving(Serving),
    /// They are refused, and the system gives the port to nobody else who asks for any.
    Refusing(TcpSocket),
    /// The port is anybody's.
    Closed,
}

/// A gateway's door.
pub(crate) struct Listener {
    port: u16,
    gateway: Arc<Gateway>,
    door: Door,
    state: Mutex<State>,
    online: AtomicBool,
}

/// A port that is taken; who connects waits until it is served.
pub(crate) struct Socket {
    socket: TcpListener,
    port: u16,
}

impl Socket {
    /// Takes a port of 127.0.0.1; 0 is any.
    pub(crate) async fn bind(port: u16) -> io::Result<Self> {
        let socket = bind(port)?.listen(BACKLOG)?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket, port })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Answers whoever connects.
    pub(crate) fn serve(self, gateway: Arc<Gateway>, door: Door) -> Listener {
        let serving = serve(self.socket, Arc::clone(&gateway), door.clone());
        Listener {
            port: self.port,
            gateway,
            door,
            state: Mutex::new(State::Serving(serving)),
            online: true.into(),
        }
    }
}

impl Listener {
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn is_online(&self) -> bool {
        self.online.load(Ordering::Relaxed)
    }

    /// Closes the socket and drops open connections for good.
    pub(crate) async fn stop(&self) {
        self.close(&mut *self.state.lock().await).await;
    }

    async fn close(&self, state: &mut State) {
        if let State::Serving(serving) = std::mem::replace(state, State::Closed) {
            serving.stop.cancel();
            // It ends by the token; the only other end is a panic, which has been reported.
            let _ = serving.accepting.await;
        }
        self.online.store(false, Ordering::Relaxed);
    }

    /// Refuses and drops connections, as an outage does.
    pub(crate) async fn refuse(&self) -> io::Result<()> {
        let mut state = self.state.lock().await;
        if let State::Serving(_) = *state {
            self.close(&mut state).await;
            *state = State::Refusing(bind(self.port)?);
        }
        Ok(())
    }

    /// Answers again.
    pub(crate) async fn resume(&self) -> io::Result<()> {
        let mut state = self.state.lock().await;
        let socket = match std::mem::replace(&mut *state, State::Closed) {
            State::Serving(serving) => {
                *state = State::Serving(serving);
                return Ok(());
            }
            State::Refusing(socket) => socket,
            State::Closed => bind(self.port)?,
        };
        let (gateway, door) = (Arc::clone(&self.gateway), self.door.clone());
        *state = State::Serving(serve(socket.listen(BACKLOG)?, gateway, door));
        self.online.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let State::Serving(serving) = self.state.get_mut() {
            serving.stop.cancel();
        }
    }
}

/// Takes a port of 127.0.0.1, where connections are refused until somebody listens; 0 is any.
fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections that have just ended do not keep the port. On Windows that is so anyway, and this would share it.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

/// What is accepted next, sooner or later.
async fn next<T, F: Future<Output = io::Result<T>>>(mut accept: impl FnMut() -> F) -> T {
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve(socket: TcpListener, gateway: Arc<Gateway>, door: Door) -> Serving {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let accepting = tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let (stream, place) = tokio::select! {
                () = stopping.cancelled() => return,
                accepted = async {
                    let place = Arc::clone(&room).acquire_owned().await;
                    let (stream, _) = next(|| socket.accept()).await;
                    (stream, place)
                } => accepted,
            };
            // Small answers wait for no others.
            let _ = stream.set_nodelay(true);
            let (gateway, door, stopping) = (Arc::clone(&gateway), door.clone(), stopping.clone());
            tokio::spawn(async move {
                let _place = place;
                let service =
                    service_fn(move |request| answer(Arc::clone(&gateway), door.clone(), request));
                let mut builder = auto::Builder::new(TokioExecutor::new());
                builder.http2().max_concurrent_streams(MAX_STREAMS);
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    () = stopping.cancelled() => {}
                    ended = connection => if let Err(error) = ended {
                        tracing::debug!(error, "a connection ended badly");
                    }
                }
            });
        }
    });
    Serving { stop, accepting }
}

async fn answer(
    gateway: Arc<Gateway>,
    door: Door,
    request: hyper::Request<Incoming>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let activity = super::request::activity_id(&parts.headers);
            let error = if error.is::<LengthLimitError>() {
                ApiError::new(
                    http::StatusCode::PAYLOAD_TOO_LARGE,
                    format!("a request has at most {MAX_BODY} bytes"),
                )
            } else {
                ApiError::bad_request("the body did not arrive whole")
            };
            return Ok(error.into_reply().into_response(&activity, false));
        }
    };
    Ok(gateway.answer(door, parts, body).await)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_cannot_be_accepted_is_not_tried_all_the_time() {
        let mut tries = 0;
        let failing = next(|| {
            tries += 1;
            ready(Err::<(), _>(io::Error::other("too many open files")))
        });
        let accepted = timeout(ACCEPT_PAUSE * 2, failing).await;
        assert!(accepted.is_err() && tries <= 3, "{tries} tries");
        let mut answers = [Err(io::Error::other("again")), Ok(7)].into_iter();
        let accepted = next(|| ready(answers.next().expect("no more are asked for")));
        assert_eq!(accepted.await, 7);
    }
}
