//! What a process does when the disk under it turns out to have changed what was written there.
//!
//! A part of the state is gone, and every thread may be using it: the process ends at once and starts anew in its own place (the same id, the
//! same arguments). At the start the log names what it has lost, and a damaged store is replaced; peers have the rest.

use crate::disk::{self, rebuild};
use crate::driver::stop_process;
use crate::members::MemberTable;
use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Counts the starts of one process that followed each other closely.
const STARTS: &str = "QUORATE_STARTS_AFTER_DAMAGE";

/// A disk on which that many starts in a row find damage within [`SOON`] is no disk to go on with.
const STARTS_MAX: u32 = 5;
const SOON: Duration = Duration::from_secs(60);

/// See the top of this file.
#[derive(Clone)]
pub(crate) struct OnDamage(Arc<Node>);

struct Node {
    data_dir: PathBuf,
    members: Arc<MemberTable>,
    began: Instant,
}

impl OnDamage {
    pub fn new(data_dir: &Path, members: Arc<MemberTable>) -> Self {
        Self(Arc::new(Node { data_dir: data_dir.to_path_buf(), members, began: Instant::now() }))
    }

    /// Whether no other node has what is here.
    fn is_only_copy(&self) -> bool {
        self.0.members.all().len() <= 1
    }

    /// The store has lost rows. Does not return.
    pub fn store(&self, why: &str) -> ! {
        if self.is_only_copy() {
            stop_process(&format!("{why}; no other node has these rows: restore a backup"));
        }
        if let Err(e) = rebuild::want(&self.0.data_dir, why) {
            stop_process(&format!("{why}; and that cannot be written down: {e}"));
        }
        self.restart(why)
    }

    /// The log has lost what this node had acknowledged to others. Does not return.
    pub fn promises(&self, why: &str) -> ! {
        if let Err(e) = disk::doubt(&self.0.data_dir, why) {
            stop_process(&format!("{why}; and that cannot be written down: {e}"));
        }
        self.restart(why)
    }

    /// The log has lost entries that are still in memory here. Returns if this is their only copy: then it is better to go on.
    pub fn log(&self, why: &str) {
        match self.is_only_copy() {
            true => tracing::error!("{why}; what it holds is still in memory: take a backup now, and replace the disk"),
            false => self.restart(why),
        }
    }

    fn restart(&self, why: &str) -> ! {
        let before = env::var(STARTS).ok().and_then(|starts| starts.parse().ok()).unwrap_or(0);
        let starts = if self.0.began.elapsed() < SOON { before + 1 } else { 1 };
        if starts > STARTS_MAX {
            stop_process(&format!("{why}; the disk goes on losing what is written to it: replace it"));
        }
        tracing::error!("{why}; the process starts anew to have it mended by its peers");
        let mut args = env::args_os();
        let name = args.next().unwrap_or_else(|| "quorate".into());
        let failed = Command::new(program()).arg0(name).args(args).env(STARTS, starts.to_string()).exec();
        stop_process(&format!("{why}; and the process cannot start anew: {failed}"));
    }
}

/// This very program, also if its file was replaced meanwhile.
fn program() -> PathBuf {
    let own = Path::new("/proc/self/exe");
    if own.exists() { own.into() } else { env::current_exe().unwrap_or_else(|_| "quorate".into()) }
}
