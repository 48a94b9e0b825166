//! Registration: who may make an account for themselves.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Who may make an account for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Registration {
    /// Anybody.
    Open,
    /// Whoever has an invitation of a site admin.
    Invitation,
    /// Nobody: site admins add all users.
    #[default]
    Closed,
}

impl FromStr for Registration {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "open" => Ok(Self::Open),
            "invitation" => Ok(Self::Invitation),
            "closed" => Ok(Self::Closed),
            _ => Err(()),
        }
    }
}

/// Somebody's e-mail address. Nobody checked that it is theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Email(String);

/// The longest address, in bytes (RFC 5321, 4.5.3.1.3).
const LONGEST: usize = 254;

/// The text is no e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an e-mail address is NAME@HOST without blanks, of at most {LONGEST} bytes")]
pub struct EmailError;

impl TryFrom<String> for Email {
    type Error = EmailError;
    /// Only what would be of no use at all is refused: whether an address exists, only a message to it can tell.
    fn try_from(text: String) -> Result<Self, EmailError> {
        let parts = text.rsplit_once('@').filter(|(name, host)| !name.is_empty() && !host.is_empty());
        let odd = |c: char| c.is_whitespace() || c.is_control() || "<>\"(),;:\\".contains(c);
        match parts {
            Some((name, host)) if text.len() <= LONGEST && !name.contains('@') && !host.contains('@') => {
                if text.contains(odd) { Err(EmailError) } else { Ok(Self(text)) }
            }
            _ => Err(EmailError),
        }
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_e_mail_address_has_a_name_and_a_host_and_no_blanks() {
        let read = |text: &str| Email::try_from(text.to_owned()).is_ok();
        for good in ["alice@example.org", "alice+tools@example.org", "ä@ö.example", "a@localhost"] {
            assert!(read(good), "{good}");
        }
        let long = format!("{}@example.org", "a".repeat(LONGEST));
        for bad in ["", "alice", "@", "a@", "@b", "a b@c", "a@b@c", "a@b\n", "<a@b>", "a@b,c@d", long.as_str()] {
            assert!(!read(bad), "{bad}");
        }
    }
}
