//! Browsing entities, collections and containers, one by one and in pages.

use super::MAX_LISTED;
use super::access::{Access, resource_at};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::{Caller, CollectionName, EntityName, Repository};
use crate::error::Error;
use crate::rules::{Action, Place, Resource};
use crate::store::keys;
use crate::store::rows::{Account, Collection, Container, Entity, Image, Membership, Tag};
use crate::store::table::Page;

/// The maximum number of entries on a page.
pub const PAGE: usize = 100;

/// An entity, with its account.
#[derive(Debug)]
pub struct EntityView {
    /// The entity.
    pub entity: Entity,
    /// Its account.
    pub account: Account,
}

/// Looks an entity up.
pub async fn entity(app: &App, credential: &Credential, name: &EntityName) -> Result<EntityView, Error> {
    let (key, account_key) = (keys::entity(name), keys::account(name));
    let mut access = Access::load(app, credential, Some(name), [key.clone(), account_key.clone()]).await?;
    let entity: Option<Entity> = access.take(&key)?;
    let resource = match &entity {
        Some(_) => Resource::Entity(name.clone()),
        None => Resource::Missing(Place::Entity(name.clone())),
    };
    access.require(Action::See, &resource, "entity", "see this entity")?;
    let account: Option<Account> = access.take(&account_key)?;
    let (Some(entity), Some(account)) = (entity, account) else { return Err(Error::NotFound("entity")) };
    Ok(EntityView { entity, account })
}

/// Looks a collection up.
pub async fn collection(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    name: &CollectionName,
) -> Result<Collection, Error> {
    let key = keys::collection(entity, name);
    let mut access = Access::load(app, credential, Some(entity), [key.clone()]).await?;
    let row: Option<Collection> = access.take(&key)?;
    let resource = match &row {
        Some(_) => Resource::Collection(entity.clone(), name.clone()),
        None => Resource::Missing(Place::Collection(entity.clone(), name.clone())),
    };
    access.require(Action::See, &resource, "collection", "see this collection")?;
    row.ok_or(Error::NotFound("collection"))
}

/// A container with its images and tags.
#[derive(Debug)]
pub struct ContainerView {
    /// The container.
    pub container: Container,
    /// Its first images.
    pub images: Vec<Image>,
    /// Its first tags.
    pub tags: Vec<Tag>,
}

/// Looks a container up.
pub async fn container(app: &App, credential: &Credential, repository: &Repository) -> Result<ContainerView, Error> {
    let key = keys::container(repository);
    let mut access = Access::load(app, credential, Some(repository.entity()), [key.clone()]).await?;
    let row: Option<Container> = access.take(&key)?;
    let resource = resource_at(repository, row.as_ref());
    access.require(Action::See, &resource, "container", "see this container")?;
    let container = row.ok_or(Error::NotFound("container"))?;
    let _turn = app.long_read().await?;
    let images: Page<Image> = app.table.query(keys::images(repository), None, MAX_LISTED).await?;
    let tags: Page<Tag> = app.table.query(keys::tags(repository), None, MAX_LISTED).await?;
    let images = images.rows.into_iter().filter(|image| image.content.is_some()).collect();
    Ok(ContainerView { container, images, tags: tags.rows })
}

/// The entities in which the caller has a role.
pub async fn entities(app: &App, credential: &Credential, after: Option<String>) -> Result<Page<EntityView>, Error> {
    let Some(user) = credential.user() else {
        return Ok(Page { rows: Vec::new(), next: None });
    };
    let (access, page) = futures::try_join!(async { list_access(app, credential, None).await }, async {
        Ok(app.table.query::<Membership>(keys::memberships(user), after, PAGE).await?)
    })?;
    let wanted = page.rows.iter().flat_map(|row| [keys::entity(&row.entity), keys::account(&row.entity)]);
    let mut rows = Vec::new();
    let mut found = app.table.batch(wanted).await?;
    for member in page.rows.iter().filter(|member| access.may_browse(member)) {
        let entity = found.take(&keys::entity(&member.entity))?;
        let account = found.take(&keys::account(&member.entity))?;
        if let (Some(entity), Some(account)) = (entity, account) {
            rows.push(EntityView { entity, account });
        }
    }
    Ok(Page { rows, next: page.next })
}

/// The collections of an entity.
pub async fn collections(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    after: Option<String>,
) -> Result<Page<Collection>, Error> {
    list_access(app, credential, Some(entity)).await?;
    Ok(app.table.query(keys::collections(entity), after, PAGE).await?)
}

/// The containers of an entity, of one collection or of all.
pub async fn containers(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    collection: Option<&CollectionName>,
    after: Option<String>,
) -> Result<Page<Container>, Error> {
    list_access(app, credential, Some(entity)).await?;
    let mut page: Page<Container> = app.table.query(keys::containers(entity, collection), after, PAGE).await?;
    // Registry repositories whose paths the library can't express are not containers of the library.
    page.rows.retain(|row| row.collection_id.is_some());
    Ok(page)
}

/// The images of a container.
pub async fn images(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    after: Option<String>,
) -> Result<(Container, Page<Image>), Error> {
    let key = keys::container(repository);
    let mut access = Access::load(app, credential, Some(repository.entity()), [key.clone()]).await?;
    let row: Option<Container> = access.take(&key)?;
    let resource = resource_at(repository, row.as_ref());
    access.require(Action::List, &resource, "container", "list this container")?;
    let container = row.ok_or(Error::NotFound("container"))?;
    let mut page: Page<Image> = app.table.query(keys::images(repository), after, PAGE).await?;
    page.rows.retain(|image| image.content.is_some());
    Ok((container, page))
}

/// Checks that the caller may browse the entity, or, without an entity, that the token is valid.
async fn list_access(app: &App, credential: &Credential, entity: Option<&EntityName>) -> Result<Access, Error> {
    let mut access = Access::load(app, credential, entity, entity.map(keys::entity)).await?;
    if let Some(name) = entity {
        let resource = match access.take::<Entity>(&keys::entity(name))? {
            Some(_) if !access.is_registrys() => Resource::Entity(name.clone()),
            _ => Resource::Missing(Place::Entity(name.clone())),
        };
        access.require(Action::List, &resource, "entity", "list this entity")?;
    }
    Ok(access)
}

/// The caller's identity, for `remote status`.
pub async fn whoami(app: &App, credential: &Credential) -> Result<Caller, Error> {
    match Access::load(app, credential, None, []).await?.caller {
        Caller::Anonymous => Err(Error::Unauthenticated(crate::error::NO_TOKEN)),
        caller => Ok(caller),
    }
}
