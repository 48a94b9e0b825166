//! Verifying bytes, and reading an image's metadata.

use super::commit;
use super::session::{Completed, end};
use crate::app::App;
use crate::changes::blobs::{VerifiedBytes, VerifiedImage};
use crate::changes::uploads::progressed;
use crate::domain::digest::Hasher;
use crate::domain::sif::{self, SifFacts};
use crate::domain::{Digest, UploadId};
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::service::access::{Access, resource_of, system};
use crate::store::keys;
use crate::store::rows::{Container, Progress, SealedListed, Session, State};
use crate::telemetry::{self, Count};

/// How many bytes are hashed before the progress is saved.
const STRIDE: u64 = 4 << 30;

/// The result of verifying the waiting uploads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verified {
    /// How many waited.
    pub waited: u64,
    /// How many of them could not be verified now. The log says why.
    pub failed: u64,
}

/// The uploads that wait for verification.
pub async fn listed(app: &App) -> Result<Vec<UploadId>, Error> {
    let listed: Vec<SealedListed> = app.table.query_all(keys::sealed()).await?;
    Ok(listed.into_iter().map(|row| row.upload).collect())
}

/// Verifies all waiting uploads. One that can't be read now does not hold up the others.
pub async fn pending(app: &App) -> Result<Verified, Error> {
    Ok(all(app, listed(app).await?).await)
}

/// Verifies those of these sealed uploads that no list names: an older version sealed them. The others are
/// [`pending`]'s, which may be at work on them just now.
pub async fn unlisted(app: &App, sealed: &[UploadId]) -> Result<(), Error> {
    if !sealed.is_empty() {
        let listed = listed(app).await?;
        all(app, sealed.iter().copied().filter(|upload| !listed.contains(upload))).await;
    }
    Ok(())
}

/// Verifies these uploads, as far as they are sealed.
async fn all(app: &App, uploads: impl IntoIterator<Item = UploadId>) -> Verified {
    let mut verified = Verified::default();
    for upload in uploads {
        verified.waited += 1;
        if let Err(error) = self::upload(app, upload).await {
            tracing::error!(%upload, %error, cause = error.cause(), "verifying");
            verified.failed += 1;
        }
    }
    verified
}

/// Verifies the bytes of a sealed session and commits its image, or refuses them. Does nothing for any other session,
/// so it can be called again at any time. The user who opened the session must still be allowed to push there.
pub async fn upload(app: &App, upload: UploadId) -> Result<(), Error> {
    let system = system(Action::Sweep, &Resource::Installation)?;
    loop {
        let Some(session) = app.table.get::<Session>(keys::session(upload)).await? else { return Ok(()) };
        let State::Sealed(progress) = &session.state else { return Ok(()) };
        let hasher = Hasher::restore(progress.hasher.as_deref(), progress.taken)?;
        let hasher = app.objects.hash(&session.object, hasher, STRIDE).await?;
        if hasher.taken() < session.size && hasher.taken() > progress.taken {
            let progress = Progress { taken: hasher.taken(), hasher: Some(hasher.save()) };
            // Another process may verify the same session: the one that is further wins.
            let _ = app.commit(&system, progressed(&session, progress)?).await?;
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
                match commit::uploaded(app, &grant, &session, image(&session, &session.object, facts)).await {
                    // The image was deleted while it was being verified.
                    Err(Error::NotFound(_)) => end(app, &system, &session).await,
                    committed => committed.map(drop),
                }
            }
            (Err(Error::WrongBytes(why)), _) => {
                tracing::warn!(repository = %session.repository, hash = %session.hash, why, "an upload was refused");
                telemetry::count(Count::UploadsRefused, 1);
                end(app, &system, &session).await
            }
            (Ok(_), None) => end(app, &system, &session).await,
            (Err(error), _) => Err(error),
        };
    }
}

/// A grant for the user who opened a session, if they may still push there. Their token's scope was checked when the
/// session was opened and sealed.
async fn opener(app: &App, session: &Session) -> Result<Option<Grant>, Error> {
    let key = keys::container(&session.repository);
    let access = Access::of(app, &session.opened_by, session.repository.entity(), [key.clone()]).await;
    let mut access = match access {
        Err(Error::Unauthenticated(_)) => return Ok(None),
        access => access?,
    };
    let container: Option<Container> = access.take(&key)?;
    Ok(container.and_then(|container| access.probe(Action::Push, &resource_of(&container)).ok()))
}

/// Verifies the immutable object of a session and commits the image, or refuses the bytes.
pub(super) async fn finish(
    app: &App,
    grant: &Grant,
    session: &Session,
    object: &str,
    pinned: bool,
) -> Result<Completed, Error> {
    match check(app, session, object, pinned).await {
        Ok(facts) => {
            let (image, quota) = commit::uploaded(app, grant, session, image(session, object, facts)).await?;
            Ok(Completed { image, quota })
        }
        Err(Error::WrongBytes(why)) => {
            telemetry::count(Count::UploadsRefused, 1);
            end(app, grant, session).await?;
            Err(Error::WrongBytes(why))
        }
        Err(error) => Err(error),
    }
}

/// The verified bytes of a session.
fn image(session: &Session, object: &str, facts: SifFacts) -> VerifiedImage {
    let bytes = VerifiedBytes { digest: session.hash, object: object.to_owned(), size: session.size };
    VerifiedImage { bytes, facts }
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
    Error::WrongBytes(format!("{taken} bytes with the digest {digest} arrived instead of {size} with {hash}"))
}

/// The metadata of the image in an object of `size` bytes, from a few ranged reads.
pub(crate) async fn facts(app: &App, object: &str, size: u64) -> Result<SifFacts, Error> {
    let mut step = sif::start(size)?;
    loop {
        step = match step {
            sif::Step::Need(ask) => {
                let bytes = app.objects.read(object, ask.range()).await?;
                ask.feed(&bytes)?
            }
            sif::Step::Done(facts) => return Ok(facts),
        };
    }
}
