//! Removing manifests and tags.
//!
//! 1. In one transaction: delete the manifest, its cost, its tags, its entry among the referrers, and the library
//!    image that it is. *Lost*: start again. *More tags than a transaction holds*: remove some first, and start again.
//! 2. Then [free](crate::service::links::free) everything that nothing names any more. *Dies before*: it leaves links
//!    that nothing names, which the sweeper removes.

use super::pull::{Reference, unknown};
use super::{Code, Refused, RepositoryAccess};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::frozen::Protected;
use crate::changes::tags::{self, Untagging};
use crate::changes::{Changes, images, manifests};
use crate::domain::{Actor, Digest, OciDigest, Repository, TagName};
use crate::rules::{Action, Grant, Place, Resource};
use crate::service::links;
use crate::service::retry::{Retry, Try};
use crate::store::keys;
use crate::store::rows::{Container, EventKind, Image, Manifest, ManifestLinks, Tag};
use crate::store::table::Written;

/// Removes a tag, or a manifest with its tags.
pub async fn manifest(
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
            Reference::Digest(digest) => {
                let removing = Box::pin(Removing::load(app, credential, repository, digest)).await?;
                Box::pin(removing.remove(app)).await?
            }
        };
        if let Try::Done(()) = removed {
            return Ok(());
        }
    }
}

/// The manifest stays: others may name it, or clients may pull it by its digest.
async fn remove_tag(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    name: &TagName,
) -> Result<Try<()>, Refused> {
    let key = keys::tag(repository, name);
    let mut access = RepositoryAccess::to_write(app, credential, repository, [key.clone()]).await?;
    let tag: Option<Tag> = access.loaded.take(&key)?;
    let tag = could_remove(&access, tag)?;
    let read_only = access.container.as_ref().is_some_and(|container| container.read_only);
    let makers: Vec<Option<Actor>> = match &tag {
        tag if tag.images.is_empty() => {
            let named: Option<Manifest> = app.table.get(keys::manifest(repository, &tag.named.digest)).await?;
            vec![named.and_then(|named| named.created_by)]
        }
        tag => tag.images.values().map(|one| one.created_by.clone()).collect(),
    };
    let own = makers.iter().all(|maker| access.made_by(maker.as_ref()));
    let resource = Resource::Image { repository: repository.clone(), read_only, own, frozen: tag.frozen };
    let grant = access.require(Action::Delete, &resource, Code::ManifestUnknown, "tag")?;
    Ok(Try::of(&app.commit(&grant, tags::remove(&tag)).await?, ()))
}

/// The row, if it exists and the caller could delete something there. Other callers are refused before more is read,
/// whether it exists or not.
fn could_remove<R>(access: &RepositoryAccess, row: Option<R>) -> Result<R, Refused> {
    let missing = Resource::Missing(Place::Repository(access.repository.clone()));
    match access.require(Action::Delete, &missing, Code::ManifestUnknown, "manifest") {
        Err(Refused::Code(Code::ManifestUnknown, _)) | Ok(_) => row.ok_or_else(unknown),
        Err(refused) => Err(refused),
    }
}

/// A manifest that may be removed, with everything connected to it.
struct Removing {
    grant: Grant,
    container: Container,
    row: ManifestLinks,
    tags: Vec<Tag>,
    /// The library image that is deleted with it.
    image: Option<Image>,
    /// That image's own manifest, if it is another one.
    own: Option<ManifestLinks>,
}

impl Removing {
    async fn load(
        app: &App,
        credential: &Credential,
        repository: &Repository,
        digest: &OciDigest,
    ) -> Result<Self, Refused> {
        let key = keys::manifest(repository, digest);
        let mut access = RepositoryAccess::to_write(app, credential, repository, [key.clone()]).await?;
        let row: Option<Manifest> = access.loaded.take(&key)?;
        could_remove(&access, row)?;
        let container = access.container.clone().ok_or_else(unknown)?;
        let (image, links::Leading { tags, manifests }) = leading_to(app, repository, *digest).await?;
        // Its state after the epoch was read.
        let row = manifests.iter().find(|row| row.digest == *digest).ok_or_else(unknown)?;
        let mine = access.made_by(row.created_by.as_ref());
        let protected = Protected::by(&tags, &manifests);
        let decide = |own: bool, frozen: bool| {
            let (repository, read_only) = (repository.clone(), container.read_only);
            let resource = Resource::Image { repository, read_only, own, frozen };
            access.require(Action::Delete, &resource, Code::ManifestUnknown, "manifest")
        };
        let own = image.as_ref().and_then(images::own_manifest);
        // An image's own manifest is the image, as registry clients see it.
        let is_image = own == Some(*digest) && row.image.is_some_and(|hash| protected.image(&hash));
        let grant = decide(mine, is_image || protected.manifest(digest))?;
        let image = image.filter(|image| deleted_with(image, row, own, &tags, &manifests));
        // The right to delete one's own manifest does not include the right to delete with it what somebody else
        // pushed.
        if let Some(image) = &image {
            decide(mine && access.made_by(image.created_by.as_ref()), protected.image(&image.hash))?;
        }
        let own = manifests.iter().find(|other| Some(other.digest) == own && other.digest != row.digest).cloned();
        let row = row.clone();
        Ok(Self { grant, container, row, tags, image, own })
    }

