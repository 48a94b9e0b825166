//! A library moves between the stores of others and a folder, by the commands of an operator.

use crate::{Server, everywhere, push};
use serde_json::{Value, json};
use stackroom_tests::sif::SifBuilder;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn image(seed: u64) -> Vec<u8> {
    SifBuilder::new("amd64").seed(seed).payload_len(5_000).build()
}

/// Runs `stackroom admin` with the environment of a server, and with JSON as its answer.
async fn admin(server: &Server, table: &str, arguments: &[&str]) -> Result<Value, String> {
    let program = std::env::var("STACKROOM_BIN").expect("STACKROOM_BIN is the built `stackroom`");
    let mut command = Command::new(program);
    command.args(["admin", "--json"]).args(arguments).envs(server.environment.iter().cloned());
    command.args(["--table", table, "--bucket", table]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).unwrap());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The rows of a library in a folder, by their keys and as text.
async fn rows(folder: &Path) -> BTreeSet<String> {
    let scratch = tempfile::TempDir::new().unwrap();
    let snapshot = server::local::Snapshot::take(folder, scratch.path()).await.unwrap();
    let (mut rows, mut start) = (BTreeSet::new(), None);
    loop {
        let (page, next) = snapshot.app.table.scan(start).await.unwrap();
        let own = page.into_iter().filter(|row| row.key.pk != "L" || row.key.sk.starts_with("U#"));
        // The order of names in a map means nothing, and differs from store to store.
        rows.extend(own.map(|row| (row.key.clone(), row.read_part::<Value>().unwrap())).map(|row| format!("{row:?}")));
        start = next;
        if start.is_none() {
            return rows;
        }
    }
}

#[tokio::test]
async fn a_library_moves_to_other_stores_and_back() {
    everywhere(|server| async move {
        let alice = server.user("alice", 0).await;
        for seed in 0..5 {
            assert_eq!(push(&server, &alice, "alice/tools/bb", &format!("v{seed}"), &image(seed)).await, 200);
        }
        alice.post("/api/groups", json!({ "name": "acme" })).await.ok();
        server.sweep_all().await;
        let (own, other) = (server.environment[1].1.clone(), format!("{}-moved", server.environment[1].1));
        let room = tempfile::TempDir::new().unwrap();
        let folder = |name: &str| room.path().join(name);
        let text = |name: &str| folder(name).to_str().unwrap().to_owned();

        let report = admin(&server, &own, &["export", &text("one")]).await.unwrap();
        assert_eq!((&report["lost"], &report["settled"], &report["corrected"]), (&json!([]), &json!(0), &json!(0)));
        assert_eq!(report["objects"], 5, "{report}");
        // Not over what is in use; to a table and a bucket that are made; and back.
        let why = admin(&server, &own, &["import", &text("one")]).await.unwrap_err();
        assert!(why.contains("not empty"), "{why}");
        let found = admin(&server, &other, &["import", &text("one"), "--create", "--dry-run"]).await.unwrap();
        assert_eq!((&found["objects"], &found["rows"]), (&json!(5), &report["rows"]), "{found}");
        let why = admin(&server, &other, &["export", &text("none")]).await.unwrap_err();
        assert!(why.contains(&other), "{why}");
        admin(&server, &other, &["import", &text("one"), "--create"]).await.unwrap();
        let again = admin(&server, &other, &["import", &text("one")]).await.unwrap();
        assert_eq!((&again["present"], &again["bytes"]), (&json!(5), &json!(0)), "{again}");
        let back = admin(&server, &other, &["export", &text("two")]).await.unwrap();
        assert_eq!(back["rows"], report["rows"]);
        assert_eq!(rows(&folder("one")).await, rows(&folder("two")).await);

        let data = text("two");
        let listed = Command::new(std::env::var("STACKROOM_BIN").unwrap())
            .args(["admin", "export", &text("three"), "--data", &data])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.status.success() && said.contains("5 objects are there, of these 0 already"), "{said}");
    })
    .await;
}
