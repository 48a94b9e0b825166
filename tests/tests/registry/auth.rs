//! Logging in: the challenge, and the ways to a short-lived token.

use crate::library::text;
use crate::support::{BB, basic, blob_at, is, manifest_at, narrowed, nothing, open, patch, push, refused};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};
use stackroom_tests::{Answer, Caller, Server, send};

const PASSWORD: &str = "correct horse: battery staple";

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    server.admin.put("/api/users/alice/password", json!({ "password": PASSWORD })).await.ok();
    (server, alice)
}

/// The parameters of the Bearer challenge of an answer.
#[track_caller]
fn challenge(answer: &Answer) -> Vec<(String, String)> {
    is(answer, 401);
    let header = answer.header("www-authenticate").unwrap().strip_prefix("Bearer ").unwrap();
    let mut parameters = Vec::new();
    let mut rest = header;
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap();
        let (value, more) = value.split_once('"').unwrap();
        parameters.push((name.to_owned(), value.to_owned()));
        rest = more.strip_prefix(',').unwrap_or(more);
    }
    parameters
}

fn parameter(parameters: &[(String, String)], name: &str) -> Option<String> {
    parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

/// Asks for a token with a form.
async fn form(server: &Server, body: &str) -> Answer {
    let request = server.nobody.request(Method::POST, "/token");
    send(request.header("content-type", "application/x-www-form-urlencoded").body(body.to_owned())).await
}

/// Text as a form has it.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat()
}

/// Whoever was given the token of an answer, whose form is checked.
#[track_caller]
fn holder(server: &Server, answer: &Answer) -> Caller {
    is(answer, 200);
    let token = text(&answer.json, "/token");
    assert_eq!(answer.json["access_token"], json!(token));
    assert!(answer.json["expires_in"].as_u64().unwrap() <= 300);
    assert!(text(&answer.json, "/issued_at").ends_with('Z'));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    server.nobody.with(&token)
}

#[tokio::test]
async fn who_shows_nothing_is_told_where_to_log_in() {
    let (server, alice) = start().await;
    let host = server.url.strip_prefix("http://").unwrap();
    for (path, scope) in [
        ("/v2/".to_owned(), None),
        ("/v2".to_owned(), None),
        ("/v2/_catalog".to_owned(), Some("registry:catalog:*".to_owned())),
        (manifest_at(BB, "latest"), Some(format!("repository:{BB}:pull"))),
        (blob_at(BB, &nothing()), Some(format!("repository:{BB}:pull"))),
        (format!("/v2/{BB}/tags/list"), Some(format!("repository:{BB}:pull"))),
        (format!("/v2/{BB}/referrers/{}", nothing()), Some(format!("repository:{BB}:pull"))),
    ] {
        let answer = server.nobody.get(&path).await;
        refused(&answer, 401, "UNAUTHORIZED");
        let told = challenge(&answer);
        assert_eq!(parameter(&told, "realm").unwrap(), format!("{}/token", server.url), "{path}");
        assert_eq!(parameter(&told, "service").as_deref(), Some(host), "{path}");
        assert_eq!(parameter(&told, "scope"), scope, "{path}");
        assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
    }
    for (method, path) in [
        (Method::POST, format!("/v2/{BB}/blobs/uploads/")),
        (Method::PUT, manifest_at(BB, "latest")),
        (Method::DELETE, manifest_at(BB, "latest")),
        (Method::DELETE, blob_at(BB, &nothing())),
    ] {
        let body = "{}".to_owned();
        let request = server.nobody.request(method, &path).header("content-type", "application/json").body(body);
        let told = challenge(&send(request).await);
        assert!(parameter(&told, "scope").unwrap().starts_with(&format!("repository:{BB}:")), "{path}");
    }
    let known = alice.get("/v2/").await;
    is(&known, 200);
    assert_eq!(known.header("docker-distribution-api-version"), Some("registry/2.0"));
    // X-Forwarded-Host is whatever somebody wrote (hazard: proxy trust).
    let forwarded = server.nobody.request(Method::GET, "/v2/").header("x-forwarded-host", "evil.example");
    let told = challenge(&send(forwarded.header("host", "evil.example")).await);
    assert_eq!(parameter(&told, "realm").unwrap(), format!("{}/token", server.url));
}

