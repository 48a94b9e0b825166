//! Decisions: pure functions over values. No I/O, no async, no clock; what they need to know is an argument.

pub mod access;
pub mod quota;
pub mod upload;

pub use access::{Action, Denial, Grant, Place, Resource, Subject, decide};
