//! The shares of a repository: made, listed, revoked. And the manifests of a container, as Hinkskalle's clients list them
//! and ask for links.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json as value};
use shared::auth::Credential;
use shared::domain::{Actor, ManifestId, OciDigest, Repository, ShareId, TagName, Time};
use shared::http::library::{Answer, Failure, data, json, list};
use shared::service::artifact::{self, ListedManifest};
use shared::service::share::{self, Chosen, End, ListedShare, MadeShare, NewShare};
use shared::store::rows;
use shared::{App, Error};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_shares, make_share))
        .routes(routes!(revoke_share))
        .routes(routes!(download_token))
}

fn invalid(why: &str) -> Failure {
    Failure(Error::Invalid(why.to_owned()))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = NewShare)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// `[[ENTITY/]COLLECTION/]CONTAINER[:TAG-OR-HASH]`, instead of a repository with a digest or tag.
    image: Option<String>,
    /// The name of a repository.
    #[schema(value_type = Option<String>)]
    repository: Option<Repository>,
    /// The digest of a manifest or a SIF image in that repository.
    #[schema(value_type = Option<String>)]
    digest: Option<OciDigest>,
    /// A tag in that repository.
    #[schema(value_type = Option<String>)]
    tag: Option<TagName>,
    /// The architecture of the image, like `amd64`, if a tag has several.
    arch: Option<String>,
    /// The life of the share in seconds; by default the operator's, a day.
    expires_in: Option<u64>,
    /// How many times it can be used; by default without a limit.
    uses: Option<u64>,
}

impl Wanted {
    fn chosen(self, app: &App) -> Result<(Repository, Chosen), Failure> {
        let Self { image, repository, digest, tag, arch, .. } = self;
        match (image, repository, digest, tag) {
            (Some(image), None, None, None) => {
                let reference = app.config.defaults.reference(&image)?;
                Ok((reference.repository, Chosen::of(reference.selector, arch)))
            }
            (None, Some(repository), Some(digest), None) => Ok((repository, Chosen::Digest(digest))),
            (None, Some(repository), None, Some(tag)) => Ok((repository, Chosen::Tag(tag, arch))),
            _ => Err(invalid("name either an `image`, or a `repository` and its `digest` or `tag`")),
        }
    }
}

/// A share, without its secret.
#[derive(Serialize, ToSchema)]
struct Share {
    id: String,
    repository: String,
    /// The digest of the file.
    digest: String,
    /// The name of the file.
    file: String,
    /// Bytes.
    size: u64,
    created_by: String,
    #[schema(format = DateTime)]
    created: String,
    #[schema(format = DateTime)]
    expires: String,
    /// How many times it can be used; null if there is no limit.
    uses: Option<u64>,
    /// How many times it was used.
    used: u64,
}

fn share(row: &rows::Share) -> Share {
    Share {
        id: row.id.to_string(),
        repository: row.repository.to_string(),
        digest: row.blob.to_string(),
        file: row.file.to_string(),
        size: row.size,
        created_by: row.by.to_string(),
        created: row.created.to_string(),
        expires: row.expires.to_string(),
        uses: row.max,
        used: row.uses,
    }
}

/// A new share, with its URL.
#[derive(Serialize, ToSchema)]
struct NewlyMade {
    /// It permits the download, and is not shown again.
    url: String,
    #[serde(flatten)]
    share: Share,
}

/// A share in a list.
#[derive(Serialize, ToSchema)]
struct Listed {
    /// Whether its time or its uses are over.
    over: bool,
    #[serde(flatten)]
    share: Share,
}

fn listed(row: &ListedShare) -> Listed {
    Listed { over: row.over, share: share(&row.share) }
}

/// Makes a share of an image: a URL that lets its holder download it.
///
/// Its maker must be allowed to push to the repository. The share has their rights, and ends with them.
#[utoipa::path(
    post,
    path = "/api/shares",
    tag = "shares",
    request_body = Wanted,
    responses((status = 200, body = NewlyMade), (status = 403), (status = 404)),
)]
async fn make_share(State(app): State<App>, caller: Credential, RawQuery(query): RawQuery, body: Bytes) -> Answer {
    if query.is_some_and(|query| !query.is_empty()) {
        return Err(invalid("this request takes no query, put what it says into the body"));
    }
    let wanted: Wanted = json(&body)?;
    let (expires_in, max) = (wanted.expires_in, wanted.uses);
    let (repository, image) = wanted.chosen(&app)?;
    let end = expires_in.map(|seconds| End::After(Duration::from_secs(seconds)));
    let made = share::make(&app, &caller, NewShare { repository, image, end, max }).await?;
    let MadeShare { share: row, url } = &made;
    Ok(unkept(data(NewlyMade { url: url.expose_secret().to_owned(), share: share(row) })))
}

