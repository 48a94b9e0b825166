//! The library's own formats: `{"data": …}`, `{"error": {"code", "message"}, "message"}`, bodies without a stated type.

use super::authorization;
use super::narrowing::{in_body, refusal};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::HowToDelete;
use crate::domain::reference::LibraryRef;
use crate::error::Error;
use crate::telemetry;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::HashMap;
use std::convert::Infallible;

/// An error of a use case, in the form for library clients. For `?` in handlers.
#[derive(Debug)]
pub struct Failure(pub Error);

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl Failure {
    /// The status that library clients understand for it. To them, 404 means that they should create the thing.
    fn status(&self) -> StatusCode {
        match &self.0 {
            Error::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::Gone(_) => StatusCode::GONE,
            Error::Forbidden(_) => StatusCode::FORBIDDEN,
            Error::Invalid(_) | Error::WrongBytes(_) => StatusCode::BAD_REQUEST,
            Error::Conflict(_) => StatusCode::CONFLICT,
            Error::NotEmpty(_) => StatusCode::PRECONDITION_FAILED,
            Error::QuotaExceeded { .. } | Error::TooMuchKept { .. } | Error::TooManyRows { .. } | Error::DiskFull => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Error::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Lost | Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if let Some(cause) = self.0.cause() {
            telemetry::cause(cause);
        }
        let mut response = plain(self.status(), &self.0.to_string());
        if matches!(self.0, Error::Unauthenticated(_)) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Error::Busy { after, .. } = self.0 {
            super::retry_after(&mut response, after);
        }
        response
    }
}

/// The caller according to the request. The use case checks what they may do.
impl FromRequestParts<App> for Credential {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        Ok(app.keys.credential(authorization(&parts.headers), app.now())?)
    }
}

/// The architecture in a query, `?arch=amd64`. Some clients write `?arch%3Damd64`, a key `arch=amd64` without a value.
#[derive(Debug)]
pub struct Arch(pub Option<String>);

impl FromRequestParts<App> for Arch {
    type Rejection = QueryRejection;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, QueryRejection> {
        let Query(mut query) = Query::<HashMap<String, String>>::from_request_parts(parts, app).await?;
        let odd = query.keys().find_map(|key| key.strip_prefix("arch=")).map(str::to_owned);
        Ok(Self(query.remove("arch").or(odd).filter(|arch| !arch.is_empty())))
    }
}

/// The same for a request that deletes, whose query may say nothing else: whoever narrows it in another way would lose
/// more than they meant.
#[derive(Debug)]
pub struct OnlyArch(pub Option<String>);

impl FromRequestParts<App> for OnlyArch {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map(|Query(pairs)| pairs);
        let pairs = pairs.map_err(|error| Failure(Error::Invalid(error.to_string())))?;
        if let Some((key, _)) = pairs.iter().find(|(key, _)| key != "arch" && !key.starts_with("arch=")) {
            return Err(Failure(Error::Invalid(format!("`{key}` is not known here, only `arch` is"))));
        }
        if pairs.len() > 1 {
            return Err(Failure(Error::Invalid("`arch` can be given only once".to_owned())));
        }
        let Arch(arch) =
            Arch::from_request_parts(parts, app).await.map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(Self(arch))
    }
}

/// How something is to be deleted with what is in it: `?cascade=1&force=1&dry-run=1`. The query may say nothing else.
#[derive(Debug)]
pub struct Deletion(pub HowToDelete);

impl FromRequestParts<App> for Deletion {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Failure> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map(|Query(pairs)| pairs);
        let mut how = HowToDelete::default();
        for (key, value) in pairs.map_err(|error| Failure(Error::Invalid(error.to_string())))? {
            let wanted = match value.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" => true,
                "0" | "false" | "no" => false,
                _ => return Err(Failure(Error::Invalid(format!("`{key}` is true or false, not `{value}`")))),
            };
            *match key.as_str() {
                "cascade" => &mut how.cascade,
                "force" => &mut how.force,
                "dry-run" | "dry_run" | "dryRun" => &mut how.dry_run,
                _ => {
                    let why = format!("`{key}` is not known here, only `cascade`, `force` and `dry-run` are");
                    return Err(Failure(Error::Invalid(why)));
                }
            } = wanted;
        }
        Ok(Self(how))
    }
}

/// The answer to a deletion: 202 if it is hidden, and not all of it removed yet.
pub fn deleted(how: HowToDelete, contents: impl Serialize, done: bool) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Deleted<T> {
        contents: T,
        dry_run: bool,
        done: bool,
    }

    let status = if done || how.dry_run { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = data(Deleted { contents, dry_run: how.dry_run, done });
    *response.status_mut() = status;
    response
}

/// A request whose path had an empty part. Old clients leave a name empty, and mean the default.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap;

/// Whether a part of the path was left empty.
#[derive(Debug, Clone, Copy)]
pub struct LeftEmpty(pub bool);

impl FromRequestParts<App> for LeftEmpty {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Gap>().is_some()))
    }
}

/// The image that a path names. A reference that is not valid can't name anything.
pub fn named(app: &App, reference: &str) -> Result<LibraryRef, Failure> {
    app.config.defaults.reference(reference).map_err(|_| Failure(Error::NotFound("image")))
}

/// The result of a handler.
pub type Answer = Result<Response, Failure>;

/// An error with a status and a message. The message stands beside the error, too: there Hinkskalle's clients look.
pub fn plain(status: StatusCode, message: &str) -> Response {
    let body = json!({ "error": { "code": status.as_u16(), "message": message }, "message": message });
    (status, Json(body)).into_response()
}

/// 200 with `{"data": …}`.
pub fn data(value: impl Serialize) -> Response {
    #[derive(Serialize)]
    struct Data<T> {
        data: T,
    }
    Json(Data { data: value }).into_response()
}

/// 200 with a list, and the place where the next page begins.
pub fn list(rows: impl Serialize, next: Option<&str>) -> Response {
    Json(json!({ "data": rows, "page": { "next": next.unwrap_or_default() } })).into_response()
}

/// Refuses a body that its route does not read, if it would narrow something.
pub fn unread(body: &Bytes) -> Result<(), Failure> {
    let Ok(whole) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body) else { return Ok(()) };
    let keys: Vec<String> = whole.keys().cloned().collect();
    in_body(&whole, &keys).map_or(Ok(()), |key| Err(Failure(Error::Invalid(refusal(key)))))
}

/// Reads a JSON body. Its media type is not checked, because clients don't state it. Keys that the type does not know
/// are ignored, unless they [narrow](super::narrowing) something.
pub fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    let mut ignored = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = serde_ignored::deserialize(&mut deserializer, |path| ignored.push(path.to_string()));
    // The value's own type gives the best error message, for example which names are allowed.
    let unusable = |error: serde_json::Error| Failure(Error::Invalid(format!("the body can't be used: {error}")));
    let value = read.map_err(unusable)?;
    deserializer.end().map_err(unusable)?;
    if !ignored.is_empty() {
        let whole: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).map_err(unusable)?;
        if let Some(key) = in_body(&whole, &ignored) {
            return Err(Failure(Error::Invalid(refusal(key))));
        }
    }
    Ok(value)
}

/// Refuses a query where the body says everything: whoever writes `?dry_run=true` believes that it is obeyed.
pub async fn without_query(request: Request, next: Next) -> Response {
    if request.method() != Method::GET && request.uri().query().is_some_and(|query| !query.is_empty()) {
        let why = "this request takes no query, put what it says into the body".to_owned();
        return Failure(Error::Invalid(why)).into_response();
    }
    next.run(request).await
}
