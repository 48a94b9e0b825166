//! `kill -9` at 210 moments of pushes, and what the server knows after a restart.
//!
//! A *strike* sends the request of one step of a push and kills the server at a random moment within the time that the
//! request usually takes. The server is started again on the same folder, and then:
//!
//! - what was acknowledged is there, and complete: pulled without a token, it has the digest of what was pushed;
//! - what was not acknowledged is there completely or not at all, and not there at all if its complete was never sent;
//! - an entity uses exactly the sum of its images;
//! - a client that goes on where it was, or tries again, succeeds.
//!
//! One in five of the servers that are started again is killed once more before it answers.
//!
//! With `STACKROOM_VERIFY_AT_ONCE=0` the server answers the completion of a multipart upload before it has verified the
//! bytes. Then what was acknowledged must appear later, along with the tags that were set meanwhile.
//!
//! After every ten strikes everything is swept, and then nothing is reserved, no account is wrong, everything that the
//! model knows is complete, and the object store has exactly the files of the model. `FAULTS_SEED` chooses other
//! moments.

use crate::Checks;
use crate::process::{self, Client, Process, Put, folder, free_port, object_files};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::Digest;
use stackroom_tests::chance::Chance;
use stackroom_tests::sif::SifBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// One `PUT` whose hash is signed.
    Pinned,
    /// One `PUT` of an old client, which states no hash.
    Staged,
    /// Three parts.
    Parts,
}

/// A step of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Entity, collection and container.
    Rows,
    /// The image's row. If the pusher has the bytes elsewhere, this is also the commit.
    Image,
    /// The session.
    Open,
    /// Half of the bytes, or of a part.
    Half,
    /// All of the bytes, or of a part.
    Put,
    /// Nothing: the bytes are there, and the next request is not sent.
    Idle,
    /// Verify and commit.
    Complete,
    /// The tag.
    Tag,
    /// Aborting the upload.
    Abort,
    /// Deleting the image.
    Delete,
    /// Sweeping what an open upload or a deleted image left.
    Sweep,
}

/// What exists before the push, or beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing.
    Nothing,
    /// Another user has the same bytes: the commit merges.
    Theirs,
    /// The pusher has the same bytes in another container.
    Ours,
    /// The tag is set to another image.
    Tagged,
}

/// One kind of strike.
#[derive(Debug, Clone, Copy)]
struct Plan {
    name: &'static str,
    way: Way,
    stage: Stage,
    before: Before,
    times: usize,
}

const fn plan(name: &'static str, way: Way, stage: Stage, before: Before, times: usize) -> Plan {
    Plan { name, way, stage, before, times }
}

const PLANS: [Plan; 27] = [
    plan("entity, collection, container", Way::Pinned, Stage::Rows, Before::Nothing, 9),
    plan("image row", Way::Pinned, Stage::Image, Before::Nothing, 8),
    plan("image row of known bytes (commits)", Way::Pinned, Stage::Image, Before::Ours, 6),
    plan("open, pinned", Way::Pinned, Stage::Open, Before::Nothing, 10),
    plan("open, unpinned", Way::Staged, Stage::Open, Before::Nothing, 8),
    plan("open, multipart", Way::Parts, Stage::Open, Before::Nothing, 8),
    plan("PUT halfway, pinned", Way::Pinned, Stage::Half, Before::Nothing, 10),
    plan("PUT halfway, unpinned", Way::Staged, Stage::Half, Before::Nothing, 6),
    plan("PUT halfway, a part", Way::Parts, Stage::Half, Before::Nothing, 8),
    plan("PUT, pinned", Way::Pinned, Stage::Put, Before::Nothing, 10),
    plan("PUT, unpinned", Way::Staged, Stage::Put, Before::Nothing, 6),
    plan("PUT, a part", Way::Parts, Stage::Put, Before::Nothing, 8),
    plan("bytes there, before complete, pinned", Way::Pinned, Stage::Idle, Before::Nothing, 6),
    plan("bytes there, before complete, unpinned", Way::Staged, Stage::Idle, Before::Nothing, 5),
    plan("some parts there", Way::Parts, Stage::Idle, Before::Nothing, 6),
    plan("complete, pinned", Way::Pinned, Stage::Complete, Before::Nothing, 14),
    plan("complete, unpinned", Way::Staged, Stage::Complete, Before::Nothing, 12),
    plan("complete, multipart", Way::Parts, Stage::Complete, Before::Nothing, 10),
    plan("complete of bytes that another has", Way::Pinned, Stage::Complete, Before::Theirs, 8),
    plan("tag, new", Way::Pinned, Stage::Tag, Before::Nothing, 9),
    plan("tag, multipart", Way::Parts, Stage::Tag, Before::Nothing, 5),
    plan("tag, moved", Way::Pinned, Stage::Tag, Before::Tagged, 8),
    plan("abort", Way::Parts, Stage::Abort, Before::Nothing, 6),
    plan("delete", Way::Pinned, Stage::Delete, Before::Nothing, 8),
    plan("delete of bytes that another has", Way::Pinned, Stage::Delete, Before::Theirs, 6),
    plan("sweep of a deleted image", Way::Pinned, Stage::Sweep, Before::Nothing, 5),
    plan("sweep of an open upload", Way::Parts, Stage::Sweep, Before::Nothing, 5),
];

