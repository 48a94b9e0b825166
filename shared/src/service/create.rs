//! Creating entities, collections, containers and images. All of these are idempotent: if something exists already, it
//! is returned.

use super::access::{Access, memberships};
use super::restore;
use super::uploads::commit;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::about::{self, Subject};
use crate::changes::blobs::VerifiedImage;
use crate::changes::entities::{self, Made, NewCollection, NewContainer, NewEntity};
use crate::changes::removal;
use crate::domain::{
    Actor, CollectionName, ContainerName, Description, Digest, EntityName, Id, Repository, Said, Visibility,
};
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::store::keys;
use crate::store::rows::{Blob, Charge, Collection, Container, Described, Entity, Image, Row, Target};
use crate::store::table::Written;

/// What a new entity, collection or container is to be like.
#[derive(Debug, Clone, Default)]
pub struct Properties {
    /// The description.
    pub description: Description,
    /// Of a container: whether it is private. Of an entity or collection: whether new containers in it are.
    pub private: bool,
    /// Of a container: whether it is read-only.
    pub read_only: bool,
    /// What else is said about it.
    pub said: Said,
}

impl Properties {
    /// The same new thing, with what is said about it.
    fn said_of<R: Row>(&self, mut made: Made<R>, subject: Subject, app: &App) -> Result<Made<R>, Error> {
        made.changes.merge(about::said(None, subject, &self.said, app.now())?);
        Ok(made)
    }

    /// Refuses to return something that exists and is more open than what was asked for.
    fn kept_by(&self, private: bool, read_only: bool) -> Result<(), Error> {
        let broken = (self.private && !private).then_some("private");
        match broken.or((self.read_only && !read_only).then_some("read-only")) {
            Some(what) => Err(Error::Conflict(format!("it exists and is not {what}, change it with PATCH"))),
            None => Ok(()),
        }
    }
}

/// Creates an entity, owned by the caller.
pub async fn entity(
    app: &App,
    credential: &Credential,
    name: EntityName,
    properties: Properties,
) -> Result<Entity, Error> {
    let wanted = [keys::entity(&name), keys::removed_entity(&name)];
    let mut access = Access::load(app, credential, Some(&name), wanted).await?;
    let existing: Option<Entity> = access.take(&keys::entity(&name))?;
    let resource = Resource::Entity(name.clone());
    if let Some(existing) = existing
        && access.caller.known().is_some()
        && access.decide(Action::See, &resource).is_ok()
    {
        properties.kept_by(existing.default_private, false)?;
        return Ok(existing);
    }
    let doing = format!("create entity {name}");
    let grant = access.require(Action::Create, &resource, "entity", &doing)?;
    let owner = grant.by().and_then(Actor::user).ok_or(Error::Unauthenticated(crate::error::NO_TOKEN))?;
    let Properties { description, private, .. } = properties.clone();
    let may_free = access.probe(Action::Manage, &Resource::Installation).is_ok();
    let freed = removal::freed(access.take(&keys::removed_entity(&name))?, may_free)?;
    let (limit, freed) = (app.config.default_quota, freed.as_ref());
    let new = NewEntity { name: &name, owner, description, private, limit, freed };
    let made = entities::entity(new, app.birth(&grant)?)?;
    let subject = Subject { of: Described::Entity(name.clone()), id: made.row.id };
    let entity = written(app, &grant, properties.said_of(made, subject, app)?).await?;
    properties.kept_by(entity.default_private, false)?;
    Ok(entity)
}

