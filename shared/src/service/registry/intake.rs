//! Receiving the bytes of a blob as a stream: into parts of the object store, hashed on the way, with little memory.
//!
//! # Receiving bytes
//!
//! 1. The stream's row records the progress: parts in the store with their `ETag`s, the hasher's state after them, and
//!    an object with the bytes after the last whole part.
//! 2. That remainder is read back, and new bytes are appended to it. At most one part is being filled and one is on
//!    its way to the store. Memory for each is first taken from the process's budget, so that clients wait for the
//!    store and bytes don't pile up in memory.
//! 3. Before the first part of a request is sent to the store, the row's version is incremented. Another request that
//!    sends bytes to the same upload at the same time then fails there, or this one fails here, so two requests never
//!    write the same part of one session. The same write reserves quota: for all bytes if the length is known, else
//!    for a slab at a time.
//! 4. At the end the row is written, conditional on that version: parts, hasher, the object of the remainder. A broken
//!    connection is handled in the same way, at the last whole part: the client is told correctly where to continue.
//!
//! If the process dies in between, it leaves parts that no row names, or the object of another remainder. The final
//! object is assembled from exactly the parts in the row, and the sweeper collects the rest.

use super::buffer::Buffer;
use super::{Code, Refused};
use crate::app::App;
use crate::app::buffers::MIB;
use crate::changes::accounts;
use crate::changes::streams::{self, Reserving, Stored};
use crate::domain::digest::Hasher;
use crate::error::Error;
use crate::rules::Grant;
use crate::rules::upload::{MAX_STREAM_PARTS, stream_part_length};
use crate::service::retry::Retry;
use crate::store::objects::{OwnPart, Part};
use crate::store::rows::{Account, Row, Stream};
use crate::store::table::Written;
use crate::store::{Pieces, StoreError};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::time::Instant;
use tokio::task::JoinHandle;

/// Bytes reserved at a time for a stream whose length is unknown.
const SLAB: u64 = 64 * MIB;
/// The minimum speed of a client: so many bytes within the [patience](crate::config::Config::patience). Each client
/// holds memory for a part, which is limited. A line of 140 kbit/s is enough for each layer that is pushed at the same
/// time.
const PACE: u64 = MIB;

/// The bytes of a request as a stream; an error ends its connection.
pub type Incoming = BoxStream<'static, Result<Bytes, Box<dyn std::error::Error + Send + Sync>>>;

/// The state of a stream while a request sends bytes to it.
pub(super) struct Intake<'a> {
    app: &'a App,
    grant: &'a Grant,
    pub(super) row: Stream,
    /// Whether the row is in the table.
    fresh: bool,
    /// Whether this request has incremented the row's version.
    leased: bool,
    hasher: Hasher,
    /// The bytes after the last whole part.
    held: Buffer,
    /// The total number of bytes after this request, if it is known.
    expected: Option<u64>,
    /// How many bytes this request is still to send, if it is known.
    left: Option<u64>,
    /// The part on its way to the store.
    going: Option<JoinHandle<Result<(String, Hasher), StoreError>>>,
    /// The object of the remainder, according to the last read of the table.
    old_tail: Option<String>,
}

/// All bytes of a stream, in an object that nobody can change any more.
pub(super) struct Finished {
    pub(super) object: String,
    pub(super) hasher: Hasher,
    /// The bytes themselves, if they are short.
    pub(super) bytes: Option<Pieces>,
}

/// How bytes stopped coming.
pub(super) enum End {
    /// All are here.
    Whole,
    /// The connection broke, or its bytes can't be accepted.
    Broken(Refused),
}

