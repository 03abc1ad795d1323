//! Commands of this node's clients, from acceptance to outcome.
//!
//! ```text
//!   submit ──> unsent ──(this node leads)──> queue ──> one entry ──> log ──> applied here ──> reply
//!                 ^  └─(another leads)─────> Forward ──────────────> log ──> applied here ──> reply
//!                 └── leader changed, or no outcome for a while: sent again under the same id
//! ```
//!
//! Where more than a majority is wanted before a client is told (`ack_wait.rs`), a command that was done waits here for that, and is sent no more.
//!
//! A command that met a lock of a transaction over several shards is sent again, too, when locks were released.
//!
//! A command keeps its id for ever, so sending it again is harmless: the session table drops what was applied. The outcome is taken
//! from the entry as it is applied *here*. When the deadline comes first, a command that was never sent is refused; one that was
//! has an unknown outcome, and the answer says so.

use crate::RequestId;
use crate::Sabotage;
use crate::ack_wait::{AckWait, claims_done};
use crate::bounds::{PENDING_BYTES_MAX, PENDING_COMMANDS_MAX, QUEUE_BYTES_MAX, RETRY};
use crate::input::Reply;
use crate::load::Load;
use crate::replica::Context;
use crate::wire::Answer;
use quorate_consensus::{Group, Role};
use quorate_env::{Instant, LogIndex, Timestamp};
use quorate_kv::across::TxStep;
use quorate_kv::reserve::ReserveStep;
use quorate_kv::{Applied, Command, CommandId, Envelope, Error, Op, Refusal, SessionId, Unavailable, limits};
use quorate_shard::encode_entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

struct Pending {
    request: RequestId,
    command: Command,
    bytes: usize,
    deadline: Instant,
    sent: Option<Instant>,
    /// How often it was sent and no answer came back yet.
    under_way: u32,
    /// It met a lock, this was the answer, and it waits to be sent again.
    postponed: Option<Box<Refusal>>,
    /// What must be true besides before its client is told that it was done.
    wait: AckWait,
    /// It was done, and that is not true yet.
    done: Option<Box<Done>>,
}

/// What a client is about to be told.
struct Done {
    applied: Applied,
    /// The entry that did it, or a later one.
    index: LogIndex,
    /// Its timestamp, or a later one.
    at: Timestamp,
}

/// See the module.
pub(crate) struct Proposals {
    session: SessionId,
    next_seq: u64,
    pending: BTreeMap<u64, Pending>,
    pending_bytes: usize,
    /// Those that were done and wait for all voters, by their entries; and those that wait for clocks, by their timestamps.
    for_all: BTreeSet<(LogIndex, u64)>,
    for_clocks: BTreeSet<(Timestamp, u64)>,
    unsent: VecDeque<u64>,
    queue: VecDeque<Envelope>,
    queue_bytes: usize,
}

impl Proposals {
    pub fn new(session: SessionId) -> Self {
        Self {
            session,
            next_seq: 1,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            for_all: BTreeSet::new(),
            for_clocks: BTreeSet::new(),
            unsent: VecDeque::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
        }
    }

    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Accepts a client's command, or refuses it for overload.
    pub fn submit(
        &mut self,
        request: RequestId,
        command: Command,
        wait: AckWait,
        deadline: Instant,
    ) -> Result<(), Unavailable> {
        let seq = self.next_seq;
        let envelope = Envelope { id: self.id(seq), answered_below: 0, command };
        let bytes = envelope.size_estimate();
        if self.pending.len() >= PENDING_COMMANDS_MAX || self.pending_bytes + bytes > PENDING_BYTES_MAX {
            return Err(Unavailable::Overloaded);
        }
        self.next_seq += 1;
        self.pending_bytes += bytes;
        let (command, sent, under_way) = (envelope.command, None, 0);
        let pending = Pending { request, command, bytes, deadline, sent, under_way, postponed: None, wait, done: None };
        self.pending.insert(seq, pending);
        self.unsent.push_back(seq);
        Ok(())
    }

