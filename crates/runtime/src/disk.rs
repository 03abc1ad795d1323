//! The real disk: a node's data directory, and the threads that write to it.
//!
//! ```text
//!   LOCK        held while a process uses the directory
//!   IDENTITY    whose directory it is; appears when everything else exists (IDENTITY.new until then)
//!   MEMBERS     whom the node knows
//!   DOUBTED     that the log has lost what was acknowledged, if it has; the node comes back as a new member
//!   REMOVED     that the cluster has let the node go, if it has
//!   wal/        the write-ahead log's segments, written by LogWriter
//!   store/      the store's tables, written by StoreThread; beside it what became of a damaged one (disk/rebuild.rs)
//! ```
//!
//! The simulator's disk has the same parts. What both share is the pure code in `quorate_storage`; what is here only does as it is
//! told. A failed write or sync ends the process at once: after a failed fsync nobody knows what the disk holds, and the
//! kernel may claim success the next time. A full disk is no such failure: it is waited out.

pub(crate) mod beside;
mod files;
mod log_writer;
pub mod rebuild;
mod scrub;
mod space;
mod store_thread;
#[cfg(test)]
mod tests;

pub use beside::{KnownMembers, remember_removal, removal};
pub use files::LogFiles;
pub use log_writer::{LogWriter, Stopped};
pub use scrub::{Rot, ScrubPace, Scrubbed, Scrubber};
pub use space::SpaceGauge;
pub use store_thread::StoreThread;

use bytes::Bytes;
use quorate_env::{ClusterId, Incarnation, NodeId};
use quorate_storage::identity::{Identity, IdentityError};
use quorate_storage::store::{LsmOptions, LsmStore, Store, StoreError};
use quorate_storage::wal::{Damage, DiskOp, FileName, Recovered, Wal, WalError, WalIdentity, WalLimits};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// The first pause after the disk was found full; it doubles up to [`NO_SPACE_PAUSE_MAX`].
const NO_SPACE_PAUSE_MIN: Duration = Duration::from_millis(20);

/// The longest pause: within about this time after room was made, writing goes on.
const NO_SPACE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Whether a disk has room, as far as the thread that reports it is concerned. Reported on change only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The disk is full: what is in progress waits, nothing is lost.
    Full,
    /// It went on.
    Enough,
}

/// Why a data directory cannot be opened.
#[derive(Debug, Error)]
pub enum DiskError {
    /// Another process has it open.
    #[error("the data directory {} is in use by another process: stop that one, or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    /// It is another node's, damaged, or of a newer release.
    #[error("{}: {source}", .path.display())]
    Identity {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// It holds a log or a store, but not the file that says whose they are.
    #[error("the data directory {} holds data but no IDENTITY file: restore that file, or use an empty directory", .0.display())]
    IdentityMissing(PathBuf),
    /// Its log has lost what its node had acknowledged.
    #[error("{}: {why}", .path.display())]
    Doubted {
        /// The directory.
        path: PathBuf,
        /// How it was found.
        why: String,
    },
    /// The log cannot be recovered.
    #[error("{}: {source}", .path.display())]
    Log {
        /// The log's directory.
        path: PathBuf,
        /// What is wrong.
        source: WalError,
    },
    /// The store cannot be opened.
    #[error("{}: {source}", .path.display())]
    Store {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong.
        source: StoreError,
    },
    /// The operating system refused.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl DiskError {
    /// Whether what the directory promised to others cannot be read any more, so that its node must not come back as who it was.
    #[must_use]
    pub fn lost_promises(&self) -> bool {
        matches!(
            self,
            Self::Identity { source: IdentityError::Damaged, .. }
                | Self::Doubted { .. }
                | Self::Log { source: WalError::Rot { .. } | WalError::Missing { .. } | WalError::Gap { .. }, .. }
        )
    }
}

/// Sizes.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskOptions {
    /// Of the log.
    pub wal: WalLimits,
    /// Of the store.
    pub store: LsmOptions,
    /// How rot is looked for.
    pub scrub: ScrubPace,
}

/// Whose directory is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The node's name, written into a new directory.
    pub name: String,
    /// Whether no other node has what is here.
    pub only_copy: bool,
    /// The incarnation of a new directory, if it was announced already; else one is drawn.
    pub incarnation: Option<Incarnation>,
}

/// A data directory that this process holds. The lock is released when it is dropped, so it is dropped last.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    fresh: bool,
    _lock: File,
}

/// Everything found in a data directory.
pub struct Opened {
    /// The directory.
    pub dir: DataDir,
    /// The log's writer, for [`LogWriter::spawn`].
    pub wal: Wal,
    /// The log's files, likewise.
    pub files: Arc<LogFiles>,
    /// What the log holds.
    pub recovered: Recovered,
    /// The store, at its last flush.
    pub store: Arc<LsmStore>,
    /// What is left of the store before, if that was damaged.
    pub remains: Option<Arc<dyn Store>>,
}

