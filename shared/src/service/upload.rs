//! Bringing the bytes of an image: sessions, and what happens to their bytes.
//!
//! # Opening
//!
//! 1. Read the id's target and the session of single `PUT`s; then the container, the image, the charge and the account.
//! 2. Multipart only: begin the store's own upload. Dying after this leaves an upload that no session names; the sweeper
//!    finds it in the store's list.
//! 3. In one transaction: the session row, the reservation (one for all sessions of an entity and digest), the account.
//!    The account's condition is the quota: racing past it is not possible.
//! 4. Presign. URLs die with their session.
//!
//! # Completing
//!
//! 1. Read the same rows. An image that is committed already is success, however often it is asked.
//! 2. Make the bytes immutable: a pinned `PUT` can only have written the right ones; a staged one is copied to an object
//!    that no client knows; parts are put together, after which their URLs are dead. Each can be done again.
//! 3. Verify: the store refused other bytes (pinned), or we read the whole object and compare digest and size.
//! 4. Read what the image says of itself, in a few ranges.
//! 5. [Commit](super::commit). If 3 or 4 refuse the bytes, one transaction removes the session, gives the reservation
//!    back and condemns the object.

use super::access::Scene;
use super::commit::{self, Known, Settling, TRIES, condemn, settle};
use super::create::{may_push, missing, target};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::quota::Quota;
use crate::domain::sif::{self, SifFacts};
use crate::domain::{Digest, Id, Time, UploadId};
use crate::error::Error;
use crate::rules::upload::{MAX_SIZE, part_length, parts};
use crate::rules::{Action, Grant, Resource};
use crate::store::objects::{MAX_PUT, Part};
use crate::store::rows::{Account, Charge, Container, Image, Row, Session, Target, Way};
use crate::store::table::{Condition, Write, pause};
use crate::store::{StoreError, keys};
use std::time::Duration;

const DOING: &str = "push this image";

/// An image about to receive bytes, and what opening or completing needs to know.
struct Aim {
    grant: Grant,
    image: Image,
    /// The session of single `PUT`s, or the one that was asked for.
    session: Option<Session>,
    charge: Option<Charge>,
    account: Account,
}

/// Two rounds: from the image's id to everything about it; decides that the caller may push there.
async fn aim(app: &App, credential: &Credential, image: Id, session: UploadId) -> Result<Aim, Error> {
    let session_key = keys::session(session);
    let mut scene = Scene::load(app, credential, None, [keys::pointer(image), session_key.clone()]).await?;
    let Some(Target::Image(repository, hash)) = target(&mut scene, image)? else {
        return Err(missing(&scene, DOING, "image"));
    };
    let entity = repository.entity();
    let (container_key, image_key) = (keys::container(&repository), keys::image(&repository, &hash));
    let (charge_key, account_key) = (keys::charge(entity, &hash), keys::account(entity));
    let wanted = [&container_key, &image_key, &charge_key, &account_key].map(Clone::clone);
    scene.look(app, entity, wanted).await?;
    let container: Option<Container> = scene.take(&container_key)?;
    let (grant, _) = may_push(&scene, container, &repository, DOING)?;
    Ok(Aim {
        grant,
        image: scene.take(&image_key)?.ok_or(Error::NotFound("image"))?,
        session: scene.take(&session_key)?,
        charge: scene.take(&charge_key)?,
        account: scene.take(&account_key)?.ok_or(Error::NotFound("entity"))?,
    })
}

/// What a client announces before it brings a whole file at once.
#[derive(Debug, Clone, Copy)]
pub struct Announced {
    /// Bytes.
    pub size: u64,
    /// The digest of the file, from clients that send it with the upload.
    pub digest: Option<Digest>,
}

