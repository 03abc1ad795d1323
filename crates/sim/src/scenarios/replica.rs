//! One of Quorate's own replicas, driven by hand: its disk is done at once, and whoever holds it carries its messages.

use quorate_consensus::{Config, Entry, Group, Membership, Message, Ready, Restored, SnapshotPoint};
use quorate_env::{ReplicaId, Term};

/// Of the engine; what each replica adds to it is its own affair (`consensus::patience`).
const ELECTION_TICKS: u32 = 10;
const HEARTBEAT_TICKS: u32 = 2;

pub(super) struct Replica {
    pub group: Group,
    place: usize,
    disk: Restored,
}

/// The replica at a place, counted from 0.
fn id(place: usize) -> ReplicaId {
    ReplicaId(place as u64 + 1)
}

/// Where a replica stands.
pub(super) fn place(replica: ReplicaId) -> usize {
    replica.0 as usize - 1
}

fn restored(place: usize, disk: &Restored) -> Group {
    let config = Config {
        replica: id(place),
        turn: 0,
        election_ticks: ELECTION_TICKS,
        heartbeat_ticks: HEARTBEAT_TICKS,
        append_bytes_max: 1 << 20,
        inflight_max: 64,
        committed_bytes_max: 64 << 10,
        uncommitted_bytes_max: 1 << 20,
    };
    Group::new(&config, disk)
}

impl Replica {
    /// One of so many, with an empty disk.
    pub fn new(place: usize, replicas: usize) -> Self {
        let disk = Restored { membership: Membership::of_voters((0..replicas).map(id)), ..Restored::default() };
        Self { group: restored(place, &disk), place, disk }
    }

    /// Dies and comes back with what its disk holds. What it had applied is not on it: it applies its log from the beginning.
    pub fn restart(&mut self) {
        self.group = restored(self.place, &self.disk);
    }

    /// Whom it voted for is no longer on its disk.
    pub fn lose_vote(&mut self) {
        self.disk.hard_state.vote = ReplicaId(0);
    }

    /// The first command in its log, and the term in which it was proposed.
    pub fn first_command(&self) -> Option<(Term, &[u8])> {
        let first = self.disk.entries.iter().find(|entry| !entry.data.is_empty())?;
        Some((first.term, &first.data))
    }

    /// Does what it has to do. Returns what it says and what it applies.
    pub fn settle(&mut self) -> (Vec<Message>, Vec<Entry>) {
        let (mut said, mut applied) = (Vec::new(), Vec::new());
        while let Some(ready) = self.group.ready() {
            self.write(&ready);
            if let Some(last) = ready.committed.last() {
                self.group.applied(SnapshotPoint { index: last.index, term: last.term });
            }
            self.group.persisted(ready.number);
            said.extend(ready.messages);
            said.extend(ready.messages_after_persist);
            applied.extend(ready.committed);
        }
        (said, applied)
    }

    fn write(&mut self, ready: &Ready) {
        if let Some(now) = ready.hard_state {
            self.disk.hard_state = now;
        }
        if let Some(first) = ready.entries.first() {
            self.disk.entries.retain(|entry| entry.index < first.index);
            self.disk.entries.extend(ready.entries.iter().cloned());
        }
    }
}
