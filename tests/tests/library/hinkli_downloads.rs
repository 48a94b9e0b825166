//! The downloads of Hinkskalle's command `hinkli`, request by request as it sends them: the list of manifests, the file
//! of one, and the link for somebody without an account.

use crate::support::{join, private_collection, sif, text};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use shared::domain::{Digest, Role};
use stackroom_tests::{Caller, SERVING, Server};

/// A request with the headers of hinkli, which follows redirects.
fn hinkli(who: &Caller, method: Method, path: &str) -> RequestBuilder {
    let request = reqwest::Client::new().request(
        method,
        if path.starts_with("http") {
            path.to_owned()
        } else {
            who.bare(Method::GET, path).build().unwrap().url().to_string()
        },
    );
    let request = request.header("user-agent", "python-requests/2.32.3").header("accept", "*/*");
    match &who.token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

async fn read(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().unwrap())
}

/// Pushes a file or packed folder as hinkli does, except for the type of the manifest.
async fn push(who: &Caller, repository: &str, tag: &str, title: &str, bytes: &[u8], unpack: bool) -> Value {
    for blob in [bytes, b"{}"] {
        let path = format!("/v2/{repository}/blobs/uploads/?digest=sha256%3A{}", Digest::of(blob).hex());
        let sent = hinkli(who, Method::POST, &path).body(blob.to_vec()).send().await.unwrap();
        assert_eq!(sent.status(), 201);
    }
    let end = if unpack { "+gzip" } else { "" };
    let document = json!({
        "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.unknown.config.v1+json", "digest": Digest::of(b"{}"), "size": 2 },
        "layers": [{
            "mediaType": format!("application/vnd.oci.image.layer.v1.tar{end}"),
            "digest": Digest::of(bytes), "size": bytes.len(),
            "annotations": {
                "io.deis.oras.content.unpack": unpack.to_string(), "org.opencontainers.image.title": title,
            },
        }],
    });
    let request = hinkli(who, Method::PUT, &format!("/v2/{repository}/manifests/{tag}"));
    let request = request.header("content-type", "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(request.body(document.to_string()).send().await.unwrap().status(), 201);
    document
}

async fn manifests(who: &Caller, container: &str) -> Vec<Value> {
    let (status, list) = read(hinkli(who, Method::GET, &format!("/v1/containers/{container}/manifests"))).await;
    assert_eq!(status, 200, "{list}");
    list["data"].as_array().unwrap().clone()
}

fn tagged<'a>(manifests: &'a [Value], tag: &str) -> &'a Value {
    manifests.iter().find(|one| one["tags"].as_array().unwrap().contains(&json!(tag))).unwrap()
}

const DATA: &str = "alice/example/reads";

async fn start() -> (Server, Caller) {
    let server = Server::start_with(&[SERVING]).await;
    let alice = server.user("alice", 0).await;
    private_collection(&alice, "alice", "example").await;
    (server, alice)
}

#[tokio::test]
async fn list_downloads_shows_files_folders_and_images_with_their_tags() {
    let (_server, alice) = start().await;
    let document = push(&alice, DATA, "v1", "reads.txt", b"ACGT", false).await;
    push(&alice, DATA, "folder", "DIR", b"packed", true).await;
    let bytes = sif(1);
    alice.push(DATA, "image", "amd64", &bytes).await.ok();
    let list = manifests(&alice, DATA).await;
    assert_eq!(list.len(), 3, "{list:?}");
    let file = tagged(&list, "v1");
    let digest = Digest::of(document.to_string().as_bytes());
    for (name, value) in [
        ("type", json!("oras")),
        ("filename", json!("reads.txt")),
        ("hash", json!(digest.hex())),
        ("tags", json!(["v1"])),
        ("total_size", json!(4)),
        ("images", json!([Digest::of(b"ACGT").to_string()])),
        ("content", document),
        ("downloadCount", json!(0)),
    ] {
        assert_eq!(file[name], value, "{name}");
    }
    // Python before 3.11 reads a zone in this form only.
    assert!(text(file, "/createdAt").ends_with("+00:00"), "{file}");
    assert!(file["id"].is_string());
    assert_eq!(tagged(&list, "folder")["filename"], json!("DIR.tar.gz"));
    let image = tagged(&list, "image");
    assert_eq!((&image["type"], &image["filename"]), (&json!("singularity"), &json!("reads.sif")));
    assert_eq!(image["total_size"], json!(bytes.len()));
}

#[tokio::test]
async fn pull_gets_the_file_with_its_name_and_the_digest_that_hinkli_compares() {
    let (server, alice) = start().await;
    push(&alice, DATA, "v1", "reads.txt", b"ACGT", false).await;
    let id = text(tagged(&manifests(&alice, DATA).await, "v1"), "/id");
    let path = format!("/v1/manifests/{id}/download");
    let answer = hinkli(&alice, Method::GET, &path).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    for (name, value) in [
        ("content-disposition", "attachment; filename=\"reads.txt\"".to_owned()),
        ("docker-content-digest", Digest::of(b"ACGT").to_string()),
        ("content-length", "4".to_owned()),
        ("content-type", "application/octet-stream".to_owned()),
    ] {
        assert_eq!(header(&answer, name), Some(value.as_str()), "{name}");
    }
    assert_eq!(answer.bytes().await.unwrap(), b"ACGT"[..]);
    let part = hinkli(&alice, Method::GET, &path).header("range", "bytes=1-2").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.bytes().await.unwrap().as_ref()), (206, &b"CG"[..]));
    let head = hinkli(&alice, Method::HEAD, &path).send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, Some("4")));
    // An image is a file too.
    let bytes = sif(1);
    alice.push(DATA, "image", "amd64", &bytes).await.ok();
    let id = text(tagged(&manifests(&alice, DATA).await, "image"), "/id");
    let answer = hinkli(&alice, Method::GET, &format!("/v1/manifests/{id}/download")).send().await.unwrap();
    assert_eq!(header(&answer, "docker-content-digest"), Some(Digest::of(&bytes).to_string().as_str()));
    assert_eq!(answer.bytes().await.unwrap(), bytes);
    // What is private is not there for others, with the id or without.
    let bob = server.user("bob", 0).await;
    for who in [&bob, &server.nobody] {
        let missing = path.replace("reads", "other");
        let (there, nowhere) =
            (read(hinkli(who, Method::GET, &path)).await, read(hinkli(who, Method::GET, &missing)).await);
        assert_eq!((there.0, &there.1), (404, &nowhere.1));
        for list in [DATA, "alice/example/other"] {
            let (status, _) = read(hinkli(who, Method::GET, &format!("/v1/containers/{list}/manifests"))).await;
            assert_eq!(status, 404, "{list}");
        }
    }
}

