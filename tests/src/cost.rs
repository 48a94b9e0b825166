//! What operations cost on AWS, counted while they run: units of `DynamoDB`, and calls of S3 by their price.
//!
//! The table is asked to say what each call consumed. The tests' own `DynamoDB` answers by AWS's rules: a consistent read
//! takes a unit for each 4 KiB, of a row or of all rows of a query; a write in a transaction takes two for each KiB of
//! the larger of the rows before and after it; and so does a condition on a row that is only checked. On AWS's DynamoDB
//! Local the same steps are counted by [`Meter::proxy`].

use crate::sif::SifBuilder;
use crate::{Answer, Caller, send};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use server::local::Layer;
use shared::domain::Digest;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

/// What was consumed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Units {
    /// Read units of the table.
    pub read: f64,
    /// Write units of the table.
    pub write: f64,
    /// Calls of the bucket at the price of a `PUT`: `PUT`, `POST`, copies and lists.
    pub puts: u32,
    /// Calls of the bucket at the price of a `GET`: `GET` and `HEAD`.
    pub gets: u32,
    /// Calls of the table that were refused: what they consumed is not said.
    pub refused: u32,
    /// Rows that were read in the partition of an entity.
    pub entity_reads: u32,
    /// Rows that were written or checked there.
    pub entity_writes: u32,
}

/// Counts what the calls of an installation consume. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Units>>);

/// The answer to a call of the table, asked for what it consumed.
fn asking(body: &[u8]) -> Vec<u8> {
    let mut call: Value = serde_json::from_slice(body).unwrap();
    call["ReturnConsumedCapacity"] = json!("TOTAL");
    serde_json::to_vec(&call).unwrap()
}

/// Whether a call of the table reads or writes rows, by the header that names it.
fn of_rows(target: Option<&str>) -> Option<&str> {
    let operation = target?.strip_prefix("DynamoDB_20120810.")?;
    ["GetItem", "BatchGetItem", "Query", "Scan", "TransactWriteItems"].into_iter().find(|known| *known == operation)
}

/// How many of the keys in a call lie in the partition of an entity. A query counts as one.
fn in_entities(call: &Value) -> u32 {
    match call {
        Value::Object(fields) => {
            let key = ["pk", ":pk"].iter().filter_map(|name| call[*name]["S"].as_str());
            let own = u32::from(key.into_iter().any(|key| key.starts_with("E#")));
            own + fields.values().map(in_entities).sum::<u32>()
        }
        Value::Array(items) => items.iter().map(in_entities).sum(),
        _ => 0,
    }
}

