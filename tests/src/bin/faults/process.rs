//! A real server process, and requests that may find it dead.

use reqwest::{Method, StatusCode};
use serde_json::Value;
use shared::domain::Digest;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// The longest wait for anything here, except for what moves gigabytes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A server on a folder.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Its process id.
    pub(crate) pid: u32,
    /// Its URL.
    pub(crate) url: String,
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Process {
    /// Starts the server on `folder/data`, as an argument of the command `under`, and waits until it answers.
    pub(crate) async fn start(folder: &Path, port: u16, under: &[&str]) -> Self {
        let mut process = Self::spawn(folder, port, under);
        process.answers(folder).await;
        process
    }

    /// Starts it without waiting.
    pub(crate) fn spawn(folder: &Path, port: u16, under: &[&str]) -> Self {
        let server = std::env::var("STACKROOM_BIN").expect("STACKROOM_BIN is the built `stackroom`");
        let mut words: Vec<&str> = under.to_vec();
        words.push(&server);
        let log = OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        let child = Command::new(words[0])
            .args(&words[1..])
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(folder.join("data"))
            .env_remove("STACKROOM_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = child.id().unwrap();
        Self { child, pid, url: format!("http://127.0.0.1:{port}") }
    }

    async fn answers(&mut self, folder: &Path) {
        let client = Client::new(&self.url, None);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if client.call(Method::GET, "/version", None).await.is_some_and(|answer| answer.status.is_success()) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended, {status}; {}", tail(&folder.join("log")));
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("the server does not answer; {}", tail(&folder.join("log")));
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// The operator's token of the server on `folder`.
pub(crate) fn admin_token(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("data/admin.token")).unwrap()
}

/// A client of a server that may be dead.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// An answer whose headers arrived; the server was done by then.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// Its `Location`.
    pub(crate) location: Option<String>,
    /// The body, if it arrived completely and is JSON.
    pub(crate) json: Value,
}

impl Client {
    /// A client with a token, or without.
    pub(crate) fn new(url: &str, token: Option<String>) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        Self { http: http.build().unwrap(), url: url.to_owned(), token }
    }

    /// A client with another token on the same connections.
    pub(crate) fn with(&self, token: Option<String>) -> Self {
        Self { token, ..self.clone() }
    }

    /// A request with the token.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; `None` if there was no answer.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Option<Answer> {
        self.call_within(method, path, body, PATIENCE).await
    }

    /// The same, with a longer timeout.
    pub(crate) async fn call_within(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        patience: Duration,
    ) -> Option<Answer> {
        let mut request = self.request(method, path).timeout(patience);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.ok()?;
        let status = response.status();
        let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        let bytes = response.bytes().await.unwrap_or_default();
        Some(Answer { status, location, json: serde_json::from_slice(&bytes).unwrap_or_default() })
    }

    /// Sends a request that must succeed.
    pub(crate) async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let said = format!("{method} {path}");
        let answer = self.call(method, path, body).await.unwrap_or_else(|| panic!("{said}: no answer"));
        assert!(answer.status.is_success(), "{said}: {} {}", answer.status, answer.json);
        answer.json
    }

    /// Pulls an image, and returns the digest and size of what arrived; `None` if there is none.
    pub(crate) async fn pull(&self, reference: &str) -> Option<(Digest, u64)> {
        let answer = self.call(Method::GET, &format!("/v1/imagefile/{reference}"), None).await.expect("an answer");
        if answer.status == StatusCode::NOT_FOUND {
            return None;
        }
        let url = answer.location.unwrap_or_else(|| panic!("{reference}: {} {}", answer.status, answer.json));
        let mut sum = Sum::default();
        let mut response = self.http.get(&url).timeout(PATIENCE).send().await.unwrap();
        assert!(response.status().is_success(), "{reference}: {}", response.status());
        while let Some(chunk) = response.chunk().await.unwrap() {
            sum.add(&chunk);
        }
        Some(sum.done())
    }

    /// Reads a range of a presigned URL into a sum, and returns how many bytes arrived.
    pub(crate) async fn range(&self, url: &str, from: u64, to: u64, sum: &mut Sum) -> u64 {
        let before = sum.size;
        let range = format!("bytes={from}-{}", to - 1);
        let mut response = self.http.get(url).header("range", range).timeout(PATIENCE).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        while let Some(chunk) = response.chunk().await.unwrap() {
            sum.add(&chunk);
        }
        sum.size - before
    }
}