/// The outcomes of the strikes of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    kills: u32,
    acknowledged: u32,
    landed: u32,
    nothing: u32,
}

/// A push in progress, as its client knows it.
#[derive(Debug, Clone)]
struct Push {
    entity: String,
    collection: String,
    name: String,
    tag: String,
    way: Way,
    bytes: Arc<Vec<u8>>,
    digest: Digest,
    container: String,
    image: String,
    upload: String,
    url: String,
    part: u64,
    etags: Vec<String>,
}

const PART: usize = 64 << 20;

impl Push {
    fn path(&self) -> String {
        format!("{}/{}/{}", self.entity, self.collection, self.name)
    }

    fn by_hash(&self) -> String {
        format!("{}:{}", self.path(), self.digest.library())
    }

    fn parts(&self) -> usize {
        if self.way == Way::Parts { self.bytes.len().div_ceil(PART) } else { 1 }
    }

    /// The bytes of the next part, or all bytes.
    fn next_bytes(&self) -> &[u8] {
        if self.way == Way::Parts { self.bytes.chunks(PART).nth(self.etags.len()).unwrap() } else { &self.bytes }
    }
}

/// The outcome of a step.
#[derive(Debug)]
enum Outcome {
    /// The server reported success.
    Done,
    /// The server refused.
    Refused(StatusCode, Value),
    /// No answer arrived.
    Dead,
}

macro_rules! asked {
    ($answer:expr) => {
        match $answer {
            None => return Outcome::Dead,
            Some(answer) if answer.status.is_success() => answer.json,
            Some(answer) => return Outcome::Refused(answer.status, answer.json),
        }
    };
}

fn id_of(answer: &Value) -> String {
    answer["data"]["id"].as_str().unwrap_or_default().to_owned()
}

/// Performs a step of a push.
async fn perform(client: Client, mut push: Push, stage: Stage) -> (Push, Outcome) {
    let outcome = step(&client, &mut push, stage).await;
    (push, outcome)
}

async fn step(client: &Client, push: &mut Push, stage: Stage) -> Outcome {
    let file = format!("/v2/imagefile/{}", push.image);
    match stage {
        Stage::Rows => {
            let body = json!({ "name": push.entity });
            let entity = asked!(client.call(Method::POST, "/v1/entities", Some(body)).await);
            let body = json!({ "name": push.collection, "entity": id_of(&entity) });
            let collection = asked!(client.call(Method::POST, "/v1/collections", Some(body)).await);
            let body = json!({ "name": push.name, "collection": id_of(&collection) });
            push.container = id_of(&asked!(client.call(Method::POST, "/v1/containers", Some(body)).await));
        }
        Stage::Image => {
            let body = json!({ "hash": push.digest.library(), "container": push.container });
            push.image = id_of(&asked!(client.call(Method::POST, "/v1/images", Some(body)).await));
        }
        Stage::Open if push.way == Way::Parts => {
            let body = json!({ "filesize": push.bytes.len() });
            let opened = asked!(client.call(Method::POST, &format!("{file}/_multipart"), Some(body)).await);
            opened["data"]["uploadID"].as_str().unwrap_or_default().clone_into(&mut push.upload);
            push.part = opened["data"]["partSize"].as_u64().unwrap_or_default();
            push.etags.clear();
        }
        Stage::Open => {
            let sum = if push.way == Way::Pinned { push.digest.hex() } else { String::new() };
            let body = json!({ "filesize": push.bytes.len(), "md5sum": "", "sha256sum": sum });
            let opened = asked!(client.call(Method::POST, &file, Some(body)).await);
            opened["data"]["uploadURL"].as_str().unwrap_or_default().clone_into(&mut push.url);
        }
        Stage::Half | Stage::Put => {
            if push.way == Way::Parts {
                let part = push.next_bytes();
                let body = json!({
                    "partSize": part.len(), "uploadID": push.upload, "partNumber": push.etags.len() + 1,
                    "sha256sum": Digest::of(part).hex(),
                });
                let signed = asked!(client.call(Method::PUT, &format!("{file}/_multipart"), Some(body)).await);
                signed["data"]["presignedURL"].as_str().unwrap_or_default().clone_into(&mut push.url);
            }
            return bytes(push, stage).await;
        }
        Stage::Idle => {}
        Stage::Complete if push.way == Way::Parts => {
            let parts = (1..).zip(&push.etags).map(|(n, etag)| json!({ "partNumber": n, "token": etag }));
            let body = json!({ "uploadID": push.upload, "completedParts": parts.collect::<Vec<_>>() });
            asked!(client.call(Method::PUT, &format!("{file}/_multipart_complete"), Some(body)).await);
        }
        Stage::Complete => {
            asked!(client.call(Method::PUT, &format!("{file}/_complete"), Some(json!({}))).await);
        }
        Stage::Tag => {
            let body = json!({ "Arch": "amd64", "Tag": push.tag, "ImageID": push.image });
            asked!(client.call(Method::POST, &format!("/v2/tags/{}", push.container), Some(body)).await);
        }
        Stage::Abort => {
            let body = json!({ "uploadID": push.upload });
            asked!(client.call(Method::PUT, &format!("{file}/_multipart_abort"), Some(body)).await);
        }
        Stage::Delete => {
            let path = format!("/v1/images/{}:{}?arch=amd64", push.path(), push.tag);
            asked!(client.call(Method::DELETE, &path, None).await);
        }
        Stage::Sweep => {
            asked!(client.call(Method::POST, "/api/sweep", Some(json!({ "now": true }))).await);
        }
    }
    Outcome::Done
}

