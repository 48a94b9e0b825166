//! The OCI registry: `/v2/` as the distribution specification 1.1 defines it, on the same repositories as the library.

mod range;
mod route;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use futures::{StreamExt, TryStreamExt, stream};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use range::Wanted;
use route::Route;
use shared::auth::Credential;
use shared::domain::manifest::{MAX, OCI_INDEX, implied};
use shared::domain::quota::{Level, Quota};
use shared::domain::{ManifestId, OciDigest, Repository, TagName, UploadId};
use shared::http::library::{self, Failure};
use shared::http::registry::{plain, refusal};
use shared::http::{Routes, authorization};
use shared::service::artifact;
use shared::service::people::login;
use shared::service::registry::blob;
use shared::service::registry::list::{self, Listed, Referring};
use shared::service::registry::parse::NewManifest;
use shared::service::registry::pull::{self, Reference};
use shared::service::registry::start::{self, Mount, Started, UploadSession};
use shared::service::registry::upload::{self, Chunk, UploadRight};
use shared::service::registry::{Code, Refused, push, remove};
use shared::store::rows::Named;
use shared::{App, Error, telemetry};
use std::fmt::Write;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

/// The routes.
pub fn router(app: &App) -> Routes {
    shared::http::finish_honouring(plain, honoured, routes().split_for_parts().0.with_state(app.clone()))
}

/// The keys that narrow something and that a request honours: a new upload may ask for a private repository.
fn honoured(method: &Method, path: &str) -> &'static [&'static str] {
    let uploads = path.trim_end_matches('/').ends_with("/blobs/uploads");
    if *method == Method::POST && uploads { &[PRIVATE] } else { &[] }
}

/// The routes of a host that only accepts blob uploads. The other hosts hand out its URLs.
pub fn ingest(app: App) -> Routes {
    let routes = Router::new()
        .route("/livez", axum::routing::get(|| async { "ok\n" }))
        .route("/v2/{*path}", axum::routing::any(ingest_only));
    shared::http::finish_as(plain, routes.with_state(app))
}

async fn ingest_only(State(app): State<App>, request: Request) -> Response {
    match Route::read(&app.config.defaults, request.uri().path()) {
        Ok(Route::Upload(..)) => answer(app, request).await,
        // Never a challenge: clients can't log in here.
        _ => plain(StatusCode::NOT_FOUND, "this host only accepts bytes of uploads that were opened on another host"),
    }
}

/// The `OpenAPI` description of the routes.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<App> {
    let registry = routes!(fetch, look, open_upload, put, send, remove);
    let router = OpenApiRouter::new().routes(routes!(base)).routes(routes!(base_bare)).routes(registry);
    // A route of the library, whose errors have the library's form.
    let refused = || async { library::plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed") };
    router.routes(routes!(manifest_file).map(|route| route.fallback(refused)))
}

/// How many manifests are read at a time.
static BODIES: Semaphore = Semaphore::const_new(16);
/// A manifest that arrives within this time came together with its request.
const AT_ONCE: Duration = Duration::from_millis(500);

/// The key with which a push asks for a private repository.
const PRIVATE: &str = "private";
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD: HeaderName = HeaderName::from_static("docker-upload-uuid");
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));

/// Whether there is a registry, and whether the caller is logged in. Clients start here: a 401 says where to log in.
#[utoipa::path(
    get,
    path = "/v2/",
    tag = "registry",
    responses((status = 200), (status = 401, description = "With the challenge that says where to log in")),
)]
async fn base(State(app): State<App>, request: Request) -> Response {
    answer(app, request).await
}

/// The same without the slash.
#[utoipa::path(get, path = "/v2", tag = "registry", responses((status = 200), (status = 401)))]
async fn base_bare(State(app): State<App>, request: Request) -> Response {
    answer(app, request).await
}

