//! What a SIF image says about itself: architecture, partitions, signatures, definition file and labels.
//!
//! The reader does no input or output. It asks for a range of bytes; the caller fetches it from wherever the image is
//! and feeds it to the reader, until the facts are known:
//!
//! ```ignore
//! let mut step = sif::start(size)?;
//! let facts = loop {
//!     step = match step {
//!         sif::Step::Need(ask) => { let bytes = fetch(ask.range()).await?; ask.feed(&bytes)? }
//!         sif::Step::Done(facts) => break facts,
//!     }
//! };
//! ```
//!
//! Nothing in an image is trusted. There are at most seven ranges, of less than 4 MiB together, and none of them is
//! empty or outside the file. If the small objects lie in the first 32 KiB, those are enough. Layouts and numbers are
//! those of the SIF specification 1.0: little-endian, packed, signed 64-bit sizes.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::{Not, Range};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Bytes of the global header.
const HEADER: u64 = 128;
/// Bytes of the first read: the header and the table of 48 descriptors that every known writer creates.
const HEAD: u64 = 32_768;
/// Bytes of one descriptor.
const DESCRIPTOR: usize = 585;
/// Descriptors read at most. Writers create 48; the limit keeps the whole under [`MAX_READ`].
const MAX_DESCRIPTORS: u64 = 1_024;
/// Partitions, and fingerprints, listed at most, because the facts are kept in a table row.
const MAX_LISTED: usize = 64;
/// Bytes of definition, and of labels, kept at most, for the same reason.
const MAX_TEXT: usize = 65_536;
/// Bytes read of one image at most.
const MAX_READ: u64 = 4 << 20;

const _: () = assert!(
    HEAD + MAX_DESCRIPTORS * DESCRIPTOR as u64
        + Object::Definition.limit()
        + Object::Inspect.limit()
        + Object::Index.limit()
        + Object::Manifest.limit()
        + Object::Config.limit()
        <= MAX_READ
);

/// What an image says about itself, as it is stored beside the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SifFacts {
    /// The architecture: from the header, else from the primary system partition, else from the OCI configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// Whether the file holds partitions or OCI blobs.
    pub kind: Kind,
    /// The partitions in the order of their descriptors, the first 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partition>,
    /// Whether there is a signature object. It may be invalid.
    #[serde(skip_serializing_if = "Not::not")]
    pub signed: bool,
    /// PGP fingerprints in signatures, 40 upper-case hex digits each, without duplicates, in order of first
    /// appearance; the first 64. A signature made with bare key material contains none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<String>,
    /// Whether the primary system partition is encrypted.
    #[serde(skip_serializing_if = "Not::not")]
    pub encrypted: bool,
    /// The definition file of the image, unless it is longer than 64 KiB. Invalid UTF-8 in it is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// The labels, unless they are longer than 64 KiB. A value that is not a string is kept as its JSON text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The two things a SIF file can hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Partitions that a runtime mounts.
    #[default]
    Sif,
    /// The blobs of an OCI image, found from a root index.
    OciSif,
}

/// One file system in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// The format of its content.
    pub fs: Filesystem,
    /// What it is for.
    pub kind: PartitionKind,
    /// The architecture of its programs, if it states a known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
}

/// The format of a partition's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filesystem {
    /// Squashfs, code 1.
    Squashfs,
    /// Ext3, code 2.
    Ext3,
    /// An archive, code 3.
    Archive,
    /// Bytes without a file system, code 4.
    Raw,
    /// Encrypted squashfs, code 5.
    EncryptedSquashfs,
    /// Any other code.
    Unknown,
}

/// The purpose of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionKind {
    /// A system, code 1.
    System,
    /// The system that runs, code 2.
    PrimarySystem,
    /// Data, code 3.
    Data,
    /// A writable overlay, code 4.
    Overlay,
    /// Any other code.
    Unknown,
}

/// The architectures that a SIF image can have, as `GOARCH` names them, in the order of the codes `01` to `13`.
const ARCHITECTURES: [&str; 13] = [
    "386", "amd64", "arm", "arm64", "ppc64", "ppc64le", "mips", "mipsle", "mips64", "mips64le", "s390x", "riscv64",
    "loong64",
];

/// An architecture that a SIF image can have, by the name that `GOARCH` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch(&'static str);

impl Arch {
    /// The name.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// The architecture of a code: two digits and a NUL, of which `00` means unknown.
    fn from_code(code: [u8; 3]) -> Option<Self> {
        let [tens @ b'0'..=b'9', units @ b'0'..=b'9', 0] = code else {
            return None;
        };
        let number = usize::from(tens - b'0') * 10 + usize::from(units - b'0');
        ARCHITECTURES.get(number.checked_sub(1)?).copied().map(Self)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(name: &str) -> Result<Self, UnknownArch> {
        let known = ARCHITECTURES.into_iter().find(|known| *known == name);
        known.map(Self).ok_or(UnknownArch)
    }
}

impl Serialize for Arch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for Arch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(D::Error::custom)
    }
}

