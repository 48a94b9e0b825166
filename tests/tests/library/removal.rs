//! Deleting containers, collections, groups and users, with everything in them.

use crate::support::{begin, complete, hash, len, opened, set, sif, sweep_up, text};
use reqwest::Method;
use serde_json::{Value, json};
use server::local::Local;
use shared::auth::Credential;
use shared::config::Config;
use shared::domain::HowToDelete;
use shared::domain::reference::LibraryRef;
use shared::error::Error;
use shared::service::people::{invitations, members, robots, users};
use shared::service::pull::{self, Purpose};
use shared::service::sweep::{self, Ages};
use shared::service::{events, removal};
use shared::store::keys::{self, KeyRange};
use stackroom_tests::functions::only_on_our_table;
use stackroom_tests::layered::Layered;
use stackroom_tests::mortal::Mortal;
use stackroom_tests::{Answer, Caller, Server, send};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

const BB: &str = "alice/tools/bb";

async fn group(maker: &Caller, name: &str) {
    maker.post("/api/groups", json!({ "name": name })).await.ok();
}

/// Pushes a manifest with one layer to the registry.
async fn push_artifact(who: &Caller, repository: &str, tag: &str, layer: &[u8]) -> String {
    let digest = |bytes: &[u8]| shared::domain::Digest::of(bytes).to_string();
    for bytes in [layer, b"{}"] {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", digest(bytes));
        let open = send(who.request(Method::POST, &path).body(bytes.to_vec())).await;
        assert_eq!(open.status, 201, "{}", String::from_utf8_lossy(&open.bytes));
    }
    let described =
        |bytes: &[u8], kind: &str| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [described(layer, "application/octet-stream")],
    });
    let request = who.request(Method::PUT, &format!("/v2/{repository}/manifests/{tag}"));
    let request = request.header("content-type", "application/vnd.oci.image.manifest.v1+json");
    let pushed = send(request.body(manifest.to_string())).await;
    assert_eq!(pushed.status, 201, "{}", String::from_utf8_lossy(&pushed.bytes));
    pushed.header("docker-content-digest").unwrap().to_owned()
}

fn counts(answer: &Value) -> Vec<u64> {
    let number = |name: &str| answer["data"]["contents"][name].as_u64().unwrap();
    ["collections", "containers", "images", "manifests", "tags", "bytes"].map(number).to_vec()
}

/// All keys of a partition.
async fn rows(server: &Local, range: KeyRange) -> Vec<String> {
    let keys = server.app.table.first_keys(range, 1000).await.unwrap();
    keys.into_iter().map(|key| key.sk).collect()
}

#[tokio::test]
async fn a_container_is_deleted_with_everything_in_it_and_others_keep_their_bytes() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    let (shared, own) = (sif(1), sif(2));
    bob.push("bob/tools/bb", "v1", "amd64", &shared).await.ok();
    alice.push("alice/tools/other", "v1", "amd64", &shared).await.ok();
    let before = server.quota("alice").await;
    for (tag, bytes) in [("v1", &shared), ("v2", &own), ("latest", &own)] {
        alice.push(BB, tag, "amd64", bytes).await.ok();
    }
    let layer = b"a layer".to_vec();
    let digest = push_artifact(&alice, BB, "files", &layer).await;
    let share = json!({ "repository": BB, "tag": "v1" });
    let shared_url = text(&alice.post("/api/shares", share).await.ok(), "/data/url");

    let path = format!("/v1/containers/{BB}");
    let refused = alice.delete(&path).await.error(412);
    assert!(refused.contains("2 images") && refused.contains("4 tags") && refused.contains("cascade"), "{refused}");
    let dry = alice.delete(&format!("{path}?dry-run=true")).await.ok();
    assert_eq!(counts(&dry), [0, 1, 2, 3, 4, len(&shared) + len(&own) + len(&layer) + 2]);
    assert_eq!(server.nobody.pull(&format!("{BB}:v1")).await.bytes, shared, "nothing was changed yet");

    let gone = alice.delete(&format!("{path}?cascade=1")).await;
    assert_eq!((gone.status.as_u16(), &gone.json["data"]["done"]), (200, &json!(true)));
    for way in [
        format!("/v1/containers/{BB}"),
        format!("/v1/images/{BB}:v1"),
        format!("/v1/imagefile/{BB}:{}", hash(&own)),
        format!("/v2/{BB}/manifests/v2"),
        format!("/v2/{BB}/manifests/{digest}"),
        format!("/v2/{BB}/tags/list"),
    ] {
        assert_eq!(alice.get(&way).await.status, 404, "{way}");
    }
    assert!(send(alice.bare(Method::GET, &shared_url)).await.status.is_client_error());
    let listed = alice.get("/v1/containers?entity=alice").await.ok();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(server.quota("alice").await, before);
    assert_eq!(rows(&server.local, keys::all_of_repository(&BB.parse().unwrap())).await, Vec::<String>::new());
    sweep_up(&server).await;
    assert_eq!(server.quota("alice").await, before);
    assert_eq!(server.nobody.pull("bob/tools/bb:v1").await.bytes, shared);
    assert_eq!(server.nobody.pull("alice/tools/other:v1").await.bytes, shared);
    alice.delete(&format!("{path}?cascade=1")).await.error(404);
    // Its name can be used again, and nothing of before is there.
    alice.push(BB, "v3", "amd64", &own).await.ok();
    server.nobody.get(&format!("/v1/images/{BB}:v1")).await.error(404);
    assert_eq!(server.nobody.pull(&format!("{BB}:v3")).await.bytes, own);
}

