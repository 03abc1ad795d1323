//! Logs, judged in the end: from what clients were told, and from all that was ever written to each, which nothing removes from a shard's history.
//!
//! Every record names the operation that appended it and its place among that one's records. So what is where, and what should be, is known of each.

use crate::history::{Violation, demand};
use quorate_env::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// What a client asked to be appended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub began_us: u64,
    /// When it was answered as done; none if it never was.
    pub ended_us: Option<u64>,
    /// The log and the number of records of each append.
    pub appends: Vec<(usize, u64)>,
    /// The offset of each append's first record, as it was told.
    pub told: Vec<u64>,
    /// Whether it was answered as not done, or turned out to be nothing.
    pub nothing: bool,
    /// Whether what it wrote besides is there in the end; none if that was nothing.
    pub beside: Option<bool>,
}

/// A record: who appended it, and its place among all that one's records.
pub(crate) type Mark = (u64, u64);

/// All that was ever written to a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// In the order in which it was written.
    pub records: Vec<(u64, Mark, Timestamp)>,
    /// Offsets that were removed.
    pub removed: BTreeSet<u64>,
    pub first: u64,
    pub swept: u64,
    pub end: u64,
    /// How much it says that it keeps, how much that is, and how much of it is the last record, in bytes.
    pub bytes: u64,
    pub counted: u64,
    pub last: u64,
}

/// What a fetch was answered with.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub began_us: u64,
    pub log: usize,
    pub strict: bool,
    pub from: u64,
    pub records: Vec<(u64, Mark, Timestamp)>,
    pub first: u64,
    pub end: u64,
}

/// See the top of this file.
#[derive(Debug, Default)]
pub(crate) struct LogCheck {
    pub asked: BTreeMap<u64, Asked>,
    pub sights: Vec<Sight>,
    /// Who was told when that a log was cut off, and where.
    pub cuts: Vec<(u64, usize, u64)>,
    /// How far each log was ever to be cut off, by those who asked for it.
    pub wanted: BTreeMap<usize, u64>,
}

impl LogCheck {
    /// Judges; `retained` are the logs that are cut off by themselves, and how many bytes they keep. Returns how many operations are explained.
    pub fn finish(&self, logs: &BTreeMap<usize, Written>, retained: &BTreeMap<usize, u64>) -> Result<u64, Violation> {
        let mut places: BTreeMap<u64, BTreeMap<u64, (usize, u64)>> = BTreeMap::new();
        for (log, written) in logs {
            ascend(*log, written)?;
            self.cut_well(*log, written, retained.get(log).copied())?;
            for (offset, (operation, index), _) in &written.records {
                let before = places.entry(*operation).or_default().insert(*index, (*log, *offset));
                demand(before.is_none(), "what is appended is there once", || {
                    format!("record {index} of operation {operation} is at {before:?} and at {offset} of log {log}")
                })?;
            }
        }
        for operation in places.keys() {
            demand(self.asked.contains_key(operation), "nobody else writes", || format!("operation {operation}"))?;
        }
        for (operation, asked) in &self.asked {
            self.whole(*operation, asked, places.get(operation).unwrap_or(&BTreeMap::new()))?;
        }
        logs.iter().try_for_each(|(log, written)| self.in_real_time(*log, written))?;
        self.sights.iter().try_for_each(|sight| self.seen(sight, logs))?;
        Ok(places.len() as u64 + self.sights.len() as u64)
    }

