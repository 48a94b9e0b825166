//! People and their tokens: what clients ask of a token, the page that tells people how to get one, and the API that
//! `stackroom admin` uses.

mod wire;

use axum::Form;
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json as value;
use shared::auth::Credential;
use shared::domain::{Caller, EntityName, TokenId, TokenScope, UserName};
use shared::http::authorization;
use shared::http::library::{Answer, Failure, data, json, plain};
use shared::service::admin::{self, Change, NewToken, NewUser};
use shared::service::browse;
use shared::service::registry::{Refused, login};
use shared::service::sweep::{self, Ages, Mode};
use shared::{App, Error};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router(app: App) -> Router {
    shared::http::finish(routes().split_for_parts().0.with_state(app))
}

/// What the routes say of themselves.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(token_status))
        .routes(routes!(current_user))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(registry_token, registry_token_form))
                .layer(DefaultBodyLimit::max(LONGEST_LOGIN)),
        )
        .routes(routes!(tokens_page))
        .routes(routes!(users, add_user))
        .routes(routes!(set_password))
        .routes(routes!(set_disabled))
        .routes(routes!(tokens, add_token))
        .routes(routes!(revoke))
        .routes(routes!(set_quota))
        .routes(routes!(sweep_now, sweep_dry))
}

/// The longest form with a name, a password and scopes that is read, in bytes. Anybody may send one.
const LONGEST_LOGIN: usize = 16 << 10;

fn caller(app: &App, headers: &HeaderMap) -> Result<Credential, Failure> {
    Ok(app.keys.credential(authorization(headers), app.now())?)
}

/// Whether the token is good.
///
/// A bad one is 404 here: clients then say "invalid credentials".
#[utoipa::path(
    get,
    path = "/v1/token-status",
    tag = "accounts",
    security(("bearer" = [])),
    responses((status = 200), (status = 404, description = "The token is no good, or there is none")),
)]
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

/// Who the caller is, in the form of the old identity service.
///
/// The registry password is the token itself.
#[utoipa::path(
    get,
    path = "/v1/rbac/users/current",
    tag = "accounts",
    security(("bearer" = [])),
    responses((status = 200, body = wire::CurrentUser, extensions(("x-bare" = json!(true))))),
)]
async fn current_user(State(app): State<App>, headers: HeaderMap) -> Answer {
    let who = browse::whoami(&app, &caller(&app, &headers)?).await?;
    let Caller::User { name, .. } = who else { return Err(Failure(Error::Unauthenticated(shared::error::NO_TOKEN))) };
    let token =
        authorization(&headers).and_then(|text| text.trim().split_once(' ')).map_or("", |(_, token)| token.trim());
    Ok(([(http::header::CACHE_CONTROL, "no-store")], Json(wire::current_user(&name, token))).into_response())
}

/// A short-lived token for a registry client, for what it says that it will do.
///
/// Who shows nothing gets nobody's token. What a token may really do is decided when it does it.
#[utoipa::path(
    get,
    path = "/token",
    tag = "registry",
    security((), ("basic" = [])),
    params(
        ("scope" = Option<String>, Query, description = "`repository:NAME:pull,push,delete`, once or more"),
        ("service" = Option<String>, Query),
        ("account" = Option<String>, Query),
    ),
    responses(
        (status = 200, body = wire::RegistryToken, extensions(("x-bare" = json!(true)))),
        (status = 401),
        (status = 429, description = "Too many wrong passwords for that name, or too many logins at once"),
    ),
)]
async fn registry_token(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let scopes: Vec<&str> = query.iter().filter(|(name, _)| name == "scope").map(|(_, scope)| scope.as_str()).collect();
    let token = async {
        let credential = login::presented(&app, authorization(&headers)).await?;
        login::token(&app, &credential, &scopes).await
    };
    granted(&app, token.await)
}

