//! Passwords: hashing them, a few at a time, and counting the wrong ones (docs/decisions/0012-wrong-passwords.md).
//!
//! # Comparing one
//!
//! 1. Wait for a turn: hashing takes 19 MiB and a core.
//! 2. In one batch, read the user and the number of recent wrong passwords for the name. If there are too many,
//!    compare nothing any more, not even the right one.
//! 3. Compare. If there is no user, no password, or the user is disabled, compare with a dummy hash, which takes as
//!    long.
//! 4. Count a wrong one, and only then give the turn back: of many simultaneous guesses, a process compares at most as
//!    many as it has turns before the first of them counts.

use crate::app::App;
use crate::auth::password;
use crate::changes::people;
use crate::domain::UserName;
use crate::domain::time::SKEW;
use crate::error::Error;
use crate::rules::{Action, Resource};
use crate::service::access::system;
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::{User, WrongPasswords};
use crate::store::table::Written;
use secrecy::SecretString;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many wrong passwords a name may have within [`WINDOW`]: more than anybody mistypes.
const MAX_WRONG: u32 = 10;
/// How long wrong passwords count, starting with the first one.
pub(crate) const WINDOW: Duration = Duration::from_mins(15);
/// The passwords that are compared at the same time: each takes 19 MiB and a core.
static HASHING: Semaphore = Semaphore::const_new(2);
/// The requests that wait for their turn.
static WAITING: Semaphore = Semaphore::const_new(256);

/// The same for setting passwords: guessing must not hold up users who set one.
static SETTING: Semaphore = Semaphore::const_new(1);
static WAITING_TO_SET: Semaphore = Semaphore::const_new(64);

/// A turn at hashing, and a place in the queue until then.
async fn turn(queue: &Semaphore, turns: &'static Semaphore) -> Result<SemaphorePermit<'static>, Error> {
    let why = "too many passwords at once, try again later";
    let busy = |_| Error::Busy { why: why.to_owned(), after: Duration::from_secs(1) };
    let _waiting = queue.try_acquire().map_err(busy)?;
    turns.acquire().await.map_err(|error| Error::Internal(error.to_string()))
}

/// Hashes a password. Only for callers who may set it.
pub(crate) async fn hashed(password: SecretString) -> Result<String, Error> {
    hashed_in(turn(&WAITING_TO_SET, &SETTING).await?, password).await
}

/// The same for strangers: they wait with those who log in, and hold up nobody who sets a password.
pub(crate) async fn hashed_for_stranger(password: SecretString) -> Result<String, Error> {
    hashed_in(turn(&WAITING, &HASHING).await?, password).await
}

async fn hashed_in(turn: SemaphorePermit<'static>, password: SecretString) -> Result<String, Error> {
    let hash = tokio::task::spawn_blocking(move || {
        // It is held until the hash is done, whether or not anybody still waits for it.
        let _turn = turn;
        password::hash(&password)
    });
    hash.await.map_err(|error| Error::Internal(error.to_string()))?
}

/// The user of that name, if this is their password and they may log in. `None` stands for a name that can't be a
/// user's.
pub(crate) async fn user(app: &App, name: Option<&UserName>, secret: &SecretString) -> Result<Option<User>, Error> {
    let turn = turn(&WAITING, &HASHING).await?;
    let (user, wrong) = match name {
        Some(name) => {
            let (user, wrong) = (keys::user(name), keys::wrong_passwords(name));
            let mut rows = app.table.batch([user.clone(), wrong.clone()]).await?;
            (rows.take::<User>(&user)?, rows.take::<WrongPasswords>(&wrong)?)
        }
        None => (None, None),
    };
    // What a clock counted that was ahead does not count.
    let wrong_now = wrong.as_ref().filter(|wrong| wrong.since <= app.now().plus(SKEW));
    if let Some(wrong) = wrong_now.filter(|wrong| wrong.count >= MAX_WRONG) {
        let left = wrong.since.plus(WINDOW).0.saturating_sub(app.now().0);
        if let Ok(left @ 1..) = u64::try_from(left) {
            // The clock may have been set back.
            let left = left.min(WINDOW.as_secs());
            let why = "too many wrong passwords for this name, try again later or use a token";
            return Err(Error::Busy { why: why.to_owned(), after: Duration::from_secs(left) });
        }
    }
    let user = user.filter(|user| !user.disabled);
    let hash = user.as_ref().and_then(|user| user.password.clone());
    let secret = secret.clone();
    let compared = tokio::task::spawn_blocking(move || {
        let right = password::verify(&secret, hash.as_deref().unwrap_or(password::NOBODY)) && hash.is_some();
        // The turn moves along: it ends only when hashing is done, whether or not anybody still waits.
        (right, turn)
    });
    let (right, turn) = compared.await.map_err(|error| Error::Internal(error.to_string()))?;
    if right {
        return Ok(user);
    }
    if let Some(name) = name {
        count(app, name, wrong).await?;
    }
    drop(turn);
    Ok(None)
}

/// Counts one more wrong password for a name, whether or not such a user exists.
async fn count(app: &App, name: &UserName, mut before: Option<WrongPasswords>) -> Result<(), Error> {
    let grant = system(Action::Manage, &Resource::User(name.clone()))?;
    let mut retry = Retry::of("wrong passwords");
    loop {
        retry.pause().await?;
        let changes = people::wrong_password(name, before.as_ref(), app.now(), WINDOW)?;
        if app.commit(&grant, changes).await? == Written::Done {
            return Ok(());
        }
        before = app.table.get(keys::wrong_passwords(name)).await?;
    }
}
