//! What broke when the server was attacked, and what belongs to the same class. Each test fails on the behaviour from
//! before.

use crate::library::{Parts, begin, hash, opened_parts, set, sif, sif_of, text};
use crate::support::{
    BB, INDEX, MANIFEST, blob, blob_at, digest, fetch, head, index, installation, is, manifest, manifest_at, named,
    narrowed, of_sif, open, push, push_sif, put, refused, tag_many,
};
use reqwest::Method;
use serde_json::{Value, json};
use server::limits::Limits;
use server::local::Local;
use shared::config::Config;
use stackroom_tests::functions::{only_in_one_process, only_on_one_server, only_on_our_stores};
use stackroom_tests::{Answer, Caller, Server, send};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

/// Pushes an image through the library; returns the manifest that registry clients see.
async fn pushed(who: &Caller, tag: &str, bytes: &[u8]) -> String {
    who.push(BB, tag, "amd64", bytes).await.ok();
    manifest(who, BB, tag).await
}

/// Pushes an index of an index of these manifests, under a tag that is then frozen; and removes the tags of the
/// manifests themselves.
async fn frozen_above(who: &Caller, tag: &str, manifests: &[&str], tags: &[&str]) {
    let inner = index(manifests).to_string();
    is(&put(who, BB, &digest(inner.as_bytes()), INDEX, &inner).await, 201);
    let outer = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [named(INDEX, inner.as_bytes())] });
    is(&put(who, BB, tag, INDEX, &outer.to_string()).await, 201);
    set(who, &format!("/v1/images/{BB}:{tag}"), json!({ "frozen": true })).await.ok();
    for tag in tags {
        is(&who.delete(&manifest_at(BB, tag)).await, 202);
    }
}

/// Checks that an image is still there, in both protocols.
async fn there(who: &Caller, document: &str, bytes: &[u8]) {
    assert_eq!(manifest(who, BB, &digest(document.as_bytes())).await, document);
    assert_eq!(fetch(who, BB, &digest(bytes)).await.bytes, bytes);
    assert_eq!(who.pull(&format!("{BB}:{}", hash(bytes))).await.bytes, bytes);
}

#[tokio::test]
async fn attack_02_a_library_image_behind_nested_indexes_of_a_frozen_tag_stays() {
    let (server, alice) = start().await;
    let bytes = sif(1);
    let document = pushed(&alice, "v0", &bytes).await;
    frozen_above(&alice, "nested", &[&document], &["v0"]).await;
    for who in [&alice, &server.admin] {
        refused(&who.delete(&manifest_at(BB, &digest(document.as_bytes()))).await, 403, "DENIED");
        assert!(who.delete(&format!("/v1/images/{BB}:{}", hash(&bytes))).await.error(403).contains("frozen"));
    }
    there(&alice, &document, &bytes).await;
    // And goes once the tag is no longer frozen.
    set(&alice, &format!("/v1/images/{BB}:nested"), json!({ "frozen": false })).await.ok();
    alice.delete(&format!("/v1/images/{BB}:{}", hash(&bytes))).await.ok();
}

#[tokio::test]
async fn attack_02_every_image_of_one_architecture_in_a_frozen_index_stays() {
    let (_server, alice) = start().await;
    let (one, two) = (sif(1), sif(2));
    let documents = [pushed(&alice, "one", &one).await, pushed(&alice, "two", &two).await];
    let both = index(&[&documents[0], &documents[1]]).to_string();
    is(&put(&alice, BB, "both", INDEX, &both).await, 201);
    set(&alice, &format!("/v1/images/{BB}:both"), json!({ "frozen": true })).await.ok();
    for (tag, bytes, document) in [("one", &one, &documents[0]), ("two", &two, &documents[1])] {
        alice.delete(&format!("/v1/images/{BB}:{tag}")).await.error(403);
        alice.delete(&format!("/v1/images/{BB}:{}", hash(bytes))).await.error(403);
        refused(&alice.delete(&manifest_at(BB, &digest(document.as_bytes()))).await, 403, "DENIED");
        there(&alice, document, bytes).await;
    }
}

#[tokio::test]
async fn attack_02_the_own_manifest_of_an_image_outlives_another_manifest_of_it() {
    let (_server, alice) = start().await;
    let bytes = sif(1);
    let document = pushed(&alice, "v0", &bytes).await;
    frozen_above(&alice, "w1", &[&document], &["v0"]).await;
    let other = push_sif(&alice, BB, "other", &bytes).await;
    assert_ne!(other, document);
    // The last manifest beside its own: the image would go with it.
    is(&alice.delete(&manifest_at(BB, &digest(other.as_bytes()))).await, 202);
    there(&alice, &document, &bytes).await;
}

#[tokio::test]
async fn attack_03_no_list_reads_more_than_it_may_show_and_a_tag_is_set_without_reading_the_others() {
    let (server, alice) = start().await;
    let bytes = sif(2);
    let document = push_sif(&alice, BB, "t0", &bytes).await;
    tag_many(&alice, BB, &document, 1200).await;
    let container = alice.container(BB).await;
    let listed = server.nobody.get(&format!("/v2/tags/{container}")).await;
    // Pages of 128 rows.
    reads_at_most(&listed, 12);
    let listed = alice.get(&format!("/v2/tags/{container}")).await;
    reads_at_most(&listed, 12);
    assert_eq!(listed.ok()["data"]["amd64"].as_object().unwrap().len(), 1000);
    let whole = alice.get(&format!("/v1/containers/{BB}")).await;
    reads_at_most(&whole, 12);
    assert_eq!(whole.ok()["data"]["imageTags"].as_object().unwrap().len(), 1000);
    // Clients that push look at none of them.
    for agent in ["Apptainer/1.4.5 (Linux amd64) Go/1.24.6", "Singularity-Ce/4.5.1 (Linux amd64)", "Singularity/3.8.4"]
    {
        for path in [format!("/v2/tags/{container}"), format!("/v1/containers/{BB}")] {
            let pushing = send(alice.request(Method::GET, &path).header("user-agent", agent)).await;
            reads_at_most(&pushing, 4);
            let seen = pushing.ok()["data"].clone();
            let tags = if seen["id"].is_string() { &seen["archTags"]["amd64"] } else { &seen["amd64"] };
            assert_eq!(tags.as_object().unwrap().len(), 10, "{path}: {seen}");
        }
    }
    let image = alice.image(&container, &bytes).await["id"].clone();
    let set =
        alice.post(&format!("/v2/tags/{container}"), json!({ "Arch": "amd64", "Tag": "one", "ImageID": image })).await;
    reads_at_most(&set, 4);
    assert_eq!(set.ok()["data"], json!({ "amd64": { "one": image } }));
    let missing = alice.get(&format!("/v1/images/{BB}:latest?arch=amd64")).await;
    reads_at_most(&missing, 12);
    missing.error(404);
    // All of them, page by page.
    let page = alice.get(&format!("/v2/{BB}/tags/list?n=700")).await;
    reads_at_most(&page, 8);
    assert_eq!(page.json["tags"].as_array().unwrap().len(), 700);
}

