//! Deterministic simulation of sweeping, against a model. Clients push, mount, tag, pull and delete through both
//! protocols, some die in the middle, hours pass, and sweeps run beside all that. Before each call of a store every
//! operation waits, and a seeded random choice decides which one continues.
//!
//! The model knows what was acknowledged. After each round of operations no request is in progress, and then:
//!
//! 1. Every manifest that was acknowledged and not deleted is there, and those that were deleted are not. Where a push
//!    and a deletion ran concurrently, either may have won.
//! 2. Every blob that a manifest needs is there with its bytes; every tag leads to a manifest.
//! 3. Links, charges, accounts and blobs agree.
//! 4. A push or a pull was refused only if somebody deleted something in that repository meanwhile, or because of a
//!    frozen tag.
//! 5. Now and then the bytes of a blob are lost or damaged. Until a push brings them again, every protocol says so, and
//!    no push of them is acknowledged; from then on, everybody who has the blob can read it.
//! 6. A tag that was frozen, and that nobody asked to unfreeze since, is where it was, and everything that it led to,
//!    through any index, is there.
//!
//! 7. A repository that was deleted with everything in it is hidden at once, whatever is left of it.
//!
//! And after days in which nobody did anything, everything that nothing names is gone: rows, reservations and objects.
//!
//! `MODEL_STEPS` is how many calls are let through, `MODEL_SEED` is the seed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test panics, and says what it did"
)]

mod fixture;
mod operations;
mod scheduler;
mod state;

use fixture::{Fixture, LONG, SPARE, TAGS};
use operations::{Ended, Operation, Way, act};
use scheduler::{OPERATION, Scheduler};
use shared::service::sweep::{Ages, sweep};
use stackroom_tests::chance::Chance;
use state::{Change, DAMAGES, Happened, Losses, Model, SILENT};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How many operations run concurrently.
const WIDTH: usize = 4;
/// How many operations a round has.
const ROUND: usize = 24;
/// How many rounds pass until everything left over must be gone.
const ROUNDS: u64 = 12;
const DAYS: u64 = 3 * 24 * 3600;

/// A request in progress.
struct Running {
    place: usize,
    request: Operation,
    began: u64,
    /// How many deletions in its repository were running when it began, and how many had begun so far.
    disturbed: (u64, u64),
    task: JoinHandle<Ended>,
}

/// Deletions in a repository, and pushes of SIF images through the library, which end each other's uploads.
#[derive(Debug, Default, Clone, Copy)]
struct Disturbances {
    running: u64,
    begun: u64,
}

