//! Manifests and the tags that name them.
//!
//! # Bringing one
//!
//! 1. Read it. Read the repository, its epoch and the tags that it shall have; then what the manifest names, and whether
//!    it is here already.
//! 2. What it needs must be there. A single layer that is a SIF image becomes a library image first, as if it had been
//!    pushed through the library: its header is read in a few ranges, and the image [commits](crate::service::commit).
//!    Of a manifest of an unknown media type nothing is needed, and it becomes nothing: it is kept as it is.
//! 3. In one transaction: the manifest, what a long one costs, its place among what refers to its subject, the tags, and
//!    the repository's epoch, which must be the one that was read: nothing that the manifest needs was removed meanwhile,
//!    and nobody else brought it and paid.
//!
//! # Removing one
//!
//! 1. In one transaction: the manifest, what it cost, its tags, its place among the referrers, and the library image
//!    that it is.
//! 2. Then what nothing names any more [goes](super::blob::free). Dying between leaves links that nothing names, which
//!    the sweeper takes.

use super::blob::{empty, free};
use super::{Code, Desk, Refused};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::manifest::Manifest as Document;
use crate::domain::{Digest, OciDigest, Repository, TagName, UserName};
use crate::error::Error;
use crate::rules::quota::manifest_cost;
use crate::rules::{Action, Grant, Place, Resource};
use crate::service::commit::{self, Known, named_sif, renamed, unchanged};
use crate::service::retry::{Retry, Try};
use crate::service::upload::facts;
use crate::service::{create, tag};
use crate::store::rows::{Account, Blob, Container, Image, Link, Manifest, Named, Naming, Referrer, Row, Tag, Tagged};
use crate::store::table::{Condition, Rows, Write, Written, pause};
use crate::store::{StoreError, keys};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Which manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// What the tag names.
    Tag(TagName),
    /// Exactly these bytes.
    Digest(OciDigest),
}

/// Bodies longer than this, in bytes, are kept in the bucket.
const MAX_BODY: usize = 256 << 10;
/// And those that would make a row longer than this, in bytes: it has at most 400 KB.
const MAX_ROW: usize = 350_000;
/// Bytes that a digest takes in a row, about.
const NAME: usize = 80;
/// Writes that go in one transaction.
const MAX_WRITES: usize = 100;
/// Tags that one request can set.
const MAX_TAGS: usize = 20;
/// How often a tag is read whose manifest is gone by then.
const LOOKS: u32 = 8;

fn unknown() -> Refused {
    Refused::code(Code::ManifestUnknown, "manifest unknown")
}

/// What there is to know of a manifest before its bytes. One round.
pub async fn find(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    reference: &Reference,
) -> Result<Named, Refused> {
    match reference {
        Reference::Tag(name) => {
            let key = keys::tag(repository, name);
            let mut desk = Desk::to_read(app, credential, repository, [key.clone()]).await?;
            desk.may_pull(Code::ManifestUnknown, "manifest")?;
            Ok(desk.scene.take::<Tag>(&key)?.ok_or_else(unknown)?.named)
        }
        Reference::Digest(digest) => {
            let row = read(app, credential, repository, digest).await?;
            Ok(Named { digest: row.digest, media_type: row.media_type, size: row.size })
        }
    }
}

/// A manifest with its bytes. One round by digest, two by tag; more while it is deleted, or the tag moves and what it
/// named is deleted.
pub async fn get(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    reference: &Reference,
) -> Result<(Named, Bytes), Refused> {
    for attempt in 0..LOOKS {
        pause(attempt).await;
        let row = match reference {
            Reference::Digest(digest) => read(app, credential, repository, digest).await?,
            Reference::Tag(_) => named_by(app, credential, repository, reference).await?,
        };
        let bytes = match &row.object {
            Some(object) => match app.objects.read(object, 0..row.size).await {
                // It was deleted since its row was read.
                Err(StoreError::NoObject) => continue,
                read => read?,
            },
            None => row.body.into_bytes().into(),
        };
        return Ok((Named { digest: row.digest, media_type: row.media_type, size: row.size }, bytes));
    }
    Err(Error::Unavailable(StoreError::NoObject).into())
}

