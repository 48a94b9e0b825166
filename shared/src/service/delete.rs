//! Deleting an image: it removes the image, its tags and its link, and gives back its cost, all at once.
//!
//! 1. Read the tag or image row; then the image, charge, account and blob, and all tags and manifests that lead to the
//!    image.
//! 2. If more tags or manifests name the image than fit into one transaction, remove those first, a batch at a time.
//! 3. In one transaction, each row conditional on what was read: delete the tags, the image, its id, details and
//!    manifest. Unless another manifest names the bytes, delete the link too: the charge counts a link less, and is
//!    refunded with the last one; the blob counts an entity less, and with the last one its row is deleted and its
//!    object condemned. Also delete the manifests of the image that registry clients pushed, and give back the cost of
//!    long ones. The repository's epoch must be the one that was read; otherwise something may have come to name the
//!    bytes since. *Lost*: start again.
//! 4. Anything that only those manifests named is [freed](super::links::free). *Dies before*: the sweeper does it.

use super::access::Access;
use super::links;
use super::pull::{End, Way};
use super::retry::{Retry, Try};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::backlinks;
use crate::changes::blobs::{self, BlobRows, Unlinking};
use crate::changes::frozen::Protected;
use crate::changes::tags::{self, Untagging};
use crate::changes::{Changes, images, manifests};
use crate::domain::reference::LibraryRef;
use crate::domain::{Digest, OciDigest, Repository, Selector};
use crate::error::Error;
use crate::rules::{Action, Denial, Grant, Place, Resource};
use crate::store::keys;
use crate::store::rows::{Container, EventKind, Image, ManifestLinks, Tag};
use crate::store::table::Written;
use std::collections::BTreeSet;

const DOING: &str = "delete this image";
/// The most writes for manifests that registry clients pushed, in one transaction with the rest.
const MANIFESTS: usize = 40;

/// Deletes the image that a reference names, with all its tags for its architecture in that container.
pub async fn image(
    app: &App,
    credential: &Credential,
    reference: &LibraryRef,
    arch: Option<&str>,
) -> Result<(), Error> {
    let mut retry = Retry::of("changes of the same image");
    loop {
        retry.pause().await?;
        let target = find(app, credential, reference, arch).await?;
        let deleting = Box::pin(Deleting::load(app, target, &reference.selector)).await?;
        if let Try::Done(()) = Box::pin(deleting.delete(app)).await? {
            return Ok(());
        }
    }
}

/// The image that a caller who could delete something there asks for. It may not exist.
struct Target {
    access: Access,
    container: Container,
    hash: Digest,
}

/// Finds the image in an existing container, for callers who could delete something in it.
async fn find(app: &App, credential: &Credential, reference: &LibraryRef, arch: Option<&str>) -> Result<Target, Error> {
    let way = Way::of(reference);
    let mut access = way.load(app, credential).await?;
    let (container, End { hash, several }) = (way.container(&mut access)?, way.end(&mut access, arch)?);
    // Other callers are refused before more is read, whether the image exists or not.
    let place = Place::Repository(reference.repository.clone());
    let denial = access.decide(Action::Delete, &Resource::Missing(place)).err();
    match (container, hash, denial) {
        (Some(_), _, Some(Denial::Hidden)) if several => {
            Err(Error::Invalid("the tag has images for several architectures, say which one to delete".to_owned()))
        }
        (Some(container), Some(hash), Some(Denial::Hidden)) => Ok(Target { access, container, hash }),
        _ => Err(denial.map_or(Error::NotFound("image"), |denial| Error::denied(denial, "image", DOING))),
    }
}

/// An image that may be deleted, with everything that names it.
struct Deleting {
    grant: Grant,
    container: Container,
    image: Image,
    found: BlobRows,
    /// The tags that point to it. The requested one goes last: if not all can be removed at once, it still leads here.
    tags: Vec<Tag>,
    /// The manifests that lead to it.
    manifests: Vec<ManifestLinks>,
}

impl Deleting {
    async fn load(app: &App, target: Target, asked_for: &Selector) -> Result<Self, Error> {
        let Target { access, container, hash } = target;
        let repository = &container.repository;
        let image_key = keys::image(repository, &hash);
        let blob_keys = BlobRows::keys(repository, &hash, &hash.into());
        let wanted = blob_keys.iter().cloned().chain([image_key.clone()]);
        let mut rows = app.table.batch(wanted).await?;
        let image: Option<Image> = rows.take(&image_key)?;
        let its_tags = image.iter().flat_map(|image| image.tags.iter().cloned());
        let links::Leading { mut tags, manifests } =
            links::leading_to(app, repository, [hash.into()], its_tags).await?;
        let frozen = Protected::by(&tags, &manifests).image(&hash);
        // Those that name it in another form go as well, though an image without an architecture is not in their row.
        let its: BTreeSet<OciDigest> =
            manifests.iter().filter(|row| row.image == Some(hash)).map(|row| row.digest).collect();
        tags.retain(|tag| its.contains(&tag.named.digest) || tag.images.values().any(|one| one.hash == hash));
        tags.sort_by_key(|tag| matches!(asked_for, Selector::Tag(name) if *name == tag.name));
        // Manifests of it that others pushed would go with it.
        let implied = image.as_ref().and_then(images::own_manifest);
        let mut of_it = manifests.iter().filter(|row| row.image == Some(hash) && Some(row.digest) != implied);
        let manifests_too = of_it.all(|row| row.created_by.as_ref().is_none_or(|by| access.caller.is(by)));
        let resource = image.as_ref().map_or_else(
            || Resource::Missing(Place::Repository(repository.clone())),
            |image| Resource::Image {
                repository: repository.clone(),
                read_only: container.read_only,
                own: image.created_by.as_ref().is_some_and(|by| access.caller.is(by)) && manifests_too,
                frozen,
            },
        );
        let grant = access.require(Action::Delete, &resource, "image", DOING)?;
        let image = image.ok_or(Error::NotFound("image"))?;
        let found = BlobRows::take(&mut rows, &blob_keys)?;
        Ok(Self { grant, container, image, found, tags, manifests })
    }

