//! Stores are tried out before anybody is served: what they fail at is named, and nothing is left behind.

use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use serde_json::Value;
use server::examine::{Examined, Outcome};
use server::local::{Layer, Local};
use server::probe::{Probed, probe};
use shared::App;
use shared::app::{Parts, system_clock};
use shared::auth::Keys;
use shared::config::{Config, Pins};
use shared::domain::quota::Quota;
use shared::rules::{Action, Resource};
use shared::service::access::system;
use shared::service::installation;
use shared::service::people::registration::{self, Newcomer};
use shared::service::sweep::{self, Ages};
use shared::store::keys::{self, INSTALLATION};
use shared::store::rows::{Account, Event};
use shared::store::table::{Write, Written};
use stackroom_tests::Server;
use stackroom_tests::functions::only_on_our_stores;

/// What a store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    /// Rows that must be new are written over those that are there.
    NoConditions,
    /// Lists come forwards, whatever was asked for.
    Forwards,
    /// Objects come whole, whatever range was asked for.
    Whole,
    /// Deletions of objects are answered, and nothing is done.
    Keeps,
}

#[derive(Debug)]
struct Lying {
    inner: SharedHttpConnector,
    lie: Lie,
}

impl Lie {
    fn before(self, client: SharedHttpClient) -> SharedHttpClient {
        let lie = self;
        http_client_fn(move |settings, components| {
            SharedHttpConnector::new(Lying { inner: client.http_connector(settings, components), lie })
        })
    }
}

impl Layer for Lie {
    fn dynamodb(&self, client: SharedHttpClient) -> SharedHttpClient {
        self.before(client)
    }

    fn s3(&self, client: SharedHttpClient) -> SharedHttpClient {
        self.before(client)
    }
}

/// Takes away that rows must be new, and that a list comes backwards.
fn without(value: &mut Value, name: &str) {
    match value {
        Value::Object(fields) => {
            if fields.get(name).is_some_and(|said| said == "attribute_not_exists(pk)" || said == false) {
                fields.remove(name);
            }
            // A check is nothing but its condition.
            let others = fields.iter_mut().filter(|(kind, _)| *kind != "ConditionCheck");
            others.for_each(|(_, value)| without(value, name));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| without(value, name)),
        _ => {}
    }
}

impl HttpConnector for Lying {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let of_table = request.headers().contains_key("x-amz-target");
        let dropped = match self.lie {
            Lie::NoConditions if of_table => Some("ConditionExpression"),
            Lie::Forwards if of_table => Some("ScanIndexForward"),
            _ => None,
        };
        if let Some(name) = dropped {
            let mut body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
            without(&mut body, name);
            *request.body_mut() = SdkBody::from(body.to_string());
        }
        if self.lie == Lie::Whole {
            request.headers_mut().remove("range");
        }
        if self.lie == Lie::Keeps && request.method() == "DELETE" {
            let done = HttpResponse::new(204.try_into().unwrap(), SdkBody::empty());
            return HttpConnectorFuture::ready(Ok(done));
        }
        self.inner.call(request)
    }
}

async fn tried(lie: Lie) -> (Server, Result<Probed, String>) {
    let server = Server::start_on_dynamodb(&[], &lie).await;
    let probed = probe(&server.local.app.table, &server.local.app.objects).await;
    (server, probed.map_err(|error| format!("{error:#}")))
}

#[tokio::test]
async fn stores_that_do_what_they_must_pass_and_nothing_is_left_in_them() {
    if only_on_our_stores("its stores lie on purpose") {
        return;
    }
    let (server, probed) = tried(Lie::None).await;
    assert_eq!(probed, Ok(Probed { pins: Pins::Bytes }));
    assert_eq!(server.objects().await, Vec::<String>::new());
    assert!(server.local.app.objects.open_parts().await.unwrap().is_empty());
    let (rows, _) = server.local.app.table.scan(None).await.unwrap();
    assert!(!rows.is_empty() && !rows.iter().any(|row| row.key.pk.starts_with("T#")));
}

#[tokio::test]
async fn what_the_doctor_sees_of_stores_names_what_they_fail_at() {
    if only_on_our_stores("its stores lie on purpose") {
        return;
    }
    for (lie, at, why) in [
        (Lie::None, None, ""),
        (Lie::NoConditions, Some("inside-table"), "refusing to write a row that must be new"),
        (Lie::Keeps, Some("inside-bucket"), "forgetting at once what was deleted"),
    ] {
        let server = Server::start_on_dynamodb(&[], &lie).await;
        let seen = server::examine::stores(&server.local.app).await;
        let names: Vec<_> = seen.iter().map(|one| one.check.name).collect();
        assert_eq!(names, ["inside-table", "inside-bucket", "inside-pinned-put", "inside-mark"]);
        for Examined { check, outcome } in seen {
            match outcome {
                Outcome::Failed(seen) => assert!(at == Some(check.name) && seen.contains(why), "{lie:?}: {seen}"),
                outcome => assert!(at != Some(check.name) && matches!(outcome, Outcome::Ok(_)), "{lie:?}: {outcome:?}"),
            }
        }
    }
}

