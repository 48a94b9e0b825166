//! The quota: what it allows, whom it charges, and when it frees bytes.

use crate::support::{Standing, begin, complete, hash, join, opened, opened_parts, sif, sif_of};
use serde_json::json;
use shared::domain::Role;
use stackroom_tests::Server;
use stackroom_tests::functions::only_on_our_stores;

const SIZE: u64 = 100_000;

fn image(seed: u64) -> Vec<u8> {
    sif_of(seed, 100_000)
}

#[tokio::test]
async fn a_quota_is_filled_exactly_and_not_by_one_byte_more() {
    if only_on_our_stores("it counts objects, and without digests in URLs bytes are staged until a sweep") {
        return;
    }
    let server = Server::start().await;
    let alice = server.user("alice", 2 * SIZE).await;
    alice.push("alice/tools/one", "latest", "amd64", &image(1)).await.ok();
    let before = Standing::of(&server, "alice").await;

    let longer = sif_of(2, 100_001);
    let push = begin(&alice, "alice/tools/two", &longer).await;
    assert_eq!(alice.open(&push.image, &longer).await.error(507), "Upload would exceed quota");
    let body = json!({ "filesize": longer.len() });
    let parts = alice.post(&format!("/v2/imagefile/{}/_multipart", push.image), body).await;
    assert_eq!(parts.error(507), "Upload would exceed quota");
    assert_eq!(server.quota("alice").await, (SIZE, 0), "no byte was reserved");
    assert!(server.local.app.objects.open_parts().await.unwrap().is_empty(), "the store never heard of it");
    before.is_back(&server, &alice, "alice/tools/two", &longer).await;

    let (push, url) = opened(&alice, "alice/tools/two", &image(2)).await;
    assert_eq!(server.quota("alice").await, (SIZE, SIZE));
    assert_eq!(alice.upload(&url, &image(2)).await.status, 200);
    let done = complete(&alice, &push).await.ok();
    assert_eq!(done["data"]["quota"], json!({ "quotaTotal": 2 * SIZE, "quotaUsage": 2 * SIZE }));
    assert_eq!(server.quota("alice").await, (2 * SIZE, 0));
    alice.push("alice/tools/three", "latest", "amd64", &sif(3)).await.error(507);
    let entity = alice.get("/v1/entities/alice").await.ok();
    assert_eq!((&entity["data"]["size"], &entity["data"]["quota"]), (&json!(2 * SIZE), &json!(2 * SIZE)));
}

#[tokio::test]
async fn a_quota_is_filled_exactly_by_a_multipart_upload_too() {
    let server = Server::start().await;
    let alice = server.user("alice", SIZE).await;
    let parts = opened_parts(&alice, "alice/tools/one", &image(1)).await;
    assert_eq!(server.quota("alice").await, (0, SIZE));
    let etags = parts.send_all(&alice, &image(1)).await;
    parts.complete_all(&alice, &etags).await.ok();
    assert_eq!(server.quota("alice").await, (SIZE, 0));
}

#[tokio::test]
async fn the_same_bytes_count_once_for_an_entity_and_go_with_their_last_place() {
    let server = Server::start().await;
    // There is room for exactly one copy.
    let (alice, bob) = (server.user("alice", SIZE).await, server.user("bob", SIZE).await);
    let bytes = image(1);
    for (path, tag) in [("one", "a"), ("two", "b"), ("two", "c")] {
        alice.push(&format!("alice/tools/{path}"), tag, "amd64", &bytes).await.ok();
        assert_eq!(server.quota("alice").await, (SIZE, 0));
    }
    bob.push("bob/tools/one", "latest", "amd64", &bytes).await.ok();
    assert_eq!((server.quota("alice").await, server.quota("bob").await), ((SIZE, 0), (SIZE, 0)));
    alice.delete("/v1/images/alice/tools/one:a").await.ok();
    assert_eq!(server.quota("alice").await, (SIZE, 0));
    assert_eq!(server.nobody.pull("alice/tools/two:b").await.bytes, bytes);
    alice.delete("/v1/images/alice/tools/two:b").await.ok();
    assert_eq!((server.quota("alice").await, server.quota("bob").await), ((0, 0), (SIZE, 0)));
    assert_eq!(server.nobody.pull("bob/tools/one:latest").await.bytes, bytes);
    crate::support::sweep_up(&server).await;
    assert_eq!(server.nobody.pull("bob/tools/one:latest").await.bytes, bytes);
    assert_eq!(server.objects().await.len(), 1);
    // The space is free again at once.
    alice.push("alice/tools/other", "latest", "amd64", &image(2)).await.ok();
}

