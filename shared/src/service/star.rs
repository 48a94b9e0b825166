//! Stars: users mark the repositories that they like, and find them in a list of their own.
//!
//! 1. Read where the id leads; then the container, the number of its stars, and the user's star.
//! 2. In one transaction: write or delete the star, and write the number, conditional on its version. So the number is
//!    that of the stars, however many come at once. *Lost*: start again. *The star is there already, or gone*: success.
//!
//! A container that is deleted takes its number along, and the stars stay in the lists of their users, where nobody sees
//! them: each has the id of its container.

use super::access::{Access, resource_at, resource_of};
use super::retry::Retry;
use crate::app::App;
use crate::auth::Credential;
use crate::changes::Changes;
use crate::changes::stars::{self, Starring};
use crate::domain::{Actor, EntityName, Id, UserName};
use crate::error::{Error, NO_TOKEN};
use crate::random;
use crate::rules::{Action, Place, Resource};
use crate::store::keys::{self, Key};
use crate::store::rows::{Container, Counts, Star, Target};
use crate::store::table::{Page, Written};
use std::collections::BTreeSet;

const DOING: &str = "star this container";
/// How many stars a page has at most. Each of them takes up to four rows.
const PAGE: usize = 50;

/// A user's own list of stars, and the container that it is about.
#[derive(Debug, Clone, Copy)]
pub struct OwnStar<'a> {
    /// The user.
    pub user: &'a UserName,
    /// The id of the container.
    pub container: Id,
}

/// Stars a container, for the caller.
pub async fn give(app: &App, credential: &Credential, own: OwnStar<'_>) -> Result<(), Error> {
    change(app, credential, own, |starring| stars::given(starring, app.now())).await
}

/// Takes the caller's star of a container back.
pub async fn take(app: &App, credential: &Credential, own: OwnStar<'_>) -> Result<(), Error> {
    change(app, credential, own, stars::taken).await
}

async fn change(
    app: &App,
    credential: &Credential,
    OwnStar { user, container: id }: OwnStar<'_>,
    change: impl Fn(&Starring<'_>) -> Result<Option<Changes>, Error>,
) -> Result<(), Error> {
    let mut retry = Retry::of("stars for the same container");
    loop {
        retry.pause().await?;
        let mut access = Access::load(app, credential, None, [keys::pointer(id)]).await?;
        match access.caller.known() {
            None => return Err(Error::Unauthenticated(NO_TOKEN)),
            Some(actor) if actor.user() == Some(user) => {}
            Some(_) => return Err(Error::Forbidden("not permitted to star in the name of somebody else".to_owned())),
        }
        let Some(Target::Container(repository)) = access.target(id)? else {
            let nowhere = access.require(Action::Star, &Resource::Missing(Place::Nowhere), "container", DOING);
            return Err(nowhere.err().unwrap_or(Error::NotFound("container")));
        };
        let (key, counts, star) =
            (keys::container(&repository), keys::counts(&repository), keys::star(user, &repository));
        access.load_more(app, repository.entity(), [key.clone(), counts.clone(), star.clone()]).await?;
        let container: Option<Container> = access.take(&key)?;
        let resource = resource_at(&repository, container.as_ref());
        let grant = access.require(Action::Star, &resource, "container", DOING)?;
        let container = container.ok_or(Error::NotFound("container"))?;
        let (counts, star) = (access.take(&counts)?, access.take(&star)?);
        let starring = Starring { user, container: &container, star, counts, first_version: random::number()? };
        let Some(changes) = change(&starring)? else { return Ok(()) };
        if app.commit(&grant, changes).await? == Written::Done {
            return Ok(());
        }
    }
}

/// A container that a user has starred.
#[derive(Debug)]
pub struct Starred {
    /// The container.
    pub container: Container,
    /// How many users have starred it.
    pub stars: u64,
}

/// The containers that a user has starred and the caller may see, page by page: the caller's own stars, or anybody's as
/// a site admin. A page may have fewer entries than stars, and still not be the last one.
pub async fn list(
    app: &App,
    credential: &Credential,
    user: &UserName,
    after: Option<String>,
) -> Result<Page<Starred>, Error> {
    let mut access = Access::load(app, credential, None, []).await?;
    let Some(caller) = access.caller.known().cloned() else { return Err(Error::Unauthenticated(NO_TOKEN)) };
    let doing = "list these stars";
    access.require(Action::See, &Resource::User(user.clone()), "user", doing)?;
    // They lie anywhere, so a token for a single place is not for them.
    access.require(Action::List, &Resource::Installation, "user", doing)?;
    let Page { rows: stars, next } = app.table.query::<Star>(keys::stars(user), after, PAGE).await?;
    let entities: BTreeSet<_> = stars.iter().map(|star| star.repository.entity()).collect();
    let rows = stars.iter().flat_map(|star| [keys::container(&star.repository), keys::counts(&star.repository)]);
    let roles = entities.iter().flat_map(|entity| access_keys(app, &caller, entity));
    access.rows().extend(app.table.batch(rows.chain(roles)).await?);
    let mut page = Page { rows: Vec::new(), next };
    for of_entity in stars.chunk_by(|one, other| one.repository.entity() == other.repository.entity()) {
        access.read_roles(app, &caller, of_entity.first().map(|star| star.repository.entity()))?;
        for Star { repository, container: id, .. } in of_entity {
            let container: Option<Container> = access.take(&keys::container(repository))?;
            let counts: Option<Counts> = access.take(&keys::counts(repository))?;
            let seen = |container: &Container| {
                container.id == *id && access.probe(Action::See, &resource_of(container)).is_ok()
            };
            if let Some(container) = container.filter(seen) {
                let stars = counts.filter(|counts| counts.container == *id).map_or(0, |counts| counts.stars);
                page.rows.push(Starred { container, stars });
            }
        }
    }
    Ok(page)
}

/// The rows that say which roles somebody has in an entity.
fn access_keys(app: &App, actor: &Actor, entity: &EntityName) -> impl Iterator<Item = Key> + use<> {
    let includes = app.config.directory_groups.then(|| keys::includes(entity));
    std::iter::once(keys::member(entity, actor)).chain(includes)
}