/// The manifest that a tag names. Where it is gone, the tag has moved or gone since it was read, and is read again.
async fn named_by(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    tag: &Reference,
) -> Result<Manifest, Refused> {
    for attempt in 0..LOOKS {
        pause(attempt).await;
        let named = find(app, credential, repository, tag).await?;
        if let Some(row) = app.table.get(keys::manifest(repository, &named.digest)).await? {
            return Ok(row);
        }
    }
    Err(Error::Unavailable(StoreError::Unavailable("the tag moves faster than it can be read".to_owned())).into())
}

async fn read(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<Manifest, Refused> {
    let key = keys::manifest(repository, digest);
    let mut desk = Desk::to_read(app, credential, repository, [key.clone()]).await?;
    desk.may_pull(Code::ManifestUnknown, "manifest")?;
    desk.scene.take::<Manifest>(&key)?.ok_or_else(unknown)
}

/// A manifest that was taken.
#[derive(Debug)]
pub struct Put {
    /// Its digest.
    pub digest: OciDigest,
    /// What it says something of.
    pub subject: Option<OciDigest>,
    /// The tags that it was given.
    pub tags: Vec<TagName>,
}

/// A manifest as it comes.
#[derive(Debug)]
pub struct Coming<'a> {
    /// Under which name.
    pub reference: &'a Reference,
    /// Tags beside that.
    pub tags: Vec<TagName>,
    /// Its media type.
    pub media_type: &'a str,
    /// Its bytes.
    pub bytes: Bytes,
}

/// That the caller may bring manifests to a repository. For whoever wants to know before there are any bytes; taking
/// them decides anew.
pub async fn may_put(app: &App, credential: &Credential, repository: &Repository) -> Result<(), Refused> {
    Desk::to_write(app, credential, repository, []).await?.may_push().map(drop)
}

/// Takes a manifest.
pub async fn put(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    coming: Coming<'_>,
) -> Result<Put, Refused> {
    // Media types are the same in any case, and are kept in one.
    let media_type = coming.media_type.to_ascii_lowercase();
    let media_type = media_type.as_str();
    let (body, document, digest, tags) = match read_coming(media_type, &coming) {
        Ok(read) => read,
        Err(refused) => {
            // What is wrong with it is said to those who may push it.
            Desk::to_write(app, credential, repository, []).await?.may_push()?;
            return Err(refused);
        }
    };
    let mut ours = None;
    let read = Read { digest, media_type, body, bytes: &coming.bytes };
    let done = Box::pin(put_read(app, credential, repository, read, &document, &tags, &mut ours)).await;
    if done.is_err()
        && let Some((grant, object)) = ours
    {
        // Nobody pays for it. If it is in use, an answer was lost on its way.
        let row: Result<Option<Manifest>, _> = app.table.get(keys::manifest(repository, &digest)).await;
        if row.is_ok_and(|row| row.and_then(|row| row.object).as_ref() != Some(&object)) {
            let _ = app.objects.delete(&grant, &object).await;
        }
    }
    done.map(|()| Put { digest, subject: document.subject, tags })
}

/// A manifest that was read.
#[derive(Clone, Copy)]
struct Read<'a> {
    digest: OciDigest,
    media_type: &'a str,
    body: &'a str,
    /// The same as `body`.
    bytes: &'a Bytes,
}

/// Takes a manifest that was read. Leaves in `ours` an object that it brought, if that may be nobody's.
async fn put_read(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    read: Read<'_>,
    document: &Document,
    tags: &[TagName],
    ours: &mut Option<(Grant, String)>,
) -> Result<(), Refused> {
    let mut retry = Retry::of("pushes to the same repository");
    loop {
        retry.pause().await?;
        let mut putting = prepare(app, credential, repository, read, document, tags).await?;
        if let Some(before) = &putting.before
            && before.media_type != read.media_type
        {
            let why = format!("these bytes are here as {} already, they can't be two things", before.media_type);
            return Err(Refused::Code(Code::ManifestInvalid, why));
        }
        if let Some(hash) = document.sif {
            match become_image(app, &mut putting, hash).await? {
                Try::Done(()) => {}
                Try::Lost => continue,
            }
        } else if !putting.children.is_empty() {
            list_images(app, &mut putting).await?;
        }
        let object = object_for(app, &putting, read, ours).await?;
        let grant = putting.grant.clone();
        let writes = writes(app, putting, read, document, object, tags)?;
        if writes.len() > MAX_WRITES {
            return Err(Refused::code(Code::TooLarge, "this changes too much at once: set its tags one by one"));
        }
        let written = app.table.write(&grant, writes).await;
        if written.is_err() {
            // It may have been done.
            *ours = None;
        }
        if written? == Written::Done {
            return Ok(());
        }
    }
}

