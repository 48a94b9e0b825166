//! Lists, searches, shub, and the spellings of a reference.

use crate::support::{hash, join, join_many, private_collection, set, sif, text, write};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::{Digest, Repository, Role};
use shared::store::keys;
use shared::store::rows::Image;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, Server, send};

/// The names in a list, over all its pages.
async fn names(who: &Caller, path: &str, field: &str) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), String::new());
    for _ in 0..20 {
        let sign = if path.contains('?') { '&' } else { '?' };
        let page = if after.is_empty() { path.to_owned() } else { format!("{path}{sign}after={after}") };
        let list = who.get(&page).await.ok();
        let rows = list["data"].as_array().unwrap();
        assert!(rows.len() <= 100, "{page}");
        names.extend(rows.iter().map(|row| text(row, &format!("/{field}"))));
        after = text(&list, "/page/next");
        if after.is_empty() {
            return names;
        }
    }
    panic!("{path} never ends");
}

#[tokio::test]
async fn lists_come_in_pages_and_whole() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let collection = alice.container("alice/many/c000").await;
    assert!(!collection.is_empty());
    let id = text(&alice.get("/v1/collections/alice/many").await.ok(), "/data/id");
    let mut expected: Vec<String> = (0..105).map(|number| format!("c{number:03}")).collect();
    for name in &expected {
        alice.post("/v1/containers", json!({ "name": name, "collection": id })).await.ok();
    }
    assert_eq!(names(&alice, "/v1/containers?collection=alice/many", "name").await, expected);
    alice.container("alice/more/last").await;
    expected.push("last".to_owned());
    assert_eq!(names(&alice, "/v1/containers?entity=alice", "name").await, expected);
    assert_eq!(names(&alice, "/v1/collections?entity=alice", "name").await, ["many", "more"]);
    assert_eq!(names(&alice, "/v1/entities", "name").await, ["alice"]);

    let mut hashes = Vec::new();
    for seed in 0..3 {
        alice.push("alice/many/c000", &format!("t{seed}"), "amd64", &sif(seed)).await.ok();
        hashes.push(hash(&sif(seed)));
    }
    hashes.sort();
    assert_eq!(names(&alice, "/v1/images?container=alice/many/c000", "hash").await, hashes);
    for bad in ["", &"x".repeat(600)] {
        alice.get(&format!("/v1/containers?entity=alice&after={bad}")).await.error(400);
    }
    // A list can continue after a path where nothing is.
    let rest = names(&alice, "/v1/containers?entity=alice&after=many/c1", "name").await;
    assert_eq!(rest, ["c100", "c101", "c102", "c103", "c104", "last"]);
    let strange = alice.get("/v1/containers?entity=alice&after=%23%00%2F").await;
    assert!(strange.status == 200 || strange.status == 400, "{}", strange.status);
}

#[tokio::test]
async fn lists_show_only_what_the_caller_may_browse() {
    let server = Server::start().await;
    let (alice, bob, carol) =
        (server.user("alice", 0).await, server.user("bob", 0).await, server.user("carol", 0).await);
    alice.push("alice/tools/bb", "latest", "amd64", &sif(1)).await.ok();
    join(&server, "alice", "carol", Role::Reader).await;
    for path in [
        "/v1/collections?entity=alice",
        "/v1/containers?entity=alice",
        "/v1/containers?collection=alice/tools",
        "/v1/images?container=alice/tools/bb",
    ] {
        for stranger in [&server.nobody, &bob] {
            stranger.get(path).await.error(404);
        }
        assert_eq!(carol.get(path).await.ok()["data"].as_array().unwrap().len(), 1, "{path}");
        let elsewhere = server.token("alice", json!({ "name": "e", "scope": "pull@other" })).await;
        elsewhere.get(path).await.error(404);
        let pushing = server.token("alice", json!({ "name": "p", "scope": "push" })).await;
        pushing.get(path).await.error(404);
    }
    assert_eq!(names(&carol, "/v1/entities", "name").await, ["alice", "carol"]);
    assert_eq!(names(&server.nobody, "/v1/entities", "name").await, Vec::<String>::new());
    for (scope, seen) in [("pull@alice", vec!["alice"]), ("pull@other", vec![]), ("push", vec![])] {
        let scoped = server.token("carol", json!({ "name": "s", "scope": scope })).await;
        assert_eq!(names(&scoped, "/v1/entities", "name").await, seen, "{scope}");
    }
}

