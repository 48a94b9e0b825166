//! Hazards of a registry that strangers can reach, one test for each: slow clients, guessed passwords, forged headers,
//! redirects, clocks.

use crate::library::{opened_old, sif, sweep_up, write};
use crate::support::{
    BB, MANIFEST, MIB, basic, beside, blob, blob_at, close, digest, fetch, form, image, is, junk, manifest_at,
    narrowed, on_functions, open, patch, push, put, refused,
};
use crate::wire::Wire;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::{Digest, OciDigest, Repository, Time, UserName};
use shared::service::sweep::{Ages, sweep};
use shared::store::keys;
use shared::store::rows::{Condemned, Link, WrongPasswords};
use stackroom_tests::functions::{only_in_one_process, only_on_one_server};
use stackroom_tests::{Answer, Caller, SERVING, Server, send};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PASSWORD: &str = "correct horse: battery staple";

/// Longer than a server waits for any client in these tests.
const LONG: Duration = Duration::from_secs(30);

/// A server that waits for two seconds where it would otherwise wait for a minute.
async fn impatient() -> Server {
    Server::start_with(&[("STACKROOM_PATIENCE", "2"), ("STACKROOM_BUFFERS", "8")]).await
}

/// The headers of a manifest that never arrives.
fn silence() -> String {
    format!("Content-Type: {MANIFEST}\r\nContent-Length: 1000")
}

