//! `quorate status`: how the members are, asked one by one.

use crate::cli::StatusArgs;
use crate::endpoint::connect;
use crate::failure::Failure;
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::{MemberListRequest, RangeRequest, StatusRequest};
use serde::Serialize;
use std::time::Duration;

/// An endpoint that does not answer within this is shown as down.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
struct Row {
    endpoint: String,
    name: String,
    id: String,
    leader: bool,
    version: String,
    revision: i64,
    term: u64,
    applied: u64,
    disk_bytes: i64,
    errors: Vec<String>,
}

/// Whether a server answers a linearizable read.
pub async fn is_ready(endpoint: &str) -> bool {
    let ask = async {
        let channel = connect(endpoint).await.ok()?;
        let key = bytes::Bytes::from_static(b"health");
        KvClient::new(channel).range(RangeRequest { key, ..Default::default() }).await.ok()
    };
    matches!(tokio::time::timeout(PATIENCE, ask).await, Ok(Some(_)))
}

async fn ask(endpoint: &str) -> Result<Row, Failure> {
    let channel = connect(endpoint).await?;
    let refused = |e: tonic::Status| Failure::Server(format!("{endpoint}: {}", e.message()));
    let status = MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await.map_err(refused)?.into_inner();
    let members =
        ClusterClient::new(channel).member_list(MemberListRequest { linearizable: false }).await.map_err(refused)?;
    let header = status.header.unwrap_or_default();
    let name = members.into_inner().members.into_iter().find(|m| m.id == header.member_id).map(|m| m.name);
    Ok(Row {
        endpoint: endpoint.to_owned(),
        name: name.unwrap_or_default(),
        id: format!("{:x}", header.member_id),
        leader: status.leader == header.member_id,
        version: status.version,
        revision: header.revision,
        term: status.raft_term,
        applied: status.raft_applied_index,
        disk_bytes: status.db_size,
        errors: status.errors,
    })
}

pub async fn run(args: StatusArgs) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for endpoint in &args.endpoints {
        let row = match tokio::time::timeout(PATIENCE, ask(endpoint)).await {
            Ok(Ok(row)) => row,
            Ok(Err(e)) => down(endpoint, e.to_string()),
            Err(_) => down(endpoint, format!("no answer within {} s", PATIENCE.as_secs())),
        };
        rows.push(row);
    }
    let up = rows.iter().filter(|row| row.errors.is_empty()).count();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows).map_err(std::io::Error::other)?);
    } else {
        println!(
            "{:<24} {:<8} {:<8} {:>10} {:>6} {:>10} {:>12}",
            "ENDPOINT", "NAME", "ROLE", "REVISION", "TERM", "APPLIED", "DISK"
        );
        for row in &rows {
            let role = if !row.errors.is_empty() {
                "down"
            } else if row.leader {
                "leader"
            } else {
                "follower"
            };
            println!(
                "{:<24} {:<8} {:<8} {:>10} {:>6} {:>10} {:>12}",
                row.endpoint, row.name, role, row.revision, row.term, row.applied, row.disk_bytes
            );
            row.errors.iter().for_each(|error| println!("  {error}"));
        }
    }
    if up == rows.len() {
        Ok(())
    } else {
        Err(Failure::Server(format!("{} of {} endpoints are not well", rows.len() - up, rows.len())))
    }
}

fn down(endpoint: &str, error: String) -> Row {
    Row {
        endpoint: endpoint.to_owned(),
        name: String::new(),
        id: String::new(),
        leader: false,
        version: String::new(),
        revision: 0,
        term: 0,
        applied: 0,
        disk_bytes: 0,
        errors: vec![error],
    }
}
