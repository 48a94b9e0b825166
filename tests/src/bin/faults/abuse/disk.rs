//! Users who bring bytes to the disk again and again, and the factor of their limit that it may hold.
//!
//! Each loop has a user of its own. The server may refuse any round but the first: what counts is what lies on the disk
//! afterwards.

use super::fill::{container, user};
use crate::Checks;
use crate::process::{self, Client, object_files, put};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Digest;
use stackroom_tests::sif::SifBuilder;
use std::path::Path;

const MIB: u64 = 1 << 20;
/// The limit of each account.
const LIMIT: u64 = 20 * MIB;
/// How many times its limit an account may occupy on the disk.
const FACTOR: u64 = 5;
/// What may lie there besides.
const REST: u64 = 64 * MIB;
/// The length of what is pushed and deleted.
const PUSHED: usize = 16 << 20;
/// The length of what is brought in parts.
const PARTS: usize = 19 << 20;

/// A way to bring more than one may.
#[derive(Debug, Clone, Copy)]
enum Loop {
    /// Push and delete.
    Delete,
    /// Open the upload of one image with another size each time, and bring it.
    Grow,
    /// Open many multipart uploads of one image, and bring all parts of each.
    Parts,
}

/// What became of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Taken,
    Refused(u16),
}

struct Spender {
    name: String,
    client: Client,
    container: String,
}

/// All loops, and the push of somebody else.
pub(super) async fn run(url: &str, folder: &Path, checks: &mut Checks) {
    let admin = Client::new(url, Some(process::admin_token(folder).trim().to_owned()));
    println!(
        "{:<8} | {:>6} | {:>7} | {:>8} | {:>12} | {:>11}",
        "disk", "rounds", "refused", "MiB more", "times limit", "at most MiB"
    );
    for (way, count) in [(Loop::Delete, 10), (Loop::Grow, 10), (Loop::Parts, 12)] {
        let name = format!("{way:?}").to_lowercase();
        let (_, client) = user(&admin, &name, LIMIT).await;
        let container = container(&client, &format!("{name}/c/spent")).await;
        repeat(&Spender { name, client, container }, Rounds { way, count, folder }, checks).await;
    }
    let (_, client) = user(&admin, "dora", LIMIT).await;
    let container = container(&client, "dora/c/spent").await;
    let dora = Spender { name: "dora".to_owned(), client, container };
    let image = SifBuilder::new("amd64").seed(99).payload_len(PUSHED).build();
    let pushed = dora.push(&image).await;
    checks.say(pushed == Round::Taken, &format!("disk: somebody else may push meanwhile: {pushed:?}"));
}

struct Rounds<'a> {
    way: Loop,
    count: usize,
    folder: &'a Path,
}

async fn repeat(spender: &Spender, what: Rounds<'_>, checks: &mut Checks) {
    let Rounds { way, count, folder } = what;
    let (before, mut most, mut refused) = (object_files(folder).1, 0, Vec::new());
    for round in 0..count {
        match spender.spend(way, round).await {
            Round::Taken => {}
            Round::Refused(status) => refused.push(status),
        }
        most = most.max(object_files(folder).1.saturating_sub(before));
    }
    let (name, allowed) = (&spender.name, FACTOR * LIMIT + REST);
    let times = most / (LIMIT / 10);
    println!(
        "{name:<8} | {count:>6} | {:>7} | {:>8} | {:>10}.{} | {:>11}",
        refused.len(),
        most / MIB,
        times / 10,
        times % 10,
        allowed / MIB
    );
    let said = format!("disk: {name}: at least one of {count} rounds is taken, others are refused with {refused:?}");
    let right = refused.iter().all(|status| (400..500).contains(status) || [503, 507].contains(status));
    checks.say(right && refused.len() < count && most >= 16 * MIB, &said);
    let said = format!("disk: {name}: {} MiB more on the disk, at most {}", most / MIB, allowed / MIB);
    checks.say(most <= allowed, &said);
}

