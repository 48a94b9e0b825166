//! Whether an acknowledgement waits for the disk: the system calls of a server that receives a few pushes.
//!
//! The trace is read as events with a beginning and an end. For every successful answer to a `PUT` or `POST`, at the
//! moment when the server begins to send it:
//!
//! - nothing was written to a write-ahead log after the last sync of that log;
//! - every object file with a final name was synced before it was renamed, and its folder after that;
//! - the name of every write-ahead log that was created has been synced;
//! - what this request had to write was written and synced after it arrived.

use crate::process::{self, Client, Process, folder, free_port};
use crate::{Checks, Skipped};
use reqwest::Method;
use serde_json::json;
use shared::domain::Digest;
use stackroom_tests::sif::SifBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

const CALLS: &str = "trace=fsync,fdatasync,rename,renameat,renameat2,openat,pwrite64,write,writev,sendto,sendmsg,\
                     read,readv,recvfrom,recvmsg";

/// One system call: the lines where it begins and ends.
#[derive(Debug)]
struct Call {
    begins: usize,
    ends: usize,
    name: String,
    text: String,
}

/// Traces a push of each kind.
pub(crate) async fn run() -> Result<Checks, Skipped> {
    let (_guard, folder) = folder();
    let log = folder.join("trace");
    let mut probe = std::process::Command::new("strace");
    let tried = probe.args(["-D", "-f", "-yy", "-e", "trace=fsync", "-o"]).arg(&log).arg("true").status();
    if !tried.as_ref().is_ok_and(std::process::ExitStatus::success) {
        return Err(Skipped(format!("strace does not work here: {tried:?}")));
    }
    let name = log.to_str().unwrap();
    let under = ["strace", "-D", "-f", "-yy", "-s", "1500", "-e", CALLS, "-o", name];
    let mut server = Process::start(&folder, free_port(), &under).await;
    push_all(&folder, &server).await;
    server.kill().await;
    let text = whole(&log, server.pid).await;
    let calls = parse(&text);
    let mut checks = Checks::default();
    judge(&calls, &mut checks);
    // And the checks fail if any of the syncs is missing.
    for (what, suffix) in [
        ("the files", "/objects/tmp/"),
        ("the log of the objects", "/objects.sqlite-wal"),
        ("the log of the table", "/table.sqlite-wal"),
        ("the folders of the files", "/objects/"),
        ("the data folder", "/data>"),
    ] {
        let mut fewer = parse(&text);
        let (hits, others) = match suffix {
            "/objects/" => (suffix, "/objects/tmp/"),
            _ => (suffix, "\0"),
        };
        let synced = |call: &Call| call.is(&["fsync"]) && call.text.contains(hits) && !call.text.contains(others);
        fewer.retain(|call| !synced(call));
        let mut without = Checks { quiet: true, ..Checks::default() };
        judge(&fewer, &mut without);
        checks.say(without.failed > 0, &format!("without the syncs of {what} {} checks fail", without.failed));
    }
    Ok(checks)
}

