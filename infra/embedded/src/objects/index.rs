//! The rows: which keys exist, and which files make them up. A commit here is the commit of a write.
//!
//! Changes that wait for the disk are committed together ([`group`](crate::group)): they are serial, and many concurrent
//! ones cost one sync.
//!
//! Whether a file is still wanted is never counted, but looked up: it is wanted while a segment of an object or a part
//! of an upload names it. A count could drift, an index lookup can't.

use super::body::full;
use super::files::Name;
use crate::Error;
use crate::group::{Outcome, Writer, in_savepoint};
use crate::readers::Readers;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use s3s::{S3Error, S3Result, s3_error};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

const LAYOUT: i64 = 1;

// The `ETag` is made of `file.sha256`, see [`Written::tag`].
const TABLES: &str = "
    CREATE TABLE file (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        size INTEGER NOT NULL,
        sha256 BLOB NOT NULL
    ) STRICT;
    CREATE TABLE object (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        size INTEGER NOT NULL,
        etag TEXT NOT NULL,
        sha256 BLOB,
        modified INTEGER NOT NULL,
        about TEXT NOT NULL
    ) STRICT;
    CREATE TABLE segment (
        object INTEGER NOT NULL REFERENCES object(id),
        start INTEGER NOT NULL,
        file INTEGER NOT NULL REFERENCES file(id),
        size INTEGER NOT NULL,
        PRIMARY KEY (object, start, file)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX segment_file ON segment(file);
    CREATE TABLE upload (
        id TEXT PRIMARY KEY,
        key TEXT NOT NULL,
        begun INTEGER NOT NULL,
        about TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX upload_key ON upload(key);
    CREATE TABLE part (
        upload TEXT NOT NULL REFERENCES upload(id),
        number INTEGER NOT NULL,
        file INTEGER NOT NULL REFERENCES file(id),
        modified INTEGER NOT NULL,
        PRIMARY KEY (upload, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX part_file ON part(file);
";

/// The index of all objects and uploads.
pub(super) struct Index {
    readers: Arc<Readers>,
    /// Closed last.
    writer: Writer,
}

/// What the client said about an object, which is returned with it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) content_type: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) metadata: Option<HashMap<String, String>>,
    /// A SHA-256 of the whole was asked for when the object was stored, so reads return it.
    pub(super) checksum: bool,
}

/// What is known of a file once it is written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) name: Name,
    pub(super) size: u64,
    /// What its `ETag` is made of: the SHA-256 of its bytes, or a random value where the sender wanted no hash.
    pub(super) tag: [u8; 32],
    pub(super) sha256: Option<[u8; 32]>,
}

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) id: i64,
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) etag: String,
    /// Known for what was written in one piece, or hashed by a copy.
    pub(super) sha256: Option<[u8; 32]>,
    pub(super) modified: SystemTime,
    pub(super) about: About,
}

/// A piece of an object: a file, and where in the object it begins.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) name: Name,
    pub(super) start: u64,
    pub(super) size: u64,
}

/// One part of an upload.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) number: i32,
    pub(super) file: i64,
    pub(super) size: u64,
    /// What its `ETag` is made of.
    pub(super) tag: [u8; 32],
    pub(super) modified: SystemTime,
}

