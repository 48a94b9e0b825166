//! Access control: [`decide`] is the only place where a permission is decided.
//!
//! Both protocols ask it. Every store call that changes something requires the [`Grant`] that only it can make.

use crate::domain::{
    Actor, Caller, CollectionName, EntityName, Repository, Right, Role, Roles, SubPath, TokenId, TokenPlace,
    TokenScope, UserName, Visibility,
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
    /// Make a share of an image in it.
    Share,
    /// Change its settings, members, tokens.
    Manage,
    /// Give roles on it and on what lies under it, or take them.
    Appoint,
    /// Become a member of it.
    Join,
    /// Give up one's own roles in it.
    Leave,
    /// Star it, or take one's star back.
    Star,
    /// Sweep the whole installation.
    Sweep,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::List,
        Self::See,
        Self::Pull,
        Self::Create,
        Self::Push,
        Self::Retag,
        Self::Delete,
        Self::Share,
        Self::Manage,
        Self::Appoint,
        Self::Join,
        Self::Leave,
        Self::Star,
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
            Self::Share => "share",
            // Who is looking for what somebody managed wants the roles, too.
            Self::Manage | Self::Appoint => "manage",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Star => "star",
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
        Action::Create | Action::Push | Action::Retag | Action::Share => (Role::Contributor, Some(Right::Push)),
        Action::Delete => (Role::Admin, Some(Right::Delete)),
        Action::Manage | Action::Appoint => (Role::Admin, Some(Right::Manage)),
        Action::Join | Action::Leave | Action::Star => (Role::Reader, Some(Right::Manage)),
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
    /// A part of an entity, or without one, the entity.
    pub fn part(entity: &EntityName, part: Option<&SubPath>) -> Self {
        let Some(part) = part else { return Self::Entity(entity.clone()) };
        match part.as_str().parse() {
            Ok(collection) => Self::Collection(entity.clone(), collection),
            Err(_) => part.repository(entity).map_or(Self::Nowhere, Self::Repository),
        }
    }

    /// The entity that contains it, if there is one.
    pub fn entity(&self) -> Option<&EntityName> {
        match self {
            Self::Installation | Self::User(_) | Self::Nowhere => None,
            Self::Entity(entity) | Self::Collection(entity, _) => Some(entity),
            Self::Repository(repository) => Some(repository.entity()),
        }
    }

    /// The path below its entity, if it is a part of one.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Installation | Self::User(_) | Self::Entity(_) | Self::Nowhere => None,
            Self::Collection(_, collection) => Some(collection.as_str()),
            Self::Repository(repository) => Some(repository.rest()),
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
    /// The account of an entity: what all of it uses, and its quota.
    Account(EntityName),
    /// A group that does not exist yet.
    NewGroup {
        /// Its name.
        name: EntityName,
        /// Whether users may make groups.
        open: bool,
    },
    /// An invitation into an entity.
    Invitation {
        /// The entity.
        entity: EntityName,
        /// Whether it holds: it was shown with its secret, is not used up or over, and its maker may still give it.
        good: bool,
    },
    /// An account that somebody makes for themselves.
    Registration {
        /// Its name.
        name: UserName,
        /// Whether they may: anybody may register here, or their invitation holds.
        good: bool,
    },
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
            Self::Installation | Self::Registration { .. } => Place::Installation,
            Self::User(name) => Place::User(name.clone()),
            Self::Entity(entity)
            | Self::Account(entity)
            | Self::NewGroup { name: entity, .. }
            | Self::Invitation { entity, .. } => Place::Entity(entity.clone()),
            Self::Collection(entity, collection) => Place::Collection(entity.clone(), collection.clone()),
            Self::Container { repository, .. }
            | Self::Image { repository, .. }
            | Self::Tag { repository, .. }
            | Self::Upload { repository, .. } => Place::Repository(repository.clone()),
            Self::Missing(place) => place.clone(),
        }
    }
}

/// The subject of a decision, with their roles in the entity in question.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Who.
    pub caller: &'a Caller,
    /// Their roles in the resource's entity.
    pub roles: &'a Roles,
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
    let by = match (subject.caller, resource) {
        // Nobody yet: they become somebody with it.
        (Caller::Anonymous, Resource::Registration { name, .. }) => Some(Actor::User(name.clone())),
        (caller, _) => caller.actor(),
    };
    Ok(Grant { action, place, by, token: subject.caller.token() })
}

