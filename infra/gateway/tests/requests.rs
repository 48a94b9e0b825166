//! The HTTP API over sockets: routes, limits, events of real requests, responses of real answers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "a failed test panics")]

mod common;

use common::Deployed;
use gateway::api::{MAX_BODY, MAX_HEAD, Settings};
use gateway::event::Remapping;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The event that the function saw.
async fn event(response: Response) -> Value {
    assert_eq!(response.status(), 200);
    let told: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    told["event"].clone()
}

async fn said(response: Response) -> (u16, String) {
    (response.status().as_u16(), response.text().await.unwrap())
}

/// *API Gateway Developer Guide*, "Create routes for HTTP APIs in API Gateway".
#[tokio::test]
async fn the_most_specific_route_leads_to_the_function_with_its_parameters() {
    let deployed = Deployed::new();
    let url = deployed.listens(Settings::default()).await;
    let client = Client::new();
    for (path, key, parameters) in [
        ("/greedy/a/b%2Fc", "ANY /greedy/{rest+}", json!({ "rest": "a/b/c" })),
        ("/greedy//a", "ANY /greedy/{rest+}", json!({ "rest": "a" })),
        ("/greedy/exact", "ANY /greedy/exact", Value::Null),
        ("/named/x%20y/end", "ANY /named/{name}/end", json!({ "name": "x y" })),
        ("/named/x", "ANY /named/{other}", json!({ "other": "x" })),
        ("/only", "GET /only", Value::Null),
    ] {
        let event = event(client.get(format!("{url}{path}")).send().await.unwrap()).await;
        assert_eq!((event["routeKey"].as_str().unwrap(), &event["pathParameters"]), (key, &parameters), "{path}");
        assert_eq!(event["requestContext"]["http"]["sourceIp"], "127.0.0.1");
    }
    for (method, path) in
        [(Method::GET, "/nowhere"), (Method::GET, "/greedy/"), (Method::PUT, "/only"), (Method::GET, "/named/a/b/c")]
    {
        let answer = client.request(method, format!("{url}{path}")).send().await.unwrap();
        assert_eq!(said(answer).await, (404, r#"{"message":"Not Found"}"#.to_owned()), "{path}");
    }
    assert_eq!(deployed.functions["One"].started(), 0, "nothing starts before it is asked");
    assert_eq!(client.post(format!("{url}/only")).send().await.unwrap().status(), 200);
    assert_eq!(deployed.functions["One"].started(), 1);
}

/// `aws-powertools/powertools-lambda-python#621`.
#[tokio::test]
async fn a_named_stage_begins_every_path_and_stays_in_it() {
    let deployed = Deployed::new();
    let url = deployed.listens(Settings { stage: "prod".to_owned(), ..Settings::default() }).await;
    let client = Client::new();
    let event = event(client.get(format!("{url}/prod/greedy/x")).send().await.unwrap()).await;
    assert_eq!((&event["rawPath"], &event["requestContext"]["stage"]), (&json!("/prod/greedy/x"), &json!("prod")));
    for path in ["/greedy/x", "/production/greedy/x", "/prod"] {
        assert_eq!(client.get(format!("{url}{path}")).send().await.unwrap().status(), 404, "{path}");
    }
}

/// *API Gateway Developer Guide*, "Create AWS Lambda proxy integrations for HTTP APIs".
#[tokio::test]
async fn a_body_arrives_as_text_or_in_base64() {
    let deployed = Deployed::new();
    let url = deployed.listens(Settings::default()).await;
    let client = Client::new();
    for (kind, body, encoded) in [("application/json", "{\"é\":1}", false), ("application/x-yaml", "YQ==", true)] {
        let sent = if encoded { "a" } else { body };
        let request = client.post(format!("{url}/greedy/x?a=%20")).header("content-type", kind).body(sent);
        let event = event(request.send().await.unwrap()).await;
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!(body), &json!(encoded)));
        assert_eq!(event["rawQueryString"], "a=%20");
        assert_eq!(event["headers"]["content-length"], sent.len().to_string());
    }
}

/// *API Gateway Developer Guide*, "Quotas for configuring and running an HTTP API"; *Lambda Developer Guide*, "Lambda
/// quotas".
#[tokio::test]
async fn requests_have_limits_of_which_base64_takes_its_share() {
    let deployed = Deployed::new();
    let url = deployed.listens(Settings::default()).await;
    let client = Client::new();
    let with_head = |length: usize| client.get(format!("{url}/greedy/x")).header("x-long", "x".repeat(length));
    assert_eq!(with_head(MAX_HEAD - 300).send().await.unwrap().status(), 200);
    assert_eq!(with_head(MAX_HEAD).send().await.unwrap().status(), 431);
    let with_body = |kind: &'static str, length: usize| {
        client.post(format!("{url}/greedy/x?do=plain")).header("content-type", kind).body("x".repeat(length))
    };
    for (kind, length, status) in [
        ("text/plain", 5 << 20, 200),
        ("text/plain", 6 << 20, 413),
        ("application/octet-stream", 4 << 20, 200),
        ("application/octet-stream", 5 << 20, 413),
        ("text/plain", MAX_BODY + 1, 413),
    ] {
        let (found, body) = said(with_body(kind, length).send().await.unwrap()).await;
        assert_eq!(found, status, "{kind} {length}");
        assert!(status == 200 || body == r#"{"message":"Request Entity Too Large"}"#, "{body}");
    }
}

