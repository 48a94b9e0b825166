//! The rules of permission, against a model of them. The model is written from the pages for users and shares nothing
//! with the server's own rules; the server is whole, from the use cases behind its routes down to the embedded store.
//!
//! # One after another
//!
//! Site admins, members, robots and strangers do what can be done to groups, users' own entities, and what lies in
//! them, with tokens of every kind: look, list, search, push, tag, delete, share, change settings, give and take roles,
//! leave, invite, join, make and remove robots and tokens, disable accounts, delete things with everything in them. Time goes by, so that what ends ends. The
//! answer to each must be of the class that the model says, and every list must show exactly what the model says.
//! Every now and then the first site admin looks at everything.
//!
//! # At once
//!
//! Two hundred requests at once on eight new groups, and that `PEOPLE_ROUNDS` times: roles are given and taken, admins
//! leave and demote each other, invitations are made, accepted and revoked, settings and tags are set, images are looked
//! up. For each group, a search looks for an order in which the model gives every answer, and in the end shows what the
//! first site admin sees then; see [`order`] for what an order is. Groups share only accounts and tokens, and nobody
//! changes those meanwhile, so an order for each of them is one for all. Not in it is what takes several transactions or
//! readings: pushes of bytes, deletions, the removal of robots, and lists for members of a part.
//!
//! # Settings
//!
//! `PEOPLE_OPERATIONS` is how many there are one after another, `PEOPLE_SEED` is the seed. They are spread over many
//! installations, whose seeds follow each other; a failure names that of its own, which alone repeats it. What happens
//! at once is not repeated by its seed: a failure shows all that the search had.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test panics, and says what it did"
)]

mod changing;
mod model;
mod operation;
mod order;
mod races;
mod reading;
mod removing;
mod rules;
mod server;

use model::Model;
use operation::{ADMIN, Act, Credential, Draw, OPERATOR, Operation, USERS};
use rules::{Name, Who};
use server::{START, Server, set_clock};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many operations one installation sees.
const EACH: u64 = 5_000;
/// After how many the first site admin looks at everything.
const LOOKS: u64 = 500;
/// How many of the last operations a failure shows.
const SHOWN: usize = 25;

pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// How often each kind of request had each kind of answer.
type Counts = BTreeMap<(String, &'static str), u64>;

struct Run {
    seed: u64,
    server: Server,
    model: Model,
    draw: Draw,
    number: u32,
    last: VecDeque<String>,
    counts: Counts,
}

impl Run {
    async fn new(seed: u64) -> Self {
        set_clock(START);
        let (server, model, draw) = (Server::new().await, Model::new(START), Draw::new(seed));
        let mut run = Self { seed, server, model, draw, number: 0, last: VecDeque::new(), counts: Counts::new() };
        for name in USERS {
            run.operator(Act::AddUser { name, admin: name == USERS[0] }).await;
            run.operator(Act::MakeToken { of: Who::User(name), scope: None, life: None }).await;
        }
        run
    }

    /// Something that the first site admin asks for.
    async fn operator(&mut self, act: Act) {
        self.number += 1;
        let operation = Operation { number: self.number, by: Credential::Token(OPERATOR), act };
        self.compare(&operation).await;
    }

    /// Asks the model and the server.
    async fn compare(&mut self, operation: &Operation) {
        let expected = self.model.answer(operation);
        let answer = self.server.answer(operation).await;
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back(format!("{operation}: {answer}"));
        if answer != expected {
            let last: Vec<&str> = self.last.iter().map(String::as_str).collect();
            let entity = operation.act.entity().and_then(|name| self.model.entities.get(name));
            panic!(
                "{}\n\nthe model says {expected}\nthe server says {answer}\n{entity:?}\n\
                 PEOPLE_SEED={} PEOPLE_OPERATIONS={EACH} repeats it",
                last.join("\n"),
                self.seed,
            );
        }
        *self.counts.entry((operation.act.word(), answer.word())).or_default() += 1;
        if self.server.knows(operation.number) {
            self.draw.made(operation);
        }
    }

    async fn run(mut self, operations: u64) -> Counts {
        for step in 1..=operations {
            if self.draw.chance.percent(2) {
                self.model.now += *self.draw.chance.one(&[1, 600, 3600, 12 * 3600]);
                set_clock(self.model.now);
            }
            self.number += 1;
            let operation = self.draw.operation(&self.model, self.number);
            self.compare(&operation).await;
            if step % LOOKS == 0 || step == operations {
                self.look().await;
            }
        }
        self.counts
    }

    /// The first site admin looks at everything.
    async fn look(&mut self) {
        let entities: Vec<Name> = self.model.entities.keys().copied().collect();
        for entity in entities {
            for act in [
                Act::Members { entity },
                Act::Robots { entity },
                Act::Invitations { entity },
                Act::Collections { entity },
                Act::Containers { entity, collection: None },
            ] {
                self.operator(act).await;
            }
            let paths: Vec<Name> = self.model.entities[entity].repositories.keys().copied().collect();
            for path in paths {
                self.operator(Act::SeeContainer { at: (entity, path) }).await;
                self.operator(Act::Shares { at: (entity, path) }).await;
            }
        }
        let users: Vec<Name> = self.model.users.keys().copied().collect();
        for name in users {
            self.operator(Act::Tokens { of: Who::User(name) }).await;
        }
        assert!(self.model.users.contains_key(ADMIN));
    }
}

#[test]
fn a_hundred_thousand_operations_answer_as_the_model_of_the_rules_does() {
    let (operations, seed) = (setting("PEOPLE_OPERATIONS", 100_000), setting("PEOPLE_SEED", 1));
    let (next, counts) = (AtomicU64::new(0), Mutex::new(Counts::new()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let one = next.fetch_add(1, Ordering::Relaxed);
                    let left = operations.saturating_sub(one * EACH).min(EACH);
                    if left == 0 {
                        return;
                    }
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let own = runtime.block_on(async { Run::new(seed + one).await.run(left).await });
                    let mut counts = counts.lock().unwrap();
                    for (what, count) in own {
                        *counts.entry(what).or_default() += count;
                    }
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    println!("seed {seed}: {} requests", counts.values().sum::<u64>());
    for ((act, answer), count) in &counts {
        println!("{count:7} {act} {answer}");
    }
    if operations >= 50_000 {
        something_happened(&counts);
    }
}

/// A test in which nothing happens proves nothing.
fn something_happened(counts: &Counts) {
    let happened = |act: &str, answer: &'static str| counts.contains_key(&(act.to_owned(), answer));
    for (act, answers) in [
        ("Find", &["shown", "missing", "login"][..]),
        ("Head", &["done", "missing", "login", "forbidden"]),
        ("Push", &["shown", "login", "forbidden"]),
        ("PushManifest", &["done", "login", "forbidden"]),
        ("SetTag", &["done", "missing", "login", "forbidden"]),
        ("Delete", &["done", "missing", "login", "forbidden"]),
        ("Remove", &["done", "missing", "login", "forbidden", "conflict", "full"]),
        ("MakeGroup", &["done", "login", "forbidden", "conflict"]),
        ("MakeCollection", &["done", "login", "forbidden", "conflict"]),
        ("MakeContainer", &["done", "login", "forbidden", "conflict"]),
        ("SetContainer", &["done", "missing", "login", "forbidden"]),
        ("SetRole", &["done", "missing", "login", "forbidden", "conflict", "invalid"]),
        ("RemoveMember", &["done", "missing", "login", "forbidden", "conflict", "invalid"]),
        ("MakeRobot", &["done", "login", "forbidden", "conflict", "invalid"]),
        ("RemoveRobot", &["done", "missing", "login", "forbidden"]),
        ("MakeToken", &["done", "missing", "login", "forbidden", "invalid"]),
        ("RevokeToken", &["done", "missing", "login", "forbidden"]),
        ("Invite", &["done", "login", "forbidden", "invalid"]),
        ("Accept", &["done", "missing", "login", "forbidden"]),
        ("Revoke", &["done", "missing", "login", "forbidden"]),
        ("Disable", &["done", "missing", "login", "forbidden"]),
        ("AddUser", &["done", "login", "forbidden", "conflict"]),
        ("Share", &["done", "missing", "login", "forbidden", "invalid"]),
        ("UseShare", &["done", "missing", "gone"]),
        ("RevokeShare", &["done", "missing", "login"]),
        ("Members", &["shown", "missing", "login"]),
        ("Catalog", &["shown", "login"]),
    ] {
        for answer in answers {
            assert!(happened(act, answer), "{act} was never {answer}");
        }
    }
}
