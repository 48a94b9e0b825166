//! The same bytes through both protocols, one after the other and at once.

use crate::library::{begin, complete, hash, join, len, opened, opened_parts, sif, sif_of, sweep_up};
use crate::support::{
    BB, MIB, blob, blob_at, close, digest, fetch, is, junk, manifest, manifest_at, of_sif, open, patch, push, push_sif,
};
use crate::support::{MANIFEST, put};
use crate::wire::stream;
use futures::future::join_all;
use serde_json::json;
use shared::domain::Role;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, Server};

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

/// Checks that the library has an image, and that it is charged once.
async fn is_image(server: &Server, who: &Caller, bytes: &[u8], charged: u64) {
    let found = who.get(&format!("/v1/images/{BB}:{}", hash(bytes))).await.ok();
    assert_eq!((&found["data"]["uploaded"], &found["data"]["arch"]), (&json!(true), &json!("amd64")));
    assert_eq!(who.pull(&format!("{BB}:{}", hash(bytes))).await.bytes, bytes);
    assert_eq!(fetch(who, BB, &digest(bytes)).await.bytes, bytes);
    assert_eq!(server.quota("alice").await, (charged, 0));
}

#[tokio::test]
async fn bytes_that_came_as_a_plain_blob_become_an_image_when_the_library_pushes_them() {
    let (server, alice) = start().await;
    for (seed, repository) in [(1, BB), (2, "alice/tools/other")] {
        let bytes = sif(seed);
        let before = server.quota("alice").await.0;
        blob(&alice, repository, &bytes).await;
        // Nobody has parsed them as an image yet.
        alice.push(BB, "latest", "amd64", &bytes).await.ok();
        is_image(&server, &alice, &bytes, before + len(&bytes)).await;
        sweep_up(&server).await;
        is_image(&server, &alice, &bytes, before + len(&bytes)).await;
        // From now on they are a known image.
        assert!(begin(&alice, "alice/tools/third", &bytes).await.uploaded);
    }
    assert_eq!(server.objects().await.len(), 2);
}

#[tokio::test]
async fn bytes_that_are_no_image_stay_none_on_the_librarys_door() {
    let (server, alice) = start().await;
    let bytes = junk(1, 50_000);
    push_sif(&alice, BB, "fake", &bytes).await;
    let pushed = alice.push(BB, "latest", "amd64", &bytes).await;
    assert!(pushed.error(400).contains("SIF"));
    assert_eq!(server.quota("alice").await, (50_002, 0));
    assert_eq!(fetch(&alice, BB, &digest(&bytes)).await.bytes, bytes);
    sweep_up(&server).await;
    assert_eq!(fetch(&alice, BB, &digest(&bytes)).await.bytes, bytes);
    assert_eq!(server.quota("alice").await, (50_002, 0));
}

