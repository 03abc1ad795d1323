//! The real world under the core: threads, sockets, files and clocks.
//!
//! ```text
//!   gRPC handlers ──┐                    ┌──> log writer thread ──> disk
//!   peers ──> net ──┼──> lane (one Node) ┼──> store thread ──────> disk
//!   clock ──────────┘     one thread     └──> net ──> peers, replies ──> handlers
//! ```
//!
//! The files have the names of `sim`'s: there the disk, the net and the clock are cruel, here they are real. A [`Runtime`] is one
//! node; [`Runtime::db`] is the handle that layers are given.

mod admin;
pub mod clock;
mod damage;
mod db;
pub mod disk;
mod driver;
mod joining;
mod keyspaces;
mod members;
mod net;
mod recording;
mod replacing;
#[cfg(test)]
mod tests;
mod watch;

pub use driver::{LaneStats, Options, Runtime, StartError};
pub use joining::{JoinError, Place, Wish, come_back, settle, token_hash};
pub use members::member_id;
pub use recording::TraceOptions;
