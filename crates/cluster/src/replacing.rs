//! A node that is to be replaced by another: what the system keyspace's leader does about it, from data alone.
//!
//! ```text
//!   replaced/<old> = new ── each placed shard of the old one comes to live on the new one (`placing.rs`)
//!                        ── the new one votes wherever every member does
//!                        ── now, and not before: the old one is leaving (`members.rs`), and the row goes when it is removed
//! ```
//!
//! The wish is a row, so whoever leads goes on with it. The old one is told to go in a transaction that fails if a shard was placed meanwhile: nothing is
//! left without the replica that it had. If the new one goes before that, there is nobody to wait for, and the wish with it; the old one stays.

use crate::members::{MemberRow, MemberState, Roster};
use crate::placement::Placements;
use crate::rows::{unchanged, unchanged_since};
use quorate_consensus::Membership;
use quorate_env::{NodeId, ReplicaId};
use quorate_kv::{Op, PutOp, Txn};

/// What is to be written next, if anything. `groups` are those that every member is in; all is as of the roster's revision. `hasty` does not wait for the
/// new one: a bug.
pub(crate) fn next(roster: &Roster, placements: &Placements, groups: &[Membership], hasty: bool) -> Option<Txn> {
    placements.replaced().find_map(|(old, new, at)| {
        let still = Placements::still_replaced(old, at);
        let row = |node: NodeId| roster.rows.get(&node).filter(|_| !roster.removed.contains_key(&node));
        let (leaves, comes) = (row(old), row(new));
        let (Some((leaves, since)), Some((comes, there))) =
            (leaves, comes.filter(|(comes, _)| comes.state != MemberState::Leaving))
        else {
            // Somebody removed one of them meanwhile. A row of who is leaving already stays until it has gone.
            let over = leaves.is_none_or(|(leaves, _)| leaves.state != MemberState::Leaving);
            return over.then(|| Txn {
                compares: vec![still],
                success: vec![Placements::replace_no_more(old)],
                failure: Vec::new(),
            });
        };
        let votes = |group: &Membership| group.voters.contains(&ReplicaId(new.0)) && !group.is_joint();
        let has_all = comes.state == MemberState::Voter && groups.iter().all(votes) && !placements.may_use(old);
        if leaves.state == MemberState::Leaving || !(has_all || hasty) {
            return None;
        }
        let goes = MemberRow { state: MemberState::Leaving, ..leaves.clone() };
        let members = [(old, since), (new, there)].map(|(node, at)| unchanged(MemberRow::key(node), Some(*at)));
        let placed = unchanged_since(roster.revision, [Placements::wishes_range()]);
        Some(Txn {
            compares: [still].into_iter().chain(members).chain(placed).collect(),
            success: vec![Op::Put(PutOp::of(MemberRow::key(old), goes.encode()))],
            failure: Vec::new(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::Rows;
    use quorate_env::ShardId;
    use quorate_kv::Revision;
    use std::collections::BTreeSet;

    fn roster(rows: &[(u64, MemberState)]) -> Roster {
        Roster { revision: Revision(9), ..crate::members::tests::roster(rows) }
    }

    fn group(voters: &[u64]) -> Membership {
        Membership::of_voters(voters.iter().copied().map(ReplicaId))
    }

    fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    /// Who is told to go, or whose wish is dropped.
    fn told(roster: &Roster, rows: &Rows, groups: &[Membership]) -> Option<&'static str> {
        let txn = next(roster, &rows.read(), groups, false)?;
        Some(match &txn.success[..] {
            [Op::Put(put)] => {
                let row = MemberRow::decode(put.value.clone()).expect("a row");
                assert_eq!((row.id, row.state), (NodeId(1), Leaving));
                assert_eq!(txn.compares.len(), 4, "the wish, both rows, and where shards live");
                "goes"
            }
            [Op::Delete(_)] => "stays",
            other => panic!("{other:?}"),
        })
    }

    use MemberState::{Joining, Leaving, Voter};

    #[test]
    fn the_old_one_goes_when_the_new_one_has_all_that_it_had() {
        let mut rows = Rows::default();
        let shard = ShardId(17);
        rows.found(vec![(shard, set(&[1, 2, 3]))]);
        rows.replace(NodeId(1), NodeId(4));
        let [joining, voter] = [Joining, Voter].map(|it| roster(&[(1, Voter), (2, Voter), (3, Voter), (4, it)]));
        let (three, four) = ([group(&[1, 2, 3])], [group(&[1, 2, 3, 4])]);
        assert_eq!(told(&joining, &rows, &three), None, "it has no vote");
        assert_eq!(told(&voter, &rows, &four), None, "a shard is to live on the old one");
        rows.place(shard, &set(&[4, 2, 3]));
        assert_eq!(told(&voter, &rows, &four), None, "its group still has the old one");
        rows.settled(shard, &set(&[4, 2, 3]));
        assert_eq!(told(&voter, &rows, &three), None, "somewhere it has no vote");
        assert_eq!(told(&joining, &rows, &four), None);
        assert_eq!(told(&voter, &rows, &four), Some("goes"));
        let leaving = roster(&[(1, Leaving), (2, Voter), (3, Voter), (4, Voter)]);
        assert_eq!(told(&leaving, &rows, &four), None, "it is on its way");
    }

    #[test]
    fn nobody_waits_for_who_was_removed() {
        let mut rows = Rows::default();
        rows.replace(NodeId(1), NodeId(4));
        let groups = [group(&[1, 2, 3])];
        for (members, expected) in [
            (&[(1, Voter), (2, Voter), (4, Leaving)][..], Some("stays")),
            (&[(1, Voter), (2, Voter)], Some("stays")),
            (&[(2, Voter), (4, Voter)], Some("stays")),
            (&[(1, Leaving), (2, Voter)], None),
        ] {
            assert_eq!(told(&roster(members), &rows, &groups), expected, "{members:?}");
        }
    }
}
