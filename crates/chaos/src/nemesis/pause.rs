//! A process stands still and comes back as if nothing had happened: the gray failure that no closed connection announces.

use super::Rounds;
use crate::arena::Arena;
use crate::failure::Failure;
use std::time::Duration;

const STILL: Duration = Duration::from_secs(3);
const BACK: Duration = Duration::from_millis(1_500);

pub async fn leader(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        let victim = arena.leader().await?;
        pause(arena, victim).await?;
        let next = arena.leader().await?;
        arena.bit("others led meanwhile", u64::from(next != victim));
    }
    Ok(())
}

pub async fn follower(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        let victim = arena.follower().await?;
        pause(arena, victim).await?;
    }
    Ok(())
}

async fn pause(arena: &mut Arena, victim: usize) -> Result<(), Failure> {
    arena.fault();
    arena.cluster.pause(victim);
    arena.bit("processes paused", 1);
    tokio::time::sleep(STILL).await;
    arena.cluster.resume(victim);
    arena.converges().await?;
    tokio::time::sleep(BACK).await;
    Ok(())
}
