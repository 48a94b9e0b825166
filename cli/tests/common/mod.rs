//! A server process with a data folder of its own.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) data: PathBuf,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

impl Serving {
    /// Starts it and waits until it listens.
    pub(crate) fn start(name: &str, log: Stdio) -> Self {
        Self::start_with(name, log, &[])
    }

    /// The same with settings.
    pub(crate) fn start_with(name: &str, log: Stdio, settings: &[(&str, &str)]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&data);
        let child = Command::new(env!("CARGO_BIN_EXE_stackroom"))
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{port}"), "--data", data.to_str().unwrap()])
            .envs(settings.iter().copied())
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
}
