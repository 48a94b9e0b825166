//! The routes for the care of an installation: sweeping, scrubbing.

mod wire;

use axum::body::Bytes;
use axum::extract::{Query, State};
use serde::Deserialize;
use shared::App;
use shared::auth::Credential;
use shared::http::Routes;
use shared::http::library::{Answer, data, json, without_query};
use shared::service::scrub::{self, Cursor};
use shared::service::search;
use shared::service::sweep::accounts::{self, Correction};
use shared::service::sweep::{self, Ages, Mode};
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router(app: &App) -> Routes {
    let routes = routes().split_for_parts().0.with_state(app.clone());
    shared::http::finish(app, routes.layer(axum::middleware::from_fn(without_query)))
}

/// The `OpenAPI` description of the routes.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(sweep_now, sweep_dry))
        .routes(routes!(accounts_compared, accounts_corrected))
        .routes(routes!(scrub_on))
        .routes(routes!(index_state, index_anew))
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

/// Compares the accounts of all entities with everything that counts, and changes nothing.
#[utoipa::path(
    get,
    path = "/api/accounts",
    tag = "administration",
    security(("bearer" = [])),
    responses((status = 200, body = wire::Compared), (status = 403)),
)]
async fn accounts_compared(State(app): State<App>, caller: Credential) -> Answer {
    Ok(data(wire::compared(accounts::compare(&app, &caller, Correction::Report).await?)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Repair {
    /// Whether wrong accounts are corrected.
    repair: bool,
}

/// Compares the accounts of all entities with everything that counts, and corrects those that are wrong.
#[utoipa::path(
    post,
    path = "/api/accounts",
    tag = "administration",
    request_body = Repair,
    responses((status = 200, body = wire::Compared), (status = 403)),
)]
async fn accounts_corrected(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let Repair { repair } = json(&body)?;
    let correction = if repair { Correction::Correct } else { Correction::Report };
    Ok(data(wire::compared(accounts::compare(&app, &caller, correction).await?)))
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

/// Says whether the search index is whole, and how far it is behind.
#[utoipa::path(
    get,
    path = "/api/index",
    tag = "administration",
    security(("bearer" = [])),
    responses((status = 200, body = wire::Index), (status = 403)),
)]
async fn index_state(State(app): State<App>, caller: Credential) -> Answer {
    Ok(data(wire::index(search::state(&app, &caller).await?)))
}

/// Has the search index made anew, which the server or the next sweep does. What is in it is found meanwhile.
#[utoipa::path(
    post,
    path = "/api/index",
    tag = "administration",
    responses((status = 200, body = wire::Index), (status = 403)),
)]
async fn index_anew(State(app): State<App>, caller: Credential) -> Answer {
    search::renew(&app, &caller).await?;
    Ok(data(wire::index(search::state(&app, &caller).await?)))
}
