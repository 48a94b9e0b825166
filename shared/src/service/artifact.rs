//! Manifests as files: an image or artifact with exactly one layer is one file, whose name the manifest says.

use super::MAX_LISTED;
use super::access::{Access, resource_at};
use super::restore;
use crate::app::App;
use crate::auth::Credential;
use crate::domain::manifest::{Contents, contents};
use crate::domain::{Door, Download, FileName, ManifestId, OciDigest, Repository, TagName, Time};
use crate::error::Error;
use crate::rules::Action;
use crate::store::StoreError;
use crate::store::keys;
use crate::store::rows::{Container, Link, Manifest, Tag};
use crate::store::table::Page;
use std::collections::BTreeMap;
use std::time::Duration;

/// The file of a manifest.
#[derive(Debug, Clone)]
pub struct ArtifactFile {
    /// The blob with its bytes.
    pub digest: OciDigest,
    /// Bytes.
    pub size: u64,
    /// Its name.
    pub name: FileName,
}

/// The file of a manifest, if it has one.
pub(crate) async fn of(app: &App, manifest: &Manifest) -> Result<ArtifactFile, Error> {
    let contents = read(app, manifest).await?;
    file(manifest, &contents).map_err(|why| Error::Invalid(why.to_owned()))
}

fn file(manifest: &Manifest, contents: &Contents) -> Result<ArtifactFile, &'static str> {
    let layer = contents.file()?;
    let name = layer.file.as_deref().unwrap_or_else(|| manifest.repository.rest());
    Ok(ArtifactFile { digest: layer.digest, size: layer.size, name: FileName::of(name) })
}

async fn read(app: &App, manifest: &Manifest) -> Result<Contents, Error> {
    let Some(object) = &manifest.object else { return Ok(contents(manifest.body.as_bytes())) };
    match app.objects.read(object, 0..manifest.size).await {
        Ok(bytes) => Ok(contents(&bytes)),
        Err(StoreError::NoObject) => Err(Error::Lost),
        Err(error) => Err(error.into()),
    }
}

/// The file of the manifest that the id names, for somebody who may pull it.
pub async fn find(app: &App, credential: &Credential, id: &ManifestId) -> Result<ArtifactFile, Error> {
    let ManifestId { repository, digest } = id;
    let (container_key, key) = (keys::container(repository), keys::manifest(repository, digest));
    let mut access =
        Access::load(app, credential, Some(repository.entity()), [container_key.clone(), key.clone()]).await?;
    let container: Option<Container> = access.take(&container_key)?;
    let resource = resource_at(repository, container.as_ref());
    access.require(Action::Pull, &resource, "manifest", "download this file")?;
    let manifest: Manifest = access.take(&key)?.ok_or(Error::NotFound("manifest"))?;
    let file = of(app, &manifest).await?;
    let image = Some(manifest.image.map_or(manifest.digest, OciDigest::from));
    app.downloaded(Download { repository: manifest.repository, image, tag: None, door: Door::Library });
    Ok(file)
}

/// A URL of the file, which was found in the repository; `None` if we send the bytes ourselves.
pub async fn url(app: &App, repository: &Repository, file: &ArtifactFile) -> Result<Option<String>, Error> {
    if app.config.serve_blobs {
        return Ok(None);
    }
    let link: Option<Link> = app.table.get(keys::link(repository, &file.digest)).await?;
    let link = link.ok_or(Error::NotFound("file"))?;
    if !restore::there(app, &link.object, link.size).await? {
        return Err(Error::Lost);
    }
    let life = app.config.download_life.min(LONGEST);
    Ok(Some(app.objects.presign_get(&link.object, Some(file.name.as_str()), life).await?))
}

/// The longest life of a URL that is asked for when it is used.
pub(crate) const LONGEST: Duration = Duration::from_hours(1);

/// A manifest in a list.
#[derive(Debug)]
pub struct ListedManifest {
    /// Its id.
    pub id: ManifestId,
    /// What it holds.
    pub contents: Contents,
    /// The name of its file, if it has one.
    pub file: Option<FileName>,
    /// Its tags.
    pub tags: Vec<TagName>,
    /// Its bytes; empty if they are long.
    pub body: String,
    /// The time of creation.
    pub created: Time,
}

/// The bytes of manifests that one list carries, and the rows that are read at a time.
const MAX_BODIES: usize = 2 << 20;
const PAGE: usize = 100;

/// The manifests of a container with their tags, for clients that have no way to ask for more than the first 1000.
pub async fn list(app: &App, credential: &Credential, repository: &Repository) -> Result<Vec<ListedManifest>, Error> {
    let key = keys::container(repository);
    let mut access = Access::load(app, credential, Some(repository.entity()), [key.clone()]).await?;
    let container: Option<Container> = access.take(&key)?;
    let resource = resource_at(repository, container.as_ref());
    access.require(Action::Pull, &resource, "container", "list the manifests of this container")?;
    let _turn = app.long_read().await?;
    let mut tags = tags(app, repository).await?;
    let (mut listed, mut after, mut bodies) = (Vec::new(), None, 0);
    loop {
        let page: Page<Manifest> = app.table.query(keys::manifests(repository), after, PAGE).await?;
        for row in page.rows {
            // Those in the bucket are too long to be read for a list: they show only that they are there.
            let contents = contents(row.body.as_bytes());
            let file = file(&row, &contents).ok().map(|file| file.name);
            bodies += row.body.len();
            let body = if bodies > MAX_BODIES { String::new() } else { row.body };
            let tags = tags.remove(&row.digest).unwrap_or_default();
            let id = ManifestId { repository: row.repository, digest: row.digest };
            listed.push(ListedManifest { id, contents, file, tags, body, created: row.created });
        }
        after = page.next;
        if after.is_none() || listed.len() >= MAX_LISTED {
            return Ok(listed);
        }
    }
}

async fn tags(app: &App, repository: &Repository) -> Result<BTreeMap<OciDigest, Vec<TagName>>, Error> {
    let tags: Page<Tag> = app.table.query(keys::tags(repository), None, MAX_LISTED).await?;
    let mut of: BTreeMap<OciDigest, Vec<TagName>> = BTreeMap::new();
    for tag in tags.rows {
        of.entry(tag.named.digest).or_default().push(tag.name);
    }
    Ok(of)
}
