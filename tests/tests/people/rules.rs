//! Who may do what, as the pages for users say it: `docs/user/groups.md`, `docs/user/shares.md`, `SECURITY.md`, and
//! `docs/decisions/0024-roles-on-parts.md`. It shares nothing with the server's own rules.

/// The name of a user, an entity, a collection, or a path below an entity. All of them come from fixed lists.
pub(crate) type Name = &'static str;
/// The number of an operation, and so of whatever it made: a token, an invitation, a share, an image.
pub(crate) type Made = u32;

/// Somebody with an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    User(Name),
    /// A robot of an entity.
    Robot(Name, Name),
}

impl Who {
    pub(crate) fn user(self) -> Option<Name> {
        match self {
            Self::User(name) => Some(name),
            Self::Robot(..) => None,
        }
    }
}

/// What somebody is in an entity or a part of it, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Rank {
    Reader,
    Contributor,
    Admin,
    Owner,
}

/// Where something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    Site,
    Account(Name),
    Entity(Name),
    /// A collection of an entity.
    Collection(Name, Name),
    /// A repository of an entity, by its path below it.
    Repository(Name, Name),
}

impl Place {
    /// A part of an entity, or all of it. A path of one name is that of a collection.
    pub(crate) fn part(entity: Name, part: Option<Name>) -> Self {
        match part {
            None => Self::Entity(entity),
            Some(path) if path.contains('/') => Self::Repository(entity, path),
            Some(name) => Self::Collection(entity, name),
        }
    }

    pub(crate) fn entity(self) -> Option<Name> {
        match self {
            Self::Site | Self::Account(_) => None,
            Self::Entity(entity) | Self::Collection(entity, _) | Self::Repository(entity, _) => Some(entity),
        }
    }

    fn path(self) -> Option<Name> {
        match self {
            Self::Site | Self::Account(_) | Self::Entity(_) => None,
            Self::Collection(_, path) | Self::Repository(_, path) => Some(path),
        }
    }
}

/// Whether a path is another one, or lies under it.
pub(crate) fn lies_in(path: &str, top: &str) -> bool {
    path == top || path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'))
}

/// The collection that a path lies in.
pub(crate) fn collection_of(path: Name) -> Name {
    path.split('/').next().unwrap_or(path)
}

/// Whether the library knows a path as a container: one of a collection.
pub(crate) fn is_container(path: &str) -> bool {
    path.split('/').count() == 2
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Find it in lists.
    List,
    /// Look it up by its name.
    See,
    /// Get its bytes.
    Pull,
    /// Make it.
    Create,
    /// Push, tag and share.
    Push,
    Delete,
    /// Change its settings, members, robots, tokens.
    Manage,
    /// Become a member, or cease to be one.
    Belong,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Right {
    Pull,
    Push,
    Delete,
    Manage,
    Admin,
}

impl Right {
    pub(crate) const ALL: [Self; 5] = [Self::Pull, Self::Push, Self::Delete, Self::Manage, Self::Admin];
}

/// Where a token may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum At {
    Everywhere,
    Entity(Name),
    Repository(Name, Name),
    /// For the list of repositories alone.
    Catalog,
}

/// What a token may be used for, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scope {
    pub(crate) rights: Vec<Right>,
    pub(crate) at: At,
}

impl Scope {
    /// All rights everywhere.
    pub(crate) fn full() -> Self {
        Self { rights: Right::ALL.into(), at: At::Everywhere }
    }

    /// What a site admin may do, managing is part of.
    pub(crate) fn has(&self, right: Right) -> bool {
        self.rights.contains(&right) || (right == Right::Manage && self.rights.contains(&Right::Admin))
    }

    /// Whether it has every right of another one.
    pub(crate) fn has_all_of(&self, other: &Self) -> bool {
        other.rights.iter().all(|right| self.has(*right))
    }

