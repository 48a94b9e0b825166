//! The registry's own formats: `{"errors": [{"code", "message"}]}`, and the challenge that tells clients where to log
//! in.

use super::narrowing::{in_pairs, refusal as refusal_of};
use crate::app::App;
use crate::error::Error;
use crate::service::registry::{Code, Refused};
use crate::telemetry;
use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use std::time::Duration;

/// An error with a status and a message; the code follows from the status.
pub fn plain(status: StatusCode, message: &str) -> Response {
    let code = match status {
        StatusCode::NOT_FOUND => "NAME_UNKNOWN",
        StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "TOOMANYREQUESTS",
        StatusCode::FORBIDDEN => "DENIED",
        StatusCode::PAYLOAD_TOO_LARGE => "SIZE_INVALID",
        status if status.is_server_error() => "UNKNOWN",
        _ => "UNSUPPORTED",
    };
    errors(status, code, message)
}

fn errors(status: StatusCode, code: &'static str, message: &str) -> Response {
    let mut response = (status, Json(json!({ "errors": [{ "code": code, "message": message }] }))).into_response();
    response.extensions_mut().insert(Said { code, message: message.to_owned() });
    response
}

/// What an error of the registry says.
#[derive(Clone)]
struct Said {
    code: &'static str,
    message: String,
}

/// Whether a client shows the `detail` of an error alone. Hinkskalle's command does; it is known only by the library of
/// its requests. Others show the message and after it the detail, so to them a detail that repeats the message would
/// only be noise.
pub(super) fn reads_details(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.starts_with("python-requests/"))
}

/// The same response; an error of the registry has its message as its `detail`, too.
pub(super) fn with_details(response: Response) -> Response {
    let Some(Said { code, message }) = response.extensions().get::<Said>().cloned() else { return response };
    let errors = json!({ "errors": [{ "code": code, "message": message, "detail": message }] });
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(errors.to_string()))
}

/// Refuses a query or a form with a key that would narrow something, and that its route does not know.
pub fn unread(pairs: &[(String, String)]) -> Result<(), Error> {
    in_pairs(pairs).map_or(Ok(()), |key| Err(Error::Invalid(refusal_of(key))))
}

fn of_code(code: Code) -> (StatusCode, &'static str) {
    match code {
        Code::BlobUnknown => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
        Code::BlobUploadInvalid => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
        Code::BlobUploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
        Code::DigestInvalid => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
        Code::ManifestBlobUnknown => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
        Code::ManifestInvalid => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
        Code::ManifestUnknown => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        Code::NameInvalid => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
        Code::NameUnknown => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
        Code::Denied => (StatusCode::FORBIDDEN, "DENIED"),
        Code::Unsupported => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
        Code::Range => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
    }
}

/// The response to a refusal. `scope` is the scope that a token for the request would need.
pub fn refusal(app: &App, refused: &Refused, scope: Option<&str>) -> Response {
    let error = match refused {
        Refused::Code(code, why) => {
            let (status, code) = of_code(*code);
            return errors(status, code, why);
        }
        Refused::Scope => {
            let response = errors(StatusCode::UNAUTHORIZED, "DENIED", &refused.to_string());
            return challenged(app, response, scope, true);
        }
        Refused::Error(error) => error,
    };
    if let Some(cause) = error.cause() {
        telemetry::cause(cause);
    }
    let sentence = error.to_string();
    match error {
        Error::Unauthenticated(_) => {
            challenged(app, errors(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", &sentence), scope, false)
        }
        Error::NotFound(_) => errors(StatusCode::NOT_FOUND, "NAME_UNKNOWN", &sentence),
        Error::Gone(_) => errors(StatusCode::GONE, "NAME_UNKNOWN", &sentence),
        Error::Forbidden(_) => errors(StatusCode::FORBIDDEN, "DENIED", &sentence),
        Error::Invalid(_) | Error::WrongBytes(_) | Error::Conflict(_) | Error::NotEmpty(_) => {
            errors(StatusCode::BAD_REQUEST, "UNSUPPORTED", &sentence)
        }
        Error::QuotaExceeded { charged, limit } => {
            let sentence = format!("{sentence}: {charged} of {limit} bytes are in use");
            errors(StatusCode::FORBIDDEN, "DENIED", &sentence)
        }
        Error::TooMuchKept { .. } | Error::TooManyRows { .. } => errors(StatusCode::FORBIDDEN, "DENIED", &sentence),
        Error::DiskFull => errors(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", &sentence),
        Error::TooLarge(_) => errors(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", &sentence),
        Error::Busy { after, .. } => {
            let mut response = errors(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", &sentence);
            super::retry_after(&mut response, *after);
            response
        }
        Error::Unavailable(_) => {
            let mut response = errors(StatusCode::SERVICE_UNAVAILABLE, "TOOMANYREQUESTS", &sentence);
            super::retry_after(&mut response, Duration::from_secs(1));
            response
        }
        Error::Lost | Error::Internal(_) => errors(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", &sentence),
    }
}

/// Tells clients where to log in, and for what. Clients search the whole text for the words `Bearer` and `Basic`.
fn challenged(app: &App, mut response: Response, scope: Option<&str>, insufficient: bool) -> Response {
    let url = &app.config.public_url;
    let service = service(app);
    let scope = scope.map(|scope| format!(",scope=\"{scope}\"")).unwrap_or_default();
    let error = if insufficient { ",error=\"insufficient_scope\"" } else { "" };
    let challenge = format!("Bearer realm=\"{url}/token\",service=\"{service}\"{scope}{error}");
    if let Ok(challenge) = challenge.parse() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The service name for clients that ask for tokens: our host and port.
pub fn service(app: &App) -> &str {
    let url = &app.config.public_url;
    url.split_once("://").map_or(url.as_str(), |(_, rest)| rest.split('/').next().unwrap_or(rest))
}
