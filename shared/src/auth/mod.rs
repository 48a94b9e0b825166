//! Authentication: tokens, passwords, secrets in URLs. This module knows nothing of permissions.

pub mod password;
pub mod secret;
pub mod token;

pub use token::{Credential, Keys};
