//! People: their accounts, tokens and passwords, and how they log in.

pub mod directory;
pub mod groups;
pub mod invitations;
pub mod login;
pub mod members;
pub(crate) mod passwords;
pub mod registration;
pub mod robots;
pub mod tokens;
pub mod users;
