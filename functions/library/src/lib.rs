//! The library API's metadata: entities, collections, containers, images, tags, search.

mod downloads;
mod listing;
mod put;
mod shares;
mod stars;
pub mod wire;

use crate::listing::{Asked, Shown};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Deserializer};
use shared::auth::Credential;
use shared::domain::time::TimeError;
use shared::domain::{CustomData, Description, Digest, Id, Readme, Said, Selector, SourceUrl, TagName, Visibility};
use shared::http::Routes;
use shared::http::library::{
    Answer, Arch, Deletion, Failure, LeftEmpty, OnlyArch, data, deleted, json, list, named, plain,
};
use shared::service::create::Properties;
use shared::service::pull::Purpose;
use shared::service::settings::{self, Settings};
use shared::service::tag::SetTag;
use shared::service::{MAX_SHOWN, browse, create, delete, history, latest, lists, pull, removal, search, tag};
use shared::{App, Error};
use std::collections::HashMap;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
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
        .routes(routes!(list_entities, create_entity))
        .routes(routes!(default_entity))
        .routes(routes!(entity, change_entity, delete_entity))
        .routes(routes!(list_collections, create_collection))
        .routes(routes!(collection, change_collection, delete_collection))
        .routes(routes!(list_containers, create_container))
        .routes(routes!(container, change_container, delete_container))
        .routes(routes!(list_repositories))
        .routes(routes!(repository, change_repository, delete_repository))
        .routes(routes!(list_tags))
        .routes(routes!(tag_history))
        .merge(downloads::routes())
        .routes(routes!(list_images, create_image))
        .routes(routes!(image, delete_image, change_tag))
        .routes(routes!(tags_v1, set_tag_v1))
        .routes(routes!(tags_v2, set_tag_v2))
        .routes(routes!(find))
        .routes(routes!(latest))
        .routes(routes!(oci_redirect))
        .merge(put::routes())
        .merge(shares::routes())
        .merge(stars::routes())
}

/// A choice that a client may leave out, also by `null`.
fn null_is_no<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// The entities in which the caller has a role, page by page.
#[utoipa::path(
    get,
    path = "/v1/entities",
    tag = "entities",
    params(
        ("sort" = Option<String>, Query, description = "`name` or `created`, or with a `-` before it backwards; by time only if there are fewer than 1000"),
        ("prefix" = Option<String>, Query, description = "Only names that begin so"),
        ("private" = Option<bool>, Query, description = "Only those in which new containers are private, or are not"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [wire::Entity])),
)]
async fn list_entities(State(app): State<App>, caller: Credential, Query(query): Query<Asked>) -> Answer {
    let page = lists::entities(&app, &caller, &query.listing()?).await?;
    Ok(list(page.rows.iter().map(wire::entity).collect::<Vec<_>>(), page.next.as_deref()))
}

/// The default entity.
#[utoipa::path(
    get,
    path = "/v1/entities/",
    tag = "entities",
    responses((status = 200, body = wire::Entity), (status = 404)),
)]
async fn default_entity(State(app): State<App>, caller: Credential) -> Answer {
    let view = browse::entity(&app, &caller, &app.config.defaults.entity).await?;
    Ok(data(wire::entity(&view)))
}

/// An entity.
#[utoipa::path(
    get,
    path = "/v1/entities/{name}",
    tag = "entities",
    params(("name" = String, Path, description = "The name of an entity")),
    responses((status = 200, body = wire::Entity), (status = 404)),
)]
async fn entity(State(app): State<App>, caller: Credential, Path(name): Path<String>) -> Answer {
    let view = browse::entity(&app, &caller, &app.config.defaults.entity(&name)?).await?;
    Ok(data(wire::entity(&view)))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewEntity {
    name: String,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    description: Option<Description>,
    /// Whether new containers in it are private.
    #[serde(default, deserialize_with = "null_is_no")]
    default_private: bool,
    /// The README, in Markdown.
    #[schema(value_type = Option<String>)]
    full_description: Option<Readme>,
    #[schema(value_type = Option<String>)]
    custom_data: Option<CustomData>,
}

/// Creates an entity, owned by the caller.
///
/// If it exists already, it is returned unchanged.
#[utoipa::path(
    post,
    path = "/v1/entities",
    tag = "entities",
    request_body = NewEntity,
    responses((status = 200, body = wire::Entity), (status = 403), (status = 409)),
)]
async fn create_entity(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let new: NewEntity = json(&body)?;
    let name = app.config.defaults.entity(&new.name)?;
    let description = new.description.unwrap_or_default();
    let said = Said { readme: new.full_description, custom_data: new.custom_data, vcs_url: None };
    let properties = Properties { description, private: new.default_private, read_only: false, said };
    let entity = create::entity(&app, &caller, name, properties).await?;
    Ok(data(wire::new_entity(&entity)))
}

