//! The metrics of a server, as somebody reads them who scrapes it.

use crate::library::{hash, sif};
use crate::support::{BB, LAYER, MANIFEST, basic, blob_at, closing, digest, image, is, manifest_at};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use server::serve::{Settings, Stores, serve};
use shared::domain::Digest;
use stackroom_tests::functions::only_in_one_process;
use stackroom_tests::{Answer, Caller, send};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A server as `stackroom serve` starts it.
struct Serving {
    url: String,
    ingest: String,
    metrics: String,
    folder: TempDir,
    task: JoinHandle<anyhow::Result<()>>,
    /// How many answers of each kind there were.
    answers: BTreeMap<String, u64>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Serving {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let [listen, ingest, metrics] = [free(), free(), free()];
        let stores = Stores::Folder(folder.path().join("data"));
        let settings =
            Settings { listen, stores, ingest_listen: Some(ingest), public_url: None, metrics: Some(metrics) };
        let task = tokio::spawn(serve(settings));
        let token = folder.path().join("data/admin.token");
        for address in [listen, ingest, metrics] {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                assert!(!task.is_finished(), "the server has ended");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        while std::fs::read_to_string(&token).unwrap_or_default().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let [url, ingest, metrics] = [listen, ingest, metrics].map(|address| format!("http://{address}"));
        Self { url, ingest, metrics, folder, task, answers: BTreeMap::new() }
    }

    fn admin(&self) -> Caller {
        Caller::new(&self.url, Some(std::fs::read_to_string(self.folder.path().join("data/admin.token")).unwrap()))
    }

    /// Sends a request to a group of routes, and remembers it.
    async fn ask(&mut self, group: &str, request: RequestBuilder, status: u16) -> Answer {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let method = if request.method() == "ALICE" { "other".to_owned() } else { request.method().to_string() };
        let answer = send(RequestBuilder::from_parts(client, request)).await;
        is(&answer, status);
        let labels = format!(r#"{{group="{group}",method="{method}",status="{status}"}}"#);
        *self.answers.entry(labels).or_default() += 1;
        answer
    }

    /// The metrics once everything that follows from the last change is done.
    async fn settled(&self) -> Scraped {
        let mut before = self.scrape().await;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let after = self.scrape().await;
            if ["reads", "writes"].iter().all(|kind| {
                let name = format!("stackroom_table_{kind}_total");
                (after.at(&name) - before.at(&name)).abs() < 0.5
            }) {
                return after;
            }
            before = after;
        }
    }

    async fn scrape(&self) -> Scraped {
        let answer = send(Caller::new(&self.metrics, None).request(Method::GET, "/metrics")).await;
        is(&answer, 200);
        let kind = answer.header("content-type").unwrap();
        assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        Scraped::parse(String::from_utf8(answer.bytes).unwrap())
    }
}

/// A text in the format of `OpenMetrics`, read strictly.
struct Scraped {
    text: String,
    /// The samples by their names with labels.
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    text.starts_with(letter) && text.chars().all(|c| letter(c) || c.is_ascii_digit())
}

impl Scraped {
    /// Source: the specification of `OpenMetrics` 1.0, "Text format".
    fn parse(text: String) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the text ends as one that is complete");
        let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::<String, String>::new());
        let mut family = String::new();
        for line in body.lines() {
            assert!(!line.is_empty() && line.trim() == line, "{line:?}");
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (kind, name, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                assert!(is_name(name) && !value.is_empty(), "{line}");
                match kind {
                    "TYPE" => {
                        assert!(["counter", "gauge", "histogram", "info"].contains(&value), "{line}");
                        assert!(types.insert(name.to_owned(), value.to_owned()).is_none(), "{name} comes twice");
                    }
                    "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                    "HELP" => assert!(value.ends_with('.'), "{line}"),
                    _ => panic!("{line}"),
                }
                name.clone_into(&mut family);
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            let (plain, labels) = name.split_once('{').map_or((name, ""), |(plain, labels)| (plain, labels));
            assert!(is_name(plain), "{line}");
            let ends: &[&str] = match types[&family].as_str() {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                _ => &[""],
            };
            assert!(ends.iter().any(|end| plain == format!("{family}{end}")), "{line} is not of {family}");
            if !labels.is_empty() {
                for pair in labels.strip_suffix('}').unwrap().split("\",") {
                    let (label, value) = pair.split_once("=\"").unwrap();
                    let value = value.strip_suffix('"').unwrap_or(value);
                    assert!(is_name(label) && !value.contains(['"', '\\']), "{line}");
                }
            }
            let number: f64 = value.parse().unwrap();
            assert!(number.is_finite() && number >= 0.0, "{line}");
            assert!(samples.insert(name.to_owned(), number).is_none(), "{name} comes twice");
        }
        let scraped = Self { text, samples, types };
        scraped.check_histograms();
        scraped
    }

