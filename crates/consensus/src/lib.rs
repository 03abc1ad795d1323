//! One consensus group: Raft (Ongaro, "Consensus: Bridging Theory and Practice", 2014) behind a narrow door.
//!
//! The engine is the `raft` crate, unmodified. Its types never leave this crate; what goes in and out is [`Message`],
//! [`Entry`] and [`Ready`]. A [`Group`] is pure: [`Group::tick`], [`Group::step`] and [`Group::propose`] take data,
//! [`Group::ready`] gives back what must be persisted, sent and applied, in that order of obligation.
//!
//! What this crate adds around the engine, each because it bit somebody:
//! - The election timeout is ours: each replica has its own, by its place among the voters, so that no two ask for votes at once. It is put in place
//!   after every step that may have redrawn it from the thread's randomness.
//! - Messages are encoded by us ([`Message::encode`]); the engine's protobuf 2 decoder never sees bytes from outside.
//! - Only quorum-confirmed reads (`ReadIndex`); the engine's lease reads have no clock in them and are never used.
//! - Changes of membership are encoded by us too ([`MembershipChange`]) and enter the log past the engine's own door, which would
//!   decode protobuf; what they mean is still the engine's, and compared with our own reading of them at every change.

mod config;
mod group;
mod log;
mod membership;
mod message;
mod patience;
#[cfg(test)]
mod stories;

pub use config::Config;
pub use group::{Group, ProposeError, Ready, Role, StepError};
pub use log::{Restored, SnapshotPoint};
pub use membership::{Membership, MembershipChange, Step};
pub use message::{Entry, EntryKind, HardState, Message, MessageKind, Snapshot};
pub use patience::{first, ticks_until_missed};