/// Alice on a server without much patience, and a manifest whose blobs she has uploaded.
async fn impatient_with_a_manifest() -> (Server, Caller, String) {
    let server = impatient().await;
    let alice = server.user("alice", 0).await;
    blob(&alice, BB, b"config").await;
    (server, alice, image(b"config", &[]).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_slow_loris_who_may_not_push_takes_no_turn_from_who_may() {
    if only_in_one_process("the gateway reads a body before a function sees the head") {
        return;
    }
    let (server, alice, body) = impatient_with_a_manifest().await;
    let bob = server.user("bob", 0).await;
    let pull_only = narrowed(&alice, "alice", &[&format!("repository:{BB}:pull")]).await;
    // More of them than the number of manifests that are read at a time.
    let mut silent = Vec::new();
    for number in 0..20 {
        let who = if number % 2 == 0 { &bob } else { &pull_only };
        silent.push(Wire::begin(&server, who, "PUT", &manifest_at(BB, "latest"), &silence()).await);
    }
    let pushed = tokio::time::timeout(LONG, put(&alice, BB, "latest", MANIFEST, &body)).await;
    is(&pushed.expect("no turn is free"), 201);
    for wire in silent {
        assert_eq!(wire.heard().await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_slow_loris_who_sends_nothing_is_given_up_on_and_who_waits_meanwhile_is_told() {
    if only_in_one_process("the gateway reads a body before a function sees the head") {
        return;
    }
    let (server, alice, body) = impatient_with_a_manifest().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(Wire::begin(&server, &alice, "PUT", &manifest_at(BB, "latest"), &silence()).await);
    }
    let pushed = tokio::time::timeout(LONG, put(&alice, BB, "other", MANIFEST, &body)).await.unwrap();
    if pushed.status != 201 {
        refused(&pushed, 429, "TOOMANYREQUESTS");
        assert!(pushed.header("retry-after").is_some());
    }
    for wire in silent {
        assert!([400, 429].contains(&wire.heard().await.status));
    }
    is(&put(&alice, BB, "latest", MANIFEST, &body).await, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_slow_loris_an_upload_that_drips_ends_and_goes_on_after_its_last_whole_part() {
    let server = impatient().await;
    let alice = server.user("alice", 0).await;
    let bytes = junk(1, 10 * MIB);
    let url = open(&alice, BB).await;
    let mut drip = Wire::begin(&server, &alice, "PATCH", &url, "Transfer-Encoding: chunked").await;
    for piece in bytes[..9 * MIB].chunks(MIB) {
        assert!(drip.chunk(piece).await);
    }
    for byte in bytes[9 * MIB..].chunks(1).take(100) {
        // Far from silent: a server that only checks for some progress would be content with three bytes.
        if !drip.chunk(byte).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = tokio::time::timeout(LONG, drip.heard()).await.expect("it may drip for ever");
    assert!(told.status == 400 && told.says("BLOB_UPLOAD_INVALID"), "{told:?}");
    assert_eq!(alice.get(&url).await.header("range"), Some(&*format!("0-{}", 8 * MIB - 1)));
    is(&patch(&alice, &url, &bytes[8 * MIB..]).await, 202);
    is(&close(&alice, &url, &digest(&bytes), b"").await, 201);
    assert!(fetch(&alice, BB, &digest(&bytes)).await.bytes == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_slow_loris_who_is_fast_enough_may_hold_all_room_and_is_waited_for() {
    let server = impatient().await;
    let alice = server.user("alice", 0).await;
    let bytes = junk(1, 10 * MIB);
    let (first, second) = (open(&alice, BB).await, open(&alice, BB).await);
    let mut slow = Wire::begin(&server, &alice, "PATCH", &first, "Transfer-Encoding: chunked").await;
    assert!(slow.chunk(&bytes[..=MIB]).await && slow.chunk(b"more").await);
    let slow = tokio::spawn(async move {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            slow.chunk(&vec![7; MIB]).await;
        }
        slow.chunk(b"").await;
        slow.heard().await.status
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    is(&patch(&alice, &second, &bytes).await, 202);
    assert_eq!(slow.await.unwrap(), 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_slow_loris_a_sweep_leaves_nothing_of_what_was_half_sent() {
    if only_in_one_process("the gateway reads a body before a function sees the head") {
        return;
    }
    let (server, alice, body) = impatient_with_a_manifest().await;
    let bytes = junk(1, 10 * MIB);
    let silent = Wire::begin(&server, &alice, "PUT", &manifest_at(BB, "latest"), &silence()).await;
    let (broken, left, closed) = (open(&alice, BB).await, open(&alice, BB).await, open(&alice, BB).await);
    let mut stopped = Wire::begin(&server, &alice, "PATCH", &broken, "Transfer-Encoding: chunked").await;
    for piece in bytes[..9 * MIB].chunks(MIB) {
        assert!(stopped.chunk(piece).await);
    }
    is(&patch(&alice, &left, &bytes).await, 202);
    is(&close(&alice, &closed, &digest(&bytes), &bytes).await, 201);
    is(&put(&alice, BB, "other", MANIFEST, &body).await, 201);
    let told = [silent.heard().await.status, stopped.heard().await.status];
    assert_eq!(told, [400, 400]);
    assert_ne!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
    is(&alice.delete(&manifest_at(BB, "other")).await, 202);
    is(&alice.delete(&manifest_at(BB, &digest(body.as_bytes()))).await, 202);
    sweep_up(&server).await;
    assert_eq!((server.quota("alice").await, server.objects().await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn hazard_slow_loris_bodies_that_are_read_whole() {
    if only_on_one_server("each server has its own turns for long bodies") {
        return;
    }
    if only_in_one_process("the gateway reads a body before a function sees the head") {
        return;
    }
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    let (_, url) = opened_old(&alice, BB, &bytes).await;
    let place = url.strip_prefix(&server.url).unwrap();
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100";
    let (short, long) = ("Content-Length: 100", format!("Content-Length: {}", bytes.len()));
    let asked = [
        ("POST", "/v1/entities", short),
        ("POST", "/token", form),
        ("POST", "/api/users", short),
        ("PUT", place, &long),
    ];
    let ended = join_all(asked.map(|(method, path, headers)| {
        let (server, alice) = (&server, &alice);
        async move {
            let mut wire = Wire::begin(server, alice, method, path, headers).await;
            assert!(wire.send(b"{").await);
            wire.heard().await.status
        }
    }));
    let statuses =
        tokio::time::timeout(Duration::from_secs(90), ended).await.expect("a body is waited for without end");
    assert!(statuses.iter().all(|status| (400..500).contains(status)), "{statuses:?}");
    // Anybody may send a form; a long one is not read.
    let long = format!("grant_type=password&{}", "a&".repeat(20_000));
    let told = server.nobody.bare(Method::POST, "/token").header("content-type", "application/x-www-form-urlencoded");
    is(&send(told.body(long)).await, 413);
}

#[tokio::test]
async fn hazard_slow_loris_heads() {
    if only_in_one_process("connections are the gateway's") {
        return;
    }
    let server = impatient().await;
    let host = server.url.strip_prefix("http://").unwrap();
    let whole = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    // Nothing, half a line, half the headers, half of the HTTP/2 preface, and nothing more after a whole request.
    let begun = ["", "P", "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: b", "PRI * HT", whole, &format!("{whole}GET /li")];
    let ended = join_all(begun.map(|text| async move {
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        // Reset or closed, it is over.
        let _ = stream.read_to_end(&mut heard).await;
        assert_eq!(heard.starts_with(b"HTTP/1.1 200"), text.starts_with(whole), "{text}");
    }));
    tokio::time::timeout(LONG, ended).await.expect("a connection stays open");
    // A client that drips its headers gets no more time.
    let mut stream = TcpStream::connect(host).await.unwrap();
    let dripped = async {
        for byte in b"GET /livez HTTP/1.1\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, dripped).await.expect("it may drip for ever");
}

/// Everything in an answer that a stranger could compare.
fn seen(answer: &Answer, name: &str) -> (u16, Vec<String>, String) {
    let mut headers: Vec<String> = answer.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    headers.retain(|line| !line.starts_with("date:"));
    headers.sort_unstable();
    (answer.status.as_u16(), headers, String::from_utf8_lossy(&answer.bytes).replace(name, "…"))
}

/// The three ways to log in by a password.
async fn log_in(server: &Server, name: &str, password: &str) -> [Answer; 3] {
    let body = format!("grant_type=password&service=x&username={name}&password={}", password.replace(' ', "+"));
    [
        send(basic(&server.nobody, Method::GET, "/token?service=x", name, password)).await,
        form(server, &body).await,
        send(basic(&server.nobody, Method::GET, "/v2/", name, password)).await,
    ]
}

#[tokio::test]
async fn hazard_account_enumeration_and_brute_force() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    for name in ["bob", "carol", "dave"] {
        server.user(name, 0).await;
    }
    // Alice and Bob have a password, Carol has none; Dave has one and is disabled. Erin does not exist.
    for name in ["alice", "bob", "dave"] {
        server.admin.put(&format!("/api/users/{name}/password"), json!({ "password": PASSWORD })).await.ok();
    }
    server.admin.put("/api/users/dave/disabled", json!({ "disabled": true })).await.ok();
    push(&alice, BB, "latest", b"config", &[]).await;
    let names = ["alice", "carol", "dave", "erin"];
    for round in 0..3 {
        let mut told = Vec::new();
        for name in names {
            // A disabled user is not told that the password was right.
            let password = if name == "dave" { PASSWORD } else { "wrong guess" };
            let answers = log_in(&server, name, password).await;
            for answer in &answers {
                refused(answer, 401, "UNAUTHORIZED");
                assert_eq!(answer.cost(), (1, 1), "{name}");
            }
            told.push(answers.map(|answer| seen(&answer, name)));
        }
        assert!(told.iter().all(|one| *one == told[0]), "{round}: {told:?}");
    }
    // One more is the tenth. After that the right password is not even compared, and the answer is the same for all
    // names.
    let mut told = Vec::new();
    for name in names {
        refused(
            &send(basic(&server.nobody, Method::GET, "/token?service=x", name, "wrong guess")).await,
            401,
            "UNAUTHORIZED",
        );
        let answers = log_in(&server, name, PASSWORD).await;
        for answer in &answers {
            refused(answer, 429, "TOOMANYREQUESTS");
            let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((800..=900).contains(&after), "{after}");
            assert_eq!(answer.cost(), (1, 0), "{name}");
        }
        // Their counts began at different seconds.
        let apart = |answer: &Answer| {
            let (status, mut headers, body) = seen(answer, name);
            headers.retain(|line| !line.starts_with("retry-after"));
            (status, headers, body)
        };
        told.push(answers.map(|answer| apart(&answer)));
    }
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    // Neither other users nor tokens are affected, and a right password costs no write.
    for answer in log_in(&server, "bob", PASSWORD).await {
        is(&answer, 200);
        assert_eq!(answer.cost(), (2, 0));
    }
    let token = alice.token.clone().unwrap();
    for answer in log_in(&server, "alice", &token).await {
        is(&answer, 200);
    }
    is(&alice.get(&manifest_at(BB, "latest")).await, 200);
    is(
        &narrowed(&alice, "alice", &[&format!("repository:{BB}:pull")]).await.get(&manifest_at(BB, "latest")).await,
        200,
    );
    // An expired or short-lived token in place of a password is no guess.
    let app = &server.local.app;
    let bob: UserName = "bob".parse().unwrap();
    let past = app.keys.sign(&bob.clone().into(), app.new_token().unwrap(), Time(0), Some(Time(1))).unwrap();
    for _ in 0..5 {
        for answer in log_in(&server, "bob", secrecy::ExposeSecret::expose_secret(&past)).await {
            refused(&answer, 401, "UNAUTHORIZED");
        }
    }
    assert!(app.table.get::<WrongPasswords>(keys::wrong_passwords(&bob)).await.unwrap().is_none());
    // The sweeper leaves counts that still apply. After that, the password works again, and then the sweeper deletes
    // them.
    let row = async |name: &str| {
        let key = keys::wrong_passwords(&name.parse().unwrap());
        app.table.get::<WrongPasswords>(key).await.unwrap()
    };
    sweep_up(&server).await;
    for name in names {
        let found = row(name).await.unwrap();
        assert_eq!(found.count, 10, "{name}");
        write(&server, &WrongPasswords { since: app.now().minus(Duration::from_mins(15)), ..found }).await;
    }
    is(&log_in(&server, "alice", PASSWORD).await[0], 200);
    refused(&log_in(&server, "erin", PASSWORD).await[0], 401, "UNAUTHORIZED");
    sweep_up(&server).await;
    for (name, count) in [("alice", None), ("carol", None), ("dave", None), ("erin", Some(3))] {
        assert_eq!(row(name).await.map(|row| row.count), count, "{name}: what counts again begins anew");
    }
    // Concurrent guesses are all counted.
    if only_in_one_process("as many instances as there are requests compare passwords at a time") {
        return;
    }
    let guesses = (0..12).map(|_| send(basic(&server.nobody, Method::GET, "/token", "alice", "wrong guess")));
    let mut statuses: Vec<u16> = join_all(guesses).await.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    let refused = statuses.iter().filter(|status| **status == 401).count();
    // At most as many more than ten as are compared at a time.
    assert!((10..=11).contains(&refused) && statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    // A new password resets the count.
    server.admin.put("/api/users/alice/password", json!({ "password": "another one" })).await.ok();
    is(&log_in(&server, "alice", "another one").await[0], 200);
}

/// Headers in which a proxy, and anybody else too, may state another name.
const FORGED: [(&str, &str); 9] = [
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-proto", "evil"),
    ("x-forwarded-prefix", "/evil"),
    ("x-forwarded-server", "evil.example"),
    ("x-forwarded-port", "6666"),
    ("forwarded", "for=6.6.6.6;host=evil.example;proto=evil"),
    ("x-original-url", "/evil"),
    ("x-rewrite-url", "/evil"),
    ("host", "evil.example"),
];

#[tokio::test]
async fn hazard_proxy_trust() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    alice.push("alice/tools/sif", "v1", "amd64", &sif(1)).await.ok();
    for tag in ["v1", "v2"] {
        push(&alice, BB, tag, b"config", &[b"layer"]).await;
    }
    let body = image(b"config", &[b"layer"]).to_string();
    let blobs = digest(b"config");
    let functions = on_functions(&server, &alice).await;
    for one in FORGED.map(Some).into_iter().chain([None]) {
        // Each alone, and all at once.
        let forge = |who: &Caller, method: Method, path: &str| {
            let forged = FORGED.iter().filter(|header| one.is_none_or(|one| one == **header));
            forged.fold(who.request(method, path), |request, (name, value)| request.header(*name, *value))
        };
        let uploads = format!("/v2/{BB}/blobs/uploads/");
        let answers = [
            ("www-authenticate", send(forge(&server.nobody, Method::GET, "/v2/")).await),
            ("location", send(forge(&alice, Method::POST, &uploads)).await),
            (
                "location",
                send(
                    forge(&alice, Method::PUT, &manifest_at(BB, "v1"))
                        .header("content-type", MANIFEST)
                        .body(body.clone()),
                )
                .await,
            ),
            ("link", send(forge(&alice, Method::GET, &format!("/v2/{BB}/tags/list?n=1"))).await),
            ("link", send(forge(&alice, Method::GET, "/v2/_catalog?n=1")).await),
            ("", send(forge(&server.nobody, Method::GET, "/assets/config/config.prod.json")).await),
            ("location", send(forge(&alice, Method::GET, "/v1/imagefile/alice/tools/sif:v1")).await),
            (
                "location",
                send(
                    forge(&server.nobody, Method::GET, "/v1/imagefile/alice/tools/sif:v1")
                        .header("authorization", format!("BEARER {}", alice.token.as_deref().unwrap())),
                )
                .await,
            ),
            ("location", send(forge(&functions, Method::GET, &blob_at(BB, &blobs))).await),
        ];
        for (wanted, answer) in answers {
            let said = format!("{:?}{}", answer.headers, String::from_utf8_lossy(&answer.bytes)).to_lowercase();
            // Not `evil` alone: a signature may have these four letters by chance.
            for forged in ["evil.example", "/evil", "evil:", ":6666", "6.6.6.6"] {
                assert!(!said.contains(forged), "{one:?}: {said}");
            }
            let value = if wanted.is_empty() { None } else { Some(answer.header(wanted).unwrap()) };
            let own = |value: &str| {
                let places = [&server.url, &server.store].map(|place| format!("{place}/"));
                value.starts_with("/v2/")
                    || value.starts_with("</v2/")
                    || places.iter().any(|place| value.contains(place.as_str()))
            };
            assert!(value.is_none_or(own), "{one:?}: {value:?}");
        }
    }
    // A target with a whole URL in it, as in requests to a proxy.
    let host = server.url.strip_prefix("http://").unwrap();
    for (method, path) in
        [("GET", "/v2/"), ("POST", "/v2/alice/tools/bb/blobs/uploads/"), ("GET", "/v1/imagefile/alice/tools/sif:v1")]
    {
        let mut stream = TcpStream::connect(host).await.unwrap();
        let token = alice.token.as_deref().unwrap();
        let authorization = if path == "/v2/" { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let text = format!(
            "{method} http://evil.example{path} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\nConnection: close\r\n{authorization}\r\n"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert!(
            ["HTTP/1.1 401", "HTTP/1.1 202", "HTTP/1.1 303"].iter().any(|status| heard.starts_with(status)),
            "{heard}"
        );
        assert!(!heard.contains("evil.example"), "{heard}");
    }
}

#[tokio::test]
async fn hazard_redirect_auth_leak() {
    let server = Server::start_with(&[SERVING]).await;
    let alice = server.user("alice", 0).await;
    push(&alice, BB, "v1", b"config", &[b"layer"]).await;
    let ingest = "https://ingest.example.org";
    let two_hosts = beside(&server, &alice, None, |config| {
        config.ingest_url = Some(ingest.to_owned());
        config.serve_blobs = false;
    })
    .await;
    let functions = on_functions(&server, &alice).await;
    for (number, who) in [&alice, &functions, &two_hosts].into_iter().enumerate() {
        let own = |answer: &Answer| {
            assert!(!answer.status.is_redirection(), "{}", answer.status);
            let location = answer.header("location").unwrap().to_owned();
            let hosts = [&*format!("{}/v2/", server.url), &*format!("{ingest}/v2/")];
            let relative = location.starts_with("/v2/");
            let of_two = number == 2 && hosts.iter().any(|host| location.starts_with(host));
            assert!(relative || of_two, "{location}");
            // The next request of a client, to this server in place of that host.
            location.strip_prefix(ingest).unwrap_or(&location).to_owned()
        };
        let bytes = junk(number as u64, 1000);
        let opened = who.post(&format!("/v2/{BB}/blobs/uploads/"), Value::Null).await;
        let url = own(&opened);
        let url = own(&patch(who, &url, &bytes).await);
        own(&close(who, &url, &digest(&bytes), b"").await);
        let whole = format!("/v2/{BB}/blobs/uploads/?digest={}", digest(b"whole"));
        own(&send(who.request(Method::POST, &whole).body("whole")).await);
        let mount = format!("/v2/alice/tools/other/blobs/uploads/?mount={}&from={BB}", digest(b"layer"));
        own(&who.post(&mount, Value::Null).await);
        own(&put(who, BB, "v2", MANIFEST, &image(b"config", &[&bytes]).to_string()).await);
        // Only bytes are elsewhere, and only for readers.
        let there = blob_at(BB, &digest(b"layer"));
        let read = who.get(&there).await;
        is(&read, if number == 0 { 200 } else { 307 });
        is(&send(who.request(Method::HEAD, &there)).await, 200);
        for (method, path) in [
            (Method::GET, manifest_at(BB, "v1")),
            (Method::HEAD, manifest_at(BB, "v1")),
            (Method::GET, format!("/v2/{BB}/tags/list")),
            (Method::GET, format!("/v2/{BB}/referrers/{}", digest(b"layer"))),
            (Method::GET, "/v2/_catalog".to_owned()),
            (Method::GET, "/v2/".to_owned()),
            (Method::POST, there.clone()),
            (Method::PUT, there.clone()),
            (Method::PATCH, there.clone()),
            (Method::DELETE, there.clone()),
            (Method::DELETE, manifest_at(BB, "v2")),
            (Method::DELETE, url.clone()),
        ] {
            let answer = send(who.request(method.clone(), &path)).await;
            assert!(
                !answer.status.is_redirection() && answer.header("location").is_none(),
                "{method} {path}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn hazard_clock() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let app = &server.local.app;
    let skew = Duration::from_mins(5);
    push(&alice, BB, "v1", b"config", &[b"layer"]).await;
    for bytes in [&b"one"[..], b"two"] {
        blob(&alice, BB, bytes).await;
    }
    let url = open(&alice, BB).await;
    is(&patch(&alice, &url, &junk(1, 9 * MIB)).await, 202);
    // As a host with a fast clock would have written them, and one with a slow clock.
    let (repository, now) = (BB.parse::<Repository>().unwrap(), app.now());
    for (bytes, seen) in [(&b"one"[..], now.plus(skew)), (b"two", now.minus(skew))] {
        let name: OciDigest = Digest::of(bytes).into();
        let link: Link = app.table.get(keys::link(&repository, &name)).await.unwrap().unwrap();
        write(&server, &Link { seen, ..link }).await;
    }
    let condemned = Condemned { object: "00/condemned".to_owned(), since: now.plus(skew), upload: None, of: None };
    write(&server, &condemned).await;
    let (before, quota) = (server.objects().await, server.quota("alice").await);
    // Swept by a host with the right clock, a fast one, a slow one.
    let ahead: fn() -> Duration = || shared::app::system_clock() + Duration::from_mins(5);
    let behind: fn() -> Duration = || shared::app::system_clock().saturating_sub(Duration::from_mins(5));
    for clock in [app.clock, ahead, behind] {
        let app = crate::support::installation(&server, None, clock, |_| {});
        let swept = sweep(&app, Ages::safe(&app)).await.unwrap();
        assert_eq!((swept.links, swept.sessions, swept.objects, swept.condemned, swept.uploads), (0, 0, 0, 0, 0));
        assert_eq!((server.objects().await, server.quota("alice").await), (before.clone(), quota));
    }
    for bytes in [&b"one"[..], b"two", b"layer", b"config"] {
        assert_eq!(fetch(&alice, BB, &digest(bytes)).await.bytes, bytes);
    }
    // A day later they are deleted, whoever wrote them.
    let app =
        crate::support::installation(&server, None, || shared::app::system_clock() + Duration::from_hours(26), |_| {});
    let swept = sweep(&app, Ages::safe(&app)).await.unwrap();
    assert_eq!((swept.links, swept.sessions, swept.objects), (2, 1, 1));
    for bytes in [&b"one"[..], b"two"] {
        refused(&alice.get(&blob_at(BB, &digest(bytes))).await, 404, "BLOB_UNKNOWN");
    }
    assert_eq!(fetch(&alice, BB, &digest(b"layer")).await.bytes, b"layer");
    // What a host with a fast clock signed is valid here, and what a host with a slow clock signed ends no later than
    // stated.
    let tokens = app.keys.sign_access(
        &shared::auth::Credential::Anonymous,
        Vec::new(),
        now.plus(skew),
        now.plus(skew + Duration::from_mins(5)),
    );
    let nobody = server.nobody.with(secrecy::ExposeSecret::expose_secret(&tokens.unwrap()));
    is(&nobody.get("/v2/").await, 200);
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_over_http_2_either() {
    if only_in_one_process("a gateway speaks HTTP to its clients") {
        return;
    }
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    push(&alice, BB, "v1", b"config", &[b"layer"]).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let there = ["/version", "/v1/images/alice/tools/none:v1", "/nothing/here", "/v2/", &manifest_at(BB, "v1")];
    for path in there {
        let ask =
            |method| client.request(method, format!("{}{path}", server.url)).bearer_auth(alice.token.as_ref().unwrap());
        let (head, get) = (ask(Method::HEAD).send().await.unwrap(), ask(Method::GET).send().await.unwrap());
        assert_eq!((head.version(), head.status()), (reqwest::Version::HTTP_2, get.status()), "{path}");
        let length = |answer: &reqwest::Response| answer.headers().get("content-length").cloned();
        assert_eq!(length(&head), length(&get), "{path}");
        assert!(get.content_length().is_some_and(|length| length > 0), "{path}");
        assert_eq!(head.bytes().await.unwrap(), "", "{path}");
    }
}
