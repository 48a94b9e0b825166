//! Changing the settings of entities, collections, containers and tags: descriptions, visibility, read-only, frozen.
//!
//! Each change reads the row in one round and writes it back, conditional on its version. If somebody was faster, it
//! reads again.

use super::access::{Access, resource_of};
use super::retry::Retry;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::{Changes, entities, tags};
use crate::domain::{CollectionName, Description, EntityName, Repository, TagName, Visibility};
use crate::error::Error;
use crate::rules::{Action, Place, Resource};
use crate::store::keys::{self, Key};
use crate::store::rows::{Collection, Container, Entity, Row, Tag};
use crate::store::table::Written;

/// The settings to change; `None` leaves one unchanged.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The description.
    pub description: Option<Description>,
    /// Of an entity or collection: whether new containers in it are private.
    pub private: Option<bool>,
    /// Of a container: who may read it.
    pub visibility: Option<Visibility>,
    /// Of a container: whether it is read-only.
    pub read_only: Option<bool>,
    /// Of a tag: whether it is frozen: it may not be moved or deleted.
    pub frozen: Option<bool>,
}

impl Settings {
    /// The settings that are given, by their names on the wire.
    fn said(&self) -> Vec<&'static str> {
        let all = [
            ("description", self.description.is_some()),
            ("private", self.private.is_some()),
            ("visibility", self.visibility.is_some()),
            ("readOnly", self.read_only.is_some()),
            ("frozen", self.frozen.is_some()),
        ];
        all.into_iter().filter(|(_, said)| *said).map(|(name, _)| name).collect()
    }

    /// Refuses settings that this kind of thing does not have, so that nobody believes they were set.
    fn only(&self, what: &str, has: &[&str]) -> Result<(), Error> {
        match self.said().into_iter().find(|name| !has.contains(name)) {
            Some(name) => Err(Error::Invalid(format!("{what} has no `{name}`, only {}", has.join(", ")))),
            None => Ok(()),
        }
    }
}

/// Changes an entity.
pub async fn entity(app: &App, credential: &Credential, name: &EntityName, settings: &Settings) -> Result<(), Error> {
    settings.only("an entity", &["description", "private"])?;
    let setting = Setting {
        what: "entity",
        key: keys::entity(name),
        place: Place::Entity(name.clone()),
        resource: |_: &Entity| Resource::Entity(name.clone()),
    };
    setting
        .write(app, credential, |mut row: Entity| {
            row.description = settings.description.clone().unwrap_or(std::mem::take(&mut row.description));
            row.default_private = settings.private.unwrap_or(row.default_private);
            entities::set(row, setting.place.clone(), &settings.said())
        })
        .await
}

/// Changes a collection.
pub async fn collection(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    name: &CollectionName,
    settings: &Settings,
) -> Result<(), Error> {
    settings.only("a collection", &["description", "private"])?;
    let setting = Setting {
        what: "collection",
        key: keys::collection(entity, name),
        place: Place::Collection(entity.clone(), name.clone()),
        resource: |_: &Collection| Resource::Collection(entity.clone(), name.clone()),
    };
    setting
        .write(app, credential, |mut row: Collection| {
            row.description = settings.description.clone().unwrap_or(std::mem::take(&mut row.description));
            row.private = settings.private.unwrap_or(row.private);
            entities::set(row, setting.place.clone(), &settings.said())
        })
        .await
}

/// Changes a container.
pub async fn container(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    settings: &Settings,
) -> Result<(), Error> {
    settings.only("a container", &["description", "visibility", "readOnly"])?;
    let setting = Setting {
        what: "container",
        key: keys::container(repository),
        place: Place::Repository(repository.clone()),
        resource: resource_of,
    };
    setting
        .write(app, credential, |mut row: Container| {
            row.description = settings.description.clone().unwrap_or(std::mem::take(&mut row.description));
            row.visibility = settings.visibility.unwrap_or(row.visibility);
            row.read_only = settings.read_only.unwrap_or(row.read_only);
            entities::set(row, setting.place.clone(), &settings.said())
        })
        .await
}

/// Freezes or unfreezes a tag.
pub async fn tag(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    name: &TagName,
    settings: &Settings,
) -> Result<(), Error> {
    settings.only("a tag", &["frozen"])?;
    let setting = Setting {
        what: "tag",
        key: keys::tag(repository, name),
        place: Place::Repository(repository.clone()),
        resource: |tag: &Tag| Resource::Tag { repository: repository.clone(), read_only: false, frozen: tag.frozen },
    };
    setting
        .write(app, credential, |row: Tag| {
            let frozen = settings.frozen.unwrap_or(row.frozen);
            tags::frozen(row, frozen)
        })
        .await
}

/// Something whose settings can change, with the facts for the rules.
struct Setting<F> {
    /// Its name.
    what: &'static str,
    key: Key,
    place: Place,
    /// The row as a resource of the rules.
    resource: F,
}

impl<F> Setting<F> {
    async fn write<R>(
        &self,
        app: &App,
        credential: &Credential,
        edit: impl Fn(R) -> Result<Changes, Error>,
    ) -> Result<(), Error>
    where
        R: Row,
        F: Fn(&R) -> Resource,
    {
        let Self { what, key, place, .. } = self;
        let doing = format!("change this {what}");
        let mut retry = Retry::of("changes of the same thing");
        loop {
            retry.pause().await?;
            let mut access = Access::load(app, credential, place.entity(), [key.clone()]).await?;
            let row: Option<R> = access.take(key)?;
            let resource = row.as_ref().map_or_else(|| Resource::Missing(place.clone()), &self.resource);
            let grant = access.require(Action::Manage, &resource, what, &doing)?;
            let changes = edit(row.ok_or(Error::NotFound(what))?)?;
            if app.commit(&grant, changes).await? == Written::Done {
                return Ok(());
            }
        }
    }
}
