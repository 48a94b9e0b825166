//! The names between things in a repository, and the removal of links to blobs that nothing names any more.

use super::retry::{Retry, Try};
use crate::app::App;
use crate::changes::blobs::{self, Unlinking, unlinking_keys};
use crate::changes::{Changes, manifests};
use crate::domain::time::SKEW;
use crate::domain::{OciDigest, Repository, TagName, Time};
use crate::error::Error;
use crate::rules::{Grant, Place};
use crate::store::keys::{self, Key, KeyRange};
use crate::store::rows::{Account, Backlink, Container, EventKind, Link, ManifestLinks, Namer, Tag, Wide};
use crate::store::table::{MAX_READS, Written};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a link without a manifest stays after a push last asked for it: time enough for the rest of that push.
pub(crate) const LEASE: Duration = Duration::from_hours(24);
/// The age at which the time of the last request is recorded again.
pub(crate) const NOTED: Duration = Duration::from_hours(1);
// A push that was told that a blob exists has half a day to finish, whichever hosts recorded the request and sweep it.
const _: () = assert!(LEASE.as_secs() >= NOTED.as_secs() + 2 * SKEW.as_secs() + 12 * 3600);

/// How many lists of backlinks are read at a time.
const AT_A_TIME: usize = 16;
/// How many manifests are read at a time that name many things: each is up to a few MiB.
const WIDE_AT_A_TIME: usize = 16;
/// From so many rows on, what leads to something is a long read.
const MANY: usize = 100;

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
    let (mut manifests, mut turn) = (Vec::new(), None);
    let wide = wide(app, repository).await?;
    while !next.is_empty() {
        if turn.is_none() && next.len().max(tags.len()).max(wide.len()) > MANY {
            turn = Some(app.long_read().await?);
        }
        let level: Vec<OciDigest> = next.into_iter().collect();
        seen.extend(level.iter().copied());
        let keys = level.iter().map(|digest| keys::manifest(repository, digest));
        app.table.each_of(keys, ManifestLinks::ATTRIBUTES, MAX_READS, |row| manifests.push(row)).await?;
        let mut above = BTreeSet::new();
        app.table
            .each_of(wide.iter().cloned(), &["digest", "names"], WIDE_AT_A_TIME, |row: Names| {
                above.extend(row.names.iter().any(|name| level.binary_search(name).is_ok()).then_some(row.digest));
            })
            .await?;
        let ranges: Vec<KeyRange> = level.iter().map(|digest| keys::backlinks(repository, digest)).collect();
        let mut backlinks = futures::stream::iter(ranges)
            .map(|range| app.table.query_all::<Backlink>(range))
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
    Ok(Leading { tags, manifests })
}

/// What a manifest names.
#[derive(Deserialize)]
struct Names {
    digest: OciDigest,
    #[serde(default)]
    names: Vec<OciDigest>,
}

/// The places of the manifests of a repository that have no backlinks, since they name too many things.
async fn wide(app: &App, repository: &Repository) -> Result<Vec<Key>, Error> {
    let rows: Vec<Wide> = app.table.query_all(keys::all_wide(repository)).await?;
    Ok(rows.iter().map(|row| keys::manifest(repository, &row.manifest)).collect())
}

/// Those of some digests that no manifest of the repository names.
async fn unnamed(app: &App, repository: &Repository, names: BTreeSet<OciDigest>) -> Result<BTreeSet<OciDigest>, Error> {
    let mut left = BTreeSet::new();
    let mut asked = futures::stream::iter(names)
        .map(async |name| Ok::<_, Error>((name, has_backlink(app, repository, &name).await?)))
        .buffered(AT_A_TIME);
    while let Some((name, stays)) = asked.try_next().await? {
        left.extend((!stays).then_some(name));
    }
    if left.is_empty() {
        return Ok(left);
    }
    let wide = wide(app, repository).await?;
    let _turn = if wide.len() > MANY { Some(app.long_read().await?) } else { None };
    let stays = |row: Names| {
        for name in &row.names {
            left.remove(name);
        }
    };
    app.table.each_of(wide, &["digest", "names"], WIDE_AT_A_TIME, stays).await?;
    Ok(left)
}

/// Whether a manifest that has backlinks names a digest. Tags name manifests only, of which no link depends.
async fn has_backlink(app: &App, repository: &Repository, digest: &OciDigest) -> Result<bool, Error> {
    let from = keys::backlinks(repository, digest).narrowed(keys::FROM_MANIFESTS);
    Ok(!app.table.first_keys(from, 1).await?.is_empty())
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
        let unnamed = unnamed(app, repository, std::mem::take(&mut left)).await?;
        let mut unnamed = unnamed.into_iter();
        for name in unnamed.by_ref() {
            match free_one(app, grant, &container, &name, before).await? {
                Try::Done(went) => {
                    freed += usize::from(went);
                    container.epoch += u64::from(went);
                }
                Try::Lost => {
                    left.insert(name);
                    break;
                }
            }
        }
        // What names what has changed: the others would be lost as well.
        left.extend(unnamed);
        if left.is_empty() {
            return Ok(freed);
        }
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

/// The same for whoever has just removed what named them. That is done, whatever becomes of these links: if they can't
/// be removed now, the next sweep does it.
pub(crate) async fn free_after(app: &App, grant: &Grant, repository: &Repository, names: &[OciDigest]) {
    if let Err(error) = free(app, grant, repository, names, Time::MAX).await {
        tracing::warn!(%repository, %error, cause = error.cause(), "links that nothing names stay until the next sweep");
    }
}
