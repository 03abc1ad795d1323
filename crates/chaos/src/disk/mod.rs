//! A disk of our own making, as cruel as disks can be: mounted like any other, it loses what was not synced when the power is cut, fails,
//! fills up, stalls and rots on command.
//!
//! ```text
//!   a node's process ── system calls ──> kernel ── FUSE ──> adapter ──> faults, then model
//!                                                                         ^        ^
//!   the experiment ── cut_power, set a fault, full, flip ─────────────────┴────────┘
//! ```
//!
//! The model is a pure value in this process' memory; the node's process dies, and its disk stays.

mod content;
mod faults;
mod fuse;
mod model;
#[cfg(test)]
mod tests;

pub use faults::{Action, Effect, Fault, FaultId};
pub use model::{Leaves, Lost};

use crate::Failure;
use faults::Faults;
use fuse::Adapter;
use fuser::{BackgroundSession, Config, MountOption};
use model::Model;
use quorate_env::Rng;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// Requests served at once. A stalled sync holds one of them.
const THREADS: usize = 6;

/// What was asked of a disk.
#[derive(Debug, Default)]
struct Counts {
    /// Of files.
    pub reads: AtomicU64,
    /// Of files.
    pub writes: AtomicU64,
    /// Of files and folders.
    pub syncs: AtomicU64,
    /// Refused because the disk was full.
    pub no_space: AtomicU64,
}

/// What the experiment and the file system's threads both see.
#[derive(Debug)]
struct Shared {
    model: Mutex<Model>,
    /// No power: nothing that is asked happens.
    off: AtomicBool,
    faults: Faults,
    counts: Counts,
}

impl Shared {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mounted disk. Whoever uses it must have ended before it is dropped.
pub struct CruelDisk {
    session: Option<BackgroundSession>,
    shared: Arc<Shared>,
    dir: TempDir,
}

impl Drop for CruelDisk {
    fn drop(&mut self) {
        self.shared.model().full = false;
        drop(self.session.take());
        // In case somebody still has it open: it goes when he does, and no mount point without a server stays behind.
        let _ = Command::new("umount").args(["--lazy", "--quiet"]).arg(self.dir.path()).output();
    }
}

impl CruelDisk {
    /// Mounts an empty disk.
    ///
    /// # Errors
    /// Where this process may not mount, or the kernel knows no FUSE.
    pub fn mount() -> Result<Self, Failure> {
        let dir = TempDir::new()?;
        let model = Mutex::new(Model::new());
        let shared = Arc::new(Shared {
            model,
            off: AtomicBool::new(false),
            faults: Faults::default(),
            counts: Counts::default(),
        });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("quorate-chaos".into()), MountOption::NoDev];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(Adapter { shared: Arc::clone(&shared) }, dir.path(), &config)
            .map_err(|source| Failure::Unable { what: "mount a file system of its own", why: source.to_string() })?;
        Ok(Self { session: Some(session), shared, dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes the power away: whatever is asked from now on, and what is under way, fails and does nothing.
    pub fn power_off(&self) {
        self.shared.off.store(true, Ordering::Release);
    }

    /// Gives it back; what was not synced is gone. Every process that uses the disk must have ended.
    pub fn power_on(&self, leaves: &mut Leaves) -> Lost {
        let lost = self.shared.model().cut_power(leaves);
        self.shared.off.store(false, Ordering::Release);
        lost
    }

    /// Sets a fault.
    pub fn set(&self, fault: Fault) -> FaultId {
        self.shared.faults.set(fault)
    }

    /// Ends a fault, and whatever waits for it to end; says how often it was met.
    pub fn lift(&self, fault: FaultId) -> u64 {
        self.shared.faults.lift(fault)
    }

    /// How often a fault was met so far.
    #[must_use]
    pub fn met(&self, fault: FaultId) -> u64 {
        self.shared.faults.met(fault)
    }

    /// Whether there is room from now on.
    pub fn set_full(&self, full: bool) {
        self.shared.model().full = full;
    }

    /// Refusals for want of room so far.
    #[must_use]
    pub fn no_space(&self) -> u64 {
        self.shared.counts.no_space.load(Ordering::Relaxed)
    }

    /// Syncs of files and folders so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.counts.syncs.load(Ordering::Relaxed)
    }

    /// The files on the platter, with their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        self.shared.model().files()
    }

    /// Turns over one bit of a file at rest, and says at which byte.
    pub fn flip(&self, path: &str, rng: &mut Rng) -> Option<(u64, u8)> {
        self.shared.model().flip(path, rng)
    }
}
