//! Upload sessions: opening one with its reservation, sealing it, ending it.

use super::accounts::{self, ChargeChange};
use super::blobs::Condemning;
use super::{Changes, blobs, joined};
use crate::error::Error;
use crate::store::keys;
use crate::store::rows::{Account, Charge, Image, Progress, Row, SealedListed, Session, State, Surplus, Way};
use crate::store::table::{Condition, Write};

use crate::domain::Time;

/// The facts needed to open or end a session.
#[derive(Debug)]
pub(crate) struct Paying<'a> {
    /// The charge of the session's blob to its entity.
    pub(crate) charge: Option<Charge>,
    /// The entity's account.
    pub(crate) account: &'a Account,
    /// Where the version of a new charge begins: drawn at random.
    pub(crate) first_version: u32,
}

/// The store's id of a session's multipart upload; empty if it has none.
pub(crate) fn parts_of(session: &Session) -> &str {
    match &session.way {
        Way::Parts(upload) => upload,
        Way::Pinned | Way::Staged => "",
    }
}

/// The difference in the charge when a session opens and replaces another one, if there is one.
fn opening(session: &Session, replaced: Option<&Session>, first_version: u32) -> ChargeChange {
    let (sessions, surplus) = (i64::from(replaced.is_none()), if session.surplus { session.size } else { 0 });
    ChargeChange { digest: session.hash, size: session.size, links: 0, sessions, released: 0, surplus, first_version }
}

/// A session as it is opened: its bytes are in surplus if the entity is charged for others of the same digest.
fn with_surplus(session: &Session, replaced: Option<&Session>, charge: Option<&Charge>) -> Session {
    let others = charge.is_some_and(|charge| charge.links > 0 || charge.sessions > u64::from(replaced.is_some()));
    Session { surplus: others, ..session.clone() }
}

/// Refuses a session for which the account has no room.
pub(crate) fn fits(session: &Session, Paying { charge, account, first_version }: Paying<'_>) -> Result<(), Error> {
    let session = with_surplus(session, None, charge.as_ref());
    accounts::charge(account, charge, opening(&session, None, first_version)).map(drop)
}

/// Opens a session with its reservation, and replaces another one if there is one.
pub(crate) fn opened(
    session: &Session,
    replaced: Option<&Session>,
    Paying { charge, account, first_version }: Paying<'_>,
) -> Result<Changes, Error> {
    let session = &with_surplus(session, replaced, charge.as_ref());
    let condition = replaced.map_or(Condition::Absent, |session| Condition::Version(session.version));
    let image = keys::image(&session.repository, &session.hash);
    let mut changes = Changes::unrecorded();
    changes.extend([Write::put(session, condition)?, Write::check(image, Condition::Present)]);
    changes.extend(accounts::rows(session.repository.entity(), i64::from(replaced.is_none())));
    if let Some(replaced) = replaced {
        changes.extend(condemned(replaced, session.created)?);
        changes.extend(no_surplus(replaced));
    }
    changes.extend(accounts::charge(account, charge, opening(session, replaced, first_version))?.writes);
    Ok(changes)
}

/// Records that all bytes of a session are there, to be verified later, and until when.
pub(crate) fn sealed(open: &Session, image: &Image, expires: Time) -> Result<Changes, Error> {
    let state = State::Sealed(Progress::default());
    let session = Session { state, expires, version: open.version + 1, ..open.clone() };
    let image_then = with_session(image, open);
    Ok(Changes::unrecorded().with([
        Write::put(&session, Condition::Version(open.version))?,
        Write::put(&image_then, Condition::Version(image.version))?,
        Write::put(&SealedListed { upload: open.id }, Condition::None)?,
    ]))
}

/// The image's row while the bytes of a session are being verified.
pub(crate) fn with_session(image: &Image, session: &Session) -> Image {
    Image { sealed: Some(session.id), version: image.version + 1, ..image.clone() }
}

/// Saves the progress of verifying a sealed session.
pub(crate) fn progressed(session: &Session, progress: Progress) -> Result<Changes, Error> {
    let further = Session { state: State::Sealed(progress), version: session.version + 1, ..session.clone() };
    Ok(Changes::unrecorded().with([Write::put(&further, Condition::Version(session.version))?]))
}

/// Removes a session's row, and its entry in the list of sealed ones.
pub(crate) fn removed(session: &Session) -> Vec<Write> {
    let listed =
        (session.state != State::Open).then(|| Write::delete(keys::sealed_listed(session.id), Condition::None));
    let row = Write::delete(session.key(), Condition::Version(session.version));
    let counted = accounts::rows(session.repository.entity(), -1);
    joined(std::iter::once(row).chain(listed).chain(no_surplus(session)).chain(counted))
}

/// Takes the bytes of a session out of the surplus, if they are in it.
fn no_surplus(session: &Session) -> Option<Write> {
    let entity = session.repository.entity();
    accounts::surplus(entity, -i128::from(session.size)).filter(|_| session.surplus)
}

/// Condemns the object of a session that has no more use for it.
pub(crate) fn condemned(session: &Session, now: Time) -> Result<Vec<Write>, Error> {
    let upload = Some(parts_of(session)).filter(|upload| !upload.is_empty());
    let condemning = Condemning { object: &session.object, upload, size: session.size, now };
    blobs::condemned_of(session.repository.entity(), condemning)
}

/// Forgets the object of an ended session that was deleted at once, with all its parts.
pub(crate) fn deleted(session: &Session) -> Changes {
    let of = Surplus { entity: session.repository.entity().clone(), size: session.size };
    blobs::condemned_deleted(&session.object, Some(&of))
}

/// Ends a session without an image: its reservation is given back, its object is condemned, and the requested tags are
/// forgotten.
pub(crate) fn ended(
    session: &Session,
    image: Option<Image>,
    Paying { charge, account, first_version }: Paying<'_>,
    now: Time,
) -> Result<Changes, Error> {
    let mut changes = Changes::unrecorded().with(removed(session));
    changes.extend(condemned(session, now)?);
    if let Some(image) = image.filter(|image| image.sealed == Some(session.id)) {
        let version = image.version;
        let image = Image { sealed: None, intents: Vec::new(), version: version + 1, ..image };
        changes.add(Write::put(&image, Condition::Version(version))?);
    }
    if let Some(charge) = charge {
        let by = ChargeChange {
            digest: session.hash,
            size: charge.size,
            links: 0,
            sessions: -1,
            released: 0,
            surplus: 0,
            first_version,
        };
        changes.extend(accounts::charge(account, Some(charge), by)?.writes);
    }
    Ok(changes)
}
