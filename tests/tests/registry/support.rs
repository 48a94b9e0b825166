//! The steps of a push through the registry one by one, and helpers that the tests share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use shared::App;
use shared::app::Parts;
use shared::auth::Keys;
use shared::config::Config;
use shared::domain::Digest;
use stackroom_tests::{Answer, Caller, Server, send};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const SIF_LAYER: &str = "application/vnd.sylabs.sif.layer.v1.sif";
pub(crate) const SIF_CONFIG: &str = "application/vnd.sylabs.sif.config.v1+json";

/// A repository that the tests push to.
pub(crate) const BB: &str = "alice/tools/bb";

pub(crate) const MIB: usize = 1 << 20;

/// The bytes' digest as the registry writes it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// A digest that no bytes of the tests have.
pub(crate) fn nothing() -> String {
    digest(b"bytes that nobody ever brings")
}

/// Bytes that are no image and can't be compressed; different ones for each seed.
pub(crate) fn junk(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Checks the status and the form of a registry error with one of its codes, and returns its message.
#[track_caller]
pub(crate) fn refused(answer: &Answer, status: u16, code: &str) -> String {
    let text = String::from_utf8_lossy(&answer.bytes);
    assert_eq!(answer.status.as_u16(), status, "{text}");
    assert_eq!(answer.json["errors"][0]["code"], json!(code), "{text}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json["errors"][0]["message"].as_str().unwrap().to_owned()
}

/// Checks the status of an answer.
#[track_caller]
pub(crate) fn is(answer: &Answer, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{}", String::from_utf8_lossy(&answer.bytes));
}

/// `HEAD`.
pub(crate) async fn head(who: &Caller, path: &str) -> Answer {
    send(who.request(Method::HEAD, path)).await
}

/// A request with a name and a secret in HTTP's Basic scheme.
pub(crate) fn basic(who: &Caller, method: Method, path: &str, name: &str, secret: &str) -> RequestBuilder {
    let pair = STANDARD.encode(format!("{name}:{secret}"));
    who.bare(method, path).header("authorization", format!("Basic {pair}"))
}

/// The path of a blob.
pub(crate) fn blob_at(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// The path of a manifest.
pub(crate) fn manifest_at(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// Opens an upload and returns its URL.
pub(crate) async fn open(who: &Caller, repository: &str) -> String {
    let opened = who.post(&format!("/v2/{repository}/blobs/uploads/"), Value::Null).await;
    is(&opened, 202);
    opened.header("location").unwrap().to_owned()
}

/// Uploads bytes to an upload, without stating their offset.
pub(crate) async fn patch(who: &Caller, url: &str, bytes: &[u8]) -> Answer {
    send(who.request(Method::PATCH, url).body(bytes.to_vec())).await
}

/// Uploads bytes to an upload, at the offset `start`.
pub(crate) async fn patch_at(who: &Caller, url: &str, start: usize, bytes: &[u8]) -> Answer {
    let range = format!("{start}-{}", start + bytes.len() - 1);
    send(who.request(Method::PATCH, url).header("content-range", range).body(bytes.to_vec())).await
}

/// The URL of an upload with the digest that closes it.
pub(crate) fn closing(url: &str, digest: &str) -> String {
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}digest={digest}")
}

/// Closes an upload with its last bytes.
pub(crate) async fn close(who: &Caller, url: &str, digest: &str, bytes: &[u8]) -> Answer {
    send(who.request(Method::PUT, &closing(url, digest)).body(bytes.to_vec())).await
}

/// Uploads a blob in one `PUT`, and returns the answer to that or to the first request that is refused.
pub(crate) async fn bring(who: &Caller, repository: &str, bytes: &[u8]) -> Answer {
    let opened = who.post(&format!("/v2/{repository}/blobs/uploads/"), Value::Null).await;
    match opened.header("location") {
        Some(url) => close(who, url, &digest(bytes), bytes).await,
        None => opened,
    }
}

/// Uploads a blob, and checks that it was accepted; returns its digest.
pub(crate) async fn blob(who: &Caller, repository: &str, bytes: &[u8]) -> String {
    let brought = bring(who, repository, bytes).await;
    is(&brought, 201);
    assert_eq!(brought.header("docker-content-digest"), Some(digest(bytes).as_str()));
    digest(bytes)
}

/// Uploads a blob if it is not there yet.
async fn there(who: &Caller, repository: &str, bytes: &[u8]) {
    if head(who, &blob_at(repository, &digest(bytes))).await.status != 200 {
        blob(who, repository, bytes).await;
    }
}

/// The bytes of a blob, wherever they must be fetched from.
pub(crate) async fn fetch(who: &Caller, repository: &str, digest: &str) -> Answer {
    let answer = who.get(&blob_at(repository, digest)).await;
    match answer.header("location") {
        Some(url) => {
            is(&answer, 307);
            send(who.bare(Method::GET, url)).await
        }
        None => answer,
    }
}

/// The descriptor with which a manifest names something.
pub(crate) fn named(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
}

/// The manifest of an image.
pub(crate) fn image(config: &[u8], layers: &[&[u8]]) -> Value {
    let layers: Vec<Value> = layers.iter().map(|layer| named(LAYER, layer)).collect();
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": named(CONFIG, config), "layers": layers })
}

/// The index of several manifests.
pub(crate) fn index(manifests: &[&str]) -> Value {
    let manifests: Vec<Value> = manifests.iter().map(|one| named(MANIFEST, one.as_bytes())).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
}

/// The manifest of a SIF image as other tools write it: not byte by byte the same as ours.
pub(crate) fn of_sif(bytes: &[u8]) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": named(SIF_CONFIG, b"{}"),
        "layers": [named(SIF_LAYER, bytes)], "annotations": { "made.by": "another tool" },
    })
}

