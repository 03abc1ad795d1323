//! How much a shard's leader has to do, and which key halves that: counted as it goes, and found from a small sample of the keys lately used.
//!
//! ```text
//!   each operation ── one more; of some eight, one's key goes into a reservoir
//!   each second ───── more than the bound? for so long without a pause? ── a key with a quarter or more of the sample on either side
//! ```
//!
//! Counting costs an addition and a comparison; a key that is sampled is copied, and no more of it than [`SAMPLED_BYTES_MAX`], so that it keeps no message
//! alive. A shard whose load is on one key has no key that halves it, and is left as it is: a split would move it, and help nobody.

use crate::config::SplitLoad;
use bytes::Bytes;
use quorate_env::{Instant, Rng};
use quorate_kv::across::{Part, TxStep, Write};
use quorate_kv::{Command, KeyRange, Op, RangeOp};

/// Of so many operations about one is sampled, or of fewer, where the bound is so low that few would be.
const STRIDE: u64 = 8;

/// Keys in the sample: the part on one side of a key is known to some 4 %.
const SAMPLE_MAX: usize = 128;

/// Fewer keys say nothing.
const SAMPLE_MIN: usize = 32;

/// Bytes of a key that are kept; keys that agree in so many count as one.
const SAMPLED_BYTES_MAX: usize = 128;

/// On either side of the key there must be this part of the sample at least.
const SIDE_PART_MIN: usize = 4;

/// See the top of this file.
pub(crate) struct Load {
    rng: Rng,
    /// Whether the shard may be split at all; nothing is counted otherwise.
    watched: bool,
    /// Operations since `began`, and until the next is sampled.
    operations: u64,
    until_sampled: u64,
    stride: u64,
    /// When the window began, and since when each was above the bound.
    began: Option<Instant>,
    hot_since: Option<Instant>,
    sample: Vec<Bytes>,
    sampled: u64,
}

impl Load {
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            watched: false,
            operations: 0,
            until_sampled: 0,
            stride: STRIDE,
            began: None,
            hot_since: None,
            sample: Vec::new(),
            sampled: 0,
        }
    }

    /// This leader has proposed something.
    #[inline]
    pub fn wrote(&mut self, command: &Command) {
        if self.counts() {
            let key = key_of(command, &mut self.rng);
            self.take(key);
        }
    }

    /// This leader has answered reads.
    #[inline]
    pub fn read(&mut self, reads: &[RangeOp]) {
        if self.counts() {
            let key = self.rng.pick(reads).map(|read| &read.range.start);
            self.take(key);
        }
    }

    /// Counts one operation. Whether it is one that is sampled.
    #[inline]
    fn counts(&mut self) -> bool {
        if !self.watched {
            return false;
        }
        self.operations += 1;
        self.until_sampled = self.until_sampled.saturating_sub(1);
        self.until_sampled == 0
    }

    #[cold]
    fn take(&mut self, key: Option<&Bytes>) {
        // Not each eighth: what clients do may have a rhythm, too.
        self.until_sampled = self.rng.between(1, 2 * self.stride - 1);
        let Some(key) = key else { return };
        self.sampled += 1;
        let full = self.sample.len() == SAMPLE_MAX;
        let place = if full { self.rng.below(self.sampled) as usize } else { self.sample.len() };
        if place >= SAMPLE_MAX {
            return;
        }
        let kept = Bytes::copy_from_slice(&key[..key.len().min(SAMPLED_BYTES_MAX)]);
        match self.sample.get_mut(place) {
            Some(former) => *former = kept,
            None => self.sample.push(kept),
        }
    }

    /// Begins anew: the shard has other keys than before, or another leader.
    pub fn forget(&mut self) {
        (self.operations, self.sampled, self.hot_since, self.began) = (0, 0, None, None);
        self.sample = Vec::new();
    }

    /// Looks how much it was since the last look. `watched` is whether it may be split: with that nothing is counted before the first look. Returns a key that halves
    /// the load of a shard with these keys, once there was too much of it for long enough; then it begins anew.
    pub fn look(&mut self, now: Instant, watched: bool, bound: &SplitLoad, keys: &KeyRange) -> Option<Bytes> {
        if self.watched != watched {
            self.watched = watched;
            let expected = u128::from(bound.ops_per_s) * bound.sustained.as_millis() / 1_000;
            self.stride = u64::try_from(expected / (SAMPLE_MAX as u128)).unwrap_or(STRIDE).clamp(1, STRIDE);
            self.forget();
        }
        if !watched {
            return None;
        }
        let began = *self.began.get_or_insert(now);
        let window = now.since(began);
        if window.is_zero() {
            return None;
        }
        let hot = u128::from(self.operations) * 1_000_000 > u128::from(bound.ops_per_s) * window.as_micros();
        (self.operations, self.began) = (0, Some(now));
        if !hot {
            (self.hot_since, self.sampled) = (None, 0);
            self.sample.clear();
            return None;
        }
        let since = *self.hot_since.get_or_insert(began);
        if now.since(since) < bound.sustained || self.sample.len() < SAMPLE_MIN {
            return None;
        }
        let middle = middle(std::mem::take(&mut self.sample), keys);
        self.forget();
        middle
    }
}

