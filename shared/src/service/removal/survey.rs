//! What is in something that is to be deleted.

use crate::app::App;
use crate::domain::{Digest, Repository, TagName};
use crate::error::Error;
use crate::store::keys;
use crate::store::rows::Container;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;

/// What is in a container, collection or entity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Collections.
    pub collections: u64,
    /// Containers, and other repositories.
    pub containers: u64,
    /// Images that were pushed to the library.
    pub images: u64,
    /// Manifests, those of library images among them.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Bytes of all blobs, each counted once.
    pub bytes: u64,
    /// A frozen tag, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<String>,
    /// A read-only container, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<Repository>,
}

impl Contents {
    /// Whether there is nothing in so many containers, which are to be deleted themselves.
    pub(super) fn is_empty(&self, itself: u64) -> bool {
        let Self { collections, containers, images, manifests, tags, bytes, .. } = *self;
        containers == itself && [collections, images, manifests, tags, bytes] == [0; 5]
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { collections, containers, images, manifests, tags, bytes, .. } = self;
        write!(
            f,
            "{collections} collections, {containers} containers, {images} images, {manifests} manifests, {tags} tags, \
             {bytes} bytes"
        )
    }
}

/// How many containers are read at a time. Thousands of them must not take longer than an API gateway waits.
const AT_A_TIME: usize = 32;

/// Reads what is in containers.
pub(super) async fn of(app: &App, containers: &[Container]) -> Result<Contents, Error> {
    let _turn = app.long_read().await?;
    let mut blobs: HashMap<Digest, u64> = HashMap::new();
    let mut contents = Contents { containers: containers.len() as u64, ..Contents::default() };
    for some in containers.chunks(AT_A_TIME) {
        for one in try_join_all(some.iter().map(|container| of_one(app, container))).await? {
            contents.images += one.contents.images;
            contents.manifests += one.contents.manifests;
            contents.tags += one.contents.tags;
            contents.frozen = contents.frozen.or(one.contents.frozen);
            contents.read_only = contents.read_only.or(one.contents.read_only);
            blobs.extend(one.blobs);
        }
    }
    contents.bytes = blobs.values().sum();
    Ok(contents)
}

/// What is in one container.
struct One {
    contents: Contents,
    blobs: HashMap<Digest, u64>,
}

async fn of_one(app: &App, container: &Container) -> Result<One, Error> {
    #[derive(Deserialize)]
    struct Named {
        name: TagName,
        frozen: bool,
    }
    #[derive(Deserialize)]
    struct Linked {
        digest: Digest,
        size: u64,
    }
    #[derive(Deserialize)]
    struct Any {}

    let repository = &container.repository;
    let (mut contents, mut blobs) = (Contents::default(), HashMap::new());
    contents.read_only = container.read_only.then(|| repository.clone());
    let table = &app.table;
    table
        .each(keys::tags(repository), &["name", "frozen"], |tag: Named| {
            contents.tags += 1;
            if tag.frozen && contents.frozen.is_none() {
                contents.frozen = Some(format!("{repository}:{}", tag.name));
            }
        })
        .await?;
    table.each(keys::images(repository), &["hash"], |_: Any| contents.images += 1).await?;
    table.each(keys::manifests(repository), &["digest"], |_: Any| contents.manifests += 1).await?;
    let add = |link: Linked| blobs.extend([(link.digest, link.size)]);
    table.each(keys::links(repository), &["digest", "size"], add).await?;
    Ok(One { contents, blobs })
}
