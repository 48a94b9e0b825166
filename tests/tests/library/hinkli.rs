//! The requests of `hinkli` 0.3.6, the command of Hinkskalle, as it sends them, and the fields that it reads.

use crate::support::{set, sif, text, write};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::{Digest, Time, TokenId, TokenScope};
use shared::store::rows::Token;
use stackroom_tests::functions::only_in_one_process;
use stackroom_tests::{Answer, Caller, SERVING, Server, send};

const AGENT: &str = "python-requests/2.32.3";
const PASSWORD: &str = "correct horse battery";

/// A server, alice's password set, and a caller with the token of her login.
async fn start() -> (Server, Caller) {
    let server = Server::start_with(&[SERVING]).await;
    server.user("alice", 0).await;
    password(&server, "alice").await;
    let made = login(&server, "alice", PASSWORD).await.ok();
    let alice = server.nobody.with(&text(&made, "/data/token"));
    (server, alice)
}

async fn password(server: &Server, user: &str) {
    let body = json!({ "password": PASSWORD });
    server.admin.put(&format!("/api/users/{user}/password"), body).await.ok();
}

/// Its first request.
async fn login(server: &Server, username: &str, password: &str) -> Answer {
    let request = server.nobody.bare(Method::POST, "/v1/get-token").header("user-agent", AGENT);
    let body = json!({ "username": username, "password": password });
    send(request.header("content-type", "application/json").body(body.to_string())).await
}

/// One of its requests.
async fn ask(who: &Caller, method: Method, path: &str, body: &[u8]) -> Answer {
    let request = who.request(method, path).header("user-agent", AGENT).header("accept", "*/*");
    let request =
        if path.contains("/uploads/") { request.header("content-type", "application/octet-stream") } else { request };
    send(if body.is_empty() { request } else { request.body(body.to_vec()) }).await
}

/// What it makes of an answer that is not 200.
fn shown(answer: &Answer) -> String {
    let json = &answer.json;
    match (&json["errors"], &json["message"]) {
        (Value::Array(errors), _) => errors[0]["detail"].as_str().expect("a `detail`").to_owned(),
        (_, Value::String(message)) => message.clone(),
        _ => panic!("{json}"),
    }
}

fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

fn upload(repository: &str, bytes: &[u8], rest: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/?digest={}&{rest}", digest(bytes).replace(':', "%3A"))
}

/// The manifest of a file, with the white space of Python.
fn manifest(title: &str, bytes: &[u8]) -> String {
    format!(
        "{{\"schemaVersion\": 2, \"config\": {{\"mediaType\": \"application/vnd.unknown.config.v1+json\", \
         \"digest\": \"{}\", \"size\": 2}}, \"layers\": [{{\"mediaType\": \"application/vnd.oci.image.layer.v1.tar\", \
         \"digest\": \"{}\", \"size\": {}, \"annotations\": {{\"io.deis.oras.content.unpack\": \"false\", \
         \"org.opencontainers.image.title\": \"{title}\"}}}}]}}",
        digest(b"{}"),
        digest(bytes),
        bytes.len()
    )
}

/// `hinkli push`; the answer to the first request that is refused, or else to the last.
async fn push(who: &Caller, repository: &str, tag: &str, bytes: &[u8], rest: &str) -> Answer {
    for part in [bytes, b"{}"] {
        let there = ask(who, Method::HEAD, &format!("/v2/{repository}/blobs/{}", digest(part)), b"").await;
        if there.status == StatusCode::OK {
            assert_eq!(there.header("docker-content-digest"), Some(&*digest(part)));
            continue;
        }
        let sent = ask(who, Method::POST, &upload(repository, part, rest), part).await;
        if !sent.status.is_success() {
            return sent;
        }
        assert_eq!(sent.status, StatusCode::CREATED);
    }
    ask(who, Method::PUT, &format!("/v2/{repository}/manifests/{tag}"), manifest("rawdata", bytes).as_bytes()).await
}

/// A request, its status, and the fields of its answer that hinkli reads.
struct Row<'a> {
    method: Method,
    path: String,
    body: &'a [u8],
    status: u16,
    reads: Vec<(&'a str, Value)>,
}

impl<'a> Row<'a> {
    fn new(method: Method, path: impl Into<String>, body: &'a [u8], status: u16, reads: Vec<(&'a str, Value)>) -> Self {
        Self { method, path: path.into(), body, status, reads }
    }
}