fn read(subject: Subject<'_>, action: Action, resource: &Resource, place: &Place) -> Result<(), Denial> {
    let role = effective_role(subject, action, place);
    let may = match resource {
        Resource::Missing(_) | Resource::Registration { .. } => false,
        Resource::Container { visibility: Visibility::Public, .. } if action != Action::List => true,
        Resource::Container { visibility: Visibility::Internal, .. } if action != Action::List => {
            in_scope(subject.caller, action, place)
        }
        // Everybody who is logged in may look up themselves and search; access to each result is decided separately.
        Resource::Installation => in_scope(subject.caller, action, place),
        Resource::User(name) => is_admin(subject.caller) || subject.caller.user() == Some(name),
        // Whoever has a role on a part sees the entity, and not what all of it uses.
        Resource::Account(_) => role.is_some() && (is_admin(subject.caller) || subject.roles.at(None).is_some()),
        _ => role >= Some(needs(action).0),
    };
    if may { Ok(()) } else { Err(Denial::Hidden) }
}

fn write(subject: Subject<'_>, action: Action, resource: &Resource, place: &Place) -> Result<(), Denial> {
    // The only thing that somebody without an account may do.
    if *subject.caller == Caller::Anonymous
        && action == Action::Join
        && matches!(resource, Resource::Registration { good: true, .. })
    {
        return Ok(());
    }
    let Some(actor) = subject.caller.known() else { return Err(Denial::Unauthenticated) };
    if !in_scope(subject.caller, action, place) {
        return Err(Denial::OutOfScope);
    }
    let role = effective_role(subject, action, place);
    let needed = match resource {
        // Contributors delete what they pushed.
        Resource::Image { own: true, .. } if action == Action::Delete => Role::Contributor,
        // A caller who could delete something there is told that it is missing.
        Resource::Missing(_) => needs(action).0.min(Role::Contributor),
        _ => needs(action).0,
    };
    let may = match resource {
        // Users star what they may see, and nothing else has stars.
        Resource::Container { visibility, .. } if action == Action::Star => {
            actor.user().is_some() && (*visibility != Visibility::Private || role >= Some(needed))
        }
        _ if action == Action::Star => false,
        Resource::Installation => is_admin(subject.caller),
        // Whoever has an account needs none.
        Resource::Registration { .. } => false,
        // Sweeping applies to everything, or to nothing.
        _ if action == Action::Sweep => false,
        Resource::User(name) => is_admin(subject.caller) || (action == Action::Manage && actor.user() == Some(name)),
        Resource::Entity(entity) | Resource::Missing(Place::Entity(entity)) if action == Action::Create => {
            is_admin(subject.caller) || actor.user().is_some_and(|user| entity.is_own(user))
        }
        Resource::NewGroup { open, .. } => {
            action == Action::Manage && (is_admin(subject.caller) || (*open && actor.user().is_some()))
        }
        Resource::Invitation { good, .. } => action == Action::Join && *good && actor.user().is_some(),
        // Nobody joins without an invitation. Only who is a member can leave, not every site admin.
        _ if action == Action::Join => false,
        _ if action == Action::Leave => subject.roles.under(None),
        // Only the user who opened an upload can continue it. Their role is decided again at the commit.
        Resource::Upload { own, .. } => *own && !matches!(action, Action::Manage | Action::Appoint),
        // What pushes use is counted; only operators limit it.
        Resource::Account(_) => is_admin(subject.caller),
        _ => role >= Some(needed),
    };
    match (may, resource) {
        // Whatever is wrong with an invitation, it has the same answer.
        (false, _) if action == Action::Join => Err(Denial::Hidden),
        // What they may not see is not there.
        (false, _) if action == Action::Star && actor.user().is_some() => Err(Denial::Hidden),
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
    let lifts = matches!(action, Action::Manage | Action::Appoint) || action.is_read();
    match resource {
        _ if lifts => Ok(()),
        Resource::Missing(_) => Err(Denial::Hidden),
        // A share changes nothing in the container, and neither does a star.
        _ if matches!(action, Action::Share | Action::Star) => Ok(()),
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
    matches!(caller, Caller::Known { scope, access, .. } if scope.place != TokenPlace::All || access.is_some())
}

/// The effective role: a site admin counts as an owner, outside the token's scope there is no role, and a robot never
/// manages anything.
fn effective_role(subject: Subject<'_>, action: Action, place: &Place) -> Option<Role> {
    let Subject { caller, roles } = subject;
    if !in_scope(caller, action, place) {
        return None;
    }
    if is_admin(caller) && *place != Place::Nowhere {
        return Some(Role::Owner);
    }
    // Whoever has a role on something sees the entity and the collection that it lies in.
    let on_the_way = action == Action::See && matches!(place, Place::Entity(_) | Place::Collection(..));
    let above = (on_the_way && roles.under(place.path())).then_some(Role::Reader);
    let role = roles.at(place.path()).max(above);
    match caller.known() {
        Some(Actor::Robot(..)) => role.min(Some(Role::Contributor)),
        _ => role,
    }
}

/// A site admin has admin rights only through a token that has the admin right everywhere.
fn is_admin(caller: &Caller) -> bool {
    matches!(caller, Caller::Known { admin: true, scope, .. }
        if scope.rights.contains(&Right::Admin) && scope.place == TokenPlace::All)
}

fn in_scope(caller: &Caller, action: Action, place: &Place) -> bool {
    let Caller::Known { actor, scope, access, .. } = caller else { return *caller == Caller::System };
    if let Actor::Robot(home, _) = actor
        && place.entity() != Some(home)
    {
        return false;
    }
    let covers = |scope: &TokenScope| {
        needs(action).1.is_none_or(|right| scope.allows(right)) && reaches(&scope.place, action, place)
    };
    covers(scope) && access.as_ref().is_none_or(|access| access.iter().any(covers))
}

/// Whether a token for `token` may be used at `place`. A token for a repository can also see and create the entity and
/// collection that contain it, as a push needs. It gives no roles: a role reaches what lies under the repository, too.
fn reaches(token: &TokenPlace, action: Action, place: &Place) -> bool {
    let on_the_way = matches!(action, Action::See | Action::Create);
    match (token, place) {
        (TokenPlace::All, _) => true,
        (TokenPlace::Entity(entity), _) => place.entity() == Some(entity),
        (TokenPlace::Repository(repository), Place::Repository(other)) => {
            repository == other && action != Action::Appoint
        }
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
        let (actor, scope) = ("alice".parse().unwrap(), scope.parse().unwrap());
        Caller::Known { actor, admin, scope, token: None, access }
    }

    /// A robot of the entity `acme`, with a token of this scope.
    fn robot(scope: &str) -> Caller {
        let (actor, scope) = ("acme+ci".parse().unwrap(), scope.parse().unwrap());
        Caller::Known { actor, admin: false, scope, token: None, access: None }
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

    /// The roles that a person has to read for a caller: those on parts of an entity differ only for full tokens.
    fn golden_roles(who: &str) -> Vec<(Option<&'static str>, Option<Role>)> {
        let all = who == "user (pull,push,delete,manage)";
        let parts = |part: Option<&str>| part.is_none() || (all && !matches!(part, Some("data" | "tools/bb/cc")));
        roles().into_iter().filter(|(part, _)| parts(*part)).collect()
    }

    fn callers(scopes: &[&str]) -> Vec<(String, Caller)> {
        let mut callers = vec![("anonymous".to_owned(), Caller::Anonymous), ("system".to_owned(), Caller::System)];
        for admin in [false, true] {
            for scope in scopes {
                let who = if admin { "site admin" } else { "user" };
                callers.push((format!("{who} ({scope})"), user(admin, scope)));
            }
        }
        for scope in ["pull,push,delete,admin", "pull,push@acme"] {
            callers.push((format!("robot ({scope})"), robot(scope)));
        }
        callers
    }

    /// Every role on a part of an entity, as the path of the part and the role there; the part is the entity itself
    /// where there is no path.
    fn roles() -> Vec<(Option<&'static str>, Option<Role>)> {
        let on = |part: Option<&'static str>| Role::ALL.into_iter().map(move |role| (part, Some(role)));
        std::iter::once((None, None))
            .chain(on(None))
            .chain(on(Some("tools")))
            .chain(on(Some("tools/bb")))
            .chain(on(Some("tools/bb/cc")))
            .chain(on(Some("data")))
            .collect()
    }

    fn role_on((part, role): (Option<&str>, Option<Role>)) -> Roles {
        let mut roles = Roles::default();
        roles.set(part.map(|part| part.parse().unwrap()).as_ref(), role);
        roles
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
            ("account of an entity".to_owned(), Resource::Account(entity.clone())),
            ("new group".to_owned(), Resource::NewGroup { name: entity.clone(), open: true }),
            ("new group, for operators".to_owned(), Resource::NewGroup { name: entity.clone(), open: false }),
            ("invitation".to_owned(), Resource::Invitation { entity: entity.clone(), good: true }),
            ("invitation that does not hold".to_owned(), Resource::Invitation { entity: entity.clone(), good: false }),
            ("registration".to_owned(), Resource::Registration { name: "carol".parse().unwrap(), good: true }),
            ("registration, closed".to_owned(), Resource::Registration { name: "carol".parse().unwrap(), good: false }),
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

    fn cases() -> impl Iterator<Item = (Caller, (Option<&'static str>, Option<Role>), Action, Resource)> {
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

    fn ask(
        caller: &Caller,
        role: (Option<&str>, Option<Role>),
        action: Action,
        resource: &Resource,
    ) -> Result<Grant, Denial> {
        decide(Subject { caller, roles: &role_on(role) }, action, resource)
    }

    const NOBODY: (Option<&str>, Option<Role>) = (None, None);

    #[test]
    fn the_golden_table() {
        let mut table = String::from(
            "✔ allowed  ∅ hidden  ✘ forbidden  ! unauthenticated  s out of scope  r read-only  f frozen\n",
        );
        let columns = Action::ALL.map(|action| format!("{action:?}")).join(" ");
        for (name, resource) in resources() {
            let _ = write!(table, "\n{name}\n{:72} {columns}\n", "");
            for (who, caller) in callers(&GOLDEN) {
                let known = matches!(caller, Caller::Known { .. });
                for role in if known { golden_roles(&who) } else { vec![NOBODY] } {
                    let role_name = match role {
                        (_, None) => "-".to_owned(),
                        (None, Some(role)) => format!("{role:?}"),
                        (Some(part), Some(role)) => format!("{role:?} of {part}"),
                    };
                    let _ = write!(table, "{who:49} {role_name:22}");
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
                for stronger in Role::ALL.into_iter().filter(|stronger| Some(*stronger) > role.1) {
                    assert!(
                        ask(&caller, (role.0, Some(stronger)), action, &resource).is_ok(),
                        "{caller:?} {stronger:?} {action:?} {resource:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_role_on_a_part_gives_what_it_gives_on_the_whole_and_only_there() {
        let covered = |part: &str, resource: &Resource| {
            resource.place().path().is_some_and(|path| part.parse::<crate::domain::SubPath>().unwrap().covers(path))
        };
        for (caller, (part, role), action, resource) in cases() {
            let Some(part) = part else { continue };
            let there = ask(&caller, (Some(part), role), action, &resource);
            let whole = ask(&caller, (None, role), action, &resource);
            if covered(part, &resource) {
                assert_eq!(there, whole, "{caller:?} {role:?} of {part} {action:?} {resource:?}");
            } else if action != Action::Leave
                && (action != Action::See || !matches!(resource.place(), Place::Entity(_) | Place::Collection(..)))
            {
                let nobody = ask(&caller, NOBODY, action, &resource);
                assert_eq!(there, nobody, "{caller:?} {role:?} of {part} {action:?} {resource:?}");
            }
        }
    }

    #[test]
    fn a_robot_manages_nothing_and_never_leaves_its_entity() {
        for scope in ["pull,push,delete,admin", "pull,push,delete,manage", "admin@acme"] {
            for role in roles() {
                for action in Action::ALL {
                    for (name, resource) in resources() {
                        let may = ask(&robot(scope), role, action, &resource).is_ok();
                        let managing =
                            matches!(action, Action::Manage | Action::Appoint | Action::Join | Action::Sweep);
                        assert!(!may || !managing, "{scope} {role:?} {action:?} {name}");
                        let home = resource.place().entity().is_some_and(|entity| entity.as_str() == "acme");
                        assert!(!may || home, "{scope} {role:?} {action:?} {name}");
                    }
                    let elsewhere = Resource::Container {
                        repository: "other/tools/bb".parse().unwrap(),
                        visibility: Visibility::Internal,
                        read_only: false,
                    };
                    assert!(ask(&robot(scope), role, action, &elsewhere).is_err(), "{scope} {role:?} {action:?}");
                }
            }
        }
    }

    #[test]
    fn a_token_for_one_repository_gives_no_roles() {
        for (caller, role, _, resource) in cases() {
            let narrow =
                matches!(&caller, Caller::Known { scope, .. } if matches!(scope.place, TokenPlace::Repository(_)));
            let given = ask(&caller, role, Action::Appoint, &resource);
            assert!(!narrow || given.is_err(), "{caller:?} {role:?} {resource:?}");
            // Nor does any other give them where its holder does not manage.
            assert!(given.is_err() || ask(&caller, role, Action::Manage, &resource).is_ok(), "{caller:?} {resource:?}");
        }
    }

    #[test]
    fn a_scope_only_narrows() {
        for (caller, role, action, resource) in cases() {
            let Caller::Known { actor, admin, .. } = caller.clone() else { continue };
            if ask(&caller, role, action, &resource).is_ok() {
                let full = Caller::Known { actor, admin, scope: TokenScope::full(), token: None, access: None };
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
    fn nobody_writes_anonymously_but_to_register() {
        for (_, resource) in resources() {
            for action in Action::ALL.into_iter().filter(|action| !action.is_read()) {
                if action == Action::Join && matches!(resource, Resource::Registration { good: true, .. }) {
                    let grant = ask(&Caller::Anonymous, NOBODY, action, &resource).unwrap();
                    assert_eq!(grant.by(), Some(&"carol".parse().unwrap()));
                    continue;
                }
                assert_eq!(ask(&Caller::Anonymous, NOBODY, action, &resource), Err(Denial::Unauthenticated));
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
            let lifts = matches!(action, Action::Manage | Action::Appoint | Action::Share | Action::Star);
            let changes = !action.is_read() && !lifts;
            if held && changes {
                assert!(ask(&caller, role, action, &resource).is_err(), "{caller:?} {role:?} {action:?} {resource:?}");
            }
        }
    }

    #[test]
    fn only_somebody_who_could_push_there_shares() {
        for (caller, role, action, resource) in cases() {
            let Resource::Container { repository, visibility, .. } = &resource else { continue };
            let open =
                Resource::Container { repository: repository.clone(), visibility: *visibility, read_only: false };
            if action == Action::Share && ask(&caller, role, action, &resource).is_ok() {
                assert!(ask(&caller, role, Action::Push, &open).is_ok(), "{caller:?} {role:?} {resource:?}");
            }
        }
    }

    #[test]
    fn only_a_user_stars_and_only_what_they_may_see() {
        let mut starred = 0;
        for (caller, role, action, resource) in cases() {
            if action == Action::Star && caller != Caller::System && ask(&caller, role, action, &resource).is_ok() {
                starred += 1;
                assert!(matches!(resource, Resource::Container { .. }), "{resource:?}");
                assert!(ask(&caller, role, Action::See, &resource).is_ok(), "{caller:?} {role:?} {resource:?}");
                assert!(caller.user().is_some(), "{caller:?}");
            }
        }
        assert!(starred > 0);
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
            assert!(ask(&caller, NOBODY, Action::Pull, &public).is_ok(), "{who}");
        }
    }

    #[test]
    fn a_grant_names_what_it_is_for() {
        let grant = ask(&Caller::System, NOBODY, Action::Delete, &Resource::Entity("acme".parse().unwrap())).unwrap();
        assert_eq!(grant.action(), Action::Delete);
        assert_eq!(grant.place(), &Place::Entity("acme".parse().unwrap()));
    }
}
