//! The contents of the table: one struct for each kind of row. [`keys`] defines their places.

use super::keys::{self, Key};
use crate::domain::quota::{Numbers, Quota};
use crate::domain::sif::SifFacts;
use crate::domain::{
    Actor, CollectionName, CustomData, Day, Description, Digest, Downloads, Email, EntityName, FileName, Id, OciDigest,
    Readme, Repository, Role, Roles, ShareId, SourceUrl, SubPath, TagName, Thing, Time, TokenId, TokenScope, UploadId,
    UserName, Visibility,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

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

/// What says which bucket belongs to a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Installation {
    /// Random hexadecimal digits, which the bucket has too.
    pub id: String,
}
row!(Installation, _row => keys::installation());

/// What says that a library was copied to where it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Copied {
    /// What tells the library that it is a copy of from others.
    pub of: String,
    /// Whether all of it is there. Until then, nobody may use it.
    pub whole: bool,
    /// Drawn at random by the run that wrote it last.
    pub run: String,
    /// When that was.
    pub at: Time,
}
row!(Copied, _row => keys::copied());

/// A person's account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// argon2id in PHC form; `None`: no password, tokens only.
    pub password: Option<String>,
    /// Their address, which only they and site admins see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// Whether they are a site admin.
    pub admin: bool,
    /// Whether the account is disabled.
    pub disabled: bool,
    /// When the account was made.
    pub created: Time,
    /// The groups in which directories have them, by the name of the directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, GroupsSeen>,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(User, row => keys::user(&row.name));

impl User {
    /// What tells one password of theirs from another, and says nothing about either: digits of a digest of its salted
    /// hash. Whatever was given for a password ends when there is another one.
    pub fn password_mark(&self) -> Option<String> {
        let hash = self.password.as_ref()?;
        Some(Digest::of(hash.as_bytes()).hex().chars().take(16).collect())
    }
}

/// How many groups a user has made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupsMade {
    /// The user.
    pub user: UserName,
    /// How many.
    pub count: u64,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(GroupsMade, row => keys::groups_made(&row.user));

/// The groups in which a directory has a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsSeen {
    /// The names of the groups there.
    pub names: BTreeSet<String>,
    /// When the directory said so.
    pub seen: Time,
}

/// The account of a robot: it has tokens, but no password, and a role in its own entity only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Robot {
    /// The entity, and the robot's own name there.
    pub actor: Actor,
    /// What it is for.
    pub description: Description,
    /// The user who made it.
    pub created_by: Option<Actor>,
    /// When it was made.
    pub created: Time,
    /// Whether it is being removed: none of its tokens works any more.
    #[serde(default)]
    pub disabled: bool,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(Robot, row => keys::actor(&row.actor));

/// An entry in the list of users.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserListed {
    /// The name.
    pub name: UserName,
}
row!(UserListed, row => keys::user_listed(&row.name));

/// The recent wrong passwords for a name, whether or not such a user exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WrongPasswords {
    /// The name.
    pub user: UserName,
    /// How many.
    pub count: u32,
    /// The time of the first of them.
    pub since: Time,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(WrongPasswords, row => keys::wrong_passwords(&row.user));

/// How often an address tried to register lately.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registrations {
    /// The address, or the network that it lies in.
    pub network: String,
    /// How often.
    pub count: u64,
    /// The time of the first try.
    pub since: Time,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(Registrations, row => keys::registrations(&row.network));

/// A role that an invitation to register gives in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRole {
    /// The group.
    pub entity: EntityName,
    /// The role.
    pub role: Role,
    /// On what; `None` for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<SubPath>,
}

/// An invitation to register: whoever shows its secret may make an account for themselves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistrationInvitation {
    /// Its id, which is in its link too.
    pub id: Id,
    /// The SHA-256 of the secret.
    pub secret: Digest,
    /// The role in a group that comes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupRole>,
    /// The id of that group, which another one of its name does not have: that brings nobody in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<Id>,
    /// How many people it may bring in.
    pub max: u64,
    /// How many it has brought in.
    pub uses: u64,
    /// Its maker: it holds only while they are a site admin.
    pub created_by: UserName,
    /// The token that made it, if one did: it holds only while that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// When it was made.
    pub created: Time,
    /// When it is over.
    pub expires: Time,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(RegistrationInvitation, row => keys::registration_invitation(row.id));

/// A token of a person or robot. Deleting the row revokes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// The `jti` of the token.
    pub id: TokenId,
    /// Whose it is.
    pub actor: Actor,
    /// Its maker's name for it.
    pub name: String,
    /// The scope of the token.
    pub scope: TokenScope,
    /// When it was made.
    pub created: Time,
    /// When it expires; `None`: never.
    pub expires: Option<Time>,
    /// When it was last used, within a day: it is written with the first use after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Time>,
    /// Whether a login made it. Once it has expired, a later one is written in its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub login: bool,
}
row!(Token, row => keys::token(&row.actor, row.id));

