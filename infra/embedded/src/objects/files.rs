//! The bytes: immutable files with random names, and a table of which are in use.
//!
//! A file's name means nothing and is never used again. Only the index knows what a file is part of, so nothing here
//! has to be undone when a process dies: a file that no row names is a leftover, and the sweep removes it.
//!
//! # The write protocol
//!
//! 1. A random name is chosen and entered as *in use* in this process.
//! 2. `tmp/<name>` is created (`create_new`) and the body is written into it, and hashed on the way.
//! 3. Length and hashes are compared with what was declared; if they differ, the file is removed.
//! 4. The file is synced.
//! 5. It is renamed to `<first two digits>/<name>`, and that folder is synced. (The 256 folders
//!    are made, and their parent synced, when the store is opened.)
//! 6. The index commits, in one transaction, the row of the file and the rows that name it. **This is the only commit
//!    point**, and it is synced too.
//! 7. The writer no longer holds the name as *in use*; files that lost their last row are unlinked.
//!
//! Dying in 2–5 leaves a temporary or a nameless file: a leftover, which nobody can see. Dying between 6 and 7 leaves
//! the files that lost their rows: leftovers. Dying inside 6 is left to `SQLite`: the commit is there or it isn't, and
//! the file is complete and synced in either case. A repeated request uses another name and never meets the files of
//! the first. Two writers of one key write two files; the index runs their transactions one after the other, and the
//! loser's file loses its row, or never had one.
//!
//! Step 7 and the sweep check under the lock of the *in use* table whether a name is held, and only then unlink. A
//! reader looks up rows and enters the names under the same lock, so it can't learn of a file that is about to be
//! removed. Either it was entered first, and the file stays until the reader is done. Or the commit that removed the
//! row came first, and the reader sees the newer rows.

use super::index::Segment;
use super::turns::{AT_A_TIME, Turns};
use super::{Readers, lock};
use crate::Error;
use bytes::Bytes;
use s3s::S3Result;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// How many bytes are written to a file at a time. For a longer write, the system allocates larger pieces of memory,
/// which it has to find first: writes of 256 KiB and more took eight times the CPU time for each byte where memory was
/// scarce. With half of this, a push took a tenth more.
const WRITE: usize = 64 * 1024;

/// The name of one file: 32 hex digits.
pub(super) type Name = Arc<str>;

/// The folder of files.
pub(super) struct Files {
    root: PathBuf,
    /// The rights on new files.
    mode: u32,
    in_use: Mutex<HashMap<Name, Use>>,
    /// How many downloads there are.
    giving: AtomicUsize,
    turns: Arc<Turns>,
    /// Buffers that downloads used, for the next ones.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// A download. Until it is dropped, it has its share of the memory of all.
pub(super) struct Giving(Arc<Files>);

/// About the memory of all downloads, as long as it is enough for [`LEAST`] each.
const GIVING: usize = 32 << 20;
/// The most that is read from a file in one go.
const MOST: usize = 256 << 10;
/// The least. With less, calls of the system cost more than copying.
pub(super) const LEAST: usize = 32 << 10;

impl Giving {
    /// How much of a file may be read in one go. A download holds about one or two of these.
    pub(super) fn share(&self) -> usize {
        let all = self.0.giving.load(Ordering::Relaxed).max(1);
        (GIVING / all).clamp(LEAST, MOST)
    }

    /// Room for a chunk.
    pub(super) fn chunk(&self, length: usize) -> Chunk {
        Chunk::new(&self.0, length)
    }

    /// One's turn to read and send a chunk; `None` if there are only a few downloads.
    pub(super) fn turn(&self) -> Option<oneshot::Receiver<()>> {
        let Files { giving, turns, .. } = &*self.0;
        (giving.load(Ordering::Relaxed) > AT_A_TIME).then(|| turns.wait())
    }
}

/// The most buffers that are kept when nobody uses them.
const SPARE: usize = 16;

/// A piece of a file that was read, or is to be read. Its buffer is used again: clearing a fresh one costs half as much
/// as reading into it.
pub(super) struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    files: Arc<Files>,
}

impl Chunk {
    fn new(files: &Arc<Files>, length: usize) -> Self {
        let spare = if length == MOST { lock(&files.spare).pop() } else { None };
        Self { buffer: spare.unwrap_or_else(|| vec![0; length]), length, files: Arc::clone(files) }
    }

