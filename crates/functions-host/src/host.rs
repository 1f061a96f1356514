//! The door: a builder, a running host, its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::host_json::HostJsonError;
use crate::identity::Credential;
use crate::process::supervisor::HandlerState;
use crate::script_host::{ScriptHost, ScriptHostOptions};
use crate::script_root::{Fingerprint, ScriptRootError};
use crate::settings::{self, LocalSettings, SettingsError};
use crate::status::{EVENT_CAPACITY, FunctionInfo, HostEvent, HostState, HostStatus, listing};
use crate::web::server::{self, Cors};

/// The port when neither the builder nor `local.settings.json` names one.
pub const DEFAULT_PORT: u16 = 7071;

/// How long the watched files must be quiet before the host restarts; also how often they are looked at.
pub const QUIET_PERIOD: Duration = Duration::from_millis(500);

/// How long the last responses may take to leave after all invocations have ended.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Why a host does not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The script root does not exist or is not a folder.
    #[error("script root {0} is not a folder; it holds host.json and one folder per function")]
    NoScriptRoot(String),
    /// `local.settings.json` cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// `host.json` cannot be used.
    #[error(transparent)]
    HostJson(#[from] HostJsonError),
    /// The script root cannot be listed.
    #[error(transparent)]
    ScriptRoot(#[from] ScriptRootError),
    /// The port is taken or not allowed.
    #[error(
        "cannot listen on 127.0.0.1:{port}: {source}; choose another port, or 0 for a free one"
    )]
    Listen {
        /// The port asked for.
        port: u16,
        /// The cause.
        source: std::io::Error,
    },
    /// The origins contradict each other or are none.
    #[error("{0}")]
    Cors(String),
    /// The handler does not start or does not become ready.
    #[error("{0}")]
    Handler(String),
}

/// Collects what a host needs to know. See [`FunctionsHost::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing before `start`"]
pub struct HostBuilder {
    script_root: PathBuf,
    port: Option<u16>,
    explicit: Vec<(String, String)>,
    cors_origins: Option<Vec<String>>,
    label: Option<String>,
    instance_name: Option<String>,
    strict: bool,
    inherit_environment: bool,
    watch_files: bool,
    identity: Option<Credential>,
}

