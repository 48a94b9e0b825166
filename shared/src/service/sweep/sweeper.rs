//! What a sweep does with each row of the table, and then with its findings.

mod passing;
mod removed;

use super::inventory::Inventory;
use super::{Ages, MAX_FOUND, Mode, Swept, WrongAccount};
use crate::app::App;
use crate::changes::{blobs, images, streams};
use crate::domain::Time;
use crate::error::Error;
use crate::rules::Grant;
use crate::service::{links, uploads};
use crate::store::keys::{self, RowKind};
use crate::store::objects::{ListedObject, OpenParts};
use crate::store::rows::{
    Account, AccountNumbers, Blob, Charge, Condemned, Flow, Image, Link, Manifest, Row, Session, State, Stream, Way,
};
use crate::store::table::{Scanned, Written};
use std::fmt::Debug;

/// A running sweep.
pub(super) struct Sweeper<'a> {
    app: &'a App,
    grant: &'a Grant,
    ages: Ages,
    now: Time,
    mode: Mode,
    inventory: Inventory,
    swept: Swept,
}

impl<'a> Sweeper<'a> {
    pub(super) fn new(app: &'a App, grant: &'a Grant, ages: Ages, mode: Mode) -> Self {
        let (inventory, swept) = (Inventory::default(), Swept::default());
        Self { app, grant, ages, now: app.now(), mode, inventory, swept }
    }

    /// Whether to collect a leftover. A dry run records it instead.
    fn goes(&mut self, what: impl FnOnce() -> String) -> bool {
        if self.mode == Mode::DryRun && self.swept.found.len() < MAX_FOUND {
            self.swept.found.push(what());
        }
        self.mode == Mode::Collect
    }

    /// Whether a step succeeded. A failure must not stop the rest of the sweep; the next sweep tries again.
    pub(super) fn tried(&mut self, what: &impl Debug, done: Result<(), Error>) -> bool {
        let Err(error) = done else { return true };
        tracing::error!(?what, %error, cause = error.cause(), "sweep");
        self.swept.failed += 1;
        false
    }

    /// Notes how many rows could not be read.
    pub(super) fn unread(&mut self, count: u64) {
        self.swept.failed += count;
    }

    pub(super) fn row(&mut self, row: Scanned) -> Result<(), Error> {
        self.inventory.come_to(&row.key);
        self.inventory.tally.row(&row.key);
        match keys::kind(&row.key) {
            RowKind::Session => self.session(row.read()?),
            RowKind::Image => {
                let image: Image = row.read()?;
                let begun = image.content.is_none() && image.sealed.is_none();
                if begun && image.created.plus(self.ages.image) <= self.now {
                    self.inventory.images.push(image);
                }
            }
            RowKind::Condemned => self.condemned(row.read()?),
            RowKind::Blob => {
                self.inventory.objects.insert(&row.read::<Blob>()?.object);
            }
            RowKind::Stream => self.stream(row.read()?),
            RowKind::Link => {
                let link: Link = row.read()?;
                if link.seen.plus(self.ages.link) <= self.now {
                    self.inventory.here.links.push(link);
                }
            }
            RowKind::Manifest => {
                let manifest: Manifest = row.read()?;
                self.inventory.tally.manifest(&manifest);
                manifest.object.iter().for_each(|object| self.inventory.objects.insert(object));
                self.inventory.here.named.extend(manifest.names);
            }
            RowKind::Charge => self.inventory.tally.charge(&row.read()?),
            RowKind::Account => {
                let Account { entity, quota, .. } = row.clone().read()?;
                self.inventory.most_rows.insert(entity.to_string(), quota.most_rows);
                let numbers = row.read::<AccountNumbers>()?.numbers();
                self.inventory.accounts.insert(entity.to_string(), numbers);
            }
            RowKind::RemovedContainer => self.inventory.removed_containers.push(row.read()?),
            RowKind::RemovedEntity => self.inventory.removed_entities.push(row.read()?),
            RowKind::About => self.inventory.tally.about(&row.read()?),
            kind => self.passing(kind, row)?,
        }
        Ok(())
    }

    /// Records what a stream holds. It is released after the scan, so that the accounts still include it, whether they
    /// are read before or after it.
    fn stream(&mut self, row: Stream) {
        row.object.iter().chain(&row.tail).for_each(|object| self.inventory.objects.insert(object));
        self.inventory.uploads.extend(row.upload.clone());
        self.inventory.tally.stream(&row);
        if self.ages.all_sessions || row.expires.plus(self.ages.session) <= self.now {
            self.inventory.streams.push(row);
        }
    }

    fn session(&mut self, row: Session) {
        self.inventory.objects.insert(&row.object);
        self.inventory.tally.session(&row);
        if let Way::Parts(upload) = &row.way {
            self.inventory.uploads.insert(upload.clone());
        }
        let sealed = row.state != State::Open;
        let over = row.expires.plus(self.ages.session) <= self.now;
        if sealed && !over {
            self.swept.sealed.push(row.id);
        } else if self.ages.all_sessions || over {
            self.inventory.sessions.push(row);
        }
    }

    pub(super) async fn sessions(&mut self) {
        for row in std::mem::take(&mut self.inventory.sessions) {
            if self.goes(|| format!("upload of {} to {}", row.hash, row.repository)) {
                let done = uploads::end(self.app, self.grant, &row).await;
                if !self.tried(&row.id, done) {
                    continue;
                }
            }
            self.swept.sessions += 1;
        }
    }