/// Checks how often a request has read.
#[track_caller]
fn reads_at_most(answer: &Answer, reads: u32) {
    assert!(answer.cost().0 <= reads, "{:?}", answer.cost());
}

/// The bytes of all files of the bucket.
fn on_disk(server: &Server) -> u64 {
    let objects = server.local.admin_token().with_file_name("objects");
    let folders = fs::read_dir(objects).unwrap().map(|folder| folder.unwrap().path());
    folders.flat_map(|folder| fs::read_dir(folder).unwrap()).map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// The limit of an account in these tests, and the most bytes that it can have on disk.
const LIMIT: u64 = 200_000;
const MOST: u64 = 5 * LIMIT;

async fn limited() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", LIMIT).await;
    (server, alice)
}

/// Checks that it was refused at last, with few enough bytes on disk; and that all is well once the sweeper was there.
async fn bounded(server: &Server, who: &Caller, refused: bool) {
    assert!(refused, "nothing was refused");
    assert!(on_disk(server) <= MOST, "{} bytes on disk", on_disk(server));
    for _ in 0..3 {
        server.sweep_all().await;
    }
    who.push(BB, "after", "amd64", &sif_of(99, 150_000)).await.ok();
    server.sweep_all().await;
}

#[tokio::test]
async fn attack_04_pushing_and_deleting_does_not_fill_the_disk() {
    let (server, alice) = limited().await;
    let mut refused = false;
    for seed in 0..10 {
        let pushed = alice.push(BB, "v1", "amd64", &sif_of(seed, 150_000)).await;
        if !pushed.status.is_success() {
            assert!(pushed.error(507).contains("are still kept"));
            refused = true;
            break;
        }
        alice.delete(&format!("/v1/images/{BB}:v1?arch=amd64")).await.ok();
    }
    assert_eq!(server.quota("alice").await, (0, 0), "a deletion gives back at once");
    bounded(&server, &alice, refused).await;
}

#[tokio::test]
async fn attack_04_an_upload_with_more_and_more_bytes_does_not_fill_the_disk() {
    let (server, alice) = limited().await;
    let container = alice.container(BB).await;
    let image = alice.image(&container, &sif(1)).await["id"].as_str().unwrap().to_owned();
    let mut refused = false;
    for more in 0..12 {
        let bytes = vec![7; 150_000 + more];
        let body = json!({ "filesize": bytes.len(), "md5sum": "", "sha256sum": "" });
        let opened = alice.post(&format!("/v2/imagefile/{image}"), body).await;
        if !opened.status.is_success() {
            assert!(opened.error(507).contains("are still kept"));
            refused = true;
            break;
        }
        let url = opened.json["data"]["uploadURL"].as_str().unwrap().to_owned();
        assert!(alice.upload(&url, &bytes).await.status.is_success());
    }
    bounded(&server, &alice, refused).await;
}

#[tokio::test]
async fn attack_04_many_uploads_of_one_image_do_not_fill_the_disk() {
    let (server, alice) = limited().await;
    let bytes = sif_of(1, 150_000);
    let push = begin(&alice, BB, &bytes).await;
    let mut open = Vec::new();
    let mut refused = false;
    for _ in 0..12 {
        let path = format!("/v2/imagefile/{}/_multipart", push.image);
        let opened = alice.post(&path, json!({ "filesize": bytes.len() })).await;
        if !opened.status.is_success() {
            assert!(opened.error(507).contains("are still kept"));
            refused = true;
            break;
        }
        let number = |pointer: &str| opened.json.pointer(pointer).unwrap().as_u64().unwrap();
        let size = usize::try_from(number("/data/partSize")).unwrap();
        let id = text(&opened.json, "/data/uploadID");
        let parts = Parts { push: push.clone(), id, size, count: number("/data/totalParts") };
        parts.send_all(&alice, &bytes).await;
        open.push(parts);
    }
    assert!(on_disk(&server) <= MOST);
    // Whoever gives up an upload has its bytes back.
    let given_up = open.pop().unwrap();
    given_up.abort(&alice).await.ok();
    let path = format!("/v2/imagefile/{}/_multipart", push.image);
    alice.post(&path, json!({ "filesize": bytes.len() })).await.ok();
    bounded(&server, &alice, refused).await;
}

#[tokio::test]
async fn attack_04_an_upload_that_somebody_else_has_committed_meanwhile_still_counts() {
    let (server, alice) = limited().await;
    let mut refused = false;
    for seed in 0..10 {
        let bytes = sif(seed);
        let push = begin(&alice, &format!("{BB}{seed}"), &bytes).await;
        // It announces more than the image has, and brings that.
        let path = format!("/v2/imagefile/{}/_multipart", push.image);
        let opened = alice.post(&path, json!({ "filesize": 150_000 })).await;
        if !opened.status.is_success() {
            refused = true;
            break;
        }
        let parts = Parts { push, id: text(&opened.json, "/data/uploadID"), size: 150_000, count: 1 };
        parts.send_all(&alice, &vec![1; 150_000]).await;
        let pushed = alice.push(&format!("{BB}{seed}"), "v1", "amd64", &bytes).await;
        if !pushed.status.is_success() {
            refused = true;
            break;
        }
    }
    assert!(refused && on_disk(&server) <= MOST, "{} bytes on disk", on_disk(&server));
    // Which also compares the account with everything that counts.
    server.sweep_all().await;
    server.sweep_all().await;
}

/// Gives an entity rows that nobody made, or takes them away again.
async fn rows_added(server: &Server, entity: &str, rows: i128) {
    use shared::rules::{Action, Resource};
    use shared::store::table::{AccountChange, Condition, Write, Written};
    let grant = shared::service::access::system(Action::Sweep, &Resource::Installation).unwrap();
    let by = AccountChange { rows, ..AccountChange::default() };
    let write = Write::charge(&entity.parse().unwrap(), by, Condition::Present);
    assert_eq!(server.local.app.table.write(&grant, vec![write]).await.unwrap(), Written::Done);
}