/// The name is no architecture that a SIF image can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the architecture must be one of 386, amd64, arm, arm64, ppc64, ppc64le, mips, mipsle, mips64, mips64le, s390x, \
     riscv64 and loong64"
)]
pub struct UnknownArch;

/// Why a file can't be accepted as a SIF image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences name the fields")]
pub enum SifError {
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// There is no room for a header.
    #[error("the file is only {size} bytes long, less than the 128-byte header of a SIF image")]
    TooShort { size: u64 },
    /// It is something else, such as a bare squashfs.
    #[error("the file is not a SIF image: no SIF magic at byte 32")]
    NoMagic,
    /// The layout is not known.
    #[error("the SIF image has format version \"{version}\", but only version 01 is supported")]
    Version { version: String },
    /// The number of descriptors is negative or absurd.
    #[error("the SIF header announces {total} descriptors, but only 0 to {} are supported", MAX_DESCRIPTORS)]
    Descriptors { total: i64 },
    /// The descriptor table is truncated, too short for its descriptors, or overlaps the header.
    #[error(
        "the SIF header's descriptor table does not fit in the file of {size} bytes: the file is damaged or incomplete"
    )]
    Table { size: u64 },
    /// An object in use is truncated.
    #[error("object {id} of the SIF image does not fit in the file of {size} bytes: the file is damaged or incomplete")]
    Object { id: u32, size: u64 },
    /// The bytes that were fed are not the ones asked for: the file changed, or its size was wrong.
    #[error("expected {wanted} bytes of the file at byte {at}, but got {got}")]
    Read { at: u64, wanted: u64, got: usize },
}

/// The next step in reading an image.
#[derive(Debug)]
pub enum Step {
    /// Bytes are needed.
    Need(Ask),
    /// All is known.
    Done(SifFacts),
}

/// A range of the image, to be fetched and fed.
#[derive(Debug)]
#[must_use = "the image is read only if the range it asks for is fed to it"]
pub struct Ask {
    range: Range<u64>,
    goal: Goal,
}

/// The purpose of a requested range, with everything known so far.
#[derive(Debug)]
enum Goal {
    Head { size: u64 },
    Table { size: u64, arch: Option<Arch> },
    Object(Object, Box<Findings>),
}

/// Starts to read a file of `size` bytes.
///
/// # Errors
/// [`SifError::Empty`] and [`SifError::TooShort`], without a read, if no header fits in.
pub fn start(size: u64) -> Result<Step, SifError> {
    match size {
        0 => Err(SifError::Empty),
        1..HEADER => Err(SifError::TooShort { size }),
        _ => Ok(Step::Need(Ask { range: 0..size.min(HEAD), goal: Goal::Head { size } })),
    }
}

/// Reads an image that is in memory.
///
/// # Errors
/// Those of [`start`] and [`Ask::feed`].
pub fn read(bytes: &[u8]) -> Result<SifFacts, SifError> {
    let mut step = start(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    loop {
        match step {
            Step::Need(ask) => {
                let range = slice(bytes, &ask.range).unwrap_or_default();
                step = ask.feed(range)?;
            }
            Step::Done(facts) => return Ok(facts),
        }
    }
}

impl Ask {
    /// The bytes to fetch: never none, and all within the size given to [`start`].
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Takes exactly the bytes of [`Ask::range`], and returns the next step.
    ///
    /// # Errors
    /// [`SifError::Read`] if the length is not the range's; any other error if the file is not a SIF image or is
    /// damaged. Objects that merely describe the image (definition, labels, OCI documents) never cause an error:
    /// unreadable parts of them are left out.
    pub fn feed(self, bytes: &[u8]) -> Result<Step, SifError> {
        let wanted = length(&self.range);
        if u64::try_from(bytes.len()) != Ok(wanted) {
            return Err(SifError::Read { at: self.range.start, wanted, got: bytes.len() });
        }
        match self.goal {
            Goal::Head { size } => {
                let Header { arch, table } = Header::parse(bytes, size)?;
                match slice(bytes, &table) {
                    Some(rows) => Ok(Box::new(Findings::collect(rows, size, arch)?).advance(bytes)),
                    None => Ok(Step::Need(Ask { range: table, goal: Goal::Table { size, arch } })),
                }
            }
            Goal::Table { size, arch } => Ok(Box::new(Findings::collect(bytes, size, arch)?).advance(&[])),
            Goal::Object(object, mut findings) => {
                findings.take(object, bytes);
                Ok(findings.advance(&[]))
            }
        }
    }
}

/// The part of the global header that is used.
struct Header {
    arch: Option<Arch>,
    table: Range<u64>,
}

impl Header {
    fn parse(head: &[u8], size: u64) -> Result<Self, SifError> {
        if field(head, 32) != Some(*b"SIF_MAGIC\0") {
            return Err(SifError::NoMagic);
        }
        let version: [u8; 3] = field(head, 42).unwrap_or_default();
        if version != *b"01\0" {
            return Err(SifError::Version { version: text(&version).escape_ascii().to_string() });
        }
        let number = |at| field(head, at).map(i64::from_le_bytes).ok_or(SifError::TooShort { size });
        let (total, offset, announced) = (number(88)?, number(96)?, number(104)?);
        let count = u64::try_from(total).unwrap_or(u64::MAX);
        if count > MAX_DESCRIPTORS {
            return Err(SifError::Descriptors { total });
        }
        let wanted = count * DESCRIPTOR as u64;
        // A table is at least as long as its descriptors and does not overlap the header.
        let table = within(offset, announced, size).filter(|table| table.start >= HEADER && length(table) >= wanted);
        let table = table.ok_or(SifError::Table { size })?;
        Ok(Self {
            arch: field(head, 45).and_then(Arch::from_code),
            table: table.start..table.start.saturating_add(wanted),
        })
    }
}

/// A used descriptor, as it stands in the table.
struct Descriptor<'a> {
    kind: i32,
    id: u32,
    offset: i64,
    length: i64,
    name: &'a [u8],
    extra: &'a [u8],
}

