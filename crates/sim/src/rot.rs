//! Rot: bytes of a node's log or of its store change while nobody looks.
//!
//! Only what a cluster can survive is struck: payloads of entries, which other nodes have too, or the promises of a node that then comes back as
//! another; not the last flush, of which nobody can know that it was durable. The driver sees to it that a good copy is left
//! (`driver/wounds.rs`).

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

/// How many bytes rot at one place where entries do, and where promises do.
const LONGEST: u64 = 64;
const LONGEST_OF_PROMISES: u64 = 1_024;

/// How many of the last flushes may rot: what is older is mostly needed no more.
const BACK: usize = 40;

/// What can be read of a log.
pub(crate) fn read(disk: &Disk, identity: &WalIdentity, limits: WalLimits) -> Option<Recovered> {
    Wal::recover(*identity, limits, disk.files()).ok().map(|(_, found, _)| found)
}

/// Garbles entries here and there, as long as what is left is `survivable`. Says whether any was hit that is needed.
pub(crate) fn strike(
    disk: &mut Disk,
    identity: &WalIdentity,
    limits: WalLimits,
    rng: &mut Rng,
    survivable: impl Fn(&Recovered) -> bool,
) -> bool {
    let rotted = |found: &Recovered| found.shards.values().map(|log| log.rotted.len()).sum::<usize>();
    let Some(clean) = read(disk, identity, limits) else { return false };
    let before = rotted(&clean);
    let mut named = before;
    for _ in 0..TRIES {
        let Some(place) = disk.garble(BACK, LONGEST, rng) else { continue };
        let fits = |found: &Recovered| found.require_promises().is_ok() && found.torn == clean.torn;
        let found = read(disk, identity, limits).filter(|found| fits(found) && rotted(found) > named);
        match found.filter(|found| survivable(found)) {
            Some(found) => named = rotted(&found),
            None => disk.restore(&place),
        }
    }
    named > before
}

/// Garbles a part of the log of which nothing can be recovered but by others, or in which promises were. Says whether one was hit.
pub(crate) fn strike_promises(disk: &mut Disk, identity: &WalIdentity, limits: WalLimits, rng: &mut Rng) -> bool {
    let Some(clean) = read(disk, identity, limits) else { return false };
    for attempt in 0..TRIES {
        // In the end a whole flush goes.
        let longest = if attempt < TRIES / 2 { LONGEST_OF_PROMISES } else { u64::MAX };
        let Some(place) = disk.garble(BACK, longest, rng) else { continue };
        let lost = match read(disk, identity, limits) {
            Some(found) => found.require_promises().is_err() && found.torn == clean.torn,
            None => true,
        };
        if lost {
            return true;
        }
        disk.restore(&place);
    }
    false
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
