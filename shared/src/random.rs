//! Randomness of the operating system.

use crate::error::Error;

/// Random bytes, suitable for keys and for names that nobody can guess.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::Internal(format!("no randomness: {error}")))?;
    Ok(bytes)
}

/// A number drawn at random.
pub(crate) fn number() -> Result<u32, Error> {
    bytes().map(u32::from_le_bytes)
}
