//! A trace as the page wants it: columns of small numbers, which become typed arrays, and a table of texts.
//!
//! The page knows no event by name. Each has a *kind* (a row of [`KINDS`] or a kind of message), which says how it is drawn, and two numbers of its own.

use super::suspects;
use crate::rules::explain;
use crate::trace::{About, Lane, MessageId, Outcome, Part, Trace, TraceEvent};
use serde::Serialize;
use std::collections::BTreeMap;

/// Names of event kinds; their position is their number in the page, whose script lists the same.
pub(super) const KINDS: &[&str] = &[
    "start",
    "crash",
    "pause",
    "resume",
    "clock-jump",
    "cut",
    "heal",
    "calm",
    "send",
    "deliver",
    "lose",
    "sync-begin",
    "sync-end",
    "flush-begin",
    "flush-end",
    "role",
    "install",
    "commit",
    "apply",
    "ask",
    "answer",
    "give-up",
    "watch",
    "tell",
    "note",
    "violation",
    "end",
];

#[derive(Serialize)]
struct Violation<'a> {
    at: usize,
    rule: &'a str,
    detail: &'a str,
    explanation: &'static str,
    marks: Vec<usize>,
}

/// One number (or none: -1) per event in each column.
#[derive(Default, Serialize)]
struct Columns {
    /// Microseconds since the event before.
    dt: Vec<u64>,
    kind: Vec<usize>,
    lane: Vec<i64>,
    peer: Vec<i64>,
    shard: Vec<i64>,
    /// Which message, counted from 0.
    message: Vec<i64>,
    a: Vec<u64>,
    b: Vec<u64>,
    text: Vec<i64>,
}

#[derive(Serialize)]
pub(super) struct Page<'a> {
    about: &'a About,
    kinds: &'static [&'static str],
    /// Kinds of messages, by frequency.
    said: Vec<&'a str>,
    texts: Vec<String>,
    columns: Columns,
    violation: Option<Violation<'a>>,
}

/// What a column says of one event, where it says anything.
#[derive(Default)]
struct Row {
    lane: Option<Lane>,
    peer: Option<Lane>,
    shard: Option<u64>,
    message: Option<MessageId>,
    a: u64,
    b: u64,
}

impl<'a> Page<'a> {
    pub fn of(trace: &'a Trace) -> Self {
        let said = kinds_of_messages(trace);
        let lanes = numbered(trace.about.lanes.iter().copied());
        let shards = numbered(trace.about.shards.iter().copied());
        let mut messages: BTreeMap<MessageId, (i64, usize)> = BTreeMap::new();
        let mut columns = Columns::default();
        let mut texts = Texts::default();
        let mut before = 0;
        for (at, record) in trace.records.iter().enumerate() {
            let mut row = row(&record.event, &said);
            if let TraceEvent::Send { message, .. } = &record.event {
                let number = messages.len() as i64;
                messages.insert(*message, (number, at));
            }
            let message = row.message.and_then(|id| messages.get(&id));
            if let Some((_, sent)) = message
                && let TraceEvent::Send { from, to, shard, .. } = &trace.records[*sent].event
            {
                // A message's end lies on the other lane. What was lost on its way never reached it, but this is where it is missed.
                let arrives = !matches!(record.event, TraceEvent::Send { .. });
                let (one, other) = if arrives { (to, from) } else { (from, to) };
                (row.lane, row.peer, row.shard) = (Some(*one), Some(*other), Some(*shard));
            }
            let number = |of: Option<&i64>| of.copied().unwrap_or(-1);
            columns.dt.push(record.at - before);
            columns.kind.push(KINDS.iter().position(|kind| *kind == name(&record.event)).expect("a kind has a name"));
            columns.lane.push(number(row.lane.and_then(|lane| lanes.get(&lane))));
            columns.peer.push(number(row.peer.and_then(|lane| lanes.get(&lane))));
            columns.shard.push(number(row.shard.and_then(|shard| shards.get(&shard))));
            columns.message.push(message.map_or(-1, |(number, _)| *number));
            columns.a.push(row.a);
            columns.b.push(row.b);
            columns.text.push(texts.of(&record.event));
            before = record.at;
        }
        let violation = suspects::find(&trace.records).and_then(|(at, marks)| match &trace.records[at].event {
            TraceEvent::Violation { rule, detail } => {
                let explanation = explain(rule).unwrap_or("This program knows no rule of that name.");
                Some(Violation { at, rule, detail, explanation, marks })
            }
            _ => None,
        });
        Self { about: &trace.about, kinds: KINDS, said, texts: texts.list, columns, violation }
    }
}

