//! Making an image visible, and all that has to be true at that moment, in one transaction.
//!
//! # The commit
//!
//! Bytes were verified before: they lie in an object that nobody can change any more, and their digest is the image's.
//!
//! 1. Read image, blob, the entity's charge, its account, the repository's link, and the session, in one batch.
//! 2. If the image has its content already, somebody else committed the same bytes: that is success, and the end of the
//!    session.
//! 3. In one transaction, each row conditional on what was read:
//!    the image gets its content; the blob row is made, or counts one more entity;
//!    the link makes the blob visible in the repository; the charge turns from reserved to used;
//!    details and OCI manifest are written; the repository's epoch counts on, since something more names the blob;
//!    the session goes; an object that is not needed after all is condemned.
//! 4. If a condition failed, begin again: every step reads anew, none is half done.
//!
//! Dying before 3 leaves an open session, which the sweeper gives back. Dying after 3 leaves nothing to do.

use super::retry::Retry;
use crate::app::App;
use crate::domain::quota::Quota;
use crate::domain::sif::SifFacts;
use crate::domain::{Digest, OciDigest, Repository, manifest};
use crate::error::Error;
use crate::rules::Grant;
use crate::rules::quota::{Admission, admit};
use crate::store::keys;
use crate::store::rows::{
    Account, Blob, Charge, Condemned, Container, Content, Details, Image, Link, Manifest, Marker, Named, Naming, Row,
    Session, Tagged,
};
use crate::store::table::{Condition, Write, Written};
use std::collections::BTreeMap;

/// Verified bytes: an object that nobody can change any more, with the digest that it was asked to have.
/// Only what has checked that makes one: [`Known::of`] a blob row, and the uploads.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    bytes: Bytes,
    facts: SifFacts,
}

/// Verified bytes of any kind.
#[derive(Debug, Clone)]
pub(crate) struct Bytes {
    pub(super) digest: Digest,
    pub(super) object: String,
    pub(super) size: u64,
}

impl Known {
    /// The bytes of a blob that was committed before.
    /// `None` when they are not known to be an image.
    pub(crate) fn of(blob: Blob) -> Option<Self> {
        let facts = blob.facts?;
        Some(Self { bytes: Bytes { digest: blob.digest, object: blob.object, size: blob.size }, facts })
    }

    /// Bytes that were just verified.
    pub(super) fn verified(digest: Digest, object: String, size: u64, facts: SifFacts) -> Self {
        Self { bytes: Bytes { digest, object, size }, facts }
    }
}

/// Commits an image whose bytes are known without an upload.
pub(crate) async fn known(app: &App, grant: &Grant, image: Image, bytes: Known) -> Result<Image, Error> {
    commit(app, grant, &image.repository.clone(), bytes, None).await.map(|(image, _)| image)
}

/// Commits an image whose bytes a session brought.
pub(crate) async fn uploaded(
    app: &App,
    grant: &Grant,
    session: &Session,
    bytes: Known,
) -> Result<(Image, Quota), Error> {
    commit(app, grant, &session.repository, bytes, Some(session)).await
}

