//! Transactions as etcd has them: judged first, on the branch that will run, then run.

use super::{MachineError, Transaction};
use crate::eval;
use crate::flaw::Flaw;
use quorate_kv::{DeleteOp, DeleteResult, LeaseId, Op, OpResult, PutOp, PutResult, Refusal, Txn, TxnResult};

/// Whether an operation may be done.
type Verdict = Result<(), Refusal>;

impl Transaction<'_> {
    pub(super) fn transact(&mut self, txn: &Txn, wanted: bool) -> Result<Result<TxnResult, Refusal>, MachineError> {
        let mut path = Vec::new();
        self.decide(txn, &mut path)?;
        // All writes are judged before all reads, as etcd does: of two reasons to refuse, clients get the same one.
        for check in [Self::check_write, Self::check_read] {
            if let Err(refusal) = self.check(txn, &mut path.iter().copied(), check)? {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(self.run(txn, &mut path.iter().copied(), wanted)?))
    }

    /// Judges the compares of a transaction and of those nested in the branch it takes, in the order in which they run.
    fn decide(&mut self, txn: &Txn, path: &mut Vec<bool>) -> Result<(), MachineError> {
        let mut holds = true;
        for compare in &txn.compares {
            if !compare.range.is_single() || self.fresh.contains_key(&self.slot.current(&compare.range.start)) {
                self.flush()?;
            }
            if !eval::holds(self.source, self.slot, compare)? && self.flaw != Some(Flaw::IgnoreCompares) {
                holds = false;
                break;
            }
        }
        path.push(holds);
        for op in branch(txn, holds) {
            if let Op::Txn(nested) = op {
                self.decide(nested, path)?;
            }
        }
        Ok(())
    }

    /// Refuses what cannot be done, before anything is.
    fn check(
        &self,
        txn: &Txn,
        path: &mut impl Iterator<Item = bool>,
        check: fn(&Self, &Op) -> Result<Verdict, MachineError>,
    ) -> Result<Verdict, MachineError> {
        let holds = path.next().expect("one decision for each transaction");
        for op in branch(txn, holds) {
            let checked = match op {
                Op::Txn(nested) => self.check(nested, path, check)?,
                op => check(self, op)?,
            };
            if checked.is_err() {
                return Ok(checked);
            }
        }
        Ok(Ok(()))
    }

    fn check_read(&self, op: &Op) -> Result<Verdict, MachineError> {
        let Op::Range(op) = op else { return Ok(Ok(())) };
        Ok(eval::check_revision(op, self.meta.revision, self.meta.compacted))
    }

    fn check_write(&self, op: &Op) -> Result<Verdict, MachineError> {
        let Op::Put(op) = op else { return Ok(Ok(())) };
        if (op.ignore_value || op.ignore_lease) && self.get(&op.key)?.is_none() {
            return Ok(Err(Refusal::KeyNotFound));
        }
        if op.lease != LeaseId::NONE && !self.leases.contains(op.lease) {
            return Ok(Err(Refusal::LeaseNotFound));
        }
        Ok(Ok(()))
    }

    fn run(
        &mut self,
        txn: &Txn,
        path: &mut impl Iterator<Item = bool>,
        wanted: bool,
    ) -> Result<TxnResult, MachineError> {
        let succeeded = path.next().expect("one decision for each transaction");
        let mut results = Vec::new();
        for op in branch(txn, succeeded) {
            let result = match op {
                Op::Range(_) if !wanted => continue,
                Op::Range(op) => {
                    self.flush()?;
                    let now = self.writing.unwrap_or(self.meta.revision);
                    OpResult::Range(eval::range(self.source, self.slot, op, now)?)
                }
                Op::Put(op) => OpResult::Put(self.run_put(op)?),
                Op::Delete(op) => OpResult::Delete(self.run_delete(op)?),
                Op::Txn(nested) => OpResult::Txn(self.run(nested, path, wanted)?),
            };
            results.push(result);
        }
        Ok(TxnResult { succeeded, results })
    }

    fn run_put(&mut self, op: &PutOp) -> Result<PutResult, MachineError> {
        let kept = if op.ignore_value || op.ignore_lease { self.get(&op.key)? } else { None };
        let value = kept.as_ref().filter(|_| op.ignore_value).map_or(&op.value, |kv| &kv.value).clone();
        let lease = kept.as_ref().filter(|_| op.ignore_lease).map_or(op.lease, |kv| kv.lease);
        let prev = self.put(&op.key, value, lease)?;
        Ok(PutResult { prev: prev.filter(|_| op.prev_kv) })
    }

    fn run_delete(&mut self, op: &DeleteOp) -> Result<DeleteResult, MachineError> {
        let mut result = DeleteResult::default();
        for key in self.keys_in(&op.range)? {
            if let Some(prev) = self.delete(&key)? {
                result.deleted += 1;
                if op.prev_kv {
                    result.prev.push(prev);
                }
            }
        }
        Ok(result)
    }
}

fn branch(txn: &Txn, holds: bool) -> &[Op] {
    if holds { &txn.success } else { &txn.failure }
}
