//! Every route, requested by everybody: who gets which status. And that hidden things can't be told from missing ones.

use crate::support::{Push, begin, hash, join, opened_parts, private_collection, set, sif, text};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::{Digest, Role};
use stackroom_tests::{Answer, Caller, SERVING, Server, send};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Routes that no row of the table requests. This list may only get shorter.
const UNCOVERED: &[&str] = &[];

/// One request to a route. `{…}` is filled in anew for each caller, so that everybody finds the same state.
struct Question {
    /// The route as the router of the function spells it.
    route: &'static str,
    method: Method,
    path: &'static str,
    body: Value,
}

fn ask(method: Method, route: &'static str, path: &'static str, body: Value) -> Question {
    Question { route, method, path, body }
}

fn get(route: &'static str, path: &'static str) -> Question {
    ask(Method::GET, route, path, Value::Null)
}

fn questions() -> Vec<Question> {
    let metadata = [about_metadata(), about_descriptions()];
    let others = [about_bytes_and_people(), about_the_operator(), about_groups(), about_the_registry()];
    metadata.into_iter().chain(others).flatten().collect()
}

fn about_metadata() -> Vec<Question> {
    let (post, patch, delete) = (Method::POST, Method::PATCH, Method::DELETE);
    vec![
        get("/assets/config/config.prod.json", "/assets/config/config.prod.json"),
        get("/version", "/version"),
        get("/openapi.json", "/openapi.json"),
        get("/livez", "/livez"),
        get("/readyz", "/readyz"),
        get("/v1/entities", "/v1/entities"),
        get("/v1/entities/", "/v1/entities/"),
        get("/v1/entities/{name}", "/v1/entities/alice"),
        get("/v1/entities/{name}", "/v1/entities/missing"),
        ask(post.clone(), "/v1/entities", "/v1/entities", json!({ "name": "alice" })),
        ask(post.clone(), "/v1/entities", "/v1/entities", json!({ "name": "{fresh}" })),
        ask(patch.clone(), "/v1/entities/{name}", "/v1/entities/alice", json!({ "description": "x" })),
        get("/v1/collections", "/v1/collections?entity=alice"),
        get("/v1/collections/{*path}", "/v1/collections/alice/secret"),
        get("/v1/collections/{*path}", "/v1/collections/alice"),
        ask(post.clone(), "/v1/collections", "/v1/collections", json!({ "name": "tools", "entity": "{entity}" })),
        ask(post.clone(), "/v1/collections", "/v1/collections", json!({ "name": "{fresh}", "entity": "{entity}" })),
        ask(patch.clone(), "/v1/collections/{*path}", "/v1/collections/alice/tools", json!({ "description": "x" })),
        get("/v1/containers", "/v1/containers?entity=alice"),
        get("/v1/containers/{*path}", "/v1/containers/alice/tools/bb"),
        get("/v1/containers/{*path}", "/v1/containers/alice/secret/bb"),
        get("/v1/containers/{*path}", "/v1/containers/alice/secret"),
        get("/v1/containers/{*path}", "/v1/containers/alice/tools/nothing/manifests"),
        get("/v1/containers/{*path}", "/v1/containers/alice/secret/nothing/manifests"),
        ask(post.clone(), "/v1/containers", "/v1/containers", json!({ "name": "bb", "collection": "{collection}" })),
        ask(
            post.clone(),
            "/v1/containers",
            "/v1/containers",
            json!({ "name": "{fresh}", "collection": "{collection}" }),
        ),
        ask(patch.clone(), "/v1/containers/{*path}", "/v1/containers/alice/tools/bb", json!({ "description": "x" })),
        ask(
            patch.clone(),
            "/api/repositories/{*name}",
            "/api/repositories/alice/tools/bb",
            json!({ "description": "x" }),
        ),
        ask(delete.clone(), "/v1/entities/{name}", "/v1/entities/alice?dry-run=1", Value::Null),
        ask(delete.clone(), "/v1/collections/{*path}", "/v1/collections/alice/tools?dry-run=1", Value::Null),
        ask(delete.clone(), "/v1/containers/{*path}", "/v1/containers/alice/tools/bb?dry-run=1", Value::Null),
        ask(delete.clone(), "/v1/containers/{*path}", "/v1/containers/alice/secret/bb?dry-run=1", Value::Null),
        ask(delete.clone(), "/api/repositories/{*name}", "/api/repositories/alice/tools/bb?dry-run=1", Value::Null),
        ask(delete.clone(), "/api/users/{name}", "/api/users/alice?dry-run=1", Value::Null),
        get("/v1/images", "/v1/images?container=alice/tools/bb"),
        get("/v1/images", "/v1/images?container=alice/secret/bb"),
        get("/v1/images/{*reference}", "/v1/images/alice/tools/bb:v1"),
        get("/v1/images/{*reference}", "/v1/images/alice/secret/bb:v1"),
        get("/v1/images/{*reference}", "/v1/images/alice/tools/bb:{unfinished}"),
        ask(post.clone(), "/v1/images", "/v1/images", json!({ "hash": "{finished}", "container": "{container}" })),
        ask(post.clone(), "/v1/images", "/v1/images", json!({ "hash": "{fresh hash}", "container": "{container}" })),
        ask(patch.clone(), "/v1/images/{*reference}", "/v1/images/alice/tools/bb:v1", json!({ "frozen": false })),
        ask(delete.clone(), "/v1/images/{*reference}", "/v1/images/alice/tools/bb:{gone}", Value::Null),
        ask(delete.clone(), "/v1/images/{*reference}", "/v1/images/alice/tools/bb:missing", Value::Null),
        get("/v1/tags/{container}", "/v1/tags/{container}"),
        get("/v2/tags/{container}", "/v2/tags/{container}"),
        get("/v2/tags/{container}", "/v2/tags/{secret container}"),
        ask(post.clone(), "/v1/tags/{container}", "/v1/tags/{container}", json!({ "Tag": "v1", "ImageID": "{image}" })),
        ask(post.clone(), "/v2/tags/{container}", "/v2/tags/{container}", json!({ "Tag": "v1", "ImageID": "{image}" })),
        get("/v1/search", "/v1/search?value=alice"),
        get("/v1/oci-redirect", "/v1/oci-redirect?namespace=alice%2Ftools%2Fbb"),
    ]
}

