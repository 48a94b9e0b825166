//! Keys of a request that would narrow who has access to something, or how long it lives.
//!
//! Most keys that a route does not know are ignored, since clients send many. One of these must not be: whoever asks
//! for something private and gets an answer that all is well believes that it is.

use axum::extract::Query;
use http::Uri;
use serde_json::Value;

/// The keys that other registries and their clients have for this, without regard to case, `_` and `-`.
const KEYS: [&str; 13] = [
    "private",
    "isprivate",
    "defaultprivate",
    "visibility",
    "readonly",
    "immutable",
    "frozen",
    "expires",
    "expiresat",
    "expiresin",
    "expiry",
    "ttl",
    "staged",
];

/// The time that clients written in Go send if they mean none.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// Whether a key with this value narrows something.
pub(super) fn narrows(key: &str, value: &Value) -> bool {
    let plain: String = key.chars().filter(|c| !matches!(c, '_' | '-')).collect::<String>().to_ascii_lowercase();
    if !KEYS.contains(&plain.as_str()) {
        return false;
    }
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !is_none(text),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) | Value::Array(_) | Value::Object(_) => true,
    }
}

fn is_none(text: &str) -> bool {
    text == NO_TIME || ["", "false", "0", "no", "public"].iter().any(|none| text.eq_ignore_ascii_case(none))
}

/// The first key of a query that narrows something. Routes that write have none that they honour.
pub(super) fn in_query(uri: &Uri) -> Option<String> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    pairs.into_iter().find(|(key, value)| narrows(key, &Value::String(value.clone()))).map(|(key, _)| key)
}

/// The refusal of a key.
pub(super) fn refusal(key: &str) -> String {
    format!("`{key}` is not known here, and ignoring it would give more access than was asked for")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_asks_for_nothing_is_let_through() {
        for value in [json!(null), json!(false), json!(""), json!("False"), json!(0), json!(NO_TIME)] {
            assert!(!narrows("expiresAt", &value), "{value}");
        }
        for key in ["private", "isPrivate", "default_private", "readOnly", "read-only", "EXPIRES_AT"] {
            assert!(narrows(key, &json!(true)), "{key}");
        }
        assert!(!narrows("description", &json!(true)));
        let in_query = |query: &str| in_query(&format!("/v2/a/b/blobs/uploads/?{query}").parse().unwrap());
        assert_eq!(in_query("digest=sha256%3Aaa&private=False&expiresAt=2026-12-05"), Some("expiresAt".to_owned()));
        assert_eq!(in_query("digest=sha256%3Aaa&private=False"), None);
    }
}
