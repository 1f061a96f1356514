//! App settings: one lookup over what the caller set, the environment and `local.settings.json`.
//!
//! Precedence: explicit settings of the builder, then values the host itself provides (as `func start` does), then
//! non-empty environment variables, then `Values` of `local.settings.json`. Names ignore case and `:` equals `__`, as in
//! .NET configuration. Source: `Azure/azure-functions-core-tools: src/Cli/func/Common/AppSettingsFile.cs`,
//! `…/Actions/HostActions/StartHostAction.cs`.
//!
//! Nothing here touches the process environment: it is read once and handed to the child as a copy, so that several
//! hosts with different settings live in one process.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

/// Name of the settings file beside host.json.
pub const LOCAL_SETTINGS_FILE: &str = "local.settings.json";

/// Why `local.settings.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file exists and cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not a JSON object.
    #[error("{path} is not a JSON object: {reason}")]
    Syntax {
        /// The file.
        path: String,
        /// Where and what, without values.
        reason: String,
    },
    /// `IsEncrypted` is missing or true.
    #[error(
        "{path}: encrypted settings are not supported; set `\"IsEncrypted\": false` (a missing `IsEncrypted` means true)"
    )]
    Encrypted {
        /// The file.
        path: String,
    },
    /// A member has the wrong shape.
    #[error("{path}: `{member}` {reason}")]
    Member {
        /// The file.
        path: String,
        /// The member, e.g. `Values.REGION`.
        member: String,
        /// What it must be.
        reason: &'static str,
    },
}

/// A `%SETTING%` that cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PercentError {
    /// No such setting.
    #[error("`%{0}%` has no value: set `{0}` in the environment or in {LOCAL_SETTINGS_FILE}")]
    Unknown(String),
    /// A `%` without its partner.
    #[error("`{0}` has an unpaired `%`")]
    Unpaired(String),
}

/// The settings of one host. `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Settings {
    /// Key: [`normalised`] name.
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone)]
struct Entry {
    /// The name as first written: the name of the child's environment variable.
    name: String,
    value: String,
    origin: Origin,
}

/// Where a setting came from; a later variant wins over an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// `local.settings.json`
    File,
    /// The environment of this process.
    Environment,
    /// Provided by the host.
    Host,
    /// Given to the builder.
    Explicit,
}

impl Settings {
    /// The value of a setting; `None` when it does not exist. An empty value is a value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries
            .get(&normalised(name))
            .map(|entry| entry.value.as_str())
    }

    /// Adds a setting unless one of a stronger origin exists. Answers whether it took effect.
    pub fn set(&mut self, origin: Origin, name: &str, value: &str) -> bool {
        let key = normalised(name);
        if let Some(existing) = self.entries.get(&key)
            && existing.origin > origin
            // An environment variable that is set and empty does not hide a value.
            && !(existing.origin == Origin::Environment && existing.value.is_empty())
        {
            return false;
        }
        self.entries.insert(
            key,
            Entry {
                name: name.to_owned(),
                value: value.to_owned(),
                origin,
            },
        );
        true
    }

    /// Every name and value, as the child's environment.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .values()
            .map(|entry| (entry.name.as_str(), entry.value.as_str()))
    }

    /// Replaces every `%NAME%` in `text`.
    ///
    /// # Errors
    /// An unpaired `%` or a name without a value.
    pub fn resolve(&self, text: &str) -> Result<String, PercentError> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            let (name, after) = after
                .split_once('%')
                .ok_or_else(|| PercentError::Unpaired(text.to_owned()))?;
            let value = self
                .get(name)
                .ok_or_else(|| PercentError::Unknown(name.to_owned()))?;
            out.push_str(before);
            out.push_str(value);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Whether a setting says yes: `true` in any casing, or `1`.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// Adds the environment of this process. Variables that are not Unicode cannot be settings; the child inherits them as they are.
    pub fn add_process_environment(&mut self) {
        for (name, value) in std::env::vars_os() {
            if let (Some(name), Some(value)) = (name.to_str(), value.to_str()) {
                self.set(Origin::Environment, name, value);
            }
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_set()
            .entries(self.entries.values().map(|entry| &entry.name))
            .finish()
    }
}

fn normalised(name: &str) -> String {
    name.replace("__", ":").to_ascii_lowercase()
}

/// What `local.settings.json` says.
#[derive(Default)]
pub struct LocalSettings {
    /// `Values` and `ConnectionStrings`, in order; the latter as `ConnectionStrings:<name>`.
    pub values: Vec<(String, String)>,
    /// Names in `Values` whose value is null; they are skipped.
    pub nulls: Vec<String>,
    /// `Host.LocalHttpPort`
    pub port: Option<u16>,
    /// `Host.CORS`, split.
    pub cors: Vec<String>,
    /// `Host.CORSCredentials`
    pub cors_credentials: bool,
}