/// A key with a quarter or more of the sample on either side, and nearest to halving it. Keys that the shard does not have any more do not count.
fn middle(mut sample: Vec<Bytes>, keys: &KeyRange) -> Option<Bytes> {
    sample.retain(|key| keys.contains(key));
    sample.sort_unstable();
    let all = sample.len();
    if all < SAMPLE_MIN {
        return None;
    }
    let first_of = |at: &usize| sample[*at] != sample[*at - 1];
    let fair = all.div_ceil(SIDE_PART_MIN)..=all - all.div_ceil(SIDE_PART_MIN);
    let at = fair.filter(first_of).min_by_key(|at| at.abs_diff(all / 2))?;
    // A shard is not split at its first key: nothing would be left of it.
    (sample[at] > keys.start).then(|| sample.swap_remove(at))
}

/// A key that a command is about, one of several if there are.
fn key_of<'a>(command: &'a Command, rng: &mut Rng) -> Option<&'a Bytes> {
    match command {
        Command::Transact(txn) => {
            let range = |op: &'a Op| match op {
                Op::Put(put) => Some(&put.key),
                Op::Delete(delete) => Some(&delete.range.start),
                Op::Range(range) => Some(&range.range.start),
                Op::Txn(_) => None,
            };
            rng.pick(&txn.success).and_then(range)
        }
        Command::Across { step: TxStep::Prepare { part, .. }, .. } => key_of_part(part, rng),
        Command::Across { step: TxStep::Decide(verdict), .. } => key_of_part(&verdict.part, rng),
        _ => None,
    }
}

