//! Blobs: finding them, bringing them, mounting them, taking them away.
//!
//! # Bringing one
//!
//! 1. Opening writes nothing: the upload's id and the right to bring bytes to it are in its URL, signed.
//! 2. Bytes come in one request or many, see [`intake`](super::intake).
//! 3. Closing names the digest. The bytes are made an object that nobody can change, and compared with it.
//! 4. In one transaction: link, blob, charge and account as at any [commit](crate::service::commit), and the upload's row
//!    says what became of it, so that whoever did not hear the answer can ask again.
//!
//! Wrong bytes end the upload: what it reserved is given back, its objects are condemned.

use super::intake::{End, Incoming, Intake, LONGEST, fits, linger};
use super::{Code, Desk, Refused};
use crate::app::App;
use crate::auth::Credential;
use crate::auth::token::UploadTicket;
use crate::domain::time::SKEW;
use crate::domain::{Digest, OciDigest, Repository, Right, Time, TokenPlace, TokenScope, UploadId};
use crate::error::Error;
use crate::rules::{Action, Grant, Place, Resource};
use crate::service::commit::{Bytes, Found, Settling, bind, condemn, renamed, unasked, unbind, unchanged};
use crate::service::retry::{Retry, Try};
use crate::store::keys;
use crate::store::objects::ByteStream;
use crate::store::rows::{Account, Blob, Charge, Container, Flow, Link, Marker, Naming, Row, Stream};
use crate::store::table::{Condition, Write, Written};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// The longest life of a URL that a registry client is sent to. It is used at once, and who resumes asks anew.
const URL_LIFE: Duration = Duration::from_mins(20);
/// How long it is remembered what became of an upload.
const REMEMBERED: Duration = Duration::from_hours(1);

/// A blob that may be read.
#[derive(Debug)]
pub struct Readable {
    /// Bytes.
    pub size: u64,
    object: Option<String>,
}

/// How long a link stays that no manifest names, after a push last asked for it: time enough for the rest of that push.
pub(crate) const LEASE: Duration = Duration::from_hours(24);
/// How old it may be before it is noted again that a push asks for it.
const NOTED: Duration = Duration::from_hours(1);
// A push that is told that a blob is there has half a day for the rest, whichever hosts noted it and sweep it.
const _: () = assert!(LEASE.as_secs() >= NOTED.as_secs() + 2 * SKEW.as_secs() + 12 * 3600);
// What became of an upload is remembered for a while wherever it is asked.
const _: () = assert!(REMEMBERED.as_secs() >= 4 * SKEW.as_secs());

