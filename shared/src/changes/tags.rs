//! Tags: one row, architecture → image, and the only code that makes one.
//!
//! Any code that sets a tag also writes the manifests that it names. It also records the tag in the row of each image
//! that the tag points to, or no longer points to.

use super::{Changes, accounts, backlinks, joined, manifests};
use crate::domain::{Digest, OciDigest, Repository, TagName, Time};
use crate::error::Error;
use crate::rules::Place;
use crate::store::keys;
use crate::store::rows::{Content, EventKind, Image, Intent, Manifest, Named, Row, Tag, TagMove, Tagged};
use crate::store::table::{Condition, Write};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

/// The maximum length of an architecture's name, in bytes.
const LONGEST_ARCH: usize = 32;
/// The most architectures of a tag, each with an image.
const MAX_ARCHS: usize = 16;
/// The most tags that are remembered for an image whose bytes are being verified.
const MAX_INTENTS: usize = 20;
/// Writes of a commit, not counting those for the requested tags.
const BESIDE_INTENTS: usize = 16;

/// Checks an architecture that a client sent. An image's own architecture is one of a fixed list.
pub(crate) fn check_arch(arch: &str) -> Result<(), Error> {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    if arch.len() <= LONGEST_ARCH && arch.bytes().all(good) {
        return Ok(());
    }
    let why =
        format!("an architecture is a name like `amd64`, of at most {LONGEST_ARCH} letters, digits, `_`, `.` and `-`");
    Err(Error::Invalid(why))
}

/// Refuses more architectures than a tag can have.
pub(crate) fn check_room(tag: Option<&Tag>, arch: &str) -> Result<(), Error> {
    if tag.is_none_or(|tag| tag.images.len() < MAX_ARCHS || tag.images.contains_key(arch)) {
        return Ok(());
    }
    Err(Error::Conflict(format!("a tag can have images for at most {MAX_ARCHS} architectures")))
}

/// The architecture for which an image is tagged: its own, or the client's if the image states none.
fn arch_of(content: &Content, said: Option<&str>) -> Result<String, Error> {
    match (content.arch.as_str(), said) {
        // A tag has no place for an image without one.
        ("", None | Some("")) => Err(Error::Invalid("the image names no architecture, say which it is for".to_owned())),
        ("", Some(arch)) => Ok(arch.to_owned()),
        (own, Some(arch)) if own != arch => {
            Err(Error::Invalid(format!("the image is for `{own}` and can't be tagged for `{arch}`")))
        }
        (own, _) => Ok(own.to_owned()),
    }
}

/// The fields of an image that a tag copies.
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

/// A tag that is to point to an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pointing<'a> {
    /// The tag's name.
    pub(crate) name: &'a TagName,
    /// The architecture, if the client named one.
    pub(crate) arch: Option<&'a str>,
    pub(crate) image: &'a Image,
    /// The metadata of the image's bytes.
    pub(crate) content: &'a Content,
    /// Where the version of a new tag begins: drawn at random, so that one that went and came back is not taken for the
    /// old one.
    pub(crate) first_version: u32,
    pub(crate) now: Time,
}

/// Points a tag at an image of its repository.
///
/// # Errors
/// [`Error::Invalid`] if the image is for another architecture, [`Error::Conflict`] if the tag has no room for one
/// more.
pub(crate) fn point(tag: Option<Tag>, new: Pointing<'_>) -> Result<Changes, Error> {
    let Pointing { name, image, .. } = new;
    let arch = arch_of(new.content, new.arch)?;
    check_room(tag.as_ref(), &arch)?;
    let Placed { writes, moved, left } = place(tag, &arch, new)?;
    let mut changes = Changes::recorded(place_of(&image.repository), EventKind::TagSet(moved)).with(writes);
    changes.add(Write::tagged(image.key(), [name]));
    changes.add(manifests::epoch_advanced(&image.repository));
    changes.extend(left.map(|left| Write::untagged(keys::image(&image.repository, &left), [name])));
    Ok(changes)
}

/// The row of a tag that points to one more image.
struct Placed {
    /// The writes of the tag and of the manifests that it names.
    writes: Vec<Write>,
    moved: TagMove,
    /// The image that the tag no longer points to.
    left: Option<Digest>,
}

