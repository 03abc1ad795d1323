//! How long to wait before the next try: longer each time, and never as long as somebody else who began to wait at the
//! same moment.

use crate::options::{PAUSE_MAX, PAUSE_MIN};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// 64 bits that nobody else draws: each state of the standard library's hashers is seeded by the operating system.
pub(crate) fn draw() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The pause behind try `n`, counted from 0: between a half and all of what is doubled with each try.
pub(crate) fn pause(n: u32, draw: u64) -> Duration {
    let most = PAUSE_MIN.saturating_mul(1 << n.min(16)).min(PAUSE_MAX);
    let half = most / 2;
    half + Duration::from_micros(draw % (half.as_micros() as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_have_a_bound_and_differ() {
        assert_eq!(pause(0, 0), PAUSE_MIN / 2);
        for n in 0..100 {
            let (least, most) = (pause(n, 0), pause(n, u64::MAX));
            assert!(least >= PAUSE_MIN / 2 && most <= PAUSE_MAX, "{n}: {least:?} to {most:?}");
            assert!(pause(n + 1, 0) >= least);
        }
        assert_eq!(pause(100, 0), PAUSE_MAX / 2);
        assert_ne!(pause(9, draw()), pause(9, draw()));
    }
}
