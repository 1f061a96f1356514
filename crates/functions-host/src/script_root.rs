//! Discovery: which functions a script root holds.
//!
//! Only first-level folders with a function.json are functions; nothing is searched deeper. A function that cannot be loaded
//! is recorded with its reason and does not stop the others. Source: `Azure/azure-functions-host:
//! src/WebJobs.Script/Host/HostFunctionMetadataProvider.cs`, `…/FunctionMetadataManager.cs`.

use std::path::Path;
use std::time::SystemTime;

use crate::function_json::{self, FUNCTION_JSON, FunctionContext, FunctionDefinition};
use crate::host_json::{HOST_JSON, HostJson};
use crate::settings::Settings;

/// Most entries of a script root that are looked at; it is not a home directory.
pub const MAX_ENTRIES: usize = 1_000;

/// Largest function.json that is read, in bytes.
pub const MAX_FUNCTION_JSON: u64 = 1024 * 1024;

/// Why a script root cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ScriptRootError {
    /// The folder cannot be listed.
    #[error("cannot list script root {path}: {source}")]
    List {
        /// The folder.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The folder is something else.
    #[error("script root {path} has more than {MAX_ENTRIES} entries; is it the right one?")]
    TooLarge {
        /// The folder.
        path: String,
    },
}

/// A function that did not load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionFailure {
    /// Folder name.
    pub name: String,
    /// Why, in one sentence.
    pub reason: String,
}

/// What discovery found, both in the order of names ignoring case.
#[derive(Debug, Default)]
pub struct Discovered {
    /// Functions that can be invoked.
    pub functions: Vec<FunctionDefinition>,
    /// Functions that cannot.
    pub failures: Vec<FunctionFailure>,
}

/// Looks for functions in `script_root`.
///
/// # Errors
/// The folder cannot be listed.
pub fn discover(
    script_root: &Path,
    host: &HostJson,
    settings: &Settings,
) -> Result<Discovered, ScriptRootError> {
    let context = FunctionContext {
        settings,
        generation: host.bundle.as_ref().map(|bundle| bundle.generation),
        retry: host.retry,
    };
    let mut found = Discovered::default();
    for name in function_folders(script_root)? {
        if let Some(allowed) = &host.functions
            && !allowed
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(&name))
        {
            continue;
        }
        match load(script_root, &name, context) {
            Ok(function) => found.functions.push(function),
            Err(reason) => found.failures.push(FunctionFailure { name, reason }),
        }
    }
    for wanted in host.functions.iter().flatten() {
        let known = found
            .functions
            .iter()
            .map(|function| function.name.as_str())
            .chain(found.failures.iter().map(|failure| failure.name.as_str()))
            .any(|name| name.eq_ignore_ascii_case(wanted));
        if !known {
            found.failures.push(FunctionFailure {
                name: wanted.clone(),
                reason: format!("`functions` in {HOST_JSON} names it and no folder `{wanted}` with a {FUNCTION_JSON} exists"),
            });
        }
    }
    Ok(found)
}

fn load(
    script_root: &Path,
    name: &str,
    context: FunctionContext<'_>,
) -> Result<FunctionDefinition, String> {
    if !function_json::is_function_name(name) {
        return Err(format!(
            "{name:?} is not a valid function name: a letter, then letters, digits, `_` and `-`, at most 128, and not `host`"
        ));
    }
    let folder = script_root.join(name);
    let path = folder.join(FUNCTION_JSON);
    let size = std::fs::metadata(&path)
        .map_err(|error| format!("cannot read {FUNCTION_JSON}: {error}"))?
        .len();
    if size > MAX_FUNCTION_JSON {
        return Err(format!(
            "{FUNCTION_JSON} has {size} bytes; the limit is {MAX_FUNCTION_JSON}"
        ));
    }
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {FUNCTION_JSON}: {error}"))?;
    let function = function_json::parse(name, &text, context)?;
    if let Some(script) = script_file(&text)
        && !folder.join(&script).exists()
    {
        return Err(format!("`scriptFile` {script:?} does not exist"));
    }
    Ok(function)
}

fn script_file(text: &str) -> Option<String> {
    let document: serde_json::Value =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let fields = crate::fields::Fields::of(&document)?;
    fields
        .text("scriptFile")
        .ok()
        .flatten()
        .filter(|file| !file.is_empty())
}

