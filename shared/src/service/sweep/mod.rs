//! Sweeping leftovers: expired sessions, images whose bytes never came, condemned objects, objects that nothing names.
//! It runs while everything else goes on; every step is conditional and can be repeated.
//!
//! 1. List the store's open multipart uploads. Any that starts after this is not considered.
//! 2. Scan the table, and add up what counts for each account.
//! 3. After the scan, so that the sums are those of the rows that were read: an image without bytes whose push started
//!    long ago is deleted, unless a session is open. An expired session is
//!    [ended](super::uploads::end): its reservation is given back, its object condemned. An object that was condemned
//!    long enough ago is deleted, then its row. An expired stream releases what it holds. A link that no manifest names
//!    and that no push asked for lately is [removed](super::links::free), unless something came to name it since.
//!    Expired counts of wrong passwords, expired events, and shares and invitations that ended long enough ago are forgotten, and so are
//!    the oldest events of an entity that has more of them than it may have rows.
//! 4. Abort an open multipart upload that no session names. List the store's objects, page by page, and condemn one that
//!    no row names. Both only if they are old enough: what names something that old was there before the scan, and still
//!    is, unless a step of 3 removed it.
//!
//! What is kept in memory is a number for each object that a row names, the sums of each entity, the links and manifests
//! of one repository, and the leftovers.

pub mod accounts;
mod inventory;
mod sweeper;
pub(in crate::service) mod tally;

use self::sweeper::Sweeper;
use super::access::{Access, system};
use super::{installation, links, share};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::UploadId;
use crate::domain::quota::Numbers;
use crate::domain::time::SKEW;
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::store::StoreError;
use crate::store::table::Scanned;
use crate::telemetry::{self, Count};
use serde::Serialize;
use std::time::Duration;

/// How old things must be to count as leftovers.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    /// A session is ended this long after its expiry.
    pub session: Duration,
    /// An image without bytes is deleted this long after its push started.
    pub image: Duration,
    /// A condemned object is deleted after this long: no URL for it may be in use any more.
    pub condemned: Duration,
    /// Something that nothing names is collected after this long: its push may still be running.
    pub unnamed: Duration,
    /// A link that no manifest names is removed after this long: its push may still be running.
    pub link: Duration,
    /// A share or an invitation is forgotten this long after its end: until then, it is said to be over.
    pub ended: Duration,
    /// Whether sessions are ended regardless of their expiry.
    pub all_sessions: bool,
}

/// How much longer than the longest lifetime of a URL things are kept that a URL may point to.
const MARGIN: Duration = Duration::from_hours(1);
// One host signs, another one condemns, a third one sweeps, and a read that starts at the last moment takes a while.
const _: () = assert!(MARGIN.as_secs() >= 2 * SKEW.as_secs() + 30 * 60);

impl Ages {
    /// The ages that are safe while everything runs.
    pub fn safe(app: &App) -> Self {
        let longest = app.config.download_life.max(app.config.upload_life);
        Self {
            session: Duration::ZERO,
            image: app.config.upload_life + MARGIN,
            condemned: longest + MARGIN,
            // A stream may live for nearly two upload lifetimes, and S3 dates the resulting object by the start of the
            // upload.
            unnamed: 2 * longest + 24 * MARGIN,
            link: links::LEASE,
            ended: share::KEPT,
            all_sessions: false,
        }
    }

    /// Everything at once. Only while nothing else runs.
    pub fn zero() -> Self {
        let zero = Duration::ZERO;
        Self { session: zero, image: zero, condemned: zero, unnamed: zero, link: zero, ended: zero, all_sessions: true }
    }
}

/// Whether a sweep collects, or only reports what it would collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Collects.
    Collect,
    /// Changes nothing.
    DryRun,
}

