//! The built functions behind a simulated API Gateway, beside the server in one process on the same table and bucket:
//! both must give the same answers. What each function may do is in [`policies`], and what is left of work that functions
//! died in is in [`chaos`].
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

mod chaos;
mod policies;

use gateway::faults::Rates;
use reqwest::Method;
use serde_json::{Value, json};
use server::local::Nothing;
use shared::auth::Keys;
use stackroom_tests::functions::Functions;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Answer, Caller, Server, send};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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
        let server = Server::start_on_dynamodb(settings, &Nothing).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // What they say of themselves must be the same. What they sign leads to the gateway's host, through the door.
        let settings = [settings, &[("STACKROOM_PUBLIC_URL", server.url.as_str())]].concat();
        let functions = Functions::start(&server.local, server.dynamodb(), listener, &settings).await;
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

/// The lines from which `CloudWatch` makes metrics, of all that a function wrote.
fn published(both: &Both, function: &str) -> Vec<Value> {
    let lines = both.functions.functions[function].log();
    let lines = lines.iter().filter(|line| line.contains("_aws")).map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[tokio::test]
async fn functions_publish_what_aws_does_not_know_and_nothing_about_a_pull() {
    let both = Both::start_with(&[("STACKROOM_METRICS_NAMESPACE", "Stackroom/Test")]).await;
    let alice = both.there(&both.server.user("alice", 0).await);
    let bytes = SifBuilder::new("amd64").build();
    alice.push("alice/tools/bb", "v1", "amd64", &bytes).await.ok();
    let lines = published(&both, "Imagefile");
    let names = ["opened", "committed", "bytes"].map(|name| format!("stackroom_uploads_{name}_total"));
    let summed = names.each_ref().map(|name| lines.iter().filter_map(|line| line[name].as_u64()).sum::<u64>());
    assert_eq!(summed, [1, 1, bytes.len() as u64], "{lines:?}");
    assert_eq!(lines.len(), 2, "one for each invocation: {lines:?}");
    for line in &lines {
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(
            (&directive["Namespace"], &directive["Dimensions"]),
            (&json!("Stackroom/Test"), &json!([["group"]]))
        );
        assert_eq!(line["group"], "imagefile");
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(line[metric["Name"].as_str().unwrap()].is_u64(), "{line}");
        }
        let written = Duration::from_millis(line["_aws"]["Timestamp"].as_u64().unwrap());
        let age = shared::app::system_clock().abs_diff(written);
        assert!(age < Duration::from_mins(10) && !line.to_string().contains("alice"), "{line}");
    }
    for _ in 0..3 {
        assert_eq!(alice.pull("alice/tools/bb:v1").await.bytes, bytes);
        alice.get("/v1/images/alice/tools/missing:v1").await.error(404);
    }
    assert_eq!((published(&both, "Imagefile").len(), published(&both, "Library").len()), (2, 0));
    both.functions.functions["Sweep"].invoke(json!({}).to_string().into()).await.unwrap();
    let swept = published(&both, "Sweep");
    assert_eq!(swept.len(), 1, "{swept:?}");
    assert_eq!((&swept[0]["group"], &swept[0]["stackroom_sweeps_total"]), (&json!("sweep"), &json!(1)));
}

