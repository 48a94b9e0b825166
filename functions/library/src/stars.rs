//! Stars, as Hinkskalle's clients give them and list them.

use crate::wire;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use shared::auth::Credential;
use shared::domain::{Id, UserName};
use shared::http::library::{Answer, Failure, list};
use shared::service::star::{self, OwnStar};
use shared::{App, Error};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stars)).routes(routes!(give_star, take_star))
}

/// The list after a change: empty for a token that is for one place, and does not list what lies elsewhere.
async fn others(app: &App, caller: &Credential, user: &UserName) -> Answer {
    match shown(app, caller, user, None).await {
        Err(Failure(Error::NotFound(_))) => Ok(list(Vec::<wire::Container>::new(), None)),
        shown => shown,
    }
}

#[derive(Deserialize)]
struct Page {
    after: Option<String>,
}

/// The containers that a user has starred, as far as the caller may see them, page by page.
///
/// A page can have fewer entries than its user gave stars, and still not be the last one.
#[utoipa::path(
    get,
    path = "/v1/users/{name}/stars",
    tag = "stars",
    security(("bearer" = [])),
    params(
        ("name" = String, Path, description = "The caller's own name; for administrators, any"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [wire::Container]), (status = 404)),
)]
async fn stars(
    State(app): State<App>,
    caller: Credential,
    Path(name): Path<String>,
    Query(page): Query<Page>,
) -> Answer {
    shown(&app, &caller, &name.parse()?, page.after).await
}

async fn shown(app: &App, caller: &Credential, user: &UserName, after: Option<String>) -> Answer {
    if after.as_ref().is_some_and(|after| after.is_empty() || after.len() > 512) {
        return Err(Failure(Error::Invalid("`after` must be the `page.next` of the previous page".to_owned())));
    }
    let page = star::list(app, caller, user, after).await?;
    Ok(list(page.rows.iter().map(wire::starred).collect::<Vec<_>>(), page.next.as_deref()))
}

/// Stars a container, and returns the first page of the caller's stars.
#[utoipa::path(
    post,
    path = "/v1/users/{name}/stars/{container}",
    tag = "stars",
    params(
        ("name" = String, Path, description = "The caller's own name"),
        ("container" = String, Path, description = "The id of a container"),
    ),
    responses((status = 200, body = [wire::Container]), (status = 403), (status = 404)),
)]
async fn give_star(State(app): State<App>, caller: Credential, Path((name, id)): Path<(String, String)>) -> Answer {
    let (name, id) = (name.parse::<UserName>()?, id.parse::<Id>()?);
    star::give(&app, &caller, OwnStar { user: &name, container: id }).await?;
    others(&app, &caller, &name).await
}

/// Takes the caller's star of a container back, and returns the first page of the others.
#[utoipa::path(
    delete,
    path = "/v1/users/{name}/stars/{container}",
    tag = "stars",
    params(
        ("name" = String, Path, description = "The caller's own name"),
        ("container" = String, Path, description = "The id of a container"),
    ),
    responses((status = 200, body = [wire::Container]), (status = 403), (status = 404)),
)]
async fn take_star(State(app): State<App>, caller: Credential, Path((name, id)): Path<(String, String)>) -> Answer {
    let (name, id) = (name.parse::<UserName>()?, id.parse::<Id>()?);
    star::take(&app, &caller, OwnStar { user: &name, container: id }).await?;
    others(&app, &caller, &name).await
}
