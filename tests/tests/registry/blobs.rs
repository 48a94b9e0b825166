//! Blobs: the ways to upload one, and to read it.

use crate::library::sweep_up;
use crate::support::{
    BB, INDEX, MANIFEST, MIB, blob, blob_at, bring, close, closing, digest, fetch, head, image, index, is, junk,
    manifest_at, nothing, on_functions, open, patch, patch_at, put, refused,
};
use crate::wire::stream;
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::{Digest, OciDigest};
use stackroom_tests::functions::{only_in_one_process, only_on_one_server};
use stackroom_tests::{Caller, SERVING, Server, send};

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

/// Checks that a blob is there and complete.
async fn is_there(who: &Caller, repository: &str, bytes: &[u8]) {
    let path = blob_at(repository, &digest(bytes));
    let seen = head(who, &path).await;
    is(&seen, 200);
    assert_eq!(seen.header("content-length"), Some(bytes.len().to_string().as_str()));
    assert_eq!(seen.header("docker-content-digest"), Some(digest(bytes).as_str()));
    assert!(fetch(who, repository, &digest(bytes)).await.bytes == bytes, "other bytes");
}

#[tokio::test]
async fn a_blob_comes_back_as_it_was_brought_in_every_way_there_is() {
    let (_server, alice) = start().await;
    // One PUT.
    let bytes = junk(1, 100_000);
    let brought = bring(&alice, BB, &bytes).await;
    is(&brought, 201);
    assert_eq!(brought.header("location"), Some(blob_at(BB, &digest(&bytes)).as_str()));
    assert_eq!(brought.header("docker-content-digest"), Some(digest(&bytes).as_str()));
    is_there(&alice, BB, &bytes).await;

    // One POST.
    let bytes = junk(2, 100_000);
    let path = format!("/v2/{BB}/blobs/uploads/?digest={}", digest(&bytes));
    let brought = send(alice.request(Method::POST, &path).body(bytes.clone())).await;
    is(&brought, 201);
    assert_eq!(brought.header("location"), Some(blob_at(BB, &digest(&bytes)).as_str()));
    is_there(&alice, BB, &bytes).await;

    // One PATCH that states no range, as docker and podman send it, and an empty PUT.
    let bytes = junk(3, 100_000);
    let url = open(&alice, BB).await;
    let patched = patch(&alice, &url, &bytes).await;
    is(&patched, 202);
    assert_eq!(patched.header("range"), Some("0-99999"));
    let url = patched.header("location").unwrap();
    is(&close(&alice, url, &digest(&bytes), b"").await, 201);
    is_there(&alice, BB, &bytes).await;

    // Chunks, the last one in the PUT.
    let bytes = junk(4, 100_000);
    let mut url = open(&alice, BB).await;
    for start in [0, 40_000] {
        let patched = patch_at(&alice, &url, start, &bytes[start..start + 40_000]).await;
        is(&patched, 202);
        assert_eq!(patched.header("range").unwrap(), format!("0-{}", start + 39_999));
        url = patched.header("location").unwrap().to_owned();
    }
    is(&close(&alice, &url, &digest(&bytes), &bytes[80_000..]).await, 201);
    is_there(&alice, BB, &bytes).await;
}

