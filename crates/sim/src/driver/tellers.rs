//! The bank: a keyspace of many shards, tellers whose transactions go over all of them, and how their answers are judged.

use super::moves::places;
use super::{CLIENT_PATIENCE_US, Event, REQUEST_TIMEOUT, SHARDS, Step, World, id_of};
use crate::checks::serial::{Done, SerialCheck};
use crate::history::{Violation, demand};
use crate::plan::BankPlan;
use crate::teller::{Accounts, BANK, Deed, Teller, TellerFlight, accounts, parse};
use crate::trace::recorder::node_lane;
use crate::trace::{Lane, TraceEvent, words};
use bytes::Bytes;
use quorate_cluster::keyspaces::Keyspaces;
use quorate_cluster::members::Roster;
use quorate_cluster::{Input, Reply, Request, RequestId};
use quorate_env::checksum::checksum;
use quorate_env::{LogIndex, NodeId, Rng, ShardId, Writer};
use quorate_kv::across::{Decision, TransactionResult, TxId, TxStep};
use quorate_kv::{
    Command, CommandId, Envelope, Error, KeyRange, KeyValue, Keyspace, KeyspaceKind, Level, OpResult, Outcome, Policy,
    RangeOp, Refusal, Replication, TxnResult, Unavailable,
};
use quorate_shard::EntryPayload;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often the bank's founder looks whether it is there, and a teller whether it can begin, in microseconds.
const LOOK_US: u64 = 50_000;

/// For so long before the end nobody asks for anything more, in microseconds: longer than what is orphaned lasts.
const REST_US: u64 = 8_000_000;

/// The same where tellers reserve: who is waiting then may still be granted something, and go.
const LOCKS_REST_US: u64 = 13_000_000;

/// How long a teller waits before it asks again for what it has a name for, in microseconds.
const NAMED_PATIENCE_US: (u64, u64) = (20_000, 1_000_000);

/// Of a thousand parts of transactions that are prepared, those after which somebody asks what became of the transaction; and how soon, in microseconds. Who was
/// told something asks again later.
const CURIOUS_PER_MILLE: u64 = 60;
const CURIOUS_US: (u64, u64) = (1, 6_000);

/// How often something is asked for, under one name.
const ASKED_MAX: u32 = 4;

/// What goes on at the bank.
#[derive(Default)]
pub(super) struct Bank {
    pub tellers: Vec<Teller>,
    pub(super) shards: u64,
    pub accounts: Accounts,
    pub(super) check: SerialCheck,
    requests: BTreeMap<RequestId, usize>,
    /// The founder's request, and when it was sent.
    founding: Option<(RequestId, u64)>,
    /// What commands' names stand for.
    named: BTreeMap<CommandId, u64>,
    /// Transactions that were settled before anybody decided them.
    settled: BTreeSet<TxId>,
    /// Questions of those who only want to know, what they were told, and their rng.
    curious: BTreeMap<RequestId, (ShardId, TxId)>,
    told: BTreeMap<TxId, Decision>,
    rng: Option<Rng>,
}

impl Bank {
    pub fn new(plan: Option<BankPlan>, rng: &Rng) -> Self {
        let Some(plan) = plan else { return Self::default() };
        let locks = rng.split(81);
        let tellers = (0..plan.tellers).map(|n| Teller::new(rng.split(200 + n), locks.split(n), &plan)).collect();
        let BankPlan { shards, accounts, .. } = plan;
        Self { tellers, shards, accounts, rng: Some(rng.split(52)), ..Self::default() }
    }

    pub fn exists(&self) -> bool {
        self.shards > 0
    }
}

/// What is wanted of the bank's keyspace, if it is not what everybody gets.
fn policy(plan: &BankPlan) -> Option<Policy> {
    let history = plan.history_ms.map_or(Policy::OF_MADE.history, |ms| Some(Duration::from_millis(ms)));
    let replication = match plan {
        BankPlan { everywhere: true, .. } => Replication::All,
        BankPlan { early_entries: Some(_), .. } => Replication::Leader,
        _ => Replication::Majority,
    };
    let policy = Policy { history, replication, commit_wait: plan.clock_bound_ms.is_some(), ..Policy::OF_MADE };
    (policy != Policy::OF_MADE).then_some(policy)
}

fn fits(answer: &Result<Reply, Error>) -> Violation {
    let (_, _, text) = words::answered(answer);
    Violation { rule: "answers fit", detail: format!("a teller was told: {text}") }
}

