//! Two hundred requests at once, on few groups.

use crate::model::{Answer, Model};
use crate::operation::{ADMIN, Act, Credential, Draw, OPERATOR, Openness, Operation, Which};
use crate::order::{Found, Moments, Timed, order};
use crate::rules::{Made, Name, Rank, Who};
use crate::server::{START, Server};
use crate::setting;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// How many requests are sent at once, and to how many groups.
const WIDTH: usize = 200;
const GROUPS: usize = 8;
/// Who sends them.
const PEOPLE: [Name; 5] = ["bob", "cat", "dan", "eve", "fay"];
const CONTAINER: Name = "tools/aa";

struct Races {
    server: Arc<Server>,
    model: Model,
    draw: Draw,
    number: Made,
    tokens: BTreeMap<Name, Made>,
}

/// A group, and what it had before everybody began.
struct Group {
    name: Name,
    invitations: Vec<Made>,
}

impl Races {
    async fn new(seed: u64) -> Self {
        let (server, model, draw) = (Arc::new(Server::new().await), Model::new(START), Draw::new(seed));
        let mut races = Self { server, model, draw, number: 0, tokens: BTreeMap::new() };
        for name in PEOPLE {
            races.alone(ADMIN, Act::AddUser { name, admin: false }).await;
            let made = races.alone(ADMIN, Act::MakeToken { of: Who::User(name), scope: None, life: None }).await;
            races.tokens.insert(name, made);
        }
        races
    }

    fn operation(&mut self, by: Name, act: Act) -> Operation {
        self.number += 1;
        let token = if by == ADMIN { OPERATOR } else { self.tokens[by] };
        Operation { number: self.number, by: Credential::Token(token), act }
    }

    /// Asks for something while nothing else happens.
    async fn alone(&mut self, by: Name, act: Act) -> Made {
        let operation = self.operation(by, act);
        let (expected, answer) = (self.model.answer(&operation), self.server.answer(&operation).await);
        // Whether bytes have to come depends on the groups of earlier rounds, too.
        assert_eq!(answer.word(), expected.word(), "{operation}");
        operation.number
    }

    /// A group with two admins, other members, open invitations, and a container with two images.
    async fn group(&mut self, round: u64, at: usize) -> Group {
        let name: Name = Box::leak(format!("g{round}x{at}").into_boxed_str());
        let open = if self.draw.chance.percent(50) { Openness::Private } else { Openness::Internal };
        let set = |who, part, rank| Act::SetRole { entity: name, who: Who::User(who), part, rank: Some(rank) };
        for act in [
            Act::MakeGroup { name, private: false },
            Act::MakeCollection { at: (name, "tools"), private: false },
            Act::MakeContainer { at: (name, CONTAINER), private: false },
            Act::SetContainer { at: (name, CONTAINER), open: Some(open), read_only: None },
            Act::Push { at: (name, CONTAINER), image: 0 },
            Act::Push { at: (name, CONTAINER), image: 1 },
            Act::SetTag { at: (name, CONTAINER), tag: "v0", image: 0 },
            set("bob", None, Rank::Admin),
            set("cat", None, Rank::Admin),
            set("dan", None, Rank::Contributor),
            set("eve", Some("tools"), Rank::Admin),
            Act::RemoveMember { entity: name, who: Who::User(ADMIN) },
        ] {
            self.alone(ADMIN, act).await;
        }
        let mut invitations = Vec::new();
        for (by, part, rank, most) in [
            ("bob", None, Rank::Contributor, 2),
            ("cat", None, Rank::Admin, 1),
            ("eve", Some("tools"), Rank::Contributor, 1),
        ] {
            let act = Act::Invite { entity: name, part, rank, most, life: 3600 };
            invitations.push(self.alone(by, act).await);
        }
        Group { name, invitations }
    }

    fn act(&mut self, group: &Group) -> Act {
        let (entity, at) = (group.name, (group.name, CONTAINER));
        let who = Who::User(self.draw.one(&PEOPLE));
        let rank = self.draw.one(&[Rank::Reader, Rank::Contributor, Rank::Admin, Rank::Admin]);
        let part = self.draw.maybe(25, "tools");
        let invitation = self.draw.one(&group.invitations);
        let (image, tag) = (usize::from(self.draw.chance.percent(50)), self.draw.one(&["v0", "v1"]));
        match self.draw.chance.below(100) {
            0..26 => Act::SetRole { entity, who, part, rank: self.draw.maybe(70, rank) },
            26..40 => Act::RemoveMember { entity, who },
            40..54 => Act::Accept { entity, invitation, secret: true },
            54..57 => Act::Revoke { entity, invitation },
            57..60 => Act::Invite { entity, part, rank, most: 1, life: 3600 },
            60..66 => {
                let open = self.draw.one(&[Openness::Internal, Openness::Private]);
                let read_only = self.draw.chance.percent(40);
                let (open, read_only) = (self.draw.maybe(50, open), self.draw.maybe(70, read_only));
                Act::SetContainer { at, open, read_only }
            }
            66..78 => Act::SetTag { at, tag, image },
            78..81 => Act::MakeContainer { at: (entity, "tools/bb"), private: image == 0 },
            81..83 => Act::MakeRobot { entity, name: "ci", part, rank: Rank::Contributor },
            83..86 => Act::SeeEntity { entity },
            86..90 => Act::Members { entity },
            _ => Act::Find { at, which: Which::Tag(tag), download: true },
        }
    }

