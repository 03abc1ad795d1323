//! Keys that came from another shard, as long as history reaches back to when it had them.
//!
//! Their versions have the other shard's revisions, of which moments of this one say nothing. But that shard had nothing to tell of the past when it yielded: so of its versions, the
//! one that came is what was there at any moment from then on that history still reaches.

use quorate_env::{DecodeError, Reader, Timestamp, Writer};
use quorate_kv::{KeyRange, RangeEnd, Revision};

/// See the top of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annex {
    /// The keys.
    pub range: KeyRange,
    /// Versions up to this one came from the other shard.
    pub revision: Revision,
    /// Moments before this are forgotten.
    pub since: Timestamp,
}

impl Annex {
    /// What of it lies in a range; `None` if nothing.
    pub(crate) fn within(&self, range: &KeyRange) -> Option<Self> {
        let start = self.range.start.clone().max(range.start.clone());
        let end = match (&self.range.end, &range.end) {
            (RangeEnd::Before(one), RangeEnd::Before(other)) => RangeEnd::Before(one.min(other).clone()),
            (RangeEnd::Before(end), _) | (_, RangeEnd::Before(end)) => RangeEnd::Before(end.clone()),
            _ => RangeEnd::Unbounded,
        };
        let range = KeyRange { start, end };
        (!range.is_empty()).then_some(Self { range, ..*self })
    }

    pub(crate) fn encode_all(annexes: &[Self], w: &mut Writer) {
        w.varint(annexes.len() as u64);
        for Self { range, revision, since } in annexes {
            range.encode(w);
            w.varint(revision.0);
            w.u64(since.0);
        }
    }

    pub(crate) fn decode_all(r: &mut Reader) -> Result<Vec<Self>, DecodeError> {
        let mut annexes = Vec::new();
        for _ in 0..r.count("annexes")? {
            let range = KeyRange::decode(r)?;
            annexes.push(Self { range, revision: Revision(r.varint("revision")?), since: Timestamp(r.u64("since")?) });
        }
        Ok(annexes)
    }
}

/// Up to which revision versions of a key came from another shard.
pub(crate) fn revision_of(annexes: &[Annex], key: &[u8]) -> Revision {
    let annexed = annexes.iter().filter(|annex| annex.range.contains(key));
    annexed.map(|annex| annex.revision).max().unwrap_or_default()
}

/// Since when something is known of all keys of a range.
pub(crate) fn since(annexes: &[Annex], range: &KeyRange) -> Timestamp {
    let touched = annexes.iter().filter(|annex| annex.range.overlaps(range));
    touched.map(|annex| annex.since).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn annex(start: &'static str, end: Option<&'static str>, revision: u64) -> Annex {
        let end = end.map_or(RangeEnd::Unbounded, |end| RangeEnd::Before(end.into()));
        let range = KeyRange { start: Bytes::from(start), end };
        Annex { range, revision: Revision(revision), since: Timestamp(revision * 10) }
    }

    #[test]
    fn an_annex_says_something_of_its_own_keys_alone() {
        let annexes = [annex("d", Some("h"), 9), annex("h", None, 5)];
        let of = |key: &str| revision_of(&annexes, key.as_bytes()).0;
        assert_eq!(["c", "d", "g", "h", "z"].map(of), [0, 9, 9, 5, 5]);
        let since = |start: &'static str, end: &'static str| {
            let range = KeyRange { start: start.into(), end: RangeEnd::Before(end.into()) };
            since(&annexes, &range).0
        };
        assert_eq!([since("a", "d"), since("a", "e"), since("i", "j"), since("g", "i")], [0, 90, 50, 90]);
    }

    #[test]
    fn an_annex_is_cut_with_its_shard() {
        let whole = annex("d", None, 9);
        let range = |start: &'static str, end: &'static str| KeyRange {
            start: start.into(),
            end: RangeEnd::Before(end.into()),
        };
        assert_eq!(whole.within(&range("a", "f")), Some(annex("d", Some("f"), 9)));
        assert_eq!(whole.within(&range("e", "f")), Some(annex("e", Some("f"), 9)));
        assert_eq!(whole.within(&range("a", "d")), None);
        assert_eq!(annex("d", Some("h"), 9).within(&KeyRange::all()), Some(annex("d", Some("h"), 9)));
    }
}
