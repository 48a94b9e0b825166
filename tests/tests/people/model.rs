//! The model: everything that the rules depend on, as plain values, and the answer to each request.

use crate::operation::{ADMIN, Act, Credential, OPERATOR, Openness, Operation};
use crate::rules::{Caller, Made, Name, Need, Place, Rank, Roles, Scope, Who};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The class of an answer, with all that it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// What it shows, in no order.
    Shown(BTreeSet<String>),
    /// 404: it is not there, as far as the caller may know.
    Missing,
    /// 403.
    Forbidden,
    /// 401: nobody is logged in, or the token does not work.
    Login,
    /// 409.
    Conflict,
    /// 412: there is something in it.
    Full,
    /// 400.
    Invalid,
    /// 410: it was there, and is over.
    Gone,
    /// 429: too much at once.
    Busy,
}

impl Answer {
    pub(crate) fn shown(what: impl IntoIterator<Item = String>) -> Self {
        Self::Shown(what.into_iter().collect())
    }

    /// Its class alone.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Shown(_) => "shown",
            Self::Missing => "missing",
            Self::Forbidden => "forbidden",
            Self::Login => "login",
            Self::Conflict => "conflict",
            Self::Full => "full",
            Self::Invalid => "invalid",
            Self::Gone => "gone",
            Self::Busy => "busy",
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown(what) => write!(f, "shown {what:?}"),
            _ => f.write_str(self.word()),
        }
    }
}

