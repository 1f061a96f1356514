//! The running parts: one Cosmos DB account over all regions, and per region a SignalR Service, a Functions host and
//! its handler process.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use anyhow::Context as _;
use cosmos_local::{Account, CosmosLocal, LinkStatus, RegionConfig};
use functions_host::{Credential, FunctionInfo, FunctionsHost, HostState};
use futures::future::{join_all, try_join_all};
use serde::Serialize;
use signalr_local::{Service, SignalRLocal};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tracing::{error, info};

use super::{UpArgs, identity::Identities, ports::PortPlan, topology::Topology};
use crate::{package, provision};

/// Handle to the running cloud; clones share it.
#[derive(Clone)]
pub(super) struct Cloud {
    inner: Arc<Inner>,
}

/// The cloud for those who must not keep it alive.
#[derive(Clone)]
pub(super) struct WeakCloud(Weak<Inner>);

impl WeakCloud {
    pub(super) fn upgrade(&self) -> Option<Cloud> {
        self.0.upgrade().map(|inner| Cloud { inner })
    }
}

struct Inner {
    account: Account,
    regions: Vec<Region>,
    /// The one script root that all hosts run on.
    _script_root: Option<ScriptRoot>,
    /// With `--keyless`; its endpoint ends with the cloud.
    _identities: Option<Identities>,
}

/// One region, with everything in it.
pub(super) struct Region {
    pub(super) name: String,
    /// URL of the region's Cosmos DB gateway.
    pub(super) cosmos: String,
    pub(super) signalr: Service,
    /// URL of the Functions host; `None` with `--services-only`.
    pub(super) functions: Option<Functions>,
}

/// The Functions host of a region, which can be stopped and started again on the same port.
pub(super) struct Functions {
    launch: Launch,
    url: String,
    infos: Vec<FunctionInfo>,
    /// Held across the start or stop of the host, so that two requests cannot do both at once.
    host: Mutex<Option<FunctionsHost>>,
}

/// Where the functions are.
enum ScriptRoot {
    /// Of this program; removed with the cloud.
    Own(TempDir),
    Given(PathBuf),
}

impl ScriptRoot {
    fn path(&self) -> &Path {
        match self {
            Self::Own(dir) => dir.path(),
            Self::Given(dir) => dir,
        }
    }
}

/// Everything needed to start the host of a region, again and again.
struct Launch {
    script_root: PathBuf,
    region: String,
    port: u16,
    settings: BTreeMap<String, String>,
    cors_origins: Vec<String>,
    identity: Option<Credential>,
}

/// What is known of a region's Functions host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FunctionsState {
    Running,
    Starting,
    Stopped,
    Failed,
}

impl Launch {
    async fn start(&self) -> anyhow::Result<FunctionsHost> {
        let mut builder = FunctionsHost::builder(&self.script_root)
            .port(self.port)
            .label(&self.region)
            .instance_name(format!("up-{}", self.region.replace(' ', "-")))
            .cors_origins(self.cors_origins.iter());
        for (name, value) in &self.settings {
            builder = builder.setting(name, value);
        }
        if let Some(identity) = &self.identity {
            builder = builder.identity(identity.clone());
        }
        builder
            .start()
            .await
            .with_context(|| format!("cannot start the Functions host of {}", self.region))
    }
}

