//! Groups and their members, robots and invitations. A user's own entity can have members too.

use crate::wire;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse};
use http::header;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json as value;
use shared::App;
use shared::auth::Credential;
use shared::domain::{Actor, Description, EntityName, Id, Role, RoleAt, SubPath};
use shared::http::library::{Answer, data, json, list};
use shared::service::people::invitations::{self, NewInvitation};
use shared::service::people::robots::{self, NewRobot};
use shared::service::people::{groups, members};
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(make_group))
        .routes(routes!(list_members))
        .routes(routes!(set_role, remove_member))
        .routes(routes!(includes, set_includes))
        .routes(routes!(list_robots, make_robot))
        .routes(routes!(remove_robot))
        .routes(routes!(list_invitations, invite))
        .routes(routes!(revoke_invitation))
        .routes(routes!(join))
        .routes(routes!(join_page))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewGroup {
    #[schema(value_type = String)]
    name: EntityName,
    #[serde(default)]
    #[schema(value_type = String)]
    description: Description,
    /// Whether new containers in it are private.
    #[serde(default)]
    private: bool,
}

/// Makes a group, whose first admin the caller is.
#[utoipa::path(
    post,
    path = "/api/groups",
    tag = "groups",
    request_body = NewGroup,
    responses((status = 200, body = wire::Group), (status = 403), (status = 409)),
)]
async fn make_group(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let NewGroup { name, description, private } = json(&body)?;
    let group = groups::make(&app, &caller, &name, &description, private).await?;
    Ok(data(wire::group(&group)))
}

#[derive(Deserialize)]
struct Listing {
    after: Option<String>,
}

/// The members of an entity.
#[utoipa::path(
    get,
    path = "/api/entities/{name}/members",
    tag = "groups",
    security(("bearer" = [])),
    params(
        ("name" = String, Path, description = "The name of an entity"),
        ("after" = Option<String>, Query, description = "The `page.next` of the previous page"),
    ),
    responses((status = 200, body = [wire::Member], extensions(("x-page" = json!(true)))), (status = 404)),
)]
async fn list_members(
    State(app): State<App>,
    caller: Credential,
    Path(name): Path<String>,
    Query(Listing { after }): Query<Listing>,
) -> Answer {
    let page = members::list(&app, &caller, &name.parse()?, after).await?;
    Ok(list(page.rows.iter().map(wire::member).collect::<Vec<_>>(), page.next.as_deref()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRole {
    /// `reader`, `contributor` or `admin`; null takes the role away.
    #[schema(value_type = Option<String>)]
    role: Option<Role>,
    /// A collection or repository, as its path below the entity; without it, the role is on the whole entity.
    #[schema(value_type = Option<String>)]
    on: Option<SubPath>,
}

/// Gives a user or robot a role on an entity, or on one collection or repository of it.
#[utoipa::path(
    put,
    path = "/api/entities/{name}/members/{member}",
    tag = "groups",
    params(
        ("name" = String, Path, description = "The name of an entity"),
        ("member" = String, Path, description = "The name of a user, or `ENTITY+ROBOT`"),
    ),
    request_body = NewRole,
    responses((status = 200), (status = 403), (status = 404), (status = 409, description = "The last admin stays")),
)]
async fn set_role(
    State(app): State<App>,
    caller: Credential,
    Path((name, member)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let NewRole { role, on } = json(&body)?;
    let at = RoleAt { part: on, role };
    members::set(&app, &caller, &name.parse()?, &member.parse::<Actor>()?, &at).await?;
    Ok(data(value!({})))
}

/// Removes a member with all of their roles: the caller themselves, or as an admin anybody.
#[utoipa::path(
    delete,
    path = "/api/entities/{name}/members/{member}",
    tag = "groups",
    params(
        ("name" = String, Path, description = "The name of an entity"),
        ("member" = String, Path, description = "The name of a user"),
    ),
    responses((status = 200), (status = 403), (status = 404), (status = 409, description = "The last admin stays")),
)]
async fn remove_member(
    State(app): State<App>,
    caller: Credential,
    Path((name, member)): Path<(String, String)>,
) -> Answer {
    members::remove(&app, &caller, &name.parse()?, &member.parse::<Actor>()?).await?;
    Ok(data(value!({})))
}

