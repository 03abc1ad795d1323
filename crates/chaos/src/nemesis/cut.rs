//! Networks: the leader cut off from the others, in both directions or in one, or from everybody; and a storm between all.

use super::Rounds;
use crate::arena::{Arena, NODES};
use crate::failure::Failure;
use std::time::Duration;

const CUT: Duration = Duration::from_secs(3);
const HEALED: Duration = Duration::from_secs(2);

/// How long one round of a storm lasts.
const STORM: Duration = Duration::from_secs(10);

/// Of the packets between nodes, so many per cent are lost, and so many arrive twice.
const LOST: u8 = 30;
const DOUBLED: u8 = 50;

fn others(node: usize) -> impl Iterator<Item = usize> {
    (0..NODES).filter(move |other| *other != node)
}

pub async fn both_ways(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        let victim = arena.leader().await?;
        arena.fault();
        for other in others(victim) {
            arena.network()?.cut(victim, other)?;
            arena.network()?.cut(other, victim)?;
        }
        lasts(arena, CUT).await?;
    }
    Ok(())
}

/// First what the leader says is lost, then what it is told, and so on.
pub async fn one_way(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    let mut mute = true;
    while rounds.next() {
        let victim = arena.leader().await?;
        arena.fault();
        for other in others(victim) {
            let (from, to) = if mute { (victim, other) } else { (other, victim) };
            arena.network()?.cut(from, to)?;
        }
        lasts(arena, CUT).await?;
        mute = !mute;
    }
    Ok(())
}

pub async fn black_hole(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        let victim = arena.leader().await?;
        arena.fault();
        arena.network()?.swallow(victim)?;
        lasts(arena, CUT).await?;
    }
    Ok(())
}

pub async fn storm(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    while rounds.next() {
        arena.fault();
        arena.network()?.storm(LOST, DOUBLED)?;
        tokio::time::sleep(STORM).await;
        let doubled = arena.network()?.doubled()?;
        arena.bit("packets doubled", doubled);
        heal(arena).await?;
    }
    Ok(())
}

async fn lasts(arena: &mut Arena, time: Duration) -> Result<(), Failure> {
    tokio::time::sleep(time).await;
    heal(arena).await
}

async fn heal(arena: &mut Arena) -> Result<(), Failure> {
    let dropped = arena.network()?.heal()?;
    arena.bit("packets dropped", dropped);
    arena.converges().await?;
    tokio::time::sleep(HEALED).await;
    Ok(())
}
