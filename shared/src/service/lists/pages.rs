//! Pages of lists, sorted and filtered, at a cost that is bounded whatever the list is.
//!
//! - By name, a page continues where the last one ended, forwards or backwards. A filter looks at no more than
//!   [`MAX_READ`] rows for one page: then the page ends, however few it has, and says where the next one begins.
//! - By time, all of a list is read, and sorted, for each page. So a list of [`MAX_READ`] rows or more is refused: its
//!   names can be narrowed by how they begin, or it is read by name.

use crate::app::App;
use crate::domain::{Order, SortBy, Time, Visibility};
use crate::error::Error;
use crate::store::keys::KeyRange;
use crate::store::rows::{Collection, Container, Image, Row, Tag};
use crate::store::table::Page;

/// The most entries of a page.
pub const PAGE: usize = 100;
/// The most rows that are read for one page.
pub const MAX_READ: usize = 1000;

/// Which entries of a list are wanted; `None` for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of entities and collections: whether new containers in them are private. Of containers: whether they are.
    pub private: Option<bool>,
    /// Of containers: this visibility.
    pub visibility: Option<Visibility>,
    /// Of containers: whether they are read-only.
    pub read_only: Option<bool>,
    /// Of images and tags: those for this architecture.
    pub arch: Option<String>,
    /// Of images: whether they are signed.
    pub signed: Option<bool>,
    /// Of tags: whether they are frozen.
    pub frozen: Option<bool>,
}

/// Which part of a list is wanted, and how.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The order.
    pub order: Order,
    /// Only names that begin so.
    pub prefix: String,
    /// Only these entries.
    pub filter: Filter,
    /// The end of the previous page.
    pub after: Option<String>,
}

impl Listing {
    /// Refuses filters that this list does not have, by their names on the wire, so that nobody believes that they were
    /// applied.
    pub(super) fn only(&self, what: &str, has: &[&str]) -> Result<(), Error> {
        let Filter { private, visibility, read_only, arch, signed, frozen } = &self.filter;
        let all = [
            ("private", private.is_some()),
            ("visibility", visibility.is_some()),
            ("readOnly", read_only.is_some()),
            ("arch", arch.is_some()),
            ("signed", signed.is_some()),
            ("frozen", frozen.is_some()),
        ];
        match all.into_iter().find(|(name, said)| *said && !has.contains(name)) {
            Some((name, _)) => Err(Error::Invalid(format!("a list of {what} can't be filtered by `{name}`"))),
            None => Ok(()),
        }
    }

    /// Whether it is all of a list, in the order in which it lies in the table.
    pub(super) fn is_plain(&self) -> bool {
        self.order == Order::default() && self.prefix.is_empty() && self.filter == Filter::default()
    }
}

/// A row of a list.
pub(super) trait Listed: Row {
    /// What there are several of in the list.
    const WHAT: &'static str;
    /// When it was made.
    fn created(&self) -> Time;
    /// When it was last changed, if that is known.
    fn updated(&self) -> Option<Time> {
        None
    }
    /// Whether a filter takes it.
    fn taken_by(&self, filter: &Filter) -> bool;
}

fn is(wanted: Option<bool>, so: bool) -> bool {
    wanted.is_none_or(|wanted| wanted == so)
}

impl Listed for Collection {
    const WHAT: &'static str = "collections";
    fn created(&self) -> Time {
        self.created
    }
    fn taken_by(&self, filter: &Filter) -> bool {
        is(filter.private, self.private)
    }
}

impl Listed for Container {
    const WHAT: &'static str = "containers";
    fn created(&self) -> Time {
        self.created
    }
    fn taken_by(&self, filter: &Filter) -> bool {
        is(filter.private, self.visibility == Visibility::Private)
            && is(filter.read_only, self.read_only)
            && filter.visibility.is_none_or(|wanted| wanted == self.visibility)
    }
}

