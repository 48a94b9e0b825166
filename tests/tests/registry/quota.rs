//! The quota: what it allows, when it refuses, and when it frees bytes.

use crate::library::{sif, sweep_up, write};
use crate::support::{
    BB, INDEX, MANIFEST, MIB, blob, blob_at, bring, close, closing, digest, fetch, is, junk, manifest, manifest_at,
    of_sif, open, patch, patch_at, push, push_sif, put, refused, tags,
};
use crate::wire::{Wire, stream};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::rules::{Action, Resource};
use shared::service::access::system;
use shared::service::sweep::{self, Ages};
use shared::store::keys;
use shared::store::rows::Manifest;
use stackroom_tests::functions::only_in_one_process;
use stackroom_tests::{SERVING, Server, send};
use std::time::Duration;

const NINE: u64 = 9 << 20;

#[tokio::test]
async fn what_is_known_to_be_too_long_is_refused_before_its_bytes_are_read() {
    if only_in_one_process("the gateway reads a body before a function sees the head") {
        return;
    }
    let server = Server::start().await;
    let alice = server.user("alice", 1000).await;
    for (method, length) in [("PATCH", 1001), ("PUT", 1001), ("PATCH", 1_u64 << 38), ("PUT", 1_u64 << 38)] {
        let url = closing(&open(&alice, BB).await, &digest(b"x"));
        // Not one byte of the body is sent.
        let wire = Wire::begin(&server, &alice, method, &url, &format!("Content-Length: {length}")).await;
        let heard = wire.heard().await;
        assert!(heard.status == 403 && heard.says("DENIED"), "{method}: {heard:?}");
    }
    // Nor of a body that is longer than any blob may be.
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
    // A chunk that is too long does no harm to earlier ones.
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
        // What is deleted is kept for a while, and only so much of it: each time it is swept.
        let swept = sweep::sweep(&server.local.app, Ages { link: Duration::from_hours(1), ..Ages::zero() }).await;
        assert!(swept.unwrap().wrong_accounts.is_empty());
    };
    blob(&alice, BB, &bytes).await;
    // The first blob stays without a manifest.
    back().await;

    // Chunks whose number is not known in advance.
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

    // Streams whose length is not known in advance, like docker's.
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
            // It may be accepted as long as it is buffered without being charged, but it never becomes a blob.
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
    // Wrong bytes are freed too, and the right ones turn from reserved to used.
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
    // While bytes are being uploaded, the server can't know that it has them already.
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
                    // Names the blob, so that it stays.
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

/// A manifest of exactly `len` bytes.
fn long(mark: &str, len: usize) -> String {
    let body = |filling: usize| {
        let annotations = json!({ "mark": mark, "filling": "x".repeat(filling) });
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": annotations }).to_string()
    };
    body(len - body(0).len())
}

