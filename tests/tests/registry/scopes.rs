//! What a short-lived token may be used for: never more than was asked for, never more than its user may.

use crate::library::{join, private_collection, set};
use crate::support::{
    BB, basic, blob_at, digest, fetch, head, image, is, manifest_at, narrowed, nothing, push, put, refused, tags,
};
use crate::support::{MANIFEST, blob};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Role;
use stackroom_tests::{Caller, Server, send};

const OTHER: &str = "alice/tools/other";

/// Two private repositories with an image each.
async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    private_collection(&alice, "alice", "tools").await;
    for repository in [BB, OTHER] {
        push(&alice, repository, "latest", b"config", &[b"layer"]).await;
    }
    (server, alice)
}

/// Checks that a token is not enough for a request, and that the challenge says so.
#[track_caller]
fn insufficient(answer: &stackroom_tests::Answer) {
    is(answer, 401);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(
        challenge.starts_with("Bearer realm=") && challenge.contains("error=\"insufficient_scope\""),
        "{challenge}"
    );
}

/// What a token lets its holder do to a repository.
#[derive(Debug, PartialEq, Eq)]
struct May {
    pull: bool,
    push: bool,
    delete: bool,
}

async fn may(who: &Caller, repository: &str) -> May {
    let yes = |answer: &stackroom_tests::Answer| {
        if answer.status == 401 {
            insufficient(answer);
        }
        answer.status != 401
    };
    let seen = who.get(&manifest_at(repository, "latest")).await;
    for path in [manifest_at(repository, "missing"), blob_at(repository, &digest(b"layer"))] {
        assert_eq!(yes(&who.get(&path).await), yes(&seen), "{path}");
        assert_eq!(yes(&head(who, &path).await), yes(&seen), "{path}");
    }
    assert_eq!(yes(&who.get(&format!("/v2/{repository}/tags/list")).await), yes(&seen));
    assert_eq!(yes(&who.get(&format!("/v2/{repository}/referrers/{}", nothing())).await), yes(&seen));
    let opened = who.post(&format!("/v2/{repository}/blobs/uploads/"), Value::Null).await;
    let tagged = put(who, repository, "new", MANIFEST, &image(b"config", &[b"layer"]).to_string()).await;
    assert_eq!(yes(&opened), yes(&tagged));
    let gone = who.delete(&manifest_at(repository, "missing")).await;
    assert_eq!(yes(&who.delete(&manifest_at(repository, &nothing())).await), yes(&gone));
    assert_eq!(yes(&who.delete(&blob_at(repository, &nothing())).await), yes(&gone));
    May { pull: yes(&seen), push: yes(&opened), delete: yes(&gone) }
}

#[tokio::test]
async fn hazard_token_scope_confusion() {
    let (server, alice) = start().await;
    let none = May { pull: false, push: false, delete: false };
    for (actions, rights) in [
        ("pull", May { pull: true, ..none }),
        ("push", May { push: true, ..none }),
        ("pull,push", May { pull: true, push: true, ..none }),
        ("delete", May { delete: true, ..none }),
        ("*", May { pull: true, push: true, delete: true }),
        ("fly", May { ..none }),
        ("", May { ..none }),
    ] {
        let token = narrowed(&alice, "alice", &[&format!("repository:{BB}:{actions}")]).await;
        assert_eq!(may(&token, BB).await, rights, "{actions}");
        assert_eq!(may(&token, OTHER).await, none, "{actions}");
        assert_eq!(may(&token, "alice/tools/bb-2").await, none, "{actions}");
        is(&token.get("/v2/").await, 200);
        insufficient(&server.nobody.with(token.token.as_deref().unwrap()).get(&manifest_at(OTHER, "latest")).await);
    }
    for scope in [
        "repository:alice/tools/*:*",
        "repository:*:*",
        "repository:alice/tools:*",
        "repository:alice/tools/other/../bb:*",
        "repository:alice/tools%252fbb:*",
        "REPOSITORY:alice/tools/bb:*",
        "repository:bb:*",
        "repository:tools/bb:*",
        "repository:/alice/tools/bb:*",
        "registry:*:*",
        "registry:bb:pull",
        "entity:alice:*",
        "*",
    ] {
        let token = narrowed(&alice, "alice", &[scope]).await;
        assert_eq!(may(&token, BB).await, none, "{scope}");
    }
    // Several, in one parameter and in two.
    let both = format!("repository:{BB}:pull repository:{OTHER}:push").replace(' ', "%20");
    let in_two = [&*format!("repository:{BB}:pull"), &*format!("repository:{OTHER}:push")];
    for scopes in [&[&*both][..], &in_two] {
        let token = narrowed(&alice, "alice", scopes).await;
        assert_eq!(may(&token, BB).await, May { pull: true, ..none });
        assert_eq!(may(&token, OTHER).await, May { push: true, ..none });
    }
    assert_eq!(tags(&alice, BB).await, ["latest", "new"]);
}

#[tokio::test]
async fn a_token_for_the_catalog_lists_and_pulls_nothing() {
    let (server, alice) = start().await;
    for who in [&alice, &server.admin] {
        let name = if who.token == alice.token { "alice" } else { "admin" };
        let token = narrowed(who, name, &["registry:catalog:*"]).await;
        is(&token.get("/v2/_catalog").await, 200);
        insufficient(&token.get(&manifest_at(BB, "latest")).await);
        insufficient(&token.get(&blob_at(BB, &digest(b"layer"))).await);
        insufficient(&token.post(&format!("/v2/{BB}/blobs/uploads/"), Value::Null).await);
        token.get("/api/users").await.error(403);
        token.get("/v1/containers/alice/tools/bb").await.error(404);
    }
}

