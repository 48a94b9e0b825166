//! Changing the settings of entities, collections, containers and tags: descriptions, READMEs, visibility, read-only,
//! frozen.
//!
//! 1. Read the row, and if something is said that does not lie in it, the row of that, in one round.
//! 2. In one transaction, each conditional on the version that was read: write both. *Lost*: start again.

use super::access::{Access, resource_of};
use super::retry::Retry;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::about::{self, Subject};
use crate::changes::{Changes, entities, tags};
use crate::domain::{Actor, CollectionName, Description, EntityName, Id, Repository, Said, TagName, Visibility};
use crate::error::Error;
use crate::rules::{Action, Place, Resource};
use crate::store::keys::{self, Key};
use crate::store::rows::{About, Collection, Container, Described, Entity, Row, Tag};
use crate::store::table::Written;

/// The settings to change; `None` leaves one unchanged.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The description.
    pub description: Option<Description>,
    /// Of an entity, collection or container: what else is said about it.
    pub said: Said,
    /// Of an entity or collection: whether new containers in it are private.
    pub private: Option<bool>,
    /// Of a container: who may read it.
    pub visibility: Option<Visibility>,
    /// The same for clients that know only private containers and others: whether it is private. One that no longer is
    /// can be read by everybody; one that was not stays as it is.
    pub closed: Option<bool>,
    /// Of a container: whether it is read-only.
    pub read_only: Option<bool>,
    /// Of a tag: whether it is frozen: it may not be moved or deleted.
    pub frozen: Option<bool>,
    /// What can't be changed, and must be so already.
    pub fixed: Fixed,
}

/// What clients send with the settings of a thing and is none of them. Somebody who wants it otherwise is told that it
/// stays.
#[derive(Debug, Clone, Default)]
pub struct Fixed {
    /// Its name.
    pub name: Option<String>,
    /// Its creator.
    pub created_by: Option<String>,
}

impl Fixed {
    /// Refuses to leave as it is what somebody wants to change.
    fn kept_by(&self, name: &str, created_by: Option<&Actor>) -> Result<(), Error> {
        if self.name.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(name)) {
            return Err(Error::Invalid(format!("`name` can't be changed: it is `{name}`")));
        }
        let by = created_by.map(ToString::to_string).unwrap_or_default();
        if self.created_by.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&by)) {
            return Err(Error::Invalid(format!("`createdBy` can't be changed: it is `{by}`")));
        }
        Ok(())
    }
}