/// How many rows an entity has, by its account.
async fn rows_of(server: &Server, entity: &str) -> u64 {
    let key = shared::store::keys::account(&entity.parse().unwrap());
    server.local.app.table.get::<shared::store::rows::Account>(key).await.unwrap().unwrap().quota.rows
}

/// Requests that make rows and bring no bytes; `number` is another one each time.
async fn make_row(who: &Caller, kind: &str, number: usize, ids: &Value) -> Answer {
    let text = |name: &str| ids[name].as_str().unwrap();
    match kind {
        "collection" => {
            who.post("/v1/collections", json!({ "name": format!("c{number}"), "entity": ids["entity"] })).await
        }
        "container" => {
            let body = json!({ "name": format!("c{number}"), "collection": ids["collection"] });
            who.post("/v1/containers", body).await
        }
        "image" => {
            let body = json!({ "hash": hash(&[u8::try_from(number).unwrap()]), "container": ids["container"] });
            who.post("/v1/images", body).await
        }
        "tag" => {
            let body = json!({ "Tag": format!("t{number}"), "Arch": "amd64", "ImageID": ids["image"] });
            who.post(&format!("/v2/tags/{}", text("container")), body).await
        }
        "manifest" => {
            let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": { "n": number.to_string() } });
            put(who, BB, &digest(body.to_string().as_bytes()), INDEX, &body.to_string()).await
        }
        "referrer" => {
            let mut body =
                json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "artifactType": "text/about" });
            body["subject"] = named(INDEX, number.to_string().as_bytes());
            put(who, BB, &digest(body.to_string().as_bytes()), INDEX, &body.to_string()).await
        }
        "repository" => {
            let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }).to_string();
            put(who, &format!("alice/other/r{number}"), "v1", INDEX, &body).await
        }
        "upload" => send(who.request(Method::PATCH, &open(who, BB).await)).await,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn attack_04_requests_that_only_make_rows_are_bounded_for_each_account() {
    let kinds = ["collection", "container", "image", "tag", "manifest", "referrer", "repository", "upload"];
    let (server, alice) = limited().await;
    let bytes = sif(1);
    alice.push(BB, "v1", "amd64", &bytes).await.ok();
    let container = alice.get(&format!("/v1/containers/{BB}")).await.ok()["data"].clone();
    let ids = json!({
        "entity": container["entity"], "collection": container["collection"], "container": container["id"],
        "image": alice.get(&format!("/v1/images/{BB}:v1")).await.ok()["data"]["id"],
    });
    // Ten thousand, and one for each 4 KiB of its limit.
    let most = 10_000 + LIMIT / 4096;
    let free = u64::try_from(kinds.len()).unwrap() * 3;
    let filled = i128::from(most - rows_of(&server, "alice").await - free);
    rows_added(&server, "alice", filled).await;
    let mut number = 0;
    for kind in kinds {
        let before = rows_of(&server, "alice").await;
        number += 1;
        let made = make_row(&alice, kind, number, &ids).await;
        assert!(made.status.is_success(), "{kind}: {:?}", made.json);
        let more = rows_of(&server, "alice").await - before;
        // A new repository has a collection, a manifest and a tag too.
        assert!((1..=4).contains(&more), "{kind} counts as {more}");
    }
    // What exists is not counted again.
    let before = rows_of(&server, "alice").await;
    for kind in kinds.iter().filter(|kind| **kind != "upload") {
        let at = kinds.iter().position(|other| other == kind).unwrap() + 1;
        assert!(make_row(&alice, kind, at, &ids).await.status.is_success(), "{kind}");
    }
    assert_eq!(rows_of(&server, "alice").await, before);
    rows_added(&server, "alice", i128::from(most - before)).await;
    for kind in kinds {
        for _ in 0..3 {
            number += 1;
            let refused = make_row(&alice, kind, number, &ids).await;
            let library = matches!(kind, "collection" | "container" | "image" | "tag");
            assert_eq!(refused.status, if library { 507 } else { 403 }, "{kind}: {:?}", refused.json);
            assert!(refused.json.to_string().contains("entries"), "{kind}: {:?}", refused.json);
        }
    }
    assert_eq!(rows_of(&server, "alice").await, most);
    // A tag can still be moved, what is there can be deleted, and then there is room again.
    assert!(make_row(&alice, "tag", 4, &ids).await.status.is_success());
    is(&alice.delete(&manifest_at("alice/other/r7", "v1")).await, 202);
    assert!(make_row(&alice, "tag", 200, &ids).await.status.is_success());
    make_row(&alice, "tag", 201, &ids).await.error(507);
    // A larger limit has room for more, and no limit for any number.
    for limit in [4 * LIMIT, 0] {
        server.admin.put("/api/entities/alice/quota", json!({ "limit": limit })).await.ok();
        assert!(make_row(&alice, "tag", 201, &ids).await.status.is_success());
    }
    rows_added(&server, "alice", 1_000_000).await;
    assert!(make_row(&alice, "tag", 202, &ids).await.status.is_success());
    // Everything was counted, and goes with what is deleted.
    rows_added(&server, "alice", -1_000_000 - filled - i128::from(most - before)).await;
    server.sweep_all().await;
    alice.delete(&format!("/v1/images/{BB}:v1?arch=amd64")).await.ok();
    server.sweep_all().await;
    server.sweep_all().await;
}

#[tokio::test]
async fn attack_04_what_is_changed_again_and_again_leaves_no_more_events_than_rows_are_allowed() {
    let (server, alice) = limited().await;
    let bytes = sif(1);
    alice.push(BB, "v1", "amd64", &bytes).await.ok();
    let events = async |name: &str| {
        let range = shared::store::keys::events(name);
        server.local.app.table.query_all::<shared::store::rows::Event>(range).await.unwrap()
    };
    let describe = async |who: &Caller, path: &str, text: &str| {
        set(who, path, json!({ "description": text })).await.ok();
    };
    for number in 0..120 {
        describe(&alice, &format!("/v1/containers/{BB}"), &number.to_string()).await;
    }
    server.sweep_all().await;
    let before = events("alice").await;
    assert!(before.len() > 120);
    // As if it had so many more that its limit allows all but the oldest 110.
    most_rows_set(&server, "alice", before.len() - 110).await;
    server.sweep_all().await;
    let after = events("alice").await;
    assert_eq!(after, before[110..].to_vec());
    // Nobody's else's, nor what was done to a user or the installation.
    assert!(!events("+alice").await.is_empty());
}

