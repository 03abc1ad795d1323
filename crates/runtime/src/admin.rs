//! Changes of the members, as clients ask for them: rows are written, and the groups follow.
//!
//! What must not be asked for is refused here, by what the groups' leaders know at the moment; what must not *happen* is the groups' own
//! business (`cluster::reshape`), whatever the rows say.

use crate::db::RuntimeDb;
use crate::disk::random_u64;
use quorate_cluster::members::{MemberRow, MemberState, Roster};
use quorate_cluster::{BootMember, Standings};
use quorate_env::NodeId;
use quorate_kv::{
    Command, Db, DeleteOp, Error, KeyRange, KeyspaceId, MemberChange, MemberRefusal, Op, Outcome, PutOp, Refusal, Txn,
    Unavailable,
};
use std::time::Duration;

/// How long a change is waited for. The rows keep the wish if it takes longer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Between two looks at the rows.
const LOOK: Duration = Duration::from_millis(20);

/// The rows, as a majority knows them.
pub(crate) async fn roster(db: &RuntimeDb) -> Result<Roster, Error> {
    let [members, removed] = Roster::ranges();
    let kvs = db.read_together(KeyspaceId::SYSTEM, [members, removed]).await?;
    let (kvs, revision) = kvs;
    Roster::read(kvs, revision)
        .map_err(|e| crate::driver::stop_process(&format!("the members' rows cannot be read: {e}")))
}

/// Carries out a change.
pub(crate) async fn change(db: &RuntimeDb, first: &[BootMember], change: MemberChange) -> Result<NodeId, Error> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let (id, waits_for) = loop {
        if tokio::time::Instant::now() >= deadline {
            return Err(Unavailable::Timeout.into());
        }
        let roster = roster(db).await?;
        let mut standings = Vec::new();
        if matches!(change, MemberChange::Remove(_) | MemberChange::Promote(_)) {
            // Where the others live follows from who the members are.
            for shard in db.shards_everywhere() {
                standings.push(db.standings(shard).await?);
            }
        }
        let fresh = NodeId(random_u64().map_err(|_| Unavailable::Overloaded)?.max(1));
        let Written { id, ops, waits_for } =
            decide(&roster, first, &standings, &change, fresh).map_err(Refusal::Member)?;
        if ops.is_empty() {
            break (id, waits_for);
        }
        let txn = Txn { compares: roster.unchanged(), success: ops, failure: Vec::new() };
        // If the outcome is unknown, the next look at the rows tells.
        if let Ok(applied) = db.submit(KeyspaceId::SYSTEM, Command::Transact(txn)).await
            && matches!(applied.outcome, Outcome::Transacted(result) if result.succeeded)
        {
            break (id, waits_for);
        }
    };
    while tokio::time::Instant::now() < deadline {
        let roster = roster(db).await?;
        let done = match waits_for {
            WaitsFor::Nothing => true,
            WaitsFor::Removal => !roster.rows.contains_key(&id),
            WaitsFor::Vote => roster.rows.get(&id).is_none_or(|(row, _)| row.state != MemberState::Joining),
        };
        if done {
            return Ok(id);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Unavailable::Timeout.into())
}

/// What must come true before a change is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    Nothing,
    Removal,
    Vote,
}

/// What a change writes.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    id: NodeId,
    ops: Vec<Op>,
    waits_for: WaitsFor,
}

/// A member's row; of one of the `first` members that has written none, the one that it will.
pub(crate) fn find(roster: &Roster, first: &[BootMember], id: NodeId) -> Result<MemberRow, MemberRefusal> {
    let row = roster.rows.get(&id).map(|(row, _)| row.clone());
    let silent = || {
        let member = first.iter().find(|member| member.id == id && !roster.removed.contains_key(&id))?;
        Some(MemberRow::of_founder(member))
    };
    row.or_else(silent).ok_or(MemberRefusal::NotFound)
}

