//! Stackroom in one process: every function's router behind one listener, on the embedded store or on AWS's.

pub mod copies;
pub mod examine;
pub mod limits;
pub mod local;
pub mod metrics;
pub mod openapi;
pub mod probe;
pub mod routes;
pub mod serve;
pub mod site;
