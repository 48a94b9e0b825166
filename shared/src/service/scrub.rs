//! Scrubbing: reading all stored bytes again and comparing them with their digests, while everything else goes on.
//!
//! A call reads a bounded number of bytes and returns where it stopped, so that its caller decides on the pace, and can
//! continue after any interruption.
//!
//! 1. Read the table from where the last call stopped. For each blob, and for each manifest that is an object:
//! 2. *The object is missing or has another size*: it is lost. Report it. The next push [restores](super::restore) it.
//! 3. Hash it, as far as the call may read; save the hasher's state if that is not the end of it.
//! 4. *Another digest*: hash it once more from the beginning, since memory can fail, too. *Again*: it is damaged. Copy
//!    it to another name, from which it can be rescued until the sweeper deletes it; then delete it. So it is lost for
//!    everybody who asks, nobody gets wrong bytes, and the next push restores it. *Dies between the two*: the next scrub
//!    does both again.

use super::access::Access;
use crate::app::App;
use crate::auth::Credential;
use crate::domain::OciDigest;
use crate::domain::digest::Hasher;
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::store::StoreError;
use crate::store::keys::{self, Key, RowKind};
use crate::store::rows::{Blob, Manifest};
use crate::store::table::Scanned;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// The most bytes that one call reads.
pub const MAX_BYTES: u64 = 4 << 30;
/// How long one call reads: functions have 29 seconds for a request.
const MAX_TIME: Duration = Duration::from_secs(10);
/// How many bytes are read between two looks at the clock.
const STRIDE: u64 = 128 << 20;
/// The beginning of the names of objects that were set aside.
const ASIDE: &str = "damaged/";

/// Where to continue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The row that was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Key>,
    /// How far the object of the next row was hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partly: Option<Partly>,
}

/// How much of an object was hashed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Partly {
    /// Which object.
    object: String,
    /// Bytes.
    taken: u64,
    /// The hasher's state.
    hasher: Option<String>,
    /// Whether it had another digest at the first try.
    again: bool,
}

/// What a call found.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// How many objects were read to the end.
    pub objects: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// Those that are missing, or have another size.
    pub lost: Vec<Finding>,
    /// Those with wrong bytes.
    pub damaged: Vec<Finding>,
    /// Where to continue; `None` at the end.
    pub next: Option<Cursor>,
}

/// An object whose bytes are not right.
#[derive(Debug)]
pub struct Finding {
    /// The digest that they should have.
    pub digest: OciDigest,
    /// Bytes that it should have.
    pub size: u64,
    /// The object's name.
    pub object: String,
    /// Where the wrong bytes are now, until the sweeper deletes them.
    pub aside: Option<String>,
}

/// Reads on from `after`, at most about `most` bytes, for a site admin.
pub async fn scrub(app: &App, credential: &Credential, after: Option<Cursor>, most: u64) -> Result<Scrubbed, Error> {
    let access = Access::load(app, credential, None, []).await?;
    let grant = access.require(Action::Sweep, &Resource::Installation, "installation", "scrub")?;
    let mut call = Call { app, grant, most: most.min(MAX_BYTES), began: Instant::now(), scrubbed: Scrubbed::default() };
    let Cursor { mut last, mut partly } = after.unwrap_or_default();
    loop {
        let (rows, next) = app.table.scan(last.clone()).await?;
        for row in rows {
            let key = row.key.clone();
            let stored = Stored::of(row).unwrap_or_else(|error| {
                // Others can be read all the same.
                tracing::error!(?key, %error, cause = error.cause(), "scrub");
                None
            });
            if let Some(stored) = stored
                && let Some(partly) = call.object(&stored, partly.take()).await?
            {
                call.scrubbed.next = Some(Cursor { last, partly: Some(partly) });
                return Ok(call.scrubbed);
            }
            last = Some(key);
        }
        if next.is_some() && call.is_over() {
            call.scrubbed.next = Some(Cursor { last, partly: None });
            return Ok(call.scrubbed);
        }
        if next.is_none() {
            return Ok(call.scrubbed);
        }
    }
}

