//! What a running transaction has read and means to write, as data: nothing here asks anybody.
//!
//! Each key is read once and stays as it was read, unless the transaction writes it: then it sees that. What it read
//! must still be so when it commits, and what it found missing must still be missing.

use crate::{Check, KeyValue, Op, Record, Transaction, Write};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A key of a keyspace.
pub(crate) type At = (String, Bytes);

#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// What was read: value and revision, or that nothing was there.
    reads: BTreeMap<At, Option<(Bytes, u64)>>,
    /// What is to be written: a value, or that the key goes.
    writes: BTreeMap<At, Option<Bytes>>,
    /// What is to be appended to each log, in order.
    appends: BTreeMap<String, Vec<Record>>,
    /// Those of the reads that are reserved, and since when: nobody changes them.
    pub held: BTreeMap<At, u64>,
    /// What was reserved is lost, or could not be: the closure is run again, whatever it says.
    pub lost: Option<String>,
    /// A read failed, so what the closure says of it is no wonder.
    pub failed: bool,
}

impl Buffer {
    /// What is known of a key without asking: the own write, or what was read before.
    pub fn known(&self, at: &At) -> Option<Option<Bytes>> {
        let read = || self.reads.get(at).map(|read| read.as_ref().map(|(value, _)| value.clone()));
        self.writes.get(at).cloned().or_else(read)
    }

    /// Remembers what was read, unless that was read meanwhile; returns what is known now.
    pub fn remember(&mut self, at: At, found: Option<KeyValue>) -> Option<Bytes> {
        if let Entry::Vacant(entry) = self.reads.entry(at.clone()) {
            entry.insert(found.map(|kv| (kv.value.0, kv.mod_revision)));
        }
        self.known(&at).flatten()
    }

    /// Remembers what was read when it was reserved; returns what is known now, or nothing if it is not what was read
    /// before.
    pub fn reserve(&mut self, at: &At, found: Option<KeyValue>, since: u64) -> Option<Option<Bytes>> {
        let found = found.map(|kv| (kv.value.0, kv.mod_revision));
        let revision = |read: &Option<(Bytes, u64)>| read.as_ref().map(|(_, revision)| *revision);
        if self.reads.get(at).is_some_and(|before| revision(before) != revision(&found)) {
            return None;
        }
        self.reads.insert(at.clone(), found);
        self.held.insert(at.clone(), since);
        self.known(at)
    }

    /// Means to write a value, or that a key goes. The last word on a key counts.
    pub fn write(&mut self, at: At, value: Option<Bytes>) {
        self.writes.insert(at, value);
    }

    /// Means to append a record to a log, behind those before it.
    pub fn append(&mut self, log: &str, record: Record) {
        self.appends.entry(log.into()).or_default().push(record);
    }

    /// The keys that were read, for people.
    pub fn keys_read(&self) -> Vec<String> {
        self.reads.keys().map(|(keyspace, key)| format!("{keyspace}/{}", String::from_utf8_lossy(key))).collect()
    }

    /// That all that was read is so, at one moment; none if that is known: a single read is as of one moment.
    pub fn validation(&self) -> Option<Transaction> {
        (self.reads.len() > 1).then(|| self.checks())
    }

    /// All that was read is still so, and all is written; none if there is nothing to do.
    pub fn commit(&self) -> Option<Transaction> {
        if self.writes.is_empty() && self.appends.is_empty() {
            return self.validation();
        }
        let said = |transaction: Transaction, ((keyspace, key), value): (&At, &Option<Bytes>)| {
            let write = match value {
                Some(value) => Write::put(key, value.clone()),
                None => Write::delete(key),
            };
            transaction.write(keyspace, &write)
        };
        let written = self.writes.iter().fold(self.checks(), said);
        let appended = |transaction: Transaction, (log, records): (&String, &Vec<Record>)| {
            transaction.write(log, &Write::Append(records.clone()))
        };
        Some(self.appends.iter().fold(written, appended))
    }

