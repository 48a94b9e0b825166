//! Stackroom's words, rules, store and use cases.
//!
//! ```text
//! http              what the routes of all functions share
//!  ↓
//! service           use cases: read, decide, commit
//!  ↓
//! app               the parts of an installation; commits changes
//!  ↓
//! auth              who is calling
//!  ↓
//! changes, random   which rows a change writes, as pure functions; randomness
//!  ↓
//! error             what goes wrong, without HTTP
//!  ↓
//! store             the table and the bucket
//!  ↓
//! rules             who may do what, and whether bytes fit
//!  ↓
//! domain            words and values
//! ```
//!
//! No module imports one above it. Beside the column stand `config`, which imports only `domain`, and `telemetry`,
//! which imports nothing.
//!
//! Without the feature `service` there are only `domain` and `rules`.

#[cfg(feature = "service")]
pub mod app;
#[cfg(feature = "service")]
pub mod auth;
#[cfg(feature = "service")]
mod changes;
#[cfg(feature = "service")]
pub mod config;
pub mod domain;
#[cfg(feature = "service")]
pub mod error;
#[cfg(feature = "service")]
pub mod http;
#[cfg(feature = "service")]
mod random;
pub mod rules;
#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "service")]
pub mod store;
#[cfg(feature = "service")]
pub mod telemetry;

#[cfg(feature = "service")]
pub use app::App;
#[cfg(feature = "service")]
pub use error::Error;
