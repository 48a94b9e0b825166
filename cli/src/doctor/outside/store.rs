//! What the object store makes of URLs that were signed for clients.

use super::Verdict;
use super::gateway::signed;
use super::library::location;
use super::registry::redirect;
use super::sif::hex;
use super::site::{Site, pinned, send};
use anyhow::{Context, bail};
use reqwest::{Method, Url};
use std::time::{SystemTime, UNIX_EPOCH};

/// A parameter of a signed URL.
fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The longest and the least life of URLs, in seconds: S3's own limit, what registry clients are given at most, and what
/// a slow download needs.
const LONGEST: u64 = 7 * 24 * 3600;
const REGISTRY: u64 = 20 * 60;
const SHORT: u64 = 3600;
/// How far the clock of a signer may be off, in seconds.
const SKEW: u64 = 300;

/// How long a URL is valid from now on, in seconds.
fn life(url: &Url) -> anyhow::Result<u64> {
    let life = parameter(url, "X-Amz-Expires").and_then(|life| life.parse().ok());
    let life = life.context("a URL does not say how long it is valid")?;
    let since = parameter(url, "X-Amz-Date").and_then(|date| signed(&date));
    let since = since.context("a URL does not say from when on it is valid")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now.abs_diff(since) > SKEW {
        bail!("a URL was signed {} seconds from now: the clock of its signer is wrong", now.abs_diff(since));
    }
    Ok(life)
}

pub(super) async fn redirect_lives(site: &Site) -> anyhow::Result<Verdict> {
    if site.pushed().await.is_err() || site.stored().await.is_err() {
        return Ok(Verdict::Skipped("nothing could be pushed: see `push` and `registry-push`".to_owned()));
    }
    let url = site.at(&location(site).await?)?;
    let library = life(&url)?;
    if library > LONGEST {
        bail!("the URL of a download says that it lives {library} seconds, which S3 refuses");
    }
    let mut said = format!("downloads {library} seconds");
    if let Some(url) = redirect(site).await? {
        let registry = life(&site.at(&url)?)?;
        if registry > REGISTRY {
            bail!("a redirect of the registry says that it lives {registry} seconds, longer than the 20 minutes");
        }
        said = format!("{said}, layers {registry}");
    }
    let borrowed = parameter(&url, "X-Amz-Security-Token").is_some();
    Ok(match (borrowed, library < SHORT) {
        (true, _) => Verdict::Warning(format!("{said}; signed with credentials of a role, which end earlier")),
        (_, true) => Verdict::Warning(format!("{said}; a slow download takes longer")),
        _ => Verdict::Ok(said),
    })
}

pub(super) async fn not_encoded(site: &Site) -> anyhow::Result<Verdict> {
    let image = site.new_image().await?;
    let url = site.open(&image).await?;
    let upload = site.upload(&url, &hex(&image.bytes), image.bytes.clone())?.header("content-encoding", "gzip");
    let sent = send(upload).await?;
    if sent.status.is_client_error() {
        return Ok(Verdict::Ok("the store refuses an encoding that was not signed".to_owned()));
    }
    sent.done("an upload that says that it is encoded")?;
    site.complete(&image).await?.done("the end of the upload")?;
    let path = format!("/v1/imagefile/{}:sha256.{}", site.place()?.container(), hex(&image.bytes));
    let answer = site.get(&path).await?.is(303, "a download")?;
    let got = send(site.bare(Method::GET, answer.header("location"))?).await?.is(200, "the URL of a download")?;
    let (encoding, kind) = (got.header("content-encoding"), got.header("content-type"));
    if !["", "identity"].contains(&encoding) {
        bail!("an uploader can have others' downloads decoded: they come with `Content-Encoding: {encoding}`");
    }
    if kind != "application/octet-stream" || got.bytes != image.bytes {
        bail!("a download comes as `{kind}`, with {} of {} bytes", got.bytes.len(), image.bytes.len());
    }
    Ok(Verdict::Ok("downloads come as the library says, not as their uploader said".to_owned()))
}

pub(super) async fn browsers(site: &Site) -> anyhow::Result<Verdict> {
    let image = site.new_image().await?;
    let url = site.open(&image).await?;
    if site.own(&site.at(&url)?) {
        return Ok(Verdict::Skipped("bytes go to the library's own host, where browsers ask nobody".to_owned()));
    }
    let origin = site.url.origin().ascii_serialization();
    let headers = if pinned(&url) { "content-type,x-amz-content-sha256" } else { "content-type" };
    let asking = site.bare(Method::OPTIONS, &url)?.header("origin", &origin);
    let asking = asking.header("access-control-request-method", "PUT");
    let answer = send(asking.header("access-control-request-headers", headers)).await?;
    let allowed = answer.header("access-control-allow-origin");
    Ok(if answer.status.is_success() && (allowed == origin || allowed == "*") {
        Verdict::Ok("pages of the library may send bytes to the store".to_owned())
    } else {
        Verdict::Warning(format!("the store does not let pages of {origin} send bytes to it ({})", answer.status))
    })
}