impl Token {
    /// When it ends, where tokens live no longer than `longest`.
    pub fn end(&self, longest: Option<Duration>) -> Option<Time> {
        let most = longest.map(|longest| self.created.plus(longest));
        match (self.expires, most) {
            (Some(own), Some(most)) => Some(own.min(most)),
            (own, most) => own.or(most),
        }
    }
}

/// The roles of a person or robot in an entity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    /// The entity.
    pub entity: EntityName,
    /// Whose roles.
    pub actor: Actor,
    /// The roles.
    #[serde(flatten)]
    pub roles: Roles,
    /// Counts the changes of this row; each change is conditional on it.
    #[serde(default)]
    pub version: u64,
}
row!(Member, row => keys::member(&row.entity, &row.actor));

/// The inverse of [`Member`], to find the entities of a person or robot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Membership {
    /// The entity.
    pub entity: EntityName,
    /// Whose roles.
    pub actor: Actor,
    /// The roles.
    #[serde(flatten)]
    pub roles: Roles,
}
row!(Membership, row => keys::membership(&row.actor, &row.entity));

/// The groups of directories whose people have a role in an entity. A lookup compares it with the groups of the user's
/// own row, so that a change of either counts at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Includes {
    /// The entity.
    pub entity: EntityName,
    /// The roles, by `DIRECTORY:GROUP`.
    pub groups: BTreeMap<String, Role>,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(Includes, row => keys::includes(&row.entity));

impl Includes {
    /// The strongest role that somebody has through these groups, by the name of the directory.
    pub fn role(&self, groups: &BTreeMap<String, GroupsSeen>) -> Option<Role> {
        let theirs = |(group, role): (&String, &Role)| {
            let (directory, name) = group.split_once(':')?;
            groups.get(directory)?.names.contains(name).then_some(*role)
        };
        self.groups.iter().filter_map(theirs).max()
    }
}

/// An invitation: whoever shows its secret gets a role in the entity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Invitation {
    /// The entity.
    pub entity: EntityName,
    /// Its id, which is in its link too.
    pub id: Id,
    /// The SHA-256 of the secret.
    pub secret: Digest,
    /// The role that it gives.
    pub role: Role,
    /// On what it gives it; `None`: on the whole entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<SubPath>,
    /// How many people it may bring in.
    pub max: u64,
    /// How many it has brought in.
    pub uses: u64,
    /// Its maker: it holds only while they manage that.
    pub created_by: UserName,
    /// The token that made it, if one did: it holds only while that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// When it was made.
    pub created: Time,
    /// When it is over.
    pub expires: Time,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(Invitation, row => keys::invitation(&row.entity, row.id));

/// Whose an entity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntityKind {
    /// A user's own, of the same name. It has one owner.
    #[default]
    Personal,
    /// A group's. It has at least one admin.
    Group,
}

/// An entity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entity {
    /// Its id on the wire.
    pub id: Id,
    /// Its name.
    pub name: EntityName,
    /// The description.
    pub description: Description,
    /// Whose it is.
    #[serde(default)]
    pub kind: EntityKind,
    /// How many admins a group has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub admins: u64,
    /// Whether new containers in it are private.
    pub default_private: bool,
    /// Its creator.
    pub created_by: Option<Actor>,
    /// The time of creation.
    pub created: Time,
    /// Counts the changes of this row; each change is conditional on it.
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
    /// Counts the changes of this row. They don't depend on it: it tells whether there was one.
    #[serde(default)]
    pub version: u64,
}
row!(Account, row => keys::account(&row.entity));

/// The numbers of an account as they are written, which by mistake may be below zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountNumbers {
    /// Whose.
    pub entity: EntityName,
    /// Used and reserved bytes.
    pub charged: i64,
    /// Reserved bytes.
    pub reserved: i64,
    /// Bytes in surplus.
    #[serde(default)]
    pub surplus: i64,
    /// Rows of the table.
    #[serde(default)]
    pub rows: i64,
    /// Counts the changes of the account.
    #[serde(default)]
    pub version: u64,
}
row!(AccountNumbers, row => keys::account(&row.entity));