/// A refusal ends a request early.
pub(crate) type Or<T> = Result<T, Answer>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct User {
    pub(crate) admin: bool,
    pub(crate) disabled: bool,
    /// How many groups they have made.
    pub(crate) groups: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub(crate) of: Who,
    pub(crate) scope: Scope,
    pub(crate) ends: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Invitation {
    pub(crate) part: Option<Name>,
    pub(crate) rank: Rank,
    pub(crate) most: u64,
    pub(crate) uses: u64,
    pub(crate) by: Name,
    pub(crate) token: Option<Made>,
    pub(crate) ends: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Share {
    pub(crate) at: (Name, Name),
    pub(crate) image: Image,
    pub(crate) by: Who,
    pub(crate) token: Option<Made>,
    pub(crate) ends: i64,
    pub(crate) most: Option<u64>,
    pub(crate) uses: u64,
}

/// An image of a repository. One that was deleted and pushed again was made by another operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Image {
    pub(crate) by: Who,
    pub(crate) made: Made,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tag {
    /// `None`: something that is no image of the library.
    pub(crate) image: Option<usize>,
    pub(crate) frozen: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Repository {
    pub(crate) open: Openness,
    pub(crate) read_only: bool,
    pub(crate) images: BTreeMap<usize, Image>,
    pub(crate) tags: BTreeMap<Name, Tag>,
    /// Whether anything was ever pushed to it. What was deleted again leaves bytes until they are collected.
    pub(crate) used: bool,
    /// Whether the registry's manifest was pushed to it, which no tag needs to name.
    pub(crate) manifest: bool,
}

impl Repository {
    /// Whether there is something in it.
    pub(crate) fn is_full(&self) -> bool {
        self.manifest || !self.images.is_empty() || !self.tags.is_empty()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Entity {
    pub(crate) personal: bool,
    /// Who made it.
    pub(crate) by: Option<Name>,
    pub(crate) private: bool,
    pub(crate) members: BTreeMap<Who, Roles>,
    pub(crate) robots: BTreeSet<Name>,
    /// Whether what is made in them is private.
    pub(crate) collections: BTreeMap<Name, bool>,
    pub(crate) repositories: BTreeMap<Name, Repository>,
    pub(crate) invitations: BTreeMap<Made, Invitation>,
}

impl Entity {
    pub(crate) fn admins(&self) -> usize {
        self.members.values().filter(|roles| roles.whole == Some(Rank::Admin)).count()
    }
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Model {
    pub(crate) now: i64,
    pub(crate) users: BTreeMap<Name, User>,
    pub(crate) entities: BTreeMap<Name, Entity>,
    pub(crate) tokens: BTreeMap<Made, Token>,
    pub(crate) shares: BTreeMap<Made, Share>,
    /// Names of entities that were deleted, which only site admins use again.
    pub(crate) removed: BTreeSet<Name>,
    /// Whether whoever asks has been found permitted to, at an earlier moment of the same request.
    pub(crate) permitted: bool,
}

/// What somebody may list of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listed {
    All,
    Parts(Vec<Name>),
}

impl Listed {
    pub(crate) fn has(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Parts(parts) => parts.iter().any(|part| crate::rules::lies_in(path, part)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Parts(parts) if parts.is_empty())
    }
}

impl Model {
    /// An installation with its first site admin.
    pub(crate) fn new(now: i64) -> Self {
        let mut model = Self { now, ..Self::default() };
        model.user_added(ADMIN, true);
        let token = Token { of: Who::User(ADMIN), scope: Scope::full(), ends: None };
        model.tokens.insert(OPERATOR, token);
        model
    }

    pub(crate) fn user_added(&mut self, name: Name, admin: bool) {
        self.users.insert(name, User { admin, disabled: false, groups: 0 });
        let owner = Roles { whole: Some(Rank::Owner), ..Roles::default() };
        let members = [(Who::User(name), owner)].into();
        self.removed.remove(name);
        self.entities.insert(name, Entity { personal: true, by: Some(name), members, ..Entity::default() });
    }

    /// The answer to a request, and what it changes.
    pub(crate) fn answer(&mut self, operation: &Operation) -> Answer {
        // Everything else is the same whoever asks.
        if let Act::UseShare { share } = operation.act {
            return self.use_share(share).unwrap_or_else(|refused| refused);
        }
        self.ask(operation).unwrap_or_else(|refused| refused)
    }

    fn ask(&mut self, operation: &Operation) -> Or<Answer> {
        if let Act::MakeToken { of, scope, life } = &operation.act {
            // What a robot's token can't be is said to everybody.
            Self::robots_scope(*of, scope.as_ref())?;
            let caller = self.caller(&operation.by)?;
            return self.make_token(caller.as_ref(), operation.number, (*of, scope.clone(), *life));
        }
        if matches!(operation.act, Act::Share { most: Some(0), .. } | Act::Invite { most: 0, .. }) {
            return Err(Answer::Invalid);
        }
        if operation.by == Credential::Nobody && matches!(operation.act, Act::RevokeShare { .. }) {
            return Err(Answer::Login);
        }
        let caller = self.caller(&operation.by)?;
        match self.read(caller.as_ref(), &operation.act) {
            Some(answer) => answer,
            None => self.change(caller.as_ref(), operation),
        }
    }

    /// Whoever shows something.
    pub(crate) fn caller(&self, shown: &Credential) -> Or<Option<Caller>> {
        let (who, token, access) = match shown {
            Credential::Nobody => return Ok(None),
            Credential::Token(token) => (None, Some(*token), None),
            Credential::Short(token, access) => (None, Some(*token), Some(access.clone())),
            Credential::Password(name, access) => (Some(Who::User(name)), None, Some(access.clone())),
        };
        let row = token.map(|token| self.tokens.get(&token).ok_or(Answer::Login)).transpose()?;
        let ended = row.and_then(|row| row.ends).is_some_and(|ends| ends <= self.now);
        let who = who.or(row.map(|row| row.of)).filter(|_| !ended).ok_or(Answer::Login)?;
        let admin = self.account(who).ok_or(Answer::Login)?;
        let scope = row.map_or_else(Scope::full, |row| row.scope.clone());
        Ok(Some(Caller { who, admin, scope, access, until: row.and_then(|row| row.ends), token }))
    }

    /// Whether somebody has an account that works, and if so, whether it is a site admin's.
    pub(crate) fn account(&self, who: Who) -> Option<bool> {
        match who {
            Who::User(name) => self.users.get(name).filter(|user| !user.disabled).map(|user| user.admin),
            Who::Robot(entity, name) => {
                self.entities.get(entity).filter(|entity| entity.robots.contains(name)).map(|_| false)
            }
        }
    }

    pub(crate) fn roles(&self, who: Who, entity: Name) -> Roles {
        self.entities.get(entity).and_then(|entity| entity.members.get(&who)).cloned().unwrap_or_default()
    }

    pub(crate) fn rank(&self, caller: &Caller, need: Need, place: Place) -> Option<Rank> {
        let roles = place.entity().map(|entity| self.roles(caller.who, entity)).unwrap_or_default();
        roles.rank(caller, need, place)
    }

    /// Whether somebody may read something. Whatever they may not read is not there for them.
    pub(crate) fn may_read(&self, caller: Option<&Caller>, need: Need, place: Place) -> bool {
        caller.is_some_and(|caller| self.rank(caller, need, place) >= Some(Rank::Reader))
    }

    /// The same for a repository, which may be open to others.
    pub(crate) fn may_read_in(&self, caller: Option<&Caller>, need: Need, at: (Name, Name)) -> bool {
        let place = Place::Repository(at.0, at.1);
        let Some(repository) = self.repository(at) else { return false };
        match repository.open {
            Openness::Public => true,
            Openness::Internal => caller.is_some_and(|caller| caller.covers(need, place)),
            Openness::Private => self.may_read(caller, need, place),
        }
    }

    pub(crate) fn repository(&self, at: (Name, Name)) -> Option<&Repository> {
        self.entities.get(at.0).and_then(|entity| entity.repositories.get(at.1))
    }

    /// Refuses whoever may not change something.
    pub(crate) fn must<'a>(&self, caller: Option<&'a Caller>, need: Need, place: Place, least: Rank) -> Or<&'a Caller> {
        let caller = caller.ok_or(Answer::Login)?;
        if self.permitted || self.rank(caller, need, place) >= Some(least) {
            Ok(caller)
        } else {
            Err(Answer::Forbidden)
        }
    }

    /// Refuses whoever may not manage a place. Where it is not there, that is said to whoever could push there.
    pub(crate) fn must_manage<'a>(&self, caller: Option<&'a Caller>, place: Place, there: bool) -> Or<&'a Caller> {
        let least = if there { Rank::Admin } else { Rank::Contributor };
        let caller = self.must(caller, Need::Manage, place, least)?;
        if there { Ok(caller) } else { Err(Answer::Missing) }
    }

    /// Refuses whoever is no site admin.
    pub(crate) fn must_operate(caller: Option<&Caller>) -> Or<&Caller> {
        let caller = caller.ok_or(Answer::Login)?;
        if caller.operates() && caller.covers(Need::Manage, Place::Site) { Ok(caller) } else { Err(Answer::Forbidden) }
    }

    /// Refuses whoever may not manage somebody's account.
    pub(crate) fn must_own(caller: Option<&Caller>, name: Name) -> Or<&Caller> {
        let caller = caller.ok_or(Answer::Login)?;
        let own = caller.operates() || caller.who == Who::User(name);
        if own && caller.covers(Need::Manage, Place::Account(name)) { Ok(caller) } else { Err(Answer::Forbidden) }
    }

    /// What a caller may list of an entity. The short-lived token of a registry client lists nothing in the library.
    pub(crate) fn listed(&self, caller: Option<&Caller>, entity: Name, library: bool) -> Listed {
        let Some(caller) = caller.filter(|caller| !library || caller.access.is_none()) else {
            return Listed::Parts(Vec::new());
        };
        if self.may_read(Some(caller), Need::List, Place::Entity(entity)) {
            return Listed::All;
        }
        let mut parts: Vec<Name> = Vec::new();
        for part in self.roles(caller.who, entity).parts.keys() {
            let inside = parts.iter().any(|other| crate::rules::lies_in(part, other));
            // A token for the catalog is for all of it.
            let places = [Place::part(entity, Some(part)), Place::Entity(entity)];
            if !inside && places.iter().any(|place| caller.covers(Need::List, *place)) {
                parts.push(part);
            }
        }
        Listed::Parts(parts)
    }

    /// The entities of which somebody is a member.
    pub(crate) fn memberships(&self, who: Who) -> impl Iterator<Item = Name> {
        self.entities.iter().filter(move |(_, entity)| entity.members.contains_key(&who)).map(|(name, _)| *name)
    }
}
