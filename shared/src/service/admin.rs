//! People, their tokens and quotas.

use super::access::{Scene, system};
use super::create::entity_rows;
use super::passwords;
use super::retry::Retry;
use crate::app::App;
use crate::auth::Credential;
use crate::domain::quota::Quota;
use crate::domain::{Caller, EntityName, Right, Time, TokenScope, UserName};
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::store::keys;
use crate::store::rows::{Account, Row, Token, User, UserListed};
use crate::store::table::{Condition, Write, Written};
use secrecy::SecretString;
use std::collections::BTreeSet;

/// A new person.
#[derive(Debug)]
pub struct NewUser {
    /// The name: the account's and its entity's.
    pub name: UserName,
    /// The password, if there is to be one.
    pub password: Option<SecretString>,
    /// Whether they are a site admin.
    pub admin: bool,
    /// The quota of their entity in bytes, 0 for unlimited; by default the configured one.
    pub quota: Option<u64>,
}

/// A person, with the account of their entity.
#[derive(Debug)]
pub struct UserView {
    /// The person.
    pub user: User,
    /// The numbers of their entity.
    pub quota: Quota,
}

/// Makes an account and its entity. Site admins only.
pub async fn add(app: &App, credential: &Credential, new: NewUser) -> Result<(), Error> {
    let grant = site_admin(app, credential, "add users").await?;
    make(app, &grant, new).await
}

async fn site_admin(app: &App, credential: &Credential, doing: &str) -> Result<Grant, Error> {
    let scene = Scene::load(app, credential, None, []).await?;
    scene.decide(Action::Manage, &Resource::Registry).map_err(|denial| Error::denied(denial, "it", doing))
}

async fn make(app: &App, grant: &Grant, new: NewUser) -> Result<(), Error> {
    let name = new.name;
    let password = match new.password {
        Some(password) => Some(passwords::hashed(password).await?),
        None => None,
    };
    let user = User { name: name.clone(), password, admin: new.admin, disabled: false, created: app.now(), version: 0 };
    let limit = new.quota.unwrap_or(app.config.default_quota);
    let (_, mut writes) = entity_rows(app, &EntityName::from(&name), &name, String::new(), limit)?;
    writes.push(Write::delete(keys::wrong_passwords(&name), Condition::None));
    writes.push(Write::put(&user, Condition::Absent)?);
    writes.push(Write::put(&UserListed { name: name.clone() }, Condition::None)?);
    match app.table.write(grant, writes).await? {
        Written::Done => Ok(()),
        Written::Lost(_) => Err(Error::Conflict(format!("the name `{name}` is taken"))),
    }
}

/// Makes the first site admin of an empty installation and a token for the operator.
/// Returns `None` when there are people already.
pub async fn bootstrap(app: &App, name: UserName, password: SecretString) -> Result<Option<SecretString>, Error> {
    let people = app.table.query::<UserListed>(keys::users(), None, 1).await?;
    if !people.rows.is_empty() {
        return Ok(None);
    }
    let grant = system(Action::Manage, &Resource::Registry)?;
    make(app, &grant, NewUser { name: name.clone(), password: Some(password), admin: true, quota: Some(0) }).await?;
    let token = NewToken { name: "operator".to_owned(), scope: TokenScope::full(), expires: None };
    write_token(app, &grant, &name, token).await.map(Some)
}

/// Everybody, with their numbers. Site admins only.
pub async fn list(app: &App, credential: &Credential) -> Result<Vec<UserView>, Error> {
    site_admin(app, credential, "list users").await?;
    let people: Vec<UserListed> = app.table.query_all(keys::users()).await?;
    let mut views = Vec::new();
    for some in people.chunks(50) {
        let wanted = some.iter().flat_map(|one| [keys::user(&one.name), keys::account(&(&one.name).into())]);
        let mut rows = app.table.batch(wanted).await?;
        for one in some {
            let user: Option<User> = rows.take(&keys::user(&one.name))?;
            let account: Option<Account> = rows.take(&keys::account(&(&one.name).into()))?;
            views.extend(user.zip(account).map(|(user, account)| UserView { user, quota: account.quota }));
        }
    }
    Ok(views)
}

/// A change of an account.
#[derive(Debug)]
pub enum Change {
    /// A new password. One's own, or anybody's as a site admin.
    Password(SecretString),
    /// Whether the account may do nothing for now. Site admins only.
    Disabled(bool),
}

