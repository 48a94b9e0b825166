//! The state that every function shares: built once at each start.

pub(crate) mod buffers;
mod deployment;
pub(crate) mod downloads;
pub mod looks;
mod manifests;
pub mod places;
mod renewal;

use self::buffers::Buffers;
#[cfg(feature = "profiles")]
pub use self::deployment::Assembly;
pub use self::deployment::Deployed;
pub use self::downloads::{Batch, Downloaded};
use self::downloads::{Note, Served};
use self::looks::Lately;
use self::manifests::Manifests;
use self::places::{Place, Places};
use self::renewal::Renewal;
use crate::auth::Keys;
use crate::changes::Changes;
use crate::changes::entities::Birth;
use crate::changes::events::{self, Moment};
use crate::config::Config;
use crate::domain::quota::Quota;
use crate::domain::{Actor, Download, Id, Time, TokenId, UploadId};
use crate::error::Error;
use crate::random;
use crate::rules::Grant;
use crate::store::keys::Key;
use crate::store::rows::Account;
use crate::store::table::Written;
use crate::store::{Objects, Table, keys};
use crate::telemetry;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// The parts of an installation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>, Arc<Turns>);

/// What there is only so much of in a process.
#[derive(Debug)]
struct Turns {
    /// Memory for bytes on their way to the store.
    buffers: Buffers,
    /// Long reads that run.
    reads: Semaphore,
    /// Long reads that run or wait.
    waiting: Semaphore,
    /// Long bodies of each user or robot.
    bodies: Places<Actor>,
    /// Small notes, of which one at a time is enough.
    noting: Semaphore,
    /// Whether this process filled the outbox.
    filled: Notify,
    /// Downloads that are not yet written down.
    served: Served,
    /// What site admins looked at lately.
    looks: Lately,
    /// Manifests that were read lately.
    manifests: Manifests,
    /// Where the token keys come from, if they can be read again.
    renewal: Option<Renewal>,
}

/// The most bodies of more than 64 KiB that are read whole at the same time for one user.
const BODIES: usize = 4;

/// The most long reads that wait for their turn, and how long.
const WAITING: usize = 256;
const PATIENCE: Duration = Duration::from_secs(15);

/// The parts themselves.
#[derive(Debug)]
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// The table.
    pub table: Table,
    /// The search index: another table.
    pub index: Table,
    /// The bucket.
    pub objects: Objects,
    /// The keys that sign tokens.
    pub keys: Keys,
    /// The clock: the time since 1970. It is [`system_clock`], except in tests that need days to pass.
    pub clock: fn() -> Duration,
}

