//! A scheduler in front of the stores. Each operation of the test waits there before its next call, and the test lets
//! one through at a time: so a random choice decides, call by call, which one continues, and which one dies there.

use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

tokio::task_local! {
    /// Which operation a task belongs to. A task that belongs to none is not held up.
    pub(crate) static OPERATION: u64;
}

/// The scheduler.
#[derive(Clone, Default)]
pub(crate) struct Scheduler(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Operations that have begun and have not ended.
    running: BTreeSet<u64>,
    /// Waiting calls, in the order in which they arrived.
    waiting: BTreeMap<u64, (u64, oneshot::Sender<()>)>,
    calls: u64,
    /// How many calls were let through and are not answered yet.
    going: u64,
    /// Operations that get no more answers.
    deaf: BTreeSet<u64>,
}

impl Scheduler {
    /// Puts the scheduler in front of a client of a store.
    pub(crate) fn before(&self, client: SharedHttpClient) -> SharedHttpClient {
        let scheduler = self.clone();
        http_client_fn(move |settings, components| {
            let inner = client.http_connector(settings, components);
            SharedHttpConnector::new(Gated { inner, scheduler: scheduler.clone() })
        })
    }

    pub(crate) fn begin(&self, operation: u64) {
        self.0.state.lock().unwrap().running.insert(operation);
    }

    pub(crate) fn end(&self, operation: u64) {
        let mut state = self.0.state.lock().unwrap();
        state.running.remove(&operation);
        state.deaf.remove(&operation);
        state.waiting.retain(|_, (of, _)| *of != operation);
        drop(state);
        self.0.changed.notify_one();
    }

    /// Waits until every running operation waits at the scheduler or has ended, and returns the waiting calls, each
    /// with its operation. An operation that pauses before a retry is waited for.
    pub(crate) async fn quiet(&self) -> Vec<(u64, u64)> {
        loop {
            {
                let state = self.0.state.lock().unwrap();
                let here: BTreeSet<u64> = state.waiting.values().map(|(operation, _)| *operation).collect();
                if state.going == 0 && state.running.iter().all(|operation| here.contains(operation)) {
                    return state.waiting.iter().map(|(call, (operation, _))| (*call, *operation)).collect();
                }
            }
            let changed = tokio::time::timeout(Duration::from_mins(5), self.0.changed.notified());
            changed.await.expect("an operation neither calls a store nor ends");
        }
    }

    /// Lets a call through, and waits for its answer. If `deaf`, the operation never gets it.
    pub(crate) async fn pass(&self, call: u64, deaf: bool) {
        {
            let mut state = self.0.state.lock().unwrap();
            let (operation, pass) = state.waiting.remove(&call).unwrap();
            if deaf {
                state.deaf.insert(operation);
            }
            state.going += 1;
            pass.send(()).unwrap();
        }
        loop {
            if self.0.state.lock().unwrap().going == 0 {
                return;
            }
            self.0.changed.notified().await;
        }
    }
}

struct Gated {
    inner: SharedHttpConnector,
    scheduler: Scheduler,
}

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gated")
    }
}

impl HttpConnector for Gated {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Ok(operation) = OPERATION.try_with(|operation| *operation) else { return self.inner.call(request) };
        let (inner, scheduler) = (self.inner.clone(), self.scheduler.clone());
        HttpConnectorFuture::new(async move {
            let (pass, passed) = oneshot::channel();
            {
                let mut state = scheduler.0.state.lock().unwrap();
                state.calls += 1;
                let call = state.calls;
                state.waiting.insert(call, (operation, pass));
            }
            scheduler.0.changed.notify_one();
            let _ = passed.await;
            let answer = inner.call(request).await;
            let deaf = {
                let mut state = scheduler.0.state.lock().unwrap();
                state.going -= 1;
                state.deaf.contains(&operation)
            };
            scheduler.0.changed.notify_one();
            if deaf {
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}
