//! Images: how one becomes visible, and how it is removed.

use super::backlinks::Naming;
use super::{Changes, accounts, blobs, manifests, tags, uploads};
use crate::changes::blobs::{Condemning, VerifiedBytes, VerifiedImage};
use crate::changes::tags::Drawn;
use crate::domain::sif::SifFacts;
use crate::domain::{OciDigest, TagName, Time};
use crate::error::Error;
use crate::rules::Place;
use crate::store::keys;
use crate::store::rows::{
    Charge, Content, Details, EventKind, Image, ManifestLinks, Marker, Newest, Row, Session, Tag,
};
use crate::store::table::{Condition, Write};
use std::collections::BTreeMap;

/// An image whose verified bytes are linked in its repository.
#[derive(Debug)]
pub(crate) struct Committing<'a> {
    pub(crate) image: Image,
    pub(crate) verified: &'a VerifiedImage,
    /// Name of the object that holds the bytes from now on.
    pub(crate) object: String,
    /// The session that uploaded them, if there was one.
    pub(crate) session: Option<&'a Session>,
    /// The rows of the tags that were requested in the meantime.
    pub(crate) intended: BTreeMap<TagName, Tag>,
    /// Where the versions of new tags begin: drawn at random.
    pub(crate) first_version: u32,
    pub(crate) now: Time,
}

/// An image that is visible now.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) image: Image,
    /// Everything that is removed with it, except its link.
    pub(crate) changes: Changes,
}

/// Gives an image its content, and the manifest that registry clients see. The session that uploaded the bytes is
/// removed.
pub(crate) fn committed(committing: Committing<'_>) -> Result<Committed, Error> {
    let Committing { image, verified: VerifiedImage { bytes, facts }, object, session, intended, first_version, now } =
        committing;
    let repository = image.repository.clone();
    let what = EventKind::ImageCommitted { hash: bytes.digest };
    let mut changes = Changes::recorded(Place::Repository(repository.clone()), what);
    if let Some(open) = session {
        // What came is not needed, or it was copied.
        if open.object != object {
            changes.extend(uploads::condemned(open, now)?);
        }
        if bytes.object != object && bytes.object != open.object {
            let copy = Condemning { object: &bytes.object, upload: None, size: bytes.size, now };
            changes.extend(blobs::condemned_of(repository.entity(), copy)?);
        }
        changes.extend(uploads::removed(open));
    }
    changes.add(manifests::epoch_advanced(&repository));
    let version = image.version;
    let content = content(bytes, facts, object);
    let mut image = Image { content: Some(content.clone()), sealed: None, version: version + 1, ..image };
    image.labels = searchable(&facts.labels);
    let own = manifests::image_row(&repository, &tags::tagged(&image, &content), now);
    changes.merge(tags::intended(&mut image, &content, intended, Drawn { now, first_version })?);
    let details = Details { repository: repository.clone(), hash: bytes.digest, facts: facts.clone() };
    let newest = Newest { repository: repository.clone(), arch: content.arch, hash: bytes.digest };
    changes.extend([
        Write::put(&image, Condition::Version(version))?,
        Write::put(&details, Condition::None)?,
        Write::put(&newest, Condition::None)?,
        Write::put(&Marker { repository }, Condition::None)?,
    ]);
    changes.extend(manifests::overlaid(&own)?);
    Ok(Committed { image, changes })
}

fn content(bytes: &VerifiedBytes, facts: &SifFacts, object: String) -> Content {
    Content {
        size: bytes.size,
        object,
        arch: facts.arch.map(|arch| arch.as_str().to_owned()).unwrap_or_default(),
        signed: facts.signed,
        encrypted: facts.encrypted,
        fingerprints: facts.fingerprints.clone(),
    }
}

/// The labels, as far as they fit into a row that search reads: 4 KiB of them.
fn searchable(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut room = 4096usize;
    let fits = |(key, value): &(&String, &String)| {
        let left = room.checked_sub(key.len() + value.len());
        room = left.unwrap_or(room);
        left.is_some()
    };
    labels.iter().filter(fits).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The digest of an image's own manifest; `None` while it has no bytes.
pub(crate) fn own_manifest(image: &Image) -> Option<OciDigest> {
    let content = image.content.as_ref()?;
    Some(manifests::of_image(&image.repository, &image.hash, content.size).digest)
}

/// Removes an image that never got its bytes. The condition on their charge fails if somebody uploads them in the
/// meantime.
pub(crate) fn removed_without_bytes(image: &Image, charge: Option<&Charge>) -> Changes {
    let unchanged = charge.map_or(Condition::Absent, |charge| Condition::Version(charge.version));
    let key = keys::charge(image.repository.entity(), &image.hash);
    removed(image, None).with([Write::check(key, unchanged)])
}

/// Removes an image, its id, its metadata and its own manifest, but not its tags and its link. `manifest` is the row of
/// its own manifest, if there is one: it counts if a client pushed the same.
pub(crate) fn removed(image: &Image, manifest: Option<&ManifestLinks>) -> Changes {
    let repository = &image.repository;
    let rows = manifest.map_or(0, |row| i64::try_from(row.rows).unwrap_or(0));
    let what = EventKind::ImageRemoved { hash: image.hash };
    let mut changes = Changes::recorded(Place::Repository(repository.clone()), what).with(rows_removed(image));
    changes.extend(accounts::rows(repository.entity(), -rows));
    if let Some(own) = own_manifest(image) {
        changes.add(Write::delete(keys::manifest(repository, &own), Condition::None));
        let names = [image.hash.into()];
        changes.extend(Naming { repository, manifest: own, names: &names, image: Some(image.hash) }.deleted());
    }
    changes
}

/// Removes the rows of an image itself.
pub(crate) fn rows_removed(image: &Image) -> Vec<Write> {
    let mut writes = vec![
        Write::delete(image.key(), Condition::Version(image.version)),
        Write::delete(keys::pointer(image.id), Condition::None),
    ];
    writes.extend(
        image.content.is_some().then(|| Write::delete(keys::details(&image.repository, &image.hash), Condition::None)),
    );
    writes.extend(accounts::rows(image.repository.entity(), -1));
    writes
}