#[tokio::test]
async fn an_empty_container_or_collection_is_deleted_without_a_cascade() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    alice.container(BB).await;
    alice.delete("/v1/collections/alice/tools").await.error(412);
    alice.delete(&format!("/v1/containers/{BB}")).await.ok();
    alice.delete("/v1/collections/alice/tools").await.ok();
    alice.get("/v1/collections/alice/tools").await.error(404);
    sweep_up(&server).await;
    alice.container(BB).await;
}

#[tokio::test]
async fn what_is_frozen_or_read_only_is_deleted_by_force_alone() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    alice.push(BB, "v1", "amd64", &bytes).await.ok();
    alice.push("alice/tools/cc", "v1", "amd64", &bytes).await.ok();
    set(&alice, &format!("/v1/images/{BB}:v1"), json!({ "frozen": true })).await.ok();
    for path in [&format!("/v1/containers/{BB}"), "/v1/collections/alice/tools"] {
        let why = alice.delete(&format!("{path}?cascade=1")).await.error(403);
        assert!(why.contains("frozen") && why.contains("alice/tools/bb:v1"), "{why}");
    }
    set(&alice, &format!("/v1/images/{BB}:v1"), json!({ "frozen": false })).await.ok();
    set(&alice, &format!("/v1/containers/{BB}"), json!({ "readOnly": true })).await.ok();
    for path in [&format!("/v1/containers/{BB}"), "/v1/collections/alice/tools"] {
        let why = alice.delete(&format!("{path}?cascade=1")).await.error(403);
        assert!(why.contains("read-only"), "{why}");
    }
    // What would go can be seen without force.
    let seen = alice.delete(&format!("/v1/containers/{BB}?cascade=1&dry-run=1")).await.ok();
    assert_eq!((counts(&seen)[2], &seen["data"]["contents"]["readOnly"]), (1, &json!(BB)));
    assert_eq!(server.nobody.pull(&format!("{BB}:v1")).await.bytes, bytes);
    assert_eq!(server.nobody.pull("alice/tools/cc:v1").await.bytes, bytes, "nothing was deleted");
    // Force is for those who could change that first.
    let narrow = server.token("alice", json!({ "name": "d", "scope": "pull,delete" })).await;
    narrow.delete("/v1/collections/alice/tools?cascade=1&force=1").await.error(403);
    alice.delete("/v1/collections/alice/tools?cascade=1&force=1").await.ok();
    server.nobody.get(&format!("/v1/images/{BB}:v1")).await.error(404);
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn only_admins_delete_and_others_learn_nothing() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let (bob, carol, eve) = (server.user("bob", 0).await, server.user("carol", 0).await, server.user("eve", 0).await);
    group(&alice, "acme").await;
    for (name, role) in [("bob", "contributor"), ("carol", "reader")] {
        alice.put(&format!("/api/entities/acme/members/{name}"), json!({ "role": role })).await.ok();
    }
    bob.push("acme/tools/bb", "v1", "amd64", &sif(1)).await.ok();
    set(&alice, "/v1/containers/acme/tools/bb", json!({ "visibility": "private" })).await.ok();
    let same = |one: &Answer, other: &Answer| assert_eq!((one.status, &one.bytes), (other.status, &other.bytes));
    for kind in ["containers/acme/tools/bb", "collections/acme/tools", "entities/acme"] {
        let missing = kind.replace("acme", "nothing");
        for how in ["", "?cascade=1", "?cascade=1&force=1", "?dry-run=1"] {
            let path = format!("/v1/{kind}{how}");
            for who in [&bob, &carol] {
                who.delete(&path).await.error(403);
            }
            server.nobody.delete(&path).await.error(401);
            same(&eve.delete(&path).await, &eve.delete(&format!("/v1/{missing}{how}")).await);
        }
    }
    // Somebody who has a role on a part deletes that part.
    let on_part = json!({ "role": "admin", "on": "tools" });
    alice.put("/api/entities/acme/members/carol", json!({ "role": Value::Null })).await.ok();
    alice.put("/api/entities/acme/members/carol", on_part).await.ok();
    carol.delete("/v1/entities/acme?cascade=1").await.error(403);
    carol.delete("/v1/collections/acme/tools?cascade=1").await.ok();
    assert_eq!(alice.get("/v1/containers/acme/tools/bb").await.status, 404);
    for unknown in ["?cascade=perhaps", "?older=7d", "?cascade=1&arch=amd64"] {
        alice.delete(&format!("/v1/entities/acme{unknown}")).await.error(400);
    }
}

