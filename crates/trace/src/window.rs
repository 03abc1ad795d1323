//! A part of a trace, as a trace of its own: of a long record people want to see the seconds in which something happened.

use crate::{Lane, MessageId, Record, Trace, TraceEvent};
use std::collections::{BTreeMap, BTreeSet};

/// What lasts: who runs, and as what.
#[derive(Default)]
struct Standing {
    started: BTreeMap<Lane, TraceEvent>,
    paused: BTreeMap<Lane, TraceEvent>,
    cut: BTreeMap<Lane, TraceEvent>,
    roles: BTreeMap<(Lane, u64), TraceEvent>,
}

impl Standing {
    fn see(&mut self, event: &TraceEvent) {
        match event {
            TraceEvent::Start { node, .. } => drop(self.started.insert(*node, event.clone())),
            TraceEvent::Crash { node, .. } => {
                self.started.remove(node);
                self.paused.remove(node);
                self.roles.retain(|(lane, _), _| lane != node);
            }
            TraceEvent::Pause { node } => drop(self.paused.insert(*node, event.clone())),
            TraceEvent::Resume { node } => drop(self.paused.remove(node)),
            TraceEvent::Cut { node, .. } => drop(self.cut.insert(*node, event.clone())),
            TraceEvent::Heal | TraceEvent::Calm => self.cut.clear(),
            TraceEvent::Role { node, shard, .. } => drop(self.roles.insert((*node, *shard), event.clone())),
            _ => {}
        }
    }

    fn into_events(self) -> impl Iterator<Item = TraceEvent> {
        let Self { started, paused, cut, roles } = self;
        started.into_values().chain(paused.into_values()).chain(cut.into_values()).chain(roles.into_values())
    }
}

/// Which halves there is the first of.
#[derive(Default)]
struct Begun {
    sent: BTreeSet<MessageId>,
    asked: BTreeSet<u64>,
}

impl Begun {
    /// Whether an event can be told: what it ends has begun.
    fn admits(&mut self, event: &TraceEvent) -> bool {
        match event {
            TraceEvent::Send { message, .. } => self.sent.insert(*message),
            TraceEvent::Deliver { message } | TraceEvent::Lose { message, .. } => self.sent.contains(message),
            TraceEvent::Ask { operation, .. } => self.asked.insert(*operation),
            TraceEvent::Answer { operation, .. } | TraceEvent::GiveUp { operation, .. } => {
                self.asked.contains(operation)
            }
            TraceEvent::End => false,
            _ => true,
        }
    }
}

impl Trace {
    /// What happened from one time to another, in microseconds, counted from there. Who ran when it began, and as what, is told at its beginning;
    /// what ends in it but began before is left out.
    #[must_use]
    pub fn between(self, from: u64, to: u64) -> Self {
        let Self { mut about, records } = self;
        let seconds = |us: u64| us as f64 / 1e6;
        let end = records.last().map_or(0, |record| record.at).min(to);
        about.story.push(format!("Shown are the seconds from {:.3} to {:.3}.", seconds(from), seconds(end)));
        let (mut standing, mut begun) = (Standing::default(), Begun::default());
        let first = records.partition_point(|record| record.at < from);
        records[..first].iter().for_each(|record| standing.see(&record.event));
        let mut shown: Vec<Record> = standing.into_events().map(|event| Record { at: 0, event }).collect();
        let within = records.into_iter().skip(first).take_while(|record| record.at <= to);
        let told = within.filter(|record| begun.admits(&record.event));
        shown.extend(told.map(|record| Record { at: record.at - from, ..record }));
        shown.push(Record { at: end.saturating_sub(from), event: TraceEvent::End });
        Self { about, records: shown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{About, Outcome, Part, Said, TRACE_VERSION};

    #[test]
    fn a_window_tells_who_ran_and_leaves_out_ends_without_a_beginning() {
        let (n1, n2, c0) = (Lane::Node(1), Lane::Node(2), Lane::Client(0));
        let role = |node, term, part| TraceEvent::Role { node, shard: 1, term, part, leader: Some(n1) };
        let send =
            |id, from, to| TraceEvent::Send { message: MessageId(id), from, to, shard: 1, said: Said::default() };
        let ask = |operation| TraceEvent::Ask { client: c0, node: n1, operation, text: String::new() };
        let answer = |operation| {
            let (outcome, text) = (Outcome::Done, String::new());
            TraceEvent::Answer { client: c0, node: n1, operation, outcome, revision: 0, text }
        };
        let events = [
            TraceEvent::Start { node: n1, life: 1 },
            TraceEvent::Start { node: n2, life: 1 },
            role(n1, 1, Part::Leader),
            role(n2, 1, Part::Follower),
            TraceEvent::Crash { node: n2, cause: "power cut".into() },
            send(1, n1, n2),
            ask(1),
            // Here it begins.
            TraceEvent::Deliver { message: MessageId(1) },
            answer(1),
            send(2, n1, n2),
            ask(2),
            TraceEvent::Deliver { message: MessageId(2) },
            // And here it ends.
            answer(2),
            TraceEvent::End,
        ];
        let records = events.into_iter().zip(1..).map(|(event, at)| Record { at: at * 10, event }).collect();
        let (lanes, story) = (vec![n1, n2, c0], Vec::new());
        let (title, command) = (String::new(), String::new());
        let about = About { quorate_trace: TRACE_VERSION, title, command, story, lanes, shards: vec![1] };
        let window = Trace { about, records }.between(71, 120);
        let expected = [
            (0, TraceEvent::Start { node: n1, life: 1 }),
            (0, role(n1, 1, Part::Leader)),
            (29, send(2, n1, n2)),
            (39, ask(2)),
            (49, TraceEvent::Deliver { message: MessageId(2) }),
            (49, TraceEvent::End),
        ];
        let expected: Vec<Record> = expected.into_iter().map(|(at, event)| Record { at, event }).collect();
        assert_eq!(window.records, expected);
        assert_eq!(window.about.story, ["Shown are the seconds from 0.000 to 0.000."]);
    }
}
