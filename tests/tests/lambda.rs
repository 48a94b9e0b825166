//! The built functions behind a simulated API Gateway, beside the server in one process on the same table and bucket:
//! both must give the same answers. And what each function may do: what it needs, and no more.
//!
//! [`stackroom_tests::functions`] says how the functions run. `scripts/test lambda` builds them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    missing_docs,
    reason = "a failed test panics"
)]

use gateway::faults::Rates;
use gateway::lambda::Function;
use gateway::policy::{Denial, Statement, allows};
use gateway::template::FunctionSpec;
use reqwest::Method;
use serde_json::{Value, json};
use shared::rules::{Action, Resource};
use shared::service::access::system;
use stackroom_tests::chance::Chance;
use stackroom_tests::functions::Functions;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Answer, Caller, Server, send};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// A path whose answer has a URL in it that the server signs: with the session of a function, that is longer.
const SIGNING: &str = "/alice/api/container/tools/bb";

/// A server in one process, and the functions on the same stores.
struct Both {
    server: Server,
    /// The gateway's URL.
    url: String,
    functions: Functions,
}

impl Both {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(settings: &[(&str, &str)]) -> Self {
        let server = Server::start_with(settings).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // What they say of themselves must be the same. What they sign leads to the gateway's host, through the door.
        let settings = [settings, &[("STACKROOM_PUBLIC_URL", server.url.as_str())]].concat();
        let functions = Functions::start(&server.local, listener, &settings).await;
        Self { server, url, functions }
    }

    /// The same caller, sending requests to the functions.
    fn there(&self, caller: &Caller) -> Caller {
        Caller::new(&self.url, caller.token.clone())
    }

    /// Sends the same request both ways, which must change nothing, and reports how the answers differ.
    async fn compare(&self, caller: &Caller, method: Method, path: &str) -> Option<String> {
        let mut here = plain(&send(caller.request(method.clone(), path)).await);
        let mut there = plain(&send(self.there(caller).request(method.clone(), path)).await);
        if path == SIGNING {
            let longer = [&mut here, &mut there].map(|(_, headers, _)| headers.remove("content-length"));
            assert!(longer[0].is_some() == longer[1].is_some());
        }
        (there != here).then(|| format!("{method} {path}\n  the function: {there:?}\n  the server:   {here:?}\n"))
    }
}

/// The headers that must be the same: not the date, nor those that the test server adds.
fn headers(answer: &Answer) -> BTreeMap<String, String> {
    let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), undated(value.to_str().unwrap())));
    let ours = |name: &str| name != "date" && name != "apigw-requestid" && !name.starts_with("x-test-");
    headers.filter(|(name, _)| ours(name)).collect()
}

/// Everything in an answer that must be the same. JSON fields have no order.
fn plain(answer: &Answer) -> (u16, BTreeMap<String, String>, String) {
    let text = String::from_utf8_lossy(&answer.bytes);
    let text = match serde_json::from_slice::<BTreeMap<String, Value>>(&answer.bytes) {
        Ok(fields) => sorted(&fields.into_iter().collect()),
        Err(_) => text.into_owned(),
    };
    (answer.status.as_u16(), headers(answer), undated(&text))
}

/// JSON with its fields in the order of their names.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let fields: BTreeMap<&String, String> = map.iter().map(|(name, value)| (name, sorted(value))).collect();
            format!("{fields:?}")
        }
        Value::Array(list) => format!("{:?}", list.iter().map(sorted).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}

/// A text without what depends, in a presigned URL, on the time, on the signer and on the host of the bucket.
fn undated(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["X-Amz-Date=", "X-Amz-Signature=", "X-Amz-Credential=", "&X-Amz-Security-Token="] {
        while let Some((before, rest)) = text.split_once(name) {
            let end = rest.find(['&', '"']).unwrap_or(rest.len());
            // One process has no session.
            let left = if name.starts_with('&') { String::new() } else { format!("{}*", name.to_lowercase()) };
            text = format!("{before}{left}{}", &rest[end..]);
        }
    }
    while let Some((before, rest)) = text.split_once("/objects/") {
        let host = before.rfind("http://127.0.0.1:").map_or(before, |at| &before[..at]);
        text = format!("{host}BUCKET/{rest}");
    }
    text
}

/// JSON without the values that are new each time.
fn anonymous(value: &Value, name: &str) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), anonymous(value, name))).collect(),
        Value::Array(list) => list.iter().map(|value| anonymous(value, name)).collect(),
        Value::String(text) => {
            let id = text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let time =
                text.len() >= 20 && (text.ends_with('Z') || text.ends_with("+00:00")) && text.as_bytes()[10] == b'T';
            let url = text.split_once("/objects/").map(|(_, url)| {
                let names = url.split(['?', '&']).skip(1).map(|pair| pair.split('=').next().unwrap());
                names.filter(|name| *name != "X-Amz-Security-Token").collect::<Vec<_>>().join(" ")
            });
            match url {
                _ if id => json!("ID"),
                _ if time => json!("TIME"),
                Some(url) => json!(url),
                None => json!(text.replace(name, "NAME")),
            }
        }
        other => other.clone(),
    }
}