/// Opens, or joins, the session of single `PUT`s of an image, and returns the URL for the bytes.
pub async fn open_single(app: &App, credential: &Credential, image: Id, file: Announced) -> Result<String, Error> {
    if file.size > MAX_PUT {
        return Err(Error::Invalid(format!("a single upload takes at most {MAX_PUT} bytes, use a multipart upload")));
    }
    check_size(file.size)?;
    for attempt in 0..TRIES {
        pause(attempt).await;
        let aim = aim(app, credential, image, UploadId::of_image(image)).await?;
        if file.digest.is_some_and(|digest| digest != aim.image.hash) {
            return Err(Error::Invalid(format!("the upload's SHA-256 is not the image's, {}", aim.image.hash)));
        }
        let way = if file.digest.is_some() { Way::Pinned } else { Way::Staged };
        let pin = file.digest;
        if let Some(open) = aim.session.as_ref().filter(|open| open.way == way && open.size == file.size) {
            let left = left(app.now(), open.expires);
            // A session that is about to end is no use to somebody who begins.
            if left >= app.config.upload_life / 2 {
                return Ok(app.objects.presign_put(&open.object, open.size, pin, left).await?);
            }
        }
        let session = new_session(app, &aim, UploadId::of_image(image), way, file.size)?;
        match open(app, &aim, &session).await {
            Ok(()) => {
                return Ok(app.objects.presign_put(&session.object, session.size, pin, app.config.upload_life).await?);
            }
            Err(Error::Unavailable(StoreError::Conflict(_))) => {}
            Err(error) => return Err(error),
        }
    }
    Err(contended())
}

/// A multipart upload that was opened.
#[derive(Debug, Clone, Copy)]
pub struct OpenedParts {
    /// The session.
    pub id: UploadId,
    /// Bytes of every part but the last.
    pub part_size: u64,
    /// How many parts.
    pub parts: u64,
}

/// Opens a multipart upload of an image of `size` bytes.
pub async fn open_parts(app: &App, credential: &Credential, image: Id, size: u64) -> Result<OpenedParts, Error> {
    check_size(size)?;
    let id = app.new_upload()?;
    let (part_size, count) = parts(size);
    let mut begun: Option<(String, String)> = None;
    for attempt in 0..TRIES {
        pause(attempt).await;
        let aim = aim(app, credential, image, id).await?;
        let mut session = new_session(app, &aim, id, Way::Parts(String::new()), size)?;
        // Refuse a file that does not fit before the store hears of it.
        settle(&mut Vec::new(), &aim.account, aim.charge.clone(), opening(&session, None))?;
        if begun.is_none() {
            begun = Some((session.object.clone(), app.objects.begin_parts(&aim.grant, &session.object).await?));
        }
        if let Some((object, upload)) = &begun {
            session.object.clone_from(object);
            session.way = Way::Parts(upload.clone());
        }
        match open(app, &aim, &session).await {
            Ok(()) => return Ok(OpenedParts { id, part_size, parts: count }),
            Err(Error::Unavailable(StoreError::Conflict(_))) => {}
            Err(error) => {
                // If this fails too, the sweeper finds the upload in the store's list.
                let _ = app.objects.abort_parts(&aim.grant, &session.object, upload_of(&session)).await;
                return Err(error);
            }
        }
    }
    Err(contended())
}

fn check_size(size: u64) -> Result<(), Error> {
    match size {
        0 => Err(Error::Invalid("the file is empty, that is not an image".to_owned())),
        size if size > MAX_SIZE => Err(Error::Invalid(format!("a file has at most {MAX_SIZE} bytes"))),
        _ => Ok(()),
    }
}

fn contended() -> Error {
    Error::Unavailable(StoreError::Unavailable("too many uploads of the same image at once".to_owned()))
}

fn new_session(app: &App, aim: &Aim, id: UploadId, way: Way, size: u64) -> Result<Session, Error> {
    let now = app.now();
    Ok(Session {
        id,
        repository: aim.image.repository.clone(),
        hash: aim.image.hash,
        image: aim.image.id,
        opened_by: aim.grant.by().cloned().ok_or(Error::Unauthenticated(crate::error::NO_TOKEN))?,
        way,
        object: app.new_object()?,
        size,
        created: now,
        expires: now.plus(app.config.upload_life),
        version: aim.session.as_ref().map_or(0, |session| session.version + 1),
    })
}

fn opening(session: &Session, replaced: Option<&Session>) -> Settling {
    Settling { digest: session.hash, size: session.size, links: 0, sessions: i64::from(replaced.is_none()) }
}

/// Writes the session row with its reservation.
async fn open(app: &App, aim: &Aim, session: &Session) -> Result<(), Error> {
    let replaced = aim.session.as_ref();
    let condition = replaced.map_or(Condition::Absent, |session| Condition::Version(session.version));
    let mut writes = vec![Write::put(session, condition)?, Write::check(aim.image.key(), Condition::Present)];
    if let Some(replaced) = replaced {
        writes.push(condemn(app, &replaced.object, None)?);
    }
    settle(&mut writes, &aim.account, aim.charge.clone(), opening(session, replaced))?;
    Ok(app.table.write(&aim.grant, writes).await?)
}

