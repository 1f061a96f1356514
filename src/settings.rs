//! App settings, read once at the start into one typed struct.
//!
//! | setting | meaning | default |
//! | --- | --- | --- |
//! | `FUNCTIONS_CUSTOMHANDLER_PORT` | port to listen on, set by the Functions host | required |
//! | `REGION` | name of this region | first of `PreferredLocations` |
//! | `PreferredLocations` | Azure regions, nearest first, comma-separated | `REGION` alone |
//! | `CosmosDBConnection` | connection string of the account | none: `changes` and `health` answer 503 |
//! | `CosmosDBConnection__accountEndpoint` | instead: URL of the account, used with the managed identity | |
//! | `CosmosDBConnection__clientId` | client id of a user-assigned identity | the system-assigned identity |
//! | `NOTIFICATION_SCOPE` | `all`, or `origin`: push only events born in this region | `all` |
//! | `MATERIALIZED_ORIGINS` | regions whose events this region materializes, comma-separated | `REGION` |
//! | `LOG_FORMAT` | `compact` or `json` | `compact` |
//! | `RUST_LOG` | what is logged, as `tracing-subscriber` filters | `info` |

use std::{env::VarError, fmt};

use thiserror::Error;

use crate::cosmos::{Connection, ConnectionError};

/// Everything that the environment says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The region this handler runs in.
    pub region: RegionName,
    /// Azure regions, nearest first; never empty.
    pub preferred_locations: Vec<RegionName>,
    /// How to reach Cosmos DB, if it is configured.
    pub cosmos: Option<Connection>,
    /// Which events are pushed to the region's browsers.
    pub notification_scope: NotificationScope,
    /// The regions whose events are materialized here; never empty.
    pub materialized_origins: Vec<RegionName>,
}

/// The name of an Azure region, such as `West US`.
///
/// Azure writes the same region in several ways (`West US`, `westus`); names that differ in nothing but case and spaces
/// are equal.
#[derive(Debug, Clone)]
pub struct RegionName(String);

impl RegionName {
    /// Takes a name as it is written.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` is another way to write this region.
    pub fn is(&self, name: &str) -> bool {
        // The exact spelling is what practically every comparison meets.
        self.0 == name || letters(&self.0).eq(letters(name))
    }
}

fn letters(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars()
        .filter(|c| *c != ' ')
        .map(|c| c.to_ascii_lowercase())
}

