//! Leadership moves because somebody wants it to: the leader is told to stop, or to let another lead. Clients should hardly notice.

use super::Rounds;
use crate::arena::Arena;
use crate::failure::Failure;
use std::time::Duration;

const DOWN: Duration = Duration::from_millis(300);
const SETTLED: Duration = Duration::from_millis(700);

/// A node that is told to stop has ended after this long.
const STOPS: Duration = Duration::from_secs(4);

pub async fn stop(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        let victim = arena.leader().await?;
        arena.fault();
        arena.cluster.terminate(victim);
        let status = arena.cluster.wait_for_end(victim, STOPS).await?;
        if !status.success() {
            return Err(Failure::NotAsPromised(format!("told to stop, n{} ended with {status}", victim + 1)));
        }
        arena.bit("leaders stopped", 1);
        tokio::time::sleep(DOWN).await;
        arena.cluster.start(victim)?;
        tokio::time::sleep(SETTLED).await;
    }
    Ok(())
}

pub async fn hand_over(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        let (from, to) = (arena.leader().await?, arena.follower().await?);
        if from == to {
            continue;
        }
        arena.fault();
        let moved = arena.cluster.move_leader(from, to).await;
        arena.bit("leaders moved", u64::from(moved));
        tokio::time::sleep(SETTLED).await;
    }
    Ok(())
}
