//! Hazards whose tests need a process to themselves: one reads the log of the whole process, one takes every turn at
//! hashing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs, reason = "a failed test panics")]

#[path = "library/support.rs"]
#[expect(dead_code, reason = "the library's tests use the rest")]
mod library;
#[path = "registry/support.rs"]
#[expect(dead_code, reason = "the registry's tests use the rest")]
mod support;

use futures::future::join_all;
use library::{shout, sif, text};
use reqwest::Method;
use serde_json::json;
use stackroom_tests::{Answer, Caller, Server, send};
use std::io::Write;
use std::sync::Mutex;
use support::{BB, basic, blob_at, close, digest, fetch, form, narrowed, on_functions, open, patch, push, refused};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Everything that was logged.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// Held by the running test.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Sink;

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The path of a URL, without the parts that may be secret.
fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| &rest[rest.find('/').unwrap()..]);
    rest.split('?').next().unwrap()
}

/// The secret part of a URL.
fn query(url: &str) -> String {
    url.split_once('?').unwrap().1.to_owned()
}

/// A share: used, looked at, guessed, and copied wrongly. Returns what of it is secret, and the path in the log.
async fn share(server: &Server, alice: &Caller, reference: &str, image: &[u8]) -> (Vec<String>, String) {
    let made = alice.post("/api/shares", json!({ "image": reference })).await.ok();
    let (id, url) = (text(&made, "/data/id"), text(&made, "/data/url"));
    let key = url.split('/').nth_back(1).unwrap().to_owned();
    let file = url.rsplit('/').next().unwrap().to_owned();
    let secret = key.split_once('.').unwrap().1.to_owned();
    let used = send(server.nobody.bare(Method::GET, &url)).await;
    let bytes = used.header("location").unwrap().to_owned();
    assert_eq!(send(server.nobody.bare(Method::GET, &bytes)).await.bytes, image);
    for odd in [format!("/dl//{key}/{file}"), format!("/dl/{id}%2e{secret}/{file}")] {
        assert_eq!(send(server.nobody.bare(Method::GET, &odd)).await.status, 303, "{odd}");
    }
    for method in [Method::HEAD, Method::POST, Method::PUT] {
        send(server.nobody.bare(method, &url)).await;
    }
    for wrong in [
        format!("/dl/{key}"),
        format!("/dl/{key}/other"),
        format!("/dl/{secret}/{file}"),
        format!("/DL/{key}/{file}"),
        format!("/alice/dl/{key}/{file}"),
        format!("/v1/images/{key}/{file}"),
        format!("/dl/x?key={key}"),
        format!("/dl/0123456789abcdef01234567.{secret}/{file}"),
    ] {
        assert_eq!(send(server.nobody.bare(Method::GET, &wrong)).await.status, 404, "{wrong}");
    }
    (vec![query(&bytes), secret], format!("/dl/{id}.…/{file}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_presigned_url_leakage() {
    let _alone = ALONE.lock().await;
    // Logs as the command does, except for the greeting at the start.
    let filter: Targets = shared::telemetry::FILTER.parse().unwrap();
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(|| Sink);
    log.json().flatten_event(true).finish().with(filter).init();
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let password = "correct-horse-battery-staple";
    server.admin.put("/api/users/alice/password", json!({ "password": password })).await.ok();
    let mut secrets = vec![password.to_owned(), alice.token.clone().unwrap(), server.admin.token.clone().unwrap()];
    let mut paths = Vec::new();
    let functions = on_functions(&server, &alice).await;
    // The library: a push, a pull, and a pull by a client that writes `BEARER` in capitals.
    let (image, reference) = (sif(1), "alice/tools/hello:1.0");
    alice.push("alice/tools/hello", "1.0", "amd64", &image).await.ok();
    let place = format!("/v1/imagefile/{reference}");
    let pulled = alice.get(&place).await;
    let url = pulled.header("location").unwrap().to_owned();
    assert_eq!(send(alice.bare(Method::GET, &url)).await.bytes, image);
    secrets.push(query(&url));
    let hop = send(shout(&alice, Method::GET, &place)).await.header("location").unwrap().to_owned();
    assert_eq!(path(&hop), "/v1/hop");
    let beyond = send(alice.bare(Method::GET, &hop)).await.header("location").unwrap().to_owned();
    secrets.extend([query(&hop), query(&hop)["to=".len()..].to_owned(), query(&beyond)]);
    paths.extend([place, "/v1/hop".to_owned()]);
    let (hidden, logged) = share(&server, &alice, reference, &image).await;
    secrets.extend(hidden);
    paths.push(logged);
    // The registry: where the bytes are served, and where they are redirected to.
    for who in [&alice, &functions] {
        push(who, BB, "latest", b"config", &[b"layer"]).await;
        let uploads = open(who, BB).await;
        patch(who, &uploads, b"some bytes").await;
        // A URL that leads nowhere is logged like any other.
        for wrong in [uploads.replace("_s=", "_s=x"), uploads.replace("alice/tools", "alice/other")] {
            refused(&patch(who, &wrong, b"some").await, 404, "BLOB_UPLOAD_UNKNOWN");
            refused(&close(who, &wrong, &digest(b"some bytes"), b"").await, 404, "BLOB_UPLOAD_UNKNOWN");
        }
        refused(&close(who, &uploads, &digest(b"other bytes"), b"").await, 400, "DIGEST_INVALID");
        secrets.extend([query(&uploads), query(&uploads)["_s=".len()..].to_owned()]);
        assert_eq!(fetch(who, BB, &digest(b"layer")).await.bytes, b"layer");
        paths.extend([path(&uploads).to_owned(), blob_at(BB, &digest(b"layer"))]);
        if let Some(url) = who.get(&blob_at(BB, &digest(b"layer"))).await.header("location") {
            secrets.push(query(url));
        }
    }
    // Logging in, each way, right and wrong; and secrets in places where they don't belong.
    let short = narrowed(&alice, "alice", &[&format!("repository:{BB}:pull")]).await;
    secrets.push(short.token.clone().unwrap());
    let ways: [Answer; 5] = [
        send(basic(&alice, Method::GET, "/token?service=x", "alice", password)).await,
        send(basic(&alice, Method::GET, "/v2/", "alice", password)).await,
        send(basic(&alice, Method::GET, "/v2/", "alice", "guessed-by-somebody")).await,
        form(&server, &format!("grant_type=password&username=alice&password={password}")).await,
        alice.get(&format!("/token?account=alice&password={password}&access_token={}", secrets[1])).await,
    ];
    for way in ways {
        secrets.extend(way.json["token"].as_str().map(str::to_owned));
    }
    secrets.push("guessed-by-somebody".to_owned());
    alice.get(&format!("/v1/images/{reference}?token={password}")).await.ok();
    server.nobody.get(&format!("/v1/nowhere?access_token={}", secrets[1])).await.error(404);
    let made = alice.post("/api/users/alice/tokens", json!({ "name": "more" })).await.ok();
    secrets.push(text(&made, "/data/token"));
    paths.extend(["/token".to_owned(), "/v2/".to_owned(), format!("/v1/images/{reference}")]);
    // A presigned URL is for one method and one object.
    let other = server.objects().await.into_iter().find(|name| !url.contains(name.as_str())).unwrap();
    let name = path(&url).strip_prefix("/objects/").unwrap();
    for (method, url) in [
        (Method::PUT, url.clone()),
        (Method::DELETE, url.clone()),
        (Method::POST, url.clone()),
        (Method::GET, url.replace(name, &other)),
        (Method::GET, format!("{}/objects/{name}", server.url)),
        (Method::GET, url.replace("X-Amz-Expires=", "X-Amz-Expires=1")),
    ] {
        let answer =
            send(alice.bare(method.clone(), &url).body(if method == Method::GET { "" } else { "other" })).await;
        assert_eq!(answer.status, 403, "{method} {url}: {}", String::from_utf8_lossy(&answer.bytes));
    }
    assert_eq!(alice.pull(reference).await.bytes, image);

    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    assert!(log.lines().count() > 40, "{log}");
    for path in paths {
        assert!(log.contains(&format!("\"{path}\"")), "{path} is not logged");
    }
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        assert!(secret.len() > 15 && !log.contains(secret), "{secret} is logged");
        // Nor a long part of it.
        let tail = &secret[secret.len() - 15..];
        assert!(!log.contains(tail), "{tail} is logged");
    }
    let lower = log.to_lowercase();
    for word in [
        "x-amz-signature",
        "x-amz-credential",
        "_s=",
        "to=",
        "token=",
        "password=",
        "authorization",
        "bearer ",
        "basic ",
    ] {
        let line = lower.lines().find(|line| line.contains(word));
        assert!(line.is_none(), "{word} is in {line:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_brute_force_who_may_not_set_a_password_makes_nobody_hash_one() {
    let _alone = ALONE.lock().await;
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    let narrow = server.token("alice", json!({ "name": "narrow", "scope": "pull,push,delete" })).await;
    let short = narrowed(&alice, "alice", &["repository:alice/tools/bb:pull"]).await;
    let flood = async |who: &Caller, name: &str, times: usize| {
        let body = json!({ "password": "x".repeat(1000) });
        let path = format!("/api/users/{name}/password");
        let answers = join_all((0..times).map(|_| who.put(&path, body.clone()))).await;
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        statuses.sort_unstable();
        statuses.dedup();
        statuses
    };
    // More than may wait for a turn: if any of them did wait, some would be refused, and it would take seconds.
    for (who, name, status) in [
        (&server.nobody, "alice", 401),
        (&bob, "alice", 403),
        (&bob, "nobody", 403),
        (&narrow, "alice", 403),
        (&short, "alice", 403),
        (&server.admin, "nobody", 404),
    ] {
        assert_eq!(flood(who, name, 200).await, [status], "{name}");
    }
    // A caller who may set one takes turns with those who log in, and is told when to come back.
    let statuses = flood(&alice, "alice", 120).await;
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    alice.put("/api/users/alice/password", json!({ "password": "correct horse" })).await.ok();
    assert_eq!(send(basic(&alice, Method::GET, "/v2/", "alice", "correct horse")).await.status, 200);
}