/// The collections of an entity, page by page.
#[utoipa::path(
    get,
    path = "/v1/collections",
    tag = "collections",
    params(
        ("entity" = Option<String>, Query, description = "The entity; if missing, the default entity"),
        ("sort" = Option<String>, Query, description = "`name` or `created`, or with a `-` before it backwards; by time only if there are fewer than 1000"),
        ("prefix" = Option<String>, Query, description = "Only names that begin so"),
        ("private" = Option<bool>, Query, description = "Only those in which new containers are private, or are not"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [wire::Collection]), (status = 404)),
)]
async fn list_collections(State(app): State<App>, caller: Credential, Query(query): Query<Asked>) -> Answer {
    let entity = app.config.defaults.entity(&query.entity)?;
    let page = lists::collections(&app, &caller, &entity, &query.listing()?).await?;
    Ok(list(page.rows.iter().map(wire::collection).collect::<Vec<_>>(), page.next.as_deref()))
}

/// A collection.
///
/// A single name that is the name of an entity which the caller may browse means its collections: the answer is then
/// their list, up to 1000. Otherwise it is a collection of the default entity, and always so if the entity's name is
/// left empty (`/v1/collections//COLLECTION`).
#[utoipa::path(
    get,
    path = "/v1/collections/{*path}",
    tag = "collections",
    params(("path" = String, Path, description = "`[ENTITY/]COLLECTION`")),
    responses((status = 200, body = wire::Collection), (status = 404)),
)]
async fn collection(
    State(app): State<App>,
    caller: Credential,
    left_empty: LeftEmpty,
    Path(path): Path<String>,
) -> Answer {
    if let LeftEmpty(false) = left_empty
        && let Ok(entity) = path.parse()
    {
        match browse::used_collections(&app, &caller, &entity).await {
            // Then it is a collection of the default entity, or nothing.
            Err(Error::NotFound(_)) => {}
            listed => return Ok(data(listed?.iter().map(wire::used_collection).collect::<Vec<_>>())),
        }
    }
    let (entity, name) = app.config.defaults.collection(&path)?;
    Ok(data(wire::whole_collection(&browse::collection(&app, &caller, &entity, &name).await?)))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewCollection {
    name: String,
    #[schema(value_type = String)]
    entity: Id,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    description: Option<Description>,
    /// Whether new containers in it are private.
    #[serde(default, deserialize_with = "null_is_no")]
    private: bool,
    /// The README, in Markdown.
    #[schema(value_type = Option<String>)]
    full_description: Option<Readme>,
    #[schema(value_type = Option<String>)]
    custom_data: Option<CustomData>,
}

/// Creates a collection in an entity.
///
/// If it exists already, it is returned unchanged.
#[utoipa::path(
    post,
    path = "/v1/collections",
    tag = "collections",
    request_body = NewCollection,
    responses((status = 200, body = wire::Collection), (status = 403), (status = 404), (status = 409)),
)]
async fn create_collection(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let NewCollection { name, entity, description, private, full_description: readme, custom_data } = json(&body)?;
    let name = if name.is_empty() { app.config.defaults.collection.clone() } else { name.parse()? };
    let said = Said { readme, custom_data, vcs_url: None };
    let properties = Properties { description: description.unwrap_or_default(), private, read_only: false, said };
    Ok(data(wire::collection(&create::collection(&app, &caller, entity, name, properties).await?)))
}

/// The containers of an entity or a collection, page by page, without their images and tags.
#[utoipa::path(
    get,
    path = "/v1/containers",
    tag = "containers",
    params(
        ("entity" = Option<String>, Query, description = "The entity; if missing, the default entity"),
        ("collection" = Option<String>, Query, description = "`[ENTITY/]COLLECTION`, instead of an entity"),
        ("sort" = Option<String>, Query, description = "`name` or `created`, or with a `-` before it backwards; by time only if there are fewer than 1000"),
        ("prefix" = Option<String>, Query, description = "Only names that begin so"),
        ("private" = Option<bool>, Query, description = "Only private ones, or only others"),
        ("visibility" = Option<String>, Query, description = "Only those that are `public`, `internal` or `private`"),
        ("readOnly" = Option<bool>, Query, description = "Only read-only ones, or only others"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [wire::Container]), (status = 404)),
)]
async fn list_containers(State(app): State<App>, caller: Credential, Query(query): Query<Asked>) -> Answer {
    let (entity, collection) = if query.collection.is_empty() {
        (app.config.defaults.entity(&query.entity)?, None)
    } else {
        let (entity, collection) = app.config.defaults.collection(&query.collection)?;
        (entity, Some(collection))
    };
    let page = lists::containers(&app, &caller, &entity, collection.as_ref(), &query.listing()?).await?;
    Ok(list(page.rows.iter().map(|row| wire::container(row, &[])).collect::<Vec<_>>(), page.next.as_deref()))
}

