//! The built functions behind a gateway of our own, beside the server in one process on the same table and bucket: both
//! must give the same answers.
//!
//! Each bootstrap runs as on AWS, against a Lambda Runtime API that is implemented here. The gateway turns every HTTP
//! request into the event that API Gateway makes (payload format 2.0), and the function's answer into a response. For
//! the functions, the embedded stores listen on loopback; what they presign leads to the server's own endpoint, which
//! checks the signatures.
//!
//! `STACKROOM_FUNCTIONS` is the folder with `⟨function⟩/bootstrap`, as `cargo lambda build` leaves it; `scripts/test lambda`
//! builds them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    missing_docs,
    reason = "a failed test panics"
)]

use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as InPath, Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{get, post};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use server::routes::{TEMPLATE, of_template};
use shared::auth::Keys;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Answer, Caller, Server, send};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

/// How long a function may take to start, or to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves a router on a free port of loopback, and returns its URL.
async fn serve(router: Router) -> (String, JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

/// A router that passes every request to a store's connector for the SDK.
fn door<F, A>(answer: F) -> Router
where
    F: Fn(HttpRequest) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = HttpResponse> + Send,
{
    Router::new().fallback(move |request: Request| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
        let request = axum::http::Request::from_parts(parts, SdkBody::from(body));
        let response = answer(HttpRequest::try_from(request).unwrap()).await;
        let (parts, body) = response.try_into_http1x().unwrap().into_parts();
        let bytes = ByteStream::new(body).collect().await.unwrap().into_bytes();
        Response::from_parts(parts, Body::from(bytes))
    })
}

/// A function's answer, or the error that it reported instead.
type Reported = Result<Value, String>;

/// The Lambda Runtime API of one function.
struct Runtime {
    events: Mutex<mpsc::Receiver<(u64, Value)>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reported>>>,
    /// Notified at the function's first request for work.
    started: Mutex<Option<oneshot::Sender<()>>>,
}

impl Runtime {
    fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(answered))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(failed_once))
            .route("/2018-06-01/runtime/init/error", post(failed_to_start))
            .with_state(self)
    }
}

async fn next(State(runtime): State<Arc<Runtime>>) -> Response<Body> {
    if let Some(started) = runtime.started.lock().await.take() {
        let _ = started.send(());
    }
    let Some((id, event)) = runtime.events.lock().await.recv().await else { return Response::default() };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Response::builder()
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", id.to_string())
        .header("lambda-runtime-deadline-ms", (now + PATIENCE).as_millis().to_string())
        .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:local:000000000000:function:stackroom")
        .header("lambda-runtime-trace-id", "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0")
        .body(Body::from(event.to_string()))
        .unwrap()
}

async fn answered(State(runtime): State<Arc<Runtime>>, InPath(id): InPath<u64>, body: Bytes) -> StatusCode {
    let waiting = runtime.waiting.lock().await.remove(&id).unwrap();
    let _ = waiting.send(Ok(serde_json::from_slice(&body).unwrap()));
    StatusCode::ACCEPTED
}

async fn failed_once(State(runtime): State<Arc<Runtime>>, InPath(id): InPath<u64>, body: Bytes) -> StatusCode {
    let waiting = runtime.waiting.lock().await.remove(&id).unwrap();
    let _ = waiting.send(Err(String::from_utf8_lossy(&body).into_owned()));
    StatusCode::ACCEPTED
}

async fn failed_to_start(body: Bytes) -> StatusCode {
    eprintln!("the function can't start: {}", String::from_utf8_lossy(&body));
    StatusCode::ACCEPTED
}

/// A running function.
struct Function {
    runtime: Arc<Runtime>,
    events: mpsc::Sender<(u64, Value)>,
    count: AtomicU64,
    /// From the start of the process to its first request for work.
    init: Duration,
    serving: JoinHandle<()>,
    process: Child,
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        self.serving.abort();
    }
}

