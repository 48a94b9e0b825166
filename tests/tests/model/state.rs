//! What must be true after what happened, and whether it is.

use crate::fixture::{Fixture, LONG_DOCUMENT, TAGS};
use crate::operations::{Operation, missed};
use shared::domain::{Digest, OciDigest, Repository, Time};
use shared::service::registry::blob;
use shared::service::registry::pull::{self, Reference};
use shared::service::registry::remove;
use shared::service::scrub;
use shared::service::settings::{self, Settings};
use shared::store::keys::{self, RowKind};
use shared::store::rows::{
    Account, Blob, Charge, Condemned, Image, Link, Manifest, RemovedContainer, Session, Stream, Tag,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// How long a link that no manifest names stays after a push last asked for it.
const LEASE: Duration = Duration::from_hours(24);

/// How certain it is that an operation had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Maybe,
    Sure,
}

/// An operation that ended, and between which calls it ran.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Happened {
    pub(crate) place: usize,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) change: Change,
}

/// A thing that may or may not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    /// A manifest, by its index in the fixture.
    Manifest(usize),
    Tag(usize),
}

/// What an operation did to a thing: put it (a tag with the manifest that it leads to), or removed it.
#[derive(Debug, Clone, Copy)]
struct Touch {
    at: Happened,
    sure: bool,
    put: Option<usize>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Losses {
    pub(crate) lost: u64,
    pub(crate) back: u64,
    pub(crate) told: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    /// By place: the manifests that are there.
    present: Vec<BTreeSet<usize>>,
    touched: BTreeMap<(usize, Thing), Vec<Touch>>,
    /// The tags that were frozen when nothing ran, and that nobody asked to unfreeze since: what each named, and all
    /// manifests that it led to.
    frozen: BTreeMap<(usize, usize), (OciDigest, BTreeSet<OciDigest>)>,
    /// The blobs whose bytes were lost, with the objects that had them.
    lost: BTreeMap<usize, String>,
    /// The blobs of which a push since the last check was told that they are there, with the place.
    pushed: BTreeSet<(usize, usize)>,
    /// The same of the long document, by place; and the places where a push of it was acknowledged since.
    lost_documents: BTreeMap<usize, String>,
    pushed_documents: BTreeSet<usize>,
    /// How many were lost, how many of them came back, and how often somebody was told that they are lost.
    pub(crate) losses: Losses,
}

/// What happens to the files of a blob.
pub(crate) const DAMAGES: [fn(&Path); 3] = [
    |file| std::fs::remove_file(file).unwrap(),
    |file| std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(5).unwrap(),
    |file| {
        let mut bytes = std::fs::read(file).unwrap();
        bytes[7] ^= 1;
        std::fs::write(file, bytes).unwrap();
    },
];
/// The one that no request notices, only a scrub.
pub(crate) const SILENT: usize = 2;

/// The contents of the table.
#[derive(Default)]
struct Table {
    links: Vec<Link>,
    manifests: Vec<Manifest>,
    blobs: BTreeMap<Digest, Blob>,
    charges: Vec<Charge>,
    accounts: Vec<Account>,
    sessions: Vec<Session>,
    streams: Vec<Stream>,
    condemned: Vec<Condemned>,
    images: Vec<Image>,
    /// Repositories that were deleted, and of which something is left.
    removed: BTreeSet<Repository>,
    /// How many rows of each entity count by their keys alone.
    counted: BTreeMap<String, u64>,
}

impl Table {
    async fn read(fixture: &Fixture) -> Self {
        let (mut table, mut start) = (Self::default(), None);
        loop {
            let (rows, next) = fixture.app.table.scan(start).await.unwrap();
            for row in rows {
                if let Some(entity) = keys::counted(&row.key) {
                    *table.counted.entry(entity.to_owned()).or_default() += 1;
                }
                match keys::kind(&row.key) {
                    RowKind::Link => table.links.push(row.read().unwrap()),
                    RowKind::Manifest => table.manifests.push(row.read().unwrap()),
                    RowKind::Blob => {
                        let blob: Blob = row.read().unwrap();
                        table.blobs.insert(blob.digest, blob);
                    }
                    RowKind::Charge => table.charges.push(row.read().unwrap()),
                    RowKind::Account => table.accounts.push(row.read().unwrap()),
                    RowKind::Session => table.sessions.push(row.read().unwrap()),
                    RowKind::Stream => table.streams.push(row.read().unwrap()),
                    RowKind::Condemned => table.condemned.push(row.read().unwrap()),
                    RowKind::Image => table.images.push(row.read().unwrap()),
                    RowKind::RemovedContainer => {
                        table.removed.insert(row.read::<RemovedContainer>().unwrap().repository);
                    }
                    _ => {}
                }
            }
            start = next;
            if start.is_none() {
                return table;
            }
        }
    }

