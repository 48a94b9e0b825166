//! The library API's objects, field by field. Times are never empty strings and have their zone in digits, ids are 24
//! digits, numbers are whole.

use serde::Serialize;
use shared::domain::sif::{self, Arch, Filesystem, Kind, PartitionKind, SifFacts};
use shared::domain::time::{NEVER, zoned};
use shared::domain::{Actor, Digest, Time, Visibility};
use shared::service::browse::{
    CollectionView, ContainerView, EntityView, RepositoryView, UsedCollection, UsedContainer,
};
use shared::service::latest as service;
use shared::service::search::Results;
use shared::service::star::Starred;
use shared::store::rows;
use std::collections::BTreeMap;
use std::ops::Not;
use utoipa::ToSchema;

/// The fields that every object has.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Common {
    deleted: bool,
    created_by: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    #[schema(format = DateTime)]
    deleted_at: String,
    owner: String,
    /// Lists leave it out.
    custom_data: String,
}

fn common(created: Time, by: Option<&Actor>) -> Common {
    let by = by.map(ToString::to_string).unwrap_or_default();
    let at = created.zoned();
    Common {
        deleted: false,
        created_by: by.clone(),
        created_at: at.clone(),
        updated_at: at,
        deleted_at: zoned(NEVER),
        owner: by,
        custom_data: String::new(),
    }
}

/// An entity.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entity {
    #[serde(flatten)]
    common: Common,
    id: String,
    name: String,
    description: String,
    /// The README, in Markdown. Lists leave it out.
    full_description: String,
    collections: Vec<String>,
    size: u64,
    quota: u64,
    default_private: bool,
}

/// An entity with the numbers of its account.
pub fn entity(view: &EntityView) -> Entity {
    let quota = view.account.quota;
    let Texts { custom_data, full_description, .. } = texts(view.about.as_ref());
    let entity = new_entity(&view.entity);
    let common = Common { custom_data, ..entity.common };
    Entity { common, full_description, size: quota.used(), quota: quota.limit, ..entity }
}

/// The texts that lie beside the row of a thing.
#[derive(Default)]
struct Texts {
    full_description: String,
    custom_data: String,
    vcs_url: String,
}

fn texts(about: Option<&rows::About>) -> Texts {
    about.map_or_else(Texts::default, |about| Texts {
        full_description: about.readme.to_string(),
        custom_data: about.custom_data.to_string(),
        vcs_url: about.vcs_url.to_string(),
    })
}

/// An entity without its numbers.
pub fn new_entity(row: &rows::Entity) -> Entity {
    Entity {
        common: common(row.created, row.created_by.as_ref()),
        id: row.id.to_string(),
        name: row.name.to_string(),
        description: row.description.to_string(),
        full_description: String::new(),
        collections: Vec::new(),
        size: 0,
        quota: 0,
        default_private: row.default_private,
    }
}

/// A collection.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Collection {
    #[serde(flatten)]
    common: Common,
    id: String,
    name: String,
    description: String,
    /// The README, in Markdown. Lists leave it out.
    full_description: String,
    entity: String,
    containers: Vec<String>,
    size: u64,
    /// The same, for clients that read it there.
    used_quota: u64,
    private: bool,
    entity_name: String,
}

/// A collection with what is said about it.
pub fn whole_collection(view: &CollectionView) -> Collection {
    let Texts { custom_data, full_description, .. } = texts(view.about.as_ref());
    let collection = collection(&view.collection);
    let common = Common { custom_data, ..collection.common };
    Collection { common, full_description, ..collection }
}

/// A collection with the bytes of what is in it.
pub fn used_collection(used: &UsedCollection) -> Collection {
    Collection { size: used.bytes, used_quota: used.bytes, ..collection(&used.collection) }
}

/// A collection.
pub fn collection(row: &rows::Collection) -> Collection {
    Collection {
        common: common(row.created, row.created_by.as_ref()),
        id: row.id.to_string(),
        name: row.name.to_string(),
        description: row.description.to_string(),
        full_description: String::new(),
        entity: row.entity_id.to_string(),
        containers: Vec::new(),
        size: 0,
        used_quota: 0,
        private: row.private,
        entity_name: row.entity.to_string(),
    }
}