/// A container, with its first 1000 images and tags.
///
/// apptainer and singularity, which look at none, are shown the first 10.
/// `/v1/images` lists all images, page by page. With `/manifests` after a path of three names, the first 1000 manifests
/// of the container, as Hinkskalle's clients list them, and with `/images` its first 1000 images. Two names that are those of an entity and its collection, which
/// the caller may browse, mean its containers: the answer is then their list, up to 1000. Otherwise they are a collection
/// and a container of the default entity, and always so if the entity's name is left empty
/// (`/v1/containers//COLLECTION/CONTAINER`).
#[utoipa::path(
    get,
    path = "/v1/containers/{*path}",
    tag = "containers",
    params(("path" = String, Path, description = "`[[ENTITY/]COLLECTION/]CONTAINER`")),
    responses((status = 200, body = wire::Container), (status = 404)),
)]
async fn container(
    State(app): State<App>,
    caller: Credential,
    left_empty: LeftEmpty,
    Shown(most): Shown,
    Path(path): Path<String>,
) -> Answer {
    if let Some(container) = path.strip_suffix("/manifests").filter(|path| path.split('/').count() == 3) {
        return shares::manifests(&app, &caller, &app.config.defaults.container(container)?).await;
    }
    if let Some(container) = path.strip_suffix("/images").filter(|path| path.split('/').count() == 3) {
        let repository = app.config.defaults.container(container)?;
        let (container, images) = browse::all_images(&app, &caller, &repository).await?;
        return Ok(data(images.iter().map(|image| wire::image(&container, image)).collect::<Vec<_>>()));
    }
    if let LeftEmpty(false) = left_empty
        && let Some((entity, collection)) = path.split_once('/')
        && let (Ok(entity), Ok(collection)) = (entity.parse(), collection.parse())
    {
        match browse::used_containers(&app, &caller, &entity, &collection).await {
            // Then it is a container of the default entity, or nothing.
            Err(Error::NotFound(_)) => {}
            listed => return Ok(data(listed?.iter().map(wire::used_container).collect::<Vec<_>>())),
        }
    }
    let repository = app.config.defaults.container(&path)?;
    let view = browse::container(&app, &caller, &repository, most).await?;
    Ok(data(wire::whole(&view)))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewContainer {
    name: String,
    #[schema(value_type = String)]
    collection: Id,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    description: Option<Description>,
    /// Whether only members of its entity may read it.
    #[serde(default, deserialize_with = "null_is_no")]
    private: bool,
    #[serde(default, deserialize_with = "null_is_no")]
    read_only: bool,
    /// The README, in Markdown.
    #[schema(value_type = Option<String>)]
    full_description: Option<Readme>,
    #[schema(value_type = Option<String>)]
    custom_data: Option<CustomData>,
    /// Where its sources are, a URL with http or https.
    #[schema(value_type = Option<String>)]
    vcs_url: Option<SourceUrl>,
}

/// Creates a container in a collection.
///
/// If it exists already, it is returned unchanged, unless it is more open than what is asked for. A new one is private
/// if its collection or entity says so.
#[utoipa::path(
    post,
    path = "/v1/containers",
    tag = "containers",
    request_body = NewContainer,
    responses((status = 200, body = wire::Container), (status = 403), (status = 404), (status = 409)),
)]
async fn create_container(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let new: NewContainer = json(&body)?;
    let said = Said { readme: new.full_description, custom_data: new.custom_data, vcs_url: new.vcs_url };
    let NewContainer { name, collection, description, private, read_only, .. } = new;
    let properties = Properties { description: description.unwrap_or_default(), private, read_only, said };
    let container = create::container(&app, &caller, collection, &name.parse()?, properties).await?;
    Ok(data(wire::container(&container, &[])))
}

/// The images of a container, page by page.
#[utoipa::path(
    get,
    path = "/v1/images",
    tag = "images",
    params(
        ("container" = String, Query, description = "`[[ENTITY/]COLLECTION/]CONTAINER`"),
        ("sort" = Option<String>, Query, description = "`name` or `created`, or with a `-` before it backwards; by time only if there are fewer than 1000"),
        ("prefix" = Option<String>, Query, description = "Only hashes that begin so"),
        ("arch" = Option<String>, Query, description = "Only those for this architecture, like `amd64`"),
        ("signed" = Option<bool>, Query, description = "Only signed ones, or only others"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [wire::Image]), (status = 404)),
)]
async fn list_images(State(app): State<App>, caller: Credential, Query(query): Query<Asked>) -> Answer {
    let repository = app.config.defaults.container(&query.container)?;
    let mut listing = query.listing()?;
    listing.prefix = listing.prefix.trim_start_matches("sha256.").to_owned();
    let (container, page) = lists::images(&app, &caller, &repository, &listing).await?;
    let rows: Vec<_> = page.rows.iter().map(|image| wire::image(&container, image)).collect();
    Ok(list(rows, page.next.as_deref()))
}