/// Pushes a manifest.
pub(crate) async fn put(who: &Caller, repository: &str, reference: &str, kind: &str, body: &str) -> Answer {
    let request = who.request(Method::PUT, &manifest_at(repository, reference));
    send(request.header("content-type", kind).body(body.to_owned())).await
}

/// Pushes an image with a configuration and layers under a tag, and returns its manifest.
pub(crate) async fn push(who: &Caller, repository: &str, tag: &str, config: &[u8], layers: &[&[u8]]) -> String {
    for bytes in layers.iter().chain([&config]) {
        there(who, repository, bytes).await;
    }
    let body = image(config, layers).to_string();
    is(&put(who, repository, tag, MANIFEST, &body).await, 201);
    body
}

/// Pushes a SIF image as ORAS does, under a tag; returns its manifest.
pub(crate) async fn push_sif(who: &Caller, repository: &str, tag: &str, bytes: &[u8]) -> String {
    for bytes in [bytes, b"{}"] {
        there(who, repository, bytes).await;
    }
    let body = of_sif(bytes).to_string();
    is(&put(who, repository, tag, MANIFEST, &body).await, 201);
    body
}

/// Points the tags `t0`, `t1` and so on at a manifest that is there, twenty with each request.
pub(crate) async fn tag_many(who: &Caller, repository: &str, document: &str, count: usize) {
    let tags: Vec<String> = (0..count).map(|number| format!("tag=t{number}")).collect();
    for some in tags.chunks(20) {
        let path = format!("{}?{}", manifest_at(repository, &digest(document.as_bytes())), some.join("&"));
        let request = who.request(Method::PUT, &path).header("content-type", MANIFEST);
        is(&send(request.body(document.to_owned())).await, 201);
    }
}

/// The bytes of a manifest, which must exist.
pub(crate) async fn manifest(who: &Caller, repository: &str, reference: &str) -> String {
    let answer = who.get(&manifest_at(repository, reference)).await;
    is(&answer, 200);
    String::from_utf8(answer.bytes).unwrap()
}

/// The tags of a repository.
pub(crate) async fn tags(who: &Caller, repository: &str) -> Vec<String> {
    let listed = who.get(&format!("/v2/{repository}/tags/list")).await;
    is(&listed, 200);
    serde_json::from_value(listed.json["tags"].clone()).unwrap()
}

/// Requests a token with a form.
pub(crate) async fn form(server: &Server, body: &str) -> Answer {
    let request = server.nobody.request(Method::POST, "/token");
    send(request.header("content-type", "application/x-www-form-urlencoded").body(body.to_owned())).await
}

/// The text of the keys that sign a server's tokens.
pub(crate) fn keys_of(server: &Server) -> String {
    std::fs::read_to_string(server.local.admin_token().with_file_name("keys")).unwrap()
}

/// The same installation as seen by another process: with keys, a clock and settings of its own.
pub(crate) fn installation(
    server: &Server,
    keys: Option<&str>,
    clock: fn() -> std::time::Duration,
    change: impl FnOnce(&mut Config),
) -> App {
    let own = &*server.local.app;
    let mut config = own.config.clone();
    change(&mut config);
    let keys = Keys::parse(&keys.map_or_else(|| keys_of(server), str::to_owned)).unwrap();
    let (table, index, objects) = (own.table.clone(), own.index.clone(), own.objects.clone());
    App::new(Parts { config, table, index, objects, keys, clock })
}

/// The same caller, talking to another process of the same installation, with keys and settings of its own.
pub(crate) async fn beside(
    server: &Server,
    who: &Caller,
    keys: Option<&str>,
    change: impl FnOnce(&mut Config),
) -> Caller {
    let app = installation(server, keys, server.local.app.clock, change);
    let router = axum::Router::from(server::site::Site::shared(&app).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(server::serve::answer(
        listener,
        router,
        server::limits::Limits::of(&app.config),
        std::future::pending(),
    ));
    Caller::new(&url, who.token.clone())
}

/// The same caller, talking to the same installation on functions: the bytes of blobs are fetched from the store.
pub(crate) async fn on_functions(server: &Server, who: &Caller) -> Caller {
    beside(server, who, None, |config| config.serve_blobs = false).await
}

/// Requests a short-lived token for some scopes with the caller's API token, and returns a caller who holds it.
pub(crate) async fn narrowed(who: &Caller, name: &str, scopes: &[&str]) -> Caller {
    let query = scopes.iter().map(|scope| format!("&scope={scope}")).collect::<Vec<_>>().concat();
    let path = format!("/token?service=x{query}");
    let answer = send(basic(who, Method::GET, &path, name, who.token.as_deref().unwrap())).await;
    is(&answer, 200);
    who.with(answer.json["token"].as_str().unwrap())
}
