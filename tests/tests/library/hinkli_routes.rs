//! The routes that scripts of Hinkskalle's users call beside its command: whole objects that come back changed, users
//! and their tokens, the latest containers, and the smaller ones.

use crate::support::{begin, hash, join, private_collection, set, sif, text};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Role;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Answer, Caller, Server, send};

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    alice.push("alice/runs/one", "v1", "amd64", &sif(1)).await.ok();
    (server, alice)
}

/// A `PUT` of its library, which sends all fields of an object, those that it does not set as null.
async fn put(who: &Caller, path: &str, body: Value) -> Answer {
    send(who.request(Method::PUT, path).header("user-agent", "python-requests/2.32.3").body(body.to_string())).await
}

#[tokio::test]
async fn null_leaves_a_field_and_a_value_sets_it() {
    let (_server, alice) = start().await;
    let path = "/v1/containers/alice/runs/one";
    let all = json!({
        "name": "one", "description": "first", "fullDescription": "# One", "private": true, "readOnly": true,
        "vcsUrl": "https://example.org/one", "customData": "{}", "createdBy": null, "collection": null, "id": null,
    });
    let changed = put(&alice, path, all).await.ok()["data"].clone();
    for (field, value) in [
        ("description", json!("first")),
        ("fullDescription", json!("# One")),
        ("private", json!(true)),
        ("readOnly", json!(true)),
        ("vcsUrl", json!("https://example.org/one")),
        ("customData", json!("{}")),
    ] {
        assert_eq!(changed[field], value, "{field}");
    }
    let nothing = json!({
        "name": "one", "description": null, "fullDescription": null, "private": null, "readOnly": null, "vcsUrl": null,
        "customData": null, "createdBy": null,
    });
    let same = put(&alice, path, nothing).await.ok()["data"].clone();
    assert_eq!(same, alice.get(path).await.ok()["data"]);
    for field in ["description", "fullDescription", "private", "readOnly", "vcsUrl", "customData"] {
        assert_eq!(same[field], changed[field], "{field}");
    }
    // The object as it was read, changed in one place.
    let mut whole = alice.get(path).await.ok()["data"].clone();
    whole["readOnly"] = json!(false);
    assert_eq!(put(&alice, path, whole).await.ok()["data"]["readOnly"], json!(false));
    for path in ["/v1/collections/alice/runs", "/v1/entities/alice"] {
        let mut whole = alice.get(path).await.ok()["data"].clone();
        whole["description"] = json!("new");
        assert_eq!(put(&alice, path, whole).await.ok()["data"]["description"], json!("new"), "{path}");
        let private = if path.ends_with("runs") { "private" } else { "defaultPrivate" };
        let mut change = json!({ "description": null });
        change[private] = json!(true);
        let seen = put(&alice, path, change).await.ok()["data"].clone();
        assert_eq!((&seen["description"], &seen[private]), (&json!("new"), &json!(true)), "{path}");
    }
    // What is made from now on is private.
    alice.container("alice/runs/two").await;
    assert_eq!(alice.get("/v1/containers/alice/runs/two").await.ok()["data"]["private"], json!(true));
}

#[tokio::test]
async fn a_container_that_is_no_longer_private_is_open_and_one_that_was_not_stays_as_it_is() {
    let (server, alice) = start().await;
    let bob = server.user("bob", 0).await;
    let path = "/v1/containers/alice/runs/one";
    let pull = "/v1/images/alice/runs/one:v1";
    put(&alice, path, json!({ "private": true })).await.ok();
    bob.get(pull).await.error(404);
    put(&alice, path, json!({ "private": false })).await.ok();
    server.nobody.get(pull).await.ok();
    set(&alice, path, json!({ "visibility": "internal" })).await.ok();
    put(&alice, path, json!({ "private": false })).await.ok();
    server.nobody.get(pull).await.error(404);
    bob.get(pull).await.ok();
}

