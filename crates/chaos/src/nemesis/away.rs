//! A follower is away while more is written than the log keeps for it, and comes back while the writing goes on: it has to get everything as
//! a snapshot and catch up with a cluster that does not wait for it.

use super::Rounds;
use crate::arena::Arena;
use crate::failure::Failure;
use std::time::Duration;

/// With large values this is a few times what the log keeps.
const AWAY: Duration = Duration::from_secs(10);
const SETTLED: Duration = Duration::from_secs(1);

pub async fn follower(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        let victim = arena.follower().await?;
        arena.fault();
        arena.cluster.kill(victim);
        arena.bit("followers away", 1);
        tokio::time::sleep(AWAY).await;
        arena.cluster.start(victim)?;
        arena.converges().await?;
        tokio::time::sleep(SETTLED).await;
    }
    Ok(())
}
