//! Deleting containers, collections, entities and users, with everything in them.
//!
//! A container is hidden by removing its row: every lookup and every change of something in it asks for that. What it
//! had is removed afterwards, so that nothing waits for thousands of rows.
//!
//! 1. Read what is to be deleted, and decide. Read what is in it: the deletion is refused if there is something and it
//!    was not asked for, or if a tag is frozen, or a container read-only, and it was not forced. A user's account is
//!    disabled.
//! 2. Hide the containers, some in a transaction: their rows go, and each leaves a [`RemovedContainer`], which keeps its
//!    name from being used again. The condition is that nothing was committed in them since they were read. *Lost*: start
//!    again with those that are left. *Dies*: those that were hidden stay so, and the rest is still there.
//! 3. Remove the collections, and at last the entity, with its user if it is one's own. Making something in a collection
//!    or entity changes its row's version, so nothing is removed that something was made in. *Lost*: start again. The
//!    entity leaves a [`RemovedEntity`].
//! 4. [Drain](drain) the hidden containers, and then the entity, as far as there is time. *Dies*, or no time: the
//!    sweeper goes on. Only when nothing is left, a container's name is free. An entity's is then free for site admins.
//!
//! An upload that is open keeps what it reserved until it ends, and deleted bytes stay in the account until they are
//! collected. So an entity's account is closed by a sweep, days after the entity was deleted.

pub(crate) mod drain;
mod survey;

pub use self::survey::Contents;

use super::access::{Access, entity_at, resource_at};
use super::people::users::acting;
use super::retry::{Retry, Try};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::removal::{self, Deletion, Emptied};
use crate::changes::{Changes, people};
use crate::domain::{Actor, CollectionName, EntityName, HowToDelete, Repository, Role, UserName};
use crate::error::Error;
use crate::rules::{Action, Denial, Grant, Place, Resource};
use crate::store::keys;
use crate::store::rows::{
    About, Collection, Container, Entity, EntityKind, GroupsMade, Membership, RemovedContainer, RemovedEntity, User,
};
use crate::store::table::Written;
use std::time::{Duration, Instant};

/// What was deleted, or would be.
#[derive(Debug, Clone, Default)]
pub struct Deleted {
    /// What was in it.
    pub contents: Contents,
    /// Whether nothing of it is left. Otherwise it is hidden, and the rest is removed later.
    pub done: bool,
}

/// How long a request removes rows before it answers: an API gateway ends it after 29 seconds.
const LONGEST: Duration = Duration::from_secs(18);
/// How many containers are hidden in one transaction, with three writes each.
const AT_A_TIME: usize = (Changes::MAX - 2) / 3;

/// Deletes a container, or another repository.
pub async fn container(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    how: HowToDelete,
) -> Result<Deleted, Error> {
    let key = keys::container(repository);
    let place = Place::Repository(repository.clone());
    let mut deleting = Deleting { itself: 1, ..Deleting::new(app, "delete this container", how) };
    let mut retry = Retry::of("changes of the same container");
    loop {
        retry.pause().await?;
        let mut access = Access::load(app, credential, Some(repository.entity()), [key.clone()]).await?;
        let row: Option<Container> = access.take(&key)?;
        let mut resource = resource_at(repository, row.as_ref());
        if let Resource::Container { read_only, .. } = &mut resource
            && (how.force || how.dry_run)
        {
            *read_only = false;
        }
        let grant = deleting.granted(&access, &resource, "container")?;
        let found = [row.ok_or(Error::NotFound("container"))?];
        deleting.look(&found, 0).await?;
        if how.dry_run || deleting.hides(&grant, &found, &place).await? {
            return Ok(deleting.end().await);
        }
    }
}

/// Deletes a collection with its containers. Repositories with longer names that only begin like it stay.
pub async fn collection(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    name: &CollectionName,
    how: HowToDelete,
) -> Result<Deleted, Error> {
    let key = keys::collection(entity, name);
    let place = Place::Collection(entity.clone(), name.clone());
    let mut deleting = Deleting::new(app, "delete this collection", how);
    let mut retry = Retry::of("changes of the same collection");
    loop {
        retry.pause().await?;
        let mut access = Access::load(app, credential, Some(entity), [key.clone()]).await?;
        let row: Option<Collection> = access.take(&key)?;
        let resource = match &row {
            Some(_) => Resource::Collection(entity.clone(), name.clone()),
            None => Resource::Missing(place.clone()),
        };
        let grant = deleting.granted(&access, &resource, "collection")?;
        let row = row.ok_or(Error::NotFound("collection"))?;
        let mut found: Vec<Container> = app.table.query_all(keys::containers(entity, Some(name))).await?;
        found.retain(|container| container.collection_id.is_some());
        deleting.look(&found, 0).await?;
        if how.dry_run
            || deleting.hides(&grant, &found, &place).await? && deleting.removes(&grant, &[row], &place).await?
        {
            return Ok(deleting.end().await);
        }
    }
}

