//! The quota: what it admits, when it refuses, and when it gives back.

use crate::library::sweep_up;
use crate::support::{
    BB, MIB, blob, blob_at, bring, close, closing, digest, fetch, is, junk, open, patch, patch_at, push, refused,
};
use crate::wire::{Wire, stream};
use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use stackroom_tests::{Server, send};

const NINE: u64 = 9 << 20;

#[tokio::test]
async fn what_is_known_to_be_too_long_is_refused_before_its_bytes_are_read() {
    let server = Server::start().await;
    let alice = server.user("alice", 1000).await;
    for (method, length) in [("PATCH", 1001), ("PUT", 1001), ("PATCH", 1_u64 << 38), ("PUT", 1_u64 << 38)] {
        let url = closing(&open(&alice, BB).await, &digest(b"x"));
        // Not one byte of the body is sent.
        let wire = Wire::begin(&server, &alice, method, &url, &format!("Content-Length: {length}")).await;
        let heard = wire.heard().await;
        assert!(heard.status == 403 && heard.says("DENIED"), "{method}: {heard:?}");
    }
    // Nor of what no blob can be as long as.
    for length in [1_u64 << 40, u64::MAX - 1, u64::MAX] {
        let url = closing(&open(&alice, BB).await, &digest(b"x"));
        let wire = Wire::begin(&server, &alice, "PATCH", &url, &format!("Content-Length: {length}")).await;
        let status = wire.heard().await.status;
        assert!((400..500).contains(&status), "{length}: {status}");
    }
    let bytes = junk(1, 1001);
    let path = format!("/v2/{BB}/blobs/uploads/?digest={}", digest(&bytes));
    let said = refused(&send(alice.request(Method::POST, &path).body(bytes)).await, 403, "DENIED");
    assert!(said.contains("of 1000 bytes"), "{said}");
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
    // A chunk that is too long does no harm to those before.
    let bytes = junk(2, 1000);
    let url = open(&alice, BB).await;
    is(&patch(&alice, &url, &bytes[..600]).await, 202);
    refused(&patch(&alice, &url, &junk(3, 401)).await, 403, "DENIED");
    is(&patch_at(&alice, &url, 600, &bytes[600..]).await, 202);
    is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
    assert_eq!(server.quota("alice").await, (1000, 0));
    refused(&bring(&alice, BB, b"1").await, 403, "DENIED");
}

#[tokio::test]
async fn a_quota_is_filled_exactly_whatever_way_the_bytes_come() {
    let server = Server::start().await;
    let alice = server.user("alice", NINE + 1000).await;
    let bytes = junk(1, 9 * MIB);
    blob(&alice, BB, &junk(2, 1000)).await;
    let back = async || {
        assert_eq!(server.quota("alice").await, (NINE + 1000, 0));
        assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes);
        is(&alice.delete(&blob_at(BB, &digest(&bytes))).await, 202);
        assert_eq!(server.quota("alice").await, (1000, 0));
    };
    blob(&alice, BB, &bytes).await;
    back().await;

    // Chunks whose number nobody knows before.
    for chunk in [8 * MIB, 5 * MIB, 9 * MIB - 1, MIB] {
        let url = open(&alice, BB).await;
        for (number, piece) in bytes.chunks(chunk).enumerate() {
            is(&patch_at(&alice, &url, number * chunk, piece).await, 202);
        }
        is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
        back().await;
    }
    let url = open(&alice, BB).await;
    is(&patch(&alice, &url, &bytes[..8 * MIB + 5]).await, 202);
    is(&close(&alice, &url, &digest(&bytes), &bytes[8 * MIB + 5..]).await, 201);
    back().await;

    // Streams whose length nobody knows before, as docker's are.
    let url = open(&alice, BB).await;
    assert_eq!(stream(&server, &alice, "PATCH", &url, &bytes).await.status, 202);
    is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
    back().await;
    let url = closing(&open(&alice, BB).await, &digest(&bytes));
    assert_eq!(stream(&server, &alice, "PUT", &url, &bytes).await.status, 201);
    back().await;
}

#[tokio::test]
async fn a_stream_of_unknown_length_is_stopped_where_it_passes_the_quota() {
    let server = Server::start().await;
    for (name, limit, len) in [("bob", 1000, 1001), ("carol", NINE, 9 * MIB + 1), ("dave", NINE, 40 * MIB)] {
        let who = server.user(name, limit).await;
        let repository = format!("{name}/tools/bb");
        let bytes = junk(1, len);
        let url = open(&who, &repository).await;
        let patched = stream(&server, &who, "PATCH", &url, &bytes).await;
        if patched.status == 202 {
            // It may be taken in as far as it is held without having been charged, but never become a blob.
            refused(&close(&who, &url, &digest(&bytes), b"").await, 403, "DENIED");
        } else {
            assert!(patched.status == 403 && patched.says("DENIED"), "{patched:?}");
        }
        let url = closing(&open(&who, &repository).await, &digest(&bytes));
        let put = stream(&server, &who, "PUT", &url, &bytes).await;
        assert!(put.status == 403 && put.says("DENIED"), "{put:?}");
        let (used, reserved) = server.quota(name).await;
        assert!(used == 0 && reserved <= limit, "{used} {reserved}");
        assert_eq!(who.get(&blob_at(&repository, &digest(&bytes))).await.status, 404);
    }
    sweep_up(&server).await;
    for name in ["bob", "carol", "dave"] {
        assert_eq!(server.quota(name).await, (0, 0));
    }
    assert_eq!(server.objects().await, Vec::<String>::new());
}

