//! Holes that other libraries had: each is tried as it worked there.
//!
//! The tests that are not in this file are about more than the hole.
//!
//! | hole in Hinkskalle 4.6 | test |
//! |---|---|
//! | 1: an image is linked by the hash of a private one, and gives its bytes | `hinkskalle_1_…` |
//! | 2: a mount takes a blob from a private repository | `hinkskalle_2_…`, `hazard_mount_authorization` |
//! | 3: who may only read pushes manifests | `hinkskalle_3_and_4_…` |
//! | 4: who may only read deletes blobs and manifests | `hinkskalle_3_and_4_…` |
//! | 5: `inspect` reads private images for nobody | `hinkskalle_5_…` |
//! | 6: any user reads everybody's account | `hinkskalle_6_…` |
//! | 7: a token costs a password hash and a write for each request | `hinkskalle_7_…`, `a_lookup_reads_the_table_once_and_writes_nothing` |
//! | 8: a quota can't be filled exactly | `hinkskalle_8_9_10_…` |
//! | 9: an upload in parts is refused when all bytes are there, and they stay | `hinkskalle_8_9_10_…`, `an_aborted_upload_leaves_nothing` |
//! | 10: deleted bytes count until the night | `hinkskalle_8_9_10_…` |
//! | 11: the documented way to a database stops in the middle | `hinkskalle_11_…` |
//! | 12: removing an image removes the file that others share | `hinkskalle_12_…` |
//! | 13: temporary files are never collected | `an_upload_that_was_left_is_swept_with_its_parts_and_its_reservation` |
//! | 14: private through one protocol, open through the other | `hinkskalle_14_…`, `a_repository_is_as_visible_here_as_through_the_library` |
//! | 15: the counter of a passkey is never updated | there are no passkeys |
//! | 16: a deletion by digest reaches other repositories | `hinkskalle_16_…` |
//! | 17: a push for arm64 takes `latest` away from amd64 | `hinkskalle_17_…` |
//!
//! | hole in Singularity Registry Server | test |
//! |---|---|
//! | 1: any token ends the uploads of others, and sets their tags | `sregistry_1_…` |
//! | 2: a tag is looked up by its name in all collections | `sregistry_2_…` |
//! | 3: labels of private containers are found by all | `sregistry_3_…` |
//! | 4: a list ends after its first item | `sregistry_4_and_5_…`, `lists_come_in_pages_and_whole` |
//! | 5: a private pull without a token is a server error | `sregistry_4_and_5_…` |
//! | 6: URLs live for five minutes, and slow transfers break | `sregistry_6_…` |
//! | 7: a hundred pulls in a week, then 429 | `sregistry_7_…` |
//! | 8: interrupted pushes leave containers that others see | `sregistry_8_…` |
//! | 9: only amd64 is found | `sregistry_9_…` |
//! | 10: one token for each user, which is never narrower | `a_narrow_api_token_stays_narrow`, `only_who_may_delete_does` |

use crate::support::{Standing, begin, hash, opened, opened_parts, set, sif, sif_of, sweep_up, text};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use server::local::Local;
use shared::config::Config;
use shared::domain::Digest;
use stackroom_tests::functions::only_on_our_stores;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Answer, Caller, SERVING, Server, send};

/// A server with an administrator's public tool, somebody's private image, and a stranger.
struct Stage {
    server: Server,
    bench: Caller,
    eve: Caller,
    secret: Vec<u8>,
}

