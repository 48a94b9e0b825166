//! Paths: names that look like routes, invalid names, and names that proxies might read differently.

use crate::library::{private_collection, set};
use crate::support::{
    BB, MANIFEST, bring, close, digest, fetch, head, image, is, manifest, manifest_at, narrowed, open, push, push_sif,
    put, refused, tags,
};
use crate::wire::Wire;
use futures::future::join_all;
use serde_json::{Value, json};
use stackroom_tests::Server;
use stackroom_tests::functions::only_in_one_process;

#[tokio::test]
async fn a_repository_may_be_called_like_a_route() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    for name in [
        "alice/flat",
        "alice/tags/list",
        "alice/blobs/uploads",
        "alice/manifests/latest",
        "alice/referrers/x",
        "alice/tools/blobs",
        "alice/tools/tags",
        "alice/v2/catalog",
        "alice/a/b/c/d/e/f/g/h",
        "alice/with.dot/with-dash/with_low/with__two/with---more",
    ] {
        let layer = name.as_bytes();
        let body = push(&alice, name, "latest", b"config", &[layer]).await;
        assert_eq!(manifest(&alice, name, "latest").await, body);
        assert_eq!(manifest(&alice, name, &digest(body.as_bytes())).await, body);
        assert_eq!(fetch(&alice, name, &digest(layer)).await.bytes, layer);
        assert_eq!(tags(&alice, name).await, ["latest"]);
        is(&alice.get(&format!("/v2/{name}/referrers/{}", digest(layer))).await, 200);
        is(&alice.delete(&manifest_at(name, &digest(body.as_bytes()))).await, 202);
    }
    assert_eq!(server.quota("alice").await, (0, 0));
}

#[tokio::test]
async fn what_can_be_no_repository_is_said_to_be_none() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    for name in ["objects/x", "_catalog", "-x", "alice/-x", "alice/x-", "alice/x..y", "alice/B%C3%9C", "_x/y"] {
        for path in ["manifests/latest", "tags/list"] {
            let answer = alice.get(&format!("/v2/{name}/{path}")).await;
            assert!([400, 404].contains(&answer.status.as_u16()), "{name}: {}", answer.status);
            let code = answer.json["errors"][0]["code"].as_str().unwrap();
            assert!(["NAME_INVALID", "NAME_UNKNOWN"].contains(&code), "{name}: {code}");
        }
        let opened = alice.post(&format!("/v2/{name}/blobs/uploads/"), Value::Null).await;
        assert!([400, 404].contains(&opened.status.as_u16()), "{name}: {}", opened.status);
    }
    let long = format!("alice/{}", "x".repeat(300));
    assert!(bring(&alice, &long, b"x").await.status.is_client_error());
    // There is no such entity, and a push creates none: not even a site admin's push.
    let opened = server.admin.post("/v2/nobody/tools/bb/blobs/uploads/", Value::Null).await;
    refused(&opened, 404, "NAME_UNKNOWN");
    is(&alice.post("/v2/nobody/tools/bb/blobs/uploads/", Value::Null).await, 401);
    for path in ["/v2/x", "/v2/alice/tools/bb", "/v2/_catalog/x", "/v2/alice/tools/bb/tags", "/v2/alice/tools/bb/blobs"]
    {
        refused(&alice.get(path).await, 404, "NAME_UNKNOWN");
    }
}

