//! Blobs: finding them and removing them.

use super::{Code, Refused, RepositoryAccess};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::{Changes, blobs};
use crate::domain::{Digest, OciDigest, Repository, Time};
use crate::error::Error;
use crate::rules::{Action, Place, Resource};
use crate::service::{links, restore};
use crate::store::objects::ByteStream;
use crate::store::rows::{Link, Marker};
use crate::store::table::Written;
use crate::store::{StoreError, keys};
use std::ops::Range;
use std::time::Duration;

/// The longest lifetime of a URL in a redirect for registry clients. It is used at once, and a client that resumes
/// asks again.
const URL_LIFE: Duration = Duration::from_mins(20);

/// A blob that may be read.
#[derive(Debug)]
pub struct Readable {
    /// Bytes.
    pub size: u64,
    object: Option<String>,
}

/// Checks for a push whether a repository has a blob. A push that finds it will not upload it. So if the caller may
/// push, the time of the request is recorded, at most once an hour, and the blob stays for a day.
pub async fn look(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<Readable, Refused> {
    let (access, found) = visible(app, credential, repository, digest).await?;
    let now = app.now();
    if let Visible::Link(link) = &found
        && link.seen.plus(links::NOTED) < now
        && let Ok(grant) = access.loaded.probe(Action::Push, &access.resource())
    {
        let noted = Changes::unrecorded().with([blobs::asked_for(link, now)?]);
        if app.commit(&grant, noted).await? != Written::Done {
            // Somebody else recorded it, or the blob was just removed.
            return found_with_bytes(app, visible(app, credential, repository, digest).await?.1).await;
        }
    }
    found_with_bytes(app, found).await
}

/// A blob whose bytes are there. If they are lost, a push is to send them again.
async fn found_with_bytes(app: &App, found: Visible) -> Result<Readable, Refused> {
    if let Visible::Link(Link { object, size, .. }) = &found
        && !restore::there(app, object, *size).await?
    {
        return Err(lost());
    }
    Ok(found.into())
}

fn lost() -> Refused {
    Refused::code(Code::BlobUnknown, Error::Lost.to_string())
}

/// Finds a blob in a repository. One round.
pub async fn find(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<Readable, Refused> {
    Ok(visible(app, credential, repository, digest).await?.1.into())
}

/// The reason why a blob is visible in a repository.
enum Visible {
    /// Its link.
    Link(Link),
    /// It is the configuration of library images, which has no stored bytes.
    Marker,
}

impl From<Visible> for Readable {
    fn from(visible: Visible) -> Self {
        match visible {
            Visible::Link(link) => Self { size: link.size, object: Some(link.object) },
            Visible::Marker => Self { size: crate::domain::manifest::EMPTY.len() as u64, object: None },
        }
    }
}

/// Looks for a blob in a repository that the caller may pull from.
async fn visible(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<(RepositoryAccess, Visible), Refused> {
    let link_key = keys::link(repository, digest);
    let marker = (*digest == empty()).then(|| keys::marker(repository));
    let wanted = [link_key.clone()].into_iter().chain(marker.clone());
    let mut access = RepositoryAccess::to_read(app, credential, repository, wanted).await?;
    access.may_pull(Code::BlobUnknown, "blob")?;
    let link: Option<Link> = access.loaded.take(&link_key)?;
    let visible = match (link, marker) {
        (Some(link), _) => Visible::Link(link),
        (None, Some(key)) if access.loaded.take::<Marker>(&key)?.is_some() => Visible::Marker,
        _ => return Err(Refused::code(Code::BlobUnknown, "blob unknown")),
    };
    Ok((access, visible))
}

/// The digest of `{}`, the configuration of every SIF image. A repository with library images has it, without stored
/// bytes.
pub(super) fn empty() -> OciDigest {
    Digest::of(crate::domain::manifest::EMPTY).into()
}

impl Readable {
    /// The bytes, or those of a range, as a stream.
    pub async fn bytes(&self, app: &App, range: Option<Range<u64>>) -> Result<ByteStream, Refused> {
        if let Some(object) = &self.object {
            return match app.objects.stream(object, range).await {
                Err(StoreError::NoObject) => Err(lost()),
                stream => Ok(stream?),
            };
        }
        let whole = crate::domain::manifest::EMPTY;
        let index = |at: u64| usize::try_from(at).unwrap_or(whole.len()).min(whole.len());
        let (start, end) = range.map_or((0, whole.len()), |range| (index(range.start), index(range.end)));
        Ok(ByteStream::from_static(whole.get(start..end).unwrap_or_default()))
    }

    /// A short-lived URL for the bytes; `None` if the bytes are in no store.
    pub async fn url(&self, app: &App) -> Result<Option<String>, Refused> {
        let Some(object) = &self.object else { return Ok(None) };
        if !restore::there(app, object, self.size).await? {
            return Err(lost());
        }
        Ok(Some(app.objects.presign_get(object, None, URL_LIFE.min(app.config.download_life)).await?))
    }
}

/// Removes a blob from a repository. It stays if a manifest there still names it.
pub async fn remove(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<(), Refused> {
    let link_key = keys::link(repository, digest);
    let mut access = RepositoryAccess::to_write(app, credential, repository, [link_key.clone()]).await?;
    let missing = Resource::Missing(Place::Repository(repository.clone()));
    let link: Option<Link> = access.loaded.take(&link_key)?;
    let resource = link.as_ref().map_or(missing, |_| access.resource());
    let grant = access.require(Action::Delete, &resource, Code::BlobUnknown, "blob")?;
    let Some(link) = link else { return Err(Refused::code(Code::BlobUnknown, "blob unknown")) };
    match links::free(app, &grant, repository, &[link.name], Time::MAX).await? {
        0 => {
            Err(Refused::code(Code::Denied, "a manifest of this repository names the blob, delete the manifest first"))
        }
        _ => Ok(()),
    }
}
