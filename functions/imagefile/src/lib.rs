//! The bytes of images, both ways: presigned URLs for uploads and downloads, and shub. No byte of an image passes
//! here.

mod wire;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use shared::auth::Credential;
use shared::domain::{Digest, Id, UploadId};
use shared::http::library::{Answer, Arch, Failure, data, json, named, plain, unread};
use shared::http::{Routes, authorization, redirect};
use shared::service::pull::{self, Purpose};
use shared::service::uploads::parts::{self, AnnouncedPart};
use shared::service::uploads::single::{self, Announced};
use shared::store::objects::Part;
use shared::{App, Error};
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router(app: &App) -> Routes {
    shared::http::finish(app, routes().split_for_parts().0.with_state(app.clone()))
}

/// The `OpenAPI` description of the routes.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(download, legacy))
        .routes(routes!(hop))
        .routes(routes!(open))
        .routes(routes!(complete))
        .routes(routes!(open_parts, part))
        .routes(routes!(complete_parts))
        .routes(routes!(abort))
        .routes(routes!(shub_default))
        .routes(routes!(shub))
}

/// Whether the token came as `BEARER`: the clients that write it so pass it on to the target of a 303.
fn shouts(headers: &HeaderMap) -> bool {
    authorization(headers).is_some_and(|text| text.starts_with("BEARER "))
}

/// Redirects to the bytes of an image.
///
/// Some clients would pass their token on to the store, which refuses it. They get one more hop on our own host, which
/// answers every request with a 307: they drop the token there.
#[utoipa::path(
    get,
    path = "/v1/imagefile/{*reference}",
    tag = "downloads",
    params(
        ("reference" = String, Path, description = "`[[ENTITY/]COLLECTION/]CONTAINER[:TAG-OR-HASH]`"),
        ("arch" = Option<String>, Query, description = "The architecture of the image, like `amd64`"),
    ),
    responses(
        (status = 303, headers(("Location" = String, description = "A presigned URL of the object, or the hop to it"))),
        (status = 404),
    ),
)]
async fn download(
    State(app): State<App>,
    credential: Credential,
    headers: HeaderMap,
    Path(reference): Path<String>,
    Arch(arch): Arch,
) -> Answer {
    let reference = named(&app, &reference)?;
    let found = pull::find(&app, &credential, &reference, arch.as_deref(), Purpose::Download).await?;
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

/// The second half of a download, for clients that would pass their token on.
///
/// The ticket is the only permission needed: it contains a presigned URL that we have signed, and expires with that
/// URL.
#[utoipa::path(
    get,
    path = "/v1/hop",
    tag = "downloads",
    security(()),
    params(("to" = String, Query, description = "The ticket")),
    responses(
        (status = 307, headers(("Location" = String, description = "A presigned URL of the object"))),
        (status = 400),
        (status = 404),
    ),
)]
async fn hop(State(app): State<App>, Query(Hop { to }): Query<Hop>) -> Answer {
    let url = app.keys.unseal(&to).ok_or(Error::NotFound("download"))?;
    Ok(redirect(StatusCode::TEMPORARY_REDIRECT, &url))
}

/// The upload of clients before Singularity 3.3: refused, since the bytes would pass through the server.
#[utoipa::path(
    post,
    path = "/v1/imagefile/{*reference}",
    tag = "uploads",
    security(()),
    params(("reference" = String, Path, description = "The id of an image")),
    responses((status = 413)),
)]
async fn legacy() -> impl IntoResponse {
    plain(
        StatusCode::PAYLOAD_TOO_LARGE,
        "this server requires a client with v2 upload: Singularity 3.3, Apptainer 1.0 or newer",
    )
}

fn digest(hex: &str) -> Result<Option<Digest>, Failure> {
    Ok(if hex.is_empty() { None } else { Some(Digest::from_hex(hex)?) })
}

#[derive(Deserialize, ToSchema)]
struct NewUpload {
    /// Bytes.
    filesize: u64,
    /// The digest of the file, 64 hexadecimal digits, if the client computes it.
    #[serde(default)]
    sha256sum: String,
}

/// Opens the upload of an image in one piece, up to 5 GiB, and says where to send the bytes.
#[utoipa::path(
    post,
    path = "/v2/imagefile/{image}",
    tag = "uploads",
    params(("image" = String, Path, description = "The id of an image")),
    request_body = NewUpload,
    responses((status = 200, body = wire::UploadUrl), (status = 403), (status = 404), (status = 409), (status = 507)),
)]
async fn open(State(app): State<App>, caller: Credential, Path(image): Path<String>, body: Bytes) -> Answer {
    let image = image.parse::<Id>()?;
    let NewUpload { filesize, sha256sum } = json(&body)?;
    let file = Announced { size: filesize, digest: digest(&sha256sum)? };
    let url = single::open(&app, &caller, image, file).await?;
    Ok(data(wire::UploadUrl { upload_url: url }))
}

/// Completes the upload of an image in one piece.
#[utoipa::path(
    put,
    path = "/v2/imagefile/{image}/_complete",
    tag = "uploads",
    params(("image" = String, Path, description = "The id of an image")),
    responses((status = 200, body = wire::Completed), (status = 403), (status = 404), (status = 409)),
)]
async fn complete(State(app): State<App>, caller: Credential, Path(image): Path<String>, body: Bytes) -> Answer {
    unread(&body)?;
    Ok(data(wire::completed(&single::complete(&app, &caller, image.parse::<Id>()?).await?)))
}