#[derive(Deserialize, ToSchema)]
struct NewImage {
    /// `sha256.` and 64 hexadecimal digits.
    hash: String,
    #[schema(value_type = String)]
    container: Id,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    description: Option<Description>,
}

/// Creates an image in a container, before its bytes are uploaded.
///
/// If it exists already, it is returned unchanged. `uploaded` tells whether its bytes are there already.
#[utoipa::path(
    post,
    path = "/v1/images",
    tag = "images",
    request_body = NewImage,
    responses((status = 200, body = wire::Image), (status = 403), (status = 404), (status = 409), (status = 507)),
)]
async fn create_image(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let NewImage { hash, container, description } = json(&body)?;
    let hash = Digest::from_library(&hash)?;
    let (container, image) = create::image(&app, &caller, container, hash, description.unwrap_or_default()).await?;
    Ok(data(wire::image(&container, &image)))
}

/// An image, by tag or hash.
///
/// With `/inspect` after a path of three names or with a tag, its definition file, as Hinkskalle's clients ask for it.
#[utoipa::path(
    get,
    path = "/v1/images/{*reference}",
    tag = "images",
    params(
        ("reference" = String, Path, description = "`[[ENTITY/]COLLECTION/]CONTAINER[:TAG-OR-HASH]`"),
        ("arch" = Option<String>, Query, description = "The architecture of the image, like `amd64`"),
        ("details" = Option<String>, Query, description = "If present, with any value, the answer includes `details`"),
    ),
    responses((status = 200, body = wire::Image), (status = 404)),
)]
async fn image(
    State(app): State<App>,
    caller: Credential,
    Path(reference): Path<String>,
    Arch(arch): Arch,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    if let Some(reference) = named_image(&reference, "/inspect") {
        let found = pull::find(&app, &caller, &named(&app, reference)?, arch.as_deref(), Purpose::Details).await?;
        let definition = pull::details(&app, &found).await?.and_then(|facts| facts.definition);
        return Ok(data(serde_json::json!({ "attributes": { "deffile": definition.unwrap_or_default() } })));
    }
    let reference = named(&app, &reference)?;
    let details = query.contains_key("details");
    let purpose = if details { Purpose::Details } else { Purpose::Look };
    let found = pull::find(&app, &caller, &reference, arch.as_deref(), purpose).await?;
    let mut image = wire::image(&found.container, &found.image);
    if details {
        image.details = pull::details(&app, &found).await?.map(wire::details);
    }
    Ok(data(image))
}

/// Deletes an image, with all its tags.
#[utoipa::path(
    delete,
    path = "/v1/images/{*reference}",
    tag = "images",
    params(
        ("reference" = String, Path, description = "`[[ENTITY/]COLLECTION/]CONTAINER[:TAG-OR-HASH]`"),
        ("arch" = Option<String>, Query, description = "The architecture of the image, like `amd64`"),
    ),
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn delete_image(
    State(app): State<App>,
    caller: Credential,
    Path(reference): Path<String>,
    OnlyArch(arch): OnlyArch,
) -> Answer {
    let reference = app.config.defaults.reference(&reference)?;
    delete::image(&app, &caller, &reference, arch.as_deref()).await?;
    Ok(data(serde_json::json!({})))
}

/// The image of a path that ends in a word of a route. A container can have that name too, and then no tag or hash stands
/// before it, or fewer names do.
fn named_image<'a>(path: &'a str, word: &str) -> Option<&'a str> {
    let image = path.strip_suffix(word)?;
    (image.contains(':') || image.split('/').count() == 3).then_some(image)
}

fn visibility() -> Object {
    let words = Visibility::ALL.map(|visibility| serde_json::json!(visibility));
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

/// The changes of a `PATCH`; fields that are left out stay unchanged.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Changed {
    #[schema(value_type = Option<String>)]
    description: Option<Description>,
    /// The README, in Markdown; `readme` is the same.
    #[serde(alias = "readme")]
    #[schema(value_type = Option<String>)]
    full_description: Option<Readme>,
    #[schema(value_type = Option<String>)]
    custom_data: Option<CustomData>,
    /// Of a container: where its sources are, a URL with http or https.
    #[schema(value_type = Option<String>)]
    vcs_url: Option<SourceUrl>,
    default_private: Option<bool>,
    private: Option<bool>,
    #[schema(schema_with = visibility)]
    visibility: Option<Visibility>,
    read_only: Option<bool>,
    frozen: Option<bool>,
}

