//! What hostile and odd clients try that no other test covers: bytes that lead elsewhere, URLs that are used again,
//! documents that are too large.

use crate::library::{complete, invisible, opened, opened_old, opened_parts, sif, sweep_up};
use crate::support::{
    BB, INDEX, LAYER, MANIFEST, MIB, SIF_LAYER, blob, blob_at, bring, close, digest, fetch, head, image, index, is,
    junk, manifest, manifest_at, named, of_sif, on_functions, open, patch, push, put, refused,
};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Repository;
use shared::store::keys;
use shared::store::rows::ManifestLinks;
use stackroom_tests::functions::{only_in_one_process, only_on_one_server, only_on_our_stores};
use stackroom_tests::{Answer, Caller, Server, send};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

#[tokio::test]
async fn hazard_manifest_size_and_shape() {
    let (_server, alice) = start().await;
    for bytes in [&b"config"[..], b"one"] {
        blob(&alice, BB, bytes).await;
    }
    let padded = |len: usize| {
        let mut body = image(b"config", &[b"one"]);
        body["annotations"] = json!({ "filler": "" });
        let short = body.to_string().len();
        body["annotations"]["filler"] = json!("x".repeat(len - short));
        body.to_string()
    };
    let layers = |count: usize| {
        let mut body = image(b"config", &[]);
        body["layers"] = json!(vec![named(LAYER, b"one"); count]);
        body.to_string()
    };
    let blobs = |count: u32| {
        let blobs: Vec<Value> = (0..count).map(|number| named(LAYER, &number.to_le_bytes())).collect();
        json!({ "blobs": blobs }).to_string()
    };
    let deep = |levels: usize| {
        let plain = image(b"config", &[b"one"]).to_string();
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        plain.replacen('{', &format!("{{\"x\":{open}{close},"), 1)
    };
    let unknown = "application/vnd.example+json";
    // With its configuration, each has exactly the maximum number of descriptors, or one more.
    for (what, kind, good, wrong) in [
        ("size", MANIFEST, padded(4 * MIB), padded(4 * MIB + 1)),
        ("the same descriptor", MANIFEST, layers(2999), layers(3000)),
        ("other descriptors", unknown, blobs(3000), blobs(3001)),
        ("depth", MANIFEST, deep(64), deep(65)),
    ] {
        is(&put(&alice, BB, "good", kind, &good).await, 201);
        assert!(manifest(&alice, BB, &digest(good.as_bytes())).await == good, "{what}");
        let answer = put(&alice, BB, "wrong", kind, &wrong).await;
        if what == "size" {
            refused(&answer, 413, "SIZE_INVALID");
        } else {
            refused(&answer, 400, "MANIFEST_INVALID");
        }
        for reference in ["wrong", &digest(wrong.as_bytes())] {
            refused(&alice.get(&manifest_at(BB, reference)).await, 404, "MANIFEST_UNKNOWN");
        }
    }
}

