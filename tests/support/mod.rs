//! What the end-to-end tests share: the running system, and real clients.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(unreachable_pub, reason = "a module of several test programs")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Generous: the tests wait for conditions, and only a broken system waits this long.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// `geo-events up` as a person starts it; stopped with SIGTERM when dropped.
pub struct Up {
    process: Child,
    pub ready: Value,
}

impl Up {
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    /// The same with variables of the environment.
    pub fn start_with(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_geo-events"))
            .args(["up", "--json", "--no-client", "--ports", "auto"])
            .args(args)
            .env_remove("RUST_BACKTRACE")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(&mut process);
        let line = lines
            .recv_timeout(DEADLINE)
            .expect("`up` prints its ready line");
        let ready: Value = serde_json::from_str(&line).expect("the ready line is JSON");
        assert_eq!(ready["event"], "ready");
        Self { process, ready }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its child processes: the handlers.
    #[cfg(unix)]
    pub fn children(&self) -> Vec<u32> {
        let output = Command::new("ps")
            .args(["-A", "-o", "pid=,ppid="])
            .output()
            .expect("ps runs");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| {
                let (id, of) = line.trim().split_once(' ')?;
                (of.trim().parse() == Ok(self.id())).then(|| id.parse().unwrap())
            })
            .collect()
    }

    pub fn regions(&self) -> Vec<String> {
        self.ready["regions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// URL of the Functions host of the region with this index.
    pub fn functions(&self, region: usize) -> &str {
        self.ready["regions"][region]["functions"].as_str().unwrap()
    }

    pub fn control(&self, path: &str) -> String {
        format!(
            "{}/control/{path}",
            self.ready["dashboard"].as_str().unwrap()
        )
    }

    /// Ends the process as a crash or `kill -9` does.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let terminated = Command::new("kill")
                .arg(self.process.id().to_string())
                .status();
            if terminated.is_ok_and(|status| status.success()) {
                let _ = eventually("`up` has stopped", || {
                    self.process.try_wait().ok().flatten()
                });
            } else {
                let _ = self.process.kill();
            }
        }
        let _ = self.process.wait();
    }
}

/// A browser's console without a browser: `@microsoft/signalr` under Node, connected to one region.
pub struct Console {
    process: Child,
    _stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Console {
    pub fn connect(functions: &str) -> Self {
        let folder = npm_package("console");
        let mut process = Command::new("node")
            .arg(folder.join("listen.mjs"))
            .arg(functions)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need Node.js 20 or newer");
        let console = Self {
            lines: lines_of(&mut process),
            _stdin: process.stdin.take().unwrap(),
            process,
        };
        let line = console
            .lines
            .recv_timeout(DEADLINE)
            .expect("the client connects");
        assert_eq!(line, r#"{"connected":true}"#);
        console
    }

    /// The next pushed event (`{"event": …, "receivedAt": ms}`), or `None` when none came in time.
    pub fn next(&self, within: Duration) -> Option<Value> {
        match self.lines.recv_timeout(within) {
            Ok(line) => Some(serde_json::from_str(&line).unwrap()),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the client has ended"),
        }
    }

    /// The ids of the next `count` pushed events.
    pub fn ids(&self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut ids = Vec::new();
        while ids.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(line) = self.next(left) else {
                panic!("{} of {count} events were pushed", ids.len());
            };
            ids.push(line["event"]["id"].as_str().unwrap().to_owned());
        }
        ids
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The lines that a process writes to its stdout.
pub fn lines_of(process: &mut Child) -> Receiver<String> {
    let stdout = process.stdout.take().unwrap();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// `tests/clients/{name}`, with its packages installed.
pub fn npm_package(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name);
    // Several test programs may run at once, and only one may install.
    let lock = std::fs::File::create(folder.join(".install.lock")).unwrap();
    lock.lock().unwrap();
    if !folder.join("node_modules/.package-lock.json").exists() {
        let status = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .stdout(std::io::stderr())
            .status()
            .expect("these tests need npm");
        assert!(status.success(), "npm ci failed in {}", folder.display());
    }
    folder
}

/// A program in `tests/clients/{folder}` and the Python that has what its `requirements.txt` asks for.
pub fn python_program(folder: &str, program: &str) -> (PathBuf, PathBuf) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(folder);
    let python = folder.join(".venv/bin/python");
    // Several test programs may run at once, and only one may install.
    let lock = std::fs::File::create(folder.join(".install.lock")).unwrap();
    lock.lock().unwrap();
    let complete = folder.join(".venv/.complete");
    if !complete.exists() {
        let run = |command: &mut Command| {
            let status = command
                .current_dir(&folder)
                .stdout(std::io::stderr())
                .status()
                .expect("these tests need Python 3.9 or newer");
            assert!(status.success(), "{command:?} failed");
        };
        run(Command::new("python3").args(["-m", "venv", ".venv"]));
        run(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "-r",
            "requirements.txt",
        ]));
        std::fs::File::create(complete).unwrap();
    }
    (python, folder.join(program))
}

/// Looks at a condition until it holds, and returns what it then is.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> Result<T, String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            return Err(format!("did not come true: {what}"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}
