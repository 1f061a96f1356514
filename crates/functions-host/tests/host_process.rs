//! The handler process under a whole host: start, crash, restart, end.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Log, Root, SUPPORT, eventually, within};
use functions_host::{FunctionsHost, HostEvent, HostState};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

async fn status(host: &FunctionsHost, path: &str) -> StatusCode {
    let call = Client::new().get(format!("{}{path}", host.url())).send();
    within("an answer", call).await.unwrap().status()
}

fn variable<'a>(start: &'a Value, name: &str) -> &'a str {
    start["environment"][name].as_str().unwrap_or_default()
}

#[tokio::test]
async fn the_handler_starts_with_its_variables_in_the_script_root() {
    let log = Log::capture();
    let root = Root::new(json!({"customHandler": {"description": {
        "arguments": ["handler", "--port", "%FUNCTIONS_CUSTOMHANDLER_PORT%", "%NOPE%", "two words", "%REGION%"],
    }}}));
    root.http("F", json!({"echo": true}));
    let host = root
        .builder()
        .setting("REGION", "\"West US\"")
        .setting(
            "HANDLER_STDERR",
            "cannot open AccountKey=topsecret; bad luck",
        )
        .start()
        .await
        .unwrap();
    let start = &root.starts()[0];
    let port = variable(start, "FUNCTIONS_CUSTOMHANDLER_PORT");
    assert!(port.parse::<u16>().unwrap() > 0);
    assert_eq!(variable(start, "FUNCTIONS_HTTPWORKER_PORT"), port);
    let id = variable(start, "FUNCTIONS_CUSTOMHANDLER_WORKER_ID");
    assert_eq!(
        (id.len(), variable(start, "FUNCTIONS_HTTPWORKER_ID")),
        (36, id)
    );
    let root_path = std::fs::canonicalize(root.path()).unwrap();
    assert_eq!(
        variable(start, "FUNCTIONS_APP_ROOT_PATH"),
        root_path.to_str().unwrap()
    );
    assert_eq!(start["directory"], root_path.to_str().unwrap());
    assert_eq!(variable(start, "FUNCTIONS_CORETOOLS_ENVIRONMENT"), "True");
    assert_eq!(
        variable(start, "AZURE_FUNCTIONS_ENVIRONMENT"),
        "Development"
    );
    let own_port = host.url().rsplit(':').next().unwrap().to_owned();
    assert_eq!(
        variable(start, "WEBSITE_HOSTNAME"),
        format!("localhost:{own_port}")
    );
    assert_eq!(variable(start, "PATH"), std::env::var("PATH").unwrap());
    assert_eq!(
        start["arguments"],
        json!(["handler", "--port", port, "two", "words", "West US"])
    );
    assert_eq!(u64::from(host.status().handler_pid.unwrap()), start["pid"]);

    assert_eq!(status(&host, "/api/f").await, StatusCode::OK);
    eventually("the handler's lines are logged", || {
        let text = log.text();
        (text.contains("handler says hello") && text.contains("bad luck")).then_some(())
    })
    .await;
    let text = log.text();
    let line = |part: &str| {
        text.lines()
            .find(|line| line.contains(part))
            .unwrap()
            .to_owned()
    };
    assert!(line("handler says hello").contains("INFO"));
    assert!(line("bad luck").contains("ERROR"));
    assert!(line("echoed").contains("Function.F.User"));
    assert!(!text.contains("topsecret"), "{text}");
    host.stop().await;
}

#[tokio::test]
async fn without_functions_there_is_no_handler() {
    let root = Root::new(json!({}));
    let host = root.start().await;
    assert_eq!(host.status().handler_pid, None);
    assert_eq!(host.status().state, HostState::Running);
    assert_eq!(status(&host, "/api/f").await, StatusCode::NOT_FOUND);
    assert_eq!(root.starts().len(), 0);
    host.stop().await;
}

