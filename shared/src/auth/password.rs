//! People's passwords, as argon2id hashes.

use crate::error::Error;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use secrecy::{ExposeSecret, SecretString};

/// The shortest password that is accepted, in bytes.
pub const SHORTEST: usize = 8;
/// The longest, in bytes.
pub const LONGEST: usize = 1024;

/// The hash to compare with if a user has no password, so that the comparison takes as long. It has the same
/// parameters as a hash of [`hash`], but no password matches it.
pub const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgb3duIHNhbA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Refuses a password that is too short or too long.
pub fn check(password: &SecretString) -> Result<(), Error> {
    if (SHORTEST..=LONGEST).contains(&password.expose_secret().len()) {
        return Ok(());
    }
    Err(Error::Invalid(format!("a password must have {SHORTEST} to {LONGEST} bytes")))
}

/// Hashes a password with a new salt. Takes tens of milliseconds: call it off the async threads.
pub fn hash(password: &SecretString) -> Result<String, Error> {
    check(password)?;
    let hash = Argon2::default().hash_password(password.expose_secret().as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| Error::Internal(format!("can't hash a password: {error}")))
}

/// Whether the password matches the hash. As slow as [`hash`].
pub fn verify(password: &SecretString, hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.expose_secret().as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_verifies() {
        let right = SecretString::from("correct horse");
        let hashed = hash(&right).unwrap();
        assert!(hashed.starts_with("$argon2id$"));
        assert!(verify(&right, &hashed));
        assert!(!verify(&SecretString::from("correct horsf"), &hashed));
        assert!(!verify(&right, "not a hash"));
        assert!(hash(&SecretString::from("short")).is_err());
    }

    #[test]
    fn nobodys_hash_costs_what_every_other_does() {
        let right = SecretString::from("correct horse");
        let hashed = hash(&right).unwrap();
        let shape = |hash: &str| hash.split('$').map(str::to_owned).collect::<Vec<_>>();
        let (one, other) = (shape(&hashed), shape(NOBODY));
        assert_eq!(one[..4], other[..4], "algorithm, version, parameters");
        assert_eq!((one[4].len(), one[5].len(), one.len()), (other[4].len(), other[5].len(), other.len()));
        assert!(PasswordHash::new(NOBODY).is_ok() && !verify(&right, NOBODY));
    }
}
