//! The steps of transactions over several shards, as a shard takes them. What they are for is told in `kv::across`.

pub(crate) mod ledger;
pub(crate) mod locks;

use crate::eval;
use crate::flaw::Flaw;
use crate::machine::{MachineError, Transaction};
use bytes::Bytes;
use ledger::{Decided, Prepared};
use locks::{Blocker, Mode};
use quorate_env::{LogIndex, Timestamp};
use quorate_kv::across::{Decision, OWN, Part, PartResult, TxAnswer, TxId, TxStep, Verdict, Write};
use quorate_kv::{Command, KeyRange, LeaseId, Op, Refusal, Txn, log};

/// Decisions forgotten with one entry: a few more than one entry usually makes, so that they never pile up.
const FORGOTTEN_PER_ENTRY: usize = 16;

type Stepped = Result<Result<TxAnswer, Refusal>, MachineError>;

impl Transaction<'_> {
    pub(crate) fn step_across(&mut self, tx: TxId, step: &TxStep) -> Stepped {
        match step {
            TxStep::Prepare { home, fence, part } => {
                self.prepare(tx, Prepared { home: *home, fence: *fence, part: Part::clone(part), at: self.meta.clock })
            }
            TxStep::Decide(verdict) => self.decide_across(tx, verdict),
            TxStep::Settle { fence } => Ok(Ok(self.settle(tx, *fence))),
            TxStep::Resolve(decision) => self.resolve(tx, *decision),
            TxStep::Forget => {
                if let Some(decided) = self.ledger.decided(tx) {
                    let decided = Decided { unresolved: Vec::new(), ..decided.clone() };
                    self.keep(tx, decided);
                }
                Ok(Ok(TxAnswer::Done))
            }
        }
    }

    fn prepare(&mut self, tx: TxId, prepared: Prepared) -> Stepped {
        let at = self.ledger.prepared(tx).map_or(prepared.at, |before| before.at);
        if self.ledger.prepared(tx).is_none() {
            if let Some(blocker) = self.blocker_of(&prepared.part) {
                return Ok(Err(blocker.into()));
            }
            self.wound(&prepared.part);
            if self.flaw == Some(Flaw::AppendAtPrepare) {
                self.append_all(&prepared.part.success, prepared.at)?;
            }
            self.put_row(self.slot.prepared(tx), prepared.encode().into());
            self.ledger.prepare(tx, prepared.clone());
        }
        Ok(Ok(TxAnswer::Prepared(PartResult { at, ..self.judge_part(&prepared.part)? })))
    }

    fn decide_across(&mut self, tx: TxId, verdict: &Verdict) -> Stepped {
        if let Some(decided) = self.ledger.decided(tx)
            && self.flaw != Some(Flaw::CommitTheAborted)
        {
            return Ok(Ok(TxAnswer::Decided { decision: decided.decision, result: None }));
        }
        if let Some(before) = verdict.key.and_then(|key| self.ledger.of_key(key))
            && self.flaw != Some(Flaw::ForgetKeys)
        {
            return Ok(Ok(TxAnswer::Repeated(before.decision, before.ends.clone())));
        }
        if self.now() > verdict.fence {
            return Ok(Err(Refusal::Aborted { tx }));
        }
        if let Some(blocker) = self.blocker_of(&verdict.part) {
            return Ok(Err(blocker.into()));
        }
        let result = self.judge_part(&verdict.part)?;
        let succeeded = result.holds && verdict.others_hold;
        self.wound(&verdict.part);
        self.write_branch(&verdict.part, succeeded, self.meta.clock)?;
        if succeeded {
            self.release_all(verdict.part.claim.as_ref());
        }
        let decision = Decision::Committed { succeeded, at: self.meta.clock };
        if !verdict.prepared.is_empty() || verdict.key.is_some() {
            let Verdict { fence, key, .. } = *verdict;
            // Who asks again under the client's name is told the same offsets.
            let ends = verdict.ends.iter().copied().chain(result.end.map(|end| (OWN, end)));
            let ends = if key.is_some() { ends.collect() } else { Vec::new() };
            self.keep(tx, Decided { decision, fence, unresolved: verdict.prepared.clone(), key, ends });
        }
        Ok(Ok(TxAnswer::Decided { decision, result: Some(result) }))
    }

    fn settle(&mut self, tx: TxId, fence: LogIndex) -> TxAnswer {
        if let Some(decided) = self.ledger.decided(tx) {
            return TxAnswer::Settled(Some(decided.decision));
        }
        if self.now() > fence {
            return TxAnswer::Settled(None);
        }
        // Who has yielded decides nothing any more, so that need not be written down.
        if self.flaw != Some(Flaw::SettleUnwritten) && !self.meta.yielded {
            let decision = Decision::Aborted;
            self.keep(tx, Decided { decision, fence, unresolved: Vec::new(), key: None, ends: Vec::new() });
        }
        TxAnswer::Settled(Some(Decision::Aborted))
    }

    fn resolve(&mut self, tx: TxId, decision: Decision) -> Stepped {
        if let Some(prepared) = self.ledger.release(tx) {
            self.delete_row(self.slot.prepared(tx));
            self.unlocked = true;
            if let Decision::Committed { succeeded, at } = decision {
                if self.flaw != Some(Flaw::AppendAtPrepare) || !prepared.part.appends() {
                    self.write_branch(&prepared.part, succeeded, at)?;
                }
                self.happened_at(at);
                if succeeded {
                    self.release_all(prepared.part.claim.as_ref());
                }
            }
        }
        Ok(Ok(TxAnswer::Done))
    }

    /// Forgets decisions that the log has passed.
    pub(crate) fn forget_decisions(&mut self) {
        if self.meta.yielded {
            // They are another's by now, who forgets them by its own log.
            return;
        }
        for _ in 0..FORGOTTEN_PER_ENTRY {
            let Some(tx) = self.ledger.pop_forgotten(self.now()) else { return };
            self.delete_row(self.slot.decided(tx));
        }
    }

    pub(crate) fn keep(&mut self, tx: TxId, decided: Decided) {
        self.put_row(self.slot.decided(tx), decided.encode().into());
        self.ledger.decide(tx, decided);
    }

    /// The entry that is being applied.
    pub(crate) fn now(&self) -> LogIndex {
        self.meta.applied.next()
    }

    fn judge_part(&mut self, part: &Part) -> Result<PartResult, MachineError> {
        self.flush()?;
        let at = self.meta.clock;
        let lost = self.lost_of(part.claim.as_ref());
        let reads = Vec::with_capacity(part.reads.len());
        let end = if part.appends() { Some(self.log_bounds()?.end) } else { None };
        let mut result = PartResult { holds: lost.is_none(), reads, at, lost, end };
        for compare in &part.compares {
            if !eval::holds(self.source, self.slot, compare)? && self.flaw != Some(Flaw::IgnoreCompares) {
                result.holds = false;
                break;
            }
        }
        for read in &part.reads {
            result.reads.push(eval::range(self.source, self.slot, read, self.meta.revision)?);
        }
        Ok(result)
    }

    /// `at` is when it was decided.
    fn write_branch(&mut self, part: &Part, succeeded: bool, at: Timestamp) -> Result<(), MachineError> {
        for write in if succeeded { &part.success } else { &part.failure } {
            match write {
                Write::Put { key, value } => {
                    self.put(key, value.clone(), LeaseId::NONE)?;
                }
                Write::Delete(range) => {
                    for key in self.keys_in(range)? {
                        self.delete(&key)?;
                    }
                }
                Write::Append(records) => self.append(records, at)?,
            }
        }
        Ok(())
    }

    fn append_all(&mut self, writes: &[Write], at: Timestamp) -> Result<(), MachineError> {
        for write in writes {
            if let Write::Append(records) = write {
                self.append(records, at)?;
            }
        }
        Ok(())
    }

    fn blocker_of(&self, part: &Part) -> Option<Blocker> {
        let unlocked = self.flaw == Some(Flaw::EndUnlocked) && part.appends();
        let ignored = unlocked || self.flaw == Some(Flaw::IgnoreLocks);
        let locked = self.ledger.locks().blocker_of(part).filter(|_| !ignored);
        locked.or_else(|| if self.writes_nothing(part) { None } else { self.reserved_by_others(part) })
    }

    /// What keeps a command from being carried out now. Nearly always there are no locks at all.
    pub(crate) fn blocker(&self, command: &Command) -> Option<Blocker> {
        if self.ledger.locks().is_empty() && self.ledger.reservations().is_empty() {
            return None;
        }
        match command {
            Command::Transact(txn) => self.blocker_of_txn(txn),
            Command::LeaseRevoke { id } | Command::LeaseExpire { id, .. } => {
                let mut keys = self.leases.get(*id)?.keys.iter();
                keys.find_map(|key| self.hindered(&KeyRange::single(key.clone()), Mode::Write))
            }
            Command::Trim { .. } => self.hindered(&KeyRange::single(log::BOUNDS), Mode::Write),
            // What it will touch, nobody knows.
            Command::Call { .. } => self.hindered(&KeyRange::all(), Mode::Write),
            Command::LeaseGrant { .. }
            | Command::Compact { .. }
            | Command::Across { .. }
            | Command::Split { .. }
            | Command::Wean { .. }
            | Command::Yield { .. }
            | Command::Absorb(_)
            | Command::Reserve { .. } => None,
        }
    }

    /// What keeps a range from being read or written: what is prepared, and from being written what is reserved, too.
    fn hindered(&self, range: &KeyRange, mode: Mode) -> Option<Blocker> {
        let locked = self.ledger.locks().blocker(range, mode).filter(|_| self.flaw != Some(Flaw::IgnoreLocks));
        locked.or_else(|| if mode == Mode::Write { self.reserved(range, None) } else { None })
    }

    fn blocker_of_txn(&self, txn: &Txn) -> Option<Blocker> {
        let compared = txn.compares.iter().find_map(|compare| self.hindered(&compare.range, Mode::Read));
        compared.or_else(|| {
            txn.success.iter().chain(&txn.failure).find_map(|op| match op {
                Op::Range(op) => self.hindered(&op.range, Mode::Read),
                Op::Put(op) => self.hindered(&KeyRange::single(op.key.clone()), Mode::Write),
                Op::Delete(op) => self.hindered(&op.range, Mode::Write),
                Op::Txn(nested) => self.blocker_of_txn(nested),
            })
        })
    }
}

impl From<Blocker> for Refusal {
    fn from(Blocker { key, by }: Blocker) -> Self {
        Self::Locked { key: Bytes::copy_from_slice(&key), by }
    }
}