#[tokio::test]
async fn a_push_that_died_does_not_block_its_own_retry() {
    let server = Server::start().await;
    let alice = server.user("alice", SIZE).await;
    let bytes = image(1);
    // Each of these reserves everything, and then stops.
    opened(&alice, "alice/tools/bb", &bytes).await;
    opened(&alice, "alice/tools/bb", &bytes).await;
    let parts = opened_parts(&alice, "alice/tools/bb", &bytes).await;
    parts.send(&alice, 1, &bytes).await;
    opened_parts(&alice, "alice/tools/bb", &bytes).await;
    // Their bytes may all be there: three times as many as the limit is too much, see `attack_04_…`.
    assert_eq!(server.quota("alice").await, (0, SIZE));
    let other = begin(&alice, "alice/tools/other", &image(2)).await;
    alice.open(&other.image, &image(2)).await.error(507);
    // Also from another container of the entity.
    alice.push("alice/tools/elsewhere", "latest", "amd64", &bytes).await.ok();
    alice.push("alice/tools/bb", "latest", "amd64", &bytes).await.ok();
    assert_eq!(server.quota("alice").await, (SIZE, 0));
    crate::support::sweep_up(&server).await;
    assert_eq!(server.quota("alice").await, (SIZE, 0));
    assert_eq!(server.objects().await.len(), 1);
    assert_eq!(server.nobody.pull("alice/tools/bb:latest").await.bytes, bytes);
}

#[tokio::test]
async fn a_reservation_is_given_back_when_the_upload_is_given_up() {
    let server = Server::start().await;
    let alice = server.user("alice", 2 * SIZE).await;
    let parts = opened_parts(&alice, "alice/tools/bb", &image(1)).await;
    assert_eq!(server.quota("alice").await, (0, SIZE));
    parts.abort(&alice).await.ok();
    assert_eq!(server.quota("alice").await, (0, 0));
    // A size that was announced too large is corrected once the bytes are there.
    let push = begin(&alice, "alice/tools/bb", &image(1)).await;
    let body = json!({ "filesize": 2 * SIZE });
    alice.post(&format!("/v2/imagefile/{}/_multipart", push.image), body).await.ok();
    assert_eq!(server.quota("alice").await, (0, 2 * SIZE));
    alice.push("alice/tools/bb", "latest", "amd64", &image(1)).await.ok();
    assert_eq!(server.quota("alice").await, (SIZE, 0));
}

#[tokio::test]
async fn who_pushes_into_somebody_elses_entity_pays_nothing() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", SIZE).await, server.user("bob", 1).await);
    join(&server, "alice", "bob", Role::Contributor).await;
    bob.push("alice/tools/bb", "latest", "amd64", &image(1)).await.ok();
    assert_eq!((server.quota("alice").await, server.quota("bob").await), ((SIZE, 0), (0, 0)));
    // For bytes that he has there he needs no upload, but his own entity is charged.
    let container = bob.container("bob/tools/bb").await;
    let body = json!({ "hash": hash(&image(1)), "container": container });
    bob.post("/v1/images", body).await.error(507);
    assert_eq!(server.quota("bob").await, (0, 0));
    server.nobody.get(&format!("/v1/images/bob/tools/bb:{}", hash(&image(1)))).await.error(404);
    alice.delete("/v1/images/alice/tools/bb:latest").await.ok();
}

#[tokio::test]
async fn a_quota_can_be_changed_while_it_is_used() {
    let server = Server::start().await;
    let alice = server.user("alice", SIZE).await;
    alice.push("alice/tools/one", "latest", "amd64", &image(1)).await.ok();
    let set = async |limit: u64| server.admin.put("/api/entities/alice/quota", json!({ "limit": limit })).await;
    set(10).await.ok();
    // Existing images stay, and no new ones are accepted.
    assert_eq!(server.nobody.pull("alice/tools/one:latest").await.bytes, image(1));
    alice.push("alice/tools/two", "latest", "amd64", &image(2)).await.error(507);
    set(0).await.ok();
    alice.push("alice/tools/two", "latest", "amd64", &image(2)).await.ok();
    set(2 * SIZE).await.ok();
    alice.push("alice/tools/three", "latest", "amd64", &sif(3)).await.error(507);
    let reference = format!("alice/tools/three:{}", hash(&sif(3)));
    server.nobody.get(&format!("/v1/images/{reference}")).await.error(404);
}
