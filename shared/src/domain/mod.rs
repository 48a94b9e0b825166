//! Words and values: everything that can be expressed about a library, and nothing else.
//!
//! No I/O, no async, no clock. A value of one of these types was checked when it was created, and is trusted from then
//! on.

pub mod about;
pub mod actor;
pub mod caller;
pub mod deletion;
pub mod description;
pub mod digest;
pub mod download;
pub mod ids;
pub mod manifest;
pub mod names;
pub mod order;
pub mod pins;
pub mod quota;
pub mod reference;
pub mod registration;
pub mod roles;
pub mod search;
pub mod share;
pub mod sif;
pub mod time;
pub mod visibility;

pub use about::{CustomData, Readme, Said, SourceUrl};
pub use actor::Actor;
pub use caller::{Caller, Right, Role, TokenPlace, TokenScope};
pub use deletion::HowToDelete;
pub use description::Description;
pub use digest::{Digest, OciDigest};
pub use download::{Door, Download, Downloads};
pub use ids::{Id, ShareId, TokenId, UploadId};
pub use names::{CollectionName, ContainerName, EntityName, TagName, UserName};
pub use order::{Order, SortBy};
pub use pins::Pins;
pub use reference::{LibraryRef, ManifestId, Repository, Selector};
pub use registration::{Email, Registration};
pub use roles::{RoleAt, Roles, SubPath};
pub use search::{Thing, ThingKind, Words};
pub use share::{FileName, ShareKey, ShareSecret};
pub use time::{Day, Time};
pub use visibility::Visibility;
