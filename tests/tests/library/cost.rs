//! What each operation costs: reads of the table and writes to it.

use crate::support::{begin, complete, hash, join_many, opened, opened_parts, private_collection, shout, sif, tag};
use reqwest::Method;
use serde_json::json;
use stackroom_tests::{Answer, Server, send};
use std::fmt::Write as _;

#[tokio::test]
async fn a_lookup_reads_the_table_once_and_writes_nothing() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    private_collection(&alice, "alice", "secret").await;
    let bytes = sif(1);
    for path in ["alice/tools/bb", "alice/secret/bb"] {
        alice.push(path, "v1", "amd64", &bytes).await.ok();
    }
    let scoped = server.token("alice", json!({ "name": "s", "scope": "pull@alice/tools/bb" })).await;
    // What an administrator sees of others is written down once an hour, by each server.
    for kind in ["images", "imagefile"] {
        for _ in 0..server.count() {
            assert_eq!(server.admin.get(&format!("/v1/{kind}/alice/secret/bb:v1")).await.cost(), (1, 1));
        }
    }
    for path in ["alice/tools/bb", "alice/secret/bb", "alice/secret/missing", "missing/tools/bb"] {
        for selector in ["v1", "v1?arch=amd64", "v1?arch=arm64", "v9", &hash(&bytes), &hash(b"missing")] {
            for kind in ["images", "imagefile"] {
                let path = format!("/v1/{kind}/{path}:{selector}");
                for caller in [&server.nobody, &alice, &bob, &scoped, &server.admin] {
                    assert_eq!(caller.get(&path).await.cost(), (1, 0), "{path}");
                }
                assert_eq!(send(shout(&alice, Method::GET, &path)).await.cost(), (1, 0), "{path}");
            }
        }
    }
    for nothing in ["/version", "/assets/config/config.prod.json", "/v1/oci-redirect", "/v1/hop?to=x", "/livez"] {
        assert_eq!(server.nobody.get(nothing).await.cost(), (0, 0), "{nothing}");
    }
}