impl Meter {
    /// Listens for calls of a table at `endpoint`, passes them on, and counts them. Returns its own endpoint.
    pub async fn proxy(&self, endpoint: &str) -> String {
        let (meter, endpoint) = (self.clone(), endpoint.to_owned());
        let client = reqwest::Client::new();
        let router = Router::new().fallback(move |request: Request| {
            let (meter, endpoint, client) = (meter.clone(), endpoint.clone(), client.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap();
                let target = parts.headers.get("x-amz-target").map(|target| target.to_str().unwrap().to_owned());
                let rows = of_rows(target.as_deref()).map(str::to_owned);
                let body = if rows.is_some() { asking(&body) } else { body.to_vec() };
                let mut passed = client.request(parts.method, &endpoint).body(body.clone());
                for (name, value) in &parts.headers {
                    if !["host", "content-length"].contains(&name.as_str()) {
                        passed = passed.header(name, value);
                    }
                }
                let answer = passed.send().await.unwrap();
                let status = answer.status();
                let kind = answer.headers().get("content-type").cloned();
                let bytes = answer.bytes().await.unwrap();
                if let Some(operation) = rows {
                    meter.note(&body, &operation, status.is_success(), &bytes);
                }
                let mut response = axum::response::Response::new(Body::from(bytes));
                *response.status_mut() = status;
                if let Some(kind) = kind {
                    response.headers_mut().insert("content-type", kind);
                }
                response
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    /// What was consumed since this was asked last.
    pub fn take(&self) -> Units {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn note(&self, call: &[u8], operation: &str, done: bool, answer: &[u8]) {
        let mut units = self.0.lock().unwrap();
        if !done {
            units.refused += 1;
            return;
        }
        let call: Value = serde_json::from_slice(call).unwrap();
        let there = in_entities(&call);
        if operation == "TransactWriteItems" {
            units.entity_writes += there;
        } else {
            units.entity_reads += there;
        }
        let answer: Value = serde_json::from_slice(answer).unwrap();
        let consumed = match &answer["ConsumedCapacity"] {
            Value::Array(tables) => tables.iter().map(|table| table["CapacityUnits"].as_f64().unwrap()).sum(),
            table => table["CapacityUnits"].as_f64().unwrap_or_else(|| panic!("{operation}: {answer}")),
        };
        let sum = if operation == "TransactWriteItems" { &mut units.write } else { &mut units.read };
        *sum += consumed;
    }

    fn note_object(&self, request: &HttpRequest) {
        let mut units = self.0.lock().unwrap();
        let path = request.uri().split_once("://").map_or(request.uri(), |(_, rest)| rest);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let bucket = path.trim_end_matches('/').matches('/').count() == 1;
        match request.method() {
            "DELETE" => {}
            "GET" if bucket || query.contains("list-type") => units.puts += 1,
            "GET" | "HEAD" => units.gets += 1,
            _ => units.puts += 1,
        }
    }
}

/// It counts the calls of the SDK's clients.
impl Meter {
    fn before(&self, client: SharedHttpClient) -> SharedHttpClient {
        let meter = self.clone();
        http_client_fn(move |settings, components| {
            let inner = client.http_connector(settings, components);
            SharedHttpConnector::new(Metered { inner, meter: meter.clone() })
        })
    }
}

impl Layer for Meter {
    fn dynamodb(&self, client: SharedHttpClient) -> SharedHttpClient {
        self.before(client)
    }

    fn s3(&self, client: SharedHttpClient) -> SharedHttpClient {
        self.before(client)
    }
}

struct Metered {
    inner: SharedHttpConnector,
    meter: Meter,
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metered")
    }
}

impl HttpConnector for Metered {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let Some(target) = request.headers().get("x-amz-target").map(str::to_owned) else {
            self.meter.note_object(&request);
            return self.inner.call(request);
        };
        let Some(operation) = of_rows(Some(&target)).map(str::to_owned) else { return self.inner.call(request) };
        let body = asking(request.body().bytes().unwrap());
        request.headers_mut().insert("content-length", body.len().to_string());
        *request.body_mut() = SdkBody::from(body.clone());
        let (inner, meter) = (self.inner.clone(), self.meter.clone());
        HttpConnectorFuture::new(async move {
            let mut response: HttpResponse = inner.call(request).await?;
            let answer = ByteStream::new(response.take_body()).collect().await.unwrap().into_bytes();
            meter.note(&body, &operation, response.status().is_success(), &answer);
            *response.body_mut() = SdkBody::from(answer);
            Ok(response)
        })
    }
}

/// One operation, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What somebody does.
    pub name: &'static str,
    /// Requests to functions.
    pub requests: u32,
    /// The stores' part.
    pub units: Units,
}

/// A client whose requests are counted, with what they make an installation consume.
#[derive(Debug)]
pub struct Tally {
    meter: Meter,
    requests: u32,
    puts: u32,
    gets: u32,
    /// What was counted so far.
    pub rows: Vec<Row>,
}

impl Tally {
    /// Counts from now on.
    pub fn new(meter: &Meter) -> Self {
        meter.take();
        Self { meter: meter.clone(), requests: 0, puts: 0, gets: 0, rows: Vec::new() }
    }

    /// A request to a function.
    pub async fn ask(&mut self, request: RequestBuilder, status: u16) -> Answer {
        self.requests += 1;
        let answer = send(request).await;
        assert_eq!(answer.status.as_u16(), status, "{}", String::from_utf8_lossy(&answer.bytes));
        answer
    }

    /// Bytes that a client sends to the bucket itself.
    pub async fn send_bytes(&mut self, who: &Caller, url: &str, bytes: &[u8]) -> Answer {
        self.puts += 1;
        let sent = who.upload(url, bytes).await;
        assert_eq!(sent.status, 200, "{}", String::from_utf8_lossy(&sent.bytes));
        sent
    }

    /// Bytes that a client fetches from the bucket itself.
    pub async fn fetch_bytes(&mut self, who: &Caller, url: &str) {
        self.gets += 1;
        assert_eq!(send(who.bare(Method::GET, url)).await.status, 200);
    }

    /// Bytes that a function sends, or that it sends the client to the bucket for.
    async fn fetch(&mut self, who: &Caller, path: &str) {
        self.requests += 1;
        let answer = who.get(path).await;
        match answer.header("location") {
            Some(url) => self.fetch_bytes(who, url).await,
            None => assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.bytes)),
        }
    }

