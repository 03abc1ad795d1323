//! What is going to happen in a model: in order of time, and at one time in the order in which it was planned.

use std::collections::BTreeMap;

pub(super) struct Agenda<E> {
    now: u64,
    planned: u64,
    events: BTreeMap<(u64, u64), E>,
}

impl<E> Agenda<E> {
    pub fn beginning_at(now: u64) -> Self {
        Self { now, planned: 0, events: BTreeMap::new() }
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn at(&mut self, time: u64, event: E) {
        self.planned += 1;
        self.events.insert((time, self.planned), event);
    }

    pub fn after(&mut self, wait: u64, event: E) {
        self.at(self.now + wait, event);
    }

    /// The next event before `end`. It is then what the event's time is.
    pub fn next_before(&mut self, end: u64) -> Option<E> {
        let first = self.events.first_entry().filter(|first| first.key().0 < end)?;
        self.now = first.key().0;
        Some(first.remove())
    }
}
