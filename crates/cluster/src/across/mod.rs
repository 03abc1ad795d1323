//! Transactions over several shards, as the node that a client asked carries them through, and what becomes of those whose node is gone
//! (docs/design/transactions.md).
//!
//! ```text
//!   client ──> plan ──> attempt: Prepare in all shards but the home ──> Decide at the home ──> client
//!                          │ a lock was in the way: release, wait a little, another attempt     │
//!                          └──────────────────── Resolve in all others <──────────────────────┘ ──> Forget at the home
//!
//!   a shard's leader finds something prepared long ago ──> Settle at its home ──> Resolve
//!   a home's leader finds a decision that is not carried out ──> Resolve in the others ──> Forget
//! ```
//!
//! `reserving` sees to what clients reserve before they ask for a transaction. Every step is a command in a shard's log, sent through this node's replica of it and sent again by that until it is applied once. So this
//! module only says what is to be asked next, and takes the answers.

mod attempt;
#[cfg(test)]
mod model;
mod plan;
mod recovery;
mod reserving;

use crate::ack_wait::AckWait;
use crate::bounds::{ACROSS_CLIENTS_MAX, ACROSS_STEP_TIMEOUT, FENCE_ENTRIES};
use crate::config::Sabotage;
use crate::input::{Reply, RequestId};
use crate::keyspaces::Keyspaces;
use attempt::{Attempt, End, Next};
pub(crate) use plan::Plan;
use quorate_env::{Instant, LogIndex, Rng, ShardId, Timestamp};
use quorate_kv::across::{Decision, Part, PartResult, Transaction, TransactionResult, TxAnswer, TxId, TxStep, Verdict};
use quorate_kv::{Command, Error, Outcome, Refusal, Unavailable};
pub(crate) use recovery::Orphans;
use recovery::Recovery;
use reserving::{Lapses, Releasing, Reserving};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Requests of the node to its own replicas have numbers from here on; no driver counts so far.
pub(crate) const OWN_REQUESTS: RequestId = 1 << 63;

/// The longest wait between two attempts, for each four shards that are asked: the more there are, the more often one of them is locked, and the more an attempt keeps
/// others from theirs.
const BACKOFF_MAX: Duration = Duration::from_millis(64);

/// For so long an attempt that only reads waits for what is locked, keeping what it has read locked meanwhile. Less than [`crate::bounds::ORPHAN_AFTER`], after which others would
/// end it.
const READERS_PATIENCE: Duration = Duration::from_millis(400);

/// A command that one of this node's replicas is to carry through.
#[derive(Debug)]
pub(crate) struct Ask {
    pub id: RequestId,
    pub shard: ShardId,
    pub command: Command,
    /// What must be true before the answer says that it was done.
    pub wait: AckWait,
    pub deadline: Instant,
}

/// What an answer belongs to.
enum Purpose {
    /// A shard prepares a client's transaction.
    Prepare { client: u64, tx: TxId, shard: ShardId },
    /// Its home decides.
    Decide { client: u64, tx: TxId },
    /// The decision is carried out in one more shard.
    Resolved { job: u64, tx: TxId, home: ShardId },
    /// What a home says of something prepared here.
    Settled { tx: TxId, shard: ShardId },
    /// A client wants to know what became of a transaction.
    Asked { request: RequestId },
    /// A shard reserves keys for a client.
    Reserved { client: u64 },
    /// A shard releases what a client had reserved.
    Released { job: u64 },
    /// Nobody waits for it.
    Nothing,
}

/// A client's transaction.
struct Client {
    request: RequestId,
    transaction: Transaction,
    deadline: Instant,
    plan: Plan,
    /// What its writes wait for.
    wait: AckWait,
    attempt: Option<Attempt>,
    results: BTreeMap<ShardId, PartResult>,
    /// Shards that are asked again to prepare, and until when.
    refused: BTreeSet<ShardId>,
    patient_until: Instant,
    attempts: u32,
    /// When the next attempt begins, and why the last one failed.
    again: Option<(Instant, Error)>,
}

/// What the node knows that this module needs.
pub(crate) struct Surroundings<'a> {
    pub now: Instant,
    /// What time it is, as clocks say.
    pub moment: Timestamp,
    pub keyspaces: &'a Keyspaces,
    /// How far the log of a shard is, as this node last knew; none if it never did.
    pub applied: &'a dyn Fn(ShardId) -> Option<LogIndex>,
    /// Whether it is known how far clocks may be from true time.
    pub bounded: bool,
    pub sabotage: Option<Sabotage>,
}

