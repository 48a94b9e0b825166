//! Names of users, entities, collections, containers and tags.
//!
//! Users, groups and entities share one namespace, so [`UserName`] and [`EntityName`] follow the same rule.
//!
//! All names but tags are read in any case, and kept and shown in lower case (docs/decisions/0021-names-in-any-case.md):
//! whatever compares two of them compares what is stored.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest name of an entity, collection or container, in bytes.
pub const MAX_NAME: usize = 64;
/// Longest tag, in bytes (the OCI limit).
pub const MAX_TAG: usize = 128;

/// Words that can't name an entity, because they are the first part of a route or could be mistaken for one.
const RESERVED: &[&str] = &[
    "_catalog",
    "api",
    "assets",
    "auth",
    "dl",
    "favicon.ico",
    "healthz",
    "imagefile",
    "join",
    "livez",
    "metrics",
    "objects",
    "openapi.json",
    "pks",
    "readyz",
    "register",
    "robots.txt",
    "static",
    "tags",
    "token",
    "v1",
    "v2",
    "version",
    "web",
];

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name breaks the grammar of its kind.
    #[error("the {kind} name `{name}` is not allowed: {rule}")]
    Grammar {
        /// The kind of name.
        kind: &'static str,
        /// The name as given, shortened.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The name is reserved for a route.
    #[error("the name `{0}` is reserved, choose another one")]
    Reserved(String),
}

const COMPONENT_RULE: &str = "use 1 to 64 letters (a to z) and digits, with single `.`, `_` or `-` between them";
const TAG_RULE: &str =
    "use 1 to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`, and not shaped like an image hash";

/// Whether a word can't name an entity, nor a repository of one name.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// `^[a-z0-9]+(?:[._-][a-z0-9]+)*$`, the clients' own rule for a part of a path.
fn is_component(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name
            .split(['.', '_', '-'])
            .all(|run| !run.is_empty() && run.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

fn is_tag(name: &str) -> bool {
    name.len() <= MAX_TAG
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !looks_like_hash(name)
}

/// Whether a selector is an image hash: `sha256.` and 64 digits, or the `sif.` form of the library API.
fn looks_like_hash(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    name.strip_prefix("sha256.").is_some_and(|rest| rest.len() == 64 && hex(rest))
        || name.strip_prefix("sif.").is_some_and(|rest| {
            let runs: Vec<usize> = rest.split('-').filter(|run| hex(run)).map(str::len).collect();
            runs == [8, 4, 4, 4, 12]
        })
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_TAG).collect()
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $rule:expr, $kept:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                let (kept, check): (fn(&str) -> String, fn(&str) -> bool) = ($kept, $check);
                let kept = kept(name);
                if check(&kept) {
                    Ok(Self(kept))
                } else if is_reserved(&kept) {
                    Err(NameError::Reserved(shown(name)))
                } else {
                    Err(NameError::Grammar { kind: $kind, name: shown(name), rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                name.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A top-level space of the library, owned by a user or a group.
    EntityName, "entity", COMPONENT_RULE, str::to_ascii_lowercase, |name| is_component(name) && !is_reserved(name)
);
name!(
    /// A person's account.
    UserName, "user", COMPONENT_RULE, str::to_ascii_lowercase, |name| is_component(name) && !is_reserved(name)
);
name!(
    /// The second level of the library; holds containers.
    CollectionName, "collection", COMPONENT_RULE, str::to_ascii_lowercase, is_component
);
name!(
    /// A named set of images.
    ContainerName, "container", COMPONENT_RULE, str::to_ascii_lowercase, is_component
);
name!(
    /// A movable name of an image within its container. The only name whose case matters.
    TagName, "tag", TAG_RULE, str::to_owned, is_tag
);

impl From<&UserName> for EntityName {
    /// The user's own entity, which has the user's name.
    fn from(user: &UserName) -> Self {
        Self(user.0.clone())
    }
}

impl EntityName {
    /// Whether this is the entity that `user` owns by name.
    pub fn is_own(&self, user: &UserName) -> bool {
        self.0 == user.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr>(good: &[&str], bad: &[&str]) {
        for name in good {
            assert!(name.parse::<T>().is_ok(), "`{name}` should be allowed");
        }
        for name in bad {
            assert!(name.parse::<T>().is_err(), "`{name}` should be refused");
        }
    }

    #[test]
    fn components_follow_the_clients_rule() {
        let good = ["a", "0", "acme", "a.b", "a_b-c.d", "x86-64"];
        let long = "a".repeat(65);
        // Outside of ASCII nothing is folded: the Kelvin sign is no `k`, a dotted capital I no `i`.
        let bad = ["", "a..b", "-a", "a-", "a b", "a/b", "ä", "Ä", "\u{212a}", "\u{130}", "a:b", "_a", &long, "a\n"];
        check::<CollectionName>(&good, &bad);
        check::<ContainerName>(&good, &bad);
        check::<EntityName>(&good, &bad);
    }

    #[test]
    fn a_name_is_kept_in_lower_case_and_a_tag_as_it_is() {
        for text in ["ALICE", "Alice", "aLICE", "alice"] {
            assert_eq!(text.parse::<EntityName>().unwrap().as_str(), "alice");
            assert_eq!(text.parse::<UserName>().unwrap().as_str(), "alice");
            assert_eq!(text.parse::<CollectionName>().unwrap().as_str(), "alice");
            assert_eq!(text.parse::<ContainerName>().unwrap().as_str(), "alice");
            assert_eq!(text.parse::<TagName>().unwrap().as_str(), text);
        }
        let read: UserName = serde_json::from_str("\"FAQ4711\"").unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"faq4711\"");
        // A refusal shows what was written.
        assert!("A..B".parse::<ContainerName>().unwrap_err().to_string().contains("`A..B`"));
    }

    #[test]
    fn what_would_shadow_a_route_cannot_name_an_entity() {
        check::<EntityName>(
            &[],
            &["imagefile", "tags", "_catalog", "token", "auth", "v1", "v2", "V2", "Tags", "api", "assets", "pks"],
        );
        check::<UserName>(&[], &["imagefile", "objects"]);
        check::<CollectionName>(&["tags", "imagefile"], &[]);
    }

    #[test]
    fn tags_are_wide_but_never_shaped_like_a_hash() {
        let hash = format!("sha256.{}", "0".repeat(64));
        let upper = format!("sha256.{}", "A".repeat(64));
        check::<TagName>(
            &["latest", "V1", "_x", "1.0-rc.1", "sha256.abc", "sif.1"],
            &[
                "",
                ".x",
                "-x",
                "v1+x",
                "a b",
                &hash,
                &upper,
                "sif.01234567-0123-0123-0123-0123456789ab",
                &"a".repeat(129),
            ],
        );
    }
}