impl PartialEq for RegionName {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for RegionName {}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which events a region pushes to its browsers: `NOTIFICATION_SCOPE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationScope {
    /// Every event of every region; for a SignalR Service per region.
    All,
    /// Only events born in this region; for one SignalR Service that all regions share.
    Origin,
}

/// A setting that cannot be used. The texts quote no value of a connection.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// A required setting is absent or empty.
    #[error("the setting {name} is missing: {hint}")]
    Missing {
        /// The setting.
        name: &'static str,
        /// What to set it to.
        hint: &'static str,
    },
    /// A setting has a value that it cannot have.
    #[error("the setting {name} cannot be `{value}`: {expected}")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
    /// A setting is not text.
    #[error("the setting {0} is not valid UTF-8")]
    NotUnicode(&'static str),
    /// The Cosmos DB connection cannot be used.
    #[error("the setting {name} cannot be used: {source}")]
    Connection {
        /// The setting.
        name: &'static str,
        /// What is wrong with it.
        source: ConnectionError,
    },
}

/// Settings of the listener alone, which no test of a function needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Whether a Functions host started this process.
    pub under_host: bool,
}

impl Listen {
    /// Reads what the Functions host sets for its handler.
    ///
    /// # Errors
    /// When there is no usable port.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::read(environment)
    }

    fn read(
        get: impl Fn(&'static str) -> Result<Option<String>, SettingsError>,
    ) -> Result<Self, SettingsError> {
        let name = "FUNCTIONS_CUSTOMHANDLER_PORT";
        let text = get(name)?.ok_or(SettingsError::Missing {
            name,
            hint: "the Functions host sets it; to run the handler alone, set it to a free port",
        })?;
        let port = text.parse().map_err(|_| SettingsError::Invalid {
            name,
            value: text,
            expected: "it is a TCP port",
        })?;
        Ok(Self {
            port,
            under_host: get("FUNCTIONS_CUSTOMHANDLER_WORKER_ID")?.is_some(),
        })
    }
}

impl Settings {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::read(environment)
    }

    /// Settings of a region that prefers itself, without Cosmos DB: the defaults of everything else.
    pub fn of_region(region: &str) -> Self {
        let region = RegionName::new(region);
        Self {
            preferred_locations: vec![region.clone()],
            cosmos: None,
            notification_scope: NotificationScope::All,
            materialized_origins: vec![region.clone()],
            region,
        }
    }

    fn read(
        get: impl Fn(&'static str) -> Result<Option<String>, SettingsError>,
    ) -> Result<Self, SettingsError> {
        let mut preferred_locations = regions(get("PreferredLocations")?);
        let region = match get("REGION")? {
            Some(name) => RegionName::new(name.trim()),
            None => preferred_locations.first().cloned().ok_or(SettingsError::Missing {
                name: "REGION",
                hint: "name the Azure region this app runs in, such as `West US`, or give PreferredLocations",
            })?,
        };
        if preferred_locations.is_empty() {
            preferred_locations.push(region.clone());
        }
        let mut materialized_origins = regions(get("MATERIALIZED_ORIGINS")?);
        if materialized_origins.is_empty() {
            materialized_origins.push(region.clone());
        }
        let notification_scope = match get("NOTIFICATION_SCOPE")?.as_deref() {
            None | Some("all") => NotificationScope::All,
            Some("origin") => NotificationScope::Origin,
            Some(other) => {
                return Err(SettingsError::Invalid {
                    name: "NOTIFICATION_SCOPE",
                    value: other.to_owned(),
                    expected: "it is `all` or `origin`",
                });
            }
        };
        Ok(Self {
            region,
            preferred_locations,
            cosmos: connection(get)?,
            notification_scope,
            materialized_origins,
        })
    }
}

fn connection(
    get: impl Fn(&'static str) -> Result<Option<String>, SettingsError>,
) -> Result<Option<Connection>, SettingsError> {
    const CONNECTION_STRING: &str = "CosmosDBConnection";
    const ACCOUNT_ENDPOINT: &str = "CosmosDBConnection__accountEndpoint";
    if let Some(text) = get(CONNECTION_STRING)? {
        let connection = text.parse().map_err(|source| SettingsError::Connection {
            name: CONNECTION_STRING,
            source,
        })?;
        return Ok(Some(connection));
    }
    let Some(endpoint) = get(ACCOUNT_ENDPOINT)? else {
        return Ok(None);
    };
    Connection::with_identity(&endpoint, get("CosmosDBConnection__clientId")?)
        .map(Some)
        .map_err(|source| SettingsError::Connection {
            name: ACCOUNT_ENDPOINT,
            source,
        })
}

fn regions(list: Option<String>) -> Vec<RegionName> {
    list.iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(RegionName::new)
        .collect()
}

/// A variable of the environment; an empty one is absent, as in Azure.
fn environment(name: &'static str) -> Result<Option<String>, SettingsError> {
    match std::env::var(name) {
        Ok(value) => Ok((!value.trim().is_empty()).then_some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(SettingsError::NotUnicode(name)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn from(values: &'static [(&'static str, &'static str)]) -> Result<Settings, SettingsError> {
        Settings::read(|name| {
            Ok(values
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned()))
        })
    }

    #[test]
    fn region_and_preferred_locations_stand_in_for_each_other() {
        let settings = from(&[("PreferredLocations", "North Europe, West US,,")]).unwrap();
        assert_eq!(settings.region, RegionName::new("North Europe"));
        assert_eq!(settings.preferred_locations.len(), 2);
        let settings = from(&[("REGION", "West US")]).unwrap();
        assert_eq!(settings.preferred_locations, [RegionName::new("West US")]);
        assert_eq!(settings.materialized_origins, [RegionName::new("West US")]);
        assert_eq!(settings.notification_scope, NotificationScope::All);
        assert!(settings.cosmos.is_none());
        let error = from(&[]).unwrap_err();
        assert!(error.to_string().contains("REGION"), "{error}");
    }

    #[test]
    fn a_region_has_many_spellings() {
        assert!(RegionName::new("West US").is("westus"));
        assert!(RegionName::new("westus").is("West US"));
        assert!(!RegionName::new("West US").is("West US 2"));
    }

    #[test]
    fn errors_name_the_setting() {
        let error = from(&[("REGION", "West US"), ("NOTIFICATION_SCOPE", "some")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the setting NOTIFICATION_SCOPE cannot be `some`: it is `all` or `origin`"
        );
        let error = from(&[
            ("REGION", "x"),
            ("CosmosDBConnection", "AccountKey=c2VjcmV0;"),
        ])
        .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the setting CosmosDBConnection cannot be used"),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn both_kinds_of_connection() {
        let key = from(&[
            ("REGION", "x"),
            (
                "CosmosDBConnection",
                "AccountEndpoint=http://127.0.0.1:8090/;AccountKey=c2VjcmV0;",
            ),
        ]);
        let text = format!("{:?}", key.unwrap().cosmos.unwrap());
        assert!(
            text.contains("127.0.0.1") && !text.contains("c2VjcmV0"),
            "{text}"
        );
        let identity = from(&[
            ("REGION", "x"),
            (
                "CosmosDBConnection__accountEndpoint",
                "https://a.documents.azure.com/",
            ),
            (
                "CosmosDBConnection__clientId",
                "11111111-2222-3333-4444-555555555555",
            ),
        ]);
        assert!(identity.unwrap().cosmos.is_some());
    }

    #[test]
    fn the_port_is_the_hosts() {
        let listen = |port: Option<&str>| {
            let port = port.map(str::to_owned);
            Listen::read(move |name| {
                Ok((name == "FUNCTIONS_CUSTOMHANDLER_PORT")
                    .then(|| port.clone())
                    .flatten())
            })
        };
        assert_eq!(
            listen(Some("7001")).unwrap(),
            Listen {
                port: 7001,
                under_host: false
            }
        );
        assert!(matches!(listen(None), Err(SettingsError::Missing { .. })));
        assert!(matches!(
            listen(Some("70000")),
            Err(SettingsError::Invalid { .. })
        ));
    }
}
