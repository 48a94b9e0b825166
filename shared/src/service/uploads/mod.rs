//! Bringing the bytes of an image: sessions, and what happens to their bytes.
//!
//! # Opening ([`single`], [`parts`])
//!
//! 1. Read the id's target and the session of single `PUT`s; then the container, the image, the charge and the
//!    account.
//! 2. Multipart only: begin the store's own upload.
//!    *Dies*: an upload is left that no session names; the sweeper finds it in the store's list.
//! 3. In one transaction: the session row, the reservation (one for all sessions of an entity and digest), the
//!    account. The account's condition is the quota: racing past it is not possible. *Lost*: begin again. *Fails*: the
//!    store's upload is aborted.
//! 4. Presign. URLs die with their session.
//!
//! # Completing ([`single`], [`parts`])
//!
//! 1. Read the same rows. An image that is committed already is success, however often it is asked.
//! 2. Make the bytes immutable: a pinned `PUT` can only have written the right ones; a staged one is copied to an
//!    object that no client knows; parts are put together, after which their URLs are dead. Each can be done again.
//! 3. Verify ([`verify`]): the store refused other bytes (pinned), or we read the whole object and compare digest and
//!    size.
//! 4. Read what the image says of itself, in a few ranges.
//! 5. [Commit](commit). *Wrong bytes in 3 or 4*: one transaction removes the session, gives the reservation back and
//!    condemns the object.
//!
//! Where a multipart upload is too large to be read while its client waits, one transaction after 2 seals the session,
//! lists it, and notes it on the image. The client gets its answer, and may tag the image, which is noted too. 3 to 5
//! are then [`verify`]'s, which writes down how far it is, so that whoever takes up after it died goes on there.

pub mod commit;
pub mod parts;
mod session;
pub mod single;
pub mod verify;

pub use session::Completed;
pub(crate) use session::end;