#[tokio::test]
async fn the_functions_answer_reads_as_the_server_does() {
    let both = Both::start().await;
    let alice = both.server.user("alice", 0).await;
    let bytes = SifBuilder::new("amd64").build();
    alice.push("alice/tools/bb", "latest", "amd64", &bytes).await.ok();
    let container = alice.get("/v1/containers/alice/tools/bb").await.ok()["data"]["id"].as_str().unwrap().to_owned();
    let hash = shared::domain::Digest::of(&bytes).library();
    let nobody = both.server.nobody.clone();
    let stranger = Caller::new(&both.server.url, Some("a".repeat(250)));
    let mut wrong: Vec<String> = Vec::new();
    for (path, status) in [
        ("/version", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/assets/config/config.prod.json", 200),
        ("/v1/images/alice/tools/bb:latest?arch=amd64", 200),
        ("/v1/images/alice/tools/bb:latest?arch%3Damd64", 200),
        ("/v1/images/alice/tools/bb:latest?arch=amd64&details", 200),
        ("/v1/images//alice/tools/bb:latest", 200),
        ("/v1/images/alice/tools/bb%3Alatest", 200),
        ("/v1/images/alice%2Ftools%2Fbb", 200),
        ("/v1/images/alice/tools/bb:missing", 404),
        ("/v1/images/alice/tools/bb:latest?arch=arm64", 404),
        ("/v1/images/alice/tools/b%20b", 404),
        ("/v1/images/alice/tools/b+b", 404),
        ("/v1/images/alice/tools/b%C3%A9", 404),
        ("/v1/images/alice/tools/bb%23x", 404),
        ("/v1/images/alice/tools/b%2562", 404),
        ("/v1/images/alice/tools/bb%3Alatest%253Fx", 404),
        ("/v1/images/alice/tools/bb%00", 404),
        ("/v1/entities/", 404),
        ("/v1/entities/alice", 200),
        ("/v1/entities/alice%22%3C%3E%7B%7D%5E%7C%60%5C", 400),
        ("/v1/entities", 200),
        ("/v1/collections/alice/tools", 200),
        ("/v1/collections?entity=alice", 200),
        ("/v1/containers?collection=alice%2Ftools", 200),
        ("/v1/containers/alice/tools/bb", 200),
        ("/v1/containers/alice/tools/no", 404),
        ("/v1/images?container=alice/tools/bb", 200),
        ("/v1/search?value=latest&arch=amd64", 200),
        ("/v1/search?value=%3Cb%20b%3E%22%7C%C3%A9", 200),
        ("/v1/search?value=a&value=b", 400),
        ("/v1/search?value=\"a|b{}^`", 200),
        (&format!("/v1/tags/{container}"), 200),
        (&format!("/v2/tags/{container}"), 200),
        ("/v2/tags/nothing", 400),
        ("/v1/oci-redirect", 404),
        ("/v1/imagefile/alice/tools/bb:latest?arch=amd64", 303),
        (&format!("/v1/imagefile/alice/tools/bb:{hash}"), 303),
        ("/v1/imagefile/alice/tools/bb:no", 404),
        ("/api/container/tools/bb", 404),
        (SIGNING, 200),
        ("/v1/token-status", 200),
        ("/auth/tokens", 200),
        ("/api/users", 403),
        ("/pks/lookup?op=get&search=0xABCD", 404),
        ("/v1/rbac/users/current", 200),
    ] {
        let answer = alice.get(path).await;
        if answer.status.as_u16() != status {
            wrong.push(format!("{path} has status {}\n", answer.status));
        }
        for (caller, method) in [
            (&alice, Method::GET),
            (&nobody, Method::GET),
            (&stranger, Method::GET),
            (&alice, Method::HEAD),
            (&alice, Method::OPTIONS),
        ] {
            wrong.extend(both.compare(caller, method, path).await);
        }
    }
    wrong.extend(both.compare(&both.server.admin, Method::GET, "/api/users").await);
    assert!(wrong.is_empty(), "{}", wrong.concat());
    for (name, function) in &both.functions.functions {
        println!("{name}: {} instances", function.started());
    }
    assert_eq!(both.there(&nobody).pull("alice/tools/bb:latest").await.bytes, bytes);
}

/// A step of a push: its name, and the answer.
type Step = (&'static str, Answer);

/// Pushes, tags and deletes an image, with the mistakes that people make, and returns every answer.
async fn push(alice: &Caller, name: &str, bytes: &[u8]) -> Vec<Step> {
    let id = |answer: &Answer| answer.json["data"]["id"].as_str().unwrap().to_owned();
    let mut steps: Vec<Step> = Vec::new();
    let entity = alice.post("/v1/entities", json!({ "name": "alice" })).await;
    let collection = json!({ "name": name, "entity": id(&entity), "description": "Größe <&> \u{1f980}" });
    let collection = alice.post("/v1/collections", collection).await;
    let container = alice.post("/v1/containers", json!({ "name": "bb", "collection": id(&collection) })).await;
    let container_id = id(&container);
    let hash = shared::domain::Digest::of(bytes).library();
    let image = alice.post("/v1/images", json!({ "hash": hash, "container": container_id })).await;
    let image_id = id(&image);
    let opened = alice.open(&image_id, bytes).await;
    let url = opened.json["data"]["uploadURL"].as_str().unwrap().to_owned();
    steps.extend([("entity", entity), ("collection", collection), ("container", container), ("image", image)]);
    let complete = format!("/v2/imagefile/{image_id}/_complete");
    steps.push(("open", opened));
    steps.push(("complete before the bytes", alice.put(&complete, json!({})).await));
    steps.push(("other bytes", alice.upload(&url, &vec![0; bytes.len()]).await));
    steps.push(("bytes", alice.upload(&url, bytes).await));
    steps.push(("complete", alice.put(&complete, json!({})).await));
    steps.push(("complete again", alice.put(&complete, json!({})).await));
    let tags = format!("/v2/tags/{container_id}");
    let tag = json!({ "Arch": "amd64", "Tag": "1.0", "ImageID": image_id });
    steps.push(("tag", alice.post(&tags, tag.clone()).await));
    let typed = alice.request(Method::POST, &tags).header("content-type", "application/json");
    steps.push(("tag, with its type", send(typed.body(tag.to_string())).await));
    let binary = alice.request(Method::POST, &tags).header("content-type", "application/octet-stream");
    steps.push(("tag, as bytes", send(binary.body(tag.to_string())).await));
    steps.push(("no JSON", send(alice.request(Method::POST, &tags).body("{\"Tag\":")).await));
    steps.push(("no text", send(alice.request(Method::POST, &tags).body(vec![0xff, 0xfe, 0])).await));
    steps.push(("no body", send(alice.request(Method::POST, &tags)).await));
    let long = json!({ "Arch": "amd64", "Tag": "x".repeat(3 << 20), "ImageID": image_id });
    steps.push(("a body too long", alice.post(&tags, long).await));
    steps.push(("pull", alice.pull(&format!("alice/{name}/bb:1.0")).await));
    steps.push(("delete", alice.delete(&format!("/v1/images/alice/{name}/bb:1.0?arch=amd64")).await));
    steps.push(("delete again", alice.delete(&format!("/v1/images/alice/{name}/bb:1.0?arch=amd64")).await));
    steps
}

#[tokio::test]
async fn what_no_client_can_send_costs_one_answer_and_not_the_function() {
    let both = Both::start().await;
    let function = &both.functions.functions["Library"];
    let context = gateway::event::Context {
        account: "000000000000",
        api: "api",
        stage: "$default",
        route_key: "ANY /v1/images/{proxy+}",
        path_parameters: Vec::new(),
        request_id: "id",
        source: [192, 0, 2, 1].into(),
    };
    for (path, query) in [("/v1/search", "value=<é>"), ("/v1/images/alice/../b#c?d%zz\0", ""), ("", ""), ("x", "\0")] {
        let parts = axum::http::Request::new(()).into_parts().0;
        let mut event = gateway::event::request(&context, &parts, b"");
        event["rawPath"] = json!(path);
        event["rawQueryString"] = json!(query);
        // The runtime may report an event that it can't read as an error, which the gateway turns into a 500.
        if let Ok(answered) = function.invoke(event.to_string().into()).await {
            let answer: Value = serde_json::from_slice(&answered.payload).unwrap();
            assert!(answer["statusCode"].as_u64().is_some_and(|status| (400..500).contains(&status)), "{answer}");
        }
        let well = both.there(&both.server.nobody).get("/v1/oci-redirect").await;
        assert_eq!(well.error(404), "this library is its own registry");
    }
    assert!(function.invoke(json!({ "no": "event" }).to_string().into()).await.is_err());
    assert_eq!(both.there(&both.server.nobody).get("/v1/oci-redirect").await.status.as_u16(), 404);
}

#[tokio::test]
async fn the_functions_take_a_push_step_by_step_as_the_server_does() {
    let both = Both::start().await;
    let alice = both.server.user("alice", 0).await;
    let here = push(&alice, "one", &SifBuilder::new("amd64").build()).await;
    // The image is deleted, so the same bytes are sent again.
    let there = push(&both.there(&alice), "two", &SifBuilder::new("amd64").build()).await;
    for ((step, here), (_, there)) in here.iter().zip(&there) {
        assert_eq!(there.status, here.status, "{step}: {}", String::from_utf8_lossy(&there.bytes));
        let names = |answer: &Answer| headers(answer).into_keys().collect::<Vec<_>>();
        // One process puts headers around its bucket, too.
        let bucket = ["other bytes", "bytes", "pull"].contains(step);
        assert!(bucket || names(there) == names(here), "{step}: {there:?} {here:?}");
        assert_eq!(anonymous(&there.json, "two"), anonymous(&here.json, "one"), "{step}");
        assert_eq!(there.bytes.is_empty(), here.bytes.is_empty(), "{step}");
    }
    let statuses: Vec<(&str, u16)> = there.iter().map(|(step, answer)| (*step, answer.status.as_u16())).collect();
    println!("{statuses:?}");
    both.server.sweep_all().await;
    assert_eq!(both.server.objects().await, Vec::<String>::new());
    assert_eq!(both.server.quota("alice").await, (0, 0));
}

/// Loses the bytes of every object, as a failing disk would.
async fn lose_all(server: &Server) {
    let grant = system(Action::Sweep, &Resource::Installation).unwrap();
    for object in server.objects().await {
        server.local.app.objects.delete(&grant, &object).await.unwrap();
    }
}

/// Changes a byte of every object file, as a failing disk would.
fn damage_all(server: &Server) {
    let folders = std::fs::read_dir(Path::new(&server.local.admin_token()).with_file_name("objects")).unwrap();
    for file in folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap()) {
        let file = file.unwrap().path();
        let mut bytes = std::fs::read(&file).unwrap();
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
        }
        std::fs::write(&file, bytes).unwrap();
    }
}

