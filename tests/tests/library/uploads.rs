//! Uploads that fail, and that they leave nothing behind.

use crate::support::{
    Push, Standing, begin, complete, hash, invisible, join, len, opened, opened_old, opened_parts, private_collection,
    put_part, sif, sif_of, sweep_up, tag, text,
};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::{Digest, Role};
use shared::service::sweep::{Ages, sweep};
use stackroom_tests::functions::only_on_our_stores;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, Server, send};
use std::time::Duration;

const BB: &str = "alice/tools/bb";

async fn start() -> (Server, Caller, Standing) {
    let server = Server::start().await;
    let alice = server.user("alice", 10 << 20).await;
    let before = Standing::of(&server, "alice").await;
    (server, alice, before)
}

/// Bytes that are not an image.
fn junk(len: usize) -> Vec<u8> {
    vec![b'x'; len]
}

#[tokio::test]
async fn the_store_refuses_wrong_bytes_and_still_takes_the_right_ones() {
    if only_on_our_stores("its URLs take one digest only") {
        return;
    }
    let (server, alice, before) = start().await;
    let (right, wrong) = (sif(1), sif(2));
    let (push, url) = opened(&alice, BB, &right).await;
    // The client sends the announced hash, or the hash of what it sends.
    assert_eq!(alice.upload(&url, &wrong).await.status, 403);
    let lying = alice.bare(Method::PUT, &url).header("x-amz-content-sha256", Digest::of(&right).hex());
    assert_eq!(send(lying.body(wrong.clone())).await.status, 400);
    let silent = alice.bare(Method::PUT, &url);
    assert_eq!(send(silent.body(right.clone())).await.status, 403);
    complete(&alice, &push).await.error(400);
    invisible(&server, &alice, BB, &right).await;
    assert_eq!(server.objects().await, Vec::<String>::new());
    assert_eq!(alice.upload(&url, &right).await.status, 200);
    complete(&alice, &push).await.ok();
    assert_eq!(server.nobody.pull(&format!("{BB}:{}", hash(&right))).await.bytes, right);
    alice.delete(&format!("/v1/images/{BB}:{}", hash(&right))).await.ok();
    before.is_back(&server, &alice, BB, &right).await;
}

#[tokio::test]
async fn the_store_refuses_bytes_of_another_length_than_announced() {
    let (server, alice, before) = start().await;
    let bytes = sif(1);
    for length in [bytes.len() - 1, bytes.len() + 1] {
        let push = begin(&alice, BB, &bytes).await;
        let body = json!({ "filesize": length, "md5sum": "", "sha256sum": Digest::of(&bytes).hex() });
        let url = text(&alice.post(&format!("/v2/imagefile/{}", push.image), body).await.ok(), "/data/uploadURL");
        assert_eq!(alice.upload(&url, &bytes).await.status, 403, "{length}");
        complete(&alice, &push).await.error(400);
    }
    let (push, url) = opened_old(&alice, BB, &bytes).await;
    assert_eq!(alice.upload(&url, &bytes[1..]).await.status, 403);
    complete(&alice, &push).await.error(400);
    assert_eq!(server.objects().await, Vec::<String>::new());
    before.is_back(&server, &alice, BB, &bytes).await;
}

