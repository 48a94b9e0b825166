//! `kill -9` of a process that does nothing but change a table, again and again, while several changes are committed
//! together. `COMMITS_KILLS` says how often (100), `FAULTS_SEED` chooses other moments.
//!
//! The process opens the table, says what it finds in it, and then has [`WRITERS`] tasks change it at once, which is what
//! makes commits that several share. A change of a writer replaces two rows, adds one to its history and deletes the
//! oldest of that; once it is acknowledged, the process says so. One more task has changes refused all the time.
//! It is killed at a random moment, and started again. Then
//!
//! - each writer is at the last change that was acknowledged, or one further: the one that nobody was told of;
//! - each change is there as a whole or not at all;
//! - nothing of what was refused is there.

use crate::Checks;
use embedded::table::Table;
use serde_json::{Value, json};
use shared::store::keys::{Key, KeyRange};
use shared::store::table::backend::{Attributes, Backend, Query};
use shared::store::table::write::Operation;
use shared::store::table::{Condition, Written};
use stackroom_tests::chance::Chance;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How many change the table at once.
const WRITERS: usize = 8;
/// How long the history of a writer is.
const HISTORY: u64 = 5;
/// The longest time from the first change of a process to its end, in microseconds.
const LONGEST: u64 = 20_000;
/// Fills rows, so that commits are of several pages, and checkpoints happen every few hundred of them.
const FILL: usize = 1500;

fn key(writer: usize, name: &str) -> Key {
    Key { pk: format!("writer {writer}"), sk: name.to_owned() }
}

fn row(change: u64) -> String {
    json!({ "version": change, "fill": "x".repeat(FILL) }).to_string()
}

/// The row of a change in the history of its writer.
fn history(change: u64) -> String {
    format!("past {change:012}")
}

/// The change of a writer that comes after so many.
fn next(writer: usize, done: u64) -> Vec<Operation> {
    let before = if done == 0 { Condition::Absent } else { Condition::Version(done) };
    let mut operations: Vec<Operation> =
        ["one", "two"].map(|name| Operation::Put(key(writer, name), row(done + 1), before)).into();
    operations.push(Operation::Put(key(writer, &history(done + 1)), row(done + 1), Condition::Absent));
    if let Some(old) = (done + 1).checked_sub(HISTORY).filter(|old| *old > 0) {
        operations.push(Operation::Delete(key(writer, &history(old)), Condition::Present));
    }
    operations
}

/// What is there of a writer: each row, and the number in it.
async fn there(table: &Table, writer: usize) -> Vec<(String, u64)> {
    let range = KeyRange { pk: format!("writer {writer}"), prefix: String::new() };
    let query =
        Query { range: &range, past: None, forward: true, limit: 100, attributes: Attributes::Only(&["version"]) };
    let found = table.query(query).await.unwrap().rows;
    let number = |text: &str| serde_json::from_str::<Value>(text).unwrap()["version"].as_u64().unwrap();
    found.into_iter().map(|(key, text)| (key.sk, number(&text))).collect()
}

/// How many changes of a writer are there; what is wrong if one is there in part.
fn changes(found: &[(String, u64)]) -> Result<u64, String> {
    let done = found.iter().map(|(_, number)| *number).max().unwrap_or(0);
    let past = (done.saturating_sub(HISTORY - 1).max(1)..=done).map(|change| (history(change), change));
    let mut expected: Vec<(String, u64)> = past.filter(|(_, change)| *change > 0).collect();
    if done > 0 {
        // In the order of their keys.
        expected.insert(0, ("one".to_owned(), done));
        expected.push(("two".to_owned(), done));
    }
    if found == expected { Ok(done) } else { Err(format!("{found:?}, and not {expected:?}")) }
}