struct Run {
    fixture: Arc<Fixture>,
    scheduler: Scheduler,
    chance: Chance,
    model: Model,
    step: u64,
    next: u64,
    running: BTreeMap<u64, Running>,
    disturbances: Vec<Disturbances>,
    /// How often each kind of request ended in each way.
    counts: BTreeMap<(String, &'static str), u64>,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test]
async fn whatever_happens_in_whatever_order_nothing_named_is_lost_and_everything_else_goes() {
    let (steps, seed) = (setting("MODEL_STEPS", 100_000), setting("MODEL_SEED", 1));
    let scheduler = Scheduler::default();
    let fixture = Arc::new(Fixture::new(&scheduler).await);
    let model = Model::new(&fixture);
    let disturbances = vec![Disturbances::default(); fixture.places.len()];
    let (chance, running, counts) = (Chance::new(seed), BTreeMap::new(), BTreeMap::new());
    let mut run = Run { fixture, scheduler, chance, model, step: 0, next: 0, running, disturbances, counts };
    let mut rounds = 0;
    while run.step < steps {
        Box::pin(run.round()).await;
        rounds += 1;
        if rounds % ROUNDS == 0 {
            run.all_quiet(rounds % (2 * ROUNDS) == 0).await;
        }
    }
    run.all_quiet(true).await;
    println!("seed {seed}: {} calls, {} operations in {rounds} rounds", run.step, run.next);
    for ((request, how), count) in &run.counts {
        println!("{count:7} {request} {how}");
    }
    let Losses { lost, back, told } = run.model.losses;
    println!("{lost:7} times bytes were lost, {back} times they came back, {told} places said so meanwhile");
    assert!(lost > 0 && back > 0 && told > 0);
    // A change gives up after 20 seconds, in which a machine with much else to do gets through fewer tries.
    for ((request, how), busy) in &run.counts {
        let all: u64 = run.counts.iter().filter(|((one, _), _)| one == request).map(|(_, count)| count).sum();
        assert!(*how != "busy" || *busy <= 1 + all / 100, "{busy} of {all} times, {request} gave up");
    }
    // A test in which nothing happens proves nothing.
    for (request, how) in [
        ("Push", "done"),
        ("Push", "killed"),
        ("Push", "refused"),
        ("Take", "done"),
        ("Delete", "done"),
        ("Cascade", "done"),
        ("Cascade", "killed"),
        ("Freeze", "done"),
        ("Sweep", "done"),
    ] {
        assert!(run.counts.contains_key(&(request.to_owned(), how)), "{request} was never {how}");
    }
}

impl Run {
    fn place(&mut self) -> usize {
        usize::try_from(self.chance.below(self.fixture.places.len() as u64)).unwrap()
    }

    /// A random operation.
    fn request(&mut self, place: usize) -> Operation {
        let chance = &mut self.chance;
        let mut below = |end: usize| usize::try_from(chance.below(end as u64)).unwrap();
        let (documents, sifs) = (self.fixture.documents.len(), self.fixture.sifs.len());
        // One document has a long blob, and takes longer.
        let document = match below(documents) {
            4 if below(8) > 0 => 0,
            any => any,
        };
        let (tag, sif, thing) = (below(TAGS), below(sifs), below(documents + sifs));
        let blob = if below(3) == 0 { SPARE } else { below(LONG) };
        let library = self.fixture.places[place].collection.is_some();
        match below(100) {
            0..30 => {
                let ways = (0..4).map(|_| match below(10) {
                    0..5 => Way::Look,
                    5..8 => Way::Mount(below(self.fixture.places.len())),
                    some => Way::Bring(some - 7),
                });
                let ways = ways.collect();
                Operation::Push { document, tag: (below(3) > 0).then_some(tag), ways }
            }
            30..34 => Operation::Name { document, tag },
            34..44 if library => Operation::Image { sif, tag },
            34..44 => Operation::Bring { blob },
            44..48 => Operation::Bring { blob },
            48..53 => Operation::Begin { blob: if below(10) == 0 { LONG } else { blob }, cancel: below(2) == 0 },
            53..63 => Operation::Pull { thing },
            63..68 => Operation::Untag { tag },
            68..80 => Operation::Remove { thing },
            80..86 => Operation::Take { blob: if below(4) == 0 { self.fixture.sifs[sif].0 } else { blob } },
            86..91 if library => Operation::Delete { sif },
            91..93 => Operation::Freeze { tag, frozen: true },
            93..96 => Operation::Freeze { tag, frozen: false },
            96 => Operation::Cascade { force: below(2) == 0 },
            _ => Operation::Sweep,
        }
    }

    fn disturbs(request: &Operation) -> bool {
        matches!(
            request,
            Operation::Untag { .. }
                | Operation::Remove { .. }
                | Operation::Take { .. }
                | Operation::Delete { .. }
                | Operation::Cascade { .. }
                | Operation::Image { .. }
        )
    }

    fn begin(&mut self) {
        let place = self.place();
        let request = self.request(place);
        self.next += 1;
        let operation = self.next;
        let disturbances = &mut self.disturbances[place];
        let disturbed = (disturbances.running, disturbances.begun);
        if Self::disturbs(&request) {
            disturbances.running += 1;
            disturbances.begun += 1;
        }
        let (fixture, scheduler, doing) = (Arc::clone(&self.fixture), self.scheduler.clone(), request.clone());
        scheduler.begin(operation);
        let task = tokio::spawn(OPERATION.scope(operation, async move {
            let ended = act(&fixture, place, doing).await;
            scheduler.end(operation);
            ended
        }));
        self.running.insert(operation, Running { place, request, began: self.step, disturbed, task });
    }

    /// Runs a number of operations to their ends, a call at a time.
    async fn round(&mut self) {
        let hours = *self.chance.one(&[0, 0, 600, 3500, 3700, 12 * 3600, 24 * 3600 - 5, 24 * 3600, 25 * 3600]);
        Fixture::pass(hours);
        let mut left = ROUND;
        loop {
            while left > 0 && self.running.len() < WIDTH {
                self.begin();
                left -= 1;
            }
            let waiting = self.scheduler.quiet().await;
            let ended: Vec<u64> = self
                .running
                .iter()
                .filter(|(_, one)| one.task.is_finished())
                .map(|(operation, _)| *operation)
                .collect();
            if !ended.is_empty() {
                for operation in ended {
                    self.ended(operation).await;
                }
                continue;
            }
            if waiting.is_empty() {
                if self.running.is_empty() {
                    break;
                }
                // The last one has left the scheduler but not quite ended.
                tokio::task::yield_now().await;
                continue;
            }
            let (call, operation) = *self.chance.one(&waiting);
            self.step += 1;
            match self.chance.below(400) {
                // Killed before the call, or after it.
                0 => self.killed(operation).await,
                1 => {
                    self.scheduler.pass(call, true).await;
                    self.killed(operation).await;
                }
                2 => {
                    let seconds = self.chance.below(600);
                    Fixture::pass(seconds);
                }
                _ => self.scheduler.pass(call, false).await,
            }
        }
        if self.chance.percent(30) {
            self.swept().await;
        }
        self.model.settle(&self.fixture).await;
        if self.chance.percent(25) {
            // One that is in a single file.
            let blob = *self.chance.one(&[2, 3, 4, 5, 6, 7, SPARE, self.fixture.sifs[0].0, self.fixture.sifs[1].0]);
            let how = usize::try_from(self.chance.below(DAMAGES.len() as u64)).unwrap();
            if self.chance.percent(20) {
                // Only a scrub would notice other bytes of the same length.
                self.model.lose_document(&self.fixture, how % SILENT).await;
            } else {
                self.model.lose(&self.fixture, blob, how).await;
            }
        }
    }

    async fn ended(&mut self, operation: u64) {
        let Running { place, request, began, disturbed, task } = self.running.remove(&operation).unwrap();
        let ended = task.await.unwrap();
        let disturbances = &mut self.disturbances[place];
        let own = u64::from(Self::disturbs(&request));
        disturbances.running -= own;
        let alone = disturbed.0 == 0 && disturbances.begun == disturbed.1 + own;
        if let Ended::Refused(why) = &ended {
            assert!(
                !alone
                    || why.contains("frozen")
                    || why.contains("still being removed")
                    || (why.contains("lost or damaged") && self.model.misses_any()),
                "{request:?} in {} was refused, and nobody disturbed it: {why}",
                self.fixture.places[place].repository
            );
        }
        let (how, change) = match ended {
            Ended::Done => ("done", Change::Sure),
            Ended::Nothing => ("nothing", Change::None),
            Ended::Refused(_) => ("refused", Change::Maybe),
            Ended::Busy => ("busy", Change::Maybe),
        };
        self.happened(place, &request, began, (how, change));
    }

    async fn killed(&mut self, operation: u64) {
        let Running { place, request, began, task, .. } = self.running.remove(&operation).unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        self.scheduler.end(operation);
        self.disturbances[place].running -= u64::from(Self::disturbs(&request));
        self.happened(place, &request, began, ("killed", Change::Maybe));
    }

    fn happened(&mut self, place: usize, request: &Operation, from: u64, (how, change): (&'static str, Change)) {
        let name = format!("{request:?}").split([' ', '{']).next().unwrap().to_owned();
        *self.counts.entry((name, how)).or_default() += 1;
        if change != Change::None {
            self.model.note(&self.fixture, Happened { place, from, to: self.step, change }, request);
        }
    }

    /// A sweep while nothing else runs removes everything that is old enough.
    async fn swept(&mut self) {
        let now = self.fixture.app.now();
        assert_eq!(act(&self.fixture, 0, Operation::Sweep).await, Ended::Done);
        self.model.swept(&self.fixture, now).await;
    }

    /// Days pass, in which only sweeps run. `empty` is whether everything is deleted first.
    async fn all_quiet(&mut self, empty: bool) {
        if empty {
            Box::pin(self.model.delete_all(&self.fixture)).await;
        }
        for _ in 0..3 {
            Fixture::pass(DAYS);
            let ages = Ages { unnamed: Duration::ZERO, ..Ages::safe(&self.fixture.app) };
            let swept = sweep(&self.fixture.app, ages).await.unwrap();
            assert!(swept.wrong_accounts.is_empty(), "{:?}", swept.wrong_accounts);
        }
        self.model.nothing_left_over(&self.fixture, empty).await;
    }
}
