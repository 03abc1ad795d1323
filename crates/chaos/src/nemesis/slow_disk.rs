//! The leader's disk hangs, or is slow: the node answers, so nobody suspects it.

use super::Rounds;
use crate::arena::Arena;
use crate::disk::{Action, Effect, Fault};
use crate::failure::Failure;
use std::time::Duration;

const SICK: Duration = Duration::from_secs(5);
const SETTLED: Duration = Duration::from_secs(2);

/// What a sync of a slow disk takes.
const SLOW: Duration = Duration::from_millis(50);

pub async fn hangs(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        sick(arena, SICK, "syncs that hung").await?;
    }
    Ok(())
}

pub async fn is_slow(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        sick(arena, SLOW, "slow syncs").await?;
    }
    Ok(())
}

async fn sick(arena: &mut Arena, each: Duration, proof: &'static str) -> Result<(), Failure> {
    let victim = arena.leader().await?;
    let effect = Effect::Take(each);
    arena.fault();
    let fault = arena.disks[victim].set(Fault { action: Action::Sync, path: String::new(), effect, times: u64::MAX });
    tokio::time::sleep(SICK).await;
    let led_by = arena.leader().await?;
    let met = arena.disks[victim].lift(fault);
    arena.bit(proof, met);
    let still = if led_by == victim { "still leads" } else { "leads no more" };
    arena.note(format!("after {} s the node with the sick disk {still}", SICK.as_secs()));
    arena.converges().await?;
    tokio::time::sleep(SETTLED).await;
    Ok(())
}
