//! One image through both protocols: what is pushed through the library is there for registry clients, and the other
//! way round.

use crate::library::{hash, len, set, sif, sweep_up, text};
use crate::support::{
    BB, INDEX, MANIFEST, SIF_CONFIG, SIF_LAYER, blob, blob_at, digest, fetch, head, index, is, manifest, manifest_at,
    of_sif, push, push_sif, put, refused, tags,
};
use serde_json::{Value, json};
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, Server};

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

/// Checks that the library has an image under a tag and under its hash, with its bytes.
async fn in_the_library(who: &Caller, tag: &str, arch: &str, bytes: &[u8]) {
    for selector in [tag, &hash(bytes)] {
        let found = who.get(&format!("/v1/images/{BB}:{selector}?arch={arch}")).await.ok();
        assert_eq!(found["data"]["hash"], json!(hash(bytes)), "{selector}");
        assert_eq!(found["data"]["size"], json!(bytes.len()));
        assert_eq!(found["data"]["arch"], json!(arch));
        assert_eq!(found["data"]["uploaded"], json!(true));
        assert_eq!(who.pull(&format!("{BB}:{selector}?arch={arch}")).await.bytes, bytes);
    }
}

/// Checks that the registry has an image of the library under a tag, with one layer.
async fn in_the_registry(who: &Caller, tag: &str, bytes: &[u8]) {
    let document = parsed(&manifest(who, BB, tag).await);
    assert_eq!(document["layers"].as_array().unwrap().len(), 1);
    let layer = &document["layers"][0];
    assert_eq!((&layer["mediaType"], &layer["size"]), (&json!(SIF_LAYER), &json!(bytes.len())));
    assert_eq!(layer["digest"], json!(digest(bytes)));
    assert_eq!((&document["config"]["mediaType"], &document["config"]["size"]), (&json!(SIF_CONFIG), &json!(2)));
    assert_eq!(document["config"]["digest"], json!(digest(b"{}")));
    assert_eq!(fetch(who, BB, &digest(bytes)).await.bytes, bytes);
    assert_eq!(fetch(who, BB, &digest(b"{}")).await.bytes, b"{}");
    let config = head(who, &blob_at(BB, &digest(b"{}"))).await;
    assert_eq!((config.status.as_u16(), config.header("content-length")), (200, Some("2")));
}

#[tokio::test]
async fn an_image_of_the_library_is_pulled_by_registry_clients() {
    let (server, alice) = start().await;
    let bytes = sif(1);
    alice.push(BB, "latest", "amd64", &bytes).await.ok();
    for who in [&alice, &server.nobody] {
        in_the_registry(who, "latest", &bytes).await;
    }
    let document = parsed(&manifest(&alice, BB, "latest").await);
    assert_eq!(document["layers"][0]["annotations"]["org.opencontainers.image.title"], json!("bb.sif"));
    assert_eq!(server.quota("alice").await, (len(&bytes), 0), "the configuration costs nothing");
    refused(&alice.get(&blob_at("alice/tools/other", &digest(b"{}"))).await, 404, "BLOB_UNKNOWN");
    // It gets the same manifest each time, wherever it is pushed under that name.
    let first = manifest(&alice, BB, "latest").await;
    alice.delete(&format!("/v1/images/{BB}:latest")).await.ok();
    for gone in [manifest_at(BB, "latest"), manifest_at(BB, &digest(first.as_bytes()))] {
        refused(&alice.get(&gone).await, 404, "MANIFEST_UNKNOWN");
    }
    refused(&alice.get(&blob_at(BB, &digest(&bytes))).await, 404, "BLOB_UNKNOWN");
    alice.push(BB, "again", "amd64", &bytes).await.ok();
    assert_eq!(manifest(&alice, BB, "again").await, first);
}

