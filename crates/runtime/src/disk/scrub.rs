//! Reads everything that the node has on its disk, again and again, at a pace that nobody notices, and says what has changed.
//!
//! Reads check what they read. But what nobody reads rots unseen until its other copies have rotted, too; so it is looked for.

use super::{KeptIdentity, LogFiles};
use quorate_storage::store::{Checked, LsmStore, StoreError};
use quorate_storage::wal::{Damage, Wal, WalIdentity, WalLimits};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Time from the start of a node to the first pass.
const FIRST: Duration = Duration::from_secs(1);

/// How much of the disk's time it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPace {
    /// Bytes that are read each second; 0 looks for nothing.
    pub bytes_per_s: u64,
    /// Time from the end of one pass to the beginning of the next.
    pub rest: Duration,
}

impl Default for ScrubPace {
    /// Up to 700 GB a day, a few per cent of what a disk can do.
    fn default() -> Self {
        Self { bytes_per_s: 8 << 20, rest: Duration::from_secs(20) }
    }
}

/// Damage in the log counts when it is found again after this long: what is being written right now looks torn.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a pass found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rot {
    /// The store has lost rows.
    Store(String),
    /// The log has lost entries, or copies of what it can do without.
    Log(String),
}

/// What is read.
pub struct Scrubbed {
    /// The store.
    pub store: Arc<LsmStore>,
    /// The log's files.
    pub files: Arc<LogFiles>,
    /// Whose log it is.
    pub identity: WalIdentity,
    /// How large it may be.
    pub limits: WalLimits,
    /// Damage that was found at the start: what could be mended of it is mended, but stays on the disk until its segment goes.
    pub known: Vec<Damage>,
    /// Whose directory it is.
    pub dir_identity: KeptIdentity,
}

/// A handle to the thread. Dropping it ends the thread after the piece that it reads.
pub struct Scrubber {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    /// Starts the thread, which calls `on_rot` for what it finds.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn spawn(what: Scrubbed, pace: ScrubPace, on_rot: impl Fn(Rot) + Send + 'static) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let pass = Pass { what, pace, stopped };
        let thread = thread::Builder::new().name("scrub".into()).spawn(move || pass.again_and_again(&on_rot))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the scrubber ended with a panic");
        }
    }
}

/// Nobody waits for the scrubber any more.
struct Stopped;

struct Pass {
    what: Scrubbed,
    pace: ScrubPace,
    stopped: Receiver<()>,
}

impl Pass {
    fn again_and_again(self, on_rot: &dyn Fn(Rot)) {
        let mut wait = FIRST;
        while self.rest(wait).is_ok() {
            wait = self.pace.rest;
            match self.once() {
                Err(Stopped) => return,
                Ok(Ok(None)) => {}
                Ok(Ok(Some(rot))) => on_rot(rot),
                // A disk that cannot be read now may be read later; if not, whoever needs it will say so.
                Ok(Err(e)) => tracing::warn!("the scrubber cannot read: {e}"),
            }
        }
    }

    fn rest(&self, time: Duration) -> Result<(), Stopped> {
        match self.stopped.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }

    fn keep_pace(&self, bytes: usize) -> Result<(), Stopped> {
        self.rest(Duration::from_secs_f64(bytes as f64 / self.pace.bytes_per_s.max(1) as f64))
    }

    /// One pass over everything.
    fn once(&self) -> Result<Result<Option<Rot>, StoreError>, Stopped> {
        if let Err(e) = self.what.dir_identity.keep() {
            tracing::warn!("the scrubber cannot mend the identity: {e}");
        }
        if let Some(rot) = self.log()? {
            return Ok(Ok(Some(rot)));
        }
        match self.store()? {
            Ok(()) => Ok(Ok(None)),
            Err(StoreError::Damaged(what)) => Ok(Ok(Some(Rot::Store(what)))),
            Err(e) => Ok(Err(e)),
        }
    }

    fn store(&self) -> Result<Result<(), StoreError>, Stopped> {
        let store = &self.what.store;
        if let Err(e) = store.check_version() {
            return Ok(Err(e));
        }
        for table in store.tables() {
            let mut check = match store.check_table(table) {
                Ok(Some(check)) => check,
                Ok(None) => continue,
                Err(e) => return Ok(Err(e)),
            };
            loop {
                match check.step() {
                    Ok(Checked::Some(bytes)) => self.keep_pace(bytes)?,
                    Ok(Checked::Whole) => break,
                    Err(e) => return Ok(Err(e)),
                }
            }
        }
        Ok(Ok(()))
    }

    fn log(&self) -> Result<Option<Rot>, Stopped> {
        let first = self.rot_in_log()?;
        if first.is_empty() {
            return Ok(None);
        }
        self.rest(LOOK_AGAIN)?;
        let still = self.rot_in_log()?;
        Ok(first.intersection(&still).next().map(|(file, offset)| {
            Rot::Log(format!("{} places of the log have changed, the first in {file} at {offset}", still.len()))
        }))
    }

    /// Where the log is not what was written, and was not so at the start.
    fn rot_in_log(&self) -> Result<BTreeSet<(String, u64)>, Stopped> {
        let Scrubbed { files, identity, limits, known, .. } = &self.what;
        let files = match files.read_all() {
            Ok(files) => files,
            Err(e) => {
                // A file that goes away while it is read was not needed any more.
                if e.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("the scrubber cannot read the log: {e}");
                }
                return Ok(BTreeSet::new());
            }
        };
        let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        let places = match Wal::recover(*identity, *limits, files) {
            Ok((_, found, _)) => {
                let fresh = found.damage.into_iter().filter(|damage| !known.contains(damage));
                fresh.map(|Damage { file, offset, .. }| (file.to_string(), offset)).collect()
            }
            // So much has changed that a start could not even name what is lost.
            Err(e) => BTreeSet::from([(e.to_string(), 0)]),
        };
        self.keep_pace(bytes)?;
        Ok(places)
    }
}
