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

    pub(crate) fn encode(&self, w: &mut Writer) {
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

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
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
    fn an_inverted_range_is_empty() {
        let range = KeyRange { start: "b".into(), end: RangeEnd::Before("a".into()) };
        assert!(!range.contains(b"a") && !range.contains(b"b"));
    }
}
