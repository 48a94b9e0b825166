//! Random operations while functions die, start cold, are refused and hear of things twice: nothing that was acknowledged
//! is lost, no account drifts, and nothing stays behind.

use crate::Both;
use gateway::faults::Rates;
use gateway::lambda::Function;
use reqwest::Method;
use serde_json::{Value, json};
use stackroom_tests::chance::Chance;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, send};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A client that tries again what the gateway says failed, as clients do, and gives up after some times.
struct Stubborn(Caller);

impl Stubborn {
    /// Sends a request and returns status, location and body. Not through [`send`]: the gateway has a form of its own.
    async fn ask(&self, method: Method, path: &str, body: &Value) -> (u16, Option<String>, Vec<u8>) {
        let mut answer = (0, None, Vec::new());
        for _ in 0..8 {
            let request = self.0.request(method.clone(), path);
            let request = if body.is_null() { request } else { request.body(body.to_string()) };
            let response = request.send().await.unwrap();
            let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
            answer = (response.status().as_u16(), location, response.bytes().await.unwrap().to_vec());
            if answer.0 < 500 {
                break;
            }
        }
        answer
    }

    /// The field of a success, or nothing.
    async fn field(&self, method: Method, path: &str, body: Value, name: &str) -> Option<Value> {
        let (status, _, bytes) = self.ask(method, path, &body).await;
        let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        (status < 300).then(|| json["data"][name].clone())
    }

    /// Pushes an image under a tag. Whether it was acknowledged.
    async fn push(&self, path: &str, tag: &str, bytes: &[u8]) -> Option<()> {
        let [entity, collection, name] = path.split('/').collect::<Vec<_>>()[..] else { panic!("{path}") };
        let entity = self.field(Method::POST, "/v1/entities", json!({ "name": entity }), "id").await?;
        let body = json!({ "name": collection, "entity": entity });
        let collection = self.field(Method::POST, "/v1/collections", body, "id").await?;
        let body = json!({ "name": name, "collection": collection });
        let container = self.field(Method::POST, "/v1/containers", body, "id").await?;
        let hash = shared::domain::Digest::of(bytes);
        let body = json!({ "hash": hash.library(), "container": container });
        let (_, _, image) = self.ask(Method::POST, "/v1/images", &body).await;
        let image: Value = serde_json::from_slice(&image).unwrap_or_default();
        let id = image["data"]["id"].as_str()?.to_owned();
        if image["data"]["uploaded"] == json!(false) {
            let body = json!({ "filesize": bytes.len(), "md5sum": "", "sha256sum": hash.hex() });
            let url = self.field(Method::POST, &format!("/v2/imagefile/{id}"), body, "uploadURL").await?;
            let sent = self.0.upload(url.as_str()?, bytes).await;
            let done = self.ask(Method::PUT, &format!("/v2/imagefile/{id}/_complete"), &json!({})).await;
            if !sent.status.is_success() || done.0 >= 300 {
                return None;
            }
        }
        let body = json!({ "Arch": "amd64", "Tag": tag, "ImageID": id });
        let tagged = self.ask(Method::POST, &format!("/v2/tags/{}", container.as_str()?), &body).await;
        (tagged.0 < 300).then_some(())
    }

    /// The bytes behind a tag, if there are some.
    async fn pull(&self, path: &str, tag: &str) -> Option<Vec<u8>> {
        let (status, location, _) =
            self.ask(Method::GET, &format!("/v1/imagefile/{path}:{tag}?arch=amd64"), &Value::Null).await;
        assert!([303, 404].contains(&status), "{status}");
        let location = location?;
        let mut answer = send(self.0.bare(Method::GET, &location)).await;
        // The bucket may be asked too often, too.
        while answer.status == 503 {
            answer = send(self.0.bare(Method::GET, &location)).await;
        }
        assert_eq!(answer.status, 200, "what has a tag has its bytes");
        Some(answer.bytes)
    }
}

