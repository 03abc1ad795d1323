//! How long a replica waits before it asks for votes.
//!
//! Each has a time of its own, by its place among the voters: two that ask at once can split the vote, and then everybody waits once more. Who comes
//! first changes with leader and term. A wait is longer than the time for which the others would refuse, because they may have heard the leader a
//! little later; and whoever only asks *whether* it would be elected asks again soon, since that costs nobody anything.

use crate::Role;
use quorate_env::{ReplicaId, Rng, Term};

/// Ticks between two replicas' waits: longer than an election takes on a disk that is well.
const GAP_TICKS: u32 = 4;

/// Places from which on all wait equally long.
const PLACES: u32 = 16;

/// A bound on [`ticks`].
pub fn ticks_max(election_ticks: u32) -> u32 {
    2 * election_ticks + GAP_TICKS * PLACES
}

/// Whose turn it is to lead a group: of many groups, told apart by their `turn`, each voter leads about as many as any other. When one voter takes another's place, it
/// stays whose turn it was unless that one went or it is the newcomer's (rendezvous hashing: Thaler and Ravishankar, "Using Name-Based Mappings to
/// Increase Hit Rates", 1998).
#[must_use]
pub fn first(voters: &[ReplicaId], turn: u64) -> Option<ReplicaId> {
    let weight = |voter: &ReplicaId| Rng::new(turn).split(voter.0).next_u64();
    voters.iter().copied().max_by_key(weight)
}

/// The place of `own` among `voters` (ascending): after the leader they come in a ring, and without one the term says who is first, beginning with whose turn it is.
pub fn place(own: ReplicaId, voters: &[ReplicaId], leader: Option<ReplicaId>, term: Term, turn: u64) -> u32 {
    let voters_count = voters.len().max(1);
    let at = |id: ReplicaId| voters.iter().position(|voter| *voter == id);
    let in_turn = || first(voters, turn).and_then(at).unwrap_or(0) + (term.0 % voters_count as u64) as usize;
    let first = leader.and_then(at).map_or_else(in_turn, |leader| leader + 1);
    let place = at(own).map_or(0, |own| (own + 2 * voters_count - first % voters_count) % voters_count);
    (place as u32).min(PLACES - 1)
}

/// Ticks without a leader, or without being elected, until a replica at this place begins an election.
pub fn ticks(role: Role, place: u32, election_ticks: u32) -> u32 {
    let wait = match role {
        Role::Follower | Role::Leader => election_ticks + election_ticks / 5,
        Role::PreCandidate => election_ticks * 2 / 5,
        // Votes are synced to disks.
        Role::Candidate => election_ticks * 3 / 2,
    };
    wait.max(1) + GAP_TICKS * place
}

/// Ticks of silence after which the first in line would begin an election.
#[must_use]
pub fn ticks_until_missed(election_ticks: u32) -> u32 {
    ticks(Role::Follower, 0, election_ticks)
}

/// The same when the leader's process is known to be gone.
pub fn ticks_after_loss(place: u32) -> u32 {
    1 + GAP_TICKS * place
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const VOTERS: [ReplicaId; 3] = [ReplicaId(2), ReplicaId(5), ReplicaId(7)];

    fn places(leader: Option<ReplicaId>, term: u64) -> [u32; 3] {
        VOTERS.map(|own| place(own, &VOTERS, leader, Term(term), 0))
    }

    fn rotated(places: [u32; 3], by: u32) -> [u32; 3] {
        places.map(|place| (place + 3 - by) % 3)
    }

    #[test]
    fn every_voter_leads_about_as_many_as_any_other() {
        // All of them, and every third, as those are that are placed on the same nodes.
        for (step, least) in [(1, 80), (3, 24)] {
            let mut led: BTreeMap<ReplicaId, u32> = BTreeMap::new();
            for group in (100..400).step_by(step) {
                *led.entry(first(&VOTERS, group).expect("a voter")).or_default() += 1;
            }
            assert!(led.len() == 3 && led.values().all(|count| *count >= least), "{led:?}");
        }
        assert_eq!(first(&[], 7), None);
    }

    #[test]
    fn another_leads_only_if_who_led_has_gone_or_the_newcomer_is_to() {
        let with = [ReplicaId(2), ReplicaId(5), ReplicaId(9)];
        let newcomers = (0..300).filter(|group| {
            let (before, after) = (first(&VOTERS, *group), first(&with, *group));
            assert!(before == after || before == Some(ReplicaId(7)) || after == Some(ReplicaId(9)), "{group}");
            after == Some(ReplicaId(9))
        });
        assert!((80..=120).contains(&newcomers.count()));
    }

    #[test]
    fn no_two_voters_have_the_same_place() {
        assert_eq!(places(Some(ReplicaId(2)), 4), [2, 0, 1], "the leader comes last");
        assert_eq!(places(Some(ReplicaId(7)), 4), [0, 1, 2]);
        let begin = places(None, 0);
        assert_eq!([1, 2, 3].map(|term| places(None, term)), [rotated(begin, 1), rotated(begin, 2), begin]);
        assert_eq!(places(Some(ReplicaId(9)), 1), places(None, 1), "a leader that is no voter any more");
        let firsts: BTreeSet<_> = (0..20).filter_map(|turn| first(&VOTERS, turn)).collect();
        assert_eq!(firsts.len(), 3, "groups differ");
        for turn in 0..20 {
            let at_first = VOTERS.iter().find(|own| place(**own, &VOTERS, None, Term(0), turn) == 0);
            assert_eq!(at_first.copied(), first(&VOTERS, turn), "whose turn it is asks first");
        }
        assert_eq!(place(ReplicaId(3), &VOTERS, None, Term(1), 0), 0, "no voter, so it never asks");
        assert_eq!(place(ReplicaId(3), &[], None, Term(1), 0), 0);
    }

    #[test]
    fn a_follower_waits_longer_than_others_would_refuse() {
        for election_ticks in [1, 10, 25, 3_000] {
            for place in [0, 1, 15] {
                for role in [Role::Follower, Role::PreCandidate, Role::Candidate] {
                    let ticks = ticks(role, place, election_ticks);
                    assert!(ticks >= 1 && ticks < ticks_max(election_ticks), "{role:?} {place} {election_ticks}");
                }
                assert!(ticks(Role::Follower, place, election_ticks) >= election_ticks);
            }
        }
    }
}
