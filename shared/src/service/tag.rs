//! Tags: one row, architecture → image.

use super::access::Scene;
use super::commit::{renamed, sif_manifest};
use super::create::{missing, target};
use super::retry::Retry;
use crate::app::App;
use crate::auth::Credential;
use crate::domain::{Digest, Id, Repository, TagName, manifest};
use crate::error::Error;
use crate::rules::{Action, Grant, Place, Resource};
use crate::store::rows::{Container, Content, Image, Intent, Manifest, Named, Row, Tag, Tagged, Target};
use crate::store::table::{Condition, Write, Written};
use crate::store::{StoreError, keys};
use std::borrow::Borrow;
use std::collections::BTreeMap;

const DOING: &str = "set this tag";

/// The tags of the container with the id `container`.
pub async fn list(app: &App, credential: &Credential, container: Id) -> Result<Vec<Tag>, Error> {
    let mut scene = Scene::load(app, credential, None, [keys::pointer(container)]).await?;
    let Some(Target::Container(repository)) = target(&mut scene, container)? else {
        return Err(Error::NotFound("container"));
    };
    let key = keys::container(&repository);
    scene.look(app, repository.entity(), [key.clone()]).await?;
    let resource = scene
        .take::<Container>(&key)?
        .as_ref()
        .map_or_else(|| Resource::Missing(Place::Repository(repository.clone())), super::create::resource_of);
    scene.decide(Action::See, &resource).map_err(|denial| Error::denied(denial, "container", "see this container"))?;
    Ok(app.table.query_all(keys::tags(&repository)).await?)
}

/// Points a tag at an image, for the image's architecture. `arch` is what the client believes that to be.
///
/// 1. Read both ids; then container, image and tag.
/// 2. In one transaction, conditional on the tag's version: the tag's row, and the tag in the row of the new and of the
///    old image. Somebody faster: read again. So a tag names a whole image at every moment.
pub async fn set(
    app: &App,
    credential: &Credential,
    container: Id,
    image: Id,
    name: &TagName,
    arch: Option<&str>,
) -> Result<(), Error> {
    arch.map(check).transpose()?;
    let mut retry = Retry::of("pushes to the same tag");
    loop {
        retry.pause().await?;
        let ids = [keys::pointer(container), keys::pointer(image)];
        let mut scene = Scene::load(app, credential, None, ids).await?;
        let Some(Target::Container(repository)) = target(&mut scene, container)? else {
            return Err(missing(&scene, DOING, "container"));
        };
        let hash = match target(&mut scene, image)? {
            Some(Target::Image(of, hash)) if of == repository => Some(hash),
            _ => None,
        };
        let (container_key, tag_key) = (keys::container(&repository), keys::tag(&repository, name));
        let image_key = hash.map(|hash| keys::image(&repository, &hash));
        let wanted = [container_key.clone(), tag_key.clone()].into_iter().chain(image_key.clone());
        scene.look(app, repository.entity(), wanted).await?;
        let container: Option<Container> = scene.take(&container_key)?;
        let tag: Option<Tag> = scene.take(&tag_key)?;
        let resource = container.as_ref().map_or_else(
            || Resource::Missing(Place::Repository(repository.clone())),
            |container| Resource::Tag {
                repository: repository.clone(),
                read_only: container.read_only,
                frozen: tag.as_ref().is_some_and(|tag| tag.frozen),
            },
        );
        let grant = scene.decide(Action::Retag, &resource);
        let grant = grant.map_err(|denial| Error::denied(denial, "container", DOING))?;
        let found = image_key.map(|key| scene.take::<Image>(&key)).transpose()?.flatten();
        let found = found.ok_or(Error::NotFound("image"))?;
        let written = match (&found.content, found.sealed) {
            (Some(content), _) => {
                let arch = arch_of(content, arch)?;
                has_room(tag.as_ref(), &arch)?;
                point(app, &grant, tag, (name, &arch), &found, content).await
            }
            (None, Some(_)) => {
                if let Some(arch) = arch {
                    has_room(tag.as_ref(), arch)?;
                }
                if found.intents.len() >= MAX_INTENTS && !found.intents.iter().any(|other| other.tag == *name) {
                    let why = format!("at most {MAX_INTENTS} tags while the image is being verified");
                    return Err(Error::Conflict(why));
                }
                intend(app, &grant, &found, name, arch).await
            }
            (None, None) => {
                return Err(Error::Conflict("the image's bytes have not arrived, it can't be tagged".to_owned()));
            }
        };
        if written? == Written::Done {
            return Ok(());
        }
    }
}

