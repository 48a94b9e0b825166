//! What is in the table: one struct a kind of row. Where it is, [`keys`] says.

use super::keys::{self, Key};
use crate::domain::quota::Quota;
use crate::domain::sif::SifFacts;
use crate::domain::{
    Actor, CollectionName, Description, Digest, EntityName, Id, OciDigest, Repository, Role, TagName, Time, TokenId,
    TokenScope, UploadId, UserName, Visibility,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A row with its place in the table.
pub trait Row: Serialize + DeserializeOwned {
    /// Where the row is.
    fn key(&self) -> Key;
}

macro_rules! row {
    ($type:ident, $row:ident => $key:expr) => {
        impl Row for $type {
            fn key(&self) -> Key {
                let $row = self;
                $key
            }
        }
    };
}

/// A person's account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// argon2id in PHC form; `None`: no password, tokens only.
    pub password: Option<String>,
    /// Whether they are a site admin.
    pub admin: bool,
    /// Whether they may do nothing for now.
    pub disabled: bool,
    /// When the account was made.
    pub created: Time,
    /// Counts the changes of this row, which are conditional on it.
    pub version: u64,
}
row!(User, row => keys::user(&row.name));

/// An entry in the list of users.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserListed {
    /// The name.
    pub name: UserName,
}
row!(UserListed, row => keys::user_listed(&row.name));

/// Wrong passwords that were shown for a name lately, whether or not there is a user of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WrongPasswords {
    /// The name.
    pub user: UserName,
    /// How many.
    pub count: u32,
    /// When the first of them was.
    pub since: Time,
    /// Counts the changes of this row, which are conditional on it.
    pub version: u64,
}
row!(WrongPasswords, row => keys::wrong_passwords(&row.user));

/// One of a user's tokens. Deleting the row revokes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// The `jti` of the token.
    pub id: TokenId,
    /// Whose it is.
    pub user: UserName,
    /// What the user calls it.
    pub name: String,
    /// What it may be used for.
    pub scope: TokenScope,
    /// When it was made.
    pub created: Time,
    /// When it ends; `None`: never.
    pub expires: Option<Time>,
}
row!(Token, row => keys::token(&row.user, row.id));

/// A user's standing on an entity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    /// The entity.
    pub entity: EntityName,
    /// The user.
    pub user: UserName,
    /// The standing.
    pub role: Role,
}
row!(Member, row => keys::member(&row.entity, &row.user));

/// The inverse of [`Member`], to find a user's entities.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Membership {
    /// The entity.
    pub entity: EntityName,
    /// The user.
    pub user: UserName,
    /// The standing.
    pub role: Role,
}
row!(Membership, row => keys::membership(&row.user, &row.entity));

/// An entity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entity {
    /// Its id on the wire.
    pub id: Id,
    /// Its name.
    pub name: EntityName,
    /// What its people say of it.
    pub description: Description,
    /// Whether what is created in it is private.
    pub default_private: bool,
    /// Who made it.
    pub created_by: Option<Actor>,
    /// When.
    pub created: Time,
    /// Counts the changes of this row, which are conditional on it.
    pub version: u64,
}
row!(Entity, row => keys::entity(&row.name));

/// The quota account of an entity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// Whose.
    pub entity: EntityName,
    /// Its numbers.
    #[serde(flatten)]
    pub quota: Quota,
}
row!(Account, row => keys::account(&row.entity));

/// A collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Collection {
    /// Its id on the wire.
    pub id: Id,
    /// The entity that it lies in.
    pub entity: EntityName,
    /// The id of that entity.
    pub entity_id: Id,
    /// Its name.
    pub name: CollectionName,
    /// What its people say of it.
    pub description: Description,
    /// Whether containers created in it are private.
    pub private: bool,
    /// Who made it.
    pub created_by: Option<Actor>,
    /// When.
    pub created: Time,
    /// Counts the changes of this row, which are conditional on it.
    pub version: u64,
}
row!(Collection, row => keys::collection(&row.entity, &row.name));

/// A container, or another repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// Its id on the wire.
    pub id: Id,
    /// Its path.
    pub repository: Repository,
    /// The id of its collection; `None` when it is no library container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection_id: Option<Id>,
    /// The id of its entity.
    pub entity_id: Id,
    /// What its people say of it.
    pub description: Description,
    /// Who may read it.
    pub visibility: Visibility,
    /// Whether it takes no writes for now.
    pub read_only: bool,
    /// Who made it.
    pub created_by: Option<Actor>,
    /// When.
    pub created: Time,
    /// Counts the changes of what names what in it. Who removes what nothing names does so only if it has not changed
    /// since they looked; who names something, only if nothing was removed.
    #[serde(default)]
    pub epoch: u64,
    /// Counts the changes of this row, which are conditional on it.
    pub version: u64,
}
row!(Container, row => keys::container(&row.repository));