impl<'a> Descriptor<'a> {
    /// The descriptor of a row; none if it is not in use.
    fn parse(row: &'a [u8; DESCRIPTOR]) -> Option<Self> {
        if row.get(4) == Some(&0) {
            return None;
        }
        Some(Self {
            kind: i32::from_le_bytes(field(row, 0)?),
            id: u32::from_le_bytes(field(row, 5)?),
            offset: i64::from_le_bytes(field(row, 17)?),
            length: i64::from_le_bytes(field(row, 25)?),
            name: text(row.get(73..201)?),
            extra: row.get(201..)?,
        })
    }

    fn partition(&self) -> Option<Partition> {
        let fs = match i32::from_le_bytes(field(self.extra, 0)?) {
            1 => Filesystem::Squashfs,
            2 => Filesystem::Ext3,
            3 => Filesystem::Archive,
            4 => Filesystem::Raw,
            5 => Filesystem::EncryptedSquashfs,
            _ => Filesystem::Unknown,
        };
        let kind = match i32::from_le_bytes(field(self.extra, 4)?) {
            1 => PartitionKind::System,
            2 => PartitionKind::PrimarySystem,
            3 => PartitionKind::Data,
            4 => PartitionKind::Overlay,
            _ => PartitionKind::Unknown,
        };
        Some(Partition { fs, kind, arch: field(self.extra, 8).and_then(Arch::from_code) })
    }

    /// The PGP fingerprint of a signature; none if its bytes are zero.
    fn fingerprint(&self) -> Option<String> {
        let entity: [u8; 20] = field(self.extra, 4).filter(|entity| *entity != [0; 20])?;
        Some(entity.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02X}");
            hex
        }))
    }
}

/// The objects whose content is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    Definition,
    /// The labels object of the specification, which hardly any writer creates.
    Labels,
    /// The object that Apptainer and Singularity write instead: a generic JSON object that contains labels among other
    /// things.
    Inspect,
    Index,
    Manifest,
    Config,
}

impl Object {
    /// The most bytes that are read of it; a longer one is skipped.
    const fn limit(self) -> u64 {
        match self {
            Self::Definition | Self::Labels => 64 << 10,
            Self::Inspect => 128 << 10,
            Self::Index | Self::Manifest | Self::Config => 1 << 20,
        }
    }
}

/// The facts from the descriptors, and the objects that remain to be read.
#[derive(Debug, Default)]
struct Findings {
    facts: SifFacts,
    todo: Vec<(Object, Range<u64>)>,
    /// The OCI blobs by digest.
    blobs: BTreeMap<Vec<u8>, Range<u64>>,
}

impl Findings {
    fn collect(rows: &[u8], size: u64, arch: Option<Arch>) -> Result<Self, SifError> {
        let mut found = Self::default();
        let (mut definition, mut labels, mut inspect, mut index) = (None, None, None, None);
        let mut primary: Option<Partition> = None;
        let (rows, _) = rows.as_chunks();
        for used in rows.iter().filter_map(Descriptor::parse) {
            let outside = SifError::Object { id: used.id, size };
            let range = within(used.offset, used.length, size).ok_or(outside)?;
            match used.kind {
                0x4001 => _ = definition.get_or_insert(range),
                0x4003 => _ = labels.get_or_insert(range),
                0x4004 => found.partition(used.partition(), &mut primary),
                0x4005 => found.signature(used.fingerprint()),
                0x4006 if used.name == b"inspect-metadata.json" => _ = inspect.get_or_insert(range),
                0x400A => _ = index.get_or_insert(range),
                0x400B => {
                    let digest = text(used.extra).to_vec();
                    found.blobs.entry(digest).or_insert(range);
                }
                _ => {}
            }
        }
        found.facts.arch = arch.or(primary.and_then(|partition| partition.arch));
        found.facts.encrypted = primary.is_some_and(|partition| partition.fs == Filesystem::EncryptedSquashfs);
        found.facts.kind = if index.is_some() { Kind::OciSif } else { Kind::Sif };
        // The last one is read first. The OCI documents are read only if the architecture is not known yet.
        found.want(Object::Index, index.filter(|_| found.facts.arch.is_none()));
        match labels {
            Some(_) => found.want(Object::Labels, labels),
            None => found.want(Object::Inspect, inspect),
        }
        found.want(Object::Definition, definition);
        Ok(found)
    }

