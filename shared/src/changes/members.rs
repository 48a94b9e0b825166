//! Members: who has which roles in an entity, invitations, and the groups of directories that have roles.

use super::Changes;
use super::entities::Birth;
use crate::domain::{Actor, EntityName, Role, RoleAt, Roles, SubPath, UserName};
use crate::error::Error;
use crate::rules::Place;
use crate::store::keys;
use crate::store::rows::{
    Entity, EntityKind, EventKind, Includes, Invitation, Member, Membership, Robot, RoleChange, Row as _,
};
use crate::store::table::{Condition, Write};
use std::collections::BTreeMap;

/// Somebody's roles in an entity, as they were read.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) entity: &'a Entity,
    pub(crate) actor: &'a Actor,
    /// Their row, if they have one.
    pub(crate) member: Option<&'a Member>,
}

impl Found<'_> {
    fn before(&self) -> Roles {
        self.member.map(|member| member.roles.clone()).unwrap_or_default()
    }
}

/// Sets one role of somebody. Whoever has none yet must have an account.
pub(crate) fn role_set(found: &Found<'_>, set: &RoleAt, birth: &Birth) -> Result<Changes, Error> {
    let before = found.before();
    let mut after = before.clone();
    after.set(set.part.as_ref(), set.role);
    if matches!(found.actor, Actor::Robot(..)) && after.is_empty() {
        // It would be in no list, and keep its name and its tokens.
        return Err(Error::Invalid(format!("remove the robot {} itself, it has no other roles", found.actor)));
    }
    let what = EventKind::RolesChanged(RoleChange {
        actor: found.actor.clone(),
        part: set.part.clone(),
        before: set.part.as_ref().map_or(before.entity, |part| before.parts.get(part).copied()),
        after: set.role,
    });
    let place = Place::part(&found.entity.name, set.part.as_ref());
    Ok(Changes::recorded(place, what).with(roles_written(found, after, birth)?))
}

/// Removes all roles of somebody.
pub(crate) fn member_removed(found: &Found<'_>, birth: &Birth) -> Result<Changes, Error> {
    let before = found.before();
    let place = Place::Entity(found.entity.name.clone());
    let change = |part: Option<SubPath>, role: Role| {
        EventKind::RolesChanged(RoleChange { actor: found.actor.clone(), part, before: Some(role), after: None })
    };
    let mut changes = Changes::unrecorded().with(roles_written(found, Roles::default(), birth)?);
    if let Some(role) = before.entity {
        changes.record(&place, change(None, role));
    }
    for (part, role) in before.parts {
        changes.record(&place, change(Some(part), role));
    }
    Ok(changes)
}

/// The rows of a member with these roles, and the count of the entity's admins.
fn roles_written(found: &Found<'_>, after: Roles, birth: &Birth) -> Result<Vec<Write>, Error> {
    let Found { entity, actor, member } = found;
    if after.parts.len() > Roles::MAX_PARTS {
        let why = format!("{actor} has roles on {} parts already, the most there can be", Roles::MAX_PARTS);
        return Err(Error::Conflict(why));
    }
    let is_admin = |roles: &Roles| u64::from(roles.entity == Some(Role::Admin));
    let (was, is) = (is_admin(&found.before()), is_admin(&after));
    let admins = (entity.admins + is).saturating_sub(was);
    if entity.kind == EntityKind::Group && was > is && admins == 0 {
        return Err(Error::Conflict(format!(
            "{actor} is the last admin of {}: make somebody else one first",
            entity.name
        )));
    }
    let mut writes = if was == is {
        vec![Write::check(keys::entity(&entity.name), Condition::Present)]
    } else {
        let counted = Entity { admins, version: entity.version + 1, ..(*entity).clone() };
        vec![Write::put(&counted, Condition::Version(entity.version))?]
    };
    let condition = member.map_or(Condition::Absent, |member| Condition::Version(member.version));
    if after.is_empty() {
        let member = keys::member(&entity.name, actor);
        writes.push(Write::delete(member, condition));
        writes.push(Write::delete(keys::membership(actor, &entity.name), Condition::None));
        return Ok(writes);
    }
    if member.is_none() {
        writes.push(Write::check(keys::actor(actor), Condition::Present));
    }
    let version = member.map_or(birth.first_version.into(), |member| member.version + 1);
    writes.extend(rows(&entity.name, actor, after, version, condition)?);
    Ok(writes)
}

/// A member's row, and its inverse.
fn rows(
    entity: &EntityName,
    actor: &Actor,
    roles: Roles,
    version: u64,
    condition: Condition,
) -> Result<[Write; 2], Error> {
    let (entity, actor) = (entity.clone(), actor.clone());
    let member = Member { entity: entity.clone(), actor: actor.clone(), roles: roles.clone(), version };
    let membership = Membership { entity, actor, roles };
    Ok([Write::put(&member, condition)?, Write::put(&membership, Condition::None)?])
}

/// The first member of a new entity.
pub(crate) fn first_member(entity: &EntityName, actor: &Actor, role: Role, birth: &Birth) -> Result<[Write; 2], Error> {
    // A role that was left behind by an entity of that name must not count.
    rows(entity, actor, Roles::on_all(role), birth.first_version.into(), Condition::None)
}

