//! Blobs: finding them and taking them away.

use super::{Code, Refused, RepositoryAccess};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::{Changes, blobs};
use crate::domain::{Digest, OciDigest, Repository};
use crate::rules::{Action, Place, Resource};
use crate::service::links;
use crate::store::keys;
use crate::store::objects::ByteStream;
use crate::store::rows::{Link, Marker};
use crate::store::table::Written;
use std::ops::Range;
use std::time::Duration;

/// The longest life of a URL that a registry client is sent to. It is used at once, and resuming asks anew.
const URL_LIFE: Duration = Duration::from_mins(20);

/// A blob that may be read.
#[derive(Debug)]
pub struct Readable {
    /// Bytes.
    pub size: u64,
    object: Option<String>,
}

/// Finds a blob in a repository, to know whether it is there. A push that is told so will not bring it: where the
/// caller may push, it is noted that it was asked for, once an hour at most, and stays for a day.
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
        && let Ok(grant) = access.loaded.decide(Action::Push, &access.resource())
    {
        let noted = Changes::unnoted().with([blobs::asked_for(link, now)?]);
        if app.commit(&grant, noted).await? != Written::Done {
            // Somebody else noted it, or it went just now.
            return find(app, credential, repository, digest).await;
        }
    }
    Ok(found.into())
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

/// What makes a blob visible in a repository.
enum Visible {
    /// Its link.
    Link(Link),
    /// It is the configuration of library images, which has no bytes.
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

/// The digest of `{}`, the configuration of every SIF image. Where library images are, it is there without bytes.
pub(super) fn empty() -> OciDigest {
    Digest::of(crate::domain::manifest::EMPTY).into()
}

impl Readable {
    /// The bytes, or those of a range, as they come.
    pub async fn bytes(&self, app: &App, range: Option<Range<u64>>) -> Result<ByteStream, Refused> {
        if let Some(object) = &self.object {
            return Ok(app.objects.stream(object, range).await?);
        }
        let whole = crate::domain::manifest::EMPTY;
        let index = |at: u64| usize::try_from(at).unwrap_or(whole.len()).min(whole.len());
        let (start, end) = range.map_or((0, whole.len()), |range| (index(range.start), index(range.end)));
        Ok(ByteStream::from_static(whole.get(start..end).unwrap_or_default()))
    }

    /// A URL for the bytes, for a short while; `None` for those that are in no store.
    pub async fn url(&self, app: &App) -> Result<Option<String>, Refused> {
        let Some(object) = &self.object else { return Ok(None) };
        Ok(Some(app.objects.presign_get(object, None, URL_LIFE.min(app.config.download_life)).await?))
    }
}

/// Takes a blob out of a repository. What a manifest there still names stays.
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
    let grant = access.decide(Action::Delete, &resource, Code::BlobUnknown, "blob")?;
    let Some(link) = link else { return Err(Refused::code(Code::BlobUnknown, "blob unknown")) };
    match links::free(app, &grant, repository, &[link.name], app.now()).await? {
        0 => {
            Err(Refused::code(Code::Denied, "a manifest of this repository names the blob, delete the manifest first"))
        }
        _ => Ok(()),
    }
}
