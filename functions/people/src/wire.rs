//! The answers of the routes for people, field by field.

use serde::Serialize;
use shared::App;
use shared::domain::{Role, Time, quota};
use shared::service::people::invitations::is_over;
use shared::service::people::registration;
use shared::service::people::robots::RobotView;
use shared::service::people::users::UserView;
use shared::store::rows;
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;

/// The usage and the limit of an entity.
#[derive(Serialize, ToSchema)]
pub(crate) struct Quota {
    /// Bytes of images.
    used: u64,
    /// Bytes announced by uploads that are not completed yet.
    reserved: u64,
    /// The limit of used and reserved bytes together, 0 for unlimited.
    limit: u64,
    /// How far it is filled: `free`; `warning` from the percentage on at which the operator lets pushes be warned; `full`.
    #[schema(value_type = String)]
    level: quota::Level,
}

/// The usage and the limit of an entity.
pub(crate) fn quota(app: &App, quota: quota::Quota) -> Quota {
    let level = quota.level(app.config.policy.quota_warning);
    Quota { used: quota.used(), reserved: quota.reserved, limit: quota.limit, level }
}

/// A user, with the usage of their entity.
#[derive(Serialize, ToSchema)]
pub(crate) struct User {
    name: String,
    admin: bool,
    disabled: bool,
    #[schema(format = DateTime)]
    created: String,
    #[serde(flatten)]
    quota: Quota,
}

/// A user, with the usage of their entity.
pub(crate) fn user(app: &App, view: &UserView) -> User {
    let user = &view.user;
    User {
        name: user.name.to_string(),
        admin: user.admin,
        disabled: user.disabled,
        created: user.created.to_string(),
        quota: quota(app, view.quota),
    }
}

/// A person, as they and administrators see them.
#[derive(Serialize, ToSchema)]
pub(crate) struct Person {
    email: Option<String>,
    #[serde(flatten)]
    user: User,
}

/// A person, as they and administrators see them.
pub(crate) fn person(app: &App, view: &UserView) -> Person {
    Person { email: view.user.email.as_ref().map(ToString::to_string), user: user(app, view) }
}

/// Somebody who has registered.
#[derive(Serialize, ToSchema)]
pub(crate) struct Registered {
    pub(crate) name: String,
    /// A token with all of their rights.
    #[schema(format = Password)]
    pub(crate) token: Option<String>,
}

/// A user, as the clients of Hinkskalle read them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HinkskalleUser {
    username: String,
    firstname: String,
    lastname: &'static str,
    email: String,
    is_admin: bool,
    is_active: bool,
    source: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
}

/// Somebody who has registered, as the clients of Hinkskalle read them.
pub(crate) fn hinkskalle_user(user: &rows::User) -> HinkskalleUser {
    HinkskalleUser {
        username: user.name.to_string(),
        firstname: user.name.to_string(),
        lastname: "",
        email: user.email.as_ref().map(ToString::to_string).unwrap_or_default(),
        is_admin: user.admin,
        is_active: !user.disabled,
        source: "local",
        created_at: user.created.zoned(),
    }
}

/// An invitation to register, without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegistrationInvitation {
    id: String,
    /// The group in which it gives a role.
    group: Option<String>,
    #[schema(value_type = Option<String>)]
    role: Option<Role>,
    on: Option<String>,
    /// How many people it has brought in.
    used: u64,
    /// How many it may bring in.
    uses: u64,
    created_by: String,
    #[schema(format = DateTime)]
    created: String,
    #[schema(format = DateTime)]
    expires: String,
    /// Whether it brings in nobody any more.
    over: bool,
}

/// An invitation to register, without its secret.
pub(crate) fn registration_invitation(row: &rows::RegistrationInvitation, now: Time) -> RegistrationInvitation {
    let group = row.group.as_ref();
    RegistrationInvitation {
        id: row.id.to_string(),
        group: group.map(|group| group.entity.to_string()),
        role: group.map(|group| group.role),
        on: group.and_then(|group| group.part.as_ref()).map(ToString::to_string),
        used: row.uses,
        uses: row.max,
        created_by: row.created_by.to_string(),
        created: row.created.to_string(),
        expires: row.expires.to_string(),
        over: registration::is_over(row, now),
    }
}

/// A token without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct Token {
    id: String,
    name: String,
    /// `RIGHT[,RIGHT…][@ENTITY | @REPOSITORY]`.
    scope: String,
    #[schema(format = DateTime)]
    created: String,
    #[schema(format = DateTime)]
    expires: Option<String>,
    /// When it was last used, within a day.
    #[schema(format = DateTime)]
    used: Option<String>,
}

