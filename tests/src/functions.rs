//! An installation on functions: the built functions behind a simulated API Gateway, on a `DynamoDB` of this process and
//! the embedded bucket; or, with `STACKROOM_UNDER=localstack`, on an emulator's, see [`crate::localstack`].
//!
//! The crate [`gateway`] simulates AWS. Here is what it does not know: the template is ours, the table is the tests' own
//! [`DynamoDb`] and the bucket the embedded one, and what the functions presign leads to the same host, below the name of the bucket, where signatures are
//! checked. An emulator hears everything as it was signed, and checks it itself.
//!
//! Beside the functions runs `stackroom ingest`, as it does in a deployment whose registry clients send more than 4 MiB at
//! once. There it has a host of its own; here it takes over on the same one, so that tests find the URLs that they know.
//!
//! `STACKROOM_FUNCTIONS` is the folder with `⟨function⟩/bootstrap`, as `cargo lambda build` leaves it; `scripts/test lambda`
//! and `scripts/test cloud` build them. With `STACKROOM_FUNCTIONS_LOG`, what they log goes to standard error.

use crate::dynamodb::{DynamoDb, INDEX, TABLE};
use crate::localstack::{ROOT, Stack};
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http;
use axum::middleware::map_response;
use axum::response::Response;
use bytes::Bytes;
use gateway::api::{Api, Settings};
use gateway::doors::{Guard, Service, door};
use gateway::lambda::{Failure, Function, Machine, Report};
use gateway::policy::{Call, Issuer, Principal};
use gateway::template::{self, Deployment, FunctionSpec};
use server::local::{BUCKET, Local};
use server::routes::TEMPLATE;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// How many calls an emulator did not answer at all.
pub static UNANSWERED: AtomicU32 = AtomicU32::new(0);

/// The region of every installation here.
const REGION: &str = "local";
/// The most instances of one function at a time: enough for races, and not too much for a small machine.
const INSTANCES: usize = 6;

/// Whether functions serve, instead of one process.
pub fn serve() -> bool {
    emulated() || std::env::var("STACKROOM_UNDER").is_ok_and(|what| what == "functions")
}

/// Whether they do so on an emulator's stores, instead of the embedded ones.
pub fn emulated() -> bool {
    std::env::var("STACKROOM_UNDER").is_ok_and(|what| what == "localstack")
}

/// Whether two servers do so in turn, on stores of somebody else.
pub fn in_turn() -> bool {
    std::env::var("STACKROOM_UNDER").is_ok_and(|what| what == "servers")
}

/// Whether servers in one process have their rows in the tests' own `DynamoDB`, instead of the embedded table.
pub fn on_dynamodb() -> bool {
    std::env::var("STACKROOM_UNDER").is_ok_and(|what| what == "dynamodb")
}

/// Whether a test can't run on another bucket than the embedded one, which it says with the reason:
/// `if only_on_our_stores("…") { return; }`.
pub fn only_on_our_stores(why: &str) -> bool {
    let other = emulated() || in_turn();
    if other {
        eprintln!("not on other stores: {why}");
    }
    other
}

/// Whether a test can't run on another table than the embedded one, which it says with the reason:
/// `if only_on_our_table("…") { return; }`.
pub fn only_on_our_table(why: &str) -> bool {
    let other = serve() || in_turn() || on_dynamodb();
    if other {
        eprintln!("not on another table: {why}");
    }
    other
}

/// Whether a test can't run on functions, which it says with the reason: `if only_in_one_process("…") { return; }`.
pub fn only_in_one_process(why: &str) -> bool {
    if serve() {
        eprintln!("not on functions: {why}");
    }
    serve()
}

/// Whether a test can't run on two servers, which it says with the reason: `if only_on_one_server("…") { return; }`.
pub fn only_on_one_server(why: &str) -> bool {
    if in_turn() {
        eprintln!("not on two servers: {why}");
    }
    in_turn()
}

/// The folder of the built functions.
fn folder() -> PathBuf {
    std::env::var_os("STACKROOM_FUNCTIONS").expect("STACKROOM_FUNCTIONS: where the built functions are").into()
}

/// The ARN of the secret with the token keys.
const SECRET: &str = "arn:aws:secretsmanager:local:000000000000:secret:keys-abcdef";

/// The token keys, as Secrets Manager has them.
#[derive(Debug)]
pub struct Secret {
    /// The lines.
    pub keys: String,
    /// How often they were asked for.
    pub asked: u32,
}

