//! The invariants of the protocol, by their numbers in the reference. The nineteenth belongs to the keyserver.

use crate::support::{
    Standing, begin, complete, hash, opened, opened_parts, private_collection, set, shout, sif, step, tag, text,
};
use reqwest::Method;
use serde_json::{Value, json};
use stackroom_tests::functions::only_in_one_process;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Answer, Caller, Server, is_id, send};

async fn with_an_image() -> (Server, Caller, Vec<u8>) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = SifBuilder::new("amd64").signature(&"AB".repeat(20)).labels(&[("maker", "someone")]).build();
    alice.push("alice/tools/bb", "latest", "amd64", &bytes).await.ok();
    (server, alice, bytes)
}

/// All reads of the library.
fn reads(hash: &str, container: &str) -> Vec<String> {
    let paths = [
        "/v1/entities",
        "/v1/entities/alice",
        "/v1/collections?entity=alice",
        "/v1/collections/alice/tools",
        "/v1/containers?entity=alice",
        "/v1/containers?collection=alice/tools",
        "/v1/containers/alice/tools/bb",
        "/v1/images?container=alice/tools/bb",
        "/v1/images/alice/tools/bb:latest",
        "/v1/images/alice/tools/bb:latest?details",
        "/v1/search?value=alice",
        "/v1/search?value=alice&arch=amd64",
    ];
    let more =
        [format!("/v1/images/alice/tools/bb:{hash}"), format!("/v1/tags/{container}"), format!("/v2/tags/{container}")];
    paths.map(str::to_owned).into_iter().chain(more).collect()
}

#[tokio::test]
async fn b1_json_needs_no_content_type() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    for kind in [None, Some("application/json"), Some("application/octet-stream")] {
        let mut request = alice.request(Method::POST, "/v1/entities").body(r#"{"name":"alice"}"#);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        assert_eq!(send(request).await.ok()["data"]["name"], "alice", "{kind:?}");
    }
}

#[tokio::test]
async fn b2_the_scheme_of_a_token_has_any_case_and_an_empty_token_is_nobody() {
    let (server, alice, _) = with_an_image().await;
    let token = alice.token.as_deref().unwrap();
    for scheme in ["BEARER", "Bearer", "bearer"] {
        let request = server.nobody.bare(Method::GET, "/v1/entities/alice");
        send(request.header("authorization", format!("{scheme} {token}"))).await.ok();
    }
    for empty in ["Bearer", "Bearer ", "BEARER ", "bearer"] {
        let request = |path| server.nobody.bare(Method::GET, path).header("authorization", empty);
        send(request("/v1/entities/alice")).await.error(404);
        send(request("/v1/images/alice/tools/bb:latest")).await.ok();
    }
}

#[tokio::test]
async fn b3_two_slashes_are_one_and_an_escaped_colon_is_a_colon() {
    let (server, alice, bytes) = with_an_image().await;
    let plain = server.nobody.get("/v1/images/alice/tools/bb:latest").await.ok();
    for path in
        ["//alice/tools/bb:latest", "/alice//tools///bb:latest", "/alice/tools/bb%3Alatest", "/alice/tools/bb%3alatest"]
    {
        assert_eq!(server.nobody.get(&format!("/v1/images{path}")).await.ok(), plain, "{path}");
        assert_eq!(server.nobody.pull(path).await.bytes, bytes, "{path}");
    }
    assert_eq!(alice.delete("//v1//images//alice/tools/bb%3Alatest").await.status, 200);
}

#[tokio::test]
async fn b4_b5_b12_ids_times_and_hashes_are_what_clients_can_read() {
    let (_server, alice, bytes) = with_an_image().await;
    let container = alice.container("alice/tools/bb").await;
    assert!(is_id(&container));
    let mut times = 0;
    for path in reads(&hash(&bytes), &container) {
        // `send` checks every answer; this makes sure that there was something to check.
        let answer = alice.get(&path).await.ok();
        times += walk(&answer, &mut |name, value| {
            if name == "hash" {
                assert_eq!(*value, json!(hash(&bytes)), "{path}");
            }
            name.ends_with("At") && value.is_string()
        });
    }
    assert!(times > 30, "{times}");
}