#[tokio::test]
async fn what_is_announced_must_be_possible() {
    let (server, alice, before) = start().await;
    let bytes = sif(1);
    let push = begin(&alice, BB, &bytes).await;
    let (single, parts) = (format!("/v2/imagefile/{}", push.image), format!("/v2/imagefile/{}/_multipart", push.image));
    let (hex, other) = (Digest::of(&bytes).hex(), Digest::of(b"other").hex());
    for (path, body) in [
        (&single, json!({ "filesize": 0, "sha256sum": hex })),
        (&single, json!({ "filesize": -1, "sha256sum": hex })),
        (&single, json!({ "filesize": 1.5, "sha256sum": hex })),
        (&single, json!({ "filesize": "1", "sha256sum": hex })),
        (&single, json!({ "sha256sum": hex })),
        (&single, json!({ "filesize": bytes.len(), "sha256sum": other })),
        (&single, json!({ "filesize": bytes.len(), "sha256sum": "abc" })),
        (&single, json!({ "filesize": (5_u64 << 30) + 1, "sha256sum": hex })),
        (&parts, json!({ "filesize": 0 })),
        (&parts, json!({ "filesize": -1 })),
        (&parts, json!({ "filesize": u64::MAX })),
        (&parts, json!({})),
    ] {
        alice.post(path, body).await.error(400);
    }
    assert_eq!(server.quota("alice").await, (0, 0));
    complete(&alice, &push).await.error(409);
    for hash in ["", "abc", "sha256.abc", &hash(b"x").to_uppercase(), &hash(b"x").replace('.', ":")] {
        alice.post("/v1/images", json!({ "hash": hash, "container": push.container })).await.error(400);
    }
    before.is_back(&server, &alice, BB, &bytes).await;
}

#[tokio::test]
async fn a_url_ends_with_its_upload_and_the_reservation_with_it() {
    if only_on_our_stores("its URLs take one digest only") {
        return;
    }
    // Long enough for the first requests on a busy machine.
    let server = Server::start_with(&[("STACKROOM_UPLOAD_LIFE", "5")]).await;
    let alice = server.user("alice", 0).await;
    let before = Standing::of(&server, "alice").await;
    let (bytes, wrong) = (sif(1), sif(2));
    let (push, url) = opened(&alice, BB, &bytes).await;
    let parts = opened_parts(&alice, "alice/tools/parts", &bytes).await;
    let part = text(&parts.ask(&alice, 1, &bytes).await.ok(), "/data/presignedURL");
    // While the URL is valid, the store reads the wrong bytes and refuses them with another status.
    let lying = |url: &str| alice.bare(Method::PUT, url).header("x-amz-content-sha256", Digest::of(&bytes).hex());
    for url in [&url, &part] {
        while send(lying(url).body(wrong.clone())).await.status != 403 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(send(lying(url).body(bytes.clone())).await.status, 403);
    }
    complete(&alice, &push).await.error(400);
    parts.ask(&alice, 1, &bytes).await.error(409);
    assert_eq!(server.quota("alice").await, (0, 2 * len(&bytes) - len(&bytes)), "one reservation for one digest");
    // An ordinary sweep, beside whatever else runs.
    let swept = server.admin.post("/api/sweep", json!({})).await.ok();
    assert_eq!(swept["data"]["sessions"], json!(2));
    assert_eq!(server.quota("alice").await, (0, 0));
    complete(&alice, &push).await.error(409);
    parts.complete(&alice, &[(1, "\"00\"")]).await.error(409);
    parts.abort(&alice).await.ok();
    before.is_back(&server, &alice, BB, &bytes).await;
    before.is_back(&server, &alice, "alice/tools/parts", &bytes).await;
}

