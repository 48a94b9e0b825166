//! The embedded table, at the seam. `tests/tests/seam.rs` compares it with `DynamoDB`'s.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::too_many_lines,
    reason = "a test stops at the first surprise"
)]

use embedded::Error;
use embedded::table::Table;
use serde_json::{Value, json};
use shared::store::StoreError;
use shared::store::keys::{Key, KeyRange};
use shared::store::table::backend::{Attributes, Backend, Query, Texts};
use shared::store::table::write::{Labels, Operation};
use shared::store::table::{Condition, Written};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn fresh() -> (TempDir, Table) {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::open(&folder.path().join("table.sqlite")).unwrap();
    (folder, table)
}

fn key(pk: &str, sk: &str) -> Key {
    Key { pk: pk.to_owned(), sk: sk.to_owned() }
}

fn put(pk: &str, sk: &str, row: &Value, condition: Condition) -> Operation {
    Operation::Put(key(pk, sk), row.to_string(), condition)
}

async fn written(table: &Table, operations: Vec<Operation>) -> Written {
    table.transact(operations).await.unwrap()
}

async fn done(table: &Table, operations: Vec<Operation>) {
    assert_eq!(written(table, operations).await, Written::Done);
}

async fn row(table: &Table, pk: &str, sk: &str) -> Option<Value> {
    let found = table.get(&[key(pk, sk)], Attributes::All).await.unwrap().pop().unwrap();
    found.map(|text| serde_json::from_str(&text).unwrap())
}

async fn listed(table: &Table, prefix: &str, past: Option<&str>, forward: bool, limit: usize) -> Texts {
    let range = KeyRange { pk: "p".to_owned(), prefix: prefix.to_owned() };
    table.query(Query { range: &range, past, forward, limit, attributes: Attributes::All }).await.unwrap()
}

