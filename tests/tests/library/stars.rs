//! Stars: given, taken back, counted, listed.

use crate::support::{private_collection, set, sif, text};
use serde_json::{Value, json};
use shared::domain::Role;
use stackroom_tests::{Caller, Server};

async fn id(who: &Caller, path: &str) -> String {
    text(&who.get(&format!("/v1/containers/{path}")).await.ok(), "/data/id")
}

async fn stars(who: &Caller, path: &str) -> Value {
    who.get(&format!("/v1/containers/{path}")).await.ok()["data"]["stars"].clone()
}

/// The paths in a list of stars.
fn paths(list: &Value) -> Vec<String> {
    let path =
        |row: &Value| format!("{}/{}/{}", text(row, "/entityName"), text(row, "/collectionName"), text(row, "/name"));
    list["data"].as_array().unwrap().iter().map(path).collect()
}

async fn start() -> (Server, Caller, Caller) {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    private_collection(&alice, "alice", "secret").await;
    for path in ["alice/tools/one", "alice/tools/two", "alice/secret/three"] {
        alice.push(path, "v1", "amd64", &sif(1)).await.ok();
    }
    (server, alice, bob)
}

#[tokio::test]
async fn a_star_counts_once_and_is_taken_back_once() {
    let (server, alice, bob) = start().await;
    let one = id(&alice, "alice/tools/one").await;
    for count in [1, 1, 1] {
        let listed = bob.post(&format!("/v1/users/bob/stars/{one}"), json!({})).await.ok();
        assert_eq!((paths(&listed), &listed["data"][0]["stars"]), (vec!["alice/tools/one".to_owned()], &json!(count)));
        assert_eq!(stars(&server.nobody, "alice/tools/one").await, json!(count));
    }
    alice.post(&format!("/v1/users/alice/stars/{one}"), json!({})).await.ok();
    assert_eq!(stars(&server.nobody, "alice/tools/one").await, json!(2));
    assert_eq!(alice.get("/api/repositories/alice/tools/one").await.ok()["data"]["stars"], json!(2));
    for _ in 0..3 {
        let listed = bob.delete(&format!("/v1/users/bob/stars/{one}")).await.ok();
        assert_eq!(paths(&listed), Vec::<String>::new());
        assert_eq!(stars(&alice, "alice/tools/one").await, json!(1));
    }
    assert_eq!(stars(&alice, "alice/tools/two").await, json!(0));
    server.sweep_all().await;
}

#[tokio::test]
async fn stars_of_many_at_once_add_up() {
    let (server, alice, bob) = start().await;
    let one = id(&alice, "alice/tools/one").await;
    let mut users = vec![bob.clone(), alice.clone()];
    for number in 0..6 {
        users.push(server.user(&format!("u{number}"), 0).await);
    }
    let names = ["bob", "alice", "u0", "u1", "u2", "u3", "u4", "u5"];
    // Each three times at once.
    let path = |name: &str| format!("/v1/users/{name}/stars/{one}");
    let given = (0..24).map(|number| {
        let (who, path) = (users[number % 8].clone(), path(names[number % 8]));
        async move { who.post(&path, json!({})).await.ok() }
    });
    futures::future::join_all(given).await;
    assert_eq!(stars(&alice, "alice/tools/one").await, json!(8));
    let changed = (0..24).map(|number| {
        let (who, path) = (users[number % 8].clone(), path(names[number % 8]));
        async move { if number % 2 == 0 { who.delete(&path).await.ok() } else { who.post(&path, json!({})).await.ok() } }
    });
    futures::future::join_all(changed).await;
    assert_eq!(stars(&alice, "alice/tools/one").await, json!(4));
}

