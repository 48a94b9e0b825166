//! People: accounts, tokens, and the wrong passwords for a name.

use super::entities::{self, Birth, NewEntity};
use super::{Changes, members};
use crate::domain::time::SKEW;
use crate::domain::{Actor, Description, Email, EntityName, Id, RoleAt, Time, TokenId, UserName};
use crate::error::Error;
use crate::rules::Place;
use crate::store::keys;
use crate::store::rows::{
    EventKind, GroupRole, GroupsMade, GroupsSeen, RegistrationInvitation, Registrations, RemovedEntity, Robot, Row,
    Token, User, UserListed, WrongPasswords,
};
use crate::store::table::{Condition, Write};
use std::time::Duration;

/// Adds a user with an entity of the same name, whose account has this limit. `birth` is the entity's.
/// `freed` is a deleted entity whose name they take over.
pub(crate) fn user_added(
    user: &User,
    birth: Birth,
    limit: u64,
    freed: Option<&RemovedEntity>,
) -> Result<Changes, Error> {
    let name = &user.name;
    let (own, description) = (EntityName::from(name), Description::default());
    let new = NewEntity { name: &own, owner: name, description, private: false, limit, freed };
    let entity = entities::entity(new, birth)?;
    let mut changes = Changes::recorded(Place::User(name.clone()), EventKind::UserAdded { name: name.clone() });
    changes.merge(entity.changes);
    Ok(changes.with([
        passwords_forgotten(name),
        Write::put(user, Condition::Absent)?,
        Write::put(&UserListed { name: name.clone() }, Condition::None)?,
    ]))
}

/// An account that somebody makes for themselves.
#[derive(Debug)]
pub(crate) struct Registering<'a> {
    pub(crate) user: &'a User,
    /// The limit of the account of their entity.
    pub(crate) limit: u64,
    /// Their first token, if they want one.
    pub(crate) token: Option<&'a Token>,
    /// The invitation that they use, with its maker.
    pub(crate) invited: Option<&'a Invited>,
}

/// An invitation to register that holds, and the account of its maker.
#[derive(Debug)]
pub(crate) struct Invited {
    pub(crate) row: RegistrationInvitation,
    pub(crate) maker: User,
}

/// Adds a user who registers, uses their invitation once, and gives them the role that comes with it. The maker of the
/// invitation, and their token, must not have changed since.
pub(crate) fn registered(new: &Registering<'_>, birth: &Birth) -> Result<Changes, Error> {
    let Registering { user, limit, token, invited } = new;
    let invitation = invited.map(|invited| invited.row.id);
    let mut changes = Changes::recorded(Place::User(user.name.clone()), EventKind::Registered { invitation });
    changes.merge(user_added(user, birth.clone(), *limit, None)?);
    if let Some(token) = token {
        changes.merge(token_event(token).with([Write::put(*token, Condition::Absent)?]));
    }
    let Some(Invited { row, maker }) = invited else { return Ok(changes) };
    let used = RegistrationInvitation { uses: row.uses + 1, version: row.version + 1, ..row.clone() };
    changes.add(Write::put(&used, Condition::Version(row.version))?);
    changes.add(Write::check(maker.key(), Condition::Version(maker.version)));
    let by = Actor::User(maker.name.clone());
    changes.extend(row.token.map(|id| Write::check(keys::token(&by, id), Condition::Present)));
    if let Some(GroupRole { entity, role, part }) = &row.group {
        changes.extend(members::new_member(
            entity,
            &user.name,
            &RoleAt { part: part.clone(), role: Some(*role) },
            birth,
        )?);
    }
    Ok(changes)
}

/// Writes a new invitation to register.
pub(crate) fn registration_invited(row: &RegistrationInvitation) -> Result<Changes, Error> {
    let what = EventKind::RegistrationInvited { id: row.id };
    Ok(Changes::recorded(Place::Installation, what).with([Write::put(row, Condition::Absent)?]))
}