#[tokio::test]
async fn where_the_object_store_sends_the_bytes_only_the_redirect_has_the_digest() {
    let (server, alice) = start().await;
    push(&alice, DATA, "v1", "reads.txt", b"ACGT", false).await;
    let id = text(tagged(&manifests(&alice, DATA).await, "v1"), "/id");
    let parts = shared::app::Parts {
        config: shared::config::Config { serve_blobs: false, ..server.local.app.config.clone() },
        table: server.local.app.table.clone(),
        index: server.local.app.index.clone(),
        objects: server.local.app.objects.clone(),
        keys: shared::auth::Keys::parse(
            &std::fs::read_to_string(server.local.admin_token().with_file_name("keys")).unwrap(),
        )
        .unwrap(),
        clock: shared::app::system_clock,
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::from(server::site::Site::shared(&shared::App::new(parts)).unwrap());
    let limits = server::limits::Limits::of(&server.local.app.config);
    tokio::spawn(server::serve::answer(listener, router, limits, std::future::pending()));
    let there = Caller::new(&url, alice.token.clone());
    let path = format!("/v1/manifests/{id}/download");
    let redirect = there.get(&path).await;
    assert_eq!(redirect.status, 303);
    assert_eq!(redirect.header("docker-content-digest"), Some(Digest::of(b"ACGT").to_string().as_str()));
    let last = hinkli(&there, Method::GET, &format!("{url}{path}")).send().await.unwrap();
    assert_eq!(header(&last, "content-disposition"), Some("attachment; filename=\"reads.txt\""));
    assert_eq!(header(&last, "docker-content-digest"), None);
    assert_eq!(last.bytes().await.unwrap(), b"ACGT"[..]);
}

#[tokio::test]
async fn download_token_makes_a_link_for_somebody_without_an_account() {
    let (server, alice) = start().await;
    push(&alice, DATA, "v1", "reads.txt", b"ACGT", false).await;
    let id = text(tagged(&manifests(&alice, DATA).await, "v1"), "/id");
    let ask = async |who: &Caller, body: Value| {
        hinkli(who, Method::POST, "/v1/get-download-token").json(&body).send().await.unwrap()
    };
    let made = ask(&alice, json!({ "type": "manifest", "id": id })).await;
    assert_eq!(made.status(), 202);
    let link = header(&made, "location").unwrap().to_owned();
    assert_eq!(text(&made.json().await.unwrap(), "/location"), link);
    // As `curl -fOJ` does.
    let answer = hinkli(&server.nobody, Method::GET, &link).send().await.unwrap();
    assert_eq!(header(&answer, "content-disposition"), Some("attachment; filename=\"reads.txt\""));
    assert_eq!(answer.bytes().await.unwrap(), b"ACGT"[..]);
    assert!(link.ends_with("/reads.txt"), "{link}");
    // It is a share like any other.
    let shares = alice.get(&format!("/api/shares?repository={DATA}")).await.ok();
    assert_eq!(shares["data"][0]["used"], json!(1));

    // What an administrator's hinkli adds: an end is kept, and nobody makes a link in the name of somebody else.
    let until = server.local.app.now().0 + 14 * 24 * 3600;
    let made = ask(&server.admin, json!({ "type": "manifest", "id": id, "username": "admin", "exp": until })).await;
    assert_eq!(made.status(), 202);
    let shares = alice.get(&format!("/api/shares?repository={DATA}")).await.ok();
    let rows = shares["data"].as_array().unwrap();
    let row = rows.iter().find(|row| row["created_by"] == "admin").unwrap();
    assert_eq!(row["expires"], json!(shared::domain::Time(until).to_string()));
    for who in [&alice, &server.admin] {
        assert_eq!(ask(who, json!({ "type": "manifest", "id": id, "username": "bob" })).await.status(), 403);
    }
    // Who may not share makes none; and ids of what is not there make none either.
    let (rita, bob) = (server.user("rita", 0).await, server.user("bob", 0).await);
    join(&server, "alice", "rita", Role::Reader).await;
    for (who, status) in [(&rita, 403), (&bob, 403), (&server.nobody, 401)] {
        assert_eq!(ask(who, json!({ "type": "manifest", "id": id })).await.status().as_u16(), status);
    }
    let missing = id.replace("reads", "other");
    for (body, status) in [
        (json!({ "type": "manifest", "id": missing }), 404),
        (json!({ "type": "manifest", "id": "1" }), 404),
        (json!({ "type": "image", "id": id }), 400),
        (json!({ "type": "manifest", "id": id, "exp": 1 }), 400),
        (json!({ "type": "manifest", "id": id, "uses": 1 }), 400),
    ] {
        assert_eq!(ask(&alice, body.clone()).await.status().as_u16(), status, "{body}");
    }
}
