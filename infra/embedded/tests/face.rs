//! The endpoint of presigned requests. The signatures come from AWS's own signer.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::too_many_lines,
    reason = "a test stops at the first surprise"
)]

mod common;

use aws_credential_types::Credentials;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use common::{BUCKET, KEY_ID, MIB, SECRET, Store, bytes, hex, store};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};

const HOST: &str = "lab.example:8080";

/// What is signed; each test changes the fields that it is about.
struct Presign<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    payload: SignableBody<'a>,
    time: SystemTime,
    expires: Duration,
    key_id: &'a str,
    secret: &'a str,
    region: &'a str,
    service: &'a str,
}

fn presign<'a>(method: &'a str, path: &'a str) -> Presign<'a> {
    Presign {
        method,
        path,
        headers: vec![("host", HOST)],
        payload: SignableBody::UnsignedPayload,
        time: SystemTime::now(),
        expires: Duration::from_mins(10),
        key_id: KEY_ID,
        secret: SECRET,
        region: "local",
        service: "s3",
    }
}

impl Presign<'_> {
    fn sign(&self) -> String {
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(self.expires);
        let identity = Credentials::new(self.key_id, self.secret, None, None, "test").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.time)
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let uri = format!("http://{HOST}{}", self.path);
        let headers = self.headers.iter().copied();
        let request = SignableRequest::new(self.method, &uri, headers, self.payload.clone()).unwrap();
        let (instructions, _) = sign(request, &params).unwrap().into_parts();
        let mut request = Request::builder().uri(&uri).body(()).unwrap();
        instructions.apply_to_request_http1x(&mut request);
        request.uri().path_and_query().unwrap().to_string()
    }
}

fn request(method: &str, uri: &str, body: &[u8]) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(uri).header("host", HOST);
    let request = if method == "PUT" { request.header("content-length", body.len()) } else { request };
    request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()
}

