//! The contents of entities: the rows of a new entity, collection, container or image, each with its id.

use super::{Changes, accounts, members, removal};
use crate::domain::{
    Actor, CollectionName, Description, Digest, EntityName, Id, Repository, Role, Time, UserName, Visibility,
};
use crate::error::Error;
use crate::rules::Place;
use crate::store::keys;
use crate::store::rows::{
    Collection, Container, Entity, EntityKind, EventKind, Image, Parents, Pointer, RemovedEntity, Row, Target,
};
use crate::store::table::{Condition, Write};

/// The creator of something, the time, and what is drawn at random for it.
#[derive(Debug, Clone)]
pub(crate) struct Birth {
    pub(crate) id: Id,
    pub(crate) by: Option<Actor>,
    pub(crate) at: Time,
    /// Where its version begins, so that one that went and came back is not taken for the old one.
    pub(crate) first_version: u32,
}

/// A new row and the changes that write it.
#[derive(Debug)]
pub(crate) struct Made<R> {
    pub(crate) row: R,
    pub(crate) changes: Changes,
}

/// A row that does not exist yet, with its pointer.
fn made<R: Row>(row: R, id: Id, target: Target, what: EventKind) -> Result<Made<R>, Error> {
    let place = match target.clone() {
        Target::Entity(entity) => Place::Entity(entity),
        Target::Collection(entity, collection) => Place::Collection(entity, collection),
        Target::Container(repository) | Target::Image(repository, _) => Place::Repository(repository),
    };
    // An entity has its account, and is nothing in it.
    let counted = match &target {
        Target::Entity(_) => None,
        Target::Collection(entity, _) => accounts::rows(entity, 1),
        Target::Container(repository) | Target::Image(repository, _) => accounts::rows(repository.entity(), 1),
    };
    let writes = [Write::put(&row, Condition::Absent)?, Write::put(&Pointer { id, target }, Condition::Absent)?];
    Ok(Made { row, changes: Changes::recorded(place, what).with(writes).with(counted) })
}

/// A new entity: a user's own if it has their name, and else a group, whose first admin they are.
#[derive(Debug)]
pub(crate) struct NewEntity<'a> {
    pub(crate) name: &'a EntityName,
    pub(crate) owner: &'a UserName,
    pub(crate) description: Description,
    /// Whether new containers in it are private.
    pub(crate) private: bool,
    /// The limit of its account, in bytes; 0 for none.
    pub(crate) limit: u64,
    /// The deleted entity whose name it takes over, if there was one.
    pub(crate) freed: Option<&'a RemovedEntity>,
}

/// An entity with its owner and its account.
pub(crate) fn entity(new: NewEntity<'_>, birth: Birth) -> Result<Made<Entity>, Error> {
    let NewEntity { name, owner, description, private, limit, freed } = new;
    let (kind, role) =
        if name.is_own(owner) { (EntityKind::Personal, Role::Owner) } else { (EntityKind::Group, Role::Admin) };
    let first = members::first_member(name, &owner.clone().into(), role, &birth)?;
    let Birth { id, by, at, first_version } = birth;
    let row = Entity {
        id,
        name: name.clone(),
        description,
        kind,
        admins: u64::from(kind == EntityKind::Group),
        default_private: private,
        created_by: by,
        created: at,
        version: first_version.into(),
    };
    let mut made = made(row, id, Target::Entity(name.clone()), EventKind::EntityMade)?;
    made.changes.add(accounts::opened(name, limit)?);
    made.changes.add(removal::name_taken(name, freed));
    if kind == EntityKind::Group {
        // Whoever is deleted meanwhile makes none.
        made.changes.add(Write::check(keys::user(owner), Condition::Present));
    }
    made.changes.extend(first);
    Ok(made)
}

/// A new collection.
#[derive(Debug)]
pub(crate) struct NewCollection<'a> {
    pub(crate) parent: &'a Entity,
    pub(crate) name: CollectionName,
    pub(crate) description: Description,
    /// Whether new containers in it are private, whatever its entity says.
    pub(crate) private: bool,
}

