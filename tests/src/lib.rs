//! What the tests share: a whole server on a free port, callers with and without tokens, real images.
//!
//! With `STACKROOM_UNDER=functions`, every server is an installation on functions behind a simulated API Gateway instead:
//! see [`functions`]. With `STACKROOM_UNDER=dynamodb`, it has its rows in a `DynamoDB`: see [`dynamodb`]. With
//! `STACKROOM_UNDER=localstack`, its table and bucket are an emulator's: see [`localstack`]. With
//! `STACKROOM_UNDER=servers`, it is two servers in turn, on stores of somebody else: see [`foreign`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a failed test panics"
)]

pub mod backlinks;
pub mod chance;
pub mod cost;
pub mod dynamodb;
pub mod foreign;
pub mod functions;
pub mod layered;
pub mod localstack;
pub mod mortal;
pub mod sif;

use axum::Router;
use axum::extract::Request;
use dynamodb::DynamoDb;
use foreign::Place;
use functions::Functions;
use localstack::Stack;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use server::limits::Limits;
use server::local::{Layer, Local, Nothing};
use shared::app::{App, Parts};
use shared::auth::Keys;
use shared::config::Config;
use shared::domain::Digest;
use shared::store::keys::INSTALLATION;
use shared::telemetry::Summary;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// A server of its own: the embedded store in a folder that is removed with it, every route, a real listener.
#[derive(Debug)]
pub struct Server {
    /// Its URL, without a slash at the end.
    pub url: String,
    /// Where its store is, without a slash at the end.
    pub store: String,
    /// The installation behind it.
    pub local: Arc<Local>,
    /// A caller without a token.
    pub nobody: Caller,
    /// The site admin `admin`.
    pub admin: Caller,
    /// The functions, if they serve instead of this process.
    pub functions: Option<Functions>,
    /// The emulator's stores, if these are not the embedded ones. Then `local` has its keys and its folder, and its stores
    /// are empty.
    pub stack: Option<Arc<Stack>>,
    /// The other server, if there are two. Then the stores of `local` are empty, too.
    pub other: Option<App>,
    /// The `DynamoDB` with its rows, if they are not in the embedded table.
    dynamodb: Option<DynamoDb>,
    serving: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

/// The setting that one process always has, since it is the store as well: it sends blobs itself. Functions redirect to
/// the store without it.
pub const SERVING: (&str, &str) = ("STACKROOM_SERVE_BLOBS", "true");

impl Server {
    /// Starts a server with its first admin.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with settings, as the environment would give them.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_at("127.0.0.1:0", settings).await
    }

    /// The same at an address of the caller's choice.
    pub async fn start_at(address: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_as(address, settings, &Nothing, functions::on_dynamodb()).await
    }

    /// The same with a layer between the server and its stores.
    pub async fn start_through(settings: &[(&str, &str)], layer: &dyn Layer) -> Self {
        Self::start_as("127.0.0.1:0", settings, layer, functions::on_dynamodb()).await
    }

    /// The same with the rows in a `DynamoDB`, so that the layer sees the calls of the SDK.
    pub async fn start_on_dynamodb(settings: &[(&str, &str)], layer: &dyn Layer) -> Self {
        Self::start_as("127.0.0.1:0", settings, layer, true).await
    }

