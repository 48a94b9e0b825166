//! What happens at one call of a store: a request is held up there while somebody else does something, or the store
//! fails, or what it lay on is gone.

use crate::library::{hash, set, sif};
use crate::support::{BB, INDEX, blob, blob_at, digest, is, manifest, manifest_at, push_sif, put, tag_many};
use futures::future::{BoxFuture, Either};
use serde_json::json;
use server::local::Local;
use shared::config::Config;
use shared::store::StoreError;
use stackroom_tests::functions::{only_in_one_process, only_on_one_server};
use stackroom_tests::layered::{Answer, Around, Call, Layered};
use stackroom_tests::{Caller, Server};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// What the next transactions of the table meet.
#[derive(Debug, Default)]
enum Next {
    /// Nothing.
    #[default]
    Pass,
    /// So many pass, and the one after them waits: it says so, and then waits for the other end. `reads`: reads of the
    /// table count, too.
    Hold { after: usize, reads: bool, here: oneshot::Sender<()>, go: oneshot::Receiver<()> },
    /// All end with this error; counted.
    Fail { why: fn() -> StoreError, calls: usize },
}

/// A layer in front of the table, which holds up transactions or answers them itself.
#[derive(Debug, Clone, Default)]
struct Layer(Arc<Mutex<Next>>);

impl Layer {
    /// The next transaction after so many will wait; returns what says that it does, and what lets it go.
    fn hold(&self, after: usize) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        self.hold_some(after, false)
    }

    fn hold_some(&self, after: usize, reads: bool) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((here, waits), (release, go)) = (oneshot::channel(), oneshot::channel());
        *self.0.lock().unwrap() = Next::Hold { after, reads, here, go };
        (waits, release)
    }
}

impl Around for Layer {
    fn rows<'a, T: Send + 'a>(&'a self, call: Call, inner: BoxFuture<'a, Answer<T>>) -> BoxFuture<'a, Answer<T>> {
        let mut next = self.0.lock().unwrap();
        let reads = call == Call::Read && matches!(&*next, Next::Hold { reads: true, .. });
        if call != Call::Transact && !reads {
            return inner;
        }
        match &mut *next {
            Next::Pass => inner,
            Next::Hold { after: after @ 1.., .. } => {
                *after -= 1;
                inner
            }
            Next::Hold { .. } => {
                let Next::Hold { here, go, .. } = std::mem::take(&mut *next) else { unreachable!() };
                Box::pin(async move {
                    here.send(()).unwrap();
                    go.await.unwrap();
                    inner.await
                })
            }
            Next::Fail { why, calls } => {
                *calls += 1;
                let why = why();
                Box::pin(async move { Err(why) })
            }
        }
    }
}

async fn start() -> (Server, Caller, Layer) {
    let layer = Layer::default();
    let server = Server::start_through(&[], &Layered(layer.clone())).await;
    let alice = server.user("alice", 0).await;
    (server, alice, layer)
}

#[tokio::test]
async fn what_comes_into_an_empty_container_while_it_is_deleted_stops_the_deletion() {
    if only_in_one_process("it stops this process between two calls of its stores") {
        return;
    }
    let (server, alice, layer) = start().await;
    alice.container(BB).await;
    for path in [format!("/v1/containers/{BB}"), "/v1/collections/alice/other".to_owned()] {
        let entity = json!({ "name": "alice" });
        let entity = alice.post("/v1/entities", entity).await.ok()["data"]["id"].clone();
        alice.post("/v1/collections", json!({ "name": "other", "entity": entity })).await.ok();
        let (waits, release) = layer.hold(0);
        let deleting = std::pin::pin!(alice.delete(&path));
        let Either::Right((_, deleting)) = futures::future::select(deleting, waits).await else { panic!("{path}") };
        let (bytes, into) = (sif(1), if path.contains("other") { "alice/other/bb" } else { BB });
        alice.push(into, "v1", "amd64", &bytes).await.ok();
        release.send(()).unwrap();
        deleting.await.error(412);
        assert_eq!(server.nobody.pull(&format!("{into}:v1")).await.bytes, bytes);
    }
}

#[tokio::test]
async fn whoever_drains_a_container_late_takes_nothing_from_a_new_one_of_that_name() {
    if only_in_one_process("it stops this process between two calls of its stores") {
        return;
    }
    let (server, alice, layer) = start().await;
    for number in 0..3 {
        alice.push(BB, &format!("v{number}"), "amd64", &sif(number)).await.ok();
    }
    // Each of the first writes of the drain in turn comes after somebody else has drained it.
    for after in 1..5 {
        alice.push(BB, "v1", "amd64", &sif(1)).await.ok();
        let (waits, release) = layer.hold(after);
        let path = format!("/v1/containers/{BB}?cascade=1");
        let deleting = std::pin::pin!(alice.delete(&path));
        let Either::Right((_, deleting)) = futures::future::select(deleting, waits).await else { panic!("{after}") };
        server.sweep_all().await;
        let (new, tag) = (sif(9), format!("new{after}"));
        alice.push(BB, &tag, "amd64", &new).await.ok();
        release.send(()).unwrap();
        deleting.await.ok();
        assert_eq!(server.nobody.pull(&format!("{BB}:{tag}")).await.bytes, new, "after {after} writes");
        server.nobody.get(&format!("/v1/images/{BB}:v1")).await.error(404);
        server.sweep_all().await;
        assert_eq!(server.nobody.pull(&format!("{BB}:{tag}")).await.bytes, new, "after {after} writes");
    }
}

