//! Stackroom's words, rules, store and use cases.
//!
//! ```text
//! domain  ←  rules  ←────────── service  ←  functions/*
//!    ↑         store ←─────────────┘
//!    └──────── auth ←──────────────┘     http, telemetry, config, error: leaves
//! ```

pub mod app;
pub mod auth;
pub mod config;
pub mod domain;
pub mod error;
pub mod http;
mod random;
pub mod rules;
pub mod service;
pub mod store;
pub mod telemetry;

pub use app::App;
pub use error::Error;
