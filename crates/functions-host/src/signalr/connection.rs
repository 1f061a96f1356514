//! The SignalR connection string, and the addresses derived from it.
//!
//! Follows `Azure/azure-signalr: src/Microsoft.Azure.SignalR.Common/Utilities/ConnectionStringParser.cs`:
//! names ignore case, `Port` overrides the port of `Endpoint`, `ClientEndpoint` and
//! `ServerEndpoint` replace the address for clients and for REST, and the audience of every token
//! stays the scheme and host of `Endpoint` without any port.

use std::collections::BTreeMap;
use std::fmt;

use jsonwebtoken::EncodingKey;
use thiserror::Error;
use url::Url;

use crate::identity::Credential;

/// `AuthType` values that mean "sign in with Microsoft Entra ID instead of a key".
const IDENTITY_AUTH_TYPES: [&str; 4] = ["azure", "azure.msi", "azure.app", "aad"];

/// Why a SignalR connection string cannot be used. Never quotes the string itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ConnectionStringError {
    /// A part between semicolons has no `=`.
    #[error("part {position} has no '='; the form is Endpoint=https://…;AccessKey=…;Version=1.0;")]
    NoEquals {
        /// 1-based position among the parts.
        position: usize,
    },
    /// A property occurs twice.
    #[error("property {0} occurs more than once")]
    Duplicate(String),
    /// A mandatory property is missing.
    #[error("property {0} is missing")]
    Missing(&'static str),
    /// An endpoint is not an absolute http or https URL.
    #[error("{0} must be an absolute http:// or https:// URL")]
    BadEndpoint(&'static str),
    /// `Port` is not a port number.
    #[error("Port must be a number from 1 to 65535")]
    BadPort,
    /// `Version` is not 1.x.
    #[error("Version must be 1.0 or another 1.x")]
    BadVersion,
    /// The string asks for identity-based access.
    #[error(
        "AuthType={0} (Microsoft Entra ID) is not supported here; use a connection string with AccessKey"
    )]
    Identity(String),
}

/// A parsed connection string.
#[derive(Clone)]
pub(crate) struct Connection {
    audience: String,
    client: String,
    server: String,
    access: Access,
}

/// How to sign in.
#[derive(Clone)]
pub(crate) enum Access {
    /// By tokens that are signed here.
    Key(EncodingKey),
    /// By tokens of Microsoft Entra ID, for which the service makes those of clients.
    Identity(Credential),
}

impl Connection {
    /// The connection of a section of settings: `X__serviceUri`, and optionally addresses for clients and for REST.
    pub(crate) fn with_identity(
        service: &str,
        client: Option<&str>,
        server: Option<&str>,
        credential: Credential,
    ) -> Result<Self, ConnectionStringError> {
        let url = endpoint("serviceUri", service)?;
        let or_service = |name, address: Option<&str>| match address {
            Some(address) => endpoint(name, address).map(|url| text_of(&url)),
            None => Ok(text_of(&url)),
        };
        Ok(Self {
            audience: text_of(&url),
            client: or_service("clientEndpoint", client)?,
            server: or_service("serverEndpoint", server)?,
            access: Access::Identity(credential),
        })
    }

    /// Parses a connection string.
    pub(crate) fn parse(text: &str) -> Result<Self, ConnectionStringError> {
        use ConnectionStringError as E;

        let mut properties: BTreeMap<String, &str> = BTreeMap::new();
        let parts = text
            .split(';')
            .enumerate()
            .filter(|(_, part)| !part.trim().is_empty());
        for (index, part) in parts {
            let (name, value) = part.split_once('=').ok_or(E::NoEquals {
                position: index + 1,
            })?;
            let name = name.trim().to_ascii_lowercase();
            if properties.insert(name.clone(), value.trim()).is_some() {
                return Err(E::Duplicate(name));
            }
        }
        let get = |name: &str| {
            properties
                .get(name)
                .copied()
                .filter(|value| !value.is_empty())
        };

        if let Some(auth) = get("authtype")
            && IDENTITY_AUTH_TYPES
                .iter()
                .any(|known| known.eq_ignore_ascii_case(auth))
        {
            return Err(E::Identity(auth.to_owned()));
        }
        if let Some(version) = get("version")
            && version
                .strip_prefix("1.")
                .is_none_or(|minor| minor.is_empty())
        {
            return Err(E::BadVersion);
        }
        let port = get("port")
            .map(|port| {
                port.parse::<u16>()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or(E::BadPort)
            })
            .transpose()?;

        let mut endpoint = endpoint("Endpoint", get("endpoint").ok_or(E::Missing("Endpoint"))?)?;
        let key = get("accesskey").ok_or(E::Missing("AccessKey"))?;
        let audience = format!(
            "{}://{}",
            endpoint.scheme(),
            endpoint.host_str().ok_or(E::BadEndpoint("Endpoint"))?
        );
        if port.is_some() && endpoint.set_port(port).is_err() {
            return Err(E::BadEndpoint("Endpoint"));
        }
        let base = |name, property| match get(property) {
            Some(value) => self::endpoint(name, value).map(|url| text_of(&url)),
            None => Ok(text_of(&endpoint)),
        };
        Ok(Self {
            audience,
            client: base("ClientEndpoint", "clientendpoint")?,
            server: base("ServerEndpoint", "serverendpoint")?,
            // The key is the text itself, not what its base64 would decode to.
            access: Access::Key(EncodingKey::from_secret(key.as_bytes())),
        })
    }

