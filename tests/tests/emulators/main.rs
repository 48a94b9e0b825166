//! The same server on other people's emulators of DynamoDB and S3, so that what we believe about AWS is not tested on
//! our own stores alone: AWS's DynamoDB Local for the table, ministack for the table and the bucket.
//!
//! `STACKROOM_TEST_STORES` names them, see [`stackroom_tests::foreign`]. Every test runs on every pair, in a table and a
//! bucket of its own.
//!
//! ministack does not support presigned URLs with the payload's hash in the signature: whatever hash is sent, it takes
//! the canonical request's last line to be `UNSIGNED-PAYLOAD`, and so refuses the right bytes too. There we push as old
//! clients do, without a hash. versitygw refuses, beside that, a header that is not signed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a failed test panics"
)]

mod copies;
mod registry;
mod servers;
#[path = "../registry/support.rs"]
#[expect(dead_code, reason = "the registry's own tests use the rest")]
mod support;
mod units;

use futures::future::join_all;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use shared::app::App;
use shared::auth::Keys;
use shared::config::{Config, Pins};
use shared::domain::Digest;
use shared::service::installation;
use shared::store::keys::{INSTALLATION, KeyRange};
use stackroom_tests::foreign::Place;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Answer, Caller, send};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long one test may take on one emulator, beside what [`servers`] need to start again each time one was killed.
const PATIENCE: Duration = Duration::from_mins(3);

