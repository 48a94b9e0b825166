//! Registering: making an account for oneself, where the operator lets anybody do so, or with an invitation.
//!
//! # Registering
//!
//! 1. Whether that is open is a setting. Without an invitation, count the try of the address, whether or not it will
//!    succeed: so nobody makes thousands of accounts, or finds out thousands of names. *Too many*: refused until a day
//!    after the first one. *Dies*: a try more is counted.
//! 2. With an invitation, read it, and its maker's rights at this moment. A wrong, used-up, expired or revoked one, and
//!    one whose maker is no site admin any more, have the same answer.
//! 3. Read the user and the entity of that name. One that is taken, for whatever reason, has the same answer.
//! 4. Hash the password, in the queue of those who log in.
//! 5. In one transaction: the user with their entity and its account, their token, the use of the invitation on
//!    condition of its version, and the role that comes with it; the maker must not have changed since. *Lost*: the name
//!    is taken now, or the invitation or its maker changed; start again at 2.

use super::members::can_be_given;
use super::{passwords, tokens, users};
use crate::app::App;
use crate::auth::{Credential, password};
use crate::changes::people::{self, Invited, Registering};
use crate::domain::names::NameError;
use crate::domain::time::SKEW;
use crate::domain::{Actor, Digest, Email, Id, Registration, RoleAt, Time, TokenScope, UserName};
use crate::error::{Error, NO_TOKEN};
use crate::random;
use crate::rules::{Action, Grant, Resource};
use crate::service::access::{Access, system};
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::{Entity, GroupRole, RegistrationInvitation, Registrations, User};
use crate::store::table::Written;
use crate::telemetry;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long the tries of an address count, beginning with the first one.
pub(crate) const WINDOW: Duration = Duration::from_hours(24);
/// The longest life of an invitation.
const LONGEST: Duration = Duration::from_hours(90 * 24);
/// The most people that one invitation can bring in.
const MOST: u64 = 1000;
/// The most open invitations: they are listed whole.
const MAX_OPEN: usize = 100;

/// Somebody who registers.
#[derive(Debug)]
pub struct Newcomer {
    /// The name that they ask for.
    pub name: String,
    /// Their password.
    pub password: SecretString,
    /// Their e-mail address, if they give one.
    pub email: Option<Email>,
    /// The text of their invitation.
    pub invitation: Option<SecretString>,
    /// Whether they get a token, too.
    pub token: bool,
}

/// Somebody who has registered.
#[derive(Debug)]
pub struct Registered {
    /// Their account.
    pub user: User,
    /// Their token, which is shown only this once.
    pub token: Option<SecretString>,
}

/// Makes an account for somebody who has none.
pub async fn register(app: &App, new: Newcomer) -> Result<Registered, Error> {
    let Newcomer { name, password, email, invitation, token } = new;
    let why = match (app.config.policy.registration, &invitation) {
        (Registration::Closed, _) => Some("nobody can register here: ask an administrator for an account"),
        (Registration::Invitation, None) => Some("to register here, you need an invitation of an administrator"),
        _ => None,
    };
    if let Some(why) = why {
        return Err(Error::Forbidden(why.to_owned()));
    }
    password::check(&password)?;
    let name = named(app, &name)?;
    // Nobody could make an administrator any more.
    if users::none(app).await? {
        return Err(Error::Forbidden("nobody can register here before there is an administrator".to_owned()));
    }
    if invitation.is_none() {
        count(app).await?;
    }
    let mut hash: Option<String> = None;
    let mut retry = Retry::of("registrations with the same invitation");
    loop {
        retry.pause().await?;
        let invited = match &invitation {
            Some(text) => Some(invited(app, text).await?),
            None => None,
        };
        free(app, &name).await?;
        let hashed = match hash.take() {
            Some(hashed) => hashed,
            None => passwords::hashed_for_stranger(password.clone()).await?,
        };
        hash = Some(hashed.clone());
        let access = Access::load(app, &Credential::Anonymous, None, []).await?;
        let resource = Resource::Registration { name: name.clone(), good: true };
        let grant = access.require(Action::Join, &resource, "invitation", "register")?;
        let birth = app.birth(&grant)?;
        let (created, version, groups) = (birth.at, birth.first_version.into(), BTreeMap::new());
        let (password, email) = (Some(hashed), email.clone());
        let user =
            User { name: name.clone(), password, email, admin: false, disabled: false, created, groups, version };
        let row = if token { Some(tokens::first(app, &name)?) } else { None };
        let limit = app.config.default_quota;
        let registering = Registering { user: &user, limit, token: row.as_ref(), invited: invited.as_ref() };
        if app.commit(&grant, people::registered(&registering, &birth)?).await? == Written::Done {
            return Ok(Registered { token: tokens::first_signed(app, row.as_ref())?, user });
        }
    }
}

