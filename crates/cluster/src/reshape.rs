//! What a group's leader does to bring the group to what the members' rows, and its shard's placement, ask for: one step, from data alone.
//!
//! ```text
//!   a row, and not in the group ──> learner ── in sync and heard from lately ──> voter
//!   leaving, and in the group ────> removed, once a healthy majority stays
//! ```
//!
//! The order keeps the group able to decide: nobody gets a vote before it has the log, a replica that moves stays until the one elsewhere votes, also while it does not answer (without it, one more that fails
//! would be one too many, and it may come back), no change is begun whose result has no majority
//! that answers, the last voter never goes, and a leader that is to go hands over first. A joint configuration is left before anything
//! else.

use crate::members::Wanted;
use crate::placement::Wishes;
use quorate_consensus::{Membership, MembershipChange, Step};
use quorate_env::ReplicaId;

/// How a replica stands, as its leader knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It answered lately.
    pub alive: bool,
    /// It has about as much of the log as is committed.
    pub in_sync: bool,
}

impl Standing {
    /// Whether nothing is wrong with it.
    #[must_use]
    pub fn is_well(self) -> bool {
        self.alive && self.in_sync
    }
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The group is as it should be, or nothing can be done now.
    Nothing,
    /// This change.
    Propose(MembershipChange),
    /// First another must lead.
    HandOver(ReplicaId),
}

