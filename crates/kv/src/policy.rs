//! What somebody wants of a keyspace, and may want otherwise later: how far back its history reaches, how fresh reads are that do not say, how much a log
//! keeps, and what writers wait for before they are answered.

use crate::{Freshness, Level};
use quorate_env::{DecodeError, Reader, Writer};
use std::time::Duration;

/// Whose disks a write must be on before its client is told that it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// Those of a majority of the voters.
    #[default]
    Majority,
    /// Those of all voters: while one is away, nobody is told that a write is done.
    All,
    /// That of the leader, and the others follow: if it fails, what it has acknowledged last may be lost.
    Leader,
}

/// See the top of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For so long what was overwritten or deleted can still be read, and watches can begin there; `None` is for ever, or until somebody compacts.
    /// Counted by each shard's own time, which stands still while nothing is written.
    pub history: Option<Duration>,
    /// Of reads that do not say: strict, within, or any.
    pub freshness: Freshness,
    /// Of a log: records older than this are cut off; `None` is never. Counted from when they were appended, by the clock of whoever leads the shard.
    pub retain: Option<Duration>,
    /// Of a log: the oldest records are cut off while there are more than so many bytes of keys and values; `None` is never.
    pub retain_bytes: Option<u64>,
    /// Whose disks a write must be on before it is acknowledged.
    pub replication: Replication,
    /// Whether a write is acknowledged only when its timestamp is surely over on every clock that keeps the bound its operator vouches for.
    pub commit_wait: bool,
}

/// What is to be different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// See [`Policy::history`].
    pub history: Option<Option<Duration>>,
    /// See [`Policy::freshness`].
    pub freshness: Option<Freshness>,
    /// See [`Policy::retain`].
    pub retain: Option<Option<Duration>>,
    /// See [`Policy::retain_bytes`].
    pub retain_bytes: Option<Option<u64>>,
    /// See [`Policy::replication`].
    pub replication: Option<Replication>,
    /// See [`Policy::commit_wait`].
    pub commit_wait: Option<bool>,
}

/// Of a keyspace of which nothing is said that only a log has, so that the release before can read it.
const KEYS: u8 = 1;
/// Of a log that does not keep everything.
const LOG: u8 = 2;
/// Of a keyspace whose writers wait for more than a majority.
const MORE: u8 = 3;
/// Of one whose writers wait for less.
const VERSION: u8 = 4;

const MAJORITY: u8 = 0;
const ALL: u8 = 1;
const LEADER: u8 = 2;

impl Policy {
    /// Of keyspaces that somebody makes: some time for readers of old moments and for watches that were away, and no more than a disk holds of an
    /// hour's writes.
    pub const OF_MADE: Self = Self { history: Some(Duration::from_secs(60 * 60)), ..Self::OF_DEFAULT };

    /// Of the default keyspace: as in etcd, clients compact it.
    pub const OF_DEFAULT: Self = Self {
        history: None,
        freshness: Freshness::Strict,
        retain: None,
        retain_bytes: None,
        replication: Replication::Majority,
        commit_wait: false,
    };

    /// What it is after a change.
    #[must_use]
    pub fn with(self, change: PolicyChange) -> Self {
        Self {
            history: change.history.unwrap_or(self.history),
            freshness: change.freshness.unwrap_or(self.freshness),
            retain: change.retain.unwrap_or(self.retain),
            retain_bytes: change.retain_bytes.unwrap_or(self.retain_bytes),
            replication: change.replication.unwrap_or(self.replication),
            commit_wait: change.commit_wait.unwrap_or(self.commit_wait),
        }
    }

    /// Whether records are cut off by themselves.
    #[must_use]
    pub fn retains(&self) -> bool {
        self.retain.is_some() || self.retain_bytes.is_some()
    }