/// What a change writes, or why it must not be. `standings` are those of each group.
fn decide(
    roster: &Roster,
    first: &[BootMember],
    standings: &[Vec<Standings>],
    change: &MemberChange,
    fresh: NodeId,
) -> Result<Written, MemberRefusal> {
    let put = |row: &MemberRow| vec![Op::Put(PutOp::of(MemberRow::key(row.id), row.encode()))];
    let find = |id| find(roster, first, id);
    match change {
        MemberChange::Add { peer_addresses, learner } => {
            check_addresses(roster, first, peer_addresses, None)?;
            let is_learner = |row: &MemberRow| row.state == MemberState::Learner;
            if *learner && roster.rows.values().any(|(row, _)| is_learner(row)) {
                return Err(MemberRefusal::TooManyLearners);
            }
            let row = MemberRow {
                id: fresh,
                incarnation: None,
                name: String::new(),
                peer_addresses: peer_addresses.clone(),
                client_urls: Vec::new(),
                state: if *learner { MemberState::Learner } else { MemberState::Joining },
            };
            Ok(Written { id: fresh, ops: put(&row), waits_for: WaitsFor::Nothing })
        }
        MemberChange::Update { id, peer_addresses } => {
            let row = find(*id)?;
            check_addresses(roster, first, peer_addresses, Some(*id))?;
            let row = MemberRow { peer_addresses: peer_addresses.clone(), ..row };
            Ok(Written { id: *id, ops: put(&row), waits_for: WaitsFor::Nothing })
        }
        MemberChange::Promote(id) => {
            let row = find(*id)?;
            if row.state != MemberState::Learner {
                return Err(MemberRefusal::NotLearner);
            }
            let ready = |group: &Vec<Standings>| group.iter().any(|s| s.node == *id && s.alive && s.in_sync);
            if !standings.iter().all(ready) {
                return Err(MemberRefusal::NotInSync);
            }
            let row = MemberRow { state: MemberState::Joining, ..row };
            Ok(Written { id: *id, ops: put(&row), waits_for: WaitsFor::Vote })
        }
        MemberChange::Remove(id) => {
            let row = find(*id)?;
            let waits_for = WaitsFor::Removal;
            if row.state == MemberState::Leaving {
                return Ok(Written { id: *id, ops: Vec::new(), waits_for });
            }
            for group in standings {
                let leaving = |node: NodeId| {
                    node == *id || roster.rows.get(&node).is_some_and(|(row, _)| row.state == MemberState::Leaving)
                };
                if !group.iter().any(|s| s.node == *id && s.voter) {
                    continue;
                }
                let stay: Vec<&Standings> = group.iter().filter(|s| s.voter && !leaving(s.node)).collect();
                if stay.is_empty() {
                    return Err(MemberRefusal::LastVoter);
                }
                if stay.iter().filter(|s| s.alive).count() <= stay.len() / 2 {
                    return Err(MemberRefusal::Unhealthy);
                }
            }
            if row.incarnation.is_none() && !standings.iter().flatten().any(|s| s.node == *id) {
                // Nobody waits for it, so nothing has to be undone.
                let gone = DeleteOp { range: KeyRange::single(MemberRow::key(*id)), prev_kv: false };
                let never = PutOp::of(MemberRow::removed_key(*id), row.name.clone());
                return Ok(Written { id: *id, ops: vec![Op::Delete(gone), Op::Put(never)], waits_for });
            }
            let row = MemberRow { state: MemberState::Leaving, ..row };
            Ok(Written { id: *id, ops: put(&row), waits_for })
        }
    }
}

