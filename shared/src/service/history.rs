//! The history of a tag: where it led, when, and who set it.

use super::access::{Access, resource_at};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::{Repository, TagName, Time};
use crate::error::Error;
use crate::rules::Action;
use crate::store::keys;
use crate::store::rows::{Container, TagThen};
use crate::store::table::Page;

/// The most rows of a page.
pub const PAGE: usize = 100;
/// The most rows of a tag that are kept. The sweeper forgets older ones.
pub const KEPT: usize = 500;

/// A page of the history of a tag, the latest first: before the row that `before` names.
///
/// With `at`, only the row of that time: where the tag led then. None, if there was no such tag yet.
pub async fn of_tag(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    tag: &TagName,
    asked: Asked,
) -> Result<Page<TagThen>, Error> {
    let key = keys::container(repository);
    let mut access = Access::load(app, credential, Some(repository.entity()), [key.clone()]).await?;
    let container: Option<Container> = access.take(&key)?;
    access.require(Action::See, &resource_at(repository, container.as_ref()), "container", "see this container")?;
    // Another repository of this name may have been deleted, and its history not yet.
    let since = container.map_or(0, |row| millis(row.created));
    let (before, most) = match asked.at {
        // Up to the end of that second.
        Some(at) => (Some(keys::event_time(millis(at).saturating_add(1000))), 1),
        None => (asked.before, PAGE),
    };
    let mut page: Page<TagThen> = app.table.query_last(keys::tag_history(repository, tag), before, most).await?;
    let all = page.rows.len();
    page.rows.retain(|row| row.millis >= since);
    page.next = page.next.filter(|_| asked.at.is_none() && page.rows.len() == all);
    Ok(page)
}

/// Which part of a history is wanted.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The next of the previous page.
    pub before: Option<String>,
    /// Only where it led at this time.
    pub at: Option<Time>,
}

fn millis(time: Time) -> u64 {
    u64::try_from(time.0).unwrap_or(0).saturating_mul(1000)
}
