//! Searching everything that the caller may browse: parts of words in names, descriptions, tags, labels, architectures
//! and fingerprints.

mod anew;
mod find;
mod index;

pub use self::anew::{State, make, renew, state};
use self::find::Searched;
pub(crate) use self::index::index;
use super::access::{Access, memberships};
use super::parts::{Listable, may_list};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::search::SHORTEST;
use crate::domain::{Description, EntityName, Words};
use crate::error::Error;
use crate::store::rows::{Collection, Container, Entity, Image};
use crate::store::table::Page;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

/// The most results of each kind.
pub const MAX_RESULTS: usize = 100;
/// The most entities that are searched at a time.
const AT_ONCE: usize = 8;

/// A search.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Each of its words is a part of a word in a name, a description, a tag, a label and so on, of the thing or of the
    /// container that it is in; case does not matter. Empty if only descriptions are searched.
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

    /// Whether to show an image that has the words.
    fn wants(&self, image: &Image) -> bool {
        image.content.as_ref().is_some_and(|content| {
            (self.archs.is_empty() || self.archs.contains(&content.arch))
                && self.signed.is_none_or(|signed| signed == content.signed)
        })
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
    /// Images, the latest first.
    pub images: Vec<(Container, Image)>,
    /// Whether there are more results than these, or may be.
    pub more: bool,
}

impl Results {
    /// Takes in what was found in another entity, as far as there is room.
    fn extend(&mut self, more: Self) {
        self.entities.extend(more.entities);
        self.collections.extend(more.collections);
        self.containers.extend(more.containers);
        self.images.extend(more.images);
        self.more |= more.more;
        self.cut();
    }

    /// Leaves no more of each kind than are shown.
    fn cut(&mut self) {
        let counts = [self.entities.len(), self.collections.len(), self.containers.len(), self.images.len()];
        self.more |= counts.iter().any(|count| *count > MAX_RESULTS);
        self.entities.truncate(MAX_RESULTS);
        self.collections.truncate(MAX_RESULTS);
        self.containers.truncate(MAX_RESULTS);
        self.images.truncate(MAX_RESULTS);
    }

    /// Whether nothing more is wanted of any kind.
    fn full(&self, query: &Query) -> bool {
        let others = [self.entities.len(), self.collections.len(), self.containers.len()];
        self.images.len() >= MAX_RESULTS && (query.images_only() || others.iter().all(|count| *count >= MAX_RESULTS))
    }
}

/// Searches the caller's entities in the order of their names, until the answer is full.
pub async fn search(app: &App, credential: &Credential, query: &Query) -> Result<Results, Error> {
    let sought = Sought::of(query)?;
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
                results.more = true;
                return Ok(results);
            }
        }
        let Some(after) = next else { return Ok(results) };
        page = memberships(app, credential, Some(after)).await?;
    }
}

/// What is searched for, in lower case.
struct Sought {
    words: Words,
    /// Part of the thing's own description; empty for any.
    description: String,
}

impl Sought {
    fn of(query: &Query) -> Result<Self, Error> {
        let text = if query.text.is_empty() { &query.description } else { &query.text };
        let words = Words::of([text.as_str()]);
        if words.long().next().is_none() {
            return Err(Error::Invalid(format!("search for a word of at least {SHORTEST} characters")));
        }
        Ok(Self { words, description: query.description.to_lowercase() })
    }

    /// Whether all sought words are parts of these, or of those of what the thing is in.
    fn fit(&self, own: &Words, above: Option<&Words>) -> bool {
        self.words.iter().all(|word| own.have(word) || above.is_some_and(|above| above.have(word)))
    }

    /// Whether something has the description that is searched for.
    fn described(&self, description: &Description) -> bool {
        self.description.is_empty() || description.to_lowercase().contains(&self.description)
    }
}
