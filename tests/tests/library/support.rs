//! The steps of a push one by one, and helpers that the tests share.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use shared::domain::{Actor, Digest, EntityName, Role, Roles};
use shared::rules::{Action, Resource};
use shared::service::access::system;
use shared::store::rows::{Member, Membership, Row};
use shared::store::table::{Condition, Write};
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Answer, Caller, Server, send};

/// The statuses that clients accept where something is created.
pub(crate) const MADE: &[u16] = &[200, 201];
/// The statuses that clients accept where only 200 will do.
pub(crate) const EXACTLY: &[u16] = &[200];

/// A small image; a different one for each seed.
pub(crate) fn sif(seed: u64) -> Vec<u8> {
    SifBuilder::new("amd64").seed(seed).build()
}

/// An image of exactly `len` bytes; a different one for each seed.
pub(crate) fn sif_of(seed: u64, len: usize) -> Vec<u8> {
    let bytes = SifBuilder::new("amd64").seed(seed).payload(vec![7; len - 32_768]).build();
    assert_eq!(bytes.len(), len);
    bytes
}

/// The bytes' digest as the library writes it.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Digest::of(bytes).library()
}

/// A number of bytes as the quota counts them.
pub(crate) fn len(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

/// The text at a place in an answer.
#[track_caller]
pub(crate) fn text(json: &Value, pointer: &str) -> String {
    json.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {json}")).to_owned()
}

/// One line of a trace: a request with its literal body, and the statuses that the clients accept.
pub(crate) async fn step(request: RequestBuilder, body: &str, statuses: &[u16]) -> Answer {
    let request = if body.is_empty() { request } else { request.body(body.to_owned()) };
    let answer = send(request).await;
    assert!(
        statuses.contains(&answer.status.as_u16()),
        "{}: {}",
        answer.status,
        String::from_utf8_lossy(&answer.bytes)
    );
    answer
}

/// A request of an old client, which writes `BEARER` in capitals.
pub(crate) fn shout(who: &Caller, method: Method, path: &str) -> RequestBuilder {
    who.bare(method, path).header("authorization", format!("BEARER {}", who.token.as_deref().unwrap()))
}

/// A push that has created its image, whose bytes may be missing.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    pub(crate) container: String,
    pub(crate) image: String,
    pub(crate) uploaded: bool,
}

/// Begins a push: creates what is missing of the path, and the image.
pub(crate) async fn begin(who: &Caller, path: &str, bytes: &[u8]) -> Push {
    let container = who.container(path).await;
    let image = who.image(&container, bytes).await;
    Push { container, image: text(&image, "/id"), uploaded: image["uploaded"] == json!(true) }
}

/// Begins a push and opens its single upload. Returns the URL for the bytes.
pub(crate) async fn opened(who: &Caller, path: &str, bytes: &[u8]) -> (Push, String) {
    let push = begin(who, path, bytes).await;
    let url = text(&who.open(&push.image, bytes).await.ok(), "/data/uploadURL");
    (push, url)
}

/// Begins a push like a client that sends no SHA-256, and opens its single upload. Returns the URL for the bytes.
pub(crate) async fn opened_old(who: &Caller, path: &str, bytes: &[u8]) -> (Push, String) {
    let push = begin(who, path, bytes).await;
    let body = json!({ "filesize": bytes.len(), "md5sum": "8638d37e503d5bf188ffe93d21150c55" });
    let url = text(&who.post(&format!("/v2/imagefile/{}", push.image), body).await.ok(), "/data/uploadURL");
    (push, url)
}

/// Completes a single upload.
pub(crate) async fn complete(who: &Caller, push: &Push) -> Answer {
    who.put(&format!("/v2/imagefile/{}/_complete", push.image), json!({})).await
}

/// Sets a tag for amd64.
pub(crate) async fn tag(who: &Caller, push: &Push, tag: &str) -> Answer {
    let body = json!({ "Arch": "amd64", "Tag": tag, "ImageID": push.image });
    who.post(&format!("/v2/tags/{}", push.container), body).await
}

/// An open multipart upload.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) push: Push,
    pub(crate) id: String,
    pub(crate) size: usize,
    pub(crate) count: u64,
}

/// Begins a push and opens a multipart upload.
pub(crate) async fn opened_parts(who: &Caller, path: &str, bytes: &[u8]) -> Parts {
    let push = begin(who, path, bytes).await;
    let body = json!({ "filesize": bytes.len() });
    let made = who.post(&format!("/v2/imagefile/{}/_multipart", push.image), body).await.ok();
    let number = |pointer: &str| made.pointer(pointer).unwrap().as_u64().unwrap();
    let size = usize::try_from(number("/data/partSize")).unwrap();
    Parts { push, id: text(&made, "/data/uploadID"), size, count: number("/data/totalParts") }
}

impl Parts {
    /// Asks for the URL of a part of some bytes.
    pub(crate) async fn ask(&self, who: &Caller, number: u64, part: &[u8]) -> Answer {
        let body = json!({
            "partSize": part.len(), "uploadID": self.id, "partNumber": number, "sha256sum": Digest::of(part).hex(),
        });
        who.put(&format!("/v2/imagefile/{}/_multipart", self.push.image), body).await
    }

    /// Sends a part and returns the store's `ETag`.
    pub(crate) async fn send(&self, who: &Caller, number: u64, part: &[u8]) -> String {
        let url = text(&self.ask(who, number, part).await.ok(), "/data/presignedURL");
        let sent = put_part(who, &url, part).await;
        assert_eq!(sent.status, 200, "{}", String::from_utf8_lossy(&sent.bytes));
        sent.header("etag").unwrap().to_owned()
    }

