//! Logging in: short-lived tokens for registry clients, token checks, and the page that tells people how to get a
//! token. Anybody can reach these routes, so they are a separate function, which may neither read the whole table nor
//! touch the bucket.

mod wire;

use axum::Form;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json as value;
use shared::auth::Credential;
use shared::domain::Caller;
use shared::http::library::{Answer, Failure, data, json, plain};
use shared::http::registry::unread;
use shared::http::{Routes, authorization};
use shared::service::browse;
use shared::service::people::login;
use shared::{App, Error};
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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
        .routes(routes!(token_status))
        .routes(routes!(current_user))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(registry_token, registry_token_form))
                .routes(routes!(get_token))
                .layer(DefaultBodyLimit::max(LONGEST_LOGIN)),
        )
        .routes(routes!(tokens_page))
}

/// The longest login (name, password and scopes) that is read, in bytes. Anybody may send one.
const LONGEST_LOGIN: usize = 16 << 10;

/// Whether the token is good, and whose it is.
///
/// A bad token gets 404 here: clients then say "invalid credentials".
#[utoipa::path(
    get,
    path = "/v1/token-status",
    tag = "accounts",
    security(("bearer" = [])),
    responses(
        (status = 200, body = wire::LoginUser),
        (status = 404, description = "The token is invalid or missing"),
    ),
)]
async fn token_status(State(app): State<App>, credential: Result<Credential, Failure>) -> Answer {
    let who = match credential {
        Ok(credential) => browse::whoami(&app, &credential).await,
        Err(Failure(error)) => Err(error),
    };
    match who {
        Ok(Caller::Known { actor: name, admin, .. }) => {
            Ok(Json(value!({ "status": "welcome", "data": wire::user(&name, admin) })).into_response())
        }
        Ok(Caller::Anonymous | Caller::System) => Ok(plain(StatusCode::NOT_FOUND, shared::error::NO_TOKEN)),
        Err(Error::Unauthenticated(why)) => Ok(plain(StatusCode::NOT_FOUND, why)),
        Err(error) => Err(error.into()),
    }
}

/// The caller's identity, in the form of the old identity service.
///
/// The registry password is the token itself.
#[utoipa::path(
    get,
    path = "/v1/rbac/users/current",
    tag = "accounts",
    security(("bearer" = [])),
    responses((status = 200, body = wire::CurrentUser, extensions(("x-bare" = json!(true))))),
)]
async fn current_user(State(app): State<App>, caller: Credential, headers: HeaderMap) -> Answer {
    let who = browse::whoami(&app, &caller).await?;
    let Caller::Known { actor, .. } = who else { return Err(Failure(Error::Unauthenticated(shared::error::NO_TOKEN))) };
    let token =
        authorization(&headers).and_then(|text| text.trim().split_once(' ')).map_or("", |(_, token)| token.trim());
    Ok(([(http::header::CACHE_CONTROL, "no-store")], Json(wire::current_user(&actor, token))).into_response())
}

/// A short-lived token for a registry client, for the scopes that it asks for.
///
/// A request without credentials gets an anonymous token. Access is decided later, each time the token is used.
#[utoipa::path(
    get,
    path = "/token",
    tag = "registry",
    security((), ("basic" = [])),
    params(
        ("scope" = Option<String>, Query, description = "`repository:NAME:pull,push,delete`; can be repeated"),
        ("service" = Option<String>, Query),
        ("account" = Option<String>, Query),
    ),
    responses(
        (status = 200, body = wire::RegistryToken, extensions(("x-bare" = json!(true)))),
        (status = 401),
        (status = 429, description = "Too many wrong passwords for that name, or too many logins at once"),
    ),
)]
async fn registry_token(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let scopes: Vec<&str> = query.iter().filter(|(name, _)| name == "scope").map(|(_, scope)| scope.as_str()).collect();
    let token = async {
        unread(&query)?;
        let credential = login::with_long_lived(&app, authorization(&headers)).await?;
        login::token(&app, &credential, &scopes).await
    };
    granted(&app, token.await)
}

