//! The roles of one actor in one entity.

use super::caller::Role;
use super::names::EntityName;
use super::reference::{ReferenceError, Repository};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A path below an entity: a collection or a repository, and everything under it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubPath(String);

impl SubPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of a repository.
    pub fn of(repository: &Repository) -> Self {
        Self(repository.rest().to_owned())
    }

    /// The repository at this path of an entity, if it is one's name: any path is, that of a collection too.
    pub fn repository(&self, entity: &EntityName) -> Option<Repository> {
        format!("{entity}/{self}").parse().ok()
    }

    /// Whether something at `path` is this, or lies under it.
    pub fn covers(&self, path: &str) -> bool {
        is_at_or_under(path, &self.0)
    }
}

impl FromStr for SubPath {
    type Err = ReferenceError;
    /// `COLLECTION` or `COLLECTION/CONTAINER`, or any path of a repository without its entity.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        // Below which entity does not matter.
        let below: Repository = format!("x/{text}").parse()?;
        Ok(Self::of(&below))
    }
}

impl TryFrom<String> for SubPath {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<SubPath> for String {
    fn from(path: SubPath) -> Self {
        path.0
    }
}

impl fmt::Display for SubPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_at_or_under(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The roles of one actor in one entity: on all of it, and on single collections and repositories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// On the entity, and so on everything in it.
    #[serde(rename = "role", default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<Role>,
    /// On collections and repositories, and what lies under them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<SubPath, Role>,
}

impl Roles {
    /// The most parts of an entity on which one actor can have roles of their own. They are kept in one row.
    pub const MAX_PARTS: usize = 100;

    /// A role on a whole entity.
    pub fn on_all(role: Role) -> Self {
        Self { entity: Some(role), parts: BTreeMap::new() }
    }

    /// Whether there is no role at all.
    pub fn is_empty(&self) -> bool {
        self.entity.is_none() && self.parts.is_empty()
    }

    /// The strongest role on what lies at a path below the entity; without a path, on the entity itself.
    pub fn at(&self, path: Option<&str>) -> Option<Role> {
        let covering = |path| self.parts.iter().filter(move |(part, _)| part.covers(path)).map(|(_, role)| *role);
        self.entity.max(path.and_then(|path| covering(path).max()))
    }

    /// Whether there is a role on something that lies under a path, or without a path, anywhere in the entity.
    pub fn under(&self, path: Option<&str>) -> bool {
        let below = |part: &SubPath| path.is_none_or(|path| is_at_or_under(part.as_str(), path));
        self.entity.is_some() || self.parts.keys().any(below)
    }

    /// Sets or removes the role on a part, or without a part, on the whole entity.
    pub fn set(&mut self, part: Option<&SubPath>, role: Option<Role>) {
        match (part, role) {
            (None, role) => self.entity = role,
            (Some(part), Some(role)) => drop(self.parts.insert(part.clone(), role)),
            (Some(part), None) => drop(self.parts.remove(part)),
        }
    }
}

/// A role on a part of an entity, or on all of it.
#[derive(Debug, Clone)]
pub struct RoleAt {
    /// The collection or repository; `None`: the whole entity.
    pub part: Option<SubPath>,
    /// The role; `None`: none any more.
    pub role: Option<Role>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(entity: Option<Role>, parts: &[(&str, Role)]) -> Roles {
        Roles { entity, parts: parts.iter().map(|(path, role)| (path.parse().unwrap(), *role)).collect() }
    }

    #[test]
    fn a_role_on_a_part_covers_what_lies_under_it_and_nothing_beside_it() {
        let roles = roles(None, &[("tools", Role::Contributor), ("data/one", Role::Reader)]);
        for (path, role) in [
            (Some("tools"), Some(Role::Contributor)),
            (Some("tools/bb"), Some(Role::Contributor)),
            (Some("tools/bb/cc"), Some(Role::Contributor)),
            (Some("tools2/bb"), None),
            (Some("tool"), None),
            (Some("data"), None),
            (Some("data/one"), Some(Role::Reader)),
            (Some("data/onetwo"), None),
            (None, None),
        ] {
            assert_eq!(roles.at(path), role, "{path:?}");
        }
    }

    #[test]
    fn the_strongest_role_counts() {
        let roles = roles(Some(Role::Reader), &[("tools", Role::Contributor), ("tools/bb", Role::Admin)]);
        assert_eq!(roles.at(None), Some(Role::Reader));
        assert_eq!(roles.at(Some("data/x")), Some(Role::Reader));
        assert_eq!(roles.at(Some("tools/x")), Some(Role::Contributor));
        assert_eq!(roles.at(Some("tools/bb")), Some(Role::Admin));
    }

    #[test]
    fn who_has_a_role_under_a_path_is_known() {
        let some = roles(None, &[("tools/bb", Role::Reader)]);
        assert!(some.under(None) && some.under(Some("tools")) && some.under(Some("tools/bb")));
        assert!(!some.under(Some("data")) && !some.under(Some("tool")) && !Roles::default().under(None));
    }

    #[test]
    fn a_path_below_an_entity_is_that_of_a_repository_or_collection() {
        for good in ["tools", "tools/bb", "a/b/c", "a__b"] {
            assert_eq!(good.parse::<SubPath>().unwrap().to_string(), good);
        }
        for bad in ["", "/", "tools/", "/tools", "a//b", "..", "a b"] {
            assert!(bad.parse::<SubPath>().is_err(), "{bad}");
        }
    }
}