impl HostBuilder {
    /// The port on 127.0.0.1; 0 = a free one. Default: `Host.LocalHttpPort` of local.settings.json, else [`DEFAULT_PORT`].
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// An app setting that wins over environment and local.settings.json.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.explicit.push((name.into(), value.into()));
        self
    }

    /// Origins of browsers that may call, with credentials. Overrides `Host.CORS` of local.settings.json.
    pub fn cors_origins<O: Into<String>>(mut self, origins: impl IntoIterator<Item = O>) -> Self {
        self.cors_origins = Some(origins.into_iter().map(Into::into).collect());
        self
    }

    /// A name for logs and status. Default: the script root's folder name.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// A name under which this host is known to its leases across restarts.
    ///
    /// The real host takes a fresh GUID for every listener start: after a crash its old leases block the feed until they
    /// expire. With a name, the owner is `<name>/<function>` and leases of exactly this owner are taken back at once. Only
    /// for callers who make sure that no two hosts of this name run at the same time.
    pub fn instance_name(mut self, name: impl Into<String>) -> Self {
        self.instance_name = Some(name.into());
        self
    }

    /// Whether an empty 2xx reply leaves its invocation hanging until `functionTimeout`, as in the real host. Default: no, it
    /// fails at once with a log line that says so.
    pub fn strict_empty_replies(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Whether environment variables of this process are app settings. Default: yes. The child inherits them either way.
    pub fn inherit_environment(mut self, inherit: bool) -> Self {
        self.inherit_environment = inherit;
        self
    }

    /// Whether a change of host.json or of a function.json restarts the script host. Default: yes.
    pub fn watch_files(mut self, watch: bool) -> Self {
        self.watch_files = watch;
        self
    }

    /// The identity of bindings whose connection asks for a managed one (`X__credential` = `managedidentity`). Default: that
    /// of the machine, or of the App Service environment this process runs in.
    pub fn identity(mut self, identity: Credential) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Loads the functions, listens, starts the handler and waits until it answers, starts the listeners of triggers.
    ///
    /// # Errors
    /// Anything of [`HostError`]. A single broken function is no error: it is logged and shown by
    /// `/admin/functions/{name}/status`.
    pub async fn start(self) -> Result<FunctionsHost, HostError> {
        let script_root = absolute(&self.script_root)
            .ok_or_else(|| HostError::NoScriptRoot(self.script_root.display().to_string()))?;
        let label: Arc<str> = match self.label {
            Some(label) => label.into(),
            None => script_root
                .file_name()
                .map_or_else(|| "functions".into(), |name| name.to_string_lossy().into()),
        };
        let local = LocalSettings::read(&script_root)?;
        let cors = match self.cors_origins {
            Some(origins) => Cors {
                credentials: !origins.is_empty(),
                origins,
            },
            None => Cors {
                origins: local.cors.clone(),
                credentials: local.cors_credentials,
            },
        };
        let cors = cors.layer().map_err(HostError::Cors)?;

        let port = self.port.or(local.port).unwrap_or(DEFAULT_PORT);
        let (listener, address) = server::bind(port)
            .await
            .map_err(|source| HostError::Listen { port, source })?;
        let url = format!("http://{address}");

        // What `func start` provides; see the settings module for the order of precedence.
        let provided = [
            (
                "FUNCTIONS_CORETOOLS_ENVIRONMENT".to_owned(),
                "True".to_owned(),
            ),
            (
                "AZURE_FUNCTIONS_ENVIRONMENT".to_owned(),
                "Development".to_owned(),
            ),
            (
                "WEBSITE_HOSTNAME".to_owned(),
                format!("localhost:{}", address.port()),
            ),
            (
                "AzureWebJobsScriptRoot".to_owned(),
                script_root.to_string_lossy().into_owned(),
            ),
        ];
        let (settings, skipped) =
            settings::merge(&local, self.inherit_environment, &provided, &self.explicit);
        for name in &skipped {
            tracing::warn!(host = %label, setting = name, "the value in local.settings.json is skipped: the environment or the caller has one");
        }
        for name in &local.nulls {
            tracing::warn!(host = %label, setting = name, "the value in local.settings.json is null and skipped");
        }
        match settings.get("FUNCTIONS_WORKER_RUNTIME") {
            Some(runtime) if runtime.eq_ignore_ascii_case("custom") => {}
            _ => {
                tracing::warn!(host = %label, "FUNCTIONS_WORKER_RUNTIME should be `custom` for a custom handler")
            }
        }

        let (events, _) = broadcast::channel(EVENT_CAPACITY);
        let computer_name = settings
            .get("COMPUTERNAME")
            .or_else(|| settings.get("HOSTNAME"))
            .unwrap_or("localhost")
            .to_owned();
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            url: url.clone(),
            port: address.port(),
            label: label.clone(),
            host_id: label.to_lowercase().replace(' ', "-"),
            instance_id: Uuid::new_v4().simple().to_string(),
            computer_name,
            started: Instant::now(),
            phase: watch::Sender::new(Phase::Starting),
            events: events.clone(),
            restart: Notify::new(),
            stop: stop.clone(),
        });
        let options = ScriptHostOptions {
            script_root,
            settings: Arc::new(settings),
            label: label.clone(),
            url,
            instance_name: self.instance_name,
            strict: self.strict,
            identity: self.identity,
            events,
        };

        let (server_stop, server_abort) = (CancellationToken::new(), CancellationToken::new());
        // Ends the server whatever happens below.
        let server_guard = server_abort.clone().drop_guard();
        let server = tokio::spawn({
            let (shared, stop, abort) = (shared.clone(), server_stop.clone(), server_abort.clone());
            async move {
                tokio::select! {
                    () = server::serve(listener, shared, cors, stop, abort.clone()) => {}
                    // `serve` looks at `abort` only after a stop.
                    () = abort.cancelled() => {}
                }
            }
        });
        let watched = self
            .watch_files
            .then(|| Fingerprint::take(&options.script_root));
        let script = match ScriptHost::start(options.clone()).await {
            Ok(script) => Arc::new(script),
            Err(error) => {
                server_abort.cancel();
                // The port is free again when the caller reads the error.
                drop(server.await);
                return Err(error);
            }
        };
        tracing::info!(host = %label, category = "Host.Startup", "{}", listing(&script.infos));
        shared.enter(Phase::Running(script.clone()));

        let supervisor = Supervisor {
            shared: shared.clone(),
            options,
            watched,
            server: Some(server),
            server_stop,
            server_abort,
            _server_guard: server_guard,
        };
        tokio::spawn(supervisor.run(script));
        Ok(FunctionsHost {
            shared,
            _guard: Arc::new(stop.drop_guard()),
        })
    }
}

fn absolute(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path)
        .ok()
        .filter(|path| path.is_dir())
}

/// A running host. Clones are handles to the same one; when the last is dropped the host stops.
#[derive(Debug, Clone)]
pub struct FunctionsHost {
    shared: Arc<Shared>,
    _guard: Arc<DropGuard>,
}

impl FunctionsHost {
    /// Begins to describe a host for `script_root`: the folder with host.json and one folder per function.
    pub fn builder(script_root: impl Into<PathBuf>) -> HostBuilder {
        HostBuilder {
            script_root: script_root.into(),
            port: None,
            explicit: Vec::new(),
            cors_origins: None,
            label: None,
            instance_name: None,
            strict: false,
            inherit_environment: true,
            watch_files: true,
            identity: None,
        }
    }

