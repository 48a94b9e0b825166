//! What a sweep finds in the table, to be worked through after the scan.

use super::tally::Tally;
use crate::changes::{Changes, downloads};
use crate::domain::quota::Numbers;
use crate::domain::{OciDigest, Repository};
use crate::service::history::KEPT;
use crate::store::keys::Key;
use crate::store::rows::{
    Condemned, Downloaded, Image, Link, RemovedContainer, RemovedEntity, Session, Stream, TagThen,
};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The findings of a sweep in the table.
#[derive(Default)]
pub(super) struct Inventory {
    pub(super) objects: Objects,
    pub(super) uploads: BTreeSet<String>,
    /// What the account of each entity says, and what is its sum.
    pub(super) accounts: BTreeMap<String, Numbers>,
    pub(super) tally: Tally,
    /// Images whose bytes never came, expired sessions, and objects that were condemned long enough ago: they go after
    /// the scan, as streams do.
    pub(super) images: Vec<Image>,
    pub(super) sessions: Vec<Session>,
    pub(super) condemned: Vec<Condemned>,
    /// Expired streams.
    pub(super) streams: Vec<Stream>,
    /// The repository whose rows are being read.
    pub(super) here: Here,
    /// Links that are old enough to remove and that no manifest seemed to name, by repository.
    pub(super) links: BTreeMap<Repository, Vec<OciDigest>>,
    /// Deletions of wrong passwords that count no more.
    pub(super) wrong_passwords: Vec<Changes>,
    /// Deletions of tries to register that count no more.
    pub(super) registrations: Vec<Changes>,
    /// Deletions of events whose time is over.
    pub(super) events: Vec<Changes>,
    /// Deletions of what is too old in the history of tags.
    pub(super) history: Vec<Changes>,
    /// Deletions of numbers of downloads of days that are long ago or of what is gone since long ago, and of marks of
    /// batches that nobody brings again.
    pub(super) downloads: Vec<Changes>,
    /// Deletions of shares and invitations that ended long enough ago, and of their entries in lists.
    pub(super) ended: Vec<Changes>,
    /// Containers and entities that were deleted, and of which something is left.
    pub(super) removed_containers: Vec<RemovedContainer>,
    pub(super) removed_entities: Vec<RemovedEntity>,
    /// How many others each log has.
    pub(super) logs: BTreeMap<String, u64>,
    /// The most rows of each entity.
    pub(super) most_rows: BTreeMap<String, u64>,
}

/// Which objects rows name: of millions of them, only a number each. If two objects ever have the same number, one that
/// nothing names stays.
#[derive(Default)]
pub(super) struct Objects(HashSet<u64>);

impl Objects {
    fn number(object: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        object.hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn insert(&mut self, object: &str) {
        self.0.insert(Self::number(object));
    }

    pub(super) fn contains(&self, object: &str) -> bool {
        self.0.contains(&Self::number(object))
    }
}

/// What was read of one repository: a scan comes to all rows of a partition one after the other.
#[derive(Default)]
pub(super) struct Here {
    /// Its partition.
    pub(super) pk: String,
    /// Links that are old enough to remove.
    pub(super) links: Vec<Link>,
    /// The things that its manifests name.
    pub(super) named: HashSet<OciDigest>,
    /// Sums of downloads of which none was lately.
    pub(super) sums: Vec<Downloaded>,
    /// The sort keys of the rows that come after them, among them those of its tags and images.
    pub(super) after_sums: HashSet<String>,
    /// The history of the tag whose rows are being read, as far as it is kept.
    pub(super) history: VecDeque<TagThen>,
}

impl Here {
    /// Takes in the next row of the history of a tag. Returns one that is too old to be kept.
    pub(super) fn tag_then(&mut self, row: TagThen) -> Option<TagThen> {
        if self.history.back().is_some_and(|last| last.led.tag != row.led.tag) {
            self.history.clear();
        }
        self.history.push_back(row);
        if self.history.len() > KEPT { self.history.pop_front() } else { None }
    }
}

impl Inventory {
    /// Comes to a row. If its partition is another than that of the row before, notes of that one the links that no
    /// manifest names, and sums of downloads of what is gone. If rows should ever come in another order, it notes too
    /// many links, and each is looked at again.
    pub(super) fn come_to(&mut self, Key { pk, sk }: &Key) {
        if self.here.pk == *pk {
            if !self.here.sums.is_empty() {
                self.here.after_sums.insert(sk.clone());
            }
            return;
        }
        self.leave(pk);
    }

    /// Leaves the partition of the row before for another.
    pub(super) fn leave(&mut self, pk: &str) {
        let Here { links, named, sums, after_sums, .. } =
            std::mem::replace(&mut self.here, Here { pk: pk.to_owned(), ..Here::default() });
        for sum in sums.into_iter().filter(|sum| !sum.counted().iter().any(|key| after_sums.contains(&key.sk))) {
            self.downloads.push(downloads::forgotten(&sum));
        }
        for link in links.into_iter().filter(|link| !named.contains(&link.name)) {
            self.links.entry(link.repository).or_default().push(link.name);
        }
    }
}
