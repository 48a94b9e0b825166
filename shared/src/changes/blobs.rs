//! Blobs: how verified bytes become visible in a repository, and how they disappear from it.

use super::accounts::{self, ChargeChange, Charged};
use super::{Changes, joined};
use crate::domain::quota::Quota;
use crate::domain::sif::SifFacts;
use crate::domain::{Digest, EntityName, OciDigest, Repository, Time};
use crate::error::Error;
use crate::store::keys::{self, Key};
use crate::store::rows::{Account, Blob, Charge, Condemned, Link, Row, Surplus};
use crate::store::table::{Condition, Rows, Write};

/// Verified bytes of any kind: an object that nobody can change any more, and whose digest is the expected one.
#[derive(Debug, Clone)]
pub(crate) struct VerifiedBytes {
    pub(crate) digest: Digest,
    /// Name of the object in the bucket.
    pub(crate) object: String,
    pub(crate) size: u64,
}

/// Verified bytes that are an image, with the metadata in it.
#[derive(Debug, Clone)]
pub(crate) struct VerifiedImage {
    pub(crate) bytes: VerifiedBytes,
    pub(crate) facts: SifFacts,
}

impl VerifiedImage {
    /// The bytes of a blob that was committed before; `None` when they are not known to be an image.
    pub(crate) fn of(blob: Blob) -> Option<Self> {
        let facts = blob.facts?;
        Some(Self { bytes: VerifiedBytes { digest: blob.digest, object: blob.object, size: blob.size }, facts })
    }
}

/// The rows of a blob and of the account that pays for it, read in one batch.
#[derive(Debug)]
pub(crate) struct BlobRows {
    /// The installation's row of the blob.
    pub(crate) blob: Option<Blob>,
    /// Its link in the repository.
    pub(crate) link: Option<Link>,
    /// The charge to the entity.
    pub(crate) charge: Option<Charge>,
    /// The entity's account.
    pub(crate) account: Account,
}

impl BlobRows {
    /// The keys of these rows, for a blob with this digest, under this name in the repository.
    pub(crate) fn keys(repository: &Repository, digest: &Digest, name: &OciDigest) -> [Key; 4] {
        let entity = repository.entity();
        [keys::blob(digest), keys::link(repository, name), keys::charge(entity, digest), keys::account(entity)]
    }

    /// Takes the rows from a batch that read [these keys](Self::keys).
    pub(crate) fn take(rows: &mut Rows, [blob, link, charge, account]: &[Key; 4]) -> Result<Self, Error> {
        Ok(Self {
            blob: rows.take(blob)?,
            link: rows.take(link)?,
            charge: rows.take(charge)?,
            account: rows.take(account)?.ok_or(Error::NotFound("entity"))?,
        })
    }
}

/// Bytes that are to become visible in a repository under a digest.
#[derive(Debug)]
pub(crate) struct Linking<'a> {
    pub(crate) repository: &'a Repository,
    /// The digest by which they are known there.
    pub(crate) name: OciDigest,
    pub(crate) bytes: &'a VerifiedBytes,
    /// Their metadata as an image.
    pub(crate) facts: Option<&'a SifFacts>,
    /// The difference in open sessions: negative for sessions that end here.
    pub(crate) sessions: i64,
    /// Bytes that are no longer reserved for a stream.
    pub(crate) released: u64,
    pub(crate) now: Time,
    /// The first version of a new blob's row and of a new charge. It is random, so that one that was removed and made
    /// again is not mistaken for the old one.
    pub(crate) first_version: u32,
}

/// The result of linking a blob.
#[derive(Debug)]
pub(crate) struct Linked {
    /// The writes of link, blob, charge and account.
    pub(crate) writes: Vec<Write>,
    /// Name of the object that holds the bytes from now on: the existing one, if there was one.
    pub(crate) object: String,
    /// The account's numbers after the change.
    pub(crate) quota: Quota,
}

/// Makes verified bytes visible in a repository under a digest.
pub(crate) fn link(rows: BlobRows, new: &Linking<'_>) -> Result<Linked, Error> {
    let BlobRows { blob, link, charge, account } = rows;
    let VerifiedBytes { digest, size, .. } = *new.bytes;
    let first_in_entity = charge.as_ref().is_none_or(|charge| charge.links == 0);
    let object = blob.as_ref().map_or(&new.bytes.object, |blob| &blob.object).clone();
    let mut writes = vec![blob_with(blob, &object, first_in_entity, new)?];
    let repository = new.repository.clone();
    let row = Link { repository, name: new.name, digest, object: object.clone(), size, seen: new.now };
    let condition = if link.is_none() { Condition::Absent } else { Condition::Present };
    writes.push(Write::put(&row, condition)?);
    let by = ChargeChange {
        digest,
        size,
        links: i64::from(link.is_none()),
        sessions: new.sessions,
        released: new.released,
        surplus: 0,
        first_version: new.first_version,
    };
    let Charged { writes: charged, quota } = accounts::charge(&account, charge, by)?;
    writes.extend(charged);
    Ok(Linked { writes, object, quota })
}

