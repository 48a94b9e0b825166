//! Searching by the index: it finds what a plain reading of all rows finds, and nothing that is hidden.

use crate::support::{hash, set, sif, text, write};
use futures::future::join_all;
use serde_json::{Value, json};
use shared::App;
use shared::domain::{EntityName, Repository};
use shared::service::outbox;
use shared::service::search::make;
use shared::store::keys;
use shared::store::rows::{Collection, Container, Entity, Image};
use stackroom_tests::chance::Chance;
use stackroom_tests::functions::only_in_one_process;
use stackroom_tests::layered::Layered;
use stackroom_tests::mortal::Mortal;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, Server};
use std::collections::{BTreeMap, BTreeSet};

const PLACES: [&str; 6] = [
    "acme/tools/hello",
    "acme/tools/nanopore",
    "acme/data/zymo",
    "alice/tools/hello",
    "alice/lab/folding",
    "bob/x/hello",
];
const SAID: [&str; 5] = ["", "Folds Proteins", "nanopore reads of ZYMO", "ÄSTHETIK, 2.1-beta", "hello"];
const TAGS: [&str; 4] = ["v1.0", "v2.0-beta", "latest", "build-17"];
const SOUGHT: [&str; 24] = [
    "hello",
    "ell",
    "nano",
    "nanopore",
    "zymo",
    "fold",
    "protein",
    "ästhetik",
    "2.1",
    "beta",
    "v1.0",
    "v2.0-b",
    "latest",
    "build-1",
    "amd64",
    "arm",
    "tools",
    "acme/",
    "alice",
    "bob",
    "maker",
    "quilibrium",
    "abab",
    "nothing-has-this",
];

/// The images that are pushed: of two architectures, with labels, one of them signed.
fn images() -> Vec<(&'static str, Vec<u8>)> {
    let plain = |arch| SifBuilder::new(arch).labels(&[("org.maker", "Quilibrium")]);
    let signed = plain("amd64").signature(&"AB".repeat(20)).seed(3);
    vec![("amd64", sif(1)), ("arm64", plain("arm64").build()), ("amd64", signed.build())]
}

/// What somebody may list.
#[derive(Clone)]
struct Lists {
    caller: Caller,
    /// Entities, and the only collection that they may list there, if it is one.
    entities: BTreeMap<&'static str, Option<&'static str>>,
}

/// The results of a search.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    entities: BTreeSet<String>,
    collections: BTreeSet<String>,
    containers: BTreeSet<String>,
    images: BTreeSet<String>,
}

impl Found {
    async fn by(who: &Caller, value: &str, arch: &str) -> Self {
        let value = value.replace(' ', "%20");
        let answer = who.get(&format!("/v1/search?value={value}&arch={arch}")).await.ok()["data"].clone();
        assert_eq!(answer.get("more"), None, "{value}: not all");
        let names = |kind: &str, name: &dyn Fn(&Value) -> String| -> BTreeSet<String> {
            answer[kind].as_array().unwrap().iter().map(name).collect()
        };
        let path = |row: &Value| {
            let part = |name: &str| text(row, &format!("/{name}"));
            format!("{}/{}/{}@{}", part("entityName"), part("collectionName"), part("containerName"), part("hash"))
        };
        let container = |row: &Value| {
            let part = |name: &str| text(row, &format!("/{name}"));
            format!("{}/{}/{}", part("entityName"), part("collectionName"), part("name"))
        };
        let collection = |row: &Value| format!("{}/{}", text(row, "/entityName"), text(row, "/name"));
        Self {
            entities: names("entity", &|row| text(row, "/name")),
            collections: names("collection", &collection),
            containers: names("container", &container),
            images: names("image", &path),
        }
    }

