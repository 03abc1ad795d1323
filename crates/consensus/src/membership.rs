//! Who takes part in a group, and how that changes.
//!
//! ```text
//!   (1 2 3) ── Enter: voter 4, remove 3 ──> (1 2 4) and (1 2 3) ── Leave ──> (1 2 4)
//!   (1 2 3) ── Simple: learner 4 ─────────> (1 2 3), learner 4
//! ```
//!
//! Voters change by joint consensus (Ongaro's thesis, 4.3): while a configuration is joint, elections and commits need a majority of the
//! incoming *and* of the outgoing voters. A change is an entry of the log; each replica changes over when it *applies* that entry, and an
//! entry that does not fit the configuration that it finds changes nothing, on every replica alike. Both encodings are ours
//! (docs/design/wire-format.md), with a version each.

use quorate_env::{DecodeError, Reader, ReplicaId, Writer};
use raft::eraftpb;

/// The first byte of a membership's encoding that names its version: a list of voters, with which version 1 began, is never empty.
const VERSIONED: u8 = 0;
const VERSION: u8 = 2;
const CHANGE_VERSION: u8 = 1;

/// Who votes and who only listens. All lists ascend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Membership {
    /// Replicas with a vote; the incoming ones while the configuration is joint.
    pub voters: Vec<ReplicaId>,
    /// The voters before the change, while the configuration is joint; else nobody.
    pub outgoing: Vec<ReplicaId>,
    /// Replicas without a vote.
    pub learners: Vec<ReplicaId>,
    /// Outgoing voters that will be learners.
    pub learners_next: Vec<ReplicaId>,
}

impl Membership {
    /// A plain configuration of voters.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = ReplicaId>) -> Self {
        let mut voters: Vec<ReplicaId> = voters.into_iter().collect();
        voters.sort();
        Self { voters, ..Self::default() }
    }

    /// Whether it is on its way from one set of voters to another.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether a replica's vote counts.
    #[must_use]
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether a replica takes part at all.
    #[must_use]
    pub fn contains(&self, id: ReplicaId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Everybody who takes part, ascending.
    #[must_use]
    pub fn all(&self) -> Vec<ReplicaId> {
        let lists = [&self.voters, &self.outgoing, &self.learners];
        let mut all: Vec<ReplicaId> = lists.into_iter().flatten().copied().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Everybody whose vote counts, ascending.
    #[must_use]
    pub fn all_voters(&self) -> Vec<ReplicaId> {
        let mut all: Vec<ReplicaId> = self.voters.iter().chain(&self.outgoing).copied().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Whether those that `has` names decide: a majority of the voters, and of the outgoing ones too.
    #[must_use]
    pub fn is_quorum(&self, has: impl Fn(ReplicaId) -> bool) -> bool {
        let majority = |list: &[ReplicaId]| list.iter().filter(|id| has(**id)).count() > list.len() / 2;
        majority(&self.voters) && (self.outgoing.is_empty() || majority(&self.outgoing))
    }

    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        // What version 1 could say is still said in its words, which begin with the number of voters.
        let plain = self.outgoing.is_empty() && self.learners_next.is_empty() && (1..128).contains(&self.voters.len());
        let lists = [&self.voters, &self.outgoing, &self.learners, &self.learners_next];
        if !plain {
            w.u8(VERSIONED);
            w.u8(VERSION);
        }
        for list in lists.into_iter().enumerate().filter(|(n, _)| !plain || n % 2 == 0).map(|(_, list)| list) {
            w.varint(list.len() as u64);
            for id in list {
                w.varint(id.0);
            }
        }
    }

    /// Reads one back.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let first = r.u8("members")?;
        if first != VERSIONED {
            // Version 1: voters and learners; nobody ever had 128 of them.
            let voters = read_list(r, usize::from(first))?;
            let count = r.count("members")?;
            return Ok(Self { voters, learners: read_list(r, count)?, ..Self::default() });
        }
        if r.u8("membership version")? != VERSION {
            return Err(r.error("membership version"));
        }
        let mut lists = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for list in &mut lists {
            let count = r.count("members")?;
            *list = read_list(r, count)?;
        }
        let [voters, outgoing, learners, learners_next] = lists;
        Ok(Self { voters, outgoing, learners, learners_next })
    }

    pub(crate) fn to_engine(&self) -> eraftpb::ConfState {
        let list = |ids: &[ReplicaId]| ids.iter().map(|id| id.0).collect();
        eraftpb::ConfState {
            voters: list(&self.voters),
            voters_outgoing: list(&self.outgoing),
            learners: list(&self.learners),
            learners_next: list(&self.learners_next),
            ..Default::default()
        }
    }

    pub(crate) fn from_engine(state: &eraftpb::ConfState) -> Self {
        let list = |ids: &[u64]| {
            let mut list: Vec<ReplicaId> = ids.iter().copied().map(ReplicaId).collect();
            list.sort();
            list
        };
        Self {
            voters: list(&state.voters),
            outgoing: list(&state.voters_outgoing),
            learners: list(&state.learners),
            learners_next: list(&state.learners_next),
        }
    }
}

