//! The search index follows the library.
//!
//! Of each thing, after each of its changes, and for all of them when the index is made anew:
//!
//! 1. Read what the index has of it, and then the thing itself. *Somebody else does the same*: 3 is lost for one of the
//!    two, and whoever is later has read the later state.
//! 2. Spell the words that are to come, those that nobody spelled within the last half hour: a word can be found once it
//!    is spelled and there is a thing that has it.
//! 3. In one transaction: as many words that come and go as fit, and the row that says which the thing has now, on
//!    condition that nobody changed that. *Lost, or more to do*: from 1 on. *Dies*: whatever asked for it is still in
//!    the outbox, and asks again.
//! 4. A word that went, that no other thing has, and that nobody spelled within the last hour is forgotten, on condition
//!    that nobody spells it now. Whoever has found it spelled in 2 has reached 3 by then.

use crate::app::App;
use crate::changes::search::{Document, Step, forgotten, spelled, step};
use crate::domain::{EntityName, Thing, Words};
use crate::error::Error;
use crate::random;
use crate::rules::Grant;
use crate::service::retry::Retry;
use crate::store::index::{self, Indexed, Posting, Spelled};
use crate::store::keys;
use crate::store::rows::{Collection, Container, Entity, Image};
use crate::store::table::{Page, Written};
use std::collections::BTreeSet;
use std::time::Duration;

/// For how long a word that was spelled is taken to be there.
const FRESH: Duration = Duration::from_mins(30);
/// After what time a word that no thing has is forgotten.
const OLD: Duration = Duration::from_hours(1);

/// Brings what the index has of a thing up to date.
pub(crate) async fn index(app: &App, grant: &Grant, thing: &Thing) -> Result<(), Error> {
    let scope = thing.entity();
    let mut retry = Retry::of("changes of the same thing");
    loop {
        let before: Option<Indexed> = app.index.get(index::indexed(scope, thing)).await?;
        let document = document(app, thing).await?;
        let Some(Step { come, gone, changes }) = step(scope, thing, before, document, random::number()?.into())? else {
            return Ok(());
        };
        spell(app, grant, scope, &come).await?;
        if app.commit_index(grant, changes).await? != Written::Done {
            retry.pause().await?;
            continue;
        }
        for word in &gone {
            forget(app, grant, scope, word).await?;
        }
    }
}

/// What a thing is to be found by; `None` if it is not there, or nobody may see it yet.
async fn document(app: &App, thing: &Thing) -> Result<Option<Document>, Error> {
    let (at, words) = match thing {
        Thing::Entity(entity) => {
            let Some(row) = app.table.get::<Entity>(keys::entity(entity)).await? else { return Ok(None) };
            (row.created, of_entity(&row))
        }
        Thing::Collection(entity, collection) => {
            let row: Option<Collection> = app.table.get(keys::collection(entity, collection)).await?;
            let Some(row) = row else { return Ok(None) };
            (row.created, of_collection(&row))
        }
        Thing::Container(repository) => {
            let row: Option<Container> = app.table.get(keys::container(repository)).await?;
            let Some(row) = row.filter(|row| row.collection_id.is_some()) else { return Ok(None) };
            (row.created, of_container(&row))
        }
        Thing::Image(repository, hash) => {
            let row: Option<Image> = app.table.get(keys::image(repository, hash)).await?;
            let Some(row) = row.filter(|row| row.content.is_some()) else { return Ok(None) };
            (row.created, of_image(&row))
        }
    };
    let words: BTreeSet<String> = words.long().map(str::to_owned).collect();
    Ok((!words.is_empty()).then_some(Document { at, words }))
}

/// The words of an entity.
pub(super) fn of_entity(row: &Entity) -> Words {
    Words::of([row.name.as_str(), &row.description])
}

/// The words of a collection.
pub(super) fn of_collection(row: &Collection) -> Words {
    Words::of([row.name.as_str(), &row.description])
}

/// The words of a container.
pub(super) fn of_container(row: &Container) -> Words {
    Words::of([row.repository.to_string().as_str(), &row.description])
}

/// The words of an image, without those of its container.
pub(super) fn of_image(row: &Image) -> Words {
    let tags = row.tags.iter().map(crate::domain::TagName::as_str);
    let labels = row.labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    let content = row.content.iter().flat_map(|content| {
        std::iter::once(content.arch.as_str()).chain(content.fingerprints.iter().map(String::as_str))
    });
    Words::of(tags.chain([&*row.description]).chain(content).chain(labels))
}

/// Step 2.
async fn spell(app: &App, grant: &Grant, scope: &EntityName, words: &[String]) -> Result<(), Error> {
    let now = app.now();
    let mut there = app.index.batch(words.iter().map(|word| index::whole(scope, word))).await?;
    let mut missing = Vec::new();
    for word in words {
        let whole: Option<Spelled> = there.take(&index::whole(scope, word))?;
        if whole.is_none_or(|whole| whole.written.plus(FRESH) <= now) {
            missing.push(word.clone());
        }
    }
    for changes in spelled(scope, &missing, now, random::number()?.into())? {
        // Without a condition, so it is never lost.
        let _: Written = app.commit_index(grant, changes).await?;
    }
    Ok(())
}

/// Step 4.
async fn forget(app: &App, grant: &Grant, scope: &EntityName, word: &str) -> Result<(), Error> {
    match app.index.get::<Spelled>(index::whole(scope, word)).await? {
        Some(whole) => forget_spelled(app, grant, &whole).await,
        None => Ok(()),
    }
}

/// Forgets a word as it was read, if no thing has it.
pub(super) async fn forget_spelled(app: &App, grant: &Grant, whole: &Spelled) -> Result<(), Error> {
    if whole.written.plus(OLD) > app.now() {
        return Ok(());
    }
    let left: Page<Posting> = app.index.query(index::postings(&whole.scope, &whole.word), None, 1).await?;
    if left.rows.is_empty() {
        let _: Written = app.commit_index(grant, forgotten(whole)).await?;
    }
    Ok(())
}
