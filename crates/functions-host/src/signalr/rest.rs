//! Calls of the SignalR data-plane REST API.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use reqwest::Response;
use serde::Deserialize;
use thiserror::Error;

use super::connection::{Access, Connection};
use super::message::{API_VERSION, RestCall};
use super::token::{TokenError, rest_token};
use crate::binding::BindingError;
use crate::identity::Credential;

/// Longest time for one attempt, as in the real extension.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(100);

/// Attempts per call, the first included.
pub const ATTEMPTS: u32 = 3;

/// Pause before the second attempt; doubles after that.
pub const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What Microsoft Entra ID is asked for.
const ENTRA_SCOPE: &str = "https://signalr.azure.com/.default";

/// The first version of the API that makes tokens for clients.
const CLIENT_TOKEN_API_VERSION: &str = "2022-11-01";

/// How long such a token is valid: as long as one that is signed here.
const CLIENT_TOKEN_MINUTES: &str = "60";

/// Most characters of an error body that are quoted.
const EXCERPT_LIMIT: usize = 300;

/// Header that says why something was not found.
const ERROR_CODE: &str = "x-ms-error-code";

/// Its value for a connection that is gone.
const CONNECTION_GONE: &str = "Error.Connection.NotExisted";

/// Why a call failed.
#[derive(Debug, Error)]
pub(crate) enum RestError {
    /// No token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No token of the identity.
    #[error("cannot sign in: {0}")]
    Identity(#[source] azure_core::Error),
    /// No answer.
    #[error("{}", causes(.0))]
    Transport(reqwest::Error),
    /// An answer other than success.
    #[error("the service answered {status}{excerpt}")]
    Refused {
        /// Status of the last answer.
        status: StatusCode,
        /// Beginning of its body, with a leading separator.
        excerpt: String,
    },
}

impl RestError {
    pub(crate) fn into_binding_error(self, operation: &str) -> BindingError {
        match self {
            Self::Token(error) => BindingError::Configuration(error.to_string()),
            error => BindingError::Service {
                operation: operation.to_owned(),
                message: error.to_string(),
            },
        }
    }

    /// Whether to try again. A message must not be shown twice, so a send is repeated only when
    /// the service cannot have taken it: no connection, or an answer above 500. (The service's own
    /// SDK draws the same line.)
    fn is_worth_another_attempt(&self, idempotent: bool) -> bool {
        match self {
            Self::Token(_) | Self::Identity(_) => false,
            Self::Transport(error) => idempotent || error.is_connect(),
            Self::Refused { status, .. } if idempotent => {
                status.is_server_error() || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::Refused { status, .. } => status.as_u16() > 500,
        }
    }
}

/// Sends REST calls; one connection pool.
#[derive(Debug)]
pub(crate) struct RestClient(reqwest::Client);

impl RestClient {
    pub(crate) fn new() -> Result<Self, RestError> {
        reqwest::Client::builder()
            .timeout(REQUEST_LIMIT)
            .build()
            .map(Self)
            .map_err(RestError::Transport)
    }

    /// Makes one call for `hub` (already escaped), with a few attempts.
    pub(crate) async fn call(
        &self,
        connection: &Connection,
        server_name: &str,
        hub: &str,
        call: &RestCall,
    ) -> Result<(), RestError> {
        let mut pause = RETRY_PAUSE;
        for attempt in 1.. {
            match self.attempt(connection, server_name, hub, call).await {
                Err(error)
                    if attempt < ATTEMPTS && error.is_worth_another_attempt(call.idempotent) =>
                {
                    tracing::debug!(%error, attempt, "SignalR call failed, trying again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => return other,
            }
        }
        Ok(())
    }

    /// Asks the service for the token of a client, on behalf of an identity: `POST …/:generateToken`.
    pub(crate) async fn client_token(
        &self,
        connection: &Connection,
        credential: &Credential,
        hub: &str,
        user_id: Option<&str>,
    ) -> Result<String, RestError> {
        let url = format!("{}/api/hubs/{hub}/:generateToken", connection.server());
        let mut query = vec![
            ("api-version", CLIENT_TOKEN_API_VERSION),
            ("minutesToExpire", CLIENT_TOKEN_MINUTES),
        ];
        query.extend(user_id.map(|user| ("userId", user)));
        let response = self
            .0
            .post(url)
            .query(&query)
            .bearer_auth(entra_token(credential).await?)
            .send()
            .await
            .map_err(|error| RestError::Transport(error.without_url()))?;
        let status = response.status();
        if !status.is_success() {
            return Err(RestError::Refused {
                status,
                excerpt: excerpt(response).await,
            });
        }
        let ClientToken { token } = response
            .json()
            .await
            .map_err(|error| RestError::Transport(error.without_url()))?;
        Ok(token)
    }

    async fn attempt(
        &self,
        connection: &Connection,
        server_name: &str,
        hub: &str,
        call: &RestCall,
    ) -> Result<(), RestError> {
        let path = path(hub, call);
        let token = match connection.access() {
            Access::Key(key) => rest_token(connection, key, server_name, &path, Timestamp::now())?,
            Access::Identity(credential) => entra_token(credential).await?,
        };
        let mut request = self
            .0
            .request(
                call.method.clone(),
                format!("{}{path}", connection.server()),
            )
            .bearer_auth(token);
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| RestError::Transport(error.without_url()))?;
        let status = response.status();
        let gone = status == StatusCode::NOT_FOUND
            && response
                .headers()
                .get(ERROR_CODE)
                .is_some_and(|code| code == CONNECTION_GONE);
        if status.is_success() || (gone && call.may_miss_connection) {
            return Ok(());
        }
        Err(RestError::Refused {
            status,
            excerpt: excerpt(response).await,
        })
    }
}

/// What the service makes of a request for the token of a client.
#[derive(Deserialize)]
struct ClientToken {
    token: String,
}

/// A token of Microsoft Entra ID for the service. The credential keeps it until it expires.
async fn entra_token(credential: &Credential) -> Result<String, RestError> {
    let token = credential
        .get_token(&[ENTRA_SCOPE], None)
        .await
        .map_err(RestError::Identity)?;
    Ok(token.token.secret().to_owned())
}

/// Path and query of a call, as sent and as named in its token.
pub(crate) fn path(hub: &str, call: &RestCall) -> String {
    format!("/api/hubs/{hub}{}?api-version={API_VERSION}", call.path)
}

/// The beginning of an error body, on one line.
async fn excerpt(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < EXCERPT_LIMIT {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            // A body that breaks off is no worse than none: the status says what matters.
            Ok(None) | Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(EXCERPT_LIMIT)
        .collect();
    match text.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

/// An error with its causes; reqwest's own text alone does not say "connection refused".
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
