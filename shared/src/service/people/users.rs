//! Users and the quotas of their entities.

use super::passwords;
use super::tokens;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::entities::Birth;
use crate::changes::{accounts, people, removal};
use crate::domain::quota::Quota;
use crate::domain::{Actor, Email, EntityName, Time, UserName};
use crate::error::{BAD_TOKEN, Error};
use crate::rules::{Action, Grant, Resource};
use crate::service::access::{Access, entity_at, system};
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::{Account, Entity, GroupsSeen, User, UserListed};
use crate::store::table::Written;
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::{BTreeMap, BTreeSet};

/// A new person.
#[derive(Debug)]
pub struct NewUser {
    /// The name of both the account and its entity.
    pub name: UserName,
    /// The password, if there is one.
    pub password: Option<SecretString>,
    /// Whether they are a site admin.
    pub admin: bool,
    /// The quota of their entity in bytes, 0 for unlimited; by default the configured one.
    pub quota: Option<u64>,
    /// Their e-mail address.
    pub email: Option<Email>,
}

/// A person, with the account of their entity.
#[derive(Debug)]
pub struct UserView {
    /// The person.
    pub user: User,
    /// The usage of their entity.
    pub quota: Quota,
}

/// Creates an account and its entity. Site admins only.
pub async fn add(app: &App, credential: &Credential, new: NewUser) -> Result<(), Error> {
    let doing = "add users";
    let access = Access::load(app, credential, None, []).await?;
    let grant = access.require(Action::Manage, &Resource::Installation, "installation", doing)?;
    if new.admin {
        access.require_whole("add a site admin")?;
    }
    if new.password.is_some() {
        access.require_whole("set a password")?;
    }
    make(app, &grant, new).await
}

async fn site_admin(app: &App, credential: &Credential, doing: &str) -> Result<Grant, Error> {
    let access = Access::load(app, credential, None, []).await?;
    access.require(Action::Manage, &Resource::Installation, "installation", doing)
}

/// The account of the site admin who does something; `None` for Stackroom itself.
///
/// # Errors
/// [`Error::Unauthenticated`] if they may not do anything any more.
pub(crate) async fn acting(app: &App, grant: &Grant) -> Result<Option<User>, Error> {
    let Some(name) = grant.by().and_then(Actor::user) else { return Ok(None) };
    let user = app.table.get::<User>(keys::user(name)).await?.filter(|user| user.admin && !user.disabled);
    Ok(Some(user.ok_or(Error::Unauthenticated(BAD_TOKEN))?))
}

async fn make(app: &App, grant: &Grant, new: NewUser) -> Result<(), Error> {
    let NewUser { name, password, admin, quota, email } = new;
    let password = match password {
        Some(password) => Some(passwords::hashed(password).await?),
        None => None,
    };
    let birth = Birth { by: Some(name.clone().into()), ..app.birth(grant)? };
    let (created, version) = (birth.at, birth.first_version.into());
    let (disabled, groups) = (false, BTreeMap::new());
    let user = User { name: name.clone(), password, email, admin, disabled, created, groups, version };
    // Whoever adds users is a site admin, or the operator.
    let freed = removal::freed(app.table.get(keys::removed_entity(&(&name).into())).await?, true)?;
    let limit = quota.unwrap_or(app.config.default_quota);
    let changes = people::user_added(&user, birth, limit, freed.as_ref())?;
    match app.commit(grant, changes).await? {
        Written::Done => Ok(()),
        Written::Lost(_) => Err(Error::Conflict(format!("the name `{name}` is taken"))),
    }
}

/// Creates the first site admin of an empty installation, and a token for the operator. Returns `None` if there are
/// users already.
pub async fn bootstrap(app: &App, name: UserName, password: SecretString) -> Result<Option<SecretString>, Error> {
    if !none(app).await? {
        return Ok(None);
    }
    let grant = system(Action::Manage, &Resource::Installation)?;
    let new = NewUser { name: name.clone(), password: Some(password), admin: true, quota: Some(0), email: None };
    make(app, &grant, new).await?;
    operator_token(app, &name).await.map(Some)
}

/// Whether the installation has no users.
pub async fn none(app: &App) -> Result<bool, Error> {
    Ok(app.table.query::<UserListed>(keys::users(), None, 1).await?.rows.is_empty())
}

