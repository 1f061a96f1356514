//! One handler process, kept alive by the rules of the real host.
//!
//! Ready is any HTTP response to `GET /`. Exit code 0 is an end, not an error; 200 asks for a restart; everything else, and
//! not becoming ready in time, is an error event. The third event, each within 30 minutes of the one before, ends the host.
//! Source: `Azure/azure-functions-host: src/WebJobs.Script/Workers/Http/HttpFunctionInvocationDispatcher.cs`.
//!
//! Local choices: a stop is announced by SIGTERM before SIGKILL; on Linux the port is reserved between two starts by a
//! bound socket that does not listen, so that nothing else on the machine is given the same number by chance.

use std::error::Error as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::command::{CommandLine, command_line};
use super::output::{LastErrors, Stream, forward};
use super::spawn::{Spawner, signal_group};
use crate::host_json::CustomHandler;
use crate::settings::Settings;

/// Pause between two looks at a handler that is not ready.
pub(crate) const READY_POLL: Duration = Duration::from_millis(25);

/// Error events that end the host.
const MAX_ERRORS: u32 = 3;

/// An error event this long after the one before starts the count anew.
const ERROR_WINDOW: Duration = Duration::from_secs(30 * 60);

/// Between SIGTERM and SIGKILL.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// How long the last lines of a dead handler are waited for; something it started may hold its streams open.
const DRAIN: Duration = Duration::from_millis(200);

/// Exit code by which a handler asks to be started again.
const RESTART_EXIT_CODE: i32 = 200;

/// What a supervisor needs to know.
#[derive(Debug, Clone)]
pub(crate) struct HandlerConfig {
    pub(crate) handler: CustomHandler,
    pub(crate) script_root: PathBuf,
    pub(crate) settings: Arc<Settings>,
    pub(crate) label: Arc<str>,
}

/// Where the handler stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HandlerState {
    /// Being started, or started again.
    Starting,
    /// Answers requests.
    Ready { pid: u32 },
    /// Left with exit code 0 and is not started again.
    Exited,
    /// Given up.
    Failed { reason: String },
    /// Stopped on demand.
    Stopped,
}

/// A supervised handler. Dropping it without [`Handler::stop`] kills the process.
#[derive(Debug)]
pub(crate) struct Handler {
    port: u16,
    state: watch::Receiver<HandlerState>,
    orders: mpsc::Sender<RestartOrder>,
    stop: CancellationToken,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// "Kill the process with this id, if it is still the one that runs."
#[derive(Debug)]
struct RestartOrder {
    pid: u32,
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Handler {
    /// Chooses the port and begins to start the process.
    pub(crate) fn start(config: HandlerConfig) -> std::io::Result<Self> {
        let (port, reservation) = match config.handler.port {
            Some(port) => (port, None),
            None => {
                let (port, socket) = free_port()?;
                (port, cfg!(target_os = "linux").then_some(socket))
            }
        };
        let (state, receiver) = watch::channel(HandlerState::Starting);
        let (orders, order_receiver) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let supervisor = Supervisor {
            config,
            port,
            state,
            orders: order_receiver,
            stop: stop.clone(),
            spawner: Spawner::start()?,
            client: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .pool_max_idle_per_host(0)
                .build()
                .map_err(std::io::Error::other)?,
            _reservation: reservation,
        };
        let task = tokio::spawn(supervisor.run());
        Ok(Self {
            port,
            state: receiver,
            orders,
            stop,
            task: tokio::sync::Mutex::new(Some(task)),
        })
    }

    /// The port the handler listens on; the same for all its lives.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it stands now.
    pub(crate) fn state(&self) -> HandlerState {
        self.state.borrow().clone()
    }

    /// Follows where it stands.
    pub(crate) fn watch(&self) -> watch::Receiver<HandlerState> {
        self.state.clone()
    }

    /// Waits until the handler answers, or will not any more. `None` = neither within `limit`.
    pub(crate) async fn settled(&self, limit: Duration) -> Option<HandlerState> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| *state != HandlerState::Starting);
        match tokio::time::timeout(limit, settled).await {
            Ok(Ok(state)) => Some(state.clone()),
            Ok(Err(_)) => Some(HandlerState::Stopped),
            Err(_) => None,
        }
    }

    /// Kills the process with this id and starts another, uncounted. A process that is not the current one is left alone.
    pub(crate) fn restart(&self, pid: u32) {
        // A full queue means that a restart is due already.
        drop(self.orders.try_send(RestartOrder { pid }));
    }

    /// Ends the process: SIGTERM, a bounded wait, SIGKILL. Returns when it is gone.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the handler's supervisor ended abnormally");
        }
    }
}

