//! Binding data: the names an invocation knows, for `{expressions}` and for `Metadata`.
//!
//! An HTTP trigger contributes its body, query, route, `Query` and `Headers`; every trigger contributes `sys`. Names are
//! compared ignoring case. Source: `Azure/azure-webjobs-sdk-extensions:
//! src/WebJobs.Extensions.Http/HttpTriggerAttributeBindingProvider.cs`.

use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::json::{Kind, RawObject};

/// The names and values of one invocation.
#[derive(Debug, Clone)]
pub struct BindingData {
    entries: Vec<(String, DataValue)>,
    sys: Sys,
}

/// The `sys` object: who runs, when, and a GUID.
#[derive(Debug, Clone)]
struct Sys {
    method_name: String,
    utc_now: Timestamp,
    rand_guid: Uuid,
}

/// One value of the binding data.
#[derive(Debug, Clone)]
pub enum DataValue {
    /// Text: route values, query values, scalar body members.
    Text(String),
    /// A JSON value below a body object, as text.
    Json(Box<RawValue>),
    /// The query: keys are case-sensitive.
    Query(Vec<(String, String)>),
    /// The headers: keys ignore case.
    Headers(Vec<(String, String)>),
    /// A member of `sys`.
    System(SystemValue),
    /// Present, and null: an optional route parameter that was not given.
    Null,
}

/// A typed member of `sys`.
#[derive(Debug, Clone)]
pub enum SystemValue {
    /// The `sys` object itself.
    All {
        /// `MethodName`
        method_name: String,
        /// `UtcNow`
        utc_now: Timestamp,
        /// `RandGuid`
        rand_guid: Uuid,
    },
    /// `UtcNow`
    Time(Timestamp),
    /// `RandGuid`
    Guid(Uuid),
}

impl BindingData {
    /// Binding data of an invocation of `function` with nothing but `sys`.
    #[must_use]
    pub fn new(function: &str) -> Self {
        Self {
            entries: Vec::new(),
            sys: Sys {
                method_name: function.to_owned(),
                utc_now: Timestamp::now(),
                rand_guid: Uuid::new_v4(),
            },
        }
    }

    /// Adds a value; one of the same name, in any casing, is replaced in its place.
    pub fn set(&mut self, name: &str, value: DataValue) {
        match self.position(name) {
            Some(position) => self.entries[position].1 = value,
            None => self.entries.push((name.to_owned(), value)),
        }
    }

    /// Adds a value unless the name is taken.
    pub fn set_if_absent(&mut self, name: &str, value: DataValue) {
        if self.position(name).is_none() {
            self.entries.push((name.to_owned(), value));
        }
    }

    /// The value of this name, in any casing. `sys` is found unless user data has that name; then it is `$sys`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<DataValue> {
        if let Some(position) = self.position(name) {
            return Some(self.entries[position].1.clone());
        }
        name.eq_ignore_ascii_case(self.sys_name()).then(|| {
            DataValue::System(SystemValue::All {
                method_name: self.sys.method_name.clone(),
                utc_now: self.sys.utc_now,
                rand_guid: self.sys.rand_guid,
            })
        })
    }

    /// The value of this name as text; containers and null are the empty text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.render())
    }

    /// All values except `sys`, in the order they were added.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &DataValue)> {
        self.entries
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }

    /// `sys`, or `$sys` when the user's data has a `sys` of its own.
    pub(crate) fn sys_name(&self) -> &'static str {
        if self.position("sys").is_some() {
            "$sys"
        } else {
            "sys"
        }
    }

    /// The `sys` object as it stands in `Metadata`.
    pub(crate) fn sys_json(&self) -> Value {
        serde_json::json!({
            "MethodName": self.sys.method_name,
            "UtcNow": self.sys.utc_now.to_string(),
            "RandGuid": self.sys.rand_guid,
        })
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.entries
            .iter()
            .position(|(entry, _)| entry.eq_ignore_ascii_case(name))
    }
}

impl DataValue {
    /// A JSON object given as *valid* JSON text; anything else becomes plain text.
    #[must_use]
    pub fn object(json: &str) -> Self {
        match RawValue::from_string(json.to_owned()) {
            Ok(raw) => Self::Json(raw),
            Err(_) => Self::Text(json.to_owned()),
        }
    }