/// One upload that is neither completed nor aborted.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) key: String,
    pub(super) begun: SystemTime,
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        crate::private_database(path)?;
        let mut writer = connect(path)?;
        let setup = writer.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let layout = setup.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
        match layout {
            0 => {
                setup.execute_batch(TABLES)?;
                setup.pragma_update(None, "user_version", LAYOUT)?;
            }
            LAYOUT => {}
            found => {
                return Err(Error::Layout { path: path.into(), found, known: LAYOUT });
            }
        }
        setup.commit()?;
        crate::sync_folder_of(path)?;
        let readers = Arc::new(Readers::open(|| connect(path))?);
        let started = Writer::start(writer, Arc::clone(&readers), "objects-index");
        Ok(Self { readers, writer: started.map_err(|source| Error::Disk { path: path.into(), source })? })
    }

    /// Runs `look` on one snapshot, on a connection that never waits for the writer.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Connection) -> S3Result<T>) -> S3Result<T> {
        self.readers.read(|reader| look(reader).map_err(Refused)).map_err(|Refused(why)| why)
    }

    /// Whether the index can be relied on: see [`Index::write`].
    pub(super) fn sound(&self) -> bool {
        self.writer.sound()
    }

    /// Runs `change` in a transaction and waits until it is on disk.
    ///
    /// `after` is called with the outcome unless `change` refused, and before the caller can learn of it: if the caller
    /// has gone meanwhile, its drop must not remove a committed file.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> S3Result<T> + Send + 'static,
        after: impl FnOnce(Outcome) + Send + 'static,
    ) -> S3Result<T> {
        // What is stored can still be read. The log said it when it happened.
        let closed = || s3_error!(ServiceUnavailable, "The objects' index takes no changes until a restart.");
        if !self.sound() {
            return Err(closed());
        }
        let (answer, wait) = oneshot::channel();
        self.writer.send(Box::new(move |connection| {
            let result =
                in_savepoint(connection, |connection| change(connection).map_err(Refused)).map_err(|Refused(why)| why);
            Box::new(move |outcome| {
                if result.is_ok() {
                    after(outcome);
                }
                let result = match outcome {
                    Outcome::Committed => result,
                    Outcome::Full => Err(full()),
                    Outcome::Undone => {
                        result.and_then(|_| Err(s3_error!(ServiceUnavailable, "Another change failed with it.")))
                    }
                    Outcome::Failed => Err(s3_error!(InternalError, "The commit failed.")),
                };
                // If the caller is gone, the change stands all the same.
                let _gone = answer.send(result);
            })
        }));
        wait.await.map_err(|_| closed())?
    }
}

/// Why a change was refused.
struct Refused(S3Error);

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self(internal(error))
    }
}

/// The answer to an error that should not happen. It is also logged, since the client is told nothing of it.
pub(super) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> S3Error {
    tracing::error!(%error, "the embedded object store failed");
    S3Error::internal_error(error)
}

fn ask<T>(index: impl FnOnce() -> rusqlite::Result<T>) -> S3Result<T> {
    index().map_err(internal)
}

// Times are milliseconds since 1970, sizes are `SQLite`'s signed integers. Both can hold every value that this program
// writes.

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<SystemTime> {
    let millis = Duration::from_millis(row.get(column)?);
    Ok(SystemTime::UNIX_EPOCH + millis)
}