/// The object that holds the bytes, where they are too long for a row: that of the row there is, as long as it is there
/// itself, or else a new one.
async fn object_for(
    app: &App,
    putting: &Putting,
    Read { body, bytes, .. }: Read<'_>,
    ours: &mut Option<(Grant, String)>,
) -> Result<Option<String>, Refused> {
    let mut theirs = putting.before.as_ref().and_then(|before| before.object.clone());
    if let Some(object) = &theirs
        && app.objects.size(object).await?.is_none()
    {
        theirs = None;
    }
    // The digests that it names stand in its row in any case.
    let short = body.len() <= MAX_BODY && body.len() + putting.names.len() * NAME <= MAX_ROW;
    if short || theirs.is_some() {
        // Somebody was faster, or what it names went: ours would be nobody's.
        if let Some((grant, ours)) = ours.take().filter(|(_, ours)| theirs.as_ref() != Some(ours)) {
            let _ = app.objects.delete(&grant, &ours).await;
        }
        return Ok(theirs);
    }
    if ours.is_none() {
        let (grant, object) = (putting.grant.clone(), app.new_object()?);
        *ours = Some((grant, object.clone()));
        app.objects.put(&putting.grant, &object, bytes.clone()).await?;
    }
    Ok(ours.as_ref().map(|(_, object)| object.clone()))
}

/// The bytes of a manifest as text, what they say, their digest, and all tags that it shall have.
fn read_coming<'a>(
    media_type: &str,
    coming: &'a Coming<'_>,
) -> Result<(&'a str, Document, OciDigest, Vec<TagName>), Refused> {
    let invalid = |why: String| Refused::Code(Code::ManifestInvalid, why);
    let body = std::str::from_utf8(&coming.bytes).map_err(|_| invalid("the manifest is not UTF-8".to_owned()))?;
    let document = Document::read(media_type, body.as_bytes()).map_err(|error| invalid(error.to_string()))?;
    let mut tags = coming.tags.clone();
    let digest = match coming.reference {
        Reference::Digest(digest) => *digest,
        Reference::Tag(name) => {
            tags.push(name.clone());
            Digest::of(body.as_bytes()).into()
        }
    };
    if digest.like(body.as_bytes()) != digest {
        return Err(Refused::code(Code::DigestInvalid, "the manifest has another digest than its URL says"));
    }
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > MAX_TAGS {
        return Err(Refused::code(Code::TooLarge, format!("at most {MAX_TAGS} tags can be set at once")));
    }
    Ok((body, document, digest, tags))
}

/// What is known before a manifest is written.
struct Putting {
    grant: Grant,
    container: Container,
    before: Option<Manifest>,
    /// The write that charges for it, where it is new.
    paid: Option<Write>,
    /// What was charged for it.
    cost: u64,
    old: BTreeMap<TagName, Tag>,
    /// What it names and that is there.
    names: Vec<OciDigest>,
    /// The library images that it lists, by its children.
    children: BTreeSet<Digest>,
    /// The library images that it is, or lists.
    images: Vec<(Image, Tagged)>,
}

