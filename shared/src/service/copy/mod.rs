//! Copying a library: all of its rows and objects, from one table and bucket to another table and bucket. This is how a
//! library is backed up while people push, how it is restored, and how it moves to AWS and back.
//!
//! The source is not stopped, and a scan is no snapshot: what is written while it runs may be in it or not. So the rows
//! are made to agree with each other afterwards.
//!
//! 1. See that the target is empty, or holds a copy of the same library that was never served; mark it as a copy that is
//!    not whole, which nobody serves. *Dies at any later step*: the next run continues, since each step can be repeated.
//! 2. [Scan](rows::all) the source, and write its rows. What only makes sense at the source stays behind: uploads that
//!    are under way and what they reserve, objects that are to be deleted, counts of wrong passwords.
//! 3. If there were rows before, from another run: [compare](rows::compared) all of them with the source, and delete
//!    those that are gone there.
//! 4. [Settle](settle): whatever a row refers to and is not there was written after its place had been read: read it now.
//!    If the source has it no more either, the row that refers to it is read again, and goes if it is gone. Who may do
//!    what is read last.
//! 5. [Add up](sums) anew what rows count of other rows: links, tags, admins, stars, and the quota accounts.
//! 6. Copy the [objects](bytes) that rows name and the target does not have, and check their digests on the way. One that
//!    is missing at the source was deleted meanwhile, with its row: then that row goes, and 4 and 5 are done again. If the
//!    row is still there, the source has lost the object; it is reported.
//! 7. If there were objects before, delete those that no row names any more.
//! 8. Mark the copy as whole. Whoever serves it removes the mark: from then on it is a library of its own. Functions don't
//!    look for it, so a later run looks for events.
//!
//! *Two runs at once*: the later one writes its mark over that of the other, which looks before it removes anything.
//!
//! Whatever was acknowledged before step 2, and not changed since, is in the copy. What was changed since is there as it
//! was before or after, and always whole.

mod bytes;
mod references;
mod rows;
mod settle;
mod sums;

use super::access::system;
use super::installation;
use crate::app::App;
use crate::changes::search;
use crate::domain::{OciDigest, Time};
use crate::error::Error;
use crate::random;
use crate::rules::{Action, Grant, Resource};
use crate::store::keys::{self, RowKind};
use crate::store::rows::{Copied, EventEnd, Installation};
use crate::store::table::{Scanned, Written};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Rows that were read at the source.
    pub rows: u64,
    /// Objects that the rows name and that were looked at.
    pub objects: u64,
    /// Of these, objects that the target had already.
    pub present: u64,
    /// Bytes of objects that were copied.
    pub bytes: u64,
}

/// What became of a copy.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// How much there was to do.
    #[serde(flatten)]
    pub done: Progress,
    /// Rows that were read again because the source was changed meanwhile.
    pub settled: u64,
    /// Numbers that were added up anew, and were others before.
    pub corrected: u64,
    /// Rows that this version can't read, by their keys.
    #[serde(skip)]
    unread: BTreeSet<String>,
    /// Objects that the source does not have, or not with the right bytes.
    pub lost: Vec<Lost>,
}

/// An object that a row names and the source does not have, or not with the right bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The digest that it should have.
    pub digest: OciDigest,
    /// Its name.
    pub object: String,
    /// Bytes that it should have.
    pub size: u64,
}

/// Where a copy comes from and where it goes.
#[derive(Clone, Copy)]
pub struct Copying<'a> {
    /// The library that is copied. Nothing there is changed.
    pub from: &'a App,
    /// What tells that library from others.
    pub of: &'a str,
    /// Where the copy is made.
    pub to: &'a App,
    /// Is told from time to time how far the copy is.
    pub tell: &'a (dyn Fn(Progress) + Sync),
}

impl std::fmt::Debug for Copying<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copying").field("of", &self.of).finish_non_exhaustive()
    }
}

/// How often the rows are settled again because an object has gone from the source.
const ROUNDS: usize = 4;

/// Copies a library.
///
/// # Errors
/// [`Error::Conflict`] if the target holds something else, or if the source changes too fast.
pub async fn copy(copying: Copying<'_>) -> Result<Report, Error> {
    // Half a copy is no library.
    installation::check(copying.from).await?;
    let grant = system(Action::Manage, &Resource::Installation)?;
    let run = crate::domain::digest::hex(&random::bytes::<16>()?);
    let copying = Running { copying, grant: &grant, run };
    let mut report = Report::default();
    let fresh = copying.begun().await?;
    rows::all(&copying, fresh, &mut report).await?;
    if !fresh {
        rows::compared(&copying, &mut report).await?;
    }
    for _ in 0..ROUNDS {
        settle::settle(&copying, &mut report).await?;
        if let Some(row) = report.unread.first() {
            let (count, known) = (report.unread.len(), "copy the library with the version that wrote them");
            return Err(Error::Conflict(format!("{count} rows can't be read, the first at `{row}`: {known}")));
        }
        sums::correct(&copying, &mut report).await?;
        let copied = bytes::objects(&copying, &mut report).await?;
        if copied.changed > 0 {
            continue;
        }
        if !fresh {
            bytes::tidied(&copying, copied).await?;
        }
        copying.still_ours().await?;
        copying.mark(true).await?;
        return Ok(report);
    }
    Err(Error::Conflict("the source deletes faster than it can be copied: try again in a quieter moment".to_owned()))
}