/// Creates a collection in the entity with the id `parent`.
pub async fn collection(
    app: &App,
    credential: &Credential,
    parent: Id,
    name: CollectionName,
    properties: Properties,
) -> Result<Collection, Error> {
    let doing = format!("create collection {name} there");
    let mut access = Access::load(app, credential, None, [keys::pointer(parent)]).await?;
    let Some(Target::Entity(entity)) = access.target(parent)? else {
        return Err(access.points_nowhere("entity", &doing));
    };
    let key = keys::collection(&entity, &name);
    access.load_more(app, &entity, [keys::entity(&entity), key.clone()]).await?;
    let resource = Resource::Collection(entity.clone(), name.clone());
    let existing: Option<Collection> = access.take(&key)?;
    if let Some(existing) = existing
        && access.caller.known().is_some()
        && access.decide(Action::See, &resource).is_ok()
    {
        properties.kept_by(existing.private, false)?;
        return Ok(existing);
    }
    let grant = access.require(Action::Create, &resource, "entity", &doing)?;
    let parent: Entity = access.take(&keys::entity(&entity))?.ok_or(Error::NotFound("entity"))?;
    let Properties { description, private, .. } = properties.clone();
    let of = Described::Collection(entity, name.clone());
    let new = NewCollection { parent: &parent, name, description, private };
    let made = entities::collection(new, app.birth(&grant)?)?;
    let subject = Subject { of, id: made.row.id };
    let collection = written(app, &grant, properties.said_of(made, subject, app)?).await?;
    properties.kept_by(collection.private, false)?;
    Ok(collection)
}

/// Creates a container in the collection with the id `parent`: public, unless the collection or entity says otherwise.
pub async fn container(
    app: &App,
    credential: &Credential,
    parent: Id,
    name: &ContainerName,
    properties: Properties,
) -> Result<Container, Error> {
    let doing = format!("create container {name} there");
    let mut access = Access::load(app, credential, None, [keys::pointer(parent)]).await?;
    let Some(Target::Collection(entity, collection)) = access.target(parent)? else {
        return Err(access.points_nowhere("collection", &doing));
    };
    let repository = Repository::container(entity.clone(), &collection, name);
    let key = keys::container(&repository);
    let above = [keys::entity(&entity), keys::collection(&entity, &collection)];
    access.load_more(app, &entity, above.into_iter().chain([key.clone()])).await?;
    let existing: Option<Container> = access.take(&key)?;
    if let Some(existing) = existing {
        // Anybody may see a public container, but this call returns it only to those who may see it as a private one.
        let visibility = Visibility::Private;
        let resource = Resource::Container { repository: repository.clone(), visibility, read_only: false };
        if access.caller.known().is_some() && access.decide(Action::See, &resource).is_ok() {
            properties.kept_by(existing.visibility == Visibility::Private, existing.read_only)?;
            return Ok(existing);
        }
    }
    let Properties { description, private, read_only, .. } = properties.clone();
    let open = if private { Visibility::Private } else { Visibility::Public };
    let resource = Resource::Container { repository: repository.clone(), visibility: open, read_only: false };
    let grant = access.require(Action::Create, &resource, "collection", &doing)?;
    let above: Option<Entity> = access.take(&keys::entity(&entity))?;
    let parent: Option<Collection> = access.take(&keys::collection(&entity, &collection))?;
    let (Some(entity), Some(parent)) = (above, parent) else { return Err(Error::NotFound("collection")) };
    let collection = Some(&parent);
    let new = NewContainer { repository: &repository, entity: &entity, collection, open, read_only, description };
    let made = entities::container(new, app.birth(&grant)?)?;
    let subject = Subject { of: Described::Container(repository.clone()), id: made.row.id };
    let container = written(app, &grant, properties.said_of(made, subject, app)?).await?;
    properties.kept_by(container.visibility == Visibility::Private, container.read_only)?;
    Ok(container)
}

/// A repository that a push through the registry makes.
pub(crate) struct NewRepository<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) entity: &'a Entity,
    /// Its collection, if it is a library container and that exists.
    pub(crate) collection: Option<Collection>,
    /// Who may see it, unless the entity or collection makes new containers private.
    pub(crate) open: Visibility,
}