#[tokio::test]
async fn a_url_opens_nothing_but_what_it_was_made_for() {
    if only_on_our_stores("its URLs take one digest only") {
        return;
    }
    let (server, alice, before) = start().await;
    let bytes = sif(1);
    alice.push("alice/tools/victim", "latest", "amd64", &sif(9)).await.ok();
    let victim = server.objects().await.remove(0);
    let (push, url) = opened(&alice, BB, &bytes).await;
    let (path, query) = url.split_once('?').unwrap();
    let base = path.split_once("/objects/").unwrap().0;
    let lives = query.split('&').find(|pair| pair.starts_with("X-Amz-Expires")).unwrap();
    let signature = query.split('&').find(|pair| pair.starts_with("X-Amz-Signature")).unwrap();
    let headers = query.split('&').find(|pair| pair.starts_with("X-Amz-SignedHeaders")).unwrap();
    for (why, altered) in [
        ("another object", format!("{base}/objects/{victim}?{query}")),
        ("a new object", format!("{path}x?{query}")),
        ("a longer life", url.replace(lives, "X-Amz-Expires=604800")),
        ("another signature", url.replace(signature, &format!("X-Amz-Signature={}", "0".repeat(64)))),
        ("no signature", url.replace(signature, "")),
        ("fewer headers", url.replace(headers, "X-Amz-SignedHeaders=host")),
        ("a part", format!("{url}&partNumber=1&uploadId=x")),
        ("a parameter twice", format!("{url}&{lives}")),
        ("nothing signed", path.to_owned()),
    ] {
        let answer = alice.upload(&altered, &bytes).await;
        let request = alice.bare(Method::PUT, &altered).header("x-amz-content-sha256", Digest::of(&bytes).hex());
        let with_hash = send(request.body(bytes.clone())).await;
        assert!(answer.status.is_client_error() && with_hash.status.is_client_error(), "{why}");
    }
    for method in [Method::GET, Method::DELETE, Method::POST, Method::HEAD] {
        let answer = send(alice.bare(method.clone(), &url).body(Vec::new())).await;
        assert!(answer.status.is_client_error(), "{method}: {}", answer.status);
    }
    let copying = alice.bare(Method::PUT, &url).header("x-amz-content-sha256", Digest::of(&bytes).hex());
    let copying = copying.header("x-amz-copy-source", format!("/objects/{victim}"));
    assert_eq!(send(copying.body(bytes.clone())).await.status, 403);
    // Nor does the token of its owner.
    let answer = send(alice.request(Method::PUT, &format!("/objects/{victim}")).body(bytes.clone())).await;
    assert_eq!(answer.status, 403);
    assert_eq!(server.nobody.pull("alice/tools/victim:latest").await.bytes, sif(9));
    complete(&alice, &push).await.error(400);
    alice.delete("/v1/images/alice/tools/victim:latest").await.ok();
    before.is_back(&server, &alice, BB, &bytes).await;
}

#[tokio::test]
async fn parts_must_be_named_each_once_in_order_and_as_the_store_knows_them() {
    if only_on_our_stores("its URLs take one digest only") {
        return;
    }
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let before = Standing::of(&server, "alice").await;
    let bytes = sif_of(1, (64 << 20) + 100_000);
    let parts = opened_parts(&alice, BB, &bytes).await;
    assert_eq!(parts.count, 2);
    let (head, tail) = bytes.split_at(parts.size);

    // What can't be a part is refused before it is sent.
    for (number, part) in [(0, tail), (3, tail), (1, tail), (2, head), (2, &tail[1..]), (2, b"")] {
        parts.ask(&alice, number, part).await.error(400);
    }
    // And bytes that are not that part are refused when they arrive.
    let url = text(&parts.ask(&alice, 2, tail).await.ok(), "/data/presignedURL");
    assert_eq!(put_part(&alice, &url, &junk(tail.len())).await.status, 403);
    assert_eq!(put_part(&alice, &url, &tail[1..]).await.status, 403);

    // The order of sending does not matter, and a part may be sent twice.
    let second = parts.send(&alice, 2, tail).await;
    parts.complete(&alice, &[(1, &second), (2, &second)]).await.error(400);
    let first = parts.send(&alice, 1, head).await;
    assert_eq!(parts.send(&alice, 2, tail).await, second);
    let strange = format!("\"{}\"", "0".repeat(32));
    for named in [
        &[][..],
        &[(1, &*first)],
        &[(2, &*second)],
        &[(2, &*second), (1, &*first)],
        &[(1, &*first), (1, &*first)],
        &[(1, &*first), (2, &*second), (2, &*second)],
        &[(1, &*first), (2, &*second), (3, &*second)],
        &[(1, &*second), (2, &*first)],
        &[(1, &*first), (2, &*strange)],
        &[(1, &*first), (2, "")],
        &[(1, &*first), (2, "<x>&amp;\u{1}\u{fffe}")],
    ] {
        let said = parts.complete(&alice, named).await.error(400);
        assert!(!said.is_empty(), "{named:?}");
        tag(&alice, &parts.push, "latest").await.error(409);
    }
    invisible(&server, &alice, BB, &bytes).await;
    assert_eq!(server.quota("alice").await, (0, len(&bytes)));
    parts.complete(&alice, &[(1, &first), (2, &second)]).await.ok();
    let pulled = server.nobody.pull(&format!("{BB}:{}", hash(&bytes))).await;
    assert!(pulled.bytes == bytes);
    assert_eq!(server.quota("alice").await, (len(&bytes), 0));
    alice.delete(&format!("/v1/images/{BB}:{}", hash(&bytes))).await.ok();
    before.is_back(&server, &alice, BB, &bytes).await;
}

