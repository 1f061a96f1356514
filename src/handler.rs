//! The custom handler: an HTTP server on 127.0.0.1 with one `POST` route per function.
//!
//! What the Functions host demands of it (`Azure/azure-functions-host: src/WebJobs.Script/Workers/Http`):
//!
//! - It listens on the IPv4 loopback at the given port, at once, also right after its predecessor was killed.
//! - Any answer to `GET /` means that it is ready.
//! - Every invocation is answered by a JSON object. An empty 2xx would keep the host waiting, so there is none.
//! - A failed invocation is a 500, and nothing else is.
//!
//! This module moves bytes. What an invocation means is the business of [`functions`](crate::functions).

mod gate;

use std::{future::Future, io, net::SocketAddr, time::Duration};

use actix_web::{
    App as ActixApp, FromRequest, HttpRequest, HttpResponse, HttpServer,
    dev::{Payload, Server},
    http::{StatusCode, header::CONTENT_TYPE},
    web,
};
use serde_json::json;

use self::gate::{Gate, Guarded};
use crate::{
    functions::{App, Function, invoke},
    invocation::MAX_INVOCATION,
    telemetry::InvocationSpan,
};

/// How long an idle connection is kept. The host's client keeps its end for one minute
/// (`SocketsHttpHandler.PooledConnectionIdleTimeout`), reqwest's for 90 seconds; if this end closed first, a request
/// that is on its way at that moment would fail.
const KEEP_ALIVE: Duration = Duration::from_secs(120);

/// How long invocations may go on after the handler was asked to stop.
pub const STOP_DEADLINE: Duration = Duration::from_secs(25);

/// After the last reply was handed to its connection, the time to get it from there into the socket.
const FLUSH: Duration = Duration::from_millis(50);

/// Header by which the host names an invocation. All attempts of one invocation share it.
const INVOCATION_ID: &str = "x-azure-functions-invocationid";

/// A handler that listens, but does not answer before it runs.
pub struct Handler {
    server: Server,
    address: SocketAddr,
    shared: web::Data<Shared>,
}

/// What all requests share.
struct Shared {
    app: App,
    gate: Gate,
}

impl Handler {
    /// Listens on 127.0.0.1; port 0 lets the system choose.
    ///
    /// # Errors
    /// When the port is taken. (A port that a killed predecessor has left is not: the socket has `SO_REUSEADDR`.)
    pub fn bind(app: App, port: u16) -> io::Result<Self> {
        let shared = web::Data::new(Shared {
            app,
            gate: Gate::default(),
        });
        let data = shared.clone();
        let server = HttpServer::new(move || {
            let mut actix = ActixApp::new()
                .app_data(data.clone())
                .app_data(web::PayloadConfig::new(MAX_INVOCATION))
                .route("/", web::get().to(ready))
                .default_service(web::to(unknown));
            for function in Function::ALL {
                let route = web::post()
                    .to(move |in_flight, request, body| serve(function, in_flight, request, body));
                actix = actix.route(&format!("/{}", function.name()), route);
            }
            actix
        })
        .keep_alive(KEEP_ALIVE)
        .disable_signals()
        .bind(("127.0.0.1", port))?;
        let address = server
            .addrs()
            .first()
            .copied()
            .ok_or_else(|| io::Error::other("no address was bound"))?;
        Ok(Self {
            server: server.run(),
            address,
            shared,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers invocations until `stop` resolves, then lets those in flight finish, for at most [`STOP_DEADLINE`].
    ///
    /// # Errors
    /// When the server fails.
    pub async fn run(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let Self {
            mut server, shared, ..
        } = self;
        let gate = &shared.gate;
        let handle = server.handle();
        tokio::select! {
            outcome = &mut server => return outcome,
            () = stop => {}
        }
        gate.stop();
        tracing::info!(in_flight = gate.in_flight(), "stopping");
        let closed = async {
            handle.pause().await;
            if tokio::time::timeout(STOP_DEADLINE, gate.empty())
                .await
                .is_err()
            {
                tracing::warn!(
                    in_flight = gate.in_flight(),
                    "stopping although invocations are in flight"
                );
            }
            tokio::time::sleep(FLUSH).await;
            handle.stop(false).await;
        };
        let (outcome, ()) = tokio::join!(server, closed);
        outcome
    }
}

/// The host looks for any answer at all.
async fn ready() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ready" }))
}

async fn unknown(request: HttpRequest) -> HttpResponse {
    tracing::warn!(method = %request.method(), path = request.path(), "no such function");
    let names = Function::ALL.map(Function::name).join(", ");
    HttpResponse::NotFound()
        .json(json!({ "error": format!("no such function; there are {names}, each by POST") }))
}

async fn serve(
    function: Function,
    in_flight: InFlight,
    request: HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
) -> HttpResponse<Guarded<InFlight>> {
    let Shared { app, gate } = &**in_flight.0;
    let id = request
        .headers()
        .get(INVOCATION_ID)
        .and_then(|id| id.to_str().ok())
        .unwrap_or("none");
    let traceparent = request
        .headers()
        .get("traceparent")
        .and_then(|traceparent| traceparent.to_str().ok());
    let region = &app.settings.region;
    let mut span = app
        .instrumentation
        .invocation(region, function, id, traceparent);
    let result = match body {
        Ok(body) => invoke(function, app, &body, &mut span)
            .await
            .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        Err(error) => Err((
            error.as_response_error().status_code(),
            format!("the invocation cannot be received: {error}"),
        )),
    };
    let (status, reply) = match result {
        Ok(reply) => {
            span.ended(None);
            (StatusCode::OK, reply)
        }
        Err((status, error)) => failure(status, &error, span),
    };

    let mut response = HttpResponse::build(status);
    response.insert_header((CONTENT_TYPE, "application/json"));
    if gate.is_stopping() {
        response.force_close();
    }
    response
        .message_body(Guarded::new(reply, in_flight))
        .unwrap_or_else(|error| {
            // Cannot happen: all parts of the response are constants.
            tracing::error!(%error, "the response cannot be built");
            HttpResponse::with_body(StatusCode::INTERNAL_SERVER_ERROR, Guarded::empty())
        })
}

/// Tells the host that the invocation failed. It looks at the status alone; the text is for whoever calls by hand.
fn failure(status: StatusCode, error: &str, mut span: InvocationSpan<'_>) -> (StatusCode, Vec<u8>) {
    tracing::error!(
        parent: span.log(),
        status = status.as_u16(),
        error,
        "the invocation failed"
    );
    span.ended(Some(error));
    (status, json!({ "error": error }).to_string().into_bytes())
}

/// A request in flight: from its head on, while its body is still coming, until the connection has taken all of its reply.
struct InFlight(web::Data<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.gate.leave();
    }
}

impl FromRequest for InFlight {
    type Error = actix_web::Error;
    type Future = std::future::Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(match request.app_data::<web::Data<Shared>>() {
            Some(shared) => {
                shared.gate.enter();
                Ok(Self(shared.clone()))
            }
            None => Err(actix_web::error::ErrorInternalServerError(
                "the server has no shared state",
            )),
        })
    }
}