/// What the process does until it is killed: `faults committing FILE`.
pub(crate) async fn committing(file: &Path) {
    let table = Arc::new(Table::open(file).unwrap());
    let mut done = Vec::new();
    for writer in 0..WRITERS {
        let found = there(&table, writer).await;
        match changes(&found) {
            Ok(number) => {
                done.push(number);
                say(&format!("found {writer} {number}"));
            }
            Err(wrong) => return say(&format!("wrong {writer}: {wrong}")),
        }
    }
    let refused = there(&table, WRITERS).await;
    if !refused.is_empty() {
        return say(&format!("wrong {WRITERS}: what was refused is there: {refused:?}"));
    }
    say("begins");
    let mut tasks = tokio::task::JoinSet::new();
    for (writer, mut done) in done.into_iter().enumerate() {
        let table = Arc::clone(&table);
        tasks.spawn(async move {
            while table.transact(next(writer, done)).await.unwrap() == Written::Done {
                done += 1;
                say(&format!("done {writer} {done}"));
            }
            say(&format!("wrong {writer}: a change of its own was in its way"));
        });
    }
    tasks.spawn(async move {
        loop {
            let refused = vec![
                Operation::Put(key(WRITERS, "never"), row(1), Condition::None),
                Operation::Check(key(WRITERS, "nowhere"), Condition::Present),
            ];
            if table.transact(refused).await.unwrap() == Written::Done {
                return say(&format!("wrong {WRITERS}: a change was not refused"));
            }
            tokio::task::yield_now().await;
        }
    });
    tasks.join_all().await;
}

/// Says a line, as a whole.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may listen any more.
    let _gone = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// Kills it that often.
pub(crate) async fn run() -> Checks {
    let number = |name, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (kills, seed) = (number("COMMITS_KILLS", 100), number("FAULTS_SEED", 1));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("table.sqlite");
    let (mut chance, mut checks, mut told) = (Chance::new(seed), Checks::default(), [0; WRITERS]);
    for kill in 0..kills {
        let moment = Duration::from_micros(chance.below(LONGEST));
        let file = file.clone();
        let said = tokio::task::spawn_blocking(move || killed(&file, moment)).await.unwrap();
        let wrong = judged(&said, &mut told);
        checks.that(wrong.is_none(), || format!("after kill {kill}: {}", wrong.unwrap_or_default()));
        if checks.failed > 0 {
            break;
        }
        if (kill + 1) % 1000 == 0 {
            println!("{} kills, {} changes acknowledged", kill + 1, told.iter().sum::<u64>());
        }
    }
    let all = told.iter().sum::<u64>();
    checks.say(all > kills, &format!("{kills} kills, {all} changes acknowledged, seed {seed}"));
    checks
}

/// Starts the process, kills it so long after it has begun, and returns what it said.
fn killed(file: &Path, moment: Duration) -> Vec<String> {
    let program = std::env::current_exe().unwrap();
    let mut child: Child = Command::new(program).arg("committing").arg(file).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if said.read_line(&mut line).unwrap() == 0 {
            break;
        }
        let begins = line == "begins\n";
        lines.push(line);
        if begins {
            break;
        }
    }
    let listening = std::thread::spawn(move || said.lines().map_while(Result::ok).collect::<Vec<String>>());
    std::thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
    lines.extend(listening.join().unwrap());
    lines
}

/// What is wrong with what a process said, if anything is. `told` are the last changes that were acknowledged.
fn judged(said: &[String], told: &mut [u64; WRITERS]) -> Option<String> {
    let mut begun = false;
    for line in said {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["found", writer, found] => {
                let (writer, found): (usize, u64) = (writer.parse().unwrap(), found.parse().unwrap());
                let known = told[writer];
                if !(known..=known + 1).contains(&found) {
                    return Some(format!("writer {writer} is at change {found}, {known} were acknowledged"));
                }
                told[writer] = found;
            }
            ["begins"] => begun = true,
            ["done", writer, done] => told[writer.parse::<usize>().unwrap()] = done.parse().unwrap(),
            _ => return Some(line.clone()),
        }
    }
    (!begun).then(|| format!("the process did not begin: {said:?}"))
}
