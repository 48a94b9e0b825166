//! The access check of a request: loads the facts in one batch together with the other rows of the use case, then
//! decides.

use crate::app::App;
use crate::auth::Credential;
use crate::auth::token::REGISTRY_LIFE;
use crate::domain::{Actor, Caller, EntityName, Id, Repository, Role, Time, TokenScope, UserName};
use crate::error::{BAD_TOKEN, Error};
use crate::rules::extent::Extent;
use crate::rules::{self, Action, Denial, Grant, Place, Resource, Subject};
use crate::store::keys::{self, Key};
use crate::store::rows::{Container, Member, Membership, Pointer, Row, Target, Token, User};
use crate::store::table::{Page, Rows};
use crate::telemetry;
use std::time::Duration;

/// The caller, their role on one entity, and the rows loaded with them.
#[derive(Debug)]
pub struct Access {
    /// The caller.
    pub caller: Caller,
    /// When the caller's token ends, if it does.
    pub(crate) until: Option<Time>,
    role: Option<Role>,
    rows: Rows,
}

impl Access {
    /// One round: the caller's account and token, their role on `entity`, and the rows at `wanted`.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if the token was revoked, or its account is gone or disabled.
    pub async fn load(
        app: &App,
        credential: &Credential,
        entity: Option<&EntityName>,
        wanted: impl IntoIterator<Item = Key>,
    ) -> Result<Self, Error> {
        let mut batch: Vec<Key> = wanted.into_iter().collect();
        let own = match credential {
            Credential::Anonymous => None,
            Credential::Token { actor, id } => Some((keys::user(user_of(actor)?), Some(*id))),
            Credential::Registry { actor, id, .. } => Some((keys::user(user_of(actor)?), *id)),
        };
        let token_key = credential.user().zip(own.as_ref().and_then(|(_, id)| *id));
        let token_key = token_key.map(|(user, id)| keys::token(user, id));
        let member = credential.user().zip(entity).map(|(user, entity)| keys::member(entity, user));
        batch.extend(own.iter().map(|(user, _)| user.clone()).chain(token_key.clone()).chain(member.clone()));
        let rows = if batch.is_empty() { Rows::default() } else { app.table.batch(batch).await? };
        let mut access = Self { caller: Caller::Anonymous, until: None, role: None, rows };
        if let Some((user, token)) = own {
            let account: Option<User> = access.take(&user)?;
            let account = account.filter(|account| !account.disabled).ok_or(Error::Unauthenticated(BAD_TOKEN))?;
            if let Credential::Registry { password: Some(mark), .. } = credential
                && account.password_mark().as_ref() != Some(mark)
            {
                return Err(Error::Unauthenticated(BAD_TOKEN));
            }
            let scope = match token_key {
                // A password gives all of its user's rights.
                None => TokenScope::full(),
                Some(key) => {
                    let token: Option<Token> = access.take(&key)?;
                    let good = token.filter(|token| token.expires.is_none_or(|expires| expires > app.now()));
                    let token = good.ok_or(Error::Unauthenticated(BAD_TOKEN))?;
                    access.until = token.expires;
                    token.scope
                }
            };
            let narrowed = match credential {
                Credential::Registry { access, .. } => Some(access.clone()),
                Credential::Anonymous | Credential::Token { .. } => None,
            };
            let (name, admin) = (account.name, account.admin);
            access.caller = Caller::User { name, admin, scope, token, access: narrowed };
            access.read_role(member)?;
        }
        telemetry::caller(access.caller.kind());
        Ok(access)
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
        Self::load(app, &credential, Some(entity), wanted).await
    }

    /// A second round, after the first has shown which entity is concerned.
    pub async fn load_more(
        &mut self,
        app: &App,
        entity: &EntityName,
        wanted: impl IntoIterator<Item = Key>,
    ) -> Result<(), Error> {
        let member = self.caller.user().map(|user| keys::member(entity, user));
        self.rows.extend(app.table.batch(wanted.into_iter().chain(member.clone())).await?);
        self.read_role(member)
    }

    fn read_role(&mut self, member: Option<Key>) -> Result<(), Error> {
        if let Some(key) = member {
            self.role = self.take::<Member>(&key)?.map(|member| member.role);
        }
        Ok(())
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
        let subject = Subject { caller: &self.caller, role: Some(member.role) };
        rules::decide(subject, action, &Resource::Entity(member.entity.clone())).is_ok()
    }

    /// Whether the caller may see in the library what an entity has where they are a member.
    pub(crate) fn may_browse(&self, member: &Membership) -> bool {
        !self.is_registrys() && self.may_on(Action::List, member)
    }

    /// Asks the rules what they would say, for something beside the purpose of the request.
    pub fn probe(&self, action: Action, resource: &Resource) -> Result<Grant, Denial> {
        rules::decide(Subject { caller: &self.caller, role: self.role }, action, resource)
    }

    /// Decides whether the caller may do what the request is for. The request's log line shows the last decision.
    pub fn decide(&self, action: Action, resource: &Resource) -> Result<Grant, Denial> {
        let decision = self.probe(action, resource);
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
            Caller::User { scope, access: None, .. } => Some(Extent { scope: scope.clone(), until: self.until }),
            Caller::User { access: Some(_), .. } | Caller::Anonymous | Caller::System => None,
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
        matches!(self.caller, Caller::User { access: Some(_), .. })
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

/// The user whom an actor's account is.
fn user_of(actor: &Actor) -> Result<&UserName, Error> {
    actor.user().ok_or(Error::Unauthenticated(BAD_TOKEN))
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

/// A page of the entities in which the user of the credential has a role, in the order of their names. This does not
/// check whether the token is valid, nor its scope; [`Access::may_on`] does the latter afterwards.
pub(crate) async fn memberships(
    app: &App,
    credential: &Credential,
    after: Option<String>,
) -> Result<Page<Membership>, Error> {
    let Some(user) = credential.user() else { return Ok(Page { rows: Vec::new(), next: None }) };
    Ok(app.table.query(keys::memberships(user), after, MEMBERSHIPS).await?)
}

/// A grant for Stackroom's own work: sweeping, verifying, the first start, and the commands of an operator who holds
/// the installation's own keys.
pub fn system(action: Action, resource: &Resource) -> Result<Grant, Error> {
    let subject = Subject { caller: &Caller::System, role: None };
    rules::decide(subject, action, resource).map_err(|denial| Error::denied(denial, "installation", "do that"))
}