    async fn start_as(address: &str, settings: &[(&str, &str)], layer: &dyn Layer, on_dynamodb: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let get = |name: &str| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let config = Config::read(&url, get).unwrap();
        let mut local = Local::open_through(folder.path(), config.clone(), layer).await.unwrap();
        let (mut stack, mut other, mut store) = (None, None, url.clone());
        let on_dynamodb = on_dynamodb || (functions::serve() && !functions::emulated());
        let dynamodb =
            if on_dynamodb { Some(DynamoDb::open(&folder.path().join("dynamodb.sqlite")).await) } else { None };
        if let Some(dynamodb) = &dynamodb {
            let keys = Keys::parse(&std::fs::read_to_string(folder.path().join("keys")).unwrap()).unwrap();
            let own = &*local.app;
            let (config, objects, clock) = (own.config.clone(), own.objects.clone(), own.clock);
            let (table, index) = (dynamodb.table(layer), dynamodb.index(layer));
            local.app = App::new(Parts { config, table, index, objects, keys, clock });
        }
        if functions::emulated() {
            let made = Stack::create(&url).await.unwrap();
            let keys = std::fs::read_to_string(folder.path().join("keys")).unwrap();
            let config = Config { pin_uploads: made.pins().await.unwrap(), ..config.clone() };
            local.app = made.app(config, &keys);
            shared::service::installation::mark(&local.app).await.unwrap();
            stack = Some(Arc::new(made));
        }
        if functions::in_turn() {
            let stores = Place::all().swap_remove(0).create().await;
            let keys = std::fs::read_to_string(folder.path().join("keys")).unwrap();
            let config = Config { pin_uploads: stores.place.pins, ..config };
            store.clone_from(&stores.place.s3);
            local.app = stores.app(config.clone(), &keys, layer);
            other = Some(stores.app(config, &keys, layer));
            shared::service::installation::mark(&local.app).await.unwrap();
        }
        local.first_admin().await.unwrap().expect("a new folder has no users");
        let token = std::fs::read_to_string(local.admin_token()).unwrap();
        let (functions, serving) = if let Some(stack) = &stack {
            (Some(Functions::on_stack(stack, &local, listener, settings).await), None)
        } else if let Some(dynamodb) = dynamodb.as_ref().filter(|_| functions::serve()) {
            (Some(Functions::start(&local, dynamodb, listener, settings).await), None)
        } else {
            let router = match &other {
                Some(other) => {
                    in_turn([&local.app, other].map(|app| Router::from(server::site::Site::shared(app).unwrap())))
                }
                None => Router::from(server::site::Site::folder(&local).unwrap()),
            };
            let router = router.layer(axum::middleware::map_response(counted));
            let limits = Limits::of(&local.app.config);
            (None, Some(tokio::spawn(server::serve::answer(listener, router, limits, std::future::pending()))))
        };
        let nobody = Caller::new(&url, None);
        let admin = Caller::new(&url, Some(token));
        let server = Self {
            url,
            store,
            local: Arc::new(local),
            nobody,
            admin,
            functions,
            stack,
            other,
            dynamodb,
            serving,
            _folder: folder,
        };
        server.known(&server.admin).await;
        server
    }

    /// The `DynamoDB` with its rows.
    pub fn dynamodb(&self) -> &DynamoDb {
        self.dynamodb.as_ref().expect("it was started on one")
    }

    /// How many servers it is.
    pub fn count(&self) -> usize {
        1 + usize::from(self.other.is_some())
    }

    /// Has the first use of a token noted, which is not part of what the tests count.
    async fn known(&self, caller: &Caller) {
        for _ in 0..self.count() {
            caller.get("/v1/token-status").await;
        }
    }

    /// Adds a user and returns them, with a token that may do everything that they may. Quota in bytes, 0 for unlimited.
    pub async fn user(&self, name: &str, quota: u64) -> Caller {
        let body = json!({ "name": name, "quota": quota });
        self.admin.post("/api/users", body).await.ok();
        self.token(name, json!({ "name": "test" })).await
    }

    /// Creates a token for a user, with the body that the API takes.
    pub async fn token(&self, user: &str, body: Value) -> Caller {
        let made = self.admin.post(&format!("/api/users/{user}/tokens"), body).await.ok();
        let caller = Caller::new(&self.url, Some(made["data"]["token"].as_str().unwrap().to_owned()));
        self.known(&caller).await;
        caller
    }

    /// Sweeps as if all time had passed, and checks that every account is the sum of its charges.
    pub async fn sweep_all(&self) -> Value {
        let swept = self.admin.post("/api/sweep", json!({ "now": true })).await.ok();
        assert_eq!(swept["data"]["wrong_accounts"], json!([]));
        backlinks::agree(&self.local.app.table).await;
        swept["data"].clone()
    }

    /// Waits until a search finds everything that was changed before.
    pub async fn followed(&self) {
        shared::service::outbox::follow(&self.local.app).await.unwrap();
    }

    /// Used and reserved bytes of a user's entity.
    pub async fn quota(&self, name: &str) -> (u64, u64) {
        let users = self.admin.get("/api/users").await.ok();
        let user = users["data"].as_array().unwrap().iter().find(|user| user["name"] == name).unwrap().clone();
        (user["used"].as_u64().unwrap(), user["reserved"].as_u64().unwrap())
    }

    /// The names of all objects in the bucket.
    pub async fn objects(&self) -> Vec<String> {
        let objects = self.local.app.objects.list(None).await.unwrap();
        objects.into_iter().map(|listed| listed.object).filter(|object| object != INSTALLATION).collect()
    }
}