/// What may be behind each tag: the bytes of these numbers, or nothing. Several where nobody knows what came of an
/// operation.
type Possible = BTreeMap<(String, &'static str), BTreeSet<Option<u64>>>;

fn numbered(number: u64) -> Vec<u8> {
    SifBuilder::new("amd64").seed(number).build()
}

/// One person's operations in random order. Returns what may be there at the end.
async fn operations(who: &Stubborn, name: &str, seed: u64, count: u64) -> Possible {
    let (mut chance, mut possible) = (Chance::new(seed), Possible::new());
    for number in 0..count {
        let (path, tag) =
            (format!("{name}/tools/c{}", chance.below(3)), ["v1", "v2"][usize::try_from(chance.below(2)).unwrap()]);
        let known = possible.entry((path.clone(), tag)).or_insert_with(|| BTreeSet::from([None]));
        // Bytes that nobody else has: what is deleted for one tag is deleted for no other.
        let fresh = (seed << 32) + number;
        match chance.below(4) {
            0 | 1 => match who.push(&path, tag, &numbered(fresh)).await {
                Some(()) => *known = BTreeSet::from([Some(fresh)]),
                None => drop(known.insert(Some(fresh))),
            },
            2 => match who.ask(Method::DELETE, &format!("/v1/images/{path}:{tag}?arch=amd64"), &Value::Null).await.0 {
                200 | 404 => *known = BTreeSet::from([None]),
                _ => drop(known.insert(None)),
            },
            _ => {
                let found = who.pull(&path, tag).await;
                let fits = |number: &Option<u64>| number.map(numbered) == found;
                let one = known.iter().copied().find(fits);
                *known = BTreeSet::from([one.unwrap_or_else(|| panic!("{path}:{tag} is none of {known:?}"))]);
            }
        }
    }
    possible
}

/// `CHAOS_OPERATIONS=10000` does more, `CHAOS_SEED=7` others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_die_at_any_call_and_nothing_acknowledged_is_lost() {
    let set = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (count, seed) = (set("CHAOS_OPERATIONS", 200), set("CHAOS_SEED", 1));
    let both = Both::start().await;
    let faults = &both.functions.guard.faults;
    let names = ["alice", "bob", "carol", "dave"];
    let mut people = Vec::new();
    for name in names {
        people.push(Stubborn(both.there(&both.server.user(name, 0).await)));
    }
    faults.set(Rates { cold: 0.02, killed: 0.05, twice: 0.02, throttled: 0.01, slow: 0.01, ..Rates::default() });
    let working = names
        .iter()
        .zip(&people)
        .zip(1..)
        .map(|((name, who), number)| operations(who, name, seed * 10 + number, count / 4));
    let sweeping = async {
        for _ in 0..count / 50 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            // It may die, too: then it is called again, as Lambda does.
            let _ = both.functions.functions["Sweep"].deliver("{}".into(), 2).await;
        }
    };
    let (ended, ()) = tokio::join!(futures::future::join_all(working), sweeping);
    faults.set(Rates::default());
    for _ in 0..3 {
        // It checks that each account is the sum of what it is charged.
        both.server.sweep_all().await;
    }
    let mut unsure = 0;
    for (who, possible) in people.iter().zip(&ended) {
        for ((path, tag), numbers) in possible {
            let found = who.pull(path, tag).await;
            assert!(numbers.iter().any(|number| number.map(numbered) == found), "{path}:{tag} is none of {numbers:?}");
            unsure += usize::from(numbers.len() > 1);
        }
    }
    let started: usize = both.functions.functions.values().map(Function::started).sum();
    println!("{count} operations, {started} instances, {unsure} tags of which nobody knows");
    for name in names {
        both.server.admin.delete(&format!("/v1/collections/{name}/tools?cascade=1")).await;
    }
    for _ in 0..3 {
        both.server.sweep_all().await;
    }
    assert_eq!(both.server.objects().await, Vec::<String>::new(), "nothing is stuck");
    for name in names {
        assert_eq!(both.server.quota(name).await, (0, 0), "{name}");
    }
}
