//! The control API: what the dashboard, and any script, cuts and heals regions with. JSON in, JSON out.
//!
//! - `GET /control/state`
//! - `PUT /control/regions/{name}` `{"cosmos": "online|offline", "functions": "running|stopped"}`, either or both
//! - `PUT /control/links/{from}/{to}` `{"state": "open|cut", "lagMs": 80}`, either or both
//!
//! Changes answer with the new state; errors are problem details (RFC 9457). The API has no password: it listens on
//! 127.0.0.1, and requests that a foreign web page sends by way of a rebound host name are refused.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, Request, State, rejection::JsonRejection},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use cosmos_local::LinkState;
use serde::{Deserialize, Serialize};

use super::{
    MAX_LAG,
    cloud::{self, Cloud, FunctionsState},
};
use crate::names::{DATABASE, EVENTS, MATERIALIZED};

/// All routes of the control API.
pub(super) fn router(cloud: Cloud) -> Router {
    Router::new()
        .route("/control/state", get(state))
        .route("/control/regions/{name}", put(put_region))
        .route("/control/links/{from}/{to}", put(put_link))
        .layer(middleware::from_fn(only_this_machine))
        .with_state(cloud)
}

/// `GET /control/state`
#[derive(Debug, Serialize)]
struct StateView {
    version: &'static str,
    account: String,
    regions: Vec<RegionView>,
    links: Vec<LinkView>,
}

#[derive(Debug, Serialize)]
struct RegionView {
    name: String,
    functions: Option<FunctionsView>,
    cosmos: CosmosView,
    signalr: SignalRView,
}

#[derive(Debug, Serialize)]
struct FunctionsView {
    url: String,
    state: FunctionsState,
    invocations: u64,
    failures: u64,
}

#[derive(Debug, Serialize)]
struct CosmosView {
    url: String,
    state: CosmosState,
    /// Items of the container in this region.
    events: u64,
    materialized: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CosmosState {
    Online,
    Offline,
}

#[derive(Debug, Serialize)]
struct SignalRView {
    url: String,
    connections: u64,
    messages: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkView {
    from: String,
    to: String,
    state: LinkStateView,
    lag_ms: u64,
    /// Changes accepted at `from` and not yet applied at `to`.
    pending: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LinkStateView {
    Open,
    Cut,
}

/// `PUT /control/regions/{name}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionChange {
    cosmos: Option<CosmosState>,
    functions: Option<FunctionsChange>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FunctionsChange {
    Running,
    Stopped,
}

/// `PUT /control/links/{from}/{to}`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LinkChange {
    state: Option<LinkStateView>,
    lag_ms: Option<u64>,
}

/// An error as problem details.
struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }

    fn unknown_region(cloud: &Cloud, name: &str) -> Self {
        let names: Vec<_> = cloud
            .regions()
            .iter()
            .map(|region| region.name.as_str())
            .collect();
        Self::new(
            StatusCode::NOT_FOUND,
            format!(
                "there is no region {name:?}; the regions are {}",
                names.join(", ")
            ),
        )
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        (
            self.status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body.to_string(),
        )
            .into_response()
    }
}

/// Refuses requests whose Host is a name that somebody else may own (DNS rebinding).
async fn only_this_machine(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if matches!(name, "127.0.0.1" | "localhost") {
        return next.run(request).await;
    }
    Problem::new(
        StatusCode::FORBIDDEN,
        "the control API answers to 127.0.0.1 and localhost only",
    )
    .into_response()
}

async fn state(State(cloud): State<Cloud>) -> Json<StateView> {
    Json(view(&cloud))
}

async fn put_region(
    State(cloud): State<Cloud>,
    Path(name): Path<String>,
    change: Result<Json<RegionChange>, JsonRejection>,
) -> Result<Json<StateView>, Problem> {
    let Json(change) = change?;
    let region = cloud
        .region(&name)
        .ok_or_else(|| Problem::unknown_region(&cloud, &name))?;
    if let Some(state) = change.cosmos {
        cloud
            .account()
            .set_region_online(&name, state == CosmosState::Online)
            .await
            .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    }
    if let Some(change) = change.functions {
        cloud::set_functions(region, change == FunctionsChange::Running)
            .await
            .map_err(|error| Problem::new(StatusCode::CONFLICT, format!("{error:#}")))?;
    }
    Ok(Json(view(&cloud)))
}

async fn put_link(
    State(cloud): State<Cloud>,
    Path((from, to)): Path<(String, String)>,
    change: Result<Json<LinkChange>, JsonRejection>,
) -> Result<Json<StateView>, Problem> {
    let Json(change) = change?;
    for name in [&from, &to] {
        cloud
            .region(name)
            .ok_or_else(|| Problem::unknown_region(&cloud, name))?;
    }
    let lag = change.lag_ms.map(Duration::from_millis);
    if lag.is_some_and(|lag| lag > MAX_LAG) {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!("lagMs is at most {}", MAX_LAG.as_millis()),
        ));
    }
    let links = cloud.links();
    let link = links
        .iter()
        .find(|link| link.from == from && link.to == to)
        .ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                format!("there is no link from {from:?} to itself; name two regions"),
            )
        })?;
    let state = match change.state {
        Some(LinkStateView::Open) => LinkState::Open,
        Some(LinkStateView::Cut) => LinkState::Cut,
        None => link.state,
    };
    cloud
        .account()
        .set_link(&from, &to, state, lag)
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(view(&cloud)))
}

fn view(cloud: &Cloud) -> StateView {
    let account = cloud.account();
    let cosmos = account.regions();
    let count = |region: &str, container| {
        account
            .item_count(region, DATABASE, container)
            .unwrap_or_default()
    };
    let regions = cloud.regions().iter().map(|region| RegionView {
        name: region.name.clone(),
        functions: region.functions.as_ref().map(|functions| {
            let (state, invocations, failures) = functions.status();
            FunctionsView {
                url: functions.url().to_owned(),
                state,
                invocations,
                failures,
            }
        }),
        cosmos: CosmosView {
            url: region.cosmos.clone(),
            state: match cosmos.iter().find(|status| status.name == region.name) {
                Some(status) if status.online => CosmosState::Online,
                _ => CosmosState::Offline,
            },
            events: count(&region.name, EVENTS),
            materialized: count(&region.name, MATERIALIZED),
        },
        signalr: {
            let stats = region.signalr.stats();
            SignalRView {
                url: region.signalr.endpoint(),
                connections: stats.connections,
                messages: stats.messages,
            }
        },
    });
    StateView {
        version: env!("CARGO_PKG_VERSION"),
        account: account.endpoint(),
        regions: regions.collect(),
        links: cloud
            .links()
            .into_iter()
            .map(|link| LinkView {
                from: link.from,
                to: link.to,
                state: match link.state {
                    LinkState::Open => LinkStateView::Open,
                    LinkState::Cut => LinkStateView::Cut,
                },
                lag_ms: u64::try_from(link.lag.as_millis()).unwrap_or(u64::MAX),
                pending: link.pending,
            })
            .collect(),
    }
}