    /// Where to read to.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.length).unwrap_or_default()
    }

    /// Forgets what comes after so many bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.buffer.len() != MOST {
            return;
        }
        let mut spare = lock(&self.files.spare);
        if spare.len() < SPARE {
            spare.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl Drop for Giving {
    fn drop(&mut self) {
        self.0.giving.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Use {
    holders: usize,
    /// The last row was deleted while the file was held: the last holder unlinks it.
    doomed: bool,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Files {
    pub(super) fn open(root: &Path, readers: &Readers) -> Result<Arc<Self>, Error> {
        let folder = |path: &Path| match readers {
            Readers::Nobody => crate::private_folder(path),
            Readers::Proxy(_) => crate::folder_of_group(path),
            Readers::AsBefore => crate::owned_folder(path),
        };
        let mode = if matches!(readers, Readers::Proxy(_)) { 0o640 } else { 0o600 };
        // It may be a link to a folder on another file system, which anybody could enter.
        folder(root)?;
        for name in (0..=255_u8).map(|name| format!("{name:02x}")) {
            folder(&root.join(name))?;
        }
        if *readers != Readers::AsBefore {
            // A file that is not written yet is nobody's to read.
            crate::private_folder(&root.join("tmp"))?;
        }
        crate::sync(root)?;
        crate::sync_folder_of(root)?;
        let in_use = Mutex::default();
        let (giving, turns, spare) = (AtomicUsize::new(0), Arc::default(), Mutex::default());
        Ok(Arc::new(Self { root: root.into(), mode, in_use, giving, turns, spare }))
    }

    /// Begins a download.
    pub(super) fn giving(self: &Arc<Self>) -> Giving {
        self.giving.fetch_add(1, Ordering::Relaxed);
        Giving(Arc::clone(self))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name.get(..2).unwrap_or("tmp")).join(name)
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.root.join("tmp").join(name)
    }

    /// Whether the disk has room for more bytes.
    pub(super) fn has_room(&self, bytes: u64) -> io::Result<bool> {
        has_room(&File::open(&self.root)?, bytes)
    }

    /// Opens a file that the caller holds.
    pub(super) fn read(&self, name: &str) -> io::Result<File> {
        File::open(self.path(name))
    }

    /// The same without waiting for the disk; `None` if it can't be opened so, or at all.
    #[cfg(target_os = "linux")]
    pub(super) fn read_now(&self, name: &str) -> Option<File> {
        use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat2(CWD, self.path(name), flags, Mode::empty(), ResolveFlags::CACHED).ok().map(File::from)
    }

    /// Other systems can't tell what is in memory.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read_now(&self, _: &str) -> Option<File> {
        None
    }

    /// Runs `find` and holds the names that it returns, so that none of their files can be removed in between.
    pub(super) fn hold<T, E>(
        self: &Arc<Self>,
        find: impl FnOnce() -> Result<(T, Vec<Name>), E>,
    ) -> Result<(T, Held), E> {
        let mut in_use = lock(&self.in_use);
        let (found, names) = find()?;
        for name in &names {
            in_use.entry(Arc::clone(name)).or_default().holders += 1;
        }
        let files = Arc::clone(self);
        Ok((found, Held { files, names }))
    }

    /// Unlinks files that lost their last row, or leaves that to whoever still holds them.
    pub(super) fn discard(&self, names: &[Name]) {
        for name in names {
            let mut in_use = lock(&self.in_use);
            if let Some(held) = in_use.get_mut(name) {
                held.doomed = true;
            } else {
                unlink(&self.path(name));
            }
        }
    }

    /// Unlinks what is older than `min_age`, not held, and not named by a row.
    ///
    /// The age protects the uploads of another process on the same folder (one that takes a backup, say). Within the
    /// process, holding protects them.
    pub(super) fn collect(
        &self,
        min_age: Duration,
        named: impl Fn(&str) -> S3Result<bool>,
    ) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let Some(before) = SystemTime::now().checked_sub(min_age) else {
            return Ok(collected);
        };
        let folders = (0..=255_u8).map(|folder| format!("{folder:02x}"));
        for folder in folders.chain([String::from("tmp")]) {
            let folder = self.root.join(folder);
            let disk = |source| Error::Disk { path: folder.clone(), source };
            for entry in fs::read_dir(&folder).map_err(disk)? {
                let entry = entry.map_err(disk)?;
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                let meta = match entry.metadata() {
                    Ok(meta) => meta,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(source) => return Err(disk(source)),
                };
                // Only files that this store wrote may be removed.
                let ours = name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
                if !ours || !meta.is_file() || meta.modified().map_err(disk)? > before {
                    continue;
                }
                let in_use = lock(&self.in_use);
                if in_use.contains_key(name.as_str()) || named(&name).map_err(|error| disk(io::Error::other(error)))? {
                    continue;
                }
                fs::remove_file(entry.path()).map_err(disk)?;
                collected.files += 1;
                collected.bytes += meta.len();
            }
        }
        Ok(collected)
    }
}

fn unlink(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // A file that stays is a leftover, and the sweep will remove it.
        Err(error) => tracing::warn!(path = %path.display(), %error, "an object file stays"),
    }
}