/// Pushes an image without a tag.
async fn untagged(who: &Caller, path: &str, bytes: &[u8]) {
    let image = who.image(&who.container(path).await, bytes).await;
    let id = image["id"].as_str().unwrap();
    let opened = who.open(id, bytes).await.ok();
    who.upload(opened["data"]["uploadURL"].as_str().unwrap(), bytes).await;
    who.put(&format!("/v2/imagefile/{id}/_complete"), json!({})).await.ok();
}

/// Opens an upload in parts of an image, and returns the image's id with the upload's.
async fn parts(who: &Caller, path: &str, bytes: &[u8]) -> (String, String) {
    let container = who.container(path).await;
    let image = who.image(&container, bytes).await["id"].as_str().unwrap().to_owned();
    let opened = who.post(&format!("/v2/imagefile/{image}/_multipart"), json!({ "filesize": bytes.len() })).await.ok();
    (image, opened["data"]["uploadID"].as_str().unwrap().to_owned())
}

/// Sends an image in one part, and completes it: it is sealed, and waits to be verified.
async fn sealed(who: &Caller, path: &str, bytes: &[u8]) -> String {
    let (image, upload) = parts(who, path, bytes).await;
    let sum = shared::domain::Digest::of(bytes).hex();
    let body = json!({ "uploadID": upload, "partNumber": 1, "partSize": bytes.len(), "sha256sum": sum });
    let url = who.put(&format!("/v2/imagefile/{image}/_multipart"), body).await.ok();
    let sent = who.upload(url["data"]["presignedURL"].as_str().unwrap(), bytes).await;
    let done = json!([{ "partNumber": 1, "token": sent.header("etag").unwrap() }]);
    let body = json!({ "uploadID": upload, "completedParts": done });
    who.put(&format!("/v2/imagefile/{image}/_multipart_complete"), body).await.ok();
    upload
}

