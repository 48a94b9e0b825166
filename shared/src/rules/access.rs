//! Access control: [`decide`] is the only place where a permission is decided.
//!
//! Both protocols ask it. Every store call that changes something requires the [`Grant`] that only it can make.

use crate::domain::{
    Actor, Caller, CollectionName, EntityName, Repository, Right, Role, TokenId, TokenPlace, TokenScope, UserName,
    Visibility,
};
use std::fmt;

/// An action. There are only a few, and they are uniform; the resource makes the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Browse: find it in lists and searches.
    List,
    /// Look it up by name.
    See,
    /// Download its bytes.
    Pull,
    /// Make it.
    Create,
    /// Bring an image.
    Push,
    /// Set or move a tag.
    Retag,
    /// Remove it.
    Delete,
    /// Change its settings, members, tokens.
    Manage,
    /// Sweep the whole installation.
    Sweep,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::List,
        Self::See,
        Self::Pull,
        Self::Create,
        Self::Push,
        Self::Retag,
        Self::Delete,
        Self::Manage,
        Self::Sweep,
    ];

    /// The action's name in events.
    pub fn word(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::See => "see",
            Self::Pull => "pull",
            Self::Create => "create",
            Self::Push => "push",
            Self::Retag => "retag",
            Self::Delete => "delete",
            Self::Manage => "manage",
            Self::Sweep => "sweep",
        }
    }

    /// Whether it changes nothing.
    pub fn is_read(self) -> bool {
        matches!(self, Self::List | Self::See | Self::Pull)
    }
}

/// The role and the token right that an action needs. `None`: any token is enough.
const fn needs(action: Action) -> (Role, Option<Right>) {
    match action {
        Action::List => (Role::Reader, Some(Right::Pull)),
        Action::See => (Role::Reader, None),
        Action::Pull => (Role::Reader, Some(Right::Pull)),
        Action::Create | Action::Push | Action::Retag => (Role::Contributor, Some(Right::Push)),
        Action::Delete => (Role::Admin, Some(Right::Delete)),
        Action::Manage => (Role::Admin, Some(Right::Manage)),
        Action::Sweep => (Role::Admin, Some(Right::Admin)),
    }
}

/// Where something is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// The whole installation.
    Installation,
    /// One user's account.
    User(UserName),
    /// One entity.
    Entity(EntityName),
    /// One collection.
    Collection(EntityName, CollectionName),
    /// One repository.
    Repository(Repository),
    /// Nowhere: an identifier that points to nothing.
    Nowhere,
}

impl Place {
    /// The entity that contains it, if there is one.
    pub fn entity(&self) -> Option<&EntityName> {
        match self {
            Self::Installation | Self::User(_) | Self::Nowhere => None,
            Self::Entity(entity) | Self::Collection(entity, _) => Some(entity),
            Self::Repository(repository) => Some(repository.entity()),
        }
    }
}

impl fmt::Display for Place {
    /// Its name in events: the path, `user NAME`, or a word for something without a path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installation => f.write_str("installation"),
            Self::User(name) => write!(f, "user {name}"),
            Self::Entity(entity) => write!(f, "{entity}"),
            Self::Collection(entity, collection) => write!(f, "{entity}/{collection}"),
            Self::Repository(repository) => write!(f, "{repository}"),
            Self::Nowhere => f.write_str("nowhere"),
        }
    }
}

/// A resource, with the facts that matter for the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// The whole installation.
    Installation,
    /// A person's account: its password and tokens.
    User(UserName),
    /// An entity.
    Entity(EntityName),
    /// A collection.
    Collection(EntityName, CollectionName),
    /// A container, or another repository.
    Container {
        /// Its path.
        repository: Repository,
        /// Its visibility.
        visibility: Visibility,
        /// Whether it is read-only.
        read_only: bool,
    },
    /// An image in a container.
    Image {
        /// The container's path.
        repository: Repository,
        /// Whether the container is read-only.
        read_only: bool,
        /// Whether the caller pushed it.
        own: bool,
        /// Whether a frozen tag names it.
        frozen: bool,
    },
    /// A tag in a container.
    Tag {
        /// The container's path.
        repository: Repository,
        /// Whether the container is read-only.
        read_only: bool,
        /// Whether the tag is frozen: it may not be moved or deleted.
        frozen: bool,
    },
    /// An upload session.
    Upload {
        /// The container's path.
        repository: Repository,
        /// Whether the caller opened it.
        own: bool,
    },
    /// Something that does not exist.
    Missing(Place),
}

