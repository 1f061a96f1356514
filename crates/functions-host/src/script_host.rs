//! Everything that one reading of the script root brings to life: functions, handler, listeners, routes.
//!
//! A restart (a changed host.json or function.json) ends one of these and starts another; the listening port and the
//! settings outlive it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::binding::{Generation, ListenerState, Trigger};
use crate::feed::{FunctionSink, listen};
use crate::host::HostError;
use crate::host_json::HostJson;
use crate::identity::Credential;
use crate::invocation::HOST_VERSION;
use crate::invoker::{Bindings, Function, Invoker};
use crate::process::supervisor::{Handler, HandlerConfig, HandlerState};
use crate::script_root::{self, FunctionFailure};
use crate::settings::Settings;
use crate::status::{FunctionInfo, HostEvent};
use crate::web::route::{Route, RouteValues};

/// How long running invocations and listeners may take to finish after a stop was asked for.
pub const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long listeners may then take to give their leases back.
pub const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// Runs started by `POST /admin/functions/{name}` at one time.
pub(crate) const MAX_MANUAL_RUNS: usize = 64;

/// What a script host is made from.
#[derive(Debug, Clone)]
pub(crate) struct ScriptHostOptions {
    pub(crate) script_root: PathBuf,
    pub(crate) settings: Arc<Settings>,
    pub(crate) label: Arc<str>,
    /// Where the HTTP side listens, without trailing slash.
    pub(crate) url: String,
    pub(crate) instance_name: Option<String>,
    pub(crate) strict: bool,
    pub(crate) identity: Option<Credential>,
    pub(crate) events: broadcast::Sender<HostEvent>,
}

/// A route and the function behind it.
#[derive(Debug)]
pub(crate) struct RoutedFunction {
    pub(crate) route: Route,
    pub(crate) methods: Vec<String>,
    pub(crate) function: Arc<Function>,
}

/// One life of a script root.
#[derive(Debug)]
pub(crate) struct ScriptHost {
    pub(crate) host_json: HostJson,
    /// All loaded functions, in the order of names.
    pub(crate) functions: Vec<Arc<Function>>,
    /// Functions that did not load.
    pub(crate) failures: Vec<FunctionFailure>,
    /// In the order they are tried.
    pub(crate) routes: Vec<RoutedFunction>,
    pub(crate) infos: Vec<FunctionInfo>,
    /// `None` without any function: then no handler runs.
    pub(crate) invoker: Option<Arc<Invoker>>,
    /// `maxConcurrentRequests`; `None` = no limit.
    pub(crate) concurrent: Option<Semaphore>,
    /// `maxOutstandingRequests`; `None` = no limit.
    pub(crate) outstanding: Option<Arc<Semaphore>>,
    pub(crate) manual_runs: Arc<Semaphore>,
    /// Invocations begun by HTTP and admin requests.
    pub(crate) running: TaskTracker,
    listeners: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
    fatal: watch::Receiver<Option<String>>,
    options: ScriptHostOptions,
}

impl ScriptHost {
    /// Reads the script root, starts the handler, waits until it is ready, starts the listeners.
    pub(crate) async fn start(options: ScriptHostOptions) -> Result<Self, HostError> {
        let host_json = HostJson::read(&options.script_root, &options.settings)?;
        let label = options.label.clone();
        for warning in &host_json.warnings {
            tracing::warn!(host = %label, "host.json: {warning}");
        }
        let found = script_root::discover(&options.script_root, &host_json, &options.settings)?;
        let mut failures = found.failures;
        let (mut functions, mut routes, mut infos) =
            (Vec::new(), Vec::<RoutedFunction>::new(), Vec::new());
        for definition in found.functions {
            for warning in &definition.warnings {
                tracing::warn!(host = %label, function = definition.name, "{warning}");
            }
            let url = match route_of(&definition, &host_json.route_prefix, &routes) {
                Ok(None) => None,
                Ok(Some((route, methods))) => {
                    let url = format!("{}/{}", options.url, route.text());
                    let function = Arc::new(Function::new(definition));
                    infos.push(FunctionInfo::new(&function.definition, Some(url)));
                    functions.push(function.clone());
                    routes.push(RoutedFunction {
                        route,
                        methods,
                        function,
                    });
                    continue;
                }
                Err(reason) => {
                    failures.push(FunctionFailure {
                        name: definition.name,
                        reason,
                    });
                    continue;
                }
            };
            infos.push(FunctionInfo::new(&definition, url));
            functions.push(Arc::new(Function::new(definition)));
        }
        for failure in &failures {
            tracing::error!(host = %label, function = failure.name, "the function is not loaded: {}", failure.reason);
        }

        let (fatal, fatal_receiver) = watch::channel(None);
        let invoker = if functions.is_empty() {
            tracing::warn!(host = %label, "no function was loaded; the handler is not started");
            None
        } else {
            Some(Arc::new(start_invoker(&options, &host_json, fatal).await?))
        };

        let host = Self {
            concurrent: host_json.max_concurrent_requests.map(Semaphore::new),
            outstanding: host_json
                .max_outstanding_requests
                .map(|limit| Arc::new(Semaphore::new(limit))),
            manual_runs: Arc::new(Semaphore::new(MAX_MANUAL_RUNS)),
            host_json,
            functions,
            failures,
            routes,
            infos,
            invoker,
            running: TaskTracker::new(),
            listeners: TaskTracker::new(),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            fatal: fatal_receiver,
            options,
        };
        host.start_listeners();
        Ok(host)
    }

