//! Lists in pages: entities, collections, containers, images, tags.
//!
//! What each order and filter costs is said in [`pages`].

mod pages;

pub use self::pages::{Filter, Listing, MAX_READ, PAGE};
use self::pages::{Position, cut, page, too_many};
use super::access::{Access, resource_at};
use super::browse::{self, EntityView};
use super::parts::{Listable, may_list};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::{CollectionName, EntityName, Order, Repository, SortBy, SubPath};
use crate::error::Error;
use crate::rules::Action;
use crate::store::keys;
use crate::store::rows::{Collection, Container, Image, Membership, Tag};
use crate::store::table::Page;
use std::collections::BTreeSet;

/// The entities in which the caller has a role. Each takes two rows more, so only those of one page can be sorted by
/// time.
pub async fn entities(app: &App, credential: &Credential, listing: &Listing) -> Result<Page<EntityView>, Error> {
    listing.only("entities", &["private"])?;
    let Some(actor) = credential.actor() else {
        return Ok(Page { rows: Vec::new(), next: None });
    };
    let Order { by, backwards } = listing.order;
    let range = keys::memberships(actor).narrowed(&listing.prefix);
    let prefix = listing.prefix.as_str();
    let (access, page) = futures::try_join!(Access::load(app, credential, None, []), async {
        let after = listing.after.clone();
        Ok(match by {
            SortBy::Name if backwards => app.table.query_last::<Membership>(range, after, PAGE).await?,
            SortBy::Name => app.table.query(range, after, PAGE).await?,
            SortBy::Created | SortBy::Updated => app.table.query(range, None, PAGE).await?,
        })
    })?;
    let in_time = by != SortBy::Name;
    if by == SortBy::Updated {
        return Err(Error::Invalid("`updated` is known only of tags, not of entities".to_owned()));
    }
    if in_time && page.next.is_some() {
        let why = "only a single page of entities is sorted by `created`: narrow the list with `prefix`";
        return Err(Error::Invalid(why.to_owned()));
    }
    let wanted = page.rows.iter().flat_map(|row| [keys::entity(&row.entity), keys::account(&row.entity)]);
    let mut rows = Vec::new();
    let mut found = app.table.batch(wanted).await?;
    for member in page.rows.iter().filter(|member| !Listable::in_library(&access, member).is_empty()) {
        let entity = found.take(&keys::entity(&member.entity))?;
        let account = found.take(&keys::account(&member.entity))?;
        if let (Some(entity), Some(account)) =
            (entity, account.map(|account| browse::seen_by(&access, member, account)))
        {
            rows.push(EntityView { entity, account, about: None });
        }
    }
    rows.retain(|view| listing.filter.private.is_none_or(|private| private == view.entity.default_private));
    if in_time {
        let name = |view: &EntityView| view.entity.name.as_str().strip_prefix(prefix).unwrap_or_default().to_owned();
        return cut(rows, listing, |view| Position { time: view.entity.created, name: name(view) });
    }
    Ok(Page { rows, next: page.next })
}

/// The collections of an entity.
pub async fn collections(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    listing: &Listing,
) -> Result<Page<Collection>, Error> {
    listing.only("collections", &["private"])?;
    let access = may_list(app, credential, entity).await?;
    let Listable::Parts(parts) = Listable::of_caller(&access, entity) else {
        return page(app, keys::collections(entity), listing, |_| true).await;
    };
    // Those that have, or contain, something that the caller may list: no more than they have roles.
    let first = |part: &SubPath| part.as_str().split('/').next().and_then(|name| name.parse::<CollectionName>().ok());
    let wanted: BTreeSet<_> = parts.iter().filter_map(first).collect();
    let keys: Vec<_> = wanted.iter().map(|name| keys::collection(entity, name)).collect();
    let mut found = app.table.batch(keys.clone()).await?;
    let rows = keys.iter().filter_map(|key| found.take(key).transpose()).collect::<Result<Vec<Collection>, _>>()?;
    if listing.is_plain() && listing.after.is_none() {
        return Ok(Page { rows, next: None });
    }
    pages::of_all(rows, listing, |row| row.name.to_string())
}

/// The containers of an entity, of one collection or of all.
pub async fn containers(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    collection: Option<&CollectionName>,
    listing: &Listing,
) -> Result<Page<Container>, Error> {
    // Registry repositories whose paths the library can't express are not containers of the library.
    let in_library = |row: &Container| row.collection_id.is_some();
    let among = Among { entity, collection };
    among.list(app, credential, listing, in_library).await
}

/// The repositories of an entity, whatever their paths.
pub async fn repositories(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    listing: &Listing,
) -> Result<Page<Container>, Error> {
    Among { entity, collection: None }.list(app, credential, listing, |_| true).await
}

/// Where containers are listed.
struct Among<'a> {
    entity: &'a EntityName,
    collection: Option<&'a CollectionName>,
}

impl Among<'_> {
    async fn list(
        &self,
        app: &App,
        credential: &Credential,
        listing: &Listing,
        keep: impl Fn(&Container) -> bool,
    ) -> Result<Page<Container>, Error> {
        let Self { entity, collection } = *self;
        listing.only("containers", &["private", "visibility", "readOnly"])?;
        let access = may_list(app, credential, entity).await?;
        let listable = Listable::of_caller(&access, entity);
        let covered = collection.map_or(listable == Listable::All, |name| listable.covers(name.as_str()));
        if covered {
            return page(app, keys::containers(entity, collection), listing, keep).await;
        }
        let inside = |row: &Container| {
            collection.is_none_or(|name| row.repository.as_container().is_some_and(|(lies_in, _)| lies_in == *name))
        };
        if listing.is_plain() {
            let mut page = listable.page(app, entity, listing.after.as_deref(), PAGE).await?;
            page.rows.retain(|row| inside(row) && keep(row));
            return Ok(page);
        }
        // What lies in several parts is put together before it is sorted.
        let _turn = app.long_read().await?;
        let mut rows = listable.containers(app, entity, None, MAX_READ).await?;
        if rows.len() >= MAX_READ {
            return Err(too_many("containers", listing));
        }
        rows.retain(|row| inside(row) && keep(row));
        let above = collection.map_or_else(String::new, |name| format!("{name}/"));
        let name = |row: &Container| row.repository.rest().strip_prefix(&above).unwrap_or_default().to_owned();
        pages::of_all(rows, listing, name)
    }
}

/// The images of a container.
pub async fn images(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    listing: &Listing,
) -> Result<(Container, Page<Image>), Error> {
    listing.only("images", &["arch", "signed"])?;
    let container = browse::listed(app, credential, repository).await?;
    let page = page(app, keys::images(repository), listing, |_| true).await?;
    Ok((container, page))
}

/// The tags of a repository.
pub async fn tags(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    listing: &Listing,
) -> Result<Page<Tag>, Error> {
    listing.only("tags", &["arch", "frozen"])?;
    let key = keys::container(repository);
    let mut access = Access::load(app, credential, Some(repository.entity()), [key.clone()]).await?;
    let resource = resource_at(repository, access.take::<Container>(&key)?.as_ref());
    access.require(Action::See, &resource, "container", "see this container")?;
    page(app, keys::tags(repository), listing, |_| true).await
}
