//! The history of tags, which follows from the changes of every door.

use crate::library::{hash, set, sif, write};
use crate::support::{BB, digest, is, manifest, manifest_at, push, push_sif};
use futures::future::join_all;
use serde_json::{Value, json};
use shared::domain::{Digest, Time};
use shared::service::{history, outbox, sweep};
use shared::store::keys;
use shared::store::rows::{Pending, TagMove, TagThen};
use stackroom_tests::functions::only_in_one_process;
use stackroom_tests::layered::Layered;
use stackroom_tests::mortal::Mortal;
use stackroom_tests::{Caller, Server};
use std::collections::BTreeMap;

/// All entries of the outbox.
async fn waiting(app: &shared::App) -> usize {
    let mut waiting = 0;
    for part in 0..keys::OUTBOX_PARTS {
        waiting += app.table.query_all::<Pending>(keys::outbox(part)).await.unwrap().len();
    }
    waiting
}

/// The history of a tag, the latest first: digests, and hashes of amd64.
async fn history(who: &Caller, tag: &str) -> Vec<(String, String)> {
    let answer = who.get(&format!("/api/history?repository={BB}&tag={tag}")).await.ok();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = answer["data"].as_array().unwrap().iter();
    rows.map(|row| (text(&row["digest"]), text(&row["images"]["amd64"]))).collect()
}

#[tokio::test]
async fn a_tag_remembers_where_it_led_whichever_door_moved_it() {
    let server = Server::start().await;
    let (alice, app) = (server.user("alice", 0).await, &server.local.app);
    let pinned = |bytes: &[u8]| format!("{BB}:{}", hash(bytes));
    alice.push(BB, "v1", "amd64", &sif(1)).await.ok();
    let first = digest(manifest(&alice, BB, "v1").await.as_bytes());
    let second = digest(push_sif(&alice, BB, "v1", &sif(2)).await.as_bytes());
    let third = digest(push(&alice, BB, "v1", b"config", &[b"layer"]).await.as_bytes());
    is(&alice.delete(&manifest_at(BB, "v1")).await, 202);
    alice.push(BB, "v1", "amd64", &sif(1)).await.ok();
    let fifth = digest(manifest(&alice, BB, "v1").await.as_bytes());
    assert!(waiting(app).await >= 5);
    assert_eq!(history(&alice, "v1").await, []);
    // Whoever follows changes at the same time does the same.
    for followed in join_all((0..4).map(|_| outbox::follow(app))).await {
        followed.unwrap();
    }
    assert_eq!((waiting(app).await, outbox::follow(app).await.unwrap()), (0, 0));
    let expected = [
        (fifth, pinned(&sif(1))),
        (String::new(), String::new()),
        (third, String::new()),
        (second, pinned(&sif(2))),
        (first, pinned(&sif(1))),
    ];
    assert_eq!(history(&alice, "v1").await, expected);
    // The reference leads to the same bytes after the tag was moved.
    assert_eq!(alice.pull(&pinned(&sif(2))).await.bytes, sif(2));
    let row = alice.get(&format!("/api/history?repository={BB}&tag=v1")).await.ok()["data"][0].clone();
    assert_eq!(row["by"], json!("alice"));
    assert!(row["since"].as_str().unwrap().parse::<Time>().is_ok());
    assert_eq!(history(&alice, "v2").await, []);
    // Hidden with its container, and gone with it.
    assert_eq!(history(&server.nobody, "v1").await.len(), 5);
    let private = json!({ "visibility": "private" });
    set(&alice, &format!("/v1/containers/{BB}"), private).await.ok();
    server.nobody.get(&format!("/api/history?repository={BB}&tag=v1")).await.error(404);
    alice.delete(&format!("/v1/containers/{BB}?cascade=true")).await.ok();
    outbox::follow(app).await.unwrap();
    alice.get(&format!("/api/history?repository={BB}&tag=v1")).await.error(404);
    server.sweep_all().await;
    assert_eq!(
        app.table.first_keys(keys::tag_history(&BB.parse().unwrap(), &"v1".parse().unwrap()), 1).await.unwrap(),
        []
    );
}

fn then(tag: &str, seconds: i64, leads: Option<u8>) -> TagThen {
    let digest = leads.map(|byte| Digest::of(&[byte]).into());
    TagThen {
        repository: BB.parse().unwrap(),
        led: TagMove { tag: tag.parse().unwrap(), digest, images: BTreeMap::new() },
        by: "alice".parse().unwrap(),
        millis: u64::try_from(seconds).unwrap() * 1000 + 500,
        random: 7,
    }
}