impl TryFrom<Changed> for Settings {
    type Error = Error;

    fn try_from(changed: Changed) -> Result<Self, Error> {
        let Changed { description, default_private, private, visibility, read_only, frozen, .. } = changed;
        let Changed { full_description: readme, custom_data, vcs_url, .. } = changed;
        let said = Said { readme, custom_data, vcs_url };
        if private.zip(default_private).is_some_and(|(one, other)| one != other) {
            return Err(Error::Invalid("`private` and `defaultPrivate` mean the same here, and differ".to_owned()));
        }
        let private = private.or(default_private);
        Ok(Self { description, said, private, visibility, read_only, frozen, ..Self::default() })
    }
}

/// Changes the description and the README of an entity, and whether new containers in it are private.
#[utoipa::path(
    patch,
    path = "/v1/entities/{name}",
    tag = "entities",
    params(("name" = String, Path, description = "The name of an entity")),
    request_body = Changed,
    responses((status = 200, body = wire::Entity), (status = 403), (status = 404)),
)]
async fn change_entity(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let name = app.config.defaults.entity(&name)?;
    settings::entity(&app, &caller, &name, &json::<Changed>(&body)?.try_into()?).await?;
    Ok(data(wire::entity(&browse::entity(&app, &caller, &name).await?)))
}

/// Changes the description and the README of a collection, and whether new containers in it are private.
#[utoipa::path(
    patch,
    path = "/v1/collections/{*path}",
    tag = "collections",
    params(("path" = String, Path, description = "`[ENTITY/]COLLECTION`")),
    request_body = Changed,
    responses((status = 200, body = wire::Collection), (status = 403), (status = 404)),
)]
async fn change_collection(
    State(app): State<App>,
    caller: Credential,
    Path(path): Path<String>,
    body: Bytes,
) -> Answer {
    let (entity, name) = app.config.defaults.collection(&path)?;
    settings::collection(&app, &caller, &entity, &name, &json::<Changed>(&body)?.try_into()?).await?;
    Ok(data(wire::whole_collection(&browse::collection(&app, &caller, &entity, &name).await?)))
}

/// Changes what is said about a container, its visibility, and whether it is read-only.
#[utoipa::path(
    patch,
    path = "/v1/containers/{*path}",
    tag = "containers",
    params(("path" = String, Path, description = "`[[ENTITY/]COLLECTION/]CONTAINER`")),
    request_body = Changed,
    responses((status = 200, body = wire::Container), (status = 403), (status = 404)),
)]
async fn change_container(State(app): State<App>, caller: Credential, Path(path): Path<String>, body: Bytes) -> Answer {
    let repository = app.config.defaults.container(&path)?;
    settings::container(&app, &caller, &repository, &json::<Changed>(&body)?.try_into()?).await?;
    let view = browse::container(&app, &caller, &repository, MAX_SHOWN).await?;
    Ok(data(wire::whole(&view)))
}

/// Deletes a group: at once it is hidden with everything in it, which is then removed.
#[utoipa::path(
    delete,
    path = "/v1/entities/{name}",
    tag = "entities",
    params(
        ("name" = String, Path, description = "The name of a group"),
        ("cascade" = Option<bool>, Query, description = "Delete everything in it, too"),
        ("force" = Option<bool>, Query, description = "Delete frozen tags and read-only containers, too"),
        ("dry-run" = Option<bool>, Query, description = "Only say what is in it"),
    ),
    responses((status = 200), (status = 202), (status = 403), (status = 404), (status = 412)),
)]
async fn delete_entity(
    State(app): State<App>,
    caller: Credential,
    Path(name): Path<String>,
    Deletion(how): Deletion,
) -> Answer {
    let name = app.config.defaults.entity(&name)?;
    let done = removal::entity(&app, &caller, &name, how).await?;
    Ok(deleted(how, done.contents, done.done))
}

/// Deletes a collection with its containers, in the same way.
#[utoipa::path(
    delete,
    path = "/v1/collections/{*path}",
    tag = "collections",
    params(
        ("path" = String, Path, description = "`[ENTITY/]COLLECTION`"),
        ("cascade" = Option<bool>, Query, description = "Delete everything in it, too"),
        ("force" = Option<bool>, Query, description = "Delete frozen tags and read-only containers, too"),
        ("dry-run" = Option<bool>, Query, description = "Only say what is in it"),
    ),
    responses((status = 200), (status = 202), (status = 403), (status = 404), (status = 412)),
)]
async fn delete_collection(
    State(app): State<App>,
    caller: Credential,
    Path(path): Path<String>,
    Deletion(how): Deletion,
) -> Answer {
    let (entity, name) = app.config.defaults.collection(&path)?;
    let done = removal::collection(&app, &caller, &entity, &name, how).await?;
    Ok(deleted(how, done.contents, done.done))
}

