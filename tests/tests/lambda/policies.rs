//! What each function may do: what it needs, and no more.
//!
//! A story makes every function do everything for which it needs a permission. The doors of the stores refuse what no
//! statement of its policy allows, and note what is asked for. So the story shows that no permission is missing; and that
//! none is too many, if without it something would have been refused.

use crate::Both;
use gateway::faults::Rates;
use gateway::lambda::Function;
use gateway::policy::{Denial, Statement, allows};
use gateway::template::FunctionSpec;
use reqwest::Method;
use serde_json::{Value, json};
use shared::rules::{Action, Resource};
use shared::service::access::system;
use stackroom_tests::functions::Functions;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Answer, Caller, Server, send};
use std::path::Path;
use std::time::Duration;

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
pub(crate) async fn sealed(who: &Caller, path: &str, bytes: &[u8]) -> String {
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
    alice.get("/v1/search?value=tools").await.ok();
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
    words_change(server, &alice, "followed").await;
    // What follows from the changes so far. The stream tells of entries of the outbox, and of other rows.
    let follower = &functions.functions["Follow"];
    let inserted = |pk: String| json!({ "eventName": "INSERT", "dynamodb": { "Keys": { "pk": { "S": pk } } } });
    let records: Vec<_> = (0..16).map(|number| inserted(format!("F#{number:x}"))).collect();
    assert!(records.iter().all(|record| follower.spec().events[0].takes(record)));
    assert!(!follower.spec().events[0].takes(&inserted("E#alice".to_owned())));
    follower.deliver(json!({ "Records": records }).to_string().into(), 0).await.unwrap();
    let history = alice.get("/api/history?repository=alice/tools/bb&tag=v1").await.ok();
    assert_ne!(history["data"], json!([]));
    // What functions said in their log of what was downloaded.
    let counter = &functions.functions["Downloads"];
    let line = json!({ "download": "library alice/tools/bb - v1" }).to_string();
    let event = gateway::logs::delivery(&counter.spec().events[0], [line.as_str()]).unwrap();
    counter.deliver(event.to_string().into(), 0).await.unwrap();
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
    admin.get("/api/index").await.ok();
    admin.post("/api/index", json!({})).await.ok();
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
    words_change(&both.server, alice, "swept").await;
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
const DAYS_5: Clock = || shared::app::system_clock().saturating_sub(Duration::from_hours(5 * 24));
const DAYS_3: Clock = || shared::app::system_clock().saturating_sub(Duration::from_hours(3 * 24));

/// Words come that the search index does not have, and words go that it has had for days.
async fn words_change(server: &Server, alice: &Caller, which: &str) {
    let image = |seed: u64| {
        let label = format!("{which} word-{seed} other-{seed}");
        SifBuilder::new("amd64").labels(&[("said", &label)]).seed(seed).build()
    };
    let path = format!("alice/tools/{which}");
    alice.push(&path, "before", "amd64", &image(11)).await.ok();
    shared::service::outbox::follow(&earlier(server, DAYS_3)).await.unwrap();
    alice.delete(&format!("/v1/images/{path}:before?arch=amd64")).await.ok();
    alice.push(&path, "after", "amd64", &image(12)).await.ok();
}

/// The same installation some days ago: what happens there is old now.
async fn long_ago(server: &Server, clock: Clock) -> String {
    let app = earlier(server, clock);
    let (address, _) = gateway::serve(axum::Router::from(server::site::Site::shared(&app).unwrap())).await.unwrap();
    format!("http://{address}")
}

fn earlier(server: &Server, clock: Clock) -> shared::App {
    let own = &*server.local.app;
    let keys = std::fs::read_to_string(Path::new(&server.local.admin_token()).with_file_name("keys")).unwrap();
    shared::App::new(shared::app::Parts {
        config: own.config.clone(),
        table: own.table.clone(),
        index: own.index.clone(),
        objects: own.objects.clone(),
        keys: shared::auth::Keys::parse(&keys).unwrap(),
        clock,
    })
}

/// Each action of each policy of the template: `⟨function⟩ ⟨action⟩`, with the policy that is left without it.
fn without_each(function: &FunctionSpec) -> Vec<(String, Vec<Statement>)> {
    let mut all = Vec::new();
    for (at, statement) in function.statements.iter().enumerate() {
        for action in &statement.actions {
            let mut left = function.statements.clone();
            left[at].actions.retain(|one| one != action);
            all.push((format!("{} {action} {:?}", function.id, statement.resources), left));
        }
    }
    all
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
        let server = Server::start_on_dynamodb(&[], &server::local::Nothing).await;
        let alice = server.user("alice", 0).await;
        let bytes = SifBuilder::new("amd64").build();
        alice.push("alice/tools/bb", "v1", "amd64", &bytes).await.ok();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let without = |function: &mut FunctionSpec| {
            if function.id == id {
                for statement in &mut function.statements {
                    statement.actions.retain(|one| one != action);
                }
            }
        };
        let functions = Functions::with_specs(&server.local, server.dynamodb(), listener, &[], without).await;
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
