//! Shards that split while tellers work: somebody asks for it now and then, and what comes of it is judged.

use super::{Event, REQUEST_TIMEOUT, SHARDS, Step, World};
use crate::history::{Violation, demand};
use bytes::Bytes;
use quorate_cluster::keyspaces::KeyspaceRow;
use quorate_cluster::{Input, Request, RequestId, SplitLoad};
use quorate_env::checksum::checksum;
use quorate_env::{Rng, ShardId};
use quorate_kv::{Command, Error, KeyRange, KeyspaceKind, RangeEnd, Unavailable};
use quorate_shard::Birth;
use std::collections::{BTreeMap, BTreeSet};

/// See the top of this file.
#[derive(Default)]
pub(super) struct Splits {
    rng: Option<Rng>,
    asked: BTreeSet<RequestId>,
    /// Children that somebody asked for; others are split off because their parents are too large.
    wanted: BTreeSet<ShardId>,
    /// Children that the shard map has, as some node knows.
    pub mapped: BTreeSet<ShardId>,
    /// Those of them that were merged.
    pub merged: BTreeSet<ShardId>,
    births: BTreeMap<ShardId, Birth>,
    weaned: BTreeSet<ShardId>,
    /// Since when each shard has the keys that it has, in true time, as far as the map says; `None` if it was made with them.
    settled: BTreeMap<ShardId, Option<u64>>,
}

impl Splits {
    pub fn new(rng: Rng) -> Self {
        Self { rng: Some(rng), ..Self::default() }
    }
}

impl World<'_> {
    pub(super) fn begin_splits(&mut self) {
        if let Some(every) = self.plan.bank.and_then(|bank| bank.split_every_us) {
            self.after(every, Event::Split);
        }
    }

    /// Somebody asks some node to split the bank's keyspace somewhere.
    pub(super) fn split(&mut self) -> Step {
        let Some(plan) = self.plan.bank.filter(|_| !self.calm) else { return Ok(()) };
        let Some(every) = plan.split_every_us else { return Ok(()) };
        let there = self.not_retired();
        let Some(rng) = &mut self.splits.rng else { return Ok(()) };
        let (wait, key, node) = (rng.between(1, 2 * every), plan.accounts.any_key(rng), rng.pick(&there).copied());
        self.after(wait, Event::Split);
        let (Some(node), Some(bank)) = (node, node.and_then(|node| self.bank_of(node))) else { return Ok(()) };
        let core = self.nodes[node].node.as_ref().expect("it knows the bank");
        if core.keyspaces().splits() >= plan.splits_max || bank.shards.iter().any(|(start, _)| *start == key) {
            return Ok(());
        }
        let split = core.keyspaces().split(core.placements(), bank.id, &key);
        let (child, txn) = split.map_err(|e| Violation { rule: "answers fit", detail: e.to_string() })?;
        let id = self.next_request;
        self.next_request += 1;
        self.splits.asked.insert(id);
        self.splits.wanted.insert(child);
        let request = Request::Submit { shard: SHARDS[0], command: Command::Transact(txn) };
        self.feed(node, Input::Request { id, timeout: REQUEST_TIMEOUT, request })
    }

    /// Whether an answer was to somebody who asked for a split. What came of it shows in the map.
    pub(super) fn split_hears<T>(&mut self, request: RequestId, answer: &Result<T, Error>) -> bool {
        let known = self.splits.asked.remove(&request);
        if known && matches!(answer, Err(Error::Unavailable(Unavailable::FeatureLevel { .. }))) {
            self.mark("split refused below its feature level");
        }
        known
    }

    /// What a node's replicas say of their children: all say the same, and the child's log goes on from there.
    pub(super) fn look_at_births(&mut self, node: usize) -> Step {
        let Some(core) = &self.nodes[node].node else { return Ok(()) };
        for (parent, birth) in core.births() {
            let members = core.inspect(parent).map(|look| look.membership);
            demand(members == Some(checksum(0, &birth.membership)), "members stay while a shard is split", || {
                format!("{parent} has split off {} and has other members than it began with", birth.child)
            })?;
        }
        let births = core.births().map(|(_, birth)| birth);
        let news: Vec<Birth> =
            births.filter(|birth| self.splits.births.get(&birth.child) != Some(*birth)).cloned().collect();
        for birth in news {
            let known = self.splits.births.get(&birth.child);
            demand(known.is_none(), "a shard is split once", || format!("{birth:?}, and for another {known:?}"))?;
            let by_load = self.plan.split_load != SplitLoad::NEVER;
            self.mark(match self.splits.wanted.contains(&birth.child) {
                true => "shard split",
                false if by_load => "shard split by its load",
                false => "shard split by its size",
            });
            self.raft.born(birth.child, birth.index, birth.term, &birth.membership)?;
            self.splits.births.insert(birth.child, birth);
            self.strike(node);
        }
        Ok(())
    }

    /// What a node's map says: whoever was split, or split off, rests before it is split by its load.
    pub(super) fn look_at_rests(&mut self, row: &KeyspaceRow) -> Step {
        let bound = self.plan.split_load;
        let shards = row.keyspace.shards.iter().map(|(_, shard)| shard);
        // As they came.
        let news: BTreeSet<&ShardId> = shards.filter(|shard| !self.splits.settled.contains_key(shard)).collect();
        for shard in news {
            let parent = row.parents.get(shard);
            let known = parent.and_then(|parent| self.splits.settled.get(parent).copied().flatten());
            let rested_us = known.map_or(u64::MAX, |since| self.now.saturating_sub(since));
            // A clock at double speed takes half the time, and clocks drift.
            let least_us = bound.rest.as_micros() as u64 * 45 / 100;
            let asked = bound == SplitLoad::NEVER || self.splits.wanted.contains(shard);
            demand(asked || rested_us >= least_us, "a shard rests before it is split by its load", || {
                format!("{shard} was split off {parent:?} after {rested_us} us")
            })?;
            self.splits.settled.insert(*shard, parent.map(|_| self.now));
            if let Some(parent) = parent {
                self.splits.settled.insert(*parent, Some(self.now));
            }
        }
        Ok(())
    }

    /// What a node's map says of shards that are no more.
    pub(super) fn look_at_merges(&mut self, row: &KeyspaceRow) {
        for merged in row.heirs.keys() {
            if self.splits.merged.insert(*merged) {
                self.mark("shard merged");
            }
        }
    }

    /// Whether the map has a shard that does not stand by itself yet.
    pub(super) fn is_splitting(&self) -> bool {
        let alone = |child: &ShardId| self.splits.weaned.contains(child) || self.splits.merged.contains(child);
        !self.splits.mapped.iter().all(alone)
    }

    /// An entry of a parent's log is committed.
    pub(super) fn split_commits(&mut self, command: &Command) -> Step {
        if let Command::Split { child, .. } = command
            && !self.splits.births.contains_key(child)
        {
            self.mark("split put off");
        }
        let Command::Wean { child } = command else { return Ok(()) };
        if !self.splits.births.contains_key(child) || !self.splits.weaned.insert(*child) {
            return Ok(());
        }
        self.mark("split-off shard weaned");
        demand(self.raft.goes_on(*child), "a child is weaned when a majority has it", || {
            format!("nothing is committed in {child} yet")
        })
    }

    /// In the end each shard has the keys that the map says.
    pub(super) fn judge_ranges(&self, ranges: &BTreeMap<ShardId, KeyRange>) -> Step {
        let rows = self.lasting().into_iter().flat_map(|node| self.rows_of(node));
        // Those of other kinds have one shard for ever.
        let rows = rows.filter(|row| row.keyspace.kind == KeyspaceKind::Ranged);
        let misfit = rows.filter_map(|row| misfit(&row, ranges)).next();
        demand(misfit.is_none(), "each key has one shard", || misfit.unwrap_or_default())
    }

    fn rows_of(&self, node: usize) -> Vec<KeyspaceRow> {
        let core = self.nodes[node].node.as_ref();
        core.map(|core| core.keyspaces().made().cloned().collect()).unwrap_or_default()
    }
}