fn found(answer: &Value, kind: &str) -> Vec<String> {
    let field = if kind == "image" { "containerName" } else { "name" };
    let rows = answer["data"][kind].as_array().unwrap();
    let mut names: Vec<String> = rows.iter().map(|row| text(row, &format!("/{field}"))).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_search_finds_names_tags_descriptions_and_labels() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let labelled = SifBuilder::new("amd64").labels(&[("org.maker", "Quilibrium")]).build();
    alice.push("alice/tools/labelled", "latest", "amd64", &labelled).await.ok();
    alice.push("alice/tools/tagged", "release-2024", "amd64", &sif(1)).await.ok();
    let arm = SifBuilder::new("arm64").signature(&"AB".repeat(20)).build();
    alice.push("alice/science/arm", "latest", "arm64", &arm).await.ok();
    let container = alice.container("alice/tools/described").await;
    let described = sif(2);
    let body = json!({ "hash": hash(&described), "container": container, "description": "Folds Proteins" });
    alice.post("/v1/images", body).await.ok();
    alice.push("alice/tools/described", "latest", "amd64", &described).await.ok();
    set(&alice, "/v1/collections/alice/science", json!({ "description": "for the laboratory" })).await.ok();
    server.followed().await;
    for (query, kind, expected) in [
        ("value=Labelled", "image", vec!["labelled"]),
        ("value=quilib", "image", vec!["labelled"]),
        ("value=ORG.MAKER", "image", vec!["labelled"]),
        ("value=release-20", "image", vec!["tagged"]),
        ("value=folds%20pro", "image", vec!["described"]),
        // Each word may be in something else of the image or its container, in any order.
        ("value=pro+described+fold", "image", vec!["described"]),
        ("value=labelled+quilib+mak", "image", vec!["labelled"]),
        ("value=labelled+release", "image", vec![]),
        ("value=amd", "image", vec!["described", "labelled", "tagged"]),
        ("value=abababab", "image", vec!["arm"]),
        ("value=ei+proteins", "image", vec!["described"]),
        ("value=science", "image", vec!["arm"]),
        ("value=alice", "image", vec!["arm", "described", "labelled", "tagged"]),
        ("value=alice&arch=arm64", "image", vec!["arm"]),
        ("value=alice&arch=arm64,amd64", "image", vec!["arm", "described", "labelled", "tagged"]),
        ("value=alice&arch=s390x", "image", vec![]),
        ("value=alice&signed=true", "image", vec!["arm"]),
        ("value=alice&signed=false", "image", vec!["described", "labelled", "tagged"]),
        ("value=alice&arch=amd64", "entity", vec![]),
        ("value=alice&arch=amd64", "container", vec![]),
        ("value=alice", "entity", vec!["alice"]),
        ("value=laboratory", "collection", vec!["science"]),
        ("value=tools", "collection", vec!["tools"]),
        ("value=tagg", "container", vec!["tagged"]),
        ("value=release", "container", vec!["tagged"]),
        ("value=%25%25%25", "image", vec![]),
        ("value=.%2A.%2A", "image", vec![]),
    ] {
        let answer = alice.get(&format!("/v1/search?{query}")).await.ok();
        assert_eq!(found(&answer, kind), expected, "{query} {kind}");
    }
    for short in ["", "?value=", "?value=ab", "?value=%C3%A4b", "?value=a&arch=amd64"] {
        alice.get(&format!("/v1/search{short}")).await.error(400);
        server.nobody.get(&format!("/v1/search{short}")).await.error(400);
    }
}