fn left(now: Time, expires: Time) -> Duration {
    Duration::from_secs(u64::try_from(expires.0.saturating_sub(now.0)).unwrap_or(0))
}

fn upload_of(session: &Session) -> &str {
    match &session.way {
        Way::Parts(upload) => upload,
        Way::Pinned | Way::Staged => "",
    }
}

/// One part of a multipart upload, as its client announces it.
#[derive(Debug, Clone, Copy)]
pub struct AnnouncedPart {
    /// From 1.
    pub number: u64,
    /// Bytes.
    pub size: u64,
    /// The digest of the part, from clients that compute it.
    pub digest: Option<Digest>,
}

/// Returns the URL for one part. One read: the session says who opened it; roles are asked again at the commit.
pub async fn part(
    app: &App,
    credential: &Credential,
    image: Id,
    upload: UploadId,
    part: AnnouncedPart,
) -> Result<String, Error> {
    let (_, session) = own_session(app, credential, image, upload).await?;
    let wanted = part_length(session.size, part.number)
        .ok_or_else(|| Error::Invalid(format!("this upload has no part {}", part.number)))?;
    if part.size != wanted {
        let number = part.number;
        return Err(Error::Invalid(format!("part {number} has {wanted} bytes, not {}", part.size)));
    }
    let left = left(app.now(), session.expires);
    if left.is_zero() {
        return Err(Error::Conflict("the upload has expired, push again".to_owned()));
    }
    let place = (part.number, part.size);
    Ok(app.objects.presign_part(&session.object, upload_of(&session), place, part.digest, left).await?)
}

async fn own_session(
    app: &App,
    credential: &Credential,
    image: Id,
    upload: UploadId,
) -> Result<(Grant, Session), Error> {
    let mut scene = Scene::load(app, credential, None, [keys::session(upload)]).await?;
    let session: Option<Session> = scene.take(&keys::session(upload))?;
    let session = session.filter(|session| session.image == image && matches!(session.way, Way::Parts(_)));
    let Some(session) = session else { return Err(missing(&scene, "use this upload", "upload")) };
    let own = scene.caller.user() == Some(&session.opened_by);
    let resource = Resource::Upload { repository: session.repository.clone(), own };
    let grant = scene.decide(Action::Push, &resource);
    Ok((grant.map_err(|denial| Error::denied(denial, "upload", "use this upload"))?, session))
}

/// Gives a multipart upload up. What it reserved is given back at once.
pub async fn abort(app: &App, credential: &Credential, image: Id, upload: UploadId) -> Result<(), Error> {
    let (grant, session) = own_session(app, credential, image, upload).await?;
    end(app, &grant, &session).await?;
    // The sweeper does it again if this fails.
    let _ = app.objects.abort_parts(&grant, &session.object, upload_of(&session)).await;
    Ok(())
}

/// Ends a session without an image: removes it, gives its reservation back, condemns its object. Done at most once.
pub(crate) async fn end(app: &App, grant: &Grant, session: &Session) -> Result<(), Error> {
    let entity = session.repository.entity();
    let (charge_key, account_key) = (keys::charge(entity, &session.hash), keys::account(entity));
    for attempt in 0..TRIES {
        pause(attempt).await;
        let mut rows = app.table.batch([session.key(), charge_key.clone(), account_key.clone()]).await?;
        let open: Option<Session> = rows.take(&session.key())?;
        let Some(open) = open.filter(|open| open.object == session.object) else { return Ok(()) };
        let account: Account = rows.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
        let charge: Option<Charge> = rows.take(&charge_key)?;
        let upload = Some(upload_of(&open)).filter(|upload| !upload.is_empty());
        let mut writes =
            vec![Write::delete(open.key(), Condition::Version(open.version)), condemn(app, &open.object, upload)?];
        if let Some(charge) = charge {
            let by = Settling { digest: open.hash, size: charge.size, links: 0, sessions: -1 };
            settle(&mut writes, &account, Some(charge), by)?;
        }
        match app.table.write(grant, writes).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended())
}

/// An upload that came to its end.
#[derive(Debug)]
pub struct Completed {
    /// The image.
    pub image: Image,
    /// The account of its entity.
    pub quota: Quota,
}

/// The same bytes were committed before, by this upload or by another one, whose session then is of no use any more.
async fn already(app: &App, aim: Aim) -> Result<Completed, Error> {
    if let Some(session) = &aim.session
        && aim.grant.by() == Some(&session.opened_by)
    {
        end(app, &aim.grant, session).await?;
    }
    Ok(Completed { image: aim.image, quota: aim.account.quota })
}

