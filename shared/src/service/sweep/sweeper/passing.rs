//! What is only forgotten once it is old enough: nothing else depends on it.

use super::Sweeper;
use crate::changes::{Changes, downloads, events, history, people, shares};
use crate::domain::Day;
use crate::error::Error;
use crate::service::downloads::DAYS;
use crate::service::people::passwords::WINDOW;
use crate::service::people::registration;
use crate::service::sweep::Mode;
use crate::store::keys::{self, RowKind};
use crate::store::rows::{BatchCounted, Counted, Downloaded, Ending, Event, EventEnd, Registrations, WrongPasswords};
use crate::store::table::{Page, Scanned, Written};

/// How many events are read at a time.
const EVENTS: usize = 1000;

impl Sweeper<'_> {
    /// Records what is only forgotten once it is old enough.
    pub(super) fn passing(&mut self, kind: RowKind, row: Scanned) -> Result<(), Error> {
        match kind {
            RowKind::WrongPasswords => {
                let wrong: WrongPasswords = row.read()?;
                if wrong.since.plus(WINDOW) <= self.now {
                    self.inventory.wrong_passwords.push(people::wrong_passwords_forgotten(&wrong));
                }
            }
            RowKind::Registrations => {
                let tried: Registrations = row.read()?;
                if tried.since.plus(registration::WINDOW) <= self.now {
                    self.inventory.registrations.push(people::registrations_forgotten(&tried));
                }
            }
            RowKind::Event => {
                let event: EventEnd = row.read_part()?;
                if event.gone <= self.now {
                    self.inventory.events.push(events::forgotten(&event));
                } else {
                    *self.inventory.logs.entry(event.log).or_default() += 1;
                }
            }
            RowKind::TagThen => {
                let old = self.inventory.here.tag_then(row.read()?);
                self.inventory.history.extend(old.map(|old| history::forgotten(&old)));
            }
            RowKind::Downloaded => {
                let downloaded: Downloaded = row.read()?;
                let first = Day(self.now.day().0 - i64::from(DAYS));
                if downloaded.first.is_some_and(|day| day.0 + Day::TOGETHER <= first.0) {
                    self.inventory.downloads.push(downloads::forgotten(&downloaded));
                } else if downloaded.of != Counted::Repository && downloaded.latest.day() < first {
                    self.inventory.here.sums.push(downloaded);
                }
            }
            RowKind::BatchCounted => {
                let key = row.key.clone();
                let counted: BatchCounted = row.read()?;
                if counted.gone <= self.now {
                    self.inventory.downloads.push(downloads::batch_forgotten(key));
                }
            }
            RowKind::Ending => {
                let key = row.key.clone();
                let end: Ending = row.read_part()?;
                if end.expires.plus(self.ages.ended) <= self.now {
                    self.inventory.ended.push(shares::forgotten(key));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Forgets wrong passwords that count no more, events whose time is over, and shares and invitations that ended long
    /// ago, many at a time. Each kind by itself: if one of the passwords counts again, only its neighbours wait for the next sweep.
    pub(in crate::service::sweep) async fn forgettable(&mut self) {
        let inventory = &mut self.inventory;
        let kinds = [
            &mut inventory.wrong_passwords,
            &mut inventory.registrations,
            &mut inventory.events,
            &mut inventory.history,
            &mut inventory.downloads,
            &mut inventory.ended,
        ];
        let kinds = kinds.map(std::mem::take);
        for kind in kinds {
            if self.mode == Mode::DryRun {
                continue;
            }
            for some in kind.chunks(Changes::MAX) {
                let mut together = Changes::unrecorded();
                for one in some {
                    together.merge(one.clone());
                }
                let done = self.app.commit(self.grant, together).await;
                self.tried(&"what is only forgotten", done.map(drop));
            }
        }
    }

    /// Forgets the oldest events of entities that have more of them than they may have rows: changing something again and
    /// again adds nothing else to the table, so no request counts them.
    pub(in crate::service::sweep) async fn logs(&mut self) {
        for (log, count) in std::mem::take(&mut self.inventory.logs) {
            let most = self.inventory.most_rows.get(&log).copied().unwrap_or(u64::MAX);
            if count > most && self.goes(|| format!("{} events of {log}, more than its quota allows", count - most)) {
                let done = self.shorten(&log, most).await;
                self.tried(&log, done);
            }
        }
    }

    /// Forgets all events of a log that are older than the latest `most`. However many sweeps do it at once, these stay.
    async fn shorten(&self, log: &str, most: u64) -> Result<(), Error> {
        let (range, mut left, mut past) = (keys::events(log), usize::try_from(most).unwrap_or(usize::MAX), None);
        while left > 0 {
            let page: Page<Event> = self.app.table.query_last(range.clone(), past, left.min(EVENTS)).await?;
            left -= page.rows.len();
            let Some(next) = page.next else { return Ok(()) };
            past = Some(next);
        }
        loop {
            let older: Page<Event> = self.app.table.query_last(range.clone(), past.clone(), Changes::MAX).await?;
            if older.rows.is_empty() {
                return Ok(());
            }
            let mut together = Changes::unrecorded();
            for Event { log, millis, random, gone, .. } in older.rows {
                together.merge(events::forgotten(&EventEnd { log, millis, random, gone }));
            }
            // They are gone, whoever deleted them.
            let _: Written = self.app.commit(self.grant, together).await?;
        }
    }
}
