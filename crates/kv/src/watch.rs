//! Watches: the tail of a keyspace's events.
//!
//! A session carries many watches and delivers their notices in one order. For each watch: every event of its range, from its
//! start revision on, exactly once, by ascending revision, all events of one revision in one notice; a
//! [`WatchNotice::Progress`] at revision R comes after every event at or below R. When a watch cannot be continued it says
//! so and from where (`Compacted`), and never skips.

use crate::{BoxFuture, KeyRange, KeyValue, Revision};
use std::sync::Arc;

/// Names a watch within its session; chosen by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub i64);

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was removed; the event's `kv` has only the key and the revision of the removal.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after the change.
    pub kv: KeyValue,
    /// The key before the change. Always present on live events of keys that existed; on events read back from history only
    /// if the watch asked for it.
    pub prev: Option<KeyValue>,
}

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSpec {
    /// The keys.
    pub range: KeyRange,
    /// The first revision wanted; `None` is the next one. May lie in the future.
    pub start: Option<Revision>,
    /// Leave writes out.
    pub no_put: bool,
    /// Leave removals out.
    pub no_delete: bool,
    /// Fill in [`Event::prev`].
    pub prev_kv: bool,
}

/// What a watch session delivers. `revision` is always where the keyspace stood when the notice was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchNotice {
    /// The watch stands; no event of it came before this.
    Created {
        /// Which.
        id: WatchId,
        /// The keyspace's revision.
        revision: Revision,
    },
    /// Whole revisions of events, ascending.
    Events {
        /// Which.
        id: WatchId,
        /// The keyspace's revision; at least that of the last event.
        revision: Revision,
        /// At least one.
        events: Arc<[Event]>,
    },
    /// Everything at or below `revision` has been delivered to this watch.
    Progress {
        /// Which.
        id: WatchId,
        /// The mark.
        revision: Revision,
    },
    /// The watch needed revisions that are compacted, and has ended.
    Compacted {
        /// Which.
        id: WatchId,
        /// The keyspace's revision.
        revision: Revision,
        /// Start at this or later.
        compacted: Revision,
    },
    /// The node can serve no watch any more (stopping, replica removed). All watches of the session have ended.
    Closed,
}

/// Opens and closes watches of one session. Answers come through the matching [`WatchEvents`].
pub trait WatchControl: Send + Sync {
    /// Starts a watch; answered by `Created` or `Compacted`. An id in use is the caller's mistake and replaces the watch.
    fn open(&self, id: WatchId, spec: WatchSpec);
    /// Ends a watch. Notices already on their way may still arrive.
    fn close(&self, id: WatchId);
    /// Asks for one `Progress` per named watch. A watch still reading history answers when it has caught up.
    fn progress(&self, id: WatchId);
}

/// The notices of one session.
pub trait WatchEvents: Send {
    /// The next notice. Dropping the future loses nothing. After `Closed` it never completes again.
    fn next(&mut self) -> BoxFuture<'_, WatchNotice>;
}