/// How much there is to copy of a library.
///
/// # Errors
/// As [`copy`].
pub async fn survey(from: &App) -> Result<Progress, Error> {
    installation::check(from).await?;
    let mut found = Progress::default();
    let mut start = None;
    loop {
        let (page, next) = from.table.scan(start).await?;
        for row in page.into_iter().filter(is_library) {
            found.rows += 1;
            let Some(stored) = bytes::Stored::of(row)? else { continue };
            found.objects += 1;
            found.bytes += stored.size;
        }
        start = next;
        if start.is_none() {
            return Ok(found);
        }
        tokio::task::yield_now().await;
    }
}

/// Lets a copy that is whole be served: it is a library of its own from now on.
///
/// # Errors
/// [`Error::Conflict`] if it is a copy that is not whole.
pub async fn served(app: &App) -> Result<(), Error> {
    match mark_of(app).await? {
        None => Ok(()),
        Some(Copied { whole: false, .. }) => Err(Error::Conflict(
            "this is a copy of a library that is not whole: make it again, which continues where it stopped".to_owned(),
        )),
        Some(Copied { whole: true, .. }) => {
            let grant = system(Action::Manage, &Resource::Installation)?;
            // Its search index, if it has one, is that of what was there before.
            let _: Written = app.commit_index(&grant, search::unmade()).await?;
            Ok(app.table.remove(&grant, vec![keys::copied()]).await?)
        }
    }
}

/// What tells the library of marked stores from others.
///
/// # Errors
/// [`Error::NotFound`] if they have no mark: nobody has served a library on them.
pub async fn identity(app: &App) -> Result<String, Error> {
    let row: Option<Installation> = app.table.get(keys::installation()).await?;
    row.map(|row| row.id).ok_or(Error::NotFound("library"))
}

async fn mark_of(app: &App) -> Result<Option<Copied>, Error> {
    Ok(app.table.get(keys::copied()).await?)
}

/// A copy that is being made, with the right to write.
struct Running<'a> {
    copying: Copying<'a>,
    grant: &'a Grant,
    /// What tells this run from others.
    run: String,
}

impl<'a> std::ops::Deref for Running<'a> {
    type Target = Copying<'a>;
    fn deref(&self) -> &Copying<'a> {
        &self.copying
    }
}

impl Running<'_> {
    /// Step 1. Returns whether the target has nothing of an earlier run.
    async fn begun(&self) -> Result<bool, Error> {
        let before = mark_of(self.to).await?;
        let refused = |why: &str| Err(Error::Conflict(why.to_owned()));
        match &before {
            Some(mark) if mark.of != self.of => return refused("the target holds a copy of another library"),
            None if !is_empty(self.to).await? => {
                return refused("the target is not empty, and not a copy of this library that nobody has used yet");
            }
            Some(mark) if mark.whole && used_since(self.to, mark.at).await? => {
                return refused("the target was used since it was copied: it is a library of its own");
            }
            _ => {}
        }
        self.mark(false).await?;
        Ok(before.is_none())
    }

    async fn mark(&self, whole: bool) -> Result<(), Error> {
        let mark = Copied { of: self.of.to_owned(), whole, run: self.run.clone(), at: self.to.now() };
        Ok(self.to.table.replace(self.grant, vec![Scanned::of(&mark)?]).await?)
    }

    /// Sees, before anything is removed, that no other run has begun meanwhile, and that nobody uses the target.
    async fn still_ours(&self) -> Result<(), Error> {
        match mark_of(self.to).await? {
            Some(mark) if mark.run == self.run && !mark.whole => Ok(()),
            _ => Err(Error::Conflict("somebody else copies to the same place, or uses it".to_owned())),
        }
    }
}

/// How long after the end of a copy an event may still be one of its source: clocks differ.
const CLOCKS: Duration = Duration::from_mins(2);

/// Whether something was done in a library after a time. Functions don't look for the mark.
async fn used_since(to: &App, at: Time) -> Result<bool, Error> {
    let last = u64::try_from(at.plus(CLOCKS).0).unwrap_or(0).saturating_mul(1000);
    let mut start = None;
    loop {
        let (page, next) = to.table.scan(start).await?;
        for row in page.into_iter().filter(|row| keys::kind(&row.key) == RowKind::Event) {
            if row.read_part::<EventEnd>()?.millis > last {
                return Ok(true);
            }
        }
        start = next;
        if start.is_none() {
            return Ok(false);
        }
        tokio::task::yield_now().await;
    }
}

/// Whether there is nothing in the stores but what tells them from others.
async fn is_empty(to: &App) -> Result<bool, Error> {
    let (mut start, mut none) = (None, true);
    while none {
        let (page, next) = to.table.scan(start).await?;
        none = !page.iter().any(is_library);
        start = next;
        if start.is_none() {
            break;
        }
    }
    Ok(none && to.objects.is_empty().await?)
}

/// Whether a row belongs to the library, and not to the stores or to something that is under way.
fn is_library(row: &Scanned) -> bool {
    use RowKind::{Condemned, OfStores, Registrations, Session, Stream, WrongPasswords};
    match keys::kind(&row.key) {
        Session | Stream | Condemned | WrongPasswords | Registrations | OfStores => false,
        // Nobody has seen it yet. What can't be read is copied as it is.
        RowKind::Image => row.clone().read_part::<Committed>().map_or(true, |image| image.content.is_some()),
        _ => true,
    }
}

/// As much of an image as tells whether it has its bytes.
#[derive(serde::Deserialize)]
struct Committed {
    #[serde(default)]
    content: Option<serde::de::IgnoredAny>,
}
