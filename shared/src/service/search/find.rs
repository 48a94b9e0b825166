//! Searching an entity by its index.
//!
//! 1. For each sought word: the words that it is a part of, and the things that have one of those, from the index.
//! 2. Of these, the things of that sought word which the fewest have may be results. Images in a container among them may
//!    be results, too: what a container is called is said of its images.
//! 3. The rows of these things are read. A thing is a result if all sought words are in its row, or in that of its
//!    container, as they are now, and the caller may see it. So nothing is shown because of what the index says, and what
//!    is hidden is hidden at once.
//!
//! What was just pushed is found once the index has followed. Where very many things may be results, only the latest of
//! them are looked at.

use super::index;
use super::{MAX_RESULTS, Query, Results, Sought};
use crate::app::App;
use crate::domain::{Description, EntityName, Repository, Thing, Words};
use crate::error::Error;
use crate::service::parts::Listable;
use crate::store::index::{self as rows, Posting, Spelled};
use crate::store::keys;
use crate::store::rows::{Collection, Container, Entity, Image};
use crate::store::table::Page;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// How many words that a sought one is a part of are looked at.
const WORDS: usize = 256;
/// How many things may be results.
const CANDIDATES: usize = 1000;
/// How many calls are made at a time.
const AT_ONCE: usize = 8;
/// The most images that are shown with a container.
const SHOWN: usize = 100;

/// An entity, or a part of one, that is searched.
pub(super) struct Searched<'a> {
    pub(super) app: &'a App,
    pub(super) entity: &'a EntityName,
    pub(super) listable: Listable,
    pub(super) query: &'a Query,
    pub(super) sought: &'a Sought,
}

/// Things that may be results, the latest first, and whether these are all.
struct Candidates {
    things: Vec<Thing>,
    all: bool,
}

/// The containers that were read, with their words. They are results if something is found in them.
type Containers = BTreeMap<Repository, Known>;

struct Known {
    row: Container,
    words: Words,
    found: bool,
}

