//! The built functions on `LocalStack`, or on another emulator behind one address: both protocols from the first push to the
//! last sweep, on a table and a bucket made from the template's own resources, with signatures that somebody else checks.
//!
//! [`stackroom_tests::localstack`] says which emulator. `scripts/test localstack` starts one and builds the functions; it
//! runs what it can of the suites `library` and `registry` on it as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a failed test panics"
)]

#[path = "../registry/support.rs"]
#[expect(dead_code, reason = "the registry's own tests use the rest")]
mod support;

use gateway::template::{self, Event};
use reqwest::Method;
use serde_json::{Value, json};
use server::routes::TEMPLATE;
use shared::domain::Digest;
use stackroom_tests::localstack::Stack;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, Server, functions, send};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{BB, MIB, basic, blob_at, fetch, head, is, junk, manifest, manifest_at, push, push_sif, refused, tags};

/// An installation on functions and an emulator.
async fn server() -> Server {
    assert!(functions::emulated(), "STACKROOM_UNDER is not `localstack`: run `scripts/test localstack`");
    Server::start().await
}

fn stack(server: &Server) -> &Arc<Stack> {
    server.stack.as_ref().unwrap()
}

/// The scheduled event, twice: it may arrive twice.
async fn swept(server: &Server) {
    let sweep = &server.functions.as_ref().unwrap().functions["Sweep"];
    for _ in 0..2 {
        sweep.deliver(json!({ "source": "aws.events" }).to_string().into(), 0).await.unwrap();
    }
}