/// One pinned, one unpinned and one multipart push, each tagged.
async fn push_all(folder: &Path, server: &Process) {
    let admin = Client::new(&server.url, Some(process::admin_token(folder)));
    let id = |answer: serde_json::Value| answer["data"]["id"].as_str().unwrap().to_owned();
    let entity = id(admin.ok(Method::POST, "/v1/entities", Some(json!({ "name": "acme" }))).await);
    let body = json!({ "name": "tools", "entity": entity });
    let collection = id(admin.ok(Method::POST, "/v1/collections", Some(body)).await);
    let body = json!({ "name": "bb", "collection": collection });
    let container = id(admin.ok(Method::POST, "/v1/containers", Some(body)).await);
    for (seed, way) in ["pinned", "unpinned", "multipart"].into_iter().enumerate() {
        let len = if way == "multipart" { 65 << 20 } else { 200_000 };
        let bytes = SifBuilder::new("amd64").seed(seed as u64).payload_len(len).build();
        let body = json!({ "hash": Digest::of(&bytes).library(), "container": container });
        let image = id(admin.ok(Method::POST, "/v1/images", Some(body)).await);
        let path = format!("/v2/imagefile/{image}");
        if way == "multipart" {
            let body = json!({ "filesize": bytes.len() });
            let opened = admin.ok(Method::POST, &format!("{path}/_multipart"), Some(body)).await["data"].clone();
            let size = usize::try_from(opened["partSize"].as_u64().unwrap()).unwrap();
            let mut parts = Vec::new();
            for (number, part) in (1..).zip(bytes.chunks(size)) {
                let body = json!({
                    "partSize": part.len(), "uploadID": opened["uploadID"], "partNumber": number,
                    "sha256sum": Digest::of(part).hex(),
                });
                let answer = admin.ok(Method::PUT, &format!("{path}/_multipart"), Some(body)).await;
                let (status, etag) = process::put(answer["data"]["presignedURL"].as_str().unwrap(), part).unwrap();
                assert_eq!(status, 200);
                parts.push(json!({ "partNumber": number, "token": etag }));
            }
            let body = json!({ "uploadID": opened["uploadID"], "completedParts": parts });
            admin.ok(Method::PUT, &format!("{path}/_multipart_complete"), Some(body)).await;
        } else {
            let hash = if way == "pinned" { Digest::of(&bytes).hex() } else { String::new() };
            let body = json!({ "filesize": bytes.len(), "sha256sum": hash });
            let answer = admin.ok(Method::POST, &path, Some(body)).await;
            let (status, _) = process::put(answer["data"]["uploadURL"].as_str().unwrap(), &bytes).unwrap();
            assert_eq!(status, 200);
            // The kind of upload is in the query for the reader of the trace, who sees the request line.
            admin.ok(Method::PUT, &format!("{path}/_complete?{way}"), Some(json!({}))).await;
        }
        let body = json!({ "Arch": "amd64", "Tag": way, "ImageID": image });
        admin.ok(Method::POST, &format!("/v2/tags/{container}"), Some(body)).await;
    }
}

/// The trace, once the tracer has written all of it.
async fn whole(log: &Path, pid: u32) -> String {
    let until = Instant::now() + process::PATIENCE;
    while Instant::now() < until {
        let text = std::fs::read(log).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        let ended = text.lines().rev().take(100).any(|line| {
            line.split_once(' ')
                .is_some_and(|(one, what)| one.parse() == Ok(pid) && what.trim_start().starts_with("+++ killed"))
        });
        if ended {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("strace did not end");
}

fn parse(text: &str) -> Vec<Call> {
    let mut open: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    let mut calls = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let (begins, whole) = if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            open.insert(pid, (at, begun.trim_end().to_owned()));
            continue;
        } else if rest.starts_with("<... ") {
            let Some((begins, begun)) = open.remove(pid) else { continue };
            (begins, begun + rest.split_once("resumed>").map_or("", |(_, rest)| rest))
        } else {
            (at, rest.to_owned())
        };
        let Some((name, _)) = whole.split_once('(') else { continue };
        calls.push(Call { begins, ends: at, name: name.to_owned(), text: whole });
    }
    // What was still running when the server was killed had begun all the same.
    for (begins, begun) in open.into_values() {
        let name = begun.split_once('(').map_or("", |(name, _)| name).to_owned();
        calls.push(Call { begins, ends: usize::MAX, name, text: begun });
    }
    calls.sort_by_key(|call| call.begins);
    calls
}