    fn check_histograms(&self) {
        for name in self.types.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let buckets = self.text.lines().filter_map(|line| line.strip_prefix(&format!("{name}_bucket{{")));
            let mut last = (String::new(), 0.0, 0.0);
            for (labels, count) in buckets.map(|line| line.rsplit_once(' ').unwrap()) {
                let (bound, rest) = labels.strip_prefix("le=\"").unwrap().split_once('"').unwrap();
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                let (rest, count) = (rest.trim_start_matches(','), count.parse::<f64>().unwrap());
                if last.0 == rest {
                    assert!(bound > last.1 && count >= last.2, "{labels}");
                }
                if bound.is_infinite() {
                    assert!((count - self.at(&format!("{name}_count{{{rest}"))).abs() < 0.5, "{labels}");
                }
                last = (rest.to_owned(), bound, count);
            }
        }
    }

    #[track_caller]
    fn at(&self, name: &str) -> f64 {
        *self.samples.get(name).unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    #[track_caller]
    fn is(&self, name: &str, number: usize) {
        let found = self.at(name);
        assert!((found - f64::from(u32::try_from(number).unwrap())).abs() < 0.5, "{name} is {found}, not {number}");
    }

    fn starting(&self, prefix: &str) -> BTreeMap<String, u64> {
        let found = self.samples.iter().filter_map(|(name, number)| Some((name.strip_prefix(prefix)?, number)));
        found.map(|(labels, number)| (labels.to_owned(), format!("{number}").parse().unwrap())).collect()
    }
}

fn json_of(who: &Caller, method: Method, path: &str, body: &Value) -> RequestBuilder {
    who.request(method, path).body(body.to_string())
}

/// Pushes and pulls an image through the library.
async fn through_the_library(serving: &mut Serving, alice: &Caller, bytes: &[u8]) {
    let id = |answer: &Answer| answer.json["data"]["id"].as_str().unwrap().to_owned();
    let made = json!({ "name": "tools", "entity": "alice" });
    let collection = json_of(alice, Method::POST, "/v1/entities", &json!({ "name": "alice" }));
    let entity = id(&serving.ask("library", collection, 200).await);
    let collection =
        json_of(alice, Method::POST, "/v1/collections", &json!({ "name": made["name"], "entity": entity }));
    let collection = id(&serving.ask("library", collection, 200).await);
    let container = json!({ "name": "bb", "collection": collection });
    let container = id(&serving.ask("library", json_of(alice, Method::POST, "/v1/containers", &container), 200).await);
    let made = json!({ "hash": hash(bytes), "container": container });
    let made = id(&serving.ask("library", json_of(alice, Method::POST, "/v1/images", &made), 200).await);
    let file = json!({ "filesize": bytes.len(), "md5sum": "", "sha256sum": Digest::of(bytes).hex() });
    let path = format!("/v2/imagefile/{made}");
    let opened = serving.ask("imagefile", json_of(alice, Method::POST, &path, &file), 200).await;
    let url = opened.json["data"]["uploadURL"].as_str().unwrap().to_owned();
    let put = alice.bare(Method::PUT, &url).header("content-type", "application/octet-stream");
    let put = put.header("x-amz-content-sha256", Digest::of(bytes).hex()).body(bytes.to_vec());
    serving.ask("objects", put, 200).await;
    let complete = json_of(alice, Method::PUT, &format!("{path}/_complete"), &json!({}));
    serving.ask("imagefile", complete, 200).await;
    let tag = json!({ "Arch": "amd64", "Tag": "v1", "ImageID": made });
    serving.ask("library", json_of(alice, Method::POST, &format!("/v2/tags/{container}"), &tag), 200).await;
    let found = alice.request(Method::GET, "/v1/imagefile/alice/tools/bb:v1?arch=amd64");
    let found = serving.ask("imagefile", found, 303).await;
    let pulled = alice.bare(Method::GET, found.header("location").unwrap());
    assert_eq!(serving.ask("objects", pulled, 200).await.bytes, bytes);
    let missing = alice.request(Method::GET, "/v1/images/alice/tools/secret:v1");
    serving.ask("library", missing, 404).await;
}

