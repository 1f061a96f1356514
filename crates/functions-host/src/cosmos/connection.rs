//! From the name of a connection setting to an account and the way to sign in.
//!
//! A binding names a setting, never a value. For the name `X` the candidates are, in this order,
//! `ConnectionStrings:AzureWebJobsX`, `AzureWebJobsX`, `ConnectionStrings:X` and `X`
//! (`Azure/azure-webjobs-sdk: .../WebJobsConfigurationExtensions.cs`). A value is a connection
//! string; a section instead (`X__accountEndpoint`) means another way to sign in: `X__accountKey`, or
//! an identity (see [`crate::identity`]).

use std::fmt;

use azure_core::credentials::Secret;
use azure_data_cosmos::{AccountEndpoint, AccountReference};
use thiserror::Error;

use crate::identity::{self, Credential};

/// Why a connection setting cannot be used. Never quotes the setting's value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ConnectionError {
    /// Neither the setting nor a section of that name exists.
    #[error("app setting {setting} is missing")]
    Missing {
        /// The name looked for.
        setting: String,
    },
    /// The setting exists and cannot be used.
    #[error("app setting {setting} {reason}")]
    Unusable {
        /// Setting name.
        setting: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

/// An account and the way to sign in.
#[derive(Clone)]
pub(crate) struct Connection {
    endpoint: AccountEndpoint,
    access: Access,
}

#[derive(Clone)]
enum Access {
    Key(Secret),
    Identity(Credential),
}

impl Connection {
    /// Finds and reads the setting called `name`; `lookup` reads one app setting, and `given` takes the place of a managed
    /// identity.
    pub(crate) fn find<'a>(
        lookup: impl Fn(&str) -> Option<&'a str>,
        name: &str,
        given: Option<&Credential>,
    ) -> Result<Self, ConnectionError> {
        let get = |key: &str| lookup(key).filter(|value| !value.trim().is_empty());
        for candidate in [format!("AzureWebJobs{name}"), name.to_owned()] {
            let value = get(&format!("ConnectionStrings:{candidate}")).or_else(|| get(&candidate));
            if let Some(text) = value {
                return Self::parse(&candidate, text);
            }
            if let Some(endpoint) = get(&format!("{candidate}__accountEndpoint")) {
                let access = match get(&format!("{candidate}__accountKey")) {
                    Some(key) => Access::Key(Secret::from(key.to_owned())),
                    None => identity::credential(&lookup, &candidate, given)
                        .map(Access::Identity)
                        .map_err(|reason| unusable(&candidate, reason))?,
                };
                return Self::new(&candidate, endpoint, access);
            }
        }
        Err(ConnectionError::Missing {
            setting: name.to_owned(),
        })
    }

    fn parse(setting: &str, text: &str) -> Result<Self, ConnectionError> {
        let part = |wanted: &'static str| {
            text.split(';')
                .filter_map(|part| part.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.trim())
                .filter(|value| !value.is_empty())
                .ok_or_else(|| {
                    let reason = format!(
                        "has no {wanted}; the form is AccountEndpoint=https://…;AccountKey=…;"
                    );
                    unusable(setting, reason)
                })
        };
        let key = Secret::from(part("AccountKey")?.to_owned());
        Self::new(setting, part("AccountEndpoint")?, Access::Key(key))
    }

    fn new(setting: &str, endpoint: &str, access: Access) -> Result<Self, ConnectionError> {
        let endpoint = endpoint
            .parse::<AccountEndpoint>()
            .ok()
            .filter(|e| matches!(e.url().scheme(), "http" | "https") && e.url().has_host())
            .ok_or_else(|| {
                unusable(
                    setting,
                    "has an endpoint that is not an absolute http:// or https:// URL".to_owned(),
                )
            })?;
        Ok(Self { endpoint, access })
    }

    /// Host name of the account, without port.
    pub(crate) fn host(&self) -> &str {
        self.endpoint.url().host_str().unwrap_or_default()
    }

    /// What the SDK needs to sign in.
    pub(crate) fn account(&self) -> AccountReference {
        let endpoint = self.endpoint.clone();
        match &self.access {
            Access::Key(key) => AccountReference::with_authentication_key(endpoint, key.clone()),
            Access::Identity(credential) => {
                AccountReference::with_credential(endpoint, credential.clone())
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint.url().as_str())
            .finish_non_exhaustive()
    }
}

fn unusable(setting: &str, reason: String) -> ConnectionError {
    ConnectionError::Unusable {
        setting: setting.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn find(settings: &[(&str, &'static str)]) -> Result<Connection, ConnectionError> {
        let lookup = |name: &str| {
            settings
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| *value)
        };
        Connection::find(lookup, "Db", None)
    }

    #[test]
    fn candidates_are_tried_in_the_order_of_the_real_host() {
        let all = [
            (
                "ConnectionStrings:AzureWebJobsDb",
                "AccountEndpoint=https://a;AccountKey=k==",
            ),
            ("AzureWebJobsDb", "AccountEndpoint=https://b;AccountKey=k=="),
            (
                "ConnectionStrings:Db",
                "AccountEndpoint=https://c;AccountKey=k==",
            ),
            (
                "Db",
                "accountendpoint=http://127.0.0.1:8081/ ; ACCOUNTKEY = k== ;",
            ),
        ];
        for (skip, expected) in [(0, "a"), (1, "b"), (2, "c"), (3, "127.0.0.1")] {
            assert_eq!(find(&all[skip..]).unwrap().host(), expected);
        }
        let missing = ConnectionError::Missing {
            setting: "Db".into(),
        };
        assert_eq!(find(&[]).unwrap_err(), missing);
        assert_eq!(find(&[("Db", " ")]).unwrap_err(), missing);
    }

    #[test]
    fn a_section_has_a_key_or_an_identity() {
        let endpoint = ("Db__accountEndpoint", "https://d/");
        assert_eq!(
            find(&[endpoint, ("Db__accountKey", "k")]).unwrap().host(),
            "d"
        );
        let identity = find(&[endpoint, ("Db__credential", "managedidentity")]).unwrap();
        assert!(matches!(identity.access, Access::Identity(_)));
        let error = find(&[endpoint, ("Db__credential", "x")]).unwrap_err();
        assert!(error.to_string().contains("Db__credential"), "{error}");
    }

    #[test]
    fn unusable_settings_are_named_without_showing_them() {
        for (text, expected) in [
            ("AccountKey=s3cret", "AccountEndpoint"),
            ("AccountEndpoint=https://a;AccountKey=", "AccountKey"),
            ("AccountEndpoint=s3cret;AccountKey=s3cret", "absolute"),
            ("s3cret", "AccountEndpoint"),
        ] {
            let error = find(&[("Db", text)]).unwrap_err().to_string();
            assert!(
                error.contains(expected) && !error.contains("s3cret"),
                "{error}"
            );
        }
        let connection = find(&[("Db", "AccountEndpoint=https://a;AccountKey=s3cret")]).unwrap();
        assert!(!format!("{connection:?}").contains("s3cret"));
    }
}
