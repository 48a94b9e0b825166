//! Manifests: an accepted one means the same to everybody, and is kept within bounds.
//!
//! The first line of the input is a media type, the rest the document. It is read as that type, and as each type whose
//! fields are known.

use serde_json::Value;
use shared::domain::manifest::{Manifest, OCI_INDEX, OCI_MANIFEST};
use shared::domain::{Digest, OciDigest};
use std::collections::BTreeSet;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const IMAGES: [&str; 2] = [OCI_MANIFEST, DOCKER_MANIFEST];
const INDEXES: [&str; 2] = [OCI_INDEX, DOCKER_LIST];

/// The most digests in a manifest.
const MOST_NAMED: usize = 3000;
/// The longest descriptor in a list of referrers, with 8 KiB of annotations and two media types of 255 bytes in it.
const LONGEST_DESCRIPTOR: usize = 12 << 10;

/// A key, folded as Go's JSON decoder compares it.
fn folded(key: &str) -> String {
    key.replace('\u{17f}', "s").replace('\u{212a}', "k").to_ascii_lowercase()
}

/// All values of a key, as a case-insensitive reader finds them.
fn under<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    let object = value.as_object().into_iter().flatten();
    object.filter(|(name, _)| folded(name) == folded(key)).map(|(_, value)| value).collect()
}

/// The digests that such a reader finds in a document, and its subject's.
fn found(document: &Value) -> (BTreeSet<OciDigest>, Option<OciDigest>) {
    let digest = |part: &Value| under(part, "digest").first().and_then(|digest| digest.as_str()?.parse().ok());
    let parts = ["config", "layers", "blobs", "manifests"].map(|key| under(document, key));
    let parts =
        parts.iter().flatten().flat_map(|part| part.as_array().map_or(std::slice::from_ref(*part), Vec::as_slice));
    (parts.filter_map(digest).collect(), under(document, "subject").first().copied().and_then(digest))
}

fn check(media_type: &str, body: &[u8], manifest: &Manifest) {
    for list in [&manifest.needs, &manifest.mentions] {
        assert!(list.is_sorted_by(|one, next| one < next), "sorted, and each once");
    }
    assert!(manifest.needs.len() + manifest.mentions.len() <= MOST_NAMED);
    let known = IMAGES.contains(&media_type) || INDEXES.contains(&media_type);
    assert!(known || manifest.needs.is_empty(), "nothing is known of {media_type}");
    if let Some(image) = manifest.sif {
        assert!(IMAGES.contains(&media_type), "an image in {media_type}");
        assert!(manifest.needs.contains(&image.into()), "an image that need not be there");
    }
    let digest = OciDigest::from(Digest::of(body));
    let descriptor = manifest.descriptor(media_type, &digest, body.len());
    assert!(descriptor.len() < LONGEST_DESCRIPTOR, "a descriptor of {} bytes", descriptor.len());
    let descriptor: Value = serde_json::from_str(&descriptor).expect("a descriptor is a document");
    assert_eq!(descriptor["digest"], digest.to_string());
    assert_eq!(descriptor["mediaType"], media_type);
    assert_eq!(descriptor["artifactType"].as_str().unwrap_or_default(), manifest.artifact_type);

    let again = [body, b" \n"].concat();
    assert_eq!(Manifest::read(media_type, &again).as_ref(), Ok(manifest), "blanks at the end");
    // Numbers that no program can hold are accepted where nobody reads them, so not every document parses as a `Value`.
    let Ok(document) = serde_json::from_slice::<Value>(body) else { return };
    let (named, subject) = found(&document);
    assert_eq!(named, manifest.needs.iter().chain(&manifest.mentions).copied().collect(), "others read other digests");
    assert_eq!(subject, manifest.subject);
    let rewritten = document.to_string();
    assert_eq!(Manifest::read(media_type, rewritten.as_bytes()).as_ref(), Ok(manifest), "{rewritten}");
}

/// Checks one input.
///
/// # Panics
/// If something is wrong.
pub fn run(input: &[u8]) {
    let (line, body) = input.iter().position(|byte| *byte == b'\n').map_or((input, &[][..]), |end| input.split_at(end));
    let own = String::from_utf8_lossy(line).to_lowercase();
    let taken: Vec<&str> = [&IMAGES[..], &INDEXES[..], &[own.as_str()]]
        .concat()
        .into_iter()
        .filter(|media_type| match Manifest::read(media_type, body) {
            Ok(manifest) => {
                check(media_type, body, &manifest);
                true
            }
            Err(refused) => {
                assert!(!refused.to_string().is_empty());
                false
            }
        })
        .collect();
    // CVE-2021-41190: no document may be read as an image and as an index.
    let both = [IMAGES, INDEXES].iter().all(|kind| kind.iter().any(|media_type| taken.contains(media_type)));
    assert!(!both, "an image and an index: {taken:?}");
}
