//! The registry, as Docker, Podman and their like speak to it.

use super::Verdict;
use super::gateway::realm;
use super::sif::{digest, drawn, hex, junk};
use super::site::{Answer, Site, TAG, manifest, send};
use anyhow::{Context, bail};
use reqwest::{Method, StatusCode};
use tokio::task::JoinSet;

pub(super) async fn login(site: &Site) -> anyhow::Result<Verdict> {
    let user = site.whoami().await?;
    let challenged = send(site.bare(Method::GET, "/v2/")?).await?;
    let realm = realm(&challenged)?;
    // Not under a name that is somebody's: wrong passwords are counted, and too many lock their owner out for a while.
    let nobody = format!("doctor-{:016x}", drawn());
    let wrong = site.bare(Method::GET, &realm)?.basic_auth(nobody, Some("no password"));
    send(wrong).await?.is(401, "a login as nobody")?;
    let sign = if realm.contains('?') { '&' } else { '?' };
    let path = format!("{realm}{sign}account={user}&service=registry");
    let given = send(site.bare(Method::GET, &path)?.basic_auth(&user, Some(site.token()))).await?;
    let token = given.is(200, "a login with the name and the token")?.text("/token");
    let logged_in = send(site.bare(Method::GET, "/v2/")?.bearer_auth(token)).await?;
    logged_in.is(200, "`/v2/` with the token of a login")?;
    Ok(Verdict::Ok(format!("`docker login` works for {user}")))
}

pub(super) async fn push(site: &Site) -> anyhow::Result<Verdict> {
    let artifact = site.stored().await.map_err(|why| anyhow::anyhow!("{why}"))?;
    let path = format!("/v2/{}/tags/list", site.place()?.repository());
    let tags = site.get(&path).await?.is(200, "the list of tags")?.json();
    if tags.pointer("/tags/0").and_then(serde_json::Value::as_str) != Some(TAG) {
        bail!("the tag that was pushed is not listed");
    }
    Ok(Verdict::Ok(format!("a manifest of {} bytes was pushed, and is listed", artifact.manifest.len())))
}

/// The artifact that other probes pushed, or why there is none.
macro_rules! stored {
    ($site:expr) => {
        match $site.stored().await {
            Ok(artifact) => artifact,
            Err(_) => return Ok(Verdict::Skipped("nothing could be pushed: see `registry-push`".to_owned())),
        }
    };
}

pub(super) async fn head_lengths(site: &Site) -> anyhow::Result<Verdict> {
    let artifact = stored!(site);
    let repository = site.place()?.repository();
    for (what, path, bytes) in [
        ("manifest", format!("/v2/{repository}/manifests/{TAG}"), &artifact.manifest),
        ("blob", format!("/v2/{repository}/blobs/{}", digest(&artifact.layer)), &artifact.layer),
    ] {
        let answer = site.head(&path).await?.is(200, &format!("`HEAD` of a {what}"))?;
        if answer.header("content-length") != bytes.len().to_string() {
            let length = answer.header("content-length");
            bail!("`HEAD` of a {what} of {} bytes says `Content-Length: {length}`", bytes.len());
        }
        digest_is(&answer, bytes, &format!("`HEAD` of a {what}"))?;
    }
    Ok(Verdict::Ok("`HEAD` tells the length and the digest of manifests and blobs".to_owned()))
}

/// Checks the digest that an answer states.
fn digest_is(answer: &Answer, bytes: &[u8], of: &str) -> anyhow::Result<()> {
    match answer.header("docker-content-digest") {
        said if said == digest(bytes) => Ok(()),
        "" => bail!("{of} states no `Docker-Content-Digest`"),
        said => bail!("{of} states the digest {said}"),
    }
}

/// Where the blob of the pushed artifact is, if it is somewhere else.
pub(super) async fn redirect(site: &Site) -> anyhow::Result<Option<String>> {
    let Ok(artifact) = site.stored().await else { return Ok(None) };
    elsewhere(site, &artifact.layer).await
}

