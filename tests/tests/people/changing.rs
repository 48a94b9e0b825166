//! What the model answers to requests that change something, and what it remembers of them.

use crate::model::{Answer, Entity, Image, Invitation, Model, Or, Repository, Share, Tag, Token};
use crate::operation::{Act, Openness, Operation, Which};
use crate::rules::{At, Caller, Made, Name, Need, Place, Rank, Right, Roles, Scope, Who, collection_of};

/// Groups that a user may make.
pub(crate) const GROUPS: u64 = 3;
/// Invitations that an entity may have.
const INVITATIONS: usize = 100;
/// How long a share lasts, if nothing is said, and at most.
const SHARE_LIFE: i64 = 24 * 3600;
const LONGEST_SHARE: i64 = 30 * 24 * 3600;

/// A role to be given or taken.
#[derive(Debug, Clone, Copy)]
struct Giving {
    entity: Name,
    who: Option<Who>,
    part: Option<Name>,
    rank: Option<Rank>,
}

impl Model {
    pub(crate) fn change(&mut self, caller: Option<&Caller>, operation: &Operation) -> Or<Answer> {
        let number = operation.number;
        match operation.act.clone() {
            Act::MakeGroup { name, private } => self.make_group(caller, name, private),
            Act::MakeEntity { name } => self.make_entity(caller, name),
            Act::MakeCollection { at, private } => self.make_collection(caller, at, private),
            Act::MakeContainer { at, private } => self.make_container(caller, at, private),
            Act::Push { at, image } => self.push(caller, number, (at, image)),
            Act::PushManifest { at, tag } => self.push_manifest(caller, at, tag),
            Act::SetTag { at, tag, image } => self.set_tag(caller, at, (tag, image)),
            Act::Delete { at, which } => self.delete(caller, at, which),
            Act::Remove { what, how } => self.remove(caller, what, how),
            Act::SetEntity { entity, private } => {
                let there = self.entities.contains_key(entity);
                self.must_manage(caller, Place::Entity(entity), there)?;
                self.entities.entry(entity).or_default().private = private;
                Ok(Answer::Done)
            }
            Act::SetCollection { at: (entity, name), private } => {
                let there = self.entities.get(entity).is_some_and(|entity| entity.collections.contains_key(name));
                self.must_manage(caller, Place::Collection(entity, name), there)?;
                self.entities.entry(entity).or_default().collections.insert(name, private);
                Ok(Answer::Done)
            }
            Act::SetContainer { at, open, read_only } => {
                self.must_manage(caller, Place::Repository(at.0, at.1), self.repository(at).is_some())?;
                let repository = self.repository_mut(at)?;
                repository.open = open.unwrap_or(repository.open);
                repository.read_only = read_only.unwrap_or(repository.read_only);
                Ok(Answer::Done)
            }
            Act::Freeze { at, tag, frozen } => {
                let there = self.repository(at).is_some_and(|repository| repository.tags.contains_key(tag));
                self.must_manage(caller, Place::Repository(at.0, at.1), there)?;
                self.repository_mut(at)?.tags.entry(tag).and_modify(|tag| tag.frozen = frozen);
                Ok(Answer::Done)
            }
            Act::SetRole { entity, who, part, rank } => {
                self.set_role(caller, Giving { entity, who: Some(who), part, rank })
            }
            Act::RemoveMember { entity, who } => self.remove_member(caller, entity, who),
            Act::MakeRobot { entity, name, part, rank } => self.make_robot(
                caller,
                name,
                Giving { entity, who: Some(Who::Robot(entity, name)), part, rank: Some(rank) },
            ),
            Act::RemoveRobot { entity, name } => self.remove_robot(caller, entity, name),
            Act::RevokeToken { of, token } => self.revoke_token(caller, of, token),
            Act::Invite { entity, part, rank, most, life } => {
                let giving = Giving { entity, who: None, part, rank: Some(rank) };
                self.invite(caller, giving, (number, most, life))
            }
            Act::Revoke { entity, invitation } => self.revoke(caller, entity, invitation),
            Act::Accept { entity, invitation, secret } => self.accept(caller, entity, invitation, secret),
            Act::AddUser { name, admin } => self.add_user(caller, name, admin),
            Act::Disable { name, disabled } => self.disable(caller, name, disabled),
            Act::Share { at, which, life, most } => self.share(caller, number, at, (which, life, most)),
            Act::RevokeShare { share } => self.revoke_share(caller, share),
            act => unreachable!("{act:?} changes nothing"),
        }
    }