#[tokio::test]
async fn a_complete_that_is_repeated_says_the_same() {
    if only_on_our_stores("its URLs take one digest only") {
        return;
    }
    let (server, alice, _) = start().await;
    let (one, two) = (sif(1), sif(2));
    let (push, url) = opened(&alice, BB, &one).await;
    alice.upload(&url, &one).await;
    let done = complete(&alice, &push).await.ok();
    let parts = opened_parts(&alice, "alice/tools/cc", &two).await;
    let etags = parts.send_all(&alice, &two).await;
    let parts_done = parts.complete_all(&alice, &etags).await.ok();
    let usage = |done: &Value| done["data"]["quota"]["quotaUsage"].as_u64().unwrap();
    assert_eq!((usage(&done), usage(&parts_done)), (len(&one), len(&one) + len(&two)));
    for _ in 0..3 {
        assert_eq!(complete(&alice, &push).await.ok(), parts_done_as(&parts_done, "alice/tools/bb"));
        assert_eq!(parts.complete_all(&alice, &etags).await.ok(), parts_done);
    }
    // If the URL is used again, it accepts the same bytes or none.
    let again = alice.upload(&url, &one).await;
    assert!(again.status == 200 || again.status.is_client_error());
    assert_eq!(alice.upload(&url, &two).await.status, 403);
    sweep_up(&server).await;
    assert_eq!(server.objects().await.len(), 2);
    assert_eq!(complete(&alice, &push).await.status, 200);
    assert_eq!(server.quota("alice").await, (len(&one) + len(&two), 0));
    assert_eq!(server.nobody.pull(&format!("{BB}:{}", hash(&one))).await.bytes, one);
}

fn parts_done_as(done: &Value, path: &str) -> Value {
    let mut done = done.clone();
    done["data"]["containerUrl"] = json!(format!("library/{path}"));
    done
}

#[tokio::test]
async fn an_upload_that_was_given_up_is_over() {
    let (server, alice, before) = start().await;
    let bytes = sif(1);
    let parts = opened_parts(&alice, BB, &bytes).await;
    let url = text(&parts.ask(&alice, 1, &bytes).await.ok(), "/data/presignedURL");
    let etag = put_part(&alice, &url, &bytes).await.header("etag").unwrap().to_owned();
    for _ in 0..2 {
        assert_eq!(parts.abort(&alice).await.status, 200);
        assert_eq!(server.quota("alice").await, (0, 0));
    }
    assert_eq!(put_part(&alice, &url, &bytes).await.status, 404);
    let said = parts.ask(&alice, 1, &bytes).await.error(409);
    assert!(said.contains("push again"), "{said}");
    parts.complete(&alice, &[(1, &etag)]).await.error(409);
    tag(&alice, &parts.push, "latest").await.error(409);
    before.is_back(&server, &alice, BB, &bytes).await;
}