/// Counts the fields of a document for which `test` holds.
fn walk(json: &Value, test: &mut impl FnMut(&str, &Value) -> bool) -> usize {
    match json {
        Value::Array(items) => items.iter().map(|item| walk(item, test)).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| usize::from(test(name, value)) + walk(value, test)).sum()
        }
        _ => 0,
    }
}

#[tokio::test]
async fn b6_what_is_made_answers_200_or_201_and_tags_and_deletions_exactly_200() {
    let (_server, alice, bytes) = with_an_image().await;
    let push = begin(&alice, "alice/tools/bb", &bytes).await;
    assert!(push.uploaded);
    for way in ["v1", "v2"] {
        let path = format!("/{way}/tags/{}", push.container);
        let body = json!({ "Tag": "next", "ImageID": push.image });
        assert_eq!(alice.post(&path, body).await.status, 200);
        assert_eq!(alice.get(&path).await.status, 200);
    }
    assert_eq!(alice.delete("/v1/images/alice/tools/bb:latest").await.status, 200);
}

#[tokio::test]
async fn b7_not_found_is_only_said_of_what_is_not_there_for_the_caller() {
    let (server, alice, bytes) = with_an_image().await;
    let bob = server.user("bob", 0).await;
    // Wherever 404 would make the client create it, the creation is refused with 403.
    let id = text(&alice.post("/v1/entities", json!({ "name": "alice" })).await.ok(), "/data/id");
    let collection = text(&alice.get("/v1/collections/alice/tools").await.ok(), "/data/id");
    let push = begin(&alice, "alice/tools/bb", &bytes).await;
    bob.get("/v1/entities/alice").await.error(404);
    for (path, body) in [
        ("/v1/entities", json!({ "name": "alice" })),
        ("/v1/entities", json!({ "name": "nobody-has-this" })),
        ("/v1/collections", json!({ "name": "tools", "entity": id })),
        ("/v1/collections", json!({ "name": "other", "entity": id })),
        ("/v1/containers", json!({ "name": "bb", "collection": collection })),
        ("/v1/images", json!({ "hash": hash(&bytes), "container": push.container })),
        ("/v1/images", json!({ "hash": hash(b"other"), "container": push.container })),
        (&*format!("/v2/imagefile/{}", push.image), json!({ "filesize": 1 })),
        (&*format!("/v2/imagefile/{}/_multipart", push.image), json!({ "filesize": 1 })),
        (&*format!("/v2/tags/{}", push.container), json!({ "Tag": "x", "ImageID": push.image })),
    ] {
        bob.post(path, body.clone()).await.error(403);
        server.nobody.post(path, body).await.error(401);
    }
}

