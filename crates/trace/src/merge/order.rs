//! One order of all events: each node's own, and nothing arrives before it was sent.
//!
//! Times are those of the clocks as they were made to agree. Where an arrival would still be too early, it is later, and with it what follows on its
//! node as far as it must: the picture's time is never against what causes what.

use super::Omitted;
use super::lanes::Lanes;
use super::ties::Fate;
use super::told::Told;
use crate::{MessageId, Record, TraceEvent};
use std::collections::{BTreeMap, VecDeque};

/// What happens next on a node.
struct Next {
    /// As its own clock says, made to agree.
    time: i64,
    /// Which of all lives.
    life: usize,
    event: TraceEvent,
}

/// One node's events, life after life.
struct Sequence {
    node: u64,
    next: VecDeque<Next>,
    /// When the last of them was.
    latest: i64,
}

struct Weaver<'a> {
    fates: &'a BTreeMap<MessageId, Fate>,
    lanes: &'a Lanes,
    zero: i64,
    records: Vec<Record>,
    /// New numbers of messages, and when they were sent.
    sent: BTreeMap<MessageId, (MessageId, i64)>,
    operations: BTreeMap<(usize, u64), u64>,
}

/// Puts the lives together. All have their place in time.
pub(super) fn weave(
    told: Vec<Told>,
    fates: &BTreeMap<MessageId, Fate>,
    lanes: &Lanes,
    omitted: &mut Omitted,
) -> Vec<Record> {
    let zero = told.iter().map(|life| life.zero).min().unwrap_or(0);
    let mut weaver =
        Weaver { fates, lanes, zero, records: Vec::new(), sent: BTreeMap::new(), operations: BTreeMap::new() };
    let mut sequences = sequences(told, fates);
    loop {
        let ready = sequences.iter().enumerate().filter_map(|(at, sequence)| Some((weaver.ready(sequence)?, at)));
        if let Some((time, at)) = ready.min() {
            let next = sequences[at].next.pop_front().expect("it is ready");
            sequences[at].latest = time;
            weaver.tell(time, sequences[at].node, next);
            continue;
        }
        // Only what waits for a sending that waits for it is left: clocks that ran backwards can record that.
        let waits = |(at, sequence): (usize, &Sequence)| Some((sequence.next.front()?.time, at));
        let Some((_, at)) = sequences.iter().enumerate().filter_map(waits).min() else { break };
        sequences[at].next.pop_front();
        omitted.unsent += 1;
    }
    weaver.records
}

fn sequences(told: Vec<Told>, fates: &BTreeMap<MessageId, Fate>) -> Vec<Sequence> {
    let mut sequences: Vec<Sequence> = Vec::new();
    for (life, told) in told.into_iter().enumerate() {
        let node = told.head.node;
        if sequences.last().is_none_or(|sequence| sequence.node != node) {
            sequences.push(Sequence { node, next: VecDeque::new(), latest: i64::MIN });
        }
        let shown = |event: &TraceEvent| match event {
            TraceEvent::Send { message, .. } => fates.get(message) != Some(&Fate::LeftOut),
            TraceEvent::Deliver { message } => fates.get(message) == Some(&Fate::Arrives),
            _ => true,
        };
        let events = told.records.into_iter().filter(|record| shown(&record.event));
        let events = events.map(|Record { at, event }| Next { time: told.zero + at as i64, life, event });
        sequences.last_mut().expect("just pushed").next.extend(events);
    }
    sequences
}

impl Weaver<'_> {
    /// When the next event of a sequence can be, if nothing that it waits for is still to come.
    fn ready(&self, sequence: &Sequence) -> Option<i64> {
        let next = sequence.next.front()?;
        let time = next.time.max(sequence.latest);
        match next.event {
            TraceEvent::Deliver { message } => self.sent.get(&message).map(|(_, sent)| time.max(sent + 1)),
            _ => Some(time),
        }
    }

    fn tell(&mut self, time: i64, node: u64, next: Next) {
        let at = (time - self.zero) as u64;
        let Next { mut event, life, .. } = next;
        event.lanes_mut().into_iter().for_each(|lane| *lane = self.lanes.rename(*lane, node));
        let mut lost = None;
        match &mut event {
            TraceEvent::Send { message, .. } => {
                let number = MessageId(self.sent.len() as u64 + 1);
                if self.sent.contains_key(message) {
                    // Two connections drew the same id: the second message is not told.
                    return;
                }
                if let Some(Fate::Lost(why)) = self.fates.get(message) {
                    lost = Some(TraceEvent::Lose { message: number, why: *why });
                }
                self.sent.insert(*message, (number, time));
                *message = number;
            }
            TraceEvent::Deliver { message } => *message = self.sent[message].0,
            TraceEvent::Ask { operation, .. }
            | TraceEvent::Answer { operation, .. }
            | TraceEvent::GiveUp { operation, .. } => {
                let number = self.operations.len() as u64 + 1;
                *operation = *self.operations.entry((life, *operation)).or_insert(number);
            }
            _ => {}
        }
        self.records.push(Record { at, event });
        self.records.extend(lost.map(|event| Record { at, event }));
    }
}
