//! A log that can't be written, or that nobody reads, never stops or delays an answer. The real program is started,
//! and its standard error is closed, filled or on a full disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

mod common;

use common::Serving;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{ChildStderr, Stdio};
use std::time::{Duration, Instant};

fn log(serving: &mut Serving) -> ChildStderr {
    serving.child.stderr.take().unwrap()
}

/// Sends so many requests, each of which must be answered in time.
fn answers(serving: &mut Serving, times: usize) {
    for _ in 0..times {
        let mut stream = TcpStream::connect(("127.0.0.1", serving.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("no answer in ten seconds");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
    assert!(serving.child.try_wait().unwrap().is_none(), "it ended");
}

#[test]
fn attack_01_a_log_whose_reader_is_gone_stops_nothing() {
    let mut serving = Serving::start("log-gone", Stdio::piped());
    let mut log = BufReader::new(log(&mut serving));
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    drop(log);
    answers(&mut serving, 50);
}

#[test]
fn attack_01_a_log_that_nobody_reads_delays_nothing() {
    let mut serving = Serving::start("log-stuck", Stdio::piped());
    // More lines than a pipe holds.
    let _log = log(&mut serving);
    let began = Instant::now();
    answers(&mut serving, 1500);
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
}

#[test]
fn attack_01_a_log_on_a_full_disk_stops_nothing() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    answers(&mut Serving::start("log-full", full.into()), 50);
}

#[test]
fn attack_01_a_server_starts_with_a_log_that_nobody_reads() {
    // A pipe that is full before the server is there.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut filling = writer.try_clone().unwrap();
    std::thread::spawn(move || while filling.write_all(&[b'x'; 4096]).is_ok() {});
    std::thread::sleep(Duration::from_millis(300));
    let mut serving = Serving::start("log-full-pipe", writer.try_clone().unwrap().into());
    answers(&mut serving, 5);
    let _ = writer.flush();
    drop(reader);
}