async fn commit(
    app: &App,
    grant: &Grant,
    repository: &Repository,
    Known { bytes, facts }: Known,
    session: Option<&Session>,
) -> Result<(Image, Quota), Error> {
    let digest = bytes.digest;
    let entity = repository.entity();
    let image_key = keys::image(repository, &digest);
    let (blob_key, charge_key) = (keys::blob(&digest), keys::charge(entity, &digest));
    let (account_key, link_key) = (keys::account(entity), keys::link(repository, &digest.into()));
    let mut retry = Retry::of("pushes of the same image");
    loop {
        retry.pause().await?;
        let wanted = [&image_key, &blob_key, &charge_key, &account_key, &link_key].map(Clone::clone);
        let mut rows = app.table.batch(wanted.into_iter().chain(session.map(Row::key))).await?;
        let image: Image = rows.take(&image_key)?.ok_or(Error::NotFound("image"))?;
        let account: Account = rows.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
        if image.content.is_some() {
            if let Some(session) = session {
                super::upload::end(app, grant, session).await?;
            }
            return Ok((image, account.quota));
        }
        // A session that was replaced meanwhile has another object, and ours was condemned with the old one.
        let open: Option<Session> = match session {
            Some(session) => rows.take(&session.key())?.filter(|open: &Session| open.object == session.object),
            None => None,
        };
        if session.is_some() && open.is_none() {
            return Err(Error::Conflict("the upload was given up or has expired, push again".to_owned()));
        }
        let blob: Option<Blob> = rows.take(&blob_key)?;
        let link: Option<Link> = rows.take(&link_key)?;
        let charge: Option<Charge> = rows.take(&charge_key)?;
        if session.is_none() && blob.is_none() {
            // The known bytes went while we looked at them. They have to be brought.
            return Ok((image, account.quota));
        }
        let mut writes = Vec::new();

        // The link, the blob, and what the entity pays.
        let by = Settling { digest, size: bytes.size, links: 0, sessions: -i64::from(open.is_some()), back: 0 };
        let found = Found { blob, link, charge, account };
        let known = Some(&facts);
        let (object, quota) = bind(app, &mut writes, repository, &digest.into(), (&bytes, known), found, by)?;
        if open.is_some() && bytes.object != object {
            writes.push(condemn(app, &bytes.object, None)?);
        }
        writes.push(renamed(repository, Condition::Present));

        // The image.
        let content = content(&bytes, &facts, object);
        let mut committed = Image { content: Some(content.clone()), sealed: None, ..image };
        committed.version += 1;
        committed.labels = searchable(&facts.labels);
        writes.extend(super::tag::intended(app, &mut committed, &content).await?);
        writes.push(Write::put(&committed, Condition::Version(image.version))?);
        let details = Details { repository: repository.clone(), hash: digest, facts: facts.clone() };
        writes.push(Write::put(&details, Condition::None)?);
        let own = sif_manifest(app, repository, &super::tag::tagged(&committed, &content));
        writes.push(Write::put(&own, Condition::None)?);
        writes.push(Write::put(&Marker { repository: repository.clone() }, Condition::None)?);
        if let Some(open) = &open {
            writes.push(Write::delete(open.key(), Condition::Version(open.version)));
            if let crate::store::rows::Way::Staged = open.way {
                writes.push(condemn(app, &open.object, None)?);
            }
        }
        // A tag that was asked for writes the image's manifest too.
        match app.table.write(grant, Write::once(writes)).await? {
            Written::Done => return Ok((committed, quota)),
            Written::Lost(failed) => tracing::debug!(?failed, "commit lost a race"),
        }
    }
}

/// What the table says of a blob and whoever pays for it, read in one batch.
#[derive(Debug)]
pub(crate) struct Found {
    /// The installation's row of the blob.
    pub(crate) blob: Option<Blob>,
    /// Its link in the repository.
    pub(crate) link: Option<Link>,
    /// What it costs the entity.
    pub(crate) charge: Option<Charge>,
    /// The entity's account.
    pub(crate) account: Account,
}

/// The writes that make verified bytes visible in a repository under a digest: the link, the blob, the charge, the
/// account. Returns the name of the object that holds them from now on, which is an earlier one where there was one.
pub(crate) fn bind(
    app: &App,
    writes: &mut Vec<Write>,
    repository: &Repository,
    name: &OciDigest,
    (bytes, facts): (&Bytes, Option<&SifFacts>),
    Found { blob, link, charge, account }: Found,
    by: Settling,
) -> Result<(String, Quota), Error> {
    let first_in_entity = charge.as_ref().is_none_or(|charge| charge.links == 0);
    let object = blob.as_ref().map_or(&bytes.object, |blob| &blob.object).clone();
    match blob {
        None => {
            let version = u64::from(u32::from_le_bytes(crate::random::bytes()?));
            let facts = facts.cloned();
            let Bytes { digest, size, .. } = *bytes;
            let row = Blob { digest, object: object.clone(), size, entities: 1, facts, version };
            writes.push(Write::put(&row, Condition::Absent)?);
        }
        Some(blob) => {
            let condition = Condition::Version(blob.version);
            let news = blob.facts.is_none() && facts.is_some();
            if first_in_entity || news {
                let entities = blob.entities + u64::from(first_in_entity);
                let facts = blob.facts.or(facts.cloned());
                let row = Blob { entities, facts, version: blob.version + 1, ..blob };
                writes.push(Write::put(&row, condition)?);
            } else {
                writes.push(Write::check(blob.key(), condition));
            }
        }
    }
    let row = Link {
        repository: repository.clone(),
        name: *name,
        digest: bytes.digest,
        object: object.clone(),
        size: bytes.size,
        seen: app.now(),
    };
    let condition = if link.is_none() { Condition::Absent } else { Condition::Present };
    writes.push(Write::put(&row, condition)?);
    let by = Settling { links: i64::from(link.is_none()), ..by };
    let quota = settle(writes, &account, charge, by)?;
    Ok((object, quota))
}

