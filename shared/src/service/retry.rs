//! Racing changes: each try reads again, and one that lost starts again.
//!
//! This is a loop and not a function that takes a closure: if an async closure borrows from its handler, the compiler
//! can't be shown that its future is `Send`.

use crate::error::Error;
use crate::store::table::{Written, pause};
use std::time::{Duration, Instant};

/// How long one change is tried. An API gateway ends a request after 29 seconds; a client should know by then why.
const LONGEST: Duration = Duration::from_secs(20);
/// How many tries every change has, however long they take.
const LEAST_TRIES: u32 = 5;
/// When a client may try again.
const AFTER: Duration = Duration::from_secs(5);

/// The tries of one change.
#[derive(Debug)]
pub(crate) struct Retry {
    what: &'static str,
    since: Instant,
    tries: u32,
}

impl Retry {
    /// What there is too much of if no try ever wins: `pushes of the same image`.
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what, since: Instant::now(), tries: 0 }
    }

    /// Starts another try: at once the first time, then after longer and longer pauses.
    ///
    /// # Errors
    /// [`Error::Busy`] if there were too many.
    pub(crate) async fn pause(&mut self) -> Result<(), Error> {
        if self.tries >= LEAST_TRIES && self.since.elapsed() >= LONGEST {
            let why = format!("too many {} at once, try again later", self.what);
            return Err(Error::Busy { why, after: AFTER });
        }
        pause(self.tries).await;
        self.tries += 1;
        Ok(())
    }
}

/// The result of one try, if the try is a function of its own.
#[must_use]
#[derive(Debug)]
pub(crate) enum Try<T> {
    /// It is done.
    Done(T),
    /// Somebody else was faster: the rows that were read are out of date.
    Lost,
}

impl<T> Try<T> {
    /// The result of a transaction, with the value to return if it was written.
    pub(crate) fn of(written: &Written, result: T) -> Self {
        match written {
            Written::Done => Self::Done(result),
            Written::Lost(_) => Self::Lost,
        }
    }
}
