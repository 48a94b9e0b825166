//! Counting downloads from the log lines of the functions that served them.
//!
//! `CloudWatch` Logs delivers the lines that have a download, many at a time, and perhaps twice (*Amazon `CloudWatch` Logs
//! User Guide*, "Log group-level subscription filters", "Example 2: Subscription filters with AWS Lambda").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value;
use shared::app::{Batch, Downloaded};
use shared::domain::{Digest, Download, Time};
use shared::service::downloads;
use shared::{App, Error};
use std::collections::BTreeMap;
use std::io::Read as _;

/// The most bytes of lines that one event holds. Lambda takes 6 MB, which lines can be compressed into tenfold.
const MOST: u64 = 128 << 20;

/// What `CloudWatch` Logs delivers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivered {
    #[serde(default)]
    log_events: Vec<LogEvent>,
}

/// A line of the log.
#[derive(Deserialize)]
struct LogEvent {
    /// Milliseconds since 1970.
    timestamp: i64,
    message: String,
}

/// A line of ours, as far as it matters here.
#[derive(Deserialize)]
struct Line {
    download: Option<String>,
}

/// Counts the downloads in an event, unless it was delivered before.
pub async fn handle(app: &App, event: &Value) -> Result<(), Error> {
    downloads::count(app, &batch(event)?).await
}

/// The batch that an event is. What was delivered again is the same batch, since its bytes are the same.
fn batch(event: &Value) -> Result<Batch, Error> {
    let wrong = |why: &str| Error::Invalid(format!("the event is no delivery of log lines: {why}"));
    let data = event.pointer("/awslogs/data").and_then(Value::as_str).ok_or_else(|| wrong("it has no data"))?;
    let packed = STANDARD.decode(data).map_err(|error| wrong(&error.to_string()))?;
    let mut lines = Vec::new();
    GzDecoder::new(&*packed).take(MOST).read_to_end(&mut lines).map_err(|error| wrong(&error.to_string()))?;
    let delivered: Delivered = serde_json::from_slice(&lines).map_err(|error| wrong(&error.to_string()))?;
    let mut sums: BTreeMap<_, (u64, Time)> = BTreeMap::new();
    for event in delivered.log_events {
        let line = serde_json::from_str::<Line>(&event.message).ok();
        let what: Option<Download> = line.and_then(|line| line.download?.parse().ok());
        let Some(what) = what else { continue };
        let at = Time(event.timestamp.div_euclid(1000));
        let (count, latest) = sums.entry((at.day(), what)).or_insert((0, at));
        *count += 1;
        *latest = at.max(*latest);
    }
    let downloaded = |((day, what), (count, latest))| Downloaded { what, day, count, latest };
    Ok(Batch { id: Digest::of(data.as_bytes()).hex(), downloads: sums.into_iter().map(downloaded).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::json;
    use std::io::Write as _;

    fn event(lines: &[(i64, &str)]) -> Value {
        let line =
            |(timestamp, message): &(i64, &str)| json!({ "id": "1", "timestamp": timestamp, "message": message });
        let lines: Vec<Value> = lines.iter().map(line).collect();
        let delivered = json!({ "messageType": "DATA_MESSAGE", "logGroup": "logs", "logEvents": lines });
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(delivered.to_string().as_bytes()).unwrap();
        json!({ "awslogs": { "data": STANDARD.encode(packed.finish().unwrap()) } })
    }

    #[test]
    fn lines_of_the_same_day_are_summed_and_others_left_out() {
        let one = r#"{"level":"INFO","download":"library alice/tools/bb - v1"}"#;
        let day = 24 * 3600 * 1000;
        let event = event(&[
            (5000, one),
            (9000, &format!("{one}\n")),
            (day, one),
            (5000, "START RequestId: 1"),
            (5000, r#"{"level":"INFO"}"#),
            (5000, r#"{"download":"nonsense"}"#),
        ]);
        let batch = batch(&event).unwrap();
        let counts: Vec<_> = batch.downloads.iter().map(|one| (one.day.to_string(), one.count, one.latest.0)).collect();
        assert_eq!(counts, [("1970-01-01".to_owned(), 2, 9), ("1970-01-02".to_owned(), 1, 86_400)]);
        assert_eq!(batch.id, super::batch(&event).unwrap().id);
    }

    #[test]
    fn what_is_no_delivery_is_refused() {
        for event in [json!({}), json!({ "awslogs": { "data": "?" } }), json!({ "awslogs": { "data": "AAAA" } })] {
            assert!(batch(&event).is_err());
        }
    }
}