    fn repository(&self) -> &Repository {
        &self.container.repository
    }

    async fn delete(self, app: &App) -> Result<Try<()>, Error> {
        let mut groups = tags::groups(&self.tags);
        let last = groups.pop().unwrap_or_default();
        if !groups.is_empty() {
            let changes: Result<Vec<_>, _> = groups.iter().map(|some| self.untagged(some, true, app)).collect();
            return links::one_by_one(app, &self.grant, &self.container, changes?).await;
        }
        // The manifests that registry clients pushed of it are deleted too: they are the same image in another form.
        let own = images::own_manifest(&self.image);
        let of_it = |row: &&ManifestLinks| row.image == Some(self.image.hash) && Some(row.digest) != own;
        let mut pushed: Vec<&ManifestLinks> = self.manifests.iter().filter(of_it).collect();
        pushed.sort_by_key(|pushed| last.iter().any(|tag| tag.named.digest == pushed.digest));
        let mut room = MANIFESTS;
        let fit = pushed.iter().rev().take_while(|row| {
            let left = room.checked_sub(writes(row));
            room = left.unwrap_or(room);
            left.is_some()
        });
        let (first, rest) = pushed.split_at(pushed.len() - fit.count());
        if !first.is_empty() {
            // More than one transaction can hold, because the manifests behind a tag are written with it.
            return self.remove_first(app, first, last).await;
        }
        let (changes, freed) = self.changes(app, last, rest)?;
        if app.commit(&self.grant, changes).await? != Written::Done {
            return Ok(Try::Lost);
        }
        links::free_after(app, &self.grant, self.repository(), &freed).await;
        Ok(Try::Done(()))
    }

    /// Removes the image from some tags.
    fn untagged(&self, tags: &[Tag], image_stays: bool, app: &App) -> Result<Changes, Error> {
        tags::untag(tags, Untagging { manifest: None, image: Some(self.image.hash), image_stays, now: app.now() })
    }

    /// Removes manifests of the image that do not fit into its transaction, each with the tags that name it.
    async fn remove_first(&self, app: &App, first: &[&ManifestLinks], last: &[Tag]) -> Result<Try<()>, Error> {
        let mut container = self.container.clone();
        let place = Place::Repository(container.repository.clone());
        for pushed in first {
            let mut changes = Changes::unrecorded().with([manifests::epoch_advanced_from(&container)]);
            container.epoch += 1;
            changes.extend(manifests::removed(pushed, app.now())?);
            changes.record(&place, EventKind::ManifestRemoved { digest: pushed.digest });
            // At most those of one group: what is left of them stays in no round without what it names.
            let naming: Vec<&Tag> = last.iter().filter(|tag| tag.named.digest == pushed.digest).collect();
            let gone = Untagging { manifest: Some(&pushed.digest), image: None, image_stays: true, now: app.now() };
            changes.merge(tags::untag(&naming, gone)?);
            if app.commit(&self.grant, changes).await? != Written::Done {
                return Ok(Try::Lost);
            }
        }
        let names: Vec<OciDigest> = first.iter().flat_map(|pushed| &pushed.names).copied().collect();
        links::free_after(app, &self.grant, self.repository(), &names).await;
        Ok(Try::Lost)
    }

    /// The changes that delete the image with these tags and pushed manifests, and the digests that may then be freed.
    fn changes(&self, app: &App, tags: &[Tag], pushed: &[&ManifestLinks]) -> Result<(Changes, Vec<OciDigest>), Error> {
        let (repository, image, now) = (self.repository(), &self.image, app.now());
        let place = Place::Repository(repository.clone());
        let own = images::own_manifest(image);
        let mut changes = images::removed(image, self.manifests.iter().find(|row| Some(row.digest) == own));
        changes.merge(self.untagged(tags, false, app)?);
        changes.add(manifests::epoch_advanced_from(&self.container));
        let Some(own) = own else { return Ok((changes, Vec::new())) };
        let bytes: OciDigest = image.hash.into();
        let mut freed: Vec<OciDigest> = Vec::new();
        for pushed in pushed {
            changes.extend(manifests::removed(pushed, now)?);
            changes.record(&place, EventKind::ManifestRemoved { digest: pushed.digest });
            freed.extend(pushed.names.iter().filter(|name| **name != bytes));
        }
        let of_it = |other: &ManifestLinks| other.digest == own || other.image == Some(image.hash);
        let named = self.manifests.iter().any(|other| !of_it(other) && other.names.contains(&bytes));
        let BlobRows { blob, link, charge, account } = &self.found;
        if let Some(link) = link.as_ref().filter(|_| !named) {
            let (charge, blob) = (charge.clone(), blob.clone());
            changes.extend(blobs::unlink(Unlinking { link, account, charge, blob, now })?);
        }
        Ok((changes, freed))
    }
}

/// The most writes that remove a manifest.
fn writes(row: &ManifestLinks) -> usize {
    5 + row.names.len().min(backlinks::MOST)
}
