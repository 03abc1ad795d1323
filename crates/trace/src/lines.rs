//! A trace as text: a line per event, in columns that can be searched.
//!
//! ```text
//!    0.660001  n2 -> n1   s2  RequestVote t1  #17
//!    0.661888  n2 => n1   s2  RequestVote t1  #17 delivered
//! ```

use crate::{Lane, Loss, MessageId, Outcome, Said, Trace, TraceEvent, Way};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, Write};

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.text.is_empty() {
            return write!(f, " {}", self.text);
        }
        if self.term > 0 {
            write!(f, " t{}", self.term)?;
        }
        if self.index > 0 {
            write!(f, " @{}", self.index)?;
        }
        match self.entries {
            0 => {}
            1 => write!(f, " + 1 entry")?,
            n => write!(f, " + {n} entries")?,
        }
        if self.commit > 0 {
            write!(f, " commit @{}", self.commit)?;
        }
        if self.reject { f.write_str(" rejected") } else { Ok(()) }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
        })
    }
}

/// What happened, without when and where. Of deliveries and losses: only that.
impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { life, .. } => write!(f, "starts, life {life}"),
            Self::Crash { cause, .. } => write!(f, "crashes ({cause})"),
            Self::Pause { .. } => f.write_str("is paused"),
            Self::Resume { .. } => f.write_str("resumes"),
            Self::Note { text, .. } => f.write_str(text),
            Self::ClockJump { .. } => f.write_str("its wall clock jumps"),
            Self::Cut { way: Way::Both, .. } => f.write_str("is cut off"),
            Self::Cut { way: Way::In, .. } => f.write_str("is cut off, one way: nothing reaches it"),
            Self::Cut { way: Way::Out, .. } => f.write_str("is cut off, one way: nothing leaves it"),
            Self::Heal => f.write_str("all cuts heal"),
            Self::Calm => f.write_str("all faults end"),
            Self::Send { said, .. } => said.fmt(f),
            Self::Deliver { .. } => f.write_str("delivered"),
            Self::Lose { why: Loss::Dropped, .. } => f.write_str("dropped"),
            Self::Lose { why: Loss::Cut, .. } => f.write_str("lost in a cut"),
            Self::Lose { why: Loss::Down, .. } => f.write_str("found nobody"),
            Self::SyncBegin { ticket, records, .. } => {
                write!(f, "log sync {ticket} begins, {records} record{}", if *records == 1 { "" } else { "s" })
            }
            Self::SyncEnd { ticket, .. } => write!(f, "log sync {ticket} is durable"),
            Self::FlushBegin { ticket, .. } => write!(f, "store flush {ticket} begins"),
            Self::FlushEnd { ticket, .. } => write!(f, "store flush {ticket} is durable"),
            Self::Role { term, part, leader, .. } => {
                write!(f, "t{term} {part:?}")?;
                leader.map_or(Ok(()), |leader| write!(f, ", leader {leader}"))
            }
            Self::Install { index, .. } => write!(f, "installs a snapshot up to @{index}"),
            Self::Commit { index, .. } => write!(f, "commit @{index}"),
            Self::Apply { index, .. } => write!(f, "applied @{index}"),
            Self::Ask { operation, text, .. } => write!(f, "operation {operation}: {text}"),
            Self::Answer { operation, outcome, revision, text, .. } => {
                write!(f, "operation {operation}: {outcome}")?;
                if *revision > 0 {
                    write!(f, " at revision {revision}")?;
                }
                if text.is_empty() { Ok(()) } else { write!(f, ", {text}") }
            }
            Self::GiveUp { operation, .. } => write!(f, "operation {operation}: unknown, it waits no longer"),
            Self::Watch { text, .. } | Self::Tell { text, .. } => f.write_str(text),
            Self::Violation { rule, detail } => write!(f, "VIOLATION  {rule}: {detail}"),
            Self::End => f.write_str("the end"),
        }
    }
}

impl TraceEvent {
    pub(crate) fn shard(&self) -> Option<u64> {
        match self {
            Self::Send { shard, .. }
            | Self::Role { shard, .. }
            | Self::Install { shard, .. }
            | Self::Commit { shard, .. }
            | Self::Apply { shard, .. } => Some(*shard),
            _ => None,
        }
    }
}

