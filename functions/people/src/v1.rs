//! Users and their tokens, as Hinkskalle's clients ask for them.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use http::header;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::json as value;
use shared::auth::Credential;
use shared::domain::names::MAX_NAME;
use shared::domain::{Actor, Time, TokenId, UserName};
use shared::http::library::{Answer, Failure, data, json, list};
use shared::service::people::directory::{self, FoundUsers};
use shared::service::people::tokens::{self, NewToken};
use shared::service::people::users::UserView;
use shared::store::rows;
use shared::{App, Error};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(find_users))
        .routes(routes!(one_user))
        .routes(routes!(list_tokens_v1, add_token_v1))
        .routes(routes!(revoke_token_v1))
}

/// A user, as Hinkskalle's clients read them. Other users see the names alone.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UserV1)]
struct User {
    username: String,
    firstname: String,
    lastname: &'static str,
    email: &'static str,
    #[serde(flatten)]
    #[schema(inline)]
    account: Option<Account>,
}

/// What the user and administrators see beside the names.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AccountV1)]
struct Account {
    is_admin: bool,
    is_active: bool,
    source: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
    /// The limit of the user's entity in bytes, 0 for unlimited.
    quota: u64,
    /// The bytes of its images.
    #[serde(rename = "used_quota")]
    used_quota: u64,
}

fn named(name: &UserName) -> User {
    let name = name.to_string();
    User { firstname: name.clone(), username: name, lastname: "", email: "", account: None }
}

fn whole(view: &UserView) -> User {
    let UserView { user, quota } = view;
    let account = Account {
        is_admin: user.admin,
        is_active: !user.disabled,
        source: "local",
        created_at: user.created.zoned(),
        quota: quota.limit,
        used_quota: quota.used(),
    };
    User { account: Some(account), ..named(&user.name) }
}

#[derive(Deserialize)]
struct Search {
    #[serde(default)]
    username: String,
    after: Option<String>,
}

/// Users whose names begin with some letters.
///
/// Three letters find up to ten users, and fewer the user of exactly that name; only names are shown. Administrators
/// find all users, page by page, with their usage.
#[utoipa::path(
    get,
    path = "/v1/users",
    tag = "accounts",
    security(("bearer" = [])),
    params(
        ("username" = Option<String>, Query, description = "The beginning of a name"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [User]), (status = 403)),
)]
async fn find_users(State(app): State<App>, caller: Credential, Query(search): Query<Search>) -> Answer {
    let Search { username, after } = search;
    if username.len() > MAX_NAME || after.as_ref().is_some_and(|after| after.len() > MAX_NAME) {
        return Err(Failure(Error::Invalid(format!("a user name has at most {MAX_NAME} letters"))));
    }
    Ok(match directory::find(&app, &caller, &username, after).await? {
        FoundUsers::Names(names) => list(names.iter().map(named).collect::<Vec<_>>(), None),
        FoundUsers::Views(page) => list(page.rows.iter().map(whole).collect::<Vec<_>>(), page.next.as_deref()),
    })
}

/// The caller, or for administrators any user, with quota and usage.
#[utoipa::path(
    get,
    path = "/v1/users/{name}",
    tag = "accounts",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "The name of a user")),
    responses((status = 200, body = User), (status = 404)),
)]
async fn one_user(State(app): State<App>, caller: Credential, Path(name): Path<String>) -> Answer {
    Ok(data(whole(&directory::user(&app, &caller, &name.parse()?).await?)))
}

/// A token without its secret, as Hinkskalle's clients read it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TokenV1)]
struct ApiToken<'a> {
    id: String,
    /// The beginning of its id.
    #[serde(rename = "key_uid")]
    key_uid: String,
    comment: &'a str,
    /// `auto` if a login made it.
    source: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    deleted: bool,
    /// Only in the answer to the request that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    generated_token: Option<&'a str>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

fn token<'a>(row: &'a rows::Token, secret: Option<&'a str>) -> ApiToken<'a> {
    let id = row.id.to_string();
    ApiToken {
        key_uid: id.chars().take(12).collect(),
        id,
        comment: &row.name,
        source: if row.login { "auto" } else { "manual" },
        created_at: row.created.zoned(),
        expires_at: row.expires.map(Time::zoned),
        deleted: false,
        generated_token: secret,
        token: secret,
    }
}

/// The tokens of a user, without their secrets.
#[utoipa::path(
    get,
    path = "/v1/users/{name}/tokens",
    tag = "accounts",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "The name of a user")),
    responses((status = 200, body = [ApiToken]), (status = 403), (status = 404)),
)]
async fn list_tokens_v1(State(app): State<App>, caller: Credential, Path(name): Path<String>) -> Answer {
    let rows = tokens::list(&app, &caller, &Actor::User(name.parse()?)).await?;
    Ok(data(rows.iter().map(|row| token(row, None)).collect::<Vec<_>>()))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NewTokenV1)]
struct NewTokenOfUser {
    /// The name of the token.
    comment: Option<String>,
    /// When it expires, like `2026-12-31T23:59:59Z`; in UTC if it names no zone. By default never.
    expires_at: Option<String>,
}

/// Makes a token with all rights of its user, which is never shown again.
#[utoipa::path(
    post,
    path = "/v1/users/{name}/tokens",
    tag = "accounts",
    params(("name" = String, Path, description = "The name of a user")),
    request_body = NewTokenOfUser,
    responses((status = 200, body = ApiToken), (status = 403), (status = 404)),
)]
async fn add_token_v1(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let NewTokenOfUser { comment, expires_at } = json(&body)?;
    let label = comment.filter(|comment| !comment.is_empty()).unwrap_or_else(|| "token".to_owned());
    let expires = expires_at.map(|time| time.parse::<Time>()).transpose()?;
    let new = NewToken { name: label, scope: None, expires };
    let made = tokens::add(&app, &caller, &Actor::User(name.parse()?), new).await?;
    let body = data(token(&made.row, Some(made.secret.expose_secret())));
    Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
}

/// Revokes a token at once.
#[utoipa::path(
    delete,
    path = "/v1/users/{name}/tokens/{id}",
    tag = "accounts",
    params(
        ("name" = String, Path, description = "The name of a user"),
        ("id" = String, Path, description = "The id of a token"),
    ),
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn revoke_token_v1(
    State(app): State<App>,
    caller: Credential,
    Path((name, id)): Path<(String, String)>,
) -> Answer {
    tokens::revoke(&app, &caller, &Actor::User(name.parse()?), id.parse::<TokenId>()?).await?;
    Ok(data(value!({})))
}
