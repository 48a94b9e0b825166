//! People's passwords, as argon2id hashes.

use crate::error::Error;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use secrecy::{ExposeSecret, SecretString};

/// The shortest password that is taken, in bytes.
pub const SHORTEST: usize = 8;
/// The longest, in bytes.
pub const LONGEST: usize = 1024;

/// Hashes a password with a new salt. Takes tens of milliseconds: call it off the async threads.
pub fn hash(password: &SecretString) -> Result<String, Error> {
    let password = password.expose_secret();
    if !(SHORTEST..=LONGEST).contains(&password.len()) {
        return Err(Error::Invalid(format!("a password has {SHORTEST} to {LONGEST} bytes")));
    }
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| Error::Internal(format!("can't hash a password: {error}")))
}

/// Whether the password is the one that was hashed. As slow as [`hash`].
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
}