#[tokio::test]
async fn hazard_manifest_shape_of_an_unknown_type_is_kept_as_it_is_and_becomes_no_library_image() {
    let (_server, alice) = start().await;
    let (there, missing) = (sif(1), sif(2));
    for bytes in [&there[..], b"{}"] {
        blob(&alice, BB, bytes).await;
    }
    let kind = "application/vnd.example+json";
    for (tag, bytes) in [("there", &there), ("missing", &missing)] {
        let mut body = of_sif(bytes);
        body["mediaType"] = json!(kind);
        assert_eq!(body["layers"][0]["mediaType"], json!(SIF_LAYER));
        let begun = Instant::now();
        is(&put(&alice, BB, tag, kind, &body.to_string()).await, 201);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(manifest(&alice, BB, tag).await, body.to_string());
        let said = alice.get(&format!("/v1/images/{BB}:{tag}")).await.error(400);
        assert!(said.contains("no SIF image"), "{said}");
        alice.get(&format!("/v1/images/{BB}:{}", crate::library::hash(bytes))).await.error(404);
    }
    // Under its own type it is one, and its layer must be there.
    is(&put(&alice, BB, "known", MANIFEST, &of_sif(&there).to_string()).await, 201);
    assert_eq!(alice.pull(&format!("{BB}:known")).await.bytes, there);
    let said = put(&alice, BB, "known", MANIFEST, &of_sif(&missing).to_string()).await;
    refused(&said, 404, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn hazard_manifest_size_a_repository_is_looked_through_without_the_bytes_of_its_manifests() {
    if only_on_one_server("it counts the bytes that this process reads of its table") {
        return;
    }
    if only_in_one_process("it counts the bytes that this process reads of its table") {
        return;
    }
    let (server, alice) = start().await;
    let mut bodies = Vec::new();
    for number in 0..8 {
        for bytes in [&b"config"[..], b"shared", &[number]] {
            blob(&alice, BB, bytes).await;
        }
        let mut body = image(b"config", &[b"shared", &[number]]);
        body["annotations"] = json!({ "filler": "x".repeat(200 << 10) });
        if number == 7 {
            body["subject"] = named(MANIFEST, b"subject");
        }
        is(&put(&alice, BB, &format!("v{number}"), MANIFEST, &body.to_string()).await, 201);
        bodies.push(body.to_string());
    }
    let repository: Repository = BB.parse().unwrap();
    let mut rows: Vec<Value> = Vec::new();
    let place = keys::manifests(&repository);
    server.local.app.table.each(place, ManifestLinks::ATTRIBUTES, |row| rows.push(row)).await.unwrap();
    assert_eq!(rows.len(), 8);
    for row in &rows {
        assert!(
            row.as_object().unwrap().keys().all(|name| ManifestLinks::ATTRIBUTES.contains(&name.as_str())),
            "{row}"
        );
        assert!(row.to_string().len() < 1000, "{row}");
    }
    // And what was read from it is right: named blobs stay, and unnamed ones are deleted.
    for (number, body) in (0_u8..).zip(&bodies) {
        is(&alice.delete(&manifest_at(BB, &digest(body.as_bytes()))).await, 202);
        refused(&alice.get(&blob_at(BB, &digest(&[number]))).await, 404, "BLOB_UNKNOWN");
        assert_eq!(alice.get(&blob_at(BB, &digest(b"shared"))).await.status == 200, number < 7, "{number}");
    }
    let listed = alice.get(&format!("/v2/{BB}/referrers/{}", digest(b"subject"))).await;
    assert_eq!((listed.json["manifests"].clone(), server.quota("alice").await), (json!([]), (0, 0)));
}

#[tokio::test]
async fn hazard_ssrf_urls_are_never_fetched() {
    let (server, alice) = start().await;
    let functions = on_functions(&server, &alice).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let urls = json!([format!("http://{}/layer", listener.local_addr().unwrap())]);
    for bytes in [&b"config"[..], b"plain"] {
        blob(&alice, BB, bytes).await;
    }
    for (tag, kind, layer) in [("foreign", FOREIGN, &b"elsewhere"[..]), ("plain", LAYER, b"plain")] {
        let mut body = image(b"config", &[]);
        body["layers"] = json!([named(kind, layer)]);
        body["layers"][0]["urls"] = urls.clone();
        body["config"]["urls"] = urls.clone();
        body["subject"] = named(MANIFEST, b"subject");
        body["subject"]["urls"] = urls.clone();
        is(&put(&alice, BB, tag, MANIFEST, &body.to_string()).await, 201);
        // A list of manifests may lead elsewhere too.
        let mut list = index(&[&body.to_string()]);
        list["manifests"][0]["urls"] = urls.clone();
        is(&put(&alice, BB, &format!("{tag}-list"), INDEX, &list.to_string()).await, 201);
        let mut missing = body.clone();
        missing["layers"] = json!([named(LAYER, b"missing")]);
        missing["layers"][0]["urls"] = urls.clone();
        refused(&put(&alice, BB, tag, MANIFEST, &missing.to_string()).await, 404, "MANIFEST_BLOB_UNKNOWN");
        for who in [&alice, &functions] {
            assert_eq!(manifest(who, BB, tag).await, body.to_string());
            is(&who.get(&format!("/v2/{BB}/referrers/{}", digest(b"subject"))).await, 200);
        }
    }
    for who in [&alice, &functions] {
        for gone in [&b"elsewhere"[..], b"missing", b"subject"] {
            let answer = who.get(&blob_at(BB, &digest(gone))).await;
            refused(&answer, 404, "BLOB_UNKNOWN");
            assert_eq!(answer.header("location"), None);
            is(&head(who, &blob_at(BB, &digest(gone))).await, 404);
        }
        assert_eq!(fetch(who, BB, &digest(b"plain")).await.bytes, b"plain");
    }
    sweep_up(&server).await;
    let error = listener.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "nobody ever came");
}

#[tokio::test]
async fn hazard_lost_push_writes_are_never_redirected() {
    let (server, alice) = start().await;
    let functions = on_functions(&server, &alice).await;
    for (who, repository) in [(&alice, BB), (&functions, "alice/tools/functions")] {
        let (config, layer) = (junk(1, 1000), junk(2, 9 * MIB));
        let here = |answer: &Answer| answer.header("location").unwrap().starts_with(&format!("/v2/{repository}/"));
        for bytes in [&config, &layer] {
            let opened = who.post(&format!("/v2/{repository}/blobs/uploads/"), Value::Null).await;
            is(&opened, 202);
            let patched = patch(who, opened.header("location").unwrap(), bytes).await;
            is(&patched, 202);
            let closed = close(who, patched.header("location").unwrap(), &digest(bytes), b"").await;
            is(&closed, 201);
            assert!(here(&opened) && here(&patched) && here(&closed));
            let seen = head(who, &blob_at(repository, &digest(bytes))).await;
            is(&seen, 200);
            assert_eq!(seen.header("content-length"), Some(bytes.len().to_string().as_str()));
            assert!(fetch(who, repository, &digest(bytes)).await.bytes == **bytes);
        }
        let body = image(&config, &[&layer]).to_string();
        let brought = put(who, repository, "latest", MANIFEST, &body).await;
        is(&brought, 201);
        assert!(here(&brought));
        for reference in ["latest", &digest(body.as_bytes())] {
            let seen = head(who, &manifest_at(repository, reference)).await;
            is(&seen, 200);
            assert_eq!(seen.header("content-length"), Some(body.len().to_string().as_str()));
        }
        // What arrives if a client sends its bytes to where it was redirected, and only its headers to us.
        let lost = junk(3, 1000);
        let opened = open(who, repository).await;
        let patched = patch(who, &opened, b"").await;
        is(&patched, 202);
        let closed = close(who, patched.header("location").unwrap(), &digest(&lost), b"").await;
        refused(&closed, 400, "DIGEST_INVALID");
        is(&head(who, &blob_at(repository, &digest(&lost))).await, 404);
    }
}

#[tokio::test]
async fn hazard_lost_push_a_close_is_repeated_only_while_its_blob_is_there() {
    let (server, alice) = start().await;
    for (seed, len) in [(1, 1000), (2, 9 * MIB)] {
        let bytes = junk(seed, len);
        for chunked in [false, true] {
            let mut url = open(&alice, BB).await;
            if chunked {
                url = patch(&alice, &url, &bytes).await.header("location").unwrap().to_owned();
            }
            let last = if chunked { &b""[..] } else { &bytes };
            is(&close(&alice, &url, &digest(&bytes), last).await, 201);
            is(&close(&alice, &url, &digest(&bytes), last).await, 201);
            is(&alice.delete(&blob_at(BB, &digest(&bytes))).await, 202);
            refused(&close(&alice, &url, &digest(&bytes), last).await, 404, "BLOB_UPLOAD_UNKNOWN");
            refused(&alice.get(&blob_at(BB, &digest(&bytes))).await, 404, "BLOB_UNKNOWN");
            assert_eq!(server.quota("alice").await, (0, 0));
        }
        // A client that starts over uploads it.
        is(&bring(&alice, BB, &bytes).await, 201);
        is(&alice.delete(&blob_at(BB, &digest(&bytes))).await, 202);
    }
}

#[tokio::test]
async fn hazard_presigned_url_leakage_a_registrys_redirect_lives_no_longer_than_it_must() {
    for (life, downloads, redirects) in [("86400", 86400, 1200), ("1200", 1200, 1200), ("60", 60, 60)] {
        let server = Server::start_with(&[("STACKROOM_DOWNLOAD_LIFE", life)]).await;
        let alice = server.user("alice", 0).await;
        let bytes = sif(1);
        alice.push(BB, "latest", "amd64", &bytes).await.ok();
        let redirected = on_functions(&server, &alice).await.get(&blob_at(BB, &digest(&bytes))).await;
        let downloaded = alice.get(&format!("/v1/imagefile/{BB}:latest")).await;
        for (answer, status, life) in [(&redirected, 307, redirects), (&downloaded, 303, downloads)] {
            is(answer, status);
            let url = answer.header("location").unwrap();
            assert!(url.contains(&format!("X-Amz-Expires={life}&")), "{url}");
            assert!(!url.contains("alice"), "{url}");
        }
    }
}

/// Sends bytes to a presigned URL again, in every way that a client could. How the store answers does not matter.
async fn replay(who: &Caller, url: &str, bytes: &[u8], said: &str) {
    who.upload(url, bytes).await;
    send(who.bare(Method::PUT, url).body(bytes.to_vec())).await;
    send(who.bare(Method::PUT, url).header("x-amz-content-sha256", said).body(bytes.to_vec())).await;
}

#[tokio::test]
async fn hazard_replay_of_a_library_presigned_put() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    let functions = on_functions(&server, &bob).await;
    for (seed, way) in [(10, "pinned"), (20, "staged"), (30, "part")] {
        let (bytes, other) = (sif(seed), sif(seed + 1));
        assert_eq!(bytes.len(), other.len());
        let hex = shared::domain::Digest::of(&bytes).hex();
        let path = format!("alice/tools/{way}");
        let (name, reference) = (digest(&bytes), format!("{path}:{}", crate::library::hash(&bytes)));
        let url = if way == "part" {
            let parts = opened_parts(&alice, &path, &bytes).await;
            let body = json!({ "partSize": bytes.len(), "uploadID": parts.id, "partNumber": 1, "sha256sum": "" });
            let made = alice.put(&format!("/v2/imagefile/{}/_multipart", parts.push.image), body).await.ok();
            let url = made["data"]["presignedURL"].as_str().unwrap().to_owned();
            let sent = send(alice.bare(Method::PUT, &url).body(bytes.clone())).await;
            parts.complete(&alice, &[(1, sent.header("etag").unwrap())]).await.ok();
            url
        } else {
            let (push, url) = match way {
                "pinned" => opened(&alice, &path, &bytes).await,
                _ => opened_old(&alice, &path, &bytes).await,
            };
            is(&alice.upload(&url, &bytes).await, 200);
            complete(&alice, &push).await.ok();
            url
        };
        let is_right = async |who: &Caller, path: &str| {
            let reference = format!("{path}:{}", crate::library::hash(&bytes));
            assert!(who.pull(&reference).await.bytes == bytes, "{way}: other bytes through the library");
            assert!(fetch(who, path, &name).await.bytes == bytes, "{way}: other bytes through the registry");
        };
        is_right(&alice, &path).await;
        replay(&alice, &url, &other, &hex).await;
        is_right(&alice, &path).await;
        is_right(&functions, &path).await;
        invisible(&server, &alice, &path, &other).await;
        sweep_up(&server).await;
        replay(&alice, &url, &other, &hex).await;
        is_right(&alice, &path).await;
        // Nor after the image was deleted and somebody else uploads the same bytes.
        alice.delete(&format!("/v1/images/{reference}")).await.ok();
        replay(&alice, &url, &other, &hex).await;
        let own = format!("bob/tools/{way}");
        bob.push(&own, "latest", "amd64", &bytes).await.ok();
        for _ in 0..2 {
            replay(&alice, &url, &other, &hex).await;
            replay(&alice, &url, &bytes, &hex).await;
            is_right(&bob, &own).await;
            is_right(&functions, &own).await;
            sweep_up(&server).await;
        }
        alice.get(&format!("/v1/images/{reference}")).await.error(404);
    }
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await.len()), ((0, 0), 3), "what is bob's");
}