    pub(super) async fn images(&mut self) {
        for row in std::mem::take(&mut self.inventory.images) {
            let key = row.key();
            let done = self.image(row).await;
            self.tried(&key, done);
        }
    }

    async fn image(&mut self, row: Image) -> Result<(), Error> {
        // An open session would upload bytes for an image that is gone; the charge counts all open sessions.
        let charge_key = keys::charge(row.repository.entity(), &row.hash);
        let charge: Option<Charge> = self.app.table.get(charge_key).await?;
        if charge.as_ref().is_some_and(|charge| charge.sessions > 0) {
            return Ok(());
        }
        if self.goes(|| format!("image without bytes {} in {}", row.hash, row.repository)) {
            let changes = images::removed_without_bytes(&row, charge.as_ref());
            if self.app.commit(self.grant, changes).await? != Written::Done {
                return Ok(());
            }
        }
        self.swept.images += 1;
        Ok(())
    }

    fn condemned(&mut self, row: Condemned) {
        self.inventory.objects.insert(&row.object);
        self.inventory.uploads.extend(row.upload.clone());
        self.inventory.tally.condemned(&row);
        if row.since.plus(self.ages.condemned) <= self.now {
            self.inventory.condemned.push(row);
        }
    }

    /// Deletes what was condemned long enough ago.
    pub(super) async fn deletable(&mut self) {
        for row in std::mem::take(&mut self.inventory.condemned) {
            if self.goes(|| format!("object {}, not used any more", row.object)) {
                let done = self.delete(&row).await;
                if !self.tried(&row.object, done) {
                    continue;
                }
            }
            self.swept.objects += 1;
        }
    }

    async fn delete(&self, row: &Condemned) -> Result<(), Error> {
        if let Some(upload) = &row.upload {
            self.app.objects.abort_parts(self.grant, &row.object, upload).await?;
        }
        self.app.objects.delete(self.grant, &row.object).await?;
        self.app.commit(self.grant, blobs::condemned_deleted(&row.object, row.of.as_ref())).await.map(drop)
    }

    pub(super) async fn streams(&mut self) {
        for row in std::mem::take(&mut self.inventory.streams) {
            // One that ended before holds nothing, and is simply forgotten.
            let open = row.flow == Flow::Open;
            if !open && self.mode == Mode::DryRun {
                continue;
            }
            if self.goes(|| format!("upload of {} bytes to {}", row.taken, row.repository)) {
                match self.forget(&row).await {
                    Ok(Written::Done) => {}
                    // Its client was faster: it is no leftover.
                    Ok(Written::Lost(_)) => continue,
                    Err(error) => {
                        self.tried(&row.id, Err(error));
                        continue;
                    }
                }
            }
            self.swept.sessions += u64::from(open);
        }
    }

    pub(super) async fn links(&mut self) {
        self.inventory.leave("");
        for (repository, mut going) in std::mem::take(&mut self.inventory.links) {
            let found = going.len() as u64;
            going.retain(|link| self.goes(|| format!("blob {link} in {repository}, which no manifest names")));
            if self.mode == Mode::DryRun {
                self.swept.links += found;
            } else if !going.is_empty() {
                let before = self.now.minus(self.ages.link);
                let freed = links::free(self.app, self.grant, &repository, &going, before).await;
                let freed = freed.map(|freed| self.swept.links += freed as u64);
                self.tried(&repository, freed);
            }
        }
    }

    /// The multipart uploads in the store that no row names.
    pub(super) async fn unnamed_uploads(&mut self, uploads: Vec<OpenParts>) {
        for open in uploads {
            if self.is_old(open.since) && !self.inventory.uploads.contains(&open.upload) {
                if self.goes(|| format!("multipart upload of object {}, which nothing names", open.object)) {
                    let done = self.app.objects.abort_parts(self.grant, &open.object, &open.upload).await;
                    if !self.tried(&open.object, done.map_err(Error::from)) {
                        continue;
                    }
                }
                self.swept.uploads += 1;
            }
        }
    }

    /// The objects in the store that no row names, page by page.
    pub(super) async fn unnamed_objects(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.app.objects.list(after).await?;
            after = page.last().map(|last| last.object.clone());
            if after.is_none() {
                return Ok(());
            }
            for ListedObject { object, since, .. } in page {
                if self.is_old(since) && object != keys::INSTALLATION && !self.inventory.objects.contains(&object) {
                    if self.goes(|| format!("object {object}, which nothing names")) {
                        let done = self.condemns(&object).await;
                        if !self.tried(&object, done) {
                            continue;
                        }
                    }
                    self.swept.condemned += 1;
                }
            }
        }
    }

    /// Whether something that was there at this time must be named by now.
    fn is_old(&self, since: i64) -> bool {
        self.ages.unnamed.is_zero() || since <= self.now.minus(self.ages.unnamed).0
    }

    async fn condemns(&self, object: &str) -> Result<(), Error> {
        self.app.commit(self.grant, blobs::unnamed(object, self.now)?).await.map(drop)
    }

    /// Releases what a stream holds that ended long ago or will never end, and forgets it.
    async fn forget(&self, row: &Stream) -> Result<Written, Error> {
        self.app.commit(self.grant, streams::forgotten(row, self.now)?).await
    }

    pub(super) fn accounts(self) -> Swept {
        let Self { inventory, mut swept, .. } = self;
        for (entity, account) in inventory.accounts {
            let charges = inventory.tally.sum(&entity).numbers;
            // While pushes run, the two are read at different moments.
            if account != charges {
                swept.wrong_accounts.push(WrongAccount { entity, account, charges });
            }
        }
        swept
    }
}