impl Resource {
    fn place(&self) -> Place {
        match self {
            Self::Installation => Place::Installation,
            Self::User(name) => Place::User(name.clone()),
            Self::Entity(entity) => Place::Entity(entity.clone()),
            Self::Collection(entity, collection) => Place::Collection(entity.clone(), collection.clone()),
            Self::Container { repository, .. }
            | Self::Image { repository, .. }
            | Self::Tag { repository, .. }
            | Self::Upload { repository, .. } => Place::Repository(repository.clone()),
            Self::Missing(place) => place.clone(),
        }
    }
}

/// The subject of a decision, with their role on the entity in question.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Who.
    pub caller: &'a Caller,
    /// Their strongest role on the resource's entity.
    pub role: Option<Role>,
}

/// Proof that [`decide`] allowed an action at a place. Nothing else can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    action: Action,
    place: Place,
    by: Option<Actor>,
    token: Option<TokenId>,
}

impl Grant {
    /// The action that was allowed.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Where it was allowed.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The user to whom it was allowed; `None` for anonymous callers and for Stackroom itself.
    pub fn by(&self) -> Option<&Actor> {
        self.by.as_ref()
    }

    /// The row of the token that was used, if one was.
    pub fn token(&self) -> Option<TokenId> {
        self.token
    }
}

/// Why something was not allowed. Each protocol has its own words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The action needs a login.
    Unauthenticated,
    /// As far as the caller may know, the resource does not exist.
    Hidden,
    /// The caller may not.
    Forbidden,
    /// The caller's token does not permit it.
    OutOfScope,
    /// The container is read-only.
    ReadOnly,
    /// A frozen tag, and the image that it names, can't be moved or deleted.
    Frozen,
}

/// Decides whether `subject` may do `action` to `resource`.
///
/// If the caller may not read something, the result is [`Denial::Hidden`], exactly as if it were missing. A forbidden
/// write gets the same denial whether its object exists or not.
pub fn decide(subject: Subject<'_>, action: Action, resource: &Resource) -> Result<Grant, Denial> {
    let place = resource.place();
    let allowed = if *subject.caller == Caller::System {
        Ok(())
    } else if action.is_read() {
        read(subject, action, resource, &place)
    } else {
        write(subject, action, resource, &place)
    };
    // The rules that bind everybody come last, so that only callers with write access learn about them.
    allowed.and_then(|()| obligations(action, resource))?;
    Ok(Grant { action, place, by: subject.caller.actor(), token: subject.caller.token() })
}

fn read(subject: Subject<'_>, action: Action, resource: &Resource, place: &Place) -> Result<(), Denial> {
    let role = effective_role(subject, action, place);
    let may = match resource {
        Resource::Missing(_) => false,
        Resource::Container { visibility: Visibility::Public, .. } if action != Action::List => true,
        Resource::Container { visibility: Visibility::Internal, .. } if action != Action::List => {
            in_scope(subject.caller, action, place)
        }
        // Everybody who is logged in may look up themselves and search; access to each result is decided separately.
        Resource::Installation => in_scope(subject.caller, action, place),
        Resource::User(name) => is_admin(subject.caller) || subject.caller.user() == Some(name),
        _ => role >= Some(needs(action).0),
    };
    if may { Ok(()) } else { Err(Denial::Hidden) }
}

fn write(subject: Subject<'_>, action: Action, resource: &Resource, place: &Place) -> Result<(), Denial> {
    let Some(user) = subject.caller.user() else { return Err(Denial::Unauthenticated) };
    if !in_scope(subject.caller, action, place) {
        return Err(Denial::OutOfScope);
    }
    let role = effective_role(subject, action, place);
    let needed = match resource {
        // Contributors delete what they pushed.
        Resource::Image { own: true, .. } => needs(action).0.min(Role::Contributor),
        // A caller who could delete something there is told that it is missing.
        Resource::Missing(_) => needs(action).0.min(Role::Contributor),
        _ => needs(action).0,
    };
    let may = match resource {
        Resource::Installation => is_admin(subject.caller),
        // Sweeping applies to everything, or to nothing.
        _ if action == Action::Sweep => false,
        Resource::User(name) => is_admin(subject.caller) || (action == Action::Manage && name == user),
        Resource::Entity(entity) | Resource::Missing(Place::Entity(entity)) if action == Action::Create => {
            is_admin(subject.caller) || entity.is_own(user)
        }
        // Only the user who opened an upload can continue it. Their role is decided again at the commit.
        Resource::Upload { own, .. } => *own,
        _ => role >= Some(needed),
    };
    match (may, resource) {
        // If a token for one place got another answer there than elsewhere, its holder could learn where something
        // lies that they know by its id alone.
        (false, _) if has_place(subject.caller) => Err(Denial::OutOfScope),
        (false, _) => Err(Denial::Forbidden),
        (true, Resource::Missing(_)) => Err(Denial::Hidden),
        (true, _) => Ok(()),
    }
}