/// A container.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    #[serde(flatten)]
    common: Common,
    id: String,
    name: String,
    description: String,
    /// The README, in Markdown. Lists leave it out.
    full_description: String,
    /// Where its sources are. Lists leave it out.
    vcs_url: String,
    collection: String,
    images: Vec<String>,
    image_tags: BTreeMap<String, String>,
    arch_tags: BTreeMap<String, BTreeMap<String, String>>,
    size: u64,
    /// The same, for clients that read it there.
    used_quota: u64,
    /// How often images of it were downloaded. Lists leave it out.
    download_count: u64,
    /// How many users have starred it. Most lists leave it out.
    stars: u64,
    private: bool,
    read_only: bool,
    entity: String,
    entity_name: String,
    collection_name: String,
}

/// A container with its images and their tags. Lists of containers leave both out.
pub fn container(row: &rows::Container, images: &[rows::Image]) -> Container {
    let mut arch_tags: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut image_tags = BTreeMap::new();
    for image in images {
        let arch = image.content.as_ref().map(|content| content.arch.clone()).unwrap_or_default();
        for tag in &image.tags {
            arch_tags.entry(arch.clone()).or_default().insert(tag.to_string(), image.id.to_string());
            image_tags.insert(tag.to_string(), image.id.to_string());
        }
    }
    let (collection_name, name) = names(row);
    let size = images.iter().filter_map(|image| image.content.as_ref()).map(|content| content.size).sum();
    Container {
        common: common(row.created, row.created_by.as_ref()),
        id: row.id.to_string(),
        name,
        description: row.description.to_string(),
        full_description: String::new(),
        vcs_url: String::new(),
        collection: row.collection_id.map(|id| id.to_string()).unwrap_or_default(),
        images: images.iter().map(|image| image.id.to_string()).collect(),
        image_tags,
        arch_tags,
        size,
        used_quota: size,
        download_count: 0,
        stars: 0,
        private: row.visibility == Visibility::Private,
        read_only: row.read_only,
        entity: row.entity_id.to_string(),
        entity_name: row.repository.entity().to_string(),
        collection_name,
    }
}

/// A container with its images and tags.
pub fn whole(view: &ContainerView) -> Container {
    let (image_tags, arch_tags) = (tags_v1(&view.tags), tags_v2(&view.tags));
    let RepositoryView { container: row, about, stars, downloads } = &view.repository;
    let Texts { custom_data, full_description, vcs_url } = texts(about.as_ref());
    let container = container(row, &view.images);
    let common = Common { custom_data, ..container.common };
    let (stars, download_count) = (*stars, *downloads);
    Container { common, full_description, vcs_url, image_tags, arch_tags, download_count, stars, ..container }
}

/// A container that somebody has starred, without its images and tags.
pub fn starred(starred: &Starred) -> Container {
    Container { stars: starred.stars, ..container(&starred.container, &[]) }
}

/// A repository in a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedRepository {
    name: String,
    id: String,
    description: String,
    #[schema(value_type = String)]
    visibility: Visibility,
    read_only: bool,
    created_by: String,
    #[schema(format = DateTime)]
    created: String,
}

/// A repository in a list.
pub fn listed_repository(row: &rows::Container) -> ListedRepository {
    ListedRepository {
        name: row.repository.to_string(),
        id: row.id.to_string(),
        description: row.description.to_string(),
        visibility: row.visibility,
        read_only: row.read_only,
        created_by: row.created_by.as_ref().map(ToString::to_string).unwrap_or_default(),
        created: row.created.to_string(),
    }
}

/// A tag.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tag {
    name: String,
    /// The digest of the manifest that it names.
    digest: String,
    media_type: String,
    frozen: bool,
    #[schema(format = DateTime)]
    updated: String,
    /// The library images that it names, by architecture.
    images: BTreeMap<String, TaggedImage>,
}

/// An image that a tag names.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TaggedImage {
    id: String,
    hash: String,
    size: u64,
    signed: bool,
}

/// A tag.
pub fn tag(row: &rows::Tag) -> Tag {
    let image = |one: &rows::Tagged| TaggedImage {
        id: one.id.to_string(),
        hash: one.hash.library(),
        size: one.content.size,
        signed: one.content.signed,
    };
    Tag {
        name: row.name.to_string(),
        digest: row.named.digest.to_string(),
        media_type: row.named.media_type.clone(),
        frozen: row.frozen,
        updated: row.updated.to_string(),
        images: row.images.iter().map(|(arch, one)| (arch.clone(), image(one))).collect(),
    }
}

