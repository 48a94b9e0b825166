//! What a search compares: words, and the things that have them.

use super::{CollectionName, Digest, EntityName, Repository};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The shortest part of a word that can be searched for, in characters.
pub const SHORTEST: usize = 3;
/// How many characters of a word count.
pub const LONGEST: usize = 96;
/// How many different words of a thing count.
pub const MOST: usize = 256;

/// Words in lower case: texts, split at white space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(BTreeSet<String>);

impl Words {
    /// The words of some texts.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut words = BTreeSet::new();
        for word in texts.into_iter().flat_map(str::split_whitespace) {
            if words.len() == MOST {
                break;
            }
            words.insert(word.chars().flat_map(char::to_lowercase).take(LONGEST).collect());
        }
        Self(words)
    }

    /// The words that are long enough to be found by a part of them.
    pub fn long(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|word| word.chars().count() >= SHORTEST)
    }

    /// Whether a part of one of them is this word.
    pub fn have(&self, sought: &str) -> bool {
        self.0.iter().any(|word| word.contains(sought))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// The parts of a word from each of its letters on, as far as they are long enough.
pub fn ends(word: &str) -> impl Iterator<Item = &str> {
    let long_enough = |end: &&str| end.chars().count() >= SHORTEST;
    word.char_indices().filter_map(|(at, _)| word.get(at..)).filter(long_enough)
}

/// Something that a search finds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Thing {
    /// An entity.
    Entity(EntityName),
    /// A collection.
    Collection(EntityName, CollectionName),
    /// A container of the library.
    Container(Repository),
    /// An image of the library.
    Image(Repository, Digest),
}

impl Thing {
    /// The entity that it is, or is in.
    pub fn entity(&self) -> &EntityName {
        match self {
            Self::Entity(entity) | Self::Collection(entity, _) => entity,
            Self::Container(repository) | Self::Image(repository, _) => repository.entity(),
        }
    }

    /// What kind of thing it is.
    pub fn kind(&self) -> ThingKind {
        match self {
            Self::Entity(_) => ThingKind::Entity,
            Self::Collection(..) => ThingKind::Collection,
            Self::Container(_) => ThingKind::Container,
            Self::Image(..) => ThingKind::Image,
        }
    }
}

/// A kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ThingKind {
    /// Entities.
    Entity,
    /// Collections.
    Collection,
    /// Containers.
    Container,
    /// Images.
    Image,
}

impl ThingKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Entity, Self::Collection, Self::Container, Self::Image];

    /// The letter that stands for it. There are far more images than anything else, so they come last.
    pub fn letter(self) -> char {
        match self {
            Self::Entity => 'a',
            Self::Collection => 'b',
            Self::Container => 'c',
            Self::Image => 'd',
        }
    }
}

impl fmt::Display for Thing {
    /// The letter of its kind and its path, which for an image ends with `@` and its hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind().letter())?;
        match self {
            Self::Entity(entity) => write!(f, "{entity}"),
            Self::Collection(entity, collection) => write!(f, "{entity}/{collection}"),
            Self::Container(repository) => write!(f, "{repository}"),
            Self::Image(repository, hash) => write!(f, "{repository}@{}", hash.hex()),
        }
    }
}

impl From<Thing> for String {
    fn from(thing: Thing) -> Self {
        thing.to_string()
    }
}

impl TryFrom<String> for Thing {
    type Error = ThingError;
    fn try_from(text: String) -> Result<Self, ThingError> {
        text.parse()
    }
}

/// The text is no thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a thing is a letter and a path")]
pub struct ThingError;

impl FromStr for Thing {
    type Err = ThingError;
    fn from_str(text: &str) -> Result<Self, ThingError> {
        fn read<T: FromStr>(text: &str) -> Result<T, ThingError> {
            text.parse().map_err(|_| ThingError)
        }
        let mut letters = text.chars();
        let kind = letters.next().and_then(|letter| ThingKind::ALL.into_iter().find(|kind| kind.letter() == letter));
        let path = letters.as_str();
        match kind.ok_or(ThingError)? {
            ThingKind::Entity => Ok(Self::Entity(read(path)?)),
            ThingKind::Collection => {
                let (entity, collection) = path.split_once('/').ok_or(ThingError)?;
                Ok(Self::Collection(read(entity)?, read(collection)?))
            }
            ThingKind::Container => Ok(Self::Container(read(path)?)),
            ThingKind::Image => {
                let (repository, hash) = path.split_once('@').ok_or(ThingError)?;
                Ok(Self::Image(read(repository)?, Digest::from_hex(hash).map_err(|_| ThingError)?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_white_space_in_lower_case_and_have_their_parts() {
        let words = Words::of(["Hello  World-2.0\n", "hello İ", &"x".repeat(200)]);
        let found: Vec<&str> = words.iter().collect();
        assert_eq!(found, ["hello", "i\u{307}", "world-2.0", &"x".repeat(LONGEST)]);
        assert!(words.have("ld-2") && !words.have("lo world"));
        assert_eq!(words.long().count(), 3);
        let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        assert_eq!(Words::of(many.iter().map(String::as_str)).iter().count(), MOST);
    }

    #[test]
    fn a_word_ends_from_each_letter_on() {
        assert_eq!(ends("amd64").collect::<Vec<_>>(), ["amd64", "md64", "d64"]);
        assert_eq!(ends("äöü").collect::<Vec<_>>(), ["äöü"]);
        assert_eq!(ends("ab").count(), 0);
    }

    #[test]
    fn things_are_read_back_from_their_text() {
        let repository: Repository = "alice/tools/hello".parse().unwrap();
        let things = [
            Thing::Entity("alice".parse().unwrap()),
            Thing::Collection("alice".parse().unwrap(), "tools".parse().unwrap()),
            Thing::Container(repository.clone()),
            Thing::Image(repository, Digest::of(b"x")),
        ];
        for thing in things {
            assert_eq!(thing.to_string().parse(), Ok(thing));
        }
        for wrong in ["", "x", "aalice/x", "balice", "calice", "dalice/tools/hello", "dalice/tools/hello@12", "é"] {
            assert_eq!(wrong.parse::<Thing>(), Err(ThingError), "{wrong}");
        }
    }
}
