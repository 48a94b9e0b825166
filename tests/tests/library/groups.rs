//! Groups, members with roles on all or parts of an entity, robots, invitations, groups of directories.

use crate::support::{sif, text, write};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::Time;
use shared::service::sweep::{self, Ages};
use shared::store::keys;
use shared::store::rows::{Invitation, RegistrationInvitation};
use stackroom_tests::{Answer, Caller, Server, send};

/// Makes a group and gives roles in it, as `(name, role)`.
async fn group(maker: &Caller, name: &str, members: &[(&str, &str)]) {
    maker.post("/api/groups", json!({ "name": name })).await.ok();
    for (member, role) in members {
        role_on(maker, name, member, role, None).await.ok();
    }
}

/// Gives somebody a role on an entity, or a part of it.
async fn role_on(by: &Caller, entity: &str, member: &str, role: &str, on: Option<&str>) -> Answer {
    let role = if role.is_empty() { Value::Null } else { json!(role) };
    by.put(&format!("/api/entities/{entity}/members/{member}"), json!({ "role": role, "on": on })).await
}

async fn private(by: &Caller, path: &str) {
    let request =
        by.request(Method::PATCH, &format!("/v1/containers/{path}")).body(json!({"visibility": "private"}).to_string());
    send(request).await.ok();
}

async fn statuses(entity: &str, callers: &[&Caller]) -> Vec<u16> {
    let mut found = Vec::new();
    for caller in callers {
        let pull = caller.get(&format!("/v1/images/{entity}/tools/bb:v1")).await.status.as_u16();
        let push = caller.push(&format!("{entity}/tools/new"), "v1", "amd64", &sif(2)).await.status.as_u16();
        let list = caller.get(&format!("/v1/collections?entity={entity}")).await.status.as_u16();
        let member = json!({ "role": "reader" });
        let manage = caller.put(&format!("/api/entities/{entity}/members/dora"), member).await.status.as_u16();
        found.extend([pull, push, list, manage]);
    }
    found
}

#[tokio::test]
async fn a_group_has_three_roles_and_strangers_see_nothing_of_it() {
    let server = Server::start().await;
    let (alice, bob, carol) =
        (server.user("alice", 0).await, server.user("bob", 0).await, server.user("carol", 0).await);
    let (eve, _dora) = (server.user("eve", 0).await, server.user("dora", 0).await);
    group(&alice, "acme", &[("bob", "contributor"), ("carol", "reader")]).await;
    alice.push("acme/tools/bb", "v1", "amd64", &sif(1)).await.ok();
    private(&alice, "acme/tools/bb").await;
    assert_eq!(statuses("acme", &[&alice]).await, [200, 200, 200, 200]);
    assert_eq!(statuses("acme", &[&bob]).await, [200, 200, 200, 403]);
    let push = |who: &Caller| {
        let who = who.clone();
        async move { who.post("/v1/collections", json!({ "name": "x", "entity": "0".repeat(24) })).await.status }
    };
    assert_eq!(push(&carol).await, push(&eve).await);
    // A reader and a stranger stop at the first step of a push that they may not do.
    let refused = |answer: Answer| (answer.status.as_u16(), answer.json["error"]["message"].clone());
    let container = text(&bob.get("/v1/containers/acme/tools/bb").await.ok(), "/data/id");
    let image = json!({ "hash": crate::support::hash(&sif(9)), "container": container });
    assert_eq!(refused(carol.post("/v1/images", image.clone()).await).0, 403);
    assert_eq!(refused(eve.post("/v1/images", image).await).0, 403);
    assert_eq!(carol.get("/v1/images/acme/tools/bb:v1").await.status, 200);
    for path in [
        "/v1/entities/acme",
        "/v1/collections?entity=acme",
        "/v1/images/acme/tools/bb:v1",
        "/api/entities/acme/members",
    ] {
        let missing = path.replace("acme", "nothing");
        let answers = (eve.get(path).await, eve.get(&missing).await);
        assert_eq!((answers.0.status, answers.0.bytes), (answers.1.status, answers.1.bytes), "{path}");
    }
    let members = carol.get("/api/entities/acme/members").await.ok();
    let names: Vec<_> = members["data"].as_array().unwrap().iter().map(|member| text(member, "/name")).collect();
    assert_eq!(names, ["alice", "bob", "carol", "dora"]);
    // Taking the role away counts at once, on every route.
    role_on(&alice, "acme", "bob", "", None).await.ok();
    bob.get("/v1/images/acme/tools/bb:v1").await.error(404);
    bob.post("/v1/collections", json!({ "name": "y", "entity": "acme" })).await;
    assert_eq!(bob.get("/v1/entities/acme").await.status, 404);
}