    /// Forgets what was consumed since the last row.
    pub fn forget(&mut self) {
        self.meter.take();
        (self.requests, self.puts, self.gets) = (0, 0, 0);
    }

    /// Ends an operation.
    pub fn row(&mut self, name: &'static str) {
        let mut units = self.meter.take();
        assert_eq!(units.refused, 0, "{name}: a call of the table was refused");
        units.puts += self.puts;
        units.gets += self.gets;
        self.rows.push(Row { name, requests: self.requests, units });
        self.forget();
    }
}

/// A small image; a different one for each seed.
fn image(seed: u64) -> Vec<u8> {
    SifBuilder::new("amd64").seed(seed).build()
}

fn id(answer: &Answer) -> String {
    answer.json["data"]["id"].as_str().unwrap().to_owned()
}

fn posting(who: &Caller, path: &str, body: &Value) -> RequestBuilder {
    who.request(Method::POST, path).body(body.to_string())
}

fn putting(who: &Caller, path: &str, body: &Value) -> RequestBuilder {
    who.request(Method::PUT, path).body(body.to_string())
}

fn getting(who: &Caller, path: &str) -> RequestBuilder {
    who.request(Method::GET, path)
}

/// What a push through the library does before it sends bytes, into a container that is there. Returns the ids of the
/// container and the image.
async fn announced(tally: &mut Tally, alice: &Caller, bytes: &[u8]) -> (String, String) {
    let hash = Digest::of(bytes).library();
    tally.ask(getting(alice, "/v1/oci-redirect?accessTypes=pull%2Cpush&namespace=alice%2Ftools%2Fbb"), 404).await;
    tally.ask(getting(alice, "/v1/entities/alice"), 200).await;
    tally.ask(getting(alice, "/v1/collections/alice/tools"), 200).await;
    let container = id(&tally.ask(getting(alice, "/v1/containers/alice/tools/bb"), 200).await);
    tally.ask(getting(alice, &format!("/v1/images/alice/tools/bb:{hash}?arch=amd64")), 404).await;
    let made = tally.ask(posting(alice, "/v1/images", &json!({ "hash": hash, "container": container })), 200).await;
    tally.ask(getting(alice, "/version"), 200).await;
    (container, id(&made))
}

async fn tagged(tally: &mut Tally, alice: &Caller, container: &str, image: &str, tag: &str) {
    tally.ask(getting(alice, "/version"), 200).await;
    tally.ask(getting(alice, &format!("/v2/tags/{container}")), 200).await;
    let body = json!({ "Arch": "amd64", "Tag": tag, "ImageID": image });
    tally.ask(posting(alice, &format!("/v2/tags/{container}"), &body), 200).await;
}

/// The bytes of an image in one `PUT`, announced with their digest if the bucket can be trusted to compare it.
async fn sent(tally: &mut Tally, alice: &Caller, image: &str, bytes: &[u8], pins: bool) {
    let mut body = json!({ "filesize": bytes.len(), "md5sum": "" });
    if pins {
        body["sha256sum"] = json!(Digest::of(bytes).hex());
    }
    let opened = tally.ask(posting(alice, &format!("/v2/imagefile/{image}"), &body), 200).await;
    let url = opened.json["data"]["uploadURL"].as_str().unwrap().to_owned();
    tally.send_bytes(alice, &url, bytes).await;
    tally.ask(putting(alice, &format!("/v2/imagefile/{image}/_complete"), &json!({})), 200).await;
}

/// The digest of a part, if the bucket can be trusted to compare it.
fn digest_of(bytes: &[u8], pins: bool) -> String {
    if pins { Digest::of(bytes).hex() } else { String::new() }
}

