//! The search index.

use super::Changes;
use crate::domain::{EntityName, Thing, Time};
use crate::store::StoreError;
use crate::store::index::{self, Indexed, Made, Posting, Spelled};
use crate::store::rows::Row;
use crate::store::table::{Condition, Write};
use std::collections::BTreeSet;

/// How many words come and go in one transaction.
const AT_A_TIME: usize = 90;

/// What a thing is to be found by.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// The time by which it is ordered.
    pub(crate) at: Time,
    /// Its words.
    pub(crate) words: BTreeSet<String>,
}

/// A step towards a thing being found by its words, and by no others.
#[derive(Debug)]
pub(crate) struct Step {
    /// Words that come.
    pub(crate) come: Vec<String>,
    /// Words that go.
    pub(crate) gone: Vec<String>,
    /// Both, on condition that nobody else took a step.
    pub(crate) changes: Changes,
}

/// The next step for a thing in the index, as it was read before the thing itself; `None` if there is nothing to do.
pub(crate) fn step(
    scope: &EntityName,
    thing: &Thing,
    before: Option<Indexed>,
    document: Option<Document>,
    version: u64,
) -> Result<Option<Step>, StoreError> {
    let condition = before.as_ref().map_or(Condition::Absent, |row| Condition::Version(row.version));
    let was = before.unwrap_or_else(|| Indexed {
        scope: scope.clone(),
        thing: thing.clone(),
        at: document.as_ref().map_or(Time(0), |document| document.at),
        words: BTreeSet::new(),
        version: 0,
    });
    // One that was made anew has another time: first the old one goes.
    let wanted = document.filter(|document| document.at == was.at || was.words.is_empty());
    let at = wanted.as_ref().map_or(was.at, |wanted| wanted.at);
    let wanted = wanted.map(|wanted| wanted.words).unwrap_or_default();
    let gone: Vec<String> = was.words.difference(&wanted).take(AT_A_TIME).cloned().collect();
    let come: Vec<String> = wanted.difference(&was.words).take(AT_A_TIME - gone.len()).cloned().collect();
    if come.is_empty() && gone.is_empty() {
        return Ok(None);
    }
    let posting = |word: &String| Posting { scope: scope.clone(), word: word.clone(), thing: thing.clone(), at };
    let mut changes = Changes::unrecorded();
    for word in &gone {
        let posting = Posting { at: was.at, ..posting(word) };
        changes.add(Write::delete(posting.key(), Condition::None));
    }
    for word in &come {
        changes.add(Write::put(&posting(word), Condition::None)?);
    }
    let mut words = was.words;
    words.retain(|word| !gone.contains(word));
    words.extend(come.iter().cloned());
    let row = Indexed { at, words, version, ..was };
    changes.add(if row.words.is_empty() { Write::delete(row.key(), condition) } else { Write::put(&row, condition)? });
    Ok(Some(Step { come, gone, changes }))
}

/// Spells words, as many in a transaction as fit. All rows of a word are written in the same one.
pub(crate) fn spelled(
    scope: &EntityName,
    words: &[String],
    written: Time,
    version: u64,
) -> Result<Vec<Changes>, StoreError> {
    let mut all = vec![Changes::unrecorded()];
    for word in words {
        let rows = Spelled::all(scope, word, written, version);
        if let Some(last) = all.last()
            && !last.have_room_for(rows.len())
        {
            all.push(Changes::unrecorded());
        }
        for row in &rows {
            if let Some(last) = all.last_mut() {
                last.add(Write::put(row, Condition::None)?);
            }
        }
    }
    all.retain(|changes| !changes.is_empty());
    Ok(all)
}

/// Notes how far the index is made.
pub(crate) fn made(row: &Made) -> Result<Changes, StoreError> {
    Ok(Changes::unrecorded().with([Write::put(row, Condition::None)?]))
}

/// Has the index made anew.
pub(crate) fn unmade() -> Changes {
    Changes::unrecorded().with([Write::delete(index::made(), Condition::None)])
}

/// Forgets a word that no thing has, unless somebody spelled it meanwhile.
pub(crate) fn forgotten(whole: &Spelled) -> Changes {
    let rows = Spelled::all(&whole.scope, &whole.word, whole.written, whole.version);
    let gone = |row: &Spelled| Write::delete(row.key(), Condition::Version(whole.version));
    Changes::unrecorded().with(rows.iter().map(gone))
}