/// The writes that take a link away: with the last one of its entity the bytes are paid for no more, with the last one of
/// all the blob goes and leaves its object condemned.
pub(crate) fn unbind(
    app: &App,
    writes: &mut Vec<Write>,
    link: &Link,
    (account, charge, blob): (&Account, Option<Charge>, Option<Blob>),
) -> Result<(), Error> {
    writes.push(Write::delete(link.key(), unasked(link)));
    let last_in_entity = charge.as_ref().is_none_or(|charge| charge.links <= 1);
    let by = Settling { digest: link.digest, size: link.size, links: -1, sessions: 0, back: 0 };
    settle(writes, account, charge, by)?;
    if let Some(blob) = blob.filter(|_| last_in_entity) {
        let condition = Condition::Version(blob.version);
        if blob.entities > 1 {
            let blob = Blob { entities: blob.entities - 1, version: blob.version + 1, ..blob };
            writes.push(Write::put(&blob, condition)?);
        } else {
            writes.push(Write::delete(blob.key(), condition));
            writes.push(condemn(app, &blob.object, None)?);
        }
    }
    Ok(())
}

/// Counts the repository's epoch on: what names what in it has changed.
pub(crate) fn renamed(repository: &Repository, condition: Condition) -> Write {
    Write::add(keys::container(repository), vec![("epoch", 1), ("version", 1)], condition)
}

/// The condition that nobody has changed what names what in the container since its row was read.
pub(crate) fn unchanged(container: &Container) -> Condition {
    Condition::Numbers("#epoch = :epoch", vec![(":epoch", container.epoch)])
}

/// The condition that no push has asked for a blob since its link was read: whoever did may be about to name it.
pub(crate) fn unasked(link: &Link) -> Condition {
    Condition::Numbers("#seen = :seen", vec![(":seen", u64::try_from(link.seen.0).unwrap_or(0))])
}

/// By how much a charge changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settling {
    /// The blob.
    pub(crate) digest: Digest,
    /// Its bytes.
    pub(crate) size: u64,
    /// More or fewer links.
    pub(crate) links: i64,
    /// More or fewer open sessions.
    pub(crate) sessions: i64,
    /// Bytes reserved for a stream whose digest nobody knew, given back.
    pub(crate) back: u64,
}

/// The most uploads of one blob into one entity that may be open at a time. They share one reservation.
const MAX_SESSIONS: u64 = 100;

/// Changes what a blob costs an entity, and the account with it; returns the account's numbers as they will be.
///
/// The charge is reserved while it has no links, used while it has some, and gone when it has neither links nor sessions.
/// The account's row is changed by addition, under the condition that its limit still admits what is added.
pub(crate) fn settle(
    writes: &mut Vec<Write>,
    account: &Account,
    charge: Option<Charge>,
    by: Settling,
) -> Result<Quota, Error> {
    let new =
        || Charge { entity: account.entity.clone(), digest: by.digest, size: 0, links: 0, sessions: 0, version: 0 };
    let fresh = charge.is_none();
    let before = charge.unwrap_or_else(new);
    let mut after = before.clone();
    after.links = before.links.saturating_add_signed(by.links);
    after.sessions = before.sessions.saturating_add_signed(by.sessions);
    after.version = before.version + 1;
    if by.sessions > 0 && after.sessions > MAX_SESSIONS {
        return Err(Error::Conflict("too many uploads of this image are open, let them end first".to_owned()));
    }
    // A reservation is as large as the largest size announced; used is what the bytes really are.
    after.size = match (before.links, after.links, after.sessions) {
        (_, 0, 0) => 0,
        (_, 0, _) => before.size.max(by.size),
        (0, ..) => by.size,
        _ => before.size,
    };
    let reserved = |charge: &Charge| if charge.links == 0 { i128::from(charge.size) } else { 0 };
    let back = i128::from(by.back);
    let more = i128::from(after.size) - i128::from(before.size) - back;
    let more_reserved = reserved(&after) - reserved(&before) - back;

    let condition = if fresh { Condition::Absent } else { Condition::Version(before.version) };
    if after.links == 0 && after.sessions == 0 {
        if !fresh {
            writes.push(Write::delete(before.key(), condition));
        }
    } else {
        writes.push(Write::put(&after, condition)?);
    }
    if more != 0 || more_reserved != 0 {
        let condition = room(account.quota, more)?;
        writes.push(Write::add(account.key(), vec![("charged", more), ("reserved", more_reserved)], condition));
    }
    let sum = |number: u64, change: i128| u64::try_from(i128::from(number) + change).unwrap_or(0);
    Ok(Quota {
        charged: sum(account.quota.charged, more),
        reserved: sum(account.quota.reserved, more_reserved),
        limit: account.quota.limit,
    })
}