    fn partition(&mut self, partition: Option<Partition>, primary: &mut Option<Partition>) {
        if self.facts.partitions.len() < MAX_LISTED {
            self.facts.partitions.extend(partition);
        }
        *primary = primary.or(partition.filter(|partition| partition.kind == PartitionKind::PrimarySystem));
    }

    fn signature(&mut self, fingerprint: Option<String>) {
        self.facts.signed = true;
        let known = &mut self.facts.fingerprints;
        if known.len() < MAX_LISTED {
            known.extend(fingerprint.filter(|new| !known.contains(new)));
        }
    }

    fn want(&mut self, object: Object, range: Option<Range<u64>>) {
        let readable = |range: &Range<u64>| (1..=object.limit()).contains(&length(range));
        self.todo.extend(range.filter(readable).map(|range| (object, range)));
    }

    /// Continues with the next object, or finishes. Objects within the `head` of the file need no further read.
    fn advance(mut self: Box<Self>, head: &[u8]) -> Step {
        while let Some((object, range)) = self.todo.pop() {
            match slice(head, &range) {
                Some(bytes) => self.take(object, bytes),
                None => {
                    return Step::Need(Ask { range, goal: Goal::Object(object, self) });
                }
            }
        }
        Step::Done(self.facts)
    }

    /// Takes the content of one object. Each OCI document names the next.
    fn take(&mut self, object: Object, bytes: &[u8]) {
        match object {
            Object::Definition => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                self.facts.definition = Some(text).filter(|text| text.len() <= MAX_TEXT);
            }
            Object::Labels => self.labels(json(bytes)),
            Object::Inspect => {
                self.labels(json(bytes).map(|inspect: Inspect| inspect.data.attributes.labels));
            }
            Object::Index => {
                let all = json(bytes).map_or_else(Vec::new, |index: Index| index.manifests);
                let held = all.iter().find_map(|manifest| self.blob(manifest));
                self.want(Object::Manifest, held);
            }
            Object::Manifest => {
                let held = json(bytes).and_then(|manifest: Manifest| self.blob(&manifest.config));
                self.want(Object::Config, held);
            }
            Object::Config => {
                let config: Option<Config> = json(bytes);
                self.facts.arch = config.and_then(|config| config.architecture.parse().ok());
            }
        }
    }

    fn labels(&mut self, labels: Option<BTreeMap<String, Value>>) {
        let text = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        // A label without a name could be kept in no table.
        let labels = labels.into_iter().flatten().filter(|(name, _)| !name.is_empty());
        let labels: BTreeMap<_, _> = labels.map(|(name, value)| (name, text(value))).collect();
        let lengths = labels.iter().map(|(name, value)| name.len() + value.len());
        if lengths.sum::<usize>() <= MAX_TEXT {
            self.facts.labels = labels;
        }
    }

    /// The range of the blob with a digest.
    fn blob(&self, wanted: &Pointer) -> Option<Range<u64>> {
        self.blobs.get(wanted.digest.as_bytes()).cloned()
    }
}

// The parts of JSON documents that are read. Other parts are skipped and not kept.

#[derive(Deserialize)]
struct Inspect {
    data: InspectData,
}

#[derive(Deserialize)]
struct InspectData {
    attributes: InspectAttributes,
}

#[derive(Deserialize)]
struct InspectAttributes {
    labels: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Pointer>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Pointer,
}

#[derive(Deserialize)]
struct Pointer {
    digest: String,
}

#[derive(Deserialize)]
struct Config {
    architecture: String,
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// The `N` bytes at `at`.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The text in a field that is padded with NUL.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The range given by an offset and a length, if it lies in the file.
fn within(offset: i64, length: i64, size: u64) -> Option<Range<u64>> {
    let start = u64::try_from(offset).ok()?;
    let end = start.checked_add(u64::try_from(length).ok()?)?;
    (end <= size).then_some(start..end)
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// The bytes of a range of the file, if all of them are in `head`, the beginning of the file.
fn slice<'a>(head: &'a [u8], range: &Range<u64>) -> Option<&'a [u8]> {
    if range.is_empty() {
        return Some(&[]);
    }
    head.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRIMARY: [u8; 11] = *b"\x01\0\0\0\x02\0\0\x0002\0";
    const NAMELESS: &str = "";

    /// An image of descriptors: type, name, extra and content of each.
    struct Image {
        arch: [u8; 3],
        table: usize,
        rows: usize,
        objects: Vec<(i32, &'static str, Vec<u8>, Vec<u8>)>,
    }

