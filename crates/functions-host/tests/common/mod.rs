//! Script roots and waiting, for the tests that run a whole host.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use functions_host::{FunctionsHost, HostBuilder};
use serde_json::{Value, json};

/// Generous: only a failure waits this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The scripted handler and the host to be killed.
pub const SUPPORT: &str = env!("CARGO_BIN_EXE_functions-host-test-support");

/// A script root in a temporary folder.
pub struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    /// A root whose handler is the scripted one. `host` is merged into host.json.
    pub fn new(host: Value) -> Self {
        let root = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let mut document = json!({
            "version": "2.0",
            "extensionBundle": {"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[4.*, 5.0.0)"},
            "customHandler": {
                "description": {"defaultExecutablePath": SUPPORT, "arguments": ["handler"]},
                "initializationTimeout": "00:00:30",
            },
        });
        merge(&mut document, host);
        root.write("host.json", &document.to_string());
        root
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Adds an HTTP function: GET and POST, output `res`.
    pub fn http(&self, name: &str, reply: Value) -> &Self {
        self.function(
            name,
            json!({"bindings": [
                {"type": "httpTrigger", "direction": "in", "name": "req", "authLevel": "anonymous", "methods": ["get", "post"]},
                {"type": "http", "direction": "out", "name": "res"},
            ]}),
            reply,
        )
    }

    /// Adds any function.
    pub fn function(&self, name: &str, config: Value, reply: Value) -> &Self {
        self.write(&format!("{name}/function.json"), &config.to_string());
        self.reply(name, reply)
    }

    /// Changes what the handler does for a function.
    pub fn reply(&self, name: &str, reply: Value) -> &Self {
        self.write(&format!("{name}/reply.json"), &reply.to_string());
        self
    }

    pub fn builder(&self) -> HostBuilder {
        FunctionsHost::builder(self.path())
            .port(0)
            .setting("FUNCTIONS_WORKER_RUNTIME", "custom")
    }

    pub async fn start(&self) -> FunctionsHost {
        self.builder().start().await.unwrap()
    }

    /// What the handler was started with, once per start.
    pub fn starts(&self) -> Vec<Value> {
        self.lines("starts.jsonl")
    }

    /// What the handler received.
    pub fn requests(&self) -> Vec<Value> {
        self.lines("requests.jsonl")
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        std::fs::read_to_string(self.path().join(file))
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn merge(target: &mut Value, source: Value) {
    match (target, source) {
        (Value::Object(target), Value::Object(source)) => {
            for (name, value) in source {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
        (target, source) => *target = source,
    }
}

/// Waits until `condition` yields a value.
pub async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "not within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs `future`, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Whether a process exists and is no zombie.
#[cfg(target_os = "linux")]
pub fn alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The state follows the name, which is in parentheses and may hold anything.
    !matches!(stat.rsplit(')').next().map(str::trim_start), Some(rest) if rest.starts_with(['Z', 'X']))
}

/// What `tracing` wrote while this lives, on this thread.
pub struct Log {
    text: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    pub fn capture() -> Self {
        let text = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let writer = {
            let text = text.clone();
            move || Writer(text.clone())
        };
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(writer)
            .finish();
        Self {
            text,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }
}

struct Writer(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The path of a file below the root.
pub fn below(root: &Root, file: &str) -> PathBuf {
    root.path().join(file)
}
