//! API Gateway with an HTTP API: routes, limits, and its own answers.
//!
//! A request:
//!
//! 1. Its request line and headers fit into 10 240 bytes, and its body into 10 MB.
//! 2. A route leads to a function: the most specific one.
//! 3. It becomes an event ([`event::request`]), and the function is invoked.
//! 4. The answer becomes a response ([`event::response`]). Without one, the gateway answers itself.
//!
//! Source: *API Gateway Developer Guide*, "Quotas for configuring and running an HTTP API", "Create routes for HTTP APIs
//! in API Gateway", "Troubleshooting issues with HTTP API Lambda integrations".

use crate::event::{self, Context, Remapping};
use crate::lambda::{Answered, Failure, Function, Report};
use crate::template::Event;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The most bytes of request line and headers together. Source: "Quotas for configuring and running an HTTP API": "Total
/// combined size of request line and header values: 10240 bytes".
pub const MAX_HEAD: usize = 10_240;
/// The largest body of a request. Source: the same page: "Payload size: 10 MB".
pub const MAX_BODY: usize = 10 << 20;
/// How long the gateway waits for a function. Source: the same page: "Maximum integration timeout: 30 seconds".
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of an API.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The stage: `$default`, which has no place in paths, or a name, with which every path begins.
    pub stage: String,
    /// What happens to the headers of responses.
    pub remapping: Remapping,
    /// How long a function is waited for, at most [`TIMEOUT`].
    pub timeout: Duration,
    /// A header in which a test names the address of a client, since all of its connections come from one. It is taken
    /// out of the request. On AWS there is no such thing: the address is that of the connection.
    pub source_header: Option<HeaderName>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { stage: "$default".to_owned(), remapping: Remapping::None, timeout: TIMEOUT, source_header: None }
    }
}

/// Two routes of an API can't stand beside each other.
#[derive(Debug, thiserror::Error)]
#[error("the route {0}: {1}")]
pub struct RouteError(String, String);

/// A route: the names of its parameters, and the function for each method.
#[derive(Debug, Default)]
struct Route {
    parameters: Vec<String>,
    methods: BTreeMap<String, (String, Function)>,
}

/// Where a request goes.
struct Found<'a> {
    /// The key of the route.
    key: &'a str,
    function: &'a Function,
    /// The parameters of the path, decoded.
    parameters: Vec<(String, String)>,
}

/// An HTTP API.
#[derive(Debug)]
pub struct Api {
    routes: matchit::Router<usize>,
    table: Vec<Route>,
    fallback: Option<Route>,
    settings: Settings,
}

/// A path as the matcher spells it: its parameters have no names, since those of two routes may differ.
fn pattern(path: &str) -> (String, Vec<String>) {
    let mut names = Vec::new();
    let parts = path.split('/').map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some(name) => {
            let greedy = name.ends_with('+');
            names.push(name.trim_end_matches('+').to_owned());
            format!("{{{}p{}}}", if greedy { "*" } else { "" }, names.len())
        }
        None => part.to_owned(),
    });
    let pattern = parts.collect::<Vec<_>>().join("/");
    (pattern, names)
}

/// The path by which a route is looked up: without its stage and without empty segments. Believed: the documentation
/// does not say how HTTP APIs match `//`.
fn matched<'a>(path: &'a str, stage: &str) -> Option<std::borrow::Cow<'a, str>> {
    let path = match stage {
        "$default" => path,
        named => path.strip_prefix('/')?.strip_prefix(named).filter(|rest| rest.is_empty() || rest.starts_with('/'))?,
    };
    if path.is_empty() {
        return Some("/".into());
    }
    let mut path = std::borrow::Cow::Borrowed(path);
    while path.contains("//") {
        path = path.replace("//", "/").into();
    }
    Some(path)
}