/// Sends bytes, all or half of them.
async fn bytes(push: &mut Push, stage: Stage) -> Outcome {
    let sending = push.clone();
    let sent = tokio::task::spawn_blocking(move || {
        let bytes = sending.next_bytes();
        if stage == Stage::Put {
            return process::put(&sending.url, bytes);
        }
        let mut put = Put::begin(&sending.url, Digest::of(bytes), bytes.len() as u64).ok()?;
        put.send(&bytes[..bytes.len() / 2]).ok()?;
        put.end().ok()
    });
    match sent.await.unwrap() {
        None => Outcome::Dead,
        Some((200, etag)) => {
            push.etags.push(etag);
            Outcome::Done
        }
        Some((status, _)) => Outcome::Refused(StatusCode::from_u16(status).unwrap(), Value::Null),
    }
}

/// An image that exists: its size, and how many files hold it.
#[derive(Debug, Clone, Copy)]
struct Held {
    size: u64,
    files: u64,
}

/// What must exist, and the server that must have it.
struct World {
    folder: PathBuf,
    port: u16,
    server: Process,
    nobody: Client,
    tokens: BTreeMap<String, String>,
    chance: Chance,
    /// Multipart uploads are verified after their completion was acknowledged.
    later: bool,
    count: u64,
    small: Vec<u8>,
    large: Vec<u8>,
    /// By container path and digest.
    images: BTreeMap<(String, Digest), Held>,
    /// By container path and tag: the digest.
    tags: BTreeMap<(String, String), Digest>,
    usual: BTreeMap<&'static str, Duration>,
    rows: BTreeMap<&'static str, Row>,
    restarts: Duration,
    /// Servers killed before they answered.
    starting: u32,
    /// Half-written files that sweeps found, and the most sweeps that one check took.
    torn: usize,
    rounds: u32,
    checks: Checks,
}

/// Two users with an entity each; entities of the site admin are created as needed.
const ALICE: &str = "alice";
const BOB: &str = "bob";
const ADMIN: &str = "admin";