    /// Where it listens, e.g. `http://127.0.0.1:7071`.
    #[must_use]
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// The port it listens on: the one asked for, or the one that the system chose.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// The loaded functions; empty while the host is not running.
    #[must_use]
    pub fn functions(&self) -> Vec<FunctionInfo> {
        match self.shared.phase() {
            Phase::Running(script) => script.infos.clone(),
            _ => Vec::new(),
        }
    }

    /// The list of functions and URLs, as `func start` prints it.
    #[must_use]
    pub fn listing(&self) -> String {
        listing(&self.functions())
    }

    /// A snapshot.
    #[must_use]
    pub fn status(&self) -> HostStatus {
        self.shared.status()
    }

    /// Follows what happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<HostEvent> {
        self.shared.events.subscribe()
    }

    /// Waits until every trigger listens: what is written from then on will be delivered. Returns at once when there is
    /// nothing to wait for or the host has ended.
    pub async fn listening(&self) {
        let Phase::Running(script) = self.shared.phase() else {
            return;
        };
        tokio::select! {
            () = script.listening() => {}
            _ = self.shared.ended() => {}
        }
    }

    /// Waits until the host has ended: `Ok` after a stop, `Err` with the reason when it ended by itself.
    ///
    /// # Errors
    /// The handler was given up.
    pub async fn ended(&self) -> Result<(), HostError> {
        match self.shared.ended().await {
            None => Ok(()),
            Some(reason) => Err(HostError::Handler(reason)),
        }
    }

    /// Stops in order: listeners, running invocations (bounded), leases, handler, port. Returns when all is gone; the same port
    /// can be bound again at once.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.ended().await;
    }
}

/// Where the host stands, with what belongs to it.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Starting,
    Running(Arc<ScriptHost>),
    /// A restart failed; the HTTP side waits for a corrected file.
    Error(Vec<String>),
    Stopping,
    /// With the reason when it ended by itself.
    Stopped(Option<String>),
}

impl Phase {
    pub(crate) fn state(&self) -> HostState {
        match self {
            Self::Starting => HostState::Starting,
            Self::Running(_) => HostState::Running,
            Self::Error(_) => HostState::Error,
            Self::Stopping => HostState::Stopping,
            Self::Stopped(_) => HostState::Stopped,
        }
    }
}

/// What the HTTP side, the supervisor and the handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) url: String,
    port: u16,
    pub(crate) label: Arc<str>,
    pub(crate) host_id: String,
    pub(crate) instance_id: String,
    pub(crate) computer_name: String,
    pub(crate) started: Instant,
    /// Written by the supervisor only.
    phase: watch::Sender<Phase>,
    events: broadcast::Sender<HostEvent>,
    restart: Notify,
    stop: CancellationToken,
}

impl Shared {
    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    pub(crate) fn request_restart(&self) {
        self.restart.notify_one();
    }

    /// The script host, waited for while it is starting.
    pub(crate) async fn running_script(
        &self,
        patience: Duration,
    ) -> Result<Arc<ScriptHost>, Phase> {
        let mut phase = self.phase.subscribe();
        let settled = phase.wait_for(|phase| !matches!(phase, Phase::Starting));
        let phase = match tokio::time::timeout(patience, settled).await {
            Ok(Ok(phase)) => phase.clone(),
            Ok(Err(_)) | Err(_) => Phase::Starting,
        };
        match phase {
            Phase::Running(script) => Ok(script),
            other => Err(other),
        }
    }

    fn enter(&self, phase: Phase) {
        let state = phase.state();
        self.phase.send_replace(phase);
        // Nobody may be listening.
        drop(self.events.send(HostEvent::State(state)));
    }

    async fn ended(&self) -> Option<String> {
        let mut phase = self.phase.subscribe();
        match phase
            .wait_for(|phase| matches!(phase, Phase::Stopped(_)))
            .await
        {
            Ok(phase) => match &*phase {
                Phase::Stopped(reason) => reason.clone(),
                _ => None,
            },
            Err(_) => None,
        }
    }

    fn status(&self) -> HostStatus {
        let phase = self.phase();
        let mut status = HostStatus {
            label: self.label.to_string(),
            url: self.url.clone(),
            state: phase.state(),
            handler_pid: None,
            errors: Vec::new(),
            functions: Vec::new(),
        };
        match phase {
            Phase::Running(script) => {
                if let Some(invoker) = &script.invoker
                    && let HandlerState::Ready { pid } = invoker.handler.state()
                {
                    status.handler_pid = Some(pid);
                }
                status.errors = script
                    .failures
                    .iter()
                    .map(|failure| format!("{}: {}", failure.name, failure.reason))
                    .collect();
                status.functions = script
                    .functions
                    .iter()
                    .map(|function| function.status())
                    .collect();
            }
            Phase::Error(errors) => status.errors = errors,
            Phase::Stopped(Some(reason)) => status.errors = vec![reason],
            Phase::Starting | Phase::Stopping | Phase::Stopped(None) => {}
        }
        status
    }
}

