//! Where a model tells what its participants do. Times may be told in any order; the trace has them sorted.

use crate::trace::{About, Lane, Loss, MessageId, Outcome, Part, Record, Said, TRACE_VERSION, Trace, TraceEvent};

/// A participant of a model, counted from 0.
pub(super) fn lane(participant: usize) -> Lane {
    Lane::Node(participant as u64 + 1)
}

pub(super) struct Board {
    records: Vec<Record>,
    lanes: Vec<Lane>,
    names: Vec<String>,
    messages: u64,
    operations: u64,
}

impl Board {
    /// Participants have lanes from the top, each with what it is.
    pub fn new(names: &[&str]) -> Self {
        let lanes: Vec<Lane> = (0..names.len()).map(lane).collect();
        let names = lanes.iter().zip(names).map(|(lane, name)| format!("{lane} is {name}.")).collect();
        let mut board = Self { records: Vec::new(), lanes: lanes.clone(), names, messages: 0, operations: 0 };
        lanes.into_iter().for_each(|node| board.tell(0, TraceEvent::Start { node, life: 1 }));
        board
    }

    fn tell(&mut self, at: u64, event: TraceEvent) {
        self.records.push(Record { at, event });
    }

    /// A participant does something by itself.
    pub fn note(&mut self, at: u64, who: usize, text: impl Into<String>) {
        self.tell(at, TraceEvent::Note { node: lane(who), text: text.into() });
    }

    /// A message leaves, and arrives unless it is lost.
    pub fn message(&mut self, ends: (usize, usize), times: (u64, Option<u64>), kind: &str, text: impl Into<String>) {
        self.copies(ends, (times.0, times.1.as_slice()), kind, text);
    }

    /// A message leaves, and copies of it arrive. If there is none, it is lost.
    pub fn copies(&mut self, ends: (usize, usize), times: (u64, &[u64]), kind: &str, text: impl Into<String>) {
        self.messages += 1;
        let (message, (from, to)) = (MessageId(self.messages), ends);
        let said = Said { kind: kind.into(), text: text.into(), ..Said::default() };
        let (sent, arrivals) = times;
        self.tell(sent, TraceEvent::Send { message, from: lane(from), to: lane(to), shard: 1, said });
        if arrivals.is_empty() {
            self.tell(sent + 400, TraceEvent::Lose { message, why: Loss::Dropped });
        }
        arrivals.iter().for_each(|at| self.tell(*at, TraceEvent::Deliver { message }));
    }

    /// A participant stands still for a while.
    pub fn pause(&mut self, who: usize, times: (u64, u64)) {
        let node = lane(who);
        self.tell(times.0, TraceEvent::Pause { node });
        self.tell(times.1, TraceEvent::Resume { node });
    }

    /// It dies, and comes back with what its disk holds. Lives are counted.
    pub fn restart(&mut self, who: usize, times: (u64, u64), life: u64) {
        let node = lane(who);
        self.tell(times.0, TraceEvent::Crash { node, cause: "killed".into() });
        self.tell(times.1, TraceEvent::Start { node, life });
    }

    /// What it is from now on, in which term, and whom it follows.
    pub fn role(&mut self, at: u64, who: usize, (term, part): (u64, Part), leader: Option<usize>) {
        self.tell(at, TraceEvent::Role { node: lane(who), shard: 1, term, part, leader: leader.map(lane) });
    }

    /// A client's operation, from question to answer.
    pub fn operation(&mut self, ends: (u64, usize), times: (u64, u64), asked: &str, answered: impl Into<String>) {
        self.operations += 1;
        let (client, node, operation) = (Lane::Client(ends.0), lane(ends.1), self.operations);
        if !self.lanes.contains(&client) {
            self.lanes.push(client);
        }
        self.tell(times.0, TraceEvent::Ask { client, node, operation, text: asked.into() });
        let (outcome, text) = (Outcome::Done, answered.into());
        self.tell(times.1, TraceEvent::Answer { client, node, operation, outcome, revision: 0, text });
    }

    pub fn finish(mut self) -> Trace {
        self.records.sort_by_key(|record| record.at);
        // Room for the last words in the picture.
        let last = self.records.last().map_or(0, |record| record.at);
        let end = last + last / 5 + 1_000;
        self.tell(end, TraceEvent::End);
        let about = About {
            quorate_trace: TRACE_VERSION,
            title: String::new(),
            command: String::new(),
            story: self.names,
            lanes: self.lanes,
            shards: vec![1],
        };
        Trace { about, records: self.records }
    }
}
