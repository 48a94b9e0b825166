//! Handing the sending of an object over to a proxy in front, with the header that nginx made known.
//!
//! The proxy asks us as always. We check the signature, and answer with the headers of the object, no bytes, and the
//! place of its file. The proxy sends the file, whole or in the range that its client wants.
//!
//! # Between our answer and the proxy
//!
//! 1. The file is there, with the length that its row says, and its group may read it. The answer names it.
//! 2. The proxy opens it. *Deleted since*: the proxy answers 404, as we do from then on. An object is deleted once no
//!    URL of it is in use, so this is the last moment of a URL's life.
//! 3. The proxy sends it. *Deleted since*: its bytes stay until the proxy closes the file.
//!
//! # Joining
//!
//! Only an object of one file can be handed over. One that came in parts has a file for each:
//!
//! 1. We send it ourselves when it is asked for. Its files are held, and copied into a new one as by any write (see
//!    [`files`](super::files)). *Another object is being joined*, *little room*: not this time. *Fails*, *dies*: nothing
//!    changed; the new file is removed.
//! 2. Whoever reads by a copy of the index needs the old files, and holds a [lock](keep_files). *Somebody does*: not this
//!    time; a look at it before 1 keeps most copies from being made in vain. Otherwise nobody gets it until the end of 3.
//! 3. In one transaction the object names the new file, and its other files no more. *Removed since*: the new file is
//!    removed. The old files are removed once nobody in this process reads them.

use super::body::{Declared, Outgoing, receive};
use super::index::{self, Object, Segment, internal};
use super::{Outside, Readers, Store};
use crate::Error;
use http::header::{HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use s3s::dto::{GetObjectInput, StreamingBlob};
use s3s::{S3Error, S3Request, S3Result};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

/// Tells a proxy which file to send.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-accel-redirect");
/// Shorter objects are sent sooner than they are handed over.
const LEAST: u64 = 256 << 10;
/// What a proxy would compare with its own view of the file.
const CONDITIONS: [HeaderName; 4] = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];

/// Keeps the files of all objects as long as the result lives: for those who read them by a copy of the index at
/// `index`, in another process.
pub fn keep_files(index: &Path) -> Result<File, Error> {
    let lock = lock_file(index)?;
    lock.lock_shared().map_err(|source| Error::Disk { path: index.into(), source })?;
    Ok(lock)
}

/// The file beside an index that is locked by those who read by a copy of it, or make such copies useless.
fn lock_file(index: &Path) -> Result<File, Error> {
    let path = index.with_extension("copied");
    crate::private_file(&path)?;
    File::open(&path).map_err(|source| Error::Disk { path, source })
}

/// How an object is asked for.
pub(super) struct Asked {
    handable: bool,
}

impl Asked {
    pub(super) fn of(request: &S3Request<GetObjectInput>) -> Self {
        let outside = request.extensions.get::<Outside>().is_some();
        let conditional = CONDITIONS.iter().any(|name| request.headers.contains_key(name));
        Self { handable: outside && !conditional }
    }
}

impl Store {
    /// Where the proxy finds the file of an object, if it is to send it. `segments` are those that are asked for.
    pub(super) fn handed(
        self: &Arc<Self>,
        asked: &Asked,
        object: &Object,
        segments: &[Segment],
    ) -> S3Result<Option<HeaderValue>> {
        let Readers::Proxy(place) = &self.config.readers else { return Ok(None) };
        if !asked.handable || object.size < LEAST {
            return Ok(None);
        }
        let whole = segments.first().filter(|first| first.size == object.size);
        let Some(Segment { name, .. }) = whole else {
            self.join(object);
            return Ok(None);
        };
        let folder = name.get(..2).unwrap_or_default();
        let place = HeaderValue::try_from(format!("{place}{folder}/{name}"));
        place.map(Some).map_err(S3Error::internal_error)
    }

    /// Makes one file of the files of an object, unless another one is being joined.
    fn join(self: &Arc<Self>, object: &Object) {
        let Ok(turn) = Arc::clone(&self.joining).try_acquire_owned() else { return };
        let (store, key, id) = (Arc::clone(self), object.key.clone(), object.id);
        tokio::spawn(async move {
            if let Err(error) = store.joined(&key, id).await {
                tracing::warn!(%error, "the files of an object stay apart");
            }
            drop(turn);
        });
    }

    async fn joined(&self, key: &str, id: i64) -> S3Result<()> {
        let (object, segments, held) = self.find(key)?;
        // Not where it would be the last that there is room for: it would be tried again at each download.
        let room = self.files.has_room(object.size.saturating_mul(2)).map_err(internal)?;
        if object.id != id || segments.len() < 2 || !room || !self.index.sound() || self.unshared()?.is_none() {
            return Ok(());
        }
        let bytes = StreamingBlob::new(Outgoing::start(held, segments, 0..object.size).await?);
        let declared = Declared { length: object.size, ..Declared::default() };
        let (fresh, written) = receive(&self.files, bytes, &declared).await?;
        let Some(_lock) = self.unshared()? else { return Ok(()) };
        self.change_with(fresh, move |rows| Ok(((), index::join(rows, id, &written)?))).await
    }

    /// The lock of those who read by a copy of the index, if nobody has it. Nobody gets it while the result lives.
    fn unshared(&self) -> S3Result<Option<File>> {
        let lock = lock_file(&self.config.index).map_err(internal)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(internal(error)),
        }
    }
}
