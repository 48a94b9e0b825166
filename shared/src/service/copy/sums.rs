//! What rows count of other rows, added up anew in a copy.
//!
//! A scan sees a number and what it counts at different moments, and what is under way at the source is not in a copy:
//! there is no reservation, and nothing in surplus.
//!
//! 1. Scan the copy: count links by entity and blob, tags by image, stars by repository, admins by group, and add up what
//!    counts for each account.
//! 2. Scan it again, and write each number that is another one, and whatever names another object than its blob does. *Dies*: the next run does it again.

use super::{Report, Running, is_library};
use crate::domain::{Digest, EntityName, Id, Repository, Role, TagName};
use crate::error::Error;
use crate::service::sweep::tally::Tally;
use crate::store::keys::{self, Key, RowKind};
use crate::store::rows::{
    Account, AccountNumbers, Blob, Charge, Counts, Entity, EntityKind, Image, Link, Member, Row, Star, Tag,
};
use crate::store::table::Scanned;
use std::collections::{BTreeSet, HashMap};

/// The links of a blob in an entity.
#[derive(Clone, Copy)]
struct Links {
    count: u64,
    size: u64,
}

/// What was counted.
#[derive(Default)]
struct Sums {
    links: HashMap<(EntityName, Digest), Links>,
    holders: HashMap<Digest, u64>,
    tags: HashMap<(Repository, Digest), BTreeSet<TagName>>,
    stars: HashMap<(Repository, Id), u64>,
    admins: HashMap<EntityName, u64>,
    /// The object of each blob. A blob that was deleted and pushed again has another one than before.
    objects: HashMap<Digest, String>,
    tally: Tally,
}

/// Corrects all numbers.
pub(super) async fn correct(copying: &Running<'_>, report: &mut Report) -> Result<(), Error> {
    let table = &copying.to.table;
    copying.still_ours().await?;
    let mut sums = Sums::default();
    let mut start = None;
    loop {
        let (page, next) = table.scan(start).await?;
        for row in page.into_iter().filter(is_library) {
            sums.add(row)?;
        }
        start = next;
        if start.is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut missing = sums.charged();
    let mut start = None;
    loop {
        let (page, next) = table.scan(start).await?;
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for row in page.into_iter().filter(is_library) {
            missing.remove(&row.key);
            let key = row.key.clone();
            match sums.corrected(row.clone())? {
                Some(right) if !right.is_same(&row) => new.push(right),
                Some(_) => {}
                None => gone.push(key),
            }
        }
        report.corrected += (new.len() + gone.len()) as u64;
        table.replace(copying.grant, new).await?;
        table.remove(copying.grant, gone).await?;
        start = next;
        if start.is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let new = missing.into_values().map(|charge| Scanned::of(&charge)).collect::<Result<Vec<_>, _>>()?;
    report.corrected += new.len() as u64;
    Ok(table.replace(copying.grant, new).await?)
}

impl Sums {
    fn add(&mut self, row: Scanned) -> Result<(), Error> {
        match keys::kind(&row.key) {
            RowKind::Link => {
                self.tally.row(&row.key);
                let link: Link = row.read()?;
                let at = (link.repository.entity().clone(), link.digest);
                self.links.entry(at).or_insert(Links { count: 0, size: link.size }).count += 1;
            }
            RowKind::Tag => {
                self.tally.row(&row.key);
                let tag: Tag = row.read()?;
                for image in tag.images.values() {
                    self.tags.entry((tag.repository.clone(), image.hash)).or_default().insert(tag.name.clone());
                }
            }
            RowKind::Star => {
                let star: Star = row.read()?;
                *self.stars.entry((star.repository, star.container)).or_default() += 1;
            }
            RowKind::Member => {
                let member: Member = row.read()?;
                *self.admins.entry(member.entity).or_default() += u64::from(member.roles.entity == Some(Role::Admin));
            }
            RowKind::Blob => {
                let blob: Blob = row.read()?;
                self.objects.insert(blob.digest, blob.object);
            }
            // They follow from the links.
            RowKind::Charge => {}
            _ => self.tally.scanned(row)?,
        }
        Ok(())
    }

    /// The charges that follow from the links, by their keys, and counts them for accounts and blobs.
    fn charged(&mut self) -> HashMap<Key, Charge> {
        let mut all = HashMap::new();
        for ((entity, digest), Links { count, size }) in &self.links {
            let (entity, digest) = (entity.clone(), *digest);
            let charge = Charge { entity, digest, size: *size, links: *count, sessions: 0, kept: 0, version: 1 };
            self.tally.charge(&charge);
            *self.holders.entry(digest).or_default() += 1;
            all.insert(charge.key(), charge);
        }
        all
    }

    /// The object of a blob, by what its own row says.
    fn object(&self, digest: &Digest, said: String) -> String {
        self.objects.get(digest).cloned().unwrap_or(said)
    }

    /// A row with the right numbers; `None` if there should be none.
    fn corrected(&self, row: Scanned) -> Result<Option<Scanned>, Error> {
        Ok(match keys::kind(&row.key) {
            RowKind::Charge => {
                let old: Charge = row.read()?;
                let links = self.links.get(&(old.entity.clone(), old.digest)).copied();
                let right = |Links { count, size }| Charge { size, links: count, sessions: 0, kept: 0, ..old };
                links.map(right).map(|row| Scanned::of(&row)).transpose()?
            }
            RowKind::Blob => {
                let old: Blob = row.read()?;
                let entities = self.holders.get(&old.digest).copied();
                entities.map(|entities| Scanned::of(&Blob { entities, ..old })).transpose()?
            }
            RowKind::Link => {
                let mut link: Link = row.read()?;
                link.object = self.object(&link.digest, link.object);
                Some(Scanned::of(&link)?)
            }
            RowKind::Tag => {
                let mut tag: Tag = row.read()?;
                for one in tag.images.values_mut() {
                    one.content.object = self.object(&one.hash, std::mem::take(&mut one.content.object));
                }
                Some(Scanned::of(&tag)?)
            }
            RowKind::Image => {
                let mut old: Image = row.read()?;
                if let Some(content) = &mut old.content {
                    content.object = self.object(&old.hash, std::mem::take(&mut content.object));
                }
                let tags = self.tags.get(&(old.repository.clone(), old.hash)).cloned().unwrap_or_default();
                let named = old.named || !tags.is_empty();
                Some(Scanned::of(&Image { tags, named, sealed: None, intents: Vec::new(), ..old })?)
            }
            RowKind::Counts => {
                let old: Counts = row.read()?;
                let stars = self.stars.get(&(old.repository.clone(), old.container)).copied().unwrap_or(0);
                Some(Scanned::of(&Counts { stars, ..old })?)
            }
            RowKind::Entity => {
                let old: Entity = row.clone().read()?;
                let admins = self.admins.get(&old.name).copied().unwrap_or(0);
                let counts = old.kind == EntityKind::Group;
                if counts { Some(Scanned::of(&Entity { admins, ..old })?) } else { Some(row) }
            }
            RowKind::Account => {
                let numbers = self.tally.sum(row.clone().read::<AccountNumbers>()?.entity.as_str()).numbers;
                let mut old: Account = row.read()?;
                old.quota = old.quota.with(numbers);
                Some(Scanned::of(&old)?)
            }
            _ => Some(row),
        })
    }
}