/// The blob's row, with one more entity if it is that entity's first link, and with the metadata of its bytes.
fn blob_with(blob: Option<Blob>, object: &str, first_in_entity: bool, new: &Linking<'_>) -> Result<Write, Error> {
    let Some(blob) = blob else {
        let VerifiedBytes { digest, size, .. } = *new.bytes;
        let (version, facts) = (u64::from(new.first_version), new.facts.cloned());
        let row = Blob { digest, object: object.to_owned(), size, entities: 1, facts, version };
        return Ok(Write::put(&row, Condition::Absent)?);
    };
    let condition = Condition::Version(blob.version);
    let news = blob.facts.is_none() && new.facts.is_some();
    if !first_in_entity && !news {
        return Ok(Write::check(blob.key(), condition));
    }
    let entities = blob.entities + u64::from(first_in_entity);
    let facts = blob.facts.or(new.facts.cloned());
    Ok(Write::put(&Blob { entities, facts, version: blob.version + 1, ..blob }, condition)?)
}

/// The condition that a repository is there, and not being deleted: without it, nothing may be linked in it.
pub(crate) fn repository_there(repository: &Repository) -> Write {
    Write::check(keys::container(repository), Condition::Present)
}

/// The rows of a blob whose link is to be removed.
#[derive(Debug)]
pub(crate) struct Unlinking<'a> {
    pub(crate) link: &'a Link,
    pub(crate) account: &'a Account,
    pub(crate) charge: Option<Charge>,
    pub(crate) blob: Option<Blob>,
    pub(crate) now: Time,
}

/// Removes a link. If it was the entity's last one, the entity no longer pays for the bytes. If it was the last one of
/// all, the blob's row is deleted and its object condemned.
pub(crate) fn unlink(Unlinking { link, account, charge, blob, now }: Unlinking<'_>) -> Result<Vec<Write>, Error> {
    let mut writes = vec![Write::delete(link.key(), not_asked_for_since(link))];
    let last_in_entity = charge.as_ref().is_none_or(|charge| charge.links <= 1);
    let (digest, size) = (link.digest, link.size);
    let by = ChargeChange { digest, size, links: -1, sessions: 0, released: 0, surplus: 0, first_version: 0 };
    writes.extend(accounts::charge(account, charge, by)?.writes);
    if let Some(blob) = blob.filter(|_| last_in_entity) {
        let condition = Condition::Version(blob.version);
        if blob.entities > 1 {
            let blob = Blob { entities: blob.entities - 1, version: blob.version + 1, ..blob };
            writes.push(Write::put(&blob, condition)?);
        } else {
            writes.push(Write::delete(blob.key(), condition));
            let kept = Condemning { object: &blob.object, upload: None, size, now };
            writes.extend(condemned_of(link.repository.entity(), kept)?);
        }
    }
    Ok(writes)
}

/// Records that a push asked for a blob, because a manifest may be about to name it.
pub(crate) fn asked_for(link: &Link, now: Time) -> Result<Write, Error> {
    Ok(Write::put(&Link { seen: now, ..link.clone() }, not_asked_for_since(link))?)
}

/// The condition that no push has asked for a blob since its link was read.
fn not_asked_for_since(link: &Link) -> Condition {
    Condition::Seen(link.seen)
}

/// Condemns an object: it is deleted once no URL for it can be in use. `upload` is its multipart upload, if it is not
/// completed yet.
pub(crate) fn condemned(object: &str, upload: Option<&str>, now: Time) -> Result<Write, Error> {
    let row = Condemned { object: object.to_owned(), since: now, upload: upload.map(str::to_owned), of: None };
    Ok(Write::put(&row, Condition::None)?)
}

/// An object to be condemned that may have many bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condemning<'a> {
    pub(crate) object: &'a str,
    /// Its multipart upload, if it is not completed yet.
    pub(crate) upload: Option<&'a str>,
    /// Bytes that it has, or may have.
    pub(crate) size: u64,
    pub(crate) now: Time,
}

/// Condemns an object that an entity is no longer charged for. Until it is deleted, it is the entity's surplus.
pub(crate) fn condemned_of(entity: &EntityName, condemning: Condemning<'_>) -> Result<Vec<Write>, Error> {
    let Condemning { object, upload, size, now } = condemning;
    let of = Some(Surplus { entity: entity.clone(), size });
    let row = Condemned { object: object.to_owned(), since: now, upload: upload.map(str::to_owned), of };
    let condemned = Write::put(&row, Condition::None)?;
    let counted = accounts::surplus(entity, size.into()).into_iter().chain(accounts::rows(entity, 1));
    Ok(joined(counted.chain([condemned])))
}

/// Condemns an object that no row names.
pub(crate) fn unnamed(object: &str, now: Time) -> Result<Changes, Error> {
    let row = Condemned { object: object.to_owned(), since: now, upload: None, of: None };
    // If somebody else has condemned it since it was listed, it counts as theirs.
    Ok(Changes::unrecorded().with([Write::put(&row, Condition::Absent)?]))
}

/// Forgets a condemned object that was deleted, once.
pub(crate) fn condemned_deleted(object: &str, of: Option<&Surplus>) -> Changes {
    let surplus = of.and_then(|Surplus { entity, size }| accounts::surplus(entity, -i128::from(*size)));
    let row = of.and_then(|Surplus { entity, .. }| accounts::rows(entity, -1));
    let deleted = Write::delete(keys::condemned(object), Condition::Present);
    Changes::unrecorded().with([deleted]).with(surplus).with(row)
}

/// The keys of the rows that decide what removing a blob's link changes.
pub(crate) fn unlinking_keys(entity: &EntityName, digest: &Digest) -> [Key; 3] {
    [keys::account(entity), keys::charge(entity, digest), keys::blob(digest)]
}
