//! Whether a leader's disk is so much slower than another's that the other should lead.
//!
//! The leader times one entry after the other: from when it was appended until each voter is known to have it on disk, itself among them. What the
//! others take has the network in it, so a leader that is slower than they are has a slower disk, or too little of the processor. An entry commits with the
//! disks of the others, so writers hardly notice; but the leader's own flushes, reads and snapshots wait behind such a disk.
//!
//! It is not said of a leader before it has been slow for a while, in several entries or in one that does not end; and only if somebody is several times
//! faster. So two never point at each other: what one of them measures of the other is no more than what that one measures of itself.

use quorate_env::{Instant, LogIndex, ReplicaId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How much slower.
const TIMES: u32 = 4;

/// A disk that takes less is not slow, whatever the others take.
const AT_LEAST: Duration = Duration::from_millis(20);

/// For how long.
const FOR: Duration = Duration::from_secs(1);

/// Of how many entries.
const ENTRIES: u32 = 4;

/// An entry is timed for at most this long; who does not have it by then counts as having taken so long.
const LONGEST: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Default)]
pub(crate) struct Pace {
    /// The entry that is being timed, and since when.
    timed: Option<(LogIndex, Instant)>,
    /// What each voter took for it.
    taken: BTreeMap<ReplicaId, Duration>,
    /// What each takes, smoothed.
    usual: BTreeMap<ReplicaId, Duration>,
    /// Since when this leader has been slow, in so many entries.
    slow: Option<(Instant, u32)>,
    /// When the last entry was timed.
    ended: Instant,
}

impl Pace {
    /// Looks at who has what. `last` is the last entry in the leader's log, and `matched` says what a voter is known to have on disk.
    /// Returns who should lead in place of `own`, of those who are `fit`.
    pub fn look(
        &mut self,
        now: Instant,
        own: ReplicaId,
        voters: &[ReplicaId],
        last: LogIndex,
        matched: impl Fn(ReplicaId) -> LogIndex,
        fit: impl Fn(ReplicaId) -> bool,
    ) -> Option<ReplicaId> {
        let Some((index, began)) = self.timed else {
            if matched(own) < last {
                self.timed = Some((last, now));
                self.taken.clear();
                if now.since(self.ended) >= FOR {
                    // What was slow before a rest says little of what is.
                    self.slow = None;
                }
            }
            return None;
        };
        let passed = now.since(began);
        for voter in voters.iter().filter(|voter| matched(**voter) >= index) {
            self.taken.entry(*voter).or_insert(passed);
        }
        let awaited = |voter: &ReplicaId| *voter == own || fit(*voter);
        let ended = passed >= LONGEST || voters.iter().all(|voter| self.taken.contains_key(voter) || !awaited(voter));
        if ended {
            (self.timed, self.ended) = (None, now);
            for voter in voters.iter().filter(|voter| awaited(voter)) {
                let took = self.taken.get(voter).copied().unwrap_or(passed);
                let usual = self.usual.entry(*voter).or_insert(took);
                *usual = (*usual * 3 + took) / 4;
            }
        }
        let waits = !self.taken.contains_key(&own);
        let mine = self.usual.get(&own).copied().unwrap_or_default().max(if waits { passed } else { Duration::ZERO });
        let others = voters.iter().filter(|voter| **voter != own && fit(**voter));
        let fastest = others.filter_map(|voter| Some((*self.usual.get(voter)?, *voter))).min()?;
        if mine < AT_LEAST || mine < fastest.0 * TIMES {
            self.slow = None;
            return None;
        }
        let (since, entries) = self.slow.get_or_insert((now, 0));
        *entries += u32::from(ended);
        let long = now.since(*since) >= FOR;
        (long && (*entries >= ENTRIES || (waits && passed >= FOR))).then_some(fastest.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTERS: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];

    /// What 1 says after `entries`, for each of which the voters take so many milliseconds.
    fn after(pace: &mut Pace, entries: u64, taken: [u64; 3], fit: fn(ReplicaId) -> bool) -> Option<ReplicaId> {
        let mut said = None;
        let begin = pace.usual.len() as u64 * 1_000_000_000_000;
        let longest = *taken.iter().max().expect("three") + 1;
        for entry in 1..=entries {
            for ms in 0..=longest {
                let has = |voter: ReplicaId| LogIndex(entry - u64::from(taken[voter.0 as usize - 1] > ms));
                let now = Instant(begin + (entry * (longest + 1) + ms) * 1_000);
                said = said.or(pace.look(now, VOTERS[0], &VOTERS, LogIndex(entry), has, fit));
            }
        }
        said
    }

    #[test]
    fn who_is_far_slower_for_long_hands_over_to_the_fastest() {
        let all = |_| true;
        assert_eq!(after(&mut Pace::default(), 40, [60, 10, 5], all), Some(ReplicaId(3)));
        assert_eq!(after(&mut Pace::default(), 40, [60, 10, 5], |id| id != ReplicaId(3)), Some(ReplicaId(2)));
        assert_eq!(after(&mut Pace::default(), 40, [60, 10, 5], |_| false), None, "nobody can");
        assert_eq!(after(&mut Pace::default(), 3, [60, 10, 5], all), None, "not for long yet");
        assert_eq!(after(&mut Pace::default(), 400, [15, 1, 1], all), None, "slower, and fast enough");
        assert_eq!(after(&mut Pace::default(), 40, [60, 50, 20], all), None, "the others are little better");
        assert_eq!(after(&mut Pace::default(), 40, [60, 300, 5], all), Some(ReplicaId(3)), "one is as bad, one is not");
    }

    #[test]
    fn a_disk_that_hangs_is_slow_before_it_is_done() {
        let mut pace = Pace::default();
        assert_eq!(after(&mut pace, 10, [3, 2, 2], |_| true), None);
        assert_eq!(after(&mut pace, 1, [1_500, 2, 2], |_| true), Some(ReplicaId(2)));
    }

    #[test]
    fn two_do_not_point_at_each_other() {
        // Whatever the two take, each entry is timed by the leader from its own append on: the heir's time has the network in it.
        for (one, other) in [(20, 5), (60, 10), (400, 100), (100, 26)] {
            let there = after(&mut Pace::default(), 40, [one, other, 1_000], |_| true);
            let back = after(&mut Pace::default(), 40, [other, one, 1_000], |_| true);
            assert!(there.is_none() || back.is_none(), "{one} and {other} ms");
        }
    }

    #[test]
    fn a_moment_of_slowness_is_forgotten() {
        let mut pace = Pace::default();
        assert_eq!(after(&mut pace, 10, [30, 2, 2], |_| true), None);
        assert_eq!(after(&mut pace, 40, [2, 2, 2], |_| true), None);
        assert!(pace.slow.is_none());
    }
}
