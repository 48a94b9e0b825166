//! The shares of a repository, for their makers and for whoever manages it.

use crate::app::App;
use crate::auth::Credential;
use crate::changes::shares;
use crate::domain::{Repository, ShareId};
use crate::error::{Error, NO_TOKEN};
use crate::rules::{Action, Grant};
use crate::service::access::{Access, resource_at};
use crate::store::keys;
use crate::store::rows::{Container, Share, ShareListed};
use crate::store::table::{Page, Written};

/// How many shares a page has at most: one batch.
const PAGE: usize = 100;

/// A share in a list.
#[derive(Debug)]
pub struct ListedShare {
    /// Its row.
    pub share: Share,
    /// Whether its time or its uses are over.
    pub over: bool,
}

/// The caller's shares of a repository, or all of them for whoever manages it, page by page.
pub async fn list(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    after: Option<String>,
) -> Result<Page<ListedShare>, Error> {
    let key = keys::container(repository);
    let mut access = Access::load(app, credential, Some(repository.entity()), [key.clone()]).await?;
    let container: Option<Container> = access.take(&key)?;
    let resource = resource_at(repository, container.as_ref());
    if access.caller.known().is_none() {
        return Err(Error::Unauthenticated(NO_TOKEN));
    }
    access.require(Action::See, &resource, "repository", "list the shares of this repository")?;
    let all = access.probe(Action::Manage, &resource).is_ok();
    if !all && access.probe(Action::Share, &resource).is_err() {
        // They have none, and do not learn how many others have.
        return Ok(Page { rows: Vec::new(), next: None });
    }
    let listed: Page<ShareListed> = app.table.query(keys::shares(repository), after, PAGE).await?;
    let shown = listed.rows.iter().filter(|row| all || access.caller.is(&row.by));
    let shown: Vec<_> = shown.map(|row| keys::share(row.share)).collect();
    let mut rows = app.table.batch(shown.iter().cloned()).await?;
    let now = app.now();
    let mut page = Page { rows: Vec::new(), next: listed.next };
    for key in shown {
        if let Some(share) = rows.take::<Share>(&key)? {
            let over = share.expires <= now || share.max.is_some_and(|max| share.uses >= max);
            page.rows.push(ListedShare { share, over });
        }
    }
    Ok(page)
}

/// Revokes a share at once. URLs of the bytes that it gave away before live on for up to an hour.
///
/// Its maker may, and whoever manages the repository. To everybody else it is not there.
pub async fn revoke(app: &App, credential: &Credential, id: ShareId) -> Result<(), Error> {
    if credential.actor().is_none() {
        return Err(Error::Unauthenticated(NO_TOKEN));
    }
    let share: Option<Share> = app.table.get(keys::share(id)).await?;
    let Some(share) = share else {
        // The second round too, so that it answers as one that is hidden.
        Access::load(app, credential, None, []).await?;
        return Err(Error::NotFound("share"));
    };
    let grant = may_revoke(app, credential, &share).await?;
    match app.commit(&grant, shares::revoked(&share)).await? {
        Written::Done => Ok(()),
        Written::Lost(_) => Err(Error::NotFound("share")),
    }
}

async fn may_revoke(app: &App, credential: &Credential, share: &Share) -> Result<Grant, Error> {
    let key = keys::container(&share.repository);
    let mut access = Access::load(app, credential, Some(share.repository.entity()), [key.clone()]).await?;
    let container: Option<Container> = access.take(&key)?;
    let resource = resource_at(&share.repository, container.as_ref());
    // What they made, they may end, as long as they could make it.
    let own = access.caller.is(&share.by) && access.probe(Action::Manage, &resource).is_err();
    let action = if own { Action::Share } else { Action::Manage };
    access.decide(action, &resource).map_err(|_| Error::NotFound("share"))
}