#[tokio::test]
async fn a_deleted_group_leaves_its_name_to_nobody_but_site_admins() {
    let server = Server::start_with(&[("STACKROOM_GROUPS_PER_USER", "1")]).await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    group(&alice, "acme").await;
    alice.put("/api/entities/acme/members/bob", json!({ "role": "contributor" })).await.ok();
    let robot = json!({ "name": "ci", "role": "contributor" });
    alice.post("/api/entities/acme/robots", robot).await.ok();
    let made = alice.post("/api/users/acme+ci/tokens", json!({ "name": "job" })).await.ok();
    let robot = alice.with(&text(&made, "/data/token"));
    let bytes = sif(1);
    robot.push("acme/tools/bb", "v1", "amd64", &bytes).await.ok();
    push_artifact(&bob, "acme/deep/er/files", "v1", b"bytes").await;
    alice.post("/api/entities/acme/invitations", json!({ "role": "reader" })).await.ok();

    for path in ["entities/acme", "collections/acme/tools", "containers/acme/tools/bb"] {
        set(&alice, &format!("/v1/{path}"), json!({ "readme": "long ".repeat(1000) })).await.ok();
    }

    alice.delete("/v1/entities/acme").await.error(412);
    alice.delete("/v1/entities/alice").await.error(409);
    let dry = alice.delete("/v1/entities/acme?dry-run=1").await.ok();
    assert_eq!(counts(&dry)[..5], [1, 2, 1, 2, 2]);
    let answer = alice.delete("/v1/entities/acme?cascade=1").await;
    assert_eq!(answer.status, 202, "deleted bytes are not collected yet");
    for who in [&alice, &bob, &server.admin] {
        who.get("/v1/entities/acme").await.error(404);
        who.get("/v1/containers/acme/tools/bb").await.error(404);
        assert!(who.get("/v2/acme/deep/er/files/manifests/v1").await.status.is_client_error());
    }
    robot.get("/v1/entities").await.error(401);
    assert!(!alice.get("/v1/entities").await.ok().to_string().contains("acme"));
    // Its name waits for its bytes, whoever asks.
    for who in [&alice, &server.admin] {
        let why = who.post("/api/groups", json!({ "name": "acme" })).await.error(409);
        assert!(why.contains("in a day or two"), "{why}");
    }
    sweep_up(&server).await;
    assert_eq!(server.objects().await, Vec::<String>::new());
    let left = rows(&server.local, keys::all_of_entity(&"acme".parse().unwrap())).await;
    assert_eq!(left, ["Z"], "only the name is kept");
    let why = bob.post("/api/groups", json!({ "name": "acme" })).await.error(409);
    assert!(why.contains("only a site admin"), "{why}");
    // The group counts no more for who made it.
    group(&alice, "umbrella").await;
    group(&server.admin, "acme").await;
    server.admin.push("acme/tools/bb", "v2", "amd64", &bytes).await.ok();
    server.nobody.get("/v1/images/acme/tools/bb:v1").await.error(404);
    sweep_up(&server).await;
}

