//! Ranges of keys.

use bytes::Bytes;
use quorate_env::{DecodeError, Reader, Writer};

/// Where a range ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// The range is the one key that it starts with.
    Single,
    /// Up to, not including, this key. At or below the start the range is empty.
    Before(Bytes),
    /// No end.
    Unbounded,
}

/// A contiguous set of keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key; empty means "from the first key there is".
    pub start: Bytes,
    /// Where it ends.
    pub end: RangeEnd,
}

impl KeyRange {
    /// The range of one key.
    #[must_use]
    pub fn single(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: RangeEnd::Single }
    }

    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: RangeEnd::Unbounded }
    }

    /// Every key that begins with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xFF {
                end.push(last + 1);
                return Self { start, end: RangeEnd::Before(end.into()) };
            }
        }
        Self { start, end: RangeEnd::Unbounded }
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => self.start == key,
            RangeEnd::Before(end) => *self.start <= *key && *key < **end,
            RangeEnd::Unbounded => *self.start <= *key,
        }
    }

    /// Whether the range is one key.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.end == RangeEnd::Single
    }

    /// Whether some key could lie in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.reaches(&other.start) && other.reaches(&self.start) && !self.is_empty() && !other.is_empty()
    }

    /// Whether the range ends behind `key`, or with it.
    fn reaches(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => *key <= *self.start,
            RangeEnd::Before(end) => *key < **end,
            RangeEnd::Unbounded => true,
        }
    }

    /// Whether no key can lie in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if *end <= self.start)
    }

    /// Whether every key of the range lies in `outer` too. `outer` is not a single key.
    #[must_use]
    pub fn is_within(&self, outer: &Self) -> bool {
        let ends = match (&self.end, &outer.end) {
            _ if self.is_empty() => return true,
            (_, RangeEnd::Unbounded) => true,
            (RangeEnd::Single, RangeEnd::Before(end)) => self.start < *end,
            (RangeEnd::Before(inner), RangeEnd::Before(end)) => inner <= end,
            (RangeEnd::Unbounded, _) | (_, RangeEnd::Single) => false,
        };
        self.start >= outer.start && ends
    }

    /// A cheap upper estimate of the encoded size, in bytes.
    #[must_use]
    pub fn size_estimate(&self) -> usize {
        self.start.len() + 8 + if let RangeEnd::Before(end) = &self.end { end.len() } else { 0 }
    }

    /// Appends the encoding (docs/design/wire-format.md).
    pub fn encode(&self, w: &mut Writer) {
        match &self.end {
            RangeEnd::Single => w.u8(0),
            RangeEnd::Before(end) => {
                w.u8(1);
                w.bytes(end);
            }
            RangeEnd::Unbounded => w.u8(2),
        }
        w.bytes(&self.start);
    }

    /// Reads one; keys are slices of the reader's buffer.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let end = match r.u8("range end kind")? {
            0 => RangeEnd::Single,
            1 => RangeEnd::Before(r.bytes("range end")?),
            2 => RangeEnd::Unbounded,
            _ => return Err(r.error("range end kind")),
        };
        Ok(Self { start: r.bytes("range start")?, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_its_successor_begins() {
        assert_eq!(KeyRange::prefix("ab").end, RangeEnd::Before("ac".into()));
        assert_eq!(KeyRange::prefix(&b"a\xFF"[..]).end, RangeEnd::Before("b".into()));
        assert_eq!(KeyRange::prefix(&b"\xFF\xFF"[..]).end, RangeEnd::Unbounded);
        assert!(KeyRange::prefix("ab").contains(b"ab\xFF\xFF"));
        assert!(!KeyRange::prefix("ab").contains(b"ac"));
        assert!(KeyRange::all().contains(b""));
    }

    #[test]
    fn ranges_overlap_when_a_key_may_lie_in_both() {
        let before = |start: &'static str, end: &'static str| KeyRange {
            start: start.into(),
            end: RangeEnd::Before(end.into()),
        };
        let unbounded = |start: &'static str| KeyRange { start: start.into(), end: RangeEnd::Unbounded };
        let yes = [
            (KeyRange::single("b"), KeyRange::single("b")),
            (KeyRange::single("b"), before("a", "c")),
            (KeyRange::single("a"), before("a", "c")),
            (before("a", "c"), before("b", "d")),
            (before("a", "z"), before("b", "c")),
            (unbounded("c"), before("a", "d")),
            (unbounded("c"), unbounded("a")),
            (KeyRange::all(), KeyRange::single("")),
        ];
        let no = [
            (KeyRange::single("b"), KeyRange::single("a")),
            (KeyRange::single("c"), before("a", "c")),
            (before("a", "b"), before("b", "c")),
            (unbounded("c"), before("a", "c")),
            (unbounded("c"), KeyRange::single("b")),
            (before("b", "a"), KeyRange::all()),
        ];
        for (a, b) in &yes {
            assert!(a.overlaps(b) && b.overlaps(a), "{a:?} {b:?}");
        }
        for (a, b) in &no {
            assert!(!a.overlaps(b) && !b.overlaps(a), "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_range_is_within_another_when_all_its_keys_are() {
        let before = |start: &'static str, end: &'static str| KeyRange {
            start: start.into(),
            end: RangeEnd::Before(end.into()),
        };
        let from = |start: &'static str| KeyRange { start: start.into(), end: RangeEnd::Unbounded };
        let outer = before("c", "m");
        for inner in
            [KeyRange::single("c"), KeyRange::single("lz"), before("c", "m"), before("d", "e"), before("z", "a")]
        {
            assert!(inner.is_within(&outer), "{inner:?}");
        }
        for other in [KeyRange::single("m"), KeyRange::single("b"), before("b", "d"), before("c", "n"), from("d")] {
            assert!(!other.is_within(&outer), "{other:?}");
        }
        assert!(
            from("d").is_within(&from("c")) && !from("b").is_within(&from("c")) && from("").is_within(&KeyRange::all())
        );
    }

    #[test]
    fn an_inverted_range_is_empty() {
        let range = KeyRange { start: "b".into(), end: RangeEnd::Before("a".into()) };
        assert!(!range.contains(b"a") && !range.contains(b"b"));
    }
}