/// Kills the server at every kind of moment, and checks what is left.
pub(crate) async fn run() -> Checks {
    assert_eq!(PLANS.iter().map(|plan| plan.times).sum::<usize>(), 210);
    let seed = std::env::var("FAULTS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
    println!("seed {seed}");
    let began = Instant::now();
    let (_guard, folder) = folder();
    let mut world = World::start(folder, seed).await;
    for plan in PLANS {
        // Once to warm up and once to learn how long it takes.
        for _ in 0..2 {
            world.strike(plan, false).await;
        }
    }
    world.look_at_all().await;
    println!("{} steps learned, {:.0} s", world.usual.len(), began.elapsed().as_secs_f64());
    let mut order: Vec<Plan> = PLANS.iter().flat_map(|plan| std::iter::repeat_n(*plan, plan.times)).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, usize::try_from(world.chance.below(at as u64 + 1)).unwrap());
    }
    for (number, plan) in (1..).zip(order) {
        world.strike(plan, true).await;
        if number % 10 == 0 {
            world.look_at_all().await;
            let Checks { passed, failed, .. } = world.checks;
            println!("{number} kills, {:.0} s: {passed} passed, {failed} failed", began.elapsed().as_secs_f64());
        }
    }
    world.server.kill().await;
    println!("\n{:<40} {:>5} {:>12} {:>13} {:>8}", "step", "kills", "acknowledged", "not, but done", "not done");
    let mut sum = Row::default();
    for plan in PLANS {
        let row = world.rows[plan.name];
        println!("{:<40} {:>5} {:>12} {:>13} {:>8}", plan.name, row.kills, row.acknowledged, row.landed, row.nothing);
        world.checks.that(row.kills >= 5, || format!("{}: only {} kills", plan.name, row.kills));
        sum.kills += row.kills;
        sum.acknowledged += row.acknowledged;
        sum.landed += row.landed;
        sum.nothing += row.nothing;
    }
    println!("{:<40} {:>5} {:>12} {:>13} {:>8}\n", "all", sum.kills, sum.acknowledged, sum.landed, sum.nothing);
    println!(
        "{} kills in {:.0} s, {} more while starting; a start takes {:.0} ms on average",
        sum.kills,
        began.elapsed().as_secs_f64(),
        world.starting,
        world.restarts.as_secs_f64() * 1000.0 / f64::from(sum.kills.max(1)),
    );
    println!(
        "{} half-written files collected; at most {} sweeps until nothing was left to sweep",
        world.torn, world.rounds
    );
    world.checks
}

impl World {
    async fn start(folder: PathBuf, seed: u64) -> Self {
        let port = free_port();
        let server = Process::start(&folder, port, &[]).await;
        let admin = process::admin_token(&folder);
        let mut tokens = BTreeMap::from([(ADMIN.to_owned(), admin.clone())]);
        let admin = Client::new(&server.url, Some(admin));
        for name in [ALICE, BOB] {
            admin.ok(Method::POST, "/api/users", Some(json!({ "name": name, "quota": 1_u64 << 40 }))).await;
            let body = json!({ "name": "test" });
            let made = admin.ok(Method::POST, &format!("/api/users/{name}/tokens"), Some(body)).await;
            tokens.insert(name.to_owned(), made["data"]["token"].as_str().unwrap().to_owned());
        }
        let small = SifBuilder::new("amd64").payload_len(300_000).build();
        let mut payload = Vec::new();
        for mark in 0..129_u8 {
            payload.resize(payload.len() + (1 << 20), mark);
        }
        let large = SifBuilder::new("amd64").payload(payload).build();
        Self {
            folder,
            port,
            nobody: Client::new(&server.url, None),
            server,
            tokens,
            chance: Chance::new(seed),
            later: std::env::var("STACKROOM_VERIFY_AT_ONCE").is_ok_and(|most| most == "0"),
            count: 0,
            small,
            large,
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            usual: BTreeMap::new(),
            rows: BTreeMap::new(),
            restarts: Duration::ZERO,
            starting: 0,
            torn: 0,
            rounds: 0,
            checks: Checks::default(),
        }
    }

    /// The client that pushes into this entity.
    fn pusher(&self, entity: &str) -> Client {
        let token = self.tokens.get(entity).unwrap_or(&self.tokens[ADMIN]);
        self.nobody.with(Some(token.clone()))
    }

    /// A push of bytes that do not exist yet.
    fn push(&mut self, entity: &str, way: Way) -> Push {
        self.count += 1;
        let mut bytes = if way == Way::Parts { self.large.clone() } else { self.small.clone() };
        let end = bytes.len() - 8;
        bytes[end..].copy_from_slice(&self.count.to_le_bytes());
        Push {
            entity: entity.to_owned(),
            collection: "faults".to_owned(),
            name: format!("c{}", self.count),
            tag: "1.0".to_owned(),
            way,
            digest: Digest::of(&bytes),
            bytes: Arc::new(bytes),
            container: String::new(),
            image: String::new(),
            upload: String::new(),
            url: String::new(),
            part: 0,
            etags: Vec::new(),
        }
    }

    /// Performs steps that must succeed, up to but not including `end`.
    async fn advance(&mut self, mut push: Push, from: Stage, end: Stage) -> Push {
        for stage in [Stage::Rows, Stage::Image, Stage::Open, Stage::Put, Stage::Complete, Stage::Tag] {
            if stage < from || stage >= end {
                continue;
            }
            let times = if stage == Stage::Put { push.parts().saturating_sub(push.etags.len()) } else { 1 };
            for _ in 0..times {
                let outcome;
                (push, outcome) = perform(self.pusher(&push.entity), push, stage).await;
                let right = matches!(outcome, Outcome::Done);
                self.checks.that(right, || format!("{stage:?} of {} succeeds: {outcome:?}", push.path()));
            }
            self.happened(&push, stage);
        }
        if from <= Stage::Complete && end > Stage::Tag {
            self.verified(&push).await;
        }
        push
    }

