//! Writers who are told only when all voters have what they wrote, or when its timestamp is over, or already when the leader has it; and whether that was so.

use super::{Step, World, id_of};
use crate::checks::dial::{Version, in_order};
use crate::clock::Clock;
use crate::history::{Violation, demand};
use crate::teller::parse;
use bytes::Bytes;
use quorate_cluster::{Node, bounds::EARLY_FOR};
use quorate_env::{LogIndex, ReplicaId, Rng, ShardId, Term, Timestamp, WallMs};
use quorate_kv::across::{Part, TxId, TxStep, Write};
use quorate_kv::{Command, Op};
use std::collections::{BTreeMap, BTreeSet};

/// Of a thousand operations of an onlooker, those that read what its own clock says is now, where writers wait for clocks.
const CLOCKED_PER_MILLE: u64 = 250;

/// The last entry of each shard that a leader told of, by its term.
type Heights = BTreeMap<(ShardId, Term), LogIndex>;

/// How things stood when somebody was told that something is done.
struct Then {
    /// What leaders had told.
    told: Heights,
    /// Entries that tried to do it and were committed.
    committed: Vec<(ShardId, LogIndex)>,
}

/// The entries of one attempt at something.
#[derive(Clone, Debug, Default)]
struct Attempt {
    /// One of each shard.
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
    /// The last entry of each shard that a leader's clients were told of early, by its term.
    told_early: Heights,
    /// What was told where a leader's disk is enough.
    early: BTreeMap<u64, Then>,
    /// Losses that nodes knew of and could not write down before they failed.
    unsaid: u64,
}

impl Acks {
    pub fn new(rng: Rng) -> Self {
        Self { rng: Some(rng), ..Self::default() }
    }

    /// A node fails.
    pub fn forget_losses(&mut self, core: &Node) {
        self.unsaid += core.unsaid_losses();
    }

    /// The committed entries of attempts at it that decided something.
    fn decided_by(&self, operation: u64) -> Vec<(ShardId, LogIndex)> {
        let attempts = self.attempts.get(&operation).into_iter().flat_map(BTreeMap::values);
        attempts.filter(|attempt| attempt.decided).flat_map(|attempt| attempt.entries.iter().copied()).collect()
    }

