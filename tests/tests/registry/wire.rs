//! Requests written byte by byte, for what no client library does: bodies of unknown length, and broken connections.

use stackroom_tests::{Caller, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A request in progress.
#[derive(Debug)]
pub(crate) struct Wire(TcpStream);

/// The answer.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    text: String,
}

impl Heard {
    /// A header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.text.lines().skip(1).take_while(|line| !line.is_empty());
        let mut fields = lines.filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Whether an error has this code.
    pub(crate) fn says(&self, code: &str) -> bool {
        self.text.contains(&format!("\"{code}\""))
    }
}

impl Wire {
    /// Sends the headers of a request to a path of the server, with the caller's token.
    pub(crate) async fn begin(server: &Server, who: &Caller, method: &str, path: &str, headers: &str) -> Self {
        let host = server.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).await.unwrap();
        let token = who.token.as_deref().unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n{headers}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// Sends bytes. A server that has answered already may not accept more.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// Sends a chunk of a body of unknown length; an empty one ends it.
    pub(crate) async fn chunk(&mut self, bytes: &[u8]) -> bool {
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend(bytes);
        framed.extend(b"\r\n");
        self.send(&framed).await
    }

    /// Reads the answer.
    pub(crate) async fn heard(mut self) -> Heard {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.0.read(&mut buffer).await {
            bytes.extend(&buffer[..count]);
        }
        let text = String::from_utf8(bytes).unwrap();
        let status = text.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {text:?}"));
        Heard { status: status.parse().unwrap(), text }
    }
}

/// Sends bytes in a body of unknown length, and reads the answer. Stops when the server accepts no more.
pub(crate) async fn stream(server: &Server, who: &Caller, method: &str, path: &str, bytes: &[u8]) -> Heard {
    let headers = "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked";
    let mut wire = Wire::begin(server, who, method, path, headers).await;
    for chunk in bytes.chunks(333_333) {
        if !wire.chunk(chunk).await {
            return wire.heard().await;
        }
    }
    wire.chunk(b"").await;
    wire.heard().await
}
