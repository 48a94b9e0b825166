//! API tokens: named, scoped, revocable.

use super::users::Managed;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::people;
use crate::domain::{Actor, EntityName, Right, Time, TokenId, TokenPlace, TokenScope};
use crate::error::Error;
use crate::rules::extent::{Beyond, Extent};
use crate::rules::{Action, Grant, Resource};
use crate::service::access::{Access, system};
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::{Robot, Token, User};
use crate::store::table::Written;
use secrecy::SecretString;

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
    /// The version of the account's row.
    version: u64,
}

impl Held {
    async fn load(app: &App, credential: &Credential, actor: &Actor, doing: &str) -> Result<Self, Error> {
        let Actor::Robot(entity, _) = actor else {
            let name = actor.user().ok_or(Error::NotFound("user"))?;
            let Managed { grant, access, user } = Managed::load(app, credential, name, doing).await?;
            return Ok(Self { grant, access, version: user.ok_or(Error::NotFound("user"))?.version });
        };
        let access = Access::load(app, credential, Some(entity), []).await?;
        let grant = access.require(Action::Manage, &Resource::Entity(entity.clone()), "robot", doing)?;
        let robot: Option<Robot> = app.table.get(keys::actor(actor)).await?;
        let robot = robot.filter(|robot| !robot.disabled).ok_or(Error::NotFound("robot"))?;
        Ok(Self { grant, access, version: robot.version })
    }
}

/// Makes a token. It is shown only this once.
pub async fn add(app: &App, credential: &Credential, actor: &Actor, token: NewToken) -> Result<SecretString, Error> {
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
        let (id, created) = (app.new_token()?, app.now());
        let (actor, name, scope) = (actor.clone(), name.clone(), scope.clone());
        let row = Token { id, actor, name, scope, created, expires, used: None };
        if app.commit(&held.grant, people::token_made(&row, held.version)?).await? == Written::Done {
            return app.keys.sign(&row.actor, id, created, expires);
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
    let (id, created) = (app.new_token()?, app.now());
    let (actor, name) = (Actor::User(user.name.clone()), "operator".to_owned());
    let row = Token { id, actor, name, scope: TokenScope::full(), created, expires: None, used: None };
    match app.commit(&grant, people::token_made(&row, user.version)?).await? {
        Written::Done => app.keys.sign(&row.actor, id, created, None),
        Written::Lost(_) => Err(Error::Conflict(format!("the account of {} is being changed, try again", user.name))),
    }
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
