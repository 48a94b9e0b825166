//! What is drawn: few keys and small numbers, so that conditions hold about as often as they don't.

use serde_json::{Map, Value, json};
use shared::domain::Time;
use shared::store::keys::{Key, KeyRange};
use shared::store::table::Condition;
use shared::store::table::write::{Labels, Operation};
use stackroom_tests::chance::Chance;
use std::collections::HashSet;

/// The attributes that are wanted; `None` for all.
pub(crate) type Only = Option<Vec<&'static str>>;

/// One step.
#[derive(Debug, Clone)]
pub(crate) enum Drawn {
    Transact(Vec<Operation>),
    Get { keys: Vec<Key>, only: Only },
    List { range: KeyRange, past: Option<String>, forward: bool, limit: usize, only: Only },
    Put(Vec<(Key, String)>),
    Delete(Vec<Key>),
    Scan(usize),
}

impl Drawn {
    /// How many operations it is: those of a transaction, the rows of a batch.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Self::Transact(operations) => operations.len(),
            Self::Get { keys, .. } | Self::Delete(keys) => keys.len(),
            Self::Put(rows) => rows.len(),
            Self::List { .. } | Self::Scan(_) => 1,
        };
        size as u64
    }

    /// Whether it adds to numbers, which may be none, or does two things to one row.
    pub(crate) fn may_be_impossible(&self) -> bool {
        let Self::Transact(operations) = self else { return false };
        let rows: HashSet<&Key> = operations.iter().map(Operation::key).collect();
        rows.len() < operations.len()
            || operations.iter().any(|one| matches!(one, Operation::Add(..) | Operation::Label(..)))
    }

    pub(crate) fn kind(&self, lost: bool) -> &'static str {
        match self {
            Self::Transact(_) if lost => "lost",
            Self::Transact(_) => "transaction",
            Self::Get { .. } => "batch",
            Self::List { .. } => "list",
            Self::Put(_) => "put",
            Self::Delete(_) => "delete",
            Self::Scan(_) => "scan",
        }
    }
}

const PARTITIONS: [&str; 3] = ["E#alice", "R#alice/tools/bb", "x"];
const NAMES: [&str; 14] =
    ["-", "Q", "T", "T#", "T#a", "T#a#b", "T#b", "T#bb", "T#ü", "T#\u{fffd}", "T$", "U", "a b", "\u{10ffff}"];
const PREFIXES: [&str; 8] = ["", "T", "T#", "T#a", "T#b", "U", "nothing", "\u{10ffff}"];
/// The attributes whose numbers conditions and additions name.
const NUMBERS: [&str; 11] =
    ["version", "epoch", "seen", "limit", "charged", "reserved", "surplus", "rows", "most_rows", "uses", "removals"];
const WORDS: [&str; 5] = ["latest", "v1", "v2", "v10", "ü"];

/// Draws steps.
#[derive(Debug)]
pub(crate) struct Draw(Chance);

impl Draw {
    pub(crate) fn new(chance: Chance) -> Self {
        Self(chance)
    }

    pub(crate) fn next(&mut self) -> Drawn {
        match self.0.below(100) {
            0..60 => Drawn::Transact(self.transaction()),
            60..72 => Drawn::Get { keys: self.keys(100), only: self.only() },
            72..90 => self.list(),
            90..94 => {
                let keys = self.keys(25);
                Drawn::Put(keys.into_iter().map(|key| (key, self.row().to_string())).collect())
            }
            94..97 => Drawn::Delete(self.keys(6)),
            _ => Drawn::Scan(usize::try_from(1 + self.0.below(40)).unwrap()),
        }
    }

    fn key(&mut self) -> Key {
        Key { pk: (*self.0.one(&PARTITIONS)).to_owned(), sk: (*self.0.one(&NAMES)).to_owned() }
    }