#[tokio::test]
async fn bytes_on_their_way_are_reserved_and_given_back() {
    let server = Server::start().await;
    let alice = server.user("alice", NINE).await;
    let bytes = junk(1, 9 * MIB);
    let url = open(&alice, BB).await;
    is(&patch(&alice, &url, &bytes).await, 202);
    assert_eq!(server.quota("alice").await, (0, NINE));
    refused(&bring(&alice, BB, b"1").await, 403, "DENIED");
    is(&alice.delete(&url).await, 204);
    assert_eq!(server.quota("alice").await, (0, 0));
    // Wrong bytes give back too, and the right ones turn from reserved to used.
    let url = open(&alice, BB).await;
    is(&patch(&alice, &url, &bytes).await, 202);
    refused(&close(&alice, &url, &digest(b"other"), b"").await, 400, "DIGEST_INVALID");
    assert_eq!(server.quota("alice").await, (0, 0));
    let url = open(&alice, BB).await;
    is(&patch(&alice, &url, &bytes).await, 202);
    is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
    assert_eq!(server.quota("alice").await, (NINE, 0));
    is(&alice.delete(&blob_at(BB, &digest(&bytes))).await, 202);
    assert_eq!(server.quota("alice").await, (0, 0));
}

#[tokio::test]
async fn the_same_bytes_count_once_for_an_entity_whatever_door_they_came_through() {
    let server = Server::start().await;
    let sif = crate::library::sif(1);
    let charged = sif.len() as u64 + 2;
    // While bytes are on their way, nobody knows that they are there already.
    let alice = server.user("alice", charged + sif.len() as u64).await;
    alice.push("alice/tools/library", "latest", "amd64", &sif).await.ok();
    for repository in ["alice/tools/one", "alice/tools/two", "alice/tools/library"] {
        crate::support::push_sif(&alice, repository, "registry", &sif).await;
        assert_eq!(server.quota("alice").await, (charged, 0), "{repository}");
    }
    server.admin.put("/api/entities/alice/quota", json!({ "limit": 10 })).await.ok();
    refused(&bring(&alice, BB, b"12345678901").await, 403, "DENIED");
    refused(&bring(&alice, BB, b"1").await, 403, "DENIED");
    alice.push("alice/tools/three", "latest", "amd64", &sif).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_quota_race_of_32_blobs_for_room_for_10_exactly_10_land() {
    for len in [50_000, 9 * MIB] {
        let racers: u64 = if len > MIB { 8 } else { 32 };
        let room: u64 = if len > MIB { 3 } else { 10 };
        let server = Server::start().await;
        let alice = server.user("alice", room * len as u64).await;
        let pushes = (0..racers).map(|seed| {
            let alice = alice.clone();
            tokio::spawn(async move {
                let bytes = junk(seed + 1, len);
                let repository = format!("alice/tools/c{}", seed % 4);
                if seed % 2 == 0 {
                    return (bring(&alice, &repository, &bytes).await.status.as_u16(), seed);
                }
                let url = open(&alice, &repository).await;
                let patched = patch(&alice, &url, &bytes).await.status.as_u16();
                let closed = match patched {
                    202 => close(&alice, &url, &digest(&bytes), b"").await.status.as_u16(),
                    status => status,
                };
                (closed, seed)
            })
        });
        let mut landed = 0;
        for result in join_all(pushes).await {
            let (status, seed) = result.unwrap();
            let (bytes, repository) = (junk(seed + 1, len), format!("alice/tools/c{}", seed % 4));
            match status {
                201 => {
                    landed += 1;
                    assert!(fetch(&alice, &repository, &digest(&bytes)).await.bytes == bytes);
                    // So that it stays.
                    push(&alice, &repository, &format!("t{seed}"), b"", &[&bytes]).await;
                }
                403 => assert_eq!(alice.get(&blob_at(&repository, &digest(&bytes))).await.status, 404),
                other => panic!("{other}"),
            }
        }
        assert_eq!(landed, room, "{len}");
        sweep_up(&server).await;
        assert_eq!(server.quota("alice").await, (room * len as u64, 0));
        assert_eq!(server.objects().await.len() as u64, room + 1, "with the empty configuration");
    }
}
