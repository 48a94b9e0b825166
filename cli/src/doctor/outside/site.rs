//! The deployment that is probed: how it is asked, and the place in it that the probes made for themselves.

use super::sif::{digest, drawn, hex, image, junk};
use anyhow::{Context, bail};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// The media type of a manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The tag of what the probes push.
pub(super) const TAG: &str = "probe";
/// The configuration of the pushed artifacts.
pub(super) const EMPTY: &[u8] = b"{}";

/// An answer, read to the end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Vec<u8>,
}

impl Answer {
    /// A header as text; empty if it is not there.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body, if it is JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// The text at a place in the body.
    pub(super) fn text(&self, pointer: &str) -> String {
        self.json().pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The status, and the reason that the answer gives for it.
    pub(super) fn said(&self) -> String {
        let places = ["/error/message", "/errors/0/message", "/message"];
        let why = places.iter().map(|place| self.text(place)).find(|text| !text.is_empty());
        // The stores answer in XML.
        let xml = || {
            let text = String::from_utf8_lossy(&self.bytes);
            let code = text.split_once("<Code>")?.1.split_once("</Code>")?.0;
            Some(code.chars().take(80).collect::<String>())
        };
        match why.or_else(xml) {
            Some(why) => format!("{} ({why})", self.status),
            None => self.status.to_string(),
        }
    }

    /// Fails unless the answer has this status.
    pub(super) fn is(self, status: u16, of: &str) -> anyhow::Result<Self> {
        if self.status.as_u16() == status {
            return Ok(self);
        }
        bail!("{of} is answered with {}, not with {status}", self.said())
    }

    /// Fails unless the request was done.
    pub(super) fn done(self, of: &str) -> anyhow::Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        bail!("{of} is answered with {}", self.said())
    }

    /// Fails unless the request was refused for what it says, and not because something is broken.
    pub(super) fn refused(self, of: &str) -> anyhow::Result<Self> {
        if self.status.is_client_error() && self.status != StatusCode::TOO_MANY_REQUESTS {
            return Ok(self);
        }
        if self.status.is_success() {
            bail!("{of} is accepted ({})", self.status);
        }
        bail!("{of} is answered with {}", self.said())
    }
}

/// A deployment.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) url: Url,
    client: Client,
    token: Option<String>,
    /// Whose place to make, if not that of whoever the token is for.
    pub(super) entity: Option<String>,
    place: OnceCell<Place>,
    image: OnceCell<Result<Image, String>>,
    artifact: OnceCell<Result<Artifact, String>>,
}

/// The place that the probes made for themselves: a private collection with a container.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) entity: String,
    /// `doctor-` and random digits.
    pub(super) collection: String,
    container: String,
}

impl Place {
    /// The path of the container that library pushes go to.
    pub(super) fn container(&self) -> String {
        format!("{}/{}/image", self.entity, self.collection)
    }

    /// The repository that registry pushes go to.
    pub(super) fn repository(&self) -> String {
        format!("{}/{}/artifact", self.entity, self.collection)
    }
}

/// An image in the library.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) id: String,
    pub(super) bytes: Vec<u8>,
}

/// A manifest with its layer in the registry.
#[derive(Debug, Clone)]
pub(super) struct Artifact {
    pub(super) layer: Vec<u8>,
    pub(super) manifest: Vec<u8>,
}

impl Site {
    pub(super) fn new(url: Url, client: Client, token: Option<String>, entity: Option<String>) -> Self {
        let (place, image, artifact) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { url, client, token, entity, place, image, artifact }
    }

