//! Tags: one row, architecture → image, and the only code that makes one.
//!
//! Whatever sets a tag also writes the manifests that it names, and notes the tag in the row of each image that it
//! leads to or no longer leads to.

use super::{Changes, joined, manifests};
use crate::domain::{Digest, OciDigest, Repository, TagName, Time};
use crate::error::Error;
use crate::rules::Place;
use crate::store::keys;
use crate::store::rows::{Content, Image, Intent, Manifest, Named, Row, Tag, TagMove, Tagged, What};
use crate::store::table::{Condition, Write};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

/// The most bytes of the name of an architecture.
const LONGEST_ARCH: usize = 32;
/// The most architectures that a tag leads to, each with an image.
const MOST_ARCHS: usize = 32;
/// The most tags that are remembered for an image whose bytes are being verified.
const MOST_INTENTS: usize = 20;
/// Writes of a commit beside those of the tags that were asked for.
const BESIDE_INTENTS: usize = 15;

/// Checks what a client says of an architecture; an image's own is one of a few.
pub(crate) fn check_arch(arch: &str) -> Result<(), Error> {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    if arch.len() <= LONGEST_ARCH && arch.bytes().all(good) {
        return Ok(());
    }
    let why =
        format!("an architecture is a name like `amd64`, of at most {LONGEST_ARCH} letters, digits, `_`, `.` and `-`");
    Err(Error::Invalid(why))
}

/// Refuses an architecture more than a tag can have.
pub(crate) fn check_room(tag: Option<&Tag>, arch: &str) -> Result<(), Error> {
    if tag.is_none_or(|tag| tag.images.len() < MOST_ARCHS || tag.images.contains_key(arch)) {
        return Ok(());
    }
    Err(Error::Conflict(format!("a tag can have images for at most {MOST_ARCHS} architectures")))
}

/// The architecture that an image is tagged for: its own, or, where it says nothing, what the client believes.
fn arch_of(content: &Content, said: Option<&str>) -> Result<String, Error> {
    match (content.arch.as_str(), said) {
        ("", Some(arch)) => Ok(arch.to_owned()),
        (own, Some(arch)) if own != arch => {
            Err(Error::Invalid(format!("the image is for `{own}` and can't be tagged for `{arch}`")))
        }
        (own, _) => Ok(own.to_owned()),
    }
}

/// What a tag copies of an image.
pub(crate) fn tagged(image: &Image, content: &Content) -> Tagged {
    Tagged {
        id: image.id,
        hash: image.hash,
        description: image.description.clone(),
        created_by: image.created_by.clone(),
        created: image.created,
        content: content.clone(),
    }
}

/// A tag that is to lead to an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pointing<'a> {
    /// The tag's name.
    pub(crate) name: &'a TagName,
    /// The architecture, where the client named one.
    pub(crate) arch: Option<&'a str>,
    pub(crate) image: &'a Image,
    /// What is known of the image's bytes.
    pub(crate) content: &'a Content,
    pub(crate) now: Time,
}

/// Points a tag at an image of its repository.
///
/// # Errors
/// [`Error::Invalid`] where the image is for another architecture, [`Error::Conflict`] where the tag has no room for
/// one more.
pub(crate) fn point(tag: Option<Tag>, new: Pointing<'_>) -> Result<Changes, Error> {
    let Pointing { name, image, .. } = new;
    let arch = arch_of(new.content, new.arch)?;
    check_room(tag.as_ref(), &arch)?;
    let Placed { writes, moved, left } = place(tag, &arch, new)?;
    let mut changes = Changes::noted(place_of(&image.repository), What::TagSet(moved)).with(writes);
    changes.add(Write::tagged(image.key(), [name]));
    changes.add(manifests::epoch_advanced(&image.repository));
    changes.extend(left.map(|left| Write::untagged(keys::image(&image.repository, &left), [name])));
    Ok(changes)
}