impl World<'_> {
    pub(super) fn open_bank(&mut self) {
        if self.bank.exists() {
            self.after(LOOK_US, Event::Found);
            for teller in 0..self.bank.tellers.len() {
                self.after(LOOK_US, Event::Teller { teller });
            }
            self.open_eyes();
        }
    }

    /// Whether nobody asks for anything more, so that everything can be over in the end.
    pub(super) fn bank_rests(&self) -> bool {
        let locks = self.plan.bank.is_some_and(|bank| bank.locks_per_mille > 0);
        let rest_us = if locks { LOCKS_REST_US } else { REST_US };
        self.now + rest_us > self.plan.storm_us + self.plan.calm_us
    }

    /// Whether somebody has opened the accounts.
    pub(super) fn bank_is_open(&self) -> bool {
        self.bank.check.done.values().any(|done| done.ended_us.is_some())
    }

    /// Somebody does something.
    pub(super) fn note_done(&mut self, operation: u64, done: Done) {
        self.bank.check.done.insert(operation, done);
    }

    /// It was not done.
    pub(super) fn note_refused(&mut self, operation: u64) {
        self.bank.check.refused.insert(operation);
        self.bank.check.done.remove(&operation);
    }

    /// When what was done was acknowledged.
    pub(super) fn acknowledged(&self) -> BTreeMap<u64, u64> {
        let done = self.bank.check.done.iter();
        done.filter_map(|(operation, done)| Some((*operation, done.ended_us?))).collect()
    }

    /// When everything was asked for first.
    pub(super) fn began(&self) -> BTreeMap<u64, u64> {
        self.bank.check.done.iter().map(|(operation, done)| (*operation, done.began_us)).collect()
    }

    /// Whether somebody wrote, as far as it knows.
    pub(super) fn wrote_something(&self, operation: u64) -> bool {
        self.bank.check.done.get(&operation).is_some_and(|done| !done.wrote.is_empty())
    }

    /// Whether a clock has been slow or stood still so far, so that what it calls young may be old.
    pub(super) fn clocks_ran_wrong(&self) -> bool {
        ["clock at half speed", "frozen clock"].iter().any(|mark| self.report.marks.contains_key(mark))
    }

    /// The bank's keyspace, as a node knows it.
    pub(super) fn bank_of(&self, node: usize) -> Option<Keyspace> {
        self.nodes[node].node.as_ref()?.keyspaces().named(BANK).cloned()
    }

    /// Makes the keyspace, if it is not there yet.
    pub(super) fn found_bank(&mut self) -> Step {
        if (0..self.nodes.len()).any(|node| self.bank_of(node).is_some()) {
            return Ok(());
        }
        self.after(LOOK_US, Event::Found);
        if self.bank.founding.is_some_and(|(_, at)| self.now < at + CLIENT_PATIENCE_US / 2) {
            return Ok(());
        }
        let up = self.not_retired().into_iter().find(|node| self.nodes[*node].node.is_some());
        let Some(node) = up else { return Ok(()) };
        let core = self.nodes[node].node.as_ref().expect("it is up");
        let waits = |bank: BankPlan| bank.everywhere || bank.clock_bound_ms.is_some() || bank.early_entries.is_some();
        let needs_level = |bank: BankPlan| bank.replicas.is_some() || waits(bank);
        if self.plan.bank.is_some_and(needs_level) && !core.levels().begun() {
            return Ok(());
        }
        let (keyspaces, roster): (&Keyspaces, &Roster) = (core.keyspaces(), core.roster());
        let founders = roster.founders((0..self.plan.nodes).map(id_of));
        let nodes = founders.iter().map(|founder| NodeId(founder.0)).collect();
        let made = keyspaces.create(BANK, KeyspaceKind::Ranged, &self.bank.accounts.starts(self.bank.shards), founders);
        let (keyspace, mut txn) = made.map_err(|e| Violation { rule: "answers fit", detail: e.to_string() })?;
        if let Some(replicas) =
            self.plan.bank.and_then(|bank| bank.replicas).filter(|_| core.levels().cluster() >= Level::PLACED)
        {
            txn.success.extend(places(core.placements(), &keyspace, &nodes, replicas));
        }
        if let Some(policy) = self.plan.bank.and_then(|bank| policy(&bank)) {
            txn.success.push(Keyspaces::wanted(keyspace.id, policy));
        }
        txn.compares.extend(roster.unchanged());
        let id = self.next_request;
        self.next_request += 1;
        self.bank.founding = Some((id, self.now));
        let request = Request::Submit { shard: SHARDS[0], command: Command::Transact(txn) };
        self.feed(node, Input::Request { id, timeout: REQUEST_TIMEOUT, request })
    }

    pub(super) fn teller_turn(&mut self, teller: usize) -> Step {
        if self.bank.tellers[teller].in_flight.is_some() || self.bank_rests() {
            return Ok(());
        }
        let there = self.not_retired();
        let node = there[self.bank.tellers[teller].pick(there.len())];
        let Some(bank) = self.bank_of(node) else {
            self.after(LOOK_US, Event::Teller { teller });
            return Ok(());
        };
        let operation = self.next_operation;
        self.next_operation += 1;
        let opened = self.bank_is_open();
        let now = self.now;
        let lock = if opened { self.bank.tellers[teller].next_lock(operation, now) } else { None };
        let (deed, request) = match (&lock, opened) {
            (Some(lock), _) => (Deed::Lock { keys: lock.keys.clone() }, lock.wish(bank.id)),
            (None, false) => self.bank.tellers[teller].open(bank.id, operation),
            (None, true) => self.bank.tellers[teller].next(bank.id, operation, |key| bank.shard_of(key)),
        };
        if self.script.and_then(|script| script.operations).is_some_and(|asked| !asked.contains(operation)) {
            self.bank.tellers[teller].completed += 1;
            self.teller_goes_on(teller);
            return Ok(());
        }
        self.played.asked.insert(operation);
        let wrote = match &deed {
            Deed::Write { keys, .. } => keys.clone(),
            Deed::Put { key } => vec![key.clone()],
            Deed::Open => self.bank.accounts.keys().collect(),
            Deed::Audit | Deed::Read { .. } | Deed::Lock { .. } => Vec::new(),
        };
        self.bank.check.done.insert(operation, Done { began_us: self.now, wrote, ..Done::default() });
        let named = matches!(&request, Request::Transact(transaction) if transaction.key.is_some());
        let again = named.then(|| request.clone());
        let (asked, asked_before) = (0, 0);
        let flight = TellerFlight { operation, node, deed, began_us: self.now, again, asked, asked_before, lock };
        self.teller_asks(teller, flight, request)
    }

    pub(super) fn teller_asks(&mut self, teller: usize, mut flight: TellerFlight, request: Request) -> Step {
        let id = self.next_request;
        self.next_request += 1;
        flight.asked += 1;
        let (client, operation, node) = (self.teller_lane(teller), flight.operation, flight.node);
        let asked = flight.asked;
        self.trace(|| {
            let text = words::teller_asked(&flight.deed);
            TraceEvent::Ask { client, node: node_lane(node), operation, text }
        });
        self.bank.tellers[teller].in_flight = Some((id, flight));
        self.bank.requests.insert(id, teller);
        // Who has a name for what it wants asks again soon, while the first may still be under way.
        let named = self.bank.tellers[teller].in_flight.as_ref().is_some_and(|(_, flight)| flight.again.is_some());
        let patience = if named { self.bank.tellers[teller].think(NAMED_PATIENCE_US) } else { CLIENT_PATIENCE_US };
        self.after(patience, Event::TellerPatience { teller, operation, asked });
        if self.nodes[node].node.is_none() {
            return self.teller_gives_up(teller);
        }
        self.feed(node, Input::Request { id, timeout: REQUEST_TIMEOUT, request })
    }

    pub(super) fn teller_patience(&mut self, teller: usize, operation: u64, asked: u32) -> Step {
        let waits = |f: &TellerFlight| f.operation == operation && f.asked == asked;
        let Some((id, flight)) = self.bank.tellers[teller].in_flight.as_ref().filter(|(_, flight)| waits(flight))
        else {
            return Ok(());
        };
        // Some hang up, others only stop listening.
        let (id, node) = (*id, flight.node);
        if operation.is_multiple_of(2) {
            self.mark("client hung up");
            self.feed(node, Input::Abandon { id })?;
        }
        self.teller_gives_up(teller)
    }

    /// Nobody tells what became of it.
    pub(super) fn teller_gives_up(&mut self, teller: usize) -> Step {
        if let Some((request, flight)) = self.bank.tellers[teller].in_flight.take() {
            self.bank.requests.remove(&request);
            self.mark("unknown outcome");
            return self.teller_asks_again(teller, flight);
        }
        Ok(())
    }

    /// What has a name of the client's own is asked again, of another node: it must not happen twice.
    pub(super) fn teller_asks_again(&mut self, teller: usize, mut flight: TellerFlight) -> Step {
        let up = self.not_retired().into_iter().filter(|node| self.nodes[*node].node.is_some());
        let up: Vec<usize> = up.collect();
        match flight.again.clone().filter(|_| flight.sent() < ASKED_MAX && !up.is_empty()) {
            Some(request) => {
                self.mark("transaction sent again");
                flight.node = up[self.bank.tellers[teller].pick(up.len())];
                self.teller_asks(teller, flight, request)
            }
            None => {
                self.teller_goes_on(teller);
                Ok(())
            }
        }
    }

    pub(super) fn teller_goes_on(&mut self, teller: usize) {
        let wait = self.bank.tellers[teller].think(self.plan.think_us);
        self.after(wait, Event::Teller { teller });
    }

    /// Tellers have their lanes behind the clients'.
    pub(super) fn teller_lane(&self, teller: usize) -> Lane {
        Lane::Client((self.plan.clients + teller) as u64)
    }

    /// Tellers whose node has crashed.
    pub(super) fn tellers_lose(&mut self, node: usize) {
        for teller in 0..self.bank.tellers.len() {
            if let Some((_, flight)) = self.bank.tellers[teller].in_flight.as_ref().filter(|(_, f)| f.node == node) {
                let (operation, asked) = (flight.operation, flight.asked);
                self.after(1_000, Event::TellerPatience { teller, operation, asked });
            }
        }
    }

    /// Whether an answer was a teller's, or the founder's; what is made of it.
    pub(super) fn teller_hears(
        &mut self,
        request: RequestId,
        answer: &Result<Reply, Error>,
    ) -> Result<bool, Violation> {
        if self.split_hears(request, answer)
            || self.move_hears(request)
            || self.release_heard(request)
            || self.looker_hears(request, answer)?
            || self.logs_hear(request, answer)?
        {
            return Ok(true);
        }
        if let Some((home, tx)) = self.bank.curious.remove(&request) {
            return self.curious_hears(home, tx, answer).map(|()| true);
        }
        if self.bank.founding.is_some_and(|(id, _)| id == request) {
            self.bank.founding = None;
            if let Err(Error::Unavailable(Unavailable::FeatureLevel { .. })) = answer {
                self.mark("refused below its feature level");
            }
            return Ok(true);
        }
        let Some(teller) = self.bank.requests.remove(&request) else { return Ok(false) };
        let Some((_, flight)) = self.bank.tellers[teller].in_flight.take() else { return Ok(true) };
        if self.answer_is_lost(&flight) {
            self.mark("answer lost on its way");
            self.bank.tellers[teller].in_flight = Some((request, flight));
            return Ok(true);
        }
        let TellerFlight { operation, node, deed, .. } = flight.clone();
        let client = self.teller_lane(teller);
        self.trace(|| {
            let (outcome, revision, text) = words::answered(answer);
            TraceEvent::Answer { client, node: node_lane(node), operation, outcome, revision, text }
        });
        self.hash(&operation.to_le_bytes());
        if flight.lock.is_some() {
            return self.locker_hears(teller, flight, answer).map(|()| true);
        }
        match answer {
            Ok(Reply::View { view, .. }) => {
                let Deed::Read { op } = &deed else { return Err(fits(answer)) };
                if view.blocker(op).is_some() {
                    // As every reader does: it comes again until nothing is in the way, or its time is up.
                    self.mark("read met a lock");
                    return self.read_again(teller, flight).map(|()| true);
                }
                let read =
                    view.range(op).map_err(|e| Violation { rule: "views can be read", detail: e.to_string() })?;
                if let Err(Refusal::Moved { .. }) = &read {
                    self.mark("read of a key that has moved");
                    return self.read_again(teller, flight).map(|()| true);
                }
                let kvs = read.map_err(|e| Violation { rule: "reads are answered", detail: e.to_string() })?.kvs;
                self.teller_saw(teller, operation, vec![op.range.clone()], &kvs)?;
            }
            Ok(Reply::Transacted(result)) => self.teller_transacted(teller, operation, &deed, result)?,
            Ok(Reply::Applied(applied)) => match &applied.outcome {
                Outcome::Transacted(TxnResult { succeeded: true, results })
                    if matches!(results.as_slice(), [OpResult::Put(_)]) =>
                {
                    self.teller_saw(teller, operation, Vec::new(), &[])?;
                }
                _ => return Err(fits(answer)),
            },
            // Asked twice, it may have happened the first time.
            Err(Error::Unavailable(_) | Error::Refused(_)) if flight.asked > 1 => self.mark("unknown outcome"),
            Err(Error::Unavailable(Unavailable::NotHere)) => {
                self.mark("asked of a node without the shard");
                self.bank.check.done.remove(&operation);
            }
            Err(
                Error::Unavailable(_)
                | Error::Refused(Refusal::Locked { .. } | Refusal::Aborted { .. } | Refusal::Moved { .. }),
            ) => {
                self.mark("transaction given up");
                self.bank.check.refused.insert(operation);
                self.bank.check.done.remove(&operation);
            }
            Err(Error::UnknownOutcome(_) | Error::UnknownTransaction { .. }) => {
                self.mark("unknown outcome");
                return self.teller_asks_again(teller, flight).map(|()| true);
            }
            _ => return Err(fits(answer)),
        }
        self.teller_goes_on(teller);
        Ok(true)
    }

    /// Whether the teller, who has a name for what it wants, does not hear what became of it, and asks again when it has waited for long enough.
    fn answer_is_lost(&mut self, flight: &TellerFlight) -> bool {
        let lost = self.plan.bank.map_or(0, |bank| bank.answers_lost_per_mille);
        let (named, Some(rng)) = (flight.again.is_some() && flight.sent() < ASKED_MAX, &mut self.bank.rng) else {
            return false;
        };
        lost > 0 && named && rng.chance(lost)
    }

    fn read_again(&mut self, teller: usize, flight: TellerFlight) -> Step {
        let TellerFlight { operation, node, deed: Deed::Read { op }, began_us, .. } = &flight else { return Ok(()) };
        let (node, bank) = (*node, self.bank_of(*node));
        let (Some(bank), false) = (bank, self.now > began_us + REQUEST_TIMEOUT.as_micros() as u64) else {
            // It was not done, and it would not have changed anything.
            self.bank.check.done.remove(operation);
            self.teller_goes_on(teller);
            return Ok(());
        };
        let (shard, id) = (bank.shard_of(&op.range.start), self.next_request);
        self.next_request += 1;
        self.bank.requests.insert(id, teller);
        self.bank.tellers[teller].in_flight = Some((id, flight));
        let consistency = quorate_kv::Consistency::Linearizable;
        let request = Request::View { shard, consistency };
        self.after(1_000, Event::Ask { node, id, request });
        Ok(())
    }

    fn teller_transacted(&mut self, teller: usize, operation: u64, deed: &Deed, result: &TransactionResult) -> Step {
        let TransactionResult { succeeded, looks, repeated, at, .. } = result;
        self.note_told(operation, *at);
        if *repeated {
            self.mark("transaction repeated");
            // What was done is known, not what was seen.
            if let Some(done) = self.bank.check.done.get_mut(&operation).filter(|_| !succeeded) {
                done.wrote.clear();
            }
            return self.teller_saw(teller, operation, Vec::new(), &[]);
        }
        let kvs: Vec<KeyValue> = looks.iter().flat_map(|look| look.kvs.iter().cloned()).collect();
        let looked = match deed {
            Deed::Audit => vec![accounts()],
            Deed::Write { reads, .. } => reads.clone(),
            Deed::Open | Deed::Put { .. } | Deed::Read { .. } | Deed::Lock { .. } => Vec::new(),
        };
        if !succeeded {
            self.mark("transaction found a change");
            if let Some(done) = self.bank.check.done.get_mut(&operation) {
                done.wrote.clear();
            }
            self.bank.tellers[teller].forget();
        } else if matches!(deed, Deed::Write { .. }) {
            self.mark("transaction over shards");
        }
        if matches!(deed, Deed::Audit) {
            let amounts: Vec<i64> = kvs.iter().filter_map(|kv| parse(&kv.value).map(|(_, amount)| amount)).collect();
            demand(self.bank.accounts.hold_all(&amounts), "money is conserved", || {
                let (count, sum) = (amounts.len(), amounts.iter().sum::<i64>());
                format!("operation {operation} saw {count} accounts with {sum} in all")
            })?;
            self.mark("audit");
        }
        self.teller_saw(teller, operation, looked, &kvs)
    }

    fn teller_saw(&mut self, teller: usize, operation: u64, looked: Vec<KeyRange>, kvs: &[KeyValue]) -> Step {
        if self.end_done(operation, looked, kvs)? {
            self.bank.tellers[teller].saw(kvs);
            self.bank.tellers[teller].completed += 1;
            self.report.operations += 1;
        }
        Ok(())
    }

    /// Somebody is about to write what it has seen.
    pub(super) fn bank_writes(&mut self, operation: u64, saw: &[(Bytes, u64)]) {
        if let Some(done) = self.bank.check.done.get_mut(&operation) {
            done.saw = saw.iter().cloned().collect();
            done.wrote = saw.iter().map(|(key, _)| key.clone()).collect();
        }
    }

    /// It has not, and never will.
    pub(super) fn bank_wrote_nothing(&mut self, operation: u64) {
        if let Some(done) = self.bank.check.done.get_mut(&operation) {
            (done.saw, done.wrote) = Default::default();
        }
    }

    /// Nothing was done.
    pub(super) fn bank_forgets(&mut self, operation: u64) {
        self.bank.check.done.remove(&operation);
    }

    /// It was done, and what it has seen is known.
    pub(super) fn teller_is_done(&mut self, teller: usize, operation: u64) -> Step {
        let now = self.now;
        if let Some(done) = self.bank.check.done.get_mut(&operation) {
            done.ended_us = Some(now);
            self.bank.tellers[teller].completed += 1;
            self.report.operations += 1;
        }
        self.judge_told(operation)
    }

    /// It was done, and this was seen.
    pub(super) fn end_done(
        &mut self,
        operation: u64,
        looked: Vec<KeyRange>,
        kvs: &[KeyValue],
    ) -> Result<bool, Violation> {
        let now = self.now;
        let Some(done) = self.bank.check.done.get_mut(&operation) else { return Ok(false) };
        done.ended_us = Some(now);
        done.looked = looked;
        for kv in kvs {
            let (writer, _) = parse(&kv.value).ok_or_else(|| Violation {
                rule: "reads see what was committed",
                detail: format!("operation {operation} saw {kv:?}"),
            })?;
            done.saw.insert(kv.key.clone(), writer);
        }
        self.judge_told(operation)?;
        Ok(true)
    }

    /// An entry of one of the bank's shards is committed.
    pub(super) fn bank_commits(&mut self, (shard, index): (ShardId, LogIndex), payload: &Bytes) -> Step {
        self.look_at_voters(shard)?;
        if payload.is_empty() {
            return Ok(());
        }
        let entry = EntryPayload::decode(payload.clone());
        let entry = entry.map_err(|e| Violation { rule: "entries can be read", detail: e.to_string() })?;
        for envelope in entry.commands {
            let (id, mut bytes) = (envelope.id, Writer::new());
            Envelope { answered_below: 0, ..envelope.clone() }.encode(&mut bytes);
            let named = checksum(0, bytes.as_slice());
            demand(*self.bank.named.entry(id).or_insert(named) == named, "a name is given once", || {
                format!("{id} was another command, and is {:?}", envelope.command)
            })?;
            self.note_writers((shard, index), &envelope.command);
            self.split_commits(&envelope.command)?;
            self.lockers_commit(&envelope.command);
            match envelope.command {
                Command::Across { tx, step: TxStep::Settle { .. } } => {
                    self.bank.settled.insert(tx);
                    self.mark("transaction settled");
                }
                Command::Across { tx, step: TxStep::Prepare { .. } } if self.bank.settled.contains(&tx) => {
                    self.mark("prepare after it was settled");
                }
                Command::Across { tx, step: TxStep::Prepare { home, .. } } => self.wonder(home, tx),
                Command::Across { tx, step: TxStep::Decide(_) } if self.bank.settled.contains(&tx) => {
                    self.mark("decision after it was settled");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Somebody asks what became of a transaction that is just under way: if nothing is decided yet, nothing ever will be.
    fn wonder(&mut self, home: ShardId, tx: TxId) {
        let Some(rng) = &mut self.bank.rng else { return };
        let wait = rng.between(CURIOUS_US.0, CURIOUS_US.1);
        if rng.chance(CURIOUS_PER_MILLE) {
            self.ask_what_became(home, tx, wait);
        }
    }

    fn ask_what_became(&mut self, home: ShardId, tx: TxId, wait: u64) {
        let there = self.not_retired();
        let Some(node) = self.bank.rng.as_mut().and_then(|rng| rng.pick(&there).copied()) else { return };
        let id = self.next_request;
        self.next_request += 1;
        self.bank.curious.insert(id, (home, tx));
        self.after(wait, Event::Ask { node, id, request: Request::Settle { home, tx } });
    }

    /// Who was told what was decided asks once more: it must be the same.
    fn curious_hears(&mut self, home: ShardId, tx: TxId, answer: &Result<Reply, Error>) -> Step {
        let Ok(Reply::Settled(Some(decision))) = answer else { return Ok(()) };
        match self.bank.told.get(&tx) {
            Some(before) => demand(before == decision, "what was decided stays decided", || {
                format!("{tx} was {before:?} when somebody asked, and {decision:?} when it asked again")
            }),
            None => {
                self.bank.told.insert(tx, *decision);
                let wait = self.plan.bank.map_or(0, |bank| bank.wonders_again_us);
                self.ask_what_became(home, tx, wait);
                Ok(())
            }
        }
    }

    /// In the end every transaction is over, and what all of them did has an order.
    pub(super) fn bank_closes(&mut self) -> Step {
        if !self.bank.exists() {
            return Ok(());
        }
        let lasting = self.lasting();
        let reads = |node: &usize| self.nodes[*node].node.as_ref().map(|core| core.roster().revision);
        let map = lasting.iter().max_by_key(|node| reads(node)).and_then(|node| self.bank_of(*node));
        let map = map.ok_or_else(|| Violation { rule: "keyspaces are what was asked for", detail: "none".into() })?;
        let shards: BTreeSet<ShardId> = map.shards.iter().map(|(_, shard)| *shard).collect();
        let asked = self.bank.shards + (self.splits.mapped.len() - self.splits.merged.len()) as u64;
        demand(shards.len() as u64 == asked, "keyspaces are what was asked for", || format!("{shards:?}"))?;
        let mut ranges = BTreeMap::new();
        for shard in shards {
            let views = lasting.iter().filter_map(|node| self.nodes[*node].node.as_ref()?.view(shard));
            let view = views.max_by_key(quorate_shard::View::applied);
            let view =
                view.ok_or_else(|| Violation { rule: "replicas catch up", detail: format!("nobody has {shard}") })?;
            self.chronicle.note(shard, &view)?;
            // A child has what its parent knew of its keys, and whoever takes another over what that one had not forgotten.
            self.chronicle.judge(shard, &view, &map)?;
            ranges.insert(shard, view.own_range().clone());
            let locked = view.blocker(&RangeOp::of(KeyRange::all()));
            demand(locked.is_none(), "transactions end", || format!("{shard} holds a lock: {locked:?}"))?;
            let unresolved = lasting.iter().filter_map(|node| Some(self.nodes[*node].node.as_ref()?.unresolved(shard)));
            let unresolved = unresolved.max().unwrap_or_default();
            demand(unresolved == 0, "transactions end", || {
                format!("{unresolved} decisions of {shard} are not carried out everywhere")
            })?;
            let reserved = self.reserved_in(shard, &lasting);
            demand(reserved == 0, "reservations end", || format!("{reserved} are left in {shard}"))?;
        }
        self.judge_ranges(&ranges)?;
        let versions = self.chronicle.versions();
        let writers: BTreeMap<Bytes, Vec<u64>> = versions
            .iter()
            .map(|(key, all)| (key.clone(), all.iter().map(|version| version.writer).collect()))
            .collect();
        let lost = self.judge_losses(&versions, &writers)?;
        self.judge_sights(&versions, &lost)?;
        self.judge_order_of_moments(&versions)?;
        self.lockers_close(&writers)?;
        self.judge_logs(&writers)?;
        let explained = self.bank.check.finish(&writers)?;
        self.report.explained += explained;
        for teller in &self.bank.tellers {
            demand(teller.completed > 0, "every client gets served", || format!("{teller:?}"))?;
        }
        Ok(())
    }
}