fn key_of_part<'a>(part: &'a Part, rng: &mut Rng) -> Option<&'a Bytes> {
    let counts = [part.success.len(), part.reads.len(), part.compares.len()];
    let at = rng.below(counts.iter().sum::<usize>() as u64) as usize;
    // A log is never split, so nobody wants to know where it is appended to.
    let writes = part.success.iter().filter_map(|write| match write {
        Write::Put { key, .. } => Some(key),
        Write::Delete(range) => Some(&range.start),
        Write::Append(_) => None,
    });
    let reads = part.reads.iter().map(|read| &read.range.start);
    let compares = part.compares.iter().map(|compare| &compare.range.start);
    writes.chain(reads).chain(compares).nth(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::{PutOp, RangeEnd, Txn};
    use std::time::Duration;

    const BOUND: SplitLoad =
        SplitLoad { ops_per_s: 100, sustained: Duration::from_secs(5), rest: Duration::from_secs(30) };

    fn put(key: String) -> Command {
        Command::Transact(Txn::just(Op::Put(PutOp::of(key, "v"))))
    }

    fn all() -> KeyRange {
        KeyRange { start: Bytes::new(), end: RangeEnd::Unbounded }
    }

    /// So many operations a second for so many seconds; what comes of it, and when.
    fn drive(
        load: &mut Load,
        (from_s, for_s): (u64, u64),
        per_second: u64,
        key: impl Fn(u64) -> u64,
    ) -> Option<(u64, String)> {
        for second in from_s..from_s + for_s {
            for n in 0..per_second {
                load.wrote(&put(format!("{:04}", key(second * per_second + n))));
            }
            if let Some(key) = load.look(Instant((second + 1) * 1_000_000), true, &BOUND, &all()) {
                return Some((second + 1, String::from_utf8_lossy(&key).into_owned()));
            }
        }
        None
    }

    fn load() -> Load {
        let mut load = Load::new(Rng::new(7));
        assert_eq!(load.look(Instant(0), true, &BOUND, &all()), None);
        load
    }

    #[test]
    fn what_is_hot_for_long_is_halved() {
        let (when, key) = drive(&mut load(), (0, 60), 1_000, |n| n * 7 % 1_000).expect("it is too much");
        assert!((5..=6).contains(&when), "{when}");
        assert!((350..650).contains(&key.parse::<u64>().expect("a number")), "{key}");
        // Nine of ten are about a tenth of the keys.
        let key = drive(&mut load(), (0, 60), 1_000, |n| if n % 10 > 0 { n * 7 % 100 } else { n * 7 % 1_000 });
        let (_, key) = key.expect("it is too much");
        assert!((25..110).contains(&key.parse::<u64>().expect("a number")), "{key}");
    }

    #[test]
    fn a_burst_is_not_and_neither_is_what_is_below_the_bound() {
        assert_eq!(drive(&mut load(), (0, 60), 100, |n| n % 10), None);
        let mut load = load();
        for burst in 0..10 {
            assert_eq!(drive(&mut load, (burst * 5, 4), 5_000, |n| n % 100), None);
            assert_eq!(drive(&mut load, (burst * 5 + 4, 1), 10, |n| n % 100), None);
        }
    }

    #[test]
    fn one_hot_key_cannot_be_halved() {
        assert_eq!(drive(&mut load(), (0, 60), 1_000, |_| 5), None);
        // It has eight of ten, and lies in the middle.
        assert_eq!(drive(&mut load(), (0, 60), 1_000, |n| if n % 10 < 8 { 500 } else { n * 7 % 1_000 }), None);
        // Two keys can.
        let (_, key) = drive(&mut load(), (0, 60), 1_000, |n| n % 2).expect("one on each side");
        assert_eq!(key, "0001");
    }

    #[test]
    fn keys_that_are_gone_and_the_first_one_are_no_middle() {
        let keys = |n: u64| -> Vec<Bytes> { (0..n).map(|n| Bytes::from(format!("{n:04}"))).collect() };
        let late = KeyRange { start: "0090".into(), end: RangeEnd::Unbounded };
        assert_eq!(middle(keys(100), &late), None, "ten keys of a hundred say nothing");
        let late = KeyRange { start: "0050".into(), end: RangeEnd::Unbounded };
        assert_eq!(middle(keys(100), &late), Some("0075".into()));
        let same = vec![Bytes::from("0050"); 100];
        assert_eq!(middle(same, &late), None);
    }

    #[test]
    fn the_sample_has_a_bound_and_long_keys_are_cut() {
        let mut load = load();
        for n in 0..100_000_u64 {
            load.wrote(&put(format!("{:0>9000}", n)));
            load.read(&[]);
        }
        assert_eq!(load.sample.len(), SAMPLE_MAX);
        assert!(load.sample.iter().all(|key| key.len() == SAMPLED_BYTES_MAX));
    }

    #[test]
    fn nobody_is_counted_whom_nobody_watches() {
        let mut load = Load::new(Rng::new(7));
        for n in 0..1_000_u64 {
            load.wrote(&put(n.to_string()));
        }
        assert_eq!((load.operations, load.sample.len()), (0, 0));
    }
}
