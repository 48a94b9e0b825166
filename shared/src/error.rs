//! Errors, independent of HTTP. Each protocol decides how to express a variant.

use crate::domain::about::AboutError;
use crate::domain::caller::ScopeError;
use crate::domain::description::DescriptionError;
use crate::domain::digest::{DigestError, HasherError};
use crate::domain::ids::IdError;
use crate::domain::names::NameError;
use crate::domain::order::OrderError;
use crate::domain::reference::ReferenceError;
use crate::domain::registration::EmailError;
use crate::domain::sif::SifError;
use crate::domain::time::TimeError;
use crate::rules::Denial;
use crate::store::StoreError;
use std::time::Duration;

/// A use case failed. `Display` is the message for the user; the internal cause is in the source, for the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller must be known but isn't, or their token is not valid (any more).
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// It does not exist, or the caller may not know that it exists.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// It was there for the caller, and is over.
    #[error("{0}")]
    Gone(&'static str),
    /// The caller may not.
    #[error("{0}")]
    Forbidden(String),
    /// The client's input is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The uploaded bytes are not those that were announced, or no image. Sending them again does not help.
    #[error("{0}")]
    WrongBytes(String),
    /// The request conflicts with the current state.
    #[error("{0}")]
    Conflict(String),
    /// There is something in it, and only something empty was to be deleted.
    #[error("{0}")]
    NotEmpty(String),
    /// The account has no room.
    #[error("Upload would exceed quota")]
    QuotaExceeded {
        /// Bytes charged.
        charged: u64,
        /// The most that may be charged.
        limit: u64,
    },
    /// The account has room, but too much that it is not charged for is still in the bucket.
    #[error(
        "{surplus} bytes that were deleted lately, or are being uploaded several times, are still kept, which is too much \
         for a limit of {limit} bytes: they are given back within a day or two, push again then"
    )]
    TooMuchKept {
        /// Bytes in surplus.
        surplus: u64,
        /// The most that may be charged.
        limit: u64,
    },
    /// The entity has as many rows in the table as its limit allows.
    #[error(
        "the entity has {rows} tags, manifests, images, uploads and other entries, and may have {most} with its quota: \
         delete some, or ask for a larger quota; deleted bytes and ended uploads count for a day or two more"
    )]
    TooManyRows {
        /// What it has.
        rows: u64,
        /// What it may have.
        most: u64,
    },
    /// Too many requests at once: the client may retry after `after`.
    #[error("{why}")]
    Busy {
        /// The reason, as a message.
        why: String,
        /// How long the client should wait.
        after: Duration,
    },
    /// The body is longer than the route accepts.
    #[error("the request is too large: {0}")]
    TooLarge(&'static str),
    /// The bytes were here, and are lost or damaged.
    #[error("its bytes are lost or damaged in the store: push it again, or tell the administrator")]
    Lost,
    /// The store can't be reached.
    #[error("the store is not available, try again later")]
    Unavailable(#[source] StoreError),
    /// The disk of an embedded store has no room: no client can change that.
    #[error("the server's disk is full, nothing can be stored or deleted: tell the administrator")]
    DiskFull,
    /// A mistake of ours.
    #[error("internal error")]
    Internal(String),
}

/// The message for a caller whose token is not valid.
pub const BAD_TOKEN: &str = "the token is invalid, expired or revoked, log in again";
/// The message for a caller without a token.
pub const NO_TOKEN: &str = "log in first, this needs a token";

impl Error {
    /// An error for a denial. `what` names the thing that is missing or hidden, `doing` the refused action.
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

    /// The internal cause, for the log; `None` if the user's message says everything.
    pub fn cause(&self) -> Option<String> {
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
            StoreError::Full => Self::DiskFull,
            StoreError::Mistake(what) => Self::Internal(what),
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
invalid!(
    AboutError,
    NameError,
    OrderError,
    ReferenceError,
    IdError,
    DescriptionError,
    DigestError,
    ScopeError,
    TimeError,
    EmailError
);

impl From<SifError> for Error {
    fn from(error: SifError) -> Self {
        Self::WrongBytes(error.to_string())
    }
}

impl From<HasherError> for Error {
    fn from(error: HasherError) -> Self {
        Self::Internal(error.to_string())
    }
}
