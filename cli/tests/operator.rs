//! `stackroom register` and the commands of an operator, the real program against a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod common;

use common::Serving;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs a command as the operator, or as somebody with a token, with this on its standard input.
fn run(serving: &Serving, token: Option<&str>, arguments: &[&str], input: &str) -> Output {
    let url = format!("http://127.0.0.1:{}", serving.port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_stackroom"));
    command.args(arguments).args(["--url", &url, "--data"]).arg(&serving.data).env_remove("STACKROOM_TOKEN");
    if let Some(token) = token {
        command.env("STACKROOM_TOKEN", token);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn good(serving: &Serving, token: Option<&str>, arguments: &[&str], input: &str) -> String {
    let output = run(serving, token, arguments, input);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn the_operator_decides_who_registers_and_compares_the_accounts() {
    let invited = [("STACKROOM_REGISTRATION", "invitation")];
    let serving = Serving::start_with("operator", Stdio::null(), &invited);
    // The first answer comes after the first administrator was made.
    reqwest::get(format!("http://127.0.0.1:{}/version", serving.port)).await.unwrap();
    good(&serving, None, &["admin", "user", "add", "alice", "--email", "alice@example.org"], "");
    let alice = good(&serving, None, &["admin", "token", "alice", "--name", "laptop"], "");
    good(&serving, Some(&alice), &["group", "make", "course"], "");
    let refused = run(&serving, None, &["register", "carol"], "correct horse\n");
    assert!(String::from_utf8(refused.stderr).unwrap().contains("invitation"));
    let invite = ["admin", "invite", "--uses", "2", "--group", "course", "--role", "reader"];
    let link = good(&serving, None, &invite, "");
    let carol = good(&serving, None, &["register", "carol", "--invitation", &link], "correct horse\n");
    let members = good(&serving, Some(&carol), &["group", "members", "course"], "");
    assert!(members.contains("carol"), "{members}");
    let taken = run(&serving, None, &["register", "alice", "--invitation", &link], "correct horse\n");
    assert!(String::from_utf8(taken.stderr).unwrap().contains("the name `alice` is taken"));
    let listed = good(&serving, None, &["admin", "invitations"], "");
    let id = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert!(listed.contains("course") && listed.contains("reader"), "{listed}");
    good(&serving, None, &["admin", "uninvite", &id], "");
    assert!(!run(&serving, None, &["register", "dora", "--invitation", &link], "correct horse\n").status.success());

    good(&serving, Some(&carol), &["admin", "user", "email", "carol", "carol@example.org"], "");
    assert!(good(&serving, Some(&carol), &["admin", "user", "show", "carol"], "").contains("carol@example.org"));
    assert!(!run(&serving, Some(&carol), &["admin", "user", "show", "alice"], "").status.success());
    let users = good(&serving, None, &["admin", "user", "list"], "");
    assert!(users.contains("level") && users.contains("free") && !users.contains("example.org"), "{users}");

    assert_eq!(good(&serving, None, &["admin", "accounts"], ""), "4 accounts are right");
    assert_eq!(good(&serving, None, &["admin", "accounts", "--repair"], ""), "4 accounts are right");
    assert!(good(&serving, None, &["admin", "accounts", "--json"], "").contains("\"wrong\": []"));
    assert!(!run(&serving, Some(&carol), &["admin", "accounts"], "").status.success());
    // An administrator's look is in the log of the group.
    good(&serving, None, &["group", "members", "course"], "");
    let log = good(&serving, Some(&alice), &["log", "course"], "");
    assert!(log.contains("looked") && log.contains("admin"), "{log}");
    assert!(good(&serving, None, &["log"], "").contains("registration_uninvited"));
}
