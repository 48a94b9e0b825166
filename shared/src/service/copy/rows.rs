//! Rows from one table to the other, as they are.

use super::{Report, Running, is_library};
use crate::error::Error;
use crate::store::keys::Key;
use crate::store::table::Scanned;

/// Writes all rows of the source. Those that the target has already are not written again.
pub(super) async fn all(copying: &Running<'_>, fresh: bool, report: &mut Report) -> Result<(), Error> {
    let mut start = None;
    loop {
        let (page, next) = copying.from.table.scan(start).await?;
        let page: Vec<Scanned> = page.into_iter().filter(is_library).collect();
        report.done.rows += page.len() as u64;
        let new = if fresh { page } else { changed(copying, page).await? };
        copying.to.table.replace(copying.grant, new).await?;
        (copying.tell)(report.done);
        start = next;
        if start.is_none() {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

/// Those of some rows of the source that the target has not, or otherwise.
async fn changed(copying: &Running<'_>, rows: Vec<Scanned>) -> Result<Vec<Scanned>, Error> {
    let mut there = copying.to.table.batch(rows.iter().map(|row| row.key.clone())).await?;
    let differs = |row: &Scanned| there.take_any(&row.key).is_none_or(|before| !before.is_same(row));
    let mut rows = rows;
    rows.retain(differs);
    Ok(rows)
}

/// Compares all rows of the target with the source, and deletes those that are gone there.
pub(super) async fn compared(copying: &Running<'_>, report: &mut Report) -> Result<(), Error> {
    let mut start = None;
    copying.still_ours().await?;
    loop {
        let (page, next) = copying.to.table.scan(start).await?;
        // What the target has of its own, it keeps.
        let page: Vec<Key> = page.into_iter().filter(is_library).map(|row| row.key).collect();
        report.settled += again(copying, page).await?.changed();
        start = next;
        if start.is_none() {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

/// What reading rows again brought.
pub(super) struct Again {
    /// Rows that are others now.
    pub(super) new: Vec<Scanned>,
    /// How many are gone.
    pub(super) gone: u64,
}

impl Again {
    /// How many changed.
    pub(super) fn changed(&self) -> u64 {
        self.new.len() as u64 + self.gone
    }
}

/// Reads rows at the source again, and writes or deletes them in the target as they are now.
pub(super) async fn again(copying: &Running<'_>, keys: Vec<Key>) -> Result<Again, Error> {
    let (mut now, mut before) =
        (copying.from.table.batch(keys.iter().cloned()).await?, copying.to.table.batch(keys.iter().cloned()).await?);
    let (mut new, mut gone) = (Vec::new(), Vec::new());
    for key in keys {
        match (now.take_any(&key).filter(is_library), before.take_any(&key)) {
            (Some(row), before) if before.as_ref().is_none_or(|before| !before.is_same(&row)) => new.push(row),
            (None, Some(_)) => gone.push(key),
            _ => {}
        }
    }
    let count = gone.len() as u64;
    copying.to.table.replace(copying.grant, new.clone()).await?;
    copying.to.table.remove(copying.grant, gone).await?;
    Ok(Again { new, gone: count })
}
