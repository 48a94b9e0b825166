//! Pushing blobs: the chunks of an upload session, and their result.
//!
//! # Pushing one
//!
//! 1. [Opening](super::start) writes nothing: the upload's id and the right to send bytes to it are in its URL,
//!    signed.
//! 2. Bytes arrive in one or more requests, see [`intake`](super::intake).
//! 3. Closing names the digest. The bytes are made an object that nobody can change, and compared with the digest.
//!    *Wrong bytes*: the upload ends, its reservation is given back, its objects are condemned.
//! 4. In one transaction: write link, blob, charge and account as in any [commit](crate::service::uploads::commit),
//!    and record the result in the upload's row, so that a client that missed the answer can ask again. *Lost*: start
//!    again at 4. *Dies before*: the sweeper collects what the upload holds.

use super::intake::{End, Finished, Incoming, Intake};
use super::{Code, Refused, RepositoryAccess};
use crate::app::App;
use crate::auth::Credential;
use crate::auth::token::UploadTicket;
use crate::changes::blobs::{self, BlobRows, Linked, Linking, VerifiedBytes};
use crate::changes::streams::{self, Stored};
use crate::changes::{Changes, accounts};
use crate::domain::quota::Quota;
use crate::domain::{OciDigest, Repository, Right, TokenPlace, TokenScope, UploadId};
use crate::error::Error;
use crate::random;
use crate::rules::upload::LONGEST_STREAM;
use crate::rules::{Grant, Place};
use crate::service::restore;
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::{Account, EventKind, Flow, Link, Row, Stream};
use crate::store::table::Written;
use crate::telemetry::{self, Count};
use futures::StreamExt;
use std::fmt;
use std::time::Duration;

const CONTENDED: &str = "changes of the same blob";

/// Verified bytes that are to become visible in a repository; `released` bytes of their stream's reservation are given
/// back.
pub(super) fn linking<'a>(
    app: &App,
    repository: &'a Repository,
    name: OciDigest,
    bytes: &'a VerifiedBytes,
    released: u64,
) -> Result<Linking<'a>, Error> {
    let (now, first_version) = (app.now(), random::number()?);
    Ok(Linking { repository, name, bytes, facts: None, sessions: 0, released, now, first_version })
}

/// How long the bytes of a refused request are still read, so that a client that is sending gets to see the reason.
const DRAIN: Duration = Duration::from_secs(10);

/// Reads the remaining bytes of a request that needs none of them and discards them. If the connection were closed
/// while the client sends, it would be reset and the answer lost.
pub fn drain(mut body: Incoming) {
    tokio::spawn(async move {
        let rest = async { while let Some(Ok(_)) = body.next().await {} };
        // A client that sends for longer has received the answer, or does not listen.
        let _ = tokio::time::timeout(DRAIN, rest).await;
    });
}

/// The right to send bytes to an upload, as its URL states it, and what it is for.
pub fn right(app: &App, repository: &Repository, id: UploadId, ticket: &str) -> Result<UploadRight, Refused> {
    let ticket = app.keys.upload(ticket, app.now());
    let ticket = ticket.filter(|ticket| ticket.upload == id && ticket.repository == *repository);
    ticket.map(UploadRight).ok_or_else(unknown_upload)
}

/// The right to send bytes to one upload. Only a URL that we signed gives it.
#[derive(Debug, Clone)]
pub struct UploadRight(UploadTicket);

impl UploadRight {
    /// The user who opened the upload, with their current rights.
    fn credential(&self) -> Credential {
        let rights = [Right::Pull, Right::Push].into();
        let access = vec![TokenScope { rights, place: TokenPlace::Repository(self.0.repository.clone()) }];
        let UploadTicket { actor, token, password, .. } = self.0.clone();
        Credential::Registry { actor, id: token, password, access }
    }

    fn new_row(&self, app: &App) -> Stream {
        let UploadTicket { upload, repository, actor, .. } = &self.0;
        streams::new(*upload, repository.clone(), actor.clone(), app.now().plus(app.config.upload_life))
    }
}

fn unknown_upload() -> Refused {
    Refused::code(Code::BlobUploadUnknown, "there is no such upload, or it has ended")
}

/// The bytes of a request, and what it says about them.
pub struct Chunk {
    /// The bytes.
    pub body: Incoming,
    /// Their number, if stated.
    pub length: Option<u64>,
    /// The position of the first one, if stated.
    pub start: Option<u64>,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("length", &self.length).field("start", &self.start).finish_non_exhaustive()
    }
}

/// An upload, with everything that a request that sends bytes to it needs.
struct Receiving {
    access: RepositoryAccess,
    grant: Grant,
    account: Account,
    row: Option<Stream>,
}

