//! Downloads are counted, each once, without a write for any of them.

use crate::library::{hash, sif, write};
use crate::support::{BB, INDEX, digest, head, index, is, manifest, manifest_at, push, put};
use futures::future::{BoxFuture, join_all};
use reqwest::Method;
use serde_json::{Value, json};
use shared::App;
use shared::app::{Batch, Downloaded as Noted};
use shared::domain::{Day, Digest, Door, Download, Downloads, Id, OciDigest, Time};
use shared::service::downloads::{DAYS, count, write_down};
use shared::service::sweep;
use shared::store::StoreError;
use shared::store::rows::{BatchCounted, Counted, Downloaded};
use stackroom_tests::functions::only_in_one_process;
use stackroom_tests::layered::{Answer, Around, Call, Layered};
use stackroom_tests::mortal::Mortal;
use stackroom_tests::{Caller, Server, send};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

async fn shown(who: &Caller, asked: &str) -> Value {
    who.get(&format!("/api/downloads?repository={BB}{asked}")).await.ok()["data"].clone()
}

/// By library clients, by registry clients, by shares.
async fn numbers(who: &Caller, asked: &str) -> [u64; 3] {
    let shown = shown(who, asked).await;
    let numbers = ["library", "registry", "share"].map(|door| shown[door].as_u64().unwrap());
    assert_eq!(shown["all"], json!(numbers.iter().sum::<u64>()));
    numbers
}

#[tokio::test]
async fn each_download_counts_once_by_its_way() {
    if only_in_one_process("it writes the numbers of this process") {
        return;
    }
    let server = Server::start().await;
    let (alice, nobody, app) = (server.user("alice", 0).await, &server.nobody, &server.local.app);
    app.keep_downloads();
    let bytes = sif(1);
    alice.push(BB, "v1", "amd64", &bytes).await.ok();
    let other = push(&alice, BB, "oci", b"config", &[b"layer"]).await;
    is(&put(&alice, BB, "both", INDEX, &index(&[&other]).to_string()).await, 201);
    // The library's clients, by tag and by hash.
    for _ in 0..3 {
        assert_eq!(nobody.pull(&format!("{BB}:v1")).await.bytes, bytes);
    }
    assert_eq!(nobody.pull(&format!("{BB}:{}", hash(&bytes))).await.bytes, bytes);
    // The registry's, who get the same image by its manifest; another one; and an index, which is no image.
    let document = manifest(nobody, BB, "v1").await;
    manifest(nobody, BB, &digest(document.as_bytes())).await;
    for _ in 0..2 {
        manifest(nobody, BB, "oci").await;
    }
    manifest(nobody, BB, "both").await;
    // Who looks downloads nothing, and neither does who is refused.
    is(&head(nobody, &manifest_at(BB, "v1")).await, 200);
    nobody.get(&format!("/v1/images/{BB}:v1")).await.ok();
    is(&head(nobody, &format!("/v1/imagefile/{BB}:v1")).await, 303);
    nobody.get(&format!("/v1/imagefile/{BB}:missing")).await.error(404);
    is(&nobody.get(&manifest_at(BB, "missing")).await, 404);
    let made = alice.post("/api/shares", json!({ "image": format!("{BB}:v1") })).await.ok();
    let share = nobody.bare(Method::GET, made["data"]["url"].as_str().unwrap());
    is(&send(share.header("accept", "*/*").header("user-agent", "curl/8.5.0")).await, 303);

    assert_eq!(numbers(nobody, "").await, [0, 0, 0]);
    assert_eq!(shown(nobody, "").await["latest"], json!(""));
    assert_eq!(write_down(app).await.unwrap(), 4 + 2 + 2 + 1 + 1);
    assert_eq!(write_down(app).await.unwrap(), 0);
    assert_eq!(numbers(nobody, "").await, [4, 4, 1]);
    assert_eq!(numbers(nobody, "&tag=v1").await, [3, 1, 0]);
    assert_eq!(numbers(nobody, "&tag=oci").await, [0, 2, 0]);
    assert_eq!(numbers(nobody, "&tag=both").await, [0, 1, 0]);
    assert_eq!(numbers(nobody, "&tag=never").await, [0, 0, 0]);
    assert_eq!(numbers(nobody, &format!("&image={}", hash(&bytes))).await, [4, 2, 1]);
    assert_eq!(numbers(nobody, &format!("&image={}", digest(&bytes))).await, [4, 2, 1]);
    assert_eq!(numbers(nobody, &format!("&image={}", digest(other.as_bytes()))).await, [0, 2, 0]);
    let whole = shown(nobody, "").await;
    assert!(whole["latest"].as_str().unwrap().parse::<Time>().is_ok());
    let days = whole["days"].as_array().unwrap();
    assert_eq!(days.iter().map(|day| day["all"].as_u64().unwrap()).sum::<u64>(), 9);
    assert_eq!(days[0]["day"], json!(app.now().day().to_string()));
    // What comes later is added.
    nobody.pull(&format!("{BB}:v1")).await;
    write_down(app).await.unwrap();
    assert_eq!(numbers(nobody, "&tag=v1").await, [4, 1, 0]);
    let container = nobody.get(&format!("/v1/containers/{BB}")).await.ok();
    assert_eq!(container["data"]["downloadCount"], json!(10));
    assert_eq!(nobody.get(&format!("/api/repositories/{BB}")).await.ok()["data"]["downloads"], json!(10));

    let badge = nobody.get(&format!("/api/badge?repository={BB}")).await;
    assert_eq!((badge.status.as_u16(), badge.header("content-type")), (200, Some("image/svg+xml")));
    assert_eq!(badge.header("cache-control"), Some("public, max-age=300"));
    assert!(String::from_utf8_lossy(&badge.bytes).contains("<title>downloads: 10</title>"));
    for wrong in ["&days=401", "&days=-1", "&tag=a%20b", "&image=md5", "&tag=v1&image=sha256.00", "&repository=x"] {
        let answer = nobody.get(&format!("/api/downloads?repository={BB}{wrong}")).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{wrong}: {}", answer.status);
    }
    server.sweep_all().await;
    assert_eq!(numbers(nobody, "").await, [5, 4, 1]);
}

