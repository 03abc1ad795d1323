//! What somebody wants of a keyspace, and may want otherwise later: how far back its history reaches, and how fresh reads are that do not say.

use crate::Freshness;
use quorate_env::{DecodeError, Reader, Writer};
use std::time::Duration;

/// See the top of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For so long what was overwritten or deleted can still be read, and watches can begin there; `None` is for ever, or until somebody compacts.
    /// Counted by each shard's own time, which stands still while nothing is written.
    pub history: Option<Duration>,
    /// Of reads that do not say: strict, within, or any.
    pub freshness: Freshness,
}

/// What is to be different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// See [`Policy::history`].
    pub history: Option<Option<Duration>>,
    /// See [`Policy::freshness`].
    pub freshness: Option<Freshness>,
}

/// Of the first encoding.
const VERSION: u8 = 1;

impl Policy {
    /// Of keyspaces that somebody makes: some time for readers of old moments and for watches that were away, and no more than a disk holds of an
    /// hour's writes.
    pub const OF_MADE: Self = Self { history: Some(Duration::from_secs(60 * 60)), freshness: Freshness::Strict };

    /// Of the default keyspace: as in etcd, clients compact it.
    pub const OF_DEFAULT: Self = Self { history: None, freshness: Freshness::Strict };

    /// What it is after a change.
    #[must_use]
    pub fn with(self, change: PolicyChange) -> Self {
        Self { history: change.history.unwrap_or(self.history), freshness: change.freshness.unwrap_or(self.freshness) }
    }

    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION);
        w.varint(self.history.map_or(0, |history| u64::try_from(history.as_millis()).unwrap_or(u64::MAX)));
        self.freshness.encode(&mut w);
        w.finish()
    }

    /// Reads one.
    ///
    /// # Errors
    /// If it is not readable.
    pub fn decode(row: bytes::Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(row);
        if r.u8("policy version")? != VERSION {
            return Err(r.error("policy version"));
        }
        let history = Some(r.varint("history")?).filter(|ms| *ms > 0).map(Duration::from_millis);
        let policy = Self { history, freshness: Freshness::decode(&mut r)? };
        r.end("policy")?;
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let dashboard = PolicyChange { freshness: Some(Freshness::Any), ..PolicyChange::default() };
        let audit = PolicyChange { history: Some(None), ..PolicyChange::default() };
        for policy in
            [Policy::OF_MADE, Policy::OF_DEFAULT, Policy::OF_MADE.with(dashboard), Policy::OF_MADE.with(audit)]
        {
            assert_eq!(Policy::decode(policy.encode().into()), Ok(policy));
        }
        assert!(Policy::decode(vec![2, 0, 0].into()).is_err());
        assert!(Policy::decode(vec![1, 0, 0, 0].into()).is_err());
    }

    #[test]
    fn a_change_leaves_alone_what_it_does_not_name() {
        let change = PolicyChange { freshness: Some(Freshness::Any), ..PolicyChange::default() };
        let changed = Policy::OF_MADE.with(change);
        assert_eq!((changed.history, changed.freshness), (Policy::OF_MADE.history, Freshness::Any));
        assert_eq!(changed.with(PolicyChange { history: Some(None), ..PolicyChange::default() }).history, None);
    }
}
