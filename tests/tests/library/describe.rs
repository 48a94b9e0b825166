//! What people say about their things: READMEs, data of their own, where the sources are.

use crate::support::{join, private_collection, set, sif, text};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Role;
use stackroom_tests::functions::only_on_our_stores;
use stackroom_tests::{Caller, Server, send};

const README: &str = "# Tools\n\nA *small* box of tools, with an ümlaut.\n";

/// The path of each kind of thing that can be described, by its route.
const THINGS: [&str; 3] = ["/v1/entities/alice", "/v1/collections/alice/tools", "/v1/containers/alice/tools/bb"];

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 20 << 20).await;
    alice.push("alice/tools/bb", "v1", "amd64", &sif(1)).await.ok();
    (server, alice)
}

#[tokio::test]
async fn whoever_sees_a_thing_reads_what_whoever_manages_it_wrote() {
    let (server, alice) = start().await;
    let (carl, gina) = (server.user("carl", 0).await, server.user("gina", 0).await);
    join(&server, "alice", "carl", Role::Contributor).await;
    join(&server, "alice", "gina", Role::Admin).await;
    let said = json!({ "fullDescription": README, "customData": "{\"lab\":7}" });
    for path in THINGS {
        assert_eq!(alice.get(path).await.ok()["data"]["fullDescription"], json!(""), "{path}");
        for who in [&server.nobody, &carl] {
            let refused = set(who, path, said.clone()).await;
            assert!([401, 403].contains(&refused.status.as_u16()), "{path}: {}", refused.status);
        }
        assert_eq!(alice.get(path).await.ok()["data"]["fullDescription"], json!(""), "{path}");
        for who in [&gina, &alice] {
            let changed = set(who, path, said.clone()).await.ok();
            assert_eq!(changed["data"]["fullDescription"], json!(README), "{path}");
        }
        let seen = carl.get(path).await.ok();
        assert_eq!(seen["data"]["fullDescription"], json!(README), "{path}");
        assert_eq!(seen["data"]["customData"], json!("{\"lab\":7}"), "{path}");
        // What is not named stays.
        set(&alice, path, json!({ "description": "short" })).await.ok();
        set(&alice, path, json!({ "readme": null, "customData": "" })).await.ok();
        let seen = carl.get(path).await.ok()["data"].clone();
        assert_eq!(
            (&seen["description"], &seen["fullDescription"], &seen["customData"]),
            (&json!("short"), &json!(README), &json!("")),
            "{path}"
        );
    }
    // A public container shows it to everybody; the other two are their people's.
    assert_eq!(server.nobody.get(THINGS[2]).await.ok()["data"]["fullDescription"], json!(README));
    for path in &THINGS[..2] {
        server.nobody.get(path).await.error(404);
    }
    let whole = server.nobody.get("/api/repositories/alice/tools/bb").await.ok()["data"].clone();
    assert_eq!((&whole["readme"], &whole["visibility"]), (&json!(README), &json!("public")));
    set(&alice, "/v1/containers/alice/tools/bb", json!({ "visibility": "private" })).await.ok();
    server.nobody.get("/api/repositories/alice/tools/bb").await.error(404);
    // Lists and lookups leave it out.
    for path in ["/v1/containers?entity=alice", "/v1/images/alice/tools/bb:v1", "/v1/search?value=alice"] {
        let listed = String::from_utf8_lossy(&alice.get(path).await.bytes).into_owned();
        assert!(!listed.contains("small* box"), "{path}");
    }
    // The log says what was changed, and not to what.
    let log = alice.get("/api/entities/alice/events?action=manage").await;
    let shown = String::from_utf8_lossy(&log.bytes);
    assert!(shown.contains("fullDescription") && !shown.contains("small* box"), "{shown}");
}

