//! `stackroom delete`, the real program against a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod common;

use common::Serving;
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Output, Stdio};

fn stackroom(serving: &Serving, arguments: &[&str]) -> Output {
    let url = format!("http://127.0.0.1:{}", serving.port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_stackroom"));
    command.args(arguments).args(["--url", &url, "--data"]).arg(&serving.data).stdin(Stdio::null());
    command.env_remove("STACKROOM_TOKEN").output().unwrap()
}

#[track_caller]
fn fails(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "{said}");
}

#[tokio::test]
async fn the_command_deletes_what_a_path_names_and_asks_first() {
    let serving = Serving::start("delete", Stdio::null());
    let client = reqwest::Client::new();
    let url = format!("http://127.0.0.1:{}", serving.port);
    // The first answer comes after the first administrator was made.
    client.get(format!("{url}/version")).send().await.unwrap();
    let token = fs::read_to_string(serving.data.join("admin.token")).unwrap();
    let post = async |path: &str, body: Value| {
        let sent = client.post(format!("{url}{path}")).bearer_auth(token.trim()).json(&body).send().await.unwrap();
        assert!(sent.status().is_success(), "{path}: {}", sent.status());
        let answer: Value = sent.json().await.unwrap();
        answer["data"]["id"].as_str().unwrap_or_default().to_owned()
    };
    let status = async |path: &str| {
        client.get(format!("{url}{path}")).bearer_auth(token.trim()).send().await.unwrap().status().as_u16()
    };
    let made = stackroom(&serving, &["group", "make", "acme"]);
    assert!(made.status.success(), "{made:?}");
    let entity = post("/v1/entities", json!({ "name": "acme" })).await;
    let collection = post("/v1/collections", json!({ "name": "tools", "entity": entity })).await;
    post("/v1/containers", json!({ "name": "bb", "collection": collection })).await;

    fails(&stackroom(&serving, &["delete", "acme", "--cascade"]), "say --yes");
    fails(&stackroom(&serving, &["delete", "acme", "--yes"]), "not empty: 1 collections, 1 containers");
    fails(&stackroom(&serving, &["delete", "acme/tools/bb:v1", "--yes"]), "image not found");
    let dry = stackroom(&serving, &["delete", "library://acme/tools", "--dry-run"]);
    assert!(dry.status.success(), "{dry:?}");
    assert!(String::from_utf8_lossy(&dry.stdout).contains("in acme/tools: 0 collections, 1 containers, 0 images"));
    assert_eq!(status("/v1/containers/acme/tools/bb").await, 200);
    let gone = stackroom(&serving, &["delete", "acme", "--cascade", "--yes", "--json"]);
    assert!(gone.status.success(), "{gone:?}");
    let answer: Value = serde_json::from_slice(&gone.stdout).unwrap();
    assert_eq!(answer["contents"]["containers"], json!(1));
    assert_eq!(status("/v1/containers/acme/tools/bb").await, 404);
    fails(&stackroom(&serving, &["delete", "acme", "--cascade", "--yes"]), "entity not found");

    let added = stackroom(&serving, &["admin", "user", "add", "alice"]);
    assert!(added.status.success(), "{added:?}");
    let gone = stackroom(&serving, &["admin", "user", "delete", "alice", "--yes"]);
    assert!(gone.status.success(), "{gone:?}");
    fails(&stackroom(&serving, &["admin", "user", "delete", "alice", "--yes"]), "user not found");
}
