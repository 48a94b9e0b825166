//! Removing what is left of containers and entities that were deleted.
//!
//! Nothing comes to a container any more once it is hidden, so its rows are removed kind by kind, as many in a
//! transaction as fit, each on condition that it is as it was read, and all on condition that the container is still
//! being removed. *Lost*: read again. *Dies*, or twice at once: what is gone is gone, and is counted once; and whoever is
//! slower takes nothing from a new container of that name.
//!
//! 1. Of a container: shares, tags, manifests, links, images, each with what they cost; then all other rows of its
//!    partition, which count for nothing.
//! 2. Then the [`RemovedContainer`]: its name is free.
//! 3. Of an entity: its containers; robots with their tokens; members and invitations; of a user's own also the user's
//!    roles in groups, and tokens. Then, if nothing counts in it any more, its account: nothing else is left of it.

use crate::app::App;
use crate::changes::Changes;
use crate::changes::blobs::Unlinking;
use crate::changes::removal::Removed;
use crate::changes::stars::{self, Starring};
use crate::changes::{about, removal};
use crate::domain::{Actor, Digest, EntityName, Repository, UserName};
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::service::access::system;
use crate::service::people::robots::{self, Left};
use crate::service::retry::Retry;
use crate::store::keys::{self, Key, KeyRange};
use crate::store::rows::{
    About, Account, Blob, Charge, Container, Counts, Entity, Link, ManifestLinks, Member, Membership, RemovedContainer,
    RemovedEntity, Row, Star,
};
use crate::store::table::{Page, Written};
use std::collections::BTreeMap;
use std::time::Instant;

/// What there is too much of, if no step is ever written.
const CONTENDED: &str = "changes of what is being deleted";
/// How many rows of a kind are read at a time.
const PAGE: usize = 90;
/// Rows in one transaction that count for nothing.
const ROWS: u16 = 90;
/// Rows in one transaction: of shares and members two writes each, of images three.
const PAIRS: usize = 45;
const IMAGES: usize = 30;
/// Manifests, with up to three writes each, and links, with up to five.
const MANIFESTS: usize = 30;
const LINKS: usize = 18;

/// Removes what is left of a container. Returns whether nothing is.
pub(crate) async fn container(app: &App, removed: &RemovedContainer, until: Option<Instant>) -> Result<bool, Error> {
    Drain::new(app, Removed { key: removed.key(), version: removed.version }, until)?.container(removed).await
}

/// Removes what is left of an entity. Returns whether nothing is.
pub(crate) async fn entity(app: &App, removed: &RemovedEntity, until: Option<Instant>) -> Result<bool, Error> {
    if removed.gone {
        return Ok(true);
    }
    Drain::new(app, Removed { key: removed.key(), version: removed.version }, until)?.entity(removed).await
}

struct Drain<'a> {
    app: &'a App,
    grant: Grant,
    /// The row that says that it is being removed.
    removed: Removed,
    /// Whether that was seen to be gone: somebody else has done all of it.
    over: bool,
    until: Option<Instant>,
    retry: Retry,
}

impl<'a> Drain<'a> {
    fn new(app: &'a App, removed: Removed, until: Option<Instant>) -> Result<Self, Error> {
        let grant = system(Action::Delete, &Resource::Installation)?;
        Ok(Self { app, grant, removed, over: false, until, retry: Retry::of(CONTENDED) })
    }

    fn in_time(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }

    /// Commits a step. If it is lost, the rows are read again, after a pause.
    async fn step(&mut self, changes: Changes) -> Result<(), Error> {
        let changes = changes.with([removal::still_removed(&self.removed)]);
        if self.app.commit(&self.grant, changes).await? == Written::Done {
            self.retry = Retry::of(CONTENDED);
            return Ok(());
        }
        let still = Changes::unrecorded().with([removal::still_removed(&self.removed)]);
        self.over = self.app.commit(&self.grant, still).await? != Written::Done;
        self.retry.pause().await
    }

    /// The first rows of a kind that is to be removed; `None` once there is no time left.
    async fn first<R: Row>(&self, range: KeyRange, most: usize) -> Result<Option<Vec<R>>, Error> {
        if !self.in_time() {
            return Ok(None);
        }
        if self.over {
            return Ok(Some(Vec::new()));
        }
        let page: Page<R> = self.app.table.query(range, None, most).await?;
        Ok(Some(page.rows))
    }

    async fn container(&mut self, removed: &RemovedContainer) -> Result<bool, Error> {
        let repository = &removed.repository;
        let done = self.all(keys::shares(repository), PAIRS, removal::shares_removed).await?
            && self.all(keys::tags(repository), PAGE, removal::tags_removed).await?
            && self.manifests(repository).await?
            && self.links(repository).await?
            && self.all(keys::images(repository), IMAGES, removal::images_removed).await?
            && self.about(keys::about_container(repository)).await?
            && self.rest(keys::all_of_repository(repository)).await?;
        if !done || self.app.commit(&self.grant, removal::container_gone(removed)).await? == Written::Done {
            return Ok(done);
        }
        // Whoever drains it too may have been faster. Otherwise it waits for the next sweep, and is not tried for ever.
        let still = Changes::unrecorded().with([removal::still_removed(&self.removed)]);
        Ok(self.app.commit(&self.grant, still).await? != Written::Done)
    }

    /// Removes the rows of a kind, some in a transaction.
    async fn all<R: Row>(&mut self, range: KeyRange, most: usize, removed: fn(&[R]) -> Changes) -> Result<bool, Error> {
        loop {
            match self.first::<R>(range.clone(), most).await? {
                None => return Ok(false),
                Some(rows) if rows.is_empty() => return Ok(true),
                Some(rows) => self.step(removed(&rows)).await?,
            }
        }
    }

