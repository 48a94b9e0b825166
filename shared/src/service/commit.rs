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
//!    details and OCI manifest are written; the session goes; an object that is not needed after all is condemned.
//! 4. If a condition failed, begin again: every step reads anew, none is half done.
//!
//! Dying before 3 leaves an open session, which the sweeper gives back. Dying after 3 leaves nothing to do.

use crate::app::App;
use crate::domain::quota::Quota;
use crate::domain::sif::SifFacts;
use crate::domain::{Digest, Repository};
use crate::error::Error;
use crate::rules::Grant;
use crate::rules::quota::{Admission, admit};
use crate::store::rows::{Account, Blob, Charge, Condemned, Content, Details, Image, Link, Manifest, Row, Session};
use crate::store::table::{Condition, Write, pause};
use crate::store::{StoreError, keys};
use std::collections::BTreeMap;

/// How often a transaction that lost a race is tried again.
pub(crate) const TRIES: u32 = 60;

/// Verified bytes: an object that nobody can change any more, with the digest that it was asked to have.
/// Only what has checked that makes one: [`Known::of`] a blob row, and the uploads.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    digest: Digest,
    object: String,
    size: u64,
    facts: SifFacts,
}

impl Known {
    /// The bytes of a blob that was committed before.
    /// `None` when they are not an image.
    pub(crate) fn of(blob: Blob) -> Option<Self> {
        Some(Self { digest: blob.digest, object: blob.object, size: blob.size, facts: blob.facts? })
    }

    /// Bytes that were just verified.
    pub(super) fn verified(digest: Digest, object: String, size: u64, facts: SifFacts) -> Self {
        Self { digest, object, size, facts }
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
    bytes: Known,
    session: Option<&Session>,
) -> Result<(Image, Quota), Error> {
    let digest = bytes.digest;
    let entity = repository.entity();
    let image_key = keys::image(repository, &digest);
    let (blob_key, charge_key) = (keys::blob(&digest), keys::charge(entity, &digest));
    let (account_key, link_key) = (keys::account(entity), keys::link(repository, &digest));
    for attempt in 0..TRIES {
        pause(attempt).await;
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
        let first_in_entity = charge.as_ref().is_none_or(|charge| charge.links == 0);
        let mut writes = Vec::new();

        // The image.
        let object = blob.as_ref().map_or(&bytes.object, |blob| &blob.object).clone();
        let content = content(&bytes, object.clone());
        let mut committed = Image { content: Some(content.clone()), sealed: None, ..image };
        committed.version += 1;
        committed.labels = searchable(&bytes.facts.labels);
        writes.extend(super::tag::intended(app, &mut committed, &content).await?);
        writes.push(Write::put(&committed, Condition::Version(image.version))?);
        let details = Details { repository: repository.clone(), hash: digest, facts: bytes.facts.clone() };
        writes.push(Write::put(&details, Condition::None)?);
        writes.push(Write::put(&manifest(&committed, &content), Condition::None)?);

        // The blob, and our object if it is not needed.
        match blob {
            None => {
                let version = u64::from(u32::from_le_bytes(crate::app::random()?));
                let facts = Some(bytes.facts.clone());
                let row = Blob { digest, object: object.clone(), size: bytes.size, entities: 1, facts, version };
                writes.push(Write::put(&row, Condition::Absent)?);
            }
            Some(blob) => {
                let condition = Condition::Version(blob.version);
                if first_in_entity {
                    let row = Blob { entities: blob.entities + 1, version: blob.version + 1, ..blob };
                    writes.push(Write::put(&row, condition)?);
                } else {
                    writes.push(Write::check(blob_key.clone(), condition));
                }
                if open.is_some() && bytes.object != object {
                    writes.push(condemn(app, &bytes.object, None)?);
                }
            }
        }

        // The link, and what the entity pays.
        let row = Link { repository: repository.clone(), digest, object, size: bytes.size };
        let new_link = link.is_none();
        writes.push(Write::put(&row, if new_link { Condition::Absent } else { Condition::Present })?);
        let at = writes.len();
        let quota = settle(
            &mut writes,
            &account,
            charge,
            Settling { digest, size: bytes.size, links: i64::from(new_link), sessions: -i64::from(open.is_some()) },
        )?;
        if let Some(open) = &open {
            writes.push(Write::delete(open.key(), Condition::Version(open.version)));
            if let crate::store::rows::Way::Staged = open.way {
                writes.push(condemn(app, &open.object, None)?);
            }
        }
        match app.table.write(grant, writes).await {
            Ok(()) => return Ok((committed, quota)),
            Err(StoreError::Conflict(failed)) => tracing::debug!(?failed, at, "commit lost a race"),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Unavailable(StoreError::Unavailable("too many pushes of the same image at once".to_owned())))
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
    let more = i128::from(after.size) - i128::from(before.size);
    let more_reserved = reserved(&after) - reserved(&before);

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

/// The condition under which `more` bytes may be charged. Conditions can't add, so the sum is turned around.
fn room(quota: Quota, more: i128) -> Result<Condition, Error> {
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

fn content(bytes: &Known, object: String) -> Content {
    Content {
        size: bytes.size,
        object,
        arch: bytes.facts.arch.map(|arch| arch.as_str().to_owned()).unwrap_or_default(),
        signed: bytes.facts.signed,
        encrypted: bytes.facts.encrypted,
        fingerprints: bytes.facts.fingerprints.clone(),
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

/// Media type of the layer that is a SIF image.
pub const SIF_LAYER: &str = "application/vnd.sylabs.sif.layer.v1.sif";
/// Media type of the empty configuration beside it.
pub const SIF_CONFIG: &str = "application/vnd.sylabs.sif.config.v1+json";
/// Media type of the manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The OCI manifest of an image. The same image in the same container always has the same one.
fn manifest(image: &Image, content: &Content) -> Manifest {
    let name = image.repository.rest().rsplit('/').next().unwrap_or_default();
    let body = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": SIF_CONFIG, "digest": Digest::of(b"{}"), "size": 2 },
        "layers": [{
            "mediaType": SIF_LAYER,
            "digest": image.hash,
            "size": content.size,
            "annotations": { "org.opencontainers.image.title": format!("{name}.sif") },
        }],
    })
    .to_string();
    Manifest {
        repository: image.repository.clone(),
        digest: Digest::of(body.as_bytes()),
        media_type: OCI_MANIFEST.to_owned(),
        body,
        image: Some(image.hash),
    }
}

/// The digest of the OCI manifest of an image.
pub(crate) fn manifest_digest(image: &Image, content: &Content) -> Digest {
    manifest(image, content).digest
}
