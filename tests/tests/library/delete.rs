//! Deleting images, and what read-only containers and frozen tags refuse.

use crate::support::{Standing, begin, complete, hash, join, len, opened, set, sif, sweep_up, tag};
use serde_json::json;
use shared::domain::Role;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, Server};

const BB: &str = "alice/tools/bb";

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

#[tokio::test]
async fn deleting_by_tag_removes_the_image_with_all_its_tags_of_that_architecture() {
    let (server, alice) = start().await;
    let (amd, arm) = (sif(1), SifBuilder::new("arm64").build());
    for tag in ["latest", "v1", "v2"] {
        alice.push(BB, tag, "amd64", &amd).await.ok();
    }
    alice.push(BB, "latest", "arm64", &arm).await.ok();
    let other = sif(2);
    alice.push(BB, "v3", "amd64", &other).await.ok();
    assert_eq!(server.quota("alice").await, (len(&amd) + len(&arm) + len(&other), 0));

    assert_eq!(alice.delete(&format!("/v1/images/{BB}:v1?arch=amd64")).await.status, 200);
    for gone in ["latest", "v1", "v2", &hash(&amd)] {
        let gone = format!("{BB}:{gone}?arch=amd64");
        server.nobody.get(&format!("/v1/images/{gone}")).await.error(404);
        server.nobody.get(&format!("/v1/imagefile/{gone}")).await.error(404);
    }
    assert_eq!(server.nobody.pull(&format!("{BB}:latest?arch=arm64")).await.bytes, arm);
    assert_eq!(server.nobody.pull(&format!("{BB}:v3?arch=amd64")).await.bytes, other);
    assert_eq!(server.quota("alice").await, (len(&arm) + len(&other), 0), "at once");
    alice.delete(&format!("/v1/images/{BB}:v1?arch=amd64")).await.error(404);
    sweep_up(&server).await;
    assert_eq!(server.objects().await.len(), 2);
}

#[tokio::test]
async fn deleting_by_hash_removes_exactly_those_bytes() {
    let (server, alice) = start().await;
    let (one, two) = (sif(1), sif(2));
    alice.push(BB, "latest", "amd64", &one).await.ok();
    alice.push(BB, "latest", "amd64", &two).await.ok();
    // Its tag was overwritten, and it is still there under its hash.
    assert_eq!(server.nobody.pull(&format!("{BB}:{}", hash(&one))).await.bytes, one);
    let path = format!("/v1/images/{BB}:{}", hash(&one));
    assert_eq!(alice.delete(&path).await.status, 200);
    alice.delete(&path).await.error(404);
    assert_eq!(server.nobody.pull(&format!("{BB}:latest")).await.bytes, two);
}

#[tokio::test]
async fn an_image_with_very_many_tags_is_deleted_with_all_of_them() {
    let (server, alice) = start().await;
    let bytes = sif(1);
    alice.push(BB, "t0", "amd64", &bytes).await.ok();
    let push = begin(&alice, BB, &bytes).await;
    for number in 1..100 {
        tag(&alice, &push, &format!("t{number}")).await.ok();
    }
    assert_eq!(alice.delete(&format!("/v1/images/{BB}:t99")).await.status, 200);
    assert_eq!(alice.get(&format!("/v2/tags/{}", push.container)).await.ok(), json!({ "data": {} }));
    assert_eq!(server.quota("alice").await, (0, 0));
}

#[tokio::test]
async fn an_image_whose_bytes_never_came_can_be_deleted_by_hash() {
    let (server, alice) = start().await;
    let before = Standing::of(&server, "alice").await;
    let bytes = sif(1);
    let push = begin(&alice, BB, &bytes).await;
    alice.open(&push.image, &bytes).await.ok();
    assert_eq!(alice.delete(&format!("/v1/images/{BB}:{}", hash(&bytes))).await.status, 200);
    let done = alice.put(&format!("/v2/imagefile/{}/_complete", push.image), json!({})).await;
    assert!(done.status.is_client_error(), "{}", done.status);
    before.is_back(&server, &alice, BB, &bytes).await;
}

