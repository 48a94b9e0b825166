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
//!
//! # How many there are
//!
//! 1. Read the account, and after it its tokens: those of logins don't count, and those that have expired make room.
//! 2. In one transaction: the new token, and the account with one more change, on condition that it had none since 1.
//!    *Lost*: another token was made, or the account was changed; start again at 1.

use super::users::Managed;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::people::{self, Holder};
use crate::domain::time::SKEW;
use crate::domain::{Actor, EntityName, Right, Time, TokenId, TokenPlace, TokenScope, UserName};
use crate::error::Error;
use crate::rules::extent::{Beyond, Extent};
use crate::rules::{Action, Grant, Resource};
use crate::service::access::{Access, system};
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::{Robot, Token, User};
use crate::store::table::Written;
use secrecy::SecretString;
use std::time::Duration;

/// A new token.
#[derive(Debug)]
pub struct NewToken {
    /// The user's name for it.
    pub name: String,
    /// The scope of the token; `None`: all that its account may.
    pub scope: Option<TokenScope>,
    /// When it expires; `None`: never.
    pub expires: Option<Time>,
}

/// An account whose tokens the caller may manage: their own, that of a robot of an entity that they manage, or anybody's
/// as a site admin.
struct Held {
    grant: Grant,
    access: Access,
    holder: Holder,
}

impl Held {
    async fn load(app: &App, credential: &Credential, actor: &Actor, doing: &str) -> Result<Self, Error> {
        let Actor::Robot(entity, _) = actor else {
            let name = actor.user().ok_or(Error::NotFound("user"))?;
            let Managed { grant, access, user } = Managed::load(app, credential, name, doing).await?;
            return Ok(Self { grant, access, holder: Holder::User(user.ok_or(Error::NotFound("user"))?) });
        };
        let (access, resource) = Access::to_entity(app, credential, entity).await?;
        let grant = access.require(Action::Manage, &resource, "robot", doing)?;
        let robot: Option<Robot> = app.table.get(keys::actor(actor)).await?;
        let robot = robot.filter(|robot| !robot.disabled).ok_or(Error::NotFound("robot"))?;
        Ok(Self { grant, access, holder: Holder::Robot(robot) })
    }
}