#[tokio::test]
async fn a_long_manifest_costs_its_bytes_in_each_repository_that_has_it() {
    let server = Server::start().await;
    let alice = server.user("alice", 400_000).await;
    let free = long("free", 16 << 10);
    for tag in ["v1", "v2"] {
        is(&put(&alice, BB, tag, INDEX, &free).await, 201);
    }
    assert_eq!(server.quota("alice").await, (0, 0));
    // One whose bytes are in its row, and one whose bytes are in the bucket.
    for (mark, len) in [("row", (16 << 10) + 1), ("object", 300 << 10)] {
        let (body, size) = (long(mark, len), u64::try_from(len).unwrap());
        for (repository, charged) in [(BB, size), ("alice/tools/other", 2 * size), ("alice/tools/third", 3 * size)] {
            if charged > 400_000 {
                let said = refused(&put(&alice, repository, mark, INDEX, &body).await, 403, "DENIED");
                assert!(said.contains("of 400000 bytes"), "{said}");
                is(&alice.get(&manifest_at(repository, mark)).await, 404);
                assert_eq!(server.quota("alice").await, (size, 0));
                assert_eq!(server.objects().await.len(), 1);
                continue;
            }
            // Pushed again, by its digest, and under another name, it is the same one.
            for reference in [mark, &digest(body.as_bytes()), mark, "another"] {
                is(&put(&alice, repository, reference, INDEX, &body).await, 201);
                assert_eq!(server.quota("alice").await, (charged, 0));
            }
        }
        // Without its tags it still exists.
        for tag in [mark, "another"] {
            is(&alice.delete(&manifest_at(BB, tag)).await, 202);
        }
        let before = server.quota("alice").await.0;
        assert!(manifest(&alice, BB, &digest(body.as_bytes())).await == body);
        is(&alice.delete(&manifest_at(BB, &digest(body.as_bytes()))).await, 202);
        assert_eq!(server.quota("alice").await, (before - size, 0));
        is(&alice.delete(&manifest_at(BB, &digest(body.as_bytes()))).await, 404);
        for repository in ["alice/tools/other", "alice/tools/third"] {
            alice.delete(&manifest_at(repository, &digest(body.as_bytes()))).await;
        }
        assert_eq!(server.objects().await, Vec::<String>::new());
        assert_eq!(server.quota("alice").await, (0, 0));
        server.sweep_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_manifest_that_is_pushed_and_deleted_at_once_is_charged_and_given_back_once() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    // Each in a repository that the first push creates.
    for (round, len) in [20_000, 300_000].into_iter().cycle().take(12).enumerate() {
        let repository = if round % 3 == 0 { format!("alice/r{round}") } else { format!("alice/r{round}/bb") };
        let body = long(&round.to_string(), len);
        let at = manifest_at(&repository, &digest(body.as_bytes()));
        let puts = (0..6).map(|number| {
            let (alice, repository, body) = (alice.clone(), repository.clone(), body.clone());
            let tag = format!("v{number}");
            tokio::spawn(async move { put(&alice, &repository, &tag, INDEX, &body).await.status.as_u16() })
        });
        for status in join_all(puts).await {
            assert_eq!(status.unwrap(), 201);
        }
        assert_eq!(server.quota("alice").await, (u64::try_from(len).unwrap(), 0));
        // What the slower ones pushed is not kept.
        assert_eq!(server.objects().await.len(), usize::from(len == 300_000), "{round}");
        let asks = (0..8).map(|number| {
            let method = if number % 2 == 0 { Method::DELETE } else { Method::GET };
            let asked = alice.request(method, &at);
            tokio::spawn(async move { send(asked).await.status.as_u16() })
        });
        let mut deleted = 0;
        for (number, status) in join_all(asks).await.into_iter().enumerate() {
            let status = status.unwrap();
            deleted += usize::from(status == 202);
            assert!(status == 404 || status == if number % 2 == 0 { 202 } else { 200 }, "{number}: {status}");
        }
        assert_eq!((deleted, server.quota("alice").await), (1, (0, 0)));
        assert_eq!(server.objects().await, Vec::<String>::new());
    }
    server.sweep_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_long_manifests_that_race_for_room_only_those_are_kept_that_land() {
    let server = Server::start().await;
    let alice = server.user("alice", 700_000).await;
    let puts = (0..8).map(|number| {
        let alice = alice.clone();
        tokio::spawn(async move {
            let body = long(&number.to_string(), 300_000);
            put(&alice, BB, &format!("v{number}"), INDEX, &body).await.status.as_u16()
        })
    });
    let mut statuses: Vec<u16> = join_all(puts).await.into_iter().map(Result::unwrap).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 201, 403, 403, 403, 403, 403, 403]);
    assert_eq!((server.quota("alice").await, server.objects().await.len()), ((600_000, 0), 2));
}

#[tokio::test]
async fn a_long_manifest_that_nobody_was_charged_for_gives_nothing_back() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let body = long("old", 50_000);
    let at = manifest_at(BB, &digest(body.as_bytes()));
    is(&put(&alice, BB, "v1", INDEX, &body).await, 201);
    let key = keys::manifest(&BB.parse().unwrap(), &digest(body.as_bytes()).parse().unwrap());
    let row: Manifest = server.local.app.table.get(key).await.unwrap().unwrap();
    assert_eq!((row.cost, server.quota("alice").await), (50_000, (50_000, 0)));
    is(&alice.delete(&at).await, 202);
    // As rows were written before manifests were charged.
    write(&server, &Manifest { cost: 0, rows: 0, ..row }).await;
    is(&put(&alice, BB, "v1", INDEX, &body).await, 201);
    assert_eq!(server.quota("alice").await, (0, 0));
    server.sweep_all().await;
    is(&alice.delete(&at).await, 202);
    assert_eq!(server.quota("alice").await, (0, 0));
    server.sweep_all().await;
}

