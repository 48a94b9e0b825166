//! Deleting containers, collections, entities and users: what hides them, and what removes the rows that they leave.

use super::{Changes, about, accounts, blobs, images, manifests, tags};
use crate::changes::blobs::Unlinking;
use crate::domain::{Actor, EntityName, Role, Time};
use crate::error::Error;
use crate::rules::Place;
use crate::store::keys::{self, Key};
use crate::store::rows::{
    About, Collection, Container, Entity, EventKind, GroupsMade, Image, ManifestLinks, Member, Membership,
    RemovedContainer, RemovedEntity, Row, ShareListed, Tag, User,
};
use crate::store::table::{Condition, Write};

/// Who deletes something, and when.
#[derive(Debug, Clone)]
pub(crate) struct Deletion {
    pub(crate) by: Option<Actor>,
    pub(crate) at: Time,
    /// Drawn at random.
    pub(crate) version: u64,
}

/// Hides containers, unless one of them changed since it was read. `place` is what was asked to be deleted.
pub(crate) fn containers_hidden(
    containers: &[Container],
    place: &Place,
    Deletion { by, at, version }: &Deletion,
) -> Result<Changes, Error> {
    let mut changes = Changes::unrecorded();
    for container in containers {
        let repository = container.repository.clone();
        changes.record(place, EventKind::ContainerRemoved { repository: repository.clone() });
        // Its name counts as a row as long as this one is there.
        let removed = RemovedContainer { repository, by: by.clone(), at: *at, version: *version };
        changes.extend([
            Write::delete(container.key(), Condition::Version(container.version)),
            Write::delete(keys::pointer(container.id), Condition::None),
            Write::put(&removed, Condition::Absent)?,
        ]);
    }
    Ok(changes)
}

/// Deletes collections in which nothing is left, unless something was made in one of them since it was read.
/// `said` is what is said about them.
pub(crate) fn collections_removed(collections: &[Collection], said: &[About], place: &Place) -> Changes {
    let mut changes = Changes::unrecorded();
    for about in said {
        changes.merge(about::removed(about));
    }
    for collection in collections {
        changes.record(place, EventKind::CollectionRemoved { collection: collection.name.clone() });
        changes.extend([
            Write::delete(collection.key(), Condition::Version(collection.version)),
            Write::delete(keys::pointer(collection.id), Condition::None),
        ]);
        changes.extend(accounts::rows(&collection.entity, -1));
    }
    changes
}

/// An entity in which nothing is left.
#[derive(Debug)]
pub(crate) struct Emptied<'a> {
    pub(crate) entity: &'a Entity,
    /// The count of the groups of whoever made it.
    pub(crate) made: Option<&'a GroupsMade>,
    /// The user whose own it is, to be deleted with it.
    pub(crate) user: Option<&'a User>,
}

/// Deletes an entity in which nothing is left, unless something was made in it since it was read.
pub(crate) fn entity_removed(
    Emptied { entity, made, user }: Emptied<'_>,
    Deletion { by, at, version }: &Deletion,
) -> Result<Changes, Error> {
    let name = entity.name.clone();
    let (at, version, with_user) = (*at, *version, user.is_some());
    let removed = RemovedEntity { name: name.clone(), user: with_user, by: by.clone(), at, gone: false, version };
    let mut changes = match user {
        Some(user) => Changes::recorded(Place::Installation, EventKind::UserRemoved { name: user.name.clone() }),
        None => Changes::recorded(Place::Entity(name), EventKind::EntityRemoved),
    };
    changes.extend([
        Write::delete(entity.key(), Condition::Version(entity.version)),
        Write::delete(keys::pointer(entity.id), Condition::None),
        Write::put(&removed, Condition::Absent)?,
    ]);
    if let Some(made) = made {
        let fewer = GroupsMade { count: made.count.saturating_sub(1), version: made.version + 1, ..made.clone() };
        changes.add(Write::put(&fewer, Condition::Version(made.version))?);
    }
    if let Some(user) = user {
        changes.extend([
            Write::delete(user.key(), Condition::Version(user.version)),
            Write::delete(keys::user_listed(&user.name), Condition::None),
        ]);
        // Two site admins can't delete each other at once.
        let other = by.as_ref().and_then(Actor::user).filter(|by| **by != user.name);
        changes.extend(other.map(|by| Write::check(keys::user(by), Condition::Present)));
    }
    Ok(changes)
}

/// The condition under which an entity may have a name: either none of that name was deleted, or that one is `freed`
/// with this.
pub(crate) fn name_taken(name: &EntityName, freed: Option<&RemovedEntity>) -> Write {
    let key = keys::removed_entity(name);
    match freed {
        None => Write::check(key, Condition::Absent),
        Some(freed) => Write::delete(key, Condition::Version(freed.version)),
    }
}

