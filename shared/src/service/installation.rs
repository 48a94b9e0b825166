//! That a table and a bucket belong together. A sweep deletes the objects that no row of its table names: beside the
//! table of another installation, these would be all.
//!
//! 1. Read the mark of the table, a row, and that of the bucket, an object. If both say the same, that is all.
//! 2. If neither has one, there are no users and no objects: write the row with a new mark. *Lost*: another server did;
//!    start again.
//! 3. If the bucket has none, and is empty: write the object. *Dies before*: the next start does it. *Twice*: it is the
//!    same.
//!
//! Whatever else is found is refused. The embedded stores are made together, and have no mark.

use crate::app::App;
use crate::changes::Changes;
use crate::error::Error;
use crate::random;
use crate::rules::{Action, Resource};
use crate::service::access::system;
use crate::service::people::users;
use crate::service::retry::Retry;
use crate::store::keys::{self, INSTALLATION};
use crate::store::rows::{Copied, Installation};
use crate::store::table::Written;

/// Marks a new table and a new bucket, and checks those that have a mark.
///
/// # Errors
/// [`Error::Conflict`] if they don't belong together.
pub async fn mark(app: &App) -> Result<(), Error> {
    let grant = system(Action::Manage, &Resource::Installation)?;
    let mut retry = Retry::of("starts of the same installation");
    loop {
        retry.pause().await?;
        // In this order: another server writes the row first.
        let text = app.objects.text(INSTALLATION).await?;
        match (of_table(app).await?, text) {
            (Some(row), Some(text)) => return same(&row, &text),
            (None, Some(_)) => {
                return Err(Error::Conflict(
                    "the bucket belongs to another table: this one does not name it".to_owned(),
                ));
            }
            (Some(row), None) => {
                if !app.objects.is_empty().await? {
                    let why = "the bucket has objects, and is not the one that belongs to the table";
                    return Err(Error::Conflict(why.to_owned()));
                }
                app.objects.put(&grant, INSTALLATION, row.id.into()).await?;
                return Ok(());
            }
            (None, None) => {
                // Whoever tries passwords leaves rows in a new table, too.
                let new = users::none(app).await? && app.objects.is_empty().await?;
                // Another server may have written it meanwhile.
                if !new && of_table(app).await?.is_none() {
                    let why = "the table and the bucket are not new, and nothing says that they belong together";
                    return Err(Error::Conflict(why.to_owned()));
                }
                if !new {
                    continue;
                }
                let row = Installation { id: crate::domain::digest::hex(&random::bytes::<16>()?) };
                // Whoever was faster, the next look shows whose mark it is.
                let _: Written = app.commit(&grant, Changes::installation_marked(&row)?).await?;
            }
        }
    }
}

/// Checks, before anything is collected, that a marked table and the bucket belong together, and that they hold no copy
/// that is still being made.
///
/// # Errors
/// [`Error::Conflict`] if not.
pub async fn check(app: &App) -> Result<(), Error> {
    if app.table.get::<Copied>(keys::copied()).await?.is_some_and(|copy| !copy.whole) {
        return Err(Error::Conflict("the library is being copied to where it is".to_owned()));
    }
    let Some(row) = of_table(app).await? else { return Ok(()) };
    let text = app.objects.text(INSTALLATION).await?;
    same(&row, &text.unwrap_or_default())
}

async fn of_table(app: &App) -> Result<Option<Installation>, Error> {
    Ok(app.table.get(keys::installation()).await?)
}

fn same(row: &Installation, text: &str) -> Result<(), Error> {
    if row.id == text {
        return Ok(());
    }
    Err(Error::Conflict("the bucket belongs to another table".to_owned()))
}
