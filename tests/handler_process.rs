//! The handler as a Functions host treats it: started, stopped, killed, started again.
#![cfg(unix)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

/// Longest wait for anything. Nothing here takes more than a moment on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .expect("a free port")
        .local_addr()
        .expect("an address")
        .port()
}

fn handler(port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_geo-events"));
    command
        .arg("serve")
        .env_clear()
        .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
        .env("REGION", "West US")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A running handler, killed at the end whatever happens.
struct Handler {
    child: Child,
    lines: Receiver<String>,
    address: SocketAddr,
}

impl Handler {
    fn start(port: u16) -> Self {
        Self::spawn(handler(port), port)
    }

    fn spawn(mut command: Command, port: u16) -> Self {
        let mut child = command.spawn().expect("the handler starts");
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let handler = Self {
            child,
            lines,
            address: (Ipv4Addr::LOCALHOST, port).into(),
        };
        handler.wait_for_line("serving");
        handler
    }

    fn wait_for_line(&self, part: &str) -> String {
        let started = Instant::now();
        loop {
            let left = DEADLINE.checked_sub(started.elapsed()).unwrap_or_default();
            let line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|error| panic!("no line with {part:?}: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the handler listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    fn wait(mut self) -> ExitStatus {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the handler does not end");
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .status()
        .expect("kill runs");
    assert!(status.success(), "process {process} cannot be signalled");
}

/// Reads the head of an answer, and the body that its `Content-Length` announces.
fn read_answer(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(
            stream.read(&mut byte).expect("an answer"),
            1,
            "the connection ended: {:?}",
            String::from_utf8_lossy(&head)
        );
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |n| n.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    (head, String::from_utf8(body).expect("text"))
}

#[test]
fn is_ready_at_any_answer_and_serves_at_once() {
    let handler = Handler::start(free_port());
    let mut stream = handler.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    assert!(read_answer(&mut stream).0.starts_with("http/1.1 200"));
}

#[test]
fn an_invocation_in_flight_finishes_before_the_end() {
    let handler = Handler::start(free_port());
    // A connection that the host keeps for later must not hold up the end.
    let mut idle = handler.connect();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    read_answer(&mut idle);

    let body = include_str!("payloads/WriteEvent/one.json");
    let mut stream = handler.connect();
    let head = format!(
        "POST /WriteEvent HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    assert!(read_answer(&mut stream).0.starts_with("http/1.1 100"));
    let (first, second) = body.split_at(body.len() / 2);
    stream.write_all(first.as_bytes()).expect("sent");

    handler.signal("TERM");
    let line = handler.wait_for_line(" stopping ");
    assert!(line.contains("in_flight=1"), "{line}");
    stream.write_all(second.as_bytes()).expect("sent");
    let (head, reply) = read_answer(&mut stream);
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    assert!(reply.contains("\"statusCode\":201"), "{reply}");
    assert_eq!(handler.wait().code(), Some(143));
}

#[test]
fn never_ends_with_code_0_because_the_host_would_not_start_it_again() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let handler = Handler::start(free_port());
        handler.signal(name);
        assert_eq!(handler.wait().code(), Some(code));
    }
}

#[test]
fn listens_on_the_same_port_again_right_after_it_was_killed() {
    let port = free_port();
    for _ in 0..3 {
        let handler = Handler::start(port);
        // The killed side of an open connection is what would keep the port.
        let mut stream = handler.connect();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("sent");
        read_answer(&mut stream);
        handler.signal("KILL");
        assert_eq!(handler.wait().code(), None);
    }
}

#[test]
fn ends_when_its_host_is_gone() {
    let port = free_port();
    // A host that starts the handler, names it, and is then killed without a chance to stop it.
    let mut host = Command::new("/bin/sh")
        .args([
            "-c",
            "\"$0\" serve >/dev/null & echo $!; wait",
            env!("CARGO_BIN_EXE_geo-events"),
        ])
        .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
        .env(
            "FUNCTIONS_CUSTOMHANDLER_WORKER_ID",
            "5b0c1c0e-6f5a-4f0e-9d44-0c7e1d2c3b4a",
        )
        .env("REGION", "West US")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the host starts");
    let mut process = String::new();
    BufReader::new(host.stdout.take().expect("piped"))
        .read_line(&mut process)
        .expect("a line");
    let started = Instant::now();
    let eventually = |what: &str, condition: &dyn Fn() -> bool| {
        while !condition() {
            if started.elapsed() > DEADLINE {
                signal(process.trim().parse().expect("a process id"), "KILL");
                panic!("{what} does not happen");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    eventually("listening", &|| {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
    host.kill().expect("killed");
    host.wait().expect("waits");
    eventually("the end of the handler", &|| {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
    });
}

#[test]
fn says_which_setting_is_wrong_and_shows_no_secret() {
    let port = free_port();
    for (name, value, expected) in [
        ("REGION", "", "REGION is missing"),
        (
            "NOTIFICATION_SCOPE",
            "some",
            "NOTIFICATION_SCOPE cannot be `some`",
        ),
        (
            "FUNCTIONS_CUSTOMHANDLER_PORT",
            "",
            "FUNCTIONS_CUSTOMHANDLER_PORT is missing",
        ),
        (
            "CosmosDBConnection",
            "AccountKey=c2VjcmV0;",
            "CosmosDBConnection cannot be used",
        ),
        ("LOG_FORMAT", "xml", "LOG_FORMAT cannot be `xml`"),
        ("RUST_LOG", "a=b=c", "RUST_LOG cannot be read"),
    ] {
        let output = handler(port)
            .env(name, value)
            .output()
            .expect("the handler runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        assert!(error.contains(expected), "{name}: {error}");
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let output = handler(port).output().expect("the handler runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{error}"
    );
}

#[test]
fn logs_name_region_and_invocation_and_no_token() {
    let port = free_port();
    let mut command = handler(port);
    command.env("LOG_FORMAT", "json").env("RUST_LOG", "trace");
    let handler = Handler::spawn(command, port);
    let invoke = |path: &str, body: &str| {
        let mut stream = handler.connect();
        let head = format!(
            "POST /{path} HTTP/1.1\r\nHost: x\r\nX-Azure-Functions-InvocationId: 1f0c7a52\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body.as_bytes()).expect("sent");
        read_answer(&mut stream)
    };
    let (_, reply) = invoke("negotiate", include_str!("payloads/negotiate/info.json"));
    assert!(
        reply.contains("eyJhbGciOiJIUzI1NiJ9"),
        "the token is passed on: {reply}"
    );
    invoke(
        "WriteEvent",
        include_str!("payloads/WriteEvent/invalid-batch.json"),
    );
    let mut lines = Vec::new();
    loop {
        let line = handler.lines.recv_timeout(DEADLINE).expect("a line");
        let found = line.contains("refused");
        lines.push(line);
        if found {
            break;
        }
    }
    let refused: serde_json::Value =
        serde_json::from_str(lines.last().expect("a line")).expect("JSON");
    assert_eq!(refused["span"]["region"], "West US", "{refused}");
    assert_eq!(refused["span"]["function"], "WriteEvent", "{refused}");
    assert_eq!(refused["span"]["id"], "1f0c7a52", "{refused}");
    for line in lines {
        assert!(!line.contains("eyJhbGciOiJIUzI1NiJ9"), "{line}");
    }
}
