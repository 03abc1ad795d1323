//! A shard gives the keys from one on to a shard of their own, its child (docs/design/splitting.md).
//!
//! ```text
//!   Split ──> nothing of the keys is prepared: the range ends earlier from this entry on, and what the child begins with is written down (`birth`)
//!         └─> something is: nothing more of them is prepared, and the leader asks again
//!   each replica copies the child's rows into a slot of their own (`building`); the parent's stay as they are meanwhile
//!   Wean  ──> a majority has the child: the parent's rows of it may go (`clearing`)
//! ```
//!
//! What is asked of a shard and is not its own is refused when it is applied, so it does not matter how old the shard map was of whoever asked.

pub(crate) mod birth;
pub(crate) mod building;
mod clearing;
pub(crate) mod weighing;

use crate::flaw::Flaw;
use crate::machine::{MachineError, Output, Transaction};
use birth::Birth;
use bytes::Bytes;
use quorate_env::{ShardId, checksum};
use quorate_kv::across::{Part, TxStep};
use quorate_kv::reserve::ReserveStep;
use quorate_kv::{Command, KeyRange, Op, Outcome, RangeEnd, Refusal, Txn};

impl Transaction<'_> {
    pub(crate) fn split(&mut self, at: &Bytes, child: ShardId) -> Result<Result<Outcome, Refusal>, MachineError> {
        if self.source.get(&self.slot.merged(child))?.is_some() {
            // It was split off, and has come back: whoever asks for it has an old map.
            return Ok(Ok(Outcome::Split));
        }
        Ok(self.split_off(at, child))
    }

    fn split_off(&mut self, at: &Bytes, child: ShardId) -> Result<Outcome, Refusal> {
        let range = KeyRange { start: at.clone(), end: self.meta.range.end.clone() };
        if self.meta.yielded {
            return Err(Refusal::Moved { key: at.clone() });
        }
        if self.births.contains_key(&child) || !self.meta.range.contains(at) || *at == self.meta.range.start {
            // It was asked for twice.
            return Ok(Outcome::Split);
        }
        if self.leases.iter().next().is_some() {
            return Err(Refusal::LeasesSplit);
        }
        if let Some(blocker) = self.ledger.prepared_in(&range)
            && self.flaw != Some(Flaw::SplitWithLocks)
        {
            self.meta.closing = Some(at.clone());
            return Err(blocker.into());
        }
        let reservations = self.give_reservations(&range);
        let keep = self.flaw != Some(Flaw::ForgetKeysInSplit);
        let birth = Birth {
            child,
            range: range.clone(),
            index: self.meta.applied.next(),
            term: self.term,
            revision: self.meta.revision,
            compacted: self.meta.compacted,
            state_hash: checksum::chain(self.meta.state_hash, &child.0.to_be_bytes()),
            wall: self.meta.wall,
            membership: self.meta.membership.clone(),
            decisions: if keep { self.ledger.under_keys().collect() } else { Vec::new() },
            clock: self.meta.clock,
            since: self.meta.since,
            reservations,
            annexes: self.meta.annexes.iter().filter_map(|annex| annex.within(&range)).collect(),
        };
        self.put_row(self.slot.birth(child), birth.encode().into());
        if self.flaw != Some(Flaw::KeepSplitOff) {
            self.meta.range.end = RangeEnd::Before(at.clone());
        }
        self.meta.closing = None;
        // What is behind is another's now, and so is what is behind that.
        self.meta.absorbing = None;
        self.births.insert(child, birth);
        Ok(Outcome::Split)
    }

    pub(crate) fn wean(&mut self, child: ShardId, output: &mut Output) {
        if self.births.remove(&child).is_some() {
            self.delete_row(self.slot.birth(child));
            output.weaned = true;
        }
    }

    /// The first key that a command asks for and that is not this shard's to give, or will not be soon.
    pub(crate) fn moved(&self, command: &Command) -> Option<Refusal> {
        let whole = self.meta.range == KeyRange::all();
        if whole && self.meta.closing.is_none() || self.flaw == Some(Flaw::ServeMoved) {
            return None;
        }
        let yielded = self.meta.yielded && self.flaw != Some(Flaw::ServeYielded);
        let outside = |range: &KeyRange| yielded || !range.is_within(&self.meta.range);
        let key = match command {
            Command::Transact(txn) => key_of_txn(txn, &outside),
            Command::Across { step: TxStep::Decide(verdict), .. } => key_of_part(&verdict.part, &outside),
            Command::Across { step: TxStep::Prepare { part, .. }, .. } => {
                let closing = self.meta.closing.as_ref();
                let gone = closing.map(|at| KeyRange { start: at.clone(), end: RangeEnd::Unbounded });
                let going = |range: &KeyRange| gone.as_ref().is_some_and(|gone| gone.overlaps(range));
                key_of_part(part, &|range| outside(range) || going(range))
            }
            Command::Reserve { step: ReserveStep::Reserve { keys, .. }, .. } => {
                keys.iter().find(|key| yielded || !self.meta.range.contains(key)).cloned()
            }
            _ => None,
        };
        key.map(|key| Refusal::Moved { key })
    }
}

fn key_of_part(part: &Part, gone: &dyn Fn(&KeyRange) -> bool) -> Option<Bytes> {
    let written = part.ranges_written().find(|range| gone(range));
    written.or_else(|| part.ranges_read().find(|range| gone(range))).map(|range| range.start)
}

fn key_of_txn(txn: &Txn, gone: &dyn Fn(&KeyRange) -> bool) -> Option<Bytes> {
    let compared = txn.compares.iter().map(|compare| &compare.range).find(|range| gone(range));
    compared.map(|range| range.start.clone()).or_else(|| {
        txn.success.iter().chain(&txn.failure).find_map(|op| match op {
            Op::Range(op) => gone(&op.range).then(|| op.range.start.clone()),
            Op::Put(op) => gone(&KeyRange::single(op.key.clone())).then(|| op.key.clone()),
            Op::Delete(op) => gone(&op.range).then(|| op.range.start.clone()),
            Op::Txn(nested) => key_of_txn(nested, gone),
        })
    })
}
