//! What the routes of administration answer, field by field.

use serde::Serialize;
use shared::domain::quota;
use shared::service::people::users::UserView;
use shared::service::sweep;
use shared::store::rows;
use utoipa::ToSchema;

/// What an entity has and may have.
#[derive(Serialize, ToSchema)]
pub(crate) struct Quota {
    /// Bytes of images.
    used: u64,
    /// Bytes announced for uploads that have not come to their end.
    reserved: u64,
    /// The most bytes that may be used and reserved together, 0 for unlimited.
    limit: u64,
}

/// What an entity has and may have.
pub(crate) fn quota(quota: quota::Quota) -> Quota {
    Quota { used: quota.used(), reserved: quota.reserved, limit: quota.limit }
}

/// A user, with the numbers of their entity.
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

/// A user, with the numbers of their entity.
pub(crate) fn user(view: &UserView) -> User {
    let user = &view.user;
    User {
        name: user.name.to_string(),
        admin: user.admin,
        disabled: user.disabled,
        created: user.created.to_string(),
        quota: quota(view.quota),
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
}

/// A token without its secret.
pub(crate) fn token(token: &rows::Token) -> Token {
    Token {
        id: token.id.to_string(),
        name: token.name.clone(),
        scope: token.scope.to_string(),
        created: token.created.to_string(),
        expires: token.expires.map(|time| time.to_string()),
    }
}

/// A new token.
#[derive(Serialize, ToSchema)]
pub(crate) struct Secret<'a> {
    pub(crate) token: &'a str,
}

/// What a sweep did, and how the accounts stand.
#[derive(Serialize, ToSchema)]
pub(crate) struct Swept {
    /// Uploads given up.
    sessions: u64,
    /// The ids of uploads that wait to be verified.
    sealed: Vec<String>,
    /// Images without bytes removed.
    images: u64,
    /// Blobs taken out of repositories where no manifest named them.
    links: u64,
    /// Objects deleted.
    objects: u64,
    /// Objects that nothing named, to be deleted by a later sweep.
    condemned: u64,
    /// Uploads aborted in the store that nothing named.
    uploads: u64,
    /// Accounts whose numbers are not the sum of their charges. Always empty, or we have made a mistake.
    wrong_accounts: Vec<WrongAccount>,
    /// What could not be collected, or not be read. The log says why, and the next sweep tries again.
    failed: u64,
    /// What a dry run found, in words; the first 1000 of it.
    found: Vec<String>,
}

/// An account whose numbers are not the sum of its charges.
#[derive(Serialize, ToSchema)]
struct WrongAccount {
    entity: String,
    /// Used and reserved bytes by the account's row.
    account: (u64, u64),
    /// Used and reserved bytes by the charges.
    charges: (u64, u64),
}

/// What a sweep did.
pub(crate) fn swept(swept: sweep::Swept) -> Swept {
    let sweep::Swept { sessions, sealed, images, links, objects, condemned, uploads, wrong_accounts, failed, found } =
        swept;
    let wrong = |sweep::WrongAccount { entity, account, charges }| WrongAccount { entity, account, charges };
    Swept {
        sessions,
        sealed: sealed.iter().map(ToString::to_string).collect(),
        images,
        links,
        objects,
        condemned,
        uploads,
        wrong_accounts: wrong_accounts.into_iter().map(wrong).collect(),
        failed,
        found,
    }
}