#[tokio::test]
async fn a_role_on_a_collection_or_container_is_one_there_and_nowhere_else() {
    let server = Server::start().await;
    let (alice, bob, carol) =
        (server.user("alice", 0).await, server.user("bob", 0).await, server.user("carol", 0).await);
    group(&alice, "acme", &[]).await;
    for path in ["acme/tools/bb", "acme/tools/cc", "acme/data/one"] {
        alice.push(path, "v1", "amd64", &sif(1)).await.ok();
        private(&alice, path).await;
    }
    role_on(&alice, "acme", "bob", "contributor", Some("tools")).await.ok();
    role_on(&alice, "acme", "carol", "reader", Some("tools/cc")).await.ok();
    let seen = |who: &Caller, path: &str| {
        let (who, path) = (who.clone(), format!("/v1/images/{path}:v1"));
        async move { who.get(&path).await.status.as_u16() }
    };
    for (path, of_bob, of_carol) in
        [("acme/tools/bb", 200, 404), ("acme/tools/cc", 200, 200), ("acme/data/one", 404, 404)]
    {
        assert_eq!((seen(&bob, path).await, seen(&carol, path).await), (of_bob, of_carol), "{path}");
    }
    // A push goes through all its steps: the entity and the collection are seen on the way.
    bob.push("acme/tools/new", "v1", "amd64", &sif(2)).await.ok();
    let elsewhere = bob.get("/v1/collections/acme/data").await;
    assert_eq!(elsewhere.status, 404);
    let entity = text(&bob.get("/v1/entities/acme").await.ok(), "/data/id");
    bob.post("/v1/collections", json!({ "name": "more", "entity": entity })).await.error(403);
    // Lists and searches show what they have a role on.
    let names = |answer: &Value| -> Vec<String> {
        answer["data"].as_array().unwrap().iter().map(|row| text(row, "/name")).collect()
    };
    assert_eq!(names(&bob.get("/v1/entities").await.ok()), ["acme", "bob"]);
    assert_eq!(names(&bob.get("/v1/collections?entity=acme").await.ok()), ["tools"]);
    assert_eq!(names(&carol.get("/v1/containers?collection=acme/tools").await.ok()), ["cc"]);
    assert_eq!(names(&bob.get("/v1/containers?collection=acme/tools").await.ok()), ["bb", "cc", "new"]);
    let listed = |answer: Answer| names(&answer.ok());
    assert_eq!(listed(bob.get("/v1/collections/acme").await), ["tools"]);
    assert_eq!(listed(carol.get("/v1/collections/acme").await), ["tools"]);
    let found = |answer: Value| -> Vec<String> {
        answer["data"]["container"].as_array().unwrap().iter().map(|row| text(row, "/name")).collect()
    };
    server.followed().await;
    assert_eq!(found(bob.get("/v1/search?value=acme").await.ok()), ["bb", "cc", "new"]);
    assert_eq!(found(carol.get("/v1/search?value=acme").await.ok()), ["cc"]);
    let catalog = |who: &Caller| {
        let (server, who) = (&server, who.clone());
        let login = server.nobody.bare(Method::GET, "/token?scope=registry:catalog:*").bearer_auth(who.token.unwrap());
        async move {
            let token = text(&send(login).await.json, "/token");
            send(server.nobody.bare(Method::GET, "/v2/_catalog").bearer_auth(token)).await.json["repositories"].clone()
        }
    };
    assert_eq!(catalog(&bob).await, json!(["acme/tools/bb", "acme/tools/cc", "acme/tools/new"]));
    assert_eq!(catalog(&carol).await, json!(["acme/tools/cc"]));
    // Who else has a role elsewhere is not theirs to know, nor what lies beside it.
    assert_eq!(names(&carol.get("/api/entities/acme/members").await.ok()), ["carol"]);
    assert_eq!(names(&alice.get("/api/entities/acme/members").await.ok()), ["alice", "bob", "carol"]);
    carol.get("/api/entities/acme/includes").await.error(404);
    let used = |who: &Caller| {
        let who = who.clone();
        async move { who.get("/v1/entities/acme").await.ok()["data"]["size"].as_u64().unwrap() }
    };
    assert!(used(&alice).await > 0);
    assert_eq!((used(&carol).await, used(&bob).await), (0, 0));
    let tools = text(&carol.get("/v1/collections/acme/tools").await.ok(), "/data/id");
    for name in ["bb", "missing"] {
        carol.post("/v1/containers", json!({ "name": name, "collection": tools })).await.error(403);
    }
    role_on(&alice, "acme", "carol", "reader", Some("tools/bb/deeper")).await.ok();
    carol.get("/v1/containers/acme/tools/bb").await.error(404);
    role_on(&alice, "acme", "carol", "", Some("tools/bb/deeper")).await.ok();
    // Bytes that lie elsewhere in the entity have to come again.
    alice.push("acme/data/two", "v1", "amd64", &sif(7)).await.ok();
    let container = text(&bob.get("/v1/containers/acme/tools/new").await.ok(), "/data/id");
    assert_eq!(bob.image(&container, &sif(7)).await["uploaded"], json!(false));
    // An admin of a collection gives roles on it, and on nothing above or beside it.
    role_on(&alice, "acme", "bob", "admin", Some("tools")).await.ok();
    role_on(&bob, "acme", "carol", "contributor", Some("tools/bb")).await.ok();
    role_on(&bob, "acme", "carol", "reader", Some("data")).await.error(403);
    role_on(&bob, "acme", "carol", "reader", None).await.error(403);
}