    /// The `Query` dictionary.
    #[must_use]
    pub fn query(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::Query(pairs.into_iter().collect())
    }

    /// The `Headers` dictionary.
    #[must_use]
    pub fn headers(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::Headers(pairs.into_iter().collect())
    }

    /// How an expression shows this value. A container and null show as nothing.
    #[must_use]
    pub fn render(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Json(raw) => scalar_text(raw).unwrap_or_default(),
            Self::System(SystemValue::Time(time)) => time.to_string(),
            Self::System(SystemValue::Guid(guid)) => guid.to_string(),
            Self::Query(_)
            | Self::Headers(_)
            | Self::System(SystemValue::All { .. })
            | Self::Null => String::new(),
        }
    }

    /// The value as a JSON value, for query parameters.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => Value::from(text.as_str()),
            Self::Json(raw) => serde_json::from_str(raw.get()).unwrap_or(Value::Null),
            Self::Query(pairs) | Self::Headers(pairs) => pairs
                .iter()
                .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Self::System(SystemValue::All {
                method_name,
                utc_now,
                rand_guid,
            }) => serde_json::json!({
                "MethodName": method_name, "UtcNow": utc_now.to_string(), "RandGuid": rand_guid,
            }),
            Self::System(SystemValue::Time(time)) => Value::from(time.to_string()),
            Self::System(SystemValue::Guid(guid)) => Value::from(guid.to_string()),
            Self::Null => Value::Null,
        }
    }

    /// One step into a container: `Query` by exact name, everything else ignoring case.
    pub(crate) fn member(&self, name: &str) -> Option<Self> {
        let find = |pairs: &[(String, String)], same: fn(&str, &str) -> bool| {
            pairs
                .iter()
                .find(|(key, _)| same(key, name))
                .map(|(_, value)| Self::Text(value.clone()))
        };
        match self {
            Self::Query(pairs) => find(pairs, |key, name| key == name),
            Self::Headers(pairs) => find(pairs, str::eq_ignore_ascii_case),
            Self::Json(raw) => {
                let object = RawObject::parse(raw.get()).ok()?;
                let value = object.get_ignoring_case(name)?;
                Some(match Kind::of(value) {
                    Kind::Null => Self::Null,
                    _ => Self::Json(value.to_owned()),
                })
            }
            Self::System(SystemValue::All {
                method_name,
                utc_now,
                rand_guid,
            }) => match name.to_ascii_lowercase().as_str() {
                "methodname" => Some(Self::Text(method_name.clone())),
                "utcnow" => Some(Self::System(SystemValue::Time(*utc_now))),
                "randguid" => Some(Self::System(SystemValue::Guid(*rand_guid))),
                _ => None,
            },
            Self::Text(_) | Self::System(_) | Self::Null => None,
        }
    }
}

/// The .NET text of a JSON scalar: strings without quotes, `True`/`False`, numbers as they stand; `None` for containers and null.
pub(crate) fn scalar_text(raw: &RawValue) -> Option<String> {
    match Kind::of(raw) {
        Kind::String => crate::json::string(raw),
        Kind::Number => Some(raw.get().to_owned()),
        Kind::Bool => Some(if raw.get() == "true" { "True" } else { "False" }.to_owned()),
        Kind::Object | Kind::Array | Kind::Null => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_ignore_case_and_later_values_replace_earlier_ones() {
        let mut data = BindingData::new("F");
        data.set("Id", DataValue::Text("1".into()));
        data.set("id", DataValue::Text("2".into()));
        data.set_if_absent("ID", DataValue::Text("3".into()));
        assert_eq!(data.text("iD").as_deref(), Some("2"));
        assert_eq!(data.entries().count(), 1);
    }

    #[test]
    fn user_data_named_sys_moves_the_system_object() {
        let mut data = BindingData::new("F");
        assert_eq!(data.sys_name(), "sys");
        data.set("Sys", DataValue::Text("mine".into()));
        assert_eq!(data.sys_name(), "$sys");
        assert_eq!(data.text("sys").as_deref(), Some("mine"));
        assert!(matches!(
            data.get("$sys"),
            Some(DataValue::System(SystemValue::All { .. }))
        ));
    }
}
