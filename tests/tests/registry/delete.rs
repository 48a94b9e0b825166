//! Deleting tags, manifests and blobs.

use crate::library::{hash, set, sweep_up};
use crate::support::{
    BB, INDEX, MANIFEST, blob, blob_at, digest, fetch, image, index, is, junk, manifest, manifest_at, named, nothing,
    of_sif, push, put, refused, tags,
};
use serde_json::json;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, Server};

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

#[tokio::test]
async fn deleting_a_tag_keeps_the_manifest() {
    let (server, alice) = start().await;
    let body = push(&alice, BB, "v1", b"config", &[b"layer"]).await;
    is(&put(&alice, BB, "v2", MANIFEST, &body).await, 201);
    let charged = server.quota("alice").await;
    for tag in ["v1", "v2"] {
        is(&alice.delete(&manifest_at(BB, tag)).await, 202);
        refused(&alice.get(&manifest_at(BB, tag)).await, 404, "MANIFEST_UNKNOWN");
        refused(&alice.delete(&manifest_at(BB, tag)).await, 404, "MANIFEST_UNKNOWN");
        assert_eq!(manifest(&alice, BB, &digest(body.as_bytes())).await, body);
        assert_eq!(server.quota("alice").await, charged);
    }
    assert_eq!(tags(&alice, BB).await, Vec::<String>::new());
    sweep_up(&server).await;
    assert_eq!(fetch(&alice, BB, &digest(b"layer")).await.bytes, b"layer");
    is(&put(&alice, BB, "v3", MANIFEST, &body).await, 201);
}

#[tokio::test]
async fn deleting_by_digest_takes_the_tags_and_what_nothing_else_names() {
    let (server, alice) = start().await;
    let (shared, own, other) = (junk(1, 1000), junk(2, 100), junk(3, 10));
    let first = push(&alice, BB, "v1", b"config", &[&shared, &own]).await;
    is(&put(&alice, BB, "also", MANIFEST, &first).await, 201);
    let second = push(&alice, BB, "v2", b"config", &[&shared, &other]).await;
    push(&alice, "alice/tools/copy", "v1", b"config", &[&own]).await;
    assert_eq!(server.quota("alice").await, (1116, 0));

    is(&alice.delete(&manifest_at(BB, &digest(first.as_bytes()))).await, 202);
    assert_eq!(tags(&alice, BB).await, ["v2"]);
    for gone in ["v1", "also", &digest(first.as_bytes())] {
        refused(&alice.get(&manifest_at(BB, gone)).await, 404, "MANIFEST_UNKNOWN");
    }
    refused(&alice.delete(&manifest_at(BB, &digest(first.as_bytes()))).await, 404, "MANIFEST_UNKNOWN");
    refused(&alice.get(&blob_at(BB, &digest(&own))).await, 404, "BLOB_UNKNOWN");
    assert_eq!(fetch(&alice, "alice/tools/copy", &digest(&own)).await.bytes, own);
    assert_eq!(manifest(&alice, BB, "v2").await, second);
    for bytes in [&shared, &other, &b"config".to_vec()] {
        assert_eq!(fetch(&alice, BB, &digest(bytes)).await.bytes, *bytes);
    }
    assert_eq!(server.quota("alice").await, (1116, 0), "another repository still has it");
    is(&alice.delete(&manifest_at(BB, &digest(second.as_bytes()))).await, 202);
    assert_eq!(server.quota("alice").await, (106, 0), "at once");
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await.len()), ((106, 0), 2));
}

#[tokio::test]
async fn a_manifest_that_an_index_names_may_go_and_the_index_stays_as_it_is() {
    let (server, alice) = start().await;
    let one = push(&alice, BB, "one", b"config", &[b"first"]).await;
    let two = push(&alice, BB, "two", b"config", &[b"second"]).await;
    let both = index(&[&one, &two]).to_string();
    is(&put(&alice, BB, "both", INDEX, &both).await, 201);
    is(&alice.delete(&manifest_at(BB, &digest(one.as_bytes()))).await, 202);
    assert_eq!(manifest(&alice, BB, "both").await, both);
    assert_eq!(server.quota("alice").await, (12, 0));
    is(&alice.delete(&manifest_at(BB, &digest(both.as_bytes()))).await, 202);
    assert_eq!(manifest(&alice, BB, "two").await, two);
    assert_eq!(fetch(&alice, BB, &digest(b"second")).await.bytes, b"second");
    assert_eq!(tags(&alice, BB).await, ["two"]);
}

#[tokio::test]
async fn what_a_frozen_index_names_stays() {
    let (server, alice) = start().await;
    let one = push(&alice, BB, "one", b"config", &[b"first"]).await;
    is(&put(&alice, BB, "v1", INDEX, &index(&[&one]).to_string()).await, 201);
    set(&alice, &format!("/v1/images/{BB}:v1"), json!({ "frozen": true })).await.ok();
    for who in [&alice, &server.admin] {
        let answer = who.delete(&manifest_at(BB, &digest(one.as_bytes()))).await;
        assert!(refused(&answer, 403, "DENIED").contains("frozen"));
        refused(&who.delete(&blob_at(BB, &digest(b"first"))).await, 403, "DENIED");
    }
    is(&alice.delete(&manifest_at(BB, "one")).await, 202);
    sweep_up(&server).await;
    assert_eq!(manifest(&alice, BB, &digest(one.as_bytes())).await, one);
    assert_eq!(fetch(&alice, BB, &digest(b"first")).await.bytes, b"first");
}

