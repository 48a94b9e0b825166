//! Changing an image that is there: its description, and the set of its tags.
//!
//! 1. Read the container and the row that the reference names; then the image; then the tags that are concerned.
//! 2. In one transaction, each conditional on its version: write the image and these tags. *Lost*: start again.
//!
//! A tag has a copy of what its image says, so a description is written into each of them. More tags than one
//! transaction holds are refused.

use super::access::{Access, resource_at};
use super::pull::Way;
use super::retry::Retry;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::tags::{self, Drawn, ExactTags};
use crate::domain::reference::LibraryRef;
use crate::domain::{Description, TagName};
use crate::error::Error;
use crate::random;
use crate::rules::{Action, Grant, Resource};
use crate::store::keys;
use crate::store::rows::{Container, Image, Tag};
use crate::store::table::Written;
use std::collections::{BTreeMap, BTreeSet};

/// The most tags of an image whose description changes.
const MAX_DESCRIBED: usize = 90;
/// The most tags that an image can be given, or lose, at once.
const MAX_SET: usize = 20;

/// An image by its name.
#[derive(Debug, Clone, Copy)]
pub struct NamedImage<'a> {
    /// Its container, with a tag or a hash.
    pub reference: &'a LibraryRef,
    /// Its architecture, if the caller named one.
    pub arch: Option<&'a str>,
}

/// An image with its container, and what the caller may do there.
struct Loaded {
    access: Access,
    grant: Grant,
    container: Container,
    image: Image,
}

impl Loaded {
    /// Loads it for a caller who may do `action` to what `resource` makes of the container.
    async fn of(
        app: &App,
        credential: &Credential,
        named: NamedImage<'_>,
        action: Action,
        doing: &str,
    ) -> Result<Self, Error> {
        let repository = &named.reference.repository;
        let way = Way::of(named.reference);
        let mut access = way.load(app, credential).await?;
        let container = way.container(&mut access)?;
        let resource = match &container {
            Some(container) if action == Action::Retag => {
                Resource::Tag { repository: repository.clone(), read_only: container.read_only, frozen: false }
            }
            container => resource_at(repository, container.as_ref()),
        };
        let grant = access.require(action, &resource, "image", doing)?;
        let container = container.ok_or(Error::NotFound("image"))?;
        let hash = way.end(&mut access, named.arch)?.hash.ok_or(Error::NotFound("image"))?;
        let image: Option<Image> = app.table.get(keys::image(repository, &hash)).await?;
        let image = image.filter(|image| image.content.is_some()).ok_or(Error::NotFound("image"))?;
        Ok(Self { access, grant, container, image })
    }

    /// The rows of tags of its container, as far as they are there.
    async fn tags(&self, app: &App, names: &BTreeSet<TagName>) -> Result<BTreeMap<TagName, Tag>, Error> {
        let key = |name: &TagName| keys::tag(&self.container.repository, name);
        let mut rows = app.table.batch(names.iter().map(key)).await?;
        let mut tags = BTreeMap::new();
        for name in names {
            tags.extend(rows.take::<Tag>(&key(name))?.map(|tag| (name.clone(), tag)));
        }
        Ok(tags)
    }
}

/// Changes the description of an image, for whoever manages its container.
pub async fn describe(
    app: &App,
    credential: &Credential,
    named: NamedImage<'_>,
    description: Option<Description>,
) -> Result<(Container, Image), Error> {
    let mut retry = Retry::of("changes of the same image");
    loop {
        retry.pause().await?;
        let loaded = Loaded::of(app, credential, named, Action::Manage, "change this image").await?;
        let (container, image) = (&loaded.container, &loaded.image);
        let Some(description) = description.clone().filter(|text| *text != image.description) else {
            return Ok((container.clone(), image.clone()));
        };
        if image.tags.len() > MAX_DESCRIBED {
            let why = format!("an image with more than {MAX_DESCRIBED} tags can't be described anew");
            return Err(Error::Conflict(why));
        }
        let tags = loaded.tags(app, &image.tags).await?;
        let described = Image { description, version: image.version + 1, ..image.clone() };
        let changes = tags::described(&described, tags.into_values())?;
        if app.commit(&loaded.grant, changes).await? == Written::Done {
            return Ok((loaded.container, described));
        }
    }
}

/// Gives an image exactly these tags. A tag that leads to another image is moved, and one that the image had and that is
/// not among them is taken from it.
///
/// Returns the tags that it then has.
pub async fn set_tags(
    app: &App,
    credential: &Credential,
    named: NamedImage<'_>,
    wanted: BTreeSet<TagName>,
) -> Result<BTreeSet<TagName>, Error> {
    let doing = "set the tags of this image";
    let mut retry = Retry::of("changes of the same image");
    loop {
        retry.pause().await?;
        let loaded = Loaded::of(app, credential, named, Action::Retag, doing).await?;
        let (container, image) = (&loaded.container, &loaded.image);
        let concerned: BTreeSet<TagName> = image.tags.symmetric_difference(&wanted).cloned().collect();
        if concerned.is_empty() {
            return Ok(wanted);
        }
        if concerned.len() > MAX_SET {
            return Err(Error::Invalid(format!("at most {MAX_SET} tags can be set and taken away at once")));
        }
        let rows = loaded.tags(app, &concerned).await?;
        for (name, tag) in &rows {
            let repository = container.repository.clone();
            let (read_only, frozen) = (container.read_only, tag.frozen);
            let resource = Resource::Tag { repository: repository.clone(), read_only, frozen };
            loaded.access.require(Action::Retag, &resource, "image", doing)?;
            if !wanted.contains(name) {
                let own = image.created_by.as_ref().is_some_and(|by| loaded.access.caller.is(by));
                let resource = Resource::Image { repository, read_only, own, frozen };
                loaded.access.require(Action::Delete, &resource, "image", "take a tag from this image")?;
            }
        }
        let drawn = Drawn { now: app.now(), first_version: random::number()? };
        let changes = tags::exactly(ExactTags { image, rows, wanted: &wanted }, drawn)?;
        if !changes.have_room_for(0) {
            return Err(Error::Invalid("these tags are too many to be set and taken away at once".to_owned()));
        }
        if app.commit(&loaded.grant, changes).await? == Written::Done {
            return Ok(wanted);
        }
    }
}