fn names(batch: &Texts) -> Vec<&str> {
    batch.rows.iter().map(|(key, _)| key.sk.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_32_who_write_a_new_row_exactly_one_wins() {
    let (_folder, table) = fresh();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..32 {
        let table = table.clone();
        tasks.spawn(
            async move { written(&table, vec![put("p", "s", &json!({ "by": number }), Condition::Absent)]).await },
        );
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Written::Done).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Written::Lost(vec![0])).count(), 31);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_transaction_names_all_its_reasons_and_changes_nothing() {
    let (_folder, table) = fresh();
    let (row_1, row_2) = (json!({ "version": 1 }), json!({ "version": 2 }));
    assert_eq!(written(&table, vec![put("p", "1", &row_1, Condition::Absent)]).await, Written::Done);
    let lost = vec![
        put("p", "2", &row_2, Condition::Absent),
        Operation::Check(key("p", "1"), Condition::Version(2)),
        Operation::Delete(key("p", "3"), Condition::None),
        Operation::Delete(key("p", "4"), Condition::Present),
        Operation::Add(key("p", "5"), vec![("count", 1)], Condition::Present),
    ];
    assert_eq!(written(&table, lost).await, Written::Lost(vec![1, 3, 4]));
    assert_eq!((row(&table, "p", "1").await, row(&table, "p", "2").await), (Some(row_1), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_added_to_and_only_a_version_begins_with_0() {
    let (_folder, table) = fresh();
    let add = |numbers: &[(&'static str, i128)]| Operation::Add(key("p", "s"), numbers.to_vec(), Condition::None);
    assert!(table.transact(vec![add(&[("count", 1)])]).await.is_err());
    assert_eq!(written(&table, vec![add(&[("version", 1)])]).await, Written::Done);
    assert_eq!(row(&table, "p", "s").await, Some(json!({ "version": 1 })));
    let full = json!({ "count": 5, "rows": 3, "most_rows": 4, "large": u64::MAX, "text": "x" });
    done(&table, vec![put("p", "s", &full, Condition::None)]).await;
    assert_eq!(written(&table, vec![add(&[("count", -7), ("rows", 5), ("version", 2)])]).await, Written::Done);
    let now = json!({ "count": -2, "rows": 8, "most_rows": 4, "large": u64::MAX, "text": "x", "version": 2 });
    assert_eq!(row(&table, "p", "s").await, Some(now.clone()));
    // There is no room for more rows, but fewer are always possible.
    assert_eq!(written(&table, vec![add(&[("rows", 1)])]).await, Written::Lost(vec![0]));
    assert_eq!(written(&table, vec![add(&[("rows", -5)])]).await, Written::Done);
    assert!(table.transact(vec![add(&[("large", 1)])]).await.is_err());
    assert!(table.transact(vec![add(&[("text", 1)])]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_come_and_go_on_a_committed_image_only() {
    let (_folder, table) = fresh();
    let label = |labels| Operation::Label(key("p", "s"), labels);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(written(&table, vec![label(Labels::Add(words(&["a"])))]).await, Written::Lost(vec![0]));
    done(&table, vec![put("p", "s", &json!({ "content": null, "version": 1 }), Condition::None)]).await;
    assert_eq!(written(&table, vec![label(Labels::Add(words(&["a"])))]).await, Written::Lost(vec![0]));
    done(&table, vec![put("p", "s", &json!({ "content": {}, "version": 1 }), Condition::None)]).await;
    done(&table, vec![label(Labels::Add(words(&["b", "a", "b"])))]).await;
    let tagged = json!({ "content": {}, "named": true, "tags": ["a", "b"], "version": 2 });
    assert_eq!(row(&table, "p", "s").await, Some(tagged));
    done(&table, vec![label(Labels::Remove(words(&["a", "b", "c"])))]).await;
    assert_eq!(row(&table, "p", "s").await, Some(json!({ "content": {}, "named": true, "version": 3 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlay_leaves_what_it_does_not_have() {
    let (_folder, table) = fresh();
    let overlay = |row: Value| vec![Operation::Overlay(key("p", "s"), row.to_string())];
    done(&table, overlay(json!({ "a": 1 }))).await;
    done(&table, overlay(json!({ "b": 2, "a": [3] }))).await;
    assert_eq!(row(&table, "p", "s").await, Some(json!({ "a": [3], "b": 2 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dynamodb_refuses_is_refused() {
    let (_folder, table) = fresh();
    let twice = vec![put("p", "1", &json!({}), Condition::None), Operation::Check(key("p", "1"), Condition::None)];
    assert!(matches!(table.transact(twice).await, Err(StoreError::Mistake(_))));
    let large = json!({ "text": "x".repeat(400 << 10) });
    let both = vec![put("p", "1", &json!({}), Condition::None), put("p", "2", &large, Condition::None)];
    assert!(table.transact(both).await.is_err());
    assert_eq!(row(&table, "p", "1").await, None, "a transaction was half done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_in_the_places_of_its_keys() {
    let (_folder, table) = fresh();
    let rows = (0..100).step_by(2).map(|number| (key("p", &number.to_string()), json!({ "n": number }).to_string()));
    table.put(rows.collect()).await.unwrap();
    let keys: Vec<Key> = (0..100).rev().map(|number| key("p", &number.to_string())).collect();
    let found = table.get(&keys, Attributes::All).await.unwrap();
    for (key, text) in keys.iter().zip(&found) {
        let number: u32 = key.sk.parse().unwrap();
        let expected = number.is_multiple_of(2).then(|| json!({ "n": number }).to_string());
        assert_eq!(*text, expected, "{number}");
    }
    table.delete(keys).await.unwrap();
    assert_eq!(table.scan(None, 10).await.unwrap(), Texts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_forwards_and_backwards() {
    let (_folder, table) = fresh();
    let all = ["T", "T#", "T#a", "T#b", "T#bb", "T#ü", "T$", "U"];
    let rows = all.iter().map(|sk| (key("p", sk), "{}".to_owned()));
    table
        .put(rows.chain([(key("o", "T#x"), "{}".to_owned()), (key("q", "T#x"), "{}".to_owned())]).collect())
        .await
        .unwrap();
    assert_eq!(names(&listed(&table, "T#", None, true, 9).await), ["T#", "T#a", "T#b", "T#bb", "T#ü"]);
    assert_eq!(names(&listed(&table, "T#", None, false, 9).await), ["T#ü", "T#bb", "T#b", "T#a", "T#"]);
    assert_eq!(names(&listed(&table, "", None, true, 99).await), all);
    let page = listed(&table, "T#", Some("T#a"), true, 2).await;
    assert_eq!((names(&page), page.next.clone().unwrap().sk), (vec!["T#b", "T#bb"], "T#bb".to_owned()));
    let page = listed(&table, "T#", Some("T#bb"), false, 2).await;
    assert_eq!((names(&page), page.next.clone().unwrap().sk), (vec!["T#b", "T#a"], "T#a".to_owned()));
    let page = listed(&table, "T#", Some("T#bb"), true, 2).await;
    assert_eq!((names(&page), page.next.clone()), (vec!["T#ü"], None));
    // Where there is none.
    assert_eq!(names(&listed(&table, "T#", Some("T#az"), true, 1).await), ["T#b"]);
    let (mut scanned, mut start) = (Vec::new(), None);
    loop {
        let page = table.scan(start.as_ref(), 3).await.unwrap();
        scanned.extend(page.rows.into_iter().map(|(key, _)| (key.pk, key.sk)));
        start = page.next;
        if start.is_none() {
            break;
        }
    }
    assert_eq!(scanned.len(), all.len() + 2);
    assert!(scanned.is_sorted());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_there_after_reopening_and_in_a_snapshot() {
    let (folder, table) = fresh();
    let path = folder.path().join("table.sqlite");
    let mark = folder.path().join("in-use");
    done(&table, vec![put("p", "s", &json!({ "n": 1 }), Condition::None)]).await;
    let copy = folder.path().join("copy.sqlite");
    embedded::snapshot(&path, &copy, &mark).unwrap();
    done(&table, vec![put("p", "s", &json!({ "n": 2 }), Condition::None)]).await;
    drop(table);
    assert_eq!(row(&Table::open(&path).unwrap(), "p", "s").await, Some(json!({ "n": 2 })));
    assert_eq!(row(&Table::open(&copy).unwrap(), "p", "s").await, Some(json!({ "n": 1 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_wait_for_writers() {
    let (_folder, table) = fresh();
    done(&table, vec![put("p", "s", &json!({ "n": 1 }), Condition::None)]).await;
    let busy = {
        let table = table.clone();
        tokio::spawn(async move {
            for number in 0..300 {
                done(&table, vec![put("p", "s", &json!({ "n": number }), Condition::None)]).await;
            }
        })
    };
    let begun = Instant::now();
    let mut reads = 0;
    while !busy.is_finished() {
        assert!(row(&table, "p", "s").await.is_some());
        reads += 1;
        tokio::task::yield_now().await;
        assert!(begun.elapsed() < Duration::from_mins(1));
    }
    busy.await.unwrap();
    assert!(reads > 300, "{reads} reads beside 300 writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_sees_every_write_that_was_acknowledged_before() {
    let (_folder, table) = fresh();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let table = table.clone();
        tasks.spawn(async move {
            let sk = writer.to_string();
            for number in 0..100 {
                done(&table, vec![put("p", &sk, &json!({ "n": number }), Condition::None)]).await;
                assert_eq!(row(&table, "p", &sk).await, Some(json!({ "n": number })));
                let all = listed(&table, &sk, None, true, 1).await;
                assert_eq!(all.rows[0].1, json!({ "n": number }).to_string());
            }
        });
    }
    tasks.join_all().await;
}

#[test]
fn the_file_is_in_wal_mode() {
    let (folder, _table) = fresh();
    let connection = rusqlite::Connection::open(folder.path().join("table.sqlite")).unwrap();
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn a_file_with_something_else_in_it_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.sqlite");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE other (a); INSERT INTO other VALUES (1)")
        .unwrap();
    assert!(matches!(Table::open(&path), Err(Error::Layout { found: 0, .. })));
    let connection = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(connection.query_row("SELECT a FROM other", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}
