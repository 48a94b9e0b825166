//! Names: what is parsed as a name, path, digest or scope prints as it was read, and contains no character that could
//! end a key of the table or a part of a URL.

use serde_json::Value;
use shared::domain::reference::Defaults;
use shared::domain::sif::Arch;
use shared::domain::{
    CollectionName, ContainerName, Digest, EntityName, FileName, Id, LibraryRef, ManifestId, OciDigest, Repository,
    Selector, ShareId, ShareKey, TagName, TokenId, TokenPlace, TokenScope, UploadId, UserName,
};
use std::fmt::{Debug, Display};
use std::str::FromStr;

/// What is parsed stays the same when printed and parsed again, and serde accepts the same texts.
fn round<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Display> + Display + Debug + PartialEq + serde::Serialize + serde::de::DeserializeOwned,
{
    let through = serde_json::from_value::<T>(Value::String(text.to_owned()));
    match text.parse::<T>() {
        Ok(value) => {
            assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value), "{text:?}");
            assert_eq!(through.ok().as_ref(), Some(&value), "{text:?}");
            assert_eq!(serde_json::to_value(&value).ok(), Some(Value::String(value.to_string())));
            Some(value)
        }
        Err(refusal) => {
            assert!(through.is_err(), "{text:?}");
            let refusal = refusal.to_string();
            assert!(!refusal.is_empty() && !refusal.ends_with('.'), "{refusal:?}");
            None
        }
    }
}

/// What has only one spelling.
fn exact<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Display> + Display + Debug + PartialEq + serde::Serialize + serde::de::DeserializeOwned,
{
    round::<T>(text).inspect(|value| assert_eq!(value.to_string(), text))
}

/// What is read in any case, and kept in lower case.
fn folded<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Display> + Display + Debug + PartialEq + serde::Serialize + serde::de::DeserializeOwned,
{
    let lower = text.to_ascii_lowercase();
    let read = round::<T>(text).inspect(|value| assert_eq!(value.to_string(), lower));
    assert_eq!(lower.parse::<T>().ok(), read, "{text:?}");
    read
}

fn narrow(name: &str) -> bool {
    let sign = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(sign) && !name.starts_with(['.', '_', '-'])
}

fn repository(repository: &Repository) {
    let text = repository.to_string();
    assert!(text.len() <= 255, "{text}");
    assert_eq!(text, format!("{}/{}", repository.entity(), repository.rest()));
    assert_eq!(text.parse::<Repository>().ok().as_ref(), Some(repository), "{text}");
    assert!(repository.rest().split('/').all(|name| !name.is_empty() && !name.contains(['#', '@', ':', '%', ' '])));
    assert!(narrow(repository.entity().as_str()) && repository.rest().bytes().all(|byte| byte.is_ascii_graphic()));
    if let Some((collection, container)) = repository.as_container() {
        assert_eq!(Repository::container(repository.entity().clone(), &collection, &container), *repository);
    }
}

fn names(text: &str) {
    assert!(folded::<EntityName>(text).is_none_or(|name| narrow(name.as_str())));
    assert!(folded::<CollectionName>(text).is_none_or(|name| narrow(name.as_str())));
    assert_eq!(folded::<UserName>(text).is_some(), folded::<EntityName>(text).is_some(), "one space of names");
    assert_eq!(folded::<ContainerName>(text).is_some(), folded::<CollectionName>(text).is_some());
    if let Some(tag) = exact::<TagName>(text) {
        let sign = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        assert!((1..=128).contains(&tag.as_str().len()) && text.bytes().all(sign));
        assert!(Digest::from_library(text).is_err(), "a tag that is a hash");
        assert_eq!(text.parse::<Selector>().ok(), Some(Selector::Tag(tag)));
    }
    exact::<Id>(text);
    exact::<UploadId>(text);
    exact::<TokenId>(text);
    exact::<ShareId>(text);
    exact::<Arch>(text);
}

fn digests(text: &str) {
    let short = exact::<Digest>(text);
    let digest = exact::<OciDigest>(text);
    if let Some(short) = short {
        assert_eq!(digest, Some(OciDigest::Sha256(short)));
        assert_eq!(Digest::from_library(&short.library()), Ok(short));
        assert_eq!(Digest::from_hex(&short.hex()), Ok(short));
        assert_eq!(short.library().parse::<Selector>(), Ok(Selector::Hash(short)));
    }
    assert!(digest.is_none_or(|digest| digest.like([text]).like([""]) == digest.like([""])));
}

fn references(defaults: &Defaults, text: &str) {
    if let Ok(LibraryRef { repository: path, selector }) = defaults.reference(text) {
        repository(&path);
        assert!(path.as_container().is_some(), "{path}");
        let written = match &selector {
            Selector::Tag(tag) => format!("{path}:{tag}"),
            Selector::Hash(digest) => format!("{path}:{}", digest.library()),
        };
        assert_eq!(defaults.reference(&written), Ok(LibraryRef { repository: path, selector }), "{text:?}");
    }
    if let Ok(path) = defaults.container(text) {
        repository(&path);
        assert_eq!(defaults.container(&path.to_string()), Ok(path));
    }
    if let Ok(path) = defaults.repository(text) {
        repository(&path);
        assert_eq!(defaults.repository(&path.to_string()), Ok(path.clone()));
        assert_eq!(defaults.repository(&text.to_ascii_lowercase()), Ok(path));
    }
    if let Ok((entity, collection)) = defaults.collection(text) {
        assert_eq!(defaults.collection(&format!("{entity}/{collection}")), Ok((entity, collection)));
    }
    if let Ok(entity) = defaults.entity(text) {
        assert_eq!(defaults.entity(entity.as_str()), Ok(entity.clone()));
    }
}

/// What stands in URLs, headers and pages as it is.
fn links(text: &str) {
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte));
    let name = FileName::of(text);
    assert!(plain(name.as_str()) && (1..=201).contains(&name.as_str().len()), "{name}");
    assert!(!name.as_str().starts_with(['.', '-', '~']), "{name}");
    assert_eq!(FileName::of(name.as_str()), name);
    if let Ok(id) = text.parse::<ManifestId>() {
        assert_eq!(id.to_string(), text);
        repository(&id.repository);
    }
    if let Ok(key) = text.parse::<ShareKey>() {
        assert_eq!(key.text(), text);
        assert!(!format!("{key:?}").contains(text.split('.').nth(1).unwrap_or(text)));
    }
}

/// Checks one input.
///
/// # Panics
/// If something is wrong.
pub fn run(text: &str) {
    names(text);
    links(text);
    digests(text);
    if let Some(path) = folded::<Repository>(text) {
        repository(&path);
    }
    if let Some(scope) = round::<TokenScope>(text) {
        assert!(!scope.rights.is_empty());
        if let TokenPlace::Repository(path) = &scope.place {
            repository(path);
        }
    }
    let defaults =
        Defaults { entity: "library".parse().expect("a name"), collection: "default".parse().expect("a name") };
    references(&defaults, text);
}