impl Receiving {
    async fn load(app: &App, right: &UploadRight) -> Result<Self, Refused> {
        let (key, account_key) = (keys::stream(right.0.upload), keys::account(right.0.repository.entity()));
        let wanted = [key.clone(), account_key.clone()];
        let mut access = RepositoryAccess::to_write(app, &right.credential(), &right.0.repository, wanted).await?;
        let grant = access.may_push()?;
        // What was deleted does not come back by an upload that was opened before, as another one than it was.
        let there = access.container.as_ref().map(|container| container.id);
        if right.0.container.is_some_and(|id| there != Some(id)) {
            return Err(Refused::code(Code::NameUnknown, "the repository was deleted"));
        }
        let account: Account = access.loaded.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
        let row = access.loaded.take::<Stream>(&key)?;
        Ok(Self { access, grant, account, row })
    }

    /// Resumes the upload for more bytes, if they start where the existing ones end.
    async fn intake<'a>(
        &'a self,
        app: &'a App,
        right: &UploadRight,
        start: Option<u64>,
        length: Option<u64>,
    ) -> Result<Intake<'a>, Refused> {
        let row = self.row.clone();
        let fresh = row.is_none();
        let row = row.unwrap_or_else(|| right.new_row(app));
        if row.flow != Flow::Open {
            return Err(unknown_upload());
        }
        if start.is_some_and(|start| start != row.taken) {
            return Err(Refused::code(Code::Range, format!("the upload has {} bytes, continue there", row.taken)));
        }
        let total = row.taken.saturating_add(length.unwrap_or(0));
        // Checked before any of its bytes is accepted.
        accounts::fits(&self.account, total.saturating_sub(row.reserved))?;
        if total > LONGEST_STREAM {
            return Err(Refused::code(Code::TooLarge, "a blob can have at most 395 GiB"));
        }
        Intake::begin(app, &self.grant, row, fresh, length).await
    }
}

/// The number of bytes of an upload.
pub async fn status(app: &App, right: &UploadRight) -> Result<u64, Refused> {
    let key = keys::stream(right.0.upload);
    let mut access = RepositoryAccess::to_write(app, &right.credential(), &right.0.repository, [key.clone()]).await?;
    access.may_push()?;
    match access.loaded.take::<Stream>(&key)? {
        Some(row) if row.flow != Flow::Open => Err(unknown_upload()),
        row => Ok(row.map_or(0, |row| row.taken)),
    }
}

/// Receives more bytes of an upload; returns the total number afterwards.
pub async fn append(app: &App, right: &UploadRight, mut chunk: Chunk) -> Result<u64, Refused> {
    let taken = append_chunk(app, right, &mut chunk).await;
    if taken.is_err() {
        drain(chunk.body);
    }
    taken
}

async fn append_chunk(app: &App, right: &UploadRight, chunk: &mut Chunk) -> Result<u64, Refused> {
    let receiving = Receiving::load(app, right).await?;
    let account = &receiving.account;
    let mut intake = receiving.intake(app, right, chunk.start, chunk.length).await?;
    match intake.receive(&mut chunk.body, account).await {
        End::Whole => intake.pause(account).await?,
        End::Broken(why) => {
            intake.interrupt(account).await?;
            return Err(why);
        }
    }
    Ok(intake.row.taken)
}

/// Cancels an upload. It is no error if the upload never had bytes, or has ended.
pub async fn cancel(app: &App, right: &UploadRight) -> Result<(), Refused> {
    let key = keys::stream(right.0.upload);
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let repository = &right.0.repository;
        let mut access = RepositoryAccess::to_write(app, &right.credential(), repository, [key.clone()]).await?;
        let grant = access.may_push()?;
        let row = access.loaded.take::<Stream>(&key)?;
        let kept = row.is_some();
        let row = row.unwrap_or_else(|| right.new_row(app));
        if row.flow != Flow::Open {
            return Err(unknown_upload());
        }
        let changes = streams::ended(Stored { row: &row, kept }, app.now())?;
        if app.commit(&grant, changes).await? == Written::Done {
            discard(app, &grant, &row).await;
            return Ok(());
        }
    }
}

/// Deletes what an ended upload held. It is condemned, so if this fails the sweeper does it. But nobody ever had a URL
/// for it, and until then it would be charged to nobody.
async fn discard(app: &App, grant: &Grant, row: &Stream) {
    if let (Some(object), Some(upload)) = (&row.object, &row.upload) {
        let _ = app.objects.abort_parts(grant, object, upload).await;
    }
    for object in [&row.object, &row.tail].into_iter().flatten() {
        let _ = app.objects.delete(grant, object).await;
    }
}

/// Receives the last bytes of an upload, if there are any, and makes a blob of them all. Returns the numbers of the
/// account that pays for it.
pub async fn close(app: &App, right: &UploadRight, digest: &OciDigest, mut chunk: Chunk) -> Result<Quota, Refused> {
    let closed = close_with(app, right, digest, &mut chunk).await;
    if closed.is_err() {
        drain(chunk.body);
    }
    closed
}

