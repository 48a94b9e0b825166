//! Shares: URLs that let their holders download one exact image, with the rights of their maker there.
//!
//! # Making one
//!
//! 1. Read the container and whatever the request names in it. The maker must be allowed to share there, and to pull:
//!    a token without the right to pull must not give itself that right.
//! 2. Find the image that it names now: a tag that moves later does not move the share.
//! 3. Draw an id and a secret. Write the share, which has the secret's SHA-256, and its entry in the list, if container
//!    and image are still there. *Lost*: one of them is gone. *Dies*: the secret was never shown, and the share ends by
//!    itself.
//!
//! # Using one
//!
//! See [`using`].
//!
//! # Its end
//!
//! A share ends by its time, its number of uses or its revocation; with its image, its repository, its maker's account
//! or role, or the token that made it. Nothing is written when one of these goes: each use looks. A revoked share is
//! gone at once. The rows of others are kept for a week, so that their holders learn that they are over, and are then
//! taken by the table's time to live or by the sweeper.

mod list;
mod using;

pub use list::{ListedShare, list, revoke};
pub use using::{Usable, find, use_once};

use super::access::{Access, resource_at};
use super::{artifact, pull};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::{manifests, shares};
use crate::domain::{
    Digest, FileName, ManifestId, OciDigest, Repository, Selector, ShareId, ShareKey, ShareSecret, TagName, Time,
};
use crate::error::Error;
use crate::random;
use crate::rules::{Action, Grant};
use crate::store::keys;
use crate::store::rows::{Container, Image, Manifest, Share, Shared, Tag};
use crate::store::table::Written;
use secrecy::SecretString;
use std::time::Duration;

/// How long the row of a share is kept after its end.
pub(crate) const KEPT: Duration = Duration::from_hours(7 * 24);

/// Which image of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// The one that a tag names, for an architecture.
    Tag(TagName, Option<String>),
    /// A library image by its hash, or a manifest by its digest.
    Digest(OciDigest),
}

impl Chosen {
    /// The same as a reference says, with an architecture beside it.
    pub fn of(selector: Selector, arch: Option<String>) -> Self {
        match selector {
            Selector::Tag(tag) => Self::Tag(tag, arch),
            Selector::Hash(hash) => Self::Digest(hash.into()),
        }
    }
}

/// When somebody wants a share to end.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// So long after it was made.
    After(Duration),
    /// At a moment.
    At(Time),
}

/// A new share.
#[derive(Debug)]
pub struct NewShare {
    /// The repository.
    pub repository: Repository,
    /// The image in it.
    pub image: Chosen,
    /// When it ends; `None`: after the time that the operator set for that.
    pub end: Option<End>,
    /// How many times it can be used; `None`: as often as its holders like.
    pub max: Option<u64>,
}

/// A share that was made, with its URL, which is never shown again.
#[derive(Debug)]
pub struct MadeShare {
    /// Its row.
    pub share: Share,
    /// Its URL.
    pub url: SecretString,
}

/// An image with all that a share keeps of it.
struct Target {
    of: Shared,
    blob: OciDigest,
    size: u64,
    file: FileName,
}

/// Makes a share.
pub async fn make(app: &App, credential: &Credential, new: NewShare) -> Result<MadeShare, Error> {
    const DOING: &str = "share images of this repository";
    let NewShare { repository, image, end, max } = new;
    if max == Some(0) {
        return Err(Error::Invalid("`uses` must be at least 1".to_owned()));
    }
    let container_key = keys::container(&repository);
    let wanted = match &image {
        Chosen::Tag(tag, _) => vec![keys::tag(&repository, tag)],
        Chosen::Digest(digest @ OciDigest::Sha256(hash)) => {
            vec![keys::image(&repository, hash), keys::manifest(&repository, digest)]
        }
        Chosen::Digest(digest) => vec![keys::manifest(&repository, digest)],
    };
    let wanted = wanted.into_iter().chain([container_key.clone()]);
    let mut access = Access::load(app, credential, Some(repository.entity()), wanted).await?;
    let container: Option<Container> = access.take(&container_key)?;
    let resource = resource_at(&repository, container.as_ref());
    let grant = access.require(Action::Share, &resource, "repository", DOING)?;
    access.require(Action::Pull, &resource, "repository", DOING).map_err(|_| out_of_scope())?;
    let container = container.ok_or(Error::NotFound("repository"))?;
    let expires = expires(app, &access, end)?;
    let target = match image {
        Chosen::Tag(tag, arch) => tagged(app, &mut access, &repository, &tag, arch.as_deref()).await?,
        Chosen::Digest(digest) => exact(app, &mut access, &repository, &digest).await?,
    };
    write(app, &grant, &container, target, Ends { expires, max }).await
}

/// Makes a share of a manifest, as other libraries let their clients ask for it.
pub async fn of_manifest(
    app: &App,
    credential: &Credential,
    id: ManifestId,
    end: Option<End>,
) -> Result<MadeShare, Error> {
    let ManifestId { repository, digest } = id;
    make(app, credential, NewShare { repository, image: Chosen::Digest(digest), end, max: None }).await
}

