//! Lists: tags, repositories, and what refers to a manifest.

use crate::library::{join, join_many, private_collection};
use crate::support::{
    BB, INDEX, MANIFEST, blob, digest, image, index, is, manifest_at, named, narrowed, nothing, push, push_sif, put,
    refused, tags,
};
use serde_json::{Value, json};
use shared::domain::Role;
use stackroom_tests::{Answer, Caller, Server};

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

/// Where a list continues.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    let target = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
    Some(target.to_owned())
}

/// All pages of a list, by following its links.
async fn pages(who: &Caller, path: &str, field: &str) -> Vec<Vec<Value>> {
    let (mut pages, mut path) = (Vec::new(), path.to_owned());
    loop {
        let answer = who.get(&path).await;
        is(&answer, 200);
        pages.push(answer.json[field].as_array().unwrap().clone());
        match next(&answer) {
            Some(more) => path = more,
            None => return pages,
        }
        assert!(pages.len() < 100, "a list that never ends");
    }
}

#[tokio::test]
async fn tags_are_listed_in_the_order_of_their_bytes_page_by_page() {
    let (_server, alice) = start().await;
    let body = push(&alice, BB, "latest", b"config", &[]).await;
    let mut names = vec!["1.0", "1.10", "1.2", "A", "Z", "_x", "a", "a-b", "a.b", "a_b", "latest", "z"];
    for name in &names {
        is(&put(&alice, BB, name, MANIFEST, &body).await, 201);
    }
    names.sort_unstable();
    let path = format!("/v2/{BB}/tags/list");
    let all = alice.get(&path).await;
    assert_eq!(all.json, json!({ "name": BB, "tags": names }));
    assert_eq!(all.header("link"), None);
    for most in [1, 2, 5, 11, 12, 13, 5000] {
        let pages = pages(&alice, &format!("{path}?n={most}"), "tags").await;
        assert!(pages.iter().all(|page| page.len() <= most));
        assert_eq!(pages.concat(), names, "{most}");
    }
    for (query, tags) in [
        ("last=a".to_owned(), &names[names.iter().position(|name| *name == "a").unwrap() + 1..]),
        ("last=aa&n=1".to_owned(), &["latest"][..]),
        ("last=z".to_owned(), &[]),
        ("last=".to_owned(), &names),
        ("n=0".to_owned(), &[]),
        (format!("last={}", "x".repeat(3000)), &["z"]),
        ("last=%2500%23%E2%82%AC".to_owned(), &names),
    ] {
        let answer = alice.get(&format!("{path}?{query}")).await;
        if answer.status != 400 {
            is(&answer, 200);
            assert_eq!(answer.json["tags"], json!(tags), "{query}");
        }
    }
    for wrong in ["-1", "x", "1.5", "99999999999999999999999"] {
        let status = alice.get(&format!("{path}?n={wrong}")).await.status;
        assert!(status.is_client_error() || status == 200, "{wrong}: {status}");
    }
    refused(&alice.get("/v2/alice/tools/never/tags/list").await, 404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn a_repository_without_tags_has_an_empty_list() {
    let (_server, alice) = start().await;
    push(&alice, BB, "latest", b"config", &[]).await;
    is(&alice.delete(&manifest_at(BB, "latest")).await, 202);
    assert_eq!(alice.get(&format!("/v2/{BB}/tags/list")).await.json, json!({ "name": BB, "tags": [] }));
}

#[tokio::test]
async fn the_catalog_has_the_repositories_of_ones_own_entities_and_no_other() {
    let (server, alice) = start().await;
    let (bob, carol) = (server.user("bob", 0).await, server.user("carol", 0).await);
    let two = server.user("alice-2", 0).await;
    join(&server, "alice", "carol", Role::Reader).await;
    join(&server, "alice-2", "carol", Role::Contributor).await;
    private_collection(&alice, "alice", "secret").await;
    let own = ["alice/deep/down/in/here", "alice/flat", "alice/secret/x", "alice/tools/a", "alice/tools/b"];
    for repository in own {
        push(&alice, repository, "latest", b"config", &[]).await;
    }
    alice.push("alice/tools/library", "latest", "amd64", &crate::library::sif(1)).await.ok();
    push(&two, "alice-2/tools/a", "latest", b"config", &[]).await;
    push(&bob, "bob/tools/a", "latest", b"config", &[]).await;
    let all = [&own[..], &["alice/tools/library"]].concat();
    for (who, repositories) in [
        (&alice, all.clone()),
        (&carol, [&all[..], &["alice-2/tools/a"]].concat()),
        (&bob, vec!["bob/tools/a"]),
        (&two, vec!["alice-2/tools/a"]),
    ] {
        for query in ["", "?n=1", "?n=2", "?n=5", "?n=6", "?n=100"] {
            let pages = pages(who, &format!("/v2/_catalog{query}"), "repositories").await;
            let mut listed: Vec<Value> = pages.concat();
            listed.sort_by_key(ToString::to_string);
            let mut wanted: Vec<Value> = repositories.iter().map(|name| json!(name)).collect();
            wanted.sort_by_key(ToString::to_string);
            assert_eq!(listed, wanted, "{query}: each once");
        }
    }
    refused(&server.nobody.get("/v2/_catalog").await, 401, "UNAUTHORIZED");
    // A token for something else lists nothing.
    let narrow = narrowed(&alice, "alice", &["repository:alice/tools/a:pull"]).await;
    let listed = narrow.get("/v2/_catalog").await;
    assert!(listed.status == 401 || listed.json["repositories"] == json!([]), "{}", listed.json);
    let narrow = server.token("alice", json!({ "name": "s", "scope": "pull@alice/tools/a" })).await;
    let listed = narrow.get("/v2/_catalog").await;
    assert!(listed.status == 401 || listed.json["repositories"] == json!([]), "{}", listed.json);
}

#[tokio::test]
async fn the_catalog_has_the_repositories_of_all_ones_entities() {
    let (server, alice) = start().await;
    let last = server.user("the-last", 0).await;
    let repositories = ["alice/tools/a", "alice/tools/b", "the-last/tools/a", "the-last/tools/b"];
    for (number, repository) in repositories.into_iter().enumerate() {
        push(if number < 2 { &alice } else { &last }, repository, "latest", b"config", &[]).await;
    }
    join_many(&server, "alice", 130).await;
    join(&server, "the-last", "alice", Role::Reader).await;
    for query in ["", "?n=1", "?n=2", "?n=3", "?n=4"] {
        let pages = pages(&alice, &format!("/v2/_catalog{query}"), "repositories").await;
        assert_eq!(pages.concat(), repositories, "{query}");
    }
    // A page ends where it is full, and the next one continues there, reading the caller, their entities, and one of
    // these.
    for query in ["?n=1", "?n=1&last=the-last%2Ftools%2Fa"] {
        assert_eq!(alice.get(&format!("/v2/_catalog{query}")).await.cost(), (3, 0), "{query}");
    }
    // It also continues after what does not exist, and after what is somebody else's.
    server.user("bob", 0).await;
    for (last, rest) in [("alice%2Ftools%2Faa", 1), ("bob%2Fx", 2), ("nobody%2Fx%2Fy", 2), ("the-last%2Fz", 4)] {
        let pages = pages(&alice, &format!("/v2/_catalog?last={last}"), "repositories").await;
        assert_eq!(pages.concat(), repositories[rest..], "{last}");
    }
}

/// Uploads a manifest that refers to another one, and returns its descriptor as it should be listed.
async fn refer(who: &Caller, number: u32, edit: impl Fn(&mut Value)) -> (Value, String) {
    let mut body = image(b"config", &[]);
    body["annotations"] = json!({ "number": number.to_string() });
    edit(&mut body);
    let kind = body["mediaType"].as_str().unwrap().to_owned();
    let text = body.to_string();
    let brought = put(who, BB, &digest(text.as_bytes()), &kind, &text).await;
    is(&brought, 201);
    assert_eq!(brought.header("oci-subject"), body["subject"]["digest"].as_str());
    let mut listed = named(&kind, text.as_bytes());
    listed["annotations"] = body["annotations"].clone();
    (listed, text)
}

async fn referrers(who: &Caller, subject: &str, query: &str) -> Answer {
    let answer = who.get(&format!("/v2/{BB}/referrers/{subject}{query}")).await;
    is(&answer, 200);
    assert_eq!(answer.header("content-type"), Some(INDEX));
    assert_eq!((&answer.json["schemaVersion"], &answer.json["mediaType"]), (&json!(2), &json!(INDEX)));
    answer
}

/// Descriptors in any order.
fn same(answer: &Answer, wanted: &[Value]) {
    let sorted = |list: &[Value]| {
        let mut list = list.to_vec();
        list.sort_by_key(|one| one["digest"].to_string());
        list
    };
    assert_eq!(sorted(answer.json["manifests"].as_array().unwrap()), sorted(wanted));
}

#[tokio::test]
async fn what_refers_to_a_manifest_is_listed_with_what_it_is() {
    let (_server, alice) = start().await;
    let subject = push(&alice, BB, "latest", b"config", &[b"layer"]).await;
    let (of, missing) = (named(MANIFEST, subject.as_bytes()), named(MANIFEST, b"that comes later"));
    // By its artifactType, or else by its configuration's media type; an index may refer too.
    let (mut signature, _) = refer(&alice, 1, |body| {
        body["subject"] = of.clone();
        body["artifactType"] = json!("application/vnd.example.signature+json");
    })
    .await;
    signature["artifactType"] = json!("application/vnd.example.signature+json");
    let (mut sbom, _) = refer(&alice, 2, |body| {
        body["subject"] = of.clone();
        body["config"]["mediaType"] = json!("application/vnd.example.sbom+json");
    })
    .await;
    sbom["artifactType"] = json!("application/vnd.example.sbom+json");
    let (plain, _) = refer(&alice, 3, |body| {
        let annotations = body["annotations"].clone();
        *body = index(&[]);
        body["annotations"] = annotations;
        body["subject"] = of.clone();
    })
    .await;
    let (mut early, _) = refer(&alice, 4, |body| body["subject"] = missing.clone()).await;
    early["artifactType"] = json!(crate::support::CONFIG);
    refer(&alice, 5, |_| {}).await;

    let name = digest(subject.as_bytes());
    let all = referrers(&alice, &name, "").await;
    same(&all, &[signature.clone(), sbom.clone(), plain]);
    assert_eq!((all.header("oci-filters-applied"), all.header("link")), (None, None));
    for (kind, wanted) in [("signature", &[signature][..]), ("sbom", &[sbom]), ("unknown", &[])] {
        let query = format!("?artifactType=application/vnd.example.{kind}%2Bjson");
        let some = referrers(&alice, &name, &query).await;
        same(&some, wanted);
        assert_eq!(some.header("oci-filters-applied"), Some("artifactType"));
    }
    // The subject need not exist, nor anything else.
    same(&referrers(&alice, &digest(b"that comes later"), "").await, &[early]);
    same(&referrers(&alice, &nothing(), "").await, &[]);
    let empty = alice.get(&format!("/v2/alice/tools/never/referrers/{}", nothing())).await;
    assert_eq!((empty.status.as_u16(), &empty.json["manifests"]), (200, &json!([])));
    refused(&alice.get(&format!("/v2/{BB}/referrers/x")).await, 400, "DIGEST_INVALID");
    refused(&alice.get(&format!("/v2/{BB}/referrers/sha256:x")).await, 400, "DIGEST_INVALID");
}

#[tokio::test]
async fn hazard_referrers_abuse() {
    let (server, alice) = start().await;
    let carol = server.user("carol", 0).await;
    push(&alice, BB, "latest", b"config", &[]).await;
    let of = named(MANIFEST, b"subject");
    let mut wanted = Vec::new();
    for number in 0..230 {
        let (mut one, _) = refer(&alice, number, |body| {
            body["subject"] = of.clone();
            let kind = if number % 2 == 0 { "even" } else { "odd" };
            body["artifactType"] = json!(format!("application/vnd.example.{kind}"));
        })
        .await;
        let kind = if number % 2 == 0 { "even" } else { "odd" };
        one["artifactType"] = json!(format!("application/vnd.example.{kind}"));
        wanted.push(one);
    }
    let path = format!("/v2/{BB}/referrers/{}", digest(b"subject"));
    for (query, step) in [("", 1), ("?artifactType=application/vnd.example.even", 2)] {
        let pages = pages(&alice, &format!("{path}{query}"), "manifests").await;
        assert!(pages.len() > 1, "in pages");
        let mut listed: Vec<String> = pages.concat().iter().map(ToString::to_string).collect();
        let mut wanted: Vec<String> = wanted.iter().step_by(step).map(ToString::to_string).collect();
        listed.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(listed, wanted);
    }
    // A list of referrers omits long annotations.
    let (_, giant) = refer(&alice, 1000, |body| {
        body["subject"] = named(MANIFEST, b"another subject");
        body["annotations"]["book"] = json!("x".repeat(100_000));
    })
    .await;
    let listed = referrers(&alice, &digest(b"another subject"), "").await;
    assert!(listed.bytes.len() < 20_000 && giant.len() > 100_000, "{}", listed.bytes.len());
    assert_eq!(listed.json["manifests"][0]["digest"], json!(digest(giant.as_bytes())));
    // A single byte may take six on the wire.
    let (mut escaped, _) = refer(&alice, 1001, |body| {
        body["subject"] = named(MANIFEST, b"a third subject");
        body["annotations"]["bells"] = json!("\u{7}".repeat(8000));
    })
    .await;
    escaped.as_object_mut().unwrap().remove("annotations");
    escaped["artifactType"] = json!(crate::support::CONFIG);
    let listed = referrers(&alice, &digest(b"a third subject"), "").await;
    assert!(listed.bytes.len() < 1000, "{}", listed.bytes.len());
    same(&listed, &[escaped]);
    // A caller who may only read can't add referrers.
    join(&server, "alice", "carol", Role::Reader).await;
    let before = referrers(&carol, &digest(b"another subject"), "").await;
    let mut body = image(b"config", &[]);
    body["subject"] = named(MANIFEST, b"another subject");
    for reference in ["latest", "new", &digest(body.to_string().as_bytes())] {
        is(&put(&carol, BB, reference, MANIFEST, &body.to_string()).await, 401);
    }
    for who in [&alice, &carol] {
        assert_eq!(referrers(who, &digest(b"another subject"), "").await.bytes, before.bytes);
    }
    // Only in the repository itself.
    push(&alice, "alice/tools/other", "latest", b"config", &[]).await;
    let other = alice.get(&format!("/v2/alice/tools/other/referrers/{}", digest(b"subject"))).await;
    assert_eq!(other.json["manifests"], json!([]));
}

#[tokio::test]
async fn images_of_both_doors_are_in_one_list_of_tags() {
    let (_server, alice) = start().await;
    alice.push(BB, "library", "amd64", &crate::library::sif(1)).await.ok();
    push_sif(&alice, BB, "registry", &crate::library::sif(2)).await;
    push(&alice, BB, "docker", b"config", &[]).await;
    blob(&alice, BB, b"is no tag").await;
    assert_eq!(tags(&alice, BB).await, ["docker", "library", "registry"]);
}
