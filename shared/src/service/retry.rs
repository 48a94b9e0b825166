//! Changes that race: each try reads anew, and one that lost begins again.
//!
//! A loop and not a function that takes a closure: whether the future of an async closure is `Send` can't be shown to
//! the compiler where it borrows what its handler holds.

use crate::error::Error;
use crate::store::StoreError;
use crate::store::table::{Written, pause};

/// The most tries of one change. Pauses grow up to a second, so they last for about half a minute.
const MOST_TRIES: u32 = 60;

/// The tries of one change.
#[derive(Debug)]
pub(crate) struct Retry {
    what: &'static str,
    tries: u32,
}

impl Retry {
    /// What there is too much of, in the log, if no try ever wins: `pushes of the same image`.
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what, tries: 0 }
    }

    /// Begins another try: at once the first time, after a longer pause each time that follows.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there were too many.
    pub(crate) async fn pause(&mut self) -> Result<(), Error> {
        if self.tries == MOST_TRIES {
            return Err(Error::Unavailable(StoreError::Unavailable(format!("too many {} at once", self.what))));
        }
        pause(self.tries).await;
        self.tries += 1;
        Ok(())
    }
}

/// What came of one try that is a function of its own.
#[must_use]
#[derive(Debug)]
pub(crate) enum Try<T> {
    /// It is done.
    Done(T),
    /// Somebody else was faster: what was read is no longer so.
    Lost,
}

impl<T> Try<T> {
    /// What a transaction came to, with the result that holds if it was written.
    pub(crate) fn of(written: &Written, result: T) -> Self {
        match written {
            Written::Done => Self::Done(result),
            Written::Lost(_) => Self::Lost,
        }
    }
}
