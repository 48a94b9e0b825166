//! A table and a bucket on local disk, for the installations that have no AWS.
//!
//! - [`table::Table`] keeps rows in one `SQLite` file: the other side of the seam behind which `DynamoDB` is.
//! - [`objects::Objects`] is S3: immutable files, and one `SQLite` file that records which objects they make up. It hands
//!   out a [`SharedHttpClient`] that the SDK takes as its HTTP client, and that answers in the process instead of over a
//!   socket.
//!
//! Both are real storage, not mocks: what was acknowledged survives `kill -9` and power loss.
//!
//! [`SharedHttpClient`]: aws_smithy_runtime_api::client::http::SharedHttpClient

mod connector;
mod group;
pub mod objects;
mod readers;
pub mod table;
pub mod wal;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::fs::{DirBuilder, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The code of the bucket's error for a disk without room. S3 has none.
const FULL: &str = "InsufficientStorage";

/// Why a store could not be opened, saved or swept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused: a missing folder, no permission, no space.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file or folder concerned.
        path: PathBuf,
        /// What the operating system reported.
        source: std::io::Error,
    },
    /// A database could not be opened, read or copied.
    #[error("a database of the data folder: {0}")]
    Database(#[from] rusqlite::Error),
    /// A database was written by a version of this program that this one does not know, or by another program.
    #[error("{path} has layout {found}, this program knows {known}", path = .path.display())]
    Layout {
        /// The database.
        path: PathBuf,
        /// The layout number in the file.
        found: i64,
        /// The layout number of this program.
        known: i64,
    },
    /// Something can be read by other users of the machine, and this program may not change that.
    #[error("other users can read {path}: run `chmod -R go= {path}` as its owner, and start again", path = .0.display())]
    Readable(PathBuf),
    /// Somebody else may have put something there, or may do so.
    #[error(
        "{path} belongs to another user, is a link, or lies where others may write: \
         look at what is in it, give it to the user of this program with `chown` or remove it, and start again",
        path = .0.display()
    )]
    NotOurs(PathBuf),
    /// A database lost the file that held its latest changes, or has another one.
    #[error(
        "{path} was in use when the server ended, and the file of its latest changes, {path}-wal, \
         is gone or belongs to another copy of it: put both back as they were, or restore a backup of the whole folder; \
         to start without those changes, remove {mark}",
        path = .path.display(),
        mark = .mark.display()
    )]
    WalLost {
        /// The database.
        path: PathBuf,
        /// The file that says that it was in use.
        mark: PathBuf,
    },
    /// A path that is not UTF-8, which `SQLite` can't be given.
    #[error("{}: the path is not UTF-8", .0.display())]
    Path(PathBuf),
}

/// Writes a copy of a database as of now to `to`, which must not exist yet. Another process may be using the database:
/// neither its reads nor its writes wait, and nothing of the database is changed. `in_use` is the [mark](wal::InUse) of
/// databases that are in use.
pub fn snapshot(database: &Path, to: &Path, in_use: &Path) -> Result<(), Error> {
    let name = to.to_str().ok_or_else(|| Error::Path(to.into()))?;
    owned_file(database)?;
    private_file(to)?;
    // Not only for reading: after a crash, the latest changes are found only by one who may write the file of their
    // places.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(database, flags)?;
    source.busy_timeout(std::time::Duration::from_secs(30))?;
    source.execute("VACUUM INTO ?1", [name])?;
    // Closing must not take the latest changes over where a server died: the mark says that they have a file of their
    // own. If the server ended in order meanwhile, nobody else takes them over.
    source.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, in_use.exists())?;
    sync(to)?;
    sync_folder_of(to)
}

/// Makes the file of a database, and takes the rights on it away from everybody but its owner. `SQLite` gives new
/// files beside it the same rights.
fn private_database(path: &Path) -> Result<(), Error> {
    private_file(path)?;
    for end in ["-wal", "-shm", "-journal"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        owned_file(Path::new(&beside))?;
        deny_others(Path::new(&beside))?;
    }
    Ok(())
}

/// Makes a file that only its owner may read and write, or takes the rights on it away from everybody else.
///
/// # Errors
/// [`Error::NotOurs`] if it is a link or somebody else's: its bytes may be theirs.
pub fn private_file(path: &Path) -> Result<(), Error> {
    let disk = |source| Error::Disk { path: path.into(), source };
    owned_file(path)?;
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(disk)?;
    deny_others(path)
}

/// The same for a folder, which may be a link to one.
fn private_folder(path: &Path) -> Result<(), Error> {
    let disk = |source| Error::Disk { path: path.into(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(disk)?;
    owned_folder(path)?;
    deny_others(path)
}

/// Checks that a file, if it exists, belongs to the user of this program and is no link.
///
/// # Errors
/// [`Error::NotOurs`].
pub fn owned_file(path: &Path) -> Result<(), Error> {
    match std::fs::symlink_metadata(path) {
        Ok(known) if known.is_file() && is_ours(&known) => Ok(()),
        Ok(_) => Err(Error::NotOurs(path.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Disk { path: path.into(), source }),
    }
}

/// Checks that a folder belongs to the user of this program, and that nobody else can put another one in its place.
///
/// # Errors
/// [`Error::NotOurs`].
pub fn owned_folder(path: &Path) -> Result<(), Error> {
    let disk = |source| Error::Disk { path: path.into(), source };
    let path = path.canonicalize().map_err(disk)?;
    let known = std::fs::metadata(&path).map_err(disk)?;
    if !known.is_dir() || !is_ours(&known) {
        return Err(Error::NotOurs(path));
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    let above = std::fs::metadata(parent).map_err(disk)?;
    // In a folder with the sticky bit, like /tmp, only the owner of something may rename it.
    let renamed = above.mode() & 0o022 != 0 && above.mode() & 0o1000 == 0;
    if renamed { Err(Error::NotOurs(parent.into())) } else { Ok(()) }
}

fn is_ours(known: &Metadata) -> bool {
    known.uid() == rustix::process::geteuid().as_raw()
}

/// The same for a folder that its group may enter.
fn folder_of_group(path: &Path) -> Result<(), Error> {
    private_folder(path)?;
    let given = std::fs::metadata(path)
        .map(|known| known.permissions().mode() & 0o700 | 0o050)
        .and_then(|mode| std::fs::set_permissions(path, Permissions::from_mode(mode)));
    given.map_err(|source| Error::Disk { path: path.into(), source })
}

/// Takes the rights on something, if it exists, away from everybody but its owner.
///
/// # Errors
/// [`Error::Readable`] if that is not possible.
pub fn deny_others(path: &Path) -> Result<(), Error> {
    let rights = || std::fs::metadata(path).map(|known| known.permissions().mode());
    let shared = |mode: u32| mode & 0o077 != 0;
    let mode = match rights() {
        Ok(mode) if !shared(mode) => return Ok(()),
        Ok(mode) => mode & 0o700,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Disk { path: path.into(), source }),
    };
    let denied = std::fs::set_permissions(path, Permissions::from_mode(mode)).and_then(|()| rights());
    match denied {
        // Some file systems accept the change and ignore it.
        Ok(mode) if !shared(mode) => Ok(()),
        // A database that is still being closed removes the files beside it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(Error::Readable(path.into())),
    }
}

/// Waits until a file's bytes, or a folder's names, are on disk.
fn sync(path: &Path) -> Result<(), Error> {
    let disk = |source| Error::Disk { path: path.into(), source };
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(disk)
}

/// Waits until the name of `path` is on disk.
fn sync_folder_of(path: &Path) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync(folder.unwrap_or(Path::new(".")))
}
