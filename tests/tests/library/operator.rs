//! What an operator decides and sees: the lives of tokens and how many there are, the accounts, what administrators see.

use crate::support::{begin, join, join_many, opened_parts, private_collection, sif, sif_of, tag, text, write};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::{Actor, Role, Time};
use shared::store::keys;
use shared::store::rows::{Account, Token};
use stackroom_tests::functions::only_on_one_server;
use stackroom_tests::{Caller, Server, functions, send};
use std::sync::atomic::{AtomicU64, Ordering};

async fn tokens_of(server: &Server, name: &str) -> Vec<Token> {
    let actor: Actor = name.parse().unwrap();
    server.local.app.table.query_all(keys::tokens(&actor)).await.unwrap()
}

async fn works(who: &Caller) -> bool {
    who.get("/v1/token-status").await.status == 200
}

#[tokio::test]
async fn no_token_lives_longer_than_the_operator_allows() {
    let server = Server::start_with(&[("STACKROOM_MAX_TOKEN_LIFE", "3600")]).await;
    let alice = server.user("alice", 0).await;
    let asked = json!({ "name": "long", "expires_in": 3601 + 60 });
    let why = server.admin.post("/api/users/alice/tokens", asked).await.error(400);
    assert!(why.contains("3600 seconds") && why.contains("STACKROOM_MAX_TOKEN_LIFE"), "{why}");
    server.token("alice", json!({ "name": "short", "expires_in": 60 })).await;
    // Whoever asks for nothing gets what there is.
    let (now, tokens) = (server.local.app.now(), tokens_of(&server, "alice").await);
    let first = tokens.iter().find(|token| token.name == "test").unwrap().clone();
    let left = first.expires.unwrap().0 - now.0;
    assert!((3500..=3600).contains(&left), "{left}");
    // Their own token makes none that outlives it, and asking for nothing gets as much as it has left.
    alice.post("/api/users/alice/tokens", json!({ "name": "own" })).await.ok();
    let own = tokens_of(&server, "alice").await.into_iter().find(|token| token.name == "own").unwrap();
    assert!(own.expires <= first.expires, "{own:?}");
    // One from before, which says that it never ends, ends too.
    let then = now.minus(std::time::Duration::from_mins(50));
    write(&server, &Token { created: then, expires: None, ..first.clone() }).await;
    assert!(works(&alice).await);
    let listed = alice.get("/api/users/alice/tokens").await.ok();
    let listed = listed["data"].as_array().unwrap().iter().find(|row| row["name"] == "test").unwrap().clone();
    assert_eq!(listed["expires"], json!(Time(then.0 + 3600).to_string()));
    let then = now.minus(std::time::Duration::from_secs(3601));
    write(&server, &Token { created: then, expires: None, ..first }).await;
    assert!(!works(&alice).await);
}

