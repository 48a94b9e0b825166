//! The names between things in a repository, and the removal of links to blobs that nothing names any more.

use super::retry::{Retry, Try};
use crate::app::App;
use crate::changes::blobs::{self, Unlinking, unlinking_keys};
use crate::changes::{Changes, backlinks, manifests};
use crate::domain::time::SKEW;
use crate::domain::{OciDigest, Repository, TagName, Time};
use crate::error::Error;
use crate::rules::{Grant, Place};
use crate::store::keys;
use crate::store::rows::{Account, Backlink, Container, EventKind, Link, Manifest, ManifestLinks, Namer, Tag};
use crate::store::table::{MAX_READS, Page, Written};
use futures::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a link without a manifest stays after a push last asked for it: time enough for the rest of that push.
pub(crate) const LEASE: Duration = Duration::from_hours(24);
/// The age at which the time of the last request is recorded again.
pub(crate) const NOTED: Duration = Duration::from_hours(1);
// A push that was told that a blob exists has half a day to finish, whichever hosts recorded the request and sweep it.
const _: () = assert!(LEASE.as_secs() >= NOTED.as_secs() + 2 * SKEW.as_secs() + 12 * 3600);

/// How many lists of backlinks are read at a time.
const AT_A_TIME: usize = 16;
/// How many backlinks are read at first to see whether something is named. Nearly always, the first one tells.
const FEW: usize = 4;

/// The tags and manifests of a repository that lead to something.
#[derive(Debug, Default)]
pub(crate) struct Leading {
    pub(crate) tags: Vec<Tag>,
    pub(crate) manifests: Vec<ManifestLinks>,
}

/// Reads what leads to some digests of a repository: the manifests among them, whatever names them, and what names
/// that, at any depth; and the tags in `tags`, which lead there by an image. To be read after the repository's epoch.
pub(crate) async fn leading_to(
    app: &App,
    repository: &Repository,
    digests: impl IntoIterator<Item = OciDigest>,
    tags: impl IntoIterator<Item = TagName>,
) -> Result<Leading, Error> {
    let mut next: BTreeSet<OciDigest> = digests.into_iter().collect();
    let (mut seen, mut tags) = (BTreeSet::new(), tags.into_iter().collect::<BTreeSet<_>>());
    let mut manifests = BTreeMap::new();
    while !next.is_empty() {
        let level: Vec<OciDigest> = next.into_iter().collect();
        seen.extend(level.iter().copied());
        for row in read_manifests(app, repository, &level).await? {
            manifests.insert(row.digest, row);
        }
        let mut above = BTreeSet::new();
        let mut backlinks = futures::stream::iter(level)
            .map(|digest| app.table.query_all::<Backlink>(keys::backlinks(repository, &digest)))
            .buffer_unordered(AT_A_TIME);
        while let Some(rows) = backlinks.try_next().await? {
            for row in rows {
                match row.from {
                    Namer::Manifest(manifest) => above.extend([manifest]),
                    Namer::Tag(tag) => tags.extend([tag]),
                }
            }
        }
        next = above.into_iter().filter(|digest| !seen.contains(digest)).collect();
    }
    let keys: Vec<_> = tags.iter().map(|tag| keys::tag(repository, tag)).collect();
    let mut rows = app.table.batch(keys.iter().cloned()).await?;
    let mut tags = Vec::new();
    for key in keys {
        tags.extend(rows.take::<Tag>(&key)?);
    }
    Ok(Leading { tags, manifests: manifests.into_values().collect() })
}

async fn read_manifests(
    app: &App,
    repository: &Repository,
    digests: &[OciDigest],
) -> Result<Vec<ManifestLinks>, Error> {
    let keys: Vec<_> = digests.iter().map(|digest| keys::manifest(repository, digest)).collect();
    let mut rows = app.table.batch(keys.iter().cloned()).await?;
    let mut all = Vec::new();
    for key in keys {
        all.extend(rows.take::<Manifest>(&key)?.map(ManifestLinks::from));
    }
    Ok(all)
}

/// Whether a manifest of the repository names a digest.
async fn is_named(app: &App, repository: &Repository, digest: &OciDigest) -> Result<bool, Error> {
    let (mut past, mut limit) = (None, FEW);
    loop {
        let page: Page<Backlink> = app.table.query(keys::backlinks(repository, digest), past, limit).await?;
        let from: Vec<OciDigest> = page.rows.iter().filter_map(|row| row.from.manifest()).collect();
        let there = app.table.there(from.iter().map(|manifest| keys::manifest(repository, manifest))).await?;
        if !there.is_empty() {
            return Ok(true);
        }
        past = page.next;
        if past.is_none() {
            return Ok(false);
        }
        limit = MAX_READS;
    }
}

/// Deletes the backlinks of a manifest that is not there, as far as they were written before it.
///
/// 1. Read the repository, and whether the manifest is there: then they stay.
/// 2. Delete some, on condition that the manifest is still not there. That counts as a removal, so a push of it that
///    has written them already is lost, and writes them again. *Lost*: start again. *Dies*: the sweeper does the rest.
pub(crate) async fn forget(
    app: &App,
    grant: &Grant,
    repository: &Repository,
    manifest: &OciDigest,
    names: &[OciDigest],
) -> Result<(), Error> {
    let mut retry = Retry::of("changes of the same repository");
    let mut left = names.chunks(backlinks::FORGOTTEN);
    let mut some = left.next();
    while let Some(names) = some {
        retry.pause().await?;
        let container: Option<Container> = app.table.get(keys::container(repository)).await?;
        let Some(container) = container else { return Ok(()) };
        if !app.table.there([keys::manifest(repository, manifest)]).await?.is_empty() {
            return Ok(());
        }
        if app.commit(grant, backlinks::forgotten(&container, manifest, names)).await? == Written::Done {
            (some, retry) = (left.next(), Retry::of("changes of the same repository"));
        }
    }
    Ok(())
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
/// 1. Read the repository's epoch, then whether a manifest names them.
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
        let mut asked = futures::stream::iter(std::mem::take(&mut left))
            .map(async |name| Ok::<_, Error>((name, is_named(app, repository, &name).await?)))
            .buffered(AT_A_TIME);
        let mut unnamed = Vec::new();
        while let Some((name, stays)) = asked.try_next().await? {
            unnamed.extend((!stays).then_some(name));
        }
        let mut lost = BTreeSet::new();
        for name in unnamed {
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
