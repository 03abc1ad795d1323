//! Clocks that differ: each node's monotonic clock runs at its own rate and may stand still for a while, its wall clock jumps.

use quorate_env::{Instant, Rng, WallMs};

/// How far a monotonic clock may run from true time: one part in a hundred. Leases are checked with this in mind.
pub(crate) const DRIFT_PER_MILLE: i64 = 10;

#[derive(Clone, Debug)]
pub(crate) struct Clock {
    rate_per_mille: i64,
    origin: u64,
    wall_offset_ms: i64,
    /// Since when it stands still, and for how long it has before.
    frozen_at: Option<u64>,
    frozen_us: u64,
}

impl Clock {
    pub fn draw(rng: &mut Rng) -> Self {
        let spread = 2 * DRIFT_PER_MILLE as u64;
        Self {
            rate_per_mille: rng.between(0, spread) as i64 - DRIFT_PER_MILLE,
            origin: rng.below(1 << 40),
            wall_offset_ms: rng.between(0, 7_200_000) as i64 - 3_600_000,
            frozen_at: None,
            frozen_us: 0,
        }
    }

    /// The monotonic clock at true time `now` (microseconds).
    pub fn monotonic(&self, now: u64) -> Instant {
        let ran = (self.frozen_at.unwrap_or(now) - self.frozen_us) as i64;
        let skewed = ran + ran / 1000 * self.rate_per_mille;
        Instant(self.origin + skewed.max(0) as u64)
    }

    /// From true time `now` on the monotonic clock stands still.
    pub fn freeze(&mut self, now: u64) {
        self.frozen_at.get_or_insert(now);
    }

    /// It goes on from where it stood.
    pub fn thaw(&mut self, now: u64) {
        if let Some(since) = self.frozen_at.take() {
            self.frozen_us += now - since;
        }
    }

    pub fn wall(&self, now: u64) -> WallMs {
        WallMs((4_000_000_000 + (now / 1000) as i64 + self.wall_offset_ms).max(0) as u64)
    }

    /// The wall clock is set by up to an hour in either direction.
    pub fn jump(&mut self, rng: &mut Rng) {
        self.wall_offset_ms += rng.between(0, 7_200_000) as i64 - 3_600_000;
    }
}
