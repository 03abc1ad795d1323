//! What one process recorded: lines like a trace's, but of one node and by its own clock, life after life in one file (docs/design/trace-format.md).
//!
//! ```text
//!   {"quorate_process":1,"cluster":7,"node":1,"name":"n1","wall":1795291200000000,"members":[[1,"n1"],[2,"n2"]]}    a life begins
//!   {"at":11,"event":"send","message":9021,"from":"n1","to":"n2","shard":2,"said":{...}}                            as in a trace
//!   {"at":19,"event":"unrecorded","events":3}                                                                       as only here
//!   {"at":20,"event":"deliv                                                                                         killed while it wrote
//! ```
//!
//! A process may die in the middle of a line, so the last line of a life may be torn; one in the middle may not.

use crate::{Lane, Record, TraceError};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};

/// The version of the file of a process.
pub const PROCESS_VERSION: u32 = 1;

/// How the first line of a life begins.
const HEAD: &str = "{\"quorate_process\":";

/// The first line of a life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifeHead {
    /// [`PROCESS_VERSION`].
    pub quorate_process: u32,
    /// The cluster's id.
    pub cluster: u64,
    /// The node's id: its lane in this file.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// What the machine's wall clock said, in microseconds since the Unix epoch, when the life's times were 0.
    pub wall: u64,
    /// Ids and names of the members that it knew.
    pub members: Vec<(u64, String)>,
}

impl LifeHead {
    /// The node's lane in its own file.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane::Node(self.node)
    }

    /// Writes the line. What an earlier life left half written ends here.
    ///
    /// # Errors
    /// If `to` does not take it.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        to.write_all(b"\n")?;
        serde_json::to_writer(&mut to, self)?;
        to.write_all(b"\n")
    }
}

/// What only the file of a process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum OwnEvent {
    /// The record could not keep up: here so many events are missing.
    Unrecorded {
        /// How many.
        events: u64,
    },
    /// The process goes on, its record does not.
    RecordEnds {
        /// Why.
        why: String,
    },
}

/// An [`OwnEvent`] and when it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRecord {
    /// Microseconds since the life began.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: OwnEvent,
}

/// From one start of a process to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Whose.
    pub head: LifeHead,
    /// What it recorded, by its own clock; threads write side by side, so times may go back a little.
    pub records: Vec<Record>,
    /// Events that it could not record.
    pub unrecorded: u64,
    /// When its record ends although it went on, if it does.
    pub record_ends: Option<u64>,
}

/// Whether a text is what a process recorded, and not a whole trace.
#[must_use]
pub fn is_process(text: &str) -> bool {
    text.trim_start().starts_with(HEAD)
}

/// Reads the lives in a process' file. The last line of each may be torn.
///
/// # Errors
/// If another line is none, names the line.
pub fn read_process(text: &str) -> Result<Vec<Life>, TraceError> {
    let mut lives: Vec<Life> = Vec::new();
    let mut torn: Option<TraceError> = None;
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |why: String| TraceError { line: at + 1, why };
        if line.starts_with(HEAD) {
            match serde_json::from_str::<LifeHead>(line) {
                Ok(head) if head.quorate_process != PROCESS_VERSION => {
                    let why =
                        format!("this is version {}, only {PROCESS_VERSION} can be read here", head.quorate_process);
                    return Err(wrong(why));
                }
                Ok(head) => {
                    torn = None;
                    lives.push(Life { head, records: Vec::new(), unrecorded: 0, record_ends: None });
                }
                Err(e) => torn = torn.or(Some(wrong(e.to_string()))),
            }
            continue;
        }
        let life = lives.last_mut().ok_or_else(|| wrong("no first line of what a process recorded".into()))?;
        match read_line(life, line) {
            // What follows what is torn was written by the same life: then it is not torn, but wrong.
            Ok(()) if torn.is_some() => break,
            Ok(()) => {}
            Err(e) => torn = torn.or(Some(wrong(e.to_string()))),
        }
        if let Some(stranger) = stranger(life) {
            return Err(wrong(format!("{stranger} is another node's: this is what {} recorded", life.head.lane())));
        }
    }
    let in_the_middle = |torn: &TraceError| text.lines().skip(torn.line).any(|line| !line.trim().is_empty());
    match torn {
        Some(torn) if lives.is_empty() || in_the_middle(&torn) => Err(torn),
        _ => Ok(lives),
    }
}

