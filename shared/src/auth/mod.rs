//! Authentication: tokens and passwords. This module knows nothing of permissions.

pub mod password;
pub mod token;

pub use token::{Credential, Keys};
