//! Uploads that are verified after their completion was acknowledged.

use serde_json::json;
use shared::domain::{Digest, UploadId};
use shared::rules::{Action, Resource};
use shared::service::access::system;
use shared::service::uploads::verify;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Answer, Caller, Server};

/// Sends bytes in parts under the hash of `claimed`, up to the completion.
async fn push_parts(caller: &Caller, path: &str, claimed: &[u8], bytes: &[u8]) -> (String, String, Answer) {
    let container = caller.container(path).await;
    let image = caller.image(&container, claimed).await["id"].as_str().unwrap().to_owned();
    let opened =
        caller.post(&format!("/v2/imagefile/{image}/_multipart"), json!({ "filesize": bytes.len() })).await.ok();
    let upload = opened["data"]["uploadID"].as_str().unwrap().to_owned();
    let size = usize::try_from(opened["data"]["partSize"].as_u64().unwrap()).unwrap();
    let mut parts = Vec::new();
    for (at, part) in bytes.chunks(size).enumerate() {
        let (number, sum) = (at + 1, Digest::of(part).hex());
        let body = json!({ "uploadID": upload, "partNumber": number, "partSize": part.len(), "sha256sum": sum });
        let url = caller.put(&format!("/v2/imagefile/{image}/_multipart"), body).await.ok();
        let sent = caller.upload(url["data"]["presignedURL"].as_str().unwrap(), part).await;
        parts.push(json!({ "partNumber": number, "token": sent.header("etag").unwrap() }));
    }
    let body = json!({ "uploadID": upload, "completedParts": parts });
    let done = caller.put(&format!("/v2/imagefile/{image}/_multipart_complete"), body).await;
    (container, image, done)
}

async fn start() -> (Server, Caller) {
    let server = Server::start_with(&[("STACKROOM_VERIFY_AT_ONCE", "1000")]).await;
    let alice = server.user("alice", 0).await;
    (server, alice)
}

async fn only_sealed(server: &Server) -> UploadId {
    let sealed = verify::listed(&server.local.app).await.unwrap();
    assert_eq!(sealed.len(), 1);
    sealed[0]
}

#[tokio::test]
async fn a_sealed_image_is_invisible_until_it_is_verified_and_then_has_its_tags() {
    let (server, alice) = start().await;
    let bytes = SifBuilder::new("amd64").build();
    let (container, image, done) = push_parts(&alice, "alice/tools/bb", &bytes, &bytes).await;
    done.ok();
    for tag in ["latest", "1.0"] {
        let body = json!({ "Arch": "amd64", "Tag": tag, "ImageID": image });
        alice.post(&format!("/v2/tags/{container}"), body).await.ok();
    }
    let hash = Digest::of(&bytes).library();
    server.nobody.get(&format!("/v1/images/alice/tools/bb:{hash}")).await.error(404);
    alice.get("/v1/images/alice/tools/bb:latest?arch=amd64").await.error(404);
    // Acknowledged bytes are not swept, however old.
    let swept = server.sweep_all().await;
    assert_eq!((swept["sessions"].as_u64(), swept["sealed"].as_array().unwrap().len()), (Some(0), 1));
    assert_eq!(server.quota("alice").await, (0, bytes.len() as u64));

    let upload = only_sealed(&server).await;
    verify::upload(&server.local.app, upload).await.unwrap();
    for tag in ["latest", "1.0"] {
        assert_eq!(server.nobody.pull(&format!("alice/tools/bb:{tag}?arch=amd64")).await.bytes, bytes);
    }
    assert_eq!(server.quota("alice").await, (bytes.len() as u64, 0));
    verify::upload(&server.local.app, upload).await.unwrap();
    server.sweep_all().await;
    assert_eq!(server.objects().await.len(), 1);
}

