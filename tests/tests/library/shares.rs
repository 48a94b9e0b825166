//! Shares: who may make them, what their holders get, and when they end.

use crate::support::{hash, join, private_collection, set, sif, sweep_up, text, write};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::{Digest, EntityName, Role, ShareId, Time, UserName};
use shared::rules::{Action, Resource};
use shared::service::access::system;
use shared::store::keys::{self, Key};
use shared::store::rows::{Event, EventKind, Share, ShareListed};
use shared::store::table::{Condition, Write, Written};
use stackroom_tests::{Answer, Caller, Server, send};

const BB: &str = "alice/secret/bb";

/// A server with a private image of alice's.
async fn start() -> (Server, Caller, Vec<u8>) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    private_collection(&alice, "alice", "secret").await;
    let bytes = sif(1);
    alice.push(BB, "v1", "amd64", &bytes).await.ok();
    (server, alice, bytes)
}

/// A share that was made.
struct Made {
    id: String,
    url: String,
}

impl Made {
    fn of(answer: &Value) -> Self {
        Self { id: text(answer, "/data/id"), url: text(answer, "/data/url") }
    }

    /// The URL with another secret.
    fn guessed(&self) -> String {
        let secret = self.url.split('/').nth_back(1).unwrap().split('.').nth(1).unwrap();
        let other = if secret.starts_with('A') { "B" } else { "A" };
        self.url.replace(secret, &format!("{other}{}", &secret[1..]))
    }

    async fn row(&self, server: &Server) -> Option<Share> {
        let id: ShareId = self.id.parse().unwrap();
        server.local.app.table.get(keys::share(id)).await.unwrap()
    }

    async fn uses(&self, server: &Server) -> u64 {
        self.row(server).await.unwrap().uses
    }
}

async fn share(who: &Caller, body: Value) -> Made {
    Made::of(&who.post("/api/shares", body).await.ok())
}

/// As `curl` asks.
async fn get(server: &Server, url: &str) -> Answer {
    send(server.nobody.bare(Method::GET, url).header("accept", "*/*").header("user-agent", "curl/8.5.0")).await
}

/// Follows the share to the bytes.
async fn fetched(server: &Server, url: &str) -> Answer {
    let answer = get(server, url).await;
    assert_eq!(answer.status, 303, "{}", String::from_utf8_lossy(&answer.bytes));
    get(server, answer.header("location").unwrap()).await
}

#[track_caller]
fn over(answer: &Answer) {
    assert_eq!(answer.status, 410, "{}", String::from_utf8_lossy(&answer.bytes));
    assert!(answer.header("location").is_none());
}

async fn remove(server: &Server, key: Key) {
    let grant = system(Action::Manage, &Resource::Installation).unwrap();
    let write = Write::delete(key, Condition::Present);
    assert_eq!(server.local.app.table.write(&grant, vec![write]).await.unwrap(), Written::Done);
}

