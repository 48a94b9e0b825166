//! API tokens: signed, named, revocable.
//!
//! A token is a JWT that names its user (`sub`) and its row (`jti`), so the row can be read in the same batch as
//! everything else. The scope is in the row, not in the token.

use crate::domain::{Actor, Id, Repository, Time, TokenId, TokenScope, UploadId};
use crate::error::{BAD_TOKEN, Error};
use crate::random;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How long a registry client's token lives.
pub const REGISTRY_LIFE: Duration = Duration::from_mins(5);
/// Clients refuse a token file with fewer characters.
const SHORTEST: usize = 200;
/// Clients refuse a token file with more characters.
const LONGEST: usize = 4096;

/// The caller according to the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Anonymous: no token, or an empty one.
    Anonymous,
    /// The user of a token that we signed and whose own expiry has not passed. The token's row decides in the end.
    Token {
        /// Whose it is.
        actor: Actor,
        /// The token's row.
        id: TokenId,
    },
    /// A short-lived token that a registry client got for the scopes it asked for.
    Registry {
        /// The user.
        actor: Actor,
        /// The row of the API token that was exchanged for it; `None` if it was exchanged for a password.
        id: Option<TokenId>,
        /// The [mark](crate::store::rows::User::password_mark) of that password: the credential ends with it.
        password: Option<String>,
        /// The most that it can be used for.
        access: Vec<TokenScope>,
    },
}

impl Credential {
    /// The person or robot that it names.
    pub fn actor(&self) -> Option<&Actor> {
        match self {
            Self::Anonymous => None,
            Self::Token { actor, .. } | Self::Registry { actor, .. } => Some(actor),
        }
    }
}

/// The claims of a token. An API token has `sub` and `jti`. A registry client's token has `acc`, and no `sub` if it is
/// anonymous, `jti` if it was given for an API token, `pwd` if for a password.
#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<Actor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<TokenId>,
    iat: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pwd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acc: Option<Vec<TokenScope>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pad: String,
}

/// A URL that we signed. It has no `iat`, so it can't pass as a token, and a token has no `to`.
#[derive(Serialize, Deserialize)]
struct Ticket {
    to: String,
}

/// The right to send the bytes of one upload, as part of its URL: clients may or may not send their token to another
/// host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadTicket {
    /// The upload.
    #[serde(rename = "up")]
    pub upload: UploadId,
    /// The repository that it is for.
    #[serde(rename = "re")]
    pub repository: Repository,
    /// The user who opened it.
    #[serde(rename = "by")]
    pub actor: Actor,
    /// The row of the API token that was used for it, if one was.
    #[serde(rename = "id", default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// The mark of the password that was used for it, if one was.
    #[serde(rename = "pw", default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The id of the repository, if it was there: the upload ends with it.
    #[serde(rename = "co", default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Id>,
    /// When it ends.
    #[serde(rename = "un")]
    pub until: Time,
}

/// The keys that sign and verify tokens. They can be replaced while requests are answered.
pub struct Keys(RwLock<Arc<Ring>>);

/// The keys of one moment, by key id.
struct Ring {
    current: String,
    signing: EncodingKey,
    verifying: HashMap<String, DecodingKey>,
    validation: Validation,
    /// The claims of tokens whose signatures were found valid. They hold nothing from the table: a token's row is read
    /// on every request, and says whether it was revoked. Checking a signature is a fifth of what a token adds to a
    /// lookup.
    verified: Mutex<HashMap<String, Verified>>,
}

/// The claims of a token never change: its text either has a valid signature or not.
#[derive(Clone)]
struct Verified {
    credential: Credential,
    expires: Option<i64>,
}

/// The most tokens that are remembered, at up to 4 KiB each. If there are more, all are forgotten.
const MAX_VERIFIED: usize = 1024;

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("current", &self.ring().current).finish_non_exhaustive()
    }
}

