//! How replicas come to take part: opened from the disk, asked about among the others, mended where their logs have rotted, and started.

use super::{FIRST_SHARDS, Node, Shared};
use crate::boot::{self, BootError};
use crate::bounds::UNCOMMITTED_BYTES_MAX;
use crate::config::{NodeConfig, Sabotage};
use crate::input::{Lost, Mended};
use crate::mending::Mending;
use crate::recall::{Opened, Recall};
use crate::replica::{Context, Replica, SystemRows};
use crate::slots::Slots;
use quorate_consensus::{Config, Group, Membership, Restored};
use quorate_env::{Instant, ReplicaId, Rng, ShardId};
use quorate_kv::Unavailable;
use quorate_shard::{Machine, Remains};
use quorate_storage::store::Store;
use std::sync::Arc;

/// Bytes of entries in one append message.
const APPEND_BYTES_MAX: u64 = 2 << 20;

/// Append messages in flight to one follower.
const APPENDS_IN_FLIGHT_MAX: usize = 64;

impl Node {
    /// Opens or creates this node's replica of a shard. Those who are its members at the beginning are the same for all.
    pub(super) fn open(&mut self, now: Instant, shard: ShardId, membership: &Membership) -> Result<(), BootError> {
        let log = self.logs.remove(&shard);
        let Shared { config, store, slots, procedures, out, .. } = &mut self.shared;
        let found = boot::open_replica(shard, store, slots, log.as_ref(), membership, procedures)?;
        if shard == FIRST_SHARDS[0] {
            self.system = SystemRows::read(&found.machine).map_err(BootError::Roster)?;
        }
        let covered = log.map_or(0, |log| log.rotted.len()) - found.rotted.len();
        if covered > 0 {
            let covered = covered as u64;
            out.mended.push(Mended { shard, covered, ..Mended::default() });
        }
        let found = if config.sabotage == Some(Sabotage::LeadWithRot) { found.cut_off() } else { found };
        let remains = self.remains.as_ref().and_then(|store| remains_of(shard, store));
        let opened = Opened { found, remains, watches: Vec::new() };
        match &mut self.recalling {
            Some(recall) => recall.hold(shard, opened),
            // A shard that is new here has promised nothing, and one whose log waited was asked about.
            None => self.admit(now, shard, opened)?,
        }
        Ok(())
    }

    /// Nobody knows of a promise that the disk has forgotten: the replicas take part.
    pub(super) fn admit_all(&mut self, now: Instant) -> Result<(), BootError> {
        for (shard, opened) in self.recalling.take().map(Recall::finish).unwrap_or_default() {
            self.admit(now, shard, opened)?;
        }
        self.let_merged_go(now)?;
        self.ask_early(now);
        Ok(())
    }

    /// What came too early is asked now.
    pub(super) fn ask_early(&mut self, now: Instant) {
        for (id, request, wait, deadline) in std::mem::take(&mut self.early) {
            self.ask(now, id, (request, wait), deadline);
        }
    }

    /// Nobody waits for longer than it wanted to.
    pub(super) fn expire_early(&mut self, now: Instant) {
        let late = self.early.extract_if(.., |(.., deadline)| *deadline <= now);
        self.shared.out.replies.extend(late.map(|(id, ..)| (id, Err(Unavailable::NoLeader.into()))));
    }

    /// What a replica that starts draws from.
    pub(super) fn rng_of(&mut self, shard: ShardId) -> Rng {
        self.started += u64::from(self.shared.config.sabotage != Some(Sabotage::SessionAgain));
        self.rng.split(shard.0 * 2 + 1).split(self.started)
    }

    /// A replica's disk is believed: it starts, or is mended first.
    pub(super) fn admit(&mut self, now: Instant, shard: ShardId, opened: Opened) -> Result<(), BootError> {
        let Opened { found, remains, watches } = opened;
        let rng = self.rng_of(shard);
        let Shared { config, records, .. } = &mut self.shared;
        records.extend(found.repair.clone());
        if found.rotted.is_empty() && found.hole.is_none() {
            let replica = start_replica(config, shard, &found.restored, found.machine, now, rng);
            self.let_begin(shard, replica);
            for (key, request) in watches {
                self.one(now, shard, |replica, cx| replica.watch(key, request, cx));
            }
        } else {
            let mut mending = Mending::new(shard, ReplicaId(config.node.0), found, &config.known, remains)?;
            watches.into_iter().for_each(|(key, request)| mending.watch(key, request));
            self.mending.insert(shard, mending);
        }
        Ok(())
    }