#[tokio::test]
async fn a_lookup_through_any_kind_of_role_is_one_read() {
    let settings = [("STACKROOM_DIRECTORY_GROUPS", "true")];
    let server = Server::start_with(&settings).await;
    let alice = server.user("alice", 0).await;
    let mut members = Vec::new();
    for name in ["whole", "part", "included"] {
        members.push(server.user(name, 0).await);
    }
    group(&alice, "acme", &[("whole", "reader")]).await;
    alice.push("acme/tools/bb", "v1", "amd64", &sif(1)).await.ok();
    private(&alice, "acme/tools/bb").await;
    role_on(&alice, "acme", "part", "reader", Some("tools/bb")).await.ok();
    let groups = json!({ "groups": { "ldap:cn=lab,dc=x": "reader" } });
    alice.put("/api/entities/acme/includes", groups).await.ok();
    let seen = json!({ "directory": "ldap", "groups": ["cn=lab,dc=x"] });
    server.admin.put("/api/users/included/groups", seen).await.ok();
    alice.post("/api/entities/acme/robots", json!({ "name": "ci", "role": "reader" })).await.ok();
    let made = alice.post("/api/users/acme+ci/tokens", json!({ "name": "job" })).await.ok();
    members.push(alice.with(&text(&made, "/data/token")));
    for member in &members {
        // The first use of a token is noted.
        member.get("/v1/images/acme/tools/bb:v1").await.ok();
        let answer = member.get("/v1/images/acme/tools/bb:v1").await;
        assert_eq!((answer.status, answer.cost()), (StatusCode::OK, (1, 0)));
    }
    // Row 1: a change of either row counts on the next request.
    let included = &members[2];
    server.admin.put("/api/users/included/groups", json!({ "directory": "ldap", "groups": [] })).await.ok();
    included.get("/v1/images/acme/tools/bb:v1").await.error(404);
    let seen = json!({ "directory": "ldap", "groups": ["cn=lab,dc=x", "cn=other"] });
    server.admin.put("/api/users/included/groups", seen).await.ok();
    included.get("/v1/images/acme/tools/bb:v1").await.ok();
    alice.put("/api/entities/acme/includes", json!({ "groups": { "oidc:cn=lab,dc=x": "reader" } })).await.ok();
    included.get("/v1/images/acme/tools/bb:v1").await.error(404);
}

