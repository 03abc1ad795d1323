//! The port: HTTP/2 with gRPC on it, and HTTP/1 for the pages.

use crate::connection::Front;
use crate::kv::KvService;
use crate::lease::LeaseService;
use crate::maintenance::MaintenanceService;
use crate::metrics::Metrics;
use crate::options::{CONNECTIONS_MAX, LOG_PERIOD, OVERHEAD_BYTES};
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::etcdserverpb::watch_server::WatchServer;
use crate::watch::WatchService;
use crate::{Options, connection, http};
use quorate_env::{Brake, Instant};
use quorate_kv::Db;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tonic::service::Routes;

/// Whether the server has been told to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns when it has.
    pub async fn wait(&mut self) {
        // The sender lives as long as the server accepts; without it there is nothing to wait for.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

fn router(db: &Arc<dyn Db>, options: &Options, metrics: &Arc<Metrics>, stop: &Stop) -> axum::Router {
    let (db, options, metrics, stop) = (db.clone(), options.clone(), metrics.clone(), stop.clone());
    // Each message was measured as it arrived, so that this bound is never what refuses it.
    let limit = options.max_request_bytes + OVERHEAD_BYTES;
    let kv = KvService { db: db.clone(), options: options.clone(), metrics: metrics.clone() };
    let watch = WatchService { db: db.clone(), options: options.clone(), metrics: metrics.clone(), stop: stop.clone() };
    let drawn = Arc::new(AtomicU64::new(0));
    let lease = LeaseService { db: db.clone(), options: options.clone(), metrics: metrics.clone(), drawn, stop };
    let maintenance = MaintenanceService { db: db.clone(), options: options.clone(), metrics: metrics.clone() };
    let pages = http::pages(db, &options, metrics);
    Routes::new(KvServer::new(kv).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX))
        .add_service(WatchServer::new(watch).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX))
        .add_service(LeaseServer::new(lease).max_decoding_message_size(limit))
        .add_service(MaintenanceServer::new(maintenance.clone()).max_decoding_message_size(limit))
        .add_service(ClusterServer::new(maintenance.clone()).max_decoding_message_size(limit))
        .add_service(AuthServer::new(maintenance).max_decoding_message_size(limit))
        .prepare()
        .into_axum_router()
        .merge(pages)
}

/// Serves clients on `listener`, and what `native` serves under its own paths, until `shutdown` completes, then lets calls in progress end for a moment.
///
/// # Errors
/// If the listener cannot be used at all.
pub async fn serve(
    listener: TcpListener,
    db: Arc<dyn Db>,
    options: Options,
    native: axum::Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let metrics = Metrics::new();
    let (stopping, stop) = watch::channel(false);
    let stop = Stop(stop);
    let front = Front {
        router: router(&db, &options, &metrics, &stop),
        native,
        metrics: metrics.clone(),
        message_bytes_max: options.max_request_bytes + OVERHEAD_BYTES,
    };
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (began, accepting, crowded) = (std::time::Instant::now(), Brake::new(LOG_PERIOD), Brake::new(LOG_PERIOD));
    let now = || Instant(0) + began.elapsed();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of file descriptors, or a client that left before it was accepted: neither ends the server.
                    metrics.connections_failed.fetch_add(1, Ordering::Relaxed);
                    if let Some(held) = accepting.pass(now()) {
                        tracing::warn!("cannot accept a client: {e} ({held} more were not logged)");
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
            if let Some(held) = crowded.pass(now()) {
                tracing::warn!(
                    "more than {CONNECTIONS_MAX} client connections: closed one ({held} more were not logged)"
                );
            }
            continue;
        };
        let (front, metrics, stop) = (front.clone(), metrics.clone(), stop.clone());
        tokio::spawn(async move {
            metrics.connections.fetch_add(1, Ordering::Relaxed);
            connection::serve(stream, front, stop).await;
            metrics.connections.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        });
    }
    // Streams end with a status, connections with their last call; those that do not are cut when the process ends.
    stopping.send_replace(true);
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(Duration::from_secs(1), connections.acquire_many(all)).await;
    Ok(())
}