    /// Waits until the completed image appears, if it is verified later.
    async fn verified(&mut self, push: &Push) {
        if self.later && push.way == Way::Parts {
            let there = self.appears(push, process::PATIENCE).await;
            self.checks.that(there, || format!("{} is verified in the end", push.by_hash()));
        }
    }

    async fn appears(&mut self, push: &Push, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let looked = self.nobody.call(Method::GET, &format!("/v1/images/{}", push.by_hash()), None).await.unwrap();
            if looked.status.is_success() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Records in the model what a step did.
    fn happened(&mut self, push: &Push, stage: Stage) {
        let image = (push.path(), push.digest);
        match stage {
            Stage::Complete => {
                let known = self.images.iter().find(|((_, digest), _)| *digest == push.digest);
                // Bytes that exist already stay in their files.
                let files = known.map_or(push.parts() as u64, |(_, held)| held.files);
                self.images.insert(image, Held { size: push.bytes.len() as u64, files });
            }
            Stage::Tag => {
                self.tags.insert((push.path(), push.tag.clone()), push.digest);
            }
            Stage::Delete => {
                self.images.remove(&image);
                self.tags.retain(|(path, _), digest| (path, &*digest) != (&image.0, &image.1));
            }
            _ => {}
        }
    }

    /// One strike of a plan, and all its consequences. Without a kill, it measures how long the step takes.
    async fn strike(&mut self, plan: Plan, kill: bool) {
        let Plan { way, stage, before, .. } = plan;
        let entity = match stage {
            Stage::Rows => {
                self.count += 1;
                format!("e{}", self.count)
            }
            _ => ALICE.to_owned(),
        };
        let mut push = self.push(&entity, way);
        let mut other = None;
        match before {
            Before::Nothing => {}
            Before::Theirs | Before::Ours => {
                let owner = if before == Before::Ours { ALICE } else { BOB };
                let theirs = Push { entity: owner.to_owned(), name: format!("{}x", push.name), ..push.clone() };
                other = Some(self.advance(theirs, Stage::Rows, Stage::Abort).await);
            }
            Before::Tagged => {
                let old = self.push(&entity, way);
                let old = Push { name: push.name.clone(), ..old };
                other = Some(self.advance(old, Stage::Rows, Stage::Abort).await);
            }
        }
        push = self.lead_up(push, stage).await;
        let at = Instant::now();
        let acknowledged;
        (push, acknowledged) = self.hit(plan, push, kill).await;
        if kill {
            if self.chance.below(5) == 0 {
                let mut starting = Process::spawn(&self.folder, self.port, &[]);
                wait(Duration::from_millis(70).mul_f64(self.chance.fraction())).await;
                starting.kill().await;
                self.starting += 1;
            }
            let dead = Instant::now();
            self.server = Process::start(&self.folder, self.port, &[]).await;
            self.restarts += dead.elapsed();
            self.nobody = Client::new(&self.server.url, None);
        } else if stage != Stage::Half {
            self.usual.insert(plan.name, at.elapsed());
        }
        let done = self.settle(plan, &push, acknowledged).await;
        if kill {
            let row = self.rows.entry(plan.name).or_default();
            row.kills += 1;
            row.acknowledged += u32::from(acknowledged);
            row.landed += u32::from(!acknowledged && done);
            row.nothing += u32::from(!acknowledged && !done);
        }
        if let Some(other) = &other {
            self.whole(&other.path(), other.digest, true).await;
        }
        self.uses(&entity).await;
        // Some clients never come back.
        if self.chance.below(10) < 7 {
            self.go_on(plan, push).await;
            self.uses(&entity).await;
        }
    }

    /// Everything that a push does before this step.
    async fn lead_up(&mut self, mut push: Push, stage: Stage) -> Push {
        match stage {
            Stage::Idle if push.way != Way::Parts => self.advance(push, Stage::Rows, Stage::Complete).await,
            Stage::Half | Stage::Put | Stage::Idle | Stage::Abort => {
                push = self.advance(push, Stage::Rows, Stage::Half).await;
                let some =
                    if push.way == Way::Parts { self.chance.below(3) + u64::from(stage == Stage::Idle) } else { 0 };
                for _ in 0..some {
                    let outcome;
                    (push, outcome) = perform(self.pusher(&push.entity), push, Stage::Put).await;
                    let right = matches!(outcome, Outcome::Done);
                    self.checks.that(right, || format!("a part of {} arrives: {outcome:?}", push.path()));
                }
                push
            }
            Stage::Sweep if push.way == Way::Parts => self.advance(push, Stage::Rows, Stage::Idle).await,
            Stage::Sweep => {
                push = self.advance(push, Stage::Rows, Stage::Delete).await;
                let (push, outcome) = perform(self.pusher(&push.entity), push, Stage::Delete).await;
                self.checks
                    .that(matches!(outcome, Outcome::Done), || format!("delete of {}: {outcome:?}", push.path()));
                self.happened(&push, Stage::Delete);
                push
            }
            _ => self.advance(push, Stage::Rows, stage).await,
        }
    }

    /// The client of a step.
    fn actor(&self, push: &Push, stage: Stage) -> Client {
        self.pusher(if stage == Stage::Sweep { ADMIN } else { &push.entity })
    }

    /// Sends the request of a step and kills the server during it. Returns whether it was acknowledged.
    async fn hit(&mut self, plan: Plan, push: Push, kill: bool) -> (Push, bool) {
        let client = self.actor(&push, plan.stage);
        if !kill {
            if plan.stage == Stage::Half {
                return (push, false);
            }
            let (push, outcome) = perform(client, push, plan.stage).await;
            self.checks.that(matches!(outcome, Outcome::Done), || format!("{}: {outcome:?}", plan.name));
            return (push, true);
        }
        let usual = match (plan.stage, plan.way) {
            (Stage::Idle, _) => Duration::from_millis(3),
            (Stage::Half, Way::Parts) => Duration::from_millis(400),
            (Stage::Half, _) => Duration::from_millis(20),
            _ => self.usual[plan.name],
        };
        // More often late, when rows are written, than early, when they are read.
        let early = self.chance.below(3) == 0 || matches!(plan.stage, Stage::Idle | Stage::Half);
        let part = self.chance.fraction();
        let delay = usual.mul_f64(if early { part } else { 0.5 + part * 0.7 });
        let asking = tokio::spawn(perform(client, push, plan.stage));
        wait(delay).await;
        self.server.kill().await;
        let (push, outcome) = tokio::time::timeout(process::PATIENCE, asking).await.unwrap().unwrap();
        let acknowledged = matches!(outcome, Outcome::Done);
        if let Outcome::Refused(status, body) = &outcome {
            self.checks.that(false, || format!("{} is refused: {status} {body}", plan.name));
        }
        if !matches!(plan.stage, Stage::Idle | Stage::Half) {
            // Keeps about half of the kills before the answer, however busy the machine is.
            self.usual.insert(plan.name, usual.mul_f64(if acknowledged { 0.88 } else { 1.2 }));
        }
        (push, acknowledged)
    }

    /// Checks what a strike left behind, and records it in the model. Returns whether the step is done.
    async fn settle(&mut self, plan: Plan, push: &Push, acknowledged: bool) -> bool {
        let Plan { stage, before, .. } = plan;
        let tag = (push.path(), push.tag.clone());
        let known = self.images.contains_key(&(push.path(), push.digest));
        match stage {
            Stage::Complete => {
                if self.later && push.way == Way::Parts {
                    let there = self.appears(push, Duration::from_secs(if acknowledged { 60 } else { 2 })).await;
                    if !there && !acknowledged {
                        // It may still appear by itself, so it is completed again before anything is counted.
                        let (_, outcome) = perform(self.pusher(&push.entity), push.clone(), stage).await;
                        let right = matches!(outcome, Outcome::Done);
                        self.checks.that(right, || format!("{} again: {outcome:?}", plan.name));
                        self.verified(push).await;
                        self.happened(push, stage);
                        self.whole(&push.path(), push.digest, true).await;
                        return false;
                    }
                }
                let there = self.sighted(push).await;
                self.checks.that(there || !acknowledged, || format!("{}: an acknowledged image is lost", plan.name));
                if there {
                    self.happened(push, Stage::Complete);
                }
                there
            }
            Stage::Image if before == Before::Ours => {
                let there = self.sighted(push).await;
                self.checks.that(there || !acknowledged, || format!("{}: an acknowledged image is lost", plan.name));
                if there {
                    self.happened(push, Stage::Complete);
                }
                there
            }
            Stage::Tag => {
                self.verified(push).await;
                self.whole(&push.path(), push.digest, true).await;
                let now = self.tag_of(&tag).await;
                let moved = now == Some(push.digest);
                let old = self.tags.get(&tag).copied();
                let right = moved || (!acknowledged && now == old);
                self.checks.that(right, || format!("{}: the tag is {now:?}, was {old:?}", plan.name));
                if moved {
                    self.happened(push, Stage::Tag);
                }
                moved
            }
            Stage::Delete => {
                let there = self.sighted(push).await;
                let tagged = self.tag_of(&tag).await;
                let right = if there { tagged == Some(push.digest) } else { tagged.is_none() };
                self.checks.that(right, || format!("{}: image {there}, tag {tagged:?}", plan.name));
                self.checks.that(!(acknowledged && there), || format!("{}: a deleted image still exists", plan.name));
                if !there {
                    self.happened(push, Stage::Delete);
                }
                !there
            }
            _ => {
                self.whole(&push.path(), push.digest, known).await;
                let tagged = self.tag_of(&tag).await;
                self.checks.that(tagged.is_none(), || format!("{}: a tag that nobody set", plan.name));
                acknowledged
            }
        }
    }

    /// Whether anonymous callers can see the image. If they can, it must be complete, in every way to look at it.
    async fn sighted(&mut self, push: &Push) -> bool {
        let nobody = self.nobody.clone();
        let looked = nobody.call(Method::GET, &format!("/v1/images/{}", push.by_hash()), None).await.unwrap();
        let there = looked.status.is_success();
        self.whole(&push.path(), push.digest, there).await;
        there
    }

    /// Checks that an image is there and complete, or not there at all.
    async fn whole(&mut self, path: &str, digest: Digest, there: bool) {
        let nobody = self.nobody.clone();
        let reference = format!("{path}:{}", digest.library());
        let looked = nobody.call(Method::GET, &format!("/v1/images/{reference}"), None).await.unwrap();
        let pulled = nobody.pull(&reference).await;
        let listed = nobody.call(Method::GET, &format!("/v1/containers/{path}"), None).await.unwrap();
        let image = &looked.json["data"];
        if there {
            let size = pulled.map_or(0, |(_, size)| size);
            let right = pulled.is_some_and(|(came, _)| came == digest)
                && image["uploaded"] == json!(true)
                && image["size"] == json!(size)
                && listed.json["data"]["images"].as_array().is_some_and(|all| all.contains(&image["id"]));
            self.checks.that(right, || format!("{reference} is whole: {pulled:?}, {}", looked.json));
        } else {
            let right = pulled.is_none() && looked.status == StatusCode::NOT_FOUND;
            self.checks.that(right, || format!("{reference} is not there: {pulled:?}, {}", looked.json));
        }
        // The container lists what the model knows, and this image if it is there.
        let mut all: BTreeSet<(Digest, u64)> = (self.images.iter())
            .filter(|((at, _), _)| at == path)
            .map(|((_, digest), held)| (*digest, held.size))
            .collect();
        all.retain(|(known, _)| *known != digest);
        let size = all.iter().map(|(_, size)| size).sum::<u64>() + pulled.map_or(0, |(_, size)| size);
        let count = all.len() + usize::from(there);
        let images = listed.json["data"]["images"].as_array().map_or(0, Vec::len);
        let right = images == count && (listed.status == StatusCode::NOT_FOUND || listed.json["data"]["size"] == size);
        self.checks.that(right, || format!("{path} lists {count} images, {size} bytes: {}", listed.json));
    }

    /// The digest that a tag names for anonymous callers. Also checks that it can be pulled.
    async fn tag_of(&mut self, (path, tag): &(String, String)) -> Option<Digest> {
        let nobody = self.nobody.clone();
        let looked = nobody.call(Method::GET, &format!("/v1/images/{path}:{tag}?arch=amd64"), None).await.unwrap();
        let pulled = nobody.pull(&format!("{path}:{tag}?arch=amd64")).await;
        let named = looked.json["data"]["hash"].as_str().and_then(|hash| Digest::from_library(hash).ok());
        let right = named == pulled.map(|(digest, _)| digest);
        self.checks.that(right, || format!("{path}:{tag} resolves to what it names: {pulled:?}, {}", looked.json));
        named
    }

    /// Checks that an entity uses the sum of its images' bytes, each counted once.
    async fn uses(&mut self, entity: &str) {
        let admin = self.pusher(ADMIN);
        let shown = admin.call(Method::GET, &format!("/v1/entities/{entity}"), None).await.unwrap();
        let own = format!("{entity}/");
        let blobs: BTreeMap<Digest, u64> = (self.images.iter())
            .filter(|((path, _), _)| path.starts_with(&own))
            .map(|((_, digest), held)| (*digest, held.size))
            .collect();
        let sum: u64 = blobs.values().sum();
        let used = &shown.json["data"]["size"];
        let right = *used == json!(sum) || (shown.status == StatusCode::NOT_FOUND && sum == 0);
        self.checks.that(right, || format!("{entity} uses {used}, its images have {sum}"));
    }

    /// The client that was cut off goes on, or tries again.
    async fn go_on(&mut self, plan: Plan, push: Push) {
        let stage = plan.stage;
        let path = push.path();
        let push = match stage {
            Stage::Rows => self.advance(push, Stage::Rows, Stage::Abort).await,
            Stage::Image if plan.before == Before::Ours => {
                let push = self.advance(push, Stage::Image, Stage::Open).await;
                self.happened(&push, Stage::Complete);
                self.advance(push, Stage::Tag, Stage::Abort).await
            }
            Stage::Image | Stage::Open => self.advance(push, stage, Stage::Abort).await,
            // What was acknowledged is not sent again.
            Stage::Half | Stage::Put | Stage::Idle if push.etags.len() >= push.parts() => {
                self.advance(push, Stage::Complete, Stage::Abort).await
            }
            Stage::Half | Stage::Put | Stage::Idle => self.advance(push, Stage::Put, Stage::Abort).await,
            Stage::Complete | Stage::Tag => self.advance(push, stage, Stage::Abort).await,
            Stage::Abort | Stage::Delete | Stage::Sweep => {
                let (push, outcome) = perform(self.actor(&push, stage), push, stage).await;
                let right = match &outcome {
                    Outcome::Done => true,
                    // An upload that no longer exists is refused like somebody else's.
                    Outcome::Refused(status, _) => [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN].contains(status),
                    Outcome::Dead => false,
                };
                self.checks.that(right, || format!("{} again: {outcome:?}", plan.name));
                self.happened(&push, stage);
                self.whole(&path, push.digest, false).await;
                // And the same bytes can be pushed again.
                let push = Push { etags: Vec::new(), ..push };
                self.advance(push, Stage::Image, Stage::Abort).await
            }
        };
        self.whole(&path, push.digest, true).await;
        let tag = (path, push.tag.clone());
        let now = self.tag_of(&tag).await;
        self.checks.that(now == Some(push.digest), || format!("{}: in the end the tag is {now:?}", plan.name));
    }

    /// Sweeps everything and compares it with the model; then deletes most of it.
    async fn look_at_all(&mut self) {
        let admin = self.pusher(ADMIN);
        self.torn += std::fs::read_dir(self.folder.join("data/objects/tmp")).unwrap().count();
        let (swept, rounds) = process::sweep(&admin).await;
        self.rounds = self.rounds.max(rounds);
        self.checks.that(swept["wrong_accounts"] == json!([]), || format!("no account is wrong: {swept}"));
        let users = admin.ok(Method::GET, "/api/users", None).await["data"].clone();
        for user in users.as_array().unwrap() {
            self.checks.that(user["reserved"] == json!(0), || format!("nothing is reserved: {user}"));
        }
        let mut entities: BTreeSet<String> = BTreeSet::from([ALICE.to_owned(), BOB.to_owned()]);
        entities.extend(self.images.keys().filter_map(|(path, _)| Some(path.split_once('/')?.0.to_owned())));
        for entity in entities {
            self.uses(&entity).await;
        }
        let blobs: BTreeMap<Digest, Held> = self.images.iter().map(|((_, digest), held)| (*digest, *held)).collect();
        let files: u64 = blobs.values().map(|held| held.files).sum();
        let bytes: u64 = blobs.values().map(|held| held.size).sum();
        let there = object_files(&self.folder);
        self.checks.that(there == (files, bytes), || {
            format!("the object store has {there:?} files and bytes, the images {:?}", (files, bytes))
        });
        for (path, digest) in self.images.keys().cloned().collect::<Vec<_>>() {
            self.whole(&path, digest, true).await;
        }
        for (tag, digest) in self.tags.clone() {
            let now = self.tag_of(&tag).await;
            self.checks.that(now == Some(digest), || format!("{tag:?} is {now:?}"));
        }
        for (path, digest) in self.images.keys().cloned().collect::<Vec<_>>() {
            let large = self.images[&(path.clone(), digest)].size > 1 << 20;
            if large || self.chance.below(3) > 0 {
                let entity = path.split('/').next().unwrap_or_default();
                let gone = self.pusher(entity);
                gone.ok(Method::DELETE, &format!("/v1/images/{path}:{}", digest.library()), None).await;
                self.images.remove(&(path.clone(), digest));
                self.tags.retain(|(at, _), tagged| *at != path || *tagged != digest);
            }
        }
    }
}

/// Waits with microsecond precision, which timers don't have.
async fn wait(time: Duration) {
    let until = Instant::now() + time;
    if let Some(most) = time.checked_sub(Duration::from_millis(2)) {
        tokio::time::sleep(most).await;
    }
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}
