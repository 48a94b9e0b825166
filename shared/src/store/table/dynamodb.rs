//! Rows in `DynamoDB`, through the SDK. Nothing else spells its expressions.

use super::attributes::{self, Item};
use super::backend::{Attributes, Backend, Query, Text, Texts};
use super::write::{CONTENT, Condition, Labels, MOST_ROWS, NAMED, Operation, ROWS, TAGS, VERSION, adds_rows};
use super::{MAX_TRIES, StoreError, Written, pause};
use crate::store::keys::{Key, KeyRange};
use crate::telemetry::{self, Count};
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, ConditionCheck, Delete, DeleteRequest, KeySchemaElement, KeyType,
    KeysAndAttributes, Put, PutRequest, ScalarAttributeType, TableStatus, TransactWriteItem, Update, WriteRequest,
};
use std::collections::HashMap;
use std::time::Duration;

/// A table of `DynamoDB`.
#[derive(Debug, Clone)]
pub struct DynamoDb {
    client: Client,
    name: String,
}

impl DynamoDb {
    /// The table `name`, through `client`.
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    async fn write_batch(&self, mut round: Vec<WriteRequest>) -> Result<(), StoreError> {
        for attempt in 0..MAX_TRIES {
            if round.is_empty() {
                return Ok(());
            }
            pause(attempt).await;
            if attempt > 0 {
                telemetry::wrote();
            }
            let answer = self.client.batch_write_item().request_items(&self.name, round).send().await;
            let mut answer = answer.map_err(|error| StoreError::unavailable(&error))?;
            // DynamoDB may leave some out if it is short of capacity.
            round = answer.unprocessed_items.take().and_then(|mut left| left.remove(&self.name)).unwrap_or_default();
        }
        Err(StoreError::Unavailable("the table takes only parts of a batch".to_owned()))
    }

    fn transact_item(&self, operation: Operation) -> Result<TransactWriteItem, StoreError> {
        let item = TransactWriteItem::builder();
        let table = &self.name;
        Ok(match operation {
            Operation::Put(key, row, condition) => {
                let row = item_of(key, &row)?;
                let Expression { text, names, values } = Expression::of(condition);
                let put = Put::builder().table_name(table).set_item(Some(row)).set_condition_expression(text);
                let put = put.set_expression_attribute_names(names).set_expression_attribute_values(values);
                item.put(put.build().map_err(build)?).build()
            }
            Operation::Delete(key, condition) => {
                let Expression { text, names, values } = Expression::of(condition);
                let delete = Delete::builder().table_name(table).set_key(Some(attributes::of_key(key)));
                let delete = delete.set_condition_expression(text).set_expression_attribute_names(names);
                item.delete(delete.set_expression_attribute_values(values).build().map_err(build)?).build()
            }
            Operation::Check(key, condition) => {
                let Expression { text, names, values } = Expression::of(condition);
                let check = ConditionCheck::builder().table_name(table).set_key(Some(attributes::of_key(key)));
                let check = check.set_condition_expression(text).set_expression_attribute_names(names);
                item.condition_check(check.set_expression_attribute_values(values).build().map_err(build)?).build()
            }
            Operation::Overlay(key, row) => {
                let mut expression = Expression::default();
                let update = expression.attributes(attributes::of_text(&row)?);
                let Expression { names, values, .. } = expression;
                let set = Update::builder()
                    .table_name(table)
                    .set_key(Some(attributes::of_key(key)))
                    .update_expression(update);
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
                let add = Update::builder()
                    .table_name(table)
                    .set_key(Some(attributes::of_key(key)))
                    .update_expression(update);
                let add = add.set_condition_expression(text).set_expression_attribute_names(names);
                item.update(add.set_expression_attribute_values(values).build().map_err(build)?).build()
            }
            Operation::Label(key, labels) => {
                let (update, tags) = match labels {
                    Labels::Add(tags) => ("SET #named = :true ADD #tags :tags, #version :one", tags),
                    Labels::Remove(tags) => ("SET #named = :true ADD #version :one DELETE #tags :tags", tags),
                };
                let mut expression = Expression::default();
                for name in [TAGS, VERSION, NAMED, CONTENT] {
                    expression.name(name);
                }
                let label = Update::builder().table_name(table).set_key(Some(attributes::of_key(key)));
                let label = label.update_expression(update).set_expression_attribute_names(expression.names);
                let label = label.condition_expression("attribute_exists(pk) AND attribute_type(#content, :map)");
                let label = label.expression_attribute_values(":true", AttributeValue::Bool(true));
                let label = label.expression_attribute_values(":tags", AttributeValue::Ss(tags));
                let label = label.expression_attribute_values(":one", AttributeValue::N("1".to_owned()));
                let label = label.expression_attribute_values(":map", AttributeValue::S("M".to_owned()));
                item.update(label.build().map_err(build)?).build()
            }
        })
    }
}

