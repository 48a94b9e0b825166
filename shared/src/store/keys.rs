//! Every key of the table and the bucket, with encoding and decoding side by side.
//!
//! Rows are laid out by name, so that a pull needs one batch of keys that can be formed from the request itself.
//! `⟨rest⟩` is a repository's path below its entity, `⟨hash⟩` 64 hexadecimal digits, `⟨digest⟩` the same or `sha512:`
//! and 128 of them.
//!
//! | pk | sk | row |
//! |---|---|---|
//! | `U#⟨user⟩` | `-` | [`User`](super::rows::User) |
//! | `U#⟨entity⟩+⟨robot⟩` | `-` | [`Robot`](super::rows::Robot) |
//! | `U#⟨user⟩` | `W` | [`WrongPasswords`](super::rows::WrongPasswords), also for names that are no user's |
//! | `U#⟨user⟩` | `G` | [`GroupsMade`](super::rows::GroupsMade) |
//! | `U#⟨user⟩` | `S#⟨repository⟩` | [`Star`](super::rows::Star): the user has marked it |
//! | `U#⟨actor⟩` | `T#⟨token⟩` | [`Token`](super::rows::Token) |
//! | `U#⟨actor⟩` | `E#⟨entity⟩` | [`Membership`](super::rows::Membership): the inverse of a member |
//! | `E#⟨entity⟩` | `-` | [`Entity`](super::rows::Entity) |
//! | `E#⟨entity⟩` | `A` | [`About`](super::rows::About): README, custom data |
//! | `E#⟨entity⟩` | `A#⟨collection⟩` | the same of a collection |
//! | `E#⟨entity⟩` | `Q` | [`Account`](super::rows::Account) |
//! | `E#⟨entity⟩` | `M#⟨actor⟩` | [`Member`](super::rows::Member) |
//! | `E#⟨entity⟩` | `G` | [`Includes`](super::rows::Includes): the groups of directories that have roles |
//! | `E#⟨entity⟩` | `V#⟨invitation⟩` | [`Invitation`](super::rows::Invitation) |
//! | `E#⟨entity⟩` | `C#⟨collection⟩` | [`Collection`](super::rows::Collection) |
//! | `E#⟨entity⟩` | `R#⟨rest⟩` | [`Container`](super::rows::Container) |
//! | `E#⟨entity⟩` | `I#⟨rest⟩#⟨hash⟩` | [`Image`](super::rows::Image) |
//! | `E#⟨entity⟩` | `Z` | [`RemovedEntity`](super::rows::RemovedEntity): it was deleted |
//! | `E#⟨entity⟩` | `Z#⟨rest⟩` | [`RemovedContainer`](super::rows::RemovedContainer): it was deleted, what it had is being removed |
//! | `E#⟨entity⟩` | `B#⟨hash⟩` | [`Charge`](super::rows::Charge): what a blob costs the entity |
//! | `R#⟨repository⟩` | `-` | [`Marker`](super::rows::Marker): library images are here |
//! | `R#⟨repository⟩` | `A` | [`About`](super::rows::About): README, custom data, the URL of the sources |
//! | `R#⟨repository⟩` | `N` | [`Counts`](super::rows::Counts): how many have starred it |
//! | `R#⟨repository⟩` | `C#A#⟨what⟩`, `C#D#⟨what⟩#⟨day⟩` | [`Downloaded`](super::rows::Downloaded): how often, in all and on each day of a month from this one on; what is `R`, `I#⟨digest⟩` or `T#⟨tag⟩` |
//! | `R#⟨repository⟩` | `T#⟨tag⟩` | [`Tag`](super::rows::Tag) |
//! | `R#⟨repository⟩` | `H#⟨tag⟩#⟨time⟩⟨random⟩` | [`TagThen`](super::rows::TagThen): where the tag led from then on |
//! | `R#⟨repository⟩` | `M#⟨digest⟩` | [`Manifest`](super::rows::Manifest) |
//! | `R#⟨repository⟩` | `F#⟨subject⟩#⟨digest⟩` | [`Referrer`](super::rows::Referrer): what is said of a manifest |
//! | `R#⟨repository⟩` | `W#⟨digest⟩#M#⟨digest⟩` | [`Backlink`](super::rows::Backlink): a manifest names the first digest |
//! | `R#⟨repository⟩` | `W#⟨digest⟩#T#⟨tag⟩` | the same: a tag names it |
//! | `R#⟨repository⟩` | `V#⟨digest⟩` | [`Wide`](super::rows::Wide): the manifest names too many things for backlinks |
//! | `R#⟨repository⟩` | `B#⟨digest⟩` | [`Link`](super::rows::Link): the blob is visible here |
//! | `R#⟨repository⟩` | `D#⟨hash⟩` | [`Details`](super::rows::Details): what was read in the image |
//! | `R#⟨repository⟩` | `L#⟨share⟩` | [`ShareListed`](super::rows::ShareListed): the list of shares |
//! | `R#⟨repository⟩` | `N#⟨arch⟩` | [`Newest`](super::rows::Newest): the image of that architecture that came last |
//! | `B#⟨hash⟩` | `-` | [`Blob`](super::rows::Blob) |
//! | `P#⟨id⟩` | `-` | [`Pointer`](super::rows::Pointer): id → name |
//! | `S#⟨upload⟩` | `-` | [`Session`](super::rows::Session) |
//! | `O#⟨upload⟩` | `-` | [`Stream`](super::rows::Stream): a blob on its way through us |
//! | `D#⟨share⟩` | `-` | [`Share`](super::rows::Share): a URL that lets its holder download one image |
//! | `X#⟨object key⟩` | `-` | [`Condemned`](super::rows::Condemned): an object to be deleted |
//! | `A#⟨entity⟩` | `T#⟨time⟩⟨random⟩` | [`Event`](super::rows::Event): who did what in an entity |
//! | `A#+⟨user⟩`, `A#-` | `T#⟨time⟩⟨random⟩` | the same of a user's account, and of the installation |
//! | `F#⟨part⟩` | `T#⟨time⟩⟨random⟩` | [`Pending`](super::rows::Pending): an event that something is to follow from |
//! | `J#⟨batch⟩` | `R#⟨repository⟩#⟨part⟩` | [`BatchCounted`](super::rows::BatchCounted): these downloads were counted |
//! | `Y#⟨network⟩` | `-` | [`Registrations`](super::rows::Registrations): how often an address tried to register |
//! | `L` | `C` | [`Copied`](super::rows::Copied): the library is a copy |
//! | `L` | `V#⟨invitation⟩` | [`RegistrationInvitation`](super::rows::RegistrationInvitation) |
//! | `L` | `U#⟨user⟩` | [`UserListed`](super::rows::UserListed): the list of users |
//! | `L` | `S#⟨upload⟩` | [`SealedListed`](super::rows::SealedListed): the list of uploads that wait to be verified |