    /// All that somebody asked for is there where it was told, or nothing of it.
    fn whole(&self, operation: u64, asked: &Asked, found: &BTreeMap<u64, (usize, u64)>) -> Result<(), Violation> {
        demand(!asked.nothing || found.is_empty(), "what is answered as not done has no effect", || {
            format!("operation {operation} was not done, and has appended {found:?}")
        })?;
        if asked.nothing {
            return Ok(());
        }
        let all: u64 = asked.appends.iter().map(|(_, count)| count).sum();
        let whole = found.len() as u64 == all;
        if asked.ended_us.is_some() {
            demand(whole, "acknowledged is committed", || {
                format!("operation {operation} was acknowledged; of {:?} there is {found:?}", asked.appends)
            })?;
        }
        let agrees = asked.beside.is_none_or(|beside| beside == whole);
        demand((whole || found.is_empty()) && agrees, "all of a transaction or nothing", || {
            format!("of operation {operation}, {asked:?}, there is {found:?}")
        })?;
        if !whole {
            return Ok(());
        }
        let mut index = 0;
        for (at, (log, count)) in asked.appends.iter().enumerate() {
            let first = found[&index];
            let told = asked.told.get(at).copied().unwrap_or(first.1);
            let together = (0..*count).all(|n| found[&(index + n)] == (*log, told + n));
            demand(together, "what is appended is where it was told", || {
                format!(
                    "operation {operation} was told {told} in log {log} for {count} records, and they are at {found:?}"
                )
            })?;
            index += count;
        }
        Ok(())
    }

    /// Who was answered before another began has the smaller offsets.
    fn in_real_time(&self, log: usize, written: &Written) -> Result<(), Violation> {
        let mut latest = (0, 0);
        for (offset, (operation, _), _) in &written.records {
            let Some(asked) = self.asked.get(operation) else { continue };
            demand(asked.ended_us.is_none_or(|ended| ended >= latest.0), "offsets follow real time", || {
                format!(
                    "operation {operation} was answered before {} began, and is behind it at {offset} of log {log}",
                    latest.1
                )
            })?;
            latest = latest.max((asked.began_us, *operation));
        }
        Ok(())
    }

    /// What is cut off goes, and nothing else.
    fn cut_well(&self, log: usize, written: &Written, retained: Option<u64>) -> Result<(), Violation> {
        let Written { first, swept, end, removed, bytes, counted, last, .. } = written;
        let wanted = self.wanted.get(&log).copied().unwrap_or(0);
        demand(*first <= wanted || retained.is_some(), "nothing is cut off that is to be kept", || {
            format!("log {log} begins at {first}, and nobody wanted more than {wanted} gone")
        })?;
        demand(removed.iter().copied().eq(0..*swept), "what is cut off goes, and nothing else", || {
            format!("log {log} is swept up to {swept}, and of it is gone {removed:?}")
        })?;
        demand(swept == first && first <= end, "what is cut off goes, and nothing else", || {
            format!("log {log} begins at {first}, and its rows at {swept}")
        })?;
        let fits = retained.is_none_or(|retained| *counted <= retained + last);
        demand(bytes == counted && fits, "a log keeps what it is to", || {
            format!("log {log} says that it keeps {bytes} bytes, it keeps {counted}, and is to keep {retained:?}")
        })?;
        let told = self.cuts.iter().filter(|(_, of, _)| *of == log).map(|(_, _, first)| *first).max().unwrap_or(0);
        demand(told <= *first, "what was cut off stays so", || {
            format!("log {log} was cut off at {told}, and begins at {first}")
        })
    }