/// A site admin for whom the operator's token can be made: this one, or the first of the others.
pub async fn operator(app: &App, name: &UserName) -> Result<Option<UserName>, Error> {
    let listed = app.table.query_all::<UserListed>(keys::users()).await?.into_iter().map(|one| one.name);
    for name in std::iter::once(name.clone()).chain(listed) {
        let user: Option<User> = app.table.get(keys::user(&name)).await?;
        if user.is_some_and(|user| user.admin && !user.disabled) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// A token with all rights of a user, for whoever holds the installation's own keys.
pub async fn operator_token(app: &App, name: &UserName) -> Result<SecretString, Error> {
    let user: Option<User> = app.table.get(keys::user(name)).await?;
    tokens::for_operator(app, &user.ok_or(Error::NotFound("user"))?).await
}

/// The same token once more, where tokens don't live for ever: for the file in which the operator's token is. `None` if
/// it stays as it is: it was revoked, or has lived only for a while.
pub async fn operator_token_renewed(app: &App, token: &SecretString) -> Result<Option<SecretString>, Error> {
    // Whether it has expired does not matter here.
    let Some(Credential::Token { actor: Actor::User(name), id }) =
        app.keys.token(token.expose_secret(), Time(i64::MIN))
    else {
        return Ok(None);
    };
    match app.table.get::<User>(keys::user(&name)).await?.filter(|user| !user.disabled) {
        Some(user) => tokens::renewed(app, &user, id).await,
        None => Ok(None),
    }
}

/// All users, with their usage. Site admins only.
pub async fn list(app: &App, credential: &Credential) -> Result<Vec<UserView>, Error> {
    site_admin(app, credential, "list users").await?;
    let people: Vec<UserListed> = app.table.query_all(keys::users()).await?;
    let wanted = people.iter().flat_map(|one| [keys::user(&one.name), keys::account(&(&one.name).into())]);
    let mut rows = app.table.batch(wanted).await?;
    let mut views = Vec::new();
    for one in &people {
        let user: Option<User> = rows.take(&keys::user(&one.name))?;
        let account: Option<Account> = rows.take(&keys::account(&(&one.name).into()))?;
        views.extend(user.zip(account).map(|(user, account)| UserView { user, quota: account.quota }));
    }
    Ok(views)
}

/// A person with the account of their entity, for themselves and for site admins.
pub async fn view(app: &App, credential: &Credential, name: &UserName) -> Result<UserView, Error> {
    let access = Access::load(app, credential, None, []).await?;
    // A token for a job, which manages nothing, is not for that.
    access.require(Action::Manage, &Resource::User(name.clone()), "user", "see this account")?;
    let (user, account) = (keys::user(name), keys::account(&name.into()));
    let mut rows = app.table.batch([user.clone(), account.clone()]).await?;
    let (user, account) = (rows.take::<User>(&user)?, rows.take::<Account>(&account)?);
    let (user, account) = user.zip(account).ok_or(Error::NotFound("user"))?;
    Ok(UserView { user, quota: account.quota })
}

/// A change of an account.
#[derive(Debug)]
pub enum Change {
    /// A new password. The caller's own, or anybody's as a site admin.
    Password(SecretString),
    /// An e-mail address, or none. The caller's own, or anybody's as a site admin.
    Email(Option<Email>),
    /// Whether the account is disabled. Site admins only.
    Disabled(bool),
}

/// Changes an account. Conditional on the row's version: of two simultaneous changes, both are made.
pub async fn change(app: &App, credential: &Credential, name: &UserName, change: Change) -> Result<(), Error> {
    let mut hash: Option<String> = None;
    let mut retry = Retry::of("changes of the same account");
    loop {
        retry.pause().await?;
        let mut account = Managed::load(app, credential, name, "change this account").await?;
        let user = account.user.ok_or(Error::NotFound("user"))?;
        let changes = match &change {
            Change::Email(email) => people::email_set(user, email.clone())?,
            Change::Disabled(disabled) => {
                account.grant = site_admin(app, credential, "disable accounts").await?;
                if !disabled {
                    account.access.require_whole("enable an account")?;
                }
                let by = acting(app, &account.grant).await?;
                people::user_disabled(user, *disabled, by.as_ref())?
            }
            Change::Password(password) => {
                account.access.require_whole("set a password")?;
                // Hash only after the check that they may set it: hashing is expensive.
                let hashed = match hash.take() {
                    Some(hashed) => hashed,
                    None => passwords::hashed(password.clone()).await?,
                };
                hash = Some(hashed.clone());
                people::password_set(user, hashed)?
            }
        };
        if app.commit(&account.grant, changes).await? == Written::Done {
            return Ok(());
        }
    }
}

/// An account that the caller may manage.
pub(super) struct Managed {
    pub(super) grant: Grant,
    pub(super) access: Access,
    pub(super) user: Option<User>,
}

impl Managed {
    /// Loads it, if the caller may manage it. A caller's own row is then read twice: with the caller, and here.
    pub(super) async fn load(app: &App, credential: &Credential, name: &UserName, doing: &str) -> Result<Self, Error> {
        let access = Access::load(app, credential, None, []).await?;
        let grant = access.require(Action::Manage, &Resource::User(name.clone()), "user", doing)?;
        Ok(Self { grant, access, user: app.table.get(keys::user(name)).await? })
    }
}

/// What an entity uses of its quota, for those who have a role on all of it.
pub async fn quota(app: &App, credential: &Credential, entity: &EntityName) -> Result<Quota, Error> {
    let (key, account) = (keys::entity(entity), keys::account(entity));
    let mut access = Access::load(app, credential, Some(entity), [key.clone(), account.clone()]).await?;
    let (row, account) = (access.take::<Entity>(&key)?, access.take::<Account>(&account)?);
    access.require(Action::List, &entity_at(entity, row.as_ref()), "entity", "see its quota")?;
    account.map(|account| account.quota).ok_or(Error::NotFound("entity"))
}

/// Sets the quota of an entity, in bytes; 0 for unlimited. Site admins only.
pub async fn set_quota(app: &App, credential: &Credential, entity: &EntityName, limit: u64) -> Result<Quota, Error> {
    let grant = site_admin(app, credential, "set quotas").await?;
    let mut retry = Retry::of("changes of the same quota");
    loop {
        retry.pause().await?;
        let account: Option<Account> = app.table.get(keys::account(entity)).await?;
        let account = account.ok_or(Error::NotFound("entity"))?;
        if app.commit(&grant, accounts::limited(&account, limit)).await? == Written::Done {
            return Ok(Quota { limit, ..account.quota });
        }
    }
}

/// Notes in which of its groups a directory has a user, replacing what it said before. Site admins only.
pub async fn set_groups(
    app: &App,
    credential: &Credential,
    name: &UserName,
    directory: &str,
    names: BTreeSet<String>,
) -> Result<(), Error> {
    let word = |text: &str| !text.is_empty() && text.len() <= MAX_GROUP && !text.chars().any(char::is_control);
    if !word(directory) || directory.contains(':') || names.len() > MAX_GROUPS || !names.iter().all(|name| word(name)) {
        return Err(Error::Invalid(format!(
            "a directory's name has no colon, and it names at most {MAX_GROUPS} groups of 1 to {MAX_GROUP} bytes"
        )));
    }
    let mut retry = Retry::of("changes of the same account");
    loop {
        retry.pause().await?;
        let grant = site_admin(app, credential, "set the groups of a user").await?;
        directory_groups(app)?;
        let user: Option<User> = app.table.get(keys::user(name)).await?;
        let user = user.ok_or(Error::NotFound("user"))?;
        let seen = GroupsSeen { names: names.clone(), seen: app.now() };
        if app.commit(&grant, people::groups_seen(user, directory, seen)?).await? == Written::Done {
            return Ok(());
        }
    }
}

/// The longest name of a directory's group, in bytes.
pub(crate) const MAX_GROUP: usize = 500;
/// The most groups of a directory that one user can be in.
const MAX_GROUPS: usize = 200;

/// Refuses what has no effect while directories' groups are not asked for.
pub(crate) fn directory_groups(app: &App) -> Result<(), Error> {
    if app.config.directory_groups {
        return Ok(());
    }
    let why = "the groups of directories have no roles here: the operator would set STACKROOM_DIRECTORY_GROUPS=true";
    Err(Error::Invalid(why.to_owned()))
}
