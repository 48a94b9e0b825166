//! What people and robots ask for, and how it is drawn.

use crate::model::{Model, Repository};
use crate::rules::{At, Made, Name, Rank, Right, Scope, Who, is_container};
use stackroom_tests::chance::Chance;
use std::fmt;

/// Users that are there from the beginning.
pub(crate) const USERS: [Name; 6] = ["ann", "bob", "cat", "dan", "eve", "fay"];
/// The first site admin, who is never disabled.
pub(crate) const ADMIN: Name = "admin";
/// The token of the first site admin, which is never revoked.
pub(crate) const OPERATOR: Made = 0;
/// Names that a group or a user can take.
pub(crate) const FREE: [Name; 6] = ["red", "blue", "gold", "teal", "grey", "zoe"];
const ROBOTS: [Name; 2] = ["ci", "cd"];
const COLLECTIONS: [Name; 2] = ["tools", "data"];
/// Containers of the library.
const CONTAINERS: [Name; 4] = ["tools/aa", "tools/bb", "data/aa", "data/bb"];
/// Repositories that only the registry can address.
const OTHERS: [Name; 2] = ["plain", "tools/aa/deep"];
const PARTS: [Name; 7] = ["tools", "data", "tools/aa", "tools/bb", "data/aa", "tools/aa/deep", "plain"];
const TAGS: [Name; 2] = ["v0", "v1"];
/// How many images there are to push.
pub(crate) const IMAGES: usize = 3;

const HOUR: i64 = 3600;

/// What a request shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Credential {
    Nobody,
    Token(Made),
    /// A short-lived token that was asked for these scopes with a password.
    Password(Name, Vec<Scope>),
    /// The same, with a token.
    Short(Made, Vec<Scope>),
}

/// Who may read a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Openness {
    Public,
    Internal,
    Private,
}

/// Which image of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Which {
    Tag(Name),
    Image(usize),
}

/// What is deleted with everything in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Repository(Name, Name),
    Collection(Name, Name),
    Entity(Name),
    User(Name),
}

/// How something is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct How {
    pub(crate) cascade: bool,
    pub(crate) force: bool,
    /// Only to see what would be deleted.
    pub(crate) dry: bool,
}

/// What a request asks for. `at` is an entity and a path below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    WhoAmI,
    SeeEntity { entity: Name },
    SeeCollection { at: (Name, Name) },
    SeeContainer { at: (Name, Name) },
    Find { at: (Name, Name), which: Which, download: bool },
    Tags { at: (Name, Name) },
    Images { at: (Name, Name) },
    Head { at: (Name, Name), tag: Name },
    RegistryTags { at: (Name, Name) },
    Entities,
    Collections { entity: Name },
    UsedCollections { entity: Name },
    Containers { entity: Name, collection: Option<Name> },
    UsedContainers { at: (Name, Name) },
    Catalog,
    Search { text: Name },
    MakeGroup { name: Name, private: bool },
    MakeEntity { name: Name },
    MakeCollection { at: (Name, Name), private: bool },
    MakeContainer { at: (Name, Name), private: bool },
    Push { at: (Name, Name), image: usize },
    PushManifest { at: (Name, Name), tag: Name },
    SetTag { at: (Name, Name), tag: Name, image: usize },
    Delete { at: (Name, Name), which: Which },
    Remove { what: What, how: How },
    SetEntity { entity: Name, private: bool },
    SetCollection { at: (Name, Name), private: bool },
    SetContainer { at: (Name, Name), open: Option<Openness>, read_only: Option<bool> },
    Freeze { at: (Name, Name), tag: Name, frozen: bool },
    Members { entity: Name },
    SetRole { entity: Name, who: Who, part: Option<Name>, rank: Option<Rank> },
    RemoveMember { entity: Name, who: Who },
    Robots { entity: Name },
    MakeRobot { entity: Name, name: Name, part: Option<Name>, rank: Rank },
    RemoveRobot { entity: Name, name: Name },
    Tokens { of: Who },
    MakeToken { of: Who, scope: Option<Scope>, life: Option<i64> },
    RevokeToken { of: Who, token: Made },
    Invitations { entity: Name },
    Invite { entity: Name, part: Option<Name>, rank: Rank, most: u64, life: i64 },
    Revoke { entity: Name, invitation: Made },
    Accept { entity: Name, invitation: Made, secret: bool },
    AddUser { name: Name, admin: bool },
    Disable { name: Name, disabled: bool },
    Share { at: (Name, Name), which: Which, life: Option<i64>, most: Option<u64> },
    Shares { at: (Name, Name) },
    UseShare { share: Made },
    RevokeShare { share: Made },
    EntityLog { entity: Name },
    UserLog { name: Name },
    SiteLog,
}