/// The same for clients that send name and password, or a token, in a form (OAuth 2, RFC 6749 §4.3 and §6).
#[utoipa::path(
    post,
    path = "/token",
    tag = "registry",
    security(()),
    request_body(content = String, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, body = wire::RegistryToken, extensions(("x-bare" = json!(true)))),
        (status = 401),
        (status = 429, description = "Too many wrong passwords for that name, or too many logins at once"),
    ),
)]
async fn registry_token_form(State(app): State<App>, Form(form): Form<Vec<(String, String)>>) -> Response {
    let field = |wanted: &str| form.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let scopes: Vec<&str> = form.iter().filter(|(name, _)| name == "scope").map(|(_, scope)| scope.as_str()).collect();
    let token = async {
        let (name, secret) = match field("grant_type") {
            Some("refresh_token") => ("", field("refresh_token")),
            Some("password") | None => (field("username").unwrap_or_default(), field("password")),
            Some(_) => return Err(Error::Invalid("the grant types are password and refresh_token".to_owned()).into()),
        };
        let secret = SecretString::from(secret.unwrap_or_default().to_owned());
        let credential = login::shown(&app, name, &secret).await?;
        login::token(&app, &credential, &scopes).await
    };
    granted(&app, token.await)
}

fn granted(app: &App, token: Result<SecretString, Refused>) -> Response {
    match token {
        Ok(token) => {
            let body = Json(wire::registry_token(token.expose_secret(), login::LIFE, app.now()));
            ([(http::header::CACHE_CONTROL, "no-store")], body).into_response()
        }
        Err(refused) => shared::http::registry::refusal(app, &refused, None),
    }
}

/// The page that tells people how to get a token.
#[utoipa::path(
    get,
    path = "/auth/tokens",
    tag = "accounts",
    security(()),
    responses((status = 200, body = String, content_type = "text/html")),
)]
async fn tokens_page() -> impl IntoResponse {
    Html(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tokens</title>\
         <h1>Access tokens</h1>\
         <p>An administrator of this library makes a token for you with \
         <code>stackroom admin token YOU --name laptop</code>.</p>\
         <p>Paste it where <code>apptainer remote login</code> asks for it.</p></html>",
    )
}

/// All users, with their numbers.
#[utoipa::path(
    get,
    path = "/api/users",
    tag = "administration",
    security(("bearer" = [])),
    responses((status = 200, body = [wire::User]), (status = 403)),
)]
async fn users(State(app): State<App>, headers: HeaderMap) -> Answer {
    let people = admin::list(&app, &caller(&app, &headers)?).await?;
    Ok(data(people.iter().map(wire::user).collect::<Vec<_>>()))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = NewUser)]
struct User {
    #[schema(value_type = String)]
    name: UserName,
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<SecretString>,
    #[serde(default)]
    admin: bool,
    /// Of the entity, in bytes, 0 for unlimited; by default the configured one.
    quota: Option<u64>,
}

/// Adds a user, and the entity of that name.
#[utoipa::path(
    post,
    path = "/api/users",
    tag = "administration",
    request_body = User,
    responses((status = 200), (status = 403), (status = 409)),
)]
async fn add_user(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let User { name, password, admin, quota } = json(&body)?;
    admin::add(&app, &caller, NewUser { name, password, admin, quota }).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize, ToSchema)]
struct Password {
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

/// Sets a password: one's own, or anybody's as an administrator.
#[utoipa::path(
    put,
    path = "/api/users/{name}/password",
    tag = "accounts",
    params(("name" = String, Path, description = "The name of a user")),
    request_body = Password,
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn set_password(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let Password { password } = json(&body)?;
    admin::change(&app, &caller, &name.parse()?, Change::Password(password)).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize, ToSchema)]
struct Disabled {
    disabled: bool,
}

/// Disables an account, or lifts that.
#[utoipa::path(
    put,
    path = "/api/users/{name}/disabled",
    tag = "administration",
    params(("name" = String, Path, description = "The name of a user")),
    request_body = Disabled,
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn set_disabled(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let Disabled { disabled } = json(&body)?;
    admin::change(&app, &caller, &name.parse()?, Change::Disabled(disabled)).await?;
    Ok(data(value!({})))
}

