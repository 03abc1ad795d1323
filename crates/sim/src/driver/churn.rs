//! Members that come, go and lose their disks, as an operator and bad luck bring it about.
//!
//! The operator writes the members' rows like any client, through some node, and again until it is certain; the nodes do the rest. Who comes
//! is a node more, with an id that nobody had: also who comes back after its disk was wiped. Who is gone never starts again. At most one
//! member at a time is without its disk, and none while another's log has rotted, or while what the last one had is not yet in three places again:
//! more than that no cluster can survive. Who finds that its disk has lost promises comes back in the same way.

use super::{Event, SHARDS, SimNode, Step, StoreKind, World, id_of, looks};
use crate::client::SHARD;
use crate::disk::Disk;
use crate::history::{Violation, demand};
use crate::planted::DriverBug;
use quorate_cluster::Node;
use quorate_cluster::members::{MemberRow, MemberState};
use quorate_cluster::placement::Placements;
use quorate_cluster::{Input, Reply, Request};
use quorate_consensus::Role;
use quorate_env::{Incarnation, NodeId, Rng};
use quorate_kv::{Command, Compare, CompareOp, Error, Expected, KeyRange, Op, PutOp, Txn};
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two looks of the operator.
const LOOK_US: u64 = 200_000;

/// The operator asks again after this long.
const PATIENCE_US: u64 = 2_500_000;

/// Voters beyond which nobody is added, and below which nobody is removed.
const MEMBERS: (usize, usize) = (3, 6);

/// Of so many replicas one may be lost for good.
const PLACES: usize = 3;

/// What the operator is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Add {
        node: usize,
    },
    Remove {
        node: usize,
    },
    Replace {
        node: usize,
        by: usize,
    },
    /// Somebody new takes the place of one that goes on until it has.
    Relieve {
        node: usize,
        by: usize,
    },
}

#[derive(Debug)]
struct Pending {
    doing: Doing,
    /// The request under way, and when it was asked.
    asked: Option<(u64, u64)>,
    /// Whether the rows are written.
    written: bool,
    /// When a node that is removed is switched off.
    off_at: Option<u64>,
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Churn {
    rng: Rng,
    pending: Option<Pending>,
    retired: BTreeSet<usize>,
    came: usize,
    /// Whether the node that is to go led when that was decided.
    led: bool,
    /// Whether members are relieved, and when.
    relief: Rng,
}

impl Churn {
    pub fn new(rng: Rng, relief: Rng) -> Self {
        Self { rng, pending: None, retired: BTreeSet::new(), came: 0, led: false, relief }
    }

    /// Whether members are not yet those that were asked for.
    pub fn is_under_way(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether a node is gone for good.
    pub fn is_retired(&self, node: usize) -> bool {
        self.retired.contains(&node)
    }

    /// Whether a disk is lost that is not made up for yet.
    pub fn is_fragile(&self) -> bool {
        matches!(self.pending, Some(Pending { doing: Doing::Replace { .. }, .. }))
    }

    fn leaves(&self, node: usize) -> bool {
        let goes = match &self.pending {
            Some(Pending { doing: Doing::Remove { node }, .. }) => Some(*node),
            // Until it is certain that somebody comes, shards may be placed there.
            Some(Pending { doing: Doing::Relieve { node, .. }, written: true, .. }) => Some(*node),
            _ => None,
        };
        self.retired.contains(&node) || goes == Some(node)
    }
}

impl World<'_> {
    /// Nodes that are to take part in the end.
    pub(super) fn lasting(&self) -> BTreeSet<usize> {
        (0..self.nodes.len()).filter(|node| !self.churn.leaves(*node)).collect()
    }

    /// Nodes that clients may ask: who was removed answers until it is switched off.
    pub(super) fn not_retired(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| !self.churn.is_retired(*node)).collect()
    }

    /// In the calm a write through this node must still succeed, if it stays.
    pub(super) fn must_prove(&mut self, node: usize) {
        if !self.churn.leaves(node) {
            self.to_prove.insert(node);
        }
    }