    pub(super) fn let_begin(&mut self, shard: ShardId, replica: Replica) {
        self.led += u64::from(replica.leads());
        self.replicas.insert(shard, replica);
        self.dirty.insert(shard);
        self.sleepers.wakes(shard);
    }

    /// Lets a replica whose log has rotted go on, and starts it when its log is whole.
    pub(super) fn mend(&mut self, now: Instant, shard: ShardId, f: impl FnOnce(&mut Mending, &mut Context<'_>)) {
        let Some(mut mending) = self.mending.remove(&shard) else { return };
        mending.know(&self.system.roster);
        let mut cx = self.shared.context(now);
        f(&mut mending, &mut cx);
        mending.go_on(&mut cx);
        if !mending.is_whole() {
            self.mending.insert(shard, mending);
            return;
        }
        cx.out.mended.push(mending.mended());
        let (restored, machine, watches) = mending.finish(&mut cx);
        let rng = self.rng_of(shard);
        let replica = start_replica(&self.shared.config, shard, &restored, machine, now, rng);
        self.let_begin(shard, replica);
        if self.is_whole() {
            self.remains = None;
        }
        for (key, request) in watches {
            self.one(now, shard, |replica, cx| replica.watch(key, request, cx));
        }
    }

    pub(super) fn mend_each(&mut self, now: Instant, mut f: impl FnMut(&mut Mending, &mut Context<'_>)) {
        for shard in self.mending.keys().copied().collect::<Vec<_>>() {
            self.mend(now, shard, &mut f);
        }
    }

    /// Whether a replica here waits until its disk is believed.
    pub(super) fn recalls(&self, shard: ShardId) -> bool {
        self.recalling.as_ref().is_some_and(|recall| recall.holds(shard))
    }

    /// If this node asks what was seen of it: lets that go on, and admits its replicas when it knows.
    pub(super) fn recall(&mut self, now: Instant, f: impl FnOnce(&mut Recall, &mut Context<'_>)) {
        let Some(recall) = &mut self.recalling else { return };
        f(recall, &mut self.shared.context(now));
        let (over, shared) = (recall.is_over(), &mut self.shared);
        if let Some(what) = recall.contradiction() {
            shared.out.lost = shared.out.lost.or(Some(Lost::Acknowledged));
            shared.out.fatal.get_or_insert(format!("{} has lost promises: {what}", shared.config.node));
        } else if over && let Err(e) = self.admit_all(now) {
            self.shared.out.fatal.get_or_insert(e.to_string());
        }
    }
}

pub(super) fn start_replica(
    config: &NodeConfig,
    shard: ShardId,
    restored: &Restored,
    machine: Machine,
    now: Instant,
    rng: Rng,
) -> Replica {
    let id = ReplicaId(config.node.0);
    let group_config = Config {
        replica: id,
        turn: shard.0,
        election_ticks: config.timing.election_ticks,
        heartbeat_ticks: config.timing.heartbeat_ticks,
        append_bytes_max: APPEND_BYTES_MAX,
        committed_bytes_max: config.apply_bytes,
        inflight_max: APPENDS_IN_FLIGHT_MAX,
        uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
    };
    let mut group = Group::new(&group_config, restored);
    if restored.membership.all_voters() == [id] {
        // Nobody to wait for.
        group.campaign();
    }
    Replica::new(shard, id, group, restored.hard_state.term, machine, now, rng)
}

/// What is left of a shard's rows in a damaged store, if it says where they were.
pub(super) fn remains_of(shard: ShardId, store: &Arc<dyn Store>) -> Option<Remains> {
    let slots = Slots::load(store.clone()).ok()?;
    slots.of(shard).map(|slot| Remains::new(store.clone(), slot))
}
