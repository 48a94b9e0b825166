//! Copies of whole libraries: as a backup while people push, there and back, and begun again wherever they ended.

use crate::support::{BB, MANIFEST, MIB, blob, digest, image, junk, manifest, manifest_at, named, push, put, tags};
use reqwest::Method;
use serde_json::{Value, json};
use server::copies;
use server::limits::Limits;
use server::local::{Local, Snapshot};
use server::serve::Stores;
use shared::config::Config;
use shared::service::copy::{self, Copying, Report};
use shared::store::keys::Key;
use shared::store::table::Scanned;
use stackroom_tests::chance::Chance;
use stackroom_tests::functions::only_on_our_table;
use stackroom_tests::layered::Layered;
use stackroom_tests::mortal::Mortal;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, Server, send};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;

fn sif(seed: u64) -> Vec<u8> {
    SifBuilder::new("amd64").seed(seed).payload_len(3_000).build()
}

fn folder_of(server: &Server) -> PathBuf {
    server.local.admin_token().parent().unwrap().to_owned()
}

async fn copied(from: &Path, to: &Path) -> anyhow::Result<Report> {
    let [from, to] = [from, to].map(|folder| Stores::Folder(folder.to_owned()));
    copies::copied(&from, &to, &|_| {}).await
}

/// All rows of the library in a folder but its marks, and all objects.
struct Tree {
    rows: BTreeMap<Key, Scanned>,
    objects: Vec<String>,
}

impl Tree {
    async fn of(folder: &Path) -> Self {
        let scratch = TempDir::new().unwrap();
        let snapshot = Snapshot::take(folder, scratch.path()).await.unwrap();
        let (mut rows, mut start) = (BTreeMap::new(), None);
        loop {
            let (page, next) = snapshot.app.table.scan(start).await.unwrap();
            let own = |row: &Scanned| row.key.pk == "L" && ["I", "C"].contains(&row.key.sk.as_str());
            rows.extend(page.into_iter().filter(|row| !own(row)).map(|row| (row.key.clone(), row)));
            start = next;
            if start.is_none() {
                break;
            }
        }
        let (mut objects, mut after) = (Vec::new(), None);
        loop {
            let page = snapshot.app.objects.list(after).await.unwrap();
            objects.extend(page.into_iter().map(|one| one.object));
            after = objects.last().cloned();
            if objects.len() % 1000 != 0 || objects.is_empty() {
                return Self { rows, objects };
            }
        }
    }

    /// Says the first row in which two differ.
    fn assert_same(&self, other: &Self) {
        for (key, row) in &self.rows {
            let there = other.rows.get(key);
            assert!(there.is_some_and(|there| there.is_same(row)), "{key:?}\n{row:?}\n{there:?}");
        }
        let more: Vec<_> = other.rows.keys().filter(|key| !self.rows.contains_key(key)).collect();
        assert!(more.is_empty(), "{more:?}");
        assert_eq!(self.objects, other.objects);
    }
}

/// A library in a folder that is served.
struct Served {
    nobody: Caller,
    admin: Caller,
    local: Arc<Local>,
    serving: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Served {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let local = Local::open(folder, Config::read(&url, |_| None)?).await?;
        copy::served(&local.app).await?;
        assert!(local.first_admin().await?.is_none(), "it has an administrator");
        let admin = Caller::new(&url, Some(std::fs::read_to_string(local.admin_token())?));
        let router = axum::Router::from(server::site::Site::folder(&local)?);
        let limits = Limits::of(&local.app.config);
        let serving = tokio::spawn(server::serve::answer(listener, router, limits, std::future::pending()));
        Ok(Self { nobody: Caller::new(&url, None), admin, local: Arc::new(local), serving })
    }

    async fn sweep_all(&self) -> Value {
        let swept = self.admin.post("/api/sweep", json!({ "now": true })).await.ok()["data"].clone();
        assert_eq!((&swept["wrong_accounts"], &swept["failed"]), (&json!([]), &json!(0)), "{swept}");
        swept
    }
}