#[tokio::test]
async fn only_who_manages_a_thing_changes_it_and_what_can_not_change_is_refused_by_name() {
    let (server, alice) = start().await;
    let carl = server.user("carl", 0).await;
    join(&server, "alice", "carl", Role::Contributor).await;
    let things = ["/v1/entities/alice", "/v1/collections/alice/runs", "/v1/containers/alice/runs/one"];
    for path in things {
        let before = alice.get(path).await.ok();
        server.nobody.put(path, json!({ "description": "x" })).await.error(401);
        put(&carl, path, json!({ "description": "x" })).await.error(403);
        put(&carl, path, json!({ "name": "x" })).await.error(403);
        for (body, named) in [
            (json!({ "name": "renamed" }), "name"),
            (json!({ "createdBy": "carl" }), "createdBy"),
            (json!({ "description": "y", "createdBy": "carl" }), "createdBy"),
            (json!({ "expiresAt": "2030-01-01T00:00:00Z" }), "expiresAt"),
            (json!({ "visibility": "private" }), "visibility"),
        ] {
            let why = put(&alice, path, body.clone()).await.error(400);
            assert!(why.contains(&format!("`{named}`")), "{path} {body}: {why}");
        }
        put(&alice, path, json!({ "description": 7 })).await.error(400);
        assert_eq!(alice.get(path).await.ok(), before, "{path}");
        put(&alice, path, json!({ "createdBy": "alice", "name": text(&before, "/data/name").to_uppercase() }))
            .await
            .ok();
    }
    for (path, field) in
        [(things[0], "private"), (things[0], "readOnly"), (things[1], "defaultPrivate"), (things[1], "readOnly")]
    {
        let why = put(&alice, path, json!({ field: true })).await.error(400);
        assert!(why.contains(&format!("`{field}`")), "{path}: {why}");
    }
    put(&alice, "/v1/containers/alice/runs/none", json!({})).await.error(404);
}

#[tokio::test]
async fn an_image_is_described_anew_in_all_its_tags() {
    let (server, alice) = start().await;
    alice.push("alice/runs/one", "v2", "amd64", &sif(1)).await.ok();
    let carl = server.user("carl", 0).await;
    join(&server, "alice", "carl", Role::Contributor).await;
    let path = "/v1/images/alice/runs/one:v1";
    put(&carl, path, json!({ "description": "x" })).await.error(403);
    put(&alice, path, json!({ "description": "x", "customData": "y" })).await.error(400);
    put(&alice, path, json!({ "description": "x", "expiresAt": "2030-01-01T00:00:00Z" })).await.error(400);
    assert_eq!(put(&alice, path, json!({ "description": null })).await.ok()["data"]["description"], json!(""));
    let mut whole = alice.get(path).await.ok()["data"].clone();
    whole["description"] = json!("reads of a sequencer");
    assert_eq!(put(&alice, path, whole).await.ok()["data"]["description"], json!("reads of a sequencer"));
    for selector in ["v1", "v2", &hash(&sif(1))] {
        let seen = alice.get(&format!("/v1/images/alice/runs/one:{selector}")).await.ok();
        assert_eq!(seen["data"]["description"], json!("reads of a sequencer"), "{selector}");
    }
    // The manifest for registry clients is the same as before.
    assert_eq!(alice.get("/v2/alice/runs/one/manifests/v1").await.status, 200);
    put(&alice, "/v1/images/alice/runs/one:v9", json!({ "description": "x" })).await.error(404);
    server.sweep_all().await;
}