    fn seen(&self, sight: &Sight, logs: &BTreeMap<usize, Written>) -> Result<(), Violation> {
        let Some(written) = logs.get(&sight.log) else { return Ok(()) };
        for (at, record) in (sight.from..).zip(&sight.records) {
            demand(record.0 == at, "a fetch leaves nothing out", || format!("{sight:?}"))?;
            let there = usize::try_from(at).ok().and_then(|at| written.records.get(at));
            demand(there == Some(record), "what a fetch has seen stays", || {
                format!("at {at} of log {} was seen {record:?}, and there is {there:?}", sight.log)
            })?;
        }
        let cut = self.cuts.iter().filter(|(told_us, log, _)| *log == sight.log && *told_us < sight.began_us);
        let cut = cut.map(|(_, _, first)| *first).max().unwrap_or(0);
        demand(sight.first >= cut || !sight.strict, "what was cut off stays so", || {
            format!("log {} was cut off at {cut}, and a fetch found {sight:?}", sight.log)
        })?;
        let more = sight.strict && sight.from < sight.end;
        demand(!more || !sight.records.is_empty(), "a fetch leaves nothing out", || format!("{sight:?}"))?;
        let acknowledged = |asked: &&Asked| asked.ended_us.is_some_and(|ended| ended < sight.began_us);
        let ends = self.asked.values().filter(acknowledged).flat_map(|asked| asked.appends.iter().zip(&asked.told));
        let ends = ends.filter(|((log, _), _)| *log == sight.log).map(|((_, count), told)| told + count);
        let end = ends.max().unwrap_or(0);
        demand(sight.end >= end || !sight.strict, "a fetch sees what was acknowledged", || {
            format!("log {} had {end} records when somebody was told that it has {}", sight.log, sight.end)
        })
    }
}