#[tokio::test]
async fn what_can_not_be_shown_is_refused_and_changes_nothing() {
    let (server, alice) = start().await;
    let path = THINGS[2];
    let good = json!({ "readme": README, "customData": "x", "vcsUrl": "https://example.org/a" });
    set(&alice, path, good).await.ok();
    let before = alice.get(path).await.ok();
    for body in [
        json!({ "readme": "x".repeat((64 << 10) + 1) }),
        json!({ "readme": "\u{1b}]0;title\u{7}" }),
        json!({ "readme": 7 }),
        json!({ "readme": "a", "fullDescription": "b" }),
        json!({ "customData": "x".repeat((16 << 10) + 1) }),
        json!({ "customData": { "a": 1 } }),
        json!({ "vcsUrl": "javascript:alert(1)" }),
        json!({ "vcsUrl": "ftp://example.org" }),
        json!({ "vcsUrl": "https://me:secret@example.org" }),
        json!({ "vcsUrl": "http://127.0.0.1/ x" }),
        json!({ "description": "new", "vcsUrl": "git@example.org:a" }),
        json!({ "read_me": "x" }),
    ] {
        set(&alice, path, body.clone()).await.error(400);
        assert_eq!(alice.get(path).await.ok(), before, "{body}");
    }
    for path in &THINGS[..2] {
        let why = set(&alice, path, json!({ "vcsUrl": "https://example.org" })).await.error(400);
        assert!(why.contains("`vcsUrl`"), "{why}");
    }
    // Longest, exactly.
    set(&alice, path, json!({ "readme": "x".repeat(64 << 10), "customData": "y".repeat(16 << 10) })).await.ok();
    server.sweep_all().await;
}

#[tokio::test]
async fn what_is_said_counts_as_rows_and_goes_without_a_rest() {
    if only_on_our_stores("it counts rows, and without digests in URLs an upload has one until a sweep") {
        return;
    }
    let (server, alice) = start().await;
    let rows = async || {
        let account = server
            .local
            .app
            .table
            .get::<shared::store::rows::Account>(shared::store::keys::account(&"alice".parse().unwrap()));
        account.await.unwrap().unwrap().quota.rows
    };
    let before = rows().await;
    for (readme, more) in [("x".to_owned(), 1), ("x".repeat(64 << 10), 65), ("y".repeat(2048), 3), (String::new(), 0)] {
        for path in THINGS {
            set(&alice, path, json!({ "readme": readme })).await.ok();
        }
        assert_eq!(rows().await, before + 3 * more, "{}", readme.len());
        // The sum of all rows is that of the account.
        server.sweep_all().await;
    }
}

#[tokio::test]
async fn what_is_said_at_the_beginning_is_there_from_the_beginning() {
    let (server, alice) = start().await;
    let entity = text(&alice.get("/v1/entities/alice").await.ok(), "/data/id");
    let body = json!({ "name": "new", "entity": entity, "fullDescription": README, "customData": "a" });
    let made = alice.post("/v1/collections", body).await.ok();
    let body = json!({
        "name": "one", "collection": made["data"]["id"], "fullDescription": README, "vcsUrl": "https://example.org/a",
        "customData": null,
    });
    alice.post("/v1/containers", body).await.ok();
    let seen = alice.get("/v1/containers/alice/new/one").await.ok();
    assert_eq!(seen["data"]["vcsUrl"], json!("https://example.org/a"));
    for path in ["/v1/collections/alice/new", "/v1/containers/alice/new/one"] {
        assert_eq!(alice.get(path).await.ok()["data"]["fullDescription"], json!(README), "{path}");
    }
    let bad = json!({ "name": "two", "collection": made["data"]["id"], "vcsUrl": "file:///etc/passwd" });
    alice.post("/v1/containers", bad).await.error(400);
    alice.get("/v1/containers/alice/new/two").await.error(404);
    // A key that narrows and is not known is still refused.
    let bad =
        json!({ "name": "two", "collection": made["data"]["id"], "fullDescription": "x", "expiresAt": "2030-01-01" });
    alice.post("/v1/containers", bad).await.error(400);
    alice.get("/v1/containers/alice/new/two").await.error(404);
    server.sweep_all().await;
}

