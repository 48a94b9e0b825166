//! The only code that knows `DynamoDB`, S3 and Secrets Manager.
//!
//! [`table`] and [`objects`] are the two narrow modules, the former with a seam below it. [`rows`] defines the contents of the table,
//! [`keys`] their places, and [`index`] both of the search index. Every call that changes something requires a [`Grant`](crate::rules::Grant), and changes
//! only what lies in the grant's place. This proof is all that this layer knows of the rules.

pub mod index;
pub mod keys;
pub mod objects;
mod pieces;
pub mod probe;
pub mod rows;
pub mod secrets;
pub mod table;

pub use objects::Objects;
pub use pieces::Pieces;
pub use secrets::Secret;
pub use table::{StoreError, Table};