/// Revokes an invitation to register, which must be there.
pub(crate) fn registration_uninvited(id: Id) -> Changes {
    let deleted = Write::delete(keys::registration_invitation(id), Condition::Present);
    Changes::recorded(Place::Installation, EventKind::RegistrationUninvited { id }).with([deleted])
}

/// Counts one more try of an address to register. When `window` has passed since the first one, the count starts again.
pub(crate) fn registration_tried(
    network: &str,
    before: Option<&Registrations>,
    now: Time,
    window: Duration,
) -> Result<Changes, Error> {
    let condition = before.map_or(Condition::Absent, |before| Condition::Version(before.version));
    let version = before.map_or(0, |before| before.version + 1);
    // What a clock counted that was ahead does not count.
    let running = before.filter(|before| before.since.plus(window) > now && before.since <= now.plus(SKEW));
    let (count, since) = running.map_or((1, now), |before| (before.count.saturating_add(1), before.since));
    let row = Registrations { network: network.to_owned(), count, since, version };
    Ok(Changes::unrecorded().with([Write::put(&row, condition)?]))
}

/// Forgets the tries of an address, unless there was another one since they were read.
pub(crate) fn registrations_forgotten(row: &Registrations) -> Changes {
    Changes::unrecorded().with([Write::delete(row.key(), Condition::Version(row.version))])
}

/// Sets the e-mail address, or removes it.
pub(crate) fn email_set(user: User, email: Option<Email>) -> Result<Changes, Error> {
    user_changed(User { email, ..user }, EventKind::EmailSet)
}

/// Disables an account, or enables it again. `by` is the site admin who does it, as long as nothing of theirs changes: of
/// two who disable each other, only one succeeds.
pub(crate) fn user_disabled(user: User, disabled: bool, by: Option<&User>) -> Result<Changes, Error> {
    let other = by.filter(|by| by.name != user.name);
    let same = other.map(|by| Write::check(by.key(), Condition::Version(by.version)));
    Ok(user_changed(User { disabled, ..user }, EventKind::UserDisabled { disabled })?.with(same))
}

/// Sets a password, by its hash. Wrong passwords from before no longer count.
pub(crate) fn password_set(user: User, hash: String) -> Result<Changes, Error> {
    let forgotten = passwords_forgotten(&user.name);
    Ok(user_changed(User { password: Some(hash), ..user }, EventKind::PasswordSet)?.with([forgotten]))
}

fn user_changed(mut user: User, what: EventKind) -> Result<Changes, Error> {
    let version = user.version;
    user.version += 1;
    let write = Write::put(&user, Condition::Version(version))?;
    Ok(Changes::recorded(Place::User(user.name), what).with([write]))
}

fn passwords_forgotten(name: &UserName) -> Write {
    Write::delete(keys::wrong_passwords(name), Condition::None)
}

/// An account that has tokens.
#[derive(Debug)]
pub(crate) enum Holder {
    /// A person's.
    User(User),
    /// A robot's.
    Robot(Robot),
}

impl Holder {
    /// Counts one more change of the account, of which there was none since it was read.
    fn changed(&self) -> Result<Write, Error> {
        Ok(match self {
            Self::User(user) => {
                let changed = User { version: user.version + 1, ..user.clone() };
                Write::put(&changed, Condition::Version(user.version))?
            }
            Self::Robot(robot) => {
                let changed = Robot { version: robot.version + 1, ..robot.clone() };
                Write::put(&changed, Condition::Version(robot.version))?
            }
        })
    }
}

/// Writes the row of a new token, and takes away some that have expired. The account changes with it, so of two tokens
/// that are made at once, the second one counts the first.
pub(crate) fn token_made(token: &Token, holder: &Holder, expired: &[Token]) -> Result<Changes, Error> {
    let writes = [holder.changed()?, Write::put(token, Condition::Absent)?];
    Ok(token_event(token).with(writes).with(tokens_gone(expired)))
}

/// Writes the row of the token of a login, which does not count. The account has not changed since it was read.
pub(crate) fn login_made(token: &Token, user: &User) -> Result<Changes, Error> {
    token_written(token, user, Condition::Absent)
}