#[tokio::test]
async fn whoever_gets_a_freed_name_does_not_read_the_log_of_before() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    group(&alice, "acme").await;
    alice.container("acme/secret/plans").await;
    alice.delete("/v1/entities/acme?cascade=1").await.ok();
    sweep_up(&server).await;
    let bob = server.user("bob", 0).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    group(&server.admin, "acme").await;
    server.admin.put("/api/entities/acme/members/bob", json!({ "role": "admin" })).await.ok();
    let log = bob.get("/api/entities/acme/events").await.ok().to_string();
    assert!(log.contains("bob") && !log.contains("plans"), "{log}");
    let log = server.admin.get("/api/entities/acme/events").await.ok().to_string();
    assert!(log.contains("plans"), "site admins see all of it: {log}");
}

#[tokio::test]
async fn a_user_is_deleted_with_everything_that_is_theirs() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    group(&bob, "acme").await;
    bob.put("/api/entities/acme/members/alice", json!({ "role": "admin" })).await.ok();
    group(&alice, "umbrella").await;
    bob.put("/api/entities/bob/members/alice", json!({ "role": "reader" })).await.ok();
    let bytes = sif(1);
    alice.push(BB, "v1", "amd64", &bytes).await.ok();
    alice.push("acme/tools/bb", "v1", "amd64", &bytes).await.ok();
    let container = bob.get("/v1/containers/acme/tools/bb").await.ok();
    let starred = format!("stars/{}", text(&container, "/data/id"));
    for who in [&alice, &bob] {
        let name = if who.token == alice.token { "alice" } else { "bob" };
        who.post(&format!("/v1/users/{name}/{starred}"), json!({})).await.ok();
    }
    set(&alice, "/v1/entities/alice", json!({ "readme": "about me" })).await.ok();

    let path = "/api/users/alice";
    let tokens = server.admin.get("/api/users/alice/tokens").await.ok();
    let token_id = text(&tokens, "/data/0/id");
    bob.delete(path).await.error(403);
    alice.delete(path).await.error(403);
    server.admin.delete("/api/users/nobody?cascade=1").await.error(404);
    server.admin.delete("/api/users/admin?cascade=1&force=1").await.error(409);
    let why = server.admin.delete(&format!("{path}?cascade=1")).await.error(409);
    assert!(why.contains("last admin of umbrella"), "{why}");
    alice.put("/api/entities/umbrella/members/bob", json!({ "role": "admin" })).await.ok();
    server.admin.delete(path).await.error(412);
    alice.get("/v1/token-status").await.ok();

    let answer = server.admin.delete(&format!("{path}?cascade=1")).await;
    assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&answer.bytes));
    alice.get("/v1/entities").await.error(401);
    server.nobody.get(&format!("/v1/images/{BB}:v1")).await.error(404);
    // What they pushed for a group is the group's.
    assert_eq!(server.nobody.pull("acme/tools/bb:v1").await.bytes, bytes);
    let names = |answer: Value| -> Vec<String> {
        answer["data"].as_array().unwrap().iter().map(|one| text(one, "/name")).collect()
    };
    for entity in ["acme", "umbrella", "bob"] {
        let members = names(bob.get(&format!("/api/entities/{entity}/members")).await.ok());
        assert_eq!(members, ["bob"], "{entity}");
    }
    let stars = bob.get("/v1/containers/acme/tools/bb").await.ok()["data"]["stars"].clone();
    assert_eq!(stars, json!(1), "the star of who is gone counts no more");
    // The count of admins went with them: bob is the last one now.
    bob.delete("/api/entities/acme/members/bob").await.error(409);
    assert!(!names(server.admin.get("/api/users").await.ok()).contains(&"alice".to_owned()));
    sweep_up(&server).await;
    assert_eq!(rows(&server.local, keys::all_of_user(&"alice".parse().unwrap())).await, Vec::<String>::new());
    assert_eq!(rows(&server.local, keys::all_of_entity(&"alice".parse().unwrap())).await, ["Z"]);
    assert_eq!(bob.post("/api/groups", json!({ "name": "alice" })).await.status, 409);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let again = server.user("alice", 0).await;
    let log = again.get("/api/users/alice/events").await.ok().to_string();
    assert!(log.contains("token_made") || log.contains("TokenMade"), "{log}");
    assert!(!log.contains(&token_id), "what the one before did is not theirs to read: {log}");
    assert!(server.admin.get("/api/users/alice/events").await.ok().to_string().contains(&token_id));
    assert!(again.get("/v1/entities").await.ok().to_string().contains("alice"));
    assert!(!again.get("/v1/entities").await.ok().to_string().contains("acme"));
}