/// Opens a multipart upload of an image, and says how many parts to send, and of what size.
#[utoipa::path(
    post,
    path = "/v2/imagefile/{image}/_multipart",
    tag = "uploads",
    params(("image" = String, Path, description = "The id of an image")),
    request_body = NewUpload,
    responses((status = 200, body = wire::OpenedParts), (status = 403), (status = 404), (status = 409), (status = 507)),
)]
async fn open_parts(State(app): State<App>, caller: Credential, Path(image): Path<String>, body: Bytes) -> Answer {
    let image = image.parse::<Id>()?;
    let NewUpload { filesize, .. } = json(&body)?;
    let opened = parts::open(&app, &caller, image, filesize).await?;
    Ok(data(wire::opened(&opened, app.config.pin_uploads)))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewPart {
    /// Bytes.
    part_size: u64,
    #[serde(rename = "uploadID")]
    #[schema(value_type = String)]
    upload: UploadId,
    /// From 1.
    part_number: u64,
    /// The digest of the part, 64 hexadecimal digits, if the client computes it.
    #[serde(default)]
    #[serde(rename = "sha256sum")]
    sha256: String,
}

/// Where to send the bytes of one part.
#[utoipa::path(
    put,
    path = "/v2/imagefile/{image}/_multipart",
    tag = "uploads",
    params(("image" = String, Path, description = "The id of an image")),
    request_body = NewPart,
    responses((status = 200, body = wire::PartUrl), (status = 403), (status = 404), (status = 409)),
)]
async fn part(State(app): State<App>, caller: Credential, Path(image): Path<String>, body: Bytes) -> Answer {
    let image = image.parse::<Id>()?;
    let NewPart { part_size, upload, part_number, sha256 } = json(&body)?;
    let part = AnnouncedPart { number: part_number, size: part_size, digest: digest(&sha256)? };
    let url = parts::part(&app, &caller, image, upload, part).await?;
    Ok(data(wire::PartUrl { presigned_url: url }))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EndOfParts {
    #[serde(rename = "uploadID")]
    #[schema(value_type = String)]
    upload: UploadId,
    /// All parts in order; none to cancel the upload.
    #[serde(default)]
    completed_parts: Vec<CompletedPart>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CompletedPart {
    part_number: u64,
    /// The store's `ETag`, with or without its quotes.
    token: String,
}

/// Completes a multipart upload of an image.
#[utoipa::path(
    put,
    path = "/v2/imagefile/{image}/_multipart_complete",
    tag = "uploads",
    params(("image" = String, Path, description = "The id of an image")),
    request_body = EndOfParts,
    responses((status = 200, body = wire::Completed), (status = 403), (status = 404), (status = 409)),
)]
async fn complete_parts(State(app): State<App>, caller: Credential, Path(image): Path<String>, body: Bytes) -> Answer {
    let image = image.parse::<Id>()?;
    let EndOfParts { upload, completed_parts } = json(&body)?;
    let quoted = |token: &str| format!("\"{}\"", token.trim_matches('"'));
    let parts = completed_parts.iter().map(|part| Part { number: part.part_number, etag: quoted(&part.token) });
    let parts: Vec<Part> = parts.collect();
    Ok(data(wire::completed(&parts::complete(&app, &caller, image, upload, &parts).await?)))
}

/// Cancels a multipart upload of an image.
#[utoipa::path(
    put,
    path = "/v2/imagefile/{image}/_multipart_abort",
    tag = "uploads",
    params(("image" = String, Path, description = "The id of an image")),
    request_body = EndOfParts,
    responses((status = 200), (status = 403), (status = 404), (status = 409)),
)]
async fn abort(State(app): State<App>, caller: Credential, Path(image): Path<String>, body: Bytes) -> Answer {
    let image = image.parse::<Id>()?;
    let EndOfParts { upload, .. } = json(&body)?;
    parts::abort(&app, &caller, image, upload).await?;
    Ok(data(serde_json::json!({})))
}

/// Looks up an image for `shub://`, in the default entity.
#[utoipa::path(
    get,
    path = "/api/container/{collection}/{container}",
    tag = "shub",
    params(("collection" = String, Path), ("container" = String, Path, description = "`CONTAINER` or `CONTAINER:TAG`")),
    responses((status = 200, body = wire::Manifest, extensions(("x-bare" = json!(true)))), (status = 404)),
)]
async fn shub_default(
    State(app): State<App>,
    credential: Credential,
    Path((collection, container)): Path<(String, String)>,
) -> Answer {
    let entity = app.config.defaults.entity.to_string();
    shub_manifest(&app, &credential, &format!("{entity}/{collection}/{container}")).await
}

/// The answer to a `shub://` lookup.
#[utoipa::path(
    get,
    path = "/{entity}/api/container/{collection}/{container}",
    tag = "shub",
    params(
        ("entity" = String, Path),
        ("collection" = String, Path),
        ("container" = String, Path, description = "`CONTAINER` or `CONTAINER:TAG`"),
    ),
    responses((status = 200, body = wire::Manifest, extensions(("x-bare" = json!(true)))), (status = 404)),
)]
async fn shub(
    State(app): State<App>,
    credential: Credential,
    Path((entity, collection, container)): Path<(String, String, String)>,
) -> Answer {
    shub_manifest(&app, &credential, &format!("{entity}/{collection}/{container}")).await
}

async fn shub_manifest(app: &App, credential: &Credential, text: &str) -> Answer {
    // A digest is a Git commit or MD5 of the old hub; we have none.
    if text.contains('@') {
        return Err(Failure(Error::NotFound("image")));
    }
    let reference = named(app, text)?;
    let found = pull::find(app, credential, &reference, None, Purpose::Download).await?;
    let url = pull::download(app, &found).await?;
    Ok(Json(wire::manifest(&found, url)).into_response())
}