/// Offsets ascend by one from 0, and timestamps with them.
fn ascend(log: usize, written: &Written) -> Result<(), Violation> {
    for (offset, record) in (0..).zip(&written.records) {
        demand(record.0 == offset, "offsets are given once, without a gap", || {
            format!("of log {log}, {record:?} is the record that was appended as number {offset}")
        })?;
    }
    let end = written.records.len() as u64;
    demand(written.end == end, "offsets are given once, without a gap", || {
        format!("log {log} has had {end} records and says that it ends at {}", written.end)
    })?;
    let ascending = written.records.windows(2).all(|pair| pair[0].2 <= pair[1].2);
    demand(ascending, "timestamps ascend", || format!("of the records of log {log}: {:?}", written.records))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(began_us: u64, ended_us: u64, told: &[u64]) -> Asked {
        let ended_us = (ended_us > 0).then_some(ended_us);
        Asked { began_us, ended_us, appends: vec![(0, 2)], told: told.to_vec(), ..Asked::default() }
    }

    /// A log in which two records of each of these operations are, in this order.
    fn written(operations: &[u64]) -> Written {
        let marks = operations.iter().flat_map(|operation| [(*operation, 0), (*operation, 1)]);
        let records: Vec<_> = (0..).zip(marks).map(|(at, mark)| (at, mark, Timestamp(at))).collect();
        Written { end: records.len() as u64, records, ..Written::default() }
    }

    fn judge(check: &LogCheck, written: Written) -> Result<u64, &'static str> {
        check.finish(&BTreeMap::from([(0, written)]), &BTreeMap::new()).map_err(|violation| violation.rule)
    }

    fn check(asked: Vec<Asked>) -> LogCheck {
        LogCheck { asked: (1..).zip(asked).collect(), ..LogCheck::default() }
    }

    #[test]
    fn what_is_there_as_it_was_told_is_explained() {
        let all = check(vec![asked(1, 5, &[2]), asked(2, 4, &[0]), asked(3, 0, &[])]);
        assert_eq!(judge(&all, written(&[2, 1])), Ok(2));
        assert_eq!(judge(&all, written(&[2, 1, 3])), Ok(3), "what nobody heard of may be there");
    }

    #[test]
    fn what_is_lost_doubled_or_elsewhere_is_noticed() {
        let one = check(vec![asked(1, 5, &[0])]);
        assert_eq!(judge(&one, written(&[])), Err("acknowledged is committed"));
        assert_eq!(judge(&one, written(&[1, 1])), Err("what is appended is there once"));
        assert_eq!(judge(&check(vec![asked(1, 5, &[2])]), written(&[1])), Err("what is appended is where it was told"));
        assert_eq!(judge(&one, written(&[1, 7])), Err("nobody else writes"));
        let half = Written { end: 1, records: vec![(0, (1, 0), Timestamp(0))], ..Written::default() };
        assert_eq!(judge(&check(vec![asked(1, 0, &[])]), half), Err("all of a transaction or nothing"));
        let refused = check(vec![Asked { nothing: true, ..asked(1, 0, &[]) }]);
        assert_eq!(judge(&refused, written(&[1])), Err("what is answered as not done has no effect"));
        let beside = check(vec![Asked { beside: Some(true), ..asked(1, 0, &[]) }]);
        assert_eq!(judge(&beside, written(&[])), Err("all of a transaction or nothing"));
    }

    #[test]
    fn gaps_and_what_is_out_of_order_are_noticed() {
        let mut gap = written(&[1]);
        gap.records[1].0 = 2;
        assert_eq!(judge(&check(vec![asked(1, 5, &[0])]), gap), Err("offsets are given once, without a gap"));
        let late = check(vec![asked(1, 5, &[2]), asked(6, 7, &[0])]);
        assert_eq!(judge(&late, written(&[2, 1])), Err("offsets follow real time"));
    }

    #[test]
    fn what_is_cut_off_goes_and_nothing_else() {
        let cut = |first, swept, removed: &[u64]| Written {
            first,
            swept,
            removed: removed.iter().copied().collect(),
            ..written(&[1])
        };
        let wanted = LogCheck { wanted: BTreeMap::from([(0, 1)]), ..check(vec![asked(1, 5, &[0])]) };
        assert_eq!(judge(&wanted, cut(1, 1, &[0])), Ok(1));
        assert_eq!(judge(&wanted, cut(1, 1, &[0, 1])), Err("what is cut off goes, and nothing else"));
        assert_eq!(judge(&wanted, cut(1, 0, &[])), Err("what is cut off goes, and nothing else"));
        assert_eq!(judge(&wanted, cut(2, 2, &[0, 1])), Err("nothing is cut off that is to be kept"));
        let one = check(vec![asked(1, 5, &[0])]);
        let kept = |counted| Written { bytes: 9, counted, last: 4, ..written(&[1]) };
        let retains = |counted, retained| {
            let retained = BTreeMap::from([(0, retained)]);
            one.finish(&BTreeMap::from([(0, kept(counted))]), &retained).map_err(|violation| violation.rule)
        };
        assert_eq!(retains(9, 5), Ok(1), "one more than fits is left, and that is the last");
        assert_eq!(retains(9, 4), Err("a log keeps what it is to"));
        assert_eq!(retains(8, 5), Err("a log keeps what it is to"));
        let told = LogCheck { cuts: vec![(5, 0, 1)], ..check(vec![asked(1, 5, &[0])]) };
        assert_eq!(judge(&told, cut(0, 0, &[])), Err("what was cut off stays so"));
    }

    #[test]
    fn a_fetch_that_sees_too_little_or_too_much_is_noticed() {
        let sight = |began_us, records: &[(u64, Mark, Timestamp)], end| Sight {
            began_us,
            log: 0,
            strict: true,
            from: 0,
            records: records.to_vec(),
            first: 0,
            end,
        };
        let judge = |sight: Sight| {
            let check = LogCheck { sights: vec![sight], ..check(vec![asked(1, 5, &[0])]) };
            judge(&check, written(&[1]))
        };
        let all = written(&[1]).records;
        assert_eq!(judge(sight(6, &all, 2)), Ok(2));
        assert_eq!(judge(sight(3, &[], 0)), Ok(2), "it was not acknowledged yet");
        assert_eq!(judge(sight(6, &[], 0)), Err("a fetch sees what was acknowledged"));
        assert_eq!(judge(sight(6, &all[1..], 2)), Err("a fetch leaves nothing out"));
        assert_eq!(judge(sight(6, &[], 2)), Err("a fetch leaves nothing out"));
        assert_eq!(judge(sight(6, &[(0, (9, 0), Timestamp(0))], 2)), Err("what a fetch has seen stays"));
    }
}
