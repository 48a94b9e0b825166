//! 20 GiB in parts: pushed, verified, pulled and deleted, with the server's memory watched.

use crate::process::{self, Client, Process, Put, Sum, folder, free_port, object_files};
use crate::{Checks, Skipped};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Digest;
use stackroom_tests::sif::SifBuilder;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SIZE: u64 = 20 << 30;
/// The free space that is needed: the object, and some margin.
const ROOM: u64 = SIZE + (3 << 30);
/// The most memory that the server may hold, in KiB.
const MEMORY: u64 = 100 << 10;
/// Completing reads all of it, which keeps two cores busy in a debug build.
const PATIENCE: Duration = Duration::from_mins(15);

/// The most memory that a process has held so far, in KiB.
pub(crate) struct Memory {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

pub(crate) fn resident(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

impl Memory {
    pub(crate) fn watch(pid: u32) -> Self {
        let (most, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, end) = (Arc::clone(&most), Arc::clone(&stop));
        std::thread::spawn(move || {
            let until = Instant::now() + Duration::from_hours(1);
            while !end.load(Ordering::Relaxed) && Instant::now() < until {
                let Some(now) = resident(pid, "VmRSS") else { break };
                seen.fetch_max(now, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { most, stop }
    }

    /// The most since the last call, in MiB.
    pub(crate) fn most(&self) -> u64 {
        self.most.swap(0, Ordering::Relaxed) >> 10
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Bytes that can still be written in a folder.
pub(crate) fn free(folder: &Path) -> u64 {
    let df = std::process::Command::new("df").args(["--output=avail", "-B1"]).arg(folder).output().unwrap();
    let text = String::from_utf8_lossy(&df.stdout).into_owned();
    text.lines().nth(1).and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}

/// The digests of the whole and of each part, in a single read.
fn digests(path: &Path, part: u64) -> (Digest, Vec<(u64, Digest)>) {
    let mut file = File::open(path).unwrap();
    let (mut whole, mut parts) = (Sum::default(), Vec::new());
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..SIZE.div_ceil(part) {
        let mut sum = Sum::default();
        let mut one = (&mut file).take(part);
        for _ in 0..=part.div_ceil(1 << 20) * 4 {
            let read = one.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            whole.add(&buffer[..read]);
            sum.add(&buffer[..read]);
        }
        let (digest, size) = sum.done();
        parts.push((size, digest));
    }
    let (digest, size) = whole.done();
    assert_eq!(size, SIZE);
    (digest, parts)
}

fn told(what: &str, began: Instant, memory: &Memory) {
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = SIZE as f64 / seconds / f64::from(1 << 20);
    println!("{what}: {seconds:.1} s, {rate:.0} MiB/s, server at most {} MiB", memory.most());
}

/// Pushes it, pulls it, deletes it.
pub(crate) async fn run() -> Result<Checks, Skipped> {
    let (_guard, folder) = folder();
    let room = free(&folder);
    if room < ROOM {
        let why =
            format!("{} has {} GiB free, {} are needed (TMPDIR chooses)", folder.display(), room >> 30, ROOM >> 30);
        return Err(Skipped(why));
    }
    let path = folder.join("big.sif");
    SifBuilder::new("amd64").write_sparse(&path, SIZE).unwrap();
    // No two parts are alike, or their order would not matter.
    let mut file = File::options().write(true).open(&path).unwrap();
    for at in (1..).map(|n| n * (64 << 20)).take_while(|at| *at < SIZE).take(10_000) {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&at.to_le_bytes()).unwrap();
    }
    drop(file);
    let mut checks = Checks::default();
    let mut server = Process::start(&folder, free_port(), &[]).await;
    let admin = Client::new(&server.url, Some(process::admin_token(&folder)));
    let memory = Memory::watch(server.pid);
    tokio::time::sleep(Duration::from_millis(200)).await;
    println!("the idle server: {} MiB", memory.most());

    let (digest, container) = push(&admin, &path, &memory, &mut checks).await;
    pull(&server.url, digest, &memory, &mut checks).await;

    let entity = admin.ok(Method::GET, "/v1/entities/acme", None).await;
    checks.say(entity["data"]["size"] == json!(SIZE), "the account holds exactly its bytes");
    let (_, bytes) = object_files(&folder);
    checks.say(bytes == SIZE, "the object store holds exactly its bytes");
    let before = free(&folder);
    admin.ok(Method::DELETE, "/v1/images/acme/tools/big:1.0?arch=amd64", None).await;
    let (swept, _) = process::sweep(&admin).await;
    checks.say(swept["wrong_accounts"] == json!([]), "no account is wrong");
    let entity = admin.ok(Method::GET, "/v1/entities/acme", None).await;
    checks.say(entity["data"]["size"] == json!(0), "deleting gives its bytes back");
    checks.say(object_files(&folder) == (0, 0), "no object file is left");
    let freed = free(&folder).saturating_sub(before);
    // Other processes write to the same disk meanwhile.
    checks.say(freed > SIZE - (4 << 30), &format!("the disk has {} MiB more", freed >> 20));
    let tags = admin.ok(Method::GET, &format!("/v2/tags/{container}"), None).await;
    checks.say(tags["data"] == json!({}), "no tag is left");
    let most = resident(server.pid, "VmHWM").unwrap_or(u64::MAX);
    checks.say(most < MEMORY, &format!("the server never held more than {} MiB", most >> 10));
    drop(memory);
    server.kill().await;
    Ok(checks)
}

async fn push(admin: &Client, path: &Path, memory: &Memory, checks: &mut Checks) -> (Digest, String) {
    let id = |answer: Value| answer["data"]["id"].as_str().unwrap().to_owned();
    let entity = id(admin.ok(Method::POST, "/v1/entities", Some(json!({ "name": "acme" }))).await);
    let body = json!({ "name": "tools", "entity": entity });
    let collection = id(admin.ok(Method::POST, "/v1/collections", Some(body)).await);
    let body = json!({ "name": "big", "collection": collection });
    let container = id(admin.ok(Method::POST, "/v1/containers", Some(body)).await);

    let (part, count) = shared::rules::upload::parts(SIZE);
    let began = Instant::now();
    let from = path.to_owned();
    let (digest, parts) = tokio::task::spawn_blocking(move || digests(&from, part)).await.unwrap();
    told("the client hashes the file and its parts", began, memory);

    let body = json!({ "hash": digest.library(), "container": container });
    let image = id(admin.ok(Method::POST, "/v1/images", Some(body)).await);
    let url = format!("/v2/imagefile/{image}/_multipart");
    let opened = admin.ok(Method::POST, &url, Some(json!({ "filesize": SIZE }))).await["data"].clone();
    checks.say(
        opened["partSize"] == json!(part) && opened["totalParts"] == json!(count),
        &format!("{count} parts of {} MiB", part >> 20),
    );
    let began = Instant::now();
    let mut named = Vec::new();
    for (number, (size, digest)) in (1_u64..).zip(&parts) {
        let (size, digest) = (*size, *digest);
        let body = json!({
            "partSize": size, "uploadID": opened["uploadID"], "partNumber": number, "sha256sum": digest.hex(),
        });
        let answer = admin.ok(Method::PUT, &url, Some(body)).await;
        let to = answer["data"]["presignedURL"].as_str().unwrap().to_owned();
        let mut file = File::open(path).unwrap();
        let sent = tokio::task::spawn_blocking(move || {
            file.seek(SeekFrom::Start((number - 1) * part))?;
            let mut put = Put::begin(&to, digest, size)?;
            put.send(file.take(size))?;
            put.end()
        });
        let (status, etag) = sent.await.unwrap().unwrap();
        assert_eq!(status, 200, "part {number}");
        named.push(json!({ "partNumber": number, "token": etag }));
    }
    told("the parts arrive", began, memory);
    let began = Instant::now();
    let body = json!({ "uploadID": opened["uploadID"], "completedParts": named });
    let done = admin.call_within(Method::PUT, &format!("{url}_complete"), Some(body), PATIENCE).await.unwrap();
    checks.say(done.status.is_success(), &format!("it is complete: {}", done.json));
    told("completing verifies it", began, memory);
    let body = json!({ "Arch": "amd64", "Tag": "1.0", "ImageID": image });
    admin.ok(Method::POST, &format!("/v2/tags/{container}"), Some(body)).await;
    (digest, container)
}

async fn pull(server: &str, digest: Digest, memory: &Memory, checks: &mut Checks) {
    const RANGE: u64 = 256 << 20;
    let nobody = Client::new(server, None);
    let found = nobody.ok(Method::GET, "/v1/images/acme/tools/big:1.0?arch=amd64", None).await;
    checks.say(
        found["data"]["hash"] == json!(digest.library()) && found["data"]["size"] == json!(SIZE),
        "its tag names it",
    );
    let began = Instant::now();
    let answer = nobody.call(Method::GET, "/v1/imagefile/acme/tools/big:1.0?arch=amd64", None).await.unwrap();
    let url = answer.location.unwrap();
    let mut sum = Sum::default();
    for at in (0..SIZE.div_ceil(RANGE)).map(|n| n * RANGE) {
        let to = (at + RANGE).min(SIZE);
        assert_eq!(nobody.range(&url, at, to, &mut sum).await, to - at);
    }
    checks.say(sum.done() == (digest, SIZE), "its ranges together are what was pushed");
    told("pulling its ranges", began, memory);
}
