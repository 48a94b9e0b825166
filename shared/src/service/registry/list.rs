//! The lists of the registry: tags, repositories, and the referrers of a manifest.

use super::{Code, Refused, RepositoryAccess};
use crate::app::App;
use crate::auth::Credential;
use crate::domain::{EntityName, OciDigest, Repository};
use crate::error::Error;
use crate::service::access::{Access, memberships};
use crate::service::parts::Listable;
use crate::store::keys;
use crate::store::rows::{Membership, Referrer, Tag};
use crate::store::table::Page;

/// The most entries of a page.
pub const LONGEST_PAGE: usize = 1000;

/// Up to this many entries, a page needs no turn of its own.
const SHORT: usize = 100;

/// Some entries of a list, and the last of them if there are more.
#[derive(Debug)]
pub struct Listed<T> {
    /// The entries, in byte order.
    pub entries: Vec<T>,
    /// The entry after which the next page starts; `None` at the end.
    pub next: Option<String>,
}

/// The tags of a repository after `last`, at most `most`.
pub async fn tags(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    last: Option<String>,
    most: usize,
) -> Result<Listed<String>, Refused> {
    let found = RepositoryAccess::to_read(app, credential, repository, []).await?;
    found.may_pull(Code::NameUnknown, "repository")?;
    if most == 0 {
        return Ok(Listed { entries: Vec::new(), next: None });
    }
    let _turn = if most > SHORT { Some(app.long_read().await?) } else { None };
    let page: Page<Tag> = app.table.query(keys::tags(repository), last, most.min(LONGEST_PAGE)).await?;
    let entries: Vec<String> = page.rows.iter().map(|tag| tag.name.to_string()).collect();
    let next = page.next.and_then(|_| entries.last().cloned());
    Ok(Listed { entries, next })
}

/// The referrers of a manifest.
#[derive(Debug)]
pub struct Referring<'a> {
    /// The manifest.
    pub subject: &'a OciDigest,
    /// Only those of this artifact type.
    pub artifact_type: Option<&'a str>,
    /// Only those after this digest.
    pub last: Option<String>,
}

/// The descriptors (JSON documents) of the referrers of a manifest, which itself need not exist.
pub async fn referrers(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    referring: Referring<'_>,
) -> Result<Listed<String>, Refused> {
    let Referring { subject, artifact_type, last } = referring;
    let found = RepositoryAccess::to_read(app, credential, repository, []).await?;
    match found.may_pull(Code::NameUnknown, "repository") {
        // Callers who could read a repository if it existed get an empty list.
        Err(Refused::Code(Code::NameUnknown, _)) => return Ok(Listed { entries: Vec::new(), next: None }),
        seen => seen?,
    }
    let after = last.and_then(|last| last.parse::<OciDigest>().ok()).map(|last| last.in_key());
    // A page has at most as many bytes as a manifest may have.
    let page: Page<Referrer> = app.table.query(keys::referrers(repository, subject), after, 200).await?;
    let next = page.next.and_then(|_| page.rows.last().map(|row| row.digest.to_string()));
    let wanted = |row: &Referrer| artifact_type.is_none_or(|wanted| row.artifact_type == wanted);
    let entries = page.rows.into_iter().filter(wanted).map(|row| row.descriptor).collect();
    Ok(Listed { entries, next })
}

/// The repositories after `last`, at most `most`, of the entities in which the caller has a role.
pub async fn catalog(
    app: &App,
    credential: &Credential,
    last: Option<String>,
    most: usize,
) -> Result<Listed<String>, Refused> {
    let last = last.map(|last| last.to_ascii_lowercase());
    let after = last.as_deref().and_then(|last| last.split_once('/'));
    let after = after.and_then(|(entity, rest)| Some((entity.parse::<EntityName>().ok()?, rest.to_owned())));
    // What is left of the entity where the last page ended comes first, if the caller still has a role there.
    let begun = credential.actor().zip(after.as_ref()).map(|(actor, (entity, _))| keys::membership(actor, entity));
    let (access, members) = futures::join!(
        Access::load(app, credential, None, begun.clone()),
        memberships(app, credential, after.as_ref().map(|(entity, _)| entity.to_string()))
    );
    let (mut access, mut page) = (access?, members?);
    if access.caller.known().is_none() {
        return Err(Error::Unauthenticated(crate::error::NO_TOKEN).into());
    }
    let most = most.min(LONGEST_PAGE);
    let _turn = if most > SHORT { Some(app.long_read().await?) } else { None };
    let mut entries = Vec::new();
    let begun: Option<Membership> = begun.map(|key| access.take(&key)).transpose()?.flatten();
    page.rows.splice(0..0, begun);
    loop {
        for member in &page.rows {
            let listable = Listable::of(&access, member);
            let wanted = (most + 1).saturating_sub(entries.len());
            if wanted == 0 {
                break;
            }
            let rest = after.as_ref().filter(|(entity, _)| *entity == member.entity).map(|(_, rest)| rest.as_str());
            let some = listable.containers(app, &member.entity, rest, wanted).await?;
            entries.extend(some.iter().map(|row| row.repository.to_string()));
        }
        match page.next {
            Some(after) if entries.len() <= most => page = memberships(app, credential, Some(after)).await?,
            _ => break,
        }
    }
    let more = entries.len() > most;
    entries.truncate(most);
    let next = if more { entries.last().cloned() } else { None };
    Ok(Listed { entries, next })
}
