//! Uploading the bytes of an image: sessions, and the handling of their bytes.
//!
//! # Opening ([`single`], [`parts`])
//!
//! 1. Read the target of the id, and the session of single `PUT`s; then the container, the image, the charge and the
//!    account.
//! 2. Multipart only: start the store's own upload. *Dies*: it leaves an upload that no session names; the sweeper
//!    finds it in the store's list.
//! 3. In one transaction: write the session row, the reservation (one for all sessions of an entity and digest), and
//!    the account. The account's condition is the quota, so races can't exceed it. *Lost*: start again. *Fails*: the
//!    store's upload is aborted.
//! 4. Presign. URLs expire with their session.
//!
//! # Completing ([`single`], [`parts`])
//!
//! 1. Read the same rows. If the image is committed already, that is success, however often the client asks.
//! 2. Make the bytes immutable: a pinned `PUT` can only have written the right ones; a staged upload is copied to an
//!    object that no client knows; parts are assembled, after which their URLs stop working. Each of these can be
//!    repeated.
//! 3. Verify ([`verify`]): either the store has refused any wrong bytes (pinned), or we read the whole object and
//!    compare digest and size.
//! 4. Read the image's metadata, in a few ranges.
//! 5. [Commit](commit). *Wrong bytes in 3 or 4*: one transaction removes the session, gives back the reservation and
//!    condemns the object.
//!
//! A multipart upload may be too large to be read while its client waits. Then one transaction after 2 seals the
//! session, lists it, and records it on the image. The client gets its answer, and may tag the image; such tags are
//! recorded too. [`verify`] does steps 3 to 5. It saves its progress, so that a successor can continue if it dies.

pub mod commit;
pub mod parts;
mod session;
pub mod single;
pub mod verify;

pub use session::Completed;
pub(crate) use session::end;