/// The answer for a name that can't be had, whatever has it.
fn taken(name: &str) -> Error {
    Error::Conflict(format!("the name `{name}` is taken"))
}

/// The name that somebody asks for. What lies in the default entity is the operator's.
fn named(app: &App, name: &str) -> Result<UserName, Error> {
    let read: UserName = match name.parse() {
        Err(NameError::Reserved(name)) => return Err(taken(&name)),
        read => read?,
    };
    if app.config.defaults.entity.is_own(&read) { Err(taken(read.as_str())) } else { Ok(read) }
}

/// Checks that nobody has a name, and that no entity has it or had it.
async fn free(app: &App, name: &UserName) -> Result<(), Error> {
    let entity = name.into();
    let takers = [keys::user(name), keys::entity(&entity), keys::removed_entity(&entity)];
    let rows = app.table.batch(takers.clone()).await?;
    if takers.iter().any(|taker| rows.has(taker)) { Err(taken(name.as_str())) } else { Ok(()) }
}

/// The network of an address. Whoever has one address of version 6 has a whole network of them.
fn network(address: Option<IpAddr>) -> String {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::")
        }
        None => "unknown".to_owned(),
    }
}

/// Counts one more try of the address from which the request came, if it has some left.
async fn count(app: &App) -> Result<(), Error> {
    let network = network(telemetry::from());
    let grant = system(Action::Manage, &Resource::Installation)?;
    let mut retry = Retry::of("registrations from the same address");
    loop {
        retry.pause().await?;
        let before: Option<Registrations> = app.table.get(keys::registrations(&network)).await?;
        let now = app.now();
        let tried = before.as_ref().filter(|before| before.since <= now.plus(SKEW));
        if let Some(tried) = tried.filter(|tried| tried.count >= app.config.policy.registrations_per_day) {
            let left = tried.since.plus(WINDOW).0.saturating_sub(now.0);
            if let Ok(left @ 1..) = u64::try_from(left) {
                let why = "too many registrations from this address, try again later or ask for an invitation";
                let after = Duration::from_secs(left.min(WINDOW.as_secs()));
                return Err(Error::Busy { why: why.to_owned(), after });
            }
        }
        let changes = people::registration_tried(&network, before.as_ref(), now, WINDOW)?;
        if app.commit(&grant, changes).await? == Written::Done {
            return Ok(());
        }
    }
}

/// The invitation with this text, if it holds.
async fn invited(app: &App, text: &SecretString) -> Result<Invited, Error> {
    let missing = || Error::NotFound("invitation");
    let (id, secret) = text.expose_secret().split_once('.').ok_or_else(missing)?;
    let id: Id = id.parse().map_err(|_| missing())?;
    let shown = Digest::of(secret.as_bytes());
    let row: Option<RegistrationInvitation> = app.table.get(keys::registration_invitation(id)).await?;
    // Both sides are hashes, so the time of the comparison tells nothing about the secret.
    let row = row.filter(|row| row.secret == shown && !is_over(row, app.now())).ok_or_else(missing)?;
    if let Some(group) = &row.group {
        let entity: Option<Entity> = app.table.get(keys::entity(&group.entity)).await?;
        entity.filter(|entity| Some(entity.id) == row.group_id).ok_or_else(missing)?;
    }
    let maker: User = app.table.get(keys::user(&row.created_by)).await?.ok_or_else(missing)?;
    // Another user of that name did not make it.
    if maker.created > row.created {
        return Err(missing());
    }
    let access = vec![TokenScope::full()];
    let by = Credential::Registry { actor: Actor::User(maker.name.clone()), id: row.token, password: None, access };
    // Read after the row of the maker, which the transaction requires to be the same.
    let rights = match Access::of_maker(app, &by, None, []).await {
        Err(Error::Unauthenticated(_)) => return Err(missing()),
        rights => rights?,
    };
    match rights.probe(Action::Manage, &Resource::Installation) {
        Ok(_) => Ok(Invited { row, maker }),
        Err(_) => Err(missing()),
    }
}

/// Whether an invitation is over at this time.
pub fn is_over(row: &RegistrationInvitation, now: Time) -> bool {
    row.expires <= now || row.uses >= row.max
}

