//! Using a share.
//!
//! 1. Read the share by the id in its URL. A wrong secret, a wrong file name and a share that is not there answer alike.
//!    With the right secret, one that ended, or has no use left, is over.
//! 2. Read its maker's account, token and role, the container and the image, in one batch. Decide, as the maker, whether
//!    they could still pull the image and share it. The rights are narrowed to that repository. If not, or if the image
//!    is not the one that was shared, the share is over.
//! 3. Whoever only looks (`HEAD`, the page for browsers) ends here.
//! 4. Look whether the bytes are there: lost ones cost no use.
//! 5. Count the use, on condition that there is one left, and that the share has not ended. Of many at once, as many win
//!    as there are uses. *Lost*: it is over. *Dies*: the use is spent.
//! 6. Answer with a URL of the bytes for an hour, or for what is left of the share and the token. It can't be revoked.

use super::artifact;
use crate::app::App;
use crate::auth::{Credential, secret};
use crate::changes::shares;
use crate::domain::{Door, Download, Right, ShareKey, TokenPlace, TokenScope};
use crate::error::Error;
use crate::rules::Action;
use crate::service::access::{Access, resource_of, system};
use crate::service::restore;
use crate::store::keys;
use crate::store::rows::{Container, Image, Link, Manifest, Share, Shared};
use crate::store::table::Written;
use crate::telemetry;
use std::time::Duration;

/// The message for whoever has the secret of a share that is over.
const OVER: Error = Error::Gone("this link is over: it has expired, was used up, or lost the rights of its maker");

/// A share that can be used now. Only [`find`] makes one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Usable {
    /// Its row.
    pub share: Share,
    container: Container,
    link: Link,
    /// How long a URL for the bytes may live.
    life: Duration,
}

/// Steps 1 and 2: finds the share with that key and file name, for whoever has its URL.
pub async fn find(app: &App, key: &ShareKey, file: &str) -> Result<Usable, Error> {
    let share: Option<Share> = app.table.get(keys::share(key.id)).await?;
    let right = |share: &Share| secret::is_kept(&key.secret, &share.secret) && share.file.as_str() == file;
    let share = share.filter(right).ok_or(Error::NotFound("link"))?;
    if share.expires <= app.now() || share.max.is_some_and(|max| share.uses >= max) {
        return Err(OVER);
    }
    // As the maker, and in the one repository only.
    let scope = TokenScope {
        rights: [Right::Pull, Right::Push].into(),
        place: TokenPlace::Repository(share.repository.clone()),
    };
    let maker = Credential::Registry { actor: share.by.clone(), id: share.token, password: None, access: vec![scope] };
    let container_key = keys::container(&share.repository);
    let (image_key, link_key) = (shares::image(&share), keys::link(&share.repository, &share.blob));
    let wanted = [container_key.clone(), image_key.clone(), link_key.clone()];
    let access = Access::of_maker(app, &maker, Some(share.repository.entity()), wanted).await;
    let mut access = match access {
        Err(Error::Unauthenticated(_)) => return Err(OVER),
        access => access?,
    };
    telemetry::caller("share");
    let container: Container = access.take(&container_key)?.ok_or(OVER)?;
    let resource = resource_of(&container);
    let may = |action| access.decide(action, &resource).is_ok();
    if container.id != share.container || !may(Action::Share) || !may(Action::Pull) {
        return Err(OVER);
    }
    let same = match &share.of {
        Shared::Image { id, .. } => {
            access.take::<Image>(&image_key)?.is_some_and(|image| image.id == *id && image.content.is_some())
        }
        Shared::Artifact { by, .. } => {
            access.take::<Manifest>(&image_key)?.is_some_and(|manifest| manifest.created_by == *by)
        }
    };
    let link: Option<Link> = access.take(&link_key)?;
    let link = link.filter(|_| same).ok_or(OVER)?;
    let ends = access.until.map_or(share.expires, |until| until.min(share.expires));
    let left = u64::try_from(ends.0.saturating_sub(app.now().0)).unwrap_or(0).max(1);
    let life = artifact::LONGEST.min(app.config.download_life).min(Duration::from_secs(left));
    Ok(Usable { share, container, link, life })
}

impl Usable {
    /// The host to which a use redirects, with scheme and port: the page for browsers must permit it.
    pub async fn origin(&self, app: &App) -> Result<String, Error> {
        let url = app.objects.presign_get(&self.link.object, None, Duration::from_secs(1)).await?;
        let host = url.split_once("://").map_or(0, |(scheme, _)| scheme.len() + 3);
        let end = url.get(host..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| host + at);
        Ok(url.get(..end).unwrap_or_default().to_owned())
    }
}

/// Steps 4 to 6: uses the share once, and returns a URL of its bytes.
pub async fn use_once(app: &App, found: &Usable) -> Result<String, Error> {
    let Usable { share, container, link, life } = found;
    if !restore::there(app, &link.object, link.size).await? {
        return Err(Error::Lost);
    }
    // Its holder may write nothing; that a use is counted is our own work.
    let grant = system(Action::Share, &resource_of(container))?;
    match app.commit(&grant, shares::used(share, app.now())).await? {
        Written::Done => {
            let url = app.objects.presign_get(&link.object, Some(share.file.as_str()), *life).await?;
            app.downloaded(Download {
                repository: share.repository.clone(),
                image: Some(shares::counted(share)),
                tag: None,
                door: Door::Share,
            });
            Ok(url)
        }
        Written::Lost(_) => Err(OVER),
    }
}
