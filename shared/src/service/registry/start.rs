//! Opening upload sessions of blobs, and mounting blobs that exist already.

use super::upload::linking;
use super::{Code, Refused, RepositoryAccess};
use crate::app::App;
use crate::auth::Credential;
use crate::auth::token::UploadTicket;
use crate::changes::Changes;
use crate::changes::blobs::{self, BlobRows, Linked, VerifiedBytes};
use crate::domain::quota::Quota;
use crate::domain::{Id, OciDigest, Repository, UploadId, Visibility};
use crate::error::Error;
use crate::rules::{Grant, Place};
use crate::service::restore;
use crate::service::retry::{Retry, Try};
use crate::store::keys;
use crate::store::rows::{EventKind, Link};

/// An opened upload session: the right to send its bytes.
#[derive(Debug)]
pub struct UploadSession {
    /// Its id.
    pub id: UploadId,
    /// The right, to be put into the URL.
    pub ticket: String,
}

/// The result of asking for an upload session.
#[derive(Debug)]
pub enum Started {
    /// The blob was there already. These are the numbers of the account that pays for it.
    Mounted(Quota),
    /// The client has to upload its bytes.
    Session(UploadSession),
}

/// A blob that might be mounted instead of uploaded.
#[derive(Debug)]
pub struct Mount {
    /// Which.
    pub digest: OciDigest,
    /// The source repository; `None`: any.
    pub from: Option<Repository>,
}

/// Opens an upload session, or mounts the blob. A blob that can't be mounted, for any reason, has to be uploaded.
pub async fn session(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    mount: Option<Mount>,
) -> Result<Started, Refused> {
    let mut retry = Retry::of("changes of the same blob");
    loop {
        retry.pause().await?;
        let from = mount.as_ref().and_then(|mount| mount.from.as_ref().map(|from| (from, mount.digest)));
        let source = match from {
            Some((from, digest)) => readable_link(app, credential, from, &digest).await?,
            None => None,
        };
        // Bytes that are lost must be sent again.
        let source = match source {
            Some(link) if !restore::there(app, &link.object, link.size).await? => None,
            source => source,
        };
        let blob_keys = source.as_ref().map(|link| BlobRows::keys(repository, &link.digest, &link.name));
        let wanted = blob_keys.iter().flatten().cloned();
        let mut access = RepositoryAccess::to_write(app, credential, repository, wanted).await?;
        let grant = access.may_push()?;
        if let Some((source, blob_keys)) = source.zip(blob_keys) {
            let found = BlobRows::take(access.loaded.rows(), &blob_keys)?;
            match mounted(app, &access, &grant, &source, found).await? {
                Try::Done(quota) => return Ok(Started::Mounted(quota)),
                Try::Lost => continue,
            }
        }
        let container = access.container.as_ref().map(|container| container.id);
        return Ok(Started::Session(signed(app, credential, repository, container)?));
    }
}

/// Makes a repository private if it is new. One that exists keeps its visibility, so if that is wider than private, the
/// push is refused: whoever asks for something private believes that it is.
///
/// 1. Read the repository with its entity and collection, and decide.
/// 2. If it does not exist, make it. *Lost*: somebody else has made it, as private or not.
///
/// *Dies*, or no bytes follow: an empty private repository is left, as by the library's request to make a container.
pub async fn privately(app: &App, credential: &Credential, repository: &Repository) -> Result<(), Refused> {
    let access = RepositoryAccess::to_write(app, credential, repository, []).await?;
    let grant = access.may_push()?;
    match access.made_as(app, &grant, Visibility::Private).await?.visibility {
        Visibility::Private => Ok(()),
        Visibility::Internal | Visibility::Public => {
            Err(Refused::code(Code::Denied, "the repository exists and is not private, make it private first"))
        }
    }
}

fn signed(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    container: Option<Id>,
) -> Result<UploadSession, Refused> {
    let (actor, token, password) = match credential {
        Credential::Anonymous => return Err(Error::Unauthenticated(crate::error::NO_TOKEN).into()),
        Credential::Token { actor, id } => (actor, Some(*id), None),
        Credential::Registry { actor, id, password, .. } => (actor, *id, password.clone()),
    };
    let id = app.new_upload()?;
    let until = app.now().plus(app.config.upload_life);
    let (repository, actor) = (repository.clone(), actor.clone());
    let right = UploadTicket { upload: id, repository, actor, token, password, container, until };
    Ok(UploadSession { id, ticket: app.keys.sign_upload(&right)? })
}

/// The link of a blob in another repository that the caller may pull from.
async fn readable_link(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<Option<Link>, Refused> {
    let key = keys::link(repository, digest);
    let mut access = RepositoryAccess::to_read(app, credential, repository, [key.clone()]).await?;
    if access.may_pull(Code::BlobUnknown, "blob").is_err() {
        return Ok(None);
    }
    Ok(access.loaded.take(&key)?)
}

async fn mounted(
    app: &App,
    access: &RepositoryAccess,
    grant: &Grant,
    source: &Link,
    found: BlobRows,
) -> Result<Try<Quota>, Refused> {
    let Some(blob) = &found.blob else { return Ok(Try::Lost) };
    let bytes = VerifiedBytes { digest: blob.digest, object: blob.object.clone(), size: blob.size };
    access.made(app, grant).await?;
    let repository = &access.repository;
    let new = linking(app, repository, source.name, &bytes, 0)?;
    let Linked { writes, quota, .. } = blobs::link(found, &new)?;
    let changes =
        Changes::recorded(Place::Repository(repository.clone()), EventKind::BlobLinked { digest: source.name })
            .with([blobs::repository_there(repository)]);
    Ok(Try::of(&app.commit(grant, changes.with(writes)).await?, quota))
}
