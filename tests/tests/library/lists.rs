//! Lists: their orders, their filters, and what they cost.

use crate::support::{join, join_many, set, sif, text, write};
use serde_json::{Value, json};
use shared::domain::{Description, Id, Role, Time, Visibility};
use shared::rules::{Action, Resource};
use shared::service::access::system;
use shared::store::keys;
use shared::store::rows::{Collection, Container, Entity, Tag};
use shared::store::table::{Condition, Write, Written};
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, Server};

/// A field of all entries of a list, over all its pages, none of which may be too long.
async fn all(who: &Caller, path: &str, field: &str) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), String::new());
    for _ in 0..40 {
        let page = if after.is_empty() { path.to_owned() } else { format!("{path}&after={after}") };
        let list = who.get(&page).await.ok();
        let rows = list["data"].as_array().unwrap();
        assert!(rows.len() <= 100, "{page}");
        found.extend(rows.iter().map(|row| text(row, &format!("/{field}"))));
        after = text(&list, "/page/next").replace('~', "%7E");
        if after.is_empty() {
            return found;
        }
    }
    panic!("{path} never ends");
}

/// Writes that many containers into a collection, each a second younger than the one before; every third is private.
async fn containers(server: &Server, count: usize) {
    let key = keys::collection(&"alice".parse().unwrap(), &"tools".parse().unwrap());
    let collection: Collection = server.local.app.table.get(key).await.unwrap().unwrap();
    let (visible, hidden) = (Visibility::Public, Visibility::Private);
    let row = |number: usize| Container {
        id: Id::from_random([0; 12]),
        repository: format!("alice/tools/c{:04}", (number * 7) % count).parse().unwrap(),
        collection_id: Some(collection.id),
        entity_id: collection.entity_id,
        description: Description::default(),
        visibility: if number.is_multiple_of(3) { hidden } else { visible },
        read_only: number.is_multiple_of(2),
        created_by: None,
        created: Time(1_700_000_000 + i64::try_from(number).unwrap()),
        epoch: 0,
        removals: 0,
        version: 0,
    };
    let writes: Vec<Write> = (0..count).map(|number| Write::put(&row(number), Condition::None).unwrap()).collect();
    let grant = system(Action::Manage, &Resource::Installation).unwrap();
    for some in writes.chunks(100) {
        let written = server.local.app.table.write(&grant, some.to_vec()).await.unwrap();
        assert_eq!(written, Written::Done);
    }
}

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let id = text(&alice.get("/v1/entities/alice").await.ok(), "/data/id");
    alice.post("/v1/collections", json!({ "name": "tools", "entity": id })).await.ok();
    (server, alice)
}