fn out_of_scope() -> Error {
    Error::Forbidden("this token may not be used to share images: it needs the rights pull and push".to_owned())
}

/// When a new share ends. It never outlives the token that makes it.
fn expires(app: &App, access: &Access, asked: Option<End>) -> Result<Time, Error> {
    // The short-lived token of a registry client has an end of its own, which would be the share's.
    if access.extent().is_none() {
        return Err(Error::Forbidden(
            "the short-lived token of a registry client makes no shares, use the token that it was made from"
                .to_owned(),
        ));
    }
    let (now, longest) = (app.now(), app.config.max_share_life);
    let asked = match asked {
        None => {
            let end = now.plus(app.config.share_life);
            return Ok(access.until.map_or(end, |until| end.min(until)));
        }
        Some(End::After(life)) => now.plus(life),
        Some(End::At(end)) => end,
    };
    if asked <= now {
        return Err(Error::Invalid("a share must last at least a second".to_owned()));
    }
    if asked > now.plus(longest) {
        return Err(Error::Invalid(format!("a share can last at most {} seconds here", longest.as_secs())));
    }
    match access.until {
        Some(until) if asked > until => {
            let left = until.0.saturating_sub(now.0);
            Err(Error::Forbidden(format!(
                "not permitted to make a share that outlives the token in use: let it end within {left} seconds"
            )))
        }
        _ => Ok(asked),
    }
}

/// What a tag names: the library image of an architecture, or else the file of its manifest.
async fn tagged(
    app: &App,
    access: &mut Access,
    repository: &Repository,
    name: &TagName,
    arch: Option<&str>,
) -> Result<Target, Error> {
    let tag: Tag = access.take(&keys::tag(repository, name))?.ok_or(Error::NotFound("image"))?;
    if tag.images.is_empty() {
        let manifest = app.table.get(keys::manifest(repository, &tag.named.digest)).await?;
        return of_file(app, manifest.ok_or(Error::NotFound("image"))?).await;
    }
    let tagged = pull::choose(tag, arch).ok_or(Error::NotFound("image"))?;
    Ok(Target {
        of: Shared::Image { hash: tagged.hash, id: tagged.id },
        blob: tagged.hash.into(),
        size: tagged.content.size,
        file: FileName::of(&format!("{}_{name}.sif", manifests::title(repository))),
    })
}

/// The library image with that hash, or else the file of the manifest with that digest.
async fn exact(app: &App, access: &mut Access, repository: &Repository, digest: &OciDigest) -> Result<Target, Error> {
    if let OciDigest::Sha256(hash) = digest
        && let Some(image) = access.take::<Image>(&keys::image(repository, hash))?
    {
        return of_image(image);
    }
    let manifest: Manifest = access.take(&keys::manifest(repository, digest))?.ok_or(Error::NotFound("image"))?;
    match manifest.image {
        Some(hash) => match app.table.get(keys::image(repository, &hash)).await? {
            Some(image) => of_image(image),
            None => of_file(app, manifest).await,
        },
        None => of_file(app, manifest).await,
    }
}

fn of_image(image: Image) -> Result<Target, Error> {
    let content = image.content.ok_or(Error::NotFound("image"))?;
    let file = FileName::of(&format!("{}.sif", manifests::title(&image.repository)));
    let of = Shared::Image { hash: image.hash, id: image.id };
    Ok(Target { of, blob: image.hash.into(), size: content.size, file })
}

async fn of_file(app: &App, manifest: Manifest) -> Result<Target, Error> {
    let file = artifact::of(app, &manifest).await?;
    let of = Shared::Artifact { digest: manifest.digest, by: manifest.created_by };
    Ok(Target { of, blob: file.digest, size: file.size, file: file.name })
}

struct Ends {
    expires: Time,
    max: Option<u64>,
}

async fn write(
    app: &App,
    grant: &Grant,
    container: &Container,
    target: Target,
    ends: Ends,
) -> Result<MadeShare, Error> {
    let Target { of, blob, size, file } = target;
    let Ends { expires, max } = ends;
    let by = grant.by().cloned().ok_or(Error::Unauthenticated(crate::error::NO_TOKEN))?;
    let key = ShareKey {
        id: random::bytes().map(ShareId::from_random)?,
        secret: random::bytes().map(ShareSecret::from_random)?,
    };
    let secret: Digest = key.secret.digest();
    let share = Share {
        id: key.id,
        secret,
        repository: container.repository.clone(),
        container: container.id,
        of,
        blob,
        size,
        file,
        by,
        token: grant.token(),
        created: app.now(),
        expires,
        max,
        uses: 0,
        gone: expires.plus(KEPT),
    };
    match app.commit(grant, shares::made(&share)?).await? {
        Written::Done => {
            let url = format!("{}/dl/{}/{}", app.config.public_url, key.text(), share.file);
            Ok(MadeShare { share, url: url.into() })
        }
        Written::Lost(_) => Err(Error::NotFound("image")),
    }
}