/// Finds a blob in a repository, to know whether it is there. A push that is told so will not bring it: where the caller
/// may push, it is noted that it was asked for, once an hour at most, and stays for a day.
pub async fn look(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<Readable, Refused> {
    let (desk, found) = seen(app, credential, repository, digest).await?;
    let now = app.now();
    if let Seen::Link(link) = &found
        && link.seen.plus(NOTED) < now
        && let Ok(grant) = desk.scene.decide(Action::Push, &desk.resource())
    {
        let noted = Write::put(&Link { seen: now, ..link.clone() }, unasked(link))?;
        if app.table.write(&grant, vec![noted]).await? != Written::Done {
            // Somebody else noted it, or it went just now.
            return find(app, credential, repository, digest).await;
        }
    }
    Ok(found.into())
}

/// Finds a blob in a repository. One round.
pub async fn find(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<Readable, Refused> {
    Ok(seen(app, credential, repository, digest).await?.1.into())
}

/// What makes a blob visible in a repository.
enum Seen {
    /// Its link.
    Link(Link),
    /// It is the configuration of library images, which has no bytes.
    Marker,
}

impl From<Seen> for Readable {
    fn from(seen: Seen) -> Self {
        match seen {
            Seen::Link(link) => Self { size: link.size, object: Some(link.object) },
            Seen::Marker => Self { size: crate::domain::manifest::EMPTY.len() as u64, object: None },
        }
    }
}

/// Looks for a blob in a repository that the caller may pull from.
async fn seen(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<(Desk, Seen), Refused> {
    let link_key = keys::link(repository, digest);
    let marker = (*digest == empty()).then(|| keys::marker(repository));
    let wanted = [link_key.clone()].into_iter().chain(marker.clone());
    let mut desk = Desk::to_read(app, credential, repository, wanted).await?;
    desk.may_pull(Code::BlobUnknown, "blob")?;
    let link: Option<Link> = desk.scene.take(&link_key)?;
    let seen = match (link, marker) {
        (Some(link), _) => Seen::Link(link),
        (None, Some(key)) if desk.scene.take::<Marker>(&key)?.is_some() => Seen::Marker,
        _ => return Err(Refused::code(Code::BlobUnknown, "blob unknown")),
    };
    Ok((desk, seen))
}

/// The digest of `{}`, the configuration of every SIF image. Where library images are, it is there without bytes.
pub(super) fn empty() -> OciDigest {
    Digest::of(crate::domain::manifest::EMPTY).into()
}

impl Readable {
    /// The bytes, or those of a range, as they come.
    pub async fn bytes(&self, app: &App, range: Option<Range<u64>>) -> Result<ByteStream, Refused> {
        if let Some(object) = &self.object {
            return Ok(app.objects.stream(object, range).await?);
        }
        let whole = crate::domain::manifest::EMPTY;
        let index = |at: u64| usize::try_from(at).unwrap_or(whole.len()).min(whole.len());
        let (start, end) = range.map_or((0, whole.len()), |range| (index(range.start), index(range.end)));
        Ok(ByteStream::from_static(whole.get(start..end).unwrap_or_default()))
    }

    /// A URL for the bytes, for a short while; `None` for those that are in no store.
    pub async fn url(&self, app: &App) -> Result<Option<String>, Refused> {
        let Some(object) = &self.object else { return Ok(None) };
        Ok(Some(app.objects.presign_get(object, None, URL_LIFE.min(app.config.download_life)).await?))
    }
}

/// An upload that was opened, and the right to bring its bytes.
#[derive(Debug)]
pub struct Opened {
    /// Its id.
    pub id: UploadId,
    /// The right, to be put into its URL.
    pub ticket: String,
}

/// What an opened upload comes to.
#[derive(Debug)]
pub enum Begun {
    /// The blob is there already.
    Mounted,
    /// Its bytes are to be brought.
    Upload(Opened),
}

/// A blob that might be mounted instead of brought.
#[derive(Debug)]
pub struct Mount {
    /// Which.
    pub digest: OciDigest,
    /// From where; `None`: from wherever it is.
    pub from: Option<Repository>,
}

/// Opens an upload, or mounts the blob. What can't be mounted has to be brought, for whatever reason.
pub async fn open(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    mount: Option<Mount>,
) -> Result<Begun, Refused> {
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let from = mount.as_ref().and_then(|mount| mount.from.as_ref().map(|from| (from, mount.digest)));
        let source = match from {
            Some((from, digest)) => readable_link(app, credential, from, &digest).await?,
            None => None,
        };
        let mut wanted = vec![keys::account(repository.entity())];
        if let Some(link) = &source {
            let (blob, charge) = (keys::blob(&link.digest), keys::charge(repository.entity(), &link.digest));
            wanted.extend([blob, charge, keys::link(repository, &link.name)]);
        }
        let mut desk = Desk::to_write(app, credential, repository, wanted).await?;
        let grant = desk.may_push()?;
        if let Some(source) = source {
            match mounted(app, &mut desk, &grant, &source).await? {
                Try::Done(mounted) => return Ok(mounted),
                Try::Lost => continue,
            }
        }
        return Ok(Begun::Upload(ticket(app, credential, repository)?));
    }
}

const CONTENDED: &str = "changes of the same thing";

fn ticket(app: &App, credential: &Credential, repository: &Repository) -> Result<Opened, Refused> {
    let (user, token) = match credential {
        Credential::Anonymous => return Err(Error::Unauthenticated(crate::error::NO_TOKEN).into()),
        Credential::Token { user, id } => (user, Some(*id)),
        Credential::Registry { user, id, .. } => (user, *id),
    };
    let id = app.new_upload()?;
    let until = app.now().plus(app.config.upload_life);
    let right = UploadTicket { upload: id, repository: repository.clone(), user: user.clone(), token, until };
    Ok(Opened { id, ticket: app.keys.sign_upload(&right)? })
}

/// The link of a blob in another repository that the caller may pull from.
async fn readable_link(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<Option<Link>, Refused> {
    let key = keys::link(repository, digest);
    let mut desk = Desk::to_read(app, credential, repository, [key.clone()]).await?;
    if desk.may_pull(Code::BlobUnknown, "blob").is_err() {
        return Ok(None);
    }
    Ok(desk.scene.take(&key)?)
}

async fn mounted(app: &App, desk: &mut Desk, grant: &Grant, source: &Link) -> Result<Try<Begun>, Refused> {
    let entity = desk.repository.entity().clone();
    let blob: Option<Blob> = desk.scene.take(&keys::blob(&source.digest))?;
    let Some(blob) = blob else { return Ok(Try::Lost) };
    let account: Account = desk.scene.take(&keys::account(&entity))?.ok_or(Error::NotFound("entity"))?;
    let charge: Option<Charge> = desk.scene.take(&keys::charge(&entity, &source.digest))?;
    let link: Option<Link> = desk.scene.take(&keys::link(&desk.repository, &source.name))?;
    desk.container(app, grant).await?;
    let bytes = Bytes { digest: blob.digest, object: blob.object.clone(), size: blob.size };
    let by = Settling { digest: blob.digest, size: blob.size, links: 0, sessions: 0, back: 0 };
    let found = Found { blob: Some(blob), link, charge, account };
    let mut writes = Vec::new();
    bind(app, &mut writes, &desk.repository, &source.name, (&bytes, None), found, by)?;
    Ok(Try::of(&app.table.write(grant, writes).await?, Begun::Mounted))
}

/// The right to bring bytes to an upload, as its URL has it, and what it is for.
pub fn right(app: &App, repository: &Repository, id: UploadId, ticket: &str) -> Result<BringRight, Refused> {
    let ticket = app.keys.upload(ticket, app.now());
    let ticket = ticket.filter(|ticket| ticket.upload == id && ticket.repository == *repository);
    ticket.map(BringRight).ok_or_else(unknown_upload)
}

/// The right to bring bytes to one upload. Only a URL that we signed gives it.
#[derive(Debug, Clone)]
pub struct BringRight(UploadTicket);

impl BringRight {
    /// Who brings them: whoever opened the upload, and their rights at this moment.
    fn credential(&self) -> Credential {
        let rights = [Right::Pull, Right::Push].into();
        let access = vec![TokenScope { rights, place: TokenPlace::Repository(self.0.repository.clone()) }];
        Credential::Registry { user: self.0.user.clone(), id: self.0.token, access }
    }

    fn new_row(&self, app: &App) -> Stream {
        Stream {
            id: self.0.upload,
            repository: self.0.repository.clone(),
            opened_by: self.0.user.clone(),
            flow: Flow::Open,
            taken: 0,
            hasher: String::new(),
            object: String::new(),
            upload: String::new(),
            etags: Vec::new(),
            tail: String::new(),
            tail_size: 0,
            reserved: 0,
            expires: app.now().plus(app.config.upload_life),
            version: 0,
        }
    }
}

fn unknown_upload() -> Refused {
    Refused::code(Code::BlobUploadUnknown, "there is no such upload, or it is over")
}

/// Bytes that a request brings, and what it says of them.
pub struct Brought {
    /// The bytes.
    pub body: Incoming,
    /// How many, where it says so.
    pub length: Option<u64>,
    /// Where the first of them belongs, where it says so.
    pub start: Option<u64>,
}

impl fmt::Debug for Brought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brought").field("length", &self.length).field("start", &self.start).finish_non_exhaustive()
    }
}

/// How many bytes an upload has.
pub async fn status(app: &App, right: &BringRight) -> Result<u64, Refused> {
    let key = keys::stream(right.0.upload);
    let mut desk = Desk::to_write(app, &right.credential(), &right.0.repository, [key.clone()]).await?;
    desk.may_push()?;
    match desk.scene.take::<Stream>(&key)? {
        Some(row) if row.flow != Flow::Open => Err(unknown_upload()),
        row => Ok(row.map_or(0, |row| row.taken)),
    }
}

/// Takes more bytes of an upload in; returns how many it has then.
pub async fn bring(app: &App, right: &BringRight, mut brought: Brought) -> Result<u64, Refused> {
    let taken = bring_some(app, right, &mut brought).await;
    if taken.is_err() {
        linger(brought.body);
    }
    taken
}

async fn bring_some(app: &App, right: &BringRight, brought: &mut Brought) -> Result<u64, Refused> {
    let (key, account_key) = (keys::stream(right.0.upload), keys::account(right.0.repository.entity()));
    let wanted = [key.clone(), account_key.clone()];
    let mut desk = Desk::to_write(app, &right.credential(), &right.0.repository, wanted).await?;
    let grant = desk.may_push()?;
    let account: Account = desk.scene.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
    let row = desk.scene.take::<Stream>(&key)?;
    let mut intake = intake(app, right, &grant, row, (brought.start, brought.length), &account).await?;
    match intake.take(&mut brought.body, brought.length, &account).await {
        End::Whole => intake.pause(&account).await?,
        End::Broken(why) => {
            intake.break_off(&account).await?;
            return Err(why);
        }
    }
    Ok(intake.row.taken)
}

/// Takes an upload up to bring more bytes, if they belong where its others end.
async fn intake<'a>(
    app: &'a App,
    right: &BringRight,
    grant: &'a Grant,
    row: Option<Stream>,
    (start, length): (Option<u64>, Option<u64>),
    account: &Account,
) -> Result<Intake<'a>, Refused> {
    let fresh = row.is_none();
    let row = row.unwrap_or_else(|| right.new_row(app));
    if row.flow != Flow::Open {
        return Err(unknown_upload());
    }
    if start.is_some_and(|start| start != row.taken) {
        return Err(Refused::code(Code::Range, format!("the upload has {} bytes, go on there", row.taken)));
    }
    let total = row.taken.saturating_add(length.unwrap_or(0));
    fits(account, total.saturating_sub(row.reserved))?;
    if total > LONGEST {
        return Err(Refused::code(Code::TooLarge, "a blob has at most 395 GiB"));
    }
    Intake::begin(app, grant, row, fresh).await
}