#[tokio::test]
async fn a_time_is_answered_with_where_the_tag_led_then() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    alice.container(BB).await;
    let now = server.local.app.now().0 + 1000;
    for (after, leads) in [(0, Some(1)), (100, Some(2)), (200, None), (300, Some(3))] {
        write(&server, &then("v1", now + after, leads)).await;
    }
    write(&server, &then("v1-other", now + 150, Some(9))).await;
    // Of a container of this name that was deleted.
    write(&server, &then("v1", now - 5000, Some(8))).await;
    let sha = |byte: u8| digest(&[byte]);
    let cases = [
        (-1, None),
        (0, Some(sha(1))),
        (99, Some(sha(1))),
        (100, Some(sha(2))),
        (200, Some(String::new())),
        (299, Some(String::new())),
        (300, Some(sha(3))),
        (1_000_000_000, Some(sha(3))),
    ];
    for (after, leads) in cases {
        let at = Time(now + after);
        let answer = alice.get(&format!("/api/history?repository={BB}&tag=v1&at={at}")).await.ok();
        let rows = answer["data"].as_array().unwrap();
        let led = rows.first().map(|row| row["digest"].as_str().unwrap().to_owned());
        assert_eq!((rows.len() <= 1, led, &answer["page"]["next"]), (true, leads, &json!("")), "{after}");
    }
    let day = alice.get(&format!("/api/history?repository={BB}&tag=v1&at=2100-01-01")).await.ok();
    assert_eq!(day["data"][0]["digest"], json!(sha(3)));
    for wrong in ["at=yesterday", "at=", "tag=a%20b", "repository="] {
        alice.get(&format!("/api/history?repository={BB}&tag=v1&{wrong}")).await.error(400);
    }
}

#[tokio::test]
async fn a_history_is_listed_in_pages_and_has_an_end() {
    let server = Server::start().await;
    let (alice, app) = (server.user("alice", 0).await, &server.local.app);
    alice.container(BB).await;
    let now = app.now().0 + 1000;
    let many = i64::try_from(history::KEPT).unwrap() + 30;
    for number in 0..many {
        write(&server, &then("v1", now + number, Some(u8::try_from(number % 250).unwrap()))).await;
    }
    for number in 0..3 {
        write(&server, &then("v2", now + number, None)).await;
    }
    sweep::sweep(app, sweep::Ages::safe(app)).await.unwrap();
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = alice.get(&format!("/api/history?repository={BB}&tag=v1{after}")).await.ok();
        listed.extend(page["data"].as_array().unwrap().iter().map(|row| row["digest"].clone()));
        let Some(next) = page["page"]["next"].as_str().filter(|next| !next.is_empty()) else { break };
        after = format!("&after={next}");
    }
    let led = (30..many).rev().map(|number| json!(digest(&[u8::try_from(number % 250).unwrap()])));
    assert_eq!(listed, led.collect::<Vec<Value>>());
    assert_eq!(history(&alice, "v2").await.len(), 3);
}

#[tokio::test]
async fn whoever_follows_changes_may_die_at_any_write() {
    if only_in_one_process("it kills the stores of this process") {
        return;
    }
    let stores = Mortal::at_a_write();
    let server = Server::start_through(&[], &Layered(stores.clone())).await;
    let (alice, app) = (server.user("alice", 0).await, &server.local.app);
    let mut expected = Vec::new();
    for writes in 0.. {
        for seed in [1, 2] {
            alice.push(BB, "v1", "amd64", &sif(seed)).await.ok();
            expected.insert(0, format!("{BB}:{}", hash(&sif(seed))));
        }
        stores.dies_after(writes);
        let followed = outbox::follow(app).await;
        let died = stores.died();
        stores.lives();
        assert_eq!(followed.is_err(), died);
        if died {
            assert!(waiting(app).await >= 2);
            outbox::follow(app).await.unwrap();
        }
        let led: Vec<String> = history(&alice, "v1").await.into_iter().map(|(_, image)| image).collect();
        assert_eq!((&led, waiting(app).await), (&expected, 0), "after {writes} writes");
        if !died {
            assert!(writes >= 2, "{writes}");
            return;
        }
    }
}
