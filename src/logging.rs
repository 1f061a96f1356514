//! Logs. The handler's are lines on stdout, which the Functions host takes as information. (A line on stderr would be an
//! error to it, see `Azure/azure-functions-host: src/WebJobs.Script/Workers/ProcessManagement/WorkerProcess.cs`.) A command
//! that prints a result logs on stderr.

use std::{io, str::FromStr};

use thiserror::Error;
use tracing_subscriber::{
    filter::Targets, fmt, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};

/// What is logged when `RUST_LOG` does not say. The server's own start and stop are in the handler's lines already.
const DEFAULT_FILTER: &str = "info,actix_server=warn";

/// The same for a command that prints a result: what goes wrong, and what the command itself has to say.
const DEFAULT_FILTER_BESIDE_OUTPUT: &str = "warn,geo_events::local=info";

/// Why logging cannot start.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// `LOG_FORMAT` is unknown.
    #[error("the setting LOG_FORMAT cannot be `{0}`: it is `compact` or `json`")]
    Format(String),
    /// `RUST_LOG` cannot be read.
    #[error("the setting RUST_LOG cannot be read: {0}; it looks like `info,geo_events=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Another subscriber is installed.
    #[error("logging was started twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// One line of text.
    Compact,
    /// One JSON object.
    Json,
}

impl FromStr for Format {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" | "compact" => Ok(Self::Compact),
            "json" => Ok(Self::Json),
            other => Err(LoggingError::Format(other.to_owned())),
        }
    }
}

/// Starts logging on stdout as `LOG_FORMAT` and `RUST_LOG` say.
///
/// # Errors
/// See [`LoggingError`].
pub fn start() -> Result<(), LoggingError> {
    start_on(io::stdout, DEFAULT_FILTER)
}

/// The same on stderr, for a command whose stdout is its result; quieter where `RUST_LOG` does not say.
///
/// # Errors
/// See [`LoggingError`].
pub fn start_beside_output() -> Result<(), LoggingError> {
    start_on(io::stderr, DEFAULT_FILTER_BESIDE_OUTPUT)
}

fn start_on<W>(writer: W, default_filter: &str) -> Result<(), LoggingError>
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let variable = |name| std::env::var(name).unwrap_or_default();
    let format: Format = variable("LOG_FORMAT").parse()?;
    let filter = variable("RUST_LOG");
    let filter: Targets = if filter.is_empty() {
        default_filter
    } else {
        &filter
    }
    .parse()?;
    let lines = fmt::layer().with_writer(writer).with_ansi(false);
    match format {
        Format::Compact => registry().with(filter).with(lines.compact()).try_init()?,
        Format::Json => registry()
            .with(filter)
            .with(lines.json().flatten_event(true))
            .try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        assert!(matches!("".parse(), Ok(Format::Compact)));
        assert!(matches!("json".parse(), Ok(Format::Json)));
        assert!(matches!(
            "xml".parse::<Format>(),
            Err(LoggingError::Format(_))
        ));
    }
}