impl<'a> Intake<'a> {
    /// Resumes a stream from the state in its row. `length` is the number of bytes that the request sends, if its client
    /// states it.
    pub(super) async fn begin(
        app: &'a App,
        grant: &'a Grant,
        row: Stream,
        fresh: bool,
        length: Option<u64>,
    ) -> Result<Self, Refused> {
        let hasher = Hasher::restore(row.hasher.as_deref(), row.taken - row.tail_size).map_err(Error::from)?;
        let mut intake = Self {
            expected: length.map(|length| row.taken.saturating_add(length)),
            left: length,
            app,
            grant,
            old_tail: row.tail.clone(),
            row,
            fresh,
            leased: false,
            hasher,
            held: Buffer::default(),
            going: None,
        };
        if let Some(tail) = intake.row.tail.clone() {
            // For the part that it begins, since nothing is read back before there is memory for what follows.
            let part = stream_part_length(intake.parts());
            let all = length.map_or(part, |length| part.min(intake.row.tail_size.saturating_add(length)));
            intake.held.acquire(app, all).await?;
            let mut bytes = app.objects.stream(&tail, Some(0..intake.row.tail_size)).await?;
            while let Some(piece) = bytes.next().await {
                intake.held.append(piece.map_err(|error| StoreError::unavailable(&error))?);
            }
        }
        Ok(intake)
    }

    fn parts(&self) -> usize {
        self.row.etags.len() + usize::from(self.going.is_some())
    }

