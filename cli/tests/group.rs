//! `stackroom group`, the real program against a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod common;

use common::Serving;
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};

/// Runs a command as somebody with a token, or without one as the operator.
fn run(serving: &Serving, token: Option<&str>, arguments: &[&str]) -> Output {
    let url = format!("http://127.0.0.1:{}", serving.port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_stackroom"));
    command.args(arguments).args(["--url", &url, "--data"]).arg(&serving.data).env_remove("STACKROOM_TOKEN");
    if let Some(token) = token {
        command.env("STACKROOM_TOKEN", token);
    }
    command.output().unwrap()
}

fn good(serving: &Serving, token: Option<&str>, arguments: &[&str]) -> String {
    let output = run(serving, token, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn the_command_manages_a_group() {
    let serving = Serving::start("group", Stdio::null());
    // The first answer comes after the first administrator was made.
    reqwest::get(format!("http://127.0.0.1:{}/version", serving.port)).await.unwrap();
    let mut tokens = Vec::new();
    for user in ["alice", "bob", "carol"] {
        good(&serving, None, &["admin", "user", "add", user]);
        tokens.push(good(&serving, None, &["admin", "token", user, "--name", "laptop"]));
    }
    let (alice, bob, carol) = (Some(tokens[0].as_str()), Some(tokens[1].as_str()), Some(tokens[2].as_str()));
    good(&serving, alice, &["group", "make", "acme", "--description", "Genomes"]);
    good(&serving, alice, &["group", "add", "acme", "bob", "--role", "contributor", "--on", "tools"]);
    let link = good(&serving, alice, &["group", "invite", "acme", "--role", "reader"]);
    assert!(link.contains("/join#acme."), "{link}");
    assert_eq!(good(&serving, carol, &["group", "join", &link]), "acme");
    let refused = run(&serving, bob, &["group", "join", &link]);
    assert!(!refused.status.success(), "{refused:?}");
    let members: Value = serde_json::from_str(&good(&serving, alice, &["group", "members", "acme", "--json"])).unwrap();
    let expected = json!([
        { "name": "alice", "role": "admin", "on": {} },
        { "name": "bob", "role": null, "on": { "tools": "contributor" } },
        { "name": "carol", "role": "reader", "on": {} },
    ]);
    assert_eq!(members, expected);
    let table = good(&serving, alice, &["group", "members", "acme"]);
    assert!(table.contains("tools: contributor"), "{table}");
    let last = run(&serving, alice, &["group", "leave", "acme"]);
    assert!(String::from_utf8(last.stderr).unwrap().contains("last admin"));
    good(&serving, carol, &["group", "leave", "acme"]);
    good(&serving, alice, &["group", "remove", "acme", "bob", "--on", "tools"]);
    assert_eq!(good(&serving, alice, &["group", "robot", "make", "acme", "ci", "--role", "reader"]), "acme+ci");
    let robot = good(&serving, alice, &["group", "robot", "token", "acme", "ci", "--expires", "1h"]);
    assert!(!run(&serving, Some(&robot), &["group", "members", "nothing"]).status.success());
    assert!(good(&serving, Some(&robot), &["group", "members", "acme"]).contains("acme+ci"));
    assert!(good(&serving, alice, &["group", "robot", "list", "acme"]).contains("reader"));
    good(&serving, alice, &["group", "robot", "remove", "acme", "ci"]);
    assert!(!run(&serving, Some(&robot), &["group", "members", "acme"]).status.success());
    let invitations = good(&serving, alice, &["group", "invitations", "acme"]);
    let id = invitations.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    good(&serving, alice, &["group", "uninvite", "acme", &id]);
}
