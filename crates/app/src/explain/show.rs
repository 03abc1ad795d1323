//! The explanation for people.

use super::measure::{AGE, Measured};
use super::promises_of;
use quorate_client::{Keyspace, Loss, Replication};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The whole of it, in the words of the theorem.
pub fn pacelc(keyspace: &Keyspace) -> &'static str {
    match keyspace.replication {
        Replication::Leader if !keyspace.commit_wait => {
            "PC/EL for writes, which may be lost with a leader; PC/EC for strict reads; reads may choose PA/EL"
        }
        _ => "PC/EC for writes and strict reads; reads may choose PA/EL",
    }
}

pub fn lines(keyspace: &Keyspace, nodes: usize, measured: &[Measured]) -> Vec<String> {
    let shards = match keyspace.shards.len() {
        1 => "1 shard".into(),
        more => format!("{more} shards"),
    };
    let replicas = keyspace.replicas.unwrap_or(nodes);
    let mut lines = vec![
        format!("{}: {shards}, replicas: {replicas}, {nodes} nodes. {}.", keyspace.name, pacelc(keyspace)),
        format!(
            "A shard goes on where {} of its {replicas} replicas reach each other; elsewhere a node is cut off from it.",
            replicas / 2 + 1
        ),
        writers(keyspace),
    ];
    lines.extend(lost(keyspace));
    lines.push(format!("Reads that do not say are {}. History: {}.", keyspace.freshness, keyspace.history));
    for promise in &promises_of(keyspace) {
        let way = match promise.way {
            "at" | "after" => format!("{}:TOKEN", promise.way),
            "within" => format!("within:{}ms", AGE.as_millis()),
            way => way.into(),
        };
        lines.push(String::new());
        lines.push(way);
        lines.push(format!("  keeps     {}", promise.keeps));
        lines.push(format!("  gives up  {}", promise.gives_up));
        lines.push(format!("  cut off   {}", promise.cut_off.words()));
        let now = measured.iter().filter(|measured| measured.way == promise.way).map(now);
        lines.push(format!("  now       {}", now.collect::<Vec<_>>().join(", ")));
    }
    lines
}

/// Whom writers wait for.
fn writers(keyspace: &Keyspace) -> String {
    let whose = match keyspace.replication {
        Replication::Majority => "of a majority of the voters",
        Replication::All => "of all voters",
        Replication::Leader if keyspace.commit_wait => "of a majority of the voters",
        Replication::Leader => "of the leader",
    };
    let clocks = if keyspace.commit_wait { ", and its timestamp is over on every clock" } else { "" };
    let away = match keyspace.replication {
        Replication::Majority => "",
        Replication::All => "; while a voter is away, none is",
        Replication::Leader if keyspace.commit_wait => " (commit-wait waits for longer than the leader's disk)",
        Replication::Leader => {
            "; if that fails, what it acknowledged last is lost: at most 1,000 entries, and one second"
        }
    };
    format!("A write is acknowledged when it is on the disks {whose}{clocks}{away}.")
}

/// What has become of that so far.
fn lost(keyspace: &Keyspace) -> Option<String> {
    let Loss { answers, found_ms } = keyspace.lost?;
    let found = UNIX_EPOCH + Duration::from_millis(found_ms);
    let ago = SystemTime::now().duration_since(found).unwrap_or_default().as_secs();
    Some(format!(
        "At most {answers} writes were acknowledged and lost since it was made; some were last found {ago} s ago."
    ))
}

fn now(measured: &Measured) -> String {
    let ms = |us: u64| format!("{:.1}", us as f64 / 1_000.0);
    match (measured.p50_us, measured.max_us) {
        (Some(p50), Some(max)) if measured.answers => {
            format!("{}: {} ms, at most {}", measured.node, ms(p50), ms(max))
        }
        _ => format!("{}: refuses", measured.node),
    }
}
