//! The explanation for people.

use super::measure::{AGE, Measured};
use super::promises_of;
use quorate_client::{Keyspace, Replication};

/// The whole of it, in the words of the theorem.
pub const PACELC: &str = "PC/EC for writes and strict reads; reads may choose PA/EL";

pub fn lines(keyspace: &Keyspace, nodes: usize, measured: &[Measured]) -> Vec<String> {
    let shards = match keyspace.shards.len() {
        1 => "1 shard".into(),
        more => format!("{more} shards"),
    };
    let replicas = keyspace.replicas.unwrap_or(nodes);
    let mut lines = vec![
        format!("{}: {shards}, replicas: {replicas}, {nodes} nodes. {PACELC}.", keyspace.name),
        format!(
            "A shard goes on where {} of its {replicas} replicas reach each other; elsewhere a node is cut off from it.",
            replicas / 2 + 1
        ),
        writers(keyspace),
        format!("Reads that do not say are {}. History: {}.", keyspace.freshness, keyspace.history),
    ];
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
    };
    let clocks = if keyspace.commit_wait { ", and its timestamp is over on every clock" } else { "" };
    let away = if keyspace.replication == Replication::All { "; while a voter is away, none is" } else { "" };
    format!("A write is acknowledged when it is on the disks {whose}{clocks}{away}.")
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
