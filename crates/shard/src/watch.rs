//! The live end of watches: who gets which event, and from where a newcomer joins.
//!
//! The hub keeps the latest events in memory. A watch that starts there, or ahead, is *attached*: every later event of its
//! range reaches it as it is applied. One that starts further back must read history through a [`crate::View`] first and then ask
//! again; so a slow or far-behind watch costs a writer and other watches nothing.

use quorate_kv::{Event, EventKind, KeyRange, Revision, WatchSpec};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Names a watch on its node; chosen by the driver.
pub type WatcherKey = u64;

/// Bytes of recent events kept for newcomers and for watchers that fell behind a little: 8 MiB is a second of 256-byte writes at
/// full speed.
const TAIL_BYTES_MAX: usize = 8 << 20;

/// The answer to an attempt to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Attached; these come first, and everything up to the revision has been delivered with them.
    Attached {
        /// Recent events of the range, whole revisions.
        backlog: Vec<Arc<[Event]>>,
    },
    /// It starts before the tail: read history up to the tail's beginning and ask again.
    Behind,
}

#[derive(Debug)]
struct Watcher {
    spec: WatchSpec,
    /// Events below this are not wanted.
    next: Revision,
}

/// All attached watches of a shard on this node.
#[derive(Debug, Default)]
pub struct WatchHub {
    watchers: BTreeMap<WatcherKey, Watcher>,
    by_key: BTreeMap<bytes::Bytes, Vec<WatcherKey>>,
    by_range: Vec<(KeyRange, Vec<WatcherKey>)>,
    tail: VecDeque<(Revision, Arc<[Event]>, usize)>,
    tail_bytes: usize,
    /// Every event at or above this is in the tail.
    tail_from: Revision,
}

fn cost(event: &Event) -> usize {
    128 + event.kv.key.len() + event.kv.value.len() + event.prev.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len())
}

impl WatchHub {
    /// A hub whose tail begins after `revision`.
    #[must_use]
    pub fn new(revision: Revision) -> Self {
        Self { tail_from: Revision(revision.0 + 1), ..Self::default() }
    }

    /// Begins anew after `revision` (a snapshot was installed): all watchers are detached and named.
    pub fn reset(&mut self, revision: Revision) -> Vec<WatcherKey> {
        let keys = self.watchers.keys().copied().collect();
        *self = Self::new(revision);
        keys
    }

    /// Attaches a watch that wants events from `from` on.
    pub fn attach(&mut self, key: WatcherKey, spec: WatchSpec, from: Revision) -> Attach {
        if from < self.tail_from {
            return Attach::Behind;
        }
        self.detach(key);
        let mut backlog = Vec::new();
        for (last, events, _) in &self.tail {
            if *last >= from {
                backlog.extend(select(&spec, from, events, |event| spec.range.contains(&event.kv.key)));
            }
        }
        if spec.range.is_single() {
            self.by_key.entry(spec.range.start.clone()).or_default().push(key);
        } else if let Some((_, keys)) = self.by_range.iter_mut().find(|(range, _)| *range == spec.range) {
            keys.push(key);
        } else {
            self.by_range.push((spec.range.clone(), vec![key]));
        }
        self.watchers.insert(key, Watcher { spec, next: from });
        Attach::Attached { backlog }
    }

    /// Forgets a watch. Returns whether it was attached.
    pub fn detach(&mut self, key: WatcherKey) -> bool {
        let Some(watcher) = self.watchers.remove(&key) else { return false };
        let range = watcher.spec.range;
        if range.is_single() {
            if let Some(keys) = self.by_key.get_mut(&range.start) {
                keys.retain(|k| *k != key);
                if keys.is_empty() {
                    self.by_key.remove(&range.start);
                }
            }
        } else if let Some(at) = self.by_range.iter().position(|(r, _)| *r == range) {
            self.by_range[at].1.retain(|k| *k != key);
            if self.by_range[at].1.is_empty() {
                self.by_range.swap_remove(at);
            }
        }
        true
    }

    /// Whether a watch is attached.
    #[must_use]
    pub fn is_attached(&self, key: WatcherKey) -> bool {
        self.watchers.contains_key(&key)
    }

