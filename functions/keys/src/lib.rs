//! The place of the keyserver. Clients refuse to pull where none is published; what they ask for is not found here.

use axum::Router;
use axum::routing::any;
use http::StatusCode;
use shared::App;
use shared::http::library::plain;

/// The routes.
pub fn router(_app: App) -> Router {
    let lookup = any(|| async { plain(StatusCode::NOT_FOUND, "no matching keys found: this library keeps no keys") });
    let add = any(|| async { plain(StatusCode::NOT_FOUND, "this library keeps no keys, hand them out another way") });
    shared::http::finish(Router::new().route("/pks/lookup", lookup).route("/pks/add", add))
}
