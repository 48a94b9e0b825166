//! A `DynamoDB` of the tests: the `dynoxide` library over one `SQLite` file. Functions use it through the SDK, as they use
//! AWS's; and where a server uses it in one process, everything runs on the other side of the seam, which is otherwise
//! tested on the table of our own.
//!
//! One connection writes. Its commits run on the blocking threads, one at a time, since the library has a single mutex.
//! Reads have connections of their own on the same file, and see every commit that was acknowledged before they began.
//!
//! Reads give the same guarantees as `DynamoDB`: one item is consistent, a batch or a query is not a snapshot.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use dynoxide::actions::transact_write_items::TransactWriteItemsRequest;
use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use server::local::Layer;
use shared::store::Table;
use shared::store::table::backend::Backend;
use shared::store::table::dynamodb;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The name of the library's own table.
pub const TABLE: &str = "stackroom";
/// The name of the table of the search index.
pub const INDEX: &str = "stackroom-index";

/// A local `DynamoDB`. Clones are the same.
#[derive(Clone)]
pub struct DynamoDb(Arc<Inner>);

struct Inner {
    writer: Database,
    readers: Vec<Database>,
    turn: AtomicUsize,
}

impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DynamoDb")
    }
}

impl DynamoDb {
    /// Opens the file at `path`, or creates it, with the tables in it.
    pub async fn open(path: &Path) -> Self {
        let name = path.to_str().unwrap();
        // The writer comes first: opening is what brings the file's layout up to date.
        let writer = Database::new(name).unwrap();
        let readers = (0..3).map(|_| Database::new(name).unwrap()).collect();
        let made = Self(Arc::new(Inner { writer, readers, turn: AtomicUsize::new(0) }));
        made.table(&server::local::Nothing).create().await.unwrap();
        made.index(&server::local::Nothing).create().await.unwrap();
        made
    }

    /// The SDK's client of it, through a layer.
    fn client(&self, layer: &dyn Layer) -> Client {
        let own = SharedHttpConnector::new(self.clone());
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("local"))
            .endpoint_url("http://table.invalid")
            .credentials_provider(Credentials::new("tests", "tests", None, None, "tests"))
            .retry_config(RetryConfig::disabled())
            .http_client(layer.dynamodb(http_client_fn(move |_, _| own.clone())));
        Client::from_conf(config.build())
    }

    /// Its table, through a layer.
    pub fn table(&self, layer: &dyn Layer) -> Table {
        Table::on(self.rows(layer)).in_pages_of(128)
    }

    /// The search index, through a layer.
    pub fn index(&self, layer: &dyn Layer) -> Table {
        Table::on(layer.index(Arc::new(dynamodb::DynamoDb::new(self.client(layer), INDEX.to_owned())))).in_pages_of(128)
    }

    /// What keeps its rows, through a layer.
    pub fn rows(&self, layer: &dyn Layer) -> Arc<dyn Backend> {
        layer.rows(Arc::new(dynamodb::DynamoDb::new(self.client(layer), TABLE.to_owned())))
    }

    /// Answers one request as the client does: for listeners, so that other processes can use it. It trusts its caller, and
    /// checks no signature.
    pub async fn call(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        self.0.answer(request).await
    }
}

impl HttpConnector for DynamoDb {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let inner = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move { inner.answer(request).await })
    }
}

impl Inner {
    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let operation = request
            .headers()
            .get("x-amz-target")
            .and_then(|target| target.strip_prefix("DynamoDB_20120810."))
            .unwrap_or_default()
            .to_owned();
        let body = request.into_body();
        let database = match operation.as_str() {
            // A page of these takes microseconds, less than a thread switch costs.
            "GetItem" | "BatchGetItem" | "Query" => return run(self.reader(), &operation, &body),
            "Scan" => self.reader().clone(),
            _ => self.writer.clone(),
        };
        // What was started runs to its end even if the caller goes away: it is on a thread of its own, and a write is one
        // transaction either way.
        let answered = tokio::task::spawn_blocking(move || run(&database, &operation, &body)).await;
        answered.map_err(|error| ConnectorError::other(error.into(), None))?
    }

    fn reader(&self) -> &Database {
        &self.readers[self.turn.fetch_add(1, Ordering::Relaxed) % self.readers.len()]
    }
}

fn run(database: &Database, operation: &str, body: &SdkBody) -> Result<HttpResponse, ConnectorError> {
    let body = body.bytes().unwrap_or_default();
    match dispatch(database, operation, body) {
        Ok(json) => respond(200, json),
        Err(error) => {
            if error.status_code() >= 500 {
                eprintln!("{operation}: {error}");
            }
            respond(error.status_code(), error.to_json())
        }
    }
}

fn respond(status: u16, json: String) -> Result<HttpResponse, ConnectorError> {
    let status = status.try_into().map_err(|error| ConnectorError::other(Box::new(error), None))?;
    let mut response = HttpResponse::new(status, SdkBody::from(json));
    response.headers_mut().insert("content-type", "application/x-amz-json-1.0");
    Ok(response)
}

fn dispatch(db: &Database, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
    match operation {
        "CreateTable" => call(body, |r| db.create_table(r)),
        "DescribeTable" => call(body, |r| db.describe_table(r)),
        "GetItem" => call(body, |r| db.get_item(r)),
        "BatchGetItem" => call(body, |r| db.batch_get_item(r)),
        "BatchWriteItem" => call(body, |r| db.batch_write_item(r)),
        "PutItem" => call(body, |r| db.put_item(r)),
        "UpdateItem" => call(body, |r| db.update_item(r)),
        "DeleteItem" => call(body, |r| db.delete_item(r)),
        "Query" => call(body, |r| db.query(r)),
        "Scan" => call(body, |r| db.scan(r)),
        "TransactGetItems" => call(body, |r| db.transact_get_items(r)),
        "TransactWriteItems" => call(body, |mut request: TransactWriteItemsRequest| {
            // It protects from an answer that is lost on the way, and there is no way here. The library would keep it
            // for ten minutes, and look through all that it keeps at each commit.
            request.client_request_token = None;
            db.transact_write_items(request)
        }),
        other => Err(DynoxideError::ValidationException(format!("This table has no operation {other:?}"))),
    }
}

fn call<I: DeserializeOwned, O: Serialize>(
    body: &[u8],
    operation: impl FnOnce(I) -> Result<O, DynoxideError>,
) -> Result<String, DynoxideError> {
    let request = serde_json::from_slice(body).map_err(|error| {
        // The library's own deserializers put a prefix on their messages that says which class of error they mean. The
        // SDK sends well-formed requests, so only validation errors can occur.
        let text = error.to_string();
        let is_mark = |mark: &str| mark.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        let text = match text.split_once(':') {
            Some((mark, rest)) if is_mark(mark) => rest.to_owned(),
            _ => text,
        };
        DynoxideError::ValidationException(text)
    })?;
    let response = operation(request)?;
    serde_json::to_string(&response).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}
