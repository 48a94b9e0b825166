//! Uploads in parts.

use super::session::{CONTENDED, Completed, DOING, OVER, UploadTarget, check_size, end, left};
use super::verify;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::uploads::{self, parts_of, sealed, with_session};
use crate::domain::{Digest, Id, Pins, UploadId};
use crate::error::Error;
use crate::rules::upload::{part_length, parts};
use crate::rules::{Action, Grant, Resource};
use crate::service::access::Access;
use crate::service::retry::Retry;
use crate::store::objects::{NewPart, Part, Said};
use crate::store::rows::{Account, Image, Row, Session, State, Way};
use crate::store::table::Written;
use crate::store::{StoreError, keys};
use std::time::Duration;

/// An opened multipart upload.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// The session.
    pub id: UploadId,
    /// The size in bytes of every part except the last.
    pub part_size: u64,
    /// How many parts.
    pub parts: u64,
}

/// Opens a multipart upload of an image of `size` bytes.
pub async fn open(app: &App, credential: &Credential, image: Id, size: u64) -> Result<Opened, Error> {
    check_size(size)?;
    let id = app.new_upload()?;
    let (part_size, count) = parts(size);
    let mut begun: Option<(String, String)> = None;
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let target = UploadTarget::load(app, credential, image, id).await?;
        let mut session = target.new_session(app, id, Way::Parts(String::new()), size)?;
        // Refuse a file that does not fit before contacting the store.
        target.fits(&session)?;
        if begun.is_none() {
            begun = Some((session.object.clone(), app.objects.begin_parts(&target.grant, &session.object).await?));
        }
        if let Some((object, upload)) = &begun {
            session.object.clone_from(object);
            session.way = Way::Parts(upload.clone());
        }
        match target.open(app, &session).await {
            Ok(Written::Done) => return Ok(Opened { id, part_size, parts: count }),
            Ok(Written::Lost(_)) => {}
            Err(error) => {
                // If this fails too, the sweeper finds the upload in the store's list.
                let _ = app.objects.abort_parts(&target.grant, &session.object, parts_of(&session)).await;
                return Err(error);
            }
        }
    }
}

/// One part of a multipart upload, as its client announces it.
#[derive(Debug, Clone, Copy)]
pub struct AnnouncedPart {
    /// From 1.
    pub number: u64,
    /// Bytes.
    pub size: u64,
    /// The digest of the part, if the client computes it.
    pub digest: Option<Digest>,
}

/// Returns the URL for one part. One read: the session says who opened it; roles are checked again at the commit.
pub async fn part(
    app: &App,
    credential: &Credential,
    image: Id,
    upload: UploadId,
    part: AnnouncedPart,
) -> Result<String, Error> {
    let over = || Error::Conflict(OVER.to_owned());
    let OwnSession { grant, session, longest } = own_session(app, credential, image, upload).await?.ok_or_else(over)?;
    if session.state != State::Open {
        return Err(Error::Conflict("all parts of this upload have arrived".to_owned()));
    }
    let AnnouncedPart { number, size: length, digest } = part;
    let wanted =
        part_length(session.size, number).ok_or_else(|| Error::Invalid(format!("this upload has no part {number}")))?;
    if length != wanted {
        return Err(Error::Invalid(format!("part {number} has {wanted} bytes, not {length}")));
    }
    let left = left(app.now(), session.expires).min(longest);
    if left.is_zero() {
        return Err(over());
    }
    let says = match app.config.pin_uploads {
        Pins::Bytes => digest.map(Said::Bytes),
        Pins::Header => digest.map(Said::Header),
        Pins::Nothing => None,
    };
    let part = NewPart { upload: parts_of(&session), number, length, says };
    Ok(app.objects.presign_part(&grant, &session.object, part, left).await?)
}

/// A multipart upload that the caller opened.
struct OwnSession {
    grant: Grant,
    session: Session,
    /// The longest life of a URL for the caller.
    longest: Duration,
}