impl AccountNumbers {
    /// The same as what should be their sum.
    pub fn numbers(&self) -> Numbers {
        let Self { charged, reserved, surplus, rows, .. } = *self;
        Numbers { used: charged.saturating_sub(reserved), reserved, surplus, rows }
    }
}

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
    /// The description.
    pub description: Description,
    /// Whether new containers in it are private.
    pub private: bool,
    /// Its creator.
    pub created_by: Option<Actor>,
    /// The time of creation.
    pub created: Time,
    /// Counts the changes of this row; each change is conditional on it.
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
    /// The id of its collection; `None` if it is no library container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection_id: Option<Id>,
    /// The id of its entity.
    pub entity_id: Id,
    /// The description.
    pub description: Description,
    /// Its visibility.
    pub visibility: Visibility,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Its creator.
    pub created_by: Option<Actor>,
    /// The time of creation.
    pub created: Time,
    /// The epoch: counts the changes of what names what in it. Code that removes things that nothing names requires
    /// that it has not changed since they were looked up.
    #[serde(default)]
    pub epoch: u64,
    /// Counts those of them that removed something. Code that names something requires that this has not changed since
    /// it was looked up: so two of them never wait for each other.
    pub removals: u64,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(Container, row => keys::container(&row.repository));

/// A container, or another repository, that was deleted. Its own row is gone, so everything in it is hidden. This row
/// stays, and keeps the name from being used again, until all other rows of it are removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemovedContainer {
    /// Its path.
    pub repository: Repository,
    /// Who deleted it.
    pub by: Option<Actor>,
    /// When.
    pub at: Time,
    /// Drawn at random, so that it is not taken for another one of the same name.
    pub version: u64,
}
row!(RemovedContainer, row => keys::removed_container(&row.repository));

/// An entity that was deleted with everything in it. The row stays for good: somebody may still pull by its name, so that
/// only a site admin can give the name to something else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemovedEntity {
    /// Its name.
    pub name: EntityName,
    /// Whether it was a user's own, and the user was deleted with it.
    pub user: bool,
    /// Who deleted it.
    pub by: Option<Actor>,
    /// When.
    pub at: Time,
    /// Whether nothing is left of it but this row.
    pub gone: bool,
    /// Drawn at random, so that it is not taken for another one of the same name.
    pub version: u64,
}
row!(RemovedEntity, row => keys::removed_entity(&row.name));
/// What a row with texts is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Described {
    /// An entity.
    Entity(EntityName),
    /// A collection.
    Collection(EntityName, CollectionName),
    /// A container, or another repository.
    Container(Repository),
}

impl Described {
    /// Where its row is.
    pub fn key(&self) -> Key {
        match self {
            Self::Entity(entity) => keys::about_entity(entity),
            Self::Collection(entity, collection) => keys::about_collection(entity, collection),
            Self::Container(repository) => keys::about_container(repository),
        }
    }

    /// The entity that it is, or is in.
    pub fn entity(&self) -> &EntityName {
        match self {
            Self::Entity(entity) | Self::Collection(entity, _) => entity,
            Self::Container(repository) => repository.entity(),
        }
    }
}

/// What people say about an entity, a collection or a repository beyond its description. It may be long, so that only
/// requests for this one thing read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// About what.
    pub of: Described,
    /// Its id, which one that is created after it was deleted does not have: nothing is said about that.
    pub id: Id,
    /// The README.
    pub readme: Readme,
    /// Data of its people.
    pub custom_data: CustomData,
    /// Where its sources are.
    pub vcs_url: SourceUrl,
    /// How many rows it counts as in its entity's account.
    pub rows: u64,
    /// When it was last changed.
    pub updated: Time,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(About, row => row.of.key());

/// The numbers of a repository that many people change. They lie beside its own row, so that they hold up nobody who
/// pushes there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Counts {
    /// The repository.
    pub repository: Repository,
    /// Its id, which one that is created after it was deleted does not have: that begins with zero.
    pub container: Id,
    /// How many users have starred it.
    pub stars: u64,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(Counts, row => keys::counts(&row.repository));

/// How often something was downloaded: since it is there, or on each of some days.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Downloaded {
    /// The repository.
    pub repository: Repository,
    /// Its id, which one that is created after it was deleted does not have: that begins with zero.
    pub container: Id,
    /// What of it.
    pub of: Counted,
    /// The first of the days; `None` for the sum of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Day>,
    /// How often, on all of its days together.
    pub downloads: Downloads,
    /// How often on each of them; none in the sum of all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub days: BTreeMap<Day, Downloads>,
    /// When the latest was.
    pub latest: Time,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(Downloaded, row => keys::downloaded(&row.repository, &row.of, row.first));