/// The next step for the group that `own` leads. Whoever `stays` is not removed yet, whatever its row says.
pub fn decide(
    own: ReplicaId,
    now: &Membership,
    wishes: &Wishes<'_>,
    stays: &dyn Fn(ReplicaId) -> bool,
    standing: impl Fn(ReplicaId) -> Standing,
) -> Decision {
    let standing = |id: ReplicaId| if id == own { Standing { alive: true, in_sync: true } } else { standing(id) };
    let heir = |among: &[ReplicaId]| {
        let fit = |id: &&ReplicaId| **id != own && standing(**id) == Standing { alive: true, in_sync: true };
        among.iter().find(fit).copied()
    };
    if now.is_joint() {
        return match heir(&now.voters) {
            Some(heir) if !now.voters.contains(&own) => Decision::HandOver(heir),
            _ => Decision::Propose(MembershipChange::Leave),
        };
    }
    if wishes.wanted(own) == Some(Wanted::Gone) && stays(own) {
        // Another group may have let this node go without its hearing of it: the next leader knows.
        let lasting = |id: &ReplicaId| wishes.wanted(*id) != Some(Wanted::Gone);
        if let Some(heir) = heir(&now.voters.iter().copied().filter(lasting).collect::<Vec<_>>()) {
            return Decision::HandOver(heir);
        }
    }
    let gone = |id: &ReplicaId| wishes.wanted(*id) == Some(Wanted::Gone) && !stays(*id);
    let added: Vec<Step> =
        wishes.come().into_iter().filter(|id| !now.contains(*id) && !gone(id)).map(Step::Learner).collect();
    let dropped = now.learners.iter().copied().filter(gone).map(Step::Remove);
    let ready = |id: &ReplicaId| {
        wishes.wanted(*id) == Some(Wanted::Voter) && standing(*id) == Standing { alive: true, in_sync: true }
    };
    let promoted: Vec<Step> = now.learners.iter().copied().filter(ready).map(Step::Voter).collect();
    let votes = |id: ReplicaId| now.voters.contains(&id) || promoted.contains(&Step::Voter(id));
    let copied = !wishes.is_placed() || wishes.come().into_iter().all(votes);
    let goes = |id: &ReplicaId| gone(id) && copied;
    let removed: Vec<Step> = now.voters.iter().copied().filter(goes).map(Step::Remove).collect();
    let without_votes: Vec<Step> = added.into_iter().chain(dropped).collect();
    // From the most that can be wanted to the least.
    for (promoted, removed) in [(&promoted[..], &removed[..]), (&promoted, &[]), (&[], &removed), (&[], &[])] {
        let steps: Vec<Step> = [&without_votes, promoted, removed].concat();
        let change = match steps.len() {
            0 => continue,
            1 if removed.is_empty() && promoted.is_empty() => MembershipChange::Simple(steps),
            _ => MembershipChange::Enter(steps),
        };
        let Some(after) = change.after(now) else { continue };
        let healthy = after.voters.iter().filter(|id| standing(**id).alive).count() > after.voters.len() / 2;
        if !healthy && after.voters != now.voters {
            continue;
        }
        if !after.voters.contains(&own) {
            match heir(&after.voters.iter().copied().filter(|id| now.voters.contains(id)).collect::<Vec<_>>()) {
                Some(heir) => return Decision::HandOver(heir),
                None => continue,
            }
        }
        return Decision::Propose(change);
    }
    Decision::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::tests::roster;
    use crate::members::{MemberState, Roster};
    use crate::placement::{Placements, tests::Rows};
    use quorate_env::{NodeId, ShardId};

    const WELL: Standing = Standing { alive: true, in_sync: true };
    const BEHIND: Standing = Standing { alive: true, in_sync: false };
    const DOWN: Standing = Standing { alive: false, in_sync: true };

    fn voters(ids: &[u64]) -> Membership {
        Membership::of_voters(ids.iter().copied().map(ReplicaId))
    }

    fn step(own: u64, now: &Membership, roster: &Roster, standing: &[(u64, Standing)]) -> Decision {
        let everywhere = Placements::default();
        decide(ReplicaId(own), now, &everywhere.wishes(ShardId(1), roster), &|_| false, |id| {
            standing.iter().find(|(known, _)| *known == id.0).map_or(WELL, |(_, standing)| *standing)
        })
    }

    use MemberState::{Joining, Learner, Leaving, Voter};
    use MembershipChange::{Enter, Leave, Simple};

    #[test]
    fn whoever_stays_for_another_group_is_not_removed_yet() {
        let roster = roster(&[(1, Voter), (2, Voter), (3, Leaving)]);
        let everywhere = Placements::default();
        let wishes = everywhere.wishes(ShardId(1), &roster);
        let decide = |stays: bool| decide(ReplicaId(1), &voters(&[1, 2, 3]), &wishes, &|_| stays, |_| WELL);
        assert_eq!(decide(true), Decision::Nothing);
        // Who leads and is to go cannot know whether the other group still has it.
        let own = super::decide(ReplicaId(3), &voters(&[1, 2, 3]), &wishes, &|_| true, |_| WELL);
        assert!(matches!(own, Decision::HandOver(ReplicaId(1 | 2))), "{own:?}");
        assert_ne!(decide(false), Decision::Nothing);
    }

    #[test]
    fn who_joins_learns_first_and_votes_when_it_is_in_sync() {
        let rows = roster(&[(1, Voter), (2, Joining)]);
        let mut now = voters(&[1]);
        let learner = Simple(vec![Step::Learner(ReplicaId(2))]);
        assert_eq!(step(1, &now, &rows, &[]), Decision::Propose(learner.clone()));
        now = learner.after(&now).expect("it fits");
        for standing in [BEHIND, DOWN] {
            assert_eq!(step(1, &now, &rows, &[(2, standing)]), Decision::Nothing);
        }
        let promotion = Enter(vec![Step::Voter(ReplicaId(2))]);
        assert_eq!(step(1, &now, &rows, &[]), Decision::Propose(promotion.clone()));
        now = promotion.after(&now).expect("it fits");
        assert_eq!(step(1, &now, &rows, &[(2, DOWN)]), Decision::Propose(Leave));
        now = Leave.after(&now).expect("it fits");
        assert_eq!(step(1, &now, &rows, &[]), Decision::Nothing);
    }

    #[test]
    fn a_learner_that_nobody_promotes_stays_one_and_one_that_has_not_started_is_none() {
        let mut rows = roster(&[(1, Voter), (2, Learner)]);
        let now = Simple(vec![Step::Learner(ReplicaId(2))]).after(&voters(&[1])).expect("it fits");
        assert_eq!(step(1, &now, &rows, &[]), Decision::Nothing);
        rows.rows.get_mut(&NodeId(2)).expect("a row").0.incarnation = None;
        assert_eq!(step(1, &voters(&[1]), &rows, &[]), Decision::Nothing);
    }

    #[test]
    fn a_wiped_member_goes_and_comes_in_one_change() {
        let rows = roster(&[(1, Voter), (2, Voter), (3, Leaving), (4, Joining)]);
        let change = Enter(vec![Step::Learner(ReplicaId(4)), Step::Remove(ReplicaId(3))]);
        assert_eq!(step(1, &voters(&[1, 2, 3]), &rows, &[(3, DOWN)]), Decision::Propose(change));
    }

    #[test]
    fn nobody_goes_when_no_healthy_majority_would_stay() {
        let rows = roster(&[(1, Voter), (2, Voter), (3, Leaving)]);
        let now = voters(&[1, 2, 3]);
        assert_eq!(step(1, &now, &rows, &[(2, DOWN)]), Decision::Nothing);
        assert_eq!(step(1, &now, &rows, &[]), Decision::Propose(Enter(vec![Step::Remove(ReplicaId(3))])));
        // Whoever comes may still come.
        let rows = roster(&[(1, Voter), (2, Voter), (3, Leaving), (4, Joining)]);
        let learner = Simple(vec![Step::Learner(ReplicaId(4))]);
        assert_eq!(step(1, &now, &rows, &[(2, DOWN)]), Decision::Propose(learner));
    }

    #[test]
    fn the_last_voter_stays() {
        assert_eq!(step(1, &voters(&[1]), &roster(&[(1, Leaving)]), &[]), Decision::Nothing);
        assert_eq!(step(1, &voters(&[1, 2]), &roster(&[(1, Leaving), (2, Leaving)]), &[]), Decision::Nothing);
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over_first() {
        let rows = roster(&[(1, Leaving), (2, Voter), (3, Voter)]);
        let now = voters(&[1, 2, 3]);
        assert_eq!(step(1, &now, &rows, &[(2, BEHIND)]), Decision::HandOver(ReplicaId(3)));
        assert_eq!(step(1, &now, &rows, &[(2, BEHIND), (3, BEHIND)]), Decision::Nothing);
        let removal = Enter(vec![Step::Remove(ReplicaId(1))]);
        assert_eq!(step(2, &now, &rows, &[]), Decision::Propose(removal.clone()));
        // It was elected again while it was on its way out: the others go on if they can, else it does.
        let joint = removal.after(&now).expect("it fits");
        assert_eq!(step(1, &joint, &rows, &[]), Decision::HandOver(ReplicaId(2)));
        assert_eq!(step(1, &joint, &rows, &[(2, BEHIND), (3, DOWN)]), Decision::Propose(Leave));
    }

    #[test]
    fn who_is_to_have_a_placed_shard_comes_and_who_is_not_goes() {
        let mut rows = Rows::default();
        let shard = ShardId(17);
        rows.found(vec![(shard, [1, 2, 3].map(NodeId).into())]);
        rows.place(shard, &[1, 2, 4].map(NodeId).into());
        let (roster, places) = (roster(&[(1, Voter), (2, Voter), (3, Voter), (4, Voter), (5, Voter)]), rows.read());
        let step = |now: &Membership, how: Standing| {
            let standing = |id: ReplicaId| if id.0 == 2 { WELL } else { how };
            decide(ReplicaId(1), now, &places.wishes(shard, &roster), &|_| false, standing)
        };
        let learner = Simple(vec![Step::Learner(ReplicaId(4))]);
        assert_eq!(step(&voters(&[1, 2, 3]), WELL), Decision::Propose(learner.clone()));
        let now = learner.after(&voters(&[1, 2, 3])).expect("it fits");
        assert_eq!(step(&now, BEHIND), Decision::Nothing, "the copy is not there yet");
        let change = Enter(vec![Step::Voter(ReplicaId(4)), Step::Remove(ReplicaId(3))]);
        assert_eq!(step(&now, WELL), Decision::Propose(change));
        assert_eq!(step(&voters(&[1, 2, 4]), WELL), Decision::Nothing);
        assert_eq!(step(&now, DOWN), Decision::Nothing, "who is silent may come back, and be needed");
    }

    #[test]
    fn who_is_in_no_row_stays_and_who_was_removed_goes() {
        let mut rows = roster(&[(1, Voter), (2, Voter)]);
        assert_eq!(step(1, &voters(&[1, 2, 3]), &rows, &[]), Decision::Nothing);
        rows.removed.insert(NodeId(3), "n3".into());
        assert_eq!(
            step(1, &voters(&[1, 2, 3]), &rows, &[]),
            Decision::Propose(Enter(vec![Step::Remove(ReplicaId(3))]))
        );
    }
}
