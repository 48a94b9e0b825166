//! `DynamoDB` in one `SQLite` file, behind the SDK's own client.
//!
//! One connection writes. Its commits wait for the disk (3–7 ms where the disk really syncs), so they run on the
//! blocking threads, one at a time, since the library has a single mutex. Reads must not queue behind them. They have
//! connections of their own on the same file, which `SQLite`'s WAL allows, and see every commit that was acknowledged
//! before they began. They take microseconds, and are therefore answered without a thread switch.
//!
//! Reads give the same guarantees as `DynamoDB`: one item is consistent, a batch or a query is not a snapshot.
//! `TransactGetItems` is a snapshot, and so goes to the writing connection.

use crate::connector;
use crate::rows::Rows;
use crate::{Error, FULL};
use aws_smithy_runtime_api::client::http::{HttpConnectorFuture, SharedHttpClient};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use dynoxide::actions::transact_write_items::TransactWriteItemsRequest;
use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A local `DynamoDB`. Clones share the same table file.
#[derive(Clone)]
pub struct Table {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Database,
    readers: Vec<Reader>,
    /// A connection for scans alone: a sweep reads the whole table with it, and nothing else waits for that.
    scanner: Database,
    turn: AtomicUsize,
}

/// Two connections that read: the library answers what `rows` does not understand.
struct Reader {
    rows: Rows,
    library: Database,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("readers", &self.inner.readers.len()).finish_non_exhaustive()
    }
}

impl Table {
    /// Opens the file at `path`, or creates it. It must be on a local disk: `SQLite`'s WAL shares memory between
    /// connections.
    ///
    /// Durability comes from `SQLite`'s WAL with `synchronous=FULL`, the default of the bundled build, which the
    /// library never changes outside its bulk loading, and that is never used here. Counted once with `strace`: 6334
    /// `fsync`s for about 6230 puts, checkpoints and opening included.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let name = path.to_str().ok_or_else(|| Error::Path(path.into()))?;
        crate::private_database(path)?;
        // The writer comes first: opening is what brings the file's layout up to date.
        let writer = Database::new(name)?;
        let readers = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let reader = |_| {
            let rows = Rows::open(path).map_err(DynoxideError::from)?;
            Ok::<_, Error>(Reader { rows, library: Database::new(name)? })
        };
        let readers = (0..readers).map(reader).collect::<Result<_, _>>()?;
        crate::sync_folder_of(path)?;
        let turn = AtomicUsize::new(0);
        let inner = Arc::new(Inner { writer, readers, scanner: Database::new(name)?, turn });
        Ok(Self { inner })
    }

    /// The HTTP client to give to `aws_sdk_dynamodb::Config`. Endpoint, region and credentials must be set there too,
    /// since the SDK insists, but nothing checks them.
    pub fn connector(&self) -> SharedHttpClient {
        let inner = Arc::clone(&self.inner);
        connector::client(move |request| inner.answer(request))
    }

    /// Answers one request as the client of [`Table::connector`] does: for listeners, so that other processes can use
    /// the table. It trusts its caller, and checks no signature.
    pub async fn call(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        self.inner.answer(request).await
    }
}

impl Inner {
    fn answer(self: &Arc<Self>, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request
            .headers()
            .get("x-amz-target")
            .and_then(|target| target.strip_prefix("DynamoDB_20120810."))
            .unwrap_or_default()
            .to_owned();
        let body = request.into_body();
        let database = match operation.as_str() {
            // A page of these takes microseconds, less than a thread switch costs.
            "GetItem" | "BatchGetItem" | "Query" => return HttpConnectorFuture::ready(self.read(&operation, &body)),
            "Scan" => self.scanner.clone(),
            _ => self.writer.clone(),
        };
        HttpConnectorFuture::new(async move {
            // What was started runs to its end even if the caller goes away: it is on a thread of its own, and a write
            // is one transaction either way.
            tokio::task::spawn_blocking(move || run(&database, &operation, &body))
                .await
                .map_err(|error| ConnectorError::other(error.into(), None))?
        })
    }

    fn read(&self, operation: &str, body: &SdkBody) -> Result<HttpResponse, ConnectorError> {
        let Some(Reader { rows, library }) = self.reader() else { return run(&self.writer, operation, body) };
        match rows.read(library, operation, body.bytes().unwrap_or_default()) {
            Some(json) => respond(200, json),
            None => run(library, operation, body),
        }
    }

    fn reader(&self) -> Option<&Reader> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.readers.len().max(1);
        self.readers.get(turn)
    }
}

fn run(database: &Database, operation: &str, body: &SdkBody) -> Result<HttpResponse, ConnectorError> {
    let body = body.bytes().unwrap_or_default();
    match dispatch(database, operation, body) {
        Ok(json) => respond(200, json),
        // The library passes SQLite's errors on as text.
        Err(error) if error.status_code() >= 500 && error.to_string().contains("database or disk is full") => {
            tracing::error!(operation, "the disk of the embedded table is full");
            let json = format!(r#"{{"__type":"{FULL}","message":"The disk of the table is full."}}"#);
            respond(507, json)
        }
        Err(error) => {
            if error.status_code() >= 500 {
                tracing::error!(operation, %error, "the embedded table failed");
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
        other => Err(DynoxideError::ValidationException(format!("The embedded table has no operation {other:?}"))),
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