    fn start_listeners(&self) {
        let Some(invoker) = &self.invoker else { return };
        for function in &self.functions {
            let (Trigger::Cosmos(trigger), Some(board)) =
                (&function.definition.trigger, &function.board)
            else {
                continue;
            };
            let owner = self
                .options
                .instance_name
                .as_ref()
                .map(|instance| format!("{instance}/{}", function.definition.name));
            let sink = FunctionSink {
                invoker: invoker.clone(),
                function: function.clone(),
                generation: self.generation(),
                events: self.options.events.clone(),
                stop: self.stop.clone(),
                abort: self.abort.clone(),
            };
            self.listeners
                .spawn(listen(trigger.clone(), board.clone(), owner, sink));
        }
    }

    /// The generation of the app's bindings. Without a bundle there are none; the value is then of no consequence.
    pub(crate) fn generation(&self) -> Generation {
        self.host_json
            .bundle
            .as_ref()
            .map_or(Generation::Four, |bundle| bundle.generation)
    }

    /// The first function whose route and method match. A wrong method is no match.
    pub(crate) fn route(&self, method: &str, path: &str) -> Option<(&Arc<Function>, RouteValues)> {
        self.routes
            .iter()
            .filter(|routed| {
                routed.methods.is_empty()
                    || routed
                        .methods
                        .iter()
                        .any(|known| known.eq_ignore_ascii_case(method))
            })
            .find_map(|routed| Some((&routed.function, routed.route.matches(path)?)))
    }

    /// A loaded function by name, in any casing.
    pub(crate) fn function(&self, name: &str) -> Option<&Arc<Function>> {
        self.functions
            .iter()
            .find(|function| function.definition.name.eq_ignore_ascii_case(name))
    }

    /// `AzureWebJobsDisableHomepage`
    pub(crate) fn home_page_disabled(&self) -> bool {
        self.options.settings.flag("AzureWebJobsDisableHomepage")
    }

