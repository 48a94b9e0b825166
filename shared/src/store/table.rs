//! The narrow interface to the table: batch get, query, and conditional writes.
//!
//! Every call is counted, so that each request's log line shows its reads and writes.

use super::keys::{self, Key, KeyRange};
use super::rows::Row;
use crate::domain::{EntityName, Repository, ShareId, TagName, Time};
use crate::rules::{Grant, Place};
use crate::telemetry::{self, Count};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, ConditionCheck, Delete, DeleteRequest, KeySchemaElement, KeyType,
    KeysAndAttributes, Put, PutRequest, ScalarAttributeType, TableStatus, TransactWriteItem, Update, WriteRequest,
};
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

type Item = HashMap<String, AttributeValue>;

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
    Row(#[source] serde_dynamo::Error),
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

/// The condition for a write.
#[derive(Debug, Clone, Copy)]
pub enum Condition {
    /// Nothing.
    None,
    /// The row does not exist yet.
    Absent,
    /// The row exists.
    Present,
    /// The row exists and has this version.
    Version(u64),
    /// The repository exists and has this epoch.
    Epoch(u64),
    /// The link exists and was last asked for at this time.
    Seen(Time),
    /// The account exists and has this limit.
    Limit(u64),
    /// The account exists, and nothing counts in it.
    Unused,
    /// The account exists, has this limit, and no more bytes than these.
    Room {
        /// The limit, in bytes.
        limit: u64,
        /// The most bytes that may be charged already.
        charged_at_most: u64,
        /// The most bytes that may be in surplus already.
        surplus_at_most: u64,
    },
    /// The share exists, was used fewer times than this, and ends later than this.
    Usable {
        /// The number of uses that it must not have reached.
        below: u64,
        /// The time.
        now: Time,
    },
}

/// The difference in the numbers of an account: bytes, and rows of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// All that is charged.
    pub charged: i128,
    /// Of these, for uploads that are not committed.
    pub reserved: i128,
    /// What is in the bucket and not charged.
    pub surplus: i128,
    /// What is in the table. If there are more afterwards than before, there must be room for them.
    pub rows: i128,
}

/// One write of a transaction.
#[derive(Debug, Clone)]
pub struct Write(Operation);