/// The functions of the template, for an installation.
pub fn specs(public_url: &str) -> Vec<FunctionSpec> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let deployment = Deployment {
        region: REGION.to_owned(),
        parameters: BTreeMap::from([pair("PublicUrl", public_url), pair("TokenKeysSecret", SECRET)]),
        names: BTreeMap::from([pair("Table", TABLE), pair("Index", INDEX), pair("Bucket", BUCKET)]),
        ..Deployment::default()
    };
    template::functions(TEMPLATE, &deployment).unwrap()
}

/// The functions of an installation, and what leads to them.
#[derive(Debug)]
pub struct Functions {
    /// The functions by their logical ids.
    pub functions: BTreeMap<String, Function>,
    /// Who may come in to the stores, and what goes wrong on purpose.
    pub guard: Guard,
    /// Where they read the token keys.
    pub secret: Arc<Mutex<Secret>>,
    serving: Vec<JoinHandle<()>>,
}

impl Drop for Functions {
    fn drop(&mut self) {
        for serving in &self.serving {
            serving.abort();
        }
        // A permission that is missing must not hide behind a status that a test expects.
        assert!(std::thread::panicking() || self.denied().is_empty(), "{:?}", self.denied());
    }
}

impl Functions {
    /// What the functions themselves asked for, and were not allowed.
    pub fn denied(&self) -> Vec<String> {
        let denials = self.guard.principals.denials().into_iter().filter(|denial| !denial.presigned);
        denials.map(|denial| format!("{}: {}", denial.function, denial.need)).collect()
    }

    /// Deploys the functions on the stores of an installation, with an API on the listener of its public URL. Settings
    /// are put over the variables of the template.
    pub async fn start(local: &Local, dynamodb: &DynamoDb, listener: TcpListener, settings: &[(&str, &str)]) -> Self {
        Self::with_specs(local, dynamodb, listener, settings, |_| {}).await
    }

    /// The same with a change of what the template says.
    pub async fn with_specs(
        local: &Local,
        dynamodb: &DynamoDb,
        listener: TcpListener,
        settings: &[(&str, &str)],
        change: impl Fn(&mut FunctionSpec),
    ) -> Self {
        let public_url = format!("http://{}", listener.local_addr().unwrap());
        let mut specs = specs(&public_url);
        specs.iter_mut().for_each(change);
        let guard = Guard::default();
        let table = door(Service::DynamoDb(tables(REGION)), guard.clone(), table_of(dynamodb));
        let bucket = door(Service::S3, guard.clone(), bucket_of(local));
        let own = own_objects(local);
        let doors = Doors { guard, table, bucket, name: BUCKET.to_owned(), own, signer: "stackroom", issuer: None };
        Self::behind(local, doors, specs, listener, settings).await
    }

    /// The same on an emulator's stores, which `local` has as its own.
    pub async fn on_stack(stack: &Arc<Stack>, local: &Local, listener: TcpListener, settings: &[(&str, &str)]) -> Self {
        let public_url = format!("http://{}", listener.local_addr().unwrap());
        let specs = template::functions(TEMPLATE, &stack.deployment(&public_url, SECRET)).unwrap();
        let guard = Guard::default();
        let there = passed_on(&stack.emulator.endpoint);
        let table = Service::DynamoDb(tables(crate::localstack::REGION));
        let table = door(table, guard.clone(), there.clone());
        let bucket = door(Service::S3, guard.clone(), there.clone());
        let own = Router::new().fallback(move |request: Request| {
            let there = there.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                there.send(http::Request::from_parts(parts, body)).await.map(Body::from)
            }
        });
        let (name, issuer) = (stack.name.clone(), Some(Arc::clone(stack) as Arc<dyn Issuer>));
        let doors = Doors { guard, table, bucket, name, own, signer: ROOT, issuer };
        let pins = local.app.config.pin_uploads.to_string();
        let settings = [settings, &[("STACKROOM_PIN_UPLOADS", pins.as_str())]].concat();
        Self::behind(local, doors, specs, listener, &settings).await
    }

    async fn behind(
        local: &Local,
        doors: Doors,
        specs: Vec<FunctionSpec>,
        listener: TcpListener,
        settings: &[(&str, &str)],
    ) -> Self {
        let Doors { guard, table, bucket, name, own, signer, issuer } = doors;
        let kept = |name: &str| std::fs::read_to_string(Path::new(&local.admin_token()).with_file_name(name)).unwrap();
        let public_url = format!("http://{}", listener.local_addr().unwrap());
        let secret = Arc::new(Mutex::new(Secret { keys: kept("keys"), asked: 0 }));
        let (table, one) = gateway::serve(table).await.unwrap();
        let (objects, other) = gateway::serve(bucket.clone()).await.unwrap();
        let secrets = door(Service::SecretsManager, guard.clone(), secrets_of(&secret));
        let (secrets, third) = gateway::serve(secrets).await.unwrap();
        let mut environment = BTreeMap::from([
            ("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), format!("http://{table}")),
            ("AWS_ENDPOINT_URL_S3".to_owned(), format!("http://{objects}")),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), format!("http://{secrets}")),
            ("STACKROOM_S3_PUBLIC_URL".to_owned(), public_url),
            ("STACKROOM_LOG".to_owned(), "error".to_owned()),
        ]);
        environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (principals, faults) = (Arc::clone(&guard.principals), Arc::clone(&guard.faults));
        let told = |line: &str| {
            if std::env::var_os("STACKROOM_FUNCTIONS_LOG").is_some() {
                eprintln!("{line}");
            }
        };
        let machine = Machine { folder: folder(), environment, instances: INSTANCES, principals, issuer, faults, told };
        let functions: BTreeMap<String, Function> =
            specs.into_iter().map(|spec| (spec.id.clone(), Function::new(spec, machine.clone()))).collect();

        // The tests name other addresses in the header that one process takes from a proxy.
        let source_header = Some(http::HeaderName::from_static("x-forwarded-for"));
        let api = Api::new(functions.values(), Settings { source_header, ..Settings::default() });
        let api = Arc::new(api.unwrap());
        let ingest = oci::ingest(local.app.clone());
        let around = |api: Router| {
            let api = api.layer(map_response(counted));
            let behind = Behind { api, bucket, name, own, signer, ingest: ingest.into() };
            Router::new().fallback(move |request: Request| behind.clone().answer(request))
        };
        let serving = vec![one, other, third, gateway::serve_api(listener, api, around)];
        Self { functions, guard, secret, serving }
    }
}

