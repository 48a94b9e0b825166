//! Sweeping on a schedule.

use serde_json::Value;
use shared::service::outbox;
use shared::service::sweep::{self, Ages};
use shared::service::uploads::verify;
use shared::{App, Error};

/// Sweeps once, whatever the event says, and returns what was done.
pub async fn handle(app: &App) -> Result<Value, Error> {
    let swept = sweep::sweep(app, Ages::safe(app)).await;
    let followed = outbox::follow(app).await;
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
    verified.and(followed).map(|_| done)
}
