//! The plain HTTP pages: `/health`, `/version`, `/metrics`.

use crate::Options;
use crate::metrics::{self, Metrics};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use quorate_kv::{Consistency, Db, KeyRange, KeyspaceId, RangeOp};
use std::sync::Arc;

/// Routes of the pages.
pub(crate) fn pages(db: Arc<dyn Db>, options: &Options, metrics: Arc<Metrics>) -> axum::Router {
    let version = format!("{{\"etcdserver\":\"{}\",\"etcdcluster\":\"3.5.0\"}}", options.version);
    let json = || [(header::CONTENT_TYPE, "application/json")];
    let health_db = db.clone();
    axum::Router::new()
        .route("/version", get(move || async move { (json(), version) }))
        .route(
            "/health",
            get(move || async move {
                let (code, body) = health(&health_db).await;
                (code, json(), body).into_response()
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::page(&db, &metrics).await)
            }),
        )
}

/// Healthy is a node that can serve a linearizable read and has room to write.
async fn health(db: &Arc<dyn Db>) -> (StatusCode, String) {
    let sick =
        |reason: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}"));
    match db.status(KeyspaceId::DEFAULT).await {
        Ok(status) if status.leader.is_none() => return sick("RAFT NO LEADER"),
        Ok(status) if status.no_space => return sick("ALARM NOSPACE"),
        Ok(_) => {}
        Err(_) => return sick("NODE STOPPING"),
    }
    let op = RangeOp::of(KeyRange::single("health"));
    match db.read(KeyspaceId::DEFAULT, op, Consistency::Linearizable).await {
        Ok(_) => (StatusCode::OK, "{\"health\":\"true\",\"reason\":\"\"}".into()),
        Err(_) => sick("RANGE ERROR"),
    }
}
