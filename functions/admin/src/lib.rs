//! The routes behind `stackroom admin`: users and their tokens, quotas, sweeping, scrubbing.

mod wire;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json as value;
use shared::App;
use shared::auth::Credential;
use shared::domain::{EntityName, TokenId, TokenScope, UserName};
use shared::error::Error;
use shared::http::library::{Answer, Failure, data, json};
use shared::service::people::tokens::{self, NewToken};
use shared::service::people::users::{self, Change, NewUser};
use shared::service::scrub::{self, Cursor};
use shared::service::sweep::{self, Ages, Mode};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router(app: &App) -> Router {
    let routes = routes().split_for_parts().0.with_state(app.clone());
    shared::http::finish(app, routes.layer(axum::middleware::from_fn(without_query)))
}

/// Refuses a query where the body says everything: whoever writes `?dry_run=true` believes that it is obeyed.
async fn without_query(request: Request, next: Next) -> Response {
    if request.method() != Method::GET && request.uri().query().is_some_and(|query| !query.is_empty()) {
        let why = "this request takes no query, put what it says into the body".to_owned();
        return Failure(Error::Invalid(why)).into_response();
    }
    next.run(request).await
}

/// The `OpenAPI` description of the routes.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(users, add_user))
        .routes(routes!(set_password))
        .routes(routes!(set_disabled))
        .routes(routes!(tokens, add_token))
        .routes(routes!(revoke))
        .routes(routes!(set_quota))
        .routes(routes!(sweep_now, sweep_dry))
        .routes(routes!(scrub_on))
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
    Ok(data(people.iter().map(wire::user).collect::<Vec<_>>()))
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
    let User { name, password, admin, quota } = json(&body)?;
    users::add(&app, &caller, NewUser { name, password, admin, quota }).await?;
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

/// The tokens of a user, without their secrets.
#[utoipa::path(
    get,
    path = "/api/users/{name}/tokens",
    tag = "accounts",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "The name of a user")),
    responses((status = 200, body = [wire::Token]), (status = 403), (status = 404)),
)]
async fn tokens(State(app): State<App>, caller: Credential, Path(name): Path<String>) -> Answer {
    let tokens = tokens::list(&app, &caller, &name.parse()?).await?;
    Ok(data(tokens.iter().map(wire::token).collect::<Vec<_>>()))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = NewToken)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    /// `RIGHT[,RIGHT…][@ENTITY | @REPOSITORY]` with the rights pull, push, delete, manage and admin; by default all of them.
    #[schema(value_type = Option<String>)]
    scope: Option<TokenScope>,
    /// The lifetime in seconds; by default unlimited.
    expires_in: Option<u64>,
}

/// Makes a token, which is never shown again.
#[utoipa::path(
    post,
    path = "/api/users/{name}/tokens",
    tag = "accounts",
    params(("name" = String, Path, description = "The name of a user")),
    request_body = Token,
    responses((status = 200, body = wire::Secret), (status = 403), (status = 404)),
)]
async fn add_token(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let Token { name: label, scope, expires_in } = json(&body)?;
    let expires = expires_in.map(|seconds| app.now().plus(Duration::from_secs(seconds)));
    let new = NewToken { name: label, scope: scope.unwrap_or_else(TokenScope::full), expires };
    let token = tokens::add(&app, &caller, &name.parse()?, new).await?;
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
async fn revoke(State(app): State<App>, caller: Credential, Path((name, id)): Path<(String, String)>) -> Answer {
    tokens::revoke(&app, &caller, &name.parse()?, id.parse::<TokenId>()?).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
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
async fn set_quota(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let Limit { limit } = json(&body)?;
    let quota = users::set_quota(&app, &caller, &name.parse::<EntityName>()?, limit).await?;
    Ok(data(wire::quota(quota)))
}

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
struct Sweep {
    /// Whether everything is collected at once, regardless of age. Only safe while nothing else runs.
    #[serde(default)]
    now: bool,
}

/// Runs a sweep at once.
#[utoipa::path(
    post,
    path = "/api/sweep",
    tag = "administration",
    request_body = Sweep,
    responses((status = 200, body = wire::Swept), (status = 403)),
)]
async fn sweep_now(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let Sweep { now } = if body.is_empty() { Sweep::default() } else { json(&body)? };
    swept(&app, &caller, now, Mode::Collect).await
}

/// Lists what a sweep would collect, and changes nothing.
#[utoipa::path(
    get,
    path = "/api/sweep",
    tag = "administration",
    params(("now" = Option<bool>, Query, description = "Whether everything is collected, regardless of age")),
    responses((status = 200, body = wire::Swept), (status = 403)),
)]
async fn sweep_dry(State(app): State<App>, caller: Credential, Query(Sweep { now }): Query<Sweep>) -> Answer {
    swept(&app, &caller, now, Mode::DryRun).await
}

async fn swept(app: &App, caller: &Credential, now: bool, mode: Mode) -> Answer {
    let ages = if now { Ages::zero() } else { Ages::safe(app) };
    Ok(data(wire::swept(sweep::sweep_as(app, caller, ages, mode).await?)))
}

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
struct Scrub {
    /// Where to continue: `next` of the answer before. Without it, at the beginning.
    #[schema(value_type = Option<Object>)]
    after: Option<Cursor>,
    /// The most bytes to read; by default and at most 4 GiB.
    bytes: Option<u64>,
}

/// Reads stored bytes again and compares them with their digests, for at most 10 seconds.
#[utoipa::path(
    post,
    path = "/api/scrub",
    tag = "administration",
    request_body = Scrub,
    responses((status = 200, body = wire::Scrubbed), (status = 403)),
)]
async fn scrub_on(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let Scrub { after, bytes } = if body.is_empty() { Scrub::default() } else { json(&body)? };
    let scrubbed = scrub::scrub(&app, &caller, after, bytes.unwrap_or(scrub::MAX_BYTES)).await?;
    Ok(data(wire::scrubbed(scrubbed)))
}