/// Uploads a blob to the registry in two requests, and returns its digest.
async fn blob(who: &Caller, repository: &str, bytes: &[u8]) -> String {
    let opened = who.post(&format!("/v2/{repository}/blobs/uploads/"), Value::Null).await;
    let digest = shared::domain::Digest::of(bytes).to_string();
    let (first, last) = bytes.split_at(bytes.len() / 2);
    let patched = send(who.request(Method::PATCH, opened.header("location").unwrap()).body(first.to_vec())).await;
    let url = format!("{}&digest={digest}", patched.header("location").unwrap());
    assert_eq!(send(who.request(Method::PUT, &url).body(last.to_vec())).await.status, 201);
    digest
}

/// Pushes a manifest with a configuration, under a tag.
async fn artifact(who: &Caller, repository: &str, tag: &str, config: &[u8]) -> Answer {
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let digest = blob(who, repository, config).await;
    let config = json!({ "mediaType": "application/x", "digest": digest, "size": config.len() });
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [], "annotations": { "x": "y".repeat(20_000) } });
    let request = who.request(Method::PUT, &format!("/v2/{repository}/manifests/{tag}"));
    send(request.header("content-type", kind).body(manifest.to_string())).await
}

/// Everybody does everything for which some function needs a permission. What is lost and damaged is among it: only then
/// must a function hear that an object does not exist, and put it back.
async fn story(both: &Both) {
    let Both { server, functions, .. } = both;
    let (admin, nobody) = (both.there(&server.admin), both.there(&server.nobody));
    assert_eq!(nobody.get("/readyz").await.status, 200);
    // People, and how they log in.
    admin.post("/api/users", json!({ "name": "alice", "password": "correct horse" })).await.ok();
    nobody.post("/v1/get-token", json!({ "username": "alice", "password": "wrong" })).await.error(401);
    let token = nobody.post("/v1/get-token", json!({ "username": "alice", "password": "correct horse" })).await.ok();
    nobody.with(token["data"]["token"].as_str().unwrap()).get("/v1/token-status").await.ok();
    let token = admin.post("/api/users/alice/tokens", json!({ "name": "new" })).await.ok();
    let alice = nobody.with(token["data"]["token"].as_str().unwrap());
    alice.post("/api/users/alice/tokens", json!({ "name": "old" })).await.ok();
    let tokens = alice.get("/api/users/alice/tokens").await.ok()["data"].as_array().unwrap().clone();
    let old = tokens.iter().find(|token| token["name"] == "old").unwrap()["id"].as_str().unwrap().to_owned();
    alice.delete(&format!("/api/users/alice/tokens/{old}")).await.ok();
    alice.post("/api/groups", json!({ "name": "acme" })).await.ok();
    alice.put("/api/entities/acme/members/admin", json!({ "role": "reader" })).await.ok();
    // Images: one that stays, one that is deleted, wrong bytes, an upload in parts that is given up.
    let bytes = SifBuilder::new("amd64").seed(1).build();
    alice.push("alice/tools/bb", "v1", "amd64", &bytes).await.ok();
    assert_eq!(nobody.pull("alice/tools/bb:v1").await.bytes, bytes);
    // Old clients set no tag, and pull what came last.
    untagged(&alice, "alice/tools/untagged", &bytes).await;
    for newest in ["alice/tools/untagged", "alice/tools/untagged?arch=amd64"] {
        assert_eq!(nobody.pull(newest).await.bytes, bytes);
    }
    admin.put("/api/entities/alice/quota", json!({ "limit": 1_u64 << 30 })).await.ok();
    let star = "/v1/users/alice/stars/".to_owned() + &alice.container("alice/tools/bb").await;
    alice.post(&star, json!({})).await.ok();
    alice.delete(&star).await.ok();
    nobody.get("/v1/search?value=tools").await.ok();
    alice.push("alice/tools/bb", "v2", "amd64", &SifBuilder::new("amd64").seed(2).build()).await.ok();
    alice.delete("/v1/images/alice/tools/bb:v2?arch=amd64").await.ok();
    let wrong = SifBuilder::new("amd64").seed(3).build();
    let container = alice.container("alice/tools/wrong").await;
    let image = alice.image(&container, &wrong).await["id"].as_str().unwrap().to_owned();
    let body = json!({ "filesize": wrong.len(), "md5sum": "8638d37e503d5bf188ffe93d21150c55" });
    let opened = alice.post(&format!("/v2/imagefile/{image}"), body).await.ok();
    alice.upload(opened["data"]["uploadURL"].as_str().unwrap(), &vec![0; wrong.len()]).await;
    alice.put(&format!("/v2/imagefile/{image}/_complete"), json!({})).await.error(400);
    let (image, upload) = parts(&alice, "alice/tools/parts", &wrong).await;
    alice.put(&format!("/v2/imagefile/{image}/_multipart_abort"), json!({ "uploadID": upload })).await.ok();
    parts(&alice, "alice/tools/parts", &wrong).await;
    // The registry.
    let pushed = artifact(&alice, "alice/tools/art", "v1", b"config").await;
    assert_eq!(pushed.status, 201);
    assert_eq!(alice.get("/v2/alice/tools/art/tags/list").await.status, 200);
    assert_eq!(artifact(&alice, "alice/tools/art", "v2", b"other").await.status, 201);
    assert_eq!(alice.delete("/v2/alice/tools/art/manifests/v2").await.status, 202);
    let opened = alice.post("/v2/alice/tools/art/blobs/uploads/", Value::Null).await;
    let large = send(alice.request(Method::PATCH, opened.header("location").unwrap()).body(vec![7; 4 << 20])).await;
    let large = send(alice.request(Method::PATCH, large.header("location").unwrap()).body(vec![7; 4 << 20])).await;
    assert_eq!(alice.delete(large.header("location").unwrap()).await.status, 204);
    // Shares.
    let shared = alice.post("/api/shares", json!({ "image": "alice/tools/bb:v1" })).await.ok();
    let share = shared["data"]["url"].as_str().unwrap().replace(&server.url, &both.url);
    assert_eq!(send(nobody.request(Method::POST, &share)).await.status, 303);
    // What is verified later: one wakes the function, and one is left to the hourly sweep.
    let later = [4, 5].map(|seed| SifBuilder::new("amd64").seed(seed).build());
    verified_later(both, &alice, &later, Some("alice/tools/sooner")).await;
    // What a sweep collects: some of it is old enough, and the rest it is told to take.
    parts(&Caller::new(&long_ago(server, DAYS_5).await, alice.token.clone()), "alice/tools/old", &wrong).await;
    let past = |clock| async move { long_ago(server, clock).await };
    let swept = Caller::new(&past(DAYS_3).await, server.admin.token.clone());
    swept.post("/api/sweep", json!({})).await.ok();
    let past = Caller::new(&past(DAYS_3).await, alice.token.clone());
    alice.push("alice/tools/past", "v1", "amd64", &SifBuilder::new("amd64").seed(6).build()).await.ok();
    past.delete("/v1/images/alice/tools/past:v1?arch=amd64").await.ok();
    alice.push("alice/tools/gone", "v1", "amd64", &later[0]).await.ok();
    alice.delete("/v1/containers/alice/tools/gone?cascade=1").await.ok();
    functions.functions["Sweep"].deliver(json!({ "source": "aws.events" }).to_string().into(), 0).await.unwrap();
    alice.image(&alice.container("alice/tools/never").await, &SifBuilder::new("amd64").seed(7).build()).await;
    deletion_that_dies(both, &alice, &later[0]).await;
    admin.post("/api/sweep", json!({ "now": true })).await.ok();
    admin.get("/api/accounts").await.ok();
    // Damage, and loss.
    damage_all(server);
    admin.post("/api/scrub", json!({})).await.ok();
    lose_all(server).await;
    assert_eq!(send(nobody.request(Method::POST, &share)).await.status, 500);
    alice.image(&alice.container("alice/tools/bb").await, &bytes).await;
    alice.push("alice/tools/bb", "v1", "amd64", &bytes).await.ok();
    artifact(&alice, "alice/tools/art", "v1", b"config").await;
    verified_later(both, &alice, &later, None).await;
}