/// Deletes a group with everything in it. A user's own entity goes with its user.
pub async fn entity(app: &App, credential: &Credential, name: &EntityName, how: HowToDelete) -> Result<Deleted, Error> {
    let key = keys::entity(name);
    let mut deleting = Deleting::new(app, "delete this entity", how);
    let mut retry = Retry::of("changes of the same entity");
    loop {
        retry.pause().await?;
        let mut access = Access::load(app, credential, Some(name), [key.clone()]).await?;
        let row: Option<Entity> = access.take(&key)?;
        let grant = deleting.granted(&access, &entity_at(name, row.as_ref()), "entity")?;
        let row = row.ok_or(Error::NotFound("entity"))?;
        if row.kind == EntityKind::Personal {
            let why = "this entity is a user's own, and goes with its user: delete the collections in it instead";
            return Err(Error::Conflict(why.to_owned()));
        }
        let made = match row.created_by.as_ref().and_then(Actor::user) {
            Some(user) => app.table.get::<GroupsMade>(keys::groups_made(user)).await?,
            None => None,
        };
        let emptied = Emptied { entity: &row, made: made.as_ref(), user: None };
        if let Try::Done(()) = deleting.entity(&grant, emptied).await? {
            return Ok(deleting.end().await);
        }
    }
}

/// Deletes a user with everything that is theirs. Site admins only, and not themselves.
pub async fn user(app: &App, credential: &Credential, name: &UserName, how: HowToDelete) -> Result<Deleted, Error> {
    let entity = EntityName::from(name);
    let mut deleting = Deleting::new(app, "delete users", how);
    let mut retry = Retry::of("changes of the same account");
    loop {
        retry.pause().await?;
        let access = Access::load(app, credential, None, []).await?;
        let grant = deleting.granted(&access, &Resource::Installation, "installation")?;
        let (key, entity_key) = (keys::user(name), keys::entity(&entity));
        let mut rows = app.table.batch([key.clone(), entity_key.clone()]).await?;
        let user: User = rows.take(&key)?.ok_or(Error::NotFound("user"))?;
        let row: Entity = rows.take(&entity_key)?.ok_or(Error::NotFound("entity"))?;
        if grant.by().and_then(Actor::user) == Some(name) {
            return Err(Error::Conflict("ask another site admin to delete your own account".to_owned()));
        }
        if !how.force {
            others_have_admins(app, name).await?;
        }
        let emptied = Emptied { entity: &row, made: None, user: Some(&user) };
        if user.disabled || how.dry_run {
            if let Try::Done(()) = deleting.entity(&grant, emptied).await? {
                return Ok(deleting.end().await);
            }
        } else {
            // So that nothing is made any more while everything is deleted.
            deleting.entity_found(&emptied).await?;
            let by = acting(app, &grant).await?;
            let _read_again = app.commit(&grant, people::user_disabled(user, true, by.as_ref())?).await?;
        }
    }
}

/// Refuses to delete a user who is the last admin of a group.
async fn others_have_admins(app: &App, name: &UserName) -> Result<(), Error> {
    let memberships: Vec<Membership> = app.table.query_all(keys::memberships(&name.clone().into())).await?;
    let admin_of = memberships.iter().filter(|member| member.roles.entity == Some(Role::Admin));
    let keys: Vec<_> = admin_of.map(|member| keys::entity(&member.entity)).collect();
    let mut groups = app.table.batch(keys.iter().cloned()).await?;
    for key in &keys {
        let group: Option<Entity> = groups.take(key)?;
        if let Some(group) = group.filter(|group| group.kind == EntityKind::Group && group.admins <= 1) {
            return Err(Error::Conflict(format!(
                "{name} is the last admin of {}: make somebody else one first, or delete the group",
                group.name
            )));
        }
    }
    Ok(())
}

/// A deletion, and how far it has come.
struct Deleting<'a> {
    app: &'a App,
    doing: &'static str,
    how: HowToDelete,
    /// How many of the containers in it are what is to be deleted.
    itself: u64,
    /// When to answer, whatever is left.
    until: Instant,
    /// What was in it when it was read first.
    contents: Option<Contents>,
    hidden: Vec<RemovedContainer>,
    removed: Option<RemovedEntity>,
}

impl<'a> Deleting<'a> {
    fn new(app: &'a App, doing: &'static str, how: HowToDelete) -> Self {
        let until = Instant::now() + LONGEST;
        Self { app, doing, how, itself: 0, until, contents: None, hidden: Vec::new(), removed: None }
    }

    /// Decides. To force something is to manage it first.
    fn granted(&self, access: &Access, resource: &Resource, what: &'static str) -> Result<Grant, Error> {
        let grant = access.require(Action::Delete, resource, what, self.doing)?;
        // It shows what is in it, whether or not it is deleted then.
        access.shown(Action::List, resource);
        if self.how.force {
            access.require(Action::Manage, resource, what, self.doing)?;
        }
        Ok(grant)
    }