/// Makes a token. It is shown only this once.
pub async fn add(app: &App, credential: &Credential, actor: &Actor, token: NewToken) -> Result<Issued, Error> {
    if token.name.is_empty() || token.name.len() > 100 || token.name.chars().any(char::is_control) {
        return Err(Error::Invalid("a token's name must have 1 to 100 bytes and no control characters".to_owned()));
    }
    let NewToken { name, scope, expires } = token;
    let scope = match actor {
        Actor::Robot(entity, _) => of_robot(entity, scope)?,
        Actor::User(_) | Actor::System => scope.unwrap_or_else(TokenScope::full),
    };
    let mut retry = Retry::of("changes of the same account");
    loop {
        retry.pause().await?;
        let held = Held::load(app, credential, actor, "make tokens for this account").await?;
        let expires = end(app, expires, held.access.until)?;
        let new = Extent { scope: scope.clone(), until: expires };
        let why = match held.access.extent().map(|extent| extent.includes(&new)) {
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
        let row = Token { scope: scope.clone(), expires, ..row(app, actor, &name)? };
        let over = room(app, actor).await?;
        if app.commit(&held.grant, people::token_made(&row, &held.holder, &over)?).await? == Written::Done {
            return Ok(Issued { secret: sign(app, &row)?, row });
        }
    }
}

/// When a new token ends. Where the operator limits the life of tokens, one for which nobody asks lives as long as it
/// may: until the longest life is over, or the token that makes it.
fn end(app: &App, asked: Option<Time>, own: Option<Time>) -> Result<Option<Time>, Error> {
    let Some(longest) = app.config.policy.max_token_life else { return Ok(asked) };
    let last = app.now().plus(longest);
    match asked {
        Some(asked) if asked > last => Err(Error::Invalid(format!(
            "a token lives for at most {} seconds here, the operator has set STACKROOM_MAX_TOKEN_LIFE: ask for fewer",
            longest.as_secs()
        ))),
        Some(asked) => Ok(Some(asked)),
        None => Ok(Some(own.map_or(last, |own| own.min(last)))),
    }
}

/// The most tokens of one account that have not expired. Those of logins are bounded by themselves.
pub const MAX_TOKENS: usize = 200;
/// The most expired tokens that make room for a new one at a time.
const MAX_EXPIRED: usize = 50;

/// The expired tokens of an account that make room for a new one.
async fn room(app: &App, actor: &Actor) -> Result<Vec<Token>, Error> {
    let tokens: Vec<Token> = app.table.query_all(keys::tokens(actor)).await?;
    let (now, longest) = (app.now(), app.config.policy.max_token_life);
    let over = |token: &Token| token.end(longest).is_some_and(|end| end.plus(SKEW) <= now);
    let (mut expired, good): (Vec<Token>, Vec<Token>) = tokens.into_iter().filter(|token| !token.login).partition(over);
    if good.len() >= MAX_TOKENS {
        let why = format!("{actor} has {MAX_TOKENS} tokens already, the most there can be: revoke some");
        return Err(Error::Conflict(why));
    }
    if good.len() + expired.len() < MAX_TOKENS {
        return Ok(Vec::new());
    }
    expired.sort_by_key(|token| token.created);
    expired.truncate(MAX_EXPIRED);
    Ok(expired)
}

/// The row of a new token with all rights and without an end.
fn row(app: &App, actor: &Actor, name: &str) -> Result<Token, Error> {
    let (id, created, scope) = (app.new_token()?, app.now(), TokenScope::full());
    let (actor, name) = (actor.clone(), name.to_owned());
    Ok(Token { id, actor, name, scope, created, expires: None, used: None, login: false })
}

fn sign(app: &App, row: &Token) -> Result<SecretString, Error> {
    app.keys.sign(&row.actor, row.id, row.created, row.expires)
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
pub(super) async fn of_login(app: &App, grant: &Grant, user: &User) -> Result<Issued, Error> {
    let actor = Actor::User(user.name.clone());
    let mut retry = Retry::of("logins of the same user");
    loop {
        retry.pause().await?;
        let now = app.now();
        let tokens: Vec<Token> = app.table.query_all(keys::tokens(&actor)).await?;
        let logins: Vec<Token> = tokens.into_iter().filter(|token| token.login).collect();
        let life = app.config.policy.max_token_life.map_or(LOGIN_LIFE, |longest| longest.min(LOGIN_LIFE));
        let again = LOGIN_AGAIN.min(life / 2);
        let last = logins.iter().max_by_key(|token| token.created);
        if let Some(last) = last.filter(|last| last.created.plus(again) > now && last.created <= now) {
            return Ok(Issued { secret: sign(app, last)?, row: last.clone() });
        }
        let mut row = Token { expires: Some(now.plus(life)), login: true, ..row(app, &actor, "login")? };
        let over = logins.iter().find(|token| token.expires.is_some_and(|expires| expires.plus(SKEW) <= now));
        row.id = over.map_or(row.id, |over| over.id);
        let made = if over.is_some() { people::token_made_again } else { people::login_made };
        if app.commit(grant, made(&row, user)?).await? == Written::Done {
            return Ok(Issued { secret: sign(app, &row)?, row });
        }
    }
}

/// The scope of a robot's token, which never leaves its entity: pulling and pushing there, if nothing else is asked for.
fn of_robot(entity: &EntityName, asked: Option<TokenScope>) -> Result<TokenScope, Error> {
    let scope = asked.unwrap_or_else(|| TokenScope {
        rights: [Right::Pull, Right::Push].into(),
        place: TokenPlace::Entity(entity.clone()),
    });
    let inside = match &scope.place {
        TokenPlace::Entity(place) => place == entity,
        TokenPlace::Repository(repository) => repository.entity() == entity,
        TokenPlace::All | TokenPlace::Catalog => false,
    };
    if !inside {
        return Err(Error::Invalid(format!("a robot's token is for its own entity: end its scope with `@{entity}`")));
    }
    if scope.allows(Right::Manage) {
        return Err(Error::Invalid("a robot manages nothing: its rights are pull, push and delete".to_owned()));
    }
    Ok(scope)
}

/// A token with all rights of a user, for whoever holds the installation's own keys.
pub(super) async fn for_operator(app: &App, user: &User) -> Result<SecretString, Error> {
    let grant = system(Action::Manage, &Resource::Installation)?;
    let row = row(app, &Actor::User(user.name.clone()), "operator")?;
    match app.commit(&grant, people::token_made(&row, &Holder::User(user.clone()), &[])?).await? {
        Written::Done => sign(app, &row),
        Written::Lost(_) => Err(Error::Conflict(format!("the account of {} is being changed, try again", user.name))),
    }
}

/// Makes a token begin anew, for whoever holds the installation's own keys; `None` if it was revoked, or is not yet to
/// be renewed: that is so while it has lived for less than a tenth of the longest life.
pub(super) async fn renewed(app: &App, user: &User, id: TokenId) -> Result<Option<SecretString>, Error> {
    let Some(longest) = app.config.policy.max_token_life else { return Ok(None) };
    let row: Option<Token> = app.table.get(keys::token(&user.name.clone().into(), id)).await?;
    let Some(row) = row.filter(|row| row.created.plus(longest / 10) <= app.now()) else { return Ok(None) };
    let grant = system(Action::Manage, &Resource::Installation)?;
    let row = Token { created: app.now(), ..row };
    match app.commit(&grant, people::token_made_again(&row, user)?).await? {
        Written::Done => sign(app, &row).map(Some),
        Written::Lost(_) => Ok(None),
    }
}

/// The row of the token that somebody gets when they register: with all of their rights, as long as tokens live.
pub(super) fn first(app: &App, user: &UserName) -> Result<Token, Error> {
    Ok(Token { expires: end(app, None, None)?, ..row(app, &Actor::User(user.clone()), "registration")? })
}

/// Its text, once its row is written.
pub(super) fn first_signed(app: &App, row: Option<&Token>) -> Result<Option<SecretString>, Error> {
    row.map(|row| sign(app, row)).transpose()
}

/// The tokens of an account, without their secrets.
pub async fn list(app: &App, credential: &Credential, actor: &Actor) -> Result<Vec<Token>, Error> {
    Held::load(app, credential, actor, "list the tokens of this account").await?;
    Ok(app.table.query_all(keys::tokens(actor)).await?)
}

/// Revokes a token at once.
pub async fn revoke(app: &App, credential: &Credential, actor: &Actor, id: TokenId) -> Result<(), Error> {
    let held = Held::load(app, credential, actor, "revoke tokens of this account").await?;
    match app.commit(&held.grant, people::token_revoked(actor, id)).await? {
        Written::Done => Ok(()),
        Written::Lost(_) => Err(Error::NotFound("token")),
    }
}

/// Removes all tokens of an account that is disabled for good.
pub(super) async fn remove_all(app: &App, grant: &Grant, actor: &Actor) -> Result<(), Error> {
    loop {
        let page = app.table.query::<Token>(keys::tokens(actor), None, 50).await?;
        if page.rows.is_empty() {
            return Ok(());
        }
        let _read_again = app.commit(grant, people::tokens_removed(&page.rows)).await?;
    }
}