#[async_trait]
impl Backend for DynamoDb {
    async fn create(&self) -> Result<(), StoreError> {
        let attribute = |name: &str| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build()
        };
        let element = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
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

    /// On AWS, it takes half a minute at most.
    async fn usable(&self) -> Result<(), StoreError> {
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

    async fn ready(&self) -> Result<(), StoreError> {
        let answer = self.client.describe_table().table_name(&self.name).send().await;
        answer.map(|_| ()).map_err(|error| StoreError::unavailable(&error))
    }

    async fn get(&self, keys: &[Key], attributes: Attributes<'_>) -> Result<Vec<Option<Text>>, StoreError> {
        if let ([key], Attributes::All) = (keys, attributes) {
            let request = self.client.get_item().table_name(&self.name).set_key(Some(attributes::of_key(key.clone())));
            let answer = request.consistent_read(true).send().await.map_err(|error| StoreError::unavailable(&error))?;
            let row = answer.item.map(attributes::split).transpose()?;
            return Ok(vec![row.map(|(_, text)| text)]);
        }
        let mut found = HashMap::new();
        let mut wanted: Vec<Item> = keys.iter().cloned().map(attributes::of_key).collect();
        let projection = projection(attributes);
        for attempt in 0..MAX_TRIES {
            pause(attempt).await;
            if attempt > 0 {
                telemetry::read();
                telemetry::count(Count::TableRetries, 1);
            }
            let asked = KeysAndAttributes::builder().set_keys(Some(wanted)).consistent_read(true);
            let asked = asked.set_projection_expression(projection.text.clone());
            let asked = asked.set_expression_attribute_names(projection.names.clone()).build().map_err(build)?;
            let answer = self.client.batch_get_item().request_items(&self.name, asked).send().await;
            let mut answer = answer.map_err(|error| StoreError::unavailable(&error))?;
            for item in answer.responses.take().into_iter().flat_map(HashMap::into_values).flatten() {
                let (key, text) = attributes::split(item)?;
                found.insert(key, text);
            }
            // DynamoDB may leave keys out if it is short of capacity.
            let left = answer.unprocessed_keys.take().and_then(|mut left| left.remove(&self.name));
            wanted = left.map(|left| left.keys).unwrap_or_default();
            if wanted.is_empty() {
                return Ok(keys.iter().map(|key| found.remove(key)).collect());
            }
        }
        Err(StoreError::Unavailable("the table answers only parts of a batch".to_owned()))
    }

    async fn query(&self, query: Query<'_>) -> Result<Texts, StoreError> {
        let KeyRange { pk, prefix } = query.range;
        let start = query.past.map(|sk| attributes::of_key(Key { pk: pk.clone(), sk: sk.to_owned() }));
        let projection = projection(query.attributes);
        let request = self.client.query().table_name(&self.name).consistent_read(true);
        let request = request.set_exclusive_start_key(start).scan_index_forward(query.forward);
        let request = request.limit(limit(query.limit)).set_projection_expression(projection.text);
        let request = request.set_expression_attribute_names(projection.names);
        let request = request.expression_attribute_values(":pk", AttributeValue::S(pk.clone()));
        // No part of a key may be compared with an empty text.
        let request = if prefix.is_empty() {
            request.key_condition_expression("pk = :pk")
        } else {
            let request = request.key_condition_expression("pk = :pk AND begins_with(sk, :prefix)");
            request.expression_attribute_values(":prefix", AttributeValue::S(prefix.clone()))
        };
        let answer = request.send().await.map_err(|error| StoreError::unavailable(&error))?;
        texts(answer.items, answer.last_evaluated_key)
    }

    async fn scan(&self, start: Option<&Key>, most: usize) -> Result<Texts, StoreError> {
        let request = self.client.scan().table_name(&self.name).consistent_read(true).limit(limit(most));
        let answer = request.set_exclusive_start_key(start.cloned().map(attributes::of_key)).send().await;
        let answer = answer.map_err(|error| StoreError::unavailable(&error))?;
        texts(answer.items, answer.last_evaluated_key)
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<Written, StoreError> {
        let items = operations.into_iter().map(|one| self.transact_item(one)).collect::<Result<Vec<_>, _>>()?;
        for attempt in 0..MAX_TRIES {
            pause(attempt).await;
            if attempt > 0 {
                telemetry::wrote();
                telemetry::count(Count::TableRetries, 1);
            }
            let answer = self.client.transact_write_items().set_transact_items(Some(items.clone())).send().await;
            let Err(error) = answer else { return Ok(Written::Done) };
            match refusal(&error) {
                Refusal::Conflict(failed) => return Ok(Written::Lost(failed)),
                // Somebody else's transaction held one of the rows: this does not mean that a condition failed.
                Refusal::Contended if attempt + 1 < MAX_TRIES => {}
                Refusal::Contended | Refusal::Other => return Err(StoreError::unavailable(&error)),
            }
        }
        Err(StoreError::Unavailable("the table is contended".to_owned()))
    }

    async fn put(&self, rows: Vec<(Key, Text)>) -> Result<(), StoreError> {
        let put = |(key, row): (Key, Text)| {
            let put = PutRequest::builder().set_item(Some(item_of(key, &row)?)).build().map_err(build)?;
            Ok::<_, StoreError>(WriteRequest::builder().put_request(put).build())
        };
        self.write_batch(rows.into_iter().map(put).collect::<Result<_, _>>()?).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<(), StoreError> {
        let delete = |key: Key| {
            let delete = DeleteRequest::builder().set_key(Some(attributes::of_key(key))).build().map_err(build)?;
            Ok::<_, StoreError>(WriteRequest::builder().delete_request(delete).build())
        };
        self.write_batch(keys.into_iter().map(delete).collect::<Result<_, _>>()?).await
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` wants it")]
fn build(error: BuildError) -> StoreError {
    StoreError::unavailable(&error)
}

/// A row with its key.
fn item_of(key: Key, row: &Text) -> Result<Item, StoreError> {
    let mut item = attributes::of_text(row)?;
    item.extend(attributes::of_key(key));
    Ok(item)
}

/// The form that the SDK wants.
fn limit(most: usize) -> i32 {
    i32::try_from(most).unwrap_or(i32::MAX)
}

/// The expression that asks for some attributes, and always for the key.
fn projection(attributes: Attributes<'_>) -> Expression {
    let mut expression = Expression::default();
    if let Attributes::Only(names) = attributes {
        for name in names {
            expression.name(name);
        }
        let names = names.iter().map(|name| format!(", #{name}"));
        expression.text = Some(format!("pk, sk{}", names.collect::<String>()));
    }
    expression
}

fn texts(items: Option<Vec<Item>>, last: Option<Item>) -> Result<Texts, StoreError> {
    let rows = items.unwrap_or_default().into_iter().map(attributes::split).collect::<Result<_, _>>()?;
    let next = last.map(|mut key| attributes::key_of(&mut key)).transpose()?;
    Ok(Texts { rows, next })
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
            Condition::Removals(removals) => Some(expression.equal("removals", &removals)),
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
