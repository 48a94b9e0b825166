//! The embedded object store, through the SDK's own client.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::too_many_lines,
    reason = "a test stops at the first surprise"
)]

mod common;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, MetadataDirective};
use common::{BUCKET, MIB, Store, bytes, client, hex, open, store};
use sha2::{Digest, Sha256};
use std::time::Duration;

async fn begin(store: &Store, key: &str) -> String {
    let upload = store.s3.create_multipart_upload().bucket(BUCKET).key(key);
    upload.content_type("application/x-sif").send().await.unwrap().upload_id.unwrap()
}

async fn part(store: &Store, key: &str, id: &str, number: i32, body: Vec<u8>) -> String {
    let part = store.s3.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(number);
    part.body(body.into()).send().await.unwrap().e_tag.unwrap()
}

/// Completes an upload; returns the error's code if it was refused.
async fn complete(store: &Store, key: &str, id: &str, parts: &[(i32, &str)]) -> Result<String, String> {
    let mut list = CompletedMultipartUpload::builder();
    for (number, etag) in parts {
        list = list.parts(CompletedPart::builder().part_number(*number).e_tag(*etag).build());
    }
    let complete = store.s3.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id);
    match complete.multipart_upload(list.build()).send().await {
        Ok(output) => Ok(output.e_tag.unwrap()),
        Err(error) => Err(error.code().unwrap_or("none").to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_can_be_got() {
    let store = store();
    for size in [0, 1, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 3 * MIB + 17] {
        let body = bytes(size, 1);
        let etag = store.put("a/b c+d%ü", body.clone()).await;
        let sha256 = <sha2::Sha256 as sha2::Digest>::digest(&body);
        assert_eq!(etag, format!("\"{}\"", hex(&sha256)));
        assert!(store.get("a/b c+d%ü").await.unwrap() == body, "{size} bytes came back changed");
    }
    assert_eq!(store.files().len(), 1, "overwritten files go at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_body_arrives_whole() {
    let store = store();
    let body = bytes(5 * MIB, 3);
    let file = store.folder.path().join("source");
    std::fs::write(&file, &body).unwrap();
    let stream = ByteStream::from_path(&file).await.unwrap();
    store.s3.put_object().bucket(BUCKET).key("k").body(stream).send().await.unwrap();
    assert!(store.get("k").await.unwrap() == body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_says_about_an_object_comes_back() {
    let store = store();
    store
        .s3
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .content_type("application/x-sif")
        .content_disposition("attachment")
        .metadata("who", "me")
        .body(ByteStream::from_static(b"hello"))
        .send()
        .await
        .unwrap();
    let head = store.s3.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.content_length(), Some(5));
    assert_eq!(head.content_type(), Some("application/x-sif"));
    assert_eq!(head.metadata().unwrap()["who"], "me");
    let get = store
        .s3
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .response_content_disposition("inline")
        .response_content_type("text/plain");
    let get = get.send().await.unwrap();
    assert_eq!(get.content_disposition(), Some("inline"));
    assert_eq!(get.content_type(), Some("text/plain"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_cut_exactly() {
    let store = store();
    let body = bytes(MIB + 100, 5);
    store.put("k", body.clone()).await;
    let size = body.len();
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-1024", 0, 1025),
        ("bytes=262143-262144", 262_143, 262_145),
        ("bytes=1000-", 1000, size),
        ("bytes=-7", size - 7, size),
        ("bytes=-99999999", 0, size),
        ("bytes=5-99999999", 5, size),
    ] {
        let get = store.s3.get_object().bucket(BUCKET).key("k").range(range).send().await.unwrap();
        assert_eq!(get.content_range(), Some(format!("bytes {from}-{}/{size}", to - 1).as_str()));
        assert_eq!(get.content_length(), Some((to - from) as i64));
        assert!(get.body.collect().await.unwrap().to_vec() == body[from..to], "{range}");
    }
    let past = format!("bytes={size}-");
    let error = store.s3.get_object().bucket(BUCKET).key("k").range(past).send().await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 416);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_things_are_missing() {
    let store = store();
    assert_eq!(store.get("nothing").await, None);
    let head = store.s3.head_object().bucket(BUCKET).key("nothing").send().await.unwrap_err();
    assert!(head.into_service_error().is_not_found());
    store.s3.delete_object().bucket(BUCKET).key("nothing").send().await.unwrap();
    store.s3.head_bucket().bucket(BUCKET).send().await.unwrap();
    assert!(store.s3.head_bucket().bucket("another").send().await.unwrap_err().into_service_error().is_not_found());
    let error = store.s3.put_object().bucket("another").key("k").send().await.unwrap_err();
    assert_eq!(error.code(), Some("NoSuchBucket"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_keeps_what_it_began_while_the_object_is_overwritten_and_deleted() {
    let store = store();
    let old = bytes(8 * MIB, 1);
    let id = begin(&store, "k").await;
    let one = part(&store, "k", &id, 1, old[..5 * MIB].to_vec()).await;
    let two = part(&store, "k", &id, 2, old[5 * MIB..].to_vec()).await;
    complete(&store, "k", &id, &[(1, &one), (2, &two)]).await.unwrap();
    let reader = store.s3.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    store.put("k", "new").await;
    assert_eq!(store.get("k").await.unwrap(), b"new");
    store.s3.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(store.objects.collect(Duration::ZERO).unwrap().files, 0);
    assert!(reader.body.collect().await.unwrap().to_vec() == old);
    // The last holder removes the files.
    for _ in 0..100 {
        if store.files().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("files stay: {:?}", store.files());
}

#[tokio::test(flavor = "multi_thread")]
async fn overwriting_under_readers_tears_nothing() {
    let store = store();
    let versions = [bytes(700_000, 1), bytes(900_000, 2)];
    store.put("k", versions[0].clone()).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (s3, versions, stop) = (store.s3.clone(), versions.clone(), stop.clone());
        tokio::spawn(async move {
            for turn in 0..60 {
                let body = versions[turn % 2].clone();
                s3.put_object().bucket(BUCKET).key("k").body(body.into()).send().await.unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        })
    };
    let mut reads = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let read = store.get("k").await.unwrap();
        assert!(versions.contains(&read), "a read of {} bytes is torn", read.len());
        reads += 1;
    }
    writer.await.unwrap();
    assert!(reads > 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_32_creators_exactly_one_wins() {
    let store = store();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..32_u8 {
        let s3 = store.s3.clone();
        tasks.spawn(async move {
            let put = s3.put_object().bucket(BUCKET).key("k").if_none_match("*");
            match put.body(vec![number].into()).send().await {
                Ok(stored) => (number, stored.e_tag.unwrap()),
                Err(error) => {
                    let code = error.code().unwrap_or("none").to_owned();
                    (number, code)
                }
            }
        });
    }
    let answers = tasks.join_all().await;
    let (refused, winners): (Vec<_>, Vec<_>) = answers.iter().partition(|(_, said)| said == "PreconditionFailed");
    let there = store.get("k").await.unwrap();
    assert_eq!((refused.len(), winners.len()), (31, 1), "there is {there:?}, and the answers were {answers:?}");
    assert_eq!(there, [winners[0].0]);
    assert_eq!(store.files().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_becomes_one_object() {
    let store = store();
    let body = bytes(11 * MIB + 5, 9);
    let id = begin(&store, "k").await;
    let mut etags = Vec::new();
    for (at, piece) in body.chunks(5 * MIB).enumerate() {
        etags.push((at as i32 + 1, part(&store, "k", &id, at as i32 + 1, piece.to_vec()).await));
    }
    assert_eq!(store.get("k").await, None, "nothing is there before it is complete");
    let listed = store.s3.list_parts().bucket(BUCKET).key("k").upload_id(&id).max_parts(2).send().await.unwrap();
    assert_eq!((listed.parts().len(), listed.is_truncated()), (2, Some(true)));
    let next = store.s3.list_parts().bucket(BUCKET).key("k").upload_id(&id);
    let next = next.part_number_marker(listed.next_part_number_marker().unwrap()).send().await.unwrap();
    assert_eq!((next.parts().len(), next.is_truncated()), (1, Some(false)));
    assert_eq!(next.parts()[0].size(), Some((MIB + 5) as i64));
    let uploads = store.s3.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
    assert_eq!(uploads.uploads()[0].upload_id(), Some(id.as_str()));

    let parts: Vec<(i32, &str)> = etags.iter().map(|(number, etag)| (*number, etag.as_str())).collect();
    let etag = complete(&store, "k", &id, &parts).await.unwrap();
    assert!(etag.ends_with("-3\""), "{etag}");
    assert!(store.get("k").await.unwrap() == body);
    let head = store.s3.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.content_type(), Some("application/x-sif"));
    // Across the boundary of two parts.
    let range = format!("bytes={}-{}", 5 * MIB - 3, 5 * MIB + 2);
    let get = store.s3.get_object().bucket(BUCKET).key("k").range(range).send().await.unwrap();
    assert!(get.body.collect().await.unwrap().to_vec() == body[5 * MIB - 3..5 * MIB + 3]);
    assert_eq!(complete(&store, "k", &id, &parts).await, Err("NoSuchUpload".to_owned()));
    assert!(store.s3.list_multipart_uploads().bucket(BUCKET).send().await.unwrap().uploads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_list_of_parts_is_refused_and_the_upload_stays() {
    let store = store();
    let id = begin(&store, "k").await;
    let one = part(&store, "k", &id, 1, bytes(5 * MIB, 1)).await;
    let two = part(&store, "k", &id, 2, bytes(100, 2)).await;
    let three = part(&store, "k", &id, 3, bytes(100, 3)).await;
    let refused = async |parts: &[(i32, &str)]| complete(&store, "k", &id, parts).await.unwrap_err();
    assert_eq!(refused(&[(2, &two), (1, &one)]).await, "InvalidPartOrder");
    assert_eq!(refused(&[(1, &one), (1, &one)]).await, "InvalidPartOrder");
    assert_eq!(refused(&[(1, &two)]).await, "InvalidPart");
    assert_eq!(refused(&[(1, &one), (4, &two)]).await, "InvalidPart");
    assert_eq!(refused(&[(1, &one), (2, &two), (3, &three)]).await, "EntityTooSmall");
    assert_eq!(complete(&store, "k", "0123", &[(1, &one)]).await.unwrap_err(), "NoSuchUpload");
    assert_eq!(complete(&store, "other", &id, &[(1, &one)]).await.unwrap_err(), "NoSuchUpload");
    assert_eq!(store.get("k").await, None);
    // Without its quotes an ETag is the same.
    complete(&store, "k", &id, &[(1, one.trim_matches('"')), (2, &two)]).await.unwrap();
    assert_eq!(store.get("k").await.unwrap().len(), 5 * MIB + 100);
    assert_eq!(store.files().len(), 2, "the part that was not listed goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_sent_again_replaces_the_first() {
    let store = store();
    let id = begin(&store, "k").await;
    let first = part(&store, "k", &id, 1, bytes(10, 1)).await;
    let second = part(&store, "k", &id, 1, bytes(10, 2)).await;
    assert_eq!(store.files().len(), 1);
    assert_eq!(complete(&store, "k", &id, &[(1, &first)]).await.unwrap_err(), "InvalidPart");
    complete(&store, "k", &id, &[(1, &second)]).await.unwrap();
    assert_eq!(store.get("k").await.unwrap(), bytes(10, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_upload_leaves_nothing() {
    let store = store();
    let id = begin(&store, "k").await;
    let etag = part(&store, "k", &id, 1, bytes(100, 1)).await;
    let abort = || store.s3.abort_multipart_upload().bucket(BUCKET).key("k").upload_id(&id).send();
    abort().await.unwrap();
    assert_eq!(store.files(), Vec::<String>::new());
    assert_eq!(abort().await.unwrap_err().code(), Some("NoSuchUpload"));
    assert_eq!(complete(&store, "k", &id, &[(1, &etag)]).await.unwrap_err(), "NoSuchUpload");
    let late = store.s3.upload_part().bucket(BUCKET).key("k").upload_id(&id).part_number(2);
    assert_eq!(late.send().await.unwrap_err().code(), Some("NoSuchUpload"));
}

#[tokio::test(flavor = "multi_thread")]
async fn completing_aborting_and_sending_parts_at_once_ends_in_one_of_the_two() {
    let store = store();
    for round in 0..12 {
        let key = format!("k{round}");
        let id = begin(&store, &key).await;
        let etag = part(&store, &key, &id, 1, bytes(1000, 1)).await;
        let again = async {
            let part = store.s3.upload_part().bucket(BUCKET).key(&key).upload_id(&id).part_number(1);
            part.body(bytes(1000, 1).into()).send().await.is_ok()
        };
        let abort =
            async { store.s3.abort_multipart_upload().bucket(BUCKET).key(&key).upload_id(&id).send().await.is_ok() };
        let done = [(1, etag.as_str())];
        let (completed, aborted, _part) = tokio::join!(complete(&store, &key, &id, &done), abort, again);
        assert_ne!(completed.is_ok(), aborted, "round {round}");
        let there = store.get(&key).await;
        assert_eq!(there.is_some(), completed.is_ok());
        assert!(there.is_none_or(|body| body == bytes(1000, 1)));
    }
    store.objects.collect(Duration::ZERO).unwrap();
    let listed = store.s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(store.files().len(), listed.contents().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_shares_its_bytes_and_outlives_its_source() {
    let store = store();
    let body = bytes(6 * MIB, 1);
    let id = begin(&store, "a b/ü").await;
    let one = part(&store, "a b/ü", &id, 1, body[..5 * MIB].to_vec()).await;
    let two = part(&store, "a b/ü", &id, 2, body[5 * MIB..].to_vec()).await;
    complete(&store, "a b/ü", &id, &[(1, &one), (2, &two)]).await.unwrap();
    let copy = store
        .s3
        .copy_object()
        .bucket(BUCKET)
        .key("copy")
        .copy_source("objects/a%20b/%C3%BC")
        .checksum_algorithm(ChecksumAlgorithm::Sha256)
        .send()
        .await
        .unwrap();
    let expected = aws_smithy_types::base64::encode(Sha256::digest(&body));
    assert_eq!(copy.copy_object_result().unwrap().checksum_sha256(), Some(expected.as_str()));
    assert_eq!(store.files().len(), 2);
    store.s3.delete_object().bucket(BUCKET).key("a b/ü").send().await.unwrap();
    assert!(store.get("copy").await.unwrap() == body);
    let head = store.s3.head_object().bucket(BUCKET).key("copy").checksum_mode(ChecksumMode::Enabled);
    let head = head.send().await.unwrap();
    assert_eq!(head.checksum_sha256(), Some(expected.as_str()));
    assert_eq!(head.content_type(), Some("application/x-sif"));
    // Onto itself, with another description.
    let onto = store.s3.copy_object().bucket(BUCKET).key("copy").copy_source("objects/copy");
    let onto = onto.metadata_directive(MetadataDirective::Replace).content_type("text/plain");
    onto.send().await.unwrap();
    assert!(store.get("copy").await.unwrap() == body);
    let gone = store.s3.copy_object().bucket(BUCKET).key("x").copy_source("objects/gone");
    assert_eq!(gone.send().await.unwrap_err().code(), Some("NoSuchKey"));
    store.s3.delete_object().bucket(BUCKET).key("copy").send().await.unwrap();
    assert_eq!(store.files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_sender_has_hashed_is_not_hashed_again_unless_somebody_asks() {
    let store = store();
    let body = bytes(1000, 1);
    let put = |key: &str| store.s3.put_object().bucket(BUCKET).key(key).body(body.clone().into());
    let one = put("one").customize().disable_payload_signing().send().await.unwrap();
    let two = put("two").customize().disable_payload_signing().send().await.unwrap();
    assert_ne!(one.e_tag(), two.e_tag(), "random");
    let sha256 = Sha256::digest(&body);
    assert_eq!(put("three").send().await.unwrap().e_tag(), Some(format!("\"{}\"", hex(&sha256)).as_str()));
    assert!(store.get("one").await.unwrap() == body);
    let copy = store.s3.copy_object().bucket(BUCKET).key("copy").copy_source("objects/one");
    let copy = copy.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap();
    let expected = aws_smithy_types::base64::encode(sha256);
    assert_eq!(copy.copy_object_result().unwrap().checksum_sha256(), Some(expected.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_digest_must_be_right() {
    let store = store();
    let wrong = aws_smithy_types::base64::encode(Sha256::digest("other"));
    let put = store.s3.put_object().bucket(BUCKET).key("k").checksum_sha256(wrong);
    let error = put.body(ByteStream::from_static(b"hello")).send().await.unwrap_err();
    assert_eq!(error.code(), Some("BadDigest"));
    assert_eq!(store.get("k").await, None);
    assert_eq!(store.files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chunked_encoding_is_refused_and_not_stored() {
    let store = store();
    let config = store.s3.config().to_builder();
    let config = config.request_checksum_calculation(aws_sdk_s3::config::RequestChecksumCalculation::WhenSupported);
    let s3 = aws_sdk_s3::Client::from_conf(config.build());
    let file = store.folder.path().join("source");
    std::fs::write(&file, bytes(MIB, 3)).unwrap();
    let stream = ByteStream::from_path(&file).await.unwrap();
    let put = s3.put_object().bucket(BUCKET).key("k").body(stream).send();
    let error = put.await.unwrap_err();
    assert_eq!(error.code(), Some("NotImplemented"), "{error:?}");
    assert_eq!(store.files(), Vec::<String>::new());
    // A body in memory has its checksum in a header.
    let put = s3.put_object().bucket(BUCKET).key("k");
    put.body(ByteStream::from_static(b"hello")).send().await.unwrap();
    assert_eq!(store.get("k").await.unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_goes_by_prefix_and_page() {
    let store = store();
    for key in ["a/1", "a/2", "a/3", "a/4", "a/5", "b/1", "a"] {
        store.put(key, key).await;
    }
    let mut seen = Vec::new();
    let mut token = None;
    loop {
        let list = store.s3.list_objects_v2().bucket(BUCKET).prefix("a/").max_keys(2);
        let page = list.set_continuation_token(token).send().await.unwrap();
        seen.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
        token = page.next_continuation_token().map(str::to_owned);
        assert_eq!(page.is_truncated(), Some(token.is_some()));
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a/1", "a/2", "a/3", "a/4", "a/5"]);
    let after = store.s3.list_objects_v2().bucket(BUCKET).start_after("a/4").send().await.unwrap();
    let keys: Vec<_> = after.contents().iter().filter_map(|object| object.key()).collect();
    assert_eq!(keys, ["a/5", "b/1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_takes_old_leftovers_only() {
    let store = store();
    store.put("k", "kept").await;
    let files = store.folder.path().join("files");
    let leftover = "ab".repeat(16);
    std::fs::write(files.join("ab").join(&leftover), "12345").unwrap();
    std::fs::write(files.join("tmp").join(&leftover), "678").unwrap();
    std::fs::write(files.join("tmp").join("not-ours"), "x").unwrap();
    assert_eq!(store.objects.collect(Duration::from_hours(1)).unwrap().files, 0);
    let collected = store.objects.collect(Duration::ZERO).unwrap();
    assert_eq!((collected.files, collected.bytes), (2, 8));
    assert_eq!(store.get("k").await.unwrap(), b"kept");
    assert!(files.join("tmp/not-ours").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_harms_no_upload_in_flight() {
    let store = store();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sweeper = {
        let (objects, stop) = (store.objects.clone(), stop.clone());
        tokio::task::spawn_blocking(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                objects.collect(Duration::ZERO).unwrap();
            }
        })
    };
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40_u8 {
        let s3 = store.s3.clone();
        tasks.spawn(async move {
            let body = bytes(300_000, number);
            let key = format!("k{number}");
            s3.put_object().bucket(BUCKET).key(&key).body(body.clone().into()).send().await.unwrap();
            let read = s3.get_object().bucket(BUCKET).key(&key).send().await.unwrap();
            assert!(read.body.collect().await.unwrap().to_vec() == body);
        });
    }
    tasks.join_all().await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    sweeper.await.unwrap();
    assert_eq!(store.files().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_open_uploads_are_there_after_reopening() {
    let store = store();
    store.put("k", "kept").await;
    let id = begin(&store, "m").await;
    let etag = part(&store, "m", &id, 1, bytes(10, 1)).await;
    let Store { folder, objects, s3 } = store;
    drop((objects, s3));
    let objects = open(folder.path());
    let s3 = client(&objects);
    let store = Store { folder, objects, s3 };
    assert_eq!(store.objects.collect(Duration::ZERO).unwrap().files, 0);
    assert_eq!(store.get("k").await.unwrap(), b"kept");
    complete(&store, "m", &id, &[(1, &etag)]).await.unwrap();
    assert_eq!(store.get("m").await.unwrap(), bytes(10, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_is_in_wal_mode() {
    let store = store();
    store.put("k", "x").await;
    let other = rusqlite::Connection::open(store.folder.path().join("index.db")).unwrap();
    let mode: String = other.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    let unsound: i64 = other.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0)).unwrap();
    assert_eq!(unsound, 0);
}
