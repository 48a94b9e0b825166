//! `kill -9` in the middle of 100 blobs that stream through the server, and what it knows after a restart.
//!
//! A *strike* sends one request of a push through the registry, or half of it, and kills the server at a random moment
//! within the time that the request usually takes. The server is started again on the same folder, and then:
//!
//! - a blob whose upload was acknowledged is there, and complete; any other is there completely or not at all;
//! - a client that resumes at the offset that the server reports, or starts over, succeeds: its manifest is accepted,
//!   and pulling it gives what was pushed.
//!
//! After every ten strikes everything is swept, and then nothing is reserved, no account is wrong, the entity uses
//! exactly the sum of its blobs, and the object store holds exactly their bytes. `FAULTS_SEED` chooses other moments.

use crate::Checks;
use crate::process::{self, Client, PATIENCE, Process, folder, free_port, object_files};
use reqwest::{Method, StatusCode};
use serde_json::json;
use shared::domain::Digest;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const STRIKES: usize = 100;
const NAME: &str = "acme/tools/layers";

/// How a client sends a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// One `PATCH` without a length, and an empty `PUT`: docker, podman, crane.
    Stream,
    /// A `PUT` with everything: containerd, oras, helm.
    Whole,
    /// Several `PATCH`es that state their offsets, and a `PUT`: regctl.
    Chunks,
}

/// The request during which the server is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The bytes, all of which are sent.
    Bytes,
    /// The bytes, of which half are sent.
    Half,
    /// The `PUT` that closes the upload.
    Close,
    /// The manifest.
    Manifest,
}

const WAYS: [Way; 3] = [Way::Stream, Way::Whole, Way::Chunks];
const STAGES: [Stage; 4] = [Stage::Bytes, Stage::Half, Stage::Close, Stage::Manifest];
/// Below and above the length of a part, and several parts.
const SIZES: [usize; 4] = [300_000, 3 << 20, (8 << 20) + 5, 27 << 20];
/// The length of one chunk.
const CHUNK: usize = 5 << 20;

/// A small generator: the moments must vary, but may be predictable.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most.max(1)
    }
}

/// One request on a connection of its own, of which perhaps only a part is sent.
fn raw(url: &str, head: &str, body: &[u8], share: usize) -> io::Result<(u16, BTreeMap<String, String>)> {
    let rest = url.strip_prefix("http://").ok_or(io::ErrorKind::InvalidInput)?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = head.replacen(' ', &format!(" {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"), 1);
    stream.write_all(format!("{head}\r\n\r\n").as_bytes())?;
    let chunked = head.contains("chunked");
    for piece in body[..share].chunks(200_000) {
        if chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        }
        stream.write_all(piece)?;
        if chunked {
            stream.write_all(b"\r\n")?;
        }
    }
    if chunked && share == body.len() {
        stream.write_all(b"0\r\n\r\n")?;
    }
    let mut text = Vec::new();
    // If the server dies after its answer, it has answered.
    let read = (&mut stream).take(1 << 20).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        read?;
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    Ok((status, headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect()))
}

/// A blob that is being pushed.
#[derive(Clone)]
struct Blob {
    bytes: Vec<u8>,
    digest: Digest,
    way: Way,
}

/// One request of a blob's upload: what comes before its body, and the body.
struct Step {
    head: String,
    url: String,
    body: std::ops::Range<usize>,
    closes: bool,
}

impl Blob {
    /// The requests that send the blob to the upload at `location`, without its first `from` bytes. The first one's URL
    /// is the upload's; later URLs are taken from the answers.
    fn steps(&self, location: &str, from: usize) -> Vec<Step> {
        let digest = self.digest.to_string().replace(':', "%3A");
        let all = self.bytes.len();
        let closing = |body: std::ops::Range<usize>| Step {
            head: format!("PUT \r\ncontent-length: {}", body.len()).replace(" \r\n", " "),
            url: format!("{location}&digest={digest}"),
            body,
            closes: true,
        };
        let patch = |head: String, body| Step { head, url: location.to_owned(), body, closes: false };
        match self.way {
            Way::Whole => vec![closing(from..all)],
            Way::Stream => vec![patch("PATCH transfer-encoding: chunked".to_owned(), from..all), closing(all..all)],
            Way::Chunks => {
                let starts = (from..all).step_by(CHUNK);
                let chunk = |start: usize| {
                    let end = (start + CHUNK).min(all);
                    let head = format!("PATCH content-length: {}\r\ncontent-range: {start}-{}", end - start, end - 1);
                    patch(head, start..end)
                };
                starts.map(chunk).chain([closing(all..all)]).collect()
            }
        }
    }
}