impl Settings {
    /// The settings that are given, by their names on the wire.
    fn said(&self) -> Vec<&'static str> {
        let all = [
            ("description", self.description.is_some()),
            ("fullDescription", self.said.readme.is_some()),
            ("customData", self.said.custom_data.is_some()),
            ("vcsUrl", self.said.vcs_url.is_some()),
            ("private", self.private.is_some() || self.closed.is_some()),
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

    /// The visibility of a container that has another one now.
    fn visibility(&self, now: Visibility) -> Visibility {
        let open = if now == Visibility::Private { Visibility::Public } else { now };
        let closed = self.closed.map(|closed| if closed { Visibility::Private } else { open });
        self.visibility.or(closed).unwrap_or(now)
    }

    /// The key of what is said, if something is.
    fn about(&self, of: &Described) -> Option<Key> {
        (!self.said.is_empty()).then(|| of.key())
    }

    /// Writes what is said.
    fn saying(&self, app: &App, before: Option<About>, of: Described, id: Id) -> Result<Changes, Error> {
        if self.said.is_empty() {
            return Ok(Changes::unrecorded());
        }
        about::said(before, Subject { of, id }, &self.said, app.now())
    }
}

/// Changes an entity.
pub async fn entity(app: &App, credential: &Credential, name: &EntityName, settings: &Settings) -> Result<(), Error> {
    settings.only("an entity", &["description", "fullDescription", "customData", "private"])?;
    let of = Described::Entity(name.clone());
    let setting = Setting {
        what: "entity",
        key: keys::entity(name),
        about: settings.about(&of),
        place: Place::Entity(name.clone()),
        resource: |_: &Entity| Resource::Entity(name.clone()),
    };
    setting
        .write(app, credential, |mut row: Entity, about| {
            settings.fixed.kept_by(row.name.as_str(), row.created_by.as_ref())?;
            let saying = settings.saying(app, about, of.clone(), row.id)?;
            row.description = settings.description.clone().unwrap_or(std::mem::take(&mut row.description));
            row.default_private = settings.private.unwrap_or(row.default_private);
            entities::set(row, setting.place.clone(), &settings.said()).map(|changes| changes.and(saying))
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
    settings.only("a collection", &["description", "fullDescription", "customData", "private"])?;
    let of = Described::Collection(entity.clone(), name.clone());
    let setting = Setting {
        what: "collection",
        key: keys::collection(entity, name),
        about: settings.about(&of),
        place: Place::Collection(entity.clone(), name.clone()),
        resource: |_: &Collection| Resource::Collection(entity.clone(), name.clone()),
    };
    setting
        .write(app, credential, |mut row: Collection, about| {
            settings.fixed.kept_by(row.name.as_str(), row.created_by.as_ref())?;
            let saying = settings.saying(app, about, of.clone(), row.id)?;
            row.description = settings.description.clone().unwrap_or(std::mem::take(&mut row.description));
            row.private = settings.private.unwrap_or(row.private);
            entities::set(row, setting.place.clone(), &settings.said()).map(|changes| changes.and(saying))
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
    let has = &["description", "fullDescription", "customData", "vcsUrl", "visibility", "readOnly"];
    Settings { closed: None, ..settings.clone() }.only("a container", has)?;
    let of = Described::Container(repository.clone());
    let setting = Setting {
        what: "container",
        key: keys::container(repository),
        about: settings.about(&of),
        place: Place::Repository(repository.clone()),
        resource: resource_of,
    };
    setting
        .write(app, credential, |mut row: Container, about| {
            let name = repository.rest().rsplit('/').next().unwrap_or_default();
            settings.fixed.kept_by(name, row.created_by.as_ref())?;
            let saying = settings.saying(app, about, of.clone(), row.id)?;
            row.description = settings.description.clone().unwrap_or(std::mem::take(&mut row.description));
            row.visibility = settings.visibility(row.visibility);
            row.read_only = settings.read_only.unwrap_or(row.read_only);
            entities::set(row, setting.place.clone(), &settings.said()).map(|changes| changes.and(saying))
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
        about: None,
        place: Place::Repository(repository.clone()),
        resource: |tag: &Tag| Resource::Tag { repository: repository.clone(), read_only: false, frozen: tag.frozen },
    };
    setting
        .write(app, credential, |row: Tag, _| {
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
    /// Where something is said about it that does not lie in its row, if that changes.
    about: Option<Key>,
    place: Place,
    /// The row as a resource of the rules.
    resource: F,
}

impl<F> Setting<F> {
    async fn write<R>(
        &self,
        app: &App,
        credential: &Credential,
        edit: impl Fn(R, Option<About>) -> Result<Changes, Error>,
    ) -> Result<(), Error>
    where
        R: Row,
        F: Fn(&R) -> Resource,
    {
        let Self { what, key, about, place, .. } = self;
        let doing = format!("change this {what}");
        let mut retry = Retry::of("changes of the same thing");
        loop {
            retry.pause().await?;
            let wanted = [key.clone()].into_iter().chain(about.clone());
            let mut access = Access::load(app, credential, place.entity(), wanted).await?;
            let row: Option<R> = access.take(key)?;
            let resource = row.as_ref().map_or_else(|| Resource::Missing(place.clone()), &self.resource);
            let grant = access.require(Action::Manage, &resource, what, &doing)?;
            let about = about.as_ref().map(|key| access.take(key)).transpose()?.flatten();
            let changes = edit(row.ok_or(Error::NotFound(what))?, about)?;
            if app.commit(&grant, changes).await? == Written::Done {
                return Ok(());
            }
        }
    }
}