    /// Scheme and host for the `aud` claim, without port and trailing slash.
    pub(crate) fn audience(&self) -> &str {
        &self.audience
    }

    /// Address that clients connect to, without trailing slash.
    pub(crate) fn client(&self) -> &str {
        &self.client
    }

    /// Address of the REST API, without trailing slash.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// How to sign in.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("client", &self.client)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

fn endpoint(name: &'static str, value: &str) -> Result<Url, ConnectionStringError> {
    Url::parse(value)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or(ConnectionStringError::BadEndpoint(name))
}

fn text_of(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn addresses(text: &str) -> (String, String, String) {
        let c = Connection::parse(text).unwrap();
        (c.audience.clone(), c.client.clone(), c.server.clone())
    }

    #[test]
    fn both_spellings_of_a_port_lead_to_the_same_addresses() {
        for text in [
            "Endpoint=http://localhost:8888;AccessKey=k1=;Version=1.0;",
            "Endpoint=http://localhost;Port=8888;AccessKey=k1=;Version=1.0;",
            " endpoint = http://localhost/ ; PORT=8888;accesskey=k1=",
        ] {
            assert_eq!(
                addresses(text),
                (
                    "http://localhost".into(),
                    "http://localhost:8888".into(),
                    "http://localhost:8888".into()
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn client_and_server_may_have_addresses_of_their_own() {
        assert_eq!(
            addresses(
                "Endpoint=https://demo.service.signalr.net;AccessKey=k;ClientEndpoint=https://edge.example/sr;ServerEndpoint=http://10.0.0.4:5000"
            ),
            (
                "https://demo.service.signalr.net".into(),
                "https://edge.example/sr".into(),
                "http://10.0.0.4:5000".into()
            )
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        use ConnectionStringError as E;
        for (text, expected) in [
            ("", E::Missing("Endpoint")),
            ("nonsense", E::NoEquals { position: 1 }),
            ("AccessKey=k", E::Missing("Endpoint")),
            ("Endpoint=http://a", E::Missing("AccessKey")),
            ("Endpoint=a;AccessKey=k", E::BadEndpoint("Endpoint")),
            ("Endpoint=ftp://a;AccessKey=k", E::BadEndpoint("Endpoint")),
            (
                "Endpoint=http://a;AccessKey=k;ClientEndpoint=b",
                E::BadEndpoint("ClientEndpoint"),
            ),
            ("Endpoint=http://a;AccessKey=k;Port=0", E::BadPort),
            ("Endpoint=http://a;AccessKey=k;Port=65536", E::BadPort),
            ("Endpoint=http://a;AccessKey=k;Version=2.0", E::BadVersion),
            (
                "Endpoint=http://a;AccessKey=k;accessKey=l",
                E::Duplicate("accesskey".into()),
            ),
            (
                "Endpoint=http://a;AuthType=azure.msi",
                E::Identity("azure.msi".into()),
            ),
        ] {
            assert_eq!(Connection::parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn the_key_shows_up_neither_in_debug_nor_in_errors() {
        let c = Connection::parse("Endpoint=http://a;AccessKey=s3cret").unwrap();
        assert!(!format!("{c:?}").contains("s3cret"));
        let e = Connection::parse("AccessKey=s3cret;Endpoint=s3cret").unwrap_err();
        assert!(!format!("{e} {e:?}").contains("s3cret"));
    }
}