async fn prepare(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    Read { digest, body, .. }: Read<'_>,
    document: &Document,
    tags: &[TagName],
) -> Result<Putting, Refused> {
    let manifest_key = keys::manifest(repository, &digest);
    let tag_keys: Vec<_> = tags.iter().map(|name| keys::tag(repository, name)).collect();
    // Config and layers are blobs, what an index lists are manifests; which is which is seen by what is there.
    let all: Vec<OciDigest> = document.needs.iter().chain(&document.mentions).copied().collect();
    let mut places: Vec<_> =
        all.iter().flat_map(|name| [keys::link(repository, name), keys::manifest(repository, name)]).collect();
    places.extend([keys::marker(repository), manifest_key.clone()]);
    let cost = manifest_cost(body.len() as u64);
    let account_key = (cost > 0).then(|| keys::account(repository.entity()));
    let first = account_key.clone().into_iter().chain(tag_keys.iter().cloned());
    let mut desk = Desk::to_write(app, credential, repository, first).await?;
    let grant = desk.may_push()?;
    let mut old = BTreeMap::new();
    for (name, key) in tags.iter().zip(&tag_keys) {
        let tag: Option<Tag> = desk.scene.take(key)?;
        let (read_only, frozen) = (false, tag.as_ref().is_some_and(|tag| tag.frozen));
        let resource = Resource::Tag { repository: repository.clone(), read_only, frozen };
        desk.decide(Action::Retag, &resource, Code::ManifestUnknown, "tag")?;
        old.extend(tag.map(|tag| (name.clone(), tag)));
    }
    // After the epoch, which a batch might read before or after these: a batch is no snapshot.
    let mut rows = Rows::default();
    for some in places.chunks(100) {
        rows.extend(app.table.batch(some.iter().cloned()).await?);
    }
    let there = |name: &OciDigest| {
        let (link, manifest) = (keys::link(repository, name), keys::manifest(repository, name));
        let marked = *name == empty() && {
            let marker = keys::marker(repository);
            rows.has(&marker)
        };
        marked || [&link, &manifest].iter().any(|key| rows.has(key))
    };
    if let Some(missing) = document.needs.iter().find(|name| !there(name)) {
        return Err(Refused::code(Code::ManifestBlobUnknown, format!("{missing} is not in this repository")));
    }
    let names = all.iter().filter(|name| there(name)).copied().collect();
    let mut children = BTreeSet::new();
    for name in &all {
        let child: Option<Manifest> = rows.take(&keys::manifest(repository, name))?;
        children.extend(child.and_then(|child| child.image));
    }
    let before: Option<Manifest> = rows.take(&manifest_key)?;
    let cost = before.as_ref().map_or(cost, |before| before.cost);
    let paid = match account_key.filter(|_| before.is_none()) {
        Some(key) => {
            let account: Account = desk.scene.take(&key)?.ok_or(Error::NotFound("entity"))?;
            Some(commit::paid(&account, cost)?)
        }
        None => None,
    };
    let unmade = desk.container.is_none();
    let mut container = desk.container(app, &grant).await?;
    if unmade {
        // If somebody else has made it since we looked, what was read may be from before their first push.
        container.epoch = 0;
    }
    Ok(Putting { grant, container, before, paid, cost, old, names, children, images: Vec::new() })
}

/// Makes the library image of a manifest whose layer is one, in a repository that the library can spell.
async fn become_image(app: &App, putting: &mut Putting, hash: Digest) -> Result<Try<()>, Refused> {
    let Putting { grant, container, .. } = &*putting;
    if container.collection_id.is_none() {
        return Ok(Try::Done(()));
    }
    let repository = &container.repository;
    let (image_key, blob_key, link_key) =
        (keys::image(repository, &hash), keys::blob(&hash), keys::link(repository, &hash.into()));
    let mut rows = app.table.batch([image_key.clone(), blob_key.clone(), link_key.clone()]).await?;
    let image: Option<Image> = rows.take(&image_key)?;
    let image = match image {
        Some(image) if image.content.is_some() => image,
        image => {
            let (Some(blob), Some(link)) = (rows.take::<Blob>(&blob_key)?, rows.take::<Link>(&link_key)?) else {
                return Ok(Try::Lost);
            };
            let said = match &blob.facts {
                Some(said) => said.clone(),
                // What calls itself a SIF image and is none stays an artifact like any other.
                None => match facts(app, &link.object, link.size).await {
                    Ok(said) => said,
                    Err(Error::Invalid(_)) => return Ok(Try::Done(())),
                    Err(error) => return Err(error.into()),
                },
            };
            let image = match image {
                Some(image) => image,
                None => create::begin(app, grant, container, hash, String::new()).await?,
            };
            let known = Known::verified(hash, link.object, link.size, said);
            commit::known(app, grant, image, known).await?;
            // That counted the epoch on, and what was read before may have changed with it: read again.
            return Ok(Try::Lost);
        }
    };
    let tagged = image.content.as_ref().map(|content| tag::tagged(&image, content));
    putting.images.extend(tagged.map(|tagged| (image, tagged)));
    Ok(Try::Done(()))
}

/// Looks the library images up that an index lists, so that its tags lead to them by their architecture.
async fn list_images(app: &App, putting: &mut Putting) -> Result<(), Refused> {
    let repository = putting.container.repository.clone();
    let children: Vec<Digest> = putting.children.iter().copied().collect();
    for some in children.chunks(100) {
        let mut rows = app.table.batch(some.iter().map(|hash| keys::image(&repository, hash))).await?;
        for hash in some {
            let image: Option<Image> = rows.take(&keys::image(&repository, hash))?;
            let found = image.and_then(|image| {
                let tagged = image.content.as_ref().map(|content| tag::tagged(&image, content));
                tagged.map(|tagged| (image, tagged))
            });
            putting.images.extend(found);
        }
    }
    Ok(())
}

