//! The library protocol, as Apptainer and Singularity speak it.

use super::Verdict;
use super::sif::{hex, image, junk};
use super::site::{Answer, Image, Site, TAG, pinned, send};
use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub(super) async fn token(site: &Site) -> anyhow::Result<Verdict> {
    site.get("/v1/token-status").await?.is(200, "`/v1/token-status`")?;
    Ok(Verdict::Ok(format!("it is {}'s", site.whoami().await?)))
}

pub(super) async fn place(site: &Site) -> anyhow::Result<Verdict> {
    let entity = match &site.entity {
        Some(entity) => entity.clone(),
        None => site.whoami().await?,
    };
    let place = site.make_place(&entity).await?;
    Ok(Verdict::Ok(format!("{}/{}, until the end", place.entity, place.collection)))
}

pub(super) async fn cleanup(site: &Site) -> anyhow::Result<Verdict> {
    let Ok(place) = site.place() else { return Ok(Verdict::Skipped("nothing was made".to_owned())) };
    site.remove(place).await?;
    Ok(Verdict::Ok(format!("{}/{} is deleted", place.entity, place.collection)))
}

pub(super) async fn push(site: &Site) -> anyhow::Result<Verdict> {
    let image = site.pushed().await.map_err(|why| anyhow::anyhow!("{why}"))?;
    let path = format!("/v1/images/{}:{TAG}", site.place()?.container());
    is_image(&site.get(&path).await?, image)?;
    Ok(Verdict::Ok("an image was pushed, and is found by its tag".to_owned()))
}

/// Checks that a lookup found an image.
fn is_image(answer: &Answer, image: &Image) -> anyhow::Result<()> {
    if !answer.status.is_success() {
        bail!("a lookup is answered with {}", answer.said());
    }
    let (hash, size) = (answer.text("/data/hash"), answer.json().pointer("/data/size").and_then(Value::as_u64));
    if hash != format!("sha256.{}", hex(&image.bytes)) || size != Some(image.bytes.len() as u64) {
        bail!("a lookup finds another image: {hash} of {} bytes", size.unwrap_or_default());
    }
    Ok(())
}

/// The image that other probes pushed, or why there is none.
macro_rules! pushed {
    ($site:expr) => {
        match $site.pushed().await {
            Ok(image) => image,
            Err(_) => return Ok(Verdict::Skipped("no image could be pushed: see `push`".to_owned())),
        }
    };
}

/// Why uploads are not checked by the store.
const NOT_PINNED: &str = "the URLs are not for one digest only: uploads are read and hashed instead";

pub(super) async fn pinned_put(site: &Site) -> anyhow::Result<Verdict> {
    let image = site.new_image().await?;
    let url = site.open(&image).await?;
    if !pinned(&url) {
        return Ok(Verdict::Skipped(NOT_PINNED.to_owned()));
    }
    only_right_bytes(site, &url, &image.bytes).await?;
    site.complete(&image).await?.done("the end of the upload")?;
    Ok(Verdict::Ok("the store refuses other bytes, and takes the right ones".to_owned()))
}

/// Checks that other bytes of the same length are refused, whatever digest their sender names, and then that the right
/// ones are accepted. Returns the answer to those.
async fn only_right_bytes(site: &Site, url: &str, right: &[u8]) -> anyhow::Result<Answer> {
    let other = junk(right.len());
    let lying = site.upload(url, &hex(right), other.clone())?;
    send(lying).await?.refused("an upload of other bytes under the right digest")?;
    let honest = site.upload(url, &hex(&other), other)?;
    send(honest).await?.refused("an upload of other bytes under their own digest")?;
    send(site.upload(url, &hex(right), right.to_vec())?).await?.done("an upload of the right bytes")
}

pub(super) async fn signed_length(site: &Site) -> anyhow::Result<Verdict> {
    let image = site.new_image().await?;
    let url = site.open(&image).await?;
    let mut long = image.bytes.clone();
    long.push(0);
    let short = image.bytes.get(1..).unwrap_or_default().to_vec();
    for (bytes, what) in [(long, "an upload of one byte too many"), (short, "an upload of one byte too few")] {
        send(site.upload(&url, &hex(&image.bytes), bytes)?).await?.refused(what)?;
    }
    Ok(Verdict::Ok("the store refuses one byte more and one byte less".to_owned()))
}

/// An upload in parts that was begun.
struct Parts {
    path: String,
    id: String,
    /// The bytes of a part.
    length: usize,
}