#[tokio::test]
async fn two_crashes_are_survived_on_the_same_port_and_the_third_ends_the_host() {
    let root = Root::new(json!({}));
    root.http("Crash", json!({"abort": true}));
    root.http("Exit", json!({"exit": 3}));
    root.http("Fine", json!({}));
    let host = root.start().await;
    let mut events = host.subscribe();
    for (path, lives) in [("/api/crash", 2), ("/api/exit", 3)] {
        assert_eq!(status(&host, path).await, StatusCode::INTERNAL_SERVER_ERROR);
        // Arrives while the handler is starting again, and waits.
        assert_eq!(status(&host, "/api/fine").await, StatusCode::NO_CONTENT);
        assert_eq!(root.starts().len(), lives);
    }
    let starts = root.starts();
    let of =
        |name: &str| -> Vec<&str> { starts.iter().map(|start| variable(start, name)).collect() };
    let ports = of("FUNCTIONS_CUSTOMHANDLER_PORT");
    assert_eq!((ports[0], ports[0]), (ports[1], ports[2]));
    let ids = of("FUNCTIONS_CUSTOMHANDLER_WORKER_ID");
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);

    assert_eq!(
        status(&host, "/api/exit").await,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    let error = within("the host ends", host.ended())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("failure 3") && error.contains("exit status: 3"),
        "{error}"
    );
    assert_eq!(host.status().state, HostState::Stopped);
    assert_eq!(root.starts().len(), 3);
    let mut failed = false;
    while let Ok(event) = events.try_recv() {
        failed |= matches!(event, HostEvent::Failed { .. });
    }
    assert!(failed, "no event tells of the end");
}

#[tokio::test]
async fn exit_code_200_restarts_uncounted_and_exit_code_0_does_not_restart() {
    let root = Root::new(json!({}));
    root.http("Again", json!({"exit": 200}));
    root.http("Leave", json!({"exit": 0}));
    root.http("Fine", json!({}));
    let host = root.start().await;
    for lives in 2..=5 {
        assert_eq!(
            status(&host, "/api/again").await,
            StatusCode::INTERNAL_SERVER_ERROR
        );
        assert_eq!(status(&host, "/api/fine").await, StatusCode::NO_CONTENT);
        assert_eq!(root.starts().len(), lives);
    }
    assert_eq!(
        status(&host, "/api/leave").await,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    eventually("the handler is gone", || {
        host.status().handler_pid.is_none().then_some(())
    })
    .await;
    assert_eq!(
        status(&host, "/api/fine").await,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    assert_eq!(host.status().state, HostState::Running);
    assert_eq!(root.starts().len(), 5);
    host.stop().await;
}

#[tokio::test]
async fn a_handler_that_never_answers_is_tried_three_times() {
    let root = Root::new(json!({"customHandler": {"initializationTimeout": "00:00:00.5"}}));
    root.http("F", json!({}));
    let start = root.builder().setting("HANDLER_NEVER_LISTEN", "1").start();
    let error = within("the host gives up", start)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("did not answer") && error.contains("FUNCTIONS_CUSTOMHANDLER_PORT"),
        "{error}"
    );
    assert_eq!(root.starts().len(), 3);
}

#[tokio::test]
async fn a_handler_that_fails_at_start_is_quoted() {
    let root = Root::new(json!({}));
    root.http("F", json!({}));
    let start = root
        .builder()
        .setting("HANDLER_EXIT_ON_START", "7")
        .setting("HANDLER_STDERR", "no such database")
        .start();
    let error = within("the host gives up", start)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("exit status: 7") && error.contains("no such database"),
        "{error}"
    );
}