fn place(tag: Option<Tag>, arch: &str, new: Pointing<'_>) -> Result<Placed, Error> {
    let Pointing { name, image, content, now, first_version, .. } = new;
    let counted = accounts::rows(image.repository.entity(), i64::from(tag.is_none()));
    let condition = tag.as_ref().map_or(Condition::Absent, |tag| Condition::Version(tag.version));
    let backlink = tag.as_ref().and_then(backlinks::of_tag);
    let (mut images, frozen, version) = tag.map_or_else(
        || (BTreeMap::new(), false, u64::from(first_version)),
        |tag| (tag.images, tag.frozen, tag.version),
    );
    let old = images.insert(arch.to_owned(), tagged(image, content)).map(|old| old.hash);
    // The same image may be under the tag for another architecture only if it states none itself.
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
    let mut writes = vec![Write::put(&tag, condition)?];
    writes.extend(counted);
    writes.extend(manifests);
    writes.extend(backlinks::tag_moved(backlink, &tag)?);
    Ok(Placed { writes, moved: moved(&tag), left })
}

fn place_of(repository: &Repository) -> Place {
    Place::Repository(repository.clone())
}

/// The event of a tag that was set.
fn moved(tag: &Tag) -> TagMove {
    let images = tag.images.iter().map(|(arch, one)| (arch.clone(), one.hash)).collect();
    TagMove { tag: tag.name.clone(), digest: Some(tag.named.digest), images }
}

/// Deletes the row of a tag, and its backlink.
fn deleted(tag: &Tag) -> Vec<Write> {
    let mut writes = deleted_alone(tag);
    writes.extend(backlinks::tag_deleted(tag));
    writes
}

/// Deletes the row of a tag.
pub(crate) fn deleted_alone(tag: &Tag) -> Vec<Write> {
    let row = Write::delete(tag.key(), Condition::Version(tag.version));
    accounts::rows(tag.repository.entity(), -1).into_iter().chain([row]).collect()
}

/// The event of a tag that was removed.
fn removed(name: &TagName) -> EventKind {
    EventKind::TagRemoved(TagMove { tag: name.clone(), digest: None, images: BTreeMap::new() })
}

/// What a tag names for registry clients, with the writes of the manifests behind it.
struct TagTarget {
    named: Named,
    manifests: Vec<Write>,
}

/// What a tag of these images (at least one) names: the manifest of a single image, or an index of several. The code
/// that sets the tag also writes what it names.
fn target_of(repository: &Repository, images: &BTreeMap<String, Tagged>, now: Time) -> Result<TagTarget, Error> {
    let mut rows: Vec<Manifest> = images.values().map(|one| manifests::image_row(repository, one, now)).collect();
    if rows.len() > 1 {
        let listed = images.keys().map(String::as_str).zip(&rows);
        rows.push(manifests::index_row(repository, listed, now));
    }
    let last = rows.last().ok_or_else(|| Error::Internal("a tag without images".to_owned()))?;
    let named = Named { digest: last.digest, media_type: last.media_type.clone(), size: last.size };
    let mut writes = Vec::new();
    for row in &rows {
        writes.extend(manifests::overlaid(row)?);
    }
    // The same image under two architectures has only one manifest.
    Ok(TagTarget { named, manifests: joined(writes) })
}

/// Tags that are to name a manifest pushed by a registry client.
#[derive(Debug)]
pub(crate) struct Replacing<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) names: &'a [TagName],
    /// The rows of the existing ones.
    pub(crate) old: &'a BTreeMap<TagName, Tag>,
    pub(crate) named: Named,
    /// The library images that the manifest is or lists.
    pub(crate) images: &'a [Tagged],
    /// Where the versions of new tags begin: drawn at random.
    pub(crate) first_version: u32,
    pub(crate) now: Time,
}

/// Points tags to a manifest, whatever they pointed to before.
pub(crate) fn replace(new: &Replacing<'_>) -> Result<Changes, Error> {
    let Replacing { repository, names, old, .. } = *new;
    // A tag has no place for an image without one. The manifest is named all the same.
    let has_arch = |one: &&Tagged| !one.content.arch.is_empty();
    let images: BTreeMap<String, Tagged> =
        new.images.iter().filter(has_arch).map(|one| (one.content.arch.clone(), one.clone())).collect();
    let hashes: BTreeSet<Digest> = images.values().map(|one| one.hash).collect();
    let mut changes = Changes::unrecorded();
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
            version: old.map_or(u64::from(new.first_version), |old| old.version + 1),
        };
        changes.add(Write::put(&tag, condition)?);
        changes.extend(backlinks::tag_moved(old.and_then(backlinks::of_tag), &tag)?);
        changes.extend(accounts::rows(repository.entity(), i64::from(old.is_none())));
        changes.record(&place_of(repository), EventKind::TagSet(moved(&tag)));
    }
    changes.extend(left.into_iter().map(|(hash, tags)| Write::untagged(keys::image(repository, &hash), tags)));
    if !names.is_empty() {
        changes.extend(hashes.iter().map(|hash| Write::tagged(keys::image(repository, hash), names)));
    }
    Ok(changes)
}