/// A collection in an entity.
pub(crate) fn collection(new: NewCollection<'_>, birth: Birth) -> Result<Made<Collection>, Error> {
    let NewCollection { parent, name, description, private } = new;
    let Birth { id, by, at, first_version } = birth;
    let target = Target::Collection(parent.name.clone(), name.clone());
    let row = Collection {
        id,
        entity: parent.name.clone(),
        entity_id: parent.id,
        name,
        description,
        private: private || parent.default_private,
        created_by: by,
        created: at,
        version: first_version.into(),
    };
    let mut made = made(row, id, target, EventKind::CollectionMade)?;
    made.changes.add(Write::advance(parent.key()));
    Ok(made)
}

/// Where and how a container is created.
#[derive(Debug)]
pub(crate) struct NewContainer<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) entity: &'a Entity,
    /// `None` if it is no library container.
    pub(crate) collection: Option<&'a Collection>,
    /// Its visibility, unless the entity or collection makes new containers private.
    pub(crate) open: Visibility,
    pub(crate) read_only: bool,
    pub(crate) description: Description,
}

/// A container, or another repository.
pub(crate) fn container(new: NewContainer<'_>, birth: Birth) -> Result<Made<Container>, Error> {
    let NewContainer { repository, entity, collection, open, read_only, description } = new;
    let Birth { id, by, at, first_version } = birth;
    let private = entity.default_private || collection.is_some_and(|collection| collection.private);
    let row = Container {
        id,
        repository: repository.clone(),
        collection_id: collection.map(|collection| collection.id),
        entity_id: entity.id,
        description,
        visibility: if private { Visibility::Private } else { open },
        read_only,
        created_by: by,
        created: at,
        epoch: first_version.into(),
        removals: first_version.into(),
        version: first_version.into(),
    };
    let mut made = made(row, id, Target::Container(repository.clone()), EventKind::ContainerMade)?;
    // What it lies in must be there, and whoever deletes that learns that it is not empty any more.
    let above = collection.map_or_else(|| entity.key(), Row::key);
    made.changes.add(Write::advance(above));
    made.changes.add(Write::check(keys::removed_container(repository), Condition::Absent));
    Ok(made)
}

/// An image whose bytes are still to come.
pub(crate) fn image(
    container: &Container,
    hash: Digest,
    description: Description,
    birth: Birth,
) -> Result<Made<Image>, Error> {
    let Birth { id, by, at, first_version } = birth;
    let repository = container.repository.clone();
    let target = Target::Image(repository.clone(), hash);
    let image = Image {
        id,
        repository,
        parents: parents(container)?,
        hash,
        description,
        created_by: by,
        created: at,
        content: None,
        sealed: None,
        named: false,
        intents: Vec::new(),
        tags: [].into(),
        labels: [].into(),
        version: first_version.into(),
    };
    let mut made = made(image, id, target, EventKind::ImageBegun { hash })?;
    made.changes.add(Write::check(container.key(), Condition::Present));
    Ok(made)
}

/// A row whose settings can change, under the condition of its version.
pub(crate) trait Settable: Row {
    /// The number that counts its changes.
    fn version(&mut self) -> &mut u64;
}

macro_rules! settable {
    ($($type:ty),*) => {$(
        impl Settable for $type {
            fn version(&mut self) -> &mut u64 {
                &mut self.version
            }
        }
    )*};
}
settable!(Entity, Collection, Container);

/// Writes a row whose settings were changed. `names` lists which.
pub(crate) fn set<R: Settable>(mut row: R, place: Place, names: &[&str]) -> Result<Changes, Error> {
    let version = *row.version();
    *row.version() += 1;
    let what = EventKind::Changed(names.iter().map(|name| (*name).to_owned()).collect());
    let changes = if names.is_empty() { Changes::unrecorded() } else { Changes::recorded(place, what) };
    Ok(changes.with([Write::put(&row, Condition::Version(version))?]))
}

/// The ids of a container and of its parents.
pub(crate) fn parents(container: &Container) -> Result<Parents, Error> {
    // Other repositories have paths that the library can't express.
    let collection = container.collection_id.ok_or(Error::NotFound("container"))?;
    Ok(Parents { container: container.id, collection, entity: container.entity_id })
}
