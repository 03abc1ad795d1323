//! The explanation for people.

use super::measure::{AGE, Measured};
use super::promises::PROMISES;
use quorate_client::Keyspace;

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
        format!("Reads that do not say are {}. History: {}.", keyspace.freshness, keyspace.history),
    ];
    for promise in &PROMISES {
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

fn now(measured: &Measured) -> String {
    let ms = |us: u64| format!("{:.1}", us as f64 / 1_000.0);
    match (measured.p50_us, measured.max_us) {
        (Some(p50), Some(max)) if measured.answers => {
            format!("{}: {} ms, at most {}", measured.node, ms(p50), ms(max))
        }
        _ => format!("{}: refuses", measured.node),
    }
}
