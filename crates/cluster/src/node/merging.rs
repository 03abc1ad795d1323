//! Shards that are merged with the ones before them: their leaders see to it (docs/design/merging.md).
//!
//! ```text
//!   small, rested, nothing to tell of the past ──> ask the one before: would it take it? ──> Yield
//!   yielded ──> page by page into the log of the one before ──> it has all ──> the shard map: it is no more ──> its replicas go, everywhere
//! ```
//!
//! A node has one shard on its way at a time. Whoever leads next goes on: where the one before it stands, that one tells.

use super::{FIRST_SHARDS, MERGED, Node};
use crate::boot::BootError;
use crate::bounds::{MERGE_LOOK, MERGE_PATIENCE, RETRY};
use crate::config::{Merges, Sabotage};
use crate::input::{Reply, Request};
use crate::replica::Replica;
use bytes::Bytes;
use quorate_env::{Instant, ShardId, Timestamp, WallMs};
use quorate_kv::merge::Page;
use quorate_kv::{Command, Error, KeyspaceKind, Level, Outcome};
use quorate_shard::MachineError;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

/// See the top of this file.
#[derive(Default)]
pub(super) struct Merging {
    on: Option<Merge>,
    /// The last that was.
    last: ShardId,
    look_again: Option<Instant>,
    /// Shards that could not be merged, each until when it is left alone.
    left_alone: BTreeMap<ShardId, Instant>,
}

/// A shard on its way into the one before it.
struct Merge {
    shard: ShardId,
    step: Step,
    /// When it was last taken.
    at: Instant,
    /// Whether an answer is to come.
    asked: bool,
}

/// What comes next.
enum Step {
    /// Ask the one before how far it is.
    Ask,
    /// Have the shard yield; whether that was proposed.
    Yield { proposed: bool },
    /// Give what is behind this row.
    Give(Bytes),
    /// Have the shard map say that it is no more.
    Tell,
}

impl Merging {
    /// Whether an answer is to come.
    pub fn is_asking(&self) -> bool {
        self.on.as_ref().is_some_and(|merge| merge.asked)
    }
}

impl Node {
    /// Takes the next step towards merging a shard that this node leads.
    pub(super) fn merge(&mut self, now: Instant) {
        if self.system.levels.cluster() < Level::MERGED {
            return;
        }
        if self.merging.on.is_none() && self.merging.look_again.is_none_or(|when| when <= now) {
            self.merging.look_again = Some(now + self.pause_between_looks().max(MERGE_LOOK));
            self.heat.learn(&self.system.keyspaces, now);
            self.merging.left_alone.retain(|_, until| *until > now);
            match self.choose(now) {
                Ok(chosen) => {
                    self.merging.last = chosen.unwrap_or(self.merging.last);
                    self.merging.on = chosen.map(|shard| Merge { shard, step: Step::Ask, at: now, asked: false });
                }
                Err(e) => self.weighed_in_vain(&e),
            }
        }
        if self.merging.on.as_ref().is_some_and(|merge| !merge.asked)
            && let Err(e) = self.go_on_merging(now)
        {
            self.weighed_in_vain(&e);
        }
    }

    /// A shard that has yielded and is not gone yet; or else one that may.
    fn choose(&mut self, now: Instant) -> Result<Option<ShardId>, MachineError> {
        // In turn: one that has yielded may wait for another that has.
        let yielded = self.awake().filter(|(_, replica)| replica.leads() && replica.machine().meta().yielded);
        let yielded: BTreeSet<ShardId> = yielded.map(|(shard, _)| shard).collect();
        let behind = yielded.range((Excluded(self.merging.last), Unbounded)).next();
        if let Some(shard) = behind.or_else(|| yielded.first()) {
            return Ok(Some(*shard));
        }
        let Merges { bytes, rest, .. } = self.shared.config.merges;
        let keyspaces = self.system.keyspaces.clone();
        let ranged = keyspaces.made().filter(|row| bytes > 0 && row.keyspace.kind == KeyspaceKind::Ranged);
        for row in ranged {
            for shard in row.parents.keys() {
                if self.merging.left_alone.contains_key(shard) {
                    continue;
                }
                let Some(replica) = self.replicas.get(shard).filter(|replica| replica.leads()) else { continue };
                let light = self.scales.weight_of(*shard, replica.machine().meta().revision);
                let rested = self.heat.rests_since(*shard).is_some_and(|since| now.since(since) >= rest);
                let own = &replica.machine().meta().range;
                let others = row.keyspace.shards.iter().any(|(start, it)| it != shard && own.contains(start));
                let heavy = bytes != u64::MAX && light.is_none_or(|weight| weight > bytes);
                if others || !rested || heavy {
                    continue;
                }
                if replica.machine().may_yield()? {
                    return Ok(Some(*shard));
                }
                self.pass_time(now, *shard, row.keyspace.policy.history.map_or(u64::MAX, |it| it.as_millis() as u64));
            }
        }
        Ok(None)
    }