    /// Some keys, at least one, no two alike.
    fn keys(&mut self, most: u64) -> Vec<Key> {
        let usual = if self.0.percent(80) { 6 } else { 40 };
        let wanted = 1 + self.0.below(most.min(usual));
        let mut keys: Vec<Key> = Vec::new();
        for _ in 0..wanted {
            let key = self.key();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    fn only(&mut self) -> Only {
        let names = ["version", "content", "tags", "other", "nowhere"];
        self.0.percent(40).then(|| names.into_iter().filter(|_| self.0.percent(40)).collect())
    }

    fn list(&mut self) -> Drawn {
        let prefix = (*self.0.one(&PREFIXES)).to_owned();
        let range = KeyRange { pk: (*self.0.one(&PARTITIONS)).to_owned(), prefix };
        let mut begins = NAMES.iter().filter(|name| name.starts_with(&range.prefix)).copied().collect::<Vec<_>>();
        // Also one that is nowhere.
        let nowhere = format!("{}0", range.prefix);
        begins.push(&nowhere);
        let past = self.0.percent(50).then(|| (*self.0.one(&begins)).to_owned());
        let limit = if self.0.percent(70) { 1 + self.0.below(5) } else { 100 };
        let (forward, only) = (self.0.percent(50), self.only());
        Drawn::List { range, past, forward, limit: usize::try_from(limit).unwrap(), only }
    }

    fn transaction(&mut self) -> Vec<Operation> {
        let mut keys = self.keys(12);
        // DynamoDB refuses two operations on one row.
        if self.0.percent(3) {
            keys.push(keys[0].clone());
        }
        keys.into_iter().map(|key| self.operation(key)).collect()
    }

    fn operation(&mut self, key: Key) -> Operation {
        match self.0.below(100) {
            0..30 => Operation::Put(key, self.row().to_string(), self.condition()),
            30..38 => Operation::Overlay(key, self.overlay().to_string()),
            38..52 => Operation::Delete(key, self.condition()),
            52..64 => Operation::Check(key, self.checked()),
            64..84 => Operation::Add(key, self.numbers(), self.condition()),
            _ => {
                let mut words: Vec<String> = Vec::new();
                for _ in 0..=self.0.below(3) {
                    let word = (*self.0.one(&WORDS)).to_owned();
                    if !words.contains(&word) {
                        words.push(word);
                    }
                }
                Operation::Label(key, if self.0.percent(60) { Labels::Add(words) } else { Labels::Remove(words) })
            }
        }
    }

    fn small(&mut self) -> u64 {
        self.0.below(4)
    }

    fn condition(&mut self) -> Condition {
        if self.0.percent(50) { Condition::None } else { self.checked() }
    }

    fn checked(&mut self) -> Condition {
        match self.0.below(13) {
            0..2 => Condition::Absent,
            2..5 => Condition::Present,
            5 => Condition::Version(self.small()),
            6 => Condition::Epoch(self.small()),
            12 => Condition::Removals(self.small()),
            7 => Condition::Seen(Time(i64::try_from(self.small()).unwrap())),
            8 => Condition::Limit(self.small()),
            9 => Condition::Unused,
            10 => {
                let (charged_at_most, surplus_at_most) = (self.small(), self.small());
                Condition::Room { limit: self.small(), charged_at_most, surplus_at_most }
            }
            _ => Condition::Usable { below: self.small(), now: Time(i64::try_from(self.small()).unwrap()) },
        }
    }

    /// Additions to some numbers, no two alike.
    fn numbers(&mut self) -> Vec<(&'static str, i128)> {
        let mut numbers: Vec<(&'static str, i128)> = Vec::new();
        for _ in 0..=self.0.below(3) {
            let name = if self.0.percent(30) { "version" } else { *self.0.one(&NUMBERS) };
            if !numbers.iter().any(|(there, _)| *there == name) {
                let by = i128::from(self.0.below(7)) - 3;
                numbers.push((name, if name == "version" { by.abs() } else { by }));
            }
        }
        numbers
    }

    fn row(&mut self) -> Value {
        let mut row = Map::new();
        for name in NUMBERS {
            if self.0.percent(85) {
                row.insert(name.to_owned(), json!(self.small()));
            }
        }
        if self.0.percent(70) {
            row.insert("expires".to_owned(), json!(self.small()));
        }
        if self.0.percent(80) {
            let contents =
                [json!(null), json!({}), json!({ "size": 1, "arch": "" }), json!("text"), json!({ "a": [null] })];
            row.insert("content".to_owned(), self.0.one(&contents).clone());
        }
        if self.0.percent(40) {
            row.insert("tags".to_owned(), json!(["v1", "latest"]));
        }
        if self.0.percent(40) {
            let others = [
                json!(""),
                json!("\"quoted\" \\ \u{1} ü \u{1f4a9}"),
                json!(u64::MAX),
                json!(i64::MIN),
                json!([[], {}, null, true, -1, "x"]),
                json!({ "deep": { "er": [{ "e": 0 }] } }),
                json!("x".repeat(3000)),
            ];
            row.insert("other".to_owned(), self.0.one(&others).clone());
        }
        // As long as a row can be, or longer, also by the escapes of its text alone.
        if self.0.below(500) == 0 {
            let long = ["x".repeat(405_000), "x".repeat(411_000), "\n".repeat(300_000), "\u{fc}".repeat(300_000)];
            row.insert("other".to_owned(), json!(self.0.one(&long)));
        }
        // A wrong type where a number is named.
        if self.0.percent(5) {
            row.insert((*self.0.one(&NUMBERS)).to_owned(), json!("3"));
        }
        Value::Object(row)
    }

    /// Some attributes of a row, at least one.
    fn overlay(&mut self) -> Value {
        let Value::Object(row) = self.row() else { return Value::Null };
        let mut some: Map<String, Value> = row.into_iter().filter(|_| self.0.percent(40)).collect();
        some.insert("named".to_owned(), json!(self.0.percent(50)));
        Value::Object(some)
    }
}