impl Act {
    /// Its name, for the counts.
    pub(crate) fn word(&self) -> String {
        format!("{self:?}").split([' ', '{', '(']).next().unwrap_or_default().to_owned()
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Operation {
    pub(crate) number: Made,
    pub(crate) by: Credential,
    pub(crate) act: Act,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5} {:?}: {:?}", self.number, self.by, self.act)
    }
}

/// Draws operations that have a chance to succeed, and those that have none.
#[derive(Debug)]
pub(crate) struct Draw {
    pub(crate) chance: Chance,
    /// Whatever was made, whether it is still there or not.
    pub(crate) tokens: Vec<(Who, Made)>,
    pub(crate) invitations: Vec<(Name, Made)>,
    pub(crate) shares: Vec<Made>,
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self { chance: Chance::new(seed), tokens: Vec::new(), invitations: Vec::new(), shares: Vec::new() }
    }

    /// Remembers what an operation made.
    pub(crate) fn made(&mut self, operation: &Operation) {
        match operation.act {
            Act::MakeToken { of, .. } => self.tokens.push((of, operation.number)),
            Act::Invite { entity, .. } => self.invitations.push((entity, operation.number)),
            Act::Share { .. } => self.shares.push(operation.number),
            _ => {}
        }
    }

    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        *self.chance.one(of)
    }

    pub(crate) fn maybe<T>(&mut self, often: u64, value: T) -> Option<T> {
        self.chance.percent(often).then_some(value)
    }

    /// One of the latest, or any.
    fn recent<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let from = if self.chance.percent(70) { of.len().saturating_sub(12) } else { 0 };
        let some = of.get(from..).unwrap_or_default();
        (!some.is_empty()).then(|| *self.chance.one(some))
    }

    fn entity(&mut self, model: &Model) -> Name {
        let there: Vec<Name> = model.entities.keys().copied().collect();
        let groups: Vec<Name> = there.iter().copied().filter(|name| !model.entities[name].personal).collect();
        match self.chance.below(100) {
            0..2 => self.one(&FREE),
            2..50 if !groups.is_empty() => self.one(&groups[..groups.len().min(2)]),
            50..75 if !groups.is_empty() => self.one(&groups),
            _ => self.one(&there),
        }
    }

    /// A container, mostly one that is there.
    fn container(&mut self, model: &Model, entity: Name) -> (Name, Name) {
        let all = model.entities.get(entity).into_iter().flat_map(|entity| entity.repositories.keys());
        let there: Vec<Name> = all.copied().filter(|path| is_container(path)).collect();
        let path = if !there.is_empty() && self.chance.percent(85) { self.one(&there) } else { self.one(&CONTAINERS) };
        (entity, path)
    }

    fn part(&mut self) -> Option<Name> {
        let part = self.one(&PARTS);
        self.maybe(50, part)
    }

    fn rank(&mut self) -> Rank {
        self.one(&[
            Rank::Reader,
            Rank::Reader,
            Rank::Contributor,
            Rank::Contributor,
            Rank::Admin,
            Rank::Admin,
            Rank::Owner,
        ])
    }

    fn user(&mut self, model: &Model) -> Name {
        let there: Vec<Name> = model.users.keys().copied().collect();
        if self.chance.percent(2) { self.one(&FREE) } else { self.one(&there) }
    }

    fn who(&mut self, model: &Model, entity: Name) -> Who {
        match self.chance.below(10) {
            0 => Who::Robot(entity, self.one(&ROBOTS)),
            1 if self.chance.percent(20) => Who::Robot(self.entity(model), self.one(&ROBOTS)),
            _ => Who::User(self.user(model)),
        }
    }

    fn rights(&mut self) -> Vec<Right> {
        let some: &[Right] = match self.chance.below(9) {
            0 => &[Right::Pull],
            1 => &[Right::Push],
            2 => &[Right::Pull, Right::Push],
            3 => &[Right::Pull, Right::Push, Right::Delete],
            4 => &[Right::Manage],
            5 => &[Right::Pull, Right::Push, Right::Delete, Right::Manage],
            6 => &[Right::Pull, Right::Admin],
            _ => &Right::ALL,
        };
        some.to_vec()
    }

    fn scope(&mut self, model: &Model) -> Scope {
        let entity = self.entity(model);
        let path = self.repository();
        let at = match self.chance.below(10) {
            0..5 => At::Everywhere,
            5..8 => At::Entity(entity),
            _ => At::Repository(entity, path),
        };
        Scope { rights: self.rights(), at }
    }

    /// What a registry client asks for.
    fn access(&mut self, model: &Model) -> Vec<Scope> {
        let mut asked = Vec::new();
        for _ in 0..=self.chance.below(2) {
            asked.push(match self.chance.below(10) {
                // A password that is shown with the request itself.
                0..4 => Scope::full(),
                4 => Scope { rights: vec![Right::Pull], at: At::Catalog },
                _ => {
                    let some: &[Right] = match self.chance.below(3) {
                        0 => &[Right::Pull],
                        1 => &[Right::Pull, Right::Push],
                        _ => &[Right::Pull, Right::Push, Right::Delete],
                    };
                    Scope { rights: some.to_vec(), at: At::Repository(self.entity(model), self.repository()) }
                }
            });
        }
        asked
    }

    /// What somebody shows: mostly a token of somebody who has to do with the entity.
    fn credential(&mut self, model: &Model, entity: Option<Name>) -> Credential {
        let members: Vec<Who> = entity
            .and_then(|entity| model.entities.get(entity))
            .map_or_else(Vec::new, |entity| entity.members.keys().copied().collect());
        let who = match self.chance.below(100) {
            0..5 => return Credential::Nobody,
            5..11 => Who::User(ADMIN),
            11..75 if !members.is_empty() => self.one(&members),
            _ => Who::User(self.user(model)),
        };
        let own: Vec<Made> = model.tokens.iter().filter(|(_, token)| token.of == who).map(|(made, _)| *made).collect();
        let full = own.iter().copied().find(|made| model.tokens[made].scope == Scope::full());
        match (self.chance.below(100), full) {
            (0..55, Some(full)) => Credential::Token(full),
            (0..88, _) if !own.is_empty() => Credential::Token(self.one(&own)),
            (88..92, _) if !own.is_empty() => Credential::Short(self.one(&own), self.access(model)),
            (92..94, _) if !self.tokens.is_empty() => {
                let any = self.tokens.clone();
                Credential::Token(self.recent(&any).map_or(OPERATOR, |(_, made)| made))
            }
            _ => match who {
                Who::User(name) => Credential::Password(name, self.access(model)),
                Who::Robot(..) => Credential::Nobody,
            },
        }
    }

    fn repository(&mut self) -> Name {
        if self.chance.percent(15) { self.one(&OTHERS) } else { self.one(&CONTAINERS) }
    }

    fn which(&mut self) -> Which {
        let image = self.number(IMAGES);
        if self.chance.percent(60) { Which::Tag(self.one(&TAGS)) } else { Which::Image(image) }
    }

    fn number(&mut self, below: usize) -> usize {
        usize::try_from(self.chance.below(below as u64)).unwrap_or_default()
    }

    /// A random operation.
    pub(crate) fn operation(&mut self, model: &Model, number: Made) -> Operation {
        let entity = self.entity(model);
        let act = self.act(model, entity);
        let by = self.credential(model, act.entity());
        Operation { number, by, act }
    }

    fn act(&mut self, model: &Model, entity: Name) -> Act {
        match self.chance.below(100) {
            0..25 => self.read(model, entity),
            25..37 => self.list(model, entity),
            37..62 => self.change(model, entity),
            62..78 => self.membership(model, entity),
            78..92 => self.account(model, entity),
            _ => self.share(model, entity),
        }
    }

    fn read(&mut self, model: &Model, entity: Name) -> Act {
        let at = self.container(model, entity);
        match self.chance.below(16) {
            0 => Act::SeeEntity { entity },
            1 => Act::SeeCollection { at: (entity, self.one(&COLLECTIONS)) },
            2..4 => Act::SeeContainer { at },
            4..11 => Act::Find { at, which: self.which(), download: self.chance.percent(70) },
            11 => Act::Tags { at },
            12 => Act::Images { at },
            13..15 => Act::Head { at: (entity, self.repository()), tag: self.one(&TAGS) },
            _ => Act::RegistryTags { at: (entity, self.repository()) },
        }
    }

    fn list(&mut self, model: &Model, entity: Name) -> Act {
        let collection = self.one(&COLLECTIONS);
        match self.chance.below(18) {
            0 => Act::WhoAmI,
            1..3 => Act::Entities,
            3..5 => Act::Collections { entity },
            5 => Act::UsedCollections { entity },
            6..8 => Act::Containers { entity, collection: self.maybe(50, collection) },
            8 => Act::UsedContainers { at: (entity, collection) },
            9..11 => Act::Catalog,
            11..13 => Act::Search { text: entity },
            13..16 => Act::Members { entity },
            16 => Act::Robots { entity },
            _ => match self.chance.below(3) {
                0 => Act::EntityLog { entity },
                1 => Act::UserLog { name: self.user(model) },
                _ => Act::SiteLog,
            },
        }
    }

    fn change(&mut self, model: &Model, entity: Name) -> Act {
        let (at, any) = (self.container(model, entity), (entity, self.repository()));
        let (image, tag) = (self.number(IMAGES), self.one(&TAGS));
        let private = self.chance.percent(15);
        match self.chance.below(100) {
            0..3 => Act::MakeGroup { name: if private { self.user(model) } else { self.one(&FREE) }, private },
            3..6 => Act::MakeEntity { name: entity },
            6..12 => Act::MakeCollection { at: (entity, self.one(&COLLECTIONS)), private },
            12..22 => Act::MakeContainer { at: (entity, self.one(&CONTAINERS)), private },
            22..42 => Act::Push { at, image },
            42..47 => Act::PushManifest { at: (entity, self.one(&OTHERS)), tag },
            47..62 => Act::SetTag { at, tag, image },
            62..76 => Act::Delete { at, which: self.which() },
            76..78 => Act::SetEntity { entity, private },
            94..97 => self.removal(model, entity),
            78..80 => Act::SetCollection { at: (entity, self.one(&COLLECTIONS)), private },
            80..94 => {
                let open = self.one(&[Openness::Public, Openness::Internal, Openness::Private, Openness::Private]);
                let read_only = self.chance.percent(10);
                Act::SetContainer { at: any, open: self.maybe(70, open), read_only: self.maybe(50, read_only) }
            }
            _ => Act::Freeze { at: any, tag, frozen: self.chance.percent(30) },
        }
    }

    fn removal(&mut self, model: &Model, entity: Name) -> Act {
        let at = self.container(model, entity);
        let what = match self.chance.below(20) {
            0..9 => What::Repository(at.0, at.1),
            9 => What::Repository(entity, self.one(&OTHERS)),
            10..15 => What::Collection(entity, self.one(&COLLECTIONS)),
            15..18 => What::Entity(entity),
            _ => match self.user(model) {
                ADMIN => What::Entity(entity),
                name => What::User(name),
            },
        };
        let mut percent = |often| self.chance.percent(often);
        let how = How { cascade: percent(60), force: percent(35), dry: percent(15) };
        // Bytes that nothing names any more may still be counted: whether something is empty is then not said.
        let unclear = |path: &Name, one: &Repository| one.used && !one.is_full() && what.has(path);
        let there = model.entities.get(what.entity());
        let unclear = there.is_some_and(|there| there.repositories.iter().any(|(path, one)| unclear(path, one)));
        Act::Remove { what, how: How { cascade: how.cascade || unclear, ..how } }
    }

    fn membership(&mut self, model: &Model, entity: Name) -> Act {
        let (who, part, rank) = (self.who(model, entity), self.part(), self.rank());
        let own = self.invitations.clone();
        let invitation = self.recent(&own);
        match (self.chance.below(100), invitation) {
            (0..40, _) => Act::SetRole { entity, who, part, rank: self.maybe(75, rank) },
            (40..55, _) => Act::RemoveMember { entity, who },
            (55..58, _) => Act::Invitations { entity },
            (58..70, _) | (_, None) => {
                let most = self.one(&[0, 1, 1, 2, 3]);
                Act::Invite { entity, part, rank, most, life: self.one(&[HOUR, 24 * HOUR, 7 * 24 * HOUR]) }
            }
            (70..73, Some((of, invitation))) => {
                let entity = if self.chance.percent(80) { of } else { entity };
                Act::Revoke { entity, invitation }
            }
            (_, Some((entity, invitation))) => Act::Accept { entity, invitation, secret: self.chance.percent(95) },
        }
    }

    fn account(&mut self, model: &Model, entity: Name) -> Act {
        let (part, rank, name) = (self.part(), self.rank(), self.one(&ROBOTS));
        let of = if self.chance.percent(50) { Who::Robot(entity, name) } else { Who::User(self.user(model)) };
        let any = self.tokens.clone();
        match self.chance.below(100) {
            0..18 => Act::MakeRobot { entity, name, part, rank },
            18..28 => Act::RemoveRobot { entity, name },
            28..36 => Act::Tokens { of },
            36..72 => {
                let scope = match of {
                    Who::Robot(..) if self.chance.percent(60) => {
                        let at = if self.chance.percent(50) {
                            At::Entity(entity)
                        } else {
                            At::Repository(entity, self.repository())
                        };
                        Scope {
                            rights: self
                                .rights()
                                .into_iter()
                                .filter(|right| *right < Right::Manage)
                                .chain([Right::Pull])
                                .collect(),
                            at,
                        }
                    }
                    _ => self.scope(model),
                };
                let life = self.one(&[HOUR, 24 * HOUR, 30 * 24 * HOUR]);
                Act::MakeToken { of, scope: self.maybe(80, scope), life: self.maybe(40, life) }
            }
            72..80 => match self.recent(&any) {
                Some((own, token)) => Act::RevokeToken { of: if self.chance.percent(85) { own } else { of }, token },
                None => Act::Tokens { of },
            },
            80..85 => Act::AddUser { name: self.one(&FREE), admin: self.chance.percent(15) },
            _ => match self.user(model) {
                ADMIN => Act::Tokens { of: Who::User(ADMIN) },
                name => Act::Disable { name, disabled: self.chance.percent(12) },
            },
        }
    }

    fn share(&mut self, model: &Model, entity: Name) -> Act {
        let at = self.container(model, entity);
        let own = self.shares.clone();
        match (self.chance.below(100), self.recent(&own)) {
            (0..30, _) | (_, None) => {
                let (life, most) = (self.one(&[0, HOUR, 24 * HOUR, 40 * 24 * HOUR]), self.one(&[0, 1, 2]));
                Act::Share { at, which: self.which(), life: self.maybe(50, life), most: self.maybe(50, most) }
            }
            (30..40, _) => Act::Shares { at },
            (40..85, Some(share)) => Act::UseShare { share },
            (_, Some(share)) => Act::RevokeShare { share },
        }
    }
}

