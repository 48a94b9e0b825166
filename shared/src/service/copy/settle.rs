//! Making the rows of a copy agree with each other.
//!
//! A row that refers to another one that is not there was read at another moment than the place of the other one.
//!
//! 1. Look at all rows. What one of them refers to and is not there is read at the source now. If the source does not have
//!    it either, the row is read again, and goes if it is gone. So is one beside which there is what can't be there.
//! 2. Again, until nothing changes. The rows of a source that nobody changes agree already.
//! 3. Read again whatever decides who may do what, after all that it guards: nobody may see in a copy what they could see
//!    before it was hidden, nor what came there afterwards. If anything is missing then, back to 1.

use super::references::{self, References};
use super::{Report, Running, is_library, rows};
use crate::error::Error;
use crate::store::keys::{self, Key, RowKind};
use crate::store::table::Scanned;
use std::collections::BTreeSet;

/// The most times that all rows are looked at.
const ROUNDS: usize = 32;

/// How far references are followed from one row, before the others get their turn.
const HOPS: usize = 16;

/// Reads what is missing until nothing is, that the source has.
pub(super) async fn settle(copying: &Running<'_>, report: &mut Report) -> Result<(), Error> {
    let mut rights_are_last = false;
    for _ in 0..ROUNDS {
        copying.still_ours().await?;
        let changed = round(copying, report).await?;
        report.settled += changed;
        if changed == 0 && rights_are_last {
            return Ok(());
        }
        rights_are_last = changed == 0;
        if rights_are_last {
            rights(copying).await?;
        }
    }
    Err(Error::Conflict("the source changes faster than it can be copied: try again in a quieter moment".to_owned()))
}

/// Step 3.
async fn rights(copying: &Running<'_>) -> Result<(), Error> {
    use RowKind::{Collection, Container, Entity, Includes, Member, Membership, Robot, Token, User};
    let mut start = None;
    loop {
        let (page, next) = copying.to.table.scan(start).await?;
        let decides = |row: &Scanned| {
            let kind = keys::kind(&row.key);
            [Collection, Container, Entity, Includes, Member, Membership, Robot, Token, User].contains(&kind)
        };
        let page = page.into_iter().filter(decides).map(|row| row.key).collect();
        rows::again(copying, page).await?;
        start = next;
        if start.is_none() {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

/// Looks at all rows once. Returns how many changed.
async fn round(copying: &Running<'_>, report: &mut Report) -> Result<u64, Error> {
    let (mut start, mut changed) = (None, 0);
    loop {
        let (page, next) = copying.to.table.scan(start).await?;
        changed += self::page(copying, page, report).await?;
        start = next;
        if start.is_none() {
            return Ok(changed);
        }
        tokio::task::yield_now().await;
    }
}

/// A row with what it refers to.
struct Referring {
    key: Key,
    refers: References,
}

impl Referring {
    fn lacks(&self, there: &BTreeSet<Key>) -> bool {
        self.refers.needs.iter().any(|any| !any.iter().any(|key| there.contains(key)))
    }

    /// What is to be read at the source.
    fn missing(&self, there: &BTreeSet<Key>) -> impl Iterator<Item = &Key> {
        let needs = self.refers.needs.iter().filter(|any| !any.iter().any(|key| there.contains(key))).flatten();
        needs.chain(self.refers.wants.iter().filter(|key| !there.contains(*key)))
    }

    /// The rows that can't both be there.
    fn torn(&self, there: &BTreeSet<Key>) -> Option<[Key; 2]> {
        let other = self.refers.excludes.as_ref().filter(|other| there.contains(*other))?;
        Some([self.key.clone(), other.clone()])
    }
}

/// Looks at some rows, and at once at those that they bring in: the longer something that was read refers to something
/// that was not, the more likely that is gone. Returns how many changed.
async fn page(copying: &Running<'_>, page: Vec<Scanned>, report: &mut Report) -> Result<u64, Error> {
    let (mut rows, mut changed) = (page, 0);
    for _ in 0..HOPS {
        if rows.is_empty() {
            break;
        }
        let hop = hop(copying, rows, report).await?;
        changed += hop.gone + hop.new.len() as u64;
        rows = hop.new;
    }
    Ok(changed)
}

/// What looking at some rows brought.
struct Hop {
    /// Rows that were written.
    new: Vec<Scanned>,
    /// How many were deleted.
    gone: u64,
}

async fn hop(copying: &Running<'_>, page: Vec<Scanned>, report: &mut Report) -> Result<Hop, Error> {
    let mut all = Vec::new();
    for row in page.into_iter().filter(is_library) {
        let key = row.key.clone();
        match references::of(row) {
            Ok(refers) => all.push(Referring { key, refers }),
            Err(error) => {
                tracing::error!(?key, %error, cause = error.cause(), "a row of the library can't be read");
                report.unread.insert(format!("{} {}", key.pk, key.sk));
            }
        }
    }
    let mentioned: BTreeSet<Key> = all.iter().flat_map(|one| one.refers.keys().cloned()).collect();
    let mut there = copying.to.table.there(mentioned).await?;
    let missing: BTreeSet<Key> = all.iter().flat_map(|one| one.missing(&there).cloned()).collect();
    let mut found = copying.from.table.batch(missing.iter().cloned()).await?;
    let mut new: Vec<Scanned> = missing.iter().filter_map(|key| found.take_any(key)).filter(is_library).collect();
    there.extend(new.iter().map(|row| row.key.clone()));
    copying.to.table.replace(copying.grant, new.clone()).await?;

    let torn: BTreeSet<Key> = all.iter().filter_map(|one| one.torn(&there)).flatten().collect();
    let (go, ask): (Vec<_>, Vec<_>) = all.into_iter().filter(|one| one.lacks(&there)).partition(|one| one.refers.goes);
    let mut gone = go.len() as u64;
    copying.to.table.remove(copying.grant, go.into_iter().map(|one| one.key).collect()).await?;
    let again = rows::again(copying, ask.into_iter().map(|one| one.key).chain(torn).collect()).await?;
    gone += again.gone;
    new.extend(again.new);
    Ok(Hop { new, gone })
}
