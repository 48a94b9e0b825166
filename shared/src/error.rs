//! What goes wrong, without HTTP. Each protocol says in its own words what a variant means.

use crate::domain::caller::ScopeError;
use crate::domain::description::DescriptionError;
use crate::domain::digest::DigestError;
use crate::domain::ids::IdError;
use crate::domain::names::NameError;
use crate::domain::reference::ReferenceError;
use crate::domain::sif::SifError;
use crate::rules::Denial;
use crate::store::StoreError;
use std::time::Duration;

/// A use case failed. `Display` is the sentence for the user; what happened inside is in the sources, for the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Who is calling must be known and isn't, or their token is not valid (any more).
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// It does not exist, or the caller may not know that it exists.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The caller may not.
    #[error("{0}")]
    Forbidden(String),
    /// What the client sent can't be used.
    #[error("{0}")]
    Invalid(String),
    /// What is asked does not fit the state that things are in.
    #[error("{0}")]
    Conflict(String),
    /// The account has no room.
    #[error("Upload would exceed quota")]
    QuotaExceeded {
        /// Bytes charged.
        charged: u64,
        /// The most that may be charged.
        limit: u64,
    },
    /// Too much at once: the client may come back after so long.
    #[error("{why}")]
    Busy {
        /// What there is too much of.
        why: &'static str,
        /// How long to stay away.
        after: Duration,
    },
    /// The body is longer than the route accepts.
    #[error("the request is too large: {0}")]
    TooLarge(&'static str),
    /// The store can't be reached.
    #[error("the store is not available, try again later")]
    Unavailable(#[source] StoreError),
    /// A mistake of ours.
    #[error("internal error")]
    Internal(String),
}

/// What the user is told whose token is no good.
pub const BAD_TOKEN: &str = "the token is invalid, expired or revoked, log in again";
/// What the user is told who has no token.
pub const NO_TOKEN: &str = "log in first, this needs a token";

impl Error {
    /// A denial, in words. `what` names the thing that is missing or hidden, `doing` what was refused.
    pub fn denied(denial: Denial, what: &'static str, doing: &str) -> Self {
        match denial {
            Denial::Unauthenticated => Self::Unauthenticated(NO_TOKEN),
            Denial::Hidden => Self::NotFound(what),
            Denial::Forbidden => Self::Forbidden(format!("not permitted to {doing}")),
            Denial::OutOfScope => Self::Forbidden(format!("this token may not be used to {doing}")),
            Denial::ReadOnly => Self::Forbidden(format!("can't {doing}: the container is read-only")),
            Denial::Frozen => Self::Forbidden(format!("can't {doing}: the tag is frozen")),
        }
    }

    /// What happened inside, for the log; `None` when the sentence for the user says it all.
    pub fn inside(&self) -> Option<String> {
        match self {
            Self::Unavailable(error) => Some(error.to_string()),
            Self::Internal(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(why) => Self::Invalid(format!("the object store refused the upload: {why}")),
            error => Self::Unavailable(error),
        }
    }
}

macro_rules! invalid {
    ($($type:ty),*) => {$(
        impl From<$type> for Error {
            fn from(error: $type) -> Self {
                Self::Invalid(error.to_string())
            }
        }
    )*};
}
invalid!(NameError, ReferenceError, IdError, DescriptionError, DigestError, ScopeError, SifError);
