//! A function's router behind API Gateway.

use super::{Routes, renewed};
use crate::app::App;
use crate::telemetry::emf::Emf;
use crate::telemetry::{self, Address, Summary};
use axum::Router;
use axum::body::HttpBody;
use axum::middleware::map_response;
use axum::response::Response;
use http::{StatusCode, Uri};
use lambda_http::request::RequestContext;
use lambda_http::{Body, Error, IntoResponse, Request, RequestExt};
use std::fmt::Write;
use std::pin::Pin;
use tower::ServiceExt;

/// Answers requests for a group of routes until the function is told to stop.
pub async fn run(app: &App, group: &'static str, routes: Routes) -> Result<(), Error> {
    let of_all = app.clone();
    let answered = move |request: axum::extract::Request| {
        let (app, routes) = (of_all.clone(), routes.clone());
        async move {
            renewed(&app, &request).await;
            routes.answer(request).await
        }
    };
    let published = published(app, group, Router::new().fallback(answered));
    let service = ServiceExt::<Request>::map_request(published, as_sent);
    lambda_http::run(ServiceExt::<Request>::map_response(service, Answer)).await
}

/// The metrics of a function, if they are wanted.
fn metrics(app: &App, group: &'static str) -> Option<Emf> {
    app.config.metrics_namespace.as_deref().map(|namespace| Emf::new(namespace, group))
}

/// A router that publishes what each request counted. If nobody wants to know, it is the router itself.
fn published(app: &App, group: &'static str, router: Router) -> Router {
    let Some(metrics) = metrics(app, group) else { return router };
    router.layer(map_response(move |response: Response| {
        if let Some(summary) = response.extensions().get::<Summary>() {
            metrics.publish(&summary.counts, Some(response.status().as_u16()));
        }
        async { response }
    }))
}

/// Does something that is no request, and publishes what it counted.
pub async fn counted<T>(app: &App, group: &'static str, work: impl Future<Output = T>) -> T {
    let (result, summary) = telemetry::recorded(telemetry::Origin::default(), work).await;
    if let Some(metrics) = metrics(app, group) {
        metrics.publish(&summary.counts, None);
    }
    result
}

/// Longer bodies are not passed to the gateway as text. Lambda takes 6 MB of JSON, in which quotes and line ends count
/// twice: a manifest may be 4 MiB and full of them. In base64 it is a third longer than it is, whatever is in it.
const LONGEST_TEXT: u64 = 2 << 20;

/// An answer that Lambda has room for.
struct Answer(Response);

impl IntoResponse for Answer {
    fn into_response(self) -> Pin<Box<dyn Future<Output = http::Response<Body>> + Send>> {
        let Self(answer) = self;
        if answer.body().size_hint().lower() <= LONGEST_TEXT {
            return answer.into_response();
        }
        let (parts, body) = answer.into_parts();
        Box::pin(async {
            let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
                let mut failed = http::Response::new(Body::Empty);
                *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                return failed;
            };
            http::Response::from_parts(parts, Body::Binary(bytes.into()))
        })
    }
}

/// Notes the address from which the gateway took the request.
fn with_address(request: &mut Request) {
    let address = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.http.source_ip.as_deref(),
        _ => None,
    };
    if let Some(address) = address.and_then(|address| address.parse().ok()) {
        request.extensions_mut().insert(Address(address));
    }
}

/// The request with its path as the client sent it. API Gateway's HTTP APIs pass the path on unescaped. Read as a URL,
/// it would lose everything after a `#`, go up at `..`, and be unescaped a second time.
fn as_sent(mut request: Request) -> Request {
    with_address(&mut request);
    let mut target = escaped(request.raw_http_path());
    if let Some(query) = request.uri().query() {
        target.push('?');
        target.push_str(query);
    }
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = target.parse().ok().or(parts.path_and_query);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

fn escaped(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_manifest_full_of_quotes_is_passed_on_in_little_more_than_its_length() {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        for (length, text) in [(100, true), (crate::domain::manifest::MAX, false)] {
            let bytes = "\\\"é".repeat(length / 4).into_bytes();
            let answer = Response::builder().header("content-type", kind).body(bytes.clone().into()).unwrap();
            let (parts, body) = Answer(answer).into_response().await.into_parts();
            assert_eq!(parts.headers["content-type"], kind);
            assert_eq!(matches!(body, Body::Text(_)), text, "{length}");
            assert_eq!(body.as_ref(), bytes);
        }
    }

    #[test]
    fn the_path_comes_as_it_was_sent() {
        for (given, sent) in [
            ("/v1/images/acme/tools/bb:1.0", "/v1/images/acme/tools/bb:1.0?arch=amd64"),
            ("//v1/images//a", "//v1/images//a?arch=amd64"),
            ("/a/../b", "/a/../b?arch=amd64"),
            ("/a#b?c%41 d\0é", "/a%23b%3Fc%2541%20d%00%C3%A9?arch=amd64"),
        ] {
            let uri = "https://library.example.org/?arch=amd64";
            let request = http::Request::builder().uri(uri).body(lambda_http::Body::Empty).unwrap();
            let request = as_sent(request.with_raw_http_path(given));
            assert_eq!(request.uri().to_string(), format!("https://library.example.org{sent}"));
        }
    }
}
