//! Manifests: what is kept, what is refused, and how tags are set.

use crate::library::set;
use crate::support::{
    BB, CONFIG, INDEX, LAYER, MANIFEST, MIB, blob, blob_at, digest, head, image, index, is, manifest, manifest_at,
    named, nothing, push, put, refused, tags,
};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::{Digest, OciDigest};
use stackroom_tests::{Answer, Caller, Server, backlinks, send};

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A repository with the blobs `config`, `one` and `two`.
async fn start() -> (Server, Caller) {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    for bytes in [&b"config"[..], b"one", b"two"] {
        blob(&alice, BB, bytes).await;
    }
    (server, alice)
}

/// Checks that a manifest comes back exactly as it was pushed.
async fn is_kept(who: &Caller, reference: &str, kind: &str, body: &str) {
    for name in [reference.to_owned(), digest(body.as_bytes())] {
        let (got, seen) = (who.get(&manifest_at(BB, &name)).await, head(who, &manifest_at(BB, &name)).await);
        assert!(got.bytes == body.as_bytes(), "{name}: other bytes");
        assert!(seen.bytes.is_empty());
        for answer in [&got, &seen] {
            is(answer, 200);
            assert_eq!(answer.header("content-type"), Some(kind));
            assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()));
            assert_eq!(answer.header("docker-content-digest"), Some(digest(body.as_bytes()).as_str()));
        }
    }
}

/// A manifest of exactly `len` bytes; a different one for each sign.
fn long(len: usize, sign: char) -> String {
    let mut body = image(b"config", &[b"one"]);
    body["annotations"] = json!({ "filler": "" });
    let short = body.to_string().len();
    body["annotations"]["filler"] = json!(sign.to_string().repeat(len - short));
    body.to_string()
}

#[tokio::test]
async fn a_manifest_keeps_its_exact_bytes_and_its_media_type() {
    let (server, alice) = start().await;
    // Spaces, order, escapes and unknown fields are up to the client.
    let tidy = image(b"config", &[b"one", b"two"]);
    let pretty = format!("\n{}\n\n", serde_json::to_string_pretty(&tidy).unwrap());
    let mut unknown = tidy.clone();
    unknown["x-unknown"] = json!({ "deep": [1, 2.5, null, "\u{1F980}"] });
    let docker = tidy.to_string().replace(MANIFEST, DOCKER);
    let mut silent = tidy.clone();
    silent.as_object_mut().unwrap().remove("mediaType");
    for (tag, kind, body) in [
        ("tidy", MANIFEST, tidy.to_string()),
        ("pretty", MANIFEST, pretty),
        ("unknown", MANIFEST, unknown.to_string().replace("deep", "d\\u0065ep")),
        ("docker", DOCKER, docker),
        ("silent", MANIFEST, silent.to_string()),
        ("index", INDEX, index(&[&tidy.to_string()]).to_string()),
        ("list", DOCKER_LIST, index(&[&tidy.to_string()]).to_string().replace(INDEX, DOCKER_LIST)),
        ("empty-index", INDEX, index(&[]).to_string()),
        ("no-layers", MANIFEST, image(b"config", &[]).to_string()),
        ("artifact", "application/vnd.cncf.oras.artifact.manifest.v1+json", json!({ "blobs": [] }).to_string()),
        ("nothing-we-know", "application/vnd.example+json", json!({ "any": ["thing"] }).to_string()),
    ] {
        let brought = put(&alice, BB, tag, kind, &body).await;
        is(&brought, 201);
        let name = digest(body.as_bytes());
        assert_eq!(brought.header("docker-content-digest"), Some(name.as_str()));
        assert_eq!(brought.header("location"), Some(manifest_at(BB, &name).as_str()));
        is_kept(&alice, tag, kind, &body).await;
        // Whatever type the client asks for.
        let ask = alice.request(Method::GET, &manifest_at(BB, tag)).header("accept", "application/json");
        assert_eq!(send(ask).await.header("content-type"), Some(kind));
        // Pushing it again by digest changes nothing.
        is(&put(&alice, BB, &name, kind, &body).await, 201);
        is_kept(&alice, tag, kind, &body).await;
    }
    // Manifests are not charged, and their bytes are in the table.
    assert_eq!((server.quota("alice").await, server.objects().await.len()), ((12, 0), 3));
}

