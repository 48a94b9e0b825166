//! The recorded traces of real clients, request by request, with their literal bodies.

use crate::support::{EXACTLY, MADE, hash, len, opened_parts, put_part, shout, sif, sif_of, step, tag, text};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Digest;
use stackroom_tests::functions::only_on_our_stores;
use stackroom_tests::sif::SifBuilder;
use stackroom_tests::{Caller, Server, is_id, send};

const SIGNER: &str = "D0C9D4A5706CDBC8AC0AEDC5BFC8644CE3D3E9D7";
const ENTITY: &str = r#"{"deleted":false,"createdBy":"","createdAt":"0001-01-01T00:00:00Z","updatedAt":"0001-01-01T00:00:00Z","deletedAt":"0001-01-01T00:00:00Z","id":"","name":"acme","description":"No description","collections":null,"size":0,"quota":0,"defaultPrivate":false,"customData":""}"#;
const COLLECTION: &str = r#"{"deleted":false,"createdBy":"","createdAt":"0001-01-01T00:00:00Z","updatedAt":"0001-01-01T00:00:00Z","deletedAt":"0001-01-01T00:00:00Z","id":"","name":"tools","description":"No description","entity":"{{E}}","containers":null,"size":0,"private":false,"customData":""}"#;
const CONTAINER: &str = r#"{"deleted":false,"createdBy":"","createdAt":"0001-01-01T00:00:00Z","updatedAt":"0001-01-01T00:00:00Z","deletedAt":"0001-01-01T00:00:00Z","id":"","name":"{{NAME}}","description":"No description","fullDescription":"","collection":"{{C}}","images":null,"imageTags":null,"archTags":null,"size":0,"downloadCount":0,"stars":0,"private":false,"readOnly":false,"customData":""}"#;
const IMAGE: &str = r#"{"deleted":false,"createdBy":"","createdAt":"0001-01-01T00:00:00Z","updatedAt":"0001-01-01T00:00:00Z","deletedAt":"0001-01-01T00:00:00Z","id":"","hash":"{{HASH}}","description":"a description","container":"{{N}}","size":0,"uploaded":false,"customData":"","containerStars":0,"containerDownloads":0}"#;

fn small() -> Vec<u8> {
    SifBuilder::new("amd64").signature(SIGNER).payload_len(750_000).build()
}