/// See the module.
pub(crate) struct Across {
    rng: Rng,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    asked: BTreeMap<RequestId, Purpose>,
    next_ask: RequestId,
    asks: Vec<Ask>,
    /// Shards of which it must be known how far their logs are.
    unknown: BTreeSet<ShardId>,
    recovery: Recovery,
    reserving: BTreeMap<u64, Reserving>,
    releasing: BTreeMap<u64, Releasing>,
    lapses: Lapses,
    replies: Vec<(RequestId, Result<Reply, Error>)>,
}

impl Across {
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            clients: BTreeMap::new(),
            next_client: 0,
            asked: BTreeMap::new(),
            next_ask: OWN_REQUESTS,
            asks: Vec::new(),
            unknown: BTreeSet::new(),
            recovery: Recovery::default(),
            reserving: BTreeMap::new(),
            releasing: BTreeMap::new(),
            lapses: Lapses::default(),
            replies: Vec::new(),
        }
    }

    /// Whether answers are waited for.
    pub fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    /// What is to be asked of this node's replicas.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asks)
    }

    /// Shards whose logs somebody should ask how far they are.
    pub fn take_unknown(&mut self) -> BTreeSet<ShardId> {
        std::mem::take(&mut self.unknown)
    }

    /// What clients are to be told.
    pub fn take_replies(&mut self) -> Vec<(RequestId, Result<Reply, Error>)> {
        std::mem::take(&mut self.replies)
    }

    /// A client asks for a transaction.
    pub fn begin(&mut self, request: RequestId, transaction: Transaction, deadline: Instant, at: &Surroundings<'_>) {
        if self.clients.len() >= ACROSS_CLIENTS_MAX {
            return self.replies.push((request, Err(Unavailable::Overloaded.into())));
        }
        match Plan::of(&transaction, at.keyspaces) {
            Ok(plan) => {
                let (attempts, results, wait) = (0, BTreeMap::new(), AckWait::default());
                let (refused, patient_until, attempt, again) = (BTreeSet::new(), at.now, None, None);
                let client = Client {
                    request,
                    transaction,
                    deadline,
                    plan,
                    wait,
                    attempt,
                    results,
                    refused,
                    patient_until,
                    attempts,
                    again,
                };
                self.next_client += 1;
                self.clients.insert(self.next_client, client);
                self.attempt(self.next_client, at);
            }
            Err(refusal) => self.replies.push((request, Err(refusal.into()))),
        }
    }

    /// Nobody waits for a transaction any more: where it is not being decided yet, it never will be.
    pub fn abandon(&mut self, request: RequestId, at: &Surroundings<'_>) {
        let spared = at.sabotage != Some(Sabotage::AbandonDecided);
        let deciding = |client: &Client| spared && client.attempt.as_ref().is_some_and(Attempt::is_deciding);
        let abandoned = self.clients.iter().find(|(_, client)| client.request == request && !deciding(client));
        let abandoned = abandoned.map(|(number, _)| *number).and_then(|number| self.clients.remove(&number));
        if let Some(attempt) = abandoned.and_then(|client| client.attempt) {
            self.carry_out(&attempt, Decision::Aborted, at);
        }
    }

    /// A client asks what became of a transaction; if nothing was decided yet, nothing ever will be.
    pub fn settle(&mut self, request: RequestId, home: ShardId, tx: TxId, deadline: Instant, at: &Surroundings<'_>) {
        if at.keyspaces.is_merged(home) {
            return match at.keyspaces.heir(home) {
                Some(heir) => self.settle(request, heir, tx, deadline, at),
                // It was merged so long ago that nobody knows who has what it decided.
                None => self.replies.push((request, Ok(Reply::Settled(None)))),
            };
        }
        // Others than these decide nothing, so an id that names one is nobody's.
        if !at.keyspaces.all().flat_map(|keyspace| &keyspace.shards).any(|(_, shard)| *shard == home) {
            return self.replies.push((request, Err(Refusal::KeyspaceNotFound.into())));
        }
        match (at.applied)(home) {
            // What was decided here may have been written anywhere: whoever hears that it was done hears it as a writer would.
            Some(_) if at.keyspaces.ack_wait_anywhere().over && !at.bounded => {
                self.replies.push((request, Err(Unavailable::NoClockBound.into())));
            }
            Some(applied) => {
                let step = TxStep::Settle { fence: LogIndex(applied.0 + FENCE_ENTRIES) };
                let (command, wait) = (Command::Across { tx, step }, at.keyspaces.ack_wait_anywhere());
                self.ask_for(home, (command, wait), deadline, Purpose::Asked { request });
            }
            None => {
                self.unknown.insert(home);
                self.replies.push((request, Err(Unavailable::NoLeader.into())));
            }
        }
    }

    /// Begins another attempt at a client's transaction.
    fn attempt(&mut self, number: u64, at: &Surroundings<'_>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        // Keyspaces may have changed since.
        match Plan::of(&client.transaction, at.keyspaces) {
            Ok(plan) => client.plan = plan,
            Err(refusal) => return self.finish(number, Err(refusal.into())),
        }
        client.wait = client.plan.ack_wait(at.keyspaces);
        if client.wait.over && !at.bounded {
            return self.finish(number, Err(Unavailable::NoClockBound.into()));
        }
        client.attempts += 1;
        let home = client.plan.home;
        let Some(applied) = (at.applied)(home) else {
            self.unknown.insert(home);
            return self.pause(number, Unavailable::NoLeader.into(), at);
        };
        let tx = TxId(u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64()));
        let fence = LogIndex(applied.0 + FENCE_ENTRIES);
        let others: BTreeSet<ShardId> = client.plan.parts.keys().copied().filter(|shard| *shard != home).collect();
        client.results.clear();
        client.refused.clear();
        client.patient_until = at.now + READERS_PATIENCE;
        client.again = None;
        let deadline = client.deadline;
        let prepares: Vec<_> = others.iter().map(|shard| (*shard, client.plan.parts[shard].clone())).collect();
        client.attempt = Some(Attempt::new(tx, home, fence, others));
        if prepares.is_empty() || at.sabotage == Some(Sabotage::DecideUnprepared) {
            self.decide(number, true);
        }
        for (shard, part) in prepares {
            // What is prepared is kept wherever it is to be, before anybody decides: then the decision is all that is still to be kept.
            let wait = AckWait {
                everywhere: !part.only_reads() && at.keyspaces.ack_wait(shard).everywhere,
                ..AckWait::default()
            };
            let command = Command::Across { tx, step: TxStep::Prepare { home, fence, part: Box::new(part) } };
            self.ask_for(shard, (command, wait), deadline, Purpose::Prepare { client: number, tx, shard });
        }
    }

    fn decide(&mut self, number: u64, others_hold: bool) {
        let Some(client) = self.clients.get(&number) else { return };
        let Some(attempt) = &client.attempt else { return };
        let (tx, home, fence) = (attempt.tx, attempt.home, attempt.fence);
        let (prepared, key) = (attempt.others.iter().copied().collect(), client.transaction.key);
        let after = attempt.prepared_by().max(client.transaction.after);
        let part = client.plan.parts[&home].clone();
        // Without a name nobody asks again.
        let ends = client.results.iter().filter(|_| key.is_some());
        let ends = ends.filter_map(|(shard, result)| Some((*shard, result.end?))).collect();
        let verdict = Verdict { part, others_hold, after, prepared, fence, key, ends };
        let (deadline, wait) = (client.deadline, client.wait);
        let command = Command::Across { tx, step: TxStep::Decide(Box::new(verdict)) };
        self.ask_for(home, (command, wait), deadline, Purpose::Decide { client: number, tx });
    }

    fn ask(&mut self, shard: ShardId, tx: TxId, step: TxStep, deadline: Instant, purpose: Purpose) {
        self.ask_for(shard, (Command::Across { tx, step }, AckWait::default()), deadline, purpose);
    }

    fn ask_for(&mut self, shard: ShardId, (command, wait): (Command, AckWait), deadline: Instant, purpose: Purpose) {
        self.next_ask += 1;
        self.asked.insert(self.next_ask, purpose);
        self.asks.push(Ask { id: self.next_ask, shard, command, wait, deadline });
    }

    /// A replica answers.
    pub fn answered(&mut self, id: RequestId, answer: Result<Reply, Error>, at: &Surroundings<'_>) {
        let Some(purpose) = self.asked.remove(&id) else { return };
        let outcome = answer.map(|reply| match reply {
            Reply::Applied(applied) => applied.outcome,
            _ => unreachable!("a command was submitted"),
        });
        let purpose = match purpose {
            Purpose::Reserved { client } => return self.reserved(client, outcome.map(reserving::reserved_of), at),
            Purpose::Released { job } => return self.released(job, outcome.map(drop)),
            Purpose::Nothing => return,
            purpose => purpose,
        };
        let answer = outcome.map(|outcome| match outcome {
            Outcome::Stepped(answer) => answer,
            other => unreachable!("a step was answered with {other:?}"),
        });
        match purpose {
            Purpose::Prepare { client, tx, shard } => self.prepared(client, tx, shard, answer, at),
            Purpose::Decide { client, tx } => {
                let Some(found) = self.clients.get_mut(&client) else { return };
                let Some(attempt) = found.attempt.as_ref().filter(|attempt| attempt.tx == tx) else { return };
                let end = attempt.decided(answer, &mut found.results);
                self.end(client, end, at);
            }
            Purpose::Resolved { job, tx, home } => {
                if self.recovery.resolved(job, answer.is_ok()) {
                    self.ask(home, tx, TxStep::Forget, at.now + ACROSS_STEP_TIMEOUT, Purpose::Nothing);
                }
            }
            Purpose::Settled { tx, shard } => {
                if let Ok(TxAnswer::Settled(decision)) = answer {
                    let step = TxStep::Resolve(decision.unwrap_or(Decision::Aborted));
                    self.ask(shard, tx, step, at.now + ACROSS_STEP_TIMEOUT, Purpose::Nothing);
                }
            }
            Purpose::Asked { request } => {
                let answer = answer.map(|answer| match answer {
                    TxAnswer::Settled(decision) => Reply::Settled(decision),
                    other => unreachable!("a question was answered with {other:?}"),
                });
                self.replies.push((request, answer));
            }
            Purpose::Reserved { .. } | Purpose::Released { .. } | Purpose::Nothing => {}
        }
    }

    fn prepared(
        &mut self,
        number: u64,
        tx: TxId,
        shard: ShardId,
        answer: Result<TxAnswer, Error>,
        at: &Surroundings<'_>,
    ) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let only_reads = client.plan.parts.values().all(Part::only_reads);
        let Some(attempt) = client.attempt.as_mut().filter(|attempt| attempt.tx == tx) else { return };
        // Who only reads keeps nobody waiting who waits for anything, so it may wait while it holds locks.
        if only_reads && at.now < client.patient_until && matches!(answer, Err(Error::Refused(Refusal::Locked { .. })))
        {
            client.refused.insert(shard);
            return;
        }
        match attempt.prepared(shard, answer, &mut client.results) {
            Next::Wait => {}
            Next::Decide { others_hold } => self.decide(number, others_hold),
            Next::Over(end) => self.end(number, end, at),
        }
    }

    fn end(&mut self, number: u64, end: End, at: &Surroundings<'_>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Some(attempt) = client.attempt.take() else { return };
        match end {
            End::Committed { succeeded, at: when } => {
                let looks = client.plan.answers(&client.results);
                // Where there is nothing else to be done, that something was lost is all there is to be said: nothing was written.
                let alone = client.transaction.failure.is_empty() && !succeeded;
                let lost = client.results.values().find_map(|result| result.lost.clone()).filter(|_| alone);
                let ends = client.results.iter().filter_map(|(shard, result)| Some((*shard, result.end?))).collect();
                let appended = client.plan.appended(succeeded, ends);
                let result = TransactionResult { succeeded, looks, repeated: false, at: when, appended };
                self.finish(
                    number,
                    match lost {
                        Some(key) => Err(Refusal::ReservationLost { key }.into()),
                        None => Ok(Reply::Transacted(result)),
                    },
                );
                self.carry_out(&attempt, Decision::Committed { succeeded, at: when }, at);
            }
            End::Repeated(decision, ends) => {
                let (succeeded, when) = match decision {
                    Decision::Committed { succeeded, at } => (succeeded, at),
                    Decision::Aborted => (false, Timestamp::ZERO),
                };
                let appended = client.plan.appended(succeeded, ends.into_iter().collect());
                let result = TransactionResult { succeeded, looks: Vec::new(), repeated: true, at: when, appended };
                self.finish(number, Ok(Reply::Transacted(result)));
                self.carry_out(&attempt, Decision::Aborted, at);
            }
            End::Again(error) => {
                self.pause(number, error, at);
                self.carry_out(&attempt, Decision::Aborted, at);
            }
            End::Failed(error) => {
                self.finish(number, Err(error));
                self.carry_out(&attempt, Decision::Aborted, at);
            }
            // The shards will find out by themselves.
            End::Unknown => {
                let (tx, home) = (attempt.tx, attempt.home);
                self.finish(number, Err(Error::UnknownTransaction { tx, home }));
            }
        }
    }

    /// Another attempt follows after a moment.
    fn pause(&mut self, number: u64, error: Error, at: &Surroundings<'_>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let most = BACKOFF_MAX * client.plan.parts.len().div_ceil(4) as u32;
        let most = most.min(Duration::from_millis(1 << client.attempts.min(16)));
        let wait = Duration::from_micros(self.rng.between(0, most.as_micros() as u64));
        client.again = Some((at.now + wait, error));
    }

    fn finish(&mut self, number: u64, reply: Result<Reply, Error>) {
        if let Some(client) = self.clients.remove(&number) {
            self.replies.push((client.request, reply));
        }
    }

    fn carry_out(&mut self, attempt: &Attempt, decision: Decision, at: &Surroundings<'_>) {
        let (tx, home) = (attempt.tx, attempt.home);
        if decision != Decision::Aborted {
            let shards = attempt.others.iter().copied().collect();
            return self.resolve(tx, home, decision, shards, at);
        }
        for shard in &attempt.others {
            self.ask(*shard, tx, TxStep::Resolve(decision), at.now + ACROSS_STEP_TIMEOUT, Purpose::Nothing);
        }
    }

    /// Has a decision carried out, and then forgotten.
    fn resolve(
        &mut self,
        tx: TxId,
        home: ShardId,
        decision: Decision,
        mut shards: Vec<ShardId>,
        at: &Surroundings<'_>,
    ) {
        // Who was merged had nothing prepared any more: it had carried it out, and its home did not hear of it.
        shards.retain(|shard| !at.keyspaces.is_merged(*shard));
        if shards.is_empty() {
            return self.ask(home, tx, TxStep::Forget, at.now + ACROSS_STEP_TIMEOUT, Purpose::Nothing);
        }
        let job = self.recovery.begin(shards.len());
        for shard in shards {
            let purpose = Purpose::Resolved { job, tx, home };
            self.ask(shard, tx, TxStep::Resolve(decision), at.now + ACROSS_STEP_TIMEOUT, purpose);
        }
    }

    /// Asks again what was locked, for those that only read.
    fn ask_again(&mut self) {
        let mut asks = Vec::new();
        for (number, client) in &mut self.clients {
            let Some(attempt) = &client.attempt else { continue };
            for shard in std::mem::take(&mut client.refused) {
                let part = client.plan.parts[&shard].clone();
                let step = TxStep::Prepare { home: attempt.home, fence: attempt.fence, part: Box::new(part) };
                asks.push((*number, attempt.tx, shard, step, client.deadline));
            }
        }
        for (client, tx, shard, step, deadline) in asks {
            self.ask(shard, tx, step, deadline, Purpose::Prepare { client, tx, shard });
        }
    }

    /// Time passes: attempts that waited begin, and those whose time is up end. `orphans` is what this node's leading replicas have found.
    pub fn tick(&mut self, orphans: Vec<Orphans>, at: &Surroundings<'_>) {
        self.ask_again();
        let waiting = self.clients.iter().filter_map(|(n, client)| client.again.as_ref().map(|(when, _)| (*n, *when)));
        let due: Vec<u64> = waiting.filter(|(_, when)| *when <= at.now).map(|(n, _)| n).collect();
        for number in due {
            let late = self.clients.get_mut(&number).filter(|client| client.deadline <= at.now);
            match late.and_then(|client| client.again.take()) {
                Some((_, error)) => self.finish(number, Err(error)),
                None => self.attempt(number, at),
            }
        }
        if at.sabotage == Some(Sabotage::LeaveOrphans) {
            return;
        }
        let reserved = orphans.iter().flat_map(|found| found.reserved.iter().map(|(by, at)| (found.shard, *by, *at)));
        let reserved: Vec<_> = reserved.filter(|_| at.sabotage != Some(Sabotage::LeaveReservations)).collect();
        self.tick_reservations(reserved.into_iter(), at);
        let found = self.recovery.take_due(orphans, at.now);
        let until = at.now + ACROSS_STEP_TIMEOUT;
        for (shard, tx, home, fence) in found.unsettled {
            // Who was merged had decided nothing that was not carried out everywhere, and decides no more.
            if at.sabotage == Some(Sabotage::PresumeAborted) || at.keyspaces.is_merged(home) {
                self.ask(shard, tx, TxStep::Resolve(Decision::Aborted), until, Purpose::Nothing);
            } else {
                self.ask(home, tx, TxStep::Settle { fence }, until, Purpose::Settled { tx, shard });
            }
        }
        for (home, tx, decision, shards) in found.unresolved {
            self.resolve(tx, home, decision, shards, at);
        }
    }

    /// The node stops: whoever waits is told what is known.
    pub fn stop(&mut self) {
        for client in std::mem::take(&mut self.clients).into_values() {
            let deciding = client.attempt.as_ref().filter(|attempt| attempt.is_deciding());
            let error = match deciding {
                Some(attempt) => Error::UnknownTransaction { tx: attempt.tx, home: attempt.home },
                None => Unavailable::Stopping.into(),
            };
            self.replies.push((client.request, Err(error)));
        }
        self.stop_reserving();
    }
}
