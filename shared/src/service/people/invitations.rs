//! Invitations: links that bring people into an entity.
//!
//! # Accepting one
//!
//! 1. Read the invitation, what the caller has there, and then its maker's rights at this moment. A wrong, used-up, expired or
//!    revoked invitation, and one whose maker may not give that role any more, have the same answer.
//! 2. Who has such a role or a stronger one already is done: no use is spent, and no role is lowered.
//! 3. In one transaction: the invitation counts one use more, on condition of its version; the role; and the maker's own
//!    row must not have changed since. *Lost*: start again.

use super::members::{Loaded, can_be_given};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::members;
use crate::domain::{Actor, Digest, EntityName, Id, Role, RoleAt, SubPath, Time, TokenScope};
use crate::error::{Error, NO_TOKEN};
use crate::random;
use crate::rules::{Action, Resource};
use crate::service::access::{Access, resource_of_part};
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::{Entity, Invitation, Member};
use crate::store::table::Written;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use std::time::Duration;

/// The longest life of an invitation.
const LONGEST: Duration = Duration::from_hours(90 * 24);
/// The most people that one invitation can bring in.
const MOST: u64 = 1000;
/// The most open invitations of one entity: they are listed whole.
const MAX_OPEN: usize = 100;

/// A new invitation.
#[derive(Debug)]
pub struct NewInvitation {
    /// The role that it gives.
    pub role: Role,
    /// On what it gives it; `None`: on the whole entity.
    pub part: Option<SubPath>,
    /// How many people it may bring in.
    pub max: u64,
    /// How long it lasts.
    pub life: Duration,
}

/// Makes an invitation, and returns it with the text that accepts it, which is shown only this once.
pub async fn make(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    new: NewInvitation,
) -> Result<(Invitation, SecretString), Error> {
    let NewInvitation { role, part, max, life } = new;
    if max == 0 || max > MOST || life.is_zero() || life > LONGEST {
        let days = LONGEST.as_secs() / 86_400;
        return Err(Error::Invalid(format!("an invitation is for 1 to {MOST} people, and for at most {days} days")));
    }
    let mut access = Access::load(app, credential, Some(entity), [keys::entity(entity)]).await?;
    let resource = resource_of_part(entity, part.as_ref());
    let grant = access.require(Action::Appoint, &resource, "entity", "invite people there")?;
    let row: Entity = access.take(&keys::entity(entity))?.ok_or(Error::NotFound("entity"))?;
    let by = grant.by().and_then(Actor::user).ok_or(Error::Unauthenticated(NO_TOKEN))?.clone();
    let at = RoleAt { part: part.clone(), role: Some(role) };
    can_be_given(&row, None, &at)?;
    let open = app.table.query::<Invitation>(keys::invitations(entity), None, MAX_OPEN).await?;
    if open.rows.len() >= MAX_OPEN {
        let why = format!("{entity} has {MAX_OPEN} invitations already, the most there can be: revoke some");
        return Err(Error::Conflict(why));
    }
    let birth = app.birth(&grant)?;
    let (id, created, version) = (birth.id, birth.at, birth.first_version.into());
    let secret = URL_SAFE_NO_PAD.encode(random::bytes::<32>()?);
    let text = SecretString::from(format!("{entity}.{id}.{secret}"));
    let invitation = Invitation {
        entity: entity.clone(),
        id,
        secret: Digest::of(secret.as_bytes()),
        role,
        part,
        max,
        uses: 0,
        created_by: by,
        token: grant.token(),
        created,
        expires: access.until.map_or(created.plus(life), |until| until.min(created.plus(life))),
        version,
    };
    match app.commit(&grant, members::invitation_made(&invitation)?).await? {
        Written::Done => Ok((invitation, text)),
        Written::Lost(_) => Err(Error::NotFound("entity")),
    }
}

/// The invitations of an entity that are not revoked, for those who manage it.
pub async fn list(app: &App, credential: &Credential, entity: &EntityName) -> Result<Vec<Invitation>, Error> {
    let (access, resource) = Access::to_entity(app, credential, entity).await?;
    access.require(Action::Manage, &resource, "entity", "list its invitations")?;
    Ok(app.table.query(keys::invitations(entity), None, MAX_OPEN).await?.rows)
}

