//! Whether a table and a bucket of somebody else do what Stackroom relies on. Tried out at each start, before anybody is
//! served: many stores speak the protocols of `DynamoDB` and S3, and not all of them keep every promise.
//!
//! 1. The table, as [`shared::store::probe`] says.
//! 2. The bucket: whole objects by URL with the right and with wrong bytes, parts, ranges, the headers of answers, lists.
//! 3. What was written is deleted. *Dies*: a sweep removes the objects, because nothing names them.
//!
//! A bucket that does not accept URLs with the digest of the bytes in them, or accepts other bytes, is used without such
//! URLs: then Stackroom reads what clients sent, and hashes it. Whatever else is missing ends the start.

use anyhow::{Context, bail};
use axum::body::Bytes;
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Client, Response, StatusCode};
use shared::config::Pins;
use shared::domain::Digest;
use shared::rules::{Action, Grant, Resource};
use shared::service::access::system;
use shared::store::objects::{NewPart, NewPut, OwnPart, Part, Said};
use shared::store::{Objects, Table, probe};
use std::time::Duration;

/// How long the URLs of the trial are valid.
const LIFE: Duration = Duration::from_mins(5);
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The smallest part that is not the last one, by S3's rules, in bytes.
const PART: usize = 5 << 20;

/// What a bucket can do, beside what it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// What its URLs can fix of the bytes of an upload.
    pub pins: Pins,
}

/// What a bucket does, and what it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedBucket {
    /// What its URLs can fix of the bytes of an upload.
    pub pins: Pins,
    /// What it must do, and does not.
    pub wrong: Vec<&'static str>,
}

/// Tries a table and a bucket out.
///
/// # Errors
/// If one of them can't be reached, or does not do something that must be.
pub async fn probe(table: &Table, objects: &Objects) -> anyhow::Result<Probed> {
    let wrong = try_table(table).await.context("the table can't be used")?;
    if !wrong.is_empty() {
        bail!("the table can't be used: it fails at {}", wrong.join("; at "));
    }
    let TriedBucket { pins, wrong } = try_bucket(objects).await.context("the bucket can't be used")?;
    if !wrong.is_empty() {
        bail!("the bucket can't be used: it fails at {}", wrong.join("; at "));
    }
    Ok(Probed { pins })
}

/// Tries a table out. Returns what it does not do.
///
/// # Errors
/// If it can't be reached.
pub async fn try_table(table: &Table) -> anyhow::Result<Vec<&'static str>> {
    let grant = system(Action::Manage, &Resource::Installation)?;
    let trial = crate::local::random_text::<8>()?;
    Ok(probe::table(table, &grant, &trial).await?)
}

/// Tries a bucket out.
///
/// # Errors
/// If it can't be reached.
pub async fn try_bucket(objects: &Objects) -> anyhow::Result<TriedBucket> {
    let grant = system(Action::Manage, &Resource::Installation)?;
    let trial = crate::local::random_text::<8>()?;
    // Clients may reach the bucket at an endpoint that we can't reach.
    let objects = &objects.inside();
    let bucket = Bucket { objects, grant, client: Client::builder().timeout(PATIENCE).no_proxy().build()?, trial };
    let mut wrong = Vec::new();
    let tried = bucket.try_out(&mut wrong).await;
    for name in NAMES {
        // It is only tidied up: a sweep does the rest.
        let _ = objects.delete(&bucket.grant, &bucket.name(name)).await;
    }
    Ok(TriedBucket { pins: tried?, wrong })
}

/// The objects of a trial.
const NAMES: [&str; 4] = ["pinned", "other", "whole", "parts"];

struct Bucket<'a> {
    objects: &'a Objects,
    grant: Grant,
    client: Client,
    trial: String,
}