impl LocalSettings {
    /// Reads the file of a script root; a missing file is an empty one.
    ///
    /// # Errors
    /// The file cannot be read, is not JSON, is encrypted, or has members of the wrong shape.
    pub fn read(script_root: &Path) -> Result<Self, SettingsError> {
        let path = script_root.join(LOCAL_SETTINGS_FILE);
        let shown = path.display().to_string();
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&shown, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SettingsError::Read {
                path: shown,
                source,
            }),
        }
    }

    /// Reads the text of the file; `path` is for messages.
    ///
    /// # Errors
    /// As [`LocalSettings::read`].
    pub fn parse(path: &str, text: &str) -> Result<Self, SettingsError> {
        let member = |member: String, reason| SettingsError::Member {
            path: path.to_owned(),
            member,
            reason,
        };
        let root: Map<String, Value> = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| {
                SettingsError::Syntax {
                    path: path.to_owned(),
                    // serde_json's own text may quote the offending value.
                    reason: format!("line {}, column {}", error.line(), error.column()),
                }
            })?;
        let root = Fields(root);
        if root.get("IsEncrypted").and_then(Value::as_bool) != Some(false) {
            return Err(SettingsError::Encrypted {
                path: path.to_owned(),
            });
        }
        let mut settings = Self::default();

        for (name, value) in root.section("Values", path)?.0 {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(member(
                    format!("Values.{name}"),
                    "is no name for an environment variable",
                ));
            }
            match value {
                Value::String(text) => settings.values.push((name, text)),
                Value::Number(number) => settings.values.push((name, number.to_string())),
                Value::Bool(flag) => {
                    let text = if flag { "True" } else { "False" };
                    settings.values.push((name, text.to_owned()));
                }
                Value::Null => settings.nulls.push(name),
                Value::Array(_) | Value::Object(_) => {
                    return Err(member(
                        format!("Values.{name}"),
                        "must be a string, a number or a boolean; write hierarchies as `A__B`",
                    ));
                }
            }
        }
        for (name, value) in root.section("ConnectionStrings", path)?.0 {
            let text = match &value {
                Value::String(text) => Some(text.as_str()),
                Value::Object(object) => object.get("ConnectionString").and_then(Value::as_str),
                _ => None,
            };
            let text = text.ok_or_else(|| {
                member(
                    format!("ConnectionStrings.{name}"),
                    "must be a string or an object with `ConnectionString`",
                )
            })?;
            settings
                .values
                .push((format!("ConnectionStrings:{name}"), text.to_owned()));
        }

        let host = root.section("Host", path)?;
        if let Some(port) = host.get("LocalHttpPort") {
            let number = match port {
                Value::Number(number) => number.as_u64(),
                Value::String(text) => text.parse().ok(),
                _ => None,
            };
            settings.port = Some(
                number
                    .and_then(|number| u16::try_from(number).ok())
                    .ok_or_else(|| {
                        member(
                            "Host.LocalHttpPort".to_owned(),
                            "must be a port number, 0 to 65535",
                        )
                    })?,
            );
        }
        if let Some(cors) = host.get("CORS") {
            let list = cors.as_str().ok_or_else(|| {
                member(
                    "Host.CORS".to_owned(),
                    "must be a string of origins, separated by commas",
                )
            })?;
            settings.cors = list
                .split(',')
                .map(str::trim)
                .filter(|origin| !origin.is_empty())
                .map(str::to_owned)
                .collect();
        }
        settings.cors_credentials = match host.get("CORSCredentials") {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => true,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => false,
            Some(_) => {
                return Err(member(
                    "Host.CORSCredentials".to_owned(),
                    "must be true or false",
                ));
            }
        };
        Ok(settings)
    }
}

/// Members found in any casing.
struct Fields(Map<String, Value>);

impl Fields {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(member, _)| member.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    }

    fn section(&self, name: &str, path: &str) -> Result<Self, SettingsError> {
        match self.get(name) {
            None => Ok(Self(Map::new())),
            Some(Value::Object(object)) => Ok(Self(object.clone())),
            Some(_) => Err(SettingsError::Member {
                path: path.to_owned(),
                member: name.to_owned(),
                reason: "must be an object",
            }),
        }
    }
}

