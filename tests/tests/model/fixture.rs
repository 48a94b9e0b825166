//! What there is to push: blobs, SIF images, manifests of all kinds, and the repositories for them.

use crate::scheduler::Scheduler;
use axum::body::Bytes;
use embedded::objects::Face;
use serde_json::{Value, json};
use server::local::Local;
use shared::app::{Parts, system_clock};
use shared::auth::{Credential, Keys};
use shared::config::Config;
use shared::domain::{Digest, Id, OciDigest, Repository, TagName, manifest};
use shared::service::create::{self, Properties};
use shared::service::people::users;
use shared::store::keys;
use shared::store::rows::Container;
use shared::{App, Error};
use stackroom_tests::dynamodb::DynamoDb;
use stackroom_tests::functions::on_dynamodb;
use stackroom_tests::layered::Layered;
use stackroom_tests::sif::SifBuilder;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Tags of each repository.
pub(crate) const TAGS: usize = 4;
/// The blob that is longer than a part of the object store, and the one that no document names.
pub(crate) const LONG: usize = 8;
pub(crate) const SPARE: usize = 11;
/// The document whose bytes are in the bucket.
pub(crate) const LONG_DOCUMENT: usize = 5;

/// How far the clock of the installation is ahead, in seconds.
static AHEAD: AtomicU64 = AtomicU64::new(0);

fn clock() -> Duration {
    system_clock() + Duration::from_secs(AHEAD.load(Ordering::Relaxed))
}

/// Some bytes and their digest.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes), bytes: bytes.into() }
    }
}

/// A manifest, and what it needs: the indices of blobs and documents in the fixture.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) kind: &'static str,
    pub(crate) body: Blob,
    pub(crate) blobs: Vec<usize>,
    pub(crate) children: Vec<usize>,
    /// The SIF image that it contains.
    pub(crate) sif: Option<usize>,
}

/// A repository, and the id of its collection if the library can address it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) repository: Repository,
    pub(crate) collection: Option<Id>,
    /// The digests of the manifests that the library makes for the SIF images.
    pub(crate) own: Vec<OciDigest>,
}

