//! Deleting an image: it, its tags, its link, and what its entity paid for it, at once.
//!
//! 1. Read the tag or image row; then the image, all tags and manifests of the container, charge, account and blob.
//! 2. If more tags or manifests name the image than fit into one transaction, take them off first, a batch at a time.
//! 3. In one transaction, each row conditional on what was read: the tags, the image, its id, details and manifest go.
//!    Unless another manifest names the bytes, the link goes too: the charge counts a link less, and refunds with the
//!    last one; the blob counts an entity less, and with the last one goes and leaves its object condemned.
//!    The manifests that registry clients pushed of the image go with it, and what long ones cost.
//!    The repository's epoch must be the one that was read, or something may have come to name the bytes since.
//! 4. If a condition failed, begin again.

use super::access::Scene;
use super::commit::{named_sif, renamed, unbind, unchanged};
use super::retry::{Retry, Try};
use super::tag::{groups, without};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::reference::LibraryRef;
use crate::domain::{Digest, OciDigest, Selector};
use crate::error::Error;
use crate::rules::{Action, Denial, Place, Resource};
use crate::store::rows::{Account, Container, Image, Link, Naming, Row, Tag};
use crate::store::table::{Condition, Write, Written};
use crate::store::{StoreError, keys};

const DOING: &str = "delete this image";
/// Manifests that go in one transaction with the rest.
const MANIFESTS: usize = 12;

/// Deletes the image that a reference names, with all its tags of its architecture in that container.
pub async fn image(
    app: &App,
    credential: &Credential,
    reference: &LibraryRef,
    arch: Option<&str>,
) -> Result<(), Error> {
    let mut retry = Retry::of("changes of the same image");
    loop {
        retry.pause().await?;
        if let Try::Done(()) = Box::pin(once(app, credential, reference, arch)).await? {
            return Ok(());
        }
    }
}

