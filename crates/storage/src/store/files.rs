//! The store's files against the checksums that their parents keep of them: a table's is in the version file that names it, that one's in `current`.
//!
//! Blocks have checksums of their own, which reads check. Those say nothing of a block that was written to another place, of a whole file
//! that is another's, or of a version file that names the wrong tables: the parents' do.

use super::StoreError;
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// `current`: the number of the version in force, its file's checksum, and which checksum that is (0: XXH3-128).
const CURRENT_BYTES: usize = 8 + 16 + 1;

/// Bytes of a table read at one time.
const PIECE: usize = 256 << 10;

/// Checks the version file in force of the store in `folder`, if there is a store yet. The crate keeps its checksum and does not look at it.
pub(super) fn check_version(folder: &Path) -> Result<(), StoreError> {
    let current = match fs::read(folder.join(lsm_tree::file::CURRENT_VERSION_FILE)) {
        Ok(current) => current,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return check_empty(folder),
        Err(e) => return Err(StoreError::Io(e)),
    };
    let damaged = |what: &str| StoreError::Damaged(format!("{}: {what}", folder.display()));
    let (Some(Ok(version)), Some(Ok(checksum)), Some(0), CURRENT_BYTES) = (
        current.get(..8).map(TryInto::try_into).map(|bytes| bytes.map(u64::from_le_bytes)),
        current.get(8..24).map(TryInto::try_into).map(|bytes: Result<[u8; 16], _>| bytes.map(u128::from_le_bytes)),
        current.get(24).copied(),
        current.len(),
    ) else {
        return Err(damaged("the file current makes no sense"));
    };
    match fs::read(folder.join(format!("v{version}"))) {
        Ok(file) if xxh3_128(&file) == checksum => Ok(()),
        Ok(_) => Err(damaged(&format!("v{version} has changed"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(damaged(&format!("v{version} is missing"))),
        Err(e) => Err(StoreError::Io(e)),
    }
}

/// A store without a version in force is one that was never opened: it has no tables.
fn check_empty(folder: &Path) -> Result<(), StoreError> {
    match fs::read_dir(folder.join(lsm_tree::file::TABLES_FOLDER)).map(|mut tables| tables.next().is_none()) {
        Ok(false) => Err(StoreError::Damaged(format!("{}: the file current is missing", folder.display()))),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::Io(e)),
        _ => Ok(()),
    }
}

/// A table that is being checked, piece by piece.
pub struct TableCheck {
    /// Its number.
    pub id: u64,
    path: PathBuf,
    expected: u128,
    file: File,
    hasher: Box<Xxh3>,
    piece: Vec<u8>,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// So many bytes more were read.
    Some(usize),
    /// The table is as it was written.
    Whole,
}

impl TableCheck {
    /// Begins; `None` if there is no such file.
    pub(super) fn begin(folder: &Path, id: u64, expected: u128) -> Result<Option<Self>, StoreError> {
        let path = folder.join(lsm_tree::file::TABLES_FOLDER).join(id.to_string());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::Io(e)),
        };
        // What is asked of is the disk, not the memory in front of it. Advice may be declined.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        Ok(Some(Self { id, path, expected, file, hasher: Box::default(), piece: vec![0; PIECE] }))
    }

    /// Reads on.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the table has changed since it was written.
    pub fn step(&mut self) -> Result<Checked, StoreError> {
        let read = self.file.read(&mut self.piece).map_err(StoreError::Io)?;
        if read > 0 {
            self.hasher.update(&self.piece[..read]);
            return Ok(Checked::Some(read));
        }
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        match self.hasher.digest128() == self.expected {
            true => Ok(Checked::Whole),
            false => Err(StoreError::Damaged(format!("{} has changed", self.path.display()))),
        }
    }
}
