//! Blobs in many pieces, of any size, and connections that break.

use crate::library::sweep_up;
use crate::support::{BB, MIB, blob_at, close, digest, fetch, is, junk, open, patch, patch_at, refused};
use crate::wire::{Wire, stream};
use reqwest::Method;
use serde_json::Value;
use stackroom_tests::{Caller, Server, send};

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

/// How many bytes the upload reports.
async fn offset(who: &Caller, url: &str) -> usize {
    let status = who.get(url).await;
    is(&status, 204);
    assert!(status.header("location").is_some());
    let last: usize = status.header("range").unwrap().strip_prefix("0-").unwrap().parse().unwrap();
    if last == 0 { 0 } else { last + 1 }
}

#[tokio::test]
async fn blobs_in_odd_chunks_across_the_parts_of_the_store_come_back_byte_by_byte() {
    let (server, alice) = start().await;
    let mut total = 0;
    for (seed, len, chunk) in [
        (1, 9 * MIB, 8 * MIB - 1),
        (2, 9 * MIB, 8 * MIB),
        (3, 9 * MIB, 8 * MIB + 1),
        (4, 9 * MIB + 1, 777_777),
        (5, 20 * MIB, 3 * MIB + 13),
        (6, 20 * MIB - 1, 20 * MIB),
        (7, 16 * MIB, 16 * MIB),
        (8, 16 * MIB, 5 * MIB),
        (9, 20 * MIB, 17 * MIB + 5),
    ] {
        let bytes = junk(seed, len);
        let mut url = open(&alice, BB).await;
        let mut start = 0;
        for piece in bytes.chunks(chunk) {
            let patched = patch_at(&alice, &url, start, piece).await;
            is(&patched, 202);
            start += piece.len();
            assert_eq!(patched.header("range").unwrap(), format!("0-{}", start - 1), "{len} by {chunk}");
            assert_eq!(offset(&alice, &url).await, start, "{len} by {chunk}");
            url = patched.header("location").unwrap().to_owned();
        }
        is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
        assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes, "{len} by {chunk}");
        total += len as u64;
        assert_eq!(server.quota("alice").await, (total, 0), "{len} by {chunk}");
    }
    assert!(server.local.app.objects.open_parts().await.unwrap().is_empty());
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn the_last_bytes_may_come_with_the_put_whatever_is_there_already() {
    let (server, alice) = start().await;
    for (seed, first, last) in
        [(1, 9 * MIB, 9 * MIB), (2, 100, 9 * MIB), (3, 9 * MIB, 100), (4, 8 * MIB, 0), (5, 0, 17 * MIB)]
    {
        let bytes = junk(seed, first + last);
        let url = open(&alice, BB).await;
        if first > 0 {
            is(&patch(&alice, &url, &bytes[..first]).await, 202);
        }
        is(&close(&alice, &url, &digest(&bytes), &bytes[first..]).await, 201);
        assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes, "{first} and {last}");
    }
    assert_eq!(server.quota("alice").await.1, 0);
}

#[tokio::test]
async fn bodies_of_unknown_length_come_back_byte_by_byte() {
    let (server, alice) = start().await;
    for (seed, len) in [(1, 1000), (2, 9 * MIB), (3, 20 * MIB + 7)] {
        let bytes = junk(seed, len);
        let url = open(&alice, BB).await;
        let heard = stream(&server, &alice, "PATCH", &url, &bytes).await;
        assert_eq!(heard.status, 202);
        assert_eq!(heard.header("range").unwrap(), format!("0-{}", len - 1));
        is(&close(&alice, heard.header("location").unwrap(), &digest(&bytes), b"").await, 201);
        assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes);

        let other = junk(seed + 10, len);
        let url = crate::support::closing(&open(&alice, BB).await, &digest(&other));
        assert_eq!(stream(&server, &alice, "PUT", &url, &other).await.status, 201);
        assert!(fetch(&alice, BB, &digest(&other)).await.bytes == other);
    }
    assert_eq!(server.quota("alice").await.1, 0);
}