    async fn remove(self, app: &App) -> Result<Try<()>, Refused> {
        let (repository, now) = (&self.container.repository, app.now());
        let digest = &self.row.digest;
        let image = self.image.as_ref().map(|image| image.hash);
        let own = self.image.as_ref().and_then(images::own_manifest);
        let names = |tag: &Tag| [Some(*digest), own].contains(&Some(tag.named.digest));
        let led = |tag: &&Tag| names(tag) || image.is_some_and(|hash| leads_to(tag, hash));
        let tags: Vec<&Tag> = self.tags.iter().filter(led).collect();
        let mut groups = tags::groups(&tags);
        let last = groups.pop().unwrap_or_default();
        let untagging = Untagging { manifest: Some(digest), image, image_stays: false, now };
        if !groups.is_empty() {
            let untag = |some: &&[&Tag]| tags::untag(some, Untagging { image_stays: true, ..untagging });
            let changes: Result<Vec<_>, _> = groups.iter().map(untag).collect();
            return Ok(links::one_by_one(app, &self.grant, &self.container, changes?).await?);
        }
        let place = Place::Repository(repository.clone());
        let mut changes = Changes::recorded(place.clone(), EventKind::ManifestRemoved { digest: *digest });
        changes.extend(manifests::removed(&self.row, now)?);
        changes.add(manifests::epoch_advanced_from(&self.container));
        changes.merge(tags::untag(last, untagging)?);
        let mut freed = self.row.names.clone();
        if let Some(image) = &self.image {
            // Its own manifest is removed only once, even if both ask for it.
            changes.merge(images::removed(image, self.own.as_ref()));
            freed.push(image.hash.into());
        }
        if app.commit(&self.grant, changes).await? != Written::Done {
            return Ok(Try::Lost);
        }
        if let Some(object) = &self.row.object {
            // It is condemned, so if this fails the sweeper does it. But nobody ever had a URL for it, and until then
            // it would be charged to nobody.
            let _ = app.objects.delete(&self.grant, object).await;
        }
        links::free_after(app, &self.grant, repository, &freed).await;
        Ok(Try::Done(()))
    }
}

/// The library image that a manifest is, and what leads to either. To be read after the repository's epoch.
async fn leading_to(
    app: &App,
    repository: &Repository,
    manifest: OciDigest,
) -> Result<(Option<Image>, links::Leading), Refused> {
    let row: Option<Manifest> = app.table.get(keys::manifest(repository, &manifest)).await?;
    let image: Option<Image> = match row.and_then(|row| row.image) {
        Some(hash) => app.table.get(keys::image(repository, &hash)).await?,
        None => None,
    };
    let digests = image.iter().map(|image| image.hash.into()).chain([manifest]);
    let tags = image.iter().flat_map(|image| image.tags.iter().cloned());
    let leading = links::leading_to(app, repository, digests, tags).await?;
    Ok((image, leading))
}

/// Whether a library image is deleted with a manifest of it.
///
/// A library image has a manifest of its own besides the pushed ones. The image is deleted with its own manifest, if
/// no other one names it. It is also deleted with the last of the others, unless its own manifest exists and a tag
/// points to it or an index names it. Without any manifest it can't stay, since nothing would name its bytes.
fn deleted_with(
    image: &Image,
    row: &ManifestLinks,
    own: Option<OciDigest>,
    tags: &[Tag],
    manifests: &[ManifestLinks],
) -> bool {
    let another = |other: &ManifestLinks| {
        other.digest != row.digest && Some(other.digest) != own && other.image == Some(image.hash)
    };
    let leads = |tag: &Tag| Some(tag.named.digest) == own || leads_to(tag, image.hash);
    let tagged = |tag: &Tag| tag.named.digest != row.digest && leads(tag);
    let has_own = own != Some(row.digest) && manifests.iter().any(|other| Some(other.digest) == own);
    let listed = |other: &ManifestLinks| own.is_some_and(|own| other.names.contains(&own));
    let stays = manifests.iter().any(another) || has_own && (tags.iter().any(tagged) || manifests.iter().any(listed));
    !stays
}

fn leads_to(tag: &Tag, hash: Digest) -> bool {
    tag.images.values().any(|one| one.hash == hash)
}
