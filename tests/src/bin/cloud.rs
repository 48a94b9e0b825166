//! An installation on functions, for the programs of clients: it prints its URL and a token of its user `alice`, and serves
//! until it is told to stop. `STACKROOM_UNDER=functions` and `STACKROOM_FUNCTIONS` must be set, as for the tests.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the tests")]

use stackroom_tests::{Server, functions};

#[tokio::main]
async fn main() {
    assert!(functions::serve(), "STACKROOM_UNDER is not `functions`");
    let serving = std::env::var("STACKROOM_SERVE_BLOBS").unwrap_or_default();
    let settings = [("STACKROOM_DEFAULT_ENTITY", "alice"), ("STACKROOM_SERVE_BLOBS", serving.as_str())];
    let server = Server::start_with(&settings).await;
    let alice = server.user("alice", 0).await;
    println!("{} {}", server.url, alice.token.unwrap());
    tokio::signal::ctrl_c().await.unwrap();
}
