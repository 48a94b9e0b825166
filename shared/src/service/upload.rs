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
//!
//! Where a multipart upload is too large to be read while its client waits, one transaction after 2 seals the session
//! and notes it on the image. The client gets its answer, and may tag the image, which is noted too. 3 to 5 are then
//! [`verify`]'s, which writes down how far it is, so that whoever takes up after it died goes on there.

use super::access::{Scene, system};
use super::commit::{self, Known, Settling, condemn, settle};
use super::create::{may_push, missing, resource_of, target};
use super::retry::Retry;
use crate::app::App;
use crate::auth::Credential;
use crate::domain::digest::Hasher;
use crate::domain::quota::Quota;
use crate::domain::sif::{self, SifFacts};
use crate::domain::{Caller, Digest, Id, Time, TokenScope, UploadId};
use crate::error::Error;
use crate::rules::upload::{MAX_SIZE, part_length, parts};
use crate::rules::{Action, Grant, Resource, Subject, decide};
use crate::store::objects::{MAX_PUT, Part};
use crate::store::rows::{Account, Charge, Container, Image, Member, Progress, Row, Session, State, Target, User, Way};
use crate::store::table::{Condition, Write, Written};
use crate::store::{StoreError, keys};
use std::time::Duration;

const DOING: &str = "push this image";
const OVER: &str = "the upload was given up or has expired, push again";

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
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let aim = aim(app, credential, image, UploadId::of_image(image)).await?;
        if file.digest.is_some_and(|digest| digest != aim.image.hash) {
            return Err(Error::Invalid(format!("the upload's SHA-256 is not the image's, {}", aim.image.hash)));
        }
        let pin = file.digest.filter(|_| app.config.pin_uploads);
        let way = if pin.is_some() { Way::Pinned } else { Way::Staged };
        if let Some(open) = aim.session.as_ref().filter(|open| open.way == way && open.size == file.size) {
            let left = left(app.now(), open.expires);
            // A session that is about to end is no use to somebody who begins.
            if left >= app.config.upload_life / 2 {
                return Ok(app.objects.presign_put(&open.object, open.size, pin, left).await?);
            }
        }
        let session = new_session(app, &aim, UploadId::of_image(image), way, file.size)?;
        if open(app, &aim, &session).await? != Written::Done {
            continue;
        }
        let url = app.objects.presign_put(&session.object, session.size, pin, app.config.upload_life);
        return Ok(url.await?);
    }
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
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
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
            Ok(Written::Done) => return Ok(OpenedParts { id, part_size, parts: count }),
            Ok(Written::Lost(_)) => {}
            Err(error) => {
                // If this fails too, the sweeper finds the upload in the store's list.
                let _ = app.objects.abort_parts(&aim.grant, &session.object, upload_of(&session)).await;
                return Err(error);
            }
        }
    }
}

fn check_size(size: u64) -> Result<(), Error> {
    match size {
        0 => Err(Error::Invalid("the file is empty, that is not an image".to_owned())),
        size if size > MAX_SIZE => Err(Error::Invalid(format!("a file has at most {MAX_SIZE} bytes"))),
        _ => Ok(()),
    }
}

const CONTENDED: &str = "uploads of the same image";

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
        state: State::Open,
        created: now,
        expires: now.plus(app.config.upload_life),
        version: aim.session.as_ref().map_or(0, |session| session.version + 1),
    })
}

fn opening(session: &Session, replaced: Option<&Session>) -> Settling {
    Settling { digest: session.hash, size: session.size, links: 0, sessions: i64::from(replaced.is_none()), back: 0 }
}

/// Writes the session row with its reservation.
async fn open(app: &App, aim: &Aim, session: &Session) -> Result<Written, Error> {
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
    let over = || Error::Conflict(OVER.to_owned());
    let (_, session) = own_session(app, credential, image, upload).await?.ok_or_else(over)?;
    if session.state != State::Open {
        return Err(Error::Conflict("all parts of this upload have arrived".to_owned()));
    }
    let wanted = part_length(session.size, part.number)
        .ok_or_else(|| Error::Invalid(format!("this upload has no part {}", part.number)))?;
    if part.size != wanted {
        let number = part.number;
        return Err(Error::Invalid(format!("part {number} has {wanted} bytes, not {}", part.size)));
    }
    let left = left(app.now(), session.expires);
    if left.is_zero() {
        return Err(over());
    }
    let place = (part.number, part.size);
    let pin = part.digest.filter(|_| app.config.pin_uploads);
    Ok(app.objects.presign_part(&session.object, upload_of(&session), place, pin, left).await?)
}

