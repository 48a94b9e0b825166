//! Holes that other libraries had: each is tried as it worked there.

use crate::support::{begin, hash, opened_parts, set, sif, sif_of, text};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::Digest;
use stackroom_tests::{Caller, Server, send};

/// A server with an administrator's public tool, somebody's private image, and a stranger.
struct Stage {
    server: Server,
    bench: Caller,
    eve: Caller,
    secret: Vec<u8>,
}

impl Stage {
    async fn set() -> Self {
        let server = Server::start().await;
        let (bench, eve) = (server.user("bench", 0).await, server.user("eve", 0).await);
        server.admin.push("library/default/tool", "v1", "amd64", &sif(1)).await.ok();
        let secret = sif(2);
        bench.push("bench/priv/secret", "v1", "amd64", &secret).await.ok();
        set(&bench, "/v1/containers/bench/priv/secret", json!({ "visibility": "private" })).await.ok();
        Self { server, bench, eve, secret }
    }
}

#[tokio::test]
async fn hinkskalle_1_knowing_a_hash_gives_nobody_the_private_bytes() {
    let Stage { server: _server, eve, secret, .. } = Stage::set().await;
    let container = eve.container("eve/tools/mine").await;
    let image = eve.image(&container, &secret).await;
    assert_eq!(image["uploaded"], json!(false));
    eve.get(&format!("/v1/imagefile/eve/tools/mine:{}", hash(&secret))).await.error(404);
}

#[tokio::test]
async fn hinkskalle_2_nothing_is_mounted_from_where_one_may_not_pull() {
    let Stage { server: _server, eve, secret, .. } = Stage::set().await;
    let digest = Digest::of(&secret).to_string();
    let path = format!("/v2/eve/tools/mine/blobs/uploads/?mount={digest}&from=bench/priv/secret");
    assert_eq!(send(eve.request(Method::POST, &path)).await.status, StatusCode::ACCEPTED);
    assert_eq!(send(eve.request(Method::GET, &format!("/v2/eve/tools/mine/blobs/{digest}"))).await.status, 404);
}

