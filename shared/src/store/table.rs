//! The narrow interface to the table: batch get, query, and conditional writes.
//!
//! Every call is counted, so that each request's log line shows its reads and writes.
//!
//! What keeps the rows is behind one seam, [`Backend`]: `DynamoDB` through the SDK, or the embedded table.

mod attributes;
pub mod backend;
pub mod dynamodb;
pub mod write;

pub use self::write::{AccountChange, Condition, Write};

use self::backend::{Attributes, Backend, Query, Text};
use self::dynamodb::DynamoDb;
use super::keys::{self, Key, KeyRange};
use super::rows::Row;
use crate::rules::{Grant, Place};
use crate::telemetry::{self, Count};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// The errors of the table and the bucket.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The table or the bucket can't be reached, or refuses our requests.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// There is no room on the disk of an embedded store.
    #[error("the disk of the store is full")]
    Full,
    /// A row can't be read: it was not written by this version.
    #[error("a row of the table can't be read")]
    Row(#[source] serde_json::Error),
    /// A mistake of ours: a write without a grant that covers it. Nothing was written.
    #[error("{0}")]
    Mistake(String),
    /// There is no such object, or no such multipart upload.
    #[error("there is no such object")]
    NoObject,
    /// The store refused what the client sent: parts that don't fit, a wrong digest.
    #[error("the object store refused the upload: {0}")]
    Refused(String),
}

impl StoreError {
    pub(crate) fn unavailable<E: std::error::Error>(error: &E) -> Self {
        let text = DisplayErrorContext(error).to_string();
        if text.contains(FULL) { Self::Full } else { Self::Unavailable(text) }
    }
}

/// The code of an embedded store whose disk is full.
pub(super) const FULL: &str = "InsufficientStorage";

/// The result of a transaction.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// All of it is written.
    Done,
    /// Nothing is written: the conditions of these writes did not hold, by their positions in the transaction.
    /// Somebody else was faster, or the facts were wrong from the start.
    Lost(Vec<usize>),
}

/// The rows of a batch.
#[derive(Debug, Default)]
pub struct Rows(HashMap<Key, Text>);

impl Rows {
    /// The row at `key`, if it exists.
    pub fn take<R: Row>(&mut self, key: &Key) -> Result<Option<R>, StoreError> {
        self.0.remove(key).map(|text| read(&text)).transpose()
    }

    /// Whether there is a row at `key`.
    pub fn has(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// The row at `key` as it is, whatever its kind.
    pub fn take_any(&mut self, key: &Key) -> Option<Scanned> {
        self.0.remove_entry(key).map(|(key, text)| Scanned { key, text })
    }

    /// Adds the rows of another batch.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

fn read<R: DeserializeOwned>(text: &str) -> Result<R, StoreError> {
    serde_json::from_str(text).map_err(StoreError::Row)
}

/// Some rows of a query, and whether there are more.
#[derive(Debug)]
pub struct Page<R> {
    /// The rows, in the order of their keys.
    pub rows: Vec<R>,
    /// The place after which to continue; `None` at the end.
    pub next: Option<String>,
}

/// A row of unknown kind, for what works through a whole table.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// Where it is.
    pub key: Key,
    text: Text,
}

impl Scanned {
    /// Reads some of the row.
    pub fn read_part<R: DeserializeOwned>(self) -> Result<R, StoreError> {
        read(&self.text)
    }

    /// Reads the row.
    pub fn read<R: Row>(self) -> Result<R, StoreError> {
        read(&self.text)
    }

    /// A row in the form in which a table has it.
    pub fn of<R: Row>(row: &R) -> Result<Self, StoreError> {
        Ok(Self { key: row.key(), text: write::text(row)? })
    }

    /// Whether both say the same: the order of a set means nothing, nor does that of names in a map.
    pub fn is_same(&self, other: &Self) -> bool {
        let value = |scanned: &Self| {
            let mut value: Value = serde_json::from_str(&scanned.text).ok()?;
            if let Some(Value::Array(tags)) = value.get_mut(write::TAGS) {
                tags.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
            }
            Some(value)
        };
        self.key == other.key && value(self).is_some() && value(self) == value(other)
    }
}

/// The table.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Arc<dyn Backend>,
    page: usize,
}

/// The most rows that one call reads of a longer list.
const PAGE: usize = 1000;
/// The most rows of one batch: a limit of `DynamoDB`.
pub const MAX_READS: usize = 100;
/// The most writes of one batch, and about the most bytes of it: limits of `DynamoDB`, the latter 16 MiB with all that
/// is around the rows.
pub const MAX_BATCH: usize = 25;
const MAX_BATCH_BYTES: usize = 4 << 20;
/// The most writes of one transaction: a limit of `DynamoDB`.
pub const MAX_WRITES: usize = 100;
/// The most tries of a call that collided with others: a write that lost a race for the table's own locks, or a
/// batch that was answered only in part.
const MAX_TRIES: u32 = 12;

