//! Rows by their keys, straight from the table's file.
//!
//! The library answers such a read by recompiling its SQL for each key, and by parsing the stored text of an item only
//! to write the same text again: measured, a quarter of what an image lookup costs. The stored text is already in the
//! wire format, so here it is passed on, from one prepared statement for the whole batch.
//!
//! Only the plain form of a request is understood: string keys `pk` and `sk`, and no options but the consistency that
//! every read here has. For everything else, and for anything invalid, [`Rows::read`] returns `None` and the library
//! answers instead. So what is refused, and in which words, is left to the library alone.

use dynoxide::Database;
use dynoxide::actions::describe_table::{DescribeTableRequest, DescribeTableResponse};
use dynoxide::types::{KeyType, ScalarAttributeType};
use rusqlite::{Connection, OpenFlags, params_from_iter};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;

/// One connection that reads.
pub(crate) struct Rows(Mutex<Reader>);

struct Reader {
    connection: Connection,
    /// The tables that are known to have string keys `pk` and `sk`. A table keeps its keys, and none is ever deleted.
    plain: HashSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct GetItem {
    table_name: String,
    key: Key,
    #[serde(default, rename = "ConsistentRead")]
    _consistent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct BatchGetItem {
    request_items: HashMap<String, Wanted>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Wanted {
    keys: Vec<Key>,
    #[serde(default, rename = "ConsistentRead")]
    _consistent: bool,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Key {
    pk: Text,
    sk: Text,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(rename = "S")]
    text: String,
}

/// The longest keys, and the limits of a batch: whatever exceeds them is for the library to refuse or truncate.
const LONGEST_PK: usize = 2048;
const LONGEST_SK: usize = 1024;
const MAX_KEYS: usize = 100;
const MAX_BYTES: usize = 16 << 20;
/// How many prepared statements are kept: one for each number of keys.
const STATEMENTS: usize = 128;

impl Rows {
    /// Another connection to the table's file, which must exist.
    pub(crate) fn open(path: &Path) -> Result<Self, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Self(Mutex::new(Reader { connection, plain: HashSet::new() })))
    }

    /// The answer to a `GetItem` or `BatchGetItem`; `None` when the library has to give it.
    pub(crate) fn read(&self, library: &Database, operation: &str, body: &[u8]) -> Option<String> {
        match operation {
            "GetItem" => {
                let GetItem { table_name, key, .. } = parse(body)?;
                let items = self.items(library, &table_name, &[key])?;
                Some(if items.is_empty() { "{}".to_owned() } else { format!("{{\"Item\":{items}}}") })
            }
            "BatchGetItem" => {
                let BatchGetItem { request_items } = parse(body)?;
                // Of one table, as all of ours are: the limits apply to a whole batch.
                let mut tables = request_items.into_iter();
                let (Some((table, Wanted { keys, .. })), None) = (tables.next(), tables.next()) else { return None };
                let items = self.items(library, &table, &keys)?;
                Some(format!("{{\"Responses\":{{\"{table}\":[{items}]}},\"UnprocessedKeys\":{{}}}}"))
            }
            _ => None,
        }
    }

    /// The stored texts of the items at `keys`, separated by commas.
    fn items(&self, library: &Database, table: &str, keys: &[Key]) -> Option<String> {
        // Our batches have a handful of keys, for which comparing all pairs is cheaper than hashing.
        let twice = keys.iter().enumerate().any(|(index, key)| keys.iter().take(index).any(|other| other == key));
        let fits =
            |key: &Key| (1..=LONGEST_PK).contains(&key.pk.text.len()) && (1..=LONGEST_SK).contains(&key.sk.text.len());
        if keys.is_empty() || keys.len() > MAX_KEYS || twice || !keys.iter().all(fits) {
            return None;
        }
        let mut reader = self.0.lock().ok()?;
        if !reader.plain.contains(table) {
            if !is_plain(library, table) {
                return None;
            }
            reader.plain.insert(table.to_owned());
        }
        let mut statement = reader.connection.prepare_cached(&select(table, keys.len())).ok()?;
        // The library stores a key with its type in front.
        let texts = keys.iter().flat_map(|key| [&key.pk, &key.sk]).map(|key| format!("S:{}", key.text));
        let mut rows = statement.query(params_from_iter(texts)).ok()?;
        let mut items = String::new();
        while let Some(row) = rows.next().ok()? {
            let comma = if items.is_empty() { "" } else { "," };
            write!(items, "{comma}{}", row.get_ref(0).ok()?.as_str().ok()?).ok()?;
        }
        (items.len() <= MAX_BYTES).then_some(items)
    }
}

/// One statement for all `keys`, so that the file is locked once. The cross join makes `SQLite` go from the keys to the
/// rows; `IN` would scan the table. The table's name has no quotes, or the table would not exist.
fn select(table: &str, keys: usize) -> String {
    let more = ", (?, ?)".repeat(keys.saturating_sub(1));
    format!(
        "SELECT item_json FROM (VALUES (?, ?){more}) AS wanted \
         CROSS JOIN \"{table}\" AS item ON item.pk = wanted.column1 AND item.sk = wanted.column2"
    )
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// Whether a table exists and its keys are the strings `pk` and `sk`.
fn is_plain(library: &Database, table: &str) -> bool {
    let request = DescribeTableRequest { table_name: table.to_owned() };
    let Ok(DescribeTableResponse { table, .. }) = library.describe_table(request) else { return false };
    let keys = table.key_schema.iter().map(|key| (key.attribute_name.as_str(), &key.key_type));
    let string = |name: &str| {
        let mut defined = table.attribute_definitions.iter();
        defined.any(|own| own.attribute_name == name && own.attribute_type == ScalarAttributeType::S)
    };
    keys.eq([("pk", &KeyType::HASH), ("sk", &KeyType::RANGE)]) && string("pk") && string("sk")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_finds_its_rows_by_their_keys() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE rooms (pk, sk, item_json, PRIMARY KEY (pk, sk))").unwrap();
        for keys in [1, 2, 5, 100] {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", select("rooms", keys))).unwrap();
            let steps = plan.query_map(params_from_iter(vec!["a"; 2 * keys]), |row| row.get::<_, String>(3)).unwrap();
            let steps = steps.collect::<Result<Vec<_>, _>>().unwrap().join("; ");
            assert!(steps.contains("SEARCH item USING INDEX") && !steps.contains("SCAN item"), "{steps}");
        }
    }
}