/// Settings as a host sees them: sources in order of strength, each skip of a file value reported.
///
/// Answers the settings and the names in `Values` that an environment variable or an explicit setting hides.
#[must_use]
pub fn merge(
    file: &LocalSettings,
    environment: bool,
    host: &[(String, String)],
    explicit: &[(String, String)],
) -> (Settings, Vec<String>) {
    let mut settings = Settings::default();
    for (name, value) in explicit {
        settings.set(Origin::Explicit, name, value);
    }
    for (name, value) in host {
        settings.set(Origin::Host, name, value);
    }
    if environment {
        settings.add_process_environment();
    }
    let skipped = file
        .values
        .iter()
        .filter(|(name, value)| !settings.set(Origin::File, name, value))
        .map(|(name, _)| name.clone())
        .collect();
    (settings, skipped)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<LocalSettings, SettingsError> {
        LocalSettings::parse("local.settings.json", text)
    }

    #[test]
    fn names_ignore_case_and_colon_equals_two_underscores() {
        let mut settings = Settings::default();
        settings.set(Origin::File, "CosmosDB:accountEndpoint", "x");
        assert_eq!(settings.get("cosmosdb__ACCOUNTENDPOINT"), Some("x"));
    }

    #[test]
    fn explicit_beats_host_beats_environment_beats_file() {
        let mut settings = Settings::default();
        assert!(settings.set(Origin::File, "A", "file"));
        assert!(settings.set(Origin::Environment, "a", "environment"));
        assert!(!settings.set(Origin::File, "A", "file again"));
        assert!(settings.set(Origin::Explicit, "A", "explicit"));
        assert!(!settings.set(Origin::Host, "A", "host"));
        assert_eq!(settings.get("A"), Some("explicit"));
    }

    #[test]
    fn an_empty_environment_variable_does_not_hide_a_value() {
        let mut settings = Settings::default();
        settings.set(Origin::Environment, "A", "");
        assert!(settings.set(Origin::File, "A", "file"));
        assert_eq!(settings.get("A"), Some("file"));
    }

    #[test]
    fn hidden_values_are_reported() {
        let file = parse(r#"{"IsEncrypted":false,"Values":{"REGION":"a","OTHER":"b"}}"#).unwrap();
        let explicit = [("REGION".to_owned(), "West US".to_owned())];
        let (settings, skipped) = merge(&file, false, &[], &explicit);
        assert_eq!(settings.get("region"), Some("West US"));
        assert_eq!(settings.get("other"), Some("b"));
        assert_eq!(skipped, ["REGION"]);
    }

    #[test]
    fn percent_names_are_replaced_or_named() {
        let mut settings = Settings::default();
        settings.set(Origin::File, "REGION", "West US");
        assert_eq!(
            settings.resolve("N-%region%-%REGION%").unwrap(),
            "N-West US-West US"
        );
        assert_eq!(
            settings.resolve("%NOPE%"),
            Err(PercentError::Unknown("NOPE".into()))
        );
        assert!(matches!(
            settings.resolve("50%"),
            Err(PercentError::Unpaired(_))
        ));
    }

    #[test]
    fn reads_every_section() {
        let settings = parse(
            r#"{"isEncrypted":false,
                "Values":{"A":"x","N":5,"B":true,"Empty":"","Gone":null},
                "ConnectionStrings":{"One":"1","Two":{"ConnectionString":"2","ProviderName":"p"}},
                "Host":{"LocalHttpPort":7075,"CORS":"http://a,http://b","CORSCredentials":true}}"#,
        )
        .unwrap();
        let expected = [
            ("A", "x"),
            ("B", "True"),
            ("ConnectionStrings:One", "1"),
            ("ConnectionStrings:Two", "2"),
            ("Empty", ""),
            ("N", "5"),
        ];
        // serde_json keeps or sorts members, as its features say; the order means nothing here.
        let mut values: Vec<_> = settings
            .values
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        values.sort_unstable();
        assert_eq!(values, expected);
        assert_eq!(settings.nulls, ["Gone"]);
        assert_eq!(settings.port, Some(7075));
        assert_eq!(settings.cors, ["http://a", "http://b"]);
        assert!(settings.cors_credentials);
    }

    #[test]
    fn encrypted_is_refused_with_the_remedy() {
        for text in [r#"{"Values":{}}"#, r#"{"IsEncrypted":true}"#] {
            let message = parse(text).err().unwrap().to_string();
            assert!(message.contains("\"IsEncrypted\": false"), "{message}");
        }
    }

    #[test]
    fn a_nested_value_is_refused_by_name() {
        let error = parse(r#"{"IsEncrypted":false,"Values":{"A":{"B":"c"}}}"#)
            .err()
            .unwrap();
        assert!(error.to_string().contains("Values.A"), "{error}");
    }

    #[test]
    fn debug_shows_no_values() {
        let mut settings = Settings::default();
        settings.set(Origin::File, "Key", "AccountKey=topsecret");
        let shown = format!("{settings:?}");
        assert!(
            shown.contains("Key") && !shown.contains("topsecret"),
            "{shown}"
        );
    }
}