#[derive(Debug, Clone)]
enum Operation {
    Put(Key, Item, Condition),
    /// Writes a row, and leaves those attributes of an existing one that it does not have.
    Overlay(Key, Item),
    Delete(Key, Condition),
    Check(Key, Condition),
    /// Adds to numeric attributes of a row.
    Add(Key, Vec<(&'static str, i128)>, Condition),
    /// Adds words to the row's set `tags` or removes them, and increments its version.
    Label(Key, &'static str, Vec<String>, &'static str),
}

impl Operation {
    /// Takes another operation in, if both do the same to one row and one of the two demands nothing of it that the other
    /// doesn't. The stronger condition stays.
    fn takes(&mut self, other: &Self) -> bool {
        let (before, after) = match (&mut *self, other) {
            (Self::Put(key, row, before), Self::Put(at, same, after)) if key == at && row == same => (before, after),
            (Self::Overlay(key, row), Self::Overlay(at, same)) => return key == at && row == same,
            (Self::Delete(key, before), Self::Delete(at, after)) if key == at => (before, after),
            (Self::Add(key, _, before), Self::Add(at, _, after)) if key == at => (before, after),
            _ => return false,
        };
        let adds = matches!(other, Self::Add(..));
        let weak = |condition: &Condition| match condition {
            Condition::None => true,
            // An addition needs the row in any case.
            Condition::Present => adds,
            _ => false,
        };
        if !(weak(before) || weak(after)) {
            return false;
        }
        if weak(before) {
            *before = *after;
        }
        if let (Self::Add(_, numbers, _), Self::Add(_, more, _)) = (self, other) {
            for (name, number) in more {
                match numbers.iter_mut().find(|(same, _)| same == name) {
                    Some((_, sum)) => *sum += number,
                    None => numbers.push((name, *number)),
                }
            }
        }
        true
    }
}

impl Write {
    /// Writes the row.
    pub fn put<R: Row>(row: &R, condition: Condition) -> Result<Self, StoreError> {
        let mut item: Item = serde_dynamo::to_item(row).map_err(StoreError::Row)?;
        let key = row.key();
        item.extend(item_key(key.clone()));
        Ok(Self(Operation::Put(key, item, condition)))
    }

    /// Writes the row without a condition. Attributes of an existing one that the row does not have stay.
    pub fn overlay<R: Row>(row: &R) -> Result<Self, StoreError> {
        Ok(Self(Operation::Overlay(row.key(), serde_dynamo::to_item(row).map_err(StoreError::Row)?)))
    }

    /// Deletes the row.
    pub fn delete(key: Key, condition: Condition) -> Self {
        Self(Operation::Delete(key, condition))
    }

    /// Only requires the condition to hold.
    pub fn check(key: Key, condition: Condition) -> Self {
        Self(Operation::Check(key, condition))
    }

    /// Changes the numbers of the account of an entity.
    pub fn charge(entity: &EntityName, by: AccountChange, condition: Condition) -> Self {
        let AccountChange { charged, reserved, surplus, rows } = by;
        let all = [("charged", charged), ("reserved", reserved), ("surplus", surplus), (ROWS, rows), (VERSION, 1)];
        let numbers = all.into_iter().filter(|(_, number)| *number != 0).collect();
        Self(Operation::Add(keys::account(entity), numbers, condition))
    }

    /// Changes the limit of an entity's account from its old value, and the most rows that it may have.
    pub fn limit(entity: &EntityName, before: u64, after: u64, more_rows: i128) -> Self {
        let more = i128::from(after) - i128::from(before);
        let numbers = vec![("limit", more), (MOST_ROWS, more_rows), (VERSION, 1)];
        Self(Operation::Add(keys::account(entity), numbers, Condition::Limit(before)))
    }

    /// The account that must have room for more rows, if this needs some.
    pub(crate) fn needs_rows(&self) -> Option<&Key> {
        match &self.0 {
            Operation::Add(key, numbers, _) if adds_rows(numbers) => Some(key),
            _ => None,
        }
    }

    /// Increments the epoch of a repository.
    pub fn epoch(repository: &Repository, condition: Condition) -> Self {
        Self(Operation::Add(keys::container(repository), vec![("epoch", 1), ("version", 1)], condition))
    }

    /// Increments the version of a row that must exist, because there is something new in it.
    pub fn advance(key: Key) -> Self {
        Self(Operation::Add(key, vec![("version", 1)], Condition::Present))
    }

    /// Counts a use of a share that can be used.
    pub fn used(share: ShareId, below: u64, now: Time) -> Self {
        Self(Operation::Add(keys::share(share), vec![("uses", 1)], Condition::Usable { below, now }))
    }

    /// Records on the image's row that the tags, at least one, name it. The image must have been committed.
    pub fn tagged<'a>(image: Key, tags: impl IntoIterator<Item = &'a TagName>) -> Self {
        let committed = "attribute_exists(pk) AND attribute_type(content, :map)";
        let tags = tags.into_iter().map(ToString::to_string).collect();
        Self(Operation::Label(image, "SET #named = :true ADD #tags :tags, #version :one", tags, committed))
    }

    /// Records on the image's row that the tags, at least one, no longer name it.
    pub fn untagged<'a>(image: Key, tags: impl IntoIterator<Item = &'a TagName>) -> Self {
        let there = "attribute_exists(pk) AND attribute_type(content, :map)";
        let tags = tags.into_iter().map(ToString::to_string).collect();
        Self(Operation::Label(image, "SET #named = :true ADD #version :one DELETE #tags :tags", tags, there))
    }

    /// Appends a write to others, unless one of them does the same. Several changes may require the same immutable row
    /// to exist, or add to one row that only has to exist. Other writes of the same row are real conflicts and are
    /// kept, so that the table refuses them with an error.
    pub fn join(self, writes: &mut Vec<Self>) {
        if !writes.iter_mut().any(|other| other.0.takes(&self.0)) {
            writes.push(self);
        }
    }

    /// The row that is written; `None` if it is only checked.
    fn key(&self) -> Option<&Key> {
        match &self.0 {
            Operation::Put(key, ..)
            | Operation::Overlay(key, _)
            | Operation::Delete(key, _)
            | Operation::Add(key, ..)
            | Operation::Label(key, ..) => Some(key),
            Operation::Check(..) => None,
        }
    }
}

/// The attribute of an account that counts its rows, and that of the most.
const ROWS: &str = "rows";
const MOST_ROWS: &str = "most_rows";
/// The attribute that counts the changes of a row. A row that has none yet begins with 0.
const VERSION: &str = "version";