impl Function {
    /// Starts the bootstrap of a function with the variables that its deployment would have.
    async fn start(name: &str, variables: &[(&str, String)]) -> Self {
        let folder =
            std::env::var_os("STACKROOM_FUNCTIONS").expect("STACKROOM_FUNCTIONS: where the built functions are");
        let bootstrap = PathBuf::from(folder).join(name).join("bootstrap");
        let (events, receiver) = mpsc::channel(1);
        let (started, start) = oneshot::channel();
        let runtime = Arc::new(Runtime {
            events: Mutex::new(receiver),
            waiting: Mutex::default(),
            started: Mutex::new(Some(started)),
        });
        let (url, serving) = serve(Arc::clone(&runtime).router()).await;
        let began = Instant::now();
        let process = Command::new(&bootstrap)
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", url.strip_prefix("http://").unwrap())
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("_HANDLER", "bootstrap")
            .env("STACKROOM_LOG", "error")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", bootstrap.display()));
        let first = tokio::time::timeout(PATIENCE, start).await;
        first.unwrap_or_else(|_| panic!("{name} does not start")).unwrap();
        let init = began.elapsed();
        Self { runtime, events, count: AtomicU64::new(0), init, serving, process }
    }

    /// Passes an event to the function and waits for what it reports.
    async fn invoke(&self, event: Value) -> Reported {
        let id = self.count.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.runtime.waiting.lock().await.insert(id, sender);
        self.events.send((id, event)).await.unwrap();
        tokio::time::timeout(PATIENCE, receiver).await.expect("the function does not answer").unwrap()
    }
}

/// API Gateway with an HTTP API, as far as the template uses it.
struct Gateway {
    routes: matchit::Router<(String, String)>,
    functions: BTreeMap<String, Function>,
}

impl Gateway {
    async fn start(variables: &[(&str, String)]) -> Self {
        let mut routes = matchit::Router::new();
        let mut functions = BTreeMap::new();
        for route in of_template(TEMPLATE).unwrap() {
            let name = route.function.to_lowercase();
            if !functions.contains_key(&name) {
                functions.insert(name.clone(), Function::start(&name, variables).await);
            }
            routes.insert(route.path.replace("{proxy+}", "{*proxy}"), (name, route.path)).unwrap();
        }
        Self { routes, functions }
    }
}

/// The text with its escapes decoded once.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The event that API Gateway makes of a request. The path arrives decoded, the query as it is; a body is encoded in
/// base64 unless its type says that it is text.
fn event(route: &str, method: &str, (path, query): (&str, &str), headers: &HeaderMap, body: &[u8]) -> Value {
    let text = headers.get("content-type").is_some_and(|kind| {
        let kind = kind.to_str().unwrap();
        kind.starts_with("text/") || kind.starts_with("application/json")
    });
    let joined = |name: &str| {
        let values: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        json!(values.join(","))
    };
    let headers: serde_json::Map<String, Value> =
        headers.keys().map(|name| (name.to_string(), joined(name.as_str()))).collect();
    let mut event = json!({
        "version": "2.0",
        "routeKey": format!("ANY {route}"),
        "rawPath": unescaped(path),
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "000000000000", "apiId": "api", "domainName": "api.test", "domainPrefix": "api",
            "http": {
                "method": method, "path": unescaped(path), "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1", "userAgent": headers.get("user-agent"),
            },
            "requestId": "id", "routeKey": format!("ANY {route}"), "stage": "$default",
            "time": "21/Nov/2026:00:00:00 +0000", "timeEpoch": 1_795_219_200_000u64,
        },
        "isBase64Encoded": !text && !body.is_empty(),
    });
    if text {
        event["body"] = json!(std::str::from_utf8(body).unwrap());
    } else if !body.is_empty() {
        event["body"] = json!(BASE64_STANDARD.encode(body));
    }
    event
}