    fn note(&mut self, value: &Bytes, name: (TxId, Option<LogIndex>), at: (ShardId, LogIndex), decides: bool) {
        let Some((operation, _)) = parse(value) else { return };
        let attempt = self.attempts.entry(operation).or_default().entry(name).or_default();
        attempt.decided |= decides;
        // A command that was sent again may be in the log again. The first of its entries does it, and the others nothing.
        if attempt.entries.iter().all(|(shard, _)| *shard != at.0) {
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

    fn early_entries(&self) -> Option<u64> {
        self.plan.bank.and_then(|bank| bank.early_entries)
    }

    /// What an onlooker's own clock says is now, which is as good as those of the nodes, if it is to read that.
    pub(super) fn now_by_own_clock(&mut self) -> Option<Timestamp> {
        let bound_ms = self.plan.clock_bound_ms()?;
        let rng = self.acks.rng.as_mut()?;
        let (now, off_ms) = (Clock::TRUE.wall(self.now), rng.between(0, 2 * bound_ms));
        rng.chance(CLOCKED_PER_MILLE).then(|| Timestamp::of(WallMs(now.0 + off_ms - bound_ms)))
    }

    /// An entry of one of the bank's shards is committed: whose writes are in it?
    pub(super) fn note_writers(&mut self, at: (ShardId, LogIndex), command: &Command) {
        if !self.waits_for_all() && self.early_entries().is_none() {
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
        if self.early_entries().is_some() {
            self.note_early(operation);
            return Ok(());
        }
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

    /// A node has taken a step: of what has it told clients early? Is that on its disk, and not too far ahead of what a majority has?
    pub(super) fn look_at_risks(&mut self, node: usize) -> Step {
        let (Some(entries), Some(core)) = (self.early_entries(), self.nodes[node].node.as_ref()) else { return Ok(()) };
        let mut early = false;
        for shard in core.shards() {
            let Some(risk) = core.at_risk(shard) else { continue };
            let (index, term) = risk.last;
            let told = self.acks.told_early.entry((shard, term)).or_default();
            if *told >= index {
                continue;
            }
            *told = index;
            if self.raft.term_of(shard, index).is_none() {
                early = true;
            }
            demand(self.raft.holds_durably(node, shard, index, term), "told early is on the leader's disk", || {
                format!("{} has told clients of {index} of {term} in {shard}, which its disk has not", id_of(node))
            })?;
            demand(risk.entries <= entries, "no more is at risk than may be", || {
                format!("{} has told clients of {} entries of {shard} that no majority has", id_of(node), risk.entries)
            })?;
            let waits = self.nodes[node].clock.monotonic(self.now).since(risk.since);
            demand(waits < EARLY_FOR, "no more is at risk than may be", || {
                format!("{} goes on telling clients of {shard} after {waits:?} without a majority", id_of(node))
            })?;
        }
        if early {
            self.mark("told before a majority had it");
        }
        Ok(())
    }

    /// The same, where the leader's disk is enough.
    fn note_early(&mut self, operation: u64) {
        // Whoever only looked at one shard may have seen what is lost, too.
        let one_shard = self.bank.shards == 1 && self.splits.mapped.is_empty();
        if self.wrote_something(operation) || one_shard {
            let (told, committed) = (self.acks.told_early.clone(), self.acks.decided_by(operation));
            self.bank.check.early.insert(operation);
            self.acks.early.insert(operation, Then { told, committed });
        }
    }

    /// What a leader told that was deposed, and what the next one did again: its client was told of something else than what happened.
    fn forget_what_was_done_again(&mut self, versions: &BTreeMap<Bytes, Vec<Version>>) -> u64 {
        let moments: BTreeMap<u64, Timestamp> =
            versions.values().flatten().map(|version| (version.writer, version.at)).collect();
        let again = |(operation, then): (&u64, &Then)| {
            let was_told = |at: &(ShardId, LogIndex)| {
                let told = self.raft.term_of(at.0, at.1).and_then(|term| then.told.get(&(at.0, term)));
                told.is_some_and(|told| *told >= at.1) || then.committed.contains(at)
            };
            let entries = self.acks.decided_by(*operation);
            let elsewhere = !entries.is_empty() && !entries.iter().any(was_told);
            let otherwise = self.lookers.was_told_otherwise(*operation, moments.get(operation).copied());
            (elsewhere || otherwise).then_some(*operation)
        };
        let again: Vec<u64> = self.acks.early.iter().filter_map(again).collect();
        for operation in &again {
            self.answer_was_lost(*operation);
            self.mark("told by one leader and done by the next");
        }
        again.len() as u64
    }

    /// In the end: what was lost, and was it told?
    pub(super) fn judge_losses(
        &mut self,
        versions: &BTreeMap<Bytes, Vec<Version>>,
        writers: &BTreeMap<Bytes, Vec<u64>>,
    ) -> Result<BTreeSet<u64>, Violation> {
        let again = self.forget_what_was_done_again(versions);
        let lost = self.bank.check.lost(writers);
        if self.early_entries().is_none() {
            return Ok(lost);
        }
        let wrote = lost.iter().filter(|operation| self.wrote_something(**operation)).count() as u64;
        let latest = self.nodes.iter().filter_map(|node| node.node.as_ref()).max_by_key(|core| core.roster().revision);
        let bank = self.lasting().into_iter().find_map(|node| self.bank_of(node)).map(|bank| bank.id);
        let told = latest.and_then(|core| core.losses().of(bank?)).map_or(0, |loss| loss.answers);
        if wrote > 0 {
            *self.report.marks.entry("acknowledged and lost").or_default() += wrote;
        }
        let unsaid = self.acks.unsaid;
        demand(wrote + again <= told + unsaid, "what is lost is reported", || {
            format!(
                "{wrote} operations were acknowledged and are lost ({lost:?}), {again} were done again, {told} are reported, and nodes failed that knew of {unsaid}"
            )
        })?;
        Ok(lost)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teller::value;

    #[test]
    fn what_is_in_the_log_twice_was_done_by_the_first_entry() {
        let mut acks = Acks::default();
        let [home, other] = [ShardId(17), ShardId(18)];
        let (value, tx) = (value(229, 1), (TxId(5), None));
        acks.note(&value, tx, (other, LogIndex(9)), false);
        acks.note(&value, tx, (home, LogIndex(24)), true);
        acks.note(&value, tx, (home, LogIndex(25)), true);
        acks.note(&value, (TxId(6), None), (home, LogIndex(26)), false);
        assert_eq!(acks.decided_by(229), [(other, LogIndex(9)), (home, LogIndex(24))]);
    }
}
