//! Browsing entities, collections and containers, one by one, and in lists for clients that know no pages.

use super::access::{Access, entity_at, resource_at};
use super::parts::{Listable, may_list};
use super::{FEW_SHOWN, MAX_LISTED, MAX_SHOWN};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::quota::Quota;
use crate::domain::{Caller, CollectionName, Digest, EntityName, Id, Repository};
use crate::error::Error;
use crate::rules::{Action, Place, Resource};
use crate::store::keys::{self, KeyRange};
use crate::store::rows::{
    About, Account, Collection, Container, Counted, Counts, Downloaded, Entity, Image, Link, Membership, Row, Tag,
};
use crate::store::table::Page;
use futures::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet};

/// An entity, with its account.
#[derive(Debug)]
pub struct EntityView {
    /// The entity.
    pub entity: Entity,
    /// Its account.
    pub account: Account,
    /// What is said about it; lists leave it out.
    pub about: Option<About>,
}

/// Looks an entity up.
pub async fn entity(app: &App, credential: &Credential, name: &EntityName) -> Result<EntityView, Error> {
    let (key, account_key, about_key) = (keys::entity(name), keys::account(name), keys::about_entity(name));
    let wanted = [key.clone(), account_key.clone(), about_key.clone()];
    let mut access = Access::load(app, credential, Some(name), wanted).await?;
    let entity: Option<Entity> = access.take(&key)?;
    access.require(Action::See, &entity_at(name, entity.as_ref()), "entity", "see this entity")?;
    let account: Option<Account> = access.take(&account_key)?;
    let (Some(entity), Some(account), Some(member)) = (entity, account, access.membership(name)) else {
        return Err(Error::NotFound("entity"));
    };
    let about = access.take(&about_key)?.filter(|about: &About| about.id == entity.id);
    Ok(EntityView { entity, account: seen_by(&access, &member, account), about })
}

/// An account as a member sees it: what all of an entity uses is not for whoever has a role on a part.
pub(super) fn seen_by(access: &Access, member: &Membership, account: Account) -> Account {
    let seen = access.may_in(Action::See, member, &Resource::Account(member.entity.clone()));
    if seen { account } else { Account { quota: Quota::default(), ..account } }
}

/// A collection, with what is said about it.
#[derive(Debug)]
pub struct CollectionView {
    /// The collection.
    pub collection: Collection,
    /// What is said about it.
    pub about: Option<About>,
}

/// Looks a collection up.
pub async fn collection(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    name: &CollectionName,
) -> Result<CollectionView, Error> {
    let (key, about_key) = (keys::collection(entity, name), keys::about_collection(entity, name));
    let mut access = Access::load(app, credential, Some(entity), [key.clone(), about_key.clone()]).await?;
    let row: Option<Collection> = access.take(&key)?;
    let resource = match &row {
        Some(_) => Resource::Collection(entity.clone(), name.clone()),
        None => Resource::Missing(Place::Collection(entity.clone(), name.clone())),
    };
    access.require(Action::See, &resource, "collection", "see this collection")?;
    let collection = row.ok_or(Error::NotFound("collection"))?;
    let about = access.take(&about_key)?.filter(|about: &About| about.id == collection.id);
    Ok(CollectionView { collection, about })
}

/// A container, or another repository, with what is said about it.
#[derive(Debug)]
pub struct RepositoryView {
    /// Its row.
    pub container: Container,
    /// What is said about it.
    pub about: Option<About>,
    /// How many users have starred it.
    pub stars: u64,
    /// How often images of it were downloaded.
    pub downloads: u64,
}

/// Looks a repository up.
pub async fn repository(app: &App, credential: &Credential, repository: &Repository) -> Result<RepositoryView, Error> {
    let (about, counts) = (keys::about_container(repository), keys::counts(repository));
    let key = keys::container(repository);
    let downloads = keys::downloaded(repository, &Counted::Repository, None);
    let wanted = [key.clone(), about.clone(), counts.clone(), downloads.clone()];
    let mut access = Access::load(app, credential, Some(repository.entity()), wanted).await?;
    let row: Option<Container> = access.take(&key)?;
    let resource = resource_at(repository, row.as_ref());
    access.require(Action::See, &resource, "container", "see this container")?;
    let container = row.ok_or(Error::NotFound("container"))?;
    let about = access.take(&about)?.filter(|about: &About| about.id == container.id);
    let counts = access.take(&counts)?.filter(|counts: &Counts| counts.container == container.id);
    let downloads = access.take(&downloads)?.filter(|row: &Downloaded| row.container == container.id);
    Ok(RepositoryView {
        container,
        about,
        stars: counts.map_or(0, |counts| counts.stars),
        downloads: downloads.map_or(0, |row| row.downloads.all()),
    })
}

/// A container with its images and tags.
#[derive(Debug)]
pub struct ContainerView {
    /// The container.
    pub repository: RepositoryView,
    /// Its first images.
    pub images: Vec<Image>,
    /// Its first tags.
    pub tags: Vec<Tag>,
}

/// Looks a container up, with its first `most` images and tags.
pub async fn container(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    most: usize,
) -> Result<ContainerView, Error> {
    let view = self::repository(app, credential, repository).await?;
    let _turn = if most > FEW_SHOWN { Some(app.long_read().await?) } else { None };
    let images: Page<Image> = app.table.query(keys::images(repository), None, most).await?;
    let tags: Page<Tag> = app.table.query(keys::tags(repository), None, most).await?;
    let images = images.rows.into_iter().filter(|image| image.content.is_some()).collect();
    Ok(ContainerView { repository: view, images, tags: tags.rows })
}

