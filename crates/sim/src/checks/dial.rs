//! Reads that are no transactions keep what their freshness promises, and timestamps say what came first: judged in the end, when it is known of every version who
//! wrote it, and when it happened.

use crate::history::{Violation, demand};
use bytes::Bytes;
use quorate_env::Timestamp;
use quorate_kv::{Freshness, KeyRange};
use std::collections::{BTreeMap, BTreeSet};

/// What a node's clock may be wrong by while it measures how old something is: one part in so many.
const CLOCK_SLACK: u64 = 10;

/// A version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The operation that wrote it.
    pub writer: u64,
    /// When, as its shard says.
    pub at: Timestamp,
}

/// What somebody saw.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub operation: u64,
    pub began_us: u64,
    pub freshness: Freshness,
    pub looked: KeyRange,
    /// Who had last written the keys that it saw.
    pub saw: BTreeMap<Bytes, u64>,
    pub token: Timestamp,
    /// Whether all clocks had run right until then. Those that do not can tell nobody how old something is.
    pub timely: bool,
}

/// A key's versions, oldest first, and what is asked of them again and again.
struct History<'a> {
    versions: &'a [Version],
    /// Where each writer is among them, first.
    places: BTreeMap<u64, usize>,
    /// For each, when the first of it and those after it was acknowledged. These ascend: as many as lie before a time, up to so many versions somebody then knew.
    ended_us: Vec<u64>,
}