/// First-level folders with a function.json, ordered by name ignoring case.
fn function_folders(script_root: &Path) -> Result<Vec<String>, ScriptRootError> {
    let shown = || script_root.display().to_string();
    let list = |source| ScriptRootError::List {
        path: shown(),
        source,
    };
    let mut names = Vec::new();
    for (seen, entry) in std::fs::read_dir(script_root).map_err(list)?.enumerate() {
        if seen >= MAX_ENTRIES {
            return Err(ScriptRootError::TooLarge { path: shown() });
        }
        let entry = entry.map_err(list)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if entry.path().join(FUNCTION_JSON).is_file() {
            names.push(name);
        }
    }
    names.sort_by_cached_key(|name| name.to_ascii_lowercase());
    Ok(names)
}

/// What the files that decide over a restart looked like: host.json and every function.json.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fingerprint(Vec<(String, Option<SystemTime>, u64)>);

impl Fingerprint {
    /// Looks at the files now. What cannot be seen counts as absent, so that its return is a change.
    pub(crate) fn take(script_root: &Path) -> Self {
        let mut files = vec![HOST_JSON.to_owned()];
        files.extend(
            function_folders(script_root)
                .unwrap_or_default()
                .into_iter()
                .map(|name| format!("{name}/{FUNCTION_JSON}")),
        );
        Self(
            files
                .into_iter()
                .map(|file| match std::fs::metadata(script_root.join(&file)) {
                    Ok(metadata) => (file, metadata.modified().ok(), metadata.len()),
                    Err(_) => (file, None, 0),
                })
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HTTP: &str = r#"{"bindings":[{"type":"httpTrigger","name":"req"}]}"#;
    const HOST: &str =
        r#"{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"a"}}}"#;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn discovered(files: &[(&str, &str)], host: &str) -> (Vec<String>, Vec<FunctionFailure>) {
        let root = root(files);
        let settings = Settings::default();
        let host = HostJson::parse(host, &settings).unwrap();
        let found = discover(root.path(), &host, &settings).unwrap();
        (
            found
                .functions
                .into_iter()
                .map(|function| function.name)
                .collect(),
            found.failures,
        )
    }

    #[test]
    fn only_first_level_folders_with_a_function_json_count() {
        let (names, failures) = discovered(
            &[
                ("zeta/function.json", HTTP),
                ("Alpha/function.json", HTTP),
                ("functions/inner/function.json", HTTP),
                ("docs/readme.md", ""),
                ("function.json", HTTP),
            ],
            HOST,
        );
        assert_eq!(names, ["Alpha", "zeta"]);
        assert_eq!(failures, []);
    }

    #[test]
    fn a_broken_function_is_recorded_and_the_others_load() {
        let (names, failures) = discovered(
            &[
                ("good/function.json", HTTP),
                ("1bad/function.json", HTTP),
                ("host/function.json", HTTP),
                ("text/function.json", "{"),
                (
                    "script/function.json",
                    r#"{"scriptFile":"gone.js","bindings":[{"type":"httpTrigger","name":"req"}]}"#,
                ),
            ],
            HOST,
        );
        assert_eq!(names, ["good"]);
        let failed: Vec<_> = failures
            .iter()
            .map(|failure| failure.name.as_str())
            .collect();
        assert_eq!(failed, ["1bad", "host", "script", "text"]);
        assert!(failures[2].reason.contains("gone.js"));
    }

    #[test]
    fn the_allow_list_of_host_json_is_honoured_and_checked() {
        let host = HOST.replacen('{', r#"{"functions":["b","nope"],"#, 1);
        let (names, failures) = discovered(
            &[("A/function.json", HTTP), ("B/function.json", HTTP)],
            &host,
        );
        assert_eq!(names, ["B"]);
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].name, "nope");
    }

    #[test]
    fn a_fingerprint_sees_new_changed_and_removed_functions() {
        let root = root(&[
            ("host.json", HOST),
            ("a/function.json", HTTP),
            ("a/handler", "x"),
        ]);
        let first = Fingerprint::take(root.path());
        std::fs::write(root.path().join("a/handler"), "rebuilt").unwrap();
        assert_eq!(Fingerprint::take(root.path()), first);
        std::fs::write(root.path().join("a/function.json"), format!("{HTTP} ")).unwrap();
        let changed = Fingerprint::take(root.path());
        assert_ne!(changed, first);
        std::fs::remove_file(root.path().join("a/function.json")).unwrap();
        assert_ne!(Fingerprint::take(root.path()), changed);
    }
}