/// Pushes two images that are verified later: the first by an event of the table's stream, the second by the sweep.
async fn verified_later(both: &Both, alice: &Caller, images: &[Vec<u8>; 2], meanwhile: Option<&str>) {
    let [first, second] = images;
    let id = sealed(alice, "alice/tools/later", first).await;
    // The same bytes may come another way before.
    if let Some(path) = meanwhile {
        alice.push(path, "v1", "amd64", first).await.ok();
    }
    let keys = json!({ "pk": { "S": format!("S#{id}") }, "sk": { "S": "-" } });
    let event = json!({ "Records": [{ "eventName": "MODIFY", "dynamodb": { "Keys": keys } }] });
    both.functions.functions["Verify"].deliver(event.to_string().into(), 0).await.unwrap();
    sealed(alice, "alice/tools/later", second).await;
    let event = json!({ "source": "aws.events" });
    both.functions.functions["Sweep"].deliver(event.to_string().into(), 0).await.unwrap();
    for image in images {
        let hash = shared::domain::Digest::of(image).library();
        assert_eq!(alice.pull(&format!("alice/tools/later:{hash}")).await.bytes, *image);
    }
}

/// Deletes containers while functions die at some call of the table, until one is hidden and not yet removed.
async fn deletion_that_dies(both: &Both, alice: &Caller, bytes: &[u8]) {
    let faults = &both.functions.guard.faults;
    for number in 0..40 {
        let path = format!("alice/tools/dies{number}");
        alice.push(&path, "v1", "amd64", bytes).await.ok();
        faults.set(Rates { killed: 1.0, ..Rates::default() });
        // The gateway answers in its own form.
        let gone = alice.request(Method::DELETE, &format!("/v1/containers/{path}?cascade=1")).send().await.unwrap();
        faults.set(Rates::default());
        let there = alice.get(&format!("/v1/containers/{path}")).await.status;
        if gone.status() == 500 && there == 404 {
            return;
        }
    }
    panic!("no deletion died half done");
}

