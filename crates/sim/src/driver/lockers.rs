//! Tellers that reserve accounts before they read them, and how that is judged.
//!
//! What is reserved is lost for a reason: to somebody older who wanted it, or because its time was up, or because it was given up. And nobody else writes it meanwhile:
//! what was there when it was reserved is what its holder's write replaces.

use super::{Event, Step, World};
use crate::history::{Violation, demand};
use crate::locking::Locking;
use crate::teller::{Deed, TellerFlight};
use crate::trace::recorder::node_lane;
use crate::trace::{TraceEvent, words};
use bytes::Bytes;
use quorate_cluster::{Input, Reply, RequestId};
use quorate_env::ShardId;
use quorate_kv::across::{TransactionResult, TxId, TxStep, Write};
use quorate_kv::reserve::{Claim, Holder, ReserveStep};
use quorate_kv::{Command, Error, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// How long a teller waits before it begins anew, in microseconds.
const ANEW_US: (u64, u64) = (1, 10_000);

/// Somebody was told that it had lost a key.
struct Loss {
    operation: u64,
    holder: Holder,
    key: Bytes,
    began_us: u64,
}

/// What was seen of reservations.
#[derive(Default)]
pub(super) struct Lockers {
    /// Who wanted a key, and when that was committed.
    wanted: BTreeMap<Bytes, Vec<(u64, Holder)>>,
    /// Whose reservations were ended by their time, or because they were given up.
    ended: BTreeSet<TxId>,
    losses: Vec<Loss>,
    /// Operations that rest on reservations, and whose versions they saw when they reserved.
    rested: BTreeMap<u64, Vec<(Bytes, u64)>>,
    /// Requests whose answers say nothing.
    releases: BTreeSet<RequestId>,
}

impl World<'_> {
    /// A step of a reservation, or one that rests on some, is committed.
    pub(super) fn lockers_commit(&mut self, command: &Command) {
        match command {
            Command::Reserve { by, step: ReserveStep::Reserve { age, keys, .. } } => {
                let holder = Holder { age: *age, by: *by };
                keys.iter().for_each(|key| self.wants(key, holder));
            }
            Command::Reserve { by, step } => {
                self.lockers.ended.insert(*by);
                if matches!(step, ReserveStep::Lapse { .. }) {
                    self.mark("reservation lapsed");
                }
            }
            Command::Across { step, .. } => {
                let written = match step {
                    TxStep::Prepare { part, .. } => &part.success,
                    TxStep::Decide(verdict) => &verdict.part.success,
                    _ => return,
                };
                let Some(Claim { holder, .. }) = step.claim() else { return };
                for write in written {
                    if let Write::Put { key, .. } = write {
                        self.wants(key, *holder);
                    }
                }
            }
            _ => {}
        }
    }

    fn wants(&mut self, key: &Bytes, holder: Holder) {
        let now = self.now;
        self.lockers.wanted.entry(key.clone()).or_default().push((now, holder));
    }

    /// Whether an answer was to somebody who gave up what it had reserved.
    pub(super) fn release_heard(&mut self, request: RequestId) -> bool {
        self.lockers.releases.remove(&request)
    }

    /// A teller that reserves hears something.
    pub(super) fn locker_hears(
        &mut self,
        teller: usize,
        mut flight: TellerFlight,
        answer: &Result<Reply, Error>,
    ) -> Step {
        let Some(mut lock) = flight.lock.take() else { return Ok(()) };
        let operation = flight.operation;
        match answer {
            Ok(Reply::Reserved(granted)) if !lock.committing => {
                if lock.granted(granted).is_none() {
                    return self.lock_is_given_up(teller, &flight, &lock);
                }
                self.mark("key reserved");
                let wait = if lock.has_all() { lock.think_us } else { 1 };
                if lock.has_all() && lock.leaves() {
                    self.mark("reservation left behind");
                    self.bank_forgets(operation);
                    self.teller_goes_on(teller);
                    return Ok(());
                }
                self.lock_waits(teller, flight, lock, wait);
            }
            Ok(Reply::Transacted(result)) if lock.committing => {
                return self.lock_is_done(teller, operation, &lock, result);
            }
            Err(Error::Refused(Refusal::ReservationLost { key })) => {
                self.mark("reservation lost");
                let (holder, key, began_us) = (lock.holder(), key.clone(), lock.began_us);
                self.lockers.losses.push(Loss { operation, holder, key, began_us });
                self.bank_wrote_nothing(operation);
                if !lock.anew() {
                    return self.lock_is_given_up(teller, &flight, &lock);
                }
                let wait = self.bank.tellers[teller].think(ANEW_US);
                flight.again = None;
                self.lock_waits(teller, flight, lock, wait);
            }
            Err(Error::Unavailable(_) | Error::Refused(_)) if lock.committing && flight.sent() > 1 => {
                self.mark("unknown outcome");
                self.teller_goes_on(teller);
            }
            Err(
                Error::Unavailable(_)
                | Error::Refused(Refusal::Locked { .. } | Refusal::Aborted { .. } | Refusal::Moved { .. }),
            ) => {
                self.mark("transaction given up");
                if lock.committing {
                    self.note_refused(operation);
                }
                return self.lock_is_given_up(teller, &flight, &lock);
            }
            Err(Error::UnknownOutcome(_) | Error::UnknownTransaction { .. }) if lock.committing => {
                self.mark("unknown outcome");
                flight.lock = Some(lock);
                return self.teller_asks_again(teller, flight);
            }
            _ => {
                let (_, _, text) = words::answered(answer);
                return Err(Violation { rule: "answers fit", detail: format!("a teller was told: {text}") });
            }
        }
        Ok(())
    }

    /// The teller thinks.
    fn lock_waits(&mut self, teller: usize, mut flight: TellerFlight, lock: Locking, wait: u64) {
        // Nobody is asked, so nobody's patience ends.
        flight.asked += 1;
        let (operation, asked) = (flight.operation, flight.asked);
        flight.lock = Some(lock);
        let id = self.next_request;
        self.next_request += 1;
        self.bank.tellers[teller].in_flight = Some((id, flight));
        self.after(wait, Event::Locker { teller, operation, asked });
    }

    /// The teller has thought, and wants more, or commits.
    pub(super) fn locker_turn(&mut self, teller: usize, operation: u64, asked: u32) -> Step {
        let waits = |flight: &TellerFlight| flight.operation == operation && flight.asked == asked;
        if !self.bank.tellers[teller].in_flight.as_ref().is_some_and(|(_, flight)| waits(flight)) {
            return Ok(());
        }
        let Some((_, mut flight)) = self.bank.tellers[teller].in_flight.take() else { return Ok(()) };
        let Some(mut lock) = flight.lock.take() else { return Ok(()) };
        let there = self.not_retired();
        let node = there[self.bank.tellers[teller].pick_lock(there.len())];
        let Some(bank) = self.bank_of(node).filter(|_| !self.bank_rests()) else {
            return self.lock_is_given_up(teller, &flight, &lock);
        };
        flight.node = node;
        let request = if lock.has_all() {
            let request = lock.commit(bank.id, operation, self.bank.tellers[teller].lock_rng());
            let saw: Vec<(Bytes, u64)> = lock.saw().map(|(key, writer)| (key.clone(), writer)).collect();
            self.bank_writes(operation, &saw);
            self.lockers.rested.insert(operation, saw);
            flight.asked_before = flight.asked;
            flight.again =
                matches!(&request, quorate_cluster::Request::Transact(tx) if tx.key.is_some()).then(|| request.clone());
            flight.deed = Deed::Write { keys: lock.keys.clone(), reads: Vec::new() };
            request
        } else {
            lock.wish(bank.id)
        };
        flight.lock = Some(lock);
        self.teller_asks(teller, flight, request)
    }

    fn lock_is_done(&mut self, teller: usize, operation: u64, lock: &Locking, result: &TransactionResult) -> Step {
        self.note_told(operation, result.at);
        if result.repeated {
            self.mark("transaction repeated");
        }
        if !result.succeeded {
            // Under its name it was found that something was lost.
            demand(result.repeated, "answers fit", || format!("operation {operation} rests on nothing that may fail"))?;
            self.bank_wrote_nothing(operation);
            self.bank_forgets(operation);
            self.teller_goes_on(teller);
            return Ok(());
        }
        self.mark("transaction under reservations");
        if lock.saw().any(|(_, writer)| writer == operation) {
            return Err(Violation {
                rule: "what is reserved nobody else writes",
                detail: format!("operation {operation} reserved what it had written already"),
            });
        }
        self.teller_is_done(teller, operation)?;
        self.teller_goes_on(teller);
        Ok(())
    }

    /// It was not done, and what it has reserved is given up.
    fn lock_is_given_up(&mut self, teller: usize, flight: &TellerFlight, lock: &Locking) -> Step {
        self.bank_forgets(flight.operation);
        let node = flight.node;
        self.teller_goes_on(teller);
        let Some(bank) = self.bank_of(node).filter(|_| self.nodes[node].node.is_some()) else { return Ok(()) };
        let (id, request) = (self.next_request, lock.release(bank.id));
        self.next_request += 1;
        self.lockers.releases.insert(id);
        let (client, operation) = (self.teller_lane(teller), flight.operation);
        self.trace(|| TraceEvent::Ask { client, node: node_lane(node), operation, text: "release".into() });
        self.feed(node, Input::Request { id, timeout: super::REQUEST_TIMEOUT, request })
    }

    /// In the end, given who wrote the versions of each key: whatever was lost was lost for a reason, and nobody wrote what another had reserved.
    pub(super) fn lockers_close(&self, writers: &BTreeMap<Bytes, Vec<u64>>) -> Step {
        for Loss { operation, holder, key, began_us } in &self.lockers.losses {
            let older = |(at, other): &(u64, Holder)| at >= began_us && other.by != holder.by && other < holder;
            let wanted = self.lockers.wanted.get(key).is_some_and(|wanted| wanted.iter().any(older));
            let ended = self.lockers.ended.contains(&holder.by);
            demand(wanted || ended, "a reservation is lost for a reason", || {
                let key = key.escape_ascii();
                format!("operation {operation} lost {key}, which nobody older wanted, and its time was not up")
            })?;
        }
        for (operation, saw) in &self.lockers.rested {
            for (key, seen) in saw {
                let Some(all) = writers.get(key) else { continue };
                let Some(at) = all.iter().position(|writer| writer == operation) else { continue };
                let before = at.checked_sub(1).map(|at| all[at]);
                demand(before == Some(*seen), "what is reserved nobody else writes", || {
                    let key = key.escape_ascii();
                    format!(
                        "operation {operation} reserved {key} as written by {seen}, and replaced what {before:?} wrote"
                    )
                })?;
            }
        }
        Ok(())
    }

    /// What is left of reservations in a shard.
    pub(super) fn reserved_in(&self, shard: ShardId, lasting: &BTreeSet<usize>) -> usize {
        let nodes = lasting.iter().filter_map(|node| self.nodes[*node].node.as_ref());
        let latest = nodes.max_by_key(|node| node.view(shard).map(|view| view.applied()));
        latest.map_or(0, |node| node.reserved(shard))
    }
}
