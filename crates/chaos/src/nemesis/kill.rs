//! Processes die. The one who dies is back half a second later.

use super::Rounds;
use crate::arena::Arena;
use crate::failure::Failure;
use std::time::Duration;

const DOWN: Duration = Duration::from_millis(500);
const UP: Duration = Duration::from_millis(500);

/// After a leader's death, time for the next one to settle.
const SETTLED: Duration = Duration::from_millis(700);

pub async fn minority(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        let victim = arena.any_node();
        kill(arena, victim, UP).await?;
    }
    Ok(())
}

pub async fn leader(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        let victim = arena.leader().await?;
        kill(arena, victim, SETTLED).await?;
    }
    Ok(())
}

async fn kill(arena: &mut Arena, victim: usize, up: Duration) -> Result<(), Failure> {
    let ran = arena.cluster.runs(victim);
    arena.fault();
    arena.cluster.kill(victim);
    arena.bit("processes killed", u64::from(ran));
    tokio::time::sleep(DOWN).await;
    arena.cluster.start(victim)?;
    tokio::time::sleep(up).await;
    Ok(())
}
