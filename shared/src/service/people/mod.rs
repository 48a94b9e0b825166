//! People: their accounts, tokens and passwords, and how they log in.

pub mod login;
pub(crate) mod passwords;
pub mod tokens;
pub mod users;
