//! A log that can't be written, or that nobody reads, never stops or delays an answer. The real program is started,
//! and its standard error is closed, filled or on a full disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

struct Serving {
    child: Child,
    port: u16,
    data: PathBuf,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

impl Serving {
    fn start(name: &str, log: Stdio) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("log-{name}"));
        let _ = std::fs::remove_dir_all(&data);
        let child = Command::new(env!("CARGO_BIN_EXE_stackroom"))
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{port}"), "--data", data.to_str().unwrap()])
            .stderr(log)
            .spawn()
            .unwrap();
        let serving = Self { child, port, data };
        let until = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        serving
    }

    fn log(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// Sends so many requests, each of which must be answered in time.
    fn answers(&mut self, times: usize) {
        for _ in 0..times {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("no answer in ten seconds");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        }
        assert!(self.child.try_wait().unwrap().is_none(), "it ended");
    }
}

#[test]
fn attack_01_a_log_whose_reader_is_gone_stops_nothing() {
    let mut serving = Serving::start("gone", Stdio::piped());
    let mut log = BufReader::new(serving.log());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    drop(log);
    serving.answers(50);
}

#[test]
fn attack_01_a_log_that_nobody_reads_delays_nothing() {
    let mut serving = Serving::start("stuck", Stdio::piped());
    // More lines than a pipe holds.
    let _log = serving.log();
    let began = Instant::now();
    serving.answers(1500);
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
}

#[test]
fn attack_01_a_log_on_a_full_disk_stops_nothing() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    Serving::start("full", full.into()).answers(50);
}