/// A balancer, which gives each request to another one of some servers than the request before.
fn in_turn(servers: [Router; 2]) -> Router {
    let next = Arc::new(AtomicUsize::new(0));
    Router::new().fallback(move |request: Request| {
        let server = servers[next.fetch_add(1, Ordering::Relaxed) % servers.len()].clone();
        async move { server.oneshot(request).await.unwrap() }
    })
}

/// Reports to the tests, in extra headers, how often a request read and wrote the table.
async fn counted(mut response: axum::response::Response) -> axum::response::Response {
    if let Some(Summary { reads, writes, cause, .. }) = response.extensions().get::<Summary>().cloned() {
        // Shown when a test fails.
        cause.inspect(|cause| eprintln!("{}: {cause}", response.status()));
        response.headers_mut().insert("x-test-reads", reads.into());
        response.headers_mut().insert("x-test-writes", writes.into());
    }
    response
}

/// A caller who sends requests.
#[derive(Debug, Clone)]
pub struct Caller {
    client: Client,
    url: String,
    /// The caller's token.
    pub token: Option<String>,
}

/// An answer, read to the end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub bytes: Vec<u8>,
    /// The body, if it is JSON.
    pub json: Value,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, String::from_utf8_lossy(&self.bytes));
        self.json
    }

    /// Checks the status and the form of a library error, and returns its message.
    #[track_caller]
    pub fn error(self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.bytes));
        assert_eq!(self.json["error"]["code"], json!(status));
        self.json["error"]["message"].as_str().unwrap().to_owned()
    }

    /// How many reads and writes of the table it took.
    #[track_caller]
    pub fn cost(&self) -> (u32, u32) {
        let number = |name| self.header(name).unwrap().parse().unwrap();
        (number("x-test-reads"), number("x-test-writes"))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Caller {
    /// A caller with a token, or without. Follows no redirects.
    pub fn new(url: &str, token: Option<String>) -> Self {
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { client, url: url.to_owned(), token }
    }

    /// The same with another token.
    #[must_use]
    pub fn with(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// A request to a path of the server, or to a whole URL, with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.bare(method, path);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// A request without the token.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        self.client.request(method, url)
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    /// `POST` of JSON without a content type, as the clients do.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).body(body.to_string())).await
    }

    /// `PUT` of JSON without a content type, as the clients do.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::PUT, path).body(body.to_string())).await
    }

    /// Creates what is missing of entity, collection and container, as a push does, and returns the container's id.
    pub async fn container(&self, path: &str) -> String {
        let parts: Vec<&str> = path.split('/').collect();
        let [entity, collection, name] = parts[..] else { panic!("{path}") };
        let id = |answer: Value| answer["data"]["id"].as_str().unwrap().to_owned();
        let entity = id(self.post("/v1/entities", json!({ "name": entity })).await.ok());
        let body = json!({ "name": collection, "entity": entity });
        let collection = id(self.post("/v1/collections", body).await.ok());
        id(self.post("/v1/containers", json!({ "name": name, "collection": collection })).await.ok())
    }

    /// Creates an image in the container with that id, and returns what the server says of it.
    pub async fn image(&self, container: &str, bytes: &[u8]) -> Value {
        let hash = Digest::of(bytes).library();
        self.post("/v1/images", json!({ "hash": hash, "container": container })).await.ok()["data"].clone()
    }

    /// Pushes an image in one `PUT`, as clients with SHA-256 do, and tags it. Returns the answer to the first request
    /// that is refused, or else to the last.
    pub async fn push(&self, path: &str, tag: &str, arch: &str, bytes: &[u8]) -> Answer {
        let container = self.container(path).await;
        let image = self.image(&container, bytes).await;
        let id = image["id"].as_str().unwrap();
        if image["uploaded"] == json!(false) {
            let opened = self.open(id, bytes).await;
            if !opened.status.is_success() {
                return opened;
            }
            let url = opened.json["data"]["uploadURL"].as_str().unwrap().to_owned();
            let sent = self.upload(&url, bytes).await;
            if !sent.status.is_success() {
                return sent;
            }
            let done = self.put(&format!("/v2/imagefile/{id}/_complete"), json!({})).await;
            if !done.status.is_success() {
                return done;
            }
        }
        let body = json!({ "Arch": arch, "Tag": tag, "ImageID": id });
        self.post(&format!("/v2/tags/{container}"), body).await
    }

    /// Opens the single upload of an image.
    pub async fn open(&self, image: &str, bytes: &[u8]) -> Answer {
        let body = json!({ "filesize": bytes.len(), "md5sum": "", "sha256sum": Digest::of(bytes).hex() });
        self.post(&format!("/v2/imagefile/{image}"), body).await
    }

    /// Sends bytes to a presigned URL, exactly as the clients do: with the hash only if the URL signs it, and no token.
    pub async fn upload(&self, url: &str, bytes: &[u8]) -> Answer {
        let mut request = self.bare(Method::PUT, url).header("content-type", "application/octet-stream");
        if url.contains("x-amz-content-sha256") {
            request = request.header("x-amz-content-sha256", Digest::of(bytes).hex());
        }
        send(request.body(bytes.to_vec())).await
    }

    /// Downloads an image, following redirects by hand as the clients do.
    pub async fn pull(&self, reference: &str) -> Answer {
        let answer = self.get(&format!("/v1/imagefile/{reference}")).await;
        match answer.header("location") {
            Some(url) => send(self.bare(Method::GET, url)).await,
            None => answer,
        }
    }
}