#[tokio::test]
async fn fifty_concurrent_leaves_and_demotions_of_two_admins_leave_one() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    group(&alice, "acme", &[("bob", "admin")]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let (alice, bob) = (alice.clone(), bob.clone());
        tasks.spawn(async move {
            match number % 4 {
                0 => alice.delete("/api/entities/acme/members/alice").await,
                1 => bob.delete("/api/entities/acme/members/bob").await,
                2 => role_on(&alice, "acme", "bob", "reader", None).await,
                _ => role_on(&bob, "acme", "alice", "reader", None).await,
            }
            .status
            .as_u16()
        });
    }
    let answers = tasks.join_all().await;
    assert!(answers.iter().all(|status| [200, 403, 404, 409, 429].contains(status)), "{answers:?}");
    let members = server.admin.get("/api/entities/acme/members").await.ok();
    let admins: Vec<_> = members["data"].as_array().unwrap().iter().filter(|row| row["role"] == "admin").collect();
    assert_eq!(admins.len(), 1, "{members}");
    // The one who is left can't go, and can hand over.
    let last = text(admins[0], "/name");
    let (last, other) = if last == "alice" { (&alice, "bob") } else { (&bob, "alice") };
    let name = if other == "bob" { "alice" } else { "bob" };
    let why = last.delete(&format!("/api/entities/acme/members/{name}")).await.error(409);
    assert!(why.contains("last admin"), "{why}");
    role_on(last, "acme", other, "admin", None).await.ok();
    last.delete(&format!("/api/entities/acme/members/{name}")).await.ok();
    last.get("/v1/entities/acme").await.error(404);
}

