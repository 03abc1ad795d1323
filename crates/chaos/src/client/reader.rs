//! Readers: of one key or of all, linearizable or whatever the node has.

use super::session::Session;
use super::{Notes, Shared};
use quorate_env::Rng;
use quorate_kv::{KeyRange, RangeOp};
use quorate_sim::witness::{Asked, Told};
use std::sync::Arc;
use std::time::Duration;

/// Between two reads, in microseconds.
const THINK_US: (u64, u64) = (1_000, 6_000);

pub async fn run(shared: Arc<Shared>, client: u64, mut rng: Rng, linearizable: bool) -> Notes {
    let mut session = Session::new(Arc::clone(&shared), client as usize);
    let mut notes = Notes::default();
    while !shared.stopped() {
        let range = match rng.below(10) {
            0 => KeyRange::prefix("k/0"),
            1..4 => KeyRange::single(format!("m/{}", 1 + rng.below(super::WRITERS))),
            _ => KeyRange::single(format!("k/{:02}", rng.below(24))),
        };
        let asked = Asked::Read { op: RangeOp::of(range), linearizable };
        let Some(operation) = session.ask(shared.number(), asked).await else { break };
        if matches!(operation.told, Told::Read(..)) {
            notes.operations.push(operation);
        }
        tokio::time::sleep(Duration::from_micros(rng.between(THINK_US.0, THINK_US.1))).await;
    }
    notes
}
