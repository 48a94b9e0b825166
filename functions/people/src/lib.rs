//! The routes for people: users, their tokens and quotas; registering; groups, members, robots, invitations; the logs of changes.

mod events;
mod groups;
mod registration;
mod users;
mod v1;
mod wire;

use shared::App;
use shared::http::Routes;
use shared::http::library::without_query;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// The routes.
pub fn router(app: &App) -> Routes {
    let in_bodies = routes().split_for_parts().0.layer(axum::middleware::from_fn(without_query));
    let all = in_bodies.merge(users::deletions().split_for_parts().0);
    shared::http::finish(app, all.with_state(app.clone()))
}

/// The `OpenAPI` description of the routes.
pub fn openapi() -> OpenApi {
    routes().merge(users::deletions()).into_openapi()
}

fn routes() -> OpenApiRouter<App> {
    let people = users::routes().merge(registration::routes()).merge(groups::routes());
    people.merge(events::routes()).merge(v1::routes())
}