    /// The manifests of a repository that one of them leads to, and itself.
    fn below(&self, repository: &Repository, manifest: OciDigest) -> BTreeSet<OciDigest> {
        let (mut all, mut next) = (BTreeSet::new(), vec![manifest]);
        while let Some(digest) = next.pop() {
            let row = self.manifests.iter().find(|row| row.repository == *repository && row.digest == digest);
            if let Some(row) = row.filter(|_| all.insert(digest)) {
                next.extend(&row.names);
            }
        }
        all
    }

    /// What anybody can see.
    fn manifests_in(&self, fixture: &Fixture, place: usize) -> BTreeSet<OciDigest> {
        let repository = &fixture.places[place].repository;
        if self.removed.contains(repository) {
            return BTreeSet::new();
        }
        self.manifests.iter().filter(|one| one.repository == *repository).map(|one| one.digest).collect()
    }

    /// Links, charges, accounts and blobs agree.
    fn agrees(&self) {
        let mut links: BTreeMap<(String, Digest), u64> = BTreeMap::new();
        for link in &self.links {
            *links.entry((link.repository.entity().to_string(), link.digest)).or_default() += 1;
            assert_eq!(self.blobs[&link.digest].object, link.object, "{link:?}");
        }
        let shown = |image: &&Image| image.content.is_some() && !self.removed.contains(&image.repository);
        for image in self.images.iter().filter(shown) {
            let here = |link: &Link| link.repository == image.repository && link.name == image.hash.into();
            assert!(self.links.iter().any(here), "the image {} in {} has no bytes", image.hash, image.repository);
        }
        let mut entities: BTreeMap<Digest, u64> = BTreeMap::new();
        for (_, digest) in links.keys() {
            *entities.entry(*digest).or_default() += 1;
        }
        let by_blobs = self.blobs.values().map(|blob| (blob.digest, blob.entities)).collect();
        assert_eq!(entities, by_blobs, "entities that have each blob");
        let mut sessions: BTreeMap<(String, Digest), u64> = BTreeMap::new();
        for session in &self.sessions {
            *sessions.entry((session.repository.entity().to_string(), session.hash)).or_default() += 1;
        }
        let mut by_charges = (BTreeMap::new(), BTreeMap::new());
        let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut rows = self.counted.clone();
        for charge in &self.charges {
            let key = (charge.entity.to_string(), charge.digest);
            let sum = sums.entry(key.0.clone()).or_default();
            *(if charge.links == 0 { &mut sum.1 } else { &mut sum.0 }) += charge.size;
            by_charges.0.insert(key.clone(), charge.links);
            by_charges.1.insert(key, charge.sessions);
        }
        for counts in [&mut by_charges.0, &mut by_charges.1] {
            counts.retain(|_, count| *count > 0);
        }
        assert_eq!((links, sessions), by_charges, "links and sessions of each charge");
        for stream in &self.streams {
            sums.entry(stream.repository.entity().to_string()).or_default().1 += stream.reserved;
            *rows.entry(stream.repository.entity().to_string()).or_default() += 1;
        }
        for session in &self.sessions {
            *rows.entry(session.repository.entity().to_string()).or_default() += 1;
        }
        for of in self.condemned.iter().filter_map(|condemned| condemned.of.as_ref()) {
            *rows.entry(of.entity.to_string()).or_default() += 1;
        }
        for manifest in &self.manifests {
            sums.entry(manifest.repository.entity().to_string()).or_default().0 += manifest.cost;
            *rows.entry(manifest.repository.entity().to_string()).or_default() += manifest.rows;
        }
        for account in &self.accounts {
            let sum = sums.remove(&account.entity.to_string()).unwrap_or_default();
            assert_eq!((account.quota.used(), account.quota.reserved), sum, "{}", account.entity);
            let rows = rows.get(account.entity.as_str()).copied().unwrap_or_default();
            assert_eq!(account.quota.rows, rows, "rows of {}", account.entity);
        }
        assert!(sums.values().all(|sum| *sum == (0, 0)), "{sums:?}");
    }