/// What is known of an image once its bytes were verified; short enough to be copied into tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Bytes.
    pub size: u64,
    /// Name of the object in the bucket.
    pub object: String,
    /// Architecture in Go's words; empty when the image doesn't say.
    pub arch: String,
    /// Whether it holds a signature.
    pub signed: bool,
    /// Whether its file system is encrypted.
    pub encrypted: bool,
    /// Fingerprints of the signing keys, upper-case hexadecimal.
    pub fingerprints: Vec<String>,
}

/// An image in a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// Its id on the wire.
    pub id: Id,
    /// The container.
    pub repository: Repository,
    /// The ids of container, collection and entity, for the wire.
    pub parents: Parents,
    /// The digest of its bytes.
    pub hash: Digest,
    /// What its pusher says of it.
    pub description: Description,
    /// Who brought it.
    pub created_by: Option<Actor>,
    /// When the push began.
    pub created: Time,
    /// What is known of its bytes; `None` while they have not been verified, and then nobody else may see it.
    pub content: Option<Content>,
    /// The session whose bytes are all there and are being verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<UploadId>,
    /// Tags that the image gets when its bytes turn out to be right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intents: Vec<Intent>,
    /// Whether any tag ever named it.
    #[serde(default)]
    pub named: bool,
    /// Its tags.
    #[serde(default, with = "serde_dynamo::string_set", skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<TagName>,
    /// Labels read from the image, as far as search wants them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Counts the changes of this row, which are conditional on it.
    pub version: u64,
}
row!(Image, row => keys::image(&row.repository, &row.hash));

/// A tag that was asked for while the image's bytes were being verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The tag.
    pub tag: TagName,
    /// The architecture, where the client named one.
    pub arch: Option<String>,
}

/// Ids of what an image lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parents {
    /// The container's.
    pub container: Id,
    /// The collection's.
    pub collection: Id,
    /// The entity's.
    pub entity: Id,
}

/// What was read in an image, whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Details {
    /// The container.
    pub repository: Repository,
    /// The digest of the image's bytes.
    pub hash: Digest,
    /// What the image says of itself.
    pub facts: SifFacts,
}
row!(Details, row => keys::details(&row.repository, &row.hash));

/// A tag: one row, architecture → image, whichever door set it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tag {
    /// The repository.
    pub repository: Repository,
    /// The tag's name.
    pub name: TagName,
    /// The image of each architecture, with all that a pull asks. Empty when it names something that is no SIF image.
    pub images: BTreeMap<String, Tagged>,
    /// What it names for registry clients.
    pub named: Named,
    /// Whether it may not be moved or deleted.
    pub frozen: bool,
    /// When it was last set.
    pub updated: Time,
    /// The architecture last set, for clients that ask for none.
    pub last: String,
    /// Counts the changes of this row, which are conditional on it.
    pub version: u64,
}
row!(Tag, row => keys::tag(&row.repository, &row.name));

/// A manifest, as registry clients are told of it before they ask for its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The digest of its bytes.
    pub digest: OciDigest,
    /// Its media type.
    pub media_type: String,
    /// Bytes.
    pub size: u64,
}

/// What a tag copies of its image, so that a pull reads one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tagged {
    /// The image's id.
    pub id: Id,
    /// The digest of its bytes.
    pub hash: Digest,
    /// What its pusher says of it.
    pub description: Description,
    /// Who brought it.
    pub created_by: Option<Actor>,
    /// When.
    pub created: Time,
    /// What is known of its bytes.
    pub content: Content,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A manifest in a repository, with its exact bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The repository.
    pub repository: Repository,
    /// The digest of the bytes.
    pub digest: OciDigest,
    /// The media type that it is served with.
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    /// Bytes that its entity's account is charged for it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cost: u64,
    /// The bytes, exactly; empty when they are too long for a row.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Name of the object in the bucket that holds them then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The blobs and manifests of this repository that it names: they stay while it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<OciDigest>,
    /// What it says something of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<OciDigest>,
    /// The library image that is its layer, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// Who brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Actor>,
    /// When.
    pub created: Time,
}
row!(Manifest, row => keys::manifest(&row.repository, &row.digest));

/// What a manifest has to do with what else is in its repository. Read without its bytes, for which a repository is
/// too large to be held at once.
#[derive(Debug, Clone, Deserialize)]
pub struct ManifestLinks {
    /// The repository.
    pub repository: Repository,
    /// The manifest.
    pub digest: OciDigest,
    /// Bytes that its entity's account is charged for it.
    #[serde(default)]
    pub cost: u64,
    /// Name of the object in the bucket that holds it, if one does.
    #[serde(default)]
    pub object: Option<String>,
    /// What it names and that is in this repository.
    #[serde(default)]
    pub names: Vec<OciDigest>,
    /// What it says something of.
    #[serde(default)]
    pub subject: Option<OciDigest>,
    /// The library image that is its layer, where it is one.
    #[serde(default)]
    pub image: Option<Digest>,
    /// Who brought it.
    #[serde(default)]
    pub created_by: Option<Actor>,
}