impl Functions {
    async fn start(mut launch: Launch) -> anyhow::Result<Self> {
        let host = launch.start().await?;
        // The port that the system chose is kept, so that a region that comes back has its old address.
        launch.port = host.port();
        Ok(Self {
            url: host.url(),
            infos: host.functions(),
            launch,
            host: Mutex::new(Some(host)),
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn infos(&self) -> &[FunctionInfo] {
        &self.infos
    }

    /// The running host, if it runs.
    pub(super) async fn host(&self) -> Option<FunctionsHost> {
        self.host.lock().await.clone()
    }

    /// State and, summed over all functions, invocations and failures since the host's start.
    pub(super) fn status(&self) -> (FunctionsState, u64, u64) {
        // A held lock means that the host is being started or stopped right now.
        let Ok(host) = self.host.try_lock() else {
            return (FunctionsState::Starting, 0, 0);
        };
        let Some(host) = host.as_ref() else {
            return (FunctionsState::Stopped, 0, 0);
        };
        let status = host.status();
        let state = match status.state {
            HostState::Running => FunctionsState::Running,
            HostState::Starting => FunctionsState::Starting,
            HostState::Stopping => FunctionsState::Stopped,
            // Nobody stopped it: then it would not be here any more.
            HostState::Error | HostState::Stopped => FunctionsState::Failed,
        };
        let invocations = status.functions.iter().map(|f| f.invocations).sum();
        let failures = status.functions.iter().map(|f| f.failures).sum();
        (state, invocations, failures)
    }

    /// Stops the host and its handler; does nothing when it is stopped.
    pub(super) async fn stop(&self) {
        if let Some(host) = self.host.lock().await.take() {
            host.stop().await;
        }
    }

    /// Starts the host again on its old port; does nothing when it runs.
    pub(super) async fn restart(&self) -> anyhow::Result<()> {
        let mut host = self.host.lock().await;
        if let Some(current) = host.as_ref()
            && matches!(
                current.status().state,
                HostState::Running | HostState::Starting
            )
        {
            return Ok(());
        }
        if let Some(failed) = host.take() {
            failed.stop().await;
        }
        *host = Some(self.launch.start().await?);
        Ok(())
    }
}

impl Cloud {
    /// Starts the account, provisions the containers, then starts all regions side by side.
    pub(super) async fn start(
        topology: &Topology,
        ports: &PortPlan,
        args: &UpArgs,
        dashboard_origins: &[String],
    ) -> anyhow::Result<Self> {
        let account = start_account(topology, ports, args).await?;
        let connection_string = account.connection_string();
        provision::run(&connection_string)
            .await
            .context("cannot create the database and its containers")?;

        let script_root = match &args.script_root {
            _ if args.services_only => None,
            Some(dir) => Some(ScriptRoot::Given(dir.clone())),
            None => Some(ScriptRoot::Own(write_script_root()?)),
        };
        let identities = if args.keyless {
            Some(Identities::start().await?)
        } else {
            None
        };
        let started = topology
            .regions()
            .iter()
            .zip(&ports.regions)
            .map(|(region, ports)| {
                let connection_string = &connection_string;
                let script_root = script_root.as_ref().map(ScriptRoot::path);
                let identities = identities.as_ref();
                let account = &account;
                async move {
                    let signalr = SignalRLocal::builder()
                        .port(ports.signalr)
                        .entra_tokens(args.keyless)
                        .start()
                        .await
                        .with_context(|| {
                            format!("cannot start the SignalR Service of {}", region.name)
                        })?;
                    let functions = match script_root {
                        None => None,
                        Some(root) => {
                            let mut settings = match identities {
                                None => keys(connection_string, &signalr),
                                Some(identities) => {
                                    identities.settings(&region.name, &account.endpoint(), &signalr)
                                }
                            };
                            settings.extend(app_settings(region));
                            let launch = Launch {
                                script_root: root.to_owned(),
                                region: region.name.clone(),
                                port: ports.functions,
                                settings,
                                cors_origins: dashboard_origins.to_vec(),
                                identity: identities
                                    .map(|identities| identities.credential(&region.name)),
                            };
                            Some(Functions::start(launch).await?)
                        }
                    };
                    let cosmos = account
                        .regions()
                        .into_iter()
                        .find(|status| status.name == region.name)
                        .with_context(|| format!("the account has lost region {}", region.name))?
                        .endpoint;
                    anyhow::Ok(Region {
                        name: region.name.clone(),
                        cosmos,
                        signalr,
                        functions,
                    })
                }
            });
        let regions = try_join_all(started).await?;
        info!(regions = regions.len(), "all regions started");
        Ok(Self {
            inner: Arc::new(Inner {
                account,
                regions,
                _script_root: script_root,
                _identities: identities,
            }),
        })
    }

    pub(super) fn downgrade(&self) -> WeakCloud {
        WeakCloud(Arc::downgrade(&self.inner))
    }

    pub(super) fn account(&self) -> &Account {
        &self.inner.account
    }

    pub(super) fn regions(&self) -> &[Region] {
        &self.inner.regions
    }

    pub(super) fn region(&self, name: &str) -> Option<&Region> {
        self.regions().iter().find(|region| region.name == name)
    }

    pub(super) fn links(&self) -> Vec<LinkStatus> {
        self.inner.account.links()
    }

    /// Stops functions first, so that nothing is in flight when the services go.
    pub(super) async fn stop(&self) {
        join_all(
            self.regions()
                .iter()
                .filter_map(|r| r.functions.as_ref())
                .map(Functions::stop),
        )
        .await;
        join_all(
            self.regions()
                .iter()
                .map(|region| region.signalr.shutdown()),
        )
        .await;
        self.account().shutdown().await;
    }
}

async fn start_account(
    topology: &Topology,
    ports: &PortPlan,
    args: &UpArgs,
) -> anyhow::Result<Account> {
    if let Some(dir) = &args.data {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("cannot create the data folder {}", dir.display()))?;
    }
    let mut builder = CosmosLocal::builder()
        .global_port(ports.account)
        .lag(args.lag)
        .entra_tokens(args.keyless)
        .data_dir(args.data.clone());
    for (region, ports) in topology.regions().iter().zip(&ports.regions) {
        builder = builder.region(RegionConfig::new(&region.name).port(ports.cosmos));
    }
    builder.start().await.context("cannot start Cosmos DB")
}

/// The deployable script root of this very executable: what runs here is what is deployed.
fn write_script_root() -> anyhow::Result<TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("geo-events-")
        .tempdir()
        .context("cannot create a folder for the script root")?;
    let executable = std::env::current_exe().context("cannot find the running executable")?;
    write_script_root_into(dir.path(), &executable)?;
    Ok(dir)
}

fn write_script_root_into(dir: &Path, executable: &Path) -> anyhow::Result<()> {
    package::write_script_root(dir, executable)
        .with_context(|| format!("cannot write the script root into {}", dir.display()))
}

/// What the deployment gives each Function App as app settings, but for the connections.
fn app_settings(region: &super::topology::Region) -> [(String, String); 3] {
    [
        ("FUNCTIONS_WORKER_RUNTIME", "custom".to_owned()),
        ("REGION", region.name.clone()),
        ("PreferredLocations", region.preferred_locations.join(",")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

/// Connections with keys, as in local.settings.json.
fn keys(cosmos_connection_string: &str, signalr: &Service) -> BTreeMap<String, String> {
    BTreeMap::from(
        [
            ("CosmosDBConnection", cosmos_connection_string.to_owned()),
            ("AzureSignalRConnectionString", signalr.connection_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}

/// Stops a region's functions, or starts them, and logs what came of it.
pub(super) async fn set_functions(region: &Region, running: bool) -> anyhow::Result<()> {
    let functions = region
        .functions
        .as_ref()
        .context("this cloud runs with --services-only: it has no functions to start or stop")?;
    if !running {
        functions.stop().await;
        info!(region = region.name, "functions stopped");
        return Ok(());
    }
    let restarted = functions.restart().await;
    match &restarted {
        Ok(()) => info!(region = region.name, "functions running"),
        Err(cause) => error!(
            region = region.name,
            error = format!("{cause:#}"),
            "functions did not start"
        ),
    }
    restarted
}