/// An object that a row names.
struct Stored {
    digest: OciDigest,
    size: u64,
    object: String,
}

impl Stored {
    fn of(row: Scanned) -> Result<Option<Self>, Error> {
        Ok(match keys::kind(&row.key) {
            RowKind::Blob => {
                let Blob { digest, size, object, .. } = row.read()?;
                Some(Self { digest: digest.into(), size, object })
            }
            RowKind::Manifest => {
                let Manifest { digest, size, object, .. } = row.read()?;
                object.map(|object| Self { digest, size, object })
            }
            _ => None,
        })
    }

    fn finding(&self, aside: Option<String>) -> Finding {
        Finding { digest: self.digest, size: self.size, object: self.object.clone(), aside }
    }
}

struct Call<'a> {
    app: &'a App,
    grant: Grant,
    most: u64,
    began: Instant,
    scrubbed: Scrubbed,
}

impl Call<'_> {
    fn is_over(&self) -> bool {
        self.scrubbed.bytes >= self.most || self.began.elapsed() >= MAX_TIME
    }

    /// Checks an object. Returns how far it is if the call may read no more.
    async fn object(&mut self, stored: &Stored, partly: Option<Partly>) -> Result<Option<Partly>, Error> {
        let fresh = |again| Partly { object: stored.object.clone(), again, ..Partly::default() };
        let mut partly = partly.filter(|partly| partly.object == stored.object).unwrap_or_else(|| fresh(false));
        loop {
            if self.is_over() {
                return Ok(Some(partly));
            }
            let right = match self.read_on(stored, &mut partly).await {
                Err(Error::Unavailable(StoreError::NoObject)) => {
                    tracing::error!(digest = %stored.digest, object = stored.object, "an object is lost");
                    self.scrubbed.lost.push(stored.finding(None));
                    return Ok(None);
                }
                read => read?,
            };
            match right {
                None => {}
                Some(true) => {
                    self.scrubbed.objects += 1;
                    return Ok(None);
                }
                Some(false) if partly.again => {
                    self.scrubbed.objects += 1;
                    self.set_aside(stored).await?;
                    return Ok(None);
                }
                Some(false) => partly = fresh(true),
            }
        }
    }

    /// Hashes on. At the end, returns whether the digest is the right one.
    async fn read_on(&mut self, stored: &Stored, partly: &mut Partly) -> Result<Option<bool>, Error> {
        let Stored { digest, size, object } = stored;
        if !self.app.objects.has(object, *size).await? {
            return Err(Error::Unavailable(StoreError::NoObject));
        }
        if let OciDigest::Sha512(_) = digest {
            // Only a manifest can be known by this alone, and it is short.
            let own = self.app.objects.sha512(object).await?;
            self.scrubbed.bytes += size;
            return Ok(Some(own == *digest));
        }
        let unreadable = |_| Error::Invalid("this is no place where a scrub stopped".to_owned());
        let mut hasher = Hasher::restore(partly.hasher.as_deref(), partly.taken).map_err(unreadable)?;
        let most = self.most.saturating_sub(self.scrubbed.bytes).min(size.saturating_sub(partly.taken)).min(STRIDE);
        if most > 0 {
            hasher = self.app.objects.hash(object, hasher, most).await?;
            self.scrubbed.bytes += hasher.taken() - partly.taken;
        }
        if hasher.taken() < *size {
            (partly.taken, partly.hasher) = (hasher.taken(), Some(hasher.save()));
            return Ok(None);
        }
        Ok(Some(OciDigest::from(hasher.finish()) == *digest))
    }

    async fn set_aside(&mut self, stored: &Stored) -> Result<(), Error> {
        let Stored { digest, size, object } = stored;
        let aside = format!("{ASIDE}{object}");
        self.app.objects.copy(&self.grant, object, &aside, *size).await?;
        self.app.objects.delete(&self.grant, object).await?;
        tracing::error!(%digest, object, aside, "an object has wrong bytes; it was set aside");
        self.scrubbed.damaged.push(stored.finding(Some(aside)));
        Ok(())
    }
}
