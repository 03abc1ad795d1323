//! Onlookers of the bank: clients that read as fresh as they please, with tokens that tellers and others hand on to them, and that write what must come after them.

use super::{CLIENT_PATIENCE_US, Event, REQUEST_TIMEOUT, Step, World};
use crate::checks::dial::{DialCheck, Sight, Version};
use crate::checks::serial::Done;
use crate::history::{Violation, demand};
use crate::teller::{accounts, any_register, parse, register_range, value};
use crate::trace::recorder::node_lane;
use crate::trace::{Lane, TraceEvent, words};
use bytes::Bytes;
use quorate_cluster::{Input, Reply, Request, RequestId};
use quorate_env::{Rng, Timestamp};
use quorate_kv::across::{Look, Transaction, TransactionResult, Write};
use quorate_kv::{Error, Freshness, KeyRange, KeyspaceId, Looked, Refusal, Unavailable};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How many there are.
/// For how long a keyspace keeps its history if nothing is said.
const HISTORY_MS: u64 = 60 * 60 * 1_000;

pub(super) const LOOKERS: usize = 2;

/// Tokens that are handed on.
const TOKENS_MAX: usize = 16;

/// How far before or behind a token a moment lies that somebody wants to see, in milliseconds.
const EARLIER_MS_MAX: u64 = 3_000;
const LATER_MS_MAX: u64 = 100;

/// How old something may be that is read within an age, in milliseconds.
const AGE_MS: (u64, u64) = (1, 1_500);

/// Who has read within an age looks again at once, in so many of a thousand cases, and wants it to be younger than this: what took long to arrive is old.
const AGAIN_PER_MILLE: u64 = 500;
const AGAIN_MS: (u64, u64) = (1, 50);

#[derive(Clone, Debug)]
enum Deed {
    Look { freshness: Freshness, range: KeyRange },
    Write { key: Bytes },
}

#[derive(Clone, Debug)]
struct Flight {
    request: RequestId,
    operation: u64,
    node: usize,
    began_us: u64,
    deed: Deed,
}

/// What they do, and what they have seen.
#[derive(Default)]
pub(super) struct Lookers {
    rng: Option<Rng>,
    flights: BTreeMap<usize, Flight>,
    /// Timestamps that somebody was told, the youngest last.
    tokens: Vec<Timestamp>,
    /// Who looks again, where, and at what.
    again: BTreeMap<usize, (usize, Deed)>,
    pub check: DialCheck,
}

impl Lookers {
    pub fn new(rng: Rng) -> Self {
        Self { rng: Some(rng), ..Self::default() }
    }

    /// Whether somebody was told another timestamp than that.
    pub fn was_told_otherwise(&self, operation: u64, at: Option<Timestamp>) -> bool {
        let told = self.check.told.get(&operation).copied();
        told.zip(at).is_some_and(|(told, at)| told != at)
    }

    fn draw(&mut self, low: u64, high: u64) -> u64 {
        self.rng.as_mut().map_or(low, |rng| rng.between(low, high))
    }

    /// Somebody was told of a moment.
    pub fn hand_on(&mut self, token: Timestamp) {
        if token == Timestamp::ZERO {
            return;
        }
        if self.tokens.len() == TOKENS_MAX {
            self.tokens.remove(0);
        }
        self.tokens.push(token);
    }

    fn looks_again(&mut self) -> bool {
        self.rng.as_mut().is_some_and(|rng| rng.chance(AGAIN_PER_MILLE))
    }

    fn token(&mut self) -> Option<Timestamp> {
        let last = self.tokens.len().checked_sub(1)?;
        let at = self.draw(0, last as u64) as usize;
        Some(self.tokens[at])
    }

    fn deed(&mut self) -> Option<Deed> {
        let all = self.draw(0, 1) == 0;
        let token = self.token();
        let freshness = match (self.draw(0, 99), token) {
            (0..35, Some(token)) => Freshness::At(match self.draw(0, 3) {
                0 => token,
                1 => Timestamp(token.0 + (self.draw(0, LATER_MS_MAX) << 16)),
                _ => Timestamp(token.0.saturating_sub(self.draw(0, EARLIER_MS_MAX) << 16)),
            }),
            (35..60, Some(token)) => Freshness::After(token),
            (60..70, Some(_)) => {
                let rng = self.rng.as_mut()?;
                return Some(Deed::Write { key: any_register(rng) });
            }
            (70..85, _) => Freshness::Within(Duration::from_millis(self.draw(AGE_MS.0, AGE_MS.1))),
            (85..92, _) => Freshness::Any,
            _ => Freshness::Strict,
        };
        let range = if all { accounts() } else { register_range(self.rng.as_mut()?) };
        Some(Deed::Look { freshness, range })
    }
}

