//! `DynamoDB` and S3 on local disk, for the installations that have no AWS.
//!
//! The rest of the workspace talks to `aws-sdk-dynamodb` and `aws-sdk-s3` only. This crate has two stores that sit
//! behind those clients: each hands out a [`SharedHttpClient`] that the SDK takes as its HTTP client, and that answers
//! in the process instead of over a socket. So what runs locally is, expression for expression, what runs on AWS.
//!
//! - [`table::Table`] is `DynamoDB`: the `dynoxide` library over one `SQLite` file.
//! - [`objects::Objects`] is S3: immutable files, and one `SQLite` file that records which objects they make up.
//!
//! Both are real storage, not mocks: what was acknowledged survives `kill -9` and power loss.
//!
//! [`SharedHttpClient`]: aws_smithy_runtime_api::client::http::SharedHttpClient

mod connector;
pub mod objects;
mod rows;
pub mod table;

use std::path::{Path, PathBuf};

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
    /// The table's file could not be opened or copied.
    #[error("the table's file: {0}")]
    Table(#[from] dynoxide::DynoxideError),
    /// The objects' index could not be opened or read.
    #[error("the objects' index: {0}")]
    Index(#[from] rusqlite::Error),
    /// The file was written by a version of this program that this one does not know.
    #[error("the objects' index has layout {found}, this program knows {known}")]
    Layout {
        /// The layout number in the file.
        found: i64,
        /// The layout number of this program.
        known: i64,
    },
    /// A path that is not UTF-8, which `SQLite` can't be given.
    #[error("{}: the path is not UTF-8", .0.display())]
    Path(PathBuf),
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