/// Where a blob is, if it is somewhere else.
async fn elsewhere(site: &Site, blob: &[u8]) -> anyhow::Result<Option<String>> {
    let answer = site.get(&blob_path(site, blob)?).await?;
    let leads = answer.status.is_redirection() && !answer.header("location").is_empty();
    Ok(leads.then(|| answer.header("location").to_owned()))
}

/// A request for a blob, wherever it is.
async fn of_blob(site: &Site, blob: &[u8]) -> anyhow::Result<reqwest::RequestBuilder> {
    match elsewhere(site, blob).await? {
        Some(url) => site.bare(Method::GET, &url),
        None => site.request(Method::GET, &blob_path(site, blob)?),
    }
}

fn blob_path(site: &Site, bytes: &[u8]) -> anyhow::Result<String> {
    Ok(format!("/v2/{}/blobs/{}", site.place()?.repository(), digest(bytes)))
}

pub(super) async fn blob(site: &Site) -> anyhow::Result<Verdict> {
    let artifact = stored!(site);
    let first = site.get(&blob_path(site, &artifact.layer)?).await?;
    digest_is(&first, &artifact.layer, "the first answer to a request for a blob")?;
    let (last, said) = match first.header("location") {
        "" => (first, "the server sends blobs itself".to_owned()),
        url => {
            let host = site.at(url)?.host_str().unwrap_or_default().to_owned();
            (send(site.bare(Method::GET, url)?).await?, format!("blobs come from {host}"))
        }
    };
    if last.is(200, "a blob")?.bytes != artifact.layer {
        bail!("a blob comes back with other bytes");
    }
    Ok(Verdict::Ok(said))
}

pub(super) async fn blob_ranges(site: &Site) -> anyhow::Result<Verdict> {
    let artifact = stored!(site);
    let part = of_blob(site, &artifact.layer).await?.header("range", "bytes=5000-");
    let got = send(part).await?.is(206, "a request for the second half of a blob")?;
    if got.bytes != artifact.layer.get(5000..).unwrap_or_default() {
        bail!("another part of a blob comes back than was asked for: `{}`", got.header("content-range"));
    }
    Ok(Verdict::Ok("an interrupted pull can be resumed".to_owned()))
}

/// Opens an upload, and returns where its bytes go.
async fn opened(site: &Site) -> anyhow::Result<String> {
    let path = format!("/v2/{}/blobs/uploads/", site.place()?.repository());
    let opened = send(site.request(Method::POST, &path)?.body("")).await?.is(202, "the beginning of an upload")?;
    match opened.header("location") {
        "" => bail!("an upload that begins has no `Location`"),
        location => Ok(location.to_owned()),
    }
}

/// A request to the URL of an upload. The token goes only to the library's own host, as clients do it.
fn to_upload(site: &Site, method: Method, location: &str) -> anyhow::Result<reqwest::RequestBuilder> {
    let own = site.own(&site.at(location)?);
    let request = if own { site.request(method, location)? } else { site.bare(method, location)? };
    Ok(request.header("content-type", "application/octet-stream"))
}

/// Sends a blob in one `PATCH`. Returns its answer.
async fn patched(site: &Site, location: &str, bytes: &[u8]) -> anyhow::Result<Answer> {
    send(to_upload(site, Method::PATCH, location)?.body(bytes.to_vec())).await
}

/// Closes an upload at the `Location` of its last answer.
async fn closed(site: &Site, location: &str, bytes: &[u8]) -> anyhow::Result<Answer> {
    let sign = if location.contains('?') { '&' } else { '?' };
    let url = format!("{location}{sign}digest={}", digest(bytes));
    send(to_upload(site, Method::PUT, &url)?.body("")).await
}

pub(super) async fn upload_location(site: &Site) -> anyhow::Result<Verdict> {
    let bytes = junk(10_000);
    let location = opened(site).await?;
    let host = site.at(&location)?.host_str().unwrap_or_default().to_owned();
    let patched = patched(site, &location, &bytes).await?.is(202, "a `PATCH` to the `Location` of an upload")?;
    let closed = closed(site, patched.header("location"), &bytes).await?;
    digest_is(&closed.is(201, "the end of an upload at its `Location`")?, &bytes, "the end of an upload")?;
    Ok(Verdict::Ok(format!("layers go to {host}")))
}

