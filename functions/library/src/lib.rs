//! The library API's metadata: entities, collections, containers, images, tags, search.

pub mod wire;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use shared::auth::Credential;
use shared::domain::reference::ReferenceError;
use shared::domain::{Digest, Id, Selector, TagName, Visibility};
use shared::http::authorization;
use shared::http::library::{Answer, Failure, data, json, list, plain};
use shared::service::pull::Purpose;
use shared::service::settings::{self, Changes};
use shared::service::{browse, create, delete, pull, search, tag};
use shared::{App, Error};
use std::collections::HashMap;

/// The routes.
pub fn router(app: App) -> Router {
    let router = Router::new()
        .route("/v1/entities", get(list_entities).post(create_entity))
        .route("/v1/entities/", get(default_entity))
        .route("/v1/entities/{name}", get(entity).patch(change_entity))
        .route("/v1/collections", get(list_collections).post(create_collection))
        .route("/v1/collections/{*path}", get(collection).patch(change_collection))
        .route("/v1/containers", get(list_containers).post(create_container))
        .route("/v1/containers/{*path}", get(container).patch(change_container))
        .route("/v1/images", get(list_images).post(create_image))
        .route("/v1/images/{*reference}", get(image).delete(delete_image).patch(change_tag))
        .route("/v1/tags/{container}", get(tags_v1).post(set_tag_v1))
        .route("/v2/tags/{container}", get(tags_v2).post(set_tag_v2))
        .route("/v1/search", get(find))
        .route("/v1/oci-redirect", get(oci_redirect))
        .with_state(app);
    shared::http::finish(router)
}

fn caller(app: &App, headers: &HeaderMap) -> Result<Credential, Failure> {
    Ok(app.keys.credential(authorization(headers), app.now())?)
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    entity: String,
    #[serde(default)]
    collection: String,
    #[serde(default)]
    container: String,
    after: Option<String>,
}

impl Listing {
    fn after(&self) -> Result<Option<String>, Failure> {
        match &self.after {
            Some(after) if after.is_empty() || after.len() > 512 => {
                Err(Failure(Error::Invalid("`after` is not what the last page gave".to_owned())))
            }
            after => Ok(after.clone()),
        }
    }
}

async fn list_entities(State(app): State<App>, headers: HeaderMap, Query(query): Query<Listing>) -> Answer {
    let page = browse::entities(&app, &caller(&app, &headers)?, query.after()?).await?;
    Ok(list(page.rows.iter().map(wire::entity).collect::<Vec<_>>(), page.next.as_deref()))
}

async fn default_entity(State(app): State<App>, headers: HeaderMap) -> Answer {
    let view = browse::entity(&app, &caller(&app, &headers)?, &app.config.defaults.entity).await?;
    Ok(data(wire::entity(&view)))
}

async fn entity(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>) -> Answer {
    let view = browse::entity(&app, &caller(&app, &headers)?, &app.config.defaults.entity(&name)?).await?;
    Ok(data(wire::entity(&view)))
}

#[derive(Deserialize)]
struct NewEntity {
    name: String,
    #[serde(default)]
    description: Option<String>,
}

async fn create_entity(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let new: NewEntity = json(&body)?;
    let name = app.config.defaults.entity(&new.name)?;
    let entity = create::entity(&app, &caller, name, new.description.as_deref().unwrap_or_default()).await?;
    Ok(data(wire::new_entity(&entity)))
}

async fn list_collections(State(app): State<App>, headers: HeaderMap, Query(query): Query<Listing>) -> Answer {
    let entity = app.config.defaults.entity(&query.entity)?;
    let page = browse::collections(&app, &caller(&app, &headers)?, &entity, query.after()?).await?;
    Ok(list(page.rows.iter().map(wire::collection).collect::<Vec<_>>(), page.next.as_deref()))
}

async fn collection(State(app): State<App>, headers: HeaderMap, Path(path): Path<String>) -> Answer {
    let (entity, name) = app.config.defaults.collection(&path)?;
    Ok(data(wire::collection(&browse::collection(&app, &caller(&app, &headers)?, &entity, &name).await?)))
}

#[derive(Deserialize)]
struct NewCollection {
    name: String,
    entity: Id,
    #[serde(default)]
    description: Option<String>,
}

