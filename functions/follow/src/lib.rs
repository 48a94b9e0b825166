//! What follows from changes, and is done after them: woken by the table's stream when something came into the outbox.

use serde_json::Value;
use shared::service::outbox;
use shared::store::keys;
use shared::{App, Error};
use std::collections::BTreeSet;

/// Works through the parts of the outbox that an event of the table's stream names.
pub async fn handle(app: &App, event: &Value) -> Result<(), Error> {
    outbox::follow_parts(app, parts(event)).await.map(drop)
}

/// The parts of the outbox in which an event has rows.
fn parts(event: &Value) -> BTreeSet<u8> {
    let records = event.get("Records").and_then(Value::as_array).into_iter().flatten();
    let named = records.filter_map(|record| record.pointer("/dynamodb/Keys/pk/S").and_then(Value::as_str));
    named.filter_map(keys::outbox_part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_parts_that_are_named_are_looked_at_and_each_once() {
        let record = |pk: &str| json!({ "dynamodb": { "Keys": { "pk": { "S": pk }, "sk": { "S": "T#1" } } } });
        let event = json!({ "Records": [record("F#a"), record("E#acme"), record("F#0"), record("F#a"), {}] });
        assert_eq!(parts(&event), [0, 10].into());
        assert!(parts(&json!({})).is_empty());
    }
}
