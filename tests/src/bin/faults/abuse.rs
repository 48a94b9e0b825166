//! What others notice while somebody abuses the server, and how much memory and disk they make it hold.
//!
//! In each phase bob looks up one of his images by tag, first in quiet and then while a [`crowd`] does what once
//! held everybody up: it lists thousands of tags, searches thousands of images, stalls bodies and heads, or guesses
//! passwords. Another user tries to bring more bytes to the disk than their account may hold ([`disk`]).
//!
//! - Each phase has a server process of its own on the same data, so that its memory is its own.
//! - Bob asks on a thread of his own, and each address is another one of the loopback network: what one address may
//!   hold is bounded, and 127.0.0.1 counts as a proxy.
//! - Under attack, a hundredth of bob's lookups may take ten times as long as in quiet. A quiet that is faster than
//!   [`FLOOR`] counts as that.
//! - The crowd's requests must reach the server: they are counted by what was answered, and stalled ones by the sockets
//!   that the server holds.
//!
//! `ABUSE_TAGS` and `ABUSE_IMAGES` fill it with fewer than 20 000 tags and 30 000 images. `ABUSE_ONLY` runs the phases
//! that have it in their names.

mod crowd;
mod disk;
mod fill;
mod victim;

use self::crowd::{Abuse, Crowd, Plan, Tally};
use self::fill::{Filled, fill};
use self::victim::{Bob, Times};
use crate::big::{Memory, free};
use crate::process::{self, Client, Process, folder, free_port};
use crate::{Checks, Skipped};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long bob looks up in quiet.
const QUIET: Duration = Duration::from_secs(3);
/// How long he looks up under attack.
const ATTACK: Duration = Duration::from_secs(12);
/// An attack ends by then in any case.
const LONGEST: Duration = Duration::from_secs(28);
/// How long bob may log in.
const LOGINS: Duration = Duration::from_secs(25);
/// The most that an attack may multiply.
const TIMES: f64 = 10.0;
/// The quiet that is quick enough, in milliseconds.
const FLOOR: f64 = 5.0;
/// The most memory that the server may hold, in MiB: the default of `STACKROOM_BUFFERS`, and as much besides.
const MEMORY: u64 = 128 + 128;
/// The disk space that is needed.
const ROOM: u64 = 4 << 30;

/// Starts the server with as many open files as systems give by default, whatever this machine gives.
const UNDER: [&str; 4] = ["sh", "-c", "ulimit -Sn 1024 && exec \"$@\"", "sh"];

/// Statuses that tell a client to come back later.
const LATER: [u16; 2] = [429, 503];

/// What was seen in a phase.
struct Row {
    name: String,
    quiet: Times,
    attack: Times,
    /// In MiB.
    memory: u64,
}

struct Lab {
    folder: PathBuf,
    server: Process,
    port: u16,
    bob: Bob,
    filled: Filled,
    rows: Vec<Row>,
    checks: Checks,
}

/// All phases.
pub(crate) async fn run() -> Result<Checks, Skipped> {
    let (_guard, folder) = folder();
    let room = free(&folder);
    if room < ROOM {
        let why =
            format!("{} has {} GiB free, {} are needed (TMPDIR chooses)", folder.display(), room >> 30, ROOM >> 30);
        return Err(Skipped(why));
    }
    let port = free_port();
    let server = Process::start(&folder, port, &[]).await;
    let admin = Client::new(&server.url, Some(process::admin_token(&folder).trim().to_owned()));
    let filled = fill(&admin).await;
    let bob = Bob::new(&server.url, &filled);
    let mut lab = Lab { folder, server, port, bob, filled, rows: Vec::new(), checks: Checks::default() };
    lab.lists().await;
    lab.searches().await;
    lab.bodies().await;
    lab.heads().await;
    lab.passwords().await;
    lab.disk().await;
    table(&lab.rows);
    lab.server.kill().await;
    Ok(lab.checks)
}