impl Call {
    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }

    fn succeeded(&self) -> bool {
        self.ends != usize::MAX && self.text.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with('-'))
    }

    /// The file that the first argument, a descriptor, refers to.
    fn file(&self) -> &str {
        let inside = self.text.split_once('<').map_or("", |(_, rest)| rest);
        inside.split_once(">,").or_else(|| inside.split_once(">)")).map_or("", |(file, _)| file)
    }

    /// Whether it writes to the write-ahead log of this database.
    fn writes_log(&self, database: &str) -> bool {
        self.is(&["write", "pwrite64"]) && self.file().ends_with(&format!("/{database}-wal"))
    }

    fn syncs(&self, suffix: &str) -> bool {
        self.is(&["fsync", "fdatasync"]) && self.succeeded() && self.file().ends_with(suffix)
    }

    fn paths(&self) -> Vec<&str> {
        self.text.split('"').skip(1).step_by(2).collect()
    }

    /// What was sent over a socket, as the trace spells it.
    fn message(&self, calls: &[&str]) -> Option<&str> {
        if !self.is(calls) || !self.file().starts_with("TCP") {
            return None;
        }
        self.text.split_once('"')?.1.rsplit_once('"').map(|(said, _)| said)
    }
}

const DATABASES: [&str; 2] = ["objects.sqlite", "table.sqlite"];