#[tokio::test]
async fn what_cannot_start_is_named() {
    let root = Root::new(
        json!({"customHandler": {"description": {"defaultExecutablePath": "no-such-program"}}}),
    );
    root.http("F", json!({}));
    let error = root.builder().start().await.unwrap_err().to_string();
    assert!(
        error.contains("no-such-program") && error.contains("customHandler"),
        "{error}"
    );

    let error = FunctionsHost::builder("/no/such/root")
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("/no/such/root"), "{error}");

    let empty = tempfile::tempdir().unwrap();
    let error = FunctionsHost::builder(empty.path())
        .port(0)
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("host.json"), "{error}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = root
        .builder()
        .port(port)
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(&port.to_string()), "{error}");

    root.write("local.settings.json", r#"{"Values":{}}"#);
    let error = root.builder().start().await.unwrap_err().to_string();
    assert!(error.contains("IsEncrypted"), "{error}");
}

#[tokio::test]
async fn a_function_that_takes_too_long_fails_and_the_handler_is_replaced_uncounted() {
    let root = Root::new(json!({"functionTimeout": "00:00:01"}));
    root.http("Slow", json!({"waitFor": "never"}));
    root.http("Fine", json!({}));
    let host = root.start().await;
    for lives in 2..=4 {
        assert_eq!(
            status(&host, "/api/slow").await,
            StatusCode::INTERNAL_SERVER_ERROR
        );
        assert_eq!(status(&host, "/api/fine").await, StatusCode::NO_CONTENT);
        eventually("a new handler", || {
            (root.starts().len() == lives).then_some(())
        })
        .await;
    }
    assert_eq!(host.status().state, HostState::Running);
    host.stop().await;
}

#[tokio::test]
async fn a_strict_host_waits_on_an_empty_reply_like_the_real_one() {
    let root = Root::new(json!({"functionTimeout": "00:00:01"}));
    root.http("Empty", json!({"body": ""}));
    let host = root
        .builder()
        .strict_empty_replies(true)
        .start()
        .await
        .unwrap();
    let started = Instant::now();
    assert_eq!(
        status(&host, "/api/empty").await,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "it did not wait"
    );
    host.stop().await;
}