    fn id(&self, seq: u64) -> CommandId {
        CommandId { session: self.session, seq }
    }

    /// Below this number every command of the session has been answered.
    fn answered_below(&self) -> u64 {
        self.pending.first_key_value().map_or(self.next_seq, |(seq, _)| *seq)
    }

    fn take_unsent(&mut self, now: Instant, bytes_max: usize) -> Vec<Envelope> {
        let answered_below = self.answered_below();
        let mut envelopes = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(seq) = self.unsent.pop_front()
        {
            let id = self.id(seq);
            if let Some(pending) = self.pending.get_mut(&seq).filter(|pending| pending.done.is_none()) {
                pending.sent = Some(now);
                pending.under_way += 1;
                bytes += pending.bytes;
                envelopes.push(Envelope { id, answered_below, command: pending.command.clone() });
            }
        }
        envelopes
    }

    /// What to forward to the leader; empty when there is nothing.
    pub fn forward(&mut self, now: Instant) -> Vec<Envelope> {
        self.take_unsent(now, limits::BATCH_BYTES_MAX)
    }

    /// Takes commands for this leader to propose, and returns how many. Beyond the bound they are dropped; their node sends them again.
    pub fn enqueue(&mut self, envelopes: Vec<Envelope>) -> usize {
        let mut taken = 0;
        for envelope in envelopes {
            let bytes = envelope.size_estimate();
            if self.queue_bytes + bytes <= QUEUE_BYTES_MAX {
                self.queue_bytes += bytes;
                self.queue.push_back(envelope);
                taken += 1;
            }
        }
        taken
    }

    /// Proposes what waits, as few entries as the bounds allow and none beyond `end`, if this replica leads. Where time `must` pass, there is an entry even if
    /// nothing waits. Returns whether there was one.
    pub fn propose(
        &mut self,
        cx: &Context<'_>,
        (at, must): (Timestamp, bool),
        end: LogIndex,
        group: &mut Group,
        load: &mut Load,
    ) -> bool {
        let (mut proposed, now, bytes_max) = (false, cx.now, cx.config.batch_bytes);
        if group.role() != Role::Leader {
            return proposed;
        }
        if !self.unsent.is_empty() {
            let own = self.take_unsent(now, usize::MAX);
            self.enqueue(own);
        }
        while !(self.queue.is_empty() && (proposed || !must)) && group.last_index() < end {
            let (mut count, mut bytes) = (0, 0);
            for envelope in &self.queue {
                let size = envelope.size_estimate();
                if count > 0 && (bytes + size > bytes_max || count == limits::BATCH_COMMANDS_MAX) {
                    break;
                }
                count += 1;
                bytes += size;
            }
            let entry = encode_entry(cx.wall, at, self.queue.iter().take(count));
            if group.propose(entry).is_err() {
                break;
            }
            proposed = true;
            self.queue.drain(..count).for_each(|envelope| load.wrote(&envelope.command));
            self.queue_bytes -= bytes;
        }
        proposed
    }

    /// This replica does not lead (any more): what waited to be proposed is for another to propose.
    pub fn drop_queue(&mut self) {
        self.queue.clear();
        self.queue_bytes = 0;
    }

    /// Gives what waits to be sent new ids, as no correct node does.
    fn rename_unsent(&mut self) {
        for seq in &mut self.unsent {
            if let Some(pending) = self.pending.remove(seq) {
                *seq = self.next_seq;
                self.pending.insert(self.next_seq, pending);
                self.next_seq += 1;
            }
        }
    }

    /// Gives everything without an outcome a new id, as no correct node does.
    pub fn ask_anew(&mut self) {
        self.resend_all();
        self.rename_unsent();
    }

    /// The leader changed: everything without an outcome is sent again.
    pub fn resend_all(&mut self) {
        self.unsent = self.undone().collect();
    }