#[tokio::test]
async fn an_image_pushed_by_registry_clients_is_an_image_of_the_library() {
    let (server, alice) = start().await;
    let builder = SifBuilder::new("arm64").definition("Bootstrap: scratch\n").labels(&[("maintainer", "somebody")]);
    let bytes = builder.signature("0123456789abcdef0123456789abcdef01234567").build();
    let body = push_sif(&alice, BB, "v1", &bytes).await;
    in_the_library(&alice, "v1", "arm64", &bytes).await;
    assert_eq!(manifest(&alice, BB, "v1").await, body, "as it was pushed");
    let found = alice.get(&format!("/v1/images/{BB}:v1?arch=arm64&details")).await.ok();
    assert!(found.to_string().contains("Bootstrap: scratch"), "{found}");
    assert_eq!(found["data"]["signed"], json!(true));
    server.followed().await;
    for (query, hits) in [("arch=arm64", 1), ("signed=true", 1), ("arch=amd64", 0), ("signed=false", 0)] {
        let found = alice.get(&format!("/v1/search?value=somebody&{query}")).await.ok();
        assert_eq!(found["data"]["image"].as_array().unwrap().len(), hits, "{query}");
    }
    let container = alice.get(&format!("/v1/containers/{BB}")).await.ok();
    assert_eq!(container["data"]["imageTags"]["v1"], found["data"]["id"], "{container}");
    let listed = alice.get(&format!("/v2/tags/{}", text(&container, "/data/id"))).await.ok();
    assert_eq!(listed["data"], json!({ "arm64": { "v1": found["data"]["id"] } }));
    let status = alice.get(&format!("/v1/images/{BB}:v1?arch=amd64")).await.status;
    assert_eq!(status, 404);
    assert_eq!(server.quota("alice").await, (len(&bytes) + 2, 0));
    // Pushing it through the library uploads nothing.
    let image = alice.image(&text(&container, "/data/id"), &bytes).await;
    assert_eq!((&image["uploaded"], &image["id"]), (&json!(true), &found["data"]["id"]));
}

