//! Every change leaves an event: who did what, where, with which token.

use crate::support::{set, sif};
use serde_json::{Value, json};
use shared::domain::Actor;
use shared::store::keys;
use shared::store::rows::{Event, Token};
use stackroom_tests::{Caller, Server};

/// The events of a log, oldest first, as lines of place and what was done.
async fn told(server: &Server, log: &str) -> Vec<String> {
    let events: Vec<Event> = server.local.app.table.query_all(keys::events(log)).await.unwrap();
    assert!(events.iter().map(|event| event.millis).is_sorted());
    let lines = events.into_iter().flat_map(|event| {
        let place = event.place;
        event.what.into_iter().map(move |what| {
            let what = serde_json::to_value(what).unwrap();
            let name =
                what.as_str().map_or_else(|| what.as_object().unwrap().keys().next().unwrap().clone(), str::to_owned);
            format!("{place}: {name}")
        })
    });
    lines.collect()
}

#[tokio::test]
async fn every_change_of_what_an_entity_holds_is_told_in_its_log_and_no_read_is() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    let container = alice.container("alice/tools/bb").await;
    alice.push("alice/tools/bb", "v1", "amd64", &bytes).await.ok();
    assert!(!container.is_empty());
    let pushed = [
        "alice: entity_made",
        "alice/tools: collection_made",
        "alice/tools/bb: container_made",
        "alice/tools/bb: image_begun",
        "alice/tools/bb: image_committed",
        "alice/tools/bb: tag_set",
    ];
    // The entity was created with its user, and that event is in the user's log.
    assert_eq!(told(&server, "alice").await, pushed[1..]);
    alice.pull("alice/tools/bb:v1").await;
    alice.get("/v1/search?value=tools").await.ok();
    alice.get("/v1/images/alice/tools/bb:v1").await.ok();
    assert_eq!(told(&server, "alice").await.len(), pushed.len() - 1, "reading is no change");

    for (path, body) in [
        ("/v1/entities/alice", json!({ "description": "what it is" })),
        ("/v1/collections/alice/tools", json!({ "private": false })),
        ("/v1/containers/alice/tools/bb", json!({ "readOnly": false })),
        ("/v1/images/alice/tools/bb:v1", json!({ "frozen": true })),
    ] {
        set(&alice, path, body).await.ok();
    }
    alice.delete("/v1/images/alice/tools/bb:v1").await.error(403);
    alice.delete("/v1/images/alice/tools/bb:v9").await.error(404);
    set(&alice, "/v1/images/alice/tools/bb:v1", json!({ "frozen": false })).await.ok();
    alice.delete("/v1/images/alice/tools/bb:v1").await.ok();
    server.admin.put("/api/entities/alice/quota", json!({ "limit": 9 })).await.ok();
    let changed = [
        "alice: changed",
        "alice/tools: changed",
        "alice/tools/bb: changed",
        "alice/tools/bb: tag_frozen",
        "alice/tools/bb: tag_frozen",
        "alice/tools/bb: image_removed",
        "alice/tools/bb: tag_removed",
        "alice: limit_set",
    ];
    assert_eq!(told(&server, "alice").await[pushed.len() - 1..], changed);
}

#[tokio::test]
async fn an_event_names_the_actor_and_the_token_and_goes_when_its_time_is_over() {
    let server = Server::start_with(&[("STACKROOM_EVENT_LIFE", "0")]).await;
    let alice = server.user("alice", 0).await;
    let tokens: Vec<Token> = server.local.app.table.query_all(keys::tokens(&"alice".parse().unwrap())).await.unwrap();
    alice.container("alice/tools/bb").await;
    let events: Vec<Event> = server.local.app.table.query_all(keys::events("alice")).await.unwrap();
    assert!(!events.is_empty());
    for event in &events {
        assert_eq!(event.actor, Actor::User("alice".parse().unwrap()));
        assert_eq!(event.token, Some(tokens[0].id));
        assert_eq!(event.action, "create");
    }
    // The administrator made the account and the token.
    let own: Vec<Event> = server.local.app.table.query_all(keys::events("+alice")).await.unwrap();
    let shown: Vec<Value> = own.iter().map(|event| json!([event.actor, event.place])).collect();
    assert_eq!(shown, vec![json!(["admin", "user alice"]); 2]);
    server.sweep_all().await;
    for log in ["alice", "+alice"] {
        assert!(told(&server, log).await.is_empty(), "{log}");
    }
}

/// The whole log behind a path, page by page.
async fn read_log(who: &Caller, path: &str) -> Vec<serde_json::Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = who.get(&format!("{path}{after}")).await.ok();
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        let next = page["page"]["next"].as_str().unwrap().to_owned();
        if next.is_empty() {
            return all;
        }
        after = format!("&after={next}");
    }
}

#[tokio::test]
async fn a_log_says_who_did_what_from_where_to_those_who_manage_the_place() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    alice.post("/api/groups", json!({ "name": "acme" })).await.ok();
    let role = json!({ "role": "contributor" });
    alice.put("/api/entities/acme/members/bob", role).await.ok();
    bob.push("acme/tools/bb", "v1", "amd64", &sif(1)).await.ok();
    for number in 0..60 {
        let private = json!({ "private": number % 2 == 0 });
        set(&alice, "/v1/collections/acme/tools", private).await.ok();
    }
    // The server of the tests counts as behind a proxy, which names the address.
    let from =
        alice.request(reqwest::Method::PATCH, "/v1/collections/acme/tools").header("x-forwarded-for", "192.0.2.7");
    stackroom_tests::send(from.body(json!({ "description": "x" }).to_string())).await.ok();
    let all = read_log(&alice, "/api/entities/acme/events?").await;
    assert!(all.len() > 65, "{}", all.len());
    assert_eq!(
        (&all[0]["from"], &all[0]["actor"], &all[0]["action"]),
        (&json!("192.0.2.7"), &json!("alice"), &json!("manage"))
    );
    assert!(all[0]["token"].is_string() && all[0]["what"][0]["changed"] == json!(["description"]), "{}", all[0]);
    let times: Vec<&str> = all.iter().map(|event| event["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|one, next| one >= next), "the latest come first");
    assert!(all.last().unwrap()["what"].to_string().contains("entity_made"), "{all:?}");
    let by_bob = read_log(&alice, "/api/entities/acme/events?actor=bob").await;
    assert!(!by_bob.is_empty() && by_bob.iter().all(|event| event["actor"] == "bob"));
    let managed = read_log(&alice, "/api/entities/acme/events?action=manage").await;
    assert_eq!(managed.len(), all.iter().filter(|event| event["action"] == "manage").count());
    assert!(managed.iter().any(|event| event["what"][0]["roles_changed"]["actor"] == "bob"));
    assert_eq!(read_log(&alice, "/api/entities/acme/events?until=1000").await.len(), 0);
    assert_eq!(read_log(&alice, "/api/entities/acme/events?since=99999999999").await.len(), 0);
    // Only those who manage a place read its log.
    bob.get("/api/entities/acme/events").await.error(403);
    server.nobody.get("/api/entities/acme/events").await.error(401);
    bob.get("/api/users/alice/events").await.error(403);
    bob.get("/api/events").await.error(403);
    server.admin.get("/api/entities/acme/events").await.ok();
    server.admin.get("/api/events").await.ok();
    let own = read_log(&alice, "/api/users/alice/events?").await;
    assert!(own.iter().any(|event| event["what"].to_string().contains("token_made")), "{own:?}");
    // No secret is in it.
    let token = alice.token.clone().unwrap();
    assert!(!format!("{own:?}").contains(token.rsplit('.').next().unwrap()));
}