    fn image() -> Image {
        Image { arch: *b"02\0", table: 4_096, rows: 48, objects: Vec::new() }
    }

    impl Image {
        fn with(mut self, kind: i32, name: &'static str, extra: &[u8], content: &[u8]) -> Self {
            self.objects.push((kind, name, extra.to_vec(), content.to_vec()));
            self
        }

        fn arch(self, arch: [u8; 3]) -> Self {
            Self { arch, ..self }
        }

        fn table(self, table: usize, rows: usize) -> Self {
            Self { table, rows, ..self }
        }

        fn primary(self) -> Self {
            self.with(0x4004, NAMELESS, &PRIMARY, &[7; 5_000])
        }

        fn signature(self, entity: &[u8]) -> Self {
            self.with(0x4005, NAMELESS, &[&[1, 0, 0, 0], entity].concat(), b"signed")
        }

        fn blob(self, digest: &str, content: &str) -> Self {
            self.with(0x400B, NAMELESS, digest.as_bytes(), content.as_bytes())
        }

        fn bytes(&self) -> Vec<u8> {
            let size = self.rows * DESCRIPTOR;
            let mut bytes = vec![0; (self.table + size).max(32_768)];
            put(&mut bytes, 0, b"#!/usr/bin/env run-singularity\n");
            put(&mut bytes, 32, b"SIF_MAGIC\x0001\0");
            put(&mut bytes, 45, &self.arch);
            put(&mut bytes, 88, &self.rows.to_le_bytes());
            put(&mut bytes, 96, &self.table.to_le_bytes());
            put(&mut bytes, 104, &size.to_le_bytes());
            for (n, (kind, name, extra, content)) in self.objects.iter().enumerate() {
                // Every second row stays unused, with garbage in it.
                let row = self.table + (2 * n + 1) * DESCRIPTOR;
                bytes[row - DESCRIPTOR + 17..row].fill(0xEE);
                let offset = bytes.len();
                put(&mut bytes, row, &kind.to_le_bytes());
                bytes[row + 4] = 1;
                put(&mut bytes, row + 5, &u32::try_from(n + 1).unwrap().to_le_bytes());
                put(&mut bytes, row + 17, &offset.to_le_bytes());
                put(&mut bytes, row + 25, &content.len().to_le_bytes());
                put(&mut bytes, row + 73, name.as_bytes());
                put(&mut bytes, row + 201, extra);
                bytes.extend(content);
            }
            bytes
        }

        fn read(&self) -> SifFacts {
            read(&self.bytes()).unwrap()
        }
    }

    fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
        bytes[at..at + what.len()].copy_from_slice(what);
    }

    fn with(change: impl FnOnce(&mut Vec<u8>)) -> Result<SifFacts, SifError> {
        let mut bytes = image().primary().bytes();
        change(&mut bytes);
        read(&bytes)
    }

    /// Reads a file of `size` bytes that begins with `bytes` and continues with zeros, and checks every promise about
    /// the ranges. Also returns the ranges.
    fn watched(bytes: &[u8], size: u64) -> (Vec<Range<u64>>, Result<SifFacts, SifError>) {
        let mut asked = Vec::new();
        let mut step = start(size);
        loop {
            match step {
                Ok(Step::Need(ask)) => {
                    let range = ask.range();
                    assert!(range.start < range.end && range.end <= size, "{range:?} of {size}");
                    let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
                    let mut part = bytes.get(start.min(bytes.len())..end.min(bytes.len())).unwrap().to_vec();
                    part.resize(end - start, 0);
                    asked.push(range);
                    assert!(asked.len() <= 7 && asked.iter().map(length).sum::<u64>() <= MAX_READ, "{asked:?}");
                    step = ask.feed(&part);
                }
                Ok(Step::Done(facts)) => return (asked, Ok(facts)),
                Err(error) => return (asked, Err(error)),
            }
        }
    }