/// A server on emulators.
struct Server {
    app: App,
    /// The site admin.
    admin: Caller,
    nobody: Caller,
    url: String,
    /// Whether the bucket supports presigned URLs with the payload's hash.
    pins: bool,
    /// Whether it wants the header with the hash of a part to be signed.
    header: bool,
    /// What another process needs in its environment to serve the same installation.
    environment: Vec<(&'static str, String)>,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    /// Starts a server with a new table and a new bucket. Bytes of blobs are sent to `ingest`, if it is given.
    async fn start(place: Place, ingest: Option<&str>) -> Self {
        let (pins, stores) = (place.pins, place.create().await);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys = Keys::generate().unwrap();
        let said = |name: &str| match name {
            "STACKROOM_INGEST_URL" => ingest.map(str::to_owned),
            // Elsewhere a URL that says the digest is tried as well.
            "STACKROOM_PIN_UPLOADS" => Some(pins.to_string()).filter(|_| pins == Pins::Header),
            _ => None,
        };
        let environment = stores.environment(&url, &keys);
        let app = stores.app(Config::read(&url, said).unwrap(), &keys, &server::local::Nothing);
        installation::mark(&app).await.unwrap();
        let admin = SecretString::from("a password that nobody uses");
        let token =
            shared::service::people::users::bootstrap(&app, "admin".parse().unwrap(), admin).await.unwrap().unwrap();
        let router = axum::Router::from(server::site::Site::shared(&app).unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let admin = Caller::new(&url, Some(token.expose_secret().to_owned()));
        Self {
            app,
            admin,
            nobody: Caller::new(&url, None),
            url,
            pins: pins == Pins::Bytes,
            header: pins == Pins::Header,
            environment,
            serving,
        }
    }

    async fn user(&self, name: &str, quota: u64) -> Caller {
        self.admin.post("/api/users", json!({ "name": name, "quota": quota })).await.ok();
        let made = self.admin.post(&format!("/api/users/{name}/tokens"), json!({ "name": "test" })).await.ok();
        Caller::new(&self.url, Some(made["data"]["token"].as_str().unwrap().to_owned()))
    }

    /// Used and reserved bytes of a user's entity.
    async fn quota(&self, name: &str) -> (u64, u64) {
        let users = self.admin.get("/api/users").await.ok();
        let user = users["data"].as_array().unwrap().iter().find(|user| user["name"] == name).unwrap().clone();
        (user["used"].as_u64().unwrap(), user["reserved"].as_u64().unwrap())
    }

    /// Sweeps until nothing is left to do, as if all leases had expired.
    async fn sweep_all(&self) {
        for _ in 0..3 {
            let swept = self.admin.post("/api/sweep", json!({ "now": true })).await.ok();
            assert_eq!(swept["data"]["wrong_accounts"], json!([]), "{swept}");
        }
    }

    async fn objects(&self) -> usize {
        let all = self.app.objects.list(None).await.unwrap();
        all.iter().filter(|one| one.object != INSTALLATION).count()
    }
}

/// Runs a test on every pair of emulators.
async fn everywhere<F: Future<Output = ()>>(test: impl Fn(Server) -> F) {
    everywhere_with(None, test).await;
}

/// The same, with bytes of blobs sent to another host.
async fn everywhere_with<F: Future<Output = ()>>(ingest: Option<&str>, test: impl Fn(Server) -> F) {
    for place in Place::all() {
        let name = place.name.clone();
        println!("on {name}");
        let began = Instant::now();
        let run = async { test(Server::start(place, ingest).await).await };
        tokio::time::timeout(PATIENCE + servers::patience(), run)
            .await
            .unwrap_or_else(|_| panic!("{name} takes too long"));
        println!("on {name}: {:.1} s", began.elapsed().as_secs_f64());
    }
}

/// A container and a new image in it, whose bytes are not uploaded yet.
async fn begun(who: &Caller, path: &str, bytes: &[u8]) -> (String, String) {
    let container = who.container(path).await;
    let image = who.image(&container, bytes).await;
    assert_eq!(image["uploaded"], json!(false));
    (container, image["id"].as_str().unwrap().to_owned())
}

/// Opens the single upload of an image as new clients do, or as old ones.
async fn open(who: &Caller, image: &str, bytes: &[u8], pinned: bool) -> String {
    let body = json!({ "filesize": bytes.len(), "md5sum": "" });
    let opened =
        if pinned { who.open(image, bytes).await } else { who.post(&format!("/v2/imagefile/{image}"), body).await };
    assert!(opened.status.is_success(), "{}", String::from_utf8_lossy(&opened.bytes));
    opened.json["data"]["uploadURL"].as_str().unwrap().to_owned()
}

/// Pushes an image in one `PUT` and tags it. Returns the status of the first request that is refused, or else 200.
async fn push(server: &Server, who: &Caller, path: &str, name: &str, bytes: &[u8]) -> u16 {
    if server.pins {
        return who.push(path, name, "amd64", bytes).await.status.as_u16();
    }
    let container = who.container(path).await;
    let image = who.image(&container, bytes).await;
    let id = image["id"].as_str().unwrap();
    if image["uploaded"] == json!(false) {
        let body = json!({ "filesize": bytes.len(), "md5sum": "" });
        let opened = who.post(&format!("/v2/imagefile/{id}"), body).await;
        if !opened.status.is_success() {
            return opened.status.as_u16();
        }
        let sent = who.upload(opened.json["data"]["uploadURL"].as_str().unwrap(), bytes).await;
        assert_eq!(sent.status, 200, "{}", String::from_utf8_lossy(&sent.bytes));
        let done = who.put(&format!("/v2/imagefile/{id}/_complete"), json!({})).await;
        if !done.status.is_success() {
            return done.status.as_u16();
        }
    }
    tag(who, &container, id, name).await.status.as_u16()
}

async fn tag(who: &Caller, container: &str, image: &str, tag: &str) -> Answer {
    who.post(&format!("/v2/tags/{container}"), json!({ "Arch": "amd64", "Tag": tag, "ImageID": image })).await
}

#[tokio::test]
async fn an_image_is_pushed_tagged_looked_up_pulled_and_deleted() {
    everywhere(|server| async move {
        let alice = server.user("alice", 0).await;
        let bytes = SifBuilder::new("amd64").build();
        assert_eq!(push(&server, &alice, "alice/tools/bb", "latest", &bytes).await, 200);
        assert_eq!(server.quota("alice").await, (bytes.len() as u64, 0));
        let image = server.nobody.get("/v1/images/alice/tools/bb:latest?arch=amd64").await.ok();
        assert_eq!(image["data"]["size"], json!(bytes.len()));
        assert_eq!(server.nobody.pull("alice/tools/bb:latest").await.bytes, bytes);
        let location = server.nobody.get("/v1/imagefile/alice/tools/bb:latest").await;
        let url = location.header("location").unwrap();
        let part = send(server.nobody.bare(Method::GET, url).header("range", "bytes=64-127")).await;
        assert_eq!((part.status.as_u16(), &part.bytes[..]), (206, &bytes[64..128]));
        // The same bytes elsewhere need no upload.
        alice.push("alice/tools/other", "1.0", "amd64", &bytes).await.ok();
        server.sweep_all().await;
        assert_eq!(server.objects().await, 1);
        assert_eq!(server.quota("alice").await, (bytes.len() as u64, 0));
        alice.delete("/v1/images/alice/tools/bb:latest?arch=amd64").await.ok();
        server.nobody.get("/v1/images/alice/tools/bb:latest").await.error(404);
        server.sweep_all().await;
        assert_eq!(server.nobody.pull("alice/tools/other:1.0").await.bytes, bytes);
        alice.delete("/v1/images/alice/tools/other:1.0?arch=amd64").await.ok();
        assert_eq!(server.quota("alice").await, (0, 0));
        server.sweep_all().await;
        assert_eq!(server.objects().await, 0);
    })
    .await;
}

#[tokio::test]
async fn groups_and_users_are_deleted_with_everything_in_them() {
    everywhere(|server| async move {
        let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
        alice.post("/api/groups", json!({ "name": "acme" })).await.ok();
        alice.put("/api/entities/acme/members/bob", json!({ "role": "contributor" })).await.ok();
        alice.post("/api/entities/acme/robots", json!({ "name": "ci", "role": "reader" })).await.ok();
        let bytes = SifBuilder::new("amd64").build();
        assert_eq!(push(&server, &bob, "acme/tools/bb", "v1", &bytes).await, 200);
        assert_eq!(push(&server, &bob, "bob/tools/bb", "v1", &bytes).await, 200);
        let image = json!({ "image": "acme/tools/bb:v1" });
        alice.post("/api/shares", image).await.ok();
        alice.delete("/v1/entities/acme").await.error(412);
        let gone = alice.delete("/v1/entities/acme?cascade=1").await;
        assert_eq!(
            (gone.status.as_u16(), &gone.json["data"]["done"]),
            (202, &json!(false)),
            "bytes are kept for a while"
        );
        server.nobody.get("/v1/images/acme/tools/bb:v1").await.error(404);
        assert_eq!(server.nobody.pull("bob/tools/bb:v1").await.bytes, bytes);
        server.admin.delete("/api/users/bob?cascade=1").await;
        bob.get("/v1/entities/bob").await.error(401);
        server.sweep_all().await;
        for name in ["acme", "bob"] {
            for kind in ["E", "U"] {
                let left = KeyRange { pk: format!("{kind}#{name}"), prefix: String::new() };
                let left = server.app.table.first_keys(left, 100).await.unwrap();
                assert!(left.iter().all(|key| key.sk == "Z"), "{left:?}");
            }
        }
        assert_eq!(server.objects().await, 0);
        server.admin.post("/api/users", json!({ "name": "bob" })).await.ok();
    })
    .await;
}

#[tokio::test]
async fn a_pinned_upload_takes_only_the_bytes_that_it_was_signed_for() {
    everywhere(|server| async move {
        let alice = server.user("alice", 0).await;
        let bytes = SifBuilder::new("amd64").build();
        let (container, image) = begun(&alice, "alice/tools/bb", &bytes).await;
        let url = &open(&alice, &image, &bytes, true).await;
        if server.header {
            // The store reads and hashes nothing, so the URL is as if nothing was announced.
            assert_eq!(alice.upload(url, &bytes).await.status, 200);
            return;
        }
        if !server.pins {
            // When this fails, the emulator has learnt it: call it `pinned` then.
            assert_eq!(alice.upload(url, &bytes).await.status, 403);
            return;
        }
        let mut wrong = bytes.clone();
        wrong[100] ^= 1;
        // With the hash of what is sent, the signature is wrong; with the signed hash, the bytes are.
        let other = alice.upload(url, &wrong).await;
        assert_eq!(other.status, 403, "{}", String::from_utf8_lossy(&other.bytes));
        let hash = Digest::of(&bytes).hex();
        let put = |body: Vec<u8>| alice.bare(Method::PUT, url).header("x-amz-content-sha256", &hash).body(body);
        let lie = send(put(wrong)).await;
        assert_eq!(lie.status, 400, "{}", String::from_utf8_lossy(&lie.bytes));
        let bare = send(alice.bare(Method::PUT, url).body(bytes.clone())).await;
        assert_eq!(bare.status, 403, "without the signed header: {}", String::from_utf8_lossy(&bare.bytes));
        let short = send(put(bytes[..1000].to_vec())).await;
        assert!(matches!(short.status.as_u16(), 400 | 403), "{}", short.status);
        assert_eq!(server.objects().await, 0, "what was refused is not stored");
        alice.put(&format!("/v2/imagefile/{image}/_complete"), json!({})).await.error(400);
        assert_eq!(send(put(bytes.clone())).await.status, 200);
        alice.put(&format!("/v2/imagefile/{image}/_complete"), json!({})).await.ok();
        tag(&alice, &container, &image, "1.0").await.ok();
        assert_eq!(server.nobody.pull("alice/tools/bb:1.0").await.bytes, bytes);
    })
    .await;
}

#[tokio::test]
async fn an_upload_of_an_old_client_is_verified_before_anybody_sees_it() {
    everywhere(|server| async move {
        let alice = server.user("alice", 0).await;
        let bytes = SifBuilder::new("amd64").seed(7).build();
        let (container, image) = begun(&alice, "alice/tools/bb", &bytes).await;
        let complete = format!("/v2/imagefile/{image}/_complete");
        let mut wrong = bytes.clone();
        wrong[100] ^= 1;
        for (sent, status) in [(wrong, 400), (bytes.clone(), 200)] {
            let url = open(&alice, &image, &bytes, false).await;
            assert_eq!(alice.upload(&url, &sent).await.status, 200);
            tag(&alice, &container, &image, "1.0").await.error(409);
            let done = alice.put(&complete, json!({})).await;
            assert_eq!(done.status, status, "{}", String::from_utf8_lossy(&done.bytes));
        }
        tag(&alice, &container, &image, "1.0").await.ok();
        assert_eq!(server.nobody.pull("alice/tools/bb:1.0").await.bytes, bytes);
        server.sweep_all().await;
        assert_eq!(server.objects().await, 1, "no staged object is left");
        assert_eq!(server.quota("alice").await, (bytes.len() as u64, 0));
    })
    .await;
}

/// The URL of a part.
async fn part_url(
    server: &Server,
    who: &Caller,
    image: &str,
    upload: &Value,
    (number, part): (usize, &[u8]),
) -> String {
    let hash = if server.pins || server.header { Digest::of(part).hex() } else { String::new() };
    let body = json!({ "partSize": part.len(), "uploadID": upload, "partNumber": number, "sha256sum": hash });
    let made = who.put(&format!("/v2/imagefile/{image}/_multipart"), body).await.ok();
    made["data"]["presignedURL"].as_str().unwrap().to_owned()
}

/// Sends a part with its hash, as clients always do, signed or not.
async fn send_part(who: &Caller, url: &str, hash: &str, part: &[u8]) -> Answer {
    send(who.bare(Method::PUT, url).header("x-amz-content-sha256", hash).body(part.to_vec())).await
}

#[tokio::test]
async fn an_image_in_parts_is_put_together_and_verified() {
    everywhere(|server| async move {
        let alice = server.user("alice", 0).await;
        let bytes = SifBuilder::new("amd64").payload_len(70 << 20).build();
        let (container, image) = begun(&alice, "alice/tools/big", &bytes).await;
        let opened = alice.post(&format!("/v2/imagefile/{image}/_multipart"), json!({ "filesize": bytes.len() })).await;
        let opened = opened.ok()["data"].clone();
        let size = usize::try_from(opened["partSize"].as_u64().unwrap()).unwrap();
        assert_eq!(opened["totalParts"], json!(2));
        let mut tokens = Vec::new();
        for (part, number) in bytes.chunks(size).zip(1..) {
            let url = part_url(&server, &alice, &image, &opened["uploadID"], (number, part)).await;
            let hash = Digest::of(part).hex();
            if number == 2 && server.pins {
                let mut wrong = part.to_vec();
                wrong[0] ^= 1;
                let lie = send_part(&alice, &url, &hash, &wrong).await;
                assert_eq!(lie.status, 400, "{}", String::from_utf8_lossy(&lie.bytes));
            }
            let sent = send_part(&alice, &url, &hash, part).await;
            assert_eq!(sent.status, 200, "{}", String::from_utf8_lossy(&sent.bytes));
            tokens.push(json!({ "partNumber": number, "token": sent.header("etag").unwrap() }));
        }
        let complete = format!("/v2/imagefile/{image}/_multipart_complete");
        let wrong = json!({ "partNumber": 2, "token": "\"00000000000000000000000000000000\"" });
        let body = json!({ "uploadID": opened["uploadID"], "completedParts": [tokens[0], wrong] });
        alice.put(&complete, body).await.error(400);
        let body = json!({ "uploadID": opened["uploadID"], "completedParts": tokens });
        alice.put(&complete, body.clone()).await.ok();
        alice.put(&complete, body).await.ok();
        tag(&alice, &container, &image, "1.0").await.ok();
        assert!(server.nobody.pull("alice/tools/big:1.0").await.bytes == bytes);
        assert_eq!(server.quota("alice").await, (bytes.len() as u64, 0));
        server.sweep_all().await;
        assert_eq!(server.objects().await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_was_left_is_swept_with_its_parts_and_its_reservation() {
    everywhere(|server| async move {
        let alice = server.user("alice", 0).await;
        let bytes = SifBuilder::new("amd64").build();
        let (_, image) = begun(&alice, "alice/tools/bb", &bytes).await;
        let body = json!({ "filesize": 100 << 20 });
        let opened = alice.post(&format!("/v2/imagefile/{image}/_multipart"), body).await.ok()["data"].clone();
        let part = vec![7; 64 << 20];
        let url = part_url(&server, &alice, &image, &opened["uploadID"], (1, &part)).await;
        let sent = send_part(&alice, &url, &Digest::of(&part).hex(), &part).await;
        assert_eq!(sent.status, 200, "{}", String::from_utf8_lossy(&sent.bytes));
        assert_eq!(server.quota("alice").await, (0, 100 << 20));
        assert_eq!(server.app.objects.open_parts().await.unwrap().len(), 1);
        server.sweep_all().await;
        assert_eq!(server.quota("alice").await, (0, 0));
        assert_eq!(server.app.objects.open_parts().await.unwrap().len(), 0);
        assert_eq!(server.objects().await, 0);
    })
    .await;
}

#[tokio::test]
async fn of_32_pushes_racing_for_a_quota_of_10_exactly_10_land() {
    everywhere(|server| async move {
        let bytes = |seed| SifBuilder::new("amd64").seed(seed).payload_len(20_000).build();
        let size = bytes(0).len() as u64;
        let alice = server.user("alice", 10 * size).await;
        alice.container("alice/tools/bb").await;
        let pushes = (0..32).map(|seed| {
            let (server, alice) = (&server, &alice);
            async move { push(server, alice, "alice/tools/bb", &format!("t{seed}"), &bytes(seed)).await }
        });
        let statuses = join_all(pushes).await;
        let landed = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(landed, 10, "{statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 200 | 507)), "{statuses:?}");
        assert_eq!(server.quota("alice").await, (10 * size, 0));
        server.sweep_all().await;
        assert_eq!(server.objects().await, 10);
        for (status, seed) in statuses.iter().zip(0..) {
            let pulled = server.nobody.pull(&format!("alice/tools/bb:t{seed}")).await;
            assert_eq!(pulled.status.as_u16(), if *status == 200 { 200 } else { 404 });
            assert!(*status != 200 || pulled.bytes == bytes(seed));
        }
    })
    .await;
}

#[tokio::test]
async fn of_16_pushes_racing_for_one_tag_the_last_is_there_whole_and_the_others_too() {
    everywhere(|server| async move {
        let alice = server.user("alice", 0).await;
        alice.container("alice/tools/bb").await;
        let bytes = |seed| SifBuilder::new("amd64").seed(seed).payload_len(20_000).build();
        let pushes = (0..16).map(|seed| {
            let (server, alice) = (&server, &alice);
            async move { push(server, alice, "alice/tools/bb", "latest", &bytes(seed)).await }
        });
        assert_eq!(join_all(pushes).await, [200; 16]);
        let latest = server.nobody.pull("alice/tools/bb:latest").await.bytes;
        assert!((0..16).any(|seed| bytes(seed) == latest));
        for seed in 0..16 {
            let hash = Digest::of(&bytes(seed)).library();
            assert_eq!(server.nobody.pull(&format!("alice/tools/bb:{hash}")).await.bytes, bytes(seed));
        }
        let tags = server.nobody.get("/v1/images/alice/tools/bb:latest").await.ok();
        assert_eq!(tags["data"]["tags"], json!(["latest"]));
    })
    .await;
}

#[tokio::test]
async fn lists_of_several_pages_hold_everything_once() {
    everywhere(|server| async move {
        let alice = server.user("alice", 0).await;
        let alice_is = &alice;
        let names: Vec<String> = (0..130).map(|number| format!("c{number:03}")).collect();
        let entity = alice.get("/v1/entities/alice").await.ok()["data"]["id"].clone();
        for some in names.chunks(16) {
            let made = some.iter().map(|name| {
                let body = json!({ "name": name, "entity": entity });
                async move { alice_is.post("/v1/collections", body).await.ok() }
            });
            join_all(made).await;
        }
        let (mut found, mut after) = (Vec::new(), String::new());
        for _ in 0..10 {
            let page = alice.get(&format!("/v1/collections?entity=alice{after}")).await.ok();
            let rows = page["data"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned());
            found.extend(rows);
            match page["page"]["next"].as_str() {
                Some(next) if !next.is_empty() => after = format!("&after={next}"),
                _ => break,
            }
        }
        assert_eq!(found, names);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_well_says_so() {
    everywhere(|server| async move {
        assert_eq!(server.nobody.get("/readyz").await.status, 200);
    })
    .await;
}
