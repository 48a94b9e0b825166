//! S3 in a folder, behind the SDK's own client and behind presigned URLs.
//!
//! - [`files`] holds the bytes, in immutable files with random names. The write protocol is described there.
//! - [`index`] holds everything else, in one `SQLite` file whose commit is the only commit.
//! - [`body`] moves bytes in and out in chunks.
//! - [`service`] implements the S3 operations on these, for the `s3s` crate.
//! - [`handing`] leaves the sending of whole files to a proxy in front, where there is one that can.
//! - [`presign`] checks the signature of a presigned URL.
//!
//! The `ETag` of a stored object is its SHA-256, not its MD5: clients treat it as opaque, and a second hash over every
//! byte would cost more than the first. Where the sender says `UNSIGNED-PAYLOAD` there is no hash at all, and the
//! `ETag` is random: such a sender computes a hash itself.
//!
//! There are two ways in. [`Objects::connector`] is for the SDK in this process, and trusts it. [`Objects::face`] is
//! for everybody else, and accepts only presigned requests that read one object, or write one object or part.

mod body;
mod files;
mod handing;
mod index;
mod presign;
mod service;
mod turns;

pub use files::Collected;
pub use handing::keep_files;
pub use s3s::Body;

use crate::{Error, connector};
use aws_smithy_runtime_api::client::http::{HttpConnectorFuture, SharedHttpClient};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use files::Files;
use http::header::AUTHORIZATION;
use http_body_util::BodyExt;
use index::Index;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, StdError};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;

/// The minimum size of a part that is not the last one.
const MIN_PART: u64 = 5 * 1024 * 1024;
/// The largest size of one `PUT` and of one copy.
const MAX_PUT: u64 = 5 * 1024 * 1024 * 1024;
/// The largest part number.
const MAX_PARTS: usize = 10_000;

/// Who may read the object files, beside the process that keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Nobody.
    Nobody,
    /// A proxy in front, by the group of the files. It has them below this path of its own, and sends whole files itself.
    Proxy(String),
    /// Whoever may now: for those who only read what another process keeps.
    AsBefore,
}

/// Where an object store is, and who may sign for it.
#[derive(Clone)]
pub struct Config {
    /// The folder of the object files. It may be on NFS, and must be used by this store alone.
    pub folder: PathBuf,
    /// The file of the index. It must be on a local disk.
    pub index: PathBuf,
    /// The only bucket, which is also the first segment of every path.
    pub bucket: String,
    /// The region that signatures must name.
    pub region: String,
    /// The id of the key that signs presigned URLs.
    pub access_key_id: String,
    /// The key itself.
    pub secret_access_key: String,
    /// Who may read the object files.
    pub readers: Readers,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Everything but the secret key.
        f.debug_struct("Config")
            .field("folder", &self.folder)
            .field("index", &self.index)
            .field("bucket", &self.bucket)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("readers", &self.readers)
            .finish_non_exhaustive()
    }
}

/// A local S3 with one bucket. Clones are the same store.
#[derive(Clone)]
pub struct Objects {
    store: Arc<Store>,
    service: S3Service,
}

/// What the operations work on.
struct Store {
    config: Config,
    files: Arc<Files>,
    index: Index,
    /// Held by who joins the files of an object: one at a time.
    joining: Arc<Semaphore>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("config", &self.store.config).finish_non_exhaustive()
    }
}

impl Objects {
    /// Opens the store, or creates it.
    pub fn open(config: Config) -> Result<Self, Error> {
        let files = Files::open(&config.folder, &config.readers)?;
        let index = Index::open(&config.index)?;
        let store = Arc::new(Store { config, files, index, joining: Arc::new(Semaphore::new(1)) });
        let service = S3ServiceBuilder::new(service::Operations(Arc::clone(&store))).build();
        Ok(Self { store, service })
    }