    /// Sends all parts and returns their `ETag`s.
    pub(crate) async fn send_all(&self, who: &Caller, bytes: &[u8]) -> Vec<String> {
        let mut etags = Vec::new();
        for (part, number) in bytes.chunks(self.size).zip(1..) {
            etags.push(self.send(who, number, part).await);
        }
        etags
    }

    /// Completes the upload of the parts with these numbers and `ETag`s.
    pub(crate) async fn complete(&self, who: &Caller, parts: &[(u64, &str)]) -> Answer {
        let named: Vec<Value> =
            parts.iter().map(|(number, etag)| json!({ "partNumber": number, "token": etag })).collect();
        let body = json!({ "uploadID": self.id, "completedParts": named });
        who.put(&format!("/v2/imagefile/{}/_multipart_complete", self.push.image), body).await
    }

    /// Completes the upload of all its parts.
    pub(crate) async fn complete_all(&self, who: &Caller, etags: &[String]) -> Answer {
        let named: Vec<(u64, &str)> = (1..).zip(etags.iter().map(String::as_str)).collect();
        self.complete(who, &named).await
    }

    /// Aborts the upload.
    pub(crate) async fn abort(&self, who: &Caller) -> Answer {
        let body = json!({ "uploadID": self.id });
        who.put(&format!("/v2/imagefile/{}/_multipart_abort", self.push.image), body).await
    }
}

/// Sends a part, exactly as the clients do: always its hash, no content type, no token.
pub(crate) async fn put_part(who: &Caller, url: &str, part: &[u8]) -> Answer {
    let request = who.bare(Method::PUT, url).header("x-amz-content-sha256", Digest::of(part).hex());
    send(request.body(part.to_vec())).await
}

/// The state before a push that must leave no trace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    quota: (u64, u64),
    objects: Vec<String>,
}

impl Standing {
    /// The state of an entity now.
    pub(crate) async fn of(server: &Server, entity: &str) -> Self {
        Self { quota: server.quota(entity).await, objects: server.objects().await }
    }

    /// Checks that the push of `who` had no effect: nobody finds the bytes in the container, and after sweeping, quota
    /// and objects are as before.
    pub(crate) async fn is_back(&self, server: &Server, who: &Caller, path: &str, bytes: &[u8]) {
        invisible(server, who, path, bytes).await;
        sweep_up(server).await;
        let entity = path.split('/').next().unwrap();
        assert_eq!(*self, Self::of(server, entity).await, "{path}");
        invisible(server, who, path, bytes).await;
    }
}

/// Checks that the bytes are neither available nor known: under their hash to anybody, as a download to their pusher.
pub(crate) async fn invisible(server: &Server, who: &Caller, path: &str, bytes: &[u8]) {
    let reference = format!("{path}:{}", hash(bytes));
    server.nobody.get(&format!("/v1/images/{reference}")).await.error(404);
    for caller in [&server.nobody, who] {
        caller.get(&format!("/v1/imagefile/{reference}")).await.error(404);
    }
    let seen = who.get(&format!("/v1/images/{reference}")).await;
    if seen.status.is_success() {
        assert_eq!(seen.json["data"]["uploaded"], json!(false));
    }
    let container = who.get(&format!("/v1/containers/{path}")).await;
    if container.status.is_success() {
        assert!(!container.json["data"]["images"].as_array().unwrap().contains(&seen.json["data"]["id"]));
    }
}

/// Sweeps everything that is left over. What one round condemns, the next one deletes.
pub(crate) async fn sweep_up(server: &Server) {
    for _ in 0..3 {
        server.sweep_all().await;
    }
}

/// Writes a row, as the server itself may do.
pub(crate) async fn write<R: Row>(server: &Server, row: &R) {
    let grant = system(Action::Manage, &Resource::Installation).unwrap();
    let written = server.local.app.table.write(&grant, vec![Write::put(row, Condition::None).unwrap()]).await.unwrap();
    assert_eq!(written, shared::store::table::Written::Done);
}

/// Changes the settings at the path of a route.
pub(crate) async fn set(who: &Caller, path: &str, settings: Value) -> Answer {
    send(who.request(Method::PATCH, path).body(settings.to_string())).await
}

/// Creates a collection whose containers are private.
pub(crate) async fn private_collection(owner: &Caller, entity: &str, name: &str) {
    let id = text(&owner.post("/v1/entities", json!({ "name": entity })).await.ok(), "/data/id");
    owner.post("/v1/collections", json!({ "name": name, "entity": id })).await.ok();
    set(owner, &format!("/v1/collections/{entity}/{name}"), json!({ "private": true })).await.ok();
}

/// Gives somebody a role on an entity, which need not exist.
pub(crate) async fn join(server: &Server, entity: &str, actor: &str, role: Role) {
    let (entity, actor): (EntityName, Actor) = (entity.parse().unwrap(), actor.parse().unwrap());
    let (roles, version) = (Roles::on_all(role), 0);
    write(server, &Member { entity: entity.clone(), actor: actor.clone(), roles: roles.clone(), version }).await;
    write(server, &Membership { entity, actor, roles }).await;
}

/// Gives somebody a role on that many other entities, named `e000` and so on, which exist only as such roles.
pub(crate) async fn join_many(server: &Server, user: &str, count: usize) {
    for number in 0..count {
        join(server, &format!("e{number:03}"), user, Role::Reader).await;
    }
}