    /// Where nothing is written time stands still, and so nothing is ever old. A shard that could be merged if its past were forgotten has time go on.
    fn pass_time(&mut self, now: Instant, shard: ShardId, history_ms: u64) {
        let wall = WallMs(self.shared.wall.0 + now.since(self.shared.ticked).as_millis() as u64);
        let Some(replica) = self.replicas.get(&shard) else { return };
        if wall.0 > replica.machine().meta().clock.wall().0.saturating_add(history_ms) {
            self.one(now, shard, |replica, cx| {
                replica.wake(None, cx);
                replica.want_closed(Timestamp::of(wall));
            });
        }
    }

    fn go_on_merging(&mut self, now: Instant) -> Result<(), MachineError> {
        let Some(mut merge) = self.merging.on.take() else { return Ok(()) };
        let shard = merge.shard;
        let Some(replica) = self.replicas.get(&shard).filter(|replica| replica.leads()) else { return Ok(()) };
        let Some(before) = self.system.keyspaces.before(shard) else { return Ok(()) };
        let untold = self.shared.config.sabotage == Some(Sabotage::MergeUntold);
        let asks = match &mut merge.step {
            Step::Ask => (before, absorb(replica.view().ask_for_neighbour(shard)?)),
            Step::Yield { .. } if replica.machine().meta().yielded => {
                merge.step = if untold { Step::Tell } else { Step::Ask };
                self.merging.on = Some(merge);
                return Ok(());
            }
            Step::Yield { proposed: true } => {
                if now.since(merge.at) >= RETRY {
                    // It had something to do after all.
                    self.merging.left_alone.insert(shard, now + self.shared.config.merges.rest.min(MERGE_PATIENCE));
                } else {
                    self.merging.on = Some(merge);
                }
                return Ok(());
            }
            Step::Yield { proposed } => {
                *proposed = true;
                merge.at = now;
                self.merging.on = Some(merge);
                self.one(now, shard, |replica, cx| {
                    replica.wake(None, cx);
                    replica.give_up();
                });
                return Ok(());
            }
            Step::Give(after) => {
                (before, absorb(replica.view().give(shard, after, self.shared.config.merges.page_bytes)?))
            }
            Step::Tell => match self.system.keyspaces.merge(shard) {
                Some(txn) => (FIRST_SHARDS[0], Command::Transact(txn)),
                None => return Ok(()),
            },
        };
        (merge.asked, merge.at) = (true, now);
        self.merging.on = Some(merge);
        let (shard, command) = asks;
        self.request(now, MERGED, Request::Submit { shard, command }, now + 2 * RETRY);
        Ok(())
    }

    /// What came of the last step.
    pub(super) fn merge_hears(&mut self, now: Instant, answer: Result<Reply, Error>) {
        let Some(mut merge) = self.merging.on.take() else { return };
        merge.asked = false;
        let machine = self.replicas.get(&merge.shard).map(Replica::machine);
        let yielded = machine.is_some_and(|machine| machine.meta().yielded);
        let outcome = match answer {
            Ok(Reply::Applied(applied)) => Ok(applied.outcome),
            Ok(_) => return,
            Err(error) => Err(error),
        };
        merge.step = match (merge.step, outcome) {
            // The map will show it.
            (Step::Tell, _) => return,
            (_, Ok(Outcome::Absorbed(Some(at)))) if yielded => Step::Give(at),
            (_, Ok(Outcome::Absorbed(Some(_)))) => Step::Yield { proposed: false },
            (_, Ok(Outcome::Absorbed(None))) if yielded => Step::Tell,
            // What has yielded is gone on with when it is its turn.
            _ if yielded => return,
            _ => {
                self.merging.left_alone.insert(merge.shard, now + self.shared.config.merges.rest.min(MERGE_PATIENCE));
                return;
            }
        };
        self.merging.on = Some(merge);
    }

    /// Lets go of the replicas here of shards that were merged: all that they had is in others' logs.
    pub(super) fn let_merged_go(&mut self, now: Instant) -> Result<(), BootError> {
        let keyspaces = self.system.keyspaces.clone();
        self.nursery
            .forget(|shard| keyspaces.is_merged(shard))
            .into_iter()
            .for_each(|slot| self.shared.slots.abandon(slot));
        let here = self.replicas.keys().chain(self.mending.keys()).copied();
        for shard in here.filter(|shard| keyspaces.is_merged(*shard)).collect::<Vec<_>>() {
            self.let_one_go(now, shard)?;
        }
        Ok(())
    }
}

fn absorb(page: Page) -> Command {
    Command::Absorb(Box::new(page))
}
