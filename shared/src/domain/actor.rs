//! Actors: a person, a group's robot, or Stackroom itself.

use super::names::{EntityName, NameError, UserName};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An actor, as events and rows record it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Actor {
    /// A person.
    User(UserName),
    /// A robot of a group: its entity, and its own name there.
    Robot(EntityName, UserName),
    /// Stackroom itself: sweeping, verifying, the first start.
    System,
}

/// The spelling of the system. No name begins like that.
const SYSTEM: &str = "+system";

impl Actor {
    /// The person, if it is one.
    pub fn user(&self) -> Option<&UserName> {
        match self {
            Self::User(name) => Some(name),
            Self::Robot(..) | Self::System => None,
        }
    }
}

impl From<UserName> for Actor {
    fn from(name: UserName) -> Self {
        Self::User(name)
    }
}

impl FromStr for Actor {
    type Err = NameError;
    /// `NAME`, `ENTITY+NAME` or `+system`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('+') {
            _ if text == SYSTEM => Ok(Self::System),
            Some((entity, name)) => Ok(Self::Robot(entity.parse()?, name.parse()?)),
            None => Ok(Self::User(text.parse()?)),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => fmt::Display::fmt(name, f),
            Self::Robot(entity, name) => write!(f, "{entity}+{name}"),
            Self::System => f.write_str(SYSTEM),
        }
    }
}

impl TryFrom<String> for Actor {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Actor> for String {
    fn from(actor: Actor) -> Self {
        actor.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_reads_back_as_it_is_written() {
        for text in ["alice", "acme+ci", "+system"] {
            assert_eq!(text.parse::<Actor>().unwrap().to_string(), text);
        }
        assert!(matches!("acme+ci".parse(), Ok(Actor::Robot(..))));
        assert_eq!("Acme+CI".parse::<Actor>().unwrap().to_string(), "acme+ci");
        for text in ["", "+", "a+", "+a", "a+b+c", "Ä", "+SYSTEM"] {
            assert!(text.parse::<Actor>().is_err(), "{text}");
        }
    }
}
