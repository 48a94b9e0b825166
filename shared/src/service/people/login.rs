//! Logging in: exchanging a name with a password, or an API token, for a short-lived token.

use super::tokens::Issued;
use super::{passwords, tokens};
use crate::app::App;
use crate::auth::Credential;
use crate::auth::token::REGISTRY_LIFE;
use crate::domain::reference::Defaults;
use crate::domain::{Actor, Caller, Right, Time, TokenPlace, TokenScope};
use crate::error::{BAD_TOKEN, Error};
use crate::rules::{Action, Resource};
use crate::service::access::Access;
use crate::store::keys;
use crate::store::rows::{Token, User};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a registry token lives.
pub const LIFE: Duration = REGISTRY_LIFE;
/// The most scopes that one token can be requested with.
const MAX_SCOPES: usize = 10;

const WRONG: &str = "wrong name, password or token";

/// A caller with a name and a secret: a password or one of their API tokens. An empty name and secret mean anonymous.
pub async fn with_secret(app: &App, name: &str, secret: &SecretString) -> Result<Credential, Error> {
    let bad = || Error::Unauthenticated(WRONG);
    if name.is_empty() && secret.expose_secret().is_empty() {
        return Ok(Credential::Anonymous);
    }
    if let Some(credential @ Credential::Token { .. }) = app.keys.token(secret.expose_secret(), app.now()) {
        let own = name.parse::<Actor>().ok();
        let own = own.is_some() && own.as_ref() == credential.actor();
        // Placeholders for the name, sent by clients that store only a token.
        if !own && !matches!(name, "" | "<token>" | "token") {
            return Err(bad());
        }
        // Revocation is checked when the token is used.
        return Ok(credential);
    }
    // A token that we signed is nobody's password, and an expired token in somebody's script must not count as a wrong
    // password.
    let text = secret.expose_secret();
    // Nor one that was signed with a key that is not known here any more, or not yet.
    if app.keys.token(text, Time(i64::MIN)).is_some() || app.keys.misses(text) {
        return Err(bad());
    }
    let user = passwords::user(app, name.parse().ok().as_ref(), secret).await?.ok_or_else(bad)?;
    let (password, access) = (user.password_mark(), vec![TokenScope::full()]);
    Ok(Credential::Registry { actor: user.name.into(), id: None, password, access })
}

/// A login that gave a token to keep.
#[derive(Debug)]
pub struct LoggedIn {
    /// The token.
    pub token: Issued,
    /// Whether its user is a site admin.
    pub admin: bool,
}

/// A token for a name and a password, for clients that keep one. Whoever shows one of their API tokens instead of a
/// password gets it back: another one would reach further.
pub async fn for_keeps(app: &App, name: &str, secret: &SecretString) -> Result<LoggedIn, Error> {
    let credential = with_secret(app, name, secret).await?;
    let access = Access::load(app, &credential, None, []).await?;
    let wrong = || Error::Unauthenticated(WRONG);
    let Caller::Known { actor, admin, .. } = &access.caller else { return Err(wrong()) };
    let token = match (credential, actor.user()) {
        (Credential::Token { id, .. }, _) => {
            let row: Token = app.table.get(keys::token(actor, id)).await?.ok_or_else(wrong)?;
            let row = Token { expires: row.end(app.config.policy.max_token_life), ..row };
            Issued { secret: secret.clone(), row }
        }
        (_, None) => return Err(wrong()),
        (Credential::Anonymous | Credential::Registry { .. }, Some(user)) => {
            let grant = access.require(Action::Manage, &Resource::User(user.clone()), "user", "log in")?;
            let row: User = app.table.get(keys::user(user)).await?.ok_or_else(wrong)?;
            tokens::of_login(app, &grant, &row).await?
        }
    };
    Ok(LoggedIn { token, admin: *admin })
}

/// A short-lived token for the scopes that a client asks for. Its real rights are decided when it is used.
pub async fn token(app: &App, credential: &Credential, scopes: &[&str]) -> Result<SecretString, Error> {
    // A revoked token can't be exchanged for another one.
    Access::load(app, credential, None, []).await?;
    let defaults = &app.config.defaults;
    let scopes = scopes.iter().flat_map(|text| text.split(' ')).filter_map(|text| scope(defaults, text));
    let access: Vec<TokenScope> = scopes.take(MAX_SCOPES).collect();
    let now = app.now();
    app.keys.sign_access(credential, access, now, now.plus(LIFE))
}