impl Spender {
    async fn spend(&self, way: Loop, round: usize) -> Round {
        match way {
            Loop::Delete => self.push_and_delete(round).await,
            Loop::Grow => self.grow(round).await,
            Loop::Parts => self.parts(round).await,
        }
    }

    /// Sends a request, and returns the data of its answer, or the status of its refusal.
    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, u16> {
        let answer = self.client.call(method, path, Some(body)).await.unwrap_or_else(|| panic!("{path}: no answer"));
        if answer.status.is_success() { Ok(answer.json["data"].clone()) } else { Err(answer.status.as_u16()) }
    }

    async fn image(&self, hash: Digest) -> Result<String, u16> {
        let body = json!({ "hash": hash.library(), "container": self.container });
        let made = self.ask(Method::POST, "/v1/images", body).await?;
        Ok(made["id"].as_str().unwrap().to_owned())
    }

    async fn push(&self, bytes: &[u8]) -> Round {
        let hash = Digest::of(bytes);
        let pushed = async {
            let image = self.image(hash).await?;
            let path = format!("/v2/imagefile/{image}");
            let body = json!({ "filesize": bytes.len(), "sha256sum": hash.hex() });
            let opened = self.ask(Method::POST, &path, body).await?;
            sent(&opened["uploadURL"], bytes).await?;
            self.ask(Method::PUT, &format!("{path}/_complete"), json!({})).await
        };
        round(pushed.await.map(drop))
    }

    async fn push_and_delete(&self, round: usize) -> Round {
        let bytes = SifBuilder::new("amd64").seed(1000 + round as u64).payload_len(PUSHED).build();
        let pushed = self.push(&bytes).await;
        let path = format!("/v1/images/{}/c/spent:{}", self.name, Digest::of(&bytes).library());
        let deleted = self.ask(Method::DELETE, &path, json!({})).await;
        match (pushed, deleted) {
            (Round::Taken, Err(status)) => Round::Refused(status),
            (pushed, _) => pushed,
        }
    }

    async fn grow(&self, at: usize) -> Round {
        let bytes = vec![1; PUSHED + at];
        let brought = async {
            let image = self.image(Digest::of(b"never these bytes")).await?;
            // Without the hash, the URL takes any bytes of this length.
            let body = json!({ "filesize": bytes.len() });
            let opened = self.ask(Method::POST, &format!("/v2/imagefile/{image}"), body).await?;
            sent(&opened["uploadURL"], &bytes).await
        };
        round(brought.await)
    }

    async fn parts(&self, _: usize) -> Round {
        let bytes = vec![2; PARTS];
        let brought = async {
            let image = self.image(Digest::of(b"nor these")).await?;
            let path = format!("/v2/imagefile/{image}/_multipart");
            let opened = self.ask(Method::POST, &path, json!({ "filesize": PARTS })).await?;
            assert_eq!(opened["totalParts"], json!(1), "{opened}");
            let body = json!({
                "partSize": PARTS, "uploadID": opened["uploadID"], "partNumber": 1,
                "sha256sum": Digest::of(&bytes).hex(),
            });
            let part = self.ask(Method::PUT, &path, body).await?;
            sent(&part["presignedURL"], &bytes).await
        };
        round(brought.await)
    }
}

fn round(done: Result<(), u16>) -> Round {
    match done {
        Ok(()) => Round::Taken,
        Err(status) => Round::Refused(status),
    }
}

/// Sends bytes to a URL.
async fn sent(url: &Value, bytes: &[u8]) -> Result<(), u16> {
    let (url, bytes) = (url.as_str().unwrap().to_owned(), bytes.to_vec());
    let answer = tokio::task::spawn_blocking(move || put(&url, &bytes)).await.unwrap();
    match answer {
        Some((200, _)) => Ok(()),
        Some((status, _)) => Err(status),
        None => Err(0),
    }
}
