//! Descriptions that people write.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;

/// A description of an entity, a collection, a container or an image. Often empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Description(String);

/// The longest description, in bytes.
const LONGEST: usize = 4096;

/// The text is too long for a description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a description can have at most {LONGEST} bytes")]
pub struct DescriptionError;

impl TryFrom<String> for Description {
    type Error = DescriptionError;
    /// The placeholder that old clients send does not count as a description.
    fn try_from(text: String) -> Result<Self, DescriptionError> {
        if text.len() > LONGEST {
            return Err(DescriptionError);
        }
        Ok(Self(if text.eq_ignore_ascii_case("no description") { String::new() } else { text }))
    }
}

impl From<Description> for String {
    fn from(description: Description) -> Self {
        description.0
    }
}

impl Deref for Description {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_a_longest_length_and_placeholders_are_none() {
        let read = |text: &str| Description::try_from(text.to_owned()).map(String::from);
        assert_eq!(read("No Description"), Ok(String::new()));
        assert_eq!(read("what it is"), Ok("what it is".to_owned()));
        assert!(read(&"x".repeat(LONGEST)).is_ok() && read(&"x".repeat(LONGEST + 1)).is_err());
    }
}