    /// What is found by reading everything that somebody may list.
    async fn plainly(app: &App, who: &Lists, value: &str, arch: &str) -> Self {
        let mut found = Self::default();
        let words: Vec<String> = value.split_whitespace().map(str::to_lowercase).collect();
        let has = |texts: &[String]| {
            let texts: Vec<String> = texts.iter().map(|text| text.to_lowercase()).collect();
            words.iter().all(|word| texts.iter().any(|text| text.contains(word)))
        };
        for (entity, only) in &who.entities {
            let entity: EntityName = entity.parse().unwrap();
            let listed = |rest: &str| only.is_none_or(|only| rest == only || rest.starts_with(&format!("{only}/")));
            if let Some(row) = app.table.get::<Entity>(keys::entity(&entity)).await.unwrap()
                && only.is_none()
                && arch.is_empty()
                && has(&[row.name.to_string(), row.description.to_string()])
            {
                found.entities.insert(row.name.to_string());
            }
            for row in app.table.query_all::<Collection>(keys::collections(&entity)).await.unwrap() {
                let path = format!("{entity}/{}", row.name);
                if arch.is_empty()
                    && listed(row.name.as_str())
                    && has(&[row.name.to_string(), row.description.to_string()])
                {
                    found.collections.insert(path);
                }
            }
            for row in app.table.query_all::<Container>(keys::containers(&entity, None)).await.unwrap() {
                if row.collection_id.is_none() || !listed(row.repository.rest()) {
                    continue;
                }
                let own = [row.repository.to_string(), row.description.to_string()];
                let mut is_found = has(&own);
                for image in app.table.query_all::<Image>(keys::images(&row.repository)).await.unwrap() {
                    let Some(content) = &image.content else { continue };
                    let mut texts: Vec<String> = own.to_vec();
                    texts.extend([image.description.to_string(), content.arch.clone()]);
                    texts.extend(content.fingerprints.iter().cloned());
                    texts.extend(image.tags.iter().map(ToString::to_string));
                    texts.extend(image.labels.iter().flat_map(|(name, value)| [name.clone(), value.clone()]));
                    if has(&texts) {
                        is_found = true;
                        if arch.is_empty() || content.arch == arch {
                            found.images.insert(format!("{}@{}", row.repository, image.hash.library()));
                        }
                    }
                }
                if is_found && arch.is_empty() {
                    found.containers.insert(row.repository.to_string());
                }
            }
        }
        found
    }

    fn lies_in(&self, other: &Self) -> bool {
        self.entities.is_subset(&other.entities)
            && self.collections.is_subset(&other.collections)
            && self.containers.is_subset(&other.containers)
            && self.images.is_subset(&other.images)
    }
}

/// A library that changes at random, and those who search it.
struct Drawn {
    server: Server,
    chance: Chance,
    callers: Vec<Lists>,
    images: Vec<(&'static str, Vec<u8>)>,
}

impl Drawn {
    async fn start(seed: u64) -> Self {
        let server = Server::start().await;
        let mut callers = Vec::new();
        for (name, entities) in [
            ("alice", vec![("alice", None), ("acme", None)]),
            ("bob", vec![("bob", None), ("acme", None)]),
            ("carol", vec![("carol", None), ("acme", Some("tools"))]),
            ("dora", vec![("dora", None)]),
        ] {
            callers.push(Lists { caller: server.user(name, 0).await, entities: entities.into_iter().collect() });
        }
        callers.push(Lists { caller: server.nobody.clone(), entities: BTreeMap::new() });
        let alice = &callers[0].caller;
        alice.post("/api/groups", json!({ "name": "acme" })).await.ok();
        alice.put("/api/entities/acme/members/bob", json!({ "role": "reader" })).await.ok();
        alice.put("/api/entities/acme/members/carol", json!({ "role": "reader", "on": "tools" })).await.ok();
        Self { server, chance: Chance::new(seed), callers, images: images() }
    }

    fn owner(&self, place: &str) -> Caller {
        self.callers[usize::from(place.starts_with("bob"))].caller.clone()
    }

