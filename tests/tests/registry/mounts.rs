//! Mounting a blob instead of uploading it.

use crate::library::{join, private_collection, sif, sweep_up};
use crate::support::{BB, blob, blob_at, close, digest, fetch, head, is, junk, narrowed, nothing, push, refused};
use serde_json::{Value, json};
use shared::domain::Role;
use stackroom_tests::{Answer, Caller, Server};

async fn mount(who: &Caller, to: &str, digest: &str, from: &str) -> Answer {
    who.post(&format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}"), Value::Null).await
}

/// Checks that nothing was mounted, and that the upload which was opened instead works.
async fn has_to_bring(who: &Caller, to: &str, bytes: &[u8], answer: &Answer) {
    is(answer, 202);
    refused(&who.get(&blob_at(to, &digest(bytes))).await, 404, "BLOB_UNKNOWN");
    is(&who.get(answer.header("location").unwrap()).await, 204);
}

#[tokio::test]
async fn a_blob_is_mounted_from_where_it_may_be_read_and_charged_once() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    let bytes = junk(1, 1000);
    blob(&alice, BB, &bytes).await;
    let objects = server.objects().await;
    for (who, to, charged) in [
        (&alice, "alice/tools/other", (1000, 0)),
        (&alice, "alice/elsewhere/other", (1000, 0)),
        (&alice, "alice/deep/down/in/here", (1000, 0)),
        // The push made the repository internal.
        (&bob, "bob/tools/bb", (1000, 1000)),
        (&bob, "bob/tools/other", (1000, 1000)),
    ] {
        for _ in 0..2 {
            let mounted = mount(who, to, &digest(&bytes), BB).await;
            is(&mounted, 201);
            assert_eq!(mounted.header("location"), Some(blob_at(to, &digest(&bytes)).as_str()));
            assert_eq!(mounted.header("docker-content-digest"), Some(digest(&bytes).as_str()));
            assert_eq!(fetch(who, to, &digest(&bytes)).await.bytes, bytes);
            assert_eq!(
                (server.quota("alice").await, server.quota("bob").await),
                ((charged.0, 0), (charged.1, 0)),
                "{to}"
            );
        }
    }
    assert_eq!(server.objects().await, objects, "no bytes were copied");
    // A mounted blob stays when the other one is deleted.
    is(&alice.delete(&blob_at(BB, &digest(&bytes))).await, 202);
    assert_eq!(server.quota("alice").await, (1000, 0));
    for to in ["alice/tools/other", "alice/elsewhere/other", "alice/deep/down/in/here"] {
        assert_eq!(fetch(&alice, to, &digest(&bytes)).await.bytes, bytes);
        is(&alice.delete(&blob_at(to, &digest(&bytes))).await, 202);
    }
    assert_eq!((server.quota("alice").await, server.quota("bob").await), ((0, 0), (1000, 0)));
    assert_eq!(fetch(&bob, "bob/tools/bb", &digest(&bytes)).await.bytes, bytes);
}

