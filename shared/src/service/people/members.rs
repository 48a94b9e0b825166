//! Members: who has which role in an entity, on all of it or on single collections and repositories.
//!
//! A member is one row, so that a lookup learns all roles of its caller in one round; its inverse in the user's partition
//! is written with it. The entity of a group counts its admins: the last one can't go, however many leave at once.

use super::users::{MAX_GROUP, directory_groups};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::members::{self, Found};
use crate::domain::{Actor, EntityName, Role, RoleAt};
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::service::access::{Access, resource_of_part};
use crate::service::parts::{Listable, may_list};
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::{Entity, EntityKind, Includes, Member, Robot, User};
use crate::store::table::{Page, Written};
use std::collections::BTreeMap;

/// The most members on a page.
const PAGE: usize = 100;

/// The most directories' groups that one entity can give roles to.
const MAX_INCLUDES: usize = 100;

/// The members of an entity, for its members. Whoever has a role on a part of it sees the roles on that part.
pub async fn list(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    after: Option<String>,
) -> Result<Page<Member>, Error> {
    let access = may_list(app, credential, entity).await?;
    let listable = Listable::of_caller(&access, entity);
    let mut page: Page<Member> = app.table.query(keys::members(entity), after, PAGE).await?;
    if listable != Listable::All {
        for member in &mut page.rows {
            member.roles.entity = None;
            member.roles.parts.retain(|part, _| listable.covers(part.as_str()));
        }
        page.rows.retain(|member| !member.roles.is_empty());
    }
    Ok(page)
}

/// Refuses roles that can't be given to somebody; to nobody in particular where there is no actor.
pub(super) fn can_be_given(entity: &Entity, actor: Option<&Actor>, at: &RoleAt) -> Result<(), Error> {
    let why = match (at.role, actor) {
        (Some(Role::Owner), _) => "an owner is only who an entity is named after".to_owned(),
        (Some(_), Some(Actor::System)) => "the system has no roles".to_owned(),
        (Some(_), Some(Actor::User(user))) if entity.name.is_own(user) => {
            format!("{user} owns {} already", entity.name)
        }
        (Some(_), Some(Actor::Robot(home, name))) if *home != entity.name => {
            format!("{home}+{name} is a robot of {home}, and has roles only there")
        }
        (Some(Role::Admin), Some(Actor::Robot(..))) => {
            "a robot manages nothing: it can be a reader or contributor".to_owned()
        }
        (Some(Role::Admin), _) if entity.kind == EntityKind::Personal => {
            format!("{} is managed by its owner alone: its members can be readers and contributors", entity.name)
        }
        _ => return Ok(()),
    };
    Err(Error::Invalid(why))
}

/// Somebody's roles in an entity, to be changed.
pub(super) struct Loaded {
    pub(super) entity: Entity,
    pub(super) actor: Actor,
    pub(super) member: Option<Member>,
    /// Whether they have an account.
    known: bool,
}

impl Loaded {
    pub(super) async fn load(app: &App, entity: &EntityName, actor: &Actor) -> Result<Self, Error> {
        let keys = [keys::entity(entity), keys::member(entity, actor), keys::actor(actor)];
        let mut rows = app.table.batch(keys.clone()).await?;
        let [entity, member, account] = keys;
        let known = match actor {
            Actor::User(_) => rows.take::<User>(&account)?.is_some_and(|user| !user.disabled),
            Actor::Robot(..) => rows.take::<Robot>(&account)?.is_some_and(|robot| !robot.disabled),
            Actor::System => false,
        };
        let entity: Entity = rows.take(&entity)?.ok_or(Error::NotFound("entity"))?;
        Ok(Self { entity, actor: actor.clone(), member: rows.take(&member)?, known })
    }

    pub(super) fn found(&self) -> Found<'_> {
        Found { entity: &self.entity, actor: &self.actor, member: self.member.as_ref() }
    }
}

