//! One answer to whether there is room, from several threads that find out for themselves.

use super::Space;
use std::sync::{Mutex, PoisonError};

/// The disk is full as long as one of its users says so: what the store could just write says nothing about a whole segment of the log.
pub struct SpaceGauge {
    /// How many users wait for room.
    full: Mutex<usize>,
    tell: Box<dyn Fn(Space) + Send + Sync>,
}

impl SpaceGauge {
    /// Calls `tell` when the first user finds the disk full and when the last one goes on, never two at once.
    pub fn new(tell: impl Fn(Space) + Send + Sync + 'static) -> Self {
        Self { full: Mutex::new(0), tell: Box::new(tell) }
    }

    /// Takes what one user says. Each says it on change only, [`Space::Full`] first.
    pub fn report(&self, space: Space) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *full;
        *full = match space {
            Space::Full => before + 1,
            Space::Enough => before.saturating_sub(1),
        };
        if (before == 0) != (*full == 0) {
            (self.tell)(space);
        }
    }
}
