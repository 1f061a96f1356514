//! `geo-events package`: what is written is what a Functions host can start.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use geo_events::{
    functions::Function,
    package::{EXECUTABLE, HOST_JSON, check, write_script_root},
};
use serde_json::Value;
use tempfile::TempDir;

fn package(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_geo-events"))
        .arg("package")
        .args(args)
        .output()
        .expect("runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[track_caller]
fn refused(output: &Output, part: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(part), "{error}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path)
            } else {
                found.push(path.strip_prefix(dir).expect("inside").to_owned())
            }
        }
    }
    found.sort();
    found
}

#[cfg(target_os = "linux")]
#[test]
fn writes_a_script_root_and_the_same_as_a_zip_file() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = TempDir::new().expect("a folder");
    let out = dir.path().join("new/app");
    let output = package(&["--out", text(&out), "--zip"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    assert_eq!(check::check(&out), Ok(Function::ALL.len()));
    let mode = fs::metadata(out.join(EXECUTABLE))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(
        fs::read_to_string(out.join("host.json")).expect("there"),
        HOST_JSON
    );
    for function in Function::ALL {
        let definition =
            fs::read_to_string(out.join(function.name()).join("function.json")).expect("there");
        assert_eq!(definition, function.definition());
    }

    let zip = fs::File::open(dir.path().join("new/app.zip")).expect("there");
    let mut zip = zip::ZipArchive::new(zip).expect("a zip file");
    let mut names: Vec<_> = zip
        .file_names()
        .map(|name| name.expect("a name").into_owned())
        .collect();
    names.sort();
    let mut expected: Vec<_> = Function::ALL
        .iter()
        .map(|function| format!("{}/function.json", function.name()))
        .collect();
    expected.extend([EXECUTABLE.to_owned(), "host.json".to_owned()]);
    expected.sort();
    assert_eq!(names, expected);
    for name in &names {
        let mut entry = zip.by_name(name).expect("there");
        let mode = if name == EXECUTABLE { 0o755 } else { 0o644 };
        assert_eq!(
            entry.unix_mode().map(|mode| mode & 0o777),
            Some(mode),
            "{name}"
        );
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("unzips");
        assert!(
            content == fs::read(out.join(name)).expect("there"),
            "{name} differs"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn writes_its_own_folder_anew_and_keeps_what_others_put_there() {
    let dir = TempDir::new().expect("a folder");
    let out = text(dir.path());
    assert!(
        package(&["--out", out, "--local-settings"])
            .status
            .success()
    );
    let first = files(dir.path());
    fs::write(dir.path().join("notes.txt"), "mine").expect("writable");
    // As if an earlier version had had one function more.
    fs::create_dir(dir.path().join("Old")).expect("writable");
    fs::write(dir.path().join("Old/function.json"), "{}").expect("writable");
    let list = dir.path().join(".geo-events-package");
    let content = fs::read_to_string(&list).expect("there");
    fs::write(&list, format!("{content}Old/function.json\n../outside\n")).expect("writable");

    assert!(
        package(&["--out", out, "--local-settings"])
            .status
            .success()
    );
    let mut expected = first;
    expected.push("notes.txt".into());
    expected.sort();
    assert_eq!(files(dir.path()), expected);
    assert!(!dir.path().join("Old").exists());
}

#[test]
fn touches_no_folder_of_others() {
    let dir = TempDir::new().expect("a folder");
    fs::write(dir.path().join("notes.txt"), "mine").expect("writable");
    let output = package(&[
        "--out",
        text(dir.path()),
        "--executable",
        env!("CARGO_BIN_EXE_geo-events"),
    ]);
    #[cfg(target_os = "linux")]
    refused(
        &output,
        "is not empty and was not written by `geo-events package`",
    );
    #[cfg(not(target_os = "linux"))]
    refused(&output, "cannot run in Azure");
    assert_eq!(files(dir.path()), [PathBuf::from("notes.txt")]);

    #[cfg(target_os = "linux")]
    refused(
        &package(&["--out", text(&dir.path().join("notes.txt"))]),
        "is not a folder",
    );
}

#[test]
fn an_executable_that_azure_cannot_start_is_refused_before_anything_is_written() {
    let dir = TempDir::new().expect("a folder");
    let script = dir.path().join("app.sh");
    fs::write(&script, "#!/bin/sh\n").expect("writable");
    let out = dir.path().join("out");
    refused(
        &package(&["--out", text(&out), "--executable", text(&script)]),
        "is not a Linux executable (ELF)",
    );
    refused(
        &package(&["--out", text(&out), "--executable", "/nowhere"]),
        "cannot be read",
    );
    assert!(!out.exists());
}

#[test]
fn a_local_script_root_starts_the_very_executable() {
    let dir = TempDir::new().expect("a folder");
    let executable = Path::new(env!("CARGO_BIN_EXE_geo-events"));
    write_script_root(dir.path(), executable).expect("written");
    assert_eq!(check::check(dir.path()), Ok(Function::ALL.len()));
    let output = Command::new(dir.path().join(EXECUTABLE))
        .arg("--version")
        .output()
        .expect("runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        format!("geo-events {}", env!("CARGO_PKG_VERSION"))
    );
    // And again, as a host that is started twice does.
    write_script_root(dir.path(), executable).expect("written anew");
}

#[test]
fn local_settings_have_everything_that_the_bindings_ask_for() {
    let settings: Value = serde_json::from_str(geo_events::package::LOCAL_SETTINGS).expect("JSON");
    assert_eq!(settings["IsEncrypted"], false);
    let values = settings["Values"].as_object().expect("values");
    assert_eq!(values["FUNCTIONS_WORKER_RUNTIME"], "custom");
    assert!(settings["Host"]["CORS"].is_string());
    for function in Function::ALL {
        let definition: Value = serde_json::from_str(function.definition()).expect("JSON");
        for binding in definition["bindings"].as_array().expect("bindings") {
            for key in ["connection", "connectionStringSetting"] {
                if let Some(name) = binding.get(key) {
                    assert!(
                        values.contains_key(name.as_str().expect("text")),
                        "{name} is not in local.settings.json"
                    );
                }
            }
        }
        for setting in function.definition().split('%').skip(1).step_by(2) {
            assert!(
                values.contains_key(setting),
                "{setting} is not in local.settings.json"
            );
        }
    }
}

/// `func start` finds what `geo-events up --services-only` starts.
#[cfg(feature = "local")]
#[test]
fn local_settings_fit_the_local_signalr() {
    let key = signalr_local::LOCAL_ACCESS_KEY;
    let settings = geo_events::package::LOCAL_SETTINGS;
    assert!(
        settings.contains(&format!("AccessKey={key};")),
        "AzureSignalRConnectionString has another key"
    );
}
