//! Members come and go: three become five, shards move to the new ones, two of the five are drained and removed, and their disks thrown away;
//! again and again. Who goes is drawn, founders too; who comes back is somebody new.

use super::yard::{Nodes, Yard};
use crate::failure::Failure;
use quorate_env::Rng;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::Command;

pub const JOINED: &str = "joined";
pub const DRAINED: &str = "drained";
pub const REMOVED: &str = "removed";
pub const CYCLES: &str = "3 to 5 to 3";

/// How long each step may take, under all that harm.
const PATIENCE: Duration = Duration::from_secs(180);

/// How much longer than it is to be a run may be, so that everything happens.
const ALL_KINDS: Duration = Duration::from_secs(60);

/// A command ends within this, or is tried again.
const COMMAND: Duration = Duration::from_secs(30);

/// Members at most, and at least.
const MOST: usize = 5;
const LEAST: usize = 3;

/// Goes round at least once, and as often as there is time for.
pub async fn cycle(yard: &Yard, binary: &Path, mut rng: Rng) -> Result<(), Failure> {
    let until = Instant::now() + yard.left() + ALL_KINDS;
    // A short run goes on until everything has happened once.
    while !yard.over() || (yard.bites().values().any(|times| *times == 0) && Instant::now() < until) {
        while yard.nodes().present.len() < MOST {
            grow(yard, &mut rng).await?;
        }
        while yard.nodes().present.len() > LEAST {
            shrink(yard, binary, &mut rng).await?;
        }
        yard.bit(CYCLES, 1);
    }
    yard.end();
    Ok(())
}

fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

/// Somebody joins, and gets shards.
async fn grow(yard: &Yard, rng: &mut Rng) -> Result<(), Failure> {
    let node = {
        let mut nodes = yard.nodes();
        let absent: Vec<usize> = (0..MOST).filter(|node| !nodes.present.contains(node)).collect();
        let Some(node) = rng.pick(&absent).copied() else { return Ok(()) };
        nodes.cluster.start(node)?;
        nodes.present.insert(node);
        node
    };
    let name = name(node);
    let votes = async || {
        let members = yard.members().await.unwrap_or_default();
        members.iter().any(|member| member.name == name && !member.is_learner)
    };
    yard.until(&format!("{name} joins and votes"), PATIENCE, votes).await?;
    yard.nodes().voters.insert(node);
    yard.bit(JOINED, 1);
    yard.note(node, "votes");
    let has_shards = async || {
        let bank = yard.bank().await;
        bank.is_some_and(|bank| bank.shards.iter().any(|shard| shard.voters.contains(&name)))
    };
    yard.until(&format!("{name} gets shards"), PATIENCE, has_shards).await
}

/// Somebody is drained and removed, and its disk thrown away.
async fn shrink(yard: &Yard, binary: &Path, rng: &mut Rng) -> Result<(), Failure> {
    let node = {
        let nodes = yard.nodes();
        let members: Vec<usize> = nodes.voters.iter().copied().collect();
        let Some(node) = rng.pick(&members).copied() else { return Ok(()) };
        node
    };
    let name = name(node);
    let drained = async || {
        command(yard, binary, node, "drain", &name).await;
        let bank = yard.bank().await;
        let is_there = |nodes: &Vec<String>| nodes.contains(&name);
        bank.is_some_and(|bank| !bank.shards.iter().any(|shard| is_there(&shard.nodes) || is_there(&shard.voters)))
    };
    yard.until(&format!("shards leave {name}"), PATIENCE, drained).await?;
    yard.bit(DRAINED, 1);
    yard.note(node, "is drained");
    // From here on the others must do without it.
    yard.until(&format!("nobody is harmed, so that {name} can go"), PATIENCE, async || {
        let mut nodes = yard.nodes();
        let Nodes { voters, harmed, .. } = &mut *nodes;
        let fits = harmed.iter().filter(|harmed| **harmed != node).count() <= (voters.len() - 2) / 2;
        if fits {
            voters.remove(&node);
        }
        fits
    })
    .await?;
    let gone = async || {
        command(yard, binary, node, "remove", &name).await;
        yard.members().await.is_some_and(|members| !members.iter().any(|member| member.name == name))
    };
    yard.until(&format!("{name} is removed"), PATIENCE, gone).await?;
    // If it was killed meanwhile, it is started once more, and told.
    let ends = async || yard.nodes().cluster.ended(node).is_some_and(|status| status.code() == Some(70));
    yard.until(&format!("{name} ends with code 70"), PATIENCE, ends).await?;
    {
        let mut nodes = yard.nodes();
        nodes.present.remove(&node);
        nodes.cluster.throw_away(node)?;
    }
    yard.bit(REMOVED, 1);
    yard.note(node, "is removed");
    // A hand may still be at it.
    yard.until(&format!("nobody is at {name}"), PATIENCE, async || !yard.nodes().harmed.contains(&node)).await
}

/// `quorate node VERB NAME` through the others. Whether it was done is asked of the cluster: the answer may be lost.
async fn command(yard: &Yard, binary: &Path, node: usize, verb: &str, name: &str) {
    let others = yard.endpoints_present().into_iter().filter(|endpoint| *endpoint != yard.endpoints[node]);
    let others: Vec<String> = others.collect();
    let mut command = Command::new(binary);
    command.args(["node", verb, name, "--endpoints", &others.join(",")]).kill_on_drop(true);
    // What it says is of no use: a command that is repeated is refused.
    let _ = tokio::time::timeout(COMMAND, command.output()).await;
}