/// Sets one role of a person or robot. It counts from their next request on.
pub async fn set(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    actor: &Actor,
    at: &RoleAt,
) -> Result<(), Error> {
    let mut retry = Retry::of("changes of the same members");
    loop {
        retry.pause().await?;
        let access = Access::load(app, credential, Some(entity), []).await?;
        let resource = resource_of_part(entity, at.part.as_ref());
        let grant = access.require(Action::Appoint, &resource, "entity", "change roles there")?;
        let loaded = Loaded::load(app, entity, actor).await?;
        can_be_given(&loaded.entity, Some(actor), at)?;
        if at.role.is_some() && !loaded.known {
            return Err(Error::NotFound("user"));
        }
        if at.role.is_none() && loaded.member.is_none() {
            return Err(Error::NotFound("member"));
        }
        if at.role.is_none() && at.part.is_none() && actor.user().is_some_and(|user| entity.is_own(user)) {
            return Err(Error::Invalid(format!("{actor} owns {entity}")));
        }
        let changes = members::role_set(&loaded.found(), at, &app.birth(&grant)?)?;
        if app.commit(&grant, changes).await? == Written::Done {
            return Ok(());
        }
    }
}

/// Removes all roles of a person. Everybody may leave, but for the last admin of a group.
pub async fn remove(app: &App, credential: &Credential, entity: &EntityName, actor: &Actor) -> Result<(), Error> {
    let mut retry = Retry::of("changes of the same members");
    loop {
        retry.pause().await?;
        let (access, resource) = Access::to_entity(app, credential, entity).await?;
        let grant: Grant = if access.caller.is(actor) {
            access.require(Action::Leave, &resource, "entity", "leave it")?
        } else {
            access.require(Action::Manage, &resource, "entity", "change its members")?
        };
        if actor.user().is_some_and(|user| entity.is_own(user)) {
            return Err(Error::Invalid(format!("{actor} owns {entity}")));
        }
        if matches!(actor, Actor::Robot(..)) {
            return Err(Error::Invalid(format!("remove the robot {actor} itself, it has no other roles")));
        }
        let loaded = Loaded::load(app, entity, actor).await?;
        if loaded.member.is_none() {
            return Err(Error::NotFound("member"));
        }
        let changes = members::member_removed(&loaded.found(), &app.birth(&grant)?)?;
        if app.commit(&grant, changes).await? == Written::Done {
            return Ok(());
        }
    }
}

/// Which groups of directories have roles in an entity, by `DIRECTORY:GROUP`.
pub async fn includes(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
) -> Result<BTreeMap<String, Role>, Error> {
    let access = may_list(app, credential, entity).await?;
    access.require(Action::List, &Resource::Entity(entity.clone()), "entity", "list its members")?;
    let row: Option<Includes> = app.table.get(keys::includes(entity)).await?;
    Ok(row.map(|row| row.groups).unwrap_or_default())
}

/// Sets which groups of directories have roles in an entity. It counts from the next request of their people on.
pub async fn set_includes(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    groups: &BTreeMap<String, Role>,
) -> Result<(), Error> {
    for (group, role) in groups {
        let good = group.split_once(':').is_some_and(|(directory, name)| !directory.is_empty() && !name.is_empty());
        if !good || group.len() > MAX_GROUP || *role > Role::Contributor || groups.len() > MAX_INCLUDES {
            return Err(Error::Invalid(format!(
                "write at most {MAX_INCLUDES} groups as `DIRECTORY:GROUP`, each with the role reader or contributor"
            )));
        }
    }
    let mut retry = Retry::of("changes of the same members");
    loop {
        retry.pause().await?;
        let (access, resource) = Access::to_entity(app, credential, entity).await?;
        let grant = access.require(Action::Manage, &resource, "entity", "change its members")?;
        directory_groups(app)?;
        let before: Option<Includes> = app.table.get(keys::includes(entity)).await?;
        let changes = members::includes_set(entity, before.as_ref(), groups.clone(), &app.birth(&grant)?)?;
        if app.commit(&grant, changes).await? == Written::Done {
            return Ok(());
        }
    }
}