/// The rules that bind everybody, including site admins and Stackroom itself.
fn obligations(action: Action, resource: &Resource) -> Result<(), Denial> {
    let lifts = matches!(action, Action::Manage) || action.is_read();
    match resource {
        _ if lifts => Ok(()),
        Resource::Missing(_) => Err(Denial::Hidden),
        Resource::Container { read_only: true, .. }
        | Resource::Image { read_only: true, .. }
        | Resource::Tag { read_only: true, .. } => Err(Denial::ReadOnly),
        Resource::Image { frozen: true, .. } if action == Action::Delete => Err(Denial::Frozen),
        Resource::Tag { frozen: true, .. } => Err(Denial::Frozen),
        _ => Ok(()),
    }
}

/// Whether the caller's token may not be used everywhere.
fn has_place(caller: &Caller) -> bool {
    matches!(caller, Caller::User { scope, access, .. } if scope.place != TokenPlace::All || access.is_some())
}

/// The effective role: a site admin counts as an owner, and outside the token's scope there is no role.
fn effective_role(subject: Subject<'_>, action: Action, place: &Place) -> Option<Role> {
    if !in_scope(subject.caller, action, place) {
        None
    } else if is_admin(subject.caller) && *place != Place::Nowhere {
        Some(Role::Owner)
    } else {
        subject.role
    }
}

/// A site admin has admin rights only through a token that has the admin right everywhere.
fn is_admin(caller: &Caller) -> bool {
    matches!(caller, Caller::User { admin: true, scope, .. }
        if scope.rights.contains(&Right::Admin) && scope.place == TokenPlace::All)
}

fn in_scope(caller: &Caller, action: Action, place: &Place) -> bool {
    let Caller::User { scope, access, .. } = caller else { return *caller == Caller::System };
    let covers = |scope: &TokenScope| {
        needs(action).1.is_none_or(|right| scope.allows(right)) && reaches(&scope.place, action, place)
    };
    covers(scope) && access.as_ref().is_none_or(|access| access.iter().any(covers))
}