    /// Looks at what is in containers that are to go, with so many collections, and refuses what may not.
    async fn look(&mut self, containers: &[Container], collections: u64) -> Result<(), Error> {
        let found = Contents { collections, ..survey::of(self.app, containers).await? };
        self.contents.get_or_insert_with(|| found.clone());
        if self.how.dry_run {
            return Ok(());
        }
        if !self.how.cascade && !found.is_empty(self.itself) {
            return Err(Error::NotEmpty(format!("it is not empty: {found}; ask for a cascade to delete all of it")));
        }
        // A tag may have been frozen since.
        if let Some(tag) = found.frozen.filter(|_| !self.how.force) {
            let frozen = Error::denied(Denial::Frozen, "container", self.doing);
            return Err(Error::Forbidden(format!("{frozen}: {tag}; unfreeze it, or force the deletion")));
        }
        if let Some(container) = found.read_only.filter(|_| !self.how.force) {
            let read_only = Error::denied(Denial::ReadOnly, "container", self.doing);
            return Err(Error::Forbidden(format!("{read_only}: {container}; change that, or force the deletion")));
        }
        Ok(())
    }

    fn deletion(&self, grant: &Grant) -> Result<Deletion, Error> {
        let version = self.app.birth(grant)?.first_version.into();
        Ok(Deletion { by: grant.by().cloned(), at: self.app.now(), version })
    }

    /// Hides containers. Returns whether all of them are.
    async fn hides(&mut self, grant: &Grant, containers: &[Container], place: &Place) -> Result<bool, Error> {
        let mut all = true;
        for some in containers.chunks(AT_A_TIME) {
            if !self.hides_at_once(grant, some, place).await? {
                // One of them is being changed: the others need not wait for it.
                for one in some.chunks(1) {
                    all &= self.hides_at_once(grant, one, place).await?;
                }
            }
        }
        Ok(all)
    }

    async fn hides_at_once(&mut self, grant: &Grant, some: &[Container], place: &Place) -> Result<bool, Error> {
        let deletion = self.deletion(grant)?;
        let changes = removal::containers_hidden(some, place, &deletion)?;
        let done = self.app.commit(grant, changes).await? == Written::Done;
        if done {
            let Deletion { by, at, version } = deletion;
            let removed = |repository| RemovedContainer { repository, by: by.clone(), at, version };
            self.hidden.extend(some.iter().map(|container| container.repository.clone()).map(removed));
        }
        Ok(done)
    }

    /// Removes collections in which nothing is left. Returns whether they are.
    async fn removes(&self, grant: &Grant, collections: &[Collection], place: &Place) -> Result<bool, Error> {
        let about = |one: &Collection| keys::about_collection(&one.entity, &one.name);
        let mut rows = self.app.table.batch(collections.iter().map(about)).await?;
        let said = collections.iter().filter_map(|one| rows.take::<About>(&about(one)).transpose());
        let said = said.collect::<Result<Vec<_>, _>>()?;
        Ok(self.app.commit(grant, removal::collections_removed(collections, &said, place)).await? == Written::Done)
    }

    /// Looks at what is in an entity.
    async fn entity_found(&mut self, emptied: &Emptied<'_>) -> Result<(Vec<Container>, Vec<Collection>), Error> {
        let name = &emptied.entity.name;
        let containers: Vec<Container> = self.app.table.query_all(keys::containers(name, None)).await?;
        let collections: Vec<Collection> = self.app.table.query_all(keys::collections(name)).await?;
        self.look(&containers, collections.len() as u64).await?;
        Ok((containers, collections))
    }

    /// Hides everything in an entity, and removes it.
    async fn entity(&mut self, grant: &Grant, emptied: Emptied<'_>) -> Result<Try<()>, Error> {
        let name = emptied.entity.name.clone();
        let (containers, collections) = self.entity_found(&emptied).await?;
        if self.how.dry_run {
            return Ok(Try::Done(()));
        }
        let place = Place::Entity(name.clone());
        if !self.hides(grant, &containers, &place).await? {
            return Ok(Try::Lost);
        }
        for some in collections.chunks(AT_A_TIME) {
            if !self.removes(grant, some, &place).await? {
                return Ok(Try::Lost);
            }
        }
        let (deletion, user) = (self.deletion(grant)?, emptied.user.is_some());
        if self.app.commit(grant, removal::entity_removed(emptied, &deletion)?).await? != Written::Done {
            return Ok(Try::Lost);
        }
        let Deletion { by, at, version } = deletion;
        self.removed = Some(RemovedEntity { name, user, by, at, gone: false, version });
        Ok(Try::Done(()))
    }

    /// Removes what is left behind what was hidden, as far as there is time.
    async fn end(self) -> Deleted {
        let contents = self.contents.clone().unwrap_or_default();
        let mut done = !self.how.dry_run;
        for hidden in &self.hidden {
            done &= in_time(drain::container(self.app, hidden, Some(self.until)).await);
        }
        if let Some(removed) = &self.removed {
            done &= in_time(drain::entity(self.app, removed, Some(self.until)).await);
        }
        Deleted { contents, done }
    }
}

/// Whether something is drained. It is hidden in any case, so an error is for the log.
fn in_time(drained: Result<bool, Error>) -> bool {
    drained.unwrap_or_else(|error| {
        tracing::warn!(%error, cause = error.cause(), "what was deleted is removed by the next sweep");
        false
    })
}