/// What is said about things, stars, and the lists and the whole objects of other clients.
fn about_descriptions() -> Vec<Question> {
    let (post, put, delete) = (Method::POST, Method::PUT, Method::DELETE);
    let described = || json!({ "description": "x" });
    vec![
        ask(put.clone(), "/v1/entities/{name}", "/v1/entities/alice", described()),
        ask(put.clone(), "/v1/entities/{name}", "/v1/entities/missing", described()),
        ask(put.clone(), "/v1/collections/{*path}", "/v1/collections/alice/tools", described()),
        ask(put.clone(), "/v1/containers/{*path}", "/v1/containers/alice/tools/bb", described()),
        ask(put.clone(), "/v1/containers/{*path}", "/v1/containers/alice/secret/bb", described()),
        ask(put.clone(), "/v1/images/{*reference}", "/v1/images/alice/tools/bb:v1", described()),
        ask(put.clone(), "/v1/images/{*reference}", "/v1/images/alice/tools/bb:v1/tags", json!({ "tags": ["v1"] })),
        ask(put, "/v1/images/{*reference}", "/v1/images/alice/secret/bb:v1/tags", json!({ "tags": ["v1"] })),
        get("/v1/images/{*reference}", "/v1/images/alice/tools/bb:v1/inspect"),
        get("/v1/images/{*reference}", "/v1/images/alice/secret/bb:v1/inspect"),
        get("/v1/containers/{*path}", "/v1/containers/alice/tools/bb/images"),
        get("/v1/containers/{*path}", "/v1/containers/alice/secret/bb/images"),
        get("/api/repositories", "/api/repositories?entity=alice"),
        get("/api/repositories/{*name}", "/api/repositories/alice/tools/bb"),
        get("/api/repositories/{*name}", "/api/repositories/alice/secret/bb"),
        get("/api/tags", "/api/tags?repository=alice/tools/bb"),
        get("/api/tags", "/api/tags?repository=alice/secret/bb"),
        get("/api/history", "/api/history?repository=alice/tools/bb&tag=v1"),
        get("/api/history", "/api/history?repository=alice/secret/bb&tag=v1"),
        get("/api/downloads", "/api/downloads?repository=alice/tools/bb"),
        get("/api/downloads", "/api/downloads?repository=alice/secret/bb&tag=v1"),
        get("/api/badge", "/api/badge?repository=alice/tools/bb"),
        get("/api/badge", "/api/badge?repository=alice/secret/bb"),
        get("/v1/latest", "/v1/latest"),
        get("/v1/search", "/v1/search?value=alice&entity=alice"),
        get("/v1/users", "/v1/users?username=alic"),
        get("/v1/users", "/v1/users"),
        get("/v1/users/{name}", "/v1/users/alice"),
        get("/v1/users/{name}", "/v1/users/missing"),
        get("/v1/users/{name}/tokens", "/v1/users/alice/tokens"),
        ask(post.clone(), "/v1/users/{name}/tokens", "/v1/users/alice/tokens", json!({ "comment": "t" })),
        ask(delete.clone(), "/v1/users/{name}/tokens/{id}", "/v1/users/alice/tokens/{token}", Value::Null),
        get("/v1/users/{name}/stars", "/v1/users/alice/stars"),
        get("/v1/users/{name}/stars", "/v1/users/missing/stars"),
        ask(
            post.clone(),
            "/v1/users/{name}/stars/{container}",
            "/v1/users/alice/stars/{secret container}",
            Value::Null,
        ),
        ask(post, "/v1/users/{name}/stars/{container}", "/v1/users/bob/stars/{secret container}", Value::Null),
        ask(delete, "/v1/users/{name}/stars/{container}", "/v1/users/alice/stars/{container}", Value::Null),
    ]
}