/// A clock that is some days late.
type Clock = fn() -> Duration;
const DAYS_5: Clock = || shared::app::system_clock() - Duration::from_hours(5 * 24);
const DAYS_3: Clock = || shared::app::system_clock() - Duration::from_hours(3 * 24);

/// The same installation some days ago: what happens there is old now.
async fn long_ago(server: &Server, clock: Clock) -> String {
    let own = &*server.local.app;
    let keys = std::fs::read_to_string(Path::new(&server.local.admin_token()).with_file_name("keys")).unwrap();
    let app = shared::App::new(shared::app::Parts {
        config: own.config.clone(),
        table: own.table.clone(),
        objects: own.objects.clone(),
        keys: shared::auth::Keys::parse(&keys).unwrap(),
        clock,
    });
    let (address, _) = gateway::serve(server::routes::router(&app).unwrap()).await.unwrap();
    format!("http://{address}")
}

/// Each action of each policy of the template: `⟨function⟩ ⟨action⟩`, with the policy that is left without it.
fn without_each(function: &FunctionSpec) -> Vec<(String, Vec<Statement>)> {
    let actions = function.statements.iter().flat_map(|statement| statement.actions.clone());
    let without = |action: &String| {
        let mut left = function.statements.clone();
        left.iter_mut().for_each(|statement| statement.actions.retain(|one| one != action));
        left
    };
    actions.map(|action| (format!("{} {action}", function.id), without(&action))).collect()
}

