//! Stores that die: after some more calls they answer nothing any more.

use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// How long stores live.
#[derive(Debug, Clone)]
pub struct Mortal {
    /// How many calls are left. Negative: they are dead.
    left: Arc<AtomicI64>,
    counted: fn(&HttpRequest) -> bool,
}

impl Mortal {
    /// Stores that live until [`Self::dies_after`] says when they die: at one of the calls that are counted.
    pub fn counting(counted: fn(&HttpRequest) -> bool) -> Self {
        Self { left: Arc::new(AtomicI64::new(i64::MAX)), counted }
    }

    /// Only transactions are counted.
    pub fn at_a_write() -> Self {
        Self::counting(|call| call.headers().get("x-amz-target").unwrap_or_default().ends_with(".TransactWriteItems"))
    }

    /// They answer this many more of the calls that are counted, and then none.
    pub fn dies_after(&self, calls: i64) {
        self.left.store(calls, Ordering::SeqCst);
    }

    /// They answer again.
    pub fn lives(&self) {
        self.dies_after(i64::MAX);
    }

    /// Whether they died.
    pub fn died(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    /// A client of such a store.
    pub fn before(&self, client: &SharedHttpClient) -> SharedHttpClient {
        let (client, mortal) = (client.clone(), self.clone());
        http_client_fn(move |settings, components| {
            let inner = client.http_connector(settings, components);
            SharedHttpConnector::new(Gate { inner, mortal: mortal.clone() })
        })
    }
}

#[derive(Debug)]
struct Gate {
    inner: SharedHttpConnector,
    mortal: Mortal,
}

impl HttpConnector for Gate {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let left = if (self.mortal.counted)(&request) {
            self.mortal.left.fetch_sub(1, Ordering::SeqCst) - 1
        } else {
            self.mortal.left.load(Ordering::SeqCst)
        };
        if left < 0 {
            // However many calls follow, it stays dead.
            self.mortal.dies_after(-1);
            return HttpConnectorFuture::ready(Err(ConnectorError::io("the store is dead".into())));
        }
        self.inner.call(request)
    }
}
