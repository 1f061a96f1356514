//! Azure SignalR Service (serverless mode) on this machine.
//!
//! What a function app needs to reach browsers: clients negotiate and connect over WebSockets, the app sends through the
//! REST API, both are authenticated by tokens signed with the access key.
//!
//! - [`token`]: which signed tokens are good for what,
//! - [`protocol`]: the JSON hub protocol, one type per message,
//! - [`hub`]: who is connected, in which groups, and what waits for them,
//! - [`client`]: negotiate, and the life of one WebSocket connection,
//! - [`rest`]: the data plane, `/api/hubs/{hub}/…`,
//! - [`server`]: listener, CORS, routing of raw paths.
//!
//! Not here, and refused by name: server (classic mode) connections, upstream of client invocations, Server-Sent Events,
//! long polling, MessagePack, Entra ID tokens. `negotiate` offers only what exists.
//!
//! Wire facts are from `Azure/azure-signalr`, `dotnet/aspnetcore` (hub and transport protocol documents) and the sources
//! of `@microsoft/signalr`.
//!
//! ```
//! # #[tokio::main] async fn main() -> Result<(), signalr_local::StartError> {
//! let service = signalr_local::SignalRLocal::builder().port(0).start().await?;
//! println!("AzureSignalRConnectionString={}", service.connection_string());
//! assert_eq!(service.stats().connections, 0);
//! service.shutdown().await;
//! # Ok(()) }
//! ```

mod client;
mod hub;
mod protocol;
mod rest;
mod server;
mod token;

use std::{fmt, net::Ipv4Addr, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use hub::Hubs;
pub use hub::Stats;
use token::Keys;

/// The access key of every local service that is not given another: public, and of no use anywhere else.
pub const LOCAL_ACCESS_KEY: &str = "geo-events-local-signalr-access-key-0123456789abcdef";

/// Longest wait at [`Service::shutdown`] for clients to take the close message.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a service did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on 127.0.0.1:{port} for SignalR ({source}); choose another port, or 0 for any"
    )]
    Listen {
        /// The port that was asked for.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// The access key is too short to sign with.
    #[error(
        "the access key has {0} characters; Azure's have 44, and fewer than {MIN_KEY} are refused"
    )]
    WeakKey(usize),
}

/// Fewest characters of an access key: HS256 wants 256 bits.
const MIN_KEY: usize = 32;

/// Builds a [`Service`].
pub struct SignalRLocal {
    port: u16,
    access_key: String,
    entra_tokens: bool,
}

impl SignalRLocal {
    /// A service on a port chosen by the system, with [`LOCAL_ACCESS_KEY`].
    pub fn builder() -> Self {
        Self {
            port: 0,
            access_key: LOCAL_ACCESS_KEY.to_owned(),
            entra_tokens: false,
        }
    }

    /// Port on 127.0.0.1; 0 lets the operating system choose.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The key that signs client and REST tokens, as text (it is not base64-decoded).
    #[must_use]
    pub fn access_key(mut self, key: impl Into<String>) -> Self {
        self.access_key = key.into();
        self
    }

    /// Takes tokens of Microsoft Entra ID for REST calls, besides those that the access key signs. Nothing here can check
    /// who issued them: only that they are for SignalR and have not expired. Off by default.
    #[must_use]
    pub fn entra_tokens(mut self, taken: bool) -> Self {
        self.entra_tokens = taken;
        self
    }

    /// Listens and serves.
    ///
    /// # Errors
    /// When the port is taken or the key is too short.
    pub async fn start(self) -> Result<Service, StartError> {
        if self.access_key.len() < MIN_KEY {
            return Err(StartError::WeakKey(self.access_key.len()));
        }
        let listen = |source| StartError::Listen {
            port: self.port,
            source,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))
            .await
            .map_err(listen)?;
        let port = listener.local_addr().map_err(listen)?.port();
        let hubs = Arc::new(Hubs::default());
        let stop = CancellationToken::new();
        let keys = Keys::new(&self.access_key, self.entra_tokens);
        let endpoint = format!("http://127.0.0.1:{port}");
        let context = server::Context::new(keys, endpoint, Arc::clone(&hubs), stop.clone());
        let serving = tokio::spawn(server::serve(listener, context));
        Ok(Service {
            inner: Arc::new(Inner {
                port,
                access_key: self.access_key,
                hubs,
                stop,
                serving: Mutex::new(Some(serving)),
            }),
        })
    }
}

/// Handle to a running service; clones share it. It runs until [`Service::shutdown`], or until the last handle is dropped.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    port: u16,
    access_key: String,
    hubs: Arc<Hubs>,
    stop: CancellationToken,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("endpoint", &self.endpoint())
            .finish_non_exhaustive()
    }
}

impl Service {
    /// `http://127.0.0.1:8888`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.inner.port)
    }

    /// For the setting `AzureSignalRConnectionString`. It has the port in `Endpoint`, which every SDK understands, also the
    /// hand-written ones that read nothing else.
    pub fn connection_string(&self) -> String {
        format!(
            "Endpoint={};AccessKey={};Version=1.0;",
            self.endpoint(),
            self.inner.access_key
        )
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.inner.hubs.stats()
    }

    /// Closes every client in a way that lets it reconnect, then stops listening.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        let serving = self.inner.serving.lock().await.take();
        if let Some(mut serving) = serving
            && timeout(SHUTDOWN_TIMEOUT, &mut serving).await.is_err()
        {
            tracing::warn!("some SignalR clients did not close in time and are dropped");
            serving.abort();
        }
    }
}
