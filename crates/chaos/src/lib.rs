//! Chaos on real processes: clusters of `quorate start`, clients as actors, and a nemesis that does harm to processes, disks, networks or clocks.
//!
//! ```text
//!   nemesis ── kills, pauses ──> processes <── requests ── clients ── history ──> the simulator's checks
//!      ├────── cuts, storms ───> network of their own
//!      └────── cuts the power, fails, fills ──> disks of their own (FUSE)
//! ```
//!
//! `bank` does all that needs no root at once, to many shards, and judges by what a bank must keep.
//!
//! The simulator shares its model's blind spots; here nothing is modelled but the judgement. What clients saw is judged by
//! `quorate_sim::witness`, the same checks as in the simulator. A run whose fault did not bite fails like one that found a bug.

mod arena;
pub mod bank;
mod client;
mod cluster;
pub mod disk;
mod failure;
pub mod nemesis;
mod network;
mod report;
mod translate;

pub use failure::Failure;
pub use nemesis::{Length, run};
pub use report::Report;