    /// Everything at once, with the time at which each began and ended.
    async fn round(&mut self, groups: &[Group]) -> Vec<Timed> {
        let (clock, barrier) = (Arc::new(AtomicU64::new(0)), Arc::new(Barrier::new(WIDTH)));
        let mut tasks = JoinSet::new();
        for one in 0..WIDTH {
            let act = self.act(&groups[one % groups.len()]);
            let by = match act {
                // A list of members is one moment only for whoever may see all of it anyway.
                Act::Members { .. } => ADMIN,
                Act::RemoveMember { who: Who::User(who), .. } if self.draw.chance.percent(60) => who,
                _ if self.draw.chance.percent(4) => ADMIN,
                _ => self.draw.one(&PEOPLE),
            };
            let operation = self.operation(by, act);
            let (server, clock, barrier) = (Arc::clone(&self.server), Arc::clone(&clock), Arc::clone(&barrier));
            tasks.spawn(async move {
                barrier.wait().await;
                let from = clock.fetch_add(1, Ordering::SeqCst);
                let answer = server.answer(&operation).await;
                let to = clock.fetch_add(1, Ordering::SeqCst);
                Timed { operation, answer, from, to }
            });
        }
        let mut all = tasks.join_all().await;
        // Whoever was told to try again has changed nothing.
        all.retain(|one| one.answer != Answer::Busy);
        for group in groups {
            let entity = group.name;
            let mut looks = vec![Act::Members { entity }, Act::Robots { entity }, Act::Invitations { entity }];
            looks.push(Act::Containers { entity, collection: None });
            looks.push(Act::SeeContainer { at: (entity, CONTAINER) });
            for act in looks {
                let operation = self.operation(ADMIN, act);
                let from = clock.fetch_add(1, Ordering::SeqCst);
                let answer = self.server.answer(&operation).await;
                all.push(Timed { operation, answer, from, to: clock.fetch_add(1, Ordering::SeqCst) });
            }
        }
        all
    }

    /// The model with one group and nothing else that the answers could depend on.
    fn only(&self, entity: Name) -> Model {
        let mut model = self.model.clone();
        model.entities.retain(|name, _| *name == entity);
        model
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_operations_at_once_answer_as_in_some_order_one_after_another() {
    let (rounds, seed) = (setting("PEOPLE_ROUNDS", 25), setting("PEOPLE_SEED", 1));
    let mut races = Races::new(seed).await;
    let (mut one, mut two) = (0, 0);
    let mut counts: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    for round in 0..rounds {
        let mut groups = Vec::new();
        for at in 0..GROUPS {
            groups.push(races.group(round, at).await);
        }
        let all = races.round(&groups).await;
        for Timed { operation, answer, .. } in &all {
            *counts.entry((operation.act.word(), answer.word())).or_default() += 1;
        }
        for group in &groups {
            let own =
                |timed: &&Timed| timed.operation.act.entity().or(accepted(&timed.operation.act)) == Some(group.name);
            let own: Vec<Timed> = all.iter().filter(own).cloned().collect();
            let before = races.only(group.name);
            if order(&before, &own, Moments::One) == Found::Order {
                one += 1;
                continue;
            }
            two += 1;
            let found = order(&before, &own, Moments::Two);
            assert!(found == Found::Order, "seed {seed}, round {round}: {found:?}\n{}", told(&own, &before));
        }
    }
    println!(
        "seed {seed}: {rounds} rounds of {WIDTH}; {one} groups in one order, {two} where a request has two moments"
    );
    for ((act, answer), count) in &counts {
        println!("{count:7} {act} {answer}");
    }
    for (act, answer) in
        [("SetRole", "conflict"), ("RemoveMember", "conflict"), ("Accept", "missing"), ("SetTag", "forbidden")]
    {
        assert!(rounds < 5 || counts.contains_key(&(act.to_owned(), answer)), "{act} was never {answer}");
    }
}

/// The entity of an invitation.
fn accepted(act: &Act) -> Option<Name> {
    match act {
        Act::Accept { entity, .. } => Some(entity),
        _ => None,
    }
}

fn told(own: &[Timed], before: &Model) -> String {
    let mut own: Vec<&Timed> = own.iter().collect();
    own.sort_by_key(|timed| timed.from);
    let line = |Timed { operation, answer, from, to }: &&Timed| format!("{from:4} {to:4} {operation}: {answer}");
    let lines: Vec<String> = own.iter().map(line).collect();
    format!("{:?}\n{}", before.entities, lines.join("\n"))
}
