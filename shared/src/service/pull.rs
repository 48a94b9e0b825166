//! Finding an image: one round by tag or hash.

use super::MAX_LISTED;
use super::access::{Access, resource_at};
use super::restore;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::{entities, manifests};
use crate::domain::reference::LibraryRef;
use crate::domain::sif::SifFacts;
use crate::domain::{Digest, Door, Download, Repository, Selector, TagName, Time};
use crate::error::Error;
use crate::rules::Action;
use crate::store::keys;
use crate::store::keys::Key;
use crate::store::rows::{Container, Content, Details, Image, Newest, Tag, Tagged};
use std::time::Duration;

/// An image that was found, with its container. Only [`find`] makes one, so its caller may see it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Found {
    /// The container.
    pub container: Container,
    /// The image; by tag, with that tag only.
    pub image: Image,
    /// The tag that it was asked for by.
    pub tag: Option<TagName>,
    /// When the caller's token ends, if it does: no URL that it gets lives longer.
    until: Option<Time>,
}

/// The message for a tag that points to something for other runtimes. `SingularityCE` searches it for the media type,
/// and then asks the registry.
const NO_SIF: &str = "the tag names no SIF image, pull it with docker:// or oras:// \
    (unexpected media type: got application/vnd.oci.image.config.v1+json)";

/// The most architectures among which the image that came last is looked for.
const MAX_ARCHS: usize = 32;

/// The purpose of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To get its metadata. Callers who may push there also see images without bytes, because a push continues from
    /// them.
    Look,
    /// To get everything that was read in it, which only somebody may see who could download it.
    Details,
    /// To download it.
    Download,
}

/// The rows that lead from a reference to the hash of an image: that of its container, and that of its tag, if it names
/// one.
pub(super) struct Way<'a> {
    reference: &'a LibraryRef,
    tag: Option<Key>,
}

impl<'a> Way<'a> {
    pub(super) fn of(reference: &'a LibraryRef) -> Self {
        let LibraryRef { repository, selector } = reference;
        let tag = match selector {
            Selector::Tag(tag) => Some(keys::tag(repository, tag)),
            Selector::Hash(_) => None,
        };
        Self { reference, tag }
    }

    /// Loads them, with what the caller may do there.
    pub(super) async fn load(&self, app: &App, credential: &Credential) -> Result<Access, Error> {
        let repository = &self.reference.repository;
        let wanted = [keys::container(repository)].into_iter().chain(self.tag.clone());
        Access::load(app, credential, Some(repository.entity()), wanted).await
    }

    pub(super) fn container(&self, access: &mut Access) -> Result<Option<Container>, Error> {
        access.take(&keys::container(&self.reference.repository))
    }

    /// Where it ends.
    pub(super) fn end(&self, access: &mut Access, arch: Option<&str>) -> Result<End, Error> {
        let (selector, key) = (&self.reference.selector, self.tag.as_ref());
        if let Selector::Hash(hash) = selector {
            return Ok(End { hash: Some(*hash), several: false });
        }
        let tag: Option<Tag> = key.map(|key| access.take(key)).transpose()?.flatten();
        let several = arch.is_none() && tag.as_ref().is_some_and(|tag| tag.images.len() > 1);
        Ok(End { hash: tag.and_then(|tag| choose(tag, arch)).map(|tagged| tagged.hash), several })
    }
}

/// The image that a reference leads to.
pub(super) struct End {
    /// Its hash, if there is a tag that leads to one.
    pub(super) hash: Option<Digest>,
    /// Whether the tag has several images, and nobody said which.
    pub(super) several: bool,
}

/// Finds the image that a reference names, for the architecture `arch`, or without one, for the best guess.
pub async fn find(
    app: &App,
    credential: &Credential,
    reference: &LibraryRef,
    arch: Option<&str>,
    purpose: Purpose,
) -> Result<Found, Error> {
    let LibraryRef { repository, selector } = reference;
    let container_key = keys::container(repository);
    let row = match selector {
        Selector::Tag(tag) => keys::tag(repository, tag),
        Selector::Hash(hash) => keys::image(repository, hash),
    };
    let mut access =
        Access::load(app, credential, Some(repository.entity()), [container_key.clone(), row.clone()]).await?;
    let container: Option<Container> = access.take(&container_key)?;
    let resource = resource_at(repository, container.as_ref());
    let action = if purpose == Purpose::Look { Action::See } else { Action::Pull };
    access.require(action, &resource, "image", "pull this image")?;
    let container = container.ok_or(Error::NotFound("image"))?;
    let image = match selector {
        Selector::Hash(_) => {
            let image: Image = access.take(&row)?.ok_or(Error::NotFound("image"))?;
            // Only callers who may upload the missing bytes see an image without them.
            let pushes = purpose != Purpose::Download && access.probe(Action::Push, &resource).is_ok();
            match image.content {
                None if !pushes => return Err(Error::NotFound("image")),
                _ if pushes => restore::without_lost(app, image).await?,
                _ => image,
            }
        }
        Selector::Tag(name) => {
            let tag: Option<Tag> = access.take(&row)?;
            if tag.as_ref().is_some_and(|tag| tag.images.is_empty()) {
                return Err(Error::Invalid(NO_SIF.to_owned()));
            }
            match tag.and_then(|tag| choose(tag, arch)) {
                Some(tagged) => of_tag(&container, name, tagged)?,
                None if name.as_str() == "latest" => untagged(app, repository, arch).await?,
                None => return Err(Error::NotFound("image")),
            }
        }
    };
    let tag = match selector {
        Selector::Tag(tag) => Some(tag.clone()),
        Selector::Hash(_) => None,
    };
    Ok(Found { container, image, tag, until: access.until })
}

