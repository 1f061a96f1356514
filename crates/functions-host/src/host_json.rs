//! `host.json`: what holds for all functions of a script root.
//!
//! Keys ignore case, comments are tolerated, any value can be overridden by a setting
//! `AzureFunctionsJobHost__<path with __>`. Unknown keys are ignored as by the real host; known ones that this host does
//! not implement are refused by name when they ask for something. Sources: Microsoft Learn, "host.json reference";
//! `Azure/azure-functions-host: src/WebJobs.Script/Workers/Http/Configuration/HttpWorkerOptionsSetup.cs`.
//! `logging` is left to the application's `tracing` subscriber.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::binding::Generation;
use crate::fields::Fields;
use crate::retry::RetryPolicy;
use crate::settings::Settings;
use crate::timespan;

/// File name.
pub const HOST_JSON: &str = "host.json";

/// `functionTimeout` when not given, outside the Consumption plan.
pub const DEFAULT_FUNCTION_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// `customHandler.initializationTimeout` when not given.
pub const DEFAULT_INITIALIZATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Settings that override a value of host.json begin with this.
const OVERRIDE_PREFIX: &str = "AzureFunctionsJobHost__";

/// Why host.json cannot be used: the host does not start.
#[derive(Debug, thiserror::Error)]
pub enum HostJsonError {
    /// The file is missing or cannot be read.
    #[error(
        "cannot read {path}: {source}; a script root holds host.json and one folder per function"
    )]
    Read {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not a JSON object.
    #[error("host.json is not a JSON object: {0}")]
    Syntax(String),
    /// A value is missing, of the wrong shape, or not supported.
    #[error("host.json: {0}")]
    Value(String),
}

/// A host.json that has been read and checked.
#[derive(Debug, Clone)]
pub struct HostJson {
    /// `extensionBundle`: id and version range.
    pub bundle: Option<Bundle>,
    /// `extensions.http.routePrefix`, default `api`.
    pub route_prefix: String,
    /// `extensions.http.maxOutstandingRequests`; beyond it 429. `None` = no limit.
    pub max_outstanding_requests: Option<usize>,
    /// `extensions.http.maxConcurrentRequests`; beyond it requests queue. `None` = no limit.
    pub max_concurrent_requests: Option<usize>,
    /// `extensions.http.customHeaders`: added to every response.
    pub custom_headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// `functionTimeout`; `None` = unlimited.
    pub function_timeout: Option<Duration>,
    /// `retry`: the policy of functions that have none of their own.
    pub retry: Option<RetryPolicy>,
    /// `functions`: the only ones to load.
    pub functions: Option<Vec<String>>,
    /// `customHandler`
    pub custom_handler: CustomHandler,
    /// What the reader should know and the host can live with.
    pub warnings: Vec<String>,
    /// The whole document, after overrides.
    pub document: Value,
}

/// `extensionBundle`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// `id`
    pub id: String,
    /// `version`, a NuGet range.
    pub version: String,
    /// What the range means for property names.
    pub generation: Generation,
}

/// `customHandler`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomHandler {
    /// `description.defaultExecutablePath`, as written.
    pub executable: String,
    /// `description.arguments`
    pub arguments: Vec<String>,
    /// `description.defaultWorkerPath`
    pub worker_path: Option<String>,
    /// `description.workerArguments`
    pub worker_arguments: Vec<String>,
    /// `description.workingDirectory`, default the script root. Relative to the script root.
    pub working_directory: Option<PathBuf>,
    /// `description.workerDirectory`, default the script root: where a relative executable is looked for.
    pub worker_directory: Option<PathBuf>,
    /// `description.useStdErrorStreamForErrorsOnly`
    pub stderr_is_errors_only: bool,
    /// `initializationTimeout`
    pub initialization_timeout: Duration,
    /// `port`; `None` = a free one.
    pub port: Option<u16>,
}