impl DataDir {
    /// Opens the directory of `owner`, or makes it. What the log holds is durable when this returns.
    pub fn open_or_create(path: &Path, owner: &Owner, options: &DiskOptions) -> Result<Opened, DiskError> {
        fs::create_dir_all(path).map_err(io_error("create", path))?;
        let lock = lock(path)?;
        if let Ok(why) = fs::read_to_string(path.join(DOUBTED)) {
            return Err(DiskError::Doubted { path: path.to_path_buf(), why });
        }
        let identity_path = path.join("IDENTITY");
        let (identity, fresh) = match fs::read(&identity_path) {
            Ok(file) => (check_identity(path, Bytes::from(file), owner)?, false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                sync_way_to(path)?;
                (begin(path, owner)?, true)
            }
            Err(e) => return Err(io_error("read", &identity_path)(e)),
        };

        let wal_path = path.join("wal");
        fs::create_dir_all(&wal_path).map_err(io_error("create", &wal_path))?;
        let files = Arc::new(LogFiles::open(&wal_path).map_err(io_error("open", &wal_path))?);
        let of = WalIdentity { cluster: identity.cluster, node: identity.node, incarnation: identity.incarnation };
        let (wal, recovered, ops) = if fresh {
            let (wal, ops) = Wal::create(of, options.wal);
            (wal, Recovered::default(), ops)
        } else {
            let contents = files.read_all().map_err(io_error("read", &wal_path))?;
            recover(of, options.wal, contents).map_err(|source| DiskError::Log { path: wal_path.clone(), source })?
        };
        for op in &ops {
            files.run(op).map_err(io_error("write the log in", &wal_path))?;
        }
        let rebuild::Stores { store, remains } = rebuild::open(path, options.store, owner.only_copy)?;
        if fresh {
            // What IDENTITY says exists has its name on the disk before IDENTITY has.
            sync_dir(path)?;
            fs::rename(path.join("IDENTITY.new"), &identity_path).map_err(io_error("rename", &identity_path))?;
        }
        sync_dir(path)?;
        let dir = Self { path: path.to_path_buf(), identity, fresh, _lock: lock };
        Ok(Opened { dir, wal, files, recovered, store, remains })
    }

    /// Whose directory it is, if it is anybody's yet. Nothing is changed.
    pub fn peek(path: &Path) -> Result<Option<Identity>, DiskError> {
        let identity = path.join("IDENTITY");
        match fs::read(&identity) {
            Ok(file) => {
                let wrong = |source| DiskError::Identity { path: path.to_path_buf(), source };
                Ok(Some(Identity::decode(&file.into()).map_err(wrong)?.identity))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error("read", &identity)(e)),
        }
    }

