//! One process of a function, with a Runtime API of its own.

use super::runtime::{self, Delivery, Ends, Reported};
use super::{Failure, Inner, LINES, Machine};
use crate::policy::{AccessKey, Principal, Side, Trap, lock};
use crate::template::FunctionSpec;
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long an instance may take to ask for work. Source: *Lambda Developer Guide*, "Lambda execution environment
/// lifecycle", "Init phase": 10 seconds, and after that as long as one invocation. A machine with other work gets both.
const INIT: Duration = Duration::from_secs(10);

/// An instance. When it is dropped, its process is killed.
#[derive(Debug)]
pub(super) struct Instance {
    /// Its credentials.
    pub(super) principal: Arc<Principal>,
    /// From its start to its first request for work.
    pub(super) init: Duration,
    process: Child,
    ends: Ends,
    /// Where its next event goes, while it waits for one.
    place: Option<oneshot::Sender<Delivery>>,
    arn: String,
    serving: JoinHandle<()>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        self.serving.abort();
    }
}

/// The variables that Lambda sets. Source: *Lambda Developer Guide*, "Defined runtime environment variables".
fn reserved(spec: &FunctionSpec, principal: &Principal, api: &str) -> Vec<(&'static str, String)> {
    let name = &spec.id;
    vec![
        ("_HANDLER", "bootstrap".to_owned()),
        ("AWS_REGION", spec.region.clone()),
        ("AWS_DEFAULT_REGION", spec.region.clone()),
        ("AWS_EXECUTION_ENV", "AWS_Lambda_provided.al2023".to_owned()),
        ("AWS_LAMBDA_FUNCTION_NAME", name.clone()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", spec.memory.to_string()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", format!("2026/01/01/[$LATEST]{}", principal.access_key_id.to_lowercase())),
        ("AWS_LAMBDA_RUNTIME_API", api.to_owned()),
        ("AWS_ACCESS_KEY_ID", principal.access_key_id.clone()),
        ("AWS_SECRET_ACCESS_KEY", principal.secret_access_key.clone()),
        ("AWS_SESSION_TOKEN", principal.session_token.clone()),
        ("LAMBDA_TASK_ROOT", "/var/task".to_owned()),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime".to_owned()),
        ("LANG", "en_US.UTF-8".to_owned()),
        ("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin".to_owned()),
        ("TZ", ":UTC".to_owned()),
    ]
}

impl Instance {
    /// Starts an instance, and waits until it asks for work.
    pub(super) async fn start(function: &Inner) -> Result<Self, Failure> {
        let Inner { spec, machine, statements, .. } = function;
        let not = |error: std::io::Error| Failure::Init(error.to_string());
        let key = match &machine.issuer {
            Some(issuer) => issuer.issue(&spec.id, statements).await.map_err(not)?,
            None => AccessKey::generate().map_err(not)?,
        };
        let principal = machine.principals.admit(&spec.id, statements, key);
        let (router, ends) = runtime::new();
        let (address, serving) = crate::serve(router).await.map_err(not)?;
        let bootstrap = machine.folder.join(&spec.binary).join("bootstrap");
        let began = Instant::now();
        let process = spawned(machine, spec, reserved(spec, &principal, &address.to_string()))
            .map_err(|error| Failure::Init(format!("{}: {error}", bootstrap.display())))?;
        let (arn, init) = (spec.arn.clone(), Duration::ZERO);
        let mut instance = Self { principal, init, process, ends, place: None, arn, serving };
        if let Some(lines) = instance.process.stderr.take() {
            tokio::spawn(kept(BufReader::new(lines), machine.told, Arc::clone(&function.log)));
        }
        tokio::select! {
            place = instance.ends.polls.recv() => instance.place = place,
            reported = instance.ends.reports.recv() => return Err(Failure::Init(format!("{reported:?}"))),
            status = instance.process.wait() => return Err(Failure::Init(format!("{status:?}, {:?}", lock(&function.log)))),
            () = tokio::time::sleep(INIT + spec.timeout) => return Err(Failure::Init("it asks for no work".to_owned())),
        }
        instance.init = began.elapsed();
        instance.signal(Signal::STOP);
        Ok(instance)
    }

    /// Whether it waits for an event.
    pub(super) fn waits(&self) -> bool {
        self.place.is_some()
    }

    /// Passes it an event, and waits for what it reports and for its next request for work. If `death` says so, it is
    /// killed at a call of a store.
    pub(super) async fn invoke(
        &mut self,
        event: Bytes,
        timeout: Duration,
        death: Option<(u32, Side)>,
    ) -> Result<Bytes, Failure> {
        let (sprung, mut killed) = oneshot::channel();
        self.principal.set_trap(death.map(|(left, side)| Trap { left, side, sprung }));
        let deadline = tokio::time::Instant::now() + timeout;
        let place = self.place.take().ok_or_else(|| Failure::Exited("it asked for no work".to_owned()))?;
        let ids = crate::ids().map_err(|error| Failure::Exited(error.to_string()))?;
        let delivery = Delivery {
            id: ids.request,
            arn: self.arn.clone(),
            trace: ids.trace,
            deadline: SystemTime::now() + timeout,
            event,
        };
        self.signal(Signal::CONT);
        if place.send(delivery).is_err() {
            return Err(Failure::Exited("it went away while it waited".to_owned()));
        }
        let result = tokio::select! {
            biased;
            Ok(()) = &mut killed => return Err(self.end("killed").await),
            reported = self.ends.reports.recv() => match reported {
                Some(Reported::Answer(answer)) => Ok(answer),
                Some(Reported::TooLarge) => Err(Failure::ResponseTooLarge),
                Some(Reported::Error(error) | Reported::InitError(error)) => Err(Failure::Reported(error)),
                None => Err(Failure::Exited("its Runtime API is gone".to_owned())),
            },
            status = self.process.wait() => return Err(Failure::Exited(format!("{status:?}"))),
            () = tokio::time::sleep_until(deadline) => {
                self.end("out of time").await;
                return Err(Failure::TimedOut(timeout));
            }
        };
        self.principal.set_trap(None);
        tokio::select! {
            place = self.ends.polls.recv() => self.place = place,
            _ = self.process.wait() => {}
            () = tokio::time::sleep_until(deadline) => { self.end("out of time").await; }
        }
        if self.waits() {
            self.signal(Signal::STOP);
        }
        result
    }

    async fn end(&mut self, why: &str) -> Failure {
        let _ = self.process.kill().await;
        Failure::Exited(why.to_owned())
    }

    /// Freezes it, or thaws it.
    fn signal(&self, signal: Signal) {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // A process that is gone needs no signal; that is noticed elsewhere.
        let _ = id.map(|id| kill_process(id, signal));
    }
}

fn spawned(machine: &Machine, spec: &FunctionSpec, reserved: Vec<(&'static str, String)>) -> std::io::Result<Child> {
    let bootstrap = machine.folder.join(&spec.binary).join("bootstrap");
    Command::new(bootstrap)
        .env_clear()
        .envs(&spec.environment)
        .envs(&machine.environment)
        // What Lambda reserves can't be set by a function. Source: "Defined runtime environment variables".
        .envs(reserved)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A group of its own: if this process dies, the kernel ends stopped processes of a group that nobody watches.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Keeps the last lines that an instance writes.
async fn kept(lines: impl tokio::io::AsyncBufRead + Unpin, told: fn(&str), log: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = lines.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        told(&line);
        let mut log = lock(&log);
        if log.len() == LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}