    fn labels(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
        rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_plain_image_tells_its_architecture_and_partition_in_one_read() {
        let bytes = image().primary().bytes();
        let (asked, facts) = watched(&bytes, bytes.len() as u64);
        assert_eq!(asked, vec![0..HEAD]);
        let arch = Some("amd64".parse().unwrap());
        let primary = Partition { fs: Filesystem::Squashfs, kind: PartitionKind::PrimarySystem, arch };
        assert_eq!(facts.unwrap(), SifFacts { arch, partitions: vec![primary], ..SifFacts::default() });
    }

    #[test]
    fn every_code_is_the_architecture_of_its_row_and_no_other_is_any() {
        for code in 0..=99_u8 {
            let digits = [b'0' + code / 10, b'0' + code % 10, 0];
            let name = ARCHITECTURES.get(usize::from(code).wrapping_sub(1)).copied();
            assert_eq!(Arch::from_code(digits).map(Arch::as_str), name, "{code}");
        }
        for code in [*b"\0\0\0", *b"2\0\0", *b"+2\0", *b" 2\0", *b"002", [0xFF; 3]] {
            assert_eq!(Arch::from_code(code), None, "{code:?}");
        }
        for name in ARCHITECTURES {
            let arch: Arch = name.parse().unwrap();
            assert_eq!(serde_json::to_value(arch).unwrap(), name);
            assert_eq!(serde_json::from_value::<Arch>(name.into()).unwrap(), arch);
        }
        assert_eq!("x86_64".parse::<Arch>(), Err(UnknownArch));
    }

    #[test]
    fn the_header_comes_before_the_primary_partition_and_that_before_none() {
        let of = |image: Image| image.read().arch.map(Arch::as_str);
        assert_eq!(of(image().arch(*b"04\0").primary()), Some("arm64"));
        assert_eq!(of(image().arch(*b"00\0").primary()), Some("amd64"));
        assert_eq!(of(image().arch(*b"99\0").primary()), Some("amd64"));
        let data = b"\x01\0\0\0\x03\0\0\x0002\0";
        assert_eq!(of(image().arch(*b"00\0").with(0x4004, NAMELESS, data, b"x")), None);
        assert_eq!(of(image().arch(*b"00\0")), None);
    }

    #[test]
    fn an_image_is_encrypted_when_its_primary_partition_is() {
        let sealed = |kind| image().with(0x4004, NAMELESS, &[5, 0, 0, 0, kind, 0, 0, 0], b"x").read();
        assert!(sealed(2).encrypted);
        assert!(!sealed(4).encrypted);
        assert_eq!(sealed(4).partitions[0].kind, PartitionKind::Overlay);
    }

    #[test]
    fn fingerprints_are_listed_once_each_and_key_material_has_none() {
        let image = image().signature(&[0xAB; 20]).signature(&[0x01; 20]).signature(&[0xAB; 20]);
        let facts = image.signature(&[0; 256]).read();
        assert!(facts.signed);
        assert_eq!(facts.fingerprints, ["AB".repeat(20), "01".repeat(20)]);
        let facts = super::tests::image().signature(&[0; 256]).read();
        assert!(facts.signed && facts.fingerprints.is_empty());
        assert!(!super::tests::image().primary().read().signed);
    }

    #[test]
    fn a_definition_is_kept_to_its_limit_and_made_text() {
        let of = |content: &[u8]| image().with(0x4001, NAMELESS, b"", content).read().definition;
        assert_eq!(of("Bootstrap: scratch # ä".as_bytes()).unwrap(), "Bootstrap: scratch # ä");
        assert_eq!(of(b"a\xFFb").unwrap(), "a\u{FFFD}b");
        assert_eq!(of(b""), None);
        assert_eq!(of(&vec![b'a'; MAX_TEXT]).unwrap().len(), MAX_TEXT);
        assert_eq!(of(&vec![b'a'; MAX_TEXT + 1]), None);
        assert_eq!(of(&vec![0xFF; MAX_TEXT]), None, "grows when made text");
    }

    #[test]
    fn labels_are_strings_and_malformed_ones_are_absent() {
        let of = |content: &str| image().with(0x4003, NAMELESS, b"", content.as_bytes()).read().labels;
        assert_eq!(
            of(r#"{"a":"x","b":1,"c":null,"d":["e"],"":"no table takes a name like this"}"#),
            labels(&[("a", "x"), ("b", "1"), ("c", "null"), ("d", "[\"e\"]")])
        );
        for malformed in ["", "{", "[]", "null", "{\"a\":\"x\"} more", &"[".repeat(60_000)] {
            assert_eq!(of(malformed), labels(&[]), "{malformed:.20}");
        }
        assert_eq!(of(&format!("{{\"a\":[{}1e15]}}", "1e15,".repeat(10_000))), labels(&[]), "grow when made text");
    }

    #[test]
    fn labels_come_from_the_inspection_document_when_there_is_no_labels_object() {
        let document = r#"{"data":{"attributes":{"deffile":"x","labels":{"Author":"Al"}}},"type":"container"}"#;
        let inspect = |image: Image, name| image.with(0x4006, name, b"", document.as_bytes()).read().labels;
        assert_eq!(inspect(image(), "inspect-metadata.json"), labels(&[("Author", "Al")]));
        assert_eq!(inspect(image(), "oci-config.json"), labels(&[]));
        let both = image().with(0x4003, NAMELESS, b"", b"{\"own\":\"1\"}");
        assert_eq!(inspect(both, "inspect-metadata.json"), labels(&[("own", "1")]));
    }

    fn oci(config: &str) -> Image {
        image()
            .arch(*b"00\0")
            .blob("sha256:c0", config)
            .blob("sha256:f0", r#"{"schemaVersion":2,"config":{"digest":"sha256:c0","size":9},"layers":[]}"#)
            .with(0x400A, NAMELESS, b"sha256:aa", br#"{"manifests":[{"digest":"sha256:no"},{"digest":"sha256:f0"}]}"#)
    }

    #[test]
    fn an_oci_image_tells_the_architecture_of_its_configuration() {
        let facts = oci(r#"{"architecture":"riscv64","os":"linux"}"#).read();
        assert_eq!((facts.kind, facts.arch.map(Arch::as_str)), (Kind::OciSif, Some("riscv64")));
        for config in [r#"{"architecture":"z80"}"#, "{}", "nonsense", ""] {
            let facts = oci(config).read();
            assert_eq!((facts.kind, facts.arch), (Kind::OciSif, None), "{config}");
        }
        // Facts that the header states already need no read.
        let bytes = oci("{}").arch(*b"04\0").bytes();
        assert_eq!(watched(&bytes, bytes.len() as u64).0.len(), 1);
    }

    #[test]
    fn oci_documents_that_name_themselves_end() {
        let itself = r#"{"manifests":[{"digest":"sha256:a"}],"config":{"digest":"sha256:a"}}"#;
        let bytes =
            image().arch(*b"00\0").blob("sha256:a", itself).with(0x400A, NAMELESS, b"", itself.as_bytes()).bytes();
        let (asked, facts) = watched(&bytes, bytes.len() as u64);
        assert_eq!((asked.len(), facts.unwrap().arch), (4, None));
    }

    #[test]
    fn a_big_table_in_another_place_is_read_where_it_is() {
        let facts = image().table(100_000, 1_024).primary().with(0x4001, NAMELESS, b"", b"From: x");
        let bytes = facts.bytes();
        let (asked, facts) = watched(&bytes, bytes.len() as u64);
        assert_eq!(asked[1], 100_000..100_000 + 1_024 * 585);
        let facts = facts.unwrap();
        assert_eq!((facts.partitions.len(), facts.definition.as_deref()), (1, Some("From: x")));
    }

    #[test]
    fn what_lies_in_the_first_read_is_not_read_again() {
        let bytes = image().table(128, 8).with(0x4001, NAMELESS, b"", b"From: x").bytes();
        let mut near = bytes.clone();
        near.truncate(32_768 - 7);
        near.extend(b"From: x");
        put(&mut near, 128 + 585 + 17, &(32_768_u64 - 7).to_le_bytes());
        let (asked, facts) = watched(&near, near.len() as u64);
        assert_eq!((asked.len(), facts.unwrap().definition.as_deref()), (1, Some("From: x")));
        assert_eq!(watched(&bytes, bytes.len() as u64).0, [0..32_768, 32_768..32_775]);
    }

    #[test]
    fn no_more_partitions_and_fingerprints_are_listed_than_a_row_holds() {
        let full = (0..100).fold(image().table(4_096, 1_024), |image, n: u8| {
            image.with(0x4004, NAMELESS, &[1, 0, 0, 0, 3], b"x").signature(&[n + 1; 20])
        });
        let facts = full.with(0x4004, NAMELESS, &[5, 0, 0, 0, 2, 0, 0, 0], b"x").read();
        assert_eq!((facts.partitions.len(), facts.fingerprints.len()), (64, 64));
        assert!(facts.encrypted, "the primary partition counts wherever it is");
    }

    #[test]
    fn every_refusal_is_a_sentence_to_act_on() {
        let refusal = |change: fn(&mut Vec<u8>)| with(change).unwrap_err().to_string();
        let row = |at: usize| 4_096 + DESCRIPTOR + at;
        assert_eq!(refusal(Vec::clear), "the file is empty");
        assert_eq!(
            refusal(|b| b.truncate(127)),
            "the file is only 127 bytes long, less than the 128-byte header of a SIF image"
        );
        assert_eq!(refusal(|b| b[32] = b'X'), "the file is not a SIF image: no SIF magic at byte 32");
        assert_eq!(
            refusal(|b| put(b, 42, b"02\0")),
            "the SIF image has format version \"02\", but only version 01 is supported"
        );
        let count = |total: i64| with(move |b| put(b, 88, &total.to_le_bytes())).unwrap_err();
        for total in [-1, 1_025, 10_000, i64::MAX, i64::MIN] {
            assert_eq!(count(total), SifError::Descriptors { total });
        }
        for (at, value) in
            [(96, -1), (96, 0), (96, 127), (96, 37_000), (96, i64::MAX), (104, 28_079), (104, -1), (104, i64::MAX)]
        {
            let error = with(|b| put(b, at, &value.to_le_bytes())).unwrap_err();
            assert_eq!(error, SifError::Table { size: 37_768 }, "{value} at {at}");
        }
        for (at, value) in [(17, -1), (17, 37_768), (17, i64::MAX), (25, -1), (25, 5_001), (25, i64::MAX)] {
            let error = with(|b| put(b, row(at), &value.to_le_bytes())).unwrap_err();
            assert_eq!(error, SifError::Object { id: 1, size: 37_768 }, "{value} at {at}");
        }
        assert_eq!(
            refusal(|b| b.truncate(32_800)),
            "object 1 of the SIF image does not fit in the file of 32800 bytes: the file is damaged or incomplete"
        );
        assert_eq!(count(-1).to_string(), "the SIF header announces -1 descriptors, but only 0 to 1024 are supported");
        assert_eq!(
            refusal(|b| put(b, 104, &[0; 8])),
            "the SIF header's descriptor table does not fit in the file of 37768 bytes: the file is damaged or incomplete"
        );
    }

    #[test]
    fn a_read_of_another_length_is_refused() {
        let bytes = image().primary().bytes();
        for got in [0, 100, 32_767, 32_769] {
            let Step::Need(ask) = start(bytes.len() as u64).unwrap() else { unreachable!() };
            assert_eq!(ask.feed(&bytes[..got]).unwrap_err(), SifError::Read { at: 0, wanted: 32_768, got });
        }
    }

    #[test]
    fn an_image_cut_off_anywhere_is_refused() {
        let bytes = image().primary().bytes();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(read(&bytes).is_ok());
    }

    #[test]
    fn facts_survive_storing_and_the_empty_takes_no_room() {
        let facts =
            oci(r#"{"architecture":"amd64"}"#).primary().signature(&[1; 20]).with(0x4001, NAMELESS, b"", b"x").read();
        let stored = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<SifFacts>(&stored).unwrap(), facts);
        assert_eq!(serde_json::to_string(&SifFacts::default()).unwrap(), r#"{"kind":"sif"}"#);
        assert_eq!(serde_json::from_str::<SifFacts>("{}").unwrap(), SifFacts::default());
        assert_eq!(
            serde_json::to_string(&image().primary().read()).unwrap(),
            r#"{"arch":"amd64","kind":"sif","partitions":[{"fs":"squashfs","kind":"primary-system","arch":"amd64"}]}"#
        );
    }

    /// An image with one of everything, whose table is small enough to be hit by random changes.
    fn rich() -> Vec<u8> {
        oci(r#"{"architecture":"amd64"}"#)
            .table(128, 20)
            .primary()
            .signature(&[3; 20])
            .with(0x4001, NAMELESS, b"", b"From: x")
            .with(0x4003, NAMELESS, b"", b"{\"a\":\"b\"}")
            .bytes()
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000), size: u64) {
            let _ = read(&bytes);
            let _ = watched(&bytes, size);
        }

        #[test]
        fn arbitrary_bytes_behind_a_magic_never_panic(noise in prop::collection::vec(any::<u8>(), 128..8_000), rows in 0..1_100_u64, size: u64) {
            let mut bytes = noise;
            put(&mut bytes, 32, b"SIF_MAGIC\x0001\0");
            put(&mut bytes, 88, &rows.to_le_bytes());
            put(&mut bytes, 96, &128_u64.to_le_bytes());
            put(&mut bytes, 104, &(rows * 585).to_le_bytes());
            let _ = watched(&bytes, size >> (size % 64));
        }

        #[test]
        fn a_changed_image_never_panics_and_reads_stay_bounded(
            changes in prop::collection::vec((0..12_000_usize, any::<u8>()), 1..20),
            words in prop::collection::vec((0..20_usize, prop::sample::select(vec![17_usize, 25]), prop::sample::select(vec![-1_i64, 0, 1, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 1 << 40, i64::MAX])), 0..3),
            grown in prop::sample::select(vec![0_u64, 1 << 21, 1 << 50]),
        ) {
            let mut bytes = rich();
            for (at, value) in changes {
                bytes[at] = value;
            }
            for (row, at, value) in words {
                put(&mut bytes, 128 + row * DESCRIPTOR + at, &value.to_le_bytes());
            }
            let _ = watched(&bytes, bytes.len() as u64 + grown);
        }

        #[test]
        fn an_image_that_was_built_is_read_as_it_was_built(
            arch in 1..=13_usize, signers in prop::collection::vec(1..=255_u8, 0..5), definition in "\\PC{1,300}", table in 128..90_000_usize,
            label in prop::collection::btree_map("[a-z.]{1,20}", "\\PC{0,40}", 0..8),
        ) {
            let code = [b'0' + u8::try_from(arch / 10).unwrap(), b'0' + u8::try_from(arch % 10).unwrap(), 0];
            let built = image().arch(code).table(table, 24).primary()
                .with(0x4003, NAMELESS, b"", serde_json::to_string(&label).unwrap().as_bytes())
                .with(0x4001, NAMELESS, b"", definition.as_bytes());
            let bytes = signers.iter().fold(built, |image, byte| image.signature(&[*byte; 20])).bytes();
            let (_, facts) = watched(&bytes, bytes.len() as u64);
            let facts = facts.unwrap();
            prop_assert_eq!(facts.arch.map(Arch::as_str), Some(ARCHITECTURES[arch - 1]));
            prop_assert_eq!(facts.labels, label);
            prop_assert_eq!(facts.definition, Some(definition));
            prop_assert_eq!(facts.signed, !signers.is_empty());
            let mut seen = Vec::new();
            signers.iter().map(|byte| format!("{byte:02X}").repeat(20)).for_each(|print| if !seen.contains(&print) { seen.push(print) });
            prop_assert_eq!(facts.fingerprints, seen);
        }
    }
}