impl Listed for Image {
    const WHAT: &'static str = "images";
    fn created(&self) -> Time {
        self.created
    }
    fn taken_by(&self, filter: &Filter) -> bool {
        // Those without bytes are shown to nobody.
        self.content.as_ref().is_some_and(|content| {
            is(filter.signed, content.signed) && filter.arch.as_ref().is_none_or(|arch| *arch == content.arch)
        })
    }
}

impl Listed for Tag {
    const WHAT: &'static str = "tags";
    fn created(&self) -> Time {
        self.updated
    }
    fn updated(&self) -> Option<Time> {
        Some(self.updated)
    }
    fn taken_by(&self, filter: &Filter) -> bool {
        is(filter.frozen, self.frozen) && filter.arch.as_ref().is_none_or(|arch| self.images.contains_key(arch))
    }
}

/// A page of the rows of a place that `keep` keeps.
pub(super) async fn page<R: Listed>(
    app: &App,
    range: KeyRange,
    listing: &Listing,
    keep: impl Fn(&R) -> bool,
) -> Result<Page<R>, Error> {
    let range = range.narrowed(&listing.prefix);
    if listing.order.by == SortBy::Name {
        return by_name(app, &range, listing, |row: &R| row.taken_by(&listing.filter) && keep(row)).await;
    }
    known::<R>(listing.order.by)?;
    let _turn = app.long_read().await?;
    let all: Page<R> = app.table.query(range.clone(), None, MAX_READ).await?;
    if all.next.is_some() {
        return Err(too_many(R::WHAT, listing));
    }
    let mut rows = all.rows;
    rows.retain(|row| row.taken_by(&listing.filter) && keep(row));
    cut(rows, listing, |row| Position { time: time(row, listing.order.by), name: place(row, &range) })
}

/// A page of rows that were all read, which are few by nature, by their names.
pub(super) fn of_all<R: Listed>(
    mut rows: Vec<R>,
    listing: &Listing,
    name: impl Fn(&R) -> String,
) -> Result<Page<R>, Error> {
    known::<R>(listing.order.by)?;
    let rest = |row: &R| name(row).strip_prefix(&listing.prefix).map(str::to_owned);
    rows.retain(|row| row.taken_by(&listing.filter) && rest(row).is_some());
    cut(rows, listing, |row| Position { time: time(row, listing.order.by), name: rest(row).unwrap_or_default() })
}

/// Refuses a time that is not known of the rows of a list.
fn known<R: Listed>(by: SortBy) -> Result<(), Error> {
    let of_tags = R::WHAT == Tag::WHAT;
    match by {
        SortBy::Updated if !of_tags => {
            Err(Error::Invalid(format!("`updated` is known only of tags, not of {}", R::WHAT)))
        }
        SortBy::Created if of_tags => Err(Error::Invalid("`created` is not known of tags, `updated` is".to_owned())),
        _ => Ok(()),
    }
}

/// The refusal of an order for which too much would have to be read.
pub(super) fn too_many(what: &str, listing: &Listing) -> Error {
    let by = listing.order.by;
    Error::Invalid(format!(
        "only lists of fewer than {MAX_READ} {what} are sorted by `{by}`: narrow this one with `prefix`, or sort it by `name`"
    ))
}

/// Where a row is in its list, for the token of a page.
fn place<R: Row>(row: &R, range: &KeyRange) -> String {
    let sk = row.key().sk;
    sk.strip_prefix(&range.prefix).map_or_else(|| sk.clone(), str::to_owned)
}

fn time<R: Listed>(row: &R, by: SortBy) -> Time {
    match by {
        SortBy::Name => Time(0),
        SortBy::Created => row.created(),
        SortBy::Updated => row.updated().unwrap_or(Time(0)),
    }
}