/// Gives an upload up. One that never had bytes, or is over, is fine.
pub async fn cancel(app: &App, right: &BringRight) -> Result<(), Refused> {
    let key = keys::stream(right.0.upload);
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let mut desk = Desk::to_write(app, &right.credential(), &right.0.repository, [key.clone()]).await?;
        let grant = desk.may_push()?;
        let row = desk.scene.take::<Stream>(&key)?;
        let fresh = row.is_none();
        let row = row.unwrap_or_else(|| right.new_row(app));
        if row.flow != Flow::Open {
            return Err(unknown_upload());
        }
        if end(app, &grant, &row, fresh).await? == Written::Done {
            discard(app, &grant, &row).await;
            return Ok(());
        }
    }
}

/// Ends an upload without a blob: what it reserved is given back, its objects are condemned.
pub(crate) async fn end(app: &App, grant: &Grant, row: &Stream, fresh: bool) -> Result<Written, Refused> {
    let condition = if fresh { Condition::Absent } else { Condition::Version(row.version) };
    let over = Stream { flow: Flow::Over, version: row.version + 1, ..ended(app, row) };
    let mut writes = vec![Write::put(&over, condition)?];
    writes.extend(given_back(app, row)?);
    Ok(app.table.write(grant, writes).await?)
}

/// Deletes what an upload held that is over. It is condemned, so what fails here the sweeper does; but nobody was ever
/// given a URL of it, and until then nobody would pay for it.
async fn discard(app: &App, grant: &Grant, row: &Stream) {
    if !row.upload.is_empty() {
        let _ = app.objects.abort_parts(grant, &row.object, &row.upload).await;
    }
    for object in [&row.object, &row.tail].into_iter().filter(|object| !object.is_empty()) {
        let _ = app.objects.delete(grant, object).await;
    }
}

