//! A function for the tests of this crate: it does what its event says, in `do` of its query or of itself.
//!
//! It speaks the Runtime API over a plain socket, and keeps a counter of its events and of the ticks of a thread, so that
//! tests can see which instance answers, and when it is frozen.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a function that fails is what tests want"
)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static TICKS: AtomicU64 = AtomicU64::new(0);

/// Sends a request to the Runtime API. Returns the status, the headers in lower case, and the body.
fn call(method: &str, path: &str, body: &str) -> (String, Vec<String>, String) {
    let host = std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap();
    let mut stream = TcpStream::connect(&host).unwrap();
    let length = body.len();
    let head = format!(
        "{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    // The other side may answer before it has read everything.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let mut body = String::new();
    let _ = reader.read_to_string(&mut body);
    let status = lines.first().cloned().unwrap_or_default();
    (status, lines, body)
}

fn header(lines: &[String], name: &str) -> String {
    let line = lines.iter().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_default().to_owned()
}

fn main() {
    if std::env::var("FAILS").is_ok_and(|how| how == "init") {
        eprintln!("no settings");
        call("POST", "init/error", r#"{"errorType":"NoSettings"}"#);
        std::process::exit(1);
    }
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(5));
            TICKS.fetch_add(1, Ordering::Relaxed);
        }
    });
    for count in 1.. {
        let (_, lines, body) = call("GET", "invocation/next", "");
        let id = header(&lines, "lambda-runtime-aws-request-id");
        let event: Value = serde_json::from_str(&body).unwrap();
        let query = event["rawQueryString"].as_str().unwrap_or_default();
        let wanted = event["do"].as_str().or_else(|| query.strip_prefix("do=")).unwrap_or_default();
        let answer = match wanted {
            "sleep" => {
                std::thread::sleep(Duration::from_millis(400));
                json!({ "statusCode": 200 })
            }
            "hang" => {
                std::thread::sleep(Duration::from_hours(1));
                json!({})
            }
            "exit" => std::process::exit(3),
            "large" => json!({ "statusCode": 200, "body": "x".repeat(6 << 20) }),
            "wrong" => json!({ "statusCode": "no" }),
            "plain" => json!("hello"),
            "challenge" => {
                json!({ "statusCode": 401, "headers": { "www-authenticate": "Bearer", "content-length": "7" } })
            }
            "environment" => json!(std::env::vars().collect::<std::collections::BTreeMap<_, _>>()),
            "fail" => {
                call("POST", &format!("invocation/{id}/error"), r#"{"errorType":"Wanted"}"#);
                continue;
            }
            "stranger" => {
                let (status, ..) = call("POST", "invocation/another/response", "{}");
                json!({ "statusCode": 200, "body": status })
            }
            _ => {
                let told = json!({
                    "event": event, "count": count, "pid": std::process::id(), "ticks": TICKS.load(Ordering::Relaxed),
                    "deadline": header(&lines, "lambda-runtime-deadline-ms"),
                    "arn": header(&lines, "lambda-runtime-invoked-function-arn"),
                    "trace": header(&lines, "lambda-runtime-trace-id"),
                });
                json!({ "statusCode": 200, "headers": { "content-type": "application/json" }, "body": told.to_string() })
            }
        };
        call("POST", &format!("invocation/{id}/response"), &answer.to_string());
    }
}