impl Parts {
    async fn begin(site: &Site, image: &Image) -> anyhow::Result<Self> {
        let path = format!("/v2/imagefile/{}", image.id);
        let body = json!({ "filesize": image.bytes.len() });
        let begun = site.json(Method::POST, &format!("{path}/_multipart"), body).await?;
        let begun = begun.done("the beginning of an upload in parts")?;
        let said = begun.json().pointer("/data/partSize").and_then(Value::as_u64);
        let length = said.and_then(|said| usize::try_from(said).ok()).filter(|length| *length > 0);
        let length = length.context("the upload in parts says nothing of the size of parts")?;
        Ok(Self { path, id: begun.text("/data/uploadID"), length })
    }

    /// The URL for a part.
    async fn url(&self, site: &Site, number: usize, part: &[u8]) -> anyhow::Result<String> {
        let body = json!({ "partSize": part.len(), "uploadID": self.id, "partNumber": number, "sha256sum": hex(part) });
        let answer = site.json(Method::PUT, &format!("{}/_multipart", self.path), body).await?;
        Ok(answer.done("the request for the URL of a part")?.text("/data/presignedURL"))
    }

    /// Ends the upload with the parts that have these `ETag`s.
    async fn complete(&self, site: &Site, etags: &[String]) -> anyhow::Result<Answer> {
        let parts = (1_usize..).zip(etags).map(|(number, etag)| json!({ "partNumber": number, "token": etag }));
        let body = json!({ "uploadID": self.id, "completedParts": parts.collect::<Vec<_>>() });
        let request = site.request(Method::PUT, &format!("{}/_multipart_complete", self.path))?;
        send(request.timeout(LONG).json(&body)).await?.done("the end of the upload in parts")
    }

    async fn abort(&self, site: &Site) -> anyhow::Result<()> {
        let body = json!({ "uploadID": self.id });
        let answer = site.json(Method::PUT, &format!("{}/_multipart_abort", self.path), body).await?;
        answer.done("giving an upload in parts up").map(drop)
    }
}

/// The `ETag` of a part that was sent.
fn etag(answer: &Answer) -> anyhow::Result<String> {
    match answer.header("etag") {
        "" => bail!("the store gives a part no `ETag`"),
        etag => Ok(etag.to_owned()),
    }
}

pub(super) async fn pinned_part(site: &Site) -> anyhow::Result<Verdict> {
    let image = site.new_image().await?;
    // For some stores only the header is signed, which they want, and do not compare with the bytes.
    let compared = pinned(&site.open(&site.new_image().await?).await?);
    let parts = Parts::begin(site, &image).await?;
    let url = parts.url(site, 1, &image.bytes).await?;
    let verdict = if compared && pinned(&url) {
        only_right_bytes(site, &url, &image.bytes)
            .await
            .map(|_| Verdict::Ok("the store refuses other bytes as a part, and takes the right ones".to_owned()))
    } else {
        Ok(Verdict::Skipped(NOT_PINNED.to_owned()))
    };
    let aborted = parts.abort(site).await;
    let verdict = verdict?;
    aborted.map(|()| verdict)
}

pub(super) async fn multipart(site: &Site) -> anyhow::Result<Verdict> {
    let image = site.new_image().await?;
    in_parts(site, &image).await?;
    let path = format!("/v1/images/{}:sha256.{}", site.place()?.container(), hex(&image.bytes));
    is_image(&site.get(&path).await?, &image)?;
    Ok(Verdict::Ok("an image came in parts, was put together and verified".to_owned()))
}

/// The most time that sending one part, and putting all of them together, may take.
const LONG: Duration = Duration::from_mins(10);

/// Pushes an image in parts. Returns how long it took to put them together.
async fn in_parts(site: &Site, image: &Image) -> anyhow::Result<Duration> {
    let parts = Parts::begin(site, image).await?;
    let mut etags = Vec::new();
    for (number, part) in (1..).zip(image.bytes.chunks(parts.length)) {
        let url = parts.url(site, number, part).await?;
        let request = site.bare(Method::PUT, &url)?.header("x-amz-content-sha256", hex(part));
        let sent = send(request.timeout(LONG).body(part.to_vec())).await?.done("the upload of a part")?;
        etags.push(etag(&sent)?);
    }
    let began = Instant::now();
    parts.complete(site, &etags).await?;
    Ok(began.elapsed())
}

/// The size of the large image, in bytes, and how long API Gateway waits for a function.
const LARGE: usize = 500 << 20;
const GATEWAY: Duration = Duration::from_secs(29);

pub(super) async fn large_push(site: &Site) -> anyhow::Result<Verdict> {
    let bytes = image(LARGE);
    let image = Image { id: site.announce(&bytes).await?, bytes };
    let took = in_parts(site, &image).await?;
    let said = format!("500 MiB were put together and verified in {:.1} seconds", took.as_secs_f64());
    let close = took > GATEWAY.mul_f64(0.8);
    Ok(if close { Verdict::Warning(format!("{said}, and a gateway waits for 29")) } else { Verdict::Ok(said) })
}