    pub(super) fn begin_churn(&mut self) {
        if self.plan.replaces() && self.script.is_none_or(|script| script.churns) {
            self.after(LOOK_US, Event::Operator);
            self.next_churn();
        }
    }

    fn next_churn(&mut self) {
        if let Some(every) = self.plan.churn_every_us
            && !self.calm
        {
            let wait = self.churn.rng.between(every / 4, every * 2);
            self.after(wait, Event::Churn);
        }
    }

    /// Something about the members is to change.
    pub(super) fn churn(&mut self) -> Step {
        self.next_churn();
        if self.calm || self.churn.pending.is_some() || self.wounds.forgetful.is_some() {
            return Ok(());
        }
        let members: Vec<usize> = self.lasting().into_iter().collect();
        let comes = members.len() < MEMBERS.1 && self.churn.came < self.plan.comers_max;
        let chosen = members[self.churn.rng.below(members.len() as u64) as usize];
        let relieved = comes && self.plan.relieves && self.churn.relief.chance(500);
        let doing = match self.churn.rng.below(3) {
            _ if relieved => Doing::Relieve { node: chosen, by: self.come() },
            0 if comes => Doing::Add { node: self.come() },
            1 if members.len() > MEMBERS.0 => {
                let look = |node: usize| self.nodes[node].node.as_ref().and_then(|node| node.inspect(SHARD));
                let leads = |node: &usize| look(*node).is_some_and(|look| look.role == Role::Leader);
                let leader = members.iter().copied().find(leads).filter(|_| self.churn.came.is_multiple_of(2));
                let node = leader.unwrap_or(chosen);
                self.churn.led = leads(&node);
                Doing::Remove { node }
            }
            _ if self.churn.came < self.plan.comers_max
                && self.wounds.is_none()
                && !self.is_rotten()
                && self.is_in_three_places() =>
            {
                self.mark("disk wiped");
                if self.driver_bug() == Some(DriverBug::ReturnAsOld) {
                    self.crash(chosen, "disk wiped");
                    self.nodes[chosen].disk = Disk::default();
                    self.nodes[chosen].store = StoreKind::new(&self.plan);
                    return Ok(());
                }
                // What its disk had said it held, counts: the leader counted it before the disk was lost, and one disk may be lost.
                self.retire(chosen, "disk wiped");
                Doing::Replace { node: chosen, by: self.come() }
            }
            _ => return Ok(()),
        };
        self.report.faults += 1;
        self.churn.pending = Some(Pending { doing, asked: None, written: false, off_at: None });
        Ok(())
    }

    /// Whether some log is being mended.
    fn is_rotten(&self) -> bool {
        let mends =
            |node: &SimNode| node.node.as_ref().is_some_and(|node| looks(node).iter().any(|(_, look)| look.rotted > 0));
        self.nodes.iter().any(mends)
    }

    /// Whether every shard that lives on some nodes has three voters that are still there, and is to have as many.
    fn is_in_three_places(&self) -> bool {
        let told = self.nodes.iter().filter_map(|node| node.node.as_ref()).max_by_key(|node| node.roster().revision);
        let gone = |node: &NodeId| self.churn.retired.iter().any(|retired| id_of(*retired) == *node);
        told.map(Node::placements).is_some_and(|placements| {
            let left =
                |shard| placements.group(shard).map_or(0, |group| group.voters.iter().filter(|v| !gone(v)).count());
            placements.placed().all(|(shard, placement)| left(shard).min(placement.wanted.len()) >= PLACES)
        })
    }