#[tokio::test]
async fn an_invitation_for_3_accepted_by_20_at_once_makes_3() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    group(&alice, "acme", &[("bob", "admin")]).await;
    let mut guests = Vec::new();
    for number in 0..20 {
        guests.push(server.user(&format!("guest{number}"), 0).await);
    }
    let new = json!({ "role": "contributor", "uses": 3, "expires_in": 3600 });
    let link = text(&bob.post("/api/entities/acme/invitations", new.clone()).await.ok(), "/data/link");
    assert!(link.starts_with(&format!("{}/join#acme.", server.url)), "{link}");
    let mut tasks = tokio::task::JoinSet::new();
    for guest in &guests {
        let (guest, link) = (guest.clone(), link.clone());
        tasks.spawn(async move { guest.post("/api/join", json!({ "invitation": link })).await.status.as_u16() });
    }
    let mut answers = tasks.join_all().await;
    answers.sort_unstable();
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 3, "{answers:?}");
    let members = alice.get("/api/entities/acme/members").await.ok();
    assert_eq!(members["data"].as_array().unwrap().len(), 5);
    // Somebody who is in already spends nothing, and is not lowered.
    let link = text(&bob.post("/api/entities/acme/invitations", new.clone()).await.ok(), "/data/link");
    alice.post("/api/join", json!({ "invitation": link })).await.ok();
    let listed = bob.get("/api/entities/acme/invitations").await.ok();
    assert!(listed["data"].as_array().unwrap().iter().any(|row| row["used"] == 0), "{listed}");
    assert!(!listed.to_string().contains(link.rsplit('.').next().unwrap()), "no secret is listed");
    // None holds once its maker has lost the role, and all failures look alike.
    let guest = server.user("late", 0).await;
    let wrong = guest.post("/api/join", json!({ "invitation": format!("{link}x") })).await;
    role_on(&alice, "acme", "bob", "contributor", None).await.ok();
    let lost = guest.post("/api/join", json!({ "invitation": link })).await;
    assert_eq!((wrong.status, &wrong.bytes), (lost.status, &lost.bytes));
    lost.error(404);
    role_on(&alice, "acme", "bob", "admin", None).await.ok();
    let id = link.rsplit('.').nth(1).unwrap();
    alice.delete(&format!("/api/entities/acme/invitations/{id}")).await.ok();
    let revoked = guest.post("/api/join", json!({ "invitation": link })).await;
    assert_eq!((wrong.status, &wrong.bytes), (revoked.status, &revoked.bytes));
    // Nor does one whose token was revoked, and none outlives the token that made it.
    let short = server.token("alice", json!({ "name": "short", "expires_in": 60 })).await;
    let link = text(&short.post("/api/entities/acme/invitations", json!({ "role": "admin" })).await.ok(), "/data/link");
    let listed = alice.get("/api/entities/acme/invitations").await.ok();
    let row = listed["data"].as_array().unwrap().iter().find(|row| row["role"] == "admin").unwrap();
    let tokens = alice.get("/api/users/alice/tokens").await.ok();
    let token = tokens["data"].as_array().unwrap().iter().find(|row| row["name"] == "short").unwrap();
    assert_eq!(row["expires"], token["expires"]);
    alice.delete(&format!("/api/users/alice/tokens/{}", text(token, "/id"))).await.ok();
    guest.post("/api/join", json!({ "invitation": link })).await.error(404);
    alice.post("/api/entities/acme/invitations", json!({ "role": "reader", "uses": 1001 })).await.error(400);
    // Neither the secret nor its link is in a row.
    let (rows, _) = server.local.app.table.scan(None).await.unwrap();
    assert!(!rows.is_empty() && !format!("{rows:?}").contains(link.rsplit('.').next().unwrap()));
    server.nobody.post("/api/join", json!({ "invitation": link })).await.error(401);
}

#[tokio::test]
async fn invitations_are_forgotten_a_week_after_their_end_and_make_room_for_others() {
    let server = Server::start_with(&[("STACKROOM_REGISTRATION", "invitation")]).await;
    let alice = server.user("alice", 0).await;
    group(&alice, "acme", &[]).await;
    let new = json!({ "role": "reader", "expires_in": 3600 });
    for _ in 0..100 {
        alice.post("/api/entities/acme/invitations", new.clone()).await.ok();
    }
    server.admin.post("/api/invitations", json!({})).await.ok();
    let why = alice.post("/api/entities/acme/invitations", new.clone()).await.error(409);
    assert!(why.contains("100 invitations"), "{why}");
    let app = &server.local.app;
    let rows: Vec<Invitation> = app.table.query_all(keys::invitations(&"acme".parse().unwrap())).await.unwrap();
    let (week, now) = (7 * 24 * 3600, app.now().0);
    write(&server, &Invitation { expires: Time(now - week), ..rows[0].clone() }).await;
    write(&server, &Invitation { expires: Time(now - week + 60), ..rows[1].clone() }).await;
    let rows: Vec<RegistrationInvitation> = app.table.query_all(keys::registration_invitations()).await.unwrap();
    write(&server, &RegistrationInvitation { expires: Time(now - week), ..rows[0].clone() }).await;
    sweep::sweep(app, Ages::safe(app)).await.unwrap();
    assert_eq!(alice.get("/api/entities/acme/invitations").await.ok()["data"].as_array().unwrap().len(), 99);
    assert_eq!(server.admin.get("/api/invitations").await.ok()["data"], json!([]));
    alice.post("/api/entities/acme/invitations", new).await.ok();
}