struct Lab {
    folder: PathBuf,
    port: u16,
    server: Process,
    admin: Client,
    random: Random,
    /// How long each request usually takes.
    usual: BTreeMap<(Way, Stage), Duration>,
    /// What must exist: each blob that a manifest names.
    pushed: BTreeMap<Digest, u64>,
    checks: Checks,
}

impl Lab {
    async fn again(&mut self) {
        self.server = Process::start(&self.folder, self.port, &[]).await;
    }

    /// Opens an upload and returns its URL.
    async fn open(&self) -> String {
        let answer = self.admin.call(Method::POST, &format!("/v2/{NAME}/blobs/uploads/"), None).await.unwrap();
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        format!("{}{}", self.server.url, answer.location.unwrap())
    }

    /// Sends a blob, from the offset that the upload has; `true` if it was acknowledged.
    async fn bring(&mut self, blob: &Blob, location: &str, from: usize) -> bool {
        let mut location = location.to_owned();
        let count = blob.steps(&location, from).len();
        for index in 0..count {
            let step = blob.steps(&location, from).swap_remove(index);
            let (bytes, closes) = (blob.bytes[step.body.clone()].to_vec(), step.closes);
            let began = Instant::now();
            let sent = tokio::task::spawn_blocking(move || raw(&step.url, &step.head, &bytes, bytes.len()));
            let Ok((status, headers)) = sent.await.unwrap() else { return false };
            let stage = if closes && blob.way != Way::Whole { Stage::Close } else { Stage::Bytes };
            self.usual.insert((blob.way, stage), began.elapsed());
            if closes {
                return status == 201;
            }
            if status != 202 {
                return false;
            }
            let place = headers.get("location").cloned().unwrap_or_default();
            location = if place.starts_with('/') { format!("{}{place}", self.server.url) } else { place };
        }
        false
    }