/// Digest and size of the bytes added to it.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    sha256: sha2::Sha256,
    size: u64,
}

impl Sum {
    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.sha256, bytes);
        self.size += bytes.len() as u64;
    }

    /// All bytes were added.
    pub(crate) fn done(self) -> (Digest, u64) {
        (Digest::from_bytes(sha2::Digest::finalize(self.sha256).into()), self.size)
    }
}

/// One `PUT` to a presigned URL, on a connection of its own, in two steps.
#[derive(Debug)]
pub(crate) struct Put {
    stream: TcpStream,
}

impl Put {
    /// Sends the headers. They state the hash only if the URL signs it, as the clients do.
    pub(crate) fn begin(url: &str, digest: Digest, length: u64) -> io::Result<Self> {
        let parsed = reqwest::Url::parse(url).map_err(io::Error::other)?;
        let host = format!("{}:{}", parsed.host_str().unwrap(), parsed.port().unwrap());
        let hash = if url.contains("x-amz-content-sha256") {
            format!("x-amz-content-sha256: {}\r\n", digest.hex())
        } else {
            String::new()
        };
        let path = &url[url.find(&host).unwrap() + host.len()..];
        let mut stream = TcpStream::connect(&host)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let head = format!(
            "PUT {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/octet-stream\r\n\
             content-length: {length}\r\n{hash}connection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        Ok(Self { stream })
    }

    /// Sends some of the body.
    pub(crate) fn send(&mut self, mut bytes: impl Read) -> io::Result<u64> {
        io::copy(&mut bytes, &mut self.stream)
    }

    /// Waits for the answer: status and `ETag`.
    pub(crate) fn end(mut self) -> io::Result<(u16, String)> {
        let mut text = Vec::new();
        // If the server dies after its answer, it has answered.
        let read = (&mut self.stream).take(1 << 20).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let Some(status) = status.filter(|_| text.contains("\r\n\r\n")) else {
            read?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let etag = text.lines().filter_map(|line| line.split_once(": "));
        let etag = etag.filter(|(name, _)| name.eq_ignore_ascii_case("etag")).map(|(_, value)| value.to_owned()).next();
        Ok((status, etag.unwrap_or_default()))
    }
}

/// Sends all bytes at once; `None` if there was no answer.
pub(crate) fn put(url: &str, bytes: &[u8]) -> Option<(u16, String)> {
    let mut put = Put::begin(url, Digest::of(bytes), bytes.len() as u64).ok()?;
    // A refusal may arrive before everything is sent.
    let sent = put.send(bytes);
    put.end().ok().or_else(|| sent.ok().and(None))
}

/// The number of files and bytes in the folder of the object store, including temporary ones.
pub(crate) fn object_files(folder: &Path) -> (u64, u64) {
    let (mut files, mut bytes) = (0, 0);
    for sub in std::fs::read_dir(folder.join("data/objects")).unwrap() {
        for file in std::fs::read_dir(sub.unwrap().path()).unwrap() {
            files += 1;
            bytes += file.unwrap().metadata().unwrap().len();
        }
    }
    (files, bytes)
}

/// Sweeps everything until there is nothing left to sweep, and returns the last answer with the number of sweeps.
pub(crate) async fn sweep(admin: &Client) -> (Value, u32) {
    for round in 1..=8 {
        let body = serde_json::json!({ "now": true });
        let swept = admin.ok(Method::POST, "/api/sweep", Some(body)).await["data"].clone();
        let left = ["sessions", "images", "links", "objects", "condemned", "uploads"];
        if left.iter().all(|what| swept[what] == 0) {
            return (swept, round);
        }
    }
    panic!("sweeping never ends");
}

/// A folder for a run, which is removed with it.
pub(crate) fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::Builder::new().prefix("stackroom-faults-").tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}
