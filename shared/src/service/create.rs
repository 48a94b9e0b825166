//! Making entities, collections, containers and images. All of it is idempotent: what is already there is returned.

use super::access::Scene;
use super::commit::{self, Known};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::quota::Quota;
use crate::domain::{CollectionName, ContainerName, Digest, EntityName, Id, Repository, Role, UserName, Visibility};
use crate::error::Error;
use crate::rules::{Action, Grant, Place, Resource};
use crate::store::StoreError;
use crate::store::keys;
use crate::store::rows::{
    Account, Blob, Charge, Collection, Container, Entity, Image, Member, Membership, Parents, Pointer, Target,
};
use crate::store::table::{Condition, Write, Written};

/// Longest description, in bytes.
pub const MAX_DESCRIPTION: usize = 4096;

/// A description as it is kept: the placeholders of old clients are none.
pub fn description(text: &str) -> Result<String, Error> {
    if text.len() > MAX_DESCRIPTION {
        return Err(Error::Invalid(format!("a description has at most {MAX_DESCRIPTION} bytes")));
    }
    Ok(if text.eq_ignore_ascii_case("no description") { String::new() } else { text.to_owned() })
}

/// The rows of a new entity that `owner` owns, for a transaction that makes it.
pub(crate) fn entity_rows(
    app: &App,
    name: &EntityName,
    owner: &UserName,
    text: String,
    limit: u64,
) -> Result<(Entity, Vec<Write>), Error> {
    let id = app.new_id()?;
    let row = Entity {
        id,
        name: name.clone(),
        description: text,
        default_private: false,
        created_by: Some(owner.clone()),
        created: app.now(),
        version: 0,
    };
    let account = Account { entity: name.clone(), quota: Quota { limit, ..Quota::default() } };
    let member = Member { entity: name.clone(), user: owner.clone(), role: Role::Owner };
    let membership = Membership { entity: name.clone(), user: owner.clone(), role: Role::Owner };
    let writes = vec![
        Write::put(&row, Condition::Absent)?,
        Write::put(&account, Condition::Absent)?,
        Write::put(&member, Condition::None)?,
        Write::put(&membership, Condition::None)?,
        Write::put(&Pointer { id, target: Target::Entity(name.clone()) }, Condition::Absent)?,
    ];
    Ok((row, writes))
}

/// Makes an entity. Whoever makes it owns it.
pub async fn entity(app: &App, credential: &Credential, name: EntityName, text: &str) -> Result<Entity, Error> {
    let text = description(text)?;
    let mut scene = Scene::load(app, credential, Some(&name), [keys::entity(&name)]).await?;
    let existing: Option<Entity> = scene.take(&keys::entity(&name))?;
    let resource = Resource::Entity(name.clone());
    if let Some(existing) = existing
        && scene.caller.user().is_some()
        && scene.decide(Action::See, &resource).is_ok()
    {
        return Ok(existing);
    }
    let doing = format!("create entity {name}");
    let grant = scene.decide(Action::Create, &resource).map_err(|denial| Error::denied(denial, "entity", &doing))?;
    let owner = grant.by().ok_or(Error::Unauthenticated(crate::error::NO_TOKEN))?;
    let (row, writes) = entity_rows(app, &name, owner, text, app.config.default_quota)?;
    made(app, &grant, writes, row, || app.table.get(keys::entity(&name))).await
}

/// Makes a collection in the entity with the id `parent`.
pub async fn collection(
    app: &App,
    credential: &Credential,
    parent: Id,
    name: CollectionName,
    text: &str,
) -> Result<Collection, Error> {
    let text = description(text)?;
    let doing = format!("create collection {name} there");
    let denied = |denial| Error::denied(denial, "entity", &doing);
    let mut scene = Scene::load(app, credential, None, [keys::pointer(parent)]).await?;
    let Some(Target::Entity(entity)) = target(&mut scene, parent)? else {
        return Err(missing(&scene, &doing, "entity"));
    };
    let key = keys::collection(&entity, &name);
    scene.look(app, &entity, [keys::entity(&entity), key.clone()]).await?;
    let resource = Resource::Collection(entity.clone(), name.clone());
    let existing: Option<Collection> = scene.take(&key)?;
    if let Some(existing) = existing
        && scene.caller.user().is_some()
        && scene.decide(Action::See, &resource).is_ok()
    {
        return Ok(existing);
    }
    let grant = scene.decide(Action::Create, &resource).map_err(denied)?;
    let parent: Entity = scene.take(&keys::entity(&entity))?.ok_or(Error::NotFound("entity"))?;
    make_collection(app, &grant, &parent, name, text).await
}

