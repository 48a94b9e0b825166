//! Registering, and the invitations to it.

use crate::wire;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse};
use http::header;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json as value;
use shared::auth::Credential;
use shared::domain::{Email, EntityName, Id, Role, SubPath};
use shared::http::library::{Answer, data, json};
use shared::service::people::registration::{self, NewInvitation, Newcomer};
use shared::store::rows::GroupRole;
use shared::{App, Error};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(register_as_hinkskalle))
        .routes(routes!(register_page))
        .routes(routes!(list_registrations, invite_to_register))
        .routes(routes!(revoke_registration))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Register {
    name: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// An e-mail address, which only the user and administrators see.
    #[schema(value_type = Option<String>)]
    email: Option<Email>,
    /// The link of an invitation to register, or what follows its `#`.
    #[schema(value_type = Option<String>, format = Password)]
    invitation: Option<SecretString>,
}

/// What follows the `#` of a link.
fn of_link(link: &SecretString) -> SecretString {
    let text = link.expose_secret();
    SecretString::from(text.rsplit_once('#').map_or(text, |(_, text)| text).to_owned())
}

/// Makes an account, with an entity of the same name and a token, where the operator lets people register.
#[utoipa::path(
    post,
    path = "/api/register",
    tag = "accounts",
    security(()),
    request_body = Register,
    responses(
        (status = 200, body = wire::Registered),
        (status = 403, description = "Registration is closed, or needs an invitation"),
        (status = 404, description = "The invitation does not hold, or not any more"),
        (status = 409, description = "The name is taken"),
        (status = 429, description = "Too many registrations from this address"),
    ),
)]
async fn register(State(app): State<App>, body: Bytes) -> Answer {
    let Register { name, password, email, invitation } = json(&body)?;
    let invitation = invitation.as_ref().map(of_link);
    let new = Newcomer { name, password, email, invitation, token: true };
    let made = registration::register(&app, new).await?;
    let answer = wire::Registered {
        name: made.user.name.to_string(),
        token: made.token.as_ref().map(|token| token.expose_secret().to_owned()),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], data(answer)).into_response())
}

/// A registration, as the clients of Hinkskalle ask for it.
#[derive(Deserialize, ToSchema)]
struct HinkskalleUser {
    username: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    #[serde(default)]
    email: String,
}

/// Makes an account, as the clients of Hinkskalle ask for it. First and last names are not kept.
#[utoipa::path(
    post,
    path = "/v1/register",
    tag = "accounts",
    security(()),
    request_body = HinkskalleUser,
    responses(
        (status = 200, body = wire::HinkskalleUser),
        (status = 403),
        (status = 409),
        (status = 429, description = "Too many registrations from this address"),
    ),
)]
async fn register_as_hinkskalle(State(app): State<App>, body: Bytes) -> Answer {
    let HinkskalleUser { username: name, password, email } = json(&body)?;
    let email = if email.is_empty() { None } else { Some(Email::try_from(email)?) };
    let new = Newcomer { name, password, email, invitation: None, token: false };
    Ok(data(wire::hinkskalle_user(&registration::register(&app, new).await?.user)))
}

/// The page behind the link of an invitation: it tells how to register.
#[utoipa::path(
    get,
    path = "/register",
    tag = "accounts",
    security(()),
    responses((status = 200, body = String, content_type = "text/html")),
)]
async fn register_page() -> impl IntoResponse {
    let page = Html(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Registration</title>\
         <h1>Make an account</h1>\
         <p>If somebody sent you the address of this page, copy the whole of it, and register with \
         <code>stackroom register NAME --invitation ADDRESS</code>.</p></html>",
    );
    ([(header::CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; frame-ancestors 'none'")], page)
}

/// The invitations to register, without their secrets.
#[utoipa::path(
    get,
    path = "/api/invitations",
    tag = "administration",
    security(("bearer" = [])),
    responses((status = 200, body = [wire::RegistrationInvitation]), (status = 403)),
)]
async fn list_registrations(State(app): State<App>, caller: Credential) -> Answer {
    let rows = registration::list(&app, &caller).await?;
    Ok(data(rows.iter().map(|row| wire::registration_invitation(row, app.now())).collect::<Vec<_>>()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InviteToRegister {
    /// A group in which whoever registers gets a role.
    #[schema(value_type = Option<String>)]
    group: Option<EntityName>,
    /// That role: `reader` or `contributor`.
    #[schema(value_type = Option<String>)]
    role: Option<Role>,
    /// A collection or repository, as its path below the group; without it, the role is on the whole group.
    #[schema(value_type = Option<String>)]
    on: Option<SubPath>,
    /// How many people it may bring in; by default one.
    uses: Option<u64>,
    /// The lifetime in seconds; by default a week.
    expires_in: Option<u64>,
}

/// The life of an invitation for which nobody says another one.
const WEEK: u64 = 7 * 24 * 3600;

/// Makes a link with which people can register. It is shown only this once.
#[utoipa::path(
    post,
    path = "/api/invitations",
    tag = "administration",
    request_body = InviteToRegister,
    responses((status = 200, body = wire::NewInvitation), (status = 403), (status = 404)),
)]
async fn invite_to_register(State(app): State<App>, caller: Credential, body: Bytes) -> Answer {
    let InviteToRegister { group, role, on, uses, expires_in } = json(&body)?;
    let group = match (group, role, on) {
        (Some(entity), Some(role), part) => Some(GroupRole { entity, role, part }),
        (None, None, None) => None,
        _ => return Err(Error::Invalid("a group and a role belong together".to_owned()).into()),
    };
    let life = Duration::from_secs(expires_in.unwrap_or(WEEK));
    let new = NewInvitation { group, max: uses.unwrap_or(1), life };
    let (row, text) = registration::invite(&app, &caller, new).await?;
    // What follows the `#` is in no log and no Referer.
    let link = format!("{}/register#{}", app.config.public_url, text.expose_secret());
    Ok(data(wire::NewInvitation { id: row.id.to_string(), link }))
}

/// Revokes an invitation to register.
#[utoipa::path(
    delete,
    path = "/api/invitations/{id}",
    tag = "administration",
    params(("id" = String, Path, description = "The id of an invitation")),
    responses((status = 200), (status = 403), (status = 404)),
)]
async fn revoke_registration(State(app): State<App>, caller: Credential, Path(id): Path<String>) -> Answer {
    registration::revoke(&app, &caller, id.parse::<Id>()?).await?;
    Ok(data(value!({})))
}