#[tokio::test]
async fn without_any_one_of_its_actions_a_function_is_refused_something_that_it_needs() {
    let both = Both::start_with(&[("STACKROOM_VERIFY_AT_ONCE", "1000")]).await;
    story(&both).await;
    let used = both.functions.guard.principals.used();
    let mut unneeded = Vec::new();
    for function in both.functions.functions.values().map(Function::spec) {
        let own: Vec<_> = used.iter().filter(|(id, _)| *id == function.id).map(|(_, need)| need).collect();
        assert!(own.iter().all(|need| allows(&function.statements, need)), "{}", function.id);
        for (name, left) in without_each(function) {
            if own.iter().all(|need| allows(&left, need)) {
                unneeded.push(name);
            }
        }
    }
    assert_eq!(unneeded, Vec::<String>::new(), "the story never needs these");
}

/// The same with real refusals, for one action of each function: the client hears of a failure, and nothing is half done.
#[tokio::test]
async fn a_function_without_an_action_fails_and_its_door_says_why() {
    for (id, action, path) in [
        ("Discovery", "dynamodb:DescribeTable", "/readyz"),
        ("Library", "dynamodb:BatchGetItem", "/v1/images/alice/tools/bb:v1"),
        ("Imagefile", "dynamodb:BatchGetItem", "/v1/imagefile/alice/tools/bb:v1"),
        ("Imagefile", "s3:GetObject", "/v1/imagefile/alice/tools/bb:v1"),
        ("Oci", "dynamodb:BatchGetItem", "/v2/alice/tools/bb/manifests/v1"),
        ("Login", "dynamodb:BatchGetItem", "/v1/token-status"),
        ("People", "dynamodb:Query", "/api/users"),
        ("Admin", "dynamodb:Scan", "/api/accounts"),
    ] {
        let server = Server::start().await;
        let alice = server.user("alice", 0).await;
        let bytes = SifBuilder::new("amd64").build();
        alice.push("alice/tools/bb", "v1", "amd64", &bytes).await.ok();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let without = |function: &mut FunctionSpec| {
            if function.id == id {
                function.statements.iter_mut().for_each(|statement| statement.actions.retain(|one| one != action));
            }
        };
        let functions = Functions::with_specs(&server.local, listener, &[], without).await;
        let admin = Caller::new(&url, server.admin.token.clone());
        let answer = send(admin.request(Method::GET, path)).await;
        // A URL is signed without asking anybody: it is refused when it is used.
        let answer = match answer.header("location") {
            Some(bucket) => send(admin.bare(Method::GET, bucket)).await,
            None => answer,
        };
        assert!([403, 500, 503].contains(&answer.status.as_u16()), "{id} {action}: {}", answer.status);
        let denials = functions.guard.principals.take_denials();
        let refused = |denial: &Denial| denial.function == id && denial.need.action == action;
        assert!(!denials.is_empty() && denials.iter().all(refused), "{id} {action}: {denials:?}");
    }
}

/// A client that tries again what the gateway says failed, as clients do, and gives up after some times.
struct Stubborn(Caller);

impl Stubborn {
    /// Sends a request and returns status, location and body. Not through [`send`]: the gateway has a form of its own.
    async fn ask(&self, method: Method, path: &str, body: &Value) -> (u16, Option<String>, Vec<u8>) {
        let mut answer = (0, None, Vec::new());
        for _ in 0..8 {
            let request = self.0.request(method.clone(), path);
            let request = if body.is_null() { request } else { request.body(body.to_string()) };
            let response = request.send().await.unwrap();
            let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
            answer = (response.status().as_u16(), location, response.bytes().await.unwrap().to_vec());
            if answer.0 < 500 {
                break;
            }
        }
        answer
    }

    /// The field of a success, or nothing.
    async fn field(&self, method: Method, path: &str, body: Value, name: &str) -> Option<Value> {
        let (status, _, bytes) = self.ask(method, path, &body).await;
        let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        (status < 300).then(|| json["data"][name].clone())
    }

    /// Pushes an image under a tag. Whether it was acknowledged.
    async fn push(&self, path: &str, tag: &str, bytes: &[u8]) -> Option<()> {
        let [entity, collection, name] = path.split('/').collect::<Vec<_>>()[..] else { panic!("{path}") };
        let entity = self.field(Method::POST, "/v1/entities", json!({ "name": entity }), "id").await?;
        let body = json!({ "name": collection, "entity": entity });
        let collection = self.field(Method::POST, "/v1/collections", body, "id").await?;
        let body = json!({ "name": name, "collection": collection });
        let container = self.field(Method::POST, "/v1/containers", body, "id").await?;
        let hash = shared::domain::Digest::of(bytes);
        let body = json!({ "hash": hash.library(), "container": container });
        let (_, _, image) = self.ask(Method::POST, "/v1/images", &body).await;
        let image: Value = serde_json::from_slice(&image).unwrap_or_default();
        let id = image["data"]["id"].as_str()?.to_owned();
        if image["data"]["uploaded"] == json!(false) {
            let body = json!({ "filesize": bytes.len(), "md5sum": "", "sha256sum": hash.hex() });
            let url = self.field(Method::POST, &format!("/v2/imagefile/{id}"), body, "uploadURL").await?;
            let sent = self.0.upload(url.as_str()?, bytes).await;
            let done = self.ask(Method::PUT, &format!("/v2/imagefile/{id}/_complete"), &json!({})).await;
            if !sent.status.is_success() || done.0 >= 300 {
                return None;
            }
        }
        let body = json!({ "Arch": "amd64", "Tag": tag, "ImageID": id });
        let tagged = self.ask(Method::POST, &format!("/v2/tags/{}", container.as_str()?), &body).await;
        (tagged.0 < 300).then_some(())
    }

