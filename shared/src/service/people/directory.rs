//! Finding users, and what each may know of another.
//!
//! Names are what people need from each other, to give a role or to name a path, and nobody needs all of them. So
//! somebody who is logged in finds the few users whose names begin with some letters, and learns only their names.

use super::users::UserView;
use crate::app::App;
use crate::auth::Credential;
use crate::domain::UserName;
use crate::error::{Error, NO_TOKEN};
use crate::rules::{Action, Resource};
use crate::service::access::Access;
use crate::store::keys;
use crate::store::rows::{Account, User, UserListed};
use crate::store::table::{Page, Rows};

/// How many letters of a name find those that begin with them. Fewer find the name that they are.
pub const SHORTEST: usize = 3;
/// The most users that are found, by others than site admins.
const MOST: usize = 10;
/// The most users of a page, for site admins. Each takes two rows.
const PAGE: usize = 50;

/// Users that were found.
#[derive(Debug)]
pub enum FoundUsers {
    /// The names of some, for other users.
    Names(Vec<UserName>),
    /// All that there is to know, for site admins.
    Views(Page<UserView>),
}

/// Users whose names begin with some letters, in the order of their names; for site admins also without any, and page
/// by page.
pub async fn find(
    app: &App,
    credential: &Credential,
    beginning: &str,
    after: Option<String>,
) -> Result<FoundUsers, Error> {
    let access = Access::load(app, credential, None, []).await?;
    if access.caller.known().is_none() {
        return Err(Error::Unauthenticated(NO_TOKEN));
    }
    access.require(Action::List, &Resource::Installation, "user", "search users")?;
    let beginning = beginning.to_ascii_lowercase();
    if access.probe(Action::Manage, &Resource::Installation).is_ok() {
        let page: Page<UserListed> = app.table.query(keys::users_named(&beginning), after, PAGE).await?;
        let names: Vec<UserName> = page.rows.into_iter().map(|row| row.name).collect();
        return Ok(FoundUsers::Views(Page { rows: views(app, &names).await?, next: page.next }));
    }
    let names: Vec<UserName> = match beginning.len() {
        0 => {
            let why = format!("only administrators list all users: name at least {SHORTEST} letters with `username`");
            return Err(Error::Forbidden(why));
        }
        1..SHORTEST => beginning.parse().into_iter().collect(),
        _ => {
            let page: Page<UserListed> = app.table.query(keys::users_named(&beginning), None, MOST).await?;
            page.rows.into_iter().map(|row| row.name).collect()
        }
    };
    let mut rows = app.table.batch(names.iter().map(keys::user)).await?;
    let mut found = Vec::new();
    for name in names {
        found.extend(rows.take::<User>(&keys::user(&name))?.filter(|user| !user.disabled).map(|user| user.name));
    }
    Ok(FoundUsers::Names(found))
}

/// A user: the caller, or anybody for a site admin.
pub async fn user(app: &App, credential: &Credential, name: &UserName) -> Result<UserView, Error> {
    let access = Access::load(app, credential, None, []).await?;
    if access.caller.known().is_none() {
        return Err(Error::Unauthenticated(NO_TOKEN));
    }
    access.require(Action::See, &Resource::User(name.clone()), "user", "see this user")?;
    // A token for a single place says nothing of its user's account.
    access.require(Action::List, &Resource::Installation, "user", "see this user")?;
    views(app, std::slice::from_ref(name)).await?.pop().ok_or(Error::NotFound("user"))
}

async fn views(app: &App, names: &[UserName]) -> Result<Vec<UserView>, Error> {
    let wanted = names.iter().flat_map(|name| [keys::user(name), keys::account(&name.into())]);
    let mut rows: Rows = app.table.batch(wanted).await?;
    let mut views = Vec::new();
    for name in names {
        let user: Option<User> = rows.take(&keys::user(name))?;
        let account: Option<Account> = rows.take(&keys::account(&name.into()))?;
        views.extend(user.zip(account).map(|(user, account)| UserView { user, quota: account.quota }));
    }
    Ok(views)
}
