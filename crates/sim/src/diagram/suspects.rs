//! Which events a broken rule speaks of.
//!
//! What a check says is a sentence that names things in fixed ways: `n1` a node, `s1` a shard, `t1` a term, `@1` an index of the log, and "operation",
//! "lease", "revision" with a number. The picture marks the events in which those things happened, and always what set the check off.

use crate::trace::{Lane, MessageId, Record, TraceEvent};
use std::collections::{BTreeMap, BTreeSet};

/// A picture with more marks than this shows nothing.
const MARKS_MAX: usize = 300;

#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    nodes: BTreeSet<Lane>,
    shards: BTreeSet<u64>,
    terms: BTreeSet<u64>,
    indexes: BTreeSet<u64>,
    operations: BTreeSet<u64>,
    revisions: BTreeSet<u64>,
}

impl Named {
    fn read(detail: &str) -> Self {
        let mut named = Self::default();
        let words: Vec<&str> =
            detail.split(|c: char| !c.is_ascii_alphanumeric() && c != '@').filter(|w| !w.is_empty()).collect();
        for (at, word) in words.iter().enumerate() {
            let number = |text: Option<&&str>| text.and_then(|text| text.parse::<u64>().ok());
            let next = number(words.get(at + 1));
            match *word {
                // The simulator's clients number a lease after the operation that asked for it.
                "operation" | "lease" => named.operations.extend(next),
                "revision" => named.revisions.extend(next),
                _ => {
                    let Some(first) = word.chars().next().filter(char::is_ascii) else { continue };
                    let Some(number) = number(Some(&&word[1..])) else { continue };
                    match first {
                        'n' => drop(named.nodes.insert(Lane::Node(number))),
                        's' => drop(named.shards.insert(number)),
                        't' => drop(named.terms.insert(number)),
                        '@' => drop(named.indexes.insert(number)),
                        _ => {}
                    }
                }
            }
        }
        named
    }

    fn on(&self, shard: u64) -> bool {
        self.shards.is_empty() || self.shards.contains(&shard)
    }

    fn names_index(&self, shard: u64, from: u64, to: u64) -> bool {
        self.on(shard) && from < to && self.indexes.range(from + 1..=to).next().is_some()
    }
}

/// The positions of the violation, if there is one, and of the events that it speaks of, in order.
pub(super) fn find(records: &[Record]) -> Option<(usize, Vec<usize>)> {
    let (violation, detail) = records.iter().enumerate().rev().find_map(|(at, record)| match &record.event {
        TraceEvent::Violation { detail, .. } => Some((at, detail)),
        _ => None,
    })?;
    let named = Named::read(detail);
    let before = &records[..violation];
    let mut marks = BTreeSet::new();
    // What happened at that very moment set the check off.
    marks.extend(before.last().filter(|record| record.at == records[violation].at).map(|_| violation - 1));
    let mut reached: BTreeMap<(Lane, u64, bool), u64> = BTreeMap::new();
    let mut carriers: BTreeSet<MessageId> = BTreeSet::new();
    let mut latest_start: BTreeMap<Lane, usize> = BTreeMap::new();
    for (at, record) in before.iter().enumerate() {
        let speaks = match &record.event {
            TraceEvent::Ask { operation, text, .. } => {
                named.operations.contains(operation)
                    || named.operations.iter().any(|lease| text == &format!("renew lease {lease}"))
            }
            TraceEvent::Answer { operation, revision, .. } => {
                named.operations.contains(operation) || named.revisions.contains(revision)
            }
            TraceEvent::GiveUp { operation, .. } => named.operations.contains(operation),
            TraceEvent::Tell { from, to, .. } => named.revisions.range(from..=to).next().is_some(),
            TraceEvent::Role { node, shard, term, .. } => {
                named.nodes.contains(node) && named.on(*shard) && named.terms.contains(term)
            }
            TraceEvent::Send { message, shard, said, .. } => {
                let carries = named.names_index(*shard, said.index, said.index + said.entries);
                if carries {
                    carriers.insert(*message);
                }
                carries
            }
            TraceEvent::Deliver { message } | TraceEvent::Lose { message, .. } => carriers.contains(message),
            TraceEvent::Commit { node, shard, index } | TraceEvent::Apply { node, shard, index } => {
                let applied = matches!(record.event, TraceEvent::Apply { .. });
                let before = reached.insert((*node, *shard, applied), *index).unwrap_or(0);
                named.names_index(*shard, before, *index)
            }
            TraceEvent::Start { node, .. } | TraceEvent::Crash { node, .. } => {
                reached.retain(|(lane, _, _), _| lane != node);
                if named.nodes.contains(node) {
                    latest_start.insert(*node, at);
                }
                false
            }
            _ => false,
        };
        if speaks {
            marks.insert(at);
        }
    }
    marks.extend(latest_start.into_values());
    let surplus = marks.len().saturating_sub(MARKS_MAX);
    Some((violation, marks.into_iter().skip(surplus).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Outcome, Said};

    #[test]
    fn names_are_read_out_of_sentences() {
        let named = Named::read("s2 @17 of t4 is applied by n1 and durable on 0 of 3");
        assert_eq!((named.nodes.first(), named.shards.first()), (Some(&Lane::Node(1)), Some(&2)));
        assert_eq!((named.indexes.first(), named.terms.first()), (Some(&17), Some(&4)));
        let named = Named::read("operation 9: revision 12, expected 11");
        assert_eq!((named.operations.first(), named.revisions.first()), (Some(&9), Some(&12)));
        assert_eq!(Named::read("lease 132 of 3000 ms").operations.first(), Some(&132));
        assert_eq!(Named::read("a node’s ünwörter, no names"), Named::default());
    }

    #[test]
    fn the_events_that_it_speaks_of_are_marked() {
        let (n1, n2, c0) = (Lane::Node(1), Lane::Node(2), Lane::Client(0));
        let said = |index| Said { kind: "Append".into(), index, entries: 1, ..Said::default() };
        let send =
            |id, index| TraceEvent::Send { message: MessageId(id), from: n1, to: n2, shard: 2, said: said(index) };
        let answer = |operation| TraceEvent::Answer {
            client: c0,
            node: n1,
            operation,
            outcome: Outcome::Done,
            revision: 3,
            text: String::new(),
        };
        let events = [
            send(1, 16),
            send(2, 17),
            TraceEvent::Deliver { message: MessageId(1) },
            TraceEvent::Apply { node: n1, shard: 2, index: 16 },
            answer(4),
            answer(5),
            TraceEvent::Apply { node: n1, shard: 2, index: 18 },
            TraceEvent::Apply { node: n1, shard: 1, index: 30 },
            TraceEvent::Violation { rule: "a rule".into(), detail: "s2 @17 is bad, see operation 5".into() },
            TraceEvent::End,
        ];
        let records: Vec<Record> = events.into_iter().zip(0..).map(|(event, at)| Record { at, event }).collect();
        assert_eq!(find(&records), Some((8, vec![0, 2, 5, 6])));
        assert_eq!(find(&records[..8]), None);
    }
}