    fn repository_mut(&mut self, at: (Name, Name)) -> Or<&mut Repository> {
        self.entities.get_mut(at.0).and_then(|entity| entity.repositories.get_mut(at.1)).ok_or(Answer::Missing)
    }

    fn make_group(&mut self, caller: Option<&Caller>, name: Name, private: bool) -> Or<Answer> {
        let caller = caller.ok_or(Answer::Login)?;
        let user =
            caller.who.user().filter(|_| caller.covers(Need::Manage, Place::Entity(name))).ok_or(Answer::Forbidden)?;
        if self.entities.contains_key(name) {
            return Err(Answer::Conflict);
        }
        if !caller.operates() {
            let freed = !self.removed.contains(name);
            let own = self.users.get_mut(user).filter(|user| user.groups < GROUPS).ok_or(Answer::Forbidden)?;
            if !freed {
                return Err(Answer::Conflict);
            }
            own.groups += 1;
        }
        self.group_made(user, name, private);
        Ok(Answer::Done)
    }

    fn group_made(&mut self, user: Name, name: Name, private: bool) {
        let admin = Roles { whole: Some(Rank::Admin), ..Roles::default() };
        let members = [(Who::User(user), admin)].into();
        let entity = Entity { private, by: Some(user), members, ..Entity::default() };
        self.removed.remove(name);
        self.entities.insert(name, entity);
    }

    /// As a push does: what is there and seen is returned.
    fn make_entity(&mut self, caller: Option<&Caller>, name: Name) -> Or<Answer> {
        let there = self.entities.contains_key(name);
        if there && self.may_read(caller, Need::See, Place::Entity(name)) {
            return Ok(Answer::Done);
        }
        let caller = caller.ok_or(Answer::Login)?;
        let user = caller.who.user().ok_or(Answer::Forbidden)?;
        if !caller.covers(Need::Create, Place::Entity(name)) || !caller.operates() {
            return Err(Answer::Forbidden);
        }
        self.group_made(user, name, false);
        Ok(Answer::Done)
    }

    /// An id that leads nowhere answers as one that is hidden.
    fn nowhere(caller: Option<&Caller>) -> Answer {
        if caller.is_some() { Answer::Forbidden } else { Answer::Login }
    }

    fn make_collection(&mut self, caller: Option<&Caller>, at: (Name, Name), private: bool) -> Or<Answer> {
        let (entity, name) = at;
        let parent = self.entities.get(entity).ok_or_else(|| Self::nowhere(caller))?;
        let (place, inside) = (Place::Collection(entity, name), parent.private);
        let kept = match parent.collections.get(name).copied() {
            Some(kept) if self.may_read(caller, Need::See, place) => kept,
            kept => {
                self.must(caller, Need::Create, place, Rank::Contributor)?;
                let made = kept.unwrap_or(private || inside);
                self.entities.entry(entity).or_default().collections.insert(name, made);
                made
            }
        };
        if private && !kept { Err(Answer::Conflict) } else { Ok(Answer::Done) }
    }

