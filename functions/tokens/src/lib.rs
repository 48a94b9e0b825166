//! People and their tokens: what clients ask of a token, the page that tells people how to get one, and the API that
//! `stackroom admin` uses.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post, put};
use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json as value;
use shared::auth::Credential;
use shared::domain::{Caller, EntityName, TokenId, TokenScope, UserName};
use shared::http::authorization;
use shared::http::library::{Answer, Failure, data, json, plain};
use shared::service::admin::{self, Change, NewToken, NewUser};
use shared::service::{browse, sweep};
use shared::{App, Error};
use std::time::Duration;

/// The routes.
pub fn router(app: App) -> Router {
    let router = Router::new()
        .route("/v1/token-status", get(token_status))
        .route("/v1/rbac/users/current", get(current_user))
        .route("/auth/tokens", get(tokens_page))
        .route("/api/users", get(users).post(add_user))
        .route("/api/users/{name}/password", put(set_password))
        .route("/api/users/{name}/disabled", put(set_disabled))
        .route("/api/users/{name}/tokens", get(tokens).post(add_token))
        .route("/api/users/{name}/tokens/{id}", axum::routing::delete(revoke))
        .route("/api/entities/{name}/quota", put(set_quota))
        .route("/api/sweep", post(sweep_now))
        .with_state(app);
    shared::http::finish(router)
}

fn caller(app: &App, headers: &HeaderMap) -> Result<Credential, Failure> {
    Ok(app.keys.credential(authorization(headers), app.now())?)
}

/// Whether the token is good. A bad one is 404 here: clients then say "invalid credentials".
async fn token_status(State(app): State<App>, headers: HeaderMap) -> Answer {
    let who = match caller(&app, &headers) {
        Ok(credential) => browse::whoami(&app, &credential).await,
        Err(Failure(error)) => Err(error),
    };
    match who {
        Ok(_) => Ok(data(value!({}))),
        Err(Error::Unauthenticated(why)) => Ok(plain(StatusCode::NOT_FOUND, why)),
        Err(error) => Err(error.into()),
    }
}

/// Who the caller is, in the form of the old identity service. The registry password is the token itself.
async fn current_user(State(app): State<App>, headers: HeaderMap) -> Answer {
    let who = browse::whoami(&app, &caller(&app, &headers)?).await?;
    let Caller::User { name, .. } = who else { return Err(Failure(Error::Unauthenticated(shared::error::NO_TOKEN))) };
    let token =
        authorization(&headers).and_then(|text| text.trim().split_once(' ')).map_or("", |(_, token)| token.trim());
    let body = value!({ "oidc_user_meta": { "secret": token }, "email": "", "realname": name, "username": name });
    Ok(([(http::header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

async fn tokens_page() -> impl IntoResponse {
    Html(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tokens</title>\
         <h1>Access tokens</h1>\
         <p>An administrator of this library makes a token for you with \
         <code>stackroom admin token YOU --name laptop</code>.</p>\
         <p>Paste it where <code>apptainer remote login</code> asks for it.</p></html>",
    )
}

async fn users(State(app): State<App>, headers: HeaderMap) -> Answer {
    let people = admin::list(&app, &caller(&app, &headers)?).await?;
    let rows = people.iter().map(|one| {
        let (user, quota) = (&one.user, one.quota);
        value!({
            "name": user.name, "admin": user.admin, "disabled": user.disabled, "created": user.created.to_string(),
            "used": quota.used(), "reserved": quota.reserved, "limit": quota.limit,
        })
    });
    Ok(data(rows.collect::<Vec<_>>()))
}

#[derive(Deserialize)]
struct User {
    name: UserName,
    password: Option<SecretString>,
    #[serde(default)]
    admin: bool,
    quota: Option<u64>,
}

async fn add_user(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let User { name, password, admin, quota } = json(&body)?;
    admin::add(&app, &caller, NewUser { name, password, admin, quota }).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize)]
struct Password {
    password: SecretString,
}

async fn set_password(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let Password { password } = json(&body)?;
    admin::change(&app, &caller, &name.parse()?, Change::Password(password)).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize)]
struct Disabled {
    disabled: bool,
}

async fn set_disabled(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let Disabled { disabled } = json(&body)?;
    admin::change(&app, &caller, &name.parse()?, Change::Disabled(disabled)).await?;
    Ok(data(value!({})))
}

async fn tokens(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>) -> Answer {
    let tokens = admin::tokens(&app, &caller(&app, &headers)?, &name.parse()?).await?;
    let rows = tokens.iter().map(|token| {
        let (created, expires) = (token.created.to_string(), token.expires.map(|time| time.to_string()));
        value!({ "id": token.id, "name": token.name, "scope": token.scope, "created": created, "expires": expires })
    });
    Ok(data(rows.collect::<Vec<_>>()))
}

#[derive(Deserialize)]
struct Token {
    name: String,
    scope: Option<TokenScope>,
    /// Seconds from now.
    expires_in: Option<u64>,
}

async fn add_token(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let Token { name: label, scope, expires_in } = json(&body)?;
    let expires = expires_in.map(|seconds| app.now().plus(Duration::from_secs(seconds)));
    let new = NewToken { name: label, scope: scope.unwrap_or_else(TokenScope::full), expires };
    let token = admin::add_token(&app, &caller, &name.parse()?, new).await?;
    Ok(data(value!({ "token": token.expose_secret() })))
}

async fn revoke(State(app): State<App>, headers: HeaderMap, Path((name, id)): Path<(String, String)>) -> Answer {
    let caller = caller(&app, &headers)?;
    admin::revoke(&app, &caller, &name.parse()?, id.parse::<TokenId>()?).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize)]
struct Limit {
    limit: u64,
}

async fn set_quota(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let Limit { limit } = json(&body)?;
    let quota = admin::set_quota(&app, &caller, &name.parse::<EntityName>()?, limit).await?;
    Ok(data(value!({ "used": quota.used(), "reserved": quota.reserved, "limit": quota.limit })))
}

#[derive(Deserialize, Default)]
struct Sweep {
    /// Whether everything is collected at once, however young. Only while nothing else runs.
    #[serde(default)]
    now: bool,
}

async fn sweep_now(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let Sweep { now } = if body.is_empty() { Sweep::default() } else { json(&body)? };
    let ages = if now { sweep::Ages::zero() } else { sweep::Ages::safe(&app) };
    Ok(data(sweep::sweep_as(&app, &caller, ages).await?))
}
