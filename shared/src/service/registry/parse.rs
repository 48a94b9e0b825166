//! Parsing a pushed manifest, before anything is read or decided.

use super::pull::Reference;
use super::{Code, Refused};
use crate::domain::manifest::Manifest as Document;
use crate::domain::{Digest, OciDigest, TagName};
use bytes::Bytes;

/// The most tags that one request can set.
const MAX_TAGS: usize = 20;

/// A manifest as it arrived.
#[derive(Debug)]
pub struct NewManifest<'a> {
    /// Under which name.
    pub reference: &'a Reference,
    /// Tags beside that.
    pub tags: Vec<TagName>,
    /// Its media type.
    pub media_type: &'a str,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A manifest that was parsed and is valid.
pub(super) struct Parsed<'a> {
    pub(super) digest: OciDigest,
    /// In lower case, since media types are case-insensitive.
    pub(super) media_type: String,
    pub(super) body: &'a str,
    /// The same as `body`.
    pub(super) bytes: &'a Bytes,
    pub(super) document: Document,
    /// All tags that it is to get.
    pub(super) tags: Vec<TagName>,
}

impl<'a> Parsed<'a> {
    pub(super) fn of(new: &'a NewManifest<'_>) -> Result<Self, Refused> {
        let invalid = |why: String| Refused::Code(Code::ManifestInvalid, why);
        let media_type = new.media_type.to_ascii_lowercase();
        let body = std::str::from_utf8(&new.bytes).map_err(|_| invalid("the manifest is not UTF-8".to_owned()))?;
        let document = Document::read(&media_type, body.as_bytes()).map_err(|error| invalid(error.to_string()))?;
        let mut tags = new.tags.clone();
        let digest = match new.reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(name) => {
                tags.push(name.clone());
                Digest::of(body.as_bytes()).into()
            }
        };
        if digest.like([body]) != digest {
            return Err(Refused::code(Code::DigestInvalid, "the manifest's digest differs from the one in the URL"));
        }
        tags.sort_unstable();
        tags.dedup();
        if tags.len() > MAX_TAGS {
            return Err(Refused::code(Code::TooLarge, format!("at most {MAX_TAGS} tags can be set at once")));
        }
        Ok(Self { digest, media_type, body, bytes: &new.bytes, document, tags })
    }
}
