//! The same adversary against three of Quorate's own replicas. Their timeouts are no draws but a function of place and term, so he knows them too.

use super::super::agenda::Agenda;
use super::super::replica::{Replica, place};
use super::election::PROCESSES;
use quorate_consensus::{Message, MessageKind, Role};
use std::collections::{BTreeMap, BTreeSet};

/// Longer than any of them waits for votes.
pub const LATE_TICKS: u64 = 24;
const PROMPT_TICKS: u64 = 1;
/// Elections are over long before.
const TICKS_MAX: u64 = 1_000_000;

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Whether anybody led while requests for votes were late.
    pub led_late: bool,
    /// When messages are on time again: how long it takes to have a leader.
    pub ticks_to_leader: Option<u64>,
    /// Whether some term had two leaders.
    pub two_leaders: bool,
}

/// Requests for votes are late for so many elections, and then on time.
pub fn run(late_elections: u64) -> Outcome {
    let mut replicas: Vec<Replica> = (0..PROCESSES).map(|place| Replica::new(place, PROCESSES)).collect();
    let mut agenda: Agenda<Message> = Agenda::beginning_at(0);
    let mut leaders: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
    let mut led_late = false;
    let mut on_time_since = None;
    let mut ticks_to_leader = None;
    for tick in 1..TICKS_MAX {
        while let Some(message) = agenda.next_before(tick + 1) {
            let to = &mut replicas[place(message.to)];
            to.group.step(&message).expect("what a replica says is plausible");
            plan(to, &mut agenda, tick, on_time_since.is_none());
        }
        for replica in &mut replicas {
            replica.group.tick();
            plan(replica, &mut agenda, tick, on_time_since.is_none());
        }
        for (who, replica) in replicas.iter().enumerate().filter(|(_, replica)| replica.group.role() == Role::Leader) {
            leaders.entry(replica.group.term().0).or_default().insert(who);
        }
        let term = replicas.iter().map(|replica| replica.group.term().0).max().unwrap_or(0);
        led_late |= on_time_since.is_none() && !leaders.is_empty();
        if let Some(since) = on_time_since.filter(|_| !leaders.is_empty()) {
            ticks_to_leader = Some(tick - since);
            break;
        }
        if term > late_elections {
            on_time_since.get_or_insert(tick);
        }
    }
    Outcome { led_late, ticks_to_leader, two_leaders: leaders.values().any(|leaders| leaders.len() > 1) }
}

/// What it has to say gets its time of arrival.
fn plan(replica: &mut Replica, agenda: &mut Agenda<Message>, tick: u64, late: bool) {
    let (said, _) = replica.settle();
    for message in said {
        let held = late && message.kind == MessageKind::RequestVote;
        agenda.at(tick + if held { LATE_TICKS } else { PROMPT_TICKS }, message);
    }
}
