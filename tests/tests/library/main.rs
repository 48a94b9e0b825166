//! The library protocol over HTTP, on a whole server with the embedded store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs, reason = "a failed test panics")]

use serde_json::json;
use stackroom_tests::Server;
use stackroom_tests::sif::SifBuilder;

#[tokio::test]
async fn an_image_that_was_pushed_is_pulled_by_anybody() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = SifBuilder::new("amd64").build();
    let tagged = alice.push("alice/tools/bb", "latest", "amd64", &bytes).await.ok();
    assert!(tagged["data"]["amd64"]["latest"].is_string());
    let image = server.nobody.get("/v1/images/alice/tools/bb:latest?arch=amd64").await.ok();
    assert_eq!(image["data"]["size"], json!(bytes.len()));
    assert_eq!(server.nobody.pull("alice/tools/bb:latest?arch=amd64").await.bytes, bytes);
    assert_eq!(server.quota("alice").await, (bytes.len() as u64, 0));
}
