//! A stand-in for the keyserver. Clients refuse to pull if no keyserver is published; this one never finds a key.

use axum::response::Response;
use axum::routing::any;
use http::StatusCode;
use shared::App;
use shared::http::Routes;
use shared::http::library::plain;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

/// The routes.
pub fn router(app: &App) -> Routes {
    shared::http::finish(app, routes().split_for_parts().0)
}

/// The `OpenAPI` description of the routes.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

/// There are no keys, whatever the method is.
fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(lookup).map(|_| any(lookup))).routes(routes!(add).map(|_| any(add)))
}

/// Looks for keys, and never finds any.
#[utoipa::path(
    get,
    path = "/pks/lookup",
    tag = "keys",
    security(()),
    params(
        ("op" = Option<String>, Query, description = "`get` or `index`"),
        ("search" = Option<String>, Query, description = "A fingerprint or a name"),
    ),
    responses((status = 404)),
)]
async fn lookup() -> Response {
    plain(StatusCode::NOT_FOUND, "no matching keys found: this library keeps no keys")
}

/// Refuses to add a key.
#[utoipa::path(post, path = "/pks/add", tag = "keys", security(()), responses((status = 404)))]
async fn add() -> Response {
    plain(StatusCode::NOT_FOUND, "this library keeps no keys, distribute them another way")
}