#[tokio::test]
async fn a_part_that_comes_after_the_end_changes_nothing() {
    let (server, alice, _) = start().await;
    let bytes = sif(1);
    let parts = opened_parts(&alice, BB, &bytes).await;
    let path = format!("/v2/imagefile/{}/_multipart", parts.push.image);
    let body = json!({ "partSize": bytes.len(), "uploadID": parts.id, "partNumber": 1, "sha256sum": "" });
    let url = text(&alice.put(&path, body).await.ok(), "/data/presignedURL");
    let etag = send(alice.bare(Method::PUT, &url).body(bytes.clone())).await.header("etag").unwrap().to_owned();
    parts.complete(&alice, &[(1, &etag)]).await.ok();
    assert_eq!(send(alice.bare(Method::PUT, &url).body(junk(bytes.len()))).await.status, 404);
    assert_eq!(parts.abort(&alice).await.status, 200);
    parts.complete(&alice, &[(1, &etag)]).await.ok();
    sweep_up(&server).await;
    assert_eq!(server.nobody.pull(&format!("{BB}:{}", hash(&bytes))).await.bytes, bytes);
    assert_eq!(server.quota("alice").await, (len(&bytes), 0));
}

#[tokio::test]
async fn an_upload_belongs_to_who_opened_it() {
    let (server, alice, before) = start().await;
    let (bob, carol) = (server.user("bob", 0).await, server.user("carol", 0).await);
    join(&server, "alice", "carol", Role::Contributor).await;
    let bytes = sif(1);
    let parts = opened_parts(&alice, BB, &bytes).await;
    let etag = parts.send(&alice, 1, &bytes).await;
    for (stranger, status) in [(&server.nobody, 401), (&bob, 403), (&carol, 403)] {
        let there = parts.ask(stranger, 1, &bytes).await;
        assert_eq!(there.status, status);
        parts.abort(stranger).await.error(status);
        parts.complete(stranger, &[(1, &etag)]).await.error(status);
    }
    // A stranger can't tell it from an upload that never existed.
    let never = crate::support::Parts { id: "0".repeat(32), ..parts.clone() };
    assert_eq!(never.abort(&bob).await.bytes, parts.abort(&bob).await.bytes);
    assert_eq!(never.ask(&bob, 1, &bytes).await.bytes, parts.ask(&bob, 1, &bytes).await.bytes);
    assert_eq!(never.complete(&bob, &[(1, &etag)]).await.bytes, parts.complete(&bob, &[(1, &etag)]).await.bytes);
    // Nor can it be used for another image.
    let other = begin(&alice, BB, &sif(2)).await;
    let crossed = crate::support::Parts { push: other, ..parts.clone() };
    crossed.ask(&alice, 1, &bytes).await.error(409);
    crossed.complete(&alice, &[(1, &etag)]).await.error(409);
    assert_eq!(server.quota("alice").await, (0, len(&bytes)));
    parts.abort(&alice).await.ok();
    before.is_back(&server, &alice, BB, &bytes).await;
}

#[tokio::test]
async fn an_old_client_that_sends_other_bytes_is_told_and_nothing_is_kept() {
    let (server, alice, before) = start().await;
    let (announced, sent) = (sif(1), sif(2));
    let (push, url) = opened_old(&alice, BB, &announced).await;
    assert_eq!(alice.upload(&url, &sent).await.status, 200);
    let said = complete(&alice, &push).await.error(400);
    assert!(said.contains(&Digest::of(&sent).to_string()), "{said}");
    assert_eq!(server.quota("alice").await, (0, 0), "at once");
    before.is_back(&server, &alice, BB, &announced).await;
    invisible(&server, &alice, BB, &sent).await;

    // After that it can do better, and what is later sent to the same URL does no harm.
    let (push, url) = opened_old(&alice, BB, &announced).await;
    assert_eq!(alice.upload(&url, &announced).await.status, 200);
    complete(&alice, &push).await.ok();
    alice.upload(&url, &sent).await;
    complete(&alice, &push).await.ok();
    sweep_up(&server).await;
    alice.upload(&url, &sent).await;
    assert_eq!(server.nobody.pull(&format!("{BB}:{}", hash(&announced))).await.bytes, announced);
    sweep_up(&server).await;
    assert_eq!(server.objects().await.len(), 1);
}