/// Creates a repository for a push through the registry, and its collection if it is a library container.
pub(crate) async fn repository(app: &App, grant: &Grant, new: NewRepository<'_>) -> Result<Container, Error> {
    let NewRepository { repository, entity, collection, open } = new;
    let none = Description::default();
    let collection = match (repository.as_container(), collection) {
        (Some((name, _)), None) => {
            let new = NewCollection { parent: entity, name, description: none.clone(), private: false };
            Some(written(app, grant, entities::collection(new, app.birth(grant)?)?).await?)
        }
        (_, collection) => collection,
    };
    let collection = collection.as_ref();
    let new = NewContainer { repository, entity, collection, open, read_only: false, description: none };
    written(app, grant, entities::container(new, app.birth(grant)?)?).await
}

/// Creates an image in the container with the id `parent`, before its bytes are uploaded.
///
/// Bytes that are already linked in an entity where the pusher has a role need not come again: the image is committed
/// at once. Anybody else has to upload them, so that knowing a digest never is a way to the bytes.
///
/// Only the pusher's first 50 entities are asked, by name: their charges come in the one batch of at most 100 keys that
/// is read anyway, and a push shall not take longer the more entities its pusher has. Whoever has the bytes only in
/// others uploads them again, which costs time and changes nothing else.
pub async fn image(
    app: &App,
    credential: &Credential,
    parent: Id,
    hash: Digest,
    description: Description,
) -> Result<(Container, Image), Error> {
    let doing = "push an image there";
    let (access, members) = futures::join!(
        Access::load(app, credential, None, [keys::pointer(parent)]),
        memberships(app, credential, None)
    );
    let mut access = access?;
    let Some(Target::Container(repository)) = access.target(parent)? else {
        return Err(access.points_nowhere("container", doing));
    };
    let members = members?;
    // Who has the bytes may pull them, with this token: else knowing a hash would be a way to them.
    let held = members.rows.iter().filter(|member| access.may_on(Action::Pull, member));
    let held: Vec<_> = held.map(|member| keys::charge(&member.entity, &hash)).collect();
    let (container_key, image_key) = (keys::container(&repository), keys::image(&repository, &hash));
    let wanted = [container_key.clone(), image_key.clone(), keys::blob(&hash)];
    access.load_more(app, repository.entity(), wanted.into_iter().chain(held.iter().cloned())).await?;
    let container: Option<Container> = access.take(&container_key)?;
    let (grant, container) = access.may_push(&repository, container, doing)?;
    let existing: Option<Image> = access.take(&image_key)?;
    let image = match existing {
        Some(image) => restore::without_lost(app, image).await?,
        None => begin(app, &grant, &container, hash, description).await?,
    };
    let known = access.take::<Blob>(&keys::blob(&hash))?.and_then(VerifiedImage::of);
    let mut linked = false;
    for key in &held {
        linked |= access.take::<Charge>(key)?.is_some_and(|charge| charge.links > 0);
    }
    match known {
        Some(known)
            if linked
                && image.content.is_none()
                && restore::there(app, &known.bytes.object, known.bytes.size).await? =>
        {
            let image = commit::known(app, &grant, &image, known).await?;
            Ok((container, image))
        }
        _ => Ok((container, image)),
    }
}

/// Writes the row of an image whose bytes are not uploaded yet.
pub(crate) async fn begin(
    app: &App,
    grant: &Grant,
    container: &Container,
    hash: Digest,
    description: Description,
) -> Result<Image, Error> {
    written(app, grant, entities::image(container, hash, description, app.birth(grant)?)?).await
}

/// Writes a new row; if somebody else was faster, returns theirs.
async fn written<R: Row>(app: &App, grant: &Grant, made: Made<R>) -> Result<R, Error> {
    let key = made.row.key();
    match app.commit(grant, made.changes).await? {
        Written::Done => Ok(made.row),
        Written::Lost(_) => app.table.get(key).await?.ok_or_else(deleted_meanwhile),
    }
}

fn deleted_meanwhile() -> Error {
    Error::Conflict("it was deleted, or what it lies in, and is still being removed: try again later".to_owned())
}
