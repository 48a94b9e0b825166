//! Stackroom's words, rules, store and use cases.
//!
//! ```text
//! domain  ←  rules  ←────────── service  ←  functions/*
//!    ↑         store ←─────────────┘
//!    └──────── auth ←──────────────┘     http, telemetry, config, error: leaves
//! ```
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
