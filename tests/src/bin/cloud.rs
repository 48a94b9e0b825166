//! An installation on functions, for the programs of clients. `STACKROOM_UNDER=functions` and `STACKROOM_FUNCTIONS` must be
//! set, as for the tests.
//!
//! Without arguments, it prints its URL and a token of its user `alice`. With `serve --listen ADDRESS --data FOLDER`, it
//! stands for `stackroom` and its settings: the token of the first administrator is in the folder, and the log goes to
//! standard error. Both serve until they are told to stop.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a tool of the tests")]

use serde_json::json;
use shared::store::keys;
use stackroom_tests::{Server, functions};
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// What is about the functions of a test, and no setting of a server.
const OURS: [&str; 3] = ["STACKROOM_UNDER", "STACKROOM_FUNCTIONS", "STACKROOM_FUNCTIONS_LOG"];

#[tokio::main]
async fn main() {
    assert!(functions::serve(), "STACKROOM_UNDER is not `functions`");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = match arguments[..] {
        [] => printed().await,
        ["serve", "--listen", address, "--data", folder] => served(address, Path::new(folder)).await,
        _ => panic!("usage: cloud [serve --listen ADDRESS --data FOLDER]"),
    };
    let mut ended = signal(SignalKind::terminate()).unwrap();
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.unwrap(),
        _ = ended.recv() => {}
        () = streamed(&server) => {}
    }
    drop(server);
}

/// Tells the function that follows changes what the table's stream would: its table here has none. So it looks into each
/// part of the outbox, whether something came into it or not.
async fn streamed(server: &Server) {
    let follow = server.functions.as_ref().unwrap().functions.get("Follow").unwrap();
    let record = |part: u8| json!({ "dynamodb": { "Keys": { "pk": { "S": keys::outbox(part).pk } } } });
    let event = json!({ "Records": (0..keys::OUTBOX_PARTS).map(record).collect::<Vec<_>>() });
    loop {
        if let Err(failure) = follow.deliver(event.to_string().into(), 0).await {
            eprintln!("Follow: {failure}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn printed() -> Server {
    let serving = std::env::var("STACKROOM_SERVE_BLOBS").unwrap_or_default();
    let settings = [("STACKROOM_DEFAULT_ENTITY", "alice"), ("STACKROOM_SERVE_BLOBS", serving.as_str())];
    let server = Server::start_with(&settings).await;
    let alice = server.user("alice", 0).await;
    println!("{} {}", server.url, alice.token.unwrap());
    server
}

async fn served(address: &str, folder: &Path) -> Server {
    let settings: Vec<(String, String)> =
        std::env::vars().filter(|(name, _)| name.starts_with("STACKROOM_") && !OURS.contains(&name.as_str())).collect();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let server = Server::start_at(address, &settings).await;
    // In a deployment, `stackroom ingest` has a host of its own.
    if let Some((_, second)) = settings.iter().find(|(name, _)| *name == "STACKROOM_INGEST_LISTEN") {
        let listener = tokio::net::TcpListener::bind(second).await.unwrap();
        let ingest = axum::Router::from(oci::ingest(server.local.app.clone()))
            .layer(axum::middleware::map_response(async |response| functions::told(response)));
        tokio::spawn(async move { axum::serve(listener, ingest).await.unwrap() });
    }
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("admin.token"), server.admin.token.as_deref().unwrap()).unwrap();
    server
}
