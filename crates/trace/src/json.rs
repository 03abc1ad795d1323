//! A trace as a file: JSON, a line each, so that what a process wrote before it died can be read (docs/design/trace-format.md).

use crate::{About, Record, TRACE_VERSION, Trace, TraceEvent};
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};

/// A file that is no trace. The line is counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub struct TraceError {
    /// Where.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for TraceError {}

impl Trace {
    /// Writes the file.
    pub fn write_json(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut to, &self.about)?;
        for record in &self.records {
            to.write_all(b"\n")?;
            serde_json::to_writer(&mut to, record)?;
        }
        to.write_all(b"\n")
    }

    /// Reads it. What the picture relies on is checked here: lanes are known, time does not go back, an arrival has a sending.
    pub fn read_json(text: &str) -> Result<Self, TraceError> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let wrong = |at: usize, why: String| TraceError { line: at + 1, why };
        let (_, first) = lines.next().ok_or_else(|| wrong(0, "the file is empty".into()))?;
        let about: About = serde_json::from_str(first).map_err(|e| wrong(0, format!("no header of a trace: {e}")))?;
        if about.quorate_trace != TRACE_VERSION {
            let why = format!("this is version {}, only {TRACE_VERSION} can be read here", about.quorate_trace);
            return Err(wrong(0, why));
        }
        let lanes: BTreeSet<_> = about.lanes.iter().collect();
        let mut sent = BTreeSet::new();
        let mut records: Vec<Record> = Vec::new();
        for (at, line) in lines {
            let record: Record = serde_json::from_str(line).map_err(|e| wrong(at, e.to_string()))?;
            let (one, other) = record.event.lanes();
            if let Some(stranger) = one.iter().chain(&other).find(|lane| !lanes.contains(lane)) {
                return Err(wrong(at, format!("lane {stranger} is not in the header")));
            }
            if records.last().is_some_and(|before| before.at > record.at) {
                return Err(wrong(at, "time goes back".into()));
            }
            match &record.event {
                TraceEvent::Send { message, .. } if !sent.insert(*message) => {
                    return Err(wrong(at, format!("message #{} is sent twice", message.0)));
                }
                TraceEvent::Deliver { message } | TraceEvent::Lose { message, .. } if !sent.contains(message) => {
                    return Err(wrong(at, format!("message #{} was never sent", message.0)));
                }
                _ => {}
            }
            records.push(record);
        }
        Ok(Self { about, records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lane, MessageId, Said};

    fn trace() -> Trace {
        let (n1, n2) = (Lane::Node(1), Lane::Node(2));
        let said = Said { kind: "Append".into(), term: 3, index: 7, entries: 1, ..Said::default() };
        let events = [
            TraceEvent::Start { node: n1, life: 1 },
            TraceEvent::Send { message: MessageId(1), from: n1, to: n2, shard: 2, said },
            TraceEvent::Deliver { message: MessageId(1) },
            TraceEvent::End,
        ];
        let records = events.into_iter().zip(10..).map(|(event, at)| Record { at, event }).collect();
        let about = About {
            quorate_trace: TRACE_VERSION,
            title: "a test".into(),
            command: String::new(),
            story: vec!["two nodes".into()],
            lanes: vec![n1, n2],
            shards: vec![2],
        };
        Trace { about, records }
    }

    fn text(trace: &Trace) -> String {
        let mut bytes = Vec::new();
        trace.write_json(&mut bytes).expect("memory takes it");
        String::from_utf8(bytes).expect("JSON is UTF-8")
    }

    #[test]
    fn a_trace_is_read_as_it_was_written() {
        let text = text(&trace());
        assert_eq!(Trace::read_json(&text).expect("a trace"), trace());
        let expected = r#"{"at":11,"event":"send","message":1,"from":"n1","to":"n2","shard":2,"said":{"kind":"Append","term":3,"index":7,"entries":1}}"#;
        assert_eq!(text.lines().nth(2), Some(expected), "docs/design/trace-format.md draws this line");
    }

    #[test]
    fn what_is_no_trace_is_refused_with_the_line() {
        let good = text(&trace());
        let refused = |text: &str| Trace::read_json(text).expect_err("no trace").to_string();
        assert_eq!(refused(""), "line 1: the file is empty");
        assert!(refused("{}").starts_with("line 1: no header of a trace"));
        let newer = good.replacen("\"quorate_trace\":1", "\"quorate_trace\":9", 1);
        assert_eq!(refused(&newer), "line 1: this is version 9, only 1 can be read here");
        assert_eq!(
            refused(&good.replace("\"node\":\"n1\"", "\"node\":\"n7\"")),
            "line 2: lane n7 is not in the header"
        );
        assert!(refused(&good.replace("\"node\":\"n1\"", "\"node\":\"x1\"")).starts_with("line 2: \"x1\" is no lane"));
        assert_eq!(refused(&good.replace("\"at\":12", "\"at\":9")), "line 4: time goes back");
        let unsent = good.replace("\"deliver\",\"message\":1", "\"deliver\",\"message\":5");
        assert_eq!(refused(&unsent), "line 4: message #5 was never sent");
        let cut_short = &good[..good.len() - 4];
        assert!(refused(cut_short).starts_with("line 5: "), "a half line at the end is not taken for an event");
    }
}
