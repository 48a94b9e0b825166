//! Collecting what was left over: sessions that ended, images whose bytes never came, condemned objects, objects that
//! nothing names. Runs beside everything else; every step is conditional and can be done again.
//!
//! 1. List the store's open multipart uploads and, page by page, its objects. What is begun after this is not looked at.
//! 2. Scan the table. A session past its end is [ended](super::upload::end): its reservation goes back, its object is
//!    condemned. An image without bytes whose push began long ago goes, unless a session is open.
//!    A condemned object that was condemned long enough ago is deleted, then its row. A blob on its way through us whose
//!    time is over gives back what it holds.
//!    Wrong passwords that count no more are forgotten.
//!    A link that no manifest names and that no push asked for lately [goes](super::registry::blob::free), unless
//!    something came to name it since.
//! 3. An open multipart upload that no session names is aborted, an object that no row names is condemned, if they are
//!    old enough.

use super::access::system;
use super::commit::condemn;
use super::passwords;
use super::registry::blob;
use super::upload;
use crate::app::App;
use crate::domain::time::SKEW;
use crate::domain::{OciDigest, Repository, Time, UploadId};
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::store::keys::{self, Kind};
use crate::store::objects::OpenParts;
use crate::store::rows::{
    Blob, Charge, Condemned, Flow, Image, Link, Manifest, Row, Session, State, Stream, Way, WrongPasswords,
};
use crate::store::table::{Condition, Scanned, Write, Written};
use crate::store::{StoreError, rows::Account};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
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
// One host signs, another one condemns, a third one sweeps; and who begins to read at the last moment reads for a while.
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
            link: blob::LEASE,
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
pub async fn sweep_as(app: &App, credential: &crate::auth::Credential, ages: Ages, mode: Mode) -> Result<Swept, Error> {
    let scene = super::access::Scene::load(app, credential, None, []).await?;
    let grant = scene.decide(Action::Sweep, &Resource::Registry);
    sweep_with(app, &grant.map_err(|denial| Error::denied(denial, "it", "sweep"))?, ages, mode).await
}

/// Sweeps once.
pub async fn sweep(app: &App, ages: Ages) -> Result<Swept, Error> {
    sweep_with(app, &system(Action::Sweep, &Resource::Registry)?, ages, Mode::Collect).await
}

async fn sweep_with(app: &App, grant: &Grant, ages: Ages, mode: Mode) -> Result<Swept, Error> {
    let now = app.now();
    let uploads = app.objects.open_parts().await?;
    let objects = all_objects(app).await?;
    let mut sweeper = Sweeper { app, grant, ages, now, mode, seen: Seen::default(), swept: Swept::default() };
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
    sweeper.wrong_passwords().await;
    // What can't be read may name something.
    if !unread {
        sweeper.unnamed(uploads, objects).await;
    }
    Ok(sweeper.accounts())
}

/// What a sweep has seen in the table.
#[derive(Default)]
struct Seen {
    objects: BTreeSet<String>,
    uploads: BTreeSet<String>,
    accounts: BTreeMap<String, (u64, u64)>,
    charges: BTreeMap<String, (u64, u64)>,
    /// Blobs on their way through us whose time is over.
    streams: Vec<Stream>,
    /// Links that are old enough to go, by repository.
    links: BTreeMap<Repository, BTreeSet<OciDigest>>,
    /// Wrong passwords that count no more.
    wrong: Vec<WrongPasswords>,
    /// What manifests name.
    named: BTreeMap<Repository, BTreeSet<OciDigest>>,
}

struct Sweeper<'a> {
    app: &'a App,
    grant: &'a Grant,
    ages: Ages,
    now: Time,
    mode: Mode,
    seen: Seen,
    swept: Swept,
}

