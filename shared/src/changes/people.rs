//! People: accounts, tokens, and the wrong passwords for a name.

use super::Changes;
use super::entities::{self, Birth, NewEntity};
use crate::domain::time::SKEW;
use crate::domain::{Actor, Description, EntityName, Time, TokenId, UserName};
use crate::error::Error;
use crate::rules::Place;
use crate::store::keys;
use crate::store::rows::{
    EventKind, GroupsMade, GroupsSeen, RemovedEntity, Row, Token, User, UserListed, WrongPasswords,
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

/// Disables an account, or enables it again.
pub(crate) fn user_disabled(user: User, disabled: bool) -> Result<Changes, Error> {
    user_changed(User { disabled, ..user }, EventKind::UserDisabled { disabled })
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

/// Writes the row of a new token, if its account still has the version that was read: it was not removed meanwhile.
pub(crate) fn token_made(token: &Token, account: u64) -> Result<Changes, Error> {
    token_written(token, account, Condition::Absent)
}

/// Writes the row of a new token in the place of one that has expired, which must be there.
pub(crate) fn token_made_again(token: &Token, account: u64) -> Result<Changes, Error> {
    token_written(token, account, Condition::Present)
}

fn token_written(token: &Token, account: u64, condition: Condition) -> Result<Changes, Error> {
    let what = EventKind::TokenMade { robot: robot(&token.actor), id: token.id, scope: token.scope.clone() };
    let there = Write::check(keys::actor(&token.actor), Condition::Version(account));
    Ok(Changes::recorded(place_of(&token.actor), what).with([there, Write::put(token, condition)?]))
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
    Changes::unrecorded().with(tokens.iter().map(|token| Write::delete(token.key(), Condition::None)))
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
