//! A brake for log lines that others can cause: one passes per period, the rest are counted.
//!
//! Whoever can reach a port can make a server complain as often as it pleases. A line with a count says as much as a million lines do.

use crate::Instant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// See the module. One brake for each place that logs.
#[derive(Debug)]
pub struct Brake {
    period: Duration,
    /// In microseconds; nothing passes before.
    open_at: AtomicU64,
    held: AtomicU64,
}

impl Brake {
    /// A brake that lets the first line through, and then one per `period`.
    #[must_use]
    pub const fn new(period: Duration) -> Self {
        Self { period, open_at: AtomicU64::new(0), held: AtomicU64::new(0) }
    }

    /// Whether a line may be written now: if so, how many were held back since the last.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let open_at = self.open_at.load(Ordering::Relaxed);
        let next = (now + self.period).0;
        // Of two threads that come at once, one passes.
        let passes = now.0 >= open_at
            && self.open_at.compare_exchange(open_at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if passes {
            Some(self.held.swap(0, Ordering::Relaxed))
        } else {
            self.held.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_period_says_how_many_there_were() {
        let brake = Brake::new(Duration::from_secs(10));
        let at = |s: u64| Instant(0) + Duration::from_secs(s);
        assert_eq!(brake.pass(at(3)), Some(0));
        assert_eq!((0..1000).filter_map(|_| brake.pass(at(12))).count(), 0);
        assert_eq!(brake.pass(at(13)), Some(1000));
        assert_eq!(brake.pass(at(14)), None);
        assert_eq!(brake.pass(at(900)), Some(1));
    }
}