#[tokio::test]
async fn asking_for_more_than_one_may_gives_nothing() {
    let (server, _) = start().await;
    let (bob, carol, dave) = (server.user("bob", 0).await, server.user("carol", 0).await, server.user("dave", 0).await);
    join(&server, "alice", "carol", Role::Reader).await;
    join(&server, "alice", "dave", Role::Contributor).await;
    let all = [&*format!("repository:{BB}:pull,push,delete")];
    let none = May { pull: false, push: false, delete: false };
    assert_eq!(may(&narrowed(&bob, "bob", &all).await, BB).await, none);
    assert_eq!(may(&narrowed(&carol, "carol", &all).await, BB).await, May { pull: true, ..none });
    let contributor = narrowed(&dave, "dave", &all).await;
    insufficient(&contributor.delete(&manifest_at(BB, "latest")).await);
    insufficient(&contributor.delete(&blob_at(BB, &digest(b"layer"))).await);
    push(&contributor, BB, "daves", b"config", &[b"daves"]).await;
    is(&contributor.delete(&manifest_at(BB, "daves")).await, 202);
}

#[tokio::test]
async fn a_narrow_api_token_stays_narrow() {
    let (server, alice) = start().await;
    let all = ["repository:alice/tools/bb:*", "repository:alice/tools/other:*", "registry:catalog:*"];
    let none = May { pull: false, push: false, delete: false };
    let whole = May { pull: true, push: true, delete: true };
    for (scope, here, there) in [
        ("pull", May { pull: true, ..none }, May { pull: true, ..none }),
        ("pull@alice/tools/bb", May { pull: true, ..none }, May { ..none }),
        ("push@alice/tools/bb", May { push: true, ..none }, May { ..none }),
        ("pull,push,delete@alice/tools/bb", May { ..whole }, May { ..none }),
        ("pull,push,delete@alice", May { ..whole }, May { ..whole }),
        ("pull,push,delete@bob", May { ..none }, May { ..none }),
        ("admin", May { ..none }, May { ..none }),
    ] {
        let narrow = server.token("alice", json!({ "name": "s", "scope": scope })).await;
        for who in [&narrow, &narrowed(&narrow, "alice", &all).await] {
            assert_eq!(may(who, BB).await, here, "{scope}");
            assert_eq!(may(who, OTHER).await, there, "{scope}");
        }
        // Directly, by name and token.
        let path = manifest_at(OTHER, "latest");
        let direct = send(basic(&alice, Method::GET, &path, "alice", narrow.token.as_deref().unwrap())).await;
        assert_eq!(direct.status == 200, there.pull, "{scope}");
    }
}

#[tokio::test]
async fn a_short_lived_token_is_no_way_to_another_one() {
    let (server, alice) = start().await;
    let narrow = narrowed(&alice, "alice", &[&format!("repository:{BB}:pull")]).await;
    let path = format!("/token?scope=repository:{BB}:pull,push,delete&scope=repository:{OTHER}:pull");
    let again = narrow.get(&path).await;
    if again.status == 200 {
        let wider = narrow.with(again.json["token"].as_str().unwrap());
        assert_eq!(may(&wider, BB).await, May { pull: true, push: false, delete: false });
        insufficient(&wider.get(&manifest_at(OTHER, "latest")).await);
    } else {
        refused(&again, 401, "UNAUTHORIZED");
    }
    // Nor does it lead to an API token, a password, or any administration.
    let admins = narrowed(&server.admin, "admin", &["repository:alice/tools/bb:*", "registry:catalog:*"]).await;
    for who in [&narrow, &admins] {
        who.post("/api/users/alice/tokens", json!({ "name": "mine" })).await.error(403);
        who.put("/api/users/alice/password", json!({ "password": "mine from now on" })).await.error(403);
        who.post("/api/users", json!({ "name": "mallory" })).await.error(403);
        who.get("/api/users").await.error(403);
        who.post("/api/sweep", json!({ "now": true })).await.error(403);
        let settings = json!({ "visibility": "public" });
        assert!(set(who, &format!("/v1/containers/{BB}"), settings).await.status.is_client_error());
    }
}

#[tokio::test]
async fn both_doors_take_the_same_tokens_and_a_short_lived_one_is_as_narrow_on_the_librarys() {
    let (server, alice) = start().await;
    let sif = crate::library::sif(1);
    alice.push(BB, "sif", "amd64", &sif).await.ok();
    let token = narrowed(&alice, "alice", &[&format!("repository:{BB}:pull")]).await;
    is(&token.get("/v1/token-status").await, 200);
    assert_eq!(token.pull(&format!("{BB}:sif")).await.bytes, sif);
    assert_eq!(fetch(&token, BB, &digest(&sif)).await.bytes, sif);
    token.get(&format!("/v1/images/{OTHER}:latest")).await.error(404);
    assert_eq!(token.delete(&format!("/v1/images/{BB}:sif")).await.status, 403);
    // A push through the library with a token that was issued for a registry client.
    let token = narrowed(&alice, "alice", &[&format!("repository:{BB}:pull,push")]).await;
    token.push(BB, "more", "amd64", &crate::library::sif(2)).await.ok();
    assert_eq!(tags(&alice, BB).await, ["latest", "more", "sif"]);
    // Basic authentication is for the registry only.
    let pair = basic(&alice, Method::GET, "/v1/token-status", "alice", alice.token.as_deref().unwrap());
    assert_eq!(send(pair).await.status, 404);
    blob(&server.admin, BB, b"a site admin may").await;
}
