//! What the system keyspace's rows say, as one replica of it has them.

use crate::keyspaces::Keyspaces;
use crate::levels::Levels;
use crate::members::Roster;
use crate::placement::Placements;
use quorate_kv::{KeyRange, KeyValue, RangeOp, Revision};
use quorate_shard::{Machine, View};
use std::sync::Arc;

/// Cluster state as data.
#[derive(Clone, Debug, Default)]
pub(crate) struct SystemRows {
    pub roster: Arc<Roster>,
    pub keyspaces: Arc<Keyspaces>,
    pub levels: Arc<Levels>,
    pub placements: Arc<Placements>,
}

impl SystemRows {
    pub fn read(machine: &Machine) -> Result<Self, String> {
        let view = machine.view();
        let revision = view.revision();
        let roster = Roster::read(rows(&view, Roster::ranges())?, revision).map_err(|e| e.to_string())?;
        let keyspaces = Keyspaces::read(rows(&view, Keyspaces::ranges())?, revision).map_err(|e| e.to_string())?;
        let levels = Levels::read(rows(&view, Levels::ranges())?, revision).map_err(|e| e.to_string())?;
        let placements = Placements::read(rows(&view, Placements::ranges())?).map_err(|e| e.to_string())?;
        let (roster, keyspaces) = (Arc::new(roster), Arc::new(keyspaces));
        Ok(Self { roster, keyspaces, levels: Arc::new(levels), placements: Arc::new(placements) })
    }

    /// When they were read.
    pub fn revision(&self) -> Revision {
        self.roster.revision
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
