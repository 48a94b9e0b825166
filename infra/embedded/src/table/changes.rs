//! What changes the file: a transaction under typed conditions, by the rules of `DynamoDB`.
//!
//! 1. Refuse rows that are too long.
//! 2. Look at every row that a write changes or asks for. If a condition does not hold, say which ones, and write nothing.
//!    If all hold and something is impossible, refuse it.
//! 3. Write. Nobody writes in between, since there is one connection that writes.

use super::{Refused, reads};
use rusqlite::Connection;
use serde_json::{Map, Number, Value};
use shared::store::keys::Key;
use shared::store::table::backend::Text;
use shared::store::table::write::{CONTENT, Labels, MOST_ROWS, NAMED, Operation, ROWS, TAGS, VERSION, adds_rows};
use shared::store::table::{Condition, StoreError, Written};
use std::borrow::Cow;
use std::collections::BTreeSet;

type Row = Map<String, Value>;

/// The most bytes of a row, and of the parts of its key: limits of `DynamoDB`.
const LONGEST: usize = 400 << 10;
const LONGEST_PK: usize = 2048;
const LONGEST_SK: usize = 1024;
/// The names of the attributes of its key.
const KEY: usize = 4;

/// What is written of an operation.
enum Step<'a> {
    Put(&'a Key, Cow<'a, str>),
    Delete(&'a Key),
    Nothing,
    /// Its condition does not hold.
    Lost,
    /// It can't be done to this row.
    Impossible(String),
}

/// Makes all of the operations or none.
pub(super) fn transact(connection: &Connection, operations: &[Operation]) -> Result<Written, Refused> {
    for operation in operations {
        if let Operation::Put(key, text, _) = operation {
            fits(key, text)?;
        }
    }
    let steps = operations.iter().map(|operation| step(connection, operation)).collect::<Result<Vec<_>, _>>()?;
    let lost: Vec<usize> =
        steps.iter().enumerate().filter(|(_, step)| matches!(step, Step::Lost)).map(|(at, _)| at).collect();
    if !lost.is_empty() {
        return Ok(Written::Lost(lost));
    }
    for step in steps {
        match step {
            Step::Put(key, text) => put(connection, key, &text)?,
            Step::Delete(key) => delete(connection, key)?,
            Step::Nothing | Step::Lost => {}
            Step::Impossible(why) => return Err(Refused(StoreError::Unavailable(why))),
        }
    }
    Ok(Written::Done)
}

/// Whether a row is no longer than rows can be.
fn fits(Key { pk, sk }: &Key, text: &str) -> Result<(), Refused> {
    let refused = |what: &str| Refused(StoreError::Unavailable(format!("{what} is longer than rows can be")));
    if pk.len() > LONGEST_PK || sk.len() > LONGEST_SK {
        return Err(refused("a key"));
    }
    // Its text is longer than the row, where characters are escaped.
    if text.len() + KEY > LONGEST && pk.len() + sk.len() + KEY + weight_of(text)? > LONGEST {
        return Err(refused("a row"));
    }
    Ok(())
}

/// Writes a row over any other at its key.
pub(super) fn put(connection: &Connection, key: &Key, text: &str) -> Result<(), Refused> {
    fits(key, text)?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO item (pk, sk, text) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET text = excluded.text",
    )?;
    statement.execute([key.pk.as_str(), key.sk.as_str(), text])?;
    Ok(())
}

/// About how many bytes an operation brings.
pub(super) fn size(operation: &Operation) -> usize {
    match operation {
        Operation::Put(_, text, _) | Operation::Overlay(_, text) => text.len(),
        _ => 0,
    }
}

/// How many bytes a row counts by `DynamoDB`'s rules: names and texts as they are, about a byte for two digits, one for
/// `true` or `null`, three for a list or a map and one more for each of its values.
fn weight_of(text: &str) -> Result<usize, Refused> {
    fn weight(value: &Value) -> usize {
        match value {
            Value::Null | Value::Bool(_) => 1,
            Value::Number(number) => number.to_string().len().div_ceil(2) + 1,
            Value::String(text) => text.len(),
            Value::Array(values) => 3 + values.iter().map(|value| 1 + weight(value)).sum::<usize>(),
            Value::Object(map) => 3 + map.iter().map(|(name, value)| 1 + name.len() + weight(value)).sum::<usize>(),
        }
    }
    let row: Row = serde_json::from_str(text).map_err(|error| Refused(StoreError::Row(error)))?;
    Ok(row.iter().map(|(name, value)| name.len() + weight(value)).sum())
}

/// Deletes a row, if it is there.
pub(super) fn delete(connection: &Connection, Key { pk, sk }: &Key) -> Result<(), Refused> {
    connection.prepare_cached("DELETE FROM item WHERE pk = ?1 AND sk = ?2")?.execute([pk, sk])?;
    Ok(())
}

