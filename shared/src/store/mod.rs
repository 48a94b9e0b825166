//! The only code that knows `DynamoDB` and S3.
//!
//! [`table`] and [`objects`] are the two narrow modules over the SDKs; [`rows`] says what is in the table, [`keys`]
//! where. Whatever changes something wants a [`Grant`](crate::rules::Grant), and changes only what lies where it was
//! given. That proof is all that this layer knows of the rules.

pub mod keys;
pub mod objects;
pub mod rows;
pub mod table;

pub use objects::Objects;
pub use table::{StoreError, Table};