    /// The manifest of one layer; its digest is its tag.
    fn manifest(layer: &Blob, config: &Blob) -> (String, String) {
        let body = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.digest, "size": config.bytes.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer.digest, "size": layer.bytes.len(),
            }],
        });
        (format!("/v2/{NAME}/manifests/t{}", &layer.digest.hex()[..12]), body.to_string())
    }

    async fn put(&self, path: &str, body: &str, share: usize) -> io::Result<u16> {
        let token = process::admin_token(&self.folder);
        let head = format!(
            "PUT authorization: Bearer {}\r\ncontent-type: application/vnd.oci.image.manifest.v1+json\r\n\
             content-length: {}",
            token.trim(),
            body.len()
        );
        let (url, body) = (format!("{}{path}", self.server.url), body.to_owned().into_bytes());
        let sent = tokio::task::spawn_blocking(move || raw(&url, &head, &body, share));
        sent.await.unwrap().map(|(status, _)| status)
    }

    /// Whether the server has a blob, and all of its bytes are right.
    async fn there(&self, blob: &Blob) -> Option<bool> {
        let path = format!("/v2/{NAME}/blobs/{}", blob.digest);
        let response = self.admin.request(Method::GET, &path).timeout(PATIENCE).send().await.unwrap();
        if response.status() == StatusCode::NOT_FOUND {
            return None;
        }
        let bytes = response.bytes().await.unwrap();
        Some(bytes == blob.bytes)
    }

    fn blob(&mut self, number: usize, way: Way) -> Blob {
        let size = SIZES[number % SIZES.len()] + number;
        let seed = self.random.below(u64::MAX).to_le_bytes();
        let low = |number: usize| number.to_le_bytes()[0];
        let one = |at: usize| seed[at % 8] ^ low(at / 8) ^ low(at >> 11) ^ low(at >> 19);
        let bytes: Vec<u8> = (0..size).map(one).collect();
        Blob { digest: Digest::of(&bytes), bytes, way }
    }

    async fn strike(&mut self, number: usize, way: Way, stage: Stage, kill: bool) {
        let said = format!("{number}: {way:?}, {stage:?}");
        let blob = self.blob(number, way);
        let config = Blob { way: Way::Whole, ..self.blob(4 * number, Way::Whole) };
        let location = self.open().await;
        let (path, manifest) = Self::manifest(&blob, &config);
        let mut acknowledged = false;
        if stage == Stage::Manifest {
            let config_at = self.open().await;
            assert!(self.bring(&config, &config_at, 0).await && self.bring(&blob, &location, 0).await, "{said}");
            acknowledged = true;
        }
        let usual = self.usual.get(&(way, stage)).copied().unwrap_or(Duration::from_millis(40));
        let most = u64::try_from(usual.as_micros() * 6 / 5).unwrap_or(1000);
        let wait = Duration::from_micros(self.random.below(most));
        let mut taken = false;
        if kill {
            let bringing = async {
                match stage {
                    Stage::Manifest => {
                        (false, self.put(&path, &manifest, manifest.len()).await.is_ok_and(|status| status == 201))
                    }
                    Stage::Close | Stage::Bytes | Stage::Half => (self.partly(&blob, &location, stage).await, false),
                }
            };
            // The request of a `Close` begins once the bytes are there, so its moment is counted from then.
            let pid = self.server.pid;
            let killer = async {
                if stage != Stage::Close {
                    tokio::time::sleep(wait).await;
                    end(pid);
                }
            };
            let ((done, manifested), ()) = tokio::join!(bringing, killer);
            acknowledged |= done;
            taken = manifested;
            self.server.kill().await;
            self.again().await;
        }
        let there = self.there(&blob).await;
        self.checks.that(there != Some(false), || format!("{said}: visible bytes are not those that were pushed"));
        if acknowledged {
            self.checks.that(there == Some(true), || format!("{said}: an acknowledged blob is not there"));
        }
        if taken {
            let found = self.admin.call(Method::GET, &path, None).await.unwrap();
            self.checks.that(found.status == StatusCode::OK, || format!("{said}: the manifest is not there"));
        }
        self.finish(&said, &blob, &config, &location, (&path, &manifest)).await;
    }

    /// Sends the bytes, all or half of them. With `Close`, the server is killed at a random moment of the last request.
    async fn partly(&self, blob: &Blob, location: &str, stage: Stage) -> bool {
        let mut location = location.to_owned();
        let count = blob.steps(&location, 0).len();
        for index in 0..count {
            let step = blob.steps(&location, 0).swap_remove(index);
            let bytes = blob.bytes[step.body.clone()].to_vec();
            let share = if stage == Stage::Half { bytes.len() / 2 } else { bytes.len() };
            let closes = step.closes;
            if closes && stage == Stage::Close {
                let (pid, most) = (self.server.pid, self.usual.get(&(blob.way, Stage::Close)).copied());
                let most = most.unwrap_or(Duration::from_millis(20));
                let share_of = f64::from(u16::from(blob.digest.bytes()[0])) / 256.0;
                let killer = async {
                    tokio::time::sleep(most.mul_f64(share_of * 1.2)).await;
                    end(pid);
                };
                let sent = tokio::task::spawn_blocking(move || raw(&step.url, &step.head, &bytes, share));
                // Waits for both: a killer that fires later might hit another process with that id.
                let (sent, ()) = tokio::join!(sent, killer);
                return sent.unwrap().is_ok_and(|(status, _)| status == 201);
            }
            let sent = tokio::task::spawn_blocking(move || raw(&step.url, &step.head, &bytes, share));
            let Ok((status, headers)) = sent.await.unwrap() else { return false };
            if closes {
                return status == 201;
            }
            if status != 202 {
                return false;
            }
            let place = headers.get("location").cloned().unwrap_or_default();
            location = if place.starts_with('/') { format!("{}{place}", self.server.url) } else { place };
        }
        false
    }

    /// The client resumes, or starts over, until its push is complete.
    async fn finish(&mut self, said: &str, blob: &Blob, config: &Blob, location: &str, (path, manifest): (&str, &str)) {
        if self.there(blob).await.is_none() {
            let status =
                self.admin.call(Method::GET, location.strip_prefix(&self.server.url).unwrap(), None).await.unwrap();
            let goes_on = status.status == StatusCode::NO_CONTENT && self.random.below(2) == 0;
            let from = if goes_on { self.reached(location).await } else { 0 };
            let again = if goes_on { location.to_owned() } else { self.open().await };
            let mut brought = self.bring(blob, &again, from).await;
            if !brought && goes_on {
                // An upload that was being assembled when the server died can't be resumed: clients then start over.
                let fresh = self.open().await;
                brought = self.bring(blob, &fresh, 0).await;
            }
            self.checks.that(brought, || format!("{said}: trying again, from {from} of {}", blob.bytes.len()));
        }
        if self.there(config).await.is_none() {
            let at = self.open().await;
            let brought = self.bring(config, &at, 0).await;
            self.checks.that(brought, || format!("{said}: the configuration"));
        }
        let status = self.put(path, manifest, manifest.len()).await;
        self.checks.that(status.as_ref().is_ok_and(|status| *status == 201), || format!("{said}: manifest {status:?}"));
        let pulled = self.admin.ok(Method::GET, path, None).await;
        let layer = pulled["layers"][0]["digest"] == json!(blob.digest);
        self.checks.that(layer, || format!("{said}: the manifest that was pulled"));
        let whole = self.there(blob).await == Some(true);
        self.checks.that(whole, || format!("{said}: the layer that was pulled"));
        for one in [blob, config] {
            self.pushed.insert(one.digest, one.bytes.len() as u64);
        }
    }

    /// How many bytes the server reports.
    async fn reached(&self, location: &str) -> usize {
        let response = self.admin.request(Method::GET, location.strip_prefix(&self.server.url).unwrap());
        let response = response.timeout(PATIENCE).send().await.unwrap();
        let range = response.headers().get("range").map(|range| range.to_str().unwrap().to_owned());
        match range.as_deref() {
            None | Some("0-0") => 0,
            Some(range) => range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1,
        }
    }

    /// Sweeps, and compares everything with what must exist.
    async fn settle(&mut self, number: usize) {
        let (swept, _) = process::sweep(&self.admin).await;
        self.checks.that(swept["wrong_accounts"] == json!([]), || format!("{number}: {swept}"));
        let users = self.admin.ok(Method::GET, "/v1/entities/acme", None).await;
        let bytes = self.pushed.values().sum::<u64>();
        self.checks.that(users["data"]["size"] == json!(bytes), || {
            format!("{number}: the entity uses {}, not {bytes}", users["data"]["size"])
        });
        // A blob of several parts is stored in several files.
        let (_, stored) = object_files(&self.folder);
        self.checks.that(stored == bytes, || format!("{number}: {stored} bytes are stored, not {bytes}"));
    }
}