async fn once(
    app: &App,
    credential: &Credential,
    reference: &LibraryRef,
    arch: Option<&str>,
) -> Result<Try<()>, Error> {
    let LibraryRef { repository, selector } = reference;
    let container_key = keys::container(repository);
    let tag_key = match selector {
        Selector::Tag(tag) => Some(keys::tag(repository, tag)),
        Selector::Hash(_) => None,
    };
    let wanted = [container_key.clone()].into_iter().chain(tag_key.clone());
    let mut scene = Scene::load(app, credential, Some(repository.entity()), wanted).await?;
    let container: Option<Container> = scene.take(&container_key)?;
    let hash = match (selector, tag_key) {
        (Selector::Hash(hash), _) => Some(*hash),
        (Selector::Tag(_), Some(key)) => {
            scene.take::<Tag>(&key)?.and_then(|tag| super::pull::choose(tag, arch)).map(|tagged| tagged.hash)
        }
        (Selector::Tag(_), None) => None,
    };
    // Who could delete nothing there is refused before more is read, whether it is there or not.
    let denial = scene.decide(Action::Delete, &Resource::Missing(Place::Repository(repository.clone()))).err();
    let (Some(container), Some(hash), Some(Denial::Hidden)) = (container, hash, denial) else {
        return Err(denial.map_or(Error::NotFound("image"), |denial| Error::denied(denial, "image", DOING)));
    };
    let entity = repository.entity();
    let (image_key, charge_key) = (keys::image(repository, &hash), keys::charge(entity, &hash));
    let (account_key, blob_key) = (keys::account(entity), keys::blob(&hash));
    let link_key = keys::link(repository, &hash.into());
    let wanted = [&image_key, &charge_key, &account_key, &blob_key, &link_key].map(Clone::clone);
    let (mut rows, tags, manifests) = futures::try_join!(
        app.table.batch(wanted),
        app.table.query_all::<Tag>(keys::tags(repository)),
        super::registry::manifest::manifests(app, repository),
    )?;
    let mut tags: Vec<Tag> = tags.into_iter().filter(|tag| tag.images.values().any(|one| one.hash == hash)).collect();
    // The tag that is asked for goes last, so that it leads here again if not all can go at once.
    tags.sort_by_key(|tag| matches!(selector, Selector::Tag(name) if *name == tag.name));
    let image: Option<Image> = rows.take(&image_key)?;
    let resource = image.as_ref().map_or_else(
        || Resource::Missing(Place::Repository(repository.clone())),
        |image| Resource::Image {
            repository: repository.clone(),
            read_only: container.read_only,
            own: image.created_by.is_some() && image.created_by.as_ref() == scene.caller.user(),
            frozen: tags.iter().any(|tag| tag.frozen),
        },
    );
    let grant = scene.decide(Action::Delete, &resource).map_err(|denial| Error::denied(denial, "image", DOING))?;
    let image = image.ok_or(Error::NotFound("image"))?;
    let mut groups = groups(&tags);
    let tags = groups.pop().unwrap_or_default();
    for some in &groups {
        let mut writes = all_without(app, some, &hash)?;
        writes.push(Write::untagged(image.key(), some.iter().map(|tag| &tag.name)));
        let _ = app.table.write(&grant, writes).await?;
    }
    if !groups.is_empty() {
        return Ok(Try::Lost);
    }
    let account: Account = rows.take(&account_key)?.ok_or(Error::NotFound("entity"))?;
    let mut writes = all_without(app, tags, &hash)?;
    writes.push(Write::delete(image.key(), Condition::Version(image.version)));
    writes.push(Write::delete(keys::pointer(image.id), Condition::None));
    writes.push(renamed(repository, unchanged(&container)));
    let mut freed: Vec<OciDigest> = Vec::new();
    if let Some(content) = &image.content {
        let (_, own) = named_sif(repository, &hash, content.size);
        writes.push(Write::delete(keys::details(repository, &hash), Condition::None));
        writes.push(Write::delete(keys::manifest(repository, &own.digest), Condition::None));
        // Those that registry clients pushed of it go too: they are the same image by other words.
        let of_it = |other: &&Naming| other.digest == own.digest || other.image == Some(hash);
        let pushed = manifests.iter().filter(of_it).filter(|pushed| pushed.digest != own.digest);
        let mut pushed: Vec<&Naming> = pushed.collect();
        pushed.sort_by_key(|pushed| tags.iter().any(|tag| tag.named.digest == pushed.digest));
        if let Some((first, _)) = pushed.split_last_chunk::<MANIFESTS>().filter(|(first, _)| !first.is_empty()) {
            // More than one transaction can hold, and what a tag names goes with that.
            let mut container = container;
            for some in first.chunks(MANIFESTS) {
                let mut writes = vec![renamed(repository, unchanged(&container))];
                container.epoch += 1;
                for pushed in some {
                    writes.extend(super::registry::manifest::gone(app, pushed)?);
                }
                if app.table.write(&grant, Write::once(writes)).await? != Written::Done {
                    return Ok(Try::Lost);
                }
            }
            let names: Vec<OciDigest> = first.iter().flat_map(|pushed| &pushed.names).copied().collect();
            super::registry::blob::free(app, &grant, repository, &names, app.now()).await?;
            return Ok(Try::Lost);
        }
        for pushed in pushed {
            writes.extend(super::registry::manifest::gone(app, pushed)?);
            freed.extend(pushed.names.iter().filter(|name| **name != hash.into()));
        }
        let others = manifests.iter().any(|other| !of_it(&other) && other.names.contains(&hash.into()));
        if !others && let Some(link) = rows.take::<Link>(&link_key)? {
            unbind(app, &mut writes, &link, (&account, rows.take(&charge_key)?, rows.take(&blob_key)?))?;
        }
    }
    let written = app.table.write(&grant, Write::once(writes)).await?;
    if written == Written::Done && !freed.is_empty() {
        super::registry::blob::free(app, &grant, repository, &freed, app.now()).await?;
    }
    Ok(Try::of(&written, ()))
}

/// The writes that take an image off some tags. Two of them may leave the same index behind.
fn all_without(app: &App, tags: &[Tag], hash: &Digest) -> Result<Vec<Write>, StoreError> {
    let writes = tags.iter().map(|tag| without(app, tag, hash)).collect::<Result<Vec<_>, _>>()?;
    Ok(Write::once(writes.into_iter().flatten().collect()))
}
