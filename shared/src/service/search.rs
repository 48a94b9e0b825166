//! Searching everything that the caller may browse: substrings of names, descriptions, tags and labels.

use super::access::{Access, memberships};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::EntityName;
use crate::error::Error;
use crate::rules::Action;
use crate::store::keys;
use crate::store::rows::{Collection, Container, Entity, Image};
use crate::store::table::Page;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

/// The shortest text to search for, in characters: the clients' own rule.
pub const SHORTEST_TEXT: usize = 3;
/// The most results of each kind.
pub const MAX_RESULTS: usize = 100;
/// The most entities that are searched at a time, each of which is read whole.
const AT_ONCE: usize = 8;

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
    /// Containers, with their images.
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
    let mut results = Results::default();
    loop {
        let Page { rows: members, next } = page;
        let searched = members.iter().filter(|member| access.may_on(Action::List, member));
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

async fn one(app: &App, name: &EntityName, query: &Query, needle: &str) -> Result<Results, Error> {
    let hit = |text: &str| text.to_lowercase().contains(needle);
    let (containers, images, collections, entity) = futures::try_join!(
        app.table.query_all::<Container>(keys::containers(name, None)),
        app.table.query_all::<Image>(keys::images_of_entity(name)),
        app.table.query_all::<Collection>(keys::collections(name)),
        app.table.get::<Entity>(keys::entity(name)),
    )?;
    let images: Vec<Image> = images.into_iter().filter(|image| image.content.is_some()).collect();
    let mut results = Results::default();
    if !query.images_only() {
        results.entities = entity.into_iter().filter(|row| hit(row.name.as_str()) || hit(&row.description)).collect();
        let named = |row: &Collection| hit(row.name.as_str()) || hit(&row.description);
        results.collections = collections.into_iter().filter(named).collect();
    }
    for container in containers.into_iter().filter(|row| row.collection_id.is_some()) {
        let own: Vec<&Image> = images.iter().filter(|image| image.repository == container.repository).collect();
        let by_name = hit(&container.repository.to_string()) || hit(&container.description);
        let mut any = by_name;
        for image in &own {
            let said = hit(&image.description)
                || image.tags.iter().any(|tag| hit(tag.as_str()))
                || image.labels.iter().any(|(key, value)| hit(key) || hit(value));
            any |= said;
            if (by_name || said) && wanted(image, query) {
                results.images.push((container.clone(), (*image).clone()));
            }
        }
        if any && !query.images_only() {
            results.containers.push((container, own.into_iter().cloned().collect()));
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
