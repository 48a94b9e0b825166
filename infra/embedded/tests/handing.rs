//! Objects that a proxy in front sends itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "tests are small")]

mod common;

use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use common::{BUCKET, MIB, Store, bytes, client, open, open_for, store, store_for};
use embedded::objects::{Readers, keep_files};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

const PLACE: &str = "/object-files/";

fn proxied() -> Readers {
    Readers::Proxy(PLACE.to_owned())
}

async fn get(store: &Store, key: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let config = PresigningConfig::expires_in(Duration::from_mins(1)).unwrap();
    let url = store.s3.get_object().bucket(BUCKET).key(key).response_content_disposition("attachment");
    let url = url.presigned(config).await.unwrap();
    let mut request = Request::builder().uri(url.uri()).header("host", "lab.example:8080");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = store.objects.face().call(request.body(Empty::<Bytes>::new()).unwrap()).await;
    let (parts, body) = answer.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

/// The file that the proxy is to send, if it is.
fn handed(store: &Store, answer: &Response<Bytes>) -> Option<PathBuf> {
    let place = answer.headers().get("x-accel-redirect")?.to_str().unwrap();
    assert!(answer.body().is_empty() && answer.headers().get("content-range").is_none());
    Some(store.folder.path().join("files").join(place.strip_prefix(PLACE).unwrap()))
}

async fn in_parts(store: &Store, key: &str, parts: &[Vec<u8>]) {
    let upload = store.s3.create_multipart_upload().bucket(BUCKET).key(key).send().await.unwrap();
    let id = upload.upload_id().unwrap();
    let mut list = CompletedMultipartUpload::builder();
    for (number, part) in (1..).zip(parts) {
        let sent = store.s3.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(number);
        let sent = sent.body(part.clone().into()).send().await.unwrap();
        list = list.parts(CompletedPart::builder().part_number(number).e_tag(sent.e_tag().unwrap()).build());
    }
    let complete = store.s3.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id);
    complete.multipart_upload(list.build()).send().await.unwrap();
}

