//! Many requests at once.

use crate::support::{begin, complete, hash, len, opened, opened_old, opened_parts, sif, sif_of, sweep_up, tag};
use futures::future::join_all;
use serde_json::json;
use stackroom_tests::{Caller, Server};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// How a client sends bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Pinned,
    Old,
    Parts,
}

const WAYS: [Way; 3] = [Way::Pinned, Way::Old, Way::Parts];

/// Pushes in one of the ways up to the end of the upload; returns the status of the last request.
async fn push(who: &Caller, way: Way, path: &str, bytes: &[u8]) -> u16 {
    let (push, url) = match way {
        Way::Pinned => opened(who, path, bytes).await,
        Way::Old => opened_old(who, path, bytes).await,
        Way::Parts => {
            let parts = opened_parts(who, path, bytes).await;
            let etags = parts.send_all(who, bytes).await;
            return parts.complete_all(who, &etags).await.status.as_u16();
        }
    };
    assert_eq!(who.upload(&url, bytes).await.status, 200);
    complete(who, &push).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pushes_of_the_same_bytes_in_the_same_way_both_succeed() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    for (way, seed) in WAYS.into_iter().zip(1..) {
        for (paths, copies) in [
            ([(&alice, "alice/tools/a"), (&alice, "alice/tools/a")], 1),
            ([(&alice, "alice/tools/b"), (&alice, "alice/tools/c")], 1),
            ([(&alice, "alice/tools/d"), (&bob, "bob/tools/d")], 2),
        ] {
            let bytes = sif(seed * 10 + copies + len(paths[0].1.as_bytes()) + len(paths[1].1.as_bytes()));
            let (alices, bobs) = (server.quota("alice").await.0, server.quota("bob").await.0);
            let both = paths.map(|(who, path)| {
                let bytes = &bytes;
                async move {
                    // Created before, so that the image is the same.
                    begin(who, path, bytes).await;
                    push(who, way, path, bytes).await
                }
            });
            let names = paths.map(|(_, path)| path);
            assert_eq!(join_all(both).await, [200, 200], "{way:?} {names:?}");
            for (_, path) in paths {
                assert_eq!(server.nobody.pull(&format!("{path}:{}", hash(&bytes))).await.bytes, bytes);
            }
            assert_eq!(server.quota("alice").await, (alices + len(&bytes), 0), "{way:?} {names:?}");
            assert_eq!(server.quota("bob").await, (bobs + (copies - 1) * len(&bytes), 0));
            for (who, path) in paths {
                who.delete(&format!("/v1/images/{path}:{}", hash(&bytes))).await;
            }
            assert_eq!((server.quota("alice").await, server.quota("bob").await), ((alices, 0), (bobs, 0)));
        }
    }
    sweep_up(&server).await;
    assert_eq!(server.objects().await, Vec::<String>::new());
}

