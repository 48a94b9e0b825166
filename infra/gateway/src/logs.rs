//! `CloudWatch` Logs: lines of functions, delivered to a function that wants them.
//!
//! Source: *Amazon `CloudWatch` Logs User Guide*, "Log group-level subscription filters", "Example 2: Subscription filters
//! with AWS Lambda".

use crate::template::Event;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write as _;
use std::time::SystemTime;

/// The event that delivers those of the lines that a function wants; `None` if it wants none of them. The time of a line
/// is that of its delivery.
pub fn delivery<'a>(wanted: &Event, lines: impl IntoIterator<Item = &'a str>) -> Option<Value> {
    let Event::Logs { group, field } = wanted else { return None };
    let has = |line: &&str| serde_json::from_str::<Value>(line).is_ok_and(|line| line.get(field).is_some());
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let lines = lines.into_iter().filter(has).enumerate();
    let event = |(number, line)| json!({ "id": format!("{number:056}"), "timestamp": millis, "message": line });
    let lines: Vec<Value> = lines.map(event).collect();
    if lines.is_empty() {
        return None;
    }
    let delivered = json!({
        "messageType": "DATA_MESSAGE",
        "owner": "000000000000",
        "logGroup": group,
        "logStream": "stream",
        "subscriptionFilters": ["filter"],
        "logEvents": lines,
    });
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(delivered.to_string().as_bytes()).ok()?;
    Some(json!({ "awslogs": { "data": STANDARD.encode(packed.finish().ok()?) } }))
}