fn about_bytes_and_people() -> Vec<Question> {
    let (post, put, delete) = (Method::POST, Method::PUT, Method::DELETE);
    vec![
        get("/v1/imagefile/{*reference}", "/v1/imagefile/alice/tools/bb:v1"),
        get("/v1/imagefile/{*reference}", "/v1/imagefile/alice/secret/bb:v1"),
        ask(post.clone(), "/v1/imagefile/{*reference}", "/v1/imagefile/{image}", Value::Null),
        get("/v1/hop", "/v1/hop?to=nonsense"),
        ask(post.clone(), "/v2/imagefile/{image}", "/v2/imagefile/{new image}", json!({ "filesize": 100 })),
        ask(put.clone(), "/v2/imagefile/{image}/_complete", "/v2/imagefile/{image}/_complete", json!({})),
        ask(
            post.clone(),
            "/v2/imagefile/{image}/_multipart",
            "/v2/imagefile/{new image}/_multipart",
            json!({ "filesize": 100 }),
        ),
        ask(
            put.clone(),
            "/v2/imagefile/{image}/_multipart",
            "/v2/imagefile/{parts image}/_multipart",
            json!({ "partSize": 100, "uploadID": "{upload}", "partNumber": 1, "sha256sum": "" }),
        ),
        ask(
            put.clone(),
            "/v2/imagefile/{image}/_multipart_complete",
            "/v2/imagefile/{image}/_multipart_complete",
            json!({ "uploadID": "{upload}", "completedParts": [] }),
        ),
        ask(
            put.clone(),
            "/v2/imagefile/{image}/_multipart_abort",
            "/v2/imagefile/{parts image}/_multipart_abort",
            json!({ "uploadID": "{upload}" }),
        ),
        get("/api/container/{collection}/{container}", "/api/container/tools/bb:v1"),
        get("/{entity}/api/container/{collection}/{container}", "/alice/api/container/tools/bb:v1"),
        get("/{entity}/api/container/{collection}/{container}", "/alice/api/container/secret/bb:v1"),
        get("/v1/token-status", "/v1/token-status"),
        ask(post.clone(), "/v1/get-token", "/v1/get-token", json!({ "username": "{fresh}", "password": "{fresh}" })),
        get("/v1/rbac/users/current", "/v1/rbac/users/current"),
        get("/auth/tokens", "/auth/tokens"),
        get("/api/shares", "/api/shares?repository=alice/tools/bb"),
        get("/api/shares", "/api/shares?repository=alice/secret/bb"),
        ask(post.clone(), "/api/shares", "/api/shares", json!({ "image": "alice/tools/bb:v1" })),
        ask(post.clone(), "/api/shares", "/api/shares", json!({ "image": "alice/secret/bb:v1" })),
        ask(post.clone(), "/api/shares", "/api/shares", json!({ "image": "alice/secret/bb:missing" })),
        ask(delete.clone(), "/api/shares/{id}", "/api/shares/{share}", Value::Null),
        ask(delete.clone(), "/api/shares/{id}", "/api/shares/0123456789abcdef01234567", Value::Null),
        get("/dl/{key}/{file}", "/dl/{link}/bb_v1.sif"),
        get("/dl/{key}/{file}", "/dl/{link}/other.sif"),
        get("/dl/{key}/{file}", "/dl/nonsense/bb_v1.sif"),
        ask(post.clone(), "/dl/{key}/{file}", "/dl/{link}/bb_v1.sif", Value::Null),
        ask(
            post.clone(),
            "/v1/get-download-token",
            "/v1/get-download-token",
            json!({ "type": "manifest", "id": "{manifest}" }),
        ),
        ask(
            post.clone(),
            "/v1/get-download-token",
            "/v1/get-download-token",
            json!({ "type": "manifest", "id": "{secret manifest}" }),
        ),
        get("/v1/manifests/{id}/download", "/v1/manifests/{manifest}/download"),
        get("/v1/manifests/{id}/download", "/v1/manifests/{secret manifest}/download"),
        get("/v1/manifests/{id}/download", "/v1/manifests/nonsense/download"),
        get("/api/users", "/api/users"),
        ask(post.clone(), "/api/users", "/api/users", json!({ "name": "{fresh}" })),
        ask(
            put.clone(),
            "/api/users/{name}/password",
            "/api/users/alice/password",
            json!({ "password": "correct horse" }),
        ),
        ask(put.clone(), "/api/users/{name}/disabled", "/api/users/alice/disabled", json!({ "disabled": false })),
        get("/api/users/{name}/tokens", "/api/users/alice/tokens"),
        get("/api/users/{name}/tokens", "/api/users/missing/tokens"),
        ask(
            post.clone(),
            "/api/users/{name}/tokens",
            "/api/users/alice/tokens",
            json!({ "name": "t", "scope": "pull" }),
        ),
        ask(delete, "/api/users/{name}/tokens/{id}", "/api/users/alice/tokens/{token}", Value::Null),
        ask(put, "/api/entities/{name}/quota", "/api/entities/alice/quota", json!({ "limit": 0 })),
        ask(post.clone(), "/api/sweep", "/api/sweep", json!({})),
        get("/api/sweep", "/api/sweep"),
        ask(post.clone(), "/api/scrub", "/api/scrub", json!({})),
        ask(post.clone(), "/api/index", "/api/index", json!({})),
        get("/pks/lookup", "/pks/lookup?op=get&search=0x0"),
        ask(post, "/pks/add", "/pks/add", Value::Null),
    ]
}

fn about_the_operator() -> Vec<Question> {
    let (post, put, delete) = (Method::POST, Method::PUT, Method::DELETE);
    vec![
        get("/api/users/{name}", "/api/users/alice"),
        get("/api/users/{name}", "/api/users/missing"),
        ask(put, "/api/users/{name}/email", "/api/users/alice/email", json!({ "email": null })),
        get("/api/entities/{name}/quota", "/api/entities/alice/quota"),
        get("/api/entities/{name}/quota", "/api/entities/missing/quota"),
        ask(
            post.clone(),
            "/api/register",
            "/api/register",
            json!({ "name": "{fresh}", "password": "correct horse", "invitation": "0.0" }),
        ),
        ask(
            post.clone(),
            "/v1/register",
            "/v1/register",
            json!({ "username": "{fresh}", "password": "correct horse" }),
        ),
        get("/register", "/register"),
        get("/api/invitations", "/api/invitations"),
        ask(post.clone(), "/api/invitations", "/api/invitations", json!({})),
        ask(delete, "/api/invitations/{id}", "/api/invitations/000000000000000000000000", Value::Null),
        get("/api/accounts", "/api/accounts"),
        get("/api/index", "/api/index"),
        ask(post, "/api/accounts", "/api/accounts", json!({ "repair": true })),
    ]
}