/// A token without its secret, where tokens live no longer than `longest`.
pub(crate) fn token(token: &rows::Token, longest: Option<Duration>) -> Token {
    Token {
        id: token.id.to_string(),
        name: token.name.clone(),
        scope: token.scope.to_string(),
        created: token.created.to_string(),
        expires: token.end(longest).map(|time| time.to_string()),
        used: token.used.map(|time| time.to_string()),
    }
}

/// A new token.
#[derive(Serialize, ToSchema)]
pub(crate) struct Secret<'a> {
    pub(crate) token: &'a str,
}

/// A group.
#[derive(Serialize, ToSchema)]
pub(crate) struct Group {
    id: String,
    name: String,
    description: String,
    /// Whether new containers in it are private.
    private: bool,
}

/// A group.
pub(crate) fn group(entity: &rows::Entity) -> Group {
    Group {
        id: entity.id.to_string(),
        name: entity.name.to_string(),
        description: entity.description.to_string(),
        private: entity.default_private,
    }
}

/// A member of an entity.
#[derive(Serialize, ToSchema)]
pub(crate) struct Member {
    name: String,
    /// The role on the whole entity.
    #[schema(value_type = Option<String>)]
    role: Option<Role>,
    /// The roles on collections and repositories, by their paths below the entity.
    #[schema(value_type = BTreeMap<String, String>)]
    on: BTreeMap<String, Role>,
}

/// A member of an entity.
pub(crate) fn member(row: &rows::Member) -> Member {
    let on = row.roles.parts.iter().map(|(part, role)| (part.to_string(), *role)).collect();
    Member { name: row.actor.to_string(), role: row.roles.entity, on }
}

/// A robot of an entity.
#[derive(Serialize, ToSchema)]
pub(crate) struct Robot {
    description: String,
    #[schema(format = DateTime)]
    created: String,
    created_by: Option<String>,
    #[serde(flatten)]
    roles: Member,
}

/// A robot of an entity.
pub(crate) fn robot(view: &RobotView) -> Robot {
    Robot {
        description: view.robot.description.to_string(),
        created: view.robot.created.to_string(),
        created_by: view.robot.created_by.as_ref().map(ToString::to_string),
        roles: member(&view.member),
    }
}

/// The name of what was made, or where the caller is a member now.
#[derive(Serialize, ToSchema)]
pub(crate) struct Made {
    pub(crate) name: String,
}

/// An invitation without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct Invitation {
    id: String,
    #[schema(value_type = String)]
    role: Role,
    on: Option<String>,
    /// How many people it has brought in.
    used: u64,
    /// How many it may bring in.
    uses: u64,
    created_by: String,
    #[schema(format = DateTime)]
    created: String,
    #[schema(format = DateTime)]
    expires: String,
    /// Whether it brings in nobody any more.
    over: bool,
}

/// An invitation without its secret.
pub(crate) fn invitation(row: &rows::Invitation, now: Time) -> Invitation {
    Invitation {
        id: row.id.to_string(),
        role: row.role,
        on: row.part.as_ref().map(ToString::to_string),
        used: row.uses,
        uses: row.max,
        created_by: row.created_by.to_string(),
        created: row.created.to_string(),
        expires: row.expires.to_string(),
        over: is_over(row, now),
    }
}

/// A new invitation.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewInvitation {
    pub(crate) id: String,
    /// Whoever opens it finds out how to accept the invitation.
    pub(crate) link: String,
}

/// A change.
#[derive(Serialize, ToSchema)]
pub(crate) struct Event {
    #[schema(format = DateTime)]
    time: String,
    /// Who did it: a user, a robot as `ENTITY+ROBOT`, or `+system`.
    actor: String,
    /// The id of the token that was used, if one was.
    token: Option<String>,
    /// The address from which they asked, if it is known.
    from: Option<String>,
    /// The action that they were permitted to do.
    action: String,
    /// Where: the path of an entity, collection or repository, or `user NAME`.
    place: String,
    /// What was changed.
    #[schema(value_type = Vec<Object>)]
    what: Vec<rows::EventKind>,
}

/// A change.
pub(crate) fn event(row: &rows::Event) -> Event {
    Event {
        time: Time(i64::try_from(row.millis / 1000).unwrap_or(i64::MAX)).to_string(),
        actor: row.actor.to_string(),
        token: row.token.map(|id| id.to_string()),
        from: row.from.map(|address| address.to_string()),
        action: row.action.clone(),
        place: row.place.clone(),
        what: row.what.clone(),
    }
}