fn read_line(life: &mut Life, line: &str) -> serde_json::Result<()> {
    let as_event = match serde_json::from_str::<Record>(line) {
        Ok(record) => {
            life.records.push(record);
            return Ok(());
        }
        Err(e) => e,
    };
    // Rare, so it is tried last.
    match serde_json::from_str::<OwnRecord>(line) {
        Ok(OwnRecord { event: OwnEvent::Unrecorded { events }, .. }) => life.unrecorded += events,
        Ok(OwnRecord { at, event: OwnEvent::RecordEnds { .. } }) => life.record_ends = Some(at),
        Err(_) => return Err(as_event),
    }
    Ok(())
}

/// The node that the last record is about, if that is another one.
fn stranger(life: &Life) -> Option<Lane> {
    let about = match life.records.last()?.event.lanes() {
        (Some(lane @ Lane::Node(_)), _) => lane,
        (_, Some(lane @ Lane::Node(_))) => lane,
        _ => return None,
    };
    (about != life.head.lane()).then_some(about)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MessageId, TraceEvent};

    fn head(wall: u64) -> LifeHead {
        let members = vec![(1, "n1".into()), (2, "n2".into())];
        LifeHead { quorate_process: PROCESS_VERSION, cluster: 7, node: 1, name: "n1".into(), wall, members }
    }

    fn line(at: u64, event: TraceEvent) -> String {
        serde_json::to_string(&Record { at, event }).expect("JSON") + "\n"
    }

    fn life(wall: u64) -> String {
        let mut text = Vec::new();
        head(wall).write(&mut text).expect("memory takes it");
        let note = TraceEvent::Note { node: Lane::Node(1), text: "connected to n2".into() };
        String::from_utf8(text).expect("JSON is UTF-8")
            + &line(5, note)
            + "{\"at\":6,\"event\":\"unrecorded\",\"events\":3}\n"
            + &line(7, TraceEvent::Deliver { message: MessageId(9) })
    }

    #[test]
    fn lives_are_read_one_after_the_other() {
        let text = life(100) + &life(200);
        assert!(is_process(&text) && !is_process("{\"quorate_trace\":1}"));
        assert!(text.starts_with("\n{\"quorate_process\":1,\"cluster\":7,\"node\":1,\"name\":\"n1\",\"wall\":100,"));
        let lives = read_process(&text).expect("lives");
        assert_eq!(lives.iter().map(|life| life.head.wall).collect::<Vec<_>>(), [100, 200]);
        assert!(lives.iter().all(|life| life.records.len() == 2 && life.unrecorded == 3));
    }

    #[test]
    fn the_last_line_of_a_life_may_be_torn() {
        let whole = life(100);
        for cut in 1..40 {
            let torn = &whole[..whole.len() - cut];
            let records = read_process(torn).expect("a life").remove(0).records;
            assert_eq!(records.len(), if cut == 1 { 2 } else { 1 }, "without {cut} bytes");
            // The next life begins a line of its own.
            let lives = read_process(&(torn.to_owned() + &life(200))).expect("two lives");
            assert_eq!((lives.len(), lives[1].records.len()), (2, 2), "without {cut} bytes");
        }
        // It was killed while it wrote its first line, and started again.
        let twice = whole.clone() + "\n{\"quorate_process\":1,\"clus" + &life(300);
        assert_eq!(read_process(&twice).expect("two lives").len(), 2);
    }

    #[test]
    fn what_is_wrong_elsewhere_is_refused_with_the_line() {
        let whole = life(100);
        let refused = |text: &str| read_process(text).expect_err("refused").to_string();
        let middle = whole.replacen("\"note\"", "\"no", 1);
        assert!(refused(&middle).starts_with("line 3: "), "{}", refused(&middle));
        assert_eq!(refused("hello"), "line 1: no first line of what a process recorded");
        assert!(refused("{\"quorate_process\":1,").starts_with("line 1: "));
        let newer = whole.replacen("\"quorate_process\":1", "\"quorate_process\":2", 1);
        assert_eq!(refused(&newer), "line 2: this is version 2, only 1 can be read here");
        let other = whole.replacen("\"node\":\"n1\"", "\"node\":\"n5\"", 1);
        assert_eq!(refused(&other), "line 3: n5 is another node's: this is what n1 recorded");
    }
}
