//! A store that is damaged is put aside, and an empty one takes its place; the node fetches the rows from its peers.
//!
//! ```text
//!   store/           the store
//!   REBUILD          somebody found it damaged: it is to be put aside at the next start; holds the reason
//!   store.damaged/   put aside; what is left in it spares the network, and it is removed when all rows are there again
//! ```
//!
//! Each step leaves a directory from which the next start goes on: the file goes last. A store that was put aside while an older one still
//! is was never whole, and is removed.

#[cfg(test)]
mod tests;

use super::{DiskError, io_error, sync_dir, write_durably};
use quorate_storage::store::{LsmOptions, LsmStore, Store, StoreError};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The store in place, and what is left of the one before.
pub(super) struct Stores {
    pub store: Arc<LsmStore>,
    pub remains: Option<Arc<dyn Store>>,
}

/// Opens the store in `dir`. If it is damaged, an empty one takes its place, unless `only_copy`: then nobody could give the rows back.
pub(super) fn open(dir: &Path, options: LsmOptions, only_copy: bool) -> Result<Stores, DiskError> {
    let (path, aside, wanted) = (dir.join("store"), dir.join("store.damaged"), dir.join("REBUILD"));
    let failed = |source| DiskError::Store { path: path.clone(), source };
    let opened = match fs::read_to_string(&wanted) {
        Ok(why) if !only_copy => Err(StoreError::Damaged(why)),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("read", &wanted)(e)),
        _ => LsmStore::open(&path, options),
    };
    let store = match opened {
        Err(StoreError::Damaged(why)) if !only_copy => {
            tracing::error!("the store is damaged ({why}): its rows are fetched from another node");
            put_aside(&path, &aside)?;
            let store = LsmStore::open(&path, options).map_err(failed)?;
            if wanted.exists() {
                fs::remove_file(&wanted).map_err(io_error("remove", &wanted))?;
            }
            sync_dir(dir)?;
            store
        }
        opened => opened.map_err(failed)?,
    };
    // Much may be wrong with it; then the rows come without its help.
    let remains = if aside.exists() { LsmStore::open(&aside, options).ok() } else { None };
    Ok(Stores { store: Arc::new(store), remains: remains.map(|remains| Arc::new(remains) as Arc<dyn Store>) })
}

fn put_aside(path: &Path, aside: &Path) -> Result<(), DiskError> {
    if aside.exists() {
        return fs::remove_dir_all(path).map_err(io_error("remove", path));
    }
    match fs::rename(path, aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("put aside", path)(e)),
        _ => Ok(()),
    }
}

/// Writes down that the store in `dir` is damaged, so that the next start puts it aside.
///
/// # Errors
/// If the disk does not take it.
pub fn want(dir: &Path, why: &str) -> Result<(), DiskError> {
    write_durably(&dir.join("REBUILD"), why.as_bytes())?;
    sync_dir(dir)
}

/// Removes what was put aside: all rows are there again.
pub fn finish(dir: &Path) {
    let aside: PathBuf = dir.join("store.damaged");
    if let Err(e) = fs::remove_dir_all(&aside)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("{} is not needed any more and cannot be removed: {e}", aside.display());
    }
}
