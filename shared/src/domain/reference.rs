//! Where an image is: a repository, and a tag or hash in it.

use super::digest::{Digest, OciDigest};
use super::names::{CollectionName, ContainerName, EntityName, NameError, TagName, is_reserved};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A path `entity/…/name`, in lower case. A library *container* is a repository of exactly three names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository {
    entity: EntityName,
    /// What follows the entity and its slash; never empty.
    rest: String,
}

/// Why a path or reference was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// One of its names is not allowed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It has too few or too many parts.
    #[error("`{0}` is not a path in the library: write `entity/collection/container`")]
    Parts(String),
    /// It is not the id of a manifest.
    #[error("not the id of a manifest: it is given by the list of a container's manifests")]
    ManifestId,
}

impl Repository {
    /// The repository of a library container.
    pub fn container(entity: EntityName, collection: &CollectionName, container: &ContainerName) -> Self {
        Self { entity, rest: format!("{collection}/{container}") }
    }

    /// The entity that it belongs to.
    pub fn entity(&self) -> &EntityName {
        &self.entity
    }

    /// The path below the entity.
    pub fn rest(&self) -> &str {
        &self.rest
    }

    /// The names of collection and container, when it is a library container.
    pub fn as_container(&self) -> Option<(CollectionName, ContainerName)> {
        let (collection, container) = self.rest.split_once('/')?;
        Some((collection.parse().ok()?, container.parse().ok()?))
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;
    fn from_str(path: &str) -> Result<Self, ReferenceError> {
        let (entity, rest) =
            path.split_once('/').ok_or_else(|| ReferenceError::Parts(path.chars().take(200).collect()))?;
        for name in rest.split('/').filter(|name| !is_registry_component(&name.to_ascii_lowercase())) {
            // The narrower rule of the library gives the best error message.
            name.parse::<ContainerName>()?;
        }
        // The OCI limit of a whole repository name.
        if path.len() > 255 {
            return Err(ReferenceError::Parts(path.chars().take(200).collect()));
        }
        Ok(Self { entity: entity.parse()?, rest: rest.to_ascii_lowercase() })
    }
}

/// A manifest by one word that fits into a URL: the repository with `~` for each `/`, and the digest. Clients take it for
/// an id, and give it back as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestId {
    /// The repository.
    pub repository: Repository,
    /// The manifest.
    pub digest: OciDigest,
}

impl FromStr for ManifestId {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = || ReferenceError::ManifestId;
        let (repository, digest) = text.rsplit_once('~').ok_or_else(error)?;
        let digest = if digest.contains(':') { digest.to_owned() } else { format!("sha256:{digest}") };
        let digest: OciDigest = digest.parse().map_err(|_| error())?;
        let id = Self { repository: repository.replace('~', "/").parse().map_err(|_| error())?, digest };
        // One manifest has one id.
        if id.to_string() == text { Ok(id) } else { Err(error()) }
    }
}

impl fmt::Display for ManifestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.repository.to_string().replace('/', "~"), self.digest.in_key())
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, the registry's rule for a part of a path. It is wider than the library's: a
/// repository with such a name can be reached only through the registry.
fn is_registry_component(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = name.split(|c: char| c.is_ascii() && word(c as u8)).filter(|between| !between.is_empty());
    let ends = |b: Option<&u8>| b.is_some_and(|b| word(*b));
    ends(name.as_bytes().first())
        && ends(name.as_bytes().last())
        && separators
            .into_iter()
            .all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

impl TryFrom<String> for Repository {
    type Error = ReferenceError;
    fn try_from(path: String) -> Result<Self, ReferenceError> {
        path.parse()
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> Self {
        repository.to_string()
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.entity, self.rest)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which image of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The image under the tag, for the requested architecture.
    Tag(TagName),
    /// Exactly these bytes.
    Hash(Digest),
}

impl FromStr for Selector {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Digest::from_library(text).map_or_else(|_| text.parse().map(Self::Tag), |digest| Ok(Self::Hash(digest)))
    }
}

/// The defaults for the missing parts of a short reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The entity of `collection/container` and `container`.
    pub entity: EntityName,
    /// The collection of `container`.
    pub collection: CollectionName,
}

impl Defaults {
    /// Reads the path of a container of one to three parts. Empty parts are skipped: old clients send them for
    /// defaults.
    pub fn container(&self, path: &str) -> Result<Repository, ReferenceError> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [container] => Ok(Repository::container(self.entity.clone(), &self.collection, &container.parse()?)),
            [collection, container] => {
                Ok(Repository::container(self.entity.clone(), &collection.parse()?, &container.parse()?))
            }
            [entity, collection, container] => {
                Ok(Repository::container(entity.parse()?, &collection.parse()?, &container.parse()?))
            }
            _ => Err(ReferenceError::Parts(path.chars().take(200).collect())),
        }
    }

    /// Reads the name of a repository as registry clients write it. A single name is one of the default collection of
    /// the default entity; two names are an entity and a name in it, unlike in the library.
    pub fn repository(&self, name: &str) -> Result<Repository, ReferenceError> {
        if name.contains('/') {
            return name.parse();
        }
        if is_reserved(&name.to_ascii_lowercase()) {
            // Its paths would be those of other routes.
            return Err(NameError::Reserved(name.to_owned()).into());
        }
        format!("{}/{}/{name}", self.entity, self.collection).parse()
    }

    /// Reads the path of a collection of one or two parts.
    pub fn collection(&self, path: &str) -> Result<(EntityName, CollectionName), ReferenceError> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [collection] => Ok((self.entity.clone(), collection.parse()?)),
            [entity, collection] => Ok((entity.parse()?, collection.parse()?)),
            _ => Err(ReferenceError::Parts(path.chars().take(200).collect())),
        }
    }

    /// Reads the path of an entity; empty means the default one.
    pub fn entity(&self, path: &str) -> Result<EntityName, ReferenceError> {
        match path.trim_matches('/') {
            "" => Ok(self.entity.clone()),
            name => Ok(name.parse()?),
        }
    }

    /// Reads `[entity/[collection/]]container[:tag-or-hash]`; without a tag, `latest`.
    pub fn reference(&self, text: &str) -> Result<LibraryRef, ReferenceError> {
        let (path, selector) = text.split_once(':').unwrap_or((text, ""));
        let selector = if selector.is_empty() { "latest" } else { selector };
        Ok(LibraryRef { repository: self.container(path)?, selector: selector.parse()? })
    }
}