#[tokio::test]
async fn parts_that_do_not_make_the_announced_whole_are_refused_and_nothing_is_kept() {
    let (server, alice, before) = start().await;
    let (announced, sent) = (sif(1), sif(2));
    let parts = opened_parts(&alice, BB, &announced).await;
    let etag = parts.send(&alice, 1, &sent).await;
    let said = parts.complete(&alice, &[(1, &etag)]).await.error(400);
    assert!(said.contains(&Digest::of(&sent).to_string()), "{said}");
    assert_eq!(server.quota("alice").await, (0, 0), "at once");
    before.is_back(&server, &alice, BB, &announced).await;
}

/// An image with a number in its header replaced.
fn altered(at: usize, number: i64) -> Vec<u8> {
    let mut bytes = SifBuilder::new("amd64").build();
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    bytes
}

#[tokio::test]
async fn what_is_no_image_is_refused_and_nothing_is_kept() {
    let (server, alice, before) = start().await;
    let mut version = sif(1);
    version[42..44].copy_from_slice(b"99");
    // In the header: how many descriptors, where their table begins. In the first descriptor: where its object is.
    let (total, table, object, length) = (88, 96, 4_096 + 17, 4_096 + 25);
    for (why, bytes) in [
        ("one byte", junk(1)),
        ("less than a header", junk(127)),
        ("text", junk(10_000)),
        ("a squashfs", [b"hsqs".to_vec(), junk(40_000)].concat()),
        ("another version", version),
        ("cut off in the header", sif(1)[..128].to_vec()),
        ("cut off in the table", sif(1)[..10_000].to_vec()),
        ("cut off in an object", sif(1)[..33_000].to_vec()),
        ("too many descriptors", altered(total, i64::MAX)),
        ("fewer than none", altered(total, -1)),
        ("a table before the file", altered(table, -1)),
        ("a table behind the file", altered(table, i64::MAX)),
        ("a table in the header", altered(table, 64)),
        ("an object behind the file", altered(object, i64::MAX)),
        ("an object before the file", altered(object, -1)),
        ("an object without end", altered(length, i64::MAX)),
        ("an object of less than nothing", altered(length, -1)),
    ] {
        let (push, url) = opened(&alice, BB, &bytes).await;
        assert_eq!(alice.upload(&url, &bytes).await.status, 200, "{why}");
        let said = complete(&alice, &push).await.error(400);
        assert!(said.contains("SIF") || said.contains("bytes long"), "{why}: {said}");
        assert_eq!(server.quota("alice").await, (0, 0), "{why}");
        tag(&alice, &push, "latest").await.error(409);
        invisible(&server, &alice, BB, &bytes).await;

        let parts = opened_parts(&alice, BB, &bytes).await;
        let etags = parts.send_all(&alice, &bytes).await;
        parts.complete_all(&alice, &etags).await.error(400);
        assert_eq!(server.quota("alice").await, (0, 0), "{why}");
    }
    before.is_back(&server, &alice, BB, &junk(1)).await;
}