#[tokio::test]
async fn a_manifest_may_have_4_mib_and_not_a_byte_more() {
    let (server, alice) = start().await;
    let objects = server.objects().await.len();
    for (number, len) in [200 << 10, 300 << 10, 3 * MIB, 4 * MIB - 100_000, 4 * MIB].into_iter().enumerate() {
        let body = long(len, 'x');
        is(&put(&alice, BB, "long", MANIFEST, &body).await, 201);
        is_kept(&alice, "long", MANIFEST, &body).await;
        assert_eq!(server.objects().await.len(), objects + number, "only long ones are in the bucket");
    }
    // Pushing it again replaces the object, deleting the manifest removes it.
    let body = long(4 * MIB, 'x');
    is(&put(&alice, BB, "again", MANIFEST, &body).await, 201);
    is_kept(&alice, "again", MANIFEST, &body).await;
    let refusal = put(&alice, BB, "longer", MANIFEST, &long(4 * MIB + 1, 'x')).await;
    refused(&refusal, 413, "SIZE_INVALID");
    refused(&alice.get(&manifest_at(BB, "longer")).await, 404, "MANIFEST_UNKNOWN");
    for len in [300 << 10, 3 * MIB, 4 * MIB - 100_000, 4 * MIB] {
        is(&alice.delete(&manifest_at(BB, &digest(long(len, 'x').as_bytes()))).await, 202);
    }
    crate::library::sweep_up(&server).await;
    assert_eq!(server.objects().await.len(), 2, "what the short one names");
}

#[tokio::test]
async fn what_a_manifest_needs_has_to_be_there() {
    let (_server, alice) = start().await;
    blob(&alice, "alice/tools/other", b"elsewhere").await;
    let there = image(b"config", &[b"one"]).to_string();
    is(&put(&alice, BB, "there", MANIFEST, &there).await, 201);
    for (why, kind, body) in [
        ("a layer", MANIFEST, image(b"config", &[b"one", b"elsewhere"])),
        ("a configuration", MANIFEST, image(b"elsewhere", &[b"one"])),
        ("the empty configuration", MANIFEST, image(b"{}", &[b"one"])),
        ("a manifest", INDEX, index(&[&there, "missing"])),
    ] {
        let said = refused(&put(&alice, BB, "x", kind, &body.to_string()).await, 404, "MANIFEST_BLOB_UNKNOWN");
        assert!(said.contains("sha256:"), "{why}: {said}");
    }
    refused(&alice.get(&manifest_at(BB, "x")).await, 404, "MANIFEST_UNKNOWN");
    // Layers that are fetched from elsewhere need not be there, nor the subject of a manifest.
    let mut foreign = image(b"config", &[b"one"]);
    let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    foreign["layers"][0] = named(kind, b"never brought");
    foreign["subject"] = named(MANIFEST, b"never brought either");
    let brought = put(&alice, BB, "foreign", MANIFEST, &foreign.to_string()).await;
    is(&brought, 201);
    assert_eq!(brought.header("oci-subject"), Some(digest(b"never brought either").as_str()));
}

