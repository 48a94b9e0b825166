//! What the model answers to requests that change nothing.

use crate::model::{Answer, Listed, Model, Or};
use crate::operation::{ADMIN, Act, Openness, Which};
use crate::rules::{Caller, Name, Need, Place, Rank, Roles, Who, collection_of, is_container};

/// Somebody's name, as it is shown.
pub(crate) fn shown(who: Who) -> String {
    match who {
        Who::User(name) => name.to_owned(),
        Who::Robot(entity, name) => format!("{entity}+{name}"),
    }
}

/// Somebody's roles, as they are shown.
pub(crate) fn shown_roles(who: Who, roles: &Roles) -> String {
    let whole = roles.whole.map(|rank| format!(" {rank:?}"));
    let parts = roles.parts.iter().map(|(part, rank)| format!(" {rank:?} of {part}"));
    let said: String = whole.into_iter().chain(parts).collect();
    format!("{}{said}", shown(who))
}

impl Model {
    /// The answer, if the request changes nothing.
    pub(crate) fn read(&self, caller: Option<&Caller>, act: &Act) -> Option<Or<Answer>> {
        Some(match *act {
            Act::WhoAmI => caller.map(|caller| Answer::shown([shown(caller.who)])).ok_or(Answer::Login),
            Act::SeeEntity { entity } => self.see_entity(caller, entity),
            Act::SeeCollection { at: (entity, name) } => {
                let there = self.entities.get(entity).is_some_and(|entity| entity.collections.contains_key(name));
                let seen = there && self.may_read(caller, Need::See, Place::Collection(entity, name));
                if seen { Ok(Answer::Done) } else { Err(Answer::Missing) }
            }
            Act::SeeContainer { at } => self.see_container(caller, at),
            Act::Find { at, which, download } => self.find(caller, at, which, download),
            Act::Tags { at } => self.tags(caller, at),
            Act::Images { at } => self.images(caller, at),
            Act::Head { at, tag } => self.registry_read(caller, at, Some(tag)),
            Act::RegistryTags { at } => self.registry_read(caller, at, None),
            Act::Entities => Ok(self.list_entities(caller)),
            Act::Collections { entity } => self.collections(caller, entity, false),
            Act::UsedCollections { entity } => self.collections(caller, entity, true),
            Act::Containers { entity, collection } => self.containers(caller, entity, collection),
            Act::UsedContainers { at } => self.used_containers(caller, at),
            Act::Catalog => self.catalog(caller),
            Act::Search { text } => Ok(self.search(caller, text)),
            Act::Members { entity } => self.members(caller, entity),
            Act::Robots { entity } => self.managed(caller, entity, |model| {
                let entity = model.entities.get(entity);
                entity.into_iter().flat_map(|entity| entity.robots.iter()).map(|name| (*name).to_owned()).collect()
            }),
            Act::Invitations { entity } => self.managed(caller, entity, |model| {
                let said = model.entities.get(entity).into_iter().flat_map(|entity| &entity.invitations);
                let said =
                    said.map(|(made, one)| format!("{made} {:?} {:?} {}/{}", one.rank, one.part, one.uses, one.most));
                said.collect()
            }),
            Act::Tokens { of } => self.tokens_of(caller, of),
            Act::Shares { at } => self.shares_of(caller, at),
            Act::EntityLog { entity } => {
                // That of one that was deleted is for site admins.
                let there = self.entities.contains_key(entity) || Self::must_operate(caller).is_ok();
                self.must_manage(caller, Place::Entity(entity), there).map(|_| Answer::Done)
            }
            Act::UserLog { name } => Self::must_own(caller, name).map(|_| Answer::Done),
            Act::SiteLog => Self::must_operate(caller).map(|_| Answer::Done),
            _ => return None,
        })
    }

    /// Whether an entity shows what all of it uses: to members of the whole, and to site admins.
    fn shows_quota(&self, caller: &Caller, entity: Name) -> bool {
        // The first site admin has no quota.
        (self.roles(caller.who, entity).whole.is_some() || caller.operates()) && entity != ADMIN
    }

    fn see_entity(&self, caller: Option<&Caller>, entity: Name) -> Or<Answer> {
        let seen = self.entities.contains_key(entity) && self.may_read(caller, Need::See, Place::Entity(entity));
        let caller = caller.filter(|_| seen).ok_or(Answer::Missing)?;
        Ok(Answer::shown([format!("quota {}", self.shows_quota(caller, entity))]))
    }

    fn see_container(&self, caller: Option<&Caller>, at: (Name, Name)) -> Or<Answer> {
        if !self.may_read_in(caller, Need::See, at) {
            return Err(Answer::Missing);
        }
        let repository = self.repository(at).ok_or(Answer::Missing)?;
        let images = repository.images.keys().map(|image| format!("image {image}"));
        let settings = format!("{:?} {}", repository.open, repository.read_only);
        Ok(Answer::shown(images.chain(self.shown_tags(at)).chain([settings])))
    }