impl Downloaded {
    /// The rows of which one is there as long as the tag or image is. They lie in the partition of the number, after it.
    pub(crate) fn counted(&self) -> Vec<Key> {
        match &self.of {
            Counted::Repository => Vec::new(),
            Counted::Tag(tag) => vec![keys::tag(&self.repository, tag)],
            Counted::Image(digest) => {
                let file = if let OciDigest::Sha256(hash) = digest { Some(hash) } else { None };
                let file = file.map(|hash| keys::details(&self.repository, hash));
                file.into_iter().chain([keys::manifest(&self.repository, digest)]).collect()
            }
        }
    }
}

/// What downloads are counted of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// The whole repository: each download of an image in it.
    Repository,
    /// One image.
    Image(OciDigest),
    /// One tag: each request that named it.
    Tag(TagName),
}

/// What says that a part of a batch of downloads was counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchCounted {
    /// The batch.
    pub batch: String,
    /// The repository that the part is about.
    pub repository: Repository,
    /// The number of the part.
    pub part: u32,
    /// When nobody brings the batch again, so that this can be forgotten.
    pub gone: Time,
}
row!(BatchCounted, row => keys::batch_counted(&row.batch, &row.repository, row.part));

/// A star: a user has marked a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Star {
    /// The user.
    pub user: UserName,
    /// The repository.
    pub repository: Repository,
    /// Its id, which one that is created after it was deleted does not have: that is not starred.
    pub container: Id,
    /// When.
    pub created: Time,
}
row!(Star, row => keys::star(&row.user, &row.repository));

/// The facts about an image once its bytes were verified; short enough to be copied into tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Bytes.
    pub size: u64,
    /// Name of the object in the bucket.
    pub object: String,
    /// Architecture in Go's terms; empty if the image states none.
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
    /// The pusher's description.
    pub description: Description,
    /// The user who pushed it.
    pub created_by: Option<Actor>,
    /// When the push began.
    pub created: Time,
    /// The facts about its bytes; `None` until they are verified. Until then, nobody else may see the image.
    pub content: Option<Content>,
    /// The session whose bytes are complete and being verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<UploadId>,
    /// The tags that the image gets if its bytes turn out to be right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intents: Vec<Intent>,
    /// Whether it ever had a tag.
    #[serde(default)]
    pub named: bool,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<TagName>,
    /// Labels read from the image, as far as search needs them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(Image, row => keys::image(&row.repository, &row.hash));

/// A tag that was requested while the image's bytes were being verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The tag.
    pub tag: TagName,
    /// The architecture, if the client named one.
    pub arch: Option<String>,
}

/// The ids of an image's parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parents {
    /// The container's.
    pub container: Id,
    /// The collection's.
    pub collection: Id,
    /// The entity's.
    pub entity: Id,
}

/// All metadata that was read from an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Details {
    /// The container.
    pub repository: Repository,
    /// The digest of the image's bytes.
    pub hash: Digest,
    /// The image's own metadata.
    pub facts: SifFacts,
}
row!(Details, row => keys::details(&row.repository, &row.hash));

/// The image of an architecture that got its bytes last. It may be gone since.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Newest {
    /// The container.
    pub repository: Repository,
    /// The architecture.
    pub arch: String,
    /// The digest of the image's bytes.
    pub hash: Digest,
}
row!(Newest, row => keys::newest(&row.repository, &row.arch));

/// A tag: one row, architecture → image, whichever protocol set it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tag {
    /// The repository.
    pub repository: Repository,
    /// The tag's name.
    pub name: TagName,
    /// The image of each architecture, with everything that a pull needs. Empty if the tag points to something that is
    /// no SIF image.
    pub images: BTreeMap<String, Tagged>,
    /// The manifest that it names for registry clients.
    pub named: Named,
    /// Whether it is frozen: it may not be moved or deleted.
    pub frozen: bool,
    /// When it was last set.
    pub updated: Time,
    /// The architecture that was set last, for clients that ask for none.
    pub last: String,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(Tag, row => keys::tag(&row.repository, &row.name));

/// The facts about a manifest that registry clients get before they ask for its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The digest of its bytes.
    pub digest: OciDigest,
    /// Its media type.
    pub media_type: String,
    /// Bytes.
    pub size: u64,
}

/// A tag's copy of the facts about its image, so that a pull reads one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tagged {
    /// The image's id.
    pub id: Id,
    /// The digest of its bytes.
    pub hash: Digest,
    /// The pusher's description.
    pub description: Description,
    /// The user who pushed it.
    pub created_by: Option<Actor>,
    /// The time of creation.
    pub created: Time,
    /// The facts about its bytes.
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
    /// The media type with which it is served.
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    /// The bytes charged to its entity's account.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cost: u64,
    /// How many rows it counts as in that account; none if no client pushed it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rows: u64,
    /// The exact bytes; empty if they are too long for a row.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Name of the object in the bucket that holds them in that case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The blobs and manifests of this repository that it names: they stay as long as it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<OciDigest>,
    /// Its subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<OciDigest>,
    /// The library image that is its layer, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// The user who pushed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Actor>,
    /// The time of creation.
    pub created: Time,
}
row!(Manifest, row => keys::manifest(&row.repository, &row.digest));