/// Asks until the proxy is to send the object.
async fn once_handed(store: &Store, key: &str) -> PathBuf {
    for _ in 0..400 {
        if let Some(file) = handed(store, &get(store, key, &[]).await) {
            return file;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the files of `{key}` stay apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_told_the_file_of_an_object_and_sends_it() {
    let store = store_for(proxied());
    let content = bytes(MIB, 1);
    let etag = store.put("k", content.clone()).await;
    for headers in [&[][..], &[("range", "bytes=5-9")], &[("if-range", "\"other\""), ("range", "bytes=5-9")]] {
        let answer = get(&store, "k", headers).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(std::fs::read(handed(&store, &answer).unwrap()).unwrap(), content);
        assert_eq!(answer.headers()["etag"], etag);
        assert_eq!(answer.headers()["content-disposition"], "attachment");
        assert!(answer.headers().contains_key("last-modified"));
    }
    // What the proxy would judge by the file, or what is not there to be sent, is our own to answer.
    for (name, value, status) in [
        ("if-match", etag.as_str(), 200),
        ("if-match", "\"other\"", 412),
        ("if-none-match", etag.as_str(), 304),
        ("if-none-match", "\"other\"", 200),
        ("range", "bytes=1048576-", 416),
    ] {
        let answer = get(&store, "k", &[(name, value)]).await;
        assert_eq!((answer.status().as_u16(), handed(&store, &answer)), (status, None), "{name}: {value}");
        assert!(status != 200 || answer.body() == &content, "{name}: {value}");
    }
    store.put("small", "hello").await;
    assert_eq!(get(&store, "small", &[]).await.body(), "hello");
    // Nor is anything handed to ourselves.
    assert_eq!(store.get("k").await.unwrap(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proxy_nothing_is_handed_over() {
    let store = store();
    store.put("k", bytes(MIB, 1)).await;
    in_parts(&store, "m", &[bytes(5 * MIB, 1), bytes(MIB, 2)]).await;
    for key in ["k", "m"] {
        let answer = get(&store, key, &[]).await;
        assert_eq!((handed(&store, &answer), answer.headers()["accept-ranges"].to_str().unwrap()), (None, "bytes"));
        assert_eq!(answer.body(), &store.get(key).await.unwrap());
    }
    assert_eq!(store.files().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_in_parts_becomes_one_file_when_it_is_asked_for() {
    let store = store_for(proxied());
    let parts = [bytes(5 * MIB, 1), bytes(5 * MIB, 2), bytes(7, 3)];
    let whole = parts.concat();
    in_parts(&store, "m", &parts).await;
    // The files of a copy stay, though they are the same.
    store.s3.copy_object().bucket(BUCKET).key("copy").copy_source("objects/m").send().await.unwrap();
    assert_eq!(store.files().len(), 3);
    let first = get(&store, "m", &[("range", "bytes=0-9")]).await;
    assert_eq!((handed(&store, &first), &first.body()[..]), (None, &whole[..10]));
    let file = once_handed(&store, "m").await;
    assert_eq!(std::fs::read(&file).unwrap(), whole);
    assert_eq!(store.files().len(), 4);
    let after = get(&store, "m", &[]).await;
    assert_eq!(after.headers()["etag"], first.headers()["etag"]);
    assert_eq!(store.get("m").await.unwrap(), whole);
    assert_eq!(store.get("copy").await.unwrap(), whole);
    once_handed(&store, "copy").await;
    assert_eq!(store.files().len(), 2);
    // It is one file for ever.
    drop(store.s3.delete_object().bucket(BUCKET).key("copy").send().await.unwrap());
    assert_eq!(handed(&store, &get(&store, "m", &[]).await), Some(file));
    drop(store.s3.delete_object().bucket(BUCKET).key("m").send().await.unwrap());
    assert_eq!(get(&store, "m", &[]).await.status(), 404);
    assert_eq!(store.files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_objects_stay_while_somebody_reads_them_by_a_copy_of_the_index() {
    let store = store_for(proxied());
    in_parts(&store, "m", &[bytes(5 * MIB, 1), bytes(MIB, 2)]).await;
    let before = store.files();
    let index = store.folder.path().join("index.db");
    let readers = [keep_files(&index).unwrap(), keep_files(&index).unwrap()];
    for reader in readers {
        for _ in 0..20 {
            assert_eq!(handed(&store, &get(&store, "m", &[]).await), None);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(reader);
    }
    let file = once_handed(&store, "m").await;
    let after = store.files();
    assert!(after.len() == 1 && file.ends_with(&after[0]) && !before.contains(&after[0]), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_deleted_while_its_files_are_joined_leaves_none() {
    let store = store_for(proxied());
    for round in 0..10 {
        in_parts(&store, "m", &[bytes(5 * MIB, round), bytes(MIB, round)]).await;
        assert_eq!(get(&store, "m", &[]).await.body().len(), 6 * MIB);
        tokio::time::sleep(Duration::from_millis(u64::from(round))).await;
        drop(store.s3.delete_object().bucket(BUCKET).key("m").send().await.unwrap());
    }
    for _ in 0..400 {
        if store.files().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{:?} are left", store.files());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_reads_object_files_where_a_proxy_sends_them_and_nowhere_else() {
    let mut store = store();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let folder = store.folder.path().join("files");
    store.put("before", bytes(MIB, 1)).await;
    let file = folder.join(&store.files()[0][..2]).join(&store.files()[0]);
    assert_eq!((mode(folder.clone()), mode(file.clone())), (0o700, 0o600));

    store.objects = open_for(store.folder.path(), proxied());
    store.s3 = client(&store.objects);
    let found = handed(&store, &get(&store, "before", &[]).await).unwrap();
    assert_eq!((found, mode(file.clone())), (file.clone(), 0o640));
    store.put("after", bytes(MIB, 2)).await;
    let after = handed(&store, &get(&store, "after", &[]).await).unwrap();
    assert_eq!(mode(after), 0o640);
    let parents = || ["", "00", "ff"].map(|name| mode(folder.join(name)));
    assert_eq!((parents(), mode(folder.join("tmp"))), ([0o750; 3], 0o700));

    // Whoever only reads what another process keeps changes nothing.
    drop(open_for(store.folder.path(), Readers::AsBefore));
    assert_eq!(parents(), [0o750; 3]);
    drop(open(store.folder.path()));
    assert_eq!((parents(), mode(folder.join("tmp"))), ([0o700; 3], 0o700));
}
