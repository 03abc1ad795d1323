//! Logs: keyspaces of records, producers that append to them, alone and together with what they write at the bank, followers that fetch, and somebody who cuts them off.

use super::moves::places;
use super::{CLIENT_PATIENCE_US, Event, REQUEST_TIMEOUT, SHARDS, Step, World, id_of};
use crate::checks::logs::{Asked, LogCheck, Mark, Sight, Written};
use crate::checks::serial::Done;
use crate::history::{Violation, demand};
use crate::plan::LogPlan;
use crate::teller::{any_register, value};
use crate::trace::recorder::node_lane;
use crate::trace::{Lane, TraceEvent, words};
use bytes::Bytes;
use quorate_cluster::keyspaces::Keyspaces;
use quorate_cluster::{Input, Reply, Request, RequestId};
use quorate_env::{NodeId, Rng, Timestamp};
use quorate_kv::across::{Check, Transaction, TransactionResult, Write};
use quorate_kv::log::{Entry, Fetch, Record, offset_of};
use quorate_kv::{
    Command, CompareOp, Error, EventKind, Expected, Freshness, KeyRange, Keyspace, KeyspaceKind, Level, Outcome,
    Policy, Refusal, Revision,
};
use quorate_shard::{MachineError, View};
use std::collections::BTreeMap;

/// How often somebody looks whether the logs are there, in microseconds.
const LOOK_US: u64 = 50_000;

/// How long a producer waits before it asks again for what it has a name for, in microseconds.
const NAMED_PATIENCE_US: (u64, u64) = (20_000, 1_000_000);

/// How often something is asked for, under one name.
const ASKED_MAX: u32 = 4;

/// How many follow.
const FOLLOWERS: usize = 2;

/// Of a thousand fetches, those that begin at the beginning, and those that are as fresh as it comes.
const ANEW_PER_MILLE: u64 = 80;
const STALE_PER_MILLE: u64 = 150;

/// Of a thousand transactions of producers, those with a check that does not hold.
const VAIN_PER_MILLE: u64 = 250;

/// Of a thousand appends, those of many records.
const MANY_PER_MILLE: u64 = 40;

/// The name of a log.
fn name(log: usize) -> String {
    format!("log-{log}")
}

/// What a record says: who appends it, and its place among that one's.
fn record(producer: usize, (operation, index): Mark) -> Record {
    Record::of(format!("p{producer}"), format!("{operation}/{index}"))
}

fn mark_of(entry: &Entry) -> Result<(u64, Mark, Timestamp), Violation> {
    let said = std::str::from_utf8(&entry.record.value).ok().and_then(|said| said.split_once('/'));
    let mark = said.and_then(|(operation, index)| Some((operation.parse().ok()?, index.parse().ok()?)));
    let detail = || format!("{entry:?}");
    let mark = mark.ok_or_else(|| Violation { rule: "nobody else writes", detail: detail() })?;
    Ok((entry.offset, mark, entry.at))
}

/// Who was asked, for what, and since when.
#[derive(Clone, Debug)]
struct Flight {
    request: RequestId,
    operation: u64,
    node: usize,
    /// What is asked again if nobody answers, since it has a name.
    again: Option<Request>,
    asked: u32,
}

/// What a follower asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    request: RequestId,
    log: usize,
    fetch: Fetch,
    began_us: u64,
}

/// What goes on with logs.
#[derive(Default)]
pub(super) struct Logs {
    rng: Option<Rng>,
    producing: BTreeMap<usize, Flight>,
    completed: BTreeMap<usize, u64>,
    fetching: BTreeMap<usize, Wanted>,
    /// Where each follower goes on in each log.
    next: BTreeMap<(usize, usize), u64>,
    /// Where somebody has seen that a log ends.
    ends: BTreeMap<usize, u64>,
    /// Requests to cut a log off.
    cutting: BTreeMap<RequestId, usize>,
    founding: Option<(RequestId, u64)>,
    /// The registers that were written with appends.
    registers: BTreeMap<u64, Bytes>,
    check: LogCheck,
}

impl Logs {
    pub fn new(rng: Rng) -> Self {
        Self { rng: Some(rng), ..Self::default() }
    }

    fn draw(&mut self, low: u64, high: u64) -> u64 {
        self.rng.as_mut().map_or(low, |rng| rng.between(low, high))
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.rng.as_mut().is_some_and(|rng| rng.chance(per_mille))
    }
}

