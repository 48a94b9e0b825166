//! Objects from one bucket to the other.
//!
//! 1. If the target has the object, with all of its bytes, it is right: it was checked before it was put there.
//! 2. Read it at the source, part by part, and hash it. A short one is written whole, once its digest is right; the parts
//!    of a long one are put together once it is. *Dies before*: the target's next sweep gives the parts up.
//! 3. The source does not have it, or other bytes: read its row there again. If the row is gone or names another object,
//!    so is it in the copy, and its rows are to be settled again. If not, the source has lost it.

use super::{Lost, Report, Running, rows};
use crate::domain::OciDigest;
use crate::error::Error;
use crate::store::StoreError;
use crate::store::keys::{self, INSTALLATION, Key, RowKind};
use crate::store::objects::{OwnPart, Part};
use crate::store::rows::{Blob, ManifestLinks};
use crate::store::table::{Scanned, pause};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest as _, Sha256, Sha512};
use std::collections::{HashMap, HashSet};

/// How many objects are copied at the same time.
const AT_ONCE: usize = 4;
/// The bytes of a part, but for objects with more than [`MOST_PARTS`] of them.
const PART: u64 = 16 << 20;
/// The most parts of an object: S3's own limit.
const MOST_PARTS: u64 = 10_000;

/// An object that a row names.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    row: Key,
    digest: OciDigest,
    pub(super) object: String,
    pub(super) size: u64,
}

/// As much of a manifest as tells of its object.
#[derive(serde::Deserialize)]
struct Long {
    size: u64,
    #[serde(flatten)]
    links: ManifestLinks,
}

impl Stored {
    /// The object that a row names, if it is its own.
    pub(super) fn of(row: Scanned) -> Result<Option<Self>, Error> {
        let key = row.key.clone();
        Ok(match keys::kind(&key) {
            RowKind::Blob => {
                let Blob { digest, object, size, .. } = row.read()?;
                Some(Self { row: key, digest: digest.into(), object, size })
            }
            RowKind::Manifest => {
                let Long { size, links } = row.read_part()?;
                links.object.map(|object| Self { row: key, digest: links.digest, object, size })
            }
            _ => None,
        })
    }
}

/// What became of one object.
enum Outcome {
    Present,
    Copied,
    /// The source does not have it.
    Missing,
}

/// What came of the objects.
#[derive(Default)]
pub(super) struct Objects {
    /// How many rows were changed, since the source was.
    pub(super) changed: u64,
    /// The objects of the target that no row names.
    leftovers: Vec<String>,
}

/// Deletes objects that no row names, and uploads that ended before their time.
pub(super) async fn tidied(copying: &Running<'_>, Objects { leftovers, .. }: Objects) -> Result<(), Error> {
    copying.still_ours().await?;
    let objects = &copying.to.objects;
    for open in objects.open_parts().await? {
        objects.abort_parts(copying.grant, &open.object, &open.upload).await?;
    }
    for object in leftovers {
        objects.delete(copying.grant, &object).await?;
    }
    Ok(())
}

/// All objects of the target with their sizes.
async fn there(copying: &Running<'_>) -> Result<HashMap<String, u64>, Error> {
    let (mut all, mut after) = (HashMap::new(), None);
    loop {
        let page = copying.to.objects.list(after).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.object.clone());
        all.extend(page.into_iter().map(|one| (one.object, one.size)));
    }
    all.remove(INSTALLATION);
    Ok(all)
}

/// Copies all objects that rows name.
pub(super) async fn objects(copying: &Running<'_>, report: &mut Report) -> Result<Objects, Error> {
    let (mut start, mut all) = (None, Objects::default());
    let before = there(copying).await?;
    let mut leftovers: HashSet<&String> = before.keys().collect();
    (report.done.objects, report.done.present) = (0, 0);
    report.lost.clear();
    loop {
        let (page, next) = copying.to.table.scan(start).await?;
        let stored = page.into_iter().filter_map(|row| Stored::of(row).transpose()).collect::<Result<Vec<_>, _>>()?;
        for one in &stored {
            leftovers.remove(&one.object);
        }
        let copies = stream::iter(stored.into_iter().map(|one| {
            let present = before.get(&one.object) == Some(&one.size);
            async move {
                let outcome = if present { Outcome::Present } else { copied(copying, &one).await? };
                Ok::<_, Error>((one, outcome))
            }
        }));
        let mut copies = copies.buffer_unordered(AT_ONCE);
        while let Some((one, outcome)) = copies.try_next().await? {
            report.done.objects += 1;
            match outcome {
                Outcome::Present => report.done.present += 1,
                Outcome::Copied => report.done.bytes += one.size,
                Outcome::Missing => match rows::again(copying, vec![one.row]).await?.changed() {
                    0 => report.lost.push(Lost { digest: one.digest, object: one.object, size: one.size }),
                    more => all.changed += more,
                },
            }
            (copying.tell)(report.done);
        }
        start = next;
        if start.is_none() {
            all.leftovers = leftovers.into_iter().cloned().collect();
            return Ok(all);
        }
    }
}

