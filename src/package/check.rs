//! A script root with the eyes of the real host: would it start, and find its functions?
//!
//! Rules from `Azure/azure-functions-host: src/WebJobs.Script/Host/HostFunctionMetadataProvider.cs`, `…/Host/FunctionMetadataManager.cs`,
//! `…/Workers/Http/Configuration/HttpWorkerOptionsSetup.cs`. The host reports a bad function and goes on without it; for
//! a deployment that is a mistake, so every fault counts here.

use std::{
    collections::HashSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

/// Longest name of a function or binding, in characters.
const MAX_NAME: usize = 128;

/// Something that the host would refuse, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file or folder, relative to the script root.
    pub path: PathBuf,
    /// What is wrong with it: one clear sentence.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.message)
    }
}

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, path: impl Into<PathBuf>, message: impl Into<String>) {
        self.0.push(Fault {
            path: path.into(),
            message: message.into(),
        });
    }
}

/// Looks at a script root; says how many functions the host will load.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(root: &Path) -> Result<usize, Vec<Fault>> {
    let mut faults = Faults::default();
    check_host_json(root, &mut faults);
    let functions = check_functions(root, &mut faults);
    if functions == 0 {
        faults.add(
            ".",
            "has no function: each one is a folder beside host.json with a function.json in it",
        );
    }
    if faults.0.is_empty() {
        Ok(functions)
    } else {
        Err(faults.0)
    }
}

fn read_object(root: &Path, relative: &Path, faults: &mut Faults) -> Option<Map<String, Value>> {
    let content = match fs::read_to_string(root.join(relative)) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            faults.add(relative, "is missing");
            return None;
        }
        Err(error) => {
            faults.add(relative, format!("cannot be read: {error}"));
            return None;
        }
    };
    match serde_json::from_str(&content) {
        Ok(Value::Object(object)) => Some(object),
        Ok(_) => {
            faults.add(relative, "must be a JSON object");
            None
        }
        Err(error) => {
            faults.add(relative, format!("is not valid JSON: {error}"));
            None
        }
    }
}

fn check_host_json(root: &Path, faults: &mut Faults) {
    let path = Path::new("host.json");
    let Some(host) = read_object(root, path, faults) else {
        return;
    };
    if host.get("version").and_then(Value::as_str) != Some("2.0") {
        faults.add(path, "`version` must be \"2.0\"");
    }
    if host
        .get("extensionBundle")
        .and_then(|bundle| bundle.get("version"))
        .and_then(Value::as_str)
        .is_none()
    {
        faults.add(path, "`extensionBundle.version` is missing: without a bundle there are no Cosmos DB and SignalR bindings");
    }
    let description = host
        .get("customHandler")
        .and_then(|handler| handler.get("description"));
    let executable = description
        .and_then(|d| d.get("defaultExecutablePath"))
        .and_then(Value::as_str);
    match executable {
        None | Some("") => faults.add(
            path,
            "`customHandler.description.defaultExecutablePath` is missing",
        ),
        Some(executable) => check_executable(root, Path::new(executable), faults),
    }
}

fn check_executable(root: &Path, relative: &Path, faults: &mut Faults) {
    match fs::metadata(root.join(relative)) {
        Ok(metadata) if !metadata.is_file() => faults.add(relative, "is not a file"),
        Ok(metadata) if !is_executable(&metadata) => {
            faults.add(relative, "is not executable (chmod 755)")
        }
        Ok(_) => {}
        Err(error) => faults.add(
            relative,
            format!("is what host.json starts, but cannot be read: {error}"),
        ),
    }
}

#[cfg(unix)]
fn is_executable(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_metadata: &fs::Metadata) -> bool {
    true
}

/// First-level folders only, as the host.
fn check_functions(root: &Path, faults: &mut Faults) -> usize {
    let entries = match fs::read_dir(root).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(entries) => entries,
        Err(error) => {
            faults.add(".", format!("cannot be read: {error}"));
            return 0;
        }
    };
    let mut functions = 0;
    for entry in entries {
        let folder = PathBuf::from(entry.file_name());
        let definition = folder.join("function.json");
        if !root.join(&definition).is_file() {
            continue;
        }
        functions += 1;
        let name = folder.to_string_lossy();
        if !is_function_name(&name) {
            faults.add(&folder, "a function's name begins with a letter, goes on with letters, digits, `_` and `-`, and is not `host`");
        }
        if let Some(function) = read_object(root, &definition, faults) {
            check_bindings(&definition, &function, faults);
        }
    }
    functions
}

fn is_function_name(name: &str) -> bool {
    is_name(name, |c| c == '_' || c == '-') && !name.eq_ignore_ascii_case("host")
}

fn is_name(name: &str, and: impl Fn(char) -> bool) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.len() <= MAX_NAME
        && name.chars().all(|c| c.is_ascii_alphanumeric() || and(c))
}

