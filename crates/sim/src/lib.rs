//! The simulator: the whole cluster below the sockets in one thread, from one seed.
//!
//! ```text
//!   plan (drawn from the seed) ──> world: one heap of events, ordered by (time, sequence)
//!     clients ── requests ──> nodes (the real core) ── outputs ──> disk, net, clock (cruel) ──> inputs
//!                                      └── every step ──> checks
//! ```
//!
//! The nodes are `cluster::Node`, the log is `storage::wal`, the bytes between nodes are the real encoding; the store is the model
//! store, and for every eighth seed the real engine. What is simulated is the world. A run is safe when no check objects, and live when,
//! after all faults have healed, every node serves again and all replicas agree.
//!
//! docs/simulator.md lists faults, checks and planted bugs.

mod checks;
mod client;
mod clock;
mod diagram;
mod disk;
mod driver;
mod fault;
mod ground;
mod history;
mod lies;
mod locking;
mod minimise;
mod model;
mod net;
mod numbers;
mod plan;
mod planted;
mod report;
mod rot;
mod rules;
pub mod scale;
mod scenarios;
mod teller;
mod trace;
pub mod witness;

pub use diagram::diagram;
pub use driver::run_seed;
pub use ground::{Count, Ground};
pub use history::Violation;
pub use minimise::{Minimised, Only, minimise, run_only};
pub use numbers::Numbers;
pub use planted::{PLANTED, Planted, planted};
pub use report::{MARKS, Report, faults_by_kind};
pub use rules::explain;
pub use scenarios::{Finding, Play, SCENARIOS, Scenario, scenario};
pub use trace::{
    About, Lane, Loss, MessageId, Outcome, Part, Record, Said, TRACE_VERSION, Trace, TraceError, TraceEvent, Way,
};

use std::time::Duration;

/// What to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A safety mechanism that is switched off.
    pub planted: Option<&'static Planted>,
    /// What the plan has more of; a planted bug has its own.
    pub ground: Ground,
    /// How long faults last, if not as long as the seed draws.
    pub storm: Option<Duration>,
    /// Keep what happens, for people to read.
    pub trace: bool,
}

#[cfg(test)]
mod tests;