/// The caller's own multipart upload. `None` if it has ended and the caller may push there; others learn nothing about
/// it.
async fn own_session(
    app: &App,
    credential: &Credential,
    image: Id,
    upload: UploadId,
) -> Result<Option<OwnSession>, Error> {
    let mut access = Access::load(app, credential, None, [keys::session(upload)]).await?;
    let session: Option<Session> = access.take(&keys::session(upload))?;
    let session = session.filter(|session| session.image == image && matches!(session.way, Way::Parts(_)));
    let Some(session) = session else {
        return UploadTarget::load(app, credential, image, upload).await.map(|_| None);
    };
    let own = access.caller.is(&session.opened_by);
    let resource = Resource::Upload { repository: session.repository.clone(), own };
    let grant = access.require(Action::Push, &resource, "image", DOING)?;
    Ok(Some(OwnSession { grant, session, longest: access.upload_life(app) }))
}

/// Cancels a multipart upload, and gives back its reservation at once. It is no error if it has ended already.
pub async fn abort(app: &App, credential: &Credential, image: Id, upload: UploadId) -> Result<(), Error> {
    let Some(OwnSession { grant, session, .. }) = own_session(app, credential, image, upload).await? else {
        return Ok(());
    };
    if session.state != State::Open {
        return Err(Error::Conflict("the upload is complete and being verified, delete the image instead".to_owned()));
    }
    end(app, &grant, &session).await?;
    // The sweeper does it again if this fails.
    let aborted = app.objects.abort_parts(&grant, &session.object, parts_of(&session)).await;
    if aborted.is_ok() && app.objects.delete(&grant, &session.object).await.is_ok() {
        let _ = app.commit(&grant, uploads::deleted(&session)).await?;
    }
    Ok(())
}

/// Completes a multipart upload of an image from the parts that its client lists.
pub async fn complete(
    app: &App,
    credential: &Credential,
    image: Id,
    upload: UploadId,
    named: &[Part],
) -> Result<Completed, Error> {
    let mut target = UploadTarget::load(app, credential, image, upload).await?;
    target.session = target.session.filter(|session| session.image == image && session.id == upload);
    if target.needs_nothing(app).await? {
        return target.already(app).await;
    }
    let session = target.session.take();
    let session = session.ok_or_else(|| Error::Conflict("there is no such upload of this image".to_owned()))?;
    if target.grant.by() != Some(&session.opened_by) {
        return Err(Error::Forbidden("not permitted to complete somebody else's upload".to_owned()));
    }
    // All bytes are there, and will be verified. The store is not asked again: one refuses the same parts then.
    if session.state != State::Open {
        return Ok(target.completed());
    }
    let grant = target.grant;
    let Way::Parts(store_upload) = &session.way else {
        return Err(Error::Conflict("this is not a multipart upload".to_owned()));
    };
    let (_, count) = parts(session.size);
    if !named.iter().map(|part| part.number).eq(1..=count) {
        return Err(Error::Invalid(format!("the parts 1 to {count} must be listed, each once and in order")));
    }
    match app.objects.complete_parts(&grant, &session.object, store_upload, named).await {
        Ok(()) => {}
        // It was assembled before, by a request that died or is still running.
        Err(StoreError::NoObject) if app.objects.size(&session.object).await?.is_some() => {}
        Err(StoreError::NoObject) => return Err(Error::Conflict(OVER.to_owned())),
        Err(error) => return Err(error.into()),
    }
    if session.size > app.config.verify_at_once {
        return seal(app, &grant, &session).await;
    }
    verify::finish(app, &grant, &session, &session.object, false).await
}

/// Records that all bytes of a session are there, to be [verified](verify::upload) later.
async fn seal(app: &App, grant: &Grant, session: &Session) -> Result<Completed, Error> {
    let image_key = keys::image(&session.repository, &session.hash);
    let account_key = keys::account(session.repository.entity());
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let mut rows = app.table.batch([session.key(), image_key.clone(), account_key.clone()]).await?;
        let image: Image = rows.take(&image_key)?.ok_or(Error::NotFound("image"))?;
        let account: Account = rows.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
        let open: Option<Session> = rows.take(&session.key())?;
        let done = |image| Completed { image, quota: account.quota };
        match open {
            Some(open) if open.state == State::Open => {
                let changes = sealed(&open, &image, app.now().plus(app.config.upload_life))?;
                if app.commit(grant, changes).await? == Written::Done {
                    return Ok(done(with_session(&image, &open)));
                }
            }
            None if image.content.is_none() => return Err(Error::Conflict(OVER.to_owned())),
            // It is sealed already, or verified.
            _ => return Ok(done(image)),
        }
    }
}
