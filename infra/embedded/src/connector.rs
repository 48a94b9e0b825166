//! An HTTP client for the AWS SDK that is a function.

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use std::fmt;

/// Makes the SDK's HTTP client from a function that answers one request.
pub(crate) fn client<F>(answer: F) -> SharedHttpClient
where
    F: Fn(HttpRequest) -> HttpConnectorFuture + Send + Sync + 'static,
{
    let connector = SharedHttpConnector::new(Function(answer));
    http_client_fn(move |_, _| connector.clone())
}

struct Function<F>(F);

impl<F> fmt::Debug for Function<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("embedded::connector")
    }
}

impl<F> HttpConnector for Function<F>
where
    F: Fn(HttpRequest) -> HttpConnectorFuture + Send + Sync,
{
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        (self.0)(request)
    }
}