#[tokio::test]
async fn an_image_has_exactly_the_tags_that_it_is_given() {
    let (server, alice) = start().await;
    alice.push("alice/runs/one", "other", "amd64", &sif(2)).await.ok();
    let arm = SifBuilder::new("arm64").build();
    alice.push("alice/runs/one", "both", "amd64", &sif(1)).await.ok();
    alice.push("alice/runs/one", "both", "arm64", &arm).await.ok();
    let path = format!("/v1/images/alice/runs/one:{}/tags", hash(&sif(1)));
    let tags = async || {
        let container = text(&alice.get("/v1/containers/alice/runs/one").await.ok(), "/data/id");
        alice.get(&format!("/v2/tags/{container}")).await.ok()["data"].clone()
    };
    let id = async |bytes: &[u8]| {
        text(&alice.get(&format!("/v1/images/alice/runs/one:{}", hash(bytes))).await.ok(), "/data/id")
    };
    let (one, two, three) = (id(&sif(1)).await, id(&sif(2)).await, id(&arm).await);
    let set_tags = put(&alice, &path, json!({ "tags": ["new", "other", "v1"] })).await.ok();
    assert_eq!(set_tags["data"]["tags"], json!(["new", "other", "v1"]));
    assert_eq!(tags().await, json!({ "amd64": { "new": one, "other": one, "v1": one }, "arm64": { "both": three } }));
    let named =
        async |hash: &str| alice.get(&format!("/v1/images/alice/runs/one:{hash}")).await.ok()["data"]["tags"].clone();
    assert_eq!(named(&hash(&sif(1))).await, json!(["new", "other", "v1"]));
    assert_eq!(named(&hash(&sif(2))).await, json!([]));
    // The same once more changes nothing; a registry client pulls what was set.
    assert_eq!(put(&alice, &path, json!({ "tags": ["v1", "other", "new"] })).await.cost().1, 0);
    assert_eq!(alice.get("/v2/alice/runs/one/manifests/new").await.status, 200);
    // A frozen tag is neither given nor taken away, and then nothing is changed.
    set(&alice, "/v1/images/alice/runs/one:new", json!({ "frozen": true })).await.ok();
    let before = tags().await;
    put(&alice, &path, json!({ "tags": ["v1", "v3"] })).await.error(403);
    let other = format!("/v1/images/alice/runs/one:{}/tags", hash(&sif(2)));
    put(&alice, &other, json!({ "tags": ["new", "v4"] })).await.error(403);
    for bad in [json!({}), json!({ "tags": null }), json!({ "tags": ["-x"] }), json!({ "tags": [hash(&sif(1))] })] {
        put(&alice, &path, bad).await.error(400);
    }
    let many: Vec<String> = (0..40).map(|number| format!("t{number}")).collect();
    put(&alice, &other, json!({ "tags": many })).await.error(400);
    assert_eq!(tags().await, before);
    set(&alice, "/v1/images/alice/runs/one:new", json!({ "frozen": false })).await.ok();
    put(&alice, &path, json!({ "tags": [] })).await.ok();
    put(&alice, &other, json!({ "tags": ["v4"] })).await.ok();
    assert_eq!(tags().await, json!({ "amd64": { "v4": two }, "arm64": { "both": three } }));
    server.sweep_all().await;
}

#[tokio::test]
async fn a_contributor_sets_tags_and_takes_away_only_their_own() {
    let (server, alice) = start().await;
    let carl = server.user("carl", 0).await;
    join(&server, "alice", "carl", Role::Contributor).await;
    carl.push("alice/runs/one", "mine", "amd64", &sif(5)).await.ok();
    put(&carl, "/v1/images/alice/runs/one:mine/tags", json!({ "tags": ["ours"] })).await.ok();
    put(&carl, "/v1/images/alice/runs/one:v1/tags", json!({ "tags": ["v1", "v2"] })).await.ok();
    put(&carl, "/v1/images/alice/runs/one:v1/tags", json!({ "tags": ["v2"] })).await.error(403);
    let bob = server.user("bob", 0).await;
    put(&bob, "/v1/images/alice/runs/one:v1/tags", json!({ "tags": ["v1"] })).await.error(403);
    set(&alice, "/v1/containers/alice/runs/one", json!({ "readOnly": true })).await.ok();
    put(&alice, "/v1/images/alice/runs/one:v1/tags", json!({ "tags": ["v1"] })).await.error(403);
}

#[tokio::test]
async fn users_find_each_other_by_name_and_learn_nothing_else() {
    let (server, alice) = start().await;
    for name in ["alex", "albert", "alina", "bob", "al"] {
        server.user(name, 7).await;
    }
    server.admin.put("/api/users/alina/disabled", json!({ "disabled": true })).await.ok();
    let found = async |who: &Caller, query: &str| {
        let list = who.get(&format!("/v1/users?username={query}")).await.ok();
        list["data"].as_array().unwrap().iter().map(|row| text(row, "/username")).collect::<Vec<_>>()
    };
    for (query, expected) in [
        ("ali", vec!["alice"]),
        ("ALB", vec!["albert"]),
        ("al", vec!["al"]),
        ("b", vec![]),
        ("bob", vec!["bob"]),
        ("zzz", vec![]),
        ("%23%23%23", vec![]),
    ] {
        assert_eq!(found(&alice, query).await, expected, "{query}");
    }
    let row = alice.get("/v1/users?username=albert").await.ok()["data"][0].clone();
    let mut fields: Vec<&String> = row.as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["email", "firstname", "lastname", "username"]);
    assert_eq!(row["email"], json!(""));
    // Nobody lists all of them.
    for path in ["/v1/users", "/v1/users?username="] {
        alice.get(path).await.error(403);
    }
    server.nobody.get("/v1/users?username=ali").await.error(401);
    alice.get(&format!("/v1/users?username={}", "x".repeat(3000))).await.error(400);
    let narrow = server.token("alice", json!({ "name": "n", "scope": "pull@alice" })).await;
    narrow.get("/v1/users?username=ali").await.error(404);
    // More than ten are not shown, and there is no next page.
    for number in 0..12 {
        server.user(&format!("many{number}"), 0).await;
    }
    let many = alice.get("/v1/users?username=many").await.ok();
    assert_eq!((many["data"].as_array().unwrap().len(), &many["page"]["next"]), (10, &json!("")));
    // Administrators see all that there is.
    assert_eq!(found(&server.admin, "ali").await, ["alice", "alina"]);
    assert_eq!(server.admin.get("/v1/users").await.ok()["data"].as_array().unwrap().len(), 19);
    let alina = server.admin.get("/v1/users/alina").await.ok()["data"].clone();
    assert_eq!((&alina["isActive"], &alina["quota"], &alina["used_quota"]), (&json!(false), &json!(7), &json!(0)));
}