impl Api {
    /// The API with the routes of some functions.
    pub fn new<'a>(functions: impl IntoIterator<Item = &'a Function>, settings: Settings) -> Result<Self, RouteError> {
        let mut api = Self { routes: matchit::Router::new(), table: Vec::new(), fallback: None, settings };
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for function in functions {
            for event in &function.spec().events {
                let Event::Http { method, path } = event else { continue };
                let wrong = |why: &dyn std::fmt::Display| RouteError(path.clone(), why.to_string());
                let (pattern, parameters) = pattern(path);
                let route = if path == "$default" {
                    api.fallback.get_or_insert_default()
                } else {
                    let index = *known.entry(pattern.clone()).or_insert(api.table.len());
                    if index == api.table.len() {
                        api.routes.insert(pattern, index).map_err(|error| wrong(&error))?;
                        api.table.push(Route { parameters, methods: BTreeMap::new() });
                    }
                    api.table.get_mut(index).ok_or_else(|| wrong(&"lost"))?
                };
                let key = if path == "$default" { path.clone() } else { format!("{method} {path}") };
                if route.methods.insert(method.clone(), (key, function.clone())).is_some() {
                    return Err(wrong(&"it stands there twice"));
                }
            }
        }
        Ok(api)
    }

    /// The API as a router. It wants to know who connects: [`crate::serve_api`] tells it.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(move |ConnectInfo(source): ConnectInfo<SocketAddr>, request: Request| {
            let api = Arc::clone(&self);
            async move { api.answer(source, request).await }
        })
    }

    /// The function for a request, with the key of its route and its parameters. Source: "Create routes for HTTP APIs":
    /// a full match, then a greedy one, then `$default`; a method before `ANY`.
    fn find(&self, method: &str, path: &str) -> Option<Found<'_>> {
        let of = |route: &'_ Route| route.methods.contains_key(method) || route.methods.contains_key("ANY");
        let path = matched(path, &self.settings.stage)?;
        let found = self.routes.at(&path).ok();
        let found = found.and_then(|found| Some((self.table.get(*found.value)?, found.params)));
        let (route, parameters) = match found.filter(|(route, _)| of(route)) {
            Some((route, values)) => {
                let values = values.iter().map(|(_, value)| event::unescaped(value));
                (route, route.parameters.iter().cloned().zip(values).collect())
            }
            None => (self.fallback.as_ref().filter(|route| of(route))?, Vec::new()),
        };
        let (key, function) = route.methods.get(method).or_else(|| route.methods.get("ANY"))?;
        Some(Found { key, function, parameters })
    }

    /// Answers a request. What the invocation took is an extension of the response.
    pub async fn answer(&self, source: SocketAddr, request: Request) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let named = self.settings.source_header.as_ref().and_then(|name| parts.headers.remove(name));
        let named = named.and_then(|address| address.to_str().ok()?.parse().ok());
        let source: IpAddr = named.unwrap_or_else(|| source.ip().to_canonical());
        if head_of(&parts.uri, &parts.headers) > MAX_HEAD {
            return own(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large");
        }
        // What says that it is too large is not waited for.
        let length = parts.headers.get("content-length").and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > MAX_BODY as u64) {
            return own(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large");
        }
        let body = match tokio::time::timeout(self.settings.timeout, axum::body::to_bytes(body, MAX_BODY)).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => return own(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large"),
            // Believed: nothing is documented about clients that send too slowly.
            Err(_) => return own(StatusCode::REQUEST_TIMEOUT, "Request Timeout"),
        };
        let Some(found) = self.find(parts.method.as_str(), parts.uri.path()) else {
            return own(StatusCode::NOT_FOUND, "Not Found");
        };
        let Found { key: route_key, function, parameters: path_parameters } = found;
        let Ok(ids) = crate::ids() else { return own(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error") };
        let context = Context {
            account: function.spec().arn.split(':').nth(4).unwrap_or_default(),
            api: "api",
            stage: &self.settings.stage,
            route_key,
            path_parameters,
            request_id: &ids.request,
            source,
        };
        let event = event::request(&context, &parts, &body).to_string();
        let invoked = tokio::time::timeout(self.settings.timeout, function.invoke(event.into())).await;
        let mut response = match invoked {
            Ok(Ok(Answered { payload, report })) => {
                let response = event::response(&payload, &parts.method, self.settings.remapping);
                with(report, response.unwrap_or_else(|_| failed()))
            }
            Ok(Err(failure)) => refused(failure),
            // The function goes on. Source: "Quotas …", and `anomalyco/sst#2232`, `serverless/serverless#11222` for 503.
            Err(_) => own(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        };
        if let Ok(id) = HeaderValue::from_str(&ids.request) {
            response.headers_mut().insert("apigw-requestid", id);
        }
        response
    }
}

fn with(report: Report, mut response: Response<Body>) -> Response<Body> {
    response.extensions_mut().insert(report);
    response
}

/// The gateway's answer to an invocation that failed; why is an extension of it.
///
/// Source: "Troubleshooting issues with HTTP API Lambda integrations": any error of a function is a 500, `Internal Server
/// Error`; `denoland/deno_registry2#87` for one that ran out of time. *Lambda API Reference*, "Invoke": 413 for an event
/// that is too large, 429 for too many; believed: the gateway passes the first on, and says 503 for the second.
fn refused(failure: Failure) -> Response<Body> {
    let mut response = match failure {
        Failure::RequestTooLarge(_) => own(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large"),
        Failure::Throttled => own(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        Failure::Init(_)
        | Failure::Reported(_)
        | Failure::Exited(_)
        | Failure::TimedOut(_)
        | Failure::ResponseTooLarge => failed(),
    };
    response.extensions_mut().insert(Arc::new(failure));
    response
}

fn failed() -> Response<Body> {
    own(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}

/// An answer of the gateway itself.
fn own(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(serde_json::json!({ "message": message }).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

/// The bytes of the request line and the headers.
fn head_of(uri: &Uri, headers: &HeaderMap) -> usize {
    let line = uri.path_and_query().map_or(0, |target| target.as_str().len());
    line + headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
}