    fn checks(&self) -> Transaction {
        let compared = self.reads.iter().filter(|(at, _)| !self.held.contains_key(*at));
        compared.fold(Transaction::new(), |transaction, ((keyspace, key), read)| {
            let check = match read {
                Some((_, revision)) => Check::ModRevision(Op::Equal, *revision),
                None => Check::Exists(false),
            };
            transaction.check(keyspace, key, &check)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(key: &'static str) -> At {
        ("bank".into(), key.into())
    }

    fn kv(value: &str, mod_revision: u64) -> Option<KeyValue> {
        Some(KeyValue { key: "k".into(), value: value.into(), version: 1, create_revision: 2, mod_revision })
    }

    #[test]
    fn what_was_read_stays_and_what_was_written_is_seen() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.known(&at("a")), None);
        assert_eq!(buffer.remember(at("a"), kv("1", 7)), Some("1".into()));
        // Read twice at once: the first answer counts.
        assert_eq!(buffer.remember(at("a"), kv("2", 8)), Some("1".into()));
        assert_eq!(buffer.known(&at("a")), Some(Some("1".into())));
        assert_eq!(buffer.remember(at("b"), None), None);
        assert_eq!(buffer.known(&at("b")), Some(None), "that nothing is there is known, too");
        buffer.write(at("a"), Some("3".into()));
        buffer.write(at("c"), Some("4".into()));
        buffer.write(at("b"), None);
        assert_eq!(buffer.known(&at("a")), Some(Some("3".into())));
        assert_eq!(buffer.known(&at("b")), Some(None));
        assert_eq!(buffer.known(&at("c")), Some(Some("4".into())));
        // Read while it was being written: the own write counts.
        assert_eq!(buffer.remember(at("c"), kv("0", 9)), Some("4".into()));
    }

    #[test]
    fn a_commit_checks_all_that_was_read_and_writes_the_last_word() {
        let mut buffer = Buffer::default();
        buffer.remember(at("a"), kv("1", 7));
        buffer.remember(at("b"), None);
        buffer.write(at("a"), Some("2".into()));
        buffer.write(at("a"), Some("3".into()));
        buffer.write(at("c"), None);
        let expected = Transaction::new()
            .check("bank", "a", &Check::ModRevision(Op::Equal, 7))
            .check("bank", "b", &Check::Exists(false))
            .write("bank", &Write::put("a", "3"))
            .write("bank", &Write::delete("c"));
        assert_eq!(buffer.commit(), Some(expected));
        assert_eq!(buffer.keys_read(), ["bank/a", "bank/b"]);
    }

    #[test]
    fn what_is_appended_stays_in_its_order_and_is_written_with_the_rest() {
        let mut buffer = Buffer::default();
        buffer.append("feed", Record::of("k", "1"));
        buffer.append("audit", Record::of("", "2"));
        buffer.append("feed", Record::of("k", "3"));
        buffer.remember(at("a"), None);
        let expected = Transaction::new()
            .check("bank", "a", &Check::Exists(false))
            .write("audit", &Write::Append(vec![Record::of("", "2")]))
            .write("feed", &Write::Append(vec![Record::of("k", "1"), Record::of("k", "3")]));
        assert_eq!(buffer.commit(), Some(expected));
    }

    #[test]
    fn what_is_reserved_is_not_compared_unless_it_is_not_what_was_read() {
        let mut buffer = Buffer::default();
        buffer.remember(at("a"), kv("1", 7));
        buffer.remember(at("b"), kv("1", 7));
        assert_eq!(buffer.reserve(&at("a"), kv("1", 7), 30), Some(Some("1".into())));
        assert_eq!(buffer.reserve(&at("b"), kv("2", 8), 31), None, "somebody has changed it");
        assert_eq!(buffer.reserve(&at("c"), None, 32), Some(None));
        buffer.write(at("a"), Some("2".into()));
        assert_eq!(buffer.reserve(&at("a"), kv("1", 7), 30), Some(Some("2".into())), "the own write is seen");
        let expected = Transaction::new()
            .check("bank", "b", &Check::ModRevision(Op::Equal, 7))
            .write("bank", &Write::put("a", "2"));
        assert_eq!(buffer.commit(), Some(expected));
        assert_eq!(buffer.held.into_iter().collect::<Vec<_>>(), [(at("a"), 30), (at("c"), 32)]);
    }

    #[test]
    fn what_only_reads_is_checked_when_it_read_at_two_moments() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.commit(), None);
        buffer.remember(at("a"), kv("1", 7));
        assert_eq!((buffer.commit(), buffer.validation()), (None, None));
        buffer.remember(at("b"), kv("1", 3));
        let expected = Transaction::new().check("bank", "a", &Check::ModRevision(Op::Equal, 7)).check(
            "bank",
            "b",
            &Check::ModRevision(Op::Equal, 3),
        );
        assert_eq!((buffer.commit(), buffer.validation()), (Some(expected.clone()), Some(expected)));
        let mut blind = Buffer::default();
        blind.write(at("a"), None);
        assert_eq!(blind.commit(), Some(Transaction::new().write("bank", &Write::delete("a"))));
        assert_eq!(blind.validation(), None);
    }
}
