//! A disk that is full while people push. What is refused says so, what was acknowledged is there, also after `kill -9`
//! and a start on the full disk, and deletions make room again.
//!
//! `TMPDIR` is a small file system: `scripts/test full` mounts one.

use crate::big::free;
use crate::process::{self, Client, Process, folder, free_port, put, sweep};
use crate::{Checks, Skipped};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::Digest;
use stackroom_tests::sif::SifBuilder;
use std::collections::BTreeMap;

/// The most bytes that the disk may have, so that it is soon full.
const MOST: u64 = 256 << 20;
/// How many requests in a row are refused until the disk counts as full.
const ENOUGH: u32 = 10;
/// The most requests that are tried before that.
const TRIES: u64 = 20_000;

struct Full {
    admin: Client,
    container: String,
    /// What was acknowledged, by tag.
    images: BTreeMap<String, (Digest, u64)>,
    /// Every status of a refusal, and how often it came.
    refused: BTreeMap<u16, u32>,
    count: u64,
}

impl Full {
    /// One request of a push. What is refused is counted.
    async fn step(&mut self, method: Method, path: &str, body: Value) -> Option<Value> {
        let answer = self.admin.call(method, path, Some(body)).await;
        let status = answer.as_ref().map_or(0, |answer| answer.status.as_u16());
        if (200..300).contains(&status) {
            return Some(answer?.json);
        }
        *self.refused.entry(status).or_default() += 1;
        None
    }

    /// Pushes a new image in one request. Whether it was acknowledged.
    async fn push(&mut self, length: usize) -> Option<()> {
        self.count += 1;
        let bytes = SifBuilder::new("amd64").seed(self.count).payload_len(length).build();
        let digest = Digest::of(&bytes);
        let body = json!({ "hash": digest.library(), "container": self.container });
        let image = self.step(Method::POST, "/v1/images", body).await?;
        let id = image["data"]["id"].as_str()?.to_owned();
        let body = json!({ "filesize": bytes.len(), "md5sum": "", "sha256sum": digest.hex() });
        let opened = self.step(Method::POST, &format!("/v2/imagefile/{id}"), body).await?;
        // No answer is a refusal, too, and none that a client understands.
        let status = put(opened["data"]["uploadURL"].as_str()?, &bytes).map_or(0, |(status, _)| status);
        if status != 200 {
            *self.refused.entry(status).or_default() += 1;
            return None;
        }
        self.step(Method::PUT, &format!("/v2/imagefile/{id}/_complete"), json!({})).await?;
        let tag = format!("t{}", self.count);
        let body = json!({ "Arch": "amd64", "Tag": tag, "ImageID": id });
        self.step(Method::POST, &format!("/v2/tags/{}", self.container), body).await?;
        self.images.insert(tag, (digest, bytes.len() as u64));
        Some(())
    }

    /// Pushes images of that length until the disk takes no more.
    async fn fill(&mut self, length: usize) {
        let (mut row, began) = (0, self.count);
        while row < ENOUGH {
            assert!(self.count < began + TRIES, "the disk is never full");
            row = if self.push(length).await.is_some() { 0 } else { row + 1 };
        }
    }

    /// Whether everything that was acknowledged can be pulled.
    async fn whole(&self) -> bool {
        for (tag, content) in &self.images {
            if self.admin.pull(&format!("acme/tools/bb:{tag}")).await != Some(*content) {
                println!("not whole: {tag}");
                return false;
            }
        }
        true
    }
}

/// Fills the disk, and looks what is left.
pub(crate) async fn run() -> Result<Checks, Skipped> {
    let (_guard, folder) = folder();
    let room = free(&folder);
    if room > MOST {
        return Err(Skipped(format!("{} has {} MiB free, too many to fill", folder.display(), room >> 20)));
    }
    let mut checks = Checks::default();
    let port = free_port();
    let mut server = Process::start(&folder, port, &[]).await;
    let admin = Client::new(&server.url, Some(process::admin_token(&folder).trim().to_owned()));
    let id = |made: Value| made["data"]["id"].as_str().unwrap().to_owned();
    let entity = id(admin.ok(Method::POST, "/v1/entities", Some(json!({ "name": "acme" }))).await);
    let body = json!({ "name": "tools", "entity": entity });
    let collection = id(admin.ok(Method::POST, "/v1/collections", Some(body)).await);
    let body = json!({ "name": "bb", "collection": collection });
    let container = id(admin.ok(Method::POST, "/v1/containers", Some(body)).await);
    let mut full = Full { admin, container, images: BTreeMap::new(), refused: BTreeMap::new(), count: 0 };
    // Some that stay when the large ones go.
    for _ in 0..3 {
        let pushed = full.push(40_000).await;
        checks.that(pushed.is_some(), || format!("an image is pushed: {:?}", full.refused));
    }
    // Until no large file fits, and then no small one.
    for length in [4_000_000, 40_000] {
        full.fill(length).await;
        println!("{} images, {} KiB free, refused: {:?}", full.images.len(), free(&folder) >> 10, full.refused);
    }
    checks.say(full.refused.keys().all(|status| *status == 507), "every refusal is 507: the disk is full");
    let blob = json!({ "is": "a blob" });
    let path = format!("/v2/acme/tools/layers/blobs/uploads/?digest={}", Digest::of(blob.to_string().as_bytes()));
    let status = full.admin.call(Method::POST, &path, Some(blob)).await.map(|answer| answer.status);
    checks.say(status == Some(StatusCode::INSUFFICIENT_STORAGE), &format!("so is that of the registry: {status:?}"));
    checks.say(full.whole().await, "what was acknowledged is there");

    server.kill().await;
    let mut server = Process::start(&folder, port, &[]).await;
    checks.say(full.whole().await, "also after a kill, and a start on the full disk");

    let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
        std::mem::take(&mut full.images).into_iter().partition(|(_, (_, size))| *size < 1_000_000);
    checks.say(
        kept.len() >= 3 && gone.len() > 3,
        &format!("there are {} small images, {} large", kept.len(), gone.len()),
    );
    let mut deleted = 0;
    for tag in gone.keys() {
        let path = format!("/v1/images/acme/tools/bb:{tag}?arch=amd64");
        let answer = full.admin.call(Method::DELETE, &path, None).await;
        deleted += usize::from(answer.is_some_and(|answer| answer.status.is_success()));
    }
    checks.say(deleted == gone.len(), &format!("{deleted} of {} images are deleted on a full disk", gone.len()));
    let (swept, rounds) = sweep(&full.admin).await;
    checks.say(swept["wrong_accounts"] == json!([]), &format!("{rounds} sweeps find no account wrong"));
    full.images = kept;
    full.refused.clear();
    checks.say(full.push(4_000_000).await.is_some(), &format!("then there is room again; {:?}", full.refused));
    checks.say(full.whole().await, "and everything that was not deleted is there");
    server.kill().await;
    Ok(checks)
}
