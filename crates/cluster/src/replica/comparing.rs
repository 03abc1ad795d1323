//! Replicas compare what they have made of the same log: the leader tells the hash of its state from time to time, and a copy that differs stops.

use super::{Context, Replica};
use crate::bounds::{HASH_EXCHANGE, HASHES_KEPT};
use crate::wire::PeerBody;
use quorate_consensus::Role;
use quorate_env::LogIndex;

impl Replica {
    pub(super) fn tick_hashes(&mut self, cx: &mut Context<'_>) {
        if self.group.role() != Role::Leader || cx.now.since(self.hash_sent) < HASH_EXCHANGE {
            return;
        }
        self.hash_sent = cx.now;
        let meta = self.machine.meta();
        let (applied, hash) = (meta.applied, meta.state_hash);
        for replica in self.group.membership().all() {
            if replica != self.id {
                self.send(replica, PeerBody::StateHash { applied, hash }, cx);
            }
        }
    }

    pub(super) fn remember_hash(&mut self, index: LogIndex) {
        let hash = self.machine.meta().state_hash;
        self.hashes.insert(index, hash);
        if self.hashes.len() > HASHES_KEPT {
            self.hashes.pop_first();
        }
        if self.expected_hashes.first_key_value().is_some_and(|(expected, _)| *expected <= index) {
            let later = self.expected_hashes.split_off(&index.next());
            let reached = std::mem::replace(&mut self.expected_hashes, later);
            if let Some(expected) = reached.get(&index) {
                self.judge_hash(index, *expected, hash);
            }
        }
    }

    pub(super) fn compare_hash(&mut self, index: LogIndex, hash: u64) {
        match self.hashes.get(&index).copied() {
            Some(own) => self.judge_hash(index, hash, own),
            None if index > self.machine.meta().applied && self.expected_hashes.len() < 16 => {
                self.expected_hashes.insert(index, hash);
            }
            None => {}
        }
    }

    pub(super) fn judge_hash(&mut self, index: LogIndex, theirs: u64, ours: u64) {
        if theirs != ours {
            self.fatal.get_or_insert(format!(
                "the state at {index} differs from the leader's ({ours:016x}, not {theirs:016x}): this copy is wrong, or the leader's"
            ));
        }
    }
}