#[tokio::test]
async fn every_request_is_answered_with_what_hinkli_reads() {
    let (server, alice) = start().await;
    let bytes = b"reads of a sequencer";
    let (blob, body) = (format!("/v2/alice/runs/FAQ4711/blobs/{}", digest(bytes)), manifest("rawdata", bytes));
    let id = "/data/id";
    let rows = [
        Row::new(
            Method::GET,
            "/v1/token-status",
            b"",
            200,
            vec![("/status", json!("welcome")), ("/data/username", json!("alice")), ("/data/isAdmin", json!(false))],
        ),
        Row::new(Method::GET, "/v1/collections/alice", b"", 200, vec![("/data", json!([]))]),
        Row::new(Method::GET, "/v1/collections/None", b"", 404, vec![]),
        Row::new(Method::HEAD, blob.clone(), b"", 404, vec![]),
        Row::new(Method::POST, upload("alice/runs/FAQ4711", bytes, "private=False"), bytes, 201, vec![]),
        Row::new(Method::HEAD, blob, b"", 200, vec![]),
        Row::new(Method::POST, upload("alice/runs/FAQ4711", b"{}", "private=False"), b"{}", 201, vec![]),
        Row::new(Method::PUT, "/v2/alice/runs/FAQ4711/manifests/Raw", body.as_bytes(), 201, vec![]),
        Row::new(
            Method::GET,
            "/v1/collections/alice",
            b"",
            200,
            vec![
                ("/data/0/name", json!("runs")),
                ("/data/0/usedQuota", json!(22)),
                ("/data/0/size", json!(22)),
                ("/data/0/description", json!("")),
                ("/data/0/private", json!(false)),
                ("/data/0/entityName", json!("alice")),
                ("/data/1", Value::Null),
            ],
        ),
        Row::new(
            Method::GET,
            "/v1/containers/alice/runs",
            b"",
            200,
            vec![
                ("/data/0/name", json!("faq4711")),
                ("/data/0/usedQuota", json!(22)),
                ("/data/0/size", json!(22)),
                ("/data/0/archTags", json!({ "amd64": { "Raw": digest(body.as_bytes()) } })),
                ("/data/0/imageTags", json!({ "Raw": digest(body.as_bytes()) })),
                ("/data/0/entityName", json!("alice")),
                ("/data/0/collectionName", json!("runs")),
                ("/data/1", Value::Null),
            ],
        ),
        Row::new(Method::GET, "/v1/containers/alice/nothing", b"", 404, vec![]),
        Row::new(Method::GET, "/v1/containers/alice/runs/FAQ4711", b"", 200, vec![("/data/name", json!("faq4711"))]),
        Row::new(
            Method::GET,
            "/v2/tags/{id}",
            b"",
            200,
            vec![("/data", json!({ "amd64": { "Raw": digest(body.as_bytes()) } }))],
        ),
        Row::new(Method::GET, "/v1/tags/{id}", b"", 200, vec![("/data", json!({ "Raw": digest(body.as_bytes()) }))]),
        Row::new(Method::GET, "/v1/collections/alice/runs", b"", 200, vec![("/data/name", json!("runs"))]),
        Row::new(Method::GET, "/v1/containers/bob/runs", b"", 404, vec![]),
    ];
    let mut container = String::new();
    for Row { method, path, body, status, reads } in rows {
        let answer = ask(&alice, method.clone(), &path.replace("{id}", &container), body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", String::from_utf8_lossy(&answer.bytes));
        for (place, value) in &reads {
            let found = answer.json.pointer(place).unwrap_or(&Value::Null);
            assert_eq!(found, value, "{method} {path} {place}");
        }
        if method == Method::PUT || (method == Method::HEAD && status == 200) {
            let stated = answer.header("docker-content-digest").unwrap();
            assert_eq!(stated, if method == Method::PUT { digest(body) } else { digest(bytes) }, "{path}");
        }
        if status >= 400 && method != Method::HEAD {
            assert!(!shown(&answer).is_empty());
        }
        if let Some(Value::String(read)) = answer.json.pointer(id) {
            container.clone_from(read);
        }
        // Python before 3.11 reads no `Z`.
        dates(&answer.json);
    }
    // The bytes are kept as they came, as an OCI image manifest.
    let pulled = alice.get("/v2/alice/runs/faq4711/manifests/Raw").await;
    assert_eq!(pulled.header("content-type"), Some("application/vnd.oci.image.manifest.v1+json"));
    assert_eq!(String::from_utf8_lossy(&pulled.bytes), body);
    assert_eq!(server.quota("alice").await, (22, 0));
}

#[tokio::test]
async fn what_its_library_leaves_out_it_sends_as_null() {
    let (_server, alice) = start().await;
    let entity = text(&alice.get("/v1/entities/alice").await.ok(), "/data/id");
    let body = json!({
        "createdBy": null, "customData": null, "description": null, "entity": entity, "name": "Runs", "private": null,
    });
    let made = ask(&alice, Method::POST, "/v1/collections", body.to_string().as_bytes()).await.ok();
    assert_eq!((&made["data"]["name"], &made["data"]["private"]), (&json!("runs"), &json!(false)));
    dates(&made);
    let body = json!({
        "collection": made["data"]["id"], "createdBy": null, "customData": null, "description": null,
        "fullDescription": null, "name": "FAQ4711", "private": null, "readOnly": null, "vcsUrl": null,
    });
    let made = ask(&alice, Method::POST, "/v1/containers", body.to_string().as_bytes()).await.ok();
    assert_eq!((&made["data"]["private"], &made["data"]["readOnly"]), (&json!(false), &json!(false)));
    dates(&made);
    ask(&alice, Method::POST, "/v1/containers", br#"{"private":"no"}"#).await.error(400);
}

/// Checks that every date can be read by Python.
fn dates(json: &Value) {
    match json {
        Value::Array(items) => items.iter().for_each(dates),
        Value::Object(fields) => {
            for (name, value) in fields {
                assert!(
                    !name.ends_with("At") || value.is_null() || value.as_str().unwrap().ends_with("+00:00"),
                    "{json}"
                );
                dates(value);
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn a_login_gives_a_token_with_all_rights_for_a_day() {
    let (server, alice) = start().await;
    let answer = login(&server, "ALICE", PASSWORD).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let data = answer.ok()["data"].clone();
    assert_eq!(data["token"], data["generatedToken"]);
    for (place, value) in [
        ("/source", json!("auto")),
        ("/comment", json!("login")),
        ("/deleted", json!(false)),
        ("/user/username", json!("alice")),
        ("/user/isAdmin", json!(false)),
        ("/user/isActive", json!(true)),
    ] {
        assert_eq!(data.pointer(place), Some(&value), "{place}");
    }
    dates(&data);
    assert!(text(&data, "/id").starts_with(&text(&data, "/key_uid")));
    let who = server.nobody.with(&text(&data, "/token"));
    who.push("alice/tools/bb", "v1", "amd64", &sif(1)).await.ok();
    let rows = who.get("/api/users/alice/tokens").await.ok();
    let rows: Vec<&Value> = rows["data"].as_array().unwrap().iter().filter(|row| row["name"] == "login").collect();
    assert_eq!(rows.len(), 1);
    let now = server.local.app.now();
    for row in rows {
        let expires = text(row, "/expires");
        assert!(expires > now.to_string() && expires <= now.plus(std::time::Duration::from_hours(24)).to_string());
        assert_eq!(row["scope"], json!("pull,push,delete,manage,admin"));
    }
    // It is a token like any other: it makes none that lasts longer, and ends when it is revoked.
    alice.post("/api/users/alice/tokens", json!({ "name": "mine" })).await.error(403);
    alice.delete(&format!("/api/users/alice/tokens/{}", text(&data, "/id"))).await.ok();
    ask(&who, Method::GET, "/v1/token-status", b"").await.error(404);
    let next = login(&server, "alice", PASSWORD).await.ok();
    assert_ne!(next["data"]["token"], data["token"], "what was revoked is not given again");
    server.nobody.with(&text(&next, "/data/token")).get("/v1/token-status").await.ok();
    // An admin is told that they are one.
    password(&server, "admin").await;
    assert_eq!(login(&server, "admin", PASSWORD).await.ok()["data"]["user"]["isAdmin"], json!(true));
}

#[tokio::test]
async fn a_login_with_a_token_gives_that_token_back() {
    let (server, _) = start().await;
    let narrow = server.token("alice", json!({ "name": "narrow", "scope": "pull", "expires_in": 60 })).await;
    let secret = narrow.token.clone().unwrap();
    let before = server.admin.get("/api/users/alice/tokens").await.ok();
    let data = login(&server, "alice", &secret).await.ok()["data"].clone();
    assert_eq!(
        (&data["token"], &data["comment"], &data["source"]),
        (&json!(secret), &json!("narrow"), &json!("manual"))
    );
    assert_eq!(server.admin.get("/api/users/alice/tokens").await.ok(), before, "nothing was made");
    // It is nobody else's password, and a short-lived token is no password at all.
    login(&server, "bob", &secret).await.error(401);
    let short = narrow.get("/token").await.ok();
    login(&server, "alice", &text(&short, "/token")).await.error(401);
    server.admin.delete(&format!("/api/users/alice/tokens/{}", text(&data, "/id"))).await.ok();
    login(&server, "alice", &secret).await.error(401);
}

#[tokio::test]
async fn a_refused_login_says_so_and_counts_as_on_every_way_in() {
    let (server, alice) = start().await;
    server.user("bob", 0).await;
    for (name, secret) in
        [("alice", "wrong"), ("nobody", "wrong"), ("bob", ""), ("bob", "wrong"), ("", ""), ("v2", "x")]
    {
        let answer = login(&server, name, secret).await;
        assert_eq!(answer.json["status"], json!("error"));
        assert_eq!(answer.json["errors"][0]["code"], json!(401));
        assert_eq!(shown(&answer), "wrong name, password or token");
        assert_eq!(answer.error(401), "wrong name, password or token");
    }
    for body in ["", "{}", "[]", r#"{"username":"alice"}"#, r#"{"username":"alice","password":null}"#, "x"] {
        let sent = server.nobody.bare(Method::POST, "/v1/get-token").body(body.to_owned());
        let answer = send(sent).await;
        assert!(!shown(&answer).is_empty());
        answer.error(400);
    }
    let long = "x".repeat(17 << 10);
    login(&server, "alice", &long).await.error(413);
    // Nine more wrong passwords are too many, in whatever case the name is written, and then the right one is, too.
    for name in ["alice", "Alice", "ALICE"].into_iter().cycle().take(9) {
        login(&server, name, "wrong").await.error(401);
    }
    for name in ["alice", "Alice"] {
        let answer = login(&server, name, PASSWORD).await;
        assert!(answer.header("retry-after").is_some());
        answer.error(429);
    }
    alice.get("/v1/token-status").await.ok();
    server.admin.put("/api/users/alice/disabled", json!({ "disabled": true })).await.ok();
    alice.get("/v1/token-status").await.error(404);
}

#[tokio::test]
async fn the_tokens_of_logins_do_not_pile_up() {
    let (server, first) = start().await;
    let names = async || {
        let rows = server.admin.get("/api/users/alice/tokens").await.ok();
        let rows = rows["data"].as_array().unwrap().clone();
        let mut names: Vec<String> = rows.iter().map(|row| text(row, "/name")).collect();
        names.sort();
        names
    };
    // Many logins within an hour, one after the other or at once, get one token.
    for answer in futures::future::join_all((0..6).map(|_| login(&server, "alice", PASSWORD))).await {
        assert_eq!(text(&answer.ok(), "/data/token"), first.token.clone().unwrap());
    }
    assert_eq!(names().await, ["login", "test"]);
    // When the hour is over, there is another one, and the first stays good.
    let now = server.local.app.now();
    let row = |random: u8, created: i64, login: bool| Token {
        id: TokenId::from_random([random; 12]),
        actor: "alice".parse().unwrap(),
        name: "old".to_owned(),
        scope: TokenScope::full(),
        created: Time(created),
        expires: Some(Time(created + 86_400)),
        used: None,
        login,
    };
    let rows = server.admin.get("/api/users/alice/tokens").await.ok();
    let id = text(rows["data"].as_array().unwrap().iter().find(|row| row["name"] == "login").unwrap(), "/id");
    write(&server, &Token { id: id.parse().unwrap(), ..row(0, now.0 - 3601, true) }).await;
    let second = server.nobody.with(&text(&login(&server, "alice", PASSWORD).await.ok(), "/data/token"));
    assert_ne!(second.token, first.token);
    for who in [&first, &second] {
        who.get("/v1/token-status").await.ok();
    }
    // The row of one that has expired is used again; one of alice's own that has expired is left alone.
    server.admin.delete(&format!("/api/users/alice/tokens/{id}")).await.ok();
    write(&server, &row(1, now.0 - 90_000, true)).await;
    write(&server, &row(2, now.0 - 90_000, false)).await;
    let rows = server.admin.get("/api/users/alice/tokens").await.ok();
    let id = text(rows["data"].as_array().unwrap().iter().find(|row| row["name"] == "login").unwrap(), "/id");
    server.admin.delete(&format!("/api/users/alice/tokens/{id}")).await.ok();
    second.get("/v1/token-status").await.error(404);
    assert_eq!(names().await, ["old", "old", "test"]);
    let third = login(&server, "alice", PASSWORD).await.ok();
    assert_eq!(text(&third, "/data/id"), row(1, 0, true).id.to_string());
    assert_eq!(names().await.iter().filter(|name| *name == "old").count(), 1);
    server.nobody.with(&text(&third, "/data/token")).get("/v1/token-status").await.ok();
    for who in [&first, &second] {
        who.get("/v1/token-status").await.error(404);
    }
}

#[tokio::test]
async fn what_is_asked_to_be_private_is_private_or_refused() {
    let (server, alice) = start().await;
    let bob = server.user("bob", 0).await;
    let bytes = b"somebody's genome";
    let at = |repository: &str| format!("/v2/{repository}/blobs/{}", digest(bytes));
    for (repository, rest) in [
        ("alice/runs/one", "private=True"),
        ("alice/flat", "private=true&private=False"),
        ("alice/runs/x--y", "private=1"),
    ] {
        let pushed = push(&alice, repository, "v1", bytes, rest).await;
        assert_eq!(pushed.status, StatusCode::CREATED, "{repository}");
        assert_eq!(alice.get(&at(repository)).await.bytes, bytes);
        for other in [&bob, &server.nobody] {
            assert_eq!(other.get(&at(repository)).await.status, StatusCode::UNAUTHORIZED, "{repository}");
        }
    }
    assert_eq!(alice.get("/v1/containers/alice/runs/one").await.ok()["data"]["private"], json!(true));
    // It stays so, whatever a later push says; and one that is private already is no reason to refuse.
    for rest in ["private=False", "private=0", "", "private=True"] {
        let pushed = ask(&alice, Method::POST, &upload("alice/runs/one", rest.as_bytes(), rest), rest.as_bytes()).await;
        assert_eq!(pushed.status, StatusCode::CREATED, "{rest}");
        assert_eq!(bob.get(&at("alice/runs/one")).await.status, StatusCode::UNAUTHORIZED);
    }
    // In two requests, and with a mount.
    let opened = ask(&alice, Method::POST, "/v2/alice/runs/two/blobs/uploads/?private=True", b"").await;
    assert_eq!(opened.status, StatusCode::ACCEPTED);
    let url = format!("{}&digest={}", opened.header("location").unwrap(), digest(bytes));
    assert_eq!(ask(&alice, Method::PUT, &url, bytes).await.status, StatusCode::CREATED);
    let mount = format!("/v2/alice/runs/three/blobs/uploads/?mount={}&from=alice/runs/one&private=True", digest(bytes));
    assert_eq!(ask(&alice, Method::POST, &mount, b"").await.status, StatusCode::CREATED);
    for repository in ["alice/runs/two", "alice/runs/three"] {
        assert_eq!(bob.get(&at(repository)).await.status, StatusCode::UNAUTHORIZED, "{repository}");
    }
    // What is more open than asked for stays as it is, and gets no bytes.
    let open = b"for all who are logged in";
    push(&alice, "alice/runs/open", "v1", open, "private=False").await;
    let refused = push(&alice, "alice/runs/open", "v1", bytes, "private=True").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(shown(&refused).contains("not private"), "{}", shown(&refused));
    assert_eq!(alice.get(&at("alice/runs/open")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(bob.get(&format!("/v2/alice/runs/open/blobs/{}", digest(open))).await.bytes, open);
    set(&alice, "/v1/containers/alice/runs/open", json!({ "visibility": "private" })).await.ok();
    assert_eq!(push(&alice, "alice/runs/open", "v1", bytes, "private=True").await.status, StatusCode::CREATED);
    // Who may not push makes nothing.
    let theirs = push(&bob, "alice/runs/theirs", "v1", bytes, "private=True").await;
    assert_eq!(theirs.status, StatusCode::UNAUTHORIZED);
    assert!(!shown(&theirs).is_empty());
    alice.get("/v1/containers/alice/runs/theirs").await.error(404);
}

#[tokio::test]
async fn of_two_who_make_a_repository_at_once_the_one_who_wants_it_private_gets_that_or_is_refused() {
    let (server, alice) = start().await;
    let bob = server.user("bob", 0).await;
    let (mine, ours) = (b"for me alone", b"for all of us");
    let mut made = [0, 0];
    for number in 0..20 {
        let repository = format!("alice/runs/r{number}");
        let (private, open) = futures::join!(
            ask_at(&alice, upload(&repository, mine, "private=True"), mine),
            ask_at(&alice, upload(&repository, ours, "private=False"), ours)
        );
        assert_eq!(open.status, StatusCode::CREATED);
        let seen = bob.get(&format!("/v2/{repository}/blobs/{}", digest(mine))).await;
        let hidden = alice.get(&format!("/v1/containers/{repository}")).await.ok()["data"]["private"].clone();
        match private.status {
            StatusCode::CREATED => assert_eq!((seen.status, hidden), (StatusCode::UNAUTHORIZED, json!(true))),
            StatusCode::FORBIDDEN => {
                assert_eq!(hidden, json!(false));
                let none = alice.get(&format!("/v2/{repository}/blobs/{}", digest(mine))).await;
                assert_eq!(none.status, StatusCode::NOT_FOUND);
            }
            other => panic!("{other}"),
        }
        made[usize::from(private.status == StatusCode::CREATED)] += 1;
    }
    assert_eq!(made[0] + made[1], 20, "{made:?}");
    server.sweep_all().await;
}

async fn ask_at(who: &Caller, path: String, bytes: &[u8]) -> Answer {
    ask(who, Method::POST, &path, bytes).await
}

#[tokio::test]
async fn what_can_not_be_kept_is_refused_by_name() {
    let (_server, alice) = start().await;
    let bytes = b"for two weeks";
    for (rest, named) in [
        ("private=False&expiresAt=2026-12-05T14%3A50%3A25.87", "expiresAt"),
        ("private=False&staged=1", "staged"),
        ("private=maybe", "private"),
        ("private", "private"),
        ("Private=True", "Private"),
        ("isPrivate=True", "isPrivate"),
        ("private=True&readOnly=True", "readOnly"),
    ] {
        let refused = push(&alice, "alice/runs/new", "v1", bytes, rest).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{rest}");
        assert!(shown(&refused).contains(&format!("`{named}`")), "{rest}: {}", shown(&refused));
    }
    for (method, path) in [
        (Method::PUT, "/v2/alice/runs/new/manifests/v1?private=True"),
        (Method::POST, "/v2/alice/runs/new/blobs/uploads/0123?private=True"),
        (Method::DELETE, "/v2/alice/runs/new/manifests/v1?private=True"),
    ] {
        assert!(shown(&ask(&alice, method, path, b"{}").await).contains("`private`"), "{path}");
    }
    alice.get("/v1/containers/alice/runs/new").await.error(404);
    alice.get("/v1/collections/alice/runs").await.error(404);
}

#[tokio::test]
async fn a_manifest_without_a_type_is_taken_only_if_it_can_be_one_thing_alone() {
    let (_server, alice) = start().await;
    let bytes = b"file";
    push(&alice, "alice/runs/one", "v1", bytes, "private=False").await;
    let body = manifest("file", bytes);
    let put = async |tag: &str, body: &str| {
        ask(&alice, Method::PUT, &format!("/v2/alice/runs/one/manifests/{tag}"), body.as_bytes()).await
    };
    // Also under its digest.
    assert_eq!(put(&digest(body.as_bytes()), &body).await.status, StatusCode::CREATED);
    for wrong in [
        "{}".to_owned(),
        r#"{"manifests":[]}"#.to_owned(),
        body.replacen('{', r#"{"manifests":[],"#, 1),
        body.replacen("\"config\"", "\"Config\"", 1),
        body.replacen('{', r#"{"mediaType":"application/vnd.oci.image.index.v1+json","#, 1),
    ] {
        let refused = put("v2", &wrong).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert_eq!(refused.json["errors"][0]["code"], json!("MANIFEST_INVALID"));
        assert!(!shown(&refused).is_empty());
    }
    // One that names what is not there is refused as with a type.
    let missing = put("v2", &manifest("file", b"never pushed")).await;
    assert_eq!(
        (missing.status, &missing.json["errors"][0]["code"]),
        (StatusCode::NOT_FOUND, &json!("MANIFEST_BLOB_UNKNOWN"))
    );
    assert_eq!(alice.get("/v2/alice/runs/one/tags/list").await.json["tags"], json!(["v1"]));
}

#[tokio::test]
async fn an_error_has_its_details_for_those_alone_who_read_nothing_else() {
    let (server, alice) = start().await;
    for path in ["/v2/alice/none/manifests/x", "/v2/alice/-x/manifests/x", "/v2/nothing", "/v2/bob/x/tags/list"] {
        let told = ask(&alice, Method::GET, path, b"").await;
        assert_eq!(told.json["errors"][0]["detail"], told.json["errors"][0]["message"], "{path}");
        let other = alice.get(path).await;
        assert_eq!((other.status, other.json["errors"][0].get("detail")), (told.status, None), "{path}");
        assert_eq!(other.header("www-authenticate"), told.header("www-authenticate"));
    }
    let mut paths = vec!["/v1/images/alice/none/x:v1", "/v1/containers?entity=-"];
    if !only_in_one_process("no function has a route for this path, and the gateway answers in its own form") {
        paths.push("/v1/nothing");
    }
    for path in paths {
        let told = server.nobody.get(path).await;
        assert_eq!(told.json["message"], told.json["error"]["message"], "{path}");
    }
}

#[tokio::test]
async fn one_path_means_a_list_to_one_client_and_an_object_to_another() {
    let settings = [("STACKROOM_DEFAULT_ENTITY", "lab")];
    let server = Server::start_with(&settings).await;
    let (lab, alice, bob) = (server.user("lab", 0).await, server.user("alice", 0).await, server.user("bob", 0).await);
    lab.push("lab/alice/tools", "v1", "amd64", &sif(1)).await.ok();
    alice.push("alice/tools/one", "v1", "amd64", &sif(2)).await.ok();
    alice.push("alice/tools/two", "v1", "amd64", &sif(2)).await.ok();
    let size = sif(2).len();
    // An entity of the caller's, and its collection, are listed; bytes in two containers count once in their collection.
    let listed = alice.get("/v1/collections/Alice").await.ok();
    assert_eq!((listed["data"][0]["name"].as_str(), &listed["data"][0]["usedQuota"]), (Some("tools"), &json!(size)));
    let listed = alice.get("/v1/containers/alice/tools").await.ok();
    let names: Vec<&str> = listed["data"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(
        (&listed["data"][1]["size"], &listed["data"][1]["archTags"]["amd64"]["v1"]),
        (&json!(size), &listed["data"][1]["imageTags"]["v1"])
    );
    // To others the same paths are short names: what is not theirs is not there.
    for who in [&lab, &server.admin] {
        let whose = if who.token == lab.token { "collection" } else { "list" };
        let got = who.get("/v1/collections/alice").await.ok();
        assert_eq!(got["data"].is_array(), whose == "list", "{got}");
        let got = who.get("/v1/containers/alice/tools").await.ok();
        assert_eq!(got["data"].is_array(), whose == "list", "{got}");
    }
    bob.get("/v1/collections/alice").await.error(404);
    assert_eq!(bob.get("/v1/containers/alice/tools").await.ok()["data"]["entityName"], json!("lab"), "it is public");
    // The oldest clients leave the entity's name empty, and always mean the default one.
    assert_eq!(server.admin.get("/v1/collections//alice").await.ok()["data"]["entityName"], json!("lab"));
    assert_eq!(server.admin.get("/v1/containers//alice/tools").await.ok()["data"]["entityName"], json!("lab"));
    alice.get("/v1/collections//alice").await.error(404);
    alice.get("/v1/collections//tools").await.error(404);
    // A token that may not browse lists nothing.
    let pushing = server.token("alice", json!({ "name": "p", "scope": "push" })).await;
    pushing.get("/v1/collections/alice").await.error(404);
}
