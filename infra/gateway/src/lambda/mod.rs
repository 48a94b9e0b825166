//! Lambda: a function is a pool of instances, and each instance is one process that handles one event at a time.
//!
//! Source: *Lambda Developer Guide*, "Understanding the Lambda execution environment lifecycle", "Understanding Lambda
//! function scaling", "Lambda quotas".
//!
//! An invocation:
//!
//! 1. It needs room: with reserved concurrency, one more than that at a time is refused. (A machine also has a limit of
//!    its own, [`Machine::instances`]: there, invocations wait.)
//! 2. It takes the instance that waited for the shortest time, and thaws it. If there is none, it starts one.
//! 3. The event is what the instance hears next from its Runtime API ([`runtime`]).
//! 4. It ends with an answer, an error that the function reports, the end of the process, or the end of its time. The
//!    last two end the instance.
//! 5. When the instance asks for its next event, it is frozen until there is one: nothing in it runs meanwhile.

mod instance;
pub mod runtime;

use crate::faults::Faults;
use crate::policy::{Call, Issuer, Principals, Statement, lock};
use crate::template::FunctionSpec;
use bytes::Bytes;
use instance::Instance;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The largest event and the largest answer. Source: *Lambda Developer Guide*, "Lambda quotas": "Invocation payload
/// (request and response): 6 MB each".
pub const MAX_PAYLOAD: usize = 6 << 20;

/// The most lines that are kept of what a function wrote to standard error.
const LINES: usize = 200;

/// Where the instances of an installation run.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The folder with `⟨binary⟩/bootstrap`, as `cargo lambda build` leaves it.
    pub folder: PathBuf,
    /// Variables for all functions, over those of the template: endpoints of stores, for example.
    pub environment: BTreeMap<String, String>,
    /// The most instances of each function at a time. AWS has no such limit; here, invocations wait for their turn.
    pub instances: usize,
    /// Everybody who has a key for the stores.
    pub principals: Arc<Principals>,
    /// Who makes these keys. Without one, they are keys that only the doors know.
    pub issuer: Option<Arc<dyn Issuer>>,
    /// What goes wrong on purpose.
    pub faults: Arc<Faults>,
    /// Who is told each line that an instance writes to standard error.
    pub told: fn(&str),
}

/// An invocation that was answered.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The answer.
    pub payload: Bytes,
    /// What it took.
    pub report: Report,
}

/// What an invocation took, as Lambda's `REPORT` line says it, and the calls of stores beside it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// From the start of the process to its first request for work, if it was started for this invocation.
    pub init: Option<Duration>,
    /// From the event to the answer.
    pub duration: Duration,
    /// The calls of stores that it made, in order.
    pub calls: Vec<Call>,
}

/// An invocation without an answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Source: *Lambda API Reference*, "Invoke", `TooManyRequestsException`, status 429.
    #[error("all instances that the function may have are busy")]
    Throttled,
    /// Source: *Lambda API Reference*, "Invoke", `RequestTooLargeException`, status 413.
    #[error("an event of {0} bytes is too large")]
    RequestTooLarge(usize),
    /// The process could not be started, or ended or reported an error before it asked for work.
    #[error("the function does not start: {0}")]
    Init(String),
    /// The function reported an error.
    #[error("the function failed: {0}")]
    Reported(String),
    /// The process ended. Source: `Runtime.ExitError`.
    #[error("the process ended: {0}")]
    Exited(String),
    /// Source: `Sandbox.Timedout`.
    #[error("task timed out after {:.2} seconds", .0.as_secs_f64())]
    TimedOut(Duration),
    /// Source: `Function.ResponseSizeTooLarge`.
    #[error("the answer is too large")]
    ResponseTooLarge,
}

/// A deployed function. Clones are the same function.
#[derive(Debug, Clone)]
pub struct Function(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    spec: FunctionSpec,
    statements: Arc<Vec<Statement>>,
    machine: Machine,
    /// Room by reserved concurrency.
    reserved: Option<Semaphore>,
    /// Room on this machine.
    room: Semaphore,
    /// Frozen instances, the last used one last.
    idle: Mutex<Vec<Instance>>,
    started: AtomicUsize,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Function {
    /// Deploys a function. Nothing is started before its first event.
    pub fn new(spec: FunctionSpec, machine: Machine) -> Self {
        let statements = Arc::new(spec.statements.clone());
        let reserved = spec.concurrency.map(Semaphore::new);
        let room = Semaphore::new(machine.instances.clamp(1, Semaphore::MAX_PERMITS));
        let (idle, started, log) = (Mutex::default(), AtomicUsize::new(0), Arc::default());
        Self(Arc::new(Inner { spec, statements, machine, reserved, room, idle, started, log }))
    }

    /// What the template says of it.
    pub fn spec(&self) -> &FunctionSpec {
        &self.0.spec
    }

    /// How many instances were started so far.
    pub fn started(&self) -> usize {
        self.0.started.load(Ordering::Relaxed)
    }

    /// The last lines that its instances wrote to standard error.
    pub fn log(&self) -> Vec<String> {
        lock(&self.0.log).iter().cloned().collect()
    }

    /// Passes an event to the function, and waits for what comes of it. The invocation runs to its end even if nobody
    /// waits for it any more: on Lambda, a client that goes away stops nothing.
    pub async fn invoke(&self, event: Bytes) -> Result<Answered, Failure> {
        let inner = Arc::clone(&self.0);
        let running = tokio::spawn(async move { inner.invoke(event).await });
        running.await.unwrap_or_else(|error| Err(Failure::Exited(error.to_string())))
    }

    /// Delivers an event that is no request: of a schedule, a stream or a queue. It may arrive twice.
    ///
    /// Source: *Lambda Developer Guide*, "Understanding retry behavior in Lambda": an event that failed is tried again,
    /// `retries` times, and then dropped.
    pub async fn deliver(&self, event: Bytes, retries: u64) -> Result<Answered, Failure> {
        let mut left = retries;
        let last = loop {
            match self.invoke(event.clone()).await {
                Err(_) if left > 0 => left -= 1,
                last => break last,
            }
        };
        if last.is_ok() && self.0.machine.faults.happens(|rates| rates.twice) {
            return self.invoke(event).await;
        }
        last
    }
}

impl Inner {
    async fn invoke(&self, event: Bytes) -> Result<Answered, Failure> {
        if event.len() > MAX_PAYLOAD {
            return Err(Failure::RequestTooLarge(event.len()));
        }
        let faults = &self.machine.faults;
        let reserved = self.reserved.as_ref().map(Semaphore::try_acquire).transpose();
        let Ok(_reserved) = reserved else { return Err(Failure::Throttled) };
        if faults.happens(|rates| rates.throttled) {
            return Err(Failure::Throttled);
        }
        let _room = self.room.acquire().await.map_err(|_| Failure::Throttled)?;
        let waiting = lock(&self.idle).pop().filter(|_| !faults.happens(|rates| rates.cold));
        let (mut instance, init) = if let Some(instance) = waiting {
            (instance, None)
        } else {
            self.started.fetch_add(1, Ordering::Relaxed);
            let instance = Instance::start(self).await?;
            let init = instance.init;
            (instance, Some(init))
        };
        let began = Instant::now();
        let death = faults.happens(|rates| rates.killed).then(|| faults.death());
        let result = instance.invoke(event, self.spec.timeout, death).await;
        let duration = began.elapsed();
        let calls = instance.principal.take_calls();
        if instance.waits() {
            lock(&self.idle).push(instance);
        }
        result.map(|payload| Answered { payload, report: Report { init, duration, calls } })
    }
}
