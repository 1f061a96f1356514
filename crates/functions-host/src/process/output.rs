//! What a handler prints, as log events.
//!
//! Levels and categories: `Azure/azure-functions-host: src/WebJobs.Script/Workers/ProcessManagement/WorkerProcess.cs`,
//! `…/WorkerProcessUtilities.cs`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tracing::Level;

use crate::secrets::masked;

/// Longest line that is logged whole, in bytes; the rest of a longer one follows as lines of its own.
const MAX_LINE: u64 = 16 * 1024;

/// How many error lines are kept to be quoted when the handler dies.
const KEPT_ERRORS: usize = 3;

/// The stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// The last error lines of one handler process. Written by the stderr reader, read once at the end; never held across an await.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastErrors(Arc<Mutex<VecDeque<String>>>);

impl LastErrors {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_ERRORS {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines, joined; empty when there were none.
    pub(crate) fn quoted(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" | ")
    }
}

/// How a line is logged.
#[derive(Debug, PartialEq, Eq)]
struct Classified<'a> {
    level: Level,
    category: Category,
    text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Category {
    Console,
    Worker,
    Tooling,
}

fn classify(line: &str, stream: Stream, stderr_is_errors_only: bool) -> Classified<'_> {
    let prefixed = |prefix: &str| {
        line.get(..prefix.len())
            .filter(|head| head.eq_ignore_ascii_case(prefix))
            .map(|head| &line[head.len()..])
    };
    let (category, text) = if let Some(rest) = prefixed("LanguageWorkerConsoleLog") {
        (Category::Worker, rest)
    } else if let Some(rest) = prefixed("azfuncjsonlog:") {
        (Category::Tooling, rest)
    } else {
        (Category::Console, line)
    };
    let level = match stream {
        Stream::Stdout => Level::INFO,
        Stream::Stderr => {
            let lower = text.to_ascii_lowercase();
            let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
            if stderr_is_errors_only {
                if has(&["warn"]) {
                    Level::WARN
                } else {
                    Level::ERROR
                }
            } else if has(&["error", "fail", "severe", "unhandled exception"]) {
                Level::ERROR
            } else if has(&["warn"]) {
                Level::WARN
            } else {
                Level::INFO
            }
        }
    };
    Classified {
        level,
        category,
        text,
    }
}

/// Reads lines until the stream ends and logs each.
pub(crate) async fn forward(
    source: impl AsyncRead + Unpin,
    stream: Stream,
    stderr_is_errors_only: bool,
    label: Arc<str>,
    worker_id: String,
    errors: LastErrors,
) {
    let mut reader = BufReader::new(source);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        match (&mut reader)
            .take(MAX_LINE)
            .read_until(b'\n', &mut buffer)
            .await
        {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(host = %label, %error, "cannot read the handler's output any more");
                return;
            }
        }
        let line = String::from_utf8_lossy(&buffer);
        let line = masked(line.trim_end_matches(['\r', '\n']));
        if line.is_empty() {
            continue;
        }
        let found = classify(&line, stream, stderr_is_errors_only);
        if stream == Stream::Stderr && found.level == Level::ERROR {
            errors.push(found.text.to_owned());
        }
        let worker;
        let category = match found.category {
            Category::Console => "Host.Function.Console",
            Category::Tooling => "Host.Tooling",
            Category::Worker => {
                worker = format!("Worker.HttpWorkerProcess.{worker_id}");
                worker.as_str()
            }
        };
        // The level of a tracing event is part of its code.
        match found.level {
            Level::ERROR => {
                tracing::error!(target: "functions_host::handler", host = %label, category, "{}", found.text)
            }
            Level::WARN => {
                tracing::warn!(target: "functions_host::handler", host = %label, category, "{}", found.text)
            }
            _ => {
                tracing::info!(target: "functions_host::handler", host = %label, category, "{}", found.text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_get_the_levels_of_the_real_host() {
        use Stream::{Stderr, Stdout};
        for (line, stream, errors_only, level) in [
            ("Error: no", Stdout, true, Level::INFO),
            ("hello", Stderr, true, Level::ERROR),
            ("a Warning", Stderr, true, Level::WARN),
            ("hello", Stderr, false, Level::INFO),
            ("it FAILED", Stderr, false, Level::ERROR),
        ] {
            assert_eq!(classify(line, stream, errors_only).level, level, "{line}");
        }
        let worker = classify("languageworkerconsolelog started", Stdout, true);
        assert_eq!(
            (worker.category, worker.text),
            (Category::Worker, " started")
        );
        let tooling = classify("azfuncjsonlog:{}", Stdout, true);
        assert_eq!((tooling.category, tooling.text), (Category::Tooling, "{}"));
    }

    #[test]
    fn only_the_last_errors_are_kept() {
        let errors = LastErrors::default();
        for line in ["1", "2", "3", "4"] {
            errors.push(line.into());
        }
        assert_eq!(errors.quoted(), "2 | 3 | 4");
    }
}