fn filled(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

fn get(who: &Caller, path: &str) -> reqwest::RequestBuilder {
    who.request(Method::GET, path)
}

fn post(who: &Caller, path: &str) -> reqwest::RequestBuilder {
    who.request(Method::POST, path)
}

fn put(who: &Caller, path: &str) -> reqwest::RequestBuilder {
    who.request(Method::PUT, path)
}

/// T1, steps 1 to 9: what a push of `bytes` into a new container does before it uploads. Returns the ids of container
/// and image.
async fn t1_until_the_upload(admin: &Caller, name: &str, bytes: &[u8], first: bool) -> (String, String) {
    let redirect = format!("/v1/oci-redirect?accessTypes=pull%2Cpush&mapped=1&namespace=acme%2Ftools%2F{name}");
    step(get(admin, &redirect), "", &[404]).await;
    let found = if first { 404 } else { 200 };
    let mut entity = step(get(admin, "/v1/entities/acme"), "", &[found]).await.json;
    if first {
        entity = step(post(admin, "/v1/entities"), ENTITY, MADE).await.json;
        assert_eq!(entity["data"]["name"], "acme");
    }
    let entity = text(&entity, "/data/id");
    let mut collection = step(get(admin, "/v1/collections/acme/tools"), "", &[found]).await.json;
    if first {
        collection = step(post(admin, "/v1/collections"), &filled(COLLECTION, &[("E", &entity)]), MADE).await.json;
    }
    let collection = text(&collection, "/data/id");
    step(get(admin, &format!("/v1/containers/acme/tools/{name}")), "", &[404]).await;
    let body = filled(CONTAINER, &[("C", &collection), ("NAME", name)]);
    let container = text(&step(post(admin, "/v1/containers"), &body, MADE).await.json, "/data/id");
    let hash = hash(bytes);
    step(get(admin, &format!("/v1/images/acme/tools/{name}:{hash}?arch=amd64")), "", &[404]).await;
    let body = filled(IMAGE, &[("N", &container), ("HASH", &hash)]);
    let image = step(post(admin, "/v1/images"), &body, MADE).await.json;
    assert_eq!(image["data"]["uploaded"], json!(false));
    assert_eq!(image["data"]["hash"], json!(hash));
    let image = text(&image, "/data/id");
    for id in [&entity, &collection, &container, &image] {
        assert!(is_id(id), "{id}");
    }
    (container, image)
}

async fn version(who: &Caller) {
    let version = step(get(who, "/version"), "", EXACTLY).await.json;
    assert_eq!(version["data"]["apiVersion"], "2.0.0-alpha.2");
}

/// T1, steps 10 to 16.
async fn t1_upload_and_tag(admin: &Caller, container: &str, image: &str, bytes: &[u8]) {
    let hex = Digest::of(bytes).hex();
    version(admin).await;
    let body =
        format!(r#"{{"filesize":{},"md5sum":"8638d37e503d5bf188ffe93d21150c55","sha256sum":"{hex}"}}"#, bytes.len());
    let url = text(&step(post(admin, &format!("/v2/imagefile/{image}")), &body, MADE).await.json, "/data/uploadURL");
    assert!(url.contains("x-amz-content-sha256"), "{url}");
    let sent = admin
        .bare(Method::PUT, &url)
        .header("user-agent", "Go-http-client/1.1")
        .header("content-type", "application/octet-stream")
        .header("accept-encoding", "gzip")
        .header("x-amz-content-sha256", &hex);
    assert_eq!(send(sent.body(bytes.to_vec())).await.status, 200);
    let done = step(put(admin, &format!("/v2/imagefile/{image}/_complete")), "{}", EXACTLY).await.json;
    let quota = json!({ "quotaTotal": 0, "quotaUsage": bytes.len() });
    assert_eq!(done, json!({ "data": { "quota": quota, "containerUrl": "library/acme/tools/bb" } }));
    version(admin).await;
    let tags = step(get(admin, &format!("/v2/tags/{container}")), "", EXACTLY).await.json;
    assert_eq!(tags, json!({ "data": {} }));
    let body = format!(r#"{{"Arch":"amd64","Tag":"latest","ImageID":"{image}"}}"#);
    step(post(admin, &format!("/v2/tags/{container}")), &body, EXACTLY).await;
}

#[tokio::test]
async fn t0_a_client_finds_the_services_and_logs_in() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let config = step(get(&server.nobody, "/assets/config/config.prod.json"), "", EXACTLY).await.json;
    assert!(config.as_object().unwrap().values().all(Value::is_object), "{config}");
    for service in ["libraryAPI", "keystoreAPI", "tokenAPI"] {
        let uri = text(&config, &format!("/{service}/uri"));
        assert!(!uri.is_empty() && !uri.ends_with('/'), "{uri}");
        let version = step(get(&server.nobody, &format!("{uri}/version")), "", EXACTLY).await.json;
        assert!(!text(&version, "/data/version").is_empty());
        assert_eq!(version["data"]["apiVersion"], "2.0.0-alpha.2");
    }
    step(get(&alice, "/v1/token-status"), "", EXACTLY).await;
    let wrong = Caller::new(&server.url, Some("x".repeat(250)));
    step(get(&wrong, "/v1/token-status"), "", &[404]).await;
    let user = step(get(&alice, "/v1/rbac/users/current"), "", EXACTLY).await.json;
    assert_eq!(user["username"], "alice");
    assert_eq!(user["oidc_user_meta"]["secret"], json!(alice.token));
    assert!(user["email"].is_string() && user["realname"].is_string(), "{user}");
    let empty = server.nobody.bare(Method::GET, "/v1/rbac/users/current").header("authorization", "Bearer ");
    step(empty, "", &[401]).await;
    let token = alice.token.unwrap();
    assert!((200..=4096).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()));
}

#[tokio::test]
async fn t1_t2_p1_p5_p7_an_image_is_pushed_pushed_again_and_pulled() {
    if only_on_our_stores("its URLs take one digest only") {
        return;
    }
    let server = Server::start().await;
    let (admin, nobody, bytes) = (&server.admin, &server.nobody, small());
    let (hash, hex) = (hash(&bytes), Digest::of(&bytes).hex());

    // T1
    let (container, id) = t1_until_the_upload(admin, "bb", &bytes, true).await;
    t1_upload_and_tag(admin, &container, &id, &bytes).await;
    let image = step(get(nobody, "/v1/images/acme/tools/bb:latest?arch=amd64"), "", EXACTLY).await.json;
    for (field, value) in [
        ("hash", json!(hash)),
        ("size", json!(bytes.len())),
        ("uploaded", json!(true)),
        ("arch", json!("amd64")),
        ("signed", json!(true)),
        ("fingerprints", json!([SIGNER])),
        ("description", json!("a description")),
    ] {
        assert_eq!(image["data"][field], value, "{field}");
    }

    // T2: the same bytes again, with tags `v1,latest`.
    for path in ["/v1/entities/acme", "/v1/collections/acme/tools", "/v1/containers/acme/tools/bb"] {
        step(get(admin, path), "", EXACTLY).await;
    }
    let by_hash = format!("/v1/images/acme/tools/bb:{hash}?arch=amd64");
    let again = step(get(admin, &by_hash), "", EXACTLY).await.json;
    assert_eq!((&again["data"]["id"], &again["data"]["uploaded"]), (&json!(id), &json!(true)));
    let tags = step(get(admin, &format!("/v2/tags/{container}")), "", EXACTLY).await.json;
    assert_eq!(tags, json!({ "data": { "amd64": { "latest": id } } }));
    for tag in ["v1", "latest"] {
        let body = format!(r#"{{"Arch":"amd64","Tag":"{tag}","ImageID":"{id}"}}"#);
        step(post(admin, &format!("/v2/tags/{container}")), &body, EXACTLY).await;
    }

    // P1: looked up, redirected, looked up again, downloaded in ranges.
    step(get(nobody, "/v1/images/acme/tools/bb:latest?arch=amd64"), "", EXACTLY).await;
    let redirect = "/v1/oci-redirect?accessTypes=pull&mapped=1&namespace=acme%2Ftools%2Fbb";
    step(get(nobody, redirect), "", &[404]).await;
    version(nobody).await;
    let pointed = step(get(nobody, "/v1/imagefile/acme/tools/bb:latest?arch=amd64"), "", &[303]).await;
    let location = pointed.header("location").unwrap().to_owned();
    assert!(location.starts_with("http://") && pointed.bytes.is_empty());
    let mut whole = Vec::new();
    for start in (0..bytes.len()).step_by(300_000) {
        let end = (start + 300_000).min(bytes.len()) - 1;
        let range = nobody.bare(Method::GET, &location).header("range", format!("bytes={start}-{end}"));
        let part = send(range).await;
        assert_eq!(part.status, 206);
        assert_eq!(part.header("content-range").unwrap(), format!("bytes {start}-{end}/{}", bytes.len()));
        assert_eq!(part.header("content-length").unwrap(), (end - start + 1).to_string());
        whole.extend(part.bytes);
    }
    assert_eq!(Digest::of(&whole).hex(), hex);

    // P5: by hash, whatever the architecture of the client.
    for arch in ["amd64", "arm64"] {
        let image = step(get(nobody, &format!("/v1/images/acme/tools/bb:{hash}?arch={arch}")), "", EXACTLY).await;
        assert_eq!(image.json["data"]["hash"], json!(hash));
        step(get(nobody, &format!("/v1/imagefile/acme/tools/bb:{hash}?arch={arch}")), "", &[303]).await;
    }
}

#[tokio::test]
async fn t3_a_large_image_is_pushed_in_parts() {
    let server = Server::start().await;
    let admin = &server.admin;
    let bytes = sif_of(3, 84_674_078);
    let (container, id) = t1_until_the_upload(admin, "big", &bytes, true).await;
    let multipart = format!("/v2/imagefile/{id}/_multipart");
    let made = step(post(admin, &multipart), r#"{"filesize":84674078}"#, MADE).await.json;
    let (upload, part_size) = (text(&made, "/data/uploadID"), made["data"]["partSize"].as_u64().unwrap());
    assert_eq!(made["data"]["totalParts"], json!(84_674_078_u64.div_ceil(part_size)));
    assert!(part_size >= 5_242_880);
    assert!(made["data"]["options"].as_object().unwrap().values().all(Value::is_string));
    let mut named = Vec::new();
    for (part, number) in bytes.chunks(usize::try_from(part_size).unwrap()).zip(1..) {
        let (length, hex) = (part.len(), Digest::of(part).hex());
        let body =
            format!(r#"{{"partSize":{length},"uploadID":"{upload}","partNumber":{number},"sha256sum":"{hex}"}}"#);
        let url = text(&step(put(admin, &multipart), &body, EXACTLY).await.json, "/data/presignedURL");
        let sent = put_part(admin, &url, part).await;
        assert_eq!(sent.status, 200);
        let etag = sent.header("etag").unwrap();
        assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
        named.push(format!(r#"{{"partNumber":{number},"token":"{}"}}"#, etag.replace('"', "\\\"")));
    }
    let body = format!(r#"{{"uploadID":"{upload}","completedParts":[{}]}}"#, named.join(","));
    let done = step(put(admin, &format!("/v2/imagefile/{id}/_multipart_complete")), &body, EXACTLY).await.json;
    assert_eq!(done["data"]["quota"]["quotaUsage"], json!(84_674_078));
    assert_eq!(done["data"]["containerUrl"], "library/acme/tools/big");
    version(admin).await;
    step(get(admin, &format!("/v2/tags/{container}")), "", EXACTLY).await;
    let body = format!(r#"{{"Arch":"amd64","Tag":"latest","ImageID":"{id}"}}"#);
    step(post(admin, &format!("/v2/tags/{container}")), &body, EXACTLY).await;
    let pulled = server.nobody.pull("acme/tools/big:latest?arch=amd64").await;
    assert!(pulled.bytes == bytes, "{} bytes", pulled.bytes.len());
}

#[tokio::test]
async fn t3a_a_large_image_can_also_be_brought_in_one_piece() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif_of(3, (64 << 20) + 32_768);
    alice.push("alice/tools/big", "latest", "amd64", &bytes).await.ok();
    assert_eq!(server.quota("alice").await, (len(&bytes), 0));
}

#[tokio::test]
async fn t3b_parts_without_a_hash_are_taken() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    let parts = opened_parts(&alice, "alice/tools/bb", &bytes).await;
    let path = format!("/v2/imagefile/{}/_multipart", parts.push.image);
    let body = format!(r#"{{"partSize":{},"uploadID":"{}","partNumber":1,"sha256sum":""}}"#, bytes.len(), parts.id);
    let url = text(&step(put(&alice, &path), &body, EXACTLY).await.json, "/data/presignedURL");
    assert!(!url.contains("x-amz-content-sha256"), "{url}");
    let sent = send(alice.bare(Method::PUT, &url).body(bytes.clone())).await;
    assert_eq!(sent.status, 200);
    // Clients keep the quotes of the `ETag`; without them it is the same.
    let etag = sent.header("etag").unwrap().trim_matches('"');
    parts.complete(&alice, &[(1, etag)]).await.ok();
    assert_eq!(server.nobody.pull(&format!("alice/tools/bb:{}", hash(&bytes))).await.bytes, bytes);
}

#[tokio::test]
async fn t3c_after_a_part_failed_nothing_can_be_tagged_and_the_next_push_succeeds() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    let parts = opened_parts(&alice, "alice/tools/bb", &bytes).await;
    let url = text(&parts.ask(&alice, 1, &bytes).await.ok(), "/data/presignedURL");
    assert_eq!(put_part(&alice, &url, b"other bytes").await.status, 403);
    assert!([200, 204].contains(&parts.abort(&alice).await.status.as_u16()));
    // Clients of 3.5.3 to 3.6.3 take the abort for success, and continue.
    step(get(&alice, &format!("/v2/tags/{}", parts.push.container)), "", EXACTLY).await;
    tag(&alice, &parts.push, "latest").await.error(409);

    let again = format!("/v1/images/alice/tools/bb:{}?arch=amd64", hash(&bytes));
    let again = step(get(&alice, &again), "", EXACTLY).await.json;
    assert_eq!((&again["data"]["id"], &again["data"]["uploaded"]), (&json!(parts.push.image), &json!(false)));
    let next = opened_parts(&alice, "alice/tools/bb", &bytes).await;
    assert_ne!(next.id, parts.id);
    let etags = next.send_all(&alice, &bytes).await;
    next.complete_all(&alice, &etags).await.ok();
    tag(&alice, &next.push, "latest").await.ok();
    assert_eq!(server.quota("alice").await, (len(&bytes), 0));
}

#[tokio::test]
async fn t4_a_client_of_singularity_3_3_pushes_without_architecture_and_hash() {
    let server = Server::start().await;
    let admin = &server.admin;
    let bytes = small();
    let shouted = |method: Method, path: &str| shout(admin, method, path);
    step(shouted(Method::GET, "/v1/entities/acme"), "", &[404]).await;
    let entity = text(&step(shouted(Method::POST, "/v1/entities"), ENTITY, MADE).await.json, "/data/id");
    let body = filled(COLLECTION, &[("E", &entity)]);
    let collection = text(&step(shouted(Method::POST, "/v1/collections"), &body, MADE).await.json, "/data/id");
    let body = filled(CONTAINER, &[("C", &collection), ("NAME", "bb")]).replace(r#""archTags":null,"#, "");
    let container = text(&step(shouted(Method::POST, "/v1/containers"), &body, MADE).await.json, "/data/id");
    let by_hash = format!("/v1/images/acme/tools/bb:{}", hash(&bytes));
    step(shouted(Method::GET, &by_hash), "", &[404]).await;
    let body = filled(IMAGE, &[("N", &container), ("HASH", &hash(&bytes))]);
    let id = text(&step(shouted(Method::POST, "/v1/images"), &body, MADE).await.json, "/data/id");
    step(shouted(Method::GET, "/version"), "", EXACTLY).await;
    let body = format!(r#"{{"filesize":{},"md5sum":"8638d37e503d5bf188ffe93d21150c55"}}"#, bytes.len());
    let opened = step(shouted(Method::POST, &format!("/v2/imagefile/{id}")), &body, MADE).await.json;
    let url = text(&opened, "/data/uploadURL");
    assert!(!url.contains("x-amz-content-sha256"), "{url}");
    let sent = admin.bare(Method::PUT, &url).header("content-type", "application/octet-stream");
    assert_eq!(send(sent.body(bytes.clone())).await.status, 200);
    step(shouted(Method::PUT, &format!("/v2/imagefile/{id}/_complete")), "{}", EXACTLY).await;
    let tags = step(shouted(Method::GET, &format!("/v1/tags/{container}")), "", EXACTLY).await.json;
    assert_eq!(tags, json!({ "data": {} }));

    // Without a tag on its command line the client sets none, and still expects to find `latest`.
    let latest = step(shouted(Method::GET, "/v1/images/acme/tools/bb:latest"), "", EXACTLY).await.json;
    assert_eq!(latest["data"]["id"], json!(id));

    let body = format!(r#"{{"Tag":"latest","ImageID":"{id}"}}"#);
    step(shouted(Method::POST, &format!("/v1/tags/{container}")), &body, EXACTLY).await;
    let found = step(get(&server.nobody, "/v1/images/acme/tools/bb:latest?arch=amd64"), "", EXACTLY).await.json;
    assert_eq!(found["data"]["id"], json!(id));
    step(get(&server.nobody, "/v1/images/acme/tools/bb:latest?arch=arm64"), "", &[404]).await;
}

#[tokio::test]
async fn t5_no_client_is_led_to_upload_through_us_and_who_tries_is_told() {
    let server = Server::start().await;
    version(&server.nobody).await;
    let said = send(server.admin.request(Method::POST, "/v1/imagefile/0123456789abcdef01234567").body(sif(1))).await;
    assert!(said.error(413).contains("v2 upload"));
}

#[tokio::test]
async fn t6_a_push_that_is_refused_says_why() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice", 0).await, server.user("bob", 10_000).await);
    let said = step(post(&alice, "/v1/entities"), ENTITY, &[403]).await.error(403);
    assert_eq!(said, "not permitted to create entity acme");
    let wrong = Caller::new(&server.url, Some("x".repeat(250)));
    let said = step(get(&wrong, "/v1/entities/acme"), "", &[401]).await.error(401);
    assert!(said.contains("log in again"), "{said}");

    let bytes = sif(1);
    let container = bob.container("bob/tools/bb").await;
    let id = text(&bob.image(&container, &bytes).await, "/id");
    assert_eq!(bob.open(&id, &bytes).await.error(507), "Upload would exceed quota");
    let body = json!({ "filesize": bytes.len() });
    let parts = bob.post(&format!("/v2/imagefile/{id}/_multipart"), body).await;
    assert_eq!(parts.error(507), "Upload would exceed quota");

    alice.push("alice/tools/bb", "latest", "amd64", &bytes).await.ok();
    let container = alice.container("alice/tools/bb").await;
    let id = text(&alice.image(&container, &bytes).await, "/id");
    for bad in ["v1+x", "a b", "", "-x", &hash(b"x"), "sif.01234567-0123-0123-0123-0123456789ab", "ä"] {
        let body = json!({ "Arch": "amd64", "Tag": bad, "ImageID": id });
        let said = alice.post(&format!("/v2/tags/{container}"), body).await.error(400);
        assert!(said.contains("tag name"), "{said}");
    }
    for good in ["V1", "1.0-rc.1", "_x", "RELEASE_2024.01"] {
        let body = json!({ "Arch": "amd64", "Tag": good, "ImageID": id });
        assert_eq!(alice.post(&format!("/v2/tags/{container}"), body).await.status, 200);
    }
    let body = json!({ "Arch": "arm64", "Tag": "v2", "ImageID": id });
    assert!(alice.post(&format!("/v2/tags/{container}"), body).await.error(400).contains("amd64"));
}

#[tokio::test]
async fn p2_p3_clients_that_send_their_token_along_come_to_the_bytes_over_our_own_host() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    alice.push("alice/tools/bb", "latest", "amd64", &bytes).await.ok();
    let path = "/v1/imagefile/alice/tools/bb:latest?arch=amd64";
    let pointed = step(shout(&alice, Method::GET, path), "", &[303]).await;
    let hop = pointed.header("location").unwrap();
    assert!(hop.starts_with(&format!("{}/", server.url)), "{hop}");
    // Repeatedly, with a valid token, a bad one or none, in ranges or whole.
    let last = bytes.len() - 1;
    for (token, range) in [
        (None, None),
        (Some(format!("BEARER {}", alice.token.as_deref().unwrap())), Some("bytes=0-1024".to_owned())),
        (Some("BEARER nonsense".to_owned()), Some(format!("bytes=1025-{last}"))),
    ] {
        let mut request = server.nobody.bare(Method::GET, hop);
        if let Some(token) = &token {
            request = request.header("authorization", token);
        }
        let hopped = step(request, "", &[307]).await;
        let mut request = server.nobody.bare(Method::GET, hopped.header("location").unwrap());
        if let Some(token) = &token {
            // The object host is ours too, so clients send their token there as well.
            request = request.header("authorization", token);
        }
        let Some(range) = range else {
            assert_eq!(step(request, "", EXACTLY).await.bytes, bytes);
            continue;
        };
        let part = step(request.header("range", &range), "", &[206]).await;
        let expected = format!("{}/{}", range.replace('=', " "), bytes.len());
        assert_eq!(part.header("content-range").unwrap(), expected);
    }
    for bad in ["/v1/hop?to=nonsense".to_owned(), format!("/v1/hop?to={}", alice.token.as_deref().unwrap())] {
        step(get(&server.nobody, &bad), "", &[404]).await;
    }
    step(get(&server.nobody, "/v1/hop"), "", &[400]).await;

    // A client that does not write `BEARER`, or has no token, is redirected straight to the object.
    for caller in [&alice, &server.nobody] {
        let pointed = step(get(caller, path), "", &[303]).await;
        assert!(pointed.header("location").unwrap().contains("X-Amz-Signature"));
    }
}

#[tokio::test]
async fn p4_paths_with_two_slashes_are_those_with_one() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    alice.push("alice/tools/bb", "latest", "amd64", &bytes).await.ok();
    let image = step(get(&alice, "/v1/images//alice/tools/bb:latest?arch=amd64"), "", EXACTLY).await.json;
    assert_eq!(image["data"]["hash"], json!(hash(&bytes)));
    let referred = shout(&alice, Method::GET, "/v1/imagefile//alice/tools/bb:latest?arch=amd64");
    let referred = referred.header("referer", format!("{}/v1/images", server.url));
    step(referred, "", &[303]).await;
    // 0.2.2 sends no architecture.
    step(get(&alice, "/v1/imagefile/alice/tools/bb:latest"), "", &[303]).await;
}

#[tokio::test]
async fn p6_what_can_not_be_pulled_is_not_found_or_needs_a_good_token() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    alice.push("alice/tools/bb", "latest", "amd64", &sif(1)).await.ok();
    let wrong = Caller::new(&server.url, Some("x".repeat(250)));
    for kind in ["images", "imagefile"] {
        for missing in ["alice/tools/bb:latest?arch=arm64", "alice/tools/bb:v9", "alice/tools/cc:latest", "no/where/x"]
        {
            step(get(&server.nobody, &format!("/v1/{kind}/{missing}")), "", &[404]).await.error(404);
        }
        for unthinkable in ["A/b/c:latest", "a/b/c/d:latest", "alice/tools/bb:x:y", "alice/tools/bb:%FF", "%00/x/y"] {
            let answer = server.nobody.get(&format!("/v1/{kind}/{unthinkable}")).await;
            assert!([400, 404].contains(&answer.status.as_u16()), "{unthinkable}: {}", answer.status);
        }
        step(get(&wrong, &format!("/v1/{kind}/alice/tools/bb:latest?arch=amd64")), "", &[401]).await.error(401);
    }
}

#[tokio::test]
async fn s1_images_are_found_by_what_is_said_of_them() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let bytes = SifBuilder::new("amd64").signature(SIGNER).build();
    alice.push("alice/tools/bbx", "latest", "amd64", &bytes).await.ok();
    server.followed().await;
    let found = step(get(&alice, "/v1/search?arch=amd64&value=bbx"), "", EXACTLY).await.json;
    let image = &found["data"]["image"][0];
    for (field, value) in [
        ("entityName", json!("alice")),
        ("collectionName", json!("tools")),
        ("containerName", json!("bbx")),
        ("tags", json!(["latest"])),
        ("hash", json!(hash(&bytes))),
        ("description", json!("")),
        ("fingerprints", json!([SIGNER])),
    ] {
        assert_eq!(image[field], value, "{field}");
    }
    let signed = step(get(&alice, "/v1/search?arch=amd64&signed=true&value=bbx"), "", EXACTLY).await.json;
    assert_eq!(signed["data"]["image"].as_array().unwrap().len(), 1);
    let legacy = step(get(&alice, "/v1/search?value=bbx"), "", EXACTLY).await.json;
    let container = &legacy["data"]["container"][0];
    assert_eq!((&container["entityName"], &container["collectionName"]), (&json!("alice"), &json!("tools")));
    assert_eq!(container["imageTags"], json!({ "latest": image["id"] }));
    let nothing = step(get(&alice, "/v1/search?value=nothing-at-all"), "", EXACTLY).await.json;
    assert_eq!(nothing["data"], json!({ "entity": [], "collection": [], "container": [], "image": [] }));
}

#[tokio::test]
async fn d1_an_image_is_deleted_once() {
    let server = Server::start().await;
    let alice = server.user("alice", 0).await;
    let delete = |path: &str| alice.request(Method::DELETE, path);
    let path = "/v1/images/alice/tools/bb:latest?arch=amd64";
    alice.push("alice/tools/bb", "latest", "amd64", &sif(1)).await.ok();
    step(server.nobody.request(Method::DELETE, path), "", &[401]).await.error(401);
    step(delete(path), "", EXACTLY).await;
    step(delete(path), "", &[404]).await;
    // As 3.6.0 to 3.7.0 write it.
    alice.push("alice/tools/bb", "latest", "amd64", &sif(1)).await.ok();
    step(delete("/v1/images/alice/tools/bb:latest?arch%3Darm64"), "", &[404]).await;
    step(delete("/v1/images/alice/tools/bb:latest?arch%3Damd64"), "", EXACTLY).await;
    step(delete(path), "", &[404]).await;
}

#[tokio::test]
async fn b1_odd_spellings_are_understood() {
    let server = Server::start_with(&[("STACKROOM_DEFAULT_ENTITY", "alice")]).await;
    let alice = server.user("alice", 0).await;
    alice.push("alice/tools/bb", "latest", "amd64", &sif(1)).await.ok();
    let plain = alice.get("/v1/images/alice/tools/bb:latest?arch=amd64").await.ok();
    for path in ["/v1/images//alice/tools/bb:latest?arch=amd64", "/v1/images/alice/tools/bb%3Alatest?arch=amd64"] {
        assert_eq!(alice.get(path).await.ok(), plain, "{path}");
    }
    // An empty entity is the default entity.
    let tools = alice.get("/v1/collections//tools").await.ok();
    assert_eq!(tools["data"]["entityName"], "alice");
    assert_eq!(alice.get("/v1/entities/").await.ok()["data"]["name"], "alice");
    assert_eq!(alice.get("/v1/containers//tools/bb").await.ok()["data"]["entityName"], "alice");
    let token = alice.token.as_deref().unwrap();
    for scheme in ["Bearer", "BEARER", "bearer", "bEaReR"] {
        let request = server.nobody.bare(Method::GET, "/v1/entities/alice");
        step(request.header("authorization", format!("{scheme} {token}")), "", EXACTLY).await;
    }
    let empty = server.nobody.bare(Method::GET, "/v1/entities/alice").header("authorization", "Bearer");
    step(empty, "", &[404]).await;
    for kind in [None, Some("application/json"), Some("text/plain")] {
        let mut request = alice.request(Method::POST, "/v1/entities");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        step(request, r#"{"name":"alice","unknown":[1.5,{}],"collections":null}"#, MADE).await;
    }
}