#[tokio::test]
async fn an_open_upload_of_the_library_does_not_hinder_one_of_the_registry_nor_the_other_way_round() {
    let (server, alice) = start().await;
    for (number, parts) in [(0, false), (1, true)] {
        let bytes = sif(number);
        let before = server.quota("alice").await.0;
        // The library's upload is open while the registry's overtakes it.
        if parts {
            let open = opened_parts(&alice, BB, &bytes).await;
            let etags = open.send_all(&alice, &bytes).await;
            push_sif(&alice, BB, "registry", &bytes).await;
            assert_eq!(alice.pull(&format!("{BB}:registry")).await.bytes, bytes);
            open.complete_all(&alice, &etags).await.ok();
        } else {
            let (push, url) = opened(&alice, BB, &bytes).await;
            assert_eq!(server.quota("alice").await, (before, len(&bytes)));
            alice.upload(&url, &bytes).await;
            push_sif(&alice, BB, "registry", &bytes).await;
            complete(&alice, &push).await.ok();
        }
        let empty = if number == 0 { 2 } else { 0 };
        is_image(&server, &alice, &bytes, before + len(&bytes) + empty).await;
    }
    // The registry's upload is open while the library's overtakes it.
    let bytes = sif(7);
    let before = server.quota("alice").await.0;
    let url = open(&alice, BB).await;
    is(&patch(&alice, &url, &bytes).await, 202);
    alice.push(BB, "library", "amd64", &bytes).await.ok();
    is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
    is_image(&server, &alice, &bytes, before + len(&bytes)).await;
    sweep_up(&server).await;
    is_image(&server, &alice, &bytes, before + len(&bytes)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_image_pushed_through_both_doors_at_once_is_there_once() {
    let (server, alice) = start().await;
    alice.container(BB).await;
    for seed in 0..6 {
        let bytes = sif(seed);
        let pushes = (0..4).map(|number| {
            let (alice, bytes) = (alice.clone(), bytes.clone());
            tokio::spawn(async move {
                if number % 2 == 0 {
                    return alice.push(BB, &format!("l{seed}"), "amd64", &bytes).await.status.as_u16();
                }
                for one in [&b"{}"[..], &bytes] {
                    blob(&alice, BB, one).await;
                }
                put(&alice, BB, &format!("r{seed}"), MANIFEST, &of_sif(&bytes).to_string()).await.status.as_u16()
            })
        });
        for status in join_all(pushes).await {
            assert!([200, 201].contains(&status.unwrap()));
        }
        is_image(&server, &alice, &bytes, 2 + (seed + 1) * len(&bytes)).await;
        for tag in ["l", "r"] {
            assert_eq!(alice.pull(&format!("{BB}:{tag}{seed}")).await.bytes, bytes);
        }
    }
    sweep_up(&server).await;
    assert_eq!(server.quota("alice").await.1, 0);
    assert_eq!(server.objects().await.len(), 7, "with the empty configuration");
}

#[tokio::test]
async fn an_image_of_many_parts_is_an_image_too() {
    let (server, alice) = start().await;
    let bytes = sif_of(1, 20 * MIB + 4096);
    let url = open(&alice, BB).await;
    assert_eq!(stream(&server, &alice, "PATCH", &url, &bytes).await.status, 202);
    is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
    blob(&alice, BB, b"{}").await;
    is(&put(&alice, BB, "v1", MANIFEST, &of_sif(&bytes).to_string()).await, 201);
    assert!(alice.pull(&format!("{BB}:v1")).await.bytes == bytes);
    let body = manifest(&alice, BB, "v1").await;
    is(&alice.delete(&manifest_at(BB, &digest(body.as_bytes()))).await, 202);
    assert_eq!(server.quota("alice").await, (0, 0));
    sweep_up(&server).await;
    assert_eq!(server.objects().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_layer_that_is_a_library_image_too_stays_while_either_needs_it() {
    let (server, alice) = start().await;
    let bytes = sif(1);
    alice.push(BB, "image", "amd64", &bytes).await.ok();
    let body = push(&alice, BB, "layers", b"config", &[&bytes, b"another"]).await;
    alice.delete(&format!("/v1/images/{BB}:image")).await.ok();
    assert_eq!(fetch(&alice, BB, &digest(&bytes)).await.bytes, bytes);
    assert_eq!(server.quota("alice").await, (len(&bytes) + 13, 0));
    alice.push(BB, "image", "amd64", &bytes).await.ok();
    is(&alice.delete(&manifest_at(BB, &digest(body.as_bytes()))).await, 202);
    assert_eq!(alice.pull(&format!("{BB}:image")).await.bytes, bytes);
    is(&alice.delete(&blob_at(BB, &digest(&bytes))).await, 403);
    assert_eq!(server.quota("alice").await, (len(&bytes), 0));
    alice.delete(&format!("/v1/images/{BB}:image")).await.ok();
    assert_eq!(server.quota("alice").await, (0, 0));
    sweep_up(&server).await;
    assert_eq!(server.objects().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_uploads_with_little_memory_wait_for_each_other_and_all_succeed() {
    let server = Server::start_with(&[("STACKROOM_BUFFERS", "8")]).await;
    let alice = server.user("alice", 0).await;
    let server = std::sync::Arc::new(server);
    let pushes = (0..12).map(|seed| {
        let (server, alice) = (server.clone(), alice.clone());
        tokio::spawn(async move {
            let bytes = junk(seed + 1, 10 * MIB);
            let url = open(&alice, BB).await;
            let (first, last) = bytes.split_at(3 * MIB);
            is(&patch(&alice, &url, first).await, 202);
            let patched = stream(&server, &alice, "PATCH", &url, last).await;
            assert_eq!(patched.status, 202);
            is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
            assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes);
        })
    });
    for pushed in join_all(pushes).await {
        pushed.unwrap();
    }
    assert_eq!(server.quota("alice").await, (120 << 20, 0));
}

#[tokio::test]
async fn an_image_goes_with_the_last_manifest_that_names_it_whichever_that_is() {
    let (server, alice) = start().await;
    let (bytes, other) = (sif(1), SifBuilder::new("arm64").seed(2).build());
    alice.push(BB, "both", "amd64", &bytes).await.ok();
    let own = digest(manifest(&alice, BB, "both").await.as_bytes());
    alice.push(BB, "both", "arm64", &other).await.ok();
    let pushed = digest(push_sif(&alice, BB, "oras", &bytes).await.as_bytes());
    // The image stays, since another manifest names it.
    is(&alice.delete(&manifest_at(BB, &own)).await, 202);
    assert_eq!(alice.pull(&format!("{BB}:both?arch=amd64")).await.bytes, bytes);
    // Now none does, and a tag alone would lead to bytes that nothing keeps.
    is(&alice.delete(&manifest_at(BB, &pushed)).await, 202);
    for _ in 0..2 {
        assert_eq!(alice.pull(&format!("{BB}:both?arch=amd64")).await.status, 404);
        assert_eq!(alice.pull(&format!("{BB}:both?arch=arm64")).await.bytes, other);
        sweep_up(&server).await;
    }
    assert_eq!(server.quota("alice").await, (len(&other), 0));
}

#[tokio::test]
async fn an_image_that_names_no_architecture_is_pushed_and_tagged() {
    let (_server, alice) = start().await;
    let silent = SifBuilder::new("unknown").build();
    push_sif(&alice, "alice/tools/silent", "v1", &silent).await;
    manifest(&alice, "alice/tools/silent", "v1").await;
    // The library has no architecture under which the tag could lead to it; by its hash it is found.
    alice.get("/v1/images/alice/tools/silent:v1").await.error(400);
    alice.get(&format!("/v1/images/alice/tools/silent:{}", hash(&silent))).await.ok();
    // Old clients state no architecture with a tag.
    alice.push("alice/tools/other", "v1", "s390x", &silent).await.ok();
    let container = alice.container("alice/tools/other").await;
    let image = alice.image(&container, &silent).await["id"].as_str().unwrap().to_owned();
    let said = alice.post(&format!("/v1/tags/{container}"), json!({ "Tag": "v2", "ImageID": image })).await.error(400);
    assert!(said.contains("architecture"), "{said}");
}

#[tokio::test]
async fn who_deletes_their_own_image_takes_no_manifest_that_somebody_else_pushed() {
    let (server, alice) = start().await;
    let (bob, dave) = (server.user("bob", 0).await, server.user("dave", 0).await);
    join(&server, "alice", "bob", Role::Contributor).await;
    join(&server, "alice", "dave", Role::Contributor).await;
    let bytes = sif(1);
    alice.container(BB).await;
    bob.push(BB, "one", "amd64", &bytes).await.ok();
    let stable = push_sif(&dave, BB, "stable", &bytes).await;
    let image = format!("/v1/images/{BB}:{}", hash(&bytes));
    bob.delete(&image).await.error(403);
    assert_eq!(manifest(&dave, BB, "stable").await, stable);
    // Once that is gone, the image goes.
    is(&alice.delete(&manifest_at(BB, &digest(stable.as_bytes()))).await, 202);
    bob.delete(&image).await.ok();
    server.nobody.get(&image).await.error(404);
}
