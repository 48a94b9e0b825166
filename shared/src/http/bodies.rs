//! Bodies that a route reads whole: they have a time limit, and only somebody who is logged in may send long ones, a few
//! at a time. So what strangers and single users can make a process hold is bounded.

use super::authorization;
use super::library::Failure;
use crate::app::App;
use crate::domain::Actor;
use crate::error::{Error, NO_TOKEN};
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use std::time::Duration;

/// The time limit for a body.
const TIME: Duration = Duration::from_mins(1);
/// Anybody may send so many bytes: no request without a login has more.
const SHORT: u64 = 64 << 10;

pub(super) async fn bounded(State(app): State<App>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let short = request.body().size_hint().exact().is_some_and(|length| length <= SHORT);
    if short {
        return next.run(in_time(request)).await;
    }
    let place = match sender(&app, &request) {
        Ok(user) => app.long_body(&user).await,
        Err(error) => Err(error),
    };
    match place {
        Ok(_place) => next.run(in_time(request)).await,
        Err(error) => Failure(error).into_response(),
    }
}

/// Who sends a long body. Whether their token was revoked is not known yet; that it is signed is.
fn sender(app: &App, request: &Request) -> Result<Actor, Error> {
    let credential = app.keys.credential(authorization(request.headers()), app.now())?;
    credential.actor().cloned().ok_or(Error::Unauthenticated(NO_TOKEN))
}

/// Aborts a body that is not complete in time: a slow sender must not hold resources for ever.
fn in_time(request: Request) -> Request {
    let until = tokio::time::Instant::now() + TIME;
    request.map(|body| {
        let chunks = stream::unfold(body.into_data_stream(), move |mut body| async move {
            let late = |_| Some(Err(axum::Error::new("the body did not arrive in time")));
            let chunk = tokio::time::timeout_at(until, body.next()).await.unwrap_or_else(late);
            chunk.map(|chunk| (chunk, body))
        });
        Body::from_stream(chunks)
    })
}
