//! The words that every floor shares, and what the core asks of the world.
//!
//! Nothing in here does anything: identifiers, time as an argument, hybrid timestamps, randomness from a seed, bytes in and out, checksums, a brake for log lines.
//! The core never reads a clock, never draws from the system's randomness and never touches a file; it is *given* a
//! [`Instant`], a [`Rng`] and bytes. That is what makes a seed replay everything.

pub mod brake;
pub mod checksum;
pub mod codec;
pub mod id;
pub mod rng;
pub mod time;
pub mod timestamp;

pub use brake::Brake;
pub use codec::{DecodeError, Reader, Writer};
pub use id::{ClusterId, Incarnation, LogIndex, NodeId, ReplicaId, ShardId, Term};
pub use rng::Rng;
pub use time::{Instant, WallMs};
pub use timestamp::Timestamp;