fn read_list(r: &mut Reader, count: usize) -> Result<Vec<ReplicaId>, DecodeError> {
    (0..count).map(|_| Ok(ReplicaId(r.varint("replica")?))).collect()
}

/// What becomes of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It votes.
    Voter(ReplicaId),
    /// It listens.
    Learner(ReplicaId),
    /// It goes.
    Remove(ReplicaId),
}

/// An entry that changes the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// At once. Only one step, and only if it leaves the voters as they are.
    Simple(Vec<Step>),
    /// Into a joint configuration.
    Enter(Vec<Step>),
    /// Out of it.
    Leave,
}

impl MembershipChange {
    /// The payload of its entry.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(CHANGE_VERSION);
        let (kind, steps): (u8, &[Step]) = match self {
            Self::Simple(steps) => (1, steps),
            Self::Enter(steps) => (2, steps),
            Self::Leave => (3, &[]),
        };
        w.u8(kind);
        w.varint(steps.len() as u64);
        for step in steps {
            let (kind, id) = match step {
                Step::Voter(id) => (1, id),
                Step::Learner(id) => (2, id),
                Step::Remove(id) => (3, id),
            };
            w.u8(kind);
            w.varint(id.0);
        }
        w.finish()
    }

    /// Reads a payload.
    pub fn decode(data: bytes::Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(data);
        if r.u8("change version")? != CHANGE_VERSION {
            return Err(r.error("change version"));
        }
        let kind = r.u8("change")?;
        let mut steps = Vec::new();
        for _ in 0..r.count("steps")? {
            let kind = r.u8("step")?;
            let id = ReplicaId(r.varint("replica")?);
            steps.push(match kind {
                1 => Step::Voter(id),
                2 => Step::Learner(id),
                3 => Step::Remove(id),
                _ => return Err(r.error("step")),
            });
        }
        r.end("change")?;
        match kind {
            1 => Ok(Self::Simple(steps)),
            2 => Ok(Self::Enter(steps)),
            3 if steps.is_empty() => Ok(Self::Leave),
            _ => Err(r.error("change")),
        }
    }

    /// The membership after it; `None` if it does not fit, and so changes nothing.
    #[must_use]
    pub fn after(&self, before: &Membership) -> Option<Membership> {
        let mut after = before.clone();
        match self {
            Self::Leave if !before.is_joint() => return None,
            Self::Leave => {
                after.learners.append(&mut after.learners_next);
                after.outgoing.clear();
                after.learners.sort();
                return Some(after);
            }
            Self::Simple(_) | Self::Enter(_) if before.is_joint() => return None,
            // The engine would read these as something else.
            Self::Simple(steps) if steps.len() != 1 => return None,
            Self::Enter(steps) if steps.is_empty() => return None,
            Self::Enter(steps) => {
                after.outgoing = before.voters.clone();
                steps.iter().for_each(|step| after.take(*step));
            }
            Self::Simple(steps) => {
                steps.iter().for_each(|step| after.take(*step));
                if after.voters != before.voters {
                    return None;
                }
            }
        }
        (!after.voters.is_empty()).then_some(after)
    }

    pub(crate) fn to_engine(&self) -> eraftpb::ConfChangeV2 {
        use eraftpb::{ConfChangeTransition as Transition, ConfChangeType as Type};
        let (transition, steps): (_, &[Step]) = match self {
            Self::Simple(steps) => (Transition::Auto, steps),
            Self::Enter(steps) => (Transition::Explicit, steps),
            Self::Leave => (Transition::Auto, &[]),
        };
        let single = |step: &Step| {
            let (change_type, id) = match step {
                Step::Voter(id) => (Type::AddNode, id),
                Step::Learner(id) => (Type::AddLearnerNode, id),
                Step::Remove(id) => (Type::RemoveNode, id),
            };
            eraftpb::ConfChangeSingle { change_type, node_id: id.0, ..Default::default() }
        };
        let changes: Vec<_> = steps.iter().map(single).collect();
        eraftpb::ConfChangeV2 { transition, changes: changes.into(), ..Default::default() }
    }
}