#[tokio::test]
async fn a_push_whose_verification_outlasts_the_gateways_patience_ends_tagged_and_can_be_pulled() {
    let both = Both::start_with(&[("STACKROOM_VERIFY_AT_ONCE", "1")]).await;
    let alice = both.server.user("alice", 0).await;
    let there = both.there(&alice);
    let bytes = SifBuilder::new("amd64").seed(9).build();
    let id = policies::sealed(&there, "alice/tools/large", &bytes).await;
    // The client has its answer, and goes on to the tag.
    let container = there.container("alice/tools/large").await;
    let image = there.image(&container, &bytes).await;
    let tag = json!({ "Arch": "amd64", "Tag": "v1", "ImageID": image["id"] });
    there.post(&format!("/v2/tags/{container}"), tag).await.ok();
    let keys = json!({ "pk": { "S": format!("S#{id}") }, "sk": { "S": "-" } });
    let event = json!({ "Records": [{ "eventName": "MODIFY", "dynamodb": { "Keys": keys } }] });
    let began = Instant::now();
    both.functions.guard.faults.set(Rates { late: Duration::from_secs(8), ..Rates::default() });
    let verify = both.functions.functions["Verify"].clone();
    let verifying = tokio::spawn(async move { verify.deliver(event.to_string().into(), 0).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Nobody sees it before. This process has no door.
    assert_eq!(alice.pull("alice/tools/large:v1").await.status, 404);
    verifying.await.unwrap().unwrap();
    both.functions.guard.faults.set(Rates::default());
    assert!(began.elapsed() > Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(there.pull("alice/tools/large:v1").await.bytes, bytes);
}

#[tokio::test]
async fn downloads_are_counted_from_the_lines_of_the_functions_that_served_them() {
    let both = Both::start_with(&[("STACKROOM_LOG", "info")]).await;
    let alice = both.server.user("alice", 0).await;
    let there = both.there(&alice);
    let bytes = SifBuilder::new("amd64").seed(4).build();
    there.push("alice/tools/bb", "v1", "amd64", &bytes).await.ok();
    for _ in 0..3 {
        assert_eq!(there.pull("alice/tools/bb:v1").await.bytes, bytes);
    }
    for _ in 0..2 {
        assert_eq!(there.get("/v2/alice/tools/bb/manifests/v1").await.status, 200);
    }
    let made = there.post("/api/shares", json!({ "image": "alice/tools/bb:v1" })).await.ok();
    let share = made["data"]["url"].as_str().unwrap().replace(&both.server.url, &both.url);
    assert_eq!(send(there.request(Method::POST, &share)).await.status, 303);
    let function = &both.functions.functions["Downloads"];
    let counted = async || there.get("/api/downloads?repository=alice/tools/bb").await.ok()["data"].clone();
    assert_eq!(counted().await["all"], json!(0));
    // CloudWatch Logs delivers at least once, and lines of several functions by themselves.
    for name in ["Imagefile", "Oci", "Shares", "Library"] {
        let lines = both.functions.functions[name].log();
        let event = gateway::logs::delivery(&function.spec().events[0], lines.iter().map(String::as_str));
        assert_eq!(event.is_some(), name != "Library", "{name}: {lines:?}");
        if let Some(event) = event {
            for _ in 0..2 {
                function.deliver(event.to_string().into(), 0).await.unwrap();
            }
        }
    }
    let counted = counted().await;
    let numbers = ["library", "registry", "share"].map(|door| counted[door].clone());
    assert_eq!(numbers, [json!(3), json!(2), json!(1)], "{counted}");
    // Its own lines are none of those that it wants.
    let own = function.log();
    assert_eq!(gateway::logs::delivery(&function.spec().events[0], own.iter().map(String::as_str)), None, "{own:?}");
}

#[tokio::test]
async fn a_new_key_is_learned_from_the_first_token_that_it_signed_and_old_tokens_stay() {
    let both = Both::start().await;
    let old = both.server.user("alice", 0).await;
    both.there(&old).get("/v1/token-status").await.ok();
    let asked = || both.functions.secret.lock().unwrap().asked;
    let readers = asked();
    assert!(readers >= 1, "a function that needs the keys reads them");
    // An operator puts a key in front; the server stands for a function that has read it already.
    let keys = format!("{}{}", Keys::generate().unwrap(), both.functions.secret.lock().unwrap().keys);
    both.server.local.app.keys.replace(&keys).unwrap();
    both.functions.secret.lock().unwrap().keys = keys;
    let new = both.server.token("alice", json!({ "name": "new" })).await;
    // A function reads no more often than every ten seconds, and it may have started just now.
    let until = Instant::now() + Duration::from_secs(30);
    while !both.there(&new).get("/v1/token-status").await.status.is_success() {
        assert!(Instant::now() < until, "the function never learns the key");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    both.there(&old).get("/v1/token-status").await.ok();
    assert_eq!(asked(), readers + 1, "one function asked, once");
    // Keys that nobody has make nobody ask, but once in a while.
    let strange = Keys::parse(&Keys::generate().unwrap()).unwrap().seal("http://h").unwrap();
    for _ in 0..20 {
        both.there(&old.with(&strange)).get("/v1/token-status").await.error(404);
    }
    assert!(asked() <= readers + 2);
}