/// What the ARNs of tables begin with.
fn tables(region: &str) -> String {
    format!("arn:aws:dynamodb:{region}:000000000000:table/")
}

/// The doors of the stores of an installation.
struct Doors {
    guard: Guard,
    table: Router,
    bucket: Router,
    /// The name of the bucket.
    name: String,
    /// The bucket, for what this process signed.
    own: Router,
    /// The key id with which it does.
    signer: &'static str,
    issuer: Option<Arc<dyn Issuer>>,
}

/// What answers on the host of an installation.
#[derive(Clone)]
struct Behind {
    api: Router,
    /// The door of the bucket.
    bucket: Router,
    /// The name of the bucket.
    name: String,
    /// The bucket, for what this process signed.
    own: Router,
    signer: &'static str,
    ingest: Router,
}

impl Behind {
    async fn answer(self, request: Request) -> Response {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let bucket = path.strip_prefix('/').and_then(|path| path.strip_prefix(self.name.as_str()));
        let router = if bucket.is_some_and(|rest| rest.starts_with('/')) {
            let signer = format!("X-Amz-Credential={}%2F", self.signer);
            let ours = query.contains(&signer) || !query.contains("X-Amz-");
            if ours { self.own } else { self.bucket }
        } else if too_large(&request) {
            self.ingest
        } else {
            self.api
        };
        router.oneshot(request).await.unwrap()
    }
}

/// Whether a request brings bytes of a blob, and more of them than a function takes, or it does not say how many.
fn too_large(request: &Request) -> bool {
    let brings = *request.method() == http::Method::PATCH || *request.method() == http::Method::PUT;
    let length = request.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let chunked = request.headers().contains_key("transfer-encoding");
    brings
        && request.uri().path().contains("/blobs/uploads/")
        && (chunked || length.is_some_and(|length| length > 4 << 20))
}

