//! Robots of an entity: accounts without a password, for jobs. A robot has a role in its own entity and nowhere else.
//!
//! # Removing one
//!
//! 1. In one transaction: its account is disabled. From now on none of its tokens works, and none
//!    can be made, because that requires the account as it was. *Dies*: removing it again goes on here.
//! 2. Its tokens are removed.
//! 3. Its account is removed. Only now can its name be used again, and no old token is left that would work then.

use super::members::can_be_given;
use super::tokens;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::members;
use crate::changes::removal::{self, Removed};
use crate::domain::{Actor, Description, EntityName, RoleAt, UserName};
use crate::error::Error;
use crate::rules::{Action, Grant};
use crate::service::access::{Access, entity_at};
use crate::service::retry::{Retry, Try};
use crate::store::keys;
use crate::store::rows::{Entity, Member, Robot};
use crate::store::table::Written;

/// The most robots of one entity: they are listed whole.
const MAX_ROBOTS: usize = 100;

/// A new robot.
#[derive(Debug)]
pub struct NewRobot {
    /// Its own name.
    pub name: UserName,
    /// What it is for.
    pub description: Description,
    /// Its role.
    pub at: RoleAt,
}

/// Makes a robot. It needs a token to do anything.
pub async fn make(app: &App, credential: &Credential, entity: &EntityName, new: NewRobot) -> Result<Actor, Error> {
    let mut access = Access::load(app, credential, Some(entity), [keys::entity(entity)]).await?;
    let row: Option<Entity> = access.take(&keys::entity(entity))?;
    let resource = entity_at(entity, row.as_ref());
    let grant = access.require(Action::Manage, &resource, "entity", "make robots there")?;
    let row = row.ok_or(Error::NotFound("entity"))?;
    let NewRobot { name, description, at } = new;
    let actor = Actor::Robot(entity.clone(), name);
    can_be_given(&row, Some(&actor), &at)?;
    if app.table.query::<Member>(keys::robots(entity), None, MAX_ROBOTS).await?.rows.len() >= MAX_ROBOTS {
        return Err(Error::Conflict(format!("{entity} has {MAX_ROBOTS} robots already, the most there can be")));
    }
    let birth = app.birth(&grant)?;
    let (created_by, created, version) = (birth.by.clone(), birth.at, birth.first_version.into());
    let robot = Robot { actor, description, created_by, created, disabled: false, version };
    match app.commit(&grant, members::robot_made(&robot, entity, &at, &birth)?).await? {
        Written::Done => Ok(robot.actor),
        Written::Lost(_) => Err(Error::Conflict(format!("there is a robot {} already", robot.actor))),
    }
}

/// A robot with its roles.
#[derive(Debug)]
pub struct RobotView {
    /// The robot.
    pub robot: Robot,
    /// Its roles.
    pub member: Member,
}

/// The robots of an entity, for those who manage it.
pub async fn list(app: &App, credential: &Credential, entity: &EntityName) -> Result<Vec<RobotView>, Error> {
    let (access, resource) = Access::to_entity(app, credential, entity).await?;
    access.require(Action::Manage, &resource, "entity", "list its robots")?;
    let members = app.table.query::<Member>(keys::robots(entity), None, MAX_ROBOTS).await?.rows;
    let mut rows = app.table.batch(members.iter().map(|member| keys::actor(&member.actor))).await?;
    let mut views = Vec::new();
    for member in members {
        let robot: Option<Robot> = rows.take(&keys::actor(&member.actor))?;
        views.extend(robot.map(|robot| RobotView { robot, member }));
    }
    Ok(views)
}

/// Removes a robot with its tokens.
pub async fn remove(app: &App, credential: &Credential, entity: &EntityName, name: UserName) -> Result<(), Error> {
    let actor = Actor::Robot(entity.clone(), name);
    let mut retry = Retry::of("changes of the same robot");
    loop {
        retry.pause().await?;
        let (access, resource) = Access::to_entity(app, credential, entity).await?;
        let grant = access.require(Action::Manage, &resource, "entity", "remove its robots")?;
        let robot: Option<Robot> = app.table.get(keys::actor(&actor)).await?;
        if let Try::Done(()) = removed(app, &grant, entity, robot.ok_or(Error::NotFound("robot"))?).await? {
            return Ok(());
        }
    }
}

/// A robot that is left of an entity that was deleted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) entity: &'a EntityName,
    pub(crate) robot: &'a Actor,
    /// The row that says that the entity is being removed.
    pub(crate) removed: &'a Removed,
}

/// Removes a robot that is left, unless there is a new entity of that name.
pub(crate) async fn remove_left(app: &App, grant: &Grant, left: Left<'_>) -> Result<(), Error> {
    let mut retry = Retry::of("changes of the same robot");
    loop {
        retry.pause().await?;
        let mut rows = app.table.batch([keys::actor(left.robot), left.removed.key.clone()]).await?;
        let robot: Option<Robot> = rows.take(&keys::actor(left.robot))?;
        let Some(robot) = robot.filter(|_| rows.has(&left.removed.key)) else { return Ok(()) };
        if !robot.disabled {
            let still = removal::still_removed(left.removed);
            let _read_again = app.commit(grant, members::robot_stopped(&robot, left.entity)?.with([still])).await?;
        } else if let Try::Done(()) = removed(app, grant, left.entity, robot).await? {
            return Ok(());
        }
    }
}

/// One step: stops it, or removes what is left of it.
async fn removed(app: &App, grant: &Grant, entity: &EntityName, robot: Robot) -> Result<Try<()>, Error> {
    if !robot.disabled {
        let _read_again = app.commit(grant, members::robot_stopped(&robot, entity)?).await?;
        return Ok(Try::Lost);
    }
    tokens::remove_all(app, grant, &robot.actor).await?;
    Ok(Try::of(&app.commit(grant, members::robot_gone(&robot, entity)).await?, ()))
}
