//! The system without keys, signed in as in Azure: by managed identities, in the functions host and in the handler.
//!
//! `GEO_EVENTS_SCRIPT_ROOT` may name a script root to test, such as the one that is deployed; without it the functions are
//! those of this build.
#![cfg(all(feature = "local", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::process::Command;

use support::Up;

#[test]
fn everything_works_without_a_key() {
    let script_root = std::env::var("GEO_EVENTS_SCRIPT_ROOT").ok();
    let mut args = vec!["--keyless", "--regions", "West US,North Europe"];
    if let Some(dir) = &script_root {
        args.extend(["--script-root", dir]);
    }
    let up = Up::start(&args);

    // No handler has been given a key.
    for handler in up.children() {
        let environment = std::fs::read(format!("/proc/{handler}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        assert!(!environment.contains("AccountKey") && !environment.contains("AccessKey"));
    }

    // Bindings of both services, the change feed, and the handler's own way to Cosmos DB (health).
    let smoke = Command::new(env!("CARGO_BIN_EXE_geo-events"))
        .arg("smoke")
        .args(["--url", up.functions(0), "--url", up.functions(1)])
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&smoke.stdout),
        String::from_utf8_lossy(&smoke.stderr),
    );
    assert!(smoke.status.success(), "{out}{err}");
    assert_eq!(out.matches(": push (").count(), 2, "{out}");
}

#[test]
fn a_script_root_that_is_none_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_geo-events"))
        .args(["up", "--ports", "auto", "--script-root", "/nowhere/at/all"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("/nowhere/at/all"), "{error}");
}