    /// Waits until the host cannot go on: the handler is given up, or does not come back.
    pub(crate) async fn failed(&self) -> String {
        let Some(invoker) = &self.invoker else {
            return std::future::pending().await;
        };
        let mut handler = invoker.handler.watch();
        let mut fatal = self.fatal.clone();
        // The values are copied out before the next wait: a borrowed state must not be held across it.
        let given_up = async {
            let reason = match handler
                .wait_for(|state| matches!(state, HandlerState::Failed { .. }))
                .await
                .as_deref()
            {
                Ok(HandlerState::Failed { reason }) => Some(reason.clone()),
                Ok(_) | Err(_) => None,
            };
            match reason {
                Some(reason) => reason,
                None => std::future::pending().await,
            }
        };
        let hopeless = async {
            let reason = match fatal.wait_for(Option::is_some).await.as_deref() {
                Ok(reason) => reason.clone(),
                Err(_) => None,
            };
            match reason {
                Some(reason) => reason,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = given_up => reason,
            reason = hopeless => reason,
        }
    }

    /// Waits until every listener has a place in its feed: what is written from then on will be delivered.
    pub(crate) async fn listening(&self) {
        let waits = self.functions.iter().filter_map(|function| {
            let mut board = function.board.as_ref()?.watch();
            Some(async move {
                // The sender lives in the board; it outlives this wait or the host is gone.
                drop(
                    board
                        .wait_for(|status| {
                            matches!(
                                status.state,
                                ListenerState::Running | ListenerState::Stopped
                            )
                        })
                        .await
                        .map(|_| ()),
                );
            })
        });
        join_all(waits).await;
    }

    /// Stops in order: no new batches, running invocations finish, leases go back, the handler ends. Bounded by
    /// [`STOP_PATIENCE`] and [`RELEASE_PATIENCE`].
    pub(crate) async fn stop(&self) {
        let label = &self.options.label;
        self.stop.cancel();
        self.running.close();
        self.listeners.close();
        let finished = async {
            self.running.wait().await;
            self.listeners.wait().await;
        };
        if tokio::time::timeout(STOP_PATIENCE, finished).await.is_err() {
            tracing::warn!(host = %label, invocations = self.running.len(), listeners = self.listeners.len(), "still running {STOP_PATIENCE:?} after the stop; leaving them");
            self.abort.cancel();
            if tokio::time::timeout(RELEASE_PATIENCE, self.listeners.wait())
                .await
                .is_err()
            {
                tracing::warn!(host = %label, listeners = self.listeners.len(), "leases were not released in time; they expire");
            }
        }
        self.abort.cancel();
        if let Some(invoker) = &self.invoker {
            invoker.handler.stop().await;
        }
    }
}

impl Drop for ScriptHost {
    fn drop(&mut self) {
        self.stop.cancel();
        self.abort.cancel();
    }
}

async fn start_invoker(
    options: &ScriptHostOptions,
    host_json: &HostJson,
    fatal: watch::Sender<Option<String>>,
) -> Result<Invoker, HostError> {
    let handler = Handler::start(HandlerConfig {
        handler: host_json.custom_handler.clone(),
        script_root: options.script_root.clone(),
        settings: options.settings.clone(),
        label: options.label.clone(),
    })
    .map_err(|error| HostError::Handler(error.to_string()))?;
    let initialization_timeout = host_json.custom_handler.initialization_timeout;
    // Three starts at most; each ends within its own timeout.
    match handler.settled(initialization_timeout * 4).await {
        Some(HandlerState::Ready { .. }) => {}
        Some(HandlerState::Exited) => {
            return Err(HostError::Handler(
                "the handler left with exit code 0 before it answered".into(),
            ));
        }
        Some(HandlerState::Failed { reason }) => return Err(HostError::Handler(reason)),
        Some(HandlerState::Starting | HandlerState::Stopped) | None => {
            handler.stop().await;
            return Err(HostError::Handler(
                "the handler did not become ready".into(),
            ));
        }
    }
    Ok(Invoker {
        label: options.label.clone(),
        handler: Arc::new(handler),
        bindings: Bindings::new(&options.settings, options.identity.as_ref()),
        client: reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(format!("Azure-Functions-Host/{HOST_VERSION}"))
            .build()
            .map_err(|error| HostError::Handler(error.to_string()))?,
        function_timeout: host_json.function_timeout,
        initialization_timeout,
        strict: options.strict,
        fatal,
    })
}

/// Route and methods of an HTTP function; `None` for the others.
fn route_of(
    function: &crate::function_json::FunctionDefinition,
    prefix: &str,
    taken: &[RoutedFunction],
) -> Result<Option<(Route, Vec<String>)>, String> {
    let Trigger::Http(http) = &function.trigger else {
        return Ok(None);
    };
    let route = Route::parse(prefix, http.route.as_deref().unwrap_or(&function.name))?;
    let overlap = |other: &RoutedFunction| {
        other.methods.is_empty()
            || http.methods.is_empty()
            || other
                .methods
                .iter()
                .any(|method| http.methods.contains(method))
    };
    if let Some(other) = taken
        .iter()
        .find(|other| other.route.text().eq_ignore_ascii_case(route.text()) && overlap(other))
    {
        return Err(format!(
            "its route `{}` is that of function {} and the methods overlap",
            route.text(),
            other.function.definition.name
        ));
    }
    Ok(Some((route, http.methods.clone())))
}