async fn close_with(app: &App, right: &UploadRight, digest: &OciDigest, chunk: &mut Chunk) -> Result<Quota, Refused> {
    let repository = &right.0.repository;
    let receiving = Receiving::load(app, right).await?;
    if receiving.row.as_ref().is_some_and(|row| row.flow == Flow::Done(*digest)) {
        return still_there(app, repository, digest).await.map(|()| receiving.account.quota);
    }
    let (account, grant) = (&receiving.account, &receiving.grant);
    let mut intake = receiving.intake(app, right, chunk.start, chunk.length).await?;
    if let End::Broken(why) = intake.receive(&mut chunk.body, account).await {
        intake.interrupt(account).await?;
        return Err(why);
    }
    let Finished { object, hasher, bytes } = intake.finish(account).await?;
    let size = hasher.taken();
    let own = hasher.finish();
    let right_bytes = match (digest, bytes) {
        (OciDigest::Sha256(wanted), _) => *wanted == own,
        (OciDigest::Sha512(_), Some(bytes)) => digest.like(&bytes) == *digest,
        (OciDigest::Sha512(_), None) => app.objects.sha512(&object).await? == *digest,
    };
    if !right_bytes {
        telemetry::count(Count::UploadsRefused, 1);
        let row = Stream { object: Some(object.clone()), upload: None, ..intake.row.clone() };
        let stored = Stored { row: &row, kept: true };
        if intake.as_stored().kept && app.commit(grant, streams::ended(stored, app.now())?).await? != Written::Done {
            // Another request has closed or changed it in the meantime.
            return Err(unknown_upload());
        }
        discard(app, grant, &row).await;
        intake.whole(&object).await;
        return Err(Refused::code(Code::DigestInvalid, format!("{size} bytes with the digest {own} arrived")));
    }
    receiving.access.made(app, grant).await?;
    let verified = VerifiedBytes { digest: own, object: object.clone(), size };
    let committed = commit(app, grant, digest, &verified, intake.as_stored()).await;
    match &committed {
        Ok(_) => intake.whole(&object).await,
        // Delete only what was surely not committed and no row names. After other errors the sweeper checks.
        Err(Refused::Error(Error::QuotaExceeded { .. } | Error::TooManyRows { .. })) if !intake.as_stored().kept => {
            drop(app.objects.delete(grant, &object).await);
        }
        Err(_) => {}
    }
    committed
}

/// Whether the blob that resulted from an upload still exists. Read after the upload's row: a batch is no snapshot.
async fn still_there(app: &App, repository: &Repository, name: &OciDigest) -> Result<(), Refused> {
    let link: Option<Link> = app.table.get(keys::link(repository, name)).await?;
    link.map(drop).ok_or_else(unknown_upload)
}

async fn commit(
    app: &App,
    grant: &Grant,
    name: &OciDigest,
    bytes: &VerifiedBytes,
    stored: Stored<'_>,
) -> Result<Quota, Refused> {
    let row = stored.row;
    let repository = &row.repository;
    let blob_keys = BlobRows::keys(repository, &bytes.digest, name);
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let container = keys::container(repository);
        let wanted = blob_keys.iter().cloned().chain([row.key(), container.clone()]);
        let mut rows = app.table.batch(wanted).await?;
        if !rows.has(&container) {
            return Err(Refused::code(Code::NameUnknown, "the repository was deleted"));
        }
        let now: Option<Stream> = rows.take(&row.key())?;
        if let Some(other) = &now
            && other.version != row.version
        {
            // Another request has closed or changed it in the meantime.
            return match other.flow {
                Flow::Done(done) if done == *name => {
                    still_there(app, repository, name).await?;
                    Ok(BlobRows::take(&mut rows, &blob_keys)?.account.quota)
                }
                _ => Err(unknown_upload()),
            };
        }
        if stored.kept && now.is_none() {
            return Err(unknown_upload());
        }
        let found = BlobRows::take(&mut rows, &blob_keys)?;
        if let Some(blob) = &found.blob {
            restore::bytes(app, grant, bytes, &blob.object).await?;
        }
        let new = linking(app, repository, *name, bytes, row.reserved)?;
        let Linked { writes, object, quota } = blobs::link(found, &new)?;
        let place = Place::Repository(repository.clone());
        let mut changes = Changes::recorded(place, EventKind::BlobLinked { digest: *name }).with(writes);
        changes.add(blobs::repository_there(repository));
        // The same bytes may have existed before.
        let surplus = object != bytes.object;
        if surplus {
            changes.add(blobs::condemned(&bytes.object, None, app.now())?);
        }
        changes.extend(streams::done(stored, *name, &bytes.object, app.now())?);
        if app.commit(grant, changes).await? == Written::Done {
            telemetry::count(Count::BlobsCommitted, 1);
            telemetry::count(Count::BlobBytes, bytes.size);
            if surplus {
                let ours = Stream { object: Some(bytes.object.clone()), upload: None, ..row.clone() };
                discard(app, grant, &ours).await;
            }
            return Ok(quota);
        }
    }
}