fn unreadable(e: MachineError) -> Violation {
    Violation { rule: "views can be read", detail: e.to_string() }
}

impl World<'_> {
    fn log_plan(&self) -> Option<LogPlan> {
        self.plan.logs
    }

    pub(super) fn open_logs(&mut self) {
        let Some(plan) = self.log_plan() else { return };
        self.after(LOOK_US, Event::FoundLogs);
        (0..plan.producers).for_each(|producer| self.after(LOOK_US, Event::Producer { producer }));
        (0..FOLLOWERS).for_each(|follower| self.after(LOOK_US, Event::Follower { follower }));
        if let Some(every) = plan.cut_every_us {
            self.after(every, Event::CutLog);
        }
    }

    /// A log's keyspace, as a node knows it.
    fn log_of(&self, node: usize, log: usize) -> Option<Keyspace> {
        self.nodes[node].node.as_ref()?.keyspaces().named(&name(log)).cloned()
    }

    /// Makes the logs, one after the other.
    pub(super) fn found_logs(&mut self) -> Step {
        let Some(plan) = self.log_plan() else { return Ok(()) };
        let missing = (0..plan.logs).find(|log| (0..self.nodes.len()).all(|node| self.log_of(node, *log).is_none()));
        let Some(log) = missing else { return Ok(()) };
        self.after(LOOK_US, Event::FoundLogs);
        if self.logs.founding.is_some_and(|(_, at)| self.now < at + CLIENT_PATIENCE_US / 2) {
            return Ok(());
        }
        let up = self.not_retired().into_iter().find(|node| self.nodes[*node].node.is_some());
        let Some(node) = up else { return Ok(()) };
        let core = self.nodes[node].node.as_ref().expect("it is up");
        if core.levels().cluster() < Level::LOGS {
            return Ok(());
        }
        let (keyspaces, roster) = (core.keyspaces(), core.roster());
        let founders = roster.founders((0..self.plan.nodes).map(id_of));
        let nodes = founders.iter().map(|founder| NodeId(founder.0)).collect();
        let made = keyspaces.create(&name(log), KeyspaceKind::Log, &[], founders);
        let (keyspace, mut txn) = made.map_err(|e| Violation { rule: "answers fit", detail: e.to_string() })?;
        if let Some(replicas) = self.plan.bank.and_then(|bank| bank.replicas) {
            txn.success.extend(places(core.placements(), &keyspace, &nodes, replicas));
        }
        // All that was ever in a log is known in the end.
        let retain_bytes = plan.retain_bytes.filter(|_| log == 0);
        let policy = Policy { history: None, retain_bytes, ..Policy::OF_MADE };
        txn.success.push(Keyspaces::wanted(keyspace.id, policy));
        txn.compares.extend(roster.unchanged());
        let id = self.next_request;
        self.next_request += 1;
        self.logs.founding = Some((id, self.now));
        let request = Request::Submit { shard: SHARDS[0], command: Command::Transact(txn) };
        self.feed(node, Input::Request { id, timeout: REQUEST_TIMEOUT, request })
    }

    /// Their lanes are behind those of the onlookers; followers' behind those of the producers.
    fn log_lane(&self, at: usize) -> Lane {
        Lane::Client((self.plan.clients + self.bank.tellers.len() + super::lookers::LOOKERS + at) as u64)
    }

    fn some_node(&mut self) -> usize {
        let there = self.not_retired();
        there[self.logs.draw(0, there.len() as u64 - 1) as usize]
    }

    // ---- producers

    pub(super) fn producer_turn(&mut self, producer: usize) -> Step {
        let Some(plan) = self.log_plan() else { return Ok(()) };
        if self.logs.producing.contains_key(&producer) || self.bank_rests() {
            return Ok(());
        }
        let node = self.some_node();
        let logs: Vec<Keyspace> = (0..plan.logs).filter_map(|log| self.log_of(node, log)).collect();
        if logs.len() < plan.logs {
            self.after(LOOK_US, Event::Producer { producer });
            return Ok(());
        }
        let operation = self.next_operation;
        self.next_operation += 1;
        if self.script.and_then(|script| script.operations).is_some_and(|asked| !asked.contains(operation)) {
            *self.logs.completed.entry(producer).or_default() += 1;
            self.producer_goes_on(producer);
            return Ok(());
        }
        self.played.asked.insert(operation);
        let transaction = self.appends(producer, operation, &logs, node);
        let request = Request::Transact(transaction.clone());
        let again = transaction.key.is_some().then(|| request.clone());
        let flight = Flight { request: 0, operation, node, again, asked: 0 };
        self.producer_asks(producer, flight, request)
    }

    /// Draws what a producer wants.
    fn appends(&mut self, producer: usize, operation: u64, logs: &[Keyspace], node: usize) -> Transaction {
        let mut asked = Asked { began_us: self.now, ..Asked::default() };
        let mut transaction = Transaction::default();
        let bank = self.bank_of(node).filter(|_| self.bank_is_open() && self.logs.chance(400));
        let several = if bank.is_some() { self.logs.draw(1, 2) } else { 1 };
        let mut index = 0;
        for _ in 0..several {
            let log = self.logs.draw(0, logs.len() as u64 - 1) as usize;
            // Some append more than is removed in one step.
            let count = if self.logs.chance(MANY_PER_MILLE) { self.logs.draw(60, 120) } else { self.logs.draw(1, 3) };
            let records = (index..index + count).map(|index| record(producer, (operation, index))).collect();
            transaction.success.push((logs[log].id, Write::Append(records)));
            asked.appends.push((log, count));
            index += count;
        }
        if self.logs.chance(500) {
            transaction.key = Some(u128::from(operation));
        }
        if let Some(bank) = bank
            && let Some(rng) = &mut self.logs.rng
        {
            let key = any_register(rng);
            if rng.chance(VAIN_PER_MILLE) {
                let (op, expected) = (CompareOp::Equal, Expected::Version(-1));
                transaction.checks.push(Check { keyspace: bank.id, key: key.clone(), op, expected });
            }
            transaction.success.push((bank.id, Write::Put { key: key.clone(), value: value(operation, 0) }));
            let done = Done { began_us: self.now, wrote: vec![key.clone()], ..Done::default() };
            self.note_done(operation, done);
            self.logs.registers.insert(operation, key);
        }
        self.logs.check.asked.insert(operation, asked);
        transaction
    }

    fn producer_asks(&mut self, producer: usize, mut flight: Flight, request: Request) -> Step {
        let id = self.next_request;
        self.next_request += 1;
        flight.request = id;
        flight.asked += 1;
        let (client, operation, node, asked) = (self.log_lane(producer), flight.operation, flight.node, flight.asked);
        self.trace(|| TraceEvent::Ask { client, node: node_lane(node), operation, text: "append".into() });
        let patience = match flight.again {
            Some(_) => self.logs.draw(NAMED_PATIENCE_US.0, NAMED_PATIENCE_US.1),
            None => CLIENT_PATIENCE_US,
        };
        self.logs.producing.insert(producer, flight);
        self.after(patience, Event::ProducerPatience { producer, operation, asked });
        if self.nodes[node].node.is_none() {
            return self.producer_gives_up(producer);
        }
        self.feed(node, Input::Request { id, timeout: REQUEST_TIMEOUT, request })
    }

    pub(super) fn producer_patience(&mut self, producer: usize, operation: u64, asked: u32) -> Step {
        let waits = |flight: &Flight| flight.operation == operation && flight.asked == asked;
        if self.logs.producing.get(&producer).is_some_and(waits) {
            return self.producer_gives_up(producer);
        }
        Ok(())
    }

    /// Nobody tells what became of it: what has a name is asked for again, of another node.
    fn producer_gives_up(&mut self, producer: usize) -> Step {
        let Some(mut flight) = self.logs.producing.remove(&producer) else { return Ok(()) };
        self.mark("unknown outcome");
        let up: Vec<usize> = self.not_retired().into_iter().filter(|node| self.nodes[*node].node.is_some()).collect();
        match flight.again.clone().filter(|_| flight.asked < ASKED_MAX && !up.is_empty()) {
            Some(request) => {
                flight.node = up[self.logs.draw(0, up.len() as u64 - 1) as usize];
                self.producer_asks(producer, flight, request)
            }
            None => {
                self.producer_goes_on(producer);
                Ok(())
            }
        }
    }

    fn producer_goes_on(&mut self, producer: usize) {
        let (low, high) = self.plan.think_us;
        let wait = self.logs.draw(low, high);
        self.after(wait, Event::Producer { producer });
    }

    fn producer_hears(&mut self, producer: usize, flight: Flight, answer: &Result<Reply, Error>) -> Step {
        let operation = flight.operation;
        match answer {
            Ok(Reply::Transacted(result)) => self.appended(producer, &flight, result)?,
            Err(Error::UnknownOutcome(_) | Error::UnknownTransaction { .. }) => {
                self.logs.producing.insert(producer, flight);
                return self.producer_gives_up(producer);
            }
            // Asked twice, it may have happened the first time.
            Err(Error::Unavailable(_) | Error::Refused(_)) if flight.asked > 1 => self.mark("unknown outcome"),
            Err(
                Error::Unavailable(_)
                | Error::Refused(Refusal::Locked { .. } | Refusal::Aborted { .. } | Refusal::Moved { .. }),
            ) => {
                self.mark("transaction given up");
                self.wrote_nothing(operation);
                if self.logs.registers.contains_key(&operation) {
                    self.note_refused(operation);
                }
            }
            _ => {
                let (_, _, text) = words::answered(answer);
                return Err(Violation { rule: "answers fit", detail: format!("a producer was told: {text}") });
            }
        }
        self.producer_goes_on(producer);
        Ok(())
    }

    fn wrote_nothing(&mut self, operation: u64) {
        if let Some(asked) = self.logs.check.asked.get_mut(&operation) {
            asked.nothing = true;
        }
    }

    /// It was done, or turned out to be nothing.
    fn appended(&mut self, producer: usize, flight: &Flight, result: &TransactionResult) -> Step {
        let (operation, now) = (flight.operation, self.now);
        self.note_told(operation, result.at);
        if self.logs.registers.contains_key(&operation) {
            if !result.succeeded {
                self.bank_wrote_nothing(operation);
            }
            self.end_done(operation, Vec::new(), &[])?;
        }
        *self.logs.completed.entry(producer).or_default() += 1;
        self.report.operations += 1;
        if !result.succeeded {
            self.mark("append in vain");
            self.wrote_nothing(operation);
            return Ok(());
        }
        let Some(asked) = self.logs.check.asked.get_mut(&operation) else { return Ok(()) };
        let told = result.appended.len() == asked.appends.len();
        demand(told, "answers fit", || format!("operation {operation}, {asked:?}, was told {:?}", result.appended))?;
        asked.ended_us = Some(now);
        asked.told.clone_from(&result.appended);
        let ends: Vec<(usize, u64)> =
            asked.appends.iter().zip(&asked.told).map(|((log, count), first)| (*log, first + count)).collect();
        for (log, end) in ends {
            let known = self.logs.ends.entry(log).or_default();
            *known = end.max(*known);
        }
        self.mark(match () {
            () if result.repeated => "append repeated",
            () if self.logs.registers.contains_key(&operation) => "append over shards",
            () => "records appended",
        });
        Ok(())
    }

    // ---- followers, and who cuts off

    pub(super) fn follower_turn(&mut self, follower: usize) -> Step {
        let Some(plan) = self.log_plan() else { return Ok(()) };
        if self.logs.fetching.contains_key(&follower) || self.bank_rests() {
            return Ok(());
        }
        let (node, log) = (self.some_node(), self.logs.draw(0, plan.logs as u64 - 1) as usize);
        let Some(keyspace) = self.log_of(node, log) else {
            self.after(LOOK_US, Event::Follower { follower });
            return Ok(());
        };
        let operation = self.next_operation;
        self.next_operation += 1;
        let asked = self.script.and_then(|script| script.operations).is_none_or(|asked| asked.contains(operation));
        if !asked || self.nodes[node].node.is_none() {
            self.follower_goes_on(follower);
            return Ok(());
        }
        self.played.asked.insert(operation);
        let anew = self.logs.chance(ANEW_PER_MILLE);
        let from = if anew { 0 } else { self.logs.next.get(&(follower, log)).copied().unwrap_or(0) };
        let freshness = if self.logs.chance(STALE_PER_MILLE) { Freshness::Any } else { Freshness::Strict };
        let max = self.logs.draw(1, 8);
        let fetch = Fetch { keyspace: keyspace.id, from, max, bytes_max: usize::MAX, freshness };
        let id = self.next_request;
        self.next_request += 1;
        let client = self.log_lane(plan.producers + follower);
        let text = format!("fetch from {from} of {}", keyspace.name);
        self.trace(|| TraceEvent::Ask { client, node: node_lane(node), operation, text });
        self.logs.fetching.insert(follower, Wanted { request: id, log, fetch, began_us: self.now });
        self.after(CLIENT_PATIENCE_US, Event::FollowerPatience { follower, request: id });
        let request = Request::Look { looks: fetch.looks(), freshness };
        self.feed(node, Input::Request { id, timeout: REQUEST_TIMEOUT, request })
    }

    pub(super) fn follower_patience(&mut self, follower: usize, request: RequestId) {
        if self.logs.fetching.get(&follower).is_some_and(|wanted| wanted.request == request) {
            self.logs.fetching.remove(&follower);
            self.follower_goes_on(follower);
        }
    }

    fn follower_goes_on(&mut self, follower: usize) {
        let (low, high) = self.plan.think_us;
        let wait = self.logs.draw(low, high);
        self.after(wait, Event::Follower { follower });
    }

    fn follower_hears(&mut self, follower: usize, wanted: Wanted, answer: &Result<Reply, Error>) -> Step {
        self.follower_goes_on(follower);
        let Ok(Reply::Looked(looked)) = answer else {
            let fits = matches!(answer, Err(Error::Unavailable(_) | Error::Refused(Refusal::Locked { .. })));
            let (_, _, text) = words::answered(answer);
            return demand(fits, "answers fit", || format!("a follower was told: {text}"));
        };
        let Wanted { log, fetch, began_us, .. } = wanted;
        let strict = fetch.freshness == Freshness::Strict;
        match fetch.read(looked.clone()) {
            Ok(fetched) => {
                self.mark("records fetched");
                let records = fetched.entries.iter().map(mark_of).collect::<Result<_, _>>()?;
                let (first, end) = (fetched.first, fetched.end);
                self.logs.check.sights.push(Sight { began_us, log, strict, from: fetch.from, records, first, end });
                self.logs.next.insert((follower, log), fetched.next);
                self.report.operations += 1;
            }
            Err(Refusal::Trimmed { first }) => {
                self.mark("fetch of what was cut off");
                self.logs.next.insert((follower, log), first);
            }
            Err(Refusal::BeyondEnd { end }) => {
                let detail = format!("a follower had seen log {log} up to {}, and it ends at {end}", fetch.from);
                return Err(Violation { rule: "what a fetch has seen stays", detail });
            }
            Err(e) => return Err(Violation { rule: "answers fit", detail: e.to_string() }),
        }
        Ok(())
    }

    pub(super) fn cut_log(&mut self) -> Step {
        let Some((plan, every)) = self.log_plan().and_then(|plan| Some((plan, plan.cut_every_us?))) else {
            return Ok(());
        };
        if self.bank_rests() {
            return Ok(());
        }
        let wait = self.logs.draw(1, 2 * every);
        self.after(wait, Event::CutLog);
        let (node, log) = (self.some_node(), self.logs.draw(0, plan.logs as u64 - 1) as usize);
        let Some(keyspace) = self.log_of(node, log) else { return Ok(()) };
        let end = self.logs.ends.get(&log).copied().unwrap_or(0);
        // Now and then all of it.
        let before = if self.logs.chance(300) { end } else { self.logs.draw(0, end) };
        let wanted = self.logs.check.wanted.entry(log).or_default();
        *wanted = before.max(*wanted);
        let id = self.next_request;
        self.next_request += 1;
        self.logs.cutting.insert(id, log);
        let request = Request::Submit { shard: keyspace.shards[0].1, command: Command::Trim { before } };
        self.feed(node, Input::Request { id, timeout: REQUEST_TIMEOUT, request })
    }

    /// Whether an answer was to somebody who has to do with logs; what is made of it.
    pub(super) fn logs_hear(&mut self, request: RequestId, answer: &Result<Reply, Error>) -> Result<bool, Violation> {
        if self.logs.founding.is_some_and(|(id, _)| id == request) {
            self.logs.founding = None;
            return Ok(true);
        }
        if let Some(log) = self.logs.cutting.remove(&request) {
            if let Ok(Reply::Applied(applied)) = answer {
                let Outcome::Trimmed(first) = applied.outcome else {
                    return Err(Violation { rule: "answers fit", detail: format!("a cut was answered {applied:?}") });
                };
                self.mark("log cut off");
                self.logs.check.cuts.push((self.now, log, first));
            }
            return Ok(true);
        }
        let found = self.logs.producing.iter().find(|(_, flight)| flight.request == request).map(|(at, _)| *at);
        if let Some(producer) = found {
            let lost = self.log_plan().map_or(0, |plan| plan.answers_lost_per_mille);
            let named = self.logs.producing.get(&producer).is_some_and(|f| f.again.is_some() && f.asked < ASKED_MAX);
            if named && lost > 0 && self.logs.chance(lost) {
                self.mark("answer lost on its way");
                return Ok(true);
            }
            let Some(flight) = self.logs.producing.remove(&producer) else { return Ok(true) };
            self.log_answer(producer, flight.operation, flight.node, answer);
            return self.producer_hears(producer, flight, answer).map(|()| true);
        }
        let found = self.logs.fetching.iter().find(|(_, wanted)| wanted.request == request).map(|(at, _)| *at);
        let Some(follower) = found else { return Ok(false) };
        let Some(wanted) = self.logs.fetching.remove(&follower) else { return Ok(true) };
        self.hash(&wanted.began_us.to_le_bytes());
        self.follower_hears(follower, wanted, answer).map(|()| true)
    }

    fn log_answer(&mut self, at: usize, operation: u64, node: usize, answer: &Result<Reply, Error>) {
        let client = self.log_lane(at);
        self.trace(|| {
            let (outcome, revision, text) = words::answered(answer);
            TraceEvent::Answer { client, node: node_lane(node), operation, outcome, revision, text }
        });
        self.hash(&operation.to_le_bytes());
    }

    // ---- the end

    /// Given who wrote the versions of each of the bank's keys, all that was appended is explained.
    pub(super) fn judge_logs(&mut self, writers: &BTreeMap<Bytes, Vec<u64>>) -> Step {
        let Some(plan) = self.log_plan() else { return Ok(()) };
        let lasting = self.lasting();
        let (mut logs, mut retained) = (BTreeMap::new(), BTreeMap::new());
        for log in 0..plan.logs {
            let keyspace = lasting.iter().find_map(|node| self.log_of(*node, log));
            let Some(keyspace) = keyspace else { continue };
            let shard = keyspace.shards[0].1;
            let views = lasting.iter().filter_map(|node| self.nodes[*node].node.as_ref()?.view(shard));
            let view = views.max_by_key(View::applied);
            let view =
                view.ok_or_else(|| Violation { rule: "replicas catch up", detail: format!("nobody has {shard}") })?;
            let written = all_of(&view)?;
            if let Some(bytes) = keyspace.policy.retain_bytes {
                retained.insert(log, bytes);
                let wanted = self.logs.check.wanted.get(&log).copied().unwrap_or(0);
                if written.first > wanted {
                    self.mark("log cut off by itself");
                }
            }
            logs.insert(log, written);
        }
        for (operation, key) in &self.logs.registers {
            let there = writers.get(key).is_some_and(|all| all.contains(operation));
            if let Some(asked) = self.logs.check.asked.get_mut(operation) {
                asked.beside = Some(there);
            }
        }
        let explained = self.logs.check.finish(&logs, &retained)?;
        self.report.explained += explained;
        let made = logs.len() == plan.logs;
        for producer in (0..plan.producers).filter(|_| made) {
            let completed = self.logs.completed.get(&producer).copied().unwrap_or(0);
            demand(completed > 0, "every client gets served", || format!("producer {producer}"))?;
        }
        Ok(())
    }
}

/// All that was ever written to a log: nothing was compacted there.
fn all_of(view: &View) -> Result<Written, Violation> {
    let page = view.events(&KeyRange::all(), Revision(1), false, usize::MAX).map_err(unreadable)?;
    let bounds = view.log_bounds().map_err(unreadable)?;
    let mut written = Written {
        first: bounds.first,
        swept: bounds.swept,
        end: bounds.end,
        bytes: bounds.bytes,
        ..Written::default()
    };
    for event in page.events {
        let Some(offset) = offset_of(&event.kv.key) else { continue };
        match event.kind {
            EventKind::Put => {
                let entry = Entry::read(&event.kv.key, event.kv.value);
                let entry = entry.map_err(|e| Violation { rule: "views can be read", detail: e.to_string() })?;
                written.records.push(mark_of(&entry)?);
                written.last = entry.record.bytes();
                written.counted += if offset < bounds.swept { 0 } else { written.last };
            }
            EventKind::Delete => {
                written.removed.insert(offset);
            }
        }
    }
    Ok(written)
}