/// A manifest's connections to the rest of its repository. It is read without the bytes: those of a whole repository
/// are too large to be held at once.
#[derive(Debug, Clone, Deserialize)]
pub struct ManifestLinks {
    /// The repository.
    pub repository: Repository,
    /// The manifest.
    pub digest: OciDigest,
    /// The bytes charged to its entity's account.
    #[serde(default)]
    pub cost: u64,
    /// How many rows it counts as in that account.
    #[serde(default)]
    pub rows: u64,
    /// Name of the object in the bucket that holds its bytes, if one does.
    #[serde(default)]
    pub object: Option<String>,
    /// The things in this repository that it names.
    #[serde(default)]
    pub names: Vec<OciDigest>,
    /// Its subject.
    #[serde(default)]
    pub subject: Option<OciDigest>,
    /// The library image that is its layer, if there is one.
    #[serde(default)]
    pub image: Option<Digest>,
    /// The user who pushed it.
    #[serde(default)]
    pub created_by: Option<Actor>,
}

impl From<Manifest> for ManifestLinks {
    fn from(row: Manifest) -> Self {
        let Manifest { repository, digest, cost, rows, object, names, subject, image, created_by, .. } = row;
        Self { repository, digest, cost, rows, object, names, subject, image, created_by }
    }
}

impl ManifestLinks {
    /// The attributes of a [`Manifest`] that it consists of.
    pub const ATTRIBUTES: &[&str] =
        &["repository", "digest", "cost", "rows", "object", "names", "subject", "image", "created_by"];
}

/// What names a digest in a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namer {
    /// A manifest.
    Manifest(OciDigest),
    /// A tag.
    Tag(TagName),
}

impl Namer {
    /// The manifest, if it is one.
    pub fn manifest(&self) -> Option<OciDigest> {
        match self {
            Self::Manifest(digest) => Some(*digest),
            Self::Tag(_) => None,
        }
    }
}

/// What says that something names a digest: who looks for it need not read all manifests and tags.
///
/// There is one for each thing that a manifest or a tag names, with a few exceptions, which are written where they are
/// made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backlink {
    /// The repository.
    pub repository: Repository,
    /// What is named.
    pub digest: OciDigest,
    /// What names it.
    pub from: Namer,
}
row!(Backlink, row => keys::backlink(&row.repository, &row.digest, &row.from));

/// An entry in the list of manifests of a repository that name too many things for backlinks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Wide {
    /// The repository.
    pub repository: Repository,
    /// The manifest.
    pub manifest: OciDigest,
}
row!(Wide, row => keys::wide(&row.repository, &row.manifest));

/// A manifest that refers to another one, its subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Referrer {
    /// The repository.
    pub repository: Repository,
    /// Its subject.
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
    /// When a push last asked for it. A link without a manifest stays for a day after that.
    pub seen: Time,
}
row!(Link, row => keys::link(&row.repository, &row.name));

/// The marker that a repository has, or had, library images. There, the empty configuration that their manifests name
/// exists without bytes, and without a link that would be charged to somebody.
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
    /// How many entities hold it. The row is deleted with the last one.
    pub entities: u64,
    /// Counts the changes of this row; each change is conditional on it. It starts at random, so that a blob that was
    /// removed and pushed again is not mistaken for the old one.
    pub version: u64,
    /// The image's own metadata, if it is an image.
    pub facts: Option<SifFacts>,
}
row!(Blob, row => keys::blob(&row.digest));

/// The charge of a blob to an entity. Without links it is a reservation, shared by the sessions that upload the blob.
/// It is deleted with the last link and session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Charge {
    /// The entity that pays.
    pub entity: EntityName,
    /// For what.
    pub digest: Digest,
    /// Bytes charged.
    pub size: u64,
    /// How many repositories of the entity link the blob.
    pub links: u64,
    /// How many open sessions upload it.
    pub sessions: u64,
    /// The bytes that were reserved for its sessions when one of them committed it: in surplus until the last one ends.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept: u64,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(Charge, row => keys::charge(&row.entity, &row.digest));

/// The target of an id.
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

/// How the bytes of a session are uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// One `PUT` whose signature pins the digest: the store itself refuses other bytes.
    Pinned,
    /// One `PUT` by a client that announces no digest. The object is a staging object, because its URL can be used
    /// again.
    Staged,
    /// Multipart; the store's own id of it.
    Parts(String),
}

