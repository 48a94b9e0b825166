//! The registry on other people's emulators: streams into multipart uploads, redirects to the bucket, `stackroom ingest`.

use crate::support::{
    MANIFEST, MIB, basic, blob, blob_at, close, closing, digest, fetch, head, image, index, is, junk, manifest, named,
    open, patch, patch_at, push, push_sif, put, refused, tags,
};
use crate::{Server, everywhere, everywhere_with};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, send};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BB: &str = "alice/tools/bb";

#[tokio::test]
async fn an_image_of_layers_is_pushed_pulled_listed_mounted_and_deleted() {
    everywhere(|server| async move {
        let alice = server.user("alice", 0).await;
        let (large, small) = (junk(1, 21 * MIB + 5), junk(2, 1000));
        // In pieces that don't match parts: the rest of each waits in an object of its own.
        let url = open(&alice, BB).await;
        let mut at = 0;
        for piece in large.chunks(9 * MIB + 1) {
            is(&patch_at(&alice, &url, at, piece).await, 202);
            at += piece.len();
        }
        let status = alice.get(&url).await;
        is(&status, 204);
        assert_eq!(status.header("range"), Some(format!("0-{}", large.len() - 1).as_str()));
        is(&patch_at(&alice, &url, 5, b"elsewhere").await, 416);
        is(&close(&alice, &url, &digest(&large), b"").await, 201);
        let body = push(&alice, BB, "v1", b"config", &[&large, &small]).await;
        assert_eq!(manifest(&alice, BB, "v1").await, body);
        assert!(fetch(&alice, BB, &digest(&large)).await.bytes == large);
        let answer = alice.get(&blob_at(BB, &digest(&large))).await;
        is(&answer, 307);
        let part = server.nobody.bare(Method::GET, answer.header("location").unwrap()).header("range", "bytes=5-9");
        let part = send(part).await;
        assert_eq!((part.status.as_u16(), &part.bytes[..]), (206, &large[5..10]));
        let used = (large.len() + small.len() + 6) as u64;
        assert_eq!(server.quota("alice").await, (used, 0));

        // Under their SHA-512 the same bytes are the same blob.
        let sha512 = Sha512::digest(&small).iter().fold("sha512:".to_owned(), |text, byte| text + &format!("{byte:02x}"));
        is(&close(&alice, &open(&alice, BB).await, &sha512, &small).await, 201);
        assert_eq!(fetch(&alice, BB, &sha512).await.bytes, small);
        assert_eq!(server.quota("alice").await, (used, 0));

        let other = "alice/tools/other";
        let mount = format!("/v2/{other}/blobs/uploads/?mount={}&from={BB}", digest(&large));
        is(&alice.post(&mount, Value::Null).await, 201);
        assert!(fetch(&alice, other, &digest(&large)).await.bytes == large);

        let about = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "text/about", "config": named("text/plain", b"config"),
            "layers": [], "subject": named(MANIFEST, body.as_bytes()),
        });
        is(&put(&alice, BB, "about", MANIFEST, &about.to_string()).await, 201);
        let both = index(&[&body]).to_string();
        is(&put(&alice, BB, "both", crate::support::INDEX, &both).await, 201);
        let referrers = alice.get(&format!("/v2/{BB}/referrers/{}", digest(body.as_bytes()))).await;
        assert_eq!(referrers.json["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(tags(&alice, BB).await, ["about", "both", "v1"]);
        server.sweep_all().await;
        assert!(fetch(&alice, BB, &digest(&large)).await.bytes == large);
        refused(&alice.get(&blob_at(BB, &sha512)).await, 404, "BLOB_UNKNOWN");

        for reference in [&body, &about.to_string(), &both] {
            is(&alice.delete(&crate::support::manifest_at(BB, &digest(reference.as_bytes()))).await, 202);
        }
        refused(&alice.get(&blob_at(BB, &digest(&large))).await, 404, "BLOB_UNKNOWN");
        server.sweep_all().await;
        assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), 0));
        assert!(server.app.objects.open_parts().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_sif_image_is_the_same_through_both_doors() {
    everywhere(|server| async move {
        let alice = server.user("alice", 0).await;
        let bytes = SifBuilder::new("amd64").seed(3).build();
        push_sif(&alice, BB, "oras", &bytes).await;
        assert!(alice.pull(&format!("{BB}:oras")).await.bytes == bytes);
        let other = SifBuilder::new("amd64").seed(4).build();
        assert_eq!(crate::push(&server, &alice, BB, "library", &other).await, 200);
        let document: Value = serde_json::from_str(&manifest(&alice, BB, "library").await).unwrap();
        let layer = document["layers"][0]["digest"].as_str().unwrap();
        assert_eq!((layer, fetch(&alice, BB, layer).await.bytes == other), (digest(&other).as_str(), true));
        assert_eq!(server.quota("alice").await, ((bytes.len() + other.len() + 2) as u64, 0));
    })
    .await;
}

#[tokio::test]
async fn a_token_is_had_for_a_password_and_wrong_bytes_are_refused() {
    everywhere(|server| async move {
        let user = json!({ "name": "bob", "password": "correct horse" });
        server.admin.post("/api/users", user).await.ok();
        let path = "/token?service=x&scope=repository:bob/tools/bb:pull,push";
        let answer = send(basic(&server.nobody, Method::GET, path, "bob", "correct horse")).await;
        is(&answer, 200);
        is(&send(basic(&server.nobody, Method::GET, path, "bob", "wrong horse")).await, 401);
        let bob = server.nobody.with(answer.json["token"].as_str().unwrap());
        let url = open(&bob, "bob/tools/bb").await;
        let bytes = junk(5, 9 * MIB);
        is(&patch(&bob, &url, &bytes).await, 202);
        refused(&close(&bob, &url, &digest(b"others"), b"").await, 400, "DIGEST_INVALID");
        is(&head(&bob, &blob_at("bob/tools/bb", &digest(&bytes))).await, 404);
        server.sweep_all().await;
        assert_eq!((server.quota("bob").await, server.objects().await), ((0, 0), 0));
    })
    .await;
}

#[tokio::test]
async fn of_16_pushes_racing_for_one_tag_beside_sweeps_all_are_there_whole() {
    everywhere(|server| async move {
        let alice = server.user("alice", 0).await;
        let (base, alice_is) = (junk(9, 5000), &alice);
        blob(&alice, BB, &base).await;
        let pushes = (0..16_u64).map(|seed| {
            let base = &base;
            async move {
                push(alice_is, BB, "latest", format!("config {seed}").as_bytes(), &[base, &junk(seed + 20, 900)]).await
            }
        });
        let sweeps = async {
            for _ in 0..4 {
                server.admin.post("/api/sweep", json!({})).await.ok();
            }
        };
        let (bodies, ()) = futures::join!(join_all(pushes), sweeps);
        let latest = manifest(&alice, BB, "latest").await;
        assert!(bodies.contains(&latest));
        for (seed, body) in (0..16_u64).zip(&bodies) {
            assert_eq!(manifest(&alice, BB, &digest(body.as_bytes())).await, *body);
            assert_eq!(fetch(&alice, BB, &digest(&junk(seed + 20, 900))).await.bytes, junk(seed + 20, 900));
        }
        assert_eq!(fetch(&alice, BB, &digest(&base)).await.bytes, base);
    })
    .await;
}

/// `stackroom ingest` as its own process.
struct Ingest(Child);

impl Drop for Ingest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ingest {
    async fn start(server: &Server, port: u16) -> Self {
        let program = std::env::var("STACKROOM_BIN").expect("STACKROOM_BIN is the built `stackroom`");
        let mut command = Command::new(program);
        command.args(["ingest", "--listen", &format!("127.0.0.1:{port}")]).envs(server.environment.iter().cloned());
        let child = Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        for _ in 0..600 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return child;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("`stackroom ingest` does not listen");
    }
}

/// A caller without a token, who sends nothing but bytes: registry clients don't send their token to another host.
fn stranger(server: &Server) -> Caller {
    Caller::new(&server.url, None)
}

#[tokio::test]
async fn bytes_are_brought_to_an_ingest_process_on_another_host_which_may_die() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("http://localhost:{port}");
    everywhere_with(Some(&host), |server| {
        let host = host.clone();
        async move {
            let alice = server.user("alice", 0).await;
            let ingest = Ingest::start(&server, port).await;
            let (bytes, stranger) = (junk(1, 30 * MIB), stranger(&server));
            let url = open(&alice, BB).await;
            assert!(url.starts_with(&format!("{host}/v2/{BB}/blobs/uploads/")), "{url}");
            is(&patch(&stranger, &url, &bytes[..17 * MIB]).await, 202);
            drop(ingest);
            assert!(
                stranger.bare(Method::PATCH, &url).body(&b"more"[..]).send().await.is_err(),
                "nobody listens there"
            );
            let ingest = Ingest::start(&server, port).await;
            let status = stranger.get(&url).await;
            is(&status, 204);
            assert_eq!(status.header("range"), Some(format!("0-{}", 17 * MIB - 1).as_str()));
            let rest = stranger.bare(Method::PUT, &closing(&url, &digest(&bytes))).body(bytes[17 * MIB..].to_vec());
            is(&send(rest).await, 201);
            blob(&alice, BB, b"config").await;
            let body = image(b"config", &[&bytes]).to_string();
            is(&put(&alice, BB, "v1", MANIFEST, &body).await, 201);
            assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes);
            // It accepts bytes and nothing else.
            for path in [format!("/v2/{BB}/manifests/v1"), format!("/v2/{BB}/tags/list"), "/api/users".to_owned()] {
                is(&alice.get(&format!("{host}{path}")).await, 404);
            }
            server.sweep_all().await;
            assert_eq!(server.quota("alice").await, (bytes.len() as u64 + 6, 0));
            assert_eq!(server.objects().await, 2);
            drop(ingest);
        }
    })
    .await;
}
