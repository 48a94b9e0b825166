//! The two sides of the table's seam do the same: drawn transactions, lists and batches are given to the embedded table
//! and to a `DynamoDB`, and every answer is compared. With `STACKROOM_TEST_STORES`, AWS's DynamoDB Local takes part too
//! (`scripts/test emulators`, `scripts/test seam-long`).
//!
//! `SEAM_OPERATIONS=1000000` draws more, `SEAM_SEED=7` others. What differs is printed with the seed and the number of the
//! operation, so that it can be drawn again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a failed test panics"
)]

mod drawn;

use drawn::{Draw, Drawn, Only};
use serde_json::Value;
use server::local::Nothing;
use shared::store::StoreError;
use shared::store::keys::Key;
use shared::store::table::backend::{Attributes, Backend, Query};
use shared::store::table::write::Operation;
use shared::store::table::{Condition, Written};
use stackroom_tests::chance::Chance;
use stackroom_tests::dynamodb::DynamoDb;
use stackroom_tests::foreign::Place;
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;

/// A table that takes part.
struct Side {
    name: String,
    rows: Arc<dyn Backend>,
}

/// In memory if possible: the disk is not what is compared.
fn folder() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

async fn sides(folder: &TempDir) -> Vec<Side> {
    let own = embedded::table::Table::open(&folder.path().join("table.sqlite")).unwrap();
    let library = DynamoDb::open(&folder.path().join("dynamodb.sqlite")).await;
    let mut sides = vec![
        Side { name: "embedded".to_owned(), rows: Arc::new(own) },
        Side { name: "dynoxide".to_owned(), rows: library.rows(&Nothing) },
    ];
    if std::env::var_os("STACKROOM_TEST_STORES").is_some() {
        let stores = Place::all().swap_remove(0).create().await;
        sides.push(Side { name: stores.place.name.clone(), rows: stores.rows(&Nothing) });
    }
    sides
}

/// A row without what means nothing: the order of its members, and of its tags.
fn plain(text: &str) -> Value {
    let mut row: Value = serde_json::from_str(text).unwrap();
    if let Some(Value::Array(tags)) = row.get_mut("tags") {
        tags.sort_by_key(ToString::to_string);
    }
    row
}

fn wanted(only: &Only) -> Attributes<'_> {
    only.as_deref().map_or(Attributes::All, Attributes::Only)
}

/// What a side answers, in a form that can be compared.
#[derive(Debug, PartialEq)]
enum Answer {
    Written(Written),
    Rows(Vec<Option<Value>>),
    /// The first page, and whatever comes after it.
    Lists(Vec<(Key, Value)>, Vec<(Key, Value)>),
    All(BTreeMap<Key, Value>),
    Done,
    Refused,
}

impl Side {
    /// The answer, and why it is none.
    async fn answer(&self, drawn: &Drawn) -> (Answer, String) {
        match self.tried(drawn).await {
            Ok(answer) => (answer, String::new()),
            Err(error) => {
                assert!(!matches!(error, StoreError::Full | StoreError::Row(_)), "{}: {error:?}", self.name);
                (Answer::Refused, error.to_string())
            }
        }
    }

    async fn tried(&self, drawn: &Drawn) -> Result<Answer, StoreError> {
        Ok(match drawn {
            Drawn::Transact(operations) => Answer::Written(self.rows.transact(operations.clone()).await?),
            Drawn::Get { keys, only } => {
                let found = self.rows.get(keys, wanted(only)).await?;
                Answer::Rows(found.iter().map(|text| text.as_deref().map(plain)).collect())
            }
            Drawn::List { range, past, forward, limit, only } => {
                let mut pages: Vec<Vec<(Key, Value)>> = Vec::new();
                let mut past = past.clone();
                loop {
                    let attributes = wanted(only);
                    let query = Query { range, past: past.as_deref(), forward: *forward, limit: *limit, attributes };
                    let page = self.rows.query(query).await?;
                    assert!(page.rows.len() <= *limit, "{}: {} rows", self.name, page.rows.len());
                    pages.push(page.rows.into_iter().map(|(key, text)| (key, plain(&text))).collect());
                    let Some(next) = page.next else { break };
                    past = Some(next.sk);
                }
                let first = pages.remove(0);
                Answer::Lists(first, pages.concat())
            }
            Drawn::Put(rows) => {
                self.rows.put(rows.clone()).await?;
                Answer::Done
            }
            Drawn::Delete(keys) => {
                self.rows.delete(keys.clone()).await?;
                Answer::Done
            }
            Drawn::Scan(limit) => {
                let (mut all, mut start) = (BTreeMap::new(), None);
                loop {
                    let page = self.rows.scan(start.as_ref(), *limit).await?;
                    for (key, text) in page.rows {
                        assert!(all.insert(key, plain(&text)).is_none(), "{}: a row comes twice", self.name);
                    }
                    start = page.next;
                    if start.is_none() {
                        break;
                    }
                }
                Answer::All(all)
            }
        })
    }
}

