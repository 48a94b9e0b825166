//! Verifying uploads that were too large to be read while their clients wait.

use serde_json::Value;
use shared::domain::UploadId;
use shared::service::uploads::verify;
use shared::store::keys;
use shared::{App, Error};

/// Verifies the sessions named in an event of the table's stream. Their rows say which of them need it.
pub async fn handle(app: &App, event: &Value) -> Result<(), Error> {
    for upload in uploads(event) {
        verify::upload(app, upload).await?;
    }
    Ok(())
}

/// The sessions whose rows an event names.
fn uploads(event: &Value) -> Vec<UploadId> {
    let records = event.get("Records").and_then(Value::as_array).into_iter().flatten();
    let named = records.filter_map(|record| record.pointer("/dynamodb/Keys/pk/S").and_then(Value::as_str));
    named.filter_map(keys::session_id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_rows_of_sessions_are_looked_at() {
        let record = |pk: &str| json!({ "dynamodb": { "Keys": { "pk": { "S": pk }, "sk": { "S": "-" } } } });
        let id = "ab".repeat(16);
        let event = json!({ "Records": [record(&format!("S#{id}")), record("E#acme"), record("S#x"), {}] });
        assert_eq!(uploads(&event), [id.parse().unwrap()]);
        assert!(uploads(&json!({})).is_empty());
    }
}