#[tokio::test]
async fn a_repository_is_found_and_made_in_any_case_and_a_tag_is_not() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let body = push(&alice, "ALICE/Tools/FAQ4711", "V1", b"config", &[b"layer"]).await;
    for name in ["alice/tools/faq4711", "ALICE/Tools/FAQ4711", "Alice/tools/Faq4711"] {
        assert_eq!(manifest(&alice, name, "V1").await, body, "{name}");
        assert_eq!(fetch(&alice, name, &digest(b"layer")).await.bytes, b"layer");
        refused(&alice.get(&manifest_at(name, "v1")).await, 404, "MANIFEST_UNKNOWN");
        let listed = alice.get(&format!("/v2/{name}/tags/list")).await;
        assert_eq!(listed.json, json!({ "name": "alice/tools/faq4711", "tags": ["V1"] }));
        // What is answered has one spelling.
        let opened = alice.post(&format!("/v2/{name}/blobs/uploads/"), Value::Null).await;
        assert!(opened.header("location").unwrap().starts_with("/v2/alice/tools/faq4711/blobs/uploads/"));
        let challenge = server.nobody.get(&format!("/v2/{name}/tags/list")).await;
        assert!(challenge.header("www-authenticate").unwrap().contains("repository:alice/tools/faq4711:pull\""));
        let mount = format!("/v2/alice/tools/other/blobs/uploads/?mount={}&from={name}", digest(b"layer"));
        is(&alice.post(&mount, Value::Null).await, 201);
        // A token that was asked for in any case is for the same repository, and for no other.
        let narrow = narrowed(&alice, "Alice", &[&format!("repository:{name}:pull")]).await;
        is(&narrow.get(&manifest_at("alice/tools/faq4711", "V1")).await, 200);
        is(&narrow.get(&format!("/v2/{name}/tags/list")).await, 200);
        is(&narrow.get("/v2/alice/tools/other/tags/list").await, 401);
        is(&narrow.post(&format!("/v2/{name}/blobs/uploads/"), Value::Null).await, 401);
    }
    // The upload's URL is for one repository, however that is spelt.
    let url = open(&alice, "alice/tools/faq4711").await;
    let spelt = url.replacen("alice/tools", "ALICE/tools", 1);
    is(&close(&alice, &spelt, &digest(b"more"), b"more").await, 201);
    assert_eq!(
        alice.get("/v2/_catalog").await.json["repositories"],
        json!(["alice/tools/faq4711", "alice/tools/other"])
    );
    let rest = alice.get("/v2/_catalog?last=Alice%2FTools%2FFAQ4711").await;
    assert_eq!(rest.json["repositories"], json!(["alice/tools/other"]));
    is(&alice.delete(&manifest_at("ALICE/TOOLS/FAQ4711", &digest(body.as_bytes()))).await, 202);
    refused(&alice.get(&manifest_at("alice/tools/faq4711", "V1")).await, 404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_single_name_lies_below_the_default_entity_and_collection() {
    let server = Server::start_with(&[("STACKROOM_DEFAULT_ENTITY", "lab")]).await;
    let (lab, bob) = (server.user("lab", 0).await, server.user("bob", 0).await);
    let asked = "repository:hello:pull,push";
    let narrow = narrowed(&lab, "lab", &[asked]).await;
    let body = push(&narrow, "hello", "v1", b"config", &[b"layer"]).await;
    for name in ["hello", "Hello", "lab/default/hello"] {
        assert_eq!(manifest(&lab, name, "v1").await, body, "{name}");
        assert_eq!(fetch(&bob, name, &digest(b"layer")).await.bytes, b"layer", "internal, as what a push makes");
        assert_eq!(tags(&lab, name).await, ["v1"]);
    }
    is(
        &narrowed(&lab, "lab", &["repository:lab/default/hello:pull"]).await.get(&manifest_at("hello", "v1")).await,
        200,
    );
    for other in ["repository:lab/hello:pull", "repository:default/hello:pull", "repository:hello/v1:pull"] {
        is(&narrowed(&lab, "lab", &[other]).await.get(&manifest_at("hello", "v1")).await, 401);
    }
    // Two names are an entity and a name in it, whatever the library makes of two.
    refused(&lab.get(&manifest_at("lab/hello", "v1")).await, 404, "MANIFEST_UNKNOWN");
    is(&lab.get(&manifest_at("default/hello", "v1")).await, 401);
    // Both doors lead to it.
    let sif = crate::library::sif(1);
    push_sif(&lab, "image", "v1", &sif).await;
    assert_eq!(lab.pull("image:v1").await.bytes, sif);
    lab.push("lab/default/image", "v2", "amd64", &sif).await.ok();
    assert_eq!(tags(&lab, "image").await, ["v1", "v2"]);
    // Who may not push below the default entity may not push a single name, either.
    is(&bob.post("/v2/hello/blobs/uploads/", Value::Null).await, 401);
    is(&bob.post("/v2/new/blobs/uploads/", Value::Null).await, 401);
    is(&lab.delete(&manifest_at("hello", "v1")).await, 202);
}

#[tokio::test]
async fn without_a_default_entity_a_single_name_is_missing() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    for (who, status) in [(&server.nobody, 401), (&alice, 401), (&server.admin, 404)] {
        // As with a repository of an entity that is not there.
        for name in ["hello", "alice", "nobody/default/hello"] {
            is(&who.get(&manifest_at(name, "v1")).await, status);
            is(&who.get(&format!("/v2/{name}/tags/list")).await, status);
            is(&who.post(&format!("/v2/{name}/blobs/uploads/"), Value::Null).await, status);
        }
    }
}