#[tokio::test]
async fn two_pushes_of_the_same_bytes_in_different_ways_end_in_one_image() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    for (number, (first, second)) in
        WAYS.into_iter().flat_map(|first| WAYS.map(|second| (first, second))).enumerate().filter(|(_, (a, b))| a != b)
    {
        let bytes = sif(number as u64);
        let path = "alice/tools/bb";
        let before = server.quota("alice").await.0;
        begin(&alice, path, &bytes).await;
        let (one, two) = futures::join!(push(&alice, first, path, &bytes), push(&alice, second, path, &bytes));
        // A single upload may be replaced by a multipart one, and is told so; nobody gets wrong bytes.
        assert!(one == 200 || two == 200, "{first:?} {one}, {second:?} {two}");
        assert!([one, two].iter().all(|status| [200, 400, 409].contains(status)), "{first:?} {one}, {second:?} {two}");
        assert_eq!(server.nobody.pull(&format!("{path}:{}", hash(&bytes))).await.bytes, bytes);
        assert!(begin(&alice, path, &bytes).await.uploaded);
        assert_eq!(server.quota("alice").await, (before + len(&bytes), 0));
    }
    sweep_up(&server).await;
    assert_eq!(server.objects().await.len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_32_pushes_racing_for_a_quota_of_10_exactly_10_land() {
    let server = Server::start().await;
    let size = 50_000;
    let alice = server.user("alice", 10 * size as u64).await;
    alice.container("alice/tools/bb").await;
    let pushes = (0..32).map(|seed| {
        let alice = alice.clone();
        tokio::spawn(async move {
            let bytes = sif_of(seed, size);
            let answer = alice.push(&format!("alice/tools/c{}", seed % 4), &format!("t{seed}"), "amd64", &bytes).await;
            (answer.status.as_u16(), seed)
        })
    });
    let mut landed = 0;
    for result in join_all(pushes).await {
        let (status, seed) = result.unwrap();
        let reference = format!("alice/tools/c{}:t{seed}", seed % 4);
        match status {
            200 => {
                landed += 1;
                assert_eq!(server.nobody.pull(&reference).await.bytes, sif_of(seed, size));
            }
            507 => assert_eq!(server.nobody.get(&format!("/v1/images/{reference}")).await.status, 404),
            other => panic!("{other}"),
        }
    }
    assert_eq!(landed, 10);
    assert_eq!(server.quota("alice").await, (10 * size as u64, 0));
    sweep_up(&server).await;
    assert_eq!(server.objects().await.len(), 10);
    assert_eq!(server.quota("alice").await, (10 * size as u64, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_64_pushes_race_for_one_tag_it_names_a_whole_image_at_every_moment() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let first = sif(1_000);
    alice.push("alice/tools/bb", "latest", "amd64", &first).await.ok();
    let (done, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let watching = {
        let (done, looks, nobody) = (Arc::clone(&done), Arc::clone(&looks), server.nobody.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let image = nobody.get("/v1/images/alice/tools/bb:latest?arch=amd64").await.ok();
                let hash = image["data"]["hash"].as_str().unwrap().to_owned();
                let pulled = nobody.pull(&format!("alice/tools/bb:{hash}")).await;
                assert_eq!(crate::support::hash(&pulled.bytes), hash);
                assert_eq!(image["data"]["size"], json!(pulled.bytes.len()));
                let latest = nobody.pull("alice/tools/bb:latest?arch=amd64").await;
                assert_eq!(latest.status, 200);
                looks.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let pushes = (0..64).map(|seed| {
        let alice = alice.clone();
        tokio::spawn(async move { alice.push("alice/tools/bb", "latest", "amd64", &sif(seed)).await.status.as_u16() })
    });
    for status in join_all(pushes).await {
        assert_eq!(status.unwrap(), 200);
    }
    done.store(true, Ordering::Relaxed);
    watching.await.unwrap();
    assert!(looks.load(Ordering::Relaxed) > 0);
    let mut total = len(&first);
    let mut tagged = 0;
    for seed in 0..64 {
        let bytes = sif(seed);
        total += len(&bytes);
        let reference = format!("alice/tools/bb:{}", hash(&bytes));
        assert_eq!(server.nobody.pull(&reference).await.bytes, bytes);
        let image = alice.get(&format!("/v1/images/{reference}")).await.ok();
        tagged += image["data"]["tags"].as_array().unwrap().len();
    }
    assert_eq!(tagged, 1, "the images' own lists of tags agree");
    assert_eq!(server.quota("alice").await, (total, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_racing_with_pushes_leave_a_right_account() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    let races = (0..12).map(|number| {
        let (alice, bytes) = (alice.clone(), bytes.clone());
        tokio::spawn(async move {
            let path = format!("alice/tools/c{}", number % 3);
            if number % 2 == 0 {
                let push = begin(&alice, &path, &bytes).await;
                if !push.uploaded {
                    let opened = alice.open(&push.image, &bytes).await;
                    if opened.status.is_success() {
                        alice.upload(opened.json["data"]["uploadURL"].as_str().unwrap(), &bytes).await;
                        complete(&alice, &push).await;
                    }
                }
                tag(&alice, &push, "latest").await.status.as_u16()
            } else {
                alice.delete(&format!("/v1/images/{path}:{}", hash(&bytes))).await.status.as_u16()
            }
        })
    });
    for status in join_all(races).await {
        let status = status.unwrap();
        assert!(status < 500, "{status}");
    }
    sweep_up(&server).await;
    let mut there = 0;
    for number in 0..3 {
        let pulled = server.nobody.pull(&format!("alice/tools/c{number}:{}", hash(&bytes))).await;
        if pulled.status == 200 {
            assert_eq!(pulled.bytes, bytes);
            there = 1;
        }
    }
    assert_eq!(server.quota("alice").await, (there * len(&bytes), 0));
    assert_eq!(server.objects().await.len() as u64, there);
}
