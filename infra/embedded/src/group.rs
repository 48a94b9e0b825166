//! Group commit: one thread owns the connection that writes, and changes that wait are committed together.
//!
//! 1. A change arrives in a queue. While the thread waits for the disk, others queue up behind it.
//! 2. The thread begins a transaction and runs all that wait, one after another, each in a savepoint of its own: so they
//!    are serial, and one that is refused leaves no trace. *Dies*: nothing of them is there.
//! 3. It commits, which waits until the disk has them all. *Dies before the end*: nobody was answered, and a start finds
//!    all of them or none.
//! 4. It answers them, also those that were refused: what they saw may have been another's change of the same commit.
//!    *Dies*: they are there, and nobody was told.
//!
//! A disk without room refuses a commit before any of it counts. After any other failure of a commit nobody can tell
//! whether a start would find it, so nothing more is changed until then. An error in the middle of a change may make
//! `SQLite` roll everything back: then nothing of this commit is there, and the next one begins anew.

use crate::readers::Readers;
use rusqlite::Connection;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// One change, run inside the open transaction; it returns what to do once the commit is known.
pub(crate) type Change = Box<dyn FnOnce(&Connection) -> After + Send>;
type After = Box<dyn FnOnce(Outcome) + Send>;

/// The outcome of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is on disk.
    Committed,
    /// It is not, since there is no room on the disk.
    Full,
    /// It is not, since something else of the same commit failed. Another try may do.
    Undone,
    /// It is not, or nobody can tell.
    Failed,
}

/// The most changes of one commit.
const MOST: usize = 256;

/// The thread that writes a database. Dropping this waits until what waits is done and the database is closed: if that was
/// its last connection, `SQLite` takes its latest changes over then.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Until it is dropped.
    changes: Option<mpsc::Sender<Change>>,
    thread: Option<JoinHandle<()>>,
    /// A commit failed, and it is unknown whether it will be there after a restart.
    broken: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the thread. `readers` read the same database, and `what` names it in the log.
    pub(crate) fn start(connection: Connection, readers: Arc<Readers>, what: &'static str) -> std::io::Result<Self> {
        // What a savepoint may take back is kept in memory, and not in a file on another disk.
        connection.pragma_update(None, "temp_store", "MEMORY").map_err(std::io::Error::other)?;
        let broken = Arc::new(AtomicBool::new(false));
        let (changes, queue) = mpsc::channel();
        let flag = Arc::clone(&broken);
        let thread = std::thread::Builder::new().name(what.to_owned()).spawn(move || {
            // However it ends, nothing is changed after it.
            let _ended = Ended(Arc::clone(&flag), what);
            run(&connection, &readers, &queue, &flag, what);
            // The last connection takes the latest changes over.
            drop((readers, connection));
        })?;
        Ok(Self { changes: Some(changes), thread: Some(thread), broken })
    }

    /// Whether changes are still taken.
    pub(crate) fn sound(&self) -> bool {
        !self.broken.load(Ordering::Acquire)
    }

    /// Has a change run. One that can't be is dropped.
    pub(crate) fn send(&self, change: Change) {
        if let Some(changes) = self.changes.as_ref().filter(|_| self.sound()) {
            // The thread ended: dropping the change says so to whoever waits for it.
            let _dropped = changes.send(change);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.changes.take());
        // A change may be the last to know of us.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // It said itself what it failed at.
            let _ended = thread.join();
        }
    }
}

/// Says when it is dropped that nothing more is changed.
struct Ended(Arc<AtomicBool>, &'static str);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        if std::thread::panicking() {
            tracing::error!("the {} failed: nothing is stored until the server is started again", self.1);
        }
    }
}

fn run(connection: &Connection, readers: &Readers, queue: &mpsc::Receiver<Change>, broken: &AtomicBool, what: &str) {
    while let Ok(first) = queue.recv() {
        // A change that is not run at all: dropping it answers its caller.
        if broken.load(Ordering::Acquire) {
            continue;
        }
        readers.writing();
        let (done, outcome) = together(connection, first, queue, broken, what);
        readers.written();
        for after in done {
            after(outcome);
        }
    }
}

/// Runs a change and all that wait in one transaction, and returns what to do now that its outcome is known.
fn together(
    connection: &Connection,
    first: Change,
    queue: &mpsc::Receiver<Change>,
    broken: &AtomicBool,
    what: &str,
) -> (Vec<After>, Outcome) {
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE") {
        tracing::error!(%error, "the {what} takes no change now");
        // Dropping the change answers its caller.
        return (Vec::new(), Outcome::Undone);
    }
    let mut done = vec![first(connection)];
    while done.len() < MOST && !connection.is_autocommit() {
        let Ok(next) = queue.try_recv() else { break };
        done.push(next(connection));
    }
    if connection.is_autocommit() {
        tracing::error!("a change of the {what} failed, and all that was to be committed with it");
        return (done, Outcome::Undone);
    }
    let outcome = commit(connection, broken, what);
    (done, outcome)
}

fn commit(connection: &Connection, broken: &AtomicBool, what: &str) -> Outcome {
    let Err(error) = execute(connection, "COMMIT") else { return Outcome::Committed };
    tracing::error!(%error, "a commit of the {what} failed");
    // A full disk fails before the commit's own frame is written. Any other failure may come later, when the frame is
    // written but the disk does not confirm it; then the commit may be found after a restart although it was answered
    // with an error.
    let full = is_full(&error);
    if !full {
        broken.store(true, Ordering::Release);
        tracing::error!("nothing is stored until the server is started again");
    }
    let _nothing_open = execute(connection, "ROLLBACK");
    if full { Outcome::Full } else { Outcome::Failed }
}