/// The tokens of a user, without their secrets.
#[utoipa::path(
    get,
    path = "/api/users/{name}/tokens",
    tag = "accounts",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "The name of a user")),
    responses((status = 200, body = [wire::Token]), (status = 403), (status = 404)),
)]
async fn tokens(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>) -> Answer {
    let tokens = admin::tokens(&app, &caller(&app, &headers)?, &name.parse()?).await?;
    Ok(data(tokens.iter().map(wire::token).collect::<Vec<_>>()))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = NewToken)]
struct Token {
    name: String,
    /// `RIGHT[,RIGHT…][@ENTITY | @REPOSITORY]` with the rights pull, push, delete and admin; by default all of them.
    #[schema(value_type = Option<String>)]
    scope: Option<TokenScope>,
    /// Seconds from now; by default never.
    expires_in: Option<u64>,
}

/// Makes a token, which is shown only now.
#[utoipa::path(
    post,
    path = "/api/users/{name}/tokens",
    tag = "accounts",
    params(("name" = String, Path, description = "The name of a user")),
    request_body = Token,
    responses((status = 200, body = wire::Secret), (status = 403), (status = 404)),
)]
async fn add_token(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let Token { name: label, scope, expires_in } = json(&body)?;
    let expires = expires_in.map(|seconds| app.now().plus(Duration::from_secs(seconds)));
    let new = NewToken { name: label, scope: scope.unwrap_or_else(TokenScope::full), expires };
    let token = admin::add_token(&app, &caller, &name.parse()?, new).await?;
    Ok(data(wire::Secret { token: token.expose_secret() }))
}

/// Revokes a token at once.
#[utoipa::path(
    delete,
    path = "/api/users/{name}/tokens/{id}",
    tag = "accounts",
    params(
        ("name" = String, Path, description = "The name of a user"),
        ("id" = String, Path, description = "The id of a token"),
    ),
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn revoke(State(app): State<App>, headers: HeaderMap, Path((name, id)): Path<(String, String)>) -> Answer {
    let caller = caller(&app, &headers)?;
    admin::revoke(&app, &caller, &name.parse()?, id.parse::<TokenId>()?).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize, ToSchema)]
struct Limit {
    /// Bytes, 0 for unlimited.
    limit: u64,
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
async fn set_quota(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let Limit { limit } = json(&body)?;
    let quota = admin::set_quota(&app, &caller, &name.parse::<EntityName>()?, limit).await?;
    Ok(data(wire::quota(quota)))
}

#[derive(Deserialize, Default, ToSchema)]
struct Sweep {
    /// Whether everything is collected at once, however young. Only while nothing else runs.
    #[serde(default)]
    now: bool,
}

/// Collects what was left over, at once.
#[utoipa::path(
    post,
    path = "/api/sweep",
    tag = "administration",
    request_body = Sweep,
    responses((status = 200, body = wire::Swept), (status = 403)),
)]
async fn sweep_now(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let Sweep { now } = if body.is_empty() { Sweep::default() } else { json(&body)? };
    swept(&app, &caller, now, Mode::Collect).await
}

/// Says what a sweep would collect, and changes nothing.
#[utoipa::path(
    get,
    path = "/api/sweep",
    tag = "administration",
    params(("now" = Option<bool>, Query, description = "Whether everything is meant, however young")),
    responses((status = 200, body = wire::Swept), (status = 403)),
)]
async fn sweep_dry(State(app): State<App>, headers: HeaderMap, Query(Sweep { now }): Query<Sweep>) -> Answer {
    let caller = caller(&app, &headers)?;
    swept(&app, &caller, now, Mode::DryRun).await
}

async fn swept(app: &App, caller: &Credential, now: bool, mode: Mode) -> Answer {
    let ages = if now { Ages::zero() } else { Ages::safe(app) };
    Ok(data(wire::swept(sweep::sweep_as(app, caller, ages, mode).await?)))
}
