//! What leaders have acknowledged and lost, in keyspaces where a leader's disk is enough (docs/design/consistency.md), as rows of the system keyspace.
//!
//! ```text
//!   losses/<keyspace>   how many answers at most, and when some were last lost
//! ```

use crate::rows::{number_of, numbered, unchanged};
use quorate_env::{DecodeError, Reader, WallMs, Writer};
use quorate_kv::{KeyRange, KeyValue, KeyspaceId, Loss, Op, PutOp, Revision, Txn};
use std::collections::BTreeMap;

const LOSSES: &str = "losses/";

const VERSION: u8 = 1;

/// All of them, as of one revision of the system keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    rows: BTreeMap<KeyspaceId, (Loss, Revision)>,
}

impl Losses {
    /// The keys that make it up.
    #[must_use]
    pub fn ranges() -> [KeyRange; 1] {
        [KeyRange::prefix(LOSSES)]
    }

    /// From what is under [`Losses::ranges`].
    pub fn read(kvs: impl IntoIterator<Item = KeyValue>) -> Result<Self, DecodeError> {
        let row = |kv: KeyValue| {
            let keyspace = KeyspaceId(number_of(LOSSES, &kv.key)?);
            Ok((keyspace, (decode(kv.value)?, kv.mod_revision)))
        };
        Ok(Self { rows: kvs.into_iter().map(row).collect::<Result<_, DecodeError>>()? })
    }

    /// What was lost of one.
    #[must_use]
    pub fn of(&self, keyspace: KeyspaceId) -> Option<Loss> {
        self.rows.get(&keyspace).map(|(loss, _)| *loss)
    }

    /// What to submit to the system keyspace when more was lost. It fails, and must be made again, if somebody else said so in the meantime.
    pub(crate) fn add(&self, keyspace: KeyspaceId, answers: u64, now: WallMs) -> Txn {
        let (before, revision) = self.rows.get(&keyspace).map_or((Loss::default(), None), |(l, at)| (*l, Some(*at)));
        let loss = Loss { answers: before.answers.saturating_add(answers), found: before.found.max(now) };
        let key = numbered(LOSSES, keyspace.0);
        Txn {
            compares: vec![unchanged(key.clone(), revision)],
            success: vec![Op::Put(PutOp::of(key, encode(loss)))],
            failure: Vec::new(),
        }
    }
}

fn encode(loss: Loss) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION);
    w.varint(loss.answers);
    w.varint(loss.found.0);
    w.finish()
}

fn decode(row: bytes::Bytes) -> Result<Loss, DecodeError> {
    let mut r = Reader::new(row);
    if r.u8("loss version")? != VERSION {
        return Err(r.error("loss version"));
    }
    let loss = Loss { answers: r.varint("answers")?, found: WallMs(r.varint("found")?) };
    r.end("loss")?;
    Ok(loss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::LeaseId;

    fn written(txn: &Txn, revision: u64) -> KeyValue {
        let [Op::Put(put)] = &txn.success[..] else { panic!("{txn:?}") };
        let mod_revision = Revision(revision);
        let (create_revision, version, lease) = (mod_revision, 1, LeaseId::NONE);
        KeyValue { key: put.key.clone(), value: put.value.clone(), create_revision, mod_revision, version, lease }
    }

    #[test]
    fn what_was_lost_adds_up_and_nobody_adds_to_what_has_changed() {
        let (one, other) = (KeyspaceId(17), KeyspaceId(18));
        let first = Losses::default().add(one, 3, WallMs(900));
        let losses = Losses::read([written(&first, 5)]).expect("readable");
        assert_eq!(losses.of(one), Some(Loss { answers: 3, found: WallMs(900) }));
        assert_eq!(losses.of(other), None);
        let second = losses.add(one, 4, WallMs(800));
        assert_eq!(second.compares, [unchanged(written(&first, 5).key, Some(Revision(5)))]);
        let losses = Losses::read([written(&second, 6)]).expect("readable");
        assert_eq!(losses.of(one), Some(Loss { answers: 7, found: WallMs(900) }), "the later of two clocks");
        for broken in [&[][..], &[2, 3, 4], &[1, 3], &[1, 3, 4, 5]] {
            assert!(decode(bytes::Bytes::copy_from_slice(broken)).is_err(), "{broken:?}");
        }
    }
}
