//! Downloads that this process has served and not yet written down.

use super::App;
use crate::domain::{Day, Download, Time};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The most different ones that are kept until they are written down, so that their memory is bounded.
const MOST: usize = 100_000;

/// Several downloads of the same by the same way on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// What.
    pub what: Download,
    /// The day.
    pub day: Day,
    /// How many.
    pub count: u64,
    /// When the latest was.
    pub latest: Time,
}

/// Downloads that are written down together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What tells it from all others, so that it counts once however often it is written.
    pub id: String,
    /// The downloads.
    pub downloads: Vec<Downloaded>,
}

/// What was served.
#[derive(Debug, Default)]
pub(crate) struct Served {
    kept: AtomicBool,
    sums: Mutex<HashMap<(Day, Download), (u64, Time)>>,
    /// The batches that are being written, until that is done, the oldest first.
    pub(crate) unwritten: tokio::sync::Mutex<VecDeque<Unwritten>>,
}

/// A batch that is being written.
#[derive(Debug)]
pub(crate) struct Unwritten {
    /// What of it is not written.
    pub(crate) batch: Batch,
    /// Since when.
    pub(crate) since: Time,
}

/// A download that a request lets somebody have.
pub(crate) struct Note {
    pub(crate) app: App,
    pub(crate) what: Download,
}

impl Note {
    /// Counts it in this process, if that writes numbers down. Returns how it stands in the log line.
    pub(crate) fn count(&self) -> String {
        let Self { app, what } = self;
        if !app.served().add(what.clone(), app.now()) {
            tracing::warn!("too many different downloads in a minute: some are not counted");
        }
        what.to_string()
    }
}

impl Served {
    /// Keeps downloads from now on, since somebody takes them.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Counts one. Returns whether there was room for it.
    pub(crate) fn add(&self, what: Download, now: Time) -> bool {
        if !self.kept.load(Ordering::Relaxed) {
            return true;
        }
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let full = sums.len() >= MOST;
        match sums.entry((now.day(), what)) {
            Entry::Occupied(mut sum) => {
                let (count, latest) = sum.get_mut();
                *count += 1;
                *latest = now.max(*latest);
            }
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(place) => {
                place.insert((1, now));
            }
        }
        true
    }

    /// Takes all that were counted since the last time.
    pub(crate) fn take(&self) -> Vec<Downloaded> {
        let sums = std::mem::take(&mut *self.sums.lock().unwrap_or_else(PoisonError::into_inner));
        let downloaded = |((day, what), (count, latest))| Downloaded { what, day, count, latest };
        sums.into_iter().map(downloaded).collect()
    }
}