fn with(mut request: Request<Full<Bytes>>, name: &'static str, value: &str) -> Request<Full<Bytes>> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn sha256(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

async fn text(response: Response<embedded::objects::Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// Sends a request, and expects a refusal that stores nothing.
async fn refused(store: &Store, request: Request<Full<Bytes>>, status: u16, code: &str) {
    let (got, body) = text(store.objects.face().call(request).await).await;
    assert_eq!(got, status, "{body}");
    assert!(body.contains(&format!("<Code>{code}</Code>")), "{body}");
    let listed = store.s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert!(listed.contents().is_empty());
    assert_eq!(store.files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presigned_put_and_get_work() {
    let store = store();
    let face = store.objects.face();
    for key in ["a/b", "a%20b/c%2Bd%25", "%C3%BC~_-.x", "a//b/../c"] {
        let path = format!("/objects/{key}");
        let put = presign("PUT", &path).sign();
        // Clients send their token to the same host.
        let put = with(request("PUT", &put, b"hello"), "authorization", "Bearer token");
        assert_eq!(face.call(put).await.status(), 200, "{key}");
        let get = presign("GET", &path).sign();
        let response = face.call(request("GET", &get, b"")).await;
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(text(response).await, (200, "hello".to_owned()));
    }
    let keys = store.s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    let keys: Vec<_> = keys.contents().iter().filter_map(|object| object.key()).collect();
    assert_eq!(keys, ["a b/c+d%", "a//b/../c", "a/b", "ü~_-.x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sdk_presigns_works() {
    let store = store();
    let face = store.objects.face();
    let config = || PresigningConfig::expires_in(Duration::from_mins(1)).unwrap();
    let put = store.s3.put_object().bucket(BUCKET).key("a b+c").presigned(config()).await.unwrap();
    assert!(put.uri().contains("x-id=PutObject"), "{}", put.uri());
    assert_eq!(face.call(request("PUT", put.uri(), b"hello")).await.status(), 200);
    let get = store
        .s3
        .get_object()
        .bucket(BUCKET)
        .key("a b+c")
        .response_content_disposition("attachment; filename=\"x y.sif\"")
        .presigned(config())
        .await
        .unwrap();
    let response = face.call(with(request("GET", get.uri(), b""), "range", "bytes=1-3")).await;
    assert_eq!(response.headers()["content-range"], "bytes 1-3/5");
    assert_eq!(response.headers()["content-disposition"], "attachment; filename=\"x y.sif\"");
    assert_eq!(text(response).await, (206, "ell".to_owned()));
    let head = store.s3.head_object().bucket(BUCKET).key("a b+c").presigned(config()).await.unwrap();
    let response = face.call(request("HEAD", head.uri(), b"")).await;
    assert_eq!(response.headers()["content-length"], "5");
    assert_eq!(text(response).await, (200, String::new()));

    let upload = store.s3.create_multipart_upload().bucket(BUCKET).key("m").send().await.unwrap();
    let part = store.s3.upload_part().bucket(BUCKET).key("m").part_number(1);
    let part = part.upload_id(upload.upload_id().unwrap()).presigned(config()).await.unwrap();
    let response = face.call(request("PUT", part.uri(), b"part")).await;
    assert_eq!((response.status().as_u16(), response.headers().contains_key("etag")), (200, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_may_come_from_the_uri() {
    let store = store();
    store.put("k", "hello").await;
    let get = presign("GET", "/objects/k").sign();
    let mut request = request("GET", &format!("http://{HOST}{get}"), b"");
    request.headers_mut().remove("host");
    assert_eq!(store.objects.face().call(request).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_hash_pins_the_body() {
    let store = store();
    let hash = sha256(b"hello");
    let mut put = presign("PUT", "/objects/k");
    put.headers.push(("x-amz-content-sha256", &hash));
    put.payload = SignableBody::Precomputed(hash.clone());
    let put = put.sign();
    assert!(put.contains("host%3Bx-amz-content-sha256"));
    let right = || with(request("PUT", &put, b"hello"), "x-amz-content-sha256", &hash);
    let other = with(request("PUT", &put, b"hellO"), "x-amz-content-sha256", &hash);
    refused(&store, other, 400, "XAmzContentSHA256Mismatch").await;
    let lied = with(request("PUT", &put, b"hellO"), "x-amz-content-sha256", &sha256(b"hellO"));
    refused(&store, lied, 403, "SignatureDoesNotMatch").await;
    refused(&store, request("PUT", &put, b"hello"), 403, "SignatureDoesNotMatch").await;
    let unsigned = with(right(), "x-amz-content-sha256", "UNSIGNED-PAYLOAD");
    refused(&store, unsigned, 403, "SignatureDoesNotMatch").await;
    assert_eq!(store.objects.face().call(right()).await.status(), 200);
    assert_eq!(store.get("k").await.unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_that_was_not_signed_is_compared_with_the_body_too() {
    let store = store();
    let put = presign("PUT", "/objects/k").sign();
    let wrong = with(request("PUT", &put, b"hello"), "x-amz-content-sha256", &sha256(b"other"));
    refused(&store, wrong, 400, "XAmzContentSHA256Mismatch").await;
    let odd = with(request("PUT", &put, b"hello"), "x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    refused(&store, odd, 400, "InvalidArgument").await;
    let right = with(request("PUT", &put, b"hello"), "x-amz-content-sha256", &sha256(b"hello"));
    assert_eq!(store.objects.face().call(right).await.status(), 200);
    // As MinIO expects it: the hash in the signature, but not among the signed headers.
    let mut put = presign("PUT", "/objects/k2");
    put.payload = SignableBody::Precomputed(sha256(b"hello"));
    let right = with(request("PUT", &put.sign(), b"hello"), "x-amz-content-sha256", &sha256(b"hello"));
    assert_eq!(store.objects.face().call(right).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_length_must_be_the_length() {
    let store = store();
    let mut put = presign("PUT", "/objects/k");
    put.headers.push(("content-length", "5"));
    let put = put.sign();
    refused(&store, request("PUT", &put, b"hello!"), 403, "SignatureDoesNotMatch").await;
    assert_eq!(store.objects.face().call(request("PUT", &put, b"hello")).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_altered_is_refused() {
    let store = store();
    let put = presign("PUT", "/objects/k").sign();
    let last = put.chars().last().unwrap();
    let altered = format!("{}{}", &put[..put.len() - 1], if last == '0' { '1' } else { '0' });
    let no = "SignatureDoesNotMatch";
    refused(&store, request("PUT", &altered, b"x"), 403, no).await;
    refused(&store, request("PUT", &put.replace("/objects/k", "/objects/k2"), b"x"), 403, no).await;
    refused(&store, request("PUT", &put.replace("Expires=600", "Expires=6000"), b"x"), 403, no).await;
    refused(&store, request("PUT", &format!("{put}&x-id=PutObject"), b"x"), 403, no).await;
    refused(&store, request("GET", &put, b""), 403, no).await;
    refused(&store, request("DELETE", &put, b""), 403, no).await;
    let host = with(request("PUT", &put, b"x"), "host", "elsewhere");
    refused(&store, host, 403, no).await;
    let mut hostless = request("PUT", &put, b"x");
    hostless.headers_mut().remove("host");
    refused(&store, hostless, 403, no).await;
    let twice = format!("{put}&X-Amz-Expires=600");
    refused(&store, request("PUT", &twice, b"x"), 400, "AuthorizationQueryParametersError").await;
    refused(&store, request("PUT", "/objects/k", b"x"), 403, "AccessDenied").await;
    let broken = request("PUT", &format!("{put}&a=%zz"), b"x");
    refused(&store, broken, 403, "AccessDenied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_not_signed_is_refused() {
    let store = store();
    let put = presign("PUT", "/objects/k").sign();
    let put = put.replace("SignedHeaders=host", "SignedHeaders=range");
    refused(&store, request("PUT", &put, b"x"), 400, "AuthorizationQueryParametersError").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_keys_regions_and_services_are_refused() {
    let store = store();
    let no = "SignatureDoesNotMatch";
    let change: [fn(&mut Presign<'_>); 4] = [
        |put| put.key_id = "AKIAOTHER",
        |put| put.secret = "another secret",
        |put| put.region = "eu-central-1",
        |put| put.service = "dynamodb",
    ];
    for change in change {
        let mut put = presign("PUT", "/objects/k");
        change(&mut put);
        refused(&store, request("PUT", &put.sign(), b"x"), 403, no).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_has_its_time() {
    let store = store();
    let at = |ago: i64, expires: u64| {
        let now = SystemTime::now();
        let time = match u64::try_from(ago) {
            Ok(ago) => now - Duration::from_secs(ago),
            Err(_) => now + Duration::from_secs(ago.unsigned_abs()),
        };
        let put = Presign { time, expires: Duration::from_secs(expires), ..presign("PUT", "/objects/k") };
        request("PUT", &put.sign(), b"x")
    };
    let (status, body) = text(store.objects.face().call(at(62, 60)).await).await;
    assert_eq!(status, 403);
    assert!(body.contains("Request has expired"), "{body}");
    refused(&store, at(-1000, 60), 403, "AccessDenied").await;
    refused(&store, at(0, 8 * 24 * 3600), 400, "AuthorizationQueryParametersError").await;
    assert_eq!(store.objects.face().call(at(-600, 60)).await.status(), 200);
    assert_eq!(store.objects.face().call(at(6 * 24 * 3600, 7 * 24 * 3600)).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_length_is_refused() {
    let store = store();
    let put = presign("PUT", "/objects/k").sign();
    let longer = with(request("PUT", &put, b"hello"), "content-length", "4");
    refused(&store, longer, 400, "InvalidRequest").await;
    let shorter = with(request("PUT", &put, b"hello"), "content-length", "6");
    refused(&store, shorter, 400, "IncompleteBody").await;
    let huge = with(request("PUT", &put, b"hello"), "content-length", "6000000000");
    refused(&store, huge, 400, "EntityTooLarge").await;
    let mut unsaid = request("PUT", &put, b"hello");
    unsaid.headers_mut().remove("content-length");
    refused(&store, unsaid, 411, "MissingContentLength").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_nothing() {
    let store = store();
    let put = presign("PUT", "/objects/k").sign();
    let pieces = || {
        let pieces = (0..8).map(|seed| Ok(http_body::Frame::data(Bytes::from(bytes(MIB / 4, seed)))));
        futures::stream::iter(pieces)
    };
    let builder = || Request::builder().method("PUT").uri(&put).header("host", HOST).header("content-length", 4 * MIB);
    // The connection breaks.
    let broken = futures::stream::once(async { Err(std::io::Error::other("reset")) });
    let body = StreamBody::new(futures::StreamExt::chain(pieces(), broken));
    let response = store.objects.face().call(builder().body(body).unwrap()).await;
    assert_eq!(response.status(), 400);
    assert_eq!(store.files(), Vec::<String>::new());
    // The server abandons the request while it waits for more.
    let silent = futures::stream::pending::<Result<_, std::io::Error>>();
    let body = StreamBody::new(futures::StreamExt::chain(pieces(), silent));
    let face = store.objects.face();
    let call = face.call(builder().body(body).unwrap());
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
    for _ in 0..100 {
        if store.files().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.files(), Vec::<String>::new());
    assert_eq!(store.get("k").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_object_or_part_can_be_reached() {
    let store = store();
    for (method, path) in [
        ("GET", "/objects/?list-type=2"),
        ("GET", "/objects?list-type=2"),
        ("GET", "/other/k"),
        ("GET", "/objects/k?uploadId=1"),
        ("GET", "/objects/k?acl="),
        ("PUT", "/objects/k?tagging="),
        ("PUT", "/objects"),
        ("POST", "/objects/k?uploads="),
        ("POST", "/objects/k?uploadId=1"),
        ("DELETE", "/objects/k"),
        ("DELETE", "/objects/k?uploadId=1"),
    ] {
        let uri = presign(method, path).sign();
        refused(&store, request(method, &uri, b""), 403, "AccessDenied").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_can_not_be_turned_into_a_copy() {
    let store = store();
    let put = presign("PUT", "/objects/k").sign();
    let copy = with(request("PUT", &put, b""), "x-amz-copy-source", "/objects/secret");
    refused(&store, copy, 403, "AccessDenied").await;
    let meta = with(request("PUT", &put, b""), "x-amz-meta-a", "b");
    refused(&store, meta, 403, "AccessDenied").await;
    let mut put = presign("PUT", "/objects/k");
    put.headers.push(("x-amz-copy-source", "/objects/secret"));
    let signed = with(request("PUT", &put.sign(), b""), "x-amz-copy-source", "/objects/secret");
    refused(&store, signed, 403, "AccessDenied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_signed_does_not_describe_an_object() {
    const SAID: [(&str, &str); 5] = [
        ("cache-control", "public"),
        ("content-disposition", "inline"),
        ("content-encoding", "gzip"),
        ("content-language", "en"),
        ("content-type", "text/html"),
    ];
    let store = store();
    let face = store.objects.face();
    for signed in [false, true] {
        let mut put = presign("PUT", "/objects/k");
        put.headers.extend(SAID.iter().filter(|_| signed));
        let put = put.sign();
        let put = SAID.iter().fold(request("PUT", &put, b"hello"), |put, (name, value)| with(put, name, value));
        assert_eq!(face.call(put).await.status(), 200);
        let response = face.call(request("GET", &presign("GET", "/objects/k").sign(), b"")).await;
        for (name, value) in SAID {
            let got = response.headers().get(name).filter(|got| *got == value);
            assert_eq!(got.is_some(), signed, "{name}");
        }
        assert_eq!(text(response).await, (200, "hello".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_objects_and_bad_ranges_get_s3_errors() {
    let store = store();
    let face = store.objects.face();
    let get = presign("GET", "/objects/k").sign();
    refused(&store, request("GET", &get, b""), 404, "NoSuchKey").await;
    let head = presign("HEAD", "/objects/k").sign();
    assert_eq!(text(face.call(request("HEAD", &head, b"")).await).await, (404, String::new()));
    store.put("k", "hello").await;
    let beyond = with(request("GET", &get, b""), "range", "bytes=5-");
    assert_eq!(face.call(beyond).await.status(), 416);
    let part = presign("PUT", "/objects/k?partNumber=1&uploadId=none").sign();
    let (status, body) = text(face.call(request("PUT", &part, b"x")).await).await;
    assert_eq!(status, 404);
    assert!(body.contains("NoSuchUpload"), "{body}");
}