impl Stage {
    async fn set() -> Self {
        let server = Server::start_with(&[SERVING]).await;
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

/// The table and the objects of a folder, as the server opens them when it starts.
async fn opened_folder(folder: &std::path::Path) -> Local {
    Local::open(folder, Config::read("http://127.0.0.1:1", |_| None).unwrap()).await.unwrap()
}

#[tokio::test]
async fn hinkskalle_11_a_new_folder_needs_no_step_before_the_first_start_nor_before_the_next() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("not/there/yet");
    let local = opened_folder(&data).await;
    let made = local.first_admin().await.unwrap();
    assert!(made.is_some(), "the first start makes an administrator");
    let token = std::fs::read(local.admin_token()).unwrap();
    drop(local);
    let local = opened_folder(&data).await;
    assert_eq!(local.first_admin().await.unwrap(), None, "and the next one finds them");
    assert_eq!(std::fs::read(local.admin_token()).unwrap(), token);
}

#[tokio::test]
async fn hinkskalle_12_bytes_stay_as_long_as_anybody_has_them() {
    let Stage { server, bench, eve, secret } = Stage::set().await;
    eve.push("eve/tools/same", "v1", "amd64", &secret).await.ok();
    bench.delete("/v1/images/bench/priv/secret:v1").await.ok();
    sweep_up(&server).await;
    assert_eq!(eve.pull("eve/tools/same:v1").await.bytes, secret);
    eve.delete("/v1/images/eve/tools/same:v1").await.ok();
    sweep_up(&server).await;
    assert_eq!(server.objects().await.len(), 1, "the tool of the administrator");
}

#[tokio::test]
async fn hinkskalle_14_a_private_image_is_private_to_every_client() {
    let Stage { server, bench, eve, secret } = Stage::set().await;
    let digest = Digest::of(&secret);
    let paths = [
        ("/v1/images/bench/priv/secret:v1".to_owned(), 404),
        ("/v1/imagefile/bench/priv/secret:v1".to_owned(), 404),
        ("/bench/api/container/priv/secret:v1".to_owned(), 404),
        ("/v2/bench/priv/secret/manifests/v1".to_owned(), 401),
        ("/v2/bench/priv/secret/tags/list".to_owned(), 401),
        (format!("/v2/bench/priv/secret/blobs/{digest}"), 401),
    ];
    for (path, status) in &paths {
        for who in [&eve, &server.nobody] {
            assert_eq!(who.get(path).await.status, *status, "{path}");
        }
        let seen = bench.get(path).await.status;
        assert!(seen.is_success() || seen.is_redirection(), "{path}: {seen}");
    }
}

/// Pushes an artifact of one blob, the same for everybody, and returns the digest of its manifest.
async fn artifact(who: &Caller, repository: &str) -> String {
    let bytes = b"the same everywhere";
    let digest = Digest::of(bytes).to_string();
    let upload = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    assert_eq!(send(who.request(Method::POST, &upload).body(bytes.to_vec())).await.status, 201);
    let blob = json!({ "mediaType": "application/octet-stream", "digest": digest, "size": bytes.len() });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": blob, "layers": [blob] }).to_string();
    let put = who.request(Method::PUT, &format!("/v2/{repository}/manifests/v1")).header("content-type", kind);
    assert_eq!(send(put.body(manifest.clone())).await.status, 201);
    Digest::of(manifest.as_bytes()).to_string()
}

#[tokio::test]
async fn hinkskalle_16_a_deletion_by_digest_stays_in_its_repository() {
    let Stage { server: _server, bench, eve, .. } = Stage::set().await;
    let digest = artifact(&bench, "bench/tools/same").await;
    eve.container("eve/tools/empty").await;
    let at = |repository: &str| format!("/v2/{repository}/manifests/{digest}");
    // Through a repository of her own, eve reaches nothing that is not in it.
    assert_eq!(eve.delete(&at("eve/tools/empty")).await.status, 404);
    assert_eq!(eve.delete(&at("bench/tools/same")).await.status, 401);
    assert_eq!(artifact(&bench, "bench/other/same").await, digest);
    assert_eq!(artifact(&eve, "eve/tools/same").await, digest);
    assert_eq!(eve.delete(&at("eve/tools/same")).await.status, 202);
    assert_eq!(eve.get(&at("eve/tools/same")).await.status, 404);
    assert_eq!(bench.delete(&at("bench/other/same")).await.status, 202);
    for path in ["manifests/v1".to_owned(), format!("blobs/{}", Digest::of(b"the same everywhere"))] {
        assert_eq!(bench.get(&format!("/v2/bench/tools/same/{path}")).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn hinkskalle_17_a_push_for_another_architecture_leaves_latest_as_it_is() {
    let Stage { server, bench, .. } = Stage::set().await;
    let (amd, arm) = (sif(3), SifBuilder::new("arm64").build());
    for path in ["bench/tools/new", "bench/tools/old"] {
        bench.push(path, "latest", "amd64", &amd).await.ok();
    }
    bench.push("bench/tools/new", "latest", "arm64", &arm).await.ok();
    // The older clients name no architecture: the image says it.
    bench.push("bench/tools/old", "other", "arm64", &arm).await.ok();
    let push = begin(&bench, "bench/tools/old", &arm).await;
    let tag = json!({ "Tag": "latest", "ImageID": push.image });
    bench.post(&format!("/v1/tags/{}", push.container), tag).await.ok();
    for path in ["bench/tools/new", "bench/tools/old"] {
        assert_eq!(server.nobody.pull(&format!("{path}:latest?arch=amd64")).await.bytes, amd, "{path}");
        assert_eq!(server.nobody.pull(&format!("{path}:latest?arch=arm64")).await.bytes, arm, "{path}");
        assert_eq!(server.nobody.pull(&format!("{path}:latest")).await.bytes, amd, "{path}");
    }
}

#[tokio::test]
async fn sregistry_1_a_token_of_somebody_ends_and_tags_nothing_of_others() {
    let Stage { server, bench, eve, .. } = Stage::set().await;
    let bytes = sif_of(4, 100_000);
    let parts = opened_parts(&bench, "bench/tools/big", &bytes).await;
    let etags = parts.send_all(&bench, &bytes).await;
    let refused = |answer: &Answer| assert!([403, 404].contains(&answer.status.as_u16()), "{}", answer.status);
    refused(&parts.ask(&eve, 1, &[b'x'; 100]).await);
    refused(&parts.complete_all(&eve, &etags).await);
    refused(&parts.abort(&eve).await);
    refused(&eve.put(&format!("/v2/imagefile/{}/_complete", parts.push.image), json!({})).await);
    let container = text(&bench.get("/v1/containers/bench/priv/secret").await.ok(), "/data/id");
    let image = text(&bench.get("/v1/images/bench/priv/secret:v1").await.ok(), "/data/id");
    let tag = json!({ "Arch": "amd64", "Tag": "v9", "ImageID": image });
    for version in ["v1", "v2"] {
        eve.post(&format!("/{version}/tags/{container}"), tag.clone()).await.error(403);
    }
    bench.get("/v1/images/bench/priv/secret:v9").await.error(404);
    bench.get("/v1/images/bench/priv/secret:v1").await.ok();
    // What eve tried has harmed the upload in no way.
    parts.complete_all(&bench, &etags).await.ok();
    let reference = format!("bench/tools/big:{}", hash(&bytes));
    assert_eq!(server.nobody.pull(&reference).await.bytes, bytes);
}

#[tokio::test]
async fn sregistry_2_a_tag_of_the_same_name_elsewhere_is_another_one() {
    let Stage { server, bench, eve, secret } = Stage::set().await;
    eve.push("eve/priv/secret", "v1", "amd64", &sif(9)).await.ok();
    eve.push("eve/priv/secret", "v1", "amd64", &sif(8)).await.ok();
    assert_eq!(bench.pull("bench/priv/secret:v1").await.bytes, secret);
    eve.delete("/v1/images/eve/priv/secret:v1").await.ok();
    assert_eq!(bench.pull("bench/priv/secret:v1").await.bytes, secret);
    server.nobody.get("/v1/images/eve/priv/secret:v1").await.error(404);
}

#[tokio::test]
async fn sregistry_3_labels_of_private_images_are_found_by_nobody_else() {
    let Stage { server, bench, eve, .. } = Stage::set().await;
    let labelled = SifBuilder::new("amd64").labels(&[("project", "Quilibrium")]).build();
    bench.push("bench/priv/secret", "labelled", "amd64", &labelled).await.ok();
    server.followed().await;
    for value in ["Quilibrium", "project", "secret"] {
        let found = async |who: &Caller| {
            let answer = who.get(&format!("/v1/search?value={value}")).await.ok();
            let kinds = answer["data"].as_object().unwrap().values();
            kinds.map(|rows| rows.as_array().map_or(0, Vec::len)).sum::<usize>()
        };
        assert!(found(&bench).await > 0, "{value}");
        assert_eq!((found(&eve).await, found(&server.nobody).await), (0, 0), "{value}");
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

#[tokio::test]
async fn sregistry_6_urls_live_long_enough_for_slow_transfers() {
    let Stage { server, bench, .. } = Stage::set().await;
    let pull = server.nobody.get("/v1/imagefile/library/default/tool:v1").await;
    let (_, single) = opened(&bench, "bench/tools/one", &sif(5)).await;
    let parts = opened_parts(&bench, "bench/tools/two", &sif(6)).await;
    let part = parts.ask(&bench, 1, &sif(6)).await.ok();
    for url in [pull.header("location").unwrap(), &single, &text(&part, "/data/presignedURL")] {
        let life = url.split("X-Amz-Expires=").nth(1).and_then(|rest| rest.split('&').next()).unwrap();
        let life: u64 = life.parse().unwrap();
        assert!((23 * 3600..=24 * 3600).contains(&life), "{url}");
    }
}

#[tokio::test]
async fn sregistry_7_nobody_is_sent_away_after_a_hundred_pulls() {
    let Stage { server, .. } = Stage::set().await;
    for number in 0..150 {
        server.nobody.get("/v1/images/library/default/tool:v1").await.ok();
        let file = server.nobody.get("/v1/imagefile/library/default/tool:v1").await;
        assert_eq!(file.status, StatusCode::SEE_OTHER, "{number}");
    }
}

#[tokio::test]
async fn sregistry_8_an_interrupted_push_leaves_nothing_that_others_see() {
    if only_on_our_stores("it counts objects, and without digests in URLs bytes are staged until a sweep") {
        return;
    }
    let Stage { server, bench, eve, .. } = Stage::set().await;
    bench.container("bench/tools/bb").await;
    let before = Standing::of(&server, "bench").await;
    let (bytes, other) = (sif(5), sif_of(6, 100_000));
    let (_, url) = opened(&bench, "bench/tools/bb", &bytes).await;
    assert_eq!(bench.upload(&url, &bytes).await.status, 200);
    let parts = opened_parts(&bench, "bench/tools/bb", &other).await;
    parts.send_all(&bench, &other).await;
    for bytes in [&bytes, &other] {
        for who in [&eve, &server.nobody] {
            who.get(&format!("/v1/images/bench/tools/bb:{}", hash(bytes))).await.error(404);
        }
    }
    let seen = server.nobody.get("/v1/containers/bench/tools/bb").await.ok();
    assert_eq!((&seen["data"]["images"], &seen["data"]["archTags"]), (&json!([]), &json!({})));
    before.is_back(&server, &bench, "bench/tools/bb", &bytes).await;
    before.is_back(&server, &bench, "bench/tools/bb", &other).await;
}

#[tokio::test]
async fn sregistry_9_images_of_every_architecture_are_found() {
    let Stage { server, bench, .. } = Stage::set().await;
    for arch in ["arm64", "ppc64le", "riscv64"] {
        let bytes = SifBuilder::new(arch).build();
        let path = format!("bench/tools/{arch}");
        bench.push(&path, "v1", arch, &bytes).await.ok();
        for reference in [format!("{path}:v1?arch={arch}"), format!("{path}:{}?arch={arch}", hash(&bytes))] {
            let found = server.nobody.get(&format!("/v1/images/{reference}")).await.ok();
            assert_eq!(found["data"]["arch"], json!(arch), "{reference}");
            assert_eq!(server.nobody.pull(&reference).await.bytes, bytes, "{reference}");
        }
    }
}