    /// Changes something, if it is there.
    async fn change(&mut self) {
        let place = *self.chance.one(&PLACES);
        let (owner, container) = (self.owner(place), format!("/v1/containers/{place}"));
        match self.chance.below(10) {
            0..4 => {
                let (arch, bytes) = self.chance.one(&self.images).clone();
                let tag = *self.chance.one(&TAGS);
                owner.push(place, tag, arch, &bytes).await.ok();
            }
            4 => {
                let (arch, bytes) = self.chance.one(&self.images);
                owner.delete(&format!("/v1/images/{place}:{}?arch={arch}", hash(bytes))).await;
            }
            5 => {
                let tag = *self.chance.one(&TAGS);
                owner.delete(&format!("/v2/{place}/manifests/{tag}")).await;
            }
            6 => drop(set(&owner, &container, json!({ "description": self.chance.one(&SAID) })).await),
            7 => {
                let seen = *self.chance.one(&["public", "private"]);
                set(&owner, &container, json!({ "visibility": seen })).await;
                let (collection, _) = place.rsplit_once('/').unwrap();
                let said = json!({ "description": self.chance.one(&SAID) });
                set(&owner, &format!("/v1/collections/{collection}"), said).await;
            }
            8 => {
                let dora = &mut self.callers[3].entities;
                let role = if dora.remove("acme").is_some() {
                    Value::Null
                } else {
                    dora.insert("acme", None);
                    json!("reader")
                };
                let alice = &self.callers[0].caller;
                alice.put("/api/entities/acme/members/dora", json!({ "role": role })).await.ok();
            }
            _ => drop(owner.delete(&format!("{container}?cascade=1")).await),
        }
    }