#[tokio::test]
async fn a_search_finds_only_what_the_caller_may_browse() {
    let server = Server::start().await;
    let (alice, bob, carol) =
        (server.user("alice", 0).await, server.user("bob", 0).await, server.user("carol", 0).await);
    private_collection(&alice, "alice", "secret").await;
    alice.push("alice/secret/needle-private", "latest", "amd64", &sif(1)).await.ok();
    alice.push("alice/tools/needle-public", "latest", "amd64", &sif(2)).await.ok();
    bob.push("bob/tools/needle-bobs", "latest", "amd64", &sif(3)).await.ok();
    join(&server, "alice", "carol", Role::Reader).await;
    server.followed().await;
    let both = vec!["needle-private", "needle-public"];
    let scoped = async |scope: &str| server.token("carol", json!({ "name": "s", "scope": scope })).await;
    for (who, caller, expected) in [
        ("nobody", &server.nobody, vec![]),
        ("bob", &bob, vec!["needle-bobs"]),
        ("alice", &alice, both.clone()),
        ("carol", &carol, both.clone()),
        ("a token for everything", &scoped("pull").await, both.clone()),
        ("a token for the entity", &scoped("pull@alice").await, both.clone()),
        ("a token for another", &scoped("pull@bob").await, vec![]),
        ("a token for the entity, to push", &scoped("push@alice").await, vec![]),
        ("a token to push", &scoped("push,delete").await, vec![]),
    ] {
        let answer = caller.get("/v1/search?value=needle").await.ok();
        assert_eq!(found(&answer, "image"), expected, "{who}");
        assert_eq!(found(&answer, "container"), expected, "{who}");
    }
}

#[tokio::test]
async fn a_search_looks_in_all_entities_of_the_caller() {
    let server = Server::start().await;
    let (carol, last) = (server.user("carol", 0).await, server.user("the-last", 0).await);
    last.push("the-last/tools/needle", "latest", "amd64", &sif(1)).await.ok();
    join_many(&server, "carol", 130).await;
    join(&server, "the-last", "carol", Role::Reader).await;
    server.followed().await;
    let answer = carol.get("/v1/search?value=needle").await.ok();
    assert_eq!((found(&answer, "image"), found(&answer, "container")), (vec!["needle".into()], vec!["needle".into()]));
    let answer = carol.get("/v1/search?value=the-last").await.ok();
    assert_eq!(found(&answer, "entity"), ["the-last"]);
}

#[tokio::test]
async fn a_search_ends_where_its_answer_is_full() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    alice.push("alice/tools/bb", "latest", "amd64", &sif(1)).await.ok();
    let (place, table) = ("alice/tools/bb".parse::<Repository>().unwrap(), &server.local.app.table);
    let image: Image = table.get(keys::image(&place, &Digest::of(&sif(1)))).await.unwrap().unwrap();
    for number in 0..100_u8 {
        write(&server, &Image { hash: Digest::of(&[number]), ..image.clone() }).await;
    }
    join_many(&server, "alice", 130).await;
    assert!(shared::service::search::make(&server.local.app, None).await.unwrap());
    let images = alice.get("/v1/search?value=tools&arch=amd64").await;
    assert!(images.cost().0 <= 2 + 8 * 4, "{:?}: more than the first entities", images.cost());
    assert_eq!(found(&images.ok(), "image").len(), 100);
    // There may be more containers.
    let all = alice.get("/v1/search?value=tools").await;
    assert!(all.cost().0 > 131, "{:?}", all.cost());
    let all = all.ok();
    assert_eq!((found(&all, "image").len(), found(&all, "container").len()), (100, 1));
    assert_eq!(all["data"]["more"], true);
}

