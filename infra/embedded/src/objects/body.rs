//! Bytes on their way in and out, in chunks, so that memory does not grow with the object.

use super::files::{Chunk, Files, Fresh, Giving, Held, LEAST};
use super::index::{Segment, Written, internal};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, s3_error};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

/// How much of a body is gathered before it is hashed and written. An upload holds about two of these in memory. With a
/// quarter of this size, 1 GiB took twice as long: each chunk costs a few thread switches.
const TAKE: usize = 1024 * 1024;
/// What a short piece keeps in memory: the least that a connection reads into.
const SMALLEST: usize = 8 << 10;
/// A client that sends nothing for this long counts as gone.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a body must match.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// Its length, which every request must state.
    pub(super) length: u64,
    /// `x-amz-content-sha256`, as 32 bytes.
    pub(super) payload: Option<[u8; 32]>,
    /// `x-amz-checksum-sha256`, as 32 bytes.
    pub(super) sha256: Option<[u8; 32]>,
    /// Whether it is to be hashed; if not, its `ETag` is random.
    pub(super) hashed: bool,
}

/// Receives a body: steps 1 to 5 of the write protocol (see [`super::files`]).
///
/// On any failure, and when this future is dropped because the client disconnected, the file is removed with the
/// [`Fresh`].
pub(super) async fn receive(
    files: &Arc<Files>,
    body: impl Stream<Item = Result<Bytes, StdError>>,
    declared: &Declared,
) -> S3Result<(Fresh, Written)> {
    let mut body = std::pin::pin!(body.fuse());
    // While one chunk is hashed and written, the next one is gathered. No more than that is read from the client: this
    // is the back-pressure.
    let (files, hashed) = (Arc::clone(files), declared.hashed);
    let mut store = spawn_blocking(move || Ok((Fresh::create(&files)?, hashed.then(Sha256::new))));
    let mut length = 0;
    loop {
        let chunk = match gather(body.as_mut()).await {
            Ok(chunk) => chunk,
            Err(error) => {
                // The file is removed before the client is told.
                drop(finish(store).await);
                return Err(S3Error::with_source(S3ErrorCode::IncompleteBody, error));
            }
        };
        length += chunk.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if length > declared.length {
            drop(finish(store).await);
            return Err(s3_error!(
                InvalidRequest,
                "The body is longer than its Content-Length of {}.",
                declared.length
            ));
        }
        if chunk.is_empty() {
            break;
        }
        let (mut fresh, mut sha256) = finish(store).await?;
        store = spawn_blocking(move || {
            fresh.write(&chunk)?;
            if let Some(sha256) = &mut sha256 {
                for piece in chunk {
                    sha256.update(piece);
                }
            }
            Ok((fresh, sha256))
        });
    }
    let (fresh, sha256) = finish(store).await?;
    let sha256: Option<[u8; 32]> = sha256.map(|sha256| sha256.finalize().into());
    if length != declared.length {
        return Err(s3_error!(
            IncompleteBody,
            "You did not provide the number of bytes specified by the Content-Length HTTP header"
        ));
    }
    if declared.payload.is_some_and(|payload| sha256 != Some(payload)) {
        return Err(content_sha256_mismatch());
    }
    if declared.sha256.is_some_and(|said| sha256 != Some(said)) {
        return Err(s3_error!(
            BadDigest,
            "The checksum value that you specified did not match what the server received."
        ));
    }
    let tag = sha256.map_or_else(random, Ok)?;
    let written = Written { name: Arc::clone(fresh.name()), size: length, tag, sha256 };
    let fresh = finish(spawn_blocking(move || fresh.settle().map(|()| fresh))).await?;
    Ok((fresh, written))
}

fn random() -> S3Result<[u8; 32]> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(internal)?;
    Ok(random)
}

/// The next chunk of a body; an empty one is the end.
async fn gather(mut body: Pin<&mut impl Stream<Item = Result<Bytes, StdError>>>) -> Result<Vec<Bytes>, StdError> {
    let mut chunk = Vec::new();
    let mut size = 0;
    while size < TAKE {
        let Some(piece) = tokio::time::timeout(PATIENCE, body.next()).await?.transpose()? else {
            break;
        };
        // However short, a piece may keep a whole buffer of a connection.
        size += piece.len().max(SMALLEST);
        chunk.push(piece);
    }
    Ok(chunk)
}

/// The error for a client whose bytes do not match its header.
pub(super) fn content_sha256_mismatch() -> S3Error {
    let mut error = S3Error::with_message(
        S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    );
    error.set_status_code(http::StatusCode::BAD_REQUEST);
    error
}