/// Binds a free loopback port; the socket does not listen.
fn free_port() -> std::io::Result<(u16, TcpSocket)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    Ok((socket.local_addr()?.port(), socket))
}

/// How often the handler failed of late.
#[derive(Debug, Default)]
struct ErrorCount {
    count: u32,
    last: Option<Instant>,
}

impl ErrorCount {
    /// Adds an event; answers whether the handler may be started again.
    fn add(&mut self, now: Instant) -> bool {
        if self
            .last
            .is_some_and(|last| now.duration_since(last) > ERROR_WINDOW)
        {
            self.count = 0;
        }
        self.last = Some(now);
        self.count += 1;
        self.count < MAX_ERRORS
    }
}

struct Supervisor {
    config: HandlerConfig,
    port: u16,
    state: watch::Sender<HandlerState>,
    orders: mpsc::Receiver<RestartOrder>,
    stop: CancellationToken,
    spawner: Spawner,
    client: reqwest::Client,
    /// Keeps the port from being given to others while no handler listens on it.
    _reservation: Option<TcpSocket>,
}

/// How one life of the process ended.
enum End {
    Stopped,
    Clean,
    Restart {
        why: &'static str,
    },
    Error {
        reason: String,
    },
    /// Nothing that a restart would cure.
    Fatal {
        reason: String,
    },
}

impl Supervisor {
    async fn run(mut self) {
        let mut errors = ErrorCount::default();
        let label = self.config.label.clone();
        loop {
            self.state.send_replace(HandlerState::Starting);
            match self.one_life().await {
                End::Stopped => break,
                End::Clean => {
                    tracing::debug!(host = %label, "the handler left with exit code 0; it is not started again");
                    self.state.send_replace(HandlerState::Exited);
                    self.stop.cancelled().await;
                    break;
                }
                End::Restart { why } => {
                    tracing::info!(host = %label, "{why}; starting the handler again");
                }
                End::Error { reason } if errors.add(Instant::now()) => {
                    tracing::error!(host = %label, failures = errors.count, "{reason}; starting the handler again");
                }
                End::Error { reason } => {
                    let reason = format!("{reason}; that was failure {MAX_ERRORS}, the host stops");
                    tracing::error!(host = %label, "{reason}");
                    self.state.send_replace(HandlerState::Failed { reason });
                    return;
                }
                End::Fatal { reason } => {
                    tracing::error!(host = %label, "{reason}");
                    self.state.send_replace(HandlerState::Failed { reason });
                    return;
                }
            }
        }
        self.state.send_replace(HandlerState::Stopped);
    }

    async fn one_life(&mut self) -> End {
        if self.stop.is_cancelled() {
            return End::Stopped;
        }
        let worker_id = Uuid::new_v4().to_string();
        let (line, command) = self.command(&worker_id);
        let mut child = match self.spawner.spawn(command).await {
            Ok(child) => child,
            Err(error) => {
                return End::Fatal {
                    reason: format!(
                        "cannot start the handler {} in {}: {error}; see customHandler.description in host.json",
                        line.program.display(),
                        line.working_directory.display()
                    ),
                };
            }
        };
        let Some(pid) = child.id() else {
            return End::Error {
                reason: "the handler ended before it could be watched".into(),
            };
        };
        tracing::info!(host = %self.config.label, pid, port = self.port, program = %line.program.display(), "handler started");
        let errors = LastErrors::default();
        let readers = self.readers(&mut child, &worker_id, &errors);

        let end = self.watch(&mut child, pid).await;
        match &end {
            End::Stopped => {
                signal_group(pid, false);
                let left = tokio::time::timeout(STOP_GRACE, child.wait()).await.is_ok();
                if !left {
                    tracing::warn!(host = %self.config.label, pid, "the handler did not end within {STOP_GRACE:?} of SIGTERM; killing it");
                }
            }
            End::Clean | End::Restart { .. } | End::Error { .. } | End::Fatal { .. } => {}
        }
        // Whatever the process started in its group goes with it.
        signal_group(pid, true);
        if let Err(error) = child.kill().await {
            tracing::debug!(host = %self.config.label, pid, %error, "the handler was gone before it was killed");
        }
        for reader in readers {
            let aborter = reader.abort_handle();
            if tokio::time::timeout(DRAIN, reader).await.is_err() {
                aborter.abort();
            }
        }
        match end {
            End::Error { reason } => {
                let quoted = errors.quoted();
                let reason = if quoted.is_empty() {
                    reason
                } else {
                    format!("{reason}; its last errors: {quoted}")
                };
                End::Error { reason }
            }
            other => other,
        }
    }

