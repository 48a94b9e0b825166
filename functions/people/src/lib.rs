//! The routes for people: users, their tokens and quotas; registering; groups, members, robots, invitations; the logs of changes.

mod events;
mod groups;
mod registration;
mod users;
mod wire;

use axum::Router;
use shared::App;
use shared::http::library::without_query;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// The routes.
pub fn router(app: &App) -> Router {
    let routes = routes().split_for_parts().0.with_state(app.clone());
    shared::http::finish(app, routes.layer(axum::middleware::from_fn(without_query)))
}

/// The `OpenAPI` description of the routes.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<App> {
    users::routes().merge(registration::routes()).merge(groups::routes()).merge(events::routes())
}