#[tokio::test]
async fn a_user_sees_their_own_account_and_tokens() {
    let (server, alice) = start().await;
    let bob = server.user("bob", 0).await;
    let own = alice.get("/v1/users/ALICE").await.ok()["data"].clone();
    assert_eq!((&own["username"], &own["isAdmin"], &own["quota"]), (&json!("alice"), &json!(false), &json!(0)));
    assert_eq!(own["used_quota"], json!(sif(1).len()));
    for name in ["alice", "nobody-there"] {
        assert_eq!(bob.get(&format!("/v1/users/{name}")).await.error(404), "user not found");
    }
    let body = json!({ "comment": "pipeline", "expiresAt": "2099-01-02T03:04:05.5" });
    let made = alice.post("/v1/users/alice/tokens", body).await;
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let made = made.ok()["data"].clone();
    assert_eq!((&made["comment"], &made["expiresAt"]), (&json!("pipeline"), &json!("2099-01-02T03:04:05+00:00")));
    assert_eq!(made["token"], made["generatedToken"]);
    let with = server.nobody.with(&text(&made, "/token"));
    assert_eq!(with.get("/v1/users/alice").await.ok()["data"]["username"], json!("alice"));
    let listed = alice.get("/v1/users/alice/tokens").await.ok();
    let row = listed["data"].as_array().unwrap().iter().find(|row| row["id"] == made["id"]).unwrap();
    assert_eq!((row.get("token"), row.get("generatedToken"), &row["comment"]), (None, None, &json!("pipeline")));
    bob.get("/v1/users/alice/tokens").await.error(403);
    bob.post("/v1/users/alice/tokens", json!({ "comment": "x" })).await.error(403);
    alice.post("/v1/users/alice/tokens", json!({ "comment": "x", "expiresAt": "soon" })).await.error(400);
    alice.post("/v1/users/alice/tokens", json!({ "comment": "x".repeat(200) })).await.error(400);
    bob.delete(&format!("/v1/users/alice/tokens/{}", text(&made, "/id"))).await.error(403);
    alice.delete(&format!("/v1/users/alice/tokens/{}", text(&made, "/id"))).await.ok();
    with.get("/v1/users/alice").await.error(401);
    // Without a comment and an end, as its page sends it.
    alice.post("/v1/users/alice/tokens", json!({ "comment": null, "expiresAt": null })).await.ok();
}