    /// Puts what is in a directory aside, within it: nothing is deleted. Returns where.
    pub fn set_aside(path: &Path) -> Result<PathBuf, DiskError> {
        let _lock = lock(path)?;
        // From here on nobody may take what is left for a whole.
        if !path.join(DOUBTED).exists() {
            doubt(path, "it was being put aside")?;
        }
        let aside = (1..).map(|n| path.join(format!("lost-{n}"))).find(|aside| !aside.exists());
        let aside = aside.unwrap_or_else(|| path.join("lost"));
        fs::create_dir(&aside).map_err(io_error("create", &aside))?;
        // A directory with a log and without an identity would be refused; one with an identity and without a log would have forgotten its promises,
        // were it not for the doubt, which goes last.
        for part in ["wal", "store", "store.damaged", "REBUILD", "MEMBERS", "IDENTITY", DOUBTED] {
            let from = path.join(part);
            if from.exists() {
                fs::rename(&from, aside.join(part)).map_err(io_error("move", &from))?;
            }
        }
        sync_dir(&aside)?;
        sync_dir(path)?;
        Ok(aside)
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// For whoever looks after it while it is in use.
    #[must_use]
    pub fn kept_identity(&self) -> KeptIdentity {
        KeptIdentity { path: self.path.clone(), identity: self.identity.clone() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was made just now.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}

/// Recovers the log, and says what was mended. Rotted entries are the node's to fetch from others; promises
/// are nobody else's.
fn recover(
    identity: WalIdentity,
    limits: WalLimits,
    files: Vec<(FileName, Bytes)>,
) -> Result<(Wal, Recovered, Vec<DiskOp>), WalError> {
    let (wal, recovered, ops) = Wal::recover(identity, limits, files)?;
    if let Some(Damage { file, offset, part }) = recovered.damage.first() {
        let places = recovered.damage.len();
        tracing::warn!(%file, offset, ?part, places, "bytes of the log have changed on the disk, here for the first time; this disk should be replaced");
    }
    for (shard, log) in &recovered.shards {
        if let (Some(first), Some(last)) = (log.rotted.first(), log.rotted.last()) {
            let (entries, first, last) = (log.rotted.len(), first.index.0, last.index.0);
            tracing::error!(%shard, entries, first, last, "entries of the log have rotted; they are fetched from another node");
        }
    }
    recovered.require_promises()?;
    Ok((wal, recovered, ops))
}

fn lock(path: &Path) -> Result<File, DiskError> {
    let lock_path = path.join("LOCK");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(io_error("open", &lock_path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DiskError::InUse(path.to_path_buf())),
        Err(TryLockError::Error(e)) => Err(io_error("lock", &lock_path)(e)),
    }
}

/// Says why a directory's log is not to be relied on any more.
const DOUBTED: &str = "DOUBTED";

/// Writes down that the log in `dir` has lost what its node had acknowledged: nobody may go on with it.
///
/// # Errors
/// If the disk does not take it.
pub fn doubt(dir: &Path, why: &str) -> Result<(), DiskError> {
    write_durably(&dir.join(DOUBTED), why.as_bytes())?;
    sync_dir(dir)
}

/// The identity of a directory that is in use: the process knows it, whatever its disk does.
#[derive(Clone, Debug)]
pub struct KeptIdentity {
    path: PathBuf,
    identity: Identity,
}

impl KeptIdentity {
    /// Writes the file again if it is not what it should be.
    fn keep(&self) -> Result<(), DiskError> {
        let expected = self.identity.encode();
        match fs::read(self.path.join("IDENTITY")) {
            Ok(found) if *found == *expected => Ok(()),
            _ => {
                tracing::warn!("mending the data directory's identity");
                write_identity(&self.path, &self.identity)
            }
        }
    }
}

fn write_identity(path: &Path, identity: &Identity) -> Result<(), DiskError> {
    let mended = path.join("IDENTITY.mended");
    write_durably(&mended, &identity.encode())?;
    fs::rename(&mended, path.join("IDENTITY")).map_err(io_error("rename", &mended))?;
    sync_dir(path)
}

fn check_identity(path: &Path, file: Bytes, owner: &Owner) -> Result<Identity, DiskError> {
    let wrong = |source| DiskError::Identity { path: path.to_path_buf(), source };
    let decoded = Identity::decode(&file).map_err(wrong)?;
    decoded.identity.check(owner.cluster, owner.node).map_err(wrong)?;
    if decoded.bad_copies > 0 {
        tracing::warn!(bad_copies = decoded.bad_copies, "mending the data directory's identity");
        write_identity(path, &decoded.identity)?;
    }
    Ok(decoded.identity)
}

/// Begins a new directory. If an earlier attempt was cut short, what it left is removed: nobody was promised anything of it.
fn begin(path: &Path, owner: &Owner) -> Result<Identity, DiskError> {
    let draft = path.join("IDENTITY.new");
    for part in ["wal", "store"] {
        let part = path.join(part);
        if part.exists() {
            if !draft.exists() {
                return Err(DiskError::IdentityMissing(path.to_path_buf()));
            }
            fs::remove_dir_all(&part).map_err(io_error("remove", &part))?;
        }
    }
    let incarnation = match owner.incarnation {
        Some(incarnation) => incarnation,
        None => draw_incarnation().map_err(io_error("draw randomness for", path))?,
    };
    let identity = Identity { cluster: owner.cluster, node: owner.node, name: owner.name.clone(), incarnation };
    write_durably(&draft, &identity.encode())?;
    sync_dir(path)?;
    Ok(identity)
}

/// An incarnation that no directory has.
pub(crate) fn draw_incarnation() -> io::Result<Incarnation> {
    // 0 is nobody's: it means that a member has not started.
    Ok(Incarnation(random_u64()?.max(1)))
}

pub(crate) fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    fs::write(path, bytes).map_err(io_error("write", path))?;
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error("sync", path))
}

fn sync_dir(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error("sync", path))
}

/// Makes the names on the way to a new directory durable: a directory that was synced is lost all the same with a name that was not.
/// Only the folder that it lies in must be ours to open; those above may belong to others, who made them long ago.
fn sync_way_to(path: &Path) -> Result<(), DiskError> {
    let path = fs::canonicalize(path).map_err(io_error("find", path))?;
    for (above, folder) in path.ancestors().skip(1).enumerate() {
        match sync_dir(folder) {
            Err(_) if above > 0 => return Ok(()),
            synced => synced?,
        }
    }
    Ok(())
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_path_buf();
    move |source| DiskError::Io { what, path, source }
}

/// Ends the process, because the disk failed under it. It does not return and runs no destructors: whatever else is in memory must not
/// reach the disk or a client.
fn die(what: &str, e: &dyn std::error::Error) -> ! {
    tracing::error!(error = %e, "{what} failed; the process ends, because it no longer knows what its disk holds");
    eprintln!("quorate: {what} failed: {e}; ending the process, because it no longer knows what its disk holds");
    std::process::abort();
}
