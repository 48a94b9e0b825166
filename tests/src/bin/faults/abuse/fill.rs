//! What is on the server before anybody abuses it.

use crate::process::{Client, PATIENCE};
use futures::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Digest;
use shared::domain::manifest::{EMPTY, OCI_MANIFEST, SIF_CONFIG, SIF_LAYER};
use stackroom_tests::sif::SifBuilder;
use std::time::Instant;

/// The container with many tags.
pub(super) const TAGGED: &str = "alice/c/many";
/// A container with many images and without tags, not even `latest`.
pub(super) const UNTAGGED: &str = "eve/c/untagged";
/// The image that bob looks up.
pub(super) const BOBS: &str = "bob/tools/hello:v1";
const BOBS_CONTAINER: &str = "bob/tools/hello";

/// How many tags an image has, and how many are set at once.
const TAGS: usize = 100;
const TAGS_AT_ONCE: usize = 20;
/// How many images a container has, one of them with bytes: a search compares those with every container.
const IMAGES: usize = 10;
/// How many requests are sent at a time.
const AT_ONCE: usize = 8;

/// The tokens, the password and the id that the phases need.
pub(super) struct Filled {
    /// Bob's token.
    pub(super) bob: String,
    /// Bob's password.
    pub(super) password: String,
    /// Eve's token.
    pub(super) eve: String,
    /// The id of the container [`TAGGED`].
    pub(super) tagged: String,
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Adds the users, and fills their containers.
pub(super) async fn fill(admin: &Client) -> Filled {
    let (tags, images) = (number("ABUSE_TAGS", 20_000), number("ABUSE_IMAGES", 30_000));
    let password = "correct horse battery staple".to_owned();
    let body = json!({ "name": "bob", "password": password });
    admin.ok(Method::POST, "/api/users", Some(body)).await;
    let bob = token(admin, "bob").await;
    let (_, alice) = user(admin, "alice", 0).await;
    let (eve, eves) = user(admin, "eve", 0).await;
    let bobs = admin.with(Some(bob.clone()));
    container(&bobs, BOBS_CONTAINER).await;
    pushed(&bobs, BOBS_CONTAINER, &sif(0), &[vec!["v1".to_owned()]]).await;

    let began = Instant::now();
    let tagged = container(&alice, TAGGED).await;
    let count = tags.div_ceil(TAGS);
    let all = stream::iter(0..count).map(|image| tag_many(&alice, image)).buffer_unordered(AT_ONCE / 2);
    all.collect::<Vec<()>>().await;
    println!("{} tags of {count} images: {} s", count * TAGS, began.elapsed().as_secs());

    let began = Instant::now();
    let count = many(&eves, images).await;
    println!("{count} images, one of {IMAGES} with bytes: {} s", began.elapsed().as_secs());
    Filled { bob, password, eve, tagged }
}

/// A token that may do everything that its user may.
async fn token(admin: &Client, name: &str) -> String {
    let made = admin.ok(Method::POST, &format!("/api/users/{name}/tokens"), Some(json!({ "name": "abuse" }))).await;
    made["data"]["token"].as_str().unwrap().to_owned()
}

/// Adds a user with a quota in bytes, and returns their token and a client with it.
pub(super) async fn user(admin: &Client, name: &str, quota: u64) -> (String, Client) {
    admin.ok(Method::POST, "/api/users", Some(json!({ "name": name, "quota": quota }))).await;
    let token = token(admin, name).await;
    (token.clone(), admin.with(Some(token)))
}

/// Makes a container, and what it lies in, and returns its id.
pub(super) async fn container(user: &Client, path: &str) -> String {
    let (above, name) = path.rsplit_once('/').unwrap();
    let (entity, collection) = above.split_once('/').unwrap();
    let entity = made(user, "/v1/entities", json!({ "name": entity })).await;
    let collection = made(user, "/v1/collections", json!({ "name": collection, "entity": entity })).await;
    made(user, "/v1/containers", json!({ "name": name, "collection": collection })).await
}

/// Makes something, and returns its id.
async fn made(user: &Client, path: &str, body: Value) -> String {
    user.ok(Method::POST, path, Some(body)).await["data"]["id"].as_str().unwrap().to_owned()
}

/// A small image.
fn sif(seed: usize) -> Vec<u8> {
    SifBuilder::new("amd64").seed(seed as u64).payload_len(64).build()
}

/// Sends something that the registry must take.
async fn taken(request: reqwest::RequestBuilder) {
    let answer = request.timeout(PATIENCE).send().await.unwrap();
    let (status, path) = (answer.status(), answer.url().path().to_owned());
    assert!(status == 201, "{path}: {status} {}", answer.text().await.unwrap_or_default());
}

/// Pushes an image through the registry, where many tags are set at once.
async fn pushed(user: &Client, container: &str, image: &[u8], tags: &[Vec<String>]) {
    for blob in [EMPTY, image] {
        let path = format!("/v2/{container}/blobs/uploads/?digest={}", Digest::of(blob));
        taken(user.request(Method::POST, &path).body(blob.to_vec())).await;
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": SIF_CONFIG, "digest": Digest::of(EMPTY), "size": EMPTY.len() },
        "layers": [{ "mediaType": SIF_LAYER, "digest": Digest::of(image), "size": image.len() }],
    });
    let manifest = manifest.to_string();
    for some in tags {
        let also: Vec<String> = some.iter().map(|tag| format!("tag={tag}")).collect();
        let path = format!("/v2/{container}/manifests/{}?{}", Digest::of(manifest.as_bytes()), also.join("&"));
        taken(user.request(Method::PUT, &path).header("content-type", OCI_MANIFEST).body(manifest.clone())).await;
    }
}

