//! Writers who are told only when all voters have what they wrote, or when its timestamp is over; and whether that was so.

use super::{Step, World};
use crate::checks::dial::{Version, in_order};
use crate::history::demand;
use crate::teller::parse;
use bytes::Bytes;
use quorate_env::{LogIndex, ReplicaId, Rng, ShardId, Timestamp, WallMs};
use quorate_kv::across::{Part, TxId, TxStep, Write};
use quorate_kv::{Command, Op};
use std::collections::{BTreeMap, BTreeSet};

/// Of a thousand operations of an onlooker, those that read what its own clock says is now, where writers wait for clocks.
const CLOCKED_PER_MILLE: u64 = 250;

/// The entries of one attempt at something.
#[derive(Clone, Debug, Default)]
struct Attempt {
    entries: Vec<(ShardId, LogIndex)>,
    /// Whether one of them decides.
    decided: bool,
}

/// See the top of this file.
#[derive(Default)]
pub(super) struct Acks {
    rng: Option<Rng>,
    /// Who tried to write, and where that is. What is no transaction over shards has one attempt for each entry.
    attempts: BTreeMap<u64, BTreeMap<(TxId, Option<LogIndex>), Attempt>>,
    /// The last entry of each shard that somebody was told of.
    told: BTreeMap<ShardId, LogIndex>,
    voters: BTreeMap<ShardId, BTreeSet<ReplicaId>>,
}

impl Acks {
    pub fn new(rng: Rng) -> Self {
        Self { rng: Some(rng), ..Self::default() }
    }

    fn note(&mut self, value: &Bytes, name: (TxId, Option<LogIndex>), at: (ShardId, LogIndex), decides: bool) {
        let Some((operation, _)) = parse(value) else { return };
        let attempt = self.attempts.entry(operation).or_default().entry(name).or_default();
        attempt.decided |= decides;
        if attempt.entries.last() != Some(&at) {
            attempt.entries.push(at);
        }
    }
}

fn values(part: &Part) -> impl Iterator<Item = &Bytes> {
    part.success.iter().chain(&part.failure).filter_map(|write| match write {
        Write::Put { value, .. } => Some(value),
        _ => None,
    })
}

impl World<'_> {
    fn waits_for_all(&self) -> bool {
        self.plan.bank.is_some_and(|bank| bank.everywhere)
    }

    /// What an onlooker's own clock says is now, which is as good as those of the nodes, if it is to read that.
    pub(super) fn now_by_own_clock(&mut self) -> Option<Timestamp> {
        let bound_ms = self.plan.clock_bound_ms()?;
        let rng = self.acks.rng.as_mut()?;
        let (now, off_ms) = (super::Clock::TRUE.wall(self.now), rng.between(0, 2 * bound_ms));
        rng.chance(CLOCKED_PER_MILLE).then(|| Timestamp::of(WallMs(now.0 + off_ms - bound_ms)))
    }

    /// An entry of one of the bank's shards is committed: whose writes are in it?
    pub(super) fn note_writers(&mut self, at: (ShardId, LogIndex), command: &Command) {
        if !self.waits_for_all() {
            return;
        }
        match command {
            Command::Across { tx, step: TxStep::Prepare { part, .. } } => {
                values(part).for_each(|value| self.acks.note(value, (*tx, None), at, false));
            }
            Command::Across { tx, step: TxStep::Decide(verdict) } => {
                values(&verdict.part).for_each(|value| self.acks.note(value, (*tx, None), at, true));
            }
            Command::Transact(txn) => {
                for op in txn.success.iter().chain(&txn.failure) {
                    if let Op::Put(put) = op {
                        self.acks.note(&put.value, (TxId(0), Some(at.1)), at, true);
                    }
                }
            }
            _ => {}
        }
    }

    /// Somebody was told that it is done.
    pub(super) fn judge_told(&mut self, operation: u64) -> Step {
        if !self.waits_for_all() || !self.wrote_something(operation) {
            return Ok(());
        }
        let attempts: Vec<Attempt> =
            self.acks.attempts.get(&operation).into_iter().flat_map(|attempts| attempts.values().cloned()).collect();
        let whole = |attempt: &&Attempt| {
            attempt.decided && attempt.entries.iter().all(|(shard, index)| self.raft.lacking(*shard, *index).is_empty())
        };
        let Some(done) = attempts.iter().find(whole) else {
            let lacks = |(shard, index): &(ShardId, LogIndex)| (*shard, *index, self.raft.lacking(*shard, *index));
            let lacking: Vec<_> = attempts.iter().flat_map(|attempt| attempt.entries.iter().map(lacks)).collect();
            return demand(false, "acknowledged is durable on all voters", || {
                format!("operation {operation} was told, and these lack its entries: {lacking:?}")
            });
        };
        for (shard, index) in &done.entries {
            let told = self.acks.told.entry(*shard).or_default();
            *told = index.max(told).to_owned();
        }
        self.mark("told when all voters had it");
        Ok(())
    }

    /// Who comes to vote in one of the bank's shards has all that anybody was told of.
    pub(super) fn look_at_voters(&mut self, shard: ShardId) -> Step {
        if !self.waits_for_all() {
            return Ok(());
        }
        let now = self.raft.voters(shard);
        let before = self.acks.voters.insert(shard, now.clone()).unwrap_or_else(|| now.clone());
        let told = self.acks.told.get(&shard).copied();
        let Some(told) = told.filter(|_| !now.is_subset(&before)) else { return Ok(()) };
        let lacking: Vec<ReplicaId> =
            self.raft.lacking(shard, told).into_iter().filter(|id| !before.contains(id)).collect();
        self.mark("voter came where all are waited for");
        demand(lacking.is_empty(), "who votes has what was acknowledged", || {
            format!("{lacking:?} vote in {shard} and lack {told}, which a client was told of")
        })
    }

    /// Where writers wait for clocks, timestamps are in the order of what was done, whoever did it.
    pub(super) fn judge_order_of_moments(&mut self, versions: &BTreeMap<Bytes, Vec<Version>>) -> Step {
        if self.plan.clock_bound_ms().is_none() {
            return Ok(());
        }
        let compared = in_order(versions, &self.began(), &self.acknowledged())?;
        if compared > 0 {
            *self.report.marks.entry("happened after what was told").or_default() += compared;
        }
        Ok(())
    }
}
