//! The layers around the routes of every function: one form of paths, limits, one log line for each request, no panic
//! that reaches a client.

mod bodies;
pub mod lambda;
pub mod library;
mod narrowing;
pub mod registry;
mod renewing;

pub use self::renewing::renewed;

use crate::app::App;
use crate::app::downloads::Note;
use crate::app::looks;
use crate::domain::ShareId;
use crate::telemetry::{self, Summary};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware;
use axum::response::Response;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};
use tower::ServiceExt;
use tower::util::MapRequestLayer;

/// The largest body of a request that any route reads, in bytes. The longest honest one names 10 000 parts.
pub const MAX_BODY: usize = 2 << 20;

/// An error in a protocol's own form.
pub type Form = fn(StatusCode, &str) -> Response;

/// A function's routes, with what all functions share around them.
#[derive(Debug, Clone)]
pub struct Routes {
    form: Form,
    honoured: Honoured,
    router: Router,
    last: fn(Response) -> Response,
}

/// Gives a function's routes what all functions share, with errors in the library's form. Bodies here are short and
/// read whole, see [`bodies`].
pub fn finish(app: &App, router: Router) -> Routes {
    finish_as(library::plain, router.layer(middleware::from_fn_with_state(app.clone(), bodies::bounded)))
}

/// The keys of a query that narrow something and that the request at a path honours.
pub type Honoured = fn(&Method, &str) -> &'static [&'static str];

/// Gives a function's routes what all functions share.
pub fn finish_as(form: Form, router: Router) -> Routes {
    finish_honouring(form, |_, _| &[], router)
}

/// The same for a function with requests that honour a key that narrows something.
pub fn finish_honouring(form: Form, honoured: Honoured, router: Router) -> Routes {
    let router = router
        .method_not_allowed_fallback(move || async move { form(StatusCode::METHOD_NOT_ALLOWED, "method not allowed") })
        .fallback(move || async move { form(StatusCode::NOT_FOUND, "not found") })
        .route_layer(MapRequestLayer::new(note_route))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    Routes { form, honoured, router, last: |response| response }
}

fn note_route(request: Request) -> Request {
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        telemetry::route(route.as_str());
    }
    request
}

impl Routes {
    /// The same with something that is done to each answer in the end.
    #[must_use]
    pub fn with_last(self, last: fn(Response) -> Response) -> Self {
        Self { last, ..self }
    }

    /// Answers a request. A router matches its routes before its own layers could change the path, so this is around
    /// it, and is called by whatever takes requests in: each further router would be one more list of routes to go
    /// through, and one more future in memory.
    pub async fn answer(self, request: Request) -> Response {
        let Self { form, honoured, router, last } = self;
        last(handle(form, honoured, router, request).await)
    }
}

impl From<Routes> for Router {
    fn from(routes: Routes) -> Self {
        Self::new().fallback(move |request| routes.clone().answer(request))
    }
}

async fn handle(form: Form, honoured: Honoured, router: Router, mut request: Request) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let detailed = registry::reads_details(request.headers());
    if request.uri().path().contains("//") {
        request.extensions_mut().insert(library::Gap);
    }
    *request.uri_mut() = normal(request.uri());
    let origin = telemetry::Origin {
        from: request.extensions().get::<telemetry::Address>().copied(),
        sums: request.extensions().get::<telemetry::Sums>().cloned(),
    };
    let path = beginning(&without_secrets(request.uri().path()));
    let reads = matches!(method, Method::GET | Method::HEAD);
    let refused = (!reads).then(|| ignoring(form, honoured, &request)).flatten();
    let answering = async {
        match refused {
            Some(refused) => Ok(refused),
            None => told(form, !reads, router.oneshot(request)).await,
        }
    };
    let (answer, mut summary) = telemetry::recorded(origin, AssertUnwindSafe(answering).catch_unwind()).await;
    let mut response = match answer {
        Ok(Ok(response)) => in_form(form, response),
        Ok(Err(never)) => match never {},
        Err(_) => form(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    };
    if detailed {
        response = registry::with_details(response);
    }
    // Who only looks downloads nothing, and neither does who hears of a failure.
    let given = method != Method::HEAD && !(response.status().is_client_error() || response.status().is_server_error());
    let noted = summary.noted.take().and_then(|noted| noted.downcast::<Note>().ok());
    summary.download = noted.filter(|_| given).map(|noted| noted.count());
    let logged = Logged { method: method.as_str(), path: &path, status: response.status(), started };
    logged.log(&summary);
    // For code around the router, like the tests that count reads.
    response.extensions_mut().insert(summary);
    protected(response)
}

