//! `stackroom admin scrub`, the real program against a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod common;

use common::Serving;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn scrub(serving: &Serving, more: &[&str]) -> Output {
    let url = format!("http://127.0.0.1:{}", serving.port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_stackroom"));
    command.args(["admin", "--url", &url, "--data"]).arg(&serving.data).args(["--json", "scrub"]).args(more);
    command.env_remove("STACKROOM_TOKEN").output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// The only file of an object.
fn object_file(serving: &Serving) -> PathBuf {
    let folders = fs::read_dir(serving.data.join("objects")).unwrap().map(|folder| folder.unwrap().path());
    let mut files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    let file = files.next().unwrap();
    assert_eq!(files.next(), None);
    file
}

#[tokio::test]
async fn a_scrub_reports_what_is_wrong_continues_where_it_stopped_and_fails() {
    let serving = Serving::start("scrub", Stdio::null());
    let client = reqwest::Client::new();
    let url = format!("http://127.0.0.1:{}", serving.port);
    // The first answer comes after the first administrator was made.
    client.get(format!("{url}/version")).send().await.unwrap();
    let token = fs::read_to_string(serving.data.join("admin.token")).unwrap();
    let opened =
        client.post(format!("{url}/v2/admin/x/blobs/uploads/")).bearer_auth(token.trim()).send().await.unwrap();
    let location = opened.headers()["location"].to_str().unwrap().to_owned();
    let bytes = vec![7u8; 3_000_000];
    let digest = shared::domain::Digest::of(&bytes).to_string();
    let close = format!("{url}{location}&digest={digest}");
    let closed = client.put(close).bearer_auth(token.trim()).body(bytes).send().await.unwrap();
    assert_eq!(closed.status().as_u16(), 201);

    let clean = scrub(&serving, &["--rate", "0"]);
    assert!(clean.status.success(), "{clean:?}");
    assert_eq!(report(&clean), json!({ "objects": 1, "bytes": 3_000_000, "lost": [], "damaged": [] }));

    let file = object_file(&serving);
    let mut wrong = fs::read(&file).unwrap();
    wrong[1_000_000] ^= 1;
    fs::write(&file, wrong).unwrap();
    // A state that says that another scrub stopped at the beginning, and what it had found.
    let state = serving.data.join("scrub.state");
    let before = json!({ "objects": 5, "bytes": 50, "lost": [], "damaged": [], "next": {} });
    fs::write(&state, before.to_string()).unwrap();
    let found = scrub(&serving, &["--rate", "100MiB", "--state", state.to_str().unwrap()]);
    assert!(!found.status.success());
    let said = report(&found);
    assert_eq!((&said["objects"], &said["damaged"][0]["digest"]), (&json!(6), &json!(digest)));
    assert!(!state.exists(), "it came to the end");

    // Set aside, the blob is lost.
    let again = scrub(&serving, &["--rate", "0"]);
    assert_eq!(report(&again)["lost"][0]["digest"], json!(digest));
    fs::write(&state, "not JSON").unwrap();
    let unreadable = scrub(&serving, &["--state", state.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&unreadable.stderr).contains("is no state of a scrub"), "{unreadable:?}");
}