/// Whether a side mixes up why nothing of a transaction was written, where some of it is impossible. By AWS's documentation
/// of `TransactWriteItems`, each operation has its own reason, and two on one row are refused at once; DynamoDB Local goes
/// through them until something fails.
fn says_less(side: &str) -> bool {
    side.contains("DynamoDB-Local")
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_drawn_is_answered_alike_on_both_sides() {
    let folder = folder();
    let (sides, seed) = (sides(&folder).await, number("SEAM_SEED", 1));
    let names: Vec<&str> = sides.iter().map(|side| side.name.as_str()).collect();
    let (wanted, mut draw) = (number("SEAM_OPERATIONS", 20_000), Draw::new(Chance::new(seed)));
    let (mut done, mut steps) = (0, 0);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    while done < wanted {
        let drawn = draw.next();
        (done, steps) = (done + drawn.size(), steps + 1);
        let answers = futures::future::join_all(sides.iter().map(|side| side.answer(&drawn))).await;
        let (first, why) = &answers[0];
        for (name, (answer, other)) in names.iter().zip(&answers).skip(1) {
            let nothing = |answer: &Answer| matches!(answer, Answer::Refused | Answer::Written(Written::Lost(_)));
            if says_less(name) && drawn.may_be_impossible() && nothing(first) && nothing(answer) {
                continue;
            }
            assert_eq!(first, answer, "seed {seed}, step {steps}: {why:?}, {name}: {other:?}; at {drawn:?}");
        }
        *counts.entry(drawn.kind(matches!(first, Answer::Written(Written::Lost(_))))).or_default() += 1;
        if *first == Answer::Refused {
            *counts.entry("refused").or_default() += 1;
        }
    }
    println!("seed {seed}, {}: {done} operations in {steps} steps, no difference\n{counts:#?}", names.join(", "));
    // A draw that never gets anywhere shows nothing.
    for (kind, least) in [("transaction", 10), ("lost", 10), ("batch", 2), ("list", 5), ("scan", 1), ("refused", 1)] {
        let there = counts.get(kind).copied().unwrap_or_default();
        assert!(there * 100 >= least * steps / 2 || there >= 1000, "{kind}: only {there} of {steps}");
    }
}

/// Many at once take from one row and give to another, under the condition that what they saw is still so: nothing is
/// lost and nothing comes twice, and each acknowledged change is seen by whoever reads after it.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_each_happens_once() {
    const TASKS: u64 = 16;
    let folder = folder();
    let key = |name: &str| Key { pk: "race".to_owned(), sk: name.to_owned() };
    for side in sides(&folder).await {
        let rows = ["from", "to"].map(|name| (key(name), r#"{"charged":0,"version":0}"#.to_owned()));
        side.rows.put(rows.into()).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..TASKS {
            let (rows, own) = (Arc::clone(&side.rows), side.name == "embedded");
            tasks.spawn(async move {
                let (mut done, mut lost) = (0_i64, 0);
                while done < 20 {
                    let found = rows.get(&[key("from")], Attributes::All).await.unwrap().remove(0).unwrap();
                    let version = plain(&found)["version"].as_u64().unwrap();
                    let moved = vec![
                        Operation::Add(key("from"), vec![("charged", -1), ("version", 1)], Condition::Version(version)),
                        Operation::Add(key("to"), vec![("charged", 1), ("version", 1)], Condition::Present),
                    ];
                    match rows.transact(moved).await {
                        Ok(Written::Done) => {
                            done += 1;
                            let found = rows.get(&[key("from")], Attributes::All).await.unwrap().remove(0).unwrap();
                            assert!(plain(&found)["version"].as_u64().unwrap() > version);
                        }
                        // A DynamoDB under that much contention gives up now and then.
                        Err(StoreError::Unavailable(_)) if !own => lost += 1,
                        Ok(Written::Lost(_)) => lost += 1,
                        Err(other) => panic!("{other:?}"),
                    }
                }
                (done, lost)
            });
        }
        let outcomes = tasks.join_all().await;
        let (done, lost) = outcomes.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        println!("{}: {done} done, {lost} lost", side.name);
        let found = side.rows.get(&[key("from"), key("to")], Attributes::All).await.unwrap();
        let numbers: Vec<Value> = found.iter().map(|text| plain(text.as_deref().unwrap())).collect();
        assert_eq!(numbers[0], serde_json::json!({ "charged": -done, "version": done }), "{}", side.name);
        assert_eq!(numbers[1], serde_json::json!({ "charged": done, "version": done }), "{}", side.name);
    }
}
