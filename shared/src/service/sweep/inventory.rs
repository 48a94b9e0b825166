//! What a sweep finds in the table, to be worked through after the scan.

use super::tally::Tally;
use crate::changes::Changes;
use crate::domain::quota::Numbers;
use crate::domain::{OciDigest, Repository};
use crate::store::rows::{Condemned, Image, RemovedContainer, RemovedEntity, Session, Stream};
use std::collections::{BTreeMap, BTreeSet};

/// The findings of a sweep in the table.
#[derive(Default)]
pub(super) struct Inventory {
    pub(super) objects: BTreeSet<String>,
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
    /// Links that are old enough to remove, by repository.
    pub(super) links: BTreeMap<Repository, BTreeSet<OciDigest>>,
    /// Deletions of wrong passwords that count no more.
    pub(super) wrong_passwords: Vec<Changes>,
    /// Deletions of tries to register that count no more.
    pub(super) registrations: Vec<Changes>,
    /// Deletions of events whose time is over.
    pub(super) events: Vec<Changes>,
    /// Deletions of shares and invitations that ended long enough ago, and of their entries in lists.
    pub(super) ended: Vec<Changes>,
    /// Containers and entities that were deleted, and of which something is left.
    pub(super) removed_containers: Vec<RemovedContainer>,
    pub(super) removed_entities: Vec<RemovedEntity>,
    /// How many others each log has.
    pub(super) logs: BTreeMap<String, u64>,
    /// The most rows of each entity.
    pub(super) most_rows: BTreeMap<String, u64>,
    /// Backlinks that were written ahead of their manifests long enough ago.
    pub(super) backlinks: BTreeMap<(Repository, OciDigest), Vec<OciDigest>>,
    /// The things that manifests name.
    pub(super) named: BTreeMap<Repository, BTreeSet<OciDigest>>,
}
