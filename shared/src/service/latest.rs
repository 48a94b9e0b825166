//! The containers whose tags were set last, in the caller's entities.
//!
//! Nothing is written for it: the logs of changes say which tags were set, and the last entries of a log are one read.
//! So how much is read depends on nothing but the constants below.

use super::access::{Access, memberships};
use super::parts::Listable;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::events;
use crate::domain::{EntityName, Repository, TagName};
use crate::error::{Error, NO_TOKEN};
use crate::rules::Place;
use crate::store::keys;
use crate::store::rows::{Container, Event, EventKind, Tag};
use futures::future::try_join_all;

/// The most containers.
pub const CONTAINERS: usize = 10;
/// The most tags of each.
const TAGS: usize = 5;
/// The most entities whose logs are read, in the order of their names, and how many of their last changes.
const ENTITIES: usize = 20;
const CHANGES: usize = 50;

/// A container with the tags that were set last.
#[derive(Debug)]
pub struct Latest {
    /// The container.
    pub container: Container,
    /// The tags, the latest first.
    pub tags: Vec<Tag>,
}

/// The containers whose tags were set last, among those that the caller may browse, the latest first.
pub async fn containers(app: &App, credential: &Credential) -> Result<Vec<Latest>, Error> {
    let (access, members) = futures::join!(Access::load(app, credential, None, []), memberships(app, credential, None));
    let (access, members) = (access?, members?);
    if access.caller.known().is_none() {
        return Err(Error::Unauthenticated(NO_TOKEN));
    }
    let listable = members.rows.iter().map(|member| (&member.entity, Listable::in_library(&access, member)));
    let listable = listable.filter(|(_, listable)| !listable.is_empty()).take(ENTITIES);
    let _turn = app.long_read().await?;
    let logs = try_join_all(listable.map(|(entity, listable)| tagged(app, entity, listable))).await?;
    let mut tagged: Vec<Tagging> = logs.into_iter().flatten().collect();
    tagged.sort_by_key(|tagging| std::cmp::Reverse(tagging.millis));
    let found = chosen(tagged);
    let mut wanted = Vec::new();
    for (repository, tags) in &found {
        wanted.push(keys::container(repository));
        wanted.extend(tags.iter().map(|tag| keys::tag(repository, tag)));
    }
    let mut rows = app.table.batch(wanted).await?;
    let mut latest = Vec::new();
    for (repository, names) in &found {
        let container: Option<Container> = rows.take(&keys::container(repository))?;
        let mut tags = Vec::new();
        for name in names {
            tags.extend(rows.take::<Tag>(&keys::tag(repository, name))?);
        }
        // What was deleted since is not shown.
        let container = container.filter(|row| row.collection_id.is_some() && !tags.is_empty());
        latest.extend(container.map(|container| Latest { container, tags }));
    }
    Ok(latest)
}

/// A tag that was set.
struct Tagging {
    millis: u64,
    repository: Repository,
    tag: TagName,
}

async fn tagged(app: &App, entity: &EntityName, listable: Listable) -> Result<Vec<Tagging>, Error> {
    let log = keys::events(&events::log(&Place::Entity(entity.clone())));
    let page = app.table.query_last::<Event>(log, None, CHANGES).await?;
    let mut tagged = Vec::new();
    for Event { place, millis, what, .. } in page.rows {
        let Ok(repository) = place.parse::<Repository>() else { continue };
        if repository.entity() != entity || !listable.covers(repository.rest()) {
            continue;
        }
        let set = what.into_iter().filter_map(|kind| match kind {
            EventKind::TagSet(moved) => Some(moved.tag),
            _ => None,
        });
        tagged.extend(set.map(|tag| Tagging { millis, repository: repository.clone(), tag }));
    }
    Ok(tagged)
}

/// The first containers with their first tags, each once.
fn chosen(tagged: Vec<Tagging>) -> Vec<(Repository, Vec<TagName>)> {
    let mut chosen: Vec<(Repository, Vec<TagName>)> = Vec::new();
    for Tagging { repository, tag, .. } in tagged {
        if let Some((_, tags)) = chosen.iter_mut().find(|(other, _)| *other == repository) {
            if tags.len() < TAGS && !tags.contains(&tag) {
                tags.push(tag);
            }
        } else if chosen.len() < CONTAINERS {
            chosen.push((repository, vec![tag]));
        }
    }
    chosen
}
