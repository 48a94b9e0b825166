//! The access check of a request: loads the facts in one batch together with the other rows of the use case, then
//! decides.

mod noting;

use self::noting::{note_use, unnoted};
use crate::app::App;
use crate::auth::Credential;
use crate::auth::token::REGISTRY_LIFE;
use crate::domain::{Actor, Caller, EntityName, Id, Repository, Roles, SubPath, Time, TokenId, TokenScope, Visibility};
use crate::error::{BAD_TOKEN, Error};
use crate::rules::extent::Extent;
use crate::rules::{self, Action, Denial, Grant, Place, Resource, Subject};
use crate::store::keys::{self, Key};
use crate::store::rows::{
    Container, Entity, GroupsSeen, Includes, Member, Membership, Pointer, Robot, Row, Target, Token, User,
};
use crate::store::table::{Page, Rows};
use crate::telemetry;
use std::collections::BTreeMap;
use std::time::Duration;

/// The caller, their roles in one entity, and the rows loaded with them.
#[derive(Debug)]
pub struct Access {
    /// The caller.
    pub caller: Caller,
    /// When the caller's token ends, if it does.
    pub(crate) until: Option<Time>,
    roles: Roles,
    /// Their row there, if they have one.
    pub(crate) member: Option<Box<Member>>,
    /// The groups in which directories have the caller, as far as that still counts.
    groups: BTreeMap<String, GroupsSeen>,
    /// The caller's token, if its use is to be noted.
    unnoted: Option<Box<Token>>,
    rows: Rows,
    /// The installation, if the caller is a site admin: what they see as one is noted.
    noting: Option<App>,
}

impl Access {
    /// One round: the caller's account and token, their roles in `entity`, and the rows at `wanted`. The use of the token
    /// is noted, once a day.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if the token was revoked, or its account is gone or disabled.
    pub async fn load(
        app: &App,
        credential: &Credential,
        entity: Option<&EntityName>,
        wanted: impl IntoIterator<Item = Key>,
    ) -> Result<Self, Error> {
        let mut access = Self::of_maker(app, credential, entity, wanted).await?;
        telemetry::caller(access.caller.kind());
        if matches!(access.caller, Caller::Known { admin: true, .. }) {
            access.noting = Some(app.clone());
        }
        if let Some(token) = access.unnoted.take() {
            Box::pin(note_use(app, &token)).await?;
        }
        Ok(access)
    }

    /// The access to an entity as a whole. Whoever was a member of one that was deleted keeps their row for a while, and
    /// is told that it is missing.
    pub(crate) async fn to_entity(
        app: &App,
        credential: &Credential,
        entity: &EntityName,
    ) -> Result<(Self, Resource), Error> {
        let key = keys::entity(entity);
        let mut access = Self::load(app, credential, Some(entity), [key.clone()]).await?;
        let row: Option<Entity> = access.take(&key)?;
        Ok((access, entity_at(entity, row.as_ref())))
    }

    /// The same for somebody who is not the caller, but made what the caller shows.
    pub(crate) async fn of_maker(
        app: &App,
        credential: &Credential,
        entity: Option<&EntityName>,
        wanted: impl IntoIterator<Item = Key>,
    ) -> Result<Self, Error> {
        let mut batch: Vec<Key> = wanted.into_iter().collect();
        let own = Own::of(credential);
        batch.extend(own.iter().flat_map(Own::keys));
        batch.extend(own.iter().flat_map(|own| own.in_entity(app, entity)));
        let rows = if batch.is_empty() { Rows::default() } else { app.table.batch(batch).await? };
        let (caller, roles) = (Caller::Anonymous, Roles::default());
        let (until, member, groups, unnoted, noting) = (None, None, BTreeMap::new(), None, None);
        let mut access = Self { caller, until, roles, member, groups, unnoted, rows, noting };
        if let Some(own) = own {
            access.read_caller(app, &own)?;
            access.read_roles(app, own.actor, entity)?;
        }
        Ok(access)
    }