impl What {
    /// The entity that it is, or lies in.
    pub(crate) fn entity(self) -> Name {
        match self {
            Self::Repository(entity, _) | Self::Collection(entity, _) | Self::Entity(entity) | Self::User(entity) => {
                entity
            }
        }
    }

    /// Whether a repository of the same entity goes with it. Only the library's own lie in collections.
    pub(crate) fn has(self, path: &str) -> bool {
        match self {
            Self::Repository(_, own) => path == own,
            Self::Collection(_, name) => is_container(path) && path.split('/').next() == Some(name),
            Self::Entity(_) | Self::User(_) => true,
        }
    }
}

impl Act {
    /// The entity that it concerns, if it is one.
    pub(crate) fn entity(&self) -> Option<Name> {
        match self {
            Self::Remove {
                what: What::Repository(entity, _) | What::Collection(entity, _) | What::Entity(entity),
                ..
            }
            | Self::SeeCollection { at: (entity, _), .. }
            | Self::SeeContainer { at: (entity, _) }
            | Self::Find { at: (entity, _), .. }
            | Self::Tags { at: (entity, _) }
            | Self::Images { at: (entity, _) }
            | Self::Head { at: (entity, _), .. }
            | Self::RegistryTags { at: (entity, _) }
            | Self::UsedContainers { at: (entity, _) }
            | Self::MakeCollection { at: (entity, _), .. }
            | Self::MakeContainer { at: (entity, _), .. }
            | Self::Push { at: (entity, _), .. }
            | Self::PushManifest { at: (entity, _), .. }
            | Self::SetTag { at: (entity, _), .. }
            | Self::Delete { at: (entity, _), .. }
            | Self::SetCollection { at: (entity, _), .. }
            | Self::SetContainer { at: (entity, _), .. }
            | Self::Freeze { at: (entity, _), .. }
            | Self::Share { at: (entity, _), .. }
            | Self::Shares { at: (entity, _) }
            | Self::SeeEntity { entity }
            | Self::Collections { entity }
            | Self::UsedCollections { entity }
            | Self::Containers { entity, .. }
            | Self::SetEntity { entity, .. }
            | Self::Members { entity }
            | Self::SetRole { entity, .. }
            | Self::RemoveMember { entity, .. }
            | Self::Robots { entity }
            | Self::MakeRobot { entity, .. }
            | Self::RemoveRobot { entity, .. }
            | Self::Invitations { entity }
            | Self::Invite { entity, .. }
            | Self::Revoke { entity, .. }
            | Self::EntityLog { entity }
            | Self::Tokens { of: Who::Robot(entity, _) }
            | Self::MakeToken { of: Who::Robot(entity, _), .. }
            | Self::RevokeToken { of: Who::Robot(entity, _), .. } => Some(entity),
            _ => None,
        }
    }
}
