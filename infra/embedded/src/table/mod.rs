//! The rows of an installation, in one `SQLite` file.
//!
//! It is the other side of the seam [`Backend`]: the same few operations as `DynamoDB` has through the SDK, with the same
//! promises, and nothing of its protocol. Rows are kept as the JSON texts that come in.
//!
//! Writes share commits ([`group`](crate::group)), which wait for the disk (3–7 ms where it really syncs). Reads don't
//! queue behind them: they have [connections of their own](crate::readers) on the same file, which `SQLite`'s WAL allows,
//! and see every commit that was acknowledged before they began. They take microseconds, and so are answered on the thread that asks.
//! Only a scan, which reads everything, runs on a blocking thread, and on a connection that nobody else waits for.

mod changes;
mod reads;

use crate::group::{Outcome, Writer, in_savepoint, is_full};
use crate::readers::Readers;
use crate::{Error, private_database};
use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use shared::store::keys::Key;
use shared::store::table::backend::{Attributes, Backend, Query, Text, Texts};
use shared::store::table::write::Operation;
use shared::store::table::{StoreError, Written};
use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// The number of this layout. 1 was that of no table here.
const LAYOUT: i64 = 3;
/// Rows lie in the order of their keys, so that a list reads neighbours.
const TABLES: &str = "CREATE TABLE item (
        pk TEXT NOT NULL,
        sk TEXT NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (pk, sk)
    ) STRICT, WITHOUT ROWID;";
/// The most bytes of a transaction: a limit of `DynamoDB`.
const MAX_BYTES: usize = 4 << 20;
/// How many prepared statements are kept: a batch has one for each number of keys.
const STATEMENTS: usize = 128;

/// The table in a file. Clones are the same.
#[derive(Clone)]
pub struct Table(Arc<Inner>);

struct Inner {
    readers: Arc<Readers>,
    /// For scans alone.
    scanner: Arc<Mutex<Connection>>,
    /// Closed last.
    writer: Writer,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

impl Table {
    /// Opens the file at `path`, or creates it. It must be on a local disk: `SQLite`'s WAL shares memory between
    /// connections.
    ///
    /// # Errors
    /// [`Error::Layout`] if there is something else in the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        private_database(path)?;
        let mut writer = Connection::open(path)?;
        writer.busy_timeout(Duration::from_secs(10))?;
        let found = writer.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
        let tables: i64 = writer.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if found != LAYOUT && (found, tables) != (0, 0) {
            return Err(Error::Layout { path: path.into(), found, known: LAYOUT });
        }
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        writer.set_prepared_statement_cache_capacity(STATEMENTS);
        if found != LAYOUT {
            let setup = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            setup.execute_batch(TABLES)?;
            setup.pragma_update(None, "user_version", LAYOUT)?;
            setup.commit()?;
        }
        crate::sync_folder_of(path)?;
        let reader = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(Duration::from_secs(10))?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS);
            Ok::<_, rusqlite::Error>(connection)
        };
        let readers = Arc::new(Readers::open(reader)?);
        let disk = |source| Error::Disk { path: path.into(), source };
        let scanner = Arc::new(Mutex::new(reader()?));
        let writer = Writer::start(writer, Arc::clone(&readers), "table").map_err(disk)?;
        Ok(Self(Arc::new(Inner { readers, scanner, writer })))
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        self.0.readers.read(read).map_err(failed)
    }

    /// Runs a change in a transaction, and waits until it is on disk. Once begun it runs to its end, even if the caller
    /// goes away.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = oneshot::channel();
        self.0.writer.send(Box::new(move |connection| {
            let result = in_savepoint(connection, change);
            Box::new(move |outcome| {
                let result = match outcome {
                    Outcome::Committed => result.map_err(|Refused(why)| why),
                    Outcome::Full => Err(StoreError::Full),
                    Outcome::Undone => result.map_err(|Refused(why)| why).and_then(|_| {
                        Err(StoreError::Unavailable(
                            "another change failed that was to be committed with it".to_owned(),
                        ))
                    }),
                    Outcome::Failed => Err(StoreError::Unavailable("a commit of the table failed".to_owned())),
                };
                let _gone = answer.send(result);
            })
        }));
        wait.await.map_err(|_| if self.0.writer.sound() { busy() } else { closed() })?
    }
}

/// The answer where the file could not be written to.
fn busy() -> StoreError {
    StoreError::Unavailable("the table takes no change now, try again".to_owned())
}

/// A connection, even if a holder panicked: nothing that is read stays open.
fn locked(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer where a commit failed before, and nobody knows whether a start would find it.
fn closed() -> StoreError {
    StoreError::Unavailable("the table takes no changes until the server is started again".to_owned())
}

/// The error that callers get for one of the file.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` wants it")]
fn failed(error: rusqlite::Error) -> StoreError {
    if is_full(&error) {
        tracing::error!("the disk of the table is full");
        return StoreError::Full;
    }
    tracing::error!(%error, "the table failed");
    StoreError::Unavailable(error.to_string())
}

/// Why nothing of a change was written.
struct Refused(StoreError);

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self(failed(error))
    }
}

#[async_trait]
impl Backend for Table {
    async fn create(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn usable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        if !self.0.writer.sound() {
            return Err(closed());
        }
        self.read(|connection| connection.prepare_cached("SELECT 1 FROM item LIMIT 1")?.exists([]).map(drop))
    }

    async fn get(&self, keys: &[Key], attributes: Attributes<'_>) -> Result<Vec<Option<Text>>, StoreError> {
        self.read(|connection| reads::get(connection, keys, attributes))
    }

    async fn query(&self, query: Query<'_>) -> Result<Texts, StoreError> {
        self.read(|connection| reads::query(connection, &query))
    }

    async fn scan(&self, start: Option<&Key>, limit: usize) -> Result<Texts, StoreError> {
        let (scanner, start) = (Arc::clone(&self.0.scanner), start.cloned());
        let scan = move || reads::scan(&locked(&scanner), start.as_ref(), limit).map_err(failed);
        let page = tokio::task::spawn_blocking(scan).await;
        page.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<Written, StoreError> {
        let mut rows = HashSet::new();
        if !operations.iter().all(|operation| rows.insert(operation.key())) {
            return Err(StoreError::Mistake("a transaction writes a row twice".to_owned()));
        }
        let bytes: usize = operations.iter().map(changes::size).sum();
        if bytes > MAX_BYTES {
            return Err(StoreError::Mistake(format!("a transaction of {bytes} bytes")));
        }
        self.write(move |connection| changes::transact(connection, &operations)).await
    }

    async fn put(&self, rows: Vec<(Key, Text)>) -> Result<(), StoreError> {
        self.write(move |connection| rows.iter().try_for_each(|(key, text)| changes::put(connection, key, text))).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<(), StoreError> {
        self.write(move |connection| keys.iter().try_for_each(|key| changes::delete(connection, key))).await
    }
}
