//! `{expressions}`: text with holes that an invocation fills.
//!
//! Grammar and names: `Azure/azure-webjobs-sdk: src/Microsoft.Azure.WebJobs.Host/Bindings/Path` and
//! `…/Bindings/BindingDataPathHelper.cs`. `{{` and `}}` are literal braces; `{a.b}` walks into a value; `{name:format}`
//! formats a date or a GUID. Local choice: a format on anything else, and a date format outside the supported letters,
//! is refused instead of being ignored.
//!
//! A [`Template`] becomes text, a [`SqlTemplate`] becomes a query with parameters: a value is never spliced into SQL.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::binding_data::{BindingData, DataValue, SystemValue};

/// Why an expression could not be read or has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// The braces do not pair.
    #[error(
        "`{text}`: {problem} at character {position}; write `{{{{` or `}}}}` for a literal brace"
    )]
    Braces {
        /// The whole text.
        text: String,
        /// What is wrong.
        problem: &'static str,
        /// Where, counted in characters from 1.
        position: usize,
    },
    /// What stands between the braces is no expression.
    #[error("`{{{expression}}}` is not an expression: {reason}")]
    Malformed {
        /// The text between the braces.
        expression: String,
        /// Why not.
        reason: &'static str,
    },
    /// The binding data has no such name.
    #[error("`{{{expression}}}` has no value: the binding data has no `{missing}`")]
    Unknown {
        /// The text between the braces.
        expression: String,
        /// The first name on the path that was not found.
        missing: String,
    },
    /// The format is not supported for this value.
    #[error("`{{{expression}}}`: format `{format}` is not supported here")]
    Format {
        /// The text between the braces.
        expression: String,
        /// The part after the colon.
        format: String,
    },
    /// Only plain names can be parameters of a query.
    #[error(
        "`{{{expression}}}` cannot be used in sqlQuery: only a plain name such as `{{deviceId}}` becomes a query parameter"
    )]
    NotAParameter {
        /// The text between the braces.
        expression: String,
    },
}

/// A text with `{expressions}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Expression(Expression),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Expression {
    /// As written, for messages.
    text: String,
    path: Vec<String>,
    format: Option<String>,
}

impl Template {
    /// Reads the grammar; whether the names exist only an invocation can tell.
    ///
    /// # Errors
    /// Unpaired braces, empty or malformed expressions.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let braces = |problem, position: usize| ExpressionError::Braces {
            text: text.to_owned(),
            problem,
            position: position + 1,
        };
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut characters = text.chars().enumerate().peekable();
        while let Some((position, character)) = characters.next() {
            match character {
                '{' if characters.next_if(|(_, next)| *next == '{').is_some() => literal.push('{'),
                '}' if characters.next_if(|(_, next)| *next == '}').is_some() => literal.push('}'),
                '{' => {
                    let mut inner = String::new();
                    loop {
                        match characters.next() {
                            Some((_, '}')) => break,
                            Some((inside, '{')) => {
                                return Err(braces("a `{` inside an expression", inside));
                            }
                            Some((_, other)) => inner.push(other),
                            None => return Err(braces("a `{` that is never closed", position)),
                        }
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Expression(Expression::parse(&inner)?));
                }
                '}' => return Err(braces("a `}` without `{`", position)),
                other => literal.push(other),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// The text for one invocation.
    ///
    /// # Errors
    /// A name or member the binding data does not have; an unsupported format.
    pub fn resolve(&self, data: &BindingData) -> Result<String, ExpressionError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Expression(expression) => text.push_str(&expression.resolve(data)?),
            }
        }
        Ok(text)
    }

    /// The text, when it has no expressions and is therefore the same for every invocation.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(literal)] => Some(literal),
            _ => None,
        }
    }
}

/// A SQL query in which every `{name}` is the parameter `@name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlTemplate {
    text: String,
    names: Vec<String>,
}

impl SqlTemplate {
    /// Reads the query.
    ///
    /// # Errors
    /// As [`Template::parse`]; and expressions that are no plain names (`{Query.x}`, `{rand-guid}`), which the real host
    /// accepts here and then fails on in every invocation.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let template = Template::parse(text)?;
        let mut sql = String::new();
        let mut names: Vec<String> = Vec::new();
        for part in template.parts {
            match part {
                Part::Literal(literal) => sql.push_str(&literal),
                Part::Expression(expression) => {
                    let [name] = expression.path.as_slice() else {
                        return Err(ExpressionError::NotAParameter {
                            expression: expression.text,
                        });
                    };
                    if expression.format.is_some() || BuiltIn::of(name).is_some() {
                        return Err(ExpressionError::NotAParameter {
                            expression: expression.text,
                        });
                    }
                    sql.push('@');
                    sql.push_str(name);
                    if !names.contains(name) {
                        names.push(name.clone());
                    }
                }
            }
        }
        Ok(Self { text: sql, names })
    }

    /// The query with `@name` in place of each `{name}`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `@name` and value of every parameter. Route, query and scalar body values are strings; an object of the body stays one.
    ///
    /// # Errors
    /// A name the binding data does not have.
    pub fn parameters(&self, data: &BindingData) -> Result<Vec<(String, Value)>, ExpressionError> {
        self.names
            .iter()
            .map(|name| {
                let value = data.get(name).ok_or_else(|| ExpressionError::Unknown {
                    expression: name.clone(),
                    missing: name.clone(),
                })?;
                Ok((format!("@{name}"), value.to_json()))
            })
            .collect()
    }
}