    /// Receives all bytes of a request.
    pub(super) async fn receive(&mut self, body: &mut Incoming, account: &Account) -> End {
        let longest = self.app.config.longest_chunk;
        let broken = |why: &str| End::Broken(Refused::code(Code::BlobUploadInvalid, why));
        let mut came = 0;
        // The timer runs only while we wait for the client, not while it waits for us.
        let (mut left, mut paced) = (self.app.config.patience, 0);
        loop {
            let began = Instant::now();
            let chunk = match tokio::time::timeout(left, body.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) => return End::Whole,
                Ok(Some(Err(_))) => return broken("the connection broke before all bytes arrived"),
                Err(_) => return broken("the bytes arrived too slowly, continue where the upload ends now"),
            };
            (left, paced) = (left.saturating_sub(began.elapsed()), paced + chunk.len() as u64);
            if paced >= PACE {
                (left, paced) = (self.app.config.patience, 0);
            }
            came += chunk.len() as u64;
            if came > longest {
                let why = format!("a request can have at most {longest} bytes here, send smaller chunks");
                return End::Broken(Refused::Code(Code::TooLarge, why));
            }
            if let Err(refused) = self.receive_chunk(chunk, account).await {
                return End::Broken(refused);
            }
        }
    }

    async fn receive_chunk(&mut self, mut chunk: Bytes, account: &Account) -> Result<(), Refused> {
        while !chunk.is_empty() {
            let part = stream_part_length(self.parts());
            self.held.reserve(self.app, part, self.left).await?;
            let missing = usize::try_from(part - self.held.len()).unwrap_or(usize::MAX);
            let piece = chunk.split_to(chunk.len().min(missing));
            self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
            self.held.append(piece);
            if self.held.len() == part {
                self.send_part(account).await?;
            }
        }
        Ok(())
    }

    /// Sends the held bytes to the store as a part, once the part before it is stored.
    async fn send_part(&mut self, account: &Account) -> Result<(), Refused> {
        self.arrive().await?;
        if self.parts() >= MAX_STREAM_PARTS {
            return Err(Refused::code(Code::TooLarge, "a blob can have at most 395 GiB"));
        }
        self.lease(account).await?;
        let (object, upload) = self.begun().await?;
        let (bytes, permit) = std::mem::take(&mut self.held).freeze();
        let (objects, grant, number) = (self.app.objects.clone(), self.grant.clone(), self.row.etags.len() + 1);
        let mut hasher = self.hasher.clone();
        self.going = Some(tokio::spawn(async move {
            let copy = bytes.clone();
            let hashing = tokio::task::spawn_blocking(move || {
                copy.iter().for_each(|piece| hasher.update(piece));
                hasher
            });
            let sent = objects.put_part(&grant, &object, OwnPart { upload: &upload, number, bytes }).await;
            let hasher = hashing.await.map_err(|error| StoreError::Unavailable(error.to_string()));
            drop(permit);
            Ok((sent?, hasher?))
        }));
        Ok(())
    }

    /// The object that is made of the parts and the store's id of its upload, which is begun with the first part.
    async fn begun(&mut self) -> Result<(String, String), Refused> {
        if let Some(begun) = self.row.object.clone().zip(self.row.upload.clone()) {
            return Ok(begun);
        }
        let object = self.app.new_object()?;
        let upload = self.app.objects.begin_parts(self.grant, &object).await?;
        (self.row.object, self.row.upload) = (Some(object.clone()), Some(upload.clone()));
        Ok((object, upload))
    }

    /// Waits for the part that is on its way. Afterwards the part is stored, and the row can record it.
    async fn arrive(&mut self) -> Result<(), Refused> {
        let Some(going) = self.going.take() else { return Ok(()) };
        let arrived = going.await.map_err(|error| Error::Internal(error.to_string()))?;
        let (etag, hasher) = arrived.map_err(|error| match error {
            // Another request has assembled its parts, or cancelled it.
            StoreError::NoObject => over(),
            error => error.into(),
        })?;
        self.row.etags.push(etag);
        self.row.taken = hasher.taken();
        self.hasher = hasher;
        (self.row.tail, self.row.tail_size) = (None, 0);
        Ok(())
    }

    /// The number of bytes, including the held ones.
    fn taken(&self) -> u64 {
        self.row.taken - self.row.tail_size + self.held.len()
    }

    /// Increments the row's version, so that no other request can send bytes in the meantime. Also reserves quota: for
    /// all expected bytes, or for a slab at a time. If that is too much, reserves for the bytes that are here.
    async fn lease(&mut self, account: &Account) -> Result<(), Refused> {
        let here = self.taken();
        if self.leased && here <= self.row.reserved {
            return Ok(());
        }
        let hoped = self.expected.unwrap_or_else(|| here.next_multiple_of(SLAB)).max(here);
        let expires = self.app.now().plus(self.app.config.upload_life);
        self.write(Stream { expires, ..self.stored() }, Reserving { least: here, hoped }, account).await?;
        self.leased = true;
        Ok(())
    }

    /// Writes the row, unless somebody else has. Also reserves the preferred number of bytes or, if those are too
    /// many, the minimum.
    async fn write(&mut self, row: Stream, reserving: Reserving, account: &Account) -> Result<(), Refused> {
        let mut account = account.clone();
        let mut retry = Retry::of("changes of the same account");
        loop {
            retry.pause().await?;
            let (row, changes) = streams::written(self.as_stored(), row.clone(), reserving, &account)?;
            match self.app.commit(self.grant, changes).await? {
                Written::Done => {
                    self.row = row;
                    self.fresh = false;
                    return Ok(());
                }
                Written::Lost(failed) if failed.contains(&0) => return Err(busy()),
                // Somebody else changed the account since it was read.
                Written::Lost(_) => {
                    account = self.app.table.get(account.key()).await?.ok_or(Error::NotFound("entity"))?;
                }
            }
        }
    }

    /// The row as it was last read or written.
    pub(super) fn as_stored(&self) -> Stored<'_> {
        Stored { row: &self.row, kept: !self.fresh }
    }

    /// The row as it can be written now: with what is really in the store.
    fn stored(&self) -> Stream {
        Stream { hasher: Some(self.hasher.save()), ..self.row.clone() }
    }

    /// Saves the progress of the stream, with the held bytes in an object of their own.
    pub(super) async fn pause(&mut self, account: &Account) -> Result<(), Refused> {
        self.arrive().await?;
        let (bytes, _permit) = std::mem::take(&mut self.held).freeze();
        let mut row = self.stored();
        row.taken = row.taken - row.tail_size + bytes.len();
        row.tail_size = bytes.len();
        row.tail = None;
        if !bytes.is_empty() {
            let tail = self.app.new_object()?;
            self.app.objects.put_pieces(self.grant, &tail, bytes).await?;
            row.tail = Some(tail);
        }
        let (here, tail) = (row.taken, row.tail.clone());
        let written = self.write(row, Reserving::exactly(here), account).await;
        match &written {
            Ok(()) => self.forget(self.old_tail.as_deref()).await,
            // Delete only what was surely not recorded; after other errors the sweeper checks.
            Err(Refused::Code(..) | Refused::Error(Error::QuotaExceeded { .. } | Error::TooManyRows { .. })) => {
                self.forget(tail.as_deref()).await;
            }
            Err(_) => {}
        }
        written
    }

    /// Forgets the object of the remainder that was read back, once the bytes are complete without it.
    pub(super) async fn whole(&self, object: &str) {
        if self.old_tail.as_deref() != Some(object) && self.row.tail.is_none() {
            self.forget(self.old_tail.as_deref()).await;
        }
    }

    /// Saves the progress of a stream whose connection broke: up to the last whole part. If none of its bytes reached
    /// the store, nothing changed.
    pub(super) async fn interrupt(&mut self, account: &Account) -> Result<(), Refused> {
        if !self.leased {
            return Ok(());
        }
        self.arrive().await?;
        let row = self.stored();
        let stale = self.old_tail.clone().filter(|_| row.tail != self.old_tail);
        let here = row.taken;
        self.write(row, Reserving::exactly(here), account).await?;
        self.forget(stale.as_deref()).await;
        Ok(())
    }

    /// Deletes the object of a remainder that no row names. No client ever had a URL for it. If this fails, the
    /// sweeper does it.
    async fn forget(&self, tail: Option<&str>) {
        if let Some(tail) = tail {
            let _ = self.app.objects.delete(self.grant, tail).await;
        }
    }

    /// Sends the held bytes to the store, so that one object has all bytes and nobody can change it any more.
    pub(super) async fn finish(&mut self, account: &Account) -> Result<Finished, Refused> {
        if self.parts() == 0 {
            let (bytes, _permit) = std::mem::take(&mut self.held).freeze();
            let mut hasher = Hasher::default();
            bytes.iter().for_each(|piece| hasher.update(piece));
            let size = bytes.len();
            if let Some(tail) = self.row.tail.clone().filter(|_| self.row.tail_size == size) {
                return Ok(Finished { object: tail, hasher, bytes: Some(bytes) });
            }
            accounts::fits(account, size.saturating_sub(self.row.reserved))?;
            let object = self.app.new_object()?;
            self.app.objects.put_pieces(self.grant, &object, bytes.clone()).await?;
            return Ok(Finished { object, hasher, bytes: Some(bytes) });
        }
        if self.held.len() > 0 {
            self.expected = Some(self.taken());
            self.send_part(account).await?;
        }
        self.arrive().await?;
        let parts = self.row.etags.iter().zip(1..);
        let parts: Vec<_> = parts.map(|(etag, number)| Part { number, etag: etag.clone() }).collect();
        let Some((object, upload)) = self.row.object.clone().zip(self.row.upload.as_deref()) else {
            return Err(Error::Internal("parts without an upload".to_owned()).into());
        };
        match self.app.objects.complete_parts(self.grant, &object, upload, &parts).await {
            Ok(()) => {}
            // It was assembled by a request that died or had other bytes. It can't change any more, so it can be read.
            Err(StoreError::NoObject) => {
                let size = self.app.objects.size(&object).await?.ok_or_else(over)?;
                let hasher = self.app.objects.hash(&object, Hasher::default(), size).await;
                let hasher = hasher.map_err(|error| match error {
                    StoreError::NoObject => over(),
                    error => error.into(),
                })?;
                return Ok(Finished { object, hasher, bytes: None });
            }
            Err(StoreError::Refused(_)) => {
                return Err(Refused::code(Code::BlobUploadInvalid, "the upload has changed, start again"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Finished { object, hasher: self.hasher.clone(), bytes: None })
    }
}

fn over() -> Refused {
    Refused::code(Code::BlobUploadInvalid, "the upload has ended, start again")
}

fn busy() -> Refused {
    Refused::code(Code::Range, "another request is sending bytes to this upload")
}