#[tokio::test]
async fn what_was_deleted_can_be_pushed_again() {
    let (server, alice) = start().await;
    let bytes = sif(1);
    for _ in 0..3 {
        alice.push(BB, "latest", "amd64", &bytes).await.ok();
        assert_eq!(server.nobody.pull(&format!("{BB}:latest")).await.bytes, bytes);
        alice.delete(&format!("/v1/images/{BB}:latest")).await.ok();
    }
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
    alice.push(BB, "latest", "amd64", &bytes).await.ok();
    sweep_up(&server).await;
    assert_eq!(server.nobody.pull(&format!("{BB}:latest")).await.bytes, bytes);
}

#[tokio::test]
async fn only_who_may_delete_does() {
    let (server, alice) = start().await;
    let (bob, carol) = (server.user("bob", 0).await, server.user("carol", 0).await);
    join(&server, "alice", "carol", Role::Contributor).await;
    let (carols, alices) = (sif(1), sif(2));
    carol.push(BB, "carols", "amd64", &carols).await.ok();
    alice.push(BB, "alices", "amd64", &alices).await.ok();
    let pull = server.token("alice", json!({ "name": "p", "scope": "pull,push" })).await;
    let elsewhere = server.token("alice", json!({ "name": "e", "scope": "delete@alice/tools/other" })).await;
    let here = server.token("alice", json!({ "name": "h", "scope": "delete@alice/tools/bb" })).await;
    for tag in ["alices", "carols", "missing"] {
        let path = format!("/v1/images/{BB}:{tag}");
        server.nobody.delete(&path).await.error(401);
        bob.delete(&path).await.error(403);
        pull.delete(&path).await.error(403);
        elsewhere.delete(&path).await.error(403);
    }
    carol.delete(&format!("/v1/images/{BB}:alices")).await.error(403);
    assert_eq!(server.nobody.pull(&format!("{BB}:alices")).await.bytes, alices);
    carol.delete(&format!("/v1/images/{BB}:carols")).await.ok();
    here.delete(&format!("/v1/images/{BB}:alices")).await.ok();
}

#[tokio::test]
async fn what_a_frozen_tag_names_stays() {
    let (server, alice) = start().await;
    let (kept, other) = (sif(1), sif(2));
    alice.push(BB, "v1", "amd64", &kept).await.ok();
    alice.push(BB, "also", "amd64", &kept).await.ok();
    set(&alice, &format!("/v1/images/{BB}:v1"), json!({ "frozen": true })).await.ok();
    let push = begin(&alice, BB, &other).await;
    for caller in [&alice, &server.admin] {
        for selector in ["v1", "also", &hash(&kept)] {
            let said = caller.delete(&format!("/v1/images/{BB}:{selector}")).await.error(403);
            assert!(said.contains("frozen"), "{said}");
        }
        let refused = tag(caller, &push, "v1").await;
        assert_eq!(refused.status, 403, "also before the bytes arrived");
    }
    // Other tags can still move, including those of the same image.
    alice.push(BB, "also", "amd64", &other).await.ok();
    let said = alice.push(BB, "v1", "amd64", &other).await.error(403);
    assert!(said.contains("frozen"), "{said}");
    // Freezing covers all architectures of the tag.
    let arm = SifBuilder::new("arm64").build();
    alice.push(BB, "v1", "arm64", &arm).await.error(403);
    assert_eq!(server.nobody.pull(&format!("{BB}:v1")).await.bytes, kept);
    sweep_up(&server).await;
    assert_eq!(server.nobody.pull(&format!("{BB}:v1")).await.bytes, kept);

    set(&alice, &format!("/v1/images/{BB}:v1"), json!({ "frozen": false })).await.ok();
    alice.delete(&format!("/v1/images/{BB}:v1")).await.ok();
}