/// The time since 1970 by the system's clock.
pub fn system_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl std::ops::Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self::assembled(parts, None)
    }

    fn assembled(parts: Parts, renewal: Option<Renewal>) -> Self {
        let half = || std::thread::available_parallelism().map_or(1, |threads| (threads.get() / 2).max(1));
        let reads = match parts.config.long_reads {
            0 => half(),
            set => usize::try_from(set).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS),
        };
        let turns = Turns {
            buffers: Buffers::new(&parts.config),
            reads: Semaphore::new(reads),
            waiting: Semaphore::new(WAITING),
            bodies: Places::new(BODIES),
            noting: Semaphore::new(1),
            filled: Notify::new(),
            served: Served::default(),
            looks: Lately::default(),
            manifests: Manifests::default(),
            renewal,
        };
        Self(Arc::new(parts), Arc::new(turns))
    }

    /// Whether the token keys can be read again.
    pub fn renews_keys(&self) -> bool {
        self.1.renewal.is_some()
    }

    fn renewal(&self) -> Option<&Renewal> {
        self.1.renewal.as_ref()
    }

    /// Memory for bytes on their way to the store.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.1.buffers
    }

    /// Waits until this process has put something into the outbox since the last call.
    pub async fn outbox_filled(&self) {
        self.1.filled.notified().await;
    }

    /// Keeps downloads in memory from now on, until they are [written down](crate::service::downloads::write_down).
    pub fn keep_downloads(&self) {
        self.served().keep();
    }

    /// Downloads that are not yet written down.
    pub(crate) fn served(&self) -> &Served {
        &self.1.served
    }

    /// Notes what a request lets somebody download, which counts once it is answered so.
    pub(crate) fn downloaded(&self, what: Download) {
        telemetry::noted(Arc::new(Note { app: self.clone(), what }));
    }

    /// The turn to note something that others would note as well; `None` if somebody is at it.
    pub(crate) fn noting(&self) -> Option<SemaphorePermit<'_>> {
        self.1.noting.try_acquire().ok()
    }

    /// What site admins looked at lately.
    pub(crate) fn looks(&self) -> &Lately {
        &self.1.looks
    }

    /// Manifests that were read lately.
    pub(crate) fn manifests(&self) -> &Manifests {
        &self.1.manifests
    }

    /// A place for a long body of a user or robot.
    pub async fn long_body(&self, user: &Actor) -> Result<Place<Actor>, Error> {
        let why = "too many long requests at once, try again later";
        let busy = || Error::Busy { why: why.to_owned(), after: Duration::from_secs(2) };
        self.1.bodies.wait(user, PATIENCE).await.ok_or_else(busy)
    }

    /// A turn for a request that reads many rows, until it is dropped. On an embedded table such reads take the
    /// processor from everybody else, so they use half of it at most.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many wait already, or for too long.
    pub async fn long_read(&self) -> Result<SemaphorePermit<'_>, Error> {
        let why = "too many long lists and searches at once, try again later";
        let busy = || Error::Busy { why: why.to_owned(), after: Duration::from_secs(2) };
        let _waiting = self.1.waiting.try_acquire().map_err(|_| busy())?;
        let turn = tokio::time::timeout(PATIENCE, self.1.reads.acquire()).await.map_err(|_| busy())?;
        turn.map_err(|error| Error::Internal(error.to_string()))
    }

    /// The time.
    pub fn now(&self) -> Time {
        Time(i64::try_from((self.0.clock)().as_secs()).unwrap_or(i64::MAX))
    }

    /// Makes all of the changes and records them as an event, or makes none. Every change to the table goes through
    /// here.
    ///
    /// # Errors
    /// [`Error::TooManyRows`] if the changes add rows for which an account has no room.
    pub async fn commit(&self, grant: &Grant, changes: Changes) -> Result<Written, Error> {
        if !changes.have_room_for(0) {
            return Err(Error::Internal("more changes than one transaction holds".to_owned()));
        }
        let (mut writes, noted) = changes.into_parts();
        let millis = u64::try_from((self.0.clock)().as_millis()).unwrap_or(u64::MAX);
        let at = Moment { millis, random: random::number()?, from: telemetry::from() };
        let pending = events::pending(grant, noted.as_ref(), &writes, at)?;
        let follows = pending.is_some();
        writes.extend(pending);
        if let Some(noted) = noted {
            writes.push(events::event(grant, noted, at, self.0.config.event_life)?);
        }
        let needing: Vec<(usize, Key)> =
            writes.iter().enumerate().filter_map(|(at, write)| Some((at, write.needs_rows()?.clone()))).collect();
        let written = self.table.write(grant, writes).await?;
        if follows && written == Written::Done {
            self.1.filled.notify_one();
        }
        if let Written::Lost(failed) = &written {
            for (_, key) in needing.into_iter().filter(|(at, _)| failed.contains(at)) {
                // Trying again helps only if another of its conditions failed.
                let account: Option<Account> = self.table.get(key).await?;
                if let Some(Quota { rows, most_rows: most, .. }) = account.map(|account| account.quota)
                    && rows >= most
                {
                    return Err(Error::TooManyRows { rows, most });
                }
            }
        }
        Ok(written)
    }

    /// Makes all of the changes of the search index, or none.
    pub(crate) async fn commit_index(&self, grant: &Grant, changes: Changes) -> Result<Written, Error> {
        Ok(self.index.write(grant, changes.into_parts().0).await?)
    }

    /// What is needed for a new row: who creates it, the time, a new id.
    pub(crate) fn birth(&self, grant: &Grant) -> Result<Birth, Error> {
        let id = random::bytes().map(Id::from_random)?;
        Ok(Birth { id, by: grant.by().cloned(), at: self.now(), first_version: random::number()? })
    }

    /// A new id of an upload session.
    pub fn new_upload(&self) -> Result<UploadId, Error> {
        random::bytes().map(UploadId::from_random)
    }

    /// A new id of a token.
    pub fn new_token(&self) -> Result<TokenId, Error> {
        random::bytes().map(TokenId::from_random)
    }

    /// A name for an object, never used before.
    pub fn new_object(&self) -> Result<String, Error> {
        random::bytes().map(keys::object)
    }
}
