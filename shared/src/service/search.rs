//! Searching everything that the caller may browse: substrings of names, descriptions, tags and labels.

use super::access::{Access, memberships};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::{EntityName, Repository};
use crate::error::Error;
use crate::store::keys;
use crate::store::rows::{Collection, Container, Entity, Image};
use crate::store::table::Page;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use std::collections::{BTreeMap, BTreeSet};

/// The shortest text to search for, in characters: the clients' own rule.
pub const SHORTEST_TEXT: usize = 3;
/// The most results of each kind.
pub const MAX_RESULTS: usize = 100;
/// The most entities that are searched at a time, each of which is read whole.
const AT_ONCE: usize = 8;

/// How many images are read before what is found among them is kept.
const PAGE: usize = 1000;
/// The most images that are shown with a container.
const SHOWN: usize = 100;

/// A search.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Part of a name, description, tag or label; case does not matter.
    pub text: String,
    /// Only images for one of these architectures; empty for all.
    pub archs: Vec<String>,
    /// Only signed images, or only unsigned ones.
    pub signed: Option<bool>,
}

impl Query {
    /// Whether to search only for images.
    fn images_only(&self) -> bool {
        !self.archs.is_empty() || self.signed.is_some()
    }
}

/// The results.
#[derive(Debug, Default)]
pub struct Results {
    /// Entities.
    pub entities: Vec<Entity>,
    /// Collections.
    pub collections: Vec<Collection>,
    /// Containers, with their first images.
    pub containers: Vec<(Container, Vec<Image>)>,
    /// Images.
    pub images: Vec<(Container, Image)>,
}

impl Results {
    /// Takes in what was found in another entity, as far as there is room.
    fn extend(&mut self, more: Self) {
        fn some<T>(all: &mut Vec<T>, more: Vec<T>) {
            all.extend(more);
            all.truncate(MAX_RESULTS);
        }
        some(&mut self.entities, more.entities);
        some(&mut self.collections, more.collections);
        some(&mut self.containers, more.containers);
        some(&mut self.images, more.images);
    }

    /// Whether nothing more is wanted of any kind.
    fn full(&self, query: &Query) -> bool {
        let others = [self.entities.len(), self.collections.len(), self.containers.len()];
        self.images.len() >= MAX_RESULTS && (query.images_only() || others.iter().all(|count| *count >= MAX_RESULTS))
    }
}

/// Searches the caller's entities in the order of their names, until the answer is full.
pub async fn search(app: &App, credential: &Credential, query: &Query) -> Result<Results, Error> {
    if query.text.chars().count() < SHORTEST_TEXT {
        return Err(Error::Invalid(format!("search for at least {SHORTEST_TEXT} characters")));
    }
    let (access, members) = futures::join!(Access::load(app, credential, None, []), memberships(app, credential, None));
    let (access, mut page) = (access?, members?);
    let needle = query.text.to_lowercase();
    let _turn = app.long_read().await?;
    let mut results = Results::default();
    loop {
        let Page { rows: members, next } = page;
        let searched = members.iter().filter(|member| access.may_browse(member));
        let searched: Vec<_> = searched.map(|member| one(app, &member.entity, query, &needle)).collect();
        let mut found = stream::iter(searched).buffered(AT_ONCE);
        while let Some(more) = found.try_next().await? {
            results.extend(more);
            if results.full(query) {
                return Ok(results);
            }
        }
        let Some(after) = next else { return Ok(results) };
        page = memberships(app, credential, Some(after)).await?;
    }
}

/// Searches an entity. Its images are read page by page, and only what is found is kept.
async fn one(app: &App, name: &EntityName, query: &Query, needle: &str) -> Result<Results, Error> {
    let hit = |text: &str| text.to_lowercase().contains(needle);
    let (containers, collections, entity) = futures::try_join!(
        app.table.query_all::<Container>(keys::containers(name, None)),
        app.table.query_all::<Collection>(keys::collections(name)),
        app.table.get::<Entity>(keys::entity(name)),
    )?;
    let mut results = Results::default();
    if !query.images_only() {
        results.entities = entity.into_iter().filter(|row| hit(row.name.as_str()) || hit(&row.description)).collect();
        let named = |row: &Collection| hit(row.name.as_str()) || hit(&row.description);
        results.collections = collections.into_iter().filter(named).take(MAX_RESULTS).collect();
    }
    // By repository: the container, and whether it is a result itself.
    let mut containers: BTreeMap<Repository, (Container, bool)> = containers
        .into_iter()
        .filter(|row| row.collection_id.is_some())
        .map(|row| {
            let by_name = hit(&row.repository.to_string()) || hit(&row.description);
            (row.repository.clone(), (row, by_name))
        })
        .collect();
    let by_name: BTreeSet<Repository> =
        containers.iter().filter(|(_, (_, by_name))| *by_name).map(|(repository, _)| repository.clone()).collect();
    let mut after = None;
    loop {
        let page: Page<Image> = app.table.query(keys::images_of_entity(name), after, PAGE).await?;
        for image in page.rows.into_iter().filter(|image| image.content.is_some()) {
            let Some((container, found)) = containers.get_mut(&image.repository) else { continue };
            let said = hit(&image.description)
                || image.tags.iter().any(|tag| hit(tag.as_str()))
                || image.labels.iter().any(|(key, value)| hit(key) || hit(value));
            *found |= said;
            let matches = (said || by_name.contains(&image.repository)) && wanted(&image, query);
            if matches && results.images.len() < MAX_RESULTS {
                results.images.push((container.clone(), image));
            }
        }
        after = page.next;
        if after.is_none() || (query.images_only() && results.images.len() >= MAX_RESULTS) {
            break;
        }
    }
    if !query.images_only() {
        let found = containers.into_values().filter(|(_, found)| *found).take(MAX_RESULTS);
        for (container, _) in found {
            let images = app.table.query(keys::images(&container.repository), None, SHOWN).await?;
            let images = images.rows.into_iter().filter(|image: &Image| image.content.is_some()).collect();
            results.containers.push((container, images));
        }
    }
    Ok(results)
}

fn wanted(image: &Image, query: &Query) -> bool {
    image.content.as_ref().is_some_and(|content| {
        (query.archs.is_empty() || query.archs.contains(&content.arch))
            && query.signed.is_none_or(|signed| signed == content.signed)
    })
}
