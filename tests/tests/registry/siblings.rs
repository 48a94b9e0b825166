//! What a second attack found: siblings of what [`attacks`](super::attacks) has. Each test fails on the behaviour from
//! before.

use crate::library::{begin, opened, set, sif, write};
use crate::support::{
    BB, MANIFEST, basic, blob, blob_at, close, digest, image, is, junk, manifest, manifest_at, named, narrowed, open,
    patch, put, refused,
};
use reqwest::Method;
use serde_json::json;
use server::local::Local;
use shared::config::Config;
use shared::domain::Time;
use shared::store::rows::WrongPasswords;
use stackroom_tests::{Caller, SERVING, Server, send};
use std::fs;

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

#[tokio::test]
async fn attack_13_what_a_body_of_the_api_says_and_nobody_reads_is_refused() {
    let server = Server::start_with(&[SERVING]).await;
    let alice = server.user("alice", 0).await;
    let asked = [
        json!({ "Scope": "pull" }),
        json!({ "scopes": ["pull"] }),
        json!({ "rights": "pull" }),
        json!({ "expiration": 60 }),
        json!({ "valid_until": "2030-01-01" }),
        json!({ "data": { "expires_in": 1 } }),
    ];
    for mut body in asked {
        body["name"] = json!("x");
        alice.post("/api/users/alice/tokens", body).await.error(400);
    }
    alice.post("/api/users/alice/tokens?scope=pull", json!({ "name": "x" })).await.error(400);
    assert_eq!(alice.get("/api/users/alice/tokens").await.ok()["data"].as_array().unwrap().len(), 1);
    for key in ["disabled", "blocked", "limit", "Quota"] {
        server.admin.post("/api/users", json!({ "name": "dis", key: 1 })).await.error(400);
    }
    alice.get("/v1/entities/dis").await.error(404);
    blob(&alice, BB, b"pushed just now").await;
    for body in [json!({ "now": true, "dry_run": true }), json!({ "now": true, "dryRun": true })] {
        server.admin.post("/api/sweep", body).await.error(400);
    }
    server.admin.post("/api/sweep?dry_run=true", json!({ "now": true })).await.error(400);
    is(&alice.get(&blob_at(BB, &digest(b"pushed just now"))).await, 200);
}

#[tokio::test]
async fn attack_13_a_deletion_that_is_narrowed_in_a_way_that_nobody_reads_deletes_nothing() {
    let (_server, alice) = start().await;
    let images = [
        stackroom_tests::sif::SifBuilder::new("amd64").build(),
        stackroom_tests::sif::SifBuilder::new("arm64").build(),
    ];
    for (arch, bytes) in ["amd64", "arm64"].iter().zip(&images) {
        alice.push(BB, "v1", arch, bytes).await.ok();
    }
    let path = format!("/v1/images/{BB}:v1");
    for query in
        ["", "?Arch=arm64", "?architecture=arm64", "?platform=linux/arm64", "?dryRun=1", "?arch=amd64&arch=arm64"]
    {
        alice.delete(&format!("{path}{query}")).await.error(400);
    }
    for arch in ["amd64", "arm64"] {
        alice.get(&format!("{path}?arch={arch}")).await.ok();
        alice.delete(&format!("{path}?arch={arch}")).await.ok();
    }
}

