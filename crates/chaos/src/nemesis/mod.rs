//! The nemeses, a file each. Each does one kind of harm for a while, says when ([`Arena::fault`]) and proves that it happened
//! ([`Arena::bit`]); what is demanded of the cluster meanwhile and afterwards is the same for all.

mod kill;
mod pause;
mod power;

use crate::arena::{Arena, Needs};
use crate::failure::Failure;
use crate::report::Report;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long harm is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// For so long.
    Seconds(u64),
    /// So often.
    Times(u64),
}

/// Counts rounds until a length is reached.
pub struct Rounds {
    length: Length,
    began: Instant,
    done: u64,
}

impl Rounds {
    fn of(length: Length) -> Self {
        Self { length, began: Instant::now(), done: 0 }
    }

    /// Whether there is another round, and counts it.
    fn next(&mut self) -> bool {
        let more = match self.length {
            Length::Seconds(seconds) => self.began.elapsed() < Duration::from_secs(seconds),
            Length::Times(times) => self.done < times,
        };
        self.done += u64::from(more);
        more
    }
}

/// Who does harm, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nemesis {
    /// Kills anybody.
    KillMinority,
    /// Kills who leads.
    KillLeader,
    /// Stops who leads.
    PauseLeader,
    /// Stops somebody else.
    PauseFollower,
    /// Kills all, and takes what was not synced.
    PowerCut,
}

/// One line of the list.
pub struct Listed {
    /// What it is called.
    pub name: &'static str,
    /// Who.
    pub nemesis: Nemesis,
    /// What it does.
    pub about: &'static str,
    /// If nobody says otherwise.
    pub length: Length,
}

const fn listed(name: &'static str, nemesis: Nemesis, length: Length, about: &'static str) -> Listed {
    Listed { name, nemesis, about, length }
}

/// All of them.
pub const ALL: &[Listed] = &[
    listed("kill", Nemesis::KillMinority, Length::Seconds(60), "kill -9 of a random node each second"),
    listed("kill-leader", Nemesis::KillLeader, Length::Times(20), "kill -9 of whoever leads"),
    listed("pause-leader", Nemesis::PauseLeader, Length::Times(10), "SIGSTOP of whoever leads, for three seconds"),
    listed("pause-follower", Nemesis::PauseFollower, Length::Times(5), "SIGSTOP of a follower, for three seconds"),
    listed("power", Nemesis::PowerCut, Length::Times(50), "all nodes lose power at once, and what was not synced"),
];

impl Nemesis {
    fn needs(self) -> Needs {
        let disks = matches!(self, Self::PowerCut);
        Needs { disks, network: false }
    }

    async fn work(self, arena: &mut Arena, rounds: Rounds) -> Result<(), Failure> {
        match self {
            Self::KillMinority => kill::minority(arena, rounds).await,
            Self::KillLeader => kill::leader(arena, rounds).await,
            Self::PauseLeader => pause::leader(arena, rounds).await,
            Self::PauseFollower => pause::follower(arena, rounds).await,
            Self::PowerCut => power::cut(arena, rounds).await,
        }
    }
}

/// The nemesis of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Listed> {
    ALL.iter().find(|listed| listed.name == name)
}

/// Runs one.
///
/// # Errors
/// If anything was not as it must be, or the fault did not bite.
pub async fn run(binary: &Path, listed: &Listed, length: Option<Length>, seed: u64) -> Result<Report, Failure> {
    let nemesis = listed.nemesis;
    let mut arena = Arena::open(binary, nemesis.needs(), seed).await?;
    let done = nemesis.work(&mut arena, Rounds::of(length.unwrap_or(listed.length))).await;
    match done {
        Ok(()) => arena.close(listed.name).await,
        Err(failure) => Err(failure),
    }
}