/// How often an object is tried whose bytes stop coming.
const TRIES: u32 = 4;

async fn copied(copying: &Running<'_>, one: &Stored) -> Result<Outcome, Error> {
    let mut tries = 0;
    loop {
        pause(tries).await;
        tries += 1;
        let copied = if one.size <= PART { whole(copying, one).await } else { in_parts(copying, one).await };
        match copied {
            Ok(true) => return Ok(Outcome::Copied),
            Ok(false) | Err(StoreError::NoObject) => return Ok(Outcome::Missing),
            Err(error @ StoreError::Unavailable(_)) if tries < TRIES => {
                tracing::warn!(%error, object = one.object, "an object is copied again");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Copies a short object, if its bytes are right.
async fn whole(copying: &Running<'_>, one: &Stored) -> Result<bool, StoreError> {
    let bytes = copying.from.objects.read(&one.object, 0..one.size).await?;
    let mut hash = Hash::for_digest(&one.digest);
    hash.update(&bytes);
    let right = bytes.len() as u64 == one.size && hash.finish() == one.digest;
    if right {
        copying.to.objects.put(copying.grant, &one.object, bytes).await?;
    }
    Ok(right)
}

/// Copies a long object, if its bytes are right.
async fn in_parts(copying: &Running<'_>, one: &Stored) -> Result<bool, StoreError> {
    let (to, grant, object) = (&copying.to.objects, copying.grant, one.object.as_str());
    if !copying.from.objects.has(object, one.size).await? {
        return Err(StoreError::NoObject);
    }
    let upload = to.begin_parts(grant, object).await?;
    match parts(copying, one, &upload).await {
        Ok(Some(parts)) => to.complete_parts(grant, object, &upload, &parts).await.map(|()| true),
        other => {
            to.abort_parts(grant, object, &upload).await?;
            other.map(|_| false)
        }
    }
}

/// Copies the bytes of an object as parts of an upload; `None` if they are not the right ones.
async fn parts(copying: &Running<'_>, one: &Stored, upload: &str) -> Result<Option<Vec<Part>>, StoreError> {
    let length = usize::try_from(PART.max(one.size.div_ceil(MOST_PARTS))).unwrap_or(usize::MAX);
    let mut body = copying.from.objects.stream(&one.object, None).await?;
    let (mut hash, mut parts, mut buffer) = (Hash::for_digest(&one.digest), Vec::new(), BytesMut::new());
    let mut ends = false;
    while !ends {
        match body.next().await {
            Some(chunk) => buffer.extend_from_slice(&chunk.map_err(|error| StoreError::unavailable(&error))?),
            None => ends = true,
        }
        while buffer.len() >= length || (ends && !buffer.is_empty()) {
            let bytes: Bytes = buffer.split_to(buffer.len().min(length)).freeze();
            hash.update(&bytes);
            let number = parts.len() + 1;
            let part = OwnPart { upload, number, bytes: bytes.into() };
            let etag = copying.to.objects.put_part(copying.grant, &one.object, part).await?;
            parts.push(Part { number: number as u64, etag });
        }
    }
    Ok((hash.finish() == one.digest).then_some(parts))
}

/// The hash by which an object is known.
enum Hash {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hash {
    fn for_digest(digest: &OciDigest) -> Self {
        match digest {
            OciDigest::Sha256(_) => Self::Sha256(Sha256::default()),
            OciDigest::Sha512(_) => Self::Sha512(Sha512::default()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> OciDigest {
        match self {
            Self::Sha256(hash) => crate::domain::Digest::from_bytes(hash.finalize().into()).into(),
            Self::Sha512(hash) => OciDigest::Sha512(hash.finalize().into()),
        }
    }
}
