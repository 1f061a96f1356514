//! From `customHandler.description` to a program and its arguments.
//!
//! Source: `Azure/azure-functions-host: src/WebJobs.Script/Workers/Http/HttpWorkerProcess.cs`,
//! `…/Workers/ProcessManagement/WorkerDescription.cs`. The real host joins all arguments with spaces, unquoted, and lets the
//! runtime split the text again: an argument with a space becomes several unless it carries its own double quotes.

use std::path::{Path, PathBuf};

use crate::host_json::CustomHandler;

/// A program to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// Absolute path, or a name for `PATH`.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) working_directory: PathBuf,
}

/// Builds the command line. `environment` answers app settings; `variables` are the five the host sets per start.
pub(crate) fn command_line(
    handler: &CustomHandler,
    script_root: &Path,
    environment: impl Fn(&str) -> Option<String>,
    variables: &[(&str, String)],
) -> CommandLine {
    let below_root = |directory: &Option<PathBuf>| match directory {
        Some(directory) => script_root.join(directory),
        None => script_root.to_owned(),
    };
    let own = |name: &str| {
        variables
            .iter()
            .find(|(variable, _)| variable.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.clone())
    };

    let executable = expand(&handler.executable, &environment, Unknown::Keep);
    let candidate = below_root(&handler.worker_directory).join(&executable);
    let program = if Path::new(&executable).is_relative() && candidate.is_file() {
        candidate.to_string_lossy().into_owned()
    } else {
        executable
    };

    let expanded = |argument: &String| expand(argument, &environment, Unknown::Keep);
    let mut words: Vec<String> = handler.arguments.iter().map(expanded).collect();
    if let Some(worker) = &handler.worker_path {
        words.push(format!("\"{}\"", expanded(worker)));
    }
    words.extend(handler.worker_arguments.iter().map(expanded));
    let joined = expand(&words.join(" "), &own, Unknown::Delete);

    CommandLine {
        program: expand(&program, &own, Unknown::Keep).into(),
        arguments: split(&joined),
        working_directory: below_root(&handler.working_directory),
    }
}

/// What becomes of a `%NAME%` that has no value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Keep,
    Delete,
}

fn expand(text: &str, value: &impl Fn(&str) -> Option<String>, unknown: Unknown) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('%') else {
            out.push('%');
            rest = after;
            continue;
        };
        match value(name) {
            Some(value) => out.push_str(&value),
            None if unknown == Unknown::Delete => {}
            // The closing mark may open the next name.
            None => {
                out.push('%');
                out.push_str(name);
                rest = &after[name.len()..];
                continue;
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Splits a command line as .NET does on every system: white space separates, double quotes group, a backslash before a
/// quote makes it a character.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters
            .next_if(|c| matches!(c, ' ' | '\t' | '\n'))
            .is_some()
        {}
        if characters.peek().is_none() {
            return words;
        }
        let mut word = String::new();
        let mut quoted = false;
        while let Some(&character) = characters.peek() {
            match character {
                '\\' => {
                    let mut slashes = 0;
                    while characters.next_if_eq(&'\\').is_some() {
                        slashes += 1;
                    }
                    if characters.peek() == Some(&'"') {
                        word.extend(std::iter::repeat_n('\\', slashes / 2));
                        if slashes % 2 == 1 {
                            characters.next();
                            word.push('"');
                        }
                    } else {
                        word.extend(std::iter::repeat_n('\\', slashes));
                    }
                }
                '"' => {
                    characters.next();
                    // Two quotes inside quotes are one quote.
                    if quoted && characters.next_if_eq(&'"').is_some() {
                        word.push('"');
                    } else {
                        quoted = !quoted;
                    }
                }
                ' ' | '\t' | '\n' if !quoted => break,
                other => {
                    characters.next();
                    word.push(other);
                }
            }
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn handler(executable: &str, arguments: &[&str]) -> CustomHandler {
        CustomHandler {
            executable: executable.into(),
            arguments: arguments.iter().map(|&argument| argument.into()).collect(),
            worker_path: None,
            worker_arguments: vec![],
            working_directory: None,
            worker_directory: None,
            stderr_is_errors_only: true,
            initialization_timeout: Duration::from_secs(30),
            port: None,
        }
    }

    fn build(handler: &CustomHandler, root: &Path) -> CommandLine {
        command_line(
            handler,
            root,
            |name| (name == "HOME_DIR").then(|| "/home/me".to_owned()),
            &[("FUNCTIONS_CUSTOMHANDLER_PORT", "40123".into())],
        )
    }

    #[test]
    fn a_relative_executable_is_looked_for_in_the_worker_directory() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("bin")).unwrap();
        std::fs::write(root.path().join("bin/app"), "").unwrap();
        let mut description = handler("app", &[]);
        assert_eq!(build(&description, root.path()).program, Path::new("app"));
        description.worker_directory = Some("bin".into());
        description.working_directory = Some("work".into());
        let line = build(&description, root.path());
        assert_eq!(line.program, root.path().join("bin/app"));
        assert_eq!(line.working_directory, root.path().join("work"));
    }

    #[test]
    fn names_are_expanded_and_leftovers_vanish_from_arguments() {
        let mut description = handler(
            "%HOME_DIR%/%NOPE%/app",
            &[
                "--port",
                "%FUNCTIONS_CUSTOMHANDLER_PORT%",
                "%NOPE%x",
                "two words",
                "\"one word\"",
                "100%",
            ],
        );
        description.worker_path = Some("%HOME_DIR%/my worker".into());
        description.worker_arguments = vec!["-v".into()];
        let line = build(&description, Path::new("/root"));
        assert_eq!(line.program, Path::new("/home/me/%NOPE%/app"));
        assert_eq!(
            line.arguments,
            [
                "--port",
                "40123",
                "x",
                "two",
                "words",
                "one word",
                "100%",
                "/home/me/my worker",
                "-v"
            ]
        );
    }

    #[test]
    fn splits_as_dot_net_does() {
        for (text, words) in [
            ("a  b\tc", vec!["a", "b", "c"]),
            (r#"a "b c" d"#, vec!["a", "b c", "d"]),
            (r#"a\"b"#, vec![r#"a"b"#]),
            (r#""a\\" b"#, vec![r"a\", "b"]),
            (r"C:\x\y z", vec![r"C:\x\y", "z"]),
            (r#""" x"#, vec!["", "x"]),
            (r#"a"b c"d"#, vec!["ab cd"]),
            (r#""say ""hi""""#, vec![r#"say "hi""#]),
            ("", vec![]),
        ] {
            assert_eq!(split(text), words, "{text}");
        }
    }
}