/// *API Gateway Developer Guide*, "Troubleshooting issues with HTTP API Lambda integrations".
#[tokio::test]
async fn the_gateway_answers_itself_where_the_function_does_not() {
    let deployed = Deployed::new();
    let url = deployed.listens(Settings { timeout: Duration::from_secs(3), ..Settings::default() }).await;
    let client = Client::new();
    for what in ["exit", "fail", "large", "wrong", "hang"] {
        let answer = client.get(format!("{url}/greedy/x?do={what}")).send().await.unwrap();
        assert_eq!(said(answer).await, (500, r#"{"message":"Internal Server Error"}"#.to_owned()), "{what}");
    }
    assert_eq!(client.get(format!("{url}/broken")).send().await.unwrap().status(), 500);
    assert_eq!(
        said(client.get(format!("{url}/greedy/x?do=plain")).send().await.unwrap()).await,
        (200, "hello".to_owned())
    );
    let impatient = deployed.listens(Settings { timeout: Duration::from_millis(200), ..Settings::default() }).await;
    let answer = client.get(format!("{impatient}/greedy/x?do=sleep")).send().await.unwrap();
    assert_eq!(said(answer).await, (503, r#"{"message":"Service Unavailable"}"#.to_owned()));
    let sleep = || client.post(format!("{url}/only?do=sleep")).send();
    let (one, other) = tokio::join!(sleep(), sleep());
    let mut statuses = [one.unwrap().status().as_u16(), other.unwrap().status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503], "reserved concurrency is one");
}

/// *API Gateway Developer Guide*, "Important notes for REST APIs".
#[tokio::test]
async fn a_client_sees_the_challenge_and_the_length_of_what_it_asked_only_the_head_of() {
    let deployed = Deployed::new();
    for (remapping, name) in
        [(Remapping::None, "www-authenticate"), (Remapping::Rest, "x-amzn-remapped-www-authenticate")]
    {
        let url = deployed.listens(Settings { remapping, ..Settings::default() }).await;
        let answer = Client::new().head(format!("{url}/greedy/x?do=challenge")).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()[name]), (401, &"Bearer".parse().unwrap()));
        let length = answer.headers().get("content-length").map(|length| length.to_str().unwrap().to_owned());
        assert_eq!(length.as_deref() == Some("7"), remapping == Remapping::None, "{length:?}");
        assert!(answer.headers().contains_key("apigw-requestid"));
    }
}

#[tokio::test]
async fn a_test_may_say_from_where_a_client_comes() {
    let deployed = Deployed::new();
    let source_header = Some("x-from".parse().unwrap());
    let url = deployed.listens(Settings { source_header, ..Settings::default() }).await;
    for (header, value, source) in [
        ("x-from", "192.0.2.7", "192.0.2.7"),
        ("x-from", "nowhere", "127.0.0.1"),
        ("x-other", "192.0.2.7", "127.0.0.1"),
    ] {
        let event =
            event(Client::new().get(format!("{url}/greedy/x")).header(header, value).send().await.unwrap()).await;
        assert_eq!(event["requestContext"]["http"]["sourceIp"], source);
        assert_eq!(event["headers"].get("x-from"), None);
    }
}

#[tokio::test]
async fn a_body_that_says_that_it_is_too_large_is_not_waited_for_and_neither_is_one_that_does_not_come() {
    let deployed = Deployed::new();
    let url = deployed.listens(Settings { timeout: Duration::from_millis(300), ..Settings::default() }).await;
    for (length, status) in [(MAX_BODY + 1, 413), (5, 408)] {
        let mut stream = tokio::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!("POST /greedy/x HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"));
    }
}

#[tokio::test]
async fn a_client_that_goes_away_stops_nothing() {
    let deployed = Deployed::new();
    let url = deployed.listens(Settings::default()).await;
    let client = Client::builder().timeout(Duration::from_millis(100)).build().unwrap();
    assert!(client.get(format!("{url}/greedy/x?do=sleep")).send().await.is_err());
    tokio::time::sleep(Duration::from_millis(700)).await;
    let answer = Client::new().get(format!("{url}/greedy/x")).send().await.unwrap();
    let told: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!((&told["count"], deployed.functions["Sample"].started()), (&json!(2), 1));
}