/// Deletes a container with everything in it, in the same way.
#[utoipa::path(
    delete,
    path = "/v1/containers/{*path}",
    tag = "containers",
    params(
        ("path" = String, Path, description = "`[[ENTITY/]COLLECTION/]CONTAINER`"),
        ("cascade" = Option<bool>, Query, description = "Delete everything in it, too"),
        ("force" = Option<bool>, Query, description = "Delete frozen tags and read-only containers, too"),
        ("dry-run" = Option<bool>, Query, description = "Only say what is in it"),
    ),
    responses((status = 200), (status = 202), (status = 403), (status = 404), (status = 412)),
)]
async fn delete_container(
    State(app): State<App>,
    caller: Credential,
    Path(path): Path<String>,
    Deletion(how): Deletion,
) -> Answer {
    let repository = app.config.defaults.container(&path)?;
    let done = removal::container(&app, &caller, &repository, how).await?;
    Ok(deleted(how, done.contents, done.done))
}

/// Deletes a repository by its registry name, which can have any number of parts, in the same way.
#[utoipa::path(
    delete,
    path = "/api/repositories/{*name}",
    tag = "containers",
    params(
        ("name" = String, Path, description = "`ENTITY/NAME[/NAME…]`"),
        ("cascade" = Option<bool>, Query, description = "Delete everything in it, too"),
        ("force" = Option<bool>, Query, description = "Delete frozen tags and read-only containers, too"),
        ("dry-run" = Option<bool>, Query, description = "Only say what is in it"),
    ),
    responses((status = 200), (status = 202), (status = 403), (status = 404), (status = 412)),
)]
async fn delete_repository(
    State(app): State<App>,
    caller: Credential,
    Path(name): Path<String>,
    Deletion(how): Deletion,
) -> Answer {
    let done = removal::container(&app, &caller, &name.parse()?, how).await?;
    Ok(deleted(how, done.contents, done.done))
}

/// Freezes the tag of a reference with `{"frozen": true}`, or unfreezes it.
#[utoipa::path(
    patch,
    path = "/v1/images/{*reference}",
    tag = "tags",
    params(("reference" = String, Path, description = "`[[ENTITY/]COLLECTION/]CONTAINER[:TAG-OR-HASH]`")),
    request_body = Changed,
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn change_tag(State(app): State<App>, caller: Credential, Path(reference): Path<String>, body: Bytes) -> Answer {
    let reference = app.config.defaults.reference(&reference)?;
    let settings = json::<Changed>(&body)?.try_into()?;
    let Selector::Tag(name) = &reference.selector else {
        return Err(Failure(Error::Invalid("name a tag: only tags can be frozen".to_owned())));
    };
    settings::tag(&app, &caller, &reference.repository, name, &settings).await?;
    Ok(data(serde_json::json!({})))
}

/// The repositories of an entity, whatever their paths, page by page, without what is said about them.
#[utoipa::path(
    get,
    path = "/api/repositories",
    tag = "containers",
    params(
        ("entity" = String, Query, description = "The entity"),
        ("sort" = Option<String>, Query, description = "`name` or `created`, or with a `-` before it backwards; by time only if there are fewer than 1000"),
        ("prefix" = Option<String>, Query, description = "Only names that begin so"),
        ("private" = Option<bool>, Query, description = "Only private ones, or only others"),
        ("visibility" = Option<String>, Query, description = "Only those that are `public`, `internal` or `private`"),
        ("readOnly" = Option<bool>, Query, description = "Only read-only ones, or only others"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [wire::ListedRepository]), (status = 404)),
)]
async fn list_repositories(State(app): State<App>, caller: Credential, Query(query): Query<Asked>) -> Answer {
    let page = lists::repositories(&app, &caller, &query.entity.parse()?, &query.listing()?).await?;
    Ok(list(page.rows.iter().map(wire::listed_repository).collect::<Vec<_>>(), page.next.as_deref()))
}