/// What an operation writes.
fn step<'a>(connection: &Connection, operation: &'a Operation) -> Result<Step<'a>, Refused> {
    let if_holds = |key, condition, step| Ok(if holds(connection, key, condition)? { step } else { Step::Lost });
    match operation {
        Operation::Put(key, text, condition) => if_holds(key, *condition, Step::Put(key, Cow::Borrowed(text))),
        Operation::Delete(key, condition) => if_holds(key, *condition, Step::Delete(key)),
        Operation::Check(key, condition) => if_holds(key, *condition, Step::Nothing),
        Operation::Overlay(key, text) => {
            let mut row = row(connection, key)?.unwrap_or_default();
            row.extend(parsed(text)?);
            written(key, Ok(row))
        }
        Operation::Add(key, numbers, condition) => {
            let row = row(connection, key)?;
            if !agrees(*condition, row.as_ref()) || (adds_rows(numbers) && !has_room(row.as_ref())) {
                return Ok(Step::Lost);
            }
            written(key, added(row.unwrap_or_default(), numbers))
        }
        Operation::Label(key, labels) => match row(connection, key)? {
            Some(row) if row.get(CONTENT).is_some_and(Value::is_object) => written(key, labelled(row, labels)),
            _ => Ok(Step::Lost),
        },
    }
}

/// The row at `key`, read.
fn row(connection: &Connection, key: &Key) -> Result<Option<Row>, Refused> {
    reads::one(connection, key)?.map(|text| parsed(&text)).transpose()
}

fn parsed(text: &Text) -> Result<Row, Refused> {
    serde_json::from_str(text).map_err(|error| Refused(StoreError::Row(error)))
}

/// Writes a row that was changed, or says why it could not be.
fn written(key: &Key, row: Result<Row, String>) -> Result<Step<'_>, Refused> {
    Ok(match row {
        Ok(row) => {
            let text = serde_json::to_string(&row).map_err(|error| Refused(StoreError::Row(error)))?;
            Step::Put(key, Cow::Owned(text))
        }
        Err(why) => Step::Impossible(why),
    })
}

/// Whether the row at `key` meets a condition. It is read as far as that needs.
fn holds(connection: &Connection, key: &Key, condition: Condition) -> Result<bool, Refused> {
    Ok(match condition {
        Condition::None => true,
        Condition::Absent => reads::one(connection, key)?.is_none(),
        Condition::Present => reads::one(connection, key)?.is_some(),
        _ => agrees(condition, row(connection, key)?.as_ref()),
    })
}

/// A number of a row.
fn number(row: &Row, name: &str) -> Option<i128> {
    match row.get(name)? {
        Value::Number(number) => number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from)),
        _ => None,
    }
}

/// Whether a row, or its absence, meets a condition.
fn agrees(condition: Condition, row: Option<&Row>) -> bool {
    let number = |name| row.and_then(|row| number(row, name));
    let is = |name, wanted: i128| number(name) == Some(wanted);
    match condition {
        Condition::None => true,
        Condition::Absent => row.is_none(),
        Condition::Present => row.is_some(),
        Condition::Version(version) => is(VERSION, version.into()),
        Condition::Epoch(epoch) => is("epoch", epoch.into()),
        Condition::Removals(removals) => is("removals", removals.into()),
        Condition::Seen(time) => is("seen", time.0.into()),
        Condition::Limit(limit) => is("limit", limit.into()),
        Condition::Unused => ["charged", "reserved", "surplus", ROWS].into_iter().all(|name| is(name, 0)),
        Condition::Room { limit, charged_at_most, surplus_at_most } => {
            let at_most = |name, most: u64| number(name).is_some_and(|there| there <= i128::from(most));
            is("limit", limit.into()) && at_most("charged", charged_at_most) && at_most("surplus", surplus_at_most)
        }
        Condition::Usable { below, now } => {
            number("uses").is_some_and(|uses| uses < i128::from(below))
                && number("expires").is_some_and(|expires| expires > i128::from(now.0))
        }
    }
}

/// Whether an account has room for more rows.
fn has_room(row: Option<&Row>) -> bool {
    let number = |name| row.and_then(|row| number(row, name));
    number(ROWS).zip(number(MOST_ROWS)).is_some_and(|(rows, most)| rows < most)
}

/// The row with other numbers.
fn added(mut row: Row, numbers: &[(&'static str, i128)]) -> Result<Row, String> {
    let refused = |name: &str| format!("a row has no number {name} to which that could be added");
    for (name, more) in numbers {
        let before = match (number(&row, name), row.contains_key(*name)) {
            (Some(before), _) => before,
            (None, false) if *name == VERSION => 0,
            _ => return Err(refused(name)),
        };
        let after = before.checked_add(*more).and_then(Number::from_i128).ok_or_else(|| refused(name))?;
        row.insert((*name).to_owned(), Value::Number(after));
    }
    Ok(row)
}

/// The row with other tags.
fn labelled(mut row: Row, labels: &Labels) -> Result<Row, String> {
    let refused = || "the tags of a row are no set".to_owned();
    let mut tags = BTreeSet::new();
    match row.remove(TAGS) {
        None => {}
        Some(Value::Array(there)) => {
            for tag in there {
                let Value::String(tag) = tag else { return Err(refused()) };
                tags.insert(tag);
            }
        }
        Some(_) => return Err(refused()),
    }
    match labels {
        Labels::Add(more) => tags.extend(more.iter().cloned()),
        Labels::Remove(gone) => gone.iter().for_each(|tag| {
            tags.remove(tag);
        }),
    }
    if !tags.is_empty() {
        row.insert(TAGS.to_owned(), tags.into_iter().map(Value::String).collect());
    }
    row.insert(NAMED.to_owned(), Value::Bool(true));
    added(row, &[(VERSION, 1)])
}