    /// Links that no manifest names.
    fn unnamed(&self) -> impl Iterator<Item = &Link> {
        let names = |link: &Link| {
            let here = self.manifests.iter().filter(|manifest| manifest.repository == link.repository);
            here.flat_map(|manifest| &manifest.names).any(|name| *name == link.name)
        };
        self.links.iter().filter(move |link| !names(link))
    }
}

impl Model {
    pub(crate) fn new(fixture: &Fixture) -> Self {
        Self { present: vec![BTreeSet::new(); fixture.places.len()], ..Self::default() }
    }

    fn touch(&mut self, at: Happened, thing: Thing, put: Option<usize>, sure: bool) {
        let sure = sure && at.change == Change::Sure;
        self.touched.entry((at.place, thing)).or_default().push(Touch { at, sure, put });
    }

    /// Whether bytes of anything are lost.
    pub(crate) fn misses_any(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Damages the bytes of a blob that is in the installation, while nothing else runs. Whoever asks for them is told so
    /// from now on.
    pub(crate) async fn lose(&mut self, fixture: &Fixture, blob: usize, how: usize) {
        let table = Table::read(fixture).await;
        let Some(row) = table.blobs.get(&fixture.blobs[blob].digest) else { return };
        if self.lost.contains_key(&blob) {
            return;
        }
        assert!(fixture.damage(&fixture.blobs[blob].bytes, DAMAGES[how]) > 0, "the file of {}", row.digest);
        if how == SILENT {
            let (mut after, mut damaged) = (None, 0);
            loop {
                let part = scrub::scrub(&fixture.app, &fixture.who, after, 1 << 30).await.unwrap();
                damaged += part.damaged.iter().filter(|one| one.digest == row.digest.into()).count();
                after = part.next;
                if after.is_none() {
                    break;
                }
            }
            assert!(damaged > 0, "a scrub did not find {}", row.digest);
        }
        self.lost.insert(blob, row.object.clone());
        self.losses.lost += 1;
    }

    /// The same with the long document, in every place that has it.
    pub(crate) async fn lose_document(&mut self, fixture: &Fixture, how: usize) {
        let table = Table::read(fixture).await;
        let digest = fixture.manifest(0, LONG_DOCUMENT);
        let have = table.manifests.iter().filter(|row| row.digest == digest);
        let have = have.filter_map(|row| Some((fixture.at(&row.repository), row.object.clone()?)));
        let have: BTreeMap<usize, String> = have.collect();
        if have.is_empty() || !self.lost_documents.is_empty() {
            return;
        }
        assert!(fixture.damage(&fixture.documents[LONG_DOCUMENT].body.bytes, DAMAGES[how]) > 0);
        self.losses.lost += have.len() as u64;
        self.lost_documents = have;
    }

    async fn documents_lost_or_back(&mut self, fixture: &Fixture, table: &Table) {
        let pushed = std::mem::take(&mut self.pushed_documents);
        let Fixture { app, who, places, documents, .. } = fixture;
        let (digest, bytes) = (fixture.manifest(0, LONG_DOCUMENT), &documents[LONG_DOCUMENT].body.bytes);
        for (place, object) in self.lost_documents.clone() {
            let repository = &places[place].repository;
            let row = table.manifests.iter().find(|row| row.repository == *repository && row.digest == digest);
            let row = row.filter(|_| !table.removed.contains(repository));
            let got = pull::get(app, who, repository, &Reference::Digest(digest)).await;
            if row.is_some_and(|row| row.object.as_ref() == Some(&object)) {
                let why = got.err().map_or_else(|| "it is there".to_owned(), |error| error.to_string());
                assert!(why.contains("lost or damaged"), "the long document in {repository}: {why}");
                assert!(!pushed.contains(&place), "LOST: its push to {repository} was acknowledged");
                self.losses.told += 1;
                continue;
            }
            if row.is_some() {
                assert!(got.unwrap().1 == *bytes, "LOST: other bytes of the long document in {repository}");
                self.losses.back += 1;
            }
            self.lost_documents.remove(&place);
        }
    }

    /// Finds out which lost bytes are back, and checks what is said of the others.
    async fn lost_or_back(&mut self, fixture: &Fixture, table: &Table) {
        let pushed = std::mem::take(&mut self.pushed);
        for (blob, object) in self.lost.clone() {
            let (digest, size) = (fixture.blobs[blob].digest, fixture.blobs[blob].bytes.len() as u64);
            // It may have gone, and come again in another object.
            let same = table.blobs.get(&digest).is_some_and(|row| row.object == object);
            if !same || fixture.app.objects.has(&object, size).await.unwrap() {
                self.losses.back += u64::from(same);
                self.lost.remove(&blob);
                continue;
            }
            for (place, here) in fixture.places.iter().enumerate() {
                let shown = !table.removed.contains(&here.repository);
                if shown && table.links.iter().any(|link| link.repository == here.repository && link.digest == digest) {
                    let told = pushed.contains(&(place, blob));
                    assert!(!told, "LOST: a push of {digest} to {} was acknowledged", here.repository);
                    missed(fixture, place, blob).await;
                    self.losses.told += 1;
                }
            }
        }
    }

    /// Notes what an operation did, or may have done.
    pub(crate) fn note(&mut self, fixture: &Fixture, at: Happened, operation: &Operation) {
        if at.change == Change::Sure {
            let blobs = match *operation {
                Operation::Push { document, .. } => {
                    let all = fixture.below(document).into_iter().chain([document]);
                    all.flat_map(|one| fixture.documents[one].blobs.clone()).collect()
                }
                Operation::Image { sif, .. } => vec![fixture.sifs[sif].0],
                Operation::Bring { blob } => vec![blob],
                _ => Vec::new(),
            };
            if let Operation::Push { document: LONG_DOCUMENT, .. } | Operation::Name { document: LONG_DOCUMENT, .. } =
                *operation
            {
                self.pushed_documents.insert(at.place);
            }
            self.pushed.extend(blobs.into_iter().map(|blob| (at.place, blob)));
        }
        let own = |sif: usize| fixture.documents.len() + sif;
        let library = fixture.places[at.place].collection.is_some();
        match *operation {
            Operation::Push { document, tag, .. } => {
                self.pushed(fixture, at, document, tag);
                for child in fixture.below(document) {
                    self.pushed(fixture, at, child, None);
                }
            }
            Operation::Name { document, tag } => self.pushed(fixture, at, document, Some(tag)),
            Operation::Image { sif, tag } => {
                self.touch(at, Thing::Manifest(own(sif)), Some(0), true);
                self.touch(at, Thing::Tag(tag), None, false);
            }
            Operation::Untag { tag } => self.touch(at, Thing::Tag(tag), None, true),
            Operation::Remove { thing } => {
                self.touch(at, Thing::Manifest(thing), None, true);
                let sif = fixture
                    .documents
                    .get(thing)
                    .map_or(Some(thing.wrapping_sub(fixture.documents.len())), |one| one.sif);
                // The library image may be deleted with it, and all manifests of the same image.
                for other in sif.filter(|_| library).map(|sif| fixture.of_sif(sif)).into_iter().flatten() {
                    self.touch(at, Thing::Manifest(other), None, false);
                }
                (0..TAGS).for_each(|tag| self.touch(at, Thing::Tag(tag), None, false));
            }
            Operation::Delete { sif } => {
                for thing in fixture.of_sif(sif) {
                    self.touch(at, Thing::Manifest(thing), None, true);
                }
                (0..TAGS).for_each(|tag| self.touch(at, Thing::Tag(tag), None, false));
            }
            Operation::Cascade { force } => {
                for thing in 0..fixture.documents.len() + fixture.sifs.len() {
                    self.touch(at, Thing::Manifest(thing), None, true);
                }
                (0..TAGS).for_each(|tag| self.touch(at, Thing::Tag(tag), None, true));
                if force {
                    self.frozen.retain(|(place, _), _| *place != at.place);
                }
            }
            Operation::Freeze { tag, frozen } => {
                if !frozen {
                    self.frozen.remove(&(at.place, tag));
                }
            }
            Operation::Bring { .. }
            | Operation::Begin { .. }
            | Operation::Pull { .. }
            | Operation::Take { .. }
            | Operation::Sweep => {}
        }
        let retags = matches!(
            operation,
            Operation::Push { .. }
                | Operation::Name { .. }
                | Operation::Image { .. }
                | Operation::Remove { .. }
                | Operation::Delete { .. }
        );
        // A tag that lost or gained one of its images leads to the library's own manifests of the others.
        for sif in (0..fixture.sifs.len()).filter(|_| retags && library) {
            self.touch(at, Thing::Manifest(own(sif)), Some(0), false);
        }
    }

    fn pushed(&mut self, fixture: &Fixture, at: Happened, document: usize, tag: Option<usize>) {
        self.touch(at, Thing::Manifest(document), Some(0), true);
        if let Some(sif) = fixture.documents[document].sif.filter(|_| fixture.places[at.place].collection.is_some()) {
            // The library's own manifest of it may have been deleted before, and then stays away.
            self.touch(at, Thing::Manifest(fixture.documents.len() + sif), Some(0), false);
        }
        if let Some(tag) = tag {
            self.touch(at, Thing::Tag(tag), Some(document), true);
        }
    }

    /// What must be true of a thing: `Some(true)` that it is there, `Some(false)` that it is not, `None` if both are
    /// possible.
    fn must(touches: &[Touch], before: bool) -> Option<bool> {
        let puts = || touches.iter().filter(|touch| touch.put.is_some());
        let takes = || touches.iter().filter(|touch| touch.put.is_none());
        if puts().any(|put| put.sure && takes().all(|take| take.at.to < put.at.from)) {
            return Some(true);
        }
        if takes().any(|take| take.sure && puts().all(|put| put.at.to < take.at.from)) {
            return Some(false);
        }
        match (puts().next(), takes().next()) {
            (_, None) if before => Some(true),
            (None, _) if !before => Some(false),
            _ => None,
        }
    }

    /// Compares what is there with what must be, and continues from what is there.
    pub(crate) async fn settle(&mut self, fixture: &Fixture) {
        let table = Table::read(fixture).await;
        table.agrees();
        self.lost_or_back(fixture, &table).await;
        self.documents_lost_or_back(fixture, &table).await;
        let all = std::mem::take(&mut self.touched);
        let of = |place, thing| all.get(&(place, thing)).map(Vec::as_slice).unwrap_or_default();
        for (place, here) in fixture.places.iter().enumerate() {
            let there = table.manifests_in(fixture, place);
            for thing in 0..fixture.documents.len() + fixture.sifs.len() {
                let is = there.contains(&fixture.manifest(place, thing));
                let touches = of(place, Thing::Manifest(thing));
                let before = self.present[place].contains(&thing);
                if let Some(must) = Self::must(touches, before) {
                    assert_eq!(is, must, "manifest {thing} in {}, before {before}: {touches:?}", here.repository);
                }
                if is {
                    self.present[place].insert(thing)
                } else {
                    self.present[place].remove(&thing)
                };
            }
            let mut tags: Vec<Tag> = fixture.app.table.query_all(keys::tags(&here.repository)).await.unwrap();
            tags.retain(|_| !table.removed.contains(&here.repository));
            for tag in &tags {
                assert!(there.contains(&tag.named.digest), "{}:{} leads nowhere", here.repository, tag.name);
            }
            for at in 0..TAGS {
                let tag = tags.iter().find(|tag| tag.name == Fixture::tag(at));
                if let Some((named, below)) = self.frozen.get(&(place, at)) {
                    let is = tag.map(|tag| (tag.frozen, tag.named.digest));
                    assert_eq!(is, Some((true, *named)), "the frozen tag {}:v{at}", here.repository);
                    let gone: Vec<_> = below.difference(&there).collect();
                    assert!(gone.is_empty(), "{}:v{at} is frozen, and led to {gone:?}", here.repository);
                }
                if let Some(tag) = tag.filter(|tag| tag.frozen) {
                    let below = table.below(&here.repository, tag.named.digest);
                    self.frozen.insert((place, at), (tag.named.digest, below));
                }
                let touches = of(place, Thing::Tag(at));
                let Some(last) = touches.iter().max_by_key(|touch| touch.at.from) else { continue };
                let alone = touches.iter().all(|touch| touch.at.from == last.at.from || touch.at.to < last.at.from);
                if let (true, true, Some(document)) = (last.sure, alone, last.put) {
                    let leads = tags.iter().find(|tag| tag.name == Fixture::tag(at)).map(|tag| tag.named.digest);
                    assert_eq!(leads, Some(fixture.manifest(place, document)), "{}:v{at}", here.repository);
                }
            }
            for thing in self.present[place].clone() {
                for blob in fixture.needs(thing).into_iter().filter(|blob| !self.lost.contains_key(blob)) {
                    self.readable(fixture, place, blob, thing).await;
                }
            }
        }
    }

    async fn readable(&self, fixture: &Fixture, place: usize, blob: usize, thing: usize) {
        let (repository, blob) = (&fixture.places[place].repository, &fixture.blobs[blob]);
        let found = blob::find(&fixture.app, &fixture.who, repository, &blob.digest.into()).await;
        let found =
            found.unwrap_or_else(|error| panic!("LOST: {} of manifest {thing} in {repository}: {error}", blob.digest));
        let bytes = found.bytes(&fixture.app, None).await.unwrap().collect().await.unwrap().into_bytes();
        assert!(bytes == blob.bytes, "LOST: other bytes for {} in {repository}", blob.digest);
    }

    /// After a sweep that began at `now` and ran alone, everything that was old enough and not named is gone.
    pub(crate) async fn swept(&self, fixture: &Fixture, now: Time) {
        let table = Table::read(fixture).await;
        for link in table.unnamed() {
            assert!(link.seen.plus(LEASE) > now, "{link:?} is still there");
        }
        assert!(table.streams.iter().all(|stream| stream.expires > now));
        assert!(table.sessions.iter().all(|session| session.expires > now));
        assert!(table.removed.is_empty(), "{:?}", table.removed);
    }

    /// Deletes all manifests, once no tag is frozen.
    pub(crate) async fn delete_all(&mut self, fixture: &Fixture) {
        self.frozen.clear();
        let settings = Settings { frozen: Some(false), ..Settings::default() };
        for place in &fixture.places {
            for tag in 0..TAGS {
                // Some do not exist.
                let _ =
                    settings::tag(&fixture.app, &fixture.who, &place.repository, &Fixture::tag(tag), &settings).await;
            }
        }
        for manifest in Table::read(fixture).await.manifests {
            let reference = Reference::Digest(manifest.digest);
            // Some are deleted with others.
            let _ = Box::pin(remove::manifest(&fixture.app, &fixture.who, &manifest.repository, &reference)).await;
        }
        let table = Table::read(fixture).await;
        // A deletion of a whole repository that died in the middle: the sweeps that follow end it.
        let left: Vec<_> = table.manifests.iter().filter(|one| !table.removed.contains(&one.repository)).collect();
        assert!(left.is_empty(), "{left:?}");
        self.present.iter_mut().for_each(BTreeSet::clear);
    }

    /// After days, nothing is left that nothing names.
    pub(crate) async fn nothing_left_over(&self, fixture: &Fixture, empty: bool) {
        let table = Table::read(fixture).await;
        table.agrees();
        stackroom_tests::backlinks::agree(&fixture.app.table).await;
        assert_eq!(table.unnamed().count(), 0, "links that nothing names");
        let held = (table.sessions.len(), table.streams.len(), table.condemned.len());
        assert_eq!(held, (0, 0, 0), "sessions, streams and condemned objects");
        assert!(table.removed.is_empty(), "{:?}", table.removed);
        assert!(table.accounts.iter().all(|account| account.quota.reserved == 0));
        assert!(fixture.app.objects.open_parts().await.unwrap().is_empty());
        let mut objects: BTreeSet<String> = BTreeSet::new();
        let mut last = None;
        loop {
            let page = fixture.app.objects.list(last.clone()).await.unwrap();
            let Some(listed) = page.last() else { break };
            last = Some(listed.object.clone());
            objects.extend(page.into_iter().map(|listed| listed.object));
        }
        let mut named: BTreeSet<String> = table.blobs.values().map(|blob| blob.object.clone()).collect();
        named.extend(table.manifests.iter().filter_map(|manifest| manifest.object.clone()));
        // A scrub has taken away what was damaged; of the others, only the files are gone.
        for object in self.lost.values().chain(self.lost_documents.values()) {
            named.remove(object);
            objects.remove(object);
        }
        assert_eq!(objects, named, "objects in the store, and those that rows name");
        if empty {
            assert!(objects.is_empty() && table.links.is_empty() && table.charges.is_empty());
        }
    }
}