    /// Searches for something, and compares.
    async fn search(&mut self, caught_up: bool) {
        let who = self.chance.one(&self.callers).clone();
        let mut value = (*self.chance.one(&SOUGHT)).to_owned();
        if self.chance.percent(30) {
            value = format!("{value} {}", self.chance.one(&SOUGHT));
        }
        let arch = *self.chance.one(&["", "", "", "amd64", "arm64"]);
        let found = Found::by(&who.caller, &value, arch).await;
        let expected = Found::plainly(&self.server.local.app, &who, &value, arch).await;
        assert!(found.lies_in(&expected), "{value} {arch}: {found:?}, and not {expected:?}");
        assert!(!caught_up || found == expected, "{value} {arch}: {found:?} instead of {expected:?}");
    }
}

/// How many operations are drawn: `SEARCH_OPERATIONS`, or so many.
const OPERATIONS: u64 = 10_000;

#[tokio::test]
async fn a_search_finds_what_a_plain_reading_finds_whatever_changes() {
    let drawn = std::env::var("SEARCH_OPERATIONS").ok().map_or(OPERATIONS, |count| count.parse().unwrap());
    let seed = std::env::var("SEARCH_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    let mut library = Drawn::start(seed).await;
    let mut done = 0;
    while done < drawn {
        for _ in 0..=library.chance.below(3) {
            library.change().await;
            library.search(false).await;
            done += 2;
        }
        library.server.followed().await;
        for _ in 0..5 {
            library.search(true).await;
            done += 1;
        }
    }
    let app = &library.server.local.app;
    agrees(app).await;
    // Made anew, it is the same.
    assert!(make(app, None).await.unwrap());
    agrees(app).await;
    library.search(true).await;
}

/// Compares the rows of the index: a thing has a posting for each of its words, and for no others, and each word is
/// spelled from each of its letters on.
async fn agrees(app: &App) {
    let (mut rows, mut start) = (Vec::new(), None);
    loop {
        let (page, next) = app.index.scan(start).await.unwrap();
        rows.extend(page);
        start = next;
        if start.is_none() {
            break;
        }
    }
    let (mut said, mut posted, mut spelled) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for row in rows {
        let kind = row.key.pk.get(..2).unwrap_or_default().to_owned();
        let row: Value = row.read_part().unwrap();
        let word = |word: &Value| [text(&row, "/scope"), text(&row, "/thing"), word.as_str().unwrap().to_owned()];
        match kind.as_str() {
            "D#" => said.extend(row["words"].as_array().unwrap().iter().map(word)),
            "P#" => drop(posted.insert(word(&row["word"]))),
            "W#" => drop(spelled.insert([text(&row, "/scope"), text(&row, "/word"), beginning(&text(&row, "/end"))])),
            _ => {}
        }
    }
    assert!(!said.is_empty());
    assert_eq!(said, posted);
    for [scope, _, word] in said {
        let ends = word.char_indices().map(|(at, _)| &word[at..]).filter(|end| end.chars().count() >= 3);
        for end in ends {
            assert!(spelled.contains(&[scope.clone(), word.clone(), beginning(end)]), "{word} from {end} on");
        }
    }
}

/// As much of the end of a word as tells it from others.
fn beginning(end: &str) -> String {
    end.chars().take(24).collect()
}

#[tokio::test]
async fn the_index_is_whole_wherever_its_writer_died_and_however_many_write_it() {
    if only_in_one_process("it kills the stores of this process") {
        return;
    }
    let stores = Mortal::at_a_write();
    let server = Server::start_through(&[], &Layered(stores.clone())).await;
    let (alice, app) = (server.user("alice", 0).await, &server.local.app);
    for writes in 0.. {
        for (number, (arch, bytes)) in images().iter().enumerate() {
            alice.push("alice/tools/bb", &format!("round-{writes}-{number}"), arch, bytes).await.ok();
        }
        stores.dies_after(writes);
        let followed = outbox::follow(app).await;
        let died = stores.died();
        stores.lives();
        assert_eq!(followed.is_err(), died);
        for followed in join_all((0..3).map(|_| outbox::follow(app))).await {
            followed.unwrap();
        }
        agrees(app).await;
        let found = Found::by(&alice, &format!("round-{writes}-"), "").await;
        assert_eq!(found.images.len(), 3, "after {writes} writes");
        if !died {
            assert!(writes > 5, "{writes}");
            return;
        }
    }
}

#[tokio::test]
async fn an_index_that_is_gone_is_made_anew_and_goes_on_where_it_was() {
    let server = Server::start().await;
    let (alice, app) = (server.user("alice", 0).await, &server.local.app);
    alice.push("alice/tools/bb", "v1", "amd64", &sif(1)).await.ok();
    server.followed().await;
    let state = server.admin.get("/api/index").await.ok();
    assert_eq!(state["data"], json!({ "whole": false, "behindSeconds": 0 }));
    // Rows that no change told of.
    let place: Repository = "alice/tools/bb".parse().unwrap();
    let rows = app.table.query_all::<Image>(keys::images(&place)).await.unwrap();
    for tag in ["needle-1", "needle-2"] {
        let tags = [tag.parse().unwrap()].into();
        let hash = shared::domain::Digest::of(tag.as_bytes());
        write(&server, &Image { tags, hash, ..rows[0].clone() }).await;
    }
    assert_eq!(Found::by(&alice, "needle", "").await, Found::default());
    // There is no time: nothing is done, and nothing said to be.
    let now = std::time::Instant::now();
    assert!(!make(app, Some(now)).await.unwrap());
    assert!(make(app, None).await.unwrap() && make(app, Some(now)).await.unwrap());
    assert_eq!(Found::by(&alice, "needle", "").await.images.len(), 2);
    agrees(app).await;
    // Only on request is it done again.
    alice.post("/api/index", json!({})).await.error(403);
    let state = server.admin.post("/api/index", json!({})).await.ok();
    assert_eq!(state["data"]["whole"], false);
    assert!(make(app, None).await.unwrap());
    assert_eq!(server.admin.get("/api/index").await.ok()["data"]["whole"], true);
    agrees(app).await;
}
