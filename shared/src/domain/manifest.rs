//! OCI and Docker manifests: their contents, and which of them are refused.
//!
//! The bytes of a manifest are kept exactly as they came; this module only reads them. Source: OCI image-spec 1.1
//! (manifest, image index), Docker manifest v2 schema 2.

use super::digest::{Digest, OciDigest};
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// The largest manifest that is accepted, in bytes: the minimum that the specification requires of registries.
pub const MAX: usize = 4 << 20;
/// The most descriptors in a manifest.
const MAX_DESCRIPTORS: usize = 3000;
/// How deep a manifest may be nested; real ones have five levels.
const MAX_DEPTH: usize = 64;
/// Annotations longer than this, in bytes of JSON, are left out of a referrer's descriptor.
const MAX_ANNOTATIONS: usize = 8 << 10;

/// Media type of the layer that is a SIF image.
pub const SIF_LAYER: &str = "application/vnd.sylabs.sif.layer.v1.sif";
/// Media type of the empty configuration beside it.
pub const SIF_CONFIG: &str = "application/vnd.sylabs.sif.config.v1+json";
/// Media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media types of the configuration of an image for container runtimes.
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_V1: &str = "application/vnd.docker.distribution.manifest.v1";

/// The empty document `{}`, which is the configuration of SIF images and of many artifacts.
pub const EMPTY: &[u8] = b"{}";

/// Whether manifests of a media type list other manifests, of which clients choose one.
pub fn is_index(media_type: &str) -> bool {
    [OCI_INDEX, DOCKER_LIST].contains(&media_type)
}

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ManifestError(String);

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Blobs and manifests that must be in the repository before it.
    pub needs: Vec<OciDigest>,
    /// Other blobs and manifests that it names, which may be elsewhere.
    pub mentions: Vec<OciDigest>,
    /// Its subject.
    pub subject: Option<OciDigest>,
    /// Its artifact type; empty if it states none.
    pub artifact_type: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The digest of its only layer, if that is a SIF image and must be in the repository.
    pub sif: Option<Digest>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: OciDigest,
    #[serde(rename = "mediaType", default)]
    media_type: String,
}

/// Unknown fields are ignored here; they survive in the stored bytes. A known field that comes twice is an error.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "mediaType", default)]
    media_type: Option<String>,
    #[serde(rename = "artifactType", default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    blobs: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// The media type of a manifest that came without one, in a header or inside: an image manifest has a configuration
/// and layers, and nothing else has both. Empty if it can't be told.
pub fn implied(bytes: &[u8]) -> &'static str {
    match serde_json::from_slice::<Document>(bytes) {
        Ok(Document { media_type: None, config: Some(_), layers: Some(_), manifests: None, blobs: None, .. }) => {
            OCI_MANIFEST
        }
        _ => "",
    }
}

/// Whether a media type is one `application/…` of the form of RFC 6838, and none that a browser shows or runs.
fn is_document(media_type: &str) -> bool {
    let Some(subtype) = media_type.strip_prefix("application/") else { return false };
    let shown = ["xml", "pdf", "javascript", "ecmascript"].iter().any(|end| subtype.ends_with(end));
    (1..=127).contains(&subtype.len())
        && subtype.starts_with(|first: char| first.is_ascii_alphanumeric())
        && subtype.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
        && !shown
}

impl Manifest {
    /// Reads a manifest that came with the media type `media_type`, which is in lower case.
    pub fn read(media_type: &str, bytes: &[u8]) -> Result<Self, ManifestError> {
        let wrong = |why: &str| Err(ManifestError(why.to_owned()));
        if media_type.starts_with(DOCKER_V1) {
            return wrong("manifests of Docker's schema 1 are not accepted, push with a newer client");
        }
        if !is_document(media_type) {
            return wrong(
                "the Content-Type header must give the manifest's media type, like application/vnd.oci.image.manifest.v1+json",
            );
        }
        if depth(bytes) > MAX_DEPTH {
            return wrong("the manifest is nested too deeply");
        }
        let unread = |error: serde_json::Error| ManifestError(format!("the manifest can't be read: {error}"));
        let document: Document = serde_json::from_slice(bytes).map_err(unread)?;
        Place::Document.deserialize(&mut serde_json::Deserializer::from_slice(bytes)).map_err(unread)?;
        if document.media_type.as_ref().is_some_and(|own| !own.eq_ignore_ascii_case(media_type)) {
            return wrong("the manifest's mediaType differs from the Content-Type header");
        }
        // A document that is both would be one or the other depending on its Content-Type alone (CVE-2021-41190).
        let image = document.config.is_some() || document.layers.is_some();
        if image && document.manifests.is_some() {
            return wrong("the manifest is both an image and an index");
        }
        let missing = match media_type {
            OCI_MANIFEST | DOCKER_MANIFEST => document.config.is_none() || document.layers.is_none(),
            OCI_INDEX | DOCKER_LIST => document.manifests.is_none(),
            _ => false,
        };
        if missing {
            return wrong("the manifest lacks fields that its media type requires: config and layers, or manifests");
        }
        Self::of(media_type, document)
    }