    /// Takes the rows that say who the caller is.
    fn read_caller(&mut self, app: &App, own: &Own<'_>) -> Result<(), Error> {
        let account = keys::actor(own.actor);
        let admin = match own.actor {
            Actor::Robot(..) => self.take::<Robot>(&account)?.filter(|robot| !robot.disabled).map(|_| false),
            Actor::User(_) | Actor::System => {
                let user = self.take::<User>(&account)?.filter(|user| !user.disabled);
                let same = |user: &User| own.password.is_none() || user.password_mark().as_deref() == own.password;
                user.filter(same).map(|user| {
                    self.groups = user.groups;
                    self.groups.retain(|_, seen| seen.seen.plus(app.config.groups_life) > app.now());
                    user.admin
                })
            }
        };
        let admin = admin.ok_or(Error::Unauthenticated(BAD_TOKEN))?;
        let scope = match own.token.map(|id| keys::token(own.actor, id)) {
            // A password gives all of its user's rights.
            None => TokenScope::full(),
            Some(key) => {
                let token: Option<Token> = self.take(&key)?;
                let end = |token: &Token| token.end(app.config.policy.max_token_life);
                let good = token.filter(|token| end(token).is_none_or(|end| end > app.now()));
                let token = good.ok_or(Error::Unauthenticated(BAD_TOKEN))?;
                self.until = end(&token);
                let scope = token.scope.clone();
                self.unnoted = Some(token).filter(|token| unnoted(token, app.now())).map(Box::new);
                scope
            }
        };
        let access = own.narrowed.map(<[TokenScope]>::to_vec);
        self.caller = Caller::Known { actor: own.actor.clone(), admin, scope, token: own.token, access };
        Ok(())
    }

    /// The same for a user who is not the caller: their rights at this moment, without a token that narrows them.
    pub(crate) async fn of(
        app: &App,
        actor: &Actor,
        entity: &EntityName,
        wanted: impl IntoIterator<Item = Key>,
    ) -> Result<Self, Error> {
        let access = vec![TokenScope::full()];
        let credential = Credential::Registry { actor: actor.clone(), id: None, password: None, access };
        Self::of_maker(app, &credential, Some(entity), wanted).await
    }

    /// A second round, after the first has shown which entity is concerned.
    pub async fn load_more(
        &mut self,
        app: &App,
        entity: &EntityName,
        wanted: impl IntoIterator<Item = Key>,
    ) -> Result<(), Error> {
        let Some(actor) = self.caller.known().cloned() else {
            self.rows.extend(app.table.batch(wanted).await?);
            return Ok(());
        };
        let own = Own { actor: &actor, token: None, password: None, narrowed: None };
        let wanted = wanted.into_iter().chain(own.in_entity(app, Some(entity)));
        self.rows.extend(app.table.batch(wanted).await?);
        self.read_roles(app, &actor, Some(entity))
    }

    /// Takes the rows that say which roles the caller has in an entity.
    pub(crate) fn read_roles(&mut self, app: &App, actor: &Actor, entity: Option<&EntityName>) -> Result<(), Error> {
        let Some(entity) = entity else { return Ok(()) };
        self.member = self.take(&keys::member(entity, actor))?.map(Box::new);
        self.roles = self.member.as_ref().map(|row| row.roles.clone()).unwrap_or_default();
        if app.config.directory_groups {
            let includes: Option<Includes> = self.take(&keys::includes(entity))?;
            self.roles.entity = self.roles.entity.max(includes.and_then(|includes| includes.role(&self.groups)));
        }
        Ok(())
    }

    /// The caller as a member of the entity that was loaded.
    pub(crate) fn membership(&self, entity: &EntityName) -> Option<Membership> {
        let actor = self.caller.known()?.clone();
        Some(Membership { entity: entity.clone(), actor, roles: self.roles.clone() })
    }

    /// Takes a row that was loaded.
    pub fn take<R: Row>(&mut self, key: &Key) -> Result<Option<R>, Error> {
        Ok(self.rows.take(key)?)
    }

    /// All loaded rows that were not taken.
    pub(crate) fn rows(&mut self) -> &mut Rows {
        &mut self.rows
    }

    /// The target of the id, if it was loaded and has one.
    pub(crate) fn target(&mut self, id: Id) -> Result<Option<Target>, Error> {
        Ok(self.take::<Pointer>(&keys::pointer(id))?.map(|pointer| pointer.target))
    }

