//! What requests of the registry cost: reads of the table and writes to it, counted as for the library.

use crate::library::{private_collection, sif};
use crate::support::{
    BB, blob_at, close, digest, head, index, is, manifest_at, narrowed, nothing, open, push, push_sif,
};
use crate::support::{INDEX, MANIFEST, image, put};
use serde_json::Value;
use stackroom_tests::Server;

#[tokio::test]
async fn a_pull_reads_the_table_once_by_digest_and_at_most_twice_by_tag_and_writes_nothing() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    private_collection(&alice, "alice", "secret").await;
    let bytes = sif(1);
    alice.push("alice/tools/library", "latest", "amd64", &bytes).await.ok();
    for path in [BB, "alice/secret/bb"] {
        let body = push(&alice, path, "latest", b"config", &[b"layer"]).await;
        is(&put(&alice, path, "index", INDEX, &index(&[&body]).to_string()).await, 201);
    }
    push_sif(&alice, "alice/tools/sif", "latest", &bytes).await;
    let narrow = narrowed(&alice, "alice", &["repository:alice/tools/bb:pull"]).await;
    // What an administrator sees of others is written down once an hour, by each server.
    for _ in 0..server.count() {
        assert_eq!(server.admin.get(&manifest_at("alice/secret/bb", "latest")).await.cost(), (2, 1));
    }
    let callers = [&server.nobody, &alice, &bob, &narrow, &server.admin];
    for path in [BB, "alice/secret/bb", "alice/tools/library", "alice/tools/sif", "alice/tools/never", "never/tools/bb"]
    {
        for who in callers {
            let there = who.get(&manifest_at(path, "latest")).await;
            // Its bytes are not read again by who has read them lately.
            let most = if there.status == 200 { 2 } else { 1 };
            let (reads, writes) = there.cost();
            assert!((1..=most).contains(&reads) && writes == 0, "{path}: {reads}, {writes}");
            if server.count() == 1 && server.functions.is_none() {
                assert_eq!(who.get(&manifest_at(path, "latest")).await.cost(), (1, 0), "{path}");
            }
            assert_eq!(head(who, &manifest_at(path, "latest")).await.cost(), (1, 0), "{path}");
            assert_eq!(head(who, &manifest_at(path, "missing")).await.cost(), (1, 0), "{path}");
            let by_digest = there.header("docker-content-digest").map_or_else(nothing, str::to_owned);
            for name in [&by_digest, &nothing()] {
                assert_eq!(who.get(&manifest_at(path, name)).await.cost(), (1, 0), "{path}");
                assert_eq!(head(who, &manifest_at(path, name)).await.cost(), (1, 0), "{path}");
            }
            for name in [digest(b"layer"), digest(&bytes), digest(b"{}"), nothing()] {
                assert_eq!(who.get(&blob_at(path, &name)).await.cost(), (1, 0), "{path}");
                assert_eq!(head(who, &blob_at(path, &name)).await.cost(), (1, 0), "{path}");
            }
        }
    }
    for who in [&alice, &server.admin] {
        assert_eq!(who.get("/v2/").await.cost(), (1, 0));
    }
    assert_eq!(server.nobody.get("/v2/").await.cost(), (0, 0));
}

#[tokio::test]
async fn a_push_writes_each_thing_once() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    push(&alice, BB, "latest", b"config", &[]).await;
    let opened = alice.post(&format!("/v2/{BB}/blobs/uploads/"), Value::Null).await;
    assert_eq!(opened.cost(), (1, 0), "opening is a signature");
    let url = open(&alice, BB).await;
    let closed = close(&alice, &url, &digest(b"layer"), b"layer").await;
    assert_eq!(closed.cost().1, 1, "one transaction");
    assert!(closed.cost().0 <= 2);
    let brought = put(&alice, BB, "v1", MANIFEST, &image(b"config", &[b"layer"]).to_string()).await;
    assert!(brought.cost().0 <= 2 && brought.cost().1 == 1, "{:?}", brought.cost());
    let moved = put(&alice, BB, "latest", MANIFEST, &image(b"config", &[b"layer"]).to_string()).await;
    assert!(moved.cost().0 <= 2 && moved.cost().1 == 1, "{:?}", moved.cost());
    let mounted = format!("/v2/alice/tools/other/blobs/uploads/?mount={}&from={BB}", digest(b"layer"));
    alice.post(&mounted, Value::Null).await;
    let again = alice.post(&mounted, Value::Null).await;
    assert!(again.cost().0 <= 2 && again.cost().1 <= 1, "{:?}", again.cost());
    let untagged = alice.delete(&manifest_at(BB, "v1")).await;
    assert!(untagged.cost().0 <= 2 && untagged.cost().1 == 1, "{:?}", untagged.cost());
}