/// The results of a sweep, or of a dry run, and a check of the accounts.
#[derive(Debug, Default, Serialize)]
pub struct Swept {
    /// Sessions given up.
    pub sessions: u64,
    /// Uploads that wait for verification. They are not swept before their expiry.
    pub sealed: Vec<UploadId>,
    /// Images without bytes removed.
    pub images: u64,
    /// Removed links that no manifest named.
    pub links: u64,
    /// Containers and entities that were deleted, and of which something was left.
    pub removed: u64,
    /// Objects deleted.
    pub objects: u64,
    /// Condemned objects that nothing named.
    pub condemned: u64,
    /// Aborted multipart uploads that nothing named.
    pub uploads: u64,
    /// Accounts whose numbers differ from the sum of their charges, with both values. If it is not empty, there is a
    /// bug.
    pub wrong_accounts: Vec<WrongAccount>,
    /// Things that could not be collected or read. The log says why, and the next sweep tries again.
    pub failed: u64,
    /// The first [`MAX_FOUND`] findings of a dry run, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
}

impl Swept {
    fn count(&self) {
        telemetry::count(Count::Sweeps, 1);
        telemetry::count(Count::SweptObjects, self.objects);
        telemetry::count(Count::SweptSessions, self.sessions);
        telemetry::count(Count::SweepErrors, self.failed);
        telemetry::count(Count::WrongAccounts, self.wrong_accounts.len() as u64);
    }
}

/// An account whose numbers differ from the sum of its charges.
#[derive(Debug, Serialize)]
pub struct WrongAccount {
    /// The entity.
    pub entity: String,
    /// What the account's row says.
    pub account: Numbers,
    /// The same according to all rows that count.
    pub charges: Numbers,
}

/// How many leftovers a dry run lists.
pub const MAX_FOUND: usize = 1000;

/// Sweeps once, for a site admin.
pub async fn sweep_as(app: &App, credential: &Credential, ages: Ages, mode: Mode) -> Result<Swept, Error> {
    let access = Access::load(app, credential, None, []).await?;
    sweep_with(app, &access.require(Action::Sweep, &Resource::Installation, "installation", "sweep")?, ages, mode).await
}

/// Sweeps once.
pub async fn sweep(app: &App, ages: Ages) -> Result<Swept, Error> {
    sweep_with(app, &system(Action::Sweep, &Resource::Installation)?, ages, Mode::Collect).await
}

async fn sweep_with(app: &App, grant: &Grant, ages: Ages, mode: Mode) -> Result<Swept, Error> {
    let swept = sweep_all(app, grant, ages, mode).await;
    if mode == Mode::Collect {
        match &swept {
            Ok(swept) => swept.count(),
            Err(_) => telemetry::count(Count::SweepsFailed, 1),
        }
    }
    swept
}

async fn sweep_all(app: &App, grant: &Grant, ages: Ages, mode: Mode) -> Result<Swept, Error> {
    Box::pin(installation::check(app)).await?;
    let mut sweeper = Sweeper::new(app, grant, ages, mode);
    let uploads = app.objects.open_parts().await?;
    let unread = all_rows(app, |row| sweeper.row(row)).await?;
    sweeper.unread(unread);
    sweeper.images().await;
    sweeper.sessions().await;
    sweeper.deletable().await;
    sweeper.streams().await;
    sweeper.removed().await;
    sweeper.links().await;
    sweeper.forgettable().await;
    sweeper.logs().await;
    // Something that can't be read may name other things.
    if unread == 0 {
        sweeper.unnamed_uploads(uploads).await;
        sweeper.unnamed_objects().await?;
    }
    Ok(sweeper.accounts())
}

/// Passes on all rows of the table, page by page. Returns how many could not be read; the log says which.
async fn all_rows(app: &App, mut take: impl FnMut(Scanned) -> Result<(), Error>) -> Result<u64, Error> {
    let (mut start, mut unread) = (None, 0);
    loop {
        let (rows, next) = app.table.scan(start).await?;
        for row in rows {
            let key = row.key.clone();
            if let Err(error) = take(row) {
                tracing::error!(?key, %error, cause = error.cause(), "a row of the table can't be read");
                unread += 1;
            }
        }
        start = next;
        if start.is_none() {
            return Ok(unread);
        }
        // An embedded table answers at once: others get their turn between two pages.
        tokio::task::yield_now().await;
    }
}

/// Whether a row was read that this version does not understand.
fn is_unreadable(error: &StoreError) -> bool {
    matches!(error, StoreError::Row(_))
}