/// The state of a session: `Open → Sealed`. It ends, and its row is deleted, in the transaction that commits the
/// image, refuses the bytes or cancels the upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Bytes are travelling.
    Open,
    /// All bytes are there and can't change any more. They are being verified; this is the progress.
    Sealed(Progress),
}

/// How much of an object has been hashed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes.
    pub taken: u64,
    /// The hasher's state after them; `None` at the beginning.
    pub hasher: Option<String>,
}

/// An upload session: one attempt to upload the bytes of an image.
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
    /// The user who opened it.
    pub opened_by: Actor,
    /// How the bytes travel.
    pub way: Way,
    /// Name of the object in the bucket.
    pub object: String,
    /// Bytes announced.
    pub size: u64,
    /// Whether they are in surplus: the entity is charged for another upload or image with them.
    #[serde(default)]
    pub surplus: bool,
    /// How far it is.
    pub state: State,
    /// When it was opened.
    pub created: Time,
    /// When it is collected.
    pub expires: Time,
    /// Counts the changes of this row; each change is conditional on it.
    pub version: u64,
}
row!(Session, row => keys::session(row.id));

/// The state of a stream: a blob that a registry client uploads through us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flow {
    /// Bytes come in.
    Open,
    /// It is in its repository. The row is kept for a while, so that a client that missed the answer can ask again.
    Done(OciDigest),
    /// It was given up.
    Over,
}

/// A stream: a blob that a registry client uploads through us.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stream {
    /// Its id.
    pub id: UploadId,
    /// The repository.
    pub repository: Repository,
    /// The user who opened it.
    pub opened_by: Actor,
    /// How far it is.
    pub flow: Flow,
    /// Bytes taken in.
    pub taken: u64,
    /// The hasher's state after the parts; `None` before the first one.
    pub hasher: Option<String>,
    /// Name of the object made of the parts; `None` before the first one.
    pub object: Option<String>,
    /// The store's id of the multipart upload; `None` before the first part.
    pub upload: Option<String>,
    /// The `ETag`s of the parts from the store. The object is assembled from exactly these.
    pub etags: Vec<String>,
    /// The object that holds the bytes after the last part; `None` when there are none.
    pub tail: Option<String>,
    /// How many those are.
    pub tail_size: u64,
    /// The bytes reserved from its entity's quota.
    pub reserved: u64,
    /// When it is collected.
    pub expires: Time,
    /// Counts the changes of this row; each change is conditional on it. A request that sends bytes increments it
    /// first, so that no other one does so at the same time.
    pub version: u64,
}
row!(Stream, row => keys::stream(row.id));

/// Bytes that an entity has in the bucket without being charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surplus {
    /// The entity.
    pub entity: EntityName,
    /// Bytes.
    pub size: u64,
}

/// An object that nothing names any more, to be deleted once no URL for it can be in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Condemned {
    /// Name of the object in the bucket.
    pub object: String,
    /// Since when.
    pub since: Time,
    /// Its multipart upload, which must be aborted first.
    pub upload: Option<String>,
    /// Whose surplus it is, if it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Surplus>,
}
row!(Condemned, row => keys::condemned(&row.object));

/// The image that a share is of, as it was when the share was made. Another image never takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shared {
    /// A library image.
    Image {
        /// Its digest.
        hash: Digest,
        /// Its id, which one that is pushed after it was deleted does not have.
        id: Id,
    },
    /// A manifest with one layer.
    Artifact {
        /// The manifest's digest.
        digest: OciDigest,
        /// The user who had pushed it.
        by: Option<Actor>,
    },
}

/// A share: a URL that lets its holder download one image, with the rights of its maker there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Share {
    /// Its id, the first half of its key.
    pub id: ShareId,
    /// The SHA-256 of the second half, which is stored nowhere.
    pub secret: Digest,
    /// The repository.
    pub repository: Repository,
    /// The id of the repository, which one that is created after it was deleted does not have.
    pub container: Id,
    /// The image.
    pub of: Shared,
    /// The blob with its bytes.
    pub blob: OciDigest,
    /// Bytes.
    pub size: u64,
    /// The name of the file, the last part of the URL.
    pub file: FileName,
    /// Its maker.
    pub by: Actor,
    /// The token with which it was made; `None` if it was made with a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// The time of creation.
    pub created: Time,
    /// When it ends.
    pub expires: Time,
    /// How many times it can be used; `None`: as often as its holders like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// How many times it was used.
    pub uses: u64,
    /// When its row goes: the attribute for the table's own time to live.
    pub gone: Time,
}
row!(Share, row => keys::share(row.id));

