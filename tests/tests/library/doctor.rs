//! `stackroom doctor`: its probes find nothing wrong with a server, and each fault on the way to it is found by the probes
//! that are there for it, and by no other.
//!
//! The faults are made by a proxy for HTTP, so that every byte passes there under the server's own URL, on the way to the
//! library and to the object store alike.

#[path = "../../../cli/src/doctor/outside/mod.rs"]
mod outside;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::StreamExt as _;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use outside::{Finding, Settings, Status};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use shared::config::Pins;
use stackroom_tests::functions::only_on_our_stores;
use stackroom_tests::{Caller, Server};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

fn settings(server: &Server, token: Option<&Caller>, proxy: Option<&str>) -> Settings {
    let client = reqwest::Client::builder().redirect(Policy::none());
    let client = match proxy {
        Some(proxy) => client.proxy(reqwest::Proxy::all(proxy).unwrap()),
        None => client.no_proxy(),
    };
    let token = token.map(|who| who.token.clone().unwrap());
    let (url, client) = (server.url.parse().unwrap(), client.build().unwrap());
    Settings { url, client, token, entity: None, large: false }
}

/// The names of the probes with a status.
fn with(findings: &[Finding], status: Status) -> BTreeSet<&'static str> {
    findings.iter().filter(|finding| finding.status == status).map(|finding| finding.probe).collect()
}

/// Findings that are not as they should be, for the message of a failed test.
fn told(findings: &[Finding]) -> Vec<String> {
    let told = findings.iter().filter(|finding| finding.status != Status::Ok);
    told.map(|finding| format!("{:?} {}: {}", finding.status, finding.probe, finding.seen)).collect()
}

#[tokio::test]
async fn a_doctor_finds_nothing_wrong_and_leaves_nothing_behind() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let mut shown = Vec::new();
    let findings = outside::run(settings(&server, Some(&alice), None), |finding| shown.push(finding.probe)).await;
    assert_eq!(with(&findings, Status::Failed), BTreeSet::new(), "{:#?}", told(&findings));
    // Bytes go to the server's own host here, and nobody asked for 500 MiB.
    let mut skipped = BTreeSet::from(["browsers", "large-push"]);
    let mut warned = BTreeSet::new();
    if server.functions.is_some() && !stackroom_tests::functions::emulated() {
        // Functions sign with the credentials of their roles. Those that an emulator gives them are nobody's.
        warned.insert("redirect-lives");
    }
    if server.local.app.config.pin_uploads != Pins::Bytes {
        skipped.extend(["pinned-put", "pinned-part"]);
    }
    if server.other.is_some() {
        // A store on a host of its own, which pages may not use.
        skipped.remove("browsers");
        warned.insert("browsers");
    }
    assert_eq!(with(&findings, Status::Skipped), skipped, "{:#?}", told(&findings));
    assert_eq!(with(&findings, Status::Warning), warned, "{:#?}", told(&findings));
    assert_eq!(shown, findings.iter().map(|finding| finding.probe).collect::<Vec<_>>());
    for finding in &findings {
        let wrong = matches!(finding.status, Status::Warning | Status::Failed);
        assert_eq!(finding.advice.is_some(), wrong, "{finding:?}");
        assert!(!finding.seen.contains("X-Amz-"), "a URL with a secret: {finding:?}");
    }

    let listed = alice.get("/v1/collections?entity=alice").await.ok();
    assert_eq!(listed["data"], json!([]));
    crate::support::sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn a_doctor_without_a_token_tries_what_anybody_sees_and_says_what_it_left_out() {
    let server = Server::start().await;
    let findings = outside::run(settings(&server, None, None), |_| {}).await;
    let seen = with(&findings, Status::Ok);
    let anonymous =
        ["version", "stores-ready", "addresses", "tls", "clock", "challenge", "own-errors", "trailing-slash"];
    assert_eq!(seen, BTreeSet::from(anonymous), "{:#?}", told(&findings));
    let skipped = findings.iter().filter(|finding| finding.status == Status::Skipped);
    assert!(skipped.clone().count() > 20);
    for finding in skipped.filter(|finding| finding.probe != "large-push") {
        assert!(finding.seen.contains("token"), "{finding:?}");
    }
    assert_eq!(server.objects().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_doctor_that_may_not_push_says_so_and_goes_on() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    server.user("bob", 0).await;
    let other = Settings { entity: Some("bob".to_owned()), ..settings(&server, Some(&alice), None) };
    let findings = outside::run(other, |_| {}).await;
    assert_eq!(with(&findings, Status::Failed), BTreeSet::from(["place"]), "{:#?}", told(&findings));
    assert!(with(&findings, Status::Ok).contains("login"));

    let pulling = server.token("alice", json!({ "name": "pull", "scope": "pull" })).await;
    let findings = outside::run(settings(&server, Some(&pulling), None), |_| {}).await;
    assert_eq!(with(&findings, Status::Failed), BTreeSet::from(["place"]), "{:#?}", told(&findings));
    assert_eq!(alice.get("/v1/collections?entity=alice").await.ok()["data"], json!([]));
}

/// What goes wrong on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    NoChallenge,
    HeadWithoutLength,
    HeadWithAnotherLength,
    LocationWithoutQuery,
    WholeForRanges,
    AcceptsOtherBytes,
    AcceptsOtherParts,
    AcceptsOtherLengths,
    ManifestsWrittenAnew,
    OneSlashForTwo,
    NothingAtTwoSlashes,
    NothingAtEscapedColons,
    NothingAtTheLastSlash,
    OnlyBearer,
    AnotherClock,
    OwnErrors,
    NoDigestOfBlobs,
    BusyUnderLoad,
    NoBasicLogin,
    EncodedObjects,
    LongBlobsMissing,
    BrokenObjects,
    SharesUnavailable,
    PartsWithoutTags,
    LongBodiesRefused,
    ErrorsForStores,
    LongLives,
}

