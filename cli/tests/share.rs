//! `stackroom share`, the real program against a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod common;

use common::Serving;
use serde_json::{Value, json};
use shared::domain::Digest;
use std::fs;
use std::process::{Command, Output, Stdio};

fn share(serving: &Serving, arguments: &[&str]) -> Output {
    let url = format!("http://127.0.0.1:{}", serving.port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_stackroom"));
    command.args(["share", "--url", &url, "--data"]).arg(&serving.data).args(arguments);
    command.env_remove("STACKROOM_TOKEN").output().unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn the_command_makes_lists_and_revokes_shares() {
    let serving = Serving::start("share", Stdio::null());
    let client = reqwest::Client::new();
    let url = format!("http://127.0.0.1:{}", serving.port);
    // The first answer comes after the first administrator was made.
    client.get(format!("{url}/version")).send().await.unwrap();
    let token = fs::read_to_string(serving.data.join("admin.token")).unwrap();
    let put = async |path: String, kind: &str, bytes: Vec<u8>| {
        let request = if path.contains("uploads") { client.post(path) } else { client.put(path) };
        let sent = request.bearer_auth(token.trim()).header("content-type", kind).body(bytes).send().await.unwrap();
        assert_eq!(sent.status().as_u16(), 201);
    };
    let digest = |bytes: &[u8]| Digest::of(bytes).to_string();
    for bytes in [b"{}".as_slice(), b"ACGT"] {
        let path = format!("{url}/v2/admin/files/blobs/uploads/?digest={}", digest(bytes));
        put(path, "application/octet-stream", bytes.to_vec()).await;
    }
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let document = json!({
        "schemaVersion": 2, "mediaType": kind,
        "config": { "mediaType": "application/vnd.unknown.config.v1+json", "digest": digest(b"{}"), "size": 2 },
        "layers": [{
            "mediaType": "application/octet-stream", "digest": digest(b"ACGT"), "size": 4,
            "annotations": { "org.opencontainers.image.title": "reads.txt" },
        }],
    });
    put(format!("{url}/v2/admin/files/manifests/v1"), kind, document.to_string().into_bytes()).await;

    let made = share(&serving, &["make", "admin/files:v1", "--expires", "2h", "--uses", "2"]);
    assert!(made.status.success(), "{made:?}");
    // Only the URL, so that a script can take it.
    let link = said(&made.stdout);
    assert!(link.starts_with(&format!("{url}/dl/")) && link.ends_with("/reads.txt\n"), "{link}");
    assert!(said(&made.stderr).contains("curl -LO"), "{made:?}");
    let got = client.get(link.trim()).header("accept", "*/*").send().await.unwrap();
    assert_eq!(got.bytes().await.unwrap(), b"ACGT"[..]);

    let listed = share(&serving, &["list", "admin/files", "--json"]);
    let rows: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&rows[0]["used"], &rows[0]["uses"], &rows[0]["created_by"]), (&json!(1), &json!(2), &json!("admin")));
    let table = said(&share(&serving, &["list", "admin/files"]).stdout);
    assert!(table.starts_with("id") && table.contains("reads.txt"), "{table}");

    let revoked = share(&serving, &["revoke", link.trim()]);
    assert!(revoked.status.success(), "{revoked:?}");
    assert_eq!(client.get(link.trim()).send().await.unwrap().status().as_u16(), 404);
    let again = share(&serving, &["revoke", link.trim()]);
    assert!(!again.status.success() && said(&again.stderr).contains("share not found"), "{again:?}");
    let unknown = share(&serving, &["make", "admin/files:v9"]);
    assert!(!unknown.status.success() && said(&unknown.stderr).contains("image not found"), "{unknown:?}");
}