/// What a successful request must have synced since it arrived.
fn needs(request: &str) -> Option<(&'static str, bool, &'static [&'static str])> {
    let path = request.split(' ').nth(1)?;
    Some(match (request.split(' ').next()?, path) {
        ("PUT", path) if path.starts_with("/objects/") && path.contains("partNumber=") => {
            ("the bytes of a part", true, &DATABASES[..1])
        }
        ("PUT", path) if path.starts_with("/objects/") => ("the bytes of a single upload", true, &DATABASES[..1]),
        ("PUT", path) if path.contains("/_complete?pinned") => ("completing a pinned upload", false, &DATABASES[1..]),
        ("PUT", path) if path.contains("/_complete?unpinned") => ("completing an unpinned upload", false, &DATABASES),
        ("PUT", path) if path.contains("/_multipart_complete") => ("completing a multipart upload", false, &DATABASES),
        ("PUT", path) if path.ends_with("/_multipart") => ("the URL of a part", false, &[]),
        ("POST", path) if path.ends_with("/_multipart") => ("opening a multipart upload", false, &DATABASES),
        ("POST", path) if path.starts_with("/v2/imagefile/") => ("opening a single upload", false, &DATABASES[1..]),
        ("POST", path) if path.starts_with("/v2/tags/") => ("setting a tag", false, &DATABASES[1..]),
        ("POST", path) if path.starts_with("/v1/") => ("making a row", false, &DATABASES[1..]),
        _ => return None,
    })
}

fn judge(calls: &[Call], checks: &mut Checks) {
    // For each connection: when the request began to arrive, and its headers as far as read, since they may come in
    // pieces.
    let mut requests: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for call in calls {
        if let Some(said) = call.message(&["read", "readv", "recvfrom", "recvmsg"]) {
            match requests.get_mut(call.file()) {
                Some((_, head)) if !head.contains("\\r\\n") => head.push_str(said),
                Some(_) => {}
                None if said.starts_with("PUT ") || said.starts_with("POST ") => {
                    requests.insert(call.file(), (call.begins, said.to_owned()));
                }
                None => {}
            }
        }
        let Some(said) = call.message(&["write", "writev", "sendto", "sendmsg"]) else { continue };
        let Some((arrived, head)) = requests.remove(call.file()) else { continue };
        if !said.starts_with("HTTP/1.1 2") {
            checks.that(false, || format!("{head}: {said}"));
            continue;
        }
        let request = head.split("\\r\\n").next().unwrap_or_default();
        let Some((what, file, logs)) = needs(request) else {
            checks.that(false, || format!("an unknown request: {request}"));
            continue;
        };
        *seen.entry(what).or_default() += 1;
        let wrong = [clean(calls, call.begins), needed(calls, arrived..call.begins, file, logs)].concat();
        checks.that(wrong.is_empty(), || format!("{what} was acknowledged before {}: {request}", wrong.join(", ")));
    }
    for (what, times) in [
        ("the bytes of a single upload", 2),
        ("the bytes of a part", 2),
        ("completing a pinned upload", 1),
        ("completing an unpinned upload", 1),
        ("completing a multipart upload", 1),
        ("opening a single upload", 2),
        ("opening a multipart upload", 1),
        ("setting a tag", 3),
        ("making a row", 6),
    ] {
        let times_seen = seen.get(what).copied().unwrap_or(0);
        checks.say(times_seen == times, &format!("{what}: {times_seen} acknowledged, each after its syncs"));
    }
    if checks.quiet {
        return;
    }
    let count = |names: &[&str]| calls.iter().filter(|call| call.is(names) && call.succeeded()).count();
    println!(
        "{} system calls in the trace: {} fsync, {} fdatasync, {} renames",
        calls.len(),
        count(&["fsync"]),
        count(&["fdatasync"]),
        count(&["rename", "renameat", "renameat2"])
    );
}

/// Which of all earlier writes are not on disk at this moment.
fn clean(calls: &[Call], now: usize) -> Vec<String> {
    let before = || calls.iter().take_while(move |call| call.begins < now);
    let synced =
        |suffix: &str, since: usize| before().any(|call| call.syncs(suffix) && call.begins >= since && call.ends < now);
    let mut wrong = Vec::new();
    for database in DATABASES {
        let last = before().filter(|call| call.writes_log(database)).last();
        if last.is_some_and(|last| last.ends >= now || !synced(&format!("/{database}-wal"), last.ends)) {
            wrong.push(format!("the log of {database} was synced"));
        }
        let log = format!("/{database}-wal");
        let made = before().find(|call| {
            call.name == "openat"
                && call.text.contains("O_CREAT")
                && call.paths().first().is_some_and(|path| path.ends_with(&log))
        });
        if let Some(made) = made {
            let folder = made.paths()[0].strip_suffix(&log).unwrap().to_owned();
            if !synced(&folder, made.ends) {
                wrong.push(format!("the name of the log of {database} was synced"));
            }
        }
    }
    let mut names = BTreeSet::new();
    for call in before().filter(|call| call.is(&["rename", "renameat", "renameat2"]) && call.succeeded()) {
        let [from, to] = call.paths()[..] else { continue };
        if !from.contains("/objects/tmp/") || !names.insert(to) {
            continue;
        }
        let bytes = before().any(|sync| sync.syncs(from) && sync.ends < call.begins);
        let folder = to.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !bytes || !synced(folder, call.ends) {
            wrong.push(format!("the file {to} was synced (bytes: {bytes})"));
        }
    }
    wrong
}

/// What this request had to write to disk and did not, in the required order.
fn needed(calls: &[Call], span: std::ops::Range<usize>, file: bool, logs: &[&str]) -> Vec<String> {
    let inside: Vec<&Call> =
        calls.iter().filter(|call| span.contains(&call.begins) && call.ends < span.end && call.succeeded()).collect();
    let mut at = span.start;
    let mut wrong = Vec::new();
    let mut next =
        |what: String, is: &dyn Fn(&Call) -> bool| match inside.iter().find(|call| call.begins >= at && is(call)) {
            Some(call) => at = call.ends,
            None => wrong.push(what),
        };
    if file {
        next("the file was synced".to_owned(), &|call| {
            call.is(&["fsync", "fdatasync"]) && call.file().contains("/objects/tmp/")
        });
        next("the file was renamed".to_owned(), &|call| call.is(&["rename", "renameat", "renameat2"]));
        next("the folder was synced".to_owned(), &|call| {
            call.is(&["fsync"]) && call.file().rsplit_once("/objects/").is_some_and(|(_, folder)| folder.len() == 2)
        });
    }
    for log in logs {
        next(format!("the log of {log} was written"), &|call| call.writes_log(log));
        next(format!("the log of {log} was synced"), &|call| call.syncs(&format!("/{log}-wal")));
    }
    wrong
}
