//! Writers: puts, swaps that depend on what is there, and removals, each of which writes its number.

use super::session::Session;
use super::{Notes, Shared};
use quorate_env::Rng;
use quorate_kv::{Command, Compare, CompareOp, DeleteOp, Expected, KeyRange, Op, PutOp, RangeOp, Txn};
use quorate_sim::witness::{Asked, mark};
use std::sync::Arc;
use std::time::Duration;

/// Keys that the writers fight over.
const KEYS: u64 = 24;

/// Between two operations, in microseconds.
const THINK_US: (u64, u64) = (500, 4_000);

pub async fn run(shared: Arc<Shared>, client: u64, mut rng: Rng, value_bytes_max: u64) -> Notes {
    let mut session = Session::new(Arc::clone(&shared), client as usize);
    let mut notes = Notes::default();
    while !shared.stopped() {
        let number = shared.number();
        let txn = draw(&mut rng, client, number, value_bytes_max);
        let Some(operation) = session.ask(number, Asked::Write(Command::Transact(txn))).await else { break };
        notes.operations.push(operation);
        tokio::time::sleep(Duration::from_micros(rng.between(THINK_US.0, THINK_US.1))).await;
    }
    notes
}

fn draw(rng: &mut Rng, client: u64, number: u64, value_bytes_max: u64) -> Txn {
    let key = format!("k/{:02}", rng.below(KEYS));
    let marked = |ops: Vec<Op>| std::iter::once(mark(client, number)).chain(ops).collect();
    let value = format!("{number}-{}", "v".repeat(rng.below(value_bytes_max) as usize));
    match rng.below(100) {
        0..40 => Txn::just(mark(client, number)),
        40..70 => {
            let put = PutOp { prev_kv: rng.chance(300), ..PutOp::of(key, value) };
            Txn { success: marked(vec![Op::Put(put)]), ..Txn::default() }
        }
        70..90 => {
            let expected = Expected::Version(rng.below(4) as i64);
            let compare = Compare { range: KeyRange::single(key.clone()), op: CompareOp::Greater, expected };
            let look = Op::Range(RangeOp::of(KeyRange::single(key.clone())));
            let swap = Op::Put(PutOp::of(key, format!("swapped {number}")));
            Txn { compares: vec![compare], success: marked(vec![swap, look.clone()]), failure: marked(vec![look]) }
        }
        _ => {
            let delete = Op::Delete(DeleteOp { range: KeyRange::single(key), prev_kv: true });
            Txn { success: marked(vec![delete]), ..Txn::default() }
        }
    }
}
