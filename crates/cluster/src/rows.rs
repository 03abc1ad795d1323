//! What the rows of the system keyspace have in common, whatever they are about.

use bytes::Bytes;
use quorate_env::{DecodeError, NodeId, Reader};
use quorate_kv::{Compare, CompareOp, Expected, KeyRange, Revision};

/// Holds as long as nobody has written a row in these ranges after they were read at `revision`.
pub(crate) fn unchanged_since(revision: Revision, ranges: impl IntoIterator<Item = KeyRange>) -> Vec<Compare> {
    let expected = Expected::Mod(revision.0 as i64 + 1);
    let compare = |range| Compare { range, op: CompareOp::Less, expected: expected.clone() };
    ranges.into_iter().map(compare).collect()
}

/// Holds as long as a row is as it was when it was read at `revision`; `None` if it was not there.
pub(crate) fn unchanged(key: Bytes, revision: Option<Revision>) -> Compare {
    let expected = Expected::Mod(revision.map_or(0, |revision| revision.0 as i64));
    Compare { range: KeyRange::single(key), op: CompareOp::Equal, expected }
}

/// The key of a row about a member.
pub(crate) fn key_of(prefix: &str, id: NodeId) -> Bytes {
    numbered(prefix, id.0)
}

/// The key of a row about whatever has this number.
pub(crate) fn numbered(prefix: &str, number: u64) -> Bytes {
    format!("{prefix}{number:016x}").into()
}

/// The member that a row is about.
pub(crate) fn member_of(prefix: &str, key: &Bytes) -> Result<NodeId, DecodeError> {
    number_of(prefix, key).map(NodeId)
}

/// The number of what a row is about.
pub(crate) fn number_of(prefix: &str, key: &Bytes) -> Result<u64, DecodeError> {
    let digits = key.strip_prefix(prefix.as_bytes()).and_then(|digits| std::str::from_utf8(digits).ok());
    let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.ok_or_else(|| Reader::new(key.clone()).error("a numbered row's key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_from_its_key_and_from_no_other() {
        let key = key_of("levels/", NodeId(0xab));
        assert_eq!(member_of("levels/", &key), Ok(NodeId(0xab)));
        for other in ["level", "levels/", "levels/xyz", "removed/00000000000000ab"] {
            assert!(member_of("levels/", &Bytes::from_static(other.as_bytes())).is_err(), "{other}");
        }
    }
}
