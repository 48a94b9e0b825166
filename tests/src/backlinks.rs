//! Whether the backlinks of a table are those of its manifests and tags.

use shared::domain::manifest::{EMPTY, of_sif};
use shared::domain::{Digest, OciDigest};
use shared::store::keys::{self, Key, RowKind};
use shared::store::rows::{Backlink, Manifest, Namer, Tag, Wide};
use shared::store::table::Table;
use std::collections::BTreeSet;

/// The most backlinks of a manifest.
const MOST: usize = 30;

/// Checks that each manifest and tag has its backlinks, and that there are no others.
///
/// # Panics
/// If not, or if the table can't be read.
pub async fn agree(table: &Table) {
    let (mut expected, mut there, mut start) = (BTreeSet::<Key>::new(), BTreeSet::new(), None);
    loop {
        let (rows, next) = table.scan(start).await.unwrap();
        for row in rows {
            match keys::kind(&row.key) {
                RowKind::Manifest => {
                    let Manifest { repository, digest, names, image, .. } = row.read().unwrap();
                    let from = Namer::Manifest(digest);
                    let left_out = image.map(|_| OciDigest::from(Digest::of(EMPTY)));
                    let names: Vec<&OciDigest> = names.iter().filter(|name| Some(**name) != left_out).collect();
                    if names.len() > MOST {
                        expected.insert(keys::wide(&repository, &digest));
                    } else {
                        expected.extend(names.iter().map(|name| keys::backlink(&repository, name, &from)));
                    }
                }
                RowKind::Tag => {
                    let Tag { repository, name, images, named, .. } = row.read().unwrap();
                    let title = repository.rest().rsplit('/').next().unwrap();
                    let mut own = images.values().map(|one| of_sif(title, &one.hash, one.content.size));
                    let own =
                        own.next().filter(|own| images.len() == 1 && named.digest == Digest::of(own.as_bytes()).into());
                    if own.is_none() {
                        expected.insert(keys::backlink(&repository, &named.digest, &Namer::Tag(name)));
                    }
                }
                RowKind::Backlink => {
                    let key = row.key.clone();
                    let row: Backlink = row.read().unwrap();
                    assert_eq!(keys::backlink(&row.repository, &row.digest, &row.from), key);
                    there.insert(key);
                }
                RowKind::Wide => {
                    let key = row.key.clone();
                    let row: Wide = row.read().unwrap();
                    assert_eq!(keys::wide(&row.repository, &row.manifest), key);
                    there.insert(key);
                }
                _ => {}
            }
        }
        start = next;
        if start.is_none() {
            break;
        }
    }
    let missing: Vec<&Key> = expected.difference(&there).collect();
    let too_many: Vec<&Key> = there.difference(&expected).collect();
    assert!(missing.is_empty() && too_many.is_empty(), "backlinks: {missing:#?} are missing, {too_many:#?} too many");
}