/// Writes the row of a token in the place of one that is there.
pub(crate) fn token_made_again(token: &Token, user: &User) -> Result<Changes, Error> {
    token_written(token, user, Condition::Present)
}

fn token_written(token: &Token, user: &User, condition: Condition) -> Result<Changes, Error> {
    let there = Write::check(user.key(), Condition::Version(user.version));
    Ok(token_event(token).with([there, Write::put(token, condition)?]))
}

fn token_event(token: &Token) -> Changes {
    let what = EventKind::TokenMade { robot: robot(&token.actor), id: token.id, scope: token.scope.clone() };
    Changes::recorded(place_of(&token.actor), what)
}

/// Notes that a token was used, unless it was revoked meanwhile.
pub(crate) fn token_used(token: &Token, now: Time) -> Result<Changes, Error> {
    let used = Token { used: Some(now), ..token.clone() };
    Ok(Changes::unrecorded().with([Write::put(&used, Condition::Present)?]))
}

/// Revokes a token, which must be there.
pub(crate) fn token_revoked(actor: &Actor, id: TokenId) -> Changes {
    let deleted = Write::delete(keys::token(actor, id), Condition::Present);
    Changes::recorded(place_of(actor), EventKind::TokenRevoked { robot: robot(actor), id }).with([deleted])
}

/// Removes tokens that no account is behind any more.
pub(crate) fn tokens_removed(tokens: &[Token]) -> Changes {
    Changes::unrecorded().with(tokens_gone(tokens))
}

fn tokens_gone(tokens: &[Token]) -> impl Iterator<Item = Write> {
    tokens.iter().map(|token| Write::delete(token.key(), Condition::None))
}

/// A robot, as the log of its entity names it.
fn robot(actor: &Actor) -> Option<Actor> {
    Some(actor).filter(|actor| matches!(actor, Actor::Robot(..))).cloned()
}

/// Where what concerns an account is decided and recorded: a robot belongs to its entity.
pub(crate) fn place_of(actor: &Actor) -> Place {
    match actor {
        Actor::User(name) => Place::User(name.clone()),
        Actor::Robot(entity, _) => Place::Entity(entity.clone()),
        Actor::System => Place::Installation,
    }
}

/// Counts one more group that a user made.
pub(crate) fn group_counted(user: &UserName, before: Option<&GroupsMade>) -> Result<Changes, Error> {
    let condition = before.map_or(Condition::Absent, |before| Condition::Version(before.version));
    let (count, version) = before.map_or((1, 0), |before| (before.count + 1, before.version + 1));
    let counted = GroupsMade { user: user.clone(), count, version };
    Ok(Changes::unrecorded().with([Write::put(&counted, condition)?]))
}

/// Notes the groups in which a directory has a user.
pub(crate) fn groups_seen(mut user: User, directory: &str, seen: GroupsSeen) -> Result<Changes, Error> {
    user.groups.insert(directory.to_owned(), seen);
    user_changed(user, EventKind::GroupsSeen { directory: directory.to_owned() })
}

/// Counts one more wrong password for a name. When `window` has passed since the first one, the count starts again.
pub(crate) fn wrong_password(
    name: &UserName,
    before: Option<&WrongPasswords>,
    now: Time,
    window: Duration,
) -> Result<Changes, Error> {
    let condition = before.map_or(Condition::Absent, |before| Condition::Version(before.version));
    let version = before.map_or(0, |before| before.version + 1);
    // What a clock counted that was ahead does not count.
    let running = before.filter(|before| before.since.plus(window) > now && before.since <= now.plus(SKEW));
    let (count, since) = running.map_or((1, now), |before| (before.count.saturating_add(1), before.since));
    let row = WrongPasswords { user: name.clone(), count, since, version };
    Ok(Changes::unrecorded().with([Write::put(&row, condition)?]))
}

/// Forgets wrong passwords, unless another one was counted since they were read.
pub(crate) fn wrong_passwords_forgotten(row: &WrongPasswords) -> Changes {
    Changes::unrecorded().with([Write::delete(row.key(), Condition::Version(row.version))])
}