pub(crate) struct Fixture {
    pub(crate) app: App,
    pub(crate) face: Face,
    pub(crate) who: Credential,
    pub(crate) blobs: Vec<Blob>,
    /// The blobs that are SIF images, with their architectures.
    pub(crate) sifs: Vec<(usize, &'static str)>,
    pub(crate) documents: Vec<Document>,
    pub(crate) places: Vec<Place>,
    _local: Local,
    folder: TempDir,
}

/// In memory if possible, since nobody wants the data after a crash of this machine.
fn folder() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

impl Fixture {
    pub(crate) async fn new(scheduler: &Scheduler) -> Self {
        let folder = folder();
        // Events expire soon: the state is read by scanning all rows, and no test here needs events.
        let config = Config::read("http://stackroom.example", |name| match name {
            "STACKROOM_EVENT_LIFE" => Some("1".into()),
            // Whoever waits for a turn calls no store, and the scheduler waits for calls.
            "STACKROOM_LONG_READS" => Some("1000".into()),
            _ => None,
        });
        let config = config.unwrap();
        let layer = Layered(scheduler.clone());
        let mut local = Local::open_through(folder.path(), config, &layer).await.unwrap();
        let keys = || Keys::parse(&std::fs::read_to_string(folder.path().join("keys")).unwrap()).unwrap();
        if on_dynamodb() {
            let table = DynamoDb::open(&folder.path().join("dynamodb.sqlite")).await.table(&layer);
            let own = &*local.app;
            let (config, index, objects) = (own.config.clone(), own.index.clone(), own.objects.clone());
            local.app = App::new(Parts { config, table, index, objects, keys: keys(), clock: own.clock });
        }
        local.first_admin().await.unwrap();
        let own = &*local.app;
        let (table, index, objects) = (own.table.clone(), own.index.clone(), own.objects.clone());
        let app = App::new(Parts { config: own.config.clone(), table, index, objects, keys: keys(), clock });
        let token = std::fs::read_to_string(local.admin_token()).unwrap();
        let who = app.keys.credential(Some(&format!("Bearer {token}")), app.now()).unwrap();

        let text = |text: &str| Blob::new(text.as_bytes().to_vec());
        let mut blobs = vec![text(""), text("{}")];
        blobs.extend((0_u8..6).map(|seed| Blob::new(vec![seed; 10 + 500 * usize::from(seed)])));
        // Longer than a part of the object store.
        blobs.push(Blob::new(vec![9; (8 << 20) + 77]));
        let mut sifs = Vec::new();
        for (arch, seed) in [("amd64", 1), ("arm64", 2)] {
            sifs.push((blobs.len(), arch));
            blobs.push(Blob::new(SifBuilder::new(arch).seed(seed).build()));
        }
        blobs.push(Blob::new(vec![11; 4000]));
        // Another image of an architecture that one has already.
        sifs.push((blobs.len(), "amd64"));
        blobs.push(Blob::new(SifBuilder::new("amd64").seed(3).build()));
        let documents = documents(&blobs);
        let mut places = Vec::new();
        for name in ["alice", "bob"] {
            let (name, quota) = (name.parse().unwrap(), Some(0));
            let new = users::NewUser { name, password: None, admin: false, quota, email: None };
            users::add(&app, &who, new).await.unwrap();
        }
        for path in ["alice/one/aa", "alice/one/bb", "bob/one/aa", "bob/plain"] {
            let parts: Vec<&str> = path.split('/').collect();
            let collection = match parts[..] {
                [entity, collection, name] => {
                    let entity =
                        create::entity(&app, &who, entity.parse().unwrap(), Properties::default()).await.unwrap();
                    let name_of = collection.parse().unwrap();
                    let collection =
                        create::collection(&app, &who, entity.id, name_of, Properties::default()).await.unwrap();
                    let (id, name) = (collection.id, name.parse().unwrap());
                    create::container(&app, &who, id, &name, Properties::default()).await.unwrap();
                    Some(id)
                }
                _ => None,
            };
            let own = |(at, _): &(usize, &str)| {
                let blob: &Blob = &blobs[*at];
                let title = parts.last().unwrap();
                Digest::of(manifest::of_sif(title, &blob.digest, blob.bytes.len() as u64).as_bytes()).into()
            };
            places.push(Place { repository: path.parse().unwrap(), collection, own: sifs.iter().map(own).collect() });
        }
        Self { app, face: local.objects.face(), who, blobs, sifs, documents, places, _local: local, folder }
    }

    /// The id of a place's container, which is made again if it was deleted.
    pub(crate) async fn container(&self, place: usize) -> Result<Id, Error> {
        let Place { repository, collection, .. } = &self.places[place];
        if let Some(row) = self.app.table.get::<Container>(keys::container(repository)).await? {
            return Ok(row.id);
        }
        let (_, name) = repository.as_container().unwrap();
        let made = create::container(&self.app, &self.who, collection.unwrap(), &name, Properties::default()).await?;
        Ok(made.id)
    }