#[tokio::test]
async fn attack_13_other_words_for_narrower_are_refused_too() {
    let (_server, alice) = start().await;
    let id = alice.post("/v1/entities", json!({ "name": "alice" })).await.ok()["data"]["id"].clone();
    let bodies = [
        json!({ "public": false }),
        json!({ "isPublic": "false" }),
        json!({ "anonymousPull": false }),
        json!({ "access": "private" }),
        json!({ "locked": true }),
        json!({ "expiration": "30d" }),
        json!({ "private ": true }),
    ];
    for mut body in bodies {
        (body["name"], body["entity"]) = (json!("tools"), id.clone());
        alice.post("/v1/collections", body).await.error(400);
    }
    let twice = format!(r#"{{"name":"tools","entity":{id},"isPrivate":true,"isPrivate":false}}"#);
    send(alice.request(Method::POST, "/v1/collections").body(twice)).await.error(400);
    let body = json!({ "name": "tools", "entity": id });
    for query in ["?private", "?private[]=true", "?ttl"] {
        alice.post(&format!("/v1/collections{query}"), body.clone()).await.error(400);
    }
    alice.get("/v1/collections/alice/tools").await.error(404);
    set(&alice, "/v1/entities/alice", json!({ "defaultPrivate": true, "private": false })).await.error(400);
    // A condition that nobody looks at.
    let document = image(b"{}", &[]).to_string();
    blob(&alice, BB, b"{}").await;
    let request = alice.request(Method::PUT, &manifest_at(BB, "v1")).header("content-type", MANIFEST);
    is(&send(request.header("if-none-match", "*").body(document)).await, 412);
    is(&alice.get(&manifest_at(BB, "v1")).await, 404);
}

#[tokio::test]
async fn attack_02_what_a_frozen_manifest_mentions_stays_if_it_came_later() {
    let server = Server::start_with(&[SERVING]).await;
    let alice = server.user("alice", 0).await;
    let layer = junk(1, 1000);
    let mut foreign = named("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", &layer);
    foreign["urls"] = json!(["https://elsewhere.example/layer"]);
    blob(&alice, BB, b"{}").await;
    let mut document = image(b"{}", &[]);
    document["layers"] = json!([foreign]);
    is(&put(&alice, BB, "f1", MANIFEST, &document.to_string()).await, 201);
    let child = image(b"{}", &[]).to_string();
    let index = json!({ "schemaVersion": 2, "manifests": [named(MANIFEST, child.as_bytes())] }).to_string();
    is(&put(&alice, BB, "f2", "application/vnd.acme.index.v1+json", &index).await, 201);
    for tag in ["f1", "f2"] {
        set(&alice, &format!("/api/repositories/{BB}:{tag}"), json!({ "frozen": true })).await.ok();
    }
    blob(&alice, BB, &layer).await;
    is(&put(&alice, BB, &digest(child.as_bytes()), MANIFEST, &child).await, 201);
    refused(&alice.delete(&blob_at(BB, &digest(&layer))).await, 403, "DENIED");
    refused(&alice.delete(&manifest_at(BB, &digest(child.as_bytes()))).await, 403, "DENIED");
    server.sweep_all().await;
    is(&alice.get(&blob_at(BB, &digest(&layer))).await, 200);
    assert_eq!(manifest(&alice, BB, &digest(child.as_bytes())).await, child);
}

#[tokio::test]
async fn attack_10_a_token_that_ends_leaves_no_account_behind_that_others_can_enter() {
    let (server, _alice) = start().await;
    let limits = [json!({ "name": "x", "expires_in": 60 }), json!({ "name": "x", "scope": "admin" })];
    server.admin.post("/api/users", json!({ "name": "shut" })).await.ok();
    server.admin.put("/api/users/shut/disabled", json!({ "disabled": true })).await.ok();
    for limit in limits {
        let limited = server.token("admin", limit).await;
        limited.post("/api/users", json!({ "name": "ghost", "password": "ghost-password" })).await.error(403);
        limited.put("/api/users/shut/disabled", json!({ "disabled": false })).await.error(403);
    }
    let answer = send(basic(&server.nobody, Method::GET, "/token", "ghost", "ghost-password")).await;
    is(&answer, 401);
    server.admin.post("/api/users", json!({ "name": "ghost", "password": "ghost-password" })).await.ok();
}

#[tokio::test]
async fn attack_10_the_url_of_a_download_lives_no_longer_than_the_token_that_asked_for_it() {
    let (server, alice) = start().await;
    alice.push(BB, "v1", "amd64", &sif(1)).await.ok();
    let short = server.token("alice", json!({ "name": "short", "expires_in": 100 })).await;
    let life = async |who: &Caller| {
        let answer = who.get(&format!("/v1/imagefile/{BB}:v1")).await;
        let url = answer.header("location").unwrap().to_owned();
        let expires = url.split('&').find_map(|pair| pair.strip_prefix("X-Amz-Expires=")).unwrap();
        expires.parse::<u64>().unwrap()
    };
    assert_eq!(life(&alice).await, 24 * 3600);
    assert!((1..=100).contains(&life(&short).await));
}

#[tokio::test]
async fn attack_13_a_body_or_form_that_its_route_does_not_read_is_refused_if_it_would_narrow_something() {
    let (_server, alice) = start().await;
    let (push, url) = opened(&alice, BB, &sif(1)).await;
    assert!(alice.upload(&url, &sif(1)).await.status.is_success());
    let path = format!("/v2/imagefile/{}/_complete", push.image);
    alice.put(&path, json!({ "private": true })).await.error(400);
    alice.put(&path, json!({ "expiresAt": "2030-01-01T00:00:00Z" })).await.error(400);
    alice.put(&path, json!({ "private": false })).await.ok();
    let token = alice.token.clone().unwrap();
    is(&send(basic(&alice, Method::GET, "/token?expires_in=1", "alice", &token)).await, 400);
    is(&send(basic(&alice, Method::GET, "/token?account=alice&offline_token=true", "alice", &token)).await, 200);
    let form = alice.bare(Method::POST, "/token").header("content-type", "application/x-www-form-urlencoded");
    is(&send(form.body(format!("grant_type=password&username=alice&password={token}&ttl=1"))).await, 400);
}

#[tokio::test]
async fn attack_08_no_type_of_a_manifest_is_one_that_browsers_show() {
    let (_server, alice) = start().await;
    let body = json!({ "schemaVersion": 2, "a": "<html>" }).to_string();
    for kind in [
        "application/x,text/html",
        "application/xhtml+xml",
        "application/xml",
        "application/pdf",
        "application/javascript",
        "application/",
        "application/x\",\"text/html",
        "application/x/y",
    ] {
        refused(&put(&alice, BB, "page", kind, &body).await, 400, "MANIFEST_INVALID");
    }
    is(&put(&alice, BB, "page", "application/vnd.acme.thing-1.0_x+json", &body).await, 201);
}

#[tokio::test]
async fn attack_06_what_is_inside_a_private_image_needs_the_right_to_pull_it() {
    let (server, alice) = start().await;
    alice.push(BB, "v1", "amd64", &sif(1)).await.ok();
    set(&alice, &format!("/v1/containers/{BB}"), json!({ "visibility": "private" })).await.ok();
    let path = format!("/v1/images/{BB}:v1");
    for scope in ["push@alice", "delete", "manage"] {
        let token = server.token("alice", json!({ "name": "ci", "scope": scope })).await;
        token.get(&path).await.ok();
        assert!(matches!(token.get(&format!("{path}?details")).await.status.as_u16(), 403 | 404), "{scope}");
    }
    let registry = narrowed(&alice, "alice", &[&format!("repository:{BB}:push")]).await;
    assert!(registry.get(&format!("{path}?details")).await.status.is_client_error());
    assert!(alice.get(&format!("{path}?details")).await.ok()["data"]["details"].is_object());
}

#[tokio::test]
async fn attack_12_wrong_passwords_that_a_clock_ahead_has_counted_lock_nobody_out() {
    let server = Server::start().await;
    server.admin.post("/api/users", json!({ "name": "alice", "password": "the right one" })).await.ok();
    let now = i64::try_from(shared::app::system_clock().as_secs()).unwrap();
    let ahead = Time(now + 24 * 3600);
    write(&server, &WrongPasswords { user: "alice".parse().unwrap(), count: 10, since: ahead, version: 1 }).await;
    let login = async |secret: &str| send(basic(&server.nobody, Method::GET, "/token", "alice", secret)).await;
    is(&login("the right one").await, 200);
    is(&login("a wrong one").await, 401);
    is(&login("the right one").await, 200);
}

#[tokio::test]
async fn attack_11_links_and_files_that_others_have_put_there_are_refused() {
    let open = async |data: &std::path::Path| {
        let config = Config::read("http://127.0.0.1:1", |_| None).unwrap();
        let local = Local::open(data, config).await.map_err(|error| format!("{error:#}"))?;
        local.first_admin().await.map_err(|error| format!("{error:#}"))?;
        Ok::<_, String>(local)
    };
    for name in ["keys", "objects.key", "admin.token", "lock", "table.sqlite", "objects.sqlite"] {
        let folder = tempfile::TempDir::new().unwrap();
        let loot = folder.path().join("loot");
        fs::write(&loot, "").unwrap();
        std::os::unix::fs::symlink(&loot, folder.path().join(name)).unwrap();
        let why = open(folder.path()).await.expect_err(name);
        assert!(why.contains("is a link"), "{name}: {why}");
        assert_eq!(fs::read(&loot).unwrap(), b"", "{name}");
    }
    // Where somebody else could put another folder in the place of the objects.
    let folder = tempfile::TempDir::new().unwrap();
    let open_to_all = folder.path().join("open");
    fs::create_dir_all(open_to_all.join("objects")).unwrap();
    fs::set_permissions(&open_to_all, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(open_to_all.join("objects"), data.join("objects")).unwrap();
    open(&data).await.unwrap_err();
}

#[tokio::test]
async fn attack_12_a_first_start_that_ends_before_the_token_is_written_leaves_a_way_in() {
    let folder = tempfile::TempDir::new().unwrap();
    let open =
        async || Local::open(folder.path(), Config::read("http://127.0.0.1:1", |_| None).unwrap()).await.unwrap();
    let local = open().await;
    // As if it had ended between the two.
    fs::write(local.admin_token(), "").unwrap();
    shared::service::people::users::bootstrap(&local.app, "admin".parse().unwrap(), "x".repeat(20).into())
        .await
        .unwrap();
    drop(local);
    let local = open().await;
    assert_eq!(local.first_admin().await.unwrap(), None);
    let token = fs::read_to_string(local.admin_token()).unwrap();
    assert!(token.len() >= 200, "{token}");
    // Once somebody has removed it, it stays away.
    fs::remove_file(local.admin_token()).unwrap();
    assert_eq!(local.first_admin().await.unwrap(), None);
    assert!(!local.admin_token().exists());
}

/// A caller with a short-lived token that was given for a password.
async fn by_password(who: &Caller, name: &str, password: &str, scope: &str) -> Caller {
    let path = format!("/token?service=x&scope={scope}");
    let answer = send(basic(who, Method::GET, &path, name, password)).await;
    is(&answer, 200);
    who.with(answer.json["token"].as_str().unwrap())
}

#[tokio::test]
async fn attack_12_what_was_given_for_a_password_ends_with_it() {
    let (server, alice) = start().await;
    let (first, second) = ("the first password", "the second password");
    let set_to = async |password: &str| {
        alice.put("/api/users/alice/password", json!({ "password": password })).await.ok();
    };
    set_to(first).await;
    let scope = format!("repository:{BB}:pull,push");
    let short = by_password(&server.nobody, "alice", first, &scope).await;
    let by_token = narrowed(&alice, "alice", &[&scope]).await;
    let bytes = junk(1, 1000);
    let begun = open(&short, BB).await;
    let whole = open(&short, BB).await;
    is(&patch(&server.nobody, &begun, &bytes).await, 202);
    is(&short.get("/v2/").await, 200);
    // Disabled and enabled again, it is the same password.
    for disabled in [true, false] {
        server.admin.put("/api/users/alice/disabled", json!({ "disabled": disabled })).await;
    }
    is(&short.get("/v2/").await, 200);
    for password in [second, first] {
        set_to(password).await;
        // Nor does it come back with the same password, whose hash has another salt.
        is(&short.get("/v2/").await, 401);
        is(&short.post(&format!("/v2/{BB}/blobs/uploads/"), serde_json::Value::Null).await, 401);
        is(&patch(&server.nobody, &begun, &bytes).await, 403);
        is(&close(&server.nobody, &whole, &digest(&bytes), &bytes).await, 403);
    }
    // What was given for a token goes on.
    is(&by_token.get("/v2/").await, 200);
    let again = by_password(&server.nobody, "alice", first, &scope).await;
    is(&again.get("/v2/").await, 200);
}

/// For how many seconds a presigned URL is good.
fn life(url: &str) -> u64 {
    let (_, rest) = url.split_once("X-Amz-Expires=").unwrap();
    rest.split('&').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn attack_12_no_url_for_an_upload_outlives_the_token_that_it_was_given_for() {
    let (server, alice) = start().await;
    let bytes = sif(3);
    let push = begin(&alice, BB, &bytes).await;
    let single = async |who: &Caller| {
        let opened = who.open(&push.image, &bytes).await;
        life(opened.ok()["data"]["uploadURL"].as_str().unwrap())
    };
    let part = async |who: &Caller| {
        let path = format!("/v2/imagefile/{}/_multipart", push.image);
        let opened = who.post(&path, json!({ "filesize": bytes.len() })).await.ok();
        let id = opened["data"]["uploadID"].as_str().unwrap().to_owned();
        let body = json!({ "partSize": bytes.len(), "uploadID": id, "partNumber": 1 });
        let url = who.put(&path, body).await.ok()["data"]["presignedURL"].as_str().unwrap().to_owned();
        life(&url)
    };
    assert!(single(&alice).await > 80_000 && part(&alice).await > 80_000);
    let ends = server.token("alice", json!({ "name": "ends", "expires_in": 600 })).await;
    assert!(single(&ends).await <= 600 && part(&ends).await <= 600);
    let short = narrowed(&alice, "alice", &[&format!("repository:{BB}:pull,push")]).await;
    assert!(single(&short).await <= 300 && part(&short).await <= 300);
}

#[tokio::test]
async fn attack_06_a_registry_token_for_the_catalog_lists_names_and_nothing_of_the_library() {
    let (_server, alice) = start().await;
    let bytes = sif(1);
    alice.push("alice/secret/bb", "v1", "amd64", &bytes).await.ok();
    set(&alice, "/v1/containers/alice/secret/bb", json!({ "visibility": "private" })).await.ok();
    let catalog = narrowed(&alice, "alice", &["registry:catalog:*"]).await;
    let listed = catalog.get("/v2/_catalog").await;
    is(&listed, 200);
    assert_eq!(listed.json["repositories"], json!(["alice/secret/bb"]));
    for path in [
        "/v1/collections?entity=alice",
        "/v1/containers?entity=alice",
        "/v1/containers?collection=alice/secret",
        "/v1/images?container=alice/secret/bb",
    ] {
        alice.get(path).await.ok();
        catalog.get(path).await.error(404);
    }
    let entities = catalog.get("/v1/entities").await.ok();
    assert!(!entities.to_string().contains("alice"), "{entities}");
    let found = catalog.get("/v1/search?value=secret").await.ok();
    assert!(!found.to_string().contains("alice/secret"), "{found}");
}

#[tokio::test]
async fn attack_09_a_body_that_opens_an_upload_leaves_the_connection_usable() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (server, alice) = start().await;
    blob(&alice, BB, b"there").await;
    let port: u16 = server.url.rsplit(':').next().unwrap().parse().unwrap();
    let mount = format!("?mount={}&from={BB}", digest(b"there"));
    for query in ["", &mount] {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        for _ in 0..3 {
            let body = vec![b'x'; 3_000_000];
            let token = alice.token.as_deref().unwrap();
            let head = format!(
                "POST /v2/{BB}/blobs/uploads/{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
                 content-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                answer.extend(byte);
            }
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
            assert!(!answer.to_lowercase().contains("connection: close"), "{answer}");
        }
    }
}