/// The image of a tag for an architecture. Without an architecture: the only image, or amd64, or the one set last.
pub(in crate::service) fn choose(mut tag: Tag, arch: Option<&str>) -> Option<Tagged> {
    match arch {
        Some(arch) => tag.images.remove(arch),
        None if tag.images.len() == 1 => tag.images.into_values().next(),
        None => tag.images.remove("amd64").or_else(|| tag.images.remove(&tag.last)),
    }
}

fn of_tag(container: &Container, name: &TagName, tagged: Tagged) -> Result<Image, Error> {
    Ok(Image {
        id: tagged.id,
        repository: container.repository.clone(),
        parents: entities::parents(container)?,
        hash: tagged.hash,
        description: tagged.description,
        created_by: tagged.created_by,
        created: tagged.created,
        content: Some(tagged.content),
        sealed: None,
        named: true,
        intents: Vec::new(),
        tags: [name.clone()].into(),
        labels: [].into(),
        version: 0,
    })
}

/// Old clients push without setting any tag, and expect to find the image as `latest`: the one that came last, if it was
/// never tagged. In a container with such an image from before one that was tagged, it is looked for among the first
/// thousand.
async fn untagged(app: &App, repository: &Repository, arch: Option<&str>) -> Result<Image, Error> {
    let _turn = app.long_read().await?;
    let newest: Vec<Newest> = match arch {
        Some(arch) => app.table.get(keys::newest(repository, arch)).await?.into_iter().collect(),
        None => app.table.query(keys::all_newest(repository), None, MAX_ARCHS).await?.rows,
    };
    let last: Vec<Key> = newest.iter().map(|newest| keys::image(repository, &newest.hash)).collect();
    let mut rows = app.table.batch(last.iter().cloned()).await?;
    let mut images: Vec<Image> = Vec::new();
    for key in &last {
        images.extend(rows.take::<Image>(key)?);
    }
    let fits = |content: &Content| arch.is_none_or(|arch| content.arch == arch);
    let newest_of = |images: Vec<Image>| {
        let untagged = |image: &Image| !image.named && image.content.as_ref().is_some_and(fits);
        images.into_iter().filter(untagged).max_by_key(|image| image.created)
    };
    if let Some(image) = newest_of(images) {
        return Ok(image);
    }
    let images = app.table.query(keys::images(repository), None, MAX_LISTED).await?;
    newest_of(images.rows).ok_or(Error::NotFound("image"))
}

/// A URL for the bytes of an image that was found.
pub async fn download(app: &App, found: &Found) -> Result<String, Error> {
    let content = found.image.content.as_ref().ok_or(Error::NotFound("image"))?;
    if !restore::there(app, &content.object, content.size).await? {
        return Err(Error::Lost);
    }
    let file = format!("{}.sif", manifests::title(&found.container.repository));
    let life = found.until.map_or(app.config.download_life, |until| {
        let left = until.0.saturating_sub(app.now().0);
        app.config.download_life.min(Duration::from_secs(u64::try_from(left).unwrap_or(0).max(1)))
    });
    let url = app.objects.presign_get(&content.object, Some(&file), life).await?;
    let Found { image, tag, .. } = found;
    let (repository, hash) = (image.repository.clone(), image.hash.into());
    app.downloaded(Download { repository, image: Some(hash), tag: tag.clone(), door: Door::Library });
    Ok(url)
}

/// All metadata that was read from an image.
pub async fn details(app: &App, found: &Found) -> Result<Option<SifFacts>, Error> {
    let Image { repository, hash, .. } = &found.image;
    let details: Option<Details> = app.table.get(keys::details(repository, hash)).await?;
    Ok(details.map(|details| details.facts))
}
