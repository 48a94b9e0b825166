//! The bytes of images, both ways: presigned URLs for uploads and downloads, and shub. No byte of an image passes here.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json as value;
use shared::auth::Credential;
use shared::domain::reference::ReferenceError;
use shared::domain::{Digest, Id, UploadId};
use shared::http::library::{Answer, Failure, data, json, plain};
use shared::http::{authorization, redirect};
use shared::service::pull::{self, Purpose};
use shared::service::upload::{self, Announced, AnnouncedPart, Completed};
use shared::store::objects::Part;
use shared::{App, Error};
use std::collections::HashMap;

/// The routes.
pub fn router(app: App) -> Router {
    let router = Router::new()
        .route("/v1/imagefile/{*reference}", get(download).post(legacy))
        .route("/v1/hop", get(hop))
        .route("/v2/imagefile/{image}", post(open))
        .route("/v2/imagefile/{image}/_complete", put(complete))
        .route("/v2/imagefile/{image}/_multipart", post(open_parts).put(part))
        .route("/v2/imagefile/{image}/_multipart_complete", put(complete_parts))
        .route("/v2/imagefile/{image}/_multipart_abort", put(abort))
        .route("/api/container/{collection}/{container}", get(shub_default))
        .route("/{entity}/api/container/{collection}/{container}", get(shub))
        .with_state(app);
    shared::http::finish(router)
}

fn caller(app: &App, headers: &HeaderMap) -> Result<Credential, Failure> {
    Ok(app.keys.credential(authorization(headers), app.now())?)
}

/// Whether the token came as `BEARER`, as the clients do that send it on to wherever a 303 leads.
fn shouts(headers: &HeaderMap) -> bool {
    authorization(headers).is_some_and(|text| text.starts_with("BEARER "))
}

/// 303 to the object. Clients that would send their token there, which the store refuses, get one more hop on our own
/// host, which answers every request with a 307: a token does not survive that.
async fn download(
    State(app): State<App>,
    headers: HeaderMap,
    Path(reference): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let credential = caller(&app, &headers)?;
    let not_found = |_: ReferenceError| Failure(Error::NotFound("image"));
    let reference = app.config.defaults.reference(&reference).map_err(not_found)?;
    let arch = query.get("arch").map(String::as_str).filter(|arch| !arch.is_empty());
    let found = pull::find(&app, &credential, &reference, arch, Purpose::Download).await?;
    let url = pull::download(&app, &found).await?;
    if !shouts(&headers) {
        return Ok(redirect(StatusCode::SEE_OTHER, &url));
    }
    let ticket = app.keys.seal(&url)?;
    Ok(redirect(StatusCode::SEE_OTHER, &format!("{}/v1/hop?to={ticket}", app.config.public_url)))
}

#[derive(Deserialize)]
struct Hop {
    to: String,
}

/// The second half of [`download`] for clients that shout. The ticket is all the permission that it needs: it holds a
/// presigned URL under our signature, and ends when that does.
async fn hop(State(app): State<App>, Query(Hop { to }): Query<Hop>) -> Answer {
    let url = app.keys.unseal(&to).ok_or(Error::NotFound("download"))?;
    Ok(redirect(StatusCode::TEMPORARY_REDIRECT, &url))
}

/// The upload of clients before Singularity 3.3, whose bytes would have to pass through us.
async fn legacy() -> impl IntoResponse {
    plain(
        StatusCode::PAYLOAD_TOO_LARGE,
        "this server requires a client with v2 upload: Singularity 3.3, Apptainer 1.0 or newer",
    )
}

fn digest(hex: &str) -> Result<Option<Digest>, Failure> {
    Ok(if hex.is_empty() { None } else { Some(Digest::from_hex(hex)?) })
}

#[derive(Deserialize)]
struct NewUpload {
    filesize: u64,
    #[serde(default)]
    sha256sum: String,
}

async fn open(State(app): State<App>, headers: HeaderMap, Path(image): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let image = image.parse::<Id>()?;
    let NewUpload { filesize, sha256sum } = json(&body)?;
    let file = Announced { size: filesize, digest: digest(&sha256sum)? };
    let url = upload::open_single(&app, &caller, image, file).await?;
    Ok(data(value!({ "uploadURL": url })))
}

