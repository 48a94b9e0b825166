//! Whether the bytes of a blob are still in the bucket, and how they come back.
//!
//! # Restoring lost bytes
//!
//! An object can be lost or cut short: by a failing disk, or by somebody who deletes files. Its name stands in the rows
//! of everything that needs the bytes, so the right bytes come back under the same name.
//!
//! 1. Whoever asks for the bytes, or whether they are there, hears that they are lost. So clients that push send them
//!    again, though rows for them exist.
//! 2. Once the new bytes are verified, they are copied to the name that the rows have. *Dies*: the next push does it. *The
//!    rows are gone since*: the copy is an object that no row names, and is swept.
//! 3. The commit of the push goes on as if the bytes had been there all the time, and condemns its own object.

use crate::app::App;
use crate::changes::blobs::VerifiedBytes;
use crate::error::Error;
use crate::rules::Grant;
use crate::store::rows::Image;

/// Whether an object is there, with all of its bytes. If not, the log says so.
pub(crate) async fn there(app: &App, object: &str, size: u64) -> Result<bool, Error> {
    let there = app.objects.has(object, size).await?;
    if !there {
        tracing::error!(object, size, "bytes are lost; the next push of them brings them back");
    }
    Ok(there)
}

/// An image as it looks to whoever may push it: one whose bytes are lost has none, so that they are uploaded again.
pub(crate) async fn without_lost(app: &App, image: Image) -> Result<Image, Error> {
    match &image.content {
        Some(content) if !there(app, &content.object, content.size).await? => Ok(Image { content: None, ..image }),
        _ => Ok(image),
    }
}

/// Puts verified bytes into the object that rows name for them, if that has lost its own.
pub(crate) async fn bytes(app: &App, grant: &Grant, verified: &VerifiedBytes, named: &str) -> Result<(), Error> {
    if verified.object == named || there(app, named, verified.size).await? {
        return Ok(());
    }
    Box::pin(app.objects.copy(grant, &verified.object, named, verified.size)).await?;
    tracing::warn!(object = named, digest = %verified.digest, "lost bytes are back");
    Ok(())
}