/// A shard that has other keys than the map says, in words.
fn misfit(row: &KeyspaceRow, ranges: &BTreeMap<ShardId, KeyRange>) -> Option<String> {
    // Shards that were made, and not split off, were never told where they begin and end.
    let root = |shard: ShardId| std::iter::successors(Some(shard), |it| row.parents.get(it).copied()).last();
    let shards = &row.keyspace.shards;
    shards.iter().enumerate().find_map(|(at, (start, shard))| {
        let next = shards.get(at + 1).filter(|(_, next)| root(*next) == root(*shard));
        let start = if row.parents.contains_key(shard) { start.clone() } else { Bytes::new() };
        let end = next.map_or(RangeEnd::Unbounded, |(next, _)| RangeEnd::Before(next.clone()));
        let (should, has) = (KeyRange { start, end }, ranges.get(shard));
        (has != Some(&should)).then(|| format!("{shard} should have {should:?} and has {has:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::{Keyspace, KeyspaceId, Policy};

    #[test]
    fn a_shard_with_other_keys_than_the_map_says_is_noticed() {
        // Two were made; the first has given away what is from h on, and that from d on.
        let shards = [("", 1), ("d", 4), ("h", 3), ("m", 2)];
        let shards = shards.map(|(start, shard)| (Bytes::from(start), ShardId(shard))).to_vec();
        let parents = BTreeMap::from([(ShardId(3), ShardId(1)), (ShardId(4), ShardId(1))]);
        let keyspace = Keyspace {
            id: KeyspaceId(16),
            name: "bank".into(),
            kind: KeyspaceKind::Ranged,
            shards,
            policy: Policy::OF_MADE,
        };
        let row = KeyspaceRow { keyspace, founders: Vec::new(), parents, heirs: BTreeMap::new() };
        let range = |start: &'static str, end: Option<&'static str>| KeyRange {
            start: start.into(),
            end: end.map_or(RangeEnd::Unbounded, |end| RangeEnd::Before(end.into())),
        };
        let good = [(1, range("", Some("d"))), (4, range("d", Some("h"))), (3, range("h", None)), (2, range("", None))];
        let good = BTreeMap::from(good.map(|(shard, range)| (ShardId(shard), range)));
        assert_eq!(misfit(&row, &good), None);
        for (shard, wrong) in
            [(1, range("", None)), (1, range("", Some("h"))), (4, range("d", None)), (3, range("d", None))]
        {
            let mut bad = good.clone();
            bad.insert(ShardId(shard), wrong);
            assert!(misfit(&row, &bad).is_some(), "{bad:?}");
        }
        let lost: BTreeMap<ShardId, KeyRange> = good.into_iter().filter(|(shard, _)| shard.0 != 3).collect();
        assert!(misfit(&row, &lost).is_some(), "nobody has these keys");
    }
}