impl ManifestLinks {
    /// What of a [`Manifest`] it is.
    pub const ATTRIBUTES: &[&str] =
        &["repository", "digest", "cost", "object", "names", "subject", "image", "created_by"];
}

/// A manifest that says something of another one, its subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Referrer {
    /// The repository.
    pub repository: Repository,
    /// What it says something of.
    pub subject: OciDigest,
    /// The manifest.
    pub digest: OciDigest,
    /// What it is.
    pub artifact_type: String,
    /// Its descriptor, a JSON document.
    pub descriptor: String,
}
row!(Referrer, row => keys::referrer(&row.repository, &row.subject, &row.digest));

/// A blob's link in a repository: what makes it visible there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Link {
    /// The repository.
    pub repository: Repository,
    /// The digest by which it is known there.
    pub name: OciDigest,
    /// The blob's own digest.
    pub digest: Digest,
    /// Name of the object in the bucket.
    pub object: String,
    /// Bytes.
    pub size: u64,
    /// When a push last asked for it. What no manifest names stays for a day after that.
    pub seen: Time,
}
row!(Link, row => keys::link(&row.repository, &row.name));

/// That library images are, or were, in a repository: the empty configuration that their manifests name is there
/// without bytes, and without a link that somebody would have to pay for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Marker {
    /// The repository.
    pub repository: Repository,
}
row!(Marker, row => keys::marker(&row.repository));

/// A blob of the installation: verified bytes, stored once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Blob {
    /// The digest.
    pub digest: Digest,
    /// Name of the object in the bucket.
    pub object: String,
    /// Bytes.
    pub size: u64,
    /// How many entities hold it. The row goes with the last one.
    pub entities: u64,
    /// Counts the changes of this row, which are conditional on it. Begins at random, so that a blob which went and
    /// came back is not taken for the old one.
    pub version: u64,
    /// What the image says of itself, when it is one.
    pub facts: Option<SifFacts>,
}
row!(Blob, row => keys::blob(&row.digest));

/// What a blob costs an entity. With no links it is a reservation, shared by the sessions that bring the blob.
/// It goes with the last link and session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Charge {
    /// Who pays.
    pub entity: EntityName,
    /// For what.
    pub digest: Digest,
    /// Bytes charged.
    pub size: u64,
    /// How many repositories of the entity link the blob.
    pub links: u64,
    /// How many open sessions bring it.
    pub sessions: u64,
    /// Counts the changes of this row, which are conditional on it.
    pub version: u64,
}
row!(Charge, row => keys::charge(&row.entity, &row.digest));

/// What an id points at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pointer {
    /// The id.
    pub id: Id,
    /// What it points at.
    pub target: Target,
}
row!(Pointer, row => keys::pointer(row.id));

/// The name behind an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// An entity.
    Entity(EntityName),
    /// A collection.
    Collection(EntityName, CollectionName),
    /// A container.
    Container(Repository),
    /// An image.
    Image(Repository, Digest),
}

/// How the bytes of a session travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// One `PUT` whose signature pins the digest: the store itself refuses other bytes.
    Pinned,
    /// One `PUT` by a client that announces no digest. The object is a staging object: its URL can be used again.
    Staged,
    /// Multipart; the store's own id of it.
    Parts(String),
}

/// How far a session is: `Open → Sealed`.
/// It ends, and its row goes, with the transaction that commits the image, refuses the bytes or gives up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Bytes are travelling.
    Open,
    /// All bytes are there and can't change any more. They are being verified, and are so this far.
    Sealed(Progress),
}

/// How much of an object was hashed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes.
    pub taken: u64,
    /// The hasher's state after them; empty at the beginning.
    pub hasher: String,
}

/// An upload session: one attempt to bring the bytes of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: UploadId,
    /// The container.
    pub repository: Repository,
    /// The digest that the bytes must have.
    pub hash: Digest,
    /// The image's id.
    pub image: Id,
    /// Who opened it.
    pub opened_by: Actor,
    /// How the bytes travel.
    pub way: Way,
    /// Name of the object in the bucket.
    pub object: String,
    /// Bytes announced.
    pub size: u64,
    /// How far it is.
    pub state: State,
    /// When it was opened.
    pub created: Time,
    /// When it is collected.
    pub expires: Time,
    /// Counts the changes of this row, which are conditional on it.
    pub version: u64,
}
row!(Session, row => keys::session(row.id));

