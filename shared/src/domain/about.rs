//! What people say about what they keep, beyond a description: a README, data of their own, where its sources are.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AboutError {
    /// It is too long.
    #[error("{what} can have at most {most} bytes")]
    TooLong {
        /// What.
        what: &'static str,
        /// How long it may be.
        most: usize,
    },
    /// It is not text that can be shown.
    #[error("{0} can have no control characters but tabs and ends of lines")]
    Control(&'static str),
    /// It is no link that can be shown.
    #[error(
        "the URL of the sources must be like `https://example.org/project`: with http or https, a host, no user name or \
         password, and in ASCII without spaces and quotes"
    )]
    Url,
}

/// Checks the length of a text, and that it has no characters that would do something to a terminal.
fn text(text: &str, what: &'static str, most: usize) -> Result<(), AboutError> {
    if text.len() > most {
        return Err(AboutError::TooLong { what, most });
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(AboutError::Control(what));
    }
    Ok(())
}

/// Whether a text is an absolute URL for browsers, of which every part can be shown as it is.
fn is_link(url: &str) -> bool {
    let start = |scheme: &str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let Some(scheme) = ["https://", "http://"].into_iter().find(|scheme| start(scheme)) else { return false };
    let rest = url.get(scheme.len()..).unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        // A colon inside of brackets belongs to the address.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "1"),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good_host = match address {
        Some(address) => address.contains(':') && address.bytes().all(|c| c.is_ascii_hexdigit() || b":.".contains(&c)),
        None => host.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c)),
    };
    !host.is_empty()
        && good_host
        && port.parse::<u16>().is_ok_and(|port| port > 0)
        && rest.bytes().all(|c| c.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&c))
}

macro_rules! about {
    ($(#[$doc:meta])* $type:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl TryFrom<String> for $type {
            type Error = AboutError;
            fn try_from(text: String) -> Result<Self, AboutError> {
                let check: fn(&str) -> Result<(), AboutError> = $check;
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$type> for String {
            fn from(text: $type) -> Self {
                text.0
            }
        }

        impl Deref for $type {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// The longest README, in bytes.
pub const LONGEST_README: usize = 64 << 10;
/// The most data of their own that people keep with something, in bytes.
pub const LONGEST_DATA: usize = 16 << 10;
/// The longest URL of sources, in bytes.
pub const LONGEST_URL: usize = 2048;

about!(
    /// A README, in Markdown. It is kept as it was written, and empty if there is none.
    Readme, |readme| text(readme, "a README", LONGEST_README)
);
about!(
    /// Data that people or their programs keep with something. It means nothing here.
    CustomData, |data| text(data, "custom data", LONGEST_DATA)
);
about!(
    /// Where the sources of something are. It is shown, and never fetched; empty if it is not known.
    SourceUrl, |url| {
        text(url, "the URL of the sources", LONGEST_URL)?;
        if url.is_empty() || is_link(url) { Ok(()) } else { Err(AboutError::Url) }
    }
);

/// What is said about something; `None` leaves what was said before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The README.
    pub readme: Option<Readme>,
    /// The data of its own.
    pub custom_data: Option<CustomData>,
    /// Where its sources are.
    pub vcs_url: Option<SourceUrl>,
}

impl Said {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readme_is_text_of_a_longest_length() {
        let read = |text: &str| Readme::try_from(text.to_owned());
        assert_eq!(read("# Title\r\n\n\ttabs, ümläute\n").unwrap().to_string(), "# Title\r\n\n\ttabs, ümläute\n");
        assert!(read(&"x".repeat(LONGEST_README)).is_ok());
        assert!(matches!(read(&"x".repeat(LONGEST_README + 1)), Err(AboutError::TooLong { .. })));
        for wrong in ["\u{1b}[2J", "\0", "a\u{7f}", "\u{9b}2J"] {
            assert_eq!(read(wrong), Err(AboutError::Control("a README")), "{wrong:?}");
        }
        assert!(CustomData::try_from("x".repeat(LONGEST_DATA + 1)).is_err());
    }

    #[test]
    fn a_url_of_sources_is_for_browsers_and_says_no_password() {
        let good = [
            "",
            "https://example.org",
            "HTTP://Example.org:8080/a/b?c=d&e#f",
            "https://[2001:db8::1]:443/x",
            "https://127.0.0.1/~a/%20(1),*;=$!+@",
        ];
        for url in good {
            assert!(SourceUrl::try_from(url.to_owned()).is_ok(), "{url}");
        }
        let wrong = [
            "example.org",
            "git@example.org:a/b",
            "ssh://example.org",
            "file:///etc/passwd",
            "javascript:alert(1)//https://x",
            " https://example.org",
            "https://",
            "https:///path",
            "https://:80/",
            "https://user:secret@example.org/",
            "https://user@example.org",
            "https://example.org:0/",
            "https://example.org:99999/",
            "https://exa mple.org/",
            "https://example.org/a b",
            "https://example.org/\"onload=",
            "https://example.org/<script>",
            "https://example.org\\@evil.org/",
            "https://ex\u{e4}mple.org/",
            "https://[::1/",
            "https://[]/",
            "https://example.org/\n",
        ];
        for url in wrong {
            assert!(SourceUrl::try_from(url.to_owned()).is_err(), "{url}");
        }
        assert!(SourceUrl::try_from(format!("https://x/{}", "y".repeat(LONGEST_URL))).is_err());
    }
}
