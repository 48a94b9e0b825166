//! Keys of a request that would narrow who has access to something, or how long it lives.
//!
//! Most keys that a route does not know are ignored, since clients send many. One of these must not be: whoever asks
//! for something private and gets an answer that all is well believes that it is.

use axum::extract::Query;
use http::Uri;
use serde_json::{Map, Value};

/// The keys that other registries and their clients have for this, in lower case, without anything but letters.
const KEYS: [&str; 31] = [
    "private",
    "isprivate",
    "defaultprivate",
    "visibility",
    "access",
    "acl",
    "internal",
    "restricted",
    "hidden",
    "readonly",
    "immutable",
    "frozen",
    "locked",
    "protected",
    "archived",
    "expire",
    "expires",
    "expireat",
    "expiresat",
    "expirein",
    "expiresin",
    "expireson",
    "expiry",
    "expiration",
    "expirationdate",
    "deleteafter",
    "validuntil",
    "retention",
    "lifetime",
    "ttl",
    "staged",
];

/// The keys with which others say the opposite: these narrow if they are false.
const OPEN: [&str; 7] = ["public", "ispublic", "visible", "anonymous", "anonymouspull", "writable", "writeable"];

/// The time that clients written in Go send if they mean none.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// What a key with some value asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Narrower,
    Nothing,
    Unknown,
}

fn asks(key: &str, value: &Value) -> Asks {
    let plain: String = key.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase();
    let nothing = match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => is_none(text),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) | Value::Array(_) | Value::Object(_) => false,
    };
    // Who says nothing of it does not want it closed.
    let said = !matches!(value, Value::Null) && *value != Value::String(String::new());
    match (KEYS.contains(&plain.as_str()), OPEN.contains(&plain.as_str())) {
        (true, _) if !nothing => Asks::Narrower,
        (_, true) if nothing && said => Asks::Narrower,
        (false, false) => Asks::Unknown,
        _ => Asks::Nothing,
    }
}

fn is_none(text: &str) -> bool {
    text == NO_TIME || ["", "false", "0", "no", "off", "public"].iter().any(|none| text.eq_ignore_ascii_case(none))
}

/// The first key of a body that narrows something, among those that were `ignored`. A key that comes twice counts as
/// narrowing, if one of its values could be.
pub(super) fn in_body<'a>(body: &Map<String, Value>, ignored: &'a [String]) -> Option<&'a String> {
    ignored.iter().find(|key| {
        let asked = body.get(*key).map_or(Asks::Unknown, |value| asks(key, value));
        let twice = ignored.iter().filter(|other| other == key).count() > 1;
        asked == Asks::Narrower || twice && asked != Asks::Unknown
    })
}

/// The first key of a query that narrows something and is not honoured. A key without a value is there in order to say
/// something.
pub(super) fn in_query(uri: &Uri, honoured: &[&str]) -> Option<String> {
    let Query(mut pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    pairs.retain(|(key, _)| !honoured.contains(&key.as_str()));
    in_pairs(&pairs).map(str::to_owned)
}

/// The first key of a query or a form that narrows something.
pub(super) fn in_pairs(pairs: &[(String, String)]) -> Option<&str> {
    let narrows = |(key, value): &&(String, String)| {
        let value = if value.is_empty() { Value::Bool(true) } else { Value::String(value.clone()) };
        asks(key, &value) == Asks::Narrower
    };
    pairs.iter().find(narrows).map(|(key, _)| key.as_str())
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
            assert!(asks("expiresAt", &value) == Asks::Nothing, "{value}");
        }
        let closed =
            ["private", "isPrivate", "default_private", "readOnly", "read-only", "EXPIRES_AT", "private[]", " private"];
        for key in closed {
            assert!(asks(key, &json!(true)) == Asks::Narrower, "{key}");
        }
        for value in [json!(false), json!("false"), json!(0)] {
            assert!(asks("isPublic", &value) == Asks::Narrower, "{value}");
        }
        assert!([json!(true), json!(null), json!("")].iter().all(|value| asks("public", value) == Asks::Nothing));
        assert!(asks("description", &json!(true)) == Asks::Unknown);
        let twice: Vec<String> = ["x", "isPrivate", "isPrivate"].map(str::to_owned).into();
        let body = json!({ "isPrivate": false });
        assert_eq!(in_body(body.as_object().unwrap(), &twice), Some(&twice[1]));
        assert_eq!(in_body(body.as_object().unwrap(), &twice[..2]), None);
        let uri = |query: &str| format!("/v2/a/b/blobs/uploads/?{query}").parse().unwrap();
        let in_query = |query: &str| super::in_query(&uri(query), &[]);
        let but_private = |query: &str| super::in_query(&uri(query), &["private"]);
        assert_eq!(but_private("private=True&digest=x"), None);
        assert_eq!(but_private("private=True&isPrivate=True"), Some("isPrivate".to_owned()));
        assert_eq!(but_private("Private=True"), Some("Private".to_owned()));
        assert_eq!(in_query("digest=sha256%3Aaa&private=False&expiresAt=2026-12-05"), Some("expiresAt".to_owned()));
        assert_eq!(in_query("digest=sha256%3Aaa&private=False"), None);
        assert_eq!(in_query("digest=sha256%3Aaa&private"), Some("private".to_owned()));
    }
}