/// Lets an entity have so many rows, whatever its limit says.
async fn most_rows_set(server: &Server, entity: &str, most: usize) {
    use shared::rules::{Action, Resource};
    use shared::store::rows::Account;
    use shared::store::table::{Condition, Write, Written};
    let grant = shared::service::access::system(Action::Sweep, &Resource::Installation).unwrap();
    let key = shared::store::keys::account(&entity.parse().unwrap());
    let mut account: Account = server.local.app.table.get(key).await.unwrap().unwrap();
    account.quota.most_rows = most as u64;
    let write = Write::put(&account, Condition::Present).unwrap();
    assert_eq!(server.local.app.table.write(&grant, vec![write]).await.unwrap(), Written::Done);
}

#[tokio::test]
async fn attack_04_many_at_once_make_no_more_rows_than_fit() {
    let (server, alice) = limited().await;
    let bytes = sif(1);
    alice.push(BB, "v1", "amd64", &bytes).await.ok();
    let image = alice.get(&format!("/v1/images/{BB}:v1")).await.ok()["data"]["id"].clone();
    let container = alice.container(BB).await;
    let ids = json!({ "container": container, "image": image });
    let most = 10_000 + LIMIT / 4096;
    let filled = i128::from(most - rows_of(&server, "alice").await - 5);
    rows_added(&server, "alice", filled).await;
    let all = (0..20).map(|number| make_row(&alice, "tag", number, &ids));
    let made = futures::future::join_all(all).await;
    assert_eq!(made.iter().filter(|one| one.status.is_success()).count(), 5);
    assert!(made.iter().all(|one| one.status.is_success() || one.status == 507));
    rows_added(&server, "alice", -filled).await;
    server.sweep_all().await;
}

#[tokio::test]
async fn attack_04_a_manifest_that_both_a_client_and_the_library_write_counts_once() {
    let (server, alice) = start().await;
    let bytes = sif(1);
    let own = pushed(&alice, "v1", &bytes).await;
    // Another manifest keeps the image, and its own can be removed.
    push_sif(&alice, BB, "other", &bytes).await;
    is(&alice.delete(&manifest_at(BB, "v1")).await, 202);
    is(&alice.delete(&manifest_at(BB, &digest(own.as_bytes()))).await, 202);
    server.sweep_all().await;
    let before = rows_of(&server, "alice").await;
    // A client pushes the same, and the library writes it again with a tag.
    is(&put(&alice, BB, &digest(own.as_bytes()), MANIFEST, &own).await, 201);
    assert_eq!(rows_of(&server, "alice").await, before + 1);
    alice.push(BB, "v1", "amd64", &bytes).await.ok();
    assert_eq!(rows_of(&server, "alice").await, before + 2);
    server.sweep_all().await;
    alice.delete(&format!("/v1/images/{BB}:{}", hash(&bytes))).await.ok();
    server.sweep_all().await;
    server.sweep_all().await;
}

/// The files of the bucket that have these bytes.
fn files_with(server: &Server, bytes: &[u8]) -> Vec<PathBuf> {
    let objects = server.local.admin_token().with_file_name("objects");
    let folders = fs::read_dir(objects).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    files.filter(|file| fs::read(file).unwrap() == bytes).collect()
}

/// What happens to the file of an object.
type Damage = fn(&Path);

const DAMAGES: [Damage; 2] = [
    |file| fs::remove_file(file).unwrap(),
    |file| fs::OpenOptions::new().write(true).open(file).unwrap().set_len(100).unwrap(),
];

/// Damages the only file with these bytes.
fn damage(server: &Server, bytes: &[u8], how: Damage) {
    let files = files_with(server, bytes);
    assert_eq!(files.len(), 1);
    how(&files[0]);
}

/// Both protocols say that the bytes are lost, and neither says that they are there.
async fn lost_in_both(who: &Caller, repository: &str, bytes: &[u8]) {
    let by_hash = format!("{repository}:{}", hash(bytes));
    assert!(who.pull(&by_hash).await.error(500).contains("lost or damaged"));
    let blob = blob_at(repository, &digest(bytes));
    assert!(refused(&who.get(&blob).await, 404, "BLOB_UNKNOWN").contains("lost or damaged"));
    is(&head(who, &blob).await, 404);
    // A push is to send them again.
    let found = who.get(&format!("/v1/images/{by_hash}")).await.ok();
    assert_eq!(found["data"]["uploaded"], json!(false));
}

#[tokio::test]
async fn attack_05_lost_bytes_are_noticed_and_the_next_push_through_the_library_brings_them_back_for_everybody() {
    if only_on_our_stores("it damages files of the embedded bucket") {
        return;
    }
    for how in DAMAGES {
        let (server, alice) = start().await;
        let bob = server.user("bob", 0).await;
        let bytes = sif(3);
        alice.push(BB, "v1", "amd64", &bytes).await.ok();
        bob.push("bob/own/bb", "v1", "amd64", &bytes).await.ok();
        server.sweep_all().await;
        damage(&server, &bytes, how);
        lost_in_both(&alice, BB, &bytes).await;
        lost_in_both(&bob, "bob/own/bb", &bytes).await;
        let before = server.quota("bob").await;
        // Neither a known hash nor a mount makes something that can't be pulled.
        let container = bob.container("bob/own/other").await;
        assert_eq!(bob.image(&container, &bytes).await["uploaded"], json!(false));
        let mount = format!("/v2/bob/own/mounted/blobs/uploads/?mount={}&from=bob/own/bb", digest(&bytes));
        is(&bob.post(&mount, Value::Null).await, 202);
        bob.push("bob/own/bb", "v1", "amd64", &bytes).await.ok();
        for (who, repository) in [(&alice, BB), (&bob, "bob/own/bb")] {
            assert_eq!(who.pull(&format!("{repository}:v1")).await.bytes, bytes);
            assert_eq!(fetch(who, repository, &digest(&bytes)).await.bytes, bytes);
        }
        assert_eq!(server.quota("bob").await, before);
        server.sweep_all().await;
        server.sweep_all().await;
        assert_eq!(files_with(&server, &bytes).len(), 1);
        assert_eq!(alice.pull(&format!("{BB}:v1")).await.bytes, bytes);
    }
}

