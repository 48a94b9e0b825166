//! The answers of the login routes, field by field.

use secrecy::ExposeSecret;
use serde::Serialize;
use shared::domain::{Actor, Time};
use shared::service::people::login::LoggedIn;
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

/// A user, as the clients of Hinkskalle read them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoginUser {
    username: String,
    firstname: String,
    lastname: &'static str,
    email: &'static str,
    is_admin: bool,
    is_active: bool,
    source: &'static str,
}

/// A user who may log in.
pub(crate) fn user(name: &Actor, admin: bool) -> LoginUser {
    LoginUser {
        username: name.to_string(),
        firstname: name.to_string(),
        lastname: "",
        email: "",
        is_admin: admin,
        is_active: true,
        source: "local",
    }
}

/// A token that a login made, under both names that it had in the versions of Hinkskalle.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoginToken<'a> {
    id: String,
    #[schema(format = Password)]
    token: &'a str,
    #[schema(format = Password)]
    generated_token: &'a str,
    /// The beginning of its id.
    #[serde(rename = "key_uid")]
    key_uid: String,
    comment: &'a str,
    source: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    deleted: bool,
    user: LoginUser,
}

/// A token that a login made.
pub(crate) fn token(made: &LoggedIn) -> LoginToken<'_> {
    let (row, secret) = (&made.token.row, made.token.secret.expose_secret());
    let id = row.id.to_string();
    LoginToken {
        key_uid: id.chars().take(12).collect(),
        id,
        token: secret,
        generated_token: secret,
        comment: &row.name,
        source: if row.login { "auto" } else { "manual" },
        created_at: row.created.zoned(),
        expires_at: row.expires.map(Time::zoned),
        deleted: false,
        user: user(&row.actor, made.admin),
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