impl Ring {
    fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::Internal("the token keys must be lines of `id:64 hexadecimal digits`".to_owned());
        let mut keys = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (id, digits) = line.split_once(':').ok_or_else(bad)?;
            let mut secret = [0; 32];
            crate::domain::digest::unhex(digits, &mut secret).ok_or_else(bad)?;
            keys.push((id.to_owned(), secret));
        }
        let (current, secret) = keys.first().cloned().ok_or_else(bad)?;
        let verifying = keys.iter().map(|(id, secret)| (id.clone(), DecodingKey::from_secret(secret)));
        // The algorithm belongs to the key and is never taken from the token. The expiry is compared with our own
        // clock.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.set_required_spec_claims::<&str>(&[]);
        Ok(Self {
            current,
            signing: EncodingKey::from_secret(&secret),
            verifying: verifying.collect(),
            validation,
            verified: Mutex::default(),
        })
    }
}

impl Keys {
    /// Reads keys from lines `id:64 hexadecimal digits`. The first key signs; all of them verify.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self(RwLock::new(Arc::new(Ring::parse(text)?))))
    }

    /// Takes other keys from now on. If they can't be read, nothing changes.
    pub fn replace(&self, text: &str) -> Result<(), Error> {
        let ring = Arc::new(Ring::parse(text)?);
        // A ring is replaced as a whole, so a panic elsewhere left none half written.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = ring;
        Ok(())
    }

    fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a text is a token that names a key which is not among these.
    pub fn misses(&self, token: &str) -> bool {
        let kid = Some(token).filter(|token| token.len() <= LONGEST).and_then(|token| {
            let header = jsonwebtoken::decode_header(token).ok()?;
            header.kid
        });
        kid.is_some_and(|kid| !self.ring().verifying.contains_key(&kid))
    }

    /// A line for [`Keys::parse`] with a new random key.
    pub fn generate() -> Result<String, Error> {
        let id = crate::domain::digest::hex(&random::bytes::<4>()?);
        Ok(format!("{id}:{}\n", crate::domain::digest::hex(&random::bytes::<32>()?)))
    }

    /// Signs a token.
    pub fn sign(&self, actor: &Actor, id: TokenId, now: Time, expires: Option<Time>) -> Result<SecretString, Error> {
        let mut claims = Claims {
            sub: Some(actor.clone()),
            jti: Some(id),
            iat: now.0,
            exp: expires.map(|time| time.0),
            pwd: None,
            acc: None,
            pad: String::new(),
        };
        let token = self.encode(&claims)?;
        if token.len() >= SHORTEST {
            return Ok(token.into());
        }
        claims.pad = "_".repeat(SHORTEST - token.len());
        self.encode(&claims).map(Into::into)
    }

    /// Signs a short-lived token for a registry client that presented `credential`.
    pub fn sign_access(
        &self,
        credential: &Credential,
        access: Vec<TokenScope>,
        now: Time,
        expires: Time,
    ) -> Result<SecretString, Error> {
        let (sub, jti, pwd) = match credential {
            Credential::Anonymous => (None, None, None),
            Credential::Token { actor, id } => (Some(actor.clone()), Some(*id), None),
            Credential::Registry { actor, id, password, .. } => (Some(actor.clone()), *id, password.clone()),
        };
        let (exp, acc) = (Some(expires.0), Some(access));
        self.encode(&Claims { sub, jti, iat: now.0, exp, pwd, acc, pad: String::new() }).map(Into::into)
    }

    /// Signs the right to send the bytes of an upload.
    pub fn sign_upload(&self, ticket: &UploadTicket) -> Result<String, Error> {
        self.encode(ticket)
    }

    /// Reads the right to send the bytes of an upload, if it has not expired.
    pub fn upload(&self, text: &str, now: Time) -> Option<UploadTicket> {
        self.decode::<UploadTicket>(text).filter(|ticket| ticket.until > now)
    }

    fn encode(&self, claims: &impl Serialize) -> Result<String, Error> {
        let ring = self.ring();
        let header = Header { kid: Some(ring.current.clone()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, &ring.signing)
            .map_err(|error| Error::Internal(format!("can't sign: {error}")))
    }

    /// The caller of a token without its scheme.
    pub fn token(&self, token: &str, now: Time) -> Option<Credential> {
        self.verify(token, now)
    }

    /// Reads the `Authorization` header of a request. The scheme's case does not matter; an empty token means
    /// anonymous.
    pub fn credential(&self, authorization: Option<&str>, now: Time) -> Result<Credential, Error> {
        let Some(text) = authorization else { return Ok(Credential::Anonymous) };
        let (scheme, token) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Error::Unauthenticated(BAD_TOKEN));
        }
        match token.trim() {
            "" => Ok(Credential::Anonymous),
            token => self.verify(token, now).ok_or(Error::Unauthenticated(BAD_TOKEN)),
        }
    }

    /// Signs a URL, to be handed to a client and checked when it comes back.
    pub fn seal(&self, url: &str) -> Result<String, Error> {
        self.encode(&Ticket { to: url.to_owned() })
    }

    /// Checks a URL that [`Keys::seal`] signed.
    pub fn unseal(&self, ticket: &str) -> Option<String> {
        self.decode::<Ticket>(ticket).map(|ticket| ticket.to)
    }

    fn verify(&self, token: &str, now: Time) -> Option<Credential> {
        if token.len() > LONGEST {
            return None;
        }
        let ring = self.ring();
        let known = ring.verified.lock().ok().and_then(|verified| verified.get(token).cloned());
        let verified = known.or_else(|| ring.check(token))?;
        if verified.expires.is_some_and(|expires| expires <= now.0) {
            return None;
        }
        Some(verified.credential)
    }

    fn decode<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        self.ring().decode(token)
    }
}

