//! The contract of the OCI registry: a whole server with the embedded store, over plain HTTP, as its clients use it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed test panics"
)]

mod abuse;
mod attacks;
mod auth;
mod blobs;
mod both;
mod chunks;
mod copies;
mod cost;
mod delete;
mod doors;
mod downloads;
mod hazards;
mod hidden;
mod history;
#[path = "../library/support.rs"]
#[expect(dead_code, reason = "the library's tests use the rest")]
mod library;
mod lists;
mod manifests;
mod metrics;
mod mounts;
mod names;
mod probe;
mod quota;
mod races;
mod scopes;
mod siblings;
mod stores;
mod support;
mod sweep;
mod units;
mod uploads;
mod wire;