async fn complete(State(app): State<App>, headers: HeaderMap, Path(image): Path<String>) -> Answer {
    let caller = caller(&app, &headers)?;
    Ok(completed(&upload::complete_single(&app, &caller, image.parse::<Id>()?).await?))
}

/// The quota line that the client prints, and where the image is.
fn completed(done: &Completed) -> axum::response::Response {
    data(value!({
        "quota": { "quotaTotal": done.quota.limit, "quotaUsage": done.quota.used() },
        "containerUrl": format!("library/{}", done.image.repository),
    }))
}

async fn open_parts(State(app): State<App>, headers: HeaderMap, Path(image): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let image = image.parse::<Id>()?;
    let NewUpload { filesize, .. } = json(&body)?;
    let opened = upload::open_parts(&app, &caller, image, filesize).await?;
    Ok(data(value!({
        "uploadID": opened.id,
        "totalParts": opened.parts,
        "partSize": opened.part_size,
        "options": { "s3compliant": "true" },
    })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewPart {
    part_size: u64,
    #[serde(rename = "uploadID")]
    upload: UploadId,
    part_number: u64,
    #[serde(default)]
    #[serde(rename = "sha256sum")]
    sha256: String,
}

async fn part(State(app): State<App>, headers: HeaderMap, Path(image): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let image = image.parse::<Id>()?;
    let NewPart { part_size, upload, part_number, sha256 } = json(&body)?;
    let part = AnnouncedPart { number: part_number, size: part_size, digest: digest(&sha256)? };
    let url = upload::part(&app, &caller, image, upload, part).await?;
    Ok(data(value!({ "presignedURL": url })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndOfParts {
    #[serde(rename = "uploadID")]
    upload: UploadId,
    #[serde(default)]
    completed_parts: Vec<CompletedPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CompletedPart {
    part_number: u64,
    /// The store's `ETag`, with or without its quotes.
    token: String,
}

async fn complete_parts(State(app): State<App>, headers: HeaderMap, Path(image): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let image = image.parse::<Id>()?;
    let EndOfParts { upload, completed_parts } = json(&body)?;
    let quoted = |token: &str| format!("\"{}\"", token.trim_matches('"'));
    let parts = completed_parts.iter().map(|part| Part { number: part.part_number, etag: quoted(&part.token) });
    let parts: Vec<Part> = parts.collect();
    Ok(completed(&upload::complete_parts(&app, &caller, image, upload, &parts).await?))
}

async fn abort(State(app): State<App>, headers: HeaderMap, Path(image): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let image = image.parse::<Id>()?;
    let EndOfParts { upload, .. } = json(&body)?;
    upload::abort(&app, &caller, image, upload).await?;
    Ok(data(value!({})))
}

async fn shub_default(
    State(app): State<App>,
    headers: HeaderMap,
    Path((collection, container)): Path<(String, String)>,
) -> Answer {
    let entity = app.config.defaults.entity.to_string();
    shub_manifest(&app, &headers, &format!("{entity}/{collection}/{container}")).await
}

async fn shub(
    State(app): State<App>,
    headers: HeaderMap,
    Path((entity, collection, container)): Path<(String, String, String)>,
) -> Answer {
    shub_manifest(&app, &headers, &format!("{entity}/{collection}/{container}")).await
}

/// What `shub://` asks for: where the image is, and a `commit` that changes with its content, the client's cache key.
async fn shub_manifest(app: &App, headers: &HeaderMap, text: &str) -> Answer {
    let credential = caller(app, headers)?;
    let not_found = |_: ReferenceError| Failure(Error::NotFound("image"));
    // A digest is a Git commit or MD5 of the old hub; we have none.
    if text.contains('@') {
        return Err(Failure(Error::NotFound("image")));
    }
    let reference = app.config.defaults.reference(text).map_err(not_found)?;
    let found = pull::find(app, &credential, &reference, None, Purpose::Download).await?;
    let url = pull::download(app, &found).await?;
    let hex = found.image.hash.hex();
    let tag = found.image.tags.first().map(ToString::to_string).unwrap_or_default();
    let name = found.container.repository.rest();
    Ok(Json(value!({ "image": url, "name": name, "tag": tag, "version": hex, "commit": hex })).into_response())
}
