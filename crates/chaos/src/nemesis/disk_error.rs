//! A disk that fails under one node: each kind of file, each kind of call. The node ends at once and says why, since nobody knows any
//! more what its disk holds; the others go on; and when the disk works again, so does the node.

use super::Rounds;
use crate::arena::Arena;
use crate::disk::{Action, Effect, Fault};
use crate::failure::Failure;
use std::time::{Duration, Instant};

/// When a node meets the fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    /// While it serves.
    Serving,
    /// When it starts.
    Starting,
}

struct Case {
    action: Action,
    path: &'static str,
    met: Met,
    proof: &'static str,
}

const fn case(action: Action, path: &'static str, met: Met, proof: &'static str) -> Case {
    Case { action, path, met, proof }
}

const CASES: &[Case] = &[
    case(Action::Sync, "wal/", Met::Serving, "failed syncs of the log"),
    case(Action::Write, "wal/", Met::Serving, "failed writes of the log"),
    case(Action::Read, "wal/", Met::Starting, "failed reads of the log"),
    case(Action::Read, "IDENTITY", Met::Starting, "failed reads of the identity"),
    case(Action::Sync, "store", Met::Serving, "failed syncs of the store"),
    case(Action::Write, "store/", Met::Serving, "failed writes of the store"),
    case(Action::Read, "store/", Met::Starting, "failed reads of the store"),
];

/// How long it may take until the fault is met: the store is flushed now and then only.
const MET_WITHIN: Duration = Duration::from_secs(40);

/// How soon a node must have ended.
const ENDED_WITHIN: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(2);
const SETTLED: Duration = Duration::from_millis(700);

pub async fn each(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    let mut number = 0;
    while rounds.next() {
        let case = &CASES[number % CASES.len()];
        // Who leads is in more of a hurry.
        let victim = if number % 2 == 0 { arena.leader().await? } else { arena.follower().await? };
        one(arena, case, victim).await?;
        number += 1;
    }
    Ok(())
}

async fn one(arena: &mut Arena, case: &Case, victim: usize) -> Result<(), Failure> {
    let fault = Fault { action: case.action, path: case.path.into(), effect: Effect::Fail, times: u64::MAX };
    if case.met == Met::Starting {
        arena.cluster.kill(victim);
        tokio::time::sleep(SETTLED).await;
    }
    let fault = arena.disks[victim].set(fault);
    if case.met == Met::Starting {
        arena.cluster.start(victim)?;
    }
    let set = Instant::now();
    while arena.disks[victim].met(fault) == 0 {
        if set.elapsed() > MET_WITHIN {
            return Err(Failure::NoBite(format!("{}: 0 in {} s", case.proof, MET_WITHIN.as_secs())));
        }
        tokio::time::sleep(POLL).await;
    }
    arena.fault();
    let met = Instant::now();
    let status = arena.cluster.wait_for_end(victim, ENDED_WITHIN).await;
    let said = arena.cluster.said(victim);
    let status = status
        .map_err(|failure| Failure::NotAsPromised(format!("{}: {failure}; it said: {}", case.proof, said.trim())))?;
    let after = met.elapsed().as_millis();
    if status.success() || !said.contains("quorate:") || !said.contains("nput/output error") {
        let text = format!("{}: n{} ended with {status} and said only: {said}", case.proof, victim + 1);
        return Err(Failure::NotAsPromised(text));
    }
    let line = said.lines().rfind(|line| line.contains("quorate:")).unwrap_or_default();
    arena.note(format!("{}: out after {after} ms: {}", case.proof, line.trim()));
    tokio::time::sleep(SETTLED).await;
    let times = arena.disks[victim].lift(fault);
    arena.bit(case.proof, times);
    arena.cluster.start(victim)?;
    arena.converges().await?;
    tokio::time::sleep(SETTLED).await;
    Ok(())
}
