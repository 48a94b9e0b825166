//! Requests as events, and answers as responses: payload format 2.0 of an HTTP API.
//!
//! Source, unless a rule names another: *API Gateway Developer Guide*, "Create AWS Lambda proxy integrations for HTTP APIs
//! in API Gateway", called *proxy page* below.

use axum::body::Body;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// What surrounds a request.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// The account.
    pub account: &'a str,
    /// The id of the API.
    pub api: &'a str,
    /// The stage, `$default` or a name.
    pub stage: &'a str,
    /// The key of the route, like `ANY /v1/{proxy+}`.
    pub route_key: &'a str,
    /// The parameters of the path, decoded.
    pub path_parameters: Vec<(String, String)>,
    /// The id of the request.
    pub request_id: &'a str,
    /// Where it came from.
    pub source: IpAddr,
}

/// The event of a request.
pub fn request(context: &Context<'_>, parts: &http::request::Parts, body: &[u8]) -> Value {
    let path = raw_path(parts.uri.path());
    let query = parts.uri.query().unwrap_or_default();
    let now = jiff::Timestamp::now();
    let host = parts.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    let mut event = json!({
        "version": "2.0",
        "routeKey": context.route_key,
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers(&parts.headers, context.source),
        "requestContext": {
            "accountId": context.account,
            "apiId": context.api,
            "domainName": host,
            "domainPrefix": host.split('.').next().unwrap_or_default(),
            "http": {
                "method": parts.method.as_str(),
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": context.source.to_string(),
                "userAgent": joined(&parts.headers, "user-agent").unwrap_or_default(),
            },
            "requestId": context.request_id,
            "routeKey": context.route_key,
            "stage": context.stage,
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            "timeEpoch": now.as_millisecond(),
        },
        "isBase64Encoded": false,
    });
    let Value::Object(fields) = &mut event else { return event };
    if let Some(cookies) = cookies(&parts.headers) {
        fields.insert("cookies".to_owned(), cookies);
    }
    if let Some(parameters) = query_parameters(query) {
        fields.insert("queryStringParameters".to_owned(), parameters);
    }
    if !context.path_parameters.is_empty() {
        let parameters = context.path_parameters.iter().map(|(name, value)| (name.clone(), json!(value)));
        fields.insert("pathParameters".to_owned(), Value::Object(parameters.collect()));
    }
    if let Some((body, encoded)) = text_or_base64(&parts.headers, body) {
        fields.insert("body".to_owned(), json!(body));
        fields.insert("isBase64Encoded".to_owned(), json!(encoded));
    }
    event
}

/// The path of an event: decoded once, and cut at a `?` that this brings to light. A named stage stays in it.
///
/// Source: seen by others on AWS, since the documentation does not say: `honojs/hono#2156` and
/// `middleapi/standard-server#93` (decoded, and cut), `aws-powertools/powertools-lambda-python#621` (the stage).
fn raw_path(path: &str) -> String {
    let path = unescaped(path);
    path.split('?').next().unwrap_or_default().to_owned()
}

/// The headers of an event. Source: proxy page, "Payload format differences": names in lower case, values of the same
/// name joined by commas, no cookies. *API Gateway Developer Guide*, "Important notes", for the headers that it adds:
/// `X-Forwarded-*`.
fn headers(headers: &HeaderMap, source: IpAddr) -> Value {
    let mut fields = Map::new();
    for name in headers.keys().filter(|name| **name != COOKIE) {
        fields.insert(name.to_string(), json!(joined(headers, name.as_str())));
    }
    let before = joined(headers, "x-forwarded-for").map(|before| format!("{before}, ")).unwrap_or_default();
    fields.insert("x-forwarded-for".to_owned(), json!(format!("{before}{source}")));
    fields.insert("x-forwarded-port".to_owned(), json!("443"));
    fields.insert("x-forwarded-proto".to_owned(), json!("https"));
    Value::Object(fields)
}

fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// The cookies of an event. Source: proxy page, "Payload format differences".
fn cookies(headers: &HeaderMap) -> Option<Value> {
    let all = joined(headers, COOKIE.as_str())?;
    let cookies: Vec<&str> = all.split(';').map(str::trim).filter(|cookie| !cookie.is_empty()).collect();
    Some(json!(cookies))
}

/// The parameters of a query, decoded; values of the same name are joined by commas. Source: proxy page, "Payload format
/// differences".
fn query_parameters(query: &str) -> Option<Value> {
    let mut parameters: Map<String, Value> = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text: &str| unescaped(&text.replace('+', " "));
        let (name, value) = (decoded(name), decoded(value));
        let joined = match parameters.get(&name).and_then(Value::as_str) {
            Some(before) => format!("{before},{value}"),
            None => value,
        };
        parameters.insert(name, json!(joined));
    }
    (!parameters.is_empty()).then_some(Value::Object(parameters))
}

/// The body of an event, and whether it is in base64. Without a body there is no field.
///
/// Source: proxy page, `isBase64Encoded`, which does not say what counts as text; `ministackorg/ministack#766` tried it on
/// AWS: `text/*`, `application/json`, `application/javascript` and `application/xml` are text, and nothing else is, not
/// even a form or a body without a type. Believed, and not seen: what is no UTF-8 is never text.
fn text_or_base64(headers: &HeaderMap, body: &[u8]) -> Option<(String, bool)> {
    if body.is_empty() {
        return None;
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let known = ["application/json", "application/javascript", "application/xml"];
    match std::str::from_utf8(body) {
        Ok(text) if kind.starts_with("text/") || known.contains(&&*kind) => Some((text.to_owned(), false)),
        _ => Some((BASE64_STANDARD.encode(body), true)),
    }
}

/// Which API's rules the headers of a response follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Remapping {
    /// An HTTP API passes headers on as the function set them. Believed: the page below has no such table for HTTP APIs.
    #[default]
    None,
    /// A REST API or a function URL renames some. Source: *API Gateway Developer Guide*, "Important notes for REST APIs".
    Rest,
}

/// The headers that a REST API renames in responses.
const REMAPPED: [&str; 7] =
    ["authorization", "connection", "content-length", "date", "host", "server", "www-authenticate"];

/// A function's answer can't be understood.
#[derive(Debug, thiserror::Error)]
#[error("the function's answer is no response: {0}")]
pub struct Malformed(&'static str);

/// The response that an answer stands for.
///
/// Source: proxy page, "Lambda function response format", format 2.0:
/// - An answer with `statusCode` is a response; `headers` have one value each, and each of `cookies` becomes a header
///   `Set-Cookie`. `multiValueHeaders` belong to format 1.0, and are ignored.
/// - Valid JSON without `statusCode` is the body of a response with status 200 and type `application/json`.
pub fn response(answer: &[u8], method: &Method, remapping: Remapping) -> Result<Response<Body>, Malformed> {
    let answer: Value = serde_json::from_slice(answer).map_err(|_| Malformed("it is not JSON"))?;
    let Some(status) = answer.get("statusCode") else {
        let body = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(response);
    };
    let status =
        status.as_u64().and_then(|status| u16::try_from(status).ok()).filter(|status| (100..600).contains(status));
    let status =
        status.and_then(|status| StatusCode::from_u16(status).ok()).ok_or(Malformed("its statusCode is no status"))?;
    let body = match answer.get("body") {
        None | Some(Value::Null) => Bytes::new(),
        Some(Value::String(body)) if answer.get("isBase64Encoded") == Some(&Value::Bool(true)) => {
            Bytes::from(BASE64_STANDARD.decode(body).map_err(|_| Malformed("its body is not base64"))?)
        }
        Some(Value::String(body)) => Bytes::from(body.clone()),
        Some(_) => return Err(Malformed("its body is not text")),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    for (name, value) in answer.get("headers").and_then(Value::as_object).into_iter().flatten() {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(Malformed("a header is not text")),
        };
        let mut name = name.to_ascii_lowercase();
        if remapping == Remapping::Rest && REMAPPED.contains(&&*name) {
            name = format!("x-amzn-remapped-{name}");
        }
        // HTTP itself says how long a body is. Only the answer to a `HEAD` says it of a body that is not there.
        if name == CONTENT_LENGTH.as_str() && method != Method::HEAD {
            continue;
        }
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(text)) else {
            return Err(Malformed("a header can't be sent"));
        };
        response.headers_mut().insert(name, value);
    }
    for cookie in answer.get("cookies").and_then(Value::as_array).into_iter().flatten() {
        let cookie = cookie.as_str().and_then(|cookie| HeaderValue::try_from(cookie).ok());
        response.headers_mut().append(SET_COOKIE, cookie.ok_or(Malformed("a cookie is not text"))?);
    }
    if method != Method::HEAD {
        *response.body_mut() = Body::from(body);
    }
    Ok(response)
}