impl World<'_> {
    pub(super) fn open_eyes(&mut self) {
        for looker in 0..LOOKERS {
            self.looker_goes_on(looker);
        }
    }

    fn looker_goes_on(&mut self, looker: usize) {
        let (low, high) = self.plan.bank.map_or((1, 1), |bank| bank.look_us);
        let wait = self.lookers.draw(low, high);
        self.after(wait, Event::Looker { looker });
    }

    /// Their lanes are behind those of the tellers.
    fn looker_lane(&self, looker: usize) -> Lane {
        Lane::Client((self.plan.clients + self.bank.tellers.len() + looker) as u64)
    }

    pub(super) fn looker_turn(&mut self, looker: usize) -> Step {
        if self.lookers.flights.contains_key(&looker) || self.bank_rests() {
            return Ok(());
        }
        let again = self.lookers.again.remove(&looker);
        let there = self.not_retired();
        let node = there[self.lookers.draw(0, there.len() as u64 - 1) as usize];
        let node = again.as_ref().map(|(node, _)| *node).filter(|node| there.contains(node)).unwrap_or(node);
        let (Some(bank), true) = (self.bank_of(node), self.bank_is_open()) else {
            self.looker_goes_on(looker);
            return Ok(());
        };
        let now = if again.is_none() { self.now_by_own_clock() } else { None };
        let clocked = now.map(|at| Deed::Look { freshness: Freshness::At(at), range: accounts() });
        let deed = again.map(|(_, deed)| deed).or_else(|| clocked.clone()).or_else(|| self.lookers.deed());
        let Some(deed) = deed else { return Ok(()) };
        let (id, operation) = (self.next_request, self.next_operation);
        (self.next_request, self.next_operation) = (id + 1, operation + 1);
        let asked = self.script.and_then(|script| script.operations).is_none_or(|asked| asked.contains(operation));
        if !asked || self.nodes[node].node.is_none() {
            self.looker_goes_on(looker);
            return Ok(());
        }
        self.played.asked.insert(operation);
        if clocked.is_some() {
            self.lookers.check.clocked.insert(operation);
        }
        let request = self.request_of(bank.id, operation, &deed);
        let (client, lane) = (self.looker_lane(looker), node_lane(node));
        self.trace(|| {
            let text = match &request {
                Request::Look { looks, freshness } => words::looks(looks, *freshness),
                _ => format!("write a register, after {:?}", deed),
            };
            TraceEvent::Ask { client, node: lane, operation, text }
        });
        self.lookers.flights.insert(looker, Flight { request: id, operation, node, began_us: self.now, deed });
        self.after(CLIENT_PATIENCE_US, Event::LookerPatience { looker, request: id });
        self.feed(node, Input::Request { id, timeout: REQUEST_TIMEOUT, request })
    }

    fn request_of(&mut self, keyspace: KeyspaceId, operation: u64, deed: &Deed) -> Request {
        match deed {
            Deed::Look { freshness, range } => {
                let looks = vec![Look { keyspace, range: range.clone(), limit: 0 }];
                Request::Look { looks, freshness: *freshness }
            }
            Deed::Write { key } => {
                let after = self.lookers.token().unwrap_or_default();
                self.lookers.check.after.insert(operation, after);
                let done = Done { began_us: self.now, wrote: vec![key.clone()], ..Done::default() };
                self.note_done(operation, done);
                let success = vec![(keyspace, Write::Put { key: key.clone(), value: value(operation, 0) })];
                Request::Transact(Transaction { success, after, ..Transaction::default() })
            }
        }
    }

    pub(super) fn looker_patience(&mut self, looker: usize, request: RequestId) {
        if self.lookers.flights.get(&looker).is_some_and(|flight| flight.request == request) {
            self.lookers.flights.remove(&looker);
            self.mark("unknown outcome");
            self.looker_goes_on(looker);
        }
    }

    /// Whether an answer was an onlooker's; what is made of it.
    pub(super) fn looker_hears(
        &mut self,
        request: RequestId,
        answer: &Result<Reply, Error>,
    ) -> Result<bool, Violation> {
        let Some(looker) = self.lookers.flights.iter().find(|(_, f)| f.request == request).map(|(looker, _)| *looker)
        else {
            return Ok(false);
        };
        let Some(flight) = self.lookers.flights.remove(&looker) else { return Ok(false) };
        let (client, node, operation) = (self.looker_lane(looker), node_lane(flight.node), flight.operation);
        self.trace(|| {
            let (outcome, revision, text) = words::answered(answer);
            TraceEvent::Answer { client, node, operation, outcome, revision, text }
        });
        self.hash(&operation.to_le_bytes());
        match (answer, &flight.deed) {
            (Ok(Reply::Looked(looked)), Deed::Look { freshness, range }) => {
                self.looker_saw(&flight, *freshness, range, looked)?;
            }
            (Ok(Reply::Transacted(TransactionResult { looks, at, .. })), Deed::Look { range, .. }) => {
                self.mark("strict read over shards");
                let looked = Looked { looks: looks.clone(), token: *at };
                self.looker_saw(&flight, Freshness::Strict, range, &looked)?;
            }
            (Ok(Reply::Transacted(result)), Deed::Write { .. }) => {
                self.mark("written after a token");
                self.note_told(operation, result.at);
                self.end_done(operation, Vec::new(), &[])?;
            }
            (Err(Error::Refused(Refusal::MomentAhead { .. })), _) => {
                self.mark("moment lies ahead");
                self.note_refused(operation);
            }
            (Err(Error::Refused(Refusal::MomentForgotten { at })), Deed::Look { .. }) => {
                let history_ms = self.plan.bank.and_then(|bank| bank.history_ms).unwrap_or(HISTORY_MS);
                (0..self.nodes.len()).try_for_each(|node| self.note_history(node))?;
                let may = self.chronicle.may_have_forgotten(*at, history_ms);
                demand(may, "history lasts as long as it is to", || format!("operation {operation} asked for {at}"))?;
                self.mark("moment is forgotten");
            }
            (Err(Error::UnknownOutcome(_) | Error::UnknownTransaction { .. }), _) => self.mark("unknown outcome"),
            (
                Err(
                    Error::Unavailable(_)
                    | Error::Refused(Refusal::Locked { .. } | Refusal::Aborted { .. } | Refusal::Moved { .. }),
                ),
                _,
            ) => {
                if let Err(Error::Unavailable(Unavailable::FeatureLevel { .. })) = answer {
                    self.mark("refused below its feature level");
                }
                self.note_refused(operation);
            }
            _ => {
                let (_, _, text) = words::answered(answer);
                return Err(Violation { rule: "answers fit", detail: format!("an onlooker was told: {text}") });
            }
        }
        match flight.deed {
            Deed::Look { freshness: Freshness::Within(_), range } if answer.is_ok() && self.lookers.looks_again() => {
                let freshness = Freshness::Within(Duration::from_millis(self.lookers.draw(AGAIN_MS.0, AGAIN_MS.1)));
                self.lookers.again.insert(looker, (flight.node, Deed::Look { freshness, range }));
                self.after(1, Event::Looker { looker });
            }
            _ => self.looker_goes_on(looker),
        }
        Ok(true)
    }

    fn looker_saw(&mut self, flight: &Flight, freshness: Freshness, range: &KeyRange, looked: &Looked) -> Step {
        let operation = flight.operation;
        let kvs = looked.looks.first().map(|look| look.kvs.clone()).unwrap_or_default();
        self.mark(match freshness {
            Freshness::Strict => "strict read",
            Freshness::At(_) => "read of a moment",
            Freshness::Within(_) => "read within an age",
            Freshness::After(_) => "read after a token",
            Freshness::Any => "read of whatever is there",
        });
        let mut saw = BTreeMap::new();
        let mut amounts = Vec::new();
        for kv in &kvs {
            let (writer, amount) = parse(&kv.value).ok_or_else(|| Violation {
                rule: "reads see what was committed",
                detail: format!("operation {operation} saw {kv:?}"),
            })?;
            saw.insert(kv.key.clone(), writer);
            amounts.push(amount);
        }
        if *range == accounts() && matches!(freshness, Freshness::At(_) | Freshness::Strict) && !amounts.is_empty() {
            demand(self.bank.accounts.hold_all(&amounts), "money is conserved", || {
                let (count, sum) = (amounts.len(), amounts.iter().sum::<i64>());
                format!("operation {operation}, {freshness:?}, saw {count} accounts with {sum} in all")
            })?;
            self.mark("audit");
        }
        if freshness == Freshness::Strict {
            self.note_done(operation, Done { began_us: flight.began_us, ..Done::default() });
            self.end_done(operation, vec![range.clone()], &kvs)?;
        }
        self.lookers.hand_on(looked.token);
        let (began_us, token) = (flight.began_us, looked.token);
        let timely = !self.clocks_ran_wrong();
        let sight = Sight { operation, began_us, freshness, looked: range.clone(), saw, token, timely };
        self.lookers.check.sights.push(sight);
        self.report.operations += 1;
        Ok(())
    }

    /// A transaction was told when it happened.
    pub(super) fn note_told(&mut self, operation: u64, at: Timestamp) {
        if at != Timestamp::ZERO {
            self.lookers.hand_on(at);
            self.lookers.check.told.insert(operation, at);
        }
    }

    /// What somebody was told turned out not to be so.
    pub(super) fn answer_was_lost(&mut self, operation: u64) {
        if let Some(done) = self.bank.check.done.get_mut(&operation) {
            (done.ended_us, done.looked, done.saw) = (None, Vec::new(), BTreeMap::new());
        }
        self.lookers.check.told.remove(&operation);
    }

    /// In the end it is known what was there to be seen, and when.
    pub(super) fn judge_sights(&mut self, versions: &BTreeMap<Bytes, Vec<Version>>, lost: &BTreeSet<u64>) -> Step {
        let mut acknowledged = self.acknowledged();
        acknowledged.retain(|operation, _| !lost.contains(operation));
        let judged = self.lookers.check.finish(versions, &acknowledged)?;
        self.report.explained += judged;
        Ok(())
    }
}