impl Searched<'_> {
    /// Searches it.
    pub(super) async fn results(self) -> Result<Results, Error> {
        let Candidates { things, all } = self.candidates().await?;
        let mut results = Results { more: !all, ..Results::default() };
        let (images, others): (Vec<Thing>, Vec<Thing>) =
            things.into_iter().partition(|thing| matches!(thing, Thing::Image(..)));
        let mut containers = self.others(&others, &mut results).await?;
        self.in_containers(&mut containers, &mut results).await?;
        self.images(&images, &mut containers, &mut results).await?;
        if !self.query.images_only() {
            self.shown(containers, &mut results).await?;
        }
        results.images.sort_by_key(|(_, image)| Reverse(image.created));
        results.cut();
        Ok(results)
    }

    /// The things that have the sought word which the fewest have.
    async fn candidates(&self) -> Result<Candidates, Error> {
        let having: Vec<_> = self.sought.words.long().map(|word| self.having(word)).collect();
        let having: Vec<Candidates> = stream::iter(having).buffered(AT_ONCE).try_collect().await?;
        let fewest = having.into_iter().min_by_key(|found| (!found.all, found.things.len()));
        Ok(fewest.unwrap_or(Candidates { things: Vec::new(), all: true }))
    }

    /// The things that have a word of which this is a part.
    async fn having(&self, part: &str) -> Result<Candidates, Error> {
        let spelled: Page<Spelled> = self.app.index.query(rows::spelled(self.entity, part), None, WORDS).await?;
        let mut all = spelled.next.is_none();
        let words: BTreeSet<String> = spelled.rows.into_iter().map(|row| row.word).collect();
        let words = words.into_iter().filter(|word| word.contains(part));
        let postings: Vec<_> = words.map(|word| self.postings(word)).collect();
        let mut postings = stream::iter(postings).buffered(AT_ONCE);
        let mut found: BTreeMap<Thing, Reverse<_>> = BTreeMap::new();
        while let Some(Page { rows, next }) = postings.try_next().await? {
            all &= next.is_none();
            let listed = rows.into_iter().filter(|row| self.may_list(&row.thing));
            found.extend(listed.map(|row| (row.thing, Reverse(row.at))));
            if found.len() > CANDIDATES {
                all = false;
                break;
            }
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|(thing, at)| (thing.kind(), *at));
        Ok(Candidates { things: found.into_iter().map(|(thing, _)| thing).take(CANDIDATES).collect(), all })
    }

    async fn postings(&self, word: String) -> Result<Page<Posting>, Error> {
        Ok(self.app.index.query(rows::postings(self.entity, &word), None, CANDIDATES).await?)
    }

    fn may_list(&self, thing: &Thing) -> bool {
        match thing {
            Thing::Entity(_) => self.listable == Listable::All,
            Thing::Collection(_, collection) => self.listable.covers(collection.as_str()),
            Thing::Container(repository) | Thing::Image(repository, _) => self.listable.covers(repository.rest()),
        }
    }

    /// Reads what is no image. Returns the containers.
    async fn others(&self, things: &[Thing], results: &mut Results) -> Result<Containers, Error> {
        let mut read = self.app.table.batch(things.iter().map(keys::thing)).await?;
        let mut containers = Containers::new();
        for thing in things {
            match thing {
                Thing::Entity(_) => {
                    let row: Option<Entity> = read.take(&keys::thing(thing))?;
                    results.entities.extend(row.filter(|row| self.named(&index::of_entity(row), &row.description)));
                }
                Thing::Collection(..) => {
                    let row: Option<Collection> = read.take(&keys::thing(thing))?;
                    results
                        .collections
                        .extend(row.filter(|row| self.named(&index::of_collection(row), &row.description)));
                }
                Thing::Container(repository) => {
                    let known = read.take(&keys::thing(thing))?.and_then(|row| self.known(row));
                    containers.extend(known.map(|known| (repository.clone(), known)));
                }
                Thing::Image(..) => {}
            }
        }
        Ok(containers)
    }

    /// Whether something else than an image is a result.
    fn named(&self, words: &Words, description: &Description) -> bool {
        !self.query.images_only() && self.sought.fit(words, None) && self.sought.described(description)
    }

    /// A container of the library.
    fn known(&self, row: Container) -> Option<Known> {
        let words = index::of_container(&row);
        let found = self.named(&words, &row.description);
        row.collection_id.is_some().then_some(Known { row, words, found })
    }

    /// Looks at the images of containers that may be results.
    async fn in_containers(&self, containers: &mut Containers, results: &mut Results) -> Result<(), Error> {
        let mut left = CANDIDATES;
        for (looked_at, container) in containers.values_mut().enumerate() {
            if looked_at == MAX_RESULTS || results.images.len() > MAX_RESULTS {
                results.more = true;
                return Ok(());
            }
            let page: Page<Image> = self.app.table.query(keys::images(&container.row.repository), None, left).await?;
            left -= page.rows.len();
            page.rows.into_iter().for_each(|image| self.image(container, image, results));
            if page.next.is_some() || left == 0 {
                results.more = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Looks at images that may be results, and are in none of these containers.
    async fn images(&self, things: &[Thing], containers: &mut Containers, results: &mut Results) -> Result<(), Error> {
        let looked_at: BTreeSet<Repository> = containers.keys().cloned().collect();
        let repository = |thing: &Thing| match thing {
            Thing::Image(repository, _) => Some(repository.clone()),
            _ => None,
        };
        let there = |thing: &&Thing| repository(thing).is_some_and(|repository| !looked_at.contains(&repository));
        let things: Vec<&Thing> = things.iter().filter(there).collect();
        for some in things.chunks(SHOWN) {
            if results.images.len() > MAX_RESULTS {
                results.more = true;
                return Ok(());
            }
            let new: BTreeSet<Repository> = some.iter().filter_map(|thing| repository(thing)).collect();
            let new: Vec<_> = new.into_iter().filter(|repository| !containers.contains_key(repository)).collect();
            let wanted = some.iter().map(|thing| keys::thing(thing)).chain(new.iter().map(keys::container));
            let mut read = self.app.table.batch(wanted).await?;
            for repository in new {
                let known = read.take(&keys::container(&repository))?.and_then(|row| self.known(row));
                containers.extend(known.map(|known| (repository, known)));
            }
            for thing in some {
                let container = repository(thing).and_then(|repository| containers.get_mut(&repository));
                if let (Some(container), Some(image)) = (container, read.take(&keys::thing(thing))?) {
                    self.image(container, image, results);
                }
            }
        }
        Ok(())
    }

    /// Looks at an image.
    fn image(&self, container: &mut Known, image: Image, results: &mut Results) {
        let own = index::of_image(&image);
        if image.content.is_none() || !self.sought.fit(&own, Some(&container.words)) {
            return;
        }
        container.found |= self.sought.described(&container.row.description);
        if self.sought.described(&image.description) && self.query.wants(&image) {
            results.images.push((container.row.clone(), image));
        }
    }

    /// Containers that are results, with their first images.
    async fn shown(&self, containers: Containers, results: &mut Results) -> Result<(), Error> {
        let found: Vec<Container> =
            containers.into_values().filter(|known| known.found).map(|known| known.row).collect();
        results.more |= found.len() > MAX_RESULTS;
        let shown = found.into_iter().take(MAX_RESULTS).map(|container| async move {
            let images: Page<Image> = self.app.table.query(keys::images(&container.repository), None, SHOWN).await?;
            let images = images.rows.into_iter().filter(|image| image.content.is_some()).collect();
            Ok::<_, Error>((container, images))
        });
        let shown: Vec<_> = shown.collect();
        results.containers = stream::iter(shown).buffered(AT_ONCE).try_collect().await?;
        Ok(())
    }
}