/// The same for clients that send a name and a password, or a token, in a form (OAuth 2, RFC 6749 §4.3 and §6).
#[utoipa::path(
    post,
    path = "/token",
    tag = "registry",
    security(()),
    request_body(content = String, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, body = wire::RegistryToken, extensions(("x-bare" = json!(true)))),
        (status = 401),
        (status = 429, description = "Too many wrong passwords for that name, or too many logins at once"),
    ),
)]
async fn registry_token_form(State(app): State<App>, Form(form): Form<Vec<(String, String)>>) -> Response {
    let field = |wanted: &str| form.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let scopes: Vec<&str> = form.iter().filter(|(name, _)| name == "scope").map(|(_, scope)| scope.as_str()).collect();
    let token = async {
        unread(&form)?;
        let (name, secret) = match field("grant_type") {
            Some("refresh_token") => ("", field("refresh_token")),
            Some("password") | None => (field("username").unwrap_or_default(), field("password")),
            Some(_) => return Err(Error::Invalid("the grant types are password and refresh_token".to_owned())),
        };
        let secret = SecretString::from(secret.unwrap_or_default().to_owned());
        let credential = login::with_secret(&app, name, &secret).await?;
        login::token(&app, &credential, &scopes).await
    };
    granted(&app, token.await)
}

fn granted(app: &App, token: Result<SecretString, Error>) -> Response {
    match token {
        Ok(token) => {
            let body = Json(wire::registry_token(token.expose_secret(), login::LIFE, app.now()));
            ([(http::header::CACHE_CONTROL, "no-store")], body).into_response()
        }
        Err(error) => shared::http::registry::refusal(app, &error.into(), None),
    }
}

/// A name and a password, or one of the user's API tokens.
#[derive(Deserialize, ToSchema)]
struct Login {
    username: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

/// A token for a name and a password, for the clients of Hinkskalle, which keep it.
///
/// It has all rights of its user, and lasts a day. For an hour, further logins get the same one. If the password is one
/// of the user's API tokens, that is returned.
#[utoipa::path(
    post,
    path = "/v1/get-token",
    tag = "accounts",
    security(()),
    request_body = Login,
    responses(
        (status = 200, body = wire::LoginToken),
        (status = 401, description = "Wrong name or password"),
        (status = 429, description = "Too many wrong passwords for that name, or too many logins at once"),
    ),
)]
async fn get_token(State(app): State<App>, body: Bytes) -> Answer {
    let Login { username, password } = json(&body)?;
    match login::for_keeps(&app, &username, &password).await {
        Ok(made) => Ok(([(http::header::CACHE_CONTROL, "no-store")], data(wire::token(&made))).into_response()),
        Err(Error::Unauthenticated(why)) => {
            // In the form in which Hinkskalle refuses a login, and in ours.
            let status = StatusCode::UNAUTHORIZED;
            let (code, title) = (status.as_u16(), status.canonical_reason());
            let error = value!({ "code": code, "message": why });
            let errors = value!([{ "code": code, "title": title, "detail": why }]);
            let body = value!({ "status": "error", "message": why, "error": error, "errors": errors });
            Ok((status, Json(body)).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

/// The page that tells people how to get a token.
#[utoipa::path(
    get,
    path = "/auth/tokens",
    tag = "accounts",
    security(()),
    responses((status = 200, body = String, content_type = "text/html")),
)]
async fn tokens_page() -> impl IntoResponse {
    let page = Html(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tokens</title>\
         <h1>Access tokens</h1>\
         <p>An administrator of this library makes a token for you with \
         <code>stackroom admin token YOU --name laptop</code>.</p>\
         <p>Paste it where <code>apptainer remote login</code> asks for it.</p></html>",
    );
    ([(http::header::CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; frame-ancestors 'none'")], page)
}
