//! Bytes of manifests that were read lately. Bytes of a digest never change, so every process may keep its own; who may
//! read them, and whether something still names them, is read from the rows each time.

use crate::domain::OciDigest;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// About the most bytes that are kept, with what is around them.
const MOST_BYTES: u64 = 16 << 20;
/// About how many manifests these are.
const USUAL: usize = 8192;
/// What a manifest takes beside its bytes.
const AROUND: u64 = 256;

/// The manifests.
#[derive(Debug)]
pub(crate) struct Manifests(Cache<OciDigest, Bytes, Weight>);

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<OciDigest, Bytes> for Weight {
    fn weight(&self, _: &OciDigest, bytes: &Bytes) -> u64 {
        AROUND + u64::try_from(bytes.len()).unwrap_or(u64::MAX / 2)
    }
}

impl Default for Manifests {
    fn default() -> Self {
        Self(Cache::with_weighter(USUAL, MOST_BYTES, Weight))
    }
}

impl Manifests {
    /// The bytes of a manifest, if they were read lately.
    pub(crate) fn get(&self, digest: &OciDigest) -> Option<Bytes> {
        self.0.get(digest)
    }

    /// Keeps the bytes of a manifest.
    pub(crate) fn keep(&self, digest: OciDigest, bytes: Bytes) {
        self.0.insert(digest, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Digest;

    #[test]
    fn what_is_kept_is_bounded_by_its_bytes() {
        let manifests = Manifests::default();
        for number in 0_u64..10_000 {
            let mut bytes = vec![0; 16 << 10];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            let digest: OciDigest = Digest::of(&bytes).into();
            manifests.keep(digest, bytes.clone().into());
            // It may be gone already, but is never another one.
            assert!(manifests.get(&digest).is_none_or(|kept| kept == bytes));
        }
        assert!(manifests.0.weight() <= MOST_BYTES, "{}", manifests.0.weight());
        assert!(manifests.0.len() > 500, "{}", manifests.0.len());
    }
}
