//! The SignalR connections of one host, shared by all its bindings.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::connection::Connection;
use super::rest::{self, RestClient};
use crate::binding::BindingError;
use crate::identity::{self, Credential};
use crate::settings::Settings;

/// Chooses between REST calls and server connections.
const TRANSPORT_SETTING: &str = "AzureSignalRServiceTransportType";

/// What a connection setting must look like.
const ADVICE: &str =
    "set it to a SignalR connection string (Endpoint=https://…;AccessKey=…;Version=1.0;)";

/// All SignalR connections of one host. Cheap to clone.
#[derive(Clone)]
pub struct SignalRClients {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Arc<Settings>,
    identity: Option<Credential>,
    /// How this host calls itself in tokens for REST calls.
    server_name: String,
    rest: OnceCell<RestClient>,
    // By setting name; locked only to look up or add, never across an await.
    connections: Mutex<HashMap<String, Arc<Connection>>>,
}

impl SignalRClients {
    /// Connects to nothing yet; settings are read when a binding is first used. `identity` takes
    /// the place of a managed identity.
    #[must_use]
    pub fn new(settings: Arc<Settings>, identity: Option<Credential>) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                identity,
                server_name: format!("functions-host_{}", uuid::Uuid::new_v4().simple()),
                rest: OnceCell::new(),
                connections: Mutex::default(),
            }),
        }
    }

    pub(crate) fn server_name(&self) -> &str {
        &self.inner.server_name
    }

    pub(crate) async fn rest(&self) -> Result<&RestClient, BindingError> {
        self.inner
            .rest
            .get_or_try_init(|| async { RestClient::new() })
            .await
            .map_err(|error: rest::RestError| error.into_binding_error("starting the REST client"))
    }

    /// The connection that the setting `name` describes.
    ///
    /// A connection string, as `ConnectionStrings:<name>` or `<name>`, or a section with an
    /// identity, `<name>__serviceUri`. What the real extension knows beyond that (several
    /// endpoints, persistent transport) is refused by name.
    pub(crate) fn connection(&self, name: &str) -> Result<Arc<Connection>, BindingError> {
        let mut connections = self
            .inner
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = connections.get(name) {
            return Ok(known.clone());
        }
        let get = |key: &str| self.inner.settings.get(key);
        let connection = Arc::new(find(&get, name, self.inner.identity.as_ref())?);
        connections.insert(name.to_owned(), connection.clone());
        Ok(connection)
    }
}

impl fmt::Debug for SignalRClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalRClients").finish_non_exhaustive()
    }
}

fn find<'a>(
    get: &dyn Fn(&str) -> Option<&'a str>,
    name: &str,
    given: Option<&Credential>,
) -> Result<Connection, BindingError> {
    let set = |key: &str| get(key).filter(|value| !value.trim().is_empty());
    if set(TRANSPORT_SETTING).is_some_and(|value| value.eq_ignore_ascii_case("persistent")) {
        return Err(BindingError::Configuration(format!(
            "{TRANSPORT_SETTING}=Persistent is not supported: messages are sent through the REST \
             API (Transient); remove the setting"
        )));
    }
    let text = set(&format!("ConnectionStrings:{name}")).or_else(|| set(name));
    match text {
        Some(text) => Connection::parse(text).map_err(|error| BindingError::InvalidSetting {
            setting: name.to_owned(),
            reason: format!("cannot be used: {error}"),
        }),
        None => {
            let part = |part: &str| set(&format!("{name}__{part}"));
            let Some(service) = part("serviceUri") else {
                return Err(BindingError::MissingSetting {
                    setting: name.to_owned(),
                    advice: ADVICE.to_owned(),
                });
            };
            let invalid = |reason| BindingError::InvalidSetting {
                setting: format!("{name}__serviceUri"),
                reason,
            };
            let credential = identity::credential(get, name, given).map_err(invalid)?;
            let (client, server) = (part("clientEndpoint"), part("serverEndpoint"));
            Connection::with_identity(service, client, server, credential)
                .map_err(|error| invalid(format!("cannot be used: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = "Endpoint=http://127.0.0.1:8888;AccessKey=s3cret;Version=1.0;";

    fn find_in(settings: &[(&str, &'static str)]) -> Result<String, String> {
        let get = |name: &str| {
            settings
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| *value)
        };
        find(&get, "SignalR", None)
            .map(|connection| connection.server().to_owned())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn both_places_of_a_connection_string_are_read() {
        let address = "http://127.0.0.1:8888";
        assert_eq!(find_in(&[("SignalR", TEXT)]).unwrap(), address);
        assert_eq!(
            find_in(&[("ConnectionStrings:SignalR", TEXT), ("SignalR", "x")]).unwrap(),
            address
        );
        let section = [
            ("SignalR__serviceUri", "http://127.0.0.1:8888/"),
            ("SignalR__credential", "managedidentity"),
        ];
        assert_eq!(find_in(&section).unwrap(), address);
        assert_eq!(
            find_in(&[("SignalR", TEXT), (TRANSPORT_SETTING, "Transient")]).unwrap(),
            address
        );
    }

    #[test]
    fn what_is_not_supported_is_named_with_what_to_set() {
        for (settings, expected) in [
            (
                &[][..],
                "setting `SignalR` is missing: set it to a SignalR connection string",
            ),
            (
                &[
                    ("SignalR__serviceUri", "https://x"),
                    ("SignalR__credential", "x"),
                ][..],
                "`SignalR__serviceUri` has a SignalR__credential that is not known",
            ),
            (
                &[("SignalR", "Endpoint=http://a;AuthType=azure.msi")][..],
                "AuthType=azure.msi",
            ),
            (
                &[("SignalR", TEXT), (TRANSPORT_SETTING, "persistent")][..],
                "AzureSignalRServiceTransportType=Persistent is not supported",
            ),
            (
                &[("SignalR", "Endpoint=s3cret;AccessKey=s3cret")][..],
                "Endpoint must be an absolute",
            ),
        ] {
            let error = find_in(settings).unwrap_err();
            assert!(
                error.contains(expected) && !error.contains("s3cret"),
                "{error}"
            );
        }
    }
}