    async fn manifests(&mut self, repository: &Repository) -> Result<bool, Error> {
        let mut all: Vec<ManifestLinks> = Vec::new();
        self.app.table.each(keys::manifests(repository), ManifestLinks::ATTRIBUTES, |row| all.push(row)).await?;
        for some in all.chunks(MANIFESTS) {
            if !self.in_time() {
                return Ok(false);
            }
            self.step(removal::manifests_removed(some, self.app.now())?).await?;
            if self.over {
                return Ok(true);
            }
        }
        // One that was removed meanwhile made its neighbours stay.
        Ok(self.app.table.first_keys(keys::manifests(repository), 1).await?.is_empty())
    }

    async fn links(&mut self, repository: &Repository) -> Result<bool, Error> {
        let entity = repository.entity();
        loop {
            let Some(rows) = self.first::<Link>(keys::links(repository), LINKS).await? else { return Ok(false) };
            if rows.is_empty() {
                return Ok(true);
            }
            // A blob may be known by two names here; each unlinking counts from what was read.
            let links: BTreeMap<Digest, &Link> = rows.iter().map(|link| (link.digest, link)).collect();
            let account_key = keys::account(entity);
            let charge = |digest: &Digest| keys::charge(entity, digest);
            let wanted = links.keys().flat_map(|digest| [charge(digest), keys::blob(digest)]);
            let mut found = self.app.table.batch(wanted.chain([account_key.clone()])).await?;
            let account: Account = found.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
            let mut unlinking = Vec::new();
            for (digest, link) in &links {
                let (charge, blob) = (found.take::<Charge>(&charge(digest))?, found.take::<Blob>(&keys::blob(digest))?);
                unlinking.push(Unlinking { link, account: &account, charge, blob, now: self.app.now() });
            }
            self.step(removal::links_removed(unlinking)?).await?;
        }
    }

    /// Removes what was said about it.
    async fn about(&mut self, key: Key) -> Result<bool, Error> {
        while let Some(row) = self.app.table.get::<About>(key.clone()).await? {
            if !self.in_time() {
                return Ok(false);
            }
            if self.over {
                break;
            }
            self.step(about::removed(&row)).await?;
        }
        Ok(true)
    }

    /// Removes rows that count for nothing.
    async fn rest(&mut self, range: KeyRange) -> Result<bool, Error> {
        loop {
            if !self.in_time() {
                return Ok(false);
            }
            let keys = self.app.table.first_keys(range.clone(), ROWS).await?;
            if keys.is_empty() || self.over {
                return Ok(true);
            }
            self.step(removal::rows_removed(keys)).await?;
        }
    }

    async fn entity(&mut self, removed: &RemovedEntity) -> Result<bool, Error> {
        let name = &removed.name;
        while let Some(rows) = self.first::<RemovedContainer>(keys::removed_containers(name), 10).await? {
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                if !container(self.app, row, self.until).await? {
                    return Ok(false);
                }
            }
        }
        let about = self.about(keys::about_entity(name)).await?;
        if !(about && self.members(name).await? && self.rest(keys::invitations(name)).await?) {
            return Ok(false);
        }
        self.step(removal::rows_removed([keys::includes(name)])).await?;
        if removed.user && !self.user(&name.as_str().parse()?).await? {
            return Ok(false);
        }
        Ok(self.app.commit(&self.grant, removal::entity_gone(removed)?).await? == Written::Done)
    }

    async fn members(&mut self, name: &EntityName) -> Result<bool, Error> {
        loop {
            let Some(rows) = self.first::<Member>(keys::members(name), PAIRS).await? else { return Ok(false) };
            if rows.is_empty() {
                return Ok(true);
            }
            for row in rows.iter().filter(|row| matches!(row.actor, Actor::Robot(..))) {
                let left = Left { entity: name, robot: &row.actor, removed: &self.removed };
                robots::remove_left(self.app, &self.grant, left).await?;
            }
            self.step(removal::members_removed(&rows)).await?;
        }
    }

    async fn user(&mut self, name: &UserName) -> Result<bool, Error> {
        let actor: Actor = name.clone().into();
        loop {
            let Some(rows) = self.first::<Membership>(keys::memberships(&actor), PAGE).await? else {
                return Ok(false);
            };
            for row in &rows {
                let (at, of) = (keys::entity(&row.entity), keys::member(&row.entity, &row.actor));
                let mut found = self.app.table.batch([at.clone(), of.clone()]).await?;
                let (entity, member) = (found.take::<Entity>(&at)?, found.take::<Member>(&of)?);
                self.step(removal::membership_removed(row, member.as_ref(), entity.as_ref())?).await?;
            }
            if rows.is_empty() {
                return Ok(self.stars(name).await? && self.rest(keys::all_of_user(name)).await?);
            }
        }
    }

    /// Takes back the stars of a user who was deleted.
    async fn stars(&mut self, name: &UserName) -> Result<bool, Error> {
        loop {
            let Some(rows) = self.first::<Star>(keys::stars(name), PAGE).await? else { return Ok(false) };
            if rows.is_empty() {
                return Ok(true);
            }
            for row in rows {
                let (at, counts) = (keys::container(&row.repository), keys::counts(&row.repository));
                let mut found = self.app.table.batch([at.clone(), counts.clone()]).await?;
                let Some(container) = found.take::<Container>(&at)? else {
                    self.step(removal::rows_removed([row.key()])).await?;
                    continue;
                };
                let counts: Option<Counts> = found.take(&counts)?;
                let star = Some(row);
                let starring = Starring { user: name, container: &container, star, counts, first_version: 0 };
                if let Some(taken) = stars::taken(&starring)? {
                    self.step(taken).await?;
                }
            }
        }
    }
}
