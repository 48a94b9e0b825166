//! SIF images for the tests, built byte by byte to the layout of the SIF specification 1.0. It shares nothing with the
//! product's own reader, so that the two can't make the same mistake.
//!
//! ```ignore
//! let image = SifBuilder::new("amd64").seed(7).definition("Bootstrap: scratch\n").build();
//! ```

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Bytes of the global header.
const HEADER: usize = 128;
/// Where the descriptor table begins, and how many rows of how many bytes it has.
const TABLE: usize = 4_096;
const ROWS: usize = 48;
const ROW: usize = 585;
/// Where the first object begins.
const DATA: usize = 32_768;
/// Partitions begin at a multiple of this.
const PAGE: usize = 4_096;
/// Group 1, which contains the objects of an image, and no group.
const GROUP: u32 = 0xF000_0001;
const NO_GROUP: u32 = 0xF000_0000;
/// The creation time of every image: 2026-01-01, in Unix seconds.
const CREATED: i64 = 1_767_225_600;

/// Architectures in the order of their codes, from `01`.
const ARCHITECTURES: [&str; 13] = [
    "386", "amd64", "arm", "arm64", "ppc64", "ppc64le", "mips", "mipsle", "mips64", "mips64le", "s390x", "riscv64",
    "loong64",
];

/// Builds a SIF image. Different seeds give different images, the same calls give the same image.
#[derive(Debug, Clone)]
#[must_use]
pub struct SifBuilder {
    arch: String,
    oci: bool,
    seed: u64,
    payload: Payload,
    definition: Option<String>,
    labels: Vec<(String, String)>,
    signatures: Vec<[u8; 20]>,
    encrypted: bool,
}

#[derive(Debug, Clone)]
enum Payload {
    Random(usize),
    Given(Vec<u8>),
}

/// One object with its descriptor.
struct Object {
    kind: i32,
    group: u32,
    link: u32,
    align: usize,
    name: &'static str,
    extra: Vec<u8>,
    content: Vec<u8>,
}

impl SifBuilder {
    /// An image for an architecture, given by its name in Go, with a primary system partition of 8 KiB. An unknown name
    /// gives an image of unknown architecture.
    pub fn new(arch: &str) -> Self {
        Self {
            arch: arch.to_owned(),
            oci: false,
            seed: 0,
            payload: Payload::Random(8_192),
            definition: None,
            labels: Vec::new(),
            signatures: Vec::new(),
            encrypted: false,
        }
    }

    /// An OCI-SIF: a configuration for this architecture, one layer, a manifest and a root index, no partition.
    pub fn oci_sif(arch: &str) -> Self {
        Self { oci: true, ..Self::new(arch) }
    }

    /// What the identifier and a random payload are derived from.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The number of random bytes in the partition or layer.
    pub fn payload_len(self, len: usize) -> Self {
        Self { payload: Payload::Random(len), ..self }
    }

    /// The content of the partition or layer.
    pub fn payload(self, content: impl Into<Vec<u8>>) -> Self {
        Self { payload: Payload::Given(content.into()), ..self }
    }

    /// The definition file.
    pub fn definition(self, text: &str) -> Self {
        Self { definition: Some(text.to_owned()), ..self }
    }

    /// Labels, where Apptainer keeps them: in the generic object `inspect-metadata.json`.
    pub fn labels(mut self, labels: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.labels.extend(labels.iter().map(owned));
        self
    }