impl Table {
    /// The table `name` of `DynamoDB`, through `client`.
    pub fn new(client: Client, name: String) -> Self {
        Self::on(Arc::new(DynamoDb::new(client, name)))
    }

    /// A table whose rows are kept by `rows`.
    pub fn on(rows: Arc<dyn Backend>) -> Self {
        Self { rows, page: PAGE }
    }

    /// The same with at most this many rows in one call. An embedded table answers on the thread that asks: after each
    /// page, others get their turn.
    #[must_use]
    pub fn in_pages_of(self, rows: u16) -> Self {
        Self { page: rows.into(), ..self }
    }

    /// Creates the table if it doesn't exist. For the embedded store and tests; in a deployment, the template creates
    /// it.
    pub async fn create(&self) -> Result<(), StoreError> {
        self.rows.create().await
    }

    /// Waits until a new table can be used: on AWS, half a minute at most.
    pub async fn usable(&self) -> Result<(), StoreError> {
        self.rows.usable().await
    }

    /// Whether the table answers.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.rows.ready().await
    }

    /// Reads the rows at `keys`, in one round for each 100 of them. Each read sees every write that was acknowledged
    /// before it.
    pub async fn batch(&self, keys: impl IntoIterator<Item = Key>) -> Result<Rows, StoreError> {
        self.rounds(keys, Attributes::All).await
    }

    async fn rounds(
        &self,
        keys: impl IntoIterator<Item = Key>,
        attributes: Attributes<'_>,
    ) -> Result<Rows, StoreError> {
        let keys: Vec<Key> = keys.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut rows = Rows::default();
        for round in keys.chunks(MAX_READS) {
            telemetry::read();
            let texts = self.rows.get(round, attributes).await?;
            let found = round.iter().zip(texts).filter_map(|(key, text)| Some((key.clone(), text?)));
            rows.0.extend(found);
        }
        Ok(rows)
    }

    /// Which of some rows there are.
    pub async fn there(&self, keys: impl IntoIterator<Item = Key>) -> Result<BTreeSet<Key>, StoreError> {
        Ok(self.rounds(keys, Attributes::Only(&[])).await?.0.into_keys().collect())
    }

    /// Reads one row.
    pub async fn get<R: Row>(&self, key: Key) -> Result<Option<R>, StoreError> {
        telemetry::read();
        let text = self.rows.get(&[key], Attributes::All).await?.pop().flatten();
        text.map(|text| read(&text)).transpose()
    }

    /// Reads at most `limit` rows of a partition whose sort keys begin with the prefix, after the one whose key
    /// continues with `after`.
    pub async fn query<R: Row>(
        &self,
        range: KeyRange,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<R>, StoreError> {
        self.some(range, after, limit, true).await
    }

    /// The same from the end: the last rows before the one whose key continues with `before`, the very last first.
    pub async fn query_last<R: Row>(
        &self,
        range: KeyRange,
        before: Option<String>,
        limit: usize,
    ) -> Result<Page<R>, StoreError> {
        self.some(range, before, limit, false).await
    }

    async fn some<R: Row>(
        &self,
        range: KeyRange,
        past: Option<String>,
        limit: usize,
        forward: bool,
    ) -> Result<Page<R>, StoreError> {
        let mut rows = Vec::new();
        let mut past = past.map(|past| format!("{}{past}", range.prefix));
        loop {
            telemetry::read();
            let left = (limit - rows.len()).min(self.page);
            let attributes = Attributes::All;
            let query = Query { range: &range, past: past.as_deref(), forward, limit: left, attributes };
            let batch = self.rows.query(query).await?;
            for (_, text) in batch.rows {
                rows.push(read(&text)?);
            }
            past = batch.next.map(|key| key.sk);
            if past.is_none() || rows.len() >= limit {
                let next = past.and_then(|sk| sk.strip_prefix(&range.prefix).map(str::to_owned));
                return Ok(Page { rows, next });
            }
            // An embedded table answers at once: others get their turn between two pages.
            tokio::task::yield_now().await;
        }
    }

    /// Reads some attributes of all rows of a partition with a prefix, and passes each one on as it arrives. For lists
    /// that may be long, of rows that may be large.
    pub async fn each<R: DeserializeOwned>(
        &self,
        range: KeyRange,
        attributes: &[&str],
        mut take: impl FnMut(R),
    ) -> Result<(), StoreError> {
        let (mut past, attributes) = (None::<String>, Attributes::Only(attributes));
        loop {
            telemetry::read();
            let query = Query { range: &range, past: past.as_deref(), forward: true, limit: self.page, attributes };
            let batch = self.rows.query(query).await?;
            for (_, text) in batch.rows {
                take(read(&text)?);
            }
            let Some(next) = batch.next else { return Ok(()) };
            past = Some(next.sk);
            tokio::task::yield_now().await;
        }
    }

    /// Reads some attributes of the rows at `keys`, at most `together` at a time, and passes each one on as it arrives.
    pub async fn each_of<R: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = Key>,
        attributes: &[&str],
        together: usize,
        mut take: impl FnMut(R),
    ) -> Result<(), StoreError> {
        let keys: Vec<Key> = keys.into_iter().collect();
        for some in keys.chunks(together.clamp(1, MAX_READS)) {
            telemetry::read();
            for text in self.rows.get(some, Attributes::Only(attributes)).await?.into_iter().flatten() {
                take(read(&text)?);
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The keys of the first rows of a partition with a prefix.
    pub async fn first_keys(&self, range: KeyRange, most: u16) -> Result<Vec<Key>, StoreError> {
        telemetry::read();
        let attributes = Attributes::Only(&[]);
        let query = Query { range: &range, past: None, forward: true, limit: most.into(), attributes };
        Ok(self.rows.query(query).await?.rows.into_iter().map(|(key, _)| key).collect())
    }

    /// Reads all rows of a partition with a prefix. For lists that are bounded by nature.
    pub async fn query_all<R: Row>(&self, place: KeyRange) -> Result<Vec<R>, StoreError> {
        Ok(self.query(place, None, usize::MAX).await?.rows)
    }

    /// Reads a page of the whole table, after `start`. Only sweeps, scrubs and copies may call it.
    pub async fn scan(&self, start: Option<Key>) -> Result<(Vec<Scanned>, Option<Key>), StoreError> {
        telemetry::read();
        let batch = self.rows.scan(start.as_ref(), self.page).await?;
        Ok((batch.rows.into_iter().map(|(key, text)| Scanned { key, text }).collect(), batch.next))
    }

    /// Writes rows as they are, over any others at their keys, and not in one transaction: for a table that nobody else
    /// uses at the time.
    pub async fn replace(&self, grant: &Grant, rows: Vec<Scanned>) -> Result<(), StoreError> {
        replaces(grant)?;
        let (mut round, mut bytes) = (Vec::new(), 0);
        for Scanned { key, text } in rows {
            bytes += text.len();
            if !round.is_empty() && (round.len() == MAX_BATCH || bytes > MAX_BATCH_BYTES) {
                telemetry::wrote();
                self.rows.put(std::mem::take(&mut round)).await?;
                bytes = text.len();
            }
            round.push((key, text));
        }
        if round.is_empty() {
            return Ok(());
        }
        telemetry::wrote();
        self.rows.put(round).await
    }

    /// Deletes the rows at `keys`, in the same way.
    pub async fn remove(&self, grant: &Grant, keys: Vec<Key>) -> Result<(), StoreError> {
        replaces(grant)?;
        for round in keys.chunks(MAX_BATCH) {
            telemetry::wrote();
            self.rows.delete(round.to_vec()).await?;
        }
        Ok(())
    }

    /// Makes all of `writes`, at most 100, or none of them. Every row must lie in the place of `grant`.
    pub async fn write(&self, grant: &Grant, writes: Vec<Write>) -> Result<Written, StoreError> {
        if grant.action().is_read() {
            return Err(StoreError::Mistake(format!("a grant to {:?} writes nothing", grant.action())));
        }
        if writes.is_empty() || writes.len() > MAX_WRITES {
            return Err(StoreError::Mistake(format!("a transaction of {} writes", writes.len())));
        }
        if let Some(key) = writes.iter().find_map(|write| write.key().filter(|key| !keys::lies_in(key, grant))) {
            return Err(StoreError::Mistake(format!("{:?} does not cover a row at {key:?}", grant.place())));
        }
        telemetry::wrote();
        let written = self.rows.transact(writes.into_iter().map(Write::into_operation).collect()).await?;
        if matches!(written, Written::Lost(_)) {
            telemetry::count(Count::TransactionsLost, 1);
        }
        Ok(written)
    }
}

/// Whether a grant covers rows that are written as they are.
fn replaces(grant: &Grant) -> Result<(), StoreError> {
    if grant.action().is_read() || *grant.place() != Place::Installation {
        return Err(StoreError::Mistake(format!("a grant to {:?} replaces no rows", grant.action())));
    }
    Ok(())
}

/// Waits before another try: not at all before the first, then longer each time, with some randomness.
pub(crate) async fn pause(attempt: u32) {
    if attempt > 0 {
        let mut random = [0; 1];
        // Without randomness, the pauses are only less spread out.
        let _ = getrandom::fill(&mut random);
        let [random] = random;
        let longest = 4u64 << attempt.min(8);
        tokio::time::sleep(Duration::from_millis(longest / 2 + longest * u64::from(random) / 512)).await;
    }
}
