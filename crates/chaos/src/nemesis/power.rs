//! The power of the whole cluster fails under load: all processes die at once, and their disks keep what was synced, and of the rest
//! nothing or anything.

use super::Rounds;
use crate::arena::Arena;
use crate::disk::{Action, CruelDisk, Effect, Fault, Leaves, Lost};
use crate::failure::Failure;
use std::time::Duration;

/// Work between two cuts, in milliseconds, drawn for each.
const WORK_MS: (u64, u64) = (100, 900);

/// A sync takes as long as on a good disk, so that there is something under way when the power goes.
const SYNC: Duration = Duration::from_millis(2);

/// How often a cut takes everything that was not synced; otherwise any of it.
const TAKES_ALL_PER_MILLE: u64 = 300;

pub async fn cut(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    let mut lost = Lost::default();
    for disk in &arena.disks {
        let effect = Effect::Take(SYNC);
        disk.set(Fault { action: Action::Sync, path: String::new(), effect, times: u64::MAX });
    }
    while rounds.next() {
        let work = Duration::from_millis(arena.rng.between(WORK_MS.0, WORK_MS.1));
        tokio::time::sleep(work).await;
        arena.fault();
        // Processors first: nobody acknowledges anything between the end of two disks.
        arena.cluster.pause_all();
        arena.disks.iter().for_each(CruelDisk::power_off);
        arena.cluster.kill_all();
        for node in 0..arena.disks.len() {
            let takes_all = arena.rng.chance(TAKES_ALL_PER_MILLE);
            let seed = arena.rng.split(node as u64);
            let mut leaves = if takes_all { Leaves::Nothing } else { Leaves::Some(seed) };
            lost += arena.disks[node].power_on(&mut leaves);
        }
        arena.bit("power cuts", 1);
        arena.restarted();
        arena.cluster.start_all()?;
        arena.converges().await?;
    }
    arena.bit("unsynced sectors lost", lost.sectors);
    arena.note(format!("unsynced sectors that stayed: {}; names undone: {}", lost.sectors_kept, lost.names));
    Ok(())
}
