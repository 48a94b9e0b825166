//! The answers of the administration routes, field by field.

use serde::Serialize;
use shared::domain::quota;
use shared::service::search::State;
use shared::service::sweep::accounts;
use shared::service::{scrub, sweep};
use utoipa::ToSchema;

/// The results of a sweep, and a check of the accounts.
#[derive(Serialize, ToSchema)]
pub(crate) struct Swept {
    /// Cancelled uploads.
    sessions: u64,
    /// The ids of uploads that wait for verification.
    sealed: Vec<String>,
    /// Removed images whose bytes never came.
    images: u64,
    /// Blobs removed from repositories in which no manifest named them.
    links: u64,
    /// Containers and entities that were deleted, and of which something was left.
    removed: u64,
    /// Deleted objects.
    objects: u64,
    /// Objects that nothing named, which a later sweep will delete.
    condemned: u64,
    /// Aborted uploads in the store that nothing named.
    uploads: u64,
    /// Accounts whose numbers differ from the sum of their charges. If it is not empty, there is a bug.
    wrong_accounts: Vec<WrongAccount>,
    /// Things that could not be collected or read. The log says why, and the next sweep tries again.
    failed: u64,
    /// The first 1000 findings of a dry run, in words.
    found: Vec<String>,
}

/// An account whose numbers differ from the sum of its charges.
#[derive(Serialize, ToSchema)]
struct WrongAccount {
    entity: String,
    /// What the account's row says.
    account: Numbers,
    /// The same according to everything that counts.
    charges: Numbers,
}

/// The numbers of an account.
#[derive(Serialize, ToSchema)]
struct Numbers {
    /// Bytes of images and other blobs.
    used: i64,
    /// Bytes of uploads that are not completed.
    reserved: i64,
    /// Bytes that are kept without being charged.
    surplus: i64,
    /// Tags, manifests, images, uploads and other entries.
    rows: i64,
}

fn numbers(numbers: quota::Numbers) -> Numbers {
    let quota::Numbers { used, reserved, surplus, rows } = numbers;
    Numbers { used, reserved, surplus, rows }
}

/// What was found out about the accounts.
#[derive(Serialize, ToSchema)]
pub(crate) struct Compared {
    /// How many accounts there are.
    checked: u64,
    /// Those that are not the sum of what counts.
    wrong: Vec<Drift>,
    /// Entities that changed too fast to be told.
    undecided: Vec<String>,
    /// Rows that could not be read; the log says which. Nothing is corrected while there are any.
    failed: u64,
}

/// An account that is not the sum of what counts.
#[derive(Serialize, ToSchema)]
struct Drift {
    entity: String,
    /// What the account says.
    account: Numbers,
    /// What it should say.
    sum: Numbers,
    /// Whether it was corrected.
    repaired: bool,
}

/// What was found out about the accounts.
pub(crate) fn compared(compared: accounts::Compared) -> Compared {
    let accounts::Compared { checked, wrong, undecided, failed } = compared;
    let drift = |one: accounts::Drift| Drift {
        account: numbers(one.account),
        sum: numbers(one.sum),
        repaired: one.corrected,
        entity: one.entity,
    };
    Compared { checked, wrong: wrong.into_iter().map(drift).collect(), undecided, failed }
}

/// The results of a sweep.
pub(crate) fn swept(swept: sweep::Swept) -> Swept {
    let wrong = |sweep::WrongAccount { entity, account, charges }| WrongAccount {
        entity,
        account: numbers(account),
        charges: numbers(charges),
    };
    Swept {
        sessions: swept.sessions,
        sealed: swept.sealed.iter().map(ToString::to_string).collect(),
        images: swept.images,
        links: swept.links,
        removed: swept.removed,
        objects: swept.objects,
        condemned: swept.condemned,
        uploads: swept.uploads,
        wrong_accounts: swept.wrong_accounts.into_iter().map(wrong).collect(),
        failed: swept.failed,
        found: swept.found,
    }
}

/// What a call of a scrub found.
#[derive(Serialize, ToSchema)]
pub(crate) struct Scrubbed {
    /// How many objects were read to the end.
    objects: u64,
    /// How many bytes were read.
    bytes: u64,
    /// Those that are missing, or have another size.
    lost: Vec<Finding>,
    /// Those with wrong bytes.
    damaged: Vec<Finding>,
    /// Where to continue; null at the end.
    #[schema(value_type = Option<Object>)]
    next: Option<scrub::Cursor>,
}

/// An object whose bytes are not right.
#[derive(Serialize, ToSchema)]
struct Finding {
    /// The digest that they should have.
    digest: String,
    /// How many bytes there should be.
    size: u64,
    /// The name of the object.
    object: String,
    /// The name of the object that has the wrong bytes now. A later sweep deletes it.
    aside: Option<String>,
}

/// The result of a call of a scrub.
pub(crate) fn scrubbed(scrubbed: scrub::Scrubbed) -> Scrubbed {
    let scrub::Scrubbed { objects, bytes, lost, damaged, next } = scrubbed;
    let finding = |scrub::Finding { digest, size, object, aside }| Finding {
        digest: ToString::to_string(&digest),
        size,
        object,
        aside,
    };
    Scrubbed {
        objects,
        bytes,
        lost: lost.into_iter().map(finding).collect(),
        damaged: damaged.into_iter().map(finding).collect(),
        next,
    }
}

/// The state of the search index.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    /// Whether everything is in it but for the latest changes.
    whole: bool,
    /// For how many seconds the oldest change waits to come into it; 0 if none waits.
    behind_seconds: u64,
}

/// The state of the search index.
pub(crate) fn index(state: State) -> Index {
    Index { whole: state.whole, behind_seconds: state.behind.unwrap_or(0) }
}
