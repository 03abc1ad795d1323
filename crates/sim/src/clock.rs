//! Clocks that differ: each node's monotonic clock runs at its own rate and may stand still or run at a wrong speed for a while, its wall
//! clock jumps and may run at a wrong speed, too.

use quorate_env::{Instant, Rng, WallMs};

/// How far a monotonic clock may run from true time: one part in a hundred. Leases are checked with this in mind.
pub(crate) const DRIFT_PER_MILLE: i64 = 10;

/// How fast a clock runs that runs wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speed {
    Double,
    Half,
}

/// A clock's wrong speed, and what came of former ones.
#[derive(Clone, Copy, Debug, Default)]
struct Haste {
    since: Option<(u64, Speed)>,
    gained_us: i64,
}

impl Haste {
    /// How far it has run ahead at true time `now`; less than nothing if it is behind.
    fn gained(&self, now: u64) -> i64 {
        let running = self.since.map_or(0, |(since, speed)| match speed {
            Speed::Double => (now - since) as i64,
            Speed::Half => -((now - since) as i64 / 2),
        });
        self.gained_us + running
    }

    fn set(&mut self, now: u64, speed: Option<Speed>) {
        self.gained_us = self.gained(now);
        self.since = speed.map(|speed| (now, speed));
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Clock {
    rate_per_mille: i64,
    origin: u64,
    wall_offset_ms: i64,
    /// Since when it stands still, and for how long it has before.
    frozen_at: Option<u64>,
    frozen_us: u64,
    haste: Haste,
    wall_haste: Haste,
}

impl Clock {
    /// One that is never wrong.
    pub const TRUE: Self = Self {
        rate_per_mille: 0,
        origin: 0,
        wall_offset_ms: 0,
        frozen_at: None,
        frozen_us: 0,
        haste: Haste { since: None, gained_us: 0 },
        wall_haste: Haste { since: None, gained_us: 0 },
    };

    pub fn draw(rng: &mut Rng) -> Self {
        let spread = 2 * DRIFT_PER_MILLE as u64;
        Self {
            rate_per_mille: rng.between(0, spread) as i64 - DRIFT_PER_MILLE,
            origin: rng.below(1 << 40),
            wall_offset_ms: rng.between(0, 7_200_000) as i64 - 3_600_000,
            frozen_at: None,
            frozen_us: 0,
            haste: Haste::default(),
            wall_haste: Haste::default(),
        }
    }

    /// A clock that is good: its wall clock is never further from true time than this, and it runs as fast as time does.
    pub fn keep_within(&mut self, bound_ms: u64) {
        self.rate_per_mille = 0;
        self.wall_offset_ms %= bound_ms as i64 + 1;
    }

    /// The monotonic clock at true time `now` (microseconds).
    pub fn monotonic(&self, now: u64) -> Instant {
        let ran = (self.frozen_at.unwrap_or(now) - self.frozen_us) as i64;
        let skewed = ran + ran / 1000 * self.rate_per_mille + self.haste.gained(now);
        Instant(self.origin + skewed.max(0) as u64)
    }

    /// From true time `now` on the monotonic clock stands still.
    pub fn freeze(&mut self, now: u64) {
        self.haste.set(now, None);
        self.frozen_at.get_or_insert(now);
    }

    /// It goes on from where it stood.
    pub fn thaw(&mut self, now: u64) {
        if let Some(since) = self.frozen_at.take() {
            self.frozen_us += now - since;
        }
    }

    /// From true time `now` on the monotonic clock runs at this speed.
    pub fn run_at(&mut self, now: u64, speed: Speed) {
        self.thaw(now);
        self.haste.set(now, Some(speed));
    }

    /// From true time `now` on the wall clock does.
    pub fn run_wall_at(&mut self, now: u64, speed: Speed) {
        self.wall_haste.set(now, Some(speed));
    }

    /// Both clocks go on from where they are as they should.
    pub fn set_right(&mut self, now: u64) {
        self.thaw(now);
        self.haste.set(now, None);
        self.wall_haste.set(now, None);
    }

    /// The true time that passes while the monotonic clock measures this, in microseconds.
    pub fn lasts(&self, us: u64) -> u64 {
        match self.haste.since {
            Some((_, Speed::Double)) => us / 2,
            Some((_, Speed::Half)) => us * 2,
            None => us,
        }
    }

    pub fn wall(&self, now: u64) -> WallMs {
        let gained_ms = self.wall_haste.gained(now) / 1000;
        WallMs((4_000_000_000 + (now / 1000) as i64 + self.wall_offset_ms + gained_ms).max(0) as u64)
    }

    /// The wall clock is set by up to an hour in either direction.
    pub fn jump(&mut self, rng: &mut Rng) {
        self.wall_offset_ms += rng.between(0, 7_200_000) as i64 - 3_600_000;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_wrong_speed_never_goes_back() {
        let mut clock = Clock::draw(&mut Rng::new(1));
        let mut last = clock.monotonic(0);
        let mut at = |clock: &Clock, now: u64| {
            let passed = clock.monotonic(now).since(last).as_millis();
            assert!(clock.monotonic(now) >= last);
            last = clock.monotonic(now);
            passed
        };
        clock.run_at(0, Speed::Double);
        assert!((1_980..2_021).contains(&at(&clock, 1_000_000)));
        clock.freeze(1_000_000);
        assert_eq!(at(&clock, 2_000_000), 0);
        clock.run_at(2_000_000, Speed::Half);
        assert!((480..521).contains(&at(&clock, 3_000_000)));
        clock.set_right(3_000_000);
        assert!((980..1_021).contains(&at(&clock, 4_000_000)));
    }
}
