//! Uploads of a whole file in one `PUT`.

use super::session::{CONTENDED, Completed, UploadTarget, check_size, left};
use super::verify;
use crate::app::App;
use crate::auth::Credential;
use crate::domain::time::SKEW;
use crate::domain::{Digest, Id, Pins, UploadId};
use crate::error::Error;
use crate::service::retry::Retry;
use crate::store::objects::{MAX_PUT, NewPut};
use crate::store::rows::Way;
use crate::store::table::Written;

/// A client's announcement before it uploads a whole file at once.
#[derive(Debug, Clone, Copy)]
pub struct Announced {
    /// Bytes.
    pub size: u64,
    /// The digest of the file, if the client sends it with the upload.
    pub digest: Option<Digest>,
}

/// Opens or joins the session of an image's single `PUT`s, and returns the URL for the bytes.
pub async fn open(app: &App, credential: &Credential, image: Id, file: Announced) -> Result<String, Error> {
    if file.size > MAX_PUT {
        return Err(Error::Invalid(format!("a single upload takes at most {MAX_PUT} bytes, use a multipart upload")));
    }
    check_size(file.size)?;
    let mut retry = Retry::of(CONTENDED);
    loop {
        retry.pause().await?;
        let target = UploadTarget::load(app, credential, image, UploadId::of_image(image)).await?;
        if file.digest.is_some_and(|digest| digest != target.image.hash) {
            return Err(Error::Invalid(format!(
                "the SHA-256 of the upload is not that of the image, {}",
                target.image.hash
            )));
        }
        let put = NewPut { size: file.size, digest: file.digest.filter(|_| app.config.pin_uploads == Pins::Bytes) };
        let way = if put.digest.is_some() { Way::Pinned } else { Way::Staged };
        if let Some(open) = target.session.as_ref().filter(|open| open.way == way && open.size == file.size) {
            let left = left(app.now(), open.expires);
            // A session that is about to expire is no use for a new upload; nor is one that was opened by a clock ahead.
            if left >= app.config.upload_life / 2 && left <= app.config.upload_life + SKEW {
                let left = left.min(target.longest);
                return Ok(app.objects.presign_put(&target.grant, &open.object, put, left).await?);
            }
        }
        let session = target.new_session(app, UploadId::of_image(image), way, file.size)?;
        if target.open(app, &session).await? == Written::Done {
            return Ok(app.objects.presign_put(&target.grant, &session.object, put, target.longest).await?);
        }
    }
}

/// Completes the single `PUT` of an image.
pub async fn complete(app: &App, credential: &Credential, image: Id) -> Result<Completed, Error> {
    let target = UploadTarget::load(app, credential, image, UploadId::of_image(image)).await?;
    if target.needs_nothing(app).await? {
        return target.already(app).await;
    }
    let UploadTarget { grant, session, .. } = target;
    let session = session.ok_or_else(|| Error::Conflict("there is no open upload of this image".to_owned()))?;
    let size = app.objects.size(&session.object).await?;
    if size != Some(session.size) {
        // Nothing arrived, or not everything; the URL still accepts it.
        return Err(Error::Invalid(format!("the upload is not complete, {} bytes are missing", session.size)));
    }
    let pinned = matches!(session.way, Way::Pinned);
    if pinned {
        return verify::finish(app, &grant, &session, &session.object, pinned).await;
    }
    let object = app.new_object()?;
    app.objects.copy(&grant, &session.object, &object, session.size).await?;
    let completed = verify::finish(app, &grant, &session, &object, pinned).await;
    if matches!(completed, Err(Error::WrongBytes(_))) {
        // The copy was never committed, and no client knows it. After other errors that isn't certain: the sweeper
        // checks.
        app.objects.delete(&grant, &object).await?;
    }
    completed
}