#[tokio::test]
async fn whoever_has_the_url_gets_a_private_image_under_its_name_whole_and_in_ranges() {
    let (server, alice, bytes) = start().await;
    assert_eq!(server.nobody.pull(&format!("{BB}:v1")).await.status, 404);
    let answer = alice.post("/api/shares", json!({ "image": format!("{BB}:v1") })).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let made = Made::of(&answer.json);
    let secret = made.url.split('/').nth_back(1).unwrap().split('.').nth(1).unwrap();
    assert_eq!(secret.len(), 43);
    // `curl -O` takes the last part of the URL.
    assert_eq!(made.url, format!("{}/dl/{}.{secret}/bb_v1.sif", server.url, made.id));
    for (name, value) in [
        ("repository", json!(BB)),
        ("digest", json!(Digest::of(&bytes).to_string())),
        ("file", json!("bb_v1.sif")),
        ("size", json!(bytes.len())),
        ("created_by", json!("alice")),
        ("uses", Value::Null),
        ("used", json!(0)),
    ] {
        assert_eq!(answer.json["data"][name], value, "{name}");
    }
    // A day, unless somebody says otherwise.
    let row = made.row(&server).await.unwrap();
    assert_eq!(row.expires.0 - row.created.0, 24 * 3600);
    assert!(!format!("{row:?}").contains(secret), "{row:?}");

    let to = get(&server, &made.url).await;
    assert_eq!(to.cost(), (2, 1));
    for (name, value) in [("cache-control", "no-store"), ("referrer-policy", "no-referrer")] {
        assert_eq!(to.header(name), Some(value));
    }
    // For an hour at most.
    assert!(to.header("location").unwrap().contains("X-Amz-Expires=3600&"), "{:?}", to.header("location"));
    let whole = fetched(&server, &made.url).await;
    assert_eq!((whole.status.as_u16(), &whole.bytes), (200, &bytes));
    assert_eq!(whole.header("content-disposition"), Some("attachment; filename=\"bb_v1.sif\""));
    // A client that resumes sends its range to both URLs.
    let part = |url: &str| server.nobody.bare(Method::GET, url).header("range", "bytes=100-199");
    let again = send(part(&made.url)).await;
    assert_eq!(again.status, 303);
    let some = send(part(again.header("location").unwrap())).await;
    assert_eq!((some.status.as_u16(), &some.bytes[..]), (206, &bytes[100..200]));
    assert_eq!(made.uses(&server).await, 3);

    // By its hash, too, and in a read-only container.
    set(&alice, &format!("/v1/containers/{BB}"), json!({ "readOnly": true })).await.ok();
    for body in [
        json!({ "image": format!("{BB}:{}", hash(&bytes)) }),
        json!({ "repository": BB, "digest": Digest::of(&bytes).to_string() }),
        json!({ "repository": BB, "tag": "v1", "arch": "amd64" }),
    ] {
        let made = share(&alice, body).await;
        assert_eq!(fetched(&server, &made.url).await.bytes, bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_for_one_use_fetched_by_20_at_once_redirects_once() {
    let (server, alice, bytes) = start().await;
    let made = share(&alice, json!({ "image": format!("{BB}:v1"), "uses": 1 })).await;
    let answers = join_all((0..20).map(|_| get(&server, &made.url))).await;
    let won: Vec<_> = answers.iter().filter(|answer| answer.status == 303).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(get(&server, won[0].header("location").unwrap()).await.bytes, bytes);
    for answer in answers.iter().filter(|answer| answer.status != 303) {
        over(answer);
    }
    assert_eq!(made.uses(&server).await, 1);
    // As many as there are, and no more.
    let three = share(&alice, json!({ "image": format!("{BB}:v1"), "uses": 3 })).await;
    let statuses = join_all((0..20).map(|_| get(&server, &three.url))).await;
    assert_eq!(statuses.iter().filter(|answer| answer.status == 303).count(), 3);
    assert_eq!(three.uses(&server).await, 3);
}

#[tokio::test]
async fn a_share_dies_with_role_account_token_and_revocation() {
    let (server, alice, bytes) = start().await;
    let carl = server.user("carl", 0).await;
    let (entity, name): (EntityName, UserName) = ("alice".parse().unwrap(), "carl".parse().unwrap());
    join(&server, "alice", "carl", Role::Contributor).await;
    let body = json!({ "image": format!("{BB}:v1") });
    let token = server.token("carl", json!({ "name": "short" })).await;
    let tokens = carl.get("/api/users/carl/tokens").await.ok();
    let row = tokens["data"].as_array().unwrap().iter().find(|row| row["name"] == "short").unwrap().clone();
    let (by_role, by_token, revoked) =
        (share(&carl, body.clone()).await, share(&token, body.clone()).await, share(&carl, body.clone()).await);
    let all = [&by_role.url, &by_token.url, &revoked.url];
    for url in all {
        assert_eq!(fetched(&server, url).await.bytes, bytes);
    }
    // The token.
    carl.delete(&format!("/api/users/carl/tokens/{}", text(&row, "/id"))).await.ok();
    over(&get(&server, &by_token.url).await);
    assert_eq!(fetched(&server, &by_role.url).await.bytes, bytes);
    // Revocation, by its maker. It is as if it had never been.
    carl.delete(&format!("/api/shares/{}", revoked.id)).await.ok();
    let gone = get(&server, &revoked.url).await;
    assert_eq!((gone.status.as_u16(), gone.bytes), (404, get(&server, &by_role.guessed()).await.bytes));
    carl.delete(&format!("/api/shares/{}", revoked.id)).await.error(404);
    // The account.
    server.admin.put("/api/users/carl/disabled", json!({ "disabled": true })).await.ok();
    over(&get(&server, &by_role.url).await);
    server.admin.put("/api/users/carl/disabled", json!({ "disabled": false })).await.ok();
    assert_eq!(fetched(&server, &by_role.url).await.bytes, bytes);
    // The role. A reader could still pull, and may no longer share.
    join(&server, "alice", "carl", Role::Reader).await;
    assert_eq!(carl.pull(&format!("{BB}:v1")).await.bytes, bytes);
    over(&get(&server, &by_role.url).await);
    set(&alice, &format!("/v1/containers/{BB}"), json!({ "visibility": "internal" })).await.ok();
    over(&get(&server, &by_role.url).await);
    remove(&server, keys::member(&entity, &name.clone().into())).await;
    assert_eq!(carl.pull(&format!("{BB}:v1")).await.bytes, bytes, "everybody who is logged in reads what is internal");
    over(&get(&server, &by_role.url).await);
    // One that is over tells nothing else, and counts nothing.
    assert_eq!(by_role.uses(&server).await, 3);
    let head = send(server.nobody.bare(Method::HEAD, &by_role.url)).await;
    over(&head);
}

#[tokio::test]
async fn a_wrong_secret_is_not_found_and_a_right_one_is_over_in_a_plain_sentence_or_in_json() {
    let (server, alice, _) = start().await;
    let made = share(&alice, json!({ "image": format!("{BB}:v1"), "uses": 1 })).await;
    let nowhere = made.url.replace(&made.id, "0123456789abcdef01234567");
    let wrong = [
        made.guessed(),
        nowhere,
        made.url.replace("bb_v1.sif", "other.sif"),
        format!("{}/dl/{}/bb_v1.sif", server.url, made.id),
        format!("{}/dl/x/%ff", server.url),
        format!("{}/dl/x", server.url),
    ];
    let mut said = Vec::new();
    for url in &wrong[..5] {
        let answer = get(&server, url).await;
        assert_eq!(answer.status, 404, "{url}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        said.push(String::from_utf8(answer.bytes).unwrap());
    }
    assert!(said.iter().all(|text| *text == "link not found\n"), "{said:?}");
    // One that is there costs as much as one that isn't.
    assert_eq!(get(&server, &wrong[0]).await.cost(), get(&server, &wrong[1]).await.cost());
    for url in &wrong {
        let answer = get(&server, url).await;
        assert_eq!((answer.status.as_u16(), answer.header("referrer-policy")), (404, Some("no-referrer")), "{url}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(made.uses(&server).await, 0);
    get(&server, &made.url).await;
    let answer = get(&server, &made.url).await;
    over(&answer);
    assert!(String::from_utf8(answer.bytes).unwrap().starts_with("this link is over"));
    let json = |url: &str| server.nobody.bare(Method::GET, url).header("accept", "application/json");
    assert!(send(json(&made.url)).await.error(410).starts_with("this link is over"));
    assert_eq!(send(json(&made.guessed())).await.error(404), "link not found");
    let other = send(server.nobody.bare(Method::PUT, &made.url)).await;
    assert_eq!((other.status.as_u16(), other.header("allow")), (405, Some("GET,HEAD,POST")));
}

#[tokio::test]
async fn a_share_ends_at_its_time_and_is_forgotten_a_week_later() {
    let (server, alice, _) = start().await;
    let made = share(&alice, json!({ "image": format!("{BB}:v1"), "expires_in": 3600 })).await;
    let row = made.row(&server).await.unwrap();
    assert_eq!(row.expires.0 - row.created.0, 3600);
    let url = get(&server, &made.url).await.header("location").unwrap().to_owned();
    assert!(url.contains("X-Amz-Expires=36") || url.contains("X-Amz-Expires=35"), "{url}");
    // What is left of the share is the longest life of a URL.
    let now = server.local.app.now();
    write(&server, &Share { expires: Time(now.0 + 30), ..row.clone() }).await;
    let url = get(&server, &made.url).await.header("location").unwrap().to_owned();
    let life = url.split("X-Amz-Expires=").nth(1).unwrap().split('&').next().unwrap().parse::<u64>().unwrap();
    assert!((20..=30).contains(&life), "{life}");
    write(&server, &Share { expires: now, ..row.clone() }).await;
    over(&get(&server, &made.url).await);
    let listed = alice.get(&format!("/api/shares?repository={BB}")).await.ok();
    assert_eq!(listed["data"][0]["over"], json!(true));
    // A sweep leaves it for a week.
    let app = &server.local.app;
    shared::service::sweep::sweep(app, shared::service::sweep::Ages::safe(app)).await.unwrap();
    over(&get(&server, &made.url).await);
    let week = Time(now.0 - 7 * 24 * 3600);
    write(&server, &Share { expires: week, ..row.clone() }).await;
    let list: Vec<ShareListed> = app.table.query_all(keys::shares(&BB.parse().unwrap())).await.unwrap();
    write(&server, &ShareListed { expires: week, ..list[0].clone() }).await;
    let kept = share(&alice, json!({ "image": format!("{BB}:v1") })).await;
    shared::service::sweep::sweep(app, shared::service::sweep::Ages::safe(app)).await.unwrap();
    assert_eq!(get(&server, &made.url).await.status, 404);
    assert!(made.row(&server).await.is_none());
    let list: Vec<ShareListed> = app.table.query_all(keys::shares(&BB.parse().unwrap())).await.unwrap();
    assert_eq!(list.iter().map(|row| row.share.to_string()).collect::<Vec<_>>(), [kept.id]);
    sweep_up(&server).await;
    assert_eq!(get(&server, &kept.url).await.status, 303);
}

#[tokio::test]
async fn a_look_at_a_share_spends_no_use() {
    let (server, alice, bytes) = start().await;
    let made = share(&alice, json!({ "image": format!("{BB}:v1"), "uses": 1 })).await;
    let head = send(server.nobody.bare(Method::HEAD, &made.url)).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), Some(bytes.len().to_string().as_str()));
    assert_eq!(head.header("content-disposition"), Some("attachment; filename=\"bb_v1.sif\""));
    assert_eq!(head.cost(), (2, 0));
    // A browser, and programs that preview links in chats, some of which ask for anything.
    let pages = [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Firefox/128.0"),
        ("*/*", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"),
        ("*/*", "facebookexternalhit/1.1 Facebot Twitterbot/1.0"),
        ("*/*", "WhatsApp/2.23.20.0"),
        ("*/*", "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5"),
    ];
    for (accept, agent) in pages {
        let request = server.nobody.bare(Method::GET, &made.url).header("accept", accept).header("user-agent", agent);
        let page = send(request).await;
        assert_eq!((page.status.as_u16(), page.cost()), (200, (2, 0)), "{agent}");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        let policy = page.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        // A browser follows the redirect of a form only to a host that the policy names.
        assert!(policy.ends_with(&format!("form-action 'self' {}", server.store)), "{policy}");
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        let html = String::from_utf8(page.bytes).unwrap();
        assert!(html.contains("<form method=\"post\"><button>"), "{html}");
        assert!(html.contains("bb_v1.sif") && html.contains("It can be downloaded once."), "{html}");
        assert!(!html.contains("<script") && html.len() < 1000, "{html}");
    }
    assert_eq!(made.uses(&server).await, 0);
    let pressed = server.nobody.bare(Method::POST, &made.url).header("accept", "text/html").body("");
    let pressed = send(pressed).await;
    assert_eq!(pressed.status, 303);
    assert_eq!(get(&server, pressed.header("location").unwrap()).await.bytes, bytes);
    over(&send(server.nobody.bare(Method::POST, &made.url)).await);
    // These download.
    for agent in ["curl/8.5.0", "Wget/1.21.3", "Mozilla/5.0 (Windows NT; en-US) WindowsPowerShell/5.1"] {
        let made = share(&alice, json!({ "image": format!("{BB}:v1"), "uses": 1 })).await;
        let request = server.nobody.bare(Method::GET, &made.url).header("user-agent", agent);
        assert_eq!(send(request).await.status, 303, "{agent}");
    }
}

#[tokio::test]
async fn lost_bytes_cost_no_use() {
    let (server, alice, _) = start().await;
    let made = share(&alice, json!({ "image": format!("{BB}:v1"), "uses": 1 })).await;
    let grant = system(Action::Sweep, &Resource::Installation).unwrap();
    for object in server.objects().await {
        server.local.app.objects.delete(&grant, &object).await.unwrap();
    }
    let answer = get(&server, &made.url).await;
    assert_eq!(answer.status, 500);
    assert!(String::from_utf8(answer.bytes).unwrap().starts_with("its bytes are lost"));
    assert_eq!(made.uses(&server).await, 0);
}

#[tokio::test]
async fn a_contributor_may_share_and_a_reader_not() {
    let (server, alice, bytes) = start().await;
    alice.push("alice/tools/open", "v1", "amd64", &bytes).await.ok();
    let (carl, rita, bob) = (server.user("carl", 0).await, server.user("rita", 0).await, server.user("bob", 0).await);
    join(&server, "alice", "carl", Role::Contributor).await;
    join(&server, "alice", "rita", Role::Reader).await;
    let scoped = async |scope: &str| server.token("alice", json!({ "name": "s", "scope": scope })).await;
    for (who, caller, status) in [
        ("owner", &alice, 200),
        ("contributor", &carl, 200),
        ("site admin", &server.admin, 200),
        ("pull,push", &scoped("pull,push@alice/secret/bb").await, 200),
        ("reader", &rita, 403),
        ("stranger", &bob, 403),
        ("nobody", &server.nobody, 401),
        ("pull", &scoped("pull").await, 403),
        // Without the right to pull, a token must not give itself the bytes.
        ("push", &scoped("push").await, 403),
        ("elsewhere", &scoped("pull,push@alice/tools/open").await, 403),
    ] {
        let answer = caller.post("/api/shares", json!({ "image": format!("{BB}:v1") })).await;
        assert_eq!(answer.status.as_u16(), status, "{who}: {}", answer.json);
        if status == 200 {
            assert_eq!(fetched(&server, &text(&answer.json, "/data/url")).await.bytes, bytes, "{who}");
        }
    }
    // What is public is shared by those who could push there alone: a share counts, and looks like theirs.
    for caller in [&rita, &bob] {
        caller.post("/api/shares", json!({ "image": "alice/tools/open:v1" })).await.error(403);
    }
    // To those who may not share, what is there and what is not are alike.
    let asked = async |who: &Caller, image: &str| {
        let answer = who.post("/api/shares", json!({ "image": image })).await;
        (answer.status, answer.cost(), answer.bytes)
    };
    for who in [&rita, &bob, &server.nobody] {
        let there = asked(who, &format!("{BB}:v1")).await;
        for missing in [format!("{BB}:v9"), "alice/secret/nothing:v1".to_owned()] {
            assert_eq!(asked(who, &missing).await, there);
        }
    }
    for missing in [format!("{BB}:v9"), "alice/secret/nothing:v1".to_owned(), format!("{BB}:{}", hash(b"nothing"))] {
        alice.post("/api/shares", json!({ "image": missing })).await.error(404);
    }
    // The short-lived token of a registry client makes none that would outlive it.
    let path = format!("/token?scope=repository:{BB}:pull,push");
    let short = alice.get(&path).await.ok();
    let short = alice.with(short["token"].as_str().unwrap());
    let said = short.post("/api/shares", json!({ "image": format!("{BB}:v1") })).await.error(403);
    assert!(said.contains("short-lived"), "{said}");
}

#[tokio::test]
async fn what_a_request_for_a_share_can_not_mean_is_refused_by_name() {
    let (server, alice, bytes) = start().await;
    let image = format!("{BB}:v1");
    let digest = Digest::of(&bytes).to_string();
    for (body, word) in [
        (json!({ "image": image, "password": "x" }), "password"),
        (json!({ "image": image, "max_uses": 1 }), "max_uses"),
        (json!({ "image": image, "expires": 60 }), "expires"),
        (json!({ "image": image, "private": true }), "private"),
        (json!({ "image": image, "uses": 0 }), "uses"),
        (json!({ "image": image, "uses": -1 }), "-1"),
        (json!({ "image": image, "expires_in": 0 }), "at least a second"),
        (json!({ "image": image, "expires_in": 30 * 24 * 3600 + 60 }), "at most 2592000 seconds"),
        (json!({ "image": image, "expires_in": u64::MAX }), "at most 2592000 seconds"),
        (json!({}), "image"),
        (json!({ "image": image, "repository": BB, "tag": "v1" }), "either"),
        (json!({ "repository": BB }), "either"),
        (json!({ "repository": BB, "tag": "v1", "digest": digest }), "either"),
        (json!({ "image": "a/b/c/d:x" }), "a/b/c/d"),
        (json!({ "repository": BB, "digest": "sha256:0" }), "sha256"),
    ] {
        let said = alice.post("/api/shares", body.clone()).await.error(400);
        assert!(said.contains(word), "{body}: {said}");
    }
    for query in ["", "?repository=alice", "?repository=alice/secret/bb&after=x", "?repository=alice/a/b&limit=1"] {
        assert_eq!(alice.get(&format!("/api/shares{query}")).await.status, 400, "{query}");
    }
    let said = alice.get(&format!("/api/shares?repository={BB}&limit=1")).await.error(400);
    assert!(said.contains("limit"), "{said}");
    alice.post("/api/shares?uses=1", json!({ "image": image })).await.error(400);
    alice.delete("/api/shares/nothing").await.error(400);
    let listed = alice.get(&format!("/api/shares?repository={BB}")).await.ok();
    assert_eq!(listed["data"], json!([]));
    // The operator's bounds.
    let settings = [("STACKROOM_SHARE_LIFE", "60"), ("STACKROOM_MAX_SHARE_LIFE", "120")];
    let other = Server::start_with(&settings).await;
    let alice = other.user("alice", 0).await;
    alice.push("alice/tools/bb", "v1", "amd64", &bytes).await.ok();
    let made = share(&alice, json!({ "image": "alice/tools/bb:v1" })).await;
    let row = made.row(&other).await.unwrap();
    assert_eq!(row.expires.0 - row.created.0, 60);
    alice.post("/api/shares", json!({ "image": "alice/tools/bb:v1", "expires_in": 121 })).await.error(400);
    drop(server);
}

#[tokio::test]
async fn a_share_never_outlives_the_token_that_made_it() {
    let (server, _, bytes) = start().await;
    let short = server.token("alice", json!({ "name": "short", "expires_in": 600 })).await;
    let image = format!("{BB}:v1");
    let said = short.post("/api/shares", json!({ "image": image, "expires_in": 3600 })).await.error(403);
    assert!(said.contains("outlives"), "{said}");
    let made = share(&short, json!({ "image": image })).await;
    let row = made.row(&server).await.unwrap();
    assert!(row.expires.0 - row.created.0 <= 600, "{row:?}");
    assert_eq!(fetched(&server, &made.url).await.bytes, bytes);
}

#[tokio::test]
async fn a_list_shows_own_shares_and_all_of_them_to_whoever_manages_the_repository() {
    let (server, alice, _) = start().await;
    let (carl, rita, bob) = (server.user("carl", 0).await, server.user("rita", 0).await, server.user("bob", 0).await);
    join(&server, "alice", "carl", Role::Contributor).await;
    join(&server, "alice", "rita", Role::Reader).await;
    let body = json!({ "image": format!("{BB}:v1"), "uses": 5 });
    let (of_alice, of_carl) = (share(&alice, body.clone()).await, share(&carl, body).await);
    get(&server, &of_carl.url).await;
    let listed = async |who: &Caller| {
        let answer = who.get(&format!("/api/shares?repository={BB}")).await.ok();
        assert!(!answer.to_string().contains("secret\":"), "{answer}");
        let mut ids: Vec<String> = answer["data"].as_array().unwrap().iter().map(|row| text(row, "/id")).collect();
        ids.sort_unstable();
        ids
    };
    let mut both = vec![of_alice.id.clone(), of_carl.id.clone()];
    both.sort_unstable();
    assert_eq!(listed(&alice).await, both);
    assert_eq!(listed(&server.admin).await, both);
    assert_eq!(listed(&carl).await, std::slice::from_ref(&of_carl.id));
    assert!(listed(&rita).await.is_empty());
    let shown = carl.get(&format!("/api/shares?repository={BB}")).await.ok()["data"][0].clone();
    for (name, value) in [("used", json!(1)), ("uses", json!(5)), ("over", json!(false)), ("created_by", json!("carl"))]
    {
        assert_eq!(shown[name], value, "{name}");
    }
    // Strangers learn neither of the repository nor of a share whose id they know.
    for (who, status) in [(&bob, 404), (&server.nobody, 401)] {
        let answer = async |path: &str| {
            let answer = who.get(path).await;
            (answer.status.as_u16(), answer.cost(), answer.bytes)
        };
        let there = answer(&format!("/api/shares?repository={BB}")).await;
        assert_eq!(there.0, status);
        assert_eq!(answer("/api/shares?repository=alice/secret/nothing").await, there);
        let revoked = async |id: &str| {
            let answer = who.delete(&format!("/api/shares/{id}")).await;
            (answer.status.as_u16(), answer.cost(), answer.bytes)
        };
        let there = revoked(&of_carl.id).await;
        assert_eq!(there.0, status);
        assert_eq!(revoked("0123456789abcdef01234567").await, there);
    }
    // Those who see the repository see no share of somebody else's, and revoke none.
    rita.delete(&format!("/api/shares/{}", of_carl.id)).await.error(404);
    carl.delete(&format!("/api/shares/{}", of_alice.id)).await.error(404);
    assert_eq!(listed(&alice).await, both);
    alice.delete(&format!("/api/shares/{}", of_carl.id)).await.ok();
    assert_eq!(listed(&alice).await, std::slice::from_ref(&of_alice.id));
    assert_eq!(get(&server, &of_carl.url).await.status, 404);
    // Page by page.
    for _ in 0..104 {
        share(&alice, json!({ "image": format!("{BB}:v1") })).await;
    }
    let first = alice.get(&format!("/api/shares?repository={BB}")).await.ok();
    let next = text(&first, "/page/next");
    let second = alice.get(&format!("/api/shares?repository={BB}&after={next}")).await.ok();
    let rows = |page: &Value| page["data"].as_array().unwrap().len();
    assert_eq!((rows(&first), rows(&second), &second["page"]["next"]), (100, 5, &json!("")));
}

/// Pushes an artifact with these layers, each with its name, and returns the digest of its manifest.
async fn artifact(who: &Caller, repository: &str, tag: &str, layers: &[(&str, &[u8])]) -> String {
    let blob = async |bytes: &[u8]| {
        let digest = Digest::of(bytes).to_string();
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let sent = send(who.request(Method::POST, &path).body(bytes.to_vec())).await;
        assert_eq!(sent.status, 201, "{}", String::from_utf8_lossy(&sent.bytes));
        digest
    };
    blob(b"{}").await;
    let mut parts = Vec::new();
    for (name, bytes) in layers {
        parts.push(json!({
            "mediaType": "application/octet-stream", "digest": blob(bytes).await, "size": bytes.len(),
            "annotations": { "org.opencontainers.image.title": name },
        }));
    }
    let document = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.unknown.config.v1+json", "digest": Digest::of(b"{}"), "size": 2 },
        "layers": parts,
    })
    .to_string();
    let path = format!("/v2/{repository}/manifests/{tag}");
    let request = who.request(Method::PUT, &path).header("content-type", "application/vnd.oci.image.manifest.v1+json");
    let sent = send(request.body(document.clone())).await;
    assert_eq!(sent.status, 201, "{}", String::from_utf8_lossy(&sent.bytes));
    Digest::of(document.as_bytes()).to_string()
}

#[tokio::test]
async fn an_artifact_with_one_layer_is_shared_as_its_file_and_one_with_two_is_refused() {
    let (server, alice, bytes) = start().await;
    let files = "alice/files";
    let digest = artifact(&alice, files, "v1", &[("../reads of 2026.txt", b"ACGT")]).await;
    for chosen in [json!({ "tag": "v1" }), json!({ "digest": digest })] {
        let mut body = chosen;
        body["repository"] = json!(files);
        let made = share(&alice, body).await;
        assert!(made.url.ends_with("/reads_of_2026.txt"), "{}", made.url);
        let answer = fetched(&server, &made.url).await;
        assert_eq!(answer.bytes, b"ACGT");
        assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"reads_of_2026.txt\""));
    }
    artifact(&alice, files, "two", &[("a", b"a"), ("b", b"b")]).await;
    artifact(&alice, files, "none", &[]).await;
    for (tag, word) in [("two", "several layers"), ("none", "no layer")] {
        let said = alice.post("/api/shares", json!({ "repository": files, "tag": tag })).await.error(400);
        assert!(said.contains(word), "{said}");
    }
    // A SIF image is one, by the digest of its manifest too, and a tag of two architectures by its architecture.
    let manifest = alice.get(&format!("/v2/{BB}/manifests/v1")).await;
    let named = manifest.header("docker-content-digest").unwrap();
    let made = share(&alice, json!({ "repository": BB, "digest": named })).await;
    assert!(made.url.ends_with("/bb.sif"), "{}", made.url);
    assert_eq!(fetched(&server, &made.url).await.bytes, bytes);
    let arm = stackroom_tests::sif::SifBuilder::new("arm64").seed(9).build();
    alice.push(BB, "v1", "arm64", &arm).await.ok();
    let index = alice.get(&format!("/v2/{BB}/manifests/v1")).await;
    let index = index.header("docker-content-digest").unwrap();
    let said = alice.post("/api/shares", json!({ "repository": BB, "digest": index })).await.error(400);
    assert!(said.contains("index"), "{said}");
    let made = share(&alice, json!({ "repository": BB, "tag": "v1", "arch": "arm64" })).await;
    assert_eq!(fetched(&server, &made.url).await.bytes, arm);
}

#[tokio::test]
async fn a_share_is_of_one_exact_image_and_never_of_one_that_comes_after_it() {
    let (server, alice, bytes) = start().await;
    let made = share(&alice, json!({ "image": format!("{BB}:v1") })).await;
    // A tag that moves does not move it.
    alice.push(BB, "v1", "amd64", &sif(2)).await.ok();
    assert_eq!(fetched(&server, &made.url).await.bytes, bytes);
    // Deleted, it is over; and so it stays when somebody else brings the same bytes again.
    alice.delete(&format!("/v1/images/{BB}:{}", hash(&bytes))).await.ok();
    over(&get(&server, &made.url).await);
    join(&server, "alice", "carl", Role::Contributor).await;
    let carl = server.user("carl", 0).await;
    carl.push(BB, "v1", "amd64", &bytes).await.ok();
    assert_eq!(alice.pull(&format!("{BB}:v1")).await.bytes, bytes);
    over(&get(&server, &made.url).await);
    assert_eq!(made.uses(&server).await, 1);

    let files = "alice/files";
    let digest = artifact(&alice, files, "v1", &[("a.txt", b"ACGT")]).await;
    let made = share(&alice, json!({ "repository": files, "tag": "v1" })).await;
    assert_eq!(fetched(&server, &made.url).await.bytes, b"ACGT");
    assert_eq!(alice.delete(&format!("/v2/{files}/manifests/{digest}")).await.status, 202);
    over(&get(&server, &made.url).await);
    assert_eq!(artifact(&carl, files, "v1", &[("a.txt", b"ACGT")]).await, digest);
    over(&get(&server, &made.url).await);
}

#[tokio::test]
async fn making_and_revoking_a_share_leave_an_event_and_a_use_does_not() {
    let (server, alice, bytes) = start().await;
    let events = async || -> Vec<Event> { server.local.app.table.query_all(keys::events("alice")).await.unwrap() };
    let before = events().await.len();
    let made = share(&alice, json!({ "image": format!("{BB}:v1"), "uses": 2 })).await;
    get(&server, &made.url).await;
    let row = made.row(&server).await.unwrap();
    alice.delete(&format!("/api/shares/{}", made.id)).await.ok();
    let told: Vec<_> = events().await[before..].iter().map(|event| (event.place.clone(), event.what.clone())).collect();
    let digest = Digest::of(&bytes).into();
    let what = EventKind::ShareMade { id: row.id, digest, expires: row.expires, max: Some(2) };
    assert_eq!(told, [(BB.to_owned(), vec![what]), (BB.to_owned(), vec![EventKind::ShareRevoked { id: row.id }])],);
}
