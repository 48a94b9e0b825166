//! What the sweeper deletes and what it leaves.

use crate::library::{sif, sweep_up, write};
use crate::support::MANIFEST;
use crate::support::{
    BB, MIB, blob, blob_at, bring, close, digest, fetch, head, image, is, junk, manifest, open, patch, push, push_sif,
    put, refused,
};
use serde_json::{Value, json};
use shared::domain::{Digest, OciDigest, Repository};
use shared::service::sweep::{Ages, sweep};
use shared::store::keys;
use shared::store::rows::Link;
use stackroom_tests::{Caller, SERVING, Server};
use std::time::Duration;

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

/// Sets the time when a push last asked for a blob to `age` ago.
async fn aged(server: &Server, bytes: &[u8], age: Duration) {
    let (repository, name): (Repository, OciDigest) = (BB.parse().unwrap(), Digest::of(bytes).into());
    let app = &server.local.app;
    let link: Link = app.table.get(keys::link(&repository, &name)).await.unwrap().unwrap();
    write(server, &Link { seen: app.now().minus(age), ..link }).await;
}

#[tokio::test]
async fn hazard_gc_versus_push_a_blob_that_no_manifest_names_goes_after_a_day_and_no_sooner() {
    let (server, alice) = start().await;
    let hour = Duration::from_hours(1);
    let named = junk(1, 1000);
    push(&alice, BB, "v1", b"config", &[&named]).await;
    for (bytes, age) in [(&b"young"[..], 23 * hour), (b"old", 25 * hour), (b"asked for", 25 * hour)] {
        blob(&alice, BB, bytes).await;
        aged(&server, bytes, age).await;
    }
    for bytes in [&named[..], b"config"] {
        aged(&server, bytes, 1000 * hour).await;
    }
    // A push that is told that the blob exists may name it a moment later.
    is(&head(&alice, &blob_at(BB, &digest(b"asked for"))).await, 200);
    let ages = Ages::safe(&server.local.app);
    let swept = sweep(&server.local.app, ages).await.unwrap();
    assert_eq!((swept.links, swept.sessions, swept.objects, swept.condemned), (1, 0, 0, 0));
    assert!(swept.wrong_accounts.is_empty());
    refused(&alice.get(&blob_at(BB, &digest(b"old"))).await, 404, "BLOB_UNKNOWN");
    for bytes in [&b"young"[..], b"asked for", b"config", &named] {
        assert_eq!(fetch(&alice, BB, &digest(bytes)).await.bytes, bytes);
    }
    assert_eq!(server.quota("alice").await, (1000 + 6 + 5 + 9, 0), "at once");
    let body = image(b"asked for", &[b"young"]).to_string();
    is(&put(&alice, BB, "v2", MANIFEST, &body).await, 201);
    sweep_up(&server).await;
    for bytes in [&b"young"[..], b"asked for", b"config", &named] {
        assert_eq!(fetch(&alice, BB, &digest(bytes)).await.bytes, bytes);
    }
    assert_eq!(server.quota("alice").await, (1000 + 6 + 5 + 9, 0));
}

#[tokio::test]
async fn a_dry_run_names_what_the_next_sweep_takes_and_takes_nothing() {
    let (server, alice) = start().await;
    push(&alice, BB, "v1", b"config", &[b"layer"]).await;
    blob(&alice, BB, b"old").await;
    aged(&server, b"old", Duration::from_hours(25)).await;
    is(&patch(&alice, &open(&alice, BB).await, b"some").await, 202);
    let counts =
        |swept: &Value| ["links", "sessions", "objects", "condemned", "uploads"].map(|name| swept[name].clone());
    let dry = async |path: &str| server.admin.get(path).await.ok()["data"].clone();
    let (before, quota) = (server.objects().await, server.quota("alice").await);
    let now = dry("/api/sweep").await;
    assert_eq!(counts(&now), [1, 0, 0, 0, 0], "{now}");
    let name = digest(b"old");
    assert_eq!(now["found"], json!([format!("blob {name} in {BB}, which no manifest names")]));
    let all = dry("/api/sweep?now=true").await;
    assert_eq!(counts(&all), [1, 1, 0, 0, 0], "{all}");
    assert_eq!(all["found"].as_array().unwrap().len(), 2);
    assert_eq!((server.objects().await, server.quota("alice").await), (before, quota), "nothing changed");
    assert_eq!(counts(&server.admin.post("/api/sweep", json!({})).await.ok()["data"]), counts(&now));
    assert_eq!(dry("/api/sweep").await["found"], json!([]));
    for who in [&alice, &server.nobody] {
        assert!(who.get("/api/sweep").await.status.is_client_error());
    }
}

