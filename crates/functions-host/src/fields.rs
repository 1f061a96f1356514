//! Reading configuration objects the way .NET configuration does: names in any casing, `"true"` and `"5000"` taken for
//! what they mean, null taken for absent.

use serde_json::{Map, Value};

/// The members of one configuration object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The members of `value`, when it is an object.
    pub(crate) fn of(value: &'a Value) -> Option<Self> {
        value.as_object().map(Self)
    }

    /// The member of this name in any casing; null counts as absent.
    pub(crate) fn get(self, name: &str) -> Option<&'a Value> {
        self.0
            .iter()
            .find(|(member, _)| member.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    }

    /// The names of all members, as written.
    pub(crate) fn names(self) -> impl Iterator<Item = &'a str> {
        self.0.keys().map(String::as_str)
    }

    /// A text; numbers and booleans are taken as their text.
    pub(crate) fn text(self, name: &str) -> Result<Option<String>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::Bool(flag)) => Ok(Some(flag.to_string())),
            Some(_) => Err(format!("`{name}` must be a string")),
        }
    }

    /// A boolean, or the text of one.
    pub(crate) fn flag(self, name: &str) -> Result<Option<bool>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(_) => Err(format!("`{name}` must be true or false")),
        }
    }

    /// A whole number, or the text of one.
    pub(crate) fn integer(self, name: &str) -> Result<Option<i64>, String> {
        let number = match self.get(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        number
            .map(Some)
            .ok_or_else(|| format!("`{name}` must be a whole number"))
    }

    /// A whole number that is not negative.
    pub(crate) fn count(self, name: &str) -> Result<Option<u32>, String> {
        self.integer(name)?
            .map(|number| {
                u32::try_from(number).map_err(|_| {
                    format!("`{name}` must be between 0 and {}, not {number}", u32::MAX)
                })
            })
            .transpose()
    }

    /// An array of strings.
    pub(crate) fn texts(self, name: &str) -> Result<Option<Vec<String>>, String> {
        let wrong = || format!("`{name}` must be an array of strings");
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// A nested object.
    pub(crate) fn section(self, name: &str) -> Result<Option<Self>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => Self::of(value)
                .map(Some)
                .ok_or_else(|| format!("`{name}` must be an object")),
        }
    }
}
