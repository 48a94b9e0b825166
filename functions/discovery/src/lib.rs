//! The first requests of every client: where the services are, which version they speak, whether they are well.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, StatusCode, header};
use serde::Serialize;
use shared::App;
use shared::http::Routes;
use shared::http::library::{data, plain};
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The version of the library API that clients have to find: with it they use multipart uploads and tags by
/// architecture.
pub const API_VERSION: &str = "2.0.0-alpha.2";

/// The routes.
pub fn router(app: &App) -> Routes {
    shared::http::finish(app, routes().split_for_parts().0.with_state(app.clone()))
}

/// The `OpenAPI` description of the routes.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(config))
        .routes(routes!(version))
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(openapi_json))
}

/// The discovery document. Every top-level value must be an object. Missing services are left out, except the
/// keyserver: without it, clients refuse to pull.
#[derive(Serialize, ToSchema)]
struct Services {
    #[serde(rename = "keystoreAPI")]
    keystore: Service,
    #[serde(rename = "libraryAPI")]
    library: Library,
    #[serde(rename = "tokenAPI")]
    token: Service,
}

/// The addresses of the library, and of the registry for the same repositories.
#[derive(Serialize, ToSchema)]
struct Library {
    uri: String,
    #[serde(rename = "registryUri")]
    registry_uri: String,
}

/// The address of a service.
#[derive(Clone, Serialize, ToSchema)]
struct Service {
    uri: String,
}

fn services(public_url: &str) -> Services {
    let service = Service { uri: public_url.to_owned() };
    let library = Library { uri: service.uri.clone(), registry_uri: service.uri.clone() };
    Services { keystore: service.clone(), library, token: service }
}

/// How long a client may cache what changes only with the server.
const FOR_A_WHILE: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=300");

/// The addresses of the services.
#[utoipa::path(
    get,
    path = "/assets/config/config.prod.json",
    tag = "discovery",
    security(()),
    responses((status = 200, body = Services, extensions(("x-bare" = json!(true))))),
)]
async fn config(State(app): State<App>) -> Response {
    ([FOR_A_WHILE], Json(services(&app.config.public_url))).into_response()
}

/// The versions of the server and of the library API.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    api_version: &'static str,
}

/// The versions of the server and of the library API.
#[utoipa::path(get, path = "/version", tag = "discovery", security(()), responses((status = 200, body = Version)))]
async fn version() -> Response {
    data(Version { version: concat!("v", env!("CARGO_PKG_VERSION")), api_version: API_VERSION })
}

/// Whether the server is running.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "discovery",
    security(()),
    responses((status = 200, body = String, content_type = "text/plain")),
)]
async fn live() -> &'static str {
    "ok\n"
}

/// Whether the server can reach its store.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "discovery",
    security(()),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 503)),
)]
async fn ready(State(app): State<App>) -> Response {
    let well = app.table.ready().await.and(app.objects.ready().await);
    match well {
        Ok(()) => "ok\n".into_response(),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the store is not available"),
    }
}

/// The description of all routes of all functions. A test of the server keeps it up to date.
const DOCUMENT: &str = include_str!("../../../docs/openapi.json");

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "discovery",
    security(()),
    responses((status = 200, body = Object, extensions(("x-bare" = json!(true))))),
)]
async fn openapi_json() -> impl IntoResponse {
    ([FOR_A_WHILE, (header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_value_of_the_discovery_document_is_an_object_with_a_uri() {
        let services = json!(services("https://library.example.org"));
        for name in ["libraryAPI", "keystoreAPI", "tokenAPI"] {
            assert_eq!(services[name]["uri"], "https://library.example.org");
        }
        assert_eq!(services["libraryAPI"]["registryUri"], "https://library.example.org");
        assert!(services.as_object().unwrap().values().all(Value::is_object));
    }
}