/// Where a tag led from some time on.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TagThen {
    /// Since when.
    #[schema(format = DateTime)]
    since: String,
    /// Who set it, or removed it.
    by: String,
    /// The digest of the manifest that it named, for registry clients; empty if it was removed.
    digest: String,
    /// The library images that it named, by architecture: references that lead to the same bytes for ever.
    images: BTreeMap<String, String>,
}

/// Where a tag led from some time on.
pub fn tag_then(row: &rows::TagThen) -> TagThen {
    let pinned = |hash: &Digest| format!("{}:{}", row.repository, hash.library());
    TagThen {
        since: Time(i64::try_from(row.millis / 1000).unwrap_or(i64::MAX)).to_string(),
        by: row.by.to_string(),
        digest: row.led.digest.as_ref().map(ToString::to_string).unwrap_or_default(),
        images: row.led.images.iter().map(|(arch, hash)| (arch.clone(), pinned(hash))).collect(),
    }
}

/// A container with the tags that were set last.
#[derive(Debug, Serialize, ToSchema)]
pub struct Latest {
    container: Container,
    tags: Vec<LatestTag>,
}

/// A tag that was set lately, for one architecture.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LatestTag {
    name: String,
    arch: String,
    image_type: &'static str,
    manifest_type: &'static str,
}

/// A container with the tags that were set last.
pub fn latest(latest: &service::Latest) -> Latest {
    let tag = |tag: &rows::Tag| {
        let one = |arch: &str, kind| LatestTag {
            name: tag.name.to_string(),
            arch: arch.to_owned(),
            image_type: kind,
            manifest_type: kind,
        };
        if tag.images.is_empty() {
            return vec![one(DEFAULT_ARCH, "oci")];
        }
        tag.images.keys().map(|arch| one(arch, "singularity")).collect::<Vec<_>>()
    };
    Latest { container: container(&latest.container, &[]), tags: latest.tags.iter().flat_map(tag).collect() }
}

/// A repository, which may have a path that is no library container's.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    name: String,
    id: String,
    description: String,
    /// In Markdown.
    readme: String,
    custom_data: String,
    /// Where its sources are.
    vcs_url: String,
    #[schema(value_type = String)]
    visibility: Visibility,
    read_only: bool,
    /// How many users have starred it.
    stars: u64,
    /// How often images of it were downloaded.
    downloads: u64,
    created_by: String,
    #[schema(format = DateTime)]
    created: String,
}

/// A repository.
pub fn repository(view: &RepositoryView) -> Repository {
    let RepositoryView { container: row, about, stars, downloads } = view;
    let Texts { custom_data, full_description, vcs_url } = texts(about.as_ref());
    Repository {
        name: row.repository.to_string(),
        id: row.id.to_string(),
        description: row.description.to_string(),
        readme: full_description,
        custom_data,
        vcs_url,
        visibility: row.visibility,
        read_only: row.read_only,
        stars: *stars,
        downloads: *downloads,
        created_by: row.created_by.as_ref().map(ToString::to_string).unwrap_or_default(),
        created: row.created.to_string(),
    }
}

/// A container with its tags and the bytes of what is in it.
pub fn used_container(used: &UsedContainer) -> Container {
    let (image_tags, arch_tags) = (tags_v1(&used.tags), tags_v2(&used.tags));
    Container { image_tags, arch_tags, size: used.bytes, used_quota: used.bytes, ..container(&used.container, &[]) }
}

/// The names of collection and container. A repository that is no library container uses its whole path as the name.
fn names(row: &rows::Container) -> (String, String) {
    row.repository.as_container().map_or_else(
        || (String::new(), row.repository.rest().to_owned()),
        |(collection, container)| (collection.to_string(), container.to_string()),
    )
}

/// An image.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    #[serde(flatten)]
    common: Common,
    id: String,
    hash: String,
    description: String,
    container: String,
    size: u64,
    uploaded: bool,
    signed: bool,
    arch: String,
    fingerprints: Vec<String>,
    encrypted: bool,
    entity: String,
    entity_name: String,
    collection: String,
    collection_name: String,
    container_name: String,
    tags: Vec<String>,
    container_description: String,
    container_stars: u64,
    container_downloads: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    /// Only with `?details`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// Everything that was read from an image: partitions, definition file, labels. An extension that no client knows.