    /// The error for an id that points to nothing: the same as for one whose target is hidden from the caller.
    pub(crate) fn points_nowhere(&self, what: &'static str, doing: &str) -> Error {
        let nowhere = self.require(Action::Push, &Resource::Missing(Place::Nowhere), what, doing);
        nowhere.err().unwrap_or(Error::NotFound(what))
    }

    /// Whether the caller may do something on an entity where they are a member.
    pub fn may_on(&self, action: Action, member: &Membership) -> bool {
        self.may_in(action, member, &Resource::Entity(member.entity.clone()))
    }

    /// Whether the caller may do something to a resource in an entity where they are a member.
    pub(crate) fn may_in(&self, action: Action, member: &Membership, resource: &Resource) -> bool {
        let subject = Subject { caller: &self.caller, roles: &member.roles };
        rules::decide(subject, action, resource).is_ok()
    }

    /// Asks the rules what they would say, for something beside the purpose of the request.
    pub fn probe(&self, action: Action, resource: &Resource) -> Result<Grant, Denial> {
        rules::decide(Subject { caller: &self.caller, roles: &self.roles }, action, resource)
    }

    /// Decides whether the caller may do what the request is for. The request's log line shows the last decision.
    pub fn decide(&self, action: Action, resource: &Resource) -> Result<Grant, Denial> {
        let decision = self.probe(action, resource);
        if let (Some(app), Ok(grant)) = (&self.noting, &decision) {
            self.note(app, grant, resource);
        }
        telemetry::decided(match &decision {
            Ok(_) => "allow",
            Err(Denial::Unauthenticated) => "unauthenticated",
            Err(Denial::Hidden) => "hidden",
            Err(Denial::Forbidden) => "forbidden",
            Err(Denial::OutOfScope) => "out of scope",
            Err(Denial::ReadOnly) => "read-only",
            Err(Denial::Frozen) => "frozen",
        });
        decision
    }

    /// Notes that the caller is shown something, if they may see it only as a site admin. [`decide`](Self::decide) does
    /// so by itself.
    pub(crate) fn shown(&self, action: Action, resource: &Resource) {
        if let Some(app) = &self.noting
            && let Ok(grant) = self.probe(action, resource)
        {
            self.note(app, &grant, resource);
        }
    }

    /// The same as [`decide`](Self::decide), with an error for a denial. `what` names the thing that is missing or
    /// hidden, `doing` the refused action.
    pub fn require(
        &self,
        action: Action,
        resource: &Resource,
        what: &'static str,
        doing: &str,
    ) -> Result<Grant, Error> {
        self.decide(action, resource).map_err(|denial| Error::denied(denial, what, doing))
    }

    /// What the caller's credential reaches, and until when; `None` for callers that make no credentials: those without
    /// one, and those with the short-lived token of a registry client.
    pub(crate) fn extent(&self) -> Option<Extent> {
        match &self.caller {
            Caller::Known { scope, access: None, .. } => Some(Extent { scope: scope.clone(), until: self.until }),
            Caller::Known { access: Some(_), .. } | Caller::Anonymous | Caller::System => None,
        }
    }

    /// The longest life of a URL for the bytes of an upload: nobody gets one that outlives their token for long. The
    /// short-lived token of a registry client uploads in a way of its own, whose URLs are asked again.
    pub(crate) fn upload_life(&self, app: &App) -> Duration {
        let own = self.until.map_or(Duration::MAX, |until| {
            Duration::from_secs(u64::try_from(until.0.saturating_sub(app.now().0)).unwrap_or(0))
        });
        let short = if self.is_registrys() { REGISTRY_LIFE } else { Duration::MAX };
        app.config.upload_life.min(own).min(short)
    }

    /// Whether the caller's token is the short-lived one of a registry client. In the registry, that for the catalog
    /// lists names; the lists of the library say much more.
    pub(crate) fn is_registrys(&self) -> bool {
        matches!(self.caller, Caller::Known { access: Some(_), .. })
    }

    /// Checks that the caller may do what lets somebody in with a password, now or later: only somebody with all rights
    /// of theirs and without an end may.
    pub(crate) fn require_whole(&self, doing: &str) -> Result<(), Error> {
        match self.extent().map(|extent| extent.includes(&Extent::whole())) {
            Some(Ok(())) => Ok(()),
            _ => Err(Error::Forbidden(format!("this token may not be used to {doing}"))),
        }
    }

