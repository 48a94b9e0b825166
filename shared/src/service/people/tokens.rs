//! API tokens: named, scoped, revocable.
//!
//! # The token of a login
//!
//! Some clients log in with a name and a password, and keep what they get. That is an API token like any other, with
//! all rights, for a day. A client may log in before each of its commands, so the rows of such tokens are bounded, and
//! no login takes away what an earlier one gave:
//!
//! 1. Read the user's tokens. If the last login is less than an hour ago, its token is signed once more, and is the same
//!    text. So at most 24 such tokens are good at a time.
//! 2. Write the new one: in the place of one that has expired, or else in one of its own. *Lost*: it was revoked
//!    meanwhile; start again at 1. *Two at once*: either each has a row of its own, or both have the same, and its time is
//!    that of the later one.

use super::users::Managed;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::people;
use crate::domain::time::SKEW;
use crate::domain::{Time, TokenId, TokenScope, UserName};
use crate::error::Error;
use crate::rules::Grant;
use crate::rules::extent::{Beyond, Extent};
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::Token;
use crate::store::table::Written;
use secrecy::SecretString;
use std::time::Duration;

/// A new token.
#[derive(Debug)]
pub struct NewToken {
    /// The user's name for it.
    pub name: String,
    /// The scope of the token.
    pub scope: TokenScope,
    /// When it expires; `None`: never.
    pub expires: Option<Time>,
}

/// Makes a token for `user`: the caller's own, or anybody's as a site admin. It is shown only this once.
pub async fn add(app: &App, credential: &Credential, user: &UserName, token: NewToken) -> Result<SecretString, Error> {
    if token.name.is_empty() || token.name.len() > 100 || token.name.chars().any(char::is_control) {
        return Err(Error::Invalid("a token's name must have 1 to 100 bytes and no control characters".to_owned()));
    }
    let account = Managed::load(app, credential, user, "make tokens for this account").await?;
    account.user.ok_or(Error::NotFound("user"))?;
    let new = Extent { scope: token.scope.clone(), until: token.expires };
    let why = match account.access.extent().map(|extent| extent.includes(&new)) {
        Some(Ok(())) => None,
        None | Some(Err(Beyond::Scope)) => Some("has more rights than the token in use".to_owned()),
        Some(Err(Beyond::End(end))) => {
            let left = end.0.saturating_sub(app.now().0);
            Some(format!("outlives the token in use: let it expire within {left} seconds"))
        }
    };
    if let Some(why) = why {
        return Err(Error::Forbidden(format!("not permitted to make a token that {why}")));
    }
    write(app, &account.grant, user, token).await
}

/// Writes the row of a new token, and signs it.
pub(super) async fn write(app: &App, grant: &Grant, user: &UserName, token: NewToken) -> Result<SecretString, Error> {
    let row = row(app, user, token, false)?;
    match app.commit(grant, people::token_made(&row)?).await? {
        Written::Done => sign(app, &row),
        Written::Lost(_) => Err(Error::Internal(format!("two tokens have the id {}", row.id))),
    }
}

fn row(app: &App, user: &UserName, token: NewToken, login: bool) -> Result<Token, Error> {
    let NewToken { name, scope, expires } = token;
    Ok(Token { id: app.new_token()?, user: user.clone(), name, scope, created: app.now(), expires, login })
}

fn sign(app: &App, row: &Token) -> Result<SecretString, Error> {
    app.keys.sign(&row.user, row.id, row.created, row.expires)
}

/// How long the token of a login lasts.
const LOGIN_LIFE: Duration = Duration::from_hours(24);
/// How long further logins get the same token.
const LOGIN_AGAIN: Duration = Duration::from_hours(1);

/// A token with its row.
#[derive(Debug)]
pub struct Issued {
    /// The token.
    pub secret: SecretString,
    /// Its row.
    pub row: Token,
}

/// The token of a login.
pub(super) async fn of_login(app: &App, grant: &Grant, user: &UserName) -> Result<Issued, Error> {
    let mut retry = Retry::of("logins of the same user");
    loop {
        retry.pause().await?;
        let now = app.now();
        let tokens: Vec<Token> = app.table.query_all(keys::tokens(user)).await?;
        let logins: Vec<Token> = tokens.into_iter().filter(|token| token.login).collect();
        let last = logins.iter().max_by_key(|token| token.created);
        if let Some(last) = last.filter(|last| last.created.plus(LOGIN_AGAIN) > now && last.created <= now) {
            return Ok(Issued { secret: sign(app, last)?, row: last.clone() });
        }
        let (scope, expires) = (TokenScope::full(), Some(now.plus(LOGIN_LIFE)));
        let mut row = row(app, user, NewToken { name: "login".to_owned(), scope, expires }, true)?;
        let over = logins.iter().find(|token| token.expires.is_some_and(|expires| expires.plus(SKEW) <= now));
        row.id = over.map_or(row.id, |over| over.id);
        let changes = if over.is_some() { people::token_made_again(&row)? } else { people::token_made(&row)? };
        if app.commit(grant, changes).await? == Written::Done {
            return Ok(Issued { secret: sign(app, &row)?, row });
        }
    }
}

/// The tokens of `user`, without their secrets.
pub async fn list(app: &App, credential: &Credential, user: &UserName) -> Result<Vec<Token>, Error> {
    let account = Managed::load(app, credential, user, "list the tokens of this account").await?;
    account.user.ok_or(Error::NotFound("user"))?;
    Ok(app.table.query_all(keys::tokens(user)).await?)
}

/// Revokes a token at once.
pub async fn revoke(app: &App, credential: &Credential, user: &UserName, id: TokenId) -> Result<(), Error> {
    let account = Managed::load(app, credential, user, "revoke tokens of this account").await?;
    match app.commit(&account.grant, people::token_revoked(user, id)).await? {
        Written::Done => Ok(()),
        Written::Lost(_) => Err(Error::NotFound("token")),
    }
}