#[tokio::test]
async fn attack_05_lost_bytes_come_back_with_the_next_push_through_the_registry() {
    if only_on_our_stores("it damages files of the embedded bucket") {
        return;
    }
    for how in DAMAGES {
        let (server, alice) = start().await;
        let bob = server.user("bob", 0).await;
        let bytes = sif(4);
        alice.push(BB, "v1", "amd64", &bytes).await.ok();
        push_sif(&bob, "bob/own/bb", "v1", &bytes).await;
        damage(&server, &bytes, how);
        lost_in_both(&alice, BB, &bytes).await;
        push_sif(&bob, "bob/own/bb", "v1", &bytes).await;
        for (who, repository) in [(&alice, BB), (&bob, "bob/own/bb")] {
            assert_eq!(fetch(who, repository, &digest(&bytes)).await.bytes, bytes);
            assert_eq!(who.pull(&format!("{repository}:v1")).await.bytes, bytes);
        }
        server.sweep_all().await;
    }
}

#[tokio::test]
async fn attack_05_lost_bytes_come_back_with_a_push_in_parts_whether_it_is_verified_at_once_or_later() {
    if only_on_our_stores("it damages files of the embedded bucket") {
        return;
    }
    for verified_at in ["1000000", "0"] {
        let server = Server::start_with(&[("STACKROOM_VERIFY_AT_ONCE", verified_at)]).await;
        let alice = server.user("alice", 0).await;
        let bytes = sif(5);
        alice.push(BB, "v1", "amd64", &bytes).await.ok();
        damage(&server, &bytes, DAMAGES[0]);
        let parts = opened_parts(&alice, BB, &bytes).await;
        let etags = parts.send_all(&alice, &bytes).await;
        parts.complete_all(&alice, &etags).await.ok();
        shared::service::uploads::verify::pending(&server.local.app).await.unwrap();
        assert_eq!(alice.pull(&format!("{BB}:v1")).await.bytes, bytes);
        server.sweep_all().await;
    }
}

/// Scrubs everything, a few bytes at a time; returns all that was found.
async fn scrubbed(server: &Server) -> Value {
    let mut all = json!({ "objects": 0, "lost": [], "damaged": [] });
    let mut next = Value::Null;
    for _ in 0..10_000 {
        let part =
            server.admin.post("/api/scrub", json!({ "after": next, "bytes": 10_000 })).await.ok()["data"].clone();
        assert!(part["bytes"].as_u64().unwrap() <= 10_000 + 1_000, "{part}");
        all["objects"] = json!(all["objects"].as_u64().unwrap() + part["objects"].as_u64().unwrap());
        for kind in ["lost", "damaged"] {
            let found = part[kind].as_array().unwrap().clone();
            all[kind].as_array_mut().unwrap().extend(found);
        }
        next = part["next"].clone();
        if next.is_null() {
            return all;
        }
    }
    panic!("the scrub does not end");
}

/// A manifest that is too long for a row.
fn long_manifest(bytes: &[u8]) -> String {
    let mut long = of_sif(bytes);
    long["annotations"] = json!({ "long": "x".repeat(400_000) });
    long.to_string()
}