    /// Advances the clock.
    pub(crate) fn pass(seconds: u64) {
        AHEAD.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Does something to every file of the bucket that holds these bytes.
    pub(crate) fn damage(&self, bytes: &[u8], how: fn(&Path)) -> usize {
        let folders =
            std::fs::read_dir(self.folder.path().join("objects")).unwrap().map(|folder| folder.unwrap().path());
        let files = folders.filter(|folder| folder.is_dir()).flat_map(|folder| std::fs::read_dir(folder).unwrap());
        let holds = |file: &PathBuf| {
            let length = std::fs::metadata(file).unwrap().len();
            length == bytes.len() as u64 && std::fs::read(file).unwrap() == *bytes
        };
        files.map(|file| file.unwrap().path()).filter(holds).map(|file| how(&file)).count()
    }

    /// How far the clock is ahead of that of the stores.
    pub(crate) fn ahead() -> u64 {
        AHEAD.load(Ordering::Relaxed)
    }

    pub(crate) fn tag(at: usize) -> TagName {
        format!("v{at}").parse().unwrap()
    }

    /// The digest of a manifest in a place: of a document, or, after those, of what the library makes of a SIF image.
    pub(crate) fn manifest(&self, place: usize, thing: usize) -> OciDigest {
        match self.documents.get(thing) {
            Some(document) => document.body.digest.into(),
            None => self.places[place].own[thing - self.documents.len()],
        }
    }

    /// The place of a repository.
    pub(crate) fn at(&self, repository: &Repository) -> usize {
        self.places.iter().position(|place| place.repository == *repository).unwrap()
    }

    /// The blobs that a manifest needs.
    pub(crate) fn needs(&self, thing: usize) -> Vec<usize> {
        match self.documents.get(thing) {
            Some(document) => document.blobs.clone(),
            None => vec![1, self.sifs[thing - self.documents.len()].0],
        }
    }

    /// The documents that a document leads to, each after those that it leads to itself.
    pub(crate) fn below(&self, document: usize) -> Vec<usize> {
        let children = self.documents[document].children.iter();
        children.flat_map(|child| self.below(*child).into_iter().chain([*child])).collect()
    }

    /// All manifests that contain a SIF image.
    pub(crate) fn of_sif(&self, sif: usize) -> Vec<usize> {
        let pushed = self.documents.iter().enumerate().filter(|(_, document)| document.sif == Some(sif));
        pushed.map(|(at, _)| at).chain([self.documents.len() + sif]).collect()
    }
}

fn described(kind: &str, blob: &Blob) -> Value {
    json!({ "mediaType": kind, "digest": blob.digest.to_string(), "size": blob.bytes.len() })
}

fn documents(blobs: &[Blob]) -> Vec<Document> {
    let mut all: Vec<Document> = Vec::new();
    let of_sif = |at: usize, by: &str, sif: usize| {
        let body = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "annotations": { "by": by },
            "config": described(manifest::SIF_CONFIG, &blobs[1]),
            "layers": [described(manifest::SIF_LAYER, &blobs[at])],
        });
        let (body, blobs) = (Blob::new(body.to_string().into()), vec![1, at]);
        Document { kind: MANIFEST, body, blobs, children: Vec::new(), sif: Some(sif) }
    };
    let image = |config: usize, layers: &[usize], more: Value| {
        let named: Vec<Value> = layers.iter().map(|at| described(LAYER, &blobs[*at])).collect();
        let config_of = described(CONFIG, &blobs[config]);
        let mut body = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config_of, "layers": named });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let blobs = [config].iter().chain(layers).copied().collect();
        Document { kind: MANIFEST, body: Blob::new(body.to_string().into()), blobs, children: Vec::new(), sif: None }
    };
    all.push(image(2, &[3, 4], json!({})));
    all.push(image(3, &[4], json!({})));
    all.push(image(1, &[5, 6], json!({})));
    all.push(image(2, &[0, 6, 7], json!({})));
    all.push(image(4, &[8], json!({})));
    // Too long for its row: its bytes are stored as an object.
    all.push(image(5, &[3], json!({ "annotations": { "long": "x".repeat(300 << 10) } })));
    for (sif, at) in [(0, 9), (1, 10)] {
        // The second tool's annotation is long enough to be charged.
        for by in ["one tool", &"another".repeat(3000)] {
            all.push(of_sif(at, by, sif));
        }
    }
    let index = |all: &[Document], children: &[usize]| {
        let named: Vec<Value> = children.iter().map(|at| described(MANIFEST, &all[*at].body)).collect();
        let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": named });
        let (body, children) = (Blob::new(body.to_string().into()), children.to_vec());
        Document { kind: INDEX, body, blobs: Vec::new(), children, sif: None }
    };
    for children in [&[0, 1][..], &[6, 8], &[2, 7]] {
        let made = index(&all, children);
        all.push(made);
    }
    // An index of an index, one of two manifests of the same image, and one above both.
    for children in [&[11][..], &[6, 7], &[13, 14]] {
        let made = index(&all, children);
        all.push(made);
    }
    for subject in [0, 6] {
        let subject = json!({ "subject": described(MANIFEST, &all[subject].body), "artifactType": "text/about" });
        all.push(image(1, &[7], subject));
    }
    // Two images of one architecture in an index, of which a tag can have only one; and an index above it.
    all.push(of_sif(12, "one tool", 2));
    for children in [&[6, 18][..], &[19]] {
        let made = index(&all, children);
        all.push(made);
    }
    all
}
