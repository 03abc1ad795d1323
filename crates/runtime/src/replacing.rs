//! A member takes another's place, as clients ask for it: the wish is written, and whoever leads follows (`cluster::replacing`).

use crate::admin::{find, roster};
use crate::db::RuntimeDb;
use crate::keyspaces::rows;
use quorate_cluster::BootMember;
use quorate_cluster::members::{MemberRow, MemberState, Roster};
use quorate_cluster::placement::Placements;
use quorate_cluster::placing::Landscape;
use quorate_env::NodeId;
use quorate_kv::{Command, Db, Error, KeyspaceId, MemberRefusal, Op, Outcome, PutOp, Refusal, Txn, Unavailable};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How long it is waited for. The rows keep the wish if it takes longer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Between two looks at the rows.
const LOOK: Duration = Duration::from_millis(20);

/// Has `by` get what `node` has, and `node` removed then. Returns whether that is done, or only wished for yet.
///
/// # Errors
/// If it must not be ([`decide`]), or the wish could not be written.
pub(crate) async fn replace(db: &RuntimeDb, first: &[BootMember], node: NodeId, by: NodeId) -> Result<bool, Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut written = false;
    while Instant::now() < deadline {
        let roster = roster(db).await?;
        if roster.removed.contains_key(&node) && written {
            return Ok(true);
        }
        if written {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let (_, placements) = rows(db).await?;
        let success = decide(&roster, &placements, first, node, by).map_err(Refusal::Member)?;
        if success.is_empty() {
            written = true;
            continue;
        }
        let txn = Txn { compares: roster.unchanged(), success, failure: Vec::new() };
        match db.submit(KeyspaceId::SYSTEM, Command::Transact(txn)).await {
            Ok(applied) => written = matches!(applied.outcome, Outcome::Transacted(done) if done.succeeded),
            // The next look at the rows tells.
            Err(Error::UnknownOutcome(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if written { Ok(false) } else { Err(Unavailable::Timeout.into()) }
}

/// What to write, nothing if it is written; or why it must not be.
fn decide(
    roster: &Roster,
    placements: &Placements,
    first: &[BootMember],
    node: NodeId,
    by: NodeId,
) -> Result<Vec<Op>, MemberRefusal> {
    let (leaves, comes) = (find(roster, first, node)?, find(roster, first, by)?);
    if node == by {
        return Err(MemberRefusal::Itself);
    }
    if placements.replaced_by(node) == Some(by) {
        return Ok(Vec::new());
    }
    let goes = |row: &MemberRow| row.state == MemberState::Leaving;
    if goes(&leaves) || goes(&comes) || placements.replaced_by(by).is_some() {
        return Err(MemberRefusal::Leaves);
    }
    if comes.state == MemberState::Learner {
        return Err(MemberRefusal::NoVote);
    }
    if placements.drained().contains(&by) {
        return Err(MemberRefusal::Drained);
    }
    if placements.replaced().any(|(other, heir, _)| heir == node || (heir == by && other != node)) {
        return Err(MemberRefusal::Taken);
    }
    let nodes: BTreeSet<NodeId> =
        roster.founders(first.iter().map(|member| member.id)).into_iter().map(|founder| NodeId(founder.0)).collect();
    let landscape = Landscape { nodes: &nodes, dead: placements.drained(), placements };
    if let Some(refusal) = landscape.hinders(node, by) {
        return Err(refusal);
    }
    // Who was there at first and has not said anything yet has no row, and could not be told from who was removed.
    let silent = [leaves, comes].into_iter().filter(|row| !roster.rows.contains_key(&row.id));
    let silent = silent.map(|row| Op::Put(PutOp::of(MemberRow::key(row.id), row.encode())));
    Ok(silent.chain([Placements::replace(node, by)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::{Incarnation, ShardId};
    use quorate_kv::{KeyValue, LeaseId, Revision};

    use MemberState::{Joining, Learner, Leaving, Voter};

    fn roster(states: &[MemberState]) -> Roster {
        let row = |(at, state): (usize, &MemberState)| {
            let id = NodeId(at as u64 + 1);
            let row = MemberRow {
                id,
                incarnation: Some(Incarnation(1)),
                name: format!("n{}", id.0),
                peer_addresses: Vec::new(),
                client_urls: Vec::new(),
                state: *state,
            };
            (id, (row, Revision(1)))
        };
        Roster { rows: states.iter().enumerate().map(row).collect(), ..Roster::default() }
    }

    fn places(ops: Vec<Op>) -> Placements {
        let kv = |op: Op| {
            let Op::Put(put) = op else { panic!("only puts: {op:?}") };
            let (create_revision, mod_revision) = (Revision(1), Revision(1));
            KeyValue { key: put.key, value: put.value, create_revision, mod_revision, version: 1, lease: LeaseId::NONE }
        };
        Placements::read(ops.into_iter().map(kv)).expect("readable")
    }

    fn told(roster: &Roster, ops: Vec<Op>, node: u64, by: u64) -> Result<usize, MemberRefusal> {
        decide(roster, &places(ops), &[], NodeId(node), NodeId(by)).map(|ops| ops.len())
    }

    #[test]
    fn who_may_take_whose_place() {
        let all = roster(&[Voter, Voter, Voter, Joining, Learner, Leaving]);
        let none = Vec::new;
        assert_eq!(told(&all, none(), 1, 4), Ok(1));
        assert_eq!(told(&all, none(), 1, 1), Err(MemberRefusal::Itself));
        assert_eq!(told(&all, none(), 1, 9), Err(MemberRefusal::NotFound));
        assert_eq!(told(&all, none(), 9, 4), Err(MemberRefusal::NotFound));
        assert_eq!(told(&all, none(), 1, 5), Err(MemberRefusal::NoVote));
        assert_eq!(told(&all, none(), 1, 6), Err(MemberRefusal::Leaves));
        assert_eq!(told(&all, none(), 6, 4), Err(MemberRefusal::Leaves));
        assert_eq!(told(&all, Placements::drain(NodeId(4), true).success, 1, 4), Err(MemberRefusal::Drained));
        let wish = || vec![Placements::replace(NodeId(1), NodeId(4))];
        assert_eq!(told(&all, wish(), 1, 4), Ok(0), "asked twice is asked once");
        assert_eq!(told(&all, wish(), 2, 4), Err(MemberRefusal::Taken));
        assert_eq!(told(&all, wish(), 2, 1), Err(MemberRefusal::Leaves));
        assert_eq!(told(&all, wish(), 4, 2), Err(MemberRefusal::Taken));
        assert_eq!(told(&all, wish(), 1, 3), Ok(1), "somebody changed their mind");
    }

    #[test]
    fn a_founder_that_has_said_nothing_gets_a_row_and_shards_keep_their_replicas() {
        let first = BootMember { id: NodeId(9), name: "n9".into(), peer_address: "h:9".into() };
        let all = roster(&[Voter, Voter, Voter]);
        let ops = decide(&all, &Placements::default(), &[first], NodeId(9), NodeId(1)).expect("it may");
        assert_eq!(ops.len(), 2);
        let everywhere = [1, 2, 3].map(NodeId).into();
        let placed = Placements::found(KeyspaceId(16), 3, vec![(ShardId(17), everywhere)]);
        assert_eq!(told(&all, placed, 1, 2), Err(MemberRefusal::Needed));
    }
}