impl Trace {
    /// Writes all lines.
    pub fn write_lines(&self, mut to: impl Write) -> io::Result<()> {
        let mut sent: BTreeMap<MessageId, &TraceEvent> = BTreeMap::new();
        let mut line = String::new();
        for record in &self.records {
            line.clear();
            let arrow = |from: Lane, way: &str, other: Lane| format!("{from:>3} {way} {other:<3}");
            let (event, place) =
                match &record.event {
                    TraceEvent::Send { message, from, to, .. } => {
                        sent.insert(*message, &record.event);
                        (&record.event, arrow(*from, "->", *to))
                    }
                    TraceEvent::Deliver { message } | TraceEvent::Lose { message, .. } => match sent.get(message) {
                        Some(send @ TraceEvent::Send { from, to, .. }) => {
                            let way = if matches!(record.event, TraceEvent::Lose { .. }) { "-x" } else { "=>" };
                            (*send, arrow(*from, way, *to))
                        }
                        _ => (&record.event, String::new()),
                    },
                    TraceEvent::Ask { client: from, node: to, .. }
                    | TraceEvent::Watch { watch: from, node: to, .. } => (&record.event, arrow(*from, "->", *to)),
                    TraceEvent::Answer { client: to, node: from, .. }
                    | TraceEvent::Tell { watch: to, node: from, .. } => (&record.event, arrow(*from, "->", *to)),
                    other => (other, other.lanes().0.map_or_else(String::new, |lane| format!("{lane:>3}"))),
                };
            let shard = event.shard().map_or_else(String::new, |shard| format!("s{shard}"));
            let _ = write!(line, "{:>12.6} {place:<10}  {shard:<3} {event}", record.at as f64 / 1e6);
            match &record.event {
                TraceEvent::Send { message, .. } => {
                    let _ = write!(line, "  #{}", message.0);
                }
                end @ (TraceEvent::Deliver { message } | TraceEvent::Lose { message, .. }) => {
                    let _ = write!(line, "  #{} {end}", message.0);
                }
                _ => {}
            }
            writeln!(to, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{About, Record, TRACE_VERSION};

    #[test]
    fn lines_are_aligned_and_say_what_became_of_a_message() {
        let (n1, n2, c0) = (Lane::Node(1), Lane::Node(2), Lane::Client(0));
        let said = Said { kind: "Append".into(), term: 3, index: 7, entries: 1, commit: 7, ..Said::default() };
        let message = MessageId(4);
        let events = [
            TraceEvent::Start { node: n1, life: 2 },
            TraceEvent::Ask { client: c0, node: n1, operation: 5, text: "put k/1".into() },
            TraceEvent::Send { message, from: n1, to: n2, shard: 2, said },
            TraceEvent::Deliver { message },
            TraceEvent::Lose { message, why: Loss::Down },
            TraceEvent::Apply { node: n1, shard: 2, index: 8 },
            TraceEvent::Answer {
                client: c0,
                node: n1,
                operation: 5,
                outcome: Outcome::Done,
                revision: 9,
                text: String::new(),
            },
            TraceEvent::Violation { rule: "leases end".into(), detail: "1 leases are left".into() },
        ];
        let records = events.into_iter().zip(1..).map(|(event, at)| Record { at: at * 1000, event }).collect();
        let about = About {
            quorate_trace: TRACE_VERSION,
            title: String::new(),
            command: String::new(),
            story: Vec::new(),
            lanes: Vec::new(),
            shards: Vec::new(),
        };
        let mut lines = Vec::new();
        Trace { about, records }.write_lines(&mut lines).expect("memory takes it");
        let expected = "
    0.001000  n1             starts, life 2
    0.002000  c0 -> n1       operation 5: put k/1
    0.003000  n1 -> n2   s2  Append t3 @7 + 1 entry commit @7  #4
    0.004000  n1 => n2   s2  Append t3 @7 + 1 entry commit @7  #4 delivered
    0.005000  n1 -x n2   s2  Append t3 @7 + 1 entry commit @7  #4 found nobody
    0.006000  n1         s2  applied @8
    0.007000  n1 -> c0       operation 5: done at revision 9
    0.008000                 VIOLATION  leases end: 1 leases are left
";
        assert_eq!(format!("\n{}", String::from_utf8_lossy(&lines)), expected);
    }
}
