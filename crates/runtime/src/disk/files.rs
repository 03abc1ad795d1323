//! Carries out the log's disk operations on real files.

use bytes::Bytes;
use quorate_storage::wal::{DiskOp, FileName};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Zeros are written in pieces of this many bytes.
const ZEROS: usize = 1 << 20;

/// Files that are re-read past the page cache at start: the one written last, and the one prepared behind it.
const SUSPECT_FILES: usize = 2;

/// The log's directory. Two threads may use it at once as long as they do not touch the same file.
#[derive(Debug)]
pub struct LogFiles {
    path: PathBuf,
    dir: File,
    open: Mutex<BTreeMap<FileName, Arc<File>>>,
}

impl LogFiles {
    /// Opens the directory, which exists.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), dir: File::open(path)?, open: Mutex::default() })
    }

    /// The contents of every segment. The end of the log comes from the disk, not from the page cache: after a failed sync the cache may
    /// hold what the disk does not.
    pub fn read_all(&self) -> io::Result<Vec<(FileName, Bytes)>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().to_str().and_then(FileName::parse));
        }
        names.sort_unstable();
        let suspect = names.len().saturating_sub(SUSPECT_FILES);
        let mut files = Vec::new();
        for (number, name) in names.into_iter().enumerate() {
            let path = self.path.join(name.to_string());
            if number >= suspect {
                let file = File::open(&path)?;
                // Advice only; a file system that does not take it serves what it has.
                let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            }
            files.push((name, Bytes::from(fs::read(&path)?)));
        }
        Ok(files)
    }

    /// Carries out one operation.
    pub fn run(&self, op: &DiskOp) -> io::Result<()> {
        match op {
            DiskOp::Create { file, bytes } => self.create(*file, *bytes),
            DiskOp::Write { file, offset, bytes } => self.file(*file)?.write_all_at(bytes, *offset),
            DiskOp::Sync { file } => self.file(*file)?.sync_data(),
            DiskOp::Rename { from, to } => {
                let mut open = self.handles();
                fs::rename(self.path.join(from.to_string()), self.path.join(to.to_string()))?;
                if let Some(file) = open.remove(from) {
                    open.insert(*to, file);
                }
                Ok(())
            }
            DiskOp::SyncDir => self.dir.sync_all(),
            DiskOp::Delete { file } => self.delete(*file),
        }
    }

    fn create(&self, file: FileName, bytes: u64) -> io::Result<()> {
        let path = self.path.join(file.to_string());
        let made = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        // Zeros are really written, so that later writes need no space and change no metadata.
        let zeros = vec![0; ZEROS];
        let mut at = 0;
        while at < bytes {
            let piece = usize::try_from(bytes - at).map_or(ZEROS, |left| left.min(ZEROS));
            if let Err(e) = made.write_all_at(&zeros[..piece], at) {
                // On a full disk: give back what it took, so that others may go on while this is waited out.
                drop(made);
                self.delete(file)?;
                return Err(e);
            }
            at += piece as u64;
        }
        self.handles().insert(file, Arc::new(made));
        Ok(())
    }

    fn delete(&self, file: FileName) -> io::Result<()> {
        self.handles().remove(&file);
        match fs::remove_file(self.path.join(file.to_string())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn file(&self, name: FileName) -> io::Result<Arc<File>> {
        let mut open = self.handles();
        if let Some(file) = open.get(&name) {
            return Ok(Arc::clone(file));
        }
        let path = self.path.join(name.to_string());
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(path)?);
        open.insert(name, Arc::clone(&file));
        Ok(file)
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<FileName, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An operation, for whoever looks after the disk.
pub(super) fn describe(op: &DiskOp) -> String {
    match op {
        DiskOp::Create { file, bytes } => format!("making {file} of {bytes} bytes in the log"),
        DiskOp::Write { file, offset, .. } => format!("writing at byte {offset} of {file} in the log"),
        DiskOp::Sync { file } => format!("syncing {file} in the log"),
        DiskOp::Rename { from, to } => format!("renaming {from} to {to} in the log"),
        DiskOp::SyncDir => String::from("syncing the log's directory"),
        DiskOp::Delete { file } => format!("deleting {file} in the log"),
    }
}

/// Whether an error means that there is no room, which may pass.
pub(super) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