/// The write that charges an account for a new manifest.
pub(crate) fn paid(account: &Account, cost: u64) -> Result<Write, Error> {
    let cost = i128::from(cost);
    Ok(Write::add(account.key(), vec![("charged", cost)], room(account.quota, cost)?))
}

/// The write that gives back what a manifest cost, which is deleted in the same transaction.
pub(crate) fn refunded(row: &Naming) -> Option<Write> {
    let less = || vec![("charged", -i128::from(row.cost))];
    (row.cost > 0).then(|| Write::add(keys::account(row.repository.entity()), less(), Condition::Present))
}

/// The condition under which `more` bytes may be charged. Conditions can't add, so the sum is turned around.
pub(crate) fn room(quota: Quota, more: i128) -> Result<Condition, Error> {
    let Ok(more) = u64::try_from(more) else { return Ok(Condition::Present) };
    match admit(quota, more) {
        Admission::Full => Err(Error::QuotaExceeded { charged: quota.charged, limit: quota.limit }),
        Admission::Room { charged_at_most: None } => {
            Ok(Condition::Numbers("#limit = :limit", vec![(":limit", quota.limit)]))
        }
        Admission::Room { charged_at_most: Some(most) } => Ok(Condition::Numbers(
            "#limit = :limit AND #charged <= :most",
            vec![(":limit", quota.limit), (":most", most)],
        )),
    }
}

/// Marks an object to be deleted once no URL for it can be in use.
pub(crate) fn condemn(app: &App, object: &str, upload: Option<&str>) -> Result<Write, Error> {
    let row = Condemned { object: object.to_owned(), since: app.now(), upload: upload.map(str::to_owned) };
    Ok(Write::put(&row, Condition::None)?)
}

fn content(bytes: &Bytes, facts: &SifFacts, object: String) -> Content {
    Content {
        size: bytes.size,
        object,
        arch: facts.arch.map(|arch| arch.as_str().to_owned()).unwrap_or_default(),
        signed: facts.signed,
        encrypted: facts.encrypted,
        fingerprints: facts.fingerprints.clone(),
    }
}

/// The labels as far as a row that search reads can hold them: 4 KiB of them.
fn searchable(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut room = 4096usize;
    let fits = |(key, value): &(&String, &String)| {
        let left = room.checked_sub(key.len() + value.len());
        room = left.unwrap_or(room);
        left.is_some()
    };
    labels.iter().filter(fits).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The last name of a repository, which titles its images.
pub(crate) fn title(repository: &Repository) -> &str {
    repository.rest().rsplit('/').next().unwrap_or_default()
}

/// The OCI manifest of an image: its bytes, and what registry clients are told of it.
pub(crate) fn named_sif(repository: &Repository, hash: &Digest, size: u64) -> (String, Named) {
    let body = manifest::of_sif(title(repository), hash, size);
    let digest = Digest::of(body.as_bytes()).into();
    let named = Named { digest, media_type: manifest::OCI_MANIFEST.to_owned(), size: body.len() as u64 };
    (body, named)
}

/// The row of the OCI manifest of an image. The same image in the same container always has the same one.
pub(crate) fn sif_manifest(app: &App, repository: &Repository, image: &Tagged) -> Manifest {
    let (body, Named { digest, media_type, size }) = named_sif(repository, &image.hash, image.content.size);
    Manifest {
        repository: repository.clone(),
        digest,
        media_type,
        size,
        cost: 0,
        body,
        object: None,
        names: vec![image.hash.into(), Digest::of(manifest::EMPTY).into()],
        subject: None,
        image: Some(image.hash),
        created_by: image.created_by.clone(),
        created: app.now(),
    }
}
