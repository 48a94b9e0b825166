//! Whole objects that come back changed, as Hinkskalle's clients send them: a field that is null or left out stays as it
//! is, and what can't be changed must be what it was.

use crate::{named_image, wire};
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json as value;
use shared::App;
use shared::Error;
use shared::auth::Credential;
use shared::domain::{CustomData, Description, Readme, Said, SourceUrl, TagName};
use shared::http::library::{Answer, Failure, OnlyArch, data, json};
use shared::service::image::{self, NamedImage};
use shared::service::settings::{self, Fixed, Settings};
use shared::service::{MAX_SHOWN, browse};
use std::collections::BTreeSet;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(put_entity))
        .routes(routes!(put_collection))
        .routes(routes!(put_container))
        .routes(routes!(put_image))
}

/// An entity, a collection or a container. Fields that are null or left out stay unchanged.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Whole {
    /// It can't be changed.
    name: Option<String>,
    /// It can't be changed.
    created_by: Option<String>,
    #[schema(value_type = Option<String>)]
    description: Option<Description>,
    /// The README, in Markdown.
    #[schema(value_type = Option<String>)]
    full_description: Option<Readme>,
    #[schema(value_type = Option<String>)]
    custom_data: Option<CustomData>,
    /// Of a container: where its sources are, a URL with http or https.
    #[schema(value_type = Option<String>)]
    vcs_url: Option<SourceUrl>,
    /// Of an entity: whether new containers in it are private.
    default_private: Option<bool>,
    /// Of a collection: whether new containers in it are private. Of a container: whether it is.
    private: Option<bool>,
    /// Of a container.
    read_only: Option<bool>,
}

impl Whole {
    fn settings(self) -> Settings {
        let Self { name, created_by, description, full_description: readme, custom_data, vcs_url, .. } = self;
        Settings {
            description,
            said: Said { readme, custom_data, vcs_url },
            read_only: self.read_only,
            fixed: Fixed { name, created_by },
            ..Settings::default()
        }
    }

    /// Refuses a field that this kind of thing does not have, so that nobody believes it was obeyed.
    fn without(field: &str, value: Option<bool>) -> Result<(), Failure> {
        match value {
            Some(true) => Err(Failure(Error::Invalid(format!("there is no `{field}` here")))),
            _ => Ok(()),
        }
    }
}

/// Changes an entity: description, README, data, and whether new containers in it are private.
#[utoipa::path(
    put,
    path = "/v1/entities/{name}",
    tag = "entities",
    params(("name" = String, Path, description = "The name of an entity")),
    request_body = Whole,
    responses((status = 200, body = wire::Entity), (status = 403), (status = 404)),
)]
async fn put_entity(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let name = app.config.defaults.entity(&name)?;
    let whole: Whole = json(&body)?;
    Whole::without("private", whole.private)?;
    let private = whole.default_private;
    settings::entity(&app, &caller, &name, &Settings { private, ..whole.settings() }).await?;
    Ok(data(wire::entity(&browse::entity(&app, &caller, &name).await?)))
}

/// Changes a collection: description, README, data, and whether new containers in it are private.
#[utoipa::path(
    put,
    path = "/v1/collections/{*path}",
    tag = "collections",
    params(("path" = String, Path, description = "`[ENTITY/]COLLECTION`")),
    request_body = Whole,
    responses((status = 200, body = wire::Collection), (status = 403), (status = 404)),
)]
async fn put_collection(State(app): State<App>, caller: Credential, Path(path): Path<String>, body: Bytes) -> Answer {
    let (entity, name) = app.config.defaults.collection(&path)?;
    let whole: Whole = json(&body)?;
    Whole::without("defaultPrivate", whole.default_private)?;
    let private = whole.private;
    settings::collection(&app, &caller, &entity, &name, &Settings { private, ..whole.settings() }).await?;
    Ok(data(wire::whole_collection(&browse::collection(&app, &caller, &entity, &name).await?)))
}

/// Changes a container: what is said about it, whether it is private, and whether it is read-only.
///
/// With `private: false`, a private container can then be read by everybody; another one stays as it is.
#[utoipa::path(
    put,
    path = "/v1/containers/{*path}",
    tag = "containers",
    params(("path" = String, Path, description = "`[[ENTITY/]COLLECTION/]CONTAINER`")),
    request_body = Whole,
    responses((status = 200, body = wire::Container), (status = 403), (status = 404)),
)]
async fn put_container(State(app): State<App>, caller: Credential, Path(path): Path<String>, body: Bytes) -> Answer {
    let repository = app.config.defaults.container(&path)?;
    let whole: Whole = json(&body)?;
    Whole::without("defaultPrivate", whole.default_private)?;
    let closed = whole.private;
    settings::container(&app, &caller, &repository, &Settings { closed, ..whole.settings() }).await?;
    Ok(data(wire::whole(&browse::container(&app, &caller, &repository, MAX_SHOWN).await?)))
}

/// An image, or with `/tags` after its path, its tags.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WholeImage {
    #[schema(value_type = Option<String>)]
    description: Option<Description>,
    /// Images have none: it must be null or empty.
    custom_data: Option<String>,
    /// With `/tags`: all tags that the image is to have.
    tags: Option<Vec<String>>,
}

/// Changes the description of an image, or with `/tags` after the path, the set of its tags.
///
/// Those tags are then the image's, and all others that it had are not. Whoever may set tags adds them; whoever may
/// delete the image takes them away.
#[utoipa::path(
    put,
    path = "/v1/images/{*reference}",
    tag = "images",
    params(
        ("reference" = String, Path, description = "`[[ENTITY/]COLLECTION/]CONTAINER[:TAG-OR-HASH][/tags]`"),
        ("arch" = Option<String>, Query, description = "The architecture of the image, like `amd64`"),
    ),
    request_body = WholeImage,
    responses((status = 200, body = wire::Image), (status = 403), (status = 404), (status = 409)),
)]
async fn put_image(
    State(app): State<App>,
    caller: Credential,
    Path(path): Path<String>,
    OnlyArch(arch): OnlyArch,
    body: Bytes,
) -> Answer {
    let WholeImage { description, custom_data, tags } = json(&body)?;
    if let Some(path) = named_image(&path, "/tags") {
        let tags = tags.ok_or_else(|| Failure(Error::Invalid("say in `tags` which tags it is to have".to_owned())))?;
        let tags = tags.iter().map(|tag| tag.parse::<TagName>()).collect::<Result<BTreeSet<_>, _>>()?;
        let reference = app.config.defaults.reference(path)?;
        let named = NamedImage { reference: &reference, arch: arch.as_deref() };
        let tags = image::set_tags(&app, &caller, named, tags).await?;
        return Ok(data(value!({ "tags": tags })));
    }
    if custom_data.is_some_and(|text| !text.is_empty()) {
        return Err(Failure(Error::Invalid("an image has no `customData`, its container can have some".to_owned())));
    }
    let reference = app.config.defaults.reference(&path)?;
    let named = NamedImage { reference: &reference, arch: arch.as_deref() };
    let (container, image) = image::describe(&app, &caller, named, description).await?;
    Ok(data(wire::image(&container, &image)))
}
