//! How a group is set up.

use quorate_env::ReplicaId;

/// The parameters of a group. Times are in ticks; the caller decides how long a tick is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which replica this is.
    pub replica: ReplicaId,
    /// A number of the group's own: of many that begin together each voter is to lead some.
    pub turn: u64,
    /// Ticks without a leader's message before an election, at the least; each replica waits a little longer than the one before it.
    pub election_ticks: u32,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// Bytes of entries in one append message.
    pub append_bytes_max: u64,
    /// Append messages in flight to one follower.
    pub inflight_max: usize,
    /// Bytes of committed entries that are handed out at one time, if they are not one entry.
    pub committed_bytes_max: u64,
    /// Bytes of proposals not yet committed; beyond it proposals are dropped.
    pub uncommitted_bytes_max: u64,
}
