//! Connections that read, and how long they keep what they see.
//!
//! To begin and to end a read costs `SQLite` some locks in files that all connections share: more than a small read
//! itself. So a connection keeps its snapshot, and the next read uses it, for as long as nothing is written:
//!
//! 1. Before the [writer](crate::group) begins a transaction it makes the turn odd, and ends the snapshots of connections
//!    that nobody reads on. With one that stays, `SQLite` can't begin its WAL anew.
//! 2. Once the transaction has ended, and before anybody is told of it, it makes the turn even.
//! 3. A read looks at the turn before anything else. *Even, and the one of its connection's snapshot*: nothing was
//!    written since, so the snapshot is what is there. *Another*: it takes a new one.
//! 4. After a read the snapshot stays if the turn is still the same, and even. *The writer comes just then*, and finds the
//!    connection in use: the snapshot stays until the next read on it, or the next transaction.
//!
//! So a read sees every commit that was acknowledged before it began, and never less than a read that ended before.

use crate::group::execute;
use rusqlite::Connection;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Connections to one database that read.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    all: Vec<Mutex<Reader>>,
    /// The next one for a read that finds none free.
    next: AtomicUsize,
    /// Odd while something is written.
    turn: AtomicU64,
}

#[derive(Debug)]
struct Reader {
    connection: Connection,
    /// The turn of the snapshot that it keeps, if it does.
    snapshot: Option<u64>,
}

impl Readers {
    /// As many as can read at the same time.
    pub(crate) fn open(connect: impl Fn() -> rusqlite::Result<Connection>) -> rusqlite::Result<Self> {
        let number = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let reader = |_| connect().map(|connection| Mutex::new(Reader { connection, snapshot: None }));
        let all = (0..number).map(reader).collect::<rusqlite::Result<_>>()?;
        Ok(Self { all, ..Self::default() })
    }

    /// Reads in one snapshot, on a connection that is free, or on the next one.
    pub(crate) fn read<T, E: From<rusqlite::Error>>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let free = self.all.iter().find_map(|reader| reader.try_lock().ok());
        let mut reader = free.or_else(|| self.next()).ok_or(rusqlite::Error::InvalidQuery)?;
        let turn = self.turn.load(Ordering::SeqCst);
        if reader.snapshot != Some(turn) {
            reader.ended()?;
            execute(&reader.connection, "BEGIN")?;
        }
        // Until the end it is nobody's: whatever fails or panics meanwhile, the next read begins anew.
        reader.snapshot = None;
        let found = read(&reader.connection);
        if found.is_ok() && turn.is_multiple_of(2) && self.turn.load(Ordering::SeqCst) == turn {
            reader.snapshot = Some(turn);
        } else {
            reader.ended()?;
        }
        found
    }

    fn next(&self) -> Option<MutexGuard<'_, Reader>> {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.all.len().max(1);
        // Nothing that a holder left open stays so, even if it panicked.
        self.all.get(next).map(|reader| reader.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something will be written.
    pub(crate) fn writing(&self) {
        self.turn.fetch_add(1, Ordering::SeqCst);
        for mut reader in self.all.iter().filter_map(|reader| reader.try_lock().ok()) {
            if let Err(error) = reader.ended() {
                tracing::error!(%error, "a snapshot could not be ended");
            }
        }
    }

    /// It is written, or it is not.
    pub(crate) fn written(&self) {
        self.turn.fetch_add(1, Ordering::SeqCst);
    }
}

impl Reader {
    fn ended(&mut self) -> rusqlite::Result<()> {
        self.snapshot = None;
        if self.connection.is_autocommit() { Ok(()) } else { execute(&self.connection, "COMMIT") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn readers(path: &Path) -> Readers {
        Readers {
            all: vec![Mutex::new(Reader { connection: Connection::open(path).unwrap(), snapshot: None })],
            ..Readers::default()
        }
    }

    fn count(readers: &Readers) -> i64 {
        readers.read(|connection| connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))).unwrap()
    }

    fn is_kept(readers: &Readers) -> bool {
        !readers.all[0].lock().unwrap().connection.is_autocommit()
    }

    #[test]
    fn a_snapshot_stays_until_something_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update(None, "journal_mode", "WAL").unwrap();
        writer.execute_batch("CREATE TABLE t (n INTEGER)").unwrap();
        let readers = readers(&path);
        assert_eq!((count(&readers), is_kept(&readers)), (0, true));

        readers.writing();
        assert!(!is_kept(&readers), "nothing is in the way of the WAL");
        writer.execute_batch("BEGIN; INSERT INTO t VALUES (1)").unwrap();
        assert_eq!((count(&readers), is_kept(&readers)), (0, false), "it is not there, and may come any moment");
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!((count(&readers), is_kept(&readers)), (1, false), "it is there, and nobody was told");
        readers.written();
        assert_eq!((count(&readers), is_kept(&readers)), (1, true));

        // Somebody reads while the writer comes and goes.
        let seen = readers.read(|connection| {
            readers.writing();
            writer.execute_batch("INSERT INTO t VALUES (2)").unwrap();
            readers.written();
            connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
        });
        assert_eq!((seen.unwrap(), is_kept(&readers)), (1, false));
        assert_eq!((count(&readers), is_kept(&readers)), (2, true));
        let failed: Result<(), _> = readers.read(|_| Err(rusqlite::Error::InvalidQuery));
        assert!(failed.is_err() && !is_kept(&readers), "what failed keeps nothing");
    }
}
