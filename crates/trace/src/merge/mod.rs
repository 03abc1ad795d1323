//! One trace from what several processes recorded, each by its own clock.
//!
//! ```text
//!   lives ──> told.rs    what each life tells, in order, without halves of what was only half recorded
//!         ──> ties.rs    sendings and arrivals, and what became of a message that has only one of them
//!         ──> clocks.rs  by how much the clocks differ: from the fastest messages there and back
//!         ──> order.rs   one order in which nothing arrives before it was sent ──> Trace
//! ```
//!
//! What cannot be shown truly is left out, counted and said. The same files give the same trace.

mod clocks;
mod lanes;
mod order;
mod ties;
mod told;

use crate::{About, Life, TRACE_VERSION, Trace, TraceEvent};
use lanes::Lanes;
use std::collections::BTreeSet;
use std::fmt;
use ties::Ties;
use told::Told;

/// Why what was recorded does not make a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeError {
    /// Nobody recorded anything.
    Nothing,
    /// They are of different clusters: choose the files of one.
    Clusters(u64, u64),
    /// The same life is there twice: name each file once.
    Twice {
        /// The node's name.
        name: String,
    },
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing was recorded"),
            Self::Clusters(one, other) => {
                write!(
                    f,
                    "cluster {one:x} and cluster {other:x} have nothing to do with each other: name the files of one"
                )
            }
            Self::Twice { name } => write!(f, "what {name} recorded is given twice: name each file once"),
        }
    }
}

impl std::error::Error for MergeError {}

/// What the merged trace leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Arrivals of messages whose sending nobody recorded.
    pub unsent: u64,
    /// Messages to whom nobody recorded what arrives.
    pub unheard: u64,
    /// Messages that arrived, as later ones on the same connection show, but whose arrival is not in the record.
    pub unnoticed: u64,
    /// Answers without their question, and the like.
    pub halves: u64,
    /// Events that the processes themselves say are missing.
    pub unrecorded: u64,
}

/// Puts together what is in several files. The lives in a file are in their order, whatever the wall clock said.
///
/// # Errors
/// If they do not belong together.
pub fn merge(mut files: Vec<Vec<Life>>) -> Result<(Trace, Omitted), MergeError> {
    files.sort_by_key(|lives| lives.first().map(|life| life.head.wall));
    let mut lives: Vec<Life> = files.into_iter().flatten().collect();
    lives.sort_by_key(|life| life.head.node);
    check(&lives)?;
    let lanes = Lanes::of(&lives);
    let mut omitted = Omitted { unrecorded: lives.iter().map(|life| life.unrecorded).sum(), ..Omitted::default() };
    let mut told: Vec<Told> = Vec::new();
    for life in lives {
        let number =
            told.last().filter(|before| before.head.node == life.head.node).map_or(1, |before| before.life + 1);
        told.push(Told::of(life, number, &mut omitted.halves));
    }
    let ties = Ties::of(&told);
    let nodes: Vec<u64> = told.iter().map(|life| life.head.node).collect();
    let ahead = clocks::differences(&nodes, &ties.least_delays(&told));
    for (life, ahead) in told.iter_mut().zip(&ahead) {
        life.zero = life.head.wall as i64 + ahead;
    }
    told::end(&mut told);
    let fates = ties.fates(&told, &mut omitted);
    let story = story(&told, &ahead, &lanes);
    let mut records = order::weave(told, &fates, &lanes, &mut omitted);
    let (clients, shards) = (lanes::clients(&records), lanes::shards(&records));
    let end = records.last().map_or(0, |record| record.at);
    records.push(crate::Record { at: end, event: TraceEvent::End });
    let about = About {
        quorate_trace: TRACE_VERSION,
        title: "A cluster, as its processes recorded it".into(),
        command: String::new(),
        story: story.into_iter().chain(omitted.story()).collect(),
        lanes: lanes.nodes().chain(clients).collect(),
        shards,
    };
    Ok((Trace { about, records }, omitted))
}

fn check(lives: &[Life]) -> Result<(), MergeError> {
    let first = lives.first().ok_or(MergeError::Nothing)?;
    let mut known = BTreeSet::new();
    for Life { head, .. } in lives {
        if head.cluster != first.head.cluster {
            return Err(MergeError::Clusters(first.head.cluster, head.cluster));
        }
        if !known.insert((head.node, head.wall)) {
            return Err(MergeError::Twice { name: head.name.clone() });
        }
    }
    Ok(())
}

/// Who recorded it, in sentences.
fn story(told: &[Told], ahead: &[i64], lanes: &Lanes) -> Vec<String> {
    let mut story = vec!["Nothing was checked: this is what happened, not whether it was right.".to_owned()];
    let first = ahead.first().copied().unwrap_or(0);
    for (at, life) in told.iter().enumerate().filter(|(_, life)| life.life == 1) {
        let lane = lanes.of_node(life.head.node);
        let lives = told.iter().filter(|other| other.head.node == life.head.node).count();
        let lives = if lives == 1 { "one life".to_owned() } else { format!("{lives} lives") };
        let clock = match first - ahead[at] {
            0 => "whose clock is taken for the others' too".to_owned(),
            ahead if ahead > 0 => format!("whose clock was {:.3} ms ahead", ahead as f64 / 1e3),
            behind => format!("whose clock was {:.3} ms behind", -behind as f64 / 1e3),
        };
        story.push(format!("{lane} is {} in {lives}, {clock}.", life.head.name));
    }
    let each = lanes::CLIENTS_PER_NODE;
    story.push(format!(
        "Clients from c{each} on are those of n1, from c{} on those of n2, and so on: each lane holds what that node was asked while the lanes above were busy.",
        2 * each
    ));
    story
}

impl Omitted {
    /// In sentences.
    fn story(self) -> impl Iterator<Item = String> {
        let counts = [
            (self.unsent, "arrivals of messages whose sending nobody recorded"),
            (self.unheard, "messages to nodes that did not record what arrives"),
            (self.unnoticed, "messages whose arrival was not recorded"),
            (self.halves, "events whose other half was not recorded"),
            (self.unrecorded, "events that the processes could not record"),
        ];
        counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("Left out: {count} {what}."))
    }
}

#[cfg(test)]
mod tests;
