//! Sweeping on a schedule.

use serde_json::Value;
use shared::service::sweep::{self, Ages};
use shared::service::uploads::verify;
use shared::service::{outbox, search};
use shared::{App, Error};
use std::time::{Duration, Instant};

/// For how long one sweep goes on with making the search index: Lambda ends it after fifteen minutes.
const INDEXING: Duration = Duration::from_mins(5);

/// Sweeps once, whatever the event says, and returns what was done.
pub async fn handle(app: &App) -> Result<Value, Error> {
    let swept = sweep::sweep(app, Ages::safe(app)).await;
    let followed = outbox::follow(app).await;
    let indexed = search::make(app, Some(Instant::now() + INDEXING)).await;
    // Sessions that the table's stream did not bring to the `verify` function.
    let verified = verify::pending(app).await;
    if let Ok(swept) = &swept {
        verify::unlisted(app, &swept.sealed).await?;
    }
    // Neither keeps the other from being done and told.
    if let Ok(verified) = &verified {
        tracing::info!(waited = verified.waited, failed = verified.failed, "verify");
    }
    let done = serde_json::to_value(swept?).map_err(|error| Error::Internal(error.to_string()))?;
    tracing::info!(swept = %done, "sweep");
    indexed?;
    verified.and(followed).map(|_| done)
}
