//! Every change leaves an event: who did what, where, with which token.

use crate::support::{set, sif};
use serde_json::{Value, json};
use shared::domain::Actor;
use shared::store::keys;
use shared::store::rows::{Event, Token};
use stackroom_tests::Server;

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