#[tokio::test]
async fn an_image_is_deleted_through_either_door_and_paid_for_no_more() {
    let (server, alice) = start().await;
    let bytes = sif(1);
    for (by_library, selector) in [(true, "v1"), (true, &*hash(&bytes)), (false, "")] {
        for other_door in [false, true] {
            let body = if other_door {
                push_sif(&alice, BB, "v1", &bytes).await
            } else {
                alice.push(BB, "v1", "amd64", &bytes).await.ok();
                manifest(&alice, BB, "v1").await
            };
            if by_library {
                alice.delete(&format!("/v1/images/{BB}:{selector}")).await.ok();
            } else {
                is(&alice.delete(&manifest_at(BB, &digest(body.as_bytes()))).await, 202);
            }
            let why = format!("by the library {by_library} {selector}, from the registry {other_door}");
            for tag in ["v1", &hash(&bytes)] {
                alice.get(&format!("/v1/images/{BB}:{tag}")).await.error(404);
            }
            for path in [manifest_at(BB, "v1"), blob_at(BB, &digest(&bytes))] {
                assert_eq!(alice.get(&path).await.status, 404, "{why}: {path}");
            }
            assert_eq!(alice.get(&manifest_at(BB, &digest(body.as_bytes()))).await.status, 404, "{why}");
            assert_eq!(tags(&alice, BB).await, Vec::<String>::new(), "{why}");
            assert_eq!(server.quota("alice").await, (0, 0), "{why}: at once");
        }
    }
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn several_architectures_under_one_tag_are_an_index() {
    let (_server, alice) = start().await;
    let (amd, arm) = (sif(1), SifBuilder::new("arm64").build());
    alice.push(BB, "v1", "amd64", &amd).await.ok();
    let single = manifest(&alice, BB, "v1").await;
    push_sif(&alice, BB, "single", &arm).await;
    alice.push(BB, "v1", "arm64", &arm).await.ok();
    let seen = head(&alice, &manifest_at(BB, "v1")).await;
    assert_eq!(seen.header("content-type"), Some(INDEX));
    let document = parsed(&manifest(&alice, BB, "v1").await);
    let mut archs = Vec::new();
    for one in document["manifests"].as_array().unwrap() {
        let body = manifest(&alice, BB, one["digest"].as_str().unwrap()).await;
        assert_eq!((one["mediaType"].as_str(), one["size"].as_u64()), (Some(MANIFEST), Some(body.len() as u64)));
        let arch = text(one, "/platform/architecture");
        let bytes = if arch == "amd64" { &amd } else { &arm };
        assert_eq!(parsed(&body)["layers"][0]["digest"], json!(digest(bytes)));
        archs.push(arch);
    }
    assert_eq!(archs, ["amd64", "arm64"]);
    in_the_library(&alice, "v1", "amd64", &amd).await;
    in_the_library(&alice, "v1", "arm64", &arm).await;
    // Without one of them it is a single manifest again.
    alice.delete(&format!("/v1/images/{BB}:v1?arch=arm64")).await.ok();
    assert_eq!(manifest(&alice, BB, "v1").await, single);
    // A registry client replaces all of them at once.
    alice.push(BB, "v1", "arm64", &arm).await.ok();
    let other = SifBuilder::new("riscv64").build();
    push_sif(&alice, BB, "v1", &other).await;
    in_the_library(&alice, "v1", "riscv64", &other).await;
    for arch in ["amd64", "arm64"] {
        alice.get(&format!("/v1/images/{BB}:v1?arch={arch}")).await.error(404);
    }
}

#[tokio::test]
async fn a_tag_that_a_registry_client_copies_is_the_same_to_the_library() {
    let (server, alice) = start().await;
    let (amd, arm) = (sif(1), SifBuilder::new("arm64").build());
    alice.push(BB, "single", "amd64", &amd).await.ok();
    alice.push(BB, "both", "amd64", &amd).await.ok();
    alice.push(BB, "both", "arm64", &arm).await.ok();
    // As `crane tag` does: the same bytes under another name.
    for (from, to, kind) in [("single", "single-2", MANIFEST), ("both", "both-2", INDEX)] {
        let body = manifest(&alice, BB, from).await;
        is(&put(&alice, BB, to, kind, &body).await, 201);
        assert_eq!(manifest(&alice, BB, to).await, body);
    }
    in_the_library(&alice, "single-2", "amd64", &amd).await;
    in_the_library(&alice, "both-2", "amd64", &amd).await;
    in_the_library(&alice, "both-2", "arm64", &arm).await;
    // And an index of images that only registry clients pushed.
    let (one, two) = (of_sif(&amd).to_string(), of_sif(&arm).to_string());
    for body in [&one, &two] {
        is(&put(&alice, BB, &digest(body.as_bytes()), MANIFEST, body).await, 201);
    }
    is(&put(&alice, BB, "pushed", INDEX, &index(&[&one, &two]).to_string()).await, 201);
    in_the_library(&alice, "pushed", "amd64", &amd).await;
    in_the_library(&alice, "pushed", "arm64", &arm).await;
    assert_eq!(server.quota("alice").await, (len(&amd) + len(&arm), 0));
}

#[tokio::test]
async fn what_is_no_sif_image_stays_an_artifact_and_the_library_says_what_to_do() {
    let (_server, alice) = start().await;
    push(&alice, BB, "docker", b"config", &[b"layer"]).await;
    push_sif(&alice, BB, "fake", b"this calls itself an image and is none").await;
    for tag in ["docker", "fake"] {
        let said = alice.get(&format!("/v1/images/{BB}:{tag}")).await.error(400);
        assert!(said.contains("docker://") && said.contains("unexpected media type"), "{said}");
    }
    assert_eq!(tags(&alice, BB).await, ["docker", "fake"]);
    let container = alice.get(&format!("/v1/containers/{BB}")).await.ok();
    assert_eq!(container["data"]["images"], json!([]));
    // If the library can't address the repository, an image stays an artifact too.
    let (deep, bytes) = ("alice/deep/down/in/here", sif(1));
    push_sif(&alice, deep, "v1", &bytes).await;
    assert_eq!(fetch(&alice, deep, &digest(&bytes)).await.bytes, bytes);
    assert_eq!(manifest(&alice, deep, "v1").await, of_sif(&bytes).to_string());
}

#[tokio::test]
async fn a_tag_moves_between_images_and_artifacts() {
    let (server, alice) = start().await;
    let (one, two) = (sif(1), sif(2));
    alice.push(BB, "latest", "amd64", &one).await.ok();
    push(&alice, BB, "latest", b"config", &[b"layer"]).await;
    alice.get(&format!("/v1/images/{BB}:latest")).await.error(400);
    in_the_library(&alice, &hash(&one), "amd64", &one).await;
    alice.push(BB, "latest", "amd64", &two).await.ok();
    in_the_library(&alice, "latest", "amd64", &two).await;
    in_the_registry(&server.nobody, "latest", &two).await;
    push_sif(&alice, BB, "latest", &one).await;
    in_the_library(&alice, "latest", "amd64", &one).await;
    // The images' own lists of tags agree.
    let image = alice.get(&format!("/v1/images/{BB}:{}", hash(&two))).await.ok();
    assert_eq!(image["data"]["tags"], json!([]));
    let image = alice.get(&format!("/v1/images/{BB}:{}", hash(&one))).await.ok();
    assert_eq!(image["data"]["tags"], json!(["latest"]));
    sweep_up(&server).await;
    in_the_library(&alice, &hash(&two), "amd64", &two).await;
}

#[tokio::test]
async fn a_manifest_of_an_image_that_another_tag_names_may_go_alone() {
    let (server, alice) = start().await;
    let bytes = sif(1);
    alice.push(BB, "library", "amd64", &bytes).await.ok();
    let pushed = push_sif(&alice, BB, "registry", &bytes).await;
    is(&alice.delete(&manifest_at(BB, &digest(pushed.as_bytes()))).await, 202);
    assert_eq!(tags(&alice, BB).await, ["library"]);
    in_the_library(&alice, "library", "amd64", &bytes).await;
    in_the_registry(&server.nobody, "library", &bytes).await;
    let image = alice.get(&format!("/v1/images/{BB}:{}", hash(&bytes))).await.ok();
    assert_eq!(image["data"]["tags"], json!(["library"]));
    sweep_up(&server).await;
    assert_eq!(server.quota("alice").await, (len(&bytes), 0));
    in_the_library(&server.nobody, "library", "amd64", &bytes).await;
}

#[tokio::test]
async fn frozen_and_read_only_hold_on_both_doors() {
    let (server, alice) = start().await;
    let (kept, other) = (sif(1), sif(2));
    let pushed = push_sif(&alice, BB, "v1", &kept).await;
    blob(&alice, BB, &other).await;
    set(&alice, &format!("/v1/images/{BB}:v1"), json!({ "frozen": true })).await.ok();
    for who in [&alice, &server.admin] {
        who.delete(&format!("/v1/images/{BB}:{}", hash(&kept))).await.error(403);
        who.delete(&format!("/v1/images/{BB}:v1")).await.error(403);
        who.push(BB, "v1", "amd64", &other).await.error(403);
        refused(&put(who, BB, "v1", MANIFEST, &of_sif(&other).to_string()).await, 403, "DENIED");
        refused(&who.delete(&manifest_at(BB, &digest(pushed.as_bytes()))).await, 403, "DENIED");
    }
    // The image's other manifest, which the library made for it, also keeps it.
    let found = alice.get(&format!("/v1/images/{BB}:v1")).await.ok();
    alice.push(BB, "library", "amd64", &kept).await.ok();
    let own = manifest(&alice, BB, "library").await;
    refused(&alice.delete(&manifest_at(BB, &digest(own.as_bytes()))).await, 403, "DENIED");
    assert_eq!(found["data"]["hash"], json!(hash(&kept)));
    sweep_up(&server).await;
    in_the_library(&alice, "v1", "amd64", &kept).await;
    assert_eq!(manifest(&alice, BB, "v1").await, pushed);
}