#[tokio::test]
async fn attack_05_a_scrub_finds_lost_and_damaged_bytes_and_a_push_brings_them_back() {
    if only_on_our_stores("it damages files of the embedded bucket") {
        return;
    }
    let (server, alice) = start().await;
    let all: Vec<Vec<u8>> = (0..4).map(sif).collect();
    for (tag, bytes) in ["a", "b", "c", "d"].iter().zip(&all) {
        alice.push(BB, tag, "amd64", bytes).await.ok();
    }
    blob(&alice, BB, b"{}").await;
    let long = long_manifest(&all[3]);
    is(&put(&alice, BB, "long", MANIFEST, &long).await, 201);
    server.sweep_all().await;
    let found = scrubbed(&server).await;
    assert_eq!((&found["lost"], &found["damaged"]), (&json!([]), &json!([])));
    assert_eq!(found["objects"], json!(6));
    damage(&server, &all[0], DAMAGES[0]);
    damage(&server, &all[1], DAMAGES[1]);
    let flip: Damage = |file| {
        let mut bytes = fs::read(file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(file, bytes).unwrap();
    };
    damage(&server, &all[2], flip);
    damage(&server, long.as_bytes(), flip);
    for caller in [&server.nobody, &alice] {
        assert!(matches!(caller.post("/api/scrub", json!({})).await.status.as_u16(), 401 | 403));
    }
    server.admin.post("/api/scrub", json!({ "after": { "partly": 1 } })).await.error(400);
    let found = scrubbed(&server).await;
    let digests = |kind: &str| {
        let all = found[kind].as_array().unwrap().iter().map(|one| one["digest"].as_str().unwrap().to_owned());
        all.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(digests("lost"), [&all[0], &all[1]].map(|bytes| digest(bytes)).into());
    assert_eq!(digests("damaged"), [digest(&all[2]), digest(long.as_bytes())].into());
    // What was damaged is lost now, and nobody gets wrong bytes.
    for bytes in &all[..3] {
        lost_in_both(&alice, BB, bytes).await;
    }
    assert!(refused(&alice.get(&manifest_at(BB, "long")).await, 404, "MANIFEST_UNKNOWN").contains("lost or damaged"));
    for (tag, bytes) in ["a", "b", "c"].iter().zip(&all) {
        alice.push(BB, tag, "amd64", bytes).await.ok();
        assert_eq!(alice.pull(&format!("{BB}:{tag}")).await.bytes, *bytes);
    }
    is(&put(&alice, BB, "long", MANIFEST, &long).await, 201);
    assert_eq!(manifest(&alice, BB, "long").await, long);
    let found = scrubbed(&server).await;
    assert_eq!((&found["lost"], &found["damaged"]), (&json!([]), &json!([])));
    // What was set aside goes with the leftovers.
    server.sweep_all().await;
    server.sweep_all().await;
    assert!(!server.objects().await.iter().any(|object| object.starts_with("damaged/")));
}

#[tokio::test]
async fn attack_06_a_token_without_pull_makes_no_private_bytes_public() {
    let (server, alice) = start().await;
    let bytes = sif(7);
    alice.push("alice/secret/bb", "v1", "amd64", &bytes).await.ok();
    set(&alice, "/v1/containers/alice/secret/bb", json!({ "visibility": "private" })).await.ok();
    let pushes = server.token("alice", json!({ "name": "ci", "scope": "push@alice" })).await;
    let container = pushes.container("alice/open/new").await;
    assert_eq!(pushes.image(&container, &bytes).await["uploaded"], json!(false));
    // A token that may pull there already has the bytes.
    let pulls = server.token("alice", json!({ "name": "ci", "scope": "pull,push@alice" })).await;
    assert_eq!(pulls.image(&container, &bytes).await["uploaded"], json!(true));
}

#[tokio::test]
async fn attack_06_a_registry_token_for_one_repository_and_the_catalog_reaches_no_other() {
    let (_server, alice) = start().await;
    let bytes = sif(7);
    alice.push("alice/secret/bb", "v1", "amd64", &bytes).await.ok();
    set(&alice, "/v1/containers/alice/secret/bb", json!({ "visibility": "private" })).await.ok();
    let container = alice.container("alice/one/repo").await;
    let scopes = ["repository:alice/one/repo:pull,push", "registry:catalog:*"];
    let narrow = narrowed(&alice, "alice", &scopes).await;
    assert_eq!(narrow.image(&container, &bytes).await["uploaded"], json!(false));
    is(&narrow.get(&blob_at("alice/one/repo", &digest(&bytes))).await, 404);
}

/// What an answer that is no page tells a browser.
const NO_PAGE: &str = "default-src 'none'; sandbox; frame-ancestors 'none'";

#[track_caller]
fn harmless(answer: &Answer, place: &str) {
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{place}");
    let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{place} has no policy"));
    if answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")) {
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{place}");
    } else {
        assert_eq!(policy, NO_PAGE, "{place}");
    }
}

#[tokio::test]
async fn attack_08_every_answer_tells_browsers_what_it_is() {
    let (server, alice) = start().await;
    let bytes = sif(1);
    let document = pushed(&alice, "v1", &bytes).await;
    let described: Value = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
    let mut walked = 0;
    for (path, methods) in described["paths"].as_object().unwrap() {
        let filled = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        let filled = filled.collect::<Vec<_>>().join("/");
        let methods = methods.as_object().unwrap().keys().map(|method| method.to_ascii_uppercase());
        // And one that the route does not have.
        for method in methods.chain(["TRACE".to_owned()]) {
            for who in [&server.nobody, &alice] {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                harmless(&send(who.request(method.clone(), &filled)).await, &format!("{method} {filled}"));
                walked += 1;
            }
        }
    }
    assert!(walked > 100, "{walked}");
    let url = alice.get(&format!("/v1/imagefile/{BB}:v1")).await.header("location").unwrap().to_owned();
    let (blob, forged) = (blob_at(BB, &digest(&bytes)), url.replace("X-Amz-Signature=", "X-Amz-Signature=0"));
    let document = manifest_at(BB, &digest(document.as_bytes()));
    let mut paths = vec![blob.as_str(), &document, "/auth/tokens"];
    if !only_on_one_server("another bucket answers for itself")
        && !only_in_one_process("the gateway answers where there is no route, and the bucket for its own host")
    {
        paths.extend(["/nowhere", "/objects/x", &url, &forged]);
    }
    for path in paths {
        harmless(&send(alice.bare(Method::GET, path)).await, path);
        harmless(&alice.get(path).await, path);
    }
    assert_eq!(send(alice.bare(Method::GET, &url)).await.bytes, bytes);
}

#[tokio::test]
async fn attack_08_a_manifest_is_an_application_and_no_page() {
    let (_server, alice) = start().await;
    let page = r#"{"a":"<html><script>alert(1)</script></html>"}"#;
    for kind in ["text/html", "TEXT/HTML", "image/svg+xml", "text/xml", "text/plain", "multipart/x", "application"] {
        refused(&put(&alice, BB, "page", kind, page).await, 400, "MANIFEST_INVALID");
    }
    is(&put(&alice, BB, "page", "application/vnd.example.anything+json", page).await, 201);
}

#[tokio::test]
async fn attack_10_a_token_that_ends_makes_none_that_outlives_it() {
    let (server, alice) = start().await;
    let made = async |body: Value| {
        let answer = server.admin.post("/api/users/alice/tokens", body).await.ok();
        alice.with(answer["data"]["token"].as_str().unwrap())
    };
    let short = made(json!({ "name": "short", "expires_in": 600 })).await;
    let tokens = "/api/users/alice/tokens";
    short.post(tokens, json!({ "name": "for ever" })).await.error(403);
    let said = short.post(tokens, json!({ "name": "longer", "expires_in": 3600 })).await.error(403);
    assert!(said.contains("seconds"), "{said}");
    short.post(tokens, json!({ "name": "shorter", "expires_in": 60 })).await.ok();
    // A password would never end.
    short.put("/api/users/alice/password", json!({ "password": "a long one, for ever" })).await.error(403);
    alice.put("/api/users/alice/password", json!({ "password": "a long one, for ever" })).await.ok();
    // Nor does a site admin whom a token with an end, or with fewer rights, adds.
    for body in [json!({ "name": "t", "expires_in": 600 }), json!({ "name": "t", "scope": "admin" })] {
        let answer = server.admin.post("/api/users/admin/tokens", body).await.ok();
        let narrow = server.admin.with(answer["data"]["token"].as_str().unwrap());
        let eve = json!({ "name": "eve", "admin": true, "password": "a long one, for ever" });
        narrow.post("/api/users", eve).await.error(403);
    }
}

/// Every file and folder below one, with its rights.
fn rights(folder: &Path) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // What a link leads to. A file beside a database goes when the last connection is closed.
        let Ok(known) = fs::metadata(&path) else { continue };
        all.push((path.display().to_string(), known.permissions().mode() & 0o777));
        if known.is_dir() {
            all.extend(rights(&path));
        }
    }
    all
}

#[tokio::test]
async fn attack_11_what_the_server_makes_is_readable_by_it_alone() {
    let folder = tempfile::TempDir::new().unwrap();
    let (data, elsewhere) = (folder.path().join("data"), folder.path().join("elsewhere"));
    for made in [&data, &elsewhere] {
        fs::create_dir(made).unwrap();
        fs::set_permissions(made, Permissions::from_mode(0o755)).unwrap();
    }
    // The objects may lie on another file system.
    std::os::unix::fs::symlink(&elsewhere, data.join("objects")).unwrap();
    // An earlier version left these readable.
    fs::write(data.join("lock"), "").unwrap();
    let open = async || {
        let config = Config::read("http://127.0.0.1:1", |_| None).unwrap();
        let local = Local::open(&data, config).await.unwrap();
        local.first_admin().await.unwrap();
        local
    };
    let check = |when: &str| {
        for (path, mode) in rights(&data) {
            assert_eq!(mode & 0o077, 0, "{when}: {path} has {mode:o}");
        }
    };
    let local = open().await;
    let grant = shared::service::access::system(shared::rules::Action::Sweep, &shared::rules::Resource::Installation);
    local.app.objects.put(&grant.unwrap(), "aa/bb", b"bytes".to_vec().into()).await.unwrap();
    check("after the first start");
    drop(local);
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        let made_readable = fs::set_permissions(&path, Permissions::from_mode(mode));
        // The databases may still be closing, and a file beside one goes then.
        assert!(made_readable.is_ok() || !path.exists(), "{made_readable:?}");
    }
    drop(open().await);
    check("after a start on files that were readable");
    // Others could put a file in the place of ours.
    fs::set_permissions(&data, Permissions::from_mode(0o777)).unwrap();
    let config = Config::read("http://127.0.0.1:1", |_| None).unwrap();
    let why = Local::open(&data, config).await.unwrap_err().to_string();
    assert!(why.contains("chmod go-w"), "{why}");
}