#[tokio::test]
async fn whoever_is_removed_meanwhile_does_not_come_back_by_their_own_invitation() {
    if only_in_one_process("it stops this process between two calls of its stores") {
        return;
    }
    let (server, alice, layer) = start().await;
    let bob = server.user("bob", 0).await;
    alice.post("/api/groups", json!({ "name": "acme" })).await.ok();
    let mut held = 0;
    for after in 0..6 {
        alice.put("/api/entities/acme/members/bob", json!({ "role": "admin" })).await.ok();
        let made = bob.post("/api/entities/acme/invitations", json!({ "role": "admin" })).await.ok();
        let body = json!({ "invitation": made["data"]["link"] });
        let (waits, release) = layer.hold_some(after, true);
        let joining = std::pin::pin!(bob.post("/api/join", body));
        // Before each call of the table that joining makes.
        match futures::future::select(joining, waits).await {
            Either::Left((joined, _)) => {
                *layer.0.lock().unwrap() = Next::Pass;
                joined.ok();
                break;
            }
            Either::Right((_, joining)) => {
                alice.delete("/api/entities/acme/members/bob").await.ok();
                release.send(()).unwrap();
                joining.await.error(404);
                bob.get("/v1/entities/acme").await.error(404);
                held += 1;
            }
        }
    }
    assert!(held >= 3, "{held}");
}

#[tokio::test]
async fn attack_02_freezing_a_tag_stops_a_deletion_that_was_decided_before() {
    if only_in_one_process("it stops this process between two calls of its stores") {
        return;
    }
    let (_server, alice, layer) = start().await;
    let bytes = sif(1);
    let document = push_sif(&alice, BB, "v0", &bytes).await;
    let by_hash = format!("/v1/images/{BB}:{}", hash(&bytes));
    let by_tag = format!("/v1/images/{BB}:v0?arch=amd64");
    let (other, of_it) = (manifest_at(BB, "v0"), manifest_at(BB, &digest(document.as_bytes())));
    for path in [by_hash, by_tag, other, of_it] {
        set(&alice, &format!("/v1/images/{BB}:v0"), json!({ "frozen": false })).await.ok();
        let (waits, release) = layer.hold(0);
        let deleting = alice.delete(&path);
        let freezing = async {
            // It was decided, and is about to be written.
            waits.await.unwrap();
            set(&alice, &format!("/v1/images/{BB}:v0"), json!({ "frozen": true })).await.ok();
            release.send(()).unwrap();
        };
        let (deleted, ()) = tokio::join!(deleting, freezing);
        is(&deleted, 403);
        assert_eq!(manifest(&alice, BB, "v0").await, document);
        assert_eq!(alice.pull(&format!("{BB}:v0")).await.bytes, bytes);
    }
}

#[tokio::test]
async fn attack_02_a_deletion_in_several_steps_stops_when_a_tag_is_frozen() {
    if only_in_one_process("it stops this process between two calls of its stores") {
        return;
    }
    for after in [1, 2] {
        let (_server, alice, layer) = start().await;
        let bytes = sif(9);
        let document = push_sif(&alice, BB, "t0", &bytes).await;
        tag_many(&alice, BB, &document, 200).await;
        let tags = async || {
            let listed = alice.get(&format!("/v2/{BB}/tags/list?n=1000")).await.ok();
            listed["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let all = tags().await.len();
        // Some steps are done, and the next one is about to be written.
        let (waits, release) = layer.hold(after);
        let path = format!("/v1/images/{BB}:t0?arch=amd64");
        let deleting = alice.delete(&path);
        let freezing = async {
            waits.await.unwrap();
            let left = tags().await;
            assert!(left.len() < all, "no step was done");
            let frozen = left.iter().find(|tag| *tag != "t0").unwrap().clone();
            set(&alice, &format!("/v1/images/{BB}:{frozen}"), json!({ "frozen": true })).await.ok();
            release.send(()).unwrap();
            (frozen, left.len())
        };
        let (deleted, (frozen, left)) = tokio::join!(deleting, freezing);
        is(&deleted, 403);
        assert_eq!(tags().await.len(), left, "it went on");
        assert_eq!(manifest(&alice, BB, &frozen).await, document);
        assert_eq!(alice.pull(&format!("{BB}:{frozen}")).await.bytes, bytes);
    }
}

#[tokio::test]
async fn attack_12_a_full_disk_is_said_at_once_and_tried_once() {
    if only_on_one_server("whoever shares stores tries again what failed at them") {
        return;
    }
    if only_in_one_process("it stops this process between two calls of its stores") {
        return;
    }
    let (_server, alice, layer) = start().await;
    blob(&alice, BB, b"there").await;
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }).to_string();
    is(&put(&alice, BB, "v1", INDEX, &index).await, 201);
    let broken = || StoreError::Unavailable("disk I/O error".to_owned());
    let full = || StoreError::Full;
    for (why, library, registry) in [(full as fn() -> StoreError, 507, 507), (broken, 503, 503)] {
        let fail = || *layer.0.lock().unwrap() = Next::Fail { why, calls: 0 };
        let calls = || match &*layer.0.lock().unwrap() {
            Next::Fail { calls, .. } => *calls,
            _ => panic!(),
        };
        let entity = alice.get("/v1/entities/alice").await.ok()["data"]["id"].clone();
        fail();
        let refused_by = alice.post("/v1/collections", json!({ "name": "new", "entity": entity })).await;
        assert_eq!((refused_by.status.as_u16(), calls()), (library, 1), "{:?}", refused_by.json);
        assert_eq!(refused_by.json.to_string().contains("disk is full"), library == 507);
        for path in [manifest_at(BB, "v1"), blob_at(BB, &digest(b"there"))] {
            fail();
            is(&alice.delete(&path).await, registry);
            assert_eq!(calls(), 1, "{path}");
        }
        fail();
        is(&put(&alice, BB, "v2", INDEX, &index).await, registry);
        assert_eq!(calls(), 1);
        // What is there can be read.
        is(&alice.get(&manifest_at(BB, "v1")).await, 200);
    }
    *layer.0.lock().unwrap() = Next::Pass;
    is(&put(&alice, BB, "v2", INDEX, &index).await, 201);
}

