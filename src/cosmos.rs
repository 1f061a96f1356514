//! The way to Cosmos DB: from a connection to the official client.
//!
//! Most of the app reaches Cosmos DB through the bindings of the Functions host. Only the change feed pull, the health
//! probe and provisioning talk to it themselves, and they do it with `azure_data_cosmos`.

use std::{fmt, str::FromStr, sync::Arc};

use azure_core::credentials::{Secret, TokenCredential};
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, CosmosError, CosmosRuntime, RoutingStrategy,
    clients::{ContainerClient, DatabaseClient},
    options::Region,
};
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use thiserror::Error;

/// Where the account is and how to prove that one may use it. Neither `Debug` nor errors show the key.
#[derive(Clone)]
pub struct Connection {
    endpoint: AccountEndpoint,
    credential: Credential,
}

#[derive(Clone)]
enum Credential {
    Key(Secret),
    Identity { client_id: Option<String> },
}

/// Why a connection cannot be used.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// A part of the connection string is missing.
    #[error("the connection string has no {0}; it reads AccountEndpoint=https://…;AccountKey=…;")]
    Missing(&'static str),
    /// A part of the connection string has no `=`.
    #[error("part {0} of the connection string is not of the form name=value")]
    Malformed(usize),
    /// The endpoint is not a URL.
    #[error("the account endpoint is not a URL")]
    Endpoint,
}

impl Connection {
    /// A connection with the managed identity of this machine: the one with `client_id`, or the system-assigned one.
    ///
    /// # Errors
    /// When the endpoint is not a URL.
    pub fn with_identity(
        endpoint: &str,
        client_id: Option<String>,
    ) -> Result<Self, ConnectionError> {
        Ok(Self {
            endpoint: parse_endpoint(endpoint)?,
            credential: Credential::Identity { client_id },
        })
    }

    fn account(&self) -> Result<AccountReference, ConnectError> {
        match &self.credential {
            Credential::Key(key) => Ok(AccountReference::with_authentication_key(
                self.endpoint.clone(),
                key.clone(),
            )),
            Credential::Identity { client_id } => {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                    ..Default::default()
                };
                let credential: Arc<dyn TokenCredential> =
                    ManagedIdentityCredential::new(Some(options))
                        .map_err(ConnectError::Identity)?;
                Ok(AccountReference::with_credential(
                    self.endpoint.clone(),
                    credential,
                ))
            }
        }
    }
}

fn parse_endpoint(text: &str) -> Result<AccountEndpoint, ConnectionError> {
    text.trim().parse().map_err(|_| ConnectionError::Endpoint)
}

/// Reads `AccountEndpoint=…;AccountKey=…;`. Names are taken in any case; other parts are left to other clients.
impl FromStr for Connection {
    type Err = ConnectionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut endpoint, mut key) = (None, None);
        for (index, part) in text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .enumerate()
        {
            // The key ends in `=`, so only the first one separates.
            let (name, value) = part
                .split_once('=')
                .ok_or(ConnectionError::Malformed(index + 1))?;
            match name.trim().to_ascii_lowercase().as_str() {
                "accountendpoint" => endpoint = Some(parse_endpoint(value)?),
                "accountkey" if !value.trim().is_empty() => {
                    key = Some(Secret::new(value.trim().to_owned()))
                }
                _ => {}
            }
        }
        Ok(Self {
            endpoint: endpoint.ok_or(ConnectionError::Missing("AccountEndpoint"))?,
            credential: Credential::Key(key.ok_or(ConnectionError::Missing("AccountKey"))?),
        })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credential = match &self.credential {
            Credential::Key(_) => "key",
            Credential::Identity { .. } => "managed identity",
        };
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint)
            .field("credential", &credential)
            .finish()
    }
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The connection string cannot be used.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// There is no managed identity here.
    #[error("the managed identity cannot be used: {0}")]
    Identity(#[source] azure_core::Error),
    /// The account does not answer, or refuses.
    #[error("the account cannot be reached: {0}")]
    Account(#[source] Box<CosmosError>),
}

/// A connected client; clones share it.
#[derive(Debug, Clone)]
pub struct Cosmos {
    client: CosmosClient,
}

/// Connects with a connection string; `preferred` are region names, nearest first.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    connection_string: &str,
    preferred: &[String],
) -> Result<Cosmos, ConnectError> {
    connect_to(
        &connection_string.parse()?,
        preferred.iter().map(String::as_str),
    )
    .await
}

/// Connects to an account; `preferred` are region names, nearest first.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect_to(
    connection: &Connection,
    preferred: impl IntoIterator<Item = &str>,
) -> Result<Cosmos, ConnectError> {
    let regions = preferred
        .into_iter()
        .map(|name| Region::new(name.to_owned()))
        .collect();
    // A runtime of its own: the one that clients share by default remembers containers by name, also those that have been
    // deleted and made anew since, and who connects again wants to know what is there now.
    let runtime = CosmosRuntime::builder()
        .build()
        .await
        .map_err(|error| ConnectError::Account(Box::new(error)))?;
    let client = CosmosClient::builder()
        .with_runtime(runtime)
        .build(
            connection.account()?,
            RoutingStrategy::PreferredRegions(regions),
        )
        .await
        .map_err(|error| ConnectError::Account(Box::new(error)))?;
    Ok(Cosmos { client })
}

impl Cosmos {
    /// A database, whether it exists or not.
    pub fn database(&self, name: &str) -> DatabaseClient {
        self.client.database_client(name.to_owned())
    }

    /// A container.
    ///
    /// # Errors
    /// When it does not exist or cannot be read.
    pub async fn container(
        &self,
        database: &str,
        name: &str,
    ) -> Result<ContainerClient, CosmosError> {
        self.database(database)
            .container_client(name.to_owned(), None)
            .await
    }

    /// The client itself.
    pub fn client(&self) -> &CosmosClient {
        &self.client
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_a_connection_string() {
        for text in [
            "AccountEndpoint=https://a.documents.azure.com:443/;AccountKey=c2VjcmV0Cg==;",
            " accountkey=c2VjcmV0Cg== ; ACCOUNTENDPOINT=https://a.documents.azure.com:443/;Database=x",
        ] {
            let connection: Connection = text.parse().unwrap();
            assert_eq!(
                connection.endpoint.url().as_str(),
                "https://a.documents.azure.com/"
            );
            let Credential::Key(key) = &connection.credential else {
                panic!("a key")
            };
            assert_eq!(key.secret(), "c2VjcmV0Cg==");
            assert!(!format!("{connection:?}").contains("c2VjcmV0"));
        }
    }

    #[test]
    fn says_what_is_missing_without_the_secret() {
        for (text, expected) in [
            ("AccountKey=c2VjcmV0;", "no AccountEndpoint"),
            ("AccountEndpoint=http://x/;", "no AccountKey"),
            ("AccountEndpoint=http://x/;AccountKey=;", "no AccountKey"),
            ("AccountEndpoint=http://x/;c2VjcmV0", "part 2"),
            ("AccountEndpoint=c2VjcmV0;AccountKey=c2VjcmV0", "not a URL"),
        ] {
            let error = text.parse::<Connection>().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("c2VjcmV0"), "{error}");
        }
    }
}