/// How far a blob is whose bytes a registry client sends through us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flow {
    /// Bytes come in.
    Open,
    /// It is in its repository. Kept for a while, so that who did not hear of it can ask again.
    Done(OciDigest),
    /// It was given up.
    Over,
}

/// A blob whose bytes a registry client sends through us.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stream {
    /// Its id.
    pub id: UploadId,
    /// The repository.
    pub repository: Repository,
    /// Who opened it.
    pub opened_by: Actor,
    /// How far it is.
    pub flow: Flow,
    /// Bytes taken in.
    pub taken: u64,
    /// The hasher's state after them.
    pub hasher: String,
    /// Name of the object that the parts make; empty before the first one.
    pub object: String,
    /// The store's id of the multipart upload; empty before the first part.
    pub upload: String,
    /// The store's `ETag`s of the parts. What is put together is exactly these.
    pub etags: Vec<String>,
    /// The object that holds the bytes after the last part; empty when there are none.
    pub tail: String,
    /// How many those are.
    pub tail_size: u64,
    /// Bytes that it has reserved of its entity's quota.
    pub reserved: u64,
    /// When it is collected.
    pub expires: Time,
    /// Counts the changes of this row, which are conditional on it. Whoever takes bytes in counts it on first, so that
    /// nobody else does meanwhile.
    pub version: u64,
}
row!(Stream, row => keys::stream(row.id));

/// An object that nothing names any more, to be deleted once no URL for it can be in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Condemned {
    /// Name of the object in the bucket.
    pub object: String,
    /// Since when.
    pub since: Time,
    /// A multipart upload of it that is to be aborted first.
    pub upload: Option<String>,
}
row!(Condemned, row => keys::condemned(&row.object));

/// An upload that waits to be verified, in the list of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealedListed {
    /// The session.
    pub upload: UploadId,
}
row!(SealedListed, row => keys::sealed_listed(row.upload));

/// Who did what. Written in the transaction of what it tells, and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Whose log it is in: an entity's, `+` and a user's, or `-` for the installation's.
    pub log: String,
    /// When, in milliseconds since 1970.
    pub millis: u64,
    /// Keeps events of the same millisecond apart.
    pub random: u32,
    /// Who.
    pub actor: Actor,
    /// The token that they showed, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// What they were allowed to do.
    pub action: String,
    /// Where.
    pub place: String,
    /// What was done.
    pub what: Vec<What>,
    /// When it is forgotten: the attribute of the table's own time to live.
    pub gone: Time,
}
row!(Event, row => keys::event(&row.log, row.millis, row.random));

/// One thing that was done, at the place of its event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The entity was made.
    EntityMade,
    /// The collection was made.
    CollectionMade,
    /// The container, or another repository, was made.
    ContainerMade,
    /// The entity, collection or container was changed in these respects.
    Changed(Vec<String>),
    /// A push of an image began.
    ImageBegun {
        /// The digest that its bytes shall have.
        hash: Digest,
    },
    /// An image has its bytes now.
    ImageCommitted {
        /// Their digest.
        hash: Digest,
    },
    /// An image was removed, or never got its bytes.
    ImageRemoved {
        /// Its digest.
        hash: Digest,
    },
    /// A tag leads somewhere else than before.
    TagSet(TagMove),
    /// A tag is gone.
    TagRemoved(TagMove),
    /// A tag was frozen, or that was lifted.
    TagFrozen {
        /// The tag.
        tag: TagName,
        /// Whether it is frozen now.
        frozen: bool,
    },
    /// A manifest was pushed.
    ManifestPushed {
        /// Its digest.
        digest: OciDigest,
    },
    /// A manifest was removed.
    ManifestRemoved {
        /// Its digest.
        digest: OciDigest,
    },
    /// A blob is seen in the repository now.
    BlobLinked {
        /// Its digest.
        digest: OciDigest,
    },
    /// A blob is no longer seen in the repository.
    BlobUnlinked {
        /// Its digest.
        digest: OciDigest,
    },
    /// A user was added.
    UserAdded {
        /// The name.
        name: UserName,
    },
    /// A password was set.
    PasswordSet,
    /// An account was disabled, or enabled again.
    UserDisabled {
        /// Whether it is disabled now.
        disabled: bool,
    },
    /// A token was made.
    TokenMade {
        /// Its row.
        id: TokenId,
        /// What it may be used for.
        scope: TokenScope,
    },
    /// A token was revoked.
    TokenRevoked {
        /// Its row.
        id: TokenId,
    },
    /// The limit of an entity's account was set, in bytes.
    LimitSet {
        /// The entity.
        entity: EntityName,
        /// What it was.
        before: u64,
        /// What it is now.
        after: u64,
    },
}

/// Where a tag leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagMove {
    /// The tag.
    pub tag: TagName,
    /// The manifest that it names; `None` where it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<OciDigest>,
    /// The library image of each architecture.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, Digest>,
}