use super::rows::{Counted, Namer};
use crate::domain::{
    Actor, CollectionName, Day, Digest, EntityName, Id, OciDigest, Repository, ShareId, TagName, Thing, TokenId,
    UploadId, UserName,
};
use crate::rules::{Action, Grant, Place};
use serde::{Deserialize, Serialize};

/// Where a row is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Partition key.
    pub pk: String,
    /// Sort key.
    pub sk: String,
}

/// The place of rows of one kind: a partition, and the prefix of their sort keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// Partition key.
    pub pk: String,
    /// The prefix of the sort keys.
    pub prefix: String,
}

impl KeyRange {
    /// Those of them whose names begin like this.
    #[must_use]
    pub fn narrowed(mut self, beginning: &str) -> Self {
        self.prefix.push_str(beginning);
        self
    }
}

fn range(pk: String, prefix: impl Into<String>) -> KeyRange {
    KeyRange { pk, prefix: prefix.into() }
}

/// The sort key of a row that is the only or first one in its partition.
const SELF: &str = "-";
/// The sort key of what people say about the thing that a partition is of.
const ABOUT: &str = "A";

fn key(pk: String, sk: impl Into<String>) -> Key {
    Key { pk, sk: sk.into() }
}

/// A person's account.
pub fn user(name: &UserName) -> Key {
    key(format!("U#{name}"), SELF)
}

/// The account of a person or robot.
pub fn actor(actor: &Actor) -> Key {
    key(format!("U#{actor}"), SELF)
}

/// The entry of a user in the list of users.
pub fn user_listed(name: &UserName) -> Key {
    key("L".to_owned(), format!("U#{name}"))
}

/// The partition and prefix of the list of users.
pub fn users() -> KeyRange {
    range("L".to_owned(), "U#")
}

/// The partition and prefix of the users in that list whose names begin with some letters.
pub fn users_named(beginning: &str) -> KeyRange {
    range("L".to_owned(), format!("U#{beginning}"))
}

/// How often an address tried to register.
pub fn registrations(network: &str) -> Key {
    key(format!("Y#{network}"), SELF)
}

/// An invitation to register.
pub fn registration_invitation(id: Id) -> Key {
    key("L".to_owned(), format!("V#{id}"))
}

/// The partition and prefix of the invitations to register.
pub fn registration_invitations() -> KeyRange {
    range("L".to_owned(), "V#")
}

/// An upload's entry in the list of those that wait for verification.
pub fn sealed_listed(id: UploadId) -> Key {
    key("L".to_owned(), format!("S#{id}"))
}

/// The partition and prefix of the list of uploads that wait for verification.
pub fn sealed() -> KeyRange {
    range("L".to_owned(), "S#")
}

/// An event, in the log of an entity, of `+` and a user, or of the installation, which is `-`. The keys of a log are
/// in chronological order.
pub fn event(log: &str, millis: u64, random: u32) -> Key {
    key(format!("A#{log}"), format!("T#{}", event_place(millis, random)))
}

/// What follows the prefix of their range in the key of an event.
pub fn event_place(millis: u64, random: u32) -> String {
    format!("{}{random:08x}", event_time(millis))
}

/// What that begins with for all events of a millisecond.
pub fn event_time(millis: u64) -> String {
    format!("{millis:012x}")
}

/// The events of a log.
pub fn events(log: &str) -> KeyRange {
    range(format!("A#{log}"), "T#")
}

