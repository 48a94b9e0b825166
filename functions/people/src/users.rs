//! Users and their tokens, and the quotas of entities.

use crate::wire;
use axum::body::Bytes;
use axum::extract::{Path, State};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json as value;
use shared::App;
use shared::auth::Credential;
use shared::domain::{Actor, Email, EntityName, TokenId, TokenScope, UserName};
use shared::http::library::{Answer, Deletion, data, deleted, json};
use shared::service::people::tokens::{self, NewToken};
use shared::service::people::users::{self, Change, NewUser};
use shared::service::removal;
use std::collections::BTreeSet;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(users, add_user))
        .routes(routes!(user))
        .routes(routes!(set_password))
        .routes(routes!(set_email))
        .routes(routes!(set_disabled))
        .routes(routes!(set_groups))
        .routes(routes!(tokens, add_token))
        .routes(routes!(revoke))
        .routes(routes!(quota, set_quota))
}

/// The routes whose requests say in their query how something is to be deleted.
pub(crate) fn deletions() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(delete_user))
}

/// Deletes a user with everything that is theirs. `force` also if a group is left without an admin.
#[utoipa::path(
    delete,
    path = "/api/users/{name}",
    tag = "administration",
    params(
        ("name" = String, Path, description = "The name of a user"),
        ("cascade" = Option<bool>, Query, description = "Delete everything in it, too"),
        ("force" = Option<bool>, Query, description = "Delete frozen tags and read-only containers, too"),
        ("dry-run" = Option<bool>, Query, description = "Only say what is in it"),
    ),
    responses((status = 200), (status = 202), (status = 403), (status = 404), (status = 412)),
)]
async fn delete_user(
    State(app): State<App>,
    caller: Credential,
    Path(name): Path<String>,
    Deletion(how): Deletion,
) -> Answer {
    let done = removal::user(&app, &caller, &name.parse()?, how).await?;
    Ok(deleted(how, done.contents, done.done))
}

/// All users, with their usage.
#[utoipa::path(
    get,
    path = "/api/users",
    tag = "administration",
    security(("bearer" = [])),
    responses((status = 200, body = [wire::User]), (status = 403)),
)]
async fn users(State(app): State<App>, caller: Credential) -> Answer {
    let people = users::list(&app, &caller).await?;
    Ok(data(people.iter().map(|view| wire::user(&app, view)).collect::<Vec<_>>()))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = NewUser)]
#[serde(deny_unknown_fields)]
struct User {
    #[schema(value_type = String)]
    name: UserName,
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<SecretString>,
    #[serde(default)]
    admin: bool,
    /// The quota of the entity in bytes, 0 for unlimited; by default the configured one.
    quota: Option<u64>,
    /// An e-mail address, which only the user and administrators see.
    #[schema(value_type = Option<String>)]
    email: Option<Email>,
}