/// A text with its escapes decoded once.
pub fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { more.get(2..).unwrap_or_default() } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context<'static> {
        Context {
            account: "1",
            api: "api",
            stage: "$default",
            route_key: "ANY /a/{proxy+}",
            path_parameters: Vec::new(),
            request_id: "id",
            source: [192, 0, 2, 1].into(),
        }
    }

    fn event_of(target: &str, headers: &[(&str, &str)], body: &[u8]) -> Value {
        let mut builder = http::Request::builder().uri(target);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        request(&context(), &builder.body(()).unwrap().into_parts().0, body)
    }

    /// Proxy page, "Payload format differences".
    #[test]
    fn headers_and_parameters_of_the_same_name_are_joined_by_commas_and_cookies_are_a_list() {
        let event = event_of(
            "/a?x=1&y=%20%2B&x=2+3&z",
            &[("X-One", "a"), ("x-one", "b,c"), ("Cookie", "k=1; l=2"), ("cookie", "m=3"), ("Host", "api.test")],
            b"",
        );
        assert_eq!(event["headers"]["x-one"], "a,b,c");
        assert!(event["headers"].get("cookie").is_none());
        assert_eq!(event["cookies"], json!(["k=1", "l=2,m=3"]));
        assert_eq!(event["queryStringParameters"], json!({ "x": "1,2 3", "y": " +", "z": "" }));
        assert_eq!(event["rawQueryString"], "x=1&y=%20%2B&x=2+3&z");
        assert_eq!(event["requestContext"]["domainPrefix"], "api");
        assert_eq!(event["version"], "2.0");
    }

    /// Proxy page, "Payload format structure": what is not there has no field.
    #[test]
    fn what_a_request_does_not_have_is_not_in_its_event() {
        let event = event_of("/a", &[], b"");
        for field in ["body", "cookies", "queryStringParameters", "pathParameters"] {
            assert!(event.get(field).is_none(), "{field}");
        }
        assert_eq!((&event["isBase64Encoded"], &event["rawQueryString"]), (&json!(false), &json!("")));
        assert_eq!(event["headers"]["x-forwarded-for"], "192.0.2.1");
        let time = event["requestContext"]["time"].as_str().unwrap();
        assert!(time.len() == 26 && time.ends_with(" +0000") && time.as_bytes()[2] == b'/', "{time}");
    }

    /// `honojs/hono#2156`, `middleapi/standard-server#93`.
    #[test]
    fn the_path_arrives_decoded_once_and_cut_at_a_question_mark() {
        for (sent, seen) in [
            ("/a/b%3Ac", "/a/b:c"),
            ("/a//b%2Fc", "/a//b/c"),
            ("/a/%2541", "/a/%41"),
            ("/a/%C3%A9%23", "/a/é#"),
            ("/a/b%3Fc", "/a/b"),
            ("/a/%zz%4", "/a/%zz%4"),
        ] {
            let event = event_of(&format!("{sent}?q=%3A"), &[], b"");
            assert_eq!((&event["rawPath"], &event["requestContext"]["http"]["path"]), (&json!(seen), &json!(seen)));
            assert_eq!(event["rawQueryString"], "q=%3A");
        }
    }

    /// `ministackorg/ministack#766`.
    #[test]
    fn only_some_types_of_body_arrive_as_text() {
        for (kind, text) in [
            ("text/plain", true),
            ("TEXT/html; charset=utf-8", true),
            ("application/json", true),
            ("application/json; charset=utf-8", true),
            ("application/xml", true),
            ("application/javascript", true),
            ("application/vnd.oci.image.manifest.v1+json", false),
            ("application/problem+json", false),
            ("application/x-www-form-urlencoded", false),
            ("application/octet-stream", false),
            ("", false),
        ] {
            let event = event_of("/a", &[("content-type", kind)], b"{}");
            assert_eq!(event["isBase64Encoded"], json!(!text), "{kind}");
            assert_eq!(event["body"], if text { "{}" } else { "e30=" }, "{kind}");
        }
        assert_eq!(event_of("/a", &[("content-type", "text/plain")], &[0xff])["isBase64Encoded"], json!(true));
    }

    async fn read(answer: &Value, method: Method, remapping: Remapping) -> (u16, HeaderMap, String) {
        let response = response(answer.to_string().as_bytes(), &method, remapping).unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Proxy page, "Lambda function response format".
    #[tokio::test]
    async fn an_answer_becomes_a_response() {
        let answer = json!({
            "statusCode": 201, "headers": { "X-One": "1", "x-two": 2 }, "cookies": ["a=1", "b=2"], "body": "aGk=",
            "isBase64Encoded": true, "multiValueHeaders": { "x-three": ["3"] },
        });
        let (status, headers, body) = read(&answer, Method::GET, Remapping::None).await;
        assert_eq!((status, body.as_str()), (201, "hi"));
        assert_eq!((&headers["x-one"], &headers["x-two"]), (&"1".parse().unwrap(), &"2".parse().unwrap()));
        assert_eq!(headers.get_all(SET_COOKIE).iter().count(), 2);
        assert!(!headers.contains_key("x-three"));
        let (status, headers, body) = read(&json!({ "statusCode": 204 }), Method::GET, Remapping::None).await;
        assert_eq!((status, headers.len(), body.as_str()), (204, 0, ""));
    }

    /// Proxy page, "Lambda function response format": "API Gateway can infer the response format for you".
    #[tokio::test]
    async fn json_without_a_status_is_a_body() {
        for (answer, body) in [(json!({ "a": 1 }), r#"{"a":1}"#), (json!("hello"), "hello"), (json!([1]), "[1]")] {
            let (status, headers, said) = read(&answer, Method::GET, Remapping::None).await;
            assert_eq!((status, said.as_str()), (200, body));
            assert_eq!(headers[CONTENT_TYPE], "application/json");
        }
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        for wrong in [
            "no JSON",
            r#"{"statusCode":"200"}"#,
            r#"{"statusCode":99}"#,
            r#"{"statusCode":200,"body":{}}"#,
            r#"{"statusCode":200,"body":"?","isBase64Encoded":true}"#,
            r#"{"statusCode":200,"headers":{"x":["1"]}}"#,
            r#"{"statusCode":200,"headers":{"x":"1\n2"}}"#,
        ] {
            assert!(response(wrong.as_bytes(), &Method::GET, Remapping::None).is_err(), "{wrong}");
        }
    }

    /// *API Gateway Developer Guide*, "Important notes for REST APIs".
    #[tokio::test]
    async fn a_rest_api_would_take_the_challenge_and_the_length_away() {
        let answer = json!({ "statusCode": 401, "headers": { "WWW-Authenticate": "Bearer", "Content-Length": "7" } });
        let (_, headers, _) = read(&answer, Method::HEAD, Remapping::None).await;
        assert_eq!(
            (&headers["www-authenticate"], &headers["content-length"]),
            (&"Bearer".parse().unwrap(), &"7".parse().unwrap())
        );
        let (_, headers, _) = read(&answer, Method::HEAD, Remapping::Rest).await;
        assert!(!headers.contains_key("www-authenticate") && !headers.contains_key("content-length"));
        assert_eq!(headers["x-amzn-remapped-www-authenticate"], "Bearer");
        assert_eq!(headers["x-amzn-remapped-content-length"], "7");
    }
}