#[tokio::test]
async fn a_long_manifest_whose_object_is_lost_is_mended_by_a_push() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let body = long("lost", 300_000);
    is(&put(&alice, BB, "v1", INDEX, &body).await, 201);
    let grant = system(Action::Manage, &Resource::Installation).unwrap();
    for object in server.objects().await {
        server.local.app.objects.delete(&grant, &object).await.unwrap();
    }
    refused(&alice.get(&manifest_at(BB, "v1")).await, 404, "MANIFEST_UNKNOWN");
    is(&put(&alice, BB, "v2", INDEX, &body).await, 201);
    assert!(manifest(&alice, BB, "v1").await == body);
    assert_eq!(server.quota("alice").await, (300_000, 0));
}

#[tokio::test]
async fn an_image_that_the_library_deletes_gives_back_what_its_long_manifests_cost() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    push_sif(&alice, BB, "v1", &bytes).await;
    let before = server.quota("alice").await.0;
    let mut sum = 0;
    // Half of them lose their tag again.
    for number in 0..40 {
        let mut body = of_sif(&bytes);
        body["annotations"] = json!({ "number": number.to_string(), "filling": "x".repeat(20_000) });
        let (body, tag) = (body.to_string(), format!("long{}", number % 20));
        is(&put(&alice, BB, &tag, MANIFEST, &body).await, 201);
        sum += body.len() as u64;
    }
    assert_eq!(server.quota("alice").await, (before + sum, 0));
    is(&alice.delete(&format!("/v1/images/{BB}:v1?arch=amd64")).await, 200);
    assert_eq!((server.quota("alice").await, tags(&alice, BB).await), ((0, 0), Vec::new()));
    sweep_up(&server).await;
    assert_eq!(server.objects().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_push_that_nearly_fills_the_quota_is_answered_with_a_warning_and_reads_no_more() {
    let server = Server::start_with(&[("STACKROOM_QUOTA_WARNING", "80"), SERVING]).await;
    let alice = server.user("alice", 100_000).await;
    let mut costs = Vec::new();
    for (seed, length, warning) in [
        (1, 39_000, None),
        (2, 40_000, None),
        (4, 1_000, Some("299 - \"alice uses 80 % of its quota\"")),
        (3, 20_000, Some("299 - \"alice uses 100 % of its quota\"")),
    ] {
        let bytes = junk(seed, length);
        let url = open(&alice, BB).await;
        let closed = close(&alice, &url, &digest(&bytes), &bytes).await;
        assert_eq!((closed.status.as_u16(), closed.header("warning")), (201, warning), "{length}");
        costs.push(closed.cost());
    }
    // The first one made the repository.
    costs.remove(0);
    costs.dedup();
    assert_eq!(costs.len(), 1, "{costs:?}");
    // Mounting within the entity costs no byte, and warns as well.
    let mount = format!("/v2/alice/tools/other/blobs/uploads/?mount={}&from={BB}", digest(&junk(1, 39_000)));
    let mounted = alice.post(&mount, Value::Null).await;
    assert_eq!((mounted.status.as_u16(), mounted.header("warning").is_some()), (201, true));
    // Pulling never does.
    let pulled = alice.get(&blob_at(BB, &digest(&junk(1, 39_000)))).await;
    assert_eq!((pulled.status.as_u16(), pulled.header("warning")), (200, None));
    // Without a limit, or with the warning off, there is none.
    let bob = server.user("bob", 0).await;
    let url = open(&bob, "bob/tools/bb").await;
    let closed = close(&bob, &url, &digest(b"x"), b"x").await;
    assert_eq!((closed.status.as_u16(), closed.header("warning")), (201, None));
    let silent = Server::start_with(&[("STACKROOM_QUOTA_WARNING", "0")]).await;
    let carol = silent.user("carol", 10).await;
    let url = open(&carol, "carol/tools/bb").await;
    let closed = close(&carol, &url, &digest(b"012345678"), b"012345678").await;
    assert_eq!((closed.status.as_u16(), closed.header("warning")), (201, None));
}