impl<'a> History<'a> {
    fn of(versions: &'a [Version], acknowledged: &BTreeMap<u64, u64>) -> Self {
        let places = versions.iter().enumerate().rev().map(|(at, version)| (version.writer, at)).collect();
        let ended = |version: &Version| acknowledged.get(&version.writer).copied().unwrap_or(u64::MAX);
        let mut ended_us: Vec<u64> = versions.iter().map(ended).collect();
        for at in (1..ended_us.len()).rev() {
            ended_us[at - 1] = ended_us[at - 1].min(ended_us[at]);
        }
        Self { versions, places, ended_us }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DialCheck {
    pub sights: Vec<Sight>,
    /// When writers were told that they wrote.
    pub told: BTreeMap<u64, Timestamp>,
    /// What writers had to come after.
    pub after: BTreeMap<u64, Timestamp>,
    /// Who read what its own clock said was now, where writers wait for clocks.
    pub clocked: BTreeSet<u64>,
}

impl DialCheck {
    /// Judges, given the versions of each key, oldest first, and when each operation was acknowledged, in microseconds.
    pub fn finish(
        &self,
        versions: &BTreeMap<Bytes, Vec<Version>>,
        acknowledged: &BTreeMap<u64, u64>,
    ) -> Result<u64, Violation> {
        self.judge_stamps(versions)?;
        let histories: BTreeMap<&Bytes, History> =
            versions.iter().map(|(key, versions)| (key, History::of(versions, acknowledged))).collect();
        for sight in &self.sights {
            let keys = histories.range::<Bytes, _>(&sight.looked.start..);
            for (key, history) in keys.take_while(|(key, _)| sight.looked.contains(key)) {
                self.judge_key(sight, key, history)?;
            }
            for key in sight.saw.keys() {
                demand(versions.contains_key(key), "reads see what was committed", || {
                    format!("operation {} saw {}, which nobody wrote", sight.operation, key.escape_ascii())
                })?;
            }
        }
        Ok(self.sights.len() as u64)
    }

    fn judge_key(&self, sight: &Sight, key: &Bytes, history: &History<'_>) -> Result<(), Violation> {
        let History { versions, places, ended_us } = history;
        let Sight { operation, freshness, token, .. } = sight;
        let tell = |what: String| format!("operation {operation}, {freshness:?}, {what} of {}", key.escape_ascii());
        // How many versions it has seen; those before the last one are overwritten.
        let seen = match sight.saw.get(key) {
            None => 0,
            Some(writer) => {
                let at = places.get(writer).copied();
                demand(at.is_some(), "reads see what was committed", || tell(format!("saw {writer}")))?;
                at.unwrap_or_default() + 1
            }
        };
        let by = |moment: Timestamp| versions.partition_point(|version| version.at <= moment);
        demand(seen <= by(*token), "a token stands for all that was seen", || {
            tell(format!("got {token} and saw {:?}", versions[seen - 1]))
        })?;
        match freshness {
            Freshness::At(at) => {
                let least = match self.clocked.contains(operation) {
                    true => ended_us.partition_point(|ended| *ended < sight.began_us),
                    false => 0,
                };
                demand(seen >= least, "a clock's now sees what was acknowledged", || {
                    tell(format!("saw {seen} versions and not {least}"))
                })?;
                demand(seen == by(*at), "a moment is seen as it was", || {
                    tell(format!("saw {seen} versions and not {}", by(*at)))
                })
            }
            Freshness::After(at) => demand(seen >= by(*at), "a token's holder sees what it stands for", || {
                tell(format!("saw {seen} versions and not {}", by(*at)))
            }),
            Freshness::Within(age) if sight.timely => {
                let age = age.as_micros() as u64;
                let old = |ended: &u64| ended.saturating_add(age + age / CLOCK_SLACK) < sight.began_us;
                let least = ended_us.partition_point(old);
                demand(seen >= least, "no read is staler than it may be", || {
                    tell(format!("saw {seen} versions and not {least}"))
                })
            }
            Freshness::Strict | Freshness::Within(_) | Freshness::Any => Ok(()),
        }
    }

    fn judge_stamps(&self, versions: &BTreeMap<Bytes, Vec<Version>>) -> Result<(), Violation> {
        let mut stamps: BTreeMap<u64, Timestamp> = BTreeMap::new();
        for (key, versions) in versions {
            // What is in one entry happens at once.
            demand(versions.is_sorted_by_key(|version| version.at), "timestamps ascend", || {
                format!("the versions of {} are {versions:?}", key.escape_ascii())
            })?;
            for Version { writer, at } in versions {
                let before = *stamps.entry(*writer).or_insert(*at);
                demand(before == *at, "a transaction happens at one moment", || {
                    format!("operation {writer} wrote at {before}, and {} at {at}", key.escape_ascii())
                })?;
            }
        }
        for (writer, at) in &stamps {
            let told = self.told.get(writer).copied().unwrap_or(*at);
            demand(told == *at, "a transaction happens at one moment", || {
                format!("operation {writer} was told {told}, and it was {at}")
            })?;
            let after = self.after.get(writer).copied().unwrap_or_default();
            demand(after < *at || after == Timestamp::ZERO, "timestamps ascend", || {
                format!("operation {writer} happened at {at}, and not after {after}")
            })?;
        }
        Ok(())
    }
}

/// Judges whether whatever began after something was acknowledged has a later timestamp, given when everything began and was acknowledged, in microseconds.
/// Returns how many writes were held against others.
pub(crate) fn in_order(
    versions: &BTreeMap<Bytes, Vec<Version>>,
    began: &BTreeMap<u64, u64>,
    acknowledged: &BTreeMap<u64, u64>,
) -> Result<u64, Violation> {
    let by_time = |all: &BTreeMap<u64, u64>| {
        let mut times: Vec<(u64, u64)> = all.iter().map(|(operation, at_us)| (*at_us, *operation)).collect();
        times.sort_unstable();
        times
    };
    let moments: BTreeMap<u64, Timestamp> =
        versions.values().flatten().map(|version| (version.writer, version.at)).collect();
    let mut ended = by_time(acknowledged).into_iter().peekable();
    let (mut latest, mut compared) = ((Timestamp::ZERO, 0), 0);
    for (began_us, operation) in by_time(began) {
        while let Some((_, before)) = ended.next_if(|(ended_us, _)| *ended_us < began_us) {
            latest = latest.max((moments.get(&before).copied().unwrap_or_default(), before));
        }
        let Some(at) = moments.get(&operation) else { continue };
        demand(*at > latest.0, "timestamps are in the order of what was done", || {
            format!("operation {operation} began after {} was told {}, and happened at {at}", latest.1, latest.0)
        })?;
        compared += 1;
    }
    Ok(compared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sight(freshness: Freshness, saw: &[(&'static str, u64)], token: u64) -> Sight {
        let saw = saw.iter().map(|(key, writer)| (Bytes::from(*key), *writer)).collect();
        let looked = KeyRange::prefix("r/");
        Sight { operation: 99, began_us: 2_000_000, freshness, looked, saw, token: Timestamp(token), timely: true }
    }

    /// Two keys: the first written by 1 at 10 and by 2 at 20, the second by 2 at 20; they were acknowledged after one second, and after two but for a bit.
    fn judge(sight: Sight) -> Result<u64, &'static str> {
        let version = |writer, at| Version { writer, at: Timestamp(at) };
        let versions = BTreeMap::from([
            (Bytes::from("r/1"), vec![version(1, 10), version(2, 20)]),
            (Bytes::from("r/2"), vec![version(2, 20)]),
        ]);
        let acknowledged = BTreeMap::from([(1, 1_000_000), (2, 1_900_000)]);
        let check = DialCheck { sights: vec![sight], ..DialCheck::default() };
        check.finish(&versions, &acknowledged).map_err(|violation| violation.rule)
    }

    #[test]
    fn a_moment_is_neither_earlier_nor_later_nor_two() {
        let at = |moment| Freshness::At(Timestamp(moment));
        let wrong = Err("a moment is seen as it was");
        assert_eq!(judge(sight(at(15), &[("r/1", 1)], 15)), Ok(1));
        assert_eq!(judge(sight(at(9), &[], 9)), Ok(1));
        assert_eq!(judge(sight(at(20), &[("r/1", 2), ("r/2", 2)], 20)), Ok(1));
        assert_eq!(judge(sight(at(20), &[("r/1", 2)], 20)), wrong);
        assert_eq!(judge(sight(at(15), &[("r/1", 1), ("r/2", 2)], 20)), wrong);
        assert_eq!(judge(sight(at(15), &[], 15)), wrong);
        assert_eq!(judge(sight(at(15), &[("r/1", 7)], 15)), Err("reads see what was committed"));
        assert_eq!(judge(sight(at(9), &[("r/3", 1)], 9)), Err("reads see what was committed"));
    }

    #[test]
    fn what_a_clock_calls_now_has_all_that_was_acknowledged() {
        let version = |writer, at| Version { writer, at: Timestamp(at) };
        let versions = BTreeMap::from([(Bytes::from("r/1"), vec![version(1, 10), version(2, 20)])]);
        let acknowledged = BTreeMap::from([(1, 1_000_000), (2, 1_900_000)]);
        for (moment, writer, judged) in [(20, 2, Ok(1)), (15, 1, Err("a clock's now sees what was acknowledged"))] {
            let sights = vec![sight(Freshness::At(Timestamp(moment)), &[("r/1", writer)], moment)];
            let check = DialCheck { sights, clocked: BTreeSet::from([99]), ..DialCheck::default() };
            assert_eq!(check.finish(&versions, &acknowledged).map_err(|violation| violation.rule), judged);
        }
    }

    #[test]
    fn who_began_later_and_happened_earlier_is_noticed() {
        let judge = |first: u64, second: u64, began_us: u64| {
            let version = |writer, at| vec![Version { writer, at: Timestamp(at) }];
            let versions = BTreeMap::from([("a".into(), version(1, first)), ("b".into(), version(2, second))]);
            let began = BTreeMap::from([(1, 10), (2, began_us)]);
            in_order(&versions, &began, &BTreeMap::from([(1, 50)])).map_err(|violation| violation.rule)
        };
        assert_eq!(judge(7, 8, 60), Ok(2));
        assert_eq!(judge(8, 7, 50), Ok(2), "it began before the other was told");
        for second in [7, 8] {
            assert_eq!(judge(8, second, 51), Err("timestamps are in the order of what was done"));
        }
    }

    #[test]
    fn a_token_brings_what_it_stands_for_and_stands_for_what_it_brings() {
        let after = |moment| Freshness::After(Timestamp(moment));
        assert_eq!(judge(sight(after(10), &[("r/1", 1)], 10)), Ok(1));
        assert_eq!(judge(sight(after(10), &[("r/1", 2)], 20)), Ok(1));
        assert_eq!(judge(sight(after(20), &[("r/1", 2)], 20)), Err("a token's holder sees what it stands for"));
        assert_eq!(judge(sight(after(10), &[("r/1", 2)], 19)), Err("a token stands for all that was seen"));
    }

    #[test]
    fn what_is_older_than_it_may_be_is_noticed() {
        let within = |ms| Freshness::Within(Duration::from_millis(ms));
        assert_eq!(judge(sight(within(500), &[("r/1", 1)], 20)), Ok(1));
        assert_eq!(judge(sight(within(500), &[], 20)), Err("no read is staler than it may be"));
        assert_eq!(judge(sight(within(50), &[("r/1", 1)], 20)), Err("no read is staler than it may be"));
        assert_eq!(judge(sight(Freshness::Any, &[], 0)), Ok(1));
    }

    #[test]
    fn stamps_that_differ_or_go_back_are_noticed() {
        let judge = |versions: &[(&'static str, u64, u64)], told: Option<u64>| {
            let mut all: BTreeMap<Bytes, Vec<Version>> = BTreeMap::new();
            for (key, writer, at) in versions {
                all.entry(Bytes::from(*key)).or_default().push(Version { writer: *writer, at: Timestamp(*at) });
            }
            let told = told.map(|at| (1, Timestamp(at))).into_iter().collect();
            let check = DialCheck { told, after: BTreeMap::from([(1, Timestamp(5))]), ..DialCheck::default() };
            check.finish(&all, &BTreeMap::new()).map_err(|violation| violation.rule)
        };
        assert_eq!(judge(&[("a", 1, 10), ("b", 1, 10), ("a", 2, 11)], Some(10)), Ok(0));
        assert_eq!(judge(&[("a", 3, 0), ("a", 2, 0), ("a", 1, 6)], None), Ok(0));
        assert_eq!(judge(&[("a", 1, 10), ("b", 1, 11)], None), Err("a transaction happens at one moment"));
        assert_eq!(judge(&[("a", 1, 10)], Some(9)), Err("a transaction happens at one moment"));
        assert_eq!(judge(&[("a", 1, 10), ("a", 2, 10)], None), Ok(0));
        assert_eq!(judge(&[("a", 1, 10), ("a", 2, 9)], None), Err("timestamps ascend"));
        assert_eq!(judge(&[("a", 1, 5)], None), Err("timestamps ascend"));
    }
}
