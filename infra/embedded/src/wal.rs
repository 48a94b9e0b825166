//! Databases that lost their latest changes are noticed.
//!
//! `SQLite` writes changes to a file beside the database, and opens a database without that file as if there had never
//! been any. After a server was killed, that file may hold everything since the last checkpoint, so whoever removes it,
//! or copies the folder without it, would silently go back in time.
//!
//! 1. Once the databases are open, and so their files are there, a mark is written that names both files of each. The
//!    mark of the time before goes before they are opened.
//! 2. When the server ends in order, the mark goes first, and then `SQLite` takes the changes over and removes the file.
//!    *Dies between*: the mark is gone, and a database that is whole opens as it always does.
//! 3. A start that finds a mark asks for the files in it. *Both are others*: the whole folder was copied, or restored.
//!    *One is missing, or only one is another*: the start is refused.

use crate::Error;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The mark of databases that are in use. It goes when it is dropped.
#[derive(Debug)]
pub struct InUse(PathBuf);

impl InUse {
    /// Checks, before the databases are opened, that they have the files that they had when they were last in use.
    ///
    /// # Errors
    /// [`Error::WalLost`].
    pub fn check(mark: &Path, databases: &[&Path]) -> Result<(), Error> {
        crate::owned_file(mark)?;
        let text = match std::fs::read_to_string(mark) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::Disk { path: mark.into(), source }),
        };
        // A line that was not written to its end says nothing.
        let known: Vec<(u64, u64)> = text.lines().filter_map(|line| parsed(line.split_once(' ')?)).collect();
        for (path, (main, wal)) in databases.iter().zip(known).filter(|(_, (_, wal))| *wal != 0) {
            let (main_now, wal_now) = (inode(path)?, inode(&wal_of(path))?);
            let same = (main_now == Some(main), wal_now == Some(wal));
            let copied = !same.0 && !same.1 && wal_now.is_some();
            if same != (true, true) && !copied {
                return Err(Error::WalLost { path: (*path).into(), mark: mark.into() });
            }
        }
        // Opening may change the files before there is a new mark.
        removed(mark)
    }

    /// Marks open databases as in use.
    pub fn mark(mark: PathBuf, databases: &[&Path]) -> Result<Self, Error> {
        let mut text = String::new();
        for path in databases {
            let (main, wal) = (inode(path)?.unwrap_or(0), inode(&wal_of(path))?.unwrap_or(0));
            // Writing to a text never fails.
            let _ = writeln!(text, "{main} {wal}.");
        }
        let disk = |source| Error::Disk { path: mark.clone(), source };
        crate::private_file(&mark)?;
        let mut file = OpenOptions::new().write(true).truncate(true).mode(0o600).open(&mark).map_err(disk)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(disk)?;
        crate::sync_folder_of(&mark)?;
        Ok(Self(mark))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Err(error) = removed(&self.0) {
            tracing::warn!(%error, "the mark of open databases stays");
        }
    }
}

/// Removes the mark, so that it does not come back when the power fails.
fn removed(mark: &Path) -> Result<(), Error> {
    std::fs::remove_file(mark).map_err(|source| Error::Disk { path: mark.into(), source })?;
    crate::sync_folder_of(mark)
}

fn parsed((main, wal): (&str, &str)) -> Option<(u64, u64)> {
    Some((main.parse().ok()?, wal.strip_suffix('.')?.parse().ok()?))
}

fn wal_of(path: &Path) -> PathBuf {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    wal.into()
}

/// What tells one file from another of the same name.
fn inode(path: &Path) -> Result<Option<u64>, Error> {
    match std::fs::metadata(path) {
        Ok(known) => Ok(Some(known.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Disk { path: path.into(), source }),
    }
}
