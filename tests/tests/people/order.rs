//! Looks for an order in which the model gives the answers that many requests at once got (Wing and Gong's search).
//!
//! An order respects time: a request that had its answer before another one began comes before it. Its requests happen
//! whole, one after another. Where there is no such order, each request may be split in two moments of its own time:
//! at the first one it is found permitted, and at the second one it happens, whatever became of its author's role in
//! between. That is what the server promises (docs/decisions/0024-roles-on-parts.md). All other conditions hold at the
//! second moment: the last admin, the uses of an invitation, the role of its maker.
//!
//! What only looks, and what was refused, changes nothing whenever it happens: it is taken as soon as its answer fits,
//! which never takes an order away. What was done is tried in all orders, beginning with the one in which the answers
//! came; the same state after the same requests is looked at once.

use crate::model::{Answer, Model};
use crate::operation::{Act, Operation};
use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

/// How many states are looked at before it gives up.
const MOST: usize = 300_000;

/// A request with its answer, and when it began and ended, in no unit.
#[derive(Debug, Clone)]
pub(crate) struct Timed {
    pub(crate) operation: Operation,
    pub(crate) answer: Answer,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Waits,
    Permitted,
    Over,
}

/// Whether a request happens at one moment or at two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moments {
    One,
    Two,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is an order.
    Order,
    /// There is none. The most requests that were in one.
    None { most: usize },
    /// There were too many to look at all.
    Undecided,
}

struct Search<'a> {
    requests: &'a [Timed],
    moments: Moments,
    seen: HashSet<u64>,
    most: usize,
}

/// Looks for an order of requests, from the model as it was before any of them.
pub(crate) fn order(model: &Model, requests: &[Timed], moments: Moments) -> Found {
    let mut search = Search { requests, moments, seen: HashSet::new(), most: 0 };
    match search.from(model, vec![Phase::Waits; requests.len()]) {
        true => Found::Order,
        false if search.seen.len() >= MOST => Found::Undecided,
        false => Found::None { most: search.most },
    }
}