/// How often a request is sent again.
const TRIES: u32 = 5;

/// Sends a request and reads the answer to the end. An emulator on a busy machine may be so slow that a function runs out
/// of time, and then the gateway says 503; or it does not answer a call at all, and we say so. Such a request is sent again,
/// as clients do, and the test prints it. Any other 503 of ours is an answer.
pub async fn send(request: RequestBuilder) -> Answer {
    for _ in 0..TRIES {
        let Some(again) = request.try_clone().filter(|_| functions::emulated()) else { break };
        let before = functions::UNANSWERED.load(Ordering::Relaxed);
        let answer = sent(again).await;
        let unanswered = functions::UNANSWERED.load(Ordering::Relaxed) > before;
        let ours = ["error", "errors"].iter().any(|name| !answer.json[name].is_null());
        if answer.status != StatusCode::SERVICE_UNAVAILABLE || (ours && !unanswered) {
            return answer;
        }
        eprintln!("503: {}", String::from_utf8_lossy(&answer.bytes));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    sent(request).await
}

async fn sent(request: RequestBuilder) -> Answer {
    let response: Response = request.send().await.unwrap();
    let (status, headers, path) = (response.status(), response.headers().clone(), response.url().path().to_owned());
    let bytes = response.bytes().await.unwrap().to_vec();
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let file = path.starts_with("/v1/manifests/") && status.is_success();
    let library = ["/v1/", "/v2/imagefile/", "/v2/tags/"].iter().any(|prefix| path.starts_with(prefix));
    if library && !file && !bytes.is_empty() {
        assert_eq!(headers["content-type"], "application/json", "{path}");
        assert!(json.is_object(), "{path}: {}", String::from_utf8_lossy(&bytes));
        decodable(&json, &path);
        if status.is_client_error() || status.is_server_error() {
            assert_eq!(json["error"]["code"], json!(status.as_u16()), "{path}: {json}");
            assert!(json["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{path}: {json}");
        }
    }
    Answer { status, headers, bytes, json }
}

/// Whether the text is an id in the form that the oldest clients expect.
pub fn is_id(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Checks what the library's clients could not decode: they are written in Go, and strict about types.
fn decodable(json: &Value, place: &str) {
    match json {
        Value::Number(number) => assert!(number.is_u64(), "{place}: {number} is not a whole number"),
        Value::Array(items) => items.iter().for_each(|item| decodable(item, place)),
        Value::Object(fields) => {
            for (name, value) in fields {
                let place = format!("{place} {name}");
                if name.ends_with("At") {
                    // RFC 3339 with a zone, or null; never an empty string.
                    let zone = |text: &str| text.ends_with('Z') || text.ends_with("+00:00");
                    let time = |text: &str| text.len() >= 20 && zone(text) && text.as_bytes()[10] == b'T';
                    assert!(value.is_null() || value.as_str().is_some_and(time), "{place}: {value}");
                }
                let ids = match (name.as_str(), value) {
                    ("id", _) | ("entity" | "collection" | "container", Value::String(_)) => vec![value],
                    ("collections" | "containers" | "images", Value::Array(ids)) => ids.iter().collect(),
                    _ => Vec::new(),
                };
                assert!(ids.iter().all(|id| id.as_str().is_some_and(is_id)), "{place}: {value}");
                decodable(value, &place);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