/// Answers only after it was written down what a site admin sees in the answer.
async fn told<E>(
    form: Form,
    changing: bool,
    answering: impl Future<Output = Result<Response, E>>,
) -> Result<Response, E> {
    let (answer, looks) = looks::collected(answering).await;
    let response = answer?;
    if looks.is_empty() || response.status().is_client_error() || response.status().is_server_error() {
        return Ok(response);
    }
    let Err(error) = crate::service::looks::write_down(looks, changing).await else { return Ok(response) };
    telemetry::cause(error.cause().unwrap_or_else(|| error.to_string()));
    let why = "what administrators see of others is written down, and can't be now: try again later";
    Ok(form(StatusCode::SERVICE_UNAVAILABLE, why))
}

/// The most characters of a path in the log: a line must not be as long as its client likes.
const LOGGED: usize = 512;

/// The path without the secret of a share. That stands in its second part, as `⟨id⟩.⟨secret⟩`; a URL that was copied
/// wrongly may have it elsewhere, or only some of it.
fn without_secrets(path: &str) -> Cow<'_, str> {
    let keyed = |part: &str| part.split_once('.').is_some_and(|(id, _)| id.parse::<ShareId>().is_ok());
    let of_a_share = path.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("/dl/"));
    if !of_a_share && !path.split('/').any(keyed) {
        return Cow::Borrowed(path);
    }
    let part = |(at, part): (usize, &str)| match part.split_once('.') {
        Some((id, _)) if keyed(part) => format!("{id}.…"),
        _ if of_a_share && at == 2 => "…".to_owned(),
        _ => part.to_owned(),
    };
    Cow::Owned(path.split('/').enumerate().map(part).collect::<Vec<_>>().join("/"))
}

/// The path as far as it is logged. Names in it are shorter.
fn beginning(path: &str) -> String {
    path.chars().take(LOGGED).collect()
}

/// Refuses a write with a condition that no route of ours looks at: it would be done whether or not it holds.
fn ignoring(form: Form, honoured: Honoured, request: &Request) -> Option<Response> {
    if let Some(key) = narrowing::in_query(request.uri(), honoured(request.method(), request.uri().path())) {
        return Some(form(StatusCode::BAD_REQUEST, &narrowing::refusal(&key)));
    }
    let conditions = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE];
    let condition = conditions.iter().find(|name| request.headers().contains_key(*name))?;
    Some(form(StatusCode::PRECONDITION_FAILED, &format!("`{condition}` is not supported for writes")))
}

/// The answer to a request at some path that is refused before any route sees it, since there are too many.
pub fn busy(path: &str, why: &str) -> Response {
    let registry = path == "/token" || path == "/v2" || path.starts_with("/v2/");
    let form = if registry { registry::plain } else { library::plain };
    let mut response = form(StatusCode::TOO_MANY_REQUESTS, why);
    retry_after(&mut response, Duration::from_secs(2));
    protected(response)
}

/// The policy of answers that are no pages: whatever bytes somebody pushed, a browser runs nothing in them, and shows
/// them nowhere.
const NO_PAGE: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox; frame-ancestors 'none'");

/// Tells browsers not to guess what an answer is, and what it may do. A page states its own policy.
pub fn protected(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(NO_PAGE);
    response
}

/// Marks an answer whose text is for its reader, and is not given another form.
#[derive(Debug, Clone, Copy)]
struct Said;

/// A status with a sentence as plain text, for people.
pub fn sentence(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.extensions_mut().insert(Said);
    response
}

/// Errors of the framework itself – an unreadable query, a body that is too long – in the form that our clients can
/// read.
fn in_form(form: Form, response: Response) -> Response {
    let status = response.status();
    let text =
        response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let said = response.extensions().get::<Said>().is_some();
    if !(status.is_client_error() || status.is_server_error()) || !text || said {
        return response;
    }
    let mut formed = form(status, status.canonical_reason().unwrap_or("refused"));
    formed.extensions_mut().extend(response.extensions().clone());
    if let Some(allow) = response.headers().get(header::ALLOW) {
        formed.headers_mut().insert(header::ALLOW, allow.clone());
    }
    formed
}