/// The number of parts of the outbox. So many are worked through independently of each other.
pub const OUTBOX_PARTS: u8 = 16;

/// The entry of an event in the outbox. All events of a log have theirs in one part of it.
pub fn pending(log: &str, millis: u64, random: u32) -> Key {
    let part = Digest::of(log.as_bytes()).bytes()[0] % OUTBOX_PARTS;
    key(format!("F#{part:x}"), format!("T#{}", event_place(millis, random)))
}

/// Reads the part of the outbox from the partition key of an entry.
pub fn outbox_part(pk: &str) -> Option<u8> {
    u8::from_str_radix(pk.strip_prefix("F#")?, 16).ok().filter(|part| *part < OUTBOX_PARTS)
}

/// A part of the outbox. Its entries are in chronological order.
pub fn outbox(part: u8) -> KeyRange {
    range(format!("F#{part:x}"), "T#")
}

/// Where a tag led from the time of an event on.
pub fn tag_then(repository: &Repository, tag: &TagName, millis: u64, random: u32) -> Key {
    key(format!("R#{repository}"), format!("H#{tag}#{}", event_place(millis, random)))
}

/// The partition and prefix of the history of a tag, in chronological order.
pub fn tag_history(repository: &Repository, tag: &TagName) -> KeyRange {
    range(format!("R#{repository}"), format!("H#{tag}#"))
}

/// The count of wrong passwords for a name.
pub fn wrong_passwords(user: &UserName) -> Key {
    key(format!("U#{user}"), "W")
}

/// The count of the groups that a user made.
pub fn groups_made(user: &UserName) -> Key {
    key(format!("U#{user}"), "G")
}

/// One of the tokens of a person or robot.
pub fn token(actor: &Actor, id: TokenId) -> Key {
    key(format!("U#{actor}"), format!("T#{id}"))
}

/// The partition and prefix of the tokens of a person or robot.
pub fn tokens(actor: &Actor) -> KeyRange {
    range(format!("U#{actor}"), "T#")
}

/// The inverse of a member row.
pub fn membership(actor: &Actor, entity: &EntityName) -> Key {
    key(format!("U#{actor}"), format!("E#{entity}"))
}

/// The partition and prefix of the memberships of a person or robot.
pub fn memberships(actor: &Actor) -> KeyRange {
    range(format!("U#{actor}"), "E#")
}

/// An entity.
pub fn entity(name: &EntityName) -> Key {
    key(format!("E#{name}"), SELF)
}

/// What people say about an entity.
pub fn about_entity(name: &EntityName) -> Key {
    key(format!("E#{name}"), ABOUT)
}

/// What people say about a collection.
pub fn about_collection(entity: &EntityName, name: &CollectionName) -> Key {
    key(format!("E#{entity}"), format!("A#{name}"))
}

/// What people say about a container, or another repository.
pub fn about_container(repository: &Repository) -> Key {
    key(format!("R#{repository}"), ABOUT)
}

/// The numbers of a repository that many people change.
pub fn counts(repository: &Repository) -> Key {
    key(format!("R#{repository}"), "N")
}

/// The number of downloads of something in a repository: on the days from one on that are kept together, or of all days.
pub fn downloaded(repository: &Repository, of: &Counted, first: Option<Day>) -> Key {
    let sk = match first {
        Some(first) => format!("C#D#{}#{first}", counted_of(of)),
        None => format!("C#A#{}", counted_of(of)),
    };
    key(format!("R#{repository}"), sk)
}

/// The partition and prefix of the same of all days, in chronological order.
pub fn downloaded_by_day(repository: &Repository, of: &Counted) -> KeyRange {
    range(format!("R#{repository}"), format!("C#D#{}#", counted_of(of)))
}

fn counted_of(of: &Counted) -> String {
    match of {
        Counted::Repository => "R".to_owned(),
        Counted::Image(digest) => format!("I#{digest}"),
        Counted::Tag(tag) => format!("T#{tag}"),
    }
}

/// What says that a part of a batch of downloads was counted.
pub fn batch_counted(batch: &str, repository: &Repository, part: u32) -> Key {
    key(format!("J#{batch}"), format!("R#{repository}#{part}"))
}

/// The star that a user gave a repository.
pub fn star(user: &UserName, repository: &Repository) -> Key {
    key(format!("U#{user}"), format!("S#{repository}"))
}

/// The partition and prefix of a user's stars.
pub fn stars(user: &UserName) -> KeyRange {
    range(format!("U#{user}"), "S#")
}

/// The quota account of an entity.
pub fn account(name: &EntityName) -> Key {
    key(format!("E#{name}"), "Q")
}

/// The roles of a person or robot in an entity.
pub fn member(entity: &EntityName, actor: &Actor) -> Key {
    key(format!("E#{entity}"), format!("M#{actor}"))
}

/// The partition and prefix of an entity's members.
pub fn members(entity: &EntityName) -> KeyRange {
    range(format!("E#{entity}"), "M#")
}

/// The partition and prefix of an entity's robots among its members.
pub fn robots(entity: &EntityName) -> KeyRange {
    range(format!("E#{entity}"), format!("M#{entity}+"))
}

