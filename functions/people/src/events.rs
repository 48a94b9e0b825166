//! The logs of changes: of an entity, of a user's account, of the installation.

use crate::wire;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use shared::App;
use shared::auth::Credential;
use shared::domain::{Actor, Time};
use shared::http::library::{Answer, list};
use shared::service::events::{self, Filter, Log};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(of_entity)).routes(routes!(of_user)).routes(routes!(of_all))
}

#[derive(Deserialize)]
struct Asked {
    after: Option<String>,
    actor: Option<Actor>,
    action: Option<String>,
    since: Option<i64>,
    until: Option<i64>,
}

async fn page(app: &App, caller: &Credential, log: &Log, asked: Asked) -> Answer {
    let Asked { after, actor, action, since, until } = asked;
    let filter = Filter { actor, action, since: since.map(Time), until: until.map(Time) };
    let page = events::list(app, caller, log, &filter, after).await?;
    Ok(list(page.rows.iter().map(wire::event).collect::<Vec<_>>(), page.next.as_deref()))
}

/// What was changed in an entity, and by whom, the latest first.
#[utoipa::path(
    get,
    path = "/api/entities/{name}/events",
    tag = "events",
    security(("bearer" = [])),
    params(
        ("name" = String, Path, description = "The name of an entity"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
        ("actor" = Option<String>, Query, description = "Only changes by this user, or robot as `ENTITY+ROBOT`"),
        ("action" = Option<String>, Query, description = "Only this action, like `push`, `delete` or `manage`"),
        ("since" = Option<i64>, Query, description = "Only changes since then, in seconds since 1970"),
        ("until" = Option<i64>, Query, description = "Only changes before then, in seconds since 1970"),
    ),
    responses((status = 200, body = [wire::Event]), (status = 403)),
)]
async fn of_entity(
    State(app): State<App>,
    caller: Credential,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Answer {
    page(&app, &caller, &Log::Entity(name.parse()?), asked).await
}

/// What was changed in a user's account, and by whom, the latest first.
#[utoipa::path(
    get,
    path = "/api/users/{name}/events",
    tag = "events",
    security(("bearer" = [])),
    params(
        ("name" = String, Path, description = "The name of a user"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [wire::Event]), (status = 403)),
)]
async fn of_user(
    State(app): State<App>,
    caller: Credential,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Answer {
    page(&app, &caller, &Log::User(name.parse()?), asked).await
}

/// What was changed in the installation itself, and by whom, the latest first.
#[utoipa::path(
    get,
    path = "/api/events",
    tag = "events",
    security(("bearer" = [])),
    params(("after" = Option<String>, Query, description = "The `page.next` of the previous page")),
    responses((status = 200, body = [wire::Event]), (status = 403)),
)]
async fn of_all(State(app): State<App>, caller: Credential, Query(asked): Query<Asked>) -> Answer {
    page(&app, &caller, &Log::Installation, asked).await
}