/// Makes a container in the collection with the id `parent`: public, unless collection or entity say otherwise.
pub async fn container(
    app: &App,
    credential: &Credential,
    parent: Id,
    name: &ContainerName,
    text: &str,
) -> Result<Container, Error> {
    let text = description(text)?;
    let doing = format!("create container {name} there");
    let mut scene = Scene::load(app, credential, None, [keys::pointer(parent)]).await?;
    let Some(Target::Collection(entity, collection)) = target(&mut scene, parent)? else {
        return Err(missing(&scene, &doing, "collection"));
    };
    let repository = Repository::container(entity.clone(), &collection, name);
    let key = keys::container(&repository);
    let above = [keys::entity(&entity), keys::collection(&entity, &collection)];
    scene.look(app, &entity, above.into_iter().chain([key.clone()])).await?;
    let existing: Option<Container> = scene.take(&key)?;
    if let Some(existing) = existing {
        // Anybody may see a public container, but only who could have made it gets it for an answer here.
        let resource = Resource::Collection(entity.clone(), collection.clone());
        if scene.caller.user().is_some() && scene.decide(Action::See, &resource).is_ok() {
            return Ok(existing);
        }
    }
    let resource =
        Resource::Container { repository: repository.clone(), visibility: Visibility::Public, read_only: false };
    let denied = |denial| Error::denied(denial, "collection", &doing);
    let grant = scene.decide(Action::Create, &resource).map_err(denied)?;
    let above: Option<Entity> = scene.take(&keys::entity(&entity))?;
    let parent: Option<Collection> = scene.take(&keys::collection(&entity, &collection))?;
    let (Some(above), Some(parent)) = (above, parent) else { return Err(Error::NotFound("collection")) };
    make_container(app, &grant, &repository, (&above, Some(&parent)), Visibility::Public, text).await
}

/// Makes a repository that is pushed to through the registry, and the collection that it lies in when it is a library
/// container. Seen by everyone logged in, unless entity or collection say that what is made in them is private.
pub(crate) async fn repository(
    app: &App,
    grant: &Grant,
    repository: &Repository,
    above: &Entity,
    collection: Option<Collection>,
) -> Result<Container, Error> {
    let collection = match (repository.as_container(), collection) {
        (Some((name, _)), None) => Some(make_collection(app, grant, above, name, String::new()).await?),
        (_, collection) => collection,
    };
    make_container(app, grant, repository, (above, collection.as_ref()), Visibility::Internal, String::new()).await
}

/// Makes a container, `open` unless what it lies in says that what is made there is private.
async fn make_container(
    app: &App,
    grant: &Grant,
    repository: &Repository,
    (entity, collection): (&Entity, Option<&Collection>),
    open: Visibility,
    description: String,
) -> Result<Container, Error> {
    let private = entity.default_private || collection.is_some_and(|collection| collection.private);
    let id = app.new_id()?;
    let row = Container {
        id,
        repository: repository.clone(),
        collection_id: collection.map(|collection| collection.id),
        entity_id: entity.id,
        description,
        visibility: if private { Visibility::Private } else { open },
        read_only: false,
        created_by: grant.by().cloned(),
        created: app.now(),
        epoch: 0,
        version: 0,
    };
    let writes = vec![
        Write::put(&row, Condition::Absent)?,
        Write::put(&Pointer { id, target: Target::Container(repository.clone()) }, Condition::Absent)?,
    ];
    made(app, grant, writes, row, || app.table.get(keys::container(repository))).await
}

async fn make_collection(
    app: &App,
    grant: &Grant,
    parent: &Entity,
    name: CollectionName,
    description: String,
) -> Result<Collection, Error> {
    let (id, key) = (app.new_id()?, keys::collection(&parent.name, &name));
    let row = Collection {
        id,
        entity: parent.name.clone(),
        entity_id: parent.id,
        name,
        description,
        private: parent.default_private,
        created_by: grant.by().cloned(),
        created: app.now(),
        version: 0,
    };
    let target = Target::Collection(row.entity.clone(), row.name.clone());
    let writes = vec![Write::put(&row, Condition::Absent)?, Write::put(&Pointer { id, target }, Condition::Absent)?];
    made(app, grant, writes, row, || app.table.get(key)).await
}