impl Sweeper<'_> {
    /// Whether something that was left over is to go. A dry run notes it instead.
    fn goes(&mut self, what: impl FnOnce() -> String) -> bool {
        if self.mode == Mode::DryRun && self.swept.found.len() < MOST_FOUND {
            self.swept.found.push(what());
        }
        self.mode == Mode::Collect
    }

    /// Whether something was done. What fails must not keep all else from being swept; the next sweep tries it again.
    fn tried(&mut self, what: &impl Debug, done: Result<(), Error>) -> bool {
        let Err(error) = done else { return true };
        tracing::error!(?what, %error, inside = error.inside(), "sweep");
        self.swept.failed += 1;
        false
    }

    async fn row(&mut self, row: Scanned) -> Result<(), Error> {
        match keys::kind(&row.key) {
            Kind::Session => self.session(row.read()?).await?,
            Kind::Image => self.image(row.read()?).await?,
            Kind::Condemned => self.condemned(row.read()?).await?,
            Kind::Blob => {
                self.seen.objects.insert(row.read::<Blob>()?.object);
            }
            Kind::Stream => self.stream(row.read()?),
            Kind::Link => {
                let link: Link = row.read()?;
                if link.seen.plus(self.ages.link) <= self.now {
                    self.seen.links.entry(link.repository).or_default().insert(link.name);
                }
            }
            Kind::Manifest => {
                let manifest: Manifest = row.read()?;
                let sum = self.seen.charges.entry(manifest.repository.entity().to_string()).or_default();
                sum.0 += manifest.cost;
                self.seen.objects.extend(manifest.object);
                self.seen.named.entry(manifest.repository).or_default().extend(manifest.names);
            }
            Kind::Charge => {
                let charge: Charge = row.read()?;
                let sum = self.seen.charges.entry(charge.entity.to_string()).or_default();
                *(if charge.links == 0 { &mut sum.1 } else { &mut sum.0 }) += charge.size;
            }
            Kind::Account => {
                let Account { entity, quota } = row.read()?;
                self.seen.accounts.insert(entity.to_string(), (quota.used(), quota.reserved));
            }
            Kind::WrongPasswords => {
                let wrong: WrongPasswords = row.read()?;
                if wrong.since.plus(passwords::WINDOW) <= self.now {
                    self.seen.wrong.push(wrong);
                }
            }
            Kind::Other => {}
        }
        Ok(())
    }

    /// Forgets wrong passwords that count no more. Many at a time: whoever guesses at names leaves many.
    async fn wrong_passwords(&mut self) {
        let mut wrong = std::mem::take(&mut self.seen.wrong);
        if self.mode == Mode::DryRun {
            wrong.clear();
        }
        for some in wrong.chunks(100) {
            let gone = some.iter().map(|row| Write::delete(row.key(), Condition::Version(row.version)));
            // If one of them counts again, the next sweep takes the others.
            let done = self.app.table.write(self.grant, gone.collect()).await;
            self.tried(&"wrong passwords", done.map(drop).map_err(Error::from));
        }
    }

    /// Notes what a blob on its way through us holds. It goes after the scan, so that the accounts, which may be read
    /// before or after it, still count it.
    fn stream(&mut self, row: Stream) {
        self.seen.objects.extend([row.object.clone(), row.tail.clone()]);
        self.seen.uploads.insert(row.upload.clone());
        self.seen.charges.entry(row.repository.entity().to_string()).or_default().1 += row.reserved;
        if self.ages.all_sessions || row.expires.plus(self.ages.session) <= self.now {
            self.seen.streams.push(row);
        }
    }

    async fn session(&mut self, row: Session) -> Result<(), Error> {
        self.seen.objects.insert(row.object.clone());
        if let Way::Parts(upload) = &row.way {
            self.seen.uploads.insert(upload.clone());
        }
        let sealed = row.state != State::Open;
        let over = row.expires.plus(self.ages.session) <= self.now;
        if sealed && !over {
            self.swept.sealed.push(row.id);
        } else if self.ages.all_sessions || over {
            if self.goes(|| format!("upload of {} to {}", row.hash, row.repository)) {
                upload::end(self.app, self.grant, &row).await?;
            }
            self.swept.sessions += 1;
        }
        Ok(())
    }

    async fn image(&mut self, row: Image) -> Result<(), Error> {
        if row.content.is_some() || row.sealed.is_some() || row.created.plus(self.ages.image) > self.now {
            return Ok(());
        }
        // An open session would bring bytes for an image that is gone; the charge counts them all.
        let charge_key = keys::charge(row.repository.entity(), &row.hash);
        let charge: Option<Charge> = self.app.table.get(charge_key.clone()).await?;
        if charge.as_ref().is_some_and(|charge| charge.sessions > 0) {
            return Ok(());
        }
        if self.goes(|| format!("image without bytes {} in {}", row.hash, row.repository)) {
            let unchanged = charge.map_or(Condition::Absent, |charge| Condition::Version(charge.version));
            let writes = vec![
                Write::delete(row.key(), Condition::Version(row.version)),
                Write::delete(keys::pointer(row.id), Condition::None),
                Write::check(charge_key, unchanged),
            ];
            if self.app.table.write(self.grant, writes).await? != Written::Done {
                return Ok(());
            }
        }
        self.swept.images += 1;
        Ok(())
    }

    async fn condemned(&mut self, row: Condemned) -> Result<(), Error> {
        self.seen.objects.insert(row.object.clone());
        self.seen.uploads.extend(row.upload.clone());
        if row.since.plus(self.ages.condemned) > self.now {
            return Ok(());
        }
        if self.goes(|| format!("object {}, not used any more", row.object)) {
            if let Some(upload) = &row.upload {
                self.app.objects.abort_parts(self.grant, &row.object, upload).await?;
            }
            self.app.objects.delete(self.grant, &row.object).await?;
            let _ = self.app.table.write(self.grant, vec![Write::delete(row.key(), Condition::None)]).await?;
        }
        self.swept.objects += 1;
        Ok(())
    }

    async fn streams(&mut self) {
        for row in std::mem::take(&mut self.seen.streams) {
            // One that ended before holds nothing, and is only forgotten.
            let open = row.flow == Flow::Open;
            if !open && self.mode == Mode::DryRun {
                continue;
            }
            if self.goes(|| format!("upload of {} bytes to {}", row.taken, row.repository)) {
                let done = blob::forget(self.app, self.grant, &row).await.map_err(Error::from);
                if !self.tried(&row.id, done) {
                    continue;
                }
            }
            self.swept.sessions += u64::from(open);
        }
    }

    async fn links(&mut self) {
        for (repository, links) in std::mem::take(&mut self.seen.links) {
            let named = self.seen.named.get(&repository);
            let unnamed = links.into_iter().filter(|link| named.is_none_or(|named| !named.contains(link)));
            let mut going: Vec<OciDigest> = unnamed.collect();
            let found = going.len() as u64;
            going.retain(|link| self.goes(|| format!("blob {link} in {repository}, which no manifest names")));
            if self.mode == Mode::DryRun {
                self.swept.links += found;
            } else if !going.is_empty() {
                let before = self.now.minus(self.ages.link);
                let freed = blob::free(self.app, self.grant, &repository, &going, before).await.map_err(Error::from);
                let freed = freed.map(|freed| self.swept.links += freed as u64);
                self.tried(&repository, freed);
            }
        }
    }

    /// What is in the store and what no row names.
    async fn unnamed(&mut self, uploads: Vec<OpenParts>, objects: Vec<(String, i64)>) {
        let (latest, any) = (self.now.minus(self.ages.unnamed).0, self.ages.unnamed.is_zero());
        let old = |since: i64| since <= latest || any;
        for open in uploads {
            if old(open.since) && !self.seen.uploads.contains(&open.upload) {
                if self.goes(|| format!("multipart upload of object {}, which nothing names", open.object)) {
                    let done = self.app.objects.abort_parts(self.grant, &open.object, &open.upload).await;
                    if !self.tried(&open.object, done.map_err(Error::from)) {
                        continue;
                    }
                }
                self.swept.uploads += 1;
            }
        }
        for (object, since) in objects {
            if old(since) && !self.seen.objects.contains(&object) {
                if self.goes(|| format!("object {object}, which nothing names")) {
                    let done = self.condemns(&object).await;
                    if !self.tried(&object, done) {
                        continue;
                    }
                }
                self.swept.condemned += 1;
            }
        }
    }

    async fn condemns(&self, object: &str) -> Result<(), Error> {
        Ok(self.app.table.write(self.grant, vec![condemn(self.app, object, None)?]).await.map(drop)?)
    }

    fn accounts(self) -> Swept {
        let Self { seen, mut swept, .. } = self;
        for (entity, account) in seen.accounts {
            let charges = seen.charges.get(&entity).copied().unwrap_or_default();
            // While pushes run, the two are read at different moments.
            if account != charges {
                swept.wrong_accounts.push(WrongAccount { entity, account, charges });
            }
        }
        swept
    }
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

/// The uploads that wait to be verified.
pub async fn sealed(app: &App) -> Result<Vec<UploadId>, Error> {
    let mut sealed = Vec::new();
    let mut start = None;
    loop {
        let (rows, next) = app.table.scan(start).await?;
        for row in rows.into_iter().filter(|row| keys::kind(&row.key) == Kind::Session) {
            let session: Session = row.read()?;
            if session.state != State::Open {
                sealed.push(session.id);
            }
        }
        start = next;
        if start.is_none() {
            return Ok(sealed);
        }
    }
}