/// Sends the head of a request that announces a long body, and some of that; returns the beginning of the answer, if one
/// comes within the time.
async fn stalled(token: Option<&str>, stream: &mut tokio::net::TcpStream) -> Option<String> {
    let login = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!("POST /v1/images HTTP/1.1\r\nhost: x\r\n{login}content-length: 2000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // It may be refused while we send.
    let _ = stream.write_all(&vec![b'x'; 100_000]).await;
    let mut start = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(2), stream.read_exact(&mut start)).await.ok()?;
    read.ok()?;
    Some(String::from_utf8_lossy(&start).into_owned())
}

#[tokio::test]
async fn attack_09_a_long_body_is_read_only_for_somebody_with_a_token_and_a_few_at_a_time() {
    if only_on_one_server("each server has its own turns for long bodies") {
        return;
    }
    if only_in_one_process("the gateway reads a body before a function sees its head") {
        return;
    }
    let (server, alice) = start().await;
    let bob = server.user("bob", 0).await;
    let port: u16 = server.url.rsplit(':').next().unwrap().parse().unwrap();
    let connect = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // A stranger is refused before the body is there.
    let answer = stalled(None, &mut connect().await).await;
    assert_eq!(answer.as_deref(), Some("HTTP/1.1 401"));
    let answer = stalled(Some("nonsense"), &mut connect().await).await;
    assert_eq!(answer.as_deref(), Some("HTTP/1.1 401"));
    // A user has four; more wait, and hold up nobody else.
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = connect().await;
        assert_eq!(stalled(alice.token.as_deref(), &mut stream).await, None);
        held.push(stream);
    }
    let long = json!({ "name": "x".repeat(100_000) });
    let waiting = alice.post("/v1/collections", long.clone());
    assert!(tokio::time::timeout(Duration::from_millis(500), waiting).await.is_err());
    bob.post("/v1/collections", long.clone()).await.error(400);
    alice.post("/v1/collections", json!({ "name": "short" })).await.error(400);
    drop(held);
    alice.post("/v1/collections", long).await.error(400);
}