fn check_addresses(
    roster: &Roster,
    first: &[BootMember],
    addresses: &[String],
    own: Option<NodeId>,
) -> Result<(), MemberRefusal> {
    let bad = |address: &String| {
        let parts = address.rsplit_once(':');
        !parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    if addresses.is_empty() || addresses.iter().any(bad) {
        return Err(MemberRefusal::BadAddress);
    }
    let rows = roster.rows.values().map(|(row, _)| row).filter(|row| Some(row.id) != own);
    let silent = first
        .iter()
        .filter(|m| Some(m.id) != own && !roster.rows.contains_key(&m.id) && !roster.removed.contains_key(&m.id));
    let taken = rows.flat_map(|row| row.peer_addresses.iter()).chain(silent.map(|member| &member.peer_address));
    if taken.into_iter().any(|address| addresses.contains(address)) {
        return Err(MemberRefusal::AddressTaken);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::Incarnation;
    use quorate_kv::Revision;

    fn member(id: u64, state: MemberState) -> MemberRow {
        MemberRow {
            id: NodeId(id),
            incarnation: Some(Incarnation(id)),
            name: format!("n{id}"),
            peer_addresses: vec![format!("h:{id}")],
            client_urls: Vec::new(),
            state,
        }
    }

    fn roster(rows: &[MemberRow]) -> Roster {
        let rows = rows.iter().map(|row| (row.id, (row.clone(), Revision(1)))).collect();
        Roster { rows, ..Roster::default() }
    }

    fn stands(id: u64, voter: bool, alive: bool, in_sync: bool) -> Standings {
        Standings { node: NodeId(id), voter, alive, in_sync }
    }

    fn told(roster: &Roster, group: &[Standings], change: MemberChange) -> Result<Written, MemberRefusal> {
        decide(roster, &[], &[group.to_vec(), group.to_vec()], &change, NodeId(99))
    }

    use MemberState::{Joining, Learner, Leaving, Voter};

    #[test]
    fn nobody_is_removed_without_whom_no_healthy_majority_stays() {
        let rows = roster(&[member(1, Voter), member(2, Voter), member(3, Voter)]);
        let group = [stands(1, true, true, true), stands(2, true, true, true), stands(3, true, false, false)];
        let remove = |id| MemberChange::Remove(NodeId(id));
        assert!(told(&rows, &group, remove(3)).is_ok(), "the one that is down may go");
        assert_eq!(told(&rows, &group, remove(2)), Err(MemberRefusal::Unhealthy));
        assert_eq!(told(&rows, &group, remove(9)), Err(MemberRefusal::NotFound));
        let alone = roster(&[member(1, Voter)]);
        assert_eq!(told(&alone, &group[..1], remove(1)), Err(MemberRefusal::LastVoter));
        // Two at once are judged as two.
        let rows = roster(&[member(1, Voter), member(2, Leaving)]);
        assert_eq!(told(&rows, &group[..2], remove(1)), Err(MemberRefusal::LastVoter));
        let again = told(&rows, &group[..2], remove(2)).expect("it is on its way");
        assert_eq!((again.ops.len(), again.waits_for), (0, WaitsFor::Removal));
    }

    #[test]
    fn only_a_learner_in_sync_is_promoted() {
        let rows = roster(&[member(1, Voter), member(2, Learner)]);
        let promote = |id| MemberChange::Promote(NodeId(id));
        let group = |alive, in_sync| [stands(1, true, true, true), stands(2, false, alive, in_sync)];
        assert!(told(&rows, &group(true, true), promote(2)).is_ok());
        assert_eq!(told(&rows, &group(true, false), promote(2)), Err(MemberRefusal::NotInSync));
        assert_eq!(told(&rows, &group(false, true), promote(2)), Err(MemberRefusal::NotInSync));
        assert_eq!(told(&rows, &group(true, true)[..1], promote(2)), Err(MemberRefusal::NotInSync));
        assert_eq!(told(&rows, &group(true, true), promote(1)), Err(MemberRefusal::NotLearner));
    }

    #[test]
    fn addresses_are_addresses_and_nobody_elses() {
        let rows = roster(&[member(1, Voter), member(2, Joining)]);
        let add = |address: &str, learner| MemberChange::Add { peer_addresses: vec![address.into()], learner };
        assert_eq!(told(&rows, &[], add("h:3", false)).map(|written| written.id), Ok(NodeId(99)));
        assert_eq!(told(&rows, &[], add("h:2", false)), Err(MemberRefusal::AddressTaken));
        for bad in ["", "h", "h:", ":3", "h:0", "h:99999"] {
            assert_eq!(told(&rows, &[], add(bad, false)), Err(MemberRefusal::BadAddress), "{bad}");
        }
        let rows = roster(&[member(1, Voter), member(2, Learner)]);
        assert_eq!(told(&rows, &[], add("h:3", true)), Err(MemberRefusal::TooManyLearners));
        let own = MemberChange::Update { id: NodeId(2), peer_addresses: vec!["h:2".into()] };
        assert!(told(&rows, &[], own).is_ok());
        let other = MemberChange::Update { id: NodeId(2), peer_addresses: vec!["h:1".into()] };
        assert_eq!(told(&rows, &[], other), Err(MemberRefusal::AddressTaken));
    }
}