/// Names that exist without any binding data; binding data of the same name comes first.
enum BuiltIn {
    RandGuid,
    DateTime,
}

impl BuiltIn {
    fn of(name: &str) -> Option<Self> {
        let starts = |with: &str| {
            name.get(..with.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(with))
        };
        if starts("rand-guid") {
            Some(Self::RandGuid)
        } else if starts("datetime") {
            Some(Self::DateTime)
        } else {
            None
        }
    }
}

impl Expression {
    fn parse(inner: &str) -> Result<Self, ExpressionError> {
        let malformed = |reason| ExpressionError::Malformed {
            expression: inner.to_owned(),
            reason,
        };
        let (path, format) = match inner.split_once(':') {
            Some((path, format)) => (path, Some(format.to_owned())),
            None => (inner, None),
        };
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let identifier = |segment: &str, dash: bool| {
            segment
                .chars()
                .all(|c| c.is_alphanumeric() || c == '_' || c == '$' || (dash && c == '-'))
        };
        if path.iter().any(String::is_empty) {
            return Err(malformed("a name is missing"));
        }
        if path[0].contains('-') && BuiltIn::of(&path[0]).is_none() {
            return Err(malformed("the first name must not contain a dash"));
        }
        if !path.iter().all(|segment| identifier(segment, true)) {
            return Err(malformed("a name holds letters, digits and underscores"));
        }
        if format.as_deref() == Some("") {
            return Err(malformed("the format after the colon is missing"));
        }
        Ok(Self {
            text: inner.to_owned(),
            path,
            format,
        })
    }

    fn resolve(&self, data: &BindingData) -> Result<String, ExpressionError> {
        let (first, rest) = match self.path.split_first() {
            Some((first, rest)) => (first, rest),
            None => return Err(self.unknown("")),
        };
        if let Some(value) = data.get(first) {
            return self.walk(&value, rest);
        }
        if rest.is_empty() {
            match BuiltIn::of(first) {
                Some(BuiltIn::RandGuid) => return self.guid(Uuid::new_v4()),
                Some(BuiltIn::DateTime) => return self.date(Timestamp::now()),
                None => {}
            }
        }
        Err(self.unknown(first))
    }

    fn walk(&self, value: &DataValue, rest: &[String]) -> Result<String, ExpressionError> {
        let Some((next, rest)) = rest.split_first() else {
            return match value {
                DataValue::System(SystemValue::Guid(guid)) => self.guid(*guid),
                DataValue::System(SystemValue::Time(time)) => self.date(*time),
                other => match &self.format {
                    Some(format) => Err(self.unsupported(format)),
                    None => Ok(other.render()),
                },
            };
        };
        let member = value.member(next).ok_or_else(|| self.unknown(next))?;
        self.walk(&member, rest)
    }

    fn guid(&self, guid: Uuid) -> Result<String, ExpressionError> {
        match self.format.as_deref() {
            None | Some("D" | "d") => Ok(guid.hyphenated().to_string()),
            Some("N" | "n") => Ok(guid.simple().to_string()),
            Some("B" | "b") => Ok(guid.braced().to_string()),
            Some("P" | "p") => Ok(format!("({})", guid.hyphenated())),
            Some(other) => Err(self.unsupported(other)),
        }
    }

    /// Dashes stand in the time, too: the usual consumer is a blob name.
    fn date(&self, time: Timestamp) -> Result<String, ExpressionError> {
        let format = self.format.as_deref().unwrap_or("yyyy-MM-ddTHH-mm-ssK");
        let pattern = strftime_pattern(format).ok_or_else(|| self.unsupported(format))?;
        Ok(time.strftime(&pattern).to_string())
    }

    fn unknown(&self, missing: &str) -> ExpressionError {
        ExpressionError::Unknown {
            expression: self.text.clone(),
            missing: missing.to_owned(),
        }
    }

    fn unsupported(&self, format: &str) -> ExpressionError {
        ExpressionError::Format {
            expression: self.text.clone(),
            format: format.to_owned(),
        }
    }
}

