//! What the model answers to whoever deletes something with everything in it: `docs/user/deleting.md`.

use crate::model::{Answer, Model, Or};
use crate::operation::{How, What};
use crate::rules::{Caller, Name, Need, Place, Rank, Who};

impl Model {
    /// Admins delete, and site admins users. To force it is to manage it first.
    pub(crate) fn remove(&mut self, caller: Option<&Caller>, what: What, how: How) -> Or<Answer> {
        let there = self.entities.get(what.entity());
        let (place, there) = match what {
            What::Repository(entity, path) => {
                (Place::Repository(entity, path), self.repository((entity, path)).is_some())
            }
            What::Collection(entity, name) => {
                (Place::Collection(entity, name), there.is_some_and(|there| there.collections.contains_key(name)))
            }
            What::Entity(entity) => (Place::Entity(entity), there.is_some()),
            What::User(_) => (Place::Site, true),
        };
        if let What::User(_) = what {
            let caller = caller.ok_or(Answer::Login)?;
            let may = |need| caller.operates() && caller.covers(need, Place::Site);
            if !may(Need::Delete) || (how.force && !may(Need::Manage)) {
                return Err(Answer::Forbidden);
            }
        } else {
            self.must_remove(caller, place, there)?;
            let protected = matches!(what, What::Repository(entity, path)
                if self.repository((entity, path)).is_some_and(|one| one.read_only));
            if protected && !how.force && !how.dry {
                return Err(Answer::Forbidden);
            }
            if how.force {
                self.must_manage(caller, place, there)?;
            }
        }
        self.can_go(caller, what, how)?;
        self.goes(what, how)
    }

    /// Refuses whoever may not delete a place. That it is not there is said to whoever could push there.
    fn must_remove(&self, caller: Option<&Caller>, place: Place, there: bool) -> Or<()> {
        let least = if there { Rank::Admin } else { Rank::Contributor };
        self.must(caller, Need::Delete, place, least)?;
        if there { Ok(()) } else { Err(Answer::Missing) }
    }

    /// What goes only with something else, or not at all.
    fn can_go(&self, caller: Option<&Caller>, what: What, how: How) -> Or<()> {
        match what {
            What::Entity(name) if self.entities[name].personal => Err(Answer::Conflict),
            What::User(name) => {
                if !self.users.contains_key(name) {
                    return Err(Answer::Missing);
                }
                let last = |group: &crate::model::Entity| {
                    let own = group.members.get(&Who::User(name)).is_some_and(|roles| roles.whole == Some(Rank::Admin));
                    own && !group.personal && group.admins() <= 1
                };
                let itself = caller.is_some_and(|caller| caller.who == Who::User(name));
                if itself || (!how.force && self.entities.values().any(last)) {
                    return Err(Answer::Conflict);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Deletes it, unless something in it is in the way.
    fn goes(&mut self, what: What, how: How) -> Or<Answer> {
        let name = what.entity();
        let entity = self.entities.get_mut(name).ok_or(Answer::Missing)?;
        let inside = || entity.repositories.iter().filter(|(path, _)| what.has(path));
        let empty = match what {
            What::Repository(..) => inside().all(|(_, one)| !one.is_full()),
            What::Collection(..) => inside().count() == 0,
            What::Entity(_) | What::User(_) => entity.repositories.is_empty() && entity.collections.is_empty(),
        };
        let protected = inside().any(|(_, one)| one.read_only || one.tags.values().any(|tag| tag.frozen));
        if how.dry {
            return Ok(Answer::Done);
        }
        if !how.cascade && !empty {
            return Err(Answer::Full);
        }
        if protected && !how.force {
            return Err(Answer::Forbidden);
        }
        entity.repositories.retain(|path, _| !what.has(path));
        self.shares.retain(|_, share| share.at.0 != name || !what.has(share.at.1));
        match what {
            What::Repository(..) => {}
            What::Collection(_, collection) => drop(entity.collections.remove(collection)),
            What::Entity(_) | What::User(_) => self.entity_goes(name),
        }
        if let What::User(name) = what {
            self.user_goes(name);
        }
        Ok(Answer::Done)
    }

    fn entity_goes(&mut self, name: Name) {
        let gone = self.entities.remove(name);
        let maker = gone.filter(|gone| !gone.personal).and_then(|gone| gone.by).and_then(|by| self.users.get_mut(by));
        if let Some(maker) = maker {
            maker.groups = maker.groups.saturating_sub(1);
        }
        self.tokens.retain(|_, token| !matches!(token.of, Who::Robot(home, _) if home == name));
        self.removed.insert(name);
    }

    fn user_goes(&mut self, name: Name) {
        self.users.remove(name);
        self.tokens.retain(|_, token| token.of != Who::User(name));
        for entity in self.entities.values_mut() {
            entity.members.remove(&Who::User(name));
        }
    }
}