    fn of(media_type: &str, document: Document) -> Result<Self, ManifestError> {
        let Document { artifact_type, config, layers, blobs, manifests, subject, annotations, .. } = document;
        // We know the meaning of fields only for these types. Manifests of any other type are accepted as they are, as
        // the specification requires: what they name need not be there, and they become no library image.
        let known = matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_LIST);
        let sif = match layers.as_deref() {
            Some([Descriptor { digest: OciDigest::Sha256(digest), media_type }])
                if known && media_type == SIF_LAYER =>
            {
                Some(*digest)
            }
            _ => None,
        };
        let config_type = config.as_ref().map(|config| config.media_type.clone()).unwrap_or_default();
        let artifact_type = artifact_type.unwrap_or(config_type);
        if artifact_type.len() > 255 {
            return Err(ManifestError("a media type can have at most 255 bytes".to_owned()));
        }
        let parts = [layers, blobs, manifests].into_iter().flatten().flatten().chain(config);
        let (mut needs, mut mentions) = (Vec::new(), Vec::new());
        for part in parts {
            // Clients fetch such layers from their original location.
            let elsewhere = part.media_type.contains("nondistributable") || part.media_type.contains(".foreign.");
            let list = if known && !elsewhere { &mut needs } else { &mut mentions };
            list.push(part.digest);
        }
        if needs.len() + mentions.len() > MAX_DESCRIPTORS {
            return Err(ManifestError(format!("a manifest can name at most {MAX_DESCRIPTORS} others")));
        }
        needs.sort_unstable();
        needs.dedup();
        mentions.sort_unstable();
        mentions.dedup();
        Ok(Self {
            needs,
            mentions,
            subject: subject.map(|subject| subject.digest),
            artifact_type,
            annotations: annotations.unwrap_or_default(),
            sif,
        })
    }

    /// Its descriptor in the list of its subject's referrers, a JSON document.
    pub fn descriptor(&self, media_type: &str, digest: &OciDigest, size: usize) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Referrer<'a> {
            media_type: &'a str,
            digest: &'a OciDigest,
            size: usize,
            #[serde(skip_serializing_if = "str::is_empty")]
            artifact_type: &'a str,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            annotations: &'a BTreeMap<String, String>,
        }
        let none = BTreeMap::new();
        // Measured as written: one character may take six bytes.
        let length = serde_json::to_string(&self.annotations).map_or(usize::MAX, |text| text.len());
        let annotations = if length > MAX_ANNOTATIONS { &none } else { &self.annotations };
        let row = Referrer { media_type, digest, size, artifact_type: &self.artifact_type, annotations };
        serde_json::to_string(&row).unwrap_or_default()
    }
}

/// What an accepted manifest holds, as far as it is for people who want a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// The media type of its configuration; empty if it has none.
    pub config: String,
    /// Whether it is an index of other manifests.
    pub index: bool,
    /// Its layers.
    pub layers: Vec<Layer>,
}

/// A layer of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The digest of its bytes.
    pub digest: OciDigest,
    /// Bytes, as the manifest says.
    pub size: u64,
    /// The name of the file that it is, if the manifest says one.
    pub file: Option<String>,
}

/// The annotation with the name of a layer's file.
const TITLE: &str = "org.opencontainers.image.title";
/// The annotation of a layer that is a packed folder.
const UNPACK: &str = "io.deis.oras.content.unpack";

/// Reads what a manifest holds. What can't be read in it is left out: it was accepted as it is.
pub fn contents(bytes: &[u8]) -> Contents {
    #[derive(Deserialize)]
    struct Part {
        digest: OciDigest,
        #[serde(default)]
        size: u64,
        #[serde(rename = "mediaType", default)]
        media_type: String,
        #[serde(default)]
        annotations: Option<BTreeMap<String, String>>,
    }
    #[derive(Deserialize)]
    struct Parts {
        config: Option<Descriptor>,
        layers: Option<Vec<Part>>,
        manifests: Option<IgnoredAny>,
    }
    let Ok(Parts { config, layers, manifests }) = serde_json::from_slice(bytes) else { return Contents::default() };
    let layer = |part: Part| {
        let annotations = part.annotations.unwrap_or_default();
        let packed = annotations.get(UNPACK).is_some_and(|unpack| unpack == "true");
        // A folder is packed by its pusher, under its own name.
        let end = if !packed {
            ""
        } else if part.media_type.ends_with("gzip") {
            ".tar.gz"
        } else {
            ".tar"
        };
        let file = annotations.get(TITLE).filter(|title| !title.is_empty());
        let file = file.map(|title| format!("{}{end}", title.trim_end_matches('/')));
        Layer { digest: part.digest, size: part.size, file }
    };
    Contents {
        config: config.map(|config| config.media_type).unwrap_or_default(),
        index: manifests.is_some(),
        layers: layers.into_iter().flatten().map(layer).collect(),
    }
}