/// The writes that give back what an upload holds: its reservation and its objects.
pub(crate) fn given_back(app: &App, row: &Stream) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::new();
    if row.reserved > 0 {
        let less = -i128::from(row.reserved);
        let account = keys::account(row.repository.entity());
        writes.push(Write::add(account, vec![("charged", less), ("reserved", less)], Condition::Present));
    }
    if !row.object.is_empty() {
        writes.push(condemn(
            app,
            &row.object,
            Some(&row.upload).filter(|upload| !upload.is_empty()).map(String::as_str),
        )?);
    }
    if !row.tail.is_empty() && row.tail != row.object {
        writes.push(condemn(app, &row.tail, None)?);
    }
    Ok(writes)
}

/// The row of an upload that holds nothing any more.
fn ended(app: &App, row: &Stream) -> Stream {
    Stream {
        hasher: String::new(),
        object: String::new(),
        upload: String::new(),
        etags: Vec::new(),
        tail: String::new(),
        tail_size: 0,
        reserved: 0,
        expires: app.now().plus(REMEMBERED),
        ..row.clone()
    }
}

/// Takes the last bytes of an upload in, if any come, and makes the blob of it.
pub async fn close(app: &App, right: &BringRight, digest: &OciDigest, mut brought: Brought) -> Result<(), Refused> {
    let closed = close_with(app, right, digest, &mut brought).await;
    if closed.is_err() {
        linger(brought.body);
    }
    closed
}