/// Writes an image with another description, and each of its tags with a copy of that.
pub(crate) fn described(image: &Image, tags: impl IntoIterator<Item = Tag>) -> Result<Changes, Error> {
    let what = EventKind::ImageDescribed { hash: image.hash };
    let mut changes = Changes::recorded(place_of(&image.repository), what);
    changes.add(Write::put(image, Condition::Version(image.version.saturating_sub(1)))?);
    for mut tag in tags {
        let condition = Condition::Version(tag.version);
        tag.version += 1;
        for one in tag.images.values_mut().filter(|one| one.hash == image.hash) {
            one.description = image.description.clone();
        }
        changes.add(Write::put(&tag, condition)?);
    }
    Ok(changes)
}

/// The tags that an image is to have, and no others.
#[derive(Debug)]
pub(crate) struct ExactTags<'a> {
    pub(crate) image: &'a Image,
    /// The rows of the tags that it is to get or to lose, as far as they are there.
    pub(crate) rows: BTreeMap<TagName, Tag>,
    pub(crate) wanted: &'a BTreeSet<TagName>,
}

/// Points tags at an image, and takes from it those that it is not to have.
///
/// # Errors
/// [`Error::Invalid`] if the image states no architecture, [`Error::Conflict`] if a tag has no room for one more.
pub(crate) fn exactly(exact: ExactTags<'_>, Drawn { now, first_version }: Drawn) -> Result<Changes, Error> {
    let ExactTags { image, mut rows, wanted } = exact;
    let content = image.content.as_ref().ok_or(Error::NotFound("image"))?;
    let mut changes = Changes::unrecorded();
    let mut left: BTreeMap<Digest, Vec<&TagName>> = BTreeMap::new();
    for name in wanted.difference(&image.tags) {
        let tag = rows.remove(name);
        let arch = arch_of(content, None)?;
        check_room(tag.as_ref(), &arch)?;
        let new = Pointing { name, arch: Some(&arch), image, content, first_version, now };
        let Placed { writes, moved, left: old } = place(tag, &arch, new)?;
        changes.extend(writes);
        changes.record(&place_of(&image.repository), EventKind::TagSet(moved));
        if let Some(old) = old {
            left.entry(old).or_default().push(name);
        }
    }
    for tag in image.tags.difference(wanted).filter_map(|name| rows.get(name)) {
        changes.merge(without(tag, &image.hash, now)?);
    }
    let tagged = Image { tags: wanted.clone(), named: true, version: image.version + 1, ..image.clone() };
    changes.add(Write::put(&tagged, Condition::Version(image.version))?);
    changes.extend(left.into_iter().map(|(old, tags)| Write::untagged(keys::image(&image.repository, &old), tags)));
    changes.add(manifests::epoch_advanced(&image.repository));
    Ok(changes)
}

/// Freezes or unfreezes a tag. The epoch advances, so that no deletion that was decided before can take what the tag
/// leads to.
pub(crate) fn frozen(tag: Tag, frozen: bool) -> Result<Changes, Error> {
    let what = EventKind::TagFrozen { tag: tag.name.clone(), frozen };
    let condition = Condition::Version(tag.version);
    let tag = Tag { frozen, version: tag.version + 1, ..tag };
    let writes = [Write::put(&tag, condition)?, manifests::epoch_advanced(&tag.repository)];
    Ok(Changes::recorded(place_of(&tag.repository), what).with(writes))
}

/// Removes a tag, and nothing else.
pub(crate) fn remove(tag: &Tag) -> Changes {
    let hashes: BTreeSet<Digest> = tag.images.values().map(|one| one.hash).collect();
    let untagged = hashes.iter().map(|hash| Write::untagged(keys::image(&tag.repository, hash), [&tag.name]));
    Changes::recorded(place_of(&tag.repository), removed(&tag.name)).with(deleted(tag).into_iter().chain(untagged))
}

/// Splits tags into groups, so that each group can be changed in one transaction with some forty other writes.
/// Changing a tag also writes the manifests of all its images, with their backlinks.
pub(crate) fn groups<T: Borrow<Tag>>(tags: &[T]) -> Vec<&[T]> {
    const HALF: usize = Changes::MAX / 2;
    let weight = |tag: &T| 3 * tag.borrow().images.len() + 5;
    let mut sum = tags.first().map_or(0, weight);
    let together = |_: &T, next: &T| {
        sum += weight(next);
        let fits = sum <= HALF;
        sum = if fits { sum } else { weight(next) };
        fits
    };
    tags.chunk_by(together).collect()
}