#[tokio::test]
async fn the_table_and_the_bucket_are_those_of_the_template() {
    let server = server().await;
    let (stack, table) = (stack(&server), json!({ "TableName": stack(&server).name }));
    eprintln!("what the emulator does not take: {:?}", stack.refused);
    let taken = |property: &str| !stack.refused.iter().any(|refused| refused.starts_with(property));
    let deployment = stack.deployment(&server.url, "none");
    let wanted = template::properties(TEMPLATE, &deployment, "Table").unwrap();
    let found = stack.dynamodb("DescribeTable", &table).await.unwrap()["Table"].clone();
    for property in ["KeySchema", "AttributeDefinitions"] {
        assert_eq!(found[property], wanted[property], "{property}");
    }
    assert_eq!(found["BillingModeSummary"]["BillingMode"], wanted["BillingMode"]);
    assert_eq!(found["StreamSpecification"]["StreamViewType"], wanted["StreamSpecification"]["StreamViewType"]);
    if taken("TimeToLiveSpecification") {
        let life = stack.dynamodb("DescribeTimeToLive", &table).await.unwrap()["TimeToLiveDescription"].clone();
        assert_eq!(life["AttributeName"], wanted["TimeToLiveSpecification"]["AttributeName"]);
        assert!(["ENABLED", "ENABLING"].contains(&life["TimeToLiveStatus"].as_str().unwrap()), "{life}");
    }
    for (property, query, says) in [
        ("CorsConfiguration", "?cors", format!("<AllowedOrigin>{}</AllowedOrigin>", server.url)),
        ("CorsConfiguration", "?cors", "<ExposeHeader>Content-Range</ExposeHeader>".to_owned()),
        ("LifecycleConfiguration", "?lifecycle", "<DaysAfterInitiation>8</DaysAfterInitiation>".to_owned()),
        (
            "PublicAccessBlockConfiguration",
            "?publicAccessBlock",
            "<BlockPublicPolicy>true</BlockPublicPolicy>".to_owned(),
        ),
    ] {
        let found = stack.s3(Method::GET, query, String::new()).await.unwrap();
        assert!(!taken(property) || found.contains(&says), "{found}");
    }
    assert_eq!(server.nobody.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn an_image_is_pushed_found_pulled_and_deleted() {
    let server = server().await;
    let alice = server.user("alice", 0).await;
    let bytes = SifBuilder::new("amd64").build();
    alice.push("alice/tools/hello", "1.0", "amd64", &bytes).await.ok();
    server.followed().await;
    let found = alice.get("/v1/search?value=hello&arch=amd64").await.ok();
    assert!(found["data"].to_string().contains("\"hello\""), "{found}");
    let image = server.nobody.get("/v1/images/alice/tools/hello:1.0?arch=amd64").await.ok();
    assert_eq!(image["data"]["size"], json!(bytes.len()));
    // The bytes come from the bucket, and parts of them, too.
    let url = server.nobody.get("/v1/imagefile/alice/tools/hello:1.0").await.header("location").unwrap().to_owned();
    assert!(url.contains(&stack(&server).name), "{url}");
    assert_eq!(send(server.nobody.bare(Method::GET, &url)).await.bytes, bytes);
    let part = send(server.nobody.bare(Method::GET, &url).header("range", "bytes=64-127")).await;
    assert_eq!((part.status.as_u16(), &part.bytes[..]), (206, &bytes[64..128]));
    // The same bytes elsewhere need no upload.
    alice.push("alice/tools/other", "1.0", "amd64", &bytes).await.ok();
    assert_eq!(server.quota("alice").await, (bytes.len() as u64, 0));
    server.sweep_all().await;
    assert_eq!(server.objects().await.len(), 1, "what was brought is there once");
    alice.delete("/v1/images/alice/tools/hello:1.0?arch=amd64").await.ok();
    server.nobody.get("/v1/images/alice/tools/hello:1.0").await.error(404);
    swept(&server).await;
    assert_eq!(server.nobody.pull("alice/tools/other:1.0").await.bytes, bytes);
    alice.delete("/v1/images/alice/tools/other:1.0?arch=amd64").await.ok();
    assert_eq!(server.quota("alice").await, (0, 0));
    server.sweep_all().await;
    assert_eq!(server.objects().await, Vec::<String>::new());
}

/// Wrong bytes are refused by the bucket where it can check a signed hash, and by us otherwise.
#[tokio::test]
async fn wrong_bytes_are_refused_and_nothing_of_them_is_shown() {
    let server = server().await;
    let alice = server.user("alice", 0).await;
    let bytes = SifBuilder::new("amd64").build();
    let container = alice.container("alice/tools/hello").await;
    let image = alice.image(&container, &bytes).await["id"].as_str().unwrap().to_owned();
    let url = alice.open(&image, &bytes).await.ok()["data"]["uploadURL"].as_str().unwrap().to_owned();
    let mut wrong = bytes.clone();
    wrong[100] ^= 1;
    let put = server.nobody.bare(Method::PUT, &url).header("x-amz-content-sha256", Digest::of(&bytes).hex());
    let pins = server.local.app.config.pin_uploads == shared::config::Pins::Bytes;
    let sent = if pins { send(put.body(wrong)).await } else { alice.upload(&url, &wrong).await };
    assert_eq!(sent.status.is_success(), !pins, "{}", String::from_utf8_lossy(&sent.bytes));
    alice.put(&format!("/v2/imagefile/{image}/_complete"), json!({})).await.error(400);
    server.nobody.get(&format!("/v1/imagefile/alice/tools/hello:{}", Digest::of(&bytes).library())).await.error(404);
    alice.push("alice/tools/hello", "1.0", "amd64", &bytes).await.ok();
    assert_eq!(server.nobody.pull("alice/tools/hello:1.0").await.bytes, bytes);
}

/// A signature covers the method, the path, the query and the host; and it ends.
#[tokio::test]
async fn a_url_is_good_for_what_it_was_signed_for_and_nothing_else() {
    let server = server().await;
    let alice = server.user("alice", 0).await;
    let bytes = SifBuilder::new("amd64").build();
    alice.push("alice/tools/hello", "1.0", "amd64", &bytes).await.ok();
    let url = server.nobody.get("/v1/imagefile/alice/tools/hello:1.0").await.header("location").unwrap().to_owned();
    let asked = async |method: Method, url: &str| send(server.nobody.bare(method, url).body("")).await.status.as_u16();
    assert_eq!(asked(Method::GET, &url).await, 200);
    let (path, query) = url.split_once('?').unwrap();
    let field = |name: &str| query.split('&').find(|pair| pair.starts_with(name)).unwrap();
    for (what, method, wrong) in [
        ("another method", Method::PUT, url.clone()),
        ("another object", Method::GET, format!("{path}0?{query}")),
        ("a longer life", Method::GET, url.replace(field("X-Amz-Expires"), "X-Amz-Expires=604800")),
        ("another time", Method::GET, url.replace(field("X-Amz-Date"), "X-Amz-Date=20200101T000000Z")),
        (
            "another signature",
            Method::GET,
            url.replace(field("X-Amz-Signature"), &format!("X-Amz-Signature={}", "0".repeat(64))),
        ),
        ("another signer", Method::GET, url.replace("X-Amz-Credential=", "X-Amz-Credential=X")),
        ("no signature", Method::GET, path.to_owned()),
    ] {
        let status = asked(method, &wrong).await;
        assert!([400, 403].contains(&status), "{what}: {status}");
    }
    assert_eq!(server.nobody.pull("alice/tools/hello:1.0").await.bytes, bytes);
}

/// Sends an image in parts, and completes it.
async fn in_parts(who: &Caller, path: &str, bytes: &[u8]) -> String {
    let container = who.container(path).await;
    let image = who.image(&container, bytes).await["id"].as_str().unwrap().to_owned();
    let at = format!("/v2/imagefile/{image}/_multipart");
    let opened = who.post(&at, json!({ "filesize": bytes.len() })).await.ok()["data"].clone();
    let size = usize::try_from(opened["partSize"].as_u64().unwrap()).unwrap();
    let mut tokens = Vec::new();
    for (part, number) in bytes.chunks(size).zip(1..) {
        let hash = Digest::of(part).hex();
        let body =
            json!({ "partSize": part.len(), "uploadID": opened["uploadID"], "partNumber": number, "sha256sum": hash });
        let made = who.put(&at, body).await.ok();
        let sent = who.upload(made["data"]["presignedURL"].as_str().unwrap(), part).await;
        assert_eq!(sent.status, 200, "{}", String::from_utf8_lossy(&sent.bytes));
        tokens.push(json!({ "partNumber": number, "token": sent.header("etag").unwrap() }));
    }
    let body = json!({ "uploadID": opened["uploadID"], "completedParts": tokens });
    who.put(&format!("{at}_complete"), body).await.ok();
    let body = json!({ "Arch": "amd64", "Tag": "1.0", "ImageID": image });
    who.post(&format!("/v2/tags/{container}"), body).await.ok();
    opened["uploadID"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_image_in_parts_is_put_together() {
    let server = server().await;
    let alice = server.user("alice", 0).await;
    let bytes = SifBuilder::new("amd64").payload_len(70 << 20).build();
    in_parts(&alice, "alice/tools/big", &bytes).await;
    assert!(server.nobody.pull("alice/tools/big:1.0").await.bytes == bytes);
    assert_eq!(server.quota("alice").await, (bytes.len() as u64, 0));
    server.sweep_all().await;
    assert_eq!(server.objects().await.len(), 1);
}

/// The stream of the emulator's own table tells the function, by the filter of the template.
#[tokio::test]
async fn what_is_too_long_to_verify_at_once_is_verified_when_the_stream_says_so() {
    assert!(functions::emulated(), "STACKROOM_UNDER is not `localstack`: run `scripts/test localstack`");
    let server = Server::start_with(&[("STACKROOM_VERIFY_AT_ONCE", "1000")]).await;
    let alice = server.user("alice", 0).await;
    let mut stream = stack(&server).stream().await.unwrap();
    let verify = &server.functions.as_ref().unwrap().functions["Verify"];
    let woken = verify.spec().events.iter().find(|event| matches!(event, Event::Stream { .. })).unwrap();
    let wakes =
        |records: Vec<Value>| -> Vec<Value> { records.into_iter().filter(|record| woken.takes(record)).collect() };
    assert_eq!(wakes(stream.next().await.unwrap()), Vec::<Value>::new(), "nothing is sealed yet");

    let bytes = SifBuilder::new("amd64").payload_len(50_000).build();
    let container = alice.container("alice/tools/later").await;
    let image = alice.image(&container, &bytes).await["id"].as_str().unwrap().to_owned();
    let at = format!("/v2/imagefile/{image}/_multipart");
    let opened = alice.post(&at, json!({ "filesize": bytes.len() })).await.ok()["data"].clone();
    let hash = Digest::of(&bytes).hex();
    let body = json!({ "partSize": bytes.len(), "uploadID": opened["uploadID"], "partNumber": 1, "sha256sum": hash });
    let made = alice.put(&at, body).await.ok();
    let sent = alice.upload(made["data"]["presignedURL"].as_str().unwrap(), &bytes).await;
    let tokens = json!([{ "partNumber": 1, "token": sent.header("etag").unwrap() }]);
    let body = json!({ "uploadID": opened["uploadID"], "completedParts": tokens });
    alice.put(&format!("{at}_complete"), body).await.ok();
    let pulled = format!("alice/tools/later:{}", Digest::of(&bytes).library());
    assert_ne!(server.nobody.pull(&pulled).await.status, 200, "nobody sees it yet");

    let until = Instant::now() + Duration::from_secs(20);
    let records = loop {
        let records = wakes(stream.next().await.unwrap());
        if !records.is_empty() {
            break records;
        }
        assert!(Instant::now() < until, "the stream says nothing of it");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(records.len(), 1, "{records:?}");
    // A record may come twice.
    for _ in 0..2 {
        verify.deliver(json!({ "Records": records }).to_string().into(), 0).await.unwrap();
    }
    assert_eq!(server.nobody.pull(&pulled).await.bytes, bytes);
    assert_eq!(server.quota("alice").await, (bytes.len() as u64, 0));
    server.sweep_all().await;
    assert_eq!(server.objects().await.len(), 1, "nothing staged is left");
}

#[tokio::test]
async fn an_image_of_layers_is_pushed_pulled_listed_and_deleted() {
    let server = server().await;
    let alice = server.user("alice", 0).await;
    let (large, small) = (junk(1, 11 * MIB + 5), junk(2, 1000));
    let body = push(&alice, BB, "v1", b"config", &[&large, &small]).await;
    assert_eq!(manifest(&alice, BB, "v1").await, body);
    assert!(fetch(&alice, BB, &support::digest(&large)).await.bytes == large);
    let answer = alice.get(&blob_at(BB, &support::digest(&large))).await;
    is(&answer, 307);
    let part = server.nobody.bare(Method::GET, answer.header("location").unwrap()).header("range", "bytes=5-9");
    assert_eq!(send(part).await.bytes, large[5..10]);
    let other = "alice/tools/other";
    let mount = format!("/v2/{other}/blobs/uploads/?mount={}&from={BB}", support::digest(&large));
    is(&alice.post(&mount, Value::Null).await, 201);
    assert!(fetch(&alice, other, &support::digest(&large)).await.bytes == large);
    assert_eq!(server.quota("alice").await, ((large.len() + small.len() + 6) as u64, 0));
    // A SIF of one protocol is one of the other.
    let sif = SifBuilder::new("amd64").build();
    push_sif(&alice, BB, "sif", &sif).await;
    assert_eq!(alice.pull(&format!("{BB}:sif")).await.bytes, sif);
    assert_eq!(tags(&alice, BB).await, ["sif", "v1"]);
    is(&alice.delete(&manifest_at(BB, "v1")).await, 202);
    is(&head(&alice, &manifest_at(BB, "v1")).await, 404);
    is(&alice.delete(&blob_at(other, &support::digest(&large))).await, 202);
    is(&head(&alice, &blob_at(other, &support::digest(&large))).await, 404);
    is(&alice.delete(&manifest_at(BB, "sif")).await, 202);
    swept(&server).await;
    server.sweep_all().await;
    assert_eq!(server.quota("alice").await.1, 0);
    assert_eq!(server.nobody.pull(&format!("{BB}:sif")).await.status, 404);
}

#[tokio::test]
async fn a_token_is_had_for_a_password_and_for_nothing_else() {
    let server = server().await;
    let user = json!({ "name": "bob", "password": "correct horse" });
    server.admin.post("/api/users", user).await.ok();
    let path = "/token?service=x&scope=repository:bob/tools/bb:pull,push";
    is(&send(basic(&server.nobody, Method::GET, path, "bob", "wrong horse")).await, 401);
    let answer = send(basic(&server.nobody, Method::GET, path, "bob", "correct horse")).await;
    is(&answer, 200);
    let bob = server.nobody.with(answer.json["token"].as_str().unwrap());
    push(&bob, "bob/tools/bb", "v1", b"config", &[b"layer"]).await;
    let hidden = server.nobody.get(&manifest_at("bob/tools/bb", "v1")).await;
    refused(&hidden, 401, "UNAUTHORIZED");
    server.nobody.post("/v1/get-token", json!({ "username": "bob", "password": "wrong" })).await.error(401);
}