#[tokio::test]
async fn a_blob_goes_when_no_manifest_names_it() {
    let (server, alice) = start().await;
    let body = push(&alice, BB, "v1", b"config", &[b"layer"]).await;
    let path = blob_at(BB, &digest(b"layer"));
    let said = refused(&alice.delete(&path).await, 403, "DENIED");
    assert!(said.contains("manifest"), "{said}");
    assert_eq!(fetch(&alice, BB, &digest(b"layer")).await.bytes, b"layer");
    refused(&alice.delete(&blob_at(BB, &nothing())).await, 404, "BLOB_UNKNOWN");
    crate::support::blob(&alice, BB, b"unnamed").await;
    is(&alice.delete(&blob_at(BB, &digest(b"unnamed"))).await, 202);
    refused(&alice.delete(&blob_at(BB, &digest(b"unnamed"))).await, 404, "BLOB_UNKNOWN");
    assert_eq!(server.quota("alice").await, (11, 0), "at once");
    assert_eq!(manifest(&alice, BB, "v1").await, body);
}

#[tokio::test]
async fn a_manifest_that_says_something_of_another_goes_alone() {
    let (server, alice) = start().await;
    let subject = push(&alice, BB, "v1", b"config", &[b"layer"]).await;
    let mut signature = image(b"signature", &[]);
    signature["subject"] = named(MANIFEST, subject.as_bytes());
    crate::support::blob(&alice, BB, b"signature").await;
    let signature = signature.to_string();
    is(&put(&alice, BB, &digest(signature.as_bytes()), MANIFEST, &signature).await, 201);
    let referrers = async |of: &str| {
        let answer = alice.get(&format!("/v2/{BB}/referrers/{}", digest(of.as_bytes()))).await;
        answer.json["manifests"].as_array().unwrap().len()
    };
    assert_eq!(referrers(&subject).await, 1);
    is(&alice.delete(&manifest_at(BB, &digest(subject.as_bytes()))).await, 202);
    assert_eq!(referrers(&subject).await, 1, "its referrer is still there");
    assert_eq!(server.quota("alice").await, (9, 0));
    is(&alice.delete(&manifest_at(BB, &digest(signature.as_bytes()))).await, 202);
    assert_eq!((referrers(&subject).await, server.quota("alice").await), (0, (0, 0)));
}

#[tokio::test]
async fn what_was_deleted_can_be_pushed_again() {
    let (server, alice) = start().await;
    for _ in 0..3 {
        let body = push(&alice, BB, "v1", b"config", &[b"layer"]).await;
        assert_eq!(fetch(&alice, BB, &digest(b"layer")).await.bytes, b"layer");
        is(&alice.delete(&manifest_at(BB, &digest(body.as_bytes()))).await, 202);
        assert_eq!(server.quota("alice").await, (0, 0));
    }
    sweep_up(&server).await;
    assert_eq!(server.objects().await, Vec::<String>::new());
    let body = push(&alice, BB, "v1", b"config", &[b"layer"]).await;
    sweep_up(&server).await;
    assert_eq!(manifest(&alice, BB, "v1").await, body);
    assert_eq!(fetch(&alice, BB, &digest(b"layer")).await.bytes, b"layer");
}

#[tokio::test]
async fn a_manifest_with_very_many_tags_is_deleted_with_all_of_them() {
    let (server, alice) = start().await;
    let body = push(&alice, BB, "t0", b"config", &[b"layer"]).await;
    for ten in 0..12 {
        let tags = (0..10).map(|number| format!("tag=t{ten}-{number}&")).collect::<Vec<_>>().concat();
        is(&put(&alice, BB, &format!("{}?{tags}", digest(body.as_bytes())), MANIFEST, &body).await, 201);
    }
    assert_eq!(tags(&alice, BB).await.len(), 121);
    is(&alice.delete(&manifest_at(BB, &digest(body.as_bytes()))).await, 202);
    assert_eq!(tags(&alice, BB).await, Vec::<String>::new());
    assert_eq!(server.quota("alice").await, (0, 0));
}

#[tokio::test]
async fn an_image_goes_with_all_its_manifests_and_tags_whatever_architecture_it_has() {
    let (server, alice) = start().await;
    for (arch, path) in [("amd64", "alice/tools/known"), ("unknown", "alice/tools/silent")] {
        let bytes = SifBuilder::new(arch).seed(9).build();
        blob(&alice, path, b"{}").await;
        blob(&alice, path, &bytes).await;
        // More manifests than go with the image in one transaction, each under a tag of its own.
        for number in 0..20 {
            let mut document = of_sif(&bytes);
            document["annotations"]["number"] = json!(number.to_string());
            is(&put(&alice, path, &format!("t{number}"), MANIFEST, &document.to_string()).await, 201);
        }
        let image = format!("/v1/images/{path}:{}?arch=amd64", hash(&bytes));
        alice.delete(&image).await.ok();
        assert_eq!(tags(&alice, path).await, Vec::<String>::new(), "{arch}");
        alice.get(&image).await.error(404);
        refused(&alice.get(&blob_at(path, &digest(&bytes))).await, 404, "BLOB_UNKNOWN");
        assert_eq!(server.quota("alice").await, (0, 0), "{arch}");
    }
    sweep_up(&server).await;
}