/// The tags of a repository, page by page.
#[utoipa::path(
    get,
    path = "/api/tags",
    tag = "tags",
    params(
        ("repository" = String, Query, description = "The name of a repository"),
        (
            "sort" = Option<String>,
            Query,
            description = "`name` or `updated`, or with a `-` before it backwards; by time only if there are fewer than 1000",
        ),
        ("prefix" = Option<String>, Query, description = "Only names that begin so"),
        ("arch" = Option<String>, Query, description = "Only those with an image for this architecture"),
        ("frozen" = Option<bool>, Query, description = "Only frozen ones, or only others"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [wire::Tag]), (status = 404)),
)]
async fn list_tags(State(app): State<App>, caller: Credential, Query(query): Query<Asked>) -> Answer {
    let page = lists::tags(&app, &caller, &query.repository.parse()?, &query.listing_of_tags()?).await?;
    Ok(list(page.rows.iter().map(wire::tag).collect::<Vec<_>>(), page.next.as_deref()))
}

#[derive(Deserialize)]
struct AskedHistory {
    #[serde(default)]
    repository: String,
    #[serde(default)]
    tag: String,
    at: Option<String>,
    after: Option<String>,
}

/// Where a tag led, since when, and who set it, the latest first, page by page; or where it led at a time.
#[utoipa::path(
    get,
    path = "/api/history",
    tag = "tags",
    params(
        ("repository" = String, Query, description = "The name of a repository"),
        ("tag" = String, Query, description = "The name of a tag, which need not exist any more"),
        (
            "at" = Option<String>,
            Query,
            description = "Only where it led at this time, like `2026-12-31T23:59:59Z` or `2026-12-31`: no entry if there was no such tag yet",
        ),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [wire::TagThen]), (status = 400), (status = 404)),
)]
async fn tag_history(State(app): State<App>, caller: Credential, Query(query): Query<AskedHistory>) -> Answer {
    let AskedHistory { repository, tag, at, after } = query;
    let at =
        at.map(|at| at.parse()).transpose().map_err(|error: TimeError| Error::Invalid(format!("`at`: {error}")))?;
    let asked = history::Asked { before: after, at };
    let page = history::of_tag(&app, &caller, &repository.parse()?, &tag.parse()?, asked).await?;
    Ok(list(page.rows.iter().map(wire::tag_then).collect::<Vec<_>>(), page.next.as_deref()))
}

/// A repository by its registry name, which can have any number of parts, with its README.
#[utoipa::path(
    get,
    path = "/api/repositories/{*name}",
    tag = "containers",
    params(("name" = String, Path, description = "`ENTITY/NAME[/NAME…]`")),
    responses((status = 200, body = wire::Repository), (status = 404)),
)]
async fn repository(State(app): State<App>, caller: Credential, Path(name): Path<String>) -> Answer {
    Ok(data(wire::repository(&browse::repository(&app, &caller, &name.parse()?).await?)))
}

/// Changes a repository, or one of its tags, by its registry name, which can have any number of parts.
#[utoipa::path(
    patch,
    path = "/api/repositories/{*name}",
    tag = "containers",
    params(("name" = String, Path, description = "`ENTITY/NAME[/NAME…][:TAG]`")),
    request_body = Changed,
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn change_repository(
    State(app): State<App>,
    caller: Credential,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let settings = json::<Changed>(&body)?.try_into()?;
    match name.split_once(':') {
        Some((name, tag)) => settings::tag(&app, &caller, &name.parse()?, &tag.parse()?, &settings).await?,
        None => settings::container(&app, &caller, &name.parse()?, &settings).await?,
    }
    Ok(data(serde_json::json!({})))
}

/// The first 1000 tags of a container for clients without architectures: tag → the image set last.
#[utoipa::path(
    get,
    path = "/v1/tags/{container}",
    tag = "tags",
    params(("container" = String, Path, description = "The id of a container")),
    responses((status = 200, body = BTreeMap<String, String>), (status = 404)),
)]
async fn tags_v1(
    State(app): State<App>,
    caller: Credential,
    Shown(most): Shown,
    Path(container): Path<String>,
) -> Answer {
    Ok(data(wire::tags_v1(&tag::list(&app, &caller, container.parse::<Id>()?, most).await?)))
}

