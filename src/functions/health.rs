//! `GET /api/health`: 200 when this region can read Cosmos DB, with the region of the account that answered; else 503.
//!
//! Front Door asks from every one of its edge sites. To keep that cheap, an answer is good for [`FRESH`], and callers
//! that come meanwhile, or while Cosmos DB is being asked, share it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::Mutex;

use super::{App, InvokeError, refuse, respond};
use crate::{
    changes::{EventStore, StoreError},
    problem::Problem,
    telemetry::InvocationSpan,
};

/// How long one look at Cosmos DB answers for.
pub const FRESH: Duration = Duration::from_secs(1);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Healthy<'a> {
    status: &'static str,
    region: &'a str,
    version: &'static str,
    cosmos_region: &'a str,
}

/// Remembers the last look at Cosmos DB.
#[derive(Debug, Default)]
pub struct Health {
    /// Held while asking, so that one question answers all who wait.
    last: Mutex<Option<Look>>,
}

/// One look at Cosmos DB.
#[derive(Debug, Clone)]
struct Look {
    at: Instant,
    /// The region of the account that answered.
    outcome: Arc<Result<String, StoreError>>,
}

impl Health {
    async fn look(&self, store: &EventStore) -> Look {
        let mut last = self.last.lock().await;
        if let Some(look) = last.as_ref().filter(|look| look.at.elapsed() < FRESH) {
            return look.clone();
        }
        let outcome = Arc::new(store.probe().await);
        last.insert(Look {
            at: Instant::now(),
            outcome,
        })
        .clone()
    }
}

pub(super) async fn invoke(
    app: &App,
    span: &mut InvocationSpan<'_>,
) -> Result<Vec<u8>, InvokeError> {
    match &*app.health.look(&app.store).await.outcome {
        Ok(cosmos_region) => respond(
            200,
            &Healthy {
                status: "ok",
                region: app.settings.region.as_str(),
                version: env!("CARGO_PKG_VERSION"),
                cosmos_region,
            },
        ),
        Err(error) => refuse(&unavailable(error), span),
    }
}

/// Says that Cosmos DB cannot be read. What an operator can set right is told; the rest is logged.
pub(super) fn unavailable(error: &StoreError) -> Problem {
    tracing::warn!(%error, "Cosmos DB cannot be read");
    let detail = match error {
        StoreError::NotConfigured | StoreError::NoContainer | StoreError::Splitting => {
            error.to_string()
        }
        StoreError::Connect(_)
        | StoreError::Continuation(_)
        | StoreError::Cosmos(_)
        | StoreError::Timeout(_) => {
            "Cosmos DB cannot be read from this region at the moment; try again, or another region."
                .to_owned()
        }
    };
    Problem::new(503, "Cosmos DB unavailable", detail)
}
