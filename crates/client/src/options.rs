//! How patient a client is. All bounds of the crate are here, with their reasons.

use std::time::Duration;

/// How long and how often a client tries. The defaults suit a service; a command line may want fewer rounds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// A request that has no answer after this long ends, as unavailable or unknown.
    pub deadline: Duration,
    /// Within the deadline, all endpoints are asked so often.
    pub rounds: u32,
    /// A server that cannot be connected to within this is passed over.
    pub connect: Duration,
    /// A server that does not answer within this is passed over. It gives up by itself before that.
    pub answer: Duration,
    /// How often the closure of a transaction is run while others change what it has read.
    pub transaction_tries: u32,
    /// It is not run again after this long, whatever tries are left.
    pub transaction_deadline: Duration,
    /// How long all servers may be away before a watch gives up.
    pub watch_patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            rounds: 64,
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(10),
            transaction_tries: 64,
            transaction_deadline: Duration::from_secs(60),
            watch_patience: Duration::from_secs(60),
        }
    }
}

/// A node may send a reader elsewhere; nodes that send each other readers for ever are passed over.
pub(crate) const REDIRECTS_MAX: u32 = 4;

/// Servers say something to a watch each ten seconds: one that is silent for longer has gone.
pub(crate) const WATCH_QUIET_MAX: Duration = Duration::from_secs(25);

/// What is read of one answer. A request may have 16 MiB, and reads answer less than this.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 20;

/// What one event of a watch may have: all that happened at one revision, which one request wrote, with what was there
/// before.
pub(crate) const EVENT_BYTES_MAX: usize = 64 << 20;

/// The first pause between two rounds or two runs of a closure; each is twice the one before, and a random part of
/// that.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest pause: an election takes about as long.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(1);
