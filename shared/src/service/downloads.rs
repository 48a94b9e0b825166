//! Counting downloads, without a write for any of them.
//!
//! 1. A request that lets somebody download an image, and is answered so, has that in its log line; a process that writes
//!    the numbers down itself also keeps it in memory. *Dies before 2*: what was noted since the last time is not counted.
//! 2. Once in a while, all that was noted since the last time becomes a batch with a name of its own. What of it is not
//!    written is kept, and tried again for a day.
//! 3. For each repository in the batch: read its row, the numbers that change, and whether this part of the batch was
//!    counted. *It was, or the repository is gone*: done.
//! 4. In one transaction: the new numbers, each on condition of its version, and the mark that this part was counted.
//!    *Lost*: from 3 on. *Dies, or nobody knows whether it was written*: the batch is brought again, and 3 finds out.
//!
//! The mark is forgotten two days later, when nobody brings the batch any more.

use super::access::{Access, resource_at, system};
use super::retry::Retry;
use crate::app::downloads::Unwritten;
use crate::app::{App, Batch, Downloaded as Noted};
use crate::auth::Credential;
use crate::changes::downloads::{self, Counting};
use crate::domain::{Day, Digest, Downloads, Repository, Time};
use crate::error::Error;
use crate::random;
use crate::rules::{Action, Grant, Resource};
use crate::store::keys;
use crate::store::rows::{BatchCounted, Container, Counted, Downloaded};
use crate::store::table::{Page, Written};
use futures::stream::{self, StreamExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How many days are shown, and kept.
pub const DAYS: u16 = 400;
/// How many rows have the days that are shown.
const ROWS_OF_DAYS: usize = 14;
/// How many batches wait to be written.
const WAITING: usize = 10;
/// How many numbers are written in one transaction.
const AT_A_TIME: usize = 90;
/// How many repositories are counted at the same time.
const AT_ONCE: usize = 8;
/// For how long a process tries to write a batch: one that can't be written must not keep all later ones waiting.
const TRIED: Duration = Duration::from_hours(24);
/// After what time nobody brings a batch again, neither a process nor `CloudWatch` Logs, which tries for a day.
const BROUGHT: Duration = Duration::from_hours(48);

/// Writes down what this process has served since the last time. Returns how many downloads.
///
/// # Errors
/// What could not be written is kept, and written the next time.
pub async fn write_down(app: &App) -> Result<u64, Error> {
    let (mut unwritten, now) = (app.served().unwritten.lock().await, app.now());
    // A name first: without one, nothing is taken.
    let id = Digest::of(&random::bytes::<16>()?).hex();
    let downloads = app.served().take();
    if !downloads.is_empty() {
        unwritten.push_back(Unwritten { batch: Batch { id, downloads }, since: now });
    }
    while unwritten.len() > WAITING || unwritten.front().is_some_and(|oldest| oldest.since.plus(TRIED) <= now) {
        unwritten.pop_front();
        tracing::error!("some downloads could not be written down for long: they are not counted");
    }
    let (mut written, mut failed) = (0, None);
    for waiting in unwritten.iter_mut() {
        let before = sum(&waiting.batch);
        // What is written of it already is not brought again.
        if let Err(error) = count_some(app, &mut waiting.batch).await {
            failed.get_or_insert(error);
        }
        written += before - sum(&waiting.batch);
    }
    unwritten.retain(|waiting| !waiting.batch.downloads.is_empty());
    failed.map_or(Ok(written), Err)
}

fn sum(batch: &Batch) -> u64 {
    batch.downloads.iter().map(|noted| noted.count).sum()
}

/// Counts a batch, unless it was counted before.
///
/// # Errors
/// The first one, after all repositories were tried. The batch can be brought again.
pub async fn count(app: &App, batch: &Batch) -> Result<(), Error> {
    count_some(app, &mut batch.clone()).await
}

/// The same. What is left of the batch is what could not be written.
async fn count_some(app: &App, batch: &mut Batch) -> Result<(), Error> {
    let grant = system(Action::Sweep, &Resource::Installation)?;
    let mut of: BTreeMap<&Repository, Vec<&Noted>> = BTreeMap::new();
    for noted in &batch.downloads {
        of.entry(&noted.what.repository).or_default().push(noted);
    }
    let mut parts = Vec::new();
    for (repository, noted) in of {
        let numbers = numbers(noted);
        for (number, numbers) in (0..).zip(numbers.chunks(AT_A_TIME)) {
            parts.push(Part { app, grant: &grant, batch: &batch.id, repository, number, numbers: numbers.to_vec() });
        }
    }
    let counted: Vec<_> = parts.into_iter().map(Part::count).collect();
    let (mut undone, mut failed) = (BTreeSet::new(), None);
    let mut counted = stream::iter(counted).buffer_unordered(AT_ONCE);
    while let Some((repository, done)) = counted.next().await {
        // One that fails keeps no other from being counted.
        if let Err(error) = done {
            undone.insert(repository.clone());
            failed.get_or_insert(error);
        }
    }
    drop(counted);
    batch.downloads.retain(|noted| undone.contains(&noted.what.repository));
    failed.map_or(Ok(()), Err)
}

/// A number that changes.
#[derive(Clone)]
struct Number {
    of: Counted,
    /// The first of the days that are kept together; `None` for the sum of all days.
    first: Option<Day>,
    /// How many more.
    more: Downloads,
    /// How many more on each of the days, if not of all.
    days: BTreeMap<Day, Downloads>,
    latest: Time,
}

/// The numbers of a repository that change, always in the same order: a batch that is brought again has the same parts.
fn numbers(noted: Vec<&Noted>) -> Vec<Number> {
    let mut numbers: BTreeMap<(Counted, Option<Day>), Number> = BTreeMap::new();
    for Noted { what, day, count, latest } in noted {
        let image = what.image.into_iter().flat_map(|image| [Counted::Repository, Counted::Image(image)]);
        for of in image.chain(what.tag.clone().map(Counted::Tag)) {
            for first in [None, Some(day.first_together())] {
                let number = numbers.entry((of.clone(), first)).or_insert_with(|| Number {
                    of: of.clone(),
                    first,
                    more: Downloads::default(),
                    days: BTreeMap::new(),
                    latest: *latest,
                });
                number.more.add(what.door, *count);
                number.latest = number.latest.max(*latest);
                if first.is_some() {
                    number.days.entry(*day).or_default().add(what.door, *count);
                }
            }
        }
    }
    numbers.into_values().collect()
}

/// What a batch says of a repository, or as much of it as fits into one transaction.
struct Part<'a> {
    app: &'a App,
    grant: &'a Grant,
    /// The name of the batch.
    batch: &'a str,
    repository: &'a Repository,
    number: u32,
    numbers: Vec<Number>,
}

