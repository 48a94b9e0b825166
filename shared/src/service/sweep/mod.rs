//! Collecting what was left over: sessions that ended, images whose bytes never came, condemned objects, objects that
//! nothing names. Runs beside everything else; every step is conditional and can be done again.
//!
//! 1. List the store's open multipart uploads and, page by page, its objects. What is begun after this is not looked
//!    at.
//! 2. Scan the table. A session past its end is [ended](super::uploads::end): its reservation goes back, its object is
//!    condemned. An image without bytes whose push began long ago goes, unless a session is open. A condemned object
//!    that was condemned long enough ago is deleted, then its row. A blob on its way through us whose time is over
//!    gives back what it holds. Wrong passwords that count no more are forgotten, and so are events whose time is
//!    over. A link that no manifest names and that no push asked for lately [goes](super::links::free), unless
//!    something came to name it since.
//! 3. An open multipart upload that no session names is aborted, an object that no row names is condemned, if they are
//!    old enough.

mod sweeper;

use self::sweeper::Sweeper;
use super::access::{Access, system};
use super::links;
use crate::app::App;
use crate::auth::Credential;
use crate::domain::UploadId;
use crate::domain::time::SKEW;
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::store::StoreError;
use serde::Serialize;
use std::time::Duration;

/// From when on things are left over.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    /// A session is given up this long after its own end.
    pub session: Duration,
    /// An image without bytes goes this long after its push began.
    pub image: Duration,
    /// A condemned object is deleted after this long: no URL for it may be in use any more.
    pub condemned: Duration,
    /// What nothing names is collected after this long: its push may still be on the way.
    pub unnamed: Duration,
    /// A link that no manifest names goes after this long: its push may still be on the way.
    pub link: Duration,
    /// Whether sessions are given up whatever their own end is.
    pub all_sessions: bool,
}

/// How long beyond the longest life of a URL things are kept that a URL may lead to.
const MARGIN: Duration = Duration::from_hours(1);
// One host signs, another one condemns, a third one sweeps; and who begins to read at the last moment reads for a
// while.
const _: () = assert!(MARGIN.as_secs() >= 2 * SKEW.as_secs() + 30 * 60);

impl Ages {
    /// The ages that are safe while everything runs.
    pub fn safe(app: &App) -> Self {
        let longest = app.config.download_life.max(app.config.upload_life);
        Self {
            session: Duration::ZERO,
            image: app.config.upload_life + MARGIN,
            condemned: longest + MARGIN,
            // A stream may live for nearly two lives of an upload, and S3 dates what it becomes by its beginning.
            unnamed: 2 * longest + 24 * MARGIN,
            link: links::LEASE,
            all_sessions: false,
        }
    }

    /// Everything now. Only while nothing else runs.
    pub fn zero() -> Self {
        let zero = Duration::ZERO;
        Self { session: zero, image: zero, condemned: zero, unnamed: zero, link: zero, all_sessions: true }
    }
}

/// Whether a sweep collects, or only says what it would collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Collects.
    Collect,
    /// Changes nothing.
    DryRun,
}

/// What a sweep did, or would do, and how the accounts stand.
#[derive(Debug, Default, Serialize)]
pub struct Swept {
    /// Sessions given up.
    pub sessions: u64,
    /// Uploads that wait to be verified. They are not swept before their own end.
    pub sealed: Vec<UploadId>,
    /// Images without bytes removed.
    pub images: u64,
    /// Links removed that no manifest named.
    pub links: u64,
    /// Objects deleted.
    pub objects: u64,
    /// Objects condemned that nothing named.
    pub condemned: u64,
    /// Multipart uploads aborted that nothing named.
    pub uploads: u64,
    /// Accounts whose numbers are not the sum of what they are charged for, with both. Always empty, or we have made a
    /// mistake.
    pub wrong_accounts: Vec<WrongAccount>,
    /// What could not be collected, or not be read. The log says why, and the next sweep tries again.
    pub failed: u64,
    /// What a dry run found, in words; the first [`MOST_FOUND`] of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
}

/// An account whose numbers are not the sum of what it is charged for.
#[derive(Debug, Serialize)]
pub struct WrongAccount {
    /// The entity.
    pub entity: String,
    /// Used and reserved bytes by the account's row.
    pub account: (u64, u64),
    /// Used and reserved bytes by the charges, the manifests and the streams.
    pub charges: (u64, u64),
}

/// How many leftovers a dry run names.
pub const MOST_FOUND: usize = 1000;

/// Sweeps once, for a site admin.
pub async fn sweep_as(app: &App, credential: &Credential, ages: Ages, mode: Mode) -> Result<Swept, Error> {
    let access = Access::load(app, credential, None, []).await?;
    let grant = access.decide(Action::Sweep, &Resource::Registry);
    sweep_with(app, &grant.map_err(|denial| Error::denied(denial, "it", "sweep"))?, ages, mode).await
}

/// Sweeps once.
pub async fn sweep(app: &App, ages: Ages) -> Result<Swept, Error> {
    sweep_with(app, &system(Action::Sweep, &Resource::Registry)?, ages, Mode::Collect).await
}

async fn sweep_with(app: &App, grant: &Grant, ages: Ages, mode: Mode) -> Result<Swept, Error> {
    let mut sweeper = Sweeper::new(app, grant, ages, mode);
    let uploads = app.objects.open_parts().await?;
    let objects = all_objects(app).await?;
    let (mut start, mut unread) = (None, false);
    loop {
        let (rows, next) = app.table.scan(start).await?;
        for row in rows {
            let key = row.key.clone();
            let done = sweeper.row(row).await;
            unread |= matches!(done, Err(Error::Unavailable(StoreError::Row(_))));
            sweeper.tried(&key, done);
        }
        start = next;
        if start.is_none() {
            break;
        }
    }
    sweeper.streams().await;
    sweeper.links().await;
    sweeper.forgettable().await;
    // What can't be read may name something.
    if !unread {
        sweeper.unnamed(uploads, objects).await;
    }
    Ok(sweeper.accounts())
}

async fn all_objects(app: &App) -> Result<Vec<(String, i64)>, Error> {
    let mut all: Vec<(String, i64)> = Vec::new();
    loop {
        let page = app.objects.list(all.last().map(|(name, _)| name.clone())).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}