#[tokio::test]
async fn attack_09_passwords_of_some_addresses_do_not_refuse_the_right_one_of_another() {
    let server = Server::start_with(&[("STACKROOM_PROXIES", "192.0.2.9")]).await;
    server.admin.post("/api/users", json!({ "name": "bob", "password": "the right one" })).await.ok();
    let port: u16 = server.url.rsplit(':').next().unwrap().parse().unwrap();
    let local =
        |last: u8| reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, last])).build().unwrap();
    let url = format!("http://127.0.0.1:{port}/token");
    let crowd: Vec<_> = (0..80)
        .map(|number| {
            let (client, url) = (local(2 + number % 4), url.clone());
            tokio::spawn(async move {
                let name = format!("nobody{number}");
                client.get(&url).basic_auth(name, Some("wrong")).send().await.unwrap().status().as_u16()
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let bob = local(99);
    for _ in 0..3 {
        let answer = bob.get(&url).basic_auth("bob", Some("the right one")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
    }
    for one in crowd {
        assert!(matches!(one.await.unwrap(), 401 | 429));
    }
}

#[tokio::test]
async fn attack_09_the_connections_of_one_address_are_bounded() {
    if only_in_one_process("connections are the gateway's") {
        return;
    }
    let settings = [("STACKROOM_CONNECTIONS", "20"), ("STACKROOM_PROXIES", "")];
    let server = Server::start_with(&settings).await;
    let port: u16 = server.url.rsplit(':').next().unwrap().parse().unwrap();
    // Half a head on each.
    let mut halves = Vec::new();
    for _ in 0..40 {
        let mut half = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        half.write_all(b"GET /version HT").await.unwrap();
        halves.push(half);
    }
    // Those beyond the limit are closed, and the others wait.
    let mut closed = 0;
    for half in &mut halves {
        let read = tokio::time::timeout(Duration::from_millis(200), half.read(&mut [0; 8])).await;
        closed += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert!(closed >= 20, "{closed}");
    // Somebody at another address is answered.
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap();
    other.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // And so are they, once the connections are gone.
    drop(halves);
    let gone = async {
        while server.nobody.bare(Method::GET, "/version").send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}

/// A day before the system's time.
fn yesterday() -> Duration {
    shared::app::system_clock().checked_sub(Duration::from_hours(24)).unwrap()
}

#[tokio::test]
async fn attack_12_a_clock_that_is_set_back_keeps_nobody_from_deleting() {
    let (server, alice) = start().await;
    let orphan = blob(&alice, BB, b"nothing names it").await;
    let document = push(&alice, BB, "v1", b"config", &[b"layer"]).await;
    let back = installation(&server, None, yesterday, |_| {});
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::from(server::site::Site::shared(&back).unwrap());
    tokio::spawn(server::serve::answer(listener, router, Limits::of(&back.config), std::future::pending()));
    let then = Caller::new(&url, alice.token.clone());
    is(&then.delete(&blob_at(BB, &orphan)).await, 202);
    is(&then.delete(&manifest_at(BB, &digest(document.as_bytes()))).await, 202);
    // Its blobs go with it, and what they cost.
    is(&alice.get(&blob_at(BB, &digest(b"layer"))).await, 404);
    assert_eq!(server.quota("alice").await, (0, 0));
}

#[tokio::test]
async fn attack_12_a_token_for_one_place_does_not_tell_where_an_id_leads() {
    let (server, alice) = start().await;
    server.user("eve", 0).await;
    alice.push("alice/secret/bb", "v1", "amd64", &sif(1)).await.ok();
    let container = alice.container("alice/secret/bb").await;
    let image = alice.image(&container, &sif(1)).await["id"].as_str().unwrap().to_owned();
    set(&alice, "/v1/containers/alice/secret/bb", json!({ "visibility": "private" })).await.ok();
    let nowhere = "0123456789abcdef01234567";
    for scope in ["push@alice", "pull,push,delete@alice", "push@alice/secret/bb", "push@eve", "push@nobody", "push"] {
        let eve = server.token("eve", json!({ "name": "t", "scope": scope })).await;
        let mut answers = Vec::new();
        for (container, image) in [(container.as_str(), image.as_str()), (nowhere, nowhere)] {
            let tag = json!({ "Tag": "v1", "Arch": "amd64", "ImageID": image });
            let requests = [
                ("/v1/images".to_owned(), json!({ "hash": hash(&sif(2)), "container": container })),
                (format!("/v2/tags/{container}"), tag),
                (format!("/v2/imagefile/{image}"), json!({ "filesize": 100 })),
            ];
            let mut said = Vec::new();
            for (path, body) in requests {
                let answer = eve.post(&path, body).await;
                said.push((answer.status, answer.bytes));
            }
            answers.push(said);
        }
        assert_eq!(answers[0], answers[1], "{scope}");
    }
}

#[tokio::test]
async fn attack_13_what_is_to_be_private_or_read_only_is_made_so() {
    let (server, alice) = start().await;
    let id = |answer: Value| answer["data"]["id"].as_str().unwrap().to_owned();
    let entity = id(alice.post("/v1/entities", json!({ "name": "alice" })).await.ok());
    let body = json!({ "name": "hidden", "entity": entity, "private": true });
    let made = alice.post("/v1/collections", body.clone()).await.ok();
    assert_eq!(made["data"]["private"], json!(true));
    alice.post("/v1/collections", body).await.ok();
    let hidden = id(made);
    let made = alice.post("/v1/containers", json!({ "name": "bb", "collection": hidden })).await.ok();
    assert_eq!(made["data"]["private"], json!(true));
    let open = id(alice.post("/v1/collections", json!({ "name": "open", "entity": entity })).await.ok());
    let body = json!({ "name": "bb", "collection": open, "private": true, "readOnly": true });
    let made = alice.post("/v1/containers", body.clone()).await.ok();
    assert_eq!((&made["data"]["private"], &made["data"]["readOnly"]), (&json!(true), &json!(true)));
    alice.post("/v1/containers", body).await.ok();
    server.nobody.get("/v1/containers/alice/open/bb").await.error(404);
    // What exists and is more open is not returned as if it were private.
    alice.post("/v1/containers", json!({ "name": "cc", "collection": open })).await.ok();
    let body = json!({ "name": "cc", "collection": open, "private": true });
    assert!(alice.post("/v1/containers", body).await.error(409).contains("private"));
    let body = json!({ "name": "open", "entity": entity, "private": true });
    alice.post("/v1/collections", body).await.error(409);
}

#[tokio::test]
async fn attack_13_a_key_that_narrows_access_or_life_is_honoured_or_refused_by_name() {
    let (_server, alice) = start().await;
    let container = alice.container(BB).await;
    let image = alice.image(&container, &sif(1)).await["id"].as_str().unwrap().to_owned();
    let entity = alice.post("/v1/entities", json!({ "name": "alice" })).await.ok()["data"]["id"].clone();
    let collection =
        alice.post("/v1/collections", json!({ "name": "c", "entity": entity })).await.ok()["data"]["id"].clone();
    let routes = [
        (Method::POST, "/v1/entities".to_owned(), json!({ "name": "alice" })),
        (Method::POST, "/v1/collections".to_owned(), json!({ "name": "d", "entity": entity })),
        (Method::POST, "/v1/containers".to_owned(), json!({ "name": "d", "collection": collection })),
        (Method::POST, "/v1/images".to_owned(), json!({ "hash": hash(&sif(2)), "container": container })),
        (Method::POST, format!("/v1/tags/{container}"), json!({ "Tag": "v1", "ImageID": image })),
        (Method::POST, format!("/v2/tags/{container}"), json!({ "Tag": "v1", "Arch": "amd64", "ImageID": image })),
        (Method::POST, format!("/v2/imagefile/{image}"), json!({ "filesize": 100 })),
        (Method::POST, format!("/v2/imagefile/{image}/_multipart"), json!({ "filesize": 100 })),
        (Method::POST, "/api/users/alice/tokens".to_owned(), json!({ "name": "t" })),
        (Method::PATCH, "/v1/containers/alice/tools/bb".to_owned(), json!({ "description": "x" })),
    ];
    for (method, path, body) in routes {
        for (key, value) in [("expiresAt", json!("2026-12-05T14:50:25Z")), ("frozen", json!(true))] {
            let mut body = body.clone();
            body[key] = value.clone();
            let answer = send(alice.request(method.clone(), &path).body(body.to_string())).await;
            let said = answer.error(400);
            assert!(said.contains(key), "{method} {path}: {said}");
            let query = format!("{path}?{key}={}", value.to_string().trim_matches('"'));
            let said = send(alice.request(method.clone(), &query).body(body.to_string())).await.error(400);
            assert!(said.contains(key), "{said}");
        }
        // What clients send when they mean nothing.
        let mut nothing = body.clone();
        nothing["expiresAt"] = json!("0001-01-01T00:00:00Z");
        let answer = send(alice.request(method.clone(), &path).body(nothing.to_string())).await;
        let said = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert!(!said.contains("is not known here"), "{method} {path}: {said}");
    }
    // What Hinkskalle's command sends with a push.
    let uploads = format!("/v2/{BB}/blobs/uploads/");
    for (query, status, code) in [
        ("expiresAt=2026-12-05T14:50:25.87", 400, "UNSUPPORTED"),
        ("staged=1", 400, "UNSUPPORTED"),
        ("private=perhaps", 400, "UNSUPPORTED"),
        // It exists, and is public.
        ("private=True", 403, "DENIED"),
    ] {
        let said = refused(&alice.post(&format!("{uploads}?{query}"), Value::Null).await, status, code);
        assert!(said.contains(query.split('=').next().unwrap()), "{said}");
    }
    is(&alice.post("/v2/alice/tools/new/blobs/uploads/?private=True", Value::Null).await, 202);
    assert_eq!(alice.get("/v1/containers/alice/tools/new").await.ok()["data"]["private"], json!(true));
    is(&alice.post(&format!("{uploads}?private=False"), Value::Null).await, 202);
    let body = push(&alice, BB, "v1", b"config", &[b"layer"]).await;
    refused(&put(&alice, BB, "v2?private=true", MANIFEST, &body).await, 400, "UNSUPPORTED");
    blob(&alice, BB, b"another").await;
}