/// The operations of the library protocol, as its newest client sends them.
pub async fn of_library(tally: &mut Tally, alice: &Caller, nobody: &Caller, pins: bool) {
    alice.container("alice/tools/bb").await;
    let first = image(1);
    tally.forget();
    let (container, made) = announced(tally, alice, &first).await;
    sent(tally, alice, &made, &first, pins).await;
    tagged(tally, alice, &container, &made, "v1").await;
    tally.row("library push, one PUT");
    let (container, made) = announced_again(tally, alice, &first).await;
    tagged(tally, alice, &container, &made, "v2").await;
    tally.row("library push of an image that is there");

    let second = image(2);
    let (container, made) = announced(tally, alice, &second).await;
    let path = format!("/v2/imagefile/{made}/_multipart");
    let opened = tally.ask(posting(alice, &path, &json!({ "filesize": second.len() })), 200).await;
    let upload = opened.json["data"]["uploadID"].as_str().unwrap().to_owned();
    let part = json!({
        "partSize": second.len(), "uploadID": upload, "partNumber": 1, "sha256sum": digest_of(&second, pins),
    });
    let url = tally.ask(putting(alice, &path, &part), 200).await.json["data"]["presignedURL"].clone();
    let etag = tally.send_bytes(alice, url.as_str().unwrap(), &second).await.header("etag").unwrap().to_owned();
    let parts = json!({ "uploadID": upload, "completedParts": [{ "partNumber": 1, "token": etag }] });
    tally.ask(putting(alice, &format!("{path}_complete"), &parts), 200).await;
    tagged(tally, alice, &container, &made, "v3").await;
    tally.row("library push, one part");

    let third = image(3);
    let (_, made) = announced(tally, alice, &third).await;
    let path = format!("/v2/imagefile/{made}/_multipart");
    let opened = tally.ask(posting(alice, &path, &json!({ "filesize": third.len() })), 200).await;
    let upload = opened.json["data"]["uploadID"].as_str().unwrap().to_owned();
    tally.forget();
    let part = json!({
        "partSize": third.len(), "uploadID": upload, "partNumber": 1, "sha256sum": digest_of(&third, pins),
    });
    let url = tally.ask(putting(alice, &path, &part), 200).await.json["data"]["presignedURL"].clone();
    tally.send_bytes(alice, url.as_str().unwrap(), &third).await;
    tally.row("library push, each further part");

    for (who, name) in [(nobody, "library pull by tag"), (alice, "library pull by tag, with a token")] {
        tally.ask(getting(who, "/v1/images/alice/tools/bb:v1?arch=amd64"), 200).await;
        tally.ask(getting(who, "/v1/oci-redirect?accessTypes=pull&namespace=alice%2Ftools%2Fbb"), 404).await;
        tally.ask(getting(who, "/version"), 200).await;
        let found = tally.ask(getting(who, "/v1/imagefile/alice/tools/bb:v1?arch=amd64"), 303).await;
        tally.ask(getting(who, "/v1/images/alice/tools/bb:v1?arch=amd64"), 200).await;
        tally.fetch_bytes(nobody, found.header("location").unwrap()).await;
        tally.row(name);
    }
    tally.ask(getting(nobody, "/v1/images/alice/tools/bb:v1?arch=amd64"), 200).await;
    tally.row("library lookup by tag");
    tally.ask(alice.request(Method::DELETE, "/v1/images/alice/tools/bb:v3?arch=amd64"), 200).await;
    tally.row("library delete");
}

async fn announced_again(tally: &mut Tally, alice: &Caller, bytes: &[u8]) -> (String, String) {
    let hash = Digest::of(bytes).library();
    tally.ask(getting(alice, "/v1/oci-redirect?accessTypes=pull%2Cpush&namespace=alice%2Ftools%2Fbb"), 404).await;
    tally.ask(getting(alice, "/v1/entities/alice"), 200).await;
    tally.ask(getting(alice, "/v1/collections/alice/tools"), 200).await;
    let container = id(&tally.ask(getting(alice, "/v1/containers/alice/tools/bb"), 200).await);
    let found = tally.ask(getting(alice, &format!("/v1/images/alice/tools/bb:{hash}?arch=amd64")), 200).await;
    (container, id(&found))
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn named(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len() })
}

fn manifest(layers: u64) -> String {
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let layers: Vec<Value> = (0..layers).map(|number| named(kind, &layer(number))).collect();
    let config = named("application/vnd.oci.image.config.v1+json", b"config");
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }).to_string()
}

fn layer(number: u64) -> Vec<u8> {
    format!("layer {number}").into_bytes()
}

/// A blob as docker sends it: is it there, where to, the bytes, the end.
async fn blob(tally: &mut Tally, alice: &Caller, bytes: &[u8]) {
    let digest = Digest::of(bytes);
    tally.ask(alice.request(Method::HEAD, &format!("/v2/alice/oci/bb/blobs/{digest}")), 404).await;
    let opened = tally.ask(alice.request(Method::POST, "/v2/alice/oci/bb/blobs/uploads/"), 202).await;
    let url = opened.header("location").unwrap().to_owned();
    let patched = tally.ask(alice.request(Method::PATCH, &url).body(bytes.to_vec()), 202).await;
    let url = patched.header("location").unwrap().to_owned();
    let sign = if url.contains('?') { '&' } else { '?' };
    tally.ask(alice.request(Method::PUT, &format!("{url}{sign}digest={digest}")), 201).await;
}

