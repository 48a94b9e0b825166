//! Who is calling: tokens and passwords. Knows nothing of what they may do.

pub mod password;
pub mod token;

pub use token::{Credential, Keys};
