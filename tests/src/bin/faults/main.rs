//! What happens to a real server process: `faults kill | commits | fsync | full | big | streams | layers | abuse`. Run by `scripts/test`, since
//! each takes minutes.
//!
//! - `kill` kills it at moments spread over every step of a push, and checks what is left ([`kill`]).
//! - `commits` kills a process that does nothing but change a table ([`commits`]).
//! - `fsync` reads its system calls, and checks that nothing is acknowledged before it is on disk ([`trace`]).
//! - `full` fills its disk ([`full`]).
//! - `big` pushes 20 GiB through it, and checks its memory ([`big`]).
//! - `streams` kills it in the middle of blobs that stream through it ([`streams`]).
//! - `layers` streams eight layers of 2 GiB through it at once, and checks its memory ([`layers`]).
//! - `abuse` abuses it, and checks how long others wait, its memory and its disk ([`abuse`]).
//!
//! `STACKROOM_BIN` is the server. The last line is `N passed, N failed`; exit status 77 means that this machine can't
//! run the suite.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a failed test panics, and says on standard output what it saw"
)]

mod abuse;
mod big;
mod commits;
mod full;
mod kill;
mod layers;
mod process;
mod streams;
mod trace;

use std::process::ExitCode;

/// Counts checks.
#[derive(Debug, Default)]
struct Checks {
    passed: u32,
    failed: u32,
    /// Counts without printing.
    quiet: bool,
}

impl Checks {
    /// Counts one, and prints it if it failed.
    fn that(&mut self, right: bool, what: impl FnOnce() -> String) {
        if right {
            self.passed += 1;
        } else {
            self.failed += 1;
            if !self.quiet {
                println!("not ok - {}", what());
            }
        }
    }

    /// Counts one, and prints it in any case.
    fn say(&mut self, right: bool, what: &str) {
        if right && !self.quiet {
            println!("ok - {what}");
        }
        self.that(right, || what.to_owned());
    }
}

/// A suite that this machine can't run, and why.
struct Skipped(String);

#[tokio::main]
async fn main() -> ExitCode {
    let suite = std::env::args().nth(1).unwrap_or_default();
    let checks = match suite.as_str() {
        "kill" => Ok(kill::run().await),
        "commits" => Ok(commits::run().await),
        "committing" => {
            let file = std::env::args_os().nth(2).unwrap_or_default();
            commits::committing(file.as_ref()).await;
            return ExitCode::FAILURE;
        }
        "fsync" => trace::run().await,
        "full" => full::run().await,
        "big" => big::run().await,
        "streams" => Ok(streams::run().await),
        "layers" => layers::run().await,
        "abuse" => abuse::run().await,
        _ => {
            eprintln!("faults kill | commits | fsync | full | big | streams | layers | abuse");
            return ExitCode::from(2);
        }
    };
    match checks {
        Ok(Checks { passed, failed, .. }) => {
            println!("{passed} passed, {failed} failed");
            if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(Skipped(why)) => {
            println!("SKIPPED - {why}");
            ExitCode::from(77)
        }
    }
}