fn about_groups() -> Vec<Question> {
    let (post, put, delete) = (Method::POST, Method::PUT, Method::DELETE);
    let robot = json!({ "name": "{fresh}", "role": "reader" });
    let no_id = "/api/entities/alice/invitations/000000000000000000000000";
    vec![
        ask(post.clone(), "/api/groups", "/api/groups", json!({ "name": "{fresh}" })),
        get("/api/entities/{name}/members", "/api/entities/alice/members"),
        get("/api/entities/{name}/members", "/api/entities/missing/members"),
        ask(
            put.clone(),
            "/api/entities/{name}/members/{member}",
            "/api/entities/alice/members/rita",
            json!({ "role": "reader" }),
        ),
        ask(
            put.clone(),
            "/api/entities/{name}/members/{member}",
            "/api/entities/missing/members/rita",
            json!({ "role": "reader" }),
        ),
        ask(delete.clone(), "/api/entities/{name}/members/{member}", "/api/entities/alice/members/nobody", Value::Null),
        get("/api/entities/{name}/includes", "/api/entities/alice/includes"),
        ask(put.clone(), "/api/entities/{name}/includes", "/api/entities/alice/includes", json!({ "groups": {} })),
        ask(put, "/api/users/{name}/groups", "/api/users/alice/groups", json!({ "directory": "ldap", "groups": [] })),
        get("/api/entities/{name}/robots", "/api/entities/alice/robots"),
        ask(post.clone(), "/api/entities/{name}/robots", "/api/entities/alice/robots", robot),
        ask(delete.clone(), "/api/entities/{name}/robots/{robot}", "/api/entities/alice/robots/missing", Value::Null),
        get("/api/entities/{name}/invitations", "/api/entities/alice/invitations"),
        ask(
            post.clone(),
            "/api/entities/{name}/invitations",
            "/api/entities/alice/invitations",
            json!({ "role": "reader" }),
        ),
        ask(delete, "/api/entities/{name}/invitations/{id}", no_id, Value::Null),
        ask(post, "/api/join", "/api/join", json!({ "invitation": "alice.000000000000000000000000.x" })),
        get("/join", "/join"),
        get("/api/entities/{name}/events", "/api/entities/alice/events?since=99999999999"),
        get("/api/entities/{name}/events", "/api/entities/missing/events"),
        get("/api/users/{name}/events", "/api/users/alice/events?since=99999999999"),
        get("/api/events", "/api/events?since=99999999999"),
    ]
}