/// The writes that put a manifest, and its tags.
fn writes(
    app: &App,
    putting: Putting,
    Read { digest, media_type, body, .. }: Read<'_>,
    document: &Document,
    object: Option<String>,
    tags: &[TagName],
) -> Result<Vec<Write>, Error> {
    let Putting { grant, container, before, paid, cost, old, mut names, images: listed, .. } = putting;
    let repository = container.repository.clone();
    let size = body.len() as u64;
    // A manifest keeps what it says something of.
    names.extend(document.subject);
    let row = Manifest {
        repository: repository.clone(),
        digest,
        media_type: media_type.to_owned(),
        size,
        cost,
        body: if object.is_some() { String::new() } else { body.to_owned() },
        object,
        names,
        subject: document.subject,
        image: document.sif.and(listed.first().map(|(image, _)| image.hash)),
        created_by: before.as_ref().map_or_else(|| grant.by().cloned(), |before| before.created_by.clone()),
        created: before.as_ref().map_or_else(|| app.now(), |before| before.created),
    };
    let mut writes = vec![renamed(&repository, unchanged(&container)), Write::put(&row, Condition::None)?];
    if let Some(object) = &row.object {
        // One that was ours and was deleted with the row, if an answer was lost on its way, is none to name again.
        writes.push(Write::check(keys::condemned(object), Condition::Absent));
    }
    writes.extend(paid);
    if let Some(subject) = document.subject {
        let referrer = Referrer {
            repository: repository.clone(),
            subject,
            digest,
            artifact_type: document.artifact_type.clone(),
            descriptor: document.descriptor(media_type, &digest, body.len()),
        };
        writes.push(Write::put(&referrer, Condition::None)?);
    }
    let images: BTreeMap<String, Tagged> =
        listed.iter().map(|(_, tagged)| (tagged.content.arch.clone(), tagged.clone())).collect();
    let mut labels: BTreeMap<Digest, Vec<TagName>> = BTreeMap::new();
    for name in tags {
        let old = old.get(name);
        let condition = old.map_or(Condition::Absent, |old| Condition::Version(old.version));
        let gone = old.into_iter().flat_map(|old| old.images.values()).map(|one| one.hash);
        for hash in gone.filter(|hash| !images.values().any(|one| one.hash == *hash)) {
            let tags = labels.entry(hash).or_default();
            if !tags.contains(name) {
                tags.push(name.clone());
            }
        }
        let tag = Tag {
            repository: repository.clone(),
            name: name.clone(),
            last: images.keys().next().cloned().unwrap_or_default(),
            images: images.clone(),
            named: Named { digest, media_type: media_type.to_owned(), size },
            frozen: old.is_some_and(|old| old.frozen),
            updated: app.now(),
            version: old.map_or(0, |old| old.version + 1),
        };
        writes.push(Write::put(&tag, condition)?);
    }
    writes.extend(labels.iter().map(|(hash, tags)| Write::untagged(keys::image(&repository, hash), tags)));
    if !tags.is_empty() {
        let hashes: BTreeSet<Digest> = images.values().map(|one| one.hash).collect();
        writes.extend(hashes.iter().map(|hash| Write::tagged(keys::image(&repository, hash), tags)));
    }
    Ok(writes)
}

/// All manifests of a repository, without their bytes.
pub(crate) async fn manifests(app: &App, repository: &Repository) -> Result<Vec<Naming>, StoreError> {
    let mut all = Vec::new();
    app.table.each(keys::manifests(repository), Naming::ATTRIBUTES, |row| all.push(row)).await?;
    Ok(all)
}

/// The writes that remove a manifest's row, what it cost, and what stands beside it.
pub(crate) fn gone(app: &App, row: &Naming) -> Result<Vec<Write>, Error> {
    let mut writes = vec![Write::delete(keys::manifest(&row.repository, &row.digest), Condition::Present)];
    writes.extend(commit::refunded(row));
    if let Some(subject) = &row.subject {
        writes.push(Write::delete(keys::referrer(&row.repository, subject, &row.digest), Condition::None));
    }
    if let Some(object) = &row.object {
        writes.push(commit::condemn(app, object, None)?);
    }
    Ok(writes)
}