/// An entry in the list of a repository's shares.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShareListed {
    /// The repository.
    pub repository: Repository,
    /// The share.
    pub share: ShareId,
    /// Its maker.
    pub by: Actor,
    /// When it ends.
    pub expires: Time,
    /// When the row goes: the attribute for the table's own time to live.
    pub gone: Time,
}
row!(ShareListed, row => keys::share_listed(&row.repository, row.share));

/// When a share or an invitation ends, from its row or its entry in a list.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Ending {
    /// The time.
    pub expires: Time,
}

/// An upload's entry in the list of those that wait for verification.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealedListed {
    /// The session.
    pub upload: UploadId,
}
row!(SealedListed, row => keys::sealed_listed(row.upload));

/// An event: who did what. Written in the transaction that it describes, and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The log that it is in: an entity's, `+` and a user's, or `-` for the installation's.
    pub log: String,
    /// The time, in milliseconds since 1970.
    pub millis: u64,
    /// Keeps events of the same millisecond apart.
    pub random: u32,
    /// Who.
    pub actor: Actor,
    /// The token that was used, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// The address from which they asked, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The action that they were allowed to do.
    pub action: String,
    /// Where.
    pub place: String,
    /// What was done.
    pub what: Vec<EventKind>,
    /// When it is forgotten: the attribute for the table's own time to live.
    pub gone: Time,
}
row!(Event, row => keys::event(&row.log, row.millis, row.random));

/// A change that something is to follow from: an entry of the outbox. It is written with the change, and deleted once
/// all that follows is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The log that its event is in, if it has one.
    pub log: String,
    /// The time of the change, in milliseconds since 1970.
    pub millis: u64,
    /// What keeps it apart from others of the same millisecond.
    pub random: u32,
    /// What a search is to find anew.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub things: BTreeSet<Thing>,
}
row!(Pending, row => keys::pending(&row.log, row.millis, row.random));

/// Where a tag led from some time on, until its next row in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagThen {
    /// The repository.
    pub repository: Repository,
    /// Where it led.
    #[serde(flatten)]
    pub led: TagMove,
    /// Who set or removed it.
    pub by: Actor,
    /// When, in milliseconds since 1970: the time of the event.
    pub millis: u64,
    /// What keeps it apart from others of the same millisecond.
    pub random: u32,
}
row!(TagThen, row => keys::tag_then(&row.repository, &row.led.tag, row.millis, row.random));

/// When an event is forgotten, and where it is. Read without the rest, which another version may have written otherwise.
#[derive(Debug, Clone, Deserialize)]
pub struct EventEnd {
    /// Whose log it is in.
    pub log: String,
    /// When it was, in milliseconds since 1970.
    pub millis: u64,
    /// What keeps it apart from others of the same millisecond.
    pub random: u32,
    /// When it is forgotten.
    pub gone: Time,
}

