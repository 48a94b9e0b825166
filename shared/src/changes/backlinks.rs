//! Backlinks: which manifests and tags name a digest. Whoever asks whether something is still named, or what leads to
//! it, reads these few rows instead of all manifests and tags of a repository.
//!
//! Each manifest and tag has one for everything that it names, written and deleted with it, except:
//!
//! - A tag that names the own manifest of its only image has none: the image's row has the tag.
//! - The manifest of a library image has none for `{}`, its configuration: where library images are, that needs no link.
//! - A manifest that names more than [`MOST`] things has none at all, since a transaction has no room for them, but is in
//!   the list of [`Wide`] ones. Whoever asks reads all of these.

use super::manifests;
use crate::domain::manifest::EMPTY;
use crate::domain::{Digest, OciDigest, Repository};
use crate::error::Error;
use crate::store::keys::Key;
use crate::store::rows::{Backlink, Manifest, ManifestLinks, Namer, Row, Tag, Wide};
use crate::store::table::{Condition, Write};

/// The most backlinks of a manifest. Images for other runtimes seldom have so many layers.
pub(crate) const MOST: usize = 30;

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

impl<'a> From<&'a Manifest> for Naming<'a> {
    fn from(row: &'a Manifest) -> Self {
        Self { repository: &row.repository, manifest: row.digest, names: &row.names, image: row.image }
    }
}

/// The rows that say what a manifest names.
enum Rows {
    Each(Vec<Backlink>),
    Wide(Wide),
}

impl Naming<'_> {
    fn rows(&self) -> Rows {
        let left_out = self.image.map(|_| OciDigest::from(Digest::of(EMPTY)));
        let names = self.names.iter().filter(|name| Some(**name) != left_out);
        if names.clone().count() > MOST {
            return Rows::Wide(Wide { repository: self.repository.clone(), manifest: self.manifest });
        }
        let from = Namer::Manifest(self.manifest);
        let row =
            |name: &OciDigest| Backlink { repository: self.repository.clone(), digest: *name, from: from.clone() };
        Rows::Each(names.map(row).collect())
    }

    /// Writes them.
    pub(crate) fn written(&self) -> Result<Vec<Write>, Error> {
        Ok(match self.rows() {
            Rows::Each(rows) => {
                rows.iter().map(|row| Write::put(row, Condition::None)).collect::<Result<Vec<_>, _>>()?
            }
            Rows::Wide(row) => vec![Write::put(&row, Condition::None)?],
        })
    }

    /// Where they are.
    pub(crate) fn keys(&self) -> Vec<Key> {
        match self.rows() {
            Rows::Each(rows) => rows.iter().map(Row::key).collect(),
            Rows::Wide(row) => vec![row.key()],
        }
    }

    /// Deletes them.
    pub(crate) fn deleted(&self) -> Vec<Write> {
        self.keys().into_iter().map(|key| Write::delete(key, Condition::None)).collect()
    }
}

/// The backlink of a tag, if it has one.
pub(crate) fn of_tag(tag: &Tag) -> Option<Backlink> {
    let mut images = tag.images.values();
    if let (Some(one), None) = (images.next(), images.next())
        && manifests::of_image(&tag.repository, &one.hash, one.content.size).digest == tag.named.digest
    {
        return None;
    }
    let (repository, from) = (tag.repository.clone(), Namer::Tag(tag.name.clone()));
    Some(Backlink { repository, digest: tag.named.digest, from })
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