#[tokio::test]
async fn b8_errors_have_their_status_as_a_number() {
    let (server, alice, _) = with_an_image().await;
    let long = "x".repeat(3 << 20);
    let status = |answer: Answer| {
        assert_eq!(answer.json["error"]["code"], json!(answer.status.as_u16()));
        assert!(answer.json["error"]["message"].is_string());
        answer.status.as_u16()
    };
    if !only_in_one_process("no function has a route for these paths, and the gateway answers in its own form") {
        assert_eq!(status(server.nobody.get("/v1/nothing").await), 404);
        assert_eq!(status(server.nobody.get("/").await), 404);
    }
    assert_eq!(status(alice.delete("/v1/entities").await), 405);
    assert_eq!(status(alice.get("/v1/tags/xyz").await), 400);
    assert_eq!(status(alice.get("/v1/search?value=ab").await), 400);
    assert_eq!(status(send(alice.request(Method::POST, "/v1/entities").body("{")).await), 400);
    assert_eq!(status(send(alice.request(Method::POST, "/v1/entities").body(r#"{"name":7}"#)).await), 400);
    assert_eq!(status(send(alice.request(Method::POST, "/v1/entities").body(long)).await), 413);
    assert_eq!(status(server.nobody.post("/v1/entities", json!({ "name": "alice" })).await), 401);
    assert_eq!(status(alice.post("/v1/entities", json!({ "name": "acme" })).await), 403);
}

#[tokio::test]
async fn b9_parts_are_as_many_as_the_size_wants_and_large_enough_for_s3() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let push = begin(&alice, "alice/tools/bb", &sif(1)).await;
    let (mib, gib) = (1_u64 << 20, 1_u64 << 30);
    for size in [1, 5 * mib, 64 * mib, 64 * mib + 1, 84_674_078, 100 * gib, 626 * gib, 10_000 * gib] {
        let path = format!("/v2/imagefile/{}/_multipart", push.image);
        let made = alice.post(&path, json!({ "filesize": size })).await.ok();
        let number = |name: &str| made["data"][name].as_u64().unwrap();
        assert_eq!(number("totalParts"), size.div_ceil(number("partSize")), "{size}");
        assert!((5 * mib..=5 * gib).contains(&number("partSize")) && number("totalParts") <= 10_000, "{size}");
    }
}

#[tokio::test]
async fn b10_an_image_whose_bytes_did_not_arrive_can_not_be_tagged() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    let push = begin(&alice, "alice/tools/bb", &bytes).await;
    tag(&alice, &push, "latest").await.error(409);
    let (push, url) = opened(&alice, "alice/tools/bb", &bytes).await;
    tag(&alice, &push, "latest").await.error(409);
    assert_eq!(alice.upload(&url, &bytes).await.status, 200);
    tag(&alice, &push, "latest").await.error(409);
    let body = json!({ "Tag": "latest", "ImageID": push.image });
    alice.post(&format!("/v1/tags/{}", push.container), body).await.error(409);
    let parts = opened_parts(&alice, "alice/tools/bb", &bytes).await;
    tag(&alice, &parts.push, "latest").await.error(409);
    assert_eq!(alice.get(&format!("/v2/tags/{}", push.container)).await.ok(), json!({ "data": {} }));
    alice.get("/v1/images/alice/tools/bb:latest").await.error(404);
    complete(&alice, &push).await.ok();
    tag(&alice, &push, "latest").await.ok();
}

#[tokio::test]
async fn b11_b13_pushed_bytes_need_no_upload_and_have_a_size() {
    let (server, alice, bytes) = with_an_image().await;
    let before = Standing::of(&server, "alice").await;
    let image = alice.get(&format!("/v1/images/alice/tools/bb:{}?arch=amd64", hash(&bytes))).await.ok();
    assert_eq!(image["data"]["uploaded"], json!(true));
    assert_eq!(image["data"]["size"], json!(bytes.len()));
    assert!(begin(&alice, "alice/tools/bb", &bytes).await.uploaded);
    assert_eq!(Standing::of(&server, "alice").await, before);
}

#[tokio::test]
async fn b14_b15_a_download_leads_to_the_object_and_the_object_answers_ranges() {
    let (server, alice, bytes) = with_an_image().await;
    let path = "/v1/imagefile/alice/tools/bb:latest";
    let direct = step(alice.request(Method::GET, path), "", &[303]).await;
    let hop = step(shout(&alice, Method::GET, path), "", &[303]).await;
    assert!(hop.header("location").unwrap().starts_with(&server.url));
    let hopped = step(alice.bare(Method::GET, hop.header("location").unwrap()), "", &[307]).await;
    for answer in [direct, hopped] {
        let range = alice.bare(Method::GET, answer.header("location").unwrap()).header("range", "bytes=0-1024");
        let part = step(range, "", &[206]).await;
        assert_eq!(part.header("content-range").unwrap(), format!("bytes 0-1024/{}", bytes.len()));
        assert_eq!(part.bytes, bytes[..=1024]);
    }
}

#[tokio::test]
async fn b16_the_end_of_a_multipart_upload_is_answered_with_json_each_time() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    let parts = opened_parts(&alice, "alice/tools/bb", &bytes).await;
    let etags = parts.send_all(&alice, &bytes).await;
    for _ in 0..2 {
        let done = parts.complete_all(&alice, &etags).await.ok();
        assert_eq!(done["data"]["containerUrl"], "library/alice/tools/bb");
        assert_eq!(done["data"]["quota"], json!({ "quotaTotal": 0, "quotaUsage": bytes.len() }));
    }
}

#[tokio::test]
async fn b17_the_discovery_document_holds_objects_only() {
    let server = Server::start().await;
    let config = server.nobody.get("/assets/config/config.prod.json").await.ok();
    let services = config.as_object().unwrap();
    assert!(services.values().all(Value::is_object));
    assert!(["libraryAPI", "keystoreAPI", "tokenAPI"].iter().all(|name| services.contains_key(*name)));
}

#[tokio::test]
async fn b18_a_search_names_where_an_image_is_and_its_tags() {
    let (server, alice, _) = with_an_image().await;
    server.followed().await;
    let found = alice.get("/v1/search?value=tools&arch=amd64").await.ok();
    let image = &found["data"]["image"][0];
    assert_eq!(image["tags"], json!(["latest"]));
    let names = ["entityName", "collectionName", "containerName"].map(|name| text(image, &format!("/{name}")));
    assert_eq!(names, ["alice", "tools", "bb"]);
}

#[tokio::test]
async fn b20_the_version_is_a_strict_semantic_version() {
    let server = Server::start().await;
    let version = text(&server.nobody.get("/version").await.ok(), "/data/apiVersion");
    let (numbers, rest) = version.split_once('-').unwrap();
    let numbers: Vec<u64> = numbers.split('.').map(|number| number.parse().unwrap()).collect();
    // Clients use multipart and tags by architecture from 2.0.0-alpha.2 on.
    assert_eq!((numbers, rest), (vec![2, 0, 0], "alpha.2"));
}

#[tokio::test]
async fn b21_the_odd_query_of_some_clients_names_the_architecture() {
    let (_server, alice, _) = with_an_image().await;
    assert_eq!(alice.get("/v1/imagefile/alice/tools/bb:latest?arch%3Damd64").await.status, 303);
    alice.get("/v1/imagefile/alice/tools/bb:latest?arch%3Darm64").await.error(404);
    let arm = SifBuilder::new("arm64").build();
    alice.push("alice/tools/bb", "latest", "arm64", &arm).await.ok();
    assert_eq!(alice.delete("/v1/images/alice/tools/bb:latest?arch%3Darm64").await.status, 200);
    alice.get("/v1/images/alice/tools/bb:latest?arch=arm64").await.error(404);
    alice.get("/v1/images/alice/tools/bb:latest?arch=amd64").await.ok();
}

#[tokio::test]
async fn b22_tokens_are_as_long_as_clients_want_them() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let long = server.user(&"a".repeat(64), 0).await;
    for body in [json!({ "name": "a" }), json!({ "name": "b", "expires_in": 3600, "scope": "pull@alice" })] {
        let scoped = server.token("alice", body).await;
        for caller in [&alice, &long, &scoped, &server.admin] {
            let token = caller.token.as_deref().unwrap();
            assert!((200..=4096).contains(&token.len()), "{}", token.len());
            assert!(token.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}

#[tokio::test]
async fn b23_old_and_new_clients_see_the_same_tags() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let path = "alice/tools/bb";
    let (amd, arm) = (SifBuilder::new("amd64").build(), SifBuilder::new("arm64").build());
    // What the image says counts, and what the client says counts only if the image says nothing.
    let silent = SifBuilder::new("unknown").build();
    alice.push(path, "latest", "amd64", &amd).await.ok();
    alice.push(path, "latest", "arm64", &arm).await.ok();
    alice.push(path, "silent", "s390x", &silent).await.ok();
    let [amd, arm, silent] = [&amd, &arm, &silent].map(|bytes| hash(bytes));
    let container = alice.container(path).await;
    let id = async |hash: &str| text(&alice.get(&format!("/v1/images/{path}:{hash}")).await.ok(), "/data/id");
    let (amd, arm, silent) = (id(&amd).await, id(&arm).await, id(&silent).await);
    let by_arch = json!({ "amd64": { "latest": amd }, "arm64": { "latest": arm }, "s390x": { "silent": silent } });
    let by_tag = json!({ "latest": arm, "silent": silent });
    let views = async || {
        let v2 = alice.get(&format!("/v2/tags/{container}")).await.ok()["data"].clone();
        let v1 = alice.get(&format!("/v1/tags/{container}")).await.ok()["data"].clone();
        let whole = alice.get(&format!("/v1/containers/{path}")).await.ok()["data"].clone();
        assert_eq!(whole["archTags"], v2);
        assert_eq!(whole["imageTags"], v1);
        (v2, v1)
    };
    assert_eq!(views().await, (by_arch, by_tag));
    // The old way of tagging takes the architecture from the image, and moves only that one.
    let body = json!({ "Tag": "latest", "ImageID": amd });
    alice.post(&format!("/v1/tags/{container}"), body).await.ok();
    let (v2, v1) = views().await;
    assert_eq!((&v1["latest"], &v2["arm64"]["latest"]), (&json!(amd), &json!(arm)));
    let found = server.nobody.get(&format!("/v1/images/{path}:silent?arch=s390x")).await.ok();
    assert_eq!(found["data"]["id"], json!(silent));
}

#[tokio::test]
async fn a_tag_leads_to_a_few_architectures_with_names() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let path = "alice/tools/bb";
    let silent = SifBuilder::new("unknown").build();
    alice.push(path, "latest", "a0", &silent).await.ok();
    let container = alice.container(path).await;
    let id = text(&alice.get(&format!("/v1/images/{path}:{}", hash(&silent))).await.ok(), "/data/id");
    let tagged = async |arch: &str| {
        let body = json!({ "Tag": "latest", "ImageID": id, "Arch": arch });
        alice.post(&format!("/v2/tags/{container}"), body).await
    };
    for odd in ["amd64 ", "a/b", "\u{e4}md64", &"a".repeat(33), &"a".repeat(500_000)] {
        assert!(tagged(odd).await.error(400).contains("an architecture is a name"));
    }
    for number in 0..16 {
        tagged(&format!("a{number}")).await.ok();
    }
    assert_eq!(tagged("one-more").await.error(409), "a tag can have images for at most 16 architectures");
    let found = tagged("a15").await.ok();
    assert_eq!(found["data"].as_object().unwrap().len(), 16);
}

#[tokio::test]
async fn b24_options_of_a_multipart_upload_are_strings() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let push = begin(&alice, "alice/tools/bb", &sif(1)).await;
    let path = format!("/v2/imagefile/{}/_multipart", push.image);
    let made = alice.post(&path, json!({ "filesize": 10_000_000 })).await.ok();
    assert!(made["data"]["options"].as_object().unwrap().values().all(Value::is_string), "{made}");
}

#[tokio::test]
async fn what_nobody_may_read_is_not_there_for_them_and_there_for_its_owner() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    private_collection(&alice, "alice", "secret").await;
    let bytes = sif(1);
    alice.push("alice/secret/bb", "latest", "amd64", &bytes).await.ok();
    let container = alice.get("/v1/containers/alice/secret/bb").await.ok();
    assert_eq!(container["data"]["private"], json!(true));
    assert_eq!(alice.pull("alice/secret/bb:latest").await.bytes, bytes);
    for path in ["/v1/images/alice/secret/bb:latest", "/v1/imagefile/alice/secret/bb:latest"] {
        server.nobody.get(path).await.error(404);
    }
    // Once it is public, it is so for everybody at once.
    set(&alice, "/v1/containers/alice/secret/bb", json!({ "visibility": "public" })).await.ok();
    assert_eq!(server.nobody.pull("alice/secret/bb:latest").await.bytes, bytes);
}
