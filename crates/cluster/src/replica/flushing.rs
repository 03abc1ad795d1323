//! When the log may forget: what was applied is durable in the store first, and so are the rows of a snapshot that replaces entries.

use super::{Context, Replica};
use quorate_env::LogIndex;
use quorate_storage::wal::LogRecord;

/// Records that must not reach the log before the store is durable: the log is about to forget what a snapshot replaced.
#[derive(Default)]
pub(super) struct Hold {
    pub records: Vec<LogRecord>,
    /// The flush that covers the snapshot's rows, once one was started.
    pub flush: Option<u64>,
}

impl Replica {
    /// Whether a snapshot waits for the store to be flushed, with no flush covering it yet.
    pub fn wants_flush(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.flush.is_none())
    }

    /// A flush was started that covers everything written so far.
    pub fn flush_started(&mut self, ticket: u64) {
        if let Some(hold) = &mut self.hold {
            hold.flush.get_or_insert(ticket);
        }
    }

    /// That flush is durable, and with it what was applied up to `durable`.
    pub fn flushed(&mut self, ticket: u64, durable: LogIndex, cx: &mut Context<'_>) {
        self.moving.learn(durable);
        if self.hold.as_ref().is_some_and(|hold| hold.flush == Some(ticket)) {
            let hold = self.hold.take().expect("checked");
            cx.records.extend(hold.records);
            self.awaiting.iter_mut().for_each(|awaiting| {
                awaiting.ticket.get_or_insert(cx.ticket);
            });
        }
        if self.hold.is_none() {
            let target = self.log_cut(durable, cx);
            if target > self.group.log_start().index {
                self.compact_log(target, cx);
            }
        }
    }

    pub(super) fn compact_log(&mut self, index: LogIndex, cx: &mut Context<'_>) {
        self.group.compact(index);
        let start = self.group.log_start();
        let (shard, index, term) = (self.shard, start.index, start.term);
        cx.records.push(LogRecord::Start { shard, index, term, discard_after: false });
    }
}