    /// Checks whether the caller may push into the container. Only those who may push there learn that a container is
    /// missing.
    pub(crate) fn may_push(
        &self,
        repository: &Repository,
        container: Option<Container>,
        doing: &str,
    ) -> Result<(Grant, Container), Error> {
        let grant = self.require(Action::Push, &resource_at(repository, container.as_ref()), "container", doing)?;
        Ok((grant, container.ok_or(Error::NotFound("container"))?))
    }
}

/// What a credential says of its caller, to be looked up.
struct Own<'a> {
    actor: &'a Actor,
    token: Option<TokenId>,
    /// The mark of the password that it was given for, if it was one.
    password: Option<&'a str>,
    narrowed: Option<&'a [TokenScope]>,
}

impl<'a> Own<'a> {
    fn of(credential: &'a Credential) -> Option<Self> {
        match credential {
            Credential::Anonymous => None,
            Credential::Token { actor, id } => Some(Self { actor, token: Some(*id), password: None, narrowed: None }),
            Credential::Registry { actor, id, password, access } => {
                Some(Self { actor, token: *id, password: password.as_deref(), narrowed: Some(access) })
            }
        }
    }

    /// The rows of the account and the token.
    fn keys(&self) -> impl Iterator<Item = Key> {
        let token = self.token.map(|id| keys::token(self.actor, id));
        std::iter::once(keys::actor(self.actor)).chain(token)
    }

    /// The rows that say which roles they have in an entity.
    fn in_entity(&self, app: &App, entity: Option<&EntityName>) -> impl Iterator<Item = Key> + use<> {
        let member = entity.map(|entity| keys::member(entity, self.actor));
        let includes = entity.filter(|_| app.config.directory_groups).map(keys::includes);
        member.into_iter().chain(includes)
    }
}

/// A part of an entity as the rules see it, when its members are managed.
pub(crate) fn resource_of_part(entity: &EntityName, part: Option<&SubPath>) -> Resource {
    match Place::part(entity, part) {
        Place::Collection(entity, collection) => Resource::Collection(entity, collection),
        Place::Repository(repository) => {
            Resource::Container { repository, visibility: Visibility::Private, read_only: false }
        }
        Place::Entity(entity) => Resource::Entity(entity),
        // Its path is too long for a repository.
        _ => Resource::Missing(Place::Nowhere),
    }
}

/// The entity of a name, or a resource that says that there is none.
pub(crate) fn entity_at(name: &EntityName, row: Option<&Entity>) -> Resource {
    match row {
        Some(_) => Resource::Entity(name.clone()),
        None => Resource::Missing(Place::Entity(name.clone())),
    }
}

/// A container, as the rules see it.
pub(crate) fn resource_of(container: &Container) -> Resource {
    Resource::Container {
        repository: container.repository.clone(),
        visibility: container.visibility,
        read_only: container.read_only,
    }
}

/// The container at a path, or a resource that says that there is none.
pub(crate) fn resource_at(repository: &Repository, container: Option<&Container>) -> Resource {
    container.map_or_else(|| Resource::Missing(Place::Repository(repository.clone())), resource_of)
}

/// The most memberships that are read at once. A push reads a charge for each of the first ones, with its own rows in
/// one batch of at most 100 keys.
const MEMBERSHIPS: usize = 50;

/// A page of the entities in which the actor of the credential has a role, in the order of their names. This does not
/// check whether the token is valid, nor its scope; [`Access::may_on`] does the latter afterwards.
pub(crate) async fn memberships(
    app: &App,
    credential: &Credential,
    after: Option<String>,
) -> Result<Page<Membership>, Error> {
    let Some(actor) = credential.actor() else { return Ok(Page { rows: Vec::new(), next: None }) };
    Ok(app.table.query(keys::memberships(actor), after, MEMBERSHIPS).await?)
}

/// A grant for Stackroom's own work: sweeping, verifying, the first start, and the commands of an operator who holds
/// the installation's own keys.
pub fn system(action: Action, resource: &Resource) -> Result<Grant, Error> {
    let subject = Subject { caller: &Caller::System, roles: &Roles::default() };
    rules::decide(subject, action, resource).map_err(|denial| Error::denied(denial, "installation", "do that"))
}
