//! Use cases: one function each, used by every protocol.
//!
//! Each loads its facts in at most two dependent rounds, asks [`decide`](crate::rules::decide), and writes once.

pub mod access;
pub mod artifact;
pub mod browse;
pub mod copy;
pub mod create;
pub mod delete;
pub mod downloads;
pub mod events;
pub mod history;
pub mod image;
pub mod installation;
pub mod latest;
mod links;
pub mod lists;
pub mod looks;
pub mod outbox;
mod parts;
pub mod people;
pub mod pull;
pub mod registry;
pub mod removal;
mod restore;
mod retry;
pub mod scrub;
pub mod search;
pub mod settings;
pub mod share;
pub mod star;
pub mod sweep;
pub mod tag;
pub mod uploads;

/// The most rows of a list for clients that have no way to ask for more.
pub const MAX_LISTED: usize = 1000;
/// The most images and tags of a container that are shown with it in lists, or after a change.
pub const MAX_SHOWN: usize = 100;
/// How many of them clients are shown that look at none.
pub const FEW_SHOWN: usize = 10;
