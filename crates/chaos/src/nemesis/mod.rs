//! The nemeses, a file each. Each does one kind of harm for a while, says when ([`Arena::fault`]) and proves that it happened
//! ([`Arena::bit`]); what is demanded of the cluster meanwhile and afterwards is the same for all.

mod away;
mod clock;
mod cut;
mod disk_error;
mod full;
mod handing;
mod kill;
mod pause;
mod power;
mod slow_disk;

use crate::arena::{Arena, Needs};
use crate::failure::Failure;
use crate::report::Report;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of a value: usually; where logs and tables are to fill up; and where they are to fill up faster than a snapshot travels.
const VALUE_BYTES_MAX: u64 = 1_000;
const LARGE_VALUE_BYTES_MAX: u64 = 25_000;
const HUGE_VALUE_BYTES_MAX: u64 = 100_000;

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

    /// How many there were.
    fn done(&self) -> u64 {
        self.done
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
    /// Tells who leads to stop.
    StopLeader,
    /// Asks who leads to let another lead.
    MoveLeader,
    /// Stops who leads.
    PauseLeader,
    /// Stops somebody else.
    PauseFollower,
    /// Kills all, and takes what was not synced.
    PowerCut,
    /// Fails calls of one disk.
    DiskError,
    /// Fills the leader's disk.
    FullLeader,
    /// Fills all disks.
    FullAll,
    /// Holds up the leader's syncs.
    HungDisk,
    /// Slows the leader's syncs down.
    SlowDisk,
    /// Cuts the leader off from the others.
    CutBothWays,
    /// Cuts one direction.
    CutOneWay,
    /// Swallows all that the leader says and is told.
    BlackHole,
    /// Loses and doubles packets.
    Storm,
    /// Makes wall clocks wrong.
    Clock,
    /// Keeps a follower away for long.
    Away,
    /// The same, under more load.
    AwayUnderLoad,
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
    listed("stop-leader", Nemesis::StopLeader, Length::Times(10), "SIGTERM of whoever leads"),
    listed("move-leader", Nemesis::MoveLeader, Length::Times(20), "whoever leads is asked to let another lead"),
    listed("pause-leader", Nemesis::PauseLeader, Length::Times(10), "SIGSTOP of whoever leads, for three seconds"),
    listed("pause-follower", Nemesis::PauseFollower, Length::Times(5), "SIGSTOP of a follower, for three seconds"),
    listed("power", Nemesis::PowerCut, Length::Times(50), "all nodes lose power at once, and what was not synced"),
    listed("disk-error", Nemesis::DiskError, Length::Times(7), "EIO of one node's log, store or identity, by turns"),
    listed("full", Nemesis::FullLeader, Length::Times(2), "no room on the leader's disk"),
    listed("full-all", Nemesis::FullAll, Length::Times(2), "no room on any disk"),
    listed("hung-disk", Nemesis::HungDisk, Length::Times(3), "the leader's syncs hang for five seconds"),
    listed("slow-disk", Nemesis::SlowDisk, Length::Times(3), "each of the leader's syncs takes 50 ms longer"),
    listed("cut", Nemesis::CutBothWays, Length::Times(10), "the leader is cut off from the others"),
    listed("cut-one-way", Nemesis::CutOneWay, Length::Times(10), "the leader is not heard, or hears nothing, by turns"),
    listed("black-hole", Nemesis::BlackHole, Length::Times(10), "the leader is cut off from everybody, clients too"),
    listed("storm", Nemesis::Storm, Length::Times(3), "30 % of the packets between nodes lost, 50 % doubled"),
    listed("clock", Nemesis::Clock, Length::Times(15), "wall clocks off by an hour, at double speed, frozen"),
    listed("away", Nemesis::Away, Length::Times(2), "a follower is away for ten seconds of large writes"),
    listed("away-under-load", Nemesis::AwayUnderLoad, Length::Times(1), "the same, at four times the bytes"),
];

impl Nemesis {
    fn needs(self) -> Needs {
        Needs {
            disks: matches!(
                self,
                Self::AwayUnderLoad
                    | Self::PowerCut
                    | Self::DiskError
                    | Self::FullLeader
                    | Self::FullAll
                    | Self::HungDisk
                    | Self::SlowDisk
            ),
            network: matches!(self, Self::CutBothWays | Self::CutOneWay | Self::BlackHole | Self::Storm),
            value_bytes_max: match self {
                Self::DiskError | Self::FullLeader | Self::FullAll | Self::Away => LARGE_VALUE_BYTES_MAX,
                Self::AwayUnderLoad => HUGE_VALUE_BYTES_MAX,
                _ => VALUE_BYTES_MAX,
            },
        }
    }

    async fn work(self, arena: &mut Arena, rounds: Rounds) -> Result<(), Failure> {
        match self {
            Self::KillMinority => kill::minority(arena, rounds).await,
            Self::KillLeader => kill::leader(arena, rounds).await,
            Self::StopLeader => handing::stop(arena, rounds).await,
            Self::MoveLeader => handing::hand_over(arena, rounds).await,
            Self::PauseLeader => pause::leader(arena, rounds).await,
            Self::PauseFollower => pause::follower(arena, rounds).await,
            Self::PowerCut => power::cut(arena, rounds).await,
            Self::DiskError => disk_error::each(arena, rounds).await,
            Self::FullLeader => full::leader(arena, rounds).await,
            Self::FullAll => full::all(arena, rounds).await,
            Self::HungDisk => slow_disk::hangs(arena, rounds).await,
            Self::SlowDisk => slow_disk::is_slow(arena, rounds).await,
            Self::CutBothWays => cut::both_ways(arena, rounds).await,
            Self::CutOneWay => cut::one_way(arena, rounds).await,
            Self::BlackHole => cut::black_hole(arena, rounds).await,
            Self::Storm => cut::storm(arena, rounds).await,
            Self::Clock => clock::wrong(arena, rounds).await,
            Self::Away | Self::AwayUnderLoad => away::follower(arena, rounds).await,
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
