//! What frozen tags lead to: nothing of it may be deleted, in whatever way.

use crate::domain::{Digest, OciDigest};
use crate::store::rows::{ManifestLinks, Tag};
use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The manifests and library images of a repository that its frozen tags lead to, at any depth and through any index.
///
/// Every use case that deletes a manifest or an image asks it about all that the deletion removes. The tags and
/// manifests must have been read after the repository's epoch, and the deletion must require that epoch: freezing a
/// tag advances it.
#[derive(Debug, Default)]
pub(crate) struct Protected {
    manifests: HashSet<OciDigest>,
    images: BTreeSet<Digest>,
}

impl Protected {
    /// Follows the frozen ones among all tags of a repository through its manifests.
    pub(crate) fn by<T: Borrow<Tag>>(tags: &[T], manifests: &[ManifestLinks]) -> Self {
        let mut protected = Self::default();
        let mut next: Vec<OciDigest> = Vec::new();
        for tag in tags.iter().map(Borrow::borrow).filter(|tag| tag.frozen) {
            next.push(tag.named.digest);
            protected.images.extend(tag.images.values().map(|one| one.hash));
        }
        if next.is_empty() {
            return protected;
        }
        let rows: HashMap<OciDigest, &ManifestLinks> = manifests.iter().map(|row| (row.digest, row)).collect();
        while let Some(digest) = next.pop() {
            // Blobs are named too, and lead to nothing.
            let Some(row) = rows.get(&digest) else { continue };
            if protected.manifests.insert(digest) {
                protected.images.extend(row.image);
                next.extend(&row.names);
            }
        }
        protected
    }

    /// Whether a frozen tag leads to the manifest.
    pub(crate) fn manifest(&self, digest: &OciDigest) -> bool {
        self.manifests.contains(digest)
    }

    /// Whether a frozen tag leads to the library image, or to a manifest of it.
    pub(crate) fn image(&self, hash: &Digest) -> bool {
        self.images.contains(hash)
    }
}