/// Whether a phase is to run.
fn wanted(phase: &str) -> bool {
    std::env::var("ABUSE_ONLY").map_or(true, |only| phase.contains(&only))
}

impl Lab {
    /// Ends the server and starts it again, with none of the memory that the last phase made it take.
    async fn restart(&mut self) {
        self.server.kill().await;
        self.server = Process::start(&self.folder, self.port, &UNDER).await;
    }

    /// A server of its own for a phase, and what bob measures while nobody else is there.
    async fn quiet(&mut self) -> Times {
        self.restart().await;
        // What a new process does once is no part of the quiet.
        self.bob.look_up(Duration::from_millis(500)).await;
        self.bob.look_up(QUIET).await
    }

    /// What bob measures while a crowd is there, and what it was answered. `beside` is done meanwhile.
    async fn under<T>(&mut self, phase: Phase, beside: impl Future<Output = T>) -> (Tally, T) {
        let Phase { name, quiet, plan } = phase;
        let memory = Memory::watch(self.server.pid);
        let began = Instant::now();
        let crowd = Crowd::begin(&self.server.url, &plan);
        let (attack, done) = tokio::join!(self.bob.look_up(ATTACK), beside);
        let tally = crowd.end(LONGEST.saturating_sub(began.elapsed())).await;
        let row = Row { name, quiet, attack, memory: memory.most() };
        self.judge(&row);
        println!("    {}: {tally}; {:.0} s", row.name, began.elapsed().as_secs_f64());
        self.rows.push(row);
        (tally, done)
    }

    fn judge(&mut self, row: &Row) {
        let Row { name, quiet, attack, memory } = row;
        let checks = &mut self.checks;
        checks.say(
            quiet.wrong == 0,
            &format!("{name}: bob is answered in quiet, {} times of {}", quiet.right(), quiet.asked),
        );
        let said = format!("{name}: bob is answered under attack, {} times of {}", attack.right(), attack.asked);
        checks.say(attack.wrong == 0, &said);
        let most = TIMES * quiet.share(99).max(FLOOR);
        let said = format!(
            "{name}: bob's p99 is {:.1} ms, {:.1} ms in quiet; at most {most:.1} ms",
            attack.share(99),
            quiet.share(99)
        );
        checks.say(attack.share(99) <= most, &said);
        checks.say(*memory <= MEMORY, &format!("{name}: the server held {memory} MiB, at most {MEMORY}"));
    }

    /// A phase in which each of a crowd asks again as soon as it is answered, with `status` if it is done.
    async fn asked(&mut self, name: &str, plan: Plan, status: u16) {
        if !wanted(name) {
            return;
        }
        let quiet = self.quiet().await;
        let (tally, ()) = self.under(Phase { name: name.to_owned(), quiet, plan }, async {}).await;
        self.reached(name, &tally, status);
    }

    /// Checks that a crowd did what it was there for: it was answered so at least once, and besides told to come later.
    fn reached(&mut self, name: &str, tally: &Tally, status: u16) {
        let others = tally.statuses.keys().filter(|seen| **seen != status && !LATER.contains(*seen)).count();
        let right = tally.statuses.contains_key(&status) && others == 0;
        self.checks.say(right, &format!("{name}: the crowd is answered {status} at least once, or told to wait"));
    }

    /// Strangers list the tags of a public container, through each door.
    async fn lists(&mut self) {
        let container = &self.filled.tagged;
        let ways = [
            ("lists: container", format!("/v1/containers/{}", fill::TAGGED), 200),
            ("lists: v1 tags", format!("/v1/tags/{container}"), 200),
            ("lists: v2 tags", format!("/v2/tags/{container}"), 200),
            ("lists: registry tags", format!("/v2/{}/tags/list", fill::TAGGED), 200),
            ("lists: no latest", format!("/v1/images/{}", fill::UNTAGGED), 404),
        ];
        for (name, path, status) in ways {
            let abuse = Abuse::Asks { path, token: None };
            self.asked(name, Plan { size: 16, sources: 16, abuse }, status).await;
        }
    }