/// The groups of directories that have roles in an entity.
pub fn includes(entity: &EntityName) -> Key {
    key(format!("E#{entity}"), "G")
}

/// An invitation into an entity.
pub fn invitation(entity: &EntityName, id: Id) -> Key {
    key(format!("E#{entity}"), format!("V#{id}"))
}

/// The partition and prefix of an entity's invitations.
pub fn invitations(entity: &EntityName) -> KeyRange {
    range(format!("E#{entity}"), "V#")
}

/// A collection.
pub fn collection(entity: &EntityName, name: &CollectionName) -> Key {
    key(format!("E#{entity}"), format!("C#{name}"))
}

/// The partition and prefix of an entity's collections.
pub fn collections(entity: &EntityName) -> KeyRange {
    range(format!("E#{entity}"), "C#")
}

/// A container, or another repository.
pub fn container(repository: &Repository) -> Key {
    key(format!("E#{}", repository.entity()), format!("R#{}", repository.rest()))
}

/// The partition and prefix of an entity's containers, of one collection or all.
pub fn containers(entity: &EntityName, collection: Option<&CollectionName>) -> KeyRange {
    let prefix = collection.map_or_else(|| "R#".to_owned(), |collection| format!("R#{collection}/"));
    range(format!("E#{entity}"), prefix)
}

/// The partition and prefix of the containers under a path.
pub fn containers_under(path: &Repository) -> KeyRange {
    range(format!("E#{}", path.entity()), format!("R#{}/", path.rest()))
}

/// A container that was deleted.
pub fn removed_container(repository: &Repository) -> Key {
    key(format!("E#{}", repository.entity()), format!("Z#{}", repository.rest()))
}

/// The partition and prefix of the containers of an entity that were deleted, and of which something is left.
pub fn removed_containers(entity: &EntityName) -> KeyRange {
    range(format!("E#{entity}"), "Z#")
}

/// An entity that was deleted.
pub fn removed_entity(name: &EntityName) -> Key {
    key(format!("E#{name}"), "Z")
}

/// Everything in an entity's partition: itself, its members, and what lies in it.
pub fn all_of_entity(name: &EntityName) -> KeyRange {
    range(format!("E#{name}"), "")
}

/// Everything in a repository's partition.
pub fn all_of_repository(repository: &Repository) -> KeyRange {
    range(format!("R#{repository}"), "")
}

/// Everything in the partition of a person's account.
pub fn all_of_user(name: &UserName) -> KeyRange {
    range(format!("U#{name}"), "")
}

/// An image in a container.
pub fn image(repository: &Repository, hash: &Digest) -> Key {
    key(format!("E#{}", repository.entity()), format!("I#{}#{}", repository.rest(), hash.hex()))
}

/// Something that a search finds.
pub fn thing(thing: &Thing) -> Key {
    match thing {
        Thing::Entity(name) => entity(name),
        Thing::Collection(entity, name) => collection(entity, name),
        Thing::Container(repository) => container(repository),
        Thing::Image(repository, hash) => image(repository, hash),
    }
}

/// Something that a search finds, from the place of its row.
pub fn thing_at(key: &Key) -> Option<Thing> {
    let entity: EntityName = key.pk.strip_prefix("E#")?.parse().ok()?;
    if key.sk == SELF {
        return Some(Thing::Entity(entity));
    }
    let in_entity = |rest: &str| format!("{entity}/{rest}").parse().ok();
    match key.sk.split_at_checked(2)? {
        ("C#", name) => Some(Thing::Collection(entity, name.parse().ok()?)),
        ("R#", rest) => Some(Thing::Container(in_entity(rest)?)),
        ("I#", path) => {
            let (rest, hash) = path.rsplit_once('#')?;
            Some(Thing::Image(in_entity(rest)?, Digest::from_hex(hash).ok()?))
        }
        _ => None,
    }
}

/// The partition and prefix of the images of a container.
pub fn images(repository: &Repository) -> KeyRange {
    range(format!("E#{}", repository.entity()), format!("I#{}#", repository.rest()))
}

/// The charge of a blob to an entity.
pub fn charge(entity: &EntityName, digest: &Digest) -> Key {
    key(format!("E#{entity}"), format!("B#{}", digest.hex()))
}

/// A tag in a repository.
pub fn tag(repository: &Repository, tag: &TagName) -> Key {
    key(format!("R#{repository}"), format!("T#{tag}"))
}

/// The partition and prefix of a repository's tags.
pub fn tags(repository: &Repository) -> KeyRange {
    range(format!("R#{repository}"), "T#")
}

/// A manifest in a repository.
pub fn manifest(repository: &Repository, digest: &OciDigest) -> Key {
    key(format!("R#{repository}"), format!("M#{}", digest.in_key()))
}

/// The partition and prefix of a repository's manifests.
pub fn manifests(repository: &Repository) -> KeyRange {
    range(format!("R#{repository}"), "M#")
}

/// A referrer of a manifest.
pub fn referrer(repository: &Repository, subject: &OciDigest, digest: &OciDigest) -> Key {
    key(format!("R#{repository}"), format!("F#{}#{}", subject.in_key(), digest.in_key()))
}