#[tokio::test]
async fn hazard_decompression_bombs() {
    // The lock file has all packages of the workspace, including those of tests and builds, and what each depends on:
    // none can decompress, but for the function that reads what CloudWatch Logs delivers, and what does that in tests.
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    let quoted = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
    let mut packages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let mut lines = package.trim().lines();
        let uses = packages.entry(quoted(lines.next().unwrap())).or_default();
        uses.extend(lines.filter(|line| line.starts_with(" \"")).map(quoted));
    }
    assert!(packages["server"].contains(&"axum".to_owned()));
    let makers = ["flate", "zstd", "miniz", "brotli", "xz", "lzma", "bzip", "lz4", "snap", "zlib", "libz", "deflate"];
    let makers = [&makers[..], &["inflate", "gzip", "compress", "zip"]].concat();
    let can = |name: &str| makers.iter().any(|maker| name.contains(maker));
    let users = packages.iter().filter(|(name, uses)| !can(name) && uses.iter().any(|used| can(used)));
    assert_eq!(users.map(|(name, _)| name).collect::<Vec<_>>(), ["downloads", "gateway"]);
    let unused = packages.keys().filter(|name| can(name) && !packages.values().any(|uses| uses.contains(name)));
    assert_eq!(unused.collect::<Vec<_>>(), Vec::<&String>::new());
    for name in ["server", "stackroom", "oci", "library", "verify"] {
        assert!(!packages[name].contains(&"downloads".to_owned()), "{name}");
    }

    // And data that claims to be compressed is kept as it came, whatever it would expand to.
    let (server, alice) = start().await;
    let bomb = bomb();
    push(&alice, BB, "latest", b"config", &[&bomb]).await;
    let objects = &server.local.app.objects;
    let mut sizes = Vec::new();
    for object in server.objects().await {
        sizes.push(objects.size(&object).await.unwrap().unwrap());
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [6, bomb.len() as u64]);
    assert_eq!(server.quota("alice").await, (6 + bomb.len() as u64, 0));
    for who in [&alice, &on_functions(&server, &alice).await] {
        assert!(fetch(who, BB, &digest(&bomb)).await.bytes == bomb);
    }
}

