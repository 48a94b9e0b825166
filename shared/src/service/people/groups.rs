//! Groups: entities with members. Whoever makes one is its first admin.
//!
//! 1. Read how many groups the user has made, and the entity of that name.
//! 2. In one transaction: the entity with its account, the user as its admin, and the count. *Lost*: the name is taken
//!    now, or the user made another group; start again.

use crate::app::App;
use crate::auth::Credential;
use crate::changes::entities::{self, NewEntity};
use crate::changes::{people, removal};
use crate::domain::{Description, EntityName};
use crate::error::{Error, NO_TOKEN};
use crate::rules::{Action, Resource};
use crate::service::access::Access;
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::{Entity, GroupsMade};
use crate::store::table::Written;

/// Makes a group. `private`: whether new containers in it are private.
pub async fn make(
    app: &App,
    credential: &Credential,
    name: &EntityName,
    description: &Description,
    private: bool,
) -> Result<Entity, Error> {
    let most = app.config.groups_per_user;
    let resource = Resource::NewGroup { name: name.clone(), open: most > 0 };
    let mut retry = Retry::of("changes of the same account");
    loop {
        retry.pause().await?;
        let access = Access::load(app, credential, None, []).await?;
        let grant = access.require(Action::Manage, &resource, "group", "make groups, ask an administrator")?;
        let user = grant.by().and_then(|by| by.user()).ok_or(Error::Unauthenticated(NO_TOKEN))?.clone();
        let (made_key, entity_key, removed) =
            (keys::groups_made(&user), keys::entity(name), keys::removed_entity(name));
        let mut rows = app.table.batch([made_key.clone(), entity_key.clone(), removed.clone()]).await?;
        if rows.has(&entity_key) {
            return Err(Error::Conflict(format!("the name `{name}` is taken")));
        }
        let before: Option<GroupsMade> = rows.take(&made_key)?;
        let operator = access.probe(Action::Manage, &Resource::Installation).is_ok();
        if !operator && before.as_ref().is_some_and(|before| before.count >= most) {
            return Err(Error::Forbidden(format!("you have made {most} groups, the most that a user may make here")));
        }
        let (owner, description) = (&user, description.clone());
        let freed = removal::freed(rows.take(&removed)?, operator)?;
        let (limit, freed) = (app.config.group_quota, freed.as_ref());
        let new = NewEntity { name, owner, description, private, limit, freed };
        let mut made = entities::entity(new, app.birth(&grant)?)?;
        if !operator {
            made.changes.merge(people::group_counted(&user, before.as_ref())?);
        }
        if app.commit(&grant, made.changes).await? == Written::Done {
            return Ok(made.row);
        }
    }
}