/// One request through the gateway.
async fn through(gateway: Arc<Gateway>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 10 << 20).await.unwrap();
    let path = shared::http::normal(&parts.uri).path().to_owned();
    let Ok(found) = gateway.routes.at(&path) else {
        // In API Gateway's own form. None of our clients requests such a path.
        let answer = Response::builder().status(404).header("content-type", "application/json");
        return answer.body(Body::from(r#"{"message":"Not Found"}"#)).unwrap();
    };
    let (name, route) = found.value;
    let asked = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let event = event(route, parts.method.as_str(), asked, &parts.headers, &body);
    let answer = match gateway.functions[name].invoke(event).await {
        Ok(answer) => answer,
        Err(error) => panic!("{name} failed at {} {}: {error}", parts.method, parts.uri),
    };
    let status = answer["statusCode"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap();
    let mut response = Response::builder().status(status);
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        response = response.header(name, value.as_str().unwrap());
    }
    let body = answer["body"].as_str().unwrap_or_default();
    let body =
        if answer["isBase64Encoded"] == json!(true) { BASE64_STANDARD.decode(body).unwrap() } else { body.into() };
    response.body(Body::from(body)).unwrap()
}

/// Secrets Manager, which has one secret.
async fn secret(State(keys): State<Arc<Mutex<(String, u32)>>>, body: Bytes) -> String {
    assert_eq!(body, r#"{"SecretId":"keys"}"#);
    let mut keys = keys.lock().await;
    keys.1 += 1;
    json!({ "SecretString": keys.0 }).to_string()
}

/// A server in one process, and the functions on the same stores.
struct Both {
    server: Server,
    /// The gateway's URL.
    url: String,
    gateway: Arc<Gateway>,
    /// The token keys, as Secrets Manager has them, and how often they were asked for.
    keys: Arc<Mutex<(String, u32)>>,
    serving: Vec<JoinHandle<()>>,
}

impl Drop for Both {
    fn drop(&mut self) {
        for serving in &self.serving {
            serving.abort();
        }
    }
}

impl Both {
    async fn start() -> Self {
        let server = Server::start().await;
        let table = server.local.table.clone();
        let table = door(move |request| {
            let table = table.clone();
            async move { table.call(request).await.unwrap() }
        });
        let objects = server.local.objects.clone();
        let objects = door(move |request| {
            let objects = objects.clone();
            async move { objects.call(request).await.unwrap() }
        });
        let ((table, a), (objects, b)) = (serve(table).await, serve(objects).await);
        let token = server.local.admin_token();
        let kept = |name: &str| std::fs::read_to_string(Path::new(&token).with_file_name(name)).unwrap();
        let keys = Arc::new(Mutex::new((kept("keys"), 0)));
        let (secrets, d) = serve(Router::new().fallback(secret).with_state(Arc::clone(&keys))).await;
        let gateway = Gateway::start(&[
            ("AWS_REGION", "local".to_owned()),
            ("AWS_ACCESS_KEY_ID", "stackroom".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", kept("objects.key")),
            ("AWS_ENDPOINT_URL_DYNAMODB", table),
            ("AWS_ENDPOINT_URL_S3", objects),
            ("STACKROOM_TABLE", "stackroom".to_owned()),
            ("STACKROOM_BUCKET", server::local::BUCKET.to_owned()),
            ("STACKROOM_PUBLIC_URL", server.url.clone()),
            ("STACKROOM_S3_PUBLIC_URL", server.url.clone()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets),
            ("STACKROOM_TOKEN_KEYS_SECRET", "keys".to_owned()),
        ])
        .await;
        let gateway = Arc::new(gateway);
        let asked = Arc::clone(&gateway);
        let router = Router::new().fallback(move |request| through(Arc::clone(&asked), request));
        let (url, c) = serve(router).await;
        Self { server, url, gateway, keys, serving: vec![a, b, c, d] }
    }

    /// The same caller, sending requests to the functions.
    fn there(&self, caller: &Caller) -> Caller {
        Caller::new(&self.url, caller.token.clone())
    }

    /// Sends the same request both ways, which must change nothing, and reports how the answers differ.
    async fn compare(&self, caller: &Caller, method: Method, path: &str) -> Option<String> {
        let here = plain(&send(caller.request(method.clone(), path)).await);
        let there = plain(&send(self.there(caller).request(method.clone(), path)).await);
        (there != here).then(|| format!("{method} {path}\n  the function: {there:?}\n  the server:   {here:?}\n"))
    }
}

/// The headers that must be the same: not the date, nor those that the test server adds.
fn headers(answer: &Answer) -> BTreeMap<String, String> {
    let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), undated(value.to_str().unwrap())));
    headers.filter(|(name, _)| name != "date" && !name.starts_with("x-test-")).collect()
}

/// Everything in an answer that must be the same. JSON fields have no order.
fn plain(answer: &Answer) -> (u16, BTreeMap<String, String>, String) {
    let text = String::from_utf8_lossy(&answer.bytes);
    let text = match serde_json::from_slice::<BTreeMap<String, Value>>(&answer.bytes) {
        Ok(fields) => sorted(&fields.into_iter().collect()),
        Err(_) => text.into_owned(),
    };
    (answer.status.as_u16(), headers(answer), undated(&text))
}

