//! When leases expire: the leader's monotonic clock, and nobody else's.
//!
//! A new leader cannot know when its predecessor last renewed a lease, so it gives every lease its full time anew. A renewal counts
//! from after the leader confirmed its leadership, which is after the client asked; so a client that counts from when it asked
//! never believes longer than the leader does. A lease whose time is up is expired by a proposed command, after another
//! confirmation; between the two it can no longer be renewed.

use quorate_env::Instant;
use quorate_kv::LeaseId;
use quorate_shard::Grant;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

struct Timed {
    grant: Grant,
    deadline: Instant,
    /// An expiry is on its way.
    expiring: bool,
}

/// Deadlines of all leases, while this replica leads.
#[derive(Default)]
pub(crate) struct LeaseClock {
    running: bool,
    leases: BTreeMap<LeaseId, Timed>,
    due: BTreeSet<(Instant, LeaseId)>,
}

impl LeaseClock {
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// This replica leads: every lease gets its full time from now.
    pub fn start(&mut self, now: Instant, grants: impl Iterator<Item = Grant>) {
        *self = Self { running: true, ..Self::default() };
        for grant in grants {
            self.granted(now, grant);
        }
    }

    /// It does not lead any more.
    pub fn stop(&mut self) {
        *self = Self::default();
    }

    pub fn granted(&mut self, now: Instant, grant: Grant) {
        if self.running {
            self.revoked(grant.id);
            let deadline = now + Duration::from_secs(grant.ttl_s);
            self.leases.insert(grant.id, Timed { grant, deadline, expiring: false });
            self.due.insert((deadline, grant.id));
        }
    }

    pub fn revoked(&mut self, id: LeaseId) {
        if let Some(timed) = self.leases.remove(&id) {
            self.due.remove(&(timed.deadline, id));
        }
    }

    /// Renews a lease. `None` if there is none or it is expiring.
    pub fn renew(&mut self, now: Instant, id: LeaseId) -> Option<()> {
        let grant = self.leases.get(&id).filter(|timed| !timed.expiring)?.grant;
        self.granted(now, grant);
        Some(())
    }

    /// Time left of a lease.
    pub fn remaining(&self, now: Instant, id: LeaseId) -> Option<Duration> {
        self.leases.get(&id).map(|timed| timed.deadline.since(now))
    }

    /// Whether a lease's time is still up: a new term of leadership starts its time anew.
    pub fn is_expiring(&self, grant: &Grant) -> bool {
        self.leases.get(&grant.id).is_some_and(|timed| timed.expiring && timed.grant == *grant)
    }

    /// A lease's expiry met a lock: it is due again at once.
    pub fn postpone(&mut self, id: LeaseId) {
        if let Some(timed) = self.leases.get_mut(&id).filter(|timed| timed.expiring) {
            // Its time stays up: it cannot be renewed any more.
            self.due.insert((timed.deadline, id));
        }
    }

    /// Leases whose time is up and whose expiry is not yet on its way.
    pub fn take_due(&mut self, now: Instant) -> Vec<Grant> {
        let mut due = Vec::new();
        while let Some((deadline, id)) = self.due.first().copied()
            && deadline <= now
        {
            self.due.pop_first();
            if let Some(timed) = self.leases.get_mut(&id) {
                timed.expiring = true;
                due.push(timed.grant);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::LogIndex;

    fn grant(id: i64, ttl_s: u64) -> Grant {
        Grant { id: LeaseId(id), ttl_s, granted_at: LogIndex(1) }
    }

    #[test]
    fn a_new_leader_gives_every_lease_its_full_time() {
        let mut clock = LeaseClock::default();
        assert_eq!(clock.renew(Instant(0), LeaseId(1)), None);
        clock.start(Instant(5_000_000), [grant(1, 10), grant(2, 3)].into_iter());
        assert_eq!(clock.take_due(Instant(7_999_999)), vec![]);
        assert_eq!(clock.take_due(Instant(8_000_000)), vec![grant(2, 3)]);
        assert_eq!(clock.take_due(Instant(9_000_000)), vec![], "one expiry at a time");
        assert_eq!(clock.renew(Instant(9_000_000), LeaseId(2)), None, "an expiring lease cannot be renewed");
        clock.postpone(LeaseId(1));
        clock.postpone(LeaseId(2));
        assert_eq!(clock.take_due(Instant(9_000_000)), vec![grant(2, 3)], "only what is expiring is due again");
        assert_eq!(clock.renew(Instant(9_000_000), LeaseId(1)), Some(()));
        assert_eq!(clock.remaining(Instant(10_000_000), LeaseId(1)), Some(Duration::from_secs(9)));
    }
}
