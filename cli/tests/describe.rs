//! `stackroom create`, `ls`, `info`, `set` and `star`, the real program against a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod common;

use common::Serving;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn stackroom(serving: &Serving, arguments: &[&str], input: &str) -> Output {
    let url = format!("http://127.0.0.1:{}", serving.port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_stackroom"));
    command.args(arguments).args(["--url", &url, "--data"]).arg(&serving.data).env_remove("STACKROOM_TOKEN");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    running.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    running.wait_with_output().unwrap()
}

#[track_caller]
fn works(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn fails(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "{said}");
}

#[tokio::test]
async fn the_command_makes_describes_lists_and_stars_things() {
    let serving = Serving::start("describe", Stdio::null());
    // The first answer comes after the first administrator was made.
    reqwest::get(format!("http://127.0.0.1:{}/version", serving.port)).await.unwrap();
    let run = |arguments: &[&str]| stackroom(&serving, arguments, "");
    works(&run(&["group", "make", "acme"]));
    works(&run(&["create", "acme/tools", "--description", "Things that help"]));
    works(&run(&["create", "library://acme/tools/hello", "--private"]));
    works(&run(&["create", "acme/tools/other"]));
    works(&run(&["create", "acme/tools/hello"]));
    fails(&run(&["create", "acme/missing/hello"]), "not found");
    fails(&run(&["create", "other"]), "stackroom group make");

    let listed = works(&run(&["ls"]));
    assert!(listed.lines().any(|line| line.starts_with("acme ")), "{listed}");
    let listed = works(&run(&["ls", "acme"]));
    assert!(listed.contains("tools") && listed.contains("Things that help"), "{listed}");
    let listed: Value = serde_json::from_str(&works(&run(&["ls", "acme/tools", "--sort", "-name", "--json"]))).unwrap();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["other", "hello"]);
    let listed = works(&run(&["ls", "acme/tools", "--prefix", "he"]));
    assert!(listed.contains("hello") && !listed.contains("other"), "{listed}");
    assert!(works(&run(&["ls", "acme", "--repository"])).contains("acme/tools/hello"));
    assert_eq!(works(&run(&["ls", "acme/tools/hello"])).lines().count(), 1, "there are no tags yet");
    fails(&run(&["ls", "acme/tools", "--arch", "amd64"]), "arch");

    let readme = serving.data.join("README.md");
    fs::write(&readme, "# Hello\n\nIt greets.").unwrap();
    let path = readme.to_str().unwrap();
    works(&run(&["set", "acme/tools/hello", "--readme", path, "--vcs-url", "https://git.example.org/hello"]));
    works(&stackroom(&serving, &["set", "acme/tools", "--custom-data", "-"], "{\"grant\": 7}"));
    let shown = works(&run(&["info", "acme/tools/hello"]));
    assert!(shown.contains("vcsUrl: https://git.example.org/hello\n") && shown.contains("private: true\n"), "{shown}");
    assert!(shown.ends_with("\n\n# Hello\n\nIt greets.\n"), "{shown}");
    let shown: Value = serde_json::from_str(&works(&run(&["info", "acme/tools", "--json"]))).unwrap();
    assert_eq!(shown["customData"], json!("{\"grant\": 7}"));
    works(&stackroom(&serving, &["set", "acme/tools/hello", "--readme", "-"], ""));
    let shown: Value = serde_json::from_str(&works(&run(&["info", "acme/tools/hello", "--json"]))).unwrap();
    assert_eq!(shown["fullDescription"], json!(""));
    fails(&run(&["set", "acme/tools/hello"]), "say what to change");
    fails(&run(&["set", "acme/tools/hello", "--readme", "-", "--custom-data", "-"]), "only one");
    fails(&run(&["set", "acme/tools/hello", "--readme", "/missing/file"]), "can't read /missing/file");
    fails(&run(&["set", "acme/tools/hello", "--vcs-url", "ftp://x"]), "http");

    works(&run(&["star", "acme/tools/hello"]));
    assert!(works(&run(&["star"])).contains("hello"));
    assert!(works(&run(&["info", "acme/tools/hello"])).contains("stars: 1\n"));
    works(&run(&["star", "acme/tools/hello", "--remove"]));
    assert_eq!(works(&run(&["star"])).lines().count(), 1);
    fails(&run(&["star", "acme/tools/missing"]), "not found");
}