/// Whether an entity may take over the name of one that was deleted: only with the right to free names, and once nothing
/// is left of it.
///
/// # Errors
/// [`Error::Conflict`].
pub(crate) fn freed(removed: Option<RemovedEntity>, may_free: bool) -> Result<Option<RemovedEntity>, Error> {
    let Some(removed) = removed else { return Ok(None) };
    let name = &removed.name;
    match (removed.gone, may_free) {
        (false, _) => Err(Error::Conflict(format!(
            "`{name}` was deleted, and is free again once its last bytes are collected, in a day or two"
        ))),
        (true, false) => Err(Error::Conflict(format!(
            "`{name}` was deleted, and jobs may still ask for it: only a site admin can use the name again"
        ))),
        (true, true) => Ok(Some(removed)),
    }
}

/// The condition that something is still being removed. Its name may be used again once it is not, and then nothing of
/// what is there now may go.
pub(crate) fn still_removed(removed: &Removed) -> Write {
    Write::check(removed.key.clone(), Condition::Version(removed.version))
}

/// The row that says that something is being removed.
#[derive(Debug, Clone)]
pub(crate) struct Removed {
    pub(crate) key: Key,
    pub(crate) version: u64,
}

/// Removes tags of a container that was deleted. Backlinks go with the rest of its rows.
pub(crate) fn tags_removed(tags: &[Tag]) -> Changes {
    Changes::unrecorded().with(tags.iter().flat_map(tags::deleted_alone))
}

/// Removes images of a container that was deleted. Its manifests are removed by themselves.
pub(crate) fn images_removed(images: &[Image]) -> Changes {
    Changes::unrecorded().with(images.iter().flat_map(images::rows_removed))
}

/// Removes manifests of a container that was deleted. Backlinks go with the rest of its rows.
pub(crate) fn manifests_removed(rows: &[ManifestLinks], now: Time) -> Result<Changes, Error> {
    let mut changes = Changes::unrecorded();
    for row in rows {
        changes.extend(manifests::removed_alone(row, now)?);
    }
    Ok(changes)
}

/// Removes links of a container that was deleted, no two of them to the same blob.
pub(crate) fn links_removed<'a>(links: impl IntoIterator<Item = Unlinking<'a>>) -> Result<Changes, Error> {
    let mut changes = Changes::unrecorded();
    for link in links {
        changes.extend(blobs::unlink(link)?);
    }
    Ok(changes)
}

/// Removes shares of a container that was deleted.
pub(crate) fn shares_removed(shares: &[ShareListed]) -> Changes {
    let both = |listed: &ShareListed| [keys::share(listed.share), listed.key()];
    Changes::unrecorded().with(shares.iter().flat_map(both).map(|key| Write::delete(key, Condition::None)))
}

/// Removes rows that count for nothing.
pub(crate) fn rows_removed(rows: impl IntoIterator<Item = Key>) -> Changes {
    Changes::unrecorded().with(rows.into_iter().map(|key| Write::delete(key, Condition::None)))
}

/// Forgets a container of which nothing is left: its name can be used again.
pub(crate) fn container_gone(removed: &RemovedContainer) -> Changes {
    let counted = accounts::rows(removed.repository.entity(), -1);
    Changes::unrecorded().with([Write::delete(removed.key(), Condition::Version(removed.version))]).with(counted)
}

/// Removes members of an entity that was deleted.
pub(crate) fn members_removed(members: &[Member]) -> Changes {
    let both = |member: &Member| [member.key(), keys::membership(&member.actor, &member.entity)];
    rows_removed(members.iter().flat_map(both))
}

/// Removes a user who was deleted from an entity, even if that has no admin then.
pub(crate) fn membership_removed(
    membership: &Membership,
    member: Option<&Member>,
    entity: Option<&Entity>,
) -> Result<Changes, Error> {
    let mut changes = rows_removed([membership.key()]);
    let Some(member) = member else { return Ok(changes) };
    changes.add(Write::delete(member.key(), Condition::Version(member.version)));
    let was_admin = |entity: &&Entity| entity.admins > 0 && member.roles.entity == Some(Role::Admin);
    if let Some(entity) = entity.filter(was_admin) {
        let fewer = Entity { admins: entity.admins - 1, version: entity.version + 1, ..entity.clone() };
        changes.add(Write::put(&fewer, Condition::Version(entity.version))?);
    }
    Ok(changes)
}

/// Closes the account of an entity that was deleted, if nothing counts in it any more: nothing is left of it.
pub(crate) fn entity_gone(removed: &RemovedEntity) -> Result<Changes, Error> {
    let gone = RemovedEntity { gone: true, ..removed.clone() };
    Ok(Changes::unrecorded()
        .with([accounts::closed(&removed.name), Write::put(&gone, Condition::Version(removed.version))?]))
}
