//! Eight layers of 2 GiB that stream through the server at once, with its memory watched.

use crate::big::{Memory, free, resident};
use crate::process::{self, Client, PATIENCE, Process, Sum, folder, free_port, object_files};
use crate::{Checks, Skipped};
use reqwest::Method;
use serde_json::json;
use shared::domain::Digest;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const LAYERS: u64 = 8;
const SIZE: u64 = 2 << 30;
const BLOCK: usize = 1 << 20;
/// The default of `STACKROOM_BUFFERS`, in MiB.
const BUDGET: u64 = 128;
/// What the server may hold beyond that, in MiB.
const REST: u64 = 64;

/// A block of a layer: no two alike.
fn block(layer: u64, at: u64, bytes: &mut [u8]) {
    let mut state = (layer << 32 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for eight in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        eight.copy_from_slice(&state.to_le_bytes()[..eight.len()]);
    }
}

/// Sends one layer as docker does: one `PATCH` without a length. Returns its digest and where to close the upload.
fn send(host: &str, path: &str, layer: u64) -> std::io::Result<(Digest, String)> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_mins(20)))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head =
        format!("PATCH {path} HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let (mut sum, mut bytes) = (Sum::default(), vec![0; BLOCK]);
    for at in 0..SIZE / BLOCK as u64 {
        block(layer, at, &mut bytes);
        sum.add(&bytes);
        stream.write_all(format!("{BLOCK:x}\r\n").as_bytes())?;
        stream.write_all(&bytes)?;
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(b"0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    assert!(text.starts_with("HTTP/1.1 202"), "{text}");
    let location = text.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_default();
    Ok((sum.done().0, location.to_owned()))
}

/// Streams them, closes them, and reads them again.
pub(crate) async fn run() -> Result<Checks, Skipped> {
    let (_guard, folder) = folder();
    let (room, needed) = (free(&folder), LAYERS * SIZE + (2 << 30));
    if room < needed {
        let why =
            format!("{} has {} GiB free, {} are needed (TMPDIR chooses)", folder.display(), room >> 30, needed >> 30);
        return Err(Skipped(why));
    }
    let mut checks = Checks::default();
    let mut server = Process::start(&folder, free_port(), &[]).await;
    let admin = Client::new(&server.url, Some(process::admin_token(&folder).trim().to_owned()));
    admin.ok(Method::POST, "/v1/entities", Some(json!({ "name": "acme" }))).await;
    let memory = Memory::watch(server.pid);
    tokio::time::sleep(Duration::from_millis(200)).await;
    println!("the idle server: {} MiB", memory.most());
    let began = Instant::now();
    let host = server.url.strip_prefix("http://").unwrap().to_owned();
    let mut sending = Vec::new();
    for layer in 0..LAYERS {
        let opened = admin.call(Method::POST, "/v2/acme/tools/layers/blobs/uploads/", None).await.unwrap();
        let (host, path) = (host.clone(), opened.location.unwrap());
        sending.push(tokio::task::spawn_blocking(move || send(&host, &path, layer)));
    }
    let mut digests = Vec::new();
    for one in sending {
        let (digest, location) = one.await.unwrap().unwrap();
        let path = format!("{location}&digest={digest}");
        let closed = admin.call_within(Method::PUT, &path, None, Duration::from_mins(5)).await.unwrap();
        checks.say(closed.status == 201, &format!("{digest} is there"));
        digests.push(digest);
    }
    let seconds = began.elapsed().as_secs();
    println!("{LAYERS} layers of {} MiB: {seconds} s, {} MiB/s", SIZE >> 20, ((LAYERS * SIZE) >> 20) / seconds.max(1));
    let most = resident(server.pid, "VmHWM").unwrap_or(u64::MAX) >> 10;
    checks.say(
        most <= BUDGET + REST,
        &format!("the server held at most {most} MiB: {BUDGET} of them for bytes in transit, {REST} besides"),
    );
    checks.say(object_files(&folder).1 == LAYERS * SIZE, "the object store holds exactly their bytes");
    let one = digests[0];
    let mut response = admin
        .request(Method::GET, &format!("/v2/acme/tools/layers/blobs/{one}"))
        .timeout(PATIENCE)
        .send()
        .await
        .unwrap();
    let mut sum = Sum::default();
    while let Some(chunk) = response.chunk().await.unwrap() {
        sum.add(&chunk);
    }
    checks.say(sum.done() == (one, SIZE), "what is pulled is what was pushed");
    drop(memory);
    server.kill().await;
    Ok(checks)
}
