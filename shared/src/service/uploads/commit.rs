//! Making an image visible, with everything that must be true at that moment, in one transaction.
//!
//! # The commit
//!
//! The bytes were verified before: they are in an object that nobody can change any more, and their digest is the
//! image's.
//!
//! 1. Read image, blob, the entity's charge, its account, the repository's link, and the session, in one batch. *The
//!    image has its content already*: somebody else committed the same bytes. That is success, and ends the session. *The
//!    bytes of an existing blob are lost*: they are [restored](crate::service::restore) from these.
//! 2. In one transaction, each row conditional on what was read: the image gets its content; the blob row is created,
//!    or counts one more entity; the link makes the blob visible in the repository; the charge turns from reserved to
//!    used; details and OCI manifest are written; the repository's epoch is incremented, since something more names
//!    the blob; the session is deleted; an object that turns out not to be needed is condemned; the requested tags are
//!    set. *Lost*: start again. Every step reads again, and none is half done. *Dies before*: it leaves an open
//!    session, which the sweeper ends. *Dies after*: nothing is left to do.

use crate::app::App;
use crate::changes::blobs::{self, BlobRows, Linked, Linking, VerifiedImage};
use crate::changes::images::{self, Committed, Committing};
use crate::domain::quota::Quota;
use crate::domain::{Repository, TagName};
use crate::error::Error;
use crate::random;
use crate::rules::Grant;
use crate::service::restore;
use crate::service::retry::Retry;
use crate::store::keys;
use crate::store::rows::{Image, Row, Session, Tag};
use crate::store::table::Written;
use crate::telemetry::{self, Count};
use std::collections::BTreeMap;

/// Commits an image whose bytes are known already, without an upload.
pub(crate) async fn known(app: &App, grant: &Grant, image: &Image, known: VerifiedImage) -> Result<Image, Error> {
    commit(app, grant, &image.repository, known, None).await.map(|(image, _)| image)
}

/// Commits an image whose bytes were uploaded in a session.
pub(crate) async fn uploaded(
    app: &App,
    grant: &Grant,
    session: &Session,
    verified: VerifiedImage,
) -> Result<(Image, Quota), Error> {
    commit(app, grant, &session.repository, verified, Some(session)).await
}

async fn commit(
    app: &App,
    grant: &Grant,
    repository: &Repository,
    verified: VerifiedImage,
    session: Option<&Session>,
) -> Result<(Image, Quota), Error> {
    let digest = verified.bytes.digest;
    let image_key = keys::image(repository, &digest);
    let blob_keys = BlobRows::keys(repository, &digest, &digest.into());
    let mut retry = Retry::of("pushes of the same image");
    loop {
        retry.pause().await?;
        let wanted = blob_keys.iter().cloned().chain([image_key.clone()]).chain(session.map(Row::key));
        let mut rows = app.table.batch(wanted).await?;
        let image: Image = rows.take(&image_key)?.ok_or(Error::NotFound("image"))?;
        let found = BlobRows::take(&mut rows, &blob_keys)?;
        let quota = found.account.quota;
        if let Some(content) = &image.content {
            if let Some(session) = session {
                restore::bytes(app, grant, &verified.bytes, &content.object).await?;
                super::end(app, grant, session).await?;
            }
            return Ok((image, quota));
        }
        // If the session was replaced in the meantime, it has another object, and ours was condemned with the old
        // session.
        let open: Option<Session> = match session {
            Some(session) => rows.take(&session.key())?.filter(|open: &Session| open.object == session.object),
            None => None,
        };
        if session.is_some() && open.is_none() {
            return Err(Error::Conflict(super::session::OVER.to_owned()));
        }
        if session.is_none() && found.blob.is_none() {
            // The known bytes were removed in the meantime. They have to be uploaded.
            return Ok((image, quota));
        }
        if let Some(blob) = &found.blob {
            restore::bytes(app, grant, &verified.bytes, &blob.object).await?;
        }
        let intended = intended(app, &image).await?;
        let linking = Linking {
            repository,
            name: digest.into(),
            bytes: &verified.bytes,
            facts: Some(&verified.facts),
            sessions: -i64::from(open.is_some()),
            released: 0,
            now: app.now(),
            first_version: random::number()?,
        };
        let Linked { writes, object, quota } = blobs::link(found, &linking)?;
        let (session, first_version, now) = (open.as_ref(), random::number()?, app.now());
        let committing = Committing { image, verified: &verified, object, session, intended, first_version, now };
        let Committed { image, changes } = images::committed(committing)?;
        match app.commit(grant, changes.with(writes)).await? {
            Written::Done => {
                if session.is_some() {
                    telemetry::count(Count::UploadsCommitted, 1);
                    telemetry::count(Count::UploadedBytes, verified.bytes.size);
                }
                return Ok((image, quota));
            }
            Written::Lost(failed) => tracing::debug!(?failed, "commit lost a race"),
        }
    }
}

/// The rows of the tags that were requested while the image's bytes were being verified.
async fn intended(app: &App, image: &Image) -> Result<BTreeMap<TagName, Tag>, Error> {
    let mut tags = BTreeMap::new();
    if image.intents.is_empty() {
        return Ok(tags);
    }
    let keys: Vec<_> = image.intents.iter().map(|intent| keys::tag(&image.repository, &intent.tag)).collect();
    let mut rows = app.table.batch(keys.iter().cloned()).await?;
    for (key, intent) in keys.iter().zip(&image.intents) {
        tags.extend(rows.take::<Tag>(key)?.map(|tag| (intent.tag.clone(), tag)));
    }
    Ok(tags)
}
