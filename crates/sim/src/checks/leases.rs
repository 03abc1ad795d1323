//! Leases never end early: not before their time has passed since the client last *asked* for a renewal that was granted.
//!
//! That holds while the leader's monotonic clock keeps its bound. One that runs at double speed ends leases early, and nobody can know: so
//! what a lease may lack is what some one node's clock has gained since then, and no more.

use crate::clock::DRIFT_PER_MILLE;
use crate::history::{Violation, demand};
use quorate_kv::LeaseId;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct LeaseCheck {
    /// TTL in microseconds, and when the last acknowledged grant or renewal was asked for, in true time.
    leases: BTreeMap<LeaseId, (u64, u64)>,
    /// When each node's monotonic clock ran at double speed; the last time may last.
    hurried: BTreeMap<usize, Vec<(u64, Option<u64>)>>,
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
        Self { leases: BTreeMap::new(), hurried: BTreeMap::new(), early_per_mille }
    }

    /// From now on a node's clock runs at double speed, or does not any more.
    pub fn hurries(&mut self, node: usize, double: bool, now: u64) {
        let times = self.hurried.entry(node).or_default();
        if let Some((_, to)) = times.last_mut() {
            to.get_or_insert(now);
        }
        if double {
            times.push((now, None));
        }
    }

    /// How far a clock has run ahead of true time since `from`, at most.
    fn gained(&self, from: u64, now: u64) -> u64 {
        let within = |(since, to): &(u64, Option<u64>)| to.unwrap_or(now).saturating_sub(from.max(*since));
        self.hurried.values().map(|times| times.iter().map(within).sum()).max().unwrap_or(0)
    }

    pub fn renewed(&mut self, id: LeaseId, ttl_s: u64, asked: u64) {
        let lease = self.leases.entry(id).or_insert((ttl_s * 1_000_000, asked));
        lease.1 = lease.1.max(asked);
    }

    pub fn expired(&mut self, id: LeaseId, now: u64) -> Result<(), Violation> {
        let Some((ttl, asked)) = self.leases.remove(&id) else { return Ok(()) };
        let least = ttl - ttl * self.early_per_mille / 1000;
        demand(now + self.gained(asked, now) >= asked + least, "leases are never early", || {
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

    #[test]
    fn a_clock_at_double_speed_excuses_what_it_gained_and_no_more() {
        let mut check = LeaseCheck::default();
        check.hurries(0, true, 500_000);
        check.hurries(0, false, 1_600_000);
        check.hurries(1, true, 1_500_000);
        check.hurries(1, false, 1_600_000);
        check.renewed(LeaseId(1), 2, 1_000_000);
        let objection = check.expired(LeaseId(1), 2_300_000).expect_err("early by more than the 0.6 s");
        assert_eq!(objection.rule, "leases are never early");
        check.renewed(LeaseId(1), 2, 1_000_000);
        check.expired(LeaseId(1), 2_400_000).expect("one of the two clocks explains it");
    }
}