/// JSON with its fields in the order of their names.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let fields: BTreeMap<&String, String> = map.iter().map(|(name, value)| (name, sorted(value))).collect();
            format!("{fields:?}")
        }
        Value::Array(list) => format!("{:?}", list.iter().map(sorted).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}

/// A text without the values in a presigned URL that depend on the time.
fn undated(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["X-Amz-Date=", "X-Amz-Signature=", "X-Amz-Credential="] {
        while let Some((before, rest)) = text.split_once(name) {
            let end = rest.find(['&', '"']).unwrap_or(rest.len());
            text = format!("{before}{}*{}", name.to_lowercase(), &rest[end..]);
        }
    }
    text
}

/// JSON without the values that are new each time.
fn anonymous(value: &Value, name: &str) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), anonymous(value, name))).collect(),
        Value::Array(list) => list.iter().map(|value| anonymous(value, name)).collect(),
        Value::String(text) => {
            let id = text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let time =
                text.len() >= 20 && (text.ends_with('Z') || text.ends_with("+00:00")) && text.as_bytes()[10] == b'T';
            let url = text.split_once("/objects/").map(|(_, url)| {
                let names = url.split(['?', '&']).skip(1).map(|pair| pair.split('=').next().unwrap());
                names.collect::<Vec<_>>().join(" ")
            });
            match url {
                _ if id => json!("ID"),
                _ if time => json!("TIME"),
                Some(url) => json!(url),
                None => json!(text.replace(name, "NAME")),
            }
        }
        other => other.clone(),
    }
}

