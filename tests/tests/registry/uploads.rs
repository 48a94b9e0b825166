//! Who may use an upload, and concurrent requests to one.

use crate::library::{private_collection, sweep_up};
use crate::support::{
    BB, MIB, beside, blob, blob_at, close, closing, digest, fetch, is, junk, keys_of, narrowed, nothing, open, patch,
    refused,
};
use crate::wire::Wire;
use futures::future::join_all;
use reqwest::Method;
use shared::auth::Keys;
use shared::auth::token::UploadTicket;
use shared::domain::UploadId;
use stackroom_tests::{Caller, Server, send};
use std::time::Duration;

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

/// The id in the URL of an upload, and its ticket.
fn parts(url: &str) -> (String, String) {
    let (path, ticket) = url.split_once("?_s=").unwrap();
    (path.rsplit('/').next().unwrap().to_owned(), ticket.to_owned())
}

#[tokio::test]
async fn hazard_upload_session_hijack_and_capability_url() {
    let (server, alice) = start().await;
    let bob = server.user("bob", 0).await;
    let (bytes, other) = (junk(1, 1000), "alice/tools/other");
    let url = open(&alice, BB).await;
    is(&patch(&alice, &url, &bytes).await, 202);
    let (id, ticket) = parts(&url);
    let second = open(&alice, BB).await;
    let (second_id, second_ticket) = parts(&second);
    let bobs = parts(&open(&bob, "bob/tools/bb").await).1;
    let until = server.local.app.now().minus(Duration::from_secs(1));
    let upload: UploadId = id.parse().unwrap();
    let (repository, actor) = (BB.parse().unwrap(), "alice".parse().unwrap());
    let expired = UploadTicket { upload, repository, actor, token: None, password: None, container: None, until };
    let expired = server.local.app.keys.sign_upload(&expired).unwrap();
    let short = narrowed(&alice, "alice", &[&format!("repository:{BB}:pull,push")]).await;
    let hop = server.local.app.keys.seal(&format!("{}{url}", server.url)).unwrap();
    let altered = |at: usize| {
        let mut text = ticket.clone().into_bytes();
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(text).unwrap()
    };
    let dot = ticket.rfind('.').unwrap();
    let place = |repository: &str, id: &str, ticket: &str| format!("/v2/{repository}/blobs/uploads/{id}?_s={ticket}");
    for (why, wrong) in [
        ("another repository", place(other, &id, &ticket)),
        ("somebody else's repository", place("bob/tools/bb", &id, &ticket)),
        ("another id", place(BB, &second_id, &ticket)),
        ("another upload's right", place(BB, &id, &second_ticket)),
        ("somebody else's right", place(BB, &id, &bobs)),
        ("an id that never was", place(BB, &"0".repeat(32), &ticket)),
        ("no id", place(BB, "x", &ticket)),
        ("altered claims", place(BB, &id, &altered(dot - 5))),
        ("an altered signature", place(BB, &id, &altered(dot + 5))),
        ("no signature", place(BB, &id, &ticket[..dot])),
        ("an expired right", place(BB, &id, &expired)),
        ("an API token", place(BB, &id, alice.token.as_deref().unwrap())),
        ("a short-lived token", place(BB, &id, short.token.as_deref().unwrap())),
        ("a ticket of the hop", place(BB, &id, &hop)),
        ("nothing", place(BB, &id, "")),
    ] {
        for who in [&alice, &bob, &server.nobody, &server.admin] {
            refused(&who.get(&wrong).await, 404, "BLOB_UPLOAD_UNKNOWN");
            refused(&patch(who, &wrong, b"more").await, 404, "BLOB_UPLOAD_UNKNOWN");
            refused(&close(who, &wrong, &digest(&bytes), b"").await, 404, "BLOB_UPLOAD_UNKNOWN");
            let ended = who.delete(&wrong).await;
            assert_eq!(ended.status, 404, "{why}");
        }
    }
    // It continues under a key that is listed but no longer signs, and ends when that key is removed.
    let (old, new) = (keys_of(&server), Keys::generate().unwrap());
    let both = beside(&server, &alice, Some(&format!("{new}{old}")), |_| {}).await;
    is(&both.get(&url).await, 204);
    is(&patch(&both, &url, b"").await, 202);
    let only = beside(&server, &alice, Some(&new), |_| {}).await;
    for answer in [
        only.get(&url).await,
        patch(&only, &url, b"more").await,
        close(&only, &url, &digest(&bytes), b"").await,
        only.delete(&url).await,
    ] {
        is(&answer, 404);
    }
    refused(&only.get("/v2/").await, 401, "UNAUTHORIZED");
    // A ticket is not a token, and none of these requests did any harm.
    let thief = alice.with(&ticket);
    refused(&thief.get("/v2/").await, 401, "UNAUTHORIZED");
    thief.get("/v1/entities").await.error(401);
    is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
    refused(&alice.get(&blob_at(other, &digest(&bytes))).await, 404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn the_url_of_an_upload_is_all_that_bringing_its_bytes_needs() {
    let (server, alice) = start().await;
    let bytes = junk(1, 1000);
    let url = open(&alice, BB).await;
    // Some clients send their token along, some don't, and some send an old one.
    is(&patch(&server.nobody, &url, &bytes).await, 202);
    let stale = alice.with("stale");
    is(&stale.get(&url).await, 204);
    is(&close(&server.nobody, &url, &digest(&bytes), b"").await, 201);
    assert_eq!(fetch(&alice, BB, &digest(&bytes)).await.bytes, bytes);
}

#[tokio::test]
async fn who_may_push_no_more_can_bring_no_more_bytes_to_what_they_opened() {
    let (server, alice) = start().await;
    let carol = server.user("carol", 0).await;
    crate::library::join(&server, "alice", "carol", shared::domain::Role::Contributor).await;
    private_collection(&alice, "alice", "tools").await;
    let bytes = junk(1, 1000);
    let url = open(&carol, BB).await;
    is(&patch(&carol, &url, &bytes).await, 202);
    crate::library::join(&server, "alice", "carol", shared::domain::Role::Reader).await;
    for answer in [
        carol.get(&url).await,
        patch(&carol, &url, b"more").await,
        close(&carol, &url, &digest(&bytes), b"").await,
        carol.delete(&url).await,
    ] {
        // Never a challenge: a client that logs in again would upload all the bytes again.
        refused(&answer, 403, "DENIED");
        assert_eq!(answer.header("www-authenticate"), None);
    }
    refused(&alice.get(&blob_at(BB, &digest(&bytes))).await, 404, "BLOB_UNKNOWN");
    crate::library::join(&server, "alice", "carol", shared::domain::Role::Contributor).await;
    is(&close(&carol, &url, &digest(&bytes), b"").await, 201);
}

#[tokio::test]
async fn an_upload_ends_with_the_token_that_opened_it() {
    let (server, alice) = start().await;
    let made = server.admin.post("/api/users/alice/tokens", serde_json::json!({ "name": "ci" })).await.ok();
    let robot = alice.with(&crate::library::text(&made, "/data/token"));
    let listed = server.admin.get("/api/users/alice/tokens").await.ok();
    let tokens = listed["data"].as_array().unwrap();
    let id = tokens.iter().find(|token| token["name"] == "ci").unwrap()["id"].as_str().unwrap().to_owned();
    let url = open(&robot, BB).await;
    is(&patch(&robot, &url, b"some").await, 202);
    server.admin.delete(&format!("/api/users/alice/tokens/{id}")).await.ok();
    for who in [&robot, &alice, &server.nobody] {
        refused(&patch(who, &url, b"more").await, 403, "DENIED");
        refused(&close(who, &url, &digest(b"some"), b"").await, 403, "DENIED");
    }
    refused(&alice.get(&blob_at(BB, &digest(b"some"))).await, 404, "BLOB_UNKNOWN");
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_chunks_at_once_exactly_one_is_taken_and_no_blob_is_ever_mixed() {
    let (server, alice) = start().await;
    for (number, len) in [1000, 9 * MIB, 1000, 17 * MIB, 9 * MIB].into_iter().enumerate() {
        let both = [junk(number as u64 * 2, len), junk(number as u64 * 2 + 1, len)];
        for begun in [0, 9 * MIB] {
            let before = junk(99, begun);
            let url = open(&alice, BB).await;
            if begun > 0 {
                is(&patch(&alice, &url, &before).await, 202);
            }
            let answers = join_all(both.iter().map(|bytes| patch(&alice, &url, bytes))).await;
            let statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
            // One after the other, both are accepted; at once, one of them is.
            let taken = statuses.iter().filter(|status| **status == 202).count();
            assert!(taken >= 1 && statuses.iter().all(|status| [202, 416].contains(status)), "{statuses:?}");
            let wholes: Vec<Vec<u8>> = match taken {
                1 => vec![[&before[..], &both[statuses.iter().position(|status| *status == 202).unwrap()]].concat()],
                _ => vec![[&before[..], &both[0], &both[1]].concat(), [&before[..], &both[1], &both[0]].concat()],
            };
            let status = alice.get(&url).await;
            assert_eq!(status.header("range").unwrap(), format!("0-{}", wholes[0].len() - 1));
            // What the refused one left in the store may spoil the upload, but never the blob.
            let mut landed = false;
            for whole in &wholes {
                let closed = close(&alice, &url, &digest(whole), b"").await;
                if closed.status == 201 {
                    assert!(fetch(&alice, BB, &digest(whole)).await.bytes == *whole, "{len} after {begun}");
                    landed = true;
                    break;
                }
                assert!([400, 404].contains(&closed.status.as_u16()), "{}", closed.status);
            }
            assert!(landed || taken == 2 || begun > 0, "{len} after {begun}");
            alice.delete(&url).await;
        }
    }
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_comes_while_another_is_on_its_way_does_not_spoil_the_upload() {
    let (server, alice) = start().await;
    let bytes = junk(1, 20 * MIB);
    let url = open(&alice, BB).await;
    let head = "Content-Length: 20971520\r\nContent-Range: 0-20971519";
    let mut slow = Wire::begin(&server, &alice, "PATCH", &url, head).await;
    assert!(slow.send(&bytes[..MIB]).await);
    // It has recorded nothing yet, so another one wins.
    is(&patch(&alice, &url, &bytes[..9 * MIB]).await, 202);
    slow.send(&bytes[MIB..]).await;
    assert_eq!(slow.heard().await.status, 416);
    is(&patch(&alice, &url, &bytes[9 * MIB..]).await, 202);
    is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
    assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_the_same_bytes_at_once_all_succeed_and_are_kept_once() {
    let (server, alice) = start().await;
    let bob = server.user("bob", 0).await;
    for (seed, len) in [(1, 50_000), (2, 9 * MIB)] {
        let bytes = junk(seed, len);
        let before = server.quota("alice").await.0;
        let pushes = (0..8).map(|number| {
            let (who, bytes) = (if number % 4 == 3 { bob.clone() } else { alice.clone() }, bytes.clone());
            let name = if number % 4 == 3 { "bob" } else { "alice" };
            tokio::spawn(async move {
                let repository = format!("{name}/tools/c{}", number % 2);
                let url = open(&who, &repository).await;
                if number % 2 == 0 {
                    is(&patch(&who, &url, &bytes).await, 202);
                    return close(&who, &url, &digest(&bytes), b"").await;
                }
                send(who.request(Method::PUT, &closing(&url, &digest(&bytes))).body(bytes)).await
            })
        });
        for pushed in join_all(pushes).await {
            is(&pushed.unwrap(), 201);
        }
        assert_eq!(server.quota("alice").await, (before + len as u64, 0));
        assert_eq!(server.quota("bob").await, (before + len as u64, 0));
        for repository in ["alice/tools/c0", "alice/tools/c1"] {
            assert!(fetch(&alice, repository, &digest(&bytes)).await.bytes == bytes);
        }
        assert!(fetch(&bob, "bob/tools/c1", &digest(&bytes)).await.bytes == bytes);
    }
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn bytes_that_come_to_nothing_take_no_room_in_the_store() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let (small, large) = (junk(1, 1000), junk(2, 9 * MIB));
    for bytes in [&small, &large] {
        blob(&alice, BB, bytes).await;
    }
    let objects = server.objects().await;
    for bytes in [&small, &large] {
        // The same again, and elsewhere; in one request and in two.
        blob(&alice, BB, bytes).await;
        blob(&alice, "alice/tools/other", bytes).await;
        let url = open(&alice, BB).await;
        is(&patch(&alice, &url, bytes).await, 202);
        is(&close(&alice, &url, &digest(bytes), b"").await, 201);
        // Wrong ones, and cancelled ones.
        for first in [&b""[..], bytes] {
            let url = open(&alice, BB).await;
            is(&patch(&alice, &url, first).await, 202);
            refused(&close(&alice, &url, &nothing(), b"more").await, 400, "DIGEST_INVALID");
        }
        let url = open(&alice, BB).await;
        is(&patch(&alice, &url, bytes).await, 202);
        is(&alice.delete(&url).await, 204);
    }
    assert_eq!(server.objects().await, objects, "at once");
    assert!(server.local.app.objects.open_parts().await.unwrap().is_empty());
    assert_eq!(server.quota("alice").await, (1000 + (9 << 20), 0));
    for bytes in [&small, &large] {
        assert!(fetch(&alice, BB, &digest(bytes)).await.bytes == *bytes);
    }
}