#[tokio::test]
async fn of_two_site_admins_who_delete_or_disable_each_other_one_stays() {
    let server = Server::start().await;
    let admins = [("ann", "ben"), ("ben", "ann")];
    let mut callers = Vec::new();
    for (name, _) in admins {
        let new = json!({ "name": name, "password": "correct horse", "admin": true });
        server.admin.post("/api/users", new).await.ok();
        callers.push(server.token(name, json!({ "name": "t" })).await);
    }
    for disable in [true, false] {
        let each = callers.iter().zip(admins).map(|(caller, (_, other))| async move {
            if disable {
                return caller.put(&format!("/api/users/{other}/disabled"), json!({ "disabled": true })).await;
            }
            caller.delete(&format!("/api/users/{other}?cascade=1")).await
        });
        let answers = futures::future::join_all(each).await;
        let done = answers.iter().filter(|answer| answer.status.is_success()).count();
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        assert_eq!(done, 1, "disable {disable}: {statuses:?}");
        for (name, _) in admins.into_iter().filter(|_| disable) {
            server.admin.put(&format!("/api/users/{name}/disabled"), json!({ "disabled": false })).await.ok();
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_open_ends_with_its_container() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    let (push, url) = opened(&alice, BB, &bytes).await;
    alice.delete(&format!("/v1/containers/{BB}?cascade=1")).await.ok();
    assert_eq!(alice.upload(&url, &bytes).await.status, 200, "the store knows nothing of containers");
    assert!(complete(&alice, &push).await.status.is_client_error());
    let again = begin(&alice, BB, &bytes).await;
    assert!(!again.uploaded);
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn an_upload_to_the_registry_that_is_open_does_not_bring_its_repository_back() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    alice.container(BB).await;
    set(&alice, &format!("/v1/containers/{BB}"), json!({ "visibility": "private" })).await.ok();
    let opened = send(alice.request(Method::POST, &format!("/v2/{BB}/blobs/uploads/"))).await;
    let location = opened.header("location").unwrap().to_owned();
    alice.delete(&format!("/v1/containers/{BB}?cascade=1")).await.ok();
    let layer = b"secret".to_vec();
    let mut url = location;
    url.push_str(if url.contains('?') { "&" } else { "?" });
    url.push_str("digest=");
    url.push_str(&shared::domain::Digest::of(&layer).to_string());
    let closed = send(alice.request(Method::PUT, &url).body(layer.clone())).await;
    assert_eq!(closed.status, 404, "{}", String::from_utf8_lossy(&closed.bytes));
    alice.get(&format!("/v1/containers/{BB}")).await.error(404);
    // Nor is it an upload to a new one of that name.
    alice.container(BB).await;
    assert_eq!(send(alice.request(Method::PUT, &url).body(layer.clone())).await.status, 404);
    let digest = shared::domain::Digest::of(&layer);
    assert_eq!(bob.get(&format!("/v2/{BB}/blobs/{digest}")).await.status, 404);
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deletions_that_race_with_pushes_leave_a_right_account() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    for round in 0..6 {
        let pushing = (0..12_u64).map(|number| {
            let alice = alice.clone();
            tokio::spawn(async move {
                let path = format!("alice/c{}/k{}", number % 2, number % 3);
                // It may be refused at any step. What it says of that must be a client's error.
                for tag in ["v1", "v2"] {
                    let container = push_or_refused(&alice, &path, tag, &sif(number)).await;
                    assert!(container < 500, "{container}");
                }
            })
        });
        let pushing: Vec<_> = pushing.collect();
        let deleting = (0..6_u64).map(|number| {
            let alice = alice.clone();
            tokio::spawn(async move {
                let path = match number % 3 {
                    0 => format!("/v1/collections/alice/c{}?cascade=1", number % 2),
                    other => format!("/v1/containers/alice/c{}/k{other}?cascade=1", number % 2),
                };
                let status = alice.delete(&path).await.status.as_u16();
                assert!([200, 202, 404].contains(&status), "{status}");
            })
        });
        for task in pushing.into_iter().chain(deleting.collect::<Vec<_>>()) {
            task.await.unwrap();
        }
        server.sweep_all().await;
        assert!(server.quota("alice").await.1 < 1 << 30, "round {round}");
    }
    for number in 0..2 {
        alice.delete(&format!("/v1/collections/alice/c{number}?cascade=1")).await;
    }
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
    let left = rows(&server.local, keys::all_of_entity(&"alice".parse().unwrap())).await;
    assert_eq!(left, ["-", "M#alice", "Q"]);
}

/// A push in which every step may be refused. Returns the status of the last one.
async fn push_or_refused(who: &Caller, path: &str, tag: &str, bytes: &[u8]) -> u16 {
    let parts: Vec<&str> = path.split('/').collect();
    let mut parent = String::new();
    let steps =
        [("entities", "", parts[0]), ("collections", "entity", parts[1]), ("containers", "collection", parts[2])];
    for (kind, above, name) in steps {
        let answer = who.post(&format!("/v1/{kind}"), json!({ "name": name, above: parent })).await;
        if !answer.status.is_success() {
            return answer.status.as_u16();
        }
        parent = text(&answer.json, "/data/id");
    }
    let image = who.post("/v1/images", json!({ "hash": hash(bytes), "container": parent })).await;
    if !image.status.is_success() {
        return image.status.as_u16();
    }
    let id = text(&image.json, "/data/id");
    if image.json["data"]["uploaded"] == json!(false) {
        let open = who.open(&id, bytes).await;
        if !open.status.is_success() {
            return open.status.as_u16();
        }
        assert_eq!(who.upload(&text(&open.json, "/data/uploadURL"), bytes).await.status, 200);
        let done = who.put(&format!("/v2/imagefile/{id}/_complete"), json!({})).await;
        if !done.status.is_success() {
            return done.status.as_u16();
        }
    }
    let body = json!({ "Arch": "amd64", "Tag": tag, "ImageID": id });
    who.post(&format!("/v2/tags/{parent}"), body).await.status.as_u16()
}

/// Copies the folder of an installation, its objects by a second name.
fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copied(&path, &target);
        } else if from.ancestors().any(|above| above.ends_with("objects")) {
            std::fs::hard_link(&path, &target).unwrap();
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
}

async fn there(local: &Local, reference: &str) -> bool {
    let reference: LibraryRef = local.app.config.defaults.reference(reference).unwrap();
    pull::find(&local.app, &Credential::Anonymous, &reference, None, Purpose::Look).await.is_ok()
}

const CONTAINERS: u64 = 4;

/// How many images are deleted: 500 in the long suite `removal`.
fn images() -> u64 {
    std::env::var("REMOVAL_IMAGES").map_or(100, |text| text.parse().unwrap())
}

/// A group with images in some containers, of which bob has one too.
async fn with_images() -> Server {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    group(&alice, "acme").await;
    alice.put("/api/entities/acme/members/bob", json!({ "role": "reader" })).await.ok();
    bob.push("bob/tools/bb", "v1", "amd64", &sif(0)).await.ok();
    alice.post("/api/entities/acme/robots", json!({ "name": "ci", "role": "contributor" })).await.ok();
    alice.post("/api/users/acme+ci/tokens", json!({ "name": "job" })).await.ok();
    for number in 0..images() {
        let path = format!("acme/tools/k{}", number % CONTAINERS);
        alice.push(&path, &format!("v{number}"), "amd64", &sif(number)).await.ok();
    }
    server
}

#[tokio::test]
async fn a_cascade_over_500_images_killed_at_every_write_in_turn() {
    if only_on_our_table("it copies the folder of the embedded stores") {
        return;
    }
    let server = with_images().await;
    let original = server.local.admin_token();
    let original = original.parent().unwrap();
    let token = std::fs::read_to_string(server.local.admin_token()).unwrap();
    let (mut writes, mut first_answer) = (0, None);
    loop {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        copied(original, &data);
        let config = || Config::read("http://127.0.0.1:1", |_| None).unwrap();
        let stores = Mortal::at_a_write();
        let local = Local::open_through(&data, config(), &Layered(stores.clone())).await.unwrap();
        let who = local.app.keys.credential(Some(&format!("Bearer {}", token.trim())), local.app.now()).unwrap();
        stores.dies_after(writes);
        let how = HowToDelete { cascade: true, ..HowToDelete::default() };
        let answer = removal::entity(&local.app, &who, &"acme".parse().unwrap(), how).await;
        let died = stores.died();
        drop(local);

        let local = Local::open(&data, config()).await.unwrap();
        let mut hidden = 0;
        // All images at the first answer, and then one of each container: what shows one shows all.
        let looked_for = if first_answer.is_none() { images() } else { CONTAINERS };
        for number in 0..looked_for {
            let path = format!("acme/tools/k{}", number % CONTAINERS);
            hidden += u64::from(!there(&local, &format!("{path}:v{number}")).await);
        }
        if answer.is_ok() {
            first_answer.get_or_insert(writes);
            assert_eq!(hidden, looked_for, "all is hidden at the first answer, after {writes} writes");
        } else {
            assert!(first_answer.is_none(), "after {writes} writes: {answer:?}");
            assert!(hidden.is_multiple_of(images() / CONTAINERS), "a container is hidden as a whole, or not: {hidden}");
            removal::entity(&local.app, &who, &"acme".parse().unwrap(), how).await.unwrap();
        }
        for _ in 0..3 {
            let swept = sweep::sweep(&local.app, Ages::zero()).await.unwrap();
            assert_eq!((swept.failed, swept.wrong_accounts.len()), (0, 0), "after {writes} writes");
        }
        assert_eq!(rows(&local, keys::all_of_entity(&"acme".parse().unwrap())).await, ["Z"], "after {writes} writes");
        for number in 0..CONTAINERS {
            let repository = format!("acme/tools/k{number}").parse().unwrap();
            assert_eq!(rows(&local, keys::all_of_repository(&repository)).await, Vec::<String>::new());
        }
        let robot = KeyRange { pk: "U#acme+ci".to_owned(), prefix: String::new() };
        assert_eq!(rows(&local, robot).await, Vec::<String>::new(), "after {writes} writes");
        assert!(there(&local, "bob/tools/bb:v1").await, "after {writes} writes");
        assert_eq!(local.app.objects.list(None).await.unwrap().len(), 1, "only bob's bytes, after {writes} writes");
        if !died {
            break;
        }
        writes += 1;
    }
    assert!(writes > 30, "only {writes} writes");
    assert!(first_answer.is_some_and(|first| first <= 5), "{first_answer:?}");
}

#[tokio::test]
async fn a_deleted_group_answers_its_members_no_more_before_they_are_removed() {
    if only_on_our_table("it copies the folder of the embedded stores") {
        return;
    }
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    group(&alice, "acme").await;
    let original = server.local.admin_token();
    let token = format!("Bearer {}", alice.token.as_ref().unwrap());
    let acme = "acme".parse().unwrap();
    for writes in 0.. {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        copied(original.parent().unwrap(), &data);
        let config = || Config::read("http://127.0.0.1:1", |_| None).unwrap();
        let stores = Mortal::at_a_write();
        let local = Local::open_through(&data, config(), &Layered(stores.clone())).await.unwrap();
        let who = local.app.keys.credential(Some(&token), local.app.now()).unwrap();
        stores.dies_after(writes);
        let deleted = removal::entity(&local.app, &who, &acme, HowToDelete::default()).await;
        stores.lives();
        if deleted.is_err() {
            continue;
        }
        let left = rows(&local, KeyRange { pk: "E#acme".to_owned(), prefix: String::new() }).await;
        assert!(left.iter().any(|sk| sk.contains("alice")), "nothing is left after {writes} writes: {left:?}");
        let (app, log) = (&local.app, events::Log::Entity(acme.clone()));
        let answers = [
            users::quota(app, &who, &acme).await.err(),
            robots::list(app, &who, &acme).await.err(),
            invitations::list(app, &who, &acme).await.err(),
            events::list(app, &who, &log, &events::Filter::default(), None).await.err(),
            members::remove(app, &who, &acme, &"alice".parse().unwrap()).await.err(),
        ];
        for (at, answer) in answers.iter().enumerate() {
            assert!(matches!(answer, Some(Error::NotFound(_) | Error::Forbidden(_))), "{at}: {answer:?}");
        }
        return;
    }
}