#[tokio::test]
async fn hazard_mount_authorization() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    private_collection(&alice, "alice", "tools").await;
    let bytes = junk(1, 1000);
    blob(&alice, BB, &bytes).await;
    blob(&bob, "bob/tools/bb", b"so that it is there").await;
    let name = digest(&bytes);
    let own = "bob/tools/bb";
    has_to_bring(&bob, own, &bytes, &mount(&bob, own, &name, BB).await).await;
    has_to_bring(&bob, own, &bytes, &mount(&bob, own, &nothing(), BB).await).await;
    has_to_bring(&bob, own, &bytes, &mount(&bob, own, &name, own).await).await;
    has_to_bring(&bob, own, &bytes, &mount(&bob, own, &name, "nobody/tools/bb").await).await;
    // The token must permit reading there.
    blob(&alice, "alice/tools/other", b"so that it is there").await;
    let (pull, other) = (format!("repository:{BB}:pull"), "repository:alice/tools/other:pull,push");
    let one = narrowed(&alice, "alice", &[other]).await;
    has_to_bring(&one, "alice/tools/other", &bytes, &mount(&one, "alice/tools/other", &name, BB).await).await;
    let wrong = narrowed(&alice, "alice", &[other, "repository:alice/tools/bb:push,delete"]).await;
    has_to_bring(&one, "alice/tools/other", &bytes, &mount(&wrong, "alice/tools/other", &name, BB).await).await;
    let both = narrowed(&alice, "alice", &[other, &pull]).await;
    is(&mount(&both, "alice/tools/other", &name, BB).await, 201);
    // Nor is a blob searched for when no source is named, not even in the caller's own repositories.
    for who in [&alice, &server.admin] {
        let anywhere = format!("/v2/alice/tools/fourth/blobs/uploads/?mount={name}");
        has_to_bring(&alice, "alice/tools/fourth", &bytes, &who.post(&anywhere, Value::Null).await).await;
    }
    // And it must permit writing here.
    for reader in [narrowed(&alice, "alice", &["repository:alice/tools/third:pull", &pull]).await, bob.clone()] {
        is(&mount(&reader, "alice/tools/third", &name, BB).await, 401);
    }
    is(&mount(&server.nobody, "alice/tools/third", &name, BB).await, 401);
    // A member may.
    join(&server, "alice", "bob", Role::Reader).await;
    is(&mount(&bob, own, &name, BB).await, 201);
    assert_eq!(fetch(&bob, own, &name).await.bytes, bytes);
}

#[tokio::test]
async fn what_cannot_be_mounted_can_be_brought_to_the_upload_that_is_opened_instead() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = junk(1, 1000);
    let opened = mount(&alice, BB, &digest(&bytes), "alice/tools/other").await;
    is(&opened, 202);
    is(&close(&alice, opened.header("location").unwrap(), &digest(&bytes), &bytes).await, 201);
    assert_eq!(fetch(&alice, BB, &digest(&bytes)).await.bytes, bytes);
    refused(&mount(&alice, BB, "sha256:x", "alice/tools/other").await, 400, "DIGEST_INVALID");
}

#[tokio::test]
async fn mounting_pays_like_bringing() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 1500).await);
    let (one, two) = (junk(1, 1000), junk(2, 1000));
    push(&alice, BB, "latest", b"", &[&one, &two]).await;
    is(&mount(&bob, "bob/tools/bb", &digest(&one), BB).await, 201);
    let said = refused(&mount(&bob, "bob/tools/bb", &digest(&two), BB).await, 403, "DENIED");
    assert!(said.contains("1000") && said.contains("1500"), "{said}");
    is(&mount(&bob, "bob/tools/other", &digest(&one), BB).await, 201);
    assert_eq!(server.quota("bob").await, (1000, 0));
    refused(&bob.get(&blob_at("bob/tools/bb", &digest(&two))).await, 404, "BLOB_UNKNOWN");
    // Unnamed blobs are deleted, and their space is free again.
    sweep_up(&server).await;
    assert_eq!(server.quota("bob").await, (0, 0));
    is(&mount(&bob, "bob/tools/bb", &digest(&two), BB).await, 201);
    assert_eq!(fetch(&bob, "bob/tools/bb", &digest(&two)).await.bytes, two);
}

#[tokio::test]
async fn images_of_the_library_can_be_mounted() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    alice.push(BB, "latest", "amd64", &bytes).await.ok();
    let charged = server.quota("alice").await;
    is(&mount(&alice, "alice/tools/copy", &digest(&bytes), BB).await, 201);
    is(&head(&alice, &blob_at("alice/tools/copy", &digest(&bytes))).await, 200);
    assert_eq!(server.quota("alice").await, charged);
    // The empty configuration exists without bytes, and may have to be uploaded.
    let empty = mount(&alice, "alice/tools/copy", &digest(b"{}"), BB).await;
    assert!([201, 202].contains(&empty.status.as_u16()), "{}", empty.status);
    alice.delete(&format!("/v1/images/{BB}:latest")).await.ok();
    assert_eq!(fetch(&alice, "alice/tools/copy", &digest(&bytes)).await.bytes, bytes);
    let read_only = json!({ "readOnly": true });
    crate::library::set(&alice, "/v1/containers/alice/tools/copy", read_only).await.ok();
    refused(&mount(&alice, "alice/tools/copy", &digest(&bytes), BB).await, 403, "DENIED");
}