#[tokio::test]
async fn a_token_is_given_for_a_password_or_an_api_token_in_every_way_that_clients_know() {
    let (server, alice) = start().await;
    push(&alice, BB, "latest", b"config", &[]).await;
    let token = alice.token.clone().unwrap();
    let scope = format!("repository:{BB}:pull,push");
    let path = format!("/token?account=alice&service=x&client_id=docker&offline_token=true&scope={scope}");
    let mut ways = Vec::new();
    let pairs = [("alice", PASSWORD), ("alice", &*token), ("", &*token), ("<token>", &*token), ("token", &*token)];
    for (name, secret) in pairs {
        ways.push(send(basic(&server.nobody, Method::GET, &path, name, secret)).await);
        let (name, secret) = (encoded(name), encoded(secret));
        let body = format!("grant_type=password&service=x&scope={scope}&username={name}&password={secret}");
        ways.push(form(&server, &body).await);
    }
    let body = format!("grant_type=refresh_token&service=x&scope={scope}&refresh_token={}", encoded(&token));
    ways.push(form(&server, &body).await);
    ways.push(alice.get(&path).await);
    for way in &ways {
        let holder = holder(&server, way);
        is(&holder.get("/v2/").await, 200);
        is(&holder.get(&manifest_at(BB, "latest")).await, 200);
        push(&holder, BB, "other", b"other", &[]).await;
    }
}

#[tokio::test]
async fn who_shows_nothing_gets_nobodys_token_which_reads_what_is_public() {
    let (server, alice) = start().await;
    push(&alice, "alice/tools/internal", "latest", b"config", &[]).await;
    push(&alice, BB, "latest", b"config", &[]).await;
    crate::library::set(&alice, &format!("/v1/containers/{BB}"), json!({ "visibility": "public" })).await.ok();
    let path = format!("/token?service=x&scope=repository:{BB}:pull");
    let nothing = server.nobody.get(&path).await;
    // What podman sends who has no password: `Basic Og==`.
    let empty = send(basic(&server.nobody, Method::GET, &path, "", "")).await;
    for answer in [&nothing, &empty] {
        let nobody = holder(&server, answer);
        is(&nobody.get("/v2/").await, 200);
        is(&nobody.get(&manifest_at(BB, "latest")).await, 200);
        refused(&nobody.get(&manifest_at("alice/tools/internal", "latest")).await, 401, "UNAUTHORIZED");
        challenge(&nobody.post(&format!("/v2/{BB}/blobs/uploads/"), Value::Null).await);
        challenge(&nobody.get("/v2/_catalog").await);
    }
    // Also without any token at all.
    is(&server.nobody.get(&manifest_at(BB, "latest")).await, 200);
}

#[tokio::test]
async fn what_is_no_password_and_no_token_is_401_everywhere() {
    let (server, alice) = start().await;
    let bob = server.user("bob", 0).await;
    let stranger = bob.token.clone().unwrap();
    let good = alice.token.clone().unwrap();
    let short = narrowed(&alice, "alice", &["repository:alice/tools/bb:pull"]).await.token.unwrap();
    for (name, secret) in [
        ("alice", "wrong"),
        ("alice", ""),
        ("nobody-of-that-name", "wrong"),
        ("", "wrong"),
        ("ALICE", PASSWORD),
        ("bob", PASSWORD),
        ("bob", ""),
        ("alice", &*stranger),
        ("bob", &*good),
        ("alice", &format!("{good}x")),
        ("alice", &*short),
        ("", &*short),
    ] {
        challenge(&send(basic(&server.nobody, Method::GET, "/token", name, secret)).await);
        let (one, two) = (encoded(name), encoded(secret));
        let granted = form(&server, &format!("grant_type=password&username={one}&password={two}")).await;
        refused(&granted, 401, "UNAUTHORIZED");
        refused(&send(basic(&server.nobody, Method::GET, "/v2/", name, secret)).await, 401, "UNAUTHORIZED");
    }
    for secret in ["wrong", &*short] {
        let body = format!("grant_type=refresh_token&refresh_token={}", encoded(secret));
        refused(&form(&server, &body).await, 401, "UNAUTHORIZED");
    }
    assert!(form(&server, "grant_type=authorization_code&code=x").await.status.is_client_error());
    for header in ["Basic", "Basic !", "Basic YWxpY2U=", "Digest x", "Bearer x", "Negotiate"] {
        for path in ["/v2/", "/token", "/v2/alice/tools/bb/tags/list"] {
            let answer = send(server.nobody.bare(Method::GET, path).header("authorization", header)).await;
            refused(&answer, 401, "UNAUTHORIZED");
            challenge(&answer);
        }
    }
}