fn end(pid: u32) {
    // It may have ended already.
    let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
}

/// All strikes.
pub(crate) async fn run() -> Checks {
    let (_guard, folder) = folder();
    let port = free_port();
    let server = Process::start(&folder, port, &[]).await;
    let admin = Client::new(&server.url, Some(process::admin_token(&folder).trim().to_owned()));
    admin.ok(Method::POST, "/v1/entities", Some(json!({ "name": "acme" }))).await;
    let seed = std::env::var("FAULTS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut lab = Lab {
        folder,
        port,
        server,
        admin,
        random: Random(seed),
        usual: BTreeMap::new(),
        pushed: BTreeMap::new(),
        checks: Checks::default(),
    };
    let began = Instant::now();
    for (number, way) in (0..).zip(WAYS.into_iter().cycle().take(2 * WAYS.len())) {
        lab.strike(number, way, Stage::Bytes, false).await;
    }
    println!("request times measured, {} s", began.elapsed().as_secs());
    let mut counts: BTreeMap<(Way, Stage), u32> = BTreeMap::new();
    for number in 0..STRIKES {
        let (way, stage) = (WAYS[number % WAYS.len()], STAGES[number / WAYS.len() % STAGES.len()]);
        lab.strike(number + 10, way, stage, true).await;
        *counts.entry((way, stage)).or_default() += 1;
        if number % 10 == 9 {
            lab.settle(number).await;
            let Checks { passed, failed, .. } = lab.checks;
            println!("{} kills, {} s: {passed} passed, {failed} failed", number + 1, began.elapsed().as_secs());
        }
    }
    for ((way, stage), count) in counts {
        println!("{count:>4} × {way:?}, {stage:?}");
    }
    lab.server.kill().await;
    lab.checks
}
