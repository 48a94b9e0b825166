//! Logging in: the challenge, and the ways to a short-lived token.

use crate::library::text;
use crate::support::{
    BB, basic, blob_at, form, is, keys_of, manifest_at, narrowed, nothing, open, patch, push, refused,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};
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

/// Text in the encoding of a form.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat()
}

/// The caller who holds the token of an answer. Also checks the answer's form.
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
    // Anybody can write X-Forwarded-Host (hazard: proxy trust).
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
    let pairs = [
        ("alice", PASSWORD),
        ("ALICE", PASSWORD),
        ("alice", &*token),
        ("Alice", &*token),
        ("", &*token),
        ("<token>", &*token),
        ("token", &*token),
    ];
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
    // What podman sends without a password: `Basic Og==`.
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
        ("\u{c1}lice", PASSWORD),
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

/// Signs a text with a secret, by any of the algorithms that a token may name.
fn signed(alg: &str, secret: &[u8], text: &str) -> String {
    macro_rules! mac {
        ($hash:ty) => {{
            let mut mac = Hmac::<$hash>::new_from_slice(secret).unwrap();
            mac.update(text.as_bytes());
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
        }};
    }
    match alg {
        "HS384" => mac!(Sha384),
        "HS512" => mac!(Sha512),
        "none" => String::new(),
        _ => mac!(Sha256),
    }
}

/// A token with this header and these claims, correctly signed with a secret.
fn jwt(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = signed(header["alg"].as_str().unwrap(), secret, &text);
    format!("{text}.{signature}")
}

#[tokio::test]
async fn hazard_jwt_algorithm_confusion() {
    let (server, alice) = start().await;
    let token = alice.token.clone().unwrap();
    let keys = keys_of(&server);
    let (kid, digits) = keys.trim().split_once(':').unwrap();
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let secret: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let [_, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let claims_of = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let honest = claims_of(claims);
    let short = narrowed(&alice, "alice", &["repository:alice/tools/bb:pull"]).await.token.unwrap();
    let given = claims_of(short.split('.').nth(1).unwrap());
    let but = |claims: &Value, name: &str, value: Value| {
        let mut claims = claims.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name).unwrap();
        } else {
            claims[name] = value;
        }
        claims
    };
    let header = |alg: &str| json!({ "typ": "JWT", "alg": alg, "kid": kid });
    let good = header("HS256");
    let works = async |token: &str| alice.with(token).get("/v2/").await.status == 200;
    // The signer of this test is correct: honest claims are accepted, whatever else the header or the claims contain.
    let now = server.local.app.now().0;
    for honest in [&honest, &given, &but(&honest, "exp", json!(now + 60)), &but(&honest, "more", json!(1))] {
        assert!(works(&jwt(&good, honest, &secret)).await, "{honest}");
    }
    let with = |name: &str, value: Value| but(&good, name, value);
    let own = b"the key that I brought along";
    let jwk = json!({ "kty": "oct", "alg": "HS256", "kid": kid, "k": URL_SAFE_NO_PAD.encode(own) });
    let mut forged: Vec<(String, String)> = Vec::new();
    for claims in [&honest, &given, &but(&honest, "sub", json!("admin"))] {
        let mut add = |why: &str, header: &Value, secret: &[u8]| {
            forged.push((format!("{why}: {header} {claims}"), jwt(header, claims, secret)));
        };
        for alg in ["HS384", "HS512", "none", "None", "nOnE", "hs256", "RS256", "ES256", "PS256", "EdDSA", ""] {
            add("the right secret under another algorithm", &header(alg), &secret);
        }
        add("a key that is brought along", &with("jwk", jwk.clone()), own);
        add("a key that is to be fetched", &with("jku", json!(format!("{}/keys", server.url))), own);
        add("a certificate that is to be fetched", &with("x5u", json!(format!("{}/keys", server.url))), own);
        add("a certificate that is brought along", &with("x5c", json!([STANDARD.encode(own)])), own);
        add("an empty key", &good, b"");
        add("a key of zeros", &good, &[0; 32]);
        add("the key's name as key", &good, kid.as_bytes());
        add("the key's digits as key", &good, digits.as_bytes());
        add("the whole line as key", &good, keys.trim().as_bytes());
        for other in ["", "../keys", "../../../../dev/null", "/dev/null", "0", "' OR 1=1", &format!("{kid}\0")] {
            for key in [&b""[..], own] {
                add("another key's name", &with("kid", json!(other)), key);
            }
            add("the right secret under another name", &with("kid", json!(other)), &secret);
        }
        add("no key's name", &but(&good, "kid", Value::Null), &secret);
    }
    let unsigned = |header: &Value, claims: &Value, rest: &str| {
        let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        format!("{text}{rest}")
    };
    let admin = but(&honest, "sub", json!("admin"));
    for rest in [".", "", &format!(".{signature}"), ".AAAA", &format!(".{signature}.{signature}")] {
        forged.push((format!("an unsigned admin {rest}"), unsigned(&good, &admin, rest)));
        forged.push((format!("none {rest}"), unsigned(&header("none"), &honest, rest)));
    }
    // Correctly signed, and still invalid: claims that have expired, or are inconsistent.
    for (why, claims) in [
        ("ended", but(&honest, "exp", json!(now))),
        ("ended long ago", but(&honest, "exp", json!(0))),
        ("a short-lived one that ended", but(&given, "exp", json!(now - 1))),
        ("a short-lived one without an end", but(&given, "exp", Value::Null)),
        ("nobody's without an end", json!({ "iat": now, "acc": [] })),
        ("an end that is no time", but(&given, "exp", json!("never"))),
        ("no time of its making", but(&honest, "iat", Value::Null)),
        ("no row", but(&honest, "jti", Value::Null)),
        ("no user", but(&honest, "sub", Value::Null)),
        ("somebody else's row", admin.clone()),
        ("a row that never was", but(&honest, "jti", json!("0".repeat(24)))),
    ] {
        forged.push((format!("{why}: {claims}"), jwt(&good, &claims, &secret)));
    }
    for (why, forged) in &forged {
        assert!(!works(forged).await, "{why}");
    }
    for (_, forged) in forged.iter().step_by(7) {
        refused(&alice.with(forged).get("/v2/").await, 401, "UNAUTHORIZED");
        alice.with(forged).get("/v1/rbac/users/current").await.error(401);
        challenge(&alice.with(forged).get("/token").await);
    }
    assert!(works(&token).await && works(&short).await);
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