/// The caller's own multipart upload. `None` to whoever may push there, when it is over; others learn nothing of it.
async fn own_session(
    app: &App,
    credential: &Credential,
    image: Id,
    upload: UploadId,
) -> Result<Option<(Grant, Session)>, Error> {
    let mut scene = Scene::load(app, credential, None, [keys::session(upload)]).await?;
    let session: Option<Session> = scene.take(&keys::session(upload))?;
    let session = session.filter(|session| session.image == image && matches!(session.way, Way::Parts(_)));
    let Some(session) = session else { return aim(app, credential, image, upload).await.map(|_| None) };
    let own = scene.caller.user() == Some(&session.opened_by);
    let resource = Resource::Upload { repository: session.repository.clone(), own };
    let grant = scene.decide(Action::Push, &resource);
    Ok(Some((grant.map_err(|denial| Error::denied(denial, "image", DOING))?, session)))
}

/// Gives a multipart upload up. What it reserved is given back at once. One that is over is fine.
pub async fn abort(app: &App, credential: &Credential, image: Id, upload: UploadId) -> Result<(), Error> {
    let Some((grant, session)) = own_session(app, credential, image, upload).await? else { return Ok(()) };
    if session.state != State::Open {
        return Err(Error::Conflict("the upload is complete and being verified, delete the image instead".to_owned()));
    }
    end(app, &grant, &session).await?;
    // The sweeper does it again if this fails.
    let _ = app.objects.abort_parts(&grant, &session.object, upload_of(&session)).await;
    Ok(())
}

/// Ends a session without an image: removes it, gives its reservation back, condemns its object. Done at most once.
pub(crate) async fn end(app: &App, grant: &Grant, session: &Session) -> Result<(), Error> {
    let entity = session.repository.entity();
    let (charge_key, account_key) = (keys::charge(entity, &session.hash), keys::account(entity));
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let image_key = keys::image(&session.repository, &session.hash);
        let wanted = [session.key(), charge_key.clone(), account_key.clone(), image_key.clone()];
        let mut rows = app.table.batch(wanted).await?;
        let open: Option<Session> = rows.take(&session.key())?;
        let Some(open) = open.filter(|open| open.object == session.object) else { return Ok(()) };
        let account: Account = rows.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
        let charge: Option<Charge> = rows.take(&charge_key)?;
        let upload = Some(upload_of(&open)).filter(|upload| !upload.is_empty());
        let mut writes =
            vec![Write::delete(open.key(), Condition::Version(open.version)), condemn(app, &open.object, upload)?];
        let sealed = rows.take::<Image>(&image_key)?.filter(|image| image.sealed == Some(open.id));
        if let Some(image) = sealed {
            let version = image.version;
            let image = Image { sealed: None, intents: Vec::new(), version: version + 1, ..image };
            writes.push(Write::put(&image, Condition::Version(version))?);
        }
        if let Some(charge) = charge {
            let by = Settling { digest: open.hash, size: charge.size, links: 0, sessions: -1, back: 0 };
            settle(&mut writes, &account, Some(charge), by)?;
        }
        if app.table.write(grant, writes).await? == Written::Done {
            return Ok(());
        }
    }
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
            return Err(Error::Conflict(OVER.to_owned()));
        }
        Err(error) => return Err(error.into()),
    }
    if session.size > app.config.verify_at_once {
        return seal(app, &aim.grant, &session).await;
    }
    finish(app, &aim.grant, &session, &session.object, false).await
}

/// Notes that the bytes of a session are all there, to be verified by [`verify`].
async fn seal(app: &App, grant: &Grant, session: &Session) -> Result<Completed, Error> {
    let image_key = keys::image(&session.repository, &session.hash);
    let account_key = keys::account(session.repository.entity());
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let wanted = [session.key(), image_key.clone(), account_key.clone()];
        let mut rows = app.table.batch(wanted).await?;
        let image: Image = rows.take(&image_key)?.ok_or(Error::NotFound("image"))?;
        let account: Account = rows.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
        let open: Option<Session> = rows.take(&session.key())?;
        let done = |image| Completed { image, quota: account.quota };
        match open {
            Some(open) if open.state == State::Open && image.content.is_none() => {
                let expires = app.now().plus(app.config.upload_life);
                let state = State::Sealed(Progress::default());
                let sealed = Session { state, expires, version: open.version + 1, ..open.clone() };
                let noted = Image { sealed: Some(session.id), version: image.version + 1, ..image.clone() };
                let writes = vec![
                    Write::put(&sealed, Condition::Version(open.version))?,
                    Write::put(&noted, Condition::Version(image.version))?,
                ];
                if app.table.write(grant, writes).await? == Written::Done {
                    return Ok(done(noted));
                }
            }
            None if image.content.is_none() => return Err(Error::Conflict(OVER.to_owned())),
            // It is sealed already, or verified.
            _ => return Ok(done(image)),
        }
    }
}

