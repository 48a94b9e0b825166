//! Stars: given and taken back, with the number that they add up to.

use super::Changes;
use crate::domain::{Time, UserName};
use crate::error::Error;
use crate::store::keys;
use crate::store::rows::{Container, Counts, Star};
use crate::store::table::{Condition, Write};

/// A user's star for a repository, and the number of stars there, as they were read.
#[derive(Debug)]
pub(crate) struct Starring<'a> {
    pub(crate) user: &'a UserName,
    pub(crate) container: &'a Container,
    pub(crate) star: Option<Star>,
    pub(crate) counts: Option<Counts>,
    /// Where the version of a new number begins: drawn at random, so that one that went and came back is not taken for
    /// the old one.
    pub(crate) first_version: u32,
}

impl Starring<'_> {
    /// Whether the user has starred the repository: this one, and not one that was deleted before.
    fn is_starred(&self) -> bool {
        self.star.as_ref().is_some_and(|star| star.container == self.container.id)
    }

    /// One star more or less. The number is written under the condition of its version, so of two who see the same star
    /// missing, only one counts.
    fn counted(&self, more: i64) -> Result<Write, Error> {
        let Container { repository, id, .. } = self.container;
        let of_this = self.counts.as_ref().filter(|counts| counts.container == *id);
        let stars = of_this.map_or(0, |counts| counts.stars).saturating_add_signed(more);
        let version = self.counts.as_ref().map_or(u64::from(self.first_version), |counts| counts.version) + 1;
        let condition = self.counts.as_ref().map_or(Condition::Absent, |counts| Condition::Version(counts.version));
        let counts = Counts { repository: repository.clone(), container: *id, stars, version };
        Ok(Write::put(&counts, condition)?)
    }
}

/// Gives a star; `None` if it was given before. No event records it: the repository does not change, and strangers can
/// star what is public, whose log would be theirs to fill.
pub(crate) fn given(starring: &Starring<'_>, now: Time) -> Result<Option<Changes>, Error> {
    if starring.is_starred() {
        return Ok(None);
    }
    let Container { repository, id, .. } = starring.container;
    let star = Star { user: starring.user.clone(), repository: repository.clone(), container: *id, created: now };
    // One of a repository that was deleted is written over.
    let condition = if starring.star.is_some() { Condition::Present } else { Condition::Absent };
    Ok(Some(Changes::unrecorded().with([
        Write::put(&star, condition)?,
        starring.counted(1)?,
        Write::check(keys::container(repository), Condition::Present),
        Write::check(keys::user(starring.user), Condition::Present),
    ])))
}

/// Takes a star back; `None` if there is none.
pub(crate) fn taken(starring: &Starring<'_>) -> Result<Option<Changes>, Error> {
    let Some(star) = &starring.star else { return Ok(None) };
    let deleted = Write::delete(keys::star(starring.user, &star.repository), Condition::Present);
    let counted = if starring.is_starred() { Some(starring.counted(-1)?) } else { None };
    Ok(Some(Changes::unrecorded().with([deleted]).with(counted)))
}