/// A .NET custom date format as a strftime pattern; `None` for letters outside the supported set.
fn strftime_pattern(format: &str) -> Option<String> {
    const LETTERS: [(&str, &str); 11] = [
        ("yyyy", "%Y"),
        ("yy", "%y"),
        ("MM", "%m"),
        ("dd", "%d"),
        ("HH", "%H"),
        ("mm", "%M"),
        ("ss", "%S"),
        ("fff", "%3f"),
        ("T", "T"),
        // Always UTC here, which .NET writes as Z.
        ("K", "Z"),
        ("Z", "Z"),
    ];
    let mut pattern = String::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() {
            let run = rest.len() - rest.trim_start_matches(first).len();
            let (_, letter) = LETTERS.iter().find(|(net, _)| *net == &rest[..run])?;
            pattern.push_str(letter);
            rest = &rest[run..];
        } else if first == '%' || first == '\\' || first == '\'' || first == '"' {
            return None;
        } else {
            pattern.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    Some(pattern)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn data() -> BindingData {
        let mut data = BindingData::new("Probe");
        data.set("deviceId", DataValue::Text("dev-7".into()));
        data.set(
            "place",
            DataValue::object(r#"{"City":{"name":"Turku"},"none":null,"list":[1]}"#),
        );
        data.set(
            "Query",
            DataValue::query([("User".to_owned(), "ann".to_owned())]),
        );
        data.set(
            "Headers",
            DataValue::headers([("X-Ms-Client-Principal-Id".to_owned(), "p1".to_owned())]),
        );
        data
    }

    fn resolve(text: &str) -> Result<String, ExpressionError> {
        Template::parse(text)?.resolve(&data())
    }

    #[test]
    fn fills_holes_and_keeps_the_rest() {
        for (template, expected) in [
            ("plain", "plain"),
            ("a-{deviceId}-b", "a-dev-7-b"),
            ("{DEVICEID}", "dev-7"),
            ("{{deviceId}}", "{deviceId}"),
            ("{place.city.NAME}", "Turku"),
            ("[{place}]", "[]"),
            ("[{place.none}]", "[]"),
            ("[{place.list}]", "[]"),
            ("{Query.User}", "ann"),
            ("{headers.x-ms-client-principal-id}", "p1"),
            ("{sys.methodname}", "Probe"),
        ] {
            assert_eq!(resolve(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn an_unknown_name_has_no_value() {
        for (template, missing) in [
            ("{nothing}", "nothing"),
            ("{place.street}", "street"),
            ("{Query.user}", "user"),
            ("{deviceId.x}", "x"),
        ] {
            let error = resolve(template).unwrap_err();
            assert!(
                matches!(&error, ExpressionError::Unknown { missing: m, .. } if m == missing),
                "{template}: {error}"
            );
        }
    }

    #[test]
    fn built_in_names_yield_fresh_guids_and_the_date() {
        let guid = resolve("{rand-guid}").unwrap();
        assert_ne!(guid, resolve("{rand-guid}").unwrap());
        assert!(Uuid::parse_str(&guid).is_ok());
        assert_eq!(resolve("{rand-guid:N}").unwrap().len(), 32);
        assert!(Uuid::parse_str(&resolve("{sys.randguid}").unwrap()).is_ok());
        let now = resolve("{DateTime}").unwrap();
        assert_eq!(now.len(), "2026-03-01T10-00-00Z".len(), "{now}");
        assert!(resolve("{datetime:yyyy}").unwrap().starts_with("20"));
        assert!(matches!(
            resolve("{datetime:dddd}"),
            Err(ExpressionError::Format { .. })
        ));
    }

    #[test]
    fn broken_braces_are_refused() {
        for template in ["{a", "a}", "{a{b}}", "{}", "{a.}", "{a-b}", "{a b}", "{a:}"] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }

    #[test]
    fn a_query_gets_parameters_and_never_values() {
        let sql = SqlTemplate::parse(
            "SELECT TOP 20 * FROM c WHERE c.deviceId = {deviceId} AND c.x != {deviceId}",
        )
        .unwrap();
        assert_eq!(
            sql.text(),
            "SELECT TOP 20 * FROM c WHERE c.deviceId = @deviceId AND c.x != @deviceId"
        );
        assert_eq!(
            sql.parameters(&data()).unwrap(),
            [("@deviceId".to_owned(), Value::from("dev-7"))]
        );
        assert!(SqlTemplate::parse("SELECT {Query.x}").is_err());
        assert!(SqlTemplate::parse("SELECT {rand-guid}").is_err());
        let unknown = SqlTemplate::parse("SELECT {nobody}").unwrap();
        assert!(unknown.parameters(&data()).is_err());
    }
}
