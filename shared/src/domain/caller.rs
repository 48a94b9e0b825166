//! Who is calling, and what their token may be used for.

use super::actor::Actor;
use super::ids::TokenId;
use super::names::{EntityName, UserName};
use super::reference::Repository;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The caller of a request, once its token has been checked against the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Anonymous.
    Anonymous,
    /// A person or a robot, through one of their tokens.
    Known {
        /// The account.
        actor: Actor,
        /// Whether the account is a site admin's.
        admin: bool,
        /// What the token may be used for.
        scope: TokenScope,
        /// The row of the API token behind the request; `None` if it was a password.
        token: Option<TokenId>,
        /// The scope that a registry client asked for in its short-lived token; it narrows the token's scope further.
        /// `None`: no narrowing.
        access: Option<Vec<TokenScope>>,
    },
    /// Stackroom itself: sweeping, verifying, the first start.
    System,
}

impl Caller {
    /// The user's name, if it is a person.
    pub fn user(&self) -> Option<&UserName> {
        self.known().and_then(Actor::user)
    }

    /// The person or robot, if it is one.
    pub fn known(&self) -> Option<&Actor> {
        match self {
            Self::Known { actor, .. } => Some(actor),
            Self::Anonymous | Self::System => None,
        }
    }

    /// Whoever acts: nobody in particular does not.
    pub fn actor(&self) -> Option<Actor> {
        match self {
            Self::Known { actor, .. } => Some(actor.clone()),
            Self::System => Some(Actor::System),
            Self::Anonymous => None,
        }
    }

    /// Whether they are this actor.
    pub fn is(&self, actor: &Actor) -> bool {
        self.actor().as_ref() == Some(actor)
    }

    /// The row of the token that they show, where they show one.
    pub fn token(&self) -> Option<TokenId> {
        match self {
            Self::Known { token, .. } => *token,
            Self::Anonymous | Self::System => None,
        }
    }

    /// A word for the caller in the log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Known { actor: Actor::Robot(..), .. } => "robot",
            Self::Known { admin: true, .. } => "admin",
            Self::Known { admin: false, .. } => "user",
            Self::System => "system",
        }
    }
}

/// A role on an entity, weakest first. The order matters: a stronger role includes all rights of a weaker one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Browses, pulls private images.
    Reader,
    /// Also creates collections, pushes, tags, and deletes their own pushes.
    Contributor,
    /// Also members, settings, everything of a group's entity.
    Admin,
    /// The user whose entity it is.
    Owner,
}

impl Role {
    /// All roles, weakest first.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Contributor, Self::Admin, Self::Owner];
}

/// One thing that a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Read images and their metadata.
    Pull,
    /// Bring images, set tags.
    Push,
    /// Remove images and tags.
    Delete,
    /// Settings and members of what its user manages, their account and its tokens.
    Manage,
    /// All that a site admin may do, managing too.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pull, Self::Push, Self::Delete, Self::Manage, Self::Admin];

    fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Manage => "manage",
            Self::Admin => "admin",
        }
    }
}

/// Where a token may be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenPlace {
    /// Wherever its user may.
    All,
    /// In one entity.
    Entity(EntityName),
    /// In one repository.
    Repository(Repository),
    /// In no repository, except for listing them.
    Catalog,
}

/// The spelling of the catalog in a scope. Nothing else can have that name.
const CATALOG: &str = "_catalog";

/// What a token may be used for. A scope only narrows what its user may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenScope {
    /// For what.
    pub rights: BTreeSet<Right>,
    /// Where.
    pub place: TokenPlace,
}

/// The text is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a scope: write rights and, after an `@`, a place, like `pull,push@acme` or `pull@acme/tools/bb`; rights are pull, push, delete, manage, admin"
)]
pub struct ScopeError(String);

impl TokenScope {
    /// Everything that the user may.
    pub fn full() -> Self {
        Self { rights: Right::ALL.into(), place: TokenPlace::All }
    }

    /// Whether it allows a right, wherever it may be used. What a site admin may do, managing is part of.
    pub fn allows(&self, right: Right) -> bool {
        self.rights.contains(&right) || (right == Right::Manage && self.rights.contains(&Right::Admin))
    }

    /// Whether it allows every right that another one has.
    pub fn allows_all_of(&self, other: &Self) -> bool {
        other.rights.iter().all(|right| self.allows(*right))
    }
}

impl FromStr for TokenScope {
    type Err = ScopeError;
    /// `RIGHT[,RIGHT…][@ENTITY | @REPOSITORY]`.
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let error = || ScopeError(text.chars().take(200).collect());
        let (rights, place) = text.split_once('@').map_or((text, None), |(rights, place)| (rights, Some(place)));
        let rights = rights
            .split(',')
            .map(|word| Right::ALL.into_iter().find(|right| right.word() == word.trim()).ok_or_else(error))
            .collect::<Result<_, _>>()?;
        let place = match place {
            None => TokenPlace::All,
            Some(CATALOG) => TokenPlace::Catalog,
            Some(name) if name.contains('/') => TokenPlace::Repository(name.parse().map_err(|_| error())?),
            Some(name) => TokenPlace::Entity(name.parse().map_err(|_| error())?),
        };
        Ok(Self { rights, place })
    }
}

impl fmt::Display for TokenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rights: Vec<&str> = self.rights.iter().map(|right| right.word()).collect();
        f.write_str(&rights.join(","))?;
        match &self.place {
            TokenPlace::All => Ok(()),
            TokenPlace::Entity(name) => write!(f, "@{name}"),
            TokenPlace::Repository(name) => write!(f, "@{name}"),
            TokenPlace::Catalog => write!(f, "@{CATALOG}"),
        }
    }
}

impl TryFrom<String> for TokenScope {
    type Error = ScopeError;
    fn try_from(text: String) -> Result<Self, ScopeError> {
        text.parse()
    }
}

impl From<TokenScope> for String {
    fn from(scope: TokenScope) -> Self {
        scope.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_reads_back_as_it_is_written() {
        for text in [
            "pull",
            "pull,push",
            "pull,push,delete,manage,admin",
            "manage",
            "push@acme",
            "pull@acme/tools/bb",
            "pull@_catalog",
        ] {
            assert_eq!(text.parse::<TokenScope>().unwrap().to_string(), text);
        }
        for (text, kept) in [("pull@ACME", "pull@acme"), ("push@Acme/Tools/BB", "push@acme/tools/bb")] {
            assert_eq!(text.parse::<TokenScope>().unwrap().to_string(), kept);
        }
        for text in ["", "read", "PULL", "pull,", "pull@", "pull@Ä", "pull@tags", "pull@_CATALOG", "@acme", "pull@a//b"]
        {
            assert!(text.parse::<TokenScope>().is_err(), "{text}");
        }
    }
}