/// The groups of directories whose people have a role in an entity.
#[utoipa::path(
    get,
    path = "/api/entities/{name}/includes",
    tag = "groups",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "The name of an entity")),
    responses((status = 200, body = BTreeMap<String, String>), (status = 404)),
)]
async fn includes(State(app): State<App>, caller: Credential, Path(name): Path<String>) -> Answer {
    Ok(data(members::includes(&app, &caller, &name.parse()?).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewIncludes {
    /// `reader` or `contributor`, by `DIRECTORY:GROUP`. They replace those before.
    #[schema(value_type = BTreeMap<String, String>)]
    groups: BTreeMap<String, Role>,
}

/// Gives the groups of directories roles in an entity.
#[utoipa::path(
    put,
    path = "/api/entities/{name}/includes",
    tag = "groups",
    params(("name" = String, Path, description = "The name of an entity")),
    request_body = NewIncludes,
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn set_includes(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let NewIncludes { groups } = json(&body)?;
    members::set_includes(&app, &caller, &name.parse()?, &groups).await?;
    Ok(data(value!({})))
}

/// The robots of an entity.
#[utoipa::path(
    get,
    path = "/api/entities/{name}/robots",
    tag = "groups",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "The name of an entity")),
    responses((status = 200, body = [wire::Robot]), (status = 403)),
)]
async fn list_robots(State(app): State<App>, caller: Credential, Path(name): Path<String>) -> Answer {
    let robots = robots::list(&app, &caller, &name.parse()?).await?;
    Ok(data(robots.iter().map(wire::robot).collect::<Vec<_>>()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Robot {
    /// Its name in the entity.
    name: String,
    #[serde(default)]
    #[schema(value_type = String)]
    description: Description,
    /// `reader` or `contributor`.
    #[schema(value_type = String)]
    role: Role,
    /// A collection or repository, as its path below the entity; without it, the role is on the whole entity.
    #[schema(value_type = Option<String>)]
    on: Option<SubPath>,
}

/// Makes a robot: an account for jobs, without a password, which has a role in this entity and nowhere else.
#[utoipa::path(
    post,
    path = "/api/entities/{name}/robots",
    tag = "groups",
    params(("name" = String, Path, description = "The name of an entity")),
    request_body = Robot,
    responses((status = 200, body = wire::Made), (status = 403), (status = 409)),
)]
async fn make_robot(State(app): State<App>, caller: Credential, Path(entity): Path<String>, body: Bytes) -> Answer {
    let Robot { name, description, role, on } = json(&body)?;
    let at = RoleAt { part: on, role: Some(role) };
    let new = NewRobot { name: name.parse()?, description, at };
    let actor = robots::make(&app, &caller, &entity.parse()?, new).await?;
    Ok(data(wire::Made { name: actor.to_string() }))
}

/// Removes a robot with its tokens.
#[utoipa::path(
    delete,
    path = "/api/entities/{name}/robots/{robot}",
    tag = "groups",
    params(
        ("name" = String, Path, description = "The name of an entity"),
        ("robot" = String, Path, description = "The robot's name there"),
    ),
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn remove_robot(
    State(app): State<App>,
    caller: Credential,
    Path((name, robot)): Path<(String, String)>,
) -> Answer {
    robots::remove(&app, &caller, &name.parse()?, robot.parse()?).await?;
    Ok(data(value!({})))
}

/// The invitations of an entity, without their secrets.
#[utoipa::path(
    get,
    path = "/api/entities/{name}/invitations",
    tag = "groups",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "The name of an entity")),
    responses((status = 200, body = [wire::Invitation]), (status = 403)),
)]
async fn list_invitations(State(app): State<App>, caller: Credential, Path(name): Path<String>) -> Answer {
    let invitations = invitations::list(&app, &caller, &name.parse()?).await?;
    Ok(data(invitations.iter().map(|invitation| wire::invitation(invitation, app.now())).collect::<Vec<_>>()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Invite {
    /// `reader`, `contributor` or `admin`.
    #[schema(value_type = String)]
    role: Role,
    /// A collection or repository, as its path below the entity; without it, the role is on the whole entity.
    #[schema(value_type = Option<String>)]
    on: Option<SubPath>,
    /// How many people it may bring in; by default one.
    uses: Option<u64>,
    /// The lifetime in seconds; by default a week.
    expires_in: Option<u64>,
}

/// The life of an invitation for which nobody says another one.
const WEEK: u64 = 7 * 24 * 3600;

/// Makes a link that brings people into an entity. It is shown only this once.
#[utoipa::path(
    post,
    path = "/api/entities/{name}/invitations",
    tag = "groups",
    params(("name" = String, Path, description = "The name of an entity")),
    request_body = Invite,
    responses((status = 200, body = wire::NewInvitation), (status = 403)),
)]
async fn invite(State(app): State<App>, caller: Credential, Path(name): Path<String>, body: Bytes) -> Answer {
    let Invite { role, on, uses, expires_in } = json(&body)?;
    let life = Duration::from_secs(expires_in.unwrap_or(WEEK));
    let new = NewInvitation { role, part: on, max: uses.unwrap_or(1), life };
    let (invitation, text) = invitations::make(&app, &caller, &name.parse()?, new).await?;
    // What follows the `#` is in no log and no Referer.
    let link = format!("{}/join#{}", app.config.public_url, text.expose_secret());
    Ok(data(wire::NewInvitation { id: invitation.id.to_string(), link }))
}

/// Revokes an invitation.
#[utoipa::path(
    delete,
    path = "/api/entities/{name}/invitations/{id}",
    tag = "groups",
    params(
        ("name" = String, Path, description = "The name of an entity"),
        ("id" = String, Path, description = "The id of an invitation"),
    ),
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn revoke_invitation(
    State(app): State<App>,
    caller: Credential,
    Path((name, id)): Path<(String, String)>,
) -> Answer {
    invitations::revoke(&app, &caller, &name.parse()?, id.parse::<Id>()?).await?;
    Ok(data(value!({})))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Join {
    /// The link of the invitation, or what follows its `#`.
    #[schema(value_type = String, format = Password)]
    invitation: SecretString,
}

/// Accepts an invitation.
#[utoipa::path(
    post,
    path = "/api/join",
    tag = "groups",
    request_body = Join,
    responses((status = 200, body = wire::Made), (status = 404, description = "It does not hold, or not any more")),
)]
async fn join(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let Join { invitation } = json(&body)?;
    let text = invitation.expose_secret();
    let text = SecretString::from(text.rsplit_once('#').map_or(text, |(_, text)| text).to_owned());
    let entity = invitations::accept(&app, &caller, &text).await?;
    Ok(data(wire::Made { name: entity.to_string() }))
}

/// The page behind the link of an invitation: it tells how to accept it.
#[utoipa::path(
    get,
    path = "/join",
    tag = "groups",
    security(()),
    responses((status = 200, body = String, content_type = "text/html")),
)]
async fn join_page() -> impl IntoResponse {
    let page = Html(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Invitation</title>\
         <h1>You are invited</h1>\
         <p>Copy the whole address of this page, and accept the invitation with \
         <code>stackroom group join ADDRESS</code>.</p></html>",
    );
    ([(header::CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; frame-ancestors 'none'")], page)
}
