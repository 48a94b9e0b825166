//! What a member may list of an entity: all of it, or only the collections and repositories on which they have a role.

use super::access::{Access, resource_of_part};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::{EntityName, Repository, Roles, SubPath};
use crate::error::Error;
use crate::rules::{Action, Place, Resource};
use crate::store::keys;
use crate::store::rows::{Container, Entity, Membership};
use crate::store::table::Page;

/// The part of an entity that somebody may list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listable {
    /// All of it.
    All,
    /// What lies at these paths or under them. None of them lies under another one; there may be none at all.
    Parts(Vec<SubPath>),
}

impl Listable {
    /// What the caller may list in the library of the entity that was loaded.
    pub(crate) fn of_caller(access: &Access, entity: &EntityName) -> Self {
        access.membership(entity).map_or(Self::Parts(Vec::new()), |member| Self::in_library(access, &member))
    }

    /// What the caller may list in the library as this member: nothing with the token of a registry client.
    pub(crate) fn in_library(access: &Access, member: &Membership) -> Self {
        if access.is_registrys() { Self::Parts(Vec::new()) } else { Self::of(access, member) }
    }

    /// What the caller may list as this member.
    pub(crate) fn of(access: &Access, member: &Membership) -> Self {
        if access.may_on(Action::List, member) {
            return Self::All;
        }
        let mut parts: Vec<SubPath> = Vec::new();
        for (part, role) in &member.roles.parts {
            let covered = parts.iter().any(|other| other.covers(part.as_str()));
            let resource = resource_of_part(&member.entity, Some(part));
            // A token for the catalog is asked for a whole entity.
            let whole = Membership { roles: Roles::on_all(*role), ..member.clone() };
            if !covered && (access.may_in(Action::List, member, &resource) || access.may_on(Action::List, &whole)) {
                parts.push(part.clone());
            }
        }
        Self::Parts(parts)
    }

    /// Whether there is nothing to list.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Parts(parts) if parts.is_empty())
    }

    /// Whether it includes what lies at this path.
    pub(crate) fn covers(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Parts(parts) => parts.iter().any(|part| part.covers(path)),
        }
    }

    /// Its containers after a path below the entity, at most `most`, in the order of their paths.
    pub(crate) async fn containers(
        &self,
        app: &App,
        entity: &EntityName,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Container>, Error> {
        let Self::Parts(parts) = self else {
            let page: Page<Container> =
                app.table.query(keys::containers(entity, None), after.map(str::to_owned), most).await?;
            return Ok(page.rows);
        };
        let mut found: Vec<Container> = Vec::new();
        for part in parts.iter().filter_map(|part| part.repository(entity)) {
            found.extend(at_or_under(app, &part, after, most).await?);
        }
        found.sort_by(|one, other| one.repository.rest().cmp(other.repository.rest()));
        found.truncate(most);
        Ok(found)
    }

    /// The same as a page.
    pub(crate) async fn page(
        &self,
        app: &App,
        entity: &EntityName,
        after: Option<&str>,
        most: usize,
    ) -> Result<Page<Container>, Error> {
        let rows = self.containers(app, entity, after, most).await?;
        let next = rows.last().filter(|_| rows.len() >= most).map(|row| row.repository.rest().to_owned());
        Ok(Page { rows, next })
    }
}

/// The container at a path, if it is one, and those under it.
async fn at_or_under(
    app: &App,
    part: &Repository,
    after: Option<&str>,
    most: usize,
) -> Result<impl Iterator<Item = Container>, Error> {
    let itself = match after {
        Some(after) if after >= part.rest() => None,
        _ => app.table.get::<Container>(keys::container(part)).await?,
    };
    let under = format!("{}/", part.rest());
    let beyond = |after: &str| !after.starts_with(&under) && after > under.as_str();
    let rows = match after {
        Some(after) if beyond(after) => Vec::new(),
        after => {
            let after = after.and_then(|after| after.strip_prefix(&under)).map(str::to_owned);
            app.table.query::<Container>(keys::containers_under(part), after, most).await?.rows
        }
    };
    Ok(itself.into_iter().chain(rows))
}

/// Checks that the caller may list the entity, or a part of it.
pub(crate) async fn may_list(app: &App, credential: &Credential, entity: &EntityName) -> Result<Access, Error> {
    let key = keys::entity(entity);
    let mut access = Access::load(app, credential, Some(entity), [key.clone()]).await?;
    let there = access.take::<Entity>(&key)?.is_some();
    // Whoever may list a part of it sees what there is of that part.
    if !there || Listable::of_caller(&access, entity).is_empty() {
        let missing = || Resource::Missing(Place::Entity(entity.clone()));
        let resource = if there && !access.is_registrys() { Resource::Entity(entity.clone()) } else { missing() };
        access.require(Action::List, &resource, "entity", "list this entity")?;
    }
    access.shown(Action::List, &Resource::Entity(entity.clone()));
    Ok(access)
}
