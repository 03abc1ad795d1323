//! What a run found, in figures, on one screen.

use quorate_sim::witness::{Asked, History, Judged, Told};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// When things happened, in the observer's microseconds.
#[derive(Debug, Default)]
pub struct Timeline {
    /// When each fault began.
    pub faults: Vec<u64>,
    /// When everything was started again.
    pub restarts: Vec<u64>,
    /// When the last fault ended.
    pub healed: u64,
}

/// When writes were acknowledged, in order.
fn acknowledgements(history: &History) -> Vec<u64> {
    let written =
        history.operations.iter().filter(|op| matches!((&op.asked, &op.told), (Asked::Write(_), Told::Done(_))));
    let mut times: Vec<u64> = written.map(|op| op.ended_us).collect();
    times.sort_unstable();
    times
}

impl Timeline {
    /// For each fault, the longest time without an acknowledged write that begins between it and the next one.
    pub fn gaps(&self, history: &History) -> Vec<Duration> {
        let times = acknowledgements(history);
        let longest = |(n, began): (usize, &u64)| {
            let ends = self.faults.get(n + 1).copied().unwrap_or(self.healed.max(*began));
            let first = times.partition_point(|at| at < began);
            let mut last = *began;
            let mut longest = 0;
            for at in &times[first..] {
                longest = longest.max(at - last);
                last = *at;
                if *at > ends {
                    break;
                }
            }
            Duration::from_micros(longest)
        };
        self.faults.iter().enumerate().map(longest).collect()
    }

    /// Acknowledged writes per second before the first fault and from there until the last one ended.
    pub fn pace(&self, history: &History) -> (f64, f64) {
        let times = acknowledgements(history);
        let rate = |from: u64, to: u64| {
            let count = times.partition_point(|at| *at < to) - times.partition_point(|at| *at < from);
            count as f64 * 1e6 / to.saturating_sub(from).max(1) as f64
        };
        let first = self.faults.first().copied().unwrap_or_default();
        (rate(0, first), rate(first, self.healed.max(first)))
    }

    /// For each restart, how long the first acknowledged write took.
    pub fn first_after_restart(&self, history: &History) -> Vec<Duration> {
        let times = acknowledgements(history);
        let first = |began: &u64| times.get(times.partition_point(|at| at < began)).map(|at| at - began);
        self.restarts.iter().filter_map(first).map(Duration::from_micros).collect()
    }
}

/// One run.
#[derive(Debug)]
pub struct Report {
    /// The nemesis.
    pub name: &'static str,
    /// What drew the run.
    pub seed: u64,
    /// How long it was observed.
    pub seconds: f64,
    /// What proves that the faults happened.
    pub bites: BTreeMap<&'static str, u64>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
    /// What was found right.
    pub judged: Judged,
    /// Of service, one for each fault.
    pub gaps: Vec<Duration>,
    /// From a restart to the first acknowledged write.
    pub restarts: Vec<Duration>,
    /// Acknowledged writes per second before the first fault, and under faults.
    pub pace: (f64, f64),
    /// From the end of a fault until every node served a linearizable read.
    pub converged: Vec<Duration>,
}

/// The p50, the p99 and the largest, in milliseconds.
struct Spread<'a>(&'a [Duration]);

impl fmt::Display for Spread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.to_vec();
        sorted.sort_unstable();
        let at = |per_cent: usize| sorted.get((sorted.len() * per_cent / 100).min(sorted.len().saturating_sub(1)));
        let ms = |duration: Option<&Duration>| duration.map_or(0, Duration::as_millis);
        let (p50, p99, max) = (ms(at(50)), ms(at(99)), ms(sorted.last()));
        write!(f, "p50 {p50} ms, p99 {p99} ms, max {max} ms, of {}", sorted.len())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { judged, .. } = self;
        writeln!(f, "{} (seed {}, {:.1} s)", self.name, self.seed, self.seconds)?;
        let bites: Vec<String> = self.bites.iter().map(|(what, times)| format!("{what} {times}")).collect();
        writeln!(f, "  it bit         {}", bites.join(", "))?;
        writeln!(
            f,
            "  checked        {} writes acknowledged, {} unknown ({} took effect), {} refused; {} reads ({} linearizable)",
            judged.acknowledged, judged.unknown, judged.unknown_done, judged.refused, judged.reads, judged.linearizable
        )?;
        writeln!(
            f,
            "                 {} revisions, {} events watched, {} leases ended, none early; hashes equal on all nodes",
            judged.revision, judged.watched, judged.leases_ended
        )?;
        writeln!(f, "  gap of writes  {}", Spread(&self.gaps))?;
        if !self.restarts.is_empty() {
            writeln!(f, "  first write    {} after a restart", Spread(&self.restarts))?;
        }
        writeln!(f, "  pace           {:.0} writes/s before, {:.0} under faults", self.pace.0, self.pace.1)?;
        writeln!(f, "  converged      {} ends of faults", Spread(&self.converged))?;
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        write!(f, "  lost           0 of {}", judged.acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::Term;
    use quorate_kv::{Applied, Command, Header, Outcome, Revision, Txn, TxnResult};
    use quorate_sim::witness::Operation;

    /// Writes that were acknowledged at these milliseconds.
    fn acknowledged(at_ms: &[u64]) -> History {
        let outcome = Outcome::Transacted(TxnResult::default());
        let applied = Applied { header: Header { revision: Revision(2), term: Term(1) }, outcome };
        let operation = |(number, at): (usize, &u64)| Operation {
            number: number as u64,
            began_us: at * 1000 - 1,
            ended_us: at * 1000,
            asked: Asked::Write(Command::Transact(Txn::default())),
            told: Told::Done(applied.clone()),
        };
        History { operations: at_ms.iter().enumerate().map(operation).collect(), ..History::default() }
    }

    #[test]
    fn a_gap_is_the_longest_silence_that_begins_before_the_next_fault() {
        let history = acknowledged(&[5, 10, 40, 45, 50, 250, 260, 270]);
        let timeline = Timeline { faults: vec![12_000, 60_000], restarts: vec![60_000], healed: 265_000 };
        assert_eq!(timeline.gaps(&history), [200, 190].map(Duration::from_millis));
        assert_eq!(timeline.first_after_restart(&history), [Duration::from_millis(190)]);
        let (calm, harmed) = timeline.pace(&history);
        assert_eq!((calm.round(), harmed.round()), (167.0, 20.0));
    }

    #[test]
    fn a_silence_that_the_next_fault_meets_still_counts_to_its_end() {
        let history = acknowledged(&[1, 100]);
        let timeline = Timeline { faults: vec![2_000, 50_000], restarts: Vec::new(), healed: 60_000 };
        assert_eq!(timeline.gaps(&history), [98, 50].map(Duration::from_millis));
    }
}