/// Removes a tag, or a manifest with its tags.
pub async fn remove(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    reference: &Reference,
) -> Result<(), Refused> {
    let mut retry = Retry::of("changes of the same repository");
    loop {
        retry.pause().await?;
        let removed = match reference {
            Reference::Tag(name) => remove_tag(app, credential, repository, name).await?,
            Reference::Digest(digest) => Box::pin(remove_manifest(app, credential, repository, digest)).await?,
        };
        if let Try::Done(()) = removed {
            return Ok(());
        }
    }
}

/// The manifest stays: others may name it, or it may be asked for by its digest.
async fn remove_tag(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    name: &TagName,
) -> Result<Try<()>, Refused> {
    let key = keys::tag(repository, name);
    let mut desk = Desk::to_write(app, credential, repository, [key.clone()]).await?;
    let tag: Option<Tag> = desk.scene.take(&key)?;
    let tag = could_remove(&desk, tag)?;
    let read_only = desk.container.as_ref().is_some_and(|container| container.read_only);
    let makers: Vec<Option<UserName>> = match &tag {
        tag if tag.images.is_empty() => {
            let named: Option<Manifest> = app.table.get(keys::manifest(repository, &tag.named.digest)).await?;
            vec![named.and_then(|named| named.created_by)]
        }
        tag => tag.images.values().map(|one| one.created_by.clone()).collect(),
    };
    let own = makers.iter().all(|maker| maker.is_some() && maker.as_ref() == desk.scene.caller.user());
    let resource = Resource::Image { repository: repository.clone(), read_only, own, frozen: tag.frozen };
    let grant = desk.decide(Action::Delete, &resource, Code::ManifestUnknown, "tag")?;
    let mut writes = vec![Write::delete(key, Condition::Version(tag.version))];
    let hashes: BTreeSet<Digest> = tag.images.values().map(|one| one.hash).collect();
    writes.extend(hashes.iter().map(|hash| Write::untagged(keys::image(repository, hash), [name])));
    Ok(Try::of(&app.table.write(&grant, writes).await?, ()))
}

/// The row, if there is one and the caller could delete something there. Others are refused before more is read, whether
/// it is there or not.
fn could_remove<R>(desk: &Desk, row: Option<R>) -> Result<R, Refused> {
    let missing = Resource::Missing(Place::Repository(desk.repository.clone()));
    match desk.decide(Action::Delete, &missing, Code::ManifestUnknown, "manifest") {
        Err(Refused::Code(Code::ManifestUnknown, _)) | Ok(_) => row.ok_or_else(unknown),
        Err(refused) => Err(refused),
    }
}