fn check_bindings(path: &Path, function: &Map<String, Value>, faults: &mut Faults) {
    let Some(bindings) = function
        .get("bindings")
        .and_then(Value::as_array)
        .filter(|list| !list.is_empty())
    else {
        faults.add(path, "`bindings` must be an array with at least a trigger");
        return;
    };
    let mut names = HashSet::new();
    let mut triggers = 0;
    for (index, binding) in bindings.iter().enumerate() {
        let text = |key: &str| binding.get(key).and_then(Value::as_str);
        let direction = text("direction").unwrap_or("in").to_ascii_lowercase();
        if !["in", "out", "inout"].contains(&direction.as_str()) {
            faults.add(
                path,
                format!("`bindings[{index}].direction` must be `in`, `out` or `inout`"),
            );
        }
        match text("name") {
            Some("$return") if direction == "out" => {}
            Some(name) if is_name(name, |_| false) => {
                if !names.insert(name.to_ascii_lowercase()) {
                    faults.add(
                        path,
                        format!("`bindings[{index}].name` is used twice: `{name}`"),
                    );
                }
            }
            _ => faults.add(
                path,
                format!(
                    "`bindings[{index}].name` must be letters and digits, beginning with a letter"
                ),
            ),
        }
        let kind = text("type").unwrap_or_default().to_ascii_lowercase();
        if kind.is_empty() {
            faults.add(path, format!("`bindings[{index}].type` is missing"));
        }
        if kind == "http" && direction != "out" {
            faults.add(
                path,
                format!("`bindings[{index}]` of type `http` must have the direction `out`"),
            );
        }
        triggers += usize::from(kind.ends_with("trigger") && direction != "out");
    }
    if triggers != 1 {
        faults.add(
            path,
            format!("must have exactly one trigger, but has {triggers}"),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tempfile::TempDir;

    const HOST: &str = r#"{"version":"2.0","extensionBundle":{"version":"[4.*, 5.0.0)"},
        "customHandler":{"description":{"defaultExecutablePath":"app"}}}"#;
    const FUNCTION: &str = r#"{"bindings":[{"type":"httpTrigger","direction":"in","name":"req"}]}"#;

    fn root(files: &[(&str, &str)]) -> TempDir {
        let dir = TempDir::new().unwrap();
        let app = dir.path().join("app");
        fs::write(&app, "").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&app, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    #[track_caller]
    fn refused(files: &[(&str, &str)], path: &str, part: &str) {
        let faults = check(root(files).path()).unwrap_err();
        let found = faults
            .iter()
            .any(|fault| fault.path == Path::new(path) && fault.message.contains(part));
        assert!(found, "no fault at {path} with {part:?} in {faults:?}");
    }

    #[test]
    fn a_good_root() {
        let dir = root(&[
            ("host.json", HOST),
            ("A/function.json", FUNCTION),
            ("b-2/function.json", FUNCTION),
            ("x/y.txt", ""),
        ]);
        assert_eq!(check(dir.path()), Ok(2));
    }

    #[test]
    fn faults_of_the_host() {
        let function = ("A/function.json", FUNCTION);
        refused(&[function], "host.json", "missing");
        refused(
            &[function, ("host.json", "{")],
            "host.json",
            "not valid JSON",
        );
        refused(&[function, ("host.json", "[]")], "host.json", "JSON object");
        refused(
            &[function, ("host.json", &HOST.replace("2.0", "1.0"))],
            "host.json",
            "`version`",
        );
        refused(
            &[
                function,
                ("host.json", &HOST.replace("extensionBundle", "x")),
            ],
            "host.json",
            "extensionBundle",
        );
        refused(
            &[function, ("host.json", &HOST.replace("customHandler", "x"))],
            "host.json",
            "defaultExecutablePath",
        );
        refused(
            &[
                function,
                ("host.json", &HOST.replace("\"app\"", "\"gone\"")),
            ],
            "gone",
            "cannot be read",
        );
        #[cfg(unix)]
        refused(
            &[
                function,
                ("host.json", &HOST.replace("\"app\"", "\"plain\"")),
                ("plain", ""),
            ],
            "plain",
            "not executable",
        );
    }

    #[test]
    fn faults_of_functions() {
        let host = ("host.json", HOST);
        refused(&[host], ".", "has no function");
        // The most common mistake: one folder too deep.
        refused(
            &[host, ("functions/A/function.json", FUNCTION)],
            ".",
            "has no function",
        );
        refused(
            &[host, ("9lives/function.json", FUNCTION)],
            "9lives",
            "begins with a letter",
        );
        refused(
            &[host, ("host/function.json", FUNCTION)],
            "host",
            "not `host`",
        );
        refused(
            &[host, ("A/function.json", "{}")],
            "A/function.json",
            "`bindings`",
        );
        let with = |binding: &str| {
            format!(r#"{{"bindings":[{{"type":"httpTrigger","name":"req"}},{binding}]}}"#)
        };
        for (binding, part) in [
            (
                r#"{"type":"http","direction":"in","name":"res"}"#,
                "must have the direction `out`",
            ),
            (
                r#"{"type":"http","direction":"out","name":"my_res"}"#,
                "letters and digits",
            ),
            (
                r#"{"type":"http","direction":"out","name":"REQ"}"#,
                "used twice",
            ),
            (
                r#"{"type":"http","direction":"up","name":"res"}"#,
                "`in`, `out` or `inout`",
            ),
            (
                r#"{"direction":"out","name":"res"}"#,
                "`bindings[1].type` is missing",
            ),
            (
                r#"{"type":"timerTrigger","name":"t"}"#,
                "exactly one trigger, but has 2",
            ),
        ] {
            refused(
                &[host, ("A/function.json", &with(binding))],
                "A/function.json",
                part,
            );
        }
    }
}