#[tokio::test]
async fn hinkskalle_3_and_4_who_may_only_read_writes_and_deletes_nothing() {
    let Stage { server, eve, .. } = Stage::set().await;
    let manifest = json!({ "schemaVersion": 2, "layers": [] }).to_string();
    let put = eve.request(Method::PUT, "/v2/library/default/tool/manifests/v2").body(manifest);
    assert_eq!(send(put).await.status, StatusCode::UNAUTHORIZED);
    let digest = Digest::of(&sif(1)).to_string();
    for path in [format!("blobs/{digest}"), "manifests/v1".to_owned()] {
        let deleted = send(eve.request(Method::DELETE, &format!("/v2/library/default/tool/{path}"))).await;
        assert_eq!(deleted.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(server.nobody.pull("library/default/tool:v1").await.bytes, sif(1));
}

#[tokio::test]
async fn hinkskalle_5_nobody_inspects_what_is_private() {
    let Stage { server, eve, .. } = Stage::set().await;
    for who in [&server.nobody, &eve] {
        for path in ["bench/priv/secret", "bench/priv/missing"] {
            let answer = who.get(&format!("/v1/images/{path}:v1/inspect")).await;
            assert!([400, 404].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
            who.get(&format!("/v1/images/{path}:v1")).await.error(404);
        }
    }
}

#[tokio::test]
async fn hinkskalle_6_users_do_not_list_users() {
    let Stage { server, eve, .. } = Stage::set().await;
    eve.get("/api/users").await.error(403);
    server.nobody.get("/api/users").await.error(401);
    eve.get("/v1/users").await.error(403);
    server.nobody.get("/v1/users?username=eve").await.error(401);
    let found = eve.get("/v1/users?username=adm").await.ok();
    assert_eq!(found["data"][0]["username"], json!("admin"));
    assert_eq!((found["data"][0].get("quota"), found["data"][0].get("isAdmin")), (None, None));
}

#[tokio::test]
async fn hinkskalle_7_a_token_costs_a_lookup_no_more_rounds_than_nobody_costs() {
    let Stage { server, eve, .. } = Stage::set().await;
    let path = "/v1/images/library/default/tool:v1";
    assert_eq!(eve.get(path).await.cost(), server.nobody.get(path).await.cost());
}

#[tokio::test]
async fn hinkskalle_8_9_10_a_quota_is_filled_exactly_refused_at_the_start_and_freed_at_once() {
    let server = Server::start().await;
    let alice = server.user("alice", 200_000).await;
    alice.push("alice/tools/one", "v1", "amd64", &sif_of(1, 120_000)).await.ok();
    alice.push("alice/tools/two", "v1", "amd64", &sif_of(2, 80_000)).await.ok();
    let push = begin(&alice, "alice/tools/three", &sif_of(3, 50_000)).await;
    let body = json!({ "filesize": 50_000 });
    alice.post(&format!("/v2/imagefile/{}/_multipart", push.image), body).await.error(507);
    assert!(server.local.app.objects.open_parts().await.unwrap().is_empty());
    alice.delete("/v1/images/alice/tools/one:v1").await.ok();
    alice.push("alice/tools/three", "v1", "amd64", &sif_of(3, 50_000)).await.ok();
}

#[tokio::test]
async fn sregistry_1_a_token_of_somebody_aborts_and_tags_nothing_of_others() {
    let Stage { server: _server, bench, eve, .. } = Stage::set().await;
    let parts = opened_parts(&bench, "bench/tools/big", &vec![b'x'; 100_000]).await;
    parts.abort(&eve).await.error(403);
    let asked = parts.ask(&eve, 1, &[b'x'; 100]).await;
    assert!([403, 404].contains(&asked.status.as_u16()), "{}", asked.status);
    let container = text(&bench.get("/v1/containers/bench/priv/secret").await.ok(), "/data/id");
    let image = text(&bench.get("/v1/images/bench/priv/secret:v1").await.ok(), "/data/id");
    let tag = json!({ "Arch": "amd64", "Tag": "v9", "ImageID": image });
    for version in ["v1", "v2"] {
        eve.post(&format!("/{version}/tags/{container}"), tag.clone()).await.error(403);
    }
    bench.get("/v1/images/bench/priv/secret:v1").await.ok();
}

#[tokio::test]
async fn sregistry_2_a_tag_of_the_same_name_elsewhere_is_another_one() {
    let Stage { server, bench, eve, .. } = Stage::set().await;
    eve.push("eve/priv/secret", "v1", "amd64", &sif(9)).await.ok();
    eve.delete("/v1/images/eve/priv/secret:v1").await.ok();
    bench.get("/v1/images/bench/priv/secret:v1").await.ok();
    server.nobody.get("/v1/images/eve/priv/secret:v1").await.error(404);
}

#[tokio::test]
async fn sregistry_3_labels_of_private_images_are_found_by_nobody_else() {
    let Stage { server, eve, .. } = Stage::set().await;
    for who in [&eve, &server.nobody] {
        let answer = who.get("/v1/search?value=secret").await;
        let found = answer.json["data"].as_object().into_iter().flatten().map(|(_, rows)| rows.clone());
        assert!(
            found.flat_map(|rows| rows.as_array().cloned().unwrap_or_default()).next().is_none(),
            "{}",
            answer.json
        );
    }
}

#[tokio::test]
async fn sregistry_4_and_5_lists_are_whole_and_a_private_pull_without_a_token_is_no_failure() {
    let Stage { server, bench, .. } = Stage::set().await;
    bench.push("bench/more/x", "v1", "amd64", &sif(3)).await.ok();
    let listed = bench.get("/v1/collections?entity=bench").await.ok();
    let names: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, [&json!("more"), &json!("priv")]);
    server.nobody.get("/v1/imagefile/bench/priv/secret:v1").await.error(404);
}
