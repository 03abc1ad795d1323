//! What happens to processes: they are killed, stand still, or are told to stop; and whoever leads is asked to let another lead.
//!
//! A node counts as harmed until it serves again, and a moment longer. Never half of the members are, nor half of the replicas of a shard: what has lost its majority can do
//! nothing but wait, and for how long would be a matter of the dice.

use super::yard::{Nodes, Yard};
use crate::cluster::{hand_over, leads, serves};
use crate::failure::Failure;
use quorate_env::Rng;
use std::time::{Duration, Instant};

pub const KILLED: &str = "killed";
pub const PAUSED: &str = "paused";
pub const STOPPED: &str = "told to stop";
pub const HANDED: &str = "leaderships handed over";

/// From one harm to the next, by the same hand.
const REST_MS: (u64, u64) = (300, 2_500);

/// How long who was killed is away, and who stands still does.
const DOWN_MS: (u64, u64) = (100, 2_000);
const STILL_MS: (u64, u64) = (300, 3_000);

/// A node that was told to stop ends within this.
const STOPS: Duration = Duration::from_secs(20);

/// A node that serves has replicas that have not caught up yet.
const CATCHES_UP: Duration = Duration::from_secs(1);

/// A node that is back serves within this.
const SERVES: Duration = Duration::from_secs(60);

const BETWEEN_LEADERS_MS: (u64, u64) = (1_000, 4_000);
const POLL: Duration = Duration::from_millis(50);

/// How a node is harmed.
#[derive(Clone, Copy, Debug)]
enum Way {
    Kill,
    Pause,
    Stop,
}

impl Way {
    fn draw(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0..5 => Self::Kill,
            5..8 => Self::Pause,
            _ => Self::Stop,
        }
    }
}

async fn rest(rng: &mut Rng, (low, high): (u64, u64)) {
    tokio::time::sleep(Duration::from_millis(rng.between(low, high))).await;
}

/// One hand, which harms one node at a time, first in each way by turns and then as is drawn. Two of them can harm two of five.
pub async fn hand(yard: &Yard, mut rng: Rng) -> Result<(), Failure> {
    let mut ways = vec![Way::Stop, Way::Pause, Way::Kill];
    while !yard.ended() {
        rest(&mut rng, REST_MS).await;
        yard.nobody_fell()?;
        let Some(victim) = choose(&mut yard.nodes(), &mut rng) else { continue };
        let done = match ways.pop().unwrap_or_else(|| Way::draw(&mut rng)) {
            Way::Kill => kill(yard, victim, &mut rng).await,
            Way::Pause => pause(yard, victim, &mut rng).await,
            Way::Stop => stop(yard, victim).await,
        };
        done?;
        comes_back(yard, victim).await?;
        yard.note(victim, "serves again");
        tokio::time::sleep(CATCHES_UP).await;
        yard.nodes().harmed.remove(&victim);
    }
    Ok(())
}

/// Somebody whom the others can do without; from now on that one is harmed.
fn choose(nodes: &mut Nodes, rng: &mut Rng) -> Option<usize> {
    let whole = nodes.present.difference(&nodes.harmed).copied();
    let whole: Vec<usize> = whole.filter(|node| nodes.can_spare(*node)).collect();
    let victim = *rng.pick(&whole)?;
    nodes.harmed.insert(victim);
    Some(victim)
}

/// Starts a node again, if it was not removed meanwhile.
fn start(yard: &Yard, node: usize) -> Result<(), Failure> {
    let mut nodes = yard.nodes();
    if nodes.present.contains(&node) { nodes.cluster.start(node) } else { Ok(()) }
}

async fn kill(yard: &Yard, victim: usize, rng: &mut Rng) -> Result<(), Failure> {
    {
        let mut nodes = yard.nodes();
        yard.bit(KILLED, u64::from(nodes.cluster.runs(victim)));
        nodes.cluster.kill(victim);
        yard.note(victim, "is killed");
    }
    rest(rng, DOWN_MS).await;
    start(yard, victim)
}

async fn pause(yard: &Yard, victim: usize, rng: &mut Rng) -> Result<(), Failure> {
    {
        let mut nodes = yard.nodes();
        yard.bit(PAUSED, u64::from(nodes.cluster.runs(victim)));
        nodes.cluster.pause(victim);
        yard.note(victim, "stands still");
    }
    rest(rng, STILL_MS).await;
    yard.nodes().cluster.resume(victim);
    yard.note(victim, "goes on");
    Ok(())
}

async fn stop(yard: &Yard, victim: usize) -> Result<(), Failure> {
    {
        let mut nodes = yard.nodes();
        yard.bit(STOPPED, u64::from(nodes.cluster.runs(victim)));
        nodes.cluster.terminate(victim);
        yard.note(victim, "is told to stop");
    }
    let deadline = Instant::now() + STOPS;
    while yard.nodes().cluster.runs(victim) {
        if Instant::now() > deadline {
            let said = yard.nodes().cluster.said(victim);
            let text = format!("n{} goes on after SIGTERM; it said:\n{said}", victim + 1);
            return Err(Failure::NotAsPromised(text));
        }
        tokio::time::sleep(POLL).await;
    }
    yard.note(victim, "has stopped");
    start(yard, victim)
}

/// Waits until a node serves again; not if it is on its way out.
async fn comes_back(yard: &Yard, node: usize) -> Result<(), Failure> {
    let deadline = Instant::now() + SERVES;
    while stays(yard, node) && !serves(&yard.endpoints[node]).await {
        let ended = yard.nodes().cluster.ended(node);
        // It may have been removed a moment ago.
        if stays(yard, node) && (ended.is_some() || Instant::now() > deadline) {
            let said = yard.nodes().cluster.said(node);
            let how =
                ended.map_or("goes on and does not serve".into(), |status| format!("ended by itself with {status}"));
            return Err(Failure::NotAsPromised(format!("n{} is back and {how}; it said:\n{said}", node + 1)));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn stays(yard: &Yard, node: usize) -> bool {
    yard.nodes().voters.contains(&node)
}

/// Whoever leads etcd's keyspace is asked to let another lead. Who leads the bank's shards loses that with its process, or as its shards move.
pub async fn leaders(yard: &Yard, mut rng: Rng) -> Result<(), Failure> {
    while !yard.ended() {
        rest(&mut rng, BETWEEN_LEADERS_MS).await;
        let present = yard.endpoints_present();
        let mut leader = None;
        for endpoint in &present {
            if leads(endpoint).await {
                leader = Some(endpoint);
            }
        }
        let others: Vec<&String> = present.iter().filter(|endpoint| Some(*endpoint) != leader).collect();
        if let (Some(leader), Some(heir)) = (leader, rng.pick(&others)) {
            let asked = tokio::time::timeout(Duration::from_secs(5), hand_over(leader, heir)).await;
            yard.bit(HANDED, u64::from(asked == Ok(true)));
        }
    }
    Ok(())
}