/// The row of a tag that leads to one more image.
struct Placed {
    /// The writes of the tag and of the manifests that it names.
    writes: Vec<Write>,
    moved: TagMove,
    /// The image that the tag no longer leads to.
    left: Option<Digest>,
}

fn place(tag: Option<Tag>, arch: &str, new: Pointing<'_>) -> Result<Placed, Error> {
    let Pointing { name, image, content, now, .. } = new;
    let condition = tag.as_ref().map_or(Condition::Absent, |tag| Condition::Version(tag.version));
    let (mut images, frozen, version) =
        tag.map_or_else(|| (BTreeMap::new(), false, 0), |tag| (tag.images, tag.frozen, tag.version));
    let old = images.insert(arch.to_owned(), tagged(image, content)).map(|old| old.hash);
    // The same image may stand under the tag for another architecture only if it says nothing of its own.
    let left = old.filter(|old| *old != image.hash && !images.values().any(|other| other.hash == *old));
    let TagTarget { named, manifests } = target_of(&image.repository, &images, now)?;
    let tag = Tag {
        repository: image.repository.clone(),
        name: name.clone(),
        images,
        named,
        frozen,
        updated: now,
        last: arch.to_owned(),
        version: version + 1,
    };
    let writes = std::iter::once(Write::put(&tag, condition)?).chain(manifests).collect();
    Ok(Placed { writes, moved: moved(&tag), left })
}

fn place_of(repository: &Repository) -> Place {
    Place::Repository(repository.clone())
}

/// What is noted of a tag that was set.
fn moved(tag: &Tag) -> TagMove {
    let images = tag.images.iter().map(|(arch, one)| (arch.clone(), one.hash)).collect();
    TagMove { tag: tag.name.clone(), digest: Some(tag.named.digest), images }
}

/// What is noted of a tag that was removed.
fn removed(name: &TagName) -> What {
    What::TagRemoved(TagMove { tag: name.clone(), digest: None, images: BTreeMap::new() })
}

/// What a tag names for registry clients, and the writes of the manifests behind it.
struct TagTarget {
    named: Named,
    manifests: Vec<Write>,
}

/// What a tag of these images, at least one, names: the only one's manifest, or an index of all of them. Whoever sets
/// a tag makes sure that what it names is there.
fn target_of(repository: &Repository, images: &BTreeMap<String, Tagged>, now: Time) -> Result<TagTarget, Error> {
    let mut rows: Vec<Manifest> = images.values().map(|one| manifests::image_row(repository, one, now)).collect();
    if rows.len() > 1 {
        let listed = images.keys().map(String::as_str).zip(&rows);
        rows.push(manifests::index_row(repository, listed, now));
    }
    let last = rows.last().ok_or_else(|| Error::Internal("a tag without images".to_owned()))?;
    let named = Named { digest: last.digest, media_type: last.media_type.clone(), size: last.size };
    let writes = rows.iter().map(|row| Write::put(row, Condition::None)).collect::<Result<Vec<_>, _>>()?;
    // The same image under two architectures has one manifest.
    Ok(TagTarget { named, manifests: joined(writes) })
}

/// Tags that are to name a manifest which a registry client pushed.
#[derive(Debug)]
pub(crate) struct Replacing<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) names: &'a [TagName],
    /// The rows of those that are there.
    pub(crate) old: &'a BTreeMap<TagName, Tag>,
    pub(crate) named: Named,
    /// The library images that the manifest is or lists.
    pub(crate) images: &'a [Tagged],
    pub(crate) now: Time,
}