#[tokio::test]
async fn opening_an_upload_says_what_every_client_wants_to_hear() {
    let (server, alice) = start().await;
    let opened = alice.post(&format!("/v2/{BB}/blobs/uploads/"), Value::Null).await;
    is(&opened, 202);
    assert!(opened.bytes.is_empty());
    assert_eq!(opened.header("range"), Some("0-0"));
    let id = opened.header("docker-upload-uuid").unwrap();
    let location = opened.header("location").unwrap();
    assert!(location.starts_with(&format!("/v2/{BB}/blobs/uploads/{id}?")), "{location}");
    assert_eq!(opened.header("docker-distribution-api-version"), Some("registry/2.0"));
    // Nothing is kept of an upload without bytes, whatever its repository.
    assert_eq!(opened.cost().1, 0);
    refused(&alice.get(&format!("/v2/{BB}/tags/list")).await, 404, "NAME_UNKNOWN");
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn a_repeated_put_after_success_is_201_again() {
    let (server, alice) = start().await;
    for (seed, len) in [(1, 1000), (2, 9 * MIB)] {
        let bytes = junk(seed, len);
        for chunked in [false, true] {
            let mut url = open(&alice, BB).await;
            if chunked {
                url = patch(&alice, &url, &bytes).await.header("location").unwrap().to_owned();
            }
            let last = if chunked { &b""[..] } else { &bytes };
            for _ in 0..3 {
                let closed = close(&alice, &url, &digest(&bytes), last).await;
                is(&closed, 201);
                assert_eq!(closed.header("location"), Some(blob_at(BB, &digest(&bytes)).as_str()));
            }
            // That does not let the upload become another blob.
            refused(&close(&alice, &url, &nothing(), b"").await, 404, "BLOB_UPLOAD_UNKNOWN");
            refused(&patch(&alice, &url, b"more").await, 404, "BLOB_UPLOAD_UNKNOWN");
        }
        is_there(&alice, BB, &bytes).await;
    }
    assert_eq!(server.quota("alice").await, (1000 + 9 * MIB as u64, 0));
}

#[tokio::test]
async fn bytes_of_another_digest_are_refused_and_leave_nothing() {
    let (server, alice) = start().await;
    for (seed, len) in [(1, 1000), (2, 9 * MIB)] {
        let bytes = junk(seed, len);
        let one_put = open(&alice, BB).await;
        refused(&close(&alice, &one_put, &nothing(), &bytes).await, 400, "DIGEST_INVALID");
        let chunked = open(&alice, BB).await;
        is(&patch(&alice, &chunked, &bytes).await, 202);
        refused(&close(&alice, &chunked, &nothing(), b"").await, 400, "DIGEST_INVALID");
        let path = format!("/v2/{BB}/blobs/uploads/?digest={}", nothing());
        if len == 1000 || !only_in_one_process("the gateway itself refuses a body that is too large for a function") {
            refused(&send(alice.request(Method::POST, &path).body(bytes.clone())).await, 400, "DIGEST_INVALID");
        }
        // What skopeo's PATCH leaves behind after a redirect: nothing at all.
        let empty = open(&alice, BB).await;
        is(&patch(&alice, &empty, b"").await, 202);
        refused(&close(&alice, &empty, &digest(&bytes), b"").await, 400, "DIGEST_INVALID");
        for missing in [digest(&bytes), nothing()] {
            refused(&alice.get(&blob_at(BB, &missing)).await, 404, "BLOB_UNKNOWN");
        }
        assert_eq!(server.quota("alice").await, (0, 0), "at once");
    }
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn hazard_digest_algorithm_confusion() {
    let (_server, alice) = start().await;
    blob(&alice, BB, b"config").await;
    let bytes = junk(1, 1000);
    let hex = Digest::of(&bytes).hex();
    for wrong in [
        format!("sha256:{}", hex.to_uppercase()),
        format!("SHA256:{hex}"),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        format!("sha512:{hex}"),
        format!("md5:{}", &hex[..32]),
        format!("sha256.{hex}"),
        hex.clone(),
        String::new(),
    ] {
        let url = open(&alice, BB).await;
        refused(&close(&alice, &url, &wrong, &bytes).await, 400, "DIGEST_INVALID");
        let path = format!("/v2/{BB}/blobs/uploads/?digest={wrong}");
        let posted = send(alice.request(Method::POST, &path).body(bytes.clone())).await;
        refused(&posted, 400, "DIGEST_INVALID");
        let mount = format!("/v2/{BB}/blobs/uploads/?mount={wrong}&from=alice/tools/other");
        refused(&alice.post(&mount, Value::Null).await, 400, "DIGEST_INVALID");
        let mut body = image(b"config", &[b"layer"]);
        body["layers"][0]["digest"] = json!(wrong);
        refused(&put(&alice, BB, "x", MANIFEST, &body.to_string()).await, 400, "MANIFEST_INVALID");
        body["layers"] = json!([]);
        body["subject"] = json!({ "mediaType": MANIFEST, "digest": wrong, "size": 1 });
        refused(&put(&alice, BB, "x", MANIFEST, &body.to_string()).await, 400, "MANIFEST_INVALID");
        if !wrong.is_empty() {
            refused(&alice.get(&blob_at(BB, &wrong)).await, 400, "DIGEST_INVALID");
            refused(&alice.get(&format!("/v2/{BB}/referrers/{wrong}")).await, 400, "DIGEST_INVALID");
            let at = manifest_at(BB, &wrong);
            if wrong.contains(':') {
                refused(&alice.get(&at).await, 400, "DIGEST_INVALID");
                refused(&alice.delete(&at).await, 400, "DIGEST_INVALID");
                let body = image(b"config", &[]).to_string();
                refused(&put(&alice, BB, &wrong, MANIFEST, &body).await, 400, "DIGEST_INVALID");
            } else {
                // Without a colon it is a tag, and does not name bytes.
                refused(&alice.get(&at).await, 404, "MANIFEST_UNKNOWN");
            }
        }
    }
    refused(&alice.get(&blob_at(BB, &digest(&bytes))).await, 404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_blob_may_be_named_by_its_sha_512_and_is_kept_and_charged_once() {
    let (server, alice) = start().await;
    for (seed, len) in [(1, 1000), (2, 9 * MIB)] {
        let bytes = junk(seed, len);
        let before = server.quota("alice").await.0;
        let name = OciDigest::Sha512([0; 64]).like([&bytes]).to_string();
        let url = open(&alice, BB).await;
        is(&close(&alice, &url, &name, &bytes).await, 201);
        assert!(fetch(&alice, BB, &name).await.bytes == bytes);
        blob(&alice, BB, &bytes).await;
        assert_eq!(server.quota("alice").await, (before + len as u64, 0));
        let wrong = OciDigest::Sha512([0; 64]).like([b"other bytes"]).to_string();
        let url = open(&alice, BB).await;
        refused(&close(&alice, &url, &wrong, &bytes).await, 400, "DIGEST_INVALID");
        refused(&alice.get(&blob_at(BB, &wrong)).await, 404, "BLOB_UNKNOWN");
        is(&alice.delete(&blob_at(BB, &name)).await, 202);
        is_there(&alice, BB, &bytes).await;
    }
}

#[tokio::test]
async fn a_blob_may_be_empty() {
    let server = Server::start().await;
    let alice = server.user("alice", 1).await;
    for alice in [alice.clone(), on_functions(&server, &alice).await] {
        blob(&alice, BB, b"").await;
        is_there(&alice, BB, b"").await;
        let url = open(&alice, "alice/tools/other").await;
        is(&patch(&alice, &url, b"").await, 202);
        is(&close(&alice, &url, &digest(b""), b"").await, 201);
        is_there(&alice, "alice/tools/other", b"").await;
        assert_eq!(server.quota("alice").await, (0, 0));
        is(&alice.delete(&blob_at(BB, &digest(b""))).await, 202);
        refused(&alice.get(&blob_at(BB, &digest(b""))).await, 404, "BLOB_UNKNOWN");
        is_there(&alice, "alice/tools/other", b"").await;
        is(&alice.delete(&blob_at("alice/tools/other", &digest(b""))).await, 202);
    }
}

#[tokio::test]
async fn ranges_of_a_blob_are_answered_by_the_store_and_by_us() {
    if only_on_one_server("it knows how our own store answers") {
        return;
    }
    if only_in_one_process("a function sends no large blob itself, and one process stands for it here") {
        return;
    }
    let (server, alice) = start().await;
    let on_functions = on_functions(&server, &alice).await;
    for (alice, redirects) in [(&alice, false), (&on_functions, true)] {
        for bytes in [junk(1, 1000), junk(2, 9 * MIB)] {
            let name = blob(alice, BB, &bytes).await;
            let last = bytes.len() - 1;
            let at = alice.get(&blob_at(BB, &name)).await;
            is(&at, if redirects { 307 } else { 200 });
            assert_eq!(at.header("docker-content-digest"), Some(name.as_str()));
            let url = at.header("location").map_or(blob_at(BB, &name), str::to_owned);
            let ask = async |range: &str| {
                let bare = url.starts_with("http");
                let request = if bare { alice.bare(Method::GET, &url) } else { alice.request(Method::GET, &url) };
                send(request.header("range", range)).await
            };
            for (range, start, end) in [
                ("bytes=0-9".to_owned(), 0, 10),
                ("bytes=500-".to_owned(), 500, bytes.len()),
                ("bytes=-7".to_owned(), bytes.len() - 7, bytes.len()),
                (format!("bytes={last}-{}", last + 500), last, bytes.len()),
                (format!("bytes=0-{last}"), 0, bytes.len()),
            ] {
                let part = ask(&range).await;
                is(&part, 206);
                assert!(part.bytes == bytes[start..end], "{range}");
                let content = format!("bytes {start}-{}/{}", end - 1, bytes.len());
                assert_eq!(part.header("content-range"), Some(content.as_str()));
                assert_eq!(part.header("content-length"), Some((end - start).to_string().as_str()));
            }
            assert_eq!(ask(&format!("bytes={}-", bytes.len())).await.status, 416);
        }
    }
}

#[tokio::test]
async fn hazard_content_encoding_tricks() {
    let server = Server::start_with(&[SERVING]).await;
    let alice = server.user("alice", 0).await;
    let bytes = junk(1, 1000);
    let url = open(&alice, BB).await;
    let whole = format!("/v2/{BB}/blobs/uploads/?digest={}", digest(&bytes));
    let body = index(&[]).to_string();
    let tricks: [&[&str]; 7] = [
        &["gzip"],
        &["zstd"],
        &["aws-chunked"],
        &["identity", "gzip"],
        &["gzip", "identity"],
        &["identity, gzip"],
        &["identity", "identity", "br"],
    ];
    for encodings in tricks {
        for (method, path, bytes) in [
            (Method::PATCH, url.clone(), &bytes[..]),
            (Method::PUT, closing(&url, &digest(&bytes)), &bytes),
            (Method::POST, whole.clone(), &bytes),
            (Method::PUT, manifest_at(BB, "latest"), body.as_bytes()),
        ] {
            let request = alice.request(method, &path).header("content-type", INDEX).body(bytes.to_vec());
            let request = encodings.iter().fold(request, |request, one| request.header("content-encoding", *one));
            refused(&send(request).await, 405, "UNSUPPORTED");
        }
    }
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
    refused(&alice.get(&manifest_at(BB, "latest")).await, 404, "MANIFEST_UNKNOWN");
    let plain = alice.request(Method::PUT, &manifest_at(BB, "latest")).header("content-type", INDEX);
    is(&send(plain.header("content-encoding", "Identity").body(body.clone())).await, 201);
    let got = alice.get(&manifest_at(BB, "latest")).await;
    assert_eq!((got.header("content-encoding"), &*got.bytes), (None, body.as_bytes()));
    // This did no harm to the upload.
    let plain = alice.request(Method::PUT, &closing(&url, &digest(&bytes))).header("content-encoding", "identity");
    is(&send(plain.body(bytes.clone())).await, 201);
    let fetched = fetch(&alice, BB, &digest(&bytes)).await;
    assert_eq!(fetched.header("content-encoding"), None);
    assert_eq!(fetched.bytes, bytes);
}

#[tokio::test]
async fn where_no_more_than_some_bytes_are_taken_at_once_a_longer_request_is_413_and_chunks_go_through() {
    if only_in_one_process("the gateway itself refuses what is longer, in its own form") {
        return;
    }
    let server = Server::start_with(&[("STACKROOM_LONGEST_CHUNK", "4194304")]).await;
    let alice = server.user("alice", 0).await;
    let bytes = junk(1, 9 * MIB);
    let url = open(&alice, BB).await;
    let said = refused(&patch(&alice, &url, &bytes).await, 413, "SIZE_INVALID");
    assert!(said.contains("stackroom ingest"), "{said}");
    let streamed = stream(&server, &alice, "PATCH", &url, &bytes).await;
    assert!(streamed.status == 413 && streamed.says("SIZE_INVALID"), "{streamed:?}");
    let url = open(&alice, BB).await;
    for (number, chunk) in bytes.chunks(4 * MIB).enumerate() {
        is(&patch_at(&alice, &url, number * 4 * MIB, chunk).await, 202);
    }
    is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
    is_there(&alice, BB, &bytes).await;
}

#[tokio::test]
async fn where_another_host_takes_the_bytes_clients_are_told_its_whole_url_and_the_way_back() {
    let server = Server::start_with(&[("STACKROOM_INGEST_URL", "https://ingest.example/")]).await;
    let alice = server.user("alice", 0).await;
    let bytes = junk(1, 1000);
    let url = open(&alice, BB).await;
    // The other host serves the same installation.
    let path = url.strip_prefix("https://ingest.example").unwrap();
    let patched = patch(&server.nobody, path, &bytes).await;
    is(&patched, 202);
    let next = patched.header("location").unwrap().strip_prefix("https://ingest.example").unwrap();
    let closed = close(&server.nobody, next, &digest(&bytes), b"").await;
    is(&closed, 201);
    assert_eq!(closed.header("location").unwrap(), format!("{}{}", server.url, blob_at(BB, &digest(&bytes))));
    is_there(&alice, BB, &bytes).await;
    // Never a challenge from there: clients would send their password to it.
    let stranger = patch(&server.nobody, &format!("/v2/{BB}/blobs/uploads/{}", "0".repeat(32)), b"x").await;
    refused(&stranger, 404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(stranger.header("www-authenticate"), None);
}
