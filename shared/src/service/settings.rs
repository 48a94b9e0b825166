//! Changing what entities, collections, containers and tags are like: descriptions, visibility, read-only, frozen.
//!
//! Each reads the row in one round and writes it back, conditional on its version; somebody faster: read again.

use super::access::Scene;
use super::create::{description, resource_of};
use super::retry::Retry;
use crate::app::App;
use crate::auth::Credential;
use crate::domain::{CollectionName, EntityName, Repository, TagName, Visibility};
use crate::error::Error;
use crate::rules::{Action, Place, Resource};
use crate::store::keys::{self, Key};
use crate::store::rows::{Collection, Container, Entity, Row, Tag};
use crate::store::table::{Condition, Write, Written};

/// What may change; `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// What its people say of it.
    pub description: Option<String>,
    /// Of an entity or collection: whether containers created in it later are private.
    pub private: Option<bool>,
    /// Of a container: who may read it.
    pub visibility: Option<Visibility>,
    /// Of a container: whether it takes no writes for now.
    pub read_only: Option<bool>,
    /// Of a tag: whether it may not be moved or deleted.
    pub frozen: Option<bool>,
}

impl Changes {
    /// Refuses what the kind of thing does not have, so that nobody believes it was set.
    fn only(&self, what: &str, has: &[&str]) -> Result<(), Error> {
        let said = [
            ("description", self.description.is_some()),
            ("private", self.private.is_some()),
            ("visibility", self.visibility.is_some()),
            ("readOnly", self.read_only.is_some()),
            ("frozen", self.frozen.is_some()),
        ];
        match said.iter().find(|(name, said)| *said && !has.contains(name)) {
            Some((name, _)) => Err(Error::Invalid(format!("{what} has no `{name}`, only {}", has.join(", ")))),
            None => Ok(()),
        }
    }
}

/// A row that changes only under the condition of its version.
trait Versioned: Row {
    fn version(&mut self) -> &mut u64;
}

macro_rules! versioned {
    ($($type:ty),*) => {$(
        impl Versioned for $type {
            fn version(&mut self) -> &mut u64 {
                &mut self.version
            }
        }
    )*};
}
versioned!(Entity, Collection, Container, Tag);

/// Changes an entity.
pub async fn entity(app: &App, credential: &Credential, name: &EntityName, changes: &Changes) -> Result<(), Error> {
    changes.only("an entity", &["description", "private"])?;
    let text = changes.description.as_deref().map(description).transpose()?;
    let resource = |_: &Entity| Resource::Entity(name.clone());
    let place = Place::Entity(name.clone());
    change(app, credential, ("entity", name), keys::entity(name), place, resource, |row: &mut Entity| {
        row.description = text.clone().unwrap_or(std::mem::take(&mut row.description));
        row.default_private = changes.private.unwrap_or(row.default_private);
    })
    .await
}

/// Changes a collection.
pub async fn collection(
    app: &App,
    credential: &Credential,
    (entity, name): (&EntityName, &CollectionName),
    changes: &Changes,
) -> Result<(), Error> {
    changes.only("a collection", &["description", "private"])?;
    let text = changes.description.as_deref().map(description).transpose()?;
    let resource = |_: &Collection| Resource::Collection(entity.clone(), name.clone());
    let place = Place::Collection(entity.clone(), name.clone());
    let key = keys::collection(entity, name);
    change(app, credential, ("collection", entity), key, place, resource, |row: &mut Collection| {
        row.description = text.clone().unwrap_or(std::mem::take(&mut row.description));
        row.private = changes.private.unwrap_or(row.private);
    })
    .await
}

/// Changes a container.
pub async fn container(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    changes: &Changes,
) -> Result<(), Error> {
    changes.only("a container", &["description", "visibility", "readOnly"])?;
    let text = changes.description.as_deref().map(description).transpose()?;
    let place = Place::Repository(repository.clone());
    let key = keys::container(repository);
    change(app, credential, ("container", repository.entity()), key, place, resource_of, |row: &mut Container| {
        row.description = text.clone().unwrap_or(std::mem::take(&mut row.description));
        row.visibility = changes.visibility.unwrap_or(row.visibility);
        row.read_only = changes.read_only.unwrap_or(row.read_only);
    })
    .await
}

/// Freezes a tag, or lifts that.
pub async fn tag(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    name: &TagName,
    changes: &Changes,
) -> Result<(), Error> {
    changes.only("a tag", &["frozen"])?;
    let place = Place::Repository(repository.clone());
    let resource = |tag: &Tag| Resource::Tag { repository: repository.clone(), read_only: false, frozen: tag.frozen };
    let key = keys::tag(repository, name);
    change(app, credential, ("tag", repository.entity()), key, place, resource, |row: &mut Tag| {
        row.frozen = changes.frozen.unwrap_or(row.frozen);
    })
    .await
}

async fn change<R: Versioned>(
    app: &App,
    credential: &Credential,
    (what, entity): (&'static str, &EntityName),
    key: Key,
    place: Place,
    resource: impl Fn(&R) -> Resource,
    edit: impl Fn(&mut R),
) -> Result<(), Error> {
    let doing = format!("change this {what}");
    let mut retry = Retry::of("changes of the same thing");
    loop {
        retry.pause().await?;
        let mut scene = Scene::load(app, credential, Some(entity), [key.clone()]).await?;
        let row: Option<R> = scene.take(&key)?;
        let resource = row.as_ref().map_or_else(|| Resource::Missing(place.clone()), &resource);
        let grant = scene.decide(Action::Manage, &resource).map_err(|denial| Error::denied(denial, what, &doing))?;
        let mut row = row.ok_or(Error::NotFound(what))?;
        edit(&mut row);
        let version = *row.version();
        *row.version() += 1;
        if app.table.write(&grant, vec![Write::put(&row, Condition::Version(version))?]).await? == Written::Done {
            return Ok(());
        }
    }
}