/// Sets tags to a manifest, whatever they led to before.
pub(crate) fn replace(new: &Replacing<'_>) -> Result<Changes, Error> {
    let Replacing { repository, names, old, .. } = *new;
    let images: BTreeMap<String, Tagged> =
        new.images.iter().map(|one| (one.content.arch.clone(), one.clone())).collect();
    let hashes: BTreeSet<Digest> = images.values().map(|one| one.hash).collect();
    let mut changes = Changes::unnoted();
    let mut left: BTreeMap<Digest, BTreeSet<&TagName>> = BTreeMap::new();
    for name in names {
        let old = old.get(name);
        let condition = old.map_or(Condition::Absent, |old| Condition::Version(old.version));
        let led_to = old.into_iter().flat_map(|old| old.images.values()).map(|one| one.hash);
        for hash in led_to.filter(|hash| !hashes.contains(hash)) {
            left.entry(hash).or_default().insert(name);
        }
        let tag = Tag {
            repository: repository.clone(),
            name: name.clone(),
            last: images.keys().next().cloned().unwrap_or_default(),
            images: images.clone(),
            named: new.named.clone(),
            frozen: old.is_some_and(|old| old.frozen),
            updated: new.now,
            version: old.map_or(0, |old| old.version + 1),
        };
        changes.add(Write::put(&tag, condition)?);
        changes.note(&place_of(repository), What::TagSet(moved(&tag)));
    }
    changes.extend(left.into_iter().map(|(hash, tags)| Write::untagged(keys::image(repository, &hash), tags)));
    if !names.is_empty() {
        changes.extend(hashes.iter().map(|hash| Write::tagged(keys::image(repository, hash), names)));
    }
    Ok(changes)
}

/// Freezes a tag, or lifts that.
pub(crate) fn frozen(tag: Tag, frozen: bool) -> Result<Changes, Error> {
    let what = What::TagFrozen { tag: tag.name.clone(), frozen };
    let condition = Condition::Version(tag.version);
    let tag = Tag { frozen, version: tag.version + 1, ..tag };
    Ok(Changes::noted(place_of(&tag.repository), what).with([Write::put(&tag, condition)?]))
}

/// Removes a tag, and nothing else.
pub(crate) fn remove(tag: &Tag) -> Changes {
    let hashes: BTreeSet<Digest> = tag.images.values().map(|one| one.hash).collect();
    let untagged = hashes.iter().map(|hash| Write::untagged(keys::image(&tag.repository, hash), [&tag.name]));
    let deleted = Write::delete(tag.key(), Condition::Version(tag.version));
    Changes::noted(place_of(&tag.repository), removed(&tag.name)).with(std::iter::once(deleted).chain(untagged))
}

/// Tags in groups, of which each can be changed in one transaction with some forty other writes: with a tag the
/// manifests are written of all images that it leads to.
pub(crate) fn groups<T: Borrow<Tag>>(tags: &[T]) -> Vec<&[T]> {
    const MOST: usize = Changes::MOST / 2;
    let weight = |tag: &T| tag.borrow().images.len() + 3;
    let mut sum = tags.first().map_or(0, weight);
    let together = |_: &T, next: &T| {
        sum += weight(next);
        let fits = sum <= MOST;
        sum = if fits { sum } else { weight(next) };
        fits
    };
    tags.chunk_by(together).collect()
}

/// Takes an image off a tag, which goes when that was its last one.
fn without(tag: &Tag, hash: &Digest, now: Time) -> Result<Changes, Error> {
    let condition = Condition::Version(tag.version);
    let mut images = tag.images.clone();
    images.retain(|_, image| image.hash != *hash);
    if images.is_empty() {
        return Ok(
            Changes::noted(place_of(&tag.repository), removed(&tag.name)).with([Write::delete(tag.key(), condition)])
        );
    }
    let TagTarget { named, manifests } = target_of(&tag.repository, &images, now)?;
    let left = Tag { images, named, version: tag.version + 1, ..tag.clone() };
    Ok(Changes::noted(place_of(&tag.repository), What::TagSet(moved(&left)))
        .with([Write::put(&left, condition)?])
        .with(manifests))
}

/// What some tags are to lead to no more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TakingOff<'a> {
    /// A manifest: the tags that name it go whole.
    pub(crate) manifest: Option<&'a OciDigest>,
    /// A library image.
    pub(crate) image: Option<Digest>,
    /// Whether the image's row is still there afterwards, and has to be told.
    pub(crate) image_stays: bool,
    pub(crate) now: Time,
}