async fn remove_manifest(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<Try<()>, Refused> {
    let key = keys::manifest(repository, digest);
    let mut desk = Desk::to_write(app, credential, repository, [key.clone()]).await?;
    let row: Option<Manifest> = desk.scene.take(&key)?;
    could_remove(&desk, row)?;
    let container = desk.container.clone().ok_or_else(unknown)?;
    let (tags, manifests) =
        futures::try_join!(app.table.query_all::<Tag>(keys::tags(repository)), manifests(app, repository))?;
    // As it is after the epoch was read.
    let row = manifests.iter().find(|row| row.digest == *digest).ok_or_else(unknown)?;
    let made = |maker: &Option<UserName>| maker.is_some() && maker.as_ref() == desk.scene.caller.user();
    let mine = made(&row.created_by);
    let frozen = tags.iter().any(|tag| tag.frozen && (names(tag, row) || reaches(tag, &manifests, digest)));
    let decide = |own: bool| {
        let (repository, read_only) = (repository.clone(), container.read_only);
        let resource = Resource::Image { repository, read_only, own, frozen };
        desk.decide(Action::Delete, &resource, Code::ManifestUnknown, "manifest")
    };
    let grant = decide(mine)?;
    let mut writes = gone(app, row)?;
    writes.push(renamed(repository, unchanged(&container)));
    let mut freed = row.names.clone();
    let image: Option<Image> = match row.image {
        Some(hash) => app.table.get(keys::image(repository, &hash)).await?,
        None => None,
    };
    // A library image has a manifest of its own beside those that were pushed. It goes with that one, if no other names
    // it; or with the last of the others, unless its own is there and a tag leads to it. Without any it can't stay, since
    // nothing would name its bytes.
    let own = image.as_ref().and_then(|image| {
        image.content.as_ref().map(|content| named_sif(repository, &image.hash, content.size).1.digest)
    });
    let has = |tag: &Tag, hash: Digest| tag.images.values().any(|one| one.hash == hash);
    let image = image.filter(|image| {
        let other =
            |other: &Naming| other.digest != *digest && Some(other.digest) != own && other.image == Some(image.hash);
        let tagged = |tag: &Tag| tag.named.digest != *digest && has(tag, image.hash);
        let has_own = own != Some(*digest) && manifests.iter().any(|other| Some(other.digest) == own);
        let stays = manifests.iter().any(other) || has_own && tags.iter().any(tagged);
        !stays
    });
    // Who may delete their own manifest may not with it delete what somebody else pushed.
    if let Some(image) = &image {
        decide(mine && made(&image.created_by))?;
    }
    let without = image.as_ref().map(|image| image.hash);
    let concerned = |tag: &&Tag| tag.named.digest == *digest || without.is_some_and(|hash| has(tag, hash));
    let concerned: Vec<&Tag> = tags.iter().filter(concerned).collect();
    let mut groups = tag::groups(&concerned);
    let last = groups.pop().unwrap_or_default();
    if !groups.is_empty() {
        // More than one transaction can hold: take some off, and begin again.
        for some in groups {
            if app.table.write(&grant, off(app, repository, some, digest, without, true)?).await? != Written::Done {
                break;
            }
        }
        return Ok(Try::Lost);
    }
    writes.extend(off(app, repository, last, digest, without, false)?);
    if let Some(image) = image {
        writes.push(Write::delete(image.key(), Condition::Version(image.version)));
        writes.push(Write::delete(keys::pointer(image.id), Condition::None));
        writes.push(Write::delete(keys::details(repository, &image.hash), Condition::None));
        if let Some(own) = own.filter(|own| own != digest) {
            writes.push(Write::delete(keys::manifest(repository, &own), Condition::None));
        }
        freed.push(image.hash.into());
    }
    if app.table.write(&grant, Write::once(writes)).await? != Written::Done {
        return Ok(Try::Lost);
    }
    if let Some(object) = &row.object {
        // It is condemned, so what fails here the sweeper does; but nobody was ever given a URL of it, and until then
        // nobody would pay for it.
        let _ = app.objects.delete(&grant, object).await;
    }
    free(app, &grant, repository, &freed, app.now()).await?;
    Ok(Try::Done(()))
}

/// The writes that take a manifest, and the library image that goes with it, off some tags. `stays` is whether the
/// image's row is still there after them, and has to be told.
fn off(
    app: &App,
    repository: &Repository,
    tags: &[&Tag],
    digest: &OciDigest,
    gone: Option<Digest>,
    stays: bool,
) -> Result<Vec<Write>, StoreError> {
    let mut writes = Vec::new();
    let mut labels: BTreeMap<Digest, BTreeSet<&TagName>> = BTreeMap::new();
    for tag in tags {
        let hashes = tag.images.values().map(|one| one.hash);
        if tag.named.digest == *digest {
            writes.push(Write::delete(tag.key(), Condition::Version(tag.version)));
            for hash in hashes.filter(|hash| stays || Some(*hash) != gone) {
                labels.entry(hash).or_default().insert(&tag.name);
            }
        } else if let Some(hash) = gone {
            writes.extend(tag::without(app, tag, &hash)?);
            if stays {
                labels.entry(hash).or_default().insert(&tag.name);
            }
        }
    }
    let told = labels.into_iter().map(|(hash, tags)| Write::untagged(keys::image(repository, &hash), tags));
    writes.extend(told);
    Ok(Write::once(writes))
}

/// Whether an index that a tag names leads to a manifest.
fn reaches(tag: &Tag, manifests: &[Naming], digest: &OciDigest) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![tag.named.digest];
    while let Some(one) = next.pop() {
        if one == *digest {
            return true;
        }
        if seen.insert(one) {
            let named = manifests.iter().filter(|other| other.digest == one).flat_map(|other| &other.names);
            next.extend(named);
        }
    }
    false
}

/// Whether a tag names a manifest, or the library image that it is.
fn names(tag: &Tag, row: &Naming) -> bool {
    tag.named.digest == row.digest || row.image.is_some_and(|hash| tag.images.values().any(|one| one.hash == hash))
}