/// Makes an image in the container with the id `parent`, its bytes still to come.
///
/// Bytes that are already linked in an entity where the pusher has a role need not come again: the image is committed
/// at once. Anybody else has to bring them, so that knowing a digest never is a way to the bytes.
pub async fn image(
    app: &App,
    credential: &Credential,
    parent: Id,
    hash: Digest,
    text: &str,
) -> Result<(Container, Image), Error> {
    let text = description(text)?;
    let doing = "push an image there";
    let (scene, members) = futures::join!(
        Scene::load(app, credential, None, [keys::pointer(parent)]),
        super::search::memberships(app, credential)
    );
    let mut scene = scene?;
    let Some(Target::Container(repository)) = target(&mut scene, parent)? else {
        return Err(missing(&scene, doing, "container"));
    };
    let members = members?;
    // A token for one container only is no key to the bytes of the others.
    let holds = |member: &&Membership| [Action::List, Action::Push].iter().any(|action| scene.may_on(*action, member));
    let held = members.iter().filter(holds);
    let held: Vec<_> = held.map(|member| keys::charge(&member.entity, &hash)).collect();
    let (container_key, image_key) = (keys::container(&repository), keys::image(&repository, &hash));
    let wanted = [container_key.clone(), image_key.clone(), keys::blob(&hash)];
    scene.look(app, repository.entity(), wanted.into_iter().chain(held.iter().cloned())).await?;
    let container: Option<Container> = scene.take(&container_key)?;
    let (grant, container) = may_push(&scene, container, &repository, doing)?;
    let existing: Option<Image> = scene.take(&image_key)?;
    let image = match existing {
        Some(image) => image,
        None => begin(app, &grant, &container, hash, text).await?,
    };
    let known = scene.take::<Blob>(&keys::blob(&hash))?.and_then(Known::of);
    let mut linked = false;
    for key in &held {
        linked |= scene.take::<Charge>(key)?.is_some_and(|charge| charge.links > 0);
    }
    match known {
        Some(bytes) if linked && image.content.is_none() => {
            let image = commit::known(app, &grant, image, bytes).await?;
            Ok((container, image))
        }
        _ => Ok((container, image)),
    }
}

pub(crate) async fn begin(
    app: &App,
    grant: &Grant,
    container: &Container,
    hash: Digest,
    text: String,
) -> Result<Image, Error> {
    let id = app.new_id()?;
    let repository = container.repository.clone();
    let image = Image {
        id,
        repository: repository.clone(),
        parents: parents(container)?,
        hash,
        description: text,
        created_by: grant.by().cloned(),
        created: app.now(),
        content: None,
        sealed: None,
        named: false,
        intents: Vec::new(),
        tags: [].into(),
        labels: [].into(),
        version: 0,
    };
    let writes = vec![
        Write::put(&image, Condition::Absent)?,
        Write::put(&Pointer { id, target: Target::Image(repository.clone(), hash) }, Condition::Absent)?,
    ];
    made(app, grant, writes, image, || app.table.get(keys::image(&repository, &hash))).await
}

/// Whether the caller may push into the container; a missing one is said to be missing only to who may push there.
pub(crate) fn may_push(
    scene: &Scene,
    container: Option<Container>,
    repository: &Repository,
    doing: &str,
) -> Result<(Grant, Container), Error> {
    let resource =
        container.as_ref().map_or_else(|| Resource::Missing(Place::Repository(repository.clone())), resource_of);
    let grant = scene.decide(Action::Push, &resource).map_err(|denial| Error::denied(denial, "container", doing))?;
    Ok((grant, container.ok_or(Error::NotFound("container"))?))
}

/// A container, as the rules see it.
pub(crate) fn resource_of(container: &Container) -> Resource {
    Resource::Container {
        repository: container.repository.clone(),
        visibility: container.visibility,
        read_only: container.read_only,
    }
}

/// What the id points at, if it was loaded and points at anything.
pub(crate) fn target(scene: &mut Scene, id: Id) -> Result<Option<Target>, Error> {
    Ok(scene.take::<Pointer>(&keys::pointer(id))?.map(|pointer| pointer.target))
}

/// What is said of an id that points at nothing: the same as of one that points where the caller may not go.
pub(crate) fn missing(scene: &Scene, doing: &str, what: &'static str) -> Error {
    match scene.decide(Action::Push, &Resource::Missing(Place::Nowhere)) {
        Err(denial) => Error::denied(denial, what, doing),
        Ok(_) => Error::NotFound(what),
    }
}

/// Writes new rows; when somebody else was faster, returns theirs.
async fn made<R, F>(
    app: &App,
    grant: &Grant,
    writes: Vec<Write>,
    row: R,
    theirs: impl FnOnce() -> F,
) -> Result<R, Error>
where
    F: Future<Output = Result<Option<R>, StoreError>>,
{
    match app.table.write(grant, writes).await? {
        Written::Done => Ok(row),
        Written::Lost(_) => theirs().await?.ok_or_else(gone),
    }
}

fn gone() -> Error {
    Error::Conflict("it was deleted while it was being made, try again".to_owned())
}

/// The ids of a container and what it lies in.
pub(crate) fn parents(container: &Container) -> Result<Parents, Error> {
    // Other repositories have other paths, which the library can't spell.
    let collection = container.collection_id.ok_or(Error::NotFound("container"))?;
    Ok(Parents { container: container.id, collection, entity: container.entity_id })
}