/// Pushes one image with its tags.
async fn tag_many(alice: &Client, image: usize) {
    let names: Vec<String> = (0..TAGS).map(|tag| format!("v{image}.{tag}")).collect();
    let some: Vec<Vec<String>> = names.chunks(TAGS_AT_ONCE).map(<[String]>::to_vec).collect();
    pushed(alice, TAGGED, &sif(image + 1), &some).await;
}

/// Makes images without bytes: a tenth of them in one container, the others in many, each with one image that has them.
async fn many(eve: &Client, images: usize) -> usize {
    if images == 0 {
        container(eve, UNTAGGED).await;
        return 0;
    }
    let image = sif(0);
    let known = Digest::of(&image);
    container(eve, "eve/c/known").await;
    pushed(eve, "eve/c/known", &image, &[vec!["v1".to_owned()]]).await;
    let untagged = container(eve, UNTAGGED).await;
    let none = stream::iter(0..images / 10).map(|at| begun(eve, &untagged, at)).buffer_unordered(AT_ONCE);
    let alone = none.collect::<Vec<()>>().await.len();
    let collection = eve.ok(Method::GET, "/v1/collections/eve/c", None).await["data"]["id"].clone();
    let count = (images - alone).div_ceil(IMAGES);
    let some = stream::iter(0..count)
        .map(|at| few(eve, json!({ "name": format!("few-{at}"), "collection": collection }), known));
    let few = some.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    alone + few.len() * IMAGES
}

/// Makes a container and its images, of which one has bytes that are there already.
async fn few(eve: &Client, container: Value, known: Digest) {
    let id = made(eve, "/v1/containers", container).await;
    let body = json!({ "hash": known.library(), "container": id });
    let image = eve.ok(Method::POST, "/v1/images", Some(body)).await;
    assert_eq!(image["data"]["uploaded"], json!(true), "{image}");
    for at in 1..IMAGES {
        begun(eve, &id, at).await;
    }
}

/// An image whose bytes never come.
async fn begun(eve: &Client, container: &str, at: usize) {
    let hash = Digest::of(format!("{container} {at}").as_bytes()).library();
    eve.ok(Method::POST, "/v1/images", Some(json!({ "hash": hash, "container": container }))).await;
}