#[tokio::test]
async fn the_operators_token_begins_anew_before_its_life_is_over() {
    let server = Server::start_with(&[("STACKROOM_MAX_TOKEN_LIFE", "3600")]).await;
    let file = server.local.admin_token();
    let read = || std::fs::read_to_string(&file).unwrap();
    let before = read();
    server.local.renew_admin_token().await.unwrap();
    assert_eq!(before, read(), "it is new");
    let row = tokens_of(&server, "admin").await.remove(0);
    write(&server, &Token { created: Time(row.created.0 - 5000), ..row.clone() }).await;
    assert!(!works(&server.nobody.with(&read())).await);
    server.local.renew_admin_token().await.unwrap();
    assert!(works(&server.nobody.with(&read())).await);
    assert_eq!(tokens_of(&server, "admin").await.len(), 1, "in its own place");
    // One that was revoked does not come back.
    let operator = server.nobody.with(&read());
    operator.delete(&format!("/api/users/admin/tokens/{}", row.id)).await.ok();
    server.local.renew_admin_token().await.unwrap();
    assert!(!works(&server.nobody.with(&read())).await && tokens_of(&server, "admin").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_200_tokens_and_no_more_however_many_are_made_at_once() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    alice.post("/api/groups", json!({ "name": "acme" })).await.ok();
    alice.post("/api/entities/acme/robots", json!({ "name": "ci", "role": "reader" })).await.ok();
    for (account, there) in [("alice", 1), ("acme+ci", 0)] {
        let path = format!("/api/users/{account}/tokens");
        let sample = tokens_of(&server, "alice").await.remove(0);
        for number in there..190_u64 {
            let mut id = [0; 12];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let (id, actor) = (shared::domain::TokenId::from_random(id), account.parse().unwrap());
            write(&server, &Token { id, actor, name: "many".to_owned(), ..sample.clone() }).await;
        }
        let made = (0..30).map(|number| alice.post(&path, json!({ "name": format!("t{number}") })));
        let made = futures::future::join_all(made).await;
        let good = made.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(good, 10);
        let refused = made.into_iter().find(|answer| answer.status != 200).unwrap().error(409);
        assert_eq!(refused, format!("{account} has 200 tokens already, the most there can be: revoke some"));
        assert_eq!(tokens_of(&server, account).await.len(), 200);
        // Some of them expire, which makes room.
        let long_ago = Time(server.local.app.now().0 - 10_000);
        for token in tokens_of(&server, account).await.into_iter().filter(|token| token.name == "many").skip(1).take(3)
        {
            write(&server, &Token { expires: Some(long_ago), ..token }).await;
        }
        alice.post(&path, json!({ "name": "more" })).await.ok();
        assert_eq!(tokens_of(&server, account).await.len(), 198);
    }
}

async fn compared(server: &Server) -> Value {
    server.admin.get("/api/accounts").await.ok()["data"].clone()
}

async fn account(server: &Server, name: &str) -> Account {
    server.local.app.table.get(keys::account(&name.parse().unwrap())).await.unwrap().unwrap()
}

/// Some of everything that counts.
async fn mixed_run(server: &Server) -> Caller {
    let alice = server.user("alice", 100_000_000).await;
    for number in 0..4 {
        alice.push(&format!("alice/tools/c{}", number % 2), "v1", "amd64", &sif(number)).await.ok();
    }
    let opened = alice.post("/v2/alice/tools/c0/blobs/uploads/", Value::Null).await;
    let url = opened.header("location").unwrap().to_owned();
    send(alice.request(Method::PATCH, &url).body(vec![7; 200_000])).await;
    begin(&alice, "alice/tools/begun", &sif(7)).await;
    opened_parts(&alice, "alice/tools/parts", &sif_of(8, 200_000)).await;
    let given_up = opened_parts(&alice, "alice/tools/parts", &sif_of(9, 200_000)).await;
    given_up.abort(&alice).await.ok();
    alice.delete("/v1/images/alice/tools/c0:v1").await.ok();
    alice
}

#[tokio::test]
async fn the_accounts_are_right_after_a_mixed_run_and_one_that_is_wrong_is_found_and_corrected() {
    let server = Server::start().await;
    let alice = mixed_run(&server).await;
    let right = compared(&server).await;
    assert_eq!(right, json!({ "checked": 2, "wrong": [], "undecided": [], "failed": 0 }));
    let before = account(&server, "alice").await;
    let mut quota = before.quota;
    (quota.charged, quota.rows) = (quota.charged + 5, quota.rows - 2);
    write(&server, &Account { quota, ..before.clone() }).await;
    let wrong = compared(&server).await;
    let drift = &wrong["wrong"][0];
    assert_eq!(drift["entity"], "alice");
    let number = |side: &str, name: &str| drift[side][name].as_i64().unwrap();
    assert_eq!(number("account", "used"), number("sum", "used") + 5);
    assert_eq!(number("account", "rows"), number("sum", "rows") - 2);
    assert_eq!((number("account", "reserved"), &drift["repaired"]), (number("sum", "reserved"), &json!(false)));
    assert_eq!(account(&server, "alice").await.quota, quota, "reading changes nothing");
    alice.get("/api/accounts").await.error(403);
    alice.post("/api/accounts", json!({ "repair": true })).await.error(403);
    let corrected = server.admin.post("/api/accounts", json!({ "repair": true })).await.ok();
    assert_eq!(corrected["data"]["wrong"][0]["repaired"], true);
    assert_eq!(account(&server, "alice").await.quota, before.quota);
    assert_eq!(compared(&server).await["wrong"], json!([]));
    // It is in the log, and pushing goes on.
    let log = alice.get("/api/entities/alice/events").await.ok();
    assert!(log["data"][0]["what"].to_string().contains("account_corrected"), "{log}");
    alice.push("alice/tools/after", "v1", "amd64", &sif(20)).await.ok();
    server.sweep_all().await;
    assert_eq!(compared(&server).await["wrong"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_and_deleted_meanwhile_makes_no_account_wrong() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    bob.push("bob/tools/bb", "v1", "amd64", &sif(1)).await.ok();
    let before = account(&server, "bob").await;
    let mut quota = before.quota;
    quota.charged += 9;
    write(&server, &Account { quota, ..before.clone() }).await;
    // So many other rows that a scan takes a while, between those of the account and those that count.
    join_many(&server, "filler", 700).await;
    alice.push("alice/tools/bb", "v1", "amd64", &sif(2)).await.ok();
    let push = begin(&alice, "alice/tools/bb", &sif(2)).await;
    let tagged = AtomicU64::new(0);
    let tagging = async {
        for number in 0..150 {
            tag(&alice, &push, &format!("t{number}")).await.ok();
            tagged.store(number + 1, Ordering::Relaxed);
        }
    };
    let comparing = async {
        while tagged.load(Ordering::Relaxed) < 150 {
            let found = compared(&server).await;
            let wrong: Vec<&Value> = found["wrong"].as_array().unwrap().iter().map(|one| &one["entity"]).collect();
            assert_eq!(wrong, [&json!("bob")], "{found}");
        }
    };
    futures::join!(tagging, comparing);
    server.admin.post("/api/accounts", json!({ "repair": true })).await.ok();
    assert_eq!(account(&server, "bob").await.quota, before.quota);
    server.sweep_all().await;
}

/// What the log of an entity says of looks, the latest first, as action and place.
async fn looks(who: &Caller, path: &str) -> Vec<(String, String)> {
    let log = who.get(path).await.ok();
    let all = log["data"].as_array().unwrap().iter().filter(|event| event["what"] == json!(["looked"]));
    all.map(|event| (text(event, "/action"), text(event, "/place"))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(action, place)| ((*action).to_owned(), (*place).to_owned())).collect()
}

#[tokio::test]
async fn what_an_administrator_sees_of_others_is_in_their_log_before_it_is_shown() {
    let server = Server::start().await;
    let (alice, rita) = (server.user("alice", 0).await, server.user("rita", 0).await);
    join(&server, "alice", "rita", Role::Reader).await;
    private_collection(&alice, "alice", "secret").await;
    alice.push("alice/secret/bb", "v1", "amd64", &sif(1)).await.ok();
    alice.push("alice/tools/bb", "v1", "amd64", &sif(2)).await.ok();
    let log = "/api/entities/alice/events";
    // Who has a role there, and what everybody may see, leave nothing.
    for who in [&alice, &rita] {
        for path in ["/v1/images/alice/secret/bb:v1", "/v1/imagefile/alice/secret/bb:v1", "/v1/entities/alice"] {
            assert_eq!(who.get(path).await.cost().1, 0);
        }
        who.get("/api/entities/alice/members").await.ok();
    }
    for path in ["/v1/images/alice/tools/bb:v1", "/v1/imagefile/alice/tools/bb:v1", "/v1/images/alice/secret/bb:no"] {
        assert_eq!(server.admin.get(path).await.cost().1, 0, "{path}");
    }
    assert!(looks(&alice, log).await.is_empty());

    if only_on_one_server("each server writes down what it showed") {
        return;
    }
    let lookup = server.admin.get("/v1/images/alice/secret/bb:v1").await;
    assert_eq!((lookup.status.as_u16(), lookup.cost()), (200, (1, 1)));
    assert_eq!(server.admin.get("/v1/images/alice/secret/bb:v1").await.cost(), (1, 0), "once an hour");
    assert_eq!(looks(&alice, log).await, pairs(&[("see", "alice/secret/bb")]));
    server.admin.get("/v1/imagefile/alice/secret/bb:v1").await;
    server.admin.get("/v2/alice/secret/bb/manifests/v1").await.ok();
    server.admin.get("/api/entities/alice/members").await.ok();
    server.admin.get("/v1/collections?entity=alice").await.ok();
    server.admin.get("/api/entities/alice/robots").await.ok();
    server.admin.get("/api/users/alice/tokens").await.ok();
    let mut seen = looks(&alice, log).await;
    let seen_before = seen.len();
    if functions::serve() {
        // Each function remembers for itself what it wrote down.
        seen.dedup();
    }
    assert_eq!(
        seen,
        pairs(&[("manage", "alice"), ("list", "alice"), ("pull", "alice/secret/bb"), ("see", "alice/secret/bb")])
    );
    assert_eq!(looks(&alice, "/api/users/alice/events").await, pairs(&[("manage", "user alice")]));
    // It says who looked, and with which token; rita may not read it.
    let all = alice.get(log).await.ok();
    assert_eq!(all["data"][0]["actor"], "admin");
    assert!(all["data"][0]["token"].is_string());
    rita.get(log).await.error(403);
    // What an administrator changes leaves its own event, and no look.
    server.admin.put("/api/entities/alice/members/rita", json!({ "role": "contributor" })).await.ok();
    assert_eq!(looks(&alice, log).await.len(), seen_before);
    // An administrator of a group has a role there.
    server.admin.post("/api/groups", json!({ "name": "acme" })).await.ok();
    server.admin.get("/api/entities/acme/members").await.ok();
    assert!(looks(&server.admin, "/api/entities/acme/events").await.is_empty());
}

#[tokio::test]
async fn a_mount_from_a_private_repository_is_an_administrators_look_too() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    private_collection(&alice, "alice", "secret").await;
    alice.push("alice/secret/bb", "v1", "amd64", &sif(1)).await.ok();
    let digest = shared::domain::Digest::of(&sif(1));
    let mount = format!("/v2/admin/tools/bb/blobs/uploads/?mount={digest}&from=alice/secret/bb");
    assert_eq!(server.admin.post(&mount, Value::Null).await.status, 201);
    assert_eq!(looks(&alice, "/api/entities/alice/events").await, pairs(&[("pull", "alice/secret/bb")]));
}

#[tokio::test]
async fn the_level_of_a_quota_is_shown_to_its_members() {
    let server = Server::start_with(&[("STACKROOM_QUOTA_WARNING", "50")]).await;
    let (alice, bob) = (server.user("alice", 200_000).await, server.user("bob", 0).await);
    let level = async |who: &Caller| text(&who.get("/api/entities/alice/quota").await.ok(), "/data/level");
    assert_eq!(level(&alice).await, "free");
    alice.push("alice/tools/one", "v1", "amd64", &sif_of(1, 100_000)).await.ok();
    assert_eq!(level(&alice).await, "warning");
    alice.push("alice/tools/two", "v1", "amd64", &sif_of(2, 100_000)).await.ok();
    assert_eq!((level(&alice).await, level(&server.admin).await), ("full".to_owned(), "full".to_owned()));
    let users = server.admin.get("/api/users").await.ok();
    let levels: Vec<&Value> = users["data"].as_array().unwrap().iter().map(|user| &user["level"]).collect();
    assert_eq!(levels, [&json!("free"), &json!("full"), &json!("free")]);
    for path in ["/api/entities/alice/quota", "/api/entities/missing/quota"] {
        bob.get(path).await.error(404);
        server.nobody.get(path).await.error(404);
    }
    join(&server, "alice", "bob", Role::Reader).await;
    assert_eq!(level(&bob).await, "full");
}