    /// The lowest level at which its encoding may be in a log.
    #[must_use]
    pub fn level_of(row: &[u8]) -> Level {
        match row.first() {
            Some(&KEYS) => Level::FIRST,
            Some(&LOG) => Level::LOGS,
            Some(&MORE) => Level::REPLICATION,
            _ => Level::EARLY,
        }
    }

    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let waits = self.replication != Replication::Majority || self.commit_wait;
        w.u8(match (self.replication, waits, self.retains()) {
            (Replication::Leader, ..) => VERSION,
            (_, true, _) => MORE,
            (_, false, true) => LOG,
            (_, false, false) => KEYS,
        });
        w.varint(self.history.map_or(0, ms));
        self.freshness.encode(&mut w);
        if waits || self.retains() {
            w.varint(self.retain.map_or(0, ms));
            w.varint(self.retain_bytes.unwrap_or(0));
        }
        if waits {
            w.u8(match self.replication {
                Replication::Majority => MAJORITY,
                Replication::All => ALL,
                Replication::Leader => LEADER,
            });
            w.bool(self.commit_wait);
        }
        w.finish()
    }

    /// Reads one.
    ///
    /// # Errors
    /// If it is not readable.
    pub fn decode(row: bytes::Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(row);
        let version = r.u8("policy version")?;
        if version == 0 || version > VERSION {
            return Err(r.error("policy version"));
        }
        let history = Some(r.varint("history")?).filter(|ms| *ms > 0).map(Duration::from_millis);
        let mut policy = Self { history, freshness: Freshness::decode(&mut r)?, ..Self::OF_DEFAULT };
        if version > KEYS {
            policy.retain = Some(r.varint("retained time")?).filter(|ms| *ms > 0).map(Duration::from_millis);
            policy.retain_bytes = Some(r.varint("retained bytes")?).filter(|bytes| *bytes > 0);
        }
        if version > LOG {
            policy.replication = match r.u8("replication")? {
                MAJORITY => Replication::Majority,
                ALL => Replication::All,
                LEADER if version == VERSION => Replication::Leader,
                _ => return Err(r.error("replication")),
            };
            policy.commit_wait = r.bool("commit wait")?;
        }
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
        let short = PolicyChange { retain: Some(Some(Duration::from_secs(9))), ..PolicyChange::default() };
        let small = PolicyChange { retain_bytes: Some(Some(1 << 30)), ..PolicyChange::default() };
        let ledger = PolicyChange { replication: Some(Replication::All), ..PolicyChange::default() };
        let orders = PolicyChange { commit_wait: Some(true), ..PolicyChange::default() };
        let clicks = PolicyChange { replication: Some(Replication::Leader), ..PolicyChange::default() };
        let changes = [dashboard, audit, short, small, ledger, orders, clicks];
        let changed = changes.map(|change| Policy::OF_MADE.with(change));
        assert_eq!(changed.map(|policy| Policy::level_of(&policy.encode()).0), [1, 1, 8, 8, 9, 9, 11]);
        let both = changed[2].with(orders);
        for policy in [Policy::OF_MADE, Policy::OF_DEFAULT, both].into_iter().chain(changed) {
            assert_eq!(Policy::decode(policy.encode().into()), Ok(policy));
        }
        assert!(Policy::decode(vec![5, 0, 0].into()).is_err());
        assert!(Policy::decode(vec![2, 0, 0].into()).is_err());
        assert!(Policy::decode(vec![3, 0, 0, 0, 0, 2, 0].into()).is_err());
        assert!(Policy::decode(vec![1, 0, 0, 0].into()).is_err());
    }

    #[test]
    fn what_older_releases_can_read_they_are_given_and_nothing_else() {
        let all = Policy { replication: Replication::All, ..Policy::OF_MADE };
        assert_eq!(Policy::OF_MADE.encode(), [1, 0x80, 0xdd, 0xdb, 0x01, 0], "as ever");
        assert_eq!(all.encode(), [3, 0x80, 0xdd, 0xdb, 0x01, 0, 0, 0, 1, 0], "a log's words, too");
        assert_eq!(Policy::level_of(&Policy::OF_MADE.encode()), Level::FIRST);
        assert_eq!(Policy::level_of(&all.encode()), Level::REPLICATION);
    }

    #[test]
    fn a_change_leaves_alone_what_it_does_not_name() {
        let change = PolicyChange { freshness: Some(Freshness::Any), ..PolicyChange::default() };
        let changed = Policy::OF_MADE.with(change);
        assert_eq!((changed.history, changed.freshness), (Policy::OF_MADE.history, Freshness::Any));
        assert_eq!(changed.with(PolicyChange { history: Some(None), ..PolicyChange::default() }).history, None);
    }
}
