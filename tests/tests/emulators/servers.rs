//! Several `stackroom serve` processes on one table and one bucket are one library: what one of them has acknowledged is
//! there at the others at once, and each may die at any moment.

use crate::{Server, everywhere, push};
use futures::future::join_all;
use serde_json::{Value, json};
use stackroom_tests::Caller;
use stackroom_tests::chance::Chance;
use stackroom_tests::sif::SifBuilder;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// One process.
struct Process {
    child: Child,
    port: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Process {
    /// Starts a process on the stores of `server`, and waits until it answers.
    async fn start(server: &Server, port: u16) -> Self {
        let program = std::env::var("STACKROOM_BIN").expect("STACKROOM_BIN is the built `stackroom`");
        let mut command = Command::new(program);
        command.args(["serve", "--create", "--listen", &format!("127.0.0.1:{port}")]);
        command.envs(server.environment.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let mut process = Self { child, port };
        for _ in 0..1200 {
            if let Some(status) = process.child.try_wait().unwrap() {
                panic!("`stackroom serve` ended: {status}");
            }
            if reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await.is_ok_and(|ready| ready.status() == 200) {
                return process;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("`stackroom serve` does not answer");
    }

    /// The same caller, asking this process.
    fn of(&self, caller: &Caller) -> Caller {
        Caller::new(&format!("http://127.0.0.1:{}", self.port), caller.token.clone())
    }
}

fn image(seed: u64) -> Vec<u8> {
    SifBuilder::new("amd64").seed(seed).payload_len(5_000).build()
}

#[tokio::test]
async fn two_servers_on_the_same_stores_are_one_library() {
    everywhere(|server| async move {
        let (one, two) = tokio::join!(Process::start(&server, free_port()), Process::start(&server, free_port()));
        let alice = server.user("alice", 0).await;
        let (here, there, nobody) = (one.of(&alice), two.of(&alice), two.of(&server.nobody));
        assert_eq!(push(&server, &here, "alice/tools/bb", "v1", &image(1)).await, 200);
        assert_eq!(nobody.pull("alice/tools/bb:v1").await.bytes, image(1));
        // Either follows the change, which its history then shows.
        let history = "/api/history?repository=alice/tools/bb&tag=v1";
        let mut rows = 0;
        for _ in 0..200 {
            rows = there.get(history).await.ok()["data"].as_array().unwrap().len();
            if rows > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(rows, 1);
        // A token that one of them made, the other one knows, until it is revoked.
        let made = here.post("/api/users/alice/tokens", json!({ "name": "short" })).await.ok()["data"].clone();
        let short = two.of(&Caller::new("", Some(made["token"].as_str().unwrap().to_owned())));
        short.get("/api/users/alice").await.ok();
        let listed = here.get("/api/users/alice/tokens").await.ok()["data"].clone();
        let row = listed.as_array().unwrap().iter().find(|row| row["name"] == "short").unwrap().clone();
        here.delete(&format!("/api/users/alice/tokens/{}", row["id"].as_str().unwrap())).await.ok();
        short.get("/api/users/alice").await.error(401);

        let group = json!({ "name": "acme" });
        let makers = (0..32).map(|number| {
            let (maker, group) = (if number % 2 == 0 { &here } else { &there }, group.clone());
            async move { maker.post("/api/groups", group).await.status.as_u16() }
        });
        let made = join_all(makers).await;
        assert_eq!(made.iter().filter(|status| (200..300).contains(*status)).count(), 1, "{made:?}");

        let size = image(0).len() as u64;
        let poor = server.user("poor", 10 * size).await;
        poor.container("poor/tools/bb").await;
        let (here, there) = (one.of(&poor), two.of(&poor));
        let pushes = (0..32).map(|seed| {
            let (server, who) = (&server, if seed % 2 == 0 { &here } else { &there });
            async move { push(server, who, "poor/tools/bb", &format!("t{seed}"), &image(seed)).await }
        });
        let statuses = join_all(pushes).await;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
        assert_eq!(server.quota("poor").await, (10 * size, 0));
        // Both sweep at once.
        let admins = [one.of(&server.admin), two.of(&server.admin)];
        let swept = join_all(admins.iter().map(|admin| admin.post("/api/sweep", json!({ "now": true })))).await;
        for answer in swept {
            let data = answer.ok()["data"].clone();
            assert_eq!((&data["failed"], &data["wrong_accounts"]), (&json!(0), &json!([])), "{data}");
        }
        for (status, seed) in statuses.iter().zip(0..) {
            let pulled = nobody.pull(&format!("poor/tools/bb:t{seed}")).await;
            assert_eq!(pulled.status.as_u16(), if *status == 200 { 200 } else { 404 });
        }
    })
    .await;
}

/// How many times a server is killed, unless `SERVER_KILLS` says otherwise.
fn kills() -> u64 {
    std::env::var("SERVER_KILLS").map_or(5, |text| text.parse().unwrap())
}

/// How long all of that may take.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(10 * kills())
}

/// One push, step by step as clients do, whose server may die. Fails with the first step that was not acknowledged.
async fn pushed(who: &Caller, path: &str, tag: &str, bytes: &[u8]) -> Result<(), String> {
    let asked = async |step: &str, request: reqwest::RequestBuilder| {
        let failed = |error: reqwest::Error| format!("{step} of {tag}: {error:?}");
        let sent = request.send().await.map_err(failed)?;
        let status = sent.status();
        let body = sent.text().await.map_err(failed)?;
        if status.is_success() { Ok(body) } else { Err(format!("{step} of {tag}: {status} {body}")) }
    };
    let data = |body: String| serde_json::from_str::<Value>(&body).unwrap()["data"].take();
    let id = |data: &Value| data["id"].as_str().unwrap().to_owned();
    let post = |path: &str, body: Value| who.request(reqwest::Method::POST, path).json(&body);
    let found = who.request(reqwest::Method::GET, &format!("/v1/containers/{path}"));
    let container = id(&data(asked("the container", found).await?));
    let hash = format!("sha256.{}", shared::domain::Digest::of(bytes).hex());
    let image = data(asked("the image", post("/v1/images", json!({ "hash": hash, "container": container }))).await?);
    let name = id(&image);
    if image["uploaded"] != json!(true) {
        let body = json!({ "filesize": bytes.len(), "md5sum": "" });
        let opened = data(asked("the upload", post(&format!("/v2/imagefile/{name}"), body)).await?);
        let url = opened["uploadURL"].as_str().unwrap();
        asked("the bytes", who.bare(reqwest::Method::PUT, url).body(bytes.to_vec())).await?;
        let done = who.request(reqwest::Method::PUT, &format!("/v2/imagefile/{name}/_complete"));
        asked("the end", done.json(&json!({}))).await?;
    }
    let body = json!({ "Arch": "amd64", "Tag": tag, "ImageID": name });
    asked("the tag", post(&format!("/v2/tags/{container}"), body)).await.map(drop)
}

#[tokio::test]
async fn what_a_server_acknowledged_is_there_when_it_is_killed() {
    everywhere(|server| async move {
        let port = free_port();
        let (mut mortal, other) = tokio::join!(Process::start(&server, port), Process::start(&server, free_port()));
        let alice = server.user("alice", 0).await;
        alice.container("alice/tools/bb").await;
        let (here, there) = (mortal.of(&alice), other.of(&alice));
        let (over, next) = (AtomicBool::new(false), AtomicU64::new(0));
        let pusher = async |who: &Caller| {
            let (mut done, mut lost) = (Vec::new(), Vec::new());
            while !over.load(Ordering::SeqCst) {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                match pushed(who, "alice/tools/bb", &format!("t{seed}"), &image(seed)).await {
                    Ok(()) => done.push(seed),
                    Err(why) => {
                        lost.push(why);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
            (done, lost)
        };
        let killer = async {
            let mut chance = Chance::new(1);
            for _ in 0..kills() {
                tokio::time::sleep(Duration::from_millis(chance.below(2_500))).await;
                drop(mortal);
                mortal = Process::start(&server, port).await;
            }
            over.store(true, Ordering::SeqCst);
            mortal
        };
        let (mortal, first, second, third) = tokio::join!(killer, pusher(&here), pusher(&here), pusher(&there));
        println!(
            "{} and {} pushes acknowledged by the mortal one, {} by the other",
            first.0.len(),
            second.0.len(),
            third.0.len()
        );
        assert!(first.1.len() + second.1.len() > 0, "no push was interrupted");
        assert_eq!(third.1, Vec::<String>::new(), "the other server lost pushes");
        let nobody = mortal.of(&server.nobody);
        for seed in first.0.iter().chain(&second.0).chain(&third.0) {
            let pulled = nobody.pull(&format!("alice/tools/bb:t{seed}")).await;
            assert_eq!(pulled.status, 200, "t{seed}: {}", String::from_utf8_lossy(&pulled.bytes));
            assert!(pulled.bytes == image(*seed), "t{seed}");
        }
        server.sweep_all().await;
        let (_, reserved) = server.quota("alice").await;
        assert_eq!(reserved, 0, "nothing is stuck");
    })
    .await;
}
