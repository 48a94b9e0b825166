//! Hidden things look like missing ones: nothing reveals bytes that somebody else has.

use crate::library::{join, private_collection, sif};
use crate::support::{
    BB, MANIFEST, blob, blob_at, bring, digest, head, image, is, junk, manifest_at, narrowed, nothing, of_sif, push,
    push_sif, put, refused,
};
use serde_json::{Value, json};
use shared::domain::Role;
use stackroom_tests::{Answer, Caller, Server};

/// Everything that a stranger could compare, except what they said themselves.
fn seen(answer: &Answer, said: &str) -> (u16, String, String, (u32, u32)) {
    let plain = |text: &str| text.replace(said, "…");
    let mut headers: Vec<String> = answer.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    headers.retain(|line| !line.starts_with("date:") && !line.starts_with("x-test"));
    headers.sort_unstable();
    let (headers, body) = (plain(&headers.join("\n")), plain(&String::from_utf8_lossy(&answer.bytes)));
    (answer.status.as_u16(), headers, body, answer.cost())
}

#[tokio::test]
async fn hazard_cross_tenant_existence_oracle() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let (bob, carol) = (server.user("bob", 0).await, server.user("carol", 0).await);
    join(&server, "alice", "carol", Role::Reader).await;
    private_collection(&alice, "alice", "tools").await;
    let layer = junk(1, 1000);
    let body = push(&alice, BB, "latest", b"config", &[&layer]).await;
    blob(&bob, "bob/tools/bb", b"config").await;
    let narrow = narrowed(&alice, "alice", &["repository:alice/tools/other:pull,push,delete"]).await;
    let (there, missing) = (digest(&layer), nothing());
    let manifest = digest(body.as_bytes());
    for who in [&server.nobody, &bob, &narrow] {
        // In the repository itself: whether bytes exist, and whether the repository exists.
        for repository in [BB, "alice/tools/never", "alice/never/bb", "nobody/tools/bb"] {
            let status = 401;
            for (one, other) in [(&there, &missing), (&manifest, &missing)] {
                for path in [blob_at, manifest_at] {
                    let (yes, no) = (path(repository, one), path(repository, other));
                    let (first, second) = (who.get(&yes).await, who.get(&no).await);
                    is(&first, status);
                    assert_eq!(seen(&first, one), seen(&second, other), "{repository}");
                    let (first, second) = (head(who, &yes).await, head(who, &no).await);
                    is(&first, status);
                    assert_eq!(seen(&first, one), seen(&second, other), "{repository}");
                    let (first, second) = (who.delete(&yes).await, who.delete(&no).await);
                    is(&first, status);
                    assert_eq!(seen(&first, one), seen(&second, other), "{repository}");
                }
            }
            let referrers = async |digest: &str| who.get(&format!("/v2/{repository}/referrers/{digest}")).await;
            assert_eq!(seen(&referrers(&manifest).await, &manifest), seen(&referrers(&missing).await, &missing));
        }
        // A hidden repository looks like one that does not exist.
        for path in ["manifests/latest", "tags/list", "manifests/missing"] {
            let (hidden, never) = (format!("/v2/{BB}/{path}"), format!("/v2/alice/tools/no/{path}"));
            let answers = [who.get(&hidden).await, who.get(&never).await];
            assert_eq!(seen(&answers[0], BB), seen(&answers[1], "alice/tools/no"), "{path}");
        }
        let uploads = async |name: &str| who.post(&format!("/v2/{name}/blobs/uploads/"), Value::Null).await;
        let answers = [uploads(BB).await, uploads("alice/tools/no").await];
        assert_eq!(seen(&answers[0], BB), seen(&answers[1], "alice/tools/no"));
        // Whatever is uploaded: what is there already, what names existing or missing things, what is no manifest.
        for document in [&body, &image(b"config", &[b"missing"]).to_string(), "no manifest"] {
            for reference in ["latest", "new", &digest(document.as_bytes()), &missing] {
                let bring = async |name: &str| put(who, name, reference, MANIFEST, document).await;
                let answers = [bring(BB).await, bring("alice/tools/no").await];
                is(&answers[0], 401);
                assert_eq!(seen(&answers[0], BB), seen(&answers[1], "alice/tools/no"), "{reference}");
            }
        }
    }
    assert_eq!(crate::support::manifest(&alice, BB, "latest").await, body);
    refused(&alice.get(&manifest_at(BB, "new")).await, 404, "MANIFEST_UNKNOWN");
    // A blob is where it was uploaded, not in all repositories of its entity.
    blob(&alice, "alice/tools/other", b"config").await;
    for repository in ["alice/tools/other", "alice/tools/never"] {
        is(&head(&alice, &blob_at(repository, &there)).await, 404);
        refused(&alice.get(&blob_at(repository, &there)).await, 404, "BLOB_UNKNOWN");
    }
    // A caller who may read there is told what is there and what is not.
    is(&carol.get(&manifest_at(BB, "latest")).await, 200);
    refused(&carol.get(&blob_at(BB, &missing)).await, 404, "BLOB_UNKNOWN");
    refused(&carol.get(&manifest_at(BB, &missing)).await, 404, "MANIFEST_UNKNOWN");
    refused(&carol.get(&manifest_at("alice/tools/never", "latest")).await, 404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn in_ones_own_repository_bytes_that_others_have_are_as_missing_as_any() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    private_collection(&alice, "alice", "tools").await;
    let (known, unknown) = (junk(1, 1000), junk(2, 1000));
    push(&alice, BB, "latest", b"config", &[&known]).await;
    let own = "bob/tools/bb";
    blob(&bob, own, b"config").await;
    for mount in ["", "&from=alice/tools/bb", "&from=alice/tools/never", "&from=nobody/at/all", "&from=../..", "&from="]
    {
        let ask = async |bytes: &[u8]| {
            let answer =
                bob.post(&format!("/v2/{own}/blobs/uploads/?mount={}{mount}", digest(bytes)), Value::Null).await;
            is(&answer, 202);
            assert!(answer.header("location").is_some() && answer.header("docker-content-digest").is_none());
            answer.cost()
        };
        assert_eq!(ask(&known).await, ask(&unknown).await, "{mount}");
    }
    let look = async |bytes: &[u8]| {
        let path = blob_at(own, &digest(bytes));
        let said = digest(bytes);
        (
            seen(&bob.get(&path).await, &said),
            seen(&head(&bob, &path).await, &said),
            seen(&bob.delete(&path).await, &said),
        )
    };
    assert_eq!(look(&known).await, look(&unknown).await);
    let name = async |bytes: &[u8]| {
        let answer = put(&bob, own, "x", MANIFEST, &image(b"config", &[bytes]).to_string()).await;
        refused(&answer, 404, "MANIFEST_BLOB_UNKNOWN");
        seen(&answer, &digest(bytes))
    };
    assert_eq!(name(&known).await, name(&unknown).await);
    // Both must be uploaded, and are then charged alike.
    let bring = async |bytes: &[u8]| {
        let answer = bring(&bob, own, bytes).await;
        is(&answer, 201);
        (seen(&answer, &digest(bytes)), server.quota("bob").await)
    };
    let ((first, (one, _)), (second, (two, _))) = (bring(&known).await, bring(&unknown).await);
    assert_eq!(first, second);
    assert_eq!((one, two), (1006, 2006));
}