#[tokio::test]
async fn shub_finds_images_of_the_default_entity_and_of_a_named_one() {
    let server = Server::start_with(&[("STACKROOM_DEFAULT_ENTITY", "alice")]).await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    alice.push("alice/tools/bb", "latest", "amd64", &sif(1)).await.ok();
    alice.push("alice/tools/bb", "v2", "amd64", &sif(2)).await.ok();
    bob.push("bob/tools/bb", "latest", "amd64", &sif(3)).await.ok();
    private_collection(&bob, "bob", "secret").await;
    bob.push("bob/secret/bb", "latest", "amd64", &sif(4)).await.ok();
    for (path, bytes, tag) in [
        ("/api/container/tools/bb:latest", sif(1), "latest"),
        ("/api/container/tools/bb:v2", sif(2), "v2"),
        ("/api/container/tools/bb", sif(1), "latest"),
        ("/bob/api/container/tools/bb:latest", sif(3), "latest"),
        ("/alice/api/container/tools/bb:v2", sif(2), "v2"),
    ] {
        let manifest = server.nobody.get(path).await.ok();
        assert_eq!((&manifest["tag"], &manifest["name"]), (&json!(tag), &json!("tools/bb")), "{path}");
        let commit = text(&manifest, "/commit");
        assert_eq!(hash(&bytes), format!("sha256.{commit}"), "{path}");
        let image = send(server.nobody.bare(Method::GET, &text(&manifest, "/image"))).await;
        assert_eq!((image.status.as_u16(), &image.bytes), (200, &bytes), "{path}");
        assert_eq!(image.header("content-length").unwrap(), bytes.len().to_string());
    }
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for missing in [
        "/api/container/tools/cc:latest".to_owned(),
        "/api/container/tools/bb:v9".to_owned(),
        format!("/api/container/tools/bb@{commit}"),
        "/bob/api/container/secret/bb:latest".to_owned(),
        "/nobody/api/container/secret/bb:latest".to_owned(),
    ] {
        server.nobody.get(&missing).await.error(404);
    }
    assert_eq!(text(&bob.get("/bob/api/container/secret/bb").await.ok(), "/name"), "secret/bb");
}

#[tokio::test]
async fn a_reference_can_be_short_and_oddly_spelt() {
    let settings = [("STACKROOM_DEFAULT_ENTITY", "alice"), ("STACKROOM_DEFAULT_COLLECTION", "tools")];
    let server = Server::start_with(&settings).await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    alice.push("alice/tools/bb", "latest", "amd64", &bytes).await.ok();
    alice.push("alice/tools/bb", "V1.0_x", "amd64", &bytes).await.ok();
    let by_hash = format!("alice/tools/bb:{}", hash(&bytes));
    for reference in [
        "alice/tools/bb:latest",
        "alice/tools/bb",
        "alice/tools/bb:",
        "tools/bb:latest",
        "bb:latest",
        "bb",
        "/bb:latest",
        "/tools/bb:latest",
        "//alice//tools//bb:latest",
        "alice/tools/bb%3Alatest",
        "alice%2Ftools%2Fbb:latest",
        "alice/tools/bb:V1.0_x",
        &by_hash,
        &by_hash.replace(':', "%3A"),
    ] {
        let image = server.nobody.get(&format!("/v1/images/{reference}?arch=amd64")).await.ok();
        assert_eq!(image["data"]["hash"], json!(hash(&bytes)), "{reference}");
        let pulled = server.nobody.pull(&format!("{reference}?arch=amd64")).await;
        assert_eq!(pulled.bytes, bytes, "{reference}");
    }
    assert_eq!(alice.get("/v1/containers/bb").await.ok()["data"]["collectionName"], "tools");
    assert_eq!(alice.get("/v1/collections/tools").await.ok()["data"]["entityName"], "alice");
}