/// Revokes an invitation.
pub async fn revoke(app: &App, credential: &Credential, entity: &EntityName, id: Id) -> Result<(), Error> {
    let key = keys::invitation(entity, id);
    let mut access = Access::load(app, credential, Some(entity), [key.clone()]).await?;
    let invitation: Option<Invitation> = access.take(&key)?;
    let part = invitation.as_ref().and_then(|invitation| invitation.part.as_ref());
    let grant = access.require(Action::Manage, &resource_of_part(entity, part), "entity", "revoke its invitations")?;
    let invitation = invitation.ok_or(Error::NotFound("invitation"))?;
    match app.commit(&grant, members::invitation_revoked(&invitation)).await? {
        Written::Done => Ok(()),
        Written::Lost(_) => Err(Error::NotFound("invitation")),
    }
}

/// Accepts an invitation by its text, and returns the entity.
pub async fn accept(app: &App, credential: &Credential, text: &SecretString) -> Result<EntityName, Error> {
    // A name may contain dots: the id and the secret follow the last two.
    let mut parts = text.expose_secret().rsplitn(3, '.');
    let (Some(secret), Some(id), Some(entity)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Error::NotFound("invitation"));
    };
    let (Ok(entity), Ok(id)) = (entity.parse::<EntityName>(), id.parse::<Id>()) else {
        return Err(Error::NotFound("invitation"));
    };
    let shown = Digest::of(secret.as_bytes());
    let mut retry = Retry::of("uses of the same invitation");
    loop {
        retry.pause().await?;
        if let Some(entity) = try_to_accept(app, credential, &entity, id, &shown).await? {
            return Ok(entity);
        }
    }
}

/// Whether the maker of an invitation still may invite, and the row that lets them, if it is one.
async fn maker(app: &App, invitation: &Invitation) -> Result<(bool, Option<Member>), Error> {
    let (by, access) = (Actor::User(invitation.created_by.clone()), vec![TokenScope::full()]);
    let maker = Credential::Registry { actor: by, id: invitation.token, password: None, access };
    let rights = match Access::of_maker(app, &maker, Some(&invitation.entity), []).await {
        Ok(access) => access,
        Err(Error::Unauthenticated(_)) => return Ok((false, None)),
        Err(error) => return Err(error),
    };
    let resource = resource_of_part(&invitation.entity, invitation.part.as_ref());
    Ok((rights.probe(Action::Appoint, &resource).is_ok(), rights.member.map(|member| *member)))
}

async fn try_to_accept(
    app: &App,
    credential: &Credential,
    entity: &EntityName,
    id: Id,
    shown: &Digest,
) -> Result<Option<EntityName>, Error> {
    let key = keys::invitation(entity, id);
    let mut access = Access::load(app, credential, Some(entity), [key.clone()]).await?;
    let invitation: Option<Invitation> = access.take(&key)?;
    // Both sides are hashes, so the time of the comparison tells nothing about the secret.
    let shown = invitation.filter(|invitation| invitation.secret == *shown && invitation.expires > app.now());
    // Before the rights of its maker, who may be the caller: what is written is conditional on this reading of the row.
    let loaded = match (access.caller.known(), &shown) {
        (Some(actor), Some(_)) => Some(Loaded::load(app, entity, actor).await?),
        _ => None,
    };
    let (held, by) = match &shown {
        Some(invitation) => maker(app, invitation).await?,
        None => (false, None),
    };
    let has = |invitation: &Invitation| {
        let member = loaded.as_ref().and_then(|loaded| loaded.member.as_ref());
        let path = invitation.part.as_ref().map(SubPath::as_str);
        member.is_some_and(|member| member.roles.at(path) >= Some(invitation.role))
    };
    let already = held && shown.as_ref().is_some_and(has);
    let good = already || (held && shown.as_ref().is_some_and(|invitation| invitation.uses < invitation.max));
    let resource = Resource::Invitation { entity: entity.clone(), good };
    let grant = access.require(Action::Join, &resource, "invitation", "accept invitations")?;
    if already {
        return Ok(Some(entity.clone()));
    }
    let (Some(invitation), Some(loaded)) = (shown, loaded) else { return Err(Error::NotFound("invitation")) };
    let at = RoleAt { part: invitation.part.clone(), role: Some(invitation.role) };
    can_be_given(&loaded.entity, Some(&loaded.actor), &at)?;
    let changes = members::invitation_accepted(&invitation, by.as_ref(), &loaded.found(), &app.birth(&grant)?)?;
    let done = app.commit(&grant, changes).await? == Written::Done;
    Ok(done.then(|| entity.clone()))
}

/// Whether an invitation is over at this time.
pub fn is_over(invitation: &Invitation, now: Time) -> bool {
    invitation.expires <= now || invitation.uses >= invitation.max
}
