//! One node of the cluster as a pure state machine: many consensus groups, their replicas, and what clients ask of them.
//!
//! ```text
//!            Input                                  Outputs
//!   ticks, peers, clients   ┌────────────────┐   persist ──> log ──> Input::Persisted
//!   persisted, flushed  ──> │ Node           │   messages ──> peers
//!                           │  Replica  ...  │   replies, watch notices ──> clients
//!                           └────────────────┘   flush ──> store ──> Input::Flushed
//! ```
//!
//! [`Node::step`] takes one [`Input`], [`Node::drain`] gives the [`Outputs`]. Nothing in between waits, reads a clock, draws
//! randomness that is not seeded, or iterates in an order that could differ in another run; `runtime` and `sim` drive the same
//! code.
//!
//! What the parts promise:
//! - [`node`] routes; it decides nothing about consensus or data.
//! - [`replica`] owns one group and one state machine, and the order *persist, then acknowledge*.
//! - [`mending`] stands for a replica whose log has rotted, until the other replicas have given back what is missing.
//! - [`proposals`], [`reads`], [`lease_clock`], [`transfer`] each keep one kind of promise to clients or peers.
//! - [`across`] carries transactions over several shards through, and finishes those whose coordinator is gone.
//! - [`keyspaces`] says which shards there are, [`placement`] on which nodes; [`placing`] decides that.
//! - [`outpost`] stands for a shard that this node has no replica of.
//! - [`levels`] says what may be asked of a cluster whose members run different releases.
//! - [`members`] says what the cluster wants to be, [`reshape`] what a group's leader does to get there, [`replacing`] when a node goes for which another
//!   has come.
//!
//! The cluster does not know that there are sockets, files, gRPC or threads.

mod ack_wait;
mod across;
pub mod boot;
pub mod bounds;
mod config;
mod fetch;
mod input;
pub mod keyspaces;
mod lease_clock;
pub mod levels;
mod load;
mod looking;
pub mod losses;
pub mod members;
mod mending;
mod node;
mod outpost;
mod pace;
pub mod placement;
pub mod placing;
mod proposals;
mod reads;
mod recall;
mod replacing;
mod replica;
mod reshape;
mod rows;
mod slots;
mod transfer;
pub mod wire;

pub use boot::BootError;
pub use config::{BootMember, Merges, NodeConfig, Sabotage, SplitLoad, Timing};
pub use input::{
    FlushTask, Input, Inspection, LeaseAnswer, Lost, Mended, Outputs, Persist, Reply, Request, RequestId, Standings,
    WatchOutput, WatchRequest,
};
pub use looking::{Observation, Observed};
pub use node::{FIRST_SHARDS, Node};
pub use placing::turn_of;
pub use recall::Sighting;
pub use replica::{AtRisk, membership_hash};
pub use wire::{Answer, EntryCopy, PeerBody, PeerMessage};