#[tokio::test]
async fn names_are_read_in_any_case_and_tags_are_not() {
    let server = Server::start().await;
    let alice = server.user("Alice", 0).await;
    // One name, whoever writes it how: a second user can't have it.
    server.admin.post("/api/users", json!({ "name": "ALICE" })).await.error(409);
    assert_eq!(server.admin.get("/api/users/aLICE/tokens").await.ok()["data"].as_array().unwrap().len(), 1);
    assert_eq!(alice.get("/v1/token-status").await.ok()["data"]["username"], "alice");
    private_collection(&alice, "ALICE", "Tools").await;
    let (first, second) = (alice.container("ALICE/Tools/FAQ4711").await, alice.container("alice/tools/faq4711").await);
    assert_eq!(first, second, "it was there already");
    let bytes = sif(1);
    alice.push("Alice/TOOLS/Faq4711", "V1", "amd64", &bytes).await.ok();
    let scoped = server.token("alice", json!({ "name": "s", "scope": "pull@ALICE/Tools/FAQ4711" })).await;
    let elsewhere = server.token("alice", json!({ "name": "e", "scope": "pull@ALICE/Tools/Other" })).await;
    for path in ["alice/tools/faq4711", "ALICE/Tools/FAQ4711", "Alice/tools/Faq4711"] {
        for who in [&alice, &scoped] {
            assert_eq!(who.pull(&format!("{path}:V1")).await.bytes, bytes, "{path}");
            let image = who.get(&format!("/v1/images/{path}:V1?arch=amd64")).await.ok()["data"].clone();
            let shown = ["entityName", "collectionName", "containerName"].map(|field| image[field].clone());
            assert_eq!(json!(shown), json!(["alice", "tools", "faq4711"]));
            assert_eq!(image["tags"], json!(["V1"]));
        }
        for who in [&server.nobody, &elsewhere] {
            who.get(&format!("/v1/images/{path}:V1")).await.error(404);
        }
        alice.get(&format!("/v1/images/{path}:v1")).await.error(404);
        assert_eq!(alice.get(&format!("/v1/containers/{path}")).await.ok()["data"]["id"], json!(first));
        assert_eq!(names(&alice, &format!("/v1/images?container={path}"), "hash").await, [hash(&bytes)]);
    }
    assert_eq!(names(&alice, "/v1/collections?entity=ALICE", "name").await, ["tools"]);
    assert_eq!(names(&alice, "/v1/containers?collection=ALICE/Tools", "name").await, ["faq4711"]);
    assert_eq!(text(&alice.get("/ALICE/api/container/TOOLS/FAQ4711:V1").await.ok(), "/name"), "tools/faq4711");
    server.followed().await;
    assert_eq!(found(&alice.get("/v1/search?value=FAQ4711").await.ok(), "container"), ["faq4711"]);
    set(&alice, "/v1/containers/Alice/Tools/FAQ4711", json!({ "visibility": "public" })).await.ok();
    assert_eq!(server.nobody.pull("ALICE/tools/FAQ4711:V1").await.bytes, bytes);
    alice.delete("/v1/images/ALICE/Tools/FAQ4711:v1").await.error(404);
    alice.delete("/v1/images/ALICE/Tools/FAQ4711:V1").await.ok();
    server.nobody.get("/v1/images/alice/tools/faq4711:V1").await.error(404);
    // Letters of other alphabets are no other case of ours.
    for path in ["al\u{131}ce/tools/x", "alice/too\u{2113}s/x", "\u{212a}/tools/x"] {
        server.nobody.get(&format!("/v1/images/{path}:V1")).await.error(404);
    }
}

#[tokio::test]
async fn who_asks_for_no_architecture_gets_the_best_guess() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let [amd, arm, riscv] = ["amd64", "arm64", "riscv64"].map(|arch| SifBuilder::new(arch).build());
    let latest = async |server: &Server| server.nobody.pull("alice/tools/bb:latest").await.bytes;
    alice.push("alice/tools/bb", "latest", "arm64", &arm).await.ok();
    assert_eq!(latest(&server).await, arm, "the only one");
    alice.push("alice/tools/bb", "latest", "riscv64", &riscv).await.ok();
    assert_eq!(latest(&server).await, riscv, "the one set last");
    alice.push("alice/tools/bb", "latest", "amd64", &amd).await.ok();
    alice.push("alice/tools/bb", "latest", "arm64", &arm).await.ok();
    assert_eq!(latest(&server).await, amd);
    for (arch, bytes) in [("amd64", &amd), ("arm64", &arm), ("riscv64", &riscv)] {
        assert_eq!(server.nobody.pull(&format!("alice/tools/bb:latest?arch={arch}")).await.bytes, *bytes);
        let image = server.nobody.get(&format!("/v1/images/alice/tools/bb:latest?arch={arch}")).await.ok();
        assert_eq!(image["data"]["arch"], json!(arch));
    }
    server.nobody.get("/v1/images/alice/tools/bb:latest?arch=s390x").await.error(404);
}