#[tokio::test]
async fn what_can_be_no_tag_is_not_there_and_can_not_be_set() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    push(&alice, BB, "latest", b"config", &[]).await;
    let long = "x".repeat(129);
    for tag in [".INVALID_MANIFEST_NAME", "-x", "x%20y", "%C3%BC", "x+y", &long] {
        // The conformance suite of 1.1.1 asks for the first of these, and expects 404.
        refused(&alice.get(&manifest_at(BB, tag)).await, 404, "MANIFEST_UNKNOWN");
        is(&head(&alice, &manifest_at(BB, tag)).await, 404);
        let body = image(b"config", &[]).to_string();
        refused(&put(&alice, BB, tag, MANIFEST, &body).await, 400, "MANIFEST_INVALID");
    }
}

#[tokio::test]
async fn a_tag_may_be_all_that_the_specification_allows() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    push(&alice, BB, "latest", b"config", &[]).await;
    let longest = "x".repeat(128);
    // The last two are the tags under which clients keep signatures and referrers if a registry has no referrers API.
    let referrers = digest(b"x").replace(':', "-");
    for tag in ["_x", "1", "A.B-c_d", &longest, &referrers, &format!("{referrers}.sig")] {
        is(&put(&alice, BB, tag, MANIFEST, &image(b"config", &[]).to_string()).await, 201);
    }
}

#[tokio::test]
async fn hazard_http_parsing_differences() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    private_collection(&alice, "alice", "tools").await;
    push(&alice, BB, "latest", b"config", &[]).await;
    push(&bob, "bob/tools/bb", "latest", b"config", &[]).await;
    push(&alice, "alice/tools/other", "latest", b"config", &[]).await;
    let all = |path: &str| format!("repository:{path}:pull,push,delete");
    let narrow = narrowed(&alice, "alice", &[&all("alice/tools/other")]).await;
    let same = narrowed(&alice, "alice", &[&all(BB)]).await;
    let digest = digest(image(b"config", &[]).to_string().as_bytes());
    let by_digest = format!("/v2/alice/tools/bb/manifests/{}", digest.replace(':', "%3A"));
    // Old clients write two slashes, and escape a colon. Anything else that a proxy might read as the same is another
    // path.
    for (path, folds) in [
        ("/v2/alice/tools/bb/manifests/latest", true),
        ("/v2//alice//tools//bb//manifests//latest", true),
        ("//v2/alice/tools/bb/manifests/latest", true),
        (&by_digest, true),
        (&by_digest.replace("%3A", "%3a"), true),
        ("/v2/alice/tools/bb/manifests/latest?x=/../other", true),
        ("/v2/bob/tools/../../alice/tools/bb/manifests/latest", false),
        ("/v2/bob/tools/%2e%2e/%2e%2e/alice/tools/bb/manifests/latest", false),
        ("/v2/alice/tools/other/../bb/manifests/latest", false),
        ("/v2/alice/tools/other/..%2fbb/manifests/latest", false),
        ("/v2/alice/tools/other/%2e%2e/bb/manifests/latest", false),
        ("/v2/alice/tools/other/.%2e/bb/manifests/latest", false),
        ("/v2/alice/tools/other\\..\\bb/manifests/latest", false),
        ("/v2/alice/tools/other%5c..%5cbb/manifests/latest", false),
        ("/v2/bob/tools/..%2f..%2falice/tools/bb/manifests/latest", false),
        ("/v2/bob%2f..%2falice/tools/bb/manifests/latest", false),
        ("/v2/alice%2Ftools%2Fbb/manifests/latest", false),
        ("/v2/alice%252Ftools%252Fbb/manifests/latest", false),
        ("/v2/%61lice/tools/bb/manifests/latest", false),
        ("/v2/alice/tools/bb/%6danifests/latest", false),
        ("/v2/alice/tools/bb/manifests/%6catest", false),
        ("/v2/Alice/TOOLS/bb/manifests/latest", true),
        ("/v2/alice/tools/bb/Manifests/latest", false),
        ("/v2/alice/tools/bb/manifests/LATEST", false),
        ("/v2/alice/tools/bb%00/manifests/latest", false),
        ("/v2/alice/tools/bb%20/manifests/latest", false),
        ("/v2/alice/tools/bb/manifests/latest%2f", false),
        ("/v2/alice/tools/bb/manifests/latest/", false),
        ("/v2/alice/tools/bb/manifests/latest;x=y", false),
        ("/v2/alice/tools/bb/./manifests/latest", false),
        ("/v2/alice/tools/bb/%2e/manifests/latest", false),
        ("/v2/alice/tools/bb;x=y/manifests/latest", false),
        ("/v2/../v2/alice/tools/bb/manifests/latest", false),
        ("/v2/./alice/tools/bb/manifests/latest", false),
        ("/v1/../v2/alice/tools/bb/manifests/latest", false),
        ("/V2/alice/tools/bb/manifests/latest", false),
        ("/%762/alice/tools/bb/manifests/latest", false),
        ("/x/../v2/alice/tools/bb/manifests/latest", false),
    ] {
        if path.contains('%') && only_in_one_process("the gateway decodes a path, and a function sees the slash") {
            continue;
        }
        let ask = async |who| {
            let heard = Wire::begin(&server, who, "GET", path, "X-Original-URL: /v2/bob/tools/bb/tags/list").await;
            heard.heard().await.status
        };
        for who in [&alice, &same] {
            let status = ask(who).await;
            assert!(if folds { status == 200 } else { [400, 401, 404].contains(&status) }, "{path}: {status}");
            // A 401 may only mean that the path is somebody else's: alice can read everything of hers.
            assert!(who.token != alice.token || status != 401 || path.contains("bob"), "{path}: {status}");
        }
        for who in [&narrow, &bob] {
            let status = ask(who).await;
            assert!([400, 401, 404].contains(&status), "{path}: {status}");
            assert!(!folds || status == 401, "{path}: {status}");
        }
    }
    // Two lengths, or a length and chunks, make a request invalid.
    let url = crate::support::open(&alice, BB).await;
    for headers in ["Content-Length: 5\r\nContent-Length: 6", "Content-Length: x", "Transfer-Encoding: gzip"] {
        let mut wire = Wire::begin(&server, &alice, "PATCH", &url, headers).await;
        wire.send(b"12345").await;
        let status = wire.heard().await.status;
        assert!((400..500).contains(&status), "{headers}: {status}");
    }
    assert_eq!(alice.get(&url).await.header("range"), Some("0-0"));
}