/// Reads and writes of every step of a push, a pull and a deletion. Reads count each call of the table: two concurrent
/// ones count as two here, although they take one round trip.
#[tokio::test]
async fn every_step_costs_what_is_written_down() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let mut table = format!("{:<52}{:>6}{:>7}\n", "step", "reads", "writes");
    let mut note = |step: &str, answer: &Answer| {
        assert!(answer.status.as_u16() < 400 || answer.status == 404, "{step}: {}", answer.status);
        let (reads, writes) = answer.cost();
        // A step has at most one write, except the first push of known bytes, which creates the image and then commits
        // it, and an upload that is given up, whose bytes count until the store has let them go.
        let two = step.contains("known bytes") || step.contains("_abort");
        assert!(writes <= 1 || two && writes == 2, "{step}: {writes} writes");
        writeln!(table, "{step:<52}{reads:>6}{writes:>7}").unwrap();
    };
    let id = |answer: &Answer| answer.json["data"]["id"].as_str().unwrap().to_owned();
    note("GET  entity, missing", &server.admin.get("/v1/entities/acme").await);
    note("POST entity", &server.admin.post("/v1/entities", json!({ "name": "acme" })).await);
    let entity = alice.post("/v1/entities", json!({ "name": "alice" })).await;
    note("POST entity, there", &entity);
    note("GET  entity", &alice.get("/v1/entities/alice").await);
    note("GET  collection, missing", &alice.get("/v1/collections/alice/tools").await);
    let collection = alice.post("/v1/collections", json!({ "name": "tools", "entity": id(&entity) })).await;
    note("POST collection", &collection);
    note("GET  collection", &alice.get("/v1/collections/alice/tools").await);
    note("GET  container, missing", &alice.get("/v1/containers/alice/tools/bb").await);
    let body = json!({ "name": "bb", "collection": id(&collection) });
    let container = alice.post("/v1/containers", body.clone()).await;
    note("POST container", &container);
    note("POST container, there", &alice.post("/v1/containers", body).await);
    note("GET  container", &alice.get("/v1/containers/alice/tools/bb").await);
    let bytes = sif(1);
    let image = json!({ "hash": hash(&bytes), "container": id(&container) });
    note("POST image", &alice.post("/v1/images", image.clone()).await);
    note("POST image, there", &alice.post("/v1/images", image.clone()).await);
    let push = begin(&alice, "alice/tools/bb", &bytes).await;
    note("POST imagefile", &alice.open(&push.image, &bytes).await);
    note("POST imagefile, open", &alice.open(&push.image, &bytes).await);
    let (_, url) = opened(&alice, "alice/tools/bb", &bytes).await;
    alice.upload(&url, &bytes).await;
    note("PUT  _complete", &complete(&alice, &push).await);
    note("PUT  _complete, again", &complete(&alice, &push).await);
    note("GET  tags", &alice.get(&format!("/v2/tags/{}", push.container)).await);
    note("POST tags", &tag(&alice, &push, "latest").await);
    note("POST tags, moved", &{
        let other = begin(&alice, "alice/tools/bb", &sif(2)).await;
        alice.push("alice/tools/bb", "v2", "amd64", &sif(2)).await.ok();
        tag(&alice, &other, "latest").await
    });
    note("POST image, complete", &alice.post("/v1/images", image).await);
    let elsewhere = alice.container("alice/tools/elsewhere").await;
    let known = json!({ "hash": hash(&bytes), "container": elsewhere });
    note("POST image, known bytes in another container", &alice.post("/v1/images", known).await);

    let third = sif(3);
    let push = begin(&alice, "alice/tools/bb", &third).await;
    let path = format!("/v2/imagefile/{}/_multipart", push.image);
    note("POST _multipart", &alice.post(&path, json!({ "filesize": third.len() })).await);
    let parts = opened_parts(&alice, "alice/tools/bb", &third).await;
    note("PUT  _multipart", &parts.ask(&alice, 1, &third).await);
    note("PUT  _multipart_abort", &parts.abort(&alice).await);
    let parts = opened_parts(&alice, "alice/tools/bb", &third).await;
    let etags = parts.send_all(&alice, &third).await;
    note("PUT  _multipart_complete", &parts.complete_all(&alice, &etags).await);
    note("PUT  _multipart_complete, again", &parts.complete_all(&alice, &etags).await);

    note("GET  image by tag", &alice.get("/v1/images/alice/tools/bb:v2").await);
    note("GET  image by hash", &alice.get(&format!("/v1/images/alice/tools/bb:{}", hash(&bytes))).await);
    note("GET  image with details", &alice.get("/v1/images/alice/tools/bb:v2?details").await);
    note("GET  image, the newest untagged for latest", &server.nobody.get("/v1/images/alice/tools/elsewhere").await);
    note("GET  imagefile", &alice.get("/v1/imagefile/alice/tools/bb:v2").await);
    note("GET  shub", &server.nobody.get("/alice/api/container/tools/bb:v2").await);
    note("GET  entities", &alice.get("/v1/entities").await);
    note("GET  collections", &alice.get("/v1/collections?entity=alice").await);
    note("GET  containers", &alice.get("/v1/containers?entity=alice").await);
    note("GET  images", &alice.get("/v1/images?container=alice/tools/bb").await);
    server.followed().await;
    note("GET  search, one entity", &alice.get("/v1/search?value=alice").await);
    note("GET  token-status", &alice.get("/v1/token-status").await);
    note("DEL  image", &alice.delete("/v1/images/alice/tools/bb:latest").await);
    note("DEL  image, missing", &alice.delete("/v1/images/alice/tools/bb:v77").await);
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_push_costs_no_more_with_many_entities() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let container = alice.container("alice/tools/bb").await;
    join_many(&server, "alice", 130).await;
    let image = json!({ "hash": hash(&sif(1)), "container": container });
    for cost in [(3, 1), (3, 0)] {
        assert_eq!(alice.post("/v1/images", image.clone()).await.cost(), cost);
    }
}
