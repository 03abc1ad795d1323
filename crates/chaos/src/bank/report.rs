//! What a run of the bank found, in figures.

use super::ledger::{History, Judged, Told};
use super::money::ACCOUNTS;
use super::yard::Line;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Errors that are told in full.
const TOLD_MAX: usize = 20;

/// How long before a gap something may have happened that it came of.
const BEFORE: Duration = Duration::from_secs(4);

/// One run.
#[derive(Debug)]
pub struct Report {
    /// What drew it.
    pub seed: u64,
    /// How long harm was done.
    pub seconds: f64,
    /// What happened, and how often.
    pub bites: BTreeMap<&'static str, u64>,
    /// What was found right.
    pub judged: Judged,
    /// The longest time without an acknowledged transfer, and when it began.
    pub gap: (Duration, Duration),
    /// What happened to nodes shortly before that and in it.
    pub around: Vec<Line>,
    /// Errors that clients saw after all their retries.
    pub errors: usize,
    /// The longest that a client waited for something that was done.
    pub slowest: Duration,
    /// Shards in the end.
    pub shards: usize,
    /// Nodes in the end.
    pub nodes: usize,
}

/// The longest time between two acknowledged transfers, of whichever teller, and when it began.
pub fn longest_gap(history: &History) -> (Duration, Duration) {
    let done = history.transfers.iter().filter(|transfer| transfer.told == Told::Done);
    let mut times: Vec<u64> = done.map(|transfer| transfer.ended_us).collect();
    times.sort_unstable();
    let (longest, began) = times.windows(2).map(|pair| (pair[1] - pair[0], pair[0])).max().unwrap_or_default();
    (Duration::from_micros(longest), Duration::from_micros(began))
}

/// What happened to nodes shortly before a gap and in it.
pub fn around((longest, began): (Duration, Duration), diary: Vec<Line>) -> Vec<Line> {
    let from = began.saturating_sub(BEFORE);
    diary.into_iter().filter(|(at, _)| (from..=began + longest).contains(at)).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { judged, .. } = self;
        writeln!(f, "{} (seed {}, {:.1} s)", super::NAME, self.seed, self.seconds)?;
        let bites: Vec<String> = self.bites.iter().map(|(what, times)| format!("{what} {times}")).collect();
        writeln!(f, "  it bit         {}", bites.join(", "))?;
        writeln!(
            f,
            "  transfers      {} done ({:.0} each second), {} refused, {} unknown ({} took effect)",
            judged.done,
            judged.done as f64 / self.seconds.max(1.0),
            judged.refused,
            judged.unknown,
            judged.unknown_done
        )?;
        writeln!(
            f,
            "  audits         {} strict and {} at a moment, each to the coin; {} within an age",
            judged.strict, judged.moments, judged.within
        )?;
        writeln!(
            f,
            "  waited         longest gap without a transfer {} ms (after {:.1} s); longest of any client {} ms",
            self.gap.0.as_millis(),
            self.gap.1.as_secs_f64(),
            self.slowest.as_millis()
        )?;
        for (at, what) in &self.around {
            writeln!(f, "                 {:.1} s {what}", at.as_secs_f64())?;
        }
        writeln!(f, "  errors         {} that a retrying client saw", self.errors)?;
        write!(
            f,
            "  in the end     {ACCOUNTS} accounts over {} shards on {} nodes: all the money, lost 0",
            self.shards, self.nodes
        )
    }
}

/// Errors, the first of them.
pub struct Errors<'a>(pub &'a [String]);

impl fmt::Display for Errors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} errors that a retrying client saw", self.0.len())?;
        self.0.iter().take(TOLD_MAX).try_for_each(|error| writeln!(f, "  {error}"))
    }
}
