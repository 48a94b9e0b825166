//! Something in front of the stores of an installation: what it does happens around each of their calls.

use async_trait::async_trait;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use futures::future::BoxFuture;
use server::local::Layer;
use shared::store::StoreError;
use shared::store::keys::Key;
use shared::store::table::Written;
use shared::store::table::backend::{Attributes, Backend, Query, Text, Texts};
use shared::store::table::write::Operation;
use std::fmt::{self, Debug};
use std::sync::Arc;

/// A call of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Rows are read.
    Read,
    /// A transaction of the table.
    Transact,
    /// Rows are written or deleted as they are.
    Overwrite,
    /// Something else of the table.
    Other,
    /// A call of the bucket.
    Bucket,
}

/// The answer of the table, or what the layer says instead.
pub type Answer<T> = Result<T, StoreError>;

/// What happens around calls.
pub trait Around: Debug + Clone + Send + Sync + 'static {
    /// Around a call of the table.
    fn rows<'a, T: Send + 'a>(&'a self, call: Call, inner: BoxFuture<'a, Answer<T>>) -> BoxFuture<'a, Answer<T>>;

    /// Around a call of the bucket.
    fn bucket(&self, inner: HttpConnectorFuture) -> HttpConnectorFuture {
        inner
    }
}

/// The layer that does it.
#[derive(Debug, Clone)]
pub struct Layered<A>(pub A);

impl<A: Around> Layer for Layered<A> {
    fn rows(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Rows { inner, around: self.0.clone() })
    }

    fn index(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        self.rows(inner)
    }

    fn s3(&self, client: SharedHttpClient) -> SharedHttpClient {
        let around = self.0.clone();
        http_client_fn(move |settings, components| {
            let inner = client.http_connector(settings, components);
            SharedHttpConnector::new(Bucket { inner, around: around.clone() })
        })
    }
}

#[derive(Debug)]
struct Rows<A> {
    inner: Arc<dyn Backend>,
    around: A,
}

#[async_trait]
impl<A: Around> Backend for Rows<A> {
    async fn create(&self) -> Answer<()> {
        self.around.rows(Call::Other, self.inner.create()).await
    }

    async fn usable(&self) -> Answer<()> {
        self.around.rows(Call::Other, self.inner.usable()).await
    }

    async fn ready(&self) -> Answer<()> {
        self.around.rows(Call::Other, self.inner.ready()).await
    }

    async fn get(&self, keys: &[Key], attributes: Attributes<'_>) -> Answer<Vec<Option<Text>>> {
        self.around.rows(Call::Read, self.inner.get(keys, attributes)).await
    }

    async fn query(&self, query: Query<'_>) -> Answer<Texts> {
        self.around.rows(Call::Read, self.inner.query(query)).await
    }

    async fn scan(&self, start: Option<&Key>, limit: usize) -> Answer<Texts> {
        self.around.rows(Call::Read, self.inner.scan(start, limit)).await
    }

    async fn transact(&self, operations: Vec<Operation>) -> Answer<Written> {
        self.around.rows(Call::Transact, self.inner.transact(operations)).await
    }

    async fn put(&self, rows: Vec<(Key, Text)>) -> Answer<()> {
        self.around.rows(Call::Overwrite, self.inner.put(rows)).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Answer<()> {
        self.around.rows(Call::Overwrite, self.inner.delete(keys)).await
    }
}

struct Bucket<A> {
    inner: SharedHttpConnector,
    around: A,
}

impl<A> fmt::Debug for Bucket<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bucket")
    }
}

impl<A: Around> HttpConnector for Bucket<A> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        // What was not let through is not begun.
        let inner = self.inner.clone();
        self.around.bucket(HttpConnectorFuture::new(async move { inner.call(request).await }))
    }
}

/// The answer of a store that can't be reached.
pub fn gone() -> Result<HttpResponse, ConnectorError> {
    Err(ConnectorError::io("the store is dead".into()))
}
