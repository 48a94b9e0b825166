//! Tags: one row, architecture → image.

use super::access::Scene;
use super::commit::TRIES;
use super::create::{missing, target};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::{Id, TagName};
use crate::error::Error;
use crate::rules::{Action, Place, Resource};
use crate::store::rows::{Container, Image, Row, Tag, Tagged, Target};
use crate::store::table::{Condition, Write, pause};
use crate::store::{StoreError, keys};

const DOING: &str = "set this tag";

/// The tags of the container with the id `container`.
pub async fn list(app: &App, credential: &Credential, container: Id) -> Result<Vec<Tag>, Error> {
    let mut scene = Scene::load(app, credential, None, [keys::pointer(container)]).await?;
    let Some(Target::Container(repository)) = target(&mut scene, container)? else {
        return Err(Error::NotFound("container"));
    };
    let key = keys::container(&repository);
    scene.look(app, repository.entity(), [key.clone()]).await?;
    let resource = scene
        .take::<Container>(&key)?
        .as_ref()
        .map_or_else(|| Resource::Missing(Place::Repository(repository.clone())), super::create::resource_of);
    scene.decide(Action::See, &resource).map_err(|denial| Error::denied(denial, "container", "see this container"))?;
    Ok(app.table.query_all(keys::tags(&repository)).await?)
}

/// Points a tag at an image, for the image's architecture. `arch` is what the client believes that to be.
///
/// 1. Read both ids; then container, image and tag.
/// 2. In one transaction, conditional on the tag's version: the tag's row, and the tag in the row of the new and of the
///    old image. Somebody faster: read again. So a tag names a whole image at every moment.
pub async fn set(
    app: &App,
    credential: &Credential,
    container: Id,
    image: Id,
    name: &TagName,
    arch: Option<&str>,
) -> Result<(), Error> {
    for attempt in 0..TRIES {
        pause(attempt).await;
        let ids = [keys::pointer(container), keys::pointer(image)];
        let mut scene = Scene::load(app, credential, None, ids).await?;
        let Some(Target::Container(repository)) = target(&mut scene, container)? else {
            return Err(missing(&scene, DOING, "container"));
        };
        let hash = match target(&mut scene, image)? {
            Some(Target::Image(of, hash)) if of == repository => Some(hash),
            _ => None,
        };
        let (container_key, tag_key) = (keys::container(&repository), keys::tag(&repository, name));
        let image_key = hash.map(|hash| keys::image(&repository, &hash));
        let wanted = [container_key.clone(), tag_key.clone()].into_iter().chain(image_key.clone());
        scene.look(app, repository.entity(), wanted).await?;
        let container: Option<Container> = scene.take(&container_key)?;
        let tag: Option<Tag> = scene.take(&tag_key)?;
        let resource = container.as_ref().map_or_else(
            || Resource::Missing(Place::Repository(repository.clone())),
            |container| Resource::Tag {
                repository: repository.clone(),
                read_only: container.read_only,
                frozen: tag.as_ref().is_some_and(|tag| tag.frozen),
            },
        );
        let grant = scene.decide(Action::Retag, &resource);
        let grant = grant.map_err(|denial| Error::denied(denial, "container", DOING))?;
        let found = image_key.map(|key| scene.take::<Image>(&key)).transpose()?.flatten();
        let found = found.ok_or(Error::NotFound("image"))?;
        let Some(content) = found.content.clone() else {
            return Err(Error::Conflict("the image's bytes have not arrived, it can't be tagged".to_owned()));
        };
        let arch = match (content.arch.as_str(), arch) {
            ("", Some(arch)) => arch.to_owned(),
            (own, Some(arch)) if own != arch => {
                return Err(Error::Invalid(format!("the image is for `{own}`, it can't be tagged for `{arch}`")));
            }
            (own, _) => own.to_owned(),
        };
        let tagged = Tagged {
            id: found.id,
            hash: found.hash,
            description: found.description.clone(),
            created_by: found.created_by.clone(),
            created: found.created,
            content,
        };
        match point(app, &grant, tag, (name, &arch), tagged, &found).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Unavailable(StoreError::Unavailable("too many pushes to the same tag at once".to_owned())))
}

async fn point(
    app: &App,
    grant: &crate::rules::Grant,
    tag: Option<Tag>,
    (name, arch): (&TagName, &str),
    tagged: Tagged,
    image: &Image,
) -> Result<(), StoreError> {
    let condition = tag.as_ref().map_or(Condition::Absent, |tag| Condition::Version(tag.version));
    let mut tag = tag.unwrap_or_else(|| Tag {
        repository: image.repository.clone(),
        name: name.clone(),
        images: [].into(),
        frozen: false,
        updated: app.now(),
        last: String::new(),
        version: 0,
    });
    tag.updated = app.now();
    arch.clone_into(&mut tag.last);
    tag.version += 1;
    let old = tag.images.insert(arch.to_owned(), tagged);
    let mut writes = vec![Write::put(&tag, condition)?, Write::tagged(image.key(), name)];
    if let Some(old) = old.filter(|old| old.hash != image.hash) {
        // The same image may stand under the tag for another architecture only if it says nothing of its own.
        if !tag.images.values().any(|other| other.hash == old.hash) {
            writes.push(Write::untagged(keys::image(&image.repository, &old.hash), name));
        }
    }
    app.table.write(grant, writes).await
}
