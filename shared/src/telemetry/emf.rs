//! Metrics of functions: `CloudWatch` makes them of a line in the log, in its embedded metric format.
//!
//! Lambda and API Gateway have metrics of their own, of requests, durations and failures of each function, and so has
//! `DynamoDB` of what was read and written. A line only says what these don't know: what became of uploads, what sweeps
//! did, how often changes collided, and which answers were errors of ours. If there is nothing to say, which is so of a
//! pull, there is no line.
//!
//! Source: *Amazon `CloudWatch` User Guide*, "Specification: Embedded metric format".

use super::{Count, Counts};
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// The metrics of one function.
#[derive(Debug, Clone)]
pub struct Emf {
    namespace: String,
    group: &'static str,
}

/// The name of the answers, and of a dimension that they have.
const REQUESTS: &str = "stackroom_http_requests_total";
const GROUP: &str = "group";
const STATUS: &str = "status";

impl Emf {
    /// The metrics of the function with the routes of `group`, in a namespace of `CloudWatch`.
    pub fn new(namespace: &str, group: &'static str) -> Self {
        Self { namespace: namespace.to_owned(), group }
    }

    /// Writes the line of an invocation, if there is something to say.
    pub fn publish(&self, counts: &Counts, status: Option<u16>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        if let Some(line) = self.line(counts, status, millis) {
            super::line(&line);
        }
    }

    fn line(&self, counts: &Counts, status: Option<u16>, millis: u64) -> Option<String> {
        let (mut root, mut directives) = (Map::new(), Vec::new());
        let directive = |dimensions: Value, metrics: Vec<Value>| json!({ "Namespace": self.namespace, "Dimensions": [dimensions], "Metrics": metrics });
        let mut metrics = Vec::new();
        for what in Count::ALL.into_iter().filter(|what| says_more(*what) && counts.of(*what) > 0) {
            let name = format!("{}_total", what.name());
            metrics.push(json!({ "Name": name, "Unit": if what.is_bytes() { "Bytes" } else { "Count" } }));
            root.insert(name, counts.of(what).into());
        }
        if !metrics.is_empty() {
            directives.push(directive(json!([GROUP]), metrics));
        }
        if let Some(status) = status.filter(|status| *status >= 500 || *status == 429) {
            directives.push(directive(json!([GROUP, STATUS]), vec![json!({ "Name": REQUESTS, "Unit": "Count" })]));
            root.insert(REQUESTS.to_owned(), 1.into());
            root.insert(STATUS.to_owned(), status.to_string().into());
        }
        if directives.is_empty() {
            return None;
        }
        root.insert(GROUP.to_owned(), self.group.into());
        root.insert("_aws".to_owned(), json!({ "Timestamp": millis, "CloudWatchMetrics": directives }));
        Some(Value::Object(root).to_string())
    }
}

/// Whether AWS has no such number of its own.
fn says_more(what: Count) -> bool {
    !matches!(what, Count::TableReads | Count::TableWrites)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the specification demands of a line: an object with nothing around it, whose directives name what is in it.
    fn valid(line: &str) -> Value {
        assert!(!line.contains('\n') && line.len() < 4096, "{line}");
        let root: Value = serde_json::from_str(line).unwrap();
        let directives = root["_aws"]["CloudWatchMetrics"].as_array().unwrap();
        assert!(root["_aws"]["Timestamp"].is_u64() && !directives.is_empty());
        for directive in directives {
            let namespace = directive["Namespace"].as_str().unwrap();
            assert!(!namespace.is_empty() && namespace.len() < 256);
            let sets = directive["Dimensions"].as_array().unwrap();
            assert_eq!(sets.len(), 1);
            for name in sets[0].as_array().unwrap() {
                let value = root[name.as_str().unwrap()].as_str().unwrap();
                assert!(!value.is_empty() && value.len() < 1024 && value.is_ascii());
            }
            let metrics = directive["Metrics"].as_array().unwrap();
            assert!((1..=100).contains(&metrics.len()));
            for metric in metrics {
                let name = metric["Name"].as_str().unwrap();
                assert!(root[name].is_number() && name.len() < 255 && !name.starts_with(':'), "{name}");
                assert!(["Count", "Bytes"].contains(&metric["Unit"].as_str().unwrap()));
            }
        }
        root
    }

    #[test]
    fn a_line_is_what_cloudwatch_reads_metrics_from_and_has_only_what_happened() {
        let counts = Counts::default();
        counts.add(Count::TableReads, 2);
        counts.add(Count::TableWrites, 1);
        let emf = Emf::new("Stackroom", "imagefile");
        for status in [None, Some(200), Some(303), Some(401), Some(404)] {
            assert_eq!(emf.line(&counts, status, 7), None, "{status:?}");
        }
        counts.add(Count::UploadsCommitted, 1);
        counts.add(Count::UploadedBytes, 1 << 40);
        let root = valid(&emf.line(&counts, Some(200), 7).unwrap());
        let expected = json!({
            "_aws": { "Timestamp": 7, "CloudWatchMetrics": [{
                "Namespace": "Stackroom",
                "Dimensions": [["group"]],
                "Metrics": [
                    { "Name": "stackroom_uploads_committed_total", "Unit": "Count" },
                    { "Name": "stackroom_uploads_bytes_total", "Unit": "Bytes" },
                ],
            }] },
            "group": "imagefile",
            "stackroom_uploads_committed_total": 1,
            "stackroom_uploads_bytes_total": 1u64 << 40,
        });
        assert_eq!(root, expected);
        for what in Count::ALL {
            counts.add(what, u64::from(u32::MAX));
        }
        let root = valid(&emf.line(&counts, Some(503), 7).unwrap());
        assert_eq!(root["_aws"]["CloudWatchMetrics"].as_array().unwrap().len(), 2);
        assert_eq!((&root["stackroom_http_requests_total"], &root["status"]), (&json!(1), &json!("503")));
        assert!(root.get("stackroom_table_reads_total").is_none());
    }
}
