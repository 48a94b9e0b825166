//! The search index: a table of its own, beside the one that has the library. Nothing in it is of any value: it says
//! where to look, and can be made anew from the library at any time. Who may see what is found is decided from the
//! library's own rows.
//!
//! A scope is what one search looks through: an entity. `⟨abc⟩` are the first three letters of what follows them.
//!
//! | pk | sk | row |
//! |---|---|---|
//! | `D#⟨scope⟩` | `⟨thing⟩` | [`Indexed`]: the words by which a thing is found |
//! | `P#⟨scope⟩#⟨word⟩` | `⟨kind⟩⟨time⟩ ⟨thing⟩` | [`Posting`]: a thing has the word, the latest thing first |
//! | `W#⟨scope⟩#⟨abc⟩` | `⟨end⟩ ⟨word⟩` | [`Spelled`]: a word, from each of its letters on |
//! | `L` | `-` | [`Made`]: how far the index is made anew |

use super::keys::{Key, KeyRange};
use super::rows::Row;
use crate::domain::search::{SHORTEST, ends};
use crate::domain::{EntityName, Thing, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How many letters of the end of a word are in the key of its row.
pub(crate) const SPELLED: usize = 24;

/// How far the index is made anew. If there is no such row, it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "made", content = "after")]
pub(crate) enum Made {
    /// All rows of the library up to this one are in it.
    Library(Option<Key>),
    /// The whole library is in it, and in its own rows up to this one is nothing else.
    Index(Option<Key>),
    /// It is whole.
    Whole,
}

impl Row for Made {
    fn key(&self) -> Key {
        made()
    }
}

/// How far the index is made anew.
pub(crate) fn made() -> Key {
    Key { pk: "L".to_owned(), sk: "-".to_owned() }
}

/// The words by which a thing is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Indexed {
    /// Where it is found.
    pub(crate) scope: EntityName,
    /// The thing.
    pub(crate) thing: Thing,
    /// The time by which it is ordered.
    pub(crate) at: Time,
    /// For each of them there is a posting.
    pub(crate) words: BTreeSet<String>,
    /// Drawn anew at each change, which is conditional on it.
    pub(crate) version: u64,
}

/// Says that a thing has a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Posting {
    /// Where it is found.
    pub(crate) scope: EntityName,
    /// The word.
    pub(crate) word: String,
    /// The thing.
    pub(crate) thing: Thing,
    /// The time by which it is ordered.
    pub(crate) at: Time,
}

/// Says that there may be things with a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spelled {
    /// Where they are found.
    pub(crate) scope: EntityName,
    /// The word.
    pub(crate) word: String,
    /// A part of it, up to its end.
    pub(crate) end: String,
    /// When it was last written: nobody takes it away soon after that.
    pub(crate) written: Time,
    /// Drawn anew each time it is written.
    pub(crate) version: u64,
}

impl Row for Indexed {
    fn key(&self) -> Key {
        indexed(&self.scope, &self.thing)
    }
}

impl Row for Posting {
    fn key(&self) -> Key {
        let Self { scope, word, thing, at } = self;
        // The latest first.
        let time = 9_999_999_999 - at.0.clamp(0, 9_999_999_999);
        Key { pk: format!("P#{scope}#{word}"), sk: format!("{}{time:010} {thing}", thing.kind().letter()) }
    }
}

impl Row for Spelled {
    fn key(&self) -> Key {
        let Self { scope, word, end, .. } = self;
        Key { pk: format!("W#{scope}#{}", beginning(end, SHORTEST)), sk: format!("{} {word}", beginning(end, SPELLED)) }
    }
}

impl Spelled {
    /// A word from each of its letters on.
    pub(crate) fn all(scope: &EntityName, word: &str, written: Time, version: u64) -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let ends = ends(word).filter(|end| seen.insert(beginning(end, SPELLED)));
        let spelled =
            |end: &str| Self { scope: scope.clone(), word: word.to_owned(), end: end.to_owned(), written, version };
        ends.map(spelled).collect()
    }
}

/// The words of a thing.
pub(crate) fn indexed(scope: &EntityName, thing: &Thing) -> Key {
    Key { pk: format!("D#{scope}"), sk: thing.to_string() }
}

/// The things that have a word: those of a kind beside each other, the latest first.
pub(crate) fn postings(scope: &EntityName, word: &str) -> KeyRange {
    KeyRange { pk: format!("P#{scope}#{word}"), prefix: String::new() }
}

/// Where a whole word is spelled.
pub(crate) fn whole(scope: &EntityName, word: &str) -> Key {
    Key { pk: format!("W#{scope}#{}", beginning(word, SHORTEST)), sk: format!("{} {word}", beginning(word, SPELLED)) }
}

/// The words that may have a part: some of them may have another one instead, if this one is long.
pub(crate) fn spelled(scope: &EntityName, part: &str) -> KeyRange {
    KeyRange { pk: format!("W#{scope}#{}", beginning(part, SHORTEST)), prefix: beginning(part, SPELLED).to_owned() }
}

/// The first so many letters.
fn beginning(text: &str, letters: usize) -> &str {
    text.char_indices().nth(letters).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// A kind of row, as far as whatever works through the whole index needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The words of a thing.
    Indexed,
    /// A word, from one of its letters on.
    Spelled,
    /// Any other.
    Other,
}

/// The kind of the row at a key.
pub(crate) fn kind(key: &Key) -> Kind {
    match key.pk.split_at_checked(2) {
        Some(("D#", _)) => Kind::Indexed,
        Some(("W#", _)) => Kind::Spelled,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_an_object() {
        let key = Some(Key { pk: "E#a".to_owned(), sk: "-".to_owned() });
        for made in [Made::Library(None), Made::Library(key.clone()), Made::Index(key), Made::Whole] {
            let text = serde_json::to_string(&made).unwrap();
            assert!(text.starts_with('{'), "{text}");
            assert_eq!(serde_json::from_str::<Made>(&text).unwrap(), made);
        }
    }

    #[test]
    fn a_word_has_a_row_for_each_of_its_letters_on_and_none_twice() {
        let scope: EntityName = "acme".parse().unwrap();
        for (word, rows) in [("amd64", 3), ("abc", 1), ("ab", 0), (&*"ab".repeat(48), 23), (&*"x".repeat(96), 22)] {
            let keys: BTreeSet<Key> = Spelled::all(&scope, word, Time(0), 1).iter().map(Row::key).collect();
            assert_eq!(keys.len(), rows, "{word}");
            assert_eq!(keys.contains(&whole(&scope, word)), rows > 0, "{word}");
            assert!(keys.iter().all(|key| kind(key) == Kind::Spelled));
        }
    }
}
