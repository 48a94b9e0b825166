//! What each kind of row refers to.

use crate::changes::backlinks::{self, Naming};
use crate::changes::images::own_manifest;
use crate::domain::manifest::EMPTY;
use crate::domain::{Actor, Digest, EntityName, OciDigest, Repository};
use crate::error::Error;
use crate::store::keys::{self, Key, RowKind};
use crate::store::rows::{
    About, Account, Backlink, Blob, Charge, Collection, Container, Counts, Described, Details, Downloaded, Entity,
    Image, Link, ManifestLinks, Member, Membership, Namer, Pointer, Referrer, Robot, Row, Star, Tag, Target, Token,
    User, UserListed, Wide,
};
use crate::store::table::Scanned;

/// What a row refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct References {
    /// What it must have: of each of these, one row.
    pub(super) needs: Vec<Vec<Key>>,
    /// What belongs to it, if it is there.
    pub(super) wants: Vec<Key>,
    /// What can't be there beside it.
    pub(super) excludes: Option<Key>,
    /// Whether it makes no sense without what it needs, whatever the source says.
    pub(super) goes: bool,
}

impl References {
    /// All rows that it mentions.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.needs.iter().flatten().chain(&self.wants).chain(&self.excludes)
    }

    fn of(needs: impl IntoIterator<Item = Vec<Key>>, wants: impl IntoIterator<Item = Key>) -> Self {
        let (needs, wants) = (needs.into_iter().collect(), wants.into_iter().collect());
        Self { needs, wants, ..Self::default() }
    }

    /// Rows that must each be there.
    fn all(needs: impl IntoIterator<Item = Key>) -> Self {
        Self::of(needs.into_iter().map(|key| vec![key]), [])
    }

    /// A row that goes with another one.
    fn with(one: Vec<Key>) -> Self {
        Self { needs: vec![one], goes: true, ..Self::default() }
    }
}

/// The row of an entity, or what is left of it after it was deleted.
fn entity(name: &EntityName) -> Vec<Key> {
    vec![keys::entity(name), keys::removed_entity(name)]
}

/// The same of a repository.
fn repository(repository: &Repository) -> Vec<Key> {
    vec![keys::container(repository), keys::removed_container(repository)]
}

/// What a row refers to. Nothing, for some kinds.
///
/// # Errors
/// If the row can't be read: those kinds are read here whose numbers and objects are looked at later.
pub(super) fn of(row: Scanned) -> Result<References, Error> {
    Ok(match keys::kind(&row.key) {
        RowKind::Tag => {
            let tag: Tag = row.read()?;
            let images = tag.images.values().map(|one| vec![keys::image(&tag.repository, &one.hash)]);
            let named = vec![keys::manifest(&tag.repository, &tag.named.digest)];
            // One that is missing says that the tag has moved meanwhile.
            let backlink = backlinks::of_tag(&tag).map(|backlink| vec![backlink.key()]);
            References::of(images.chain([named, repository(&tag.repository)]).chain(backlink), [])
        }
        RowKind::Image => of_image(&row.read()?),
        RowKind::Manifest => of_manifest(&row.read_part()?),
        RowKind::Referrer => {
            let row: Referrer = row.read()?;
            References::with(vec![keys::manifest(&row.repository, &row.digest)])
        }
        RowKind::Backlink => {
            let row: Backlink = row.read()?;
            References::with(vec![match &row.from {
                Namer::Manifest(manifest) => keys::manifest(&row.repository, manifest),
                Namer::Tag(tag) => keys::tag(&row.repository, tag),
            }])
        }
        RowKind::Wide => {
            let row: Wide = row.read()?;
            References::with(vec![keys::manifest(&row.repository, &row.manifest)])
        }
        RowKind::Link => {
            let link: Link = row.read()?;
            References::of([repository(&link.repository), vec![keys::blob(&link.digest)]], [])
        }
        RowKind::Details => {
            let row: Details = row.read()?;
            References::with(vec![keys::image(&row.repository, &row.hash)])
        }
        RowKind::About => References::with(match row.read::<About>()?.of {
            Described::Entity(name) => entity(&name),
            Described::Collection(name, collection) => vec![keys::collection(&name, &collection)],
            Described::Container(path) => repository(&path),
        }),
        RowKind::Pointer => References::with(vec![match row.read::<Pointer>()?.target {
            Target::Entity(name) => keys::entity(&name),
            Target::Collection(name, collection) => keys::collection(&name, &collection),
            Target::Container(path) => keys::container(&path),
            Target::Image(path, hash) => keys::image(&path, &hash),
        }]),
        RowKind::Blob => row.read::<Blob>().map(|_| References::default())?,
        RowKind::Charge => row.read::<Charge>().map(|_| References::default())?,
        RowKind::Counts => row.read::<Counts>().map(|_| References::default())?,
        RowKind::Downloaded => row.read::<Downloaded>().map(|_| References::default())?,
        RowKind::Star => row.read::<Star>().map(|_| References::default())?,
        _ => of_place(row)?,
    })
}