/// Where the bytes of the pushed image are.
pub(super) async fn location(site: &Site) -> anyhow::Result<String> {
    let path = format!("/v1/imagefile/{}:{TAG}", site.place()?.container());
    let answer = site.get(&path).await?.is(303, "a download")?;
    match answer.header("location") {
        "" => bail!("a download leads nowhere: there is no `Location`"),
        url => Ok(url.to_owned()),
    }
}

pub(super) async fn pull(site: &Site) -> anyhow::Result<Verdict> {
    let image = pushed!(site);
    let got = send(site.bare(Method::GET, &location(site).await?)?).await?.is(200, "the URL of a download")?;
    if got.bytes != image.bytes {
        bail!("other bytes come back: {} of {}", got.bytes.len(), image.bytes.len());
    }
    Ok(Verdict::Ok("the bytes come back as they were pushed".to_owned()))
}

pub(super) async fn ranges(site: &Site) -> anyhow::Result<Verdict> {
    let image = pushed!(site);
    let request = site.bare(Method::GET, &location(site).await?)?.header("range", "bytes=100-199");
    let got = send(request).await?.is(206, "a request for 100 bytes of a download")?;
    let (whole, expected) = (image.bytes.len(), image.bytes.get(100..200).unwrap_or_default());
    if got.header("content-range") != format!("bytes 100-199/{whole}") || got.bytes != expected {
        bail!("other bytes come back than were asked for: `{}`", got.header("content-range"));
    }
    Ok(Verdict::Ok("downloads come in parts, and can be resumed".to_owned()))
}

pub(super) async fn double_slash(site: &Site) -> anyhow::Result<Verdict> {
    let image = pushed!(site);
    let place = site.place()?;
    is_image(&site.get(&format!("/v1/images//{}:{TAG}", place.container())).await?, image)?;
    site.get(&format!("/v1/imagefile//{}:{TAG}", place.container())).await?.is(303, "a download with `//`")?;
    // An empty entity is the default one. Without its slash, the name would be that of an entity.
    let listed = site.get(&format!("/v1/collections//{}", place.entity)).await?;
    if listed.json().get("data").is_some_and(Value::is_array) {
        bail!("`/v1/collections//NAME` arrives as `/v1/collections/NAME`");
    }
    Ok(Verdict::Ok("`//` arrives as it was sent".to_owned()))
}

pub(super) async fn escaped_colon(site: &Site) -> anyhow::Result<Verdict> {
    let image = pushed!(site);
    is_image(&site.get(&format!("/v1/images/{}%3A{TAG}", site.place()?.container())).await?, image)?;
    Ok(Verdict::Ok("`%3A` in a path means `:`".to_owned()))
}

pub(super) async fn bearer_in_capitals(site: &Site) -> anyhow::Result<Verdict> {
    let shouted = format!("BEARER {}", site.token());
    let shouting = |path: &str| Ok::<_, anyhow::Error>(site.bare(Method::GET, path)?.header("authorization", &shouted));
    send(shouting("/v1/token-status")?).await?.is(200, "`BEARER` in capitals")?;
    let image = pushed!(site);
    let path = format!("/v1/imagefile/{}:{TAG}", site.place()?.container());
    let hop = send(shouting(&path)?).await?.is(303, "a download with `BEARER` in capitals")?;
    let hop = site.at(hop.header("location"))?;
    if !site.own(&hop) {
        bail!("a client that writes `BEARER` would send its token on to the object store");
    }
    let last = send(shouting(hop.as_str())?).await?.is(307, "the second step of such a download")?;
    let got = send(site.bare(Method::GET, last.header("location"))?).await?.is(200, "the end of such a download")?;
    if got.bytes != image.bytes {
        bail!("a download with `BEARER` in capitals brings other bytes");
    }
    Ok(Verdict::Ok("old clients log in, and their token stays here".to_owned()))
}

pub(super) async fn share(site: &Site) -> anyhow::Result<Verdict> {
    let image = pushed!(site);
    let body = json!({ "image": format!("{}:{TAG}", site.place()?.container()), "uses": 1, "expires_in": 600 });
    let made = site.json(Method::POST, "/api/shares", body).await?.done("making a share")?;
    let request = site.bare(Method::GET, &made.text("/data/url"))?;
    let used = send(request.header("accept", "*/*").header("user-agent", "curl/8")).await?;
    let used = used.is(303, "the use of a share")?;
    let got = send(site.bare(Method::GET, used.header("location"))?).await?.is(200, "the URL of a share")?;
    if got.bytes != image.bytes {
        bail!("a share brings other bytes");
    }
    Ok(Verdict::Ok("somebody without a token downloaded a private image by its share".to_owned()))
}
