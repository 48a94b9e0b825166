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
mod events;
mod everyone;
mod groups;
mod hinkli;
mod hinkli_downloads;
mod holes;
mod invariants;
mod operator;
mod quota;
mod races;
mod registration;
mod sealed;
mod shares;
mod support;
mod traces;
mod uploads;