impl Bucket<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}{}-{name}", probe::OBJECTS, self.trial)
    }

    /// Tries everything, and collects what is wrong. Returns what URLs can fix of the bytes.
    async fn try_out(&self, wrong: &mut Vec<&'static str>) -> anyhow::Result<Pins> {
        let pins = self.pins().await?;
        self.whole(wrong).await?;
        self.parts(pins, wrong).await
    }

    async fn send(&self, url: String, bytes: &[u8], digest: Option<Digest>) -> anyhow::Result<Response> {
        let mut request = self.client.put(url).body(bytes.to_vec());
        if let Some(digest) = digest {
            request = request.header("x-amz-content-sha256", digest.hex());
        }
        let answer = request.send().await;
        // Its URL is a secret.
        answer.map_err(reqwest::Error::without_url).context("the bucket can't be reached")
    }

    /// Whether the bucket refuses something. What it can't do at this moment is no refusal.
    fn refused(answer: &Response) -> anyhow::Result<bool> {
        let status = answer.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            bail!("the bucket answers {status}, try again later");
        }
        Ok(!status.is_success())
    }

    /// Whether the right bytes are taken at a URL with a digest, and others are not, whatever digest their sender claims.
    async fn pins(&self) -> anyhow::Result<bool> {
        let (right, other) = (b"the right bytes".as_slice(), b"the other bytes".as_slice());
        let put = NewPut { size: right.len() as u64, digest: Some(Digest::of(right)) };
        let url = async |name: &str| self.objects.presign_put(&self.grant, &self.name(name), put, LIFE).await;
        let taken = !Self::refused(&self.send(url("pinned").await?, right, put.digest).await?)?;
        let refused = Self::refused(&self.send(url("other").await?, other, put.digest).await?)?
            && Self::refused(&self.send(url("other").await?, other, Some(Digest::of(other))).await?)?
            && self.objects.size(&self.name("other")).await?.is_none();
        Ok(taken && refused)
    }

    async fn whole(&self, wrong: &mut Vec<&'static str>) -> anyhow::Result<()> {
        let mut must = |holds: bool, what| wrong.extend((!holds).then_some(what));
        let name = self.name("whole");
        let bytes = b"0123456789".as_slice();
        let put = NewPut { size: bytes.len() as u64, digest: None };
        let url = self.objects.presign_put(&self.grant, &name, put, LIFE).await?;
        let long = self.send(url.clone(), b"0123456789x", None).await?;
        must(Self::refused(&long)?, "refusing more bytes than a URL is for");
        must(self.send(url, bytes, None).await?.status().is_success(), "accepting an object by URL");
        must(self.objects.size(&name).await? == Some(bytes.len() as u64), "telling the size of an object");
        must(self.objects.read(&name, 3..6).await?.as_ref() == b"345", "reading a range");

        let url = self.objects.presign_get(&name, Some("a.sif"), LIFE).await?;
        let changed = url.replace("a.sif", "b.sif");
        let answer = self.client.get(&url).header(RANGE, "bytes=2-4").send().await;
        let answer = answer.map_err(reqwest::Error::without_url)?;
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        must(answer.status() == 206 && header(CONTENT_RANGE) == "bytes 2-4/10", "answering a range by URL");
        must(header(CONTENT_TYPE) == "application/octet-stream", "the content type that a URL names");
        must(header(CONTENT_DISPOSITION).contains("a.sif"), "the file name that a URL names");
        must(answer.bytes().await?.as_ref() == b"234", "sending the range that was asked for");
        let answer = self.client.get(changed).send().await.map_err(reqwest::Error::without_url)?;
        must(Self::refused(&answer)?, "refusing a URL that was changed");

        let after = Some(format!("{}{}", probe::OBJECTS, self.trial));
        let listed = self.objects.list(after).await?;
        must(listed.iter().any(|one| one.object == name), "listing an object");
        self.objects.delete(&self.grant, &name).await?;
        must(self.objects.size(&name).await?.is_none(), "forgetting at once what was deleted");
        Ok(())
    }

    async fn parts(&self, pins: bool, wrong: &mut Vec<&'static str>) -> anyhow::Result<Pins> {
        let name = self.name("parts");
        let upload = self.objects.begin_parts(&self.grant, &name).await?;
        let tried = self.upload((&name, &upload), pins, wrong).await;
        // It may be put together already, and then it is no more.
        let ended = self.objects.abort_parts(&self.grant, &name, &upload).await;
        let pins = tried?;
        ended.context("an upload in parts can't be ended")?;
        let open = self.objects.open_parts().await?;
        let mut must = |holds: bool, what| wrong.extend((!holds).then_some(what));
        must(!open.iter().any(|one| one.upload == upload), "forgetting an upload that was ended");
        Ok(pins)
    }

    /// Sends a part as clients of the library do: with its digest in a header, whatever its URL says. Returns its `ETag`;
    /// `None` if it is refused.
    async fn part(&self, part: NewPart<'_>, name: &str) -> anyhow::Result<Option<String>> {
        let bytes = vec![b'a'; usize::try_from(part.length)?];
        let url = self.objects.presign_part(&self.grant, name, part, LIFE).await?;
        let sent = self.send(url, &bytes, Some(Digest::of(&bytes))).await?;
        let etag = sent.headers().get("etag").and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_owned();
        Ok(Some(etag).filter(|etag| !etag.is_empty()).filter(|_| sent.status().is_success()))
    }

    /// What URLs can fix of the bytes of a part, in a bucket that does not refuse other bytes: one short part is tried,
    /// since a store may close the connection instead of reading what it refuses.
    async fn unpinned(&self, name: &str, upload: &str) -> anyhow::Result<Pins> {
        let short = NewPart { upload, number: 3, length: 1, says: None };
        let taken = self.part(short, name).await?.is_some();
        Ok(if taken { Pins::Nothing } else { Pins::Header })
    }

    async fn upload(
        &self,
        (name, upload): (&str, &str),
        pins: bool,
        wrong: &mut Vec<&'static str>,
    ) -> anyhow::Result<Pins> {
        let mut must = |holds: bool, what| wrong.extend((!holds).then_some(what));
        let (grant, objects) = (&self.grant, self.objects);
        if !objects.open_parts().await?.iter().any(|one| one.upload == upload) {
            // Some list them only for a whole name, and say so.
            tracing::warn!("the bucket does not list uploads in parts: those that nobody ends stay there");
        }
        let pins = if pins { Pins::Bytes } else { self.unpinned(name, upload).await? };
        let digest = Digest::of(&vec![b'a'; PART]);
        let says = match pins {
            Pins::Bytes => Some(Said::Bytes(digest)),
            Pins::Header => Some(Said::Header(digest)),
            Pins::Nothing => None,
        };
        let first = NewPart { upload, number: 1, length: PART as u64, says };
        let Some(etag) = self.part(first, name).await? else {
            must(false, "accepting a part by URL");
            return Ok(pins);
        };
        let second = OwnPart { upload, number: 2, bytes: Bytes::from_static(b"bb").into() };
        let second = objects.put_part(grant, name, second).await?;
        let list = |first: &str| {
            [(1, first), (2, second.as_str())].map(|(number, etag)| Part { number, etag: etag.to_owned() })
        };
        let broken = objects.complete_parts(grant, name, upload, &list("\"00000000000000000000000000000000\"")).await;
        must(broken.is_err(), "refusing to put parts together that were not sent");
        objects.complete_parts(grant, name, upload, &list(&etag)).await.context("parts can't be put together")?;
        let (start, end) = (PART as u64 - 1, PART as u64 + 2);
        must(objects.read(name, start..end).await?.as_ref() == b"abb", "reading across parts");
        let copy = self.name("other");
        objects.copy(grant, name, &copy, end).await.context("an object can't be copied")?;
        must(objects.size(&copy).await? == Some(end), "copying all of an object");
        Ok(pins)
    }
}