    fn undone(&self) -> impl Iterator<Item = u64> + '_ {
        self.pending.iter().filter(|(_, pending)| pending.done.is_none()).map(|(seq, _)| *seq)
    }

    /// Whether commands wait to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// A command has an outcome, by an entry or one before it, with that timestamp or an earlier one. Returns whom to tell what, unless more must be true
    /// before that.
    pub fn outcome(
        &mut self,
        id: CommandId,
        result: Result<Applied, Refusal>,
        (index, at): (LogIndex, Timestamp),
    ) -> Option<(RequestId, Result<Applied, Refusal>)> {
        let pending = self.pending.get_mut(&id.seq).filter(|_| id.session == self.session)?;
        match result {
            // It was sent twice; what came of it first is what came of it.
            _ if pending.done.is_some() => None,
            Ok(applied) if pending.wait.is_for_more() && claims_done(&applied) => {
                let bytes = applied.size_estimate();
                pending.bytes += bytes;
                self.pending_bytes += bytes;
                pending.postponed = None;
                pending.done = Some(Box::new(Done { applied, index, at }));
                match pending.wait.everywhere {
                    true => self.for_all.insert((index, id.seq)),
                    false => self.for_clocks.insert((at, id.seq)),
                };
                None
            }
            result => self.complete(id).map(|request| (request, result)),
        }
    }

    /// It is known what will come of a command, though no majority has it yet: returns whom to tell, if that is soon enough for its client.
    pub fn tell_early(&mut self, id: CommandId) -> Option<RequestId> {
        let pending = self.pending.get(&id.seq).filter(|_| id.session == self.session)?;
        let told = pending.wait.is_for_less() && pending.done.is_none();
        told.then(|| self.complete(id)).flatten()
    }

    /// The same, as a leader elsewhere says.
    pub fn hear_early(&mut self, answers: Vec<(CommandId, Answer)>) -> Vec<(RequestId, Result<Reply, Error>)> {
        let mut told = Vec::new();
        for (id, answer) in answers {
            if let Answer::Given(Ok(applied)) = answer {
                told.extend(self.tell_early(id).map(|request| (request, Ok(Reply::Applied(applied)))));
            }
        }
        told
    }

    /// All voters must have everything up to here before everybody is told who waits for that.
    pub fn wants_everywhere(&self) -> Option<LogIndex> {
        self.for_all.last().map(|(index, _)| *index)
    }

    /// Whether it was done and is not told yet.
    pub fn is_done(&self, id: CommandId) -> bool {
        id.session == self.session && self.pending.get(&id.seq).is_some_and(|pending| pending.done.is_some())
    }

    /// Whether something was done and is not told yet.
    pub fn holds_answers(&self) -> bool {
        !(self.for_all.is_empty() && self.for_clocks.is_empty())
    }

    /// All voters have everything up to `everywhere`, and `over` says of a timestamp that no clock is before it any more: returns whom to tell what.
    pub fn release(&mut self, everywhere: LogIndex, over: impl Fn(Timestamp) -> bool) -> Vec<(RequestId, Applied)> {
        let mut told = Vec::new();
        while let Some((_, seq)) = self.for_all.first().copied().filter(|(index, _)| *index <= everywhere) {
            self.for_all.pop_first();
            match self.pending.get(&seq).and_then(|pending| Some((pending.wait.over, pending.done.as_ref()?.at))) {
                Some((true, at)) => {
                    self.for_clocks.insert((at, seq));
                }
                _ => told.extend(self.tell(seq)),
            }
        }
        while let Some((_, seq)) = self.for_clocks.first().copied().filter(|(at, _)| over(*at)) {
            self.for_clocks.pop_first();
            told.extend(self.tell(seq));
        }
        told
    }

    fn tell(&mut self, seq: u64) -> Option<(RequestId, Applied)> {
        let done = self.pending.get_mut(&seq)?.done.take()?;
        Some((self.complete(self.id(seq))?, done.applied))
    }

    /// The client that waits for a command, which now has an outcome.
    pub fn complete(&mut self, id: CommandId) -> Option<RequestId> {
        if id.session != self.session {
            return None;
        }
        let pending = self.pending.remove(&id.seq)?;
        if let Some(done) = &pending.done {
            self.for_all.remove(&(done.index, id.seq));
            self.for_clocks.remove(&(done.at, id.seq));
        }
        self.pending_bytes -= pending.bytes;
        Some(pending.request)
    }

    /// A command met a lock, and was not carried out: it is sent again when locks are released, or after a while. Returns whether it will
    /// be; what prepares or decides a transaction is not, so that no two ever wait for each other.
    pub fn postpone(&mut self, id: CommandId, refusal: &Refusal) -> bool {
        let pending = self.pending.get_mut(&id.seq).filter(|_| id.session == self.session);
        let again =
            |pending: &&mut Pending| !matches!(pending.command, Command::Across { .. }) && pending.done.is_none();
        let Some(pending) = pending.filter(again) else { return false };
        pending.under_way = pending.under_way.saturating_sub(1);
        pending.postponed = Some(Box::new(refusal.clone()));
        true
    }

    /// Locks were released: what met one is sent again.
    pub fn resend_postponed(&mut self) {
        for (seq, pending) in &mut self.pending {
            if pending.postponed.take().is_some() {
                self.unsent.push_back(*seq);
            }
        }
    }

    /// Whether nothing waits to be proposed, and nobody for an outcome.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.queue.is_empty()
    }

    /// How many commands have no outcome yet.
    pub fn outstanding_count(&self) -> u64 {
        self.pending.len() as u64
    }

    /// Commands without an outcome.
    pub fn outstanding(&self) -> Vec<CommandId> {
        self.undone().map(|seq| self.id(seq)).collect()
    }

    /// Sends again what got no outcome for a while, and gives up what is past its deadline.
    pub fn tick(&mut self, now: Instant, sabotage: Option<Sabotage>) -> Vec<(RequestId, Error)> {
        let mut expired = Vec::new();
        let mut given_up = Vec::new();
        for (seq, pending) in &mut self.pending {
            if pending.deadline <= now {
                expired.push(*seq);
            } else if pending.done.is_none() && pending.sent.is_some_and(|sent| now.since(sent) >= RETRY) {
                pending.sent = Some(now);
                self.unsent.push_back(*seq);
            }
        }
        if sabotage == Some(Sabotage::RetryUnderNewId) {
            self.rename_unsent();
        }
        for seq in expired {
            let lie = sabotage == Some(Sabotage::RefuseWhatWasSent);
            given_up.extend(self.give_up(seq, Unavailable::NoLeader, lie));
        }
        given_up
    }

    /// Gives everything up: the node stops.
    pub fn stop(&mut self) -> Vec<(RequestId, Error)> {
        let all: Vec<u64> = self.pending.keys().copied().collect();
        all.into_iter().filter_map(|seq| self.give_up(seq, Unavailable::Stopping, false)).collect()
    }

    /// The honest end of a command without an outcome: what was never sent did not happen, nor what met a lock each time; of the rest nobody
    /// here knows.
    fn give_up(&mut self, seq: u64, why: Unavailable, lie: bool) -> Option<(RequestId, Error)> {
        let id = self.id(seq);
        let pending = self.pending.get(&seq)?;
        let error = match &pending.postponed {
            // It was done, and may not be as safe as was asked for.
            _ if pending.done.is_some() => Error::UnknownOutcome(id),
            Some(refusal) if pending.under_way == 0 => Error::Refused(Refusal::clone(refusal)),
            _ if pending.sent.is_some() && !lie => Error::UnknownOutcome(id),
            _ => why.into(),
        };
        self.complete(id).map(|request| (request, error))
    }
}

