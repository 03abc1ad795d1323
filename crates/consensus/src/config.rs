//! How a group is set up.

use quorate_env::{DecodeError, Reader, ReplicaId, Writer};

/// Who votes and who only listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Replicas with a vote, ascending.
    pub voters: Vec<ReplicaId>,
    /// Replicas without one, ascending.
    pub learners: Vec<ReplicaId>,
}

impl Membership {
    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        for list in [&self.voters, &self.learners] {
            w.varint(list.len() as u64);
            for id in list {
                w.varint(id.0);
            }
        }
    }

    /// Reads one back.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let mut membership = Self::default();
        for list in [&mut membership.voters, &mut membership.learners] {
            for _ in 0..r.count("members")? {
                list.push(ReplicaId(r.varint("replica")?));
            }
        }
        Ok(membership)
    }
}

/// The parameters of a group. Times are in ticks; the caller decides how long a tick is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which replica this is.
    pub replica: ReplicaId,
    /// Ticks without a leader's message before an election; each wait is drawn from `election_ticks..2 * election_ticks`.
    pub election_ticks: u32,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// Bytes of entries in one append message.
    pub append_bytes_max: u64,
    /// Append messages in flight to one follower.
    pub inflight_max: usize,
    /// Bytes of proposals not yet committed; beyond it proposals are dropped.
    pub uncommitted_bytes_max: u64,
}