/// The partition and prefix of a manifest's referrers.
pub fn referrers(repository: &Repository, subject: &OciDigest) -> KeyRange {
    range(format!("R#{repository}"), format!("F#{}#", subject.in_key()))
}

/// What says that something names a digest.
pub fn backlink(repository: &Repository, digest: &OciDigest, from: &Namer) -> Key {
    let from = match from {
        Namer::Manifest(manifest) => format!("{FROM_MANIFESTS}{}", manifest.in_key()),
        Namer::Tag(tag) => format!("T#{tag}"),
    };
    key(format!("R#{repository}"), format!("W#{}#{from}", digest.in_key()))
}

/// How the names of manifests begin among what names a digest.
pub const FROM_MANIFESTS: &str = "M#";

/// The partition and prefix of what names a digest.
pub fn backlinks(repository: &Repository, digest: &OciDigest) -> KeyRange {
    range(format!("R#{repository}"), format!("W#{}#", digest.in_key()))
}

/// A manifest's entry in the list of those that name too many things for backlinks.
pub fn wide(repository: &Repository, manifest: &OciDigest) -> Key {
    key(format!("R#{repository}"), format!("V#{}", manifest.in_key()))
}

/// The partition and prefix of that list.
pub fn all_wide(repository: &Repository) -> KeyRange {
    range(format!("R#{repository}"), "V#")
}

/// The marker that a repository has library images.
pub fn marker(repository: &Repository) -> Key {
    key(format!("R#{repository}"), SELF)
}

/// A blob's link in a repository.
pub fn link(repository: &Repository, name: &OciDigest) -> Key {
    key(format!("R#{repository}"), format!("B#{}", name.in_key()))
}

/// The partition and prefix of the links in a repository.
pub fn links(repository: &Repository) -> KeyRange {
    range(format!("R#{repository}"), "B#")
}

/// The metadata that was read from an image.
pub fn details(repository: &Repository, hash: &Digest) -> Key {
    key(format!("R#{repository}"), format!("D#{}", hash.hex()))
}

/// The image of an architecture that came last.
pub fn newest(repository: &Repository, arch: &str) -> Key {
    key(format!("R#{repository}"), format!("N#{arch}"))
}

/// The partition and prefix of the images that came last.
pub fn all_newest(repository: &Repository) -> KeyRange {
    range(format!("R#{repository}"), "N#")
}

/// A blob of the installation.
pub fn blob(digest: &Digest) -> Key {
    key(format!("B#{}", digest.hex()), SELF)
}

/// The target of an id.
pub fn pointer(id: Id) -> Key {
    key(format!("P#{id}"), SELF)
}

/// An upload session.
pub fn session(id: UploadId) -> Key {
    key(format!("S#{id}"), SELF)
}

/// Reads the id of an upload session from the partition key of its row.
pub fn session_id(pk: &str) -> Option<UploadId> {
    pk.strip_prefix("S#")?.parse().ok()
}

/// A stream: a blob that is being uploaded through us.
pub fn stream(id: UploadId) -> Key {
    key(format!("O#{id}"), SELF)
}

/// A share.
pub fn share(id: ShareId) -> Key {
    key(format!("D#{id}"), SELF)
}

/// A share's entry in the list of its repository.
pub fn share_listed(repository: &Repository, id: ShareId) -> Key {
    key(format!("R#{repository}"), format!("L#{id}"))
}

/// The partition and prefix of a repository's shares.
pub fn shares(repository: &Repository) -> KeyRange {
    range(format!("R#{repository}"), "L#")
}

/// An object that is to be deleted.
pub fn condemned(object: &str) -> Key {
    key(format!("X#{object}"), SELF)
}

/// The mark of an installation, in its table.
pub fn installation() -> Key {
    key("L".to_owned(), "I")
}

/// The same in its bucket: the name of an object that no sweep removes.
pub const INSTALLATION: &str = "installation";

/// The mark of a library that was copied to where it is.
pub fn copied() -> Key {
    key("L".to_owned(), "C")
}

/// A row with which the table is tried out.
pub fn probe(trial: &str, name: &str) -> Key {
    key(format!("T#{trial}"), name)
}

/// The rows of a trial of the table.
pub fn probes(trial: &str) -> KeyRange {
    range(format!("T#{trial}"), "")
}

