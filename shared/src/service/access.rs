//! What a request may do: loads the facts in one batch with whatever else the use case needs, then decides.

use crate::app::App;
use crate::auth::Credential;
use crate::domain::{Caller, EntityName, Role, TokenScope};
use crate::error::{BAD_TOKEN, Error};
use crate::rules::{self, Action, Denial, Grant, Resource, Subject};
use crate::store::keys::{self, Key};
use crate::store::rows::{Member, Membership, Row, Token, User};
use crate::store::table::Rows;
use crate::telemetry;

/// Who is calling, their standing on one entity, and the rows that were loaded along the way.
#[derive(Debug)]
pub struct Scene {
    /// Who is calling.
    pub caller: Caller,
    role: Option<Role>,
    rows: Rows,
}

impl Scene {
    /// One round: the caller's account and token, their standing on `entity`, and the rows at `wanted`.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the token was revoked or its account is gone or disabled.
    pub async fn load(
        app: &App,
        credential: &Credential,
        entity: Option<&EntityName>,
        wanted: impl IntoIterator<Item = Key>,
    ) -> Result<Self, Error> {
        let mut batch: Vec<Key> = wanted.into_iter().collect();
        let own = match credential {
            Credential::Anonymous => None,
            Credential::Token { user, id } => Some((keys::user(user), Some(keys::token(user, *id)))),
            Credential::Registry { user, id, .. } => Some((keys::user(user), id.map(|id| keys::token(user, id)))),
        };
        let member = credential.user().zip(entity).map(|(user, entity)| keys::member(entity, user));
        batch.extend(own.iter().flat_map(|(user, token)| [Some(user), token.as_ref()]).flatten().cloned());
        batch.extend(member.clone());
        let rows = if batch.is_empty() { Rows::default() } else { app.table.batch(batch).await? };
        let mut scene = Self { caller: Caller::Anonymous, role: None, rows };
        if let Some((user, token)) = own {
            let account: Option<User> = scene.take(&user)?;
            let account = account.filter(|account| !account.disabled).ok_or(Error::Unauthenticated(BAD_TOKEN))?;
            let scope = match token {
                // Who has shown their password may all that they may.
                None => TokenScope::full(),
                Some(key) => {
                    let token: Option<Token> = scene.take(&key)?;
                    let good = token.filter(|token| token.expires.is_none_or(|expires| expires > app.now()));
                    good.ok_or(Error::Unauthenticated(BAD_TOKEN))?.scope
                }
            };
            let access = match credential {
                Credential::Registry { access, .. } => Some(access.clone()),
                Credential::Anonymous | Credential::Token { .. } => None,
            };
            scene.caller = Caller::User { name: account.name, admin: account.admin, scope, access };
            scene.stand(member)?;
        }
        telemetry::caller(scene.caller.kind());
        Ok(scene)
    }

    /// A second round, once the first has told which entity it is about.
    pub async fn look(
        &mut self,
        app: &App,
        entity: &EntityName,
        wanted: impl IntoIterator<Item = Key>,
    ) -> Result<(), Error> {
        let member = self.caller.user().map(|user| keys::member(entity, user));
        self.rows.extend(app.table.batch(wanted.into_iter().chain(member.clone())).await?);
        self.stand(member)
    }

    fn stand(&mut self, member: Option<Key>) -> Result<(), Error> {
        if let Some(key) = member {
            self.role = self.take::<Member>(&key)?.map(|member| member.role);
        }
        Ok(())
    }

    /// Takes a row that was loaded.
    pub fn take<R: Row>(&mut self, key: &Key) -> Result<Option<R>, Error> {
        Ok(self.rows.take(key)?)
    }

    /// Whether a row was there.
    pub fn has(&self, key: &Key) -> bool {
        self.rows.has(key)
    }

    /// Whether the caller may do something on an entity where they are a member.
    pub fn may_on(&self, action: Action, member: &Membership) -> bool {
        let subject = Subject { caller: &self.caller, role: Some(member.role) };
        rules::decide(subject, action, &Resource::Entity(member.entity.clone())).is_ok()
    }

    /// Decides.
    pub fn decide(&self, action: Action, resource: &Resource) -> Result<Grant, Denial> {
        let decision = rules::decide(Subject { caller: &self.caller, role: self.role }, action, resource);
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
}

/// A grant for what Stackroom does by itself: sweeping, verifying, the first start, and what an operator does who holds
/// the installation's own keys.
pub fn system(action: Action, resource: &Resource) -> Result<Grant, Error> {
    let subject = Subject { caller: &Caller::System, role: None };
    rules::decide(subject, action, resource).map_err(|denial| Error::denied(denial, "it", "do that"))
}