/// How many bytes are hashed before the progress is written down.
const STRIDE: u64 = 4 << 30;

/// Verifies the bytes of a sealed session and commits its image, or refuses them. Does nothing for any other session, so
/// it can be called again at any time. Whoever opened the session must still be allowed to push there.
pub async fn verify(app: &App, upload: UploadId) -> Result<(), Error> {
    let system = system(Action::Sweep, &Resource::Registry)?;
    loop {
        let Some(session) = app.table.get::<Session>(keys::session(upload)).await? else { return Ok(()) };
        let State::Sealed(progress) = &session.state else { return Ok(()) };
        let hasher = match progress.hasher.as_str() {
            "" => Hasher::default(),
            saved => Hasher::restore(saved, progress.taken)?,
        };
        let hasher = app.objects.hash(&session.object, hasher, STRIDE).await?;
        if hasher.taken() < session.size && hasher.taken() > progress.taken {
            let progress = Progress { taken: hasher.taken(), hasher: hasher.save() };
            let state = State::Sealed(progress);
            let further = Session { state, version: session.version + 1, ..session.clone() };
            let write = Write::put(&further, Condition::Version(session.version))?;
            // Somebody else may verify the same session: whoever is further wins.
            let _ = app.table.write(&system, vec![write]).await?;
            continue;
        }
        let (taken, digest) = (hasher.taken(), hasher.finish());
        let facts = if (digest, taken) == (session.hash, session.size) {
            facts(app, &session.object, session.size).await
        } else {
            Err(wrong_bytes(&session, digest, taken))
        };
        let grant = opener(app, &session).await?;
        return match (facts, grant) {
            (Ok(facts), Some(grant)) => {
                let bytes = Known::verified(session.hash, session.object.clone(), session.size, facts);
                match commit::uploaded(app, &grant, &session, bytes).await {
                    // The image was deleted while it was verified.
                    Err(Error::NotFound(_)) => end(app, &system, &session).await,
                    committed => committed.map(drop),
                }
            }
            (Err(Error::Invalid(why)), _) => {
                tracing::warn!(repository = %session.repository, hash = %session.hash, why, "an upload was refused");
                end(app, &system, &session).await
            }
            (Ok(_), None) => end(app, &system, &session).await,
            (Err(error), _) => Err(error),
        };
    }
}

/// The grant that the opener of a session has now, if they may still push there.
async fn opener(app: &App, session: &Session) -> Result<Option<Grant>, Error> {
    let entity = session.repository.entity();
    let (user_key, member_key) = (keys::user(&session.opened_by), keys::member(entity, &session.opened_by));
    let container_key = keys::container(&session.repository);
    let mut rows = app.table.batch([user_key.clone(), member_key.clone(), container_key.clone()]).await?;
    let user: Option<User> = rows.take(&user_key)?;
    let container: Option<Container> = rows.take(&container_key)?;
    let role = rows.take::<Member>(&member_key)?.map(|member| member.role);
    let (Some(user), Some(container)) = (user.filter(|user| !user.disabled), container) else { return Ok(None) };
    // What their token was for was asked when the session was opened and sealed.
    let caller = Caller::User { name: user.name, admin: user.admin, scope: TokenScope::full(), access: None };
    Ok(decide(Subject { caller: &caller, role }, Action::Push, &resource_of(&container)).ok())
}

/// Verifies the immutable object of a session and commits the image, or refuses the bytes.
async fn finish(app: &App, grant: &Grant, session: &Session, object: &str, pinned: bool) -> Result<Completed, Error> {
    match check(app, session, object, pinned).await {
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

async fn check(app: &App, session: &Session, object: &str, pinned: bool) -> Result<SifFacts, Error> {
    let facts = facts(app, object, session.size).await?;
    if !pinned {
        let hasher = app.objects.hash(object, Hasher::default(), session.size + 1).await?;
        let (taken, digest) = (hasher.taken(), hasher.finish());
        if (digest, taken) != (session.hash, session.size) {
            return Err(wrong_bytes(session, digest, taken));
        }
    }
    Ok(facts)
}

fn wrong_bytes(session: &Session, digest: Digest, taken: u64) -> Error {
    let Session { hash, size, .. } = session;
    Error::Invalid(format!("{taken} bytes with the digest {digest} arrived, not {size} with {hash}"))
}

/// What the image in an object of `size` bytes says of itself, in a few ranged reads.
pub(crate) async fn facts(app: &App, object: &str, size: u64) -> Result<SifFacts, Error> {
    let mut step = sif::start(size)?;
    let facts = loop {
        step = match step {
            sif::Step::Need(ask) => {
                let bytes = app.objects.read(object, ask.range()).await?;
                ask.feed(&bytes)?
            }
            sif::Step::Done(facts) => break facts,
        };
    };
    Ok(facts)
}