impl Contents {
    /// A word for what it is: `singularity`, `docker`, `oci`, `oras` or `other`.
    pub fn kind(&self) -> &'static str {
        match self.config.as_str() {
            SIF_CONFIG => "singularity",
            DOCKER_CONFIG => "docker",
            OCI_CONFIG => "oci",
            _ if self.layers.is_empty() => "other",
            _ => "oras",
        }
    }

    /// Its only layer, if that is a file.
    ///
    /// # Errors
    /// Why it is none, as a sentence for the user.
    pub fn file(&self) -> Result<&Layer, &'static str> {
        match (self.layers.as_slice(), self.kind()) {
            _ if self.index => Err("it is an index of several images: name one of them"),
            (_, "docker" | "oci") => Err("it is a container image for docker or podman, which is more than one file"),
            ([layer], _) => Ok(layer),
            ([], _) => Err("it has no layer, so there is no file in it"),
            _ => Err("it has several layers, and only a manifest with one layer is one file"),
        }
    }
}

/// A place in a manifest whose keys have a meaning. Clients in Go accept `Layers` for `layers`, and use the last one
/// of two. A document with both would mean one thing to them and another to us (CVE-2021-41190 again), so each known
/// key must be spelt exactly, and come only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Document,
    Descriptor,
    Other,
}

impl Place {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Document => &[
                "schemaVersion",
                "mediaType",
                "artifactType",
                "config",
                "layers",
                "blobs",
                "manifests",
                "subject",
                "annotations",
            ],
            Self::Descriptor => {
                &["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"]
            }
            Self::Other => &[],
        }
    }

    /// The place under one of its keys; in a list, all entries are such places.
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Document, "config" | "layers" | "blobs" | "manifests" | "subject") => Self::Descriptor,
            _ => Self::Other,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        match self {
            Self::Other => IgnoredAny::deserialize(value).map(drop),
            // Anything else was refused or left out by the other parser.
            Self::Document | Self::Descriptor => value.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Place {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, a list of objects, or null")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = object.next_key::<String>()? {
            let name = folded(&key);
            if let Some(known) = self.keys().iter().find(|known| known.eq_ignore_ascii_case(&name)) {
                if *known != key {
                    return Err(A::Error::custom(format!(
                        "`{key}` is not `{known}`, but some clients would read it as that"
                    )));
                }
                if !seen.insert(known) {
                    return Err(A::Error::custom(format!("`{key}` appears twice")));
                }
            }
            object.next_value_seed(self.below(&key))?;
        }
        Ok(())
    }
}

/// A key with two non-ASCII characters replaced by the letters for which Go takes them: the long s and the Kelvin
/// sign.
fn folded(key: &str) -> String {
    key.replace('\u{17f}', "s").replace('\u{212a}', "k")
}

/// How deep the lists and objects of a JSON document are nested.
fn depth(bytes: &[u8]) -> usize {
    let (mut now, mut most, mut text, mut escaped) = (0usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b'[' | b'{' if !text => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' if !text => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// The manifest of a SIF image of `size` bytes. The same image under the same name always has the same manifest.
pub fn of_sif(name: &str, hash: &Digest, size: u64) -> String {
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": SIF_CONFIG, "digest": Digest::of(EMPTY), "size": EMPTY.len() },
        "layers": [{
            "mediaType": SIF_LAYER,
            "digest": hash,
            "size": size,
            "annotations": { "org.opencontainers.image.title": format!("{name}.sif") },
        }],
    })
    .to_string()
}

/// An image in an index.
#[derive(Debug, Clone, Copy)]
pub struct IndexEntry<'a> {
    /// Its architecture.
    pub arch: &'a str,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The size of its manifest, in bytes.
    pub size: usize,
}

