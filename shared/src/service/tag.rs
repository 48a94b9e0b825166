//! Tags, as the library protocol sets and lists them.

use super::FEW_SHOWN;
use super::access::{Access, resource_at};
use super::retry::Retry;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::tags::{self, Pointing};
use crate::domain::{Id, TagName};
use crate::error::Error;
use crate::random;
use crate::rules::{Action, Place, Resource};
use crate::store::keys;
use crate::store::rows::{Container, Image, Intent, Tag, Target};
use crate::store::table::Written;

const DOING: &str = "set this tag";

/// The first `most` tags of the container with the id `container`.
pub async fn list(app: &App, credential: &Credential, container: Id, most: usize) -> Result<Vec<Tag>, Error> {
    let mut access = Access::load(app, credential, None, [keys::pointer(container)]).await?;
    let Some(Target::Container(repository)) = access.target(container)? else {
        return Err(Error::NotFound("container"));
    };
    let key = keys::container(&repository);
    access.load_more(app, repository.entity(), [key.clone()]).await?;
    let resource = resource_at(&repository, access.take::<Container>(&key)?.as_ref());
    access.require(Action::See, &resource, "container", "see this container")?;
    let _turn = if most > FEW_SHOWN { Some(app.long_read().await?) } else { None };
    Ok(app.table.query(keys::tags(&repository), None, most).await?.rows)
}

/// A tag that is to point to an image.
#[derive(Debug)]
pub struct SetTag<'a> {
    /// The image.
    pub image: Id,
    /// The tag's name.
    pub name: &'a TagName,
    /// The architecture, if the client knows it.
    pub arch: Option<&'a str>,
}

/// Points a tag of a container at an image, for the image's architecture.
///
/// 1. Read both ids; then container, image and tag.
/// 2. In one transaction, conditional on the tag's version: write the tag's row, and record the tag in the rows of the
///    new and the old image. So at every moment a tag names a complete image. *Lost*: start again. *The image's bytes
///    are still being verified*: the tag is remembered in the image's row, and set by the commit.
///
/// Returns the tag, unless it is only remembered.
pub async fn set(app: &App, credential: &Credential, container: Id, new: SetTag<'_>) -> Result<Option<Tag>, Error> {
    let SetTag { image, name, arch } = new;
    arch.map(tags::check_arch).transpose()?;
    let mut retry = Retry::of("pushes to the same tag");
    loop {
        retry.pause().await?;
        let ids = [keys::pointer(container), keys::pointer(image)];
        let mut access = Access::load(app, credential, None, ids).await?;
        let Some(Target::Container(repository)) = access.target(container)? else {
            return Err(access.points_nowhere("container", DOING));
        };
        let hash = match access.target(image)? {
            Some(Target::Image(of, hash)) if of == repository => Some(hash),
            _ => None,
        };
        let (container_key, tag_key) = (keys::container(&repository), keys::tag(&repository, name));
        let image_key = hash.map(|hash| keys::image(&repository, &hash));
        let wanted = [container_key.clone(), tag_key.clone()].into_iter().chain(image_key.clone());
        access.load_more(app, repository.entity(), wanted).await?;
        let container: Option<Container> = access.take(&container_key)?;
        let tag: Option<Tag> = access.take(&tag_key)?;
        let resource = container.as_ref().map_or_else(
            || Resource::Missing(Place::Repository(repository.clone())),
            |container| Resource::Tag {
                repository: repository.clone(),
                read_only: container.read_only,
                frozen: tag.as_ref().is_some_and(|tag| tag.frozen),
            },
        );
        let grant = access.require(Action::Retag, &resource, "container", DOING)?;
        let found = image_key.map(|key| access.take::<Image>(&key)).transpose()?.flatten();
        let found = found.ok_or(Error::NotFound("image"))?;
        let changes = match (&found.content, found.sealed) {
            (Some(content), _) => tags::point(
                tag,
                Pointing { name, arch, image: &found, content, first_version: random::number()?, now: app.now() },
            )?,
            (None, Some(_)) => {
                tags::intend(tag.as_ref(), &found, Intent { tag: name.clone(), arch: arch.map(str::to_owned) })?
            }
            (None, None) => {
                return Err(Error::Conflict("the image can't be tagged before its bytes have arrived".to_owned()));
            }
        };
        if app.commit(&grant, changes).await? == Written::Done {
            return Ok(app.table.get(tag_key).await?);
        }
    }
}