/// Waits for work on a blocking thread, and translates its error.
pub(super) async fn finish<T>(work: JoinHandle<io::Result<T>>) -> S3Result<T> {
    work.await.map_err(internal)?.map_err(|error| {
        if error.kind() != io::ErrorKind::StorageFull {
            return internal(error);
        }
        tracing::error!("the disk of the embedded object store is full");
        full()
    })
}

/// The error for a disk without room. Nobody tries again at once, as they would after an error of ours.
pub(super) fn full() -> S3Error {
    let code = S3ErrorCode::Custom(crate::FULL.into());
    let mut full = S3Error::with_message(code, "The disk of the object store is full.");
    full.set_status_code(http::StatusCode::INSUFFICIENT_STORAGE);
    full
}

/// The same for reading files of an object. One whose files are lost or damaged is answered as if it were not there.
pub(super) async fn finish_reading<T>(work: JoinHandle<io::Result<T>>) -> S3Result<T> {
    work.await.map_err(internal)?.map_err(|error| {
        if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) {
            return internal(error);
        }
        tracing::error!(%error, "a file of an object is lost or damaged");
        s3_error!(NoSuchKey, "The bytes of the object are lost or damaged.")
    })
}

/// The bytes of a range of an object. What is in the page cache is read at once, since a thread switch costs more than
/// that. For the rest, a blocking thread waits for the disk.
///
/// After each chunk others get their turn, and only a few downloads at a time are ready to run: the socket of a fast
/// client takes megabytes at once, and lookups would wait for all of them, and for those of each other download.
pub(super) struct Outgoing {
    remaining: u64,
    first: Option<Bytes>,
    next: Next,
    turn: Turn,
}

/// Whether a download may read its next chunk.
enum Turn {
    /// It may.
    Now,
    /// Not before others.
    Later,
    /// It may when it is polled again.
    Next,
    /// It may when it is told.
    Told(oneshot::Receiver<()>),
}

impl Turn {
    fn poll(&mut self, giving: &Giving, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self, Self::Later) {
            if let Some(told) = giving.turn() {
                *self = Self::Told(told);
            } else {
                *self = Self::Next;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if let Self::Told(told) = self {
            // An error would say that nobody conducts any more.
            let _told = std::task::ready!(Pin::new(told).poll(cx));
        }
        *self = Self::Now;
        Poll::Ready(())
    }
}

/// Where the chunk after this one comes from.
enum Next {
    Reader(Cursor),
    Reading(JoinHandle<io::Result<(Cursor, Bytes)>>),
    Nothing,
}

/// The position of a reader. It holds its files, so none of them can be removed before it is done.
struct Cursor {
    held: Held,
    giving: Giving,
    ahead: VecDeque<(Segment, Range<u64>)>,
    open: Option<(File, Range<u64>)>,
    /// Whether nothing was read yet. The first chunk is a small one, however few downloads there are: more may be coming.
    begins: bool,
}

impl Outgoing {
    /// Checks the files and reads the first chunk, so that an object that is lost or damaged gives an error and not a
    /// truncated body.
    pub(super) async fn start(held: Held, segments: Vec<Segment>, range: Range<u64>) -> S3Result<Self> {
        let remaining = range.end.saturating_sub(range.start);
        let part = move |segment: Segment| {
            let from = range.start.saturating_sub(segment.start);
            let to = range.end.saturating_sub(segment.start).min(segment.size);
            (segment, from..to)
        };
        let first = move || {
            held.check(&segments)?;
            Cursor::new(held, segments.into_iter().map(part).collect()).read()
        };
        let (cursor, first) = finish_reading(spawn_blocking(first)).await?;
        let mut outgoing = Self { remaining, first: None, next: Next::Nothing, turn: Turn::Now };
        outgoing.took(&first, cursor);
        outgoing.first = (!first.is_empty()).then_some(first);
        Ok(outgoing)
    }

    /// Notes where the chunk after this one comes from.
    fn took(&mut self, chunk: &Bytes, cursor: Cursor) {
        self.remaining = self.remaining.saturating_sub(chunk.len() as u64);
        self.next = if self.remaining > 0 { Next::Reader(cursor) } else { Next::Nothing };
    }
}

impl Cursor {
    fn new(held: Held, ahead: VecDeque<(Segment, Range<u64>)>) -> Self {
        let giving = held.files().giving();
        Self { held, giving, ahead, open: None, begins: true }
    }