/// One thing that was done, at the place of its event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The entity was made.
    EntityMade,
    /// The collection was made.
    CollectionMade,
    /// The container, or another repository, was created.
    ContainerMade,
    /// The entity was deleted, with everything that was left in it.
    EntityRemoved,
    /// The collection was deleted.
    CollectionRemoved {
        /// Its name.
        collection: CollectionName,
    },
    /// The container, or another repository, was deleted with everything in it.
    ContainerRemoved {
        /// Its path.
        repository: Repository,
    },
    /// These settings of the entity, collection or container were changed.
    Changed(Vec<String>),
    /// A push of an image started.
    ImageBegun {
        /// The digest that its bytes must have.
        hash: Digest,
    },
    /// An image has its bytes now.
    ImageCommitted {
        /// Their digest.
        hash: Digest,
    },
    /// An image was described anew.
    ImageDescribed {
        /// Its digest.
        hash: Digest,
    },
    /// An image was removed, or never got its bytes.
    ImageRemoved {
        /// Its digest.
        hash: Digest,
    },
    /// A tag points to something else than before.
    TagSet(TagMove),
    /// A tag is gone.
    TagRemoved(TagMove),
    /// A tag was frozen or unfrozen.
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
    /// A blob became visible in the repository.
    BlobLinked {
        /// Its digest.
        digest: OciDigest,
    },
    /// A blob is no longer visible in the repository.
    BlobUnlinked {
        /// Its digest.
        digest: OciDigest,
    },
    /// A user was added.
    UserAdded {
        /// The name.
        name: UserName,
    },
    /// A user was deleted.
    UserRemoved {
        /// The name.
        name: UserName,
    },
    /// Somebody made the account for themselves.
    Registered {
        /// With this invitation; `None` where anybody may.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        invitation: Option<Id>,
    },
    /// An invitation to register was made.
    RegistrationInvited {
        /// Its id.
        id: Id,
    },
    /// An invitation to register was revoked.
    RegistrationUninvited {
        /// Its id.
        id: Id,
    },
    /// A password was set.
    PasswordSet,
    /// The e-mail address was set or removed.
    EmailSet,
    /// An account was disabled, or enabled again.
    UserDisabled {
        /// Whether it is disabled now.
        disabled: bool,
    },
    /// The roles of a person or robot in the entity were changed.
    RolesChanged(RoleChange),
    /// A robot was made.
    RobotMade {
        /// Its name.
        robot: Actor,
    },
    /// A robot was removed, with its tokens.
    RobotRemoved {
        /// Its name.
        robot: Actor,
    },
    /// An invitation was made.
    InvitationMade {
        /// Its id.
        id: Id,
        /// The role that it gives.
        role: Role,
    },
    /// An invitation was revoked.
    InvitationRevoked {
        /// Its id.
        id: Id,
    },
    /// An invitation was accepted, which gave its role.
    InvitationAccepted {
        /// Its id.
        id: Id,
        /// The role.
        role: Role,
        /// On what; `None` for the whole entity.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<SubPath>,
    },
    /// The groups of directories with a role in the entity were changed.
    IncludesChanged {
        /// What they are now.
        groups: BTreeMap<String, Role>,
    },
    /// A directory said in which groups the user is.
    GroupsSeen {
        /// The name of the directory.
        directory: String,
    },
    /// A token was made.
    TokenMade {
        /// The robot that it is for, if it is for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        robot: Option<Actor>,
        /// Its row.
        id: TokenId,
        /// The scope of the token.
        scope: TokenScope,
    },
    /// A token was revoked.
    TokenRevoked {
        /// The robot that it was for, if it was for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        robot: Option<Actor>,
        /// Its row.
        id: TokenId,
    },
    /// A share was made.
    ShareMade {
        /// Its id.
        id: ShareId,
        /// The blob with the bytes of its image.
        digest: OciDigest,
        /// When it ends.
        expires: Time,
        /// How many times it can be used; `None`: as often as its holders like.
        max: Option<u64>,
    },
    /// A share was revoked.
    ShareRevoked {
        /// Its id.
        id: ShareId,
    },
    /// A site admin without a role there saw something that is not public.
    Looked,
    /// The limit of an entity's account was set, in bytes.
    LimitSet {
        /// The entity.
        entity: EntityName,
        /// What it was.
        before: u64,
        /// What it is now.
        after: u64,
    },
    /// The numbers of an entity's account were wrong, and were corrected.
    AccountCorrected {
        /// The entity.
        entity: EntityName,
        /// What they were.
        before: Numbers,
        /// What they are now.
        after: Numbers,
    },
}

impl EventKind {
    /// Whether it is part of the history of a tag.
    pub fn is_history(&self) -> bool {
        matches!(self, Self::TagSet(_) | Self::TagRemoved(_))
    }

    /// Whether a search finds nothing else after it than before.
    pub fn is_hidden(&self) -> bool {
        matches!(self, Self::ImageBegun { .. })
    }
}

/// A change of somebody's roles in an entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChange {
    /// Whose.
    pub actor: Actor,
    /// The collection or repository; `None` for the whole entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<SubPath>,
    /// The role before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Role>,
    /// The role now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Role>,
}

/// Where a tag leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagMove {
    /// The tag.
    pub tag: TagName,
    /// The manifest that it names; `None` if the tag was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<OciDigest>,
    /// The library image of each architecture.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, Digest>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A share, of nothing in particular.
    pub(in crate::store) fn share() -> Share {
        let digest = Digest::of(b"");
        let id = Id::from_random([0; 12]);
        Share {
            id: ShareId::from_random([0; 12]),
            secret: digest,
            repository: "a/b/c".parse().unwrap(),
            container: id,
            of: Shared::Image { hash: digest, id },
            blob: digest.into(),
            size: 0,
            file: FileName::of("a"),
            by: Actor::System,
            token: None,
            created: Time(0),
            expires: Time(0),
            max: None,
            uses: 0,
            gone: Time(0),
        }
    }

    #[test]
    fn a_share_reads_back_as_it_is_written() {
        let made_of_manifest = Shared::Artifact { digest: Digest::of(b"").into(), by: Some(Actor::System) };
        for of in [share().of, made_of_manifest] {
            let row = Share { of: of.clone(), max: Some(1), ..share() };
            let read: Share = serde_json::from_str(&serde_json::to_string(&row).unwrap()).unwrap();
            assert_eq!((read.of, read.max, read.file), (of, Some(1), row.file));
        }
    }
}