fn adds_rows(numbers: &[(&'static str, i128)]) -> bool {
    numbers.iter().any(|(name, more)| *name == ROWS && *more > 0)
}

/// A condition or update, in the SDK's form.
#[derive(Debug, Default)]
struct Expression {
    text: Option<String>,
    names: Option<HashMap<String, String>>,
    values: Option<Item>,
}

impl Expression {
    fn bind(&mut self, name: &str, number: &impl ToString) {
        self.values.get_or_insert_default().insert(name.to_owned(), AttributeValue::N(number.to_string()));
    }

    fn name(&mut self, name: &str) {
        self.names.get_or_insert_default().insert(format!("#{name}"), name.to_owned());
    }

    fn of(condition: Condition) -> Self {
        let mut expression = Self::default();
        expression.text = match condition {
            Condition::None => None,
            Condition::Absent => Some("attribute_not_exists(pk)".to_owned()),
            Condition::Present => Some("attribute_exists(pk)".to_owned()),
            Condition::Version(version) => Some(expression.equal("version", &version)),
            Condition::Epoch(epoch) => Some(expression.equal("epoch", &epoch)),
            Condition::Seen(time) => Some(expression.equal("seen", &time.0)),
            Condition::Limit(limit) => Some(expression.equal("limit", &limit)),
            Condition::Unused => {
                let zero = ["charged", "reserved", "surplus", ROWS].map(|number| expression.equal(number, &0));
                Some(zero.join(" AND "))
            }
            Condition::Room { limit, charged_at_most, surplus_at_most } => {
                let same = expression.equal("limit", &limit);
                expression.name("charged");
                expression.bind(":charged_at_most", &charged_at_most);
                expression.name("surplus");
                expression.bind(":surplus_at_most", &surplus_at_most);
                Some(format!("{same} AND #charged <= :charged_at_most AND #surplus <= :surplus_at_most"))
            }
            Condition::Usable { below, now } => {
                expression.name("uses");
                expression.bind(":below", &below);
                expression.name("expires");
                expression.bind(":now", &now.0);
                Some("#uses < :below AND #expires > :now".to_owned())
            }
        };
        expression
    }

    /// Requires the attribute to have this number.
    fn equal(&mut self, name: &str, number: &impl ToString) -> String {
        self.name(name);
        self.bind(&format!(":{name}"), number);
        format!("#{name} = :{name}")
    }

    /// The update `SET #a = #a + :a …`, with the names and values that it needs in addition to those of the condition.
    fn additions(&mut self, numbers: &[(&'static str, i128)]) -> String {
        let (mut terms, mut counts) = (Vec::new(), "");
        for (name, number) in numbers {
            self.name(name);
            self.bind(&format!(":add_{name}"), number);
            if *name == VERSION {
                counts = "ADD #version :add_version";
            } else {
                terms.push(format!("#{name} = #{name} + :add_{name}"));
            }
        }
        if terms.is_empty() { counts.to_owned() } else { format!("SET {} {counts}", terms.join(", ")) }
    }

    /// Requires that there is room for more rows: a condition may compare two attributes, though it can't add them.
    fn with_room_for_rows(&mut self) {
        self.name(ROWS);
        self.name(MOST_ROWS);
        let room = format!("#{ROWS} < #{MOST_ROWS}");
        self.text = Some(self.text.take().map_or_else(|| room.clone(), |text| format!("{text} AND {room}")));
    }

    /// The update `SET #a = :a …` of all attributes.
    fn attributes(&mut self, item: Item) -> String {
        let mut terms = Vec::new();
        for (name, value) in item {
            self.name(&name);
            self.values.get_or_insert_default().insert(format!(":{name}"), value);
            terms.push(format!("#{name} = :{name}"));
        }
        format!("SET {}", terms.join(", "))
    }
}

fn item_key(key: Key) -> Item {
    HashMap::from([("pk".to_owned(), AttributeValue::S(key.pk)), ("sk".to_owned(), AttributeValue::S(key.sk))])
}

/// The rows of a batch.
#[derive(Debug, Default)]
pub struct Rows(HashMap<Key, Item>);

impl Rows {
    /// The row at `key`, if it exists.
    pub fn take<R: Row>(&mut self, key: &Key) -> Result<Option<R>, StoreError> {
        self.0.remove(key).map(serde_dynamo::from_item).transpose().map_err(StoreError::Row)
    }

    /// Whether there is a row at `key`.
    pub fn has(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// The row at `key` as it is, whatever its kind.
    pub fn take_any(&mut self, key: &Key) -> Option<Scanned> {
        self.0.remove(key).map(|item| Scanned { key: key.clone(), item })
    }

    /// Adds the rows of another batch.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
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
    item: Item,
}

impl Scanned {
    /// Reads some of the row.
    pub fn read_part<R: DeserializeOwned>(self) -> Result<R, StoreError> {
        serde_dynamo::from_item(self.item).map_err(StoreError::Row)
    }

    /// Reads the row.
    pub fn read<R: Row>(self) -> Result<R, StoreError> {
        serde_dynamo::from_item(self.item).map_err(StoreError::Row)
    }

    /// A row in the form in which a table has it.
    pub fn of<R: Row>(row: &R) -> Result<Self, StoreError> {
        Ok(Self { key: row.key(), item: serde_dynamo::to_item(row).map_err(StoreError::Row)? })
    }

    /// Whether both say the same: the order of a set means nothing, nor does that of names in a map.
    pub fn is_same(&self, other: &Self) -> bool {
        let sorted = |value: &AttributeValue| match value {
            AttributeValue::Ss(words) => {
                AttributeValue::Ss(words.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect())
            }
            other => other.clone(),
        };
        let same = |(name, value): (&String, &AttributeValue)| {
            other.item.get(name).is_some_and(|there| sorted(there) == sorted(value))
        };
        self.key == other.key && self.item.len() == other.item.len() && self.item.iter().all(same)
    }

    /// About how many bytes it has, for bounds.
    fn size(&self) -> usize {
        fn of(value: &AttributeValue) -> usize {
            match value {
                AttributeValue::S(text) | AttributeValue::N(text) => text.len(),
                AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
                AttributeValue::L(values) => values.iter().map(of).sum(),
                AttributeValue::M(map) => map.iter().map(|(name, value)| name.len() + of(value)).sum(),
                _ => 8,
            }
        }
        self.item.iter().map(|(name, value)| name.len() + of(value)).sum()
    }
}

/// The table.
#[derive(Debug, Clone)]
pub struct Table {
    client: Client,
    name: String,
    page: i32,
}

/// The most rows that one call reads of a longer list. An embedded table reads as many as it is asked for.
const PAGE: i32 = 1000;
/// The most rows of one batch: a limit of `DynamoDB`.
const MAX_READS: usize = 100;
/// The most writes of one batch, and about the most bytes of it: limits of `DynamoDB`, the latter 16 MiB with all that
/// is around the rows.
const MAX_BATCH: usize = 25;
const MAX_BATCH_BYTES: usize = 4 << 20;
/// The most writes of one transaction: a limit of `DynamoDB`.
pub const MAX_WRITES: usize = 100;
/// The most tries of a call that collided with others: a write that lost a race for the table's own locks, or a
/// batch that was answered only in part.
const MAX_TRIES: u32 = 12;

impl Table {
    /// The table `name`, through `client`.
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name, page: PAGE }
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
        let attribute = |name: &str| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build()
        };
        let element = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
        let build = |error: aws_sdk_dynamodb::error::BuildError| StoreError::unavailable(&error);
        let result = self
            .client
            .create_table()
            .table_name(&self.name)
            .attribute_definitions(attribute("pk").map_err(build)?)
            .attribute_definitions(attribute("sk").map_err(build)?)
            .key_schema(element("pk", KeyType::Hash).map_err(build)?)
            .key_schema(element("sk", KeyType::Range).map_err(build)?)
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await;
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("ResourceInUseException") => Ok(()),
            Err(error) => Err(StoreError::unavailable(&error)),
        }
    }

    /// Waits until a new table can be used: on AWS, half a minute at most.
    pub async fn usable(&self) -> Result<(), StoreError> {
        const TRIES: u32 = 60;
        for _ in 0..TRIES {
            match self.client.describe_table().table_name(&self.name).send().await {
                Ok(answer) => {
                    let status = answer.table.and_then(|table| table.table_status);
                    if status.is_none_or(|status| status == TableStatus::Active) {
                        return Ok(());
                    }
                }
                // A table that was made just now may not be known everywhere yet.
                Err(error) if error.code() == Some("ResourceNotFoundException") => {}
                Err(error) => return Err(StoreError::unavailable(&error)),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(StoreError::Unavailable("the table is still being made".to_owned()))
    }

    /// Whether the table answers.
    pub async fn ready(&self) -> Result<(), StoreError> {
        let answer = self.client.describe_table().table_name(&self.name).send().await;
        answer.map(|_| ()).map_err(|error| StoreError::unavailable(&error))
    }

    /// Reads the rows at `keys`, in one round for each 100 of them. Each read sees every write that was acknowledged
    /// before it.
    pub async fn batch(&self, keys: impl IntoIterator<Item = Key>) -> Result<Rows, StoreError> {
        let keys: Vec<Key> = keys.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut rows = Rows::default();
        for round in keys.chunks(MAX_READS) {
            rows.extend(self.round(round.iter().cloned().map(item_key).collect(), None).await?);
        }
        Ok(rows)
    }

    async fn round(&self, mut wanted: Vec<Item>, attributes: Option<&str>) -> Result<Rows, StoreError> {
        let mut rows = Rows::default();
        for attempt in 0..MAX_TRIES {
            if wanted.is_empty() {
                return Ok(rows);
            }
            pause(attempt).await;
            telemetry::read();
            telemetry::count(Count::TableRetries, u64::from(attempt.min(1)));
            let keys = KeysAndAttributes::builder().set_keys(Some(wanted)).consistent_read(true);
            let keys = keys.set_projection_expression(attributes.map(str::to_owned)).build();
            let keys = keys.map_err(|error| StoreError::unavailable(&error))?;
            let answer = self.client.batch_get_item().request_items(&self.name, keys).send().await;
            let mut answer = answer.map_err(|error| StoreError::unavailable(&error))?;
            for items in answer.responses.take().into_iter().flat_map(HashMap::into_values) {
                rows.0.extend(items.into_iter().filter_map(keyed));
            }
            // DynamoDB may leave keys out if it is short of capacity.
            let left = answer.unprocessed_keys.take().and_then(|mut left| left.remove(&self.name));
            wanted = left.map(|left| left.keys).unwrap_or_default();
        }
        Err(StoreError::Unavailable("the table answers only parts of a batch".to_owned()))
    }

    /// Which of some rows there are.
    pub async fn there(&self, keys: impl IntoIterator<Item = Key>) -> Result<BTreeSet<Key>, StoreError> {
        let keys: Vec<Key> = keys.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut there = BTreeSet::new();
        for round in keys.chunks(MAX_READS) {
            let found = self.round(round.iter().cloned().map(item_key).collect(), Some("pk, sk")).await?;
            there.extend(found.0.into_keys());
        }
        Ok(there)
    }

    /// Reads one row.
    pub async fn get<R: Row>(&self, key: Key) -> Result<Option<R>, StoreError> {
        telemetry::read();
        let request = self.client.get_item().table_name(&self.name).set_key(Some(item_key(key))).consistent_read(true);
        let answer = request.send().await.map_err(|error| StoreError::unavailable(&error))?;
        answer.item.map(serde_dynamo::from_item).transpose().map_err(StoreError::Row)
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
        KeyRange { pk, prefix }: KeyRange,
        past: Option<String>,
        limit: usize,
        forward: bool,
    ) -> Result<Page<R>, StoreError> {
        let mut rows = Vec::new();
        let mut start = past.map(|past| item_key(Key { pk: pk.clone(), sk: format!("{prefix}{past}") }));
        loop {
            telemetry::read();
            let left = i32::try_from(limit - rows.len()).unwrap_or(i32::MAX).min(self.page);
            let request = self.asking(&pk, &prefix, start).scan_index_forward(forward).limit(left);
            let answer = request.send().await.map_err(|error| StoreError::unavailable(&error))?;
            for item in answer.items.unwrap_or_default() {
                rows.push(serde_dynamo::from_item(item).map_err(StoreError::Row)?);
            }
            start = answer.last_evaluated_key;
            if start.is_none() || rows.len() >= limit {
                let next = start.and_then(keyed);
                let next = next.and_then(|(key, _)| key.sk.strip_prefix(&prefix).map(str::to_owned));
                return Ok(Page { rows, next });
            }
            // An embedded table answers at once: others get their turn between two pages.
            tokio::task::yield_now().await;
        }
    }

    fn asking(&self, pk: &str, prefix: &str, start: Option<Item>) -> QueryFluentBuilder {
        let request = self.client.query().table_name(&self.name).consistent_read(true).set_exclusive_start_key(start);
        let request = request.expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()));
        // No part of a key may be compared with an empty text.
        if prefix.is_empty() {
            return request.key_condition_expression("pk = :pk");
        }
        request
            .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
            .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned()))
    }

    /// Reads some attributes of all rows of a partition with a prefix, and passes each one on as it arrives. For lists
    /// that may be long, of rows that may be large.
    pub async fn each<R: DeserializeOwned>(
        &self,
        KeyRange { pk, prefix }: KeyRange,
        attributes: &[&str],
        mut take: impl FnMut(R),
    ) -> Result<(), StoreError> {
        let names: Vec<String> = attributes.iter().map(|name| format!("#{name}")).collect();
        let known: HashMap<_, _> =
            names.iter().cloned().zip(attributes.iter().map(|name| (*name).to_owned())).collect();
        let mut start = None;
        loop {
            telemetry::read();
            let request = self.asking(&pk, &prefix, start).limit(self.page).projection_expression(names.join(", "));
            let answer = request.set_expression_attribute_names(Some(known.clone())).send().await;
            let answer = answer.map_err(|error| StoreError::unavailable(&error))?;
            for item in answer.items.unwrap_or_default() {
                take(serde_dynamo::from_item(item).map_err(StoreError::Row)?);
            }
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// The keys of the first rows of a partition with a prefix.
    pub async fn first_keys(&self, KeyRange { pk, prefix }: KeyRange, most: u16) -> Result<Vec<Key>, StoreError> {
        telemetry::read();
        let request = self.asking(&pk, &prefix, None).limit(most.into()).projection_expression("pk, sk");
        let answer = request.send().await.map_err(|error| StoreError::unavailable(&error))?;
        Ok(answer.items.unwrap_or_default().into_iter().filter_map(keyed).map(|(key, _)| key).collect())
    }

    /// Reads all rows of a partition with a prefix. For lists that are bounded by nature.
    pub async fn query_all<R: Row>(&self, place: KeyRange) -> Result<Vec<R>, StoreError> {
        Ok(self.query(place, None, usize::MAX).await?.rows)
    }

    /// Reads a page of the whole table, after `start`. Only sweeps, scrubs and copies may call it.
    pub async fn scan(&self, start: Option<Key>) -> Result<(Vec<Scanned>, Option<Key>), StoreError> {
        telemetry::read();
        let request = self.client.scan().table_name(&self.name).consistent_read(true).limit(self.page);
        let answer = request.set_exclusive_start_key(start.map(item_key)).send().await;
        let answer = answer.map_err(|error| StoreError::unavailable(&error))?;
        let next = answer.last_evaluated_key.and_then(keyed).map(|(key, _)| key);
        let items = answer.items.unwrap_or_default();
        let rows = items.into_iter().filter_map(keyed).map(|(key, item)| Scanned { key, item });
        Ok((rows.collect(), next))
    }

    /// Writes rows as they are, over any others at their keys, and not in one transaction: for a table that nobody else
    /// uses at the time.
    pub async fn replace(&self, grant: &Grant, rows: Vec<Scanned>) -> Result<(), StoreError> {
        let put = |Scanned { key, mut item }: Scanned| {
            item.extend(item_key(key));
            let put = PutRequest::builder().set_item(Some(item)).build();
            put.map(|put| WriteRequest::builder().put_request(put).build())
        };
        let (mut round, mut bytes) = (Vec::new(), 0);
        for row in rows {
            bytes += row.size();
            if !round.is_empty() && (round.len() == MAX_BATCH || bytes > MAX_BATCH_BYTES) {
                self.write_batch(grant, std::mem::take(&mut round)).await?;
                bytes = row.size();
            }
            round.push(put(row).map_err(|error| StoreError::unavailable(&error))?);
        }
        self.write_batch(grant, round).await
    }

    /// Deletes the rows at `keys`, in the same way.
    pub async fn remove(&self, grant: &Grant, keys: Vec<Key>) -> Result<(), StoreError> {
        let delete = |key: Key| {
            let delete = DeleteRequest::builder().set_key(Some(item_key(key))).build();
            delete.map(|delete| WriteRequest::builder().delete_request(delete).build())
        };
        let all = keys.into_iter().map(delete).collect::<Result<Vec<_>, _>>();
        for round in all.map_err(|error| StoreError::unavailable(&error))?.chunks(MAX_BATCH) {
            self.write_batch(grant, round.to_vec()).await?;
        }
        Ok(())
    }

    async fn write_batch(&self, grant: &Grant, mut round: Vec<WriteRequest>) -> Result<(), StoreError> {
        if grant.action().is_read() || *grant.place() != Place::Installation {
            return Err(StoreError::Mistake(format!("a grant to {:?} replaces no rows", grant.action())));
        }
        for attempt in 0..MAX_TRIES {
            if round.is_empty() {
                return Ok(());
            }
            pause(attempt).await;
            telemetry::wrote();
            let answer = self.client.batch_write_item().request_items(&self.name, round).send().await;
            let mut answer = answer.map_err(|error| StoreError::unavailable(&error))?;
            // DynamoDB may leave some out if it is short of capacity.
            round = answer.unprocessed_items.take().and_then(|mut left| left.remove(&self.name)).unwrap_or_default();
        }
        Err(StoreError::Unavailable("the table takes only parts of a batch".to_owned()))
    }

    /// Makes all of `writes`, at most 100, or none of them. Every row must lie in the place of `grant`.
    pub async fn write(&self, grant: &Grant, writes: Vec<Write>) -> Result<Written, StoreError> {
        if grant.action().is_read() {
            return Err(StoreError::Mistake(format!("a grant to {:?} writes nothing", grant.action())));
        }
        if let Some(key) = writes.iter().find_map(|write| write.key().filter(|key| !keys::lies_in(key, grant))) {
            return Err(StoreError::Mistake(format!("{:?} does not cover a row at {key:?}", grant.place())));
        }
        let items = writes.into_iter().map(|write| self.transact_item(write)).collect::<Result<Vec<_>, _>>()?;
        for attempt in 0..MAX_TRIES {
            pause(attempt).await;
            telemetry::wrote();
            telemetry::count(Count::TableRetries, u64::from(attempt.min(1)));
            let answer = self.client.transact_write_items().set_transact_items(Some(items.clone())).send().await;
            let Err(error) = answer else { return Ok(Written::Done) };
            match refusal(&error) {
                Refusal::Conflict(failed) => {
                    telemetry::count(Count::TransactionsLost, 1);
                    return Ok(Written::Lost(failed));
                }
                // Somebody else's transaction held one of the rows: this does not mean that a condition failed.
                Refusal::Contended if attempt + 1 < MAX_TRIES => {}
                Refusal::Contended | Refusal::Other => return Err(StoreError::unavailable(&error)),
            }
        }
        Err(StoreError::Unavailable("the table is contended".to_owned()))
    }

    fn transact_item(&self, write: Write) -> Result<TransactWriteItem, StoreError> {
        let build = |error: aws_sdk_dynamodb::error::BuildError| StoreError::unavailable(&error);
        let item = TransactWriteItem::builder();
        let table = &self.name;
        Ok(match write.0 {
            Operation::Put(_, row, condition) => {
                let Expression { text, names, values } = Expression::of(condition);
                let put = Put::builder().table_name(table).set_item(Some(row)).set_condition_expression(text);
                let put = put.set_expression_attribute_names(names).set_expression_attribute_values(values);
                item.put(put.build().map_err(build)?).build()
            }
            Operation::Delete(key, condition) => {
                let Expression { text, names, values } = Expression::of(condition);
                let delete = Delete::builder().table_name(table).set_key(Some(item_key(key)));
                let delete = delete.set_condition_expression(text).set_expression_attribute_names(names);
                item.delete(delete.set_expression_attribute_values(values).build().map_err(build)?).build()
            }
            Operation::Check(key, condition) => {
                let Expression { text, names, values } = Expression::of(condition);
                let check = ConditionCheck::builder().table_name(table).set_key(Some(item_key(key)));
                let check = check.set_condition_expression(text).set_expression_attribute_names(names);
                item.condition_check(check.set_expression_attribute_values(values).build().map_err(build)?).build()
            }
            Operation::Overlay(key, row) => {
                let mut expression = Expression::default();
                let update = expression.attributes(row);
                let Expression { names, values, .. } = expression;
                let set = Update::builder().table_name(table).set_key(Some(item_key(key))).update_expression(update);
                let set = set.set_expression_attribute_names(names).set_expression_attribute_values(values);
                item.update(set.build().map_err(build)?).build()
            }
            Operation::Add(key, numbers, condition) => {
                let mut expression = Expression::of(condition);
                if adds_rows(&numbers) {
                    expression.with_room_for_rows();
                }
                let update = expression.additions(&numbers);
                let Expression { text, names, values } = expression;
                let add = Update::builder().table_name(table).set_key(Some(item_key(key))).update_expression(update);
                let add = add.set_condition_expression(text).set_expression_attribute_names(names);
                item.update(add.set_expression_attribute_values(values).build().map_err(build)?).build()
            }
            Operation::Label(key, update, words, condition) => {
                let label = Update::builder().table_name(table).set_key(Some(item_key(key))).update_expression(update);
                let label = label.condition_expression(condition).expression_attribute_names("#tags", "tags");
                let label = label.expression_attribute_names("#version", "version");
                let label = label.expression_attribute_names("#named", "named");
                let label = label.expression_attribute_values(":true", AttributeValue::Bool(true));
                let label = label.expression_attribute_values(":tags", AttributeValue::Ss(words));
                let label = label.expression_attribute_values(":one", AttributeValue::N("1".to_owned()));
                let label = label.expression_attribute_values(":map", AttributeValue::S("M".to_owned()));
                item.update(label.build().map_err(build)?).build()
            }
        })
    }
}

enum Refusal {
    Conflict(Vec<usize>),
    Contended,
    Other,
}

fn refusal<R>(error: &SdkError<TransactWriteItemsError, R>) -> Refusal {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(canceled)) => {
            let reasons = canceled.cancellation_reasons();
            let coded = |code: &'static str| {
                let hit = move |(index, reason): (usize, &aws_sdk_dynamodb::types::CancellationReason)| {
                    (reason.code() == Some(code)).then_some(index)
                };
                reasons.iter().enumerate().filter_map(hit).collect::<Vec<_>>()
            };
            let failed = coded("ConditionalCheckFailed");
            let busy = ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];
            if !failed.is_empty() {
                Refusal::Conflict(failed)
            } else if busy.iter().any(|code| !coded(code).is_empty()) {
                Refusal::Contended
            } else {
                Refusal::Other
            }
        }
        Some(TransactWriteItemsError::TransactionInProgressException(_)) => Refusal::Contended,
        _ => Refusal::Other,
    }
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