/// The most links or tags that are read for one list: a list for clients that know no pages has its end, too.
const MAX_COUNTED: usize = 20_000;
/// How many repositories are read at a time.
const AT_A_TIME: usize = 16;

/// A collection with the bytes of what is in it.
#[derive(Debug)]
pub struct UsedCollection {
    /// The collection.
    pub collection: Collection,
    /// The bytes of its blobs, each counted once.
    pub bytes: u64,
}

/// The collections of an entity, for clients that know no pages.
pub async fn used_collections(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
) -> Result<Vec<UsedCollection>, Error> {
    let access = may_list(app, credential, entity).await?;
    let listable = Listable::of_caller(&access, entity);
    let _turn = app.long_read().await?;
    let mut collections: Page<Collection> = app.table.query(keys::collections(entity), None, MAX_LISTED).await?;
    let mut containers: Page<Container> = app.table.query(keys::containers(entity, None), None, MAX_LISTED).await?;
    containers.rows.retain(|row| listable.covers(row.repository.rest()));
    let with_some: BTreeSet<Id> = containers.rows.iter().filter_map(|row| row.collection_id).collect();
    collections.rows.retain(|row| listable.covers(row.name.as_str()) || with_some.contains(&row.id));
    let links: Vec<Vec<Link>> = first_rows(app, &containers.rows, MAX_LISTED, keys::links).await?;
    let mut bytes: BTreeMap<Id, BTreeMap<Digest, u64>> = BTreeMap::new();
    for (container, links) in containers.rows.iter().zip(links) {
        if let Some(id) = container.collection_id {
            bytes.entry(id).or_default().extend(links.iter().map(|link| (link.digest, link.size)));
        }
    }
    let used = collections.rows.into_iter().map(|collection| {
        let bytes = bytes.get(&collection.id).map_or(0, |blobs| blobs.values().sum());
        UsedCollection { collection, bytes }
    });
    Ok(used.collect())
}

/// A container with its tags and the bytes of what is in it.
#[derive(Debug)]
pub struct UsedContainer {
    /// The container.
    pub container: Container,
    /// Its first tags.
    pub tags: Vec<Tag>,
    /// The bytes of its blobs, each counted once.
    pub bytes: u64,
}

/// The containers of a collection, for clients that know no pages.
pub async fn used_containers(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    collection: &CollectionName,
) -> Result<Vec<UsedContainer>, Error> {
    let key = keys::collection(entity, collection);
    let mut access = Access::load(app, credential, Some(entity), [key.clone()]).await?;
    let resource = match access.take::<Collection>(&key)? {
        Some(_) => Resource::Collection(entity.clone(), collection.clone()),
        None => Resource::Missing(Place::Collection(entity.clone(), collection.clone())),
    };
    access.require(Action::List, &resource, "collection", "list this collection")?;
    let _turn = app.long_read().await?;
    let mut page: Page<Container> =
        app.table.query(keys::containers(entity, Some(collection)), None, MAX_LISTED).await?;
    page.rows.retain(|row| row.collection_id.is_some());
    let links: Vec<Vec<Link>> = first_rows(app, &page.rows, MAX_LISTED, keys::links).await?;
    let tags: Vec<Vec<Tag>> = first_rows(app, &page.rows, MAX_SHOWN, keys::tags).await?;
    let used = page.rows.into_iter().zip(links).zip(tags).map(|((container, links), tags)| {
        let blobs: BTreeMap<Digest, u64> = links.iter().map(|link| (link.digest, link.size)).collect();
        UsedContainer { container, tags, bytes: blobs.values().sum() }
    });
    Ok(used.collect())
}

/// The first rows of one kind of each container, at most `most` of each. Once there are [`MAX_COUNTED`], no more are
/// read.
async fn first_rows<R: Row>(
    app: &App,
    containers: &[Container],
    most: usize,
    range: fn(&Repository) -> KeyRange,
) -> Result<Vec<Vec<R>>, Error> {
    let (mut all, mut counted) = (Vec::new(), 0);
    for some in containers.chunks(AT_A_TIME) {
        if counted >= MAX_COUNTED {
            all.extend(some.iter().map(|_| Vec::new()));
            continue;
        }
        let pages = some.iter().map(|row| app.table.query::<R>(range(&row.repository), None, most));
        let pages: Vec<Page<R>> = try_join_all(pages).await?;
        counted += pages.iter().map(|page| page.rows.len()).sum::<usize>();
        all.extend(pages.into_iter().map(|page| page.rows));
    }
    Ok(all)
}

/// The first images of a container, for clients that know no pages.
pub async fn all_images(
    app: &App,
    credential: &Credential,
    repository: &Repository,
) -> Result<(Container, Vec<Image>), Error> {
    let container = listed(app, credential, repository).await?;
    let _turn = app.long_read().await?;
    let mut page: Page<Image> = app.table.query(keys::images(repository), None, MAX_LISTED).await?;
    page.rows.retain(|image| image.content.is_some());
    Ok((container, page.rows))
}

/// A container that the caller may list.
pub(super) async fn listed(app: &App, credential: &Credential, repository: &Repository) -> Result<Container, Error> {
    let key = keys::container(repository);
    let mut access = Access::load(app, credential, Some(repository.entity()), [key.clone()]).await?;
    let row: Option<Container> = access.take(&key)?;
    let resource = resource_at(repository, row.as_ref());
    access.require(Action::List, &resource, "container", "list this container")?;
    row.ok_or(Error::NotFound("container"))
}

/// The caller's identity, for `remote status`.
pub async fn whoami(app: &App, credential: &Credential) -> Result<Caller, Error> {
    match Access::load(app, credential, None, []).await?.caller {
        Caller::Anonymous => Err(Error::Unauthenticated(crate::error::NO_TOKEN)),
        caller => Ok(caller),
    }
}
