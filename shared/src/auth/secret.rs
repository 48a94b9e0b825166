//! Secrets in URLs: of each, only the SHA-256 is kept.

use crate::domain::{Digest, ShareSecret};
use subtle::ConstantTimeEq;

/// Whether this is the secret that was kept. How long it takes says nothing about either.
pub fn is_kept(secret: &ShareSecret, kept: &Digest) -> bool {
    secret.digest().bytes().ct_eq(kept.bytes()).into()
}