/// A container and which of its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryRef {
    /// The container.
    pub repository: Repository,
    /// Which image.
    pub selector: Selector,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        Defaults { entity: "library".parse().unwrap(), collection: "default".parse().unwrap() }
    }

    #[test]
    fn the_id_of_a_manifest_reads_back_as_it_is_written() {
        let digest = OciDigest::from(Digest::of(b""));
        for digest in [digest, OciDigest::Sha512([7; 64])] {
            for repository in ["a/b", "a/b/c-d.e", "a/b__c/d/e"] {
                let id = ManifestId { repository: repository.parse().unwrap(), digest };
                assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
        let hex = Digest::of(b"").hex();
        let wrong = ["", "~", "a~b", &hex, &format!("a~{hex}"), &format!("a/b~{hex}"), &format!("a~b~sha256:{hex}")];
        for text in wrong {
            assert_eq!(text.parse::<ManifestId>(), Err(ReferenceError::ManifestId), "{text}");
        }
    }

    #[test]
    fn short_references_take_their_missing_parts_from_the_defaults() {
        for (text, path) in [
            ("bb", "library/default/bb"),
            ("tools/bb", "library/tools/bb"),
            ("acme/tools/bb:1.0", "acme/tools/bb"),
            ("/acme/tools/bb", "acme/tools/bb"),
        ] {
            assert_eq!(defaults().reference(text).unwrap().repository.to_string(), path, "{text}");
        }
        for text in ["", "a/b/c/d", "a/b/c:", "Ä/b/c", "a/b/c:x:y", "a/b/c:.x"] {
            let read = defaults().reference(text);
            assert_eq!(read.is_ok(), text == "a/b/c:", "{text}: {read:?}");
        }
    }

    #[test]
    fn a_reference_is_read_in_any_case_but_for_its_tag() {
        let read = defaults().reference("ACME/Tools/BB:V1-RC").unwrap();
        assert_eq!(read.repository, "acme/tools/bb".parse().unwrap());
        assert_eq!(read.selector, Selector::Tag("V1-RC".parse().unwrap()));
        assert_eq!(defaults().collection("ACME/Tools").unwrap(), defaults().collection("acme/tools").unwrap());
        assert_eq!(defaults().entity("ACME").unwrap().as_str(), "acme");
    }

    #[test]
    fn a_single_name_of_a_registry_client_lies_below_the_defaults() {
        for (name, path) in [
            ("hello", "library/default/hello"),
            ("Hello__x", "library/default/hello__x"),
            ("a/b", "a/b"),
            ("A/B/c/D", "a/b/c/d"),
        ] {
            assert_eq!(defaults().repository(name).unwrap().to_string(), path);
        }
        for bad in ["", "-a", "a..b", "imagefile", "Tags", "v2", "_catalog", "a/", "/a", "ä"] {
            assert!(defaults().repository(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hash_is_known_before_a_tag() {
        let hash = Digest::of(b"x");
        let read = defaults().reference(&format!("acme/tools/bb:{}", hash.library())).unwrap();
        assert_eq!(read.selector, Selector::Hash(hash));
    }

    #[test]
    fn a_repository_has_two_or_more_names() {
        for good in ["a/b", "a/b/c", "a/b/c/d"] {
            assert_eq!(good.parse::<Repository>().unwrap().to_string(), good);
        }
        for (written, kept) in [("A/b", "a/b"), ("a/B__C", "a/b__c"), ("ALICE/Tools/FAQ4711", "alice/tools/faq4711")] {
            assert_eq!(written.parse::<Repository>().unwrap().to_string(), kept);
        }
        for good in ["a/b__c", "a/b--c/d", "a/x.y_z-0"] {
            let wide: Repository = good.parse().unwrap();
            assert_eq!((wide.to_string().as_str(), wide.as_container()), (good, None));
        }
        for bad in ["a/b___c", "a/b..c", "a/-b", "a/b_", "a/b.-c", "a/ä", "a__b/c"] {
            assert!(bad.parse::<Repository>().is_err(), "{bad}");
        }
        for bad in
            ["", "a", "a/", "/a", "a//b", "a/\u{212a}", "tags/b", "Tags/b", &format!("a/{}", ["b"; 140].join("/"))]
        {
            assert!(bad.parse::<Repository>().is_err(), "{bad}");
        }
    }
}