    fn shown_tags(&self, at: (Name, Name)) -> impl Iterator<Item = String> {
        let tags = self.repository(at).into_iter().flat_map(|repository| &repository.tags);
        tags.map(|(name, tag)| format!("{name} {:?} {}", tag.image, tag.frozen))
    }

    /// The image of a reference, in a repository that is there.
    pub(crate) fn image_of(&self, at: (Name, Name), which: Which) -> Option<usize> {
        let repository = self.repository(at)?;
        let image = match which {
            Which::Image(image) => image,
            Which::Tag(tag) => repository.tags.get(tag)?.image?,
        };
        repository.images.contains_key(&image).then_some(image)
    }

    fn find(&self, caller: Option<&Caller>, at: (Name, Name), which: Which, download: bool) -> Or<Answer> {
        let need = if download { Need::Pull } else { Need::See };
        if !self.may_read_in(caller, need, at) {
            return Err(Answer::Missing);
        }
        let image = self.image_of(at, which).ok_or(Answer::Missing)?;
        Ok(Answer::shown([format!("image {image}")]))
    }

    fn tags(&self, caller: Option<&Caller>, at: (Name, Name)) -> Or<Answer> {
        let seen = self.may_read_in(caller, Need::See, at);
        if seen { Ok(Answer::shown(self.shown_tags(at))) } else { Err(Answer::Missing) }
    }

    fn images(&self, caller: Option<&Caller>, at: (Name, Name)) -> Or<Answer> {
        let listed = self.may_read(caller, Need::List, Place::Repository(at.0, at.1));
        let repository = self.repository(at).filter(|_| listed).ok_or(Answer::Missing)?;
        Ok(Answer::shown(repository.images.keys().map(|image| format!("image {image}"))))
    }

    /// In the registry, 404 is for whoever could read a private repository there.
    fn registry_read(&self, caller: Option<&Caller>, at: (Name, Name), tag: Option<Name>) -> Or<Answer> {
        if !self.may_read_in(caller, Need::Pull, at) {
            let reads = self.may_read(caller, Need::Pull, Place::Repository(at.0, at.1));
            let refused = if caller.is_some() { Answer::Forbidden } else { Answer::Login };
            return Err(if reads { Answer::Missing } else { refused });
        }
        let repository = self.repository(at).ok_or(Answer::Missing)?;
        match tag {
            None => Ok(Answer::shown(repository.tags.keys().map(|tag| (*tag).to_owned()))),
            Some(tag) => repository.tags.get(tag).map(|_| Answer::Done).ok_or(Answer::Missing),
        }
    }

    fn list_entities(&self, caller: Option<&Caller>) -> Answer {
        let Some(caller) = caller else { return Answer::shown([]) };
        let listed = self.memberships(caller.who).filter(|entity| !self.listed(Some(caller), entity, true).is_empty());
        Answer::shown(listed.map(|entity| format!("{entity} quota {}", self.shows_quota(caller, entity))))
    }

    /// What a caller may list of an entity, if it is anything.
    fn must_list(&self, caller: Option<&Caller>, entity: Name) -> Or<Listed> {
        let listed = self.listed(caller, entity, true);
        let seen = self.entities.contains_key(entity) && !listed.is_empty();
        if seen { Ok(listed) } else { Err(Answer::Missing) }
    }

    /// The collections, with `used` only those that have something that is listed.
    fn collections(&self, caller: Option<&Caller>, entity: Name, used: bool) -> Or<Answer> {
        let listed = self.must_list(caller, entity)?;
        let entity = self.entities.get(entity).ok_or(Answer::Missing)?;
        let some = entity.collections.keys().filter(|name| match &listed {
            Listed::All => true,
            Listed::Parts(parts) if !used => parts.iter().any(|part| collection_of(part) == **name),
            Listed::Parts(_) => {
                let mut inside =
                    entity.repositories.keys().filter(|path| is_container(path) && collection_of(path) == **name);
                listed.has(name) || inside.any(|path| listed.has(path))
            }
        });
        Ok(Answer::shown(some.map(|name| (*name).to_owned())))
    }

    fn containers(&self, caller: Option<&Caller>, entity: Name, collection: Option<Name>) -> Or<Answer> {
        let listed = self.must_list(caller, entity)?;
        let all = self.entities.get(entity).into_iter().flat_map(|entity| entity.repositories.keys());
        let some = all.filter(|path| is_container(path) && listed.has(path));
        let some = some.filter(|path| collection.is_none_or(|name| collection_of(path) == name));
        Ok(Answer::shown(some.map(|path| (*path).to_owned())))
    }