impl Ring {
    /// Checks the signature of a token, and remembers a valid one.
    fn check(&self, token: &str) -> Option<Verified> {
        let Claims { sub, jti, exp: expires, pwd: password, acc, .. } = self.decode(token)?;
        let credential = match (sub, jti, acc) {
            (Some(actor), Some(id), None) => Credential::Token { actor, id },
            // A token that was issued for a limited time must contain that time.
            (.., Some(_)) if expires.is_none() => return None,
            // And it ends with what it was issued for.
            (Some(_), id, Some(_)) if id.is_some() == password.is_some() => return None,
            (Some(actor), id, Some(access)) => Credential::Registry { actor, id, password, access },
            (None, None, Some(_)) => Credential::Anonymous,
            _ => return None,
        };
        let found = Verified { credential, expires };
        if let Ok(mut verified) = self.verified.lock() {
            if verified.len() >= MAX_VERIFIED {
                verified.clear();
            }
            verified.insert(token.to_owned(), found.clone());
        }
        Some(found)
    }

    fn decode<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
        let key = self.verifying.get(&kid)?;
        Some(jsonwebtoken::decode::<T>(token, key, &self.validation).ok()?.claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const NOW: Time = Time(1_800_000_000);

    fn keys() -> Keys {
        Keys::parse(&Keys::generate().unwrap()).unwrap()
    }

    fn token(keys: &Keys, expires: Option<Time>) -> String {
        let id = TokenId::from_random([7; 12]);
        keys.sign(&"a".parse().unwrap(), id, NOW, expires).unwrap().expose_secret().to_owned()
    }

    #[test]
    fn tokens_have_the_length_that_clients_accept() {
        let long: Actor = "a".repeat(64).parse().unwrap();
        let keys = keys();
        let longest = keys.sign(&long, TokenId::from_random([0; 12]), NOW, Some(NOW)).unwrap();
        for token in [token(&keys, None), token(&keys, Some(NOW)), longest.expose_secret().to_owned()] {
            assert!((SHORTEST..=LONGEST).contains(&token.len()), "{}", token.len());
            assert!(token.bytes().all(|b| b.is_ascii_graphic()));
        }
    }

    #[test]
    fn a_token_is_its_users_until_it_expires() {
        let keys = keys();
        let user = Credential::Token { actor: "a".parse().unwrap(), id: TokenId::from_random([7; 12]) };
        for scheme in ["Bearer", "BEARER", "bEaReR"] {
            let header = format!("{scheme} {}", token(&keys, None));
            assert_eq!(keys.credential(Some(&header), NOW).unwrap(), user);
        }
        let header = format!("Bearer {}", token(&keys, Some(Time(NOW.0 + 1))));
        assert!(keys.credential(Some(&header), NOW).is_ok());
        assert!(keys.credential(Some(&header), Time(NOW.0 + 1)).is_err());
    }

    #[test]
    fn a_short_lived_token_without_an_end_is_none() {
        let keys = keys();
        let user: Actor = "a".parse().unwrap();
        for (exp, good) in [(Some(NOW.0 + 1), true), (Some(NOW.0), false), (None, false)] {
            for sub in [Some(user.clone()), None] {
                let (acc, pwd) = (Some(vec![TokenScope::full()]), sub.as_ref().map(|_| "mark".to_owned()));
                let claims = Claims { sub, jti: None, iat: NOW.0, exp, pwd, acc, pad: String::new() };
                assert_eq!(keys.token(&keys.encode(&claims).unwrap(), NOW).is_some(), good, "{exp:?}");
            }
        }
    }

    #[test]
    fn an_empty_token_is_nobody_and_a_bad_one_is_refused() {
        let keys = keys();
        for header in [None, Some("Bearer"), Some("Bearer "), Some("BEARER  ")] {
            assert_eq!(keys.credential(header, NOW).unwrap(), Credential::Anonymous);
        }
        let strange = format!("Bearer {}", token(&self::keys(), None));
        let altered = format!("Bearer {}x", token(&keys, None));
        let none = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.";
        for header in ["Bearer x", "Digest x", none, &strange, &altered, &format!("Bearer {}", "a".repeat(5000))] {
            assert!(keys.credential(Some(header), NOW).is_err(), "{header}");
        }
    }

    #[test]
    fn a_ticket_is_no_token_and_a_token_no_ticket() {
        let keys = keys();
        let ticket = keys.seal("http://h/x?y=z").unwrap();
        assert_eq!(keys.unseal(&ticket).as_deref(), Some("http://h/x?y=z"));
        assert!(keys.credential(Some(&format!("Bearer {ticket}")), NOW).is_err());
        assert_eq!(keys.unseal(&token(&keys, None)), None);
        assert_eq!(self::keys().unseal(&ticket), None);
    }

    #[test]
    fn old_keys_still_verify_after_a_new_one_signs() {
        let (old, new) = (Keys::generate().unwrap(), Keys::generate().unwrap());
        let header = format!("Bearer {}", token(&Keys::parse(&old).unwrap(), None));
        let both = Keys::parse(&format!("{new}{old}")).unwrap();
        assert!(both.credential(Some(&header), NOW).is_ok());
    }

    #[test]
    fn keys_are_replaced_as_a_whole_or_not_at_all() {
        let (old, new) = (Keys::generate().unwrap(), Keys::generate().unwrap());
        let (keys, others) = (Keys::parse(&old).unwrap(), Keys::parse(&new).unwrap());
        let (first, second) = (token(&keys, None), token(&others, None));
        let known = |keys: &Keys, token: &str| (keys.token(token, NOW).is_some(), keys.misses(token));
        assert_eq!((known(&keys, &first), known(&keys, &second)), ((true, false), (false, true)));
        assert!(keys.replace("").is_err() && keys.replace(&format!("{new}x:1")).is_err());
        assert_eq!((known(&keys, &first), known(&keys, &second)), ((true, false), (false, true)));
        keys.replace(&new).unwrap();
        // What was remembered of the old key is forgotten with it.
        assert_eq!((known(&keys, &first), known(&keys, &second)), ((false, true), (true, false)));
        for text in ["", "x", "a.b.c", "eyJhbGciOiJIUzI1NiJ9.e30.x", &"a.".repeat(5000)] {
            assert!(!keys.misses(text), "{text} names no key");
        }
    }
}
