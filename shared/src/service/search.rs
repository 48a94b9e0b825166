//! Searching everything that the caller may browse: substrings of names, descriptions, tags and labels.

use super::access::{Access, memberships};
use super::parts::{Listable, may_list};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::{EntityName, Repository};
use crate::error::Error;
use crate::store::keys::{self, KeyRange};
use crate::store::rows::{Collection, Container, Entity, Image};
use crate::store::table::Page;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use std::collections::BTreeMap;

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
    /// Part of a name, description, tag or label; case does not matter. Empty if only descriptions are searched.
    pub text: String,
    /// Part of the thing's own description; empty for any.
    pub description: String,
    /// Only in this entity, which the caller may list.
    pub entity: Option<EntityName>,
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
    let short = |text: &str| text.chars().count() < SHORTEST_TEXT;
    let described = query.text.is_empty() && !query.description.is_empty();
    if short(if described { &query.description } else { &query.text }) {
        return Err(Error::Invalid(format!("search for at least {SHORTEST_TEXT} characters")));
    }
    let sought = Sought { text: query.text.to_lowercase(), description: query.description.to_lowercase() };
    if let Some(entity) = &query.entity {
        let access = may_list(app, credential, entity).await?;
        let listable = Listable::of_caller(&access, entity);
        let _turn = app.long_read().await?;
        return Searched { app, entity, listable, query, sought: &sought }.results().await;
    }
    let (access, members) = futures::join!(Access::load(app, credential, None, []), memberships(app, credential, None));
    let (access, mut page) = (access?, members?);
    let _turn = app.long_read().await?;
    let mut results = Results::default();
    loop {
        let Page { rows: members, next } = page;
        let searched = members.iter().map(|member| (&member.entity, Listable::in_library(&access, member)));
        let searched = searched.filter(|(_, listable)| !listable.is_empty());
        let searched = searched.map(|(entity, listable)| Searched { app, entity, listable, query, sought: &sought });
        let searched: Vec<_> = searched.map(Searched::results).collect();
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

/// An entity, or a part of one, that is searched.
struct Searched<'a> {
    app: &'a App,
    entity: &'a EntityName,
    listable: Listable,
    query: &'a Query,
    sought: &'a Sought,
}

/// The texts that are searched for, in lower case.
struct Sought {
    text: String,
    description: String,
}

/// The containers that are searched: each with whether it is a result, and whether by its own name.
type Containers = BTreeMap<Repository, Candidate>;

struct Candidate {
    container: Container,
    by_name: bool,
    found: bool,
}

impl Searched<'_> {
    fn hit(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.sought.text)
    }

    /// Whether something has the description that is searched for.
    fn described(&self, description: &str) -> bool {
        self.sought.description.is_empty() || description.to_lowercase().contains(&self.sought.description)
    }

    /// Whether something is found by its name or description.
    fn named(&self, name: &str, description: &str) -> bool {
        (self.hit(name) || self.hit(description)) && self.described(description)
    }

    /// Searches it. Its images are read page by page, and only what is found is kept.
    async fn results(self) -> Result<Results, Error> {
        let mut results = Results::default();
        let mut containers = self.containers().await?;
        if !self.query.images_only() {
            self.above(&mut results).await?;
        }
        for range in self.listable.images(self.entity) {
            self.images(range, &mut containers, &mut results).await?;
        }
        if !self.query.images_only() {
            let found = containers.into_values().filter(|candidate| candidate.found).take(MAX_RESULTS);
            for Candidate { container, .. } in found {
                let images = self.app.table.query(keys::images(&container.repository), None, SHOWN).await?;
                let images = images.rows.into_iter().filter(|image: &Image| image.content.is_some()).collect();
                results.containers.push((container, images));
            }
        }
        Ok(results)
    }

    async fn containers(&self) -> Result<Containers, Error> {
        let rows = self.listable.containers(self.app, self.entity, None, usize::MAX).await?;
        let library = rows.into_iter().filter(|row| row.collection_id.is_some());
        Ok(library
            .map(|container| {
                let by_name = self.hit(&container.repository.to_string()) || self.hit(&container.description);
                let found = by_name && self.described(&container.description);
                (container.repository.clone(), Candidate { container, by_name, found })
            })
            .collect())
    }

    /// The entity and its collections. Whoever may list only parts of them does not find them.
    async fn above(&self, results: &mut Results) -> Result<(), Error> {
        let (collections, entity) = futures::try_join!(
            self.app.table.query_all::<Collection>(keys::collections(self.entity)),
            self.app.table.get::<Entity>(keys::entity(self.entity)),
        )?;
        let entity = entity.into_iter().filter(|_| self.listable == Listable::All);
        results.entities = entity.filter(|row| self.named(row.name.as_str(), &row.description)).collect();
        let collections = collections.into_iter().filter(|row| self.listable.covers(row.name.as_str()));
        let named = collections.filter(|row| self.named(row.name.as_str(), &row.description));
        results.collections = named.take(MAX_RESULTS).collect();
        Ok(())
    }

    async fn images(&self, range: KeyRange, containers: &mut Containers, results: &mut Results) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page: Page<Image> = self.app.table.query(range.clone(), after, PAGE).await?;
            for image in page.rows.into_iter().filter(|image| image.content.is_some()) {
                let Some(candidate) = containers.get_mut(&image.repository) else { continue };
                let said = self.hit(&image.description)
                    || image.tags.iter().any(|tag| self.hit(tag.as_str()))
                    || image.labels.iter().any(|(key, value)| self.hit(key) || self.hit(value));
                candidate.found |= said && self.described(&candidate.container.description);
                let described = self.described(&image.description);
                let matches = (said || candidate.by_name) && described && wanted(&image, self.query);
                if matches && results.images.len() < MAX_RESULTS {
                    results.images.push((candidate.container.clone(), image));
                }
            }
            after = page.next;
            if after.is_none() || (self.query.images_only() && results.images.len() >= MAX_RESULTS) {
                return Ok(());
            }
        }
    }
}

fn wanted(image: &Image, query: &Query) -> bool {
    image.content.as_ref().is_some_and(|content| {
        (query.archs.is_empty() || query.archs.contains(&content.arch))
            && query.signed.is_none_or(|signed| signed == content.signed)
    })
}