#[tokio::test]
async fn an_image_whose_bytes_have_not_arrived_is_seen_by_who_may_bring_them_and_nobody_else() {
    let (server, alice, _) = start().await;
    let (bob, carol, dave) = (server.user("bob", 0).await, server.user("carol", 0).await, server.user("dave", 0).await);
    join(&server, "alice", "carol", Role::Contributor).await;
    join(&server, "alice", "dave", Role::Reader).await;
    let bytes = sif(1);
    let path = format!("/v1/images/{BB}:{}?arch=amd64", hash(&bytes));
    let look = async |push: Option<&Push>| {
        for stranger in [&server.nobody, &bob, &dave] {
            stranger.get(&path).await.error(404);
        }
        for insider in [&alice, &carol] {
            let image = insider.get(&path).await.ok();
            assert_eq!((&image["data"]["uploaded"], &image["data"]["size"]), (&json!(false), &json!(0)));
        }
        for caller in [&server.nobody, &bob, &carol, &alice] {
            caller.get(&path.replace("images", "imagefile")).await.error(404);
            caller.get(&format!("/api/container/{BB}:{}", hash(&bytes)).replace("/alice", "")).await.error(404);
        }
        let container = alice.get(&format!("/v1/containers/{BB}")).await.ok();
        assert_eq!((&container["data"]["images"], &container["data"]["size"]), (&json!([]), &json!(0)));
        let listed = alice.get(&format!("/v1/images?container={BB}")).await.ok();
        assert_eq!(listed["data"], json!([]));
        let found = alice.get("/v1/search?value=alice&arch=amd64").await.ok();
        assert_eq!(found["data"]["image"], json!([]));
        alice.get(&format!("/v1/images/{BB}:latest")).await.error(404);
        if let Some(push) = push {
            tag(&alice, push, "latest").await.error(409);
        }
    };
    let push = begin(&alice, BB, &bytes).await;
    look(Some(&push)).await;
    let (_, url) = opened(&alice, BB, &bytes).await;
    look(Some(&push)).await;
    alice.upload(&url, &bytes).await;
    look(Some(&push)).await;
    opened_parts(&alice, BB, &bytes).await.send(&alice, 1, &bytes).await;
    look(None).await;
}

#[tokio::test]
async fn bytes_that_are_there_are_not_sent_again_but_only_to_who_has_them() {
    let (server, alice, _) = start().await;
    let (bob, carol) = (server.user("bob", 0).await, server.user("carol", 0).await);
    join(&server, "alice", "carol", Role::Reader).await;
    private_collection(&alice, "alice", "secret").await;
    let bytes = sif(1);
    alice.push("alice/secret/bb", "latest", "amd64", &bytes).await.ok();
    let objects = server.objects().await;

    let there = begin(&alice, "alice/tools/copy", &bytes).await;
    assert!(there.uploaded);
    tag(&alice, &there, "latest").await.ok();
    assert_eq!(server.nobody.pull("alice/tools/copy:latest").await.bytes, bytes);
    assert!(begin(&carol, "carol/tools/copy", &bytes).await.uploaded, "she may read them");
    assert_eq!(server.objects().await, objects);

    // A caller who only knows the digest is told nothing, and gets nothing without sending the bytes.
    let known = begin(&bob, "bob/tools/copy", &bytes).await;
    let unknown = begin(&bob, "bob/tools/other", &sif(7)).await;
    assert!(!known.uploaded && !unknown.uploaded);
    let same = async |push: &Push, bytes: &[u8]| {
        let path = if push.image == known.image { "bob/tools/copy" } else { "bob/tools/other" };
        let seen = bob.get(&format!("/v1/images/{path}:{}", hash(bytes))).await;
        let tagged = tag(&bob, push, "latest").await;
        let completed = complete(&bob, push).await;
        let costs = [seen.cost(), tagged.cost(), completed.cost()];
        (seen.status, seen.json["data"]["size"].clone(), tagged.bytes, completed.bytes, costs)
    };
    assert_eq!(same(&known, &bytes).await, same(&unknown, &sif(7)).await);
    invisible(&server, &bob, "bob/tools/copy", &bytes).await;
    bob.push("bob/tools/copy", "latest", "amd64", &bytes).await.ok();
    assert_eq!(server.nobody.pull("bob/tools/copy:latest").await.bytes, bytes);
    sweep_up(&server).await;
    assert_eq!(server.objects().await.len(), 1, "kept once");
    for (path, owner) in [("alice/secret/bb", &alice), ("alice/tools/copy", &alice), ("carol/tools/copy", &carol)] {
        owner.delete(&format!("/v1/images/{path}:{}", hash(&bytes))).await.ok();
    }
    sweep_up(&server).await;
    assert_eq!(server.nobody.pull("bob/tools/copy:latest").await.bytes, bytes);
}

