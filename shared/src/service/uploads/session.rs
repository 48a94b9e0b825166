//! Upload sessions: the facts for opening and completing one, and its end.

use crate::app::App;
use crate::auth::Credential;
use crate::changes::uploads::{self, Paying};
use crate::domain::quota::Quota;
use crate::domain::{Id, Time, UploadId};
use crate::error::Error;
use crate::random;
use crate::rules::Grant;
use crate::rules::upload::LONGEST_FILE;
use crate::service::access::Access;
use crate::service::restore;
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::{Account, Charge, Container, Image, Row, Session, State, Target, Way};
use crate::store::table::Written;
use crate::telemetry::{self, Count};
use std::time::Duration;

pub(super) const DOING: &str = "push this image";
pub(super) const OVER: &str = "the upload was cancelled or has expired, push again";
pub(super) const CONTENDED: &str = "uploads of the same image";

/// An image that is about to receive bytes, with all facts for opening or completing its session.
pub(super) struct UploadTarget {
    pub(super) grant: Grant,
    pub(super) image: Image,
    /// The session of single `PUT`s, or the requested one.
    pub(super) session: Option<Session>,
    charge: Option<Charge>,
    account: Account,
    /// A number drawn for what this request makes.
    drawn: u32,
    /// The longest life of a URL for the caller.
    pub(super) longest: Duration,
}

impl UploadTarget {
    /// Two rounds: from the image's id to all facts about it. Decides that the caller may push there.
    pub(super) async fn load(app: &App, credential: &Credential, image: Id, session: UploadId) -> Result<Self, Error> {
        let session_key = keys::session(session);
        let mut access = Access::load(app, credential, None, [keys::pointer(image), session_key.clone()]).await?;
        let Some(Target::Image(repository, hash)) = access.target(image)? else {
            return Err(access.points_nowhere("image", DOING));
        };
        let entity = repository.entity();
        let (container_key, image_key) = (keys::container(&repository), keys::image(&repository, &hash));
        let (charge_key, account_key) = (keys::charge(entity, &hash), keys::account(entity));
        let wanted = [&container_key, &image_key, &charge_key, &account_key].map(Clone::clone);
        access.load_more(app, entity, wanted).await?;
        let container: Option<Container> = access.take(&container_key)?;
        let (grant, _) = access.may_push(&repository, container, DOING)?;
        Ok(Self {
            grant,
            image: access.take(&image_key)?.ok_or(Error::NotFound("image"))?,
            session: access.take(&session_key)?,
            charge: access.take(&charge_key)?,
            account: access.take(&account_key)?.ok_or(Error::NotFound("entity"))?,
            drawn: random::number()?,
            longest: access.upload_life(app),
        })
    }

    fn paying(&self) -> Paying<'_> {
        Paying { charge: self.charge.clone(), account: &self.account, first_version: self.drawn }
    }

    /// A session that the caller opens now.
    pub(super) fn new_session(&self, app: &App, id: UploadId, way: Way, size: u64) -> Result<Session, Error> {
        let now = app.now();
        Ok(Session {
            id,
            repository: self.image.repository.clone(),
            hash: self.image.hash,
            image: self.image.id,
            opened_by: self.grant.by().cloned().ok_or(Error::Unauthenticated(crate::error::NO_TOKEN))?,
            way,
            object: app.new_object()?,
            size,
            surplus: false,
            state: State::Open,
            created: now,
            expires: now.plus(app.config.upload_life),
            version: self.session.as_ref().map_or(u64::from(self.drawn), |session| session.version + 1),
        })
    }

    /// Refuses a session for which the account has no room.
    pub(super) fn fits(&self, session: &Session) -> Result<(), Error> {
        uploads::fits(session, self.paying())
    }

    /// Writes the session's row with its reservation.
    pub(super) async fn open(&self, app: &App, session: &Session) -> Result<Written, Error> {
        let written = app.commit(&self.grant, uploads::opened(session, self.session.as_ref(), self.paying())?).await?;
        if written == Written::Done {
            telemetry::count(Count::UploadsOpened, 1);
        }
        Ok(written)
    }

    /// Whether the same bytes were committed before and are still there, or there is no session that could bring them.
    pub(super) async fn needs_nothing(&self, app: &App) -> Result<bool, Error> {
        match (&self.image.content, &self.session) {
            (Some(content), Some(_)) => restore::there(app, &content.object, content.size).await,
            (content, _) => Ok(content.is_some()),
        }
    }

    /// The result of completing an upload if the same bytes were committed before, by this upload or by another one.
    /// Its session is then no longer needed.
    pub(super) async fn already(self, app: &App) -> Result<Completed, Error> {
        if let Some(session) = &self.session
            && self.grant.by() == Some(&session.opened_by)
        {
            end(app, &self.grant, session).await?;
        }
        Ok(self.completed())
    }

    /// The result where nothing is left to do.
    pub(super) fn completed(self) -> Completed {
        Completed { image: self.image, quota: self.account.quota }
    }
}

/// A completed upload.
#[derive(Debug)]
pub struct Completed {
    /// The image.
    pub image: Image,
    /// The account of its entity.
    pub quota: Quota,
}

/// Refuses a size that no image can have.
pub(super) fn check_size(size: u64) -> Result<(), Error> {
    match size {
        0 => Err(Error::Invalid("the file is empty, so it is not an image".to_owned())),
        size if size > LONGEST_FILE => Err(Error::Invalid(format!("a file can have at most {LONGEST_FILE} bytes"))),
        _ => Ok(()),
    }
}

/// The remaining time until something expires.
pub(super) fn left(now: Time, expires: Time) -> Duration {
    Duration::from_secs(u64::try_from(expires.0.saturating_sub(now.0)).unwrap_or(0))
}

/// Ends a session without an image: removes it, gives back its reservation, condemns its object. Happens at most once.
pub(crate) async fn end(app: &App, grant: &Grant, session: &Session) -> Result<(), Error> {
    let entity = session.repository.entity();
    let (charge_key, account_key) = (keys::charge(entity, &session.hash), keys::account(entity));
    let image_key = keys::image(&session.repository, &session.hash);
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let wanted = [&session.key(), &charge_key, &account_key, &image_key].map(Clone::clone);
        let mut rows = app.table.batch(wanted).await?;
        let open: Option<Session> = rows.take(&session.key())?;
        let Some(open) = open.filter(|open| open.object == session.object) else { return Ok(()) };
        let account: Account = rows.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
        let paying = Paying { charge: rows.take(&charge_key)?, account: &account, first_version: random::number()? };
        let changes = uploads::ended(&open, rows.take(&image_key)?, paying, app.now())?;
        if app.commit(grant, changes).await? == Written::Done {
            telemetry::count(Count::UploadsEnded, 1);
            return Ok(());
        }
    }
}