/// Whether there is no room on the disk.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

pub(crate) fn execute(connection: &Connection, sql: &str) -> Result<(), rusqlite::Error> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Runs a change of which nothing stays if it is refused.
pub(crate) fn in_savepoint<T, E: From<rusqlite::Error>>(
    connection: &Connection,
    change: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    execute(connection, "SAVEPOINT change")?;
    let release = || execute(connection, "RELEASE change");
    let (result, kept) = match change(connection) {
        Ok(done) => match release() {
            Ok(()) => return Ok(done),
            Err(error) => (Err(error.into()), false),
        },
        Err(why) => (Err(why), execute(connection, "ROLLBACK TO change").and_then(|()| release()).is_ok()),
    };
    // After some errors there is no savepoint any more, and no transaction, either.
    if !kept {
        let _nothing_open = execute(connection, "ROLLBACK");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    fn fresh(folder: &tempfile::TempDir) -> (Writer, Connection) {
        let path = folder.path().join("db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER UNIQUE)").unwrap();
        (Writer::start(connection, Arc::default(), "test").unwrap(), Connection::open(&path).unwrap())
    }

    /// Sends a change that waits in the middle, and returns what lets it go.
    fn held(writer: &Writer) -> std::sync::mpsc::Sender<()> {
        let (go, wait) = channel();
        writer.send(Box::new(move |_| {
            wait.recv().unwrap();
            Box::new(|_| {})
        }));
        go
    }

    type Ended = (Outcome, rusqlite::Result<()>);

    fn insert(writer: &Writer, numbers: Vec<i64>) -> Receiver<Ended> {
        let (told, ended) = channel();
        writer.send(Box::new(move |connection| {
            let result = in_savepoint(connection, |connection| {
                numbers
                    .iter()
                    .try_for_each(|number| connection.execute("INSERT INTO t VALUES (?1)", [number]).map(drop))
            });
            Box::new(move |outcome| told.send((outcome, result)).unwrap())
        }));
        ended
    }

    #[test]
    fn what_waits_is_committed_together_and_what_is_refused_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, reader) = fresh(&folder);
        let version = || reader.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).unwrap();
        let (before, go) = (version(), held(&writer));
        let good: Vec<_> = (0..20).map(|number| insert(&writer, vec![number])).collect();
        // The second number is there already.
        let bad = insert(&writer, vec![100, 3]);
        let last = insert(&writer, vec![101]);
        assert_eq!(version(), before);
        go.send(()).unwrap();
        assert!(good.into_iter().all(|ended| matches!(ended.recv().unwrap(), (Outcome::Committed, Ok(())))));
        assert!(matches!(bad.recv().unwrap(), (Outcome::Committed, Err(_))));
        assert!(matches!(last.recv().unwrap(), (Outcome::Committed, Ok(()))));
        assert_eq!(version(), before + 1, "one commit");
        let there: Vec<i64> = (0..20).chain([101]).collect();
        let mut statement = reader.prepare("SELECT n FROM t ORDER BY n").unwrap();
        let found = statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<Vec<i64>, _>>().unwrap();
        assert_eq!(found, there);
    }

    #[test]
    fn what_waits_is_done_before_the_thread_ends_and_after_a_panic_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, reader) = fresh(&folder);
        let go = held(&writer);
        let waiting = insert(&writer, vec![1]);
        go.send(()).unwrap();
        drop(writer);
        assert!(matches!(waiting.recv().unwrap(), (Outcome::Committed, Ok(()))));
        assert_eq!(reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 1);

        let folder = tempfile::tempdir().unwrap();
        let (writer, reader) = fresh(&folder);
        let go = held(&writer);
        let with_it = insert(&writer, vec![1]);
        writer.send(Box::new(|_| panic!("on purpose")));
        go.send(()).unwrap();
        assert!(with_it.recv().is_err(), "nobody is told that it is there");
        while writer.sound() {
            std::thread::yield_now();
        }
        assert!(insert(&writer, vec![2]).recv().is_err());
        assert_eq!(reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }

    #[test]
    fn when_sqlite_takes_back_everything_nobody_is_told_that_it_is_there_and_the_next_change_is() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, reader) = fresh(&folder);
        let go = held(&writer);
        let with_it = insert(&writer, vec![1]);
        let (told, failed) = channel();
        writer.send(Box::new(move |connection| {
            // As a full disk does in the middle of a statement.
            let result: rusqlite::Result<()> = in_savepoint(connection, |connection| {
                connection.execute_batch("ROLLBACK")?;
                connection.execute_batch("this is no SQL")
            });
            Box::new(move |outcome| told.send((outcome, result.is_err())).unwrap())
        }));
        let after_it = insert(&writer, vec![2]);
        go.send(()).unwrap();
        assert!(matches!(with_it.recv().unwrap(), (Outcome::Undone, Ok(()))));
        assert_eq!(failed.recv().unwrap(), (Outcome::Undone, true));
        assert!(matches!(after_it.recv().unwrap(), (Outcome::Committed, Ok(()))));
        assert!(writer.sound());
        assert_eq!(reader.query_row("SELECT group_concat(n) FROM t", [], |row| row.get::<_, String>(0)).unwrap(), "2");
    }
}