#[tokio::test]
async fn a_look_by_who_may_not_push_keeps_nothing() {
    let server = Server::start_with(&[SERVING]).await;
    let alice = server.user("alice", 0).await;
    let bob = server.user("bob", 0).await;
    push(&alice, BB, "v1", b"config", &[]).await;
    blob(&alice, BB, b"old").await;
    aged(&server, b"old", Duration::from_hours(25)).await;
    is(&head(&bob, &blob_at(BB, &digest(b"old"))).await, 200);
    is(&bob.get(&blob_at(BB, &digest(b"old"))).await, 200);
    assert_eq!(sweep(&server.local.app, Ages::safe(&server.local.app)).await.unwrap().links, 1);
    refused(&alice.get(&blob_at(BB, &digest(b"old"))).await, 404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn nothing_that_a_manifest_names_ever_goes() {
    let (server, alice) = start().await;
    let (layer, large, sif_bytes) = (junk(1, 1000), junk(2, 9 * MIB), sif(1));
    let body = push(&alice, BB, "v1", b"config", &[&layer, &large]).await;
    push_sif(&alice, BB, "sif", &sif_bytes).await;
    alice.push(BB, "library", "amd64", &sif(2)).await.ok();
    is(&alice.delete(&crate::support::manifest_at(BB, "v1")).await, 202);
    let quota = server.quota("alice").await;
    sweep_up(&server).await;
    assert_eq!(server.quota("alice").await, quota);
    assert_eq!(manifest(&alice, BB, &digest(body.as_bytes())).await, body);
    for bytes in [&layer, &large, &sif_bytes, &sif(2), &b"config".to_vec(), &b"{}".to_vec()] {
        assert!(fetch(&alice, BB, &digest(bytes)).await.bytes == *bytes);
    }
}

#[tokio::test]
async fn uploads_that_nobody_goes_on_with_give_their_reservation_back() {
    let (server, alice) = start().await;
    let bytes = junk(1, 9 * MIB);
    let small = open(&alice, BB).await;
    is(&patch(&alice, &small, b"some").await, 202);
    let large = open(&alice, BB).await;
    is(&patch(&alice, &large, &bytes).await, 202);
    // Opened and never used: nothing is kept of it.
    open(&alice, BB).await;
    let done = open(&alice, BB).await;
    is(&close(&alice, &done, &digest(b"done"), b"done").await, 201);
    let held = server.quota("alice").await;
    assert!(held.1 >= 9 << 20, "{held:?}");
    let swept = sweep(&server.local.app, Ages::safe(&server.local.app)).await.unwrap();
    assert_eq!((swept.sessions, swept.uploads, swept.condemned, swept.links), (0, 0, 0, 0), "all are young");
    assert_eq!(server.quota("alice").await, held);
    is(&alice.get(&large).await, 204);

    let ages = Ages { all_sessions: true, ..Ages::safe(&server.local.app) };
    let swept = sweep(&server.local.app, ages).await.unwrap();
    assert_eq!(swept.sessions, 2);
    assert!(swept.wrong_accounts.is_empty(), "{:?}", swept.wrong_accounts);
    assert_eq!(server.quota("alice").await, (4, 0));
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
    assert!(server.local.app.objects.open_parts().await.unwrap().is_empty());
    // Its URL can still start an upload anew, and nothing else.
    let again = patch(&alice, &large, &bytes).await;
    if again.status == 202 {
        is(&close(&alice, &large, &digest(&bytes), b"").await, 201);
        assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes);
    } else {
        refused(&again, 404, "BLOB_UPLOAD_UNKNOWN");
    }
}

#[tokio::test]
async fn sweeping_leaves_alone_what_is_on_its_way() {
    let (server, alice) = start().await;
    let bytes = junk(1, 20 * MIB);
    let url = open(&alice, BB).await;
    let mut at = 0;
    for piece in bytes.chunks(7 * MIB) {
        is(&patch(&alice, &url, piece).await, 202);
        at += piece.len();
        let ages = Ages { condemned: Duration::ZERO, unnamed: Duration::ZERO, ..Ages::safe(&server.local.app) };
        for _ in 0..2 {
            let swept = sweep(&server.local.app, ages).await.unwrap();
            assert_eq!((swept.sessions, swept.uploads, swept.links), (0, 0, 0), "after {at}");
            assert!(swept.wrong_accounts.is_empty(), "{:?}", swept.wrong_accounts);
        }
    }
    is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
    let body = image(b"", &[&bytes]).to_string();
    is(&bring(&alice, BB, b"").await, 201);
    is(&put(&alice, BB, "v1", MANIFEST, &body).await, 201);
    sweep_up(&server).await;
    assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes);
    assert_eq!(server.quota("alice").await, (20 << 20, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeping_beside_pushes_takes_nothing_that_they_need() {
    let (server, alice) = start().await;
    push(&alice, BB, "first", b"config", &[]).await;
    for round in 0..8_u64 {
        let (layer, config) = (junk(round + 1, 5000), format!("config {round}"));
        blob(&alice, BB, &layer).await;
        aged(&server, &layer, Duration::from_hours(25)).await;
        let pushing = async {
            // The client does not upload what it is told to be there.
            if head(&alice, &blob_at(BB, &digest(&layer))).await.status != 200 {
                blob(&alice, BB, &layer).await;
            }
            blob(&alice, BB, config.as_bytes()).await;
            let body = image(config.as_bytes(), &[&layer]).to_string();
            put(&alice, BB, "latest", MANIFEST, &body).await
        };
        let sweeping = sweep(&server.local.app, Ages::safe(&server.local.app));
        let (pushed, swept) = futures::join!(pushing, sweeping);
        is(&pushed, 201);
        swept.unwrap();
        assert!(fetch(&alice, BB, &digest(&layer)).await.bytes == layer);
    }
    sweep_up(&server).await;
}
