//! Streams: blobs that a registry client uploads through us, and what they hold in the meantime.

use super::{Changes, accounts, blobs};
use crate::domain::{Actor, OciDigest, Repository, Time, UploadId};
use crate::error::Error;
use crate::store::rows::{Account, Flow, Row, Stream};
use crate::store::table::{Condition, Write};
use std::time::Duration;

/// How long the result of an upload is remembered.
pub(crate) const REMEMBERED: Duration = Duration::from_hours(1);
// The result of an upload is remembered for a while, in case the client asks again.
const _: () = assert!(REMEMBERED.as_secs() >= 4 * crate::domain::time::SKEW.as_secs());

/// The row of a stream that has no bytes yet. It is written with its first ones.
pub(crate) fn new(id: UploadId, repository: Repository, opened_by: Actor, expires: Time) -> Stream {
    Stream {
        id,
        repository,
        opened_by,
        flow: Flow::Open,
        taken: 0,
        hasher: None,
        object: None,
        upload: None,
        etags: Vec::new(),
        tail: None,
        tail_size: 0,
        reserved: 0,
        expires,
        version: 0,
    }
}

/// A stream as it was read, and whether its row exists in the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) row: &'a Stream,
    /// Whether the row is in the table.
    pub(crate) kept: bool,
}

impl Stored<'_> {
    /// One more row of the entity, if it is not in the table yet.
    fn counted(self) -> Option<Write> {
        accounts::rows(self.row.repository.entity(), i64::from(!self.kept))
    }

    /// The condition that nobody has written the row since.
    fn unchanged(self) -> Condition {
        if self.kept { Condition::Version(self.row.version) } else { Condition::Absent }
    }
}

/// The total bytes to reserve for a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserving {
    /// The minimum that it needs.
    pub(crate) least: u64,
    /// The amount that it would prefer.
    pub(crate) hoped: u64,
}

impl Reserving {
    /// Exactly so many.
    pub(crate) fn exactly(bytes: u64) -> Self {
        Self { least: bytes, hoped: bytes }
    }
}

/// Writes a stream's row, which must not have changed, with more bytes reserved. The row itself is the first write.
pub(crate) fn written(
    before: Stored<'_>,
    mut row: Stream,
    Reserving { least, hoped }: Reserving,
    account: &Account,
) -> Result<(Stream, Changes), Error> {
    let more = |wanted: u64| wanted.saturating_sub(before.row.reserved);
    let (more, reserved) = match accounts::reserved(account, more(hoped)) {
        Ok(reserved) => (more(hoped), reserved),
        Err(_) => (more(least), accounts::reserved(account, more(least))?),
    };
    row.reserved = before.row.reserved + more;
    row.version = before.row.version + 1;
    let written = Write::put(&row, before.unchanged())?;
    let changes = Changes::unrecorded().with([written]).with(reserved).with(before.counted());
    Ok((row, changes))
}

/// Ends a stream without a blob: what it reserved is given back, its objects are condemned.
pub(crate) fn ended(stream: Stored<'_>, now: Time) -> Result<Changes, Error> {
    let row = stream.row;
    let over = Stream { flow: Flow::Over, version: row.version + 1, ..emptied(row, now) };
    let written = Write::put(&over, stream.unchanged())?;
    Ok(Changes::unrecorded().with([written]).with(stream.counted()).with(given_back(row, now)?))
}

/// Ends a stream whose bytes are a blob now, in `object`: the remainder's object is condemned.
pub(crate) fn done(stream: Stored<'_>, name: OciDigest, object: &str, now: Time) -> Result<Vec<Write>, Error> {
    let row = stream.row;
    let done = Stream { flow: Flow::Done(name), version: row.version + 1, ..emptied(row, now) };
    let mut writes = vec![Write::put(&done, stream.unchanged())?];
    writes.extend(stream.counted());
    if let Some(tail) = row.tail.as_ref().filter(|tail| *tail != object) {
        writes.push(blobs::condemned(tail, None, now)?);
    }
    Ok(writes)
}

/// Releases what a stream holds that ended long ago or will never end, and forgets it.
pub(crate) fn forgotten(row: &Stream, now: Time) -> Result<Changes, Error> {
    let deleted = Write::delete(row.key(), Condition::Version(row.version));
    let counted = accounts::rows(row.repository.entity(), -1);
    Ok(Changes::unrecorded().with([deleted]).with(given_back(row, now)?).with(counted))
}

/// Releases what a stream holds: its reservation and its objects.
fn given_back(row: &Stream, now: Time) -> Result<Vec<Write>, Error> {
    let mut writes: Vec<Write> = accounts::released(row.repository.entity(), row.reserved).into_iter().collect();
    if let Some(object) = &row.object {
        writes.push(blobs::condemned(object, row.upload.as_deref(), now)?);
    }
    if let Some(tail) = row.tail.as_ref().filter(|_| row.tail != row.object) {
        writes.push(blobs::condemned(tail, None, now)?);
    }
    Ok(writes)
}

/// The row of a stream that holds nothing any more.
fn emptied(row: &Stream, now: Time) -> Stream {
    let expires = now.plus(REMEMBERED);
    let Stream { flow, taken, version, .. } = row.clone();
    Stream { flow, taken, version, ..new(row.id, row.repository.clone(), row.opened_by.clone(), expires) }
}
