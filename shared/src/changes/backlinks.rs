//! Backlinks: which manifests and tags name a digest. Whoever asks whether something is still named, or what leads to
//! it, reads these few rows instead of all manifests and tags of a repository.
//!
//! Each manifest and tag has one for everything that it names, written with it, except:
//!
//! - A tag that names the own manifest of its only image has none: the image's row has the tag.
//! - The manifest of a library image has none for `{}`, its configuration: where library images are, that needs no link.
//!
//! A manifest that names more than [`TOGETHER`] things has the others written before it, and deleted after it, each time
//! on condition that nothing was removed in between. So a backlink may be there without its manifest, and whoever
//! follows one looks at the manifest.

use super::{Changes, manifests};
use crate::domain::manifest::EMPTY;
use crate::domain::{Digest, OciDigest, Repository, Time};
use crate::error::Error;
use crate::store::keys::{self, Key};
use crate::store::rows::{Backlink, Container, ManifestLinks, Namer, Row, Tag};
use crate::store::table::{Condition, Write};

/// The most backlinks that are written or deleted in one transaction with their manifest.
pub(crate) const TOGETHER: usize = 24;
/// The most in a transaction of their own, beside two other writes.
const MANY: usize = Changes::MAX - 2;

/// A manifest with what it names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Naming<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) manifest: OciDigest,
    pub(crate) names: &'a [OciDigest],
    /// The library image that is its layer.
    pub(crate) image: Option<Digest>,
}

impl<'a> From<&'a ManifestLinks> for Naming<'a> {
    fn from(row: &'a ManifestLinks) -> Self {
        Self { repository: &row.repository, manifest: row.digest, names: &row.names, image: row.image }
    }
}

impl Naming<'_> {
    /// What has a backlink.
    fn linked(&self) -> Vec<OciDigest> {
        let left_out = self.image.map(|_| OciDigest::from(Digest::of(EMPTY)));
        self.names.iter().filter(|name| Some(**name) != left_out).copied().collect()
    }

    fn row(&self, name: OciDigest, ahead: Option<Time>) -> Backlink {
        Backlink { repository: self.repository.clone(), digest: name, from: Namer::Manifest(self.manifest), ahead }
    }

    /// The backlinks that are written with the manifest.
    pub(crate) fn written(&self) -> Result<Vec<Write>, Error> {
        let linked = self.linked().into_iter().take(TOGETHER);
        linked.map(|name| Ok(Write::put(&self.row(name, None), Condition::None)?)).collect()
    }

    /// The backlinks that are deleted with the manifest.
    pub(crate) fn deleted(&self) -> impl Iterator<Item = Write> {
        let keys = self.linked().into_iter().take(TOGETHER).map(|name| self.row(name, None).key());
        keys.collect::<Vec<_>>().into_iter().map(|key| Write::delete(key, Condition::None))
    }

    /// The transactions that write the others before the manifest. They are not there for nothing if the container is
    /// being removed.
    pub(crate) fn ahead(&self, now: Time) -> Result<Vec<Changes>, Error> {
        let container = Write::check(keys::container(self.repository), Condition::Present);
        let others: Vec<OciDigest> = self.linked().into_iter().skip(TOGETHER).collect();
        let step = |some: &[OciDigest]| {
            let puts = some.iter().map(|name| Ok(Write::put(&self.row(*name, Some(now)), Condition::None)?));
            Ok(Changes::unrecorded().with([container.clone()]).with(puts.collect::<Result<Vec<_>, Error>>()?))
        };
        others.chunks(MANY).map(step).collect()
    }

    /// Where all of its backlinks are.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.linked().into_iter().map(|name| self.row(name, None).key()).collect()
    }

    /// Those that [`ahead`](Self::ahead) wrote.
    pub(crate) fn others(&self) -> Vec<OciDigest> {
        self.linked().into_iter().skip(TOGETHER).collect()
    }
}

/// Deletes some backlinks, at most [`MANY`], of a manifest that is not there. A push of that manifest which has written
/// them already is lost, and writes them again.
pub(crate) fn forgotten(container: &Container, manifest: &OciDigest, names: &[OciDigest]) -> Changes {
    let repository = &container.repository;
    let key = |name: &OciDigest| keys::backlink(repository, name, &Namer::Manifest(*manifest));
    Changes::unrecorded()
        .with([
            Write::check(keys::manifest(repository, manifest), Condition::Absent),
            manifests::epoch_advanced_from(container),
        ])
        .with(names.iter().take(MANY).map(|name| Write::delete(key(name), Condition::None)))
}

/// How many [`forgotten`] takes.
pub(crate) const FORGOTTEN: usize = MANY;

/// The backlink of a tag, if it has one.
pub(crate) fn of_tag(tag: &Tag) -> Option<Backlink> {
    let mut images = tag.images.values();
    if let (Some(one), None) = (images.next(), images.next())
        && manifests::of_image(&tag.repository, &one.hash, one.content.size).digest == tag.named.digest
    {
        return None;
    }
    let (repository, from) = (tag.repository.clone(), Namer::Tag(tag.name.clone()));
    Some(Backlink { repository, digest: tag.named.digest, from, ahead: None })
}

/// The writes of backlinks where a tag with the backlink `old`, if any, becomes another one.
pub(crate) fn tag_moved(old: Option<Backlink>, new: &Tag) -> Result<Vec<Write>, Error> {
    let new = of_tag(new);
    if let (Some(old), Some(new)) = (&old, &new)
        && old.digest == new.digest
    {
        return Ok(Vec::new());
    }
    let written = new.map(|new| Write::put(&new, Condition::None)).transpose()?;
    Ok(old.map(|old| Write::delete(old.key(), Condition::None)).into_iter().chain(written).collect())
}

/// The same where a tag is deleted.
pub(crate) fn tag_deleted(old: &Tag) -> Option<Write> {
    of_tag(old).map(|old| Write::delete(old.key(), Condition::None))
}