/// Pushes and pulls an image through the registry.
async fn through_the_registry(serving: &mut Serving, alice: &Caller) {
    serving.ask("oci", alice.bare(Method::GET, "/v2/"), 401).await;
    let login = basic(alice, Method::GET, "/token?service=stackroom", "alice", alice.token.as_deref().unwrap());
    serving.ask("login", login, 200).await;
    for (bytes, brought, status) in
        [(&b"config"[..], &b"config"[..], 201), (b"layer", b"layer", 201), (b"l", b"x", 400)]
    {
        let path = format!("/v2/{BB}/blobs/uploads/");
        let opened = serving.ask("oci", alice.request(Method::POST, &path), 202).await;
        let url = closing(opened.header("location").unwrap(), &digest(bytes));
        serving.ask("oci", alice.request(Method::PUT, &url).body(brought), status).await;
    }
    let body = image(b"config", &[b"layer"]).to_string();
    assert!(body.contains(LAYER));
    let put = alice.request(Method::PUT, &manifest_at(BB, "v2")).header("content-type", MANIFEST);
    serving.ask("oci", put.body(body), 201).await;
    serving.ask("oci", alice.request(Method::HEAD, &manifest_at(BB, "v2")), 200).await;
    serving.ask("oci", alice.request(Method::GET, &blob_at(BB, &digest(b"layer"))), 200).await;
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test]
async fn the_metrics_are_what_happened_and_name_nobody() {
    if only_in_one_process("functions have no listener for metrics") {
        return;
    }
    let began = now();
    let mut serving = Serving::start().await;
    let (admin, bytes) = (serving.admin(), sif(1));
    let user = json_of(&admin, Method::POST, "/api/users", &json!({ "name": "alice", "quota": 0 }));
    serving.ask("people", user, 200).await;
    let token = json_of(&admin, Method::POST, "/api/users/alice/tokens", &json!({ "name": "laptop" }));
    let token = serving.ask("people", token, 200).await.json["data"]["token"].as_str().unwrap().to_owned();
    let alice = admin.with(&token);
    through_the_library(&mut serving, &alice, &bytes).await;
    through_the_registry(&mut serving, &alice).await;
    // A word that no method is.
    let odd = alice.bare(Method::from_bytes(b"ALICE").unwrap(), "/version");
    serving.ask("discovery", odd, 405).await;
    // The public listener knows nothing of metrics, and neither does that for blobs.
    let (ingest, public) = (serving.ingest.clone(), serving.url.clone());
    serving.ask("none", alice.bare(Method::GET, &format!("{public}/metrics")), 404).await;
    serving.ask("ingest", alice.bare(Method::GET, &format!("{ingest}/metrics")), 404).await;
    let sweep = json_of(&admin, Method::POST, "/api/sweep", &json!({}));
    serving.ask("admin", sweep, 200).await;

    let scraped = serving.settled().await;
    assert_eq!(scraped.starting("stackroom_http_requests_total"), serving.answers);
    for group in ["library", "imagefile", "objects", "oci", "login", "people", "admin", "discovery", "none", "ingest"] {
        let of_it = serving.answers.iter().filter(|(labels, _)| labels.starts_with(&format!(r#"{{group="{group}","#)));
        let all = usize::try_from(of_it.map(|(_, count)| count).sum::<u64>()).unwrap();
        scraped.is(&format!(r#"stackroom_http_request_duration_seconds_count{{group="{group}"}}"#), all);
    }
    scraped.is(r#"stackroom_http_request_bytes_total{group="objects"}"#, bytes.len());
    scraped.is(r#"stackroom_http_response_bytes_total{group="objects"}"#, bytes.len());
    scraped.is("stackroom_http_requests_in_flight", 0);
    scraped.is("stackroom_connections_refused_total", 0);
    for (name, number) in [
        ("uploads_opened", 1),
        ("uploads_committed", 1),
        ("uploads_ended", 0),
        ("uploads_refused", 1),
        ("uploads_bytes", bytes.len()),
        ("blobs_committed", 2),
        ("blobs_bytes", 11),
        ("table_retries", 0),
        ("table_transactions_lost", 0),
        ("sweeps", 1),
        ("sweeps_failed", 0),
        ("sweep_objects_deleted", 0),
        ("sweep_wrong_accounts", 0),
    ] {
        scraped.is(&format!("stackroom_{name}_total"), number);
    }
    let (ended, started) =
        (scraped.at("stackroom_sweep_last_end_timestamp_seconds"), scraped.at("process_start_time_seconds"));
    assert!(
        began.floor() <= ended && ended <= now() && began <= started && started <= now(),
        "{began} {ended} {started}"
    );
    assert!(scraped.at("process_resident_memory_bytes") > 1e6 && scraped.at("process_cpu_seconds_total") > 0.0);
    assert!(scraped.at("process_open_fds") > 5.0 && scraped.at("process_open_fds") < scraped.at("process_max_fds"));
    let version = format!(r#"stackroom_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"));
    scraped.is(&version, 1);
    for secret in ["alice", "ALICE", "tools", "laptop", "bb:", "secret", token.as_str(), &hash(&bytes), "127.0.0.1"] {
        assert!(!scraped.text.contains(secret), "{secret}: {}", scraped.text);
    }

    // A lookup is one read of the table and no write.
    serving.ask("library", alice.request(Method::GET, "/v1/images/alice/tools/bb:v1"), 200).await;
    let after = serving.scrape().await;
    let more = |name: &str| after.at(name) - scraped.at(name);
    assert!((more("stackroom_table_reads_total") - 1.0).abs() < 0.5);
    assert!(more("stackroom_table_writes_total").abs() < 0.5);
    assert_eq!(after.starting("stackroom_http_requests_total"), serving.answers, "a scrape is no request");
}

#[tokio::test]
async fn the_listener_of_the_metrics_has_nothing_else() {
    if only_in_one_process("functions have no listener for metrics") {
        return;
    }
    let serving = Serving::start().await;
    let caller = Caller::new(&serving.metrics, serving.admin().token);
    for path in ["/", "/version", "/v2/", "/api/users", "/objects/x", "/metrics/", "/metrics/x"] {
        assert_eq!(send(caller.request(Method::GET, path)).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        assert_eq!(send(caller.request(method, "/metrics")).await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    let answered = serving.scrape().await;
    assert!(answered.starting("stackroom_http_requests_total").is_empty(), "{}", answered.text);
}
