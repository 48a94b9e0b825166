//! A function's router behind API Gateway.

use super::renewing;
use crate::app::App;
use crate::telemetry::Address;
use axum::Router;
use http::Uri;
use lambda_http::request::RequestContext;
use lambda_http::{Error, Request, RequestExt};
use std::fmt::Write;
use tower::ServiceExt;

/// Answers requests until the function is told to stop.
pub async fn run(app: &App, router: Router) -> Result<(), Error> {
    lambda_http::run(ServiceExt::<Request>::map_request(renewing(app, router), as_sent)).await
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