/// Files that must not be removed while this lives.
pub(super) struct Held {
    files: Arc<Files>,
    names: Vec<Name>,
}

impl Held {
    pub(super) fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// Checks that the files of these segments are there, with the lengths that their rows say.
    pub(super) fn check(&self, segments: &[Segment]) -> io::Result<()> {
        for segment in segments {
            let path = self.files.path(&segment.name);
            let length = fs::metadata(&path)?.len();
            if length != segment.size {
                let why = format!("{} has {length} bytes instead of {}", path.display(), segment.size);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
        }
        Ok(())
    }

    /// Checks the files, and lets their group read those that were written when nobody else might.
    pub(super) fn give(&self, segments: &[Segment]) -> io::Result<()> {
        self.check(segments)?;
        for segment in segments {
            let path = self.files.path(&segment.name);
            if fs::metadata(&path)?.permissions().mode() & self.files.mode != self.files.mode {
                fs::set_permissions(&path, Permissions::from_mode(self.files.mode))?;
            }
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut in_use = lock(&self.files.in_use);
        for name in &self.names {
            let Some(held) = in_use.get_mut(name) else {
                continue;
            };
            held.holders = held.holders.saturating_sub(1);
            if held.holders == 0 {
                let doomed = held.doomed;
                in_use.remove(name);
                if doomed {
                    unlink(&self.files.path(name));
                }
            }
        }
    }
}

/// How many bytes of a disk objects leave free. Deleting them writes rows first: if they could fill the disk, nobody
/// could make room again.
fn kept_free(disk: u64) -> u64 {
    (disk / 50).clamp(16 << 20, 256 << 20)
}

/// Whether a disk has room for more bytes. `file` is one on it.
fn has_room(file: &File, bytes: u64) -> io::Result<bool> {
    let disk = rustix::fs::fstatvfs(file)?;
    let [size, free] = [disk.f_blocks, disk.f_bavail].map(|blocks| blocks.saturating_mul(disk.f_frsize));
    Ok(free >= bytes.saturating_add(kept_free(size)))
}

/// A file that no row names yet: it is removed when this is dropped, unless it was kept.
pub(super) struct Fresh {
    held: Held,
    name: Name,
    file: File,
    keep: bool,
}

impl Fresh {
    /// Steps 1 and 2 of the protocol.
    pub(super) fn create(files: &Arc<Files>) -> io::Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name: Name = super::hex(&random).into();
        let (path, held) = files.hold(|| io::Result::Ok((files.temporary(&name), vec![Arc::clone(&name)])))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        if files.mode != 0o600 {
            // Whatever the process takes away from its new files.
            file.set_permissions(Permissions::from_mode(files.mode))?;
        }
        Ok(Self { held, name, file, keep: false })
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn write(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if !has_room(&self.file, bytes)? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        pieces.iter().flat_map(|piece| piece.chunks(WRITE)).try_for_each(|some| self.file.write_all(some))
    }

    /// Steps 4 and 5: after this the file has its final name, and will still have it after a power cut.
    pub(super) fn settle(&self) -> io::Result<()> {
        let files = &self.held.files;
        self.file.sync_all()?;
        let path = files.path(&self.name);
        fs::rename(files.temporary(&self.name), &path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// Leaves the file where it is, because a row names it now, or may name it.
    pub(super) fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.keep {
            let files = &self.held.files;
            unlink(&files.temporary(&self.name));
            unlink(&files.path(&self.name));
        }
    }
}
