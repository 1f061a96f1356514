//! The managed identities of the apps, for `--keyless`: every connection then signs in as it does in Azure.
//!
//! A handler asks the endpoint that `IDENTITY_ENDPOINT` names, with the secret in `IDENTITY_HEADER`, as in App Service.
//! (Microsoft Learn, "How to use managed identities for App Service and Azure Functions", REST endpoint reference.) The
//! tokens say what Entra's say of audience, client and expiry; the local services check no more.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    error::ErrorKind,
    time::OffsetDateTime,
};
use functions_host::Credential;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Deserialize;
use serde_json::{Value, json};
use signalr_local::Service;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// How long a token is good.
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// The version of the endpoint's protocol that App Service has.
const API_VERSION: &str = "2019-08-01";

/// What there are identities for. Nothing else gets a token.
const RESOURCES: [&str; 2] = ["https://cosmos.azure.com", "https://signalr.azure.com"];

/// The issuer of tokens, and its endpoint, which ends with this.
pub(super) struct Identities {
    issuer: Issuer,
    url: String,
    secret: String,
    _stop: DropGuard,
}

/// Makes tokens.
#[derive(Clone)]
struct Issuer {
    key: Arc<EncodingKey>,
}

/// What the endpoint needs.
#[derive(Clone)]
struct Endpoint {
    issuer: Issuer,
    secret: String,
}

impl Identities {
    /// Listens on a port that the system chooses.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let issuer = Issuer {
            key: Arc::new(EncodingKey::from_secret(Uuid::new_v4().as_bytes())),
        };
        let secret = Uuid::new_v4().simple().to_string();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("cannot listen for requests of managed identities")?;
        let url = format!("http://{}/msi/token", listener.local_addr()?);
        let stop = CancellationToken::new();
        let app = Router::new()
            .route("/msi/token", get(token))
            .with_state(Endpoint {
                issuer: issuer.clone(),
                secret: secret.clone(),
            });
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            let served = axum::serve(listener, app)
                .with_graceful_shutdown(stopped)
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "the endpoint of managed identities failed");
            }
        });
        Ok(Self {
            issuer,
            url,
            secret,
            _stop: stop.drop_guard(),
        })
    }

    /// The app settings of a region: those of the deployment, and what App Service adds.
    pub(super) fn settings(
        &self,
        region: &str,
        account: &str,
        signalr: &Service,
    ) -> BTreeMap<String, String> {
        let client = client_id(region);
        BTreeMap::from(
            [
                ("CosmosDBConnection__accountEndpoint", account.to_owned()),
                (
                    "CosmosDBConnection__credential",
                    "managedidentity".to_owned(),
                ),
                ("CosmosDBConnection__clientId", client.clone()),
                (
                    "AzureSignalRConnectionString__serviceUri",
                    signalr.endpoint(),
                ),
                (
                    "AzureSignalRConnectionString__credential",
                    "managedidentity".to_owned(),
                ),
                ("AzureSignalRConnectionString__clientId", client),
                ("IDENTITY_ENDPOINT", self.url.clone()),
                ("IDENTITY_HEADER", self.secret.clone()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
    }

    /// The identity of a region's Functions host, which has no environment of its own here.
    pub(super) fn credential(&self, region: &str) -> Credential {
        Arc::new(Identity {
            issuer: self.issuer.clone(),
            client: client_id(region),
        })
    }
}

/// The client id of a region's identity. In Azure it is a GUID; nobody looks.
fn client_id(region: &str) -> String {
    format!("identity-{}", region.replace(' ', "-"))
}

impl Issuer {
    fn token(&self, resource: &str, client: &str) -> Result<(String, Timestamp), String> {
        let resource = resource.trim_end_matches('/');
        if !RESOURCES.contains(&resource) {
            return Err(format!(
                "there are identities for {}, not for {resource:?}",
                RESOURCES.join(" and ")
            ));
        }
        let now = Timestamp::now();
        let expires = now + LIFETIME;
        let claims = json!({
            "aud": resource,
            "appid": client,
            "iat": now.as_second(),
            "nbf": now.as_second(),
            "exp": expires.as_second(),
        });
        let token = encode(&Header::default(), &claims, &self.key).map_err(|e| e.to_string())?;
        Ok((token, expires))
    }
}

#[derive(Deserialize)]
struct TokenQuery {
    resource: String,
    client_id: Option<String>,
    #[serde(rename = "api-version")]
    api_version: String,
}

async fn token(
    State(endpoint): State<Endpoint>,
    headers: HeaderMap,
    Query(query): Query<TokenQuery>,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    let refuse = |status: StatusCode, message: &str| {
        (
            status,
            Json(json!({"statusCode": status.as_u16(), "message": message})),
        )
    };
    if headers
        .get("x-identity-header")
        .is_none_or(|secret| secret != endpoint.secret.as_str())
    {
        return Err(refuse(
            StatusCode::UNAUTHORIZED,
            "X-IDENTITY-HEADER is not that of the app",
        ));
    }
    if query.api_version != API_VERSION {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            &format!("api-version is {API_VERSION}"),
        ));
    }
    let client = query.client_id.unwrap_or_default();
    let (token, expires) = endpoint
        .issuer
        .token(&query.resource, &client)
        .map_err(|message| refuse(StatusCode::BAD_REQUEST, &message))?;
    Ok(Json(json!({
        "access_token": token,
        "client_id": client,
        "expires_on": expires.as_second().to_string(),
        "resource": query.resource,
        "token_type": "Bearer",
    })))
}

struct Identity {
    issuer: Issuer,
    client: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl TokenCredential for Identity {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let scope = scopes.first().copied().unwrap_or_default();
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let failed =
            |message: String| azure_core::Error::with_message(ErrorKind::Credential, message);
        let (token, expires) = self.issuer.token(resource, &self.client).map_err(failed)?;
        let expires = OffsetDateTime::from_unix_timestamp(expires.as_second())
            .map_err(|error| failed(error.to_string()))?;
        Ok(AccessToken::new(token, expires))
    }
}