    /// The HTTP client to give to `aws_sdk_s3::Config`, together with `force_path_style(true)`.
    ///
    /// Set `request_checksum_calculation(WhenRequired)` there as well: by default the SDK sends streamed bodies in the
    /// `aws-chunked` encoding, for a checksum at their end, and those are refused.
    ///
    /// It trusts its caller and checks neither signature nor host. So the client's endpoint can be the public URL of
    /// [`Objects::face`], and the URLs that it presigns are right.
    pub fn connector(&self) -> SharedHttpClient {
        let objects = self.clone();
        connector::client(move |request| {
            let objects = objects.clone();
            HttpConnectorFuture::new(async move { objects.call(request).await })
        })
    }

    /// Answers one request as the client of [`Objects::connector`] does: for listeners, so that other processes can use
    /// the store. It trusts its caller, and checks no signature.
    pub async fn call(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        answer(&self.service, request).await.map_err(|error| ConnectorError::other(error, None))
    }

    /// The handler of presigned requests, to be mounted under `/{bucket}/`.
    pub fn face(&self) -> Face {
        let Config { access_key_id, secret_access_key, .. } = &self.store.config;
        self.face_for(access_key_id.clone(), secret_access_key.clone())
    }

    /// The same for what another key signed: for listeners whose callers have keys of their own.
    pub fn face_for(&self, access_key_id: String, secret_access_key: String) -> Face {
        let config = Config { access_key_id, secret_access_key, ..self.store.config.clone() };
        Face { config: Arc::new(config), service: self.service.clone() }
    }

    /// Removes files that are older than `min_age` and that nothing names: what crashed or abandoned requests left
    /// behind. It may run at any time, alongside anything.
    ///
    /// It blocks: call it on a blocking thread. An age of an hour or more also protects the uploads of another process
    /// on the same folder.
    pub fn collect(&self, min_age: Duration) -> Result<Collected, Error> {
        let Store { files, index, .. } = &*self.store;
        if !index.sound() {
            // Rows may reappear after a restart; until then no file counts as a leftover.
            return Ok(Collected::default());
        }
        files.collect(min_age, |name| index.read(|rows| index::named(rows, name)))
    }
}

async fn answer(service: &S3Service, request: HttpRequest) -> Result<HttpResponse, StdError> {
    let request = request.try_into_http1x()?;
    let (mut parts, body) = request.into_parts();
    let head = parts.method == http::Method::HEAD;
    parts.headers.remove(AUTHORIZATION);
    let request = http::Request::from_parts(parts, Body::http_body(body));
    let (parts, body) = service.call(request).await?.into_parts();
    // HTTP says that there is no body here, but an SDK would read one.
    let body = if head { SdkBody::empty() } else { SdkBody::from_body_1_x(body) };
    Ok(HttpResponse::try_from(http::Response::from_parts(parts, body))?)
}

/// The handler of presigned requests.
#[derive(Clone)]
pub struct Face {
    config: Arc<Config>,
    service: S3Service,
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Face").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Face {
    /// Answers one request. An `Authorization` header is ignored: clients that were redirected here from the same host
    /// still send theirs.
    pub async fn call<B>(&self, request: http::Request<B>) -> http::Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        let head = request.method() == http::Method::HEAD;
        let mut response =
            self.pass(request).await.unwrap_or_else(|error| error.to_http_response().unwrap_or_else(|_| failed()));
        if head {
            *response.body_mut() = Body::empty();
        }
        response
    }

    async fn pass<B>(&self, request: http::Request<B>) -> S3Result<http::Response<Body>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        let (parts, body) = request.into_parts();
        let mut parts = presign::admit(&self.config, parts, SystemTime::now())?;
        parts.extensions.insert(Outside);
        let body = Body::http_body_unsync(body.map_err(Into::into));
        let answer = self.service.call(http::Request::from_parts(parts, body)).await;
        Ok(answer.unwrap_or_else(|_| failed()))
    }
}

/// The mark of a request that came from outside.
#[derive(Clone, Copy)]
struct Outside;

fn failed() -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// Locks a mutex, even if a holder panicked: its data is still consistent, since all changes under these locks are
/// single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |digit: u8| char::from_digit(digit.into(), 16);
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    digits.flatten().collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |at: usize| char::from(*text.as_bytes().get(at)?).to_digit(16);
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(digit(at * 2)? * 16 + digit(at * 2 + 1)?).ok()?;
    }
    Some(bytes)
}