/// Whether a row may be written with `grant`: rows of an entity, a repository or a user require a grant for that
/// place. Rows of the installation – ids, sessions, blobs, shares, condemned objects – can be written with any grant
/// for an entity.
pub fn lies_in(key: &Key, grant: &Grant) -> bool {
    let common = ["P#", "S#", "B#", "O#", "D#", "X#"].iter().any(|prefix| key.pk.starts_with(prefix));
    let in_entity = |name: &EntityName| {
        common
            || key.pk == format!("A#{name}")
            || (key.pk == "L" && key.sk.starts_with("S#"))
            || key.pk == format!("E#{name}")
            || key.pk.strip_prefix("R#").and_then(|path| path.split('/').next()) == Some(name.as_str())
            || (key.pk.starts_with("U#") && key.sk == format!("E#{name}"))
            || key.pk.starts_with(&format!("U#{name}+"))
            || grant.by().and_then(Actor::user).is_some_and(|by| *key == groups_made(by))
            // A group that is deleted counts no more for whoever made it.
            || (key.pk.starts_with("U#") && key.sk == "G" && grant.action() == Action::Delete)
    };
    // What follows from a change can be in anybody's place.
    if key.pk.starts_with("F#") {
        return *grant.place() != Place::Nowhere;
    }
    match grant.place() {
        Place::Installation if grant.action() == Action::Join => {
            grant.by().and_then(Actor::user).is_some_and(|new| is_of_new(key, new))
        }
        Place::Installation => true,
        Place::Nowhere => false,
        Place::User(name) => key.pk == format!("U#{name}") || key.pk == format!("A#+{name}"),
        Place::Entity(name) | Place::Collection(name, _) => in_entity(name),
        Place::Repository(repository) => {
            // Whoever stars it has that in their own list.
            let starred = || grant.by().and_then(Actor::user).is_some_and(|by| *key == star(by, repository));
            in_entity(repository.entity()) && (!key.pk.starts_with("R#") || key.pk == format!("R#{repository}"))
                || starred()
        }
    }
}

/// Whether a row is written when somebody registers: their account, their entity, their place in a group, and the use of
/// their invitation.
fn is_of_new(key: &Key, new: &UserName) -> bool {
    [format!("U#{new}"), format!("E#{new}"), format!("A#+{new}")].contains(&key.pk)
        || key.pk.starts_with("P#")
        || (key.pk == "L" && (key.sk == format!("U#{new}") || key.sk.starts_with("V#")))
        || (key.pk.starts_with("E#") && key.sk == format!("M#{new}"))
}

/// The kind of row that a key belongs to, as far as whatever works through the whole table needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// An upload session.
    Session,
    /// A stream: a blob that is being uploaded through us.
    Stream,
    /// A blob's link in a repository.
    Link,
    /// A manifest in a repository.
    Manifest,
    /// An object that is to be deleted.
    Condemned,
    /// The charge of a blob to an entity.
    Charge,
    /// An image in a container.
    Image,
    /// The quota account of an entity.
    Account,
    /// A blob of the installation.
    Blob,
    /// The count of wrong passwords for a name.
    WrongPasswords,
    /// How often an address tried to register.
    Registrations,
    /// An event.
    Event,
    /// What ends at a time that it says: an invitation, a share, or its entry in the list of its repository.
    Ending,
    /// A container that was deleted.
    RemovedContainer,
    /// An entity that was deleted.
    RemovedEntity,
    /// What people say about something.
    About,
    /// A tag in a repository.
    Tag,
    /// Where a tag led.
    TagThen,
    /// An entry of the outbox.
    Pending,
    /// The metadata that was read from an image.
    Details,
    /// A manifest's entry among the referrers of another one.
    Referrer,
    /// What says that something names a digest.
    Backlink,
    /// An entry in the list of manifests that name too many things for those.
    Wide,
    /// The numbers of a repository that many people change.
    Counts,
    /// How often something was downloaded.
    Downloaded,
    /// What says that downloads were counted.
    BatchCounted,
    /// The target of an id.
    Pointer,
    /// An entity, a collection, a container.
    Entity,
    /// A collection.
    Collection,
    /// A container, or another repository.
    Container,
    /// Somebody's roles in an entity.
    Member,
    /// The inverse of these.
    Membership,
    /// A person's account.
    User,
    /// The account of a robot.
    Robot,
    /// The groups of directories that have roles in an entity.
    Includes,
    /// An entry in the list of users.
    UserListed,
    /// The token of a person or robot.
    Token,
    /// A star.
    Star,
    /// What is of the stores and not of the library: marks, rows of a trial, the list of uploads that wait.
    OfStores,
    /// Any other kind.
    Other,
}