/// An item without its key, and the key. A row repeats in its own attributes what it needs from the key.
fn keyed(mut item: Item) -> Option<(Key, Item)> {
    let mut text = |name: &str| match item.remove(name) {
        Some(AttributeValue::S(text)) => Some(text),
        _ => None,
    };
    let key = Key { pk: text("pk")?, sk: text("sk")? };
    Some((key, item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::quota::Quota;
    use crate::store::rows::{Account, Container, Link};

    #[test]
    fn additions_to_a_row_that_only_has_to_be_there_become_one() {
        let charge = |entity: &str, charged, condition| {
            let by = AccountChange { charged, ..AccountChange::default() };
            Write::charge(&entity.parse().unwrap(), by, condition)
        };
        let present = |charged| charge("alice", charged, Condition::Present);
        let limited = |charged| charge("alice", charged, Condition::Limit(9));
        let joined = |writes: Vec<Write>| {
            let mut all = Vec::new();
            for write in writes {
                write.join(&mut all);
            }
            let shown = |write: Write| match write.0 {
                Operation::Add(_, numbers, condition) => Some((numbers, matches!(condition, Condition::Present))),
                _ => None,
            };
            all.into_iter().filter_map(shown).collect::<Vec<_>>()
        };
        assert_eq!(joined(vec![present(1), present(-3)]), [(vec![("charged", -2), (VERSION, 2)], true)]);
        // The stronger condition stays.
        assert_eq!(joined(vec![present(1), limited(2)]), [(vec![("charged", 3), (VERSION, 2)], false)]);
        assert_eq!(joined(vec![limited(2), present(1)]), [(vec![("charged", 3), (VERSION, 2)], false)]);
        assert_eq!(joined(vec![limited(1), limited(2)]).len(), 2);
        assert_eq!(joined(vec![present(1), charge("bob", 1, Condition::Present)]).len(), 2);
        let by = AccountChange { reserved: 5, ..AccountChange::default() };
        let reserved = Write::charge(&"alice".parse().unwrap(), by, Condition::Present);
        assert_eq!(joined(vec![present(1), reserved]), [(vec![("charged", 1), (VERSION, 2), ("reserved", 5)], true)]);
    }

    #[test]
    fn of_two_writes_that_do_the_same_the_stronger_condition_stays() {
        let row = |size| Link {
            repository: "a/b".parse().unwrap(),
            name: crate::domain::Digest::of(b"").into(),
            digest: crate::domain::Digest::of(b""),
            object: String::new(),
            size,
            seen: Time(0),
        };
        let put = |size, condition| Write::put(&row(size), condition).unwrap();
        let delete = |condition| Write::delete(row(0).key(), condition);
        let joined = |writes: Vec<Write>| {
            let mut all = Vec::new();
            for write in writes {
                write.join(&mut all);
            }
            let conditions = all.into_iter().map(|write| match write.0 {
                Operation::Put(.., condition) | Operation::Delete(_, condition) => format!("{condition:?}"),
                other => panic!("{other:?}"),
            });
            conditions.collect::<Vec<_>>()
        };
        let (none, absent, version) = (Condition::None, Condition::Absent, Condition::Version(1));
        assert_eq!(joined(vec![put(1, none), put(1, absent)]), ["Absent"]);
        assert_eq!(joined(vec![put(1, absent), put(1, none)]), ["Absent"]);
        assert_eq!(joined(vec![delete(none), delete(version)]), ["Version(1)"]);
        // What can't both be meant stays, so that the table refuses it.
        assert_eq!(joined(vec![put(1, none), put(2, none)]).len(), 2);
        assert_eq!(joined(vec![put(1, absent), put(1, version)]).len(), 2);
        assert_eq!(joined(vec![put(1, none), delete(none)]).len(), 2);
    }

    /// Conditions and additions spell the names of attributes, and no compiler compares them with the rows.
    #[test]
    fn what_conditions_and_additions_name_is_a_number_in_the_row() {
        let named = |row: Item, names: &[&str]| {
            for name in names {
                assert!(matches!(row.get(*name), Some(AttributeValue::N(_))), "{name}: {row:?}");
            }
        };
        let repository: Repository = "a/b/c".parse().unwrap();
        let account = Account { entity: repository.entity().clone(), quota: Quota::default(), version: 0 };
        let account = serde_dynamo::to_item(account).unwrap();
        named(account, &["charged", "reserved", "surplus", "limit", ROWS, MOST_ROWS, VERSION]);
        let (id, digest) = (crate::domain::Id::from_random([0; 12]), crate::domain::Digest::of(b""));
        let container = Container {
            id,
            repository: repository.clone(),
            collection_id: None,
            entity_id: id,
            description: crate::domain::Description::default(),
            visibility: crate::domain::Visibility::Public,
            read_only: false,
            created_by: None,
            created: Time(0),
            epoch: 0,
            version: 0,
        };
        named(serde_dynamo::to_item(container).unwrap(), &["epoch", "version"]);
        let object = String::new();
        let link = Link { repository, name: digest.into(), digest, object, size: 0, seen: Time(0) };
        named(serde_dynamo::to_item(link).unwrap(), &["seen"]);
        let share = crate::store::rows::tests::share();
        named(serde_dynamo::to_item(share).unwrap(), &["uses", "expires", "gone"]);
    }
}