/// Removes an image from a tag. A tag that loses its last image is removed.
fn without(tag: &Tag, hash: &Digest, now: Time) -> Result<Changes, Error> {
    let condition = Condition::Version(tag.version);
    let mut images = tag.images.clone();
    images.retain(|_, image| image.hash != *hash);
    if images.is_empty() {
        return Ok(Changes::recorded(place_of(&tag.repository), removed(&tag.name)).with(deleted(tag)));
    }
    let TagTarget { named, manifests } = target_of(&tag.repository, &images, now)?;
    let left = Tag { images, named, version: tag.version + 1, ..tag.clone() };
    Ok(Changes::recorded(place_of(&tag.repository), EventKind::TagSet(moved(&left)))
        .with([Write::put(&left, condition)?])
        .with(manifests)
        .with(backlinks::tag_moved(backlinks::of_tag(tag), &left)?))
}

/// What some tags must no longer point to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Untagging<'a> {
    /// A manifest: tags that name it are removed as a whole.
    pub(crate) manifest: Option<&'a OciDigest>,
    /// A library image.
    pub(crate) image: Option<Digest>,
    /// Whether the image's row still exists afterwards, and has to be updated.
    pub(crate) image_stays: bool,
    pub(crate) now: Time,
}

/// Removes a manifest, a library image or both from some tags.
pub(crate) fn untag<T: Borrow<Tag>>(tags: &[T], what: Untagging<'_>) -> Result<Changes, Error> {
    let Untagging { image, image_stays, now, .. } = what;
    let mut changes = Changes::unrecorded();
    let mut left: BTreeMap<keys::Key, BTreeSet<&TagName>> = BTreeMap::new();
    for tag in tags.iter().map(Borrow::borrow) {
        let key = |hash: &Digest| keys::image(&tag.repository, hash);
        if what.manifest == Some(&tag.named.digest) {
            changes.extend(deleted(tag));
            changes.record(&place_of(&tag.repository), removed(&tag.name));
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
/// [`Error::Conflict`] if too many are remembered, or the tag has no room for the architecture.
pub(crate) fn intend(tag: Option<&Tag>, image: &Image, intent: Intent) -> Result<Changes, Error> {
    if let Some(arch) = &intent.arch {
        check_room(tag, arch)?;
    }
    let mut sealed = Image { version: image.version + 1, ..image.clone() };
    sealed.intents.retain(|other| other.tag != intent.tag);
    if sealed.intents.len() >= MAX_INTENTS {
        return Err(Error::Conflict(format!("an image can get at most {MAX_INTENTS} tags while it is being verified")));
    }
    sealed.intents.push(intent);
    Ok(Changes::unrecorded().with([Write::put(&sealed, Condition::Version(image.version))?]))
}

/// The time, and a number drawn at random for the versions of new rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawn {
    pub(crate) now: Time,
    pub(crate) first_version: u32,
}

/// Sets the tags that were requested while the bytes of `image` were being verified, as part of its commit. Tags that
/// have become frozen or full since then stay unchanged, and so do tags that do not fit into the transaction. The tags
/// that are set are recorded in the image.
pub(crate) fn intended(
    image: &mut Image,
    content: &Content,
    mut tags: BTreeMap<TagName, Tag>,
    Drawn { now, first_version }: Drawn,
) -> Result<Changes, Error> {
    let mut changes = Changes::unrecorded();
    let mut left: BTreeMap<Digest, Vec<TagName>> = BTreeMap::new();
    for Intent { tag: name, arch } in std::mem::take(&mut image.intents) {
        let tag = tags.remove(&name);
        let Ok(arch) = arch_of(content, arch.as_deref()) else { continue };
        if tag.as_ref().is_some_and(|tag| tag.frozen) || check_room(tag.as_ref(), &arch).is_err() {
            continue;
        }
        let new = Pointing { name: &name, arch: Some(&arch), image, content, first_version, now };
        let Placed { writes, moved, left: old } = place(tag, &arch, new)?;
        let with = changes.clone().with(writes);
        if !with.have_room_for(BESIDE_INTENTS + left.len() + usize::from(old.is_some())) {
            tracing::warn!(tag = %name, repository = %image.repository, "a commit has no room for this tag");
            continue;
        }
        changes = with;
        changes.record(&place_of(&image.repository), EventKind::TagSet(moved));
        if let Some(old) = old {
            left.entry(old).or_default().push(name.clone());
        }
        image.named = true;
        image.tags.insert(name);
    }
    changes.extend(left.iter().map(|(old, tags)| Write::untagged(keys::image(&image.repository, old), tags)));
    Ok(changes)
}
