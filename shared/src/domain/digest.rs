//! Digests of bytes: `sha256:<hex>` in the OCI world, `sha256.<hex>` in the library's.
//!
//! Everything that is stored is identified by its SHA-256. Registry clients may also name the same bytes by their
//! SHA-512.

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use std::fmt;
use std::str::FromStr;

/// The SHA-256 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// The text is not a digest that this library knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 digest: 64 hexadecimal digits after `sha256:` or `sha256.` are expected")]
pub struct DigestError;

/// The text is not the saved state of a [`Hasher`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the saved state of a hasher")]
pub struct HasherError;

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Takes the result of a hasher.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// The library's spelling, `sha256.<hex>`.
    pub fn library(&self) -> String {
        format!("sha256.{}", self.hex())
    }

    /// Reads the library's spelling, `sha256.<hex>`.
    pub fn from_library(text: &str) -> Result<Self, DigestError> {
        text.strip_prefix("sha256.").ok_or(DigestError).and_then(Self::from_hex)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        let mut bytes = [0; 32];
        unhex(text, &mut bytes).ok_or(DigestError)?;
        Ok(Self(bytes))
    }

    /// Base64 of the raw bytes, as S3 writes checksums.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A digest as registry clients write it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OciDigest {
    /// `sha256:` and 64 digits.
    Sha256(Digest),
    /// `sha512:` and 128 digits.
    Sha512([u8; 64]),
}

impl OciDigest {
    /// The digest of bytes, in one piece or in several, by the same algorithm.
    #[must_use]
    pub fn like<B: AsRef<[u8]>>(&self, pieces: impl IntoIterator<Item = B>) -> Self {
        fn of<H: sha2::Digest, B: AsRef<[u8]>>(pieces: impl IntoIterator<Item = B>) -> sha2::digest::Output<H> {
            pieces.into_iter().fold(H::new(), H::chain_update).finalize()
        }
        match self {
            Self::Sha256(_) => Self::Sha256(Digest(of::<sha2::Sha256, B>(pieces).into())),
            Self::Sha512(_) => Self::Sha512(of::<sha2::Sha512, B>(pieces).into()),
        }
    }

    /// The digest in a key: the digits, with the algorithm before them if it is not SHA-256.
    pub fn in_key(&self) -> String {
        match self {
            Self::Sha256(digest) => digest.hex(),
            Self::Sha512(bytes) => format!("sha512:{}", hex(bytes)),
        }
    }
}

impl From<Digest> for OciDigest {
    fn from(digest: Digest) -> Self {
        Self::Sha256(digest)
    }
}

impl FromStr for OciDigest {
    type Err = OciDigestError;
    fn from_str(text: &str) -> Result<Self, OciDigestError> {
        if let Some(digits) = text.strip_prefix("sha512:") {
            let mut bytes = [0; 64];
            unhex(digits, &mut bytes).ok_or(OciDigestError)?;
            return Ok(Self::Sha512(bytes));
        }
        text.parse().map(Self::Sha256).map_err(|DigestError| OciDigestError)
    }
}

/// The text is not a digest that the registry knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: `sha256:` and 64, or `sha512:` and 128 lower-case hexadecimal digits are expected")]
pub struct OciDigestError;

impl TryFrom<String> for OciDigest {
    type Error = OciDigestError;
    fn try_from(text: String) -> Result<Self, OciDigestError> {
        text.parse()
    }
}

impl From<OciDigest> for String {
    fn from(digest: OciDigest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for OciDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => fmt::Display::fmt(digest, f),
            Self::Sha512(bytes) => write!(f, "sha512:{}", hex(bytes)),
        }
    }
}

impl fmt::Debug for OciDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A running SHA-256 whose state can be saved and continued by another process.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    state: sha2::Sha256,
    taken: u64,
}

impl Hasher {
    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.taken += bytes.len() as u64;
    }

    /// How many bytes it has hashed.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The digest of everything hashed so far.
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }

    /// The state, in hexadecimal digits.
    pub fn save(&self) -> String {
        hex(&self.state.serialize())
    }

    /// Continues from a state that was saved after `taken` bytes, or begins if nothing was saved.
    pub fn restore(saved: Option<&str>, taken: u64) -> Result<Self, HasherError> {
        let Some(saved) = saved else { return Ok(Self::default()) };
        let mut state = SerializedState::<sha2::Sha256>::default();
        unhex(saved, &mut state).ok_or(HasherError)?;
        let state = sha2::Sha256::deserialize(&state).map_err(|_| HasherError)?;
        Ok(Self { state, taken })
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// Fills `bytes` from exactly twice as many lower-case hexadecimal digits.
pub(crate) fn unhex(text: &str, bytes: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != bytes.len() * 2 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(())
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.strip_prefix("sha256:").ok_or(DigestError).and_then(Self::from_hex)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_digest() {
        let digest = Digest::of(b"{}");
        assert_eq!(digest.to_string(), "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Digest::from_library(&digest.library()), Ok(digest));
    }

    #[test]
    fn a_registry_digest_reads_back_as_it_is_written() {
        for bytes in [b"".as_slice(), b"{}"] {
            let short = OciDigest::from(Digest::of(bytes));
            let long = OciDigest::Sha512([0; 64]).like([bytes]);
            for digest in [short, long] {
                assert_eq!(digest.to_string().parse(), Ok(digest));
                assert_eq!(digest.like([bytes]), digest);
            }
            assert_ne!(short.in_key(), long.in_key());
        }
        for text in ["", "sha512:", "sha384:00", &format!("sha512:{}", "A".repeat(128))] {
            assert_eq!(text.parse::<OciDigest>(), Err(OciDigestError), "{text}");
        }
    }

    #[test]
    fn a_saved_hasher_goes_on_where_it_stopped() {
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for cut in [0, 1, 63, 64, 65, 4096, bytes.len()] {
            let (head, tail) = bytes.split_at(cut);
            let mut hasher = Hasher::default();
            hasher.update(head);
            let mut hasher = Hasher::restore(Some(&hasher.save()), hasher.taken()).unwrap();
            hasher.update(tail);
            assert_eq!(hasher.taken(), bytes.len() as u64);
            assert_eq!(hasher.finish(), Digest::of(&bytes), "{cut}");
        }
        assert!(Hasher::restore(Some("00"), 0).is_err());
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        let hex = Digest::of(b"").hex();
        for text in
            ["", "sha256:", "sha256:xyz", &hex, &format!("sha256:{}", hex.to_uppercase()), &format!("sha256:{hex}0")]
        {
            assert_eq!(text.parse::<Digest>(), Err(DigestError), "{text}");
        }
    }
}