    fn used_containers(&self, caller: Option<&Caller>, (entity, name): (Name, Name)) -> Or<Answer> {
        let there = self.entities.get(entity).filter(|entity| entity.collections.contains_key(name));
        let listed = self.may_read(caller, Need::List, Place::Collection(entity, name));
        let entity = there.filter(|_| listed).ok_or(Answer::Missing)?;
        let some = entity.repositories.keys().filter(|path| is_container(path) && collection_of(path) == name);
        Ok(Answer::shown(some.map(|path| (*path).to_owned())))
    }

    fn catalog(&self, caller: Option<&Caller>) -> Or<Answer> {
        let caller = caller.ok_or(Answer::Login)?;
        let all = self.memberships(caller.who).flat_map(|name| {
            let listed = self.listed(Some(caller), name, false);
            let paths = self.entities.get(name).into_iter().flat_map(|entity| entity.repositories.keys());
            paths.filter(move |path| listed.has(path)).map(move |path| format!("{name}/{path}"))
        });
        Ok(Answer::shown(all))
    }

    /// What has a text in its path, in the caller's entities. No entity's name is in that of another thing.
    fn search(&self, caller: Option<&Caller>, text: Name) -> Answer {
        let Some(caller) = caller else { return Answer::shown([]) };
        let Some(entity) = self.memberships(caller.who).find(|name| *name == text) else { return Answer::shown([]) };
        let listed = self.listed(Some(caller), entity, true);
        let itself = (listed == Listed::All).then(|| format!("entity {entity}"));
        let all = self.entities.get(entity).into_iter().flat_map(|entity| &entity.repositories);
        let found = all.filter(|(path, _)| is_container(path) && listed.has(path)).flat_map(|(path, repository)| {
            let images = repository.images.keys().map(move |image| format!("{path} image {image}"));
            images.chain([format!("container {path}")])
        });
        Answer::shown(found.chain(itself))
    }

    /// The members, and for whoever has a role on a part, the roles on that part.
    fn members(&self, caller: Option<&Caller>, entity: Name) -> Or<Answer> {
        let listed = self.must_list(caller, entity)?;
        let members = self.entities.get(entity).into_iter().flat_map(|entity| &entity.members);
        Ok(Answer::shown(members.filter_map(|(who, roles)| {
            let mut roles = roles.clone();
            if listed != Listed::All {
                roles.whole = None;
                roles.parts.retain(|part, _| listed.has(part));
            }
            (!roles.is_empty()).then(|| shown_roles(*who, &roles))
        })))
    }

    /// A list that is for whoever manages an entity.
    fn managed(&self, caller: Option<&Caller>, entity: Name, list: impl Fn(&Self) -> Vec<String>) -> Or<Answer> {
        self.must_manage(caller, Place::Entity(entity), self.entities.contains_key(entity))?;
        Ok(Answer::shown(list(self)))
    }

    /// Refuses whoever may not manage the tokens of an account, and everybody if there is no such account.
    pub(crate) fn must_hold<'a>(&self, caller: Option<&'a Caller>, of: Who) -> Or<&'a Caller> {
        let (caller, there) = match of {
            Who::User(name) => (Self::must_own(caller, name)?, self.users.contains_key(name)),
            Who::Robot(entity, _) => {
                let caller = self.must(caller, Need::Manage, Place::Entity(entity), Rank::Admin)?;
                (caller, self.account(of).is_some())
            }
        };
        if there { Ok(caller) } else { Err(Answer::Missing) }
    }

    fn tokens_of(&self, caller: Option<&Caller>, of: Who) -> Or<Answer> {
        self.must_hold(caller, of)?;
        let own = self.tokens.iter().filter(|(_, token)| token.of == of);
        Ok(Answer::shown(own.map(|(made, token)| format!("{made} until {:?}", token.ends))))
    }

    fn shares_of(&self, caller: Option<&Caller>, at: (Name, Name)) -> Or<Answer> {
        let caller = caller.ok_or(Answer::Login)?;
        if !self.may_read_in(Some(caller), Need::See, at) {
            return Err(Answer::Missing);
        }
        let place = Place::Repository(at.0, at.1);
        let all = self.rank(caller, Need::Manage, place) >= Some(Rank::Admin);
        let own = self.rank(caller, Need::Push, place) >= Some(Rank::Contributor);
        let some = self.shares.iter().filter(|(_, share)| share.at == at && (all || (own && share.by == caller.who)));
        Ok(Answer::shown(some.map(|(made, share)| {
            let over = share.ends <= self.now || share.most.is_some_and(|most| share.uses >= most);
            format!("{made} {} {over}", share.uses)
        })))
    }

    /// How open something new is.
    pub(crate) fn openness(&self, (entity, path): (Name, Name), open: Openness) -> Openness {
        let Some(entity) = self.entities.get(entity) else { return open };
        let collection = entity.collections.get(collection_of(path)).filter(|_| is_container(path));
        if entity.private || collection == Some(&true) { Openness::Private } else { open }
    }
}
