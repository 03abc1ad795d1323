//! How much a shard holds, and where its middle is: found out by looking at all of its present rows, a few at a time, as they were at one moment.

use crate::machine::MachineError;
use crate::rows::{self, CURRENT};
use crate::source::Source;
use crate::view::View;
use bytes::Bytes;
use quorate_kv::{RangeEnd, Revision};
use std::ops::Bound;

/// Keys that are kept in mind as possible middles. Between two of them lies at most a thirty-second part of what was seen.
const MARKS_MAX: usize = 64;

/// A shard on the scales.
pub struct Weighing {
    source: Source,
    revision: Revision,
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    bytes: u64,
    /// Keys, each with the bytes before it; and the bytes from one to the next.
    marks: Vec<(u64, Bytes)>,
    spacing: u64,
    seen_any: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    /// The revision that was weighed.
    pub revision: Revision,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// A key with about as much before it as from it on; none if there are fewer than two keys.
    pub middle: Option<Bytes>,
}

impl Weighing {
    /// Begins to weigh what a view shows.
    #[must_use]
    pub fn new(view: &View) -> Self {
        let (slot, range) = (view.slot, view.own_range());
        let to = match &range.end {
            RangeEnd::Before(end) => Bound::Excluded(slot.current(end)),
            _ => slot.kind_end(CURRENT),
        };
        Self {
            source: view.source.clone(),
            revision: view.revision(),
            from: Bound::Included(slot.current(&range.start)),
            to,
            bytes: 0,
            marks: Vec::new(),
            spacing: 1,
            seen_any: false,
        }
    }

    /// Looks at up to `rows_max` rows. Returns the weight when there are no more.
    pub fn step(&mut self, rows_max: usize) -> Result<Option<Weight>, MachineError> {
        let mut looked = 0;
        for row in self.source.scan(self.from.clone(), self.to.clone()).take(rows_max) {
            let (row, value) = row?;
            let key = rows::parse_current(&row);
            let bytes = (key.len() + value.len()) as u64;
            self.add(key, bytes);
            self.from = Bound::Excluded(row);
            looked += 1;
        }
        Ok((looked < rows_max).then(|| self.weight()))
    }

    fn add(&mut self, key: Bytes, bytes: u64) {
        // A shard is not split at its first key: nothing would be left of it.
        let far = self.marks.last().is_none_or(|(before, _)| self.bytes >= before + self.spacing);
        if self.seen_any && far {
            self.marks.push((self.bytes, key));
        }
        self.seen_any = true;
        self.bytes += bytes;
        if self.marks.len() > MARKS_MAX {
            let mut place = 0;
            self.marks.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.spacing = self.bytes / MARKS_MAX as u64 * 2;
        }
    }

    fn weight(&self) -> Weight {
        let half = self.bytes / 2;
        let middle = self.marks.iter().min_by_key(|(before, _)| before.abs_diff(half)).map(|(_, key)| key.clone());
        Weight { revision: self.revision, bytes: self.bytes, middle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weigh(rows: impl IntoIterator<Item = (u64, u64)>) -> Weight {
        let mut weighing = Weighing {
            source: Source::Live(std::sync::Arc::new(quorate_storage::store::ModelStore::new())),
            revision: Revision(1),
            from: Bound::Unbounded,
            to: Bound::Unbounded,
            bytes: 0,
            marks: Vec::new(),
            spacing: 1,
            seen_any: false,
        };
        rows.into_iter().for_each(|(key, bytes)| weighing.add(format!("{key:08}").into(), bytes));
        assert!(weighing.marks.len() <= MARKS_MAX);
        weighing.weight()
    }

    #[test]
    fn the_middle_has_about_as_much_before_it_as_behind_it() {
        let even = weigh((0..100_000).map(|n| (n, 100)));
        assert_eq!(even.bytes, 10_000_000);
        let middle: u64 = String::from_utf8_lossy(&even.middle.expect("many keys")).parse().expect("a number");
        assert!((48_000..52_000).contains(&middle), "{middle}");
        // What is heavy lies in front.
        let uneven = weigh((0..1_000).map(|n| (n, if n < 10 { 100_000 } else { 10 })));
        let middle: u64 = String::from_utf8_lossy(&uneven.middle.expect("many keys")).parse().expect("a number");
        assert!((4..=6).contains(&middle), "{middle}");
    }

    #[test]
    fn what_has_no_two_keys_has_no_middle() {
        assert_eq!(weigh([]).middle, None);
        assert_eq!(weigh([(1, 1_000)]), Weight { revision: Revision(1), bytes: 1_000, middle: None });
        assert_eq!(weigh([(1, 1_000), (2, 1)]).middle, Some("00000002".into()));
    }
}
