//! API tokens: named, scoped, revocable.

use super::users::Managed;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::people;
use crate::domain::{Time, TokenId, TokenScope, UserName};
use crate::error::Error;
use crate::rules::Grant;
use crate::rules::extent::{Beyond, Extent};
use crate::store::keys;
use crate::store::rows::Token;
use crate::store::table::Written;
use secrecy::SecretString;

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
    let (id, now) = (app.new_token()?, app.now());
    let NewToken { name, scope, expires } = token;
    let row = Token { id, user: user.clone(), name, scope, created: now, expires };
    match app.commit(grant, people::token_made(&row)?).await? {
        Written::Done => app.keys.sign(user, id, now, expires),
        Written::Lost(_) => Err(Error::Internal(format!("two tokens have the id {id}"))),
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