#[tokio::test]
async fn of_many_who_describe_at_once_all_are_heard() {
    let (server, alice) = start().await;
    let path = "/api/repositories/alice/tools/bb";
    let changes = (0..12).map(|number| {
        let body = match number % 3 {
            0 => json!({ "readme": "r".repeat(3000 + number) }),
            1 => json!({ "customData": "d" }),
            _ => json!({ "vcsUrl": "https://example.org" }),
        };
        let alice = alice.clone();
        async move { set(&alice, path, body).await.ok() }
    });
    futures::future::join_all(changes).await;
    let seen = alice.get(path).await.ok()["data"].clone();
    assert!(seen["readme"].as_str().unwrap().len() >= 3000);
    assert_eq!((&seen["customData"], &seen["vcsUrl"]), (&json!("d"), &json!("https://example.org")));
    server.sweep_all().await;
}

#[tokio::test]
async fn a_readme_is_read_with_its_container_and_by_nothing_else() {
    let (_server, alice) = start().await;
    let costs = async || {
        let mut costs = Vec::new();
        for path in [
            "/v1/containers/alice/tools/bb",
            "/v1/images/alice/tools/bb:v1",
            "/v1/imagefile/alice/tools/bb:v1",
            "/v2/alice/tools/bb/manifests/v1",
            "/api/repositories/alice/tools/bb",
        ] {
            costs.push(alice.get(path).await.cost());
        }
        costs
    };
    // The first reads leave the manifest in memory, of each server if there are two in turn.
    costs().await;
    costs().await;
    let before = costs().await;
    assert_eq!((before[1], before[4]), ((1, 0), (1, 0)));
    set(&alice, "/v1/containers/alice/tools/bb", json!({ "readme": README })).await.ok();
    assert_eq!(costs().await, before);
    // One write changes all of it.
    let body = json!({ "readme": "new", "description": "new", "visibility": "private" });
    assert_eq!(set(&alice, "/api/repositories/alice/tools/bb", body).await.cost(), (1, 1));
}

#[tokio::test]
async fn any_repository_can_be_described() {
    let (_server, alice) = start().await;
    let made = send(alice.request(Method::POST, "/v2/alice/one/two/three/four/blobs/uploads/")).await;
    assert_eq!(made.status.as_u16(), 202);
    let path = "/api/repositories/alice/one/two/three/four";
    if alice.get(path).await.status == 404 {
        // It is made with its first blob.
        let digest = shared::domain::Digest::of(b"x");
        let upload = format!("/v2/alice/one/two/three/four/blobs/uploads/?digest={digest}");
        assert_eq!(send(alice.request(Method::POST, &upload).body("x")).await.status.as_u16(), 201);
    }
    set(&alice, path, json!({ "readme": README, "vcsUrl": "https://example.org" })).await.ok();
    let seen = alice.get(path).await.ok()["data"].clone();
    assert_eq!((&seen["readme"], &seen["name"]), (&json!(README), &json!("alice/one/two/three/four")));
    assert_eq!(seen["customData"], json!(""));
    let listed = alice.get("/api/repositories?entity=alice").await.ok();
    let names: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, [&json!("alice/one/two/three/four"), &json!("alice/tools/bb")]);
}

#[tokio::test]
async fn a_private_collection_keeps_its_readme_to_itself() {
    let (server, alice) = start().await;
    let bob = server.user("bob", 0).await;
    private_collection(&alice, "alice", "secret").await;
    alice.container("alice/secret/bb").await;
    for path in ["/v1/collections/alice/secret", "/v1/containers/alice/secret/bb"] {
        set(&alice, path, json!({ "readme": "hush" })).await.ok();
        for who in [&server.nobody, &bob] {
            let answer = who.get(path).await;
            assert!(!String::from_utf8_lossy(&answer.bytes).contains("hush"), "{path}");
            answer.error(404);
        }
    }
}