    /// Watches attached.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Whether no watch is attached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Takes the events of one entry, and says who gets which. Watches of the same range share one list.
    pub fn publish(&mut self, events: Vec<Event>) -> Vec<(WatcherKey, Arc<[Event]>)> {
        let Some(last) = events.last().map(|event| event.kv.mod_revision) else { return Vec::new() };
        let events: Arc<[Event]> = events.into();
        let mut out = Vec::new();
        for (range, keys) in &self.by_range {
            let matching = events.iter().filter(|event| range.contains(&event.kv.key)).count();
            if matching == 0 {
                continue;
            }
            let shared: Arc<[Event]> = if matching == events.len() {
                events.clone()
            } else {
                events.iter().filter(|event| range.contains(&event.kv.key)).cloned().collect()
            };
            for key in keys {
                let watcher = &self.watchers[key];
                out.extend(select(&watcher.spec, watcher.next, &shared, |_| true).map(|events| (*key, events)));
            }
        }
        if !self.by_key.is_empty() {
            let mut touched: Vec<&bytes::Bytes> = events.iter().map(|event| &event.kv.key).collect();
            touched.sort();
            touched.dedup();
            for name in touched {
                for key in self.by_key.get(name).into_iter().flatten() {
                    let watcher = &self.watchers[key];
                    let selected = select(&watcher.spec, watcher.next, &events, |event| event.kv.key == *name);
                    out.extend(selected.map(|events| (*key, events)));
                }
            }
        }
        let bytes = events.iter().map(cost).sum();
        self.tail_bytes += bytes;
        self.tail.push_back((last, events, bytes));
        while self.tail_bytes > TAIL_BYTES_MAX && self.tail.len() > 1 {
            let (last, _, bytes) = self.tail.pop_front().expect("more than one");
            self.tail_bytes -= bytes;
            self.tail_from = Revision(last.0 + 1);
        }
        out
    }
}

/// The events that a watch wants, sharing the list if it wants them all; `None` if it wants none.
fn select(
    spec: &WatchSpec,
    from: Revision,
    events: &Arc<[Event]>,
    in_range: impl Fn(&Event) -> bool,
) -> Option<Arc<[Event]>> {
    let wanted = |event: &Event| {
        let kind = match event.kind {
            EventKind::Put => !spec.no_put,
            EventKind::Delete => !spec.no_delete,
        };
        kind && event.kv.mod_revision >= from && in_range(event)
    };
    match events.iter().filter(|event| wanted(event)).count() {
        0 => None,
        n if n == events.len() => Some(events.clone()),
        _ => Some(events.iter().filter(|event| wanted(event)).cloned().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::{KeyValue, LeaseId};

    /// A put whose value takes a third of the room that there is.
    fn large(revision: u64) -> Event {
        let kv = KeyValue {
            key: "k".into(),
            value: vec![0; TAIL_BYTES_MAX / 3].into(),
            create_revision: Revision(2),
            mod_revision: Revision(revision),
            version: revision - 1,
            lease: LeaseId::NONE,
        };
        Event { kind: EventKind::Put, kv, prev: None }
    }

    fn backlog(hub: &mut WatchHub, from: u64) -> Option<Vec<u64>> {
        let spec = WatchSpec { range: KeyRange::all(), start: None, no_put: false, no_delete: false, prev_kv: false };
        match hub.attach(7, spec, Revision(from)) {
            Attach::Attached { backlog } => {
                Some(backlog.iter().flat_map(|events| events.iter()).map(|event| event.kv.mod_revision.0).collect())
            }
            Attach::Behind => None,
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_read_from_history() {
        let mut hub = WatchHub::new(Revision(1));
        (2..=4).for_each(|revision| assert!(hub.publish(vec![large(revision)]).is_empty()));
        assert_eq!(backlog(&mut hub, 2), None, "the first had to go");
        assert!(!hub.is_attached(7));
        assert_eq!(backlog(&mut hub, 3), Some(vec![3, 4]));
        assert_eq!(backlog(&mut hub, 4), Some(vec![4]));
        assert!(hub.is_attached(7));
        assert_eq!(hub.publish(vec![large(5)]).len(), 1, "attached twice, it is told once");
        (6..=20).for_each(|revision| drop(hub.publish(vec![large(revision)])));
        assert_eq!((backlog(&mut hub, 18), backlog(&mut hub, 19)), (None, Some(vec![19, 20])), "no more than at first");
    }
}
