//! Shares: made, used, revoked, forgotten.

use super::Changes;
use crate::domain::{OciDigest, Time};
use crate::error::Error;
use crate::rules::Place;
use crate::store::keys::{self, Key};
use crate::store::rows::{EventKind, Row, Share, ShareListed, Shared};
use crate::store::table::{Condition, Write};

/// Writes a new share and its entry in the list, if its image is still there.
pub(crate) fn made(share: &Share) -> Result<Changes, Error> {
    let Share { id, blob, expires, max, .. } = share;
    let what = EventKind::ShareMade { id: *id, digest: *blob, expires: *expires, max: *max };
    let listed = ShareListed {
        repository: share.repository.clone(),
        share: *id,
        by: share.by.clone(),
        expires: *expires,
        gone: share.gone,
    };
    Ok(Changes::recorded(Place::Repository(share.repository.clone()), what).with([
        Write::put(share, Condition::Absent)?,
        Write::put(&listed, Condition::Absent)?,
        Write::check(keys::container(&share.repository), Condition::Present),
        Write::check(image(share), Condition::Present),
    ]))
}

/// The image as whose download a use of the share counts.
pub(crate) fn counted(share: &Share) -> OciDigest {
    match &share.of {
        Shared::Image { hash, .. } => (*hash).into(),
        Shared::Artifact { digest, .. } => *digest,
    }
}

/// The row of the image that a share is of.
pub(crate) fn image(share: &Share) -> Key {
    match &share.of {
        Shared::Image { hash, .. } => keys::image(&share.repository, hash),
        Shared::Artifact { digest, .. } => keys::manifest(&share.repository, digest),
    }
}

/// Counts one more use, if there is one left and the share has not ended.
pub(crate) fn used(share: &Share, now: Time) -> Changes {
    // The table's numbers are signed.
    let below = share.max.unwrap_or(i64::MAX as u64);
    Changes::unrecorded().with([Write::used(share.id, below, now)])
}

/// Revokes a share, which must be there.
pub(crate) fn revoked(share: &Share) -> Changes {
    let what = EventKind::ShareRevoked { id: share.id };
    Changes::recorded(Place::Repository(share.repository.clone()), what).with([
        Write::delete(share.key(), Condition::Present),
        Write::delete(keys::share_listed(&share.repository, share.id), Condition::None),
    ])
}

/// Forgets a share that ended long ago, or its entry in the list. Nothing else names either.
pub(crate) fn forgotten(key: Key) -> Changes {
    Changes::unrecorded().with([Write::delete(key, Condition::None)])
}