#[derive(Debug, Serialize, ToSchema)]
pub struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    arch: Option<Arch>,
    #[schema(value_type = String)]
    kind: Kind,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    partitions: Vec<Partition>,
    /// Whether there is a signature. It may be invalid.
    #[serde(skip_serializing_if = "Not::not")]
    signed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fingerprints: Vec<String>,
    #[serde(skip_serializing_if = "Not::not")]
    encrypted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

/// One file system in an image.
#[derive(Debug, Serialize, ToSchema)]
struct Partition {
    #[schema(value_type = String)]
    fs: Filesystem,
    #[schema(value_type = String)]
    kind: PartitionKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    arch: Option<Arch>,
}

/// The metadata that was read from an image.
pub fn details(facts: SifFacts) -> Details {
    let SifFacts { arch, kind, partitions, signed, fingerprints, encrypted, definition, labels } = facts;
    let partition = |sif::Partition { fs, kind, arch }| Partition { fs, kind, arch };
    let partitions = partitions.into_iter().map(partition).collect();
    Details { arch, kind, partitions, signed, fingerprints, encrypted, definition, labels }
}

/// An image of a container.
pub fn image(container: &rows::Container, row: &rows::Image) -> Image {
    let content = row.content.as_ref();
    let (collection_name, container_name) = names(container);
    Image {
        common: common(row.created, row.created_by.as_ref()),
        id: row.id.to_string(),
        hash: row.hash.library(),
        description: row.description.to_string(),
        container: row.parents.container.to_string(),
        size: content.map_or(0, |content| content.size),
        uploaded: content.is_some(),
        signed: content.is_some_and(|content| content.signed),
        arch: content.map(|content| content.arch.clone()).unwrap_or_default(),
        fingerprints: content.map(|content| content.fingerprints.clone()).unwrap_or_default(),
        encrypted: content.is_some_and(|content| content.encrypted),
        entity: row.parents.entity.to_string(),
        entity_name: row.repository.entity().to_string(),
        collection: row.parents.collection.to_string(),
        collection_name,
        container_name,
        tags: row.tags.iter().map(ToString::to_string).collect(),
        container_description: container.description.to_string(),
        container_stars: 0,
        container_downloads: 0,
        labels: row.labels.clone(),
        details: None,
    }
}

/// The architecture under which the library lists what states none.
const DEFAULT_ARCH: &str = "amd64";

/// Tags for clients with architectures: architecture → tag → image. A tag of something that is no SIF image is listed
/// under the default architecture, with the digest of its manifest.
pub fn tags_v2(tags: &[rows::Tag]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut map: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for tag in tags {
        if tag.images.is_empty() {
            let other = map.entry(DEFAULT_ARCH.to_owned()).or_default();
            other.insert(tag.name.to_string(), tag.named.digest.to_string());
        }
        for (arch, image) in &tag.images {
            map.entry(arch.clone()).or_default().insert(tag.name.to_string(), image.id.to_string());
        }
    }
    map
}

/// Tags for clients without architectures: tag → the image set last. A tag of something that is no SIF image is listed
/// with the digest of its manifest.
pub fn tags_v1(tags: &[rows::Tag]) -> BTreeMap<String, String> {
    let last = |tag: &rows::Tag| tag.images.get(&tag.last).or_else(|| tag.images.values().next()).map(|image| image.id);
    let target = |tag: &rows::Tag| last(tag).map_or_else(|| tag.named.digest.to_string(), |id| id.to_string());
    tags.iter().map(|tag| (tag.name.to_string(), target(tag))).collect()
}

/// The results of a search.
#[derive(Debug, Serialize, ToSchema)]
pub struct Found {
    entity: Vec<Entity>,
    collection: Vec<Collection>,
    container: Vec<Container>,
    image: Vec<Image>,
    /// Whether there are more results, or may be; left out if there are none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

/// The results of a search.
pub fn results(found: &Results) -> Found {
    Found {
        entity: found.entities.iter().map(new_entity).collect(),
        collection: found.collections.iter().map(collection).collect(),
        container: found.containers.iter().map(|(row, images)| container(row, images)).collect(),
        image: found.images.iter().map(|(row, one)| image(row, one)).collect(),
        more: found.more,
    }
}