#[tokio::test]
async fn descriptions_are_kept_but_for_the_placeholders_of_old_clients() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let container = alice.container("alice/tools/bb").await;
    for (seed, given, kept) in [
        (1, "Folds\nproteins – «well»", "Folds\nproteins – «well»"),
        (2, "No description", ""),
        (3, "No Description", ""),
        (4, "", ""),
    ] {
        let body = json!({ "hash": hash(&sif(seed)), "container": container, "description": given });
        let image = alice.post("/v1/images", body).await.ok();
        assert_eq!(image["data"]["description"], json!(kept));
        alice.push("alice/tools/bb", &format!("t{seed}"), "amd64", &sif(seed)).await.ok();
        for selector in [format!("t{seed}"), hash(&sif(seed))] {
            let image = server.nobody.get(&format!("/v1/images/alice/tools/bb:{selector}")).await.ok();
            assert_eq!(image["data"]["description"], json!(kept), "{selector}");
        }
    }
    let long = json!({ "hash": hash(b""), "container": container, "description": "x".repeat(4097) });
    alice.post("/v1/images", long).await.error(400);
    let null = json!({ "hash": hash(b""), "container": container, "description": null });
    alice.post("/v1/images", null).await.ok();
    set(&alice, "/v1/containers/alice/tools/bb", json!({ "description": "a box" })).await.ok();
    assert_eq!(alice.get("/v1/containers/alice/tools/bb").await.ok()["data"]["description"], "a box");
    let image = alice.get("/v1/images/alice/tools/bb:t1").await.ok();
    assert_eq!(image["data"]["containerDescription"], "a box");
}

#[tokio::test]
async fn what_is_private_is_private_on_every_way_and_stays_so_for_what_is_made_in_it() {
    let server = Server::start().await;
    let (alice, bob, carol) =
        (server.user("alice", 0).await, server.user("bob", 0).await, server.user("carol", 0).await);
    join(&server, "alice", "carol", Role::Reader).await;
    private_collection(&alice, "alice", "secret").await;
    let bytes = sif(1);
    alice.push("alice/secret/bb", "latest", "amd64", &bytes).await.ok();
    let container = alice.container("alice/secret/bb").await;
    let by_hash = format!("alice/secret/bb:{}", hash(&bytes));
    let paths = [
        "/v1/images/alice/secret/bb:latest".to_owned(),
        format!("/v1/images/{by_hash}"),
        "/v1/imagefile/alice/secret/bb:latest".to_owned(),
        format!("/v1/imagefile/{by_hash}"),
        "/v1/containers/alice/secret/bb".to_owned(),
        "/v1/images?container=alice/secret/bb".to_owned(),
        format!("/v1/tags/{container}"),
        format!("/v2/tags/{container}"),
        "/alice/api/container/secret/bb".to_owned(),
    ];
    let look = async |who: &str, caller: &Caller, seen: bool| {
        for path in &paths {
            let status = caller.get(path).await.status.as_u16();
            assert_eq!([200, 303].contains(&status), seen, "{who} {path}: {status}");
            assert!(seen || status == 404, "{who} {path}: {status}");
        }
    };
    look("nobody", &server.nobody, false).await;
    look("bob", &bob, false).await;
    look("carol", &carol, true).await;
    look("alice", &alice, true).await;
    look("the admin", &server.admin, true).await;

    // Everybody who is logged in sees an internal container; lists are for the members of its entity.
    set(&alice, "/v1/containers/alice/secret/bb", json!({ "visibility": "internal" })).await.ok();
    look("nobody", &server.nobody, false).await;
    for path in paths.iter().filter(|path| !path.contains('?')) {
        let status = bob.get(path).await.status.as_u16();
        assert!([200, 303].contains(&status), "{path}: {status}");
    }
    // Later pushes do not change that.
    alice.push("alice/secret/bb", "v2", "amd64", &sif(2)).await.ok();
    look("nobody", &server.nobody, false).await;
    // An entity can be private as a whole, for everything that is created from then on.
    set(&bob, "/v1/entities/bob", json!({ "defaultPrivate": true })).await.ok();
    bob.push("bob/tools/bb", "latest", "amd64", &sif(3)).await.ok();
    server.nobody.get("/v1/images/bob/tools/bb:latest").await.error(404);
    assert_eq!(bob.pull("bob/tools/bb:latest").await.bytes, sif(3));
}