    /// The bytes behind a tag, if there are some.
    async fn pull(&self, path: &str, tag: &str) -> Option<Vec<u8>> {
        let (status, location, _) =
            self.ask(Method::GET, &format!("/v1/imagefile/{path}:{tag}?arch=amd64"), &Value::Null).await;
        assert!([303, 404].contains(&status), "{status}");
        let answer = send(self.0.bare(Method::GET, &location?)).await;
        assert_eq!(answer.status, 200, "what has a tag has its bytes");
        Some(answer.bytes)
    }
}

/// What may be behind each tag: the bytes of these numbers, or nothing. Several where nobody knows what came of an
/// operation.
type Possible = BTreeMap<(String, &'static str), BTreeSet<Option<u64>>>;

fn numbered(number: u64) -> Vec<u8> {
    SifBuilder::new("amd64").seed(number).build()
}

/// One person's operations in random order. Returns what may be there at the end.
async fn operations(who: &Stubborn, name: &str, seed: u64, count: u64) -> Possible {
    let (mut chance, mut possible) = (Chance::new(seed), Possible::new());
    for number in 0..count {
        let (path, tag) =
            (format!("{name}/tools/c{}", chance.below(3)), ["v1", "v2"][usize::try_from(chance.below(2)).unwrap()]);
        let known = possible.entry((path.clone(), tag)).or_insert_with(|| BTreeSet::from([None]));
        // Bytes that nobody else has: what is deleted for one tag is deleted for no other.
        let fresh = (seed << 32) + number;
        match chance.below(4) {
            0 | 1 => match who.push(&path, tag, &numbered(fresh)).await {
                Some(()) => *known = BTreeSet::from([Some(fresh)]),
                None => drop(known.insert(Some(fresh))),
            },
            2 => match who.ask(Method::DELETE, &format!("/v1/images/{path}:{tag}?arch=amd64"), &Value::Null).await.0 {
                200 | 404 => *known = BTreeSet::from([None]),
                _ => drop(known.insert(None)),
            },
            _ => {
                let found = who.pull(&path, tag).await;
                let fits = |number: &Option<u64>| number.map(numbered) == found;
                let seen = known.iter().copied().find(fits);
                *known = BTreeSet::from([seen.unwrap_or_else(|| panic!("{path}:{tag} is none of {known:?}"))]);
            }
        }
    }
    possible
}

/// `CHAOS_OPERATIONS=10000` does more, `CHAOS_SEED=7` others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_die_at_any_call_and_nothing_acknowledged_is_lost() {
    let set = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (count, seed) = (set("CHAOS_OPERATIONS", 200), set("CHAOS_SEED", 1));
    let both = Both::start().await;
    let faults = &both.functions.guard.faults;
    let names = ["alice", "bob", "carol", "dave"];
    let mut people = Vec::new();
    for name in names {
        people.push(Stubborn(both.there(&both.server.user(name, 0).await)));
    }
    faults.set(Rates { cold: 0.02, killed: 0.05, twice: 0.02, throttled: 0.01, slow: 0.01 });
    let working = names
        .iter()
        .zip(&people)
        .zip(1..)
        .map(|((name, who), number)| operations(who, name, seed * 10 + number, count / 4));
    let sweeping = async {
        for _ in 0..count / 50 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            // It may die, too: then it is called again, as Lambda does.
            let _ = both.functions.functions["Sweep"].deliver("{}".into(), 2).await;
        }
    };
    let (ended, ()) = tokio::join!(futures::future::join_all(working), sweeping);
    faults.set(Rates::default());
    for _ in 0..3 {
        // It checks that each account is the sum of what it is charged.
        both.server.sweep_all().await;
    }
    let mut unsure = 0;
    for (who, possible) in people.iter().zip(&ended) {
        for ((path, tag), numbers) in possible {
            let found = who.pull(path, tag).await;
            assert!(numbers.iter().any(|number| number.map(numbered) == found), "{path}:{tag} is none of {numbers:?}");
            unsure += usize::from(numbers.len() > 1);
        }
    }
    let started: usize = both.functions.functions.values().map(Function::started).sum();
    println!("{count} operations, {started} instances, {unsure} tags of which nobody knows");
    for name in names {
        both.server.admin.delete(&format!("/v1/collections/{name}/tools?cascade=1")).await;
    }
    for _ in 0..3 {
        both.server.sweep_all().await;
    }
    assert_eq!(both.server.objects().await, Vec::<String>::new(), "nothing is stuck");
    for name in names {
        assert_eq!(both.server.quota(name).await, (0, 0), "{name}");
    }
}