impl Membership {
    fn take(&mut self, step: Step) {
        let (Step::Voter(id) | Step::Learner(id) | Step::Remove(id)) = step;
        for list in [&mut self.voters, &mut self.learners, &mut self.learners_next] {
            list.retain(|other| *other != id);
        }
        match step {
            Step::Voter(_) => self.voters.push(id),
            Step::Learner(_) if self.outgoing.contains(&id) => self.learners_next.push(id),
            Step::Learner(_) => self.learners.push(id),
            Step::Remove(_) => {}
        }
        for list in [&mut self.voters, &mut self.learners, &mut self.learners_next] {
            list.sort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(list: &[u64]) -> Vec<ReplicaId> {
        list.iter().copied().map(ReplicaId).collect()
    }

    #[test]
    fn memberships_survive_and_those_of_version_1_are_what_they_were() {
        let joint = Membership {
            voters: ids(&[1, 2, 300]),
            outgoing: ids(&[1, 2, 3]),
            learners: ids(&[9]),
            learners_next: ids(&[3]),
        };
        let plain = Membership { voters: ids(&[1, 2, 300]), learners: ids(&[9]), ..Membership::default() };
        let nobody = Membership::default();
        let many = Membership::of_voters((1..=130).map(ReplicaId));
        for membership in [joint, plain, nobody, many] {
            let mut w = Writer::new();
            membership.encode(&mut w);
            let bytes = bytes::Bytes::from(w.finish());
            assert_eq!(Membership::decode(&mut Reader::new(bytes.clone())), Ok(membership));
            for len in 0..bytes.len() {
                assert!(Membership::decode(&mut Reader::new(bytes.slice(..len))).is_err());
            }
        }
        let old = bytes::Bytes::from_static(&[2, 7, 8, 1, 9]);
        let read = Membership { voters: ids(&[7, 8]), learners: ids(&[9]), ..Membership::default() };
        assert_eq!(Membership::decode(&mut Reader::new(old)), Ok(read));
    }

    #[test]
    fn changes_survive_and_garbage_does_not() {
        let steps = vec![Step::Voter(ReplicaId(4)), Step::Learner(ReplicaId(500)), Step::Remove(ReplicaId(3))];
        for change in [MembershipChange::Simple(steps.clone()), MembershipChange::Enter(steps), MembershipChange::Leave]
        {
            let bytes = bytes::Bytes::from(change.encode());
            assert_eq!(MembershipChange::decode(bytes.clone()), Ok(change));
            for len in 0..bytes.len() {
                assert!(MembershipChange::decode(bytes.slice(..len)).is_err());
            }
        }
        assert!(MembershipChange::decode(bytes::Bytes::from_static(&[2, 3, 0])).is_err());
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let before = Membership::of_voters(ids(&[1, 2, 3]));
        let change = MembershipChange::Enter(vec![Step::Voter(ReplicaId(4)), Step::Voter(ReplicaId(5))]);
        let joint = change.after(&before).expect("it fits");
        assert!(joint.is_joint() && joint.voters == ids(&[1, 2, 3, 4, 5]) && joint.outgoing == ids(&[1, 2, 3]));
        assert!(!joint.is_quorum(|id| id.0 >= 3), "three of five, but one of three");
        assert!(joint.is_quorum(|id| id.0 <= 3));
        assert!(!joint.is_quorum(|id| id.0 <= 2), "two of three, but two of five");
        assert_eq!(change.after(&joint), None, "one at a time");
        let after = MembershipChange::Leave.after(&joint).expect("it fits");
        assert_eq!(after, Membership::of_voters(ids(&[1, 2, 3, 4, 5])));
        assert_eq!(MembershipChange::Leave.after(&after), None);
    }

    #[test]
    fn voters_change_only_jointly_and_never_to_nobody() {
        let before = Membership::of_voters(ids(&[1]));
        assert_eq!(MembershipChange::Simple(vec![Step::Voter(ReplicaId(2))]).after(&before), None);
        assert_eq!(MembershipChange::Enter(vec![Step::Remove(ReplicaId(1))]).after(&before), None);
        let learner = MembershipChange::Simple(vec![Step::Learner(ReplicaId(2))]).after(&before).expect("it fits");
        assert_eq!((learner.voters.len(), learner.learners), (1, ids(&[2])));
    }

    #[test]
    fn a_voter_that_becomes_a_learner_is_one_when_the_joint_configuration_is_left() {
        let before = Membership::of_voters(ids(&[1, 2]));
        let joint = MembershipChange::Enter(vec![Step::Learner(ReplicaId(2))]).after(&before).expect("it fits");
        assert_eq!((joint.learners.clone(), joint.learners_next.clone()), (ids(&[]), ids(&[2])));
        let after = MembershipChange::Leave.after(&joint).expect("it fits");
        assert_eq!((after.voters, after.learners), (ids(&[1]), ids(&[2])));
    }
}