fn numbered<T: Ord>(of: impl Iterator<Item = T>) -> BTreeMap<T, i64> {
    of.zip(0..).collect()
}

fn kinds_of_messages(trace: &Trace) -> Vec<&str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for record in &trace.records {
        if let TraceEvent::Send { said, .. } = &record.event {
            *counts.entry(said.kind.as_str()).or_default() += 1;
        }
    }
    let mut kinds: Vec<&str> = counts.keys().copied().collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(counts[kind]));
    kinds
}

/// Texts are kept once each: most messages say what another said.
#[derive(Default)]
struct Texts {
    list: Vec<String>,
    known: BTreeMap<String, i64>,
}

impl Texts {
    /// Of a message's end there is no text: the page takes its beginning's.
    fn of(&mut self, event: &TraceEvent) -> i64 {
        if matches!(event, TraceEvent::Deliver { .. } | TraceEvent::Lose { .. }) {
            return -1;
        }
        let text = event.to_string();
        if let Some(known) = self.known.get(&text) {
            return *known;
        }
        let number = self.list.len() as i64;
        self.list.push(text.clone());
        self.known.insert(text, number);
        number
    }
}

fn row(event: &TraceEvent, said: &[&str]) -> Row {
    let (lane, peer) = event.lanes();
    let row = Row { lane, peer, ..Row::default() };
    match event {
        TraceEvent::Start { life, .. } => Row { a: *life, ..row },
        TraceEvent::Cut { way, .. } => Row { a: *way as u64, ..row },
        TraceEvent::Send { message, said: words, .. } => {
            let kind = said.iter().position(|kind| *kind == words.kind).expect("every kind was counted");
            Row { message: Some(*message), a: kind as u64, b: words.entries, ..row }
        }
        TraceEvent::Deliver { message } => Row { message: Some(*message), ..row },
        TraceEvent::Lose { message, why } => Row { message: Some(*message), a: *why as u64, ..row },
        TraceEvent::SyncBegin { ticket, .. }
        | TraceEvent::SyncEnd { ticket, .. }
        | TraceEvent::FlushBegin { ticket, .. }
        | TraceEvent::FlushEnd { ticket, .. } => Row { a: *ticket, ..row },
        TraceEvent::Role { shard, term, part, .. } => {
            Row { shard: Some(*shard), a: *term, b: part_number(*part), ..row }
        }
        TraceEvent::Install { shard, index, .. }
        | TraceEvent::Commit { shard, index, .. }
        | TraceEvent::Apply { shard, index, .. } => Row { shard: Some(*shard), a: *index, ..row },
        TraceEvent::Ask { operation, .. } | TraceEvent::GiveUp { operation, .. } => Row { a: *operation, ..row },
        TraceEvent::Answer { operation, outcome, .. } => Row { a: *operation, b: outcome_number(*outcome), ..row },
        _ => row,
    }
}

fn part_number(part: Part) -> u64 {
    match part {
        Part::Follower => 0,
        Part::PreCandidate | Part::Candidate => 1,
        Part::Leader => 2,
    }
}

fn outcome_number(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Done => 0,
        Outcome::Refused => 1,
        Outcome::Unavailable => 2,
        Outcome::Unknown => 3,
    }
}

fn name(event: &TraceEvent) -> &'static str {
    match event {
        TraceEvent::Start { .. } => "start",
        TraceEvent::Crash { .. } => "crash",
        TraceEvent::Pause { .. } => "pause",
        TraceEvent::Resume { .. } => "resume",
        TraceEvent::ClockJump { .. } => "clock-jump",
        TraceEvent::Cut { .. } => "cut",
        TraceEvent::Heal => "heal",
        TraceEvent::Calm => "calm",
        TraceEvent::Send { .. } => "send",
        TraceEvent::Deliver { .. } => "deliver",
        TraceEvent::Lose { .. } => "lose",
        TraceEvent::SyncBegin { .. } => "sync-begin",
        TraceEvent::SyncEnd { .. } => "sync-end",
        TraceEvent::FlushBegin { .. } => "flush-begin",
        TraceEvent::FlushEnd { .. } => "flush-end",
        TraceEvent::Role { .. } => "role",
        TraceEvent::Install { .. } => "install",
        TraceEvent::Commit { .. } => "commit",
        TraceEvent::Apply { .. } => "apply",
        TraceEvent::Ask { .. } => "ask",
        TraceEvent::Answer { .. } => "answer",
        TraceEvent::GiveUp { .. } => "give-up",
        TraceEvent::Watch { .. } => "watch",
        TraceEvent::Tell { .. } => "tell",
        TraceEvent::Note { .. } => "note",
        TraceEvent::Violation { .. } => "violation",
        TraceEvent::End => "end",
    }
}
