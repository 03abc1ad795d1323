//! Sendings and arrivals of the same messages, in whatever files they are.
//!
//! The messages of one connection have consecutive ids, and arrive in order: where a later one arrived, an earlier one did.

use super::Omitted;
use super::clocks::Delays;
use super::told::Told;
use crate::{Lane, Loss, MessageId, TraceEvent};
use std::collections::BTreeMap;

/// Ids of different connections are drawn at random: they are further apart than any connection is long.
const APART: u64 = 1 << 32;

/// What is sent this long before the receiver's record ends may still have been under way, in microseconds.
const UNDER_WAY_US: i64 = 1_000_000;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives,
    /// Its arrival may be later than anything that was recorded.
    UnderWay,
    Lost(Loss),
    LeftOut,
}

#[derive(Clone, Copy)]
struct Sent {
    life: usize,
    at: u64,
    to: u64,
}

/// Both ends of messages.
pub(super) struct Ties {
    sent: BTreeMap<MessageId, Sent>,
    arrived: BTreeMap<MessageId, (usize, u64)>,
}

impl Ties {
    pub fn of(told: &[Told]) -> Self {
        let (mut sent, mut arrived) = (BTreeMap::new(), BTreeMap::new());
        for (life, record) in told.iter().enumerate().flat_map(|(n, life)| life.records.iter().map(move |r| (n, r))) {
            let at = record.at;
            match record.event {
                TraceEvent::Send { message, to: Lane::Node(to), .. } => {
                    sent.entry(message).or_insert(Sent { life, at, to });
                }
                TraceEvent::Deliver { message } => {
                    arrived.entry(message).or_insert((life, at));
                }
                _ => {}
            }
        }
        // At an address there may be another than the sender thought.
        arrived
            .retain(|message, (life, _)| sent.get(message).is_none_or(|sent: &Sent| sent.to == told[*life].head.node));
        Self { sent, arrived }
    }

    /// The fastest message from each life to each other, as their clocks stand.
    pub fn least_delays(&self, told: &[Told]) -> Delays {
        let mut least = Delays::new();
        for (message, (to, arrived)) in &self.arrived {
            let Some(sent) = self.sent.get(message) else { continue };
            let time = |life: usize, at: u64| told[life].head.wall as i64 + at as i64;
            let delay = time(*to, *arrived) - time(sent.life, sent.at);
            least.entry((sent.life, *to)).and_modify(|least| *least = delay.min(*least)).or_insert(delay);
        }
        least
    }

    /// What became of each message that was sent. All lives have their place in time.
    pub fn fates(&self, told: &[Told], omitted: &mut Omitted) -> BTreeMap<MessageId, Fate> {
        omitted.unsent += self.arrived.keys().filter(|message| !self.sent.contains_key(message)).count() as u64;
        let mut fates = BTreeMap::new();
        let mut later: Option<(MessageId, Sent, bool)> = None;
        // Backwards along each connection: once one has arrived, those before it have.
        for (message, sent) in self.sent.iter().rev() {
            let same = |(next, other, _): &(MessageId, Sent, bool)| {
                next.0 - message.0 < APART && (other.life, other.to) == (sent.life, sent.to)
            };
            let a_later_one_did = later.filter(same).is_some_and(|(_, _, arrived)| arrived);
            let arrived = self.arrived.contains_key(message);
            let fate = match (arrived, a_later_one_did) {
                (true, _) => Fate::Arrives,
                (false, true) => {
                    omitted.unnoticed += 1;
                    Fate::LeftOut
                }
                (false, false) => self.unarrived(told, sent),
            };
            omitted.unheard += u64::from(fate == Fate::LeftOut && !a_later_one_did);
            fates.insert(*message, fate);
            later = Some((*message, *sent, arrived || a_later_one_did));
        }
        fates
    }

    /// As the receiver's record says.
    fn unarrived(&self, told: &[Told], sent: &Sent) -> Fate {
        let time = told[sent.life].zero + sent.at as i64;
        let lives: Vec<&Told> = told.iter().filter(|life| life.head.node == sent.to).collect();
        let Some(life) = lives.iter().rev().find(|life| life.span().0 <= time) else {
            return if lives.is_empty() { Fate::LeftOut } else { Fate::Lost(Loss::Down) };
        };
        let end = life.span().1;
        match (time <= end, life.has_ended()) {
            (true, true) => Fate::Lost(Loss::Cut),
            (true, false) if time + UNDER_WAY_US <= end => Fate::Lost(Loss::Cut),
            (_, false) if life.outlives_record => Fate::LeftOut,
            (true, false) => Fate::UnderWay,
            (false, true) if life.outlives_record => Fate::LeftOut,
            (false, true) => Fate::Lost(Loss::Down),
            (false, false) => Fate::UnderWay,
        }
    }
}