fn noted(app: &App, tag: &str, count: u64) -> Noted {
    let image = Some(OciDigest::from(Digest::of(b"image")));
    let tag = Some(tag.parse().unwrap());
    let what = Download { repository: BB.parse().unwrap(), image, tag, door: Door::Library };
    Noted { what, day: app.now().day(), count, latest: app.now() }
}

#[tokio::test]
async fn a_batch_counts_once_however_often_it_is_brought_and_all_batches_count() {
    if only_in_one_process("it writes the numbers of this process") {
        return;
    }
    let server = Server::start().await;
    let (alice, app) = (server.user("alice", 0).await, &server.local.app);
    alice.container(BB).await;
    // More numbers than a transaction writes, and a repository that there is not.
    let batch = |number: u64| {
        let mut downloads: Vec<Noted> = (0..100).map(|tag| noted(app, &format!("t{tag}"), number)).collect();
        let mut gone = noted(app, "v1", 1);
        gone.what.repository = "alice/tools/gone".parse().unwrap();
        downloads.push(gone);
        Batch { id: number.to_string(), downloads }
    };
    let batches: Vec<Batch> = (1..=4).map(batch).collect();
    for _ in 0..2 {
        for counted in join_all(batches.iter().chain(&batches).map(|batch| count(app, batch))).await {
            counted.unwrap();
        }
    }
    assert_eq!(numbers(&alice, "").await, [1000, 0, 0]);
    assert_eq!(numbers(&alice, "&tag=t99").await, [10, 0, 0]);
    alice.get("/api/downloads?repository=alice/tools/gone").await.error(404);
    // One that is made later under the same name begins with zero.
    alice.delete(&format!("/v1/containers/{BB}?cascade=true")).await.ok();
    server.sweep_all().await;
    alice.container(BB).await;
    assert_eq!(numbers(&alice, "").await, [0, 0, 0]);
    count(app, &batch(5)).await.unwrap();
    assert_eq!(numbers(&alice, "&tag=t99").await, [5, 0, 0]);
}

/// A table that writes, and loses the answer of a transaction.
#[derive(Debug, Clone)]
struct Silent(Arc<AtomicI64>);

impl Around for Silent {
    fn rows<'a, T: Send + 'a>(&'a self, call: Call, inner: BoxFuture<'a, Answer<T>>) -> BoxFuture<'a, Answer<T>> {
        if call == Call::Transact && self.0.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Box::pin(async {
                inner.await?;
                Err(StoreError::Unavailable("nobody knows whether it was written".to_owned()))
            });
        }
        inner
    }
}