/// Decides about restarts and the end.
struct Supervisor {
    shared: Arc<Shared>,
    options: ScriptHostOptions,
    /// The files as they were last read; `None` = not watched.
    watched: Option<Fingerprint>,
    server: Option<tokio::task::JoinHandle<()>>,
    server_stop: CancellationToken,
    server_abort: CancellationToken,
    _server_guard: DropGuard,
}

/// Why a life of the script host ends.
enum Turn {
    Stop,
    Restart { why: &'static str },
    Failed { reason: String },
}

impl Supervisor {
    async fn run(mut self, first: Arc<ScriptHost>) {
        let mut current = Some(first);
        let reason = loop {
            match self.next_turn(current.as_deref()).await {
                Turn::Stop => break None,
                Turn::Failed { reason } => break Some(reason),
                Turn::Restart { why } => {
                    tracing::info!(host = %self.shared.label, "{why}; restarting");
                    self.shared.enter(Phase::Starting);
                    if let Some(old) = current.take() {
                        old.stop().await;
                    }
                    // A stop need not wait for a handler that takes its time.
                    let started = tokio::select! {
                        started = ScriptHost::start(self.options.clone()) => started,
                        () = self.shared.stop.cancelled() => break None,
                    };
                    match started {
                        Ok(script) => {
                            let script = Arc::new(script);
                            tracing::info!(host = %self.shared.label, category = "Host.Startup", "{}", listing(&script.infos));
                            self.shared.enter(Phase::Running(script.clone()));
                            current = Some(script);
                        }
                        Err(error) => {
                            tracing::error!(host = %self.shared.label, %error, "the host cannot run this app; waiting for a change");
                            self.shared.enter(Phase::Error(vec![error.to_string()]));
                        }
                    }
                }
            }
        };
        self.shared.enter(Phase::Stopping);
        self.server_stop.cancel();
        if let Some(script) = current.take() {
            script.stop().await;
        }
        if let Some(mut server) = self.server.take() {
            let ended = match tokio::time::timeout(FLUSH_PATIENCE, &mut server).await {
                Ok(ended) => ended,
                Err(_) => {
                    self.server_abort.cancel();
                    server.await
                }
            };
            if let Err(error) = ended {
                tracing::error!(host = %self.shared.label, %error, "the HTTP side ended abnormally");
            }
        }
        if let Some(reason) = &reason {
            tracing::error!(host = %self.shared.label, "the host has ended: {reason}");
            drop(self.shared.events.send(HostEvent::Failed {
                reason: reason.clone(),
            }));
        }
        self.shared.enter(Phase::Stopped(reason));
    }

    async fn next_turn(&mut self, script: Option<&ScriptHost>) -> Turn {
        let failed = async {
            match script {
                Some(script) => script.failed().await,
                None => std::future::pending().await,
            }
        };
        let pids = announce_handlers(script, &self.shared.events);
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => Turn::Stop,
            reason = failed => Turn::Failed { reason },
            () = self.shared.restart.notified() => Turn::Restart { why: "a restart was asked for" },
            () = files_changed(&self.options.script_root, &mut self.watched) => Turn::Restart { why: "host.json or a function.json changed" },
            () = pids => Turn::Stop,
        }
    }
}

/// Emits an event for every handler process that becomes ready. Never ends.
async fn announce_handlers(script: Option<&ScriptHost>, events: &broadcast::Sender<HostEvent>) {
    let Some(invoker) = script.and_then(|script| script.invoker.as_ref()) else {
        return std::future::pending().await;
    };
    let mut handler = invoker.handler.watch();
    while handler.changed().await.is_ok() {
        if let HandlerState::Ready { pid } = *handler.borrow_and_update() {
            drop(events.send(HostEvent::HandlerReady { pid }));
        }
    }
    std::future::pending().await
}

/// Waits until the files differ from what was last read and have then been quiet for a while.
async fn files_changed(script_root: &Path, watched: &mut Option<Fingerprint>) {
    let Some(known) = watched else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(QUIET_PERIOD).await;
        let mut seen = Fingerprint::take(script_root);
        if seen == *known {
            continue;
        }
        loop {
            tokio::time::sleep(QUIET_PERIOD).await;
            let again = Fingerprint::take(script_root);
            if again == seen {
                break;
            }
            seen = again;
        }
        *known = seen;
        return;
    }
}
