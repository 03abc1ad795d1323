//! What the bank's shards have written, noted as it comes to be: shards forget their history when it is old, and the last judgement needs all of it.
//!
//! Each node is looked at before each of its ticks. It clears away in ticks what was compacted, so nothing is gone before somebody has noted it.

use super::{Step, World};
use crate::checks::dial::Version;
use crate::history::{Violation, demand};
use crate::teller::{BANK, parse};
use bytes::Bytes;
use quorate_env::{ShardId, Timestamp};
use quorate_kv::{Event, Keyspace, Revision};
use quorate_shard::{MachineError, View};
use std::collections::BTreeMap;

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    /// Up to which revision each shard is noted.
    noted: BTreeMap<ShardId, Revision>,
    /// The versions of each key; a shard that was split off goes on with the revisions of the one that had its keys.
    versions: BTreeMap<Bytes, BTreeMap<Revision, Version>>,
    /// Since when each shard has timestamps, and the youngest.
    clocks: BTreeMap<ShardId, (Timestamp, Timestamp)>,
}

fn unreadable(e: MachineError) -> Violation {
    Violation { rule: "views can be read", detail: e.to_string() }
}

/// The versions in a shard's history behind a revision.
fn versions(view: &View, behind: Revision) -> Result<Vec<(Bytes, Revision, Version)>, Violation> {
    let from = Revision(behind.max(view.compacted().unwrap_or_default()).0 + 1);
    let page = view.events(view.own_range(), from, false, usize::MAX).map_err(unreadable)?;
    let times = view.happened(from).map_err(unreadable)?;
    let version = |event: Event| {
        let (writer, _) = parse(&event.kv.value).unwrap_or_default();
        let revision = event.kv.mod_revision;
        (event.kv.key, revision, Version { writer, at: times.get(&revision).copied().unwrap_or_default() })
    };
    Ok(page.events.into_iter().map(version).collect())
}

impl Chronicle {
    /// Notes what is new in a shard.
    pub fn note(&mut self, shard: ShardId, view: &View) -> Step {
        let (since, clock) = self.clocks.entry(shard).or_default();
        (*since, *clock) = (view.since().max(*since), view.clock().max(*clock));
        let young = view.since() == Timestamp::ZERO && view.compacted().is_some_and(|at| at > Revision(0));
        demand(!young, "history lasts as long as it is to", || {
            format!("{shard} has no timestamps, and is compacted at {:?}", view.compacted())
        })?;
        let noted = self.noted.entry(shard).or_default();
        if view.revision() <= *noted {
            return Ok(());
        }
        for (key, revision, version) in versions(view, *noted)? {
            self.versions.entry(key).or_default().insert(revision, version);
        }
        *noted = view.revision();
        Ok(())
    }

    /// Whatever a shard has not compacted of the keys that are its, by the shard map, it still knows.
    pub fn judge(&self, shard: ShardId, view: &View, map: &Keyspace) -> Step {
        let compacted = view.compacted().unwrap_or_default();
        let known = versions(view, Revision(0))?;
        let mut told: BTreeMap<&Bytes, Vec<(Revision, Version)>> = BTreeMap::new();
        for (key, revision, version) in &known {
            told.entry(key).or_default().push((*revision, *version));
        }
        for (key, versions) in self.versions.iter().filter(|(key, _)| map.shard_of(key) == shard) {
            let annexed = view.annexes().iter().filter(|annex| annex.range.contains(key)).map(|annex| annex.revision);
            let forgotten = annexed.max().unwrap_or_default().max(compacted);
            let kept: Vec<_> = versions.iter().filter(|(at, _)| **at > forgotten).map(|(at, v)| (*at, *v)).collect();
            let told = told.remove(key).unwrap_or_default();
            demand(told == kept, "history is whole", || {
                format!("{shard}, compacted at {compacted:?}, says of {key:?} {told:?}, and there was {kept:?}")
            })?;
        }
        Ok(())
    }

    /// The versions of each key, oldest first.
    pub fn versions(&self) -> BTreeMap<Bytes, Vec<Version>> {
        self.versions.iter().map(|(key, all)| (key.clone(), all.values().copied().collect())).collect()
    }

    /// Whether some shard's time has gone on so far since a moment that it may have forgotten it, or begins behind it.
    pub fn may_have_forgotten(&self, at: Timestamp, history_ms: u64) -> bool {
        let old = |clock: Timestamp| clock.wall().0.saturating_sub(history_ms) >= at.wall().0;
        self.clocks.values().any(|(since, clock)| at < *since || old(*clock))
    }
}

impl World<'_> {
    /// Notes what a node has of the bank.
    pub(super) fn note_history(&mut self, node: usize) -> Step {
        if !self.bank.exists() {
            return Ok(());
        }
        let Some(core) = self.nodes[node].node.as_ref() else { return Ok(()) };
        let Some(bank) = core.keyspaces().named(BANK) else { return Ok(()) };
        for (_, shard) in &bank.shards {
            if let Some(view) = core.view(*shard) {
                self.chronicle.note(*shard, &view)?;
            }
        }
        Ok(())
    }
}