#[tokio::test]
async fn hazard_media_type_confusion_cve_2021_41190_and_manifest_shape() {
    let (_server, alice) = start().await;
    let plain = image(b"config", &[b"one"]);
    let with = |name: &str, value: Value| {
        let mut body = plain.clone();
        body[name] = value;
        body.to_string()
    };
    let both = with("manifests", json!([named(MANIFEST, b"x")]));
    let silent = both.replace("mediaType", "kind");
    let again = |field: &str| plain.to_string().replacen('{', &format!("{{{field},"), 1);
    let with_index = |name: &str| index(&[]).to_string().replacen('{', &format!("{{\"{name}\":[],"), 1);
    let capitals = MANIFEST.to_uppercase();
    let mut refusals = vec![
        ("an image and an index", MANIFEST, both.clone()),
        ("an index and an image", INDEX, both.replace(MANIFEST, INDEX)),
        ("both, saying nothing", MANIFEST, silent.clone()),
        ("both, saying nothing", INDEX, silent.clone()),
        ("both, of an unknown type", "application/vnd.example+json", silent),
        ("both, with no manifests", MANIFEST, with("manifests", json!([]))),
        ("an image as an index", INDEX, plain.to_string()),
        ("an image as Docker's", DOCKER, plain.to_string()),
        ("an index as an image", MANIFEST, index(&[]).to_string()),
        ("an image that says index", MANIFEST, with("mediaType", json!(INDEX))),
        ("two media types", MANIFEST, again(&format!("\"mediaType\":\"{INDEX}\""))),
        ("the same media type twice", MANIFEST, again(&format!("\"mediaType\":\"{MANIFEST}\""))),
        ("two configurations", MANIFEST, again(&format!("\"config\":{}", named(CONFIG, b"two")))),
        ("two lists of layers", MANIFEST, again("\"layers\":[]")),
        (
            "two digests",
            MANIFEST,
            plain.to_string().replace("\"digest\"", &format!("\"digest\":\"{}\",\"digest\"", nothing())),
        ),
        ("two subjects", MANIFEST, again(&format!("\"subject\":{0},\"subject\":{0}", named(MANIFEST, b"x")))),
        ("a list of manifests in other letters", MANIFEST, with("Manifests", json!([named(MANIFEST, b"x")]))),
        ("layers in other letters beside them", MANIFEST, again("\"Layers\":[]")),
        ("layers with a long s", MANIFEST, again("\"layer\u{17f}\":[]")),
        ("layers with a long s in an index", INDEX, with_index("layer\u{17f}")),
        ("the same, escaped", INDEX, with_index("layer\\u017F")),
        ("a configuration in an index", INDEX, with_index("CONFIG")),
        ("a media type in other letters", MANIFEST, again(&format!("\"MediaType\":\"{INDEX}\""))),
        ("only that", MANIFEST, plain.to_string().replacen("\"mediaType\"", "\"mediatype\"", 3)),
        ("a subject in other letters", MANIFEST, with("\u{17f}ubject", named(MANIFEST, b"x"))),
        ("in a manifest of unknown type too", "application/vnd.example+json", r#"{"Blobs":[]}"#.to_owned()),
        (
            "a digest in other letters",
            MANIFEST,
            plain.to_string().replacen("\"digest\"", &format!("\"Digest\":\"{}\",\"digest\"", nothing()), 1),
        ),
        ("only that", MANIFEST, plain.to_string().replacen("\"digest\"", "\"Digest\"", 1)),
        ("a size in other letters", MANIFEST, plain.to_string().replacen("\"size\"", "\"\u{17f}ize\"", 1)),
        ("two sizes", MANIFEST, plain.to_string().replacen("\"size\"", "\"size\":1,\"size\"", 1)),
        ("an index as an image, in capitals", &capitals, index(&[]).to_string()),
        ("no configuration", MANIFEST, json!({ "schemaVersion": 2, "layers": [] }).to_string()),
        ("no layers", MANIFEST, json!({ "schemaVersion": 2, "config": named(CONFIG, b"config") }).to_string()),
        ("nothing", MANIFEST, String::new()),
        ("no JSON", MANIFEST, "manifest".to_owned()),
        ("a list", MANIFEST, "[]".to_owned()),
        ("two documents", MANIFEST, format!("{plain}{plain}")),
        ("half a document", MANIFEST, plain.to_string()[..100].to_owned()),
        (
            "too deep",
            "application/vnd.example+json",
            format!("{{\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)),
        ),
        ("a digest that is none", MANIFEST, plain.to_string().replace("sha256:", "sha256:x")),
        (
            "a digest in capitals",
            MANIFEST,
            plain.to_string().replace(&digest(b"one")[7..], &digest(b"one")[7..].to_uppercase()),
        ),
        ("no media type", "", plain.to_string()),
        ("a media type that is none", "x", plain.to_string()),
        ("schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws", "{}".to_owned()),
    ];
    let many: Vec<Value> = (0_u32..10_001).map(|number| named(LAYER, &number.to_le_bytes())).collect();
    refusals.push(("too many layers", MANIFEST, with("layers", json!(many))));
    for (why, kind, body) in refusals {
        let answer = put(&alice, BB, "x", kind, &body).await;
        assert_eq!(answer.status, 400, "{why}: {}", String::from_utf8_lossy(&answer.bytes));
        refused(&answer, 400, "MANIFEST_INVALID");
        refused(&alice.get(&manifest_at(BB, &digest(body.as_bytes()))).await, 404, "MANIFEST_UNKNOWN");
    }
    let bytes = [plain.to_string().as_bytes(), b" \xff"].concat();
    let request = alice.request(Method::PUT, &manifest_at(BB, "x")).header("content-type", MANIFEST).body(bytes);
    refused(&send(request).await, 400, "MANIFEST_INVALID");
    refused(&alice.get(&manifest_at(BB, "x")).await, 404, "MANIFEST_UNKNOWN");
    assert_eq!(tags(&alice, BB).await, Vec::<String>::new());
    // Keys that we don't read may be spelt in any way, and annotations have no fixed keys.
    let mut free = plain.clone();
    free["X-Layers"] = json!({ "Layers": [], "layers": [] });
    free["annotations"] = json!({ "Digest": "", "digest": "", "layer\u{17f}": "" });
    is(&put(&alice, BB, "free", MANIFEST, &free.to_string()).await, 201);
    is_kept(&alice, "free", MANIFEST, &free.to_string()).await;
    // Media types are case-insensitive, and are kept in lower case.
    for (kind, body) in [(&*capitals, plain.to_string()), (MANIFEST, plain.to_string().replace(MANIFEST, &capitals))] {
        is(&put(&alice, BB, "capitals", kind, &body).await, 201);
        is_kept(&alice, "capitals", MANIFEST, &body).await;
        is(&put(&alice, BB, "capitals", MANIFEST, &body).await, 201);
    }
    let missing = image(b"config", &[b"missing"]).to_string();
    refused(&put(&alice, BB, "x", &capitals, &missing).await, 404, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn the_same_bytes_can_not_be_two_kinds_of_manifest() {
    let (_server, alice) = start().await;
    let body = json!({ "schemaVersion": 2, "config": named(CONFIG, b"config"), "layers": [] }).to_string();
    is(&put(&alice, BB, "first", MANIFEST, &body).await, 201);
    for reference in ["first", "second", &digest(body.as_bytes())] {
        let answer = put(&alice, BB, reference, DOCKER, &body).await;
        let said = refused(&answer, 400, "MANIFEST_INVALID");
        assert!(said.contains(MANIFEST), "{said}");
    }
    is_kept(&alice, "first", MANIFEST, &body).await;
    assert_eq!(tags(&alice, BB).await, ["first"]);
}

#[tokio::test]
async fn a_manifest_by_digest_has_that_digest() {
    let (_server, alice) = start().await;
    let body = image(b"config", &[b"one"]).to_string();
    refused(&put(&alice, BB, &nothing(), MANIFEST, &body).await, 400, "DIGEST_INVALID");
    let long = OciDigest::Sha512([0; 64]).like([body.as_bytes()]).to_string();
    let brought = put(&alice, BB, &long, MANIFEST, &body).await;
    is(&brought, 201);
    assert_eq!(brought.header("docker-content-digest"), Some(long.as_str()));
    assert_eq!(manifest(&alice, BB, &long).await, body);
    let other = OciDigest::from(Digest::of(b"x"));
    refused(&alice.get(&manifest_at(BB, &other.to_string())).await, 404, "MANIFEST_UNKNOWN");
    assert_eq!(tags(&alice, BB).await, Vec::<String>::new());
}

#[tokio::test]
async fn one_request_can_set_several_tags() {
    let (_server, alice) = start().await;
    let (first, second) = (image(b"config", &[b"one"]).to_string(), image(b"config", &[b"two"]).to_string());
    is(&put(&alice, BB, "moved", MANIFEST, &second).await, 201);
    let set = |answer: &Answer| {
        is(answer, 201);
        let mut tags: Vec<String> = answer.header("oci-tag").unwrap().split(", ").map(str::to_owned).collect();
        tags.sort_unstable();
        tags
    };
    let by_digest = format!("{}?tag=a&tag=b&tag=moved&tag=a", digest(first.as_bytes()));
    assert_eq!(set(&put(&alice, BB, &by_digest, MANIFEST, &first).await), ["a", "b", "moved"]);
    let by_tag = set(&put(&alice, BB, "c?tag=d", MANIFEST, &first).await);
    assert!(by_tag.contains(&"d".to_owned()));
    for tag in ["a", "b", "c", "d", "moved"] {
        assert_eq!(manifest(&alice, BB, tag).await, first, "{tag}");
    }
    refused(&put(&alice, BB, "e?tag=.f", MANIFEST, &first).await, 400, "MANIFEST_INVALID");
    let many = (0..50).map(|number| format!("&tag=t{number}")).collect::<Vec<_>>().concat();
    assert!(put(&alice, BB, &format!("e?x{many}"), MANIFEST, &first).await.status.is_client_error());
    assert_eq!(tags(&alice, BB).await, ["a", "b", "c", "d", "moved"]);
}

#[tokio::test]
async fn a_frozen_tag_and_a_read_only_repository_say_so_and_stay() {
    let (server, alice) = start().await;
    let kept = push(&alice, BB, "v1", b"config", &[b"one"]).await;
    push(&alice, BB, "v2", b"config", &[b"two"]).await;
    let other = image(b"config", &[b"two"]).to_string();
    set(&alice, &format!("/v1/images/{BB}:v1"), json!({ "frozen": true })).await.ok();
    for who in [&alice, &server.admin] {
        let by_digest = manifest_at(BB, &digest(kept.as_bytes()));
        for answer in [
            put(who, BB, "v1", MANIFEST, &other).await,
            put(who, BB, "new?tag=v1", MANIFEST, &other).await,
            who.delete(&manifest_at(BB, "v1")).await,
            who.delete(&by_digest).await,
        ] {
            assert!(refused(&answer, 403, "DENIED").contains("frozen"));
        }
    }
    assert_eq!(manifest(&alice, BB, "v1").await, kept);
    assert_eq!(tags(&alice, BB).await, ["v1", "v2"]);
    set(&alice, &format!("/v1/images/{BB}:v1"), json!({ "frozen": false })).await.ok();

    set(&alice, &format!("/v1/containers/{BB}"), json!({ "readOnly": true })).await.ok();
    for answer in [
        put(&alice, BB, "v1", MANIFEST, &other).await,
        put(&alice, BB, "new", MANIFEST, &other).await,
        alice.delete(&manifest_at(BB, "v1")).await,
        alice.delete(&manifest_at(BB, &digest(kept.as_bytes()))).await,
        alice.delete(&crate::support::blob_at(BB, &digest(b"one"))).await,
        alice.post(&format!("/v2/{BB}/blobs/uploads/"), Value::Null).await,
    ] {
        assert!(refused(&answer, 403, "DENIED").contains("read-only"));
    }
    assert_eq!(manifest(&alice, BB, "v1").await, kept);
    set(&alice, &format!("/v1/containers/{BB}"), json!({ "readOnly": false })).await.ok();
    is(&put(&alice, BB, "v1", MANIFEST, &other).await, 201);
}

#[tokio::test]
async fn a_manifest_may_name_more_than_a_transaction_holds() {
    let (server, alice) = start().await;
    let layers: Vec<Vec<u8>> = (0..120u32).map(|number| number.to_be_bytes().to_vec()).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let wide = push(&alice, BB, "wide", b"config", &layers).await;
    let other = push(&alice, BB, "other", b"config", &layers[90..110]).await;
    let list = index(&[&wide]).to_string();
    is(&put(&alice, BB, "list", INDEX, &list).await, 201);
    // The same once more changes nothing.
    is(&put(&alice, BB, "wide", MANIFEST, &wide).await, 201);
    backlinks::agree(&server.local.app.table).await;
    // What a manifest names stays, whichever way that is written down.
    for layer in [layers[0], layers[100], layers[119]] {
        refused(&alice.delete(&blob_at(BB, &digest(layer))).await, 403, "DENIED");
    }
    // Frozen tags protect it, too.
    set(&alice, &format!("/v1/images/{BB}:list"), json!({ "frozen": true })).await.ok();
    refused(&alice.delete(&manifest_at(BB, &digest(wide.as_bytes()))).await, 403, "DENIED");
    set(&alice, &format!("/v1/images/{BB}:list"), json!({ "frozen": false })).await.ok();
    is(&alice.delete(&manifest_at(BB, &digest(wide.as_bytes()))).await, 202);
    backlinks::agree(&server.local.app.table).await;
    for (number, layer) in layers.iter().enumerate() {
        let status = head(&alice, &blob_at(BB, &digest(layer))).await.status.as_u16();
        assert_eq!(status, if (90..110).contains(&number) { 200 } else { 404 }, "{number}");
    }
    is(&alice.delete(&manifest_at(BB, &digest(other.as_bytes()))).await, 202);
    server.sweep_all().await;
}