async fn create_collection(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let NewCollection { name, entity, description } = json(&body)?;
    let text = description.unwrap_or_default();
    let name = if name.is_empty() { app.config.defaults.collection.clone() } else { name.parse()? };
    Ok(data(wire::collection(&create::collection(&app, &caller, entity, name, &text).await?)))
}

async fn list_containers(State(app): State<App>, headers: HeaderMap, Query(query): Query<Listing>) -> Answer {
    let (entity, collection) = if query.collection.is_empty() {
        (app.config.defaults.entity(&query.entity)?, None)
    } else {
        let (entity, collection) = app.config.defaults.collection(&query.collection)?;
        (entity, Some(collection))
    };
    let page = browse::containers(&app, &caller(&app, &headers)?, &entity, collection.as_ref(), query.after()?).await?;
    Ok(list(page.rows.iter().map(|row| wire::container(row, &[])).collect::<Vec<_>>(), page.next.as_deref()))
}

async fn container(State(app): State<App>, headers: HeaderMap, Path(path): Path<String>) -> Answer {
    let repository = app.config.defaults.container(&path)?;
    let view = browse::container(&app, &caller(&app, &headers)?, &repository).await?;
    Ok(data(wire::container(&view.container, &view.images)))
}

#[derive(Deserialize)]
struct NewContainer {
    name: String,
    collection: Id,
    #[serde(default)]
    description: Option<String>,
}

async fn create_container(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let NewContainer { name, collection, description } = json(&body)?;
    let text = description.unwrap_or_default();
    let container = create::container(&app, &caller, collection, &name.parse()?, &text).await?;
    Ok(data(wire::container(&container, &[])))
}

async fn list_images(State(app): State<App>, headers: HeaderMap, Query(query): Query<Listing>) -> Answer {
    let repository = app.config.defaults.container(&query.container)?;
    let (container, page) = browse::images(&app, &caller(&app, &headers)?, &repository, query.after()?).await?;
    let rows: Vec<_> = page.rows.iter().map(|image| wire::image(&container, image)).collect();
    Ok(list(rows, page.next.as_deref()))
}

#[derive(Deserialize)]
struct NewImage {
    hash: String,
    container: Id,
    #[serde(default)]
    description: Option<String>,
}

async fn create_image(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let NewImage { hash, container, description } = json(&body)?;
    let hash = Digest::from_library(&hash)?;
    let (container, image) =
        create::image(&app, &caller, container, hash, description.as_deref().unwrap_or_default()).await?;
    Ok(data(wire::image(&container, &image)))
}

/// The architecture in a query. Some clients write `?arch%3Damd64`, a key `arch=amd64` without a value.
fn arch(query: &HashMap<String, String>) -> Option<&str> {
    let odd = || query.keys().find_map(|key| key.strip_prefix("arch="));
    query.get("arch").map(String::as_str).or_else(odd).filter(|arch| !arch.is_empty())
}

async fn image(
    State(app): State<App>,
    headers: HeaderMap,
    Path(reference): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let caller = caller(&app, &headers)?;
    // A reference that nothing can have names nothing.
    let not_found = |_: ReferenceError| Failure(Error::NotFound("image"));
    let reference = app.config.defaults.reference(&reference).map_err(not_found)?;
    let found = pull::find(&app, &caller, &reference, arch(&query), Purpose::Look).await?;
    let mut image = wire::image(&found.container, &found.image);
    if query.contains_key("details") {
        image.details = browse::details(&app, &reference.repository, &found.image.hash).await?;
    }
    Ok(data(image))
}

async fn delete_image(
    State(app): State<App>,
    headers: HeaderMap,
    Path(reference): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let caller = caller(&app, &headers)?;
    let reference = app.config.defaults.reference(&reference)?;
    delete::image(&app, &caller, &reference, arch(&query)).await?;
    Ok(data(serde_json::json!({})))
}

/// What a `PATCH` may say; what is left out stays as it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Changed {
    description: Option<String>,
    default_private: Option<bool>,
    private: Option<bool>,
    visibility: Option<Visibility>,
    read_only: Option<bool>,
    frozen: Option<bool>,
}