/// Reads `repository:NAME:ACTION[,ACTION…]` or `registry:catalog:*`. Unknown words give no right.
fn scope(defaults: &Defaults, text: &str) -> Option<TokenScope> {
    let (kind, rest) = text.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let place = match kind.split('(').next()? {
        "repository" => TokenPlace::Repository(defaults.repository(name).ok()?),
        "registry" if name == "catalog" => {
            return Some(TokenScope { rights: [Right::Pull].into(), place: TokenPlace::Catalog });
        }
        _ => return None,
    };
    let mut rights = BTreeSet::new();
    for action in actions.split(',') {
        match action {
            "pull" => drop(rights.insert(Right::Pull)),
            "push" => drop(rights.insert(Right::Push)),
            "delete" => drop(rights.insert(Right::Delete)),
            "*" => rights.extend([Right::Pull, Right::Push, Right::Delete]),
            _ => {}
        }
    }
    if rights.is_empty() { None } else { Some(TokenScope { rights, place }) }
}

/// The credential of a token in a header's `Bearer`, or the name and secret in its `Basic`.
pub async fn credential(app: &App, authorization: Option<&str>) -> Result<Credential, Error> {
    let basic = authorization.and_then(|text| text.trim().split_once(' '));
    match basic.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")) {
        Some((_, encoded)) => {
            let (name, secret) = basic_pair(encoded).ok_or(Error::Unauthenticated(BAD_TOKEN))?;
            with_secret(app, &name, &secret).await
        }
        None => app.keys.credential(authorization, app.now()),
    }
}

/// The credentials for a short-lived token: a name and secret, an API token, or nothing. A short-lived token can't be
/// exchanged for another one; otherwise it could be extended for ever, and widened to any scope.
pub async fn with_long_lived(app: &App, authorization: Option<&str>) -> Result<Credential, Error> {
    let bearer = authorization.is_some_and(|text| {
        text.trim().split_once(' ').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
    });
    match credential(app, authorization).await? {
        Credential::Registry { .. } if bearer => Err(Error::Unauthenticated(BAD_TOKEN)),
        credential => Ok(credential),
    }
}

/// Reads the name and secret of HTTP's Basic scheme (RFC 7617).
fn basic_pair(encoded: &str) -> Option<(String, SecretString)> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (name, secret) = text.split_once(':')?;
    Some((name.to_owned(), SecretString::from(secret.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_clients_write_them() {
        let defaults = Defaults { entity: "library".parse().unwrap(), collection: "default".parse().unwrap() };
        let scope = |text: &str| scope(&defaults, text);
        for (text, read) in [
            ("repository:acme/tools/bb:pull", Some("pull@acme/tools/bb")),
            ("repository:acme/tools/bb:push,pull", Some("pull,push@acme/tools/bb")),
            ("repository(plugin):acme/bb:*", Some("pull,push,delete@acme/bb")),
            ("registry:catalog:*", Some("pull@_catalog")),
            ("registry:other:*", None),
            ("repository:ACME/bb:pull", Some("pull@acme/bb")),
            ("repository:hello:pull", Some("pull@library/default/hello")),
            ("repository:imagefile:pull", None),
            ("repository::pull", None),
            ("repository:ACME/bb:PULL", None),
            ("repository", None),
            ("", None),
        ] {
            assert_eq!(scope(text).map(|scope| scope.to_string()).as_deref(), read, "{text}");
        }
        assert_eq!(scope("repository:acme/bb:fly"), None);
    }

    #[test]
    fn the_basic_scheme_is_read() {
        let (name, secret) = basic_pair("YWxpY2U6cGFzczp3b3Jk").unwrap();
        assert_eq!((name.as_str(), secret.expose_secret()), ("alice", "pass:word"));
        assert!(basic_pair("!").is_none());
        assert!(basic_pair("YWxpY2U=").is_none());
    }
}