    /// A signature that names a PGP fingerprint of 40 hex digits; the signature itself is not valid. 40 zeros give one
    /// made with bare key material.
    ///
    /// # Panics
    /// If the text is not a fingerprint.
    pub fn signature(mut self, fingerprint: &str) -> Self {
        assert!(fingerprint.len() == 40 && fingerprint.is_ascii(), "{fingerprint}: no 40 hex digits");
        let mut entity = [0; 20];
        for (byte, digits) in entity.iter_mut().zip(fingerprint.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).unwrap_or_default();
            let parsed = u8::from_str_radix(digits, 16);
            assert!(parsed.is_ok(), "{fingerprint}: no 40 hex digits");
            *byte = parsed.unwrap_or_default();
        }
        self.signatures.push(entity);
        self
    }

    /// Encrypts the primary partition, and adds its key as a message.
    pub fn encrypted(self) -> Self {
        Self { encrypted: true, ..self }
    }

    /// The bytes of the image. There is room for 48 objects; more panic.
    pub fn build(&self) -> Vec<u8> {
        self.layout(None)
    }

    /// Writes an image of `total` bytes whose partition, or layer, extends to the end. It ends in a hole, so it takes
    /// hardly any disk space.
    ///
    /// # Errors
    /// Those of the file system, and invalid input if the image without the hole is longer than `total`.
    pub fn write_sparse(&self, path: impl AsRef<Path>, total: u64) -> io::Result<()> {
        let image = self.layout(Some(total));
        if image.len() as u64 > total {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the image alone takes {} bytes", image.len()),
            ));
        }
        let mut file = File::create(path)?;
        file.write_all(&image)?;
        file.set_len(total)
    }

    /// The image; its last object is declared to extend to `total`.
    fn layout(&self, total: Option<u64>) -> Vec<u8> {
        let objects = self.objects();
        assert!(objects.len() <= ROWS, "the table has {ROWS} descriptors");
        let last = objects.len() - 1;
        let mut table = Vec::new();
        let mut data = Vec::new();
        for (n, (object, id)) in objects.iter().zip(1_u32..).enumerate() {
            let before = DATA + data.len();
            let offset = before.next_multiple_of(object.align);
            data.resize(offset - DATA, 0);
            data.extend(&object.content);
            let end = total.filter(|_| n == last).unwrap_or((offset + object.content.len()) as u64);
            table.extend(object.kind.to_le_bytes());
            table.push(1);
            table.extend([id, object.group, object.link].iter().flat_map(|n| n.to_le_bytes()));
            let sizes = [offset as u64, end.saturating_sub(offset as u64), end.saturating_sub(before as u64)];
            table.extend(sizes.iter().flat_map(|n| n.to_le_bytes()));
            table.extend([CREATED, CREATED, 0, 0].iter().flat_map(|n| n.to_le_bytes()));
            table.extend(padded(object.name.as_bytes(), 128));
            table.extend(padded(&object.extra, 384));
        }
        let end = total.unwrap_or((DATA + data.len()) as u64);
        let mut image = padded(b"#!/usr/bin/env run-singularity\n", 32);
        image.extend(b"SIF_MAGIC\x0001\0");
        image.extend(if self.oci { *b"00\0" } else { code(&self.arch) });
        image.extend(random(self.seed ^ u64::MAX, 16));
        image.extend([CREATED; 2].iter().flat_map(|n| n.to_le_bytes()));
        let numbers = [ROWS - objects.len(), ROWS, TABLE, ROWS * ROW, DATA];
        image.extend(numbers.iter().flat_map(|n| (*n as u64).to_le_bytes()));
        image.extend(end.saturating_sub(DATA as u64).to_le_bytes());
        debug_assert_eq!(image.len(), HEADER);
        image.resize(TABLE, 0);
        image.extend(table);
        image.resize(DATA, 0);
        image.extend(data);
        image
    }

    /// The objects in the order of the file. The one that holds the payload comes last, so that it can be extended.
    fn objects(&self) -> Vec<Object> {
        let payload = match &self.payload {
            Payload::Random(len) => random(self.seed, *len),
            Payload::Given(content) => content.clone(),
        };
        let mut objects = Vec::new();
        if let Some(definition) = &self.definition {
            objects.push(object(0x4001, definition.as_bytes()));
        }
        if !self.labels.is_empty() {
            let labels: serde_json::Map<_, _> =
                (self.labels.iter()).map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            let document = json!({ "data": { "attributes": { "labels": labels } }, "type": "container" });
            objects.push(Object { name: "inspect-metadata.json", ..object(0x4006, document.to_string()) });
        }
        for entity in &self.signatures {
            let text = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{\"version\":1}\n";
            objects.push(Object {
                group: NO_GROUP,
                link: GROUP,
                extra: [&1_i32.to_le_bytes()[..], entity].concat(),
                ..object(0x4005, text)
            });
        }
        if self.oci {
            objects.extend(oci(&self.arch, payload));
        } else {
            objects.extend(self.system(payload, objects.len()));
        }
        objects
    }

    /// The primary system partition, which follows `before` objects, and its key if it is encrypted.
    fn system(&self, payload: Vec<u8>, before: usize) -> Vec<Object> {
        let (squashfs, encrypted, primary) = (1_i32, 5_i32, 2_i32);
        let fs = if self.encrypted { encrypted } else { squashfs };
        let mut extra = [fs.to_le_bytes(), primary.to_le_bytes()].concat();
        extra.extend(code(&self.arch));
        let mut objects = Vec::new();
        if self.encrypted {
            let (pem, rsa_oaep) = (2_i32, 0x200_i32);
            objects.push(Object {
                link: u32::try_from(before).unwrap_or(u32::MAX).saturating_add(2),
                extra: [pem.to_le_bytes(), rsa_oaep.to_le_bytes()].concat(),
                ..object(0x4008, b"-----BEGIN MESSAGE-----\nbm9uZQ==\n-----END MESSAGE-----\n")
            });
        }
        objects.push(Object { align: PAGE, extra, ..object(0x4004, payload) });
        objects
    }
}