impl From<Changed> for Changes {
    fn from(changed: Changed) -> Self {
        let Changed { description, default_private, private, visibility, read_only, frozen } = changed;
        Self { description, private: private.or(default_private), visibility, read_only, frozen }
    }
}

async fn change_entity(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let name = app.config.defaults.entity(&name)?;
    settings::entity(&app, &caller, &name, &json::<Changed>(&body)?.into()).await?;
    Ok(data(wire::entity(&browse::entity(&app, &caller, &name).await?)))
}

async fn change_collection(
    State(app): State<App>,
    headers: HeaderMap,
    Path(path): Path<String>,
    body: Bytes,
) -> Answer {
    let caller = caller(&app, &headers)?;
    let (entity, name) = app.config.defaults.collection(&path)?;
    settings::collection(&app, &caller, (&entity, &name), &json::<Changed>(&body)?.into()).await?;
    Ok(data(wire::collection(&browse::collection(&app, &caller, &entity, &name).await?)))
}

async fn change_container(State(app): State<App>, headers: HeaderMap, Path(path): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let repository = app.config.defaults.container(&path)?;
    settings::container(&app, &caller, &repository, &json::<Changed>(&body)?.into()).await?;
    let view = browse::container(&app, &caller, &repository).await?;
    Ok(data(wire::container(&view.container, &view.images)))
}

/// Freezes the tag of a reference, or lifts that: `{"frozen": true}`.
async fn change_tag(State(app): State<App>, headers: HeaderMap, Path(reference): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let reference = app.config.defaults.reference(&reference)?;
    let changes = json::<Changed>(&body)?.into();
    let Selector::Tag(name) = &reference.selector else {
        return Err(Failure(Error::Invalid("name a tag: only tags can be frozen".to_owned())));
    };
    settings::tag(&app, &caller, &reference.repository, name, &changes).await?;
    Ok(data(serde_json::json!({})))
}

async fn tags_v1(State(app): State<App>, headers: HeaderMap, Path(container): Path<String>) -> Answer {
    Ok(data(wire::tags_v1(&tag::list(&app, &caller(&app, &headers)?, container.parse::<Id>()?).await?)))
}

async fn tags_v2(State(app): State<App>, headers: HeaderMap, Path(container): Path<String>) -> Answer {
    Ok(data(wire::tags_v2(&tag::list(&app, &caller(&app, &headers)?, container.parse::<Id>()?).await?)))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NewTag {
    #[serde(default)]
    arch: Option<String>,
    tag: String,
    #[serde(rename = "ImageID")]
    image: Id,
}

async fn set_tag_v1(State(app): State<App>, headers: HeaderMap, Path(container): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let container = container.parse::<Id>()?;
    let NewTag { tag: name, image, .. } = json(&body)?;
    tag::set(&app, &caller, container, image, &name.parse::<TagName>()?, None).await?;
    Ok(data(wire::tags_v1(&tag::list(&app, &caller, container).await?)))
}

async fn set_tag_v2(State(app): State<App>, headers: HeaderMap, Path(container): Path<String>, body: Bytes) -> Answer {
    let caller = caller(&app, &headers)?;
    let container = container.parse::<Id>()?;
    let NewTag { arch, tag: name, image } = json(&body)?;
    let arch = arch.filter(|arch| !arch.is_empty());
    tag::set(&app, &caller, container, image, &name.parse::<TagName>()?, arch.as_deref()).await?;
    Ok(data(wire::tags_v2(&tag::list(&app, &caller, container).await?)))
}

#[derive(Deserialize)]
struct Search {
    #[serde(default)]
    value: String,
    #[serde(default)]
    arch: String,
    signed: Option<String>,
}

async fn find(State(app): State<App>, headers: HeaderMap, Query(query): Query<Search>) -> Answer {
    let caller = caller(&app, &headers)?;
    let query = search::Query {
        text: query.value,
        archs: query.arch.split(',').filter(|arch| !arch.is_empty()).map(str::to_owned).collect(),
        signed: query.signed.and_then(|signed| signed.parse().ok()),
    };
    Ok(data(wire::results(&search::search(&app, &caller, &query).await?)))
}

/// Clients then use the library API, which is what they should: a registry behind it is another door to the same images.
async fn oci_redirect() -> Response {
    plain(StatusCode::NOT_FOUND, "this library is its own registry").into_response()
}