#[tokio::test]
async fn a_read_only_container_takes_no_writes() {
    let (server, alice) = start().await;
    let (kept, other) = (sif(1), sif(2));
    alice.push(BB, "latest", "amd64", &kept).await.ok();
    let push = begin(&alice, BB, &other).await;
    alice.open(&push.image, &other).await.ok();
    set(&alice, &format!("/v1/containers/{BB}"), json!({ "readOnly": true })).await.ok();
    assert_eq!(server.nobody.get(&format!("/v1/images/{BB}:latest")).await.status, 200);
    assert_eq!(alice.get(&format!("/v1/containers/{BB}")).await.ok()["data"]["readOnly"], json!(true));
    let stored = begin(&alice, "alice/tools/elsewhere", &kept).await;
    assert!(stored.uploaded);
    for caller in [&alice, &server.admin] {
        let image = json!({ "hash": hash(&other), "container": push.container });
        for refused in [
            caller.post("/v1/images", image).await,
            caller.open(&push.image, &other).await,
            caller.put(&format!("/v2/imagefile/{}/_complete", push.image), json!({})).await,
            tag(caller, &push, "latest").await,
            caller.delete(&format!("/v1/images/{BB}:latest")).await,
        ] {
            let said = refused.error(403);
            assert!(said.contains("read-only"), "{said}");
        }
    }
    // A caller who may not write there anyway does not learn of it.
    let bob = server.user("bob", 0).await;
    let said = bob.delete(&format!("/v1/images/{BB}:latest")).await.error(403);
    assert!(!said.contains("read-only"), "{said}");

    set(&alice, &format!("/v1/containers/{BB}"), json!({ "readOnly": false })).await.ok();
    alice.push(BB, "latest", "amd64", &other).await.ok();
}

#[tokio::test]
async fn an_image_that_never_had_a_tag_is_found_as_latest_but_no_older_one_takes_its_place() {
    let (server, alice) = start().await;
    let (first, second, untagged) = (sif(1), sif(2), sif(3));
    let latest = format!("/v1/images/{BB}:latest?arch=amd64");
    alice.push(BB, "latest", "amd64", &first).await.ok();
    alice.push(BB, "latest", "amd64", &second).await.ok();
    alice.delete(&latest).await.ok();
    // The first one had the tag once and lost it. That does not make it newer.
    server.nobody.get(&latest).await.error(404);

    let (push, url) = opened(&alice, BB, &untagged).await;
    alice.upload(&url, &untagged).await;
    complete(&alice, &push).await.ok();
    let found = server.nobody.get(&latest).await.ok();
    assert_eq!(found["data"]["hash"], json!(hash(&untagged)));
    server.nobody.get(&format!("/v1/images/{BB}:latest?arch=arm64")).await.error(404);
}

#[tokio::test]
async fn an_image_goes_from_tags_that_lead_to_many_others() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let path = "alice/tools/bb";
    let silent = |seed: u64| SifBuilder::new("unknown").seed(seed).build();
    let one = silent(0);
    // Different ones under each tag: when a tag is written, so are the manifests of everything that it leads to.
    for tag in 0..4 {
        alice.push(path, &format!("t{tag}"), "a0", &one).await.ok();
        for number in 1..16 {
            alice.push(path, &format!("t{tag}"), &format!("a{number}"), &silent(100 * tag + number)).await.ok();
        }
    }
    let all = server.quota("alice").await.0;
    assert_eq!(alice.delete(&format!("/v1/images/{path}:t3?arch=a0")).await.status, 200);
    assert_eq!(server.quota("alice").await.0, all - one.len() as u64);
    let container = alice.container(path).await;
    let tags = alice.get(&format!("/v2/tags/{container}")).await.ok()["data"].clone();
    assert_eq!(tags.as_object().unwrap().len(), 15);
    assert!(tags.as_object().unwrap().values().all(|tags| tags.as_object().unwrap().len() == 4));
    server.sweep_all().await;
}