#[tokio::test]
async fn a_sif_image_that_somebody_else_has_has_to_be_brought_like_any_other() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    private_collection(&alice, "alice", "tools").await;
    let bytes = sif(1);
    push_sif(&alice, BB, "latest", &bytes).await;
    blob(&bob, "bob/tools/bb", b"{}").await;
    for image in [&bytes, &sif(2)] {
        let answer = put(&bob, "bob/tools/bb", "latest", MANIFEST, &of_sif(image).to_string()).await;
        refused(&answer, 404, "MANIFEST_BLOB_UNKNOWN");
    }
    refused(&bob.get(&manifest_at("bob/tools/bb", "latest")).await, 404, "MANIFEST_UNKNOWN");
    push_sif(&bob, "bob/tools/bb", "latest", &bytes).await;
    assert_eq!(bob.pull("bob/tools/bb:latest").await.bytes, bytes);
}

#[tokio::test]
async fn a_repository_is_as_visible_here_as_through_the_library() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 0).await);
    let bytes = sif(1);
    alice.push("alice/tools/library", "latest", "amd64", &bytes).await.ok();
    push_sif(&alice, "alice/tools/registry", "latest", &bytes).await;
    private_collection(&alice, "alice", "secret").await;
    push_sif(&alice, "alice/secret/registry", "latest", &bytes).await;
    alice.push("alice/secret/library", "latest", "amd64", &bytes).await.ok();
    // Pushes through the other protocol change nothing.
    push_sif(&alice, "alice/tools/library", "other", &bytes).await;
    alice.push("alice/tools/registry", "other", "amd64", &bytes).await.ok();
    let sees = async |who: &Caller, repository: &str| {
        let manifest = who.get(&manifest_at(repository, "latest")).await.status;
        let bytes = who.get(&blob_at(repository, &digest(&bytes))).await.status;
        let image = who.get(&format!("/v1/images/{repository}:latest")).await.status;
        let file = who.get(&format!("/v1/imagefile/{repository}:latest")).await.status;
        let all = [manifest == 200, bytes == 200 || bytes == 307, image == 200, file == 303];
        assert!(all.iter().all(|one| *one == all[0]), "{repository}: {manifest} {bytes} {image} {file}");
        all[0]
    };
    for (repository, nobody, others) in [
        ("alice/tools/library", true, true),
        ("alice/tools/registry", false, true),
        ("alice/secret/registry", false, false),
        ("alice/secret/library", false, false),
    ] {
        assert_eq!(sees(&server.nobody, repository).await, nobody, "{repository}");
        assert_eq!(sees(&bob, repository).await, others, "{repository}");
        assert!(sees(&alice, repository).await && sees(&server.admin, repository).await, "{repository}");
        // A token without pull gets no bytes except public ones.
        let blind = server.token("bob", json!({ "name": "s", "scope": "push" })).await;
        assert_eq!(blind.get(&manifest_at(repository, "latest")).await.status == 200, nobody, "{repository}");
        let file = blind.get(&format!("/v1/imagefile/{repository}:latest")).await;
        assert_eq!(file.status == 303, nobody, "{repository}");
    }
    for (visibility, nobody, others) in [("private", false, false), ("internal", false, true), ("public", true, true)] {
        let settings = json!({ "visibility": visibility });
        crate::library::set(&alice, "/v1/containers/alice/tools/registry", settings).await.ok();
        assert_eq!(sees(&server.nobody, "alice/tools/registry").await, nobody, "{visibility}");
        assert_eq!(sees(&bob, "alice/tools/registry").await, others, "{visibility}");
    }
}