/// The operations of the registry protocol, as docker sends them.
pub async fn of_registry(tally: &mut Tally, alice: &Caller, nobody: &Caller) {
    let token = alice.token.clone().unwrap();
    let basic = format!("Basic {}", STANDARD.encode(format!("alice:{token}")));
    let scope = "/token?service=stackroom&scope=repository:alice/oci/bb:pull,push";
    // The first push makes the repository.
    blob(tally, alice, b"config").await;
    tally.forget();
    let login = nobody.bare(Method::GET, scope).header("authorization", basic);
    let narrow = tally.ask(login, 200).await.json["token"].as_str().unwrap().to_owned();
    tally.row("registry token, for a user");
    let alice = &alice.with(&narrow);
    blob(tally, alice, &layer(0)).await;
    tally.row("registry push of a blob, PATCH and PUT");
    let opened = tally.ask(alice.request(Method::POST, "/v2/alice/oci/bb/blobs/uploads/"), 202).await;
    let (bytes, url) = (layer(1), opened.header("location").unwrap().to_owned());
    let sign = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{sign}digest={}", Digest::of(&bytes));
    tally.ask(alice.request(Method::PUT, &url).body(bytes), 201).await;
    tally.row("registry push of a blob, one PUT");
    for number in 2..10 {
        blob(tally, alice, &layer(number)).await;
    }
    for (layers, name) in [
        (1, "registry push of a manifest with 1 layer"),
        (5, "registry push of a manifest with 5 layers"),
        (10, "registry push of a manifest with 10 layers"),
    ] {
        tally.forget();
        let put = alice.request(Method::PUT, &format!("/v2/alice/oci/bb/manifests/n{layers}"));
        tally.ask(put.header("content-type", MANIFEST).body(manifest(layers)), 201).await;
        tally.row(name);
    }
    let digest = Digest::of(manifest(5).as_bytes());
    let public = json!({ "visibility": "public" });
    let set = alice.with(&token).request(Method::PATCH, "/v1/containers/alice/oci/bb").body(public.to_string());
    tally.ask(set, 200).await;
    tally.forget();
    let anonymous = tally.ask(nobody.bare(Method::GET, &scope.replace(",push", "")), 200).await;
    let anyone = nobody.with(anonymous.json["token"].as_str().unwrap());
    tally.row("registry token, for nobody");
    // Before its bytes were read: afterwards they are kept for a while.
    tally.ask(getting(&anyone, "/v2/alice/oci/bb/manifests/n5"), 200).await;
    tally.row("registry GET of a manifest by tag");
    for (who, by_tag, by_digest, blob) in [
        (
            &anyone,
            "registry HEAD of a manifest by tag",
            "registry GET of a manifest by digest",
            "registry GET of a blob",
        ),
        (
            alice,
            "registry HEAD of a manifest by tag, with a token",
            "registry GET of a manifest by digest, with a token",
            "registry GET of a blob, with a token",
        ),
    ] {
        tally.ask(who.request(Method::HEAD, "/v2/alice/oci/bb/manifests/n5"), 200).await;
        tally.row(by_tag);
        tally.ask(getting(who, &format!("/v2/alice/oci/bb/manifests/{digest}")), 200).await;
        tally.row(by_digest);
        // One process fetches the bytes itself, and a function sends the client to the bucket: one call either way.
        tally.fetch(who, &format!("/v2/alice/oci/bb/blobs/{}", Digest::of(&layer(0)))).await;
        tally.row(blob);
    }
    tally.ask(alice.with(&token).request(Method::DELETE, &format!("/v2/alice/oci/bb/manifests/{digest}")), 202).await;
    tally.row("registry delete of a manifest with 5 layers");
}

/// A number of units as the page writes it.
fn number(units: f64) -> String {
    let mut text = String::new();
    let _ = write!(text, "{units:.1}");
    text.trim_end_matches(".0").to_owned()
}

impl Row {
    /// The numbers of the row, as the page writes them.
    pub fn cells(&self) -> Vec<String> {
        let Units { read, write, puts, gets, entity_reads, entity_writes, .. } = self.units;
        let mut cells = vec![self.requests.to_string(), number(read), number(write)];
        cells.extend([puts, gets, entity_reads, entity_writes].map(|count| count.to_string()));
        cells
    }
}