impl<'a> Part<'a> {
    /// Steps 3 and 4. Returns also whose part it is.
    async fn count(self) -> (&'a Repository, Result<(), Error>) {
        (self.repository, self.counted().await)
    }

    async fn counted(self) -> Result<(), Error> {
        let Self { app, grant, batch, repository, number, numbers } = self;
        let gone = app.now().plus(BROUGHT);
        let mark = BatchCounted { batch: batch.to_owned(), repository: repository.clone(), part: number, gone };
        let (container, marked) = (keys::container(repository), keys::batch_counted(batch, repository, number));
        let mut retry = Retry::of("downloads of the same repository");
        loop {
            retry.pause().await?;
            let changed = numbers.iter().map(|number| keys::downloaded(repository, &number.of, number.first));
            let mut rows = app.table.batch(changed.chain([container.clone(), marked.clone()])).await?;
            let Some(container) = rows.take::<Container>(&container)? else { return Ok(()) };
            if rows.take::<BatchCounted>(&marked)?.is_some() {
                return Ok(());
            }
            let mut counting = Vec::with_capacity(numbers.len());
            for number in &numbers {
                let before = rows.take(&keys::downloaded(repository, &number.of, number.first))?;
                counting.push(counted(&container, number, before)?);
            }
            if app.commit(grant, downloads::counted(&mark, &counting)?).await? == Written::Done {
                return Ok(());
            }
        }
    }
}

/// The row of a number with what is more, and the version that it has now.
fn counted(container: &Container, number: &Number, before: Option<Downloaded>) -> Result<Counting, Error> {
    let read = before.as_ref().map(|row| row.version);
    let version = match read {
        Some(version) => version + 1,
        // One that went and came back must not be taken for this one.
        None => random::number()?.into(),
    };
    let before = before.filter(|row| row.container == container.id);
    let mut downloads = before.as_ref().map(|row| row.downloads).unwrap_or_default();
    downloads.more(&number.more);
    let mut days = before.as_ref().map(|row| row.days.clone()).unwrap_or_default();
    for (day, more) in &number.days {
        days.entry(*day).or_default().more(more);
    }
    let row = Downloaded {
        repository: container.repository.clone(),
        container: container.id,
        of: number.of.clone(),
        first: number.first,
        downloads,
        days,
        latest: before.map_or(number.latest, |row| row.latest.max(number.latest)),
        version,
    };
    Ok(Counting { row, read })
}

/// How often something was downloaded.
#[derive(Debug)]
pub struct Shown {
    /// Of all days.
    pub all: Downloads,
    /// When the latest was, if there was one.
    pub latest: Option<Time>,
    /// Of the days on which there were any, the latest first.
    pub days: Vec<(Day, Downloads)>,
}

/// How often something in a repository was downloaded, in all and on each of the last days.
pub async fn of(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    of: &Counted,
    days: u16,
) -> Result<Shown, Error> {
    let (key, all) = (keys::container(repository), keys::downloaded(repository, of, None));
    let mut access = Access::load(app, credential, Some(repository.entity()), [key.clone(), all.clone()]).await?;
    let container: Option<Container> = access.take(&key)?;
    access.require(Action::See, &resource_at(repository, container.as_ref()), "container", "see this container")?;
    let container = container.ok_or(Error::NotFound("container"))?;
    let all: Option<Downloaded> = access.take(&all)?;
    let all = all.filter(|row| row.container == container.id);
    let mut shown = Shown {
        all: all.as_ref().map(|row| row.downloads).unwrap_or_default(),
        latest: all.map(|row| row.latest),
        days: Vec::new(),
    };
    if days > 0 && shown.latest.is_some() {
        let first = Day(app.now().day().0 - i64::from(days.min(DAYS)) + 1);
        let page: Page<Downloaded> =
            app.table.query_last(keys::downloaded_by_day(repository, of), None, ROWS_OF_DAYS).await?;
        let rows = page.rows.into_iter().filter(|row| row.container == container.id);
        let days = rows.flat_map(|row| row.days.into_iter().rev());
        shown.days = days.filter(|(day, _)| *day >= first).collect();
    }
    Ok(shown)
}
