//! Leases never end early: not before their time has passed since the client last *asked* for a renewal that was granted.

use crate::clock::DRIFT_PER_MILLE;
use crate::history::{Violation, demand};
use quorate_kv::LeaseId;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct LeaseCheck {
    /// TTL in microseconds, and when the last acknowledged grant or renewal was asked for, in true time.
    leases: BTreeMap<LeaseId, (u64, u64)>,
    /// How much of its time may be missing, for clocks that run at different rates.
    early_per_mille: u64,
}

impl Default for LeaseCheck {
    fn default() -> Self {
        Self::within(2 * DRIFT_PER_MILLE as u64)
    }
}

impl LeaseCheck {
    /// For clocks that differ by so much.
    pub fn within(early_per_mille: u64) -> Self {
        Self { leases: BTreeMap::new(), early_per_mille }
    }

    pub fn renewed(&mut self, id: LeaseId, ttl_s: u64, asked: u64) {
        let lease = self.leases.entry(id).or_insert((ttl_s * 1_000_000, asked));
        lease.1 = lease.1.max(asked);
    }

    pub fn expired(&mut self, id: LeaseId, now: u64) -> Result<(), Violation> {
        let Some((ttl, asked)) = self.leases.remove(&id) else { return Ok(()) };
        let least = ttl - ttl * self.early_per_mille / 1000;
        demand(now >= asked + least, "leases are never early", || {
            let after = now.saturating_sub(asked) / 1000;
            format!("lease {} of {} ms expired {after} ms after it was renewed", id.0, ttl / 1000)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_expiry_is_noticed() {
        let mut check = LeaseCheck::default();
        check.renewed(LeaseId(1), 2, 1_000_000);
        check.renewed(LeaseId(1), 2, 2_000_000);
        let objection = check.expired(LeaseId(1), 3_500_000).expect_err("early");
        assert_eq!(objection.rule, "leases are never early");
        check.renewed(LeaseId(1), 2, 2_000_000);
        check.expired(LeaseId(1), 4_000_000).expect("in time");
    }
}