/// Fetches a manifest or blob, lists tags, referrers or repositories, or asks for the progress of an upload.
#[utoipa::path(
    get,
    path = "/v2/{*path}",
    tag = "registry",
    params(("path" = String, Path, description = "As the OCI distribution specification defines it")),
    responses((status = 200), (status = 204), (status = 206), (status = 307), (status = 404), (status = 416)),
)]
async fn fetch(State(app): State<App>, request: Request) -> Response {
    answer(app, request).await
}

/// Checks whether a manifest or blob exists.
#[utoipa::path(
    head,
    path = "/v2/{*path}",
    tag = "registry",
    params(("path" = String, Path, description = "As the OCI distribution specification defines it")),
    responses((status = 200), (status = 404)),
)]
async fn look(State(app): State<App>, request: Request) -> Response {
    answer(app, request).await
}

/// Opens the upload of a blob, mounts one, or uploads a small one whole.
#[utoipa::path(
    post,
    path = "/v2/{*path}",
    tag = "registry",
    params(("path" = String, Path, description = "As the OCI distribution specification defines it")),
    responses((status = 201), (status = 202), (status = 404)),
)]
async fn open_upload(State(app): State<App>, request: Request) -> Response {
    answer(app, request).await
}

/// Pushes a manifest, or completes the upload of a blob.
#[utoipa::path(
    put,
    path = "/v2/{*path}",
    tag = "registry",
    params(("path" = String, Path, description = "As the OCI distribution specification defines it")),
    responses((status = 201), (status = 404), (status = 416)),
)]
async fn put(State(app): State<App>, request: Request) -> Response {
    answer(app, request).await
}

/// Uploads bytes of a blob.
#[utoipa::path(
    patch,
    path = "/v2/{*path}",
    tag = "registry",
    params(("path" = String, Path, description = "As the OCI distribution specification defines it")),
    responses((status = 202), (status = 404), (status = 416)),
)]
async fn send(State(app): State<App>, request: Request) -> Response {
    answer(app, request).await
}

/// Removes a manifest, tag or blob, or cancels an upload.
#[utoipa::path(
    delete,
    path = "/v2/{*path}",
    tag = "registry",
    params(("path" = String, Path, description = "As the OCI distribution specification defines it")),
    responses((status = 202), (status = 204), (status = 404), (status = 405)),
)]
async fn remove(State(app): State<App>, request: Request) -> Response {
    answer(app, request).await
}

async fn answer(app: App, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let route = Route::read(&app.config.defaults, parts.uri.path());
    let scope = route.as_ref().ok().and_then(|route| route.scope(&parts.method));
    let method = parts.method.clone();
    let uploading = matches!(route, Ok(Route::Upload(..)));
    let served = match route {
        Ok(route) => Box::pin(serve(&app, route, parts, body)).await,
        // For reads, a name that can't be a tag simply names nothing.
        Err(Refused::Code(Code::ManifestInvalid, why)) if matches!(method, Method::GET | Method::HEAD) => {
            Err(Refused::Code(Code::ManifestUnknown, why))
        }
        Err(refused) => Err(refused),
    };
    let mut response = served.unwrap_or_else(|refused| refusal(&app, &refused, scope.as_deref()));
    if uploading && response.status() == StatusCode::UNAUTHORIZED {
        // The URL is the only permission: logging in again would not help, but would cost gigabytes.
        response = plain(StatusCode::FORBIDDEN, "the user who opened this upload may no longer send bytes to it");
    }
    response.headers_mut().insert(VERSION.0, VERSION.1);
    response
}

type Answer = Result<Response, Refused>;