async fn close_with(app: &App, right: &BringRight, digest: &OciDigest, brought: &mut Brought) -> Result<(), Refused> {
    let repository = &right.0.repository;
    let (key, account_key) = (keys::stream(right.0.upload), keys::account(repository.entity()));
    let wanted = [key.clone(), account_key.clone()];
    let mut desk = Desk::to_write(app, &right.credential(), repository, wanted).await?;
    let grant = desk.may_push()?;
    let account: Account = desk.scene.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
    let row = desk.scene.take::<Stream>(&key)?;
    if row.as_ref().is_some_and(|row| row.flow == Flow::Done(*digest)) {
        return still_there(app, repository, digest).await;
    }
    let mut intake = intake(app, right, &grant, row, (brought.start, brought.length), &account).await?;
    if let End::Broken(why) = intake.take(&mut brought.body, brought.length, &account).await {
        intake.break_off(&account).await?;
        return Err(why);
    }
    let (object, hasher, bytes) = intake.finish(&account).await?;
    let size = hasher.taken();
    let own = hasher.finish();
    let right_bytes = match (digest, bytes) {
        (OciDigest::Sha256(wanted), _) => *wanted == own,
        (OciDigest::Sha512(_), Some(bytes)) => digest.like(&bytes) == *digest,
        (OciDigest::Sha512(_), None) => app.objects.sha512(&object).await? == *digest,
    };
    if !right_bytes {
        let row = Stream { object: object.clone(), upload: String::new(), ..intake.row.clone() };
        if intake.kept() && end(app, &grant, &row, false).await? != Written::Done {
            // Another request has closed or changed it meanwhile.
            return Err(unknown_upload());
        }
        discard(app, &grant, &row).await;
        intake.whole(&object).await;
        return Err(Refused::code(Code::DigestInvalid, format!("{size} bytes with the digest {own} arrived")));
    }
    desk.container(app, &grant).await?;
    let kept = intake.kept();
    let verified = Bytes { digest: own, object: object.clone(), size };
    let committed = commit(app, &grant, repository, digest, verified, &intake.row, kept).await;
    match &committed {
        Ok(()) => intake.whole(&object).await,
        // What was surely not committed and no row names. After other errors the sweeper looks.
        Err(Refused::Error(Error::QuotaExceeded { .. })) if !kept => drop(app.objects.delete(&grant, &object).await),
        Err(_) => {}
    }
    committed
}

/// Whether the blob that an upload came to is still there. Read after the upload's row: a batch is no snapshot.
async fn still_there(app: &App, repository: &Repository, name: &OciDigest) -> Result<(), Refused> {
    let link: Option<Link> = app.table.get(keys::link(repository, name)).await?;
    link.map(drop).ok_or_else(unknown_upload)
}

async fn commit(
    app: &App,
    grant: &Grant,
    repository: &Repository,
    name: &OciDigest,
    bytes: Bytes,
    row: &Stream,
    kept: bool,
) -> Result<(), Refused> {
    let entity = repository.entity();
    let (blob_key, charge_key) = (keys::blob(&bytes.digest), keys::charge(entity, &bytes.digest));
    let (link_key, account_key) = (keys::link(repository, name), keys::account(entity));
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let wanted = [&blob_key, &charge_key, &link_key, &account_key].map(Clone::clone);
        let mut rows = app.table.batch(wanted.into_iter().chain([row.key()])).await?;
        let stored: Option<Stream> = rows.take(&row.key())?;
        if let Some(other) = &stored
            && other.version != row.version
        {
            // Another request has closed or changed it meanwhile.
            return match other.flow {
                Flow::Done(done) if done == *name => still_there(app, repository, name).await,
                _ => Err(unknown_upload()),
            };
        }
        if kept && stored.is_none() {
            return Err(unknown_upload());
        }
        let found = Found {
            blob: rows.take(&blob_key)?,
            link: rows.take(&link_key)?,
            charge: rows.take(&charge_key)?,
            account: rows.take(&account_key)?.ok_or(Error::NotFound("entity"))?,
        };
        let by = Settling { digest: bytes.digest, size: bytes.size, links: 0, sessions: 0, back: row.reserved };
        let mut writes = Vec::new();
        let (object, _) = bind(app, &mut writes, repository, name, (&bytes, None), found, by)?;
        if object != bytes.object {
            writes.push(condemn(app, &bytes.object, None)?);
        }
        if !row.tail.is_empty() && row.tail != bytes.object {
            writes.push(condemn(app, &row.tail, None)?);
        }
        let done = Stream { flow: Flow::Done(*name), version: row.version + 1, ..ended(app, row) };
        let condition = if kept { Condition::Version(row.version) } else { Condition::Absent };
        writes.push(Write::put(&done, condition)?);
        if app.table.write(grant, writes).await? == Written::Done {
            if object != bytes.object {
                // The same bytes were here before.
                discard(app, grant, &Stream { object: bytes.object, upload: String::new(), ..row.clone() }).await;
            }
            return Ok(());
        }
    }
}

