//! What is asked of the file. Each function is one statement, and so sees one snapshot.

use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, Row, ToSql, params_from_iter};
use serde_json::value::RawValue;
use shared::store::keys::{Key, KeyRange};
use shared::store::table::backend::{Attributes, Query, Text, Texts};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// About the most bytes of a page: `DynamoDB` ends its pages there, too.
const MAX_PAGE: usize = 1 << 20;

/// The rows at `keys`, each in the place of its key.
pub(super) fn get(
    connection: &Connection,
    keys: &[Key],
    attributes: Attributes<'_>,
) -> rusqlite::Result<Vec<Option<Text>>> {
    if let ([key], Attributes::All) = (keys, attributes) {
        return Ok(vec![one(connection, key)?]);
    }
    let mut found = vec![None; keys.len()];
    let mut statement = connection.prepare_cached(&select(keys.len(), attributes))?;
    let mut rows = statement.query(params_from_iter(keys.iter().flat_map(|key| [&key.pk, &key.sk])))?;
    while let Some(row) = rows.next()? {
        let place = found.get_mut(row.get::<_, usize>(0)?);
        if let Some(place) = place {
            *place = Some(some(row, 1, attributes)?);
        }
    }
    Ok(found)
}

/// The row at `key`.
pub(super) fn one(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Text>> {
    let mut statement = connection.prepare_cached("SELECT text FROM item WHERE pk = ?1 AND sk = ?2")?;
    let mut rows = statement.query([&key.pk, &key.sk])?;
    rows.next()?.map(|row| text(row, 0)).transpose()
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Text> {
    Ok(row.get_ref(column)?.as_str()?.to_owned())
}

/// What is wanted of a row. Rows may be large, so what is not wanted is not copied.
fn some(row: &Row<'_>, column: usize, attributes: Attributes<'_>) -> rusqlite::Result<Text> {
    let Attributes::Only(names @ [_, ..]) = attributes else { return text(row, column) };
    let whole = row.get_ref(column)?.as_str()?;
    let projected = || -> serde_json::Result<Text> {
        let mut all: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(whole)?;
        let some: BTreeMap<&str, &RawValue> =
            names.iter().filter_map(|name| Some((*name, all.remove(*name)?))).collect();
        serde_json::to_string(&some)
    };
    projected().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// The column that a statement selects. Where only keys are wanted, no row is read.
fn column(attributes: Attributes<'_>) -> &'static str {
    match attributes {
        Attributes::Only([]) => "'{}'",
        _ => "item.text",
    }
}

/// One statement for all `keys`, so that the file is locked once. The cross join makes `SQLite` go from the keys to the
/// rows; `IN` would scan the table.
fn select(keys: usize, attributes: Attributes<'_>) -> String {
    let mut wanted = String::new();
    for place in 0..keys {
        let comma = if place == 0 { "" } else { ", " };
        // Writing to a text never fails.
        let _ = write!(wanted, "{comma}({place}, ?, ?)");
    }
    format!(
        "SELECT wanted.column1, {} FROM (VALUES {wanted}) AS wanted \
         CROSS JOIN item ON item.pk = wanted.column2 AND item.sk = wanted.column3",
        column(attributes)
    )
}

/// Some rows of a partition.
pub(super) fn query(connection: &Connection, query: &Query<'_>) -> rusqlite::Result<Texts> {
    let KeyRange { pk, prefix } = query.range;
    let (beyond, limit) = (beyond(prefix), i64::try_from(query.limit).unwrap_or(i64::MAX));
    let end = if beyond.is_some() { " AND sk < ?3" } else { "" };
    let (past, order) = match (query.past.is_some(), query.forward) {
        (true, true) => (" AND sk > ?4", "ASC"),
        (true, false) => (" AND sk < ?4", "DESC"),
        (false, true) => ("", "ASC"),
        (false, false) => ("", "DESC"),
    };
    let bound: [&dyn ToSql; 5] = [pk, prefix, &beyond, &query.past, &limit];
    let statement = list(column(query.attributes), end, past, order);
    texts(connection.prepare_cached(&statement)?, &bound, query.limit, query.attributes)
}

fn list(column: &str, end: &str, past: &str, order: &str) -> String {
    format!("SELECT pk, sk, {column} FROM item WHERE pk = ?1 AND sk >= ?2{end}{past} ORDER BY sk {order} LIMIT ?5")
}

/// At most `limit` rows after `start`.
pub(super) fn scan(connection: &Connection, start: Option<&Key>, limit: usize) -> rusqlite::Result<Texts> {
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    match start {
        None => texts(connection.prepare_cached(&page(""))?, &[&most], limit, Attributes::All),
        Some(Key { pk, sk }) => {
            let statement = connection.prepare_cached(&page("WHERE (pk, sk) > (?2, ?3)"))?;
            texts(statement, &[&most, pk, sk], limit, Attributes::All)
        }
    }
}

fn page(after: &str) -> String {
    format!("SELECT pk, sk, text FROM item {after} ORDER BY pk, sk LIMIT ?1")
}

fn texts(
    mut statement: CachedStatement<'_>,
    bound: &[&dyn ToSql],
    limit: usize,
    attributes: Attributes<'_>,
) -> rusqlite::Result<Texts> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let mut rows = statement.query(bound)?;
    while bytes < MAX_PAGE
        && let Some(row) = rows.next()?
    {
        let key = Key { pk: text(row, 0)?, sk: text(row, 1)? };
        let text = some(row, 2, attributes)?;
        bytes += text.len();
        found.push((key, text));
    }
    let last = found.last().filter(|_| found.len() >= limit || bytes >= MAX_PAGE);
    let next = last.map(|(key, _)| key.clone());
    Ok(Texts { rows: found, next })
}

/// The first text after all that begin with `prefix`, in the order of their bytes; `None` if there is none.
fn beyond(prefix: &str) -> Option<String> {
    let mut rest: Vec<char> = prefix.chars().collect();
    while let Some(last) = rest.pop() {
        // The range steps over what is no character.
        if let Some(next) = (last..=char::MAX).nth(1) {
            rest.push(next);
            return Some(rest.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TABLES;

    #[test]
    fn every_read_finds_its_rows_by_their_keys() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        let plan = |statement: &str| {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
            let bound = vec!["a"; plan.parameter_count()];
            let steps = plan.query_map(params_from_iter(bound), |row| row.get::<_, String>(3)).unwrap();
            steps.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
        };
        for keys in [1, 2, 5, 100] {
            let steps = plan(&select(keys, Attributes::All));
            assert!(steps.contains("SEARCH item USING PRIMARY KEY") && !steps.contains("SCAN item"), "{steps}");
        }
        for past in ["", " AND sk > ?4", " AND sk < ?4"] {
            for order in ["ASC", "DESC"] {
                let steps = plan(&list("text", " AND sk < ?3", past, order));
                assert!(steps.contains("SEARCH item USING PRIMARY KEY (pk=? AND sk>? AND sk<?)"), "{steps}");
                assert!(!steps.contains("TEMP B-TREE"), "{steps}");
            }
        }
        let steps = plan(&page("WHERE (pk, sk) > (?2, ?3)"));
        assert!(steps.contains("SEARCH item USING PRIMARY KEY") && !steps.contains("TEMP B-TREE"), "{steps}");
    }

    #[test]
    fn what_lies_beyond_a_prefix() {
        let after = |prefix: &str| beyond(prefix);
        assert_eq!(after("T#"), Some("T$".to_owned()));
        assert_eq!(after(""), None);
        assert_eq!(after("a\u{10ffff}"), Some("b".to_owned()));
        assert_eq!(after("\u{d7ff}"), Some("\u{e000}".to_owned()));
        assert_eq!(after("\u{10ffff}"), None);
    }
}