/// Reads the kind of row from its key.
pub fn kind(key: &Key) -> RowKind {
    let part = |text: &str| text.get(..2).map(str::to_owned).unwrap_or_default();
    match (part(&key.pk).as_str(), part(&key.sk).as_str()) {
        ("S#", _) => RowKind::Session,
        ("O#", _) => RowKind::Stream,
        ("R#", "B#") => RowKind::Link,
        ("R#", "M#") => RowKind::Manifest,
        ("X#", _) => RowKind::Condemned,
        ("B#", _) => RowKind::Blob,
        ("A#", _) => RowKind::Event,
        ("Y#", _) => RowKind::Registrations,
        ("D#", _) | ("R#", "L#") | ("E#", "V#") => RowKind::Ending,
        (_, "V#") if key.pk == "L" => RowKind::Ending,
        ("E#", "B#") => RowKind::Charge,
        ("E#", "I#") => RowKind::Image,
        ("E#", "Z#") => RowKind::RemovedContainer,
        ("E#", _) if key.sk == "Z" => RowKind::RemovedEntity,
        ("E#", _) if key.sk == "Q" => RowKind::Account,
        ("E#", "A#") => RowKind::About,
        ("E#" | "R#", _) if key.sk == ABOUT => RowKind::About,
        ("U#", _) if key.sk == "W" => RowKind::WrongPasswords,
        ("R#", "T#") => RowKind::Tag,
        ("R#", "H#") => RowKind::TagThen,
        ("F#", _) => RowKind::Pending,
        ("R#", "D#") => RowKind::Details,
        ("R#", "F#") => RowKind::Referrer,
        ("R#", "W#") => RowKind::Backlink,
        ("R#", "V#") => RowKind::Wide,
        ("R#", _) if key.sk == "N" => RowKind::Counts,
        ("R#", "C#") => RowKind::Downloaded,
        ("J#", _) => RowKind::BatchCounted,
        ("P#", _) => RowKind::Pointer,
        ("E#", _) if key.sk == SELF => RowKind::Entity,
        ("E#", "C#") => RowKind::Collection,
        ("E#", "R#") => RowKind::Container,
        ("E#", "M#") => RowKind::Member,
        ("U#", "E#") => RowKind::Membership,
        ("U#", "T#") => RowKind::Token,
        ("U#", "S#") => RowKind::Star,
        ("U#", _) if key.sk == SELF && key.pk.contains('+') => RowKind::Robot,
        ("U#", _) if key.sk == SELF => RowKind::User,
        ("E#", _) if key.sk == "G" => RowKind::Includes,
        (_, "U#") if key.pk == "L" => RowKind::UserListed,
        ("T#", _) => RowKind::OfStores,
        _ if key.pk == "L" => RowKind::OfStores,
        _ => RowKind::Other,
    }
}

/// The entity in whose account a row counts as one, if its key alone says so: collections, containers, also those that
/// were deleted, images, tags and links.
pub fn counted(key: &Key) -> Option<&str> {
    match key.sk.get(..2)? {
        "C#" | "R#" | "I#" | "Z#" => key.pk.strip_prefix("E#"),
        "T#" | "B#" => key.pk.strip_prefix("R#")?.split('/').next(),
        _ => None,
    }
}

