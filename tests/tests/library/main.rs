//! The contract of the library protocol: a whole server with the embedded store, over HTTP, as the clients use it.
//!
//! Every answer of the library is checked for what its clients could not decode, in [`stackroom_tests::send`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed test panics"
)]

mod browse;
mod cost;
mod delete;
mod describe;
mod doctor;
mod events;
mod everyone;
mod groups;
mod hinkli;
mod hinkli_downloads;
mod hinkli_routes;
mod holes;
mod invariants;
mod lists;
mod operator;
mod quota;
mod races;
mod registration;
mod removal;
mod sealed;
mod search;
mod shares;
mod stars;
mod support;
mod traces;
mod uploads;