#[tokio::test]
async fn a_repository_of_any_number_of_names_is_made_public_private_and_read_only() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    for repository in ["alice/flat", BB, "alice/deep/down/here"] {
        push(&alice, repository, "v1", b"{}", &[b"layer"]).await;
        let (at, settings) = (manifest_at(repository, "v1"), format!("/api/repositories/{repository}"));
        let statuses = async || {
            let asked = join_all([&alice, &bob, &server.nobody].map(|who| who.get(&at))).await;
            asked.iter().map(|answer| answer.status.as_u16()).collect::<Vec<_>>()
        };
        assert_eq!(statuses().await, [200, 200, 401], "{repository}");
        for (visibility, expected) in
            [("public", [200, 200, 200]), ("private", [200, 401, 401]), ("internal", [200, 200, 401])]
        {
            set(&alice, &settings, json!({ "visibility": visibility })).await.ok();
            assert_eq!(statuses().await, expected, "{repository} {visibility}");
        }
        set(&alice, &settings, json!({ "readOnly": true })).await.ok();
        let body = manifest(&alice, repository, "v1").await;
        refused(&put(&alice, repository, "v2", MANIFEST, &body).await, 403, "DENIED");
        set(&alice, &settings, json!({ "readOnly": false })).await.ok();
        set(&alice, &format!("{settings}:v1"), json!({ "frozen": true })).await.ok();
        refused(&alice.delete(&at).await, 403, "DENIED");
        set(&alice, &format!("{settings}:v1"), json!({ "frozen": false })).await.ok();
        // A repository does not have a collection's settings, nor a tag's; and nobody else may change them.
        for (who, path, change, status) in [
            (&alice, settings.clone(), json!({ "private": true }), 400),
            (&alice, settings.clone(), json!({ "frozen": true }), 400),
            (&alice, format!("{settings}:v1"), json!({ "visibility": "public" }), 400),
            (&alice, format!("{settings}:v1:v2"), json!({}), 400),
            (&alice, format!("{settings}/"), json!({}), 400),
            (&alice, format!("{settings}-not-there"), json!({}), 404),
            (&bob, settings.clone(), json!({ "visibility": "public" }), 403),
            (&server.nobody, settings.clone(), json!({ "visibility": "public" }), 401),
        ] {
            assert_eq!(set(who, &path, change.clone()).await.status, status, "{path} {change}");
        }
        is(&alice.delete(&at).await, 202);
    }
}
