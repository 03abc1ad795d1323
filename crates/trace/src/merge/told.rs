//! What one life tells, in the order of its own clock.

use crate::{Lane, Life, LifeHead, Record, TraceEvent};
use std::collections::BTreeMap;

/// A running process is not silent for longer, in microseconds: heartbeats alone come more often.
const SILENCE_US: i64 = 2_000_000;

/// A life, as it can be told.
pub(super) struct Told {
    pub head: LifeHead,
    /// Counted from 1 on each node.
    pub life: u64,
    pub records: Vec<Record>,
    /// When its times were 0, in microseconds, once the clocks agree.
    pub zero: i64,
    /// Questions without an answer, when it ends.
    open: BTreeMap<Lane, u64>,
    /// Whether the process went on when its record ended.
    pub outlives_record: bool,
}

impl Told {
    pub fn of(life: Life, number: u64, halves: &mut u64) -> Self {
        let Life { head, mut records, record_ends, .. } = life;
        // Threads write side by side; those of one thread are in order.
        records.sort_by_key(|record| record.at);
        let mut told = Self {
            life: number,
            records: vec![Record { at: 0, event: TraceEvent::Start { node: head.lane(), life: number } }],
            zero: 0,
            open: BTreeMap::new(),
            outlives_record: record_ends.is_some(),
            head,
        };
        let (mut syncing, mut flushing): (Option<u64>, Option<u64>) = (None, None);
        for record in records {
            let node = told.head.lane();
            let fits = match &record.event {
                TraceEvent::SyncBegin { ticket, .. } => {
                    // A log is synced once at a time: the one before had ended.
                    let before = syncing.replace(*ticket);
                    told.push(record.at, before.map(|ticket| TraceEvent::SyncEnd { node, ticket }));
                    true
                }
                TraceEvent::FlushBegin { ticket, .. } => {
                    let before = flushing.replace(*ticket);
                    told.push(record.at, before.map(|ticket| TraceEvent::FlushEnd { node, ticket }));
                    true
                }
                TraceEvent::SyncEnd { ticket, .. } => syncing.take_if(|begun| *begun == *ticket).is_some(),
                TraceEvent::FlushEnd { ticket, .. } => flushing.take_if(|begun| *begun == *ticket).is_some(),
                TraceEvent::Ask { client, operation, .. } => {
                    let (client, before) = (*client, told.open.insert(*client, *operation));
                    told.push(record.at, before.map(|operation| TraceEvent::GiveUp { client, operation }));
                    true
                }
                TraceEvent::Answer { client, operation, .. } | TraceEvent::GiveUp { client, operation } => {
                    let asked = told.open.get(client) == Some(operation);
                    if asked {
                        told.open.remove(client);
                    }
                    asked
                }
                _ => true,
            };
            if fits {
                told.records.push(record);
            } else {
                *halves += 1;
            }
        }
        told
    }

    fn push(&mut self, at: u64, event: Option<TraceEvent>) {
        self.records.extend(event.map(|event| Record { at, event }));
    }

    fn last(&self) -> u64 {
        self.records.last().map_or(0, |record| record.at)
    }

    /// When it begins, and the last that is known of it.
    pub fn span(&self) -> (i64, i64) {
        (self.zero, self.zero + self.last() as i64)
    }

    /// Whether its end is known.
    pub fn has_ended(&self) -> bool {
        matches!(self.records.last(), Some(Record { event: TraceEvent::Crash { .. }, .. }))
    }

    fn end(&mut self, cause: &str) {
        let (at, node) = (self.last(), self.head.lane());
        let told = self.has_ended().then(|| self.records.pop()).flatten();
        for (client, operation) in std::mem::take(&mut self.open) {
            self.push(at, Some(TraceEvent::GiveUp { client, operation }));
        }
        let crash = Record { at, event: TraceEvent::Crash { node, cause: cause.into() } };
        self.records.push(told.unwrap_or(crash));
    }
}

/// Ends the lives that have ended: whoever was told to stop, has lived again, or was silent while others were not. All have their place in time.
pub(super) fn end(told: &mut [Told]) {
    let end = told.iter().map(|life| life.span().1).max().unwrap_or(0);
    for at in 0..told.len() {
        let again = told.get(at + 1).is_some_and(|next| next.head.node == told[at].head.node);
        let life = &mut told[at];
        let silent = !life.outlives_record && life.span().1 + SILENCE_US < end;
        if again || silent || life.has_ended() {
            life.end("its record ends here");
        }
    }
}