#[tokio::test]
async fn the_latest_are_those_that_were_tagged_last_and_that_one_may_browse() {
    let (server, alice) = start().await;
    let bob = server.user("bob", 0).await;
    private_collection(&alice, "alice", "secret").await;
    alice.push("alice/secret/two", "v1", "amd64", &sif(2)).await.ok();
    alice.push("alice/runs/one", "v2", "amd64", &sif(3)).await.ok();
    bob.push("bob/tools/three", "v1", "amd64", &sif(4)).await.ok();
    let latest = async |who: &Caller| {
        let list = who.get("/v1/latest").await.ok();
        let shown = |row: &Value| {
            let tags: Vec<String> = row["tags"].as_array().unwrap().iter().map(|tag| text(tag, "/name")).collect();
            format!("{}/{}:{}", text(row, "/container/entityName"), text(row, "/container/name"), tags.join(","))
        };
        list["data"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>()
    };
    let mut mine = latest(&alice).await;
    // Within one second of the clock they are in the order of their milliseconds.
    assert_eq!(mine, ["alice/one:v2,v1", "alice/two:v1"]);
    assert_eq!(latest(&bob).await, ["bob/three:v1"]);
    server.nobody.get("/v1/latest").await.error(401);
    join(&server, "alice", "bob", Role::Reader).await;
    mine.insert(0, "bob/three:v1".to_owned());
    assert_eq!(latest(&bob).await, mine);
    let tag = alice.get("/v1/latest").await.ok()["data"][0]["tags"][0].clone();
    assert_eq!((&tag["arch"], &tag["imageType"]), (&json!("amd64"), &json!("singularity")));
    // What is gone is not shown, and what is read has its bound.
    alice.delete("/v1/images/alice/runs/one:v2").await.ok();
    assert_eq!(latest(&alice).await, ["alice/one:v1", "alice/two:v1"]);
    for number in 0..15 {
        alice.push(&format!("alice/many/c{number:02}"), "v1", "amd64", &sif(9)).await.ok();
    }
    let answer = alice.get("/v1/latest").await;
    assert!(answer.cost().0 <= 4, "{:?}", answer.cost());
    assert_eq!(answer.ok()["data"].as_array().unwrap().len(), 10);
    let scoped = server.token("alice", json!({ "name": "s", "scope": "pull@bob" })).await;
    assert_eq!(latest(&scoped).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_small_ones_are_answered() {
    let (server, alice) = start().await;
    let bob = server.user("bob", 0).await;
    let defined = SifBuilder::new("amd64").definition("Bootstrap: scratch\n").build();
    alice.push("alice/runs/defined", "v1", "amd64", &defined).await.ok();
    // The definition file, only for whoever may pull.
    let inspect = "/v1/images/alice/runs/defined:v1/inspect";
    let seen = server.nobody.get(inspect).await.ok();
    assert_eq!(seen["data"]["attributes"]["deffile"], json!("Bootstrap: scratch\n"));
    set(&alice, "/v1/containers/alice/runs/defined", json!({ "visibility": "private" })).await.ok();
    for who in [&server.nobody, &bob] {
        who.get(inspect).await.error(404);
    }
    alice.get("/v1/images/alice/runs/defined/inspect").await.error(404);
    // All images of a container, for whoever may browse it.
    let images = alice.get("/v1/containers/alice/runs/one/images").await.ok();
    assert_eq!(images["data"][0]["hash"], json!(hash(&sif(1))));
    bob.get("/v1/containers/alice/runs/one/images").await.error(404);
    // A container named as the route.
    alice.container("alice/runs/images").await;
    assert_eq!(alice.get("/v1/containers/alice/runs/images").await.ok()["data"]["name"], json!("images"));
    // Tags in the form of old clients.
    let push = begin(&alice, "alice/runs/one", &sif(1)).await;
    let path = format!("/v1/tags/{}", push.container);
    let set_tag = alice.post(&path, json!({ "old": push.image })).await.ok();
    assert_eq!(set_tag["data"], json!({ "old": push.image }));
    for bad in [
        json!({ "old": push.image, "new": push.image }),
        json!({ "old": null }),
        json!({ "old": "x" }),
        json!({}),
        json!({ "Tag": "v1", "ImageID": push.image, "frozen": true }),
    ] {
        alice.post(&path, bad).await.error(400);
    }
    // A search in descriptions alone, and an administrator's in an entity of others.
    set(&alice, "/v1/containers/alice/runs/one", json!({ "description": "Nanopore reads" })).await.ok();
    server.followed().await;
    let names = |found: &Value| -> Vec<String> {
        found["data"]["container"].as_array().unwrap().iter().map(|row| text(row, "/name")).collect()
    };
    for (query, expected) in [
        ("value=&description=nanopore", vec!["one"]),
        ("description=nanopore", vec!["one"]),
        ("value=one&description=nanopore", vec!["one"]),
        ("value=defined&description=nanopore", vec![]),
    ] {
        assert_eq!(names(&alice.get(&format!("/v1/search?{query}")).await.ok()), expected, "{query}");
    }
    for short in ["value=&description=na", "value=", "value=na&description=nanopore"] {
        alice.get(&format!("/v1/search?{short}")).await.error(400);
    }
    assert_eq!(names(&server.admin.get("/v1/search?value=nanopore").await.ok()), Vec::<String>::new());
    assert_eq!(names(&server.admin.get("/v1/search?value=nanopore&entity=alice").await.ok()), ["one"]);
    bob.get("/v1/search?value=nanopore&entity=alice").await.error(404);
}