/// Takes a blob out of a repository. What a manifest there still names stays.
pub async fn remove(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    digest: &OciDigest,
) -> Result<(), Refused> {
    let link_key = keys::link(repository, digest);
    let mut desk = Desk::to_write(app, credential, repository, [link_key.clone()]).await?;
    let missing = Resource::Missing(Place::Repository(repository.clone()));
    let link: Option<Link> = desk.scene.take(&link_key)?;
    let resource = link.as_ref().map_or(missing, |_| desk.resource());
    let grant = desk.decide(Action::Delete, &resource, Code::BlobUnknown, "blob")?;
    let Some(link) = link else { return Err(Refused::code(Code::BlobUnknown, "blob unknown")) };
    match free(app, &grant, repository, &[link.name], app.now()).await? {
        0 => Err(Refused::code(Code::Denied, "a manifest of this repository names the blob, delete that first")),
        _ => Ok(()),
    }
}

/// Takes those links away that no manifest of the repository names any more and that no push asked for after `before`;
/// returns how many went.
///
/// 1. Read the repository's epoch, then its manifests.
/// 2. For each link, in one transaction: link, charge, account and blob, under the condition that the epoch is still the
///    same. Whoever comes to name something counts it on, so nothing goes that is named.
pub(crate) async fn free(
    app: &App,
    grant: &Grant,
    repository: &Repository,
    names: &[OciDigest],
    before: Time,
) -> Result<usize, Refused> {
    let mut gone = 0;
    let mut left: BTreeSet<OciDigest> = names.iter().copied().collect();
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let container: Option<Container> = app.table.get(keys::container(repository)).await?;
        let Some(mut container) = container else { return Ok(gone) };
        let stays = |row: Naming| {
            for name in &row.names {
                left.remove(name);
            }
        };
        app.table.each(keys::manifests(repository), Naming::ATTRIBUTES, stays).await?;
        let mut again = BTreeSet::new();
        for name in std::mem::take(&mut left) {
            match free_one(app, grant, &container, &name, before).await? {
                Try::Done(went) => {
                    gone += usize::from(went);
                    container.epoch += u64::from(went);
                }
                Try::Lost => {
                    again.insert(name);
                }
            }
        }
        if again.is_empty() {
            return Ok(gone);
        }
        left = again;
    }
}

async fn free_one(
    app: &App,
    grant: &Grant,
    container: &Container,
    name: &OciDigest,
    before: Time,
) -> Result<Try<bool>, Refused> {
    let repository = &container.repository;
    let link = app.table.get::<Link>(keys::link(repository, name)).await?;
    let Some(link) = link.filter(|link| link.seen <= before) else { return Ok(Try::Done(false)) };
    let (charge_key, blob_key) = (keys::charge(repository.entity(), &link.digest), keys::blob(&link.digest));
    let account_key = keys::account(repository.entity());
    let mut rows = app.table.batch([charge_key.clone(), blob_key.clone(), account_key.clone()]).await?;
    let account: Account = rows.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
    let mut writes = vec![renamed(repository, unchanged(container))];
    unbind(app, &mut writes, &link, (&account, rows.take(&charge_key)?, rows.take(&blob_key)?))?;
    Ok(Try::of(&app.table.write(grant, writes).await?, true))
}

/// Gives back what an upload holds that ended long ago or will never end, and forgets it. For the sweeper.
pub(crate) async fn forget(app: &App, grant: &Grant, row: &Stream) -> Result<(), Refused> {
    let mut writes = vec![Write::delete(row.key(), Condition::Version(row.version))];
    writes.extend(given_back(app, row)?);
    Ok(app.table.write(grant, writes).await.map(drop)?)
}
