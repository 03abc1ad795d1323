//! What the core promises to the layers, and nothing about how.
//!
//! A layer (etcd, and later Redis, topics, flows) sees an [`Db`]: it reads, submits commands, and watches. The verbs are few
//! on purpose; everything else is a library on top. The contract:
//!
//! - **Submit**: a [`Command`] is applied exactly once or refused, or its outcome is *unknown* and says so
//!   ([`Error::UnknownOutcome`]). It is acknowledged only when durable on a majority.
//! - **Read**: linearizable unless asked otherwise ([`Freshness`]); a read at a revision never changes its answer until that revision is
//!   compacted.
//! - **Watch**: ordered, unique, atomic per revision, resumable, and never ahead of its events with a progress mark.
//! - **Order**: an ordered keyspace has one [`Revision`], +1 per command that changed a key.
//!
//! Values and keys are [`bytes::Bytes`]: slices of the frame or the log entry they came in, never copied on the way.

pub mod across;
mod answer;
mod command;
mod db;
mod error;
mod keys;
mod keyspace;
mod level;
pub mod limits;
pub mod log;
mod look;
pub mod merge;
mod policy;
pub mod reserve;
mod txn;
mod watch;

pub use answer::{decode_answer, decode_sight, encode_answer, encode_sight};
pub use command::{Command, CommandId, Envelope, LeaseId, Outcome, ProcedureId, SessionId};
pub use db::{
    Applied, BoxFuture, Consistency, Db, Header, Identity, KeyspaceHash, LeaseInfo, Loss, Member, MemberChange,
    NodeInfo, Read, Repairs, ShardCounts, ShardHomes, Status, WatchSession,
};
pub use error::{Error, MemberRefusal, MoveRefusal, Refusal, Unavailable};
pub use keys::{KeyRange, RangeEnd};
pub use keyspace::{Keyspace, KeyspaceId, KeyspaceKind};
pub use level::Level;
pub use look::{Freshness, Looked};
pub use policy::{Policy, PolicyChange, Replication};
pub use txn::{
    Compare, CompareOp, DeleteOp, DeleteResult, Expected, KeyValue, Op, OpResult, PutOp, PutResult, RangeOp,
    RangeResult, Revision, Sort, SortBy, Txn, TxnResult,
};
pub use watch::{Event, EventKind, WatchControl, WatchEvents, WatchId, WatchNotice, WatchSpec};