/// Adds a user, and an entity of the same name.
#[utoipa::path(
    post,
    path = "/api/users",
    tag = "administration",
    request_body = User,
    responses((status = 200), (status = 403), (status = 409)),
)]
async fn add_user(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let User { name, password, admin, quota, email } = json(&body)?;
    users::add(&app, &caller, NewUser { name, password, admin, quota, email }).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Password {
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

/// Sets a password: the caller's own, or as an administrator anybody's.
#[utoipa::path(
    put,
    path = "/api/users/{name}/password",
    tag = "accounts",
    params(("name" = String, Path, description = "The name of a user")),
    request_body = Password,
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn set_password(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let Password { password } = json(&body)?;
    users::change(&app, &caller, &name.parse()?, Change::Password(password)).await?;
    Ok(data(value!({})))
}

/// A user, for themselves or an administrator.
#[utoipa::path(
    get,
    path = "/api/users/{name}",
    tag = "accounts",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "The name of a user")),
    responses((status = 200, body = wire::Person), (status = 403), (status = 404)),
)]
async fn user(State(app): State<App>, caller: Credential, Path(name): Path<String>) -> Answer {
    Ok(data(wire::person(&app, &users::view(&app, &caller, &name.parse()?).await?)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewEmail {
    /// An e-mail address, or null for none.
    #[schema(value_type = Option<String>)]
    email: Option<Email>,
}

/// Sets the e-mail address: the caller's own, or as an administrator anybody's.
#[utoipa::path(
    put,
    path = "/api/users/{name}/email",
    tag = "accounts",
    params(("name" = String, Path, description = "The name of a user")),
    request_body = NewEmail,
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn set_email(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let NewEmail { email } = json(&body)?;
    users::change(&app, &caller, &name.parse()?, Change::Email(email)).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Disabled {
    disabled: bool,
}

/// Disables or enables an account.
#[utoipa::path(
    put,
    path = "/api/users/{name}/disabled",
    tag = "administration",
    params(("name" = String, Path, description = "The name of a user")),
    request_body = Disabled,
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn set_disabled(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let Disabled { disabled } = json(&body)?;
    users::change(&app, &caller, &name.parse()?, Change::Disabled(disabled)).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Groups {
    /// The name of the directory, like `ldap`.
    directory: String,
    /// The groups there that the user is in. They replace those that the directory named before.
    groups: BTreeSet<String>,
}

/// Notes in which groups a directory has a user, for a script that asks the directory.
#[utoipa::path(
    put,
    path = "/api/users/{name}/groups",
    tag = "administration",
    params(("name" = String, Path, description = "The name of a user")),
    request_body = Groups,
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn set_groups(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let Groups { directory, groups } = json(&body)?;
    users::set_groups(&app, &caller, &name.parse::<UserName>()?, &directory, groups).await?;
    Ok(data(value!({})))
}

/// The tokens of a user or robot, without their secrets.
#[utoipa::path(
    get,
    path = "/api/users/{name}/tokens",
    tag = "accounts",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "The name of a user, or `ENTITY+ROBOT`")),
    responses((status = 200, body = [wire::Token]), (status = 403), (status = 404)),
)]
async fn tokens(State(app): State<App>, caller: Credential, Path(name): Path<String>) -> Answer {
    let tokens = tokens::list(&app, &caller, &name.parse::<Actor>()?).await?;
    Ok(data(tokens.iter().map(|token| wire::token(token, app.config.policy.max_token_life)).collect::<Vec<_>>()))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = NewToken)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    /// `RIGHT[,RIGHT…][@ENTITY | @REPOSITORY]` with the rights pull, push, delete, manage and admin; by default all of
    /// them, and for a robot pull and push in its entity.
    #[schema(value_type = Option<String>)]
    scope: Option<TokenScope>,
    /// The lifetime in seconds; by default unlimited, or as long as the operator allows.
    expires_in: Option<u64>,
}

/// Makes a token, which is never shown again.
#[utoipa::path(
    post,
    path = "/api/users/{name}/tokens",
    tag = "accounts",
    params(("name" = String, Path, description = "The name of a user, or `ENTITY+ROBOT`")),
    request_body = Token,
    responses((status = 200, body = wire::Secret), (status = 403), (status = 404)),
)]
async fn add_token(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let Token { name: label, scope, expires_in } = json(&body)?;
    let expires = expires_in.map(|seconds| app.now().plus(Duration::from_secs(seconds)));
    let new = NewToken { name: label, scope, expires };
    let made = tokens::add(&app, &caller, &name.parse::<Actor>()?, new).await?;
    Ok(data(wire::Secret { token: made.secret.expose_secret() }))
}

/// Revokes a token at once.
#[utoipa::path(
    delete,
    path = "/api/users/{name}/tokens/{id}",
    tag = "accounts",
    params(
        ("name" = String, Path, description = "The name of a user, or `ENTITY+ROBOT`"),
        ("id" = String, Path, description = "The id of a token"),
    ),
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn revoke(State(app): State<App>, caller: Credential, Path((name, id)): Path<(String, String)>) -> Answer {
    tokens::revoke(&app, &caller, &name.parse::<Actor>()?, id.parse::<TokenId>()?).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Limit {
    /// Bytes, 0 for unlimited.
    limit: u64,
}

/// What an entity uses of its quota, for its members and administrators.
#[utoipa::path(
    get,
    path = "/api/entities/{name}/quota",
    tag = "accounts",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "The name of an entity")),
    responses((status = 200, body = wire::Quota), (status = 404)),
)]
async fn quota(State(app): State<App>, caller: Credential, Path(name): Path<String>) -> Answer {
    Ok(data(wire::quota(&app, users::quota(&app, &caller, &name.parse::<EntityName>()?).await?)))
}

/// Sets the quota of an entity.
#[utoipa::path(
    put,
    path = "/api/entities/{name}/quota",
    tag = "administration",
    params(("name" = String, Path, description = "The name of an entity")),
    request_body = Limit,
    responses((status = 200, body = wire::Quota), (status = 403), (status = 404)),
)]
async fn set_quota(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let Limit { limit } = json(&body)?;
    let quota = users::set_quota(&app, &caller, &name.parse::<EntityName>()?, limit).await?;
    Ok(data(wire::quota(&app, quota)))
}
