//! Decisions: pure functions over values. No I/O, no async, no clock; the facts they need are arguments.

pub mod access;
pub mod extent;
pub mod quota;
pub mod upload;

pub use access::{Action, Denial, Grant, Place, Resource, Subject, decide};