impl HostJson {
    /// Reads `host.json` of a script root and applies overrides from `settings`.
    ///
    /// # Errors
    /// Missing or malformed file, wrong version, no custom handler, wrong or unsupported values.
    pub fn read(script_root: &Path, settings: &Settings) -> Result<Self, HostJsonError> {
        let path = script_root.join(HOST_JSON);
        let text = std::fs::read_to_string(&path).map_err(|source| HostJsonError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(&text, settings)
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// As [`HostJson::read`].
    pub fn parse(text: &str, settings: &Settings) -> Result<Self, HostJsonError> {
        let mut document: Value =
            serde_json::from_str(&without_comments(text.trim_start_matches('\u{feff}')))
                .map_err(|error| HostJsonError::Syntax(error.to_string()))?;
        if !document.is_object() {
            return Err(HostJsonError::Syntax("it holds another value".into()));
        }
        apply_overrides(&mut document, settings);
        Self::from_document(document).map_err(HostJsonError::Value)
    }

    fn from_document(document: Value) -> Result<Self, String> {
        let root = Fields::of(&document).ok_or("not an object")?;
        match root.text("version")?.as_deref() {
            Some("2.0") => {}
            Some(other) => return Err(format!("`version` must be \"2.0\", not {other:?}")),
            None => return Err("`version` is missing: write `\"version\": \"2.0\"`".into()),
        }
        let mut warnings = Vec::new();
        if root.get("httpWorker").is_some() {
            warnings.push("`httpWorker` is not supported and ignored; use `customHandler`".into());
        }
        let bundle = root
            .section("extensionBundle")?
            .map(Bundle::parse)
            .transpose()?;
        let extensions = root.section("extensions")?;
        let http = match extensions {
            Some(extensions) => extensions.section("http")?,
            None => None,
        };
        let limit = |name: &str| -> Result<Option<usize>, String> {
            match http.map_or(Ok(None), |http| http.integer(name))? {
                None | Some(-1) => Ok(None),
                Some(limit @ 1..) => Ok(usize::try_from(limit).ok()),
                Some(other) => Err(format!(
                    "`extensions.http.{name}` must be -1 or more than 0, not {other}"
                )),
            }
        };
        let (max_outstanding_requests, max_concurrent_requests) = (
            limit("maxOutstandingRequests")?,
            limit("maxConcurrentRequests")?,
        );
        let mut route_prefix = "api".to_owned();
        let mut custom_headers = Vec::new();
        if let Some(http) = http {
            for unsupported in ["enableChunkedRequestBinding", "dynamicThrottlesEnabled"] {
                if http.flag(unsupported)? == Some(true) {
                    return Err(format!(
                        "`extensions.http.{unsupported}` is not supported by this host"
                    ));
                }
            }
            if let Some(hsts) = http.section("hsts")?
                && hsts.flag("isEnabled")? == Some(true)
            {
                return Err(
                    "`extensions.http.hsts` is not supported by this host: it serves no TLS".into(),
                );
            }
            if let Some(prefix) = http.text("routePrefix")? {
                route_prefix = prefix.trim_matches('/').to_owned();
            }
            if let Some(headers) = http.section("customHeaders")? {
                for name in headers.names() {
                    let value = headers.text(name)?.unwrap_or_default();
                    custom_headers.push(header(name, &value).ok_or_else(|| {
                        format!("`extensions.http.customHeaders.{name}` is not a valid header")
                    })?);
                }
            }
        }
        if let Some(concurrency) = root.section("concurrency")?
            && concurrency.flag("dynamicConcurrencyEnabled")? == Some(true)
        {
            return Err(
                "`concurrency.dynamicConcurrencyEnabled` is not supported by this host".into(),
            );
        }
        let function_timeout = match root.text("functionTimeout")?.as_deref() {
            None => Some(DEFAULT_FUNCTION_TIMEOUT),
            Some("-1") => None,
            Some(text) => Some(
                timespan::parse(text)
                    .filter(|timeout| *timeout >= Duration::from_secs(1))
                    .ok_or_else(|| {
                        format!("`functionTimeout` must be a time span of a second or more, or \"-1\", not {text:?}")
                    })?,
            ),
        };
        let retry = root.get("retry").map(RetryPolicy::parse).transpose()?;
        let functions = root.texts("functions")?;
        let handler = root
            .section("customHandler")?
            .ok_or("`customHandler` is missing: this host runs custom handlers only")?;
        let custom_handler = CustomHandler::parse(handler, &mut warnings)?;
        Ok(Self {
            bundle,
            route_prefix,
            max_outstanding_requests,
            max_concurrent_requests,
            custom_headers,
            function_timeout,
            retry,
            functions,
            custom_handler,
            warnings,
            document,
        })
    }
}

fn header(name: &str, value: &str) -> Option<(http::HeaderName, http::HeaderValue)> {
    Some((name.parse().ok()?, value.parse().ok()?))
}

impl Bundle {
    /// The bundles whose bindings this host knows: `[2.*, 3.0.0)`, `[3.3.0, 4.0.0)`, `[4.*, 5.0.0)`, told by the lower bound.
    fn parse(fields: Fields<'_>) -> Result<Self, String> {
        let id = fields
            .text("id")?
            .ok_or("`extensionBundle.id` is missing")?;
        if !id.eq_ignore_ascii_case("Microsoft.Azure.Functions.ExtensionBundle") {
            return Err(format!(
                "`extensionBundle.id` {id:?} is not supported; this host knows Microsoft.Azure.Functions.ExtensionBundle"
            ));
        }
        let version = fields
            .text("version")?
            .ok_or("`extensionBundle.version` is missing: write \"[4.*, 5.0.0)\"")?;
        let major = version
            .trim_start_matches(['[', '(', ' '])
            .split(['.', ',', ' ', ']', ')'])
            .next()
            .and_then(|major| major.parse::<u32>().ok());
        let generation = match major {
            Some(2 | 3) => Generation::Three,
            Some(4) => Generation::Four,
            _ => {
                return Err(format!(
                    "`extensionBundle.version` {version:?} is not supported; this host knows bundles 2, 3 and 4, e.g. \"[4.*, 5.0.0)\""
                ));
            }
        };
        Ok(Self {
            id,
            version,
            generation,
        })
    }
}

impl CustomHandler {
    fn parse(fields: Fields<'_>, warnings: &mut Vec<String>) -> Result<Self, String> {
        for unsupported in ["enableForwardingHttpRequest", "enableProxyingHttpRequest"] {
            if fields.flag(unsupported)? == Some(true) {
                return Err(format!(
                    "`customHandler.{unsupported}` is not supported by this host; every function gets the invocation as JSON"
                ));
            }
        }
        if fields.get("http").is_some() {
            return Err("`customHandler.http` is not supported by this host; describe each function in its function.json".into());
        }
        match fields.text("type")?.as_deref() {
            None => {}
            Some(kind) if kind.eq_ignore_ascii_case("http") => {}
            Some(kind) if kind.eq_ignore_ascii_case("none") => {
                warnings.push("`customHandler.type` \"none\" is taken as \"http\"".into());
            }
            Some(other) => {
                return Err(format!(
                    "`customHandler.type` must be \"http\", not {other:?}"
                ));
            }
        }
        let description = fields
            .section("description")?
            .ok_or("`customHandler.description` is missing")?;
        let executable = description
            .text("defaultExecutablePath")?
            .filter(|path| !path.trim().is_empty())
            .ok_or("`customHandler.description.defaultExecutablePath` is missing")?;
        let path = |name: &str| -> Result<Option<PathBuf>, String> {
            Ok(description
                .text(name)?
                .filter(|path| !path.is_empty())
                .map(PathBuf::from))
        };
        let initialization_timeout = match fields.text("initializationTimeout")? {
            None => DEFAULT_INITIALIZATION_TIMEOUT,
            Some(text) => timespan::parse(&text)
                .filter(|timeout| !timeout.is_zero())
                .ok_or_else(|| {
                    format!("`customHandler.initializationTimeout` must be a time span such as \"00:00:30\", not {text:?}")
                })?,
        };
        let port = fields
            .integer("port")?
            .map(|port| {
                u16::try_from(port)
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or_else(|| format!("`customHandler.port` must be 1 to 65535, not {port}"))
            })
            .transpose()?;
        Ok(Self {
            executable,
            arguments: description.texts("arguments")?.unwrap_or_default(),
            worker_path: description
                .text("defaultWorkerPath")?
                .filter(|path| !path.is_empty()),
            worker_arguments: description.texts("workerArguments")?.unwrap_or_default(),
            working_directory: path("workingDirectory")?,
            worker_directory: path("workerDirectory")?,
            stderr_is_errors_only: description
                .flag("useStdErrorStreamForErrorsOnly")?
                .unwrap_or(true),
            initialization_timeout,
            port,
        })
    }
}

/// Writes every `AzureFunctionsJobHost__a__b` setting into the document. A text that is a JSON array of strings becomes one.
fn apply_overrides(document: &mut Value, settings: &Settings) {
    for (name, value) in settings.environment() {
        // A setting may be spelled with `:`; the names of host.json never hold one.
        let name = name.replace(':', "__");
        let Some(path) = name
            .get(..OVERRIDE_PREFIX.len())
            .filter(|head| head.eq_ignore_ascii_case(OVERRIDE_PREFIX))
            .map(|head| &name[head.len()..])
        else {
            continue;
        };
        let value = match serde_json::from_str::<Vec<String>>(value) {
            Ok(items) => Value::from(items),
            Err(_) => Value::from(value),
        };
        let segments: Vec<_> = path.split("__").collect();
        put(document, &segments, value);
    }
}

fn put(target: &mut Value, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *target = value;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(object) = target.as_object_mut() else {
        return;
    };
    let key = object
        .keys()
        .find(|key| key.eq_ignore_ascii_case(first))
        .cloned()
        .unwrap_or_else(|| (*first).to_owned());
    put(object.entry(key).or_insert(Value::Null), rest, value);
}

/// `text` with `//` and `/* */` comments outside strings blanked, line breaks kept so that positions stay true.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let (mut in_string, mut escaped) = (false, false);
    while let Some(character) = characters.next() {
        if in_string {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            out.push(character);
        } else if character == '/' && characters.next_if_eq(&'/').is_some() {
            while characters.next_if(|next| *next != '\n').is_some() {}
        } else if character == '/' && characters.next_if_eq(&'*').is_some() {
            let mut star = false;
            for inside in characters.by_ref() {
                if inside == '\n' {
                    out.push('\n');
                }
                if star && inside == '/' {
                    break;
                }
                star = inside == '*';
            }
            out.push(' ');
        } else {
            in_string = character == '"';
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::Origin;

    const SMALL: &str = r#"{ "version": "2.0", // the schema
        "customHandler": { "description": { "defaultExecutablePath": "app" } } /* end */ }"#;

    fn parse(text: &str) -> Result<HostJson, HostJsonError> {
        HostJson::parse(text, &Settings::default())
    }

    #[test]
    fn defaults_are_those_of_the_real_host() {
        let host = parse(SMALL).unwrap();
        assert_eq!(host.route_prefix, "api");
        assert_eq!(host.function_timeout, Some(Duration::from_secs(1800)));
        assert_eq!(host.bundle, None);
        assert_eq!(host.max_outstanding_requests, None);
        assert_eq!(
            host.custom_handler,
            CustomHandler {
                executable: "app".into(),
                arguments: vec![],
                worker_path: None,
                worker_arguments: vec![],
                working_directory: None,
                worker_directory: None,
                stderr_is_errors_only: true,
                initialization_timeout: Duration::from_secs(30),
                port: None,
            }
        );
    }

    #[test]
    fn keys_ignore_case_and_texts_stand_for_values() {
        let host = parse(
            r#"{"Version":"2.0","FunctionTimeout":"-1",
                "ExtensionBundle":{"Id":"Microsoft.Azure.Functions.ExtensionBundle","Version":"[3.3.0, 4.0.0)"},
                "extensions":{"HTTP":{"RoutePrefix":"","maxOutstandingRequests":"20"}},
                "CustomHandler":{"Description":{"DefaultExecutablePath":"app","UseStdErrorStreamForErrorsOnly":"false"},
                                 "InitializationTimeout":"00:00:05"}}"#,
        )
        .unwrap();
        assert_eq!(host.function_timeout, None);
        assert_eq!(host.route_prefix, "");
        assert_eq!(host.max_outstanding_requests, Some(20));
        assert_eq!(host.bundle.unwrap().generation, Generation::Three);
        assert!(!host.custom_handler.stderr_is_errors_only);
        assert_eq!(
            host.custom_handler.initialization_timeout,
            Duration::from_secs(5)
        );
    }

    #[test]
    fn settings_override_any_value() {
        let mut settings = Settings::default();
        for (name, value) in [
            (
                "AzureFunctionsJobHost__customHandler__description__defaultExecutablePath",
                "other",
            ),
            (
                "AzureFunctionsJobHost__customhandler__description__arguments",
                r#"["a","b"]"#,
            ),
            ("AzureFunctionsJobHost__extensions__http__routePrefix", "v1"),
        ] {
            settings.set(Origin::Environment, name, value);
        }
        let host = HostJson::parse(SMALL, &settings).unwrap();
        assert_eq!(host.custom_handler.executable, "other");
        assert_eq!(host.custom_handler.arguments, ["a", "b"]);
        assert_eq!(host.route_prefix, "v1");
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let with = |member: &str, handler: &str| {
            format!(
                r#"{{"version":"2.0",{member}"customHandler":{{{handler}"description":{{"defaultExecutablePath":"a"}}}}}}"#
            )
        };
        for (text, named) in [
            (r#"{"customHandler":{}}"#.to_owned(), "version"),
            (r#"{"version":"1.0"}"#.to_owned(), "version"),
            (r#"{"version":"2.0"}"#.to_owned(), "customHandler"),
            (
                r#"{"version":"2.0","customHandler":{}}"#.to_owned(),
                "description",
            ),
            (
                r#"{"version":"2.0","customHandler":{"description":{}}}"#.to_owned(),
                "defaultExecutablePath",
            ),
            (
                with("", r#""enableForwardingHttpRequest":true,"#),
                "enableForwardingHttpRequest",
            ),
            (
                with("", r#""enableProxyingHttpRequest":true,"#),
                "enableProxyingHttpRequest",
            ),
            (
                with("", r#""initializationTimeout":"5","#),
                "initializationTimeout",
            ),
            (
                with(r#""functionTimeout":"00:00:00","#, ""),
                "functionTimeout",
            ),
            (
                with(
                    r#""extensionBundle":{"id":"Microsoft.Azure.Functions.ExtensionBundle","version":"[1.*, 2.0.0)"},"#,
                    "",
                ),
                "[1.*, 2.0.0)",
            ),
            (
                with(
                    r#""extensions":{"http":{"dynamicThrottlesEnabled":true}},"#,
                    "",
                ),
                "dynamicThrottlesEnabled",
            ),
            (
                with(r#""retry":{"strategy":"fixedDelay"},"#, ""),
                "maxRetryCount",
            ),
            ("[]".to_owned(), "object"),
        ] {
            let message = parse(&text).unwrap_err().to_string();
            assert!(message.contains(named), "{text}: {message}");
        }
    }

    #[test]
    fn comment_marks_inside_strings_are_text() {
        assert_eq!(
            without_comments(r#"{"a":"http://x /* y */ \" //"}"#),
            r#"{"a":"http://x /* y */ \" //"}"#
        );
    }
}
