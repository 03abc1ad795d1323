//! What the system keyspace's rows say, as one replica of it has them.

use super::Replica;
use crate::keyspaces::Keyspaces;
use crate::levels::Levels;
use crate::losses::Losses;
use crate::members::Roster;
use crate::placement::Placements;
use quorate_env::ShardId;
use quorate_kv::{Event, EventKind, KeyRange, KeyValue, KeyspaceId, RangeOp, Revision};
use quorate_shard::{Machine, View};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Cluster state as data.
#[derive(Clone, Debug, Default)]
pub(crate) struct SystemRows {
    pub roster: Arc<Roster>,
    pub keyspaces: Arc<Keyspaces>,
    pub levels: Arc<Levels>,
    pub placements: Arc<Placements>,
    pub losses: Arc<Losses>,
    /// The shards that the last change was about; `None` if it was about more.
    pub touched: Option<BTreeSet<ShardId>>,
}

impl SystemRows {
    pub fn read(machine: &Machine) -> Result<Self, String> {
        let view = machine.view();
        let revision = view.revision();
        let roster = Roster::read(rows(&view, Roster::ranges())?, revision).map_err(|e| e.to_string())?;
        let keyspaces = Keyspaces::read(rows(&view, Keyspaces::ranges())?, revision).map_err(|e| e.to_string())?;
        let levels = Levels::read(rows(&view, Levels::ranges())?, revision).map_err(|e| e.to_string())?;
        let placements = Placements::read(rows(&view, Placements::ranges())?).map_err(|e| e.to_string())?;
        let losses = Losses::read(rows(&view, Losses::ranges())?).map_err(|e| e.to_string())?;
        let (roster, keyspaces, losses) = (Arc::new(roster), Arc::new(keyspaces), Arc::new(losses));
        let (levels, placements) = (Arc::new(levels), Arc::new(placements));
        Ok(Self { roster, keyspaces, levels, placements, losses, touched: None })
    }

    /// What the rows say after some events, which lead to what the machine holds now. Only what the events are about is read; there may be very many rows.
    fn follow(mut self, machine: &Machine, events: Vec<Event>) -> Result<Self, String> {
        let view = machine.view();
        let revision = view.revision();
        self.touched = events.iter().map(|event| Placements::shard_of(&event.kv.key)).collect();
        let roster = Roster::read(rows(&view, Roster::ranges())?, revision).map_err(|e| e.to_string())?;
        let levels = Levels::read(rows(&view, Levels::ranges())?, revision).map_err(|e| e.to_string())?;
        let losses = Losses::read(rows(&view, Losses::ranges())?).map_err(|e| e.to_string())?;
        (self.roster, self.levels, self.losses) = (Arc::new(roster), Arc::new(levels), Arc::new(losses));
        if events.iter().any(|event| Keyspaces::has(&event.kv.key)) {
            let keyspaces = Keyspaces::read(rows(&view, Keyspaces::ranges())?, revision).map_err(|e| e.to_string())?;
            self.keyspaces = Arc::new(keyspaces);
        }
        let places = Placements::ranges();
        for event in events.into_iter().filter(|event| places.iter().any(|range| range.contains(&event.kv.key))) {
            let placements = Arc::make_mut(&mut self.placements);
            let done = match event.kind {
                EventKind::Put => placements.write(event.kv),
                EventKind::Delete => placements.remove(&event.kv.key),
            };
            done.map_err(|e| e.to_string())?;
        }
        Ok(self)
    }

    /// Whether the last change may be about a shard.
    pub fn touches(&self, shard: ShardId) -> bool {
        self.touched.as_ref().is_none_or(|touched| touched.contains(&shard))
    }

    /// When they were read.
    pub fn revision(&self) -> Revision {
        self.roster.revision
    }
}

/// What the system keyspace's replica remembers for its node.
#[derive(Default)]
pub(super) struct News {
    /// What has happened since the node last read the rows; `None` if that cannot be told.
    since: Option<Vec<Event>>,
}

impl News {
    /// The rows are others: a snapshot was installed.
    pub fn forget(&mut self) {
        self.since = None;
    }

    pub fn add(&mut self, events: &[Event]) {
        if let Some(since) = &mut self.since {
            since.extend_from_slice(events);
        }
    }
}

impl Replica {
    /// Whether this is the system keyspace's replica.
    pub(super) fn is_system(&self) -> bool {
        self.shard == ShardId(KeyspaceId::SYSTEM.0)
    }

    /// The rows of the system keyspace, of its replica. `known` are those that it returned the last time.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub fn system_rows(&mut self, known: SystemRows) -> Result<SystemRows, String> {
        match self.news.since.replace(Vec::new()) {
            Some(events) => known.follow(&self.machine, events),
            None => SystemRows::read(&self.machine),
        }
    }
}

fn rows<const N: usize>(view: &View, ranges: [KeyRange; N]) -> Result<Vec<KeyValue>, String> {
    let mut kvs = Vec::new();
    for range in ranges {
        let read = view.range(&RangeOp::of(range)).map_err(|e| e.to_string())?;
        kvs.extend(read.map_err(|refusal| refusal.to_string())?.kvs);
    }
    Ok(kvs)
}
