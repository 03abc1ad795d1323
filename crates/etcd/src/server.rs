//! The port: HTTP/2 with gRPC on it, and HTTP/1 for the pages. Every connection is bounded in what it may hold.

use crate::Options;
use crate::http;
use crate::kv::KvService;
use crate::lease::LeaseService;
use crate::maintenance::MaintenanceService;
use crate::metrics::Metrics;
use crate::options::{
    CONNECTIONS_MAX, FIRST_REQUEST_TIMEOUT, HEADER_BYTES_MAX, KEEPALIVE, OVERHEAD_BYTES, STREAMS_PER_CONNECTION_MAX,
};
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::etcdserverpb::watch_server::WatchServer;
use crate::watch::WatchService;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use quorate_kv::Db;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tonic::service::Routes;

fn router(db: &Arc<dyn Db>, options: &Options, metrics: &Arc<Metrics>) -> axum::Router {
    let (db, options, metrics) = (db.clone(), options.clone(), metrics.clone());
    let limit = options.max_request_bytes + OVERHEAD_BYTES;
    let kv = KvService { db: db.clone(), options: options.clone(), metrics: metrics.clone() };
    let watch = WatchService { db: db.clone(), options: options.clone(), metrics: metrics.clone() };
    let drawn = Arc::new(AtomicU64::new(0));
    let lease = LeaseService { db: db.clone(), options: options.clone(), metrics: metrics.clone(), drawn };
    let maintenance = MaintenanceService { db: db.clone(), options: options.clone(), metrics: metrics.clone() };
    let pages = http::pages(db, &options, metrics);
    Routes::new(KvServer::new(kv).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX))
        .add_service(WatchServer::new(watch).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX))
        .add_service(LeaseServer::new(lease))
        .add_service(MaintenanceServer::new(maintenance.clone()))
        .add_service(ClusterServer::new(maintenance.clone()))
        .add_service(AuthServer::new(maintenance))
        .prepare()
        .into_axum_router()
        .merge(pages)
}

/// Serves clients on `listener` until `shutdown` completes, then lets calls in progress end for a moment.
///
/// # Errors
/// If the listener cannot be used at all.
pub async fn serve(
    listener: TcpListener,
    db: Arc<dyn Db>,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let metrics = Metrics::new();
    let router = router(&db, &options, &metrics);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stopping, _) = watch::channel(false);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of file descriptors, or a client that left before it was accepted: neither ends the server.
                    tracing::warn!("cannot accept a client: {e}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            tracing::warn!("too many client connections: one was closed");
            continue;
        };
        let (router, metrics, stop) = (router.clone(), metrics.clone(), stopping.subscribe());
        tokio::spawn(async move {
            metrics.connections.fetch_add(1, Ordering::Relaxed);
            connection(stream, router, stop).await;
            metrics.connections.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        });
    }
    // Connections that still stand are told to finish; those that do not are cut when the process ends.
    stopping.send_replace(true);
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(Duration::from_secs(1), connections.acquire_many(all)).await;
    Ok(())
}

async fn connection(stream: TcpStream, router: axum::Router, mut stop: watch::Receiver<bool>) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!("a client connection has no options: {e}");
    }
    // A client that says nothing at all is not kept.
    let mut first = [0; 1];
    match tokio::time::timeout(FIRST_REQUEST_TIMEOUT, stream.peek(&mut first)).await {
        Ok(Ok(1)) => {}
        _ => return,
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(FIRST_REQUEST_TIMEOUT).max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = async { drop(stop.wait_for(|stop| *stop).await) } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!("a client connection ended: {e}");
    }
}