#[tokio::test]
async fn only_what_one_sees_is_starred_and_only_by_oneself() {
    let (server, alice, bob) = start().await;
    let (one, three) = (id(&alice, "alice/tools/one").await, id(&alice, "alice/secret/three").await);
    let nowhere = "0123456789abcdef01234567";
    for id in [three.as_str(), nowhere] {
        assert_eq!(bob.post(&format!("/v1/users/bob/stars/{id}"), json!({})).await.error(404), "container not found");
        assert_eq!(bob.delete(&format!("/v1/users/bob/stars/{id}")).await.error(404), "container not found");
    }
    server.nobody.post(&format!("/v1/users/bob/stars/{one}"), json!({})).await.error(401);
    for who in [&alice, &server.admin] {
        who.post(&format!("/v1/users/bob/stars/{one}"), json!({})).await.error(403);
    }
    for scope in ["pull", "pull,push", "pull,push,delete,manage@bob"] {
        let narrow = server.token("bob", json!({ "name": "n", "scope": scope })).await;
        narrow.post(&format!("/v1/users/bob/stars/{one}"), json!({})).await.error(403);
    }
    bob.post("/v1/users/bob/stars/1", json!({})).await.error(400);
    // A token for the place where the container lies stars it, and lists nothing.
    let own = server.token("alice", json!({ "name": "n", "scope": "pull,manage@alice" })).await;
    let listed = own.post(&format!("/v1/users/alice/stars/{one}"), json!({})).await.ok();
    assert_eq!((paths(&listed), stars(&alice, "alice/tools/one").await), (Vec::new(), json!(1)));
    own.delete(&format!("/v1/users/alice/stars/{one}")).await.ok();
    assert_eq!(stars(&alice, "alice/tools/one").await, json!(0));
    // An image or a collection has no stars.
    let collection = text(&alice.get("/v1/collections/alice/tools").await.ok(), "/data/id");
    alice.post(&format!("/v1/users/alice/stars/{collection}"), json!({})).await.error(404);
    // Its people star what is private, and read-only.
    set(&alice, "/v1/containers/alice/secret/three", json!({ "readOnly": true })).await.ok();
    crate::support::join(&server, "alice", "bob", Role::Reader).await;
    bob.post(&format!("/v1/users/bob/stars/{three}"), json!({})).await.ok();
    assert_eq!(stars(&alice, "alice/secret/three").await, json!(1));
    // Nobody's log is filled by it.
    let log = alice.get("/api/entities/alice/events").await;
    assert!(!String::from_utf8_lossy(&log.bytes).contains("\"star\""));
}

#[tokio::test]
async fn a_list_of_stars_hides_what_is_not_seen_any_more() {
    let (server, alice, bob) = start().await;
    for path in ["alice/tools/one", "alice/tools/two"] {
        let id = id(&alice, path).await;
        bob.post(&format!("/v1/users/bob/stars/{id}"), json!({})).await.ok();
    }
    let listed = async |who: &Caller| paths(&who.get("/v1/users/bob/stars").await.ok());
    assert_eq!(listed(&bob).await, ["alice/tools/one", "alice/tools/two"]);
    set(&alice, "/v1/containers/alice/tools/one", json!({ "visibility": "private" })).await.ok();
    assert_eq!(listed(&bob).await, ["alice/tools/two"]);
    assert_eq!(listed(&server.admin).await, ["alice/tools/one", "alice/tools/two"]);
    alice.get("/v1/users/bob/stars").await.error(404);
    server.nobody.get("/v1/users/bob/stars").await.error(401);
    // Through a role it is seen again.
    crate::support::join(&server, "alice", "bob", Role::Reader).await;
    assert_eq!(listed(&bob).await, ["alice/tools/one", "alice/tools/two"]);
    // A token for one place lists nothing of others.
    let narrow = server.token("bob", json!({ "name": "n", "scope": "pull@bob" })).await;
    narrow.get("/v1/users/bob/stars").await.error(404);
}

#[tokio::test]
async fn a_long_list_of_stars_comes_in_pages_of_bounded_cost() {
    let (_server, alice, bob) = start().await;
    let collection = text(&alice.get("/v1/collections/alice/tools").await.ok(), "/data/id");
    let mut expected = Vec::new();
    for number in 0..60 {
        let name = format!("c{number:03}");
        let made = alice.post("/v1/containers", json!({ "name": name, "collection": collection })).await.ok();
        bob.post(&format!("/v1/users/bob/stars/{}", text(&made, "/data/id")), json!({})).await.ok();
        expected.push(format!("alice/tools/{name}"));
    }
    let first = bob.get("/v1/users/bob/stars").await;
    assert!(first.cost().0 <= 4, "{:?}", first.cost());
    let first = first.ok();
    let second = bob.get(&format!("/v1/users/bob/stars?after={}", text(&first, "/page/next"))).await.ok();
    assert_eq!(second["page"]["next"], json!(""));
    assert_eq!([paths(&first), paths(&second)].concat(), expected);
    bob.get("/v1/users/bob/stars?after=").await.error(400);
}