#[tokio::test]
async fn a_list_comes_in_every_order_and_whole() {
    let (server, alice) = start().await;
    containers(&server, 250).await;
    let by_name: Vec<String> = (0..250).map(|number| format!("c{number:04}")).collect();
    let by_time: Vec<String> = (0..250).map(|number| format!("c{:04}", (number * 7) % 250)).collect();
    let backwards = |names: &[String]| names.iter().rev().cloned().collect::<Vec<_>>();
    for list in ["/v1/containers?collection=alice/tools", "/v1/containers?entity=alice"] {
        for (sort, expected) in [
            ("name", by_name.clone()),
            ("-name", backwards(&by_name)),
            ("created", by_time.clone()),
            ("-created", backwards(&by_time)),
        ] {
            assert_eq!(all(&alice, &format!("{list}&sort={sort}"), "name").await, expected, "{list} {sort}");
        }
    }
    let some: Vec<String> = by_name.iter().filter(|name| name.starts_with("c01")).cloned().collect();
    for (query, expected) in [
        ("collection=alice/tools&prefix=c01", some.clone()),
        ("collection=alice/tools&prefix=C01&sort=-name", backwards(&some)),
        ("entity=alice&prefix=tools/c01", some.clone()),
        ("entity=alice&prefix=c01", Vec::new()),
        ("collection=alice/tools&prefix=c9", Vec::new()),
    ] {
        assert_eq!(all(&alice, &format!("/v1/containers?{query}"), "name").await, expected, "{query}");
    }
    let paths = all(&alice, "/api/repositories?entity=alice&sort=-created&prefix=tools/c01", "name").await;
    let expected: Vec<String> =
        by_time.iter().rev().filter(|name| name.starts_with("c01")).map(|name| format!("alice/tools/{name}")).collect();
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn a_filter_shows_what_it_says_and_reads_no_more_than_it_may() {
    let (server, alice) = start().await;
    containers(&server, 300).await;
    let list = "/v1/containers?collection=alice/tools";
    let names = async |query: &str| all(&alice, &format!("{list}&{query}"), "name").await;
    let private = names("private=true").await;
    assert_eq!(private.len(), 100);
    assert_eq!(names("visibility=private").await, private);
    assert_eq!(names("private=false").await.len(), 200);
    assert_eq!(names("visibility=internal").await, Vec::<String>::new());
    assert_eq!(names("private=true&readOnly=true").await.len(), 50);
    let mut sorted = names("private=true&sort=-created").await;
    sorted.sort();
    assert_eq!(sorted, private);
    // With nothing to show, all of it is read: three pages, and the caller.
    let none = alice.get(&format!("{list}&visibility=internal")).await;
    assert!(none.cost().0 <= 5, "{:?}", none.cost());
    // In a list that is longer than a request may read, a page ends, and says where the next one begins.
    containers(&server, 1150).await;
    let first = alice.get(&format!("{list}&visibility=internal")).await;
    assert!(first.cost().0 <= 12, "{:?}", first.cost());
    let first = first.ok();
    assert_eq!((&first["data"], text(&first, "/page/next").is_empty()), (&json!([]), false));
    assert_eq!(names("visibility=internal").await, Vec::<String>::new());
    assert_eq!(names("private=false").await.len() + names("private=true").await.len(), 1150);
    // And can't be sorted by time, as long as it is not narrowed.
    let refused = alice.get(&format!("{list}&sort=created")).await;
    assert!(refused.cost().0 <= 12, "{:?}", refused.cost());
    assert!(refused.error(400).contains("`prefix`"));
    assert_eq!(names("sort=created&prefix=c00").await.len(), 100);
    assert_eq!(names("sort=-name").await.len(), 1150);
}

#[tokio::test]
async fn what_a_list_can_not_do_is_refused_by_name() {
    let (_server, alice) = start().await;
    alice.push("alice/tools/bb", "v1", "amd64", &sif(1)).await.ok();
    for (path, named) in [
        ("/v1/entities?sort=size", "sort"),
        ("/v1/entities?sort=updated", "updated"),
        ("/v1/entities?arch=amd64", "arch"),
        ("/v1/collections?entity=alice&sort=-updated", "updated"),
        ("/v1/collections?entity=alice&visibility=private", "visibility"),
        ("/v1/containers?entity=alice&sort=", "sort"),
        ("/v1/containers?entity=alice&signed=true", "signed"),
        ("/v1/containers?entity=alice&private=maybe", "private"),
        ("/v1/containers?entity=alice&visibility=secret", "visibility"),
        ("/v1/containers?entity=alice&sort=created&after=x", "after"),
        ("/v1/images?container=alice/tools/bb&private=true", "private"),
        (&format!("/v1/containers?entity=alice&prefix={}", "x".repeat(600)), "prefix"),
        (&format!("/v1/containers?entity=alice&prefix={0}&after={0}", "x".repeat(300)), "prefix"),
        ("/api/tags?repository=alice/tools/bb&sort=created", "created"),
        ("/api/tags?repository=alice/tools/bb&signed=true", "signed"),
    ] {
        let why = alice.get(path).await.error(400);
        assert!(why.contains(&format!("`{named}`")), "{path}: {why}");
    }
}

#[tokio::test]
async fn images_and_tags_are_filtered_by_what_they_are() {
    let (server, alice) = start().await;
    let signed = SifBuilder::new("arm64").signature(&"AB".repeat(20)).build();
    alice.push("alice/tools/bb", "Release-1", "amd64", &sif(1)).await.ok();
    alice.push("alice/tools/bb", "release-2", "amd64", &sif(2)).await.ok();
    alice.push("alice/tools/bb", "release-2", "arm64", &signed).await.ok();
    set(&alice, "/v1/images/alice/tools/bb:Release-1", json!({ "frozen": true })).await.ok();
    let list = "/v1/images?container=alice/tools/bb";
    for (query, count) in [
        ("", 3),
        ("&arch=amd64", 2),
        ("&arch=arm64", 1),
        ("&arch=s390x", 0),
        ("&signed=true", 1),
        ("&signed=false", 2),
        ("&signed=true&arch=amd64", 0),
        ("&sort=-created", 3),
    ] {
        assert_eq!(all(&alice, &format!("{list}{query}"), "hash").await.len(), count, "{query}");
    }
    let hash = crate::support::hash(&sif(1));
    assert_eq!(all(&alice, &format!("{list}&prefix={}", &hash[..20]), "hash").await, [hash]);
    // The second one was set last.
    let key = keys::tag(&"alice/tools/bb".parse().unwrap(), &"Release-1".parse().unwrap());
    let tag: Tag = server.local.app.table.get(key).await.unwrap().unwrap();
    write(&server, &Tag { updated: Time(1_600_000_000), ..tag }).await;
    let list = "/api/tags?repository=alice/tools/bb";
    for (query, expected) in [
        ("", vec!["Release-1", "release-2"]),
        ("&sort=-name", vec!["release-2", "Release-1"]),
        ("&sort=updated", vec!["Release-1", "release-2"]),
        ("&sort=-updated", vec!["release-2", "Release-1"]),
        ("&prefix=rel", vec!["release-2"]),
        ("&frozen=true", vec!["Release-1"]),
        ("&arch=arm64", vec!["release-2"]),
        ("&arch=arm64&frozen=true", vec![]),
    ] {
        assert_eq!(all(&alice, &format!("{list}{query}"), "name").await, expected, "{query}");
    }
    let shown = alice.get(list).await.ok();
    assert_eq!(shown["data"][1]["images"]["arm64"]["signed"], json!(true));
    assert!(text(&shown, "/data/0/digest").starts_with("sha256:"));
    // A public container's tags are for everybody who knows its name, as in a pull.
    server.nobody.get(list).await.ok();
    set(&alice, "/v1/containers/alice/tools/bb", json!({ "visibility": "private" })).await.ok();
    server.nobody.get(list).await.error(404);
}

#[tokio::test]
async fn whoever_has_a_role_on_a_part_sorts_and_filters_that_part() {
    let (server, alice) = start().await;
    for path in ["alice/tools/a", "alice/tools/b", "alice/data/c", "alice/data/d", "alice/more/e"] {
        alice.container(path).await;
    }
    set(&alice, "/v1/containers/alice/data/c", json!({ "visibility": "private" })).await.ok();
    let bob = server.user("bob", 0).await;
    for part in ["data", "tools/b"] {
        let body = json!({ "role": "reader", "on": part });
        alice.put("/api/entities/alice/members/bob", body).await.ok();
    }
    for (query, expected) in [
        ("entity=alice", vec!["c", "d", "b"]),
        ("entity=alice&sort=-name", vec!["b", "d", "c"]),
        ("entity=alice&private=true", vec!["c"]),
        ("entity=alice&prefix=data/", vec!["c", "d"]),
        ("entity=alice&prefix=more", vec![]),
        ("collection=alice/data&sort=-name", vec!["d", "c"]),
        ("collection=alice/tools&sort=-name", vec!["b"]),
        ("collection=alice/tools&prefix=a", vec![]),
    ] {
        assert_eq!(all(&bob, &format!("/v1/containers?{query}"), "name").await, expected, "{query}");
    }
    let by_time = all(&bob, "/v1/containers?entity=alice&sort=created", "name").await;
    assert_eq!(by_time.len(), 3);
    assert_eq!(all(&bob, "/v1/collections?entity=alice&sort=-name", "name").await, ["tools", "data"]);
    assert_eq!(all(&bob, "/v1/collections?entity=alice&prefix=t", "name").await, ["tools"]);
}

#[tokio::test]
async fn entities_and_collections_are_sorted_and_filtered() {
    let (server, alice) = start().await;
    let entity: Entity = server.local.app.table.get(keys::entity(&"alice".parse().unwrap())).await.unwrap().unwrap();
    write(&server, &Entity { created: Time(1_600_000_000), ..entity }).await;
    let user = server.user("aaron", 0).await;
    set(&user, "/v1/entities/aaron", json!({ "private": true })).await.ok();
    join(&server, "aaron", "alice", Role::Reader).await;
    for (query, expected) in [
        ("sort=name", vec!["aaron", "alice"]),
        ("sort=-name", vec!["alice", "aaron"]),
        ("sort=created", vec!["alice", "aaron"]),
        ("sort=-created", vec!["aaron", "alice"]),
        ("prefix=al", vec!["alice"]),
        ("private=true", vec!["aaron"]),
        ("private=false&sort=created", vec!["alice"]),
    ] {
        assert_eq!(all(&alice, &format!("/v1/entities?{query}"), "name").await, expected, "{query}");
    }
    join_many(&server, "alice", 120).await;
    assert!(alice.get("/v1/entities?sort=created").await.error(400).contains("`prefix`"));
    assert_eq!(all(&alice, "/v1/entities?sort=created&prefix=a", "name").await, ["alice", "aaron"]);
    let id = text(&alice.get("/v1/entities/alice").await.ok(), "/data/id");
    alice.post("/v1/collections", json!({ "name": "hidden", "entity": id, "private": true })).await.ok();
    for (query, expected) in [
        ("", vec!["hidden", "tools"]),
        ("&sort=-name", vec!["tools", "hidden"]),
        ("&private=true", vec!["hidden"]),
        ("&private=False", vec!["tools"]),
        ("&prefix=To", vec!["tools"]),
    ] {
        assert_eq!(all(&alice, &format!("/v1/collections?entity=alice{query}"), "name").await, expected, "{query}");
    }
    let ids: Vec<Value> = alice.get("/v1/collections?entity=alice&sort=created").await.ok()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].clone())
        .collect();
    assert_eq!(ids.len(), 2);
}