/// The index of several SIF images.
pub fn index_of<'a>(images: impl IntoIterator<Item = IndexEntry<'a>>) -> String {
    let one = |IndexEntry { arch, digest, size }: IndexEntry<'_>| {
        serde_json::json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest,
            "size": size,
            "platform": { "architecture": arch, "os": "linux" },
        })
    };
    let manifests: Vec<_> = images.into_iter().map(one).collect();
    serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> OciDigest {
        Digest::of(text.as_bytes()).into()
    }

    #[test]
    fn a_sif_image_is_seen_in_its_manifest() {
        let hash = Digest::of(b"sif");
        let body = of_sif("bb", &hash, 3);
        let manifest = Manifest::read(OCI_MANIFEST, body.as_bytes()).unwrap();
        assert_eq!(manifest.sif, Some(hash));
        assert_eq!(manifest.artifact_type, SIF_CONFIG);
        let mut needs = vec![hash.into(), OciDigest::from(Digest::of(EMPTY))];
        needs.sort_unstable();
        assert_eq!(manifest.needs, needs);
    }

    #[test]
    fn a_manifest_with_one_layer_is_a_file_and_others_say_why_they_are_none() {
        let layer = |title: &str, kind: &str, unpack: bool| {
            serde_json::json!({
                "mediaType": kind, "digest": digest("a"), "size": 1,
                "annotations": { TITLE: title, UNPACK: unpack.to_string() },
            })
        };
        let read = |config: &str, layers: &[serde_json::Value]| {
            let config = serde_json::json!({ "mediaType": config, "digest": digest("c"), "size": 2 });
            contents(serde_json::json!({ "config": config, "layers": layers }).to_string().as_bytes())
        };
        let named = |contents: &Contents| contents.file().map(|layer| layer.file.clone().unwrap_or_default());
        let unknown = "application/vnd.unknown.config.v1+json";
        for (title, kind, unpack, name) in [
            ("a.txt", "text/plain", false, "a.txt"),
            ("DIR", "application/vnd.oci.image.layer.v1.tar+gzip", true, "DIR.tar.gz"),
            ("DIR/", "application/vnd.oci.image.layer.v1.tar", true, "DIR.tar"),
            ("", "text/plain", false, ""),
        ] {
            let one = read(unknown, &[layer(title, kind, unpack)]);
            assert_eq!((named(&one), one.kind()), (Ok(name.to_owned()), "oras"));
        }
        let sif = contents(of_sif("bb", &Digest::of(b"sif"), 3).as_bytes());
        assert_eq!((named(&sif), sif.kind()), (Ok("bb.sif".to_owned()), "singularity"));
        let layers = [layer("a", "x/y", false), layer("b", "x/y", false)];
        for (none, word) in [
            (read(unknown, &layers), "several layers"),
            (read(unknown, &[]), "no layer"),
            (read(OCI_CONFIG, &layers[..1]), "docker or podman"),
            (read(DOCKER_CONFIG, &layers[..1]), "docker or podman"),
            (contents(index_of([]).as_bytes()), "index"),
            (contents(b"no JSON"), "no layer"),
        ] {
            assert!(none.file().is_err_and(|why| why.contains(word)), "{none:?}");
        }
    }

    #[test]
    fn an_index_needs_its_manifests() {
        let body = index_of([
            IndexEntry { arch: "amd64", digest: Digest::of(b"a"), size: 1 },
            IndexEntry { arch: "arm64", digest: Digest::of(b"b"), size: 1 },
        ]);
        let index = Manifest::read(OCI_INDEX, body.as_bytes()).unwrap();
        let mut needs = vec![digest("a"), digest("b")];
        needs.sort_unstable();
        assert_eq!((index.needs, index.sif, index.subject), (needs, None, None));
    }

    #[test]
    fn layers_from_elsewhere_and_parts_of_unknown_manifests_need_not_be_there() {
        let layer = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        let body = format!(
            r#"{{"config":{{"digest":"{}"}},"layers":[{{"mediaType":"{layer}","digest":"{}"}}]}}"#,
            digest("config"),
            digest("layer")
        );
        let manifest = Manifest::read(OCI_MANIFEST, body.as_bytes()).unwrap();
        assert_eq!((manifest.needs, manifest.mentions), (vec![digest("config")], vec![digest("layer")]));
        let unknown = Manifest::read("application/x", body.as_bytes()).unwrap();
        assert_eq!((unknown.needs.len(), unknown.mentions.len()), (0, 2));
    }

    #[test]
    fn keys_that_nobody_knows_are_left_alone() {
        let a = digest("a");
        for body in [
            r#"{"manifests":[],"Other":1,"other":2,"other":3,"annotations":{"Layers":"","layers":""}}"#.to_owned(),
            format!(r#"{{"manifests":[{{"digest":"{a}","Layers":1,"annotations":{{"Digest":"","digest":""}}}}]}}"#),
            r#"{"manifests":[],"x":{"Manifests":[],"digest":1,"Digest":2},"subject":null}"#.to_owned(),
        ] {
            assert!(Manifest::read(OCI_INDEX, body.as_bytes()).is_ok(), "{body}");
        }
    }

    #[test]
    fn annotations_are_measured_as_they_are_written() {
        let of = |sign: char, count: usize| {
            let value = serde_json::json!(sign.to_string().repeat(count));
            let body = format!(r#"{{"manifests":[],"annotations":{{"a":{value}}}}}"#);
            let index = Manifest::read(OCI_INDEX, body.as_bytes()).unwrap();
            index.descriptor(OCI_INDEX, &digest("a"), body.len())
        };
        assert!(of('x', 8000).len() > 8000);
        assert!(of('x', 8192).len() < 300, "with quotes and name it is longer");
        assert!(of('\u{1}', 1000).len() > 6000);
        assert!(of('\u{1}', 8000).len() < 300);
    }

    #[test]
    fn a_sif_image_in_a_manifest_of_unknown_type_is_none() {
        let body = of_sif("bb", &Digest::of(b"sif"), 3).replace(OCI_MANIFEST, "application/x");
        assert_eq!(Manifest::read("application/x", body.as_bytes()).unwrap().sif, None);
    }

    #[test]
    fn what_has_a_configuration_and_layers_is_an_image_manifest() {
        let (config, layers) = (format!(r#""config":{{"digest":"{}"}}"#, digest("a")), r#""layers":[]"#);
        for (body, kind) in [
            (format!(r#"{{"schemaVersion": 2, {config}, {layers}}}"#), OCI_MANIFEST),
            (format!(r#"{{{config},{layers},"manifests":[]}}"#), ""),
            (format!(r#"{{{config},{layers},"mediaType":"{OCI_MANIFEST}"}}"#), ""),
            (format!(r#"{{{config},{layers},"layers":[]}}"#), ""),
            (format!("{{{config}}}"), ""),
            (format!("{{{layers}}}"), ""),
            (r#"{"manifests":[]}"#.to_owned(), ""),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), ""),
            ("[]".to_owned(), ""),
            ("[".repeat(10_000), ""),
        ] {
            assert_eq!(implied(body.as_bytes()), kind, "{body}");
        }
    }

    #[test]
    fn what_can_mean_two_things_is_refused() {
        let a = digest("a");
        for (media_type, body) in [
            (OCI_MANIFEST, format!(r#"{{"config":{{"digest":"{a}"}},"layers":[],"manifests":[]}}"#)),
            (OCI_INDEX, format!(r#"{{"manifests":[],"config":{{"digest":"{a}"}}}}"#)),
            (OCI_INDEX, format!(r#"{{"mediaType":"{OCI_MANIFEST}","manifests":[]}}"#)),
            (OCI_INDEX, r#"{"manifests":[],"manifests":[]}"#.to_owned()),
            (OCI_MANIFEST, "{}".to_owned()),
            (OCI_INDEX, format!(r#"{{"manifests":[],"x":{}{}}}"#, "[".repeat(100), "]".repeat(100))),
            (OCI_INDEX, "[]".to_owned()),
            (OCI_INDEX, "\u{feff}{\"manifests\":[]}".to_owned()),
            ("", r#"{"manifests":[]}"#.to_owned()),
            (DOCKER_V1, "{}".to_owned()),
            (OCI_MANIFEST, r#"{"config":{"digest":"sha256:x"},"layers":[]}"#.to_owned()),
            (OCI_INDEX, r#"{"manifests":[],"Layers":[]}"#.to_owned()),
            (OCI_INDEX, r#"{"manifests":[],"layer\u017f":[]}"#.to_owned()),
            (OCI_INDEX, "{\"manifests\":[],\"layer\u{17f}\":[]}".to_owned()),
            (OCI_INDEX, "{\"manifests\":[],\"MEDIATYPE\":\"\"}".to_owned()),
            (OCI_INDEX, format!(r#"{{"manifests":[{{"digest":"{a}","Digest":"{a}"}}]}}"#)),
            (OCI_INDEX, format!(r#"{{"manifests":[{{"digest":"{a}","size":1,"size":2}}]}}"#)),
            (OCI_MANIFEST, format!(r#"{{"config":{{"digest":"{a}","\u212Aey":1,"URLS":[]}},"layers":[]}}"#)),
        ] {
            assert!(Manifest::read(media_type, body.as_bytes()).is_err(), "{media_type}: {body}");
        }
    }
}
