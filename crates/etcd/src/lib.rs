//! etcd's v3 API over the core's contract.
//!
//! ```text
//!   one port ──> connection ──HTTP/2──> frames ──> codec ──> check ──> translate ──> kv::Db
//!                    └─HTTP/1──> /health /version /metrics
//! ```
//!
//! This crate knows etcd's words and nothing of consensus, storage or time; it holds a [`quorate_kv::Db`] and translates. What is
//! refused before it reaches the core is refused in [`check`], in etcd's order; what the core refuses is turned into etcd's codes
//! and texts in [`error`] and nowhere else.

mod check;
pub mod cluster;
mod codec;
pub mod compat;
mod connection;
mod error;
mod frames;
mod http;
mod intervals;
mod kv;
mod lease;
mod maintenance;
mod metrics;
mod options;
mod outbox;
mod server;
mod shape;
mod translate;
mod unserved;
mod watch;

/// The messages and services, generated from `proto/`.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod proto {
    /// Keys and events.
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    /// Requests, responses, services.
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
}

pub use options::Options;
pub use server::serve;
