//! `stackroom doctor`, the real program against a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod common;

use common::Serving;
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};

fn doctor(serving: &Serving, arguments: &[&str]) -> Output {
    let url = format!("http://127.0.0.1:{}", serving.port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_stackroom"));
    command.args(["doctor", &url, "--data"]).arg(&serving.data).args(arguments);
    for name in ["STACKROOM_TOKEN", "STACKROOM_TABLE", "STACKROOM_BUCKET"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn statuses(report: &Value) -> Vec<(&str, &str)> {
    let probes = report["probes"].as_array().unwrap();
    probes.iter().map(|one| (one["probe"].as_str().unwrap(), one["status"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn the_command_says_what_it_saw_and_fails_if_anything_is_wrong() {
    let serving = Serving::start("doctor", Stdio::null());
    let url = format!("http://127.0.0.1:{}", serving.port);
    // The first answer comes after the first administrator was made.
    reqwest::get(format!("{url}/version")).await.unwrap();

    // Of this machine's library it takes the operator's token.
    let well = doctor(&serving, &["--json"]);
    let report: Value = serde_json::from_slice(&well.stdout).unwrap_or_else(|_| panic!("{well:?}"));
    assert!(well.status.success() && report["ok"] == json!(true), "{report:#}");
    let seen = statuses(&report);
    assert!(seen.contains(&("pinned-put", "ok")) && seen.contains(&("cleanup", "ok")), "{seen:?}");
    assert!(seen.contains(&("large-push", "skipped")), "{seen:?}");

    // Without a token, it says what it did not try.
    let anonymous = doctor(&serving, &["--token", ""]);
    let said = String::from_utf8(anonymous.stdout).unwrap();
    assert!(anonymous.status.success(), "{said}");
    let line = |name: &str| said.lines().find(|line| line.contains(name)).unwrap();
    assert!(line(" challenge ").starts_with("ok "), "{said}");
    assert!(line(" pinned-put ").starts_with("skipped ") && line(" pinned-put ").contains("token"), "{said}");

    // Under another name than its own, clients are sent elsewhere.
    let mut command = Command::new(env!("CARGO_BIN_EXE_stackroom"));
    command.args(["doctor", &format!("http://localhost:{}", serving.port), "--token", ""]);
    let wrong = command.env_remove("STACKROOM_TABLE").env_remove("STACKROOM_BUCKET").output().unwrap();
    let said = String::from_utf8(wrong.stdout).unwrap();
    assert!(!wrong.status.success(), "{said}");
    assert!(said.contains("FAILED   addresses") && said.contains("STACKROOM_PUBLIC_URL"), "{said}");

    // Nothing is left, and nothing answers where there is nothing.
    let mut command = Command::new(env!("CARGO_BIN_EXE_stackroom"));
    command.args(["ls", "admin", "--url", &url, "--data"]).arg(&serving.data).env_remove("STACKROOM_TOKEN");
    let listed = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(!listed.contains("doctor-"), "{listed}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_stackroom"));
    let nobody = command.args(["doctor", "http://127.0.0.1:1", "--token", "x", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&nobody.stdout).unwrap_or_else(|_| panic!("{nobody:?}"));
    assert!(!nobody.status.success() && report["ok"] == json!(false));
    assert!(statuses(&report).contains(&("challenge", "skipped")), "{report:#}");
}