impl Search<'_> {
    /// The requests that can be next: none that had its answer before they began is left.
    fn next(&self, phases: &[Phase]) -> Vec<usize> {
        let left = || phases.iter().enumerate().filter(|(_, phase)| **phase != Phase::Over).map(|(at, _)| at);
        let first = left().map(|at| self.requests[at].to).min().unwrap_or_default();
        let mut next: Vec<usize> = left().filter(|at| self.requests[*at].from <= first).collect();
        next.sort_by_key(|at| self.requests[*at].to);
        next
    }

    /// The answer of the model at this moment, and the state that it leaves.
    fn answer(&self, model: &Model, at: usize, phase: Phase) -> Option<Model> {
        let Timed { operation, answer, .. } = &self.requests[at];
        let mut after = Model { permitted: phase == Phase::Permitted, ..model.clone() };
        let fits = after.answer(operation) == *answer;
        after.permitted = false;
        fits.then_some(after)
    }

    /// Takes whatever only looked or was refused, if it fits at this moment.
    fn settle(&self, model: &Model, phases: &mut [Phase]) {
        loop {
            let mut moved = false;
            for at in self.next(phases) {
                let fits = |phase| self.answer(model, at, phase).is_some();
                let looks = self.requests[at].answer != Answer::Done;
                if looks && (fits(Phase::Waits) || (phases[at] == Phase::Permitted && fits(Phase::Permitted))) {
                    phases[at] = Phase::Over;
                    moved = true;
                } else if self.moments == Moments::Two && phases[at] == Phase::Waits && self.permits(model, at) {
                    phases[at] = Phase::Permitted;
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Whether a request that changes something is permitted at this moment.
    fn permits(&self, model: &Model, at: usize) -> bool {
        let operation = &self.requests[at].operation;
        match operation.act {
            Act::Find { .. } | Act::SeeEntity { .. } | Act::Members { .. } => false,
            Act::Accept { entity, invitation, .. } => model.is_good(entity, invitation),
            _ => !matches!(model.clone().answer(operation), Answer::Forbidden | Answer::Login),
        }
    }

    fn from(&mut self, model: &Model, mut phases: Vec<Phase>) -> bool {
        self.settle(model, &mut phases);
        let over = phases.iter().filter(|phase| **phase == Phase::Over).count();
        self.most = self.most.max(over);
        if over == phases.len() {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        (&model.entities, &phases).hash(&mut hasher);
        if self.seen.len() >= MOST || !self.seen.insert(hasher.finish()) {
            return false;
        }
        for at in self.next(&phases).into_iter().filter(|at| self.requests[*at].answer == Answer::Done) {
            let mut tried = vec![phases[at]];
            if phases[at] == Phase::Permitted {
                tried.push(Phase::Waits);
            }
            for phase in tried {
                let Some(after) = self.answer(model, at, phase) else { continue };
                let mut phases = phases.clone();
                phases[at] = Phase::Over;
                if self.from(&after, phases) {
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Credential, OPERATOR};
    use crate::rules::{Made, Name, Rank, Roles, Scope, Who};

    const GROUP: Name = "gold";

    /// A group with the admins bob and cat, and the contributor dan; their tokens are 1, 2 and 3.
    fn model() -> Model {
        let mut model = Model::new(0);
        let mut members = std::collections::BTreeMap::new();
        for (name, token, rank) in [("bob", 1, Rank::Admin), ("cat", 2, Rank::Admin), ("dan", 3, Rank::Contributor)] {
            model.user_added(name, false);
            let token_row = crate::model::Token { of: Who::User(name), scope: Scope::full(), ends: None };
            model.tokens.insert(token, token_row);
            members.insert(Who::User(name), Roles { whole: Some(rank), ..Roles::default() });
        }
        model.entities.insert(GROUP, crate::model::Entity { members, ..Default::default() });
        model
    }

    fn timed((from, to): (u64, u64), by: Made, act: Act, answer: Answer) -> Timed {
        Timed { operation: Operation { number: 9, by: Credential::Token(by), act }, answer, from, to }
    }

    fn leave(who: Name) -> Act {
        Act::RemoveMember { entity: GROUP, who: Who::User(who) }
    }

    fn demote(who: Name) -> Act {
        Act::SetRole { entity: GROUP, who: Who::User(who), part: None, rank: Some(Rank::Reader) }
    }

    fn members(shown: &[&str]) -> (Act, Answer) {
        (Act::Members { entity: GROUP }, Answer::shown(shown.iter().map(|line| (*line).to_owned())))
    }

    #[test]
    fn of_two_last_admins_one_can_leave_and_not_both() {
        let leaves = |second| [timed((0, 9), 1, leave("bob"), Answer::Done), timed((1, 8), 2, leave("cat"), second)];
        for moments in [Moments::One, Moments::Two] {
            assert_eq!(order(&model(), &leaves(Answer::Conflict), moments), Found::Order);
            assert_eq!(order(&model(), &leaves(Answer::Done), moments), Found::None { most: 1 });
        }
        // Not even the other way round, where the one who was refused had the answer before the other one began.
        let mut late = leaves(Answer::Conflict);
        (late[0].from, late[1].to) = (5, 2);
        assert_eq!(order(&model(), &late, Moments::Two), Found::None { most: 0 });
    }

    #[test]
    fn a_right_that_is_lost_meanwhile_needs_two_moments() {
        // Bob is demoted, somebody sees it, and what he asked for before that is not done yet; then it is.
        let (look, between) = members(&["bob Reader", "cat Admin", "dan Contributor"]);
        let (again, after) = members(&["bob Reader", "cat Admin", "dan Reader"]);
        let requests = [
            timed((0, 7), 1, demote("dan"), Answer::Done),
            timed((1, 2), 2, demote("bob"), Answer::Done),
            timed((3, 4), OPERATOR, look, between),
            timed((8, 9), OPERATOR, again, after),
        ];
        assert!(matches!(order(&model(), &requests, Moments::One), Found::None { .. }));
        assert_eq!(order(&model(), &requests, Moments::Two), Found::Order);
        // Had he asked after he was demoted, it could not be.
        let mut late = requests;
        late[0].from = 3;
        assert!(matches!(order(&model(), &late, Moments::Two), Found::None { .. }));
    }

    #[test]
    fn what_was_answered_and_did_not_happen_is_noticed() {
        let (look, shown) = members(&["bob Admin", "cat Admin", "dan Contributor"]);
        let requests = [timed((0, 1), 1, demote("dan"), Answer::Done), timed((2, 3), OPERATOR, look, shown)];
        assert_eq!(order(&model(), &requests, Moments::Two), Found::None { most: 1 });
    }
}