#[tokio::test]
async fn a_stop_lets_the_running_invocation_finish_and_frees_the_port() {
    let root = Root::new(json!({}));
    root.http(
        "F",
        json!({"waitFor": "go", "body": r#"{"Outputs":{"res":{"body":"done"}}}"#}),
    );
    let host = root.start().await;
    let port: u16 = host.url().rsplit(':').next().unwrap().parse().unwrap();
    let call = tokio::spawn(Client::new().get(format!("{}/api/f", host.url())).send());
    eventually("the request arrives", || {
        (root.requests().len() == 1).then_some(())
    })
    .await;
    let stop = tokio::spawn({
        let host = host.clone();
        async move { host.stop().await }
    });
    eventually("the host is stopping", || {
        (host.status().state == HostState::Stopping).then_some(())
    })
    .await;
    root.write("go", "");
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.text().await.unwrap(), "done");
    within("the stop", stop).await.unwrap();
    assert_eq!(host.status().state, HostState::Stopped);
    within("a successor", root.builder().port(port).start())
        .await
        .unwrap()
        .stop()
        .await;
}

#[tokio::test]
async fn hosts_with_different_settings_live_in_one_process() {
    let root = Root::new(json!({}));
    root.http("F", json!({}));
    let west = root
        .builder()
        .label("West US")
        .setting("REGION", "West US")
        .start()
        .await
        .unwrap();
    let north = root
        .builder()
        .label("North Europe")
        .setting("REGION", "North Europe")
        .start()
        .await
        .unwrap();
    let regions: Vec<_> = root
        .starts()
        .iter()
        .map(|start| variable(start, "REGION").to_owned())
        .collect();
    assert_eq!(regions, ["West US", "North Europe"]);
    assert!(std::env::var_os("REGION").is_none());
    west.stop().await;
    assert_eq!(status(&north, "/api/f").await, StatusCode::NO_CONTENT);
    north.stop().await;
}

#[tokio::test]
async fn a_changed_function_restarts_the_script_host() {
    let root = Root::new(json!({}));
    root.http("First", json!({}));
    let host = root.start().await;
    assert_eq!(status(&host, "/api/second").await, StatusCode::NOT_FOUND);
    root.http("Second", json!({}));
    eventually("the new function is loaded", || {
        (host.functions().len() == 2).then_some(())
    })
    .await;
    assert_eq!(status(&host, "/api/second").await, StatusCode::NO_CONTENT);
    assert_eq!(root.starts().len(), 2);

    let good = std::fs::read_to_string(root.path().join("host.json")).unwrap();
    root.write("host.json", r#"{"version":"1.0"}"#);
    eventually("the broken file is noticed", || {
        (host.status().state == HostState::Error).then_some(())
    })
    .await;
    assert_eq!(
        status(&host, "/api/second").await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let shown: Value = Client::new()
        .get(format!("{}/admin/host/status", host.url()))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(shown["state"], "Error");
    assert!(
        shown["errors"][0].as_str().unwrap().contains("version"),
        "{shown}"
    );
    root.write("host.json", &good);
    eventually("the good file is noticed", || {
        (host.status().state == HostState::Running).then_some(())
    })
    .await;
    assert_eq!(status(&host, "/api/second").await, StatusCode::NO_CONTENT);
    host.stop().await;
}

#[tokio::test]
async fn an_admin_can_ask_for_a_restart() {
    let root = Root::new(json!({}));
    root.http("F", json!({}));
    let host = root.start().await;
    let first = host.status().handler_pid;
    let restart = Client::new().post(format!("{}/admin/host/restart", host.url()));
    assert_eq!(restart.send().await.unwrap().status(), StatusCode::OK);
    eventually("another handler", || {
        let pid = host.status().handler_pid;
        (pid.is_some() && pid != first).then_some(())
    })
    .await;
    host.stop().await;
}

#[cfg(target_os = "linux")]
mod ends {
    use super::*;
    use common::alive;
    use std::io::BufRead as _;

    #[tokio::test]
    async fn a_stop_ends_the_handler_and_what_it_started() {
        let root = Root::new(json!({}));
        root.http("F", json!({}));
        let host = root
            .builder()
            .setting("HANDLER_GRANDCHILD", "1")
            .setting("HANDLER_IGNORE_TERM", "1")
            .start()
            .await
            .unwrap();
        let pid = host.status().handler_pid.unwrap();
        let grandchild = u32::try_from(root.starts()[0]["grandchild"].as_u64().unwrap()).unwrap();
        assert!(alive(pid) && alive(grandchild));
        host.stop().await;
        assert!(!alive(pid));
        eventually("the grandchild is gone", || {
            (!alive(grandchild)).then_some(())
        })
        .await;
    }

    #[tokio::test]
    async fn dropping_the_last_handle_stops_the_host() {
        let root = Root::new(json!({}));
        root.http("F", json!({}));
        let host = root.start().await;
        let pid = host.status().handler_pid.unwrap();
        drop(host);
        eventually("the handler is gone", || (!alive(pid)).then_some(())).await;
    }

    #[tokio::test]
    async fn a_killed_host_leaves_no_handler_behind() {
        let root = Root::new(json!({}));
        root.http("F", json!({}));
        let mut host = std::process::Command::new(SUPPORT)
            .arg("host")
            .arg(root.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = host.stdout.take().unwrap();
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            std::io::BufReader::new(stdout)
                .read_line(&mut line)
                .unwrap();
            line
        });
        let line = within("the host is ready", line).await.unwrap();
        let pid: u32 = line.trim().strip_prefix("ready ").unwrap().parse().unwrap();
        assert!(alive(pid));
        // SIGKILL: the host has no chance to clean up.
        host.kill().unwrap();
        host.wait().unwrap();
        eventually("the handler is gone", || (!alive(pid)).then_some(())).await;
    }
}
