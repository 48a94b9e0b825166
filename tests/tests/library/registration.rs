//! Who may make an account for themselves: nobody, those with an invitation, or anybody.

use crate::support::text;
use reqwest::Method;
use serde_json::{Value, json};
use stackroom_tests::{Answer, Caller, Server, send};

const PASSWORD: &str = "correct horse battery";
const OPEN: (&str, &str) = ("STACKROOM_REGISTRATION", "open");
const INVITED: (&str, &str) = ("STACKROOM_REGISTRATION", "invitation");

/// Registers from an address. The server of the tests counts as behind a proxy, which names it.
async fn register_from(server: &Server, address: &str, body: Value) -> Answer {
    let request = server.nobody.request(Method::POST, "/api/register").header("x-forwarded-for", address);
    send(request.body(body.to_string())).await
}

async fn register(server: &Server, name: &str, invitation: Option<&str>) -> Answer {
    let body = json!({ "name": name, "password": PASSWORD, "invitation": invitation });
    register_from(server, "192.0.2.1", body).await
}

async fn invitation(server: &Server, body: Value) -> (String, String) {
    let made = server.admin.post("/api/invitations", body).await.ok();
    (text(&made, "/data/id"), text(&made, "/data/link"))
}

async fn users(server: &Server) -> Vec<String> {
    let users = server.admin.get("/api/users").await.ok();
    users["data"].as_array().unwrap().iter().map(|user| text(user, "/name")).collect()
}

#[tokio::test]
async fn nobody_registers_where_it_is_closed_and_nobody_without_an_invitation_where_one_is_needed() {
    let server = Server::start().await;
    let why = register(&server, "carol", None).await.error(403);
    assert!(why.contains("ask an administrator"), "{why}");
    let why = server.admin.post("/api/invitations", json!({})).await.error(400);
    assert!(why.contains("STACKROOM_REGISTRATION"), "{why}");

    let server = Server::start_with(&[INVITED]).await;
    let why = register(&server, "carol", None).await.error(403);
    assert!(why.contains("invitation"), "{why}");
    register(&server, "carol", Some("http://x/register#000000000000000000000000.x")).await.error(404);
    register(&server, "carol", Some("nonsense")).await.error(404);
    assert_eq!(users(&server).await, ["admin"]);
    let (_, link) = invitation(&server, json!({})).await;
    assert!(link.contains("/register#"), "{link}");
    let page = server.nobody.get("/register").await;
    assert!(page.status == 200 && String::from_utf8_lossy(&page.bytes).contains("stackroom register"));
    register(&server, "carol", Some(&link)).await.ok();
    // It was for one.
    register(&server, "dora", Some(&link)).await.error(404);
    assert_eq!(users(&server).await, ["admin", "carol"]);
}

#[tokio::test]
async fn whoever_registers_has_a_place_with_the_default_quota_and_a_token_and_can_push() {
    let server = Server::start_with(&[OPEN, ("STACKROOM_DEFAULT_QUOTA", "1000000")]).await;
    let made = register(&server, "Carol", None).await;
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let made = made.ok();
    assert_eq!(made["data"]["name"], "carol");
    let carol = server.nobody.with(made["data"]["token"].as_str().unwrap());
    carol.push("carol/tools/bb", "v1", "amd64", &crate::support::sif(1)).await.ok();
    let quota = carol.get("/api/entities/carol/quota").await.ok();
    assert_eq!(quota["data"]["limit"], 1_000_000);
    carol.get("/api/users").await.error(403);
    // They log in with their password, too.
    let login = json!({ "username": "carol", "password": PASSWORD });
    server.nobody.post("/v1/get-token", login).await.ok();
    // The log of the account tells how it was made, and from where.
    let log = carol.get("/api/users/carol/events").await.ok();
    let made = log["data"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&made["actor"], &made["from"]), (&json!("carol"), &json!("192.0.2.1")));
    assert!(made["what"].to_string().contains("registered"), "{made}");
}

#[tokio::test]
async fn a_name_that_is_taken_has_one_answer_whatever_has_it() {
    let server = Server::start_with(&[OPEN, ("STACKROOM_DEFAULT_ENTITY", "central")]).await;
    let alice = server.user("alice", 0).await;
    alice.post("/api/groups", json!({ "name": "acme" })).await.ok();
    // A user, a group, a word that routes need, and the default entity, which nobody has made yet.
    for name in ["alice", "ALICE", "acme", "v2", "central", "admin"] {
        let why = register(&server, name, None).await.error(409);
        assert_eq!(why, format!("the name `{}` is taken", name.to_lowercase()));
    }
    for (name, password) in [("a b", PASSWORD), ("", PASSWORD), ("a+b", PASSWORD), ("carol", "short")] {
        register_from(&server, "192.0.2.2", json!({ "name": name, "password": password })).await.error(400);
    }
    let long = json!({ "name": "carol", "password": "x".repeat(2000) });
    register_from(&server, "192.0.2.3", long).await.error(400);
    let admin = json!({ "name": "carol", "password": PASSWORD, "admin": true });
    register_from(&server, "192.0.2.3", admin).await.error(400);
    assert_eq!(users(&server).await, ["admin", "alice"]);
}