/// A gzip file of 8 MB of zeros in 54 kB.
fn bomb() -> Vec<u8> {
    // Each block has the fixed codes: a zero, and then 65 of the longest match, which is 258 times the byte before.
    let mut bits: Vec<bool> = Vec::new();
    let mut put = |value: u32, count: u32| bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    for _ in 0..500 {
        // A block that is not the last, of type 1, whose bits come lowest first.
        put(0b010, 3);
        put(0b0011_0000, 8);
        for _ in 0..65 {
            put(0b1100_0101, 8);
            put(0, 5);
        }
        put(0, 7);
    }
    put(0b110, 3);
    put(0, 7);
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte: u8, bit| byte << 1 | u8::from(*bit));
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    file.extend(bits.chunks(8).map(byte));
    // No reader gets far enough to compare the checksum.
    file.extend([0; 4]);
    file.extend((500_u32 * (1 + 65 * 258)).to_le_bytes());
    file
}

#[tokio::test]
async fn hazard_content_encoding_tricks_of_who_brings_bytes_reach_nobody_who_shares_them() {
    if only_on_our_stores("it changes what the embedded bucket keeps of an object") {
        return;
    }
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    let said = [
        ("content-encoding", "gzip"),
        ("content-type", "text/html"),
        ("cache-control", "public, max-age=31536000"),
        ("content-disposition", "inline"),
    ];
    let own = "bob/tools/bb";
    let are_plain = async |bytes: &[u8]| {
        let name = digest(bytes);
        let functions = on_functions(&server, &bob).await;
        let mut answers = vec![fetch(&bob, own, &name).await, fetch(&functions, own, &name).await];
        for who in [&alice, &bob, &server.nobody] {
            answers.push(who.pull(&format!("{BB}:{}", crate::library::hash(bytes))).await);
        }
        for answer in answers {
            is(&answer, 200);
            assert!(answer.bytes == bytes);
            assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
            // `identity` means the same as no encoding, to everybody who knows the word.
            assert!([None, Some("identity")].contains(&answer.header("content-encoding")), "{:?}", answer.headers);
            for (name, value) in said {
                assert_ne!(answer.header(name), Some(value));
            }
        }
    };
    for (seed, old) in [(1, false), (2, true)] {
        let bytes = sif(seed);
        let (push, url) = if old { opened_old(&alice, BB, &bytes).await } else { opened(&alice, BB, &bytes).await };
        let hex = shared::domain::Digest::of(&bytes).hex();
        let put = alice.bare(Method::PUT, &url);
        let put = if old { put } else { put.header("x-amz-content-sha256", hex) };
        let put = said.iter().fold(put, |put, (name, value)| put.header(*name, *value));
        is(&send(put.body(bytes.clone())).await, 200);
        complete(&alice, &push).await.ok();
        is(&bring(&bob, own, &bytes).await, 201);
        are_plain(&bytes).await;
    }
    // A store that keeps unsigned headers, as S3 does.
    let s3 = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
        .region(aws_sdk_s3::config::Region::new("local"))
        .credentials_provider(aws_sdk_s3::config::Credentials::new("id", "secret", None, None, "test"))
        .endpoint_url(&server.url)
        .force_path_style(true)
        .http_client(server.local.objects.connector())
        .build();
    let s3 = aws_sdk_s3::Client::from_conf(s3);
    for object in server.objects().await {
        let copy = s3.copy_object().bucket("objects").key(&object).copy_source(format!("objects/{object}"));
        let copy = copy.metadata_directive("REPLACE".into()).content_encoding("gzip").content_type("text/html");
        let copy = copy.cache_control("public, max-age=31536000").content_disposition("inline");
        copy.send().await.unwrap();
        let seen = s3.head_object().bucket("objects").key(&object).send().await.unwrap();
        assert_eq!(seen.content_encoding(), Some("gzip"));
    }
    for seed in [1, 2] {
        are_plain(&sif(seed)).await;
    }
}