    /// A buffer for the next chunk of a range.
    fn room(&mut self, range: &Range<u64>) -> Chunk {
        let share = if std::mem::take(&mut self.begins) { LEAST } else { self.giving.share() };
        self.giving.chunk(usize::try_from(range.end - range.start).map_or(share, |left| left.min(share)))
    }

    /// Reads on from the current position, waiting for the disk if it must.
    fn read(mut self) -> io::Result<(Self, Bytes)> {
        let (file, range) = if let Some(open) = self.open.take() {
            open
        } else if let Some((segment, range)) = self.ahead.pop_front() {
            (self.held.files().read(&segment.name)?, range)
        } else {
            // Only an empty range has no segment. For any other, the caller stops asking once it has everything.
            return Ok((self, Bytes::new()));
        };
        let mut chunk = self.room(&range);
        file.read_exact_at(chunk.room(), range.start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "an object file is shorter than its row says"),
            _ => error,
        })?;
        let chunk = Bytes::from_owner(chunk);
        self.stands(file, range.start + chunk.len() as u64..range.end);
        Ok((self, chunk))
    }

    /// Reads on from the current position if the bytes are in the page cache; `None` if they are not.
    fn read_now(&mut self) -> Option<Bytes> {
        if self.open.is_none() {
            let (segment, _) = self.ahead.front()?;
            let file = self.held.files().read_now(&segment.name)?;
            self.open = self.ahead.pop_front().map(|(_, range)| (file, range));
        }
        let (file, range) = self.open.take()?;
        let mut chunk = self.room(&range);
        // Any error will show up again in `read`.
        let read = read_without_waiting(&file, chunk.room(), range.start).unwrap_or(0);
        chunk.truncate(read);
        let chunk = Bytes::from_owner(chunk);
        self.stands(file, range.start + chunk.len() as u64..range.end);
        (!chunk.is_empty()).then_some(chunk)
    }

    fn stands(&mut self, file: File, range: Range<u64>) {
        self.open = (!range.is_empty()).then_some((file, range));
    }
}

#[cfg(target_os = "linux")]
fn read_without_waiting(file: &File, chunk: &mut [u8], from: u64) -> io::Result<usize> {
    let mut chunk = [io::IoSliceMut::new(chunk)];
    Ok(rustix::io::preadv2(file, &mut chunk, from, rustix::io::ReadWriteFlags::NOWAIT)?)
}

/// Other systems can't tell what is in the page cache.
#[cfg(not(target_os = "linux"))]
fn read_without_waiting(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Ok(0)
}

impl Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Self { next, turn, .. } = &mut *self;
        if let Next::Reader(cursor) = next {
            std::task::ready!(turn.poll(&cursor.giving, cx));
        }
        let mut reading = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Nothing => return Poll::Ready(None),
            Next::Reading(reading) => reading,
            Next::Reader(mut cursor) => {
                if let Some(chunk) = cursor.read_now() {
                    self.turn = Turn::Later;
                    self.took(&chunk, cursor);
                    return Poll::Ready(Some(Ok(chunk)));
                }
                spawn_blocking(move || cursor.read())
            }
        };
        match Pin::new(&mut reading).poll(cx) {
            Poll::Pending => {
                self.next = Next::Reading(reading);
                Poll::Pending
            }
            Poll::Ready(read) => match read.map_err(io::Error::other).flatten() {
                Ok((cursor, chunk)) => {
                    self.took(&chunk, cursor);
                    Poll::Ready(Some(Ok(chunk)))
                }
                Err(error) => {
                    tracing::error!(%error, "an object can't be read");
                    Poll::Ready(Some(Err(error.into())))
                }
            },
        }
    }
}

impl ByteStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        let left = self.remaining + self.first.as_ref().map_or(0, |first| first.len() as u64);
        usize::try_from(left).map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

/// Hashes a whole object, on this thread.
pub(super) fn sha256(held: Held, segments: Vec<Segment>, size: u64) -> io::Result<[u8; 32]> {
    let ahead = segments.into_iter().map(|segment| {
        let range = 0..segment.size;
        (segment, range)
    });
    let mut cursor = Cursor::new(held, ahead.collect());
    let mut sum = Sha256::new();
    let mut left = size;
    while left > 0 {
        let (next, chunk) = cursor.read()?;
        sum.update(&chunk);
        left = left.saturating_sub(chunk.len() as u64);
        cursor = next;
    }
    Ok(sum.finalize().into())
}
