//! Shares, as their holders use them: a URL that downloads one image, with no login. Anybody reaches it, so it is a
//! function of its own, which may read rows, count a use, and read objects, and nothing else.
//!
//! A use is a request that redirects. `HEAD` tells what there is. Browsers, and the programs with which chats preview
//! links, get a page with a button; only its `POST` is a use.

mod page;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use shared::domain::ShareKey;
use shared::http::library::Failure;
use shared::http::{Routes, redirect, sentence};
use shared::service::share::{self, Usable};
use shared::{App, Error};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router(app: &App) -> Routes {
    let routes = routes().split_for_parts().0.with_state(app.clone());
    shared::http::finish_as(sentence, routes).with_last(secretive)
}

/// The `OpenAPI` description of the routes.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(follow, press))
}

/// The URL is a secret: no answer to it is kept, and the next page does not learn where its reader came from.
fn secretive(mut response: Response) -> Response {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

type Place = Result<Path<(String, String)>, PathRejection>;

async fn found(app: &App, place: Place) -> Result<Usable, Error> {
    let nothing = || Error::NotFound("link");
    let Path((key, file)) = place.map_err(|_| nothing())?;
    let key: ShareKey = key.parse().map_err(|_| nothing())?;
    share::find(app, &key, &file).await
}

/// Downloads the image of a share.
///
/// A request for `text/html`, or by a program that previews links, gets a page with a button, and is no use of the share.
#[utoipa::path(
    get,
    path = "/dl/{key}/{file}",
    tag = "shares",
    security(()),
    params(
        ("key" = String, Path, description = "The share's id and secret"),
        ("file" = String, Path, description = "The name of the file"),
    ),
    responses(
        (status = 200, description = "A page with a button", body = String, content_type = "text/html"),
        (status = 303, headers(("Location" = String, description = "A presigned URL of the bytes"))),
        (status = 404),
        (status = 410, description = "The share is over"),
        (status = 500),
        (status = 503),
    ),
)]
async fn follow(State(app): State<App>, method: Method, headers: HeaderMap, place: Place) -> Response {
    let answer = async {
        let usable = found(&app, place).await?;
        if method == Method::HEAD {
            return Ok(described(&usable));
        }
        if looks(&headers) {
            return page::of(&app, &usable).await;
        }
        Ok(redirect(StatusCode::SEE_OTHER, &share::use_once(&app, &usable).await?))
    };
    answer.await.unwrap_or_else(|error| refused(error, &headers))
}

/// The button of the page.
#[utoipa::path(
    post,
    path = "/dl/{key}/{file}",
    tag = "shares",
    security(()),
    params(
        ("key" = String, Path, description = "The share's id and secret"),
        ("file" = String, Path, description = "The name of the file"),
    ),
    responses(
        (status = 303, headers(("Location" = String, description = "A presigned URL of the bytes"))),
        (status = 404),
        (status = 410, description = "The share is over"),
        (status = 500),
        (status = 503),
    ),
)]
async fn press(State(app): State<App>, headers: HeaderMap, place: Place) -> Response {
    let answer = async {
        let usable = found(&app, place).await?;
        Ok(redirect(StatusCode::SEE_OTHER, &share::use_once(&app, &usable).await?))
    };
    answer.await.unwrap_or_else(|error| refused(error, &headers))
}

/// What a download would bring.
fn described(usable: &Usable) -> Response {
    let mut response = StatusCode::OK.into_response();
    let share = &usable.share;
    let disposition = format!("attachment; filename=\"{}\"", share.file);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, share.size.into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.extend(disposition.parse().ok().map(|value: HeaderValue| (header::CONTENT_DISPOSITION, value)));
    response
}

/// Words in the names of browsers, and of programs that look at links in messages before anybody clicks on them. Some of
/// these ask for anything, as `curl` does.
const LOOKERS: [&str; 13] = [
    "mozilla",
    "bot",
    "preview",
    "crawler",
    "spider",
    "facebook",
    "whatsapp",
    "slack",
    "telegram",
    "mattermost",
    "discord",
    "embed",
    "scan",
];

/// Whether somebody looks at the link first, rather than to download.
fn looks(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| {
        let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
        value.unwrap_or_default()
    };
    let agent = text(header::USER_AGENT);
    // PowerShell downloads under the name of a browser.
    let named = LOOKERS.iter().any(|word| agent.contains(word)) && !agent.contains("powershell");
    named || text(header::ACCEPT).contains("text/html")
}

/// A refusal in one sentence, or in JSON for a program that asks for that.
fn refused(error: Error, headers: &HeaderMap) -> Response {
    let json = headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
    let sent = error.to_string();
    let response = Failure(error).into_response();
    if json { response } else { with_sentence(&response, &sent) }
}

fn with_sentence(response: &Response, text: &str) -> Response {
    let mut plain = sentence(response.status(), text);
    if let Some(after) = response.headers().get(header::RETRY_AFTER) {
        plain.headers_mut().insert(header::RETRY_AFTER, after.clone());
    }
    plain
}