/// The name of an object in the bucket: opaque, and never reused. Its first digits spread the load.
pub fn object(random: [u8; 20]) -> String {
    let name = crate::domain::digest::hex(&random);
    let (head, tail) = name.split_at(2);
    format!("{head}/{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_kinds_of_row_share_a_key() {
        let user_name: UserName = "a".parse().unwrap();
        let entity_name: EntityName = "a".parse().unwrap();
        let (person, robot): (Actor, Actor) = (user_name.clone().into(), "a+a".parse().unwrap());
        let collection_name: CollectionName = "a".parse().unwrap();
        let repository: Repository = "a/a/a".parse().unwrap();
        let digest = Digest::of(b"");
        let keys = [
            user(&user_name),
            user_listed(&user_name),
            registrations("192.0.2.1"),
            registration_invitation(Id::from_random([0; 12])),
            wrong_passwords(&user_name),
            groups_made(&user_name),
            actor(&robot),
            token(&person, TokenId::from_random([0; 12])),
            token(&robot, TokenId::from_random([0; 12])),
            membership(&person, &entity_name),
            membership(&robot, &entity_name),
            entity(&entity_name),
            account(&entity_name),
            member(&entity_name, &person),
            member(&entity_name, &robot),
            includes(&entity_name),
            invitation(&entity_name, Id::from_random([0; 12])),
            collection(&entity_name, &collection_name),
            about_entity(&entity_name),
            about_collection(&entity_name, &collection_name),
            about_container(&repository),
            counts(&repository),
            star(&user_name, &repository),
            container(&repository),
            removed_container(&repository),
            removed_entity(&entity_name),
            image(&repository, &digest),
            charge(&entity_name, &digest),
            tag(&repository, &"a".parse().unwrap()),
            manifest(&repository, &digest.into()),
            referrer(&repository, &digest.into(), &digest.into()),
            backlink(&repository, &digest.into(), &Namer::Manifest(digest.into())),
            backlink(&repository, &digest.into(), &Namer::Tag("a".parse().unwrap())),
            wide(&repository, &digest.into()),
            marker(&repository),
            link(&repository, &digest.into()),
            link(&repository, &OciDigest::Sha512([0; 64])),
            details(&repository, &digest),
            newest(&repository, "amd64"),
            blob(&digest),
            probe("a", "a"),
            installation(),
            copied(),
            pointer(Id::from_random([0; 12])),
            session(UploadId::from_random([0; 16])),
            stream(UploadId::from_random([0; 16])),
            sealed_listed(UploadId::from_random([0; 16])),
            event("a", 0, 0),
            event("+a", 0, 0),
            pending("a", 0, 0),
            tag_then(&repository, &"a".parse().unwrap(), 0, 0),
            downloaded(&repository, &Counted::Repository, None),
            downloaded(&repository, &Counted::Repository, Some(Day(0))),
            downloaded(&repository, &Counted::Tag("a".parse().unwrap()), None),
            downloaded(&repository, &Counted::Image(digest.into()), None),
            batch_counted("a", &repository, 0),
            condemned("aa/a"),
            share(ShareId::from_random([0; 12])),
            share_listed(&repository, ShareId::from_random([0; 12])),
        ];
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    }

    #[test]
    fn the_sweeper_knows_its_rows_by_their_keys() {
        let repository: Repository = "a/a/a".parse().unwrap();
        let digest = Digest::of(b"");
        for (key, expected) in [
            (session(UploadId::from_random([0; 16])), RowKind::Session),
            (condemned("aa/a"), RowKind::Condemned),
            (newest(&repository, "amd64"), RowKind::Other),
            (counts(&repository), RowKind::Counts),
            (downloaded(&repository, &Counted::Repository, None), RowKind::Downloaded),
            (batch_counted("a", &repository, 0), RowKind::BatchCounted),
            (event("a", 0, 0), RowKind::Event),
            (registrations("192.0.2.1"), RowKind::Registrations),
            (share(ShareId::from_random([0; 12])), RowKind::Ending),
            (share_listed(&repository, ShareId::from_random([0; 12])), RowKind::Ending),
            (invitation(repository.entity(), Id::from_random([0; 12])), RowKind::Ending),
            (registration_invitation(Id::from_random([0; 12])), RowKind::Ending),
            (sealed_listed(UploadId::from_random([0; 16])), RowKind::OfStores),
            (installation(), RowKind::OfStores),
            (copied(), RowKind::OfStores),
            (probe("a", "a"), RowKind::OfStores),
            (blob(&digest), RowKind::Blob),
            (charge(repository.entity(), &digest), RowKind::Charge),
            (image(&repository, &digest), RowKind::Image),
            (account(repository.entity()), RowKind::Account),
            (container(&repository), RowKind::Container),
            (collection(repository.entity(), &"a".parse().unwrap()), RowKind::Collection),
            (entity(repository.entity()), RowKind::Entity),
            (removed_container(&repository), RowKind::RemovedContainer),
            (removed_entity(repository.entity()), RowKind::RemovedEntity),
            (about_container(&repository), RowKind::About),
            (about_entity(repository.entity()), RowKind::About),
            (about_collection(repository.entity(), &"a".parse().unwrap()), RowKind::About),
            (counts(&repository), RowKind::Counts),
            (newest(&repository, "amd64"), RowKind::Other),
            (marker(&repository), RowKind::Other),
            (tag(&repository, &"a".parse().unwrap()), RowKind::Tag),
            (details(&repository, &digest), RowKind::Details),
            (referrer(&repository, &digest.into(), &digest.into()), RowKind::Referrer),
            (backlink(&repository, &digest.into(), &Namer::Tag("a".parse().unwrap())), RowKind::Backlink),
            (wide(&repository, &digest.into()), RowKind::Wide),
            (pointer(Id::from_random([0; 12])), RowKind::Pointer),
            (wrong_passwords(&"a".parse().unwrap()), RowKind::WrongPasswords),
            (user(&"a".parse().unwrap()), RowKind::User),
            (user_listed(&"a".parse().unwrap()), RowKind::UserListed),
            (actor(&"a+b".parse().unwrap()), RowKind::Robot),
            (includes(repository.entity()), RowKind::Includes),
            (groups_made(&"a".parse().unwrap()), RowKind::Other),
            (member(repository.entity(), &"a+b".parse().unwrap()), RowKind::Member),
            (membership(&"a+b".parse().unwrap(), repository.entity()), RowKind::Membership),
            (token(&"a+b".parse().unwrap(), TokenId::from_random([0; 12])), RowKind::Token),
            (star(&"a".parse().unwrap(), &repository), RowKind::Star),
            (link(&repository, &digest.into()), RowKind::Link),
            (manifest(&repository, &digest.into()), RowKind::Manifest),
            (stream(UploadId::from_random([0; 16])), RowKind::Stream),
        ] {
            assert_eq!(kind(&key), expected, "{key:?}");
        }
    }

    #[test]
    fn the_part_of_the_outbox_is_read_back_from_its_key_alone() {
        for part in 0..OUTBOX_PARTS {
            assert_eq!(outbox_part(&outbox(part).pk), Some(part));
        }
        for other in ["F#10", "F#", "F#x", "E#acme", ""] {
            assert_eq!(outbox_part(other), None, "{other}");
        }
    }

    #[test]
    fn the_id_of_a_session_is_read_back_from_its_key_alone() {
        let id = UploadId::from_random([7; 16]);
        assert_eq!(session_id(&session(id).pk), Some(id));
        for other in [stream(id).pk, "S#x".to_owned(), "E#acme".to_owned(), String::new()] {
            assert_eq!(session_id(&other), None, "{other}");
        }
    }

    #[test]
    fn events_lie_in_the_order_of_their_time() {
        let times = [0, 9, 10, 1_700_000_000_000, 1_800_000_000_000, 1 << 47];
        assert!(times.map(|millis| event("a", millis, 0).sk).is_sorted());
    }

    #[test]
    fn the_images_of_one_container_are_not_those_of_another() {
        let KeyRange { pk, prefix } = images(&"a/b/c".parse().unwrap());
        let other = image(&"a/b/c-d".parse().unwrap(), &Digest::of(b""));
        assert_eq!(other.pk, pk);
        assert!(!other.sk.starts_with(&prefix));
    }
}