/// Somebody's first role in an entity that exists, if their account is made in the same transaction. They can't be an
/// admin of it.
pub(crate) fn new_member(
    entity: &EntityName,
    user: &UserName,
    at: &RoleAt,
    birth: &Birth,
) -> Result<impl Iterator<Item = Write> + use<>, Error> {
    let mut roles = Roles::default();
    roles.set(at.part.as_ref(), at.role);
    let there = Write::check(keys::entity(entity), Condition::Present);
    let actor = user.clone().into();
    let written = rows(entity, &actor, roles, birth.first_version.into(), Condition::None)?;
    Ok(std::iter::once(there).chain(written))
}

/// Makes a robot with a role in its entity.
pub(crate) fn robot_made(robot: &Robot, entity: &EntityName, at: &RoleAt, birth: &Birth) -> Result<Changes, Error> {
    let mut roles = Roles::default();
    roles.set(at.part.as_ref(), at.role);
    let what = EventKind::RobotMade { robot: robot.actor.clone() };
    Ok(Changes::recorded(Place::Entity(entity.clone()), what)
        .with([Write::check(keys::entity(entity), Condition::Present), Write::put(robot, Condition::Absent)?])
        .with(rows(entity, &robot.actor, roles, birth.first_version.into(), Condition::None)?))
}

/// Disables a robot's account: none of its tokens works from now on. Its roles stay until it is gone, since they list it.
pub(crate) fn robot_stopped(robot: &Robot, entity: &EntityName) -> Result<Changes, Error> {
    let stopped = Robot { disabled: true, version: robot.version + 1, ..robot.clone() };
    let what = EventKind::RobotRemoved { robot: robot.actor.clone() };
    Ok(Changes::recorded(Place::Entity(entity.clone()), what)
        .with([Write::put(&stopped, Condition::Version(robot.version))?]))
}

/// Removes the account of a robot that was stopped and has no tokens any more.
pub(crate) fn robot_gone(robot: &Robot, entity: &EntityName) -> Changes {
    Changes::unrecorded().with([
        Write::delete(robot.key(), Condition::Version(robot.version)),
        Write::delete(keys::member(entity, &robot.actor), Condition::None),
        Write::delete(keys::membership(&robot.actor, entity), Condition::None),
    ])
}

/// Writes a new invitation.
pub(crate) fn invitation_made(invitation: &Invitation) -> Result<Changes, Error> {
    let place = Place::part(&invitation.entity, invitation.part.as_ref());
    let what = EventKind::InvitationMade { id: invitation.id, role: invitation.role };
    let entity = Write::check(keys::entity(&invitation.entity), Condition::Present);
    Ok(Changes::recorded(place, what).with([entity, Write::put(invitation, Condition::Absent)?]))
}

/// Revokes an invitation, which must be there.
pub(crate) fn invitation_revoked(invitation: &Invitation) -> Changes {
    let place = Place::part(&invitation.entity, invitation.part.as_ref());
    let deleted = Write::delete(invitation.key(), Condition::Present);
    Changes::recorded(place, EventKind::InvitationRevoked { id: invitation.id }).with([deleted])
}

/// Uses an invitation once. `by` is the row that lets its maker invite, if it is one of theirs.
pub(crate) fn invitation_accepted(
    invitation: &Invitation,
    by: Option<&Member>,
    found: &Found<'_>,
    birth: &Birth,
) -> Result<Changes, Error> {
    let mut roles = found.before();
    let part = invitation.part.as_ref();
    roles.set(part, Some(invitation.role));
    let used = Invitation { uses: invitation.uses + 1, version: invitation.version + 1, ..invitation.clone() };
    let what =
        EventKind::InvitationAccepted { id: invitation.id, role: invitation.role, part: invitation.part.clone() };
    // Their own row is a condition already.
    let other = by.filter(|by| by.actor != *found.actor);
    let still = other.map(|by| Write::check(by.key(), Condition::Version(by.version)));
    let mut changes = Changes::recorded(Place::Entity(invitation.entity.clone()), what)
        .with([Write::put(&used, Condition::Version(invitation.version))?])
        .with(still);
    changes.extend(roles_written(found, roles, birth)?);
    Ok(changes)
}

/// Sets which groups of directories have roles in an entity.
pub(crate) fn includes_set(
    entity: &EntityName,
    before: Option<&Includes>,
    groups: BTreeMap<String, Role>,
    birth: &Birth,
) -> Result<Changes, Error> {
    let condition = before.map_or(Condition::Absent, |before| Condition::Version(before.version));
    let version = before.map_or(birth.first_version.into(), |before| before.version + 1);
    let row = Includes { entity: entity.clone(), groups: groups.clone(), version };
    let entity_there = Write::check(keys::entity(entity), Condition::Present);
    Ok(Changes::recorded(Place::Entity(entity.clone()), EventKind::IncludesChanged { groups })
        .with([entity_there, Write::put(&row, condition)?]))
}