fn about(row: &Row<'_>) -> rusqlite::Result<About> {
    serde_json::from_str(row.get_ref("about")?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

fn object(row: &Row<'_>) -> rusqlite::Result<Object> {
    Ok(Object {
        id: row.get("id")?,
        key: row.get("key")?,
        size: row.get("size")?,
        etag: row.get("etag")?,
        sha256: row.get("sha256")?,
        modified: time(row, "modified")?,
        about: about(row)?,
    })
}

/// The object at `key`.
pub(super) fn find(index: &Connection, key: &str) -> S3Result<Option<Object>> {
    index
        .prepare_cached("SELECT * FROM object WHERE key = ?1")
        .and_then(|mut find| find.query_row([key], object).optional())
        .map_err(internal)
}

/// The objects whose keys come after `after` (or are at least `prefix`) and begin with `prefix`.
pub(super) fn list(index: &Connection, prefix: &str, after: &str, limit: usize) -> S3Result<Vec<Object>> {
    ask(|| {
        let mut list =
            index.prepare_cached("SELECT * FROM object WHERE key >= ?1 AND key > ?2 ORDER BY key LIMIT ?3")?;
        let rows = list.query_map(params![prefix, after, limit], object)?;
        // Keys with the same prefix are next to each other, so the first without it ends the list.
        rows.take_while(|row| row.as_ref().map_or(true, |found| found.key.starts_with(prefix))).collect()
    })
}

/// The pieces of an object that hold bytes of `range`.
pub(super) fn segments(index: &Connection, object: i64, range: &Range<u64>) -> S3Result<Vec<Segment>> {
    ask(|| {
        let mut look = index.prepare_cached(
            "SELECT file.name, segment.start, segment.size
             FROM segment JOIN file ON file.id = segment.file
             WHERE object = ?1 AND start < ?2 AND start + segment.size > ?3
             ORDER BY start",
        )?;
        let rows = look.query_map(params![object, range.end, range.start], |row| {
            let name = Name::from(row.get_ref(0)?.as_str()?);
            Ok(Segment { name, start: row.get(1)?, size: row.get(2)? })
        })?;
        rows.collect()
    })
}

/// Whether any row names this file.
pub(super) fn named(index: &Connection, name: &str) -> S3Result<bool> {
    index
        .prepare_cached("SELECT 1 FROM file WHERE name = ?1")
        .and_then(|mut find| find.exists([name]))
        .map_err(internal)
}

/// Inserts the row of a written file. Something must name it before the transaction ends.
fn enter(index: &Connection, file: &Written) -> rusqlite::Result<i64> {
    index.prepare_cached("INSERT INTO file (name, size, sha256) VALUES (?1, ?2, ?3)")?.insert(params![
        &*file.name,
        file.size,
        file.tag
    ])
}

/// Removes those of the files that nothing names any more, and returns their names.
fn forget(index: &Connection, files: &[i64]) -> rusqlite::Result<Vec<Name>> {
    let mut forget = index.prepare_cached(
        "DELETE FROM file WHERE id = ?1
         AND NOT EXISTS (SELECT 1 FROM segment WHERE segment.file = file.id)
         AND NOT EXISTS (SELECT 1 FROM part WHERE part.file = file.id)
         RETURNING name",
    )?;
    let mut names = Vec::new();
    for file in files {
        let name = forget.query_row([file], |row| Ok(Name::from(row.get_ref(0)?.as_str()?)));
        names.extend(name.optional()?);
    }
    Ok(names)
}

/// Removes the rows of the object at `key`, and returns the files that they named.
fn clear(index: &Connection, key: &str) -> rusqlite::Result<Vec<i64>> {
    let id: Option<i64> =
        index.prepare_cached("SELECT id FROM object WHERE key = ?1")?.query_row([key], |row| row.get(0)).optional()?;
    let Some(id) = id else {
        return Ok(Vec::new());
    };
    let files = index
        .prepare_cached("DELETE FROM segment WHERE object = ?1 RETURNING file")?
        .query_map([id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    index.prepare_cached("DELETE FROM object WHERE id = ?1")?.execute([id])?;
    Ok(files)
}

/// An object that is about to be stored, and the files that it is made of, in order.
struct Draft<'a> {
    key: &'a str,
    etag: &'a str,
    sha256: Option<[u8; 32]>,
    about: &'a About,
    pieces: &'a [(i64, u64)],
}

/// Replaces whatever is at the object's key, and returns the files that nothing names any more.
fn place(index: &Connection, draft: &Draft<'_>) -> rusqlite::Result<Vec<Name>> {
    let before = clear(index, draft.key)?;
    let size: u64 = draft.pieces.iter().map(|(_, size)| size).sum();
    let about =
        serde_json::to_string(draft.about).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let id = index
        .prepare_cached(
            "INSERT INTO object (key, size, etag, sha256, modified, about)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .insert(params![draft.key, size, draft.etag, draft.sha256, millis(SystemTime::now()), about])?;
    let mut add = index.prepare_cached("INSERT INTO segment (object, start, file, size) VALUES (?1, ?2, ?3, ?4)")?;
    let mut start = 0;
    for (file, size) in draft.pieces {
        add.execute(params![id, start, file, size])?;
        start += size;
    }
    forget(index, &before)
}

/// What must be at a key for an object to be stored there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Anything or nothing.
    Always,
    /// Nothing (`If-None-Match: *`).
    Vacant,
}

fn check(index: &Connection, key: &str, condition: Condition) -> S3Result<()> {
    if condition == Condition::Vacant && find(index, key)?.is_some() {
        return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"));
    }
    Ok(())
}

/// Stores an object made of one new file.
pub(super) fn put(
    index: &Connection,
    key: &str,
    file: &Written,
    about: &About,
    condition: Condition,
) -> S3Result<Vec<Name>> {
    check(index, key, condition)?;
    ask(|| {
        let pieces = [(enter(index, file)?, file.size)];
        let etag = super::hex(&file.tag);
        place(index, &Draft { key, etag: &etag, sha256: file.sha256, about, pieces: &pieces })
    })
}

/// Removes an object if it is there.
pub(super) fn delete(index: &Connection, key: &str) -> S3Result<Vec<Name>> {
    clear(index, key).and_then(|files| forget(index, &files)).map_err(internal)
}

/// Stores the object `source`, as it was read, at `key` too. No bytes are copied.
pub(super) fn copy(index: &Connection, source: &Object, key: &str, about: &About) -> S3Result<(Object, Vec<Name>)> {
    // Ids are never reused, and an object's bytes never change: same id, same bytes.
    if find(index, &source.key)?.is_none_or(|now| now.id != source.id) {
        return Err(s3_error!(OperationAborted, "The source changed while it was being copied."));
    }
    let orphans = ask(|| {
        let pieces: Vec<(i64, u64)> = index
            .prepare_cached("SELECT file, size FROM segment WHERE object = ?1 ORDER BY start")?
            .query_map([source.id], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let Object { etag, sha256, .. } = source;
        place(index, &Draft { key, etag, sha256: *sha256, about, pieces: &pieces })
    })?;
    let object = find(index, key)?.ok_or_else(|| s3_error!(InternalError))?;
    Ok((object, orphans))
}

/// Names one new file, which has the same bytes, in the place of all files of the object `id`, if it is still there.
pub(super) fn join(index: &Connection, id: i64, file: &Written) -> S3Result<Vec<Name>> {
    let before = ask(|| {
        index
            .prepare_cached("DELETE FROM segment WHERE object = ?1 RETURNING file")?
            .query_map([id], |row| row.get(0))?
            .collect::<Result<Vec<i64>, _>>()
    })?;
    if before.is_empty() {
        return Err(s3_error!(NoSuchKey, "The object was removed while its files were joined."));
    }
    ask(|| {
        let new = enter(index, file)?;
        index
            .prepare_cached("INSERT INTO segment (object, start, file, size) VALUES (?1, 0, ?2, ?3)")?
            .execute(params![id, new, file.size])?;
        forget(index, &before)
    })
}

/// Opens an upload.
pub(super) fn begin(index: &Connection, id: &str, key: &str, about: &About) -> S3Result<()> {
    let about = serde_json::to_string(about).map_err(internal)?;
    index
        .prepare_cached("INSERT INTO upload (id, key, begun, about) VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut add| add.execute(params![id, key, millis(SystemTime::now()), about]))
        .map_err(internal)?;
    Ok(())
}

/// The upload `id`, if it is one of `key`.
pub(super) fn upload(index: &Connection, id: &str, key: &str) -> S3Result<About> {
    index
        .prepare_cached("SELECT about FROM upload WHERE id = ?1 AND key = ?2")
        .and_then(|mut find| find.query_row([id, key], about).optional())
        .map_err(internal)?
        .ok_or_else(|| {
            s3_error!(NoSuchUpload, "The specified upload does not exist. It may have been completed or aborted.")
        })
}

/// The parts of an upload, ascending, from `after` on.
pub(super) fn parts(index: &Connection, id: &str, after: i32, limit: usize) -> S3Result<Vec<Part>> {
    ask(|| {
        let mut look = index.prepare_cached(
            "SELECT part.number, part.file, part.modified, file.size, file.sha256
             FROM part JOIN file ON file.id = part.file
             WHERE upload = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
        )?;
        let rows = look.query_map(params![id, after, limit], |row| {
            Ok(Part {
                number: row.get("number")?,
                file: row.get("file")?,
                size: row.get("size")?,
                tag: row.get("sha256")?,
                modified: time(row, "modified")?,
            })
        })?;
        rows.collect()
    })
}

/// The open uploads whose keys begin with `prefix`, after the given key and id.
pub(super) fn uploads(index: &Connection, prefix: &str, after: (&str, &str), limit: usize) -> S3Result<Vec<Upload>> {
    ask(|| {
        let mut list = index.prepare_cached(
            "SELECT id, key, begun FROM upload WHERE key >= ?1 AND (key, id) > (?2, ?3)
             ORDER BY key, id LIMIT ?4",
        )?;
        let rows = list.query_map(params![prefix, after.0, after.1, limit], |row| {
            Ok(Upload { id: row.get("id")?, key: row.get("key")?, begun: time(row, "begun")? })
        })?;
        rows.take_while(|row| row.as_ref().map_or(true, |found| found.key.starts_with(prefix))).collect()
    })
}

/// Sets a part of an upload to a new file, replacing an earlier one of that number.
pub(super) fn add_part(index: &Connection, id: &str, key: &str, number: i32, file: &Written) -> S3Result<Vec<Name>> {
    // The upload may have been completed or aborted while the bytes were in transit.
    upload(index, id, key)?;
    ask(|| {
        let before: Option<i64> = index
            .prepare_cached("SELECT file FROM part WHERE upload = ?1 AND number = ?2")?
            .query_row(params![id, number], |row| row.get(0))
            .optional()?;
        let new = enter(index, file)?;
        index
            .prepare_cached(
                "INSERT OR REPLACE INTO part (upload, number, file, modified)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![id, number, new, millis(SystemTime::now())])?;
        forget(index, before.as_slice())
    })
}

/// Removes an upload and its parts, and returns the files that nothing names any more.
fn end(index: &Connection, id: &str) -> rusqlite::Result<Vec<Name>> {
    let files: Vec<i64> = index
        .prepare_cached("DELETE FROM part WHERE upload = ?1 RETURNING file")?
        .query_map([id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    index.prepare_cached("DELETE FROM upload WHERE id = ?1")?.execute([id])?;
    forget(index, &files)
}

/// Aborts an upload.
pub(super) fn abort(index: &Connection, id: &str, key: &str) -> S3Result<Vec<Name>> {
    upload(index, id, key)?;
    end(index, id).map_err(internal)
}

/// Makes the object out of the parts that the client lists; the other parts are removed.
pub(super) fn complete(
    index: &Connection,
    id: &str,
    key: &str,
    listed: &[(i32, Option<String>)],
    condition: Condition,
) -> S3Result<(String, Vec<Name>)> {
    let about = upload(index, id, key)?;
    check(index, key, condition)?;
    let mut ascending = listed.iter().zip(listed.iter().skip(1));
    if !ascending.all(|((one, _), (next, _))| one < next) {
        return Err(s3_error!(
            InvalidPartOrder,
            "The list of parts was not in ascending order. Parts must be ordered by part number."
        ));
    }
    if listed.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    }
    let have: HashMap<i32, Part> =
        parts(index, id, 0, super::MAX_PARTS)?.into_iter().map(|part| (part.number, part)).collect();
    let mut pieces = Vec::with_capacity(listed.len());
    let mut sums = Vec::with_capacity(listed.len() * 32);
    for (at, (number, etag)) in listed.iter().enumerate() {
        let part = have
            .get(number)
            .filter(|part| etag.as_ref().is_none_or(|etag| *etag == super::hex(&part.tag)))
            .ok_or_else(|| {
                s3_error!(
                    InvalidPart,
                    "One or more of the specified parts could not be found. The part may not \
                     have been uploaded, or the specified entity tag may not match the part's \
                     entity tag."
                )
            })?;
        if part.size < super::MIN_PART && at + 1 < listed.len() {
            return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"));
        }
        pieces.push((part.file, part.size));
        sums.extend_from_slice(&part.tag);
    }
    let etag = format!("{}-{}", super::hex(&Sha256::digest(&sums)), listed.len());
    let orphans = ask(|| {
        let draft = Draft { key, etag: &etag, sha256: None, about: &about, pieces: &pieces };
        let mut orphans = place(index, &draft)?;
        orphans.extend(end(index, id)?);
        Ok(orphans)
    })?;
    Ok((etag, orphans))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_change_that_panics_all_others_are_refused_and_reads_go_on() {
        let folder = tempfile::TempDir::new().unwrap();
        let index = Index::open(&folder.path().join("objects.sqlite")).unwrap();
        let opened = index.write(|rows| begin(rows, "one", "a", &About::default()), |_| {}).await;
        opened.unwrap();
        let died = index.write::<()>(|_| panic!("on purpose"), |_| {}).await;
        let code = |error: S3Error| error.code().as_str().to_owned();
        assert_eq!(code(died.unwrap_err()), "ServiceUnavailable");
        for _ in 0..3 {
            let refused = index.write(|rows| begin(rows, "two", "a", &About::default()), |_| {}).await;
            assert_eq!(code(refused.unwrap_err()), "ServiceUnavailable");
        }
        assert!(!index.sound());
        assert_eq!(index.read(|rows| uploads(rows, "", ("", ""), 10)).unwrap().len(), 1);
    }
}
