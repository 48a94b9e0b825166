//! Whether a table does what we rely on, tried out on rows that nothing else uses: stores that speak a protocol need not
//! keep all its promises.
//!
//! 1. A row that must be new is written once.
//! 2. A transaction with one condition that does not hold writes nothing.
//! 3. A number is added to, and many rows are written at once.
//! 4. What was written is read at once, in the order of its names, page by page, forwards and backwards.
//! 5. The rows are deleted, whatever came out. *Dies*: they stay, and nobody reads them.

use super::keys::{self, Key};
use super::rows::Row;
use super::table::{Condition, MAX_WRITES, StoreError, Table, Write, Written};
use crate::rules::Grant;
use serde::{Deserialize, Serialize};

/// A row of the trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Probe {
    trial: String,
    name: String,
    version: u64,
}

impl Row for Probe {
    fn key(&self) -> Key {
        keys::probe(&self.trial, &self.name)
    }
}

/// How many rows are read at a time.
const PAGE: usize = 40;

/// How the names of the objects begin with which a bucket is tried out.
pub const OBJECTS: &str = "probe/";

fn row(trial: &str, number: usize) -> Probe {
    Probe { trial: trial.to_owned(), name: format!("{number:03}"), version: 1 }
}

/// Tries a table out, with rows under a name that no other trial has. Returns what it does not do.
pub async fn table(table: &Table, grant: &Grant, trial: &str) -> Result<Vec<&'static str>, StoreError> {
    let mut wrong = Vec::new();
    let tried = try_out(table, grant, trial, &mut wrong).await;
    let deleted = (0..MAX_WRITES).map(|number| Write::delete(row(trial, number).key(), Condition::None)).collect();
    let deleted = table.write(grant, deleted).await;
    tried?;
    let mut must = |holds: bool, what| wrong.extend((!holds).then_some(what));
    must(deleted? == Written::Done, "deleting rows");
    must(table.first_keys(keys::probes(trial), 1).await?.is_empty(), "forgetting at once what was deleted");
    Ok(wrong)
}

async fn try_out(table: &Table, grant: &Grant, trial: &str, wrong: &mut Vec<&'static str>) -> Result<(), StoreError> {
    let row = |number| row(trial, number);
    let write = async |writes: Vec<Write>| table.write(grant, writes).await;
    let mut must = |holds: bool, what| wrong.extend((!holds).then_some(what));

    let new = || Write::put(&row(0), Condition::Absent);
    must(write(vec![new()?]).await? == Written::Done, "writing a row that is not there yet");
    must(
        write(vec![new()?]).await? != Written::Done,
        "refusing to write a row that must be new over one that is there",
    );

    let other = Write::put(&row(1), Condition::Absent)?;
    let newer = Write::check(row(0).key(), Condition::Version(7));
    must(write(vec![other, newer]).await? == Written::Lost(vec![1]), "saying which condition of a transaction failed");
    must(table.get::<Probe>(row(1).key()).await?.is_none(), "writing all of a transaction or nothing");

    must(write(vec![Write::advance(row(0).key())]).await? == Written::Done, "adding to a number");
    let many = (1..MAX_WRITES).map(|number| Write::put(&row(number), Condition::Absent));
    let many = many.chain([Ok(Write::check(row(0).key(), Condition::Version(2)))]).collect::<Result<Vec<_>, _>>()?;
    must(write(many).await? == Written::Done, "100 writes in a transaction");

    let range = || keys::probes(trial);
    let mut all: Vec<Probe> = Vec::new();
    let mut after = None;
    loop {
        let page = table.query::<Probe>(range(), after, PAGE).await?;
        all.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    must(all.iter().map(|one| one.name.as_str()).is_sorted(), "listing rows in the order of their names");
    must(all.len() == MAX_WRITES, "reading at once what was written, in pages");
    must(all.first().is_some_and(|first| first.version == 2), "reading the number that was added to");
    let last = table.query_last::<Probe>(range(), None, 1).await?;
    must(last.rows.first() == Some(&row(MAX_WRITES - 1)), "listing rows backwards");
    let some = table.query::<Probe>(range().narrowed("01"), None, PAGE).await?;
    must(some.rows.len() == 10, "listing the rows whose names begin alike");
    let found = table.batch((0..MAX_WRITES).map(|number| row(number).key())).await?;
    must((0..MAX_WRITES).all(|number| found.has(&row(number).key())), "reading 100 rows by their keys");
    Ok(())
}