    fn covers(&self, need: Need, place: Place) -> bool {
        let right = match need {
            Need::See => None,
            Need::List | Need::Pull => Some(Right::Pull),
            Need::Create | Need::Push => Some(Right::Push),
            Need::Delete => Some(Right::Delete),
            Need::Manage | Need::Belong => Some(Right::Manage),
        };
        // A push looks up and makes what its repository lies in.
        let above = matches!(need, Need::See | Need::Create);
        let there = match self.at {
            At::Everywhere => true,
            At::Entity(entity) => place.entity() == Some(entity),
            At::Repository(entity, path) => {
                place == Place::Repository(entity, path)
                    || (above
                        && [Place::Entity(entity), Place::Collection(entity, collection_of(path))].contains(&place))
            }
            At::Catalog => need == Need::List && matches!(place, Place::Entity(_)),
        };
        there && right.is_none_or(|right| self.has(right))
    }
}

/// Somebody whose credential works at this moment.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) who: Who,
    /// Whether the account is a site admin's.
    pub(crate) admin: bool,
    pub(crate) scope: Scope,
    /// What a short-lived token was asked for. It narrows the scope, and such a token lists nothing in the library.
    pub(crate) access: Option<Vec<Scope>>,
    /// When the token ends.
    pub(crate) until: Option<i64>,
    pub(crate) token: Option<Made>,
}

impl Caller {
    /// Whether the credential may be used for that. A robot's never leaves its entity.
    pub(crate) fn covers(&self, need: Need, place: Place) -> bool {
        let home = match self.who {
            Who::Robot(home, _) => place.entity() == Some(home),
            Who::User(_) => true,
        };
        let narrowed = self.access.as_ref().is_none_or(|access| access.iter().any(|scope| scope.covers(need, place)));
        home && narrowed && self.scope.covers(need, place)
    }

    /// A site admin is one only through a token that has the right `admin` everywhere.
    pub(crate) fn operates(&self) -> bool {
        self.admin && self.scope.rights.contains(&Right::Admin) && self.scope.at == At::Everywhere
    }

    /// Whether the credential has all rights of its user, and no end: only such a one lets others in.
    pub(crate) fn is_whole(&self) -> bool {
        self.access.is_none() && self.until.is_none() && self.scope.has_all_of(&Scope::full())
    }
}

/// Somebody's roles in one entity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Roles {
    pub(crate) whole: Option<Rank>,
    pub(crate) parts: std::collections::BTreeMap<Name, Rank>,
}

impl Roles {
    pub(crate) fn is_empty(&self) -> bool {
        self.whole.is_none() && self.parts.is_empty()
    }

    /// The strongest role at a place.
    pub(crate) fn at(&self, place: Place) -> Option<Rank> {
        let path = place.path();
        let parts = self.parts.iter().filter(|(part, _)| path.is_some_and(|path| lies_in(path, part)));
        self.whole.max(parts.map(|(_, rank)| *rank).max())
    }

    /// Whether there is a role there, or on something that lies in it.
    pub(crate) fn reach(&self, place: Place) -> bool {
        let below = |part: &Name| place.path().is_none_or(|path| lies_in(part, path));
        self.at(place).is_some() || self.parts.keys().any(below)
    }

    pub(crate) fn set(&mut self, part: Option<Name>, rank: Option<Rank>) {
        match (part, rank) {
            (None, rank) => self.whole = rank,
            (Some(part), Some(rank)) => drop(self.parts.insert(part, rank)),
            (Some(part), None) => drop(self.parts.remove(part)),
        }
    }

    /// What a caller with these roles is at a place, for something that they need.
    pub(crate) fn rank(&self, caller: &Caller, need: Need, place: Place) -> Option<Rank> {
        if !caller.covers(need, place) {
            return None;
        }
        if caller.operates() {
            return Some(Rank::Owner);
        }
        // Whoever has a role on a part sees the names on the way to it.
        let way = need == Need::See && matches!(place, Place::Entity(_) | Place::Collection(..)) && self.reach(place);
        let rank = self.at(place).max(way.then_some(Rank::Reader));
        match caller.who {
            // A robot manages nothing.
            Who::Robot(..) => rank.min(Some(Rank::Contributor)),
            Who::User(_) => rank,
        }
    }
}