#[tokio::test]
async fn one_address_registers_only_so_often_and_an_invitation_is_not_counted() {
    let server = Server::start_with(&[OPEN, ("STACKROOM_REGISTRATIONS_PER_DAY", "3")]).await;
    let from = async |address: &str, name: &str| {
        register_from(&server, address, json!({ "name": name, "password": PASSWORD })).await
    };
    from("192.0.2.7", "a1").await.ok();
    // A name that is taken is a try, too: nobody finds out who is here.
    from("192.0.2.7", "a1").await.error(409);
    from("192.0.2.7", "a2").await.ok();
    let refused = from("192.0.2.7", "a3").await;
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 80_000);
    refused.error(429);
    from("192.0.2.8", "b1").await.ok();
    // All addresses of a network of version 6 are one.
    for (number, name) in ["c1", "c2", "c3"].iter().enumerate() {
        from(&format!("2001:db8:1:2::{number}"), name).await.ok();
    }
    from("2001:db8:1:2:9::9", "c4").await.error(429);
    from("2001:db8:1:3::1", "d1").await.ok();
    let (_, link) = invitation(&server, json!({ "uses": 2 })).await;
    for name in ["e1", "e2"] {
        let body = json!({ "name": name, "password": PASSWORD, "invitation": link });
        register_from(&server, "192.0.2.7", body).await.ok();
    }
    // Of many at once, no more than there may be.
    let tries = (0..12).map(|number| {
        let name = format!("f{number}");
        let from = &from;
        async move { from("192.0.2.9", &name).await.status.as_u16() }
    });
    let statuses = futures::future::join_all(tries).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3, "{statuses:?}");
    assert_eq!(users(&server).await.iter().filter(|name| name.starts_with('f')).count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_to_register_for_3_used_by_20_at_once_brings_in_3() {
    let server = Server::start_with(&[INVITED]).await;
    let alice = server.user("alice", 0).await;
    alice.post("/api/groups", json!({ "name": "acme" })).await.ok();
    let (id, link) = invitation(&server, json!({ "uses": 3, "group": "acme", "role": "contributor" })).await;
    let tries = (0..20).map(|number| {
        let (server, link) = (&server, link.as_str());
        async move { register(server, &format!("n{number}"), Some(link)).await.status.as_u16() }
    });
    let statuses = futures::future::join_all(tries).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 404)), "{statuses:?}");
    let (rows, new) = (server.admin.get("/api/invitations").await.ok(), users(&server).await);
    assert_eq!((&rows["data"][0]["used"], &rows["data"][0]["over"]), (&json!(3), &json!(true)));
    let new: Vec<&String> = new.iter().filter(|name| name.starts_with('n')).collect();
    assert_eq!(new.len(), 3);
    let members = alice.get("/api/entities/acme/members").await.ok();
    let members = members["data"].as_array().unwrap();
    for name in new {
        assert!(members.contains(&json!({ "name": name, "role": "contributor", "on": {} })), "{name}: {members:?}");
    }
    assert_eq!(members.len(), 4);
    server.admin.delete(&format!("/api/invitations/{id}")).await.ok();
    server.admin.delete(&format!("/api/invitations/{id}")).await.error(404);
    assert!(server.admin.get("/api/invitations").await.ok()["data"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn an_invitation_to_register_holds_as_long_as_its_maker_and_their_token_do() {
    let server = Server::start_with(&[INVITED]).await;
    server.admin.post("/api/users", json!({ "name": "boss", "admin": true })).await.ok();
    let boss = server.token("boss", json!({ "name": "one" })).await;
    let link = async |who: &Caller, body: Value| text(&who.post("/api/invitations", body).await.ok(), "/data/link");
    let (first, second) = (link(&boss, json!({ "uses": 9 })).await, link(&server.admin, json!({ "uses": 9 })).await);
    register(&server, "a1", Some(&first)).await.ok();
    let tokens = boss.get("/api/users/boss/tokens").await.ok();
    server.admin.delete(&format!("/api/users/boss/tokens/{}", text(&tokens, "/data/0/id"))).await.ok();
    register(&server, "a2", Some(&first)).await.error(404);
    let boss = server.token("boss", json!({ "name": "two" })).await;
    let third = link(&boss, json!({ "uses": 9 })).await;
    server.admin.put("/api/users/boss/disabled", json!({ "disabled": true })).await.ok();
    register(&server, "a2", Some(&third)).await.error(404);
    register(&server, "a2", Some(&second)).await.ok();
    // What an invitation can be for.
    let alice = server.user("alice", 0).await;
    alice.post("/api/invitations", json!({})).await.error(403);
    alice.get("/api/invitations").await.error(403);
    for (body, status) in [
        (json!({ "group": "missing", "role": "reader" }), 404),
        (json!({ "group": "alice", "role": "owner" }), 400),
        (json!({ "group": "alice", "role": "admin" }), 400),
        (json!({ "group": "alice" }), 400),
        (json!({ "uses": 0 }), 400),
        (json!({ "uses": 1001 }), 400),
        (json!({ "expires_in": 0 }), 400),
    ] {
        server.admin.post("/api/invitations", body.clone()).await.error(status);
    }
    let part = link(&server.admin, json!({ "group": "alice", "role": "reader", "on": "tools" })).await;
    register(&server, "a3", Some(&part)).await.ok();
    let members = alice.get("/api/entities/alice/members").await.ok();
    assert!(members["data"].to_string().contains(r#"{"name":"a3","on":{"tools":"reader"},"role":null}"#), "{members}");
}

#[tokio::test]
async fn an_invitation_to_register_into_a_group_brings_nobody_into_another_one_of_its_name() {
    let server = Server::start_with(&[INVITED]).await;
    let alice = server.user("alice", 0).await;
    alice.post("/api/groups", json!({ "name": "acme" })).await.ok();
    let (_, link) = invitation(&server, json!({ "uses": 9, "group": "acme", "role": "reader" })).await;
    alice.delete("/v1/entities/acme").await.ok();
    register(&server, "a1", Some(&link)).await.error(404);
    crate::support::sweep_up(&server).await;
    server.admin.post("/api/groups", json!({ "name": "acme" })).await.ok();
    register(&server, "a2", Some(&link)).await.error(404);
    assert!(!users(&server).await.iter().any(|name| name.starts_with('a') && name.len() == 2));
}

#[tokio::test]
async fn an_e_mail_address_is_shown_to_its_user_and_to_administrators_alone() {
    let server = Server::start_with(&[OPEN]).await;
    let body = json!({ "name": "carol", "password": PASSWORD, "email": "carol@example.org" });
    let made = register_from(&server, "192.0.2.1", body).await.ok();
    let carol = server.nobody.with(made["data"]["token"].as_str().unwrap());
    let alice = server.user("alice", 0).await;
    for who in [&carol, &server.admin] {
        let shown = who.get("/api/users/carol").await.ok();
        assert_eq!((&shown["data"]["email"], &shown["data"]["name"]), (&json!("carol@example.org"), &json!("carol")));
    }
    let hidden = alice.get("/api/users/carol").await;
    assert_eq!(hidden.bytes, alice.get("/api/users/nobody").await.bytes);
    hidden.error(403);
    server.nobody.get("/api/users/carol").await.error(401);
    let job = server.token("carol", json!({ "name": "job", "scope": "pull,push" })).await;
    job.get("/api/users/carol").await.error(403);
    let listed = server.admin.get("/api/users").await.ok();
    assert!(!listed.to_string().contains("example.org"), "{listed}");
    carol.post("/api/groups", json!({ "name": "acme" })).await.ok();
    let members = carol.get("/api/entities/acme/members").await.ok();
    let log = carol.get("/api/users/carol/events").await.ok();
    assert!(!format!("{members}{log}").contains("example.org"));
    alice.put("/api/users/carol/email", json!({ "email": null })).await.error(403);
    carol.put("/api/users/carol/email", json!({ "email": "no address" })).await.error(400);
    carol.put("/api/users/carol/email", json!({ "email": null })).await.ok();
    assert_eq!(carol.get("/api/users/carol").await.ok()["data"]["email"], Value::Null);
}

#[tokio::test]
async fn hinkskalles_clients_register_in_their_own_way() {
    let server = Server::start_with(&[OPEN]).await;
    let body = json!({ "username": "carol", "password": PASSWORD, "email": "c@example.org", "firstname": "C" });
    let made = server.nobody.post("/v1/register", body.clone()).await.ok();
    let user = &made["data"];
    assert_eq!(
        (&user["username"], &user["isAdmin"], &user["isActive"]),
        (&json!("carol"), &json!(false), &json!(true))
    );
    server.nobody.post("/v1/register", body).await.error(409);
    let login = json!({ "username": "carol", "password": PASSWORD });
    let token = server.nobody.post("/v1/get-token", login).await.ok();
    let carol = server.nobody.with(token["data"]["token"].as_str().unwrap());
    assert_eq!(carol.get("/v1/token-status").await.ok()["data"]["username"], "carol");
    let closed = Server::start().await;
    let body = json!({ "username": "carol", "password": PASSWORD });
    closed.nobody.post("/v1/register", body).await.error(403);
}
