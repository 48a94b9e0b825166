//! Pulling manifests, by tag or by digest.

use super::{Code, Refused, RepositoryAccess};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::manifest::is_index;
use crate::domain::{Digest, Door, Download, OciDigest, Repository, TagName};
use crate::error::Error;
use crate::service::restore;
use crate::store::rows::{Manifest, Named, Tag};
use crate::store::table::pause;
use crate::store::{StoreError, keys};
use bytes::Bytes;

/// How to identify a manifest in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// The manifest that the tag names.
    Tag(TagName),
    /// Exactly these bytes.
    Digest(OciDigest),
}

/// How many times to read again if a manifest's tag or bytes have gone in the meantime.
const MAX_READS: u32 = 8;

pub(super) fn unknown() -> Refused {
    Refused::code(Code::ManifestUnknown, "manifest unknown")
}

fn lost() -> Refused {
    Refused::code(Code::ManifestUnknown, Error::Lost.to_string())
}

/// The metadata of a manifest, without its bytes. One round.
pub async fn head(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    reference: &Reference,
) -> Result<Named, Refused> {
    match reference {
        Reference::Tag(name) => Ok(tag(app, credential, repository, name).await?.named),
        Reference::Digest(digest) => {
            let row = read(app, credential, repository, digest).await?;
            if let Some(object) = &row.object
                && !restore::there(app, object, row.size).await?
            {
                return Err(lost());
            }
            Ok(Named { digest: row.digest, media_type: row.media_type, size: row.size })
        }
    }
}

async fn tag(app: &App, credential: &Credential, repository: &Repository, name: &TagName) -> Result<Tag, Refused> {
    let key = keys::tag(repository, name);
    let mut access = RepositoryAccess::to_read(app, credential, repository, [key.clone()]).await?;
    access.may_pull(Code::ManifestUnknown, "manifest")?;
    access.loaded.take(&key)?.ok_or_else(unknown)
}

/// A manifest with its bytes, for somebody who downloads what it names. One round by digest, and by tag if its bytes were read lately, otherwise two; more if it is
/// being deleted, or if the tag moves and its old target is deleted.
pub async fn get(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    reference: &Reference,
) -> Result<(Named, Bytes), Refused> {
    let mut gone = None;
    for attempt in 0..MAX_READS {
        pause(attempt).await;
        let (row, image) = match reference {
            Reference::Digest(digest) => {
                let row = read(app, credential, repository, digest).await?;
                let image = image(row.image, &row.digest, &row.media_type);
                (row, image)
            }
            Reference::Tag(name) => {
                let (tag, row) = named_by(app, credential, repository, name).await?;
                let image = image_of(&tag);
                match row {
                    Pulled::Kept(bytes) => {
                        app.downloaded(downloaded(repository, reference, image));
                        return Ok((tag.named, bytes));
                    }
                    Pulled::Row(row) => (*row, image),
                }
            }
        };
        let bytes = if let Some(object) = &row.object {
            match app.objects.read(object, 0..row.size).await {
                // It was deleted since its row was read. Or it is lost, and then its row still names it.
                Err(StoreError::NoObject) if gone.as_ref() == Some(object) => return Err(lost()),
                Err(StoreError::NoObject) => {
                    gone = Some(object.clone());
                    continue;
                }
                read => read?,
            }
        } else {
            let bytes: Bytes = row.body.into_bytes().into();
            app.manifests().keep(row.digest, bytes.clone());
            bytes
        };
        app.downloaded(downloaded(repository, reference, image));
        return Ok((Named { digest: row.digest, media_type: row.media_type, size: row.size }, bytes));
    }
    Err(Error::Unavailable(StoreError::NoObject).into())
}

fn downloaded(repository: &Repository, reference: &Reference, image: Option<OciDigest>) -> Download {
    let tag = match reference {
        Reference::Tag(tag) => Some(tag.clone()),
        Reference::Digest(_) => None,
    };
    Download { repository: repository.clone(), image, tag, door: Door::Registry }
}

/// The image that a manifest is: the SIF image in it, or itself; none if it is an index, also of a single one.
fn image(sif: Option<Digest>, manifest: &OciDigest, media_type: &str) -> Option<OciDigest> {
    (!is_index(media_type)).then(|| sif.map_or(*manifest, OciDigest::from))
}

fn image_of(tag: &Tag) -> Option<OciDigest> {
    let sif = tag.images.values().next().map(|tagged| tagged.hash);
    image(sif, &tag.named.digest, &tag.named.media_type)
}

/// The manifest that a tag names.
enum Pulled {
    /// Its bytes were read lately.
    Kept(Bytes),
    Row(Box<Manifest>),
}

/// The manifest that a tag names. If it has gone, the tag has moved or gone since it was read, and is read again.
async fn named_by(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    name: &TagName,
) -> Result<(Tag, Pulled), Refused> {
    for attempt in 0..MAX_READS {
        pause(attempt).await;
        let tag = tag(app, credential, repository, name).await?;
        if let Some(bytes) = app.manifests().get(&tag.named.digest) {
            return Ok((tag, Pulled::Kept(bytes)));
        }
        if let Some(row) = app.table.get(keys::manifest(repository, &tag.named.digest)).await? {
            return Ok((tag, Pulled::Row(Box::new(row))));
        }
    }
    Err(Error::Unavailable(StoreError::Unavailable("the tag changes faster than it can be read".to_owned())).into())
}

async fn read(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<Manifest, Refused> {
    let key = keys::manifest(repository, digest);
    let mut access = RepositoryAccess::to_read(app, credential, repository, [key.clone()]).await?;
    access.may_pull(Code::ManifestUnknown, "manifest")?;
    access.loaded.take::<Manifest>(&key)?.ok_or_else(unknown)
}