/// Bytes that the name of an architecture has at most.
const MAX_ARCH: usize = 32;
/// Architectures that a tag leads to at most, each with an image.
const MAX_ARCHS: usize = 32;

/// That a tag has room for an image of an architecture.
fn has_room(tag: Option<&Tag>, arch: &str) -> Result<(), Error> {
    if tag.is_none_or(|tag| tag.images.len() < MAX_ARCHS || tag.images.contains_key(arch)) {
        return Ok(());
    }
    Err(Error::Conflict(format!("a tag has images for at most {MAX_ARCHS} architectures")))
}

/// Checks what a client says of an architecture; an image's own is one of a few.
fn check(arch: &str) -> Result<(), Error> {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    if arch.len() <= MAX_ARCH && arch.bytes().all(good) {
        return Ok(());
    }
    let why = format!("an architecture has a name like `amd64`: at most {MAX_ARCH} letters, digits, `_`, `.` and `-`");
    Err(Error::Invalid(why))
}

/// The architecture that an image is tagged for: its own, or, where it says nothing, what the client believes.
fn arch_of(content: &Content, said: Option<&str>) -> Result<String, Error> {
    match (content.arch.as_str(), said) {
        ("", Some(arch)) => Ok(arch.to_owned()),
        (own, Some(arch)) if own != arch => {
            Err(Error::Invalid(format!("the image is for `{own}`, it can't be tagged for `{arch}`")))
        }
        (own, _) => Ok(own.to_owned()),
    }
}

async fn point(
    app: &App,
    grant: &Grant,
    tag: Option<Tag>,
    (name, arch): (&TagName, &str),
    image: &Image,
    content: &Content,
) -> Result<Written, StoreError> {
    let (mut writes, old) = place(app, tag, (name, arch), image, content)?;
    writes.push(Write::tagged(image.key(), [name]));
    writes.push(renamed(&image.repository, Condition::Present));
    if let Some(old) = old {
        writes.push(Write::untagged(keys::image(&image.repository, &old), [name]));
    }
    app.table.write(grant, writes).await
}