/// A proxy with a fault.
#[derive(Clone)]
struct Proxy {
    fault: Fault,
    client: reqwest::Client,
    /// The length that each URL of the store was given for, by its path and the number of its part.
    lengths: Arc<Mutex<BTreeMap<String, u64>>>,
    /// How many blobs were brought.
    brought: Arc<Mutex<u32>>,
}

impl Proxy {
    async fn start(fault: Fault) -> (String, JoinHandle<()>) {
        let client = reqwest::Client::builder().redirect(Policy::none()).no_proxy().build().unwrap();
        let proxy = Self { fault, client, lengths: Arc::default(), brought: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(move |request: Request| proxy.clone().answer(request));
        (url, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
    }

    async fn answer(self, request: Request) -> Response {
        let (mut parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
        if let Some(answered) = self.before(&mut parts, &body) {
            return answered;
        }
        let request = self.client.request(parts.method.clone(), parts.uri.to_string()).headers(parts.headers.clone());
        let answer = request.body(body.clone()).send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.bytes().await.unwrap().to_vec();
        let mut heard = Heard { status, headers, bytes };
        self.note(&parts, &body, &heard);
        self.after(&parts, &body, &mut heard);
        let mut response = Response::new(Body::from(heard.bytes));
        *response.status_mut() = heard.status;
        *response.headers_mut() = heard.headers;
        response.headers_mut().remove("transfer-encoding");
        if parts.method == Method::HEAD {
            // What is known of no body would be its length.
            *response.body_mut() = Body::from_stream(futures::stream::empty::<Result<Vec<u8>, std::io::Error>>());
        }
        response
    }

    /// Changes a request, or answers it.
    fn before(&self, parts: &mut Parts, body: &[u8]) -> Option<Response> {
        let path = parts.uri.path().to_owned();
        let shouts = parts.headers.get("authorization").is_some_and(|said| said.as_bytes().starts_with(b"BEARER"));
        let refused = match self.fault {
            Fault::NothingAtTwoSlashes if path.contains("//") => 404,
            Fault::NothingAtEscapedColons if path.contains("%3A") => 404,
            Fault::NothingAtTheLastSlash if path == "/v1/entities/" => 404,
            Fault::OnlyBearer if shouts => 401,
            Fault::SharesUnavailable if path.starts_with("/dl/") => 503,
            Fault::LongBodiesRefused if body.len() > 3 << 20 => 413,
            Fault::ErrorsForStores if path == "/readyz" => 503,
            Fault::BusyUnderLoad if path.ends_with("/blobs/uploads/") && body.len() == 1000 => {
                let mut brought = self.brought.lock().unwrap();
                *brought += 1;
                if brought.is_multiple_of(10) { 503 } else { 0 }
            }
            _ => 0,
        };
        if refused != 0 {
            let mut response = Response::new(Body::from(json!({ "message": "no" }).to_string()));
            *response.status_mut() = StatusCode::from_u16(refused).unwrap();
            return Some(response);
        }
        match self.fault {
            Fault::OneSlashForTwo => {
                let uri = parts.uri.to_string();
                let (scheme, rest) = uri.split_once("://").unwrap();
                parts.uri = format!("{scheme}://{}", rest.replace("//", "/")).parse().unwrap();
            }
            Fault::WholeForRanges => drop(parts.headers.remove("range")),
            Fault::NoBasicLogin if path == "/token" => drop(parts.headers.remove("authorization")),
            _ => {}
        }
        None
    }

    /// Remembers what a URL of the store is for.
    fn note(&self, parts: &Parts, body: &[u8], heard: &Heard) {
        if !parts.uri.path().starts_with("/v2/imagefile/") {
            return;
        }
        let (asked, said): (Value, Value) = (
            serde_json::from_slice(body).unwrap_or_default(),
            serde_json::from_slice(&heard.bytes).unwrap_or_default(),
        );
        for (url, length) in [("uploadURL", "filesize"), ("presignedURL", "partSize")] {
            if let (Some(url), Some(length)) = (said["data"][url].as_str(), asked[length].as_u64()) {
                self.lengths.lock().unwrap().insert(url.to_owned(), length);
            }
        }
    }

    /// Changes an answer.
    fn after(&self, parts: &Parts, body: &[u8], heard: &mut Heard) {
        let (method, path, query) = (&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default());
        let lengths = *method == Method::HEAD && path.starts_with("/v2/");
        let object = query.contains("X-Amz-Signature");
        let upload = *method == Method::PUT && object && heard.status.is_client_error();
        let announced = self.lengths.lock().unwrap().get(&parts.uri.to_string()).copied();
        let same_length = announced == Some(body.len() as u64);
        let part = query.contains("partNumber=");
        let headers = &mut heard.headers;
        match self.fault {
            Fault::NoChallenge => drop(headers.remove("www-authenticate")),
            Fault::HeadWithoutLength if lengths => drop(headers.remove("content-length")),
            Fault::HeadWithAnotherLength if lengths => drop(headers.insert("content-length", 1.into())),
            Fault::LocationWithoutQuery if path.contains("/blobs/uploads/") && heard.status == 202 => {
                let location = headers["location"].to_str().unwrap().split('?').next().unwrap().to_owned();
                headers.insert("location", location.parse().unwrap());
            }
            Fault::AcceptsOtherBytes if upload && !part && same_length => heard.status = StatusCode::OK,
            Fault::AcceptsOtherParts if upload && part && same_length => heard.status = StatusCode::OK,
            Fault::AcceptsOtherLengths if upload && !same_length => heard.status = StatusCode::OK,
            Fault::ManifestsWrittenAnew if path.contains("/manifests/") && *method == Method::GET => {
                let read: Value = serde_json::from_slice(&heard.bytes).unwrap_or_default();
                heard.becomes(serde_json::to_vec_pretty(&read).unwrap());
            }
            Fault::AnotherClock => drop(headers.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap())),
            Fault::OwnErrors if heard.status == 404 && path.starts_with("/v1/images/nobody") => {
                heard.becomes(br#"{"message":"Not Found"}"#.to_vec());
            }
            Fault::NoDigestOfBlobs if path.contains("/blobs/sha256") && *method == Method::GET => {
                headers.remove("docker-content-digest");
            }
            Fault::EncodedObjects if object && *method == Method::GET => {
                headers.insert("content-encoding", HeaderValue::from_static("gzip"));
            }
            Fault::BrokenObjects if object && *method == Method::GET && heard.status == 200 => {
                let half = heard.bytes[..heard.bytes.len() / 2].to_vec();
                heard.becomes(half);
            }
            Fault::LongBlobsMissing if *method == Method::GET && heard.bytes.len() > 5_000_000 => {
                heard.status = StatusCode::NOT_FOUND;
            }
            Fault::PartsWithoutTags if object && part => drop(headers.remove("etag")),
            Fault::LongLives if headers.contains_key("location") => {
                let location = headers["location"].to_str().unwrap().to_owned();
                let lives = location.split('&').find(|pair| pair.starts_with("X-Amz-Expires="));
                if let Some(lives) = lives {
                    headers.insert("location", location.replace(lives, "X-Amz-Expires=999999").parse().unwrap());
                }
            }
            _ => {}
        }
    }
}

/// The server's answer.
struct Heard {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Heard {
    fn becomes(&mut self, bytes: Vec<u8>) {
        self.headers.insert("content-length", bytes.len().into());
        self.bytes = bytes;
    }
}

#[tokio::test]
async fn each_fault_on_the_way_is_found_by_its_probes_and_by_no_other() {
    if only_on_our_stores("not all of its faults are such where no digest is compared, and the store has another host")
    {
        return;
    }
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    // Where the server sends blobs itself, nobody is redirected.
    let blobs = |probes: &[&'static str]| match server.functions {
        Some(_) => probes.to_vec(),
        None => Vec::new(),
    };
    let objects = ["pull", "bearer-in-capitals", "not-encoded", "share"];
    let cases = [
        (Fault::NoChallenge, vec!["challenge", "login"]),
        (Fault::HeadWithoutLength, vec!["head-lengths"]),
        (Fault::HeadWithAnotherLength, vec!["head-lengths"]),
        (Fault::LocationWithoutQuery, vec!["upload-location", "long-layer"]),
        (Fault::WholeForRanges, vec!["ranges", "blob-ranges", "long-layer"]),
        (Fault::AcceptsOtherBytes, vec!["pinned-put"]),
        (Fault::AcceptsOtherParts, vec!["pinned-part"]),
        (Fault::AcceptsOtherLengths, vec!["signed-length"]),
        (Fault::ManifestsWrittenAnew, vec!["manifest-bytes"]),
        (Fault::OneSlashForTwo, vec!["double-slash"]),
        (Fault::NothingAtTwoSlashes, vec!["double-slash"]),
        (Fault::NothingAtEscapedColons, vec!["escaped-colon"]),
        (Fault::NothingAtTheLastSlash, vec!["trailing-slash"]),
        (Fault::OnlyBearer, vec!["bearer-in-capitals"]),
        (Fault::AnotherClock, vec!["clock"]),
        (Fault::OwnErrors, vec!["own-errors"]),
        (Fault::NoDigestOfBlobs, vec!["blob"]),
        (Fault::BusyUnderLoad, vec!["parallel-pushes"]),
        (Fault::NoBasicLogin, vec!["login"]),
        (Fault::EncodedObjects, vec!["not-encoded"]),
        (Fault::SharesUnavailable, vec!["share"]),
        (Fault::PartsWithoutTags, vec!["multipart"]),
        (Fault::ErrorsForStores, vec!["stores-ready"]),
        (Fault::LongBodiesRefused, vec!["manifest-bytes"]),
        (Fault::LongBlobsMissing, vec!["long-layer"]),
        (Fault::BrokenObjects, [&objects[..], &blobs(&["blob", "long-layer"])].concat()),
        (
            Fault::LongLives,
            [&objects[..], &["redirect-lives", "ranges"], &blobs(&["blob", "blob-ranges", "long-layer"])].concat(),
        ),
    ];
    // On functions, only what lies on the way to the store: fifty pushes at once, again and again, take minutes there.
    let there = [Fault::WholeForRanges, Fault::NoDigestOfBlobs, Fault::BrokenObjects, Fault::LongLives];
    let cases = cases.into_iter().filter(|(fault, _)| server.functions.is_none() || there.contains(fault));
    let tried = cases.map(|(fault, probes)| {
        let (server, alice) = (&server, &alice);
        Box::pin(async move {
            let (proxy, proxying) = Proxy::start(fault).await;
            let findings = outside::run(settings(server, Some(alice), Some(&proxy)), |_| {}).await;
            assert_eq!(
                with(&findings, Status::Failed),
                probes.into_iter().collect(),
                "{fault:?}: {:#?}",
                told(&findings)
            );
            let refused = with(&findings, Status::Warning).contains("long-layer");
            assert_eq!(refused, fault == Fault::LongBodiesRefused, "{fault:?}: {:#?}", told(&findings));
            proxying.abort();
        })
    });
    // A few at a time: each waits for the disk again and again.
    let at_once = if server.functions.is_none() { 4 } else { 1 };
    futures::stream::iter(tried).buffer_unordered(at_once).collect::<Vec<()>>().await;
    // Whatever went wrong, nothing is left of any of them.
    assert_eq!(alice.get("/v1/collections?entity=alice").await.ok()["data"], json!([]));
}
