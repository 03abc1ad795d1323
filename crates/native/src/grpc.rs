//! The same over gRPC (proto/quorate.proto): another door, with the same meaning and the same refusals.
//!
//! ```text
//!   request ──> door: one whole message, in time, of a known shape ──> codec ──> service ──> translate ──> place, scan, feed, kv::Db
//!   every status that is not OK carries a Problem (problems)
//! ```

mod codec;
mod door;
mod problems;
mod service;
mod shape;
mod translate;
mod watch;

/// What the definition says, as tables.
mod tables {
    /// A message's fields: their numbers, and what messages they hold.
    type Fields = &'static [(u64, Option<&'static str>)];

    include!(concat!(env!("OUT_DIR"), "/tables.rs"));
}

/// The messages, the service and its client, generated from `proto/`.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("quorate.v1");
}

pub use problems::problem_of;

use crate::feed::Stop;
use axum::{Router, middleware};
use proto::quorate_server::QuorateServer;
use quorate_kv::Db;
use std::sync::Arc;

/// What paths to calls begin with.
pub(crate) const ROUTE: &str = "/quorate.v1.Quorate/";

/// The service's calls.
pub(crate) fn router(db: Arc<dyn Db>, stop: Stop) -> Router {
    // The door has measured each message, so that these bounds are never what refuses one.
    let server = QuorateServer::new(service::Service { db, stop })
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    Router::new().route_service(&format!("{ROUTE}{{*call}}"), server).layer(middleware::from_fn(door::enter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_page_names_each_call_and_nothing_else() {
        let page = include_str!("../../../docs/native-api.md");
        let rows = page.lines().skip_while(|line| !line.starts_with("| call |")).skip(2);
        let rows = rows.take_while(|line| line.starts_with('|')).filter_map(|row| row.split('|').nth(1));
        let documented: BTreeSet<&str> = rows.map(|cell| cell.trim().trim_matches('`')).collect();
        assert_eq!(documented, tables::CALLS.iter().map(|(name, _)| *name).collect());
    }

    #[test]
    fn paths_begin_with_the_services_name() {
        assert_eq!(ROUTE, format!("/{}/", proto::quorate_server::SERVICE_NAME));
    }
}