/// A new invitation to register.
#[derive(Debug)]
pub struct NewInvitation {
    /// The group and the role in it that come with it.
    pub group: Option<GroupRole>,
    /// How many people it may bring in.
    pub max: u64,
    /// How long it lasts.
    pub life: Duration,
}

/// Makes an invitation to register, and returns it with the text that is shown only this once. Site admins only.
pub async fn invite(
    app: &App,
    credential: &Credential,
    new: NewInvitation,
) -> Result<(RegistrationInvitation, SecretString), Error> {
    let NewInvitation { group, max, life } = new;
    let (access, grant) = site_admin(app, credential, "invite people to register").await?;
    if app.config.policy.registration == Registration::Closed {
        let why = "nobody can register here: the operator would set STACKROOM_REGISTRATION=invitation";
        return Err(Error::Invalid(why.to_owned()));
    }
    if max == 0 || max > MOST || life.is_zero() || life > LONGEST {
        let days = LONGEST.as_secs() / 86_400;
        return Err(Error::Invalid(format!("an invitation is for 1 to {MOST} people, and for at most {days} days")));
    }
    let group_id = match &group {
        Some(group) => Some(check_group(app, group).await?),
        None => None,
    };
    let open = app.table.query::<RegistrationInvitation>(keys::registration_invitations(), None, MAX_OPEN).await?;
    if open.rows.len() >= MAX_OPEN {
        let why = format!("there are {MAX_OPEN} invitations to register already, the most there can be: revoke some");
        return Err(Error::Conflict(why));
    }
    let by = grant.by().and_then(Actor::user).ok_or(Error::Unauthenticated(NO_TOKEN))?.clone();
    let birth = app.birth(&grant)?;
    let secret = URL_SAFE_NO_PAD.encode(random::bytes::<32>()?);
    let text = SecretString::from(format!("{}.{secret}", birth.id));
    let end = birth.at.plus(life);
    let row = RegistrationInvitation {
        id: birth.id,
        secret: Digest::of(secret.as_bytes()),
        group,
        group_id,
        max,
        uses: 0,
        created_by: by,
        token: grant.token(),
        created: birth.at,
        expires: access.until.map_or(end, |until| until.min(end)),
        version: birth.first_version.into(),
    };
    match app.commit(&grant, people::registration_invited(&row)?).await? {
        Written::Done => Ok((row, text)),
        Written::Lost(_) => Err(Error::Internal("two invitations have the same id".to_owned())),
    }
}

/// Checks that a role can come with an invitation: it is one of a group that exists, and manages nothing. Returns the
/// id of the group.
async fn check_group(app: &App, group: &GroupRole) -> Result<Id, Error> {
    let entity: Option<Entity> = app.table.get(keys::entity(&group.entity)).await?;
    let entity = entity.ok_or(Error::NotFound("group"))?;
    let at = RoleAt { part: group.part.clone(), role: Some(group.role) };
    can_be_given(&entity, None, &at)?;
    if group.role > crate::domain::Role::Contributor {
        let why = "an invitation to register makes readers and contributors: make somebody an admin afterwards";
        return Err(Error::Invalid(why.to_owned()));
    }
    Ok(entity.id)
}

async fn site_admin(app: &App, credential: &Credential, doing: &str) -> Result<(Access, Grant), Error> {
    let access = Access::load(app, credential, None, []).await?;
    let grant = access.require(Action::Manage, &Resource::Installation, "installation", doing)?;
    Ok((access, grant))
}

/// The invitations to register that are not revoked. Site admins only.
pub async fn list(app: &App, credential: &Credential) -> Result<Vec<RegistrationInvitation>, Error> {
    site_admin(app, credential, "list the invitations to register").await?;
    Ok(app.table.query(keys::registration_invitations(), None, MAX_OPEN).await?.rows)
}

/// Revokes an invitation to register. Site admins only.
pub async fn revoke(app: &App, credential: &Credential, id: Id) -> Result<(), Error> {
    let (_, grant) = site_admin(app, credential, "revoke invitations to register").await?;
    match app.commit(&grant, people::registration_uninvited(id)).await? {
        Written::Done => Ok(()),
        Written::Lost(_) => Err(Error::NotFound("invitation")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_of_a_network_of_version_6_count_as_one() {
        let of = |text: &str| network(Some(text.parse().unwrap()));
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:0:1:a:b:c:d"), of("2001:db8:0:1::1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(network(None), "unknown");
    }
}
