//! What a share's URL is made of: its id, its secret, the name of its file.

use super::digest::Digest;
use super::ids::ShareId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The text is no share's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the key of a share")]
pub struct ShareError;

/// The secret of a share: 43 characters for 32 random bytes. It is shown once; the table has its SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub struct ShareSecret(String);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const SECRET: usize = 43;

impl ShareSecret {
    /// Makes a secret from random bytes that the caller provides: their Base64, in the form for URLs.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        let digit = |six: u32| ALPHABET.get((six & 63) as usize).copied().map_or('A', char::from);
        let mut text = String::with_capacity(SECRET);
        for three in bytes.chunks(3) {
            let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
            text.extend((0..=three.len()).map(|at| digit(bits >> (18 - 6 * at))));
        }
        Self(text)
    }

    /// Its SHA-256.
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl FromStr for ShareSecret {
    type Err = ShareError;
    fn from_str(text: &str) -> Result<Self, ShareError> {
        let good = text.len() == SECRET && text.bytes().all(|byte| ALPHABET.contains(&byte));
        if good { Ok(Self(text.to_owned())) } else { Err(ShareError) }
    }
}

impl fmt::Debug for ShareSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareSecret")
    }
}

/// The part of a share's URL that permits: `⟨id⟩.⟨secret⟩`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareKey {
    /// Which share.
    pub id: ShareId,
    /// Its secret.
    pub secret: ShareSecret,
}

impl ShareKey {
    /// The text for the URL, with the secret in it.
    pub fn text(&self) -> String {
        format!("{}.{}", self.id, self.secret.0)
    }
}

impl FromStr for ShareKey {
    type Err = ShareError;
    fn from_str(text: &str) -> Result<Self, ShareError> {
        let (id, secret) = text.split_once('.').ok_or(ShareError)?;
        Ok(Self { id: id.parse().map_err(|_| ShareError)?, secret: secret.parse()? })
    }
}

/// The longest name of a file, in bytes.
const LONGEST: usize = 200;

/// The name of a file that is downloaded: letters, digits and `._+~-`, and no hidden file's. It means the same in a
/// URL, in a header, in a page and on every file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte)
}

impl FileName {
    /// The name for a file that somebody calls `text`: its last part, with `_` for whatever a name can't have.
    pub fn of(text: &str) -> Self {
        let last = text.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or_default();
        let known = |c: char| if u8::try_from(c).is_ok_and(plain) { c } else { '_' };
        // The end tells what kind of file it is.
        let length = last.chars().count();
        let name: String = last.chars().skip(length.saturating_sub(LONGEST)).map(known).collect();
        match name.strip_prefix(['.', '-', '~']) {
            Some(rest) => Self(format!("_{rest}")),
            None if name.is_empty() => Self("file".to_owned()),
            None => Self(name),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FileName {
    type Error = ShareError;
    fn try_from(text: String) -> Result<Self, ShareError> {
        let name = Self::of(&text);
        if name.0 == text { Ok(name) } else { Err(ShareError) }
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_base64_for_urls_and_is_never_shown_by_accident() {
        assert_eq!(ShareSecret::from_random([0; 32]).0, "A".repeat(43));
        assert_eq!(ShareSecret::from_random([255; 32]).0, format!("{}8", "_".repeat(42)));
        let counted: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let secret = ShareSecret::from_random(counted);
        assert_eq!(secret.0, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
        let key = ShareKey { id: ShareId::from_random([1; 12]), secret };
        assert_eq!(key.text().parse(), Ok(key.clone()));
        assert!(!format!("{key:?}").contains("AAEC"), "{key:?}");
        let hex = "01".repeat(12);
        for wrong in ["", ".", &hex, &format!("{hex}."), &format!("{hex}.{}", "A".repeat(42)), &key.text()[1..]] {
            assert_eq!(wrong.parse::<ShareKey>(), Err(ShareError), "{wrong}");
        }
        assert!(format!("{hex}.{}+", "A".repeat(42)).parse::<ShareKey>().is_err());
    }

    #[test]
    fn a_file_has_a_name_that_can_do_no_harm() {
        for (given, name) in [
            ("hello_1.0.sif", "hello_1.0.sif"),
            ("../../etc/passwd", "passwd"),
            ("a\\b.txt", "b.txt"),
            ("data/", "data"),
            (".bashrc", "_bashrc"),
            ("-rf", "_rf"),
            ("a b\"c\r\n<d>é.txt", "a_b_c___d__.txt"),
            ("..", "_."),
            ("", "file"),
            ("/", "file"),
        ] {
            let made = FileName::of(given);
            assert_eq!(made.as_str(), name, "{given:?}");
            assert_eq!(FileName::try_from(String::from(made.clone())), Ok(made));
        }
        let long = FileName::of(&format!("{}.tar.gz", "x".repeat(1000)));
        assert!(long.as_str().len() == LONGEST && long.as_str().ends_with(".tar.gz"));
        assert!(FileName::try_from(".x".to_owned()).is_err());
    }
}