#[tokio::test]
async fn hazard_jwt_algorithm_confusion() {
    let (_server, alice) = start().await;
    let token = alice.token.clone().unwrap();
    let [head, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).unwrap()).unwrap();
    let kid = text(&header, "/kid");
    let admin = URL_SAFE_NO_PAD.encode(json!({ "sub": "admin", "iat": 0, "acc": ["pull"] }).to_string());
    for (header, claims, signature) in [
        (json!({ "alg": "none", "kid": kid }), claims, ""),
        (json!({ "alg": "none", "kid": kid }), &*admin, ""),
        (json!({ "alg": "HS512", "kid": kid }), claims, signature),
        (json!({ "alg": "RS256", "kid": kid }), claims, signature),
        (json!({ "alg": "HS256", "kid": "../../dev/null" }), claims, signature),
        (json!({ "alg": "HS256", "kid": "" }), claims, signature),
        (json!({ "alg": "HS256" }), claims, signature),
        (json!({ "alg": "HS256", "kid": kid, "jwk": { "kty": "oct", "k": "AAAA" } }), &*admin, signature),
        (header, &*admin, signature),
    ] {
        let forged = format!("{}.{claims}.{signature}", URL_SAFE_NO_PAD.encode(header.to_string()));
        refused(&alice.with(&forged).get("/v2/").await, 401, "UNAUTHORIZED");
        refused(&send(basic(&alice, Method::GET, "/token", "admin", &forged)).await, 401, "UNAUTHORIZED");
    }
    assert_eq!(STANDARD.encode(":"), "Og==");
}

#[tokio::test]
async fn basic_works_on_the_registry_itself() {
    let (server, alice) = start().await;
    push(&alice, BB, "latest", b"config", &[]).await;
    let token = alice.token.clone().unwrap();
    for secret in [PASSWORD, &*token] {
        let ask = async |method, path: &str| send(basic(&server.nobody, method, path, "alice", secret)).await;
        is(&ask(Method::GET, "/v2/").await, 200);
        is(&ask(Method::GET, &manifest_at(BB, "latest")).await, 200);
        is(&ask(Method::GET, "/v2/_catalog").await, 200);
        let opened = ask(Method::POST, &format!("/v2/{BB}/blobs/uploads/")).await;
        is(&opened, 202);
        is(&ask(Method::DELETE, opened.header("location").unwrap()).await, 204);
    }
}

#[tokio::test]
async fn a_revoked_api_token_and_a_disabled_user_end_their_short_lived_tokens_at_once() {
    let (server, alice) = start().await;
    push(&alice, BB, "latest", b"config", &[]).await;
    let scopes = [&*format!("repository:{BB}:pull,push,delete")];
    let made = server.admin.post("/api/users/alice/tokens", json!({ "name": "ci" })).await.ok();
    let robot = narrowed(&alice.with(&text(&made, "/data/token")), "alice", &scopes).await;
    let other = narrowed(&alice, "alice", &scopes).await;
    let path = format!("/token?scope=repository:{BB}:pull");
    let by_password = holder(&server, &send(basic(&server.nobody, Method::GET, &path, "alice", PASSWORD)).await);
    let listed = server.admin.get("/api/users/alice/tokens").await.ok();
    let ci = listed["data"].as_array().unwrap().iter().find(|token| token["name"] == "ci").unwrap().clone();

    is(&robot.get(&manifest_at(BB, "latest")).await, 200);
    let url = open(&robot, BB).await;
    server.admin.delete(&format!("/api/users/alice/tokens/{}", ci["id"].as_str().unwrap())).await.ok();
    let works = async |who: &Caller| {
        let get = who.get(&manifest_at(BB, "latest")).await;
        if get.status == 401 {
            refused(&who.get("/v2/").await, 401, "UNAUTHORIZED");
            refused(&who.post(&format!("/v2/{BB}/blobs/uploads/"), Value::Null).await, 401, "UNAUTHORIZED");
            refused(&who.delete(&manifest_at(BB, "latest")).await, 401, "UNAUTHORIZED");
        }
        get.status == 200
    };
    assert!(!works(&robot).await && works(&other).await && works(&by_password).await);
    refused(&patch(&server.nobody, &url, b"bytes").await, 403, "DENIED");

    server.admin.put("/api/users/alice/disabled", json!({ "disabled": true })).await.ok();
    assert!(!works(&other).await && !works(&by_password).await);
    for secret in [PASSWORD, alice.token.as_deref().unwrap()] {
        challenge(&send(basic(&server.nobody, Method::GET, "/token", "alice", secret)).await);
        challenge(&send(basic(&server.nobody, Method::GET, "/v2/", "alice", secret)).await);
    }
    server.admin.put("/api/users/alice/disabled", json!({ "disabled": false })).await.ok();
    assert!(works(&other).await);
}