    /// Waits for readiness, then for the end.
    async fn watch(&mut self, child: &mut Child, pid: u32) -> End {
        let limit = self.config.handler.initialization_timeout;
        let ready = wait_until_ready(self.client.clone(), self.port);
        tokio::select! {
            () = self.stop.cancelled() => return End::Stopped,
            status = child.wait() => return ended(status),
            answered = tokio::time::timeout(limit, ready) => if answered.is_err() {
                return End::Error {
                    reason: format!(
                        "the handler did not answer on 127.0.0.1:{} within {limit:?}; it must listen on FUNCTIONS_CUSTOMHANDLER_PORT (customHandler.initializationTimeout allows more time)",
                        self.port
                    ),
                };
            },
        }
        self.state.send_replace(HandlerState::Ready { pid });
        tracing::info!(host = %self.config.label, pid, "handler ready");
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return End::Stopped,
                status = child.wait() => return ended(status),
                Some(order) = self.orders.recv() => if order.pid == pid {
                    return End::Restart { why: "a function timed out" };
                },
            }
        }
    }

    fn command(&self, worker_id: &str) -> (CommandLine, Command) {
        let config = &self.config;
        let variables = [
            ("FUNCTIONS_CUSTOMHANDLER_PORT", self.port.to_string()),
            ("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", worker_id.to_owned()),
            ("FUNCTIONS_HTTPWORKER_PORT", self.port.to_string()),
            ("FUNCTIONS_HTTPWORKER_ID", worker_id.to_owned()),
            (
                "FUNCTIONS_APP_ROOT_PATH",
                config.script_root.to_string_lossy().into_owned(),
            ),
        ];
        let environment = |name: &str| config.settings.get(name).map(str::to_owned);
        let line = command_line(
            &config.handler,
            &config.script_root,
            environment,
            &variables,
        );
        let mut command = Command::new(&line.program);
        command
            .args(&line.arguments)
            .current_dir(&line.working_directory)
            .envs(config.settings.environment())
            .envs(variables)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        (line, command)
    }

    fn readers(
        &self,
        child: &mut Child,
        worker_id: &str,
        errors: &LastErrors,
    ) -> Vec<JoinHandle<()>> {
        let only_errors = self.config.handler.stderr_is_errors_only;
        let label = &self.config.label;
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let (label, id, errors) = (label.clone(), worker_id.to_owned(), errors.clone());
            readers.push(tokio::spawn(forward(
                stdout,
                Stream::Stdout,
                only_errors,
                label,
                id,
                errors,
            )));
        }
        if let Some(stderr) = child.stderr.take() {
            let (label, id, errors) = (label.clone(), worker_id.to_owned(), errors.clone());
            readers.push(tokio::spawn(forward(
                stderr,
                Stream::Stderr,
                only_errors,
                label,
                id,
                errors,
            )));
        }
        readers
    }
}

/// Asks `GET /` until anything answers. A socket failure means "not yet"; a response of any kind, even a malformed one, is
/// an answer.
async fn wait_until_ready(client: reqwest::Client, port: u16) {
    let url = format!("http://127.0.0.1:{port}/");
    loop {
        match client.get(&url).send().await {
            Ok(_) => return,
            Err(error) if is_socket_failure(&error) => tokio::time::sleep(READY_POLL).await,
            Err(_) => return,
        }
    }
}

fn is_socket_failure(error: &reqwest::Error) -> bool {
    if error.is_connect() {
        return true;
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if inner.is::<std::io::Error>() {
            return true;
        }
        source = inner.source();
    }
    false
}

fn ended(status: std::io::Result<ExitStatus>) -> End {
    match status {
        Ok(status) => match status.code() {
            Some(0) => End::Clean,
            Some(RESTART_EXIT_CODE) => End::Restart {
                why: "the handler asked to be restarted",
            },
            // `ExitStatus` names the code or the signal.
            _ => End::Error {
                reason: format!("the handler ended ({status})"),
            },
        },
        Err(error) => End::Error {
            reason: format!("the handler cannot be watched: {error}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_error_within_the_window_is_the_last() {
        let start = Instant::now();
        let minutes = |minutes: u64| start + Duration::from_secs(minutes * 60);
        let mut errors = ErrorCount::default();
        assert!(errors.add(minutes(0)));
        assert!(errors.add(minutes(29)));
        // 31 minutes later: the count starts anew.
        assert!(errors.add(minutes(60)));
        assert!(errors.add(minutes(80)));
        // 30 minutes after the one before, not more: still counted.
        assert!(!errors.add(minutes(110)));
    }
}