/// Completes the single `PUT` of an image.
pub async fn complete_single(app: &App, credential: &Credential, image: Id) -> Result<Completed, Error> {
    let aim = aim(app, credential, image, UploadId::of_image(image)).await?;
    if aim.image.content.is_some() {
        return already(app, aim).await;
    }
    let session = aim.session.ok_or_else(|| Error::Conflict("there is no open upload of this image".to_owned()))?;
    let size = app.objects.size(&session.object).await?;
    if size != Some(session.size) {
        // Nothing arrived, or not all of it; the URL still takes it.
        return Err(Error::Invalid(format!("the upload is not complete, {} bytes are missing", session.size)));
    }
    let object = match session.way {
        Way::Pinned => session.object.clone(),
        Way::Staged | Way::Parts(_) => {
            let object = app.new_object()?;
            app.objects.copy(&aim.grant, &session.object, &object).await?;
            object
        }
    };
    let pinned = matches!(session.way, Way::Pinned);
    let completed = finish(app, &aim.grant, &session, &object, pinned).await;
    if object != session.object && matches!(completed, Err(Error::Invalid(_))) {
        // The copy was never committed, and no client knows it. After other errors that isn't sure: the sweeper looks.
        app.objects.delete(&aim.grant, &object).await?;
    }
    completed
}

/// Completes a multipart upload of an image, of the parts that its client names.
pub async fn complete_parts(
    app: &App,
    credential: &Credential,
    image: Id,
    upload: UploadId,
    named: &[Part],
) -> Result<Completed, Error> {
    let mut aim = aim(app, credential, image, upload).await?;
    aim.session = aim.session.filter(|session| session.image == image && session.id == upload);
    if aim.image.content.is_some() {
        return already(app, aim).await;
    }
    let session = aim.session;
    let session = session.ok_or_else(|| Error::Conflict("there is no such upload of this image".to_owned()))?;
    if aim.grant.by() != Some(&session.opened_by) {
        return Err(Error::Forbidden("not permitted to complete somebody else's upload".to_owned()));
    }
    let Way::Parts(store_upload) = &session.way else {
        return Err(Error::Conflict("this is not a multipart upload".to_owned()));
    };
    let (_, count) = parts(session.size);
    if !named.iter().map(|part| part.number).eq(1..=count) {
        return Err(Error::Invalid(format!("the parts 1 to {count} must be named, each once and in order")));
    }
    match app.objects.complete_parts(&aim.grant, &session.object, store_upload, named).await {
        Ok(()) => {}
        // It was put together before, by a complete that died or is still running.
        Err(StoreError::NoObject) if app.objects.size(&session.object).await?.is_some() => {}
        Err(StoreError::NoObject) => {
            return Err(Error::Conflict("the upload was given up or has expired, push again".to_owned()));
        }
        Err(error) => return Err(error.into()),
    }
    finish(app, &aim.grant, &session, &session.object, false).await
}

/// Verifies the immutable object of a session and commits the image, or refuses the bytes.
async fn finish(app: &App, grant: &Grant, session: &Session, object: &str, pinned: bool) -> Result<Completed, Error> {
    match verify(app, session, object, pinned).await {
        Ok(facts) => {
            let bytes = Known::verified(session.hash, object.to_owned(), session.size, facts);
            let (image, quota) = commit::uploaded(app, grant, session, bytes).await?;
            Ok(Completed { image, quota })
        }
        Err(Error::Invalid(why)) => {
            end(app, grant, session).await?;
            Err(Error::Invalid(why))
        }
        Err(error) => Err(error),
    }
}

async fn verify(app: &App, session: &Session, object: &str, pinned: bool) -> Result<SifFacts, Error> {
    let mut step = sif::start(session.size)?;
    let facts = loop {
        step = match step {
            sif::Step::Need(ask) => {
                let bytes = app.objects.read(object, ask.range()).await?;
                ask.feed(&bytes)?
            }
            sif::Step::Done(facts) => break facts,
        };
    };
    if !pinned {
        let (digest, size) = app.objects.digest(object).await?;
        if (digest, size) != (session.hash, session.size) {
            return Err(Error::Invalid(format!(
                "{size} bytes with the digest {digest} arrived, not {} with {}",
                session.size, session.hash
            )));
        }
    }
    Ok(facts)
}
