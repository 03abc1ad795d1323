//! Shards split, and a survey of where they live counts moves.

use super::money::{BANK, cut};
use super::yard::{POLL, Yard};
use super::{SHARDS, SHARDS_MAX};
use crate::failure::Failure;
use quorate_client::{Error, Reason};
use quorate_env::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub const SPLIT: &str = "split";
pub const MOVED: &str = "moved";

/// No splits are closer than this to each other.
const SPLITS_APART: Duration = Duration::from_secs(2);

/// Splits shards at keys that are drawn, spread over the time that there is.
pub async fn split(yard: &Yard, seconds: u64, mut rng: Rng) -> Result<(), Failure> {
    let apart = Duration::from_millis(seconds * 1_000 / (SHARDS_MAX - SHARDS) as u64).max(SPLITS_APART);
    let mut next = Instant::now() + apart / 2;
    while !yard.ended() {
        tokio::time::sleep(POLL).await;
        if Instant::now() < next {
            continue;
        }
        let Some(before) = yard.bank().await else { continue };
        if before.shards.len() >= SHARDS_MAX {
            return Ok(());
        }
        match yard.admin.split_keyspace(BANK, cut(&mut rng)).await {
            Ok(after) => yard.bit(SPLIT, u64::from(after.shards.len() > before.shards.len())),
            // Nothing happened, or nobody knows, and the next look tells.
            Err(Error::Unavailable { .. } | Error::Conflict { .. }) => continue,
            Err(Error::Refused { reason: Reason::AlreadySplit, .. }) => continue,
            Err(Error::Unknown { .. }) => {
                let Some(after) = yard.bank().await else { continue };
                yard.bit(SPLIT, u64::from(after.shards.len() > before.shards.len()));
            }
            Err(error) => return Err(Failure::NotAsPromised(format!("a split is refused: {error}"))),
        }
        next += apart;
    }
    Ok(())
}

/// Looks where shards live, and counts replicas that came to vote where there was none before. What comes and goes between two looks is not counted.
pub async fn survey(yard: &Yard) -> Result<(), Failure> {
    let mut known: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    while !yard.ended() {
        tokio::time::sleep(POLL).await;
        let Some(bank) = yard.bank().await else { continue };
        yard.nodes().shards = bank.shards.iter().map(|shard| numbers(&shard.voters)).collect();
        for shard in bank.shards {
            let before = known.insert(shard.shard, shard.voters.clone());
            let came = |before: Vec<String>| shard.voters.iter().filter(|node| !before.contains(node)).count();
            yard.bit(MOVED, before.map_or(0, came) as u64);
        }
    }
    Ok(())
}

/// Nodes by number, which their names say.
fn numbers(names: &[String]) -> BTreeSet<usize> {
    names.iter().filter_map(|name| name.strip_prefix('n')?.parse::<usize>().ok()?.checked_sub(1)).collect()
}