    /// The URL of a path as it is written, or that of a whole URL, like one in a `Location`.
    pub(super) fn at(&self, path: &str) -> anyhow::Result<Url> {
        if path.starts_with("http://") || path.starts_with("https://") {
            return Url::parse(path).context("the answer leads to no URL");
        }
        // Not `join`: a path that begins with `//` would name a host.
        let base = self.url.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}{path}")).context("the answer leads to no URL")
    }

    /// Whether a URL leads to the library's own host.
    pub(super) fn own(&self, url: &Url) -> bool {
        url.origin() == self.url.origin()
    }

    /// Whether there is a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(super) fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// A request without a token.
    pub(super) fn bare(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        Ok(self.client.request(method, self.at(path)?))
    }

    /// A request with the token.
    pub(super) fn request(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        Ok(self.bare(method, path)?.bearer_auth(self.token()))
    }

    /// `GET` with the token.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        send(self.request(Method::GET, path)?).await
    }

    /// `HEAD` with the token.
    pub(super) async fn head(&self, path: &str) -> anyhow::Result<Answer> {
        send(self.request(Method::HEAD, path)?).await
    }

    /// A `POST` or `PUT` of JSON with the token.
    pub(super) async fn json(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Answer> {
        send(self.request(method, path)?.json(&body)).await
    }

    /// The place of the probes.
    pub(super) fn place(&self) -> anyhow::Result<&Place> {
        self.place.get().context("there is no place for the probes")
    }

    /// Who the token is for.
    pub(super) async fn whoami(&self) -> anyhow::Result<String> {
        let answer = self.get("/v1/rbac/users/current").await?.is(200, "the question whose the token is")?;
        let name = answer.text("/username");
        if name.is_empty() {
            bail!("the answer to whose the token is names nobody");
        }
        Ok(name)
    }

    /// Makes the place of the probes: a private collection with a private container.
    pub(super) async fn make_place(&self, entity: &str) -> anyhow::Result<&Place> {
        let found = self.get(&format!("/v1/entities/{entity}")).await?.is(200, &format!("a look at `{entity}`"))?;
        let collection = format!("doctor-{:016x}", drawn());
        let body = json!({
            "name": collection, "entity": found.text("/data/id"), "private": true,
            "description": "Made by `stackroom doctor`, which deletes it. Left over, it may be deleted.",
        });
        let made = self.json(Method::POST, "/v1/collections", body).await?.done("making a collection")?;
        let place = Place { entity: entity.to_owned(), collection, container: String::new() };
        match self.make_container(&made.text("/data/id")).await {
            Ok(container) => Ok(self.place.get_or_init(async || Place { container, ..place }).await),
            Err(error) => match self.remove(&place).await {
                Ok(()) => Err(error),
                Err(left) => Err(error.context(format!("{left:#}"))),
            },
        }
    }

    async fn make_container(&self, collection: &str) -> anyhow::Result<String> {
        let body = json!({ "name": "image", "collection": collection, "private": true });
        let made = self.json(Method::POST, "/v1/containers", body).await?.done("making a container")?;
        Ok(made.text("/data/id"))
    }

    /// Deletes the place of the probes with everything in it.
    pub(super) async fn remove(&self, place: &Place) -> anyhow::Result<()> {
        let path = format!("/v1/collections/{}/{}?cascade=1&force=1", place.entity, place.collection);
        let left = || format!("what the probes made is left in {}/{}", place.entity, place.collection);
        let deleted = send(self.request(Method::DELETE, &path)?).await.with_context(left)?;
        deleted.done("the deletion").map(drop).with_context(left)
    }

    /// Announces an image, as a push does, and returns its id.
    pub(super) async fn announce(&self, bytes: &[u8]) -> anyhow::Result<String> {
        let container = self.place()?.container.clone();
        let body = json!({ "hash": format!("sha256.{}", hex(bytes)), "container": container });
        let made = self.json(Method::POST, "/v1/images", body).await?.done("announcing an image")?;
        Ok(made.text("/data/id"))
    }

    /// Opens the upload of an announced image in one request, and returns the URL for its bytes.
    pub(super) async fn open(&self, image: &Image) -> anyhow::Result<String> {
        let body = json!({ "filesize": image.bytes.len(), "md5sum": "", "sha256sum": hex(&image.bytes) });
        let path = format!("/v2/imagefile/{}", image.id);
        let opened = self.json(Method::POST, &path, body).await?.done("opening an upload")?;
        Ok(opened.text("/data/uploadURL"))
    }

    /// Announces a new image.
    pub(super) async fn new_image(&self) -> anyhow::Result<Image> {
        let bytes = image(16_384);
        Ok(Image { id: self.announce(&bytes).await?, bytes })
    }

    /// A request that sends bytes to a URL that was given for them, as clients do: with the digest `said`, if the URL
    /// signs one, and no token.
    pub(super) fn upload(&self, url: &str, said: &str, bytes: Vec<u8>) -> anyhow::Result<RequestBuilder> {
        let request = self.bare(Method::PUT, url)?.header("content-type", "application/octet-stream");
        let request = if pinned(url) { request.header("x-amz-content-sha256", said) } else { request };
        Ok(request.body(bytes))
    }

    /// Ends an upload in one request.
    pub(super) async fn complete(&self, image: &Image) -> anyhow::Result<Answer> {
        self.json(Method::PUT, &format!("/v2/imagefile/{}/_complete", image.id), json!({})).await
    }

    /// The image that probes read, pushed by the first that needs it. An error is that of the push.
    pub(super) async fn pushed(&self) -> Result<&Image, &str> {
        let pushing = async || self.push().await.map_err(|error| format!("{error:#}"));
        self.image.get_or_init(pushing).await.as_ref().map_err(String::as_str)
    }

    async fn push(&self) -> anyhow::Result<Image> {
        let image = self.new_image().await?;
        let url = self.open(&image).await?;
        let sent = self.upload(&url, &hex(&image.bytes), image.bytes.clone())?;
        send(sent).await?.done("the upload of the bytes")?;
        self.complete(&image).await?.done("the end of the upload")?;
        let body = json!({ "Arch": "amd64", "Tag": TAG, "ImageID": image.id });
        let path = format!("/v2/tags/{}", self.place()?.container);
        self.json(Method::POST, &path, body).await?.done("the tag")?;
        Ok(image)
    }

    /// The artifact that probes read, pushed by the first that needs it. An error is that of the push.
    pub(super) async fn stored(&self) -> Result<&Artifact, &str> {
        let pushing = async || self.push_artifact().await.map_err(|error| format!("{error:#}"));
        self.artifact.get_or_init(pushing).await.as_ref().map_err(String::as_str)
    }

    async fn push_artifact(&self) -> anyhow::Result<Artifact> {
        let layer = junk(10_000);
        for blob in [EMPTY, &layer] {
            self.bring(blob)?.send().await.map_err(reqwest::Error::without_url)?;
        }
        let manifest = manifest(&layer, "probe").into_bytes();
        let put = self.put_manifest(TAG, manifest.clone()).await?;
        put.is(201, "the manifest")?;
        Ok(Artifact { layer, manifest })
    }

    /// A request that brings a blob at once.
    pub(super) fn bring(&self, blob: &[u8]) -> anyhow::Result<RequestBuilder> {
        let path = format!("/v2/{}/blobs/uploads/?digest={}", self.place()?.repository(), digest(blob));
        let request = self.request(Method::POST, &path)?.header("content-type", "application/octet-stream");
        Ok(request.body(blob.to_vec()))
    }

    /// Pushes a manifest.
    pub(super) async fn put_manifest(&self, tag: &str, manifest: Vec<u8>) -> anyhow::Result<Answer> {
        let path = format!("/v2/{}/manifests/{tag}", self.place()?.repository());
        send(self.request(Method::PUT, &path)?.header("content-type", MANIFEST).body(manifest)).await
    }
}

/// The manifest of an artifact with one layer, and a note in it.
pub(super) fn manifest(layer: &[u8], note: &str) -> String {
    let named = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": named("application/vnd.oci.empty.v1+json", EMPTY),
        "layers": [named("application/octet-stream", layer)],
        "annotations": { "org.example.note": note },
    });
    manifest.to_string()
}

/// Whether a URL is for bytes with one digest only.
pub(super) fn pinned(url: &str) -> bool {
    url.contains("x-amz-content-sha256")
}

/// Sends a request and reads the answer to the end. URLs are not part of an error: some are secrets.
pub(super) async fn send(request: RequestBuilder) -> anyhow::Result<Answer> {
    let answer = request.send().await.map_err(reqwest::Error::without_url).context("there is no answer")?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let bytes = answer.bytes().await.map_err(reqwest::Error::without_url).context("the answer breaks off")?;
    Ok(Answer { status, headers, bytes: bytes.to_vec() })
}
