//! The one seam between the table and what keeps its rows: `DynamoDB`, or the embedded table.
//!
//! A row is a JSON object, passed on as its text; its key is no part of it. Each side has the narrow set of operations that
//! [`Table`](super::Table) makes, and gives the same promises as `DynamoDB`: a transaction happens as a whole or not at
//! all, a read sees every write that was acknowledged before it began, one row is consistent, and a batch or a list is no
//! snapshot.

use super::write::Operation;
use super::{StoreError, Written};
use crate::store::keys::{Key, KeyRange};
use async_trait::async_trait;
use std::fmt::Debug;

/// The text of a row: a JSON object.
pub type Text = String;

/// How much of each row is wanted. Rows may be large, and those of a list many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attributes<'a> {
    /// All of it.
    All,
    /// These attributes.
    Only(&'a [&'a str]),
}

/// A part of the rows of one partition.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// The partition, and how the sort keys begin.
    pub range: &'a KeyRange,
    /// The sort key after which to start, in the direction of reading; it need not exist.
    pub past: Option<&'a str>,
    /// Whether to read from the first to the last.
    pub forward: bool,
    /// The most rows.
    pub limit: usize,
    /// How much of each.
    pub attributes: Attributes<'a>,
}

/// Some rows of a list, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    /// The rows.
    pub rows: Vec<(Key, Text)>,
    /// The key after which to go on; `None` if these were the last ones. There need not be more.
    pub next: Option<Key>,
}

/// What keeps the rows of one table.
#[async_trait]
pub trait Backend: Debug + Send + Sync {
    /// Creates the table if it doesn't exist.
    async fn create(&self) -> Result<(), StoreError>;

    /// Waits until a new table can be used.
    async fn usable(&self) -> Result<(), StoreError>;

    /// Whether the table answers.
    async fn ready(&self) -> Result<(), StoreError>;

    /// The rows at `keys`, at most [`MAX_READS`](super::MAX_READS) and no two alike, each in the place of its key.
    async fn get(&self, keys: &[Key], attributes: Attributes<'_>) -> Result<Vec<Option<Text>>, StoreError>;

    /// Some rows of a partition.
    async fn query(&self, query: Query<'_>) -> Result<Texts, StoreError>;

    /// At most `limit` rows of the whole table, after `start`, in an order that stays the same.
    async fn scan(&self, start: Option<&Key>, limit: usize) -> Result<Texts, StoreError>;

    /// Makes all of `operations`, at most [`MAX_WRITES`](super::MAX_WRITES) and each on another row, or none of them.
    async fn transact(&self, operations: Vec<Operation>) -> Result<Written, StoreError>;

    /// Writes rows over any others at their keys, at most [`MAX_BATCH`](super::MAX_BATCH), not in one transaction.
    async fn put(&self, rows: Vec<(Key, Text)>) -> Result<(), StoreError>;

    /// Deletes rows in the same way.
    async fn delete(&self, keys: Vec<Key>) -> Result<(), StoreError>;
}