#[tokio::test]
async fn a_chunk_out_of_order_is_416_and_the_upload_goes_on() {
    let (server, alice) = start().await;
    for (seed, len, half) in [(1, 10_000, 5_000), (2, 20 * MIB, 9 * MIB)] {
        let bytes = junk(seed, len);
        let url = open(&alice, BB).await;
        refused(&patch_at(&alice, &url, half, &bytes[half..]).await, 416, "BLOB_UPLOAD_INVALID");
        is(&patch_at(&alice, &url, 0, &bytes[..half]).await, 202);
        for wrong in [0, half - 1, half + 1] {
            refused(&patch_at(&alice, &url, wrong, &bytes[half..]).await, 416, "BLOB_UPLOAD_INVALID");
            let range = format!("{wrong}-{}", wrong + len - half - 1);
            let put = alice.request(Method::PUT, &crate::support::closing(&url, &digest(&bytes)));
            let put = put.header("content-range", range).body(bytes[half..].to_vec());
            refused(&send(put).await, 416, "BLOB_UPLOAD_INVALID");
        }
        for nonsense in ["x", "5-4", "0", "18446744073709551615-0", "0-18446744073709551615", "-"] {
            let patch = alice.request(Method::PATCH, &url).header("content-range", nonsense);
            refused(&send(patch.body(bytes[half..].to_vec())).await, 416, "BLOB_UPLOAD_INVALID");
        }
        // The length of the body counts, not the one in the header.
        let patch = alice.request(Method::PATCH, &url).header("content-range", format!("{half}-{half}"));
        refused(&send(patch.body(bytes[half..].to_vec())).await, 416, "BLOB_UPLOAD_INVALID");
        assert_eq!(offset(&alice, &url).await, half);
        is(&patch_at(&alice, &url, half, &bytes[half..]).await, 202);
        is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
        assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes);
    }
    assert_eq!(server.quota("alice").await.1, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_leaves_a_truthful_offset_and_the_upload_can_go_on() {
    let (server, alice) = start().await;
    let bytes = junk(1, 20 * MIB);
    for (sent, known) in [(5 * MIB, true), (17 * MIB, true), (5 * MIB, false), (17 * MIB, false)] {
        let url = open(&alice, BB).await;
        let kind = if known { "Content-Length: 20971520" } else { "Transfer-Encoding: chunked" };
        let mut wire = Wire::begin(&server, &alice, "PATCH", &url, kind).await;
        if known {
            assert!(wire.send(&bytes[..sent]).await);
        } else {
            assert!(wire.chunk(&bytes[..sent]).await);
        }
        drop(wire);
        // All bytes that the store has in whole parts are counted, once the server has noticed the break.
        let whole = sent / (8 * MIB) * 8 * MIB;
        let mut at = offset(&alice, &url).await;
        while at < whole {
            tokio::task::yield_now().await;
            at = offset(&alice, &url).await;
        }
        assert!(at <= sent, "{at} of {sent}");
        is(&patch_at(&alice, &url, at, &bytes[at..]).await, 202);
        is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
        assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes, "{sent} {known}");
        is(&alice.delete(&blob_at(BB, &digest(&bytes))).await, 202);
        assert_eq!(server.quota("alice").await, (0, 0));
    }
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_in_the_last_put_does_not_end_the_upload() {
    let (server, alice) = start().await;
    let bytes = junk(1, 20 * MIB);
    for sent in [MIB, 8 * MIB] {
        let url = open(&alice, BB).await;
        is(&patch(&alice, &url, &bytes[..9 * MIB]).await, 202);
        let path = crate::support::closing(&url, &digest(&bytes));
        let mut wire = Wire::begin(&server, &alice, "PUT", &path, "Content-Length: 11534336").await;
        assert!(wire.send(&bytes[9 * MIB..9 * MIB + sent]).await);
        drop(wire);
        let whole = (9 * MIB + sent) / (8 * MIB) * 8 * MIB;
        let mut at = offset(&alice, &url).await;
        while at < whole {
            tokio::task::yield_now().await;
            at = offset(&alice, &url).await;
        }
        let closed = close(&alice, &url, &digest(&bytes), &bytes[at..]).await;
        is(&closed, 201);
        assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes);
    }
    assert_eq!(server.quota("alice").await, (20 * MIB as u64, 0));
}

#[tokio::test]
async fn an_upload_that_is_given_up_is_unknown_and_gives_back_what_it_held() {
    let (server, alice) = start().await;
    for len in [0, 1000, 9 * MIB] {
        let bytes = junk(len as u64, len);
        let url = open(&alice, BB).await;
        if len > 0 {
            is(&patch(&alice, &url, &bytes).await, 202);
            assert_eq!(offset(&alice, &url).await, len);
        }
        let given_up = alice.delete(&url).await;
        is(&given_up, 204);
        assert_eq!(server.quota("alice").await, (0, 0), "at once");
        refused(&alice.get(&url).await, 404, "BLOB_UPLOAD_UNKNOWN");
        refused(&patch(&alice, &url, &bytes).await, 404, "BLOB_UPLOAD_UNKNOWN");
        refused(&close(&alice, &url, &digest(&bytes), &bytes).await, 404, "BLOB_UPLOAD_UNKNOWN");
        refused(&alice.get(&blob_at(BB, &digest(&bytes))).await, 404, "BLOB_UNKNOWN");
    }
    // An upload that was completed can't be cancelled any more.
    let url = open(&alice, BB).await;
    is(&close(&alice, &url, &digest(b"kept"), b"kept").await, 201);
    refused(&alice.delete(&url).await, 404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(fetch(&alice, BB, &digest(b"kept")).await.bytes, b"kept");
    refused(&alice.get(&url).await, 404, "BLOB_UPLOAD_UNKNOWN");
    is(&alice.delete(&blob_at(BB, &digest(b"kept"))).await, 202);
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn nothing_else_can_be_done_to_an_upload() {
    let (_server, alice) = start().await;
    let url = open(&alice, BB).await;
    refused(&alice.post(&url, Value::Null).await, 405, "UNSUPPORTED");
    let bare = url.split('?').next().unwrap();
    refused(&alice.get(bare).await, 404, "BLOB_UPLOAD_UNKNOWN");
    let (uploads, blob) = (format!("/v2/{BB}/blobs/uploads/"), blob_at(BB, &digest(b"x")));
    for (method, path) in
        [(Method::GET, &uploads), (Method::PUT, &uploads), (Method::PUT, &blob), (Method::POST, &blob)]
    {
        refused(&send(alice.request(method, path)).await, 405, "UNSUPPORTED");
    }
}
