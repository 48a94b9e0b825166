//! Manifests: the only code that makes their rows, and the epoch that guards which manifests name what in a
//! repository.

use super::backlinks::Naming;
use super::{accounts, blobs};
use crate::domain::manifest::{self, IndexEntry, Manifest as Document};
use crate::domain::{Actor, Digest, OciDigest, Repository, Time};
use crate::error::Error;
use crate::store::keys;
use crate::store::rows::{Container, Manifest, ManifestLinks, Named, Referrer, Tagged};
use crate::store::table::{Condition, Write};
use std::collections::BTreeSet;

/// Increments the repository's epoch: the set of things that its manifests name changes.
pub(crate) fn epoch_advanced(repository: &Repository) -> Write {
    Write::epoch(repository, Condition::Present)
}

/// The same, on condition that nothing was removed in the repository since the row was read.
pub(crate) fn epoch_advanced_unless_removed(container: &Container) -> Write {
    Write::epoch(&container.repository, Condition::Removals(container.removals))
}

/// The same, on condition that the epoch has not changed since the row was read.
pub(crate) fn epoch_advanced_alone(container: &Container) -> Write {
    Write::epoch(&container.repository, Condition::Epoch(container.epoch))
}

/// The same for a removal, on condition that the epoch has not changed since the row was read.
pub(crate) fn epoch_advanced_from(container: &Container) -> Write {
    Write::removal(&container.repository, container.epoch)
}

/// A manifest that a client pushed, with the facts about it.
#[derive(Debug)]
pub(crate) struct Pushed<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) digest: OciDigest,
    pub(crate) media_type: &'a str,
    pub(crate) body: &'a str,
    pub(crate) document: &'a Document,
    /// The object that holds the bytes, if they are too long for a row.
    pub(crate) object: Option<String>,
    /// The things that it names, see [`named_by`].
    pub(crate) names: Vec<OciDigest>,
    /// The library image that is its layer.
    pub(crate) image: Option<Digest>,
    /// The bytes charged to its entity.
    pub(crate) cost: u64,
    /// How many rows it counts as.
    pub(crate) rows: u64,
    pub(crate) created_by: Option<Actor>,
    pub(crate) created: Time,
    /// Whether it must not be there before: it is charged.
    pub(crate) new: bool,
    /// Whether it has its backlinks already.
    pub(crate) linked: bool,
}

/// Writes a manifest that a client pushed, and its entry among the referrers of its subject.
pub(crate) fn pushed(new: Pushed<'_>) -> Result<Vec<Write>, Error> {
    let Pushed { repository, digest, media_type, body, document, object, names, .. } = new;
    let row = Manifest {
        repository: repository.clone(),
        digest,
        media_type: media_type.to_owned(),
        size: body.len() as u64,
        cost: new.cost,
        rows: new.rows,
        body: if object.is_some() { String::new() } else { body.to_owned() },
        object,
        names,
        subject: document.subject,
        image: new.image,
        created_by: new.created_by,
        created: new.created,
    };
    let mut writes = vec![Write::put(&row, if new.new { Condition::Absent } else { Condition::Present })?];
    if !new.linked {
        writes.extend(Naming::from(&row).written()?);
    }
    if let Some(object) = &row.object {
        // If an answer was lost on its way, the object may have been ours and deleted with the row. It must not be
        // named again.
        writes.push(Write::check(keys::condemned(object), Condition::Absent));
    }
    if let Some(subject) = document.subject {
        let referrer = Referrer {
            repository: repository.clone(),
            subject,
            digest,
            artifact_type: document.artifact_type.clone(),
            descriptor: document.descriptor(media_type, &digest, body.len()),
        };
        writes.push(Write::put(&referrer, Condition::None)?);
    }
    Ok(writes)
}

/// What a manifest names, of which `there` is in the repository. It also keeps its subject from being removed.
pub(crate) fn named_by(there: &BTreeSet<OciDigest>, document: &Document) -> Vec<OciDigest> {
    there.iter().copied().chain(document.subject).collect()
}

/// Writes a manifest of ours, whatever is there, with its backlinks.
pub(crate) fn overlaid(row: &Manifest) -> Result<Vec<Write>, Error> {
    let mut writes = vec![Write::overlay(row)?];
    writes.extend(Naming::from(row).written()?);
    Ok(writes)
}

/// Removes a manifest with its backlinks, gives back its cost, and condemns the object that held it.
pub(crate) fn removed(row: &ManifestLinks, now: Time) -> Result<Vec<Write>, Error> {
    let mut writes = removed_alone(row, now)?;
    writes.extend(Naming::from(row).deleted());
    Ok(writes)
}

/// The same without the backlinks.
pub(crate) fn removed_alone(row: &ManifestLinks, now: Time) -> Result<Vec<Write>, Error> {
    let mut writes = vec![Write::delete(keys::manifest(&row.repository, &row.digest), Condition::Present)];
    writes.extend(accounts::manifest_refunded(row));
    if let Some(subject) = &row.subject {
        writes.push(Write::delete(keys::referrer(&row.repository, subject, &row.digest), Condition::None));
    }
    if let Some(object) = &row.object {
        writes.push(blobs::condemned(object, None, now)?);
    }
    Ok(writes)
}

/// The manifest of a library image of `size` bytes, for registry clients. The same image in the same repository always
/// has the same manifest.
pub(crate) fn of_image(repository: &Repository, hash: &Digest, size: u64) -> Named {
    named(&manifest::of_sif(title(repository), hash, size), manifest::OCI_MANIFEST)
}

/// The row of the manifest of a library image.
pub(crate) fn image_row(repository: &Repository, image: &Tagged, now: Time) -> Manifest {
    let body = manifest::of_sif(title(repository), &image.hash, image.content.size);
    let names = vec![image.hash.into(), Digest::of(manifest::EMPTY).into()];
    let created_by = image.created_by.clone();
    Manifest { names, image: Some(image.hash), created_by, ..own_row(repository, body, manifest::OCI_MANIFEST, now) }
}

/// The row of an index of such manifests, one for each architecture.
pub(crate) fn index_row<'a>(
    repository: &Repository,
    listed: impl IntoIterator<Item = (&'a str, &'a Manifest)>,
    now: Time,
) -> Manifest {
    let mut names = Vec::new();
    let listed = listed.into_iter().map(|(arch, row)| {
        names.push(row.digest);
        IndexEntry { arch, digest: Digest::of(row.body.as_bytes()), size: row.body.len() }
    });
    let body = manifest::index_of(listed);
    Manifest { names, ..own_row(repository, body, manifest::OCI_INDEX, now) }
}

/// A manifest that we write ourselves. It is short, costs nothing, and comes with an image or a tag that counts. If a
/// client has pushed the same, that still counts: it is written over the other without taking that away.
fn own_row(repository: &Repository, body: String, media_type: &str, now: Time) -> Manifest {
    let Named { digest, media_type, size } = named(&body, media_type);
    Manifest {
        repository: repository.clone(),
        digest,
        media_type,
        size,
        cost: 0,
        rows: 0,
        body,
        object: None,
        names: Vec::new(),
        subject: None,
        image: None,
        created_by: None,
        created: now,
    }
}

fn named(body: &str, media_type: &str) -> Named {
    let digest = Digest::of(body.as_bytes()).into();
    Named { digest, media_type: media_type.to_owned(), size: body.len() as u64 }
}

/// The last part of a repository's name, used as the title of its images.
pub(crate) fn title(repository: &Repository) -> &str {
    repository.rest().rsplit('/').next().unwrap_or_default()
}