/// Whether a token for `token` may be used at `place`. A token for a repository can also see and create the entity and
/// collection that contain it, as a push needs.
fn reaches(token: &TokenPlace, action: Action, place: &Place) -> bool {
    let on_the_way = matches!(action, Action::See | Action::Create);
    match (token, place) {
        (TokenPlace::All, _) => true,
        (TokenPlace::Entity(entity), _) => place.entity() == Some(entity),
        (TokenPlace::Repository(repository), Place::Repository(other)) => repository == other,
        (TokenPlace::Repository(repository), Place::Entity(entity)) => on_the_way && repository.entity() == entity,
        (TokenPlace::Repository(repository), Place::Collection(entity, collection)) => {
            on_the_way
                && repository.entity() == entity
                && repository.rest().split('/').next() == Some(collection.as_str())
        }
        (TokenPlace::Repository(_), Place::Installation | Place::User(_) | Place::Nowhere) => false,
        // The catalog lists repositories, not what is in them.
        (TokenPlace::Catalog, Place::Entity(_)) => action == Action::List,
        (TokenPlace::Catalog, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// A user with a token of this scope; after a `>`, what a registry client asked for with it.
    fn user(admin: bool, scope: &str) -> Caller {
        let (scope, access) = scope.split_once(" > ").map_or((scope, None), |(scope, access)| (scope, Some(access)));
        let access = access.map(|access| access.split(' ').map(|one| one.parse().unwrap()).collect());
        Caller::User { name: "alice".parse().unwrap(), admin, scope: scope.parse().unwrap(), token: None, access }
    }

    /// Every kind of scope that can make a difference at `acme/tools/bb`.
    const SCOPES: [&str; 15] = [
        "pull",
        "push",
        "pull,push",
        "delete",
        "manage",
        "admin",
        "pull,push,delete,manage",
        "pull,push,delete,admin",
        "pull,push,delete,admin@acme",
        "pull,push,delete,admin@acme/tools/bb",
        "pull,push,delete,admin@other",
        "pull,push,delete,admin > pull@acme/tools/bb",
        "pull,push,delete,admin > pull@other/tools/bb pull,push,delete@acme/tools/bb",
        "pull > pull,push@acme/tools/bb",
        "pull > pull@_catalog",
    ];

    /// The rows that a person has to read; the others follow from the laws.
    const GOLDEN: [&str; 7] = [
        "pull",
        "pull,push",
        "pull,push,delete,manage",
        "pull,push,delete,admin",
        "pull,push,delete,admin@other",
        "pull,push,delete,admin > pull@acme/tools/bb",
        "pull > pull,push@acme/tools/bb",
    ];

    fn callers(scopes: &[&str]) -> Vec<(String, Caller)> {
        let mut callers = vec![("anonymous".to_owned(), Caller::Anonymous), ("system".to_owned(), Caller::System)];
        for admin in [false, true] {
            for scope in scopes {
                let who = if admin { "site admin" } else { "user" };
                callers.push((format!("{who} ({scope})"), user(admin, scope)));
            }
        }
        callers
    }

    fn roles() -> Vec<Option<Role>> {
        std::iter::once(None).chain(Role::ALL.map(Some)).collect()
    }

    fn repository() -> Repository {
        "acme/tools/bb".parse().unwrap()
    }

    fn resources() -> Vec<(String, Resource)> {
        let entity: EntityName = "acme".parse().unwrap();
        let own: EntityName = "alice".parse().unwrap();
        let tools: CollectionName = "tools".parse().unwrap();
        let mut all = vec![
            ("registry".to_owned(), Resource::Installation),
            ("own account".to_owned(), Resource::User("alice".parse().unwrap())),
            ("other account".to_owned(), Resource::User("bob".parse().unwrap())),
            ("entity".to_owned(), Resource::Entity(entity.clone())),
            ("entity of own name".to_owned(), Resource::Entity(own)),
            ("collection".to_owned(), Resource::Collection(entity.clone(), tools.clone())),
        ];
        for visibility in Visibility::ALL {
            for read_only in [false, true] {
                let name =
                    format!("{visibility:?} container{}", if read_only { ", read-only" } else { "" }).to_lowercase();
                all.push((name, Resource::Container { repository: repository(), visibility, read_only }));
            }
        }
        for own in [false, true] {
            for (read_only, frozen) in [(false, false), (true, false), (false, true)] {
                let name = format!(
                    "image{}{}{}",
                    said(own, ", own"),
                    said(read_only, ", read-only"),
                    said(frozen, ", frozen")
                );
                all.push((name, Resource::Image { repository: repository(), read_only, own, frozen }));
            }
            all.push((format!("upload{}", said(own, ", own")), Resource::Upload { repository: repository(), own }));
        }
        for (read_only, frozen) in [(false, false), (true, false), (false, true)] {
            let name = format!("tag{}{}", said(read_only, ", read-only"), said(frozen, ", frozen"));
            all.push((name, Resource::Tag { repository: repository(), read_only, frozen }));
        }
        for (name, place) in [
            ("missing entity", Place::Entity(entity.clone())),
            ("missing collection", Place::Collection(entity, tools)),
            ("missing in a repository", Place::Repository(repository())),
            ("missing id", Place::Nowhere),
        ] {
            all.push((name.to_owned(), Resource::Missing(place)));
        }
        all
    }

    fn said(fact: bool, words: &'static str) -> &'static str {
        if fact { words } else { "" }
    }

    fn cases() -> impl Iterator<Item = (Caller, Option<Role>, Action, Resource)> {
        callers(&SCOPES).into_iter().flat_map(|(_, caller)| {
            roles().into_iter().flat_map(move |role| {
                let caller = caller.clone();
                Action::ALL.into_iter().flat_map(move |action| {
                    let caller = caller.clone();
                    resources().into_iter().map(move |(_, resource)| (caller.clone(), role, action, resource))
                })
            })
        })
    }

    fn ask(caller: &Caller, role: Option<Role>, action: Action, resource: &Resource) -> Result<Grant, Denial> {
        decide(Subject { caller, role }, action, resource)
    }

    #[test]
    fn the_golden_table() {
        let mut table = String::from(
            "✔ allowed  ∅ hidden  ✘ forbidden  ! unauthenticated  s out of scope  r read-only  f frozen\n",
        );
        let columns = Action::ALL.map(|action| format!("{action:?}")).join(" ");
        for (name, resource) in resources() {
            let _ = write!(table, "\n{name}\n{:72} {columns}\n", "");
            for (who, caller) in callers(&GOLDEN) {
                let known = matches!(caller, Caller::User { .. });
                for role in if known { roles() } else { vec![None] } {
                    let role_name = role.map_or_else(|| "-".to_owned(), |role| format!("{role:?}"));
                    let _ = write!(table, "{who:60} {role_name:11}");
                    for action in Action::ALL {
                        let mark = match ask(&caller, role, action, &resource) {
                            Ok(_) => '✔',
                            Err(Denial::Hidden) => '∅',
                            Err(Denial::Forbidden) => '✘',
                            Err(Denial::Unauthenticated) => '!',
                            Err(Denial::OutOfScope) => 's',
                            Err(Denial::ReadOnly) => 'r',
                            Err(Denial::Frozen) => 'f',
                        };
                        let _ = write!(table, " {mark:<width$}", width = format!("{action:?}").len());
                    }
                    table.push('\n');
                }
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_stronger_role_never_loses_a_right() {
        for (caller, role, action, resource) in cases() {
            if ask(&caller, role, action, &resource).is_ok() {
                for stronger in Role::ALL.into_iter().filter(|stronger| Some(*stronger) > role) {
                    assert!(
                        ask(&caller, Some(stronger), action, &resource).is_ok(),
                        "{caller:?} {stronger:?} {action:?} {resource:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_scope_only_narrows() {
        for (caller, role, action, resource) in cases() {
            let Caller::User { admin, .. } = caller else { continue };
            if ask(&caller, role, action, &resource).is_ok() {
                let (name, scope) = ("alice".parse().unwrap(), TokenScope::full());
                let full = Caller::User { name, admin, scope, token: None, access: None };
                assert!(ask(&full, role, action, &resource).is_ok(), "{caller:?} {role:?} {action:?} {resource:?}");
            }
        }
    }

    #[test]
    fn what_is_hidden_answers_as_what_is_missing() {
        for (caller, role, action, resource) in cases() {
            let place = resource.place();
            let missing = ask(&caller, role, action, &Resource::Missing(place));
            let answer = ask(&caller, role, action, &resource);
            if answer == Err(Denial::Hidden) {
                assert_eq!(answer, missing, "{caller:?} {role:?} {action:?} {resource:?}");
            }
            // Callers who learn more than they would about a missing thing have a right to change it, or would have
            // one if it were not frozen or read-only.
            if !action.is_read()
                && missing != Err(Denial::Hidden)
                && !matches!(resource, Resource::Installation | Resource::User(_))
            {
                let told = matches!(answer, Err(Denial::ReadOnly | Denial::Frozen));
                assert!(!told, "{caller:?} {role:?} {action:?} {resource:?}");
            }
        }
    }

    #[test]
    fn nobody_writes_anonymously() {
        for (_, resource) in resources() {
            for action in Action::ALL.into_iter().filter(|action| !action.is_read()) {
                assert_eq!(ask(&Caller::Anonymous, None, action, &resource), Err(Denial::Unauthenticated));
            }
        }
    }

    #[test]
    fn read_only_stops_every_write_of_everybody() {
        for (caller, role, action, resource) in cases() {
            let held = matches!(
                resource,
                Resource::Container { read_only: true, .. }
                    | Resource::Image { read_only: true, .. }
                    | Resource::Tag { read_only: true, .. }
            );
            if held && !action.is_read() && action != Action::Manage {
                assert!(ask(&caller, role, action, &resource).is_err(), "{caller:?} {role:?} {action:?} {resource:?}");
            }
        }
    }

    #[test]
    fn what_a_frozen_tag_names_is_not_deleted_by_anybody() {
        for (caller, role, action, resource) in cases() {
            let frozen = matches!(resource, Resource::Image { frozen: true, .. } | Resource::Tag { frozen: true, .. });
            if frozen && action == Action::Delete {
                assert!(ask(&caller, role, action, &resource).is_err(), "{caller:?} {role:?} {resource:?}");
            }
        }
    }

    #[test]
    fn a_public_container_can_be_pulled_with_any_token_that_is_valid() {
        let public = Resource::Container { repository: repository(), visibility: Visibility::Public, read_only: false };
        for (who, caller) in callers(&SCOPES) {
            assert!(ask(&caller, None, Action::Pull, &public).is_ok(), "{who}");
        }
    }

    #[test]
    fn a_grant_names_what_it_is_for() {
        let grant = ask(&Caller::System, None, Action::Delete, &Resource::Entity("acme".parse().unwrap())).unwrap();
        assert_eq!(grant.action(), Action::Delete);
        assert_eq!(grant.place(), &Place::Entity("acme".parse().unwrap()));
    }
}