async fn by_name<R: Row>(
    app: &App,
    range: &KeyRange,
    listing: &Listing,
    keep: impl Fn(&R) -> bool,
) -> Result<Page<R>, Error> {
    let (mut rows, mut read) = (Vec::new(), 0);
    let mut past = listing.after.clone();
    loop {
        let some: Page<R> = if listing.order.backwards {
            app.table.query_last(range.clone(), past, PAGE).await?
        } else {
            app.table.query(range.clone(), past, PAGE).await?
        };
        let Page { rows: some, next } = some;
        let last = some.len();
        for (at, row) in some.into_iter().enumerate() {
            let place = place(&row, range);
            if keep(&row) {
                rows.push(row);
            }
            if rows.len() >= PAGE && at + 1 < last {
                return Ok(Page { rows, next: Some(place) });
            }
        }
        read += last;
        if next.is_none() || rows.len() >= PAGE || read >= MAX_READ {
            return Ok(Page { rows, next });
        }
        past = next;
    }
}

/// Where something is in a sorted list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) time: Time,
    pub(super) name: String,
}

impl Position {
    /// The token of the page that ends here.
    fn token(&self, by: SortBy) -> String {
        match by {
            SortBy::Name => self.name.clone(),
            SortBy::Created | SortBy::Updated => format!("{}~{}", self.time.0, self.name),
        }
    }

    /// Reads such a token.
    fn read(token: &str, by: SortBy) -> Result<Self, Error> {
        if by == SortBy::Name {
            return Ok(Self { time: Time(0), name: token.to_owned() });
        }
        let parts = token.split_once('~').and_then(|(time, name)| Some((time.parse().ok()?, name.to_owned())));
        let not_ours = || Error::Invalid("`after` must be the `page.next` of the previous page".to_owned());
        parts.map(|(time, name)| Self { time: Time(time), name }).ok_or_else(not_ours)
    }
}

/// A page of rows that were all read.
pub(super) fn cut<R>(rows: Vec<R>, listing: &Listing, position: impl Fn(&R) -> Position) -> Result<Page<R>, Error> {
    let Order { by, backwards } = listing.order;
    let after = listing.after.as_ref().map(|after| Position::read(after, by)).transpose()?;
    let mut placed: Vec<_> = rows.into_iter().map(|row| (position(&row), row)).collect();
    placed.sort_by(|(one, _), (other, _)| if backwards { other.cmp(one) } else { one.cmp(other) });
    let beyond = |at: &Position| after.as_ref().is_none_or(|after| if backwards { at < after } else { at > after });
    placed.retain(|(at, _)| beyond(at));
    let more = placed.len() > PAGE;
    placed.truncate(PAGE);
    let next = placed.last().filter(|_| more).map(|(at, _)| at.token(by));
    Ok(Page { rows: placed.into_iter().map(|(_, row)| row).collect(), next })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pages of a list in an order, one after the other.
    fn pages(count: i64, sort: &str) -> Vec<Vec<i64>> {
        let mut listing = Listing { order: sort.parse().unwrap(), ..Listing::default() };
        let mut pages = Vec::new();
        loop {
            // Three of each time.
            let by_name = listing.order.by == SortBy::Name;
            let time = |number: &i64| if by_name { Time(0) } else { Time(number / 3) };
            let position = |number: &i64| Position { time: time(number), name: format!("{:03}", 999 - number) };
            let page = cut((0..count).collect(), &listing, position).unwrap();
            pages.push(page.rows);
            listing.after = page.next;
            if listing.after.is_none() {
                return pages;
            }
        }
    }

    #[test]
    fn every_order_shows_everything_once() {
        for sort in ["name", "-name", "created", "-created"] {
            for count in [0, 1, 99, 100, 101, 250] {
                let pages = pages(count, sort);
                assert!(pages.iter().all(|page| page.len() <= PAGE), "{sort} {count}");
                let mut all: Vec<i64> = pages.concat();
                let times: Vec<i64> = all.iter().map(|number| number / 3).collect();
                let sorted = if sort.starts_with('-') { times.iter().rev().is_sorted() } else { times.is_sorted() };
                assert!(sorted || sort.ends_with("name"), "{sort} {count}");
                all.sort_unstable();
                assert_eq!(all, (0..count).collect::<Vec<_>>(), "{sort} {count}");
            }
        }
    }

    #[test]
    fn a_token_of_another_order_is_refused() {
        for token in ["x", "x~y", "~", ""] {
            assert!(Position::read(token, SortBy::Created).is_err(), "{token}");
        }
    }
}