/// The writes that point a tag at an image for an architecture, and the image that the tag names no more.
fn place(
    app: &App,
    tag: Option<Tag>,
    (name, arch): (&TagName, &str),
    image: &Image,
    content: &Content,
) -> Result<(Vec<Write>, Option<Digest>), StoreError> {
    let condition = tag.as_ref().map_or(Condition::Absent, |tag| Condition::Version(tag.version));
    let (mut images, frozen, version) =
        tag.map_or_else(|| (BTreeMap::new(), false, 0), |tag| (tag.images, tag.frozen, tag.version));
    let old = images.insert(arch.to_owned(), tagged(image, content)).map(|old| old.hash);
    // The same image may stand under the tag for another architecture only if it says nothing of its own.
    let gone = old.filter(|old| *old != image.hash && !images.values().any(|other| other.hash == *old));
    let (named, manifests) = named(app, &image.repository, &images)?;
    let tag = Tag {
        repository: image.repository.clone(),
        name: name.clone(),
        images,
        named,
        frozen,
        updated: app.now(),
        last: arch.to_owned(),
        version: version + 1,
    };
    Ok((std::iter::once(Write::put(&tag, condition)?).chain(manifests).collect(), gone))
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

/// What a tag of these images, at least one, names for registry clients: the only one's manifest, or an index of all of
/// them. With the writes of these manifests: whoever sets a tag makes sure that what it names is there.
fn named(
    app: &App,
    repository: &Repository,
    images: &BTreeMap<String, Tagged>,
) -> Result<(Named, Vec<Write>), StoreError> {
    let mut rows = Vec::new();
    let mut listed: Vec<(&str, Digest, usize)> = Vec::new();
    for (arch, one) in images {
        let row = sif_manifest(app, repository, one);
        listed.push((arch, Digest::of(row.body.as_bytes()), row.body.len()));
        rows.push(row);
    }
    let children = listed.iter().map(|(_, digest, _)| (*digest).into()).collect();
    let several = listed.len() > 1;
    let body = manifest::index_of(listed);
    let index = Manifest {
        repository: repository.clone(),
        digest: Digest::of(body.as_bytes()).into(),
        media_type: manifest::OCI_INDEX.to_owned(),
        size: body.len() as u64,
        cost: 0,
        body,
        object: None,
        names: children,
        subject: None,
        image: None,
        created_by: None,
        created: app.now(),
    };
    rows.extend(several.then_some(index));
    let Some(last) = rows.last() else { return Err(StoreError::Unavailable("a tag without images".to_owned())) };
    let named = Named { digest: last.digest, media_type: last.media_type.clone(), size: last.size };
    let writes = rows.iter().map(|row| Write::put(row, Condition::None)).collect::<Result<Vec<_>, _>>()?;
    // The same image under two architectures has one manifest.
    Ok((named, Write::once(writes)))
}

/// Tags in groups, of which each can be changed in one transaction with some forty other writes: with a tag the manifests
/// are written of all images that it leads to.
pub(crate) fn groups<T: Borrow<Tag>>(tags: &[T]) -> Vec<&[T]> {
    const MOST: usize = 50;
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

/// The writes that take an image off a tag, which goes when that was its last one.
pub(crate) fn without(app: &App, tag: &Tag, hash: &Digest) -> Result<Vec<Write>, StoreError> {
    let condition = Condition::Version(tag.version);
    let mut images = tag.images.clone();
    images.retain(|_, image| image.hash != *hash);
    if images.is_empty() {
        return Ok(vec![Write::delete(tag.key(), condition)]);
    }
    let (named, manifests) = named(app, &tag.repository, &images)?;
    let left = Tag { images, named, version: tag.version + 1, ..tag.clone() };
    Ok(std::iter::once(Write::put(&left, condition)?).chain(manifests).collect())
}

/// The most tags that are remembered for an image whose bytes are being verified.
const MAX_INTENTS: usize = 20;
/// Writes that the tags of a commit may be, of the 100 that go together: the manifests of all that a tag leads to are
/// written with it.
const MAX_INTENDED: usize = 85;

/// Remembers a tag for an image whose bytes are being verified: the commit sets it, a rejection drops it.
async fn intend(
    app: &App,
    grant: &Grant,
    image: &Image,
    name: &TagName,
    arch: Option<&str>,
) -> Result<Written, StoreError> {
    let intent = Intent { tag: name.clone(), arch: arch.map(str::to_owned) };
    let mut sealed = Image { version: image.version + 1, ..image.clone() };
    sealed.intents.retain(|other| other.tag != *name);
    sealed.intents.push(intent);
    app.table.write(grant, vec![Write::put(&sealed, Condition::Version(image.version))?]).await
}

/// The writes that set the tags which were asked for while the bytes of `image` were being verified, for its commit.
/// Tags that were frozen or filled meanwhile stay, and those that the transaction has no room for. The tags that are set
/// are noted in the image.
pub(crate) async fn intended(app: &App, image: &mut Image, content: &Content) -> Result<Vec<Write>, Error> {
    let intents = std::mem::take(&mut image.intents);
    if intents.is_empty() {
        return Ok(Vec::new());
    }
    let keys_of = |intent: &Intent| keys::tag(&image.repository, &intent.tag);
    let mut rows = app.table.batch(intents.iter().map(keys_of)).await?;
    let mut writes = Vec::new();
    let mut gone: BTreeMap<Digest, Vec<TagName>> = BTreeMap::new();
    for intent in intents {
        let tag: Option<Tag> = rows.take(&keys::tag(&image.repository, &intent.tag))?;
        let Ok(arch) = arch_of(content, intent.arch.as_deref()) else { continue };
        if tag.as_ref().is_some_and(|tag| tag.frozen) || has_room(tag.as_ref(), &arch).is_err() {
            continue;
        }
        let (puts, old) = place(app, tag, (&intent.tag, &arch), image, content)?;
        let with = Write::once(writes.iter().cloned().chain(puts).collect());
        if with.len() + gone.len() + usize::from(old.is_some()) > MAX_INTENDED {
            tracing::warn!(tag = %intent.tag, repository = %image.repository, "a commit has no room for this tag");
            continue;
        }
        writes = with;
        if let Some(old) = old {
            gone.entry(old).or_default().push(intent.tag.clone());
        }
        image.named = true;
        image.tags.insert(intent.tag);
    }
    let untagged = gone.iter().map(|(old, tags)| Write::untagged(keys::image(&image.repository, old), tags));
    writes.extend(untagged);
    Ok(Write::once(writes))
}