pub(super) async fn long_layer(site: &Site) -> anyhow::Result<Verdict> {
    let bytes = junk(5 << 20);
    let location = opened(site).await?;
    let patched = patched(site, &location, &bytes).await?;
    if patched.status == StatusCode::PAYLOAD_TOO_LARGE {
        return Ok(Verdict::Warning("a layer of 5 MiB in one request is refused".to_owned()));
    }
    let patched = patched.is(202, "a `PATCH` of 5 MiB")?;
    closed(site, patched.header("location"), &bytes).await?.is(201, "the end of an upload of 5 MiB")?;
    // A proxy in front may send long ones in another way than short ones.
    let whole = send(of_blob(site, &bytes).await?).await?.is(200, "a layer of 5 MiB")?;
    let from = bytes.len() - 1000;
    let part = of_blob(site, &bytes).await?.header("range", format!("bytes={from}-"));
    let part = send(part).await?.is(206, "a request for the end of a layer of 5 MiB")?;
    if whole.bytes != bytes || part.bytes != bytes.get(from..).unwrap_or_default() {
        bail!("a layer of 5 MiB comes back with other bytes");
    }
    Ok(Verdict::Ok("a layer of 5 MiB arrived in one request, and came back".to_owned()))
}

/// The longest manifest, in bytes.
const LONGEST: usize = 4 << 20;

pub(super) async fn manifest_bytes(site: &Site) -> anyhow::Result<Verdict> {
    let artifact = stored!(site);
    let note = note(LONGEST - manifest(&artifact.layer, "").len());
    let bytes = manifest(&artifact.layer, &note).into_bytes();
    let put = site.put_manifest("long", bytes.clone()).await?.is(201, "a manifest of 4 MiB")?;
    digest_is(&put, &bytes, "the push of a manifest of 4 MiB")?;
    let path = format!("/v2/{}/manifests/{}", site.place()?.repository(), digest(&bytes));
    let got = site.get(&path).await?.is(200, "the pull of a manifest of 4 MiB")?;
    if got.bytes != bytes {
        let same = got.bytes.iter().zip(&bytes).take_while(|(one, other)| one == other).count();
        bail!("a manifest comes back changed, from byte {same} on: its SHA-256 is {}", hex(&got.bytes));
    }
    Ok(Verdict::Ok(format!("{} bytes with quotes and non-ASCII came back unchanged", bytes.len())))
}

/// A text that takes at most `room` bytes in JSON: quotes, which are escaped wherever a manifest travels as text, and
/// characters of two to four bytes.
fn note(room: usize) -> String {
    let (mut note, mut length) = (String::new(), 0);
    for character in "\"\"\"é\"\"\"漢\"\"\"𝄞/'".chars().cycle() {
        length += if character == '"' { 2 } else { character.len_utf8() };
        if length > room {
            break;
        }
        note.push(character);
    }
    note
}

/// How many pushes there are at once.
const AT_ONCE: usize = 50;

pub(super) async fn parallel_pushes(site: &Site) -> anyhow::Result<Verdict> {
    let mut sending = JoinSet::new();
    for _ in 0..AT_ONCE {
        sending.spawn(send(site.bring(&junk(1000))?));
    }
    let mut wrong = Vec::new();
    while let Some(answer) = sending.join_next().await {
        let answer = answer.context("a push was not finished")??;
        if answer.status != StatusCode::CREATED {
            wrong.push(answer.said());
        }
    }
    match wrong.first() {
        None => Ok(Verdict::Ok(format!("{AT_ONCE} pushes at once into one entity were accepted"))),
        Some(first) => bail!("{} of {AT_ONCE} pushes at once were refused, the first with {first}", wrong.len()),
    }
}
