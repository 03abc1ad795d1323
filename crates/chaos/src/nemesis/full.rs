//! Disks without room: of the leader, or of everybody. Nothing ends; when there is room again, nobody has to do anything.

use super::Rounds;
use crate::arena::Arena;
use crate::failure::Failure;
use std::time::{Duration, Instant};

/// How long there is no room, once that was noticed.
const FULL: Duration = Duration::from_secs(3);

/// How long it may take until a node wants more room.
const NOTICED_WITHIN: Duration = Duration::from_secs(40);

const POLL: Duration = Duration::from_millis(5);
const SETTLED: Duration = Duration::from_secs(2);

pub async fn leader(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        let victim = arena.leader().await?;
        fill(arena, &[victim]).await?;
    }
    Ok(())
}

pub async fn all(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        let all: Vec<usize> = (0..arena.cluster.len()).collect();
        fill(arena, &all).await?;
    }
    Ok(())
}

async fn fill(arena: &mut Arena, victims: &[usize]) -> Result<(), Failure> {
    let refused = |arena: &Arena| victims.iter().map(|node| arena.disks[*node].no_space()).sum::<u64>();
    let before = refused(arena);
    arena.fault();
    victims.iter().for_each(|node| arena.disks[*node].set_full(true));
    let filled = Instant::now();
    while refused(arena) == before && filled.elapsed() < NOTICED_WITHIN {
        tokio::time::sleep(POLL).await;
    }
    tokio::time::sleep(FULL).await;
    victims.iter().for_each(|node| arena.disks[*node].set_full(false));
    arena.restarted();
    arena.bit("requests for room refused", refused(arena) - before);
    for node in victims {
        if !arena.cluster.runs(*node) {
            let said = arena.cluster.said(*node);
            return Err(Failure::NotAsPromised(format!("n{} ended on a full disk: {said}", node + 1)));
        }
    }
    arena.converges().await?;
    tokio::time::sleep(SETTLED).await;
    Ok(())
}