async fn open(folder: &Path) -> anyhow::Result<Local> {
    Local::open(folder, Config::read("http://127.0.0.1:1", |_| None).unwrap()).await
}

#[tokio::test]
async fn attack_12_a_lock_that_somebody_removes_lets_no_second_server_in() {
    let folder = tempfile::TempDir::new().unwrap();
    let local = open(folder.path()).await.unwrap();
    for _ in 0..2 {
        let why = open(folder.path()).await.unwrap_err().to_string();
        assert!(why.contains("another process serves"), "{why}");
        fs::remove_file(folder.path().join("lock")).unwrap();
        fs::write(folder.path().join("lock"), "").unwrap();
    }
    drop(local);
    // One that is left behind is no obstacle.
    drop(open(folder.path()).await.unwrap());
}

/// The files of a folder, as a server that was killed leaves them.
fn copied(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copied(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The same with the mark that a server killed there would have left.
fn killed(from: &Path, to: &Path) {
    copied(from, to);
    let inode = |name: String| fs::metadata(to.join(name)).unwrap().ino();
    let line = |name: &str| format!("{} {}.\n", inode(format!("{name}.sqlite")), inode(format!("{name}.sqlite-wal")));
    assert_eq!(fs::read_to_string(from.join("in-use")).unwrap().lines().count(), 3);
    fs::write(to.join("in-use"), line("table") + &line("objects") + &line("index")).unwrap();
}

#[tokio::test]
async fn attack_12_a_database_that_lost_its_latest_changes_is_not_opened() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let local = open(&data).await.unwrap();
    local.first_admin().await.unwrap().unwrap();
    let starts = async |folder: &Path| {
        let local = open(folder).await.unwrap();
        assert!(local.first_admin().await.unwrap().is_none(), "the administrator is there");
    };
    let refuses = async |folder: &Path, missing: &str| {
        for _ in 0..2 {
            let why = open(folder).await.unwrap_err().to_string();
            assert!(why.contains(missing) && why.contains("in-use"), "{why}");
        }
    };
    for missing in ["table.sqlite-wal", "objects.sqlite-wal", "index.sqlite-wal"] {
        let (dead, whole) =
            (folder.path().join(format!("dead {missing}")), folder.path().join(format!("copy {missing}")));
        killed(&data, &dead);
        copied(&data, &whole);
        let aside = folder.path().join("aside");
        // A copy of all is as good as the folder itself; but not without that file.
        for folder in [&dead, &whole] {
            fs::rename(folder.join(missing), &aside).unwrap();
            refuses(folder, missing).await;
            fs::rename(&aside, folder.join(missing)).unwrap();
        }
        // It has the right name, and belongs to another copy.
        let other = dead.join("other");
        fs::copy(dead.join(missing), &other).unwrap();
        fs::rename(dead.join(missing), &aside).unwrap();
        fs::rename(&other, dead.join(missing)).unwrap();
        refuses(&dead, missing).await;
        fs::rename(&aside, dead.join(missing)).unwrap();
        for folder in [&dead, &whole] {
            starts(folder).await;
            // A server that ended in order leaves no mark.
            assert!(!folder.join("in-use").exists());
            starts(folder).await;
        }
        // Whoever wants to go on without the changes says so.
        let lossy = folder.path().join(format!("lossy {missing}"));
        killed(&data, &lossy);
        fs::remove_file(lossy.join(missing)).unwrap();
        refuses(&lossy, missing).await;
        fs::remove_file(lossy.join("in-use")).unwrap();
        drop(open(&lossy).await.unwrap());
    }
}
