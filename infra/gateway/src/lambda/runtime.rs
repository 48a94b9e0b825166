//! The Runtime API of one instance.
//!
//! Source: *Lambda Developer Guide*, "Using the Lambda runtime API for custom runtimes": the paths below
//! `/2018-06-01/runtime`, the headers of the next invocation, and the statuses of the answers.

use super::MAX_PAYLOAD;
use crate::policy::lock;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::{get, post};
use http::{Response, StatusCode};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// An event on its way to an instance.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) id: String,
    pub(super) arn: String,
    pub(super) trace: String,
    pub(super) deadline: SystemTime,
    pub(super) event: Bytes,
}

/// What an instance reports.
#[derive(Debug)]
pub(super) enum Reported {
    Answer(Bytes),
    Error(String),
    TooLarge,
    InitError(String),
}

/// The side of the instance.
#[derive(Debug)]
pub(super) struct Runtime {
    /// Where its requests for work go: each is a place to put the next event.
    polls: mpsc::UnboundedSender<oneshot::Sender<Delivery>>,
    reports: mpsc::UnboundedSender<Reported>,
    /// The id of the event that it works on.
    current: Mutex<Option<String>>,
}

/// The other side.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) polls: mpsc::UnboundedReceiver<oneshot::Sender<Delivery>>,
    pub(super) reports: mpsc::UnboundedReceiver<Reported>,
}

/// A new Runtime API, and the other side of it.
pub(super) fn new() -> (Router, Ends) {
    let (polls, asked) = mpsc::unbounded_channel();
    let (reports, reported) = mpsc::unbounded_channel();
    let runtime = Arc::new(Runtime { polls, reports, current: Mutex::default() });
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(answered))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
        .route("/2018-06-01/runtime/init/error", post(not_started))
        .layer(DefaultBodyLimit::disable())
        .with_state(runtime);
    (router, Ends { polls: asked, reports: reported })
}

/// "Next invocation".
async fn next(State(runtime): State<Arc<Runtime>>) -> Response<Body> {
    let (place, delivered) = oneshot::channel();
    let asked = runtime.polls.send(place);
    let (Ok(()), Ok(delivery)) = (asked, delivered.await) else { return empty(StatusCode::INTERNAL_SERVER_ERROR) };
    *lock(&runtime.current) = Some(delivery.id.clone());
    let deadline = delivery.deadline.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
    let response = Response::builder()
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", delivery.id)
        .header("lambda-runtime-deadline-ms", deadline.to_string())
        .header("lambda-runtime-invoked-function-arn", delivery.arn)
        .header("lambda-runtime-trace-id", delivery.trace)
        .body(Body::from(delivery.event));
    response.unwrap_or_else(|_| empty(StatusCode::INTERNAL_SERVER_ERROR))
}

/// "Invocation response". One that is too large gets 413.
async fn answered(State(runtime): State<Arc<Runtime>>, Path(id): Path<String>, body: Body) -> Response<Body> {
    let Ok(answer) = axum::body::to_bytes(body, 4 * MAX_PAYLOAD).await else {
        return runtime.reported(&id, Reported::TooLarge, StatusCode::PAYLOAD_TOO_LARGE);
    };
    if answer.len() > MAX_PAYLOAD {
        return runtime.reported(&id, Reported::TooLarge, StatusCode::PAYLOAD_TOO_LARGE);
    }
    runtime.reported(&id, Reported::Answer(answer), StatusCode::ACCEPTED)
}

/// "Invocation error".
async fn failed(State(runtime): State<Arc<Runtime>>, Path(id): Path<String>, body: Bytes) -> Response<Body> {
    let error = String::from_utf8_lossy(&body).into_owned();
    runtime.reported(&id, Reported::Error(error), StatusCode::ACCEPTED)
}

/// "Initialization error".
async fn not_started(State(runtime): State<Arc<Runtime>>, body: Bytes) -> Response<Body> {
    let _ = runtime.reports.send(Reported::InitError(String::from_utf8_lossy(&body).into_owned()));
    empty(StatusCode::ACCEPTED)
}

impl Runtime {
    /// Passes a report on, if it is about the event that the instance works on. Another one gets 400.
    fn reported(&self, id: &str, reported: Reported, status: StatusCode) -> Response<Body> {
        let mut current = lock(&self.current);
        if current.as_deref() != Some(id) {
            return empty(StatusCode::BAD_REQUEST);
        }
        *current = None;
        let _ = self.reports.send(reported);
        empty(status)
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
