//! What a client asks before anything else: where the services are, which version they speak, whether they are well.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde_json::{Value, json};
use shared::App;
use shared::http::library::{data, plain};

/// The version of the library API that clients have to find: with it they use multipart uploads and tags by architecture.
pub const API_VERSION: &str = "2.0.0-alpha.2";

/// The routes.
pub fn router(app: App) -> Router {
    let router = Router::new()
        .route("/assets/config/config.prod.json", get(config))
        .route("/version", get(version))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(app);
    shared::http::finish(router)
}

/// The discovery document. Every value at its top must be an object; services that are not there are left out, but for
/// the keyserver, without which clients refuse to pull.
fn services(public_url: &str) -> Value {
    let service = json!({ "uri": public_url });
    json!({ "libraryAPI": service, "keystoreAPI": service, "tokenAPI": service })
}

async fn config(State(app): State<App>) -> Response {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(services(&app.config.public_url))).into_response()
}

async fn version() -> Response {
    data(json!({ "version": concat!("v", env!("CARGO_PKG_VERSION")), "apiVersion": API_VERSION }))
}

async fn ready(State(app): State<App>) -> Response {
    let well = app.table.ready().await.and(app.objects.ready().await);
    match well {
        Ok(()) => "ok\n".into_response(),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the store is not available"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_the_discovery_document_is_an_object_with_a_uri() {
        let services = services("https://library.example.org");
        for name in ["libraryAPI", "keystoreAPI", "tokenAPI"] {
            assert_eq!(services[name]["uri"], "https://library.example.org");
        }
        assert!(services.as_object().unwrap().values().all(Value::is_object));
    }
}
