//! Collecting what was left over: sessions that ended, images whose bytes never came, condemned objects, objects that
//! nothing names. Runs beside everything else; every step is conditional and can be done again.
//!
//! 1. List the store's open multipart uploads and, page by page, its objects. What is begun after this is not looked at.
//! 2. Scan the table. A session past its end is [ended](super::upload::end): its reservation goes back, its object is
//!    condemned. An image without bytes whose push began long ago goes, unless a session is open.
//!    A condemned object that was condemned long enough ago is deleted, then its row. A blob on its way through us whose
//!    time is over gives back what it holds.
//!    A link that no manifest names and that no push asked for lately [goes](super::registry::blob::free), unless
//!    something came to name it since.
//! 3. An open multipart upload that no session names is aborted, an object that no row names is condemned, if they are
//!    old enough.

use super::access::system;
use super::commit::condemn;
use super::registry::blob;
use super::upload;
use crate::app::App;
use crate::domain::{OciDigest, Repository, Time, UploadId};
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::store::keys::{self, Kind};
use crate::store::rows::{Blob, Charge, Condemned, Flow, Image, Link, Manifest, Row, Session, State, Stream, Way};
use crate::store::table::{Condition, Scanned, Write};
use crate::store::{StoreError, rows::Account};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
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

impl Ages {
    /// The ages that are safe while everything runs.
    pub fn safe(app: &App) -> Self {
        let hour = Duration::from_hours(1);
        let longest = app.config.download_life.max(app.config.upload_life);
        Self {
            session: Duration::ZERO,
            image: app.config.upload_life + hour,
            condemned: longest + hour,
            unnamed: longest + 24 * hour,
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

/// What a sweep did, and how the accounts stand.
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
    /// Accounts whose numbers are not the sum of their charges, with both. Always empty, or we have made a mistake.
    pub wrong_accounts: Vec<WrongAccount>,
}

/// An account whose numbers are not the sum of its charges.
#[derive(Debug, Serialize)]
pub struct WrongAccount {
    /// The entity.
    pub entity: String,
    /// Used and reserved bytes by the account's row.
    pub account: (u64, u64),
    /// Used and reserved bytes by the charges.
    pub charges: (u64, u64),
}

/// Sweeps once, for a site admin.
pub async fn sweep_as(app: &App, credential: &crate::auth::Credential, ages: Ages) -> Result<Swept, Error> {
    let scene = super::access::Scene::load(app, credential, None, []).await?;
    let grant = scene.decide(Action::Sweep, &Resource::Registry);
    sweep_with(app, &grant.map_err(|denial| Error::denied(denial, "it", "sweep"))?, ages).await
}

/// Sweeps once.
pub async fn sweep(app: &App, ages: Ages) -> Result<Swept, Error> {
    sweep_with(app, &system(Action::Sweep, &Resource::Registry)?, ages).await
}

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
    /// What manifests name.
    named: BTreeMap<Repository, BTreeSet<OciDigest>>,
}

async fn sweep_with(app: &App, grant: &Grant, ages: Ages) -> Result<Swept, Error> {
    let now = app.now();
    let uploads = app.objects.open_parts().await?;
    let objects = all_objects(app).await?;
    let mut swept = Swept::default();
    let mut seen = Seen::default();
    let mut start = None;
    loop {
        let (rows, next) = app.table.scan(start).await?;
        for row in rows {
            let key = row.key.clone();
            let read = read_one(app, grant, row, ages, now, &mut seen, &mut swept).await;
            match read {
                // One row that can't be read must not keep all others from being swept.
                Err(Error::Unavailable(StoreError::Row(error))) => tracing::error!(?key, %error, "a row can't be read"),
                read => read?,
            }
        }
        start = next;
        if start.is_none() {
            break;
        }
    }
    for row in &seen.streams {
        blob::forget(app, grant, row).await?;
        swept.sessions += u64::from(row.flow == Flow::Open);
    }
    for (repository, links) in &seen.links {
        let named = seen.named.get(repository);
        let unnamed: Vec<OciDigest> =
            links.iter().filter(|link| named.is_none_or(|named| !named.contains(link))).copied().collect();
        if !unnamed.is_empty() {
            swept.links += blob::free(app, grant, repository, &unnamed, now.minus(ages.link)).await? as u64;
        }
    }
    for open in uploads {
        let old = open.since <= now.minus(ages.unnamed).0 || ages.unnamed.is_zero();
        if old && !seen.uploads.contains(&open.upload) {
            app.objects.abort_parts(grant, &open.object, &open.upload).await?;
            swept.uploads += 1;
        }
    }
    for (object, since) in objects {
        let old = since <= now.minus(ages.unnamed).0 || ages.unnamed.is_zero();
        if old && !seen.objects.contains(&object) {
            app.table.write(grant, vec![condemn(app, &object, None)?]).await?;
            swept.condemned += 1;
        }
    }
    for (entity, account) in seen.accounts {
        let charges = seen.charges.get(&entity).copied().unwrap_or_default();
        // While pushes run, the two are read at different moments.
        if account != charges {
            swept.wrong_accounts.push(WrongAccount { entity, account, charges });
        }
    }
    Ok(swept)
}

async fn read_one(
    app: &App,
    grant: &Grant,
    row: Scanned,
    ages: Ages,
    now: Time,
    seen: &mut Seen,
    swept: &mut Swept,
) -> Result<(), Error> {
    match keys::kind(&row.key) {
        Kind::Session => session(app, grant, row.read()?, ages, now, seen, swept).await?,
        Kind::Image => image(app, grant, row.read()?, ages, now, swept).await?,
        Kind::Condemned => condemned(app, grant, row.read()?, ages, now, seen, swept).await?,
        Kind::Blob => {
            seen.objects.insert(row.read::<Blob>()?.object);
        }
        Kind::Stream => stream(row.read()?, ages, now, seen),
        Kind::Link => {
            let link: Link = row.read()?;
            if link.seen.plus(ages.link) <= now {
                seen.links.entry(link.repository).or_default().insert(link.name);
            }
        }
        Kind::Manifest => {
            let manifest: Manifest = row.read()?;
            seen.objects.extend(manifest.object);
            seen.named.entry(manifest.repository).or_default().extend(manifest.names);
        }
        Kind::Charge => {
            let charge: Charge = row.read()?;
            let sum = seen.charges.entry(charge.entity.to_string()).or_default();
            *(if charge.links == 0 { &mut sum.1 } else { &mut sum.0 }) += charge.size;
        }
        Kind::Account => {
            let Account { entity, quota } = row.read()?;
            seen.accounts.insert(entity.to_string(), (quota.used(), quota.reserved));
        }
        Kind::Other => {}
    }
    Ok(())
}

/// Notes what a blob on its way through us holds. It goes after the scan, so that the accounts, which may be read before
/// or after it, still count it.
fn stream(row: Stream, ages: Ages, now: Time, seen: &mut Seen) {
    seen.objects.extend([row.object.clone(), row.tail.clone()]);
    seen.uploads.insert(row.upload.clone());
    seen.charges.entry(row.repository.entity().to_string()).or_default().1 += row.reserved;
    if ages.all_sessions || row.expires.plus(ages.session) <= now {
        seen.streams.push(row);
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

async fn session(
    app: &App,
    grant: &Grant,
    row: Session,
    ages: Ages,
    now: Time,
    seen: &mut Seen,
    swept: &mut Swept,
) -> Result<(), Error> {
    seen.objects.insert(row.object.clone());
    if let Way::Parts(upload) = &row.way {
        seen.uploads.insert(upload.clone());
    }
    let sealed = row.state != State::Open;
    if sealed && row.expires.plus(ages.session) > now {
        swept.sealed.push(row.id);
    } else if ages.all_sessions || row.expires.plus(ages.session) <= now {
        upload::end(app, grant, &row).await?;
        swept.sessions += 1;
    }
    Ok(())
}

async fn image(app: &App, grant: &Grant, row: Image, ages: Ages, now: Time, swept: &mut Swept) -> Result<(), Error> {
    if row.content.is_some() || row.sealed.is_some() || row.created.plus(ages.image) > now {
        return Ok(());
    }
    // An open session would bring bytes for an image that is gone; the charge counts them all.
    let charge_key = keys::charge(row.repository.entity(), &row.hash);
    let charge: Option<Charge> = app.table.get(charge_key.clone()).await?;
    if charge.as_ref().is_some_and(|charge| charge.sessions > 0) {
        return Ok(());
    }
    let unchanged = charge.map_or(Condition::Absent, |charge| Condition::Version(charge.version));
    let writes = vec![
        Write::delete(row.key(), Condition::Version(row.version)),
        Write::delete(keys::pointer(row.id), Condition::None),
        Write::check(charge_key, unchanged),
    ];
    match app.table.write(grant, writes).await {
        Ok(()) => swept.images += 1,
        Err(StoreError::Conflict(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn condemned(
    app: &App,
    grant: &Grant,
    row: Condemned,
    ages: Ages,
    now: Time,
    seen: &mut Seen,
    swept: &mut Swept,
) -> Result<(), Error> {
    seen.objects.insert(row.object.clone());
    if let Some(upload) = &row.upload {
        seen.uploads.insert(upload.clone());
    }
    if row.since.plus(ages.condemned) > now {
        return Ok(());
    }
    if let Some(upload) = &row.upload {
        app.objects.abort_parts(grant, &row.object, upload).await?;
    }
    app.objects.delete(grant, &row.object).await?;
    app.table.write(grant, vec![Write::delete(row.key(), Condition::None)]).await?;
    swept.objects += 1;
    Ok(())
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