fn unkept(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    repository: Repository,
    after: Option<String>,
}

/// The caller's shares of a repository, or all of them for whoever manages it, page by page.
#[utoipa::path(
    get,
    path = "/api/shares",
    tag = "shares",
    security(("bearer" = [])),
    params(
        ("repository" = String, Query, description = "The name of a repository"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [Listed]), (status = 404)),
)]
async fn list_shares(
    State(app): State<App>,
    caller: Credential,
    query: Result<Query<Listing>, QueryRejection>,
) -> Answer {
    let Query(Listing { repository, after }) = query.map_err(|error| invalid(&error.body_text()))?;
    if after.as_ref().is_some_and(|after| after.parse::<ShareId>().is_err()) {
        return Err(invalid("`after` must be the `page.next` of the previous page"));
    }
    let page = share::list(&app, &caller, &repository, after).await?;
    Ok(list(page.rows.iter().map(listed).collect::<Vec<_>>(), page.next.as_deref()))
}

/// Revokes a share at once: the caller's own, or any for whoever manages the repository.
#[utoipa::path(
    delete,
    path = "/api/shares/{id}",
    tag = "shares",
    params(("id" = String, Path, description = "The id of a share")),
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn revoke_share(State(app): State<App>, caller: Credential, Path(id): Path<String>) -> Answer {
    share::revoke(&app, &caller, id.parse::<ShareId>()?).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenWanted {
    /// `manifest`.
    #[serde(rename = "type")]
    kind: String,
    /// The id of a manifest.
    id: String,
    /// The caller's own name.
    #[schema(value_type = Option<String>)]
    username: Option<Actor>,
    /// When the link ends, in seconds since 1970.
    exp: Option<i64>,
}

/// Makes a share of a manifest, for Hinkskalle's clients.
///
/// The URL is in the header `Location`.
#[utoipa::path(
    post,
    path = "/v1/get-download-token",
    tag = "shares",
    request_body = TokenWanted,
    responses(
        (
            status = 202,
            body = TokenMade,
            headers(("Location" = String, description = "The URL of the share")),
            extensions(("x-bare" = json!(true))),
        ),
        (status = 403),
        (status = 404),
    ),
)]
async fn download_token(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let TokenWanted { kind, id, username, exp } = json(&body)?;
    if kind != "manifest" {
        return Err(invalid("only a link to a `manifest` can be made here"));
    }
    if username.is_some_and(|name| Some(&name) != caller.actor()) {
        return Err(Failure(Error::Forbidden("not permitted to make a link in the name of somebody else".to_owned())));
    }
    // What is not an id names nothing.
    let id: ManifestId = id.parse().map_err(|_| Failure(Error::NotFound("manifest")))?;
    let MadeShare { url, .. } = share::of_manifest(&app, &caller, id, exp.map(|end| End::At(Time(end)))).await?;
    let location = url.expose_secret();
    let body = Json(TokenMade { location });
    Ok(unkept((StatusCode::ACCEPTED, [(header::LOCATION, location)], body).into_response()))
}

/// The link that was made.
#[derive(Serialize, ToSchema)]
struct TokenMade<'a> {
    location: &'a str,
}

/// A manifest, as Hinkskalle's clients want it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Empty if it is not one file.
    filename: String,
    /// Without the name of the algorithm.
    hash: String,
    tags: Vec<String>,
    #[serde(rename = "total_size")]
    total_size: u64,
    /// The digests of its layers.
    images: Vec<String>,
    /// The manifest itself; null if the list is long.
    content: Option<Value>,
    download_count: u64,
    created_at: String,
}

fn manifest(row: ListedManifest) -> Manifest {
    let ListedManifest { id, contents, file, tags, body, created } = row;
    Manifest {
        hash: id.digest.in_key(),
        id: id.to_string(),
        kind: contents.kind(),
        filename: file.map(|file| file.to_string()).unwrap_or_default(),
        tags: tags.iter().map(ToString::to_string).collect(),
        total_size: contents.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size)),
        images: contents.layers.iter().map(|layer| layer.digest.to_string()).collect(),
        content: serde_json::from_str(&body).ok(),
        download_count: 0,
        // Python before 3.11 reads no `Z`.
        created_at: created.to_string().replace('Z', "+00:00"),
    }
}

/// The manifests of a container.
pub(crate) async fn manifests(app: &App, caller: &Credential, repository: &Repository) -> Answer {
    let rows = artifact::list(app, caller, repository).await?;
    Ok(data(rows.into_iter().map(manifest).collect::<Vec<_>>()))
}