#[tokio::test]
async fn numbers_are_right_whether_a_write_failed_or_its_answer_was_lost() {
    if only_in_one_process("it kills the stores of this process") {
        return;
    }
    let (mortal, silent) = (Mortal::at_a_write(), Silent(Arc::new(AtomicI64::new(-1))));
    let dying = Server::start_through(&[], &Layered(mortal.clone())).await;
    let mute = Server::start_through(&[], &Layered(silent.clone())).await;
    for (server, dies) in [(&dying, true), (&mute, false)] {
        let (alice, app) = (server.user("alice", 0).await, &server.local.app);
        app.keep_downloads();
        for name in ["aa", "bb", "cc"] {
            alice.push(&format!("alice/tools/{name}"), "v1", "amd64", &sif(1)).await.ok();
        }
        let mut pulled = 0;
        for writes in 0..4 {
            for name in ["aa", "bb", "cc"] {
                alice.pull(&format!("alice/tools/{name}:v1")).await;
            }
            pulled += 1;
            if dies {
                mortal.dies_after(writes);
            } else {
                silent.0.store(writes, Ordering::SeqCst);
            }
            let written = write_down(app).await;
            mortal.lives();
            silent.0.store(-1, Ordering::SeqCst);
            assert_eq!(written.is_ok(), writes == 3, "after {writes} writes");
            if writes < 3 {
                // What was written, and known to be, is not brought again.
                let left = if dies { 3 - u64::try_from(writes).unwrap() } else { 1 };
                assert_eq!(write_down(app).await.unwrap(), left);
            }
            for name in ["aa", "bb", "cc"] {
                let shown = alice.get(&format!("/api/downloads?repository=alice/tools/{name}")).await.ok();
                assert_eq!(shown["data"]["library"], json!(pulled), "{name} after {writes} writes");
            }
        }
    }
}

#[tokio::test]
async fn days_of_long_ago_and_old_marks_are_forgotten() {
    if only_in_one_process("it writes rows of its own") {
        return;
    }
    let server = Server::start().await;
    let (alice, app) = (server.user("alice", 0).await, &server.local.app);
    let id: Id = alice.container(BB).await.parse().unwrap();
    let row = |of: Counted| {
        let downloads = Downloads { library: 1, registry: 0, share: 0 };
        let (repository, days) = (BB.parse().unwrap(), BTreeMap::new());
        Downloaded { repository, container: id, of, first: None, downloads, days, latest: app.now(), version: 1 }
    };
    let all = u64::from(DAYS);
    write(&server, &row(Counted::Repository)).await;
    let mut kept: BTreeMap<Day, Downloaded> = BTreeMap::new();
    for ago in [0, 29, 30, all - 1, all + 2, all + 40] {
        let day = app.now().minus(Duration::from_hours(24 * ago)).day();
        let first = day.first_together();
        let kept = kept.entry(first).or_insert_with(|| Downloaded { first: Some(first), ..row(Counted::Repository) });
        kept.days.insert(day, kept.downloads);
    }
    for row in kept.values() {
        write(&server, row).await;
    }
    let days = async |asked: &str| shown(&alice, asked).await["days"].as_array().unwrap().len();
    assert_eq!((days("").await, days("&days=31").await, days("&days=400").await), (2, 3, 4));
    // Two tags that nobody fetched for long: one of them is there.
    alice.push(BB, "there", "amd64", &sif(1)).await.ok();
    let tags = ["there", "gone"].map(|tag| Counted::Tag(tag.parse().unwrap()));
    for tag in &tags {
        let latest = app.now().minus(Duration::from_hours(24 * (all + 2)));
        write(&server, &Downloaded { latest, ..row(tag.clone()) }).await;
    }
    let mark =
        |batch: &str, gone| BatchCounted { batch: batch.to_owned(), repository: BB.parse().unwrap(), part: 0, gone };
    let (old, new) = (mark("old", app.now()), mark("new", app.now().plus(Duration::from_hours(1))));
    write(&server, &old).await;
    write(&server, &new).await;
    let there = async |mark: &BatchCounted| {
        let key = shared::store::keys::batch_counted(&mark.batch, &mark.repository, mark.part);
        app.table.get::<BatchCounted>(key).await.unwrap().is_some()
    };
    sweep::sweep(app, sweep::Ages::safe(app)).await.unwrap();
    let rows = app
        .table
        .query_all::<Downloaded>(shared::store::keys::downloaded_by_day(&BB.parse().unwrap(), &Counted::Repository));
    let first = app.now().minus(Duration::from_hours(24 * all)).day().0;
    let stay = kept.keys().filter(|day| day.0 + Day::TOGETHER > first).count();
    assert!(stay < kept.len());
    assert_eq!((rows.await.unwrap().len(), there(&old).await, there(&new).await), (stay, false, true));
    assert_eq!(numbers(&alice, "").await, [1, 0, 0]);
    let key = |of: &Counted| shared::store::keys::downloaded(&BB.parse().unwrap(), of, None);
    let kept = app.table.batch(tags.iter().map(key)).await.unwrap();
    assert_eq!(tags.each_ref().map(|tag| kept.has(&key(tag))), [true, false]);
}