#[tokio::test]
async fn wrong_bytes_are_refused_afterwards_and_leave_nothing() {
    let (server, alice) = start().await;
    let (right, wrong) = (SifBuilder::new("amd64").seed(1).build(), SifBuilder::new("amd64").seed(2).build());
    let (container, image, done) = push_parts(&alice, "alice/tools/bb", &right, &wrong).await;
    done.ok();
    let body = json!({ "Arch": "amd64", "Tag": "latest", "ImageID": image });
    alice.post(&format!("/v2/tags/{container}"), body.clone()).await.ok();
    verify::upload(&server.local.app, only_sealed(&server).await).await.unwrap();
    server.nobody.get("/v1/images/alice/tools/bb:latest?arch=amd64").await.error(404);
    alice.post(&format!("/v2/tags/{container}"), body).await.error(409);
    assert_eq!(server.quota("alice").await, (0, 0));
    server.sweep_all().await;
    assert!(server.objects().await.is_empty());
}

#[tokio::test]
async fn whoever_lost_their_right_meanwhile_does_not_land() {
    let (server, alice) = start().await;
    let bytes = SifBuilder::new("amd64").build();
    push_parts(&alice, "alice/tools/bb", &bytes, &bytes).await.2.ok();
    server.admin.put("/api/users/alice/disabled", json!({ "disabled": true })).await.ok();
    verify::upload(&server.local.app, only_sealed(&server).await).await.unwrap();
    let hash = Digest::of(&bytes).library();
    server.nobody.get(&format!("/v1/images/alice/tools/bb:{hash}")).await.error(404);
    assert_eq!(server.quota("alice").await, (0, 0));
}

#[tokio::test]
async fn a_complete_that_is_repeated_answers_the_same_and_an_abort_comes_too_late() {
    let (server, alice) = start().await;
    let bytes = SifBuilder::new("amd64").build();
    let (_, image, done) = push_parts(&alice, "alice/tools/bb", &bytes, &bytes).await;
    let done = done.ok();
    let upload = only_sealed(&server).await.to_string();
    let parts = json!([{ "partNumber": 1, "token": "\"x\"" }]);
    let body = json!({ "uploadID": upload, "completedParts": parts });
    let complete = format!("/v2/imagefile/{image}/_multipart_complete");
    let again = alice.put(&complete, body.clone()).await.ok();
    assert_eq!(again, done);
    // Only for who opened it, and only for its image.
    let bob = server.user("bob", 0).await;
    alice.put("/api/entities/alice/members/bob", json!({ "role": "contributor" })).await.ok();
    bob.put(&complete, body.clone()).await.error(403);
    let container = alice.container("alice/tools/other").await;
    let other = alice.image(&container, &SifBuilder::new("amd64").seed(9).build()).await["id"].clone();
    let elsewhere = format!("/v2/imagefile/{}/_multipart_complete", other.as_str().unwrap());
    alice.put(&elsewhere, body).await.error(409);
    alice.put(&format!("/v2/imagefile/{image}/_multipart_abort"), json!({ "uploadID": upload })).await.error(409);
    let (one, two) = futures::join!(
        verify::upload(&server.local.app, upload.parse().unwrap()),
        verify::upload(&server.local.app, upload.parse().unwrap())
    );
    one.and(two).unwrap();
    assert_eq!(server.quota("alice").await, (bytes.len() as u64, 0));
}

#[tokio::test]
async fn an_upload_that_cannot_be_read_keeps_no_other_one_waiting() {
    let (server, alice) = start().await;
    let app = &server.local.app;
    let one = SifBuilder::new("amd64").seed(1).build();
    push_parts(&alice, "alice/tools/bb", &one, &one).await.2.ok();
    let lost = server.objects().await;
    let sweeping = system(Action::Sweep, &Resource::Installation).unwrap();
    app.objects.delete(&sweeping, &lost[0]).await.unwrap();
    let mut others = Vec::new();
    // Several, so that some come after the lost one, whatever the order of their ids.
    for seed in 2..8 {
        let bytes = SifBuilder::new("amd64").seed(seed).build();
        push_parts(&alice, "alice/tools/bb", &bytes, &bytes).await.2.ok();
        others.push(Digest::of(&bytes).library());
    }
    let verified = verify::pending(app).await.unwrap();
    assert_eq!((verified.waited, verified.failed), (7, 1));
    for hash in others {
        server.nobody.get(&format!("/v1/images/alice/tools/bb:{hash}")).await.ok();
    }
    assert_eq!(verify::listed(app).await.unwrap().len(), 1);
}