    /// A machine more; it is not started yet.
    fn come(&mut self) -> usize {
        self.churn.came += 1;
        let node = SimNode::new(&self.plan, &mut self.churn.rng);
        self.nodes.push(node);
        // Until it is let in it is not there.
        self.churn.retired.insert(self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn retire(&mut self, node: usize, what: &'static str) {
        self.churn.retired.insert(node);
        self.crash(node, what);
        if self.plan.is_long() {
            // What it lacked is of no interest any more: else no disk could ever forget again.
            self.wounds.mended(node);
        }
        // Nobody reads its disk again.
        let this = &mut self.nodes[node];
        (this.disk, this.store, this.twin) = (Disk::default(), StoreKind::new(&self.plan), None);
    }

    /// Whether nothing else is about to change, and enough is left without it, so that a node may be replaced by another.
    pub(super) fn may_come_back_as_another(&self, node: usize) -> bool {
        self.churn.pending.is_none()
            && self.churn.came < self.plan.comers_max
            && !self.churn.is_retired(node)
            && self.is_in_three_places()
    }

    /// What a node has promised is lost. It puts its disk aside and joins anew, as a server does by itself.
    pub(super) fn come_back_as_another(&mut self, node: usize) {
        self.retire(node, "disk put aside");
        self.to_prove.remove(&node);
        self.mark("came back as another");
        self.note(node, "its disk is put aside; it comes back as another");
        let doing = Doing::Replace { node, by: self.come() };
        self.churn.pending = Some(Pending { doing, asked: None, written: false, off_at: None });
    }

    /// The operator looks how things go.
    pub(super) fn operator(&mut self) -> Step {
        self.after(LOOK_US, Event::Operator);
        let Some(pending) = &mut self.churn.pending else { return Ok(()) };
        if !pending.written {
            if pending.asked.is_some_and(|(_, at)| self.now < at + PATIENCE_US) {
                return Ok(());
            }
            let request_id = self.next_request;
            self.next_request += 1;
            pending.asked = Some((request_id, self.now));
            let txn = rows(pending.doing);
            let up: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].node.is_some()).collect();
            if up.is_empty() {
                return Ok(());
            }
            let node = up[self.churn.rng.below(up.len() as u64) as usize];
            let request = Request::Submit { shard: SHARDS[0], command: Command::Transact(txn) };
            return self.feed(node, Input::Request { id: request_id, timeout: Duration::from_secs(2), request });
        }
        let (doing, off_at) = (pending.doing, pending.off_at);
        let gone = |node: usize| {
            self.nodes.iter().any(|n| n.node.as_ref().is_some_and(|n| n.roster().removed.contains_key(&id_of(node))))
        };
        let votes = |node: usize| {
            let row = |n: &SimNode| {
                let rows = &n.node.as_ref()?.roster().rows;
                rows.get(&id_of(node)).map(|(row, _)| row.state == MemberState::Voter)
            };
            self.nodes.iter().any(|n| row(n) == Some(true))
        };
        let done = match doing {
            Doing::Add { node } => votes(node).then_some("learner promoted"),
            Doing::Replace { node, by } => (gone(node) && votes(by)).then_some("wiped node returned"),
            Doing::Relieve { by, .. } if off_at.is_none() && !votes(by) => None,
            Doing::Remove { node } | Doing::Relieve { node, .. } => match off_at {
                // For a while it goes on, and must disturb nobody.
                None if gone(node) => {
                    let wait = self.churn.rng.between(0, 3_000_000);
                    if let Some(pending) = &mut self.churn.pending {
                        pending.off_at = Some(self.now + wait);
                    }
                    None
                }
                Some(at) if self.now >= at && self.wounds.forgetful.is_none() => {
                    let relieved = matches!(doing, Doing::Relieve { .. });
                    if self.churn.led && !relieved {
                        self.mark("leader removed");
                    }
                    self.retire(node, "removed");
                    Some(if relieved { "member replaced" } else { "member removed" })
                }
                _ => None,
            },
        };
        if let Some(mark) = done {
            self.mark(mark);
            self.churn.pending = None;
        }
        Ok(())
    }

