//! What ends: leases, with their keys, and history.

use super::{Grant, MachineError, Output, Transaction};
use crate::leases;
use bytes::Bytes;
use quorate_kv::{LeaseId, Outcome, Refusal, Revision, limits};

impl Transaction<'_> {
    pub(super) fn lease_grant(&mut self, id: LeaseId, ttl_s: u64, output: &mut Output) -> Result<Outcome, Refusal> {
        if ttl_s > limits::LEASE_TTL_S_MAX {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if id == LeaseId::NONE || self.leases.contains(id) {
            return Err(Refusal::LeaseExists);
        }
        let granted_at = self.meta.applied.next();
        self.leases.grant(id, ttl_s, granted_at);
        self.put_row(self.slot.lease(id), leases::encode(ttl_s, granted_at).into());
        output.granted.push(Grant { id, ttl_s, granted_at });
        Ok(Outcome::LeaseGranted)
    }

    pub(super) fn lease_revoke(
        &mut self,
        id: LeaseId,
        output: &mut Output,
    ) -> Result<Result<Outcome, Refusal>, MachineError> {
        let Some(lease) = self.leases.get(id) else { return Ok(Err(Refusal::LeaseNotFound)) };
        let keys: Vec<Bytes> = lease.keys.iter().cloned().collect();
        for key in keys {
            self.delete(&key)?;
        }
        self.leases.remove(id);
        self.delete_row(self.slot.lease(id));
        output.revoked.push(id);
        Ok(Ok(Outcome::LeaseRevoked))
    }

    pub(super) fn compact(&mut self, revision: Revision, output: &mut Output) -> Result<Outcome, Refusal> {
        if revision > self.meta.revision {
            return Err(Refusal::RevisionInFuture { current: self.meta.revision });
        }
        if let Some(compacted) = self.meta.compacted
            && revision <= compacted
        {
            return Err(Refusal::RevisionCompacted { compacted });
        }
        self.meta.compacted = Some(revision);
        // History does not reach back any more to when another shard had these keys.
        self.meta.annexes.retain(|annex| annex.revision > revision);
        output.compacted = true;
        Ok(Outcome::Compacted)
    }
}