    /// Four connections of a user search all their images for a text that none of them has.
    async fn searches(&mut self) {
        let token = Some(self.filled.eve.clone());
        let abuse = Abuse::Asks { path: "/v1/search?value=nothing-has-this".to_owned(), token };
        self.asked("search", Plan { size: 4, sources: 4, abuse }, 200).await;
    }

    /// Bodies that never end: of strangers, and then of a user.
    async fn bodies(&mut self) {
        for (name, token) in [("bodies: strangers", None), ("bodies: a user", Some(self.filled.eve.clone()))] {
            self.stalled(name, Plan { size: 400, sources: 8, abuse: Abuse::StallsBodies { token } }).await;
        }
    }

    /// Heads that never end: more than the files that a process may open unless it asks for more.
    async fn heads(&mut self) {
        self.stalled("heads", Plan { size: 1100, sources: 10, abuse: Abuse::StallsHeads }).await;
    }

    async fn stalled(&mut self, name: &str, plan: Plan) {
        if !wanted(name) {
            return;
        }
        let quiet = self.quiet().await;
        let pid = self.server.pid;
        let seen = async {
            tokio::time::sleep(ATTACK * 3 / 4).await;
            sockets(pid)
        };
        let size = plan.size as u64;
        let (tally, sockets) = self.under(Phase { name: name.to_owned(), quiet, plan }, seen).await;
        let ended = tally.statuses.values().sum::<u64>() + tally.nothing;
        let said = format!("{name}: of {size} the server has ended {ended}, and holds {sockets} sockets");
        self.checks.say(tally.stalled + ended >= size && sockets + ended >= size, &said);
    }

    /// Users who bring more bytes than they may.
    async fn disk(&mut self) {
        if !wanted("disk") {
            return;
        }
        self.restart().await;
        let memory = Memory::watch(self.server.pid);
        disk::run(&self.server.url, &self.folder, &mut self.checks).await;
        let most = memory.most();
        self.checks.say(most <= MEMORY, &format!("disk: the server held {most} MiB, at most {MEMORY}"));
    }

    /// Wrong passwords of names that nobody has, from one address and from many, while bob logs in.
    async fn passwords(&mut self) {
        for (name, sources) in [("passwords: one address", 1), ("passwords: ten", 10)] {
            if !wanted(name) {
                continue;
            }
            let quiet = self.quiet().await;
            let bob = self.bob.clone();
            let plan = Plan { size: 80, sources, abuse: Abuse::Guesses };
            let logins = async {
                // The crowd comes first.
                tokio::time::sleep(Duration::from_secs(1)).await;
                bob.log_in(30, LOGINS).await
            };
            let (tally, logins) = self.under(Phase { name: name.to_owned(), quiet, plan }, logins).await;
            self.reached(name, &tally, 401);
            let said =
                format!("{name}: bob's right password is refused {} times of {}; {logins}", logins.wrong, logins.asked);
            self.checks.say(logins.wrong == 0, &said);
        }
    }
}

/// A phase after its quiet.
struct Phase {
    name: String,
    quiet: Times,
    plan: Plan,
}

/// The sockets that a process holds.
fn sockets(pid: u32) -> u64 {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count() as u64
}

fn table(rows: &[Row]) {
    println!(
        "{:<24} | {:<26} | {:<32} | {:>7} | {:>8}",
        "phase", "quiet p50/p99/max ms", "under attack p50/p99/max ms", "p99 ×", "RSS MiB"
    );
    for Row { name, quiet, attack, memory } in rows {
        let times = attack.share(99) / quiet.share(99).max(0.001);
        println!("{name:<24} | {:<26} | {:<32} | {times:>7.1} | {memory:>8}", quiet.to_string(), attack.to_string());
    }
}