#[tokio::test]
async fn a_robot_has_its_own_group_and_nothing_else() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    group(&alice, "acme", &[("bob", "contributor")]).await;
    alice.push("acme/tools/bb", "v1", "amd64", &sif(1)).await.ok();
    private(&alice, "acme/tools/bb").await;
    let robot = json!({ "name": "ci", "role": "contributor", "description": "pushes nightly images" });
    bob.post("/api/entities/acme/robots", robot.clone()).await.error(403);
    let made = alice.post("/api/entities/acme/robots", robot.clone()).await.ok();
    assert_eq!(text(&made, "/data/name"), "acme+ci");
    alice.post("/api/entities/acme/robots", robot.clone()).await.error(409);
    let admin = json!({ "name": "boss", "role": "admin" });
    alice.post("/api/entities/acme/robots", admin).await.error(400);
    for scope in ["pull", "pull@alice", "manage@acme", "pull,admin@acme"] {
        alice.post("/api/users/acme+ci/tokens", json!({ "name": "x", "scope": scope })).await.error(400);
    }
    bob.post("/api/users/acme+ci/tokens", json!({ "name": "x" })).await.error(403);
    let token = text(&alice.post("/api/users/acme+ci/tokens", json!({ "name": "job" })).await.ok(), "/data/token");
    let ci = alice.with(&token);
    ci.get("/v1/images/acme/tools/bb:v1").await.ok();
    ci.push("acme/tools/nightly", "v1", "amd64", &sif(2)).await.ok();
    // It never leaves its group, joins, manages or makes tokens.
    let internal = json!({ "visibility": "internal" });
    bob.push("bob/tools/bb", "v1", "amd64", &sif(3)).await.ok();
    send(bob.request(Method::PATCH, "/v1/containers/bob/tools/bb").body(internal.to_string())).await.ok();
    alice.get("/v1/images/bob/tools/bb:v1").await.ok();
    ci.get("/v1/images/bob/tools/bb:v1").await.error(404);
    role_on(&bob, "bob", "acme+ci", "reader", None).await.error(400);
    role_on(&ci, "acme", "bob", "reader", None).await.error(403);
    ci.post("/api/groups", json!({ "name": "mine" })).await.error(403);
    ci.post("/api/users/acme+ci/tokens", json!({ "name": "x" })).await.error(403);
    // It logs in to the registry with its name, which the shell takes as it is.
    let login = server.nobody.bare(Method::GET, "/token?scope=repository:acme/tools/bb:pull");
    let answer = send(login.basic_auth("acme+ci", Some(&token))).await;
    let short = text(&answer.json, "/token");
    let tags = send(server.nobody.bare(Method::GET, "/v2/acme/tools/bb/tags/list").bearer_auth(short)).await;
    assert_eq!((tags.status, &tags.json["tags"]), (StatusCode::OK, &json!(["v1"])));
    // Its last use is shown, and written once a day only.
    let listed = alice.get("/api/users/acme+ci/tokens").await.ok();
    assert!(listed["data"][0]["used"].is_string(), "{listed}");
    // Removed, it can do nothing, and one of the same name starts without its tokens.
    alice.delete("/api/entities/acme/robots/ci").await.ok();
    ci.get("/v1/images/acme/tools/bb:v1").await.error(401);
    alice.get("/api/users/acme+ci/tokens").await.error(404);
    alice.post("/api/entities/acme/robots", robot).await.ok();
    ci.get("/v1/images/acme/tools/bb:v1").await.error(401);
    assert_eq!(alice.get("/api/users/acme+ci/tokens").await.ok()["data"], json!([]));
}

#[tokio::test]
async fn a_personal_entity_takes_readers_and_contributors_and_has_one_owner() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    role_on(&alice, "alice", "bob", "admin", None).await.error(400);
    role_on(&alice, "alice", "alice", "reader", None).await.error(400);
    role_on(&alice, "alice", "bob", "owner", None).await.error(400);
    alice.delete("/api/entities/alice/members/alice").await.error(400);
    role_on(&alice, "alice", "bob", "contributor", None).await.ok();
    bob.push("alice/tools/bb", "v1", "amd64", &sif(1)).await.ok();
    role_on(&bob, "alice", "bob", "", None).await.error(403);
    bob.delete("/api/entities/alice/members/bob").await.ok();
    bob.get("/v1/entities/alice").await.error(404);
    bob.delete("/api/entities/alice/members/bob").await.error(403);
}