async fn serve(app: &App, route: Route, parts: Parts, body: Body) -> Answer {
    let head = parts.method == Method::HEAD;
    let method = parts.method.clone();
    if let Route::Upload(repository, id) = route {
        return upload(app, &repository, id, parts, body).await;
    }
    let credential = login::credential(app, authorization(&parts.headers)).await?;
    match (route, method) {
        (Route::Base, _) => known(app, &parts.headers, &credential).await,
        (Route::Catalog, Method::GET) => catalog(app, &credential, &parts.uri).await,
        (Route::Tags(repository), Method::GET) => tags(app, &credential, &repository, &parts.uri).await,
        (Route::Referrers(repository, digest), Method::GET) => {
            referrers(app, &credential, &repository, &digest, &parts.uri).await
        }
        (Route::Blob(repository, digest), Method::GET | Method::HEAD) => {
            get_blob(app, &credential, &repository, &digest, &parts.headers, head).await
        }
        (Route::Blob(repository, digest), Method::DELETE) => {
            blob::remove(app, &credential, &repository, &digest).await?;
            Ok(empty(StatusCode::ACCEPTED))
        }
        (Route::Uploads(repository), Method::POST) => open(app, &credential, &repository, parts, body).await,
        (Route::Manifest(repository, reference), Method::GET | Method::HEAD) => {
            get_manifest(app, &credential, &repository, &reference, head).await
        }
        (Route::Manifest(repository, reference), Method::PUT) => {
            put_manifest(app, &credential, &repository, &reference, &parts, body).await
        }
        (Route::Manifest(repository, reference), Method::DELETE) => {
            remove::manifest(app, &credential, &repository, &reference).await?;
            Ok(empty(StatusCode::ACCEPTED))
        }
        _ => Err(Refused::Code(Code::Unsupported, "this operation is not supported here".to_owned())),
    }
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn with(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

fn body_of(kind: &'static str, bytes: impl Into<Body>) -> Response {
    let mut response = Response::new(bytes.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn query(uri: &Uri) -> Vec<(String, String)> {
    Query::<Vec<(String, String)>>::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default()
}

fn parameter(uri: &Uri, name: &str) -> Option<String> {
    query(uri).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Any token gets 200, even an anonymous one. A request without a token does not, or clients would never ask for a
/// token.
async fn known(app: &App, headers: &HeaderMap, credential: &Credential) -> Answer {
    if authorization(headers).is_none() {
        return Err(Error::Unauthenticated(shared::error::NO_TOKEN).into());
    }
    if *credential != Credential::Anonymous {
        shared::service::browse::whoami(app, credential).await?;
    }
    Ok(body_of("application/json", "{}"))
}

// ---- lists

/// The `n` of a request: the maximum number of entries.
fn most(uri: &Uri) -> Result<usize, Refused> {
    match parameter(uri, "n") {
        None => Ok(list::LONGEST_PAGE),
        Some(text) => {
            text.parse().map_err(|_| Refused::Code(Code::Unsupported, "`n` is not a whole number".to_owned()))
        }
    }
}

fn listing(path: &str, body: &impl serde::Serialize, next: Option<String>) -> Answer {
    let text = serde_json::to_string(body).map_err(|error| Error::Internal(error.to_string()))?;
    let response = body_of("application/json", text);
    Ok(match next {
        Some(rest) => with(response, header::LINK, &format!("<{path}?{rest}>; rel=\"next\"")),
        None => response,
    })
}

/// A list continues after `last`. It contains no character that a query must escape, except the slash and the colon.
fn go_on(most: usize, next: Option<String>) -> Option<String> {
    next.map(|last| format!("n={most}&last={}", last.replace(':', "%3A").replace('/', "%2F")))
}

async fn tags(app: &App, credential: &Credential, repository: &Repository, uri: &Uri) -> Answer {
    let most = most(uri)?;
    let Listed { entries, next } = list::tags(app, credential, repository, parameter(uri, "last"), most).await?;
    let body = serde_json::json!({ "name": repository, "tags": entries });
    listing(&format!("/v2/{repository}/tags/list"), &body, go_on(most, next))
}

async fn catalog(app: &App, credential: &Credential, uri: &Uri) -> Answer {
    let most = most(uri)?;
    let Listed { entries, next } = list::catalog(app, credential, parameter(uri, "last"), most).await?;
    listing("/v2/_catalog", &serde_json::json!({ "repositories": entries }), go_on(most, next))
}

async fn referrers(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
    uri: &Uri,
) -> Answer {
    let kind = parameter(uri, "artifactType").filter(|kind| !kind.is_empty());
    let last = parameter(uri, "last");
    let referring = Referring { subject: digest, artifact_type: kind.as_deref(), last };
    let Listed { entries, next } = list::referrers(app, credential, repository, referring).await?;
    // The descriptors are documents already, and stay as they are.
    let manifests = entries.join(",");
    let body = format!("{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[{manifests}]}}");
    let mut response = body_of(OCI_INDEX, body);
    if let Some(last) = next {
        let kind = kind.as_deref().map(|kind| format!("&artifactType={}", escaped(kind))).unwrap_or_default();
        let link = format!("</v2/{repository}/referrers/{digest}?last={}{kind}>; rel=\"next\"", escaped(&last));
        response = with(response, header::LINK, &link);
    }
    Ok(if kind.is_some() {
        with(response, HeaderName::from_static("oci-filters-applied"), "artifactType")
    } else {
        response
    })
}

/// A value of a query.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

// ---- manifests

fn described(named: &Named, body: Body) -> Response {
    let response = Response::new(body);
    let response = with(response, header::CONTENT_TYPE, &named.media_type);
    let response = with(response, header::CONTENT_LENGTH, &named.size.to_string());
    with(response, DIGEST, &named.digest.to_string())
}

async fn get_manifest(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    reference: &Reference,
    head: bool,
) -> Answer {
    if head {
        return Ok(described(&pull::head(app, credential, repository, reference).await?, Body::empty()));
    }
    let (named, bytes) = pull::get(app, credential, repository, reference).await?;
    Ok(described(&named, Body::from(bytes)))
}

async fn put_manifest(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    reference: &Reference,
    parts: &Parts,
    body: Body,
) -> Answer {
    let media_type = parts.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let media_type = media_type.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let tags: Result<Vec<TagName>, _> =
        query(&parts.uri).into_iter().filter(|(name, _)| name == "tag").map(|(_, tag)| tag.parse()).collect();
    let tags = tags.map_err(|error| Refused::Code(Code::ManifestInvalid, error.to_string()))?;
    let (_turn, bytes) = manifest_body(app, credential, repository, body).await?;
    unencoded(&parts.headers)?;
    let media_type = media_type.unwrap_or_else(|| implied(&bytes));
    let asked = !tags.is_empty();
    let put = push::manifest(app, credential, repository, NewManifest { reference, tags, media_type, bytes }).await?;
    let location = format!("/v2/{repository}/manifests/{}", put.digest);
    let mut response = with(empty(StatusCode::CREATED), header::LOCATION, &location);
    response = with(response, DIGEST, &put.digest.to_string());
    if let Some(subject) = put.subject {
        response = with(response, HeaderName::from_static("oci-subject"), &subject.to_string());
    }
    if asked {
        let tags: Vec<&str> = put.tags.iter().map(TagName::as_str).collect();
        response = with(response, HeaderName::from_static("oci-tag"), &tags.join(", "));
    }
    Ok(warned(app, response, repository, put.quota))
}

/// Reads a whole manifest. Also returns a turn, which the caller must hold as long as the manifest is in memory.
///
/// Manifests of anonymous callers are never read. Only a few others are read at a time, and each has a time limit. If
/// a manifest is slow to arrive, its sender must first turn out to be allowed to push; otherwise useless tokens could
/// take all turns. A fast manifest skips that check: it costs a read of the table, and pushing the manifest checks it
/// anyway.
async fn manifest_body(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    body: Body,
) -> Result<(SemaphorePermit<'static>, Bytes), Refused> {
    if *credential == Credential::Anonymous {
        return Err(Error::Unauthenticated(shared::error::NO_TOKEN).into());
    }
    let patience = app.config.patience;
    let too_large = |_| Refused::Code(Code::TooLarge, format!("a manifest has at most {MAX} bytes"));
    let too_slow = |_| Refused::Code(Code::ManifestInvalid, "the manifest did not arrive in time".to_owned());
    let mut arriving = pin!(axum::body::to_bytes(body, MAX));
    let turn = if let Ok(turn) = BODIES.try_acquire() {
        if let Ok(bytes) = tokio::time::timeout(AT_ONCE, &mut arriving).await {
            return Ok((turn, bytes.map_err(too_large)?));
        }
        push::allowed(app, credential, repository).await?;
        turn
    } else {
        push::allowed(app, credential, repository).await?;
        let why = "too many manifests at once, try again later";
        let busy = |_| Error::Busy { why: why.to_owned(), after: AT_ONCE };
        let turn = tokio::time::timeout(patience, BODIES.acquire()).await.map_err(busy)?;
        turn.map_err(|error| Error::Internal(error.to_string()))?
    };
    let bytes = tokio::time::timeout(patience, arriving).await.map_err(too_slow)?;
    Ok((turn, bytes.map_err(too_large)?))
}

// ---- blobs

async fn get_blob(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
    headers: &HeaderMap,
    head: bool,
) -> Answer {
    let blob = if head {
        blob::look(app, credential, repository, digest).await?
    } else {
        blob::find(app, credential, repository, digest).await?
    };
    let kind = body_of("application/octet-stream", Body::empty());
    let described = with(with(kind, DIGEST, &digest.to_string()), header::ACCEPT_RANGES, "bytes");
    let wanted = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    if head {
        return Ok(with(described, header::CONTENT_LENGTH, &blob.size.to_string()));
    }
    if !app.config.serve_blobs
        && let Some(url) = blob.url(app).await?
    {
        let response = shared::http::redirect(StatusCode::TEMPORARY_REDIRECT, &url);
        return Ok(with(response, DIGEST, &digest.to_string()));
    }
    let (status, range) = match range::wanted(wanted, blob.size) {
        Wanted::Whole => (StatusCode::OK, None),
        Wanted::Some(range) => (StatusCode::PARTIAL_CONTENT, Some(range)),
        Wanted::Nothing => {
            let refused = Refused::Code(Code::Range, format!("the blob has {} bytes", blob.size));
            let response = refusal(app, &refused, None);
            return Ok(with(response, header::CONTENT_RANGE, &format!("bytes */{}", blob.size)));
        }
    };
    let length = range.as_ref().map_or(blob.size, |range| range.end - range.start);
    let mut response = with(described, header::CONTENT_LENGTH, &length.to_string());
    if let Some(range) = &range {
        let content = format!("bytes {}-{}/{}", range.start, range.end - 1, blob.size);
        response = with(response, header::CONTENT_RANGE, &content);
    }
    *response.status_mut() = status;
    if length > 0 {
        let bytes = blob.bytes(app, range).await?;
        let chunks = stream::unfold(bytes, |mut bytes| async move { bytes.next().await.map(|chunk| (chunk, bytes)) });
        *response.body_mut() = Body::from_stream(chunks);
    }
    Ok(response)
}

/// Whether a push asks for a private repository: `private=True`. A value that says neither is refused, as `private`
/// is wherever it has no meaning.
fn asks_private(uri: &Uri) -> Result<bool, Refused> {
    let mut asks = false;
    for (_, value) in query(uri).into_iter().filter(|(key, _)| key == PRIVATE) {
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => asks = true,
            "false" | "0" | "no" => {}
            _ => return Err(Error::Invalid("`private` must be `true` or `false`".to_owned()).into()),
        }
    }
    Ok(asks)
}

/// The file of a manifest with one layer, by the id that the list of a container's manifests gives it.
///
/// Clients compare the last answer's `Docker-Content-Digest`. The object store has no such header, so it is there only
/// where the server sends the bytes itself.
#[utoipa::path(
    get,
    path = "/v1/manifests/{id}/download",
    tag = "downloads",
    params(("id" = String, Path, description = "The id of a manifest")),
    responses(
        (status = 200, description = "The bytes, where the server sends them itself", content_type = "application/octet-stream"),
        (status = 206, description = "Some of them"),
        (status = 303, headers(("Location" = String, description = "A presigned URL of the bytes"))),
        (status = 404),
    ),
)]
async fn manifest_file(
    State(app): State<App>,
    credential: Credential,
    method: Method,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    // What is not an id names nothing.
    let id: ManifestId = id.parse().map_err(|_| Failure(Error::NotFound("manifest")))?;
    let file = artifact::find(&app, &credential, &id).await?;
    if let Some(url) = artifact::url(&app, &id.repository, &file).await? {
        let response = shared::http::redirect(StatusCode::SEE_OTHER, &url);
        return Ok(with(response, DIGEST, &file.digest.to_string()));
    }
    let head = method == Method::HEAD;
    match get_blob(&app, &credential, &id.repository, &file.digest, &headers, head).await {
        Ok(response) => {
            Ok(with(response, header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{}\"", file.name)))
        }
        Err(Refused::Error(error)) => Err(Failure(error)),
        Err(Refused::Code(..) | Refused::Scope) => Err(Failure(Error::NotFound("file"))),
    }
}

/// Opens an upload. With `mount`, mounts the blob instead if that is allowed; with `digest`, the body is the whole
/// blob. With `private`, the repository is made private if it is new.
async fn open(app: &App, credential: &Credential, repository: &Repository, parts: Parts, body: Body) -> Answer {
    let invalid = |error: shared::domain::digest::OciDigestError| Refused::Code(Code::DigestInvalid, error.to_string());
    let mount = match parameter(&parts.uri, "mount") {
        None => None,
        Some(digest) => {
            // A name that can't be a repository's has no blobs, so they have to be uploaded.
            let from = parameter(&parts.uri, "from").and_then(|from| app.config.defaults.repository(&from).ok());
            Some(Mount { digest: digest.parse().map_err(invalid)?, from })
        }
    };
    let wanted = mount.as_ref().map(|mount| mount.digest);
    let whole =
        parameter(&parts.uri, "digest").map(|digest| digest.parse::<OciDigest>().map_err(invalid)).transpose()?;
    let started = async {
        if asks_private(&parts.uri)? {
            start::privately(app, credential, repository).await?;
        }
        start::session(app, credential, repository, mount).await
    };
    let started = started.await;
    if let (Ok(Started::Session(opened)), Some(digest)) = (&started, whole) {
        let right = upload::right(app, repository, opened.id, &opened.ticket)?;
        return close(app, right, repository.clone(), digest, &parts.headers, body).await;
    }
    // Nothing is done with a body here. A client that sends one all the same goes on using the connection.
    if !body.is_end_stream() {
        upload::drain(body.into_data_stream().map_err(Into::into).boxed());
    }
    match started? {
        Started::Mounted(quota) => {
            let digest = wanted.ok_or(Error::Internal("mounted nothing".to_owned()))?;
            Ok(warned(app, created(app, repository, &digest), repository, Some(quota)))
        }
        Started::Session(opened) => {
            Ok(with(location(app, repository, &opened, StatusCode::ACCEPTED), header::RANGE, "0-0"))
        }
    }
}

/// The URL to which the bytes of an upload are sent.
fn location(app: &App, repository: &Repository, opened: &UploadSession, status: StatusCode) -> Response {
    let host = app.config.ingest_url.as_deref().unwrap_or_default();
    let UploadSession { id, ticket } = opened;
    let place = format!("{host}/v2/{repository}/blobs/uploads/{id}?_s={ticket}");
    with(with(empty(status), header::LOCATION, &place), UPLOAD, &id.to_string())
}

fn created(app: &App, repository: &Repository, digest: &OciDigest) -> Response {
    // Blobs may be uploaded to another host than the one they are downloaded from.
    let host = app.config.ingest_url.as_ref().map_or("", |_| app.config.public_url.as_str());
    let place = format!("{host}/v2/{repository}/blobs/{digest}");
    with(with(empty(StatusCode::CREATED), header::LOCATION, &place), DIGEST, &digest.to_string())
}

/// Checks that a body has no content encoding: clients would decode it, but digests are of the bytes that were sent.
fn unencoded(headers: &HeaderMap) -> Result<(), Refused> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    Err(Refused::Code(Code::Unsupported, "bytes must be sent without a Content-Encoding".to_owned()))
}

