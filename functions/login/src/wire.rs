//! The answers of the login routes, field by field.

use serde::Serialize;
use shared::domain::{Actor, Time};
use std::time::Duration;
use utoipa::ToSchema;

/// The caller's identity, in the form of the old identity service.
#[derive(Serialize, ToSchema)]
pub(crate) struct CurrentUser {
    email: &'static str,
    oidc_user_meta: Registry,
    realname: String,
    username: String,
}

/// The caller's credentials for the registry.
#[derive(Serialize, ToSchema)]
struct Registry {
    /// The token itself.
    #[schema(format = Password)]
    secret: String,
}

/// The caller's identity, with the token that they sent.
pub(crate) fn current_user(name: &Actor, token: &str) -> CurrentUser {
    CurrentUser {
        email: "",
        oidc_user_meta: Registry { secret: token.to_owned() },
        realname: name.to_string(),
        username: name.to_string(),
    }
}

/// A short-lived token, under both names that clients expect.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegistryToken<'a> {
    token: &'a str,
    access_token: &'a str,
    /// Seconds.
    expires_in: u64,
    #[schema(format = DateTime)]
    issued_at: String,
}

/// A short-lived token.
pub(crate) fn registry_token(token: &str, life: Duration, now: Time) -> RegistryToken<'_> {
    RegistryToken { token, access_token: token, expires_in: life.as_secs(), issued_at: now.to_string() }
}