/// Takes a manifest, a library image or both off some tags.
pub(crate) fn take_off<T: Borrow<Tag>>(tags: &[T], what: TakingOff<'_>) -> Result<Changes, Error> {
    let TakingOff { image, image_stays, now, .. } = what;
    let mut changes = Changes::unnoted();
    let mut left: BTreeMap<keys::Key, BTreeSet<&TagName>> = BTreeMap::new();
    for tag in tags.iter().map(Borrow::borrow) {
        let key = |hash: &Digest| keys::image(&tag.repository, hash);
        if what.manifest == Some(&tag.named.digest) {
            changes.add(Write::delete(tag.key(), Condition::Version(tag.version)));
            changes.note(&place_of(&tag.repository), removed(&tag.name));
            let hashes = tag.images.values().map(|one| one.hash);
            for hash in hashes.filter(|hash| image_stays || Some(*hash) != image) {
                left.entry(key(&hash)).or_default().insert(&tag.name);
            }
        } else if let Some(hash) = image {
            changes.merge(without(tag, &hash, now)?);
            if image_stays {
                left.entry(key(&hash)).or_default().insert(&tag.name);
            }
        }
    }
    changes.extend(left.into_iter().map(|(key, tags)| Write::untagged(key, tags)));
    Ok(changes)
}

/// Remembers a tag for an image whose bytes are being verified: the commit sets it, a rejection drops it.
///
/// # Errors
/// [`Error::Conflict`] where too many are remembered, or the tag has no room for the architecture.
pub(crate) fn intend(tag: Option<&Tag>, image: &Image, intent: Intent) -> Result<Changes, Error> {
    if let Some(arch) = &intent.arch {
        check_room(tag, arch)?;
    }
    let mut sealed = Image { version: image.version + 1, ..image.clone() };
    sealed.intents.retain(|other| other.tag != intent.tag);
    if sealed.intents.len() >= MOST_INTENTS {
        return Err(Error::Conflict(format!(
            "an image can get at most {MOST_INTENTS} tags while it is being verified"
        )));
    }
    sealed.intents.push(intent);
    Ok(Changes::unnoted().with([Write::put(&sealed, Condition::Version(image.version))?]))
}

/// Sets the tags that were asked for while the bytes of `image` were being verified, for its commit. Tags that were
/// frozen or filled meanwhile stay, and so do those that the transaction has no room for. The ones that are set are
/// noted in the image.
pub(crate) fn intended(
    image: &mut Image,
    content: &Content,
    mut tags: BTreeMap<TagName, Tag>,
    now: Time,
) -> Result<Changes, Error> {
    let mut changes = Changes::unnoted();
    let mut left: BTreeMap<Digest, Vec<TagName>> = BTreeMap::new();
    for Intent { tag: name, arch } in std::mem::take(&mut image.intents) {
        let tag = tags.remove(&name);
        let Ok(arch) = arch_of(content, arch.as_deref()) else { continue };
        if tag.as_ref().is_some_and(|tag| tag.frozen) || check_room(tag.as_ref(), &arch).is_err() {
            continue;
        }
        let new = Pointing { name: &name, arch: Some(&arch), image, content, now };
        let Placed { writes, moved, left: old } = place(tag, &arch, new)?;
        let with = changes.clone().with(writes);
        if !with.have_room_for(BESIDE_INTENTS + left.len() + usize::from(old.is_some())) {
            tracing::warn!(tag = %name, repository = %image.repository, "a commit has no room for this tag");
            continue;
        }
        changes = with;
        changes.note(&place_of(&image.repository), What::TagSet(moved));
        if let Some(old) = old {
            left.entry(old).or_default().push(name.clone());
        }
        image.named = true;
        image.tags.insert(name);
    }
    changes.extend(left.iter().map(|(old, tags)| Write::untagged(keys::image(&image.repository, old), tags)));
    Ok(changes)
}
