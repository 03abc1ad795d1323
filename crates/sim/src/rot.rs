//! Rot: bytes of a node's log or of its store change while nobody looks.
//!
//! Only what a cluster can survive is struck: payloads of entries, which other nodes have too. Not promises, which nobody else could give
//! back; not the last flush, of which nobody can know that it was durable; and the driver sees to it that one node at a time is rotten.

use crate::disk::Disk;
use bytes::Bytes;
use quorate_cluster::Mended;
use quorate_env::Rng;
use quorate_storage::store::{ModelStore, Store, WriteBatch};
use quorate_storage::wal::{Recovered, Wal, WalIdentity, WalLimits};
use std::ops::Bound;
use std::sync::Arc;

/// Places that are tried; what hits no entry that is needed, or too much, is taken back.
const TRIES: usize = 12;

/// Garbles entries here and there. Says whether any was hit that is needed.
pub(crate) fn strike(disk: &mut Disk, identity: &WalIdentity, limits: WalLimits, rng: &mut Rng) -> bool {
    let read = |disk: &Disk| Wal::recover(*identity, limits, disk.files()).ok().map(|(_, found, _)| found);
    let rotted = |found: &Recovered| found.shards.values().map(|log| log.rotted.len()).sum::<usize>();
    let Some(clean) = read(disk) else { return false };
    let before = rotted(&clean);
    let mut named = before;
    for _ in 0..TRIES {
        let Some(place) = disk.garble(rng) else { continue };
        let survivable = |found: &Recovered| found.require_promises().is_ok() && found.torn == clean.torn;
        match read(disk).filter(|found| survivable(found) && rotted(found) > named) {
            Some(found) => named = rotted(&found),
            None => disk.restore(&place),
        }
    }
    named > before
}

/// What a run has seen when entries were mended.
pub(crate) fn marks(mended: &Mended) -> impl Iterator<Item = &'static str> + use<> {
    let Mended { fetched, covered, by_rows, cut, fetched_bytes, kept_bytes, .. } = *mended;
    let ways = [
        (fetched + covered + by_rows + cut, "entry mended"),
        (fetched, "rotted entry fetched"),
        (covered, "rotted entry not needed"),
        (by_rows, "rotted entry covered by rows"),
        (cut, "rotted tail cut"),
        (fetched_bytes, "lost rows fetched"),
        (kept_bytes, "rows kept of a damaged store"),
    ];
    ways.into_iter().filter(|(count, _)| *count > 0).map(|(_, mark)| mark)
}

/// What is left of a store that was damaged: all of it, but that some rows have changed, some are gone, and some are there that are no more.
pub(crate) fn remains(of: &ModelStore, rng: &mut Rng) -> Arc<dyn Store> {
    let remains = of.crash();
    let mut batch = WriteBatch::new();
    let rows: Vec<(Bytes, Bytes)> =
        remains.scan(Bound::Unbounded, Bound::Unbounded, false).filter_map(Result::ok).collect();
    for _ in 0..rng.between(1, 8) {
        let Some((key, value)) = rng.pick(&rows) else { break };
        match rng.below(3) {
            0 => batch.delete(key.clone()),
            1 => batch.put([key.as_ref(), b"~"].concat(), value.clone()),
            _ => batch.put(key.clone(), value.iter().rev().copied().collect::<Vec<u8>>()),
        }
    }
    remains.write(&mut batch).expect("the model takes any row");
    remains.publish();
    Arc::new(remains)
}
