//! A scheduler in front of the stores. Each operation of the test waits there before its next call, and the test lets
//! one through at a time: so a random choice decides, call by call, which one continues, and which one dies there.

use aws_smithy_runtime_api::client::http::HttpConnectorFuture;
use futures::future::BoxFuture;
use stackroom_tests::layered::{Answer, Around, Call};
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

impl Scheduler {
    /// Holds a call up until it is let through; its answer may never arrive.
    async fn gated<T>(&self, operation: u64, call: impl Future<Output = T>) -> T {
        let (pass, passed) = oneshot::channel();
        {
            let mut state = self.0.state.lock().unwrap();
            state.calls += 1;
            let call = state.calls;
            state.waiting.insert(call, (operation, pass));
        }
        self.0.changed.notify_one();
        let _ = passed.await;
        let answer = call.await;
        let deaf = {
            let mut state = self.0.state.lock().unwrap();
            state.going -= 1;
            state.deaf.contains(&operation)
        };
        self.0.changed.notify_one();
        if deaf {
            std::future::pending::<()>().await;
        }
        answer
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scheduler")
    }
}

impl Around for Scheduler {
    fn rows<'a, T: Send + 'a>(&'a self, _: Call, inner: BoxFuture<'a, Answer<T>>) -> BoxFuture<'a, Answer<T>> {
        match OPERATION.try_with(|operation| *operation) {
            Ok(operation) => Box::pin(self.gated(operation, inner)),
            Err(_) => inner,
        }
    }

    fn bucket(&self, inner: HttpConnectorFuture) -> HttpConnectorFuture {
        let Ok(operation) = OPERATION.try_with(|operation| *operation) else { return inner };
        let scheduler = self.clone();
        HttpConnectorFuture::new(async move { scheduler.gated(operation, inner).await })
    }
}