#[tokio::test]
async fn what_a_store_fails_at_is_named() {
    if only_on_our_stores("its stores lie on purpose") {
        return;
    }
    for (lie, of, why) in [
        (Lie::NoConditions, "the table", "refusing to write a row that must be new over one that is there"),
        (Lie::Forwards, "the table", "listing rows backwards"),
        (Lie::Whole, "the bucket", "reading a range"),
        (Lie::Keeps, "the bucket", "forgetting at once what was deleted"),
    ] {
        let (_server, probed) = tried(lie).await;
        let said = probed.unwrap_err();
        assert!(said.starts_with(&format!("{of} can't be used: it fails at")) && said.contains(why), "{lie:?}: {said}");
    }
}

/// A new installation without users.
async fn new_stores() -> (tempfile::TempDir, Local) {
    let folder = tempfile::TempDir::new().unwrap();
    let config = Config::read("http://127.0.0.1:1", |_| None).unwrap();
    let local = Local::open(&folder.path().join("data"), config).await.unwrap();
    (folder, local)
}

#[tokio::test]
async fn a_table_and_a_bucket_that_do_not_belong_together_are_refused_and_not_swept() {
    let (_one, local) = new_stores().await;
    let app = &local.app;
    // Two servers start at once, and later again.
    let (first, second) = tokio::join!(installation::mark(app), installation::mark(app));
    first.unwrap();
    second.unwrap();
    installation::mark(app).await.unwrap();
    local.first_admin().await.unwrap();
    for _ in 0..3 {
        sweep::sweep(app, Ages::zero()).await.unwrap();
    }
    installation::mark(app).await.unwrap();
    let grant = system(Action::Manage, &Resource::Installation).unwrap();
    // The bucket of another table.
    app.objects.put(&grant, "aa/theirs", "bytes".into()).await.unwrap();
    app.objects.put(&grant, INSTALLATION, "0123".into()).await.unwrap();
    for refused in [installation::mark(app).await.err(), sweep::sweep(app, Ages::zero()).await.err()] {
        let why = refused.unwrap().to_string();
        assert!(why.contains("belongs to another table"), "{why}");
    }
    assert_eq!(app.objects.size("aa/theirs").await.unwrap(), Some(5), "nothing was swept");
    // A bucket without a mark that has something in it.
    app.objects.delete(&grant, INSTALLATION).await.unwrap();
    let why = installation::mark(app).await.unwrap_err().to_string();
    assert!(why.contains("is not the one that belongs to the table"), "{why}");

    // A new table beside the bucket of another one, and beside one that nobody marked.
    let (_other, local) = new_stores().await;
    let app = &local.app;
    app.objects.put(&grant, INSTALLATION, "0123".into()).await.unwrap();
    let why = installation::mark(app).await.unwrap_err().to_string();
    assert!(why.contains("belongs to another table"), "{why}");
    app.objects.delete(&grant, INSTALLATION).await.unwrap();
    app.objects.put(&grant, "aa/theirs", "bytes".into()).await.unwrap();
    let why = installation::mark(app).await.unwrap_err().to_string();
    assert!(why.contains("are not new"), "{why}");
}

#[tokio::test]
async fn sweeps_at_once_leave_the_latest_events_of_a_log() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    alice.container("alice/tools/bb").await;
    for number in 0..60 {
        let said = serde_json::json!({ "description": format!("{number}") });
        alice.request(reqwest::Method::PATCH, "/v1/containers/alice/tools/bb").json(&said).send().await.unwrap();
    }
    let app = &server.local.app;
    let log = async || app.table.query_all::<Event>(keys::events("alice")).await.unwrap();
    let before = log().await;
    assert!(before.len() > 60);
    let account: Account = app.table.get(keys::account(&"alice".parse().unwrap())).await.unwrap().unwrap();
    let fewer = Account { quota: Quota { most_rows: 50, ..account.quota }, ..account };
    let grant = system(Action::Manage, &Resource::Installation).unwrap();
    let written = app.table.write(&grant, vec![Write::overlay(&fewer).unwrap()]).await.unwrap();
    assert_eq!(written, Written::Done);
    let sweeps = (0..6).map(|_| sweep::sweep(app, Ages::safe(app)));
    for swept in futures::future::join_all(sweeps).await {
        assert_eq!(swept.unwrap().failed, 0);
    }
    assert_eq!(log().await[..], before[before.len() - 50..], "the latest 50 are there");
}

#[tokio::test]
async fn nobody_registers_before_there_is_an_administrator() {
    let (_folder, local) = new_stores().await;
    let config = Config::read("http://127.0.0.1:1", |name| (name == "STACKROOM_REGISTRATION").then(|| "open".into()));
    let (table, index, objects) = (local.app.table.clone(), local.app.index.clone(), local.app.objects.clone());
    let keys = Keys::parse(&Keys::generate().unwrap()).unwrap();
    let app = App::new(Parts { config: config.unwrap(), table, index, objects, keys, clock: system_clock });
    let new = || Newcomer {
        name: "admin".to_owned(),
        password: "a long password".to_owned().into(),
        email: None,
        invitation: None,
        token: true,
    };
    let why = registration::register(&app, new()).await.unwrap_err().to_string();
    assert!(why.contains("before there is an administrator"), "{why}");
    local.first_admin().await.unwrap().unwrap();
    registration::register(&app, Newcomer { name: "eve".to_owned(), ..new() }).await.unwrap();
}