#[tokio::test]
async fn groups_are_made_by_users_as_far_as_the_operator_lets_them() {
    let server = Server::start_with(&[("STACKROOM_GROUPS_PER_USER", "2"), ("STACKROOM_GROUP_QUOTA", "1000")]).await;
    let alice = server.user("alice", 0).await;
    server.user("bob", 0).await;
    alice.post("/api/groups", json!({ "name": "bob" })).await.error(409);
    alice.post("/api/groups", json!({ "name": "token" })).await.error(400);
    alice.post("/api/groups", json!({ "name": "one", "shape": "round" })).await.error(400);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let alice = alice.clone();
        tasks.spawn(async move { alice.post("/api/groups", json!({ "name": format!("g{number}") })).await.status });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 2, "{answers:?}");
    // A name is one namespace: no user can take that of a group.
    let names = alice.get("/v1/entities").await.ok();
    let first =
        names["data"].as_array().unwrap().iter().map(|row| text(row, "/name")).find(|name| name != "alice").unwrap();
    server.admin.post("/api/users", json!({ "name": first })).await.error(409);
    let entity = alice.get(&format!("/v1/entities/{first}")).await.ok();
    assert_eq!(entity["data"]["quota"], json!(1000));
    let closed = Server::start_with(&[("STACKROOM_GROUPS_PER_USER", "0")]).await;
    let alice = closed.user("alice", 0).await;
    alice.post("/api/groups", json!({ "name": "acme" })).await.error(403);
    closed.admin.post("/api/groups", json!({ "name": "acme" })).await.ok();
    closed.admin.put("/api/entities/acme/members/alice", json!({ "role": "admin" })).await.ok();
    role_on(&alice, "acme", "admin", "reader", None).await.ok();
}

#[tokio::test]
async fn a_robot_keeps_a_role_until_it_is_removed() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    group(&alice, "acme", &[]).await;
    alice.post("/api/entities/acme/robots", json!({ "name": "ci", "role": "reader" })).await.ok();
    // Without a role it would be in no list, and its name would be taken.
    let why = role_on(&alice, "acme", "acme+ci", "", None).await.error(400);
    assert!(why.contains("remove the robot"), "{why}");
    role_on(&alice, "acme", "acme+ci", "contributor", Some("tools")).await.ok();
    role_on(&alice, "acme", "acme+ci", "", None).await.ok();
    role_on(&alice, "acme", "acme+ci", "", Some("tools")).await.error(400);
    let robots = alice.get("/api/entities/acme/robots").await.ok();
    assert_eq!(robots["data"].as_array().unwrap().len(), 1, "{robots}");
    alice.delete("/api/entities/acme/robots/ci").await.ok();
    alice.post("/api/entities/acme/robots", json!({ "name": "ci", "role": "reader" })).await.ok();
}

#[tokio::test]
async fn a_disabled_admin_is_an_admin_still_and_operators_manage_a_group_that_has_no_other() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    group(&alice, "acme", &[("bob", "admin")]).await;
    server.admin.put("/api/users/bob/disabled", json!({ "disabled": true })).await.ok();
    alice.delete("/api/entities/acme/members/alice").await.ok();
    bob.get("/v1/entities/acme").await.error(401);
    // Nobody takes the role away by disabling, and who enables the account gives it back.
    server.admin.delete("/api/entities/acme/members/bob").await.error(409);
    role_on(&server.admin, "acme", "alice", "admin", None).await.ok();
    server.admin.delete("/api/entities/acme/members/bob").await.ok();
    server.admin.put("/api/users/bob/disabled", json!({ "disabled": false })).await.ok();
    bob.get("/v1/entities/acme").await.error(404);
    alice.get("/v1/entities/acme").await.ok();
}
