//! Many requests at once, through both protocols.

use crate::library::{hash, len, sif, sweep_up, write};
use crate::support::{BB, MANIFEST, bring, digest, fetch, image, manifest_at, nothing, of_sif, push, push_sif, put};
use futures::future::join_all;
use serde_json::{Value, json};
use shared::store::keys;
use shared::store::rows::Tag;
use stackroom_tests::{Caller, Server, sif::SifBuilder};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Pushes an image through one of the protocols; returns the status of the last request.
async fn through(who: &Caller, registry: bool, bytes: &[u8]) -> u16 {
    if registry {
        for blob in [&b"{}"[..], bytes] {
            assert_eq!(bring(who, BB, blob).await.status, 201);
        }
        return put(who, BB, "latest", MANIFEST, &of_sif(bytes).to_string()).await.status.as_u16();
    }
    who.push(BB, "latest", "amd64", bytes).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_64_pushes_race_for_one_tag_through_both_doors_it_names_a_whole_image_at_every_moment() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let first = sif(1_000);
    // Created by the library, so that everybody may look.
    alice.push(BB, "latest", "amd64", &first).await.ok();
    let (done, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let watching = {
        let (done, looks, nobody) = (Arc::clone(&done), Arc::clone(&looks), server.nobody.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let image = nobody.get(&format!("/v1/images/{BB}:latest?arch=amd64")).await.ok();
                let hash = image["data"]["hash"].as_str().unwrap().to_owned();
                let pulled = nobody.pull(&format!("{BB}:{hash}")).await;
                assert_eq!(crate::library::hash(&pulled.bytes), hash);
                let answer = nobody.get(&manifest_at(BB, "latest")).await;
                assert_eq!(answer.status, 200);
                let document: Value = serde_json::from_slice(&answer.bytes).unwrap();
                let layer = document["layers"][0]["digest"].as_str().unwrap();
                let bytes = fetch(&nobody, BB, layer).await.bytes;
                assert_eq!(digest(&bytes), layer);
                assert_eq!(document["layers"][0]["size"], json!(bytes.len()));
                looks.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let pushes = (0..64).map(|seed| {
        let alice = alice.clone();
        tokio::spawn(async move { (through(&alice, seed % 2 == 0, &sif(seed)).await, seed) })
    });
    for result in join_all(pushes).await {
        let (status, seed) = result.unwrap();
        assert_eq!(status, if seed % 2 == 0 { 201 } else { 200 }, "{seed}");
    }
    done.store(true, Ordering::Relaxed);
    watching.await.unwrap();
    assert!(looks.load(Ordering::Relaxed) > 0);
    let (mut total, mut tagged) = (len(&first) + 2, 0);
    for seed in 0..64 {
        let bytes = sif(seed);
        total += len(&bytes);
        let reference = format!("{BB}:{}", hash(&bytes));
        assert_eq!(server.nobody.pull(&reference).await.bytes, bytes);
        let image = alice.get(&format!("/v1/images/{reference}")).await.ok();
        tagged += image["data"]["tags"].as_array().unwrap().len();
    }
    assert_eq!(tagged, 1, "the images' own lists of tags agree");
    assert_eq!(server.quota("alice").await, (total, 0));
    sweep_up(&server).await;
    assert_eq!(server.quota("alice").await, (total, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_tag_race_pushes_of_different_kinds_of_one_tag_all_succeed() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let pushes = (0..24_u64).map(|seed| {
        let alice = alice.clone();
        tokio::spawn(async move {
            match seed % 3 {
                0 => drop(push(&alice, BB, "latest", b"config", &[&seed.to_le_bytes()]).await),
                1 => drop(push_sif(&alice, BB, "latest", &SifBuilder::new("arm64").seed(seed).build()).await),
                _ => drop(alice.push(BB, "latest", "amd64", &sif(seed)).await.ok()),
            }
        })
    });
    for pushed in join_all(pushes).await {
        pushed.unwrap();
    }
    let named = alice.get(&manifest_at(BB, "latest")).await;
    assert_eq!(named.status, 200);
    assert_eq!(digest(&named.bytes), named.header("docker-content-digest").unwrap());
    // Whichever came last, both protocols agree on it.
    let document: Value = serde_json::from_slice(&named.bytes).unwrap();
    for arch in ["amd64", "arm64"] {
        let found = alice.get(&format!("/v1/images/{BB}:latest?arch={arch}")).await;
        if found.status == 200 {
            let bytes = alice.pull(&format!("{BB}:{}", found.json["data"]["hash"].as_str().unwrap())).await.bytes;
            let several = document["manifests"].is_array();
            assert!(several || document["layers"][0]["digest"] == json!(digest(&bytes)));
        }
    }
    sweep_up(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_tag_race_a_tag_that_moves_is_always_there_though_what_it_named_is_deleted_at_once() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let mut last = push(&alice, BB, "latest", b"config", &[]).await;
    let done = Arc::new(AtomicBool::new(false));
    let watching = (0..4).map(|_| {
        let (done, alice) = (Arc::clone(&done), alice.clone());
        tokio::spawn(async move {
            let mut seen = 0_u32;
            while !done.load(Ordering::Relaxed) {
                let answer = alice.get(&manifest_at(BB, "latest")).await;
                assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.bytes));
                assert_eq!(digest(&answer.bytes), answer.header("docker-content-digest").unwrap());
                seen += 1;
            }
            seen
        })
    });
    let watching: Vec<_> = watching.collect();
    for number in 0..60 {
        let mut body = image(b"config", &[]);
        body["annotations"] = json!({ "number": number.to_string() });
        assert_eq!(put(&alice, BB, "latest", MANIFEST, &body.to_string()).await.status, 201);
        assert_eq!(alice.delete(&manifest_at(BB, &digest(last.as_bytes()))).await.status, 202);
        last = body.to_string();
    }
    done.store(true, Ordering::Relaxed);
    let seen: u32 = join_all(watching).await.into_iter().map(Result::unwrap).sum();
    assert!(seen > 60, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_tag_race_a_tag_that_named_what_is_gone_by_then_is_read_again() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let body = push(&alice, BB, "latest", b"config", &[]).await;
    let key = keys::tag(&BB.parse().unwrap(), &"latest".parse().unwrap());
    let right: Tag = server.local.app.table.get(key).await.unwrap().unwrap();
    // As if the tag had been read a moment before it moved, and what it named had been deleted.
    let mut before = right.clone();
    before.named.digest = nothing().parse().unwrap();
    let path = manifest_at(BB, "latest");
    for _ in 0..20 {
        write(&server, &before).await;
        let (answer, ()) = futures::join!(alice.get(&path), write(&server, &right));
        assert_eq!((answer.status.as_u16(), answer.bytes), (200, body.clone().into_bytes()));
    }
    // It does not retry for ever, and it never says that an existing tag is missing.
    write(&server, &before).await;
    let begun = Instant::now();
    assert_eq!(alice.get(&path).await.status, 503);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    write(&server, &right).await;
    assert_eq!(alice.get(&path).await.bytes, body.into_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_racing_with_pushes_through_both_doors_leave_a_right_account() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    let (own, pushed) = {
        alice.push(BB, "latest", "amd64", &bytes).await.ok();
        let own = alice.get(&manifest_at(BB, "latest")).await.header("docker-content-digest").unwrap().to_owned();
        (own, digest(of_sif(&bytes).to_string().as_bytes()))
    };
    let races = (0..24).map(|number| {
        let (alice, bytes, own, pushed) = (alice.clone(), bytes.clone(), own.clone(), pushed.clone());
        tokio::spawn(async move {
            match number % 6 {
                0 | 3 => {
                    for blob in [&b"{}"[..], &bytes] {
                        bring(&alice, BB, blob).await;
                    }
                    put(&alice, BB, "latest", MANIFEST, &of_sif(&bytes).to_string()).await.status.as_u16()
                }
                1 => alice.delete(&format!("/v1/images/{BB}:{}", hash(&bytes))).await.status.as_u16(),
                2 => alice.delete(&manifest_at(BB, &pushed)).await.status.as_u16(),
                4 => alice.delete(&manifest_at(BB, &own)).await.status.as_u16(),
                _ => alice.push(BB, "other", "amd64", &bytes).await.status.as_u16(),
            }
        })
    });
    for status in join_all(races).await {
        let status = status.unwrap();
        assert!(status < 500, "{status}");
    }
    // An existing tag names an existing manifest.
    for tag in ["latest", "other"] {
        let named = alice.get(&manifest_at(BB, tag)).await;
        let found = alice.get(&format!("/v1/images/{BB}:{tag}")).await;
        assert_eq!(named.status, found.status, "{tag}");
        if named.status == 200 {
            assert_eq!(fetch(&alice, BB, &digest(&bytes)).await.bytes, bytes);
            assert_eq!(alice.pull(&format!("{BB}:{tag}")).await.bytes, bytes);
        }
    }
    sweep_up(&server).await;
    alice.delete(&format!("/v1/images/{BB}:{}", hash(&bytes))).await;
    for manifest in [&own, &pushed] {
        alice.delete(&manifest_at(BB, manifest)).await;
    }
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_never_names_a_layer_that_a_deletion_took_meanwhile() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    for round in 0..10_u64 {
        let (old, layer) = (round.to_le_bytes(), format!("layer {round}"));
        let first = push(&alice, BB, "old", &old, &[layer.as_bytes()]).await;
        let config = format!("config {round}");
        assert_eq!(bring(&alice, BB, config.as_bytes()).await.status, 201);
        let body = image(config.as_bytes(), &[layer.as_bytes()]).to_string();
        let path = manifest_at(BB, &digest(first.as_bytes()));
        let (deleted, pushed) = futures::join!(alice.delete(&path), put(&alice, BB, "new", MANIFEST, &body));
        assert_eq!(deleted.status, 202);
        match pushed.status.as_u16() {
            201 => assert_eq!(fetch(&alice, BB, &digest(layer.as_bytes())).await.bytes, layer.as_bytes()),
            404 => assert_eq!(pushed.json["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN"),
            other => panic!("{other}"),
        }
    }
    sweep_up(&server).await;
}
