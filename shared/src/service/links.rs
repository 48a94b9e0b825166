//! The names between things in a repository, and the removal of links to blobs that nothing names any more.

use super::retry::{Retry, Try};
use crate::app::App;
use crate::changes::blobs::{self, Unlinking, unlinking_keys};
use crate::changes::{Changes, manifests};
use crate::domain::time::SKEW;
use crate::domain::{OciDigest, Repository, Time};
use crate::error::Error;
use crate::rules::{Grant, Place};
use crate::store::keys;
use crate::store::rows::{Account, Container, EventKind, Link, ManifestLinks};
use crate::store::table::Written;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a link without a manifest stays after a push last asked for it: time enough for the rest of that push.
pub(crate) const LEASE: Duration = Duration::from_hours(24);
/// The age at which the time of the last request is recorded again.
pub(crate) const NOTED: Duration = Duration::from_hours(1);
// A push that was told that a blob exists has half a day to finish, whichever hosts recorded the request and sweep it.
const _: () = assert!(LEASE.as_secs() >= NOTED.as_secs() + 2 * SKEW.as_secs() + 12 * 3600);

/// All manifests of a repository, without their bytes.
pub(crate) async fn manifests(app: &App, repository: &Repository) -> Result<Vec<ManifestLinks>, Error> {
    let mut all = Vec::new();
    app.table.each(keys::manifests(repository), ManifestLinks::ATTRIBUTES, |row| all.push(row)).await?;
    Ok(all)
}

/// Commits the first steps of a deletion that does not fit into one transaction, each on condition that what names what
/// in the repository is still as it was read: a tag may have been frozen since. Then the deletion starts again, and is
/// decided again.
pub(crate) async fn one_by_one(
    app: &App,
    grant: &Grant,
    container: &Container,
    steps: Vec<Changes>,
) -> Result<Try<()>, Error> {
    let mut container = container.clone();
    for step in steps {
        let step = step.with([manifests::epoch_advanced_from(&container)]);
        container.epoch += 1;
        if app.commit(grant, step).await? != Written::Done {
            break;
        }
    }
    Ok(Try::Lost)
}

/// Removes those links that no manifest of the repository names any more and that no push asked for after `before`:
/// for whoever deletes them, [`Time::MAX`], since a clock may have been set back. Returns how many were removed.
///
/// 1. Read the repository's epoch, then its manifests.
/// 2. For each link, in one transaction: update link, charge, account and blob, on condition that the epoch is still
///    the same. Anything that comes to name something increments the epoch, so nothing that is named is removed.
///    *Lost*: that link starts again at 1. *Dies*: the next sweep removes the remaining links.
pub(crate) async fn free(
    app: &App,
    grant: &Grant,
    repository: &Repository,
    names: &[OciDigest],
    before: Time,
) -> Result<usize, Error> {
    let mut freed = 0;
    let mut left: BTreeSet<OciDigest> = names.iter().copied().collect();
    let mut retry = Retry::of("changes of the same repository");
    loop {
        retry.pause().await?;
        let container: Option<Container> = app.table.get(keys::container(repository)).await?;
        let Some(mut container) = container else { return Ok(freed) };
        let stays = |row: ManifestLinks| {
            for name in &row.names {
                left.remove(name);
            }
        };
        app.table.each(keys::manifests(repository), ManifestLinks::ATTRIBUTES, stays).await?;
        let mut lost = BTreeSet::new();
        for name in std::mem::take(&mut left) {
            match free_one(app, grant, &container, &name, before).await? {
                Try::Done(went) => {
                    freed += usize::from(went);
                    container.epoch += u64::from(went);
                }
                Try::Lost => {
                    lost.insert(name);
                }
            }
        }
        if lost.is_empty() {
            return Ok(freed);
        }
        left = lost;
    }
}

async fn free_one(
    app: &App,
    grant: &Grant,
    container: &Container,
    name: &OciDigest,
    before: Time,
) -> Result<Try<bool>, Error> {
    let repository = &container.repository;
    let link = app.table.get::<Link>(keys::link(repository, name)).await?;
    let Some(link) = link.filter(|link| link.seen <= before) else { return Ok(Try::Done(false)) };
    let keys = unlinking_keys(repository.entity(), &link.digest);
    let mut rows = app.table.batch(keys.iter().cloned()).await?;
    let [account, charge, blob] = &keys;
    let account: Account = rows.take(account)?.ok_or(Error::NotFound("entity"))?;
    let (charge, blob) = (rows.take(charge)?, rows.take(blob)?);
    let unlinked = blobs::unlink(Unlinking { link: &link, account: &account, charge, blob, now: app.now() })?;
    let what = EventKind::BlobUnlinked { digest: *name };
    let changes = Changes::recorded(Place::Repository(repository.clone()), what)
        .with([manifests::epoch_advanced_from(container)])
        .with(unlinked);
    Ok(match app.commit(grant, changes).await? {
        Written::Done => Try::Done(true),
        Written::Lost(_) => Try::Lost,
    })
}