fn of_image(image: &Image) -> References {
    let (path, hash) = (&image.repository, &image.hash);
    let own = own_manifest(image).map(|own| vec![keys::manifest(path, &own)]);
    let rows = [keys::link(path, &(*hash).into()), keys::details(path, hash), keys::pointer(image.id)];
    References::of(rows.into_iter().map(|key| vec![key]).chain([repository(path)]).chain(own), [])
}

fn of_manifest(row: &ManifestLinks) -> References {
    let path = &row.repository;
    // The empty configuration has no link where library images are.
    let empty: OciDigest = Digest::of(EMPTY).into();
    let names = row.names.iter().filter(|name| **name != empty);
    // Each is a blob or a manifest, and one that was deleted since may be missing.
    let parts = names.map(|name| vec![keys::link(path, name), keys::manifest(path, name)]);
    let referrer = row.subject.map(|subject| keys::referrer(path, &subject, &row.digest));
    let image = row.image.map(|image| keys::image(path, &image));
    // One that is missing says that the manifest has gone meanwhile.
    let backlinks = Naming::from(row).keys().into_iter().map(|key| vec![key]);
    References::of(parts.chain([repository(path)]).chain(backlinks), referrer.into_iter().chain(image))
}

/// What the rows of people, entities, collections and containers refer to.
fn of_place(row: Scanned) -> Result<References, Error> {
    Ok(match keys::kind(&row.key) {
        RowKind::Container => {
            let row: Container = row.read()?;
            let path = &row.repository;
            let collection = row.collection_id.and_then(|_| path.as_container());
            let collection = collection.map(|(name, _)| vec![keys::collection(path.entity(), &name)]);
            let needs = [entity(path.entity()), vec![keys::pointer(row.id)]].into_iter().chain(collection);
            let wants = [keys::marker(path), keys::about_container(path), keys::counts(path)];
            References { excludes: Some(keys::removed_container(path)), ..References::of(needs, wants) }
        }
        RowKind::Collection => {
            let row: Collection = row.read()?;
            let needs = [entity(&row.entity), vec![keys::pointer(row.id)]];
            References::of(needs, [keys::about_collection(&row.entity, &row.name)])
        }
        RowKind::Entity => {
            let row: Entity = row.read()?;
            let maker = row.created_by.as_ref().map(|maker| keys::member(&row.name, maker));
            let needs = [keys::account(&row.name), keys::pointer(row.id)];
            let wants = std::iter::once(keys::about_entity(&row.name)).chain(maker).collect();
            References { excludes: Some(keys::removed_entity(&row.name)), wants, ..References::all(needs) }
        }
        RowKind::Account => References::with(entity(&row.read::<Account>()?.entity)),
        RowKind::Member => {
            let row: Member = row.read()?;
            let rest = [keys::membership(&row.actor, &row.entity), keys::actor(&row.actor)];
            References::of(rest.map(|key| vec![key]).into_iter().chain([entity(&row.entity)]), [])
        }
        RowKind::Membership => {
            let row: Membership = row.read()?;
            References::with(vec![keys::member(&row.entity, &row.actor)])
        }
        RowKind::User => {
            let row: User = row.read()?;
            References::all([keys::user_listed(&row.name), keys::entity(&(&row.name).into())])
        }
        RowKind::Robot => {
            let row: Robot = row.read()?;
            let Actor::Robot(entity, _) = &row.actor else { return Ok(References::default()) };
            References::all([keys::member(entity, &row.actor)])
        }
        RowKind::UserListed => References::with(vec![keys::user(&row.read::<UserListed>()?.name)]),
        RowKind::Token => References::with(vec![keys::actor(&row.read::<Token>()?.actor)]),
        _ => References::default(),
    })
}