/// Whether a command needs disk space that it will not give back.
pub(crate) fn needs_space(command: &Command) -> bool {
    match command {
        Command::Transact(txn) => {
            let writes = |op: &Op| matches!(op, Op::Put(_) | Op::Txn(_));
            txn.success.iter().chain(&txn.failure).any(writes)
        }
        Command::LeaseGrant { .. } | Command::Call { .. } => true,
        Command::Across { step, .. } => matches!(step, TxStep::Prepare { .. } | TxStep::Decide(_)),
        Command::Reserve { step, .. } => matches!(step, ReserveStep::Reserve { .. }),
        Command::Split { .. } | Command::Absorb(_) => true,
        Command::LeaseRevoke { .. }
        | Command::LeaseExpire { .. }
        | Command::Compact { .. }
        | Command::Trim { .. }
        | Command::Wean { .. }
        | Command::Yield { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::{Op, PutOp, Txn};
    use std::time::Duration;

    fn put() -> Command {
        Command::Transact(Txn::just(Op::Put(PutOp::of("k", "v"))))
    }

    fn seqs(envelopes: &[Envelope]) -> Vec<u64> {
        envelopes.iter().map(|envelope| envelope.id.seq).collect()
    }

    #[test]
    fn only_what_was_never_sent_is_said_not_to_have_happened() {
        let session = SessionId(7);
        let later = Instant(0) + Duration::from_secs(60);
        let mut proposals = Proposals::new(session);
        proposals.submit(1, put(), AckWait::default(), later).expect("room");
        assert_eq!(seqs(&proposals.forward(Instant(0))), [1]);
        proposals.submit(2, put(), AckWait::default(), later).expect("room");
        let unknown = Error::UnknownOutcome(CommandId { session, seq: 1 });
        assert_eq!(proposals.stop(), [(1, unknown), (2, Unavailable::Stopping.into())]);
        assert_eq!((proposals.outstanding_count(), proposals.pending_bytes), (0, 0));
    }

    #[test]
    fn a_command_keeps_its_id_until_it_has_an_outcome() {
        let mut proposals = Proposals::new(SessionId(7));
        proposals.submit(1, put(), AckWait::default(), Instant(0) + Duration::from_secs(60)).expect("room");
        assert_eq!(seqs(&proposals.forward(Instant(0))), [1]);
        assert!(proposals.forward(Instant(0)).is_empty(), "sent once");
        assert_eq!(proposals.tick(Instant(0) + RETRY, None), []);
        assert_eq!(seqs(&proposals.forward(Instant(0) + RETRY)), [1], "no answer for a while");
        proposals.resend_all();
        let again = proposals.forward(Instant(0) + RETRY);
        assert_eq!((seqs(&again), again[0].answered_below), (vec![1], 1), "another leader");
        assert_eq!(proposals.complete(again[0].id), Some(1));
        proposals.submit(2, put(), AckWait::default(), Instant(0)).expect("room");
        assert_eq!(proposals.forward(Instant(0))[0].answered_below, 2);
        let elsewhere = CommandId { session: SessionId(8), seq: 2 };
        assert_eq!(proposals.complete(elsewhere), None);
    }

    #[test]
    fn what_met_a_lock_is_sent_again_and_is_known_not_to_have_happened() {
        let mut proposals = Proposals::new(SessionId(7));
        let later = Instant(0) + Duration::from_secs(60);
        proposals.submit(1, put(), AckWait::default(), later).expect("room");
        let id = proposals.forward(Instant(0))[0].id;
        let locked = Refusal::Locked { key: "k".into(), by: quorate_kv::across::TxId(4) };
        assert!(proposals.postpone(id, &locked));
        assert!(!proposals.has_unsent(), "not before something is unlocked");
        proposals.resend_postponed();
        assert_eq!(seqs(&proposals.forward(Instant(0))), [1]);
        assert!(proposals.postpone(id, &locked));
        assert_eq!(proposals.stop(), [(1, Error::Refused(locked.clone()))]);

        proposals.submit(2, put(), AckWait::default(), later).expect("room");
        let id = proposals.forward(Instant(0))[0].id;
        proposals.resend_all();
        assert_eq!(seqs(&proposals.forward(Instant(0))), [2]);
        assert!(proposals.postpone(id, &locked));
        assert_eq!(proposals.stop(), [(2, Error::UnknownOutcome(id))], "the other copy may still be carried out");
    }

    #[test]
    fn too_much_in_flight_is_refused_and_nothing_else() {
        let mut proposals = Proposals::new(SessionId(7));
        let half = Command::Transact(Txn::just(Op::Put(PutOp::of("k", vec![0; PENDING_BYTES_MAX / 2]))));
        proposals.submit(1, half.clone(), AckWait::default(), Instant(0)).expect("room");
        assert_eq!(proposals.submit(2, half, AckWait::default(), Instant(0)), Err(Unavailable::Overloaded));
        proposals.submit(3, put(), AckWait::default(), Instant(0)).expect("room for a small one");
        assert_eq!(proposals.outstanding_count(), 2);
    }

    fn done() -> Applied {
        let header = quorate_kv::Header { revision: quorate_kv::Revision(2), term: quorate_env::Term(1) };
        Applied { header, outcome: quorate_kv::Outcome::Compacted }
    }

    #[test]
    fn what_was_done_is_told_when_all_have_it_and_is_unknown_until_then() {
        let mut proposals = Proposals::new(SessionId(7));
        let (everywhere, later) =
            (AckWait { everywhere: true, ..AckWait::default() }, Instant(0) + Duration::from_secs(60));
        for request in 1..=3 {
            proposals.submit(request, put(), everywhere, later).expect("room");
        }
        let ids: Vec<CommandId> = proposals.forward(Instant(0)).iter().map(|envelope| envelope.id).collect();
        for (id, index) in ids.iter().zip(5..) {
            assert_eq!(proposals.outcome(*id, Ok(done()), (LogIndex(index), Timestamp::ZERO)), None);
        }
        assert_eq!(proposals.wants_everywhere(), Some(LogIndex(7)));
        proposals.resend_all();
        assert!(!proposals.has_unsent() && proposals.outstanding().is_empty(), "it needs no other try");
        assert_eq!(proposals.tick(Instant(0) + RETRY, None), []);
        let again = proposals.outcome(ids[0], Err(Refusal::EmptyKey), (LogIndex(9), Timestamp::ZERO));
        assert_eq!(again, None, "the first outcome is the outcome");
        assert_eq!(proposals.release(LogIndex(4), |_| false), []);
        assert_eq!(proposals.release(LogIndex(6), |_| false), [(1, done()), (2, done())]);
        assert_eq!(proposals.tick(later, None), [(3, Error::UnknownOutcome(ids[2]))]);
        assert!((proposals.pending_bytes, proposals.holds_answers()) == (0, false));
    }

    #[test]
    fn who_waits_for_clocks_is_told_when_they_are_past_it() {
        let mut proposals = Proposals::new(SessionId(7));
        let over = AckWait { over: true, ..AckWait::default() };
        proposals.submit(1, put(), over, Instant(0) + Duration::from_secs(60)).expect("room");
        let id = proposals.forward(Instant(0))[0].id;
        assert_eq!(proposals.outcome(id, Ok(done()), (LogIndex(5), Timestamp(70))), None);
        assert_eq!(proposals.wants_everywhere(), None);
        assert_eq!(proposals.release(LogIndex(0), |at| at < Timestamp(70)), []);
        assert_eq!(proposals.release(LogIndex(0), |at| at < Timestamp(71)), [(1, done())]);
    }

    #[test]
    fn a_refusal_waits_for_nothing() {
        let mut proposals = Proposals::new(SessionId(7));
        let all = AckWait { everywhere: true, over: true, ..AckWait::default() };
        proposals.submit(1, put(), all, Instant(0) + Duration::from_secs(60)).expect("room");
        let id = proposals.forward(Instant(0))[0].id;
        let refused = proposals.outcome(id, Err(Refusal::EmptyKey), (LogIndex(5), Timestamp(70)));
        assert_eq!(refused, Some((1, Err(Refusal::EmptyKey))));
    }
}