/// Changes an account. Conditional on the row's version: two changes at once are both made.
pub async fn change(app: &App, credential: &Credential, name: &UserName, change: Change) -> Result<(), Error> {
    let mut hash: Option<String> = None;
    let mut retry = Retry::of("changes of the same account");
    loop {
        retry.pause().await?;
        let (mut grant, rights, user) = account_of(app, credential, name, "change this account").await?;
        let mut user = user.ok_or(Error::NotFound("user"))?;
        let version = user.version;
        user.version += 1;
        let mut writes = Vec::new();
        match &change {
            Change::Disabled(disabled) => {
                user.disabled = *disabled;
                grant = site_admin(app, credential, "disable accounts").await?;
            }
            // A password may all that its user may, so only a token that may that too can set one.
            Change::Password(_) if rights.len() < Right::ALL.len() => {
                return Err(Error::Forbidden("this token may not be used to set a password".to_owned()));
            }
            Change::Password(password) => {
                // Not before it is known that they may: hashing costs.
                let hashed = match hash.take() {
                    Some(hashed) => hashed,
                    None => passwords::hashed(password.clone()).await?,
                };
                user.password = Some(hashed.clone());
                hash = Some(hashed);
                writes.push(Write::delete(keys::wrong_passwords(name), Condition::None));
            }
        }
        writes.push(Write::put(&user, Condition::Version(version))?);
        if app.table.write(&grant, writes).await? == Written::Done {
            return Ok(());
        }
    }
}

async fn account_of(
    app: &App,
    credential: &Credential,
    name: &UserName,
    doing: &str,
) -> Result<(Grant, BTreeSet<Right>, Option<User>), Error> {
    // One's own row is read twice then: with the caller, and here.
    let scene = Scene::load(app, credential, None, []).await?;
    let grant = scene.decide(Action::Manage, &Resource::User(name.clone()));
    let grant = grant.map_err(|denial| Error::denied(denial, "user", doing))?;
    let rights = match scene.caller {
        Caller::User { scope, .. } => scope.rights,
        Caller::Anonymous | Caller::System => BTreeSet::new(),
    };
    Ok((grant, rights, app.table.get(keys::user(name)).await?))
}

/// Sets the quota of an entity, in bytes; 0 for unlimited. Site admins only.
pub async fn set_quota(app: &App, credential: &Credential, entity: &EntityName, limit: u64) -> Result<Quota, Error> {
    let grant = site_admin(app, credential, "set quotas").await?;
    let mut retry = Retry::of("changes of the same quota");
    loop {
        retry.pause().await?;
        let account: Option<Account> = app.table.get(keys::account(entity)).await?;
        let account = account.ok_or(Error::NotFound("entity"))?;
        let (before, after) = (i128::from(account.quota.limit), i128::from(limit));
        let condition = Condition::Numbers("#limit = :limit", vec![(":limit", account.quota.limit)]);
        let write = Write::add(account.key(), vec![("limit", after - before)], condition);
        if app.table.write(&grant, vec![write]).await? == Written::Done {
            return Ok(Quota { limit, ..account.quota });
        }
    }
}

/// A new token.
#[derive(Debug)]
pub struct NewToken {
    /// What its user calls it.
    pub name: String,
    /// What it may be used for.
    pub scope: TokenScope,
    /// When it ends; `None`: never.
    pub expires: Option<Time>,
}

/// Makes a token for `user`: one's own, or anybody's as a site admin. It is shown this once.
pub async fn add_token(
    app: &App,
    credential: &Credential,
    user: &UserName,
    token: NewToken,
) -> Result<SecretString, Error> {
    if token.name.is_empty() || token.name.len() > 100 || token.name.chars().any(char::is_control) {
        return Err(Error::Invalid("a token's name has 1 to 100 bytes and no control characters".to_owned()));
    }
    let (grant, rights, account) = account_of(app, credential, user, "make tokens for this account").await?;
    account.ok_or(Error::NotFound("user"))?;
    if !token.scope.rights.is_subset(&rights) {
        return Err(Error::Forbidden(
            "not permitted to make a token that may more than the one it is made with".to_owned(),
        ));
    }
    write_token(app, &grant, user, token).await
}

async fn write_token(app: &App, grant: &Grant, user: &UserName, token: NewToken) -> Result<SecretString, Error> {
    let (id, now) = (app.new_token()?, app.now());
    let NewToken { name, scope, expires } = token;
    let row = Token { id, user: user.clone(), name, scope, created: now, expires };
    match app.table.write(grant, vec![Write::put(&row, Condition::Absent)?]).await? {
        Written::Done => app.keys.sign(user, id, now, expires),
        Written::Lost(_) => Err(Error::Internal(format!("two tokens have the id {id}"))),
    }
}

/// The tokens of `user`, without their secrets.
pub async fn tokens(app: &App, credential: &Credential, user: &UserName) -> Result<Vec<Token>, Error> {
    account_of(app, credential, user, "list the tokens of this account").await?.2.ok_or(Error::NotFound("user"))?;
    Ok(app.table.query_all(keys::tokens(user)).await?)
}

/// Revokes a token at once.
pub async fn revoke(
    app: &App,
    credential: &Credential,
    user: &UserName,
    id: crate::domain::TokenId,
) -> Result<(), Error> {
    let (grant, ..) = account_of(app, credential, user, "revoke tokens of this account").await?;
    match app.table.write(&grant, vec![Write::delete(keys::token(user, id), Condition::Present)]).await? {
        Written::Done => Ok(()),
        Written::Lost(_) => Err(Error::NotFound("token")),
    }
}