/// The request and its response, for the log line.
struct Logged<'a> {
    method: &'a str,
    path: &'a str,
    status: StatusCode,
    started: Instant,
}

impl Logged<'_> {
    fn log(&self, summary: &Summary) {
        let Self { method, path, status, started } = self;
        let (status, duration_ms) = (status.as_u16(), started.elapsed().as_secs_f64() * 1000.0);
        let Summary { reads, writes, caller, decision, cause, download, .. } = summary;
        let route = if summary.route.is_empty() { "-" } else { &summary.route };
        if let Some(cause) = cause {
            tracing::error!(
                method,
                route,
                path,
                status,
                duration_ms,
                caller,
                decision,
                reads,
                writes,
                cause,
                "request"
            );
        } else {
            // Left out if there is none.
            tracing::info!(
                method,
                route,
                path,
                status,
                duration_ms,
                caller,
                decision,
                reads,
                writes,
                download,
                "request"
            );
        }
    }
}

/// The path as our routes spell it: without empty segments, and with `:` unescaped. Old clients send both.
pub fn normal(uri: &Uri) -> Uri {
    let path = uri.path();
    if !path.contains("//") && !path.contains("%3") {
        return uri.clone();
    }
    let mut plain = path.replace("%3A", ":").replace("%3a", ":");
    while plain.contains("//") {
        plain = plain.replace("//", "/");
    }
    let target = uri.query().map_or_else(|| plain.clone(), |query| format!("{plain}?{query}"));
    let mut parts = uri.clone().into_parts();
    // A path that can't be normalised stays unchanged, and matches no route.
    parts.path_and_query = target.parse().ok().or(parts.path_and_query);
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// The `Authorization` header. One that is not text is returned as an unknown scheme.
pub fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or("unreadable"))
}

/// Sets the time after which to retry, in whole seconds.
fn retry_after(response: &mut Response, after: Duration) {
    response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().max(1).into());
}

/// A redirect without a body.
pub fn redirect(status: StatusCode, location: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    match location.parse() {
        Ok(location) => {
            response.headers_mut().insert(header::LOCATION, location);
            response.headers_mut().insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
            response
        }
        Err(_) => library::plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_a_share_is_left_out_of_a_path() {
        let (id, secret) = ("0123456789abcdef01234567", "s".repeat(43));
        for (path, logged) in [
            (format!("/dl/{id}.{secret}/a.sif"), format!("/dl/{id}.…/a.sif")),
            (format!("/dl/{id}.{secret}"), format!("/dl/{id}.…")),
            (format!("/dl/{id}.{secret}.sif/x/y"), format!("/dl/{id}.…/x/y")),
            (format!("/dl/{secret}/a.sif"), "/dl/…/a.sif".to_owned()),
            (format!("/dl/{id}%2E{secret}/a.sif"), "/dl/…/a.sif".to_owned()),
            (format!("/DL/{id}{secret}/a.sif"), "/DL/…/a.sif".to_owned()),
            (format!("/files/dl/{id}.{secret}/a.sif"), format!("/files/dl/{id}.…/a.sif")),
        ] {
            assert_eq!(without_secrets(&path), logged);
        }
        for path in ["/", "/dl", "/v1/images/alice/tools/bb:1.0", "/v2/a.b/c/tags/list", "é"] {
            assert_eq!(without_secrets(path), path);
        }
    }

    #[test]
    fn paths_of_old_clients_become_ours() {
        for (theirs, ours) in [
            ("/v1/images//acme/tools/bb:latest?arch=amd64", "/v1/images/acme/tools/bb:latest?arch=amd64"),
            ("/v1/images/acme/tools/bb%3Alatest", "/v1/images/acme/tools/bb:latest"),
            ("/v1/images/acme/tools/bb%3alatest?a=//%3A", "/v1/images/acme/tools/bb:latest?a=//%3A"),
            ("//v1///entities/", "/v1/entities/"),
            ("/version", "/version"),
        ] {
            assert_eq!(normal(&theirs.parse().unwrap()).to_string(), ours);
        }
    }
}