#[tokio::test]
async fn a_token_for_one_container_is_no_key_to_the_bytes_of_another() {
    let (server, alice, _) = start().await;
    private_collection(&alice, "alice", "secret").await;
    let bytes = sif(1);
    alice.push("alice/secret/bb", "latest", "amd64", &bytes).await.ok();
    alice.container("alice/tools/bb").await;
    let tools = async |scope: &str| server.token("alice", json!({ "name": "s", "scope": scope })).await;
    let narrow = tools("pull,push@alice/tools/bb").await;
    assert!(!begin(&narrow, BB, &bytes).await.uploaded);
    invisible(&server, &narrow, BB, &bytes).await;
    // A token that may pull all containers is enough. One that can only push has no way to the bytes.
    for (scope, enough) in [("pull,push@alice", true), ("push", false)] {
        let path = format!("alice/tools/{}", scope.len());
        assert_eq!(begin(&tools(scope).await, &path, &bytes).await.uploaded, enough, "{scope}");
    }
    assert!(begin(&alice, BB, &bytes).await.uploaded);
}

#[tokio::test]
async fn sweeping_leaves_alone_what_is_on_its_way() {
    let (server, alice, _) = start().await;
    let (one, two) = (sif(1), sif(2));
    let (push, url) = opened(&alice, BB, &one).await;
    let parts = opened_parts(&alice, BB, &two).await;
    let etag = parts.send(&alice, 1, &two).await;
    alice.upload(&url, &one).await;
    // Images that were begun long ago are deleted, but not those that are being uploaded.
    let ages = Ages { image: Duration::ZERO, unnamed: Duration::ZERO, ..Ages::safe(&server.local.app) };
    let idle = begin(&alice, BB, &sif(3)).await;
    let swept = sweep(&server.local.app, ages).await.unwrap();
    assert_eq!((swept.images, swept.sessions, swept.objects, swept.condemned, swept.uploads), (1, 0, 0, 0, 0));
    complete(&alice, &push).await.ok();
    parts.complete(&alice, &[(1, &etag)]).await.ok();
    alice.open(&idle.image, &sif(3)).await.error(403);
    alice.push(BB, "latest", "amd64", &sif(3)).await.ok();
    sweep_up(&server).await;
    for bytes in [&one, &two, &sif(3)] {
        assert_eq!(server.nobody.pull(&format!("{BB}:{}", hash(bytes))).await.bytes, *bytes);
    }
}

#[tokio::test]
async fn without_pinned_urls_every_upload_is_read_before_it_is_seen() {
    let server = Server::start_with(&[("STACKROOM_PIN_UPLOADS", "false")]).await;
    let alice = server.user("alice", 0).await;
    let (right, wrong) = (sif(1), sif(2));
    alice.push("alice/tools/bb", "latest", "amd64", &right).await.ok();
    assert_eq!(server.nobody.pull("alice/tools/bb:latest?arch=amd64").await.bytes, right);

    let container = alice.container("alice/tools/other").await;
    let image = alice.image(&container, &wrong).await["id"].as_str().unwrap().to_owned();
    let opened = alice.open(&image, &wrong).await.ok();
    let url = opened["data"]["uploadURL"].as_str().unwrap();
    assert!(!url.contains("x-amz-content-sha256"), "{url}");
    let other = sif(3);
    assert_eq!(other.len(), wrong.len());
    assert_eq!(alice.upload(url, &other).await.status, 200);
    alice.put(&format!("/v2/imagefile/{image}/_complete"), json!({})).await.error(400);
    assert_eq!(server.quota("alice").await, (right.len() as u64, 0));
}