/// A library with something of every kind in it.
async fn full() -> (Server, Caller, String) {
    let server = Server::start_with(&[("STACKROOM_REGISTRATION", "invitation")]).await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 1 << 30).await);
    alice.push(BB, "v1", "amd64", &sif(1)).await.ok();
    alice.push(BB, "v1", "arm64", &SifBuilder::new("arm64").seed(2).build()).await.ok();
    alice.push(BB, "latest", "amd64", &sif(1)).await.ok();
    bob.push("bob/tools/same", "v1", "amd64", &sif(1)).await.ok();
    // One in parts, and a manifest that is too long for a row.
    let large = junk(3, 17 * MIB);
    push(&alice, "alice/oci/app", "v1", b"{}", &[&large, b"small"]).await;
    blob(&alice, "alice/oci/app", b"{}").await;
    let mut long = image(b"{}", &[b"small"]);
    long["annotations"] = json!({ "note": "\"\u{e9}".repeat(150_000) });
    let long = long.to_string();
    assert_eq!(put(&alice, "alice/oci/app", "long", MANIFEST, &long).await.status, 201);
    let mut about = image(b"{}", &[b"small"]);
    about["subject"] = named(MANIFEST, long.as_bytes());
    let about = about.to_string();
    assert_eq!(put(&alice, "alice/oci/app", &digest(about.as_bytes()), MANIFEST, &about).await.status, 201);

    alice.post("/api/groups", json!({ "name": "acme" })).await.ok();
    alice.put("/api/entities/acme/members/bob", json!({ "role": "contributor" })).await.ok();
    alice.post("/api/entities/acme/robots", json!({ "name": "ci", "role": "reader" })).await.ok();
    alice.post("/api/users/acme+ci/tokens", json!({ "name": "job" })).await.ok();
    alice.post("/api/entities/acme/invitations", json!({ "role": "reader" })).await.ok();
    bob.push("acme/tools/gone", "v1", "amd64", &sif(4)).await.ok();
    alice.delete("/v1/containers/acme/tools/gone?cascade=1").await.ok();
    server.admin.post("/api/invitations", json!({})).await.ok();
    let starred = alice.get(&format!("/v1/containers/{BB}")).await.ok()["data"]["id"].as_str().unwrap().to_owned();
    bob.post(&format!("/v1/users/bob/stars/{starred}"), json!({})).await.ok();
    alice.post("/api/shares", json!({ "image": format!("{BB}:v1"), "arch": "amd64" })).await.ok();
    server.sweep_all().await;
    server.sweep_all().await;
    (server, alice, long)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_there_and_back_is_the_same() {
    if only_on_our_table("it copies the folder of the embedded stores") {
        return;
    }
    let (server, alice, long) = full().await;
    let (source, room) = (folder_of(&server), TempDir::new().unwrap());
    let (backup, back) = (room.path().join("backup"), room.path().join("back"));
    let report = copied(&source, &backup).await.unwrap();
    assert_eq!((report.settled, report.corrected, report.lost.len()), (0, 0, 0), "{report:?}");
    Tree::of(&source).await.assert_same(&Tree::of(&backup).await);

    // Again, only what is new is copied, and what is under way is not there.
    let begun = alice.container(BB).await;
    let begun = alice.image(&begun, &sif(77)).await["id"].as_str().unwrap().to_owned();
    alice.open(&begun, &sif(77)).await.ok();
    alice.push(BB, "v2", "amd64", &sif(5)).await.ok();
    alice.delete("/v1/images/alice/tools/bb:v1?arch=arm64").await;
    let report = copied(&source, &backup).await.unwrap();
    assert_eq!(report.done.bytes, sif(5).len() as u64, "{report:?}");
    let tree = Tree::of(&backup).await;
    assert!(!tree.rows.keys().any(|key| ["S#", "O#", "X#"].iter().any(|kind| key.pk.starts_with(kind))));
    alice
        .upload(&alice.open(&begun, &sif(77)).await.ok()["data"]["uploadURL"].to_string().replace('"', ""), &sif(77))
        .await;
    server.sweep_all().await;
    server.sweep_all().await;
    copied(&source, &backup).await.unwrap();

    // Whoever has the old keys has the old tokens.
    std::fs::create_dir(&back).unwrap();
    std::fs::set_permissions(&back, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::copy(source.join("keys"), back.join("keys")).unwrap();
    let report = copied(&backup, &back).await.unwrap();
    assert_eq!((report.settled, report.corrected, report.lost.len()), (0, 0, 0), "{report:?}");
    Tree::of(&backup).await.assert_same(&Tree::of(&back).await);
    let restored = Served::start(&back).await.unwrap();
    let again = restored.nobody.with(alice.token.as_ref().unwrap());
    assert_eq!(again.pull(&format!("{BB}:v2")).await.bytes, sif(5));
    assert_eq!(manifest(&again, "alice/oci/app", "long").await, long);
    again.push(BB, "v3", "amd64", &sif(6)).await.ok();
    again.delete("/v1/entities/acme?cascade=1&force=1").await.ok();
    for _ in 0..3 {
        restored.sweep_all().await;
    }
    // It is a library of its own now, and no backup goes over it.
    drop(restored);
    let why = copied(&source, &back).await.unwrap_err();
    assert!(format!("{why:#}").contains("not empty"), "{why:#}");
}

#[tokio::test]
async fn a_copy_goes_over_nothing_else() {
    if only_on_our_table("it copies the folder of the embedded stores") {
        return;
    }
    let (one, two) = (Server::start().await, Server::start().await);
    let room = TempDir::new().unwrap();
    let backup = room.path().join("backup");
    let refused = async |from: &Path, to: &Path| format!("{:#}", copied(from, to).await.unwrap_err());
    copied(&folder_of(&one), &backup).await.unwrap();
    let why = refused(&folder_of(&two), &backup).await;
    assert!(why.contains("a copy of another library"), "{why}");
    let why = refused(&backup, &folder_of(&one)).await;
    assert!(why.contains("another process serves"), "{why}");
    let nothing = room.path().join("nothing");
    let why = refused(&nothing, &room.path().join("new")).await;
    assert!(why.contains("there is no library in"), "{why}");
    assert!(!room.path().join("new").exists() && !nothing.exists());
    // What would be done, without doing it.
    let found = copies::surveyed(&Stores::Folder(folder_of(&one))).await.unwrap();
    assert!(found.rows > 3, "{found:?}");
    assert_eq!(
        std::fs::read_dir(&backup)
            .unwrap()
            .filter(|one| { one.as_ref().unwrap().file_name().to_string_lossy().starts_with("snapshot-") })
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_ended_at_any_call_of_its_stores_is_nobodys_and_is_continued() {
    if only_on_our_table("it copies the folder of the embedded stores") {
        return;
    }
    let (server, ..) = full().await;
    let source = folder_of(&server);
    let tree = Tree::of(&source).await;
    let scratch = TempDir::new().unwrap();
    let snapshot = Snapshot::take(&source, scratch.path()).await.unwrap();
    let config = || Config::read("http://localhost", |_| None).unwrap();
    let mut calls = 0;
    loop {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let stores = Mortal::counting(|_| true);
        let local = Local::open_through(&data, config(), &Layered(stores.clone())).await.unwrap();
        stores.dies_after(calls);
        let copying = Copying { from: &snapshot.app, of: &snapshot.of, to: &local.app, tell: &|_| {} };
        let ended = copy::copy(copying).await;
        drop(local);
        if ended.is_ok() {
            break;
        }
        // Nobody may use half of it: it is not served, unless nothing of it is there.
        let local = Local::open(&data, config()).await.unwrap();
        let empty = local.app.table.scan(None).await.unwrap().0.is_empty();
        let usable = copy::served(&local.app).await;
        assert!(empty || usable.is_err(), "after {calls} calls");
        let copying = Copying { from: &snapshot.app, of: &snapshot.of, to: &local.app, tell: &|_| {} };
        copy::copy(copying).await.unwrap();
        drop(local);
        tree.assert_same(&Tree::of(&data).await);
        // Each of the first calls, and then some: the later ones are for one object after the other.
        calls += 1 + calls / 8;
    }
    assert!(calls > 20, "only {calls} calls");
}

/// What pushers have been told, by reference. An entry goes before it is changed or deleted.
type Told = Mutex<BTreeMap<String, (u64, Vec<u8>)>>;

/// Somebody who pushes, moves tags and deletes until told to stop, through both protocols.
async fn busy(who: Caller, number: u64, stop: Arc<AtomicBool>, told: Arc<Told>) -> u64 {
    let (mut chance, mut done) = (Chance::new(number), 0);
    let (library, oci) = (format!("alice/lib/k{number}"), format!("alice/oci/k{number}"));
    while !stop.load(Ordering::SeqCst) {
        let tag = format!("t{number}-{}", chance.below(200));
        let bytes = sif(chance.below(40));
        match chance.below(8) {
            0..=3 => {
                let reference = format!("{library}:{tag}");
                told.lock().unwrap().remove(&reference);
                if who.push(&library, &tag, "amd64", &bytes).await.status == 200 {
                    told.lock().unwrap().insert(reference, (done, bytes));
                }
            }
            4 => {
                let reference = format!("{library}:{tag}");
                // It may be under other tags as well.
                told.lock().unwrap().retain(|other, _| !other.starts_with(&format!("{library}:")));
                who.delete(&format!("/v1/images/{reference}?arch=amd64")).await;
            }
            5 if chance.percent(3) => {
                let path = if chance.percent(50) { &library } else { &oci };
                told.lock().unwrap().retain(|other, _| !other.starts_with(path.as_str()));
                who.delete(&format!("/v1/containers/{path}?cascade=1")).await;
            }
            _ => {
                let reference = format!("{oci}@{tag}");
                told.lock().unwrap().remove(&reference);
                let layer = junk(chance.below(40), 2_000);
                let document = push(&who, &oci, &tag, b"{}", &[&layer]).await;
                told.lock().unwrap().insert(reference, (done, document.into_bytes()));
            }
        }
        done += 1;
        // The copy needs a turn as well.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    done
}

/// How many images nobody touches.
const OLD: u64 = 40;
/// How long people push before a copy begins.
const BEFORE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_copy_that_is_made_while_people_push_has_all_that_they_were_told_before() {
    if only_on_our_table("it copies the folder of the embedded stores") {
        return;
    }
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    for number in 0..OLD {
        alice
            .push(&format!("alice/old/k{}", number % 7), &format!("v{number}"), "amd64", &sif(100 + number))
            .await
            .ok();
    }
    let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Told::default()));
    let pushers: Vec<_> =
        (0..4).map(|number| tokio::spawn(busy(alice.clone(), number, Arc::clone(&stop), Arc::clone(&told)))).collect();
    let folder = TempDir::new().unwrap();
    let (mut settled, mut kept) = (0, 0);
    // By scans, as of a table on AWS, and not from a snapshot of the file.
    for round in 0..3 {
        tokio::time::sleep(BEFORE).await;
        let data = folder.path().join(format!("copy-{}", round % 2));
        let before = told.lock().unwrap().clone();
        let local = Local::open(&data, Config::read("http://localhost", |_| None).unwrap()).await.unwrap();
        let copying = Copying { from: &server.local.app, of: "this", to: &local.app, tell: &|_| {} };
        let report = copy::copy(copying).await.unwrap();
        assert_eq!(report.lost, []);
        settled += report.settled;
        let after = told.lock().unwrap().clone();
        local.needs_admin_token().unwrap();
        drop(local);
        if round < 1 {
            continue;
        }
        let copy = Served::start(&data).await.unwrap();
        for (reference, told) in before.iter().filter(|(reference, told)| after.get(*reference) == Some(*told)) {
            kept += 1;
            let got = match reference.split_once('@') {
                Some((path, tag)) => copy.admin.get(&manifest_at(path, tag)).await.bytes,
                None => copy.admin.pull(reference).await.bytes,
            };
            assert!(got == told.1, "{reference}, in round {round}: {}", String::from_utf8_lossy(&got));
        }
        for number in 0..OLD {
            let pulled = copy.nobody.pull(&format!("alice/old/k{}:v{number}", number % 7)).await;
            assert!(pulled.bytes == sif(100 + number), "v{number}");
        }
        whole(&copy).await;
    }
    stop.store(true, Ordering::SeqCst);
    for pusher in pushers {
        assert!(pusher.await.unwrap() > 10);
    }
    println!("{settled} rows were settled, {kept} references were the same before and after");
    assert!(settled > 0 && kept > 0);
}

/// The tags of a repository; none if it is not there.
async fn listed(copy: &Served, repository: &str) -> Vec<String> {
    let listed = copy.admin.get(&format!("/v2/{repository}/tags/list")).await;
    if listed.status == 404 { Vec::new() } else { tags(&copy.admin, repository).await }
}

/// Everything that a copy says it has, it has; and all of it can be deleted.
async fn whole(copy: &Served) {
    copy.sweep_all().await;
    for number in 0..4 {
        for tag in listed(copy, &format!("alice/oci/k{number}")).await {
            let document: Value =
                serde_json::from_str(&manifest(&copy.admin, &format!("alice/oci/k{number}"), &tag).await).unwrap();
            for layer in document["layers"].as_array().unwrap() {
                let path = format!("/v2/alice/oci/k{number}/blobs/{}", layer["digest"].as_str().unwrap());
                let got = send(copy.admin.request(Method::GET, &path)).await;
                assert_eq!(digest(&got.bytes), layer["digest"].as_str().unwrap());
            }
        }
        for tag in listed(copy, &format!("alice/lib/k{number}")).await {
            let reference = format!("alice/lib/k{number}:{tag}");
            let found = copy.admin.get(&format!("/v1/images/{reference}?arch=amd64")).await.ok();
            let pulled = copy.admin.pull(&reference).await;
            assert_eq!(found["data"]["hash"], digest(&pulled.bytes).replace("sha256:", "sha256."), "{reference}");
        }
    }
    copy.admin.delete("/api/users/alice?cascade=1&force=1").await.ok();
    for _ in 0..3 {
        copy.sweep_all().await;
    }
    assert_eq!(copy.local.app.objects.list(None).await.unwrap().len(), 0);
}