/// The part of an upload that a request sends.
fn chunk_of(app: &App, headers: &HeaderMap, body: Body) -> Result<Chunk, Refused> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    unencoded(headers)?;
    let range = match text(header::CONTENT_RANGE) {
        None => None,
        Some(range) => Some(
            range::of_chunk(range)
                .ok_or_else(|| Refused::Code(Code::Range, "the Content-Range is not `first-last`".to_owned()))?,
        ),
    };
    if let (Some((_, said)), Some(length)) = (range, length)
        && said != length
    {
        return Err(Refused::Code(
            Code::Range,
            format!("the Content-Range says {said} bytes, but the body has {length}"),
        ));
    }
    let longest = app.config.longest_chunk;
    if length.is_some_and(|length| length > longest) {
        let sentence = format!(
            "{} bytes at once are more than the {longest} that this address takes: its operator has to run \
             `stackroom ingest` for such blobs, or the client to send smaller chunks",
            length.unwrap_or_default()
        );
        return Err(Refused::Code(Code::TooLarge, sentence));
    }
    let body = body.into_data_stream().map_err(Into::into).boxed();
    Ok(Chunk { body, length, start: range.map(|(first, _)| first) })
}

/// Handles all requests for one upload. Its URL is the only permission needed: not all clients send their token.
async fn upload(app: &App, repository: &Repository, id: UploadId, parts: Parts, body: Body) -> Answer {
    let ticket = parameter(&parts.uri, "_s").unwrap_or_default();
    let right = upload::right(app, repository, id, &ticket)?;
    let opened = UploadSession { id, ticket };
    let progress = |taken: u64, status| {
        let response = location(app, repository, &opened, status);
        with(response, header::RANGE, &format!("0-{}", taken.saturating_sub(1)))
    };
    match parts.method {
        Method::GET | Method::HEAD => Ok(progress(upload::status(app, &right).await?, StatusCode::NO_CONTENT)),
        Method::PATCH => {
            let chunk = chunk_of(app, &parts.headers, body)?;
            let doing = (app.clone(), right);
            let done = telemetry::spawn_detached(async move { upload::append(&doing.0, &doing.1, chunk).await });
            let taken = done.await.map_err(|error| Error::Internal(error.to_string()))??;
            Ok(progress(taken, StatusCode::ACCEPTED))
        }
        Method::PUT => {
            let digest = parameter(&parts.uri, "digest").unwrap_or_default();
            let invalid =
                |error: shared::domain::digest::OciDigestError| Refused::Code(Code::DigestInvalid, error.to_string());
            let digest = digest.parse().map_err(invalid)?;
            close(app, right, repository.clone(), digest, &parts.headers, body).await
        }
        Method::DELETE => {
            upload::cancel(app, &right).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Err(Refused::Code(Code::Unsupported, "this operation is not supported here".to_owned())),
    }
}

async fn close(
    app: &App,
    right: UploadRight,
    repository: Repository,
    digest: OciDigest,
    headers: &HeaderMap,
    body: Body,
) -> Answer {
    let chunk = chunk_of(app, headers, body)?;
    let owned = app.clone();
    let done = telemetry::spawn_detached(async move { upload::close(&owned, &right, &digest, chunk).await });
    let quota = done.await.map_err(|error| Error::Internal(error.to_string()))??;
    Ok(warned(app, created(app, &repository, &digest), &repository, Some(quota)))
}

/// The response to a push with the specification's warning, if the quota is nearly used up. Clients show it to people.
fn warned(app: &App, response: Response, repository: &Repository, quota: Option<Quota>) -> Response {
    let filled = quota.filter(|quota| quota.level(app.config.policy.quota_warning) != Level::Free);
    let Some(percent) = filled.and_then(|quota| quota.percent()) else { return response };
    let entity = repository.entity();
    with(response, header::WARNING, &format!("299 - \"{entity} uses {percent} % of its quota\""))
}