    /// Whether an answer was the operator's; what it makes of it.
    pub(super) fn operator_hears(&mut self, request: u64, answer: &Result<Reply, Error>) -> Result<bool, Violation> {
        let Some(pending) = self.churn.pending.as_mut().filter(|p| p.asked.is_some_and(|(id, _)| id == request)) else {
            return Ok(false);
        };
        // If a compare failed, an earlier request was carried out.
        if !matches!(answer, Ok(Reply::Applied(_))) {
            pending.asked = None;
            return Ok(true);
        }
        pending.written = true;
        if let Doing::Add { node } | Doing::Replace { by: node, .. } | Doing::Relieve { by: node, .. } = pending.doing {
            self.churn.retired.remove(&node);
            self.after(1_000, Event::Restart { node });
            if self.calm {
                self.to_prove.insert(node);
            }
        }
        Ok(true)
    }

    /// Who is relieved is told to go when its successor has what it had, as far as the rows say at that moment.
    pub(super) fn look_at_the_relieved(&self, node: usize) -> Step {
        let Some(Pending { doing: Doing::Relieve { node: old, by }, .. }) = &self.churn.pending else { return Ok(()) };
        let Some(core) = &self.nodes[node].node else { return Ok(()) };
        let roster = core.roster();
        let Some((row, since)) = roster.rows.get(&id_of(*old)) else { return Ok(()) };
        if row.state != MemberState::Leaving || *since != roster.revision {
            return Ok(());
        }
        let successor = roster.rows.get(&id_of(*by)).map(|(row, _)| row.state);
        let has_all = successor == Some(MemberState::Voter) && !core.placements().may_use(id_of(*old));
        demand(has_all, "who is replaced goes last", || {
            format!("{} is to go, and {}, which takes its place, is {successor:?}", id_of(*old), id_of(*by))
        })
    }

    /// In the end the members are those that were asked for.
    pub(super) fn churn_ended(&self) -> Step {
        demand(self.churn.pending.is_none(), "members are what was asked for", || {
            let of = |row: &MemberRow| format!("{} is {:?}", row.id, row.state);
            let rows = |node: &Node| node.roster().rows.values().map(|(row, _)| of(row)).collect::<Vec<_>>().join(", ");
            let told = self.nodes.iter().filter_map(|node| node.node.as_ref());
            let told: Vec<String> = told.map(|node| format!("{}: {}", node.config().node, rows(node))).collect();
            format!("{:?}; {}", self.churn.pending, told.join("; "))
        })?;
        for node in self.lasting() {
            let look = self.nodes[node].node.as_ref().and_then(|node| node.inspect(SHARD));
            demand(look.is_some_and(|look| look.voter), "members are what was asked for", || {
                format!("{} has no vote: {look:?}", id_of(node))
            })?;
        }
        Ok(())
    }
}

/// The rows that say what is wanted, written once.
fn rows(doing: Doing) -> Txn {
    let row = |node: usize, state| MemberRow {
        id: id_of(node),
        incarnation: Some(Incarnation(node as u64 + 1)),
        name: String::new(),
        peer_addresses: Vec::new(),
        client_urls: Vec::new(),
        state,
    };
    let put = |row: MemberRow| Op::Put(PutOp::of(MemberRow::key(row.id), row.encode()));
    let never =
        |key: bytes::Bytes| Compare { range: KeyRange::single(key), op: CompareOp::Equal, expected: Expected::Mod(0) };
    let fresh = |id: NodeId| vec![never(MemberRow::key(id)), never(MemberRow::removed_key(id))];
    let (compares, success) = match doing {
        Doing::Add { node } => (fresh(id_of(node)), vec![put(row(node, MemberState::Joining))]),
        Doing::Remove { node } => {
            (vec![never(MemberRow::removed_key(id_of(node)))], vec![put(row(node, MemberState::Leaving))])
        }
        Doing::Replace { node, by } => {
            (fresh(id_of(by)), vec![put(row(by, MemberState::Joining)), put(row(node, MemberState::Leaving))])
        }
        Doing::Relieve { node, by } => {
            // Who was there at first has no row, and could not be told from who was removed.
            let rows = [row(by, MemberState::Joining), row(node, MemberState::Voter)];
            let wish = Placements::replace(id_of(node), id_of(by));
            (fresh(id_of(by)), rows.map(put).into_iter().chain([wish]).collect())
        }
    };
    Txn { compares, success, failure: Vec::new() }
}