/// The blobs of an OCI image with one layer, which comes last.
fn oci(arch: &str, layer: Vec<u8>) -> Vec<Object> {
    let blob = |kind, content: Vec<u8>| Object {
        group: NO_GROUP,
        extra: digest(&content).into_bytes(),
        ..object(kind, content)
    };
    let pointer = |kind: &str, content: &[u8]| json!({ "mediaType": format!("application/vnd.{kind}"), "digest": digest(content), "size": content.len() });
    let config = json!({
        "architecture": arch, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": pointer("oci.image.config.v1+json", &config),
        "layers": [pointer("sylabs.image.layer.v1.squashfs", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [pointer("oci.image.manifest.v1+json", &manifest)],
    });
    let index = index.to_string().into_bytes();
    vec![blob(0x400B, config), blob(0x400B, manifest), blob(0x400A, index), blob(0x400B, layer)]
}

fn object(kind: i32, content: impl Into<Vec<u8>>) -> Object {
    Object { kind, group: GROUP, link: 0, align: 1, name: "", extra: Vec::new(), content: content.into() }
}

fn code(arch: &str) -> [u8; 3] {
    let known = ARCHITECTURES.iter().zip(1_u8..).find(|(name, _)| **name == arch);
    let code = known.map_or(0, |(_, code)| code);
    [b'0' + code / 10, b'0' + code % 10, 0]
}

fn padded(content: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(len, 0);
    bytes
}

fn digest(content: &[u8]) -> String {
    let hex = Sha256::digest(content);
    hex.iter().fold("sha256:".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// Bytes that depend on the seed alone (the splitmix64 generator).
fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(next());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn an_image_has_the_header_of_the_specification() {
        let image = SifBuilder::new("s390x").build();
        assert_eq!(&image[32..48], b"SIF_MAGIC\x0001\x0011\0");
        let numbers = [80, 88, 96, 104, 112, 120].map(|at| number(&image, at));
        assert_eq!(numbers, [47, 48, 4_096, 28_080, 32_768, 8_192]);
        assert_eq!(image.len(), 32_768 + 8_192);
    }

    #[test]
    fn the_same_seed_makes_the_same_image_and_another_seed_another() {
        let image = |seed| SifBuilder::new("amd64").seed(seed).build();
        assert_eq!(image(1), image(1));
        assert_ne!(image(1), image(2));
        assert_ne!(image(1)[48..64], image(2)[48..64], "identifiers");
        let layer = |seed| SifBuilder::oci_sif("amd64").seed(seed).build();
        assert_ne!(layer(1)[32_768..], layer(2)[32_768..]);
    }

    #[test]
    fn a_sparse_image_is_as_long_as_told_and_its_partition_goes_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge.sif");
        let builder = SifBuilder::new("amd64").definition("Bootstrap: scratch\n");
        builder.write_sparse(&path, 20 << 30).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 20 << 30);
        let mut head = vec![0; 32_768];
        io::Read::read_exact(&mut File::open(&path).unwrap(), &mut head).unwrap();
        let partition = TABLE + ROW;
        assert_eq!(number(&head, partition + 17) + number(&head, partition + 25), 20 << 30);
        let refused = builder.write_sparse(&path, 40_000).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