    fn make_container(&mut self, caller: Option<&Caller>, at: (Name, Name), private: bool) -> Or<Answer> {
        let (entity, path) = at;
        let there =
            self.entities.get(entity).is_some_and(|entity| entity.collections.contains_key(collection_of(path)));
        if !there {
            return Err(Self::nowhere(caller));
        }
        let place = Place::Repository(entity, path);
        let kept = match self.repository(at) {
            Some(kept) if self.may_read(caller, Need::See, place) => kept.open,
            kept => {
                let kept = kept.map(|kept| kept.open);
                self.must(caller, Need::Create, place, Rank::Contributor)?;
                let open = if private { Openness::Private } else { Openness::Public };
                kept.unwrap_or_else(|| self.repository_made(at, open))
            }
        };
        if private && kept != Openness::Private { Err(Answer::Conflict) } else { Ok(Answer::Done) }
    }

    fn repository_made(&mut self, at: (Name, Name), open: Openness) -> Openness {
        let open = self.openness(at, open);
        let repository =
            Repository { open, read_only: false, images: [].into(), tags: [].into(), used: false, manifest: false };
        self.entities.entry(at.0).or_default().repositories.insert(at.1, repository);
        open
    }

    /// Refuses whoever may not push into a repository, and everybody if it is read-only.
    fn must_push<'a>(&self, caller: Option<&'a Caller>, at: (Name, Name)) -> Or<&'a Caller> {
        let repository = self.repository(at).ok_or_else(|| Self::nowhere(caller))?;
        let caller = self.must(caller, Need::Push, Place::Repository(at.0, at.1), Rank::Contributor)?;
        if repository.read_only && !self.permitted { Err(Answer::Forbidden) } else { Ok(caller) }
    }

    /// Bytes that the pusher could pull from an entity of theirs need not come again.
    fn push(&mut self, caller: Option<&Caller>, made: Made, (at, image): ((Name, Name), usize)) -> Or<Answer> {
        let caller = self.must_push(caller, at)?;
        let there = self.repository(at).is_some_and(|repository| repository.images.contains_key(&image));
        let holds = |entity: Name| {
            let pulls = self.rank(caller, Need::Pull, Place::Entity(entity)) >= Some(Rank::Reader);
            pulls && self.entities[entity].repositories.values().any(|one| one.images.contains_key(&image))
        };
        let known = there || self.memberships(caller.who).any(holds);
        let repository = self.repository_mut(at)?;
        repository.used = true;
        repository.images.entry(image).or_insert(Image { by: caller.who, made });
        Ok(Answer::shown([(if known { "known" } else { "sent" }).to_owned()]))
    }

    /// Through the registry, which makes the repository.
    fn push_manifest(&mut self, caller: Option<&Caller>, at: (Name, Name), tag: Name) -> Or<Answer> {
        let (there, place) = (self.repository(at).cloned(), Place::Repository(at.0, at.1));
        let need = if there.is_some() { Need::Push } else { Need::Create };
        self.must(caller, need, place, Rank::Contributor)?;
        let frozen = there.as_ref().and_then(|there| there.tags.get(tag)).is_some_and(|tag| tag.frozen);
        if frozen || there.as_ref().is_some_and(|there| there.read_only) {
            return Err(Answer::Forbidden);
        }
        if !self.entities.contains_key(at.0) {
            return Err(Answer::Missing);
        }
        if there.is_none() {
            // The tag of a push needs the right to push, too.
            self.repository_made(at, Openness::Internal);
        }
        let repository = self.repository_mut(at)?;
        (repository.used, repository.manifest) = (true, true);
        repository.tags.insert(tag, Tag { image: None, frozen: false });
        Ok(Answer::Done)
    }

    fn set_tag(&mut self, caller: Option<&Caller>, at: (Name, Name), (tag, image): (Name, usize)) -> Or<Answer> {
        self.must_push(caller, at)?;
        let repository = self.repository_mut(at)?;
        if repository.tags.get(tag).is_some_and(|tag| tag.frozen) {
            return Err(Answer::Forbidden);
        }
        if !repository.images.contains_key(&image) {
            return Err(Answer::Missing);
        }
        repository.tags.insert(tag, Tag { image: Some(image), frozen: false });
        Ok(Answer::Done)
    }

    /// Contributors delete what they pushed themselves, admins everything. What is missing is said to both.
    fn delete(&mut self, caller: Option<&Caller>, at: (Name, Name), which: Which) -> Or<Answer> {
        let place = Place::Repository(at.0, at.1);
        let caller = self.must(caller, Need::Delete, place, Rank::Contributor)?;
        let image = self.image_of(at, which).ok_or(Answer::Missing)?;
        let repository = self.repository(at).ok_or(Answer::Missing)?;
        let own = repository.images[&image].by == caller.who;
        let frozen = repository.tags.values().any(|tag| tag.frozen && tag.image == Some(image));
        let may = own || self.permitted || self.rank(caller, Need::Delete, place) >= Some(Rank::Admin);
        if !may || repository.read_only || frozen {
            return Err(Answer::Forbidden);
        }
        let repository = self.repository_mut(at)?;
        repository.images.remove(&image);
        repository.tags.retain(|_, tag| tag.image != Some(image));
        Ok(Answer::Done)
    }

    /// Roles that nobody can give.
    fn can_be_given(&self, giving: Giving) -> Or<()> {
        let Some(rank) = giving.rank else { return Ok(()) };
        let personal = self.entities.get(giving.entity).is_some_and(|entity| entity.personal);
        let impossible = match giving.who {
            _ if rank == Rank::Owner => true,
            Some(Who::User(name)) if name == giving.entity => true,
            Some(Who::Robot(home, _)) if home != giving.entity || rank == Rank::Admin => true,
            _ => rank == Rank::Admin && personal,
        };
        if impossible { Err(Answer::Invalid) } else { Ok(()) }
    }

    /// Refuses whoever may not give roles on a part. A token for one repository gives none.
    fn must_give<'a>(&self, caller: Option<&'a Caller>, giving: Giving) -> Or<&'a Caller> {
        let place = Place::part(giving.entity, giving.part);
        let caller = self.must(caller, Need::Manage, place, Rank::Admin)?;
        if matches!(caller.scope.at, At::Repository(..)) {
            return Err(Answer::Forbidden);
        }
        if self.entities.contains_key(giving.entity) { Ok(caller) } else { Err(Answer::Missing) }
    }

    fn set_role(&mut self, caller: Option<&Caller>, giving: Giving) -> Or<Answer> {
        self.must_give(caller, giving)?;
        self.can_be_given(giving)?;
        let Giving { entity, who: Some(who), part, rank } = giving else { return Err(Answer::Invalid) };
        let roles = self.entities.get(entity).and_then(|entity| entity.members.get(&who));
        match (rank, roles, who) {
            (Some(_), _, _) if self.account(who).is_none() => return Err(Answer::Missing),
            (None, None, _) => return Err(Answer::Missing),
            (None, _, Who::User(name)) if part.is_none() && name == entity => return Err(Answer::Invalid),
            _ => {}
        }
        let mut roles = roles.cloned().unwrap_or_default();
        roles.set(part, rank);
        // A robot without a role would be in no list, and keep its name.
        if matches!(who, Who::Robot(..)) && roles.is_empty() {
            return Err(Answer::Invalid);
        }
        self.roles_set(entity, who, roles)
    }

    /// Sets somebody's roles, but for the last admin of a group.
    fn roles_set(&mut self, entity: Name, who: Who, roles: Roles) -> Or<Answer> {
        let entity = self.entities.get_mut(entity).ok_or(Answer::Missing)?;
        let was = entity.members.get(&who).is_some_and(|roles| roles.whole == Some(Rank::Admin));
        if was && roles.whole != Some(Rank::Admin) && entity.admins() == 1 && !entity.personal {
            return Err(Answer::Conflict);
        }
        if roles.is_empty() {
            entity.members.remove(&who);
        } else {
            entity.members.insert(who, roles);
        }
        Ok(Answer::Done)
    }

    fn remove_member(&mut self, caller: Option<&Caller>, entity: Name, who: Who) -> Or<Answer> {
        let caller = caller.ok_or(Answer::Login)?;
        if caller.who == who {
            let may = caller.covers(Need::Belong, Place::Entity(entity))
                && (self.permitted || !self.roles(who, entity).is_empty());
            if !may {
                return Err(Answer::Forbidden);
            }
        } else {
            self.must_manage(Some(caller), Place::Entity(entity), self.entities.contains_key(entity))?;
        }
        if matches!(who, Who::Robot(..)) || who == Who::User(entity) {
            return Err(Answer::Invalid);
        }
        let there = self.entities.get(entity).is_some_and(|entity| entity.members.contains_key(&who));
        if there { self.roles_set(entity, who, Roles::default()) } else { Err(Answer::Missing) }
    }

    fn make_robot(&mut self, caller: Option<&Caller>, name: Name, giving: Giving) -> Or<Answer> {
        self.must(caller, Need::Manage, Place::Entity(giving.entity), Rank::Admin)?;
        if !self.entities.contains_key(giving.entity) {
            return Err(Answer::Missing);
        }
        self.can_be_given(giving)?;
        let entity = self.entities.entry(giving.entity).or_default();
        if !entity.robots.insert(name) {
            return Err(Answer::Conflict);
        }
        let mut roles = Roles::default();
        roles.set(giving.part, giving.rank);
        entity.members.insert(Who::Robot(giving.entity, name), roles);
        Ok(Answer::Done)
    }

    fn remove_robot(&mut self, caller: Option<&Caller>, entity: Name, name: Name) -> Or<Answer> {
        self.must(caller, Need::Manage, Place::Entity(entity), Rank::Admin)?;
        let robot = Who::Robot(entity, name);
        let entity =
            self.entities.get_mut(entity).filter(|entity| entity.robots.contains(name)).ok_or(Answer::Missing)?;
        entity.robots.remove(name);
        entity.members.remove(&robot);
        self.tokens.retain(|_, token| token.of != robot);
        Ok(Answer::Done)
    }

    /// A robot's token is for its own entity, and manages nothing.
    pub(crate) fn robots_scope(of: Who, scope: Option<&Scope>) -> Or<()> {
        let (Who::Robot(home, _), Some(scope)) = (of, scope) else { return Ok(()) };
        let inside = matches!(scope.at, At::Entity(entity) | At::Repository(entity, _) if entity == home);
        if inside && !scope.has(Right::Manage) { Ok(()) } else { Err(Answer::Invalid) }
    }

    /// No token has more rights than the one that makes it, nor lives longer.
    pub(crate) fn make_token(
        &mut self,
        caller: Option<&Caller>,
        made: Made,
        (of, scope, life): (Who, Option<Scope>, Option<i64>),
    ) -> Or<Answer> {
        let caller = self.must_hold(caller, of)?;
        let scope = scope.unwrap_or_else(|| match of {
            Who::User(_) => Scope::full(),
            Who::Robot(entity, _) => Scope { rights: vec![Right::Pull, Right::Push], at: At::Entity(entity) },
        });
        let ends = life.map(|life| self.now + life);
        let longer = caller.until.is_some_and(|until| ends.is_none_or(|ends| ends > until));
        if caller.access.is_some() || !caller.scope.has_all_of(&scope) || longer {
            return Err(Answer::Forbidden);
        }
        self.tokens.insert(made, Token { of, scope, ends });
        Ok(Answer::Done)
    }

    fn revoke_token(&mut self, caller: Option<&Caller>, of: Who, token: Made) -> Or<Answer> {
        self.must_hold(caller, of)?;
        if self.tokens.get(&token).is_none_or(|row| row.of != of) {
            return Err(Answer::Missing);
        }
        self.tokens.remove(&token);
        Ok(Answer::Done)
    }

    fn invite(&mut self, caller: Option<&Caller>, giving: Giving, (made, most, life): (Made, u64, i64)) -> Or<Answer> {
        let caller = self.must_give(caller, giving)?;
        let (Some(by), Some(rank)) = (caller.who.user(), giving.rank) else { return Err(Answer::Invalid) };
        self.can_be_given(giving)?;
        let ends = caller.until.map_or(self.now + life, |until| until.min(self.now + life));
        let Giving { entity, part, .. } = giving;
        let entity = self.entities.get_mut(entity).ok_or(Answer::Missing)?;
        if entity.invitations.len() >= INVITATIONS {
            return Err(Answer::Conflict);
        }
        let invitation = Invitation { part, rank, most, uses: 0, by, token: caller.token, ends };
        entity.invitations.insert(made, invitation);
        Ok(Answer::Done)
    }

    fn revoke(&mut self, caller: Option<&Caller>, entity: Name, invitation: Made) -> Or<Answer> {
        let there = self.entities.get(entity).and_then(|entity| entity.invitations.get(&invitation));
        let part = there.and_then(|there| there.part);
        self.must(caller, Need::Manage, Place::part(entity, part), Rank::Admin)?;
        let entity = self.entities.get_mut(entity).ok_or(Answer::Missing)?;
        entity.invitations.remove(&invitation).map(|_| Answer::Done).ok_or(Answer::Missing)
    }

    /// An invitation holds as long as its maker may give that role, with the token that made it.
    fn holds(&self, entity: Name, invitation: &Invitation) -> bool {
        let by = Who::User(invitation.by);
        let token = invitation.token.map(|token| self.tokens.get(&token));
        let Some(admin) = self.account(by) else { return false };
        let scope = match token {
            None => Scope::full(),
            Some(Some(row)) if row.ends.is_none_or(|ends| ends > self.now) => row.scope.clone(),
            Some(_) => return false,
        };
        let maker = Caller { who: by, admin, scope, access: None, until: None, token: None };
        self.rank(&maker, Need::Manage, Place::part(entity, invitation.part)) >= Some(Rank::Admin)
    }

    /// Whether an invitation can bring somebody in at this moment.
    pub(crate) fn is_good(&self, entity: Name, invitation: Made) -> bool {
        let shown = self.entities.get(entity).and_then(|entity| entity.invitations.get(&invitation));
        shown.is_some_and(|shown| self.holds(entity, shown))
    }

    fn accept(&mut self, caller: Option<&Caller>, entity: Name, invitation: Made, secret: bool) -> Or<Answer> {
        let caller = caller.ok_or(Answer::Login)?;
        if !caller.covers(Need::Belong, Place::Entity(entity)) {
            return Err(Answer::Forbidden);
        }
        let shown = self.entities.get(entity).and_then(|entity| entity.invitations.get(&invitation)).cloned();
        let shown = shown.filter(|shown| secret && shown.ends > self.now && caller.who.user().is_some());
        let shown = shown.ok_or(Answer::Missing)?;
        let mut roles = self.roles(caller.who, entity);
        let already = roles.at(Place::part(entity, shown.part)) >= Some(shown.rank);
        let held = self.holds(entity, &shown) || (already && self.permitted);
        if !held {
            return Err(Answer::Missing);
        }
        if already {
            return Ok(Answer::Done);
        }
        if shown.uses >= shown.most {
            return Err(Answer::Missing);
        }
        roles.set(shown.part, Some(shown.rank));
        self.roles_set(entity, caller.who, roles)?;
        let row = self.entities.entry(entity).or_default().invitations.get_mut(&invitation);
        row.ok_or(Answer::Missing)?.uses += 1;
        Ok(Answer::Done)
    }

    fn add_user(&mut self, caller: Option<&Caller>, name: Name, admin: bool) -> Or<Answer> {
        let caller = Self::must_operate(caller)?;
        if admin && !caller.is_whole() {
            return Err(Answer::Forbidden);
        }
        if self.entities.contains_key(name) {
            return Err(Answer::Conflict);
        }
        self.user_added(name, admin);
        Ok(Answer::Done)
    }

    fn disable(&mut self, caller: Option<&Caller>, name: Name, disabled: bool) -> Or<Answer> {
        let caller = Self::must_own(caller, name)?;
        if !self.users.contains_key(name) {
            return Err(Answer::Missing);
        }
        Self::must_operate(Some(caller))?;
        if !disabled && !caller.is_whole() {
            return Err(Answer::Forbidden);
        }
        self.users.entry(name).and_modify(|user| user.disabled = disabled);
        Ok(Answer::Done)
    }

    /// Whoever may push there shares, with a token that may pull there, too.
    fn share(
        &mut self,
        caller: Option<&Caller>,
        made: Made,
        at: (Name, Name),
        (which, life, most): (Which, Option<i64>, Option<u64>),
    ) -> Or<Answer> {
        let caller = self.must(caller, Need::Push, Place::Repository(at.0, at.1), Rank::Contributor)?;
        if self.repository(at).is_none() {
            return Err(Answer::Missing);
        }
        if !self.may_read_in(Some(caller), Need::Pull, at) || caller.access.is_some() {
            return Err(Answer::Forbidden);
        }
        let ends = match life {
            Some(life) if life <= 0 || life > LONGEST_SHARE => return Err(Answer::Invalid),
            Some(life) if caller.until.is_some_and(|until| self.now + life > until) => return Err(Answer::Forbidden),
            Some(life) => self.now + life,
            None => caller.until.map_or(self.now + SHARE_LIFE, |until| until.min(self.now + SHARE_LIFE)),
        };
        let image = self.image_of(at, which).ok_or(Answer::Missing)?;
        let image = self.repository(at).and_then(|repository| repository.images.get(&image)).cloned();
        let share = Share {
            at,
            image: image.ok_or(Answer::Missing)?,
            by: caller.who,
            token: caller.token,
            ends,
            most,
            uses: 0,
        };
        self.shares.insert(made, share);
        Ok(Answer::Done)
    }

    /// A share gives what its maker may do there at this moment.
    pub(crate) fn use_share(&mut self, made: Made) -> Or<Answer> {
        let share = self.shares.get(&made).cloned().ok_or(Answer::Missing)?;
        let over = share.ends <= self.now || share.most.is_some_and(|most| share.uses >= most);
        let scope = match share.token {
            None => Some(Scope::full()),
            Some(token) => {
                let row = self.tokens.get(&token).filter(|row| row.ends.is_none_or(|ends| ends > self.now));
                row.map(|row| row.scope.clone())
            }
        };
        let place = Place::Repository(share.at.0, share.at.1);
        let (Some(admin), Some(scope), false) = (self.account(share.by), scope, over) else { return Err(Answer::Gone) };
        let maker = Caller { who: share.by, admin, scope, access: None, until: None, token: None };
        let shares = self.rank(&maker, Need::Push, place) >= Some(Rank::Contributor);
        let pulls = self.may_read_in(Some(&maker), Need::Pull, share.at);
        let same =
            self.repository(share.at).is_some_and(|there| there.images.values().any(|image| *image == share.image));
        if !shares || !pulls || !same {
            return Err(Answer::Gone);
        }
        self.shares.entry(made).and_modify(|share| share.uses += 1);
        Ok(Answer::Done)
    }

    /// Their makers revoke shares, as long as they could make them, and whoever manages the repository.
    fn revoke_share(&mut self, caller: Option<&Caller>, made: Made) -> Or<Answer> {
        let caller = caller.ok_or(Answer::Login)?;
        let share = self.shares.get(&made).ok_or(Answer::Missing)?;
        let place = Place::Repository(share.at.0, share.at.1);
        let manages = self.rank(caller, Need::Manage, place) >= Some(Rank::Admin);
        let own = share.by == caller.who && self.rank(caller, Need::Push, place) >= Some(Rank::Contributor);
        if !manages && !own {
            return Err(Answer::Missing);
        }
        self.shares.remove(&made);
        Ok(Answer::Done)
    }
}
