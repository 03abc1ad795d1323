//! Linearizable reads: confirmed by a round of heartbeats, many reads to a round (Raft dissertation, section 6.4).
//!
//! ```text
//!   waiting ──> round (context) ──confirmed at index──> released once the replica has applied that index
//!      ^───────────── no answer for a while, or another leader
//! ```
//!
//! A round confirms everything that was waiting when it *started*, and any round before it. No clock is involved.

use crate::bounds::{READ_ROUNDS_MAX, RETRY};
use quorate_consensus::{Group, Role};
use quorate_env::{Instant, LogIndex};
use quorate_kv::SessionId;
use std::collections::VecDeque;

/// Confirmed rounds that are remembered: where so many wait to be applied, the first of them say too little.
const FRESH_KEPT: usize = 64;

struct Round<T> {
    context: u64,
    started: Instant,
    items: Vec<T>,
}

/// Reads (or anything else that needs a confirmed leader) of one replica.
pub(crate) struct Reads<T> {
    session: SessionId,
    next_context: u64,
    waiting: Vec<T>,
    rounds: VecDeque<Round<T>>,
    confirmed: VecDeque<(LogIndex, Vec<T>)>,
    /// What rounds have confirmed: what was committed when each started. Only the last one that is applied is kept, and those that are not yet.
    fresh: VecDeque<(LogIndex, Instant)>,
}

/// The context of a round as a leader sends it back whose clients were told of more than is committed. The index of consensus' own message cannot say that: it is taken
/// for one that is committed.
pub(crate) fn not_before(context: &[u8], later: LogIndex) -> Vec<u8> {
    [context, &later.0.to_be_bytes()].concat()
}

impl<T> Reads<T> {
    /// `session` makes contexts unique in the cluster.
    pub fn new(session: SessionId) -> Self {
        let (waiting, rounds, confirmed, fresh) = (Vec::new(), VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { session, next_context: 1, waiting, rounds, confirmed, fresh }
    }

    pub fn push(&mut self, item: T) {
        self.waiting.push(item);
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
            + self.rounds.iter().map(|round| round.items.len()).sum::<usize>()
            + self.confirmed.iter().map(|(_, items)| items.len()).sum::<usize>()
    }

    /// Starts a round if reads wait and one can be confirmed.
    pub fn start(&mut self, now: Instant, group: &mut Group) {
        let able = if group.role() == Role::Leader { group.leads_settled() } else { group.leader().is_some() };
        if self.waiting.is_empty() || !able || self.rounds.len() >= READ_ROUNDS_MAX {
            return;
        }
        let context = self.next_context;
        self.next_context += 1;
        group.read_index([self.session.0.to_be_bytes(), context.to_be_bytes()].concat());
        self.rounds.push_back(Round { context, started: now, items: std::mem::take(&mut self.waiting) });
    }

    /// A round was confirmed: its reads, and those of earlier rounds, may be served at `index`, or later, if it is [`not_before`] another.
    pub fn confirm(&mut self, context: &[u8], index: LogIndex) {
        let (words, []) = context.as_chunks() else { return };
        let (session, context, index) = match words.iter().map(|word| u64::from_be_bytes(*word)).collect::<Vec<_>>()[..]
        {
            [session, context] => (session, context, index),
            [session, context, later] => (session, context, index.max(LogIndex(later))),
            _ => return,
        };
        let round = self.rounds.iter().find(|round| round.context == context);
        let Some(round) = round.filter(|_| session == self.session.0) else { return };
        if self.fresh.len() == FRESH_KEPT {
            self.fresh.pop_front();
        }
        self.fresh.push_back((index, round.started));
        let mut items = Vec::new();
        while self.rounds.front().is_some_and(|round| round.context <= context) {
            items.extend(self.rounds.pop_front().into_iter().flat_map(|round| round.items));
        }
        self.confirmed.push_back((index, items));
    }

    /// Everything that was acknowledged before this is applied here.
    pub fn fresh_since(&mut self, applied: LogIndex) -> Option<Instant> {
        while self.fresh.get(1).is_some_and(|(index, _)| *index <= applied) {
            self.fresh.pop_front();
        }
        self.fresh.front().filter(|(index, _)| *index <= applied).map(|(_, since)| *since)
    }

    /// Confirms at once what `chosen` says, as no correct replica does.
    pub fn confirm_blindly(&mut self, index: LogIndex, mut chosen: impl FnMut(&T) -> bool) {
        let items: Vec<T> = self.waiting.extract_if(.., |item| chosen(item)).collect();
        if !items.is_empty() {
            self.confirmed.push_back((index, items));
        }
    }

    /// What may be served now.
    pub fn release(&mut self, applied: LogIndex) -> Vec<T> {
        let mut items = Vec::new();
        let mut later = VecDeque::new();
        for (index, batch) in self.confirmed.drain(..) {
            if index <= applied {
                items.extend(batch);
            } else {
                later.push_back((index, batch));
            }
        }
        self.confirmed = later;
        items
    }

    /// The leader changed: rounds in flight may never be answered, and what a leader had told its clients of may never come.
    pub fn restart(&mut self) {
        self.begin_again();
        self.waiting.extend(std::mem::take(&mut self.confirmed).into_iter().flat_map(|(_, items)| items));
    }

    fn begin_again(&mut self) {
        for round in self.rounds.drain(..).rev() {
            self.waiting.splice(0..0, round.items);
        }
    }

    /// Nothing is read here any more.
    pub fn take_all(&mut self) -> Vec<T> {
        self.restart();
        std::mem::take(&mut self.waiting)
    }

    /// Starts over rounds that got no answer, and removes what `expired` says.
    pub fn tick(&mut self, now: Instant, mut expired: impl FnMut(&T) -> bool) -> Vec<T> {
        if self.rounds.front().is_some_and(|round| now.since(round.started) >= RETRY) {
            self.begin_again();
        }
        let mut gone = Vec::new();
        let mut sift = |items: &mut Vec<T>| gone.extend(items.extract_if(.., |item| expired(item)));
        sift(&mut self.waiting);
        self.rounds.iter_mut().for_each(|round| sift(&mut round.items));
        self.confirmed.iter_mut().for_each(|(_, items)| sift(items));
        gone
    }
}