#[tokio::test]
async fn the_functions_answer_reads_as_the_server_does() {
    let both = Both::start().await;
    for (name, function) in &both.gateway.functions {
        println!("{name}: {:.1} ms from its start to its first question", function.init.as_secs_f64() * 1000.0);
    }
    let alice = both.server.user("alice", 0).await;
    let bytes = SifBuilder::new("amd64").build();
    alice.push("alice/tools/bb", "latest", "amd64", &bytes).await.ok();
    let container = alice.get("/v1/containers/alice/tools/bb").await.ok()["data"]["id"].as_str().unwrap().to_owned();
    let hash = shared::domain::Digest::of(&bytes).library();
    let nobody = both.server.nobody.clone();
    let stranger = Caller::new(&both.server.url, Some("a".repeat(250)));
    let mut wrong: Vec<String> = Vec::new();
    for (path, status) in [
        ("/version", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/assets/config/config.prod.json", 200),
        ("/v1/images/alice/tools/bb:latest?arch=amd64", 200),
        ("/v1/images/alice/tools/bb:latest?arch%3Damd64", 200),
        ("/v1/images/alice/tools/bb:latest?arch=amd64&details", 200),
        ("/v1/images//alice/tools/bb:latest", 200),
        ("/v1/images/alice/tools/bb%3Alatest", 200),
        ("/v1/images/alice%2Ftools%2Fbb", 200),
        ("/v1/images/alice/tools/bb:missing", 404),
        ("/v1/images/alice/tools/bb:latest?arch=arm64", 404),
        ("/v1/images/alice/tools/b%20b", 404),
        ("/v1/images/alice/tools/b+b", 404),
        ("/v1/images/alice/tools/b%C3%A9", 404),
        ("/v1/images/alice/tools/bb%23x", 404),
        ("/v1/images/alice/tools/b%2562", 404),
        ("/v1/images/alice/tools/bb%3Alatest%253Fx", 404),
        ("/v1/images/alice/tools/bb%00", 404),
        ("/v1/entities/", 404),
        ("/v1/entities/alice", 200),
        ("/v1/entities/alice%22%3C%3E%7B%7D%5E%7C%60%5C", 400),
        ("/v1/entities", 200),
        ("/v1/collections/alice/tools", 200),
        ("/v1/collections?entity=alice", 200),
        ("/v1/containers?collection=alice%2Ftools", 200),
        ("/v1/containers/alice/tools/bb", 200),
        ("/v1/containers/alice/tools/no", 404),
        ("/v1/images?container=alice/tools/bb", 200),
        ("/v1/search?value=latest&arch=amd64", 200),
        ("/v1/search?value=%3Cb%20b%3E%22%7C%C3%A9", 200),
        ("/v1/search?value=a&value=b", 400),
        ("/v1/search?value=\"a|b{}^`", 200),
        (&format!("/v1/tags/{container}"), 200),
        (&format!("/v2/tags/{container}"), 200),
        ("/v2/tags/nothing", 400),
        ("/v1/oci-redirect", 404),
        ("/v1/imagefile/alice/tools/bb:latest?arch=amd64", 303),
        (&format!("/v1/imagefile/alice/tools/bb:{hash}"), 303),
        ("/v1/imagefile/alice/tools/bb:no", 404),
        ("/api/container/tools/bb", 404),
        ("/alice/api/container/tools/bb", 200),
        ("/v1/token-status", 200),
        ("/auth/tokens", 200),
        ("/api/users", 403),
        ("/pks/lookup?op=get&search=0xABCD", 404),
        ("/v1/rbac/users/current", 200),
    ] {
        let answer = alice.get(path).await;
        if answer.status.as_u16() != status {
            wrong.push(format!("{path} has status {}\n", answer.status));
        }
        for (caller, method) in [
            (&alice, Method::GET),
            (&nobody, Method::GET),
            (&stranger, Method::GET),
            (&alice, Method::HEAD),
            (&alice, Method::OPTIONS),
        ] {
            wrong.extend(both.compare(caller, method, path).await);
        }
    }
    wrong.extend(both.compare(&both.server.admin, Method::GET, "/api/users").await);
    assert!(wrong.is_empty(), "{}", wrong.concat());
    assert_eq!(both.there(&nobody).pull("alice/tools/bb:latest").await.bytes, bytes);
}

/// A step of a push: its name, and the answer.
type Step = (&'static str, Answer);

/// Pushes, tags and deletes an image, with the mistakes that people make, and returns every answer.
async fn push(alice: &Caller, name: &str, bytes: &[u8]) -> Vec<Step> {
    let id = |answer: &Answer| answer.json["data"]["id"].as_str().unwrap().to_owned();
    let mut steps: Vec<Step> = Vec::new();
    let entity = alice.post("/v1/entities", json!({ "name": "alice" })).await;
    let collection = json!({ "name": name, "entity": id(&entity), "description": "Größe <&> \u{1f980}" });
    let collection = alice.post("/v1/collections", collection).await;
    let container = alice.post("/v1/containers", json!({ "name": "bb", "collection": id(&collection) })).await;
    let container_id = id(&container);
    let hash = shared::domain::Digest::of(bytes).library();
    let image = alice.post("/v1/images", json!({ "hash": hash, "container": container_id })).await;
    let image_id = id(&image);
    let opened = alice.open(&image_id, bytes).await;
    let url = opened.json["data"]["uploadURL"].as_str().unwrap().to_owned();
    steps.extend([("entity", entity), ("collection", collection), ("container", container), ("image", image)]);
    let complete = format!("/v2/imagefile/{image_id}/_complete");
    steps.push(("open", opened));
    steps.push(("complete before the bytes", alice.put(&complete, json!({})).await));
    steps.push(("other bytes", alice.upload(&url, &vec![0; bytes.len()]).await));
    steps.push(("bytes", alice.upload(&url, bytes).await));
    steps.push(("complete", alice.put(&complete, json!({})).await));
    steps.push(("complete again", alice.put(&complete, json!({})).await));
    let tags = format!("/v2/tags/{container_id}");
    let tag = json!({ "Arch": "amd64", "Tag": "1.0", "ImageID": image_id });
    steps.push(("tag", alice.post(&tags, tag.clone()).await));
    let typed = alice.request(Method::POST, &tags).header("content-type", "application/json");
    steps.push(("tag, with its type", send(typed.body(tag.to_string())).await));
    let binary = alice.request(Method::POST, &tags).header("content-type", "application/octet-stream");
    steps.push(("tag, as bytes", send(binary.body(tag.to_string())).await));
    steps.push(("no JSON", send(alice.request(Method::POST, &tags).body("{\"Tag\":")).await));
    steps.push(("no text", send(alice.request(Method::POST, &tags).body(vec![0xff, 0xfe, 0])).await));
    steps.push(("no body", send(alice.request(Method::POST, &tags)).await));
    let long = json!({ "Arch": "amd64", "Tag": "x".repeat(3 << 20), "ImageID": image_id });
    steps.push(("a body too long", alice.post(&tags, long).await));
    steps.push(("pull", alice.pull(&format!("alice/{name}/bb:1.0")).await));
    steps.push(("delete", alice.delete(&format!("/v1/images/alice/{name}/bb:1.0?arch=amd64")).await));
    steps.push(("delete again", alice.delete(&format!("/v1/images/alice/{name}/bb:1.0?arch=amd64")).await));
    steps
}

#[tokio::test]
async fn what_no_client_can_send_costs_one_answer_and_not_the_function() {
    let both = Both::start().await;
    let function = &both.gateway.functions["library"];
    for (path, query) in [("/v1/search", "value=<é>"), ("/v1/images/alice/../b#c?d%zz\0", ""), ("", ""), ("x", "\0")] {
        let mut event = event("/v1/images/{proxy+}", "GET", ("/", query), &HeaderMap::new(), b"");
        event["rawPath"] = json!(path);
        // The runtime may report an event that it can't read as an error, which the gateway turns into a 500.
        if let Ok(answer) = function.invoke(event).await {
            assert!(answer["statusCode"].as_u64().is_some_and(|status| (400..500).contains(&status)), "{answer}");
        }
        let well = both.there(&both.server.nobody).get("/v1/oci-redirect").await;
        assert_eq!(well.error(404), "this library is its own registry");
    }
    assert!(function.invoke(json!({ "no": "event" })).await.is_err());
    assert_eq!(both.there(&both.server.nobody).get("/v1/oci-redirect").await.status.as_u16(), 404);
}

#[tokio::test]
async fn the_functions_take_a_push_step_by_step_as_the_server_does() {
    let both = Both::start().await;
    let alice = both.server.user("alice", 0).await;
    let here = push(&alice, "one", &SifBuilder::new("amd64").build()).await;
    // The image is deleted, so the same bytes are sent again.
    let there = push(&both.there(&alice), "two", &SifBuilder::new("amd64").build()).await;
    for ((step, here), (_, there)) in here.iter().zip(&there) {
        assert_eq!(there.status, here.status, "{step}: {}", String::from_utf8_lossy(&there.bytes));
        let names = |answer: &Answer| headers(answer).into_keys().collect::<Vec<_>>();
        assert_eq!(names(there), names(here), "{step}");
        assert_eq!(anonymous(&there.json, "two"), anonymous(&here.json, "one"), "{step}");
        assert_eq!(there.bytes.is_empty(), here.bytes.is_empty(), "{step}");
    }
    let statuses: Vec<(&str, u16)> = there.iter().map(|(step, answer)| (*step, answer.status.as_u16())).collect();
    println!("{statuses:?}");
    both.server.sweep_all().await;
    assert_eq!(both.server.objects().await, Vec::<String>::new());
    assert_eq!(both.server.quota("alice").await, (0, 0));
}

#[tokio::test]
async fn a_new_key_is_learned_from_the_first_token_that_it_signed_and_old_tokens_stay() {
    let both = Both::start().await;
    let old = both.server.user("alice", 0).await;
    both.there(&old).get("/v1/token-status").await.ok();
    let functions = both.gateway.functions.len();
    let readers = both.keys.lock().await.1;
    assert!(readers >= 2 && usize::try_from(readers).unwrap() < functions, "those that need the keys read them");
    // An operator puts a key in front; the server stands for a function that has read it already.
    let keys = format!("{}{}", Keys::generate().unwrap(), both.keys.lock().await.0);
    both.server.local.app.keys.replace(&keys).unwrap();
    both.keys.lock().await.0 = keys;
    let new = both.server.token("alice", json!({ "name": "new" })).await;
    // A function reads no more often than every ten seconds, and it may have started just now.
    let until = Instant::now() + PATIENCE;
    while !both.there(&new).get("/v1/token-status").await.status.is_success() {
        assert!(Instant::now() < until, "the function never learns the key");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    both.there(&old).get("/v1/token-status").await.ok();
    assert_eq!(both.keys.lock().await.1, readers + 1, "one function asked, once");
    // Keys that nobody has make nobody ask, but once in a while.
    let strange = Keys::parse(&Keys::generate().unwrap()).unwrap().seal("http://h").unwrap();
    for _ in 0..20 {
        both.there(&old.with(&strange)).get("/v1/token-status").await.error(404);
    }
    assert!(both.keys.lock().await.1 <= readers + 2);
}