/// The first 1000 tags of a container: architecture → tag → image.
///
/// apptainer and singularity, which look at none, are shown the first 10.
/// `/v2/{repository}/tags/list` lists all of them, page by page.
#[utoipa::path(
    get,
    path = "/v2/tags/{container}",
    tag = "tags",
    params(("container" = String, Path, description = "The id of a container")),
    responses((status = 200, body = BTreeMap<String, BTreeMap<String, String>>), (status = 404)),
)]
async fn tags_v2(
    State(app): State<App>,
    caller: Credential,
    Shown(most): Shown,
    Path(container): Path<String>,
) -> Answer {
    Ok(data(wire::tags_v2(&tag::list(&app, &caller, container.parse::<Id>()?, most).await?)))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
struct NewTag {
    #[serde(default)]
    arch: Option<String>,
    tag: String,
    #[serde(rename = "ImageID")]
    #[schema(value_type = String)]
    image: Id,
}

/// A tag that is to be set, also as `{"TAG": "IMAGE"}`, in the form of old clients.
fn new_tag(body: &Bytes) -> Result<NewTag, Failure> {
    json(body).or_else(|refused| {
        let pair = json::<HashMap<String, Id>>(body).ok().filter(|pairs| pairs.len() == 1);
        let pair = pair.and_then(|pairs| pairs.into_iter().next());
        pair.map(|(tag, image)| NewTag { arch: None, tag, image }).ok_or(refused)
    })
}

/// Points a tag at an image, for the architecture of the image, and returns the tag.
///
/// `{"TAG": "IMAGE"}` is another form of the body.
#[utoipa::path(
    post,
    path = "/v1/tags/{container}",
    tag = "tags",
    params(("container" = String, Path, description = "The id of a container")),
    request_body = NewTag,
    responses((status = 200, body = BTreeMap<String, String>), (status = 403), (status = 404), (status = 409)),
)]
async fn set_tag_v1(State(app): State<App>, caller: Credential, Path(container): Path<String>, body: Bytes) -> Answer {
    let container = container.parse::<Id>()?;
    let NewTag { tag: name, image, .. } = new_tag(&body)?;
    let set = SetTag { image, name: &name.parse::<TagName>()?, arch: None };
    let tag = tag::set(&app, &caller, container, set).await?;
    Ok(data(wire::tags_v1(tag.as_slice())))
}

/// Points a tag at an image, for an architecture, and returns the tag.
#[utoipa::path(
    post,
    path = "/v2/tags/{container}",
    tag = "tags",
    params(("container" = String, Path, description = "The id of a container")),
    request_body = NewTag,
    responses(
        (status = 200, body = BTreeMap<String, BTreeMap<String, String>>),
        (status = 403),
        (status = 404),
        (status = 409),
    ),
)]
async fn set_tag_v2(State(app): State<App>, caller: Credential, Path(container): Path<String>, body: Bytes) -> Answer {
    let container = container.parse::<Id>()?;
    let NewTag { arch, tag: name, image } = json(&body)?;
    let arch = arch.filter(|arch| !arch.is_empty());
    let set = SetTag { image, name: &name.parse::<TagName>()?, arch: arch.as_deref() };
    let tag = tag::set(&app, &caller, container, set).await?;
    Ok(data(wire::tags_v2(tag.as_slice())))
}

#[derive(Deserialize)]
struct Search {
    #[serde(default)]
    value: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    entity: String,
    #[serde(default)]
    arch: String,
    signed: Option<String>,
}

/// Searches the names, descriptions, tags and labels in the caller's entities.
#[utoipa::path(
    get,
    path = "/v1/search",
    tag = "search",
    params(
        ("value" = Option<String>, Query, description = "Words to search for, one of at least 3 characters; each is a part of a word of what is found"),
        ("description" = Option<String>, Query, description = "Only what has this text in its own description"),
        ("entity" = Option<String>, Query, description = "Only in this entity; administrators can search any"),
        ("arch" = Option<String>, Query, description = "Only images for these architectures, separated by commas"),
        ("signed" = Option<bool>, Query, description = "Only signed images, or only unsigned ones"),
    ),
    responses((status = 200, body = wire::Found)),
)]
async fn find(State(app): State<App>, caller: Credential, Query(query): Query<Search>) -> Answer {
    let entity = Some(&query.entity).filter(|entity| !entity.is_empty()).map(|entity| entity.parse()).transpose()?;
    let query = search::Query {
        text: query.value,
        description: query.description,
        entity,
        archs: query.arch.split(',').filter(|arch| !arch.is_empty()).map(str::to_owned).collect(),
        signed: query.signed.and_then(|signed| signed.parse().ok()),
    };
    Ok(data(wire::results(&search::search(&app, &caller, &query).await?)))
}

/// The containers whose tags were set last, in the caller's entities, the latest first.
///
/// There are at most ten. They are found among the last 50 changes of each of the caller's first 20 entities.
#[utoipa::path(
    get,
    path = "/v1/latest",
    tag = "search",
    security(("bearer" = [])),
    responses((status = 200, body = [wire::Latest])),
)]
async fn latest(State(app): State<App>, caller: Credential) -> Answer {
    Ok(data(latest::containers(&app, &caller).await?.iter().map(wire::latest).collect::<Vec<_>>()))
}

/// The OCI registry behind the library: there is none.
///
/// Clients then use the library API, as they should: a registry behind it would only be a second way to the same
/// images.
#[utoipa::path(get, path = "/v1/oci-redirect", tag = "discovery", security(()), responses((status = 404)))]
async fn oci_redirect() -> Response {
    plain(StatusCode::NOT_FOUND, "this library is its own registry").into_response()
}