/// Secrets Manager with one secret, behind its door.
fn secrets_of(secret: &Arc<Mutex<Secret>>) -> impl gateway::doors::Upstream {
    let secret = Arc::clone(secret);
    move |request: http::Request<Bytes>, _: Arc<Principal>| {
        let secret = Arc::clone(&secret);
        async move {
            assert_eq!(request.body(), &format!(r#"{{"SecretId":"{SECRET}"}}"#));
            let mut secret = secret.lock().unwrap();
            secret.asked += 1;
            http::Response::new(serde_json::json!({ "SecretString": secret.keys }).to_string().into())
        }
    }
}

/// An emulator, which hears what it is asked as it was signed.
#[derive(Clone)]
struct PassedOn {
    client: reqwest::Client,
    endpoint: String,
}

fn passed_on(endpoint: &str) -> PassedOn {
    // An emulator closes connections that are idle for some seconds, perhaps just when the next request goes out.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let client = client.pool_idle_timeout(Duration::from_millis(500)).build().unwrap();
    PassedOn { client, endpoint: endpoint.to_owned() }
}

impl PassedOn {
    async fn send(&self, request: http::Request<Bytes>) -> http::Response<Bytes> {
        let (parts, body) = request.into_parts();
        let url = format!("{}{}", self.endpoint, parts.uri);
        let sent = self.client.request(parts.method, url).headers(parts.headers).body(body).send().await;
        let answer = match sent {
            Ok(answer) => answer,
            // An emulator that is gone looks like a store that is.
            Err(error) => {
                UNANSWERED.fetch_add(1, Ordering::Relaxed);
                eprintln!("the emulator does not answer: {error:?}");
                return http::Response::builder().status(http::StatusCode::BAD_GATEWAY).body(Bytes::new()).unwrap();
            }
        };
        let mut response = http::Response::new(Bytes::new());
        (*response.status_mut(), *response.headers_mut()) = (answer.status(), answer.headers().clone());
        // The whole body is here.
        response.headers_mut().remove(http::header::TRANSFER_ENCODING);
        response.headers_mut().remove(http::header::CONNECTION);
        match answer.bytes().await {
            Ok(body) => response.map(|_| body),
            Err(_) => http::Response::builder().status(http::StatusCode::BAD_GATEWAY).body(Bytes::new()).unwrap(),
        }
    }
}

impl gateway::doors::Upstream for PassedOn {
    async fn answer(&self, request: http::Request<Bytes>, _: Arc<Principal>) -> http::Response<Bytes> {
        self.send(request).await
    }
}

/// The tests' own `DynamoDB`, behind its door.
fn table_of(dynamodb: &DynamoDb) -> impl gateway::doors::Upstream {
    let table = dynamodb.clone();
    move |request: http::Request<Bytes>, _: Arc<Principal>| {
        let table = table.clone();
        async move { from_sdk(table.call(for_sdk(request)).await.unwrap()).await }
    }
}

/// The embedded bucket, behind its door: the signature of a URL is checked with the key of its signer.
fn bucket_of(local: &Local) -> impl gateway::doors::Upstream {
    let objects = local.objects.clone();
    move |request: http::Request<Bytes>, caller: Arc<Principal>| {
        let objects = objects.clone();
        async move {
            // A URL without a signature is no request of the SDK, either.
            if request.uri().query().is_some_and(|query| query.contains("X-Amz-Credential=")) {
                let face = objects.face_for(caller.access_key_id.clone(), caller.secret_access_key.clone());
                let (parts, body) = face.call(request.map(Body::from)).await.into_parts();
                let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.unwrap();
                return http::Response::from_parts(parts, body);
            }
            from_sdk(objects.call(for_sdk(request)).await.unwrap()).await
        }
    }
}

/// The store, for what this process signed.
fn own_objects(local: &Local) -> Router {
    let face = local.objects.face();
    Router::new().fallback(move |request: Request| {
        let face = face.clone();
        async move { face.call(request).await.map(Body::new) }
    })
}

fn for_sdk(request: http::Request<Bytes>) -> HttpRequest {
    HttpRequest::try_from(request.map(SdkBody::from)).unwrap()
}

async fn from_sdk(response: HttpResponse) -> http::Response<Bytes> {
    let (parts, body) = response.try_into_http1x().unwrap().into_parts();
    let bytes = ByteStream::new(body).collect().await.unwrap().into_bytes();
    http::Response::from_parts(parts, bytes)
}

/// Reports to the tests, in the same headers as one process does, how often a request read and wrote the table: as the
/// table's door saw it.
async fn counted(mut response: Response) -> Response {
    // It differs each time, and tests compare answers.
    response.headers_mut().remove("apigw-requestid");
    if let Some(Report { calls, .. }) = response.extensions().get::<Report>().cloned() {
        let count = |operations: &[&str]| {
            calls.iter().filter(|Call { operation, .. }| operations.contains(&&**operation)).count()
        };
        response.headers_mut().insert("x-test-reads", count(&["GetItem", "BatchGetItem", "Query", "Scan"]).into());
        response.headers_mut().insert("x-test-writes", count(&["TransactWriteItems"]).into());
        for Call { needs, .. } in calls.iter().filter(|call| call.denied) {
            eprintln!("denied: {needs:?}");
        }
    }
    if let Some(failure) = response.extensions().get::<Arc<Failure>>() {
        // Shown when a test fails.
        eprintln!("{}: {failure}", response.status());
    }
    told(response)
}

/// Where the log is wanted, it has every error of a server, also one that no function knows of.
pub fn told(response: Response) -> Response {
    if response.status().is_server_error() && std::env::var_os("STACKROOM_FUNCTIONS_LOG").is_some() {
        eprintln!(r#"{{"status":{}}}"#, response.status().as_u16());
    }
    response
}
