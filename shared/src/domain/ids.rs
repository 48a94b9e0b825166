//! Opaque identifiers. On the wire they are lower-case hexadecimal digits, and pointers to names in the table.

use super::digest::{hex, unhex};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The text is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: {digits} lower-case hexadecimal digits are expected")]
pub struct IdError {
    kind: &'static str,
    digits: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type([u8; $bytes]);

        impl $type {
            /// Makes an identifier from random bytes that the caller provides.
            pub fn from_random(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; $bytes];
                unhex(text, &mut bytes).ok_or(IdError { kind: $kind, digits: $bytes * 2 })?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> Self {
                id.to_string()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// An entity, collection, container or image: 24 digits, since old clients accept nothing else.
    Id, "id", 12
);
id!(
    /// An upload session: one attempt to upload bytes.
    UploadId, "upload id", 16
);
id!(
    /// A named token of a user (`jti`).
    TokenId, "token id", 12
);
id!(
    /// A share: a URL that lets its holder download one image.
    ShareId, "share id", 12
);

impl UploadId {
    /// The session of an image's single `PUT`s. Pushes of the same bytes share it, since clients that upload in this
    /// way name only the image.
    pub fn of_image(image: Id) -> Self {
        let mut bytes = [0; 16];
        for (byte, of_image) in bytes.iter_mut().zip(image.0) {
            *byte = of_image;
        }
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_24_lower_case_digits() {
        let id = Id::from_random([0xab; 12]);
        assert_eq!(id.to_string(), "ab".repeat(12));
        assert_eq!("ab".repeat(12).parse(), Ok(id));
        for bad in ["", "ab", &"AB".repeat(12), &"zz".repeat(12), &"ab".repeat(13)] {
            assert!(bad.parse::<Id>().is_err(), "{bad}");
        }
    }
}
