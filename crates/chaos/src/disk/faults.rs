//! What a disk is told to do wrong, and how often it did: a fault that was never met proves nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a process asks of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Of a file.
    Read,
    /// Of a file.
    Write,
    /// Of a file or a folder.
    Sync,
}

/// What happens instead, or first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails with an I/O error. A sync that fails has also lost what it was to write.
    Fail,
    /// It takes so much longer; a stall is a long one. It ends early when the fault is lifted.
    Take(Duration),
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// To what.
    pub action: Action,
    /// A part of the file's path; every path has the empty one.
    pub path: String,
    /// What happens.
    pub effect: Effect,
    /// How often it happens at most.
    pub times: u64,
}

/// Names a fault that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(usize);

#[derive(Debug)]
struct Set {
    fault: Fault,
    met: u64,
    lifted: bool,
}

/// The faults of one disk.
#[derive(Debug, Default)]
pub struct Faults {
    set: Mutex<Vec<Set>>,
}

impl Faults {
    pub fn set(&self, fault: Fault) -> FaultId {
        let mut set = self.lock();
        set.push(Set { fault, met: 0, lifted: false });
        FaultId(set.len() - 1)
    }

    /// Ends a fault; says how often it was met.
    pub fn lift(&self, id: FaultId) -> u64 {
        let mut set = self.lock();
        set[id.0].lifted = true;
        set[id.0].met
    }

    pub fn met(&self, id: FaultId) -> u64 {
        self.lock()[id.0].met
    }

    pub fn is_lifted(&self, id: FaultId) -> bool {
        self.lock()[id.0].lifted
    }

    /// What happens to an action on a file, and counts it.
    pub fn meet(&self, action: Action, path: &str) -> Option<(FaultId, Effect)> {
        let mut set = self.lock();
        let (id, met) = set.iter_mut().enumerate().find(|(_, set)| {
            !set.lifted && set.fault.action == action && path.contains(&set.fault.path) && set.met < set.fault.times
        })?;
        met.met += 1;
        Some((FaultId(id), met.fault.effect))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Set>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
