//! The built functions on `LocalStack`, for a developer: prints how to reach them and how to log in, and serves until it is
//! told to stop. What calls functions on AWS calls them here: requests, the stream of the table, the hourly schedule.
//! `scripts/localstack` builds what it needs.
//!
//! `STACKROOM_LISTEN` is the address, 127.0.0.1:8080 unless it says otherwise. `STACKROOM_…` settings of the functions are
//! taken from the environment.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a tool of the tests")]

use gateway::lambda::Function;
use gateway::template::Event;
use serde_json::{Value, json};
use stackroom_tests::localstack::Stack;
use stackroom_tests::{Server, functions};
use std::sync::Arc;
use std::time::Duration;

/// How often the stream is read. Source: *Lambda Developer Guide*, "Process Amazon `DynamoDB` records with Lambda": Lambda
/// polls shards four times a second.
const POLLED: Duration = Duration::from_millis(250);

/// What is for the fixture, and no setting of the functions.
const OURS: [&str; 7] = [
    "STACKROOM_UNDER",
    "STACKROOM_FUNCTIONS",
    "STACKROOM_LISTEN",
    "STACKROOM_LOCALSTACK_IMAGE",
    "STACKROOM_LOG",
    "STACKROOM_TOKEN",
    "STACKROOM_URL",
];

#[tokio::main]
async fn main() {
    assert!(functions::emulated(), "STACKROOM_UNDER is not `localstack`: run scripts/localstack");
    let address = std::env::var("STACKROOM_LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let settings: Vec<(String, String)> =
        std::env::vars().filter(|(name, _)| name.starts_with("STACKROOM_") && !OURS.contains(&name.as_str())).collect();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let server = Server::start_at(&address, &settings).await;
    let alice = server.user("alice", 0).await;
    let stack = Arc::clone(server.stack.as_ref().unwrap());
    let token = std::env::temp_dir().join(format!("{}.token", stack.name));
    private(&token, alice.token.as_deref().unwrap());
    let admin = server.admin.token.clone().unwrap();
    println!("Stackroom's functions serve {} on {}", server.url, stack.emulator.endpoint);
    println!("table and bucket: {}", stack.name);
    stack.refused.iter().for_each(|refused| println!("the emulator does not take: {refused}"));
    println!();
    println!("A token of the user alice is in {}. Log in:", token.display());
    println!("  stackroom connect {0}; apptainer remote login --tokenfile {1} stackroom", server.url, token.display());
    println!(
        "  docker login -u alice --password-stdin {} < {}",
        server.url.trim_start_matches("http://"),
        token.display()
    );
    println!("The administrator: export STACKROOM_URL={} STACKROOM_TOKEN={admin}", server.url);
    println!();
    println!("Ctrl-C ends it.");
    let functions = &server.functions.as_ref().unwrap().functions;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended.unwrap(),
        () = streamed(&stack, &functions["Verify"]) => {}
        () = streamed(&stack, &functions["Follow"]) => {}
        () = scheduled(&functions["Sweep"]) => {}
    }
    let _ = std::fs::remove_file(&token);
}

/// Writes a file that only its owner can read.
fn private(path: &std::path::Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

/// Delivers the records of the table's stream that the function's filter lets through.
async fn streamed(stack: &Arc<Stack>, function: &Function) {
    let source = function.spec().events.iter().find(|event| matches!(event, Event::Stream { .. })).unwrap();
    let Event::Stream { retries, .. } = source else { return };
    let mut stream = stack.stream().await.unwrap();
    loop {
        let records = stream.next().await.unwrap_or_else(|error| {
            eprintln!("the stream can't be read: {error:#}");
            Vec::new()
        });
        for record in records.into_iter().filter(|record| source.takes(record)) {
            delivered(function, json!({ "Records": [record] }), retries.unwrap_or_default()).await;
        }
        tokio::time::sleep(POLLED).await;
    }
}

async fn scheduled(function: &Function) {
    loop {
        tokio::time::sleep(Duration::from_hours(1)).await;
        delivered(function, json!({ "source": "aws.events" }), 2).await;
    }
}

async fn delivered(function: &Function, event: Value, retries: u64) {
    if let Err(failure) = function.deliver(event.to_string().into(), retries).await {
        eprintln!("{}: {failure}", function.spec().id);
    }
}