fn about_the_registry() -> Vec<Question> {
    const ANY: &str = "/v2/{*path}";
    let (post, put, patch, delete) = (Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    let nothing = Value::Null;
    // An upload's URL without its ticket.
    let upload = "/v2/alice/tools/bb/blobs/uploads/0123456789abcdef0123456789abcdef";
    vec![
        get("/v2", "/v2"),
        get("/v2/", "/v2/"),
        get("/token", "/token?scope=repository:alice/tools/bb:pull"),
        ask(post.clone(), "/token", "/token", nothing.clone()),
        get(ANY, "/v2/_catalog"),
        get(ANY, "/v2/alice/tools/bb/tags/list"),
        get(ANY, "/v2/alice/secret/bb/tags/list"),
        get(ANY, "/v2/alice/tools/bb/manifests/v1"),
        get(ANY, "/v2/alice/secret/bb/manifests/v1"),
        get(ANY, "/v2/ALICE/Tools/BB/manifests/v1"),
        get(ANY, "/v2/single/manifests/v1"),
        get(ANY, "/v2/alice/tools/bb/manifests/missing"),
        get(ANY, "/v2/alice/tools/bb/blobs/{digest}"),
        get(ANY, "/v2/alice/secret/bb/blobs/{digest}"),
        get(ANY, "/v2/alice/tools/bb/referrers/{digest}"),
        get(ANY, "/v2/alice/secret/bb/referrers/{digest}"),
        ask(post.clone(), ANY, "/v2/alice/tools/bb/blobs/uploads/", nothing.clone()),
        ask(post.clone(), ANY, "/v2/alice/tools/{fresh}/blobs/uploads/", nothing.clone()),
        ask(post, ANY, "/v2/nobody/tools/bb/blobs/uploads/", nothing.clone()),
        ask(put.clone(), ANY, "/v2/alice/tools/bb/manifests/v9", json!({})),
        ask(put, ANY, upload, nothing.clone()),
        ask(patch, ANY, upload, nothing.clone()),
        ask(delete.clone(), ANY, "/v2/alice/tools/bb/manifests/{gone}", nothing.clone()),
        ask(delete.clone(), ANY, "/v2/alice/tools/bb/manifests/missing", nothing.clone()),
        ask(delete, ANY, "/v2/alice/tools/bb/blobs/{unnamed}", nothing),
    ]
}

/// The id of the manifest that the tag `v1` names.
async fn manifest_id(who: &Caller, repository: &str) -> String {
    let named = who.get(&format!("/v2/{repository}/manifests/v1")).await;
    let hex = named.header("docker-content-digest").unwrap().strip_prefix("sha256:").unwrap();
    format!("{}~{hex}", repository.replace('/', "~"))
}

/// Everything that the requests are about: an entity of alice's, with something public and something secret.
struct Stage {
    server: Server,
    alice: Caller,
    callers: Vec<(&'static str, Caller)>,
    known: BTreeMap<&'static str, String>,
}

impl Stage {
    async fn set() -> Self {
        let server = Server::start_with(&[("STACKROOM_DEFAULT_ENTITY", "alice"), SERVING]).await;
        let alice = server.user("alice", 0).await;
        private_collection(&alice, "alice", "secret").await;
        let first = sif(1);
        for path in ["alice/tools/bb", "alice/secret/bb"] {
            alice.push(path, "v1", "amd64", &first).await.ok();
        }
        let Push { container, image, .. } = begin(&alice, "alice/tools/bb", &first).await;
        let id = async |path: &str| text(&alice.get(path).await.ok(), "/data/id");
        begin(&alice, "alice/tools/bb", &sif(2)).await;
        let known = BTreeMap::from([
            ("entity", id("/v1/entities/alice").await),
            ("collection", id("/v1/collections/alice/tools").await),
            ("secret container", id("/v1/containers/alice/secret/bb").await),
            ("container", container),
            ("image", image),
            ("finished", hash(&first)),
            ("digest", Digest::of(&first).to_string()),
            ("unnamed", Digest::of(b"unnamed").to_string()),
            ("unfinished", hash(&sif(2))),
            ("manifest", manifest_id(&alice, "alice/tools/bb").await),
            ("secret manifest", manifest_id(&alice, "alice/secret/bb").await),
        ]);
        let callers = Self::callers(&server, &alice).await;
        Self { server, alice, callers, known }
    }

    async fn callers(server: &Server, alice: &Caller) -> Vec<(&'static str, Caller)> {
        let stranger = server.user("bob", 0).await;
        let mut callers = vec![
            ("nobody", server.nobody.clone()),
            ("empty Bearer", Caller::new(&server.url, Some(String::new()))),
            ("bad token", Caller::new(&server.url, Some("x".repeat(250)))),
        ];
        let revoked = server.token("alice", json!({ "name": "revoked" })).await;
        let tokens = alice.get("/api/users/alice/tokens").await.ok();
        let row = tokens["data"].as_array().unwrap().iter().find(|row| row["name"] == "revoked").unwrap();
        alice.delete(&format!("/api/users/alice/tokens/{}", text(row, "/id"))).await.ok();
        let expired = server.token("alice", json!({ "name": "expired", "expires_in": 0 })).await;
        callers.extend([("revoked token", revoked), ("expired token", expired)]);
        let disabled = server.user("erin", 0).await;
        join(server, "alice", "erin", Role::Admin).await;
        server.admin.put("/api/users/erin/disabled", json!({ "disabled": true })).await.ok();
        callers.extend([("disabled user", disabled), ("stranger", stranger)]);
        for (name, user, role) in [
            ("reader", "rita", Role::Reader),
            ("contributor", "carl", Role::Contributor),
            ("group admin", "gina", Role::Admin),
        ] {
            let caller = server.user(user, 0).await;
            join(server, "alice", user, role).await;
            callers.push((name, caller));
        }
        for (name, user, scope) in [
            ("owner: pull", "alice", "pull"),
            ("owner: push", "alice", "push"),
            ("owner: all@bob", "alice", "pull,push,delete,admin@bob"),
            ("owner: pull,push@tools/bb", "alice", "pull,push@alice/tools/bb"),
            ("owner: all@alice", "alice", "pull,push,delete,admin@alice"),
        ] {
            callers.push((name, server.token(user, json!({ "name": "scoped", "scope": scope })).await));
        }
        callers.push(("owner", alice.clone()));
        callers.push(("site admin: pull", server.token("admin", json!({ "name": "p", "scope": "pull" })).await));
        callers.push(("site admin", server.admin.clone()));
        callers
    }

    /// The value of a word in braces, created anew if the request uses it up.
    async fn value(&self, word: &str, number: u64) -> String {
        match word {
            "fresh" => format!("fresh{number}"),
            "fresh hash" => hash(&sif(10_000 + number)),
            "new image" => begin(&self.alice, "alice/tools/bb", &sif(20_000 + number)).await.image,
            "gone" => {
                let bytes = sif(30_000 + number);
                self.alice.push("alice/tools/bb", "gone", "amd64", &bytes).await.ok();
                "gone".to_owned()
            }
            "token" => {
                self.server.token("alice", json!({ "name": format!("t{number}") })).await;
                let tokens = self.alice.get("/api/users/alice/tokens").await.ok();
                let name = json!(format!("t{number}"));
                text(tokens["data"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap(), "/id")
            }
            "share" | "link" => {
                let made = self.alice.post("/api/shares", json!({ "image": "alice/secret/bb:v1" })).await.ok();
                let key = text(&made, "/data/url").split('/').rev().nth(1).unwrap().to_owned();
                if word == "link" { key } else { text(&made, "/data/id") }
            }
            known => self.known.get(known).unwrap_or_else(|| panic!("what is {known}?")).clone(),
        }
    }

    async fn filled(&self, template: &str, number: u64) -> String {
        let mut filled = template.to_owned();
        // An upload and its image belong together.
        if filled.contains("{upload}") {
            let parts = opened_parts(&self.alice, "alice/tools/bb", &[b'x'; 100]).await;
            filled = filled.replace("{upload}", &parts.id).replace("{parts image}", &parts.push.image);
        }
        let words: BTreeSet<&str> =
            template.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect();
        for word in words {
            let hole = format!("{{{word}}}");
            if filled.contains(&hole) {
                filled = filled.replace(&hole, &self.value(word, number).await);
            }
        }
        filled
    }

    async fn answer(&self, caller: &Caller, question: &Question, number: u64) -> Answer {
        // The body's own braces are not placeholders, so only its texts are filled.
        let mut body = question.body.clone();
        let mut path = question.path.to_owned();
        let mut texts: Vec<String> = vec![path.clone()];
        if let Some(fields) = body.as_object() {
            texts.extend(fields.values().filter_map(Value::as_str).map(str::to_owned));
        }
        let filled = self.filled(&texts.join("\n"), number).await;
        let mut filled = filled.split('\n').map(str::to_owned);
        path = filled.next().unwrap_or(path);
        if let Some(fields) = body.as_object_mut() {
            for value in fields.values_mut().filter(|value| value.is_string()) {
                *value = json!(filled.next().unwrap());
            }
        }
        let request = caller.request(question.method.clone(), &path);
        send(if body.is_null() { request } else { request.body(body.to_string()) }).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_the_status_that_is_written_down() {
    let stage = Stage::set().await;
    let mut table = String::new();
    let mut number = 0;
    for (letter, (name, _)) in ('A'..).zip(&stage.callers) {
        writeln!(table, "{letter}  {name}").unwrap();
    }
    writeln!(table).unwrap();
    for letter in ('A'..).take(stage.callers.len()) {
        write!(table, "{letter:>4}").unwrap();
    }
    writeln!(table).unwrap();
    for question in questions() {
        let mut statuses = String::new();
        for (_, caller) in &stage.callers {
            number += 1;
            let answer = stage.answer(caller, &question, number).await;
            assert!(answer.status.as_u16() < 500, "{} {}", question.method, question.path);
            write!(statuses, "{:>4}", answer.status.as_u16()).unwrap();
        }
        let body = if question.body.is_null() { String::new() } else { format!(" {}", question.body) };
        writeln!(table, "{statuses}  {:<6} {}{body}", question.method.as_str(), question.path).unwrap();
    }
    insta::assert_snapshot!(table);
}

/// The methods and routes of the functions' routers, as they are described.
fn routes() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    for (_, described) in server::openapi::functions() {
        for (path, operations) in json!(described)["paths"].as_object().unwrap() {
            let methods = ["get", "post", "put", "patch", "delete"].into_iter();
            let methods = methods.filter(|method| operations.get(method).is_some());
            routes.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
        }
    }
    routes
}

#[test]
fn every_route_is_asked() {
    let routes = routes();
    assert!(routes.len() > 40, "{routes:?}");
    let asked: BTreeSet<String> =
        questions().iter().map(|question| format!("{} {}", question.method, question.route)).collect();
    let uncovered: Vec<&String> = routes.difference(&asked).collect();
    assert_eq!(uncovered, UNCOVERED, "routes that no question asks");
    let unknown: Vec<&String> = asked.difference(&routes).collect();
    assert_eq!(unknown, Vec::<&String>::new(), "questions to routes that are not there");
    // And every path that the template sends to a function is requested through the whole server.
    let matches = |pattern: &str, path: &str| {
        let (pattern, path) = (pattern.split('/'), path.split('?').next().unwrap().split('/'));
        let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.collect(), path.collect());
        let tail = pattern.last().is_some_and(|last| last.ends_with("+}"));
        let fits = |(pattern, part): (&&str, &&str)| pattern == part || (pattern.starts_with('{') && !part.is_empty());
        (pattern.len() == path.len() || (tail && path.len() > pattern.len())) && pattern.iter().zip(&path).all(fits)
    };
    for route in server::routes::of_template(server::routes::TEMPLATE).unwrap() {
        let pattern = route.path;
        assert!(questions().iter().any(|question| matches(&pattern, question.path)), "{pattern} is not asked");
    }
}

/// Status, cost and body, in which the requested name is replaced.
fn seen(answer: &Answer, name: &str) -> (StatusCode, (u32, u32), String) {
    (answer.status, answer.cost(), String::from_utf8_lossy(&answer.bytes).replace(name, "NAME"))
}

/// Requests about what is said of things, with a hidden and a missing name.
fn hidden_descriptions() -> Vec<(Method, &'static str, &'static str, &'static str)> {
    vec![
        (Method::GET, "/v1/images?container=NAME&sort=-created", "alice/secret/bb", "nobody/at/all"),
        (Method::GET, "/v1/containers?entity=NAME&sort=-name&private=true", "alice", "nobody-there"),
        (Method::GET, "/v1/containers/NAME/images", "alice/secret/bb", "alice/secret/nothing"),
        (Method::GET, "/v1/images/NAME:v1/inspect", "alice/secret/bb", "alice/secret/nothing"),
        (Method::GET, "/api/repositories?entity=NAME", "alice", "nobody-there"),
        (Method::GET, "/api/repositories/NAME", "alice/secret/bb", "alice/secret/nothing"),
        (Method::GET, "/api/tags?repository=NAME", "alice/secret/bb", "nobody/at/all"),
        (Method::GET, "/api/history?repository=NAME&tag=v1", "alice/secret/bb", "nobody/at/all"),
        (Method::GET, "/api/downloads?repository=NAME", "alice/secret/bb", "nobody/at/all"),
        (Method::GET, "/api/badge?repository=NAME", "alice/secret/bb", "nobody/at/all"),
        (Method::GET, "/v1/search?value=bb1&entity=NAME", "alice", "nobody-there"),
        (Method::GET, "/v1/users/NAME", "alice", "nobody-there"),
        (Method::GET, "/v1/users/NAME/tokens", "alice", "nobody-there"),
        (Method::GET, "/v1/users/NAME/stars", "alice", "nobody-there"),
        (Method::PUT, "/v1/entities/NAME", "alice", "nobody-there"),
        (Method::PUT, "/v1/collections/NAME", "alice/secret", "alice/nothing"),
        (Method::PUT, "/v1/containers/NAME", "alice/secret/bb", "alice/secret/nothing"),
        (Method::PUT, "/v1/images/NAME:v1", "alice/secret/bb", "alice/secret/nothing"),
        (Method::PUT, "/v1/images/NAME:v1/tags", "alice/secret/bb", "alice/secret/nothing"),
        (Method::PUT, "/v1/images/alice/secret/bb:NAME/tags", "v1", "v9"),
    ]
}

#[tokio::test]
async fn what_is_hidden_answers_as_if_it_were_missing() {
    let stage = Stage::set().await;
    let fresh = Digest::of(b"fresh").library();
    let outsiders = ["nobody", "empty Bearer", "stranger", "owner: all@bob"];
    let callers: Vec<_> = stage.callers.iter().filter(|(name, _)| outsiders.contains(name)).collect();
    assert_eq!(callers.len(), outsiders.len());
    set(&stage.alice, "/v1/images/alice/secret/bb:v1", json!({ "frozen": true })).await.ok();
    set(&stage.alice, "/v1/containers/alice/secret/bb", json!({ "readOnly": true })).await.ok();
    let finished = &stage.known["finished"];
    let (digest, no_digest) = (stage.known["digest"].clone(), Digest::of(b"fresh").to_string());
    let no_manifest = format!("nobody~at~all~{}", Digest::of(b"fresh").hex());
    let shared = stage.value("share", 0).await;
    for (who, caller) in &callers {
        for (method, path, hidden, missing) in [
            (Method::GET, "/v1/entities/NAME", "alice", "nobody-there"),
            (Method::GET, "/v1/collections?entity=NAME", "alice", "nobody-there"),
            (Method::GET, "/v1/containers?entity=NAME", "alice", "nobody-there"),
            (Method::GET, "/v1/collections/NAME", "alice/secret", "alice/nothing"),
            (Method::GET, "/v1/collections/NAME", "alice", "nobody-there"),
            (Method::GET, "/v1/containers/NAME", "alice/secret", "nobody/secret"),
            (Method::GET, "/v1/containers/NAME", "alice/secret", "alice/nothing"),
            (Method::GET, "/v1/containers?collection=NAME", "alice/secret", "alice/nothing"),
            (Method::GET, "/v1/containers/NAME", "alice/secret/bb", "alice/secret/nothing"),
            (Method::GET, "/v1/containers/NAME", "alice/secret/bb", "nobody/at/all"),
            (Method::GET, "/v1/images?container=NAME", "alice/secret/bb", "alice/secret/nothing"),
            (Method::GET, "/v1/containers/NAME/manifests", "alice/secret/bb", "alice/secret/nothing"),
            (Method::GET, "/v1/manifests/NAME/download", &stage.known["secret manifest"], &no_manifest),
            (Method::GET, "/api/shares?repository=NAME", "alice/secret/bb", "nobody/at/all"),
            (Method::DELETE, "/api/shares/NAME", &shared, "0123456789abcdef01234567"),
            (Method::GET, "/v1/images/NAME:v1", "alice/secret/bb", "alice/secret/nothing"),
            (Method::GET, "/v1/images/NAME:v1?arch=amd64&details", "alice/secret/bb", "nobody/at/all"),
            (Method::GET, "/v1/images/NAME", "alice/secret/bb", "nobody/at/all"),
            (Method::GET, "/v1/images/alice/secret/bb:NAME", "v1", "v9"),
            (Method::GET, "/v1/images/alice/secret/bb:NAME", finished, &fresh),
            (Method::GET, "/v1/images/alice/tools/bb:NAME", &stage.known["unfinished"], &fresh),
            (Method::GET, "/v1/imagefile/NAME:v1", "alice/secret/bb", "alice/secret/nothing"),
            (Method::GET, "/v1/imagefile/alice/secret/bb:NAME", finished, &fresh),
            (Method::GET, "/v1/imagefile/alice/tools/bb:NAME", &stage.known["unfinished"], &fresh),
            (Method::GET, "/NAME/api/container/secret/bb", "alice", "nobody"),
            (Method::DELETE, "/v1/images/NAME:v1", "alice/secret/bb", "alice/secret/nothing"),
            (Method::DELETE, "/v1/images/alice/secret/bb:NAME", "v1", "v9"),
            (Method::DELETE, "/v1/images/alice/secret/bb:NAME", finished, &fresh),
            (Method::DELETE, "/v1/images/NAME:v1", "alice/tools/bb", "nobody/at/all"),
            (Method::GET, "/v2/NAME/tags/list", "alice/secret/bb", "nobody/at/all"),
            (Method::GET, "/v2/NAME/manifests/v1", "alice/secret/bb", "alice/secret/nothing"),
            (Method::HEAD, "/v2/NAME/manifests/v1", "alice/secret/bb", "nobody/at/all"),
            (Method::GET, "/v2/alice/secret/bb/manifests/NAME", "v1", "v9"),
            (Method::GET, "/v2/alice/secret/bb/blobs/NAME", &digest, &no_digest),
            (Method::HEAD, "/v2/alice/secret/bb/blobs/NAME", &digest, &no_digest),
            (Method::GET, "/v2/alice/secret/bb/referrers/NAME", &digest, &no_digest),
            (Method::POST, "/v2/NAME/blobs/uploads/", "alice/secret/bb", "alice/secret/nothing"),
            (Method::PUT, "/v2/NAME/manifests/v1", "alice/secret/bb", "alice/secret/nothing"),
            (Method::DELETE, "/v2/NAME/manifests/v1", "alice/secret/bb", "alice/secret/nothing"),
            (Method::DELETE, "/v2/alice/secret/bb/manifests/NAME", "v1", "v9"),
            (Method::DELETE, "/v2/alice/secret/bb/blobs/NAME", &digest, &no_digest),
            (Method::DELETE, "/v1/entities/NAME?cascade=1", "alice", "nobody-there"),
            (Method::DELETE, "/v1/collections/NAME?cascade=1", "alice/secret", "alice/nothing"),
            (Method::DELETE, "/v1/containers/NAME?cascade=1", "alice/secret/bb", "alice/secret/nothing"),
            (Method::DELETE, "/api/repositories/NAME?cascade=1", "alice/secret/bb", "alice/secret/nothing"),
            (Method::PATCH, "/v1/entities/NAME", "alice", "nobody-there"),
            (Method::PATCH, "/v1/collections/NAME", "alice/secret", "alice/nothing"),
            (Method::PATCH, "/v1/containers/NAME", "alice/secret/bb", "alice/secret/nothing"),
            (Method::PATCH, "/api/repositories/NAME", "alice/secret/bb", "alice/secret/nothing"),
            (Method::PATCH, "/api/repositories/NAME:v1", "alice/secret/bb", "alice/secret/nothing"),
            (Method::PATCH, "/api/repositories/alice/secret/bb:NAME", "v1", "v9"),
            (Method::PATCH, "/v1/images/NAME:v1", "alice/secret/bb", "alice/secret/nothing"),
            (Method::PATCH, "/v1/images/alice/secret/bb:NAME", "v1", "v9"),
        ]
        .into_iter()
        .chain(hidden_descriptions())
        {
            let answer = async |name: &str| {
                let request = caller.request(method.clone(), &path.replace("NAME", name));
                let library_put = method == Method::PUT && path.starts_with("/v1/");
                let body = if path.ends_with("/tags") { r#"{"tags":[]}"# } else { "{}" };
                let request = if method == Method::PATCH || library_put { request.body(body) } else { request };
                seen(&send(request).await, name)
            };
            let (hidden, missing) = (answer(hidden).await, answer(missing).await);
            assert_eq!(hidden, missing, "{who}: {method} {path}");
            assert!([401, 403, 404].contains(&hidden.0.as_u16()), "{who}: {method} {path}: {}", hidden.0);
        }
        for (path, field, hidden, missing) in
            [("/v1/entities", "name", "alice", "nobody-there"), ("/v1/images", "hash", finished, &fresh)]
        {
            let answer = async |name: &str| {
                let mut body = json!({ "container": stage.known["secret container"] });
                body[field] = json!(name);
                seen(&caller.post(path, body).await, name)
            };
            assert_eq!(answer(hidden).await, answer(missing).await, "{who}: POST {path}");
        }
    }
}

#[tokio::test]
async fn an_id_that_points_where_the_caller_may_not_go_answers_as_one_that_points_nowhere() {
    let stage = Stage::set().await;
    let nowhere = "0123456789abcdef01234567";
    let (entity, container) = (&*stage.known["entity"], &*stage.known["secret container"]);
    let secret = begin(&stage.alice, "alice/secret/bb", &sif(1)).await;
    let collection = text(&stage.alice.get("/v1/collections/alice/secret").await.ok(), "/data/id");
    let upload = "0".repeat(32);
    let tagged = json!({ "Tag": "v1", "ImageID": secret.image });
    for (who, caller) in
        stage.callers.iter().filter(|(name, _)| ["nobody", "stranger", "owner: all@bob"].contains(name))
    {
        // The number of reads may differ here: ids can't be guessed, so a caller who has one knows that it existed.
        let body = |answer: &Answer| (answer.status, String::from_utf8_lossy(&answer.bytes).into_owned());
        let own = if *who == "stranger" { "bob" } else { "alice" };
        for method in [Method::POST, Method::DELETE] {
            let starred = async |id: &str| {
                body(&send(caller.request(method.clone(), &format!("/v1/users/{own}/stars/{id}"))).await)
            };
            assert_eq!(starred(container).await, starred(nowhere).await, "{who}: {method} star");
        }
        for (path, hidden) in [("/v1/tags/ID", container), ("/v2/tags/ID", container)] {
            let (hidden, missing) =
                (caller.get(&path.replace("ID", hidden)).await, caller.get(&path.replace("ID", nowhere)).await);
            assert_eq!(body(&hidden), body(&missing), "{who}: GET {path}");
        }
        for (method, path, hidden, template) in [
            (Method::POST, "/v1/collections", entity, json!({ "name": "x", "entity": "ID" })),
            (Method::POST, "/v1/containers", &collection, json!({ "name": "x", "collection": "ID" })),
            (Method::POST, "/v1/containers", &collection, json!({ "name": "bb", "collection": "ID" })),
            (Method::POST, "/v1/images", container, json!({ "hash": hash(&sif(1)), "container": "ID" })),
            (Method::POST, "/v1/tags/ID", container, tagged.clone()),
            (Method::POST, "/v2/tags/ID", container, tagged.clone()),
            (Method::POST, "/v2/imagefile/ID", &secret.image, json!({ "filesize": 1 })),
            (Method::PUT, "/v2/imagefile/ID/_complete", &secret.image, json!({})),
            (Method::POST, "/v2/imagefile/ID/_multipart", &secret.image, json!({ "filesize": 1 })),
            (Method::PUT, "/v2/imagefile/ID/_multipart_abort", &secret.image, json!({ "uploadID": upload })),
            (Method::PUT, "/v2/imagefile/ID/_multipart_complete", &secret.image, json!({ "uploadID": upload })),
        ] {
            let answer = async |id: &str| {
                let sent = template.to_string().replace("\"ID\"", &format!("\"{id}\""));
                body(&send(caller.request(method.clone(), &path.replace("ID", id)).body(sent)).await)
            };
            assert_eq!(answer(hidden).await, answer(nowhere).await, "{who}: {method} {path} {template}");
        }
    }
}
